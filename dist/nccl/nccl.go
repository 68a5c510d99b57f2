//go:build dl && linux

package nccl

import (
	"errors"
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"github.com/carousel-ml/carousel/dist"
	"github.com/carousel-ml/carousel/internal/dl"
)

// transport is a communicator of NCCL on one GPU. CUDA keeps its context by
// thread, so one thread makes all calls.
type transport struct {
	*library
	cuda    *driver
	control dist.Transport
	thread  *dl.Thread

	device       int32
	stream, comm uintptr
	buffer       uintptr // on the GPU: what is sent, then what is received
	capacity     int
	failed       error
}

// Connect joins the ranks of control in a communicator of NCCL, each with the GPU
// of the given number, from 0, of its machine. control carries NCCL's unique id
// and, during each Exchange, word of ranks that died or gave up, of which NCCL
// knows nothing; nothing else may use it from now on, and Close closes it. Connect
// fails if there is no driver, GPU or NCCL; the caller then ends control by its
// Abort, as the others wait.
func Connect(control dist.Transport, device int) (dist.Transport, error) {
	d, err := openDriver()
	if err != nil {
		return nil, err
	}
	l, err := openNCCL()
	if err != nil {
		return nil, err
	}
	return connect(l, d, control, device)
}

func connect(l *library, d *driver, control dist.Transport, device int) (dist.Transport, error) {
	t := &transport{library: l, cuda: d, control: control, thread: dl.StartThread()}
	if err := t.thread.Do(func() error { return t.join(device) }); err != nil {
		t.thread.Stop()
		return nil, err
	}
	return t, nil
}

func (t *transport) join(device int) error {
	if err := t.cuda.check("cuInit", t.cuda.init(0)); err != nil {
		return err
	}
	if err := t.cuda.check(fmt.Sprintf("cuDeviceGet of GPU %d", device), t.cuda.deviceGet(&t.device, int32(device))); err != nil {
		return err
	}
	var context uintptr
	if err := t.cuda.check("cuDevicePrimaryCtxRetain", t.cuda.primaryCtxRetain(&context, t.device)); err != nil {
		return err
	}
	if err := t.cuda.check("cuCtxSetCurrent", t.cuda.ctxSetCurrent(context)); err != nil {
		return err
	}
	if err := t.cuda.check("cuStreamCreate", t.cuda.streamCreate(&t.stream, streamNonBlocking)); err != nil {
		return err
	}
	var id uniqueID
	send, recv := make([][]byte, t.Size()), make([][]byte, t.Size())
	if t.Rank() == 0 {
		if err := t.check("ncclGetUniqueId", t.getUniqueID(&id)); err != nil {
			return err
		}
		for r := range send {
			send[r] = id.internal[:]
		}
	} else {
		recv[0] = id.internal[:]
	}
	if err := t.control.Exchange(send, recv); err != nil {
		return err
	}
	if err := t.check("ncclCommInitRank", t.commInitRank(&t.comm, int32(t.Size()), id, int32(t.Rank()))); err != nil {
		return err
	}
	// NCCL connects two ranks at their first message, and its calls wait for this. That
	// is done now, when all ranks are known to be alive.
	for r := range send {
		send[r], recv[r] = []byte{1}, make([]byte, 1)
	}
	return t.exchange(send, recv)
}

func (t *transport) Rank() int { return t.control.Rank() }
func (t *transport) Size() int { return t.control.Size() }

func (t *transport) Exchange(send, recv [][]byte) error {
	if len(send) != t.Size() || len(recv) != t.Size() {
		return fmt.Errorf("nccl: Exchange with %d and %d buffers, want one for each of %d ranks", len(send), len(recv), t.Size())
	}
	return t.thread.Do(func() error {
		if t.failed == nil {
			t.failed = t.exchange(send, recv)
		}
		return t.failed
	})
}

// exchange is Exchange. After an error the communicator is gone.
func (t *transport) exchange(send, recv [][]byte) error {
	var pinner runtime.Pinner
	defer pinner.Unpin()
	received := t.extent(send) // where on the GPU
	err := t.start(send, recv, received, &pinner)
	if err == nil {
		err = t.finish()
	}
	if err == nil {
		err = t.fetch(recv, received, &pinner)
	}
	if err != nil {
		t.control.Abort(err) // which changes nothing if control told of err
		t.commAbort(t.comm)
		t.cuda.streamSynchronize(t.stream) // nothing uses the buffers any more
	}
	return err
}

// aligned is the distance of the buffers on the GPU, a multiple of what NCCL
// wants for its widest loads.
const aligned = 256

func align(n int) int { return (n + aligned - 1) / aligned * aligned }

// extent is how many bytes of the GPU the buffers of the other ranks take.
func (t *transport) extent(buffers [][]byte) (n int) {
	for r, b := range buffers {
		if r != t.Rank() {
			n += align(len(b))
		}
	}
	return n
}

// each calls f for each buffer of the other ranks that is not empty and its place
// on the GPU; the first lies at the given distance in t.buffer.
func (t *transport) each(buffers [][]byte, at int, f func(rank int, b []byte, place uintptr) error) error {
	for r, b := range buffers {
		if r == t.Rank() || len(b) == 0 {
			continue
		}
		if err := f(r, b, t.buffer+uintptr(at)); err != nil {
			return err
		}
		at += align(len(b))
	}
	return nil
}

// start brings what is sent to the GPU and begins to send and receive.
func (t *transport) start(send, recv [][]byte, received int, pinner *runtime.Pinner) error {
	if err := t.grow(received + t.extent(recv)); err != nil {
		return err
	}
	if err := t.each(send, 0, func(_ int, b []byte, place uintptr) error {
		pinner.Pin(&b[0])
		return t.cuda.check("cuMemcpyHtoDAsync", t.cuda.toDevice(place, unsafe.Pointer(&b[0]), uintptr(len(b)), t.stream))
	}); err != nil {
		return err
	}
	if err := t.check("ncclGroupStart", t.groupStart()); err != nil {
		return err
	}
	err := t.each(send, 0, func(r int, b []byte, place uintptr) error {
		return t.check("ncclSend", t.send(place, uintptr(len(b)), ncclUint8, int32(r), t.comm, t.stream))
	})
	if err == nil {
		err = t.each(recv, received, func(r int, b []byte, place uintptr) error {
			return t.check("ncclRecv", t.recv(place, uintptr(len(b)), ncclUint8, int32(r), t.comm, t.stream))
		})
	}
	if end := t.check("ncclGroupEnd", t.groupEnd()); err == nil {
		err = end
	}
	return err
}

// fetch brings what has arrived from the GPU.
func (t *transport) fetch(recv [][]byte, received int, pinner *runtime.Pinner) error {
	if err := t.each(recv, received, func(_ int, b []byte, place uintptr) error {
		pinner.Pin(&b[0])
		return t.cuda.check("cuMemcpyDtoHAsync", t.cuda.toHost(unsafe.Pointer(&b[0]), place, uintptr(len(b)), t.stream))
	}); err != nil {
		return err
	}
	return t.cuda.check("cuStreamSynchronize", t.cuda.streamSynchronize(t.stream))
}

// grow makes the buffer on the GPU hold size bytes.
func (t *transport) grow(size int) error {
	if size <= t.capacity {
		return nil
	}
	if t.buffer != 0 {
		if err := t.cuda.check("cuMemFree", t.cuda.memFree(t.buffer)); err != nil {
			return err
		}
		t.buffer, t.capacity = 0, 0
	}
	if err := t.cuda.check("cuMemAlloc", t.cuda.memAlloc(&t.buffer, uintptr(size))); err != nil {
		return err
	}
	t.capacity = size
	return nil
}

// finish waits until the GPUs of all ranks have done their work. The ranks tell
// each other each time that one is done or has waited for a second, so all of them
// do so equally often; and a rank that died, which the GPU would wait for without
// end, is noticed there.
func (t *transport) finish() error {
	own := []byte{0}
	send, recv := make([][]byte, t.Size()), make([][]byte, t.Size())
	for r := range send {
		send[r], recv[r] = own, make([]byte, 1)
	}
	for all := false; !all; {
		done, err := t.wait(time.Second)
		if err != nil {
			return err
		}
		if done {
			own[0] = 1
		}
		if err := t.control.Exchange(send, recv); err != nil {
			return err
		}
		all = done
		for r, b := range recv {
			all = all && (r == t.Rank() || b[0] == 1)
		}
	}
	return nil
}

// wait waits for the GPU's work, at most for the given time.
func (t *transport) wait(most time.Duration) (done bool, err error) {
	const eager = 100 * time.Microsecond
	for begin := time.Now(); ; {
		if result := t.cuda.streamQuery(t.stream); result != notReady {
			return result == 0, t.cuda.check("cuStreamQuery", result)
		}
		var result int32
		if err := t.check("ncclCommGetAsyncError", t.commGetAsyncError(t.comm, &result)); err != nil {
			return false, err
		}
		if result != ncclInProgress {
			if err := t.check("communication", result); err != nil {
				return false, err
			}
		}
		switch waited := time.Since(begin); {
		case waited > most:
			return false, nil
		case waited > eager:
			time.Sleep(eager)
		default:
			runtime.Gosched()
		}
	}
}

// Abort ends the job; see [dist.Transport].
func (t *transport) Abort(err error) { t.control.Abort(err) }

// Close ends the communicator and then control. The error is that of Exchange.
func (t *transport) Close() error {
	defer t.thread.Stop()
	err := t.thread.Do(func() error {
		if t.failed != nil {
			return t.failed
		}
		errs := []error{t.check("ncclCommDestroy", t.commDestroy(t.comm))}
		if t.buffer != 0 {
			errs = append(errs, t.cuda.check("cuMemFree", t.cuda.memFree(t.buffer)))
		}
		return errors.Join(append(errs,
			t.cuda.check("cuStreamDestroy", t.cuda.streamDestroy(t.stream)),
			t.cuda.check("cuDevicePrimaryCtxRelease", t.cuda.primaryCtxRelease(t.device)))...)
	})
	if err != nil {
		return err
	}
	return t.control.Close()
}
