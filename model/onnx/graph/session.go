package graph

import (
	"context"
	"fmt"
	"slices"
)

// Session runs a model step by step and keeps its states: inputs that take in each
// step what outputs were in the step before, such as the hidden state of a network
// that hears a stream of sound. After the first step with the same shapes a step
// allocates nothing. Sessions share the model's memory for values; a session itself
// holds its outputs only. One goroutine at a time may use it, but any number of
// sessions of a model may run at once.
type Session struct {
	m      *Model
	states []StatePair
	from   []int   // for each input the output that it takes, -1 if the caller gives it
	in     []Value // of states those of the next step
	set    []bool  // of states: not zeros whose shape the next step decides
	out    []Value
	byName map[string]Value
}

// SessionOptions are the options of [Model.NewSession].
type SessionOptions struct {
	// States has the outputs by the inputs that take them, in addition to the pairs that
	// [StatePairs] finds by types, shapes and names. An output of "" says that the input
	// is no state.
	States map[string]string
}

// NewSession returns a session with states of zeros. The errors are those of
// [StatePairs].
func (m *Model) NewSession(o SessionOptions) (*Session, error) {
	pairs, err := StatePairs(m.inputs, m.outputs, o.States)
	if err != nil {
		return nil, fmt.Errorf("onnx: %w", err)
	}
	s := &Session{m: m, states: pairs, from: slices.Repeat([]int{-1}, len(m.inputs)), in: make([]Value, len(m.inputs)),
		set: make([]bool, len(m.inputs)), out: make([]Value, len(m.outputs)), byName: make(map[string]Value, len(m.outputs))}
	for _, p := range pairs {
		s.from[m.input(p.Input)] = slices.IndexFunc(m.outputs, func(v ValueInfo) bool { return v.Name == p.Output })
	}
	return s, nil
}

// States returns the inputs that are states, in the graph's order, with the outputs
// that they take.
func (s *Session) States() []StatePair { return slices.Clone(s.states) }

// Step computes the outputs from the inputs that are no states, and from the states.
// Before the first step a state is zeros of its declared shape; a dimension that the
// file leaves free has the size of the input's dimension with the same name, or
// else, if it is the only one, that of the first input's first dimension, which is
// the batch. The outputs, those of states included, are valid until the next step and
// must not be changed. The errors are those of [Model.Run], and one for a state whose
// shape is not known; after an error the states are as before.
func (s *Session) Step(inputs map[string]Value) (map[string]Value, error) {
	return s.StepContext(context.Background(), inputs)
}

// StepContext is Step that ends with ctx, as [Model.Apply].
func (s *Session) StepContext(ctx context.Context, inputs map[string]Value) (map[string]Value, error) {
	m, given := s.m, 0
	for i := range m.inputs {
		v, ok := inputs[m.inputs[i].Name]
		switch {
		case ok && s.from[i] >= 0:
			return nil, fmt.Errorf("onnx: input %s is a state, which takes output %q; SetState sets it, and SessionOptions.States makes it an input",
				m.inputs[i], clip(m.outputs[s.from[i]].Name))
		case ok:
			s.in[i] = v
			given++
		case s.from[i] < 0:
			return nil, fmt.Errorf("onnx: input %s is missing; outputs that it could take as a state are %s",
				m.inputs[i], listed(m.inputs[i].StateOutputs(m.outputs)))
		}
	}
	if given < len(inputs) {
		return nil, m.unknown(inputs)
	}
	for i := range m.inputs {
		if s.from[i] >= 0 && !s.set[i] {
			if err := s.zero(i); err != nil {
				return nil, err
			}
		}
	}
	p, err := m.compute(ctx, s.in)
	if err != nil {
		return nil, err
	}
	for i, v := range p.out {
		own := &s.out[i]
		own.Dims = append(own.Dims[:0], v.dims...)
		own.Data = append(own.Data[:0], v.host...)
		own.Ints = append(own.Ints[:0], v.ints...)
		s.byName[m.outputs[i].Name] = *own
	}
	m.plans.put(p)
	for i, o := range s.from {
		if o >= 0 {
			s.in[i], s.set[i] = s.out[o], true
		} else {
			s.in[i] = Value{} // the caller's memory
		}
	}
	return s.byName, nil
}

// zero makes a state of zeros.
func (s *Session) zero(i int) error {
	info := s.m.inputs[i]
	unknown := fmt.Errorf("onnx: the shape of the state %s is not known; set it with SetState", info)
	if info.Any {
		return unknown
	}
	named, batch := map[string]int{}, 1
	for j, in := range s.m.inputs {
		dims := s.in[j].Dims
		if s.from[j] >= 0 || in.Any || len(dims) != len(in.Dims) {
			continue
		}
		for k, d := range in.Dims {
			if d.Name != "" {
				named[d.Name] = dims[k]
			}
		}
	}
	for j := range s.m.inputs {
		if dims := s.in[j].Dims; s.from[j] < 0 && len(dims) > 0 {
			batch = dims[0]
			break
		}
	}
	dims, free, size := make([]int, len(info.Dims)), 0, 1
	for k, d := range info.Dims {
		dims[k] = d.Size
		if d.Size < 0 {
			n, ok := named[d.Name]
			if !ok {
				n = batch
				free++
			}
			dims[k] = n
		}
		if dims[k] > 0 && size > s.m.budget/dims[k] {
			return fmt.Errorf("onnx: the state %s of shape %s would be too large", info, shape(dims))
		}
		size *= dims[k]
	}
	if free > 1 {
		return unknown
	}
	s.in[i] = Value{Dims: dims}
	if info.kind == floats {
		s.in[i].Data = make([]float32, size)
	} else {
		s.in[i].Ints = make([]int64, size)
	}
	return nil
}

// Reset makes all states zeros again, of the shapes that the next step decides.
func (s *Session) Reset() {
	for i, o := range s.from {
		if o >= 0 {
			s.in[i], s.set[i] = Value{}, false
		}
	}
}

// State returns copies of the states by the names of their inputs: those of the next
// step. States that are zeros because no step was made are left out.
func (s *Session) State() map[string]Value {
	state := map[string]Value{}
	for i, info := range s.m.inputs {
		if s.from[i] >= 0 && s.set[i] {
			state[info.Name] = clone(s.in[i])
		}
	}
	return state
}

// StateBytes returns the memory of the states' elements: of floats 4 bytes each, of integers 8.
func (s *Session) StateBytes() int {
	n := 0
	for i := range s.in {
		if s.from[i] >= 0 && s.set[i] {
			n += 4*len(s.in[i].Data) + 8*len(s.in[i].Ints)
		}
	}
	return n
}

// SetState sets states by the names of their inputs and leaves others as they are.
// It copies the values. A name that is no state's, and a value that does not fit the
// input's type or shape, are errors, which change nothing.
func (s *Session) SetState(state map[string]Value) error {
	for name, v := range state {
		i := s.m.input(name)
		if i < 0 || s.from[i] < 0 {
			return fmt.Errorf("onnx: the session has no state %q; it has %v", clip(name), s.states)
		}
		if err := s.m.inputs[i].check(v); err != nil {
			return err
		}
		if err := fits(s.m.inputs[i], v.Dims, map[string]int{}); err != nil {
			return err
		}
	}
	for name, v := range state {
		i := s.m.input(name)
		s.in[i], s.set[i] = clone(v), true
	}
	return nil
}

func clone(v Value) Value {
	return Value{Dims: slices.Clone(v.Dims), Data: slices.Clone(v.Data), Ints: slices.Clone(v.Ints)}
}
