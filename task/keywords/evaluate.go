package keywords

import (
	"cmp"
	"context"
	"slices"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/speech"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// Metrics are the scores of a classifier.
type Metrics struct {
	Accuracy float64 `json:"accuracy"`      // share of sounds whose label is predicted
	Loss     float64 `json:"loss,omitzero"` // mean of -log (natural) of the true label's probability; absent for the majority baseline
}

// Evaluation is the scores of a classifier on labelled sounds.
type Evaluation struct {
	Task string `json:"task"` // the task of the model
	task.Scored
	Metrics   Metrics            `json:"metrics"`   // the model's scores
	Baselines map[string]Metrics `json:"baselines"` // majority: always the most frequent label of the sounds scored
	Sounds    int                `json:"sounds"`    // number of sounds scored
	Classes   []string           `json:"classes"`   // labels of the model
	Confusion [][]int            `json:"confusion"` // [label][predicted label]: numbers of sounds
	Wrong     []Wrong            `json:"-"`         // the wrong predictions, the most probable first
}

// Wrong is a sound whose predicted label is wrong.
type Wrong struct {
	speech.Utterance
	Answer      string
	Probability float64
}

// EvaluateOptions are the options of an evaluation; there are none yet.
type EvaluateOptions struct{}

// Evaluate scores the classifier on a part of the data, beside the most frequent
// label as a baseline. A part without sounds, a label that is not one of the
// model's, and files that cannot be used are a *data.InputError; a cancelled ctx
// returns its error.
func (m *Model) Evaluate(ctx context.Context, d *Data, part task.Part, _ *EvaluateOptions) (_ *Evaluation, err error) {
	defer tensor.Recover(&err)
	task.NeedData(d, "keywords: Evaluate")
	list := d.Of(part)
	e := &Evaluation{Task: Name, Scored: d.Scored(part), Sounds: len(list), Classes: m.Classes(), Confusion: make([][]int, len(m.classes))}
	for i := range e.Confusion {
		e.Confusion[i] = make([]int, len(m.classes))
	}
	right, n := 0, float64(len(list))
	err = m.answers(ctx, d, list, func(i, want, got int, p []float64) {
		e.Confusion[want][got]++
		e.Metrics.Loss += lossOf(p[want])
		if want == got {
			right++
		} else {
			e.Wrong = append(e.Wrong, Wrong{list[i], m.classes[got], p[got]})
		}
	})
	if err != nil {
		return nil, err
	}
	most := 0
	for _, row := range e.Confusion {
		sounds := 0
		for _, k := range row {
			sounds += k
		}
		most = max(most, sounds)
	}
	e.Baselines = map[string]Metrics{"majority": {Accuracy: float64(most) / n}}
	e.Metrics.Accuracy = float64(right) / n
	e.Metrics.Loss /= n
	slices.SortStableFunc(e.Wrong, func(a, b Wrong) int { return cmp.Compare(b.Probability, a.Probability) })
	return e, nil
}

// Tally returns the accuracy of [Model.Evaluate] by sound: 1 or 0, and 1. Its errors are
// those of Evaluate.
func (m *Model) Tally(ctx context.Context, d *Data, part task.Part, _ *EvaluateOptions) (_ *task.Tally, err error) {
	defer tensor.Recover(&err)
	task.NeedData(d, "keywords: Tally")
	list := d.Of(part)
	t := &task.Tally{Name: "accuracy", Higher: true, Rows: make([][]float64, len(list)), Of: func(s []float64) float64 { return s[0] / s[1] }}
	err = m.answers(ctx, d, list, func(i, want, got int, _ []float64) {
		t.Rows[i] = []float64{0, 1}
		if want == got {
			t.Rows[i][0] = 1
		}
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

// answers calls visit with each sound's true and predicted class and the probabilities
// of all classes, not always in the order of the list.
func (m *Model) answers(ctx context.Context, d *Data, list []speech.Utterance, visit func(i, want, got int, p []float64)) error {
	if len(list) == 0 {
		return data.Errorf("there is no sound to score")
	}
	labels, err := labelsOf(list, m.classes)
	if err != nil {
		return err
	}
	c, err := m.frontend.Dataset(ctx, list, &d.Data)
	if err != nil {
		return err
	}
	return m.each(ctx, tensor.NewTape(m.slab.Device(), tensor.Infer), c, func(i int, p []float64) {
		visit(i, int(labels[i][0]), best(p), p)
	})
}
