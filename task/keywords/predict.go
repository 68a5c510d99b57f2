package keywords

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"strconv"

	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/speech"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// Prediction is the predicted class of a sound.
type Prediction struct {
	File          string    `json:"file"`          // its path
	Label         string    `json:"label"`         // the most probable class
	Probability   float64   `json:"probability"`   // of the label
	Probabilities []float64 `json:"probabilities"` // by class, in the order of classes
}

// PredictOptions are the options of a prediction; there are none yet.
type PredictOptions struct{}

// Classify returns the probability of each class, in the order of
// [Model.Classes], for a sound in memory. A model that was trained on files of
// features is a *data.InputError; a cancelled ctx returns its error.
func (m *Model) Classify(ctx context.Context, s *audio.Sound) (_ []float64, err error) {
	defer tensor.Recover(&err)
	task.NeedData(s, "keywords: Classify")
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	frames, err := m.frontend.Extract(s)
	if err != nil {
		return nil, err
	}
	x, in := m.frontend.Steps(frames), m.frontend.Inputs()
	logits, _ := m.net.Forward(tensor.NewTape(m.slab.Device(), tensor.Infer).Input(x, 1, len(x)/in, in), nil)
	return widen(tensor.Softmax(logits, nil).Data()), nil
}

// Predictions are the predictions for several sounds.
type Predictions struct {
	Task    string       `json:"task"`    // the task of the model
	Classes []string     `json:"classes"` // labels of the model
	Files   []Prediction `json:"files"`   // one per sound, in order

	remarks []string
}

// Remarks returns what a user might not expect of the predictions, a sentence each.
func (p *Predictions) Remarks() []string { return p.remarks }

// Predict classifies the sounds of a manifest, which needs no labels, or one file
// of sound or features. Files that cannot be used are a *data.InputError that
// names them; a cancelled ctx returns its error.
func (m *Model) Predict(ctx context.Context, in task.Input, _ *PredictOptions) (_ *Predictions, err error) {
	defer tensor.Recover(&err)
	p := &Predictions{Task: Name, Classes: m.Classes()}
	if in.Sounds != nil {
		return m.predictSounds(ctx, in.Sounds)
	}
	paths, err := m.cfg.Sounds(ctx, in.File, func(s string) { p.remarks = append(p.remarks, s) })
	if err != nil {
		return nil, err
	}
	list := make([]speech.Utterance, len(paths))
	for i, path := range paths {
		list[i].Audio = path
	}
	c, err := m.frontend.Dataset(ctx, list, nil)
	if err != nil {
		return nil, err
	}
	p.Files = make([]Prediction, len(list))
	err = m.each(ctx, tensor.NewTape(m.slab.Device(), tensor.Infer), c, func(i int, row []float64) {
		k := best(row)
		p.Files[i] = Prediction{paths[i], m.classes[k], row[k], row}
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// predictSounds is Predict for sounds in memory.
func (m *Model) predictSounds(ctx context.Context, sounds []task.Sound) (*Predictions, error) {
	p := &Predictions{Task: Name, Classes: m.Classes()}
	for i := range sounds {
		s, err := sounds[i].Read()
		if err != nil {
			return nil, err
		}
		row, err := m.Classify(ctx, s)
		if err != nil {
			return nil, err
		}
		k := best(row)
		p.Files = append(p.Files, Prediction{sounds[i].Name, m.classes[k], row[k], row})
	}
	return p, nil
}

// Print writes one line per sound: probability, label and file.
func (p *Predictions) Print(w io.Writer) {
	for _, f := range p.Files {
		fmt.Fprintf(w, "%s  %s  %s\n", report.Percent(f.Probability), f.Label, f.File)
	}
}

// Write writes a CSV table with the columns audio, label, probability and
// p(class) for each class. Its errors are those of w.
func (p *Predictions) Write(w io.Writer) error {
	decimal := func(v float64) string { return strconv.FormatFloat(v, 'f', 6, 64) }
	c := csv.NewWriter(w)
	head := []string{"audio", "label", "probability"}
	for _, name := range p.Classes {
		head = append(head, "p("+name+")")
	}
	_ = c.Write(head) // errors stay until Flush
	for _, f := range p.Files {
		row := []string{f.File, f.Label, decimal(f.Probability)}
		for _, v := range f.Probabilities {
			row = append(row, decimal(v))
		}
		_ = c.Write(row)
	}
	c.Flush()
	return c.Error()
}

// Serves returns how a server offers the model: sounds, with their labels and the
// probabilities of the classes. A model that was trained on files of features is a
// *data.InputError.
func (m *Model) Serves() (*task.Service, error) {
	if err := m.frontend.TakesSound(); err != nil {
		return nil, data.Errorf("the model was trained on files of features and cannot be served, as clients send sound")
	}
	return &task.Service{Apart: true, Outputs: []task.Output{
		{Name: "label", Texts: func(p task.Prediction) []string {
			return task.TextsOf(p.(*Predictions).Files, func(one *Prediction) string { return one.Label })
		}},
		{Name: "probabilities", Labels: m.Classes(), Numbers: func(p task.Prediction) []float64 {
			all := []float64{}
			for _, one := range p.(*Predictions).Files {
				all = append(all, one.Probabilities...)
			}
			return all
		}},
	}}, nil
}
