package nn

import (
	"fmt"
	"math"
	"slices"

	"github.com/carousel-ml/carousel/tensor"
)

// Carry keeps the state of a stack from one segment of its streams to the next, for
// truncated backpropagation through time.
type Carry struct{ SavedState }

// NewCarry returns a state of zeros for a number of streams. It panics with a
// [*tensor.UseError] for a bidirectional stack: its second direction starts at the end
// of a stream, so no state passes between segments.
func NewCarry(m *RNN, rows int) *Carry {
	m.mustCarry("Carry")
	return &Carry{*m.NewSavedState(rows)}
}

func (m *RNN) mustCarry(op string) {
	tensor.Check(!m.opt.Bidirectional, "nn: "+op, "a bidirectional stack reads each row from its end, so no state passes from one segment to the next")
}

// Begin returns the initial state of a segment on the tape, as constants. Rows where
// begins, [rows] or nil, is true start again from zeros.
func (c *Carry) Begin(tape *tensor.Tape, begins []bool) *State {
	for b, begin := range begins {
		if begin {
			c.ClearRow(b)
		}
	}
	return c.On(tape)
}

// End waits for the final state of a segment and copies it.
func (c *Carry) End(final *State) { c.Save(final) }

// Checkpointing is a division of a long sequence into segments for
// [Checkpointing.Backward]: a first pass keeps the states between segments only, and
// the backward pass runs each segment again (Chen et al. 2016, along time as in Gruslys
// et al. 2016).
type Checkpointing struct {
	Steps    int   // of the whole sequence
	Segment  int   // steps of a segment
	Segments int   // number of segments
	States   int64 // bytes of the kept states
	Pass     int64 // estimated bytes of the training pass of a segment
	Whole    int64 // estimated bytes of a training pass over all steps at once

	rnns []*RNN
	rows int
}

// Recurrent is a module that [PlanCheckpointing] accepts: an [RNN] or a [Stack].
type Recurrent interface {
	rnns() []*RNN
	passFloats(rows int, precision tensor.Precision) int // numbers that a training pass keeps per step, without input and output
}

func (m *RNN) rnns() []*RNN   { return []*RNN{m} }
func (s *Stack) rnns() []*RNN { return s.Layers }

// PlanCheckpointing divides a batch of rows sequences of that number of steps through m
// so that it needs the least memory, or, if budget is above 0, into the longest segments
// that need at most budget bytes, since these run fastest. The estimates include the
// module and the loss's memory for its output, for a tape of that precision.
//
// It returns an error if rows or steps are not positive, or the least memory exceeds
// budget; the message has that number. It panics with a [*tensor.UseError] for a
// bidirectional stack.
func PlanCheckpointing(m Recurrent, rows, steps int, budget int64, precision tensor.Precision) (*Checkpointing, error) {
	rnns, state := m.rnns(), int64(0)
	for _, r := range rnns {
		r.mustCarry("PlanCheckpointing")
		state += 4 * int64(r.Layers()*rows*(r.StateSize()+r.CellSize()))
	}
	if rows < 1 || steps < 1 {
		return nil, fmt.Errorf("nn: PlanCheckpointing: needs rows and steps, got %d and %d", rows, steps)
	}
	// The input, time-major, and its gradient; the output in the caller's order, with the loss.
	step := 4 * int64(3*rows*rnns[0].in+m.passFloats(rows, precision)+4*rows*rnns[len(rnns)-1].OutputSize())
	least := int64(math.Sqrt(float64(steps) * float64(state) / float64(step)))
	p := &Checkpointing{Steps: steps, Whole: step * int64(steps), rnns: rnns, rows: rows}
	p.cut(int(max(least, 1)), state, step)
	if budget <= 0 {
		return p, nil
	}
	if p.States+p.Pass > budget {
		return nil, fmt.Errorf("nn: PlanCheckpointing: %d steps need at least %s, the budget is %s", steps, bytes(p.States+p.Pass), bytes(budget))
	}
	lo, hi := p.Segment, steps
	for lo < hi { // the longest that fits: from here on memory grows with the segment
		mid := (lo + hi + 1) / 2
		if p.cut(mid, state, step); p.States+p.Pass <= budget {
			lo = mid
		} else {
			hi = mid - 1
		}
	}
	p.cut(lo, state, step)
	return p, nil
}

func (p *Checkpointing) cut(segment int, state, step int64) {
	p.Segments = (p.Steps + segment - 1) / segment
	p.Segment = (p.Steps + p.Segments - 1) / p.Segments
	p.Segments = (p.Steps + p.Segment - 1) / p.Segment
	p.States, p.Pass = int64(p.Segments)*state, int64(p.Segment)*step
}

func (m *RNN) passFloats(rows int, precision tensor.Precision) int {
	if slices.ContainsFunc(m.Weights, func(w *tensor.Param) bool { return w.Keep32 }) {
		precision = tensor.Float32 // of one layer at least
	}
	scan := tensor.ScanFloats(m.Weights[0].Device(), m.cell, m.hidden, m.opt.Proj, m.opt.LayerNorm, rows, m.inner, precision)
	outputs := m.opt.Layers // with their gradients
	if m.opt.Residual {
		outputs += m.opt.Layers - 1
	}
	if m.opt.Dropout > 0 {
		outputs += m.opt.Layers - 1
	}
	return m.opt.Layers*m.Directions()*scan + outputs*2*rows*m.OutputSize()
}

func (s *Stack) passFloats(rows int, precision tensor.Precision) int {
	n := 0
	for i, m := range s.Layers {
		n += m.passFloats(rows, precision)
		if s.opt.Residual && m.in == m.OutputSize() {
			n += 2 * rows * m.OutputSize()
		}
		if s.opt.Dropout > 0 && i < len(s.Layers)-1 {
			n += 2 * rows * m.OutputSize()
		}
	}
	return n
}

// String describes the division, its memory and its cost.
func (p *Checkpointing) String() string {
	if p.Segments == 1 {
		return fmt.Sprintf("%d steps in one pass: %s", p.Steps, bytes(p.Pass))
	}
	return fmt.Sprintf("%d steps in %d segments of %d: %s of states and %s for a segment, %s without; every forward step is computed twice, about 1.3 times the work",
		p.Steps, p.Segments, p.Segment, bytes(p.States), bytes(p.Pass), bytes(p.Whole))
}

func bytes(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
}

// SegmentPass computes steps [lo,hi) of the model on the tape from the states from,
// and returns the loss of these steps, a tensor [1] or nil, and the states after them.
// States are one per layer of a [Stack]; an RNN has one. It is called twice for each
// segment and must do the same both times.
type SegmentPass func(tape *tensor.Tape, from []*State, lo, hi int) (loss *tensor.Tensor, to []*State)

// Backward is exact backpropagation through all steps: it returns the sum of the
// segments' losses and adds its gradients to those of the parameters, in the memory of
// the plan. The tape must be in Train mode and is reset for each segment; dropout masks
// are keyed by seed and step, and are the same in both passes.
//
// The first segment gets nil for each state, so it starts with zeros or the trained
// states. The function of the tape's OnReady is called in the last pass only, that of
// the first segment. Backward panics with a [*tensor.ShapeError] if the tape is not in
// Train mode or pass does not return a state for each layer.
func (p *Checkpointing) Backward(tape *tensor.Tape, seed, step uint64, pass SegmentPass) float64 {
	if tape.Mode() != tensor.Train {
		panic(&tensor.ShapeError{Op: "Checkpointing.Backward", Msg: "needs a tape in Train mode"})
	}
	starts := make([][]*SavedState, p.Segments)
	run := func(k int) (from []*State, loss *tensor.Tensor, to []*State) {
		tape.Reset()
		tape.Seed(seed, step*uint64(p.Segments)+uint64(k))
		from = p.start(tape, starts[k])
		loss, to = pass(tape, from, k*p.Segment, min((k+1)*p.Segment, p.Steps))
		if len(to) != len(p.rnns) {
			panic(&tensor.ShapeError{Op: "Checkpointing.Backward", Msg: fmt.Sprintf("needs the state of each of %d layers after a segment, got %d", len(p.rnns), len(to))})
		}
		return from, loss, to
	}
	for k := range p.Segments - 1 {
		_, _, to := run(k)
		for i, m := range p.rnns {
			s := m.NewSavedState(p.rows)
			s.Save(to[i])
			starts[k+1] = append(starts[k+1], s)
		}
	}
	total := 0.0
	held := tape.HoldReady(true)
	defer tape.HoldReady(held)
	grads := make([][2][]float32, len(p.rnns)) // of H and C after the segment; nil: none
	for k := p.Segments - 1; k >= 0; k-- {
		from, loss, to := run(k)
		if loss != nil {
			total += float64(loss.Item())
		}
		for i, g := range grads {
			for j, x := range []*tensor.Tensor{to[i].H, to[i].C} {
				if g[j] != nil { // a term whose gradient in the state is g[j]
					term := tensor.SumAll(tensor.Mul(x, tape.Input(g[j], x.Dims()...)))
					if loss != nil {
						term = tensor.Add(loss, term)
					}
					loss = term
				}
			}
		}
		if loss == nil && k > 0 {
			continue // neither this segment nor a later one has a loss
		}
		if loss == nil {
			loss = tape.Zeros(1) // for the tape's OnReady
		}
		tape.HoldReady(held || k > 0)
		loss.Backward()
		for i, s := range from {
			if s != nil {
				grads[i] = [2][]float32{s.H.Grad()}
				if s.C != nil {
					grads[i][1] = s.C.Grad()
				}
			}
		}
		starts[k] = nil
	}
	return total
}

// start returns the initial states of a segment.
func (p *Checkpointing) start(tape *tensor.Tape, saved []*SavedState) []*State {
	states := tape.NewStates(len(p.rnns))
	clear(states)
	for i, s := range saved {
		states[i] = s.On(tape)
		states[i].H.RequireGrad()
		if states[i].C != nil {
			states[i].C.RequireGrad()
		}
	}
	return states
}
