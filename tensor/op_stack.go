package tensor

import (
	"cmp"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/device"
)

// mostScans is the largest number of scans (layers times directions) that are
// offered to a device at once.
const mostScans = 32

// stack is several layers that the device runs as a whole. The nodes of its scans
// are adjacent: the first of them in the backward pass runs all, since by then the
// gradients of the last layer and of all final states are complete.
type stack struct {
	device.StackSpec
	scans [mostScans]*device.ScanSpec
	nodes [mostScans]*node // nil for a scan that needs no gradient
	done  bool
}

// TakesStacks reports whether the device may accept a [ScanStack].
func (d *Device) TakesStacks() bool {
	_, ok := d.backend.(device.StackScanner)
	return ok
}

// ScanStack offers the device a whole stack of layers, each with 1 or 2 directions,
// whose output is directly the next layer's input, and reports whether it ran them:
// then y is the last layer's output. Otherwise nothing has changed, and the layers are
// to be run by [Scan], whose arguments these are.
func ScanStack(kind cell.Kind, x *Tensor, dirs []Direction, directions int, o *cell.Options, init, final *State) (y *Tensor, ok bool) {
	t := tapeOf("ScanStack", x, dirs[0].Params[cell.W])
	b, ok := t.backend.(device.StackScanner)
	if !ok || t.tracing || len(dirs) > mostScans || len(dirs) < 2 {
		return nil, false
	}
	o = cmp.Or(o, &noOptions)
	st := t.stacks.next()
	st.Scans, st.Dirs = st.scans[:len(dirs)], directions
	width := directions * final.H.dims[2]
	last := len(dirs) - directions
	for k := range dirs {
		in, out := x, t.between(x, width)
		if k >= directions {
			in = out
		}
		st.scans[k] = t.scanSpec(kind, in, out, k%directions, &dirs[k], o, final)
		st.scans[k].Keep = t.mode == Train
	}
	work, ok := b.StackWork(&st.StackSpec)
	if !ok {
		return nil, false
	}
	st.Work = t.arena.alloc(work)
	var states [mostScans][2]*Tensor
	in := x
	for layer := 0; layer < len(dirs); layer += directions {
		out := t.between(x, width)
		if layer == last {
			y = t.Empty(x.dims[0], x.dims[1], width)
			y.layout = x.layout
			out = y
		}
		for k := layer; k < layer+directions; k++ {
			s := st.scans[k]
			s.Y = out.value
			st.nodes[k], states[k][0], states[k][1] = t.begin(s, stackGrad, in, out, &dirs[k], o, init, final)
			if n := st.nodes[k]; n != nil {
				n.stack = st
			}
		}
		in = out
	}
	b.ScanStack(&st.StackSpec)
	for k := range dirs {
		t.end(x, states[k][0], states[k][1], &dirs[k], final)
	}
	return y, true
}

// between returns a tensor without memory for an output that only the device uses.
func (t *Tape) between(x *Tensor, width int) *Tensor {
	y := t.tensor(x.dims[0], x.dims[1], width)
	y.layout = x.layout
	return y
}

func stackGrad(t *Tape, n *node) {
	st := n.stack
	if st.done {
		return
	}
	st.done = true
	for k := len(st.Scans) - 1; k >= 0; k-- {
		if n := st.nodes[k]; n != nil {
			n.scanGradients()
		}
	}
	t.backend.(device.StackScanner).ScanStackGrad(&st.StackSpec)
}
