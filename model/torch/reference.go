package torch

import (
	"math"

	"github.com/carousel-ml/carousel/model"
)

// This file has PyTorch's equations from its documentation, in float64 and
// independent of this library's tensors and kernels, in order to check those.

// Reference computes PyTorch's equations, with the variants of a [model.Layer],
// with the weights of f.
func Reference(f *model.File) model.Reference {
	return func(l *model.Layer, s *model.Sample) (y, hn, cn []float64) {
		if y, hn, cn = (&reference{f, l}).forward(s); l.Kind != model.LSTM {
			cn = nil
		}
		return y, hn, cn
	}
}

// reference computes a layer on a sample; weights are looked up by name in the
// file.
type reference struct {
	file  *model.File
	layer *model.Layer
}

const (
	batch   = model.SampleRows
	steps   = model.SampleSteps
	samples = batch * steps
)

// matrix is a weight, row-major, with its number of columns.
type matrix struct {
	data []float32
	cols int
}

// weight returns one of the layer's tensors; a missing one gives zeros.
func (r *reference) weight(base string) matrix {
	t := r.file.Lookup(r.layer.Full(base))
	if t == nil {
		return matrix{}
	}
	return matrix{t.Data, t.Dims[len(t.Dims)-1]}
}

// times is W·x.
func (w matrix) times(x []float64) []float64 {
	y := make([]float64, len(w.data)/w.cols)
	for i := range y {
		for j, v := range x {
			y[i] += float64(w.data[i*w.cols+j]) * v
		}
	}
	return y
}

// addTo adds a bias vector; an absent one changes nothing.
func (w matrix) addTo(y []float64) []float64 {
	for i := range w.data {
		y[i] += float64(w.data[i])
	}
	return y
}

// forward computes y, and for recurrent layers the final states.
func (r *reference) forward(s *model.Sample) (y, hn, cn []float64) {
	l := r.layer
	switch l.Kind {
	case model.Linear:
		for n := range samples {
			y = append(y, r.weight("bias").addTo(r.weight("weight").times(s.Vector(n, l.Input)))...)
		}
	case model.Embedding:
		w := r.weight("weight")
		for _, id := range s.IDs {
			for _, v := range w.data[int(id)*w.cols : (int(id)+1)*w.cols] {
				y = append(y, float64(v))
			}
		}
	case model.LayerNorm:
		for n := range samples {
			y = append(y, r.norm(s.Vector(n, l.Input))...)
		}
	default:
		return r.stack(s)
	}
	return y, nil, nil
}

func (r *reference) norm(x []float64) []float64 {
	n := float64(len(x))
	mean, variance := 0.0, 0.0
	for _, v := range x {
		mean += v / n
	}
	for _, v := range x {
		variance += (v - mean) * (v - mean) / n
	}
	eps := r.layer.Eps
	if eps == 0 {
		eps = 1e-5
	}
	w, b := r.weight("weight").data, r.weight("bias").data
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = (v-mean)/math.Sqrt(variance+eps)*float64(w[i]) + float64(b[i])
	}
	return y
}

// stack runs a recurrent layer: y has shape [B,T,D*state], hn and cn
// [L*D,B,...].
func (r *reference) stack(s *model.Sample) (y, hn, cn []float64) {
	l := r.layer
	D, P := l.Directions(), l.State()
	hn, cn = make([]float64, l.Layers*D*batch*P), make([]float64, l.Layers*D*batch*l.Hidden)
	x := make([][]float64, batch*steps)
	for i := range x {
		x[i] = s.Vector(i, l.Input)
	}
	for layer := range l.Layers {
		out := make([][]float64, batch*steps)
		for i := range out {
			out[i] = make([]float64, D*P)
		}
		for d := range D {
			slot := layer*D + d
			for b := range batch {
				h := widen(s.H0[(slot*batch+b)*P : (slot*batch+b+1)*P])
				c := widen(s.C0[(slot*batch+b)*l.Hidden : (slot*batch+b+1)*l.Hidden])
				for k := range steps {
					t := k
					if d == 1 {
						t = steps - 1 - k
					}
					h, c = r.step(l.Suffix(layer, d), x[b*steps+t], h, c)
					copy(out[b*steps+t][d*P:], h)
				}
				copy(hn[(slot*batch+b)*P:], h)
				copy(cn[(slot*batch+b)*l.Hidden:], c)
			}
		}
		x = out
	}
	for _, v := range x {
		y = append(y, v...)
	}
	return y, hn, cn
}

// step is one step of one row: the equations of torch.nn.LSTM, GRU and RNN.
func (r *reference) step(suffix string, x, h, c []float64) (h2, c2 []float64) {
	H := r.layer.Hidden
	in := r.weight("bias_ih" + suffix).addTo(r.weight("weight_ih" + suffix).times(x))
	rec := r.weight("bias_hh" + suffix).addTo(r.weight("weight_hh" + suffix).times(h))
	h2, c2 = make([]float64, H), make([]float64, H)
	gate := func(g, j int) float64 { return r.gate(in[g*H+j] + rec[g*H+j]) }
	for j := range H {
		switch r.layer.Kind {
		case model.LSTM:
			i, f, o := gate(0, j), gate(1, j), gate(3, j)
			c2[j] = f*c[j] + i*r.inner(in[2*H+j]+rec[2*H+j])
			h2[j] = o * r.inner(c2[j])
		case model.GRU:
			reset, z := gate(0, j), gate(1, j)
			n := in[2*H+j] + reset*rec[2*H+j]
			if r.layer.ResetBefore {
				n = in[2*H+j] + r.resetBefore(suffix, j, in, rec, h)
			}
			h2[j] = (1-z)*r.inner(n) + z*h[j]
		default:
			h2[j] = r.inner(in[j] + rec[j])
		}
	}
	if r.layer.Proj > 0 {
		h2 = r.weight("weight_hr" + suffix).times(h2)
	}
	return h2, c2
}

// resetBefore is row j of R_n·(r⊙h) + b'_n.
func (r *reference) resetBefore(suffix string, j int, in, rec, h []float64) float64 {
	H := len(h)
	row := 2*H + j
	sum := 0.0
	if b := r.weight("bias_hh" + suffix); b.data != nil {
		sum = float64(b.data[row])
	}
	w := r.weight("weight_hh" + suffix)
	for k, v := range h {
		sum += float64(w.data[row*w.cols+k]) * r.gate(in[k]+rec[k]) * v
	}
	return sum
}

// gate is the activation of the gates, and inner that of the candidate.
func (r *reference) gate(x float64) float64 { return activate(r.layer.GateActivation, sigmoid, x) }

func (r *reference) inner(x float64) float64 {
	own := math.Tanh
	if r.layer.Kind == model.RNNReLU {
		own = func(x float64) float64 { return max(x, 0) }
	}
	return activate(r.layer.Activation, own, x)
}

// activate applies the activation with that name, or own if the name is empty.
func activate(name string, own func(float64) float64, x float64) float64 {
	switch name {
	case "":
		return own(x)
	case "sigmoid":
		return sigmoid(x)
	case "tanh":
		return math.Tanh(x)
	case "relu":
		return max(x, 0)
	case "hard_sigmoid":
		return min(max(0.2*x+0.5, 0), 1)
	case "hard_tanh":
		return min(max(x, -1), 1)
	case "softsign":
		return x / (1 + math.Abs(x))
	case "identity":
		return x
	case "leaky_relu":
		return max(x, 0.01*x)
	case "elu":
		return max(x, math.Expm1(min(x, 0)))
	case "softplus":
		return max(x, 0) + math.Log1p(math.Exp(-math.Abs(x)))
	}
	return math.NaN() // never equal
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

func widen(x []float32) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v)
	}
	return y
}
