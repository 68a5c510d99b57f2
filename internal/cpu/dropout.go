package cpu

import (
	"math"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
)

// Dropout computes y[i] (+)= x[i]·mask[i], with mask[i] 0 with probability P and
// 1/(1-P) otherwise.
func (b *Backend) Dropout(s *device.DropoutSpec) {
	par.Each(s.N, elemGrain, b, s, (*Backend).dropoutRange)
}

// factor returns the mask of one element, 0 or 1/(1-P), for its 32 random bits.
func factor(bits, threshold uint64, keep uint32) float32 {
	dropped := uint32(int64(bits-threshold) >> 63) // all ones below the threshold
	return math.Float32frombits(keep &^ dropped)
}

func (b *Backend) dropoutRange(s *device.DropoutSpec, lo, hi int) {
	key, threshold := device.MaskKey(s.Seed, s.Step, s.Node), device.Threshold(s.P)
	keep := math.Float32bits(device.KeepFactor(s.P))
	var m [256]float32
	for lo < hi {
		odd := lo % 2
		n := min(len(m)-odd, hi-lo)
		masks(m[:n+odd], key+uint64((lo-odd)/2)*device.Golden, threshold, keep)
		x, y := s.X.Host[lo:lo+n], s.Y.Host[lo:lo+n]
		f := m[odd:][:n]
		if s.Acc {
			for i, v := range x {
				y[i] = simd.Narrow(float64(y[i]) + float64(v*f[i])) // v*f is 0 or not smaller than v
			}
		} else {
			for i, v := range x {
				y[i] = v * f[i]
			}
		}
		lo += n
	}
}

// masks fills m with the factors that follow a state of the generator.
func masks(m []float32, state, threshold uint64, keep uint32) {
	for i := 0; i < len(m); i += 2 {
		state += device.Golden
		z := device.Mix(state)
		m[i] = factor(z&math.MaxUint32, threshold, keep)
		if i+1 < len(m) {
			m[i+1] = factor(z>>32, threshold, keep)
		}
	}
}

// A scan uses the generator of [Backend.Dropout] with one more mixing, for the row
// and the time, so that the random numbers of a row depend on its number and the
// step alone, not on other rows, their lengths or threads.

// draw fills v with 0 with probability p, and with keep otherwise.
func (e *scan) draw(v []float32, p, keep float32, stream uint64, b, t int) {
	if !e.Rows.Zero() {
		b = int(e.Rows.Host[b])
	}
	state := device.Mix(device.MaskKey(e.Seed, e.Step, e.Node+stream) + (uint64(b)<<32|uint64(uint32(t)))*device.Golden)
	masks(v, state, device.Threshold(p), math.Float32bits(keep))
}

// drawMask fills the masks of the operand of R for rows [lo,hi): one per sequence.
func (e *scan) drawMask(lo, hi int) {
	for b := lo; b < hi; b++ {
		e.draw(e.mask[b*e.out:(b+1)*e.out], e.HDrop, device.KeepFactor(e.HDrop), device.DropH, b, 0)
	}
}
