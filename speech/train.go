package speech

import (
	"context"
	"fmt"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/text"
	"github.com/carousel-ml/carousel/train"
)

// TrainOptions says where a run writes and how it shows itself; nil trains in
// memory and in silence.
type TrainOptions struct {
	train.Run
	Cache string      // directory that keeps computed features; "" keeps none
	Test  []Utterance // of another manifest, for a later evaluation: their files are read before training starts
}

// Train fits a recogniser to utterances. All of their files are read before
// training starts, and those that cannot be are named together. If ctx is
// cancelled the result is marked Interrupted, Dir holds a checkpoint to resume
// from and no finished model, and the model returned is as far as it came.
func Train(ctx context.Context, list []Utterance, cfg Config, o *TrainOptions) (*Model, *train.Result, error) {
	if o == nil {
		o = &TrainOptions{}
	}
	if err := cfg.Validate(); err != nil {
		return nil, nil, err
	}
	m, learn, valid, err := prepare(list, cfg, o)
	if err != nil {
		return nil, nil, err
	}
	result, err := m.fit(ctx, learn, valid, o)
	if err != nil || result.Interrupted {
		return m, result, err
	}
	if err := m.help(ctx, valid.list); err != nil {
		return m, result, err
	}
	if o.Writes() {
		err = m.Save(o.Dir)
	}
	return m, result, err
}

// prepare settles the configuration on the data and makes the untrained model.
func prepare(list []Utterance, cfg Config, o *TrainOptions) (m *Model, learn, valid *corpus, err error) {
	if len(list) == 0 {
		return nil, nil, nil, data.Errorf("there is no utterance to learn from")
	}
	cfg.settle()
	decoding, err := cfg.decoding() // first, since a mistake in its files is found at once
	if err != nil {
		return nil, nil, nil, err
	}
	training, validation, err := cfg.Divide(list)
	if err != nil {
		return nil, nil, nil, err
	}
	a, err := cfg.alphabet(training)
	if err != nil {
		return nil, nil, nil, err
	}
	if err := a.check(append(training[:len(training):len(training)], validation...)); err != nil {
		return nil, nil, nil, err
	}
	if learn, valid, err = open(&cfg.Setup, training, validation, append(ofPart(list, "test"), o.Test...), o.Cache); err != nil {
		return nil, nil, nil, err
	}
	notes := learn.spell(a)
	if len(learn.list) == 0 {
		return nil, nil, nil, data.Errorf("%s; check that texts belong to sounds, or give a smaller stack", notes[0])
	}
	notes = append(notes, valid.spell(a)...)
	cfg.Settle(min(max(40_000/max(len(learn.list), 1), 15), 100))
	if m, err = newModel(cfg, a, learn.width, learn.stats, o.Device); err != nil {
		return nil, nil, nil, err
	}
	m.notes = notes
	m.decoding, m.files = *decoding, cfg.helperFiles()
	if err := m.decoding.check(a); err != nil {
		return nil, nil, nil, err
	}
	learn.cfg, valid.cfg = m.setup, m.setup
	return m, learn, valid, nil
}

func (c *Config) alphabet(training []Utterance) (*alphabet, error) {
	if c.Alphabet != "" {
		return readAlphabet(c.Tokens, c.Alphabet)
	}
	if c.Tokens != "bpe" {
		return collectAlphabet(c.Tokens, nil, training)
	}
	t, err := text.TrainTokenizer("bpe", func(yield func(string) bool) {
		for _, u := range training {
			if !yield(space + u.Text) {
				return
			}
		}
	}, &text.TokenizerOptions{VocabularySize: c.VocabularySize})
	if err != nil {
		return nil, err
	}
	return collectAlphabet(c.Tokens, t, training)
}

// spell encodes the texts, and leaves utterances out that have fewer steps than
// their text needs; the note names them.
func (c *corpus) spell(a *alphabet) (notes []string) {
	var short []string
	kept, silent := 0, 0
	for i, u := range c.list {
		labels, _ := a.encode(u.Text)
		if tensor.CTCSteps(labels) > c.steps[i] {
			short = append(short, fmt.Sprintf("%s (line %d: %d steps for %d units)", u.Audio, u.Line, c.steps[i], len(labels)))
			continue
		}
		c.list[kept], c.kept[kept], c.steps[kept] = u, c.kept[i], c.steps[i]
		c.labels = append(c.labels, labels)
		kept++
		if len(labels) == 0 {
			silent++
		}
	}
	c.list, c.kept, c.steps = c.list[:kept], c.kept[:kept], c.steps[:kept]
	if len(short) > 0 {
		notes = append(notes, fmt.Sprintf("%s too short for the text and left out: %s", counted(len(short), "utterance is", "utterances are"), some(short)))
	}
	if silent > 0 {
		notes = append(notes, counted(silent, "utterance has", "utterances have")+" no text: nothing is to be heard there")
	}
	return notes
}

// fit runs the training loop.
func (m *Model) fit(ctx context.Context, learn, valid *corpus, o *TrainOptions) (*train.Result, error) {
	f := &fitting{setup: m.setup, slab: m.slab, learn: learn, options: o, outputs: m.alphabet.Units, metric: "cer"}
	f.loss = func(t *tensor.Tape, b *batch) *tensor.Tensor {
		logits, _ := m.net.forward(b.input(t), nil)
		return b.loss(t, logits)
	}
	if len(valid.list) > 0 {
		f.validate = func(ctx context.Context, t *tensor.Tape) (map[string]float64, error) {
			return m.validate(ctx, t, valid)
		}
	}
	return f.run(ctx)
}

// validate is the loss and the error rates of greedy decoding.
func (m *Model) validate(ctx context.Context, t *tensor.Tape, valid *corpus) (map[string]float64, error) {
	var words, characters Errors
	var loss float64
	b := &batch{}
	for _, samples := range valid.batches() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if valid.load(b, samples, false); b.err != nil {
			return nil, b.err
		}
		t.Reset()
		logits, _ := m.net.forward(b.input(t), nil)
		all, classes := logits.Data(), m.alphabet.classes()
		loss += float64(b.loss(t, logits).Item()) * float64(len(samples))
		for k, s := range samples {
			row := all[k*b.steps*classes:][:int(b.lengths[k])*classes]
			text := m.alphabet.decode(greedy(row, classes))
			w, c := m.compare(valid.list[s].Text, text)
			words.add(w)
			characters.add(c)
		}
	}
	return map[string]float64{"loss": loss / float64(len(valid.list)), "wer": words.Rate(), "cer": characters.Rate()}, nil
}

// compare counts the errors of a text in words and in units (characters, or
// symbols, of which words are made of one).
func (m *Model) compare(reference, hypothesis string) (words, units Errors) {
	_, words = Align(strings.Fields(reference), strings.Fields(hypothesis))
	_, units = Align(letters(m.alphabet.Kind, reference), letters(m.alphabet.Kind, hypothesis))
	return words, units
}

// greedy is the classes that the likeliest class of each step spells.
func greedy(logits []float32, classes int) []int32 {
	var out []int32
	last := 0
	for ; len(logits) > 0; logits = logits[classes:] {
		best := 0
		for c, v := range logits[:classes] {
			if v > logits[best] {
				best = c
			}
		}
		if best != 0 && best != last {
			out = append(out, int32(best))
		}
		last = best
	}
	return out
}
