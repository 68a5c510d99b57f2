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
	if len(list) == 0 {
		return nil, data.Errorf("there is no sound to score")
	}
	labels, err := labelsOf(list, m.classes)
	if err != nil {
		return nil, err
	}
	c, err := m.frontend.Dataset(ctx, list, &d.Data)
	if err != nil {
		return nil, err
	}
	e := &Evaluation{Task: Name, Scored: d.Scored(part), Sounds: len(list), Classes: m.Classes(), Confusion: make([][]int, len(m.classes))}
	for i := range e.Confusion {
		e.Confusion[i] = make([]int, len(m.classes))
	}
	right, n := 0, float64(len(list))
	err = m.each(ctx, tensor.NewTape(m.slab.Device(), tensor.Infer), c, func(i int, p []float64) {
		want, got := int(labels[i][0]), best(p)
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
