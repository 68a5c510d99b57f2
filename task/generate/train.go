package generate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"

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
// tokens, two bytes each, or four for a vocabulary above 65,536, in addition to the data,
// which it does not change: in memory, or, where texts stay in their files, in files of
// the run's directory, or the system's for temporary files. These are removed at the end;
// those of an interrupted run are kept, for its resumption.
//
// Invalid settings, and a text too short for them, are a *data.InputError; other
// errors are those of [train.Fit], and of writing the files of tokens. If ctx is cancelled while the data are
// prepared, its error is returned; later, the result is marked Interrupted, and
// Dir contains a checkpoint to resume from and the model with the best weights so
// far, which is also returned.
func Train(ctx context.Context, d *Data, cfg Config, run *train.Run) (*Model, *train.Result, error) {
	return task.Fit("generate: Train", d, &cfg, run, func(o *train.Run) (_ *Model, result *train.Result, err error) {
		t, err := d.encode(ctx, &cfg, o.Dir)
		if err != nil {
			return nil, nil, data.InFile(d.file, err)
		}
		again := false // whether the files of tokens are needed once more
		defer func() { t.close(again) }()
		m, err := prepare(t, cfg, o.Device)
		if err != nil {
			return nil, nil, data.InFile(d.file, err)
		}
		result, err = m.fit(ctx, t.training, t.validation, o)
		again = err != nil && !errors.Is(err, train.ErrPause) || result.Interrupted
		return m, result, err
	})
}

// encoded is the texts of a training as tokens.
type encoded struct {
	*codec
	training, validation *corpus // validation is nil if there is none
}

func (e *encoded) close(again bool) {
	e.training.close(again)
	if e.validation != nil {
		e.validation.close(again)
	}
}

// encode learns the tokens of the training text, of which it settles the settings, and
// encodes the texts; dir is the run's. What trainings of these data with the same settings
// of tokens have in common is computed once.
func (d *Data) encode(ctx context.Context, cfg *Config, dir string) (*encoded, error) {
	type learnt struct {
		*codec
		size, least int
	}
	key := fmt.Sprint(cfg.Tokens, cfg.VocabularySize, cfg.MinCount)
	l, err := task.Once(ctx, &d.coded, "tokens "+key, func() (l learnt, err error) {
		own := *cfg
		characters, marked, err := measure(ctx, d.Training, text.Unknown)
		if err != nil {
			return l, err
		}
		own.settleText(characters, marked)
		l.size, l.least = own.VocabularySize, own.MinCount
		l.codec, err = trainCodec(ctx, &own, d.Training)
		return l, err
	})
	if err != nil {
		return nil, err
	}
	cfg.VocabularySize, cfg.MinCount = l.size, l.least
	keep := ""
	if dir != "" {
		keep = filepath.Join(dir, "tokens")
	}
	all := func() (*encoded, error) {
		e := &encoded{codec: l.codec}
		if e.training, err = newCorpus(ctx, e.codec, d.Training, false, keep); err != nil || len(d.Validation) == 0 {
			return e, err
		}
		if e.validation, err = newCorpus(ctx, e.codec, d.Validation, false, keep); err != nil {
			e.training.close(true)
		}
		return e, err
	}
	if slices.ContainsFunc(slices.Concat(d.Training, d.Validation), data.Document.Stays) {
		return all() // files belong to one training
	}
	return task.Once(ctx, &d.coded, "texts "+key, all)
}

// leastTokens is the least number of tokens of a training text.
const leastTokens = 64

// prepare settles the configuration on the text and makes the untrained model.
func prepare(t *encoded, cfg Config, on *tensor.Device) (*Model, error) {
	tokens, counts := t.training.Tokens, t.training.Counts
	if tokens < leastTokens {
		return nil, data.Errorf("the training text has %d tokens; at least %d are needed; give more text, or smaller tokens than %s", tokens, leastTokens, cfg.Tokens)
	}
	if n := len(cfg.Cutoffs); n > 0 && cfg.Cutoffs[n-1] >= len(counts) {
		return nil, data.Errorf("cutoffs: want numbers below the vocabulary's size %d, got %v", len(counts), cfg.Cutoffs)
	}
	cfg.settle(tokens, counts)
	m, err := newModel(cfg, t.codec, counts, on)
	if err != nil {
		return nil, err
	}
	m.net.startAtFrequencies(newRare(t.codec, counts).expected(counts))
	return m, nil
}

// logCount returns the logarithm of a count, and of one half for 0.
func logCount(n float64) float32 { return float32(math.Log(cmp.Or(n, 0.5))) }

// fit runs the training loop. Batch k of a step, of all ranks, reads streams of its own,
// k·Batch and the following, so that a step of R ranks that accumulate A batches is one of
// a process that accumulates R·A, and each batch goes on where the same number of the step
// before ended.
func (m *Model) fit(ctx context.Context, c, valid *corpus, o *train.Run) (*train.Result, error) {
	cfg := &m.cfg
	slots := max(cfg.Accumulate, 1) * o.Ranks()
	if c.Tokens < cfg.Batch*slots {
		return nil, data.Errorf("batch: want at most the number of tokens of the text, %d, divided by the batches of a step, %d (accumulate x ranks), got %d; give a smaller batch or more text", c.Tokens, slots, cfg.Batch)
	}
	s := newStreams(c, cfg.Batch*slots, cfg.BPTT, false, cfg.Seed)
	s.rare = newRare(m.codec, m.counts)
	carries := make([]*nn.Carry, slots)
	carry := func(slot int) *nn.Carry {
		if carries[slot] == nil {
			carries[slot] = nn.NewCarry(m.net.RNN, cfg.Batch)
		}
		return carries[slot]
	}
	perEpoch := s.batches * slots
	options := cfg.Settings.Options(perEpoch, o)
	options.Fingerprint = m.fingerprint(c, valid)
	job := &train.Job[batch]{
		Slab:      m.slab,
		Optimizer: optim.NewAdamW(m.slab, &optim.AdamWOptions{WeightDecay: float32(cfg.WeightDecay)}),
		Samples:   c.Tokens,
		NewBatch:  func() *batch { return &batch{} },
		// A sample is a segment of the streams of a slot, numbered through all epochs,
		// since each epoch reads the documents in another order.
		Batches: func(epoch int) [][]int {
			list := make([][]int, perEpoch)
			for i := range list {
				list[i] = []int{epoch*perEpoch + i}
			}
			return list
		},
		Load: func(b *batch, samples []int) {
			epoch, i := samples[0]/perEpoch, samples[0]%perEpoch
			b.slot = i % slots
			err := s.load(b, epoch, i/slots, b.slot*cfg.Batch, (b.slot+1)*cfg.Batch)
			tensor.Check(err == nil, "generate: Train", "%v", err) // which ends the run
		},
		Carry: func(slot int) train.Carry { return carry(slot) },
		Loss: func(tape *tensor.Tape, b *batch) *tensor.Tensor {
			carry := carry(b.slot)
			l, to := m.net.loss(tape, b, carry.Begin(tape, b.begins))
			carry.End(to)
			return l
		},
		Weight: func(b *batch) float64 { return float64(b.tokens) },
	}
	if valid != nil && valid.Tokens > 0 {
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

// validation returns a function that scores a corpus, with a separate state. The loss is
// summed by stream, so that it does not depend on which rank computes which.
func (m *Model) validation(c *corpus) func(context.Context, *tensor.Tape) (map[string]float64, error) {
	rows := min(max(c.Tokens/validationRow, 1), evaluationRows)
	s := newStreams(c, rows, m.segment(rows), false, 0)
	return func(ctx context.Context, tape *tensor.Tape) (map[string]float64, error) {
		byRow := make([]tally, rows)
		err := m.scoreStreams(ctx, tape, s, func(row int, _ piece, nats []float32) error {
			for _, v := range nats {
				byRow[row].add(float64(v))
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		var all tally
		for _, t := range byRow {
			all.sum, all.n = all.sum+t.sum, all.n+t.n
		}
		scores := all.metrics(0)
		return map[string]float64{"loss": scores.Nats, "perplexity": scores.Perplexity}, nil
	}
}

// segmentsAtOnce is the number of segments that a rank computes before it tells the others
// the results.
const segmentsAtOnce = 4

// scoreStreams computes -log p of all tokens of streams, which are read once, with their state
// carried. Each rank of ctx reads some of the rows; what it finds does not depend on the
// others. use takes, on every rank and in the same order, what a segment of a row has.
func (m *Model) scoreStreams(ctx context.Context, tape *tensor.Tape, s *streams, use func(row int, p piece, nats []float32) error) error {
	rows := len(s.rows)
	groups := min(train.Ranks(ctx), rows)
	group := func(i int) (lo, hi int) { return i * rows / groups, (i + 1) * rows / groups }
	var carry *nn.Carry // of the only group that this rank computes
	var scores, nats []float32
	b := &batch{}
	s.arrange(0)
	for first := 0; first < s.batches; first += segmentsAtOnce {
		end := min(first+segmentsAtOnce, s.batches)
		err := train.Share(ctx, groups, func(ctx context.Context, i int) ([]float32, error) {
			lo, hi := group(i)
			if carry == nil {
				carry = nn.NewCarry(m.net.RNN, hi-lo)
			}
			nats = nats[:0]
			for n := first; n < end; n++ {
				if err := ctx.Err(); err != nil {
					return nil, err
				}
				if err := s.load(b, 0, n, lo, hi); err != nil {
					return nil, err
				}
				if b.tokens == 0 {
					break // these rows have ended
				}
				tape.Reset()
				x, _, _, to := m.net.steps(tape, b.input(tape), carry.Begin(tape, b.begins))
				scores = train.Resize(scores, b.B*b.T)
				m.net.score(scores, x, b.targets)
				carry.End(to)
				for r, steps := range b.lengths {
					for _, v := range scores[r*b.T:][:steps] {
						nats = append(nats, -v)
					}
				}
			}
			return nats, nil
		}, func(i int, nats []float32) error {
			lo, hi := group(i)
			for n := first; n < end; n++ {
				for row := lo; row < hi; row++ {
					p, _ := s.segment(s.order[row], n)
					steps := p.steps()
					if steps == 0 {
						continue
					}
					if err := use(row, p, nats[:steps]); err != nil {
						return err
					}
					nats = nats[steps:]
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// fingerprint returns hashes of the texts, of which valid may be nil, and the settings that change the
// arithmetic.
func (m *Model) fingerprint(c, valid *corpus) train.Fingerprint {
	cfg := m.cfg
	cfg.Settings = cfg.Fixed()
	f := train.NewFingerprint(cfg)
	f.Data["training text"] = c.Sum
	if valid != nil {
		f.Data["validation text"] = valid.Sum
	}
	return f
}
