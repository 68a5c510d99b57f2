package tensor

import (
	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/device"
)

// Trace gives access to the gates, states and gradients of one direction of one
// recurrent layer in a training pass, for the analysis of a network. Rows are sorted
// by length, longest first; past the length of a row values are zero. A trace is
// valid until its tape's Reset; using it later panics with a [*ShapeError].
type Trace struct {
	Name     string // of the input matrix, such as "encoder.weight_ih_l0_reverse"
	Cell     cell.Kind
	T, B, H  int
	Out      int     // the width of h: H, or the width of the projection
	Reverse  bool    // the direction goes from T-1 to 0
	CellClip float32 // the limit of |c|; 0: none

	spec  *device.ScanSpec
	seq   *sequence
	tape  *Tape
	epoch uint64
}

// Trace makes a tape in Train mode keep a [Trace] of each direction of each recurrent
// layer from the next pass on, at the cost of memory.
func (t *Tape) Trace() { t.tracing = true }

// Traces returns the traces of the current pass, in the order in which the layers
// ran. The slice belongs to the tape.
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

// Length returns the number of true steps of row b, in sorted order.
func (r *Trace) Length(b int) int {
	if r.seq == nil {
		return r.T
	}
	return int(r.seq.sorted[b])
}

// Gates waits for the device and returns a copy of the gates, [T,B,G*H]: their
// activations; of an sLSTM's i and f, and of a custom cell, the values that the
// forward pass left there.
func (r *Trace) Gates() []float32 { return r.download(r.spec.TraceGates) }

// Cells waits for the device and returns a copy of the states beside h after each
// step, [T,B,C]; nil for a cell without them.
func (r *Trace) Cells() []float32 { return r.download(r.spec.TraceCells) }

// Grow makes the next Backward multiply the gradient that the states after step t of
// row b get from later steps by gains[t*B+b], before other gradients are added to it.
// Powers of two round nothing, so gradients too small for float32 can be followed. All
// gradients computed after that, also those of parameters, are scaled likewise. It
// panics with a [*ShapeError] after Backward or if gains are not T·B numbers.
func (r *Trace) Grow(gains []float32) {
	r.live()
	if r.tape.done || len(gains) != r.T*r.B {
		failf("Trace.Grow", "of %s needs %d gains before Backward, got %d", r.Name, r.T*r.B, len(gains))
	}
	r.spec.TraceGain = r.tape.arena.alloc(len(gains))
	r.tape.backend.Upload(r.spec.TraceGain, gains)
}

// Grads waits for the device and returns, after Backward, copies of the gradients of
// the states after each step: dh of h, [T,B,Out], through everything that reads it,
// and dc of the further states, [T,B,C] (nil without them), through later steps; the
// part through the h of the same step counts in dh. They are zero if the loss does not
// depend on the layer. It panics with a [*ShapeError] before Backward.
func (r *Trace) Grads() (dh, dc []float32) {
	r.live()
	if !r.tape.done {
		failf("Trace.Grads", "of %s need Backward first", r.Name)
	}
	return r.download(r.spec.TraceDH), r.download(r.spec.TraceDC)
}

func (r *Trace) download(b device.Buffer) []float32 {
	r.live()
	if b.Zero() {
		return nil
	}
	v := make([]float32, b.N)
	r.tape.backend.Download(v, b)
	return v
}

func (r *Trace) live() {
	if r.epoch != r.tape.epoch {
		failf("Trace", "the trace of %s is used after its tape was reset", r.Name)
	}
}
