package tensor

// Rows returns rows lo to hi-1 of a parameter [N,...] as a tensor on the tape that
// shares the parameter's memory: [hi-lo,...]. Gradients are added to those rows of
// the parameter's gradient. It panics with a [*ShapeError] unless 0 <= lo <= hi <= N.
func (t *Tape) Rows(p *Param, lo, hi int) *Tensor {
	p.live("Rows")
	p.with("Rows", t)
	if lo < 0 || hi < lo || hi > p.dims[0] {
		failf("Rows", "[%d,%d) of a parameter %s", lo, hi, describe(&p.Tensor))
	}
	row := p.Len() / p.dims[0]
	y := t.tensor(p.dims[:p.rank]...)
	y.dims[0] = hi - lo
	y.within = p
	y.value = p.value.Slice(lo*row, hi*row)
	if t.mode == Train {
		y.grad, y.gradSet, y.needs = p.grad.Slice(lo*row, hi*row), true, true
	}
	return y
}
