package train

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/carousel-ml/carousel/internal/cpu"
	"github.com/carousel-ml/carousel/internal/device"
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

// A run goes on from its checkpoint on any device, and says on which it was.
func TestResumeOnAnotherDevice(t *testing.T) {
	other := forwardtest.New(cpu.New(simd.Best()))
	devices := []*tensor.Device{tensor.CPU(), tensor.NewDevice(other)}
	for first := range devices {
		from, to := devices[first], devices[1-first]
		options := func() *Options {
			o := newOptions()
			o.Epochs, o.EMA = 2, 0.9
			return o
		}
		whole := newJobOn(from, 80)
		fit(t, whole, options())
		o := options()
		o.Dir = t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		job := newJobOn(from, 80)
		interrupt(job, 13, cancel)
		if r, err := Fit(ctx, job, o); err != nil || !r.Interrupted {
			t.Fatal(r, err)
		}
		o.Resume = true
		job = newJobOn(to, 80)
		r := fit(t, job, o)
		if want := []string{from.Name(), to.Name()}; !slices.Equal(r.Devices, want) {
			t.Errorf("devices %q, want %q", r.Devices, want)
		}
		if !sameBits(weights(whole), weights(job)) {
			t.Errorf("from %s to %s: other weights than those of one device", from.Name(), to.Name())
		}
	}
}

// failing is a device that fails at its n-th product.
type failing struct {
	device.Backend
	left int
	with *device.Error
}

func (f *failing) Gemm(s *device.GemmSpec) {
	if f.left--; f.left < 0 {
		panic(f.with) // as all that comes after, of a device that is lost
	}
	f.Backend.Gemm(s)
}

// A device that fails ends the run with its error, and the run goes on from its last
// checkpoint elsewhere.
func TestFailedDevice(t *testing.T) {
	options := func() *Options {
		o := newOptions()
		o.Epochs, o.CheckpointEvery = 2, 3
		return o
	}
	whole := newJobOn(tensor.CPU(), 80)
	fit(t, whole, options())
	lost := &failing{Backend: cpu.New(simd.Best()), left: math.MaxInt, with: &device.Error{Device: "cuda:0 (a GPU)", Text: "lost"}}
	o := options()
	o.Dir = t.TempDir()
	job := newJobOn(tensor.NewDevice(lost), 80)
	interrupt(job, 14, func() { lost.left = 2 })
	if r, err := Fit(t.Context(), job, o); !errors.Is(err, lost.with) || r != nil {
		t.Fatalf("%+v, %v", r, err)
	}
	o.Resume = true
	job = newJobOn(tensor.CPU(), 80)
	if r := fit(t, job, o); r.ResumedAt == 0 || r.ResumedAt >= 14 {
		t.Errorf("resumed at step %d", r.ResumedAt)
	}
	if !sameBits(weights(whole), weights(job)) {
		t.Error("other weights than those of a run without the failure")
	}
}
