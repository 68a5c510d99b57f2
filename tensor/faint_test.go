package tensor_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/internal/simd/simdtest"
	. "github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/tensor/tensortest"
)

// faint makes operands: ordinary ones, ones far out, and ones about 2^-126.
type faint struct {
	*Tape
	r      *rand.Rand
	number func(r *rand.Rand) float64
	inputs []*Tensor
}

func (f *faint) data(dims ...int) *Tensor {
	n := 1
	for _, d := range dims {
		n *= d
	}
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(f.number(f.r))
	}
	return f.Input(v, dims...)
}

// in is data that wants a gradient.
func (f *faint) in(dims ...int) *Tensor {
	x := f.data(dims...)
	x.RequireGrad()
	f.inputs = append(f.inputs, x)
	return x
}

func (f *faint) classes(top, first int, dims ...int) *Ints {
	n := 1
	for _, d := range dims {
		n *= d
	}
	v := make([]int32, n)
	for i := range v {
		v[i] = int32(first + f.r.IntN(top-first))
	}
	return f.IDs(v, nil, dims...)
}

// No operation and no loss leaves a subnormal number, forward or backward, and
// none meets one in Go code, whatever its operands and however small the loss is.
func TestNoOperationIsSubnormal(t *testing.T) {
	par.SetWorkers(1)
	defer par.SetWorkers(0)
	const B, T, F = 3, 9, 37
	unary := func(op func(*Tensor) *Tensor) func(f *faint) *Tensor {
		return func(f *faint) *Tensor { return op(f.in(B, T, F)) }
	}
	binary := func(op func(x, y *Tensor) *Tensor, dims ...int) func(f *faint) *Tensor {
		return func(f *faint) *Tensor { return op(f.in(B, T, dims[len(dims)-1]), f.in(dims...)) }
	}
	weighted := func(f *faint) *LossOptions { return &LossOptions{Weight: Square(f.data(B, T, F))} }
	regression := func(loss func(p, y *Tensor, o *LossOptions) *Tensor, width int) func(f *faint) *Tensor {
		return func(f *faint) *Tensor { return loss(f.in(B, T, width), Square(f.data(B, T)), nil) }
	}
	cover := func(f *faint) *Tensor {
		c := f.in(B, 4, T)
		return Add(AdditiveScores(f.in(B, 4, 13), f.in(B, T, 13), f.in(13), []int32{1, 5, 9}, c, f.in(13)), c)
	}
	for name, op := range map[string]func(f *faint) *Tensor{
		"Sigmoid": unary(Sigmoid), "Tanh": unary(Tanh), "ReLU": unary(ReLU), "Exp": unary(Exp), "Log": unary(Log),
		"Softplus": unary(Softplus), "Square": unary(Square), "Softmax": unary(func(x *Tensor) *Tensor { return Softmax(x, nil) }),
		"LogSoftmax": unary(LogSoftmax), "LastStep": unary(LastStep), "MeanPool": unary(MeanPool), "MaxPool": unary(func(x *Tensor) *Tensor { return Add(MaxPool(x), MeanPool(x)) }),
		"MulScalar": unary(func(x *Tensor) *Tensor { return MulScalar(x, 1e-3) }), "AddScalar": unary(func(x *Tensor) *Tensor { return AddScalar(x, -1.5e-38) }),
		"Dropout":   unary(func(x *Tensor) *Tensor { return Add(Dropout(x, 0.3), Dropout(x, 0.1)) }),
		"Transpose": unary(func(x *Tensor) *Tensor { return Add(Transpose(Transpose(x, 0, 2), 0, 2), x) }),
		"Slice":     unary(func(x *Tensor) *Tensor { return Concat(2, Slice(x, 2, 1, 20), Slice(x, 2, 3, 22)) }),
		"Repeat":    func(f *faint) *Tensor { return Repeat(f.in(B, F, 1), 2, 5) },
		"Activity":  unary(func(x *Tensor) *Tensor { return ActivityPenalty(x, 1e-3) }),
		"Temporal":  unary(func(x *Tensor) *Tensor { return TemporalPenalty(x, 1e-3) }),
		"Add":       binary(Add, F), "Sub": binary(Sub, T, F), "Mul": binary(Mul, F), "Div": binary(Div, F), "narrow Mul": binary(Mul, 5), "narrow Div": binary(Div, 5),
		"Embed":     func(f *faint) *Tensor { return Embed(f.in(7, F), f.classes(7, 0, B, T), -1) },
		"LayerNorm": func(f *faint) *Tensor { return LayerNorm(f.in(B, T, F), f.in(F), f.in(F), 1e-5) },
		"Additive":  cover,
		"MSE":       func(f *faint) *Tensor { return MSE(f.in(B, T, F), f.data(B, T, F), nil) },
		"weighted":  func(f *faint) *Tensor { return MSE(f.in(B, T, F), f.data(B, T, F), weighted(f)) },
		"MAE":       func(f *faint) *Tensor { return MAE(f.in(B, T, F), f.data(B, T, F), weighted(f)) },
		"Huber":     func(f *faint) *Tensor { return Huber(f.in(B, T, F), f.data(B, T, F), 1, nil) },
		"Pinball":   func(f *faint) *Tensor { return Pinball(f.in(B, T, 2), f.data(B, T), []float32{0.1, 0.5}, nil) },
		"BCE":       func(f *faint) *Tensor { return BCE(f.in(B, T, F), Sigmoid(f.data(B, T, F)), nil) },
		"Gaussian":  regression(Gaussian, 2), "StudentT": regression(StudentT, 3), "NegBinomial": regression(NegBinomial, 2),
		"CrossEntropy": func(f *faint) *Tensor {
			w := Square(f.data(F)).Data()
			return CrossEntropy(f.in(B, T, F), f.classes(F, 0, B, T), &CrossEntropyOptions{Smoothing: 0.1, ClassWeight: w})
		},
		"CRF": func(f *faint) *Tensor { return CRF(f.in(B, T, 7), f.in(7, 7), f.in(7), f.in(7), f.classes(7, 0, B, T)) },
		"CTC": func(f *faint) *Tensor {
			loss, _ := CTC(f.in(B, T, 7), f.classes(7, 1, B, 3), nil)
			return loss
		},
	} {
		for _, kernels := range tensortest.Kernels() {
			for scale, number := range map[string]func(r *rand.Rand) float64{
				"1":     (*rand.Rand).NormFloat64,
				"700":   func(r *rand.Rand) float64 { return 700 * r.NormFloat64() },
				"1e-19": func(r *rand.Rand) float64 { return 1e-19 * r.NormFloat64() },
				"edge": func(r *rand.Rand) float64 {
					return math.Ldexp(1+float64(r.IntN(8))/8, r.IntN(3)-126) * float64(1-2*r.IntN(2))
				},
				"below": func(r *rand.Rand) float64 { return 1e-40 * r.NormFloat64() },
			} {
				for _, seed := range []float64{1, 1e-25, 3e-37} {
					f := &faint{Tape: NewTape(tensortest.CPUWith(kernels), Train), r: rand.New(rand.NewPCG(1, 7)), number: number}
					var y, loss *Tensor
					read, made := simdtest.Subnormals(t, func() {
						y = op(f)
						w := make([]float32, y.Len())
						for i := range w {
							w[i] = simd.Narrow(seed * (1 + f.r.NormFloat64()))
						}
						loss = SumAll(Mul(y, f.Input(w, y.Dims()...)))
						loss.Backward()
					})
					id := fmt.Sprintf("%s on %s of numbers of size %s and a loss of %g", name, kernels, scale, seed)
					if (read || made) && scale != "below" { // which the test itself makes
						t.Errorf("%s: read %v, made %v", id, read, made)
					}
					check := func(what string, v []float32) {
						for _, x := range v {
							if x != 0 && math.Abs(float64(x)) < simd.MinNormal {
								t.Errorf("%s: %s has %g", id, what, x)
								return
							}
						}
					}
					check("the result", y.Data())
					check("the loss", loss.Data())
					for i, x := range f.inputs {
						check(fmt.Sprintf("the gradient of operand %d", i), x.Grad())
					}
				}
			}
		}
	}
}
