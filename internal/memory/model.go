package memory

import (
	"cmp"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// network is a recurrent stack and a linear layer on its outputs.
type network struct {
	RNN  *nn.RNN
	Head *nn.Linear
}

// Model is a network for a problem. It is safe for concurrent use, except during
// its training.
type Model struct {
	cfg     Config
	problem *problem
	net     *network
	slab    *tensor.Slab
	outcome Outcome
}

// Outcome is the result of a training.
type Outcome struct {
	Steps      int     `json:"steps"` // optimizer steps, until the problem was solved or the limit reached
	Solved     bool    `json:"solved"`
	Test       Score   `json:"test"`     // on other sequences
	Baseline   float64 `json:"baseline"` // the error of the best outputs without memory
	Parameters int     `json:"parameters"`
	Seconds    float64 `json:"seconds"` // wall time
}

// New returns an untrained network on the device given, by default the CPU. The
// errors are those of [Config.Validate].
func New(cfg Config, on ...*tensor.Device) (*Model, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	m := &Model{cfg: cfg, problem: problems[cfg.Problem]}
	rnn, err := cfg.Build(m.problem.inputs)
	if err != nil {
		return nil, err
	}
	m.net = &network{rnn, nn.NewLinear(rnn.OutputSize(), m.problem.outputs, nil)}
	m.slab = tensor.Pack(cmp.Or(on...), m.net, cfg.Seed)
	m.outcome = Outcome{Baseline: m.problem.baseline(cfg.length()), Parameters: m.slab.NumElements()}
	return m, nil
}

// Config returns the configuration.
func (m *Model) Config() Config { return m.cfg }

// Outcome returns the result of the training; without one, only Baseline and
// Parameters are set.
func (m *Model) Outcome() Outcome { return m.outcome }

// Slab returns the network's parameters.
func (m *Model) Slab() *tensor.Slab { return m.slab }

// saved is a Model's part of config.json.
type saved struct {
	Config  Config  `json:"config"`
	Outcome Outcome `json:"outcome"`
}

// Save writes the model to a directory that [Open] reads. Its errors are those of
// [model.Save].
func (m *Model) Save(dir string) error {
	return model.Save(dir, Task, saved{m.cfg, m.outcome}, model.Weights(m.slab))
}

// Open reads a model directory. A directory that is missing, damaged or of
// another task is a *model.FileError. The network is put on the device given, by
// default the CPU.
func Open(dir string, on ...*tensor.Device) (*Model, error) {
	return model.OpenAs(dir, OpenDir, on...)
}

// OpenDir is [Open] for a directory that has been read already, with the same
// errors.
func OpenDir(d *model.Dir, on ...*tensor.Device) (*Model, error) {
	var c saved
	if err := d.For(Task, "a model of a memory benchmark", &c); err != nil {
		return nil, err
	}
	m, err := New(c.Config, on...)
	if err != nil {
		return nil, d.Broken(err)
	}
	m.outcome = c.Outcome
	return m, d.Load(m.slab)
}

// forward returns the outputs for a batch: [n,outputs] of the last step, or
// [n,steps,outputs].
func (m *Model) forward(tape *tensor.Tape, b *batch) *tensor.Tensor {
	x := tape.Input(b.x, b.n, b.steps, m.problem.inputs)
	if m.problem.ragged {
		x = tape.Sequences(b.x, b.lengths, b.n, b.steps, m.problem.inputs)
	}
	y, _ := m.net.RNN.Forward(x, nil)
	if m.problem.last {
		y = tensor.LastStep(y)
	}
	return m.net.Head.Forward(y)
}

// loss returns the mean loss of a batch.
func (m *Model) loss(tape *tensor.Tape, b *batch) *tensor.Tensor {
	out := m.forward(tape, b)
	if m.problem.last {
		return tensor.MSE(out, tape.Input(b.y, b.n, 1), nil)
	}
	return tensor.CrossEntropy(out, tape.IDs(b.next, nil, b.n, b.steps), nil)
}

// Probe returns a function that computes the mean loss of rows sequences that are
// not used in training, at the last step only, so that a gradient at an earlier
// step has passed through time.
func (m *Model) Probe(rows int) func(tape *tensor.Tape) *tensor.Tensor {
	b := m.newBatch()
	b.load(probing, 0, rows)
	for row, n := range b.lengths {
		for t := range int(n) - 1 {
			b.next[row*b.steps+t] = ignored
		}
	}
	return func(tape *tensor.Tape) *tensor.Tensor { return m.loss(tape, b) }
}
