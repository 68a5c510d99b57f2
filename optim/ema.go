package optim

import (
	"fmt"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/tensor"
)

// EMA is the exponential moving average of a slab's weights. The first Update
// copies them; each later one sets avg = decay·avg + (1-decay)·w
// (torch.optim.swa_utils.AveragedModel with get_ema_avg_fn).
type EMA struct {
	slab    *tensor.Slab
	avg     device.Buffer
	tmp     device.Buffer
	weight  float32 // 1-decay
	updates int
}

// NewEMA creates an average with 0 <= decay < 1, such as 0.999. It panics with a
// [*tensor.UseError] outside that range.
func NewEMA(slab *tensor.Slab, decay float64) *EMA {
	tensor.Check(decay >= 0 && decay < 1, "optim", "the decay of an EMA must be in [0,1), got %v", decay)
	b, n := slab.Device().Backend(), slab.Values().N
	return &EMA{slab: slab, avg: b.Alloc(n), tmp: b.Alloc(n), weight: float32(1 - decay)}
}

// Update adds the current weights to the moving average. Call it after each
// step.
func (e *EMA) Update() {
	b := e.slab.Device().Backend()
	if e.updates == 0 {
		b.Copy(e.avg, e.slab.Values(), false)
	} else {
		b.Lerp(e.avg, e.slab.Values(), e.weight)
	}
	e.updates++
}

// Swap exchanges the weights and the average: call it once to evaluate the
// average, and again to continue training. Before the first Update it does
// nothing.
func (e *EMA) Swap() {
	if e.updates == 0 {
		return
	}
	b, w := e.slab.Device().Backend(), e.slab.MutableValues()
	b.Copy(e.tmp, w, false)
	b.Copy(w, e.avg, false)
	b.Copy(e.avg, e.tmp, false)
}

// State waits for the device and returns a copy of the average and the number
// of updates.
func (e *EMA) State() ([]Vector, int) {
	return read(nil, e.slab, "ema", e.avg), e.updates
}

// LoadState restores what State returned. It returns an error, and changes
// nothing, if a parameter is missing from vs or has another shape there, or
// updates is negative.
func (e *EMA) LoadState(vs []Vector, updates int) error {
	if updates < 0 {
		return fmt.Errorf("the saved average has %d updates", updates)
	}
	if err := check(vs, e.slab, "ema"); err != nil {
		return err
	}
	write(vs, e.slab, "ema", e.avg)
	e.updates = updates
	return nil
}
