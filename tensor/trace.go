package tensor

import (
	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/device"
)

// Trace is what one direction of one recurrent layer did in a training pass:
// for looking into a network, not for computing with. Rows stand longest first;
// where a row has ended there are zeros.
type Trace struct {
	Name     string // of the input matrix, such as "encoder.weight_ih_l0_reverse"
	Cell     cell.Kind
	T, B, H  int
	Out      int     // the width of h: H, or that of a projection
	Reverse  bool    // the direction goes from T-1 to 0
	CellClip float32 // the layer's limit of c; 0: none

	spec  *device.ScanSpec
	seq   *sequence
	tape  *Tape
	epoch uint64
}

// Trace makes the tape, one in Train mode, keep a [Trace] of each direction of
// each recurrent layer from the next pass on. Training does not need it, and
// it takes memory.
func (t *Tape) Trace() { t.tracing = true }

// Traces are those of the pass so far, in the order in which the layers ran.
func (t *Tape) Traces() []*Trace { return t.traces }

// trace prepares the trace of a recorded scan.
func (t *Tape) trace(s *device.ScanSpec, x, w *Tensor) {
	r := &Trace{Cell: s.Cell, T: s.T, B: s.B, H: s.H, Out: s.Out(), Reverse: s.Reverse, CellClip: s.CellClip, spec: s, seq: x.seq, tape: t, epoch: t.epoch}
	if w.param != nil {
		r.Name = w.param.Name
	}
	for _, b := range [...]struct {
		to    *device.Buffer
		width int
	}{{&s.TraceGates, s.GateWidth()}, {&s.TraceCells, s.CellWidth()}, {&s.TraceDH, s.Out()}, {&s.TraceDC, s.CellWidth()}} {
		*b.to = t.arena.alloc(s.T * s.B * b.width)
		t.backend.Fill(*b.to, 0)
	}
	t.traces = append(t.traces, r)
}

// Length is the number of true steps of row b.
func (r *Trace) Length(b int) int {
	if r.seq == nil {
		return r.T
	}
	return int(r.seq.sorted[b])
}

// Gates waits for and copies what the gates held, [T,B,G*H]: activations (of an
// sLSTM's i and f, and of a custom cell, whatever its Forward left).
func (r *Trace) Gates() []float32 {
	r.live()
	return r.download(r.spec.TraceGates)
}

// Cells waits for and copies the states beside h after each step, [T,B,C]; nil
// for a cell without them.
func (r *Trace) Cells() []float32 {
	r.live()
	return r.download(r.spec.TraceCells)
}

// Grow makes the Backward that follows multiply what later steps hand back to the
// states after step t of row b by gains[t*B+b], before anything else is added
// there: with powers of two nothing is rounded, and gradients too small for
// float32 can be followed by growing them on the way. The gradients of everything
// that comes later on the way back, parameters as well, are then grown too.
func (r *Trace) Grow(gains []float32) {
	r.live()
	if r.tape.done || len(gains) != r.T*r.B {
		failf("Trace.Grow", "of %s needs %d gains before Backward, got %d", r.Name, r.T*r.B, len(gains))
	}
	r.spec.TraceGain = r.tape.arena.alloc(len(gains))
	r.tape.backend.Upload(r.spec.TraceGain, gains)
}

// Grads waits for and copies, after Backward, the gradients of the states after
// each step: of h, [T,B,Out], through everything that reads it; and of the
// further states, [T,B,C] (nil without them), through the steps that follow. What
// a cell's own h reads of c counts in the gradient of that h. A loss that this
// layer has no part in leaves zeros.
func (r *Trace) Grads() (dh, dc []float32) {
	r.live()
	if !r.tape.done {
		failf("Trace.Grads", "of %s need Backward first", r.Name)
	}
	return r.download(r.spec.TraceDH), r.download(r.spec.TraceDC)
}

func (r *Trace) download(b device.Buffer) []float32 {
	if b.Zero() {
		return nil
	}
	v := make([]float32, b.N)
	r.tape.backend.Download(v, b)
	return v
}

func (r *Trace) live() {
	if r.epoch != r.tape.epoch {
		failf("Trace", "that of %s is used after its tape was reset", r.Name)
	}
}
