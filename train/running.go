package train

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/tensor"
)

// running moves running statistics, such as those of nn.BatchNorm, on all ranks as one
// process moves them: by every batch of a step, in the order of their numbers. A rank
// notes the moves of its own batches, and all apply those of all.
type running struct {
	slab   *tensor.Slab
	number map[*tensor.Param]int
	own    []byte        // this rank's moves: the parameter's number, the share and the values that it moves towards
	values []float32     // of one move
	device device.Buffer // likewise
}

// newRunning returns nil if no parameter of the slab is a running statistic.
func newRunning(slab *tensor.Slab) *running {
	r := &running{slab: slab, number: map[*tensor.Param]int{}}
	n := 0
	for i, p := range slab.Params {
		if p.Running {
			r.number[p], n = i, max(n, p.Len())
		}
	}
	if n == 0 {
		return nil
	}
	r.values, r.device = make([]float32, n, n+1), slab.Device().Backend().Alloc(n)
	return r
}

// note is for the training tape's OnRunning.
func (r *running) note(p *tensor.Param, to *tensor.Tensor, share float32) {
	i, ok := 0, false
	if r != nil {
		i, ok = r.number[p]
	}
	if !ok {
		panic(&tensor.ShapeError{Op: "BatchNorm", Msg: fmt.Sprintf("the running statistic %q is not marked as Param.Running, so ranks cannot share it", p.Name)})
	}
	v := r.values[:p.Len()]
	to.CopyTo(v)
	r.own = binary.LittleEndian.AppendUint32(r.own, uint32(i))
	for _, x := range append(v, share) {
		r.own = binary.LittleEndian.AppendUint32(r.own, math.Float32bits(x))
	}
}

// apply moves the statistics by the batches of all ranks.
func (r *running) apply(w World) error {
	if r == nil {
		return nil
	}
	all, err := w.Share(r.own)
	if err != nil {
		return err
	}
	r.own = r.own[:0]
	b := r.slab.Device().Backend()
	next := func(text *[]byte) uint32 {
		bits := binary.LittleEndian.Uint32(*text)
		*text = (*text)[4:]
		return bits
	}
	for rank, text := range all {
		for len(text) >= 4 {
			i := next(&text)
			if int(i) >= len(r.slab.Params) || !r.slab.Params[i].Running || len(text) < 4*(r.slab.Params[i].Len()+1) {
				return fmt.Errorf("train: rank %d moves a running statistic that this rank has not: start all ranks alike", rank)
			}
			v := r.values[:r.slab.Params[i].Len()]
			for k := range v {
				v[k] = math.Float32frombits(next(&text))
			}
			share := math.Float32frombits(next(&text))
			on := r.device.Slice(0, len(v))
			b.Upload(on, v)
			b.Lerp(r.slab.MutableValues().Slice(r.slab.Range(int(i))), on, share)
		}
	}
	return nil
}
