package graph

import (
	"context"
	"slices"
	"sync"

	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/tensor"
)

// The first run for new shapes of the inputs is recorded: operators decide shapes,
// take memory, and pass their arithmetic to run.do, which executes and keeps it.
// Later runs with these shapes only execute what was kept, in the same memory.

const (
	maxSteps     = 1 << 16   // of a recording that is kept
	maxIdle      = 64        // recordings that wait for a run, of all shapes and callers
	maxIdleBytes = 256 << 20 // their memory
	stepBytes    = 256       // about the memory of a step with what its function refers to
	maxHints     = 64
	maxTapes     = 8 // that wait for a run: more runs at once than these are rare
)

// plan is a recorded run. One goroutine at a time may use it. It has a tape only meanwhile:
// nothing of a tape outlives a step, and one is larger than all else of a small graph.
type plan struct {
	m       *Model
	run     *run     // functions of the recording refer to it
	in, out []*value // in the order of the model's inputs and outputs
	given   []Value  // out, for the caller of Apply
	steps   []step
	hints   []int64 // the elements of the integer inputs of the last run, if they are few
	buffers int
	bytes   int             // of the buffers
	once    bool            // it cannot be replayed
	ctx     context.Context // of the run that uses it
}

// stopped is the panic of a run that is not wanted any more, with the error of its context.
type stopped struct{ why error }

// goOn ends the run, if its context has ended. Without a plan, as while constants are
// computed, there is none.
func (p *plan) goOn() {
	if p == nil {
		return
	}
	if err := p.ctx.Err(); err != nil {
		panic(stopped{err})
	}
}

// step is arithmetic of a node or, without f, elements that must be those of the
// recorded run, because they decided a shape or which nodes run.
type step struct {
	n    *node
	f    func()
	tape bool // it uses the tape, which is reset before
	have *value
	want *value
}

// same reports whether the elements are those of the recorded run.
func (s *step) same() bool {
	return slices.Equal(s.have.ints, s.want.ints) && slices.Equal(s.have.host, s.want.host)
}

func (p *plan) add(s step) {
	if len(p.steps) == maxSteps {
		p.once, p.steps = true, nil
	}
	if !p.once {
		p.steps = append(p.steps, s)
	}
}

// fits reports whether inputs have the shapes of the recording.
func (p *plan) fits(in []Value) bool {
	for i, v := range in {
		own := p.in[i]
		if !slices.Equal(v.Dims, own.dims) || len(v.Data) != len(own.host) || len(v.Ints) != len(own.ints) {
			return false
		}
	}
	return true
}

// expects reports whether the integer inputs are those of the last run.
func (p *plan) expects(in []Value) bool {
	at := 0
	for _, v := range in {
		if at+len(v.Ints) > len(p.hints) || !slices.Equal(p.hints[at:at+len(v.Ints)], v.Ints) {
			return false
		}
		at += len(v.Ints)
	}
	return true
}

// fill copies the inputs to the recording's memory.
func (p *plan) fill(in []Value) {
	p.hints = p.hints[:0]
	for i, v := range in {
		own := p.in[i]
		simd.Best().Flush(own.host, v.Data)
		for j, x := range v.Ints {
			if own.kind == bools {
				x = truth(x != 0)
			}
			own.ints[j] = narrow(own.dtype, x)
		}
		if len(p.hints)+len(v.Ints) <= maxHints {
			p.hints = append(p.hints, v.Ints...)
		}
	}
}

// replay runs the recording on other inputs of the same shapes; ok is false if
// elements of these inputs decide shapes and are others than those recorded.
func (p *plan) replay(in []Value) (ok bool, err error) {
	at := 0
	defer func() {
		if r := recover(); r != nil {
			err = p.m.caught(p.steps[at].n, r)
		}
	}()
	p.fill(in)
	for at = range p.steps {
		p.goOn()
		s := &p.steps[at]
		if s.f == nil {
			if !s.same() {
				return false, nil
			}
			continue
		}
		if s.tape {
			p.run.tape.Reset()
		}
		s.f()
	}
	return true, nil
}

// size returns the memory of a recording in bytes.
func (p *plan) size() int {
	return p.bytes + len(p.steps)*stepBytes
}

// plans are the recordings of a model that no run uses, the latest used last.
type plans struct {
	mu   sync.Mutex
	idle []*plan
	size int // of these

	tapes     []*tensor.Tape
	tapeBytes int
}

// tape takes a tape for a run.
func (c *plans) tape(dev *tensor.Device) *tensor.Tape {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := len(c.tapes) - 1
	if last < 0 {
		return tensor.NewTape(dev, tensor.Infer)
	}
	t := c.tapes[last]
	c.tapes = slices.Delete(c.tapes, last, last+1)
	c.tapeBytes -= int(t.Bytes())
	return t
}

// keepTape keeps a tape for a later run, if there are few and they are not large.
func (c *plans) keepTape(t *tensor.Tape) {
	if size := int(t.Bytes()); len(c.tapes) < maxTapes && c.tapeBytes+size <= maxIdleBytes {
		c.tapes = append(c.tapes, t)
		c.tapeBytes += size
	}
}

// take removes a recording for the inputs' shapes and returns it, nil if there is
// none: the one whose last integers were the same, or else the latest used.
func (c *plans) take(in []Value) *plan {
	c.mu.Lock()
	defer c.mu.Unlock()
	best := -1
	for i := len(c.idle) - 1; i >= 0; i-- {
		if p := c.idle[i]; p.fits(in) {
			if p.expects(in) {
				best = i
				break
			}
			best = max(best, i)
		}
	}
	if best < 0 {
		return nil
	}
	p := c.idle[best]
	c.idle = slices.Delete(c.idle, best, best+1)
	c.size -= p.size()
	return p
}

// put keeps a recording, and the tape that it was used with, and drops the ones that were used
// longest ago, if there are too many or they are too large.
func (c *plans) put(p *plan) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.run.tape != nil {
		c.keepTape(p.run.tape)
	}
	p.ctx, p.run.tape = nil, nil
	if p.once || p.size() > maxIdleBytes {
		return
	}
	c.idle = append(c.idle, p)
	c.size += p.size()
	for len(c.idle) > maxIdle || c.size > maxIdleBytes {
		c.size -= c.idle[0].size()
		c.idle = slices.Delete(c.idle, 0, 1)
	}
}

// compute runs the model on inputs in the order of the graph and returns the
// recording that holds the outputs, to be given back to m.plans. It ends with ctx.
func (m *Model) compute(ctx context.Context, in []Value) (*plan, error) {
	var others []*plan // of the same shapes, but with other integers
	defer func() {
		for _, p := range others {
			m.plans.put(p)
		}
	}()
	tape := m.plans.tape(m.dev)
	for p := m.plans.take(in); p != nil; p = m.plans.take(in) {
		p.ctx, p.run.tape = ctx, tape
		ok, err := p.replay(in)
		if ok {
			return p, nil
		}
		if err != nil {
			m.plans.put(p)
			return nil, err
		}
		p.run.tape = nil
		others = append(others, p)
	}
	return m.record(ctx, tape, in)
}

// record runs the model and keeps what it does.
func (m *Model) record(ctx context.Context, tape *tensor.Tape, in []Value) (_ *plan, err error) {
	p := &plan{m: m, ctx: ctx}
	r := &run{m: m, plan: p, tape: tape, vals: slices.Clone(m.constants), left: m.budget}
	defer func() {
		if problem := recover(); problem != nil {
			err = m.caught(r.at, problem)
		}
		*r = run{m: m, tape: tape}
		if err != nil {
			p.once = true
			m.plans.put(p)
		}
	}()
	p.run = r
	if err := r.begin(in); err != nil {
		return nil, err
	}
	for _, n := range m.running {
		r.step(n)
	}
	for i, info := range m.outputs {
		v := r.vals[m.outSlots[i]]
		if v == nil {
			return nil, m.badf("output %q was not made", clip(info.Name))
		}
		p.out = append(p.out, v)
	}
	return p, nil
}

// buffer is memory of a run, which several values may share. It is given back
// after its last use, and other nodes use it again.
type buffer struct {
	floats []float32
	ints   []int64
	varies bool // its elements depend on those of the inputs
	refs   int  // slots with values in it
	free   bool
}

// alloc returns a buffer for a number of elements with unspecified contents. What
// does not depend on the inputs' elements is computed only once, so its memory is
// not one that others use.
func (r *run) alloc(k kind, size int) *buffer {
	pool := &r.idleInts
	if k == floats {
		pool = &r.idleFloats
	}
	best := -1
	for i, b := range *pool {
		c := cap(b.floats) + cap(b.ints)
		if r.varies && c >= size && c <= 2*size+64 && (best < 0 || c < cap((*pool)[best].floats)+cap((*pool)[best].ints)) {
			best = i
		}
	}
	b := &buffer{varies: r.varies}
	switch {
	case best >= 0:
		b = (*pool)[best]
		*pool = slices.Delete(*pool, best, best+1)
		b.free = false
	case k == floats:
		b.floats = make([]float32, size)
	default:
		b.ints = make([]int64, size)
	}
	if best < 0 && r.plan != nil {
		r.plan.buffers++
		r.plan.bytes += 4*len(b.floats) + 8*len(b.ints)
	}
	r.made = append(r.made, b)
	return b
}

// give makes a buffer available to later nodes.
func (r *run) give(b *buffer) {
	switch {
	case !b.varies || b.free:
	case b.floats != nil:
		b.free, r.idleFloats = true, append(r.idleFloats, b)
	default:
		b.free, r.idleInts = true, append(r.idleInts, b)
	}
}

// set stores the value of a slot; nil if it is not read any more.
func (r *run) set(slot int, v *value) {
	old := r.vals[slot]
	r.vals[slot] = v
	r.hold(v)
	r.drop(old)
}

// hold keeps the memory of a value until drop is called for it.
func (r *run) hold(v *value) {
	if v != nil && v.buf != nil {
		v.buf.refs++
	}
}

func (r *run) drop(v *value) {
	if v == nil || v.buf == nil {
		return
	}
	if v.buf.refs--; v.buf.refs == 0 {
		r.give(v.buf)
	}
}

// lifetimes lists in each node the slots that are not read after it, of those that
// this graph makes and that are not its outputs. It returns the slots of outer graphs
// that are read and, of ins and outs, those that this graph makes.
func lifetimes(nodes []*node, ins, outs []int) (outer, ends []int) {
	own, seen := map[int]bool{}, map[int]bool{}
	for _, slot := range ins {
		own[slot] = true
	}
	for _, n := range nodes {
		for _, slot := range n.out {
			own[slot] = true
		}
	}
	for _, slot := range outs {
		seen[slot] = true
	}
	for _, n := range slices.Backward(nodes) {
		used := slices.Concat(n.in, n.out)
		for _, b := range n.branches {
			var reads []int
			reads, b.own = lifetimes(b.nodes, b.ins, b.outs)
			used = append(used, reads...)
		}
		n.dead = nil
		for _, slot := range used {
			if slot >= 0 && !seen[slot] && own[slot] {
				n.dead = append(n.dead, slot)
			}
			seen[slot] = true
		}
	}
	for slot := range seen {
		if slot >= 0 && !own[slot] {
			outer = append(outer, slot)
		}
	}
	slices.Sort(outer)
	for _, slot := range slices.Concat(ins, outs) {
		if own[slot] {
			ends = append(ends, slot)
		}
	}
	return outer, ends
}
