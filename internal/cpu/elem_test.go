package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/device"
)

// apart are the functions that stand by themselves, not inside cells alone.
var apart = []device.Function{cell.Sigmoid, cell.Tanh, cell.ReLU, cell.Softplus, device.Exp, device.Log, device.Square, device.Scale, device.Shift}

func TestUnaryGradientsInFloat64(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, op := range apart {
		for range 50 {
			x := []float64{r.NormFloat64() * 3}
			if op == device.Log {
				x[0] = math.Abs(x[0]) + 0.1
			}
			f := func(x []float64) float64 {
				y := make([]float64, 1)
				unary(op, y, x, 1.5)
				return y[0]
			}
			if math.Abs(x[0]) < 1e-3 {
				continue // ReLU's corner
			}
			g := make([]float64, 1)
			unaryGrad(op, g, []float64{0.7}, x, []float64{f(x)}, 1.5)
			if want := 0.7 * slope(f, x, 0); !closeTo(g[0], want, 1e-6) {
				t.Errorf("op %d at %v: gradient %v, want %v", op, x[0], g[0], want)
			}
		}
	}
}

// The kernels against the plain loops.
func TestElementwiseKernels(t *testing.T) {
	eachSet(t, func(t *testing.T, b *Backend) {
		r := rand.New(rand.NewPCG(9, 9))
		x, y := randoms(r, 5000), randoms(r, 5000)
		got, want := make([]float32, 5000), make([]float32, 5000)
		for _, op := range apart {
			b.Unary(op, device.HostBuffer(got), device.HostBuffer(x), 1.5)
			unary(op, want, x, 1.5)
			for i := range got {
				if got[i] == got[i] && !closeTo(float64(got[i]), float64(want[i]), 5e-7) {
					t.Fatalf("unary op %d of %v: %v, want %v", op, x[i], got[i], want[i])
				}
			}
		}
		dy, dx := randoms(r, 5000), make([]float32, 5000)
		for _, op := range apart {
			b.Unary(op, device.HostBuffer(got), device.HostBuffer(x), 1.5)
			b.UnaryGrad(op, device.HostBuffer(dx), device.HostBuffer(dy), device.HostBuffer(x), device.HostBuffer(got), 1.5, false)
			unaryGrad(op, want, dy, x, got, 1.5)
			for i := range dx {
				if dx[i] == dx[i] && !closeTo(float64(dx[i]), float64(want[i]), 5e-7) {
					t.Fatalf("gradient of unary op %d of %v: %v, want %v", op, x[i], dx[i], want[i])
				}
			}
		}
		for op := device.Add; op <= device.Div; op++ {
			b.Binary(&device.BinarySpec{Op: op, N: 5000, YN: 5000, X: device.HostBuffer(x), Y: device.HostBuffer(y), Z: device.HostBuffer(got)})
			binary(op, want, x, y)
			for i := range got {
				if got[i] != want[i] {
					t.Fatalf("binary op %d of %v, %v: %v, want %v", op, x[i], y[i], got[i], want[i])
				}
			}
		}
	})
}

// The mask belongs to the file format of a training run: a resumed run must
// meet the masks it would have met. Splits at odd places change nothing.
func TestDropoutMaskIsPinned(t *testing.T) {
	s := &device.DropoutSpec{P: 0.5, Seed: 1, Step: 2, Node: 3}
	whole, x, y := make([]float32, 600), make([]float32, 600), make([]float32, 600)
	for i := range x {
		x[i] = 1
	}
	s.X, s.Y = device.HostBuffer(x), device.HostBuffer(whole)
	var b Backend
	b.dropoutRange(s, 0, 600)
	s.Y = device.HostBuffer(y)
	for _, cut := range [][2]int{{0, 1}, {1, 2}, {2, 5}, {5, 263}, {263, 520}, {520, 600}} {
		b.dropoutRange(s, cut[0], cut[1])
	}
	var bits uint32
	for i := range whole {
		if whole[i] != y[i] {
			t.Fatalf("element %d differs in pieces", i)
		}
		if i < 32 && whole[i] != 0 {
			bits |= 1 << i
		}
	}
	if bits != 0xf98d2bcd {
		t.Errorf("elements kept among the first 32: %#x", bits)
	}
	x = []float32{float32(math.NaN()), float32(math.NaN())}
	s.X, s.Y = device.HostBuffer(x), device.HostBuffer(x)
	b.dropoutRange(s, 0, 2)
	if x[0] == x[0] || x[1] == x[1] {
		t.Error("NaN did not pass through dropout")
	}
}

// The plain loops, in both precisions.

type float interface{ float32 | float64 }

func unary[F float](op device.Function, y, x []F, alpha F) {
	y = y[:len(x)]
	switch op {
	case cell.Sigmoid:
		for i, v := range x {
			y[i] = F(logistic(float64(v)))
		}
	case cell.Tanh:
		for i, v := range x {
			y[i] = F(math.Tanh(float64(v)))
		}
	case cell.ReLU:
		for i, v := range x {
			y[i] = max(v, 0) // NaN stays
		}
	case device.Exp:
		for i, v := range x {
			y[i] = F(math.Exp(float64(v)))
		}
	case device.Log:
		for i, v := range x {
			y[i] = F(math.Log(float64(v)))
		}
	case cell.Softplus:
		for i, v := range x {
			y[i] = F(softplus(float64(v)))
		}
	case device.Square:
		for i, v := range x {
			y[i] = v * v
		}
	case device.Scale:
		for i, v := range x {
			y[i] = v * alpha
		}
	case device.Shift:
		for i, v := range x {
			y[i] = v + alpha
		}
	default:
		panic(fmt.Sprintf("cpu: Unary: unknown op %d", op))
	}
}

// unaryGrad is g = dy·op'(x), with y = op(x).
func unaryGrad[F float](op device.Function, g, dy, x, y []F, alpha F) {
	g = g[:len(dy)]
	switch op {
	case cell.Sigmoid:
		for i, d := range dy {
			g[i] = d * y[i] * (1 - y[i])
		}
	case cell.Tanh:
		for i, d := range dy {
			g[i] = d * (1 - F(y[i]*y[i]))
		}
	case cell.ReLU:
		for i, d := range dy {
			if y[i] <= 0 {
				d = 0
			}
			g[i] = d
		}
	case device.Exp:
		for i, d := range dy {
			g[i] = d * y[i]
		}
	case device.Log:
		for i, d := range dy {
			g[i] = d / x[i]
		}
	case cell.Softplus:
		for i, d := range dy {
			g[i] = d * F(logistic(float64(x[i])))
		}
	case device.Square:
		for i, d := range dy {
			g[i] = d * 2 * x[i]
		}
	case device.Scale:
		for i, d := range dy {
			g[i] = d * alpha
		}
	case device.Shift:
		copy(g, dy)
	default:
		panic(fmt.Sprintf("cpu: UnaryGrad: unknown op %d", op))
	}
}

func binary[F float](op device.BinaryOp, z, x, y []F) {
	z, y = z[:len(x)], y[:len(x)]
	switch op {
	case device.Add:
		for i, v := range x {
			z[i] = v + y[i]
		}
	case device.Sub:
		for i, v := range x {
			z[i] = v - y[i]
		}
	case device.Mul:
		for i, v := range x {
			z[i] = v * y[i]
		}
	case device.Div:
		for i, v := range x {
			z[i] = v / y[i]
		}
	default:
		panic(fmt.Sprintf("cpu: Binary: unknown op %d", op))
	}
}
