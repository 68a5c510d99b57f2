//go:build dl && linux

package cuda

import (
	"fmt"
	"math"
	"math/bits"
	"runtime"
	"slices"
	"unsafe"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/dl"
)

// dnn is cuDNN 9's functions for recurrent layers (cudnn_adv.h), by their names without
// cudnn, and what is kept for its calls. The functions return a cudnnStatus.
type dnn struct {
	create, setStream                                 uintptr
	createTensor, setTensor, getTensor, destroyTensor uintptr
	createDropout                                     uintptr
	createRNN, setRNN, destroyRNN, buildDynamic       uintptr
	createData, setData, destroyData                  uintptr
	tempSizes, weightSize, weightParams               uintptr
	rnnForward, rnnBackwardData, rnnBackwardWeights   uintptr
	setDropout                                        func(descriptor, handle uintptr, p float32, states uintptr, bytes, seed uint64) int32
	version                                           int
	handle, stream, dropout, matrix, vector           uintptr // the handle, the stream that it has, and descriptors
	plans                                             map[dnnShape]*dnnPlan
	numbers                                           uint64 // how many plans and batches were made
	choices                                           choices
	padding                                           float32 // of y: zeros of any kind
}

// Values of cuDNN's headers.
const (
	algoStandard    = 0
	algoDynamic     = 2
	algos           = 4 // STANDARD, PERSIST_STATIC, PERSIST_DYNAMIC, PERSIST_STATIC_SMALL_H
	biasDouble      = 2 // persistent algorithms want both biases; absent ones are zeros
	mathDefault     = 0
	mathTensor      = 1
	mathFMA         = 3
	dataFloat       = 0
	dataHalf        = 2
	dataBFloat16    = 9
	layoutTime      = 0 // SEQ_MAJOR_UNPACKED
	layoutBatch     = 2 // BATCH_MAJOR_UNPACKED
	paddedIO        = 1
	gradientAdd     = 0
	dnnNotSupported = 3 // times 1000, and more for the reason
	projectionID    = 8 // of cudnnGetRNNWeightParams
)

// dnnCells are cuDNN's modes of the cells that it has. Their gates have the order of ours,
// PyTorch's.
var dnnCells = map[cell.Kind]int32{cell.RNNReLU: 0, cell.RNNTanh: 1, cell.LSTM: 2, cell.GRU: 3}

var dnnKinds = [...]int32{device.F32: dataFloat, device.BF16: dataBFloat16, device.FP16: dataHalf}

// bindDNN finds the functions of cuDNN, of which none needs a device before start.
func bindDNN(lib *dl.Library) (*dnn, error) {
	d := &dnn{plans: map[dnnShape]*dnnPlan{}, version: version(lib, "cudnnGetVersion")}
	if d.version < 90000 {
		return nil, fmt.Errorf("cuDNN is %d, and 9.0 or newer is needed", d.version)
	}
	if err := lib.Functions(map[string]any{"cudnnSetDropoutDescriptor": &d.setDropout}); err != nil {
		return nil, err
	}
	d.choices.path = cached("rnn.json")
	return d, lib.Bind(map[string]*uintptr{
		"cudnnCreate":                   &d.create,
		"cudnnSetStream":                &d.setStream,
		"cudnnCreateTensorDescriptor":   &d.createTensor,
		"cudnnSetTensorNdDescriptor":    &d.setTensor,
		"cudnnGetTensorNdDescriptor":    &d.getTensor,
		"cudnnDestroyTensorDescriptor":  &d.destroyTensor,
		"cudnnCreateDropoutDescriptor":  &d.createDropout,
		"cudnnCreateRNNDescriptor":      &d.createRNN,
		"cudnnSetRNNDescriptor_v8":      &d.setRNN,
		"cudnnDestroyRNNDescriptor":     &d.destroyRNN,
		"cudnnBuildRNNDynamic":          &d.buildDynamic,
		"cudnnCreateRNNDataDescriptor":  &d.createData,
		"cudnnSetRNNDataDescriptor":     &d.setData,
		"cudnnDestroyRNNDataDescriptor": &d.destroyData,
		"cudnnGetRNNTempSpaceSizes":     &d.tempSizes,
		"cudnnGetRNNWeightSpaceSize":    &d.weightSize,
		"cudnnGetRNNWeightParams":       &d.weightParams,
		"cudnnRNNForward":               &d.rnnForward,
		"cudnnRNNBackwardData_v8":       &d.rnnBackwardData,
		"cudnnRNNBackwardWeights_v8":    &d.rnnBackwardWeights,
	})
}

// dnnStatus is a call of cuDNN that failed.
type dnnStatus struct {
	what   string
	status int32
}

func (e *dnnStatus) Error() string { return fmt.Sprintf("%s: status %d", e.what, e.status) }

// unsupported reports whether cuDNN has no such layer, rather than a failure.
func (e *dnnStatus) unsupported() bool { return e.status/1000 == dnnNotSupported }

func status(what string, r int32) error {
	if r == 0 {
		return nil
	}
	return &dnnStatus{what, r}
}

// start makes the handle, and what all plans share.
func (d *dnn) start() error {
	// cuBLAS below cuDNN gives the same bits each time only with workspaces of its own for
	// each of the streams that it uses. It reads C's environment, once.
	if libc, err := dl.Open("libc.so.6", false); err == nil {
		name, value := []byte("CUBLAS_WORKSPACE_CONFIG\x00"), []byte(":4096:8\x00")
		dl.Call(libc.Symbol("setenv"), uintptr(unsafe.Pointer(&name[0])), uintptr(unsafe.Pointer(&value[0])), 0) // the user's stays
	}
	if err := status("cudnnCreate", dl.Call(d.create, uintptr(unsafe.Pointer(&d.handle)))); err != nil {
		return err
	}
	for _, to := range []*uintptr{&d.matrix, &d.vector} {
		if err := status("cudnnCreateTensorDescriptor", dl.Call(d.createTensor, uintptr(unsafe.Pointer(to)))); err != nil {
			return err
		}
	}
	if err := status("cudnnCreateDropoutDescriptor", dl.Call(d.createDropout, uintptr(unsafe.Pointer(&d.dropout)))); err != nil {
		return err
	}
	return status("cudnnSetDropoutDescriptor", d.setDropout(d.dropout, d.handle, 0, 0, 0, 0))
}

// on makes the handle enqueue on a stream.
func (d *dnn) on(stream uintptr) int32 {
	if stream == d.stream {
		return 0
	}
	d.stream = stream
	return dl.Call(d.setStream, d.handle, stream)
}

// cudnn returns cuDNN; nil where layers are to run on own kernels. b is entered.
func (b *Backend) cudnn() *dnn {
	if b.libs.cudnn == nil || b.Deterministic {
		return nil
	}
	if b.dnn == nil {
		d, err := bindDNN(b.libs.cudnn)
		if err == nil {
			err = d.start()
		}
		if err != nil {
			b.notes = append(b.notes, fmt.Sprintf("cuDNN is not used: %v", err))
			b.libs.cudnn = nil
			return nil
		}
		b.dnn = d
	}
	return b.dnn
}

// dnnShape is all that decides how cuDNN runs a stack of layers.
type dnnShape struct {
	cell          cell.Kind
	layers, dirs  int
	T, B, I, H, O int // O is H without a projection
	train         bool
	batchMajor    bool
	ragged        bool // rows have lengths
	kind          device.Kind
}

// scans is the number of layers times directions.
func (s *dnnShape) scans() int { return s.layers * s.dirs }

// size is that of a number in cuDNN's memory.
func (s *dnnShape) size() int {
	if s.kind.Half() {
		return 2
	}
	return 4
}

// width is that of a layer's output.
func (s *dnnShape) width() int { return s.dirs * s.O }

// C is the width of the state beside h.
func (s *dnnShape) C() int { return s.cell.Width(s.H) }

// dnnPlan is a shape's descriptors, and the places of its weights. It is kept as long as the
// backend, since graphs may refer to it.
type dnnPlan struct {
	dnnShape
	number  uint64
	algo    int32
	rnn     uintptr
	h, c    uintptr
	weights int // bytes
	places  []dnnPlaces
	full    *dnnBatch   // rows of all T steps
	recent  []*dnnBatch // rows of other lengths, the one used last at the end
}

// dnnPlaces are the places of a scan's parameters in the weights, in numbers. Of P there is one.
type dnnPlaces [cell.P + 1][4]int64

// dnnBatch is the descriptors of x and y of rows with certain lengths.
type dnnBatch struct {
	number        uint64
	lengths       []int32 // nil: all T
	x, y          uintptr
	work, reserve int // bytes
}

// mostBatches is how many batches of a plan are kept: rows of these lengths may come again.
const mostBatches = 64

// plan returns the plan of a shape, and the batch of the lengths of its rows; nil if cuDNN does
// not do it. b is entered.
func (b *Backend) plan(s dnnShape, lengths []int32) (*dnnPlan, *dnnBatch) {
	d := b.dnn
	p, ok := d.plans[s]
	if !ok {
		p = b.newPlan(s)
		d.plans[s] = p
	}
	if p == nil {
		return nil, nil
	}
	if !s.ragged {
		return p, p.full
	}
	for i := len(p.recent) - 1; i >= 0; i-- {
		if t := p.recent[i]; slices.Equal(t.lengths, lengths) {
			p.recent = append(slices.Delete(p.recent, i, i+1), t)
			return p, t
		}
	}
	if len(p.recent) == mostBatches {
		b.flush() // so that no call is left that needs it
		d.destroyBatch(p.recent[0])
		p.recent = slices.Delete(p.recent, 0, 1)
	}
	t, err := d.newBatch(&s, p.rnn, slices.Clone(lengths))
	b.insist(err)
	p.recent = append(p.recent, t)
	return p, t
}

// insist panics with a *device.Error for a call of cuDNN that failed.
func (b *Backend) insist(err error) {
	if e, ok := err.(*dnnStatus); ok {
		panic(b.libs.failure(b, e.what, e.status))
	} else if err != nil {
		panic(&device.Error{Device: b.title(), Text: err.Error()})
	}
}

// newPlan makes a plan with the fastest algorithm; nil if there is none.
func (b *Backend) newPlan(s dnnShape) *dnnPlan {
	key := b.dnn.choices.key(b, &s)
	if algo, ok := b.dnn.choices.get(key); ok && algo >= 0 && algo < algos && !s.ragged {
		if p, err := b.planWith(s, algo); err == nil {
			return p
		}
	}
	standard, err := b.planWith(s, algoStandard)
	if e, ok := err.(*dnnStatus); ok && e.unsupported() {
		return nil
	}
	b.insist(err)
	plans := []*dnnPlan{standard}
	for algo := int32(algoStandard + 1); algo < algos && !s.ragged; algo++ { // the others take no lengths
		if p, err := b.planWith(s, algo); err == nil {
			plans = append(plans, p)
		}
	}
	if len(plans) == 1 {
		return standard
	}
	best := b.fastest(plans)
	b.dnn.choices.put(key, best.algo)
	for _, p := range plans {
		if p != best {
			b.dnn.destroyPlan(p)
		}
	}
	return best
}

// planWith makes a plan with an algorithm.
func (b *Backend) planWith(s dnnShape, algo int32) (*dnnPlan, error) {
	d := b.dnn
	d.numbers++
	p := &dnnPlan{dnnShape: s, number: d.numbers, algo: algo}
	err := d.describe(p, b.TF32)
	if err == nil {
		err = b.place(p)
	}
	if err != nil {
		d.destroyPlan(p)
		return nil, err
	}
	return p, nil
}

// describe makes the descriptors of a plan.
func (d *dnn) describe(p *dnnPlan, tf32 bool) (err error) {
	if p.rnn, err = d.newRNN(&p.dnnShape, p.algo, tf32); err != nil {
		return err
	}
	if p.algo == algoDynamic {
		if err := status("cudnnBuildRNNDynamic", dl.Call(d.buildDynamic, d.handle, p.rnn, uintptr(p.B))); err != nil {
			return err
		}
	}
	if p.full, err = d.newBatch(&p.dnnShape, p.rnn, nil); err != nil {
		return err
	}
	for _, state := range []struct {
		to    *uintptr
		width int
	}{{&p.h, p.O}, {&p.c, p.H}} {
		if *state.to, err = d.newTensor(dnnKinds[p.kind], p.scans(), p.B, state.width); err != nil {
			return err
		}
	}
	var bytes uint64
	err = status("cudnnGetRNNWeightSpaceSize", dl.Call(d.weightSize, d.handle, p.rnn, uintptr(unsafe.Pointer(&bytes))))
	p.weights = int(bytes)
	return err
}

// newRNN makes the descriptor of a stack.
func (d *dnn) newRNN(s *dnnShape, algo int32, tf32 bool) (rnn uintptr, err error) {
	if err := status("cudnnCreateRNNDescriptor", dl.Call(d.createRNN, uintptr(unsafe.Pointer(&rnn)))); err != nil {
		return 0, err
	}
	math := int32(mathFMA)
	if s.kind.Half() {
		math = mathTensor
	} else if tf32 {
		math = mathDefault
	}
	err = status("cudnnSetRNNDescriptor_v8", dl.Call(d.setRNN, rnn, uintptr(algo), uintptr(dnnCells[s.cell]), biasDouble, uintptr(s.dirs-1), 0,
		uintptr(dnnKinds[s.kind]), dataFloat, uintptr(math), uintptr(s.I), uintptr(s.H), uintptr(s.O), uintptr(s.layers), d.dropout, paddedIO))
	if err != nil {
		dl.Call(d.destroyRNN, rnn)
		return 0, err
	}
	return rnn, nil
}

// newTensor makes the descriptor of a dense tensor of three dimensions.
func (d *dnn) newTensor(kind int32, n0, n1, n2 int) (t uintptr, err error) {
	if err := status("cudnnCreateTensorDescriptor", dl.Call(d.createTensor, uintptr(unsafe.Pointer(&t)))); err != nil {
		return 0, err
	}
	dims := [3]int32{int32(n0), int32(n1), int32(n2)}
	strides := [3]int32{int32(n1 * n2), int32(n2), 1}
	return t, status("cudnnSetTensorNdDescriptor", dl.Call(d.setTensor, t, uintptr(kind), 3, uintptr(unsafe.Pointer(&dims[0])), uintptr(unsafe.Pointer(&strides[0]))))
}

// newBatch makes the descriptors of rows with certain lengths, and asks for the memory that
// they take.
func (d *dnn) newBatch(s *dnnShape, rnn uintptr, lengths []int32) (*dnnBatch, error) {
	d.numbers++
	t := &dnnBatch{number: d.numbers}
	err := d.describeBatch(t, s, lengths)
	if err == nil {
		mode := uintptr(0)
		if s.train {
			mode = 1
		}
		var work, reserve uint64
		err = status("cudnnGetRNNTempSpaceSizes", dl.Call(d.tempSizes, d.handle, rnn, mode, t.x, uintptr(unsafe.Pointer(&work)), uintptr(unsafe.Pointer(&reserve))))
		t.work, t.reserve = int(work), int(reserve)
	}
	if err != nil {
		d.destroyBatch(t)
		return nil, err
	}
	return t, nil
}

// describeBatch makes the descriptors of x and y.
func (d *dnn) describeBatch(t *dnnBatch, s *dnnShape, lengths []int32) error {
	if t.lengths = lengths; lengths == nil {
		lengths = make([]int32, s.B)
		for i := range lengths {
			lengths[i] = int32(s.T)
		}
	}
	layout := uintptr(layoutTime)
	if s.batchMajor {
		layout = layoutBatch
	}
	for _, data := range []struct {
		to    *uintptr
		width int
	}{{&t.x, s.I}, {&t.y, s.width()}} {
		if err := status("cudnnCreateRNNDataDescriptor", dl.Call(d.createData, uintptr(unsafe.Pointer(data.to)))); err != nil {
			return err
		}
		err := status("cudnnSetRNNDataDescriptor", dl.Call(d.setData, *data.to, uintptr(dnnKinds[s.kind]), layout, uintptr(s.T), uintptr(s.B), uintptr(data.width),
			uintptr(unsafe.Pointer(&lengths[0])), uintptr(unsafe.Pointer(&d.padding))))
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *dnn) destroyBatch(t *dnnBatch) {
	for _, data := range []uintptr{t.x, t.y} {
		if data != 0 {
			dl.Call(d.destroyData, data)
		}
	}
}

// destroyPlan destroys a plan that no call was queued with.
func (d *dnn) destroyPlan(p *dnnPlan) {
	for _, t := range []uintptr{p.h, p.c} {
		if t != 0 {
			dl.Call(d.destroyTensor, t)
		}
	}
	if p.full != nil {
		d.destroyBatch(p.full)
	}
	if p.rnn != 0 {
		dl.Call(d.destroyRNN, p.rnn)
	}
}

// place asks for the places of all parameters: each version of cuDNN and each algorithm may
// have others.
func (b *Backend) place(p *dnnPlan) error {
	d := b.dnn
	base := b.allocate(p.weights)
	defer func() { b.must("cuMemFreeAsync", dl.Call(b.d.memFreeAsync, base, b.stream)) }()
	at := func(layer, id, matrix, vector int) (m, v int64, err error) {
		var addrs [2]uintptr
		r := dl.Call(d.weightParams, d.handle, p.rnn, uintptr(layer), uintptr(p.weights), base, uintptr(id), d.matrix, uintptr(unsafe.Pointer(&addrs[0])), d.vector, uintptr(unsafe.Pointer(&addrs[1])))
		if err := status("cudnnGetRNNWeightParams", r); err != nil {
			return 0, 0, err
		}
		var places [2]int64
		for i, want := range [2]int{matrix, vector} {
			if want == 0 {
				continue
			}
			n, err := d.elements([2]uintptr{d.matrix, d.vector}[i])
			if err != nil {
				return 0, 0, err
			}
			offset := addrs[i] - base // of an absent one it is outside
			if n != want || offset > uintptr(p.weights) || offset%uintptr(p.size()) != 0 || offset+uintptr(n*p.size()) > uintptr(p.weights) {
				return 0, 0, fmt.Errorf("cuDNN has %d numbers at byte %d of %d for parameter %d of layer %d, not %d; --deterministic computes without it", n, offset, p.weights, id, layer, want)
			}
			places[i] = int64(offset) / int64(p.size())
		}
		return places[0], places[1], nil
	}
	gates := p.cell.Gates()
	p.places = make([]dnnPlaces, p.scans())
	for k := range p.places {
		in := p.I
		if k >= p.dirs {
			in = p.width()
		}
		places := &p.places[k]
		for g := range gates {
			var err error
			if places[cell.W][g], places[cell.BW][g], err = at(k, g, p.H*in, p.H); err != nil {
				return err
			}
			if places[cell.R][g], places[cell.BR][g], err = at(k, gates+g, p.H*p.O, p.H); err != nil {
				return err
			}
		}
		if p.O != p.H {
			var err error
			if places[cell.P][0], _, err = at(k, projectionID, p.O*p.H, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// elements returns how many numbers a tensor has.
func (d *dnn) elements(tensor uintptr) (int, error) {
	var kind, n int32
	var dims, strides [8]int32
	err := status("cudnnGetTensorNdDescriptor", dl.Call(d.getTensor, tensor, uintptr(len(dims)), uintptr(unsafe.Pointer(&kind)), uintptr(unsafe.Pointer(&n)),
		uintptr(unsafe.Pointer(&dims[0])), uintptr(unsafe.Pointer(&strides[0]))))
	total := 1
	for _, v := range dims[:n] {
		total *= int(v)
	}
	return total, err
}

// dnnMemory is the addresses of a call, 0 for what is absent.
type dnnMemory struct {
	x, y, hx, hy, cx, cy, weights, work, reserve uintptr
	dx, dy, dhx, dhy, dcx, dcy, dweights         uintptr
}

// Lengths on the device are no argument since cuDNN 8.9.1, which takes those of the
// descriptors: it is to be absent.

func (d *dnn) forward(stream uintptr, p *dnnPlan, t *dnnBatch, m *dnnMemory) int32 {
	mode := uintptr(0)
	if p.train {
		mode = 1
	}
	if r := d.on(stream); r != 0 {
		return r
	}
	return dl.Call(d.rnnForward, d.handle, p.rnn, mode, 0, t.x, m.x, t.y, m.y, p.h, m.hx, m.hy, p.c, m.cx, m.cy,
		uintptr(p.weights), m.weights, uintptr(t.work), m.work, uintptr(t.reserve), m.reserve)
}

func (d *dnn) backwardData(stream uintptr, p *dnnPlan, t *dnnBatch, m *dnnMemory) int32 {
	if r := d.on(stream); r != 0 {
		return r
	}
	return dl.Call(d.rnnBackwardData, d.handle, p.rnn, 0, t.y, m.y, m.dy, t.x, m.dx, p.h, m.hx, m.dhy, m.dhx, p.c, m.cx, m.dcy, m.dcx,
		uintptr(p.weights), m.weights, uintptr(t.work), m.work, uintptr(t.reserve), m.reserve)
}

func (d *dnn) backwardWeights(stream uintptr, p *dnnPlan, t *dnnBatch, m *dnnMemory) int32 {
	if r := d.on(stream); r != 0 {
		return r
	}
	return dl.Call(d.rnnBackwardWeights, d.handle, p.rnn, gradientAdd, 0, t.x, m.x, p.h, m.hx, t.y, m.y,
		uintptr(p.weights), m.dweights, uintptr(t.work), m.work, uintptr(t.reserve), m.reserve)
}

// fastest runs each plan on zeros and returns the one that takes the least time. One that does
// not run, for want of memory too, is out; if all are, it is the first.
func (b *Backend) fastest(plans []*dnnPlan) *dnnPlan {
	b.flush()
	best, least := plans[0], math.Inf(1)
	for _, p := range plans {
		if ms, ok := b.trial(p); ok && ms < least {
			best, least = p, ms
		}
	}
	return best
}

// trial runs a plan, and returns the milliseconds of a pass.
func (b *Backend) trial(p *dnnPlan) (ms float64, ok bool) {
	t, e, n := p.full, p.size(), p.T*p.B
	var blocks []uintptr
	defer func() {
		for _, addr := range blocks {
			b.must("cuMemFreeAsync", dl.Call(b.d.memFreeAsync, addr, b.stream))
		}
	}()
	var m dnnMemory
	state := p.scans() * p.B * e
	err := catch(func() {
		for _, part := range []struct {
			to    *uintptr
			bytes int
		}{{&m.x, n * p.I * e}, {&m.y, n * p.width() * e}, {&m.hx, state * p.O}, {&m.hy, state * p.O}, {&m.cx, state * p.C()}, {&m.cy, state * p.C()},
			{&m.weights, p.weights}, {&m.work, t.work}, {&m.reserve, t.reserve},
			{&m.dx, n * p.I * e}, {&m.dy, n * p.width() * e}, {&m.dweights, p.weights}} {
			if part.bytes > 0 {
				*part.to = b.allocate(part.bytes)
				blocks = append(blocks, *part.to)
			}
		}
	})
	if err != nil {
		return 0, false
	}
	var events [2]uintptr
	for i := range events {
		b.must("cuEventCreate", dl.Call(b.d.eventCreate, uintptr(unsafe.Pointer(&events[i])), 0))
		defer dl.Call(b.d.eventDestroy, events[i])
	}
	const warm, passes = 2, 5
	for i := range warm + passes {
		if i == warm {
			b.must("cuEventRecord", dl.Call(b.d.eventRecord, events[0], b.stream))
		}
		r := b.dnn.forward(b.stream, p, t, &m)
		if r == 0 && p.train {
			r = b.dnn.backwardData(b.stream, p, t, &m)
		}
		if r == 0 && p.train {
			r = b.dnn.backwardWeights(b.stream, p, t, &m)
		}
		if r != 0 {
			b.wait()
			return 0, false
		}
	}
	b.must("cuEventRecord", dl.Call(b.d.eventRecord, events[1], b.stream))
	b.must("cuEventSynchronize", dl.Call(b.d.eventSynchronize, events[1]))
	var took float32
	b.must("cuEventElapsedTime", dl.Call(b.d.eventElapsedTime, uintptr(unsafe.Pointer(&took)), events[0], events[1]))
	return float64(took) / passes, true
}

// key is a shape on a device. Numbers of steps between two powers of two count as the same.
func (c *choices) key(b *Backend, s *dnnShape) string {
	return fmt.Sprintf("%s %d.%d, cuDNN %d, tf32 %v: %s layers %d dirs %d steps 2^%d rows %d in %d hidden %d out %d %s batch-major %v training %v",
		b.name, b.limits.arch/10, b.limits.arch%10, b.dnn.version, b.TF32, s.cell.Spec().Name, s.layers, s.dirs, bits.Len(uint(s.T)), s.B, s.I, s.H, s.O, device.Kinds[s.kind], s.batchMajor, s.train)
}

// dnnWeights is a stack's weights in cuDNN's places, for a version of them.
type dnnWeights struct {
	block
	places []dnnPlaces
	of     []dnnSource
}

// dnnSource tells the weights of a scan apart.
type dnnSource struct {
	version uint64
	w, r, p uintptr
}

// newWeights allocates memory that is freed some time after the last use of what is returned.
func (b *Backend) newWeights(bytes int) *dnnWeights {
	w := &dnnWeights{block: block{b.allocate(bytes), bytes}}
	runtime.AddCleanup(w, b.dropped.add, w.addr)
	return w
}
