package tensor

import (
	"slices"

	"github.com/carousel-ml/carousel/internal/device"
)

// Mode says what a tape is for.
type Mode uint8

const (
	// Infer computes values only: dropout passes its input on, and nothing is kept for a backward pass.
	Infer Mode = iota
	// Train also records, so that Backward can follow.
	Train
)

// Tape records one forward pass. It is used by one goroutine at a time; in a
// loop, Reset it at the start of each step: from the second step of a shape on
// it allocates nothing.
type Tape struct {
	dev     *Device
	backend device.Backend
	mode    Mode
	epoch   uint64
	seed    uint64 // dropout's key, with step and the node's number
	step    uint64
	drops   uint64 // dropout nodes so far

	arena   arena[float32]
	numbers arena[int32]
	ints    intArena // what the tape itself needs to know of those numbers
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
	done    bool // Backward has run
	ready   readiness
	tracing bool
	traces  []*Trace
}

// node is one recorded operation: what to call on the way back and its operands.
// A function pointer and plain fields, so that recording makes no closure.
type node struct {
	back  func(*Tape, *node)
	out   *Tensor
	outs  [2]*Tensor // further results: final states
	in    [4]*Tensor
	state operands // of a scan
	spec  any      // of the call forward, which the way back completes; a pointer
	n     int
	f     float32
	scan  *device.ScanSpec
	stack *stack // that the scan is a part of
}

// specs are those of the backend's calls, until the next Reset: an operation's
// own stays in its node, and no call allocates one.
type specs struct {
	permute  chunks[device.PermuteSpec]
	gemm     chunks[device.GemmSpec]
	binary   chunks[device.BinarySpec]
	dropout  chunks[device.DropoutSpec]
	norm     chunks[device.NormSpec]
	softmax  chunks[device.SoftmaxSpec]
	embed    chunks[device.EmbedSpec]
	pool     chunks[device.PoolSpec]
	additive chunks[device.AdditiveSpec]
	loss     chunks[device.LossSpec]
	ctc      chunks[device.CTCSpec]
	crf      chunks[device.CRFSpec]
}

// Ints is a block of token ids or class numbers on a tape.
type Ints struct {
	v     []int32
	on    device.Ints
	dims  [maxRank]int
	rank  int
	seq   *sequence
	tape  *Tape
	epoch uint64
}

// NewTape is an empty tape on a device; nil is the [CPU].
func NewTape(dev *Device, mode Mode) *Tape {
	dev = dev.orCPU()
	t := &Tape{dev: dev, backend: dev.backend, mode: mode, epoch: 1}
	t.arena, t.numbers = newArenas(dev.backend)
	return t
}

// Mode is the mode the tape was made with.
func (t *Tape) Mode() Mode { return t.mode }

// Device is where the tape's tensors live.
func (t *Tape) Device() *Device { return t.dev }

// Seed sets the key of this tape's dropout masks: the same (seed, step) and
// network give the same masks, on any number of threads. Without it a tape
// uses seed 0 and counts its own steps.
func (t *Tape) Seed(seed, step uint64) { t.seed, t.step = seed, step }

// Reset forgets the recorded pass and takes back its memory: tensors made
// before it must not be used again. The dropout step moves on by one.
func (t *Tape) Reset() {
	t.epoch++
	t.step++
	t.drops = 0
	t.done = false
	t.traces = nil
	s := &t.specs
	for _, c := range [...]interface{ reset() }{&t.arena, &t.numbers, &t.ints, &t.tensors, &t.nodes, &t.scans, &t.stacks, &t.seqs, &t.states, &t.lists, &t.idents,
		&s.permute, &s.gemm, &s.binary, &s.dropout, &s.norm, &s.softmax, &s.embed, &s.pool, &s.additive, &s.loss, &s.ctc, &s.crf} {
		c.reset()
	}
}

// Input copies v to a new tensor of the given dimensions.
func (t *Tape) Input(v []float32, dims ...int) *Tensor {
	x := t.Empty(dims...)
	if len(v) != x.Len() {
		failf("Input", "shape %s needs %d elements, got %d", describe(x), x.Len(), len(v))
	}
	t.backend.Upload(x.value, v)
	return x
}

// Zeros is a new tensor of zeros.
func (t *Tape) Zeros(dims ...int) *Tensor {
	x := t.Empty(dims...)
	t.backend.Fill(x.value, 0)
	return x
}

// Sequences copies v, a batch of B padded sequences [B,T,F], to a new tensor
// that knows each row's true length (0 to T, in any order). What v holds past a
// row's length changes nothing.
func (t *Tape) Sequences(v []float32, lengths []int32, B, T, F int) *Tensor {
	x := t.Input(v, B, T, F)
	x.seq = t.sequence("Sequences", lengths, B, T)
	return x
}

// IDs copies token ids or class numbers of shape dims, such as [B,T]. With
// lengths, [B], the embedding of the ids is a batch of padded sequences.
func (t *Tape) IDs(ids []int32, lengths []int32, dims ...int) *Ints {
	x := t.idents.next()
	x.tape, x.epoch = t, t.epoch
	x.rank = copy(x.dims[:], dims)
	n := 1
	for _, d := range dims {
		n *= d
	}
	if len(dims) == 0 || len(dims) > maxRank-1 || n != len(ids) {
		failf("IDs", "shape %v needs %d ids, got %d", slices.Clone(dims), n, len(ids))
	}
	x.v = t.ints.copy(ids)
	x.on = t.upload(x.v)
	if lengths != nil {
		if x.rank != 2 {
			failf("IDs", "lengths need ids of shape [B,T], got %v", slices.Clone(dims))
		}
		x.seq = t.sequence("IDs", lengths, dims[0], dims[1])
	}
	return x
}

// upload copies numbers to the device, until the next Reset.
func (t *Tape) upload(v []int32) device.Ints {
	on := t.numbers.alloc(len(v))
	if len(v) > 0 {
		t.backend.UploadInts(on, v)
	}
	return on
}

// lengths is lengths on the device: those of a sequence of the tape if they are its own, or a copy.
func (t *Tape) lengths(v []int32) device.Ints {
	for i := range t.seqs.len() {
		if s := t.seqs.at(i); len(v) > 0 && len(v) == len(s.lengths) && &v[0] == &s.lengths[0] {
			return s.on.lengths
		}
	}
	return t.upload(v)
}

// Empty is a new tensor whose elements are not yet set, for an operation
// that writes every one.
func (t *Tape) Empty(dims ...int) *Tensor {
	x := t.tensors.next()
	x.tape, x.epoch = t, t.epoch
	if len(dims) == 0 || len(dims) > maxRank {
		failf("Input", "a tensor has 1 to %d dimensions, got %d", maxRank, len(dims))
	}
	n := 1
	for i, d := range dims {
		if d < 0 {
			failf("Input", "dimension %d is %d", i, d)
		}
		x.dims[i] = d
		n *= d
	}
	x.rank = len(dims)
	x.value = t.arena.alloc(n)
	return x
}

// like is a new unset tensor of x's shape, sequence and layout.
func (t *Tape) like(x *Tensor) *Tensor {
	y := t.Empty(x.dims[:x.rank]...)
	y.seq = x.seq
	return y
}

// record notes an operation if its result needs a gradient, and says whether it did.
// The node comes back to be filled in.
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
	tells := t.ready.call != nil && !t.ready.held
	last := t.nodes.len() - 1
	if !loss.needs {
		last = -1
	}
	if tells {
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
		if tells {
			t.tellReady(i, n)
		}
	}
}

// tapeOf is the one tape of an operation's operands; parameters have none.
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
			failf(op, "operands live on different tapes")
		}
	}
	if tape == nil {
		failf(op, "no operand lives on a tape: begin with Tape.Input")
	}
	return tape
}

// keeps leaves the spec of the call forward in the node, if there is one.
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

func (t *Tape) dropout(s device.DropoutSpec) *device.DropoutSpec {
	p := t.specs.dropout.put(s)
	t.backend.Dropout(p)
	return p
}

// Bytes is the memory the tape holds for tensors.
func (t *Tape) Bytes() int64 {
	return 4 * int64(t.arena.total+t.numbers.total)
}
