package tensor

import (
	"slices"
	"sync"

	"github.com/carousel-ml/carousel/internal/cpu"
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/simd"
)

// maxRank is the largest number of dimensions of a tensor.
const maxRank = 4

// Tensor is a dense row-major array of float32 with 1 to 4 dimensions. A tensor on
// a tape is valid until the tape's next Reset; using it later panics with a
// [*ShapeError]. The tensor of a [Param] is on no tape and stays valid.
type Tensor struct {
	dims    [maxRank]int
	rank    int
	value   device.Buffer
	grad    device.Buffer
	gradSet bool // grad holds a gradient: add to it, else overwrite
	needs   bool // a gradient is required
	tape    *Tape
	epoch   uint64 // the tape's epoch when the tensor was made
	layout
	param  *Param
	within *Param // of Tape.Rows: the parameter that value and grad are part of
}

// layout describes the rows of a padded batch; the zero value is any other tensor.
type layout struct {
	seq       *sequence
	timeMajor bool // with seq: the tensor is [T,B,F] with the rows in sorted order, not [B,T,F]
}

// Device is a device that stores tensors and runs operations. It may be used by
// several goroutines.
type Device struct{ backend device.Backend }

var defaultCPU = sync.OnceValue(func() *Device { return &Device{cpu.New(simd.Best())} })

// CPU returns the processor with the fastest kernel set that runs on it. The
// environment variable CAROUSEL_SIMD=amx, avx512bf16, avx512, avx2 or generic selects a set; CPU
// panics if the processor cannot run that one.
func CPU() *Device { return defaultCPU() }

// CPUWith returns the processor with the kernel set of a name, such as "generic". The error
// lists those of this machine.
func CPUWith(kernels string) (*Device, error) {
	set, err := simd.Named(kernels)
	if err != nil {
		return nil, err
	}
	return &Device{cpu.New(set)}, nil
}

// NewDevice returns a device that computes with b, for the packages of this module.
func NewDevice(b device.Backend) *Device { return &Device{b} }

func (d *Device) orCPU() *Device {
	if d == nil {
		return CPU()
	}
	return d
}

// RunsAhead reports whether operations may return before they are done, so that
// reading a number has to wait.
func (d *Device) RunsAhead() bool { return d.backend.RunsAhead() }

// Name returns the name of the device and its kernels, such as "cpu/avx512".
func (d *Device) Name() string { return d.backend.Name() }

// Backend returns the device's implementation, for the packages of this module.
func (d *Device) Backend() device.Backend { return d.backend }

// Dims returns a copy of the shape.
func (t *Tensor) Dims() []int { return slices.Clone(t.dims[:t.rank]) }

// Rank returns the number of dimensions.
func (t *Tensor) Rank() int { return t.rank }

// Dim returns the size of dimension i; a negative i counts from the end. It panics
// with a [*ShapeError] if there is no such dimension.
func (t *Tensor) Dim(i int) int {
	if i < 0 {
		i += t.rank
	}
	if i < 0 || i >= t.rank {
		failf("Dim", "dimension %d of a tensor %s", i, describe(t))
	}
	return t.dims[i]
}

// Len returns the number of elements.
func (t *Tensor) Len() int { return t.value.N }

// Lengths returns the true length of each row in steps, [B], or nil if every row
// fills the tensor. The slice belongs to the tape: do not change it, and do not use
// it after Reset.
func (t *Tensor) Lengths() []int32 {
	if t.seq == nil {
		return nil
	}
	return t.seq.lengths
}

// lens returns Lengths on the device, absent if every row fills the tensor.
func (t *Tensor) lens() device.Ints {
	if t.seq == nil {
		return device.Ints{}
	}
	return t.seq.on.lengths
}

// Tape returns the tensor's tape, nil for a parameter.
func (t *Tensor) Tape() *Tape { return t.tape }

// Data waits for the value and returns a copy of the elements.
func (t *Tensor) Data() []float32 {
	out := make([]float32, t.Len())
	t.CopyTo(out)
	return out
}

// CopyTo waits for the value and copies its first len(dst) elements to dst. It
// panics with a [*ShapeError] if the tensor has fewer.
func (t *Tensor) CopyTo(dst []float32) {
	t.live("CopyTo")
	if len(dst) > t.Len() {
		failf("CopyTo", "%d elements requested from a tensor %s", len(dst), describe(t))
	}
	t.backend().Download(dst, t.value)
}

// Item waits for and returns the value of a tensor of one element. It panics with a
// [*ShapeError] if the tensor has another number of elements.
func (t *Tensor) Item() float32 {
	if t.Len() != 1 {
		failf("Item", "needs one element, got %s", describe(t))
	}
	t.live("Item")
	// The tape's scratch memory: reading a loss at every step must not allocate.
	if t.tape != nil {
		t.backend().Download(t.tape.item[:], t.value)
		return t.tape.item[0]
	}
	return t.Data()[0]
}

// Grad waits for the gradient that [Tensor.Backward] computed and returns a copy:
// zeros if the loss does not depend on t, nil if t needs no gradient (see
// [Tensor.RequireGrad]).
func (t *Tensor) Grad() []float32 {
	t.live("Grad")
	if !t.needs {
		return nil
	}
	out := make([]float32, t.Len())
	if t.gradSet {
		t.backend().Download(out, t.grad)
	}
	return out
}

// RequireGrad makes Backward compute the gradient of an input, on a tape in Train
// mode, and returns t. Call it before an operation reads t. Parameters always have
// a gradient.
func (t *Tensor) RequireGrad() *Tensor {
	t.needs = t.needs || t.tape == nil || t.tape.mode == Train
	return t
}

// Backward computes the gradients of t, a loss of one element, with respect to
// everything that it was computed from: they are added to the gradients of
// parameters and stored as those of other tensors. It may be called once per
// [Tape.Reset]. It panics with a [*ShapeError] if t has several elements, its tape
// is not in Train mode, or Backward was called before.
func (t *Tensor) Backward() {
	if t.Len() != 1 {
		failf("Backward", "needs a loss of one element, got %s", describe(t))
	}
	t.live("Backward")
	if t.tape == nil || t.tape.mode != Train {
		failf("Backward", "needs a tape in Train mode")
	}
	t.tape.backward(t)
}

func (t *Tensor) backend() device.Backend {
	if t.tape != nil {
		return t.tape.backend
	}
	return t.param.slab.dev.backend
}

// live panics if t's tape was reset after t was made, or t is a parameter that was
// not packed.
func (t *Tensor) live(op string) {
	switch {
	case t.tape != nil && t.epoch != t.tape.epoch:
		failf(op, "a tensor %s is used after its tape was reset", describe(t))
	case t.tape == nil && t.param == nil, t.tape == nil && t.param.slab == nil:
		failf(op, "parameter %s has no memory yet: call tensor.Pack first", describe(t))
	}
}

// rows returns the number of vectors along the last dimension.
func (t *Tensor) rows() int {
	if n := t.dims[t.rank-1]; n > 0 {
		return t.Len() / n
	}
	return 0
}

func (t *Tensor) sameShape(u *Tensor) bool { return t.rank == u.rank && t.dims == u.dims }

// memory returns the values of t, absent if t is nil.
func (t *Tensor) memory() (m device.Buffer) {
	if t != nil {
		m = t.value
	}
	return m
}

// into returns the gradient buffer that a backward pass writes for t, and whether
// it has to add to it. The buffer is absent if t needs no gradient.
func (t *Tensor) into() (g device.Buffer, acc bool) {
	if t == nil || !t.needs {
		return device.Buffer{}, false
	}
	if t.grad.Zero() && t.Len() > 0 {
		t.grad = t.tape.arena.alloc(t.Len())
	}
	acc = t.gradSet
	t.gradSet = true
	return t.grad, acc
}

// adopt makes g, which has no other use, the gradient of t and returns true,
// unless t needs none or has one.
func (t *Tensor) adopt(g device.Buffer) bool {
	if !t.needs || t.gradSet || !t.grad.Zero() {
		return false
	}
	t.grad, t.gradSet = g, true
	return true
}

// intoZeroed is into for a backward pass that writes only some of the elements: it
// clears the buffer first, and the pass always adds.
func (t *Tensor) intoZeroed() device.Buffer {
	g, acc := t.into()
	if !acc && !g.Zero() {
		t.backend().Fill(g, 0)
	}
	return g
}
