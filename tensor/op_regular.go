package tensor

// Param copies a parameter to a tensor on the tape, for operations whose operands
// must be on a tape. Gradients are added to the parameter's.
func (t *Tape) Param(p *Param) *Tensor {
	p.live("Param")
	p.with("Param", t)
	y := t.Empty(p.dims[:p.rank]...)
	t.backend.Copy(y.value, p.value, false)
	t.record(copyGrad, y, &p.Tensor)
	return y
}

// DropoutSequence applies [Dropout] to a time-major batch [T,B,F] with one mask per
// row for all of its steps: variational (Gal and Ghahramani 2016) or locked dropout
// (Merity et al. 2018). The mask of a row depends on its place in the batch before
// [TimeMajor], not on lengths. It panics with a [*ShapeError] unless x is time-major
// and 0 <= p < 1.
func DropoutSequence(x *Tensor, p float32) *Tensor {
	t := tapeOf("DropoutSequence", x)
	checkTime("DropoutSequence", x)
	if !t.drop("DropoutSequence", p) {
		return x
	}
	ones := t.Empty(1, x.dims[1], x.dims[2])
	t.backend.Fill(ones.value, 1)
	mask := Dropout(ones, p)
	return Mul(x, t.stateIn("mask", mask, x, mask, 0))
}

// ActivityPenalty returns weight times the mean of y² over the true steps of y
// [B,T,F], a tensor [1] to add to a loss: the activation regularisation (AR) of
// Merity et al. 2018. It panics with a [*ShapeError] if y is not a batch [B,T,F].
func ActivityPenalty(y *Tensor, weight float32) *Tensor {
	t := tapeOf("ActivityPenalty", y)
	checkBatch("ActivityPenalty", y)
	return MulScalar(MSE(y, t.Zeros(y.dims[:y.rank]...), nil), weight)
}

// TemporalPenalty returns weight times the mean of (y[t+1]-y[t])² over the true
// steps of y [B,T,F], a tensor [1] to add to a loss: the temporal activation
// regularisation (TAR) of Merity et al. 2018. Rows of fewer than two steps do not
// count. It panics with a [*ShapeError] if y is not a batch [B,T,F].
func TemporalPenalty(y *Tensor, weight float32) *Tensor {
	t := tapeOf("TemporalPenalty", y)
	checkBatch("TemporalPenalty", y)
	B, T := y.dims[0], y.dims[1]
	if T < 2 {
		return t.Zeros(1)
	}
	d := Sub(Slice(y, 1, 1, T), Slice(y, 1, 0, T-1))
	if y.seq != nil {
		pairs := t.ints.alloc(B)
		for b, n := range y.seq.lengths {
			pairs[b] = max(n-1, 0)
		}
		d.seq = t.sequence("TemporalPenalty", pairs, B, T-1)
	}
	return MulScalar(MSE(d, t.Zeros(d.dims[:d.rank]...), nil), weight)
}
