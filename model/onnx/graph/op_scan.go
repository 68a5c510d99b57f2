package graph

import "slices"

// scanLoop is a Scan node: its body runs once per step of the scanned inputs,
// with states passed from step to step.
type scanLoop struct {
	states  int    // how many of the inputs, and of the outputs, are states
	backIn  []bool // of the scanned inputs: from the last step to the first
	backOut []bool // of the scanned outputs likewise
}

func prepareScan(_ *Model, n *node) any {
	b := n.branches[0]
	scanned := n.intAttr("num_scan_inputs", 0)
	if n.opset < 9 {
		n.failf("a Scan of operator set 8 is not supported; export the model with operator set 17")
	}
	if scanned < 1 || scanned > int64(len(n.in)) || len(b.ins) != len(n.in) || slices.Contains(n.in, -1) {
		n.failf("it scans %d of %d inputs, and its body has %d", scanned, len(n.in), len(b.ins))
	}
	s := &scanLoop{states: len(n.in) - int(scanned)}
	if len(b.outs) != len(n.out) || len(b.outs) < s.states {
		n.failf("it has %d outputs, and its body %d for %d states", len(n.out), len(b.outs), s.states)
	}
	for _, axes := range []string{"scan_input_axes", "scan_output_axes"} {
		if slices.ContainsFunc(n.intsAttr(axes), func(axis int64) bool { return axis != 0 }) {
			n.failf("%s other than 0 are not supported", axes)
		}
	}
	s.backIn = n.directions("scan_input_directions", int(scanned))
	s.backOut = n.directions("scan_output_directions", len(b.outs)-s.states)
	return s
}

func (n *node) directions(name string, count int) []bool {
	list := n.intsAttr(name)
	if list != nil && len(list) != count {
		n.failf("%s has %d entries, expected %d", name, len(list), count)
	}
	back := make([]bool, count)
	for i, d := range list {
		back[i] = d != 0
	}
	return back
}

func runScan(r *run, n *node, in []*value) []*value {
	s := n.prepared.(*scanLoop)
	states, scanned := slices.Clone(in[:s.states]), in[s.states:]
	T := scanned[0].steps(n)
	for _, v := range scanned {
		if v.steps(n) != T {
			n.failf("its scanned inputs have %d and %d steps", T, v.steps(n))
		}
	}
	if T == 0 {
		n.failf("it has no step")
	}
	body := n.branches[0]
	r.spend(n, []int{T, 1 + len(body.nodes)}) // steps cost time even where they make little
	made := make([]*value, len(s.backOut))
	for k := range T {
		step := slices.Clone(states)
		for i, v := range scanned {
			step = append(step, v.at(turn(k, T, s.backIn[i])))
		}
		for i, v := range r.body(body, step) {
			switch {
			case v == nil:
				n.failf("output %d of its body was not made", i)
			case i >= s.states:
				r.stack(n, &made[i-s.states], v, turn(k, T, s.backOut[i-s.states]), T)
			case v.kind != states[i].kind || !slices.Equal(v.dims, states[i].dims):
				n.failf("state %d changes from shape %s to %s", i, shape(states[i].dims), shape(v.dims))
			default:
				states[i] = v
			}
		}
	}
	return append(states, made...)
}

// turn returns the index of the k-th of T steps.
func turn(k, T int, back bool) int {
	if back {
		return T - 1 - k
	}
	return k
}

// steps returns the first dimension.
func (v *value) steps(n *node) int {
	if v.rank() == 0 {
		n.failf("a scanned input has no dimensions")
	}
	return v.dims[0]
}

// at returns element i of the first dimension; the elements are shared.
func (v *value) at(i int) *value {
	dims := v.dims[1:]
	return v.part(dims, i*product(dims))
}

// stack writes v as element k of T along a new first dimension of all, which it makes
// for the first one.
func (r *run) stack(n *node, all **value, v *value, k, T int) {
	dims := append([]int{T}, v.dims...)
	if *all == nil {
		*all = r.newLike(n, v, dims)
	}
	out := *all
	if v.kind != out.kind || !slices.Equal(out.dims, dims) {
		n.failf("a scanned output changes from shape %s to %s", shape(out.dims[1:]), shape(v.dims))
	}
	to := out.at(k)
	r.do(func() {
		copy(to.host, v.host)
		copy(to.ints, v.ints)
	})
}
