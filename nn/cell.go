package nn

import "github.com/carousel-ml/carousel/cell"

// NewCustom returns a stack of a custom cell, with the parameters weight_ih and
// weight_hh [G*H,...] and the biases of other cells. Directions, lengths, dropout, weight
// drop and learned states work as for them; options that change a cell's equations, and
// Zoneout, panic with a [*tensor.UseError].
func NewCustom(c cell.RowCell, in, hidden int, o *RNNOptions) *RNN {
	check(c.Gates() > 0 && c.States() > 0, "a custom cell needs at least one gate and one state, got %d and %d", c.Gates(), c.States())
	check(o == nil || o.Zoneout == 0, "Zoneout needs a built-in cell")
	return newRNN(cell.Custom, c, in, hidden, o)
}
