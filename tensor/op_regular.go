package tensor

// Param is a parameter as a tensor of the tape, for operations that need one.
func (t *Tape) Param(p *Param) *Tensor {
	p.live("Param")
	y := t.Empty(p.dims[:p.rank]...)
	t.backend.Copy(y.value, p.value, false)
	t.record(paramGrad, y, &p.Tensor)
	return y
}

func paramGrad(t *Tape, n *node) {
	if dp, acc := n.in[0].into(); !dp.Zero() {
		t.backend.Copy(dp, n.out.grad, acc)
	}
}

// DropoutSequence is [Dropout] of a time-major batch [T,B,F] with one mask a
// row for all its steps (Gal and Ghahramani 2016: variational; Merity et al.
// 2018: locked). A row's mask depends on its place in the batch as given, not on
// anyone's length.
func DropoutSequence(x *Tensor, p float32) *Tensor {
	t := tapeOf("DropoutSequence", x)
	if x.rank != 3 || x.seq != nil && !x.seq.timeMajor {
		failf("DropoutSequence", "needs a time-major batch [T,B,F], got %s", describe(x))
	}
	if !(p >= 0 && p < 1) {
		failf("DropoutSequence", "probability must be in [0,1), got %v", p)
	}
	if p == 0 || t.mode != Train {
		return x
	}
	ones := t.Empty(1, x.dims[1], x.dims[2])
	t.backend.Fill(ones.value, 1)
	mask := Dropout(ones, p)
	return Mul(x, t.stateIn("mask", mask, x, mask, 0))
}

// ActivityPenalty is weight times the mean of y² over the true steps of y
// [B,T,F]: the activation regularisation (AR) of Merity et al. 2018, to be added
// to a loss.
func ActivityPenalty(y *Tensor, weight float32) *Tensor {
	t := tapeOf("ActivityPenalty", y)
	checkPenalty("ActivityPenalty", y)
	return MulScalar(MSE(y, t.Zeros(y.dims[:y.rank]...), nil), weight)
}

// TemporalPenalty is weight times the mean of (y[t+1]-y[t])² over the true steps
// of y [B,T,F]: the temporal activation regularisation (TAR) of Merity et al.
// 2018. Sequences of fewer than two steps count nothing.
func TemporalPenalty(y *Tensor, weight float32) *Tensor {
	t := tapeOf("TemporalPenalty", y)
	checkPenalty("TemporalPenalty", y)
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

func checkPenalty(op string, y *Tensor) {
	if y.rank != 3 || y.seq != nil && y.seq.timeMajor {
		failf(op, "needs a batch [B,T,F], got %s", describe(y))
	}
}
