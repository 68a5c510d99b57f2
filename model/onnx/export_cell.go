package onnx

import (
	"github.com/carousel-ml/carousel/cell"
)

// equations write one step of a cell: from W·x + b, gate by gate, h and c to h'
// and c' ("" for a cell without).
var equations = map[cell.Kind]func(s *scanExporter, x []string, h, c string) (hid, state string){
	cell.LSTM:        (*scanExporter).lstm,
	cell.CoupledLSTM: (*scanExporter).lstm,
	cell.SLSTM:       (*scanExporter).slstm,
	cell.GRU: func(s *scanExporter, x []string, h, c string) (hid, state string) {
		u := s.split(s.recurrent(h, 0, len(x)*s.m.Hidden()), len(x))
		r, z := s.gate(s.add(x[0], u[0])), s.gate(s.add(x[1], u[1]))
		return s.between(z, s.inner(s.add(x[2], s.mul(r, u[2]))), h), ""
	},
	cell.GRUBefore: func(s *scanExporter, x []string, h, c string) (hid, state string) {
		H := s.m.Hidden()
		u := s.split(s.recurrent(h, 0, 2*H), 2)
		r, z := s.gate(s.add(x[0], u[0])), s.gate(s.add(x[1], u[1]))
		return s.between(z, s.inner(s.add(x[2], s.recurrent(s.mul(r, h), 2*H, 3*H))), h), ""
	},
	cell.RNNTanh: (*scanExporter).elman,
	cell.RNNReLU: (*scanExporter).elman,
	cell.MinGRU: func(s *scanExporter, x []string, h, c string) (hid, state string) { // h + z⊙(n - h)
		z := s.body.Op("Sigmoid", []string{x[0]})
		return s.add(h, s.mul(z, s.body.Op("Sub", []string{x[1], h}))), ""
	},
	cell.MinLSTM: func(s *scanExporter, x []string, h, c string) (hid, state string) { // (f⊙h + i⊙n)/(f+i)
		b := s.body
		f, i := b.Op("Sigmoid", []string{x[0]}), b.Op("Sigmoid", []string{x[1]})
		return b.Op("Div", []string{s.add(s.mul(f, h), s.mul(i, x[2])), s.add(f, i)}), ""
	},
}

// cell writes the equations of one step: from W·x + b [B,G*H], h and c to h' and
// c'.
func (s *scanExporter) cell(wx, h, c string) (hid, state string) {
	return equations[s.m.Cell()](s, s.split(wx, s.m.Cell().Gates()), h, c)
}

func (s *scanExporter) elman(x []string, h, _ string) (hid, state string) {
	return s.inner(s.add(x[0], s.recurrent(h, 0, s.m.Hidden()))), ""
}

// pre is what enters the gates of a cell whose gates all see x and h alike.
func (s *scanExporter) pre(x []string, h string) []string {
	u := s.split(s.recurrent(h, 0, len(x)*s.m.Hidden()), len(x))
	pre := make([]string, len(x))
	for i := range pre {
		pre[i] = s.add(x[i], u[i])
	}
	return pre
}

func (s *scanExporter) add(a, b string) string { return s.body.Op("Add", []string{a, b}) }

func (s *scanExporter) mul(a, b string) string { return s.body.Op("Mul", []string{a, b}) }

// between is (1-z)⊙n + z⊙h.
func (s *scanExporter) between(z, n, h string) string {
	return s.add(n, s.mul(z, s.body.Op("Sub", []string{h, n})))
}

// peep adds a peephole's part to the input of a gate.
func (s *scanExporter) peep(pre, base, c string) string {
	p := s.constant(base)
	if p == "" {
		return pre
	}
	return s.add(pre, s.mul(p, c))
}

func (s *scanExporter) lstm(x []string, h, c string) (hid, state string) {
	b, pre := s.body, s.pre(x, h)
	i := s.gate(s.peep(pre[0], "weight_pi", c))
	var f string
	if s.m.Cell().Spec().Gate("f") < 0 {
		f = b.Op("Sub", []string{s.outer.Float(1), i})
	} else {
		f = s.gate(s.peep(pre[1], "weight_pf", c))
	}
	g := s.inner(pre[len(pre)-2])
	state = s.clipped(s.add(s.mul(f, c), s.mul(i, g)), s.o.CellClip)
	o := s.gate(s.peep(pre[len(pre)-1], "weight_po", state))
	shown := state
	if gain := s.constant("weight_ln_c"); gain != "" {
		in := []string{state, gain}
		if bias := s.constant("bias_ln_c"); bias != "" {
			in = append(in, bias)
		}
		shown = b.Op("LayerNormalization", in, attr("axis", -1), attr("epsilon", float32(1e-5)))
	}
	return s.mul(o, s.activated(s.activations()[2], shown)), state
}

// slstm stores c, the normaliser n and the stabiliser m side by side; for a unit
// with n = 0 there is no earlier state.
func (s *scanExporter) slstm(x []string, h, state string) (hid, after string) {
	b, pre := s.body, s.pre(x, h)
	old := s.split(state, 3)
	zero := s.outer.Float(0)
	fresh := b.Op("Equal", []string{old[1], zero})
	kept := b.Op("Neg", []string{b.Op("Softplus", []string{b.Op("Neg", []string{pre[1]})})}) // log σ(f)
	stay := s.add(kept, old[2])
	m := b.Op("Where", []string{fresh, pre[0], b.Op("Max", []string{stay, pre[0]})})
	i := b.Op("Exp", []string{b.Op("Sub", []string{pre[0], m})})
	f := b.Op("Where", []string{fresh, zero, b.Op("Exp", []string{b.Op("Sub", []string{stay, m})})})
	c := s.add(s.mul(f, old[0]), s.mul(i, b.Op("Tanh", []string{pre[2]})))
	n := s.add(s.mul(f, old[1]), i)
	hid = s.mul(b.Op("Sigmoid", []string{pre[3]}), b.Op("Div", []string{c, n}))
	return hid, b.Op("Concat", []string{c, n, m}, attr("axis", -1))
}
