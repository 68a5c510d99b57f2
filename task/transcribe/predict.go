package transcribe

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/speech"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// Transcript is what is said in a sound.
type Transcript struct {
	Text         string        `json:"text"`                   // what was said
	Words        []Word        `json:"words"`                  // with their places
	Score        float64       `json:"score"`                  // logarithm of its probability, with weights and bonuses
	Seconds      float64       `json:"seconds"`                // length of the sound
	Alternatives []Alternative `json:"alternatives,omitempty"` // the next best texts, where they are asked for
}

// Word is a word with its place in the sound. CTC gives the place of a unit to within
// a few steps only; the confidence is the geometric mean of the probabilities of
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

// PredictOptions says how to transcribe; nil is as the model does, the zero value is
// greedy.
type PredictOptions struct {
	EvaluateOptions
	NBest int `json:"n_best" range:"0..1000" value:"n" group:"Decoding" help:"texts of each sound, the likeliest first (0: 1)"`
}

// Validate reports options that do not go together; it is a *data.InputError.
func (o *PredictOptions) Validate() error { return o.validate(o) }

// decodingTo is the decoding that options ask for, its files read.
func (m *Model) decodingTo(o *PredictOptions) (*Decoding, error) {
	if o == nil {
		return m.Decoding(), nil
	}
	if err := settings.Check(o); err != nil {
		return nil, data.Setting(err)
	}
	d, err := m.decodingOf(&o.EvaluateOptions)
	if err != nil {
		return nil, err
	}
	d.nBest = o.NBest
	return d, nil
}

// Transcribe gives the text of a sound. Options that the model cannot follow
// are a *data.InputError.
func (m *Model) Transcribe(ctx context.Context, s *audio.Sound, o *PredictOptions) (*Transcript, error) {
	d, err := m.decodingTo(o)
	if err != nil {
		return nil, err
	}
	return m.transcribe(ctx, s, d)
}

func (m *Model) transcribe(ctx context.Context, s *audio.Sound, d *Decoding) (*Transcript, error) {
	frames, err := m.frontend.Extract(s)
	if err != nil {
		return nil, err
	}
	return m.transcribeFrames(ctx, frames, d, s.Seconds())
}

// transcribeFile reads a file of sound, or of features such as the model was
// trained on.
func (m *Model) transcribeFile(ctx context.Context, path string, d *Decoding) (*Transcript, error) {
	if !speech.IsFeatures(path) && m.frontend.TakesSound() == nil {
		s, err := audio.Read(path)
		if err != nil {
			return nil, err
		}
		return m.transcribe(ctx, s, d)
	}
	frames, err := m.frontend.Frames(path)
	if err != nil {
		return nil, err
	}
	return m.transcribeFrames(ctx, frames, d, m.frontend.Seconds(len(frames)/m.frontend.Width))
}

func (m *Model) transcribeFrames(ctx context.Context, frames []float32, d *Decoding, seconds float64) (*Transcript, error) {
	rows, err := m.posteriors(ctx, frames)
	if err != nil {
		return nil, err
	}
	return m.decode(ctx, rows, d, seconds)
}

// What is read at once, and what a piece shares with its neighbours where the
// network reads in both directions.
const (
	mostSteps = 2000
	overlap   = 250
)

// posteriors is the log probabilities of the classes at each step. Of a very long
// sound a network that reads in both directions reads pieces that overlap, and the
// steps near a cut are taken from the piece that has more around them.
func (m *Model) posteriors(ctx context.Context, frames []float32) ([][]float64, error) {
	x := m.frontend.Steps(frames)
	in := m.frontend.Inputs()
	n, context := len(x)/in, 0
	if m.cfg.Bidirectional {
		context = overlap
	}
	r := m.newReader()
	var rows [][]float64
	for from := 0; from < n; from += mostSteps {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		lo, to := max(from-context, 0), min(from+mostSteps, n)
		read := r.read(x[lo*in : min(to+context, n)*in])
		rows = append(rows, read[from-lo:to-lo]...)
	}
	return rows, nil
}

// reader runs the network over pieces of one utterance. A network that reads
// in both directions needs it in one piece.
type reader struct {
	m     *Model
	tape  *tensor.Tape
	state *nn.SavedState
}

func (m *Model) newReader() *reader {
	r := &reader{m: m, tape: tensor.NewTape(m.slab.Device(), tensor.Infer)}
	if !m.cfg.Bidirectional {
		r.state = m.net.RNN.NewSavedState(1)
	}
	return r
}

func (r *reader) read(x []float32) [][]float64 {
	in := r.m.frontend.Inputs()
	r.tape.Reset()
	var state *nn.State
	if r.state != nil {
		state = r.state.On(r.tape)
	}
	logits, state := r.m.net.Forward(r.tape.Input(x, 1, len(x)/in, in), state)
	if r.state != nil {
		r.state.Save(state)
	}
	return logRows(logits.Data(), r.m.alphabet.classes())
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

// decode finds the text of an utterance, whose length is in seconds.
func (m *Model) decode(ctx context.Context, rows [][]float64, d *Decoding, seconds float64) (*Transcript, error) {
	s := newSearch(m.alphabet, d)
	if err := pushAll(ctx, s, rows); err != nil {
		return nil, err
	}
	return m.transcript(s.best(2*d.nBest, true), d, seconds), nil
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
		if len(seen) < d.nBest && !seen[text] {
			seen[text] = true
			t.Alternatives = append(t.Alternatives, Alternative{text, h.score})
		}
	}
	return t
}

// words cuts a hypothesis at its spaces.
func (m *Model) words(h *hypothesis, seconds float64) []Word {
	words := []Word{}
	step := m.cfg.StepSeconds()
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

// Transcripts are those of several files.
type Transcripts struct {
	Files []FileTranscript `json:"files"` // those that could be used, in order
}

// FileTranscript is the transcript of a file.
type FileTranscript struct {
	File string `json:"file"` // as it was named
	*Transcript
}

// Predict transcribes the sounds that a manifest lists, or one file of sound or
// features; else as [Model.TranscribeFiles].
func (m *Model) Predict(ctx context.Context, in task.Input, o *PredictOptions) (*Transcripts, error) {
	paths, err := m.cfg.Sounds(ctx, in.File)
	if err != nil {
		return nil, err
	}
	return m.TranscribeFiles(ctx, paths, o)
}

// TranscribeFiles transcribes files one after the other. It goes on past those
// that cannot be used: the error, a *data.InputError, names them, and the
// transcripts of the others, if there are any, are returned beside it.
func (m *Model) TranscribeFiles(ctx context.Context, paths []string, o *PredictOptions) (*Transcripts, error) {
	d, err := m.decodingTo(o)
	if err != nil {
		return nil, err
	}
	list := &Transcripts{}
	var failed []string
	var first error
	for _, path := range paths {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		t, err := m.transcribeFile(ctx, path, d)
		var input *data.InputError
		switch {
		case errors.As(err, &input) && input.File != "":
			if failed = append(failed, err.Error()); first == nil {
				first = err
			}
		case err != nil:
			return nil, err
		default:
			list.Files = append(list.Files, FileTranscript{path, t})
		}
	}
	if len(failed) > 1 {
		first = data.Errorf("%d files cannot be used: %s", len(failed), report.Listing(failed))
	}
	if len(list.Files) == 0 {
		return nil, first
	}
	return list, first
}

// Print writes the texts, with the names of several files.
func (t *Transcripts) Print(w io.Writer) { t.print(w, false) }

// PrintWords is Print with each word's time and confidence.
func (t *Transcripts) PrintWords(w io.Writer) { t.print(w, true) }

func (t *Transcripts) print(w io.Writer, words bool) {
	for _, f := range t.Files {
		if len(t.Files) > 1 {
			fmt.Fprintf(w, "%s: ", f.File)
		}
		f.Transcript.Print(w, words)
	}
}

// Print writes the text and its alternatives; with words also each word with its
// time and confidence.
func (t *Transcript) Print(w io.Writer, words bool) {
	fmt.Fprintln(w, t.Text)
	for _, other := range t.Alternatives {
		fmt.Fprintf(w, "    %.2f below: %s\n", t.Score-other.Score, other.Text)
	}
	if !words {
		return
	}
	table := report.NewTable("word", "from", "to", "confidence")
	for _, word := range t.Words {
		table.Add(word.Text, fmt.Sprintf("%.2f", word.Start), fmt.Sprintf("%.2f", word.End), report.Percent(word.Confidence))
	}
	table.Print(w)
}

// Write writes a CSV table with the columns audio, text, seconds and score, the
// logarithm of the text's probability.
func (t *Transcripts) Write(w io.Writer) error {
	c := csv.NewWriter(w)
	_ = c.Write([]string{"audio", "text", "seconds", "score"}) // errors stay until Flush
	for _, f := range t.Files {
		_ = c.Write([]string{f.File, f.Text, strconv.FormatFloat(f.Seconds, 'f', 3, 64), strconv.FormatFloat(f.Score, 'f', 4, 64)})
	}
	c.Flush()
	return c.Error()
}
