package transcribe

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"iter"
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

// Transcript is the text of a sound.
type Transcript struct {
	Text         string        `json:"text"`                   // the text
	Words        []Word        `json:"words"`                  // the words of the text with their times
	Score        float64       `json:"score"`                  // natural logarithm of its probability, with weights and bonuses
	Seconds      float64       `json:"seconds"`                // length of the sound in seconds
	Alternatives []Alternative `json:"alternatives,omitempty"` // the most probable texts, best first, if requested by n_best

	remarks []string
}

// Remarks returns what a user might not expect of the files of the lexicon and the
// language model, a sentence each.
func (t *Transcript) Remarks() []string { return t.remarks }

// Word is a word with its time in the sound. CTC determines times to within a few
// steps only. The confidence is the geometric mean of the probabilities of the
// word's tokens.
type Word struct {
	Text       string  `json:"text"`       // the word
	Start      float64 `json:"start"`      // its beginning in seconds
	End        float64 `json:"end"`        // its end in seconds
	Confidence float64 `json:"confidence"` // between 0 and 1
}

// Alternative is one possible text of a sound.
type Alternative struct {
	Text  string  `json:"text"`  // the text
	Score float64 `json:"score"` // natural logarithm of its probability, with weights and bonuses
}

// PredictOptions describes how to transcribe. nil decodes as the model does by
// default; the zero value is greedy decoding.
type PredictOptions struct {
	EvaluateOptions
	NBest int `json:"n_best" range:"0..1000" value:"n" group:"Decoding" help:"also return the n most probable texts of each sound, at most beam (0: none)"`
}

// Validate returns a *data.InputError if an option is out of its range or needs
// another one, or nil.
func (o *PredictOptions) Validate() error { return o.validate(o) }

// decodingTo returns the decoding for options, and reads its files.
func (m *Model) decodingTo(ctx context.Context, o *PredictOptions) (*Decoding, error) {
	if o == nil {
		return m.Decoding(), nil
	}
	if err := settings.Check(o); err != nil {
		return nil, data.Setting(err)
	}
	d, err := m.decodingOf(ctx, &o.EvaluateOptions)
	if err != nil {
		return nil, err
	}
	if d.nBest = o.NBest; d.Beam > 0 && d.nBest > d.Beam {
		return nil, data.Errorf("n_best: want a number up to the beam, %d, got %d", d.Beam, d.nBest)
	}
	return d, nil
}

// Transcribe returns the text of a sound in memory. Options that the model does
// not support, and a model that was trained on feature files, are a
// *data.InputError; a cancelled ctx returns its error.
func (m *Model) Transcribe(ctx context.Context, s *audio.Sound, o *PredictOptions) (_ *Transcript, err error) {
	defer tensor.Recover(&err)
	task.NeedData(s, "transcribe: Transcribe")
	d, err := m.decodingTo(ctx, o)
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

// mostSteps is the number of steps that the network reads at once, overlap the
// number of further steps on both sides if it is bidirectional.
const (
	mostSteps = 2000
	overlap   = 250
)

// posteriors returns the log-probabilities of the classes [steps][classes]. A
// bidirectional network reads a very long sound in pieces that overlap, and the
// steps near a border are taken from the piece in which they have more context.
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

// reader runs the network over successive pieces of one utterance. A
// bidirectional network needs the utterance in one piece.
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

// logRows returns the log-probabilities for logits [steps][classes].
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

// decode returns the transcript of an utterance of the given length in seconds.
func (m *Model) decode(ctx context.Context, rows [][]float64, d *Decoding, seconds float64) (*Transcript, error) {
	found, err := m.search(ctx, rows, d)
	if err != nil {
		return nil, err
	}
	return m.transcript(found, d, seconds), nil
}

// search returns the best hypotheses for an utterance, at least one.
func (m *Model) search(ctx context.Context, rows [][]float64, d *Decoding) ([]hypothesis, error) {
	s := newSearch(m.alphabet, d)
	if err := pushAll(ctx, s, rows); err != nil {
		return nil, err
	}
	return s.best(2*d.nBest, true), nil
}

// transcript returns the best hypothesis with its words, and the nBest first
// different texts as alternatives.
func (m *Model) transcript(found []hypothesis, d *Decoding, seconds float64) *Transcript {
	best := found[0]
	t := &Transcript{Words: m.words(&best, seconds), Score: best.score, Seconds: seconds, remarks: d.read()}
	t.Text = m.alphabet.decode(best.classes)
	seen := map[string]bool{}
	for _, h := range found {
		text := m.alphabet.decode(h.classes)
		if len(seen) < d.nBest && !seen[text] {
			seen[text] = true
			t.Alternatives = append(t.Alternatives, Alternative{text, h.score})
		}
	}
	return t
}

// words divides a hypothesis at its spaces.
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

// Transcripts are the transcripts of several files.
type Transcripts struct {
	Task  string           `json:"task"`  // the task of the model
	Files []FileTranscript `json:"files"` // those of the files that could be used, in order

	ranked  bool // alternatives were requested
	named   bool // Print writes the names of the files
	further bool // a part that is not the first
	remarks []string
}

// FileTranscript is the transcript of a file.
type FileTranscript struct {
	File string `json:"file"` // its path
	*Transcript
}

// Predict transcribes the sounds that a manifest lists, or one file of sound or
// features, with [Model.TranscribeFiles]. A manifest that cannot be read is a
// *data.InputError; the other errors are those of that method.
func (m *Model) Predict(ctx context.Context, in task.Input, o *PredictOptions) (*Transcripts, error) {
	return joined(m.Parts(ctx, in, o))
}

// Parts transcribes as Predict does, in parts as [task.Trained.Parts] describes, one for
// each file.
func (m *Model) Parts(ctx context.Context, in task.Input, o *PredictOptions) iter.Seq2[*Transcripts, error] {
	return task.Guarded(func(yield func(*Transcripts, error) bool) {
		if in.Sounds != nil {
			m.eachSound(ctx, len(in.Sounds), func(i int) string { return in.Sounds[i].Name }, func(i int, d *Decoding) (*Transcript, error) {
				s, err := in.Sounds[i].Read()
				if err != nil {
					return nil, err
				}
				return m.transcribe(ctx, s, d)
			}, o)(yield)
			return
		}
		var notes []string
		paths, err := m.cfg.Sounds(ctx, in.File, func(s string) { notes = append(notes, s) })
		if err != nil {
			yield(nil, err)
			return
		}
		for t, err := range m.EachFile(ctx, paths, o) {
			if t != nil {
				t.remarks, notes = append(notes, t.remarks...), nil
			}
			if !yield(t, err) {
				return
			}
		}
	})
}

// TranscribeFiles transcribes files one after the other. Files that cannot be
// used are skipped: the error, a *data.InputError, names them, and the
// transcripts of the others, if there are any, are returned with it. Options that
// the model does not support are a *data.InputError; a cancelled ctx returns its
// error.
func (m *Model) TranscribeFiles(ctx context.Context, paths []string, o *PredictOptions) (*Transcripts, error) {
	return joined(m.EachFile(ctx, paths, o))
}

// joined returns parts as a whole.
func joined(parts iter.Seq2[*Transcripts, error]) (whole *Transcripts, failed error) {
	for t, err := range parts {
		switch {
		case t == nil:
			return nil, err
		case whole == nil:
			whole = t
		default:
			whole.Files = append(whole.Files, t.Files...)
		}
		failed = err
	}
	return whole, failed
}

// EachFile transcribes files as TranscribeFiles does, in parts as
// [task.Trained.Parts] describes, one for each file that can be used. The error about
// those that cannot comes with a last part without a file, or without a part if there
// is no other.
func (m *Model) EachFile(ctx context.Context, paths []string, o *PredictOptions) iter.Seq2[*Transcripts, error] {
	return m.eachSound(ctx, len(paths), func(i int) string { return paths[i] }, func(i int, d *Decoding) (*Transcript, error) {
		return m.transcribeFile(ctx, paths[i], d)
	}, o)
}

// eachSound is EachFile for n sounds with their names.
func (m *Model) eachSound(ctx context.Context, n int, name func(i int) string, transcribe func(i int, d *Decoding) (*Transcript, error), o *PredictOptions) iter.Seq2[*Transcripts, error] {
	return task.Guarded(func(yield func(*Transcripts, error) bool) {
		d, err := m.decodingTo(ctx, o)
		if err != nil {
			yield(nil, err)
			return
		}
		part := &Transcripts{Task: Name, ranked: d.nBest > 0, named: n > 1, remarks: d.read()}
		var failed []string
		var first error
		for i := range n {
			var t *Transcript
			err := ctx.Err()
			if err == nil {
				t, err = transcribe(i, d)
			}
			var input *data.InputError
			switch {
			case errors.As(err, &input) && input.File != "":
				if failed = append(failed, err.Error()); first == nil {
					first = err
				}
				continue
			case err != nil:
				yield(nil, err)
				return
			}
			one := *part
			one.Files = []FileTranscript{{name(i), t}}
			if !yield(&one, nil) {
				return
			}
			part.further, part.remarks = true, nil
		}
		if len(failed) > 1 {
			first = data.Errorf("%d files cannot be used: %s", len(failed), report.Listing(failed))
		}
		switch {
		case !part.further:
			yield(nil, first)
		case first != nil:
			yield(part, first)
		}
	})
}

// Remarks returns what a user might not expect of the transcripts, a sentence each.
func (t *Transcripts) Remarks() []string { return t.remarks }

// Print writes the texts and, if there are several files, their names.
func (t *Transcripts) Print(w io.Writer) { t.print(w, false) }

// PrintWords is Print with the time and confidence of each word.
func (t *Transcripts) PrintWords(w io.Writer) { t.print(w, true) }

func (t *Transcripts) print(w io.Writer, words bool) {
	for _, f := range t.Files {
		if t.named {
			fmt.Fprintf(w, "%s: ", f.File)
		}
		f.Transcript.Print(w, words)
	}
}

// Print writes the text, the other alternatives and, if words is set, each word with
// its time and confidence.
func (t *Transcript) Print(w io.Writer, words bool) {
	fmt.Fprintln(w, t.Text)
	for _, other := range t.Alternatives[min(1, len(t.Alternatives)):] {
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
// natural logarithm of the text's probability. With alternatives each has a line,
// and the column rank numbers the texts of a sound from 1. Its errors are those of w.
func (t *Transcripts) Write(w io.Writer) error {
	c := csv.NewWriter(w)
	head := []string{"audio", "text", "seconds", "score"}
	if t.ranked {
		head = append(head, "rank")
	}
	if !t.further {
		_ = c.Write(head) // errors stay until Flush
	}
	for _, f := range t.Files {
		list := f.Alternatives // the best first
		if len(list) == 0 {
			list = []Alternative{{f.Text, f.Score}}
		}
		for i, one := range list {
			row := []string{f.File, one.Text, strconv.FormatFloat(f.Seconds, 'f', 3, 64), strconv.FormatFloat(one.Score, 'f', 4, 64)}
			if t.ranked {
				row = append(row, strconv.Itoa(i+1))
			}
			_ = c.Write(row)
		}
	}
	c.Flush()
	return c.Error()
}
