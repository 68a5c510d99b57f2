// Package cuda is the device.Backend for NVIDIA's GPUs. It loads CUDA's driver and
// NVRTC, and cuBLASLt and cuDNN where they are, at run time and without cgo; without
// the build tag dl, and on systems other than Linux, Open only says so.
//
// Nothing waits but Download: a method puts its kernels and library calls into a queue,
// and the queue is given to the device when somebody waits, when something comes after an
// optimizer's step, or when it is long. A queue of the same kernels and calls as an
// earlier one is a CUDA graph by then, and only the arguments that differ are set anew.
// So a training step is one launch.
//
// Kernels are in kernels/*.cu. They include nothing, are compiled for the device when
// they are needed first, and kept in the user's cache directory. Each takes one struct
// by value, whose fields a struct of Go here has in the same order. What the GPU has
// instructions for and C++ has not stands in kernels/prelude.cu, which can also be
// compiled for the CPU: so tests run the same kernels on a machine without a GPU
// (cudatest), with the same suite as every backend.
package cuda
