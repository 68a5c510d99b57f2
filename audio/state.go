package audio

import (
	"encoding/binary"
	"errors"
	"math"
)

var errState = errors.New("audio: the bytes are not a state of a sound that is being read")

// MarshalBinary returns what further output depends on. The error is always nil.
func (r *Resampler) MarshalBinary() ([]byte, error) {
	return binary.Append(counters(r.first, r.seen, r.next), binary.LittleEndian, r.in)
}

// UnmarshalBinary restores what MarshalBinary of a Resampler for the same rates returned. It
// returns an error, and changes nothing, if the bytes are not that.
func (r *Resampler) UnmarshalBinary(b []byte) error {
	n, b, ok := countersOf(b)
	in := make([]float64, len(b)/8)
	first, seen, next := n[0], n[1], n[2]
	if _, err := binary.Decode(b, binary.LittleEndian, in); err != nil || !ok || len(b)%8 != 0 || first+int64(len(in)) != seen && r.half > 0 ||
		next > math.MaxInt64/int64(r.down) || r.half > 0 && next*int64(r.down)/int64(r.up)-int64(r.half)+1 < first {
		return errState
	}
	r.first, r.seen, r.next, r.in = first, seen, next, in
	return nil
}

// MarshalBinary returns what further frames depend on. The error is always nil.
func (e *Extractor) MarshalBinary() ([]byte, error) {
	b := counters(e.seen, e.frames, int64(math.Float32bits(e.last)))
	return binary.Append(b, binary.LittleEndian, e.in)
}

// UnmarshalBinary restores what MarshalBinary of an Extractor of the same Spec returned. It
// returns an error, and changes nothing, if the bytes are not that.
func (e *Extractor) UnmarshalBinary(b []byte) error {
	n, b, ok := countersOf(b)
	in := make([]float32, len(b)/4)
	seen, frames := n[0], n[1]
	if _, err := binary.Decode(b, binary.LittleEndian, in); err != nil || !ok || len(b)%4 != 0 || seen < 0 || n[2]>>32 != 0 ||
		frames > math.MaxInt64/int64(e.spec.Hop) || int64(len(in)) != int64(e.spec.size()/2)+seen-frames*int64(e.spec.Hop) {
		return errState
	}
	e.seen, e.frames, e.last, e.in = seen, frames, math.Float32frombits(uint32(n[2])), in
	return nil
}

func counters(a, b, c int64) []byte {
	list, _ := binary.Append(nil, binary.LittleEndian, []int64{a, b, c}) // numbers always have a form
	return list
}

// countersOf returns the counters at the beginning of a state, and the rest. The second and
// the third are never negative.
func countersOf(b []byte) (n [3]int64, rest []byte, ok bool) {
	used, err := binary.Decode(b, binary.LittleEndian, &n)
	return n, b[used:], err == nil && n[1] >= 0 && n[2] >= 0
}
