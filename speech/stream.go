package speech

import (
	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/data"
)

// Stream hears sound while it arrives. It keeps what it needs of the past, so
// any number may run on one model; one is used by one goroutine at a time.
type Stream struct {
	m        *Model
	d        *Decoding
	rate     int
	heard    int64
	resample *audio.Resampler
	extract  *audio.Extractor
	frontend *frontend
	listener *listener
	search   search
	samples  []float32
	frames   []float32
	steps    []float32
}

// Streams reports whether the model can hear a stream while it arrives: it
// reads forward only, and does not normalise over whole utterances.
func (m *Model) Streams() bool {
	return !m.cfg.Bidirectional && m.cfg.Normalize != "utterance" && m.hears() == nil
}

// NewStream is for sound of rate samples a second; d is nil for
// [Model.Decoding]. The model must read forward only, and not normalise over whole
// utterances. What a Stream says in the end is what [Model.Transcribe] says of
// the whole sound.
func (m *Model) NewStream(rate int, d *Decoding) (*Stream, error) {
	if m.cfg.Bidirectional {
		return nil, data.Errorf("the model reads in both directions, so it needs the whole sound; train one with bidirectional false to hear a stream")
	}
	if m.cfg.Normalize == "utterance" {
		return nil, data.Errorf("the model normalises over whole utterances; train one with normalize running to hear a stream")
	}
	if err := m.hears(); err != nil {
		return nil, err
	}
	d, err := m.choose(d)
	if err != nil {
		return nil, err
	}
	return &Stream{m: m, d: d, rate: rate, resample: audio.NewResampler(rate, m.cfg.Rate), extract: audio.NewExtractor(m.cfg.specAt(m.cfg.Rate)),
		frontend: newFrontend(m.setup, m.width, m.stats), listener: m.newListener(), search: newSearch(m.alphabet, d)}, nil
}

// Lag is how many seconds of sound after a moment must have arrived before the
// network has heard that moment: what features, slopes and stacking look ahead.
func (s *Stream) Lag() float64 {
	c := &s.m.cfg
	spec := c.specAt(c.Rate)
	return spec.Lag() + c.Hop/1000*float64(deltaReach*c.Deltas+c.Stack-1)
}

// Write hears samples, any number of them.
func (s *Stream) Write(samples []float32) {
	s.heard += int64(len(samples))
	s.samples = s.resample.Write(s.samples[:0], samples)
	s.frames = s.extract.Write(s.frames[:0], s.samples)
	s.steps = s.frontend.write(s.steps[:0], s.frames)
	s.run()
}

func (s *Stream) run() {
	if len(s.steps) == 0 {
		return
	}
	for _, row := range s.listener.hear(s.steps) {
		s.search.push(row)
	}
}

func (s *Stream) seconds() float64 { return float64(s.heard) / float64(s.rate) }

// Partial is the text so far. Its end may still change.
func (s *Stream) Partial() *Transcript {
	return s.m.transcript(s.search.best(2*s.d.NBest, false), s.d, s.seconds())
}

// Finish ends the sound and is the final text. The Stream must not be used
// after it.
func (s *Stream) Finish() *Transcript {
	s.samples = s.resample.Flush(s.samples[:0])
	s.frames = s.extract.Flush(s.extract.Write(s.frames[:0], s.samples))
	s.steps = s.frontend.flush(s.frontend.write(s.steps[:0], s.frames))
	s.run()
	return s.m.transcript(s.search.best(2*s.d.NBest, true), s.d, s.seconds())
}
