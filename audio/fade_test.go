package audio_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"testing"

	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/internal/simd/simdtest"
)

// fading is a tone that decays to where float32, and float64, hold nothing.
func fading(n int, base float64) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = math.Pow(base, float64(i)) * math.Cos(0.3*float64(i))
	}
	return x
}

// floatWAV is a WAV file of floating point samples, each on all channels.
func floatWAV(x []float64, bits, channels int) []byte {
	le := binary.LittleEndian
	b := append([]byte{}, "RIFF\xff\xff\xff\xffWAVEfmt \x10\x00\x00\x00\x03\x00"...)
	b = le.AppendUint16(b, uint16(channels))
	b = le.AppendUint32(b, 44100)
	b = le.AppendUint32(b, uint32(44100*bits/8*channels))
	b = le.AppendUint16(b, uint16(bits/8*channels))
	b = le.AppendUint16(b, uint16(bits))
	b = append(b, "data\xff\xff\xff\xff"...)
	for _, v := range x {
		for range channels {
			if bits == 32 {
				b = le.AppendUint32(b, math.Float32bits(float32(v)))
			} else {
				b = le.AppendUint64(b, math.Float64bits(v))
			}
		}
	}
	return b
}

// Sound that fades to silence meets no subnormal number on its way from a file
// to features, whatever its format and rate.
func TestFade(t *testing.T) {
	spec := audio.Spec{Rate: 16000, Window: 400, Hop: 160, Bands: 40, MFCC: 13, Preemphasis: 0.97}
	for _, bits := range []int{32, 64} {
		x := fading(44100, map[int]float64{32: 0.997, 64: 0.98}[bits])
		for _, channels := range []int{1, 3} {
			file := floatWAV(x, bits, channels)
			for _, rate := range []int{44100, 16000, 15999} { // as it is, by exact filters, between filters
				t.Run(fmt.Sprintf("%d bits, %d channels, %d Hz", bits, channels, rate), func(t *testing.T) {
					var sound *audio.Sound
					var frames []float32
					var err error
					read, made := simdtest.Subnormals(t, func() {
						r, failed := audio.NewReader(bytes.NewReader(file), "fade.wav")
						if err = failed; err != nil {
							return
						}
						if sound, err = r.ReadAll(); err != nil {
							return
						}
						sound = sound.Resample(rate)
						e := audio.NewExtractor(spec)
						frames = e.Flush(e.Write(nil, sound.Samples))
					})
					if err != nil {
						t.Fatal(err)
					}
					if read || made {
						t.Errorf("subnormal numbers: read %v, made %v", read, made)
					}
					for i, v := range sound.Samples {
						if v != 0 && math.Abs(float64(v)) < simd.MinNormal {
							t.Fatalf("sample %d is %g", i, v)
						}
					}
					for i, v := range frames {
						if v-v != 0 {
							t.Fatalf("feature %d is %g", i, v)
						}
					}
				})
			}
		}
	}
}

// Samples that a program gives, and not a file, are flushed too.
func TestFadeSamples(t *testing.T) {
	x := make([]float32, 44100)
	for i, v := range fading(len(x), 0.997) {
		x[i] = float32(v)
	}
	resample := audio.NewResampler(44100, 16000)
	same, other := audio.NewExtractor(audio.Spec{Rate: 44100, Window: 1000, Hop: 441, Bands: 40}), audio.NewExtractor(audio.Spec{Rate: 16000, Window: 400, Hop: 160, Bands: 40})
	read, made := simdtest.Subnormals(t, func() {
		same.Flush(same.Write(nil, x))
		other.Flush(other.Write(nil, resample.Flush(resample.Write(nil, x))))
	})
	if read || made {
		t.Errorf("subnormal numbers: read %v, made %v", read, made)
	}
}
