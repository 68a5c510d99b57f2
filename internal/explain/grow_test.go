package explain

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// sums is a subject whose loss is the sum of a stack's outputs, each times a
// weight: w of row b, step t, output j.
func sums(m *nn.RNN, lengths []int32, w func(b, t, j int) float64) (s *Subject, x []float32) {
	T := 0
	for _, n := range lengths {
		T = max(T, int(n))
	}
	B, F, O := len(lengths), m.InputSize(), m.OutputSize()
	x = make([]float32, B*T*F)
	for i := range x {
		x[i] = float32(math.Sin(float64(i)))
	}
	weights := make([]float32, B*T*O)
	for i := range weights {
		weights[i] = float32(w(i/O/T, i/O%T, i%O))
	}
	return &Subject{Name: "test", Slab: tensor.Pack(tensor.CPU(), m, 1), Loss: func(tape *tensor.Tape) *tensor.Tensor {
		y, _ := m.Forward(tape.Sequences(x, lengths, B, T, F), nil)
		return tensor.SumAll(tensor.Mul(y, tape.Input(weights, B, T, O)))
	}}, x
}

// scaled is a vector times two to the power of e: a float64 without a smallest.
type scaled struct {
	v []float64
	e int
}

// add adds b, and brings the sum to a size of about 1.
func (a *scaled) add(b scaled) {
	size := func(s scaled) (e int) {
		e = math.MinInt32
		for _, x := range s.v {
			if x != 0 {
				e = max(e, s.e+math.Ilogb(x))
			}
		}
		return e
	}
	e := max(size(*a), size(b))
	if e == math.MinInt32 {
		return
	}
	for i := range a.v {
		a.v[i] = math.Ldexp(a.v[i], a.e-e)
		if b.v != nil {
			a.v[i] += math.Ldexp(b.v[i], b.e-e)
		}
	}
	a.e = e
}

// log10 is that of the norm of some elements.
func (a scaled) log10(from, to int) float64 {
	sum := 0.0
	for _, x := range a.v[from:to] {
		sum += x * x
	}
	return math.Log10(sum)/2 + float64(a.e)*math.Log10(2)
}

// plain is one direction of one layer of an LSTM, GRU or RNN in float64, by its
// equations and their derivatives.
type plain struct {
	H          int
	w, r, b, s []float64 // s is the second vector of biases
	steps      []plainStep
}

type plainStep struct{ x, h, c, gates, side, cNew []float64 }

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// times is m [rows,len(v)]·v + b.
func times(m, v, b []float64) []float64 {
	out := append([]float64{}, b...)
	for i := range out {
		for j, x := range v {
			out[i] += m[i*len(v)+j] * x
		}
	}
	return out
}

// back adds mᵀ·d to out.
func back(m, d, out []float64) {
	for i, x := range d {
		for j := range out {
			out[j] += m[i*len(out)+j] * x
		}
	}
}

// forward runs a row and gives its outputs.
func (p *plain) forward(xs [][]float64) (ys [][]float64) {
	H, h, c := p.H, make([]float64, p.H), make([]float64, p.H)
	for _, x := range xs {
		s := plainStep{x: x, h: h, c: c}
		wx, rh := times(p.w, x, p.b), times(p.r, h, p.s)
		s.gates, s.side = make([]float64, len(wx)), rh
		h, c = make([]float64, H), make([]float64, H)
		for j := range H {
			g := s.gates
			switch len(g) / H {
			case 4:
				g[j], g[H+j], g[3*H+j] = sigmoid(wx[j]+rh[j]), sigmoid(wx[H+j]+rh[H+j]), sigmoid(wx[3*H+j]+rh[3*H+j])
				g[2*H+j] = math.Tanh(wx[2*H+j] + rh[2*H+j])
				c[j] = g[H+j]*s.c[j] + g[j]*g[2*H+j]
				h[j] = g[3*H+j] * math.Tanh(c[j])
			case 3:
				g[j], g[H+j] = sigmoid(wx[j]+rh[j]), sigmoid(wx[H+j]+rh[H+j])
				g[2*H+j] = math.Tanh(wx[2*H+j] + g[j]*rh[2*H+j])
				h[j] = (1-g[H+j])*g[2*H+j] + g[H+j]*s.h[j]
			default:
				g[j] = math.Tanh(wx[j] + rh[j])
				h[j] = g[j]
			}
		}
		s.cNew = c
		p.steps, ys = append(p.steps, s), append(ys, h)
	}
	return ys
}

// backward takes the gradients of the outputs to those of the inputs, and gives
// the decimal logarithms of those of h and c by steps before the last.
func (p *plain) backward(dy []scaled) (dx []scaled, dh, dc []float64) {
	H := p.H
	carried := scaled{v: make([]float64, 2*H)} // h, then c
	dx = make([]scaled, len(p.steps))
	for t := len(p.steps) - 1; t >= 0; t-- {
		s := p.steps[t]
		if dy[t].v != nil {
			carried.add(scaled{append(append([]float64{}, dy[t].v...), make([]float64, H)...), dy[t].e})
		} else {
			carried.add(scaled{})
		}
		dh, dc = append(dh, carried.log10(0, H)), append(dc, carried.log10(H, 2*H))
		next := scaled{make([]float64, 2*H), carried.e}
		g, d := s.gates, make([]float64, len(s.gates))
		dr := d // gradients of R·h + s
		if len(g) == 3*H {
			dr = make([]float64, 3*H)
		}
		for j := range H {
			h, c := carried.v[j], carried.v[H+j]
			switch len(g) / H {
			case 4:
				i, f, n, o, u := g[j], g[H+j], g[2*H+j], g[3*H+j], math.Tanh(s.cNew[j])
				c += h * o * (1 - u*u)
				d[j], d[H+j], d[2*H+j], d[3*H+j] = c*n*i*(1-i), c*s.c[j]*f*(1-f), c*i*(1-n*n), h*u*o*(1-o)
				next.v[H+j] = c * f
			case 3:
				r, z, n := g[j], g[H+j], g[2*H+j]
				d[2*H+j] = h * (1 - z) * (1 - n*n)
				d[H+j] = h * (s.h[j] - n) * z * (1 - z)
				d[j] = d[2*H+j] * s.side[2*H+j] * r * (1 - r)
				dr[j], dr[H+j], dr[2*H+j] = d[j], d[H+j], d[2*H+j]*r
				next.v[j] = h * z
			default:
				d[j] = h * (1 - g[j]*g[j])
			}
		}
		back(p.r, dr, next.v[:H])
		dx[t] = scaled{make([]float64, len(s.x)), carried.e}
		back(p.w, d, dx[t].v)
		carried = next
	}
	return dx, dh, dc
}

func float64s(v []float32) []float64 {
	out := make([]float64, len(v))
	for i, x := range v {
		out[i] = float64(x)
	}
	return out
}

// reference is the decimal logarithms of the gradients in h and c of each layer
// and direction of a stack, as Layer has them.
func reference(m *nn.RNN, lengths []int32, x []float32, w func(b, t, j int) float64) (dh, dc [][]float64) {
	F, D, H := m.InputSize(), m.Directions(), m.Hidden()
	T := len(x) / F / len(lengths)
	dh, dc = make([][]float64, m.Layers()*D), make([][]float64, m.Layers()*D)
	for b, n := range lengths {
		xs := make([][]float64, n)
		for t := range xs {
			xs[t] = float64s(x[(b*T+t)*F:][:F])
		}
		layers := make([]*plain, len(dh))
		for l := range m.Layers() {
			ys := make([][]float64, n)
			for d := range D {
				p := &plain{H: H}
				for i, v := range []*[]float64{&p.w, &p.r, &p.b, &p.s} {
					*v = float64s(m.Weights[4*(l*D+d)+i].Read())
				}
				layers[l*D+d] = p
				for t, y := range turned(d == 1, p.forward(turned(d == 1, xs))) {
					ys[t] = append(ys[t], y...)
				}
			}
			xs = ys
		}
		dy := make([]scaled, n)
		for t := range dy {
			for j := range D * H {
				dy[t].v = append(dy[t].v, float64(float32(w(b, t, j))))
			}
		}
		for l := m.Layers() - 1; l >= 0; l-- {
			next := make([]scaled, n)
			for d := range D {
				mine := make([]scaled, n)
				for t := range mine {
					mine[t] = scaled{dy[t].v[d*H : (d+1)*H], dy[t].e}
				}
				dx, h, c := layers[l*D+d].backward(turned(d == 1, mine))
				for t, v := range turned(d == 1, dx) {
					if next[t].v == nil {
						next[t] = scaled{make([]float64, len(v.v)), v.e}
					}
					next[t].add(v)
				}
				dh[l*D+d], dc[l*D+d] = together(dh[l*D+d], h), together(dc[l*D+d], c)
			}
			dy = next
		}
	}
	return dh, dc
}

// turned is v, in the other order if asked for.
func turned[T any](reverse bool, v []T) []T {
	if !reverse {
		return v
	}
	out := make([]T, len(v))
	for i, x := range v {
		out[len(v)-1-i] = x
	}
	return out
}

// together adds the squares whose halved decimal logarithms a and b are.
func together(a, b []float64) []float64 {
	for k, v := range b {
		if k == len(a) {
			a = append(a, math.Inf(-1))
		}
		high, low := max(a[k], v), min(a[k], v)
		if a[k] = high; !math.IsInf(low, -1) {
			a[k] += math.Log10(1+math.Pow(10, 2*(low-high))) / 2
		}
	}
	return a
}

// last weighs the outputs at which each direction ends.
func last(lengths []int32, H int) func(b, t, j int) float64 {
	return func(b, t, j int) float64 {
		if j < H && t == int(lengths[b])-1 || j >= H && t == 0 {
			return float64(1 + b - j%3)
		}
		return 0
	}
}

// The gradient of every step is that of the equations in float64, however small:
// down to 1e-400 and beyond, for rows that end apart, layers on each other, and both
// directions.
func TestFarGradients(t *testing.T) {
	const H = 5
	ragged := []int32{700, 2000, 1500}
	for name, c := range map[string]struct {
		m       *nn.RNN
		lengths []int32
		told    [2]bool // of the lower and the upper layer, whether to the end
		also    func(b, t int) float64
	}{
		"lstm":                {m: nn.NewLSTM(2, H, nil), lengths: ragged, told: [2]bool{true, true}},
		"gru, two layers":     {m: nn.NewGRU(2, H, &nn.RNNOptions{Layers: 2}), lengths: []int32{1200, 900}, told: [2]bool{true, true}},
		"lstm, two layers":    {m: nn.NewLSTM(2, H, &nn.RNNOptions{Layers: 2}), lengths: ragged, told: [2]bool{true, true}},
		"rnn":                 {m: nn.NewRNN(2, H, nil), lengths: []int32{600}, told: [2]bool{true, true}},
		"both directions":     {m: nn.NewLSTM(2, H, &nn.RNNOptions{Bidirectional: true}), lengths: []int32{900, 640, 0}, told: [2]bool{true, true}},
		"bidirectional stack": {m: nn.NewLSTM(2, H, &nn.RNNOptions{Bidirectional: true, Layers: 2}), lengths: []int32{800}, told: [2]bool{true, false}},
		"a loss on the way": {m: nn.NewLSTM(2, H, nil), lengths: []int32{800, 300}, told: [2]bool{true, true},
			also: func(b, t int) float64 { return float64(1-b) * math.Max(0, float64(1-(t-400)*(t-400))) }},
		"a small loss on the way": {m: nn.NewLSTM(2, H, nil), lengths: []int32{800}, told: [2]bool{false, false},
			also: func(b, t int) float64 { return 1e-25 * math.Max(0, float64(1-(t-400)*(t-400))) }},
	} {
		t.Run(name, func(t *testing.T) {
			w := last(c.lengths, H)
			if end := w; c.also != nil {
				w = func(b, t, j int) float64 { return end(b, t, j) + c.also(b, t) }
			}
			s, x := sums(c.m, c.lengths, w)
			f := measure(t, s)
			dh, dc := reference(c.m, c.lengths, x, w)
			for i, l := range f.Layers {
				if whole := l.Told == l.Steps; whole != c.told[i*2/len(f.Layers)] || whole == l.LeftBelow && c.also == nil {
					t.Errorf("%s: told %d of %d steps, a bound %v", l.Name, l.Told, l.Steps, l.LeftBelow)
				}
				both := dh[i]
				if l.DC != nil {
					both = together(together(nil, dh[i]), dc[i])
					compareLogs(t, l.Name+" dc", l.DCLog10[:l.Told], dc[i], both)
				}
				compareLogs(t, l.Name+" dh", l.DHLog10[:l.Told], dh[i], both)
				left := both[l.Steps-1] - both[0]
				if l.LeftBelow {
					if *l.LeftLog10 < left {
						t.Errorf("%s: a bound of %v, and %v is left", l.Name, *l.LeftLog10, left)
					}
				} else if math.Abs(*l.LeftLog10-left) > 1e-4 {
					t.Errorf("%s: left %v, want %v", l.Name, *l.LeftLog10, left)
				}
				if l.Told == l.Steps && c.also == nil && math.Abs(math.Log10(l.Rate)*float64(l.Steps-1)-left) > 1e-4 {
					t.Errorf("%s: rate %v over %d steps, left %v", l.Name, l.Rate, l.Steps, left)
				}
			}
			notes := strings.Join(f.Notes(), "\n")
			if f.Grown != strings.Contains(notes, "by scaling them") || f.Grown == (name == "a small loss on the way") {
				t.Errorf("grown %v, notes %q", f.Grown, notes)
			}
			if name == "bidirectional stack" {
				dir := t.TempDir()
				if err := f.Write(dir, "test"); err != nil {
					t.Fatal(err)
				}
				wantPage(t, dir, []string{"gradients.png"}, "by scaling them", "further back it is below", "&lt; ")
			}
			for _, l := range f.Layers {
				if want := fmt.Sprintf("%s: the gradient could be measured for the last %d of %d steps; further back it is below", l.Name, l.Told, l.Steps); strings.Contains(notes, want) != (l.Told < l.Steps) {
					t.Errorf("notes %q, told %d of %d", notes, l.Told, l.Steps)
				}
			}
		})
	}
}

// An encoder gets its gradient from the decoder's first step. From a short one it
// is followed all the way; below a long one, where it comes already vanished, it
// is neither nothing nor known.
func TestFarGradientsOfEncoders(t *testing.T) {
	const H = 5
	for _, decoded := range []int{60, 700} {
		encoder, decoder := nn.NewLSTM(2, H, nil), nn.NewLSTM(2, H, nil)
		slab := tensor.Pack(tensor.CPU(), struct{ Encoder, Decoder *nn.RNN }{encoder, decoder}, 1)
		const T = 500
		x := make([]float32, 2*max(T, decoded))
		for i := range x {
			x[i] = float32(math.Cos(float64(i)))
		}
		f := measure(t, &Subject{Name: "pair", Slab: slab, Loss: func(tape *tensor.Tape) *tensor.Tensor {
			_, state := encoder.Forward(tape.Input(x[:2*T], 1, T, 2), nil)
			_, final := decoder.Forward(tape.Input(x[:2*decoded], 1, decoded, 2), state)
			return tensor.SumAll(final.H)
		}})
		e, d := f.Layers[0], f.Layers[1]
		advice, notes := strings.Join(f.Advice, "\n"), strings.Join(f.Notes(), "\n")
		if d.Told != decoded || !f.Grown {
			t.Errorf("the decoder is told for %d of %d steps, grown %v", d.Told, decoded, f.Grown)
		}
		if decoded == 60 {
			if e.Told != T || e.LeftLog10 == nil || !(*e.LeftLog10 < -70) {
				t.Errorf("the encoder is told for %d of %d steps, left %s", e.Told, T, e.LeftText(short))
			}
		} else if e.Told != 0 || e.LeftText(short) != "not measured" || !strings.Contains(advice, "The gradient in encoder, layer 1 is below 1e-32") || !strings.Contains(notes, "encoder, layer 1: the gradient could be measured for the last 0 of 500 steps; further back it is below 1e-32") {
			t.Errorf("the encoder is told for %d steps; advice %q, notes %q", e.Told, advice, notes)
		}
	}
}

// compareLogs allows a part that is nothing beside the whole to be missing.
func compareLogs(t *testing.T, what string, got, want, whole []float64) {
	t.Helper()
	for k, v := range got {
		if missing := math.IsInf(v, -1) && !(want[k] > whole[k]-25); !missing && !(math.Abs(v-want[k]) <= 1e-4) {
			t.Errorf("%s, %d steps back: 1e%v, want 1e%v", what, k, v, want[k])
			return
		}
	}
}
