package tensor

import (
	"slices"
	"sync"

	"github.com/carousel-ml/carousel/internal/cpu"
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/simd"
)

// maxRank is the most dimensions a tensor can have.
const maxRank = 4

// Tensor is a dense row-major block of float32 with 1 to 4 dimensions. It lives
// on a tape until the tape's next Reset (using it later panics), or, as part of
// a [Param], in a slab for as long as that is used.
type Tensor struct {
	dims    [maxRank]int
	rank    int
	value   device.Buffer
	grad    device.Buffer
	gradSet bool // grad holds a gradient: add to it, else overwrite
	needs   bool // a gradient is wanted
	tape    *Tape
	epoch   uint64 // the tape's epoch at birth
	seq     *sequence
	param   *Param
	within  *Param // of Tape.Rows: the parameter that value and grad are part of
}

// Device is where tensors live and operations run.
type Device struct{ backend device.Backend }

var defaultCPU = sync.OnceValue(func() *Device { return &Device{cpu.New(simd.Best())} })

// CPU is this machine's processor, with the best kernels it can run;
// CAROUSEL_SIMD=avx512, avx2 or generic in the environment forces a set (and
// CPU panics if that one does not run here).
func CPU() *Device { return defaultCPU() }

// Kernels names the kernel sets that run on this machine, best first.
func Kernels() []string {
	var names []string
	for _, s := range simd.Sets() {
		names = append(names, s.Name)
	}
	return names
}

// CPUWith is the processor with one kernel set of [Kernels]; nil if it has no such set.
func CPUWith(kernels string) *Device {
	for _, s := range simd.Sets() {
		if s.Name == kernels {
			return &Device{cpu.New(s)}
		}
	}
	return nil
}

// NewDevice is a device that computes with b, for the packages of this module.
func NewDevice(b device.Backend) *Device { return &Device{b} }

func (d *Device) orCPU() *Device {
	if d == nil {
		return CPU()
	}
	return d
}

// RunsAhead says whether operations may return before they are done, so that
// reading a number costs a wait.
func (d *Device) RunsAhead() bool { return d.backend.RunsAhead() }

// Name says which device and kernels these are, such as "cpu/avx512".
func (d *Device) Name() string { return d.backend.Name() }

// Backend is the device's own interface, for the packages of this module.
func (d *Device) Backend() device.Backend { return d.backend }

// Dims is the shape; the slice is the caller's.
func (t *Tensor) Dims() []int { return slices.Clone(t.dims[:t.rank]) }

// Rank is the number of dimensions.
func (t *Tensor) Rank() int { return t.rank }

// Dim is the size of dimension i; a negative i counts from the end.
func (t *Tensor) Dim(i int) int {
	if i < 0 {
		i += t.rank
	}
	if i < 0 || i >= t.rank {
		failf("Dim", "dimension %d of a tensor %s", i, describe(t))
	}
	return t.dims[i]
}

// Len is the number of elements.
func (t *Tensor) Len() int { return t.value.N }

// Lengths is each row's true length in steps, or nil if every row fills the
// tensor. The slice is the tensor's own: do not change it.
func (t *Tensor) Lengths() []int32 {
	if t.seq == nil {
		return nil
	}
	return t.seq.lengths
}

// lens is Lengths on the device, absent if every row fills the tensor.
func (t *Tensor) lens() device.Ints {
	if t.seq == nil {
		return device.Ints{}
	}
	return t.seq.on.lengths
}

// Tape is the tape a tensor lives on, nil for a parameter.
func (t *Tensor) Tape() *Tape { return t.tape }

// Data waits for the value and returns a copy of it.
func (t *Tensor) Data() []float32 {
	out := make([]float32, t.Len())
	t.CopyTo(out)
	return out
}

// CopyTo waits for the value and copies its first len(dst) elements to dst.
func (t *Tensor) CopyTo(dst []float32) {
	t.live("CopyTo")
	if len(dst) > t.Len() {
		failf("CopyTo", "%d elements wanted from a tensor %s", len(dst), describe(t))
	}
	t.backend().Download(dst, t.value)
}

// Item waits for and returns the value of a tensor of one element.
func (t *Tensor) Item() float32 {
	if t.Len() != 1 {
		failf("Item", "needs one element, got %s", describe(t))
	}
	t.live("Item")
	// The scratch is the tape's, so that reading a loss every step allocates nothing.
	if t.tape != nil {
		t.backend().Download(t.tape.item[:], t.value)
		return t.tape.item[0]
	}
	return t.Data()[0]
}

// Grad waits for the gradient that [Tensor.Backward] left here and returns a
// copy: zeros where none arrived, nil if none was wanted.
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

// RequireGrad asks for the gradient of an input (parameters always have theirs)
// and returns t. Call it before the tensor is used.
func (t *Tensor) RequireGrad() *Tensor {
	t.needs = t.needs || t.tape == nil || t.tape.mode == Train
	return t
}

// Backward fills the gradients of everything a one-element tensor was computed
// from: dt/dx is added to each parameter's gradient and stored in each tensor's.
// It may be called once for each Reset.
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

// live panics if t's tape has been reset since t was made.
func (t *Tensor) live(op string) {
	switch {
	case t.tape != nil && t.epoch != t.tape.epoch:
		failf(op, "a tensor %s is used after its tape was reset", describe(t))
	case t.tape == nil && t.param == nil, t.tape == nil && t.param.slab == nil:
		failf(op, "parameter %s has no memory yet: call tensor.Pack first", describe(t))
	}
}

// rows is the number of vectors along the last dimension.
func (t *Tensor) rows() int {
	if n := t.dims[t.rank-1]; n > 0 {
		return t.Len() / n
	}
	return 0
}

func (t *Tensor) sameShape(u *Tensor) bool { return t.rank == u.rank && t.dims == u.dims }

// into returns the gradient buffer that a backward pass writes for t, and
// whether to add to it. An absent buffer: no gradient is wanted.
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

// adopt makes g, which nobody else uses, the gradient of t and says true if
// nothing has been written to that yet.
func (t *Tensor) adopt(g device.Buffer) bool {
	if !t.needs || t.gradSet || !t.grad.Zero() {
		return false
	}
	t.grad, t.gradSet = g, true
	return true
}

// intoZeroed is into for a backward pass that touches only some elements: the
// rest are made zero first, and the pass always adds.
func (t *Tensor) intoZeroed() device.Buffer {
	g, acc := t.into()
	if !acc && !g.Zero() {
		t.backend().Fill(g, 0)
	}
	return g
}
