package inference

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/carousel-ml/carousel/internal/half"
)

// maxDims is the number of dimensions that a tensor has at most.
const maxDims = 8

// shapeText is a shape as JSON has it.
func shapeText[T int | int64](dims []T) string {
	b := []byte{'['}
	for i, d := range dims {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, int64(d), 10)
	}
	return string(append(b, ']'))
}

// elements returns the number of elements of a shape, or what is wrong with it. That
// the number can be had says nothing of memory: compare it with the bytes that came.
func elements[T int | int64](dims []T) (n int, problem string) {
	if len(dims) > maxDims {
		return 0, fmt.Sprintf("shape has %d dimensions, expected at most %d", len(dims), maxDims)
	}
	n, empty := 1, false
	for _, d := range dims {
		switch {
		case d < 0:
			return 0, fmt.Sprintf("shape %s has a negative size; give the size that the data has", shapeText(dims))
		case d == 0:
			empty = true
		case int64(d) > int64(math.MaxInt/n):
			return 0, fmt.Sprintf("shape %s has more elements than can be counted", shapeText(dims))
		default:
			n *= int(d)
		}
	}
	if empty {
		n = 0
	}
	return n, ""
}

// count checks a tensor's datatype and shape and returns the number of its elements.
func (t *Tensor) count() (n int, problem string) {
	if !t.Datatype.Valid() {
		return 0, fmt.Sprintf("datatype %q is not known, expected one of %s", t.Datatype, slices.Sorted(maps.Keys(datatypes)))
	}
	return elements(t.Dims)
}

// bounds returns the least and the greatest integer of a datatype. UINT64 is left to
// those who read and write it, since its values are kept as the bits of int64.
func (d Datatype) bounds() (lo, hi int64) {
	switch d {
	case BOOL:
		return 0, 1
	case UINT8, UINT16, UINT32:
		return 0, 1<<(8*d.Size()) - 1
	case INT8, INT16, INT32:
		return -1 << (8*d.Size() - 1), 1<<(8*d.Size()-1) - 1
	}
	return math.MinInt64, math.MaxInt64
}

// setBytes decodes the binary form of a tensor whose datatype and dims are set: n
// elements, little-endian, BYTES each after its length as uint32. It keeps nothing of raw.
func (t *Tensor) setBytes(raw []byte, n int) (problem string) {
	if t.Datatype == BYTES {
		return t.setTexts(raw, n)
	}
	size := t.Datatype.Size()
	if len(raw)%size != 0 || len(raw)/size != n {
		return fmt.Sprintf("got %d bytes, expected %d elements of %d bytes for shape %s of %s", len(raw), n, size, shapeText(t.Dims), t.Datatype)
	}
	switch t.Datatype {
	case FP32:
		t.Floats = make([]float32, n)
		for i := range t.Floats {
			t.Floats[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		}
	case FP16, BF16:
		widen := half.FromFloat16
		if t.Datatype == BF16 {
			widen = half.FromBFloat16
		}
		t.Floats = make([]float32, n)
		for i := range t.Floats {
			t.Floats[i] = widen(binary.LittleEndian.Uint16(raw[2*i:]))
		}
	case FP64:
		t.Doubles = make([]float64, n)
		for i := range t.Doubles {
			t.Doubles[i] = math.Float64frombits(binary.LittleEndian.Uint64(raw[8*i:]))
		}
	default:
		t.Ints = make([]int64, n)
		return t.setInts(raw)
	}
	return ""
}

// setInts decodes as many integers as t.Ints has room for.
func (t *Tensor) setInts(raw []byte) (problem string) {
	switch t.Datatype {
	case BOOL:
		for i, b := range raw {
			if b > 1 {
				return fmt.Sprintf("element %d of BOOL is byte %d, expected 0 or 1", i, b)
			}
			t.Ints[i] = int64(b)
		}
	case UINT8:
		for i, b := range raw {
			t.Ints[i] = int64(b)
		}
	case INT8:
		for i, b := range raw {
			t.Ints[i] = int64(int8(b))
		}
	case UINT16:
		for i := range t.Ints {
			t.Ints[i] = int64(binary.LittleEndian.Uint16(raw[2*i:]))
		}
	case INT16:
		for i := range t.Ints {
			t.Ints[i] = int64(int16(binary.LittleEndian.Uint16(raw[2*i:])))
		}
	case UINT32:
		for i := range t.Ints {
			t.Ints[i] = int64(binary.LittleEndian.Uint32(raw[4*i:]))
		}
	case INT32:
		for i := range t.Ints {
			t.Ints[i] = int64(int32(binary.LittleEndian.Uint32(raw[4*i:])))
		}
	default:
		for i := range t.Ints {
			t.Ints[i] = int64(binary.LittleEndian.Uint64(raw[8*i:]))
		}
	}
	return ""
}

// setTexts decodes BYTES. All elements share one string, so that their number costs no
// allocations.
func (t *Tensor) setTexts(raw []byte, n int) (problem string) {
	if n > len(raw)/4 {
		return fmt.Sprintf("got %d bytes, expected %d elements of BYTES with 4 bytes of length each", len(raw), n)
	}
	all := string(raw)
	t.Texts = make([]string, n)
	at := 0
	for i := range t.Texts {
		if len(raw)-at < 4 {
			return fmt.Sprintf("got %d bytes, which end before the length of element %d of %d", len(raw), i, n)
		}
		size := int64(binary.LittleEndian.Uint32(raw[at:]))
		at += 4
		if size > int64(len(raw)-at) {
			return fmt.Sprintf("element %d of BYTES is %d bytes long, but only %d follow its length", i, size, len(raw)-at)
		}
		t.Texts[i] = all[at : at+int(size)]
		at += int(size)
	}
	if at != len(raw) {
		return fmt.Sprintf("got %d bytes, of which %d elements of BYTES are %d", len(raw), n, at)
	}
	return ""
}

// complete checks before a tensor is written that it has the elements that it says:
// what this finds is a fault of the program, and not of the client.
func (t *Tensor) complete() (problem string) {
	n, problem := t.count()
	if problem != "" {
		return problem
	}
	if have := [...]int{Floats: len(t.Floats), Doubles: len(t.Doubles), Ints: len(t.Ints), Texts: len(t.Texts)}; have[t.Datatype.Kind()] != n || t.Len() != n {
		return fmt.Sprintf("has %d elements, of them %d of the kind of %s, expected %d for shape %s", t.Len(), have[t.Datatype.Kind()], t.Datatype, n, shapeText(t.Dims))
	}
	lo, hi := t.Datatype.bounds()
	for i, x := range t.Ints {
		if x < lo || x > hi {
			return fmt.Sprintf("element %d is %d, expected %d to %d for %s", i, x, lo, hi, t.Datatype)
		}
	}
	return ""
}

// binarySize returns the bytes that appendBytes appends.
func (t *Tensor) binarySize() int {
	if t.Datatype != BYTES {
		return t.Len() * t.Datatype.Size()
	}
	size := 4 * len(t.Texts)
	for _, s := range t.Texts {
		size += len(s)
	}
	return size
}

// appendBytes appends the binary form of a tensor that is complete. FP16 and BF16 are
// rounded to the nearest value.
func (t *Tensor) appendBytes(b []byte) []byte {
	switch t.Datatype {
	case FP32:
		for _, f := range t.Floats {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
		}
	case FP16:
		for _, f := range t.Floats {
			b = binary.LittleEndian.AppendUint16(b, half.ToFloat16(f))
		}
	case BF16:
		for _, f := range t.Floats {
			b = binary.LittleEndian.AppendUint16(b, half.ToBFloat16(f))
		}
	case FP64:
		for _, f := range t.Doubles {
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(f))
		}
	case BYTES:
		for _, s := range t.Texts {
			b = binary.LittleEndian.AppendUint32(b, uint32(len(s)))
			b = append(b, s...)
		}
	default:
		for _, x := range t.Ints {
			switch t.Datatype.Size() {
			case 1:
				b = append(b, byte(x))
			case 2:
				b = binary.LittleEndian.AppendUint16(b, uint16(x))
			case 4:
				b = binary.LittleEndian.AppendUint32(b, uint32(x))
			case 8:
				b = binary.LittleEndian.AppendUint64(b, uint64(x))
			}
		}
	}
	return b
}
