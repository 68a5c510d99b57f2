package graph

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"

	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd/simdtest"
	"github.com/carousel-ml/carousel/tensor"
)

// vanishing is a node whose first output, or a number on the way to it, would be subnormal.
type vanishing struct {
	op    string
	in    []Value
	attrs []Attr
	want  []float32 // nil: whatever it is, it is not subnormal
}

// onHost are nodes whose arithmetic is this package's.
func onHost() []vanishing {
	row := func(x ...float32) Value { return Floats(x, len(x)) }
	column := func(x ...float32) Value { return Floats(x, len(x), 1) }
	scalar := func(x float32) Value { return Value{Data: []float32{x}} }
	at := func(name string, v any) []Attr { return []Attr{{name, v}} }
	minus, inf := float32(math.Copysign(0, -1)), float32(math.Inf(1))
	list := []vanishing{
		// Two operands that are both stretched do not run on the tape.
		{"Add", []Value{column(1.5e-38, -1.5e-38), row(-1.2e-38, 1)}, nil, []float32{0, 1, -2.7e-38, 1}},
		{"Sub", []Value{column(1.5e-38, -1.5e-38), row(1.2e-38, 1)}, nil, []float32{0, -1, -2.7e-38, -1}},
		{"Mul", []Value{column(1e-20, -1e-20), row(1e-20, 1)}, nil, []float32{0, 1e-20, minus, -1e-20}},
		{"Div", []Value{column(2e-38, -2e-38), row(8, 0.5)}, nil, []float32{0, 4e-38, minus, -4e-38}},
		{"Mod", []Value{column(3e-38, -3e-38), row(2.5e-38, 2e-38)}, []Attr{{"fmod", 1}}, []float32{0, 0, minus, minus}},
		{"Pow", []Value{column(1e-20, -1e-20), row(1, 2, 3, 60, 61, -1)}, nil,
			[]float32{1e-20, 0, 0, 0, 0, 1e20, -1e-20, 0, minus, 0, minus, -1e20}},
		{"Pow", []Value{column(0, 0.5, 2, inf), row(200.5, -150.5)}, nil,
			[]float32{0, inf, 0, inf, inf, 0, inf, 0}},
		{"Gemm", []Value{Floats([]float32{1e-10, 1, -1e-10, 1}, 2, 2), Floats([]float32{1e-10, 0, 0, 1e-10}, 2, 2), row(-1e-20, 1e-20)},
			[]Attr{{"alpha", float32(1e-20)}, {"beta", float32(1e-20)}}, []float32{minus, 1e-30, minus, 1e-30}},
		{"Range", []Value{scalar(1.5e-38), scalar(-2e-38), scalar(-1.3e-38)}, nil, []float32{1.5e-38, 0, minus}},
		{"ReduceMean", []Value{Floats([]float32{2e-38, 0, 0, 0, -2e-38, 0, 0, 0}, 2, 4)}, at("axes", []int64{1}), []float32{0, minus}},
		{"ReduceSum", []Value{row(3e-38, -2.5e-38)}, nil, []float32{0}},
		{"Sqrt", []Value{row(2e-38, 1e-40, 0)}, nil, []float32{1.4142135e-19, 0, 0}},
		{"Reciprocal", []Value{row(3e38, -3e38, 1e38)}, nil, []float32{0, minus, 0}},
		{"Erf", []Value{row(1.2e-38, -1e-40)}, nil, []float32{1.354055e-38, minus}},
		{"Softsign", []Value{row(1.2e-38, -1e-40)}, nil, []float32{1.2e-38, minus}},
		{"Elu", []Value{row(-2e-38, 2e-38)}, at("alpha", float32(0.1)), []float32{minus, 2e-38}},
		{"LeakyRelu", []Value{row(-2e-38, 2e-38)}, at("alpha", float32(0.1)), []float32{minus, 2e-38}},
		{"HardSigmoid", []Value{row(2e-38, 2)}, []Attr{{"alpha", float32(0.1)}, {"beta", float32(0)}}, []float32{0, 0.2}},
		{"Abs", []Value{row(-1e-40, -2e-38)}, nil, []float32{0, 2e-38}},
		{"Floor", []Value{row(-1e-40, 1e-40, 2e-38)}, nil, []float32{minus, 0, 0}},
		{"Ceil", []Value{row(-1e-40, 1e-40, 2e-38)}, nil, []float32{minus, 0, 1}},
	}
	return list
}

// throughBackend are nodes whose arithmetic is the backend's.
func throughBackend() []vanishing {
	row := func(x ...float32) Value { return Floats(x, len(x)) }
	long := func(x ...float32) Value { return row(slices.Repeat(x, 37)...) } // vectors and what is left of them
	square := func(x ...float32) Value { return Floats(slices.Repeat(x, 400/len(x)), 20, 20) }
	return []vanishing{
		{"Add", []Value{long(1.5e-38, -1.5e-38, 1), long(-1.2e-38, 1.2e-38, 1)}, nil, nil},
		{"Sub", []Value{long(1.5e-38, -1.5e-38, 1), long(1.2e-38, -1.2e-38, 1)}, nil, nil},
		{"Mul", []Value{long(1e-20, -1e-20, 1), long(1e-20, 1e-20, 1)}, nil, nil},
		{"Div", []Value{long(2e-38, -2e-38, 1), long(8, 8, 3e38)}, nil, nil},
		{"Gemm", []Value{square(1e-20, -1e-20), square(1e-20, 2e-20), row(make([]float32, 20)...)}, nil, nil},
		{"MatMul", []Value{square(1e-20, -1e-20), square(1e-20, 2e-20)}, nil, nil},
		{"Conv", []Value{Floats(slices.Repeat([]float32{1e-20, -1e-20}, 60), 2, 3, 20), Floats(slices.Repeat([]float32{1e-20, 2e-20, -2e-20}, 12), 4, 3, 3)}, nil, nil},
		{"MatMul", []Value{long(1e-20), Floats(slices.Repeat([]float32{1e-20, 0, -2e-20}, 37), 37, 3)}, nil, nil},
		{"LayerNormalization", []Value{square(1e-20, -1e-20, 1, 3e-38), Floats(slices.Repeat([]float32{1e-38}, 20), 20)}, nil, nil},
		{"LayerNormalization", []Value{square(1e-20, -1e-20), Floats(slices.Repeat([]float32{1}, 20), 20)}, nil, nil},
		{"Softmax", []Value{square(0, -95, -100, -1000)}, nil, nil},
		{"Softmax", []Value{square(0, -95, -100, -1000)}, []Attr{{"axis", 0}}, nil},
		{"LogSoftmax", []Value{square(0, -95, -100, -1000)}, nil, nil},
		{"Sigmoid", []Value{long(-95, 95, -88, -1000, 3e-38)}, nil, nil},
		{"Tanh", []Value{long(3e-38, -1e-20, 1e-13, 100)}, nil, nil},
		{"Exp", []Value{long(-88, -95, -100, -1000, 3e-38)}, nil, nil},
		{"Log", []Value{long(1, 1.0000001, 3e-38)}, nil, nil},
		{"Softplus", []Value{long(-88, -95, -100, 100, 1000)}, nil, nil},
		{"Neg", []Value{long(2e-38, -2e-38, 1e-40)}, nil, nil},
		{"Relu", []Value{long(2e-38, -2e-38, 1e-40)}, nil, nil},
	}
}

// still are operators that compute no number, or none from numbers that vanish,
// and those that TestFlushRecurrent and TestFlushInside run.
var still = []string{"Identity", "Dropout", "ConstantOfShape", "Shape", "Size", "Cast", "CastLike", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose",
	"Expand", "Tile", "Concat", "Split", "Slice", "Gather", "GatherElements", "GatherND", "Where", "ReduceMax", "ReduceMin", "ArgMax", "ArgMin", "Clip", "Min", "Max", "MaxPool",
	"Not", "And", "Or", "Xor", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual",
	"LSTM", "GRU", "RNN", "Constant", "If", "Scan"}

// watch runs m on one thread and checks that nothing in it was subnormal.
func watch(t *testing.T, m *Model, in map[string]Value) map[string]Value {
	t.Helper()
	defer par.SetWorkers(0)
	par.SetWorkers(1)
	var got map[string]Value
	var err error
	read, made := simdtest.Subnormals(t, func() {
		m.plans = plans{}
		for range 2 { // recorded and replayed
			got, err = m.Run(in)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if read || made {
		t.Errorf("subnormal numbers: read %v, made %v", read, made)
	}
	for name, v := range got {
		if i := slices.IndexFunc(v.Data, subnormal); i >= 0 {
			t.Errorf("%s[%d] is %g", name, i, v.Data[i])
		}
	}
	return got
}

func parsed(t *testing.T, file []byte) *Model {
	t.Helper()
	m, err := parse(t.Name(), file)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestFlush runs every operator on numbers that lead below 2^-126.
func TestFlush(t *testing.T) {
	tested := map[string]bool{}
	for group, list := range map[string][]vanishing{"host": onHost(), "backend": throughBackend()} {
		for i, c := range list {
			tested[c.op] = true
			t.Run(fmt.Sprintf("%s/%d-%s", group, i, c.op), func(t *testing.T) {
				for _, fixed := range []bool{false, true} {
					node := opCase{op: c.op, in: c.in, attrs: c.attrs}
					file, in := node.build(fixed)
					got := watch(t, parsed(t, file), in)["o0"].Data
					same := func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }
					if c.want != nil && !slices.EqualFunc(got, c.want, same) {
						t.Errorf("constants %v: %v, want %v", fixed, got, c.want)
					}
				}
			})
		}
	}
	maps.Copy(tested, storedOperators(t))
	for op := range operators {
		if !tested[op] && !slices.Contains(still, op) {
			t.Errorf("operator %s is not tested", op)
		}
	}
}

// scaled are the inputs with their floats times 2^e.
func scaled(in map[string]Value, e int) map[string]Value {
	out := map[string]Value{}
	for name, v := range in {
		if v.Data != nil {
			v.Data = slices.Clone(v.Data)
			for i, x := range v.Data {
				v.Data[i] = float32(math.Ldexp(float64(x), e))
			}
		}
		out[name] = v
	}
	return out
}

// TestFlushScaled runs the cases of TestOperators with numbers on both sides of
// 2^-126, with their roots, and with exponents that no exp holds.
func TestFlushScaled(t *testing.T) {
	for i, c := range opCases() {
		group := "host"
		if slices.ContainsFunc(throughBackend(), func(v vanishing) bool { return v.op == c.op }) {
			group = "backend"
		}
		for _, e := range []int{-126, -63, 7} {
			t.Run(fmt.Sprintf("%s/%d-%s/%d", group, i, c.op, e), func(t *testing.T) {
				lowest(t, group, e)
				file, in := c.build(false)
				watch(t, parsed(t, file), scaled(in, e))
				for i, v := range c.in {
					c.in[i] = scaled(map[string]Value{"": v}, e)[""]
				}
				file, in = c.build(true)
				watch(t, parsed(t, file), in)
			})
		}
	}
}

// lowest skips what the generic kernels' products cannot take: both factors at the
// bottom of the range, so that they come below 2^-222 (see package simd).
func lowest(t *testing.T, group string, e int) {
	if group == "backend" && e == -126 && tensor.CPU().Name() == "cpu/generic" {
		t.Skip("products below 2^-222")
	}
}

// TestFlushRecurrent runs the recurrent operators with all their options on
// inputs, weights and states that vanish, on the engine and on the plain cell.
func TestFlushRecurrent(t *testing.T) {
	for i, o := range options() {
		o.dynamic = true // so that the weights can be scaled
		for _, e := range []int{-126, -64, -32, 8} {
			file, in := o.build(uint64(i), 0)
			in = scaled(in, e)
			m := parsed(t, file)
			r := m.nodes[0].prepared.(*recurrent)
			if r.engine {
				t.Run(fmt.Sprintf("backend/%d/%s", e, o.title()), func(t *testing.T) {
					lowest(t, "backend", e)
					watch(t, m, in)
				})
			}
			r.engine = false
			t.Run(fmt.Sprintf("host/%d/%s", e, o.title()), func(t *testing.T) { watch(t, m, in) })
		}
	}
}

// A state that decays over many steps of the plain cell ends as zero and not
// below what float64 holds.
func TestFlushDecay(t *testing.T) {
	const T = 3000
	var g Builder
	g.Input("x", "", T, 1, 1)
	g.Input("h", "", 1, 1, 1)
	g.Node("RNN", []string{"x", g.Floats("w", []float32{1}, 1, 1, 1), g.Floats("r", []float32{0.5}, 1, 1, 1), "", "", "h"}, []string{"y", "end"},
		Attr{"hidden_size", 1}, Attr{"activations", []string{"Affine"}})
	g.Output("y", "", T, 1, 1, 1)
	g.Output("end", "", 1, 1, 1)
	in := map[string]Value{"x": Floats(make([]float32, T), T, 1, 1), "h": Floats([]float32{1}, 1, 1, 1)}
	y := watch(t, parsed(t, g.Encode()), in)["y"].Data
	for i, want := 0, float32(0.5); i < T; i++ {
		if y[i] != want {
			t.Fatalf("step %d is %g, want %g", i, y[i], want)
		}
		if want *= 0.5; i >= 125 {
			want = 0
		}
	}
}

// What enters through the file or at Run is flushed, whatever its type there;
// graphs inside others follow.
func TestFlushInside(t *testing.T) {
	var g Builder
	g.InputOf(typeFloat, "x", "", 2)
	g.InputOf(typeBool, "c", "")
	g.Node("Constant", nil, []string{"low"}, Attr{"value_floats", []float32{1e-40, 1}})
	g.initializer("double", typeDouble, int64s([]int64{int64(math.Float64bits(-1e-40)), int64(math.Float64bits(1e-310))}), []int{2})
	g.initializer("half", typeBFloat16, []byte{1, 0, 0x80, 0}, []int{2})
	branch := func(with string) *Builder {
		b := &Builder{}
		b.Node("Where", []string{"c", with, "x"}, []string{"inner"})
		b.output("inner", "", typeFloat, 2)
		return b
	}
	addIf(&g, "c", "y", branch("low"), branch("low"))
	g.output("y", "", typeFloat, 2)
	for _, name := range []string{"double", "half", "x"} {
		g.Node("Identity", []string{name}, []string{name + "2"})
		g.output(name+"2", "", typeFloat, 2)
	}
	body := &Builder{Prefix: "body"}
	body.Input("state", "", 2)
	body.Input("step", "", 1)
	body.Node("Max", []string{"state", "step"}, []string{"next"})
	body.Output("next", "", 2)
	g.Node("Scan", []string{"x", "steps"}, []string{"end"}, Attr{"body", body}, Attr{"num_scan_inputs", 1})
	g.InputOf(typeFloat, "steps", "", 3, 1)
	g.output("end", "", typeFloat, 2)

	x := []float32{-1e-40, 1}
	got := watch(t, parsed(t, g.Encode()), map[string]Value{"x": Floats(x, 2), "c": Ints([]int64{1}), "steps": Floats([]float32{1e-39, -1, 1e-45}, 3, 1)})
	for name, want := range map[string][]float32{"y": {0, 1}, "double2": {0, 0}, "half2": {0, 1.1754944e-38}, "x2": {0, 1}, "end": {0, 1}} {
		if !slices.Equal(got[name].Data, want) {
			t.Errorf("%s is %v, want %v", name, got[name].Data, want)
		}
	}
	if x[0] != -1e-40 {
		t.Errorf("the caller's input became %v", x)
	}
}
