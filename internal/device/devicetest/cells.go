package devicetest

import (
	"math"

	"github.com/carousel-ml/carousel/cell"
)

// layer is one scan in float64, batch row by batch row and unit by unit: what
// ScanSpec describes without its layouts.
type layer struct {
	*scanCase
	data      *scanData // its masks
	lens      []int     // [B]
	in        map[cell.Param][]float64
	y, hn, cn []float64 // out: y is [T,B,O]

	kink  float64                          // smallest distance of an argument from a kink of its function
	nudge func(t, row int, h, c []float64) // changes a state after a step; nil: none is changed
}

func logistic(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// affine is m·v + bias for rows [lo,hi) of m [.., len(v)]. Four sums at once: one
// alone would wait for each addition, and this is where the suite spends its time.
func affine(m, v, bias []float64, lo, hi int) []float64 {
	out := make([]float64, 0, hi-lo)
	for i := lo; i < hi; i++ {
		var sum [4]float64
		if bias != nil {
			sum[0] = bias[i]
		}
		row, j := m[i*len(v):(i+1)*len(v)], 0
		for ; j+4 <= len(v); j += 4 {
			sum[0] += row[j] * v[j]
			sum[1] += row[j+1] * v[j+1]
			sum[2] += row[j+2] * v[j+2]
			sum[3] += row[j+3] * v[j+3]
		}
		for ; j < len(v); j++ {
			sum[0] += row[j] * v[j]
		}
		out = append(out, sum[0]+sum[1]+sum[2]+sum[3])
	}
	return out
}

func (l *layer) run() {
	l.kink = math.Inf(1)
	o, cw := l.out(), l.cell.Width(l.h)
	l.y = make([]float64, l.t*l.b*o)
	l.hn, l.cn = make([]float64, l.b*o), make([]float64, l.b*cw)
	for row := range l.b {
		h, c := make([]float64, o), make([]float64, cw)
		if h0 := l.in[cell.H0]; h0 != nil {
			copy(h, h0[row*o:])
		}
		if c0 := l.in[cell.C0]; c0 != nil {
			copy(c, c0[row*cw:])
		}
		for k := range l.lens[row] {
			t := k
			if l.reverse {
				t = l.lens[row] - 1 - k
			}
			l.step(t, row, h, c)
			if l.nudge != nil {
				l.nudge(t, row, h, c)
			}
			copy(l.y[(t*l.b+row)*o:], h)
		}
		copy(l.hn[row*o:], h)
		copy(l.cn[row*cw:], c)
	}
}

// activation is the definition of every function a cell may use.
func activation(a cell.Activation, x float64) float64 {
	switch a {
	case cell.Sigmoid:
		return logistic(x)
	case cell.Tanh:
		return math.Tanh(x)
	case cell.ReLU:
		return math.Max(x, 0)
	case cell.HardSigmoid:
		return math.Max(0, math.Min(1, 0.2*x+0.5))
	case cell.HardTanh:
		return math.Max(-1, math.Min(1, x))
	case cell.Softsign:
		return x / (1 + math.Abs(x))
	case cell.LeakyReLU:
		if x < 0 {
			return 0.01 * x
		}
	case cell.ELU:
		if x < 0 {
			return math.Exp(x) - 1
		}
	case cell.Softplus:
		return math.Log(1 + math.Exp(x))
	}
	return x
}

// kinks are the places where an activation has no derivative.
var kinks = map[cell.Activation][]float64{cell.ReLU: {0}, cell.LeakyReLU: {0}, cell.HardSigmoid: {-2.5, 2.5}, cell.HardTanh: {-1, 1}}

// smooth notes the distance of x from a kink.
func (l *layer) smooth(x, kink float64) { l.kink = min(l.kink, math.Abs(x-kink)) }

// activated is an activation of x.
func (l *layer) activated(a cell.Activation, x float64) float64 {
	for _, k := range kinks[a] {
		l.smooth(x, k)
	}
	return activation(a, x)
}

// clipped limits x to [-limit, limit]; 0 is no limit.
func (l *layer) clipped(x float64, limit float32) float64 {
	if limit == 0 {
		return x
	}
	most := float64(limit)
	l.smooth(math.Abs(x), most)
	return max(-most, min(most, x))
}

func (l *layer) gate(x float64) float64 {
	a := l.opt.GateAct
	if a == cell.Own {
		a = cell.Sigmoid
	}
	return l.activated(a, l.clipped(x, l.opt.GateClip))
}

func (l *layer) input(x float64) float64 {
	a := l.opt.InAct
	if a == cell.Own {
		a = l.cell.Spec().Candidate()
	}
	return l.activated(a, l.clipped(x, l.opt.GateClip))
}

// normBlock is layer normalisation of v[lo:hi] with a gain, in place.
func normBlock(v, gain []float64, lo, hi int) {
	part := v[lo:hi]
	n := float64(len(part))
	var mean, variance float64
	for _, x := range part {
		mean += x / n
	}
	for _, x := range part {
		variance += (x - mean) * (x - mean) / n
	}
	for j, x := range part {
		part[j] = (x - mean) / math.Sqrt(variance+1e-5) * gain[lo+j]
	}
}

// step updates h and c at time t.
func (l *layer) step(t, row int, h, c []float64) {
	H, G := l.h, l.cell.Gates()
	at := t*l.b + row
	x := l.in[input][at*l.scanCase.in:][:l.scanCase.in]
	entering := append([]float64{}, h...)
	if l.data.keepH != nil {
		for j := range entering {
			entering[j] *= l.data.keepH[row*len(h)+j]
		}
	}
	a := affine(l.in[cell.W], x, nil, 0, G*H)
	b := make([]float64, G*H)
	if r := l.in[cell.R]; r != nil {
		b = affine(r, entering, nil, 0, G*H)
	}
	if gain := l.in[cell.NormX]; gain != nil {
		blocks := [][2]int{{0, G * H}}
		if l.cell == cell.GRU {
			blocks = [][2]int{{0, 2 * H}, {2 * H, 3 * H}}
		}
		for _, k := range blocks {
			normBlock(a, gain, k[0], k[1])
			normBlock(b, l.in[cell.NormR], k[0], k[1])
		}
	}
	for j, v := range l.in[cell.BW] {
		a[j] += v
		b[j] += l.in[cell.BR][j]
	}
	oldC := append([]float64{}, c...)
	hid, newC := l.cellStep(a, b, entering, h, oldC)
	if p := l.in[cell.P]; p != nil {
		hid = affine(p, hid, nil, 0, len(h))
	}
	for j := range h {
		fresh := 1.0
		if l.data.freshH != nil {
			fresh = l.data.freshH[at*len(h)+j]
		}
		h[j] = fresh*hid[j] + (1-fresh)*h[j]
	}
	for j := range c {
		fresh := 1.0
		if l.data.freshC != nil {
			fresh = l.data.freshC[at*len(c)+j]
		}
		c[j] = fresh*newC[j] + (1-fresh)*oldC[j]
	}
}

// cellStep is the cell's own equations: a is W·x + b, b is R·h + b'.
func (l *layer) cellStep(a, b, entering, h, c []float64) (hid, newC []float64) {
	H := l.h
	hid, newC = make([]float64, H), make([]float64, len(c))
	pre := func(gate, j int) float64 { return a[gate*H+j] + b[gate*H+j] }
	switch l.cell {
	case cell.LSTM, cell.CoupledLSTM:
		l.lstm(pre, hid, newC, c)
	case cell.SLSTM:
		l.slstm(pre, hid, newC, c)
	case cell.GRU:
		for j := range hid {
			z := l.gate(pre(1, j))
			hid[j] = (1-z)*l.input(a[2*H+j]+l.gate(pre(0, j))*b[2*H+j]) + z*h[j]
		}
	case cell.GRUBefore:
		reset := make([]float64, H)
		for j := range reset {
			reset[j] = l.gate(pre(0, j)) * entering[j]
		}
		u := affine(l.in[cell.R], reset, l.in[cell.BR], 2*H, 3*H)
		for j := range hid {
			z := l.gate(pre(1, j))
			hid[j] = (1-z)*l.input(a[2*H+j]+u[j]) + z*h[j]
		}
	case cell.RNNTanh, cell.RNNReLU:
		for j := range hid {
			hid[j] = l.input(pre(0, j))
		}
	case cell.MinGRU:
		for j := range hid {
			z := logistic(pre(0, j))
			hid[j] = (1-z)*h[j] + z*pre(1, j)
		}
	case cell.MinLSTM:
		for j := range hid {
			f, i := logistic(pre(0, j)), logistic(pre(1, j))
			hid[j] = f/(f+i)*h[j] + i/(f+i)*pre(2, j)
		}
	}
	return hid, newC
}

func (l *layer) lstm(pre func(gate, j int) float64, hid, newC, c []float64) {
	peep := func(p []float64, j int) float64 {
		if p != nil {
			return p[j]
		}
		return 0
	}
	peepI, peepF, peepO := l.in[cell.PeepI], l.in[cell.PeepF], l.in[cell.PeepO]
	outGate := 3
	if l.cell == cell.CoupledLSTM {
		outGate = 2
	}
	for j := range newC {
		i := l.gate(pre(0, j) + peep(peepI, j)*c[j])
		f := 1 - i
		if l.cell == cell.LSTM {
			f = l.gate(pre(1, j) + peep(peepF, j)*c[j])
		}
		newC[j] = l.clipped(f*c[j]+i*l.input(pre(outGate-1, j)), l.opt.CellClip)
	}
	shown := append([]float64{}, newC...)
	if gain := l.in[cell.NormC]; gain != nil {
		normBlock(shown, gain, 0, len(shown))
	}
	act := l.opt.OutAct
	if act == cell.Own {
		act = cell.Tanh
	}
	for j := range hid {
		if bias := l.in[cell.BiasC]; bias != nil {
			shown[j] += bias[j]
		}
		hid[j] = l.gate(pre(outGate, j)+peep(peepO, j)*newC[j]) * l.activated(act, shown[j])
	}
}

func (l *layer) slstm(pre func(gate, j int) float64, hid, newC, c []float64) {
	H := l.h
	for j := range hid {
		stay := math.Log(logistic(pre(1, j))) + c[2*H+j]
		m := math.Max(stay, pre(0, j))
		if c[H+j] == 0 {
			m = pre(0, j)
		} else {
			l.smooth(stay, pre(0, j))
		}
		i, f := math.Exp(pre(0, j)-m), math.Exp(stay-m)
		newC[j] = f*c[j] + i*math.Tanh(pre(2, j))
		newC[H+j] = f*c[H+j] + i
		newC[2*H+j] = m
		hid[j] = logistic(pre(3, j)) * newC[j] / newC[H+j]
	}
}

// masks computes the random numbers of a case by their definition: SplitMix64 by
// counter, keyed as DropoutSpec's, then by row and time.
func (s *suite) masks(c *scanCase, d *scanData) {
	o := c.out()
	if p := c.opt.HDrop; p > 0 {
		for b := range c.b {
			for j := range o {
				d.keepH = append(d.keepH, kept(c, 0, b, 0, j, p)/(1-float64(p)))
			}
		}
	}
	fresh := func(p float32, stream uint64, width int) []float64 {
		var v []float64
		for t := range c.t {
			for b := range c.b {
				for j := range width {
					if c.opt.Expect {
						v = append(v, 1-float64(p))
					} else {
						v = append(v, kept(c, stream, b, t, j, p))
					}
				}
			}
		}
		return v
	}
	if c.opt.ZoneH > 0 {
		d.freshH = fresh(c.opt.ZoneH, 1, o)
	}
	if c.opt.ZoneC > 0 {
		d.freshC = fresh(c.opt.ZoneC, 2, c.h)
	}
}

// kept is 0 with probability p, else 1.
func kept(c *scanCase, stream uint64, row, t, j int, p float32) float64 {
	const golden = 0x9E3779B97F4A7C15
	mix := func(z uint64) uint64 {
		z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
		z = (z ^ z>>27) * 0x94D049BB133111EB
		return z ^ z>>31
	}
	key := mix((mix((mix(c.opt.Seed+golden)^c.opt.Step)+golden) ^ (c.opt.Node + stream)) + golden)
	key = mix(key + (uint64(row)<<32|uint64(t))*golden)
	bits := mix(key + uint64(j/2+1)*golden)
	if j%2 == 0 {
		bits &= math.MaxUint32
	} else {
		bits >>= 32
	}
	if float64(bits) < math.Round(float64(p)*(1<<32)) {
		return 0
	}
	return 1
}
