package bench

import (
	"time"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/tensor"
)

// Limits is what a machine allows a number of threads, for programs that time networks
// themselves. A repeated Measure keeps the best.
type Limits struct {
	m     Machine
	bytes float64 // products in 8 bits, in thousand millions of operations a second
	list  []traffic
}

// NewLimits returns the limits of networks of these shapes, which are still to be measured.
func NewLimits(threads int, shapes []Shape) *Limits {
	l := &Limits{m: describeMachine(threads)}
	l.m.Rates = []Rate{{Threads: threads}}
	for _, s := range shapes {
		for _, p := range []tensor.Precision{tensor.Float32, tensor.Int8} {
			l.list = append(l.list, s.reads(cell.LSTM, p)...)
		}
	}
	return l
}

// brief is many short windows, so that on a busy machine some of them have it alone.
var brief = effort{windows: 60, window: 3 * time.Millisecond}

// Measure takes some seconds.
func (l *Limits) Measure() {
	threads := l.m.Threads
	buf := l.m.probeBuffer(threads)
	l.m.probe(buf, brief)
	l.m.probeStreams(l.list, buf, brief)
	l.bytes = max(l.bytes, brief.best(func() float64 { return bytePeak(threads, brief.window) }))
}

// Rates returns the rates, and that of products in 8 bits in thousand millions of operations a second: unlike the others
// it is of Carousel's own kernels, with operands in the nearest caches.
func (l *Limits) Rates() (r Rate, bytes float64) { return l.m.Rates[0], l.bytes }

// Forward returns the least time in milliseconds of a pass forward whose weights are float32 or of
// 8 bits, and which limit sets it: "fma" or "int8" for the operations, or the level of memory.
func (l *Limits) Forward(s Shape, kind cell.Kind, p tensor.Precision) (ms float64, limit string) {
	rate := l.m.Rates[0]
	if p == tensor.Int8 {
		rate.Peak = l.bytes
	}
	seconds, limit := l.m.bound(&rate, s.ForwardFlop(kind), s.reads(kind, p))
	if limit == "fma" && p == tensor.Int8 {
		limit = p.String()
	}
	return 1e3 * seconds, limit
}

// reads is the traffic of a pass forward with weights of a precision.
func (s Shape) reads(kind cell.Kind, p tensor.Precision) []traffic {
	list := s.traffic(kind, false)
	if p == tensor.Int8 {
		for i, t := range list {
			list[i] = traffic{t.bytes / 4, t.footprint / 4}
		}
	}
	return list
}

// bytePeak measures the products in 8 bits of n threads at once, over one window of d.
func bytePeak(n int, d time.Duration) float64 {
	set := simd.Best()
	w := set.Weights[device.INT8]
	const rows, panels, depth = 96, 4, 512 // whole tiles of every kernel
	cols := panels * set.NR
	type operands struct {
		simd.ByteArgs
		_ [64]byte // a cache line between threads
	}
	each := make([]operands, n)
	for i := range each {
		a := &each[i]
		a.M, a.N, a.K, a.LDC = rows, cols, depth, cols
		a.Pitch = set.NR * (w.Head + depth/w.Group*w.Bytes)
		a.A, a.B, a.C = make([]int8, rows*simd.ByteDepth(depth)), make([]int8, panels*a.Pitch), make([]float32, rows*cols)
		a.ScaleA, a.ScaleB = make([]float32, rows), make([]float32, cols)
	}
	return 1e-9 * together(n, d, func(i int) float64 {
		w.Products.Run(&each[i].ByteArgs)
		return float64(2 * rows * cols * depth)
	})
}
