// Package devicetest is one conformance suite for every device.Backend.
//
// It sees a backend only through the interface. Values are compared with naive
// float64 code, gradients with central differences of that code, so nothing a
// backend does is compared with itself; the few exact comparisons are laws of
// the interface, such as a row's bits not depending on its batch mates.
package devicetest

import (
	"crypto/sha256"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/carousel-ml/carousel/internal/device"
)

// Run checks that b keeps the contract of package device: all of it, or some
// parts by their names, for a backend that does them in several ways.
func Run(t *testing.T, b device.Backend, parts ...string) {
	for _, part := range []struct {
		name string
		run  func(*suite)
	}{
		{"Memory", (*suite).memory},
		{"Permute", (*suite).permute},
		{"Gemm", (*suite).gemm},
		{"SumRows", (*suite).sumRows},
		{"Unary", (*suite).unary},
		{"Binary", (*suite).binary},
		{"Dropout", (*suite).dropout},
		{"Norm", (*suite).norm},
		{"Softmax", (*suite).softmax},
		{"Embed", (*suite).embed},
		{"Pool", (*suite).pool},
		{"Conv", (*suite).conv},
		{"WindowPool", (*suite).windowPool},
		{"Additive", (*suite).additive},
		{"Loss", (*suite).losses},
		{"CrossEntropy", (*suite).crossEntropy},
		{"CTC", (*suite).ctc},
		{"CRF", (*suite).crf},
		{"Vectors", (*suite).vectors},
		{"Step", (*suite).steps},
		{"ScanForward", (*suite).scanForwards},
		{"ScanGradient", (*suite).scanGradients},
		{"ScanLaws", (*suite).scanLaws},
		{"ScanGains", (*suite).scanGains},
	} {
		if len(parts) > 0 && !slices.Contains(parts, part.name) {
			continue
		}
		t.Run(part.name, func(t *testing.T) {
			s := &suite{T: t, b: b, path: part.name, sample: 40}
			s.seed("")
			part.run(s)
		})
	}
}

type suite struct {
	*testing.T
	b      device.Backend
	path   string // the names of the part and of the subtests within it
	rnd    *rand.Rand
	sample int // how many elements of a long gradient are checked

	remember bool // keep central differences for the next backend
}

// sub runs f as a subtest, with random numbers of its own.
func (s *suite) sub(name string, f func(*suite)) {
	s.Run(name, func(t *testing.T) {
		sub := &suite{T: t, b: s.b, path: s.path + "/" + name, sample: s.sample, remember: s.remember}
		sub.seed("")
		f(sub)
	})
}

// seed restarts the random numbers from the name of a case, so that they do not depend
// on the cases before it.
func (s *suite) seed(name string) {
	h := fnv.New64a()
	io.WriteString(h, s.path+"/"+name)
	s.rnd = rand.New(rand.NewPCG(1, h.Sum64()))
}

// normal is n standard normal numbers.
func (s *suite) normal(n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(s.rnd.NormFloat64())
	}
	return v
}

// scaled is n normal numbers of standard deviation sd.
func (s *suite) scaled(n int, sd float32) []float32 {
	v := s.normal(n)
	for i := range v {
		v[i] *= sd
	}
	return v
}

// put uploads a copy of v.
func (s *suite) put(v []float32) device.Buffer {
	buf := s.b.Alloc(len(v))
	src := slices.Clone(v)
	s.b.Upload(buf, src)
	for i := range src {
		src[i] = float32(math.NaN()) // the caller's again, and nobody's business
	}
	return buf
}

// ints uploads a copy of v; nil is absent.
func (s *suite) ints(v []int32) device.Ints {
	on := s.b.AllocInts(len(v))
	src := slices.Clone(v)
	s.b.UploadInts(on, src)
	for i := range src {
		src[i] = -1 << 30 // the caller's again, and nobody's business
	}
	return on
}

func (s *suite) getInts(v device.Ints) []int32 {
	out := make([]int32, v.N)
	s.b.DownloadInts(out, v)
	return out
}

func (s *suite) get(buf device.Buffer) []float32 {
	v := make([]float32, buf.N)
	s.b.Download(v, buf)
	return v
}

// near compares with a tolerance relative to 1 + |want|; NaN and infinities must match exactly.
func (s *suite) near(what string, got []float32, want []float64, tol float64) {
	s.Helper()
	if len(got) != len(want) {
		s.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	for i, w := range want {
		if !within(float64(got[i]), w, tol) {
			s.Fatalf("%s: element %d is %v, want %v", what, i, got[i], w)
		}
	}
}

func within(got, want, tol float64) bool {
	if math.IsNaN(want) || math.IsInf(want, 0) || math.IsNaN(got) || math.IsInf(got, 0) {
		return got == want || math.IsNaN(got) && math.IsNaN(want)
	}
	return math.Abs(got-want) <= tol*(1+math.Abs(want))
}

// same wants equal bits.
func (s *suite) same(what string, got, want []float32) {
	s.Helper()
	for i, w := range want {
		if math.Float32bits(got[i]) != math.Float32bits(w) {
			s.Fatalf("%s: element %d is %v, want exactly %v", what, i, got[i], w)
		}
	}
}

// gradient compares got with central differences of f at x. Of long vectors it takes a sample.
func (s *suite) gradient(what string, got, x []float32, f func(x []float64) float64, tol float64) {
	s.Helper()
	v := wide(x)
	indices := make([]int, min(len(v), s.sample))
	for k := range indices {
		indices[k] = k
		if len(v) > s.sample {
			indices[k] = s.rnd.IntN(len(v))
		}
	}
	compute := func() []float64 {
		wants := make([]float64, len(indices))
		for k, i := range indices {
			const h = 1e-5
			at := v[i]
			v[i] = at + h
			up := f(v)
			v[i] = at - h
			down := f(v)
			v[i] = at
			wants[k] = (up - down) / (2 * h)
		}
		return wants
	}
	if s.remember {
		compute = remembered(fmt.Sprint(s.path, "/", what, x, indices), compute)
	}
	for k, want := range compute() {
		if i := indices[k]; !within(float64(got[i]), want, tol) {
			s.Fatalf("%s: gradient %d is %v, central difference %v", what, i, got[i], want)
		}
	}
}

// differences are the central differences that were computed so far, by a hash of
// their case: those of scans take most of the suite's time, and are the same for
// every backend.
var differences sync.Map

// remembered returns a function that computes the differences of a case only once in
// a process.
func remembered(key string, compute func() []float64) func() []float64 {
	hash := sha256.Sum256([]byte(key))
	return func() []float64 {
		known, ok := differences.Load(hash)
		if !ok {
			known, _ = differences.LoadOrStore(hash, compute())
		}
		return known.([]float64)
	}
}

// wide converts to float64.
func wide(v []float32) []float64 {
	w := make([]float64, len(v))
	for i, x := range v {
		w[i] = float64(x)
	}
	return w
}

// dot is Σ a·b, the scalar whose gradient a backward pass from b computes.
func dot(a []float64, b []float32) float64 {
	var sum float64
	for i, x := range a {
		sum += x * float64(b[i])
	}
	return sum
}

// plus adds a constant, for checks of accumulation.
func plus(v []float32, c float32) []float32 {
	w := make([]float32, len(v))
	for i, x := range v {
		w[i] = x + c
	}
	return w
}

// filled is n copies of c.
func filled(n int, c float32) []float32 { return plus(make([]float32, n), c) }

func (s *suite) memory() {
	buf := s.b.Alloc(1000)
	s.near("Alloc", s.get(buf), make([]float64, 1000), 0)
	x, y := s.normal(1000), s.normal(1000)
	s.b.Upload(buf, x)
	s.same("Upload", s.get(buf), x)
	dst := s.put(y)
	s.b.Copy(dst.Slice(3, 603), buf.Slice(100, 700), false)
	s.same("Copy", s.get(dst), append(append(append([]float32{}, y[:3]...), x[100:700]...), y[603:]...))
	s.b.Upload(dst, y)
	s.b.Copy(dst, buf, true)
	want := make([]float32, 1000)
	for i := range want {
		want[i] = x[i] + y[i]
	}
	s.same("Copy acc", s.get(dst), want)
	s.b.Fill(dst.Slice(5, 7), 2.5)
	want[5], want[6] = 2.5, 2.5
	s.same("Fill", s.get(dst), want)
	s.b.Fill(dst.Slice(6, 7), float32(math.Copysign(0, -1)))
	if got := s.get(dst.Slice(6, 7))[0]; math.Float32bits(got) != 1<<31 {
		s.Errorf("Fill: got %v of bits %x, want -0", got, math.Float32bits(got))
	}
	s.b.Fill(device.Buffer{}, 1)
	numbers := s.ints([]int32{3, -1, 4, 1, -5})
	s.b.UploadInts(numbers.Slice(1, 3), []int32{7, 8})
	if got := fmt.Sprint(s.getInts(numbers), s.getInts(numbers.Slice(3, 5)), s.getInts(s.b.AllocInts(2))); got != "[3 7 8 1 -5] [1 -5] [0 0]" {
		s.Errorf("integers are %s", got)
	}
	s.b.FreeInts(numbers)
	s.b.Sync()
	s.b.Free(buf)
	if s.b.Name() == "" {
		s.Error("Name is empty")
	}
	if !s.b.Alloc(0).Zero() || !s.b.AllocInts(0).Zero() {
		s.Error("Alloc(0) is not absent")
	}
}

// permuted is the definition of PermuteSpec.
func permuted(p *device.PermuteSpec, rows, lens []int32, dst, src []float32) {
	for i0 := range p.Dims[0] {
		for i1 := range p.Dims[1] {
			for i2 := range p.Dims[2] {
				for i3 := range p.Dims[3] {
					i := [4]int{i0, i1, i2, i3}
					from, to := p.SrcOff, p.DstOff
					for k := range i {
						is, id := i[k], i[k]
						if rows != nil && k == p.RowDim {
							if p.RowsDst {
								id = int(rows[is])
							} else {
								is = int(rows[is])
							}
						}
						from += is * p.SrcStride[k]
						to += id * p.DstStride[k]
					}
					outside := lens != nil && i[p.TimeDim] >= int(lens[i[p.RowDim]])
					switch {
					case outside && p.Acc:
					case outside:
						dst[to] = 0
					case p.Acc:
						dst[to] += src[from]
					default:
						dst[to] = src[from]
					}
				}
			}
		}
	}
}

func (s *suite) permute() {
	const n = 2 * 3 * 5 * 7
	type block struct {
		device.PermuteSpec
		rows, lens []int32
	}
	specs := map[string]block{}
	for name, spec := range map[string]device.PermuteSpec{
		"copy":      {Dims: [4]int{2, 3, 5, 7}, DstStride: [4]int{105, 35, 7, 1}, SrcStride: [4]int{105, 35, 7, 1}},
		"transpose": {Dims: [4]int{2, 3, 5, 7}, DstStride: [4]int{1, 2, 6, 30}, SrcStride: [4]int{105, 35, 7, 1}},
		"swap":      {Dims: [4]int{1, 3, 5, 14}, DstStride: [4]int{0, 14, 42, 1}, SrcStride: [4]int{0, 70, 14, 1}},
		"slice":     {Dims: [4]int{1, 1, 4, 6}, DstOff: 9, SrcOff: 11, DstStride: [4]int{0, 0, 6, 1}, SrcStride: [4]int{0, 0, 20, 1}},
		"reverse":   {Dims: [4]int{1, 1, 10, 21}, SrcOff: 189, DstStride: [4]int{0, 0, 21, 1}, SrcStride: [4]int{0, 0, -21, 1}},
		"broadcast": {Dims: [4]int{1, 6, 5, 7}, DstStride: [4]int{0, 35, 7, 1}, SrcStride: [4]int{0, 0, 7, 1}},
		"rows": {Dims: [4]int{1, 3, 10, 7}, DstStride: [4]int{0, 7, 21, 1}, SrcStride: [4]int{0, 70, 7, 1},
			RowDim: 1, TimeDim: 2},
		"rows back": {Dims: [4]int{1, 10, 3, 7}, DstStride: [4]int{0, 7, 70, 1}, SrcStride: [4]int{0, 21, 7, 1},
			RowsDst: true, RowDim: 2, TimeDim: 1},
		"cut":                     {Dims: [4]int{1, 3, 10, 7}, DstStride: [4]int{0, 70, 7, 1}, SrcStride: [4]int{0, 70, 7, 1}, RowDim: 1, TimeDim: 2},
		"cut of single elements":  {Dims: [4]int{1, 3, 10, 1}, DstStride: [4]int{0, 10, 1, 0}, SrcStride: [4]int{0, 0, 0, 0}, RowDim: 1, TimeDim: 2},
		"cut innermost":           {Dims: [4]int{2, 3, 5, 7}, DstStride: [4]int{105, 35, 7, 1}, SrcStride: [4]int{105, 35, 7, 1}, RowDim: 1, TimeDim: 3},
		"rows of single elements": {Dims: [4]int{1, 1, 3, 1}, DstStride: [4]int{0, 0, 2, 1}, SrcStride: [4]int{0, 0, 5, 1}, RowDim: 2},
		"empty":                   {Dims: [4]int{1, 0, 3, 7}},
	} {
		b := block{PermuteSpec: spec}
		if strings.HasPrefix(name, "rows") {
			b.rows = []int32{2, 0, 1}
		}
		if spec.TimeDim > 0 {
			b.lens = []int32{10, 4, 0}
		}
		specs[name] = b
	}
	for _, name := range slices.Sorted(maps.Keys(specs)) {
		spec := specs[name]
		for _, acc := range []bool{false, true} {
			src, dst := s.normal(n), s.normal(n)
			spec.Acc, spec.Src, spec.Dst = acc, s.put(src), s.put(dst)
			spec.Rows, spec.Lens = s.ints(spec.rows), s.ints(spec.lens)
			s.b.Permute(&spec.PermuteSpec)
			permuted(&spec.PermuteSpec, spec.rows, spec.lens, dst, src)
			s.same(fmt.Sprintf("%s acc=%v", name, acc), s.get(spec.Dst), dst)
		}
	}
	// A destination stride of 0 sums, the backward of a broadcast.
	src, dst := s.normal(n), s.normal(35)
	spec := device.PermuteSpec{Dims: [4]int{1, 6, 5, 7}, DstStride: [4]int{0, 0, 7, 1}, SrcStride: [4]int{0, 35, 7, 1},
		Acc: true, Src: s.put(src), Dst: s.put(dst)}
	s.b.Permute(&spec)
	permuted(&spec, nil, nil, dst, src)
	s.near("sum", s.get(spec.Dst), wide(dst), 1e-6)
}
