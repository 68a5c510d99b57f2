package generate

import (
	"cmp"
	"context"
	"math"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/text"
	"github.com/carousel-ml/carousel/train"
)

// Train trains a language model on the training text; the epoch is chosen on the
// validation text, and without one the last weights are kept. It keeps texts as
// token ids, four bytes per token, in addition to the data, which it does not change.
//
// Invalid settings, and a text too short for them, are a *data.InputError; other
// errors are those of [train.Fit]. If ctx is cancelled while the data are
// prepared, its error is returned; later, the result is marked Interrupted, and
// Dir contains a checkpoint to resume from and the model with the best weights so
// far, which is also returned.
func Train(ctx context.Context, d *Data, cfg Config, run *train.Run) (*Model, *train.Result, error) {
	return task.Fit("generate: Train", d, &cfg, run, func(o *train.Run) (*Model, *train.Result, error) {
		m, c, err := prepare(ctx, d.Training, cfg, o.Device)
		if err != nil {
			return nil, nil, data.InFile(d.file, err)
		}
		var v *corpus
		if len(d.Validation) > 0 {
			if v, err = newCorpus(ctx, m.codec, d.Validation); err != nil {
				return nil, nil, err
			}
		}
		result, err := m.fit(ctx, c, v, o)
		return m, result, err
	})
}

// leastTokens is the least number of tokens of a training text.
const leastTokens = 64

// prepare settles the configuration on the text and makes the untrained model.
func prepare(ctx context.Context, docs []data.Document, cfg Config, on *tensor.Device) (*Model, *corpus, error) {
	marked := false
	for _, d := range docs {
		marked = marked || strings.Contains(d.Text, text.Unknown)
	}
	cfg.settleText(characters(docs), marked)
	k, err := trainCodec(ctx, &cfg, docs)
	if err != nil {
		return nil, nil, err
	}
	c, err := newCorpus(ctx, k, docs)
	if err != nil {
		return nil, nil, err
	}
	if c.tokens < leastTokens {
		return nil, nil, data.Errorf("the training text has %d tokens; at least %d are needed; give more text, or smaller tokens than %s", c.tokens, leastTokens, cfg.Tokens)
	}
	counts := c.counts(k.tokens.Vocabulary().Len())
	if n := len(cfg.Cutoffs); n > 0 && cfg.Cutoffs[n-1] >= len(counts) {
		return nil, nil, data.Errorf("cutoffs: want numbers below the vocabulary's size %d, got %v", len(counts), cfg.Cutoffs)
	}
	cfg.settle(c.tokens, counts)
	if c.tokens < cfg.Batch {
		return nil, nil, data.Errorf("batch: want at most the number of tokens of the text, %[2]d, got %[1]d; give a smaller batch or more text", cfg.Batch, c.tokens)
	}
	m, err := newModel(cfg, k, counts, on)
	if err != nil {
		return nil, nil, err
	}
	m.net.startAtFrequencies(newRare(k, counts).expected(counts))
	return m, c, nil
}

// logCount returns the logarithm of a count, and of one half for 0.
func logCount(n float64) float32 { return float32(math.Log(cmp.Or(n, 0.5))) }

// fit runs the training loop.
func (m *Model) fit(ctx context.Context, c, valid *corpus, o *train.Run) (*train.Result, error) {
	cfg := &m.cfg
	if o.Ranks() > 1 {
		return nil, data.Errorf("generate: want one process, got %d ranks: its batches follow one another", o.Ranks())
	}
	s := newStreams(c, cfg.Batch, cfg.BPTT, false, cfg.Seed)
	s.rare = newRare(m.codec, m.counts)
	carry := nn.NewCarry(m.net.RNN, cfg.Batch)
	options := cfg.Settings.Options(s.batches, o)
	options.Fingerprint = m.fingerprint(c, valid)
	job := &train.Job[batch]{
		Slab:      m.slab,
		Optimizer: optim.NewAdamW(m.slab, &optim.AdamWOptions{WeightDecay: float32(cfg.WeightDecay)}),
		Samples:   c.tokens,
		NewBatch:  func() *batch { return &batch{} },
		// A sample is a segment of every stream, numbered through all epochs,
		// since each epoch reads the documents in another order.
		Batches: func(epoch int) [][]int {
			list := make([][]int, s.batches)
			for i := range list {
				list[i] = []int{epoch*s.batches + i}
			}
			return list
		},
		Load:  func(b *batch, samples []int) { s.load(b, samples[0]/s.batches, samples[0]%s.batches) },
		Carry: func(int) train.Carry { return carry },
		Loss: func(tape *tensor.Tape, b *batch) *tensor.Tensor {
			l, to := m.net.loss(tape, b, carry.Begin(tape, b.begins))
			carry.End(to)
			return l
		},
		Weight: func(b *batch) float64 { return float64(b.tokens) },
	}
	if valid != nil && valid.tokens > 0 {
		job.Metric, job.Metrics = "loss", []string{"loss", "perplexity"}
		job.Validate = m.validation(valid)
	} else {
		options.Patience = 0
	}
	return train.Fit(ctx, job, options)
}

// validationRow is the least number of steps of a stream in validation, if there
// are several.
const validationRow = 1000

// validation returns a function that scores a corpus, with a separate state.
func (m *Model) validation(c *corpus) func(context.Context, *tensor.Tape) (map[string]float64, error) {
	rows := min(max(c.tokens/validationRow, 1), evaluationRows)
	s := newStreams(c, rows, m.segment(rows), false, 0)
	b := &batch{}
	return func(ctx context.Context, tape *tensor.Tape) (map[string]float64, error) {
		carry := nn.NewCarry(m.net.RNN, rows)
		sum, n := 0.0, 0
		for i := range s.batches {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			s.load(b, 0, i)
			tape.Reset()
			x, _, _, to := m.net.steps(tape, b.input(tape), carry.Begin(tape, b.begins))
			l := m.net.nats(x, b.targets)
			carry.End(to)
			sum, n = sum+float64(l.Item())*float64(b.tokens), n+b.tokens
		}
		nats := sum / float64(n)
		return map[string]float64{"loss": nats, "perplexity": math.Exp(nats)}, nil
	}
}

// fingerprint returns hashes of the texts, of which valid may be nil, and the settings that change the
// arithmetic.
func (m *Model) fingerprint(c, valid *corpus) train.Fingerprint {
	cfg := m.cfg
	cfg.Settings = cfg.Fixed()
	f := train.NewFingerprint(cfg)
	f.AddData("training text", c.values()...)
	if valid != nil {
		f.AddData("validation text", valid.values()...)
	}
	return f
}

// values returns the documents, for a fingerprint.
func (c *corpus) values() (docs []any) {
	for _, d := range c.docs {
		docs = append(docs, d)
	}
	return docs
}
