// Package denoise removes noise from speech by RNNoise's first network (Valin 2018, "A
// Hybrid DSP/Deep Learning Approach to Real-Time Full-Band Speech Enhancement",
// arXiv:1709.08243): gains of 22 bands, found by three GRUs from the spectrum and the
// pitch of a frame of 10 ms, and a filter between the harmonics of the voice.
//
// The weights are the user's file, which [Open] reads. [Model.Denoise] takes a whole
// sound; a [Stream] takes samples as they arrive, gives them back 10 ms later, and
// allocates nothing. The result does not depend on how the samples were divided.
package denoise

import (
	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/tensor"
)

const (
	Rate  = 48000 // samples per second that the network was made for
	Frame = 480   // samples that are processed at a time, 10 ms
)

// Model is a network with its weights. Streams of one Model may run concurrently.
type Model struct{ net *network }

// Denoise returns a sound of the same rate and length with less noise. Sound of another
// rate than [Rate] is resampled to it and back.
func (m *Model) Denoise(s *audio.Sound) *audio.Sound {
	d := m.NewStream(s.Rate)
	out := make([]float32, 0, len(s.Samples))
	return &audio.Sound{Rate: s.Rate, Samples: d.Flush(d.Write(out, s.Samples))}
}

// Stream removes the noise of a sound that arrives piece by piece. It is for one
// goroutine at a time.
type Stream struct {
	m      *Model
	a      *analysis
	tape   *tensor.Tape
	states *states
	gains  [bands]float64 // of the frame before
	read   [bands]float32 // what the network gave

	to, from     *audio.Resampler
	in, out      []float32 // samples at Rate that are not read yet, and that are not resampled yet
	taken, given int64     // samples at the stream's rate

	frames int
	speech float32
	sum    float64 // of speech
}

// NewStream returns a stream for sound of rate samples per second. It panics unless rate
// is positive.
func (m *Model) NewStream(rate int) *Stream {
	return &Stream{m: m, a: newAnalysis(), tape: tensor.NewTape(m.net.Gains.Weight.Device(), tensor.Infer), states: m.net.newStates(),
		to: audio.NewResampler(rate, Rate), from: audio.NewResampler(Rate, rate)}
}

// Write takes samples (full scale is -1 to 1) and appends to dst those that are ready.
func (s *Stream) Write(dst, samples []float32) []float32 {
	s.taken += int64(len(samples))
	s.in = s.to.Write(s.in, samples)
	s.run()
	return s.give(dst, false)
}

// Flush appends the rest, so that as many samples were given as taken. The Stream must not
// be used afterwards.
func (s *Stream) Flush(dst []float32) []float32 {
	s.in = s.to.Flush(s.in)
	s.in = append(s.in, make([]float32, 2*Frame-1)...) // completes the last frame, and the one that it overlaps
	s.run()
	return s.give(dst, true)
}

// give appends what is ready, at the stream's rate.
func (s *Stream) give(dst []float32, last bool) []float32 {
	at := len(dst)
	dst = s.from.Write(dst, s.out)
	s.out = s.out[:0]
	if last {
		dst = s.from.Flush(dst)
		dst = dst[:min(int64(len(dst)), int64(at)+s.taken-s.given)]
	}
	s.given += int64(len(dst) - at)
	return dst
}

// run processes the complete frames of in.
func (s *Stream) run() {
	used := 0
	for ; used+Frame <= len(s.in); used += Frame {
		n := len(s.out)
		s.out = append(s.out, s.in[used:used+Frame]...) // grown by a frame
		s.frame(s.out[n:])
		if s.frames == 1 {
			s.out = s.out[:n] // what lies before the beginning
		}
	}
	s.in = s.in[:copy(s.in, s.in[used:])]
}

// fall is the least part of its gain that a band keeps from a frame to the next, so that
// reverberation does not break off.
const fall = 0.6

// frame replaces a frame by the one before it without noise.
func (s *Stream) frame(x []float32) {
	s.speech = 0
	if s.a.read(x) {
		s.tape.Reset()
		gains, speech := s.m.net.forward(s.tape.Input(s.a.features[:], 1, 1, inputs), s.states)
		gains.CopyTo(s.read[:])
		s.speech = speech.Item()
		var raw [bands]float64
		for i, g := range s.read {
			raw[i] = float64(g)
		}
		s.a.comb(&raw)
		for i, g := range raw {
			s.gains[i] = max(g, fall*s.gains[i])
		}
		s.a.scale(&s.gains)
	}
	s.frames++
	s.sum += float64(s.speech)
	s.a.write(x)
}

// Frames returns the number of frames so far.
func (s *Stream) Frames() int { return s.frames }

// Speech returns the probability that the last frame so far is speech.
func (s *Stream) Speech() float32 { return s.speech }

// MeanSpeech returns the mean of Speech over the frames so far.
func (s *Stream) MeanSpeech() float64 { return s.sum / float64(max(1, s.frames)) }
