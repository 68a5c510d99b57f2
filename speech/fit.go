package speech

import (
	"context"

	"fmt"
	"strings"

	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

// Job is the training of a network on utterances.
type Job struct {
	Setup    *Setup
	Slab     *tensor.Slab
	Learn    *Dataset
	Valid    *Dataset // what Validate scores; may be empty
	Outputs  []string // the names of the network's outputs and what else its results depend on, for the fingerprint
	Loss     func(t *tensor.Tape, b *Batch) *tensor.Tensor
	Metric   string                                                                // key of Validate's result by which the epoch is chosen; lower is better
	Metrics  []string                                                              // all keys, with "-" before those of which more is better
	Validate func(ctx context.Context, t *tensor.Tape) (map[string]float64, error) // nil: no validation
}

// Fit runs the training. A file that can no longer be read ends it with a
// *data.InputError; other errors are those of [train.Fit].
func (f *Job) Fit(ctx context.Context, o *train.Run) (*train.Result, error) {
	s, n := f.Setup, len(f.Learn.List)
	buckets := train.NewBuckets(f.Learn.StepCounts(), s.batchSteps(), s.Batch, s.Seed)
	options := s.Settings.Options(buckets.Len(), o)
	options.Fingerprint = f.fingerprint()
	var failure error // of a file that could not be read during training
	job := &train.Job[Batch]{
		Slab:      f.Slab,
		Optimizer: optim.NewAdamW(f.Slab, &optim.AdamWOptions{WeightDecay: float32(s.WeightDecay)}),
		Samples:   n,
		NewBatch:  func() *Batch { return &Batch{} },
		Batches: func(epoch int) [][]int {
			list := buckets.Batches(epoch)
			for _, b := range list {
				for i := range b {
					b[i] += epoch * n // the epoch's own augmentation
				}
			}
			return list
		},
		Load: func(b *Batch, samples []int) { b.err = f.Learn.Load(b, samples, true) },
		Loss: func(t *tensor.Tape, b *Batch) *tensor.Tensor {
			if b.err == nil {
				return f.Loss(t, b)
			}
			if failure == nil {
				failure = b.err
			}
			return t.Zeros(1)
		},
	}
	if f.Validate != nil {
		job.Metric, job.Metrics, job.Validate = f.Metric, f.Metrics, f.Validate
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

// fingerprint returns a hash of the data and of the settings that change the
// arithmetic.
func (f *Job) fingerprint() train.Fingerprint {
	s := *f.Setup
	s.Settings = s.Fixed()
	print := train.NewFingerprint(s)
	print.AddData("outputs of the network", []byte(strings.Join(f.Outputs, "\n")))
	print.AddData("training sounds", f.Learn.fingerprint())
	print.AddData("validation sounds", f.Valid.fingerprint())
	return print
}

// fingerprint returns the hashes of the sounds, as far as their features show them,
// and their texts, as bytes.
func (d *Dataset) fingerprint() []byte {
	var list []byte
	for i, u := range d.List {
		list = fmt.Appendf(list, "%d %x %s\n", u.Line, d.sums[i], u.Text)
	}
	return list
}
