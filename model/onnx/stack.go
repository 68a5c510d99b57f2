package onnx

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// Pool is the part of the recurrent stack's output that the head reads.
type Pool string

// The pools.
const (
	PoolSteps Pool = "steps" // every step: [B,T,F]
	PoolLast  Pool = "last"  // the last step's output: [B,F], PyTorch's y[:, -1]
	PoolFinal Pool = "final" // the final h of the last layer, both directions joined: [B,F]
)

// Stack is the usual recurrent network: an embedding or features, a stack of
// recurrent layers, and a linear head. Its parameters are named embedding.weight,
// rnn.weight_ih_l0 and so on, head.weight and head.bias.
type Stack struct {
	Embedding *nn.Embedding // nil: the input is features
	RNN       *nn.RNN       // batch-major
	Head      *nn.Linear    // nil: none
	Pool      Pool          // "" is PoolSteps
}

// Forward returns the output y [B,T,F] or, pooled, [B,F], and the final state,
// for features x [B,T,I] and an initial state (nil: zeros). Shapes that do not
// fit panic with a *tensor.ShapeError.
func (s *Stack) Forward(x *tensor.Tensor, init *nn.State) (y *tensor.Tensor, final *nn.State) {
	y, final = s.RNN.Forward(x, init)
	switch s.Pool {
	case PoolLast:
		y = tensor.LastStep(y)
	case PoolFinal:
		D, L := s.RNN.Directions(), s.RNN.Layers()
		top := tensor.Slice(final.H, 0, (L-1)*D, L*D) // [D,B,H]
		y = tensor.Reshape(tensor.Transpose(top, 0, 1), -1, D*s.RNN.StateSize())
	}
	if s.Head != nil {
		y = s.Head.Forward(y)
	}
	return y, final
}

// Config describes a Stack without its weights.
type Config struct {
	Cell          string `json:"cell"` // lstm, gru, rnn_tanh or rnn_relu
	Input         int    `json:"input"`
	Hidden        int    `json:"hidden"`
	Layers        int    `json:"layers"`
	Bidirectional bool   `json:"bidirectional,omitempty"`
	NoBias        bool   `json:"no_bias,omitempty"`
	Vocabulary    int    `json:"vocabulary,omitempty"` // rows of the embedding; 0: none
	Output        int    `json:"output,omitempty"`     // features of the head; 0: none
	HeadNoBias    bool   `json:"head_no_bias,omitempty"`
	Pool          Pool   `json:"pool"`
}

// cellName is the name of a cell that PyTorch has; "" of others.
func cellName(kind cell.Kind) string {
	if kind.Spec().Torch == "" {
		return ""
	}
	return kind.Spec().Name
}

// Config describes s. A stack without recurrent layers, and a cell other than
// LSTM, GRU and RNN as in PyTorch, are errors.
func (s *Stack) Config() (Config, error) {
	r := s.RNN
	if r == nil || len(r.Weights) == 0 {
		return Config{}, fmt.Errorf("onnx: the stack has no recurrent layers")
	}
	c := Config{Cell: cellName(r.Cell()), Input: r.Weights[0].Dim(1), Hidden: r.Hidden(), Layers: r.Layers(), Bidirectional: r.Directions() == 2, Pool: s.Pool}
	slots := r.Layers() * r.Directions()
	c.NoBias = len(r.Weights) == 2*slots
	if c.Cell == "" || !r.IsPlain() || !c.NoBias && len(r.Weights) != 4*slots {
		return Config{}, fmt.Errorf("onnx: a stack of this kind of cell cannot be described: expected LSTM, GRU or RNN as PyTorch has them, without projection")
	}
	if c.Pool == "" {
		c.Pool = PoolSteps
	}
	if s.Embedding != nil {
		c.Vocabulary = s.Embedding.Weight.Dim(0)
	}
	if s.Head != nil {
		c.Output, c.HeadNoBias = s.Head.Weight.Dim(0), s.Head.Bias == nil
	}
	return c, nil
}

// Limits on the sizes of untrusted configurations.
const (
	maxUnits  = 1 << 24
	maxLayers = 1 << 10
)

// New makes the layers that c describes; [tensor.Pack] gives them values. A size
// out of range and an unknown name are errors that state what is expected.
func (c Config) New() (*Stack, error) {
	if min(c.Input, c.Hidden, c.Layers) < 1 || max(c.Input, c.Hidden) > maxUnits || c.Layers > maxLayers {
		return nil, fmt.Errorf("onnx: input %d and hidden %d must be 1 to %d, and layers %d must be 1 to %d", c.Input, c.Hidden, maxUnits, c.Layers, maxLayers)
	}
	if c.Vocabulary < 0 || c.Vocabulary > maxUnits || c.Output < 0 || c.Output > maxUnits {
		return nil, fmt.Errorf("onnx: vocabulary %d and output %d must be 0 to %d", c.Vocabulary, c.Output, maxUnits)
	}
	o := &nn.RNNOptions{Layers: c.Layers, Bidirectional: c.Bidirectional, NoBias: c.NoBias}
	kind, ok := cell.Find(func(s *cell.Spec) bool { return s.Name == c.Cell && s.Torch != "" })
	if !ok {
		return nil, fmt.Errorf("onnx: cell %.120q: expected lstm, gru, rnn_tanh or rnn_relu", c.Cell)
	}
	s := &Stack{Pool: c.Pool, RNN: nn.New(kind, c.Input, c.Hidden, o)}
	switch c.Pool {
	case "", PoolSteps, PoolLast, PoolFinal:
	default:
		return nil, fmt.Errorf("onnx: pool %.120q: expected steps, last or final", c.Pool)
	}
	if c.Vocabulary > 0 {
		s.Embedding = nn.NewEmbedding(c.Vocabulary, c.Input, nil)
	}
	if c.Output > 0 {
		s.Head = nn.NewLinear(s.RNN.OutputSize(), c.Output, &nn.LinearOptions{NoBias: c.HeadNoBias})
	}
	return s, nil
}

// Task is the name of the task of model directories with a Stack.
const Task = "stack"

// Save writes s as a model directory. The errors are those of [Stack.Config] and
// [model.Save].
func (s *Stack) Save(dir string, slab *tensor.Slab) error {
	c, err := s.Config()
	if err != nil {
		return err
	}
	return model.Save(dir, Task, c, model.Weights(slab))
}

// Open reads a model directory that [Stack.Save] wrote. Its parameters are put on
// the device given, by default the CPU. A directory that is missing, damaged or
// of another task is a *model.FileError.
func Open(dir string, on ...*tensor.Device) (*Stack, *tensor.Slab, error) {
	d, err := model.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	var c Config
	if err := d.For(Task, "a stack of layers", &c); err != nil {
		return nil, nil, err
	}
	s, err := c.New()
	if err != nil {
		return nil, nil, &model.FileError{File: dir, Problem: strings.TrimPrefix(err.Error(), "onnx: "), Err: err}
	}
	// The size of the weights limits the sizes of the configuration.
	need, have := 0, 0
	for _, p := range s.params() {
		need += p.Len()
	}
	for _, t := range d.Weights.Tensors {
		have += len(t.Data)
	}
	if need != have {
		return nil, nil, &model.FileError{File: dir, Problem: fmt.Sprintf("the configuration needs %d weights, the file has %d", need, have)}
	}
	slab := tensor.Pack(cmp.Or(on...), s, 0)
	if err := d.Load(slab); err != nil {
		return nil, nil, err
	}
	return s, slab, nil
}

// params returns all parameters of s, in the order of [tensor.Pack].
func (s *Stack) params() []*tensor.Param {
	var list []*tensor.Param
	if s.Embedding != nil {
		list = append(list, s.Embedding.Weight)
	}
	list = append(list, s.RNN.Weights...)
	if s.Head != nil {
		list = append(list, s.Head.Weight)
		if s.Head.Bias != nil {
			list = append(list, s.Head.Bias)
		}
	}
	return list
}
