//go:build dl && linux

package cuda

import (
	"fmt"

	"github.com/carousel-ml/carousel/internal/device"
)

type ctcArgs struct {
	logits, value, grad              uintptr
	lens, labels, labelLens          uintptr
	norm, total, part, alpha, beta   uintptr
	need, links                      uintptr
	rows, steps, classes, mostLabels int32
	blank, perLabel                  int32
}

var (
	ctcNorm  = kernel{file: "ctc", name: "ctc_norm"}
	ctcPaths = kernel{file: "ctc", name: "ctc_paths"}
	ctcValue = kernel{file: "ctc", name: "ctc_value"}
	ctcGrad  = kernel{file: "ctc", name: "ctc_grad"}
)

// CTC queues the value of s and its gradient. Each row is a block, and with a gradient
// another one goes backward at the same time.
func (b *Backend) CTC(s *device.CTCSpec) {
	b.enter()
	defer b.leave()
	states, directions := 2*s.L+1, 1
	a := ctcArgs{logits: s.Logits.Addr, value: s.Value.Addr, grad: s.DLogits.Addr, lens: s.Lens.Addr, labels: s.Labels.Addr, labelLens: s.LabelLens.Addr,
		rows: int32(s.B), steps: int32(s.T), classes: int32(s.V), mostLabels: int32(s.L), blank: s.Blank, perLabel: flag(s.PerLabel)}
	shared := max(2*8*(states+2), reduction)
	if shared > b.limits.shared {
		panic(&device.Error{Device: b.title(), Text: fmt.Sprintf("CTC takes at most %d labels a row, and the longest has room for %d labels: use shorter rows, or the CPU", (b.limits.shared/16-3)/2, s.L)})
	}
	var w layout
	w.add(&a.norm, 8*s.B*s.T)
	w.add(&a.total, 8*s.B)
	w.add(&a.part, 8*s.B)
	w.add(&a.need, 4*s.B)
	if !s.DLogits.Zero() {
		directions = 2
		w.add(&a.alpha, 8*s.B*s.T*states)
		w.add(&a.beta, 8*s.B*s.T*states)
		w.add(&a.links, 4*s.B*s.L)
	}
	w.place(b)
	launch(b, ctcNorm, warps(s.B*s.T), &a)
	launch(b, ctcPaths, shape{grid: [3]int{s.B, directions, 1}, threads: threadsFor(states), shared: shared}, &a)
	launch(b, ctcValue, blocks(1, reduction), &a)
	if !s.DLogits.Zero() {
		launch(b, ctcGrad, warps(s.B*s.T), &a)
	}
}

// reduction is the bytes of shared memory of a block_sum of doubles.
const reduction = 8 * 33

// warps is a grid with a warp for each of n.
func warps(n int) shape { return blocks((n+perBlock/32-1)/(perBlock/32), 0) }

// threadsFor is the number of threads of a block for n elements, whole warps and at most 1024.
func threadsFor(n int) int { return min(max((n+31)/32, 1), 32) * 32 }
