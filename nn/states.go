package nn

import (
	"fmt"

	"github.com/carousel-ml/carousel/tensor"
)

// States are states of a stack in the memory of its device, one a row: what many
// streams carry from one pass to the next. A pass runs over any of the rows, see
// [RNN.Step], so streams join and leave between steps. A row's numbers are the
// same bits whichever rows go with it. States are used by one goroutine at a time.
type States struct {
	h, c *tensor.Table // c is nil for cells without further states
}

// NewStates is rows states of zeros.
func (m *RNN) NewStates(dev *tensor.Device, rows int) *States {
	slots := m.Layers() * m.Directions()
	s := &States{h: tensor.NewTable(dev, slots, rows, m.StateSize())}
	if m.CellSize() > 0 {
		s.c = tensor.NewTable(dev, slots, rows, m.CellSize())
	}
	return s
}

// Rows is the number of rows.
func (s *States) Rows() int { return s.h.Rows() }

// Free gives the memory back.
func (s *States) Free() {
	s.h.Free()
	if s.c != nil {
		s.c.Free()
	}
}

// Clear sets a row to zeros: a stream's new beginning.
func (s *States) Clear(row int) {
	s.h.Clear(row)
	if s.c != nil {
		s.c.Clear(row)
	}
}

// Set makes a row that of row j of a saved state of the same stack.
func (s *States) Set(row int, from *SavedState, j int) { s.exchange("Set", row, from, j, false) }

// Get waits for a row and copies it to row j of a saved state of the same stack.
func (s *States) Get(row int, to *SavedState, j int) { s.exchange("Get", row, to, j, true) }

func (s *States) exchange(op string, row int, saved *SavedState, j int, get bool) {
	cell := 0
	if s.c != nil {
		cell = s.c.Width()
	}
	if saved.out != s.h.Width() || saved.cell != cell || j < 0 || j >= saved.rows {
		panic(&tensor.ShapeError{Op: "States." + op, Msg: fmt.Sprintf("row %d of a saved state of %d rows, widths %d and %d; this stack has %d and %d",
			j, saved.rows, saved.out, saved.cell, s.h.Width(), cell)})
	}
	for slot := range saved.slots {
		at := slot*saved.rows + j
		for _, part := range []struct {
			table *tensor.Table
			v     []float32
		}{{s.h, saved.h[at*saved.out:][:saved.out]}, {s.c, saved.c[at*saved.cell:][:saved.cell]}} {
			switch {
			case part.table == nil:
			case get:
				part.table.Read(slot, row, part.v)
			default:
				part.table.Write(slot, row, part.v)
			}
		}
	}
}

// On is rows of the states as the initial state of a pass over as many sequences.
// A row may be named more than once.
func (s *States) On(tape *tensor.Tape, rows []int32) *State {
	state := tape.NewState(0, 0, 0, 0)
	state.H = tape.Gather(s.h, rows)
	if s.c != nil {
		state.C = tape.Gather(s.c, rows)
	}
	return state
}

// Keep puts the final state of a pass into rows, which must differ from each other.
func (s *States) Keep(rows []int32, from *State) {
	tape := from.H.Tape()
	tape.Scatter(s.h, rows, from.H)
	if s.c != nil {
		tape.Scatter(s.c, rows, from.C)
	}
}

// Step runs the stack over x [len(rows),T,I] (time-major [T,len(rows),I] if the
// stack is), from those rows of the states, and leaves the states after it there.
func (m *RNN) Step(x *tensor.Tensor, s *States, rows []int32) *tensor.Tensor {
	y, final := m.Forward(x, s.On(x.Tape(), rows))
	s.Keep(rows, final)
	return y
}
