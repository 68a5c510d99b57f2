package forecast

import (
	"math"
	"testing"

	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/internal/simd/simdtest"
)

// A series and a covariate that die away, without a scaler that lifts them, make
// inputs that are zero before they are subnormal.
func TestVanishingSeries(t *testing.T) {
	panel := hourly(1, 900)
	for _, column := range panel.Series[0].Values {
		for i := range column {
			column[i] = math.Exp(-0.12*float64(i)) * (1 + 0.5*math.Cos(float64(i)))
		}
	}
	for _, norm := range []string{"none", "last", "mean", "standard"} {
		for _, head := range []string{"direct", "autoregressive"} {
			cfg := small()
			cfg.Scale, cfg.WindowNorm, cfg.Head, cfg.Loss = "none", norm, head, "mse"
			var b batch
			read, made := simdtest.Subnormals(t, func() {
				_, d, err := prepare(t.Context(), &Data{Panel: panel}, cfg, nil)
				if err != nil {
					t.Fatalf("%s, %s: %v", norm, head, err)
				}
				d.load(&b, append(d.windows(trainPart, 1), d.windows(validationPart, 1)...), true)
			})
			if read || made {
				t.Errorf("%s, %s: subnormal numbers: read %v, made %v", norm, head, read, made)
			}
			for name, list := range map[string][]float32{"encoder": b.encoder, "decoder": b.decoder, "linear": b.linear, "target": b.target} {
				for i, v := range list {
					if v != 0 && math.Abs(float64(v)) < simd.MinNormal {
						t.Fatalf("%s, %s: %s[%d] is %g", norm, head, name, i, v)
					}
				}
			}
		}
	}
}
