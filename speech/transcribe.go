package speech

import (
	"context"
	"encoding/csv"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// Transcript is what was heard.
type Transcript struct {
	Text         string        `json:"text"`                   // what was said
	Words        []Word        `json:"words"`                  // with their places
	Score        float64       `json:"score"`                  // logarithm of its probability, with weights and bonuses
	Seconds      float64       `json:"seconds"`                // length of the sound
	Alternatives []Alternative `json:"alternatives,omitempty"` // the next best texts, where they are asked for
}

// Word is a word with its place in the sound. CTC says the place of a unit to a
// few steps only; the confidence is the geometric mean of the probabilities of
// the word's units there.
type Word struct {
	Text       string  `json:"text"`       // the word
	Start      float64 `json:"start"`      // seconds
	End        float64 `json:"end"`        // seconds
	Confidence float64 `json:"confidence"` // between 0 and 1
}

// Alternative is a text that is not the best.
type Alternative struct {
	Text  string  `json:"text"`  // what may have been said
	Score float64 `json:"score"` // logarithm of its probability, with weights and bonuses
}

// Transcribe reads a file of sound, or of features such as the model was
// trained on, and says what it hears; d is nil for greedy decoding. A cancelled ctx
// ends it with its error.
func (m *Model) Transcribe(ctx context.Context, path string, d *Decoding) (*Transcript, error) {
	d, err := m.choose(d)
	if err != nil {
		return nil, err
	}
	if !isFeatures(path) && m.hears() == nil {
		s, err := audio.Read(path)
		if err != nil {
			return nil, err
		}
		return m.TranscribeSound(ctx, s, d)
	}
	frames, err := m.frames(path)
	if err != nil {
		return nil, err
	}
	return m.transcribeFrames(ctx, frames, d, float64(len(frames)/m.width)*m.cfg.Hop/1000)
}

// TranscribeSound is Transcribe of sound in memory.
func (m *Model) TranscribeSound(ctx context.Context, s *audio.Sound, d *Decoding) (*Transcript, error) {
	d, err := m.choose(d)
	if err != nil {
		return nil, err
	}
	frames, err := m.framesOf(s)
	if err != nil {
		return nil, err
	}
	return m.transcribeFrames(ctx, frames, d, s.Seconds())
}

// transcribeFrames listens to frames and decodes what it hears.
func (m *Model) transcribeFrames(ctx context.Context, frames []float32, d *Decoding, seconds float64) (*Transcript, error) {
	rows, err := m.listen(ctx, frames)
	if err != nil {
		return nil, err
	}
	return m.decode(ctx, rows, d, seconds)
}

// choose is d or the model's own decoding.
func (m *Model) choose(d *Decoding) (*Decoding, error) {
	if d == nil {
		d = m.Decoding()
	}
	return d, d.check(m.alphabet)
}

// What is read at once, and what a piece shares with its neighbours where the
// network reads in both directions.
const (
	mostSteps = 2000
	overlap   = 250
)

// listen is the log probabilities of the classes at each step. Of a very long
// sound a network that reads in both directions hears pieces that overlap, and
// what it says near a cut is left to the piece that has more around it.
func (m *Model) listen(ctx context.Context, frames []float32) ([][]float64, error) {
	x := m.steps(frames)
	in := m.inputs()
	n, context := len(x)/in, 0
	if m.cfg.Bidirectional {
		context = overlap
	}
	l := m.newListener()
	var rows [][]float64
	for from := 0; from < n; from += mostSteps {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		lo, to := max(from-context, 0), min(from+mostSteps, n)
		heard := l.hear(x[lo*in : min(to+context, n)*in])
		rows = append(rows, heard[from-lo:to-lo]...)
	}
	return rows, nil
}

// listener runs the network over pieces of one utterance. A network that reads
// in both directions needs it in one piece.
type listener struct {
	m     *Model
	tape  *tensor.Tape
	state *nn.SavedState
}

func (m *Model) newListener() *listener {
	l := &listener{m: m, tape: tensor.NewTape(m.slab.Device(), tensor.Infer)}
	if !m.cfg.Bidirectional {
		l.state = m.net.RNN.NewSavedState(1)
	}
	return l
}

func (l *listener) hear(x []float32) [][]float64 {
	in := l.m.inputs()
	l.tape.Reset()
	var state *nn.State
	if l.state != nil {
		state = l.state.On(l.tape)
	}
	logits, state := l.m.net.forward(l.tape.Input(x, 1, len(x)/in, in), state)
	if l.state != nil {
		l.state.Save(state)
	}
	return logRows(logits.Data(), l.m.alphabet.classes())
}

// logRows makes log probabilities of logits.
func logRows(logits []float32, classes int) [][]float64 {
	rows := make([][]float64, 0, len(logits)/classes)
	for ; len(logits) > 0; logits = logits[classes:] {
		row := make([]float64, classes)
		top := never
		for _, v := range logits[:classes] {
			top = max(top, float64(v))
		}
		var sum float64
		for i, v := range logits[:classes] {
			row[i] = float64(v) - top
			sum += math.Exp(row[i])
		}
		for i := range row {
			row[i] -= math.Log(sum)
		}
		rows = append(rows, row)
	}
	return rows
}

// decode finds the text of an utterance of so many seconds.
func (m *Model) decode(ctx context.Context, rows [][]float64, d *Decoding, seconds float64) (*Transcript, error) {
	s := newSearch(m.alphabet, d)
	if err := pushAll(ctx, s, rows); err != nil {
		return nil, err
	}
	return m.transcript(s.best(2*d.NBest, true), d, seconds), nil
}

// transcript makes words of the best hypothesis, and alternatives of others
// whose text is another.
func (m *Model) transcript(found []hypothesis, d *Decoding, seconds float64) *Transcript {
	best := found[0]
	t := &Transcript{Words: m.words(&best, seconds), Score: best.score, Seconds: seconds}
	t.Text = m.alphabet.decode(best.classes)
	seen := map[string]bool{t.Text: true}
	for _, h := range found[1:] {
		text := m.alphabet.decode(h.classes)
		if len(seen) < d.NBest && !seen[text] {
			seen[text] = true
			t.Alternatives = append(t.Alternatives, Alternative{text, h.score})
		}
	}
	return t
}

// words cuts a hypothesis at its spaces.
func (m *Model) words(h *hypothesis, seconds float64) []Word {
	words := []Word{}
	step := m.cfg.stepSeconds()
	var text strings.Builder
	var peaks float64
	first, units := 0, 0
	end := func(i int) {
		if units == 0 {
			return
		}
		words = append(words, Word{Text: text.String(), Start: float64(h.steps[first]) * step,
			End: min(float64(h.steps[i-1]+1)*step, max(seconds, step)), Confidence: math.Exp(peaks / float64(units))})
		text.Reset()
		peaks, units = 0, 0
	}
	for i, c := range h.classes {
		unit := m.alphabet.unit(c)
		rest, begins := strings.CutPrefix(unit, space)
		if begins || m.alphabet.Kind == "space" {
			end(i)
		}
		if rest == "" {
			continue
		}
		if units == 0 {
			first = i
		}
		text.WriteString(rest)
		peaks += h.peaks[i]
		units++
	}
	end(len(h.classes))
	return words
}

// Transcripts are what was heard in several files.
type Transcripts []FileTranscript

// FileTranscript is what was heard in one.
type FileTranscript struct {
	File string `json:"file"` // as it was named
	*Transcript
}

// WriteCSV writes file, text, seconds and the logarithm of the probability.
func (t Transcripts) WriteCSV(w io.Writer) error {
	c := csv.NewWriter(w)
	c.Write([]string{"audio", "text", "seconds", "score"})
	for _, f := range t {
		c.Write([]string{f.File, f.Text, strconv.FormatFloat(f.Seconds, 'f', 3, 64), strconv.FormatFloat(f.Score, 'f', 4, 64)})
	}
	c.Flush()
	return c.Error()
}

// TranscribeFiles transcribes files one after the other. It goes on past those
// that cannot be used: the error names them, and the transcripts of the others
// are returned beside it.
func (m *Model) TranscribeFiles(ctx context.Context, paths []string, d *Decoding) (Transcripts, error) {
	list := Transcripts{}
	var failed []error
	for _, path := range paths {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		t, err := m.Transcribe(ctx, path, d)
		var input *data.InputError
		if errors.As(err, &input) && input.File != "" {
			failed = append(failed, err)
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, FileTranscript{path, t})
	}
	if len(failed) > 1 {
		var texts []string
		for _, err := range failed {
			texts = append(texts, err.Error())
		}
		return list, data.Errorf("%d files cannot be used: %s", len(failed), some(texts))
	}
	return list, errors.Join(failed...)
}

// PredictFile transcribes the sounds that a manifest lists, or one file of sound
// or features; d is as for [Model.Transcribe].
func (m *Model) PredictFile(ctx context.Context, path string, d *Decoding) (Transcripts, error) {
	if !isManifest(path) {
		return m.TranscribeFiles(ctx, []string{path}, d)
	}
	cfg := m.cfg
	cfg.Text, cfg.Speaker, cfg.SplitColumn = "", "", ""
	list, err := ReadManifest(path, &cfg)
	if err != nil {
		return nil, err
	}
	paths := make([]string, len(list))
	for i, u := range list {
		paths[i] = u.Audio
	}
	return m.TranscribeFiles(ctx, paths, d)
}
