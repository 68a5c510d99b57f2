package golden_test

import (
	"testing"

	"github.com/carousel-ml/carousel/internal/golden"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

type opSettings struct {
	Op      string
	Trans   bool
	Lengths []int32

	Kind              string
	Query, Key, Units int
	Padding           int
}

// one makes an operation of one operand fit the table.
func one(f func(*tensor.Tensor) *tensor.Tensor) func(...*tensor.Tensor) *tensor.Tensor {
	return func(in ...*tensor.Tensor) *tensor.Tensor { return f(in[0]) }
}

func two(f func(a, b *tensor.Tensor) *tensor.Tensor) func(...*tensor.Tensor) *tensor.Tensor {
	return func(in ...*tensor.Tensor) *tensor.Tensor { return f(in[0], in[1]) }
}

var ops = map[string]func(in ...*tensor.Tensor) *tensor.Tensor{
	"linear": func(in ...*tensor.Tensor) *tensor.Tensor {
		if len(in) == 2 {
			return tensor.Linear(in[0], in[1], nil)
		}
		return tensor.Linear(in[0], in[1], in[2])
	},
	"add":         two(tensor.Add),
	"sub":         two(tensor.Sub),
	"mul":         two(tensor.Mul),
	"div":         two(tensor.Div),
	"sigmoid":     one(tensor.Sigmoid),
	"tanh":        one(tensor.Tanh),
	"relu":        one(tensor.ReLU),
	"exp":         one(tensor.Exp),
	"log":         one(tensor.Log),
	"softplus":    one(tensor.Softplus),
	"square":      one(tensor.Square),
	"softmax":     one(func(x *tensor.Tensor) *tensor.Tensor { return tensor.Softmax(x, nil) }),
	"log_softmax": one(tensor.LogSoftmax),
	"layer_norm": func(in ...*tensor.Tensor) *tensor.Tensor {
		return tensor.LayerNorm(in[0], in[1], in[2], 1e-5)
	},
	"transpose": one(func(x *tensor.Tensor) *tensor.Tensor { return tensor.Transpose(x, 0, -1) }),
	"concat":    func(in ...*tensor.Tensor) *tensor.Tensor { return tensor.Concat(1, in...) },
	"slice":     one(func(x *tensor.Tensor) *tensor.Tensor { return tensor.Slice(x, 1, 1, 3) }),
	"repeat":    one(func(x *tensor.Tensor) *tensor.Tensor { return tensor.Repeat(x, 1, 6) }),
	"pool_last": one(tensor.LastStep),
	"pool_mean": one(tensor.MeanPool),
	"pool_max":  one(tensor.MaxPool),
}

func TestLayers(t *testing.T) {
	forEach(t, "layers", func(t *testing.T, dev *tensor.Device, c *golden.Case) {
		var s opSettings
		settings(t, c, &s)
		switch {
		case s.Kind != "":
			testAttention(t, dev, c, &s)
		case c.Has("table"):
			testEmbedding(t, dev, c, &s)
		default:
			testOp(t, dev, c, &s)
		}
	})
}

func testOp(t *testing.T, dev *tensor.Device, c *golden.Case, s *opSettings) {
	op := ops[s.Op]
	if s.Op == "matmul" {
		op = two(func(a, b *tensor.Tensor) *tensor.Tensor { return tensor.MatMul(a, b, s.Trans) })
	}
	if op == nil {
		t.Fatalf("unknown operation %s", s.Op)
	}
	tape := tensor.NewTape(dev, tensor.Train)
	names := c.Names("in.")
	in := make([]*tensor.Tensor, len(names))
	for i, n := range names {
		in[i] = input(tape, c, "in."+n)
	}
	if s.Lengths != nil {
		x := c.Tensor("in.0")
		in[0] = tape.Sequences(x.Data, s.Lengths, x.Dims[0], x.Dims[1], x.Dims[2]).RequireGrad()
	}
	y := op(in...)
	checkValues(t, "y", y.Data(), c.Tensor("y").Data)
	weighted(y, constant(tape, c, "py")).Backward()
	for i, n := range names {
		checkGradient(t, "operand "+n, in[i].Grad(), c.Tensor("d."+n).Data)
	}
}

func testAttention(t *testing.T, dev *tensor.Device, c *golden.Case, s *opSettings) {
	kind := map[string]nn.AttentionKind{"dot": nn.Dot, "general": nn.General, "additive": nn.Additive}[s.Kind]
	a := nn.NewAttention(kind, s.Query, s.Key, s.Units)
	slab := pack(t, dev, a, c, "w.")
	tape := tensor.NewTape(dev, tensor.Train)
	q, kv := input(tape, c, "q"), c.Tensor("k")
	k := tape.Sequences(kv.Data, s.Lengths, kv.Dims[0], kv.Dims[1], kv.Dims[2]).RequireGrad()
	y, w := a.Forward(q, k)
	checkValues(t, "context", y.Data(), c.Tensor("y").Data)
	checkValues(t, "weights", w.Data(), c.Tensor("weights").Data)
	tensor.Add(weighted(y, constant(tape, c, "py")), weighted(w, constant(tape, c, "pw"))).Backward()
	checkGradient(t, "q", q.Grad(), c.Tensor("dq").Data)
	checkGradient(t, "k", k.Grad(), c.Tensor("dk").Data)
	for _, p := range slab.Params {
		checkGradient(t, p.Name, p.Grad(), c.Tensor("d."+p.Name).Data)
	}
}

func testEmbedding(t *testing.T, dev *tensor.Device, c *golden.Case, s *opSettings) {
	table := c.Tensor("table")
	e := nn.NewEmbedding(table.Dims[0], table.Dims[1], &nn.EmbeddingOptions{Padding: s.Padding, HasPadding: s.Padding >= 0})
	tensor.Pack(dev, e, 1)
	e.Weight.Write(table.Data)
	tape := tensor.NewTape(dev, tensor.Train)
	y := e.Forward(tape.IDs(ids32(c, "ids"), nil, c.Tensor("ids").Dims...))
	checkValues(t, "y", y.Data(), c.Tensor("y").Data)
	weighted(y, constant(tape, c, "py")).Backward()
	checkGradient(t, "table", e.Weight.Grad(), c.Tensor("dtable").Data)
}
