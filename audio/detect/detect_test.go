package detect

import (
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/audio/detect/detecttest"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/golden"
	"github.com/carousel-ml/carousel/model"
)

// shared returns the path of a published model or of a sound for it.
func shared(t testing.TB, name string) string {
	t.Helper()
	return golden.Shared(t, "models/"+name)
}

func readSound(t testing.TB, path string) *audio.Sound {
	t.Helper()
	s, err := audio.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func openSpeech(t *testing.T, name string) *Speech {
	t.Helper()
	m, err := OpenSpeech(shared(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestSpeechOfSilero compares with the segments that silero-vad 6.2.3 finds in its own
// minute of speech.
func TestSpeechOfSilero(t *testing.T) {
	raw, err := os.ReadFile(shared(t, "speech_test.expected.json"))
	if err != nil {
		t.Fatal(err)
	}
	var want struct{ Speech []struct{ Start, End int64 } }
	if err := json.Unmarshal(raw, &want); err != nil {
		t.Fatal(err)
	}
	sound := readSound(t, shared(t, "speech_test.wav"))
	for _, name := range []string{"silero_vad.onnx", "silero_vad_16k_sequence.onnx"} {
		got, err := openSpeech(t, name).Detect(sound, DefaultSpeech())
		if err != nil || len(got) != len(want.Speech) {
			t.Fatalf("%s: %d segments, want %d; %v", name, len(got), len(want.Speech), err)
		}
		for i, s := range got {
			if w := want.Speech[i]; s.StartSample != w.Start || s.EndSample != w.End || s.Start != float64(w.Start)/16000 || s.End != float64(w.End)/16000 {
				t.Errorf("%s: segment %d is %+v, want %+v", name, i, s, w)
			}
		}
	}
}

// answers are sounds and what other programs find in them, written by
// internal/golden/gen/detect.py into the folder that CAROUSEL_DETECT names.
type answer struct {
	Name, File string
	Models     []struct {
		Model         string
		Probabilities []float32
		Speech        [][2]int64
	}
	Folder string
	Words  []map[string]float64
}

func answers(t *testing.T) (dir string, list []answer) {
	t.Helper()
	if dir = os.Getenv("CAROUSEL_DETECT"); dir == "" {
		t.Skip("CAROUSEL_DETECT names no folder of answers")
	}
	raw, err := os.ReadFile(filepath.Join(dir, "answers.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &list); err != nil || len(list) == 0 {
		t.Fatalf("%d answers, %v", len(list), err)
	}
	return dir, list
}

// TestAnswersOnSpeech compares probabilities and segments of all models of Silero with
// those of silero-vad and ONNX Runtime.
func TestAnswersOnSpeech(t *testing.T) {
	dir, list := answers(t)
	models := map[string]*Speech{}
	segments := map[string]int{}
	worst := map[string]float64{}
	for _, a := range list {
		sound := readSound(t, filepath.Join(dir, a.File))
		for _, one := range a.Models {
			name := filepath.Base(one.Model)
			m := models[name]
			if m == nil {
				var err error
				if m, err = OpenSpeech(one.Model); err != nil {
					t.Fatal(err)
				}
				if both := len(m.Rates()) == 2; both == (strings.Contains(name, "16k") || strings.Contains(name, "half")) {
					t.Errorf("%s works at %d Hz", name, m.Rates())
				}
				models[name] = m
			}
			s, err := m.NewStream(sound.Rate, DefaultSpeech())
			if err != nil {
				t.Fatal(err)
			}
			var p []float32
			s.OnWindow = func(_ float64, x float32) { p = append(p, x) }
			got, err := s.Write(sound.Samples)
			if err != nil {
				t.Fatal(err)
			}
			rest, err := s.Finish()
			if err != nil {
				t.Fatal(err)
			}
			var ranges [][2]int64
			for _, s := range append(got, rest...) {
				ranges = append(ranges, [2]int64{s.StartSample, s.EndSample})
			}
			if len(p) != len(one.Probabilities) {
				t.Errorf("%s: %s: %d probabilities, want %d", a.Name, name, len(p), len(one.Probabilities))
				continue
			}
			for i := range p {
				worst[name] = math.Max(worst[name], math.Abs(float64(p[i]-one.Probabilities[i])))
			}
			if !slices.Equal(ranges, one.Speech) {
				t.Errorf("%s: %s: segments\n %v, want\n %v", a.Name, name, ranges, one.Speech)
			}
			segments[name] += len(ranges)
		}
	}
	for name, n := range segments {
		t.Logf("%s: %d segments as wanted, probabilities within %.2g", name, n, worst[name])
		if worst[name] > 1e-4 || n < 20 {
			t.Errorf("%s: %d segments, probabilities within %g", name, n, worst[name])
		}
	}
}

// TestAnswersOnWords compares the scores of each frame with those of openWakeWord.
func TestAnswersOnWords(t *testing.T) {
	dir, list := answers(t)
	var w *Words
	worst, frames := 0.0, 0
	for _, a := range list {
		if a.Words == nil {
			continue
		}
		if w == nil {
			var err error
			if w, err = OpenWordsIn(a.Folder); err != nil {
				t.Fatal(err)
			}
		}
		sound := readSound(t, filepath.Join(dir, a.File))
		s, err := w.NewStream(sound.Rate, DefaultWords())
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		names := w.Names()
		s.OnFrame = func(at float64, scores []float32) {
			if n >= len(a.Words) { // openWakeWord leaves out the last frame, where the sound ends with it
				return
			}
			for i, name := range names {
				want, has := a.Words[n][name]
				if !has {
					t.Fatalf("%s: no score of %q among %v", a.Name, name, a.Words[n])
				}
				worst = math.Max(worst, math.Abs(want-float64(scores[i])))
			}
			n++
		}
		if _, err := s.Write(sound.Samples); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Finish(); err != nil {
			t.Fatal(err)
		}
		if n != len(a.Words) {
			t.Errorf("%s: %d frames, want %d", a.Name, n, len(a.Words))
		}
		frames += n
	}
	t.Logf("%d frames of %d words within %.2g", frames, len(w.Names()), worst)
	if worst > 1e-4 {
		t.Errorf("scores differ by %g", worst)
	}
}

// cut calls f with pieces of random sizes.
func cut(samples []float32, seed uint64, f func([]float32)) {
	r := rand.New(rand.NewPCG(seed, 0))
	for len(samples) > 0 {
		n := min(len(samples), r.IntN([]int{2, 700, 30000}[r.IntN(3)])+1)
		f(samples[:n])
		samples = samples[n:]
	}
}

// TestPiecesOfSpeech: segments do not depend on how a sound is cut, nor on streams
// beside it, and at another rate they are in its own samples.
func TestPiecesOfSpeech(t *testing.T) {
	m := openSpeech(t, "silero_vad.onnx")
	sound := readSound(t, shared(t, "speech_test.wav"))
	sound.Samples = sound.Samples[:8*sound.Rate+77]
	for _, rate := range []int{16000, 8000, 44100, 7000} {
		s := sound.Resample(rate)
		want, err := m.Detect(s, DefaultSpeech())
		if err != nil || len(want) < 3 {
			t.Fatalf("%d Hz: %d segments, %v", rate, len(want), err)
		}
		if last := want[len(want)-1]; last.EndSample > int64(len(s.Samples)) || last.End < 6 || last.End != float64(last.EndSample)/float64(rate) {
			t.Errorf("%d Hz: last segment %+v", rate, last)
		}
		t.Run("", func(t *testing.T) {
			for seed := range uint64(2) {
				t.Run("", func(t *testing.T) {
					t.Parallel()
					stream, err := m.NewStream(rate, DefaultSpeech())
					if err != nil {
						t.Fatal(err)
					}
					var got []Segment
					early := false
					cut(s.Samples, seed, func(piece []float32) {
						list, err := stream.Write(piece)
						if err != nil {
							t.Fatal(err)
						}
						got = append(got, list...)
						early = early || len(list) > 0
					})
					rest, err := stream.Finish()
					if err != nil {
						t.Fatal(err)
					}
					if got = append(got, rest...); !reflect.DeepEqual(got, want) || !early {
						t.Errorf("%d Hz, seed %d: %v, want %v", rate, seed, got, want)
					}
					if _, err := stream.Finish(); err == nil {
						t.Error("a stream can be finished twice")
					}
					if _, err := stream.Write(nil); err == nil {
						t.Error("a finished stream takes samples")
					}
				})
			}
		})
	}
}

func openWords(t testing.TB) *Words {
	t.Helper()
	w, err := OpenWords(shared(t, "melspectrogram.onnx"), shared(t, "embedding_model.onnx"), WordModel{Path: shared(t, "alexa_v0.1.onnx"), Name: "alexa"})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// TestPiecesOfWords: scores do not depend on how a sound is cut.
func TestPiecesOfWords(t *testing.T) {
	w := openWords(t)
	if names := w.Names(); !slices.Equal(names, []string{"alexa"}) {
		t.Errorf("words %q", names)
	}
	sound := readSound(t, shared(t, "speech_test.wav"))
	s := sound.Resample(22050)
	s.Samples = s.Samples[:2*s.Rate+11]
	o := DefaultWords()
	o.Threshold = 0 // each frame is a detection
	want, err := w.Detect(s, o)
	if frames := (2*WordRate + 11*WordRate/22050 + 2*WordRate) / frameSize; err != nil || len(want) != frames {
		t.Fatalf("%d detections, want %d; %v", len(want), frames, err)
	}
	if last := want[len(want)-1]; last.Time != s.Seconds() || want[0].Time != 0 {
		t.Errorf("times from %g to %g, of a sound of %g s", want[0].Time, last.Time, s.Seconds())
	}
	stream, err := w.NewStream(s.Rate, o)
	if err != nil {
		t.Fatal(err)
	}
	var got []Detection
	cut(s.Samples, 1, func(piece []float32) {
		list, err := stream.Write(piece)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, list...)
	})
	rest, err := stream.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if got = append(got, rest...); len(got) != len(want) {
		t.Fatalf("%d detections in pieces, %d in one", len(got), len(want))
	}
	for i := range got {
		// While a sound arrives its length is not known, so a time is not limited by it.
		if got[i].Score != want[i].Score || got[i].Time != want[i].Time {
			t.Errorf("detection %d is %v, want %v", i, got[i], want[i])
		}
	}
}

// TestDetections: which scores are detections, with patience and with a debounce time.
func TestDetections(t *testing.T) {
	scores := []float32{0, .6, .7, .4, .5, .9, .9, .9, 0, .8, .8, .8, .8, .8, .8, .8, .8, .8}
	for _, c := range []struct {
		patience int
		debounce float64
		want     []int // frames
	}{
		{0, 0, []int{1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17}},
		{2, 0, []int{6, 7, 11, 12, 13, 14, 15, 16, 17}},
		{3, 0, []int{7, 12, 13, 14, 15, 16, 17}},
		{0, 0.08, []int{1, 4, 6, 9, 11, 13, 15, 17}},
		{0, 0.4, []int{1, 7, 13}},
		{0, 10, []int{1}},
	} {
		s := &WordStream{
			stages: &stages{w: &Words{classifiers: []classifier{{words: []string{"word"}}}}}, o: WordOptions{Threshold: 0.5, Patience: c.patience, DebounceTime: c.debounce},
			above: make([]int, 1), last: []int{math.MinInt / 2},
		}
		for i, x := range scores {
			s.scores = []float32{x}
			s.frames = i + 1
			s.judge(float64(i))
		}
		var got []int
		for _, d := range s.take() {
			got = append(got, int(d.Time))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("patience %d, debounce %g s: frames %v, want %v", c.patience, c.debounce, got, c.want)
		}
	}
}

// TestSmallModels: models made for the purpose are found to be what they are, and run.
func TestSmallModels(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "vad.onnx")
	if err := detecttest.Speech(file); err != nil {
		t.Fatal(err)
	}
	m, err := OpenSpeech(file)
	if err != nil || !slices.Equal(m.Rates(), []int{16000, 8000}) {
		t.Fatalf("%v, %v", m, err)
	}
	for _, rate := range []int{8000, 16000, 48000} {
		s := &audio.Sound{Rate: rate, Samples: make([]float32, 3*rate)}
		for i := rate; i < 2*rate; i++ {
			s.Samples[i] = float32(0.5 * math.Sin(2*math.Pi*440*float64(i)/float64(rate)))
		}
		got, err := m.Detect(s, DefaultSpeech())
		if err != nil || len(got) != 1 || math.Abs(got[0].Start-1) > 0.05 || math.Abs(got[0].End-2) > 0.06 {
			t.Errorf("%d Hz: %+v, %v", rate, got, err)
		}
		if s.Samples = s.Samples[:1]; err == nil {
			if got, err := m.Detect(s, DefaultSpeech()); err != nil || len(got) > 0 {
				t.Errorf("one sample: %v, %v", got, err)
			}
		}
		if got, err := m.Detect(&audio.Sound{Rate: rate}, DefaultSpeech()); err != nil || len(got) > 0 {
			t.Errorf("no sample: %v, %v", got, err)
		}
	}
	if err := detecttest.Words(dir); err != nil {
		t.Fatal(err)
	}
	w, err := OpenWordsIn(dir)
	if err != nil || !slices.Equal(w.Names(), []string{"loud"}) {
		t.Fatalf("%v, %v", w, err)
	}
	s := &audio.Sound{Rate: 16000, Samples: make([]float32, 32000)}
	s.Samples[16000] = 0.9
	o := DefaultWords()
	o.DebounceTime = 2
	got, err := w.Detect(s, o)
	if err != nil || len(got) != 1 || got[0].Word != "loud" || got[0].Time < 1 || got[0].Time > 1.09 || got[0].Score < 0.9 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestOtherFiles(t *testing.T) {
	dir := t.TempDir()
	vad, text := filepath.Join(dir, "vad.onnx"), filepath.Join(dir, "text.onnx")
	if err := errors.Join(detecttest.Speech(vad), detecttest.Words(dir), os.WriteFile(text, []byte("no model"), 0o600)); err != nil {
		t.Fatal(err)
	}
	mel, embedding, loud := filepath.Join(dir, "melspectrogram.onnx"), filepath.Join(dir, "embedding_model.onnx"), filepath.Join(dir, "loud.onnx")
	speech := func(path string) error {
		_, err := OpenSpeech(path)
		return err
	}
	words := func(mel, embedding string, models ...WordModel) error {
		_, err := OpenWords(mel, embedding, models...)
		return err
	}
	in := func(dir string) error {
		_, err := OpenWordsIn(dir)
		return err
	}
	m, err := OpenSpeech(vad)
	if err != nil {
		t.Fatal(err)
	}
	stream := func(rate int, change func(*SpeechOptions)) error {
		o := DefaultSpeech()
		change(&o)
		_, err := m.NewStream(rate, o)
		return err
	}
	os.Remove(text)
	w, err := OpenWordsIn(dir)
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(text, []byte("no model"), 0o600)
	_, both := w.NewStream(16000, WordOptions{Patience: 1, DebounceTime: 1})
	s, err := m.NewStream(16000, DefaultSpeech())
	if err != nil {
		t.Fatal(err)
	}
	_, infinite := s.Write([]float32{0, float32(math.Inf(1))})
	for _, c := range []struct {
		err  error
		want string
	}{
		{speech(filepath.Join(dir, "none.onnx")), "none.onnx: cannot be read: no such file or directory"},
		{speech(text), "text.onnx: not an ONNX model"},
		{speech(loud), `loud.onnx: is not a Silero VAD model: expected inputs "input" and "state", or "input", "h" and "c", of Silero VAD 4 to 6, got inputs x float32[1,16,96] and outputs score float32[1,1]`},
		{words(vad, embedding, WordModel{Path: loud}), "vad.onnx: is not openWakeWord's model of the spectrogram: expected an input [1,1280] and an output [n,n,n,32], got inputs input"},
		{words(mel, mel, WordModel{Path: loud}), "melspectrogram.onnx: is not openWakeWord's model of the embedding: expected an input [1,76,32,1] and an output [1,1,1,96], got"},
		{words(mel, embedding, WordModel{Path: vad}), "vad.onnx: is not openWakeWord's model of a word: expected an input [1,n,96] and an output [1,n], got"},
		{words(mel, embedding), "no model of a word"},
		{words(mel, embedding, WordModel{Path: loud}, WordModel{Path: loud}), `two models are for the word "loud"`},
		{in(filepath.Join(dir, "none")), "none: is not a folder that can be read"},
		{in(dir), "text.onnx: not an ONNX model"},
		{in(t.TempDir()), "holds no model of a word"},
		{stream(50, func(*SpeechOptions) {}), "sample rate: want 100 to 1000000 Hz, got 50"},
		{stream(8000, func(o *SpeechOptions) { o.Threshold = 2 }), "threshold: want a number from 0 to 1, got 2"},
		{stream(8000, func(o *SpeechOptions) { o.MaxSpeechCut = "first" }), `max_speech_cut: want longest, last, got "first"`},
		{both, "patience and debounce_time are alternatives"},
		{infinite, "sample 1 is not a finite number"},
	} {
		var file *model.FileError
		var input *data.InputError
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) || strings.Contains(c.err.Error(), "\n") || !errors.As(c.err, &file) && !errors.As(c.err, &input) {
			t.Errorf("%v (%T), want %q", c.err, c.err, c.want)
		}
	}
}

// TestStepsDoNotAllocate: a window of a stream costs no memory.
func TestStepsDoNotAllocate(t *testing.T) {
	file := filepath.Join(t.TempDir(), "vad.onnx")
	if err := detecttest.Speech(file); err != nil {
		t.Fatal(err)
	}
	m, err := OpenSpeech(file)
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.NewStream(16000, DefaultSpeech())
	if err != nil {
		t.Fatal(err)
	}
	samples := make([]float32, 512)
	if n := testing.AllocsPerRun(20, func() {
		if _, err := s.Write(samples); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%g allocations in a window", n)
	}
}

// TestManyStreams: streams of one model do not disturb each other.
func TestManyStreams(t *testing.T) {
	m := openSpeech(t, "silero_vad.onnx")
	sound := readSound(t, shared(t, "speech_test.wav"))
	var want [][]Segment
	part := func(i int) *audio.Sound {
		return &audio.Sound{Rate: 16000, Samples: sound.Samples[i*40000 : i*40000+48000]}
	}
	for i := range 3 {
		list, err := m.Detect(part(i), DefaultSpeech())
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, list)
	}
	var wait sync.WaitGroup
	for i := range 3 {
		wait.Go(func() {
			if got, err := m.Detect(part(i), DefaultSpeech()); err != nil || !reflect.DeepEqual(got, want[i]) {
				t.Errorf("part %d: %v, want %v; %v", i, got, want[i], err)
			}
		})
	}
	wait.Wait()
}

// BenchmarkSpeech is a window of Silero VAD, 32 ms.
func BenchmarkSpeech(b *testing.B) {
	m, err := OpenSpeech(shared(b, "silero_vad.onnx"))
	if err != nil {
		b.Fatal(err)
	}
	s, err := m.NewStream(16000, DefaultSpeech())
	if err != nil {
		b.Fatal(err)
	}
	samples := readSound(b, shared(b, "speech_test.wav")).Samples
	for i := 0; b.Loop(); i = (i + 512) % 900000 {
		if _, err := s.Write(samples[i : i+512]); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkWords is a frame of openWakeWord with one word, 80 ms.
func BenchmarkWords(b *testing.B) {
	s, err := openWords(b).NewStream(WordRate, DefaultWords())
	if err != nil {
		b.Fatal(err)
	}
	samples := readSound(b, shared(b, "speech_test.wav")).Samples
	for i := 0; b.Loop(); i = (i + 1280) % 900000 {
		if _, err := s.Write(samples[i : i+1280]); err != nil {
			b.Fatal(err)
		}
	}
}
