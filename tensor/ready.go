package tensor

import "cmp"

// readiness is what a tape needs to report complete gradients.
type readiness struct {
	slab  *Slab
	call  func(lo, hi int)
	held  bool
	first []int // by the slab's parameters: the node that uses it first, or unused
}

const unused = -1

// OnReady makes each later backward pass call f once for every parameter of s, as
// soon as nothing later in the pass adds to its gradient; [lo,hi) is the range of
// the parameter in [Slab.Grads]. Parameters that the pass does not use come first;
// the others follow from the network's end to its beginning, so f can start to send
// a gradient while the rest of the pass runs. On a device that runs ahead of the
// host, work that f enqueues finds the gradient complete. f must not use the tape.
// A nil f removes the function.
func (t *Tape) OnReady(s *Slab, f func(lo, hi int)) {
	t.ready.slab, t.ready.call = s, f
}

// HoldReady suspends the calls of the function of [Tape.OnReady], or resumes them if
// hold is false, and reports whether they were suspended before. Where several passes
// add to one gradient, suspend all but the last.
func (t *Tape) HoldReady(hold bool) (was bool) {
	was, t.ready.held = t.ready.held, hold
	return was
}

// findFirst finds the node, up to last, that uses each parameter first: in the
// backward pass it is the last one to add to the parameter's gradient. It reports
// the parameters that no node uses.
func (t *Tape) findFirst(last int) {
	r := &t.ready
	r.first = r.first[:0]
	for range r.slab.Params {
		r.first = append(r.first, unused)
	}
	for i := last; i >= 0; i-- {
		for _, x := range t.nodes.at(i).in {
			if p := r.paramOf(x); p != nil {
				r.first[p.index] = i
			}
		}
	}
	for k, i := range r.first {
		if i == unused {
			r.call(r.slab.Range(k))
		}
	}
}

// reportReady reports the parameters that node i, whose backward pass is done, was
// the first to use.
func (t *Tape) reportReady(i int, n *node) {
	r := &t.ready
	for _, x := range n.in {
		if p := r.paramOf(x); p != nil && r.first[p.index] == i {
			r.first[p.index] = unused // a node may hold a parameter twice
			r.call(r.slab.Range(p.index))
		}
	}
}

// paramOf returns the slab's parameter to whose gradient x's belongs, or nil.
func (r *readiness) paramOf(x *Tensor) *Param {
	if x == nil {
		return nil
	}
	if p := cmp.Or(x.param, x.within); p != nil && p.slab == r.slab {
		return p
	}
	return nil
}
