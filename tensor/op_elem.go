package tensor

import (
	"slices"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/device"
)

func unary(name string, op device.Function, x *Tensor, alpha float32) *Tensor {
	t := tapeOf(name, x)
	y := t.like(x)
	t.backend.Unary(op, y.value, x.value, alpha)
	if n := t.record(unaryGrad, y, x); n != nil {
		n.n, n.f = int(op), alpha
	}
	return y
}

func unaryGrad(t *Tape, n *node) {
	dx, acc := n.in[0].into()
	t.backend.UnaryGrad(device.Function(n.n), dx, n.out.grad, n.in[0].value, n.out.value, n.f, acc)
}

// Sigmoid returns 1/(1+e⁻ˣ).
func Sigmoid(x *Tensor) *Tensor { return unary("Sigmoid", cell.Sigmoid, x, 0) }

// Tanh returns the hyperbolic tangent.
func Tanh(x *Tensor) *Tensor { return unary("Tanh", cell.Tanh, x, 0) }

// ReLU returns max(x, 0).
func ReLU(x *Tensor) *Tensor { return unary("ReLU", cell.ReLU, x, 0) }

// Exp returns eˣ.
func Exp(x *Tensor) *Tensor { return unary("Exp", device.Exp, x, 0) }

// Log returns the natural logarithm.
func Log(x *Tensor) *Tensor { return unary("Log", device.Log, x, 0) }

// Softplus returns log(1+eˣ), computed without overflow.
func Softplus(x *Tensor) *Tensor { return unary("Softplus", cell.Softplus, x, 0) }

// Square returns x².
func Square(x *Tensor) *Tensor { return unary("Square", device.Square, x, 0) }

// MulScalar returns a·x.
func MulScalar(x *Tensor, a float32) *Tensor { return unary("MulScalar", device.Scale, x, a) }

// AddScalar returns x + a.
func AddScalar(x *Tensor, a float32) *Tensor { return unary("AddScalar", device.Shift, x, a) }

func binary(name string, op device.BinaryOp, x, y *Tensor) *Tensor {
	t := tapeOf(name, x, y)
	if y.rank > x.rank || y.rank == 0 || !slices.Equal(y.dims[:y.rank], x.dims[x.rank-y.rank:x.rank]) {
		failf(name, "needs a second shape that equals the last dimensions of the first, got %s and %s", describe(x), describe(y))
	}
	z := t.like(x)
	s := t.specs.binary.put(device.BinarySpec{Op: op, N: x.Len(), YN: y.Len(), X: x.value, Y: y.value, Z: z.value})
	t.backend.Binary(s)
	t.record(binaryGrad, z, x, y).keeps(s)
	return z
}

func binaryGrad(t *Tape, n *node) {
	s := n.spec.(*device.BinarySpec)
	s.DZ = n.out.grad
	s.DX, s.AccX = n.in[0].into()
	s.DY, s.AccY = n.in[1].into()
	t.backend.BinaryGrad(s)
}

// Add returns x + y. The shape of y is that of x, or that of its last dimensions: a
// [F] is added to every vector of a [B,T,F]. Another shape panics with a
// [*ShapeError]. The same holds for [Sub], [Mul] and [Div].
func Add(x, y *Tensor) *Tensor { return binary("Add", device.Add, x, y) }

// Sub returns x - y, with shapes as in [Add].
func Sub(x, y *Tensor) *Tensor { return binary("Sub", device.Sub, x, y) }

// Mul returns the elementwise product, with shapes as in [Add].
func Mul(x, y *Tensor) *Tensor { return binary("Mul", device.Mul, x, y) }

// Div returns the elementwise quotient, with shapes as in [Add].
func Div(x, y *Tensor) *Tensor { return binary("Div", device.Div, x, y) }

// Dropout sets each element to zero with probability p and divides the others by
// 1-p, on a tape in Train mode (torch.nn.functional.dropout); in Infer mode, and for
// p = 0, it returns x itself. The mask depends only on the tape's seed and step, the
// number of dropouts before it on the tape, and the index of the element. It panics
// with a [*ShapeError] unless 0 <= p < 1.
func Dropout(x *Tensor, p float32) *Tensor {
	t := tapeOf("Dropout", x)
	if !t.drop("Dropout", p) {
		return x
	}
	return t.dropped(x, p)
}

// drop checks the probability of a dropout and reports whether it has an effect.
func (t *Tape) drop(op string, p float32) bool {
	if !(p >= 0 && p < 1) {
		failf(op, "probability must be in [0,1), got %v", p)
	}
	return p > 0 && t.mode == Train
}

// dropped applies dropout to x, which may be a parameter.
func (t *Tape) dropped(x *Tensor, p float32) *Tensor {
	y := t.like(x)
	t.drops++
	s := t.specs.dropout.put(device.DropoutSpec{Y: y.value, X: x.value, N: x.Len(), P: p, Seed: t.seed, Step: t.step, Node: t.drops})
	t.backend.Dropout(s)
	t.record(dropoutGrad, y, x).keeps(s)
	return y
}

func dropoutGrad(t *Tape, n *node) {
	s := n.spec.(*device.DropoutSpec)
	s.X = n.out.grad
	s.Y, s.Acc = n.in[0].into()
	t.backend.Dropout(s)
}
