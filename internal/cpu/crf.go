package cpu

import (
	"fmt"
	"math"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
)

// crfArgs is one call of CRF. Rows are independent; each writes its parts of the
// value and of the gradients common to all rows separately, and these are added in
// the rows' order.
//
// The forward pass is, with a[0] = Start + Scores[0],
//
//	a[t,j] = Scores[t,j] + log Σ_i e^(a[t-1,i] + Trans[i,j])
//
// The exponentials of the transitions are computed once and those of a once per
// step, so that each sum is a dot product. If a dot product is so small that terms
// may have underflowed, the sum is computed again from logarithms.
type crfArgs struct {
	set    *simd.Set
	s      *device.CRFSpec
	grad   bool
	inv    float32
	into   []float32 // [K,K] Trans by target: into[j*K+i] leads from i to j
	top    []float32 // [K] the largest of each row of into
	weight []float32 // [K,K] e^(into-top)
	values []float64 // [B]
	shared []float32 // [B,K+2,K] gradients of into, of Start and of End
}

// crfTiny is the smallest dot product that is used: below it, 60 terms that
// underflowed could change its 7th digit.
const crfTiny = 1e-29

var crfArgsPool par.Pool[crfArgs]

// crfWork is the workspace of a goroutine. Logarithms are relative to the largest
// of their step, so that long rows lose no precision.
type crfWork struct {
	alpha []float32 // [T,K] log Σ over the sequences up to a step that end in a tag
	prob  []float32 // [T,K] e^alpha
	dot   []float32 // [T,K] prob of the step before times weight
	lse   []float32 // [T,K] alpha before the step's scores are added
	e     []float32 // [K]
	gamma []float32 // [K] the tags' probabilities
	next  []float32 // [K] those of the step before: the part from dot products, before it is multiplied by prob
	rare  []float32 // [K] and the part computed from logarithms
	outer []float32 // [K,K] gradient of into, before it is multiplied by weight
}

var crfWorks par.Pool[crfWork]

// CRF computes the value of s and its gradients. It panics if a tag is out of range.
func (b *Backend) CRF(s *device.CRFSpec) {
	steps := 0
	for b := range s.B {
		steps += lengthOf(s.Lens, b, s.T)
	}
	if steps == 0 {
		s.Value.Host[0] = 0
		for _, d := range []device.Buffer{s.DScores, s.DTrans, s.DStart, s.DEnd} {
			clear(d.Host)
		}
		return
	}
	a := crfArgsPool.Get()
	a.set, a.s, a.inv = b.set, s, 1/float32(steps)
	a.grad = !(s.DScores.Zero() && s.DTrans.Zero() && s.DStart.Zero() && s.DEnd.Zero())
	a.values = resize(a.values, s.B)
	a.weigh()
	if a.grad {
		a.shared = resize(a.shared, s.B*(s.K+2)*s.K)
	}
	par.For(s.B, 1, a, crfRows)
	s.Value.Host[0] = simd.Narrow(sumOf(a.values) / float64(steps))
	if a.grad {
		a.gather()
	}
	crfArgsPool.Put(a)
}

// weigh transposes the transitions and computes their exponentials.
func (a *crfArgs) weigh() {
	k := a.s.K
	a.into, a.top, a.weight = resize(a.into, k*k), resize(a.top, k), resize(a.weight, k*k)
	a.set.PackT(a.into, a.s.Trans.Host, k, k, k, k)
	copy(a.weight, a.into)
	for j := range a.top {
		row := a.weight[j*k : (j+1)*k]
		if a.top[j] = rowMax(row); math.IsInf(float64(a.top[j]), 0) {
			clear(row) // forbidden from all tags, or computed from logarithms
			continue
		}
		a.lower(row)
		a.set.Exp(row, row)
	}
}

func crfRows(a *crfArgs, lo, hi int) {
	w := crfWorks.Get()
	for b := lo; b < hi; b++ {
		a.row(w, b)
	}
	crfWorks.Put(w)
}

// row computes the value and the gradients of row b.
func (a *crfArgs) row(w *crfWork, b int) {
	s, k := a.s, a.s.K
	n := lengthOf(s.Lens, b, s.T)
	if a.grad {
		clear(a.shared[b*(k+2)*k : (b+1)*(k+2)*k])
	}
	if !s.DScores.Zero() {
		clear(s.DScores.Host[(b*s.T+n)*k : (b+1)*s.T*k])
	}
	if n == 0 {
		a.values[b] = 0
		return
	}
	w.resize(n, k)
	scores, tags := s.Scores.Host[b*s.T*k:(b*s.T+n)*k], s.Tags.Host[b*s.T:b*s.T+n]
	total := a.forward(w, scores)
	a.values[b] = total - a.gold(scores, tags)
	if a.grad {
		a.backward(w, b, tags)
	}
}

func (w *crfWork) resize(n, k int) {
	for _, v := range [...]*[]float32{&w.alpha, &w.prob, &w.dot, &w.lse} {
		*v = resize(*v, n*k)
	}
	for _, v := range [...]*[]float32{&w.e, &w.gamma, &w.next, &w.rare} {
		*v = resize(*v, k)
	}
	w.outer = resize(w.outer, k*k)
}

// gold returns the score of the true tags.
func (a *crfArgs) gold(scores []float32, tags []int32) float64 {
	s, k := a.s, a.s.K
	var sum float64
	for t, y := range tags {
		if y < 0 || int(y) >= k {
			panic(fmt.Sprintf("cpu: CRF: tag %d, want 0 to %d", y, k-1))
		}
		sum += float64(scores[t*k+int(y)])
		if t > 0 {
			sum += float64(a.into[int(y)*k+int(tags[t-1])])
		}
	}
	if !s.Start.Zero() {
		sum += float64(s.Start.Host[tags[0]])
	}
	if !s.End.Zero() {
		sum += float64(s.End.Host[tags[len(tags)-1]])
	}
	return sum
}

// forward fills alpha, prob, dot and lse, and gamma with the probabilities of the
// last tag. It returns the logarithm of the sum over all sequences.
func (a *crfArgs) forward(w *crfWork, scores []float32) (total float64) {
	s, k := a.s, a.s.K
	n := len(scores) / k
	first := w.alpha[:k]
	copy(first, scores)
	if !s.Start.Zero() {
		a.set.Add(first, first, s.Start.Host[:k])
	}
	total = float64(a.lower(first))
	for t := 1; t < n; t++ {
		before, now, lse := w.alpha[(t-1)*k:t*k], w.alpha[t*k:(t+1)*k], w.lse[t*k:(t+1)*k]
		prob, dot := w.prob[(t-1)*k:t*k], w.dot[t*k:(t+1)*k]
		a.set.Exp(prob, before)
		for j := range lse {
			dot[j] = a.set.Dot(prob, a.weight[j*k:(j+1)*k])
			if dot[j] > crfTiny {
				lse[j] = a.top[j] + float32(math.Log(float64(dot[j])))
				continue
			}
			a.set.Add(w.e, before, a.into[j*k:(j+1)*k])
			lse[j] = a.logSumExp(w.e)
		}
		a.set.Add(now, lse, scores[t*k:(t+1)*k])
		total += float64(a.lower(now))
	}
	copy(w.gamma, w.alpha[(n-1)*k:])
	if !s.End.Zero() {
		a.set.Add(w.gamma, w.gamma, s.End.Host[:k])
	}
	total += float64(a.logSumExp(w.gamma))
	a.set.Scale(1/a.set.Sum(w.gamma), w.gamma)
	return total
}

// lower subtracts the largest element from all and returns it.
func (a *crfArgs) lower(x []float32) float32 {
	top := rowMax(x)
	a.set.Shift(-top, x, x)
	return top
}

// logSumExp returns log Σ e^x. It replaces x by e^x, relative to the largest.
func (a *crfArgs) logSumExp(x []float32) float32 {
	top := rowMax(x)
	if top == float32(math.Inf(-1)) {
		return a.set.Sum(x) // all are -Inf or NaN
	}
	a.set.Shift(-top, x, x)
	a.set.Exp(x, x)
	return top + float32(math.Log(float64(a.set.Sum(x))))
}

// backward computes the probabilities of the tags from the last step to the first,
// and the gradients: the probabilities minus 1 for the true tags.
func (a *crfArgs) backward(w *crfWork, b int, tags []int32) {
	s, k := a.s, a.s.K
	shared := a.shared[b*(k+2)*k : (b+1)*(k+2)*k]
	into, start, end := shared[:k*k], shared[k*k:(k+1)*k], shared[(k+1)*k:]
	last := len(tags) - 1
	clear(w.outer)
	copy(end, w.gamma)
	end[tags[last]]--
	for t := last; t >= 0; t-- {
		if !s.DScores.Zero() {
			d := s.DScores.Host[(b*s.T+t)*k : (b*s.T+t+1)*k]
			copy(d, w.gamma)
			d[tags[t]]--
			a.set.Scale(a.inv, d)
		}
		if t == 0 {
			break
		}
		a.before(w, t, into)
		into[int(tags[t])*k+int(tags[t-1])]--
	}
	a.set.MulAdd(into, w.outer, a.weight)
	copy(start, w.gamma)
	start[tags[0]]--
}

// before replaces the probabilities of the tags at step t by those at step t-1, and
// adds those of the pairs to the gradient of into.
func (a *crfArgs) before(w *crfWork, t int, into []float32) {
	k := a.s.K
	alpha, prob := w.alpha[(t-1)*k:t*k], w.prob[(t-1)*k:t*k]
	clear(w.next)
	clear(w.rare)
	for j, p := range w.gamma {
		switch d := w.dot[t*k+j]; {
		case p == 0:
		case d > crfTiny:
			p = simd.Narrow(float64(p) / float64(d))
			a.set.Axpy(p, w.next, a.weight[j*k:(j+1)*k])
			a.set.Axpy(p, w.outer[j*k:(j+1)*k], prob)
		default:
			a.set.Add(w.e, alpha, a.into[j*k:(j+1)*k])
			a.logSumExp(w.e)
			p = simd.Narrow(float64(p) / float64(a.set.Sum(w.e)))
			a.set.Axpy(p, w.rare, w.e)
			a.set.Axpy(p, into[j*k:(j+1)*k], w.e)
		}
	}
	a.set.MulAdd(w.rare, w.next, prob)
	a.set.Scale(1/a.set.Sum(w.rare), w.rare) // so that rounding errors do not add up over long rows
	w.gamma, w.rare = w.rare, w.gamma
}

// gather adds the rows' gradients of transitions, Start and End.
func (a *crfArgs) gather() {
	s, k := a.s, a.s.K
	size := (k + 2) * k
	sum := a.shared[:size]
	for b := 1; b < s.B; b++ {
		a.set.Add(sum, sum, a.shared[b*size:(b+1)*size])
	}
	a.set.Scale(a.inv, sum)
	if !s.DTrans.Zero() {
		a.set.PackT(s.DTrans.Host, sum, k, k, k, k)
	}
	copy(s.DStart.Host, sum[k*k:(k+1)*k])
	copy(s.DEnd.Host, sum[(k+1)*k:])
}
