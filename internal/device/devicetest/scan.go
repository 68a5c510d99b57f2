package devicetest

import (
	"fmt"
	"math"

	"github.com/carousel-ml/carousel/internal/device"
)

// layer is one scan in float64, batch row by batch row: what ScanSpec describes without its layouts.
type layer struct {
	cell            device.Cell
	t, b, in, h     int
	lens            []int // [B]
	reverse         bool
	x, w, r, bw, br []float64
	h0, c0          []float64
	y, hn, cn       []float64 // out: y is [T,B,H]
}

func logistic(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// affine is m·v + bias for rows [lo,hi) of m [.., len(v)].
func affine(m, v, bias []float64, lo, hi int) []float64 {
	out := make([]float64, 0, hi-lo)
	for i := lo; i < hi; i++ {
		var sum float64
		if bias != nil {
			sum = bias[i]
		}
		for j, x := range v {
			sum += m[i*len(v)+j] * x
		}
		out = append(out, sum)
	}
	return out
}

func (l *layer) run() {
	l.y = make([]float64, l.t*l.b*l.h)
	l.hn, l.cn = make([]float64, l.b*l.h), make([]float64, l.b*l.h)
	for row := range l.b {
		h, c := make([]float64, l.h), make([]float64, l.h)
		if l.h0 != nil {
			copy(h, l.h0[row*l.h:])
		}
		if l.c0 != nil {
			copy(c, l.c0[row*l.h:])
		}
		for k := range l.lens[row] {
			t := k
			if l.reverse {
				t = l.lens[row] - 1 - k
			}
			at := t*l.b + row
			l.step(l.x[at*l.in:(at+1)*l.in], h, c)
			copy(l.y[at*l.h:], h)
		}
		copy(l.hn[row*l.h:], h)
		copy(l.cn[row*l.h:], c)
	}
}

// step updates h and c by the equations of torch.nn.LSTM, GRU and RNN.
func (l *layer) step(x, h, c []float64) {
	n := device.Cells[l.cell].Gates * l.h
	a, b := affine(l.w, x, l.bw, 0, n), affine(l.r, h, l.br, 0, n)
	for j := range h {
		pre := func(gate int) float64 { return a[gate*l.h+j] + b[gate*l.h+j] }
		switch l.cell {
		case device.LSTM:
			c[j] = logistic(pre(1))*c[j] + logistic(pre(0))*math.Tanh(pre(2))
			h[j] = logistic(pre(3)) * math.Tanh(c[j])
		case device.GRU:
			z := logistic(pre(1))
			h[j] = (1-z)*math.Tanh(a[2*l.h+j]+logistic(pre(0))*b[2*l.h+j]) + z*h[j]
		case device.RNNTanh:
			h[j] = math.Tanh(pre(0))
		case device.RNNReLU:
			h[j] = math.Max(pre(0), 0)
		}
	}
}

// scanCase is one scan and everything a test varies about it.
type scanCase struct {
	cell        device.Cell
	t, b, in, h int
	reverse     bool
	lens        []int // nil: all T
	noBias      bool
	noState     bool
	offset      int // columns of Y before this direction's
	after       int // and after
}

func (c *scanCase) String() string {
	return fmt.Sprintf("%s T=%d B=%d I=%d H=%d reverse=%v lens=%v noBias=%v noState=%v offset=%d",
		device.Cells[c.cell].Name, c.t, c.b, c.in, c.h, c.reverse, c.lens, c.noBias, c.noState, c.offset)
}

// scanData is a case's numbers on the host.
type scanData struct{ x, w, r, bw, br, h0, c0, dy, dhn, dcn []float32 }

func (s *suite) scanData(c *scanCase) *scanData {
	g := device.Cells[c.cell].Gates * c.h
	sd := float32(1 / math.Sqrt(float64(c.h)))
	d := &scanData{
		x: s.normal(c.t * c.b * c.in), w: s.scaled(g*c.in, sd), r: s.scaled(g*c.h, sd),
		dy: s.normal(c.t * c.b * c.h), dhn: s.normal(c.b * c.h),
	}
	if !c.noBias {
		d.bw, d.br = s.scaled(g, sd), s.scaled(g, sd)
	}
	if !c.noState {
		d.h0 = s.scaled(c.b*c.h, 0.5)
	}
	if device.Cells[c.cell].States == 2 {
		d.dcn = s.normal(c.b * c.h)
		if !c.noState {
			d.c0 = s.scaled(c.b*c.h, 0.5)
		}
	}
	return d
}

// lengths is c.lens, or T for every row.
func (c *scanCase) lengths() []int {
	if c.lens != nil {
		return c.lens
	}
	lens := make([]int, c.b)
	for i := range lens {
		lens[i] = c.t
	}
	return lens
}

// layer is the reference of the case on the given inputs; nil stays nil.
func (c *scanCase) layer(x, w, r, bw, br, h0, c0 []float64) *layer {
	l := &layer{cell: c.cell, t: c.t, b: c.b, in: c.in, h: c.h, lens: c.lengths(), reverse: c.reverse,
		x: x, w: w, r: r, bw: bw, br: br, h0: h0, c0: c0}
	l.run()
	return l
}

// spec lays the case out on the device. Every output holds rubbish beforehand.
func (s *suite) spec(c *scanCase, d *scanData, keep bool, chunk int) *device.ScanSpec {
	cell := device.Cells[c.cell]
	ld := c.offset + c.h + c.after
	p := &device.ScanSpec{
		Cell: c.cell, T: c.t, B: c.b, I: c.in, H: c.h, Reverse: c.reverse, Keep: keep, Chunk: chunk,
		X: s.put(d.x), W: s.put(d.w), R: s.put(d.r), BW: s.put(d.bw), BR: s.put(d.br), H0: s.put(d.h0), C0: s.put(d.c0),
		Y: s.put(filled(c.t*c.b*ld, 9)), YLd: ld, YOff: c.offset, HN: s.put(filled(c.b*c.h, 9)),
	}
	if c.lens != nil {
		for t := range c.t {
			n := int32(0)
			for _, l := range c.lens {
				if l > t {
					n++
				}
			}
			p.Active = append(p.Active, n)
		}
	}
	steps, slots := c.t, c.t+1
	if !keep {
		steps, slots = chunk, 2
	}
	p.Gates = s.put(filled(steps*c.b*c.h*cell.Gates, 9))
	p.Hs = s.put(filled(slots*c.b*c.h, 9))
	if cell.Side {
		p.Side = s.put(filled(steps*c.b*c.h, 9))
	}
	if cell.States == 2 {
		p.CN, p.Cs = s.put(filled(c.b*c.h, 9)), s.put(filled(slots*c.b*c.h, 9))
	}
	return p
}

// columns takes this direction's columns out of Y, checking that the others kept their value.
func (s *suite) columns(c *scanCase, y []float32) []float32 {
	ld := c.offset + c.h + c.after
	out := make([]float32, 0, len(y))
	for i := 0; i < len(y); i += ld {
		out = append(out, y[i+c.offset:i+c.offset+c.h]...)
		for j := range ld {
			if (j < c.offset || j >= c.offset+c.h) && y[i+j] != 9 {
				s.Fatalf("%v: column %d of Y, outside this direction's, was written", c, j)
			}
		}
	}
	return out
}

// pad puts dy's columns where Y has them, NaN around them.
func (c *scanCase) pad(dy []float32) []float32 {
	ld := c.offset + c.h + c.after
	out := filled(c.t*c.b*ld, float32(math.NaN()))
	for i := range c.t * c.b {
		copy(out[i*ld+c.offset:], dy[i*c.h:(i+1)*c.h])
	}
	return out
}

func (s *suite) scan() {
	for cell := range device.NumCells {
		s.sub(device.Cells[cell].Name, func(s *suite) {
			for _, c := range []scanCase{
				{t: 1, b: 1, in: 1, h: 1},
				{t: 4, b: 3, in: 2, h: 5},
				{t: 4, b: 3, in: 2, h: 5, reverse: true, offset: 5},
				{t: 5, b: 4, in: 3, h: 6, lens: []int{5, 3, 3, 1}, after: 6},
				{t: 5, b: 4, in: 3, h: 6, lens: []int{4, 2, 1, 0}, reverse: true, offset: 2, after: 3},
				{t: 3, b: 2, in: 4, h: 7, noBias: true, noState: true},
				{t: 6, b: 1, in: 3, h: 17, lens: []int{5}},
				{t: 7, b: 19, in: 12, h: 33},
				{t: 3, b: 21, in: 20, h: 130, reverse: true},
				{t: 3, b: 2, in: 5, h: 8, lens: []int{0, 0}},
			} {
				c.cell = cell
				s.sample = 40
				if c.b*c.h > 500 {
					s.sample = 4 // the reference takes its time
				}
				s.scanForward(&c)
				s.scanGradient(&c)
			}
		})
	}
}

// scanForward compares with the reference, kept or not, in chunks that do and do not divide T.
func (s *suite) scanForward(c *scanCase) {
	d := s.scanData(c)
	ref := c.layer(wide(d.x), wide(d.w), wide(d.r), optional(d.bw), optional(d.br), optional(d.h0), optional(d.c0))
	for _, chunk := range []int{0, 1, 2, c.t} {
		p := s.spec(c, d, chunk == 0, chunk)
		s.b.Scan(p)
		name := fmt.Sprintf("%v chunk=%d", c, chunk)
		s.near(name+" y", s.columns(c, s.get(p.Y)), ref.y, 1e-5)
		s.near(name+" hn", s.get(p.HN), ref.hn, 1e-5)
		if device.Cells[c.cell].States == 2 {
			s.near(name+" cn", s.get(p.CN), ref.cn, 1e-5)
		}
	}
}

// optional is wide, nil of nil.
func optional(v []float32) []float64 {
	if v == nil {
		return nil
	}
	return wide(v)
}

// scanGradient checks the gradient of y·dy + hn·dhn + cn·dcn in every input. Gradients accumulate, so they begin at 1.
func (s *suite) scanGradient(c *scanCase) {
	d := s.scanData(c)
	p := s.spec(c, d, true, 0)
	s.b.Scan(p)
	p.DY, p.DHN, p.DCN = s.put(c.pad(d.dy)), s.put(d.dhn), s.put(d.dcn)
	p.DX, p.DXAcc = s.put(filled(len(d.x), 1)), true
	inputs := []struct {
		name string
		v    []float32
		grad *device.Buffer
	}{
		{"dx", d.x, &p.DX}, {"dw", d.w, &p.DW}, {"dr", d.r, &p.DR}, {"dbw", d.bw, &p.DBW}, {"dbr", d.br, &p.DBR},
		{"dh0", d.h0, &p.DH0}, {"dc0", d.c0, &p.DC0},
	}
	for _, in := range inputs {
		*in.grad = s.put(filled(len(in.v), 1))
	}
	s.b.ScanGrad(p)
	args := [7][]float64{}
	for i, in := range inputs {
		args[i] = optional(in.v)
	}
	for i, in := range inputs {
		if in.v == nil {
			continue
		}
		s.gradient(fmt.Sprintf("%v %s", c, in.name), plus(s.get(*in.grad), -1), in.v, func(v []float64) float64 {
			a := args
			a[i] = v
			l := c.layer(a[0], a[1], a[2], a[3], a[4], a[5], a[6])
			sum := dot(l.y, d.dy) + dot(l.hn, d.dhn)
			if d.dcn != nil {
				sum += dot(l.cn, d.dcn)
			}
			return sum
		}, 3e-4)
	}
}

// scanLaws checks what a scan promises beyond its numbers.
func (s *suite) scanLaws() {
	for cell := range device.NumCells {
		c := &scanCase{cell: cell, t: 6, b: 5, in: 4, h: 19, lens: []int{6, 6, 4, 2, 0}}
		d := s.scanData(c)
		kept := s.spec(c, d, true, 0)
		s.b.Scan(kept)
		y := s.get(kept.Y)
		s.aloneIsTheSame(c, d, y)
		s.twoHalves(c, d, y, s.get(kept.HN))
		s.absentGradients(c, d)
	}
}

// aloneIsTheSame: a row's bits depend neither on its batch mates nor on the padding.
func (s *suite) aloneIsTheSame(c *scanCase, d *scanData, y []float32) {
	for row, n := range c.lens {
		if n == 0 {
			continue
		}
		one := *c
		one.t, one.b, one.lens = n, 1, nil
		part := *d
		part.x = nil
		for t := range n {
			part.x = append(part.x, d.x[(t*c.b+row)*c.in:][:c.in]...)
		}
		part.h0 = d.h0[row*c.h:][:c.h]
		if d.c0 != nil {
			part.c0 = d.c0[row*c.h:][:c.h]
		}
		p := s.spec(&one, &part, true, 0)
		s.b.Scan(p)
		for t, got := 0, s.get(p.Y); t < n; t++ {
			s.same(fmt.Sprintf("%v row %d alone", c, row), got[t*c.h:][:c.h], y[(t*c.b+row)*c.h:][:c.h])
		}
	}
}

// twoHalves: running 2 steps and then the rest from their state changes no bit.
func (s *suite) twoHalves(c *scanCase, d *scanData, y, hn []float32) {
	const cut = 2
	first, rest := *c, *c
	first.t, rest.t = cut, c.t-cut
	first.lens, rest.lens = nil, nil
	for _, n := range c.lens {
		first.lens = append(first.lens, min(n, cut))
		rest.lens = append(rest.lens, max(n-cut, 0))
	}
	part := *d
	part.x = d.x[:cut*c.b*c.in]
	p := s.spec(&first, &part, false, 2)
	s.b.Scan(p)
	part.x, part.h0 = d.x[cut*c.b*c.in:], s.get(p.HN)
	if device.Cells[c.cell].States == 2 {
		part.c0 = s.get(p.CN)
	}
	q := s.spec(&rest, &part, false, 3)
	s.b.Scan(q)
	s.same(fmt.Sprintf("%v in two halves", c), append(s.get(p.Y), s.get(q.Y)...), y)
	s.same(fmt.Sprintf("%v in two halves, state", c), s.get(q.HN), hn)
}

// absentGradients: leaving out gradients changes none of the others, and DX without DXAcc is overwritten.
func (s *suite) absentGradients(c *scanCase, d *scanData) {
	full := s.spec(c, d, true, 0)
	s.b.Scan(full)
	full.DY = s.put(d.dy)
	full.DX, full.DW, full.DR = s.b.Alloc(len(d.x)), s.b.Alloc(len(d.w)), s.b.Alloc(len(d.r))
	full.DH0, full.DXAcc = s.b.Alloc(len(d.h0)), true
	s.b.ScanGrad(full)
	for _, only := range []string{"dx", "dw"} {
		p := s.spec(c, d, true, 0)
		s.b.Scan(p)
		p.DY = s.put(d.dy)
		if only == "dx" {
			p.DX = s.put(filled(len(d.x), 9))
			s.b.ScanGrad(p)
			s.near(fmt.Sprintf("%v dx alone", c), s.get(p.DX), wide(s.get(full.DX)), 1e-6)
			continue
		}
		p.DW = s.b.Alloc(len(d.w))
		s.b.ScanGrad(p)
		s.near(fmt.Sprintf("%v dw alone", c), s.get(p.DW), wide(s.get(full.DW)), 1e-6)
	}
}
