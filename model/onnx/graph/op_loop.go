package graph

import (
	"math"
	"slices"
)

// stepCost is what a node of a loop's body counts as elements of a run at each step,
// because loops without an end, or with one far away, would take time and not memory.
const stepCost = 1 << 8

// prepareLoop checks that the body takes the number of the step, the condition and the
// states, and makes the next condition, the states and what is collected.
func prepareLoop(_ *Model, n *node) any {
	b := n.branches[0]
	if len(b.ins) < 2 || len(b.ins) != max(len(n.in), 2) || len(b.outs) < len(b.ins)-1 || slices.Contains(n.in[min(len(n.in), 2):], -1) {
		n.failf("it has %d inputs and %d outputs, and its body %d and %d", len(n.in), len(n.out), len(b.ins), len(b.outs))
	}
	return nil
}

func runLoop(r *run, n *node, in []*value) []*value {
	body, most := n.branches[0], int64(math.MaxInt64)
	if len(in) > 0 && in[0] != nil {
		if in[0].len() != 1 {
			n.failf("the number of steps has shape %s", shape(in[0].dims))
		}
		most = r.fixed(n, in[0], "the number of steps")[0]
	}
	condition := &value{kind: bools, dtype: typeBool, ints: []int64{1}}
	if len(in) > 1 && in[1] != nil {
		condition = in[1]
	}
	states := slices.Clone(in[min(len(in), 2):])
	collected := make([][]*value, len(body.outs)-1-len(states))
	for k := int64(0); k < most; k++ {
		if condition.kind != bools || condition.len() != 1 {
			n.failf("its condition must be one boolean, got %s of shape %s", condition.kind, shape(condition.dims))
		}
		if r.fixed(n, condition, "the condition")[0] == 0 {
			break
		}
		if r.left < stepCost*(1+len(body.nodes)) {
			n.failf("its %d steps so far and what they made are too much", k)
		}
		r.left -= stepCost * (1 + len(body.nodes))
		number := &value{kind: ints, dtype: typeInt64, ints: []int64{k}}
		out := r.body(body, slices.Concat([]*value{number, condition}, states))
		for i, v := range out {
			if v == nil {
				n.failf("output %d of its body was not made", i)
			}
			if i > len(states) {
				r.hold(v)
				list := &collected[i-1-len(states)]
				*list = append(*list, v)
			}
		}
		condition = out[0]
		copy(states, out[1:])
	}
	for i, list := range collected {
		if len(list) == 0 {
			n.failf("output %d collects the results of its steps, and it has no step", len(states)+i)
		}
		var all *value
		for k, v := range list {
			r.stack(n, &all, v, k, len(list))
			r.drop(v)
		}
		states = append(states, all)
	}
	return states
}
