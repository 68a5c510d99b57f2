package keywords

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/speech"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

// Train trains a classifier on the training sounds; the epoch is chosen on the
// validation sounds, if there are any. All sounds, also those of the test part,
// are read before training starts.
//
// Invalid settings and data, a label of the test part that the training part
// lacks, and files that cannot be used are a *data.InputError; it names the first
// dozen files. Other errors are those of [train.Fit] and [Model.Save]. If ctx is
// cancelled while the data are prepared, its error is returned; later, the result
// is marked Interrupted, and Dir contains a checkpoint to resume from and the
// model with the best weights so far, which is also returned.
func Train(ctx context.Context, d *Data, cfg Config, run *train.Run) (*Model, *train.Result, error) {
	return task.Fit("keywords: Train", d, &cfg, run, func(o *train.Run) (*Model, *train.Result, error) {
		cfg.FillDefaults()
		training, err := d.ToLearn(&cfg.Setup)
		if err != nil {
			return nil, nil, err
		}
		var classes []string
		for _, u := range training {
			classes = append(classes, u.Text)
		}
		slices.Sort(classes)
		if classes = slices.Compact(classes); len(classes) == 1 {
			return nil, nil, data.Errorf("all %s have the label %q: two labels are needed", report.Plural(len(training), "sound"), classes[0])
		}
		if _, err := labelsOf(d.Test, classes); err != nil {
			return nil, nil, err
		}
		learn, valid, err := d.Prepare(ctx, &cfg.Setup)
		if err != nil {
			return nil, nil, err
		}
		cfg.Settings.FillDefaults(min(max(100_000/len(learn.List), 15), 100))
		m, err := newModel(cfg, classes, learn.Frontend, o.Device)
		if err != nil {
			return nil, nil, err
		}
		for _, c := range []*speech.Dataset{learn, valid} {
			if c.Labels, err = labelsOf(c.List, classes); err != nil {
				return nil, nil, err
			}
		}
		result, err := m.fit(ctx, learn, valid, o)
		return m, result, err
	})
}

// labelsOf returns the class of each sound, as a list of one.
func labelsOf(list []speech.Utterance, classes []string) ([][]int32, error) {
	var labels [][]int32
	for _, u := range list {
		k, ok := slices.BinarySearch(classes, u.Text)
		if !ok {
			return nil, &data.InputError{File: u.File, Line: u.Line, Problem: fmt.Sprintf("label %q is not among those of the training part: %s", u.Text, report.Listing(classes))}
		}
		labels = append(labels, []int32{int32(k)})
	}
	return labels, nil
}

// fit runs the training loop.
func (m *Model) fit(ctx context.Context, learn, valid *speech.Dataset, o *train.Run) (*train.Result, error) {
	job := &speech.Job{
		Setup: &m.cfg.Setup, Slab: m.slab, Learn: learn, Valid: valid, Outputs: append([]string{m.cfg.Pool}, m.classes...),
		Metric: "loss", Metrics: []string{"loss", "-accuracy"}, Loss: m.loss,
	}
	if len(valid.List) > 0 {
		job.Validate = func(ctx context.Context, t *tensor.Tape) (map[string]float64, error) {
			right, loss := 0, 0.0
			err := m.each(ctx, t, valid, func(i int, p []float64) {
				want := int(valid.Labels[i][0])
				loss += lossOf(p[want])
				if best(p) == want {
					right++
				}
			})
			n := float64(len(valid.List))
			return map[string]float64{"loss": loss / n, "accuracy": float64(right) / n}, err
		}
	}
	return job.Fit(ctx, o)
}

// loss is the mean cross-entropy of a batch.
func (m *Model) loss(t *tensor.Tape, b *speech.Batch) *tensor.Tensor {
	logits, _ := m.net.Forward(b.Input(t), nil)
	return tensor.CrossEntropy(logits, t.IDs(b.Labels, nil, len(b.Lengths)), nil)
}

// lossOf returns -log of the true label's probability, with an upper bound.
func lossOf(p float64) float64 { return -math.Log(math.Max(p, 1e-30)) }

// each calls use with the probabilities of each sound of a dataset.
func (m *Model) each(ctx context.Context, t *tensor.Tape, c *speech.Dataset, use func(i int, p []float64)) error {
	classes := len(m.classes)
	return speech.Each(ctx, t, m.net, c, func(_ []int, _ *speech.Batch, logits *tensor.Tensor) []float32 {
		return tensor.Softmax(logits, nil).Data()
	}, func(samples []int, p []float32) {
		for k, s := range samples {
			use(s, widen(p[k*classes:][:classes]))
		}
	})
}

func widen(p []float32) []float64 {
	row := make([]float64, len(p))
	for i, v := range p {
		row[i] = float64(v)
	}
	return row
}

func best(p []float64) int {
	k := 0
	for i, v := range p {
		if v > p[k] {
			k = i
		}
	}
	return k
}
