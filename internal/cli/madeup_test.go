package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

// A made-up task, whole: it learns the sums of three numbers from lines such as "1 2 0.5 3.5".
var sumTask = task.New(task.About{
	Name: "sum", Noun: "an adder", Title: "Sums", Short: "Train an adder", Scores: "a file of sums", Takes: "a file of numbers", Texts: true,
}, sumDefaults, readSums, trainSum, openSum, (*sumModel).Evaluate, (*sumModel).Predict)

type sumConfig struct {
	task.RNNConfig
	train.Settings
}

func sumDefaults() sumConfig         { return sumConfig{task.DefaultRNN(), train.DefaultSettings()} }
func (c *sumConfig) Validate() error { return data.Setting(settings.Check(c)) }

type sumData struct {
	task.Parts[[4]float32] // three numbers and their sum
	task.Source
}

func readSums(_ context.Context, f *task.Files, cfg sumConfig) (*sumData, error) {
	list, err := sumLines(task.Input{File: f.Data})
	parts, _ := task.Deal(list, task.Holdout{Share: 0.2, Seed: cfg.Seed})
	return &sumData{parts, task.Source{Name: filepath.Base(f.Data)}}, data.InFile(f.Data, err)
}

func sumLines(in task.Input) (list [][4]float32, err error) {
	texts, err := in.EachText("", nil)
	for i, text := range texts {
		var l [4]float32
		if n, _ := fmt.Sscan(text, &l[0], &l[1], &l[2], &l[3]); n < 3 {
			return nil, &data.InputError{Line: i + 1, Problem: "want three numbers and their sum"}
		}
		list = append(list, l)
	}
	return list, err
}

type sumModel struct {
	task.Memory
	RNN  *nn.RNN
	Head *nn.Linear
	cfg  sumConfig
	slab *tensor.Slab
}

func newSum(cfg sumConfig, on ...*tensor.Device) (m *sumModel, err error) {
	m = &sumModel{cfg: cfg}
	if m.RNN, err = cfg.RNNConfig.Build(1); err == nil {
		m.Head = nn.NewLinear(m.RNN.OutputSize(), 1, nil)
		m.slab = tensor.Pack(append(on, nil)[0], m, cfg.Seed)
	}
	return m, err
}

func (m *sumModel) Config() sumConfig  { return m.cfg }
func (m *sumModel) Slab() *tensor.Slab { return m.slab }
func (m *sumModel) Notes() []string    { return nil }
func (m *sumModel) Save(dir string) error {
	return model.Save(dir, "sum", m.cfg, append(m.Remembered(), model.Weights(m.slab))...)
}

func openSum(d *model.Dir, on ...*tensor.Device) (m *sumModel, err error) {
	var cfg sumConfig
	if err = d.For("sum", "an adder", &cfg); err == nil {
		if m, err = newSum(cfg, on...); err == nil {
			err = cmp.Or(d.Load(m.slab), m.Recall(d))
		}
	}
	return m, err
}

// forward gives the sums of lines [n,1], and their mean squared error.
func (m *sumModel) forward(t *tensor.Tape, list [][4]float32) (sums, loss *tensor.Tensor) {
	var x, y []float32
	for _, l := range list {
		x, y = append(x, l[:3]...), append(y, l[3])
	}
	steps, _ := m.RNN.Forward(t.Input(x, len(list), 3, 1), nil)
	sums = m.Head.Forward(tensor.LastStep(steps))
	return sums, tensor.MSE(sums, t.Input(y, len(list), 1), nil)
}

func trainSum(ctx context.Context, d *sumData, cfg sumConfig, run *train.Run) (*sumModel, *train.Result, error) {
	return task.Fit("sum: Train", d, &cfg, run, func(run *train.Run) (*sumModel, *train.Result, error) {
		m, err := newSum(cfg, run.Device)
		if err != nil {
			return nil, nil, err
		}
		cfg.FillDefaults(10)
		o := cfg.Options(len(d.Training), run)
		o.Batch, o.Patience = 1, 0
		result, err := train.Fit(ctx, &train.Job[[][4]float32]{
			Slab: m.slab, Optimizer: optim.NewAdamW(m.slab, nil), Samples: len(d.Training),
			NewBatch: func() *[][4]float32 { return new([][4]float32) },
			Load:     func(b *[][4]float32, samples []int) { *b = [][4]float32{d.Training[samples[0]]} },
			Loss: func(t *tensor.Tape, b *[][4]float32) *tensor.Tensor {
				_, loss := m.forward(t, *b)
				return loss
			},
		}, o)
		return m, result, err
	})
}

type sumEvaluation struct{ RMSE float64 }

func (m *sumModel) Evaluate(_ context.Context, d *sumData, part task.Part, _ *struct{}) (*sumEvaluation, error) {
	_, loss := m.forward(tensor.NewTape(m.slab.Device(), tensor.Infer), d.Of(part))
	return &sumEvaluation{math.Sqrt(float64(loss.Item()))}, nil
}

func (e *sumEvaluation) Summary() *report.Summary {
	return &report.Summary{Scored: "sums", Verdict: "It adds.", Tables: []*report.Table{report.NewTable("method", "RMSE").Add("network", report.Number(e.RMSE))}}
}

type sumPrediction struct{ Sums []float32 }

func (m *sumModel) Predict(_ context.Context, in task.Input, _ *struct{}) (*sumPrediction, error) {
	list, err := sumLines(in)
	if err != nil {
		return nil, err
	}
	got, _ := m.forward(tensor.NewTape(m.slab.Device(), tensor.Infer), list)
	return &sumPrediction{slices.Clone(got.Data())}, nil
}

func (p *sumPrediction) Print(w io.Writer)       { _ = p.Write(w) }
func (p *sumPrediction) Write(w io.Writer) error { return json.NewEncoder(w).Encode(p.Sums) }
