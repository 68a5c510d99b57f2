package onnx

import (
	"fmt"
	"math"
	"slices"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/model/onnx/graph"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// RNNValues are the names of the inputs and outputs of a recurrent stack: X
// [time,batch,features]; states H [layers*directions,batch,..] and C, "" for
// zeros or the trained ones; Lengths int32 [batch], the true steps of each row,
// "" for all steps. The output Y [time,batch,features] is time-major too.
type RNNValues struct{ X, H, C, Lengths, Y string }

// attr is a named value of a node.
func attr(name string, value any) graph.Attr { return graph.Attr{Name: name, Value: value} }

// AddLinear adds y = x·Wᵀ + b along the last dimension to a graph and returns the
// name of y; name is the prefix of the parameters' names.
func AddLinear(g *graph.Builder, name string, l *nn.Linear, x string) string {
	rows, cols := l.Weight.Dim(0), l.Weight.Dim(1)
	y := g.Op("MatMul", []string{x, g.Weights(name+".weight", swapped(l.Weight.Read(), rows, cols), l.Weight.Rest(), 1, 2, cols, rows)})
	if l.Bias != nil {
		y = g.Op("Add", []string{y, g.Floats(name+".bias", l.Bias.Read(), rows)})
	}
	return y
}

// AddRNN adds a recurrent stack at inference, with all its options, to a graph;
// name is the prefix of the names of its values. What the standard's LSTM, GRU
// and RNN can express becomes such a node: peepholes, coupled gates, clips of the
// inputs of activations, activations, both resets of a GRU. Layer normalisation,
// projections, zoneout, a clip of the cell, sLSTM, minGRU and minLSTM become a
// Scan over their equations. A cell of the user's own and weights that are not
// finite are errors.
//
// Weights are written as they rest. A plain LSTM whose weights rest in [tensor.Int8] becomes
// com.microsoft's DynamicQuantizeLSTM, unless g.Standard is set. The directions of a layer must rest in the same precision.
func AddRNN(g *graph.Builder, name string, m *nn.RNN, in RNNValues) (RNNValues, error) {
	if m.Cell() == cell.Custom {
		return RNNValues{}, fmt.Errorf("onnx: %s: a custom cell is Go code and cannot be exported; write its equations as nodes of the graph", name)
	}
	if equations[m.Cell()] == nil {
		return RNNValues{}, fmt.Errorf("onnx: %s: there are no equations of a cell of kind %s for a graph", name, m.Cell().Spec().Name)
	}
	for layer := range m.Layers() {
		for _, base := range []string{"weight_ih", "weight_hh"} {
			first, last := m.Param(base, layer, 0), m.Param(base, layer, m.Directions()-1)
			if first != nil && first.Rest() != last.Rest() {
				return RNNValues{}, fmt.Errorf("onnx: %s rests in %s and %s in %s: a graph has them as one matrix; let them rest in the same", first.Name, first.Rest(), last.Name, last.Rest())
			}
		}
	}
	for _, p := range m.Weights {
		if i := slices.IndexFunc(p.Read(), func(v float32) bool { return math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) }); i >= 0 {
			return RNNValues{}, fmt.Errorf("onnx: the weights are not finite: %s, element %d", p.Name, i)
		}
	}
	e := &rnnExporter{g: g, m: m, o: m.Options(), name: name, lengths: in.Lengths}
	e.h0, e.c0 = e.states(in.X, "h0", in.H, m.StateSize()), e.states(in.X, "c0", in.C, m.CellSize())
	x := in.X
	for layer := range m.Layers() {
		y := e.layer(layer, x)
		if e.o.Residual && layer > 0 {
			y = g.Op("Add", []string{y, x})
		}
		x = y
	}
	out := RNNValues{Y: x, H: e.joined(e.hs)}
	if m.CellSize() > 0 {
		out.C = e.joined(e.cs)
	}
	return out, nil
}

// rnnExporter writes one stack.
type rnnExporter struct {
	g       *graph.Builder
	m       *nn.RNN
	o       nn.RNNOptions
	name    string
	lengths string
	mask    string   // bool [T,B,1]: inside the row, for Scan
	batch   string   // the size of a batch, once it is there
	h0, c0  []string // initial states [D,B,..] by layer, "" for zeros
	hs, cs  []string // final ones
}

// states divides initial states by layers; for "" they are the trained ones, or
// zeros.
func (e *rnnExporter) states(x, part, given string, width int) []string {
	L, D := e.m.Layers(), e.m.Directions()
	parts := make([]string, L)
	if width == 0 {
		return parts
	}
	if given == "" && e.o.LearnState {
		p := e.m.Param(part[:1]+"_0", 0, 0)
		batch := e.g.Op("Concat", []string{e.g.Ints("", int64(L*D)), e.batchOf(x), e.g.Ints("", int64(width))}, attr("axis", 0))
		given = e.g.Op("Expand", []string{e.g.Floats(e.name+"."+part, p.Read(), L*D, 1, width), batch})
	}
	if given == "" || L == 1 {
		parts[0] = given
		return parts
	}
	sizes := make([]int64, L)
	for l := range parts {
		parts[l], sizes[l] = fmt.Sprintf("%s.%s_l%d", e.name, part, l), int64(D)
	}
	e.g.Node("Split", []string{given, e.g.Ints("", sizes...)}, parts, attr("axis", 0))
	return parts
}

// batchOf returns the second dimension of a value [time,batch,..], as a list of
// one integer.
func (e *rnnExporter) batchOf(x string) string {
	if e.batch == "" {
		e.batch = e.g.Op("Slice", []string{e.g.Op("Shape", []string{x}), e.g.Ints("", 1), e.g.Ints("", 2)})
	}
	return e.batch
}

func (e *rnnExporter) joined(parts []string) string {
	if len(parts) == 1 {
		return parts[0]
	}
	return e.g.Op("Concat", parts, attr("axis", 0))
}

// layer writes a layer and returns its output [T,B,D*O].
func (e *rnnExporter) layer(layer int, x string) string {
	if e.standard() {
		return e.operator(layer, x)
	}
	return e.scans(layer, x)
}

// recurrentActivations are the standard's names of the activations that its
// recurrent operators have with the parameters of the engine.
var recurrentActivations = map[cell.Activation]string{
	cell.Sigmoid: "Sigmoid", cell.Tanh: "Tanh", cell.ReLU: "Relu", cell.HardSigmoid: "HardSigmoid",
	cell.Softsign: "Softsign", cell.LeakyReLU: "LeakyRelu", cell.ELU: "Elu", cell.Softplus: "Softplus",
}

// activations returns the functions of the cell: of the gates, the candidate and
// c'.
func (e *rnnExporter) activations() [3]cell.Activation {
	acts := [3]cell.Activation{e.o.GateActivation, e.o.Activation, e.o.OutputActivation}
	for i, own := range [3]cell.Activation{cell.Sigmoid, e.m.Cell().Spec().Candidate(), cell.Tanh} {
		if acts[i] == 0 {
			acts[i] = own
		}
	}
	return acts
}

// standard reports whether a node of the standard's operators can express the
// cell.
func (e *rnnExporter) standard() bool {
	if e.m.Cell().Spec().ONNX == "" {
		return false
	}
	for _, a := range e.activations() {
		if recurrentActivations[a] == "" {
			return false
		}
	}
	o := &e.o
	return !o.LayerNorm && o.Proj == 0 && o.CellClip == 0 && o.Zoneout == 0 && o.ZoneoutCell == 0
}

// operator writes a layer as one node.
func (e *rnnExporter) operator(layer int, x string) string {
	spec := e.m.Cell().Spec()
	D, H, G := e.m.Directions(), e.m.Hidden(), len(spec.ONNXGates)
	var w, r, b, p []float32
	width := 0
	for d := range D {
		wi := e.m.Param("weight_ih", layer, d)
		width = wi.Dim(1)
		w = append(w, blocks(wi.Read(), H*width, spec.ONNXGates)...)
		r = append(r, blocks(e.m.Param("weight_hh", layer, d).Read(), H*H, spec.ONNXGates)...)
		if !e.o.NoBias {
			b = append(b, blocks(e.m.Param("bias_ih", layer, d).Read(), H, spec.ONNXGates)...)
			b = append(b, blocks(e.m.Param("bias_hh", layer, d).Read(), H, spec.ONNXGates)...)
		}
		if e.o.Peephole {
			for _, gate := range []string{"weight_pi", "weight_po", "weight_pf"} {
				if q := e.m.Param(gate, layer, d); q != nil {
					p = append(p, q.Read()...)
				} else {
					p = append(p, make([]float32, H)...)
				}
			}
		}
	}
	name := func(s string) string { return fmt.Sprintf("%s.%s_l%d", e.name, s, layer) }
	restW, restR := e.m.Param("weight_ih", layer, 0).Rest(), e.m.Param("weight_hh", layer, 0).Rest()
	attrs, op := e.attributes(spec), spec.ONNX
	dynamic := op == "LSTM" && restW == tensor.Int8 && restR == tensor.Int8 && !e.g.Standard && p == nil &&
		!slices.ContainsFunc(attrs, func(a graph.Attr) bool { return a.Name != "hidden_size" && a.Name != "direction" })
	in := []string{x, "", "", "", e.lengths, e.h0[layer], e.c0[layer], ""}
	if b != nil {
		in[3] = e.g.Floats(name("B"), b, D, 2*G*H)
	}
	if p != nil {
		in[7] = e.g.Floats(name("P"), p, D, 3*H)
	}
	if dynamic {
		op = graph.DynamicLSTM
		var scales [2][]string
		in[1], scales[0] = e.bytes(name("W"), w, D, G*H)
		in[2], scales[1] = e.bytes(name("R"), r, D, G*H)
		in = slices.Concat(in, scales[0], scales[1])
	} else {
		in[1], in[2] = e.g.Weights(name("W"), w, restW, 0, 2, D, G*H, width), e.g.Weights(name("R"), r, restR, 0, 2, D, G*H, H)
		for in[len(in)-1] == "" {
			in = in[:len(in)-1]
		}
	}
	out := []string{name("Y"), name("h"), name("c")}
	e.hs, e.cs = append(e.hs, out[1]), append(e.cs, out[2])
	if spec.ONNX != "LSTM" {
		out = out[:2]
	}
	e.g.Node(op, in, out, attrs...)
	y := e.g.Op("Transpose", []string{out[0]}, attr("perm", []int64{0, 2, 1, 3})) // [T,D,B,H] to [T,B,D,H]
	return e.g.Op("Reshape", []string{y, e.g.Ints("", 0, 0, -1)})
}

// bytes adds a matrix [D,rows,columns] that rests in 8 bits as DynamicQuantizeLSTM has it, transposed, and
// returns its name and those of scales and zero points. The integers have no sign, since ONNX Runtime's
// products with those that have are not exact on processors without VNNI.
func (e *rnnExporter) bytes(name string, w []float32, D, rows int) (matrix string, scales []string) {
	columns := len(w) / (D * rows)
	values, by := simd.SplitBytes(w, columns)
	data := make([]byte, len(w))
	for d := range D {
		for i := range rows {
			for k := range columns {
				data[(d*columns+k)*rows+i] = byte(int(values[(d*rows+i)*columns+k]) + zeroPoint)
			}
		}
	}
	zeros := slices.Repeat([]byte{zeroPoint}, D*rows)
	return e.g.Bytes(name, data, D, columns, rows), []string{e.g.Floats(name+"_scale", by, D, rows), e.g.Bytes(name+"_zero", zeros, D, rows)}
}

const zeroPoint = 128

// attributes returns those that differ from the operator's defaults.
func (e *rnnExporter) attributes(spec *cell.Spec) []graph.Attr {
	D, op := e.m.Directions(), spec.ONNX
	attrs := []graph.Attr{attr("hidden_size", e.m.Hidden())}
	if D == 2 {
		attrs = append(attrs, attr("direction", "bidirectional"))
	}
	if spec.ONNXFlag != "" {
		attrs = append(attrs, attr(spec.ONNXFlag, 1))
	}
	if e.o.GateClip > 0 {
		attrs = append(attrs, attr("clip", e.o.GateClip))
	}
	acts := e.activations()
	used := map[string][]cell.Activation{"LSTM": acts[:], "GRU": acts[:2], "RNN": acts[1:2]}[op]
	var names []string
	usual := true
	for i, a := range used {
		names = append(names, recurrentActivations[a])
		usual = usual && (a == cell.Sigmoid) == (i == 0 && op != "RNN") && (a == cell.Tanh) == (i > 0 || op == "RNN")
	}
	if !usual {
		attrs = append(attrs, attr("activations", slices.Repeat(names, D)))
	}
	return attrs
}

// blocks returns blocks of n numbers in an order; -1 is a block of zeros.
func blocks(w []float32, n int, order []int) []float32 {
	var out []float32
	for _, from := range order {
		if from < 0 {
			out = append(out, make([]float32, n)...)
			continue
		}
		out = append(out, w[from*n:(from+1)*n]...)
	}
	return out
}
