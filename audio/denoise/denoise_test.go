package denoise_test

import (
	"encoding/binary"
	"errors"
	"flag"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/audio/denoise"
	"github.com/carousel-ml/carousel/internal/golden"
	"github.com/carousel-ml/carousel/internal/simd/simdtest"
	"github.com/carousel-ml/carousel/model"
)

var dump = flag.String("dump", "", "write the noisy speech of the tests to this file, float32 at the scale of 16 bits")

func open(t testing.TB) *denoise.Model {
	m, err := denoise.Open(golden.Shared(t, "models/rnnoise_v1_weights.rnn"))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// noisy is speech with the noise of a fan and a hum that swell and fade, as a file of 16
// bits has it: the first of its 60 seconds.
func noisy(t testing.TB, seconds int) []float32 {
	speech, err := audio.Read(golden.Shared(t, "models/speech_test.wav"))
	if err != nil {
		t.Fatal(err)
	}
	speech.Samples = speech.Samples[:seconds*speech.Rate]
	x := speech.Resample(denoise.Rate).Samples
	r := rand.New(rand.NewPCG(1, 2))
	brown := 0.0
	for i, v := range x {
		s := float64(i) / denoise.Rate
		brown = 0.99*brown + 0.01*r.NormFloat64()
		noise := 0.003*r.NormFloat64() + 0.1*brown + 0.005*math.Sin(2*math.Pi*120*s)
		noise *= 0.5 + 0.5*math.Sin(2*math.Pi*s/7)
		x[i] = float32(min(32767, max(-32768, math.RoundToEven((float64(v)+noise)*32768))) / 32768)
	}
	return x
}

// The output differs from that of another implementation of RNNoise by less than -60 dB
// of the signal, and the probability of speech in a frame by less than 0.001 in the mean.
func TestReference(t *testing.T) {
	m, x := open(t), noisy(t, 60)
	if *dump != "" {
		var b []byte
		for _, v := range x {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v*32768))
		}
		if err := os.WriteFile(*dump, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cases, err := golden.LoadFrom("testdata", "rnnoise")
	if err != nil {
		t.Fatal(err)
	}
	var settings struct{ Every int }
	if err := cases[0].Settings(&settings); err != nil {
		t.Fatal(err)
	}
	want, speech := cases[0].Tensor("y").Data, cases[0].Tensor("probability").Data
	s := m.NewStream(denoise.Rate)
	var y []float32
	var apart float64
	for i, p := range speech {
		y = s.Write(y, x[i*denoise.Frame:][:denoise.Frame])
		apart += math.Abs(float64(s.Speech() - p))
	}
	y = s.Flush(y)
	if len(y) != len(x) {
		t.Fatalf("%d samples of %d", len(y), len(x))
	}
	var signal, diff float64
	for i, v := range want {
		d := float64(y[i*settings.Every] - v)
		signal += float64(v) * float64(v)
		diff += d * d
	}
	decibels := 10 * math.Log10(diff/signal)
	apart /= float64(len(speech))
	t.Logf("differs by %.1f dB, speech by %.1e", decibels, apart)
	if !(decibels < -60) || !(apart < 1e-3) {
		t.Error("the reference has other samples or probabilities")
	}
}

// Any division of the samples gives the same bits, at any rate.
func TestPieces(t *testing.T) {
	m, x := open(t), noisy(t, 3)[:100_001]
	for _, rate := range []int{denoise.Rate, 16000, 44100} {
		want := m.Denoise(&audio.Sound{Rate: rate, Samples: x}).Samples
		if len(want) != len(x) {
			t.Errorf("%d Hz: %d samples of %d", rate, len(want), len(x))
		}
		r := rand.New(rand.NewPCG(3, uint64(rate)))
		s := m.NewStream(rate)
		var got []float32
		for rest := x; len(rest) > 0; {
			n := min(r.IntN(3000), len(rest))
			got = s.Write(got, rest[:n])
			rest = rest[n:]
		}
		if got = s.Flush(got); !slices.Equal(got, want) {
			t.Errorf("%d Hz: pieces give other samples", rate)
		}
	}
	if got := m.Denoise(&audio.Sound{Rate: 8000}).Samples; len(got) != 0 {
		t.Errorf("%d samples of none", len(got))
	}
}

func TestStreamAllocatesNothing(t *testing.T) {
	m, x := open(t), noisy(t, 5)
	s := m.NewStream(denoise.Rate)
	y := make([]float32, 0, len(x))
	step := func() {
		y = s.Write(y[:0], x[:denoise.Frame])
		x = x[denoise.Frame:]
	}
	for range 100 {
		step()
	}
	if n := testing.AllocsPerRun(200, step); n > 0 {
		t.Errorf("%v allocations a frame", n)
	}
}

// Sound that fades out, and silence after it, stay clear of subnormal numbers.
func TestFade(t *testing.T) {
	m := open(t)
	x := make([]float32, 4*denoise.Rate)
	for i := range x[:2*denoise.Rate] {
		x[i] = float32(0.1 * math.Sin(float64(i)/20) * math.Pow(0.999, float64(i)))
	}
	var y []float32
	read, made := simdtest.Subnormals(t, func() {
		s := m.NewStream(denoise.Rate)
		y = s.Flush(s.Write(nil, x))
	})
	if read || made {
		t.Errorf("subnormal numbers: read %v, made %v", read, made)
	}
	if last := y[len(y)-1]; last != 0 {
		t.Errorf("silence ends as %v", last)
	}
}

func TestOpenRefuses(t *testing.T) {
	whole, err := os.ReadFile(golden.Shared(t, "models/rnnoise_v1_weights.rnn"))
	if err != nil {
		t.Fatal(err)
	}
	changed := func(at int, v byte) []byte {
		b := slices.Clone(whole)
		b[at] = v
		return b
	}
	const second = 3 + 42*24 + 24 // where the second layer begins
	path := filepath.Join(t.TempDir(), "w.rnn")
	for _, c := range []struct {
		content []byte
		want    string
	}{
		{nil, "ends before its first layer; give the weights.rnn of RNNoise's first network"},
		{[]byte("rnnoise-nu model file version 1\n"), "is an RNNoise network written as text, which is not supported"},
		{[]byte("DNNw"), "is a network of RNNoise 0.2 or later"},
		{make([]byte, 1<<20), "is longer than any RNNoise network"},
		{changed(0, 41), "its first layer has 41 inputs, want 42"},
		{changed(1, 200), "its first layer has 200 units, want 1 to 127"},
		{changed(2, 3), "its first layer has activation 3, want 0 to 2"},
		{changed(second, 23), "its second layer has 23 inputs, want 24"},
		{whole[:second+1], "ends before its second layer"},
		{whole[:len(whole)-1], "ends in its sixth layer"},
		{append(slices.Clone(whole), 0), "has 1 bytes more than its six layers"},
	} {
		if err := os.WriteFile(path, c.content, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := denoise.Open(path)
		var file *model.FileError
		if !errors.As(err, &file) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
	if _, err := denoise.Open(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "none: cannot be read: no such file") {
		t.Errorf("missing file: %v", err)
	}
}

// Any bytes are a network, which denoises, or an error of one kind.
func FuzzOpen(f *testing.F) {
	var b []byte
	for _, l := range [][4]int{{42, 1, 0, 43}, {1, 1, 2, 9}, {44, 1, 2, 138}, {44, 1, 1, 138}, {1, 22, 1, 44}, {1, 1, 1, 2}} {
		b = append(b, byte(l[0]), byte(l[1]), byte(l[2]))
		b = append(b, make([]byte, l[3])...)
	}
	f.Add(b)
	f.Add(b[:100])
	f.Add([]byte("DNNw"))
	path := filepath.Join(f.TempDir(), "w.rnn")
	x := make([]float32, 2*denoise.Frame)
	for i := range x {
		x[i] = float32(i%97)/97 - 0.5
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := denoise.Open(path)
		var file *model.FileError
		switch {
		case err != nil && !errors.As(err, &file):
			t.Fatalf("%T: %v", err, err)
		case err == nil:
			for i, v := range m.Denoise(&audio.Sound{Rate: denoise.Rate, Samples: x}).Samples {
				if v-v != 0 {
					t.Fatalf("sample %d is %v", i, v)
				}
			}
		}
	})
}
