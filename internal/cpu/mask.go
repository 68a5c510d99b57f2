package cpu

import (
	"math"

	"github.com/carousel-ml/carousel/internal/simd"
)

// The random numbers inside a scan are those of [Backend.Dropout], with one more
// mixing for the row and the time, so that a row's depend on its number and the
// step alone: not on its batch mates, their lengths or the threads.

const (
	dropH = uint64(iota) // added to the node's number
	zoneH
	zoneC
)

// draw fills v with 0 at probability p and keep otherwise.
func (e *scan) draw(v []float32, p, keep float32, stream uint64, b, t int) {
	if !e.Rows.Zero() {
		b = int(e.Rows.Host[b])
	}
	key := mix((mix((mix(e.Seed+golden)^e.Step)+golden) ^ (e.Node + stream)) + golden)
	state := mix(key + (uint64(b)<<32|uint64(uint32(t)))*golden)
	masks(v, state, uint64(math.Round(float64(p)*(1<<32))), math.Float32bits(keep))
}

// drawMask makes the masks of the states that enter R, for rows [lo,hi): one a sequence.
func (e *scan) drawMask(lo, hi int) {
	for b := lo; b < hi; b++ {
		e.draw(e.mask[b*e.out:(b+1)*e.out], e.HDrop, float32(1/(1-float64(e.HDrop))), dropH, b, 0)
	}
}

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
