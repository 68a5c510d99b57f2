package tensor

// Rows is rows lo to hi of a parameter [N,...] as a tensor of the tape that
// shares its memory: what flows back is added to the parameter's gradient, and
// the other rows are not touched.
func (t *Tape) Rows(p *Param, lo, hi int) *Tensor {
	p.live("Rows")
	if lo < 0 || hi < lo || hi > p.dims[0] {
		failf("Rows", "[%d,%d) of a parameter %s", lo, hi, describe(&p.Tensor))
	}
	row := p.Len() / p.dims[0]
	y := t.tensors.next()
	y.tape, y.epoch = t, t.epoch
	y.dims, y.rank = p.dims, p.rank
	y.dims[0] = hi - lo
	y.within = p
	y.value = p.value.Slice(lo*row, hi*row)
	if t.mode == Train {
		y.grad, y.gradSet, y.needs = p.grad.Slice(lo*row, hi*row), true, true
	}
	return y
}
