package devicetest

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/device"
)

// scanCase is one scan and everything a test varies about it.
type scanCase struct {
	t, b, in, h int
	reverse     bool
	lens        []int // nil: all T
	noBias      bool
	noState     bool
	offset      int // columns of Y before this direction's
	after       int // and after
	variant
}

// variant is a cell with its options.
type variant struct {
	name       string
	cell       cell.Kind
	opt        device.CellOptions
	proj       int // 1: H is projected to about its half
	peep, norm bool
}

// variants is the cell table and each option, with the combinations that meet each other inside a cell.
func variants() []variant {
	type options = cell.Options
	plain := func(o options) device.CellOptions { return device.CellOptions{Options: o} }
	opt := func(o options) device.CellOptions { return device.CellOptions{Options: o, Seed: 5, Step: 6, Node: 7} }
	clip := plain(options{GateClip: 0.8, CellClip: 0.4})
	drop := opt(options{HDrop: 0.4})
	zone := opt(options{ZoneH: 0.3, ZoneC: 0.4})
	all := opt(options{GateClip: 1.5, CellClip: 0.9, HDrop: 0.3, ZoneH: 0.2, ZoneC: 0.3})
	mean := device.CellOptions{Options: options{ZoneH: 0.3}, Expect: true}
	var vs []variant
	for kind := range cell.Custom {
		name := kind.Spec().Name
		vs = append(vs, variant{name: name, cell: kind},
			variant{name: name + " zoneout", cell: kind, opt: opt(options{ZoneH: 0.3})})
		if kind.Has(cell.WithRecurrentDropout) {
			vs = append(vs, variant{name: name + " dropout", cell: kind, opt: drop},
				variant{name: name + " dropout zoneout", cell: kind, opt: opt(options{HDrop: 0.3, ZoneH: 0.3})})
		}
		if kind.Has(cell.WithGateClip | cell.WithActivation) {
			vs = append(vs, variant{name: name + " clip", cell: kind, opt: plain(options{GateClip: 0.8})},
				variant{name: name + " softsign candidate", cell: kind, opt: plain(options{GateAct: cell.Sigmoid, InAct: cell.Softsign})})
		}
	}
	for kind := range cell.Custom {
		if !kind.Has(cell.WithPeephole | cell.WithLayerNorm | cell.WithProj | cell.WithCellClip | cell.WithZoneoutCell) {
			continue
		}
		name := kind.Spec().Name
		vs = append(vs, variant{name: name + " peephole", cell: kind, peep: true},
			variant{name: name + " norm", cell: kind, norm: true},
			variant{name: name + " projection", cell: kind, proj: 1},
			variant{name: name + " clips", cell: kind, opt: clip, peep: true},
			variant{name: name + " zoneouts", cell: kind, opt: zone},
			variant{name: name + " projection dropout", cell: kind, proj: 1, opt: drop},
			variant{name: name + " everything", cell: kind, proj: 1, opt: all, peep: true, norm: true})
	}
	vs = append(vs, variant{name: "gru norm", cell: cell.GRU, norm: true}, variant{name: "lstm expectation", cell: cell.LSTM, opt: mean},
		variant{name: "gru norm dropout", cell: cell.GRU, norm: true, opt: drop})
	for act := cell.Sigmoid; act < cell.NumActivations; act++ {
		name := cell.Activations[act]
		if act == cell.ReLU || act == cell.LeakyReLU { // unbounded and without a second derivative: smooth places only
			vs = append(vs, variant{name: "gru " + name, cell: cell.GRU, opt: plain(options{InAct: act})})
			continue
		}
		vs = append(vs, variant{name: "lstm " + name, cell: cell.LSTM, opt: plain(options{InAct: act, OutAct: act})},
			variant{name: "gru gates " + name, cell: cell.GRU, opt: plain(options{GateAct: act})})
	}
	return vs
}

// out is the width of h.
func (c *scanCase) out() int {
	if c.proj > 0 {
		return (c.h + 1) / 2
	}
	return c.h
}

// shape is the spec without its buffers.
func (c *scanCase) shape() *device.ScanSpec {
	p := &device.ScanSpec{Cell: c.cell, T: c.t, B: c.b, I: c.in, H: c.h, Reverse: c.reverse, CellOptions: c.opt}
	if c.proj > 0 {
		p.Proj = c.out()
	}
	return p
}

func (c *scanCase) String() string {
	return fmt.Sprintf("%s T=%d B=%d I=%d H=%d reverse=%v lens=%v noBias=%v noState=%v offset=%d",
		c.name, c.t, c.b, c.in, c.h, c.reverse, c.lens, c.noBias, c.noState, c.offset)
}

// scanData is a case's numbers on the host: inputs, parameters and states by
// kind, and the gradients that come from outside.
type scanData struct {
	in            map[cell.Param][]float32
	dy, dhn, dcn  []float32
	keepH, freshH []float64 // masks: [B,O] of HDrop, [T,B,O] of ZoneH
	freshC        []float64 // [T,B,H]
}

// input stands for X beside the kinds of parameters.
const input = cell.NumOperands

// inputName is what an error calls one of them.
func inputName(p cell.Param) string {
	if p == input {
		return "x"
	}
	return cell.Params[p].Name
}

// fields are the places of an input and of its gradient.
func fields(s *device.ScanSpec, p cell.Param) (in, grad *device.Buffer) {
	if p == input {
		return &s.X, &s.DX
	}
	return &s.Params[p], &s.Grads[p]
}

func (s *suite) scanData(c *scanCase) *scanData {
	table := c.cell.Spec()
	g, o, cw := c.cell.Gates()*c.h, c.out(), c.cell.Width(c.h)
	sd := float32(1 / math.Sqrt(float64(c.h)))
	d := &scanData{in: map[cell.Param][]float32{input: s.normal(c.t * c.b * c.in), cell.W: s.scaled(g*c.in, sd)},
		dy: s.normal(c.t * c.b * o), dhn: s.normal(c.b * o)}
	if !table.Free {
		d.in[cell.R] = s.scaled(g*o, sd)
	}
	if !c.noBias {
		d.in[cell.BW], d.in[cell.BR] = s.scaled(g, sd), s.scaled(g, sd)
	}
	if c.proj > 0 {
		d.in[cell.P] = s.scaled(o*c.h, sd)
	}
	if !c.noState {
		d.in[cell.H0] = s.scaled(c.b*o, 0.5)
	}
	if cw > 0 {
		d.dcn = s.normal(c.b * cw)
		if !c.noState {
			d.in[cell.C0] = s.scaled(c.b*cw, 0.5)
		}
	}
	if !c.noState { // a state that can be
		for i := range d.in[cell.C0] {
			if table.MustBePositive(i / c.h) {
				d.in[cell.C0][i] = 1 + d.in[cell.C0][i]*d.in[cell.C0][i]
			}
		}
	}
	if c.peep {
		d.in[cell.PeepI], d.in[cell.PeepO] = s.scaled(c.h, 0.5), s.scaled(c.h, 0.5)
		if table.Gate("f") >= 0 {
			d.in[cell.PeepF] = s.scaled(c.h, 0.5)
		}
	}
	if c.norm {
		d.in[cell.NormX], d.in[cell.NormR] = plus(s.scaled(g, 0.2), 1), plus(s.scaled(g, 0.2), 1)
		if table.States == 2 {
			d.in[cell.NormC] = plus(s.scaled(c.h, 0.2), 1)
			if !c.noBias {
				d.in[cell.BiasC] = s.scaled(c.h, 0.2)
			}
		}
	}
	s.masks(c, d)
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

// layer is the reference of the case on the given inputs.
func (c *scanCase) layer(d *scanData, in map[cell.Param][]float64) *layer {
	l := &layer{scanCase: c, data: d, lens: c.lengths(), in: in}
	l.run()
	return l
}

// wideInputs is the inputs in float64.
func (d *scanData) wideInputs() map[cell.Param][]float64 {
	w := map[cell.Param][]float64{}
	for name, v := range d.in {
		w[name] = wide(v)
	}
	return w
}

// smoothDistance is how far from each kink the reference has to stay for a comparison
// with differences: ten times their step.
const smoothDistance = 1e-4

// smoothData is scanData at which the reference has a derivative. Data that put an
// argument of a function near a kink of it are drawn again.
func (s *suite) smoothData(c *scanCase) *scanData {
	for range 200 {
		d := s.scanData(c)
		if l := c.layer(d, d.wideInputs()); l.kink > smoothDistance {
			return d
		}
	}
	s.Fatalf("%v: no data without kinks", c)
	return nil
}

// spec lays the case out on the device. Every output holds rubbish beforehand.
func (s *suite) spec(c *scanCase, d *scanData, keep bool) *device.ScanSpec {
	p := c.shape()
	o := c.out()
	ld := c.offset + o + c.after
	p.Keep = keep
	for name, v := range d.in {
		in, _ := fields(p, name)
		*in = s.put(v)
	}
	p.Y, p.YLd, p.YOff, p.HN = s.put(filled(c.t*c.b*ld, 9)), ld, c.offset, s.put(filled(c.b*o, 9))
	p.CN = s.put(filled(c.b*p.CellWidth(), 9))
	if c.lens != nil {
		var active []int32
		for t := range c.t {
			n := int32(0)
			for _, l := range c.lens {
				if l > t {
					n++
				}
			}
			active = append(active, n)
		}
		p.Active = s.ints(active)
		for _, l := range c.lens {
			p.Lengths = append(p.Lengths, int32(l))
		}
	}
	p.Work = s.put(filled(s.b.ScanWork(p), 9))
	return p
}

// columns takes this direction's columns out of Y, checking that the others kept their value.
func (s *suite) columns(c *scanCase, y []float32) []float32 {
	ld := c.offset + c.out() + c.after
	out := make([]float32, 0, len(y))
	for i := 0; i < len(y); i += ld {
		out = append(out, y[i+c.offset:i+c.offset+c.out()]...)
		for j := range ld {
			if (j < c.offset || j >= c.offset+c.out()) && y[i+j] != 9 {
				s.Fatalf("%v: column %d of Y, outside this direction's, was written", c, j)
			}
		}
	}
	return out
}

// pad puts dy's columns where Y has them, NaN around them.
func (c *scanCase) pad(dy []float32) []float32 {
	ld := c.offset + c.out() + c.after
	out := filled(c.t*c.b*ld, float32(math.NaN()))
	for i := range c.t * c.b {
		copy(out[i*ld+c.offset:], dy[i*c.out():(i+1)*c.out()])
	}
	return out
}

// scanForwards compares values, kept or not, with the reference.
func (s *suite) scanForwards() { s.scans((*suite).scanForward) }

// scanGradients compares gradients with differences of the reference.
func (s *suite) scanGradients() {
	s.remember = true
	s.scans(func(s *suite, c *scanCase) {
		s.scanGradient(c)
		if s.sample = 4; c.b*c.h < 50 {
			s.scanTrace(c)
		}
	})
}

// scans runs check on each variant in several shapes.
func (s *suite) scans(check func(*suite, *scanCase)) {
	shapes := []scanCase{
		{t: 4, b: 3, in: 2, h: 5},
		{t: 5, b: 4, in: 3, h: 6, lens: []int{4, 2, 1, 0}, reverse: true, offset: 2, after: 3},
		{t: 3, b: 2, in: 4, h: 7, noBias: true, noState: true},
		{t: 1, b: 1, in: 1, h: 1},
		{t: 4, b: 3, in: 2, h: 5, reverse: true, offset: 5},
		{t: 5, b: 4, in: 3, h: 6, lens: []int{5, 3, 3, 1}, after: 6},
		{t: 6, b: 1, in: 3, h: 17, lens: []int{5}},
		{t: 7, b: 19, in: 12, h: 33},
		{t: 3, b: 21, in: 20, h: 130, reverse: true},
		{t: 3, b: 2, in: 5, h: 8, lens: []int{0, 0}},
	}
	names := map[string]bool{}
	for _, v := range variants() {
		if names[v.name] {
			s.Fatalf("two variants have the name %q, and so the same numbers", v.name)
		}
		names[v.name] = true
		s.sub(v.name, func(s *suite) {
			cases := shapes
			if v.name != cell.Table[v.cell].Name { // the plain cells meet every shape
				cases = shapes[:3]
			}
			for _, c := range cases {
				c.variant = v
				s.sample = 40
				if c.b*c.h > 500 {
					s.sample = 4 // the reference takes its time
				}
				s.seed(c.String())
				check(s, &c)
			}
		})
	}
}

// scanForward compares with the reference, kept or not.
func (s *suite) scanForward(c *scanCase) {
	d := s.scanData(c)
	ref := c.layer(d, d.wideInputs())
	for _, keep := range []bool{true, false} {
		p := s.spec(c, d, keep)
		s.b.Scan(p)
		name := fmt.Sprintf("%v keep=%v", c, keep)
		s.near(name+" y", s.columns(c, s.get(p.Y)), ref.y, 2e-5)
		s.near(name+" hn", s.get(p.HN), ref.hn, 2e-5)
		s.near(name+" cn", s.get(p.CN), ref.cn, 2e-5)
	}
}

// scanGradient checks the gradient of y·dy + hn·dhn + cn·dcn in every input. Gradients accumulate, so they begin at 1.
func (s *suite) scanGradient(c *scanCase) {
	d := s.smoothData(c)
	p := s.spec(c, d, true)
	s.b.Scan(p)
	p.DY, p.DHN, p.DCN = s.put(c.pad(d.dy)), s.put(d.dhn), s.put(d.dcn)
	p.DXAcc = true
	for name, v := range d.in {
		_, grad := fields(p, name)
		*grad = s.put(filled(len(v), 1))
	}
	s.b.ScanGrad(p)
	in := d.wideInputs()
	for name := range input + 1 {
		at := in[name]
		if at == nil {
			continue
		}
		_, grad := fields(p, name)
		s.gradient(fmt.Sprintf("%v d%s", c, inputName(name)), plus(s.get(*grad), -1), d.in[name], func(v []float64) float64 {
			in[name] = v
			l := c.layer(d, in)
			return dot(l.y, d.dy) + dot(l.hn, d.dhn) + dot(l.cn, d.dcn)
		}, 5e-4)
		in[name] = at
	}
}

// scanTrace checks the gradients of the states in the middle of the sequence.
// Rows past their ends are not written: they keep the zeros that stand there.
func (s *suite) scanTrace(c *scanCase) {
	d := s.smoothData(c)
	p := s.spec(c, d, true)
	h, w := c.b*c.out(), c.b*p.CellWidth()
	p.TraceGates, p.TraceCells = s.put(make([]float32, c.t*c.b*p.GateWidth())), s.put(filled(c.t*w, 9))
	s.b.Scan(p)
	p.DY, p.DHN, p.DCN = s.put(c.pad(d.dy)), s.put(d.dhn), s.put(d.dcn)
	p.TraceDH, p.TraceDC = s.put(make([]float32, c.t*h)), s.put(make([]float32, c.t*w))
	s.b.ScanGrad(p)
	l := &layer{scanCase: c, data: d, lens: c.lengths(), in: d.wideInputs()}
	s.scanSeen(l, s.get(p.TraceGates), s.get(p.TraceCells))
	check := func(what string, trace []float32, t, width int, state func(h, c []float64) []float64) {
		s.gradient(fmt.Sprintf("%v trace of %s[%d]", c, what, t), trace[t*c.b*width:][:c.b*width], make([]float32, c.b*width), func(v []float64) float64 {
			l.nudge = func(at, row int, h, c []float64) {
				if at == t {
					for i, x := range v[row*width:][:width] {
						state(h, c)[i] += x
					}
				}
			}
			l.run()
			return dot(l.y, d.dy) + dot(l.hn, d.dhn) + dot(l.cn, d.dcn)
		}, 5e-4)
	}
	dh, dc := s.get(p.TraceDH), s.get(p.TraceDC)
	for t := range c.t {
		check("h", dh, t, c.out(), func(h, _ []float64) []float64 { return h })
		check("c", dc, t, p.CellWidth(), func(_, c []float64) []float64 { return c })
	}
}

// scanSeen checks the states beside h after each step, and that an LSTM's output
// gate is what its h is made with. Past its end a row keeps its state, and zeros
// stand where gates would be.
func (s *suite) scanSeen(l *layer, gates, cells []float32) {
	c, want := l.scanCase, make([]float64, len(cells))
	w := len(cells) / max(1, c.t*c.b)
	put := func(t, row int, state []float64) { copy(want[(t*c.b+row)*w:], state) }
	l.nudge = func(t, row int, _, state []float64) { put(t, row, state) }
	l.run()
	gw := len(gates) / max(1, c.t*c.b)
	for row, n := range l.lens {
		for k := n; k < c.t; k++ {
			t, state := k, l.cn[row*w:][:w]
			if c.reverse { // a reversed row begins at its end
				state = make([]float64, w)
				copy(state, l.in[cell.C0][min(row*w, len(l.in[cell.C0])):])
			}
			put(t, row, state)
			s.near(fmt.Sprintf("%v gates past the end", c), gates[(t*c.b+row)*gw:][:gw], make([]float64, gw), 0)
		}
	}
	s.near(fmt.Sprintf("%v c", c), cells, want, 2e-5)
	if c.name != cell.Table[cell.LSTM].Name {
		return
	}
	got := make([]float32, len(l.y))
	for i := range got {
		got[i] = gates[i/c.h*gw+3*c.h+i%c.h] * float32(math.Tanh(want[i]))
	}
	s.near(fmt.Sprintf("%v o·tanh(c)", c), got, l.y, 2e-5)
}

// scanGains: a pass whose gradients grow by powers of two on the way back gives
// the bits of a plain one, multiplied by what they have grown by.
func (s *suite) scanGains() {
	for _, v := range variants() {
		shapes := []scanCase{
			{t: 6, b: 5, in: 4, h: 19, lens: []int{6, 6, 4, 2, 0}},
			{t: 6, b: 5, in: 4, h: 19, lens: []int{6, 5, 4, 2, 1}, reverse: true, offset: 2, after: 3},
		}
		if v.name == cell.Table[v.cell].Name || v.proj > 0 || v.opt.HDrop > 0 { // rows so few and wide that a backend may share out their units
			shapes = append(shapes, scanCase{t: 5, b: 1, in: 3, h: 384}, scanCase{t: 5, b: 2, in: 3, h: 384, lens: []int{5, 3}, reverse: true})
		}
		for _, c := range shapes {
			c.variant = v
			s.seed(c.String())
			s.gainsAreExact(&c)
		}
	}
}

func (s *suite) gainsAreExact(c *scanCase) {
	d, h, w := s.scanData(c), c.b*c.out(), c.b*c.shape().CellWidth()
	gains, grown := filled(c.t*c.b, 1), filled(c.t*c.b, 1)
	for row, n := range c.lengths() {
		sum := 0
		for k := range n {
			t := n - 1 - k
			if c.reverse {
				t = k
			}
			gain := s.rnd.IntN(7) - 2
			sum += gain
			gains[t*c.b+row], grown[t*c.b+row] = float32(math.Ldexp(1, gain)), float32(math.Ldexp(1, sum))
		}
	}
	dy := slices.Clone(d.dy) // what enters has grown as what is there
	for i := range dy {
		dy[i] *= grown[i/c.out()]
	}
	pass := func(dy []float32, gains device.Buffer) *device.ScanSpec {
		p := s.spec(c, d, true)
		p.TraceDH, p.TraceDC = s.put(make([]float32, c.t*h)), s.put(make([]float32, c.t*w))
		s.b.Scan(p)
		p.DY, p.DHN, p.DCN, p.TraceGain = s.put(c.pad(dy)), s.put(d.dhn), s.put(d.dcn), gains
		p.DX = s.put(make([]float32, c.t*c.b*c.in))
		s.b.ScanGrad(p)
		return p
	}
	plain, got := pass(d.dy, device.Buffer{}), pass(dy, s.put(gains))
	check := func(what string, got, plain []float32) {
		for i := range plain {
			plain[i] *= grown[i*len(grown)/len(plain)]
		}
		s.same(fmt.Sprintf("%v grown %s", c, what), got, plain)
	}
	check("h", s.get(got.TraceDH), s.get(plain.TraceDH))
	check("c", s.get(got.TraceDC), s.get(plain.TraceDC))
	check("dx", s.get(got.DX), s.get(plain.DX))
}

// scanLaws checks what a scan promises beyond its numbers.
func (s *suite) scanLaws() {
	for _, v := range variants() {
		c := &scanCase{variant: v, t: 6, b: 5, in: 4, h: 19, lens: []int{6, 6, 4, 2, 0}}
		s.seed(c.String())
		d := s.scanData(c)
		kept := s.spec(c, d, true)
		s.b.Scan(kept)
		y := s.get(kept.Y)
		s.aloneIsTheSame(c, d, y)
		if c.opt.ZoneH == 0 || c.opt.Expect { // draws depend on the time, which begins anew
			s.twoHalves(c, d, y, s.get(kept.HN))
		}
		s.absentGradients(c, d)
	}
}

// with is the inputs with some of them replaced.
func (d *scanData) with(in map[cell.Param][]float32) *scanData {
	e := *d
	e.in = maps.Clone(d.in)
	maps.Copy(e.in, in)
	return &e
}

// aloneIsTheSame: a row's bits depend neither on its batch mates nor on the padding.
func (s *suite) aloneIsTheSame(c *scanCase, d *scanData, y []float32) {
	o := c.out()
	for row, n := range c.lens {
		if n == 0 {
			continue
		}
		one := *c
		one.t, one.b, one.lens = n, 1, nil
		part := map[cell.Param][]float32{cell.H0: d.in[cell.H0][row*o:][:o]}
		for t := range n {
			part[input] = append(part[input], d.in[input][(t*c.b+row)*c.in:][:c.in]...)
		}
		if c0 := d.in[cell.C0]; c0 != nil {
			w := len(c0) / c.b
			part[cell.C0] = c0[row*w:][:w]
		}
		p := s.spec(&one, d.with(part), true)
		p.Rows = s.ints([]int32{int32(row)})
		s.b.Scan(p)
		for t, got := 0, s.get(p.Y); t < n; t++ {
			s.same(fmt.Sprintf("%v row %d alone", c, row), got[t*o:][:o], y[(t*c.b+row)*o:][:o])
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
	x := d.in[input]
	p := s.spec(&first, d.with(map[cell.Param][]float32{input: x[:cut*c.b*c.in]}), false)
	s.b.Scan(p)
	next := map[cell.Param][]float32{input: x[cut*c.b*c.in:], cell.H0: s.get(p.HN)}
	if !p.CN.Zero() {
		next[cell.C0] = s.get(p.CN)
	}
	q := s.spec(&rest, d.with(next), false)
	s.b.Scan(q)
	s.same(fmt.Sprintf("%v in two halves", c), append(s.get(p.Y), s.get(q.Y)...), y)
	s.same(fmt.Sprintf("%v in two halves, state", c), s.get(q.HN), hn)
}

// absentGradients: leaving out gradients changes none of the others, and DX without DXAcc is overwritten.
func (s *suite) absentGradients(c *scanCase, d *scanData) {
	run := func(names ...cell.Param) *device.ScanSpec {
		p := s.spec(c, d, true)
		s.b.Scan(p)
		p.DY = s.put(d.dy)
		for _, name := range names {
			_, grad := fields(p, name)
			*grad = s.b.Alloc(len(d.in[name]))
		}
		p.DXAcc = len(names) > 1
		if len(names) == 1 && names[0] == input {
			p.DX = s.put(filled(len(d.in[input]), 9))
		}
		s.b.ScanGrad(p)
		return p
	}
	full := run(slices.Collect(maps.Keys(d.in))...)
	for _, only := range []cell.Param{input, cell.W} {
		_, want := fields(full, only)
		_, got := fields(run(only), only)
		s.near(fmt.Sprintf("%v d%s alone", c, inputName(only)), s.get(*got), wide(s.get(*want)), 1e-6)
	}
}
