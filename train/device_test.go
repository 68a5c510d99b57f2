package train

import (
	"math"
	"testing"

	"github.com/carousel-ml/carousel/internal/cpu"
	"github.com/carousel-ml/carousel/internal/device/forwardtest"
	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/tensor"
)

// Fit reads loss and gradient norm at each 16th step and the last of an epoch
// from a device that runs ahead, one number of each validation, and nothing else;
// the weights get the bits they get where every step is read.
func TestFitDoesNotWaitForADevice(t *testing.T) {
	here, o := newJob(160), newOptions() // 20 steps an epoch
	o.Epochs, o.EMA, o.ClipValue = 2, 0.9, 0.5
	fit(t, here, o)
	b := forwardtest.New(cpu.New(simd.Best()))
	there := newJobOn(tensor.NewDevice(b), 160)
	b.Counts()
	fit(t, there, o)
	const reads = 5 // at steps 0, 16, 19, 32 and 39
	if c := b.Counts(); c.Downloads != 2*reads+2 || c.Syncs != 0 {
		t.Errorf("%d downloads and %d syncs, want %d and 0", c.Downloads, c.Syncs, 2*reads+2)
	}
	want, got := weights(here), weights(there)
	for i := range want {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			t.Fatalf("weight %d is %v, on the CPU %v", i, got[i], want[i])
		}
	}
}
