package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/speech"
)

// transcribeTask is the recognition of speech as the commands see it.
var transcribeTask = taskVerbs{
	name:     speech.Task,
	train:    (*app).trainTranscribeCommand,
	evaluate: (*app).evaluateTranscribe,
	predict:  (*app).predictTranscribe,
	inspect: func(in *inspection, dir *model.Dir) error {
		m, err := speech.OpenDir(dir)
		if err != nil {
			return err
		}
		cfg := m.Config()
		in.Config, in.Notes = &cfg, m.Notes()
		return nil
	},
}

// transcribeFiles are the files of a training of a recogniser.
type transcribeFiles struct {
	Data  string `json:"data" value:"file" group:"Files" help:"manifest to learn from: a table (CSV or TSV) with an utterance a row; may be gzipped"`
	Test  string `json:"test" value:"file" group:"Files" help:"manifest to score the finished model on (none: the rows whose part is test, or else the validation part)"`
	Cache string `json:"cache" value:"dir" group:"Files" help:"directory that keeps computed features for later runs"`
}

type transcribeRun struct {
	trainRun
	files transcribeFiles
	cfg   speech.Config
}

func (a *app) trainTranscribeCommand() *cobra.Command {
	run := &transcribeRun{cfg: speech.Defaults()}
	return a.trainTaskCommand(&trainTask{
		use:   "transcribe --data MANIFEST --out DIR",
		short: "Train a recogniser of speech",
		long: `Trains a recogniser of speech, an LSTM with connectionist temporal
classification, on the utterances of a manifest: a table with a column of sound
files (WAV or FLAC) and one of what is said in them. Files of features (.npy,
Sphinx .mfc) may stand in place of sound. All files are read before training
starts, and those that are missing or damaged are named together.

With --bidirectional=false the model can hear a stream while it arrives.`,
		example: `  carousel train transcribe --data manifest.csv --out run
  carousel train transcribe --data manifest.csv --speaker who --bidirectional=false --out run
  carousel train transcribe --data manifest.csv --lm words.arpa.gz --lexicon words.txt --out run`,
		settings: []any{&run.files, &run.cfg},
		run:      &run.trainRun,
		seed:     &run.cfg.Seed,
		check: func() error {
			if run.files.Data == "" {
				return misusef("train transcribe needs --data, the manifest of the utterances")
			}
			return run.cfg.Validate()
		},
		train: func(ctx context.Context) (*trainResult, error) { return a.trainTranscribe(ctx, run) },
	})
}

func (a *app) trainTranscribe(ctx context.Context, run *transcribeRun) (*trainResult, error) {
	list, err := speech.ReadManifest(run.files.Data, &run.cfg)
	if err != nil {
		return nil, err
	}
	var test []speech.Utterance
	if run.files.Test != "" {
		cfg := run.cfg
		cfg.SplitColumn, cfg.Speaker = "", "" // which only training asks for
		if test, err = speech.ReadManifest(run.files.Test, &cfg); err != nil {
			return nil, err
		}
	} else {
		test = onlyPart(list, "test")
	}
	o := &speech.TrainOptions{Run: *a.where(&run.trainRun), Cache: run.files.Cache}
	if run.files.Test != "" {
		o.Test = test
	}
	m, result, err := speech.Train(ctx, list, run.cfg, o)
	if err != nil {
		return nil, err
	}
	if result.Interrupted {
		return nil, a.stopped(&run.trainRun, result)
	}
	out := newTrainResult(speech.Task, &run.trainRun, m.Slab(), result)
	out.Notes = m.Notes()
	if len(test) == 0 {
		cfg := m.Config()
		if _, test, err = cfg.Divide(list); err != nil {
			return nil, err
		}
		if len(test) > 0 {
			out.Notes = append(out.Notes, scoredOnValidation)
		}
	}
	var e *speech.Evaluation
	if len(test) > 0 {
		if e, err = m.Evaluate(ctx, test, nil); err != nil {
			return nil, err
		}
		out.Evaluation, out.show = e, func(w io.Writer) { printRecognition(w, e) }
	}
	page, err := transcribePage(ctx, run, m, result, out, e, list)
	if err != nil {
		return nil, err
	}
	return out, page.WriteFile(out.Report)
}

// onlyPart is the utterances of one part.
func onlyPart(list []speech.Utterance, part string) []speech.Utterance {
	return slices.Collect(func(yield func(speech.Utterance) bool) {
		for _, u := range list {
			if u.Part == part && !yield(u) {
				return
			}
		}
	})
}

// partFlag is the flag of the rows of a manifest that are scored.
func partFlag(flags *pflag.FlagSet) *string {
	return flags.String("split-part", "", "`part` of the rows: train, validation, test or all")
}

// choosePart leaves out of the settings for reading a manifest what scoring a
// part of it does not ask for.
func choosePart(s *speech.Setup, part string) error {
	s.Speaker = ""
	switch {
	case part == "" || part == "all":
		s.SplitColumn = ""
	case s.SplitColumn == "":
		return misusef("--split-part: the model was trained on a manifest without a column of parts; leave it out")
	}
	return nil
}

// keepPart is the utterances of the part, all of them where none is named.
func keepPart(path string, s *speech.Setup, list []speech.Utterance, part string) ([]speech.Utterance, error) {
	if s.SplitColumn == "" {
		return list, nil
	}
	if list = onlyPart(list, part); len(list) == 0 {
		return nil, &data.InputError{File: path, Column: s.SplitColumn, Problem: "names no row " + part}
	}
	return list, nil
}

// decodingFiles are the flags of decoding that are not [speech.Decoding]'s own.
type decodingFiles struct {
	Greedy  bool   `json:"greedy" group:"Decoding" help:"take the likeliest token of each step, whatever the model has to help"`
	LM      string `json:"lm" value:"file" group:"Decoding" help:"language model in ARPA format (empty: the model's)"`
	Lexicon string `json:"lexicon" value:"file" group:"Decoding" help:"file of the only words allowed (empty: the model's)"`
}

// decodingFlags makes the flags of what the commands that transcribe may change
// of a model's decoding, and gives what makes the decoding: the model's own, with
// what flags say.
func decodingFlags(flags *pflag.FlagSet, without ...string) func(m *speech.Model) (*speech.Decoding, error) {
	var f decodingFiles
	var d speech.Decoding
	flagged := optionFlags(flags, without, &f, &d)
	return func(m *speech.Model) (*speech.Decoding, error) {
		d = *m.Decoding()
		if flagged.Given("lm") {
			d.LMTokens, d.LMWeight, d.WordBonus = false, speech.DefaultLMWeight, speech.DefaultWordBonus
		}
		if flagged.Given("hot_words") {
			d.HotWeight = speech.DefaultHotWeight
		}
		if err := flagged.resolve(); err != nil {
			return nil, err
		}
		if f.Greedy {
			for _, one := range slices.Concat(settings.List(&f), settings.List(&d)) {
				if one.Name != "greedy" && flagged.Given(one.Name) {
					return nil, misusef("--greedy and --%s exclude each other", one.Flag())
				}
			}
			return &speech.Decoding{}, nil
		}
		var err error
		if f.LM != "" {
			if d.LM, err = speech.ReadLM(f.LM); err != nil {
				return nil, err
			}
		}
		if f.Lexicon != "" {
			if d.Lexicon, err = speech.ReadLexicon(f.Lexicon); err != nil {
				return nil, err
			}
		}
		switch {
		case flagged.Given("hot_weight") && len(d.HotWords) == 0:
			return nil, misusef("--hot-weight: needs --hot-words")
		case d.LM == nil && flagged.Given("lm_weight", "lm_tokens"):
			return nil, misusef("--lm-weight and --lm-tokens need a language model; name its file with --lm")
		case flagged.Given("word_bonus") && d.LM == nil && d.Lexicon == nil && d.Beam == 0 && len(d.HotWords) == 0 && d.NBest == 0:
			return nil, misusef("--word-bonus: counts in a search; give --beam, --lm or --lexicon")
		}
		return &d, nil
	}
}

func (a *app) evaluateTranscribe(flags *pflag.FlagSet) verbRun {
	path := dataFlag(flags)
	part := partFlag(flags)
	decoding := decodingFlags(flags, "n_best")
	return func(ctx context.Context, dir *model.Dir) error {
		m, err := speech.OpenDir(dir)
		if err != nil {
			return err
		}
		if *path == "" {
			return misusef("--data is needed: a manifest like that the model was trained on")
		}
		cfg := m.Config()
		if err := choosePart(&cfg.Setup, *part); err != nil {
			return err
		}
		list, err := speech.ReadManifest(*path, &cfg)
		if err == nil {
			list, err = keepPart(*path, &cfg.Setup, list, *part)
		}
		if err != nil {
			return err
		}
		d, err := decoding(m)
		if err != nil {
			return err
		}
		e, err := m.Evaluate(ctx, list, d)
		if err != nil {
			return err
		}
		return a.emit("evaluate.transcribe", e, func(w io.Writer) { printRecognition(w, e) })
	}
}

func printRecognition(w io.Writer, e *speech.Evaluation) {
	fmt.Fprintf(w, "\nScores on %s, %.1f minutes of sound\n\n", plural(e.Utterances, "utterance"), e.Seconds/60)
	row := func(name string, r speech.Errors) []string {
		return []string{name, percent(r.Rate()), count(r.Reference), count(r.Substitutions), count(r.Deletions), count(r.Insertions)}
	}
	printTable(w, []string{"", "error rate", "said", "substituted", "missed", "made up"}, [][]string{row("words", e.Words), row("characters", e.Units)})
	if e.Greedy != nil {
		fmt.Fprintf(w, "\nDecoded greedily: %s of words, %s of characters.\n", percent(e.Greedy.WER), percent(e.Greedy.CER))
	}
	fmt.Fprintf(w, "\n%s of %s have no error. Heard in %.2g of the time they last.\n", count(e.Exact), plural(e.Utterances, "utterance"), e.Taken/math.Max(e.Seconds, 1e-9))
	for _, n := range e.Notes {
		fmt.Fprintf(w, "Note: %s\n", n)
	}
}

func (a *app) predictTranscribe(flags *pflag.FlagSet) verbRun {
	path, out := dataFlag(flags), outFlag(flags)
	decoding := decodingFlags(flags, "n_best")
	return func(ctx context.Context, dir *model.Dir) error {
		m, err := speech.OpenDir(dir)
		if err != nil {
			return err
		}
		if *path == "" {
			return misusef("--data is needed: a manifest, or a sound file")
		}
		if *path == "-" {
			return misusef("--data -: sound from standard input is for carousel transcribe %s -", shellQuote(dir.Path))
		}
		d, err := decoding(m)
		if err != nil {
			return err
		}
		list, failed := m.PredictFile(ctx, *path, d)
		if len(list) == 0 {
			return failed
		}
		result := transcribed{list, lacking(failed)}
		err = a.emitPrediction("predict.transcribe", *out, list.WriteCSV, &result, func(w io.Writer) { printTranscripts(w, list, false) })
		return cmp.Or(err, failed)
	}
}

// transcribed is what transcribe prints of files.
type transcribed struct {
	Files speech.Transcripts `json:"files"`           // those that could be used
	Error *problem           `json:"error,omitempty"` // why others could not
}

// lacking is the error beside a result that is not the whole, or nil.
func lacking(err error) *problem {
	if err == nil {
		return nil
	}
	return problemOf(err)
}

func printTranscripts(w io.Writer, list speech.Transcripts, words bool) {
	for _, t := range list {
		if len(list) > 1 {
			fmt.Fprintf(w, "%s: ", t.File)
		}
		printTranscript(w, t.Transcript, words)
	}
}

func printTranscript(w io.Writer, t *speech.Transcript, words bool) {
	fmt.Fprintln(w, t.Text)
	for _, alternative := range t.Alternatives {
		fmt.Fprintf(w, "    %.2f below: %s\n", t.Score-alternative.Score, alternative.Text)
	}
	if words {
		printWords(w, t.Words)
	}
}

func (a *app) transcribeCommand() *cobra.Command {
	var raw int
	var words bool
	c := &cobra.Command{
		Use:   "transcribe DIR FILE...|-",
		Short: "Say what is said in sound files or in a stream",
		Long: `Transcribes sound files (WAV or FLAC), or - for sound from standard input. A
model that reads forward only hears a stream while it arrives and shows what it
understands so far; its final text is that of the whole sound. Ctrl-C ends the
stream, and the text is that of the sound until then.

Files that cannot be used are named in the end, after the texts of the others.

--json gives words with their times and confidence too.`,
		Example: `  carousel transcribe run call.wav
  carousel transcribe run *.flac --n-best 3 --json
  arecord -f S16_LE -r 16000 -t wav | carousel transcribe run -
  ffmpeg -i talk.mp4 -f s16le -ac 1 -ar 16000 - | carousel transcribe run - --raw 16000`,
		GroupID: groupWork,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) < 2 {
				return misusef("transcribe needs a model directory and sound files, or - for standard input; see %s --help", c.CommandPath())
			}
			return nil
		},
	}
	decoding := decodingFlags(c.Flags())
	c.Flags().BoolVar(&words, "words", false, "show each word with its time and confidence")
	c.Flags().IntVar(&raw, "raw", 0, "standard input has no header: 16 bit little-endian samples of one channel at this `rate`")
	c.RunE = func(c *cobra.Command, args []string) error {
		m, err := speech.Open(args[0])
		if err != nil {
			return err
		}
		d, err := decoding(m)
		if err != nil {
			return err
		}
		files := args[1:]
		switch {
		case slices.Contains(files, "-") && len(files) > 1:
			return misusef("transcribe: - stands for standard input, and alone")
		case files[0] == "-":
			return a.transcribeStream(c.Context(), m, d, raw, words)
		case raw != 0:
			return misusef("--raw: is for sound from standard input, -")
		}
		list, failed := m.TranscribeFiles(c.Context(), files, d)
		if len(list) == 0 {
			return failed
		}
		result := transcribed{list, lacking(failed)}
		err = a.emit("transcribe", &result, func(w io.Writer) { printTranscripts(w, list, words) })
		return cmp.Or(err, failed)
	}
	return c
}

func printWords(w io.Writer, words []speech.Word) {
	var rows [][]string
	for _, word := range words {
		rows = append(rows, []string{word.Text, fmt.Sprintf("%.2f", word.Start), fmt.Sprintf("%.2f", word.End), percent(word.Confidence)})
	}
	printTable(w, []string{"word", "from", "to", "confidence"}, rows)
}

// streamed is what was heard on standard input.
type streamed struct {
	*speech.Transcript
	Lag      float64  `json:"lag"`             // seconds of sound that the network must hear beyond a moment
	Slowest  float64  `json:"slowest"`         // seconds that the slowest piece took
	RealTime float64  `json:"realtime"`        // seconds of computing for each second of sound
	Error    *problem `json:"error,omitempty"` // why the sound broke off
}

// pieceSeconds is how much of a stream is heard at a time.
const pieceSeconds = 0.1

// transcribeStream hears standard input while it arrives, if the model can.
// Where the sound breaks off in the middle it says what was heard until then.
func (a *app) transcribeStream(ctx context.Context, m *speech.Model, d *speech.Decoding, raw int, words bool) error {
	in, err := openStream(a.stdin, raw)
	if err != nil {
		return err
	}
	ctx, stop := a.catchInterrupt(ctx)
	defer stop()
	sound := &arrival{in: in, ctx: ctx}
	var out streamed
	if m.Streams() {
		out, err = a.hear(m, d, sound)
	} else {
		a.note("The model needs the whole sound (it reads in both directions, or normalises over utterances), so it waits for the end.")
		out, err = hearWhole(m, d, sound)
	}
	switch {
	case err != nil:
		return err
	case out.Seconds == 0 && sound.err == context.Canceled:
		return &interrupted{"interrupted before there was any sound"}
	case out.Seconds == 0 && sound.err != nil:
		return sound.err
	case out.Seconds == 0:
		return &data.InputError{File: "standard input", Problem: "holds no sound: its length is zero"}
	}
	if sound.err != context.Canceled {
		out.Error = lacking(sound.err)
	}
	err = a.emit("transcribe.stream", &out, func(w io.Writer) {
		printTranscript(w, out.Transcript, words)
		a.note("Heard %.1f s in %.2g of the time it lasts; a word is known %.2f s after it is said, the slowest piece took %.3f s.",
			out.Seconds, out.RealTime, out.Lag+pieceSeconds, out.Slowest)
	})
	if sound.err == context.Canceled {
		return err
	}
	return cmp.Or(err, sound.err)
}

func openStream(r io.Reader, raw int) (*audio.Reader, error) {
	if raw != 0 {
		return audio.NewRawReader(r, "standard input", raw)
	}
	return audio.NewReader(r, "standard input")
}

// arrival is sound that arrives piece by piece, until it ends or Ctrl-C ends it.
type arrival struct {
	in  *audio.Reader
	ctx context.Context
	err error // why it ended, other than that it was over
}

// pieces gives the sound. It does not wait for a read that Ctrl-C came before.
func (s *arrival) pieces(yield func([]float32) bool) {
	type piece struct {
		samples []float32
		err     error
	}
	arrived := make(chan piece)
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			p := piece{samples: make([]float32, max(1, int(pieceSeconds*float64(s.in.Rate))))}
			var n int
			n, p.err = s.in.Read(p.samples)
			p.samples = p.samples[:n]
			select {
			case arrived <- p:
			case <-done:
				return
			}
			if p.err != nil {
				return
			}
		}
	}()
	for {
		select {
		case <-s.ctx.Done():
			s.err = s.ctx.Err()
			return
		case p := <-arrived:
			if p.err != nil && p.err != io.EOF {
				s.err = p.err
			}
			if !yield(p.samples) || p.err != nil {
				return
			}
		}
	}
}

func hearWhole(m *speech.Model, d *speech.Decoding, sound *arrival) (out streamed, err error) {
	s := &audio.Sound{Rate: sound.in.Rate}
	for piece := range sound.pieces {
		s.Samples = append(s.Samples, piece...)
	}
	out.Transcript = &speech.Transcript{}
	if len(s.Samples) == 0 {
		return out, nil
	}
	begun := time.Now()
	// What ended the sound does not end its transcription.
	if out.Transcript, err = m.TranscribeSound(context.WithoutCancel(sound.ctx), s, d); err != nil {
		return out, err
	}
	out.Lag, out.Slowest = s.Seconds(), time.Since(begun).Seconds()
	out.RealTime = out.Slowest / s.Seconds()
	return out, nil
}

// hear shows what is understood so far on stderr, where a person watches.
func (a *app) hear(m *speech.Model, d *speech.Decoding, sound *arrival) (out streamed, err error) {
	s, err := m.NewStream(sound.in.Rate, d)
	if err != nil {
		return out, err
	}
	show := a.partial()
	var taken time.Duration
	timed := func(f func()) {
		begun := time.Now()
		f()
		once := time.Since(begun)
		taken += once
		out.Slowest = math.Max(out.Slowest, once.Seconds())
	}
	for piece := range sound.pieces {
		timed(func() {
			s.Write(piece)
			show(s.Partial().Text)
		})
	}
	timed(func() { out.Transcript = s.Finish() })
	show("")
	out.Lag, out.RealTime = s.Lag(), taken.Seconds()/math.Max(out.Seconds, 1e-9)
	return out, nil
}

// partial is what shows text that may still change: one line that is written
// over on a terminal, a line for each change elsewhere, nothing when quiet. ""
// takes the line away.
func (a *app) partial() func(string) {
	if a.quiet {
		return func(string) {}
	}
	terminal := isTerminal(a.stderr)
	last := ""
	return func(text string) {
		if text == last {
			return
		}
		last = text
		switch {
		case terminal:
			fmt.Fprintf(a.stderr, "\r\x1b[K%s", tail(text, width(a.stderr)-1))
		case text != "":
			fmt.Fprintf(a.stderr, "... %s\n", text)
		}
	}
}

// tail is the end of a text that fits into n columns.
func tail(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return "…" + strings.TrimSpace(string(r[len(r)-n+1:]))
	}
	return s
}
