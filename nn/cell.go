package nn

import "github.com/carousel-ml/carousel/cell"

// NewCustom is a stack of your own cell, with the parameters weight_ih,
// weight_hh [G*H,..] and biases of the other cells. Options that reach into a
// cell's equations are refused; directions, lengths, dropout, weight drop and
// learned states work as anywhere. Zoneout is not available, because Backward
// may read HNew.
func NewCustom(c cell.RowCell, in, hidden int, o *RNNOptions) *RNN {
	if c.Gates() < 1 || c.States() < 1 {
		refuse("a custom cell needs at least one gate and one state, got %d and %d", c.Gates(), c.States())
	}
	if o != nil && o.Zoneout != 0 {
		refuse("Zoneout needs a built-in cell")
	}
	return newRNN(cell.Custom, c, in, hidden, o)
}
