package tensor

import (
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
	x := n.in[0]
	if dx, acc := x.into(); !dx.Zero() {
		t.backend.UnaryGrad(device.Function(n.n), dx, n.out.grad, x.value, n.out.value, n.f, acc)
	}
}

// Sigmoid is 1/(1+e⁻ˣ).
func Sigmoid(x *Tensor) *Tensor { return unary("Sigmoid", cell.Sigmoid, x, 0) }

// Tanh is the hyperbolic tangent.
func Tanh(x *Tensor) *Tensor { return unary("Tanh", cell.Tanh, x, 0) }

// ReLU is max(x, 0).
func ReLU(x *Tensor) *Tensor { return unary("ReLU", cell.ReLU, x, 0) }

// Exp is eˣ.
func Exp(x *Tensor) *Tensor { return unary("Exp", device.Exp, x, 0) }

// Log is the natural logarithm.
func Log(x *Tensor) *Tensor { return unary("Log", device.Log, x, 0) }

// Softplus is log(1+eˣ), computed without overflow.
func Softplus(x *Tensor) *Tensor { return unary("Softplus", cell.Softplus, x, 0) }

// Square is x².
func Square(x *Tensor) *Tensor { return unary("Square", device.Square, x, 0) }

// MulScalar is a·x.
func MulScalar(x *Tensor, a float32) *Tensor { return unary("MulScalar", device.Scale, x, a) }

// AddScalar is x + a.
func AddScalar(x *Tensor, a float32) *Tensor { return unary("AddScalar", device.Shift, x, a) }

func binary(name string, op device.BinaryOp, x, y *Tensor) *Tensor {
	t := tapeOf(name, x, y)
	if y.rank > x.rank || y.rank == 0 {
		failf(name, "needs a second shape that ends the first, got %s and %s", describe(x), describe(y))
	}
	for i := range y.rank {
		if y.dims[i] != x.dims[x.rank-y.rank+i] {
			failf(name, "needs a second shape that ends the first, got %s and %s", describe(x), describe(y))
		}
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

// Add is x + y. The shape of y equals or ends x's: a [F] is added to every
// vector of a [B,T,F]. So for all four operations here.
func Add(x, y *Tensor) *Tensor { return binary("Add", device.Add, x, y) }

// Sub is x - y.
func Sub(x, y *Tensor) *Tensor { return binary("Sub", device.Sub, x, y) }

// Mul is the elementwise product.
func Mul(x, y *Tensor) *Tensor { return binary("Mul", device.Mul, x, y) }

// Div is the elementwise quotient.
func Div(x, y *Tensor) *Tensor { return binary("Div", device.Div, x, y) }

// Dropout sets each element to zero with probability p and divides the rest by
// 1-p, on a tape in Train mode; elsewhere, and for p = 0, it is x itself. The
// mask depends only on the tape's seed and step, the order of dropouts on the
// tape and the element's index. It panics unless 0 <= p < 1.
func Dropout(x *Tensor, p float32) *Tensor {
	t := tapeOf("Dropout", x)
	if !(p >= 0 && p < 1) {
		failf("Dropout", "probability must be in [0,1), got %v", p)
	}
	if p == 0 || t.mode != Train {
		return x
	}
	return t.dropped(x, p)
}

// dropped is x under dropout. x may be a parameter, which itself lives on no tape.
func (t *Tape) dropped(x *Tensor, p float32) *Tensor {
	y := t.like(x)
	t.drops++
	s := t.dropout(device.DropoutSpec{Y: y.value, X: x.value, N: x.Len(), P: p, Seed: t.seed, Step: t.step, Node: t.drops})
	t.record(dropoutGrad, y, x).keeps(s)
	return y
}

func dropoutGrad(t *Tape, n *node) {
	s := n.spec.(*device.DropoutSpec)
	s.X = n.out.grad
	if s.Y, s.Acc = n.in[0].into(); !s.Y.Zero() {
		t.backend.Dropout(s)
	}
}
