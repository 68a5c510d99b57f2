package cell

// RowCell is a custom recurrent cell, for nn.NewCustom: the forward and the backward
// pass of one batch row of one step, in plain Go. Time, directions, lengths, states,
// matrix products and their gradients, and the work of several cores are handled by
// the engine.
//
// Forward gets a row whose Gates [G*H] hold W·x + b + R·h + b', HOld the old h and COld
// the other old states, vectors of H numbers side by side; it writes HNew and CNew. It
// may leave values for the backward pass in Gates, which is kept, as are the states
// before and after the step.
//
// Backward gets in DH the gradient of HNew and in DC that of CNew. It writes to Gates
// the gradients of the values that Forward got there, to DC those of COld, and to DH
// the part of HOld's gradient that does not come through the gates (zeros if there is
// none).
//
// Rows run on several cores at once: a RowCell must not keep a Row or change its own
// fields. Results do not depend on the number of cores.
//
// docs/cells.md has an example. Check a new cell with tensortest.CheckGrad.
type RowCell interface {
	Gates() int  // G
	States() int // S
	Forward(r *Row)
	Backward(r *Row)
}

// Row is one batch row of one step of a custom cell. H is the number of hidden units,
// G the number of gates, S the number of states. Its slices are valid during the call.
type Row struct {
	H          int
	Gates      []float32 // [G*H]. Forward: W·x + R·h + biases in, values for Backward out. Backward: these in, gradients of the former out
	HOld, HNew []float32 // [H]: h before and after the step; Forward writes HNew
	COld, CNew []float32 // [(S-1)*H]: the other states before and after; nil if there are none
	DH         []float32 // [H]. Backward: dL/dHNew in, dL/dHOld without the part through the gates out
	DC         []float32 // [(S-1)*H]. Backward: dL/dCNew in, dL/dCOld out
}
