package nn

import (
	"fmt"

	"github.com/carousel-ml/carousel/tensor"
)

// States holds the states of many streams in the memory of a device, one stream per row.
// A pass runs over any of the rows, see [RNN.Step], so the streams of a batch may change
// between steps. The bits of a row do not depend on the other rows. One goroutine at a
// time may use it. Rows that do not exist panic with a [*tensor.ShapeError].
type States struct {
	h, c *tensor.Table // c is nil for cells without further states
}

// NewStates returns states of zeros on dev for a number of rows.
func (m *RNN) NewStates(dev *tensor.Device, rows int) *States {
	slots := m.Layers() * m.Directions()
	s := &States{h: tensor.NewTable(dev, slots, rows, m.StateSize())}
	if m.CellSize() > 0 {
		s.c = tensor.NewTable(dev, slots, rows, m.CellSize())
	}
	return s
}

// Rows returns the number of rows.
func (s *States) Rows() int { return s.h.Rows() }

// Free releases the memory. The states must not be used afterwards.
func (s *States) Free() {
	s.h.Free()
	if s.c != nil {
		s.c.Free()
	}
}

// Clear sets a row to zeros, for the start of a new stream.
func (s *States) Clear(row int) {
	s.h.Clear(row)
	if s.c != nil {
		s.c.Clear(row)
	}
}

// Set copies row j of a saved state of the same stack to a row.
func (s *States) Set(row int, from *SavedState, j int) { s.exchange("Set", row, from, j, false) }

// Get waits for the device and copies a row to row j of a saved state of the same
// stack.
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

// On returns rows of the states as the initial state of a pass over len(rows)
// sequences. A row may occur several times.
func (s *States) On(tape *tensor.Tape, rows []int32) *State {
	state := tape.NewState(0, 0, 0, 0)
	state.H = tape.Gather(s.h, rows)
	if s.c != nil {
		state.C = tape.Gather(s.c, rows)
	}
	return state
}

// Keep copies the final state of a pass to rows, which must be distinct.
func (s *States) Keep(rows []int32, from *State) {
	tape := from.H.Tape()
	tape.Scatter(s.h, rows, from.H)
	if s.c != nil {
		tape.Scatter(s.c, rows, from.C)
	}
}

// Step runs the stack over x [len(rows),T,in], or [T,len(rows),in] if the stack is
// TimeMajor, from rows of the states, which must be distinct, stores the final states in
// these rows and returns the output.
func (m *RNN) Step(x *tensor.Tensor, s *States, rows []int32) *tensor.Tensor {
	y, final := m.Forward(x, s.On(x.Tape(), rows))
	s.Keep(rows, final)
	return y
}
