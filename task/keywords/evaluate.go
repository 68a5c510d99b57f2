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

// Metrics are shares and the mean of -log of the right label's probability.
type Metrics struct {
	Accuracy float64 `json:"accuracy"`      // share of sounds whose label is right
	Loss     float64 `json:"loss,omitzero"` // mean of -log of the right label's probability; absent of a method that gives none
}

// Evaluation is how often a classifier is right.
type Evaluation struct {
	Task      string             `json:"task"`      // the task of the model
	Metrics   Metrics            `json:"metrics"`   // the model's scores
	Baselines map[string]Metrics `json:"baselines"` // majority: the most frequent label, whatever the sound
	Sounds    int                `json:"sounds"`    // how many were scored
	Classes   []string           `json:"classes"`   // all labels that the model knows
	Confusion [][]int            `json:"confusion"` // by label, then by answer
	Wrong     []Wrong            `json:"-"`         // most certain first
}

// Wrong is a sound whose label is another than the answer.
type Wrong struct {
	speech.Utterance
	Answer      string
	Probability float64
}

// EvaluateOptions change an evaluation; there are none yet.
type EvaluateOptions struct{}

// Evaluate scores the classifier on a part of the data. A part without sounds, and
// a label that the model does not know, are a *data.InputError.
func (m *Model) Evaluate(ctx context.Context, d *Data, part task.Part, _ *EvaluateOptions) (*Evaluation, error) {
	list := d.Of(part)
	if len(list) == 0 {
		return nil, data.Errorf("there is no sound to score")
	}
	labels, err := labelsOf(list, m.classes)
	if err != nil {
		return nil, err
	}
	c, err := m.frontend.Dataset(ctx, list, d)
	if err != nil {
		return nil, err
	}
	e := &Evaluation{Task: Name, Sounds: len(list), Classes: m.Classes(), Confusion: make([][]int, len(m.classes))}
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
