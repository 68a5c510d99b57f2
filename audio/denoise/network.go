package denoise

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// network is RNNoise's: three GRUs, which see the features beside the outputs of those
// before them.
type network struct {
	Input   *dense
	Voice   *nn.RNN
	Noise   *nn.RNN
	Denoise *nn.RNN
	Gains   *dense
	Speech  *dense
}

// dense is a linear layer with an activation.
type dense struct {
	*nn.Linear
	activate func(*tensor.Tensor) *tensor.Tensor
}

func (d *dense) forward(x *tensor.Tensor) *tensor.Tensor { return d.activate(d.Forward(x)) }

// states holds the recurrent states of a stream.
type states struct{ voice, noise, denoise *nn.SavedState }

func (n *network) newStates() *states {
	return &states{n.Voice.NewSavedState(1), n.Noise.NewSavedState(1), n.Denoise.NewSavedState(1)}
}

// forward returns the gains of the bands [1,1,bands] and the probability of speech
// [1,1,1] for the features of a frame [1,1,inputs].
func (n *network) forward(x *tensor.Tensor, s *states) (gains, speech *tensor.Tensor) {
	step := func(m *nn.RNN, state *nn.SavedState, x *tensor.Tensor) *tensor.Tensor {
		y, final := m.Forward(x, state.On(x.Tape()))
		state.Save(final)
		return y
	}
	in := n.Input.forward(x)
	voice := step(n.Voice, s.voice, in)
	noise := step(n.Noise, s.noise, tensor.Concat(2, in, voice, x))
	clean := step(n.Denoise, s.denoise, tensor.Concat(2, voice, noise, x))
	return n.Gains.forward(clean), n.Speech.forward(voice)
}

// activations are those of the file format, by their number there.
var activations = []struct {
	cell  cell.Activation
	dense func(*tensor.Tensor) *tensor.Tensor
}{{cell.Tanh, tensor.Tanh}, {cell.Sigmoid, tensor.Sigmoid}, {cell.ReLU, tensor.ReLU}}

// Open reads the weights of RNNoise's first network (weights.rnn, 87,521 bytes in the
// published sizes; other sizes fit if each layer takes what those before it give). A file
// that cannot be read or holds something else is a [*model.FileError].
func Open(path string) (*Model, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, model.Unreadable(path, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, mostBytes+1))
	if err != nil {
		return nil, model.Unreadable(path, err)
	}
	r := &reader{path: path, rest: b, values: map[*tensor.Param][]float32{}}
	n := r.network()
	if r.err != nil {
		return nil, r.err
	}
	tensor.Pack(nil, n, 0)
	for p, v := range r.values {
		p.Write(v)
	}
	return &Model{n}, nil
}

// mostBytes is above the size of any file, whose layers have at most 127 units.
const mostBytes = 1 << 19

// reader reads the layers of a file. A layer is a byte each for inputs, units and
// activation; the weights of each input [inputs,units], of a GRU [inputs,3·units] with
// the gates z, r, n and in the same way those of its state; and the biases. Weights and
// biases are signed bytes in 256ths.
type reader struct {
	path   string
	rest   []byte
	values map[*tensor.Param][]float32 // for when the network is packed
	err    error                       // the first
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = &model.FileError{File: r.path, Problem: fmt.Sprintf(format, args...), Fix: "give the weights.rnn of RNNoise's first network"}
	}
}

func (r *reader) network() *network {
	switch {
	case len(r.rest) > mostBytes:
		r.fail("is longer than any RNNoise network")
	case bytes.HasPrefix(r.rest, []byte("rnnoise-nu")):
		r.fail("is an RNNoise network written as text, which is not supported")
	case bytes.HasPrefix(r.rest, []byte("DNNw")):
		r.fail("is a network of RNNoise 0.2 or later, which is a different one")
	}
	n := &network{}
	var in, voice, noise, clean int
	n.Input, in = r.dense("first", inputs, 0)
	n.Voice, voice = r.gru("second", in)
	n.Noise, noise = r.gru("third", in+voice+inputs)
	n.Denoise, clean = r.gru("fourth", voice+noise+inputs)
	n.Gains, _ = r.dense("fifth", clean, bands)
	n.Speech, _ = r.dense("sixth", voice, 1)
	if len(r.rest) > 0 {
		r.fail("has %d bytes more than its six layers", len(r.rest))
	}
	return n
}

// head reads the head of a layer, whose inputs, and unless it is 0 whose units, are given.
// After an error it returns one unit.
func (r *reader) head(name string, in, out int) (units, activation int) {
	if r.err == nil && len(r.rest) < 3 {
		r.fail("ends before its %s layer", name)
	}
	if r.err != nil {
		return 1, 0
	}
	gotIn, units, activation := int(r.rest[0]), int(r.rest[1]), int(r.rest[2])
	r.rest = r.rest[3:]
	switch {
	case gotIn != in:
		r.fail("its %s layer has %d inputs, want %d", name, gotIn, in)
	case out > 0 && units != out:
		r.fail("its %s layer has %d units, want %d", name, units, out)
	case units < 1 || units > 127:
		r.fail("its %s layer has %d units, want 1 to 127", name, units)
	case activation >= len(activations):
		r.fail("its %s layer has activation %d, want 0 to %d", name, activation, len(activations)-1)
	default:
		return units, activation
	}
	return 1, 0
}

func (r *reader) dense(name string, in, out int) (*dense, int) {
	units, activation := r.head(name, in, out)
	l := nn.NewLinear(in, units, nil)
	r.matrix(name, l.Weight, in, units, 0)
	r.matrix(name, l.Bias, 1, units, 0)
	return &dense{l, activations[activation].dense}, units
}

func (r *reader) gru(name string, in int) (*nn.RNN, int) {
	units, activation := r.head(name, in, 0)
	m := nn.NewGRU(in, units, &nn.RNNOptions{ResetBefore: true, Activation: activations[activation].cell})
	for i, rows := range []int{in, units, 1, 0} { // W, R, one bias, and zeros for the other
		r.matrix(name, m.Weights[i], rows, units, 1, 0, 2) // z, r, n becomes r, z, n
	}
	return m, units
}

// matrix reads weights [rows, gates·units] for a parameter [gates·units, rows], which has
// the gates in the order given.
func (r *reader) matrix(name string, p *tensor.Param, rows, units int, gates ...int) {
	width := len(gates) * units
	if len(r.rest) < rows*width {
		r.fail("ends in its %s layer", name)
	}
	if r.err != nil {
		return
	}
	w := make([]float32, p.Len())
	for g, from := range gates {
		for u := range units {
			for i := range rows {
				w[(g*units+u)*rows+i] = float32(int8(r.rest[i*width+from*units+u])) / 256
			}
		}
	}
	r.rest = r.rest[rows*width:]
	r.values[p] = w
}
