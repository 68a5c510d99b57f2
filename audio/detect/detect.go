// Package detect finds speech and wake words in sound with published ONNX models,
// which the caller gives as files: [OpenSpeech] opens Silero VAD, [OpenWords] the
// models of openWakeWord.
//
// A stream takes a sound of any rate in pieces of any size and returns what it has
// found as soon as it is final. The result does not depend on the pieces. A model
// serves many streams at once; a stream is used by one goroutine at a time.
package detect

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/model/onnx/graph"
)

// Accepted sample rates of a sound, as those of package audio.
const (
	minRate = 100
	maxRate = 1_000_000
)

var errFinished = errors.New("detect: the stream is finished")

// input is the sound of a stream at the rate of its model.
type input struct {
	rate      int // of the sound, in samples per second
	modelRate int
	seen      int64 // samples of the sound
	resampler *audio.Resampler
	buffer    []float32 // at modelRate, not yet taken
	at        int64     // position of buffer's beginning, in samples at modelRate
}

func newInput(rate, modelRate int) (*input, error) {
	if rate < minRate || rate > maxRate {
		return nil, data.Errorf("sample rate: want %d to %d Hz, got %d", minRate, maxRate, rate)
	}
	return &input{rate: rate, modelRate: modelRate, resampler: audio.NewResampler(rate, modelRate)}, nil
}

// mostAtOnce bounds the samples that are resampled before the model takes them.
const mostAtOnce = 1 << 14

// write adds samples and calls step for each window of n samples. step must not
// keep the window.
func (in *input) write(samples []float32, n int, step func(window []float32) error) error {
	for len(samples) > 0 {
		piece := samples[:min(len(samples), mostAtOnce)]
		samples = samples[len(piece):]
		for i, v := range piece {
			if v-v != 0 {
				return data.Errorf("sample %d is not a finite number", in.seen+int64(i))
			}
		}
		in.seen += int64(len(piece))
		in.buffer = in.resampler.Write(in.buffer, piece)
		if err := in.take(n, step); err != nil {
			return err
		}
	}
	return nil
}

func (in *input) take(n int, step func(window []float32) error) error {
	taken := 0
	for ; len(in.buffer)-taken >= n; taken += n {
		in.at += int64(n)
		if err := step(in.buffer[taken : taken+n]); err != nil {
			return err
		}
	}
	in.buffer = in.buffer[:copy(in.buffer, in.buffer[taken:])]
	return nil
}

// finish takes the end of the sound into the buffer and returns the sound's length at
// modelRate.
func (in *input) finish() int64 {
	in.buffer = in.resampler.Flush(in.buffer)
	return in.at + int64(len(in.buffer))
}

// place returns the sample of the sound that is at a sample at modelRate.
func (in *input) place(at int64) int64 {
	if in.rate == in.modelRate {
		return at
	}
	return int64(math.Round(float64(at) * float64(in.rate) / float64(in.modelRate)))
}

// session runs a graph step by step.
type session struct {
	*graph.Session
	inputs map[string]graph.Value // by name, without states
	input  string                 // the first
	output string                 // the first
}

// newSession begins with states of zeros. states has their shapes.
func newSession(m *graph.Model, states []state) (*session, error) {
	pairs, zeros := map[string]string{}, map[string]graph.Value{}
	for _, in := range m.Inputs() {
		pairs[in.Name] = "" // no state, whatever the names are like
	}
	for _, one := range states {
		size := 1
		for _, d := range one.dims {
			size *= d
		}
		pairs[one.in], zeros[one.in] = one.out, graph.Floats(make([]float32, size), one.dims...)
	}
	s, err := m.NewSession(graph.SessionOptions{States: pairs})
	if err != nil {
		return nil, err
	}
	return &session{s, map[string]graph.Value{}, m.Inputs()[0].Name, m.Outputs()[0].Name}, s.SetState(zeros)
}

// run returns an output, which is valid until the next run.
func (s *session) run(output string) ([]float32, error) {
	out, err := s.Step(s.inputs)
	return out[output].Data, err
}

// runOne is run for a model with one input and one output.
func (s *session) runOne(in graph.Value) ([]float32, error) {
	s.inputs[s.input] = in
	return s.run(s.output)
}

// state is an array that is passed from a run of a graph to the next.
type state struct {
	in, out string
	dims    []int
}

// otherKind is the error for a graph that is not the model that was expected.
func otherKind(path string, m *graph.Model, what, expected string) error {
	return &model.FileError{
		File:    path,
		Problem: fmt.Sprintf("is not %s: expected %s, got inputs %s and outputs %s", what, expected, list(m.Inputs()), list(m.Outputs())),
	}
}

func list(values []graph.ValueInfo) string {
	if len(values) == 0 {
		return "none"
	}
	names := make([]string, len(values))
	for i, v := range values {
		names[i] = v.String()
	}
	return strings.Join(names, ", ")
}

// allows reports whether v is of floats and may have this shape; 0 is any size.
func allows(v graph.ValueInfo, dims ...int) bool {
	if !v.IsFloat() || !v.Any && len(v.Dims) != len(dims) {
		return false
	}
	for i, d := range v.Dims {
		if d.Size >= 0 && dims[i] != 0 && d.Size != dims[i] {
			return false
		}
	}
	return true
}

// named returns the value of that name, or nil.
func named(values []graph.ValueInfo, name string) *graph.ValueInfo {
	for i := range values {
		if values[i].Name == name {
			return &values[i]
		}
	}
	return nil
}
