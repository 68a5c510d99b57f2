package translate

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"iter"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

// Train fits a model to pairs, with the vocabulary learned from them. valid
// decides which epoch's weights are kept; if nil, a share of the pairs is held
// out for it. If ctx is cancelled the result is marked Interrupted, Dir holds a
// checkpoint to resume from and no finished model, and the model returned is as
// far as it came.
func Train(ctx context.Context, pairs, valid Pairs, cfg Config, o *train.Run) (*Model, *train.Result, error) {
	if o == nil {
		o = &train.Run{}
	}
	if err := cfg.Validate(); err != nil {
		return nil, nil, err
	}
	if valid == nil && cfg.Holdout > 0 {
		pairs, valid = pairs.Split(cfg.Holdout, cfg.Seed)
	}
	tok, err := makeTokenizers(pairs, &cfg)
	if err != nil {
		return nil, nil, err
	}
	run := &training{}
	if run.pairs, err = readCorpus(pairs, &cfg, tok, cfg.MaxLength, false); err != nil {
		return nil, nil, err
	}
	if run.pairs.source.len() == 0 {
		return nil, nil, data.Errorf("no pair of sentences is left to learn from")
	}
	notes := run.pairs.notes("training", cfg.MaxLength)
	if valid != nil {
		if run.valid, err = readCorpus(valid, &cfg, tok, cfg.MaxLength, true); err != nil {
			return nil, nil, err
		}
		notes = append(notes, run.valid.notes("validation", cfg.MaxLength)...)
	}
	cfg.settle(len(run.pairs.target.ids) + run.pairs.target.len())
	if run.m, err = newModel(cfg, tok, o.Device); err != nil {
		return nil, nil, err
	}
	run.m.notes = notes
	for i := range run.pairs.source.len() {
		run.m.most = max(run.m.most, len(run.pairs.source.at(i))-1)
	}
	result, err := run.fit(ctx, o)
	if err == nil && !result.Interrupted && o.Writes() {
		err = run.m.Save(o.Dir)
	}
	return run.m, result, err
}

// training is what a run works with.
type training struct {
	m            *Model
	pairs, valid *corpus
	optimizer    *optim.Optimizer
	steps        int          // of the whole run
	draft        *tensor.Tape // for the passes that no gradient goes through
}

// fit runs the training loop.
func (r *training) fit(ctx context.Context, o *train.Run) (*train.Result, error) {
	m, cfg := r.m, &r.m.cfg
	buckets := train.NewBuckets(r.pairs.targetLengths(), cfg.BatchTokens, cfg.BatchTokens, cfg.Seed)
	options := cfg.Settings.Options(buckets.Len(), cfg.WarmupSteps, o)
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
	if r.valid != nil && r.valid.source.len() > 0 {
		job.Validate = r.validate
		job.Metric = map[string]string{"bleu": "-bleu", "chrf": "-chrf", "loss": "loss"}[cfg.Select]
	} else {
		options.Patience = 0
	}
	return train.Fit(ctx, job, options)
}

// loss is the training loss of a batch.
func (r *training) loss(tape *tensor.Tape, b *batch) *tensor.Tensor {
	b.carry(r.m.net, r.draft)
	if share := r.m.cfg.ScheduledSampling * float64(r.optimizer.Steps()) / float64(max(r.steps, 1)); share > 0 {
		r.sample(tape, b, float32(min(share, 0.99)))
	}
	return r.m.net.loss(tape, b, float32(r.m.cfg.Smoothing))
}

// sample puts the model's own guesses in the place of a share of the decoder's
// inputs: those of a pass over the true inputs, all steps at once (Bengio et al.
// 2015, in parallel as Duckworth et al. 2019).
func (r *training) sample(tape *tensor.Tape, b *batch, share float32) {
	n := r.m.net
	r.draft.Reset()
	m, state, _ := n.encode(r.draft.IDs(b.source, b.sourceLengths, b.rows, b.S), b.from(n, r.draft))
	o, _, _ := n.decode(r.draft.IDs(b.inputs, nil, b.rows, b.T), m, state)
	logits := n.Output.Forward(o).Data()
	// A dropout mask is the draw: it depends on the seed and the step alone.
	kept := tensor.Dropout(tensor.Shift(tape.Zeros(b.rows, b.T), 1), share).Data()
	V := len(logits) / len(b.inputs)
	for i := range b.inputs {
		if t := i % b.T; t > 0 && kept[i] == 0 {
			b.inputs[i] = int32(largest(logits[(i-1)*V:][:V]))
		}
	}
}

// mostScored is the most validation sentences that are translated after each epoch.
const mostScored = 1000

// validate gives the loss of the validation pairs, without smoothing, and the
// scores of translating them, an even choice of 1,000 if they are more, with the
// likeliest token at each step.
func (r *training) validate(ctx context.Context, tape *tensor.Tape) (map[string]float64, error) {
	m, cfg := r.m, &r.m.cfg
	v := m.tok.target.Vocabulary()
	sum, tokens := 0.0, 0
	var b batch
	for _, samples := range train.NewBuckets(r.valid.targetLengths(), cfg.BatchTokens, cfg.BatchTokens, 0).InOrder() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		b.load(r.valid, samples, v.BeginID(), v.EndID(), cfg.CarryState)
		b.carry(m.net, r.draft)
		tape.Reset()
		sum += float64(m.net.loss(tape, &b, 0).Item()) * float64(b.tokens)
		tokens += b.tokens
	}
	var sources, references []string
	step := (len(r.valid.texts) + mostScored - 1) / mostScored
	for i := 0; i < len(r.valid.texts); i += step {
		sources, references = append(sources, r.valid.texts[i].Source), append(references, r.valid.texts[i].Target)
	}
	found, err := m.Translate(ctx, sources, &Options{Search: &SearchOptions{Beam: 1, LengthPenalty: 1}})
	if err != nil {
		return nil, err
	}
	s := score(found, references, cfg.Lowercase)
	return map[string]float64{"loss": sum / float64(tokens), "bleu": s.BLEU, "chrf": s.CHRF}, nil
}

// fingerprint changes with the settings that change the arithmetic, and with
// the data.
func (r *training) fingerprint() string {
	h := sha256.New()
	c := r.m.cfg
	c.Settings, c.SearchOptions = c.Fixed(), SearchOptions{}
	text, _ := json.Marshal(c) // plain fields always have a JSON form
	h.Write(text)
	corpora := []*corpus{r.pairs}
	if r.valid != nil {
		corpora = append(corpora, r.valid)
	}
	for _, c := range corpora {
		for _, s := range []*sequences{&c.source, &c.target} {
			_ = binary.Write(h, binary.LittleEndian, s.ids) // a hash takes everything
			for _, end := range s.ends {
				_ = binary.Write(h, binary.LittleEndian, int64(end))
			}
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:12])
}

// Probe reads up to rows pairs from the beginning and gives their loss on a tape
// in Train mode: to look into the network, as package explain does.
func (m *Model) Probe(pairs Pairs, rows int) (func(*tensor.Tape) *tensor.Tensor, error) {
	if rows < 1 {
		return nil, fmt.Errorf("translate: Probe: needs rows, got %d", rows)
	}
	first := func() iter.Seq2[data.Pair, error] {
		return func(yield func(data.Pair, error) bool) {
			left := rows
			for p, err := range pairs() {
				if left--; !yield(p, err) || left == 0 {
					return
				}
			}
		}
	}
	c, err := readCorpus(first, &m.cfg, m.tok, m.cfg.MaxLength, false)
	if err != nil {
		return nil, err
	}
	if c.source.len() == 0 {
		return nil, data.Errorf("no pair of sentences to look at among the first %d", rows)
	}
	samples := make([]int, c.source.len())
	for i := range samples {
		samples[i] = i
	}
	b := &batch{}
	v := m.tok.target.Vocabulary()
	b.load(c, samples, v.BeginID(), v.EndID(), false)
	return func(tape *tensor.Tape) *tensor.Tensor { return m.net.loss(tape, b, float32(m.cfg.Smoothing)) }, nil
}
