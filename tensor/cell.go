package tensor

import "github.com/carousel-ml/carousel/internal/device"

// State is the recurrent state of a stack of layers, as torch.nn.LSTM's h_n and c_n:
// H [layers*directions,B,O], with the directions of a layer side by side, and C
// [layers*directions,B,(states-1)*hidden], nil for cells whose only state is h.
// Rows are in the user's order.
type State struct{ H, C *Tensor }

// Detach returns the state as constants, through which no gradient passes; nil for
// nil.
func (s *State) Detach() *State {
	if s == nil {
		return nil
	}
	d := s.H.tape.states.next()
	d.H, d.C = Detach(s.H), Detach(s.C)
	return d
}

// Detach returns x as a constant, through which no gradient passes and which shares
// x's memory; nil for nil (torch.Tensor.detach).
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

// NewState returns a state with unspecified elements that [Scan] fills with final
// states: H [slots,B,out] and, if beside is not 0, C [slots,B,beside].
func (t *Tape) NewState(slots, B, out, beside int) *State {
	s := t.states.next()
	s.H = t.Empty(slots, B, out)
	if beside > 0 {
		s.C = t.Empty(slots, B, beside)
	}
	return s
}

// stateList holds the states of a stack of modules; longer lists are allocated.
type stateList [16]*State

// NewStates returns a list of n states to be set by the caller, valid until Reset.
func (t *Tape) NewStates(n int) []*State {
	if n > len(stateList{}) {
		return make([]*State, n)
	}
	return t.lists.next()[:n]
}
