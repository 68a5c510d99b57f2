// Package speechtest makes sounds for tests: texts whose letters are tones.
package speechtest

import (
	"encoding/csv"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/carousel-ml/carousel/audio"
)

// Manifest writes a sound of each text: each letter a different tone, a space
// silence, and a manifest of all.
func Manifest(t testing.TB, dir string, texts []string) string {
	t.Helper()
	r := rand.New(rand.NewPCG(7, 7))
	f, err := os.Create(filepath.Join(dir, "manifest.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := csv.NewWriter(f)
	w.Write([]string{"audio", "text"})
	for i, text := range texts {
		name := fmt.Sprintf("%03d.wav", i)
		Write(t, filepath.Join(dir, name), Whistle(r, text))
		w.Write([]string{name, text})
	}
	if w.Flush(); w.Error() != nil {
		t.Fatal(w.Error())
	}
	return f.Name()
}

// Write writes a sound as a WAV file.
func Write(t testing.TB, path string, s *audio.Sound) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := audio.WriteWAV(f, s); err != nil {
		t.Fatal(err)
	}
}

// Whistle is a tone for each letter of a text, and silence for a space, in noise.
func Whistle(r *rand.Rand, text string) *audio.Sound {
	s := &audio.Sound{Rate: 8000}
	for _, c := range text {
		pause, n := 240+r.IntN(200), 700+r.IntN(300)
		for range pause {
			s.Samples = append(s.Samples, float32(0.002*r.NormFloat64()))
		}
		hz := 400 * math.Pow(1.6, float64(c-'a'))
		for i := range n {
			v := 0.002 * r.NormFloat64()
			if c != ' ' {
				v += 0.3 * math.Sin(2*math.Pi*hz*float64(i)/8000)
			}
			s.Samples = append(s.Samples, float32(v))
		}
	}
	return s
}
