//go:build dl && linux

package nccl

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/carousel-ml/carousel/dist"
	"github.com/carousel-ml/carousel/dist/disttest"
	"github.com/carousel-ml/carousel/internal/dl"
)

// standIn builds the stand-in for NCCL and the driver; nil without a C compiler.
var standIn = sync.OnceValues(func() (*dl.Library, error) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		return nil, nil
	}
	dir, err := os.MkdirTemp("", "nccl")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "stand_in.so")
	if out, err := exec.Command(cc, "-shared", "-fPIC", "-o", path, "testdata/stand_in.c", "-lpthread").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return dl.Open(path, false)
})

func standIns(t *testing.T) (*library, *driver) {
	t.Helper()
	loaded, err := standIn()
	if err != nil {
		t.Fatal(err)
	}
	if loaded == nil {
		t.Skip("no C compiler is here")
	}
	l, err := bindNCCL(loaded)
	if err != nil {
		t.Fatal(err)
	}
	d, err := bindDriver(loaded)
	if err != nil {
		t.Fatal(err)
	}
	return l, d
}

// ranks runs f on each of n ranks, which are connected by TCP as control, and
// returns their errors.
func ranks(t *testing.T, n int, f func(control dist.Transport) error) []error {
	t.Helper()
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := probe.Addr().String()
	probe.Close()
	errs := make([]error, n)
	var all sync.WaitGroup
	for r := range n {
		all.Go(func() {
			control, err := dist.Connect(t.Context(), &dist.Place{Rank: r, Size: n, Address: address, Secret: []byte("nccl"), Launcher: "the test"}, nil)
			if err == nil {
				err = f(control)
			}
			errs[r] = err
		})
	}
	all.Wait()
	return errs
}

func TestExchange(t *testing.T) {
	l, d := standIns(t)
	lengths := []int{0, 1, 3, 255, 256, 70_001, 1 << 20}
	for rank, err := range ranks(t, 3, func(control dist.Transport) error {
		w, err := connect(l, d, control, control.Rank())
		if err != nil {
			return err
		}
		rank, size := w.Rank(), w.Size()
		if err := disttest.Exchange(w, lengths); err != nil {
			return err
		}
		v := []float32{1, 2, float32(rank)}
		if err := dist.NewWorld(w).Sum(v, nil); err != nil || v[0] != 3 || v[1] != 6 || v[2] != 3 {
			return fmt.Errorf("sum %v: %w", v, err)
		}
		if err := w.Exchange(make([][]byte, 1), make([][]byte, size)); err == nil {
			return errors.New("Exchange took one buffer for several ranks")
		}
		return w.Close()
	}) {
		if err != nil {
			t.Errorf("rank %d: %v", rank, err)
		}
	}
}

// A rank that ends the job while the GPUs of the others wait for its bytes.
func TestAbort(t *testing.T) {
	l, d := standIns(t)
	for rank, err := range ranks(t, 3, func(control dist.Transport) error {
		w, err := connect(l, d, control, 0)
		if err != nil {
			return err
		}
		send, recv := make([][]byte, 3), make([][]byte, 3)
		if w.Rank() == 1 {
			w.Abort(errors.New("disk full"))
		} else {
			recv[1] = make([]byte, 5)
		}
		err = w.Exchange(send, recv)
		if again := w.Exchange(send, recv); again == nil || again.Error() != err.Error() {
			return fmt.Errorf("first %w, then %w", err, again)
		}
		return err
	}) {
		var cause *dist.RankError
		if !errors.As(err, &cause) || err.Error() != "rank 1 ended the job: disk full" {
			t.Errorf("rank %d: %v", rank, err)
		}
	}
}

func TestNoSuchGPU(t *testing.T) {
	l, d := standIns(t)
	_, err := connect(l, d, lonely{}, 8)
	if err == nil || err.Error() != "cuda: cuDeviceGet of GPU 8: invalid device ordinal (101)" {
		t.Errorf("%v", err)
	}
}

// lonely is the control of a world of one.
type lonely struct{}

func (lonely) Rank() int                          { return 0 }
func (lonely) Size() int                          { return 1 }
func (lonely) Exchange(send, recv [][]byte) error { return nil }
func (lonely) Abort(error)                        {}
func (lonely) Close() error                       { return nil }

func TestWorldOfOneOnAGPU(t *testing.T) {
	w, err := Connect(lonely{}, 0)
	if err != nil {
		if strings.Contains(err.Error(), "\n") || !strings.HasPrefix(err.Error(), "no NVIDIA driver: ") && !strings.HasPrefix(err.Error(), "no NCCL: ") {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	tr := w.(*transport)
	sent, got := disttest.Content(1, 2, 100_000), make([]byte, 100_000)
	if err := tr.thread.Do(func() error {
		size := align(len(sent))
		if err := tr.grow(2 * size); err != nil {
			return err
		}
		there := tr.buffer + uintptr(size)
		for _, err := range []error{
			tr.cuda.check("to device", tr.cuda.toDevice(tr.buffer, unsafe.Pointer(&sent[0]), uintptr(len(sent)), tr.stream)),
			tr.check("group", tr.groupStart()),
			tr.check("send", tr.send(tr.buffer, uintptr(len(sent)), ncclUint8, 0, tr.comm, tr.stream)), // to itself
			tr.check("recv", tr.recv(there, uintptr(len(sent)), ncclUint8, 0, tr.comm, tr.stream)),
			tr.check("group", tr.groupEnd()),
			tr.finish(),
			tr.cuda.check("to host", tr.cuda.toHost(unsafe.Pointer(&got[0]), there, uintptr(len(got)), tr.stream)),
			tr.cuda.check("end", tr.cuda.streamSynchronize(tr.stream)),
		} {
			if err != nil {
				return err
			}
		}
		return nil
	}); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("what rank 0 sends itself arrives otherwise: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

// NCCL itself does this much without a GPU.
func TestNCCL(t *testing.T) {
	l, err := openNCCL()
	if err != nil {
		if !strings.HasPrefix(err.Error(), "no NCCL: ") || strings.Contains(err.Error(), "\n") {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	var ids [2]uniqueID
	for i := range ids {
		if err := l.check("ncclGetUniqueId", l.getUniqueID(&ids[i])); err != nil {
			t.Fatal(err)
		}
	}
	if ids[0] == ids[1] || ids[0] == (uniqueID{}) {
		t.Error("ids are equal or empty")
	}
	if err := l.check("x", 4); err == nil || err.Error() != "nccl: x: invalid argument (run with NCCL_DEBUG=WARN for details)" {
		t.Errorf("error 4 is %v", err)
	}
	var version int32
	if err := l.check("ncclGetVersion", l.getVersion(&version)); err != nil || version < 20700 {
		t.Errorf("version %d: %v", version, err)
	}
}

func TestNoNCCL(t *testing.T) {
	t.Setenv("CAROUSEL_NCCL", "/nowhere/libnccl.so.2")
	_, err := openNCCL()
	if err == nil || !strings.HasPrefix(err.Error(), "no NCCL: /nowhere/libnccl.so.2: ") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
	t.Setenv("CAROUSEL_NCCL", "libc.so.6")
	if _, err := openNCCL(); err == nil || !strings.HasPrefix(err.Error(), "libc.so.6 has no nccl") {
		t.Errorf("%v", err)
	}
}
