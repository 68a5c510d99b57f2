package graph

import (
	"math"
	"math/cmplx"
	"math/rand/v2"
	"testing"
	"time"
)

// TestTransforms compares transforms of all sizes, in both directions, with the sum that
// defines them.
func TestTransforms(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	for _, n := range []int{1, 2, 3, 60, 61, 64, 67, 128, 134, 201, 211, 335, 509} {
		x, want, back := make([]complex128, n), make([]complex128, n), make([]complex128, n)
		for i := range x {
			x[i] = complex(rng.NormFloat64(), rng.NormFloat64())
		}
		for k := range n {
			for j, v := range x {
				e := cmplx.Rect(1, -2*math.Pi*float64(j*k%n)/float64(n))
				want[k] += v * e
				back[k] += v * cmplx.Conj(e)
			}
		}
		f := newDFT(n)
		if _, chirped := f.(*chirp); chirped != (largestFactor(n) > maxFactor) || f.Len() != n {
			t.Errorf("size %d: a transform %T of size %d", n, f, f.Len())
		}
		for range 2 { // its memory is used again
			for name, list := range map[string][2][]complex128{"forward": {f.Coefficients(make([]complex128, n), x), want}, "backward": {f.Sequence(make([]complex128, n), x), back}} {
				for k, v := range list[0] {
					if cmplx.Abs(v-list[1][k]) > 1e-12*float64(n) {
						t.Fatalf("size %d %s: element %d is %v, want %v", n, name, k, v, list[1][k])
					}
				}
			}
		}
	}
}

// TestTransformOfPrimeSize: a size without small factors takes no time of its square.
func TestTransformOfPrimeSize(t *testing.T) {
	const n = 299993
	begun := time.Now()
	f, x := newDFT(n), make([]complex128, n)
	x[1] = 1
	f.Coefficients(x, x)
	if want := cmplx.Rect(1, -2*math.Pi*12345/n); cmplx.Abs(x[12345]-want) > 1e-9 {
		t.Errorf("element 12345 is %v, want %v", x[12345], want)
	}
	if d := time.Since(begun); d > time.Minute {
		t.Errorf("it took %v", d)
	}
}
