package tensor

// readiness is what a tape needs to tell when gradients are complete.
type readiness struct {
	slab  *Slab
	call  func(lo, hi int)
	held  bool
	first []int // by the slab's parameters: the node that uses it first, or unused
}

const unused = -1

// OnReady has f called in each backward pass to come, once for every parameter
// of s, as soon as nothing later in the pass adds to its gradient: [lo,hi) is
// its place in [Slab.Grads]. Parameters that the pass does not use come first;
// the others follow from the network's end to its beginning, so that what f does
// with a gradient, such as sending it, can go on beside the rest of the pass. On
// a device that works on behind the caller, what f enqueues finds the gradient
// complete. f must not use the tape. A nil f ends it.
func (t *Tape) OnReady(s *Slab, f func(lo, hi int)) {
	t.ready.slab, t.ready.call = s, f
}

// HoldReady keeps the function of [Tape.OnReady] from being called until it is
// let go again, and says whether it was kept before: of several passes that add
// to one gradient, all but the last are held.
func (t *Tape) HoldReady(hold bool) (was bool) {
	was, t.ready.held = t.ready.held, hold
	return was
}

// findFirst notes which node uses each parameter first, up to the node last, and
// tells of those that none uses. On the way back that node is the last to add to
// the parameter's gradient.
func (t *Tape) findFirst(last int) {
	r := &t.ready
	r.first = r.first[:0]
	for range r.slab.Params {
		r.first = append(r.first, unused)
	}
	for i := last; i >= 0; i-- {
		n := t.nodes.at(i)
		for _, x := range n.in {
			r.note(x, i)
		}
		for _, x := range n.state {
			r.note(x, i)
		}
	}
	for k, i := range r.first {
		if i == unused {
			r.call(r.slab.Range(k))
		}
	}
}

func (r *readiness) note(x *Tensor, node int) {
	if p := r.paramOf(x); p != nil {
		r.first[p.index] = node
	}
}

// paramOf is the slab's parameter whose gradient x's is, or is a part of; nil: none.
func (r *readiness) paramOf(x *Tensor) *Param {
	if x == nil {
		return nil
	}
	p := x.param
	if p == nil {
		p = x.within
	}
	if p == nil || p.slab != r.slab {
		return nil
	}
	return p
}

// tellReady tells of the parameters that node i, just passed, was the first to use.
func (t *Tape) tellReady(i int, n *node) {
	for _, x := range n.in {
		t.ready.tell(x, i)
	}
	for _, x := range n.state {
		t.ready.tell(x, i)
	}
}

func (r *readiness) tell(x *Tensor, node int) {
	if p := r.paramOf(x); p != nil && r.first[p.index] == node {
		r.first[p.index] = unused // a node may hold a parameter twice
		r.call(r.slab.Range(p.index))
	}
}
