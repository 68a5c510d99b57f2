package denoise

import (
	"math"

	"gonum.org/v1/gonum/dsp/fourier"

	"github.com/carousel-ml/carousel/internal/simd"
)

const (
	bands   = 22
	bins    = window/2 + 1 // of 50 Hz
	deltas  = 6            // coefficients whose changes are features
	memory  = 8            // frames of coefficients that variability compares
	inputs  = bands + 3*deltas + 2
	perEdge = 4 // bins in 200 Hz
)

// edges are the centres of the bands in 200 Hz, from 0 to 20 kHz: about the Bark scale,
// but no narrower than its lowest bands allow (the bands of the Opus codec).
var edges = [bands]int{0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 34, 40, 48, 60, 78, 100}

// tables are the constants of all streams.
var tables = newTables()

type constants struct {
	window [window]float64       // the power-complementary window of Vorbis
	cosine [bands][bands]float64 // orthonormal but for its scale: cosine[k][band]
	band   [bins]int             // the band whose centre is at or below a bin
	above  [bins]float64         // the part of a bin that belongs to the next band
	end    int                   // bins from here on belong to no band
}

func newTables() *constants {
	t := &constants{end: edges[bands-1] * perEdge}
	for i := range t.window {
		s := math.Sin(math.Pi * (float64(i) + 0.5) / window)
		t.window[i] = math.Sin(math.Pi / 2 * s * s)
	}
	for k := range bands {
		for b := range bands {
			t.cosine[k][b] = math.Sqrt(2.0/bands) * math.Cos(math.Pi*float64(k)*(float64(b)+0.5)/bands)
		}
	}
	for b := range t.cosine[0] {
		t.cosine[0][b] *= math.Sqrt2 / 2
	}
	for b := range bands - 1 {
		lo, hi := edges[b]*perEdge, edges[b+1]*perEdge
		for i := lo; i < hi; i++ {
			t.band[i], t.above[i] = b, float64(i-lo)/float64(hi-lo)
		}
	}
	return t
}

type spectrum [bins]complex128

// banded sets sums of the real parts of x·conj(y) over triangles around the centres of
// bands: with y equal to x, the energies. The first and last have half a triangle and are
// doubled.
func banded(sums *[bands]float64, x, y *spectrum) {
	clear(sums[:])
	for i := range tables.end {
		v := real(x[i])*real(y[i]) + imag(x[i])*imag(y[i])
		b, above := tables.band[i], tables.above[i]
		sums[b] += (1 - above) * v
		sums[b+1] += above * v
	}
	sums[0] *= 2
	sums[bands-1] *= 2
}

// at returns the value at a bin between those of two bands; above the last it is 0.
func at(values *[bands]float64, bin int) float64 {
	if bin >= tables.end {
		return 0
	}
	b, above := tables.band[bin], tables.above[bin]
	return (1-above)*values[b] + above*values[b+1]
}

func cosineTransform(values *[bands]float64) (c [bands]float64) {
	for k := range c {
		c[k] = simd.Dot64(values[:], tables.cosine[k][:])
	}
	return c
}

// analysis is what is known of the sound up to a frame: its spectrum, that of the sound
// a period before, and the features that the network reads.
type analysis struct {
	highPass [2]float64 // state of the filter
	past     [history]float64
	pitch    pitch
	fft      *fourier.FFT
	frame    [window]float64
	tail     [Frame]float64 // second half of the previous window's output

	now, before                    spectrum       // of the last window, and of that a period earlier
	energy, energyBefore, likeness [bands]float64 // of the two, and the correlation of the two in a band

	cepstra  [memory][bands]float64 // of past frames, in turn
	latest   int                    // where the newest one is
	features [inputs]float32
}

func newAnalysis() *analysis { return &analysis{fft: fourier.NewFFT(window), latest: memory - 1} }

// full is full scale in an analysis: its constants are for samples of 16 bits.
const full = 1 << 15

// read takes the next Frame samples, and reports whether there is
// sound in the last window. Without any, features are not set.
func (a *analysis) read(samples []float32) bool {
	copy(a.past[:], a.past[Frame:])
	a.filter(a.past[history-Frame:], samples)
	a.transform(&a.now, 0)
	banded(&a.energy, &a.now, &a.now)
	period := a.pitch.find(&a.past)
	a.transform(&a.before, period)
	banded(&a.energyBefore, &a.before, &a.before)
	banded(&a.likeness, &a.now, &a.before)
	total := 0.0
	for i, e := range a.energy {
		a.likeness[i] /= math.Sqrt(0.001 + e*a.energyBefore[i])
		total += e
	}
	if total < silence {
		return false
	}
	a.describe(period)
	return true
}

// silence is the energy of all bands below which a frame passes as it is.
const silence = 0.04

// filter removes what lies below the voice: 3 dB at about 40 Hz.
func (a *analysis) filter(dst []float64, samples []float32) {
	s := &a.highPass
	for i, v := range samples {
		x := full * float64(simd.Flush(v))
		y := x + s[0]
		s[0] = s[1] - 2*x + 1.99599*y
		s[1] = x - 0.99600*y
		dst[i] = y
	}
	for i, v := range s {
		if math.Abs(v) < 1e-30 { // it would become subnormal, which is slow
			s[i] = 0
		}
	}
}

// transform sets the spectrum of the window that ends lag samples ago.
func (a *analysis) transform(x *spectrum, lag int) {
	for i, v := range a.past[history-window-lag : history-lag] {
		a.frame[i] = v * tables.window[i] / Frame // the sum of the window's squares
	}
	a.fft.Coefficients(x[:], a.frame[:])
}

// describe sets the features.
func (a *analysis) describe(period int) {
	var logs [bands]float64
	top, follow := -2.0, -2.0
	for i, e := range a.energy {
		logs[i] = max(math.Log10(0.01+e), top-7, follow-1.5)
		top = max(top, logs[i])
		follow = max(follow-1.5, logs[i])
	}
	c := cosineTransform(&logs)
	c[0] -= 12
	c[1] -= 4
	a.latest = (a.latest + 1) % memory
	a.cepstra[a.latest] = c
	before, first := &a.cepstra[(a.latest+memory-1)%memory], &a.cepstra[(a.latest+memory-2)%memory]

	f := &a.features
	for i, v := range c {
		f[i] = simd.Narrow(v)
	}
	like := cosineTransform(&a.likeness)
	like[0] -= 1.3
	like[1] -= 0.9
	for i := range deltas {
		f[i] = simd.Narrow(c[i] + before[i] + first[i])
		f[bands+i] = simd.Narrow(c[i] - first[i])
		f[bands+deltas+i] = simd.Narrow(c[i] - 2*before[i] + first[i])
		f[bands+2*deltas+i] = simd.Narrow(like[i])
	}
	f[bands+3*deltas] = simd.Narrow(0.01 * float64(period-300))
	f[bands+3*deltas+1] = simd.Narrow(a.variability() - 2.1)
}

// variability is the mean squared distance of the past frames' coefficients from the
// nearest of each other.
func (a *analysis) variability() float64 {
	var nearest [memory]float64
	for i := range nearest {
		nearest[i] = math.Inf(1)
	}
	for i := range nearest {
		for j := range i {
			d := 0.0
			for k, v := range a.cepstra[i] {
				d += (v - a.cepstra[j][k]) * (v - a.cepstra[j][k])
			}
			nearest[i], nearest[j] = min(nearest[i], d), min(nearest[j], d)
		}
	}
	sum := 0.0
	for _, d := range nearest {
		sum += d
	}
	return sum / memory
}

// comb adds the sound a period before to the bands that are noisier than the gains want,
// which lowers what lies between the harmonics of a voice, and keeps the energies.
func (a *analysis) comb(gains *[bands]float64) {
	var share [bands]float64
	for i, g := range gains {
		r := 1.0
		if like := a.likeness[i]; like <= g {
			r = like * like * (1 - g*g) / (0.001 + g*g*(1-like*like))
		}
		share[i] = math.Sqrt(min(1, max(0, r))) * math.Sqrt(a.energy[i]/(1e-8+a.energyBefore[i]))
	}
	for i, v := range a.before {
		a.now[i] += complex(at(&share, i), 0) * v
	}
	var energy, scale [bands]float64
	banded(&energy, &a.now, &a.now)
	for i := range scale {
		scale[i] = math.Sqrt(a.energy[i] / (1e-8 + energy[i]))
	}
	a.scale(&scale)
}

// scale multiplies the spectrum by a factor of each band.
func (a *analysis) scale(factors *[bands]float64) {
	for i := range a.now {
		a.now[i] *= complex(at(factors, i), 0)
	}
}

// write sets the samples of the frame before the last one that was read, from the
// spectra of the windows that overlap there.
func (a *analysis) write(dst []float32) {
	a.fft.Sequence(a.frame[:], a.now[:])
	for i := range a.frame {
		a.frame[i] *= tables.window[i] / (2 * full) // the transform back doubles
	}
	for i, v := range a.tail {
		dst[i] = simd.Narrow(v + a.frame[i])
	}
	copy(a.tail[:], a.frame[Frame:])
}
