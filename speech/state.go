package speech

import (
	"encoding/binary"
	"errors"
	"slices"
)

// MarshalBinary returns what further steps depend on. The error is always nil.
func (p *Pipeline) MarshalBinary() ([]byte, error) {
	d, running := &p.deltas, p.norm.running
	if running == nil {
		running = &moments{}
	}
	b, err := binary.Append(nil, binary.LittleEndian, []int64{int64(d.first), int64(d.seen), int64(d.next), int64(len(d.in)), int64(len(running.sum))})
	for _, part := range []any{running.n, running.sum, running.square, d.in, p.stack.in} {
		if err == nil {
			b, err = binary.Append(b, binary.LittleEndian, part)
		}
	}
	return b, err
}

// UnmarshalBinary restores what MarshalBinary of a Pipeline of an equal Frontend returned. It
// returns an error, and changes nothing, if the bytes are not that.
func (p *Pipeline) UnmarshalBinary(b []byte) error {
	broken := errors.New("speech: the bytes are not a state of features that are being read")
	var n [5]int64
	used, err := binary.Decode(b, binary.LittleEndian, &n)
	if err != nil {
		return broken
	}
	b = b[used:]
	first, seen, next, wide, sums := n[0], n[1], n[2], n[3], n[4]
	d, s := &p.deltas, &p.stack
	if first < 0 || first > next || next > seen || seen > 1<<40 || wide != (seen-first)*int64(d.width) || wide < 0 || wide > int64(len(b))/4 ||
		sums != 0 && (p.norm.kind != "running" || sums != int64(p.norm.width)) || first > max(0, next-int64(deltaReach*d.order)) || d.order == 0 && seen > 0 {
		return broken
	}
	m, in := &moments{sum: make([]float64, sums), square: make([]float64, sums)}, make([]float32, wide)
	for _, part := range []any{&m.n, m.sum, m.square, in} {
		if used, err = binary.Decode(b, binary.LittleEndian, part); err != nil {
			return broken
		}
		b = b[used:]
	}
	stacked := make([]float32, len(b)/4)
	if _, err := binary.Decode(b, binary.LittleEndian, stacked); err != nil || len(b)%(4*s.width) != 0 || len(stacked) > 0 && len(stacked) >= s.size*s.width {
		return broken
	}
	d.first, d.seen, d.next, d.in, s.in = int(first), int(seen), int(next), in, slices.Clip(stacked)
	if p.norm.running = nil; sums > 0 {
		p.norm.running = m
	}
	return nil
}
