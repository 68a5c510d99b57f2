package tensor

import "github.com/carousel-ml/carousel/internal/device"

// Embed returns the rows of table [V,D] that ids [...] select, [...,D]
// (torch.nn.functional.embedding). The row of the id padding gets no gradient; -1
// means that every row does. It panics with a [*ShapeError] for an id outside 0 to
// V-1.
func Embed(table *Tensor, ids *Ints, padding int) *Tensor {
	table.live("Embed")
	t := ids.tape
	ids.check("Embed", t)
	if table.tape == nil {
		table.with("Embed", t)
	}
	if table.rank != 2 {
		failf("Embed", "needs a table [V,D], got %s", describe(table))
	}
	v, d := table.dims[0], table.dims[1]
	for i, id := range ids.v {
		if id < 0 || int(id) >= v {
			failf("Embed", "id %d at position %d is outside the table %s", id, i, describe(table))
		}
	}
	dims := ids.dims
	dims[ids.rank] = d
	y := t.Empty(dims[:ids.rank+1]...)
	y.seq = ids.seq // ids are never time-major
	s := t.specs.embed.put(device.EmbedSpec{Table: table.value, V: v, D: d, IDs: ids.on, Padding: int32(padding), Y: y.value})
	t.backend.Embed(s)
	t.record(embedGrad, y, table).keeps(s)
	return y
}

func embedGrad(t *Tape, n *node) {
	s := n.spec.(*device.EmbedSpec)
	s.DY, s.DTable = n.out.grad, n.in[0].intoZeroed()
	t.backend.EmbedGrad(s)
}

// check panics unless x is on tape t and was made after its last Reset.
func (x *Ints) check(op string, t *Tape) {
	if x.tape != t || x.epoch != t.epoch {
		failf(op, "ids are on another tape, or used after their tape was reset")
	}
}

// LayerNorm normalises the last dimension of x [...,F] to mean 0 and variance 1
// (biased, with eps inside the root), then multiplies by gamma and adds beta, both
// [F] (Ba et al. 2016; torch.nn.functional.layer_norm). It panics with a
// [*ShapeError] if shapes do not fit.
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

// Softmax returns the softmax of x [...,F] along the last dimension. With lengths,
// one for each index of the first dimension of two or more, only the first lengths[b]
// columns of its rows take part and the others are zero, so a length of 0 gives
// zeros; nil means F. It panics with a [*ShapeError] if lengths do not fit.
func Softmax(x *Tensor, lengths []int32) *Tensor { return softmax("Softmax", x, lengths, false) }

// LogSoftmax returns the logarithm of the softmax along the last dimension.
func LogSoftmax(x *Tensor) *Tensor { return softmax("LogSoftmax", x, nil, true) }

func softmax(op string, x *Tensor, lengths []int32, log bool) *Tensor {
	t := tapeOf(op, x)
	if lengths != nil && x.rank < 2 {
		failf(op, "lengths need two dimensions, got %s", describe(x))
	}
	y := t.like(x)
	s := t.specs.softmax.put(device.SoftmaxSpec{Rows: x.rows(), Cols: x.dims[x.rank-1], X: x.value, Y: y.value, Log: log,
		Lens: t.lengths(op, lengths, x.dims[0]), RowsPerLen: x.rows() / max(x.dims[0], 1)})
	t.backend.Softmax(s)
	t.record(softmaxGrad, y, x).keeps(s)
	return y
}

func softmaxGrad(t *Tape, n *node) {
	s := n.spec.(*device.SoftmaxSpec)
	s.DY = n.out.grad
	s.DX, s.AccX = n.in[0].into()
	t.backend.SoftmaxGrad(s)
}

// LastStep returns the last true step of each row: [B,T,F] to [B,F]. A row of length
// 0 gives zeros. It panics with a [*ShapeError] if x is not a batch [B,T,F], as do
// [MeanPool] and [MaxPool].
//
// Of the output of a bidirectional layer this is the last step of the forward
// direction and the first one of the backward direction; the final state has the
// last step of both.
func LastStep(x *Tensor) *Tensor { return pool("LastStep", device.PoolLast, x) }

// MeanPool returns the mean over the true steps of each row: [B,T,F] to [B,F]. A row
// of length 0 gives zeros.
func MeanPool(x *Tensor) *Tensor { return pool("MeanPool", device.PoolMean, x) }

// MaxPool returns the maximum over the true steps of each row: [B,T,F] to [B,F]. A
// row of length 0 gives zeros.
func MaxPool(x *Tensor) *Tensor { return pool("MaxPool", device.PoolMax, x) }

func pool(op string, kind device.PoolKind, x *Tensor) *Tensor {
	t := tapeOf(op, x)
	checkBatch(op, x)
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
	s.DX, s.AccX = n.in[0].into()
	t.backend.PoolGrad(s)
}
