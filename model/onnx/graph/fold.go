package graph

import "github.com/carousel-ml/carousel/tensor"

// folder runs nodes with only constant inputs when the file is read, so that
// weights that an exporter divided and joined by operators are still constant
// weights.
type folder struct{ r *run }

// newFolder limits the constants to a few times their original size.
func newFolder(m *Model) *folder {
	f := &folder{&run{m: m, tape: tensor.NewTape(m.dev, tensor.Infer), vals: make([]*value, len(m.names)), left: 1 << 16}}
	for _, c := range m.constants {
		f.allow(c)
	}
	return f
}

// allow raises the limit for a constant of the file.
func (f *folder) allow(c *value) {
	if c != nil {
		f.r.left = min(f.r.left+4*c.len(), f.r.m.budget)
	}
}

// fold runs n and keeps its results, if that is possible; n is not needed then. An
// error is reported when the model runs.
func (f *folder) fold(n *node) bool {
	if n.op == "Constant" {
		f.allow(n.prepared.(*value))
		return true
	}
	if len(n.in) == 0 || n.branches != nil {
		return false
	}
	m, r := f.r.m, f.r
	for _, slot := range n.in {
		if slot >= 0 && m.constants[slot] == nil {
			return false
		}
	}
	defer func() {
		for _, slots := range [][]int{n.in, n.out} {
			for _, slot := range slots {
				if slot >= 0 {
					r.vals[slot] = nil
				}
			}
		}
	}()
	for _, slot := range n.in {
		if slot >= 0 {
			r.vals[slot] = m.constants[slot]
		}
	}
	if m.guard(n, func() { r.step(n) }) != nil {
		return false
	}
	for _, slot := range n.out {
		if slot >= 0 {
			v := r.firstLayout(n, r.vals[slot])
			m.constants[slot] = &value{dims: v.dims, kind: v.kind, dtype: v.dtype, ints: v.ints, host: v.host}
		}
	}
	return true
}
