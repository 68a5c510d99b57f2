//go:build dl && linux

package cuda

import (
	"fmt"
	"unsafe"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/dl"
)

// driver is the addresses of the functions of CUDA's driver (cuda.h of 12 and 13) that are
// used, by their names without cu. All return a CUresult.
type driver struct {
	lib *dl.Library

	init, driverGetVersion, getErrorName, getErrorString                                 uintptr
	deviceGetCount, deviceGet, deviceGetName, deviceGetAttribute, deviceTotalMem         uintptr
	primaryCtxRetain, primaryCtxRelease, ctxSetCurrent                                   uintptr
	deviceGetDefaultMemPool, memPoolSetAttribute                                         uintptr
	streamCreate, streamDestroy, streamSynchronize, streamBeginCapture, streamEndCapture uintptr
	eventCreate, eventRecord, eventSynchronize, eventElapsedTime, eventDestroy           uintptr
	memAllocAsync, memFreeAsync, memHostAlloc, memFreeHost, memGetInfo                   uintptr
	memcpyHtoDAsync, memcpyDtoHAsync, memcpyDtoDAsync, memsetD32Async                    uintptr
	moduleLoadData, moduleUnload, moduleGetFunction, funcSetAttribute                    uintptr
	launchKernel, launchCooperativeKernel                                                uintptr
	graphCreate, graphDestroy, graphAddKernelNode, graphAddChildGraphNode                uintptr
	graphKernelNodeSetAttribute                                                          uintptr
	graphInstantiate, graphExecDestroy, graphExecKernelNodeSetParams, graphLaunch        uintptr
}

// Values of cuda.h.
const (
	streamNonBlocking = 1
	captureThread     = 1 // CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
	hostMapped        = 3 // CU_MEMHOSTALLOC_PORTABLE | _DEVICEMAP
	eventNoTiming     = 2
	poolKeep          = 4 // CU_MEMPOOL_ATTR_RELEASE_THRESHOLD
	attrSMs           = 16
	attrMajor         = 75
	attrMinor         = 76
	attrSharedOptin   = 97
	attrCooperative   = 95
	attrPools         = 115
	funcMaxShared     = 8 // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
	nodeCooperative   = 2 // CU_LAUNCH_ATTRIBUTE_COOPERATIVE
	outOfMemory       = 2
	invalidValue      = 1
)

func bindDriver(lib *dl.Library) (*driver, error) {
	d := &driver{lib: lib}
	return d, lib.Bind(map[string]*uintptr{
		"cuInit":                            &d.init,
		"cuDriverGetVersion":                &d.driverGetVersion,
		"cuGetErrorName":                    &d.getErrorName,
		"cuGetErrorString":                  &d.getErrorString,
		"cuDeviceGetCount":                  &d.deviceGetCount,
		"cuDeviceGet":                       &d.deviceGet,
		"cuDeviceGetName":                   &d.deviceGetName,
		"cuDeviceGetAttribute":              &d.deviceGetAttribute,
		"cuDeviceTotalMem_v2":               &d.deviceTotalMem,
		"cuDevicePrimaryCtxRetain":          &d.primaryCtxRetain,
		"cuDevicePrimaryCtxRelease_v2":      &d.primaryCtxRelease,
		"cuCtxSetCurrent":                   &d.ctxSetCurrent,
		"cuDeviceGetDefaultMemPool":         &d.deviceGetDefaultMemPool,
		"cuMemPoolSetAttribute":             &d.memPoolSetAttribute,
		"cuStreamCreate":                    &d.streamCreate,
		"cuStreamDestroy_v2":                &d.streamDestroy,
		"cuStreamSynchronize":               &d.streamSynchronize,
		"cuStreamBeginCapture_v2":           &d.streamBeginCapture,
		"cuStreamEndCapture":                &d.streamEndCapture,
		"cuEventCreate":                     &d.eventCreate,
		"cuEventRecord":                     &d.eventRecord,
		"cuEventSynchronize":                &d.eventSynchronize,
		"cuEventElapsedTime":                &d.eventElapsedTime,
		"cuEventDestroy_v2":                 &d.eventDestroy,
		"cuMemAllocAsync":                   &d.memAllocAsync,
		"cuMemFreeAsync":                    &d.memFreeAsync,
		"cuMemHostAlloc":                    &d.memHostAlloc,
		"cuMemFreeHost":                     &d.memFreeHost,
		"cuMemGetInfo_v2":                   &d.memGetInfo,
		"cuMemcpyHtoDAsync_v2":              &d.memcpyHtoDAsync,
		"cuMemcpyDtoHAsync_v2":              &d.memcpyDtoHAsync,
		"cuMemcpyDtoDAsync_v2":              &d.memcpyDtoDAsync,
		"cuMemsetD32Async":                  &d.memsetD32Async,
		"cuModuleLoadData":                  &d.moduleLoadData,
		"cuModuleUnload":                    &d.moduleUnload,
		"cuModuleGetFunction":               &d.moduleGetFunction,
		"cuFuncSetAttribute":                &d.funcSetAttribute,
		"cuLaunchKernel":                    &d.launchKernel,
		"cuLaunchCooperativeKernel":         &d.launchCooperativeKernel,
		"cuGraphCreate":                     &d.graphCreate,
		"cuGraphDestroy":                    &d.graphDestroy,
		"cuGraphAddKernelNode_v2":           &d.graphAddKernelNode,
		"cuGraphAddChildGraphNode":          &d.graphAddChildGraphNode,
		"cuGraphKernelNodeSetAttribute":     &d.graphKernelNodeSetAttribute,
		"cuGraphInstantiateWithFlags":       &d.graphInstantiate,
		"cuGraphExecDestroy":                &d.graphExecDestroy,
		"cuGraphExecKernelNodeSetParams_v2": &d.graphExecKernelNodeSetParams,
		"cuGraphLaunch":                     &d.graphLaunch,
	})
}

// attribute returns one of a device's numbers.
func (d *driver) attribute(dev int32, id int) int {
	var v int32
	dl.Call(d.deviceGetAttribute, uintptr(unsafe.Pointer(&v)), uintptr(id), uintptr(dev))
	return int(v)
}

// describe returns a device's name and its limits.
func (d *driver) describe(dev int32) (string, limits) {
	var name [256]byte
	dl.Call(d.deviceGetName, uintptr(unsafe.Pointer(&name[0])), uintptr(len(name)), uintptr(dev))
	l := limits{arch: 10*d.attribute(dev, attrMajor) + d.attribute(dev, attrMinor), sms: d.attribute(dev, attrSMs), shared: d.attribute(dev, attrSharedOptin)}
	dl.Call(d.deviceTotalMem, uintptr(unsafe.Pointer(&l.total)), uintptr(dev))
	return dl.OneLine(dl.Text(&name[0])), l
}

// text returns the driver's words for a CUresult.
func (d *driver) text(result int32) string {
	var name, text *byte
	dl.Call(d.getErrorName, uintptr(result), uintptr(unsafe.Pointer(&name)))
	dl.Call(d.getErrorString, uintptr(result), uintptr(unsafe.Pointer(&text)))
	if name == nil {
		return fmt.Sprintf("error %d", result)
	}
	return fmt.Sprintf("%s (%s)", dl.OneLine(dl.Text(text)), dl.Text(name))
}

// check makes an error of a CUresult.
func (d *driver) check(what string, result int32) error {
	if result == 0 {
		return nil
	}
	return fmt.Errorf("%s: %s", what, d.text(result))
}

// must panics with a *device.Error unless the result is 0. After most errors a process can use
// the device no more.
func (b *Backend) must(what string, result int32) {
	if result == 0 {
		return
	}
	e := &device.Error{Device: b.title(), Memory: result == outOfMemory, Text: what + ": " + b.d.text(result)}
	if !e.Memory {
		b.lost.CompareAndSwap(nil, e)
	}
	panic(e)
}

// Lost returns the first error after which the device can be used no more, or nil.
func (b *Backend) Lost() error {
	if e := b.lost.Load(); e != nil {
		return e
	}
	return nil
}
