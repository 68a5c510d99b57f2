package cpu

import "github.com/carousel-ml/carousel/internal/simd"

// Zoneout (Krueger et al. 2017): a unit keeps its old value with probability p;
// at inference it takes the mean of both. fresh is the weight of the new value.
func (r *row) fresh(stream uint64, n int) []float32 {
	e := r.e
	v, p := r.scratch(freshWork, n), e.ZoneH
	if stream == zoneC {
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

// mixZone is dst = fresh⊙new + (1-fresh)⊙old; dst may be new.
func mixZone(dst, fresh, new, old []float32) {
	for i, f := range fresh {
		f := float64(f)
		dst[i] = simd.Narrow(float64(f*float64(new[i])) + float64((1-f)*float64(old[i])))
	}
}

// splitZone gives the new value its share of d and leaves the old one's in d.
func splitZone(dnew, d, fresh []float32) {
	for i, f := range fresh {
		dnew[i], d[i] = f*d[i], (1-f)*d[i] // f is 0 or 1: nothing becomes smaller
	}
}
