package simd

import (
	"math"
	"unsafe"
)

// Bytes is products of which both operands are integers of 8 bits times a scale, one for each
// row of A and one for each column of B:
//
//	C[r,j] = From[r,j] + float32(Σ_k A[r,k]·B[k,j]) · (ScaleA[r]·ScaleB[j])
//
// and then likewise with a second pair of operands. The sum is exact, and each other operation
// is rounded once, so the bits are the same for every set and any division of rows and columns.
type Bytes struct {
	Name string // of the instructions, such as "avx512vnni"

	// Rows rounds rows of A[r,k] = src[r*rs+k*cs] to dst, in which they are ByteDepth(depth) apart:
	// scale[r] is the greatest magnitude of the row divided by 127, and a number the nearest
	// multiple of 1/(127/greatest), ties to even. A row whose greatest is below 2^-100 is zeros, and
	// one that holds a NaN or an infinity has the scale NaN.
	Rows func(dst []int8, scale []float32, src []float32, rows, depth, rs, cs int)
	Run  func(a *ByteArgs)

	// Residual is what Rows took from A[r,k] = src[r*rs+k] to make rounded and scale: dst[r*depth+k] =
	// A[r,k] - rounded[r,k]·scale[r], the product and the difference rounded once each. Numbers that
	// may be subnormal are Rows' zeros.
	Residual func(dst []float32, rounded []int8, scale, src []float32, rows, depth, rs int)
}

// ByteArgs is the operands of Bytes: C has M rows and N columns. A and A2 are of Rows, B and B2
// panels of NR columns of Encode, Pitch and Pitch2 bytes apart, with scales for whole panels. K2 is 0
// without a second product, and a nil From is zeros.
type ByteArgs struct {
	A, A2           []int8
	ScaleA, ScaleA2 []float32
	B, B2           []int8
	Pitch, Pitch2   int
	ScaleB, ScaleB2 []float32
	K, K2           int // at most MaxByteDepth
	C, From         []float32
	LDC, LDFrom     int
	M, N            int
}

// MaxByteDepth is the depth up to which no sum of products exceeds 32 bits.
const MaxByteDepth = 1 << 17

const (
	byteGroup = 64  // k of a group: a row of a tile of AMX
	byteMost  = 127 // -128 is not used, so that magnitudes fit too
	byteFaint = 0x1p-100
)

// ByteDepth returns the bytes of a row of A: depth, filled up with zeros to whole groups.
func ByteDepth(depth int) int { return (depth + byteGroup - 1) / byteGroup * byteGroup }

// ByteScale returns the scale of a column of B with that greatest magnitude: 1/127 of it, rounded up
// to 16 significant bits. So a multiple of it up to 127 is a float32 without rounding, and
// numbers that are such multiples, the greatest 127, have the same scale again.
func ByteScale(greatest float32) float32 {
	if greatest < byteFaint {
		return 0
	}
	const low = 1<<8 - 1
	return math.Float32frombits((math.Float32bits(greatest/byteMost) + low) &^ low)
}

// ByteOf returns the multiple of a scale that is nearest to w.
func ByteOf(w, scale float32) int8 {
	if scale == 0 {
		return 0
	}
	return int8(math.RoundToEven(float64(w) / float64(scale)))
}

// The greatest levels of weights of 8 and of 4 bits. A level l of at most m is the integer of 8 bits
// that is nearest to l·127/m, so products with both are the same ones.
const (
	Levels8 = byteMost
	Levels4 = 7
)

// LevelOf returns the level, of at most levels, that is nearest to w.
func LevelOf(w, scale float64, levels int) int {
	if scale == 0 {
		return 0
	}
	l := math.RoundToEven(w / scale * (float64(levels) / byteMost))
	return int(max(-float64(levels), min(l, float64(levels))))
}

// ByteOfLevel returns the integer of a level.
func ByteOfLevel(level, levels int) int8 {
	return int8(math.RoundToEven(float64(level) * (byteMost / float64(levels))))
}

// RoundBytes rounds each row of a matrix, the rows cols apart, to those multiples of its ByteScale that
// are levels.
func RoundBytes(w []float32, cols, levels int) {
	_, scales := SplitBytes(w, cols)
	for i, v := range w {
		scale := scales[i/cols]
		w[i] = float32(ByteOfLevel(LevelOf(float64(v), float64(scale), levels), levels)) * scale
	}
}

// SplitBytes returns the nearest multiples of each row's ByteScale, and these scales.
func SplitBytes(w []float32, cols int) (values []int8, scales []float32) {
	values = make([]int8, len(w))
	for r := 0; r < len(w); r += cols {
		greatest := float32(0)
		for _, v := range w[r : r+cols] {
			greatest = max(greatest, abs32(v))
		}
		scale := ByteScale(greatest)
		for i, v := range w[r : r+cols] {
			values[r+i] = ByteOf(v, scale)
		}
		scales = append(scales, scale)
	}
	return values, scales
}

// byteWeights is the row of Weights. A panel of a set with nr columns is, for each column, a sum
// to begin with, of 32 bits, and then groups [16][nr][4]. Where rows of A are stored plus 128,
// because an instruction takes them without sign, it is -128 times the sum of the column,
// otherwise zero.
func byteWeights(nr int, unsigned bool, b *Bytes) Weights {
	return Weights{Name: "int8", Group: byteGroup, Bytes: byteGroup, Head: 4, Scales: true, Products: b,
		Encode: func(dst []byte, scale, panel []float32) { encodeBytes(nr, unsigned, dst, scale, panel) }}
}

func encodeBytes(nr int, unsigned bool, dst []byte, scale, panel []float32) {
	clear(dst)
	clear(scale[:nr])
	for i := 0; i < len(panel); i += nr {
		for j, w := range panel[i : i+nr] {
			scale[j] = max(scale[j], abs32(w))
		}
	}
	for j := range nr {
		scale[j] = ByteScale(scale[j])
	}
	sums := unsafe.Slice((*int32)(unsafe.Pointer(unsafe.SliceData(dst))), nr)
	for k := range len(panel) / nr {
		to := dst[4*nr+k/4*4*nr+k%4:]
		for j, w := range panel[k*nr : (k+1)*nr] {
			v := ByteOf(w, scale[j])
			if to[4*j] = byte(v); unsigned {
				sums[j] -= 128 * int32(v)
			}
		}
	}
}

func bytesGeneric(nr int) *Bytes {
	return &Bytes{Name: "generic", Rows: byteRowsGeneric, Residual: byteResidual(0), Run: func(a *ByteArgs) { a.run(nr) }}
}

func byteRowsGeneric(dst []int8, scale []float32, src []float32, rows, depth, rs, cs int) {
	pitch := ByteDepth(depth)
	for r := range rows {
		to, from := dst[r*pitch:][:pitch], src[r*rs:]
		greatest := uint32(0)
		for k := range depth {
			greatest = max(greatest, math.Float32bits(from[k*cs])&^(1<<31))
		}
		clear(to)
		top := math.Float32frombits(greatest)
		switch {
		case greatest >= 0x7f800000:
			scale[r] = float32(math.NaN())
		case top < byteFaint:
			scale[r] = 0
		default:
			scale[r] = top / byteMost
			by := byteMost / top
			for k := range depth {
				to[k] = int8(math.RoundToEven(float64(Narrow(float64(from[k*cs]) * float64(by)))))
			}
		}
	}
}

// byteResidual is Bytes.Residual of bytes that are xored with flip.
func byteResidual(flip int8) func(dst []float32, rounded []int8, scale, src []float32, rows, depth, rs int) {
	return func(dst []float32, rounded []int8, scale, src []float32, rows, depth, rs int) {
		for r := range rows {
			to, from, by := dst[r*depth:][:depth], src[r*rs:][:depth], scale[r]
			for k, v := range rounded[r*ByteDepth(depth):][:depth] {
				to[k] = from[k] - float32(float32(v^flip)*by)
			}
		}
	}
}

// run is the reference of Bytes.Run.
func (a *ByteArgs) run(nr int) {
	for r := range a.M {
		for j := range a.N {
			sum := float32(0)
			if a.From != nil {
				sum = a.From[r*a.LDFrom+j]
			}
			sum = addByte(sum, a.A[r*ByteDepth(a.K):], a.B[j/nr*a.Pitch:], j%nr, nr, a.K, a.ScaleA[r], a.ScaleB[j])
			if a.K2 > 0 {
				sum = addByte(sum, a.A2[r*ByteDepth(a.K2):], a.B2[j/nr*a.Pitch2:], j%nr, nr, a.K2, a.ScaleA2[r], a.ScaleB2[j])
			}
			a.C[r*a.LDC+j] = sum
		}
	}
}

func addByte(start float32, a, b []int8, j, nr, depth int, scaleA, scaleB float32) float32 {
	sum := int32(0)
	for k := range depth {
		sum += int32(a[k]) * int32(b[4*nr+k/4*4*nr+4*j+k%4])
	}
	scaled := Narrow(float64(float32(sum)) * float64(Narrow(float64(scaleA)*float64(scaleB))))
	return Narrow(float64(start) + float64(scaled))
}
