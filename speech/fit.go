package speech

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

// open reads the utterances of all parts. Those of the test are not kept: they
// are read so that a damaged file is found now and not when training has ended.
func open(s *Setup, training, validation, test []Utterance, cache string) (learn, valid *corpus, err error) {
	learn = &corpus{dataset: &dataset{cfg: s, cache: cache, list: training}}
	faults, err := learn.open()
	if err != nil {
		return nil, nil, err
	}
	valid = &corpus{dataset: &dataset{cfg: s, cache: cache, list: validation, width: learn.width}}
	for _, d := range []*dataset{valid.dataset, {cfg: s, cache: cache, list: test, width: learn.width}} {
		more, err := d.open()
		if err != nil {
			return nil, nil, err
		}
		faults = append(faults, more...)
	}
	if err := gather(faults); err != nil {
		return nil, nil, err
	}
	err = learn.measure()
	valid.stats = learn.stats
	return learn, valid, err
}

// ofPart is the utterances of one part.
func ofPart(list []Utterance, part string) []Utterance {
	return slices.DeleteFunc(slices.Clone(list), func(u Utterance) bool { return u.Part != part })
}

// fitting is a training of any model that listens.
type fitting struct {
	setup    *Setup
	slab     *tensor.Slab
	learn    *corpus
	options  *TrainOptions
	outputs  []string // what the network says, for the fingerprint
	loss     func(t *tensor.Tape, b *batch) *tensor.Tensor
	metric   string
	validate func(ctx context.Context, t *tensor.Tape) (map[string]float64, error) // nil: no validation
}

func (f *fitting) run(ctx context.Context) (*train.Result, error) {
	s, o, n := f.setup, f.options, len(f.learn.list)
	most := max(1, int(s.BatchTime/s.stepSeconds()))
	buckets := train.NewBuckets(f.learn.steps, most, s.Batch, s.Seed)
	warmup := int(s.WarmupShare * float64(s.TotalSteps(buckets.Len(), &o.Run)))
	options := s.Settings.Options(buckets.Len(), warmup, &o.Run)
	options.Fingerprint = f.fingerprint()
	var failure error // of a file that went away during training
	job := &train.Job[batch]{
		Slab:      f.slab,
		Optimizer: optim.NewAdamW(f.slab, &optim.AdamWOptions{WeightDecay: float32(s.WeightDecay)}),
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
		Load: func(b *batch, samples []int) { f.learn.load(b, samples, true) },
		Loss: func(t *tensor.Tape, b *batch) *tensor.Tensor {
			if b.err == nil {
				return f.loss(t, b)
			}
			if failure == nil {
				failure = b.err
			}
			return t.Zeros(1)
		},
	}
	if f.validate != nil {
		job.Metric, job.Validate = f.metric, f.validate
	} else {
		options.Patience = 0
	}
	options.AfterEpoch(func(train.Record) error { return failure })
	result, err := train.Fit(ctx, job, options)
	if failure != nil {
		return result, failure
	}
	return result, err
}

// fingerprint changes with the settings that change the arithmetic, and with
// the data.
func (f *fitting) fingerprint() string {
	h := sha256.New()
	s := *f.setup
	s.Settings = s.Fixed()
	text, _ := json.Marshal([]any{s, f.outputs}) // plain fields always have a JSON form
	h.Write(text)
	for i, u := range f.learn.list {
		fmt.Fprintf(h, "%d %d %s\n", u.Line, f.learn.steps[i], u.Text)
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:12])
}
