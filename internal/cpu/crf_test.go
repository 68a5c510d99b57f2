package cpu

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/simd"
)

func BenchmarkCRF(b *testing.B) {
	for _, k := range []int{17, 33, 60} {
		b.Run(fmt.Sprintf("K=%d", k), func(b *testing.B) {
			const rows, steps = 32, 30
			r := rand.New(rand.NewPCG(1, 2))
			in := func(n int) device.Buffer { return device.HostBuffer(randoms(r, n)) }
			backend := New(simd.Best())
			s := &device.CRFSpec{B: rows, T: steps, K: k, Scores: in(rows * steps * k), Trans: in(k * k), Tags: backend.AllocInts(rows * steps),
				Value: in(1), DScores: in(rows * steps * k), DTrans: in(k * k)}
			for b.Loop() {
				backend.CRF(s)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(rows*steps), "ns/step")
		})
	}
}
