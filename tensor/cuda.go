package tensor

import "github.com/carousel-ml/carousel/internal/cuda"

// CUDAOptions is how a GPU computes. The zero value is float32 with the fastest kernels
// whose results repeat on one GPU with one set of libraries.
type CUDAOptions struct {
	// TF32 rounds the operands of float32 products to the 10 bits of mantissa of tensor
	// cores, which is faster; sums stay float32. bf16 and fp16 are a tape's precision.
	TF32 bool
	// Deterministic uses no cuBLASLt and no cuDNN, whose choice of algorithm depends on
	// their version and on the GPU: then no bit depends on other rows of the batch.
	Deterministic bool
}

// CUDA returns an NVIDIA GPU of this machine, from 0 on in the driver's order. It needs
// Linux, a binary with the build tag dl (carousel-dl), NVIDIA's driver and NVRTC; cuBLASLt
// and cuDNN are used where they are found. The error is one line that says what is missing
// and what to do. Each call opens the GPU anew: devices share no memory and no kernels.
func CUDA(ordinal int, o CUDAOptions) (*Device, error) {
	b, err := cuda.Open(ordinal, cuda.Options(o))
	if err != nil {
		return nil, err
	}
	return NewDevice(b), nil
}

// CUDASetup is what a machine has for CUDA, for the command of this module.
type CUDASetup = cuda.Setup

// LookForCUDA returns what [CUDA] would use and where it looked, also beside the error that
// CUDA would return for every GPU.
func LookForCUDA() (*CUDASetup, error) { return cuda.Look() }

// Lost returns the first error of a device that this process can use no more, or nil. Lack
// of memory is none.
func (d *Device) Lost() error {
	if b, ok := d.backend.(interface{ Lost() error }); ok {
		return b.Lost()
	}
	return nil
}

// Notes returns what a user of the device may want to know, such as a library that was not
// found.
func (d *Device) Notes() []string {
	if b, ok := d.backend.(interface{ Notes() []string }); ok {
		return b.Notes()
	}
	return nil
}
