package nn

import (
	"fmt"
	"math"

	"github.com/carousel-ml/carousel/tensor"
)

// Carry passes the state of a stack from one segment of its streams to the next.
type Carry struct{ SavedState }

// NewCarry begins with zeros for rows streams. A bidirectional stack panics: it
// reads each row from its end, so its state cannot come from the segment before.
func NewCarry(m *RNN, rows int) *Carry {
	m.mustCarry("Carry")
	return &Carry{*m.NewSavedState(rows)}
}

func (m *RNN) mustCarry(op string) {
	if m.opt.Bidirectional {
		panic("nn: " + op + ": a bidirectional stack reads each row from its end, so no state passes from one segment to the next")
	}
}

// Begin is the state a segment begins with; rows of begins (nil: none) start anew.
func (c *Carry) Begin(tape *tensor.Tape, begins []bool) *State {
	for b, begin := range begins {
		if begin {
			c.ClearRow(b)
		}
	}
	return c.On(tape)
}

// End takes over the state after a segment, as constants.
func (c *Carry) End(final *State) { c.Save(final) }

// TimePlan is how [TimePlan.Backward] cuts a long sequence: a first pass keeps
// the states between segments, and the way back runs each segment again (Chen et
// al. 2016, over time as Gruslys et al. 2016).
type TimePlan struct {
	Steps    int   // of the whole sequence
	Segment  int   // steps of a segment
	Segments int   // and how many
	States   int64 // bytes of the states kept
	Pass     int64 // bytes of one segment's training pass, estimated
	Whole    int64 // bytes of a training pass over all steps at once, estimated

	m    *RNN
	rows int
}

// PlanTime chooses the segment for rows sequences of steps steps through m that
// needs the least memory. budget, if above 0, is the bytes the plan may use: the
// longest segment that fits is taken, since long ones run best. The estimates
// cover the stack itself, with the loss's share of its output; a budget that
// cannot be kept is an error that says how much is needed.
func PlanTime(m *RNN, rows, steps int, budget int64) (*TimePlan, error) {
	m.mustCarry("PlanTime")
	if rows < 1 || steps < 1 {
		return nil, fmt.Errorf("nn: PlanTime: needs rows and steps, got %d and %d", rows, steps)
	}
	state := 4 * int64(m.Layers()*rows*(m.StateSize()+m.CellSize()))
	step := m.passBytes(rows)
	least := int64(math.Sqrt(float64(steps) * float64(state) / float64(step)))
	p := &TimePlan{Steps: steps, Whole: step * int64(steps), m: m, rows: rows}
	p.cut(int(max(least, 1)), state, step)
	if budget <= 0 {
		return p, nil
	}
	if p.States+p.Pass > budget {
		return nil, fmt.Errorf("nn: PlanTime: %d steps need at least %s, the budget is %s", steps, bytes(p.States+p.Pass), bytes(budget))
	}
	lo, hi := p.Segment, steps
	for lo < hi { // the longest that fits: memory grows with the segment from here on
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

func (p *TimePlan) cut(segment int, state, step int64) {
	p.Segments = (p.Steps + segment - 1) / segment
	p.Segment = (p.Steps + p.Segments - 1) / p.Segments
	p.Segments = (p.Steps + p.Segment - 1) / p.Segment
	p.States, p.Pass = int64(p.Segments)*state, int64(p.Segment)*step
}

// passBytes is what a training pass keeps for each step.
func (m *RNN) passBytes(rows int) int64 {
	n := 3 * rows * m.in // the input, time-major, and its gradient
	width := m.in
	for range m.opt.Layers {
		n += tensor.ScanFloats(m.cell, m.hidden, m.opt.Proj, m.opt.LayerNorm, rows, m.cellOptions())
		n += 2 * rows * m.OutputSize() // the output and its gradient
		width = m.OutputSize()
	}
	return 4 * int64(n+4*rows*width) // the output in the caller's order, with the loss
}

// String tells the plan's memory and what it costs.
func (p *TimePlan) String() string {
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

// SegmentPass computes steps [lo,hi) of the model from a state: the loss these
// steps add, one element (nil: none), and the state after them. It is called
// twice for each segment and must do the same both times.
type SegmentPass func(tape *tensor.Tape, from *State, lo, hi int) (loss *tensor.Tensor, to *State)

// Backward is exact backpropagation through all steps: it returns the sum of the
// segments' losses and adds their gradients to the parameters', in the memory of
// the plan. The tape must be one in Train mode and is reset for each segment;
// dropout draws by its seed, the same in both passes.
//
// The first segment gets no state, so that it begins with zeros or the trained one.
func (p *TimePlan) Backward(tape *tensor.Tape, seed, step uint64, pass SegmentPass) float64 {
	if tape.Mode() != tensor.Train {
		panic(&tensor.ShapeError{Op: "TimePlan.Backward", Msg: "needs a tape in Train mode"})
	}
	begin := func(k int) (lo, hi int) {
		tape.Reset()
		tape.Seed(seed, step*uint64(p.Segments)+uint64(k))
		return k * p.Segment, min((k+1)*p.Segment, p.Steps)
	}
	starts := make([]*SavedState, p.Segments)
	for k := range p.Segments - 1 {
		lo, hi := begin(k)
		_, to := pass(tape, p.start(tape, starts[k]), lo, hi)
		starts[k+1] = p.m.NewSavedState(p.rows)
		starts[k+1].Save(to)
	}
	total := 0.0
	var dh, dc []float32 // of the state after the segment
	for k := p.Segments - 1; k >= 0; k-- {
		lo, hi := begin(k)
		from := p.start(tape, starts[k])
		loss, to := pass(tape, from, lo, hi)
		if loss != nil {
			total += float64(loss.Item())
		}
		loss = withStateGrad(tape, loss, to.H, dh)
		loss = withStateGrad(tape, loss, to.C, dc)
		if loss == nil {
			continue // nothing after this segment counts, nor does it
		}
		loss.Backward()
		if starts[k] != nil {
			dh, dc = from.H.Grad(), nil
			if from.C != nil {
				dc = from.C.Grad()
			}
			starts[k] = nil
		}
	}
	return total
}

func (p *TimePlan) start(tape *tensor.Tape, s *SavedState) *State {
	if s == nil {
		return nil
	}
	state := s.On(tape)
	state.H.RequireGrad()
	if state.C != nil {
		state.C.RequireGrad()
	}
	return state
}

// withStateGrad adds to the loss a term whose gradient in state is d.
func withStateGrad(tape *tensor.Tape, loss, state *tensor.Tensor, d []float32) *tensor.Tensor {
	if d == nil || state == nil {
		return loss
	}
	term := tensor.SumAll(tensor.Mul(state, tape.Input(d, state.Dims()...)))
	if loss == nil {
		return term
	}
	return tensor.Add(loss, term)
}
