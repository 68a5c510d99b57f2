package nn

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"github.com/carousel-ml/carousel/tensor"
)

// SavedState is a copy of the state of a stack in host memory, independent of tapes, for
// streams, sessions and checkpoints. No gradient passes through it.
type SavedState struct {
	slots, rows, out, cell int
	h, c                   []float32 // [slots,rows,out], [slots,rows,cell]
}

// NewSavedState returns a state of zeros for a number of rows.
func (m *RNN) NewSavedState(rows int) *SavedState {
	s := &SavedState{slots: m.Layers() * m.Directions(), out: m.StateSize(), cell: m.CellSize()}
	s.allocate(rows)
	return s
}

func (s *SavedState) allocate(rows int) {
	s.rows, s.h, s.c = rows, make([]float32, s.slots*rows*s.out), make([]float32, s.slots*rows*s.cell)
}

// Rows returns the number of rows.
func (s *SavedState) Rows() int { return s.rows }

// H returns the elements of h, [layers*directions,rows,O], which the caller may change.
func (s *SavedState) H() []float32 { return s.h }

// C returns the elements of the states beside h, [layers*directions,rows,C], which the
// caller may change; it is empty for cells without them.
func (s *SavedState) C() []float32 { return s.c }

// Save waits for a state of the same shape and copies it. It panics with a
// [*tensor.ShapeError] for another shape.
func (s *SavedState) Save(from *State) {
	s.fits("Save", from.H, s.out)
	from.H.CopyTo(s.h)
	if s.cell > 0 {
		s.fits("Save", from.C, s.cell)
		from.C.CopyTo(s.c)
	}
}

func (s *SavedState) fits(op string, x *tensor.Tensor, width int) {
	if x == nil || x.Rank() != 3 || x.Dim(0) != s.slots || x.Dim(1) != s.rows || x.Dim(2) != width {
		got := "none"
		if x != nil {
			got = fmt.Sprint(x.Dims())
		}
		panic(&tensor.ShapeError{Op: op, Msg: fmt.Sprintf("needs a state [%d,%d,%d], got %s", s.slots, s.rows, width, got)})
	}
}

// On returns the state as constants on a tape.
func (s *SavedState) On(tape *tensor.Tape) *State {
	state := tape.NewState(0, 0, 0, 0)
	state.H = tape.Input(s.h, s.slots, s.rows, s.out)
	if s.cell > 0 {
		state.C = tape.Input(s.c, s.slots, s.rows, s.cell)
	}
	return state
}

// CopyRow sets row i to row j of another state of the same stack, which may have another
// number of rows. It panics with a [*tensor.ShapeError] for a state of another stack or a
// row that does not exist.
func (s *SavedState) CopyRow(i int, from *SavedState, j int) {
	if from.slots != s.slots || from.out != s.out || from.cell != s.cell || i < 0 || i >= s.rows || j < 0 || j >= from.rows {
		panic(&tensor.ShapeError{Op: "CopyRow", Msg: fmt.Sprintf("row %d of a state [%d,%d,%d+%d] from row %d of [%d,%d,%d+%d]",
			i, s.slots, s.rows, s.out, s.cell, j, from.slots, from.rows, from.out, from.cell)})
	}
	for k := range s.slots {
		copy(s.h[(k*s.rows+i)*s.out:][:s.out], from.h[(k*from.rows+j)*s.out:])
		copy(s.c[(k*s.rows+i)*s.cell:][:s.cell], from.c[(k*from.rows+j)*s.cell:])
	}
}

// ClearRow sets row i to zeros, for the start of a new stream.
func (s *SavedState) ClearRow(i int) {
	for k := range s.slots {
		clear(s.h[(k*s.rows+i)*s.out:][:s.out])
		clear(s.c[(k*s.rows+i)*s.cell:][:s.cell])
	}
}

// The format of a saved state, little-endian: "CRST"; the version 1, slots, rows and
// the two widths as uint32; the elements of h and c; the CRC-32 (IEEE) of all of these.
const (
	stateMagic   = "CRST"
	stateVersion = 1
	stateHeader  = 4 + 5*4
)

// MarshalBinary returns the state as bytes. The error is always nil.
func (s *SavedState) MarshalBinary() ([]byte, error) {
	b := make([]byte, 0, stateHeader+4*(len(s.h)+len(s.c))+4)
	b = append(b, stateMagic...)
	for _, n := range []int{stateVersion, s.slots, s.rows, s.out, s.cell} {
		b = binary.LittleEndian.AppendUint32(b, uint32(n))
	}
	for _, part := range [][]float32{s.h, s.c} {
		for _, v := range part {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
	}
	return binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b)), nil
}

// UnmarshalBinary restores a state into one of the same stack, made by
// [RNN.NewSavedState]; the number of rows becomes that of the bytes. It returns an error,
// and changes nothing, if the bytes are damaged, of another version or of another stack.
func (s *SavedState) UnmarshalBinary(b []byte) error {
	if len(b) < stateHeader+4 || string(b[:4]) != stateMagic {
		return errors.New("nn: the bytes hold no recurrent state")
	}
	var n [5]uint64
	for i := range n {
		n[i] = uint64(binary.LittleEndian.Uint32(b[4+4*i:]))
	}
	if n[0] != stateVersion {
		return fmt.Errorf("nn: recurrent state of format %d, this program reads %d", n[0], stateVersion)
	}
	if int(n[1]) != s.slots || int(n[3]) != s.out || int(n[4]) != s.cell {
		return fmt.Errorf("nn: recurrent state of %d slots, widths %d and %d; this stack has %d, %d and %d", n[1], n[3], n[4], s.slots, s.out, s.cell)
	}
	// The widths are those of this stack, so the length of the bytes bounds the memory.
	row := 4 * uint64(s.slots) * uint64(s.out+s.cell)
	if want := stateHeader + n[2]*row + 4; want != uint64(len(b)) {
		return fmt.Errorf("nn: recurrent state of %d rows needs %d bytes, got %d", n[2], want, len(b))
	}
	end := len(b) - 4
	if crc32.ChecksumIEEE(b[:end]) != binary.LittleEndian.Uint32(b[end:]) {
		return errors.New("nn: the bytes of a recurrent state are damaged: their checksum differs")
	}
	s.allocate(int(n[2]))
	b = b[stateHeader:]
	for _, part := range [][]float32{s.h, s.c} {
		for i := range part {
			part[i] = math.Float32frombits(binary.LittleEndian.Uint32(b))
			b = b[4:]
		}
	}
	return nil
}
