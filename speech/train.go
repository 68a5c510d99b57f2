package speech

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

// TrainOptions says where a run writes and how it shows itself; nil trains in
// memory and in silence.
type TrainOptions struct {
	Dir         string          // receives checkpoints, metrics.jsonl and at the end the model; "" writes nothing
	Cache       string          // directory that keeps computed features; "" keeps none
	Resume      bool            // continue from Dir's last checkpoint
	Progress    *train.Progress // nil: quiet
	TensorBoard bool            // event files in Dir/tensorboard
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
	m, learn, valid, err := prepare(list, cfg, o.Cache)
	if err != nil {
		return nil, nil, err
	}
	result, err := m.fit(ctx, learn, valid, o)
	if err != nil || result.Interrupted {
		return m, result, err
	}
	if o.Dir != "" {
		err = m.Save(o.Dir)
	}
	return m, result, err
}

// prepare settles the configuration on the data and makes the untrained model.
func prepare(list []Utterance, cfg Config, cache string) (m *Model, learn, valid *corpus, err error) {
	if len(list) == 0 {
		return nil, nil, nil, data.Errorf("there is no utterance to learn from")
	}
	cfg.settle()
	training, validation, err := cfg.divide(list)
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
	learn = &corpus{dataset: &dataset{cfg: &cfg, cache: cache, list: training}}
	if err := learn.open(); err != nil {
		return nil, nil, nil, err
	}
	if err := learn.measure(); err != nil {
		return nil, nil, nil, err
	}
	valid = &corpus{dataset: &dataset{cfg: &cfg, cache: cache, list: validation, width: learn.width, stats: learn.stats}}
	if err := valid.open(); err != nil {
		return nil, nil, nil, err
	}
	notes, err := learn.spell(a)
	if err != nil {
		return nil, nil, nil, err
	}
	more, err := valid.spell(a)
	if err != nil && len(valid.list) > 0 {
		return nil, nil, nil, err
	}
	settleTraining(&cfg, len(learn.list))
	if m, err = newModel(cfg, a, learn.width, learn.stats); err != nil {
		return nil, nil, nil, err
	}
	m.notes = append(notes, more...)
	learn.cfg, valid.cfg = &m.cfg, &m.cfg
	return m, learn, valid, nil
}

func (c *Config) alphabet(training []Utterance) (*alphabet, error) {
	if c.Alphabet != "" {
		return readAlphabet(c.Units, c.Alphabet)
	}
	return collectAlphabet(c.Units, training)
}

// settleTraining fills in what depends on the number of training utterances.
func settleTraining(c *Config, n int) {
	if c.Epochs == 0 {
		c.Epochs = min(max(40_000/max(n, 1), 15), 100)
	}
	if c.Patience == 0 {
		c.Patience = max(c.Epochs/3, 5)
	}
}

// spell encodes the texts, and leaves utterances out that have fewer steps than
// their text needs; the note names them.
func (c *corpus) spell(a *alphabet) (notes []string, err error) {
	var short []string
	kept := 0
	for i, u := range c.list {
		labels, _ := a.encode(u.Text)
		if device.CTCSteps(labels) > c.steps[i] {
			short = append(short, fmt.Sprintf("%s (line %d: %d steps for %d units)", u.Audio, u.Line, c.steps[i], len(labels)))
			continue
		}
		c.list[kept], c.kept[kept], c.steps[kept] = u, c.kept[i], c.steps[i]
		c.labels = append(c.labels, labels)
		kept++
	}
	c.list, c.kept, c.steps = c.list[:kept], c.kept[:kept], c.steps[:kept]
	if len(short) == 0 {
		return nil, nil
	}
	text := fmt.Sprintf("%s too short for the text and left out: %s", counted(len(short), "utterance is", "utterances are"), some(short))
	if kept == 0 {
		return nil, data.Errorf("%s; check that texts belong to sounds, or give a smaller stack", text)
	}
	return []string{text}, nil
}

// fit runs the training loop.
func (m *Model) fit(ctx context.Context, learn, valid *corpus, o *TrainOptions) (*train.Result, error) {
	cfg := &m.cfg
	n := len(learn.list)
	most := max(1, int(cfg.BatchTime/cfg.stepSeconds()))
	buckets := train.NewBuckets(learn.steps, most, cfg.Batch, cfg.Seed)
	options := &train.Options{
		Epochs: cfg.Epochs, MaxTime: cfg.MaxTime, Clip: float32(cfg.Clip), EMA: cfg.EMA,
		Patience: max(cfg.Patience, 0), Seed: cfg.Seed, Dir: o.Dir, Resume: o.Resume, Progress: o.Progress, TensorBoard: o.TensorBoard,
		Fingerprint: m.fingerprint(learn),
	}
	total := options.TotalSteps(buckets.Len())
	options.Schedule = optim.WarmupCosine(cfg.LR, cfg.MinLR, int(cfg.Warmup*float64(total)), total)
	var failure error // of a file that went away during training
	job := &train.Job[batch]{
		Slab:      m.slab,
		Optimizer: optim.NewAdamW(m.slab, &optim.AdamWOptions{WeightDecay: float32(cfg.WeightDecay)}),
		Samples:   n,
		NewBatch:  func() *batch { return &batch{} },
		Batches: func(epoch int) [][]int {
			list := buckets.Batches(epoch)
			for _, b := range list {
				for i := range b {
					b[i] += epoch * n // the epoch's own augmentation
				}
			}
			return list
		},
		Load: func(b *batch, samples []int) { learn.load(b, samples, true) },
		Loss: func(t *tensor.Tape, b *batch) *tensor.Tensor {
			if b.err != nil {
				if failure == nil {
					failure = b.err
				}
				return t.Zeros(1)
			}
			logits, _ := m.net.forward(b.input(t), nil)
			return b.loss(t, logits)
		},
	}
	if len(valid.list) > 0 {
		job.Metric = "cer"
		job.Validate = func(ctx context.Context, t *tensor.Tape) (map[string]float64, error) {
			if failure != nil {
				return nil, failure
			}
			return m.validate(ctx, t, valid)
		}
	} else {
		options.Patience = 0
	}
	result, err := train.Fit(ctx, job, options)
	if failure != nil {
		return result, failure
	}
	return result, err
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

// batches lists the utterances for a pass that draws nothing.
func (c *corpus) batches() [][]int {
	most := max(1, int(c.cfg.BatchTime/c.cfg.stepSeconds()))
	return train.NewBuckets(c.steps, most, 2*c.cfg.Batch, 0).InOrder()
}

// compare counts the errors of a text in words and in units (characters, or
// symbols, of which words are made of one).
func (m *Model) compare(reference, hypothesis string) (words, units Errors) {
	_, words = Align(strings.Fields(reference), strings.Fields(hypothesis))
	_, units = Align(pieces(m.alphabet.Kind, reference), pieces(m.alphabet.Kind, hypothesis))
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

// fingerprint changes with the settings that change the arithmetic, and with
// the data.
func (m *Model) fingerprint(learn *corpus) string {
	h := sha256.New()
	c := m.cfg
	c.MaxTime, c.Patience = 0, 0
	text, _ := json.Marshal(c) // plain fields always have a JSON form
	h.Write(text)
	for i, u := range learn.list {
		fmt.Fprintf(h, "%d %d %s\n", u.Line, learn.steps[i], u.Text)
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:12])
}
