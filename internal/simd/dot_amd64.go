//go:build !purego

package simd

import (
	"math"
	"time"
)

// VDPBF16PS adds two products of bfloat16 numbers to each of 16 sums. A pair of a row of A is
// broadcast, and a row of a tile of B is the other operand.
const (
	dotRows  = 8   // at most, by two vectors of columns: half a tile of A
	dotWide  = 4   // rows, at most, that take two panels at once, because their chains are few
	dotPairs = 192 // of one call: a panel of B is read again for other rows while it is in the first cache
)

// dotArgs is C = From + A·B for Pairs of k, 1 to 8 Rows, and the columns in Mask, of which those
// from 32 on are of the panel Pitch after B; then Rows is at most 4. LDC, LDFrom and Pitch count
// bytes. A nil From is zeros.
type dotArgs struct {
	A, B        *uint16
	C, From     *float32
	LDC, LDFrom int
	Rows, Pairs int
	Pitch       int
	Mask        uint64
}

//go:noescape
func dotTile(a *dotArgs)

// dotBlocks is the products of bfloat16 by pairs.
var dotBlocks = Blocks{
	Link: tileLink, Rows: tileRows, PackA: packTilesA, PackB: packTilesB, Run: dotRun,
}

func dotRun(p *BlockArgs) {
	p.dot(p.B, p.Pitch, p.K, 0)
	if p.K2 > 0 {
		p.dot(p.B2, p.Pitch2, p.K2, tilesOf(p.K))
	}
}

// dot is one of the two products, whose A begins at a tile; the second starts from C.
func (p *BlockArgs) dot(b []uint16, pitch, depth, first int) {
	const group = tileLink / 2
	pairs, groups := (depth+1)/2, tilesOf(p.K)+tilesOf(p.K2)
	a := dotArgs{LDC: 4 * p.LDC, Pitch: 2 * pitch}
	width := 32
	if p.M <= dotWide {
		width = 64
	}
	for j := 0; j < p.N; j += width {
		n := min(width, p.N-j)
		a.Mask = math.MaxUint64 >> (64 - n)
		for k := 0; k < pairs; k += dotPairs {
			a.Pairs = min(dotPairs, pairs-k)
			a.B = &b[j/32*pitch+k/group*2*tileSize]
			for r := 0; r < p.M; r += a.Rows {
				a.Rows = min(tileRows-r%tileRows, p.M-r)
				if a.Rows > dotRows {
					a.Rows = (a.Rows + 1) / 2
				}
				a.A = &p.A[(r/tileRows*groups+first+k/group)*tileSize+r%tileRows*tileLink]
				_ = p.C[(r+a.Rows-1)*p.LDC+j+n-1]
				a.C = &p.C[r*p.LDC+j]
				switch {
				case first > 0 || k > 0:
					a.From, a.LDFrom = a.C, a.LDC
				case p.From != nil:
					_ = p.From[(r+a.Rows-1)*p.LDFrom+j+n-1]
					a.From, a.LDFrom = &p.From[r*p.LDFrom+j], 4*p.LDFrom
				default:
					a.From = nil
				}
				dotTile(&a)
			}
		}
	}
}

// dotPays is the share of float32's time below which products of pairs are preferred. Where the
// instruction has the rate of a multiply-add it is about a half, on Intel's processors 1.2 to 2, so
// the noise of a measurement does not change the choice, and with it the bits.
const dotPays = 0.75

// dotShare measures, in about a tenth of a millisecond, the time of a product of pairs as a
// share of that of the same product in float32.
func dotShare() float64 {
	const m, n, k, windows = 24, 32, 128, 12
	var floats [k * (m + n)]float32
	var halves [k * (32 + n)]uint16 // A in whole tiles
	var c [m * n]float32
	half := Tile{M: m / 2, N: n, CS: 1, A: &floats[0], B: &floats[k*m], C: &c[0]}
	tiles := [2]Tile{half, half}
	product := Tiles{First: &tiles[0], Count: 2, K: k, RS: k, LDB: n, LDC: n}
	block := BlockArgs{A: halves[:32*k], B: halves[32*k:], Pitch: k * n, C: c[:], LDC: n, M: m, N: n, K: k}
	single, pairs := time.Duration(math.MaxInt64), time.Duration(math.MaxInt64)
	for range windows {
		start := time.Now()
		gemmTilesAVX512(&product)
		middle := time.Now()
		dotRun(&block)
		single, pairs = min(single, middle.Sub(start)), min(pairs, time.Since(middle))
	}
	return float64(pairs) / float64(max(single, 1))
}
