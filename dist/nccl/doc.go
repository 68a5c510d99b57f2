// Package nccl is a transport of ranks that have a GPU each: bytes travel by
// NVIDIA's NCCL, over NVLink, PCIe or the network. NCCL and CUDA's driver are
// loaded at run time, without cgo; the package is empty without the build tag dl,
// and on systems other than Linux.
//
// What has run: NCCL 2.32 itself as far as it goes without a GPU (its version, its
// unique ids, its texts of errors), and the transport on a stand-in for NCCL and
// the driver, of one to three ranks. What has not: any of it on a GPU; a test of a
// world of one does so where there is one. More ranks over NCCL itself are
// untested.
//
// Environment: CAROUSEL_NCCL is the path of libnccl.so.2, for when the dynamic
// linker does not find it, such as that of PyPI's nvidia-nccl-cu12.
package nccl
