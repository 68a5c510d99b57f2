package cpu

import (
	"fmt"
	"math"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
)

// lossArgs is one call of Loss. Items are divided into blocks whose size depends on
// V alone; items of a block and then blocks are added in ascending order.
type lossArgs struct {
	set   *simd.Set
	s     *device.LossSpec
	block int
	inv   float64   // 1/Σ weight
	q     []float64 // the quantiles
	sums  []float64 // [blocks]
}

// lossWork is the workspace of a goroutine: an item and its gradient, and differences.
type lossWork struct {
	p, d []float64 // [V]
	e    []float32 // [block]
}

var lossWorks par.Pool[lossWork]

var lossArgsPool par.Pool[lossArgs]

// Loss computes the value and, unless DPred is absent, the gradient. Items of weight
// 0 are not read, so their predictions and targets may be NaN. The loss of a
// Quantile item is the mean over its quantiles. It panics if a class is out of range.
func (b *Backend) Loss(s *device.LossSpec) {
	weight := lossWeight(s)
	if s.N == 0 || weight == 0 {
		s.Value.Host[0] = 0
		clear(s.DPred.Host)
		return
	}
	a := lossArgsPool.Get()
	a.set, a.s, a.inv = b.set, s, 1/weight
	a.block = max(1, 4096/s.V)
	a.q = resize(a.q, s.Quantiles.N)
	for i, q := range s.Quantiles.Host {
		a.q[i] = float64(q)
	}
	blocks := ceilDiv(s.N, a.block)
	a.sums = resize(a.sums, blocks)
	par.For(blocks, 1, a, lossBlocks)
	s.Value.Host[0] = simd.Narrow(sumOf(a.sums) * a.inv)
	lossArgsPool.Put(a)
}

// lossWeight returns the mean's denominator: Σ Weight[n] over the items that count,
// with CrossEntropy each times the weight of its class.
func lossWeight(s *device.LossSpec) float64 {
	if s.Weight.Zero() && s.Kind != device.CrossEntropy {
		return float64(s.N)
	}
	var total float64
	for n := range s.N {
		w, class := itemWeight(s, n), float32(1)
		if w == 0 {
			continue
		}
		if s.Kind == device.CrossEntropy {
			c := s.Classes.Host[n]
			if c < 0 || int(c) >= s.V {
				panic(fmt.Sprintf("cpu: Loss: class %d at item %d, want 0 to %d", c, n, s.V-1))
			}
			if !s.ClassWeight.Zero() {
				class = s.ClassWeight.Host[c]
			}
		}
		total += float64(simd.Narrow(float64(w) * float64(class)))
	}
	return total
}

// itemWeight returns the weight of item n without class weights; 0 for an ignored class.
func itemWeight(s *device.LossSpec, n int) float32 {
	if s.Kind == device.CrossEntropy && s.Classes.Host[n] == s.Ignore {
		return 0
	}
	if s.Weight.Zero() {
		return 1
	}
	return s.Weight.Host[n]
}

// squaredBlock computes items [lo,hi) of the MSE, the cheapest loss and often the one with the most items.
func squaredBlock(a *lossArgs, w *lossWork, lo, hi int) (sum float64) {
	s := a.s
	p, y, d := s.Pred.Host[lo:hi], s.Target.Host[lo:hi], within(s.DPred.Host, lo, hi)
	if s.Weight.Zero() {
		e := d
		if e == nil {
			w.e = grow(w.e, hi-lo)
			e = w.e
		}
		a.set.Sub(e, p, y)
		if sum = float64(a.set.SumSq(e)); math.IsInf(sum, 1) { // the sum overflows float32; the mean may not
			sum = 0
			for _, v := range e {
				sum += float64(v) * float64(v)
			}
		}
		if d != nil {
			a.set.Scale(float32(2*a.inv), d)
		}
		return sum
	}
	for i, weight := range s.Weight.Host[lo:hi] {
		e := float64(p[i]) - float64(y[i])
		if weight == 0 {
			e = 0 // not read: it may be NaN
		}
		sum += float64(weight) * e * e
		if d != nil {
			d[i] = simd.Narrow(2 * e * float64(weight) * a.inv)
		}
	}
	return sum
}

func lossBlocks(a *lossArgs, lo, hi int) {
	s := a.s
	work := lossWorks.Get()
	defer lossWorks.Put(work)
	work.p, work.d = resize(work.p, s.V), resize(work.d, s.V)
	for k := lo; k < hi; k++ {
		if s.Kind == device.MSE {
			a.sums[k] = squaredBlock(a, work, k*a.block, min((k+1)*a.block, s.N))
			continue
		}
		var sum float64
		for n := k * a.block; n < min((k+1)*a.block, s.N); n++ {
			d := within(s.DPred.Host, n*s.V, (n+1)*s.V)
			w := itemWeight(s, n)
			if w == 0 {
				clear(d)
				continue
			}
			p := s.Pred.Host[n*s.V : (n+1)*s.V]
			g := float64(w) * a.inv
			if s.Kind == device.CrossEntropy {
				sum += float64(w) * float64(crossEntropyRow(a.set, s, p, int(s.Classes.Host[n]), d, simd.Narrow(g)))
				continue
			}
			for j, v := range p {
				work.p[j] = float64(v)
			}
			sum += float64(w) * itemLoss(s.Kind, work.p, float64(s.Target.Host[n]), float64(s.Param), a.q, work.d)
			for j := range d {
				d[j] = simd.Narrow(work.d[j] * g)
			}
		}
		a.sums[k] = sum
	}
}

// itemLoss returns the loss of one item with prediction p, and writes its gradient to d, of the same length.
func itemLoss(kind device.LossKind, p []float64, y, param float64, quantiles, d []float64) (l float64) {
	switch kind {
	case device.MAE:
		l, d[0] = absolute(p[0], y)
	case device.Huber:
		l, d[0] = huber(p[0], y, param)
	case device.BCE:
		l, d[0] = bce(p[0], y)
	case device.Gaussian:
		l, d[0], d[1] = gaussian(p[0], p[1], y)
	case device.NegBinomial:
		l, d[0], d[1] = negBinomial(p[0], p[1], y)
	case device.StudentT:
		l, d[0], d[1], d[2] = studentT(p[0], p[1], p[2], y)
	case device.Quantile:
		share := 1 / float64(len(quantiles))
		for i, q := range quantiles {
			li, di := pinball(p[i], y, q)
			l += li * share
			d[i] = di * share
		}
	default:
		panic(fmt.Sprintf("cpu: Loss: unknown kind %d", kind))
	}
	return l
}

// crossEntropyRow returns the cross-entropy of logits x and class c, and unless d is nil sets d to its gradient times g:
//
//	(1-s)·w[c]·(-log p[c]) + s/V·Σ_j w[j]·(-log p[j])
//
// with p the softmax of x, s the smoothing and w the class weights, ones if absent.
func crossEntropyRow(set *simd.Set, s *device.LossSpec, x []float32, c int, d []float32, g float32) float32 {
	cw := within(s.ClassWeight.Host, 0, s.V)
	top := rowMax(x)
	sum := expSum(set, d, x, top)
	norm := float64(top) + math.Log(float64(sum))
	hit, each := 1-s.Smoothing, s.Smoothing/float32(s.V)
	if cw != nil {
		hit = simd.Narrow(float64(hit) * float64(cw[c]))
	}
	l, total := float64(hit)*(norm-float64(x[c])), hit
	if each != 0 {
		sx, sw := set.Sum(x), float32(len(x))
		if cw != nil {
			sx, sw = set.Dot(cw, x), set.Sum(cw)
		}
		l += float64(each) * (norm*float64(sw) - float64(sx))
		total = simd.Narrow(float64(total) + float64(simd.Narrow(float64(each)*float64(sw))))
	}
	if d == nil {
		return simd.Narrow(l)
	}
	set.Scale(simd.Narrow(float64(g)*float64(total)/float64(sum)), d)
	if each != 0 {
		spread := simd.Narrow(-float64(g) * float64(each))
		if cw != nil {
			set.Axpy(spread, d, cw)
		} else {
			set.Shift(spread, d, d)
		}
	}
	d[c] = simd.Narrow(float64(d[c]) - float64(simd.Narrow(float64(g)*float64(hit))))
	return simd.Narrow(l)
}
