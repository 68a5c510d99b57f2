package nn

import "github.com/carousel-ml/carousel/cell"

// NewCustom is a stack of your own cell, with the parameters weight_ih,
// weight_hh [G*H,..] and biases of the other cells. Options that reach into a
// cell's equations are refused; directions, lengths, dropout, weight drop and
// learned states work as anywhere. Zoneout is not available, because Backward
// may read HNew.
func NewCustom(c cell.RowCell, in, hidden int, o *RNNOptions) *RNN {
	check(c.Gates() > 0 && c.States() > 0, "a custom cell needs at least one gate and one state, got %d and %d", c.Gates(), c.States())
	check(o == nil || o.Zoneout == 0, "Zoneout needs a built-in cell")
	return newRNN(cell.Custom, c, in, hidden, o)
}
