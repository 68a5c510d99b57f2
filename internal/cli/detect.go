package cli

import (
	"cmp"
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"iter"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/audio/detect"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
)

func (a *app) detectSpeechCommand() *cobra.Command {
	var d detection
	var samples bool
	var file string
	o := detect.DefaultSpeech()
	c := &cobra.Command{
		Use:   "detect-speech FILE|- --model FILE",
		Short: "Find speech in a sound file or a stream",
		Long: `Finds the parts of a sound that hold speech with a Silero VAD model, an ONNX file of
version 4 to 6 (silero_vad.onnx of the Python package silero-vad). The sound is a file
(WAV or FLAC), or - for sound from standard input, of any rate.

The segments are those of silero-vad's get_speech_timestamps, whose options are flags
here. They are written as CSV as soon as later sound cannot change them, so a stream
gives the segments of the whole sound while it arrives. Ctrl-C ends a stream.`,
		Example: `  carousel detect-speech call.wav --model silero_vad.onnx
  carousel detect-speech call.wav --model silero_vad.onnx --samples --out speech.csv --page speech.html
  arecord -f S16_LE -r 16000 -t wav | carousel detect-speech - --model silero_vad.onnx`,
		GroupID: groupWork,
		Args:    oneArg("a sound file, or - for standard input"),
	}
	f := c.Flags()
	f.StringVar(&file, "model", "", "Silero VAD model, an ONNX `file`")
	f.BoolVar(&samples, "samples", false, "write positions in samples, in place of seconds")
	d.flags(c)
	given := optionFlags(f, nil, &o)
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := given.resolve(); err != nil {
			return err
		}
		if file == "" {
			return wrongFlag("model", "--model is needed: a Silero VAD model, such as silero_vad.onnx of the Python package silero-vad")
		}
		m, err := detect.OpenSpeech(file)
		if err != nil {
			return err
		}
		h, err := a.hear(c.Context(), args[0], d.raw)
		if err != nil {
			return err
		}
		defer h.close()
		s, err := m.NewStream(h.in.Rate, o)
		if err != nil {
			return err
		}
		a.explainRate(h, m.RateFor(h.in.Rate))
		var found speechFound
		var probability report.Series
		if d.page != "" {
			s.OnWindow = func(at float64, p float32) {
				probability.X, probability.Y = append(probability.X, at), append(probability.Y, float64(p))
			}
			h.drawn = true
		}
		parts := listen(a, h, s, func(list []detect.Segment, first bool) task.Prediction {
			p := &speechFound{Model: file, Rate: h.in.Rate, Segments: list, samples: samples, head: first}
			for _, one := range list {
				found.Speech += one.End - one.Start
			}
			if d.page != "" {
				found.Segments = append(found.Segments, list...)
			}
			found.count += len(list)
			p.Seconds, p.Speech, p.RealTime = h.seconds(), found.Speech, h.realTime()
			return p
		})
		if err := a.emitDetections(h, "detect-speech", &d, parts); err != nil {
			return err
		}
		a.note("Found %s, %.1f s in %.1f s of sound, in %.2g of the time it lasts.", report.Plural(found.count, "segment"), found.Speech, h.seconds(), h.realTime())
		if d.page == "" {
			return nil
		}
		return a.writePage(d.page, found.page(h, probability, &o))
	}
	return c
}

func (a *app) detectWordsCommand() *cobra.Command {
	var d detection
	var melspectrogram, embedding, dir string
	var models []string
	o := detect.DefaultWords()
	c := &cobra.Command{
		Use:   "detect-words FILE|- --models DIR",
		Short: "Find wake words in a sound file or a stream",
		Long: `Finds spoken words such as "alexa" with the models of openWakeWord, three ONNX files
or more: that of the spectrogram, that of the embedding, and one for each word. The
sound is a file (WAV or FLAC), or - for sound from standard input, of any rate.

Each frame of 80 ms whose score is at least --threshold is a detection, which is
written at once, as CSV; --threshold 0 writes the scores of all. --debounce-time makes
one detection of a word that is spoken once. Ctrl-C ends a stream.`,
		Example: `  carousel detect-words kitchen.wav --models openwakeword --debounce-time 1
  carousel detect-words kitchen.wav --melspectrogram melspectrogram.onnx --embedding embedding_model.onnx --model alexa_v0.1.onnx=alexa
  arecord -f S16_LE -r 16000 -t wav | carousel detect-words - --models openwakeword --debounce-time 1`,
		GroupID: groupWork,
		Args:    oneArg("a sound file, or - for standard input"),
	}
	f := c.Flags()
	f.StringVar(&dir, "models", "", "`folder` with melspectrogram.onnx, embedding_model.onnx and the models of the words")
	f.StringVar(&melspectrogram, "melspectrogram", "", "model of the spectrogram, an ONNX `file`")
	f.StringVar(&embedding, "embedding", "", "model of the embedding, an ONNX `file`")
	f.StringArrayVar(&models, "model", nil, "model of a word, an ONNX `file`, or FILE=NAME to name the word; may be repeated")
	d.flags(c)
	given := optionFlags(f, nil, &o)
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := given.resolve(); err != nil {
			return err
		}
		w, err := openWords(dir, melspectrogram, embedding, models)
		if err != nil {
			return err
		}
		h, err := a.hear(c.Context(), args[0], d.raw)
		if err != nil {
			return err
		}
		defer h.close()
		s, err := w.NewStream(h.in.Rate, o)
		if err != nil {
			return err
		}
		a.explainRate(h, detect.WordRate)
		names := w.Names()
		var found wordsFound
		scores := make([]report.Series, len(names))
		if d.page != "" {
			s.OnFrame = func(at float64, list []float32) {
				for i, v := range list {
					scores[i].X, scores[i].Y = append(scores[i].X, at), append(scores[i].Y, float64(v))
				}
			}
			h.drawn = true
		}
		parts := listen(a, h, s, func(list []detect.Detection, first bool) task.Prediction {
			if d.page != "" {
				found.Detections = append(found.Detections, list...)
			}
			found.count += len(list)
			return &wordsFound{Words: names, Rate: h.in.Rate, Detections: list, Seconds: h.seconds(), RealTime: h.realTime(), head: first}
		})
		if err := a.emitDetections(h, "detect-words", &d, parts); err != nil {
			return err
		}
		a.note("Found %s in %.1f s of sound, in %.2g of the time it lasts.", report.Plural(found.count, "detection"), h.seconds(), h.realTime())
		if d.page == "" {
			return nil
		}
		for i := range scores {
			scores[i].Name = names[i]
		}
		return a.writePage(d.page, found.page(h, scores, &o))
	}
	return c
}

// openWords opens the models that the flags name: a folder of them, or each.
func openWords(dir, melspectrogram, embedding string, models []string) (*detect.Words, error) {
	if dir != "" {
		if melspectrogram != "" || embedding != "" || models != nil {
			return nil, wrongFlag("models", "--models is in place of --melspectrogram, --embedding and --model; give one or the other")
		}
		return detect.OpenWordsIn(dir)
	}
	var words []detect.WordModel
	for _, text := range models {
		path, name, _ := strings.Cut(text, "=")
		if path == "" || name == "" && strings.HasSuffix(text, "=") {
			return nil, wrongFlag("model", "--model %q: want an ONNX file, or FILE=NAME", text)
		}
		words = append(words, detect.WordModel{Path: path, Name: name})
	}
	switch {
	case melspectrogram == "" && embedding == "" && words == nil:
		return nil, wrongFlag("models", "--models is needed: a folder with openWakeWord's melspectrogram.onnx, embedding_model.onnx and models of words; or --melspectrogram, --embedding and --model")
	case melspectrogram == "":
		return nil, wrongFlag("melspectrogram", "--melspectrogram is needed: openWakeWord's melspectrogram.onnx")
	case embedding == "":
		return nil, wrongFlag("embedding", "--embedding is needed: openWakeWord's embedding_model.onnx")
	case words == nil:
		return nil, wrongFlag("model", "--model is needed: openWakeWord's model of a word, such as alexa_v0.1.onnx")
	}
	return detect.OpenWords(melspectrogram, embedding, words...)
}

// detection is what the flags of both commands say of the sound and of the result.
type detection struct {
	raw       int
	out, page string
}

func (d *detection) flags(c *cobra.Command) {
	f := c.Flags()
	f.IntVar(&d.raw, "raw", 0, "standard input has no header: 16 bit little-endian samples of one channel at this `rate`")
	f.StringVar(&d.out, "out", "", "write the result to this `file`, as CSV")
	f.StringVar(&d.page, "page", "", "write a page with pictures to this `file`, as HTML")
}

// heard is a sound that is read piece by piece.
type heard struct {
	*arrival
	name    string
	stream  bool // it is standard input, which Ctrl-C ends
	samples int64
	took    time.Duration // computing
	stop    func()

	drawn      bool // keep the envelope
	low, high  []float64
	inEnvelope int // samples of the last window of the envelope
}

// hear opens a sound file, or standard input for -.
func (a *app) hear(ctx context.Context, path string, raw int) (*heard, error) {
	h := &heard{name: path, stream: path == data.Stdin}
	var in *audio.Reader
	var err error
	switch {
	case h.stream:
		h.name = "standard input"
		in, err = openStream(a.stdin, raw)
	case raw != 0:
		err = wrongFlag("raw", "--raw is only for sound from standard input, -")
	default:
		in, err = audio.Open(path)
	}
	if err != nil {
		return nil, err
	}
	ctx, h.stop = a.catchInterrupt(ctx) // so that no half of an object is left
	h.arrival = &arrival{in: in, ctx: ctx}
	return h, nil
}

func (h *heard) close() {
	h.stop()
	h.in.Close()
}

func (h *heard) seconds() float64  { return float64(h.samples) / float64(h.in.Rate) }
func (h *heard) realTime() float64 { return h.took.Seconds() / math.Max(h.seconds(), 1e-9) }

// explainRate says what happens to a sound before a model of another rate takes it.
func (a *app) explainRate(h *heard, rate int) {
	var done []string
	if h.in.Channels > 1 {
		done = append(done, fmt.Sprintf("its %d channels are averaged", h.in.Channels))
	}
	if h.in.Rate != rate {
		done = append(done, fmt.Sprintf("it is resampled from %d to %d Hz", h.in.Rate, rate))
	}
	if done != nil {
		a.remark(fmt.Sprintf("%s: %s.", h.name, strings.Join(done, ", and ")))
	}
}

// envelopeTime is the length in seconds of a window of the envelope.
const envelopeTime = 0.032

// keep adds samples to the count, and to the envelope if it is drawn.
func (h *heard) keep(samples []float32) {
	h.samples += int64(len(samples))
	if !h.drawn {
		return
	}
	window := max(1, int(envelopeTime*float64(h.in.Rate)))
	for _, v := range samples {
		if h.inEnvelope%window == 0 {
			h.low, h.high = append(h.low, float64(v)), append(h.high, float64(v))
		}
		h.inEnvelope++
		last := len(h.low) - 1
		h.low[last], h.high[last] = min(h.low[last], float64(v)), max(h.high[last], float64(v))
	}
}

// finder finds things in a sound that arrives.
type finder[T any] interface {
	Write(samples []float32) ([]T, error)
	Finish() ([]T, error)
}

// listen passes a sound on and gives what is found, as parts of a result. If the sound
// breaks off in the middle, the last part comes with the error.
func listen[T any](a *app, h *heard, f finder[T], part func(found []T, first bool) task.Prediction) iter.Seq2[task.Prediction, error] {
	return func(yield func(task.Prediction, error) bool) {
		if !yield(part(nil, true), nil) {
			return
		}
		show := a.position(h)
		defer show(false)
		timed := func(find func() ([]T, error)) ([]T, error) {
			begun := time.Now()
			found, err := find()
			h.took += time.Since(begun)
			return found, err
		}
		for piece := range h.pieces {
			h.keep(piece)
			found, err := timed(func() ([]T, error) { return f.Write(piece) })
			if err != nil {
				yield(nil, err)
				return
			}
			show(len(found) == 0)
			if len(found) > 0 && !yield(part(found, false), nil) {
				return
			}
		}
		failed := h.err
		if failed == context.Canceled {
			if !h.stream {
				yield(nil, failed)
				return
			}
			failed = nil // a way to end the sound
		}
		if h.samples == 0 {
			yield(nil, cmp.Or(failed, error(&data.InputError{File: h.name, Problem: "holds no sound: its length is zero"})))
			return
		}
		found, err := timed(f.Finish)
		if err != nil {
			yield(nil, err)
			return
		}
		yield(part(found, false), failed)
	}
}

// position shows how far a file has been read, on a terminal and not too often. The
// function returned removes the line if show is false.
func (a *app) position(h *heard) func(show bool) {
	if !isTerminal(a.stderr) || h.stream {
		return func(bool) {}
	}
	line := a.partial()
	last := time.Now()
	return func(show bool) {
		switch {
		case !show:
			line("")
		case time.Since(last) > time.Second/4:
			last = time.Now()
			text := fmt.Sprintf("%s of sound", time.Duration(h.seconds()*float64(time.Second)).Round(time.Second))
			if h.in.Length > 0 {
				text = fmt.Sprintf("%.0f %%, %s", 100*float64(h.samples)/float64(h.in.Length), text)
			}
			line(text)
		}
	}
}

// emitDetections writes the parts of a result to --out or to stdout.
func (a *app) emitDetections(h *heard, schema string, d *detection, parts iter.Seq2[task.Prediction, error]) error {
	return a.emitParts(h.ctx, schema, d.out, parts, func(p task.Prediction) error {
		if d.out != "" {
			return nil
		}
		return p.Write(a.stdout)
	})
}

func (a *app) writePage(path string, p *report.Page) error {
	if err := p.WriteFile(path); err != nil {
		return err
	}
	a.note("The page is %s.", path)
	return nil
}

// speechFound is the result of detect-speech, or a part of it.
type speechFound struct {
	Model    string           `json:"model"`    // the file of the model
	Rate     int              `json:"rate"`     // samples per second of the sound
	Segments []detect.Segment `json:"segments"` // by time
	Seconds  float64          `json:"seconds"`  // duration of the sound
	Speech   float64          `json:"speech"`   // seconds of it in segments
	RealTime float64          `json:"realtime"` // seconds of computing for each second of sound

	samples bool // CSV has positions in samples
	head    bool // CSV begins with the names of the columns
	count   int
}

// Write writes the segments as CSV: start and end, in seconds or samples.
func (p *speechFound) Write(w io.Writer) error {
	c := csv.NewWriter(w)
	if p.head {
		c.Write([]string{"start", "end"})
	}
	for _, s := range p.Segments {
		if p.samples {
			c.Write([]string{strconv.FormatInt(s.StartSample, 10), strconv.FormatInt(s.EndSample, 10)})
		} else {
			c.Write([]string{milliseconds(s.Start), milliseconds(s.End)})
		}
	}
	c.Flush()
	return c.Error()
}

func (p *speechFound) Print(w io.Writer) { p.Write(w) }

// milliseconds writes seconds with three decimals.
func milliseconds(s float64) string { return strconv.FormatFloat(s, 'f', 3, 64) }

// wordsFound is the result of detect-words, or a part of it.
type wordsFound struct {
	Words      []string           `json:"words"`      // what the models find
	Rate       int                `json:"rate"`       // samples per second of the sound
	Detections []detect.Detection `json:"detections"` // by time
	Seconds    float64            `json:"seconds"`    // duration of the sound
	RealTime   float64            `json:"realtime"`   // seconds of computing for each second of sound

	head  bool // CSV begins with the names of the columns
	count int
}

// Write writes the detections as CSV: time in seconds, word, score.
func (p *wordsFound) Write(w io.Writer) error {
	c := csv.NewWriter(w)
	if p.head {
		c.Write([]string{"time", "word", "score"})
	}
	for _, d := range p.Detections {
		c.Write([]string{milliseconds(d.Time), d.Word, strconv.FormatFloat(d.Score, 'f', 4, 64)})
	}
	c.Flush()
	return c.Error()
}

func (p *wordsFound) Print(w io.Writer) { p.Write(w) }

// soundPage begins a page on a sound: its figures, and its envelope with the parts
// that are marked behind it.
func soundPage(title string, h *heard, facts report.Facts, marked []report.Band, marks []report.Mark, scores *report.Lines, threshold float64) *report.Page {
	p := &report.Page{Title: title, Subtitle: h.name, Version: carousel.Version()}
	p.Add("Result", append(report.Facts{
		{Name: "Duration", Value: report.Number(h.seconds()) + " s"},
		{Name: "Sample rate", Value: report.Count(h.in.Rate) + " Hz"},
	}, facts...))
	x := make([]float64, len(h.low))
	for i := range x {
		x[i] = float64(i) * envelopeTime
	}
	axis := report.Axis{Label: "Seconds", Max: h.seconds()}
	p.Add("Sound", &report.Figure{Title: "Waveform", Plot: &report.Lines{
		X: axis, Y: report.Axis{Label: "Amplitude", Min: -1, Max: 1}, Marks: marks,
		Bands: append(marked, report.Band{Name: "lowest and highest sample", X: x, Lower: h.low, Upper: h.high, Color: report.Ink}),
	}})
	scores.X = axis
	scores.Y.Max = 1
	scores.Series = append(scores.Series, report.Series{Name: "threshold", X: []float64{0, h.seconds()}, Y: []float64{threshold, threshold}, Color: report.Muted, Dashed: true})
	p.Add("Scores", &report.Figure{Title: scores.Y.Label + " over time", Plot: scores})
	return p
}

// Rows of a page's table, and marks of its figures, at most.
const (
	mostRows  = 500
	mostMarks = 50
)

func (p *speechFound) page(h *heard, probability report.Series, o *detect.SpeechOptions) *report.Page {
	speech := report.Band{Name: "speech", Color: report.Orange}
	table := report.NewTable("start", "end", "seconds")
	for i, s := range p.Segments {
		speech.X = append(speech.X, s.Start, s.End, s.End)
		speech.Lower = append(speech.Lower, -1, -1, math.NaN())
		speech.Upper = append(speech.Upper, 1, 1, math.NaN())
		if i < mostRows {
			table.Add(milliseconds(s.Start), milliseconds(s.End), milliseconds(s.End-s.Start))
		}
	}
	probability.Name, probability.Color = "probability", report.Blue
	page := soundPage("Speech", h, report.Facts{
		{Name: "Segments", Value: report.Count(len(p.Segments))},
		{Name: "Speech", Value: report.Number(p.Speech) + " s", Note: report.Percent(p.Speech / h.seconds())},
	}, []report.Band{speech}, nil, &report.Lines{Y: report.Axis{Label: "Probability of speech"}, Series: []report.Series{probability}}, o.Threshold)
	addRows(page, "Segments", table, len(p.Segments))
	page.Add("Settings", report.Pairs(settingPairs(o)))
	return page
}

func (p *wordsFound) page(h *heard, scores []report.Series, o *detect.WordOptions) *report.Page {
	table := report.NewTable("word", "seconds", "score")
	var marks []report.Mark
	for i, d := range p.Detections {
		if i < mostMarks {
			marks = append(marks, report.Mark{X: d.Time, Label: d.Word})
		}
		if i < mostRows {
			table.Add(d.Word, milliseconds(d.Time), report.Number(d.Score))
		}
	}
	page := soundPage("Words", h, report.Facts{{Name: "Detections", Value: report.Count(len(p.Detections))}}, nil, marks,
		&report.Lines{Y: report.Axis{Label: "Score"}, Series: scores}, o.Threshold)
	addRows(page, "Detections", table, len(p.Detections))
	page.Add("Settings", report.Pairs(settingPairs(o)))
	return page
}

// addRows adds a table that may not have all of n rows.
func addRows(p *report.Page, title string, t *report.Table, n int) {
	if n > mostRows {
		t.Caption = fmt.Sprintf("The first %d of %s.", mostRows, report.Count(n))
	}
	if n > 0 {
		p.Add(title, t)
	}
}
