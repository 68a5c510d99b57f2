package cpu

import (
	"fmt"
	"math"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
)

// ClipFactor computes factor[0] = min(1, max/(√sumsq[0] + 1e-6)), as
// torch.nn.utils.clip_grad_norm_. If the sum is not finite, the factor is the sum, so
// that Step skips.
func (b *Backend) ClipFactor(factor, sumsq device.Buffer, max float32) {
	s := sumsq.Host[0]
	if !finite(s) {
		factor.Host[0] = s
		return
	}
	factor.Host[0] = min(1, simd.Narrow(float64(max)/float64(float32(math.Sqrt(float64(s)))+1e-6)))
}

func finite(x float32) bool { return x-x == 0 }

// ScaleBy computes x *= factor[0].
func (b *Backend) ScaleBy(x, factor device.Buffer) {
	if factor.Host[0] == 1 {
		return
	}
	b.loop(moveGrain, vector{dst: x.Host, p: factor.Host[0]}, func(v *vector, lo, hi int) { v.set.Scale(v.p, v.dst[lo:hi]) })
}

// AddScaled computes dst (+)= factor[0]·src.
func (b *Backend) AddScaled(dst, src, factor device.Buffer, acc bool) {
	if !acc {
		b.Copy(dst, src, false)
		b.ScaleBy(dst, factor)
		return
	}
	b.loop(moveGrain, vector{dst: dst.Host, src: src.Host, p: factor.Host[0]}, func(v *vector, lo, hi int) { v.set.Axpy(v.p, v.dst[lo:hi], v.src[lo:hi]) })
}

// Clamp limits x to [lo,hi]; NaN stays NaN.
func (b *Backend) Clamp(x device.Buffer, lo, hi float32) {
	b.loop(moveGrain, vector{dst: x.Host, p: lo, q: hi}, func(a *vector, lo, hi int) {
		x := a.dst[lo:hi]
		for i, v := range x {
			if v < a.p {
				x[i] = a.p
			} else if v > a.q {
				x[i] = a.q
			}
		}
	})
}

// Lerp computes dst += w·(src-dst).
func (b *Backend) Lerp(dst, src device.Buffer, w float32) {
	b.loop(moveGrain, vector{dst: dst.Host, src: src.Host, p: w}, func(v *vector, lo, hi int) { v.set.EMA(v.p, v.dst[lo:hi], v.src[lo:hi]) })
}

// rule is a step with its constants; those that subnormal settings could make so are flushed.
type rule struct {
	device.StepSpec
	device.Constants
	scale, lr float32
}

// Step applies one update and clears G. If Scale[0] is not finite, it only clears G.
func (b *Backend) Step(s *device.StepSpec) {
	if !s.Scale.Zero() && !finite(s.Scale.Host[0]) {
		b.Fill(s.G, 0)
		return
	}
	par.Each(s.W.N, elemGrain, b, s, (*Backend).stepRange)
}

func (b *Backend) stepRange(s *device.StepSpec, lo, hi int) {
	r := newRule(s)
	w, g, m, v := s.W.Host[lo:hi], s.G.Host[lo:hi], within(s.M.Host, lo, hi), within(s.V.Host, lo, hi)
	switch s.Kind {
	case device.SGD:
		sgdStep(&r, w, g, m)
	case device.Adam:
		adamStep(b.set, &r, w, g, m, v)
	case device.RMSprop:
		rmspropStep(&r, w, g, v, m)
	default:
		panic(fmt.Sprintf("cpu: Step: unknown rule %d", s.Kind))
	}
}

func newRule(s *device.StepSpec) rule {
	r := rule{StepSpec: *s, Constants: s.Constants(), scale: 1, lr: simd.Narrow(float64(s.LR))}
	r.L2, r.StepSize = simd.Narrow(float64(r.L2)), simd.Narrow(float64(r.StepSize))
	if !s.Scale.Zero() {
		r.scale = s.Scale.Host[0]
	}
	return r
}

// grad returns the gradient that the rule uses, and w after decoupled decay.
func (r *rule) grad(w, g float32) (gradient, weight float64) {
	return float64(float64(g)*float64(r.scale)) + float64(float64(r.L2)*float64(w)), float64(w) * float64(r.Keep)
}

// sgdStep is a step of torch.optim.SGD. The first buffer is the gradient, without dampening:
//
//	buf = momentum·buf + fresh·g;  w -= lr·(nesterov ? g + momentum·buf : buf)
func sgdStep(r *rule, w, g, m []float32) {
	g = g[:len(w)]
	if r.Momentum == 0 {
		for i := range w {
			d, v := r.grad(w[i], g[i])
			w[i] = simd.Narrow(v - float64(float64(r.lr)*d))
			g[i] = 0
		}
		return
	}
	m = m[:len(w)]
	for i := range w {
		d, v := r.grad(w[i], g[i])
		buf := d
		if r.T > 1 {
			buf = float64(float64(m[i])*float64(r.Momentum)) + float64(d*float64(r.Fresh))
		}
		m[i] = simd.Narrow(buf)
		if r.Nesterov {
			buf = d + float64(float64(r.Momentum)*buf)
		}
		w[i] = simd.Narrow(v - float64(float64(r.lr)*buf))
		g[i] = 0
	}
}

// rmspropStep is a step of torch.optim.RMSprop:
//
//	v = beta2·v + (1-beta2)·g²;  m = momentum·m + g/(√v + eps);  w -= lr·m
func rmspropStep(r *rule, w, g, v, m []float32) {
	g, v = g[:len(w)], v[:len(w)]
	for i := range w {
		d, x := r.grad(w[i], g[i])
		v[i] = simd.Narrow(float64(float64(v[i])*float64(r.Beta2)) + float64(d*d*float64(r.OneMinusBeta2)))
		d /= math.Sqrt(float64(v[i])) + float64(r.Eps)
		if r.Momentum != 0 {
			m[i] = simd.Narrow(float64(float64(m[i])*float64(r.Momentum)) + d)
			d = float64(m[i])
		}
		w[i] = simd.Narrow(x - float64(float64(r.lr)*d))
		g[i] = 0
	}
}

var adamArgsPool par.Pool[simd.AdamArgs]

// adamStep is a step of torch.optim.Adam, or with decoupled decay of AdamW; see simd.AdamArgs.
func adamStep(set *simd.Set, r *rule, w, g, m, v []float32) {
	args := adamArgsPool.Get()
	*args = simd.AdamArgs{
		N: len(w), W: &w[0], G: &g[0], M: &m[0], V: &v[0],
		GScale: r.scale, L2: r.L2, Keep: r.Keep,
		OneMinusBeta1: r.OneMinusBeta1, Beta2: r.Beta2, OneMinusBeta2: r.OneMinusBeta2, Eps: r.Eps,
		StepSize: r.StepSize, SqrtBias2: r.SqrtBias2,
	}
	set.Adam(args)
	adamArgsPool.Put(args)
}
