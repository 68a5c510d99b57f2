//go:build dl && linux

package cuda

import (
	"fmt"
	"hash/maphash"
	"slices"
	"unsafe"

	"github.com/carousel-ml/carousel/internal/dl"
)

// shape is the size of a launch.
type shape struct {
	grid        [3]int // blocks
	threads     int    // of a block, in one dimension
	shared      int    // bytes of dynamic shared memory
	cooperative bool   // all blocks run at once, so that they can wait for each other
}

// perBlock is BLOCK of prelude.cu.
const perBlock = 256

// each is the shape of an operation on n elements in a loop of EACH.
func each(n int) shape {
	return shape{grid: [3]int{min(max((n+perBlock-1)/perBlock, 1), 4096), 1, 1}, threads: perBlock}
}

// blocks is a one-dimensional grid.
func blocks(n, shared int) shape {
	return shape{grid: [3]int{n, 1, 1}, threads: perBlock, shared: shared}
}

// function is a kernel of a loaded module.
type function struct {
	handle uintptr
	shared int // the most dynamic shared memory that it was told of
	number uint64
}

// op is a queued kernel, or a queued call of a library.
type op struct {
	fn      *function
	shape   shape
	args    int // where the arguments are in queue.args, of so many words
	words   int
	call    func(stream uintptr) int32
	what    string
	callKey string
}

// queue is what was not given to the device yet.
type queue struct {
	ops     []op
	args    []uint64
	stepped bool // it ends with a step of an optimizer
}

// longest queue, after which it is flushed.
const longestQueue = 8192

// launch queues a kernel. The layout of A is that of the kernel's struct. b is entered.
func launch[A any](b *Backend, k kernel, s shape, args *A) {
	if s.grid[0] == 0 || s.grid[1] == 0 || s.grid[2] == 0 {
		return
	}
	if b.queue.stepped && k != stepKernel {
		b.flush()
	}
	fn := b.function(k)
	if s.shared > fn.shared {
		b.allowShared(k, fn, s.shared)
	}
	size := int(unsafe.Sizeof(*args))
	words := (size + 7) / 8
	at := len(b.queue.args)
	for range words {
		b.queue.args = append(b.queue.args, 0)
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&b.queue.args[at])), size), unsafe.Slice((*byte)(unsafe.Pointer(args)), size))
	b.queue.ops = append(b.queue.ops, op{fn: fn, shape: s, args: at, words: words})
	if len(b.queue.ops) >= longestQueue {
		b.flush()
	}
}

// call queues a call of a library, which enqueues work on the stream that it is given.
// Calls of one key are the same: the same function, memory and numbers. A call is done
// on the device's stream before it is captured in a graph, so it may prepare what it
// needs the first time. b is entered.
func (b *Backend) call(what, key string, call func(stream uintptr) int32) {
	if b.queue.stepped {
		b.flush()
	}
	b.queue.ops = append(b.queue.ops, op{what: what, callKey: key, call: call})
}

// allowShared tells the driver how much dynamic shared memory a kernel uses.
func (b *Backend) allowShared(k kernel, fn *function, bytes int) {
	if bytes > b.limits.shared {
		panic(fmt.Sprintf("cuda: kernel %s wants %d bytes of shared memory of %d", k.name, bytes, b.limits.shared))
	}
	if bytes > 48<<10 {
		b.must("cuFuncSetAttribute", dl.Call(b.d.funcSetAttribute, fn.handle, funcMaxShared, uintptr(bytes)))
	}
	fn.shared = bytes
}

// flush gives the queue to the device; b is entered.
func (b *Backend) flush() {
	q := &b.queue
	if len(q.ops) == 0 {
		return
	}
	defer func() {
		clear(q.ops)
		q.ops, q.args, q.stepped = q.ops[:0], q.args[:0], false
	}()
	if len(q.ops) >= leastGraph && b.graphs.run(b) {
		b.counts.Graphs++
	} else {
		for i := range q.ops {
			b.do(&q.ops[i])
		}
	}
	b.staging.launched(b)
}

// do gives one operation to the device.
func (b *Backend) do(o *op) {
	b.counts.Launches++
	if o.fn == nil {
		if r := o.call(b.stream); r != 0 {
			panic(b.libs.failure(b, o.what, r))
		}
		return
	}
	s := &o.shape
	params := [1]unsafe.Pointer{unsafe.Pointer(&b.queue.args[o.args])}
	if s.cooperative {
		b.must("cuLaunchCooperativeKernel", dl.Call(b.d.launchCooperativeKernel, o.fn.handle, uintptr(s.grid[0]), uintptr(s.grid[1]), uintptr(s.grid[2]),
			uintptr(s.threads), 1, 1, uintptr(s.shared), b.stream, uintptr(unsafe.Pointer(&params[0]))))
		return
	}
	b.must("cuLaunchKernel", dl.Call(b.d.launchKernel, o.fn.handle, uintptr(s.grid[0]), uintptr(s.grid[1]), uintptr(s.grid[2]),
		uintptr(s.threads), 1, 1, uintptr(s.shared), b.stream, uintptr(unsafe.Pointer(&params[0])), 0))
}

// Graphs: a queue that has come before, but for the arguments of its kernels, is launched
// at once. It is run one by one the first time, since libraries prepare things then, and
// made a graph the second.

// leastGraph is the shortest queue for which a graph is made.
const leastGraph = 4

// mostGraphs is how many are kept: a shape of a batch each, and the one used longest ago goes.
const mostGraphs = 64

type graph struct {
	key    string
	used   int
	exec   uintptr // 0: seen once
	graph  uintptr
	nodes  []uintptr
	args   []uint64 // those that the kernels have now
	refuse bool     // it cannot be made
}

type graphs struct {
	seed  maphash.Seed
	all   map[uint64]*graph
	clock int
	off   bool // for tests
	key   []byte
}

// nodeParams is CUDA_KERNEL_NODE_PARAMS_v2.
type nodeParams struct {
	fn                                          uintptr
	gridX, gridY, gridZ, blockX, blockY, blockZ uint32
	shared                                      uint32
	_                                           uint32
	params                                      unsafe.Pointer // so that it is not on a stack, which may move before the call
	extra                                       uintptr
	kernel, context                             uintptr
}

// launchAttribute is CUlaunchAttribute.
type launchAttribute [8]uint64

// run launches the queue as a graph and reports whether it did.
func (g *graphs) run(b *Backend) bool {
	if g.off {
		return false
	}
	if g.all == nil {
		g.seed, g.all = maphash.MakeSeed(), map[uint64]*graph{}
	}
	q := &b.queue
	g.key = g.key[:0]
	for i := range q.ops {
		g.key = q.ops[i].appendKey(g.key)
	}
	id := maphash.Bytes(g.seed, g.key)
	g.clock++
	e := g.all[id]
	if e == nil || e.key != string(g.key) {
		if e != nil {
			b.drop(e)
		} else if len(g.all) >= mostGraphs {
			g.forget(b)
		}
		g.all[id] = &graph{key: string(g.key), used: g.clock}
		return false
	}
	e.used = g.clock
	if e.refuse || e.exec == 0 && !b.record(e) {
		return false
	}
	b.patch(e)
	b.must("cuGraphLaunch", dl.Call(b.d.graphLaunch, e.exec, b.stream))
	return true
}

// forget drops the graph that was used longest ago.
func (g *graphs) forget(b *Backend) {
	var oldest uint64
	for id, e := range g.all {
		if old := g.all[oldest]; old == nil || e.used < old.used {
			oldest = id
		}
	}
	b.drop(g.all[oldest])
	delete(g.all, oldest)
}

func (b *Backend) drop(e *graph) {
	if e.exec != 0 {
		dl.Call(b.d.graphExecDestroy, e.exec) // when it has run
	}
	if e.graph != 0 {
		dl.Call(b.d.graphDestroy, e.graph)
	}
}

// appendKey appends what a graph cannot change about an operation.
func (o *op) appendKey(k []byte) []byte {
	if o.fn == nil {
		k = append(k, 1, byte(len(o.callKey)), byte(len(o.callKey)>>8))
		return append(k, o.callKey...)
	}
	s := &o.shape
	k = append(k, 0)
	for _, v := range [...]uint64{o.fn.number, uint64(s.grid[0]), uint64(s.grid[1]), uint64(s.grid[2]), uint64(s.threads), uint64(s.shared), uint64(flag(s.cooperative))} {
		k = append(k, byte(v), byte(v>>8), byte(v>>16), byte(v>>24))
	}
	return k
}

// record makes a graph of the queue, and reports whether it could. Some calls of libraries do what a
// capture does not allow; a queue with one is given to the device one by one each time it comes.
func (b *Backend) record(e *graph) bool {
	err := b.build(e)
	if err == nil {
		return true
	}
	b.drop(e)
	*e = graph{key: e.key, used: e.used, refuse: true}
	if note := "work is not launched as one graph: " + err.Error(); !slices.Contains(b.notes, note) {
		b.notes = append(b.notes, note)
	}
	return false
}

// build makes a graph of the queue, a chain.
func (b *Backend) build(e *graph) error {
	q, d := &b.queue, b.d
	if err := d.check("cuGraphCreate", dl.Call(d.graphCreate, uintptr(unsafe.Pointer(&e.graph)), 0)); err != nil {
		return err
	}
	e.nodes = make([]uintptr, len(q.ops))
	for i := range q.ops {
		o := &q.ops[i]
		before, n := uintptr(0), uintptr(0)
		if i > 0 {
			before, n = uintptr(unsafe.Pointer(&e.nodes[i-1])), 1
		}
		if o.fn == nil {
			if err := b.buildCall(e, i, o, before, n); err != nil {
				return err
			}
			continue
		}
		params := [1]unsafe.Pointer{unsafe.Pointer(&q.args[o.args])}
		p := o.params(&params)
		if err := d.check("cuGraphAddKernelNode", dl.Call(d.graphAddKernelNode, uintptr(unsafe.Pointer(&e.nodes[i])), e.graph, before, n, uintptr(unsafe.Pointer(p)))); err != nil {
			return err
		}
		if !o.shape.cooperative {
			continue
		}
		one := launchAttribute{1}
		if err := d.check("cuGraphKernelNodeSetAttribute", dl.Call(d.graphKernelNodeSetAttribute, e.nodes[i], nodeCooperative, uintptr(unsafe.Pointer(&one)))); err != nil {
			return err
		}
	}
	e.args = append(e.args[:0], q.args...)
	return d.check("cuGraphInstantiate", dl.Call(d.graphInstantiate, uintptr(unsafe.Pointer(&e.exec)), e.graph, 0))
}

// buildCall captures a library's call as a node.
func (b *Backend) buildCall(e *graph, i int, o *op, before, n uintptr) error {
	d, child := b.d, uintptr(0)
	if err := d.check("cuStreamBeginCapture", dl.Call(d.streamBeginCapture, b.capture, captureThread)); err != nil {
		return err
	}
	called := o.call(b.capture)
	// The capture must end, whatever has happened; what the call did comes with its error.
	err := d.check(o.what, dl.Call(d.streamEndCapture, b.capture, uintptr(unsafe.Pointer(&child))))
	if child != 0 {
		defer dl.Call(d.graphDestroy, child)
	}
	if err == nil && called != 0 {
		err = fmt.Errorf("%s: status %d during a capture", o.what, called)
	}
	if err != nil {
		return err
	}
	return d.check("cuGraphAddChildGraphNode", dl.Call(d.graphAddChildGraphNode, uintptr(unsafe.Pointer(&e.nodes[i])), e.graph, before, n, child))
}

func (o *op) params(params *[1]unsafe.Pointer) *nodeParams {
	s := &o.shape
	return &nodeParams{fn: o.fn.handle, gridX: uint32(s.grid[0]), gridY: uint32(s.grid[1]), gridZ: uint32(s.grid[2]),
		blockX: uint32(s.threads), blockY: 1, blockZ: 1, shared: uint32(s.shared), params: unsafe.Pointer(params)}
}

// patch sets the arguments that differ from those of the last launch.
func (b *Backend) patch(e *graph) {
	q := &b.queue
	for i := range q.ops {
		o := &q.ops[i]
		if o.fn == nil || equal(e.args[o.args:o.args+o.words], q.args[o.args:o.args+o.words]) {
			continue
		}
		params := [1]unsafe.Pointer{unsafe.Pointer(&q.args[o.args])}
		p := o.params(&params)
		b.must("cuGraphExecKernelNodeSetParams", dl.Call(b.d.graphExecKernelNodeSetParams, e.exec, e.nodes[i], uintptr(unsafe.Pointer(p))))
	}
	copy(e.args, q.args)
}

func equal(x, y []uint64) bool {
	for i := range x {
		if x[i] != y[i] {
			return false
		}
	}
	return true
}
