package detect

import (
	"fmt"
	"slices"

	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/model/onnx/graph"
)

// SpeechOptions are the rules by which probabilities of speech become segments;
// [DefaultSpeech] has their defaults. Names, defaults and rules are those of
// get_speech_timestamps of silero-vad 6.2.
type SpeechOptions struct {
	Threshold       float64 `json:"threshold" range:"0..1" group:"Detection" help:"least score of a detection"`
	NegThreshold    float64 `json:"neg_threshold" range:"0..1" group:"Detection" help:"in speech, windows below this probability are silence (0: threshold - 0.15, but at least 0.01)"`
	MinSpeech       float64 `json:"min_speech_duration_ms" range:"0..1e9" group:"Detection" help:"segments that are not longer than this many ms are left out"`
	MinSilence      float64 `json:"min_silence_duration_ms" range:"0..1e9" group:"Detection" help:"ms of silence that end a segment"`
	Pad             float64 `json:"speech_pad_ms" range:"0..1e9" group:"Detection" help:"ms added to a segment on either side; two segments share a silence that is shorter than both"`
	MaxSpeech       float64 `json:"max_speech_duration_s" range:"0..1e9" group:"Detection" help:"longer segments are cut, in seconds (0: never)"`
	MinSilenceAtMax float64 `json:"min_silence_at_max_speech" range:"0..1e9" group:"Detection" help:"segments that become too long are cut in a silence of more than this many ms, if they have one"`
	MaxSpeechCut    string  `json:"max_speech_cut" oneof:"longest,last" group:"Detection" help:"silence in which segments that become too long are cut"`
}

const cutLast = "last"

// DefaultSpeech returns the defaults of silero-vad.
func DefaultSpeech() SpeechOptions {
	return SpeechOptions{Threshold: 0.5, MinSpeech: 250, MinSilence: 100, Pad: 30, MinSilenceAtMax: 98, MaxSpeechCut: "longest"}
}

// Segment is a part of a sound.
type Segment struct {
	Start       float64 `json:"start"`        // seconds from the beginning of the sound
	End         float64 `json:"end"`          // seconds from the beginning of the sound
	StartSample int64   `json:"start_sample"` // the first sample, counted from 0
	EndSample   int64   `json:"end_sample"`   // the sample behind the last one
}

// Speech is a Silero VAD model, which estimates for one short window of sound after
// the other the probability that it holds speech. It is safe for concurrent use.
type Speech struct {
	m        *graph.Model
	states   []state
	output   string
	withRate bool // the rate is an input
	context  bool // a window comes with the end of the one before
	rates    []int
}

// Samples of a window, by rate; an eighth of them come with the next window.
const (
	wideRate, wideWindow     = 16000, 512
	narrowRate, narrowWindow = 8000, 256
)

func windowOf(rate int) int {
	if rate == narrowRate {
		return narrowWindow
	}
	return wideWindow
}

// speechForms are the states of the models that Silero has published: of versions 5
// and 6, of those for whole sounds, and of version 4.
var speechForms = []struct {
	states  []state
	context bool
}{
	{[]state{{"state", "stateN", []int{2, 1, 128}}}, true},
	{[]state{{"h", "hn", []int{1, 1, 128}}, {"c", "cn", []int{1, 1, 128}}}, true},
	{[]state{{"h", "hn", []int{2, 1, 64}}, {"c", "cn", []int{2, 1, 64}}}, false},
}

const speechWanted = `inputs "input" and "state", or "input", "h" and "c", of Silero VAD 4 to 6`

// OpenSpeech opens a Silero VAD model: an ONNX file of version 4, 5 or 6 in any of the
// forms that were published, for 16 kHz or for 16 and 8 kHz. The error is a
// [*model.FileError] if the file cannot be read or is another model.
func OpenSpeech(path string) (*Speech, error) {
	g, err := graph.Read(path)
	if err != nil {
		return nil, err
	}
	m := &Speech{m: g}
	if !m.recognise() {
		return nil, otherKind(path, g, "a Silero VAD model", speechWanted)
	}
	if err := m.probe(); err != nil {
		return nil, &model.FileError{File: path, Problem: "is not a Silero VAD model: " + err.Error(), Err: err}
	}
	return m, nil
}

// recognise finds out which of the published forms the graph has.
func (m *Speech) recognise() bool {
	inputs, outputs := m.m.Inputs(), m.m.Outputs()
	rate := named(inputs, "sr")
	if rate != nil && (rate.IsFloat() || !rate.Any && len(rate.Dims) > 0) {
		return false
	}
	m.withRate = rate != nil
	for _, out := range []string{"output", "speech_probs"} {
		if named(outputs, out) != nil {
			m.output = out
		}
	}
	for _, form := range speechForms {
		window := wideWindow
		if form.context {
			window += wideWindow / 8
		}
		in := named(inputs, "input")
		fits := in != nil && allows(*in, 1, window) && m.output != ""
		known := 1
		if m.withRate {
			known++
		}
		for _, s := range form.states {
			from, to := named(outputs, s.out), named(inputs, s.in)
			fits = fits && from != nil && to != nil && allows(*to, s.dims...)
			known++
		}
		if fits && known == len(inputs) {
			m.states, m.context = form.states, form.context
			return true
		}
	}
	return false
}

// probe runs the model on one window: at 16 kHz, and at 8 kHz if the rate makes a
// difference, as some models for 16 kHz alone have an input for it too.
func (m *Speech) probe() error {
	if _, err := m.try(wideRate, wideRate); err != nil {
		return err
	}
	m.rates = []int{wideRate}
	if m.withRate {
		wide, err := m.try(narrowRate, wideRate)
		narrow, failed := m.try(narrowRate, narrowRate)
		if failed == nil && (err != nil || wide != narrow) {
			m.rates = append(m.rates, narrowRate)
		}
	}
	return nil
}

// try returns the probability of a window of the size that a rate has, with this rate
// as the input.
func (m *Speech) try(rate, said int) (float32, error) {
	w, err := m.newWindow(rate)
	if err != nil {
		return 0, err
	}
	if m.withRate {
		w.s.inputs["sr"] = graph.Ints([]int64{int64(said)})
	}
	for i := range w.samples {
		w.samples[i] = 0.1 * float32(i%8-4)
	}
	return w.probability()
}

// Rates returns the sample rates at which the model works, the highest first. Sound of
// other rates is resampled.
func (m *Speech) Rates() []int { return slices.Clone(m.rates) }

// RateFor returns that of [Speech.Rates] to which sound of a rate is resampled: 8000
// up to that rate, 16000 above.
func (m *Speech) RateFor(rate int) int {
	if rate <= narrowRate {
		return m.rates[len(m.rates)-1]
	}
	return m.rates[0]
}

// window is the input of a run, with the states between runs.
type window struct {
	s       *session
	output  string
	input   []float32 // the end of the last window, and samples
	samples []float32 // the rear of input
}

func (m *Speech) newWindow(rate int) (*window, error) {
	n, before := windowOf(rate), 0
	if m.context {
		before = n / 8
	}
	s, err := newSession(m.m, m.states)
	if err != nil {
		return nil, err
	}
	w := &window{s: s, output: m.output, input: make([]float32, before+n)}
	w.samples = w.input[before:]
	s.inputs["input"] = graph.Floats(w.input, 1, before+n)
	if m.withRate {
		s.inputs["sr"] = graph.Ints([]int64{int64(rate)})
	}
	return w, nil
}

// probability runs the model on samples.
func (w *window) probability() (float32, error) {
	p, err := w.s.run(w.output)
	if err != nil {
		return 0, err
	}
	if len(p) != 1 || !(p[0] >= 0 && p[0] <= 1) {
		return 0, fmt.Errorf("its output %q is not one probability", w.output)
	}
	copy(w.input, w.input[len(w.samples):])
	return p[0], nil
}

// SpeechStream finds speech in one sound.
type SpeechStream struct {
	// OnWindow, if set, is called with each window's beginning, in seconds, and its
	// probability of speech. A window lasts 32 ms.
	OnWindow func(at float64, probability float32)

	in       *input
	window   *window
	segments *segmenter
	finished bool
}

// NewStream begins a sound of rate samples per second. The error is a
// [*data.InputError] if the rate or an option is out of range.
func (m *Speech) NewStream(rate int, o SpeechOptions) (*SpeechStream, error) {
	if err := settings.Check(&o); err != nil {
		return nil, data.Errorf("%v", err)
	}
	modelRate := m.RateFor(rate)
	in, err := newInput(rate, modelRate)
	if err != nil {
		return nil, err
	}
	w, err := m.newWindow(modelRate)
	if err != nil {
		return nil, err
	}
	return &SpeechStream{in: in, window: w, segments: newSegmenter(modelRate, len(w.samples), &o)}, nil
}

// Write takes samples, whose full scale is -1 to 1, and returns the segments that have
// become final: a segment once so much silence follows that later sound cannot change
// it. The error is a [*data.InputError] for a sample that is not finite, and otherwise
// that of the graph; the stream must not be used after it.
func (s *SpeechStream) Write(samples []float32) ([]Segment, error) {
	if s.finished {
		return nil, errFinished
	}
	if err := s.in.write(samples, len(s.window.samples), s.step); err != nil {
		return nil, err
	}
	return s.take(), nil
}

// Finish ends the sound and returns the remaining segments. The last window is filled
// up with zeros. The error is as that of [SpeechStream.Write].
func (s *SpeechStream) Finish() ([]Segment, error) {
	if s.finished {
		return nil, errFinished
	}
	s.finished = true
	n := len(s.window.samples)
	length := s.in.finish()
	s.segments.length = length
	if rest := length % int64(n); rest > 0 {
		s.in.buffer = append(s.in.buffer, make([]float32, n-int(rest))...)
	}
	if err := s.in.take(n, s.step); err != nil {
		return nil, err
	}
	s.segments.finish()
	return s.take(), nil
}

func (s *SpeechStream) step(samples []float32) error {
	copy(s.window.samples, samples)
	p, err := s.window.probability()
	if err != nil {
		return err
	}
	if s.OnWindow != nil {
		s.OnWindow(float64(s.segments.at)/float64(s.in.modelRate), p)
	}
	s.segments.add(p)
	return nil
}

// take returns the final segments, at the rate of the sound.
func (s *SpeechStream) take() []Segment {
	var list []Segment
	for _, one := range s.segments.done {
		start, end := s.in.place(one.start), min(s.in.place(one.end), s.in.seen)
		list = append(list, Segment{
			Start: float64(start) / float64(s.in.rate), End: float64(end) / float64(s.in.rate), StartSample: start, EndSample: end,
		})
	}
	s.segments.done = s.segments.done[:0]
	return list
}

// Detect returns the segments of speech of a whole sound. The errors are those of
// [Speech.NewStream] and [SpeechStream.Write].
func (m *Speech) Detect(sound *audio.Sound, o SpeechOptions) ([]Segment, error) {
	s, err := m.NewStream(sound.Rate, o)
	if err != nil {
		return nil, err
	}
	list, err := s.Write(sound.Samples)
	if err != nil {
		return nil, err
	}
	rest, err := s.Finish()
	return append(list, rest...), err
}
