//go:build dl && linux

package cuda

import "github.com/carousel-ml/carousel/internal/device"

type lossArgs struct {
	pred, target, weight, classWeight, quantiles uintptr
	classes, value, d, weights, sums             uintptr
	n                                            int64
	v, kind, ignore, wide                        int32
	weightParts, sumParts                        int32
	smoothing, param                             float32
}

// Loss computes the value and, unless DPred is absent, the gradient. Items of weight
// 0 are not read, so their predictions and targets may be NaN. The loss of a
// Quantile item is the mean over its quantiles. A class out of range makes both NaN.
func (b *Backend) Loss(s *device.LossSpec) {
	b.enter()
	defer b.leave()
	a := lossArgs{pred: s.Pred.Addr, target: s.Target.Addr, weight: s.Weight.Addr, classWeight: s.ClassWeight.Addr, quantiles: s.Quantiles.Addr,
		classes: s.Classes.Addr, value: s.Value.Addr, d: s.DPred.Addr, n: int64(s.N), v: int32(s.V), kind: int32(s.Kind),
		ignore: s.Ignore, smoothing: s.Smoothing, param: s.Param}
	const mostWeights, mostSums, tmp = perBlock, 1024, 2 * sumBytes
	a.weights = b.work(8 * (mostWeights + mostSums))
	a.sums = a.weights + 8*mostWeights
	if !s.Weight.Zero() || s.Kind == device.CrossEntropy {
		a.weightParts = int32(min(max(ceilDiv(s.N, 4*perBlock), 1), mostWeights))
		launch(b, kernel{file: "losses", name: "loss_weights"}, blocks(int(a.weightParts), tmp), &a)
	}
	name, sh := "loss_items", blocks(ceilDiv(s.N, perBlock), tmp)
	if s.Kind == device.CrossEntropy {
		name = "loss_classes"
		sh, a.wide = teams(s.N, s.V, tmp+sumBytes)
	}
	sh.grid[0] = min(sh.grid[0], mostSums)
	a.sumParts = int32(sh.grid[0])
	launch(b, kernel{file: "losses", name: name}, sh, &a)
	launch(b, kernel{file: "losses", name: "loss_value"}, blocks(1, tmp), &a)
}
