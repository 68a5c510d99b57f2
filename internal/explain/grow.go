package explain

import (
	"fmt"
	"math"
	"slices"

	"github.com/carousel-ml/carousel/tensor"
)

// A gradient that halves in each step is too small for float32 after about 120
// steps. To measure it further back the pass is run again, with the gradient scaled
// on its way back by powers of two, which round nothing: the backward pass is linear
// in the gradient at its beginning, so the result divided by the scale is that of a
// float32 with a larger range of exponents.
//
// The scale is set for each step of each row, and is the same for all layers of a
// stack, so that the gradient that a layer passes down at a step has the scale of
// the layer below. This fails if a gradient that is not scaled is added on the way,
// from a loss or another stack, at a step where the gradient is small. So a pass is
// used only if it agrees with what earlier passes measured accurately.

// The norms of a row's gradient as float32 holds it, as logarithms to base 2.
const (
	aim  = -30.0  // where grown gradients are kept
	sure = -100.0 // down to here all digits are there
	most = 100.0  // further up sums overflow

	agree      = 2e-5 // by which two passes may differ where both are sure
	mostPasses = 40
	rateSteps  = 100 // steps from which the rate of those further back is guessed
)

// told is the least gradient that is measured, as a logarithm to base 2.
var told = math.Log2(smallest)

var nothing = math.Inf(-1)

// path is the measured gradient of one direction of one layer. Steps and rows are
// in the order of its trace, [T,B].
type path struct {
	T, B    int
	lengths []int
	reverse bool

	// Logarithms to base 2 of the norm of a row's gradient after a step: in h and c
	// together, in h, in c; nothing if it is zero or unknown. level is that of state
	// as it was in float32, scaled.
	state, h, c, level []float64
	cells              bool // whether there is a c
	lost               bool // whether scaled passes contradict earlier ones
}

func newPath(r *tensor.Trace) *path {
	p := &path{T: r.T, B: r.B, reverse: r.Reverse}
	for b := range r.B {
		p.lengths = append(p.lengths, r.Length(b))
	}
	for _, v := range []*[]float64{&p.state, &p.h, &p.c, &p.level} {
		*v = filled(r.T*r.B, nothing)
	}
	return p
}

func filled(n int, v float64) []float64 {
	s := make([]float64, n)
	for i := range s {
		s[i] = v
	}
	return s
}

// at returns the index of row b, k steps before its last in the layer's
// direction.
func (p *path) at(b, k int) int {
	if p.reverse {
		return k*p.B + b
	}
	return (p.lengths[b]-1-k)*p.B + b
}

// rows calls f with the indices of each row's steps, the last step first.
func (p *path) rows(f func(b int, places []int)) {
	places := make([]int, 0, p.T)
	for b, n := range p.lengths {
		places = places[:0]
		for k := range n {
			places = append(places, p.at(b, k))
		}
		f(b, places)
	}
}

// see adds the gradients of a pass, scaled by powers of two growth (nil: 0), and
// reports whether more of them are accurate than before.
func (p *path) see(r *tensor.Trace, growth []int) (more bool) {
	dh, dc := r.Grads()
	h, c := p.norms(dh), p.norms(dc)
	p.cells = dc != nil
	if growth != nil && !p.agrees(h, c, growth) {
		p.lost = true
		return false
	}
	for i := range p.state {
		level, grown, limit := either(h[i], c[i]), 0.0, math.Inf(1)
		if growth != nil {
			grown, limit = float64(growth[i]), most
		}
		if !(level >= told && level <= limit) || p.level[i] >= sure && level < sure {
			continue
		}
		more = more || level >= sure && p.level[i] < sure
		p.level[i], p.state[i], p.h[i], p.c[i] = level, level-grown, h[i]-grown, c[i]-grown
	}
	return more
}

// agrees compares a scaled pass with accurate gradients. A row without a gradient
// must have none: a gradient that appears was too small for float32 before.
func (p *path) agrees(h, c []float64, growth []int) (ok bool) {
	ok = true
	p.rows(func(_ int, places []int) {
		dark, empty := true, true
		for _, i := range places {
			level := either(h[i], c[i])
			dark, empty = dark && p.state[i] == nothing, empty && level == nothing
			want := p.state[i] + float64(growth[i])
			if p.level[i] >= sure && want > sure+1 && !(math.Abs(level-want) <= agree) {
				ok = false
			}
		}
		ok = ok && (!dark || empty)
	})
	return ok
}

// norms returns those of each row after each step of d [T,B,width].
func (p *path) norms(d []float32) []float64 {
	n := filled(p.T*p.B, nothing)
	width := len(d) / max(1, len(n))
	for i := range n {
		sum := 0.0
		for _, v := range d[i*width : (i+1)*width] {
			sum += float64(v) * float64(v)
		}
		n[i] = math.Log2(sum) / 2
	}
	return n
}

// either returns the logarithm of the norm of two vectors whose norms have
// logarithms a and b.
func either(a, b float64) float64 {
	low, high := min(a, b), max(a, b)
	if low == nothing || math.IsInf(high, 1) {
		return high
	}
	return high + math.Log2(1+math.Exp2(2*(low-high)))/2
}

// missing reports whether some gradient is not accurate.
func (p *path) missing() (found bool) {
	p.rows(func(_ int, places []int) {
		entered := false
		for _, i := range places {
			entered = entered || p.state[i] != nothing
			found = found || entered && p.level[i] < sure
		}
	})
	return found
}

// guess raises sizes to the logarithms of the path's gradients: accurate ones as
// they are, and those further back extrapolated at the same rate.
func (p *path) guess(sizes []float64) {
	p.rows(func(_ int, places []int) {
		first, last, rate := -1, -1, 0.0 // of a run of steps that are sure
		for k, i := range places {
			v := p.state[i]
			switch {
			case p.level[i] >= sure:
				if last < k-1 || first < 0 {
					first = k
				}
				last = k
			case first < 0:
				continue
			default:
				if last == k-1 {
					from := max(first, last-rateSteps)
					rate = min(0, (p.state[places[last]]-p.state[places[from]])/float64(max(1, last-from)))
				}
				v = p.state[places[last]] + rate*float64(k-last)
			}
			sizes[i] = max(sizes[i], v)
		}
	})
}

// growths returns by how much the gradients of each path should be scaled in a
// further pass, in powers of two for each step of each row; nil for a path that
// needs no scaling, and if no path does.
func growths(paths []*path) [][]int {
	var all [][]int
	for _, stack := range sharing(paths) {
		var growth []int
		for _, i := range stack {
			if p := paths[i]; !p.lost && p.missing() {
				growth = make([]int, p.T*p.B)
			}
		}
		if growth == nil {
			continue
		}
		sizes := filled(len(growth), nothing)
		for _, i := range stack {
			if !paths[i].lost {
				paths[i].guess(sizes)
			}
		}
		for i, v := range sizes {
			if v != nothing {
				growth[i] = int(max(0, math.Round(aim-v)))
			}
		}
		if all == nil {
			all = make([][]int, len(paths))
		}
		for _, i := range stack {
			paths[i].rows(func(_ int, places []int) {
				if len(places) > 0 {
					growth[places[0]] = 0 // here the loss enters
				}
			})
			all[i] = growth
		}
	}
	return all
}

// sharing groups the paths whose gradients must be scaled equally, by their
// indices: those over the same steps of the same rows. Only the two directions of
// a single layer are independent.
func sharing(paths []*path) (stacks [][]int) {
	same := map[string][]int{}
	var keys []string
	for i, p := range paths {
		key := fmt.Sprint(p.T, p.lengths)
		if same[key] == nil {
			keys = append(keys, key)
		}
		same[key] = append(same[key], i)
	}
	for _, key := range keys {
		s := same[key]
		if len(s) == 2 && paths[s[0]].reverse != paths[s[1]].reverse {
			stacks = append(stacks, s[:1], s[1:])
		} else {
			stacks = append(stacks, s)
		}
	}
	return stacks
}

// gains returns the factors per step that scale a gradient by growth.
func (p *path) gains(growth []int) []float32 {
	gains := make([]float32, len(growth))
	p.rows(func(_ int, places []int) {
		before := 0
		for _, i := range places {
			if by := growth[i] - before; by >= -126 { // less leaves nothing
				gains[i] = float32(math.Ldexp(1, min(by, 127)))
			}
			before = growth[i]
		}
	})
	return gains
}

// follow reads the gradients of a pass from its traces, and makes further passes
// for gradients too small for float32. again makes the forward half of a pass.
func follow(traces []*tensor.Trace, again func() (*tensor.Tensor, []*tensor.Trace)) []*path {
	paths := make([]*path, len(traces))
	for i, r := range traces {
		paths[i] = newPath(r)
		paths[i].see(r, nil)
	}
	for range mostPasses {
		all := growths(paths)
		if all == nil {
			break
		}
		loss, traces := again()
		for i, growth := range all {
			if growth != nil {
				traces[i].Grow(paths[i].gains(growth))
			}
		}
		loss.Backward()
		more := false
		for i, growth := range all {
			if growth == nil { // those below may have grown all the same
				growth = make([]int, len(paths[i].state))
			}
			if !paths[i].lost {
				more = paths[i].see(traces[i], growth) || more
			}
		}
		if !more {
			break
		}
	}
	return paths
}

// gather computes the layer's measurements from those of its rows, and reports
// whether some are too small for float32.
func (l *Layer) gather(p *path) (grown bool) {
	state, h, c := filled(l.Steps, nothing), filled(l.Steps, nothing), filled(l.Steps, nothing)
	unknown := filled(l.Steps, nothing) // bounds of what could not be told
	p.rows(func(_ int, places []int) {
		dark := true
		for _, i := range places {
			dark = dark && p.state[i] == nothing
		}
		entered, bound := dark && p.lost, told
		for k, i := range places {
			switch {
			case p.state[i] != nothing:
				entered, bound = true, told-(p.level[i]-p.state[i])
				state[k], h[k], c[k] = either(state[k], p.state[i]), either(h[k], p.h[i]), either(c[k], p.c[i])
			case entered:
				unknown[k] = either(unknown[k], bound)
			}
		}
	})
	l.DH, l.DHLog10 = decimal(h)
	if p.cells {
		l.DC, l.DCLog10 = decimal(c)
	}
	l.summarize(state, unknown)
	return slices.ContainsFunc(state, func(v float64) bool { return v != nothing && v < told })
}

// decimal converts logarithms to base 2 to numbers and to base 10.
func decimal(logs []float64) (values, logs10 []float64) {
	values, logs10 = make([]float64, len(logs)), make([]float64, len(logs))
	for k, v := range logs {
		values[k], logs10[k] = math.Exp2(v), v*math.Log10(2)
	}
	return values, logs10
}

// summarize computes Left, Reach and Rate from logarithms to base 2 of the
// gradients in h and c together, and bounds on those that are unknown.
func (l *Layer) summarize(state, unknown []float64) {
	const slight = 10 // what is so much below the rest does not matter
	n := len(state)
	first, last, top := -1, -1, 0
	l.Told = n
	for k, v := range state {
		switch {
		case unknown[k] != nothing && unknown[k] > v-slight:
			l.Told = min(l.Told, k)
		case v == nothing: // nothing has come yet
		default:
			if first < 0 {
				first, top = k, k
			}
			if last = k; v > state[top] {
				top = k
			}
		}
	}
	if l.Told < n {
		l.below = unknown[l.Told] * math.Log10(2)
	}
	if first < 0 {
		return
	}
	l.Rate = math.Exp2((state[last] - state[first]) / float64(max(last-first, 1)))
	left := either(state[n-1], unknown[n-1]) - state[first]
	l.Left, l.LeftBelow = math.Exp2(left), last < n-1 && unknown[n-1] != nothing
	if left != nothing {
		log10 := left * math.Log10(2)
		l.LeftLog10 = &log10
	}
	l.Reach = n
	for k := top; k < n; k++ {
		if state[k] < state[top]+math.Log2(1e-3) {
			l.Reach = k
			break
		}
	}
}
