package onnx

import (
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/tensor"
)

// The versions that Export writes: read by every runtime since 2022, and by this package.
const (
	exportIR    = 8
	exportOpset = 17
)

// ExportOptions changes what [Export] writes; nil is a graph from x to y.
type ExportOptions struct {
	State   bool // inputs h0 (and c0) and outputs hn (and cn), [layers*directions,batch,hidden]
	Lengths bool // an input lengths, int32 [batch]: each row's true steps. Not with PoolLast in two directions
}

// Export writes s as an ONNX file and then runs that file against s on random
// input; a difference past [Tolerance] is an error. The graph's input is x,
// float32 [batch,time,input], or with an embedding ids, int64 [batch,time]; its
// output is y: [batch,time,features] or, pooled, [batch,features]. batch and
// time may vary. The parameters of s must have been packed.
func Export(path string, s *Stack, o *ExportOptions) (*Parity, error) {
	b, err := Encode(s, o)
	if err != nil {
		return nil, err
	}
	m, err := parse(path, b)
	if err != nil {
		return nil, fmt.Errorf("onnx: the written graph cannot be read back: %w", err)
	}
	p, err := s.compare(m, b, o)
	if err != nil {
		return nil, err
	}
	return p, model.WriteFileAtomic(path, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}

// Encode is the file that [Export] writes, without a comparison.
func Encode(s *Stack, o *ExportOptions) ([]byte, error) {
	c, err := s.Config()
	if err != nil {
		return nil, err
	}
	if o == nil {
		o = &ExportOptions{}
	}
	if o.Lengths && c.Pool == PoolLast && c.Bidirectional {
		return nil, fmt.Errorf("onnx: pool last of two directions does not go with lengths: use final")
	}
	for _, p := range s.params() {
		if i := slices.IndexFunc(p.Read(), func(v float32) bool { return math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) }); i >= 0 {
			return nil, fmt.Errorf("onnx: the weights are not finite: %s, element %d", p.Name, i)
		}
	}
	if o.Lengths && c.Pool == PoolLast {
		c.Pool = PoolFinal // the same of one direction, at each row's true end
	}
	e := &exporter{stack: s, Config: c, o: o}
	e.input()
	x := e.layers()
	e.head(x)
	return e.g.encode("carousel", exportIR, exportOpset), nil
}

// exporter writes one graph.
type exporter struct {
	Config
	stack *Stack
	o     *ExportOptions
	g     builder
	hs    []string // final states by layer
	cs    []string
	h0    []string // initial states by layer, "" for zeros
	c0    []string
	len   string
}

func (e *exporter) lstm() bool { return e.Cell == "lstm" }

func (e *exporter) directions() int { return e.stack.RNN.Directions() }

// input declares the inputs and cuts the states by layers.
func (e *exporter) input() {
	g := &e.g
	if e.Vocabulary > 0 {
		g.input("ids", typeInt64, "batch", "time")
	} else {
		g.input("x", typeFloat, "batch", "time", e.Input)
	}
	if e.o.Lengths {
		g.input("lengths", typeInt32, "batch")
		e.len = "lengths"
	}
	e.h0, e.c0 = make([]string, e.Layers), make([]string, e.Layers)
	if !e.o.State {
		return
	}
	e.split("h0", e.h0)
	if e.lstm() {
		e.split("c0", e.c0)
	}
}

func (e *exporter) split(name string, parts []string) {
	D := e.directions()
	e.g.input(name, typeFloat, e.Layers*D, "batch", e.Hidden)
	if e.Layers == 1 {
		parts[0] = name
		return
	}
	sizes := make([]int64, e.Layers)
	for l := range parts {
		parts[l], sizes[l] = fmt.Sprintf("%s_l%d", name, l), int64(D)
	}
	e.g.node("Split", []string{name, e.g.ints(name+"_sizes", sizes...)}, parts, attribute{"axis", 0})
}

// layers writes the recurrent stack and returns the name of its output [time,batch,features].
func (e *exporter) layers() string {
	g := &e.g
	x := "x"
	if e.Vocabulary > 0 {
		table := g.floats("embedding.weight", e.stack.Embedding.Weight.Read(), e.Vocabulary, e.Input)
		g.node("Gather", []string{table, "ids"}, []string{"embedded"})
		x = "embedded"
	}
	g.node("Transpose", []string{x}, []string{"x_time"}, attribute{"perm", []int64{1, 0, 2}})
	x = "x_time"
	joined := g.ints("joined", 0, 0, -1)
	for l := range e.Layers {
		y := e.layer(l, x)
		g.node("Transpose", []string{y}, []string{y + "_units"}, attribute{"perm", []int64{0, 2, 1, 3}}) // [T,D,B,H] to [T,B,D,H]
		x = fmt.Sprintf("out_l%d", l)
		g.node("Reshape", []string{y + "_units", joined}, []string{x})
	}
	if e.o.State {
		e.final("hn", e.hs)
		if e.lstm() {
			e.final("cn", e.cs)
		}
	}
	return x
}

func (e *exporter) final(name string, parts []string) {
	e.g.node("Concat", parts, []string{name}, attribute{"axis", 0})
	e.g.output(name, typeFloat, e.Layers*e.directions(), "batch", e.Hidden)
}

// layer writes one recurrent operator and returns the name of Y.
func (e *exporter) layer(l int, x string) string {
	gates := tensor.Gates(e.stack.RNN.Cell())
	rows, D := gates*e.Hidden, e.directions()
	per := 4
	if e.NoBias {
		per = 2
	}
	var w, r, b []float32
	width := 0
	for d := range D {
		p := e.stack.RNN.Weights[(l*D+d)*per:][:per]
		width = p[0].Dim(1)
		w = append(w, exported(p[0].Read(), gates)...)
		r = append(r, exported(p[1].Read(), gates)...)
		if !e.NoBias {
			b = append(b, exported(p[2].Read(), gates)...)
			b = append(b, exported(p[3].Read(), gates)...)
		}
	}
	name := func(s string) string { return fmt.Sprintf("%s_l%d", s, l) }
	in := []string{x, e.g.floats(name("W"), w, D, rows, width), e.g.floats(name("R"), r, D, rows, e.Hidden), "", e.len, e.h0[l], e.c0[l]}
	if !e.NoBias {
		in[3] = e.g.floats(name("B"), b, D, 2*rows)
	}
	for in[len(in)-1] == "" {
		in = in[:len(in)-1]
	}
	e.hs, e.cs = append(e.hs, name("h")), append(e.cs, name("c"))
	out := []string{name("Y"), name("h"), name("c")}
	attrs := []attribute{{"hidden_size", e.Hidden}}
	if D == 2 {
		attrs = append(attrs, attribute{"direction", "bidirectional"})
	}
	op := "RNN"
	switch e.Cell {
	case "lstm":
		op = "LSTM"
	case "gru":
		op = "GRU"
		attrs = append(attrs, attribute{"linear_before_reset", 1})
	case "rnn_relu":
		attrs = append(attrs, attribute{"activations", slices.Repeat([]string{"Relu"}, D)})
	}
	if !e.lstm() {
		out = out[:2]
	}
	e.g.node(op, in, out, attrs...)
	return name("Y")
}

// exported takes the blocks of gates from the engine's order to ONNX's.
func exported(w []float32, gates int) []float32 {
	out := make([]float32, len(w))
	n := len(w) / gates
	for i, to := range gateOrder(gates) {
		copy(out[to*n:], w[i*n:(i+1)*n])
	}
	return out
}

// head pools x [time,batch,features] and writes the linear layer.
func (e *exporter) head(x string) {
	g := &e.g
	features := e.stack.RNN.OutputSize()
	dims := []any{"batch", e.Output}
	var y string
	switch e.Pool {
	case PoolLast:
		y = "last"
		g.node("Gather", []string{x, e.scalar("last_step", -1)}, []string{y}, attribute{"axis", 0})
	case PoolFinal:
		y = "final"
		g.node("Transpose", []string{e.hs[e.Layers-1]}, []string{"final_units"}, attribute{"perm", []int64{1, 0, 2}})
		g.node("Reshape", []string{"final_units", g.ints("final_joined", 0, -1)}, []string{y})
	default:
		y = "steps"
		dims = []any{"batch", "time", e.Output}
		g.node("Transpose", []string{x}, []string{y}, attribute{"perm", []int64{1, 0, 2}})
	}
	if e.Output == 0 {
		dims[len(dims)-1] = features
		g.node("Identity", []string{y}, []string{"y"})
		g.output("y", typeFloat, dims...)
		return
	}
	e.linear(y, features)
	g.output("y", typeFloat, dims...)
}

// linear is a matrix product along the last dimension, whatever the others, and the bias.
func (e *exporter) linear(x string, features int) {
	g := &e.g
	weight := transposed(e.stack.Head.Weight.Read(), e.Output, features)
	product := "y"
	if !e.HeadNoBias {
		product = "y_product"
	}
	g.node("MatMul", []string{x, g.floats("head.weight", weight, features, e.Output)}, []string{product})
	if !e.HeadNoBias {
		g.node("Add", []string{product, g.floats("head.bias", e.stack.Head.Bias.Read(), e.Output)}, []string{"y"})
	}
}

// scalar adds a constant without dimensions.
func (e *exporter) scalar(name string, v int64) string {
	raw := make([]byte, 8)
	for i := range raw {
		raw[i] = byte(uint64(v) >> (8 * i))
	}
	return e.g.initializer(name, typeInt64, raw, nil)
}
