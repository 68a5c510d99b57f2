package tensor

import (
	"slices"

	"github.com/carousel-ml/carousel/internal/device"
)

// Linear returns y = x·wᵀ + b along the last dimension: x [...,I], w [O,I], b [O] or
// nil, y [...,O] (torch.nn.functional.linear). It panics with a [*ShapeError] if
// shapes do not fit.
func Linear(x, w, b *Tensor) *Tensor {
	t := tapeOf("Linear", x, w, b)
	if w.rank != 2 || x.dims[x.rank-1] != w.dims[1] {
		failf("Linear", "input %s needs weight [_ %d], got %s", describe(x), x.dims[x.rank-1], describe(w))
	}
	if b != nil && (b.rank != 1 || b.dims[0] != w.dims[0]) {
		failf("Linear", "weight %s needs bias [%d], got %s", describe(w), w.dims[0], describe(b))
	}
	d := x.dims
	d[x.rank-1] = w.dims[0]
	y := t.Empty(d[:x.rank]...)
	y.layout = x.layout
	s := device.GemmSpec{M: x.rows(), N: w.dims[0], K: w.dims[1], A: x.value, B: w.value, TransB: true, C: y.value, Bias: b.memory(), Kind: t.kindOf(w)}
	s.Cache, _, s.Version = t.caches(s.Kind, s.M, w)
	t.gemm(s)
	t.observe(w, x, 0)
	t.record(linearGrad, y, x, w, b)
	return y
}

func linearGrad(t *Tape, n *node) {
	x, w, b, dy := n.in[0], n.in[1], n.in[2], n.out.grad
	m, o, i, kind := x.rows(), w.dims[0], w.dims[1], t.kindOf(w).Backward()
	if dx, acc := x.into(); !dx.Zero() {
		s := device.GemmSpec{M: m, N: i, K: o, A: dy, B: w.value, C: dx, Acc: acc, Kind: kind}
		_, s.Cache, s.Version = t.caches(kind, m, w)
		t.gemm(s)
	}
	if dw, acc := w.into(); !dw.Zero() {
		t.gemm(device.GemmSpec{M: o, N: i, K: m, A: dy, TransA: true, B: x.value, C: dw, Acc: acc, Kind: kind})
	}
	if db, acc := b.into(); !db.Zero() {
		t.backend.SumRows(db, dy, m, o, o, acc)
	}
}

// MatMul returns the matrix product of the last two dimensions for each index of the
// others, which must be equal (torch.bmm): a [...,M,K] and b [...,K,N], or [...,N,K]
// with transB, give [...,M,N]. It panics with a [*ShapeError] if shapes do not fit.
func MatMul(a, b *Tensor, transB bool) *Tensor {
	t := tapeOf("MatMul", a, b)
	if a.rank < 2 || a.rank != b.rank || !slices.Equal(a.dims[:a.rank-2], b.dims[:b.rank-2]) {
		failf("MatMul", "needs equal leading dimensions, got %s and %s", describe(a), describe(b))
	}
	k, kb, nn := a.dims[a.rank-1], b.dims[b.rank-2], b.dims[b.rank-1]
	if transB {
		kb, nn = nn, kb
	}
	if k != kb {
		failf("MatMul", "inner dimensions differ: %s and %s (transB %v)", describe(a), describe(b), transB)
	}
	d := a.dims
	d[a.rank-1] = nn
	y := t.Empty(d[:a.rank]...)
	m, kind := a.dims[a.rank-2], t.kindOf(b, a).Backward()
	s := batched(kind, m, nn, k, leading(a))
	s.A, s.B, s.C, s.TransB = a.value, b.value, y.value, transB
	t.gemm(s)
	if n := t.record(matMulGrad, y, a, b); n != nil && transB {
		n.n = 1
	}
	return y
}

func matMulGrad(t *Tape, n *node) {
	a, b, dy := n.in[0], n.in[1], n.out.grad
	m, k, nn, batch := a.dims[a.rank-2], a.dims[a.rank-1], n.out.dims[n.out.rank-1], leading(a)
	transB, kind := n.n == 1, t.kindOf(b, a).Backward()
	if da, acc := a.into(); !da.Zero() { // dA = dY·Bᵀ
		s := batched(kind, m, k, nn, batch)
		s.A, s.B, s.TransB, s.C, s.Acc = dy, b.value, !transB, da, acc
		t.gemm(s)
	}
	if db, acc := b.into(); !db.Zero() {
		s := batched(kind, k, nn, m, batch) // dB = Aᵀ·dY
		s.A, s.B, s.TransA, s.C, s.Acc = a.value, dy, true, db, acc
		if transB { // dB = dYᵀ·A
			s = batched(kind, nn, k, m, batch)
			s.A, s.B, s.TransA, s.C, s.Acc = dy, a.value, true, db, acc
		}
		t.gemm(s)
	}
}

// batched returns the spec of a product for each of batch dense matrices.
func batched(kind device.Kind, m, n, k, batch int) device.GemmSpec {
	return device.GemmSpec{M: m, N: n, K: k, Batch: batch, Kind: kind, StrideA: m * k, StrideB: k * n, StrideC: m * n}
}

// leading returns the product of all but the last two dimensions.
func leading(x *Tensor) int {
	n := 1
	for _, d := range x.dims[:x.rank-2] {
		n *= d
	}
	return n
}
