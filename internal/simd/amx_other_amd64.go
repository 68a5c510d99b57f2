//go:build !purego && !linux

package simd

// permitTiles reports that tiles may not be used: how other systems grant them is not known here.
func permitTiles() bool { return false }
