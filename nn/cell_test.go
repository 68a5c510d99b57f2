package nn_test

import (
	"math"
	"testing"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

func sigmoid(x float32) float32 { return float32(1 / (1 + math.Exp(-float64(x)))) }
func tanh(x float32) float32    { return float32(math.Tanh(float64(x))) }

// forgetful is h' = f⊙h + (1-f)⊙tanh(g), with both gates recurrent: the example of docs/cells.md.
type forgetful struct{}

func newForgetful(in, hidden int, o *nn.RNNOptions) *nn.RNN {
	return nn.NewCustom(forgetful{}, in, hidden, o)
}

func (forgetful) Gates() int  { return 2 }
func (forgetful) States() int { return 1 }

func (forgetful) Forward(r *cell.Row) {
	f, g := r.Gates[:r.H], r.Gates[r.H:]
	for j := range r.HNew {
		f[j], g[j] = sigmoid(f[j]), tanh(g[j]) // kept for Backward
		r.HNew[j] = f[j]*r.HOld[j] + (1-f[j])*g[j]
	}
}

func (forgetful) Backward(r *cell.Row) {
	f, g := r.Gates[:r.H], r.Gates[r.H:]
	for j, dh := range r.DH {
		r.DH[j] = dh * f[j]
		f[j], g[j] = dh*(r.HOld[j]-g[j])*f[j]*(1-f[j]), dh*(1-f[j])*(1-g[j]*g[j])
	}
}

// ownLSTM is torch.nn.LSTM's cell as a user would write it.
type ownLSTM struct{}

func (ownLSTM) Gates() int  { return 4 }
func (ownLSTM) States() int { return 2 }

func (ownLSTM) Forward(r *cell.Row) {
	H, v := r.H, r.Gates
	for j := range H {
		i, f, g, o := sigmoid(v[j]), sigmoid(v[H+j]), tanh(v[2*H+j]), sigmoid(v[3*H+j])
		v[j], v[H+j], v[2*H+j], v[3*H+j] = i, f, g, o
		r.CNew[j] = f*r.COld[j] + i*g
		r.HNew[j] = o * tanh(r.CNew[j])
	}
}

func (ownLSTM) Backward(r *cell.Row) {
	H, v := r.H, r.Gates
	for j, dh := range r.DH {
		i, f, g, o, u := v[j], v[H+j], v[2*H+j], v[3*H+j], tanh(r.CNew[j])
		dc := r.DC[j] + dh*o*(1-u*u)
		v[j], v[H+j], v[2*H+j], v[3*H+j] = dc*g*i*(1-i), dc*r.COld[j]*f*(1-f), dc*i*(1-g*g), dh*u*o*(1-o)
		r.DC[j], r.DH[j] = dc*f, 0
	}
}

// A user's LSTM is the library's, in values, states and every gradient.
func TestOwnLSTMIsTheLSTM(t *testing.T) {
	o := nn.RNNOptions{Layers: 2, Bidirectional: true}
	const B, T = 4, 6
	lengths := []int32{3, 6, 0, 5}
	x := normal(1, B*T*width)
	var results []result
	for _, m := range []*nn.RNN{nn.NewLSTM(width, hidden, &o), nn.NewCustom(ownLSTM{}, width, hidden, &o)} {
		slab := tensor.Pack(tensor.CPU(), m, 1)
		h, c := initial(m, B)
		results = append(results, run(m, slab, x, lengths, B, T, h, c, normal(3, B*T*m.OutputSize())))
	}
	want, got := results[0], results[1]
	near(t, "output", got.y, want.y, 1e-5)
	near(t, "h", got.h, want.h, 1e-5)
	near(t, "c", got.c, want.c, 1e-5)
	near(t, "input gradient", got.dx, want.dx, 1e-4)
	near(t, "state gradient", got.dh0, want.dh0, 1e-4)
	for i := range want.weights {
		near(t, "weight gradient", got.weights[i], want.weights[i], 1e-4)
	}
}

func TestActivationNames(t *testing.T) {
	for name, want := range map[string]cell.Activation{"": 0, "hard_sigmoid": cell.HardSigmoid, "softplus": cell.Softplus} {
		if a, ok := cell.ActivationNamed(name); !ok || a != want {
			t.Errorf("%q: got %v, %v", name, a, ok)
		}
	}
	if _, ok := cell.ActivationNamed("swish"); ok {
		t.Error("swish is known")
	}
}
