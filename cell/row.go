package cell

// RowCell is a recurrent cell of your own, for nn.NewCustom: plain Go for one
// batch row of one step, forward and backward, and everything else (time,
// direction, lengths, state, the matrix products and their gradients, the split
// over cores) is the engine's.
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
// Rows run on several cores at once: a RowCell must keep neither a Row nor a
// state of its own between calls. Results do not depend on the number of cores.
//
// docs/cells.md has an example. Check a new cell with tensortest.CheckGrad.
type RowCell interface {
	Gates() int  // G
	States() int // S
	Forward(r *Row)
	Backward(r *Row)
}

// Row is one batch row of one step of a cell of your own. H is the number of
// units, G the number of gates, S the number of states.
type Row struct {
	H          int
	Gates      []float32 // [G*H] W·x + R·h + biases in, whatever Backward needs out; Backward: gradients of the former out
	HOld, HNew []float32 // [H] the output before and after; Forward writes HNew
	COld, CNew []float32 // [(S-1)*H] the other states likewise; nil if there are none
	DH         []float32 // Backward: [H] dL/dHNew in; dL/dHOld out, but for what comes through the gates
	DC         []float32 // Backward: [(S-1)*H] dL/dCNew in, dL/dCOld out
}
