package text

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// charsMap holds the normalization rules of a SentencePiece model: a Darts-clone
// double array from text to positions in a list of strings that end in NUL.
type charsMap struct {
	units []uint32
	to    []byte
}

// readCharsMap reads a precompiled_charsmap: the array's size in bytes as
// uint32, the array, the strings; all little-endian.
func readCharsMap(blob []byte) (*charsMap, error) {
	if len(blob) == 0 {
		return &charsMap{}, nil
	}
	if len(blob) < 4 {
		return nil, fmt.Errorf("precompiled_charsmap is cut short")
	}
	size := binary.LittleEndian.Uint32(blob)
	blob = blob[4:]
	if size%4 != 0 || uint64(size) > uint64(len(blob)) {
		return nil, fmt.Errorf("the first part of precompiled_charsmap has %d of %d bytes", size, len(blob))
	}
	m := &charsMap{units: make([]uint32, size/4), to: blob[size:]}
	for i := range m.units {
		m.units[i] = binary.LittleEndian.Uint32(blob[4*i:])
	}
	return m, nil
}

// first finds the shortest rule for a prefix of text: its replacement, and the
// length of the prefix, 0 when there is none.
func (m *charsMap) first(text []byte) (to string, n int) { return m.search(text, false) }

// longest is like first, for the longest rule.
func (m *charsMap) longest(text []byte) (to string, n int) { return m.search(text, true) }

func (m *charsMap) search(text []byte, longest bool) (to string, n int) {
	if len(m.units) == 0 {
		return "", 0
	}
	value := uint32(0)
	at := offset(m.units[0])
	for i, b := range text {
		at ^= uint32(b)
		if at >= uint32(len(m.units)) {
			break
		}
		unit := m.units[at]
		if unit&(1<<31|0xff) != uint32(b) {
			break
		}
		at ^= offset(unit)
		if unit>>8&1 == 1 && at < uint32(len(m.units)) {
			value, n = m.units[at]&(1<<31-1), i+1
			if !longest {
				break
			}
		}
	}
	if n == 0 || uint64(value) > uint64(len(m.to)) {
		return "", 0
	}
	rest := m.to[value:]
	if end := bytes.IndexByte(rest, 0); end >= 0 {
		rest = rest[:end]
	}
	rest = rest[:min(len(rest), maxContent)]
	return string(rest), n
}

// offset is the distance from a unit of the array to its children.
func offset(unit uint32) uint32 { return unit >> 10 << (unit & (1 << 9) >> 6) }
