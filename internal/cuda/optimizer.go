//go:build dl && linux

package cuda

import (
	"fmt"

	"github.com/carousel-ml/carousel/internal/device"
)

type squaresArgs struct {
	part, x uintptr
	n       int64
}

type squareSumArgs struct {
	dst, part uintptr
	parts     int32
}

// SumSquares queues dst[0] = Σ src².
func (b *Backend) SumSquares(dst, src device.Buffer) {
	b.enter()
	defer b.leave()
	parts := min(max(ceilDiv(src.N, 16*perBlock), 1), 512) // by the length alone
	part := b.partial(8 * parts)
	launch(b, kernel{file: "optimizer", name: "sum_squares"}, blocks(parts, 2*sumBytes), &squaresArgs{part, src.Addr, int64(src.N)})
	launch(b, kernel{file: "optimizer", name: "fold_squares"}, blocks(1, 0), &squareSumArgs{dst.Addr, part, int32(parts)})
}

type clipArgs struct {
	factor, sumsq uintptr
	max           float32
}

// ClipFactor queues factor[0] = min(1, max/(√sumsq[0] + 1e-6)).
func (b *Backend) ClipFactor(factor, sumsq device.Buffer, max float32) {
	b.enter()
	defer b.leave()
	launch(b, kernel{file: "optimizer", name: "clip_factor"}, blocks(1, 0), &clipArgs{factor.Addr, sumsq.Addr, max})
}

type scaleArgs struct {
	dst, src, factor uintptr
	n                int64
	acc              int32
}

// ScaleBy queues x *= factor[0].
func (b *Backend) ScaleBy(x, factor device.Buffer) {
	b.scale(&scaleArgs{x.Addr, 0, factor.Addr, int64(x.N), 0})
}

// AddScaled queues dst (+)= factor[0]·src.
func (b *Backend) AddScaled(dst, src, factor device.Buffer, acc bool) {
	b.scale(&scaleArgs{dst.Addr, src.Addr, factor.Addr, int64(src.N), flag(acc)})
}

func (b *Backend) scale(a *scaleArgs) {
	b.enter()
	defer b.leave()
	launch(b, kernel{file: "optimizer", name: "scale_by"}, each(int(a.n)), a)
}

type clampArgs struct {
	x      uintptr
	n      int64
	lo, hi float32
}

// Clamp queues limiting x to [lo,hi].
func (b *Backend) Clamp(x device.Buffer, lo, hi float32) {
	b.enter()
	defer b.leave()
	launch(b, kernel{file: "optimizer", name: "clamp"}, each(x.N), &clampArgs{x.Addr, int64(x.N), lo, hi})
}

type lerpArgs struct {
	dst, src uintptr
	n        int64
	w        float32
}

// Lerp queues dst += w·(src-dst).
func (b *Backend) Lerp(dst, src device.Buffer, w float32) {
	b.enter()
	defer b.leave()
	launch(b, kernel{file: "optimizer", name: "lerp"}, each(src.N), &lerpArgs{dst.Addr, src.Addr, int64(src.N), w})
}

var stepKernel = kernel{file: "optimizer", name: "step"}

type stepArgs struct {
	w, g, m, v, factor                                                                           uintptr
	n                                                                                            int64
	kind, nesterov, first                                                                        int32
	l2, keep, lr, momentum, fresh, beta2, oneMinusBeta1, oneMinusBeta2, eps, stepSize, sqrtBias2 float32
}

// Step queues an update of weights. What is queued after the last one of a training step
// belongs to the next, and gives the queue to the device first.
func (b *Backend) Step(s *device.StepSpec) {
	if s.Kind > device.RMSprop {
		panic(fmt.Sprintf("cuda: Step: unknown rule %d", s.Kind))
	}
	c := s.Constants()
	a := stepArgs{w: s.W.Addr, g: s.G.Addr, m: s.M.Addr, v: s.V.Addr, factor: s.Scale.Addr, n: int64(s.W.N), kind: int32(s.Kind), nesterov: flag(s.Nesterov), first: flag(s.T <= 1),
		l2: c.L2, keep: c.Keep, lr: s.LR, momentum: s.Momentum, fresh: c.Fresh, beta2: s.Beta2,
		oneMinusBeta1: c.OneMinusBeta1, oneMinusBeta2: c.OneMinusBeta2, eps: s.Eps, stepSize: c.StepSize, sqrtBias2: c.SqrtBias2}
	b.enter()
	defer b.leave()
	launch(b, stepKernel, each(s.W.N), &a)
	b.queue.stepped = true
}
