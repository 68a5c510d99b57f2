package onnx

import (
	"fmt"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/model/onnx/graph"
)

// This file writes cells that the standard's recurrent operators lack, as a Scan
// over their equations (docs/cells.md). The product with the input is computed for
// all steps before the Scan.

// scans writes a layer, each direction a Scan, and returns its output [T,B,D*O].
func (e *rnnExporter) scans(layer int, x string) string {
	var ys, hs, cs []string
	for d := range e.m.Directions() {
		s := &scanExporter{rnnExporter: e, layer: layer, d: d, outer: e.g}
		y, h, c := s.write(x)
		ys, hs, cs = append(ys, y), append(hs, e.slot(h)), append(cs, e.slot(c))
	}
	e.hs = append(e.hs, e.joined(hs))
	if e.m.CellSize() > 0 {
		e.cs = append(e.cs, e.joined(cs))
	}
	if len(ys) == 1 {
		return ys[0]
	}
	return e.g.Op("Concat", ys, attr("axis", -1))
}

// slot is a state [B,..] as one of a stack's, [1,B,..].
func (e *rnnExporter) slot(state string) string {
	if state == "" {
		return ""
	}
	return e.g.Op("Unsqueeze", []string{state, e.g.Ints("", 0)})
}

// scanExporter writes one direction of a layer. Weights are constants of the
// outer graph; the operations of a step are in the body.
type scanExporter struct {
	*rnnExporter
	layer, d int
	outer    *graph.Builder
	body     *graph.Builder
}

func (s *scanExporter) title() string { return fmt.Sprintf("%s_l%d_%d", s.name, s.layer, s.d) }

// constant adds a parameter as a constant of the outer graph; "" if there is
// none.
func (s *scanExporter) constant(base string) string {
	p := s.m.Param(base, s.layer, s.d)
	if p == nil {
		return ""
	}
	return s.outer.Floats(s.title()+"."+base, p.Read(), p.Dims()...)
}

// turned returns rows [lo,hi) of a matrix, transposed.
func (s *scanExporter) turned(base string, lo, hi int) string {
	p := s.m.Param(base, s.layer, s.d)
	cols := p.Dim(1)
	return s.outer.Weights("", swapped(p.Read()[lo*cols:hi*cols], hi-lo, cols), p.Rest(), 1, 2, cols, hi-lo)
}

// part returns elements [lo,hi) of a vector; "" if there is none.
func (s *scanExporter) part(base string, lo, hi int) string {
	p := s.m.Param(base, s.layer, s.d)
	if p == nil {
		return ""
	}
	return s.outer.Floats("", p.Read()[lo:hi], hi-lo)
}

// write adds the Scan and returns the output [T,B,O] and the final states [B,..].
func (s *scanExporter) write(x string) (y, h, c string) {
	g := s.outer
	rows := s.m.Cell().Gates() * s.m.Hidden()
	wx := g.Op("MatMul", []string{x, s.turned("weight_ih", 0, rows)})
	wx = s.normalized(g, wx, "weight_ln_ih")
	if b := s.constant("bias_ih"); b != "" {
		wx = g.Op("Add", []string{wx, b})
	}
	states := []string{s.initial(x, s.h0[s.layer], s.m.StateSize())}
	if s.m.CellSize() > 0 {
		states = append(states, s.initial(x, s.c0[s.layer], s.m.CellSize()))
	}
	s.step(rows)
	scanned := []string{wx}
	if s.lengths != "" {
		scanned = append(scanned, s.inside(x))
	}
	direction := make([]int64, len(scanned))
	for i := range direction {
		direction[i] = int64(s.d)
	}
	outs := make([]string, 0, 3)
	for range len(states) + 1 {
		outs = append(outs, g.Name())
	}
	g.Node("Scan", append(states, scanned...), outs, attr("body", s.body), attr("num_scan_inputs", len(scanned)),
		attr("scan_input_directions", direction), attr("scan_output_directions", []int64{int64(s.d)}))
	if len(states) == 2 {
		c = outs[1]
	}
	return outs[len(states)], outs[0], c
}

// initial returns the direction's initial state [B,width].
func (s *scanExporter) initial(x, given string, width int) string {
	g := s.outer
	if given != "" {
		return g.Op("Gather", []string{given, g.Int(int64(s.d))}, attr("axis", 0))
	}
	return g.Op("ConstantOfShape", []string{g.Op("Concat", []string{s.batchOf(x), g.Ints("", int64(width))}, attr("axis", 0))})
}

// inside returns the mask of the true steps of the rows, bool [T,B,1].
func (s *scanExporter) inside(x string) string {
	if s.mask == "" {
		g := s.outer
		T := g.Op("Gather", []string{g.Op("Shape", []string{x}), g.Int(0)})
		t := g.Op("Unsqueeze", []string{g.Op("Range", []string{g.Int(0), T, g.Int(1)}), g.Ints("", 1)})
		n := g.Op("Cast", []string{s.lengths}, attr("to", graph.Int64))
		s.mask = g.Op("Unsqueeze", []string{g.Op("Less", []string{t, n}), g.Ints("", 2)})
	}
	return s.mask
}

// step writes the body: inputs are states, W·x and the mask; outputs are states
// and the output.
func (s *scanExporter) step(rows int) {
	O, W := s.m.StateSize(), s.m.CellSize()
	s.body = &graph.Builder{Prefix: s.title()}
	b := s.body
	in := func(part string, dtype int64, dims ...any) string {
		name := s.title() + "." + part
		b.InputOf(dtype, name, "", dims...)
		return name
	}
	h, c := in("h", graph.Float32, "batch", O), ""
	if W > 0 {
		c = in("c", graph.Float32, "batch", W)
	}
	wx := in("wx", graph.Float32, "batch", rows)
	hid, cell := s.cell(wx, h, c)
	if s.o.Proj > 0 {
		hid = b.Op("MatMul", []string{hid, s.turned("weight_hr", 0, O)})
	}
	hid, cell = s.mixed(hid, h, s.o.Zoneout), s.mixed(cell, c, s.o.ZoneoutCell)
	y := b.Op("Identity", []string{hid}) // a separate output
	if s.lengths != "" {
		mask := in("inside", graph.Bool, "batch", 1)
		y = b.Op("Where", []string{mask, y, s.outer.Float(0)})
		hid = b.Op("Where", []string{mask, hid, h})
		if W > 0 {
			cell = b.Op("Where", []string{mask, cell, c})
		}
	}
	b.Output(hid, "", "batch", O)
	if W > 0 {
		b.Output(cell, "", "batch", W)
	}
	b.Output(y, "", "batch", O)
}

// mixed returns the mean of zoneout: p of the old state and 1-p of the new.
func (s *scanExporter) mixed(now, old string, p float32) string {
	if p == 0 {
		return now
	}
	b := s.body
	return b.Op("Add", []string{b.Op("Mul", []string{old, s.outer.Float(p)}), b.Op("Mul", []string{now, s.outer.Float(1 - p)})})
}

// normalized applies the norms of W·x or R·h: over all gates of an LSTM; over r
// and z, and over n, of a GRU.
func (s *scanExporter) normalized(g *graph.Builder, x, gain string) string {
	if !s.o.LayerNorm {
		return x
	}
	H := s.m.Hidden()
	norm := func(x string, lo, hi int) string {
		return g.Op("LayerNormalization", []string{x, s.part(gain, lo, hi)}, attr("axis", -1), attr("epsilon", float32(1e-5)))
	}
	blocks := s.m.Cell().Spec().Norms
	if blocks[1] == 0 {
		return norm(x, 0, blocks[0]*H)
	}
	cut := []string{g.Name(), g.Name()}
	first, all := blocks[0]*H, (blocks[0]+blocks[1])*H
	g.Node("Split", []string{x, s.outer.Ints("", int64(first), int64(all-first))}, cut, attr("axis", -1))
	return g.Op("Concat", []string{norm(cut[0], 0, first), norm(cut[1], first, all)}, attr("axis", -1))
}

// recurrent returns R·h + b', for rows [lo,hi) of R.
func (s *scanExporter) recurrent(h string, lo, hi int) string {
	u := s.body.Op("MatMul", []string{h, s.turned("weight_hh", lo, hi)})
	u = s.normalized(s.body, u, "weight_ln_hh")
	if b := s.part("bias_hh", lo, hi); b != "" {
		u = s.body.Op("Add", []string{u, b})
	}
	return u
}

// split divides a value [B,n*H] into n of [B,H].
func (s *scanExporter) split(x string, n int) []string {
	if n == 1 {
		return []string{x}
	}
	parts := make([]string, n)
	sizes := make([]int64, n)
	for i := range parts {
		parts[i], sizes[i] = s.body.Name(), int64(s.m.Hidden())
	}
	s.body.Node("Split", []string{x, s.outer.Ints("", sizes...)}, parts, attr("axis", -1))
	return parts
}

// clipped limits x to [-limit, limit]; 0 is no limit.
func (s *scanExporter) clipped(x string, limit float32) string {
	if limit == 0 {
		return x
	}
	return s.body.Op("Clip", []string{x, s.outer.Floats("", []float32{-limit}), s.outer.Floats("", []float32{limit})})
}

// activated applies an activation.
func (s *scanExporter) activated(a cell.Activation, x string) string {
	switch a {
	case cell.Identity:
		return x
	case cell.HardTanh:
		return s.clipped(x, 1)
	case cell.HardSigmoid:
		return s.body.Op("HardSigmoid", []string{x}, attr("alpha", float32(0.2)), attr("beta", float32(0.5)))
	}
	return s.body.Op(recurrentActivations[a], []string{x})
}

// gate and inner are the activations of gates and of the candidate.
func (s *scanExporter) gate(x string) string {
	return s.activated(s.activations()[0], s.clipped(x, s.o.GateClip))
}

func (s *scanExporter) inner(x string) string {
	return s.activated(s.activations()[1], s.clipped(x, s.o.GateClip))
}
