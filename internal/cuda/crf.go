//go:build dl && linux

package cuda

import "github.com/carousel-ml/carousel/internal/device"

type crfArgs struct {
	scores, trans, start, end            uintptr
	lens, tags                           uintptr
	value, dScores, dTrans, dStart, dEnd uintptr
	top, weight, weightT                 uintptr
	alpha, prob, dot, lse, ratio         uintptr
	shared, part                         uintptr
	rows, steps, classes                 int32
	staged, grad                         int32
}

var (
	crfWeigh  = kernel{file: "crf", name: "crf_weigh"}
	crfRows   = kernel{file: "crf", name: "crf_rows"}
	crfPairs  = kernel{file: "crf", name: "crf_pairs"}
	crfGather = kernel{file: "crf", name: "crf_gather"}
)

// CRF queues the value of s and its gradients. A tag out of range makes the value NaN.
func (b *Backend) CRF(s *device.CRFSpec) {
	b.enter()
	defer b.leave()
	k, all := s.K, 4*s.B*s.T*s.K
	grad := !(s.DScores.Zero() && s.DTrans.Zero() && s.DStart.Zero() && s.DEnd.Zero())
	a := crfArgs{scores: s.Scores.Addr, trans: s.Trans.Addr, start: s.Start.Addr, end: s.End.Addr, lens: s.Lens.Addr, tags: s.Tags.Addr,
		value: s.Value.Addr, dScores: s.DScores.Addr, dTrans: s.DTrans.Addr, dStart: s.DStart.Addr, dEnd: s.DEnd.Addr,
		rows: int32(s.B), steps: int32(s.T), classes: int32(k), grad: flag(grad)}
	var w layout
	w.add(&a.part, 8*s.B)
	w.add(&a.top, 4*k)
	w.add(&a.weight, 4*k*k)
	w.add(&a.weightT, 4*k*k)
	if grad {
		for _, p := range []*uintptr{&a.alpha, &a.prob, &a.dot, &a.lse, &a.ratio} {
			w.add(p, all)
		}
		w.add(&a.shared, 4*s.B*(k+2)*k)
	}
	w.place(b)
	shared := reduction + 4*3*k
	if whole := shared + 4*k*k; whole <= b.limits.shared {
		a.staged, shared = 1, whole
	}
	launch(b, crfWeigh, each(k), &a)
	launch(b, crfRows, shape{grid: [3]int{s.B, 1, 1}, threads: threadsFor(k), shared: shared}, &a)
	sums := 1
	if grad {
		if !s.DTrans.Zero() {
			launch(b, crfPairs, shape{grid: [3]int{s.B, (k*k + perBlock - 1) / perBlock, 1}, threads: perBlock}, &a)
		}
		sums = min((k+2)*k/perBlock+1, 1024)
	}
	launch(b, crfGather, blocks(sums, reduction), &a)
}
