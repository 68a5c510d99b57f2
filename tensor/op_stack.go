package tensor

import (
	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/device"
)

// mostScans is the most directions of all layers that are offered to a device at once.
const mostScans = 32

// stack is layers that the device takes at once. The nodes of its scans lie side
// by side: whichever comes first on the way back runs them all, since the
// gradients of the last layer and of all final states are there by then.
type stack struct {
	device.StackSpec
	scans [mostScans]*device.ScanSpec
	nodes [mostScans]*node // nil: of no gradient
	done  bool
}

// TakesStacks says whether there is any use in offering the device a [ScanStack].
func (d *Device) TakesStacks() bool {
	_, ok := d.backend.(device.StackScanner)
	return ok
}

// ScanStack offers the device layers that feed each other with nothing between
// them, each of so many directions, and reports whether it took them. Then y is
// the last layer's output; else nothing has happened, and [Scan] does each layer.
func ScanStack(kind cell.Kind, x *Tensor, dirs []Direction, directions int, o *cell.Options, init, final *State) (y *Tensor, ok bool) {
	t := tapeOf("ScanStack", x, dirs[0].Params[cell.W])
	b, ok := t.backend.(device.StackScanner)
	if !ok || t.tracing || len(dirs) > mostScans || len(dirs) < 2 {
		return nil, false
	}
	if o == nil {
		o = &noOptions
	}
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
			y.seq = x.seq
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

// between stands for the output of a layer that only the device sees.
func (t *Tape) between(x *Tensor, width int) *Tensor {
	y := t.tensors.next()
	y.tape, y.epoch, y.seq = t, t.epoch, x.seq
	y.dims, y.rank = [maxRank]int{x.dims[0], x.dims[1], width}, 3
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
