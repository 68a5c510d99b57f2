//go:build dl && linux

package nccl

import (
	"fmt"
	"os"
	"unsafe"

	"github.com/carousel-ml/carousel/internal/dl"
)

// uniqueID is ncclUniqueId: what the ranks of a communicator have in common.
type uniqueID struct{ internal [128]byte }

// library is NCCL's functions (nccl.h of 2.32), without their prefix. They return
// an ncclResult_t.
type library struct {
	getVersion        func(version *int32) int32
	getUniqueID       func(id *uniqueID) int32
	commInitRank      func(comm *uintptr, ranks int32, id uniqueID, rank int32) int32
	commGetAsyncError func(comm uintptr, result *int32) int32
	commAbort         func(comm uintptr) int32
	commDestroy       func(comm uintptr) int32
	groupStart        func() int32
	groupEnd          func() int32
	send              func(buffer, count uintptr, datatype, peer int32, comm, stream uintptr) int32
	recv              func(buffer, count uintptr, datatype, peer int32, comm, stream uintptr) int32
	getErrorString    func(result int32) string
}

const (
	ncclUint8      = 1 // an ncclDataType_t
	ncclInProgress = 7 // an ncclResult_t
)

// openNCCL loads NCCL.
func openNCCL() (*library, error) {
	path := os.Getenv("CAROUSEL_NCCL")
	if path == "" {
		path = "libnccl.so.2"
	}
	loaded, err := dl.Open(path, false)
	if err != nil {
		return nil, fmt.Errorf("no NCCL: %w: set CAROUSEL_NCCL to the path of libnccl.so.2", err)
	}
	return bindNCCL(loaded)
}

func bindNCCL(loaded *dl.Library) (*library, error) {
	l := &library{}
	if err := loaded.Functions(map[string]any{
		"ncclGetVersion":        &l.getVersion,
		"ncclGetUniqueId":       &l.getUniqueID,
		"ncclCommInitRank":      &l.commInitRank,
		"ncclCommGetAsyncError": &l.commGetAsyncError,
		"ncclCommAbort":         &l.commAbort,
		"ncclCommDestroy":       &l.commDestroy,
		"ncclGroupStart":        &l.groupStart,
		"ncclGroupEnd":          &l.groupEnd,
		"ncclSend":              &l.send,
		"ncclRecv":              &l.recv,
		"ncclGetErrorString":    &l.getErrorString,
	}); err != nil {
		return nil, err
	}
	return l, nil
}

// check makes an error of an ncclResult_t.
func (l *library) check(name string, result int32) error {
	if result == 0 {
		return nil
	}
	return fmt.Errorf("nccl: %s: %s", name, dl.OneLine(l.getErrorString(result)))
}

// driver is the functions of CUDA's driver that are needed here (cuda.h of 12),
// without their prefix and version. They return a CUresult.
type driver struct {
	init              func(flags uint32) int32
	deviceGet         func(device *int32, ordinal int32) int32
	primaryCtxRetain  func(context *uintptr, device int32) int32
	primaryCtxRelease func(device int32) int32
	ctxSetCurrent     func(context uintptr) int32
	streamCreate      func(stream *uintptr, flags uint32) int32
	streamDestroy     func(stream uintptr) int32
	streamQuery       func(stream uintptr) int32
	streamSynchronize func(stream uintptr) int32
	memAlloc          func(address *uintptr, bytes uintptr) int32
	memFree           func(address uintptr) int32
	toDevice          func(to uintptr, from unsafe.Pointer, bytes, stream uintptr) int32
	toHost            func(to unsafe.Pointer, from, bytes, stream uintptr) int32
	getErrorString    func(result int32, text **byte) int32
}

const (
	streamNonBlocking = 1   // CU_STREAM_NON_BLOCKING
	notReady          = 600 // CUDA_ERROR_NOT_READY
)

// openDriver loads CUDA's driver.
func openDriver() (*driver, error) {
	loaded, err := dl.Open("libcuda.so.1", false)
	if err != nil {
		return nil, fmt.Errorf("no NVIDIA driver: %w", err)
	}
	return bindDriver(loaded)
}

func bindDriver(loaded *dl.Library) (*driver, error) {
	d := &driver{}
	return d, loaded.Functions(map[string]any{
		"cuInit":                       &d.init,
		"cuDeviceGet":                  &d.deviceGet,
		"cuDevicePrimaryCtxRetain":     &d.primaryCtxRetain,
		"cuDevicePrimaryCtxRelease_v2": &d.primaryCtxRelease,
		"cuCtxSetCurrent":              &d.ctxSetCurrent,
		"cuStreamCreate":               &d.streamCreate,
		"cuStreamDestroy_v2":           &d.streamDestroy,
		"cuStreamQuery":                &d.streamQuery,
		"cuStreamSynchronize":          &d.streamSynchronize,
		"cuMemAlloc_v2":                &d.memAlloc,
		"cuMemFree_v2":                 &d.memFree,
		"cuMemcpyHtoDAsync_v2":         &d.toDevice,
		"cuMemcpyDtoHAsync_v2":         &d.toHost,
		"cuGetErrorString":             &d.getErrorString,
	})
}

// check makes an error of a CUresult.
func (d *driver) check(name string, result int32) error {
	if result == 0 {
		return nil
	}
	var text *byte
	d.getErrorString(result, &text)
	return fmt.Errorf("cuda: %s: %s (%d)", name, dl.Text(text), result)
}
