package graph

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/carousel-ml/carousel/model"
)

// opCase is one node with its inputs.
type opCase struct {
	op    string
	opset int64
	in    []Value
	attrs []Attr
	outs  int  // 0 is 1
	bools bool // the last input is boolean
}

func opCases() []opCase {
	rng := rand.New(rand.NewPCG(3, 3))
	f := func(dims ...int) Value { return random(rng, floats, dims, 0) }
	positive := func(dims ...int) Value {
		v := f(dims...)
		for i, x := range v.Data {
			v.Data[i] = x*x + 0.1
		}
		return v
	}
	l := func(list ...int64) Value { return Ints(list, len(list)) }
	scalar := func(x int64) Value { return Ints([]int64{x}) }
	at := func(name string, v any) []Attr { return []Attr{{name, v}} }
	counted := Ints([]int64{7, -7, 9, 4, -2, 5}, 2, 3)
	by := Ints([]int64{2, 3, -4}, 3)
	cases := []opCase{
		{op: "Gemm", in: []Value{f(3, 4), f(4, 5), f(5)}},
		{op: "Gemm", in: []Value{f(4, 3), f(5, 4), f(3, 1)}, attrs: []Attr{{"transA", 1}, {"transB", 1}, {"alpha", float32(0.5)}, {"beta", float32(-2)}}},
		{op: "Gemm", in: []Value{f(3, 4), f(5, 4)}, attrs: at("transB", 1)},
		{op: "MatMul", in: []Value{f(2, 3, 4), f(4, 5)}},
		{op: "MatMul", in: []Value{f(2, 1, 3, 4), f(5, 4, 2)}},
		{op: "MatMul", in: []Value{f(4), f(2, 4, 5)}},
		{op: "MatMul", in: []Value{f(2, 3, 4), f(4)}},
		{op: "MatMul", in: []Value{f(4), f(4)}},
		{op: "LayerNormalization", in: []Value{f(2, 3, 4), f(4), f(4)}},
		{op: "LayerNormalization", in: []Value{f(2, 3, 4), f(3, 4)}, attrs: []Attr{{"axis", 1}, {"epsilon", float32(0.1)}}},
		{op: "Softmax", in: []Value{f(2, 3, 4)}},
		{op: "Softmax", in: []Value{f(2, 3, 4)}, attrs: at("axis", 1)},
		{op: "Softmax", opset: 11, in: []Value{f(2, 3, 4)}},
		{op: "LogSoftmax", in: []Value{f(2, 3, 4)}, attrs: at("axis", 0)},
		{op: "Reshape", in: []Value{f(2, 3, 4), l(0, -1)}},
		{op: "Flatten", in: []Value{f(2, 3, 4)}, attrs: at("axis", 2)},
		{op: "Flatten", in: []Value{f(2, 3, 4)}, attrs: at("axis", 3)},
		{op: "Squeeze", in: []Value{f(1, 3, 1, 4)}},
		{op: "Squeeze", in: []Value{f(1, 3, 1, 4), l(-2)}},
		{op: "Squeeze", opset: 11, in: []Value{f(1, 3, 1, 4)}, attrs: at("axes", []int64{0})},
		{op: "Unsqueeze", in: []Value{f(3, 4), l(0, -1)}},
		{op: "Unsqueeze", opset: 11, in: []Value{f(3, 1)}, attrs: at("axes", []int64{1, 2})},
		{op: "Transpose", in: []Value{f(2, 3, 4)}},
		{op: "Transpose", in: []Value{f(2, 3, 4, 2)}, attrs: at("perm", []int64{1, 3, 0, 2})},
		{op: "Transpose", in: []Value{f(2, 3, 4)}, attrs: at("perm", []int64{1, 0, 2})},
		{op: "Transpose", in: []Value{counted}},
		{op: "Expand", in: []Value{f(3, 1), l(2, 1, 4)}},
		{op: "Tile", in: []Value{f(2, 3), l(2, 3)}},
		{op: "Concat", in: []Value{f(2, 3, 1), f(2, 3, 4), f(2, 3, 2)}, attrs: at("axis", -1)},
		{op: "Concat", in: []Value{counted, counted}, attrs: at("axis", 0)},
		{op: "Split", in: []Value{f(2, 6)}, attrs: at("axis", 1), outs: 3},
		{op: "Split", in: []Value{f(7, 2), l(2, 1, 4)}, outs: 3},
		{op: "Slice", in: []Value{f(4, 5), l(1, -3), l(9, -1)}},
		{op: "Slice", in: []Value{f(4, 5), l(-1, 3), l(-9, 0), l(1, 0), l(-2, -1)}},
		{op: "Slice", in: []Value{counted, l(2), l(-100), l(1), l(-1)}},
		{op: "Slice", opset: 9, in: []Value{f(4, 5)}, attrs: []Attr{{"starts", []int64{1}}, {"ends", []int64{-1}}, {"axes", []int64{1}}}},
		{op: "Gather", in: []Value{f(5, 3), Ints([]int64{4, 0, -1, 2}, 2, 2)}},
		{op: "Gather", in: []Value{f(2, 5, 3), scalar(-1)}, attrs: at("axis", 1)},
		{op: "Gather", in: []Value{counted, l(2, 0)}, attrs: at("axis", 1)},
		{op: "GatherElements", in: []Value{f(3, 4), Ints([]int64{0, 2, -1, 1}, 2, 2)}, attrs: at("axis", 0)},
		{op: "GatherElements", in: []Value{f(3, 4), Ints([]int64{3, 0, 1}, 3, 1)}, attrs: at("axis", 1)},
		{op: "GatherND", in: []Value{f(3, 4, 2), Ints([]int64{0, 3, 2, -1}, 2, 2)}},
		{op: "Shape", in: []Value{f(2, 3, 4)}},
		{op: "Shape", in: []Value{f(2, 3, 4)}, attrs: []Attr{{"start", -2}, {"end", 9}}},
		{op: "Size", in: []Value{f(2, 3, 4)}},
		{op: "ConstantOfShape", in: []Value{l(2, 3)}},
		{op: "Range", in: []Value{scalar(7), scalar(-3), scalar(-4)}},
		{op: "Cast", in: []Value{f(2, 3)}, attrs: at("to", typeInt64)},
		{op: "Cast", in: []Value{counted}, attrs: at("to", typeFloat)},
		{op: "Cast", in: []Value{f(2, 3)}, attrs: at("to", typeBool)},
		{op: "Identity", in: []Value{f(2, 3)}},
		{op: "Dropout", in: []Value{f(2, 3)}, outs: 2},
		{op: "Where", in: []Value{f(2, 3), f(1, 3), Ints([]int64{1, 0}, 2, 1)}, bools: true},
		{op: "Not", in: []Value{Ints([]int64{1, 0}, 2)}, bools: true},
		{op: "Clip", in: []Value{f(2, 3), Floats([]float32{-0.2}), Floats([]float32{0.3})}},
		{op: "Min", in: []Value{f(2, 3), f(3), f(2, 1)}},
		{op: "Max", in: []Value{counted, by}},
		{op: "ArgMax", in: []Value{f(3, 4, 2)}, attrs: at("axis", 1)},
		{op: "ArgMax", in: []Value{Floats([]float32{2, 5, 5, 1}, 4)}, attrs: []Attr{{"keepdims", 0}, {"select_last_index", 1}}},
		{op: "ArgMin", in: []Value{f(3, 4)}, attrs: []Attr{{"axis", -1}, {"keepdims", 0}}},
		{op: "ReduceMean", in: []Value{f(2, 3, 4)}, attrs: []Attr{{"axes", []int64{1}}, {"keepdims", 0}}},
		{op: "ReduceMean", opset: 18, in: []Value{f(2, 3, 4), l(0, -1)}},
		{op: "ReduceMax", in: []Value{f(2, 3, 4)}},
		{op: "ReduceMin", in: []Value{f(2, 3, 4)}, attrs: at("axes", []int64{-1})},
		{op: "ReduceSum", in: []Value{f(2, 3, 4), l(2)}, attrs: at("keepdims", 0)},
		{op: "ReduceSum", in: []Value{counted, l(0)}},
		{op: "Pow", in: []Value{positive(2, 3), f(3)}},
		{op: "Mod", in: []Value{counted, by}},
		{op: "HardSigmoid", in: []Value{f(2, 9)}},
		{op: "LeakyRelu", in: []Value{f(2, 3)}, attrs: at("alpha", float32(0.3))},
		{op: "Sqrt", in: []Value{positive(2, 3)}},
		{op: "Log", in: []Value{positive(2, 3)}},
		{op: "Neg", in: []Value{counted}},
		{op: "Abs", in: []Value{counted}},
	}
	for _, op := range []string{"Add", "Sub", "Mul", "Div"} {
		cases = append(cases, opCase{op: op, in: []Value{f(2, 3, 4), positive(4)}}, opCase{op: op, in: []Value{f(4), positive(3, 4)}},
			opCase{op: op, in: []Value{f(2, 1, 4), positive(3, 1)}}, opCase{op: op, in: []Value{counted, by}}, opCase{op: op, in: []Value{f(2, 3), positive()}})
	}
	for _, op := range []string{"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"} {
		cases = append(cases, opCase{op: op, in: []Value{counted, l(9)}}, opCase{op: op, in: []Value{f(2, 3), f(2, 1)}})
	}
	for _, op := range []string{"Relu", "Sigmoid", "Tanh", "Exp", "Softplus", "Neg", "Abs", "Reciprocal", "Floor", "Ceil", "Erf", "Softsign", "Elu"} {
		cases = append(cases, opCase{op: op, in: []Value{f(2, 5)}})
	}
	return append(cases,
		opCase{op: "Mod", in: []Value{l(-4, 7, 5, -9), l(3, -3, 8, -4)}, attrs: at("fmod", 1)},
		opCase{op: "Mod", in: []Value{l(-4, 7, 5, -9), l(3, -3, 8, -4)}},
		opCase{op: "Mod", in: []Value{Floats([]float32{-4.3, 7.2, 5, -9}, 4), Floats([]float32{2.1, -3.4, 8, -4}, 4)}, attrs: at("fmod", 1)},
		opCase{op: "Slice", in: []Value{l(5, 6, 7), l(-9), l(math.MinInt64 / 2), l(0), l(-1)}},
		opCase{op: "Slice", in: []Value{f(4, 5), l(-8, 1), l(-9, -9), l(0, 1), l(-2, -1)}},
	)
}

// build makes a model of the node. With fixed, all inputs but the first are constants of the file.
func (c *opCase) build(fixed bool) ([]byte, map[string]Value) {
	var g Builder
	inputs := map[string]Value{}
	var names []string
	for i, v := range c.in {
		name := fmt.Sprintf("i%d", i)
		dtype := int64(typeFloat)
		if v.Ints != nil {
			dtype = typeInt64
			if c.bools && i == len(c.in)-1 {
				dtype = typeBool
			}
		}
		names = append(names, name)
		if fixed && i > 0 && dtype != typeBool {
			raw, err := pack(typeName(dtype), v)
			if err != nil {
				panic(err)
			}
			g.initializer(name, dtype, raw, v.Dims)
			continue
		}
		dims := make([]any, len(v.Dims))
		for j, d := range v.Dims {
			dims[j] = d
		}
		g.InputOf(dtype, name, "", dims...)
		inputs[name] = v
	}
	if c.op == "Where" { // the condition comes first
		names = []string{names[2], names[0], names[1]}
	}
	outs := []string{}
	for i := range max(c.outs, 1) {
		outs = append(outs, fmt.Sprintf("o%d", i))
		g.outputs = append(g.outputs, appendText(nil, 1, outs[i])) // its type is the operator's affair
	}
	g.Node(c.op, names, outs, c.attrs...)
	opset := c.opset
	if opset == 0 {
		opset = 17
	}
	return g.encode("op", 8, opset), inputs
}

// TestOperators runs the other operators one by one against the answers of ONNX
// Runtime, with inputs that are fed and inputs that are constants.
func TestOperators(t *testing.T) {
	path := filepath.Join("testdata", "operators.safetensors")
	rt := FindRuntime()
	if *record && rt == nil {
		t.Fatal("ONNX Runtime is not installed: set CAROUSEL_ORT_DIR")
	}
	var answers *model.File
	if !*record {
		var err error
		if answers, err = model.ReadTensors(path); err != nil {
			t.Fatal(err)
		}
	}
	var recorded []model.Tensor
	tested := map[string]bool{"LSTM": true, "GRU": true, "RNN": true, "Constant": true, "If": true, "Scan": true, "Conv": true, "MaxPool": true}
	for i, c := range opCases() {
		tested[c.op] = true
		t.Run(fmt.Sprintf("%d-%s", i, c.op), func(t *testing.T) {
			for _, fixed := range []bool{false, true} {
				file, in := c.build(fixed)
				m, err := parse(c.op, file)
				if err != nil {
					t.Fatal(err)
				}
				got, err := runs(m, in)
				if err != nil {
					t.Fatal(err)
				}
				if *record && !fixed {
					answer, err := rt.Run(t.Context(), file, m, in)
					if err != nil {
						t.Fatal(err)
					}
					for _, info := range m.outputs {
						v := answer[info.Name]
						recorded = append(recorded, model.Tensor{Name: fmt.Sprintf("%d/%s", i, info.Name), Dims: v.Dims, Data: v.Data, Ints: v.Ints})
					}
				}
				for _, info := range m.outputs {
					name := fmt.Sprintf("%d/%s", i, info.Name)
					var want *model.Tensor
					if *record {
						want = &recorded[slices.IndexFunc(recorded, func(w model.Tensor) bool { return w.Name == name })]
					} else if want = answers.Lookup(name); want == nil {
						t.Fatalf("no answer %s", name)
					}
					v := got[info.Name]
					if _, relative := MaxDifference(v.Data, want.Data); relative > 2e-6 || !slices.Equal(v.Ints, want.Ints) || !slices.Equal(v.Dims, want.Dims) {
						t.Errorf("%s (constants %v) is %v, want %v", info.Name, fixed, v, want)
					}
				}
			}
		})
	}
	maps.Copy(tested, storedOperators(t))
	for op := range operators {
		if !tested[op] && !slices.Contains([]string{"CastLike", "And", "Or", "Xor"}, op) {
			t.Errorf("operator %s is not tested", op)
		}
	}
	if *record && !t.Failed() {
		if err := model.WriteTensors(path, recorded, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRounding rounds numbers to half precision and bfloat16: each number of these types
// stays as it is, and the middle of two neighbours goes to the even one.
func TestRounding(t *testing.T) {
	for _, dtype := range []int64{typeFloat16, typeBFloat16} {
		round := rounding(dtype)
		infinity := uint16(0x7c00)
		if dtype == typeBFloat16 {
			infinity = 0x7f80
		}
		for bits := uint16(0); bits <= infinity; bits++ {
			x := widen(dtype, bits)
			if got := round(-x); got != -x {
				t.Fatalf("%v becomes %v", -x, got)
			}
			next := widen(dtype, bits+1)
			if bits+1 >= infinity {
				continue
			}
			even := x
			if bits&1 == 1 {
				even = next
			}
			if middle := x + (next-x)/2; !subnormal(middle) && x != 0 && round(middle) != even {
				t.Fatalf("%v, between %v and %v, becomes %v", middle, x, next, round(middle))
			}
		}
	}
	if got := rounding(typeFloat16)(65520); !math.IsInf(float64(got), 1) {
		t.Errorf("65520 becomes %v", got)
	}
	if got := rounding(typeFloat16)(65519); got != 65504 {
		t.Errorf("65519 becomes %v", got)
	}
}
