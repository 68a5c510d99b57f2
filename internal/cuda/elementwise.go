//go:build dl && linux

package cuda

import (
	"github.com/carousel-ml/carousel/internal/device"
)

type unaryArgs struct {
	y, x  uintptr
	n     int64
	f     int32
	alpha float32
}

// Unary queues y = f(x).
func (b *Backend) Unary(f device.Function, y, x device.Buffer, alpha float32) {
	b.enter()
	defer b.leave()
	launch(b, kernel{file: "elementwise", name: "unary"}, each(x.N), &unaryArgs{y.Addr, x.Addr, int64(x.N), int32(f), alpha})
}

type unaryGradArgs struct {
	dx, dy, x, y uintptr
	n            int64
	f, acc       int32
	alpha        float32
}

// UnaryGrad queues dx (+)= dy·f'.
func (b *Backend) UnaryGrad(f device.Function, dx, dy, x, y device.Buffer, alpha float32, acc bool) {
	b.enter()
	defer b.leave()
	launch(b, kernel{file: "elementwise", name: "unary_grad"}, each(dy.N), &unaryGradArgs{dx.Addr, dy.Addr, x.Addr, y.Addr, int64(dy.N), int32(f), flag(acc), alpha})
}

type binaryArgs struct {
	z, x, y uintptr
	n, yn   int64
	op      int32
}

// Binary queues Z = X op Y.
func (b *Backend) Binary(s *device.BinarySpec) {
	b.enter()
	defer b.leave()
	launch(b, kernel{file: "elementwise", name: "binary"}, each(s.N), &binaryArgs{s.Z.Addr, s.X.Addr, s.Y.Addr, int64(s.N), int64(s.YN), int32(s.Op)})
}

type binaryGradArgs struct {
	dx, dz, y uintptr
	n, yn     int64
	op, acc   int32
}

type binarySumArgs struct {
	part, dz, x, y            uintptr
	yn, repeats, block, parts int64
	op                        int32
}

// BinaryGrad queues the gradients of Y, and then of X, which may be DZ.
func (b *Backend) BinaryGrad(s *device.BinarySpec) {
	if s.N == 0 {
		return
	}
	b.enter()
	defer b.leave()
	if !s.DY.Zero() {
		repeats := s.N / s.YN
		block := partOf(repeats)
		parts := ceilDiv(repeats, block)
		part := b.partial(4 * parts * s.YN)
		launch(b, kernel{file: "elementwise", name: "binary_grad_y"}, each(parts*s.YN),
			&binarySumArgs{part, s.DZ.Addr, s.X.Addr, s.Y.Addr, int64(s.YN), int64(repeats), int64(block), int64(parts), int32(s.Op)})
		b.fold(s.DY.Addr, part, s.YN, parts, s.AccY)
	}
	if !s.DX.Zero() {
		launch(b, kernel{file: "elementwise", name: "binary_grad_x"}, each(s.N),
			&binaryGradArgs{s.DX.Addr, s.DZ.Addr, s.Y.Addr, int64(s.N), int64(s.YN), int32(s.Op), flag(s.AccX)})
	}
}

// partOf returns how many of the terms of a sum one thread adds: it depends on their number
// alone, so that the order of a sum does too.
func partOf(terms int) int { return max(32, ceilDiv(terms, 256)) }

type foldArgs struct {
	dst, part   uintptr
	cols, parts int64
	acc         int32
}

// fold queues the sum of parts of cols columns; b is entered.
func (b *Backend) fold(dst, part uintptr, cols, parts int, acc bool) {
	launch(b, kernel{file: "elementwise", name: "fold_parts"}, each(cols), &foldArgs{dst, part, int64(cols), int64(parts), flag(acc)})
}

type sumRowsArgs struct {
	part, src                    uintptr
	rows, cols, ld, block, parts int64
}

// SumRows queues dst[j] (+)= Σ_i src[i·ld+j].
func (b *Backend) SumRows(dst, src device.Buffer, rows, cols, ld int, acc bool) {
	b.enter()
	defer b.leave()
	b.sumRows(dst.Addr, src.Addr, rows, cols, ld, acc)
}

// sumRows is SumRows of addresses; b is entered. It does not use b.work.
func (b *Backend) sumRows(dst, src uintptr, rows, cols, ld int, acc bool) {
	if cols == 0 {
		return
	}
	if ld == 0 {
		ld = cols
	}
	block := partOf(rows)
	parts := ceilDiv(rows, block)
	part := b.partial(4 * parts * cols)
	launch(b, kernel{file: "elementwise", name: "sum_rows"}, each(parts*cols), &sumRowsArgs{part, src, int64(rows), int64(cols), int64(ld), int64(block), int64(parts)})
	b.fold(dst, part, cols, parts, acc)
}

type dropoutArgs struct {
	y, x           uintptr
	n              int64
	key, threshold uint64
	keep           float32
	acc            int32
}

// Dropout queues Y (+)= X ⊙ mask; the mask is the CPU's.
func (b *Backend) Dropout(s *device.DropoutSpec) {
	b.enter()
	defer b.leave()
	launch(b, kernel{file: "elementwise", name: "dropout"}, each(s.N), &dropoutArgs{s.Y.Addr, s.X.Addr, int64(s.N),
		device.MaskKey(s.Seed, s.Step, s.Node), device.Threshold(s.P), device.KeepFactor(s.P), flag(s.Acc)})
}
