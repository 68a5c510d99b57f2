package detect

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/internal/golden"
	"github.com/carousel-ml/carousel/model/onnx/graph"
	"github.com/carousel-ml/carousel/tensor"
)

// digits returns spoken digits of some seconds: 3 to 7 recordings of one speaker, with 50 to 200 ms of
// silence after each, and then others of another.
func digits(t *testing.T, seconds float64) *audio.Sound {
	t.Helper()
	f, err := os.Open(golden.Shared(t, "speech/fsdd.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	bySpeaker := map[string][]*audio.Sound{}
	for files, n := tar.NewReader(z), 0; n < 600; {
		h, err := files.Next()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(h.Name, ".wav") {
			continue
		}
		r, err := audio.NewReader(files, h.Name)
		if err != nil {
			t.Fatal(err)
		}
		s, err := r.ReadAll()
		if err != nil || s.Rate != 8000 {
			t.Fatalf("%s: %v", h.Name, err)
		}
		speaker := strings.Split(filepath.Base(h.Name), "_")[1]
		bySpeaker[speaker] = append(bySpeaker[speaker], s)
		n++
	}
	joined, r := &audio.Sound{Rate: 8000}, rand.New(rand.NewPCG(1, 0))
	names := slices.Sorted(maps.Keys(bySpeaker))
	for float64(len(joined.Samples)) < seconds*8000 {
		list := bySpeaker[names[r.IntN(len(names))]]
		for range 3 + r.IntN(5) {
			joined.Samples = append(joined.Samples, list[r.IntN(len(list))].Samples...)
			joined.Samples = append(joined.Samples, make([]float32, 400+r.IntN(1200))...)
		}
	}
	return joined
}

// quantized writes a model whose weights rest as rest says of their names, and returns the path.
func quantized(t *testing.T, name string, rest func(weights string) tensor.Precision) string {
	t.Helper()
	from := shared(t, name)
	g, err := graph.Read(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range g.Weights() {
		if err := g.SetRest(w.Name, rest(w.Name)); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), name)
	if err := g.WriteQuantized(path); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(from)
	if err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %d bytes, were %d: %.3f", name, after.Size(), before.Size(), float64(after.Size())/float64(before.Size()))
	return path
}

func allInt8(string) tensor.Precision { return tensor.Int8 }

// probabilities are those of all windows of some sounds.
func probabilities(t *testing.T, path string, sounds []*audio.Sound) (all []float32) {
	t.Helper()
	m, err := OpenSpeech(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sounds {
		stream, err := m.NewStream(s.Rate, DefaultSpeech())
		if err != nil {
			t.Fatal(err)
		}
		stream.OnWindow = func(_ float64, p float32) { all = append(all, p) }
		if _, err := stream.Write(s.Samples); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Finish(); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// distance is how far probabilities are from others.
type distance struct {
	frames, flips int // flips cross a threshold
	mean, most    float64
}

func (d distance) String() string {
	return fmt.Sprintf("%d of %d decisions (%.3f %%) are others, probabilities differ by %.2g in the mean, %.2g at most", d.flips, d.frames, 100*float64(d.flips)/float64(d.frames), d.mean, d.most)
}

func between(t *testing.T, got, want []float32, threshold float32) (d distance) {
	t.Helper()
	if d.frames = len(want); len(got) != len(want) {
		t.Fatalf("%d probabilities, want %d", len(got), len(want))
	}
	for i, w := range want {
		if (got[i] >= threshold) != (w >= threshold) {
			d.flips++
		}
		diff := math.Abs(float64(got[i] - w))
		d.mean += diff / float64(len(want))
		d.most = math.Max(d.most, diff)
	}
	return d
}

// Silero VAD from files with weights at rest decides as with float32. The convolutions read spectra, whose
// small numbers 8 bits beside large ones do not have; the LSTM is content with them. Of the sounds,
// the digits are words with silence between, for which many probabilities are near the threshold.
func TestQuantizedSpeech(t *testing.T) {
	speech := readSound(t, shared(t, "speech_test.wav"))
	sounds := []*audio.Sound{speech, digits(t, 68), speech.Resample(8000)}
	want := probabilities(t, shared(t, "silero_vad.onnx"), sounds)
	for _, c := range []struct {
		what string
		rest func(weights string) tensor.Precision
		bar  float64 // decisions that may be others
	}{
		{"all in int8", allInt8, 0.01},
		{"the LSTM in int8, convolutions in fp16", func(weights string) tensor.Precision {
			if strings.Contains(weights, "rnn") {
				return tensor.Int8
			}
			return tensor.Float16
		}, 0.002},
		{"the LSTM's input matrix in int8, the rest in bf16", func(weights string) tensor.Precision {
			if strings.Contains(weights, "rnn.weight_ih") {
				return tensor.Int8
			}
			return tensor.BFloat16
		}, 0.002},
	} {
		d := between(t, probabilities(t, quantized(t, "silero_vad.onnx", c.rest), sounds), want, 0.5)
		t.Logf("%s: %s", c.what, d)
		if d.frames < 5900 || d.most == 0 || float64(d.flips) > c.bar*float64(d.frames) {
			t.Errorf("%s: %s; at most %g %% of the decisions may be others", c.what, d, 100*c.bar)
		}
	}
}

// The models of openWakeWord from files with weights at rest. The spectrogram takes logarithms of sums that
// may be small, and gains nothing from 8 bits: it is best left in float32.
func TestQuantizedWords(t *testing.T) {
	speech := readSound(t, shared(t, "speech_test.wav"))
	speech.Samples = speech.Samples[:20*speech.Rate]
	sounds := []*audio.Sound{speech, digits(t, 20)}
	scores := func(mel, embedding, word string) (all []float32) {
		w, err := OpenWords(mel, embedding, WordModel{Path: word, Name: "word"})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range sounds {
			stream, err := w.NewStream(s.Rate, DefaultWords())
			if err != nil {
				t.Fatal(err)
			}
			stream.OnFrame = func(_ float64, scores []float32) { all = append(all, scores...) }
			if _, err := stream.Write(s.Samples); err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Finish(); err != nil {
				t.Fatal(err)
			}
		}
		return all
	}
	mel, embedding, word := shared(t, "melspectrogram.onnx"), shared(t, "embedding_model.onnx"), shared(t, "alexa_v0.1.onnx")
	want := scores(mel, embedding, word)
	small, smallWord := quantized(t, "embedding_model.onnx", allInt8), quantized(t, "alexa_v0.1.onnx", allInt8)
	for _, c := range []struct {
		what string
		got  []float32
		most float64
	}{
		{"the word in int8", scores(mel, embedding, smallWord), 0.01},
		{"the embedding and the word in int8", scores(mel, small, smallWord), 0.01},
		{"the spectrogram, too", scores(quantized(t, "melspectrogram.onnx", allInt8), small, smallWord), 0.1},
	} {
		d := between(t, c.got, want, 0.5)
		t.Logf("%s: %s; the greatest score is %.2g", c.what, d, slices.Max(want))
		if d.frames < 500 || d.most == 0 || d.most > c.most {
			t.Errorf("%s: %s; at most %g expected", c.what, d, c.most)
		}
	}
	// No sound here holds the word: features with scores of 0.26 to 0.90.
	var c struct {
		In  []map[string]struct{ F []float32 }
		Out []map[string]struct{ F []float32 }
	}
	if err := json.Unmarshal(golden.Gzip(t, shared(t, "oww_alexa_v0.1.case.json.gz")), &c); err != nil {
		t.Fatal(err)
	}
	g, err := graph.Read(smallWord)
	if err != nil {
		t.Fatal(err)
	}
	in, out := g.Inputs()[0].Name, g.Outputs()[0].Name
	for i := range c.In {
		got, err := g.Run(map[string]graph.Value{in: graph.Floats(c.In[i][in].F, 1, 16, features)})
		if err != nil {
			t.Fatal(err)
		}
		if now, was := got[out].Data[0], c.Out[i][out].F[0]; math.Abs(float64(now-was)) > 0.03 {
			t.Errorf("the score of features is %g, was %g", now, was)
		} else {
			t.Logf("the score of features is %g, was %g", now, was)
		}
	}
}
