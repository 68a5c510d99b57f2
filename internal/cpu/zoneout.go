package cpu

import (
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/simd"
)

// Zoneout (Krueger et al. 2017): a unit keeps its old value with probability p; at
// inference it takes the expectation.

// fresh returns the weights of the n new values: 0 or 1, or with Expect 1-p.
func (r *row) fresh(stream uint64, n int) []float32 {
	e := r.e
	v, p := r.scratch(freshWork, n), e.ZoneH
	if stream == device.ZoneC {
		p = e.ZoneC
	}
	if e.Expect {
		for i := range v {
			v[i] = 1 - p
		}
		return v
	}
	e.draw(v, p, 1, stream, r.b, r.t)
	return v
}

// mixZone computes dst = fresh⊙new + (1-fresh)⊙old; dst may be new.
func mixZone(dst, fresh, new, old []float32) {
	for i, f := range fresh {
		f := float64(f)
		dst[i] = simd.Narrow(float64(f*float64(new[i])) + float64((1-f)*float64(old[i])))
	}
}

// splitZone computes the gradients of mixZone: dnew = fresh⊙d, and d = (1-fresh)⊙d for the old value.
func splitZone(dnew, d, fresh []float32) {
	for i, f := range fresh {
		dnew[i], d[i] = f*d[i], (1-f)*d[i] // f is 0 or 1, so no product is subnormal
	}
}
