package transcribe

import (
	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/speech"
)

// Stream transcribes sound while it arrives. It keeps what it needs of the past, so
// any number may run on one model; one is used by one goroutine at a time.
type Stream struct {
	m         *Model
	d         *Decoding
	rate      int
	samples   int64
	resample  *audio.Resampler
	extract   *audio.Extractor
	pipeline  *speech.Pipeline
	reader    *reader
	search    search
	resampled []float32
	frames    []float32
	steps     []float32
}

// Streams reports whether the model can transcribe a stream while it arrives: it
// reads forward only, and does not normalise over whole utterances.
func (m *Model) Streams() bool {
	return !m.cfg.Bidirectional && m.cfg.Normalize != "utterance" && m.frontend.TakesSound() == nil
}

// NewStream is for sound of rate samples a second. The model must read forward
// only, and not normalise over whole utterances, else the error is a
// *data.InputError. The final text is that of [Model.Transcribe] of the whole sound.
func (m *Model) NewStream(rate int, o *PredictOptions) (*Stream, error) {
	if m.cfg.Bidirectional {
		return nil, data.Errorf("the model reads in both directions, so it needs the whole sound; train one with bidirectional false for streams")
	}
	if m.cfg.Normalize == "utterance" {
		return nil, data.Errorf("the model normalises over whole utterances; train one with normalize running for streams")
	}
	if err := m.frontend.TakesSound(); err != nil {
		return nil, err
	}
	d, err := m.decodingTo(o)
	if err != nil {
		return nil, err
	}
	return &Stream{m: m, d: d, rate: rate, resample: audio.NewResampler(rate, m.cfg.Rate), extract: audio.NewExtractor(m.cfg.Spec()),
		pipeline: m.frontend.Pipeline(), reader: m.newReader(), search: newSearch(m.alphabet, d)}, nil
}

// Lag is how many seconds of sound after a moment must have arrived before the
// network can read that moment: what features, slopes and stacking look ahead.
func (s *Stream) Lag() float64 { return s.m.cfg.Lag() }

// Write takes samples, any number of them.
func (s *Stream) Write(samples []float32) {
	s.samples += int64(len(samples))
	s.resampled = s.resample.Write(s.resampled[:0], samples)
	s.frames = s.extract.Write(s.frames[:0], s.resampled)
	s.steps = s.pipeline.Write(s.steps[:0], s.frames)
	s.run()
}

func (s *Stream) run() {
	if len(s.steps) == 0 {
		return
	}
	for _, row := range s.reader.read(s.steps) {
		s.search.push(row)
	}
}

func (s *Stream) seconds() float64 { return float64(s.samples) / float64(s.rate) }

// Partial is the text so far. Its end may still change.
func (s *Stream) Partial() *Transcript {
	return s.m.transcript(s.search.best(2*s.d.nBest, false), s.d, s.seconds())
}

// Finish ends the sound and is the final text. The Stream must not be used
// after it.
func (s *Stream) Finish() *Transcript {
	s.resampled = s.resample.Flush(s.resampled[:0])
	s.frames = s.extract.Flush(s.extract.Write(s.frames[:0], s.resampled))
	s.steps = s.pipeline.Flush(s.pipeline.Write(s.steps[:0], s.frames))
	s.run()
	return s.m.transcript(s.search.best(2*s.d.nBest, true), s.d, s.seconds())
}
