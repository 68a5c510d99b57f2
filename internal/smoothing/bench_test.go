package smoothing

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// seasonalSeries is a line with a season and noise.
func seasonalSeries(n, period int) []float64 {
	r := rand.New(rand.NewPCG(1, 2))
	y := make([]float64, n)
	for t := range y {
		y[t] = (100+0.1*float64(t))*(1+0.2*math.Sin(2*math.Pi*float64(t)/float64(period))) + 3*r.NormFloat64()
	}
	return y
}

func BenchmarkFit(b *testing.B) {
	for _, size := range [][2]int{{150, 12}, {1000, 24}} {
		y := seasonalSeries(size[0], size[1])
		b.Run(fmt.Sprintf("ets/%d", size[0]), func(b *testing.B) {
			for b.Loop() {
				if _, err := FitETS(b.Context(), y, size[1]); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("theta/%d", size[0]), func(b *testing.B) {
			for b.Loop() {
				if _, err := FitTheta(y, size[1]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
