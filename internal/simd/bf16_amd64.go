//go:build !purego

package simd

import (
	"slices"
	"unsafe"
)

// The instructions that multiply pairs of bfloat16 numbers take operands in tiles of 1 KB: of A
// 16 rows of 32 numbers, of B 32 rows of 16, stored as 16 rows of pairs. The tiles of 16 rows
// of A follow each other, and those of a panel of 32 columns of B, two for each 32 k.
const (
	tileRows = 16
	tileLink = 32 // values of k of a tile
	tileSize = tileRows * tileLink
)

// bf16Args describes a conversion to tiles that are Step bytes apart; see the functions.
type bf16Args struct {
	Dst          *uint16
	Src          *float32
	Depth, Count int
	Stride, Step int // bytes
}

// bf16Rows converts Count rows of Depth elements, Stride apart, to rows of tiles.
//
//go:noescape
func bf16Rows(a *bf16Args)

// bf16Pairs converts Depth rows of Count elements, Stride apart and at most 16, to tiles
// whose rows are the pairs of two rows. Count columns and Depth are filled up with zeros.
//
//go:noescape
func bf16Pairs(a *bf16Args)

// transposeTiles transposes Count tiles as 16 by 16 pairs.
//
//go:noescape
func transposeTiles(a *bf16Args)

func packTilesA(dst []uint16, src []float32, rows, depth, rs, cs, pitch int) {
	groups := tilesOf(depth)
	for r := 0; r < rows; r += tileRows {
		n := min(tileRows, rows-r)
		tile := dst[r/tileRows*pitch:][:groups*tileSize]
		if cs == 1 {
			_ = src[(r+n-1)*rs+depth-1]
			bf16Rows(&bf16Args{&tile[0], &src[r*rs], depth, n, 4 * rs, 2 * tileSize})
			continue
		}
		_ = src[(depth-1)*cs+r+n-1]
		bf16Pairs(&bf16Args{&tile[0], &src[r], depth, n, 4 * cs, 2 * tileSize})
		transposeTiles(&bf16Args{Dst: &tile[0], Count: groups, Step: 2 * tileSize})
	}
}

func packTilesB(dst []uint16, src []float32, depth, cols, ld int, trans bool) {
	groups := tilesOf(depth)
	for j := 0; j < cols; j += tileRows {
		n := min(tileRows, cols-j)
		tile := dst[(j/tileRows/2*2*groups+j/tileRows%2)*tileSize:]
		if !trans {
			_ = src[(depth-1)*ld+j+n-1]
			bf16Pairs(&bf16Args{&tile[0], &src[j], depth, n, 4 * ld, 4 * tileSize})
			continue
		}
		_ = src[(j+n-1)*ld+depth-1]
		if n < tileRows {
			clearTiles(tile, groups)
		}
		bf16Rows(&bf16Args{&tile[0], &src[j*ld], depth, n, 4 * ld, 4 * tileSize})
		transposeTiles(&bf16Args{Dst: &tile[0], Count: groups, Step: 4 * tileSize})
	}
	if (cols+tileRows-1)/tileRows%2 == 1 { // the other half of the last panel
		clearTiles(dst[(cols/tileRows/2*2*groups+1)*tileSize:], groups)
	}
}

// clearTiles clears every other tile.
func clearTiles(tiles []uint16, groups int) {
	for g := range groups {
		clear(tiles[2*g*tileSize:][:tileSize])
	}
}

// tilesOf returns the number of tiles of k values of k.
func tilesOf(k int) int { return (k + tileLink - 1) / tileLink }

// encodeTiles is Weights.Encode.
func encodeTiles(dst []byte, _, panel []float32) {
	packTilesB(unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(dst))), len(dst)/2), panel, len(panel)/32, 32, 32, false)
}

// withBlocks returns a set that differs from another in its name and the products of bfloat16.
func withBlocks(set *Set, name string, blocks *Blocks) *Set {
	s := *set
	s.Name = name
	s.Weights = slices.Clone(s.Weights)
	w := &s.Weights[1]
	w.Group, w.Bytes, w.Encode, w.Tiles, w.Blocks = tileLink, 2*tileLink, encodeTiles, nil, blocks
	return &s
}
