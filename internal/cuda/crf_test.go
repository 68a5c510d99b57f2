//go:build dl && linux

package cuda

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/carousel-ml/carousel/internal/cpu"
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/device/devicetest"
	"github.com/carousel-ml/carousel/internal/simd"
)

func TestCRF(t *testing.T) { devicetest.Run(t, emulated(t, Options{}), "CRF") }

// Tags of several warps, of several for a thread, and with weights that don't fit into shared
// memory. At odd steps, tag 5 is likely though all that leads to it is not, so its sum is
// computed from logarithms.
func TestCRFLarge(t *testing.T) {
	long(t)
	for _, c := range []struct {
		B, T, K, shared int
	}{{3, 40, 70, 0}, {3, 40, 70, 16 << 10}, {2, 3, 1100, 0}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			r := rand.New(rand.NewPCG(3, uint64(c.K)))
			trans := normal(r, c.K*c.K, 3)
			for i := range trans {
				if i%11 == 0 {
					trans[i] = float32(math.Inf(-1))
				}
			}
			for i := range c.K {
				trans[i*c.K+5] = -200
			}
			trans[6*c.K+5], trans[c.K+1] = 0, -1
			scores, edges := normal(r, c.B*c.T*c.K, 4), normal(r, 2*c.K, 1)
			tags, lens := make([]int32, c.B*c.T), []int32{int32(c.T), 1, int32(c.T - 1)}[:c.B]
			for i := range tags {
				tags[i] = 1
			}
			for i := range c.B * c.T {
				if i%c.T%2 == 0 {
					scores[i*c.K+6] -= 100
				} else {
					scores[i*c.K+5] += 115
				}
			}
			run := func(b device.Backend) [][]float32 {
				s := device.CRFSpec{B: c.B, T: c.T, K: c.K, Scores: put(b, scores), Trans: put(b, trans), Start: put(b, edges[:c.K]), End: put(b, edges[c.K:]),
					Lens: putInts(b, lens), Tags: putInts(b, tags), Value: b.Alloc(1), DScores: b.Alloc(len(scores)), DTrans: b.Alloc(len(trans)),
					DStart: b.Alloc(c.K), DEnd: b.Alloc(c.K)}
				b.CRF(&s)
				return [][]float32{get(b, s.Value), get(b, s.DScores), get(b, s.DTrans), get(b, s.DStart), get(b, s.DEnd)}
			}
			b := emulated(t, Options{})
			if c.shared > 0 {
				b.limits.shared = c.shared
			}
			got, want := run(b), run(cpu.New(simd.Best()))
			for i, what := range []string{"value", "scores", "transitions", "start", "end"} {
				near(t, what, got[i], want[i], 2e-6)
			}
		})
	}
}

func TestCRFOfAWrongTag(t *testing.T) {
	b := emulated(t, Options{})
	s := device.CRFSpec{B: 1, T: 2, K: 3, Scores: b.Alloc(6), Trans: b.Alloc(9), Tags: putInts(b, []int32{0, 3}), Value: b.Alloc(1), DScores: b.Alloc(6)}
	b.CRF(&s)
	if v := get(b, s.Value)[0]; v == v {
		t.Errorf("the value of a tag out of range is %v, want NaN", v)
	}
}
