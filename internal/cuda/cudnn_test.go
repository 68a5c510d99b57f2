//go:build dl && linux

package cuda

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/cpu"
	"github.com/carousel-ml/carousel/internal/cuda/cudatest"
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/device/devicetest"
	"github.com/carousel-ml/carousel/internal/dl"
	"github.com/carousel-ml/carousel/internal/simd"
)

// emulatedDNN is emulated with a stand-in for cuDNN.
func emulatedDNN(t testing.TB, o Options) (*Backend, *cudatest.DNN) {
	t.Helper()
	b := emulated(t, o)
	d := cudatest.NewDNN(t, b.d.lib)
	b.libs.cudnn = d.Library
	b.enter()
	defer b.leave()
	if b.cudnn() == nil {
		t.Fatal(b.notes)
	}
	b.dnn.choices.path = filepath.Join(t.TempDir(), "rnn.json")
	return b, d
}

// layers is a backend that runs what cuDNN takes on it, and other scans on the CPU, in the same
// memory.
type layers struct {
	*Backend
	cpu *cpu.Backend
	ran int // on cuDNN
}

// taken runs f if cuDNN takes a scan.
func (l *layers) taken(s *device.ScanSpec, f func()) bool {
	l.enter()
	defer l.leave()
	if !l.dnnTakes(s) {
		return false
	}
	f()
	return true
}

// ScanWork is enough for both, since a scan may be traced later.
func (l *layers) ScanWork(s *device.ScanSpec) (n int) {
	l.taken(s, func() { n = l.dnnWork(s) })
	return max(n, l.cpu.ScanWork(inHost(s)))
}

func (l *layers) Scan(s *device.ScanSpec) {
	if l.taken(s, func() { l.dnnScan(s) }) {
		l.ran++
		return
	}
	l.Sync()
	l.cpu.Scan(inHost(s))
}

func (l *layers) ScanGrad(s *device.ScanSpec) {
	if !l.taken(s, func() { l.dnnScanGrad(s) }) {
		l.Sync()
		l.cpu.ScanGrad(inHost(s))
	}
}

// inHost is a scan on the emulated device's memory as the host's.
func inHost(s *device.ScanSpec) *device.ScanSpec {
	h := *s
	buffers := []*device.Buffer{&h.X, &h.Y, &h.HN, &h.CN, &h.Work, &h.DY, &h.DHN, &h.DCN, &h.DX, &h.TraceGates, &h.TraceCells, &h.TraceDH, &h.TraceDC, &h.TraceGain}
	for p := range cell.NumOperands {
		buffers = append(buffers, &h.Params[p], &h.Grads[p])
	}
	for _, b := range buffers {
		*b = hosts(*b)
	}
	h.Active, h.Rows = hosts(h.Active), hosts(h.Rows)
	return &h
}

func hosts[T float32 | int32](m device.Memory[T]) device.Memory[T] {
	if m.Zero() {
		return m
	}
	return device.Memory[T]{Host: unsafe.Slice((*T)(pointer(m.Addr)), m.N), N: m.N}
}

// All that the suite asks of plain cells, cuDNN's calls do: shapes, lengths, states, directions,
// strides, accumulation. That no bit depends on other rows is not asked: a library chooses.
func TestDNNKeepsTheContract(t *testing.T) {
	long(t)
	b, _ := emulatedDNN(t, Options{})
	l := &layers{Backend: b, cpu: cpu.New(simd.Best())}
	devicetest.Run(t, l, "ScanForward", "ScanGradient")
	if l.ran < 100 {
		t.Errorf("cuDNN ran %d scans", l.ran)
	}
}

// realDNN is NVIDIA's cuDNN, which has descriptors without a GPU too.
func realDNN(t *testing.T) *dl.Library {
	t.Helper()
	wheels := os.Getenv("CAROUSEL_NVIDIA_WHEELS")
	if wheels == "" {
		t.Skip("needs NVIDIA's libraries: CAROUSEL_NVIDIA_WHEELS=/path/of/site-packages/nvidia")
	}
	found, _ := filepath.Glob(wheels + "/*/lib")
	s := &search{folders: found}
	var l libraries
	for _, family := range families {
		if l.open(s, family, &Setup{}); l.cudnn != nil {
			return l.cudnn
		}
	}
	t.Skip(s.notes)
	return nil
}

// What is written to descriptors is read back by NVIDIA's library: so the order of arguments and
// the values of the headers are right.
func TestRealDNNDescriptors(t *testing.T) {
	lib := realDNN(t)
	d, err := bindDNN(lib)
	if err != nil {
		t.Fatal(err)
	}
	if r := dl.Call(d.createDropout, uintptr(unsafe.Pointer(&d.dropout))); r != 0 {
		t.Fatal(r)
	}
	var getRNN, getData uintptr
	if err := lib.Bind(map[string]*uintptr{"cudnnGetRNNDescriptor_v8": &getRNN, "cudnnGetRNNDataDescriptor": &getData}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		shape dnnShape
		algo  int32
		tf32  bool
		want  string
	}{
		{dnnShape{cell: cell.LSTM, layers: 3, dirs: 2, T: 7, B: 2, I: 5, H: 8, O: 6}, 0, false, "[0 2 2 1 0 0 0 3 5 8 6 3]"},
		{dnnShape{cell: cell.GRU, layers: 1, dirs: 1, T: 7, B: 2, I: 9, H: 4, O: 4}, 3, true, "[3 3 2 0 0 0 0 0 9 4 4 1]"},
		{dnnShape{cell: cell.RNNReLU, layers: 2, dirs: 1, T: 7, B: 2, I: 9, H: 4, O: 4, kind: device.BF16}, 1, false, "[1 0 2 0 0 9 0 1 9 4 4 2]"},
		{dnnShape{cell: cell.RNNTanh, layers: 2, dirs: 1, T: 7, B: 2, I: 9, H: 4, O: 4, kind: device.FP16}, 0, true, "[0 1 2 0 0 2 0 1 9 4 4 2]"},
	} {
		rnn, err := d.newRNN(&c.shape, c.algo, c.tf32)
		if err != nil {
			t.Errorf("%+v: %v", c.shape, err)
			continue
		}
		var v [12]int32
		var dropout uintptr
		var flags uint32
		r := dl.Call(getRNN, rnn, uintptr(unsafe.Pointer(&v[0])), uintptr(unsafe.Pointer(&v[1])), uintptr(unsafe.Pointer(&v[2])), uintptr(unsafe.Pointer(&v[3])),
			uintptr(unsafe.Pointer(&v[4])), uintptr(unsafe.Pointer(&v[5])), uintptr(unsafe.Pointer(&v[6])), uintptr(unsafe.Pointer(&v[7])), uintptr(unsafe.Pointer(&v[8])),
			uintptr(unsafe.Pointer(&v[9])), uintptr(unsafe.Pointer(&v[10])), uintptr(unsafe.Pointer(&v[11])), uintptr(unsafe.Pointer(&dropout)), uintptr(unsafe.Pointer(&flags)))
		if got := fmt.Sprint(v); r != 0 || got != c.want || flags != paddedIO {
			t.Errorf("%+v: status %d, read back %s and flags %d, want %s", c.shape, r, got, flags, c.want)
		}
	}
	projected := dnnShape{cell: cell.GRU, layers: 1, dirs: 1, I: 3, H: 4, O: 2}
	if _, err := d.newRNN(&projected, 0, false); err == nil || !err.(*dnnStatus).unsupported() {
		t.Errorf("a GRU with a projection: %v, want not supported", err)
	}
	if _, err := d.newRNN(&dnnShape{cell: cell.GRU, layers: 0, dirs: 1, I: 3, H: 4, O: 4}, 0, false); err == nil || err.(*dnnStatus).unsupported() {
		t.Errorf("no layers: %v, want a bad parameter", err)
	}
	batch := &dnnBatch{}
	shape := dnnShape{T: 7, B: 3, I: 5, O: 4, dirs: 2, kind: device.BF16, batchMajor: true}
	if err := d.describeBatch(batch, &shape, []int32{7, 4, 1}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		descriptor uintptr
		want       string
	}{{batch.x, "[9 2 7 3 5 7 4 1]"}, {batch.y, "[9 2 7 3 8 7 4 1]"}} {
		var v [8]int32
		fill := int32(-1)
		r := dl.Call(getData, c.descriptor, uintptr(unsafe.Pointer(&v[0])), uintptr(unsafe.Pointer(&v[1])), uintptr(unsafe.Pointer(&v[2])), uintptr(unsafe.Pointer(&v[3])),
			uintptr(unsafe.Pointer(&v[4])), 3, uintptr(unsafe.Pointer(&v[5])), uintptr(unsafe.Pointer(&fill)))
		if got := fmt.Sprint(v); r != 0 || got != c.want || int16(fill) != 0 {
			t.Errorf("status %d, read back %s, filled with %x, want %s", r, got, fill, c.want)
		}
	}
	state, err := d.newTensor(dataHalf, 2, 3, 4)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := d.elements(state); n != 24 || err != nil {
		t.Errorf("a tensor of 24 numbers has %d: %v", n, err)
	}
	if err := d.start(); err == nil {
		t.Log("there is a GPU")
	} else if !strings.Contains(err.Error(), "cudnnCreate: status 1001") {
		t.Errorf("without a GPU: %v", err)
	}
}

// A rule for new weights, lengths or algorithms: what a process has found out, the next knows.
func TestDNNFastestIsKept(t *testing.T) {
	long(t)
	b, d := emulatedDNN(t, Options{})
	d.Support(0b1011)
	run := func(b *Backend, steps int, o func(s *device.ScanSpec)) {
		r := newRig(b)
		s := r.scan(cell.GRU, steps, 2, 3, 4)
		o(s)
		b.enter()
		defer b.leave()
		s.Work = device.Buffer{}
		if !b.dnnTakes(s) {
			t.Fatal("not taken")
		}
	}
	passes := func() (n int) {
		for algo := range algos {
			n += d.Passes(algo)
		}
		return n
	}
	inference := func(s *device.ScanSpec) { s.Keep = false }
	run(b, 5, inference)
	if n := passes(); n != 3*7 {
		t.Errorf("%d passes of three algorithms, want 7 of each", n)
	}
	run(b, 5, inference)
	run(b, 7, inference) // as 5: from 4 to 7
	if n := passes(); n != 0 {
		t.Errorf("%d passes for what is known", n)
	}
	run(b, 9, inference)
	if n := passes(); n == 0 {
		t.Error("no passes for other steps")
	}
	run(b, 5, func(s *device.ScanSpec) { s.Active, s.Lengths = b.AllocInts(5), []int32{5, 3} })
	if n := passes(); n != 0 {
		t.Errorf("%d passes for rows with lengths, of which one algorithm takes any", n)
	}
	path := b.dnn.choices.path
	b, d = emulatedDNN(t, Options{})
	d.Support(0b1011)
	b.dnn.choices.path = path
	run(b, 6, inference)
	if n := passes(); n != 0 {
		t.Errorf("%d passes for what another process has found out", n)
	}
	if err := os.WriteFile(path, []byte("no json"), 0o600); err != nil {
		t.Fatal(err)
	}
	b, d = emulatedDNN(t, Options{})
	d.Support(0b11)
	b.dnn.choices.path = path
	run(b, 6, inference)
	if n := passes(); n != 2*7 {
		t.Errorf("%d passes with a file that cannot be read, want 7 of each of 2", n)
	}
}
