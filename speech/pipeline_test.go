package speech

import (
	"math"
	"slices"
	"testing"

	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/internal/simd/simdtest"
)

// Features that vanish, as those of a file may, meet no subnormal number in
// slopes and normalisation.
func TestFrontendVanishing(t *testing.T) {
	const width, frames = 3, 400
	x := make([]float32, width*frames)
	for i := range x {
		x[i] = simd.Narrow(math.Pow(0.8, float64(i)) * math.Cos(float64(i)))
	}
	stats := &Statistics{}
	for range 3 * width {
		stats.Mean, stats.Deviation = append(stats.Mean, 0), append(stats.Deviation, 30)
	}
	for _, kind := range []string{"none", "utterance", "running", "global"} {
		c := &Setup{Deltas: 2, Stack: 2, Normalize: kind}
		var steps []float32
		read, made := simdtest.Subnormals(t, func() { steps = (&Frontend{width, stats, c}).Steps(slices.Clone(x)) })
		if read || made {
			t.Errorf("%s: subnormal numbers: read %v, made %v", kind, read, made)
		}
		for i, v := range steps {
			if v != 0 && math.Abs(float64(v)) < simd.MinNormal {
				t.Fatalf("%s: number %d is %g", kind, i, v)
			}
		}
	}
}
