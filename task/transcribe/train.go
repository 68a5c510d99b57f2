package transcribe

import (
	"context"
	"fmt"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/speech"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/text"
	"github.com/carousel-ml/carousel/train"
)

// Train trains a recogniser on the training utterances; the epoch and the weights
// of a language model and lexicon are chosen on the validation utterances, if
// there are any. All sounds, also those of the test part, are read before
// training starts.
//
// Invalid settings and data, and files that cannot be used, are a
// *data.InputError; it names the first dozen files. Other errors are those of
// [train.Fit] and [Model.Save]. If ctx is cancelled while the data are prepared,
// its error is returned; later, the result is marked Interrupted, and Dir
// contains a checkpoint to resume from and the model with the best weights so
// far, which is also returned.
func Train(ctx context.Context, d *Data, cfg Config, run *train.Run) (*Model, *train.Result, error) {
	return task.Fit("transcribe: Train", d, &cfg, run, func(o *train.Run) (*Model, *train.Result, error) {
		m, learn, valid, err := prepare(ctx, d, cfg, o.Device)
		if err != nil {
			return nil, nil, err
		}
		result, err := m.fit(ctx, learn, valid, o)
		if err != nil || result.Interrupted { // tuning takes long; the defaults do
			return m, result, err
		}
		if err := m.tuneDecoding(task.Finishing(ctx, o, result), d, valid.List); err != nil {
			return m, result, err
		}
		return m, result, nil
	})
}

// prepare settles the configuration on the data and makes the untrained model.
func prepare(ctx context.Context, d *Data, cfg Config, on *tensor.Device) (m *Model, learn, valid *speech.Dataset, err error) {
	cfg.FillDefaults()
	decoding, err := cfg.decoding(ctx) // first, so that errors in its files are found at once
	if err != nil {
		return nil, nil, nil, err
	}
	training, err := d.ToLearn(&cfg.Setup)
	if err != nil {
		return nil, nil, nil, err
	}
	a, err := cfg.alphabet(ctx, training)
	if err != nil {
		return nil, nil, nil, err
	}
	if err := a.check(append(training[:len(training):len(training)], d.Validation...)); err != nil {
		return nil, nil, nil, err
	}
	if learn, valid, err = d.Prepare(ctx, &cfg.Setup); err != nil {
		return nil, nil, nil, err
	}
	notes := a.spell(learn)
	if len(learn.List) == 0 {
		return nil, nil, nil, data.Errorf("%s; check that texts belong to their sounds, or give a smaller stack", notes[0])
	}
	notes = append(notes, a.spell(valid)...)
	cfg.Settings.FillDefaults(min(max(40_000/max(len(learn.List), 1), 15), 100))
	if m, err = newModel(cfg, a, learn.Frontend, on); err != nil {
		return nil, nil, nil, err
	}
	m.notes = append(notes, decoding.read()...)
	m.decoding, m.files = *decoding, cfg.decodingFiles()
	return m, learn, valid, m.decoding.check(a)
}

func (c *Config) alphabet(ctx context.Context, training []speech.Utterance) (*alphabet, error) {
	if c.Alphabet != "" {
		return readAlphabet(c.Tokens, c.Alphabet)
	}
	if c.Tokens != "bpe" {
		return collectAlphabet(c.Tokens, nil, training)
	}
	t, err := text.TrainTokenizer(ctx, "bpe", func(yield func(string) bool) {
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

// spell sets the classes of the utterances' texts, and removes utterances that
// have fewer steps than their text needs. It returns notes on them.
func (a *alphabet) spell(c *speech.Dataset) (notes []string) {
	var short []string
	silent, steps := 0, c.StepCounts()
	c.Labels = [][]int32{}
	c.Keep(func(i int) bool {
		u := &c.List[i]
		labels, _ := a.encode(u.Text)
		if tensor.CTCSteps(labels) > steps[i] {
			short = append(short, fmt.Sprintf("%s (line %d: %d steps for %d tokens)", u.Audio, u.Line, steps[i], len(labels)))
			return false
		}
		c.Labels = append(c.Labels, labels)
		if len(labels) == 0 {
			silent++
		}
		return true
	})
	if len(short) > 0 {
		notes = append(notes, fmt.Sprintf("%s too short for the text and left out: %s", report.Agree(len(short), "utterance is", "utterances are"), report.Listing(short)))
	}
	if silent > 0 {
		notes = append(notes, report.Agree(silent, "utterance has", "utterances have")+" no text: the network learns to output none")
	}
	return notes
}

// fit runs the training loop.
func (m *Model) fit(ctx context.Context, learn, valid *speech.Dataset, o *train.Run) (*train.Result, error) {
	job := &speech.Job{
		Setup: &m.cfg.Setup, Slab: m.slab, Learn: learn, Valid: valid, Outputs: m.alphabet.Units,
		Metric: "cer", Metrics: []string{"cer", "wer", "loss"}, Loss: m.loss,
	}
	if len(valid.List) > 0 {
		job.Validate = func(ctx context.Context, t *tensor.Tape) (map[string]float64, error) {
			return m.validate(ctx, t, valid)
		}
	}
	return job.Fit(ctx, o)
}

// loss returns the mean over rows of the CTC loss, each divided by its number of
// labels.
func (m *Model) loss(t *tensor.Tape, b *speech.Batch) *tensor.Tensor {
	logits, _ := m.net.Forward(b.Input(t), nil)
	return ctc(t, b, logits)
}

func ctc(t *tensor.Tape, b *speech.Batch, logits *tensor.Tensor) *tensor.Tensor {
	value, _ := tensor.CTC(logits, t.IDs(b.Labels, b.LabelCounts, len(b.Lengths), b.Most), nil)
	return value
}

// validate returns the loss and the error rates of greedy decoding.
func (m *Model) validate(ctx context.Context, t *tensor.Tape, valid *speech.Dataset) (map[string]float64, error) {
	var words, characters Errors
	var loss float64
	classes := m.alphabet.classes()
	err := speech.Each(ctx, t, m.net, valid, func(samples []int, b *speech.Batch, logits *tensor.Tensor) []float64 {
		var words, characters Errors
		all := logits.Data()
		for k, s := range samples {
			row := all[k*b.Steps*classes:][:int(b.Lengths[k])*classes]
			w, c := m.compare(valid.List[s].Text, m.alphabet.decode(greedy(row, classes)))
			words.add(w)
			characters.add(c)
		}
		loss := float64(ctc(t, b, logits).Item()) * float64(len(samples))
		return append(append(words.numbers(), characters.numbers()...), loss)
	}, func(_ []int, result []float64) {
		words.add(errorsOf(result))
		characters.add(errorsOf(result[5:]))
		loss += result[10]
	})
	return map[string]float64{"loss": loss / float64(len(valid.List)), "wer": words.Rate(), "cer": characters.Rate()}, err
}

// compare counts the errors of a text in words and in characters or symbols.
func (m *Model) compare(reference, hypothesis string) (words, units Errors) {
	_, words = Align(strings.Fields(reference), strings.Fields(hypothesis))
	_, units = Align(letters(m.alphabet.Kind, reference), letters(m.alphabet.Kind, hypothesis))
	return words, units
}

// greedy returns the classes that the most probable class of each step spells.
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
