package transcribe

import (
	"context"
	"math"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// Serves returns how a server offers the model: sounds, with their texts; and sessions, if
// the model supports streams, with the text so far, whose end may change until the last
// portion. A model that was trained on files of features is a *data.InputError.
func (m *Model) Serves() (*task.Service, error) {
	if err := m.frontend.TakesSound(); err != nil {
		return nil, data.Errorf("the model was trained on files of features and cannot be served, as clients send sound")
	}
	s := &task.Service{Apart: true, Most: map[string]float64{"beam": 1000}, Outputs: []task.Output{
		{Name: "text", Texts: func(p task.Prediction) []string {
			return task.TextsOf(p.(*Transcripts).Files, func(one *FileTranscript) string { return one.Text })
		}},
	}}
	if m.Streams() {
		s.Samples, s.NewStream = true, func() task.Stream { return &session{m: m} }
	}
	return s, nil
}

// session is a [Stream] that begins with its first portion, whose rate and options are
// those of the others.
type session struct {
	m *Model
	o *PredictOptions
	s *Stream // nil: nothing has come
}

// Feed adds the samples of the portion.
func (n *session) Feed(ctx context.Context, p *task.Portion) (_ task.Prediction, err error) {
	defer tensor.Recover(&err)
	o, _ := p.Options.(*PredictOptions)
	if i := slices.IndexFunc(p.Samples, func(v float32) bool { return math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) }); i >= 0 {
		return nil, data.Errorf("sample %d is not a finite number; full scale is -1 to 1", i+1)
	}
	s := n.s
	switch {
	case s == nil && len(p.Samples) == 0:
		return nil, data.Errorf("there is no sound yet: give samples")
	case s == nil:
		if _, err := audio.NewRawReader(strings.NewReader(""), "", p.Rate); err != nil {
			return nil, err
		}
		if s, err = n.m.NewStream(ctx, p.Rate, o); err != nil {
			return nil, err
		}
	case len(p.Samples) > 0 && p.Rate != s.rate:
		return nil, data.Errorf("rate: the sound has %d samples per second since its beginning, got %d; begin another session", s.rate, p.Rate)
	case !o.equal(n.o):
		return nil, data.Errorf("the options are those of the first portion of a sound; leave them as they are, or begin another session")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	n.s, n.o = s, o
	s.Write(p.Samples)
	t := &Transcript{Words: []Word{}, Seconds: s.seconds()}
	switch {
	case p.Last:
		t = s.Finish()
		n.s, n.o = nil, nil
	case p.Wants == nil || p.Wants("text"):
		t = s.Partial()
	}
	return &Transcripts{Task: Name, Files: []FileTranscript{{"samples", t}}}, nil
}

// equal reports whether options say the same. Their files are compared by name.
func (o *PredictOptions) equal(other *PredictOptions) bool {
	if o == nil || other == nil {
		return o == other
	}
	return slices.EqualFunc(settings.List(o), settings.List(other), func(a, b *settings.Setting) bool { return a.String() == b.String() })
}

// Bytes returns about the memory of the stream: the state of the network, the buffers of
// sound and features, and the hypotheses.
func (n *session) Bytes() int {
	const buffers, hypothesis = 1 << 16, 1 << 10
	if n.s == nil {
		return buffers
	}
	state := n.s.reader.state
	return buffers + 4*(len(state.H())+len(state.C())) + hypothesis*max(1, n.s.d.Beam)
}
