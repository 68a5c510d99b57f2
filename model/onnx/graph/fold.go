package graph

import "github.com/carousel-ml/carousel/tensor"

// folder runs nodes with only constant inputs when the file is read, so that
// weights that an exporter divided and joined by operators are still constant
// weights.
type folder struct{ r *run }

// newFolder limits the constants to a few times their original size.
func newFolder(m *Model) *folder {
	budget := 1 << 16
	for _, c := range m.constants {
		if c != nil {
			budget += 4 * c.len()
		}
	}
	return &folder{&run{m: m, tape: tensor.NewTape(m.dev, tensor.Infer), vals: make([]*value, len(m.names)), left: min(budget, m.budget)}}
}

// fold runs n and keeps its results, if that is possible. An error is reported
// when the model runs.
func (f *folder) fold(n *node) bool {
	if len(n.in) == 0 || n.branches != nil || n.def.prepare != nil && n.op != "Gather" {
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
			v := r.vals[slot]
			m.constants[slot] = &value{dims: v.dims, kind: v.kind, dtype: v.dtype, ints: v.ints, host: v.host}
		}
	}
	return true
}
