package audio

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/dsp/fourier"

	"github.com/carousel-ml/carousel/internal/simd"
)

// Spec selects the features to compute from a sound. Frame t is centred on
// sample t·Hop; the sound is extended by silence before and after, so that n
// samples give 1 + (n-1)/Hop frames. This is librosa's center=True with
// pad_mode="constant", and the values are librosa's.
type Spec struct {
	Rate        int     // samples per second
	Window      int     // length of a frame in samples, under a Hann window
	Hop         int     // samples from one frame to the next
	Bands       int     // mel bands from 0 to half the rate (Slaney's scale and norm)
	MFCC        int     // coefficients of the bands' cosine transform (type II, orthonormal); 0: the bands themselves
	Preemphasis float64 // x[n] - Preemphasis·x[n-1], such as 0.97; 0: none
}

// smallestPower keeps silence finite: logarithms are of max(power, smallestPower).
const smallestPower = 1e-10

// Width is the number of features per frame.
func (s *Spec) Width() int {
	if s.MFCC > 0 {
		return s.MFCC
	}
	return s.Bands
}

// size is the length of the Fourier transform: a power of two that holds the
// window.
func (s *Spec) size() int {
	n := 512
	for n < s.Window {
		n *= 2
	}
	return n
}

// Check returns an error that names the first field of the Spec that is out of
// range.
func (s *Spec) Check() error {
	switch {
	case s.Rate < 1000 || s.Rate > maxRate:
		return fmt.Errorf("sample rate: want 1000 to %d Hz, got %d", maxRate, s.Rate)
	case s.Window < 2 || s.Window > 1<<16:
		return fmt.Errorf("window: want 2 to %d samples, got %d", 1<<16, s.Window)
	case s.Hop < 1 || s.Hop > s.Window:
		return fmt.Errorf("hop: want 1 sample to the window (%d), got %d", s.Window, s.Hop)
	case s.Bands < 1 || s.Bands > s.size()/2:
		return fmt.Errorf("bands: want 1 to %d, got %d", s.size()/2, s.Bands)
	case s.MFCC < 0 || s.MFCC > s.Bands:
		return fmt.Errorf("coefficients: want at most the number of bands (%d), got %d", s.Bands, s.MFCC)
	case !(s.Preemphasis >= 0 && s.Preemphasis < 1):
		return fmt.Errorf("pre-emphasis: want 0 to below 1, got %v", s.Preemphasis)
	}
	return nil
}

// Extractor computes the features of a sound that arrives piece by piece. The
// result does not depend on the pieces.
type Extractor struct {
	spec   Spec
	fft    *fourier.FFT
	window []float64 // shape [size], the Hann window in the middle
	bands  []band
	cosine []float64 // shape [MFCC, Bands]
	in     []float32 // samples from half a transform before the next frame on
	seen   int64     // samples so far
	frames int64     // frames returned so far
	last   float32   // previous sample, for pre-emphasis

	frame []float64
	coeff []complex128
	power []float64
	mel   []float64
}

// band is one triangle over the bins of the transform.
type band struct {
	first   int
	weights []float64
}

// NewExtractor creates an Extractor. It panics where Check returns an error.
func NewExtractor(s Spec) *Extractor {
	if err := s.Check(); err != nil {
		panic("audio: NewExtractor: " + err.Error())
	}
	n := s.size()
	e := &Extractor{spec: s, fft: fourier.NewFFT(n), window: make([]float64, n), bands: melBands(s.Rate, n, s.Bands),
		in: make([]float32, n/2), frame: make([]float64, n), power: make([]float64, n/2+1), mel: make([]float64, s.Bands)}
	for i := range s.Window {
		e.window[(n-s.Window)/2+i] = 0.5 - 0.5*math.Cos(2*math.Pi*float64(i)/float64(s.Window))
	}
	for k := range s.MFCC {
		scale := math.Sqrt(2 / float64(s.Bands))
		if k == 0 {
			scale = math.Sqrt(1 / float64(s.Bands))
		}
		for m := range s.Bands {
			e.cosine = append(e.cosine, scale*math.Cos(math.Pi*float64(k)*(float64(m)+0.5)/float64(s.Bands)))
		}
	}
	return e
}

// Write takes samples at the Spec's rate and appends to dst the frames that
// they complete, each of Width numbers.
func (e *Extractor) Write(dst, samples []float32) []float32 {
	e.seen += int64(len(samples))
	pre := float64(float32(e.spec.Preemphasis))
	for _, x := range samples {
		x = simd.Flush(x)
		e.in = append(e.in, simd.Narrow(float64(x)-float64(simd.Narrow(pre*float64(e.last)))))
		e.last = x
	}
	return e.run(dst)
}

// Flush appends the frames at the end, those that extend past the last sample.
// The Extractor must not be used after it.
func (e *Extractor) Flush(dst []float32) []float32 {
	e.in = append(e.in, make([]float32, e.spec.size())...)
	return e.run(dst)
}

// run computes the frames whose samples are complete and whose centre is within
// the sound.
func (e *Extractor) run(dst []float32) []float32 {
	n, used := e.spec.size(), 0
	for used+n <= len(e.in) && e.frames*int64(e.spec.Hop) < e.seen {
		dst = e.compute(dst, e.in[used:used+n])
		used += e.spec.Hop
		e.frames++
	}
	if used > 0 {
		e.in = e.in[:copy(e.in, e.in[min(used, len(e.in)):])]
	}
	return dst
}

// compute appends the features of one frame of samples.
func (e *Extractor) compute(dst, x []float32) []float32 {
	for i, w := range e.window {
		e.frame[i] = w * float64(x[i])
	}
	e.coeff = e.fft.Coefficients(e.coeff, e.frame)
	for i, c := range e.coeff {
		e.power[i] = real(c)*real(c) + imag(c)*imag(c)
	}
	for m, b := range e.bands {
		var sum float64
		for i, w := range b.weights {
			sum += w * e.power[b.first+i]
		}
		e.mel[m] = math.Log(max(sum, smallestPower))
	}
	if e.spec.MFCC == 0 {
		for _, v := range e.mel {
			dst = append(dst, float32(v))
		}
		return dst
	}
	for k := range e.spec.MFCC {
		var sum float64
		for m, c := range e.cosine[k*e.spec.Bands : (k+1)*e.spec.Bands] {
			sum += c * e.mel[m]
		}
		dst = append(dst, float32(sum))
	}
	return dst
}

// Slaney's mel scale: linear up to 1000 Hz, then logarithmic.
const (
	melLinear = 200.0 / 3 // Hz per mel
	melBreak  = 1000.0    // Hz
)

var melStep = math.Log(6.4) / 27

func toMel(hz float64) float64 {
	if hz < melBreak {
		return hz / melLinear
	}
	return melBreak/melLinear + math.Log(hz/melBreak)/melStep
}

func fromMel(mel float64) float64 {
	if mel < melBreak/melLinear {
		return mel * melLinear
	}
	return melBreak * math.Exp(melStep*(mel-melBreak/melLinear))
}

// melBands are triangles of equal area with corners spaced evenly in mel.
func melBands(rate, size, n int) []band {
	corners := make([]float64, n+2)
	for i := range corners {
		corners[i] = fromMel(toMel(float64(rate)/2) * float64(i) / float64(n+1))
	}
	bands := make([]band, n)
	for m := range bands {
		lo, mid, hi := corners[m], corners[m+1], corners[m+2]
		for bin := range size/2 + 1 {
			hz := float64(bin) * float64(rate) / float64(size)
			w := min((hz-lo)/(mid-lo), (hi-hz)/(hi-mid))
			if w <= 0 {
				continue
			}
			if bands[m].weights == nil {
				bands[m].first = bin
			}
			bands[m].weights = append(bands[m].weights, w*2/(hi-lo))
		}
	}
	return bands
}

// Extract returns all frames of a sound, of shape [frames, Width]; the sound is
// resampled to the Spec's rate.
func Extract(s *Sound, spec Spec) []float32 {
	e := NewExtractor(spec)
	s = s.Resample(spec.Rate)
	return e.Flush(e.Write(nil, s.Samples))
}

// Lag returns how many seconds of sound a frame covers beyond its centre.
func (s *Spec) Lag() float64 { return float64(s.size()/2) / float64(s.Rate) }
