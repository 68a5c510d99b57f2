package translate

import (
	"context"
	"fmt"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

// Train trains a model on the training pairs, with a vocabulary learned from them or
// given; the epoch is chosen on the validation pairs, if there are any. It does not
// change d.
//
// Invalid settings and pairs that cannot be learnt from are a *data.InputError, a
// tokenizer's file that cannot be read or is not valid a *model.FileError; a ctx
// that is cancelled before the first step returns its error. Other errors are
// those of [train.Fit] and [Model.Save]. If ctx is cancelled later, the result is
// marked Interrupted, and Dir contains a checkpoint to resume from and the model
// with the best weights so far, which is also returned.
func Train(ctx context.Context, d *Data, cfg Config, run *train.Run) (*Model, *train.Result, error) {
	return task.Fit("translate: Train", d, &cfg, run, func(o *train.Run) (*Model, *train.Result, error) {
		t, err := prepare(ctx, d, cfg, o.Device)
		if err != nil {
			return nil, nil, data.InFile(d.file, err)
		}
		result, err := t.fit(ctx, o)
		return t.m, result, err
	})
}

// prepare settles the configuration on the pairs and makes the untrained model.
func prepare(ctx context.Context, d *Data, cfg Config, on *tensor.Device) (*training, error) {
	pairs := d.Of(task.Training)
	e, err := task.Once(ctx, &d.read, d.key(&cfg), func() (*tokenized, error) { return d.tokenize(ctx, &cfg) })
	if err != nil {
		return nil, err
	}
	r := &training{pairs: e.pairs, valid: e.valid, held: d.Of(task.Validation)}
	cfg.settle(len(r.pairs.target.ids) + r.pairs.target.len())
	if cfg.BLEUTokenizer == "" {
		cfg.BLEUTokenizer = BLEUTokenizer(func(yield func(string) bool) {
			for i := range pairs {
				if !yield(pairs[i].Target) {
					return
				}
			}
		})
	}
	if r.m, err = newModel(cfg, e.tokenizers, on); err != nil {
		return nil, err
	}
	r.m.notes = append(r.pairs.notes("training", cfg.MaxLength), r.valid.notes("validation", cfg.MaxLength)...)
	for i := range r.pairs.source.len() {
		r.m.most = max(r.m.most, len(r.pairs.source.at(i))-1)
	}
	return r, nil
}

// tokenized is the pairs as tokens, which trainings share and do not change.
type tokenized struct {
	tokenizers   tokenizers
	pairs, valid *corpus
}

// key has all that decides how pairs are encoded, and which pairs of the data are meant.
func (d *Data) key(c *Config) string {
	pairs, held := d.Of(task.Training), d.Of(task.Validation)
	return fmt.Sprintf("%p %d %p %d %#v", pairs, len(pairs), held, len(held),
		[]any{c.Tokens, c.Segmenter, c.VocabularySize, c.MinCount, c.Separate, c.Case, c.Tokenizer, c.TargetTokenizer, c.MaxLength})
}

// tokenize makes the tokenizers and encodes the pairs of training and validation.
func (d *Data) tokenize(ctx context.Context, cfg *Config) (e *tokenized, err error) {
	e = &tokenized{}
	if e.tokenizers, err = makeTokenizers(ctx, d.Of(task.Training), cfg); err != nil {
		return nil, err
	}
	if e.pairs, err = encodePairs(ctx, d.Of(task.Training), cfg, e.tokenizers); err != nil {
		return nil, err
	}
	if e.pairs.source.len() == 0 {
		return nil, data.Errorf("no pair of sentences is left to learn from")
	}
	e.valid, err = encodePairs(ctx, d.Of(task.Validation), cfg, e.tokenizers)
	return e, err
}

// training is the state of a training run.
type training struct {
	m            *Model
	pairs, valid *corpus
	held         []data.Pair // the validation pairs; valid.kept are indices of them
	optimizer    *optim.Optimizer
	steps        int          // of the whole run
	draft        *tensor.Tape // for passes without gradient
}

// fit runs the training loop.
func (r *training) fit(ctx context.Context, o *train.Run) (*train.Result, error) {
	m, cfg := r.m, &r.m.cfg
	buckets := train.NewBuckets(r.pairs.targetLengths(), cfg.BatchTokens, cfg.BatchTokens, cfg.Seed)
	options := cfg.Settings.Options(buckets.Len(), o)
	options.Fingerprint = r.fingerprint()
	r.optimizer = optim.NewAdamW(m.slab, &optim.AdamWOptions{WeightDecay: float32(cfg.WeightDecay)})
	r.steps = options.TotalSteps(buckets.Len())
	r.draft = tensor.NewTape(m.slab.Device(), tensor.Infer)
	v := m.tok.target.Vocabulary()
	job := &train.Job[batch]{
		Slab:      m.slab,
		Optimizer: r.optimizer,
		Samples:   r.pairs.source.len(),
		Batches:   buckets.Batches,
		NewBatch:  func() *batch { return &batch{} },
		Load: func(b *batch, samples []int) {
			b.load(r.pairs, samples, v.BeginID(), v.EndID(), cfg.CarryState)
		},
		Loss:   r.loss,
		Weight: func(b *batch) float64 { return float64(b.tokens) },
	}
	if r.valid.source.len() > 0 {
		job.Validate = r.validate
		job.Metric = map[string]string{"bleu": "-bleu", "chrf": "-chrf", "loss": "loss"}[cfg.Select]
		job.Metrics = []string{"-bleu", "-chrf", "loss"}
	} else {
		options.Patience = 0
	}
	return train.Fit(ctx, job, options)
}

// loss returns the training loss of a batch.
func (r *training) loss(tape *tensor.Tape, b *batch) *tensor.Tensor {
	b.carry(r.m.net, r.draft)
	if share := r.m.cfg.ScheduledSampling * float64(r.optimizer.Steps()) / float64(max(r.steps, 1)); share > 0 {
		r.sample(tape, b, float32(min(share, 0.99)))
	}
	return r.m.net.loss(tape, b, float32(r.m.cfg.Smoothing))
}

// sample replaces a share of the decoder's inputs by the model's predictions from
// a pass over the true inputs, all steps at once (Bengio et al. 2015, in parallel
// as Duckworth et al. 2019).
func (r *training) sample(tape *tensor.Tape, b *batch, share float32) {
	n := r.m.net
	r.draft.Reset()
	m, state, _ := n.encode(r.draft.IDs(b.source, b.sourceLengths, b.rows, b.S), b.from(n, r.draft))
	o, _, _ := n.decode(r.draft.IDs(b.inputs, nil, b.rows, b.T), m, state)
	logits := n.Output.Forward(o).Data()
	// The draw is a dropout mask, which depends only on the seed and the step.
	kept := tensor.Dropout(tensor.AddScalar(tape.Zeros(b.rows, b.T), 1), share).Data()
	V := len(logits) / len(b.inputs)
	for i := range b.inputs {
		if t := i % b.T; t > 0 && kept[i] == 0 {
			b.inputs[i] = int32(largest(logits[(i-1)*V:][:V]))
		}
	}
}

// mostScored is the largest number of validation sentences that are translated
// after each epoch.
const mostScored = 1000

// validate returns the loss of the validation pairs, without smoothing, and the
// scores of their greedy translations, for at most mostScored evenly chosen
// pairs.
func (r *training) validate(ctx context.Context, tape *tensor.Tape) (map[string]float64, error) {
	m, cfg := r.m, &r.m.cfg
	v := m.tok.target.Vocabulary()
	sum, tokens := 0.0, 0.0
	var b batch
	batches := train.NewBuckets(r.valid.targetLengths(), cfg.BatchTokens, cfg.BatchTokens, 0).InOrder()
	err := train.Share(ctx, len(batches), func(_ context.Context, i int) ([]float64, error) {
		b.load(r.valid, batches[i], v.BeginID(), v.EndID(), cfg.CarryState)
		b.carry(m.net, r.draft)
		tape.Reset()
		n := float64(b.tokens)
		return []float64{float64(m.net.loss(tape, &b, 0).Item()) * n, n}, nil
	}, func(_ int, result []float64) error {
		sum, tokens = sum+result[0], tokens+result[1]
		return nil
	})
	if err != nil {
		return nil, err
	}
	var sources, references []string
	kept := r.valid.kept
	step := (len(kept) + mostScored - 1) / mostScored
	for i := 0; i < len(kept); i += step {
		p := &r.held[kept[i]]
		sources, references = append(sources, p.Source), append(references, p.Target)
	}
	found, err := m.Translate(ctx, sources, &PredictOptions{SearchOptions: SearchOptions{Beam: 1, LengthPenalty: 1}})
	if err != nil {
		return nil, err
	}
	s, lower := pairUp(found, references), cfg.Case == "lower"
	return map[string]float64{"loss": sum / tokens, "bleu": s.bleu(cfg.BLEUTokenizer, lower).Score, "chrf": s.chrf(0, lower)}, nil
}

// fingerprint returns a hash of the data and of the settings that change the
// arithmetic.
func (r *training) fingerprint() train.Fingerprint {
	c := r.m.cfg
	c.Settings, c.SearchOptions = c.Fixed(), SearchOptions{}
	f := train.NewFingerprint(c)
	for name, c := range map[string]*corpus{"training pairs": r.pairs, "validation pairs": r.valid} {
		var parts []any
		for _, s := range []*sequences{&c.source, &c.target} {
			parts = append(parts, s.ids)
			for _, end := range s.ends {
				parts = append(parts, int64(end))
			}
		}
		f.AddData(name, parts...)
	}
	return f
}
