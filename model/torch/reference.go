package torch

import (
	"math"

	"github.com/carousel-ml/carousel/model"
)

// This file is PyTorch's equations as its documentation has them, in float64
// and without any of this library's tensors or kernels, for checking those.

// reference computes a layer on a sample; weights come by name from f.
type reference struct {
	file  *model.File
	layer *Layer
}

// matrix is a weight, row-major, with its number of columns.
type matrix struct {
	data []float32
	cols int
}

// weight finds one of the layer's tensors; one that is missing gives zeros.
func (r *reference) weight(base string) matrix {
	t := r.file.Lookup(r.layer.full(base))
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

// forward computes y, and of recurrent layers the final states.
func (r *reference) forward(s *sample) (y, hn, cn []float64) {
	l := r.layer
	switch l.Kind {
	case Linear:
		for n := range samples {
			y = append(y, r.weight("bias").addTo(r.weight("weight").times(s.vector(n, l.Input)))...)
		}
	case Embedding:
		w := r.weight("weight")
		for _, id := range s.ids {
			for _, v := range w.data[int(id)*w.cols : (int(id)+1)*w.cols] {
				y = append(y, float64(v))
			}
		}
	case LayerNorm:
		for n := range samples {
			y = append(y, r.norm(s.vector(n, l.Input))...)
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
	w, b := r.weight("weight").data, r.weight("bias").data
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = (v-mean)/math.Sqrt(variance+1e-5)*float64(w[i]) + float64(b[i])
	}
	return y
}

// stack runs a recurrent layer: y is [B,T,D*state], hn and cn [L*D,B,...].
func (r *reference) stack(s *sample) (y, hn, cn []float64) {
	l := r.layer
	D, P := l.Directions(), l.state()
	hn, cn = make([]float64, l.Layers*D*batch*P), make([]float64, l.Layers*D*batch*l.Hidden)
	x := make([][]float64, batch*steps)
	for i := range x {
		x[i] = s.vector(i, l.Input)
	}
	for layer := range l.Layers {
		out := make([][]float64, batch*steps)
		for i := range out {
			out[i] = make([]float64, D*P)
		}
		for d := range D {
			slot := layer*D + d
			for b := range batch {
				h := widen(s.h0[(slot*batch+b)*P : (slot*batch+b+1)*P])
				c := widen(s.c0[(slot*batch+b)*l.Hidden : (slot*batch+b+1)*l.Hidden])
				for k := range steps {
					t := k
					if d == 1 {
						t = steps - 1 - k
					}
					h, c = r.step(l.suffix(layer, d), x[b*steps+t], h, c)
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

// step is one step of one row: torch.nn.LSTM's, GRU's and RNN's equations.
func (r *reference) step(suffix string, x, h, c []float64) (h2, c2 []float64) {
	H := r.layer.Hidden
	in := r.weight("bias_ih" + suffix).addTo(r.weight("weight_ih" + suffix).times(x))
	rec := r.weight("bias_hh" + suffix).addTo(r.weight("weight_hh" + suffix).times(h))
	h2, c2 = make([]float64, H), make([]float64, H)
	gate := func(g, j int) float64 { return in[g*H+j] + rec[g*H+j] }
	for j := range H {
		switch r.layer.Kind {
		case LSTM:
			i, f, o := sigmoid(gate(0, j)), sigmoid(gate(1, j)), sigmoid(gate(3, j))
			c2[j] = f*c[j] + i*math.Tanh(gate(2, j))
			h2[j] = o * math.Tanh(c2[j])
		case GRU:
			reset, z := sigmoid(gate(0, j)), sigmoid(gate(1, j))
			n := math.Tanh(in[2*H+j] + reset*rec[2*H+j])
			h2[j] = (1-z)*n + z*h[j]
		case RNNTanh:
			h2[j] = math.Tanh(gate(0, j))
		case RNNReLU:
			h2[j] = max(gate(0, j), 0)
		}
	}
	if r.layer.Proj > 0 {
		h2 = r.weight("weight_hr" + suffix).times(h2)
	}
	return h2, c2
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

func widen(x []float32) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v)
	}
	return y
}
