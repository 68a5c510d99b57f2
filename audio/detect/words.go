package detect

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/model/onnx/graph"
)

// WordOptions are the rules by which scores become detections; [DefaultWords] has
// their defaults. Patience and DebounceTime exclude each other.
type WordOptions struct {
	Threshold    float64 `json:"threshold" range:"0..1" group:"Detection" help:"least score of a detection"`
	Patience     int     `json:"patience" range:"0..1e6" group:"Detection" help:"frames of 80 ms just before a detection whose scores must be as high"`
	DebounceTime float64 `json:"debounce_time" range:"0..1e6" group:"Detection" help:"seconds after a detection in which the word is not detected again"`
	Padding      float64 `json:"padding" range:"0..60" group:"Detection" help:"seconds of silence before and after the sound, for words at its beginning or end"`
}

// DefaultWords returns the defaults of openWakeWord, with the threshold that its
// authors advise.
func DefaultWords() WordOptions { return WordOptions{Threshold: 0.5, Padding: 1} }

// Detection is a word that was found.
type Detection struct {
	Word  string  `json:"word"`  // name of the model, or of the class of a model with several
	Time  float64 `json:"time"`  // end of the frame in which it was found, in seconds from the beginning of the sound
	Score float64 `json:"score"` // from 0 to 1
}

// WordModel names a model of one word or of several.
type WordModel struct {
	Path string // an ONNX file
	Name string // of the word; "": that of the file without .onnx
}

// Words are the models of openWakeWord: two that turn sound into features, and
// one or more that score them. It is safe for concurrent use.
type Words struct {
	melspectrogram, embedding *graph.Model
	classifiers               []classifier
	longest                   int       // features that a classifier takes at most
	before                    []float32 // features of the noise before a sound, shape [longest,96]
}

// classifier scores the words of one file.
type classifier struct {
	m     *graph.Model
	n     int // features that it takes
	words []string
	class []int // of words, elements of the output
}

// WordRate is the sample rate of openWakeWord's models, in Hz. Sound of other rates is
// resampled.
const WordRate = 16000

// Sizes of openWakeWord's stages. A frame has 1280 samples; with the 480 before them
// they give 8 rows of the spectrogram. An embedding is made of the last 76 rows.
const (
	frameSize  = 1280
	frameHead  = 480
	melBands   = 32
	melWindow  = 76
	melStep    = 8
	features   = 96
	firstAreNo = 5 // frames at the beginning whose scores are 0
)

// OpenWords opens openWakeWord's models of the spectrogram and of the embedding, and
// those of the words. The error is a [*data.InputError] if no word is named or two
// have one name, and a [*model.FileError] if a file cannot be read or is another
// model.
func OpenWords(melspectrogram, embedding string, words ...WordModel) (*Words, error) {
	if len(words) == 0 {
		return nil, data.Errorf("no model of a word is named")
	}
	w := &Words{}
	var err error
	if w.melspectrogram, err = openStage(melspectrogram, "spectrogram", []int{1, frameSize}, []int{0, 0, 0, melBands}); err != nil {
		return nil, err
	}
	if w.embedding, err = openStage(embedding, "embedding", []int{1, melWindow, melBands, 1}, []int{1, 1, 1, features}); err != nil {
		return nil, err
	}
	for _, one := range words {
		c, err := openClassifier(one)
		if err != nil {
			return nil, err
		}
		for _, other := range w.classifiers {
			for _, name := range c.words {
				if slices.Contains(other.words, name) {
					return nil, data.Errorf("two models are for the word %q; name one of them", name)
				}
			}
		}
		w.classifiers = append(w.classifiers, *c)
		w.longest = max(w.longest, c.n)
	}
	if err := w.hearNoise(); err != nil {
		return nil, err
	}
	return w, nil
}

// OpenWordsIn opens the models in a folder: melspectrogram.onnx, embedding_model.onnx,
// and every other ONNX file that scores words. The errors are those of [OpenWords].
func OpenWordsIn(dir string) (*Words, error) {
	const mel, embedding = "melspectrogram.onnx", "embedding_model.onnx"
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, &data.InputError{File: dir, Problem: "is not a folder that can be read", Fix: "name one that holds " + mel + ", " + embedding + " and models of words"}
	}
	var words []WordModel
	for _, one := range files {
		name := one.Name()
		if name == mel || name == embedding || filepath.Ext(name) != ".onnx" {
			continue
		}
		file := filepath.Join(dir, name)
		g, err := graph.Read(file)
		if err != nil {
			return nil, err
		}
		if _, ok := classifierOf(g); ok {
			words = append(words, WordModel{Path: file})
		}
	}
	if len(words) == 0 {
		return nil, &data.InputError{File: dir, Problem: "holds no model of a word of openWakeWord: an ONNX file with an input [1,n,96]"}
	}
	return OpenWords(filepath.Join(dir, mel), filepath.Join(dir, embedding), words...)
}

// openStage opens a model with one input and one output.
func openStage(path, what string, in, out []int) (*graph.Model, error) {
	g, err := graph.Read(path)
	if err != nil {
		return nil, err
	}
	if i, o := g.Inputs(), g.Outputs(); len(i) != 1 || len(o) != 1 || !allows(i[0], in...) || !allows(o[0], out...) {
		return nil, otherKind(path, g, "openWakeWord's model of the "+what, fmt.Sprintf("an input %s and an output %s", sizes(in), sizes(out)))
	}
	return g, nil
}

// sizes writes a shape, in which 0 is any size.
func sizes(dims []int) string {
	text := strings.ReplaceAll(fmt.Sprint(dims), " ", ",")
	return strings.ReplaceAll(strings.ReplaceAll(text, "[0,", "[n,"), ",0", ",n")
}

// classifierOf returns what a graph says of itself; ok is false if it scores no words.
func classifierOf(g *graph.Model) (c *classifier, ok bool) {
	in, out := g.Inputs(), g.Outputs()
	if len(in) != 1 || len(out) != 1 || !allows(in[0], 1, 0, features) || !allows(out[0], 1, 0) || in[0].Any || out[0].Any {
		return nil, false
	}
	c = &classifier{m: g, n: in[0].Dims[1].Size}
	return c, c.n > 0 && out[0].Dims[1].Size > 0
}

func openClassifier(from WordModel) (*classifier, error) {
	g, err := graph.Read(from.Path)
	if err != nil {
		return nil, err
	}
	c, ok := classifierOf(g)
	if !ok {
		return nil, otherKind(from.Path, g, "openWakeWord's model of a word", "an input [1,n,96] and an output [1,n]")
	}
	name := from.Name
	if name == "" {
		name = strings.TrimSuffix(filepath.Base(from.Path), ".onnx")
	}
	out := g.Outputs()[0]
	if out.Dims[1].Size == 1 {
		c.words, c.class = []string{name}, []int{0}
		return c, nil
	}
	for i := range out.Dims[1].Size {
		c.words, c.class = append(c.words, fmt.Sprintf("%s/%d", name, i)), append(c.class, i)
	}
	// Models of several words may have their names, by class, as the output's name.
	var classes map[int]string
	if json.Unmarshal([]byte(out.Name), &classes) == nil {
		c.words, c.class = nil, nil
		for _, i := range slices.Sorted(maps.Keys(classes)) {
			if i < 0 || i >= out.Dims[1].Size {
				return nil, &model.FileError{File: from.Path, Problem: fmt.Sprintf("names a class %d, and has %d classes", i, out.Dims[1].Size)}
			}
			c.words, c.class = append(c.words, classes[i]), append(c.class, i)
		}
	}
	return c, nil
}

// Names returns the words, in the order of the models.
func (w *Words) Names() []string {
	var names []string
	for _, c := range w.classifiers {
		names = append(names, c.words...)
	}
	return names
}

// hearNoise computes the features before a sound: openWakeWord begins each sound after
// 4 s of faint random noise, which is the same here for all sounds.
func (w *Words) hearNoise() error {
	s, err := w.newStages()
	if err != nil {
		return err
	}
	noise := make([]float32, 4*WordRate)
	seed := uint32(1)
	for i := range noise {
		seed = seed*1664525 + 1013904223
		noise[i] = float32(int32(seed>>16)%2000 - 1000)
	}
	rows, err := s.spectrogram(noise)
	if err != nil {
		return err
	}
	windows := max(0, len(rows)/melBands-melWindow+melStep) / melStep
	if windows < w.longest {
		return data.Errorf("a model takes %d features, and there are %d at most", w.longest, windows)
	}
	for i := windows - w.longest; i < windows; i++ {
		f, err := s.embed(rows[i*melStep*melBands:][:melWindow*melBands])
		if err != nil {
			return err
		}
		w.before = append(w.before, f...)
	}
	return s.score(make([]float32, len(w.Names())), w.before)
}

// stages are the models of one stream, each a session.
type stages struct {
	w                         *Words
	melspectrogram, embedding *session
	classifiers               []*session
	rows                      []float32 // of the spectrogram
}

func (w *Words) newStages() (*stages, error) {
	s := &stages{w: w}
	var err error
	if s.melspectrogram, err = newSession(w.melspectrogram, nil); err != nil {
		return nil, err
	}
	if s.embedding, err = newSession(w.embedding, nil); err != nil {
		return nil, err
	}
	for _, c := range w.classifiers {
		one, err := newSession(c.m, nil)
		if err != nil {
			return nil, err
		}
		s.classifiers = append(s.classifiers, one)
	}
	return s, nil
}

// spectrogram returns the rows of samples, which have the scale of 16 bit integers,
// until the next call.
func (s *stages) spectrogram(samples []float32) ([]float32, error) {
	out, err := s.melspectrogram.runOne(graph.Floats(samples, 1, len(samples)))
	if err != nil {
		return nil, err
	}
	if len(out)%melBands != 0 {
		return nil, data.Errorf("the spectrogram has %d numbers, which are no rows of %d", len(out), melBands)
	}
	s.rows = s.rows[:0]
	for _, v := range out {
		s.rows = append(s.rows, v/10+2) // as the embedding's model was trained
	}
	return s.rows, nil
}

// embed returns the features of 76 rows, until the next call.
func (s *stages) embed(rows []float32) ([]float32, error) {
	f, err := s.embedding.runOne(graph.Floats(rows, 1, melWindow, melBands, 1))
	if err == nil && len(f) != features {
		err = data.Errorf("the embedding has %d numbers, expected %d", len(f), features)
	}
	return f, err
}

// score writes the scores of the last features of a history.
func (s *stages) score(scores, history []float32) error {
	for k, c := range s.w.classifiers {
		out, err := s.classifiers[k].runOne(graph.Floats(history[len(history)-c.n*features:], 1, c.n, features))
		if err != nil {
			return err
		}
		for i, class := range c.class {
			if class >= len(out) {
				return data.Errorf("%q has %d scores, expected one for class %d", c.words[i], len(out), class)
			}
			scores[i] = out[class]
		}
		scores = scores[len(c.class):]
	}
	return nil
}

// WordStream finds words in one sound.
type WordStream struct {
	// OnFrame, if set, is called with each frame's end, in seconds from the beginning of
	// the sound, and the scores of [Words.Names], which must not be kept. A frame lasts
	// 80 ms; those of the padding are before 0 or after the sound.
	OnFrame func(at float64, scores []float32)

	stages   *stages
	o        WordOptions
	in       *input
	samples  []float32 // the head and a frame, at the scale of 16 bit integers
	rows     []float32 // the last rows of the spectrogram, shape [76,32]
	features []float32 // the last features, shape [longest,96]
	frames   int
	scores   []float32
	above    []int // frames in a row whose score is high enough, by word
	last     []int // frame of the last detection, by word
	found    []Detection
	finished bool
}

// NewStream begins a sound of rate samples per second. The error is a
// [*data.InputError] if the rate or an option is out of range, or if both Patience and
// DebounceTime are given.
func (w *Words) NewStream(rate int, o WordOptions) (*WordStream, error) {
	if err := settings.Check(&o); err != nil {
		return nil, data.Errorf("%v", err)
	}
	if o.Patience > 0 && o.DebounceTime > 0 {
		return nil, data.Errorf("patience and debounce_time are alternatives; give one")
	}
	in, err := newInput(rate, WordRate)
	if err != nil {
		return nil, err
	}
	stages, err := w.newStages()
	if err != nil {
		return nil, err
	}
	n := len(w.Names())
	s := &WordStream{
		stages: stages, o: o, in: in, samples: make([]float32, frameHead+frameSize), rows: make([]float32, melWindow*melBands),
		features: slices.Clone(w.before), scores: make([]float32, n), above: make([]int, n), last: make([]int, n),
	}
	for i := range s.rows {
		s.rows[i] = 1
	}
	for i := range s.last {
		s.last[i] = math.MinInt / 2
	}
	s.in.buffer = make([]float32, s.padding())
	return s, nil
}

func (s *WordStream) padding() int { return int(math.Round(s.o.Padding * WordRate)) }

// Write takes samples, whose full scale is -1 to 1, and returns the detections. They
// are rounded to 16 bits, for which the models were made. The error is a
// [*data.InputError] for a sample that is not finite, and otherwise that of a graph;
// the stream must not be used after it.
func (s *WordStream) Write(samples []float32) ([]Detection, error) {
	if s.finished {
		return nil, errFinished
	}
	if err := s.in.write(samples, frameSize, s.step); err != nil {
		return nil, err
	}
	return s.take(), nil
}

// Finish ends the sound and returns the remaining detections. What is left of a frame
// after the padding has no score. The error is as that of [WordStream.Write].
func (s *WordStream) Finish() ([]Detection, error) {
	if s.finished {
		return nil, errFinished
	}
	s.finished = true
	s.in.finish()
	s.in.buffer = append(s.in.buffer, make([]float32, s.padding())...)
	if err := s.in.take(frameSize, s.step); err != nil {
		return nil, err
	}
	return s.take(), nil
}

func (s *WordStream) take() []Detection {
	found := s.found
	s.found = nil
	return found
}

// step scores one frame.
func (s *WordStream) step(frame []float32) error {
	copy(s.samples, s.samples[frameSize:])
	for i, v := range frame {
		s.samples[frameHead+i] = float32(math.RoundToEven(float64(min(max(v*(1<<15), -1<<15), 1<<15-1))))
	}
	samples := s.samples
	if s.frames == 0 {
		samples = samples[frameHead:] // there is nothing before it
	}
	rows, err := s.stages.spectrogram(samples)
	if err != nil {
		return err
	}
	push(s.rows, rows)
	f, err := s.stages.embed(s.rows)
	if err != nil {
		return err
	}
	push(s.features, f)
	if err := s.stages.score(s.scores, s.features); err != nil {
		return err
	}
	if s.frames < firstAreNo {
		clear(s.scores)
	}
	s.frames++
	at := float64(s.in.at)/WordRate - s.o.Padding
	if s.OnFrame != nil {
		s.OnFrame(at, s.scores)
	}
	s.judge(min(max(0, at), float64(s.in.seen)/float64(s.in.rate)))
	return nil
}

// push moves the newest numbers into the end of a history.
func push(history, newest []float32) {
	newest = newest[max(0, len(newest)-len(history)):]
	copy(history, history[len(newest):])
	copy(history[len(history)-len(newest):], newest)
}

// judge adds the detections of a frame.
func (s *WordStream) judge(at float64) {
	i := 0
	for _, c := range s.stages.w.classifiers {
		for _, word := range c.words {
			score := float64(s.scores[i])
			high := score >= s.o.Threshold
			quiet := float64(s.frames-s.last[i]) <= math.Ceil(s.o.DebounceTime*WordRate/frameSize)
			if high && s.above[i] >= s.o.Patience && !quiet {
				s.found = append(s.found, Detection{Word: word, Time: at, Score: score})
				s.last[i] = s.frames
			}
			if s.above[i]++; !high {
				s.above[i] = 0
			}
			i++
		}
	}
}

// Detect returns the words of a whole sound. The errors are those of
// [Words.NewStream] and [WordStream.Write].
func (w *Words) Detect(sound *audio.Sound, o WordOptions) ([]Detection, error) {
	s, err := w.NewStream(sound.Rate, o)
	if err != nil {
		return nil, err
	}
	found, err := s.Write(sound.Samples)
	if err != nil {
		return nil, err
	}
	rest, err := s.Finish()
	return append(found, rest...), err
}
