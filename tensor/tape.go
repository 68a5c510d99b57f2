package tensor

import (
	"slices"

	"github.com/carousel-ml/carousel/internal/device"
)

// Mode selects what a tape does besides computing values.
type Mode uint8

const (
	// Infer computes values only: dropout returns its input, and nothing is kept for a backward pass.
	Infer Mode = iota
	// Train also records the operations for Backward and applies dropout.
	Train
)

// Tape records one forward pass and owns its tensors. One goroutine at a time may
// use it. In a loop, call Reset at the start of each step: from the second step
// with the same shapes on, the tape allocates nothing.
type Tape struct {
	dev     *Device
	backend device.Backend
	mode    Mode
	kind    device.Kind // of the products
	epoch   uint64
	seed    uint64 // with step and the number of the node, the key of a dropout mask
	step    uint64
	drops   uint64 // dropout nodes so far

	arena   arena[float32]
	numbers arena[int32]
	ints    hostInts  // copies of integers that the tape reads
	floats  []float32 // numbers on their way to the device
	tensors chunks[Tensor]
	nodes   chunks[node]
	specs   specs
	scans   chunks[device.ScanSpec]
	stacks  chunks[stack]
	seqs    chunks[sequence]
	states  chunks[State]
	lists   chunks[stateList]
	idents  chunks[Ints]
	item    [1]float32
	done    bool // Backward was called
	ready   readiness
	running func(p *Param, to *Tensor, share float32) // of OnRunning
	tracing bool
	traces  []*Trace
}

// node is one recorded operation: its backward function and its operands. These
// are a function pointer and plain fields, so recording creates no closure.
type node struct {
	back  func(*Tape, *node) // of one operand: it needs a gradient, or the operation would not be recorded
	out   *Tensor
	outs  [2]*Tensor // further results: final states
	in    operands
	grads [4]device.Buffer // of a loss: gradients in the operands, computed in the forward pass
	spec  any              // pointer to the spec of the forward call, which the backward pass completes
	n     int
	f     float32
	scan  *device.ScanSpec
	stack *stack // the stack that the scan is part of
}

// specs holds the specs of the calls to the backend until the next Reset, so that
// no call allocates one.
type specs struct {
	permute  chunks[device.PermuteSpec]
	gemm     chunks[device.GemmSpec]
	binary   chunks[device.BinarySpec]
	dropout  chunks[device.DropoutSpec]
	norm     chunks[device.NormSpec]
	softmax  chunks[device.SoftmaxSpec]
	embed    chunks[device.EmbedSpec]
	pool     chunks[device.PoolSpec]
	conv     chunks[device.ConvSpec]
	windows  chunks[device.WindowPoolSpec]
	additive chunks[device.AdditiveSpec]
	loss     chunks[device.LossSpec]
	ctc      chunks[device.CTCSpec]
	crf      chunks[device.CRFSpec]
}

// Ints is a block of integers on a tape, with 1 to 3 dimensions: token ids, class
// numbers or labels. See [Tape.IDs].
type Ints struct {
	v     []int32
	on    device.Ints
	dims  [maxRank]int
	rank  int
	seq   *sequence
	tape  *Tape
	epoch uint64
}

// NewTape returns an empty tape on a device; nil means the [CPU].
func NewTape(dev *Device, mode Mode) *Tape {
	dev = dev.orCPU()
	b := dev.backend
	return &Tape{dev: dev, backend: b, mode: mode, epoch: 1, arena: arena[float32]{get: b.Alloc, put: b.Free, least: 1 << 16},
		numbers: arena[int32]{get: b.AllocInts, put: b.FreeInts, least: 1 << 10}}
}

// Mode returns the mode the tape was made with.
func (t *Tape) Mode() Mode { return t.mode }

// Device returns the device of the tape's tensors.
func (t *Tape) Device() *Device { return t.dev }

// Seed sets the key of the tape's dropout masks: the same seed, step and sequence
// of operations give the same masks, for any number of threads. Without it a tape
// has seed 0 and counts its own steps.
func (t *Tape) Seed(seed, step uint64) { t.seed, t.step = seed, step }

// Reset discards the recorded pass and reuses its memory: using a tensor made
// before it panics with a [*ShapeError]. It adds 1 to the step that keys dropout.
func (t *Tape) Reset() {
	t.epoch++
	t.step++
	t.drops = 0
	t.done = false
	t.traces = nil
	s := &t.specs
	for _, c := range [...]interface{ reset() }{&t.arena, &t.numbers, &t.ints, &t.tensors, &t.nodes, &t.scans, &t.stacks, &t.seqs, &t.states, &t.lists, &t.idents,
		&s.permute, &s.gemm, &s.binary, &s.dropout, &s.norm, &s.softmax, &s.embed, &s.pool, &s.conv, &s.windows, &s.additive, &s.loss, &s.ctc, &s.crf} {
		c.reset()
	}
}

// Input copies v to a new tensor of shape dims, 1 to 4 dimensions of 0 or more. It
// panics with a [*ShapeError] if their product is not len(v).
func (t *Tape) Input(v []float32, dims ...int) *Tensor {
	x := t.Empty(dims...)
	if len(v) != x.Len() {
		failf("Input", "shape %s needs %d elements, got %d", describe(x), x.Len(), len(v))
	}
	t.backend.Upload(x.value, v)
	return x
}

// Share is Input without a copy where the device computes in the host's memory: until
// the next Reset v must not change, unless the tensor is a result. It may hold no
// subnormal numbers.
func (t *Tape) Share(v []float32, dims ...int) *Tensor {
	if !t.arena.alloc(1).InHost() {
		return t.Input(v, dims...)
	}
	x := t.tensor(dims...)
	if x.value = device.HostBuffer(v); len(v) != volume("Share", "a tensor", dims, 0, maxRank) {
		failf("Share", "shape %s needs other than %d elements", describe(x), len(v))
	}
	return x
}

// Zeros returns a new tensor of zeros.
func (t *Tape) Zeros(dims ...int) *Tensor {
	x := t.Empty(dims...)
	t.backend.Fill(x.value, 0)
	return x
}

// Sequences copies v, a batch of B padded sequences [B,T,F], to a new tensor that
// carries the true length of each row: lengths [B], each 0 to T, in any order.
// Operations skip the padding, so its contents do not matter. It panics with a
// [*ShapeError] if v or lengths do not fit.
func (t *Tape) Sequences(v []float32, lengths []int32, B, T, F int) *Tensor {
	x := t.Input(v, B, T, F)
	x.seq = t.sequence("Sequences", lengths, B, T)
	return x
}

// IDs copies token ids or class numbers of shape dims, 1 to 3 dimensions such as
// [B,T]. With lengths [B], for ids [B,T], each 0 to T, their embedding is a batch of
// padded sequences. It panics with a [*ShapeError] if ids or lengths do not fit.
func (t *Tape) IDs(ids []int32, lengths []int32, dims ...int) *Ints {
	if n := volume("IDs", "ids", dims, 0, maxRank-1); n != len(ids) {
		failf("IDs", "shape %s needs %d ids, got %d", shape(slices.Clone(dims)), n, len(ids))
	}
	x := t.idents.put(Ints{tape: t, epoch: t.epoch, v: t.ints.alloc(len(ids))})
	x.rank = copy(x.dims[:], dims)
	copy(x.v, ids)
	x.on = t.upload(x.v)
	if lengths != nil {
		if x.rank != 2 {
			failf("IDs", "lengths need ids [B,T], got %s", shape(slices.Clone(dims)))
		}
		x.seq = t.sequence("IDs", lengths, dims[0], dims[1])
	}
	return x
}

// upload copies integers to the device, valid until the next Reset.
func (t *Tape) upload(v []int32) device.Ints {
	on := t.numbers.alloc(len(v))
	if len(v) > 0 {
		t.backend.UploadInts(on, v)
	}
	return on
}

// lengths returns n lengths on the device, without a copy if v is the slice of a
// sequence on the tape; absent if v is nil.
func (t *Tape) lengths(op string, v []int32, n int) device.Ints {
	if v == nil {
		return device.Ints{}
	}
	if len(v) != n {
		failf(op, "needs %d lengths, one for each row, got %d", n, len(v))
	}
	for i := range t.seqs.len() {
		if s := t.seqs.at(i); len(v) > 0 && len(v) == len(s.lengths) && &v[0] == &s.lengths[0] {
			return s.on.lengths
		}
	}
	return t.upload(v)
}

// Empty returns a new tensor of shape dims, 1 to 4 dimensions of 0 or more, with
// unspecified elements, for an operation that writes all of them.
func (t *Tape) Empty(dims ...int) *Tensor {
	n := volume("Input", "a tensor", dims, 0, maxRank)
	x := t.tensor(dims...)
	x.value = t.arena.alloc(n)
	return x
}

// tensor returns a new tensor without memory.
func (t *Tape) tensor(dims ...int) *Tensor {
	x := t.tensors.next()
	x.tape, x.epoch = t, t.epoch
	x.rank = copy(x.dims[:], dims)
	return x
}

// volume returns the product of dims and checks that these are 1 to most numbers
// of at least least.
func volume(op, what string, dims []int, least, most int) int {
	n, ok := 1, len(dims) > 0 && len(dims) <= most
	for _, d := range dims {
		ok = ok && d >= least
		n *= d
	}
	if !ok {
		failf(op, "%s must have 1 to %d dimensions of at least %d, got %s", what, most, least, shape(slices.Clone(dims)))
	}
	return n
}

// like returns a new tensor of x's shape and layout, with unspecified elements.
func (t *Tape) like(x *Tensor) *Tensor {
	y := t.Empty(x.dims[:x.rank]...)
	y.layout = x.layout
	return y
}

// record adds a node for an operation if its result needs a gradient, and returns
// it, or nil.
func (t *Tape) record(back func(*Tape, *node), out *Tensor, in ...*Tensor) *node {
	if t.mode != Train {
		return nil
	}
	needs := false
	for _, x := range in {
		needs = needs || x != nil && x.needs
	}
	if !needs {
		return nil
	}
	out.needs = true
	n := t.nodes.next()
	n.back, n.out = back, out
	copy(n.in[:], in)
	return n
}

func (t *Tape) backward(loss *Tensor) {
	if t.done {
		failf("Backward", "was already called on this tape: Reset it first")
	}
	t.done = true
	reports := t.ready.call != nil && !t.ready.held
	last := t.nodes.len() - 1
	if !loss.needs {
		last = -1
	}
	if reports {
		t.findFirst(last)
	}
	if last < 0 {
		return
	}
	g, _ := loss.into()
	t.backend.Fill(g, 1)
	for i := last; i >= 0; i-- {
		n := t.nodes.at(i)
		if n.out.gradSet || n.outs[0] != nil && n.outs[0].gradSet || n.outs[1] != nil && n.outs[1].gradSet {
			n.back(t, n)
		}
		if reports {
			t.reportReady(i, n)
		}
	}
}

// tapeOf returns the tape of an operation's operands, of which parameters have
// none. It panics if they are of two tapes or devices, or none is on a tape.
func tapeOf(op string, xs ...*Tensor) *Tape {
	var tape *Tape
	for _, x := range xs {
		if x == nil {
			continue
		}
		x.live(op)
		switch {
		case x.tape == nil:
		case tape == nil:
			tape = x.tape
		case tape != x.tape:
			failf(op, "operands are on different tapes")
		}
	}
	if tape == nil {
		failf(op, "no operand is on a tape: begin with Tape.Input")
	}
	for _, x := range xs {
		if x != nil && x.tape == nil {
			x.with(op, tape)
		}
	}
	return tape
}

// with panics if a parameter is on another device than a tape.
func (t *Tensor) with(op string, tape *Tape) {
	if on := t.param.slab.dev; on.backend != tape.backend {
		failf(op, "%s is on %s, the tape on %s", describe(t), on.Name(), tape.dev.Name())
	}
}

// keeps stores the spec of the forward call in the node; n may be nil.
func (n *node) keeps(spec any) {
	if n != nil {
		n.spec = spec
	}
}

func (t *Tape) permute(s device.PermuteSpec) *device.PermuteSpec {
	p := t.specs.permute.put(s)
	t.backend.Permute(p)
	return p
}

func (t *Tape) gemm(s device.GemmSpec) { t.backend.Gemm(t.specs.gemm.put(s)) }

// Bytes returns the bytes of device memory that the tape holds, in use or not.
func (t *Tape) Bytes() int64 {
	return 4 * int64(t.arena.total+t.numbers.total)
}
