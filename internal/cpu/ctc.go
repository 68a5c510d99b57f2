package cpu

import (
	"math"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
)

// CTC computes the value of s and its gradient: each row independently, then the sum
// over rows in order.
func (b *Backend) CTC(s *device.CTCSpec) {
	w := workspaces.Get()
	w.set, w.sums = b.set, resize(w.sums, s.B)
	par.Each(s.B, 1, w, s, (*workspace).ctcRows)
	s.Value.Host[0] = simd.Narrow(sumOf(w.sums))
	workspaces.Put(w)
}

// ctcRows writes each row's part of the value to sums.
func (w *workspace) ctcRows(s *device.CTCSpec, lo, hi int) {
	c := ctcPool.Get()
	defer ctcPool.Put(c)
	for b := lo; b < hi; b++ {
		steps, labels := lengthOf(s.Lens, b, s.T), s.Labels.Host[b*s.L:][:lengthOf(s.LabelLens, b, s.L)]
		scale := 1 / float64(s.B)
		if s.PerLabel {
			scale /= float64(max(1, len(labels)))
		}
		x := s.Logits.Host[b*s.T*s.V : (b+1)*s.T*s.V]
		d := within(s.DLogits.Host, b*s.T*s.V, (b+1)*s.T*s.V)
		if d != nil {
			clear(d[steps*s.V:])
			d = d[:steps*s.V]
		}
		if device.CTCSteps(labels) > steps {
			clear(d)
			w.sums[b] = 0
			continue
		}
		c.begin(w.set, x, steps, s.V, labels, s.Blank)
		total := c.forward(d != nil)
		if d != nil {
			c.backward(total, d, scale)
		}
		w.sums[b] = -total * scale
	}
}

// ctc is one row's lattice. Its states are the labels with a blank before,
// between and after them: state s is a blank if s is even, otherwise label s/2. A
// path starts in state 0 or 1, advances by no or one state per step, or by two if
// that skips a blank between different labels, and ends in one of the last two
// states. With p the softmax of a step's logits,
//
//	alpha[t,s] = p[t,class(s)] · (alpha[t-1,s] + alpha[t-1,s-1] + alpha[t-1,s-2] if it may skip)
//
// Sums over paths are logarithms in double precision. Only the terms of one sum,
// relative to its largest, are computed with float32's exponential.
type ctc struct {
	set    *simd.Set
	x      []float32 // [T,V]
	T, V   int
	labels []int32
	blank  int32
	states int       // S = 2·len(labels)+1
	norm   []float64 // [T], log Σ e^x
	jump   []float64 // [S+2], 0 if a path may come from two states before, otherwise -Inf
	alpha  []float64 // [T,2+S], log of the sum over paths up to t, after two -Inf; without a gradient one row
	beta   []float64 // [S], log of the sum over paths after t
	next   []float64 // [S+2], at t+1: beta times the class's probability; then two -Inf
	tops   []float64 // [S]
	terms  []float32 // [3,S]
}

var ctcPool par.Pool[ctc]

// begin sets w to a row.
func (w *ctc) begin(set *simd.Set, x []float32, T, V int, labels []int32, blank int32) {
	n := 2*len(labels) + 1
	w.set, w.x, w.T, w.V, w.labels, w.blank, w.states = set, x, T, V, labels, blank, n
	w.norm = resize(w.norm, T)
	for t := range w.norm {
		row := x[t*V : (t+1)*V]
		top := rowMax(row)
		w.norm[t] = float64(top) + math.Log(float64(expSum(set, nil, row, top)))
	}
	w.jump = resize(w.jump, n+2)
	impossible(w.jump)
	for i := 1; i < len(labels); i++ {
		if labels[i] != labels[i-1] {
			w.jump[2*i+1] = 0
		}
	}
	w.beta, w.next, w.tops, w.terms = resize(w.beta, n), resize(w.next, n+2), resize(w.tops, n), resize(w.terms, 3*n)
}

// impossible sets all of v to the logarithm of 0.
func impossible(v []float64) {
	for i := range v {
		v[i] = math.Inf(-1)
	}
}

// span returns the states [lo,hi) that a path can be in at step t: those that can
// be reached from the beginning and from which the end can be reached.
func (w *ctc) span(t int) (lo, hi int) {
	return max(0, w.states-2*(w.T-t)), min(w.states, 2*(t+1))
}

// emit multiplies paths into states lo, lo+1, ... by the probabilities of their classes at step t.
func (w *ctc) emit(paths []float64, t, lo int) {
	row, norm := w.x[t*w.V:(t+1)*w.V], w.norm[t]
	blank := float64(row[w.blank]) - norm
	for i := range paths {
		if s := lo + i; s%2 == 0 {
			paths[i] += blank
		} else {
			paths[i] += float64(row[w.labels[s/2]]) - norm
		}
	}
}

// forward fills alpha, and returns the logarithm of the sum over all paths.
func (w *ctc) forward(keep bool) float64 {
	if w.T == 0 {
		return 0 // no labels either: the empty path is the only one
	}
	stride := w.states + 2
	rows := 1
	if keep {
		rows = w.T
	}
	w.alpha = resize(w.alpha, rows*stride)
	impossible(w.alpha)
	last := w.alpha[:stride]
	_, hi := w.span(0)
	clear(last[2 : 2+hi])
	w.emit(last[2:2+hi], 0, 0)
	for t := 1; t < w.T; t++ {
		now := last
		if keep {
			now = w.alpha[t*stride : (t+1)*stride]
		}
		lo, hi := w.span(t)
		w.merge(now[2+lo:2+hi], last[2+lo:], last[1+lo:], last[lo:], w.jump[lo:])
		w.emit(now[2+lo:2+hi], t, lo)
		last = now
	}
	// A row without labels has one state, with -Inf before it.
	w.merge(w.beta[:1], last[stride-1:], last[stride-2:], last, w.jump)
	return w.beta[0]
}

// backward writes the gradient of -total·scale: for each step and class the
// softmax minus the share of the paths through the class in this step.
func (w *ctc) backward(total float64, d []float32, scale float64) {
	for t := w.T - 1; t >= 0; t-- {
		row := d[t*w.V : (t+1)*w.V]
		for v, x := range w.x[t*w.V : (t+1)*w.V] {
			row[v] = float32(float64(x) - w.norm[t])
		}
		w.set.Exp(row, row)
		w.set.Scale(float32(scale), row)

		lo, hi := w.span(t)
		beta := w.beta[lo:hi]
		if t == w.T-1 {
			clear(beta) // span is the last two states
		} else {
			w.merge(beta, w.next[lo:], w.next[1+lo:], w.next[2+lo:], w.jump[2+lo:])
		}
		alpha := w.alpha[t*(w.states+2)+2+lo:]
		share := w.terms[:len(beta)]
		for i, b := range beta {
			share[i] = float32(alpha[i] + b - total)
		}
		w.set.Exp(share, share)
		w.set.Scale(float32(scale), share)
		for i, p := range share {
			class := &row[w.blank]
			if s := lo + i; s%2 == 1 {
				class = &row[w.labels[s/2]]
			}
			*class = simd.Narrow(float64(*class) - float64(p))
		}
		impossible(w.next)
		copy(w.next[lo:], beta)
		w.emit(w.next[lo:hi], t, lo)
	}
}

// merge computes dst = log(e^a + e^b + e^(c+jump)), elementwise; dst may be a.
func (w *ctc) merge(dst, a, b, c, jump []float64) {
	n := len(dst)
	a, b, c, jump = a[:n], b[:n], c[:n], jump[:n]
	tops, x, y, z := w.tops[:n], w.terms[:n], w.terms[n:2*n], w.terms[2*n:3*n]
	for i := range tops {
		p, q, r := a[i], b[i], c[i]+jump[i]
		top := max(p, q, r)
		if top < -math.MaxFloat64 {
			top = 0 // all are -Inf, and their sum is too
		}
		tops[i], x[i], y[i], z[i] = top, float32(p-top), float32(q-top), float32(r-top)
	}
	w.set.Exp(w.terms[:3*n], w.terms[:3*n])
	for i, top := range tops {
		dst[i] = top + math.Log(float64(x[i])+float64(y[i])+float64(z[i]))
	}
}
