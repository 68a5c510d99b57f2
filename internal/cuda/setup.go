package cuda

// Options is how a device computes. The zero value is float32 with the fastest
// kernels whose results repeat.
type Options struct {
	TF32          bool // products of float32 round their operands to the 10 bits of tensor cores
	Deterministic bool // own kernels only: no bit depends on a library's choice of algorithm
}

// Setup is what a machine has for CUDA, for people who look for what is missing.
type Setup struct {
	Libraries []Library // those that would be used
	GPUs      []GPU     // in the driver's order, which CUDA_VISIBLE_DEVICES changes
	Folders   []string  // where libraries were looked for, in order
	Notes     []string  // why something that was found is not used
}

// Library is a library of NVIDIA's that was loaded.
type Library struct {
	Name    string // driver, NVRTC, cuBLASLt or cuDNN
	Version string // of the driver, that of CUDA which it knows
	Path    string // the driver's may be a name that the dynamic linker finds
}

// GPU is one device.
type GPU struct {
	Name            string
	Capability      string // such as 9.0
	Multiprocessors int
	Memory          uint64 // bytes
}
