package tensor

import (
	"fmt"
	"slices"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/simd"
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
	// Int8 rounds the operands of products with parameters to integers times a scale: a row of the
	// left operand to multiples of its greatest magnitude divided by 127, and likewise a row of
	// the parameter, an output. Sums are exact. Gradients are those of float32, as if nothing were rounded.
	Int8 = Precision(device.INT8)
	// Int4 is a precision of parameters at rest, not of tapes: products are those of Int8, with
	// weights that are one of 15 multiples of their row's scale, two of which take a byte in a file.
	Int4 = Precision(device.NumKinds)
)

// precisions is the names of the precisions as settings have them.
var precisions = [...]string{Float32: "f32", BFloat16: "bf16", Float16: "fp16", Int8: "int8", Int4: "int4"}

func (p Precision) String() string { return precisions[p] }

// ParsePrecision returns the precision of a name that a tape can have: f32, bf16, fp16 or int8.
// Another name is an error.
func ParsePrecision(name string) (Precision, error) {
	for p, n := range precisions[:Int4] {
		if n == name {
			return Precision(p), nil
		}
	}
	return Float32, fmt.Errorf("precision %q: expected f32, bf16, fp16 or int8", name)
}

// SetPrecision sets the precision of the operations that follow; a new tape has
// [Float32]. A parameter with Keep32 keeps its products in float32. It panics with a [*UseError] for [Int4].
func (t *Tape) SetPrecision(p Precision) {
	Check(p < Int4, "tensor: SetPrecision", "weights can rest in %s, and products cannot be computed in it: choose int8", p)
	t.kind = device.Kind(p)
}

// Precision returns the tape's precision.
func (t *Tape) Precision() Precision { return Precision(t.kind) }

// kindOf returns the kind of a product with w, which may be a parameter, in an operation with
// others. It is float32 if one of them is to be kept so, and for what is traced.
func (t *Tape) kindOf(w *Tensor, others ...*Tensor) device.Kind {
	switch {
	case w == nil || t.tracing:
		return device.F32
	case w.rests() && t.mode != Train:
		return w.kindFor(t.dev.restKind(w.param.rest))
	case w.param == nil && t.kind == device.INT8, w.keeps32(), slices.ContainsFunc(others, (*Tensor).keeps32):
		return device.F32
	}
	return w.kindFor(t.kind)
}

// kindFor returns k, or float32 if rows of w are so long that sums of a product in 8 bits would overflow.
func (t *Tensor) kindFor(k device.Kind) device.Kind {
	if k == device.INT8 && t.Len()/t.dims[0] > simd.MaxByteDepth {
		return device.F32
	}
	return k
}

func (t *Tensor) keeps32() bool { return t != nil && t.param != nil && t.param.Keep32 }

func (t *Tensor) rests() bool { return t.param != nil && t.param.rest != Float32 }

// kind returns the kind of the products with weights that rest in p.
func (p Precision) kind() device.Kind {
	if p == Int4 {
		return device.INT8
	}
	return device.Kind(p)
}

// restKind returns the kind of the products with weights that rest in p. Their values are those of
// 8 bits also where a device has not all products in 8 bits, and multiplies in float32.
func (d *Device) restKind(p Precision) device.Kind {
	k := p.kind()
	if b, ok := d.backend.(interface{ Lacks(device.Kind) bool }); ok && b.Lacks(k) {
		return device.F32
	}
	return k
}

// SetRest lets the products of all passes but training's with a parameter of at least two
// dimensions be of a precision, whatever the tape's is, and rounds its values: [Float32] changes
// nothing, and values that have been rounded once do not change again. No pass may run at the same time. It panics
// with a [*UseError] for a parameter of one dimension.
func (p *Param) SetRest(r Precision) {
	p.live("SetRest")
	Check(p.rank > 1 || r == Float32, "tensor: SetRest", "%s has one dimension, and only matrices are rounded", describe(&p.Tensor))
	w := p.Read()
	switch r {
	case Int8:
		simd.RoundBytes(w, p.Len()/p.dims[0], simd.Levels8)
	case Int4:
		simd.RoundBytes(w, p.Len()/p.dims[0], simd.Levels4)
	case BFloat16, Float16:
		simd.Best().Weights[r].Round(w, w)
	}
	p.rest = r
	p.Write(w)
}

// Rest returns the precision of SetRest.
func (p *Param) Rest() Precision { return p.rest }

// Bytes returns the values of a parameter that rests in [Int8] or [Int4]: integers, and the scale of each
// row, by which they are multiplied.
func (p *Param) Bytes() (values []int8, scales []float32) {
	return simd.SplitBytes(p.Read(), p.Len()/p.dims[0])
}
