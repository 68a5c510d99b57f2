package tensor

import "github.com/carousel-ml/carousel/internal/device"

// State is the recurrent state of a stack, rows in the user's order, each
// [layers*directions, B, width], layer-major then direction: H of the output's
// width and C, for cells that have it, of hidden units times the cell's further
// states (torch.nn.LSTM's h_n and c_n).
type State struct{ H, C *Tensor }

// Detach is the same state as constants: no gradient passes.
func (s *State) Detach() *State {
	if s == nil {
		return nil
	}
	d := s.H.tape.states.next()
	d.H, d.C = Detach(s.H), Detach(s.C)
	return d
}

// Detach is x as a constant that shares its values; nil gives nil.
func Detach(x *Tensor) *Tensor {
	if x == nil {
		return nil
	}
	t := tapeOf("Detach", x)
	y := t.tensors.next()
	*y = *x
	y.grad, y.gradSet, y.needs = device.Buffer{}, false, false
	return y
}

// NewState makes the tensors that [Scan] fills with final states: h of width
// out, c of width beside (0: none).
func (t *Tape) NewState(slots, B, out, beside int) *State {
	s := t.states.next()
	s.H = t.Empty(slots, B, out)
	if beside > 0 {
		s.C = t.Empty(slots, B, beside)
	}
	return s
}

// stateList is the states of a stack of modules; longer ones are made by hand.
type stateList [16]*State

// NewStates is a list of n states to be filled in, the tape's own until its Reset.
func (t *Tape) NewStates(n int) []*State {
	if n > len(stateList{}) {
		return make([]*State, n)
	}
	return t.lists.next()[:n]
}
