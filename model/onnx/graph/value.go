package graph

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/internal/half"
	"github.com/carousel-ml/carousel/internal/simd"
)

// Value is a dense row-major array, an input or output of a graph. Floating-point
// types are float32 in Data; integers and booleans (0 and 1) are int64 in Ints.
// Dims is empty for a scalar.
type Value struct {
	Dims []int
	Data []float32
	Ints []int64
}

// Floats returns a Value of float32, without a copy.
func Floats(data []float32, dims ...int) Value { return Value{Dims: dims, Data: data} }

// Ints returns a Value of integers, without a copy.
func Ints(ints []int64, dims ...int) Value { return Value{Dims: dims, Ints: ints} }

// Element types for [Builder.InputOf] and for the attribute "to" of Cast.
const (
	Float32 = typeFloat
	Int32   = typeInt32
	Int64   = typeInt64
	Bool    = typeBool
)

// The element types of ONNX that can be read.
const (
	typeFloat    = 1
	typeUint8    = 2
	typeInt8     = 3
	typeUint16   = 4
	typeInt16    = 5
	typeInt32    = 6
	typeInt64    = 7
	typeBool     = 9
	typeFloat16  = 10
	typeDouble   = 11
	typeUint32   = 12
	typeUint64   = 13
	typeBFloat16 = 16
)

var typeNames = map[int64]string{
	typeFloat: "float32", typeUint8: "uint8", typeInt8: "int8", typeUint16: "uint16", typeInt16: "int16", typeInt32: "int32", typeInt64: "int64",
	typeBool: "bool", typeFloat16: "float16", typeDouble: "float64", typeUint32: "uint32", typeUint64: "uint64", typeBFloat16: "bfloat16",

	// Those that cannot be read.
	0: "of a sequence, a map or nothing", 8: "string", 14: "complex64", 15: "complex128", 17: "float8e4m3fn", 18: "float8e4m3fnuz", 19: "float8e5m2", 20: "float8e5m2fnuz",
	21: "uint4", 22: "int4", 23: "float4e2m1", 24: "float8e8m0", 25: "uint2", 26: "int2",
}

// typeName is for messages.
func typeName(t int64) string {
	if s := typeNames[t]; s != "" {
		return s
	}
	return fmt.Sprintf("element type %d", t)
}

func isFloat(t int64) bool {
	return t == typeFloat || t == typeFloat16 || t == typeDouble || t == typeBFloat16
}

// kind is the storage of a value's elements.
type kind uint8

const (
	floats kind = iota
	ints
	bools
)

func (k kind) String() string { return [...]string{"floats", "integers", "booleans"}[k] }

func kindOf(t int64) (kind, bool) {
	switch {
	case isFloat(t):
		return floats, true
	case t == typeBool:
		return bools, true
	}
	return ints, typeSize[t] > 0
}

// value is an array in a running graph.
type value struct {
	dims  []int
	kind  kind
	dtype int64 // the element type of integers and booleans; floats are all float32
	ints  []int64
	host  []float32 // the floats
	buf   *buffer   // whose memory it is, with others; nil for constants
	last  bool      // of floats [N,C,...]: the elements are those of [N,...,C]
}

func (v *value) len() int { return product(v.dims) }

// elementType returns the element type of v as it is kept here: float32 for all
// floats.
func (v *value) elementType() int64 {
	if v.kind == floats {
		return typeFloat
	}
	return v.dtype
}

func (v *value) rank() int { return len(v.dims) }

// floats returns the elements, which must not be changed.
func (v *value) floats() []float32 { return v.host }

// integers is floats for the other kinds.
func (v *value) integers() []int64 { return v.ints }

// product returns the size of a shape that was checked before.
func product(dims []int) int {
	n := 1
	for _, d := range dims {
		n *= d
	}
	return n
}

// sizeOf multiplies untrusted dimensions; ok is false above most elements.
func sizeOf(dims []int64, most int) (n int, ok bool) {
	n = 1
	empty := slices.Contains(dims, 0)
	for _, d := range dims {
		if d < 0 {
			return 0, false
		}
		if empty {
			continue
		}
		if d > int64(most/n) {
			return 0, false
		}
		n *= int(d)
	}
	if empty {
		n = 0
		for _, d := range dims { // later products must not overflow either
			if d > math.MaxInt32 {
				return 0, false
			}
		}
	}
	return n, true
}

func shape(dims []int) string { return strings.ReplaceAll(fmt.Sprint(dims), " ", ",") }

// constant converts a stored tensor to a value; problem is "" if it is valid. Data
// in another file are read relative to the directory dir.
func (t *tensorProto) constant(dir string) (v *value, problem string) {
	k, ok := kindOf(t.dtype)
	switch {
	case t.segment:
		return nil, "it is stored in segments, which is not supported"
	case !ok:
		return nil, typeName(t.dtype) + " is not supported"
	}
	n, ok := sizeOf(t.dims, math.MaxInt/8)
	if !ok {
		return nil, fmt.Sprintf("shape %v is no shape or is too large", t.dims)
	}
	v = &value{kind: k, dtype: t.dtype}
	for _, d := range t.dims {
		v.dims = append(v.dims, int(d))
	}
	if t.external != nil {
		if t.raw, problem = t.external.load(dir, int64(n)*int64(typeSize[t.dtype])); problem != "" {
			return nil, problem
		}
	}
	switch {
	case len(t.raw) > 0 || n == 0:
		if size := typeSize[t.dtype]; len(t.raw)/size != n || len(t.raw)%size != 0 {
			return nil, fmt.Sprintf("shape %s of %s needs %d elements, %d bytes came", shape(v.dims), typeName(t.dtype), n, len(t.raw))
		}
		v.unpack(t.dtype, t.raw, n)
	case t.dtype == typeFloat || t.dtype == typeDouble:
		v.host = t.floats
	case k == floats: // half precision, as bits in int32_data
		v.host = make([]float32, len(t.ints))
		for i, bits := range t.ints {
			v.host[i] = widen(t.dtype, uint16(bits))
		}
	default:
		v.ints = t.ints
	}
	if got := len(v.host) + len(v.ints); got != n {
		return nil, fmt.Sprintf("shape %s needs %d elements, %d came", shape(v.dims), n, got)
	}
	if k == bools {
		for i := range v.ints {
			v.ints[i] = truth(v.ints[i] != 0)
		}
	}
	return v, ""
}

var typeSize = map[int64]int{
	typeFloat: 4, typeUint8: 1, typeInt8: 1, typeUint16: 2, typeInt16: 2, typeInt32: 4, typeInt64: 8,
	typeBool: 1, typeFloat16: 2, typeDouble: 8, typeUint32: 4, typeUint64: 8, typeBFloat16: 2,
}

// unpack fills v from little-endian bytes.
func (v *value) unpack(dtype int64, raw []byte, n int) {
	le := binary.LittleEndian
	if v.kind == floats {
		v.host = make([]float32, n)
		for i := range v.host {
			switch dtype {
			case typeFloat:
				v.host[i] = fromBits(le.Uint32(raw[4*i:]))
			case typeDouble:
				v.host[i] = simd.Narrow(math.Float64frombits(le.Uint64(raw[8*i:])))
			default:
				v.host[i] = widen(dtype, le.Uint16(raw[2*i:]))
			}
		}
		return
	}
	v.ints = make([]int64, n)
	for i := range v.ints {
		switch typeSize[dtype] {
		case 1:
			v.ints[i] = narrow(dtype, int64(raw[i]))
		case 2:
			v.ints[i] = narrow(dtype, int64(le.Uint16(raw[2*i:])))
		case 4:
			v.ints[i] = narrow(dtype, int64(le.Uint32(raw[4*i:])))
		default:
			v.ints[i] = int64(le.Uint64(raw[8*i:]))
		}
	}
}

// narrow returns the bits of x that an integer type has.
func narrow(dtype, x int64) int64 {
	switch dtype {
	case typeUint8:
		return int64(uint8(x))
	case typeInt8:
		return int64(int8(x))
	case typeUint16:
		return int64(uint16(x))
	case typeInt16:
		return int64(int16(x))
	case typeInt32:
		return int64(int32(x))
	case typeUint32:
		return int64(uint32(x))
	}
	return x
}

// widen returns the float32 of a float16 or bfloat16, exactly except for numbers
// that are subnormal in float32.
func widen(dtype int64, bits uint16) float32 {
	if dtype == typeBFloat16 {
		return fromBits(math.Float32bits(half.FromBFloat16(bits)))
	}
	return half.FromFloat16(bits)
}

func truth(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
