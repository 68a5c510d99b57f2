package nn

import "github.com/carousel-ml/carousel/tensor"

// Cell is a recurrent cell of your own, for [NewCustom]: plain Go for one batch
// row of one step, forward and backward, and everything else (time, direction,
// lengths, state, the matrix products and their gradients, the split over
// cores) is the engine's.
//
// The engine gives Forward a row whose Gates [G*H] hold W·x + b + R·h + b' and
// wants HNew (and CNew) written; h is HOld, and COld holds the other states,
// vectors of H units side by side. What the backward pass needs may be left in
// Gates, which is kept for it; the states before and after are kept as well.
//
// Backward finds in DH the gradient of HNew and in DC that of CNew, and must
// leave in Gates the gradients of what they first held, in DC those of COld,
// and in DH the part of HOld's that does not come through the gates (zeros if
// there is none).
//
// Rows run on several cores at once: a Cell must keep no state of its own
// between calls. Results do not depend on the number of cores.
//
// docs/cells.md has an example. Check a new cell with tensortest.CheckGrad.
type Cell = tensor.RowCell

// Row is what a [Cell] works on.
type Row = tensor.Row

// NewCustom is a stack of your own cell, with the parameters weight_ih,
// weight_hh [G*H,..] and biases of the other cells. Options that reach into a
// cell's equations are refused; directions, lengths, dropout, weight drop and
// learned states work as anywhere. Zoneout is not available, because Backward
// may read HNew.
func NewCustom(cell Cell, in, hidden int, o *RNNOptions) *RNN {
	if cell.Gates() < 1 || cell.States() < 1 {
		refuse("a custom cell needs at least one gate and one state, got %d and %d", cell.Gates(), cell.States())
	}
	if o != nil && o.Zoneout != 0 {
		refuse("Zoneout needs a built-in cell")
	}
	return newRNN(tensor.CustomCell, cell, in, hidden, o)
}
