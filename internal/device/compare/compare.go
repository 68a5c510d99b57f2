// Package compare computes small cases of every operation on two devices, with the same
// numbers, and reports how far their results are apart. It is for users who want to know
// whether a device computes rightly where it is; devicetest compares with equations.
package compare

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"strings"

	"github.com/carousel-ml/carousel/internal/device"
)

// Result is an operation on both devices.
type Result struct {
	Operation  string  `json:"operation"`       // what was computed
	Difference float64 `json:"difference"`      // the largest between two results, divided by the largest result; null where it is not finite
	Bound      float64 `json:"bound"`           // what it may be
	Error      string  `json:"error,omitempty"` // why the operation failed
}

// OK reports whether the results agree.
func (r *Result) OK() bool { return r.Error == "" && r.Difference <= r.Bound }

// Bounds of differences. Sums of float32 differ by their order and by fused multiply-adds,
// functions by some units in the last place; a state of 16 bits may be rounded the other way.
const (
	same    = 0
	near    = 2e-5
	rounded = 2e-2
)

// Devices compares b with a reference. products is what products of float32 may differ by if
// they are rounded, as with TF32; otherwise 0. each is called after every operation.
func Devices(reference, b device.Backend, products float64, each func(Result)) {
	for _, o := range operations() {
		r := Result{Operation: o.name, Bound: o.bound}
		if o.products {
			r.Bound = max(r.Bound, products)
		}
		want, err := o.compute(reference)
		if err == nil {
			var got [][]float32
			if got, err = o.compute(b); err == nil {
				r.Difference = difference(want, got)
			}
		}
		if err != nil {
			r.Error = strings.Join(strings.Fields(err.Error()), " ")
		}
		each(r)
	}
}

// operation is what do computes, on any device.
type operation struct {
	name     string
	bound    float64
	products bool // of float32
	do       func(*run)
}

// run is an operation on one device.
type run struct {
	device.Backend
	*rand.Rand
	outs []func() []float32
	free []func()
}

// compute returns what the operation wrote.
func (o *operation) compute(b device.Backend) (outs [][]float32, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	h := fnv.New64a()
	h.Write([]byte(o.name))
	r := &run{Backend: b, Rand: rand.New(rand.NewPCG(h.Sum64(), 1))}
	o.do(r)
	for _, read := range r.outs {
		outs = append(outs, read())
	}
	for _, f := range r.free {
		f()
	}
	return outs, nil
}

// difference is the largest of those between results, each divided by the largest of its kind.
func difference(want, got [][]float32) (most float64) {
	for i, w := range want {
		scale := 0.0
		for _, x := range w {
			if a := math.Abs(float64(x)); !math.IsInf(a, 0) && !math.IsNaN(a) {
				scale = max(scale, a)
			}
		}
		if scale == 0 {
			scale = 1
		}
		for k, x := range w {
			y := got[i][k]
			if x == y || x != x && y != y {
				continue
			}
			d := math.Abs(float64(x)-float64(y)) / scale
			if math.IsNaN(d) {
				return math.Inf(1)
			}
			most = max(most, d)
		}
	}
	return most
}

// put uploads numbers.
func (r *run) put(v []float32) device.Buffer {
	b := r.Alloc(len(v))
	r.free = append(r.free, func() { r.Free(b) })
	r.Upload(b, v)
	return b
}

// fill is n numbers of a function.
func (r *run) fill(n int, f func() float32) device.Buffer {
	v := make([]float32, n)
	for i := range v {
		v[i] = f()
	}
	return r.put(v)
}

// normal is n random numbers.
func (r *run) normal(n int) device.Buffer { return r.scaled(n, 1) }

func (r *run) scaled(n int, by float64) device.Buffer {
	return r.fill(n, func() float32 { return float32(by * r.NormFloat64()) })
}

// positive is n random numbers above 0.
func (r *run) positive(n int) device.Buffer {
	return r.fill(n, func() float32 { return float32(0.1 + r.Float64()) })
}

// constant is n equal numbers.
func (r *run) constant(n int, v float32) device.Buffer {
	return r.fill(n, func() float32 { return v })
}

// ints uploads integers.
func (r *run) ints(v ...int32) device.Ints {
	b := r.AllocInts(len(v))
	r.free = append(r.free, func() { r.FreeInts(b) })
	r.UploadInts(b, v)
	return b
}

// below is n random integers of [low, high).
func (r *run) below(n, low, high int) device.Ints {
	v := make([]int32, n)
	for i := range v {
		v[i] = int32(low + r.IntN(high-low))
	}
	return r.ints(v...)
}

// out marks a buffer as a result.
func (r *run) out(b device.Buffer) device.Buffer {
	r.outs = append(r.outs, func() []float32 {
		v := make([]float32, b.N)
		r.Download(v, b)
		return v
	})
	return b
}

// result is a new buffer for n results.
func (r *run) result(n int) device.Buffer { return r.out(r.constant(n, 9)) }

// sums is a new buffer of n numbers to which results are added.
func (r *run) sums(n int) device.Buffer { return r.out(r.normal(n)) }

// intResult is result for integers.
func (r *run) intResult(n int) device.Ints {
	b := r.below(n, 7, 8)
	r.outs = append(r.outs, func() []float32 {
		v, f := make([]int32, n), make([]float32, n)
		r.DownloadInts(v, b)
		for i, x := range v {
			f[i] = float32(x)
		}
		return f
	})
	return b
}
