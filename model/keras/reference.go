package keras

import (
	"math"

	"github.com/carousel-ml/carousel/model"
)

// This file has Keras's equations on Keras's arrays, in float64 and independent
// of this library's tensors, layouts and kernels, in order to check those.

// Reference computes the layers as Keras does.
func (w *Weights) Reference() model.Reference {
	return func(desc *model.Layer, s *model.Sample) (y, hn, cn []float64) {
		for i := range w.layers {
			if l := w.layers[i]; l.desc.Name == desc.Name {
				return l.forward(s)
			}
		}
		return nil, nil, nil
	}
}

const (
	batch = model.SampleRows
	steps = model.SampleSteps
)

func (l *layer) forward(s *model.Sample) (y, hn, cn []float64) {
	a := l.arrays[0]
	switch l.class {
	case "Dense":
		for n := range batch * steps {
			v := times(s.Vector(n, l.desc.Input), a[0])
			if len(a) == 2 {
				add(v, a[1].data)
			}
			y = append(y, v...)
		}
	case "Embedding":
		for _, id := range s.IDs {
			for _, v := range a[0].data[int(id)*l.desc.Output:][:l.desc.Output] {
				y = append(y, float64(v))
			}
		}
	case "LayerNormalization":
		for n := range batch * steps {
			y = append(y, l.norm(s.Vector(n, l.desc.Input))...)
		}
	default:
		return l.both(s)
	}
	return y, nil, nil
}

func (l *layer) norm(x []float64) []float64 {
	n := float64(len(x))
	mean, variance := 0.0, 0.0
	for _, v := range x {
		mean += v / n
	}
	for _, v := range x {
		variance += (v - mean) * (v - mean) / n
	}
	gamma, beta := l.arrays[0][0].data, l.arrays[0][1].data
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = (v-mean)/math.Sqrt(variance+l.desc.Eps)*float64(gamma[i]) + float64(beta[i])
	}
	return y
}

// both runs each direction: y has shape [B,T,D*H], hn and cn [D,B,H].
func (l *layer) both(s *model.Sample) (y, hn, cn []float64) {
	D, H := len(l.arrays), l.desc.Hidden
	y = make([]float64, batch*steps*D*H)
	for d := range D {
		for b := range batch {
			h, c := make([]float64, H), make([]float64, H)
			for j := range H {
				h[j] = float64(s.H0[(d*batch+b)*H+j])
				c[j] = float64(s.C0[(d*batch+b)*H+j])
			}
			for k := range steps {
				t := k
				if d == 1 {
					t = steps - 1 - k
				}
				h, c = l.step(l.arrays[d], s.Vector(b*steps+t, l.desc.Input), h, c)
				copy(y[((b*steps+t)*D+d)*H:], h)
			}
			hn = append(hn, h...)
			if l.class == "LSTM" {
				cn = append(cn, c...)
			}
		}
	}
	return y, hn, cn
}

// step is one step of one row: z = x·kernel + h·recurrent + bias, split into
// gates.
func (l *layer) step(a []*array, x, h, c []float64) (h2, c2 []float64) {
	H := len(h)
	h2, c2 = make([]float64, H), make([]float64, H)
	z := times(x, a[0])
	if l.class == "GRU" {
		l.gru(a, z, h, h2)
		return h2, c2
	}
	for i, v := range times(h, a[1]) {
		z[i] += v
	}
	if a[2] != nil {
		add(z, a[2].data)
	}
	for j := range H {
		if l.class == "SimpleRNN" {
			h2[j] = l.inner(z[j])
			continue
		}
		i, f, o := l.gate(z[j]), l.gate(z[H+j]), l.gate(z[3*H+j])
		c2[j] = f*c[j] + i*l.inner(z[2*H+j])
		h2[j] = o * l.inner(c2[j])
	}
	return h2, c2
}

// gru is z, r, h with the reset gate after the recurrent product or before it.
func (l *layer) gru(a []*array, x, h, h2 []float64) {
	H := len(h)
	inner := times(h, a[1])
	if a[2] != nil {
		add(x, a[2].data[:3*H])
		if !l.desc.ResetBefore {
			add(inner, a[2].data[3*H:])
		}
	}
	z, r, reset := make([]float64, H), make([]float64, H), make([]float64, H)
	for j := range H {
		z[j], r[j] = l.gate(x[j]+inner[j]), l.gate(x[H+j]+inner[H+j])
		reset[j] = r[j] * h[j]
	}
	if l.desc.ResetBefore {
		inner = times(reset, a[1])
	}
	for j := range H {
		candidate := inner[2*H+j]
		if !l.desc.ResetBefore {
			candidate *= r[j]
		}
		h2[j] = z[j]*h[j] + (1-z[j])*l.inner(x[2*H+j]+candidate)
	}
}

func (l *layer) gate(x float64) float64 { return activate(l.desc.GateActivation, "sigmoid", x) }

func (l *layer) inner(x float64) float64 {
	own := "tanh"
	if l.desc.Kind == model.RNNReLU {
		own = "relu"
	}
	return activate(l.desc.Activation, own, x)
}

// activate applies the activation with that name, or own if the name is empty.
func activate(name, own string, x float64) float64 {
	if name == "" {
		name = own
	}
	switch name {
	case "sigmoid":
		return 1 / (1 + math.Exp(-x))
	case "tanh":
		return math.Tanh(x)
	case "relu":
		return math.Max(x, 0)
	case "identity":
		return x
	case "softsign":
		return x / (1 + math.Abs(x))
	case "elu":
		if x < 0 {
			return math.Expm1(x)
		}
		return x
	case "softplus":
		return math.Max(x, 0) + math.Log1p(math.Exp(-math.Abs(x)))
	case "hard_sigmoid": // of Keras 2
		return math.Max(0, math.Min(1, 0.2*x+0.5))
	case "hard_tanh":
		return math.Max(-1, math.Min(1, x))
	}
	return math.NaN() // never equal
}

// times is x·a for a matrix [in,out].
func times(x []float64, a *array) []float64 {
	cols := a.dims[1]
	y := make([]float64, cols)
	for i, v := range x {
		for j, w := range a.data[i*cols : (i+1)*cols] {
			y[j] += v * float64(w)
		}
	}
	return y
}

func add(y []float64, b []float32) {
	for i, v := range b {
		y[i] += float64(v)
	}
}
