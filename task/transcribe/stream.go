package transcribe

import (
	"context"

	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/speech"
	"github.com/carousel-ml/carousel/tensor"
)

// Stream transcribes sound while it arrives. Several streams of one model may run
// concurrently; each is for one goroutine at a time.
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

// Streams reports whether the model can transcribe a stream: it must not be
// bidirectional, not normalise over whole utterances, and be trained on sound.
func (m *Model) Streams() bool {
	return !m.cfg.Bidirectional && m.cfg.Normalize != "utterance" && m.frontend.TakesSound() == nil
}

// NewStream returns a stream for sound with rate samples per second. The final
// text is that of [Model.Transcribe] for the whole sound. A model that does not
// support streams ([Model.Streams]) and options that the model does not support
// are a *data.InputError; a ctx that is cancelled while the options' files are read
// returns its error.
func (m *Model) NewStream(ctx context.Context, rate int, o *PredictOptions) (_ *Stream, err error) {
	defer tensor.Recover(&err)
	if m.cfg.Bidirectional {
		return nil, data.Errorf("a bidirectional model needs the whole sound; train one with bidirectional false for streams")
	}
	if m.cfg.Normalize == "utterance" {
		return nil, data.Errorf("the model normalises over whole utterances; train one with normalize running for streams")
	}
	if err := m.frontend.TakesSound(); err != nil {
		return nil, err
	}
	d, err := m.decodingTo(ctx, o)
	if err != nil {
		return nil, err
	}
	return &Stream{m: m, d: d, rate: rate, resample: audio.NewResampler(rate, m.cfg.Rate), extract: audio.NewExtractor(m.cfg.Spec()),
		pipeline: m.frontend.Pipeline(), reader: m.newReader(), search: newSearch(m.alphabet, d)}, nil
}

// Lag returns how many seconds of sound after a moment are needed before the
// network can read that moment: the look-ahead of features, deltas and stacking.
func (s *Stream) Lag() float64 { return s.m.cfg.Lag() }

// Write adds samples, any number of them.
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

// Partial returns the text so far, whose end may still change.
func (s *Stream) Partial() *Transcript {
	return s.m.transcript(s.search.best(2*s.d.nBest, false), s.d, s.seconds())
}

// Finish ends the sound and returns the final text. The Stream must not be used
// afterwards.
func (s *Stream) Finish() *Transcript {
	s.resampled = s.resample.Flush(s.resampled[:0])
	s.frames = s.extract.Flush(s.extract.Write(s.frames[:0], s.resampled))
	s.steps = s.pipeline.Flush(s.pipeline.Write(s.steps[:0], s.frames))
	s.run()
	return s.m.transcript(s.search.best(2*s.d.nBest, true), s.d, s.seconds())
}
