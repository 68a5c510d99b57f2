package audio

import (
	"fmt"
	"math"

	"github.com/carousel-ml/carousel/internal/simd"
)

// The resampling filter: a sinc with a cutoff just below the lower of the two
// Nyquist frequencies, under a Kaiser window. Aliases stay below -90 dB.
const (
	sincZeros  = 32    // zero crossings of the sinc on either side
	sincCutoff = 0.945 // of the lower Nyquist frequency
	kaiserBeta = 9.5
)

// mostPhases bounds the table of filters. Rates whose ratio has more phases
// interpolate between two filters of the table.
const mostPhases = 1024

// Resampler changes the rate of a sound that arrives piece by piece, with a
// windowed-sinc polyphase filter. The result does not depend on the pieces.
type Resampler struct {
	up, down int       // out rate : in rate, without common factors
	half     int       // taps on either side of an output sample
	scale    float64   // cutoff relative to the input's Nyquist frequency
	phases   int       // filters of the table, except the last, which repeats the first one sample later
	table    []float64 // shape [phases+1, 2·half]
	in       []float64 // input from position first on
	first    int64
	seen     int64 // samples of input
	next     int64 // index of the next output sample
}

// NewResampler converts from one rate to another, both in samples per second.
// At equal rates samples pass through unchanged. It panics unless both are
// positive.
func NewResampler(from, to int) *Resampler {
	if from <= 0 || to <= 0 {
		panic(fmt.Sprintf("audio: NewResampler: rates must be positive, got %d and %d", from, to))
	}
	g := gcd(from, to)
	r := &Resampler{up: to / g, down: from / g}
	if r.up == r.down {
		return r
	}
	r.scale = sincCutoff * min(1, float64(to)/float64(from))
	r.half = int(math.Ceil(sincZeros / r.scale))
	r.phases = min(r.up, mostPhases)
	taps := 2 * r.half
	r.table = make([]float64, (r.phases+1)*taps)
	for p := range r.phases + 1 {
		r.filter(r.table[p*taps:(p+1)*taps], float64(p)/float64(r.phases))
	}
	r.Reset()
	return r
}

// Reset makes the Resampler ready for another sound.
func (r *Resampler) Reset() {
	r.first = int64(-r.half) // silence precedes the beginning
	r.in = append(r.in[:0], make([]float64, r.half)...)
	r.seen, r.next = 0, 0
}

func gcd(a, b int) int {
	for b > 0 {
		a, b = b, a%b
	}
	return a
}

// filter computes the taps for outputs that lie offset samples after an input sample.
func (r *Resampler) filter(row []float64, offset float64) {
	norm := bessel0(kaiserBeta)
	for k := range row {
		x := float64(k-r.half+1) - offset // from the output to the tap, in input samples
		u := x / float64(r.half)
		if u < -1 || u > 1 {
			row[k] = 0
			continue
		}
		v := r.scale
		if y := math.Pi * x * r.scale; y != 0 {
			v = r.scale * math.Sin(y) / y
		}
		row[k] = v * bessel0(kaiserBeta*math.Sqrt(1-u*u)) / norm
	}
}

// bessel0 is the modified Bessel function of the first kind and order 0.
func bessel0(x float64) float64 {
	sum, term := 1.0, 1.0
	for k := 1.0; term > 1e-17*sum; k++ {
		term *= (x / 2 / k) * (x / 2 / k)
		sum += term
	}
	return sum
}

// Write takes input and appends to dst the output that it completes.
func (r *Resampler) Write(dst, src []float32) []float32 {
	if r.half == 0 {
		return append(dst, src...)
	}
	for _, x := range src {
		r.in = append(r.in, float64(simd.Flush(x)))
	}
	r.seen += int64(len(src))
	return r.run(dst, r.seen)
}

// Flush appends the remaining output to dst: a sound of n samples has
// ceil(n·to/from) in all. The Resampler must be Reset to be used again.
func (r *Resampler) Flush(dst []float32) []float32 {
	if r.half == 0 {
		return dst
	}
	r.in = append(r.in, make([]float64, r.half+1)...) // silence follows the end
	return r.run(dst, r.seen+int64(r.half)+1)
}

// run returns the outputs whose filters end before position end of the input.
func (r *Resampler) run(dst []float32, end int64) []float32 {
	taps := 2 * r.half
	for {
		at := r.next * int64(r.down)
		pos, phase := at/int64(r.up), int(at%int64(r.up))
		from := pos - int64(r.half) + 1
		if from+int64(taps) > end || pos >= r.seen {
			r.drop(from)
			return dst
		}
		dst = append(dst, r.output(r.in[from-r.first:from-r.first+int64(taps)], phase))
		r.next++
	}
}

// output computes one sample, at phase/up of a sample after the middle of x.
func (r *Resampler) output(x []float64, phase int) float32 {
	taps := len(x)
	if r.phases == r.up {
		return simd.Narrow(simd.Dot64(x, r.table[phase*taps:]))
	}
	place := float64(phase) / float64(r.up) * float64(r.phases)
	p := int(place)
	a, b := simd.Dot64(x, r.table[p*taps:]), simd.Dot64(x, r.table[(p+1)*taps:])
	return simd.Narrow(a + (place-float64(p))*(b-a))
}

// drop discards input before position from.
func (r *Resampler) drop(from int64) {
	if n := min(from-r.first, int64(len(r.in))); n > 0 {
		r.in = r.in[:copy(r.in, r.in[n:])]
		r.first += n
	}
}

// Resample returns s converted to another rate, in samples per second.
func (s *Sound) Resample(rate int) *Sound {
	if rate == s.Rate {
		return s
	}
	r := NewResampler(s.Rate, rate)
	out := make([]float32, 0, int(float64(len(s.Samples))*float64(rate)/float64(s.Rate))+1)
	return &Sound{Rate: rate, Samples: r.Flush(r.Write(out, s.Samples))}
}
