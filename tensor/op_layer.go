package tensor

import "github.com/carousel-ml/carousel/internal/device"

// Embed gathers rows of table [V,D] by ids [...] into [...,D]. The row of the
// id padding gets no gradient (-1: every row does). An id outside 0..V-1 panics.
func Embed(table *Tensor, ids *Ints, padding int) *Tensor {
	table.live("Embed")
	t := ids.tapeOf("Embed")
	if table.rank != 2 {
		failf("Embed", "needs a table [V,D], got %s", describe(table))
	}
	v, d := table.dims[0], table.dims[1]
	for i, id := range ids.v {
		if id < 0 || int(id) >= v {
			failf("Embed", "id %d at place %d is outside the table %s", id, i, describe(table))
		}
	}
	dims := ids.dims
	dims[ids.rank] = d
	y := t.Empty(dims[:ids.rank+1]...)
	y.seq = ids.seq
	s := t.specs.embed.put(device.EmbedSpec{Table: table.value, V: v, D: d, IDs: ids.on, Padding: int32(padding), Y: y.value})
	t.backend.Embed(s)
	t.record(embedGrad, y, table).keeps(s)
	return y
}

func embedGrad(t *Tape, n *node) {
	s := n.spec.(*device.EmbedSpec)
	s.DY = n.out.grad
	if s.DTable = n.in[0].intoZeroed(); !s.DTable.Zero() {
		t.backend.EmbedGrad(s)
	}
}

func (x *Ints) tapeOf(op string) *Tape {
	if x.epoch != x.tape.epoch {
		failf(op, "ids are used after their tape was reset")
	}
	return x.tape
}

// LayerNorm normalises the last dimension to mean 0 and variance 1 (biased, eps
// inside the root), then scales by gamma and shifts by beta, both [F] (Ba et
// al. 2016; torch.nn.functional.layer_norm).
func LayerNorm(x, gamma, beta *Tensor, eps float32) *Tensor {
	t := tapeOf("LayerNorm", x, gamma, beta)
	f := x.dims[x.rank-1]
	if gamma.rank != 1 || gamma.dims[0] != f || !beta.sameShape(gamma) {
		failf("LayerNorm", "input %s needs gamma and beta [%d], got %s and %s", describe(x), f, describe(gamma), describe(beta))
	}
	y := t.like(x)
	rows := x.rows()
	s := t.specs.norm.put(device.NormSpec{Rows: rows, Cols: f, X: x.value, Y: y.value, Gamma: gamma.value, Beta: beta.value, Eps: eps,
		Mean: t.arena.alloc(rows), RStd: t.arena.alloc(rows)})
	t.backend.Norm(s)
	t.record(layerNormGrad, y, x, gamma, beta).keeps(s)
	return y
}

func layerNormGrad(t *Tape, n *node) {
	s := n.spec.(*device.NormSpec)
	s.DY, s.DGamma, s.DBeta = n.out.grad, n.in[1].intoZeroed(), n.in[2].intoZeroed()
	s.DX, s.AccX = n.in[0].into()
	t.backend.NormGrad(s)
}

// Softmax is the softmax along the last dimension. With lengths (nil: none),
// one for each index of the first dimension, only the first lengths[b] columns
// of its rows take part and the others are zero; a length of 0 gives all zeros.
func Softmax(x *Tensor, lengths []int32) *Tensor { return softmax("Softmax", x, lengths, false) }

// LogSoftmax is the logarithm of the softmax along the last dimension.
func LogSoftmax(x *Tensor) *Tensor { return softmax("LogSoftmax", x, nil, true) }

func softmax(op string, x *Tensor, lengths []int32, log bool) *Tensor {
	t := tapeOf(op, x)
	s := t.specs.softmax.put(device.SoftmaxSpec{Rows: x.rows(), Cols: x.dims[x.rank-1], X: x.value, Log: log})
	if lengths != nil {
		if len(lengths) != x.dims[0] || x.rank < 2 {
			failf(op, "input %s needs %d lengths, got %d", describe(x), x.dims[0], len(lengths))
		}
		s.Lens, s.RowsPerLen = t.lengths(lengths), s.Rows/max(x.dims[0], 1)
	}
	y := t.like(x)
	s.Y = y.value
	t.backend.Softmax(s)
	t.record(softmaxGrad, y, x).keeps(s)
	return y
}

func softmaxGrad(t *Tape, n *node) {
	s := n.spec.(*device.SoftmaxSpec)
	s.DY = n.out.grad
	if s.DX, s.AccX = n.in[0].into(); !s.DX.Zero() {
		t.backend.SoftmaxGrad(s)
	}
}

// LastStep is each row's last true step: [B,T,F] to [B,F]. With lengths on the
// tensor padding is never taken; a row of length 0 gives zeros.
//
// For a bidirectional layer this is the forward direction's end joined with the
// backward direction's first step; use the final state for both ends.
func LastStep(x *Tensor) *Tensor { return pool("LastStep", device.PoolLast, x) }

// MeanPool is the mean over each row's true steps: [B,T,F] to [B,F]; zeros for an empty row.
func MeanPool(x *Tensor) *Tensor { return pool("MeanPool", device.PoolMean, x) }

// MaxPool is the maximum over each row's true steps: [B,T,F] to [B,F]; zeros for an empty row.
func MaxPool(x *Tensor) *Tensor { return pool("MaxPool", device.PoolMax, x) }

func pool(op string, kind device.PoolKind, x *Tensor) *Tensor {
	t := tapeOf(op, x)
	if x.rank != 3 || x.seq != nil && x.seq.timeMajor {
		failf(op, "needs a batch [B,T,F], got %s", describe(x))
	}
	y := t.Empty(x.dims[0], x.dims[2])
	s := t.specs.pool.put(device.PoolSpec{Kind: kind, B: x.dims[0], T: x.dims[1], F: x.dims[2], X: x.value, Y: y.value, Lens: x.lens()})
	if kind == device.PoolMax {
		s.Arg = t.numbers.alloc(y.Len())
	}
	t.backend.Pool(s)
	t.record(poolGrad, y, x).keeps(s)
	return y
}

func poolGrad(t *Tape, n *node) {
	s := n.spec.(*device.PoolSpec)
	s.DY = n.out.grad
	if s.DX, s.AccX = n.in[0].into(); !s.DX.Zero() {
		t.backend.PoolGrad(s)
	}
}
