package tensor

import (
	"fmt"

	"github.com/carousel-ml/carousel/internal/device"
)

// Precision is the numbers that the products of a tape compute with. Parameters and
// their gradients, optimizer moments, cell states, sums, biases, norms, softmax and losses
// are float32 for each of them.
type Precision uint8

const (
	Float32 = Precision(device.F32) // all numbers float32
	// BFloat16 rounds the operands of products to 8 bits of significand with the
	// exponents of float32, and keeps the gates of a training pass in 16 bits.
	BFloat16 = Precision(device.BF16)
	// Float16 is likewise with 11 bits of significand and magnitudes from 6e-8 to 65,504,
	// which is why a training needs an optim.GradScaler.
	Float16 = Precision(device.FP16)
)

// precisions is the names of the precisions as settings have them.
var precisions = [...]string{Float32: "f32", BFloat16: "bf16", Float16: "fp16"}

func (p Precision) String() string { return precisions[p] }

// ParsePrecision returns the precision of a name: f32, bf16 or fp16.
func ParsePrecision(name string) (Precision, error) {
	for p, n := range precisions {
		if n == name {
			return Precision(p), nil
		}
	}
	return Float32, fmt.Errorf("precision %q: expected f32, bf16 or fp16", name)
}

// SetPrecision sets the precision of the operations that follow; a new tape has
// [Float32]. A parameter with Keep32 keeps its products in float32.
func (t *Tape) SetPrecision(p Precision) { t.kind = device.Kind(p) }

// Precision returns the tape's precision.
func (t *Tape) Precision() Precision { return Precision(t.kind) }

// kindOf returns the kind of products with weights ws. What is traced is float32.
func (t *Tape) kindOf(ws ...*Tensor) device.Kind {
	if t.tracing {
		return device.F32
	}
	for _, w := range ws {
		if w != nil && w.param != nil && w.param.Keep32 {
			return device.F32
		}
	}
	return t.kind
}
