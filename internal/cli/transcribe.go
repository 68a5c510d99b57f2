package cli

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/speech"
	"github.com/carousel-ml/carousel/speech/audio"
)

// transcribeTask is the recognition of speech as the commands see it.
var transcribeTask = task{
	name:     speech.Task,
	train:    (*app).trainTranscribeCommand,
	evaluate: (*app).evaluateTranscribe,
	predict:  (*app).predictTranscribe,
	inspect: func(in *inspection, dir *model.Dir) error {
		m, err := speech.Open(dir.Path)
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
	Data  string `json:"data" group:"Files" help:"manifest to learn from: a table (CSV or TSV) with an utterance a row; may be gzipped"`
	Test  string `json:"test" group:"Files" help:"manifest to score the finished model on (none: the rows whose part is test)"`
	Cache string `json:"cache" group:"Files" help:"directory that keeps computed features for later runs"`
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
		cfg.Part, cfg.Speaker = "", "" // which only training asks for
		if test, err = speech.ReadManifest(run.files.Test, &cfg); err != nil {
			return nil, err
		}
	} else {
		test = onlyPart(list, "test")
	}
	m, result, err := speech.Train(ctx, list, run.cfg, &speech.TrainOptions{Run: *a.where(&run.trainRun), Cache: run.files.Cache})
	if err != nil {
		return nil, err
	}
	if result.Interrupted {
		return nil, a.stopped(&run.trainRun, result)
	}
	out := newTrainResult(speech.Task, &run.trainRun, m.Slab(), result)
	out.Notes = m.Notes()
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
		s.Part = ""
	case s.Part == "":
		return misusef("--split-part: the model was trained on a manifest without a column of parts; leave it out")
	}
	return nil
}

// keepPart is the utterances of the part, all of them where none is named.
func keepPart(path string, s *speech.Setup, list []speech.Utterance, part string) ([]speech.Utterance, error) {
	if s.Part == "" {
		return list, nil
	}
	if list = onlyPart(list, part); len(list) == 0 {
		return nil, &data.InputError{File: path, Column: s.Part, Problem: "names no row " + part}
	}
	return list, nil
}

// decodingFlags are what the commands that transcribe may change of a model's
// decoding.
type decodingFlags struct {
	flags     *pflag.FlagSet
	lm        string
	lexicon   string
	greedy    bool
	hot       []string
	d         speech.Decoding
	hotWeight float64
}

func newDecodingFlags(flags *pflag.FlagSet) *decodingFlags {
	f := &decodingFlags{flags: flags}
	flags.BoolVar(&f.greedy, "greedy", false, "take the likeliest unit of each step, whatever the model has to help")
	flags.IntVar(&f.d.Beam, "beam", 0, "beginnings of texts that the search keeps (default the model's)")
	flags.StringVar(&f.lm, "lm", "", "language model `file` in ARPA format (default the model's)")
	flags.BoolVar(&f.d.LMUnits, "lm-units", false, "the language model is of units, not of words")
	flags.Float64Var(&f.d.LMWeight, "lm-weight", 0.5, "`weight` of the language model (default the model's)")
	flags.Float64Var(&f.d.WordBonus, "word-bonus", 1, "`bonus` of each word (default the model's)")
	flags.StringVar(&f.lexicon, "lexicon", "", "`file` of the only words allowed (default the model's)")
	flags.StringSliceVar(&f.hot, "hot-words", nil, "`words` to be expected")
	flags.Float64Var(&f.hotWeight, "hot-weight", 4, "`bonus` of each hot word")
	return f
}

// decoding is the model's own, with what flags say.
func (f *decodingFlags) decoding(m *speech.Model) (*speech.Decoding, error) {
	d := m.Decoding()
	var err error
	if f.greedy {
		for _, name := range []string{"beam", "lm", "lexicon", "hot-words"} {
			if f.flags.Changed(name) {
				return nil, misusef("--greedy and --%s exclude each other", name)
			}
		}
		return &speech.Decoding{}, nil
	}
	if f.lm != "" {
		if d.LM, err = speech.ReadLM(f.lm); err != nil {
			return nil, err
		}
		d.LMUnits, d.LMWeight, d.WordBonus = f.d.LMUnits, f.d.LMWeight, f.d.WordBonus
	}
	if f.lexicon != "" {
		if d.Lexicon, err = speech.ReadLexicon(f.lexicon); err != nil {
			return nil, err
		}
	}
	for name, set := range map[string]func(){
		"beam": func() { d.Beam = f.d.Beam }, "lm-units": func() { d.LMUnits = f.d.LMUnits },
		"lm-weight": func() { d.LMWeight = f.d.LMWeight }, "word-bonus": func() { d.WordBonus = f.d.WordBonus },
		"hot-words": func() { d.HotWords, d.HotWeight = f.hot, f.hotWeight },
	} {
		if f.flags.Changed(name) {
			set()
		}
	}
	return d, nil
}

func (a *app) evaluateTranscribe(flags *pflag.FlagSet) verbRun {
	path := dataFlag(flags)
	part := partFlag(flags)
	decoding := newDecodingFlags(flags)
	return func(ctx context.Context, dir string) error {
		m, err := speech.Open(dir)
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
		d, err := decoding.decoding(m)
		if err != nil {
			return err
		}
		e, err := m.Evaluate(ctx, list, d)
		if err != nil {
			return err
		}
		return a.emit(e, func(w io.Writer) { printRecognition(w, e) })
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
	fmt.Fprintf(w, "\n%s of %s have no error. Heard in %.3f of the time they last.\n", count(e.Exact), plural(e.Utterances, "utterance"), e.Taken/math.Max(e.Seconds, 1e-9))
	for _, n := range e.Notes {
		fmt.Fprintf(w, "Note: %s\n", n)
	}
}

func (a *app) predictTranscribe(flags *pflag.FlagSet) verbRun {
	path, out := dataFlag(flags), outFlag(flags)
	decoding := newDecodingFlags(flags)
	return func(ctx context.Context, dir string) error {
		m, err := speech.Open(dir)
		if err != nil {
			return err
		}
		if *path == "" {
			return misusef("--data is needed: a manifest, or a sound file")
		}
		d, err := decoding.decoding(m)
		if err != nil {
			return err
		}
		list, err := m.PredictFile(ctx, *path, d)
		if err != nil {
			return err
		}
		return a.emitPrediction(*out, list.WriteCSV, map[string]any{"files": list}, func(w io.Writer) { printTranscripts(w, list) })
	}
}

func printTranscripts(w io.Writer, list speech.Transcripts) {
	for _, t := range list {
		if len(list) > 1 {
			fmt.Fprintf(w, "%s: ", t.File)
		}
		fmt.Fprintln(w, t.Text)
		for _, alternative := range t.Alternatives {
			fmt.Fprintf(w, "    %.2f below: %s\n", t.Score-alternative.Score, alternative.Text)
		}
	}
}

func (a *app) transcribeCommand() *cobra.Command {
	var best, raw int
	var words bool
	c := &cobra.Command{
		Use:   "transcribe DIR FILE...|-",
		Short: "Say what is said in sound files or in a stream",
		Long: `Transcribes sound files (WAV or FLAC), or - for sound from standard input. A
model that reads forward only hears a stream while it arrives and shows what it
understands so far; its final text is that of the whole sound.

--json gives words with their times and confidence too.`,
		Example: `  carousel transcribe run call.wav
  carousel transcribe run *.flac --best 3 --json
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
	decoding := newDecodingFlags(c.Flags())
	c.Flags().IntVar(&best, "best", 1, "`n` texts of each file, the likeliest first")
	c.Flags().BoolVar(&words, "words", false, "show each word with its time and confidence")
	c.Flags().IntVar(&raw, "raw", 0, "standard input has no header: 16 bit little-endian samples of one channel at this `rate`")
	c.RunE = func(c *cobra.Command, args []string) error {
		m, err := speech.Open(args[0])
		if err != nil {
			return err
		}
		d, err := decoding.decoding(m)
		if err != nil {
			return err
		}
		if best > 1 {
			d.Best = best
		}
		files := args[1:]
		switch {
		case slices.Contains(files, "-") && len(files) > 1:
			return misusef("transcribe: - stands for standard input, and alone")
		case files[0] == "-":
			return a.transcribeStream(m, d, raw, words)
		case raw != 0:
			return misusef("--raw: is for sound from standard input, -")
		}
		list, err := m.TranscribeFiles(c.Context(), files, d)
		if err != nil {
			return err
		}
		return a.emit(map[string]any{"files": list}, func(w io.Writer) {
			printTranscripts(w, list)
			if words {
				for _, t := range list {
					printWords(w, t.Words)
				}
			}
		})
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
	Lag      float64 `json:"lag"`      // seconds of sound that the network must hear beyond a moment
	Slowest  float64 `json:"slowest"`  // seconds that the slowest piece took
	RealTime float64 `json:"realtime"` // seconds of computing for each second of sound
}

// pieceSeconds is how much of a stream is heard at a time.
const pieceSeconds = 0.1

// transcribeStream hears standard input while it arrives, if the model can.
func (a *app) transcribeStream(m *speech.Model, d *speech.Decoding, raw int, words bool) error {
	in, err := openStream(a.stdin, raw)
	if err != nil {
		return err
	}
	var out streamed
	if m.Streams() {
		out, err = a.hear(m, d, in)
	} else {
		a.note("The model reads in both directions, so it waits for the end of the sound.")
		out, err = hearWhole(m, d, in)
	}
	if err != nil {
		return err
	}
	return a.emit(&out, func(w io.Writer) {
		fmt.Fprintln(w, out.Text)
		if words {
			printWords(w, out.Words)
		}
		a.note("Heard %.1f s in %.3f of the time it lasts; a word is known %.2f s after it is said, the slowest piece took %.3f s.",
			out.Seconds, out.RealTime, out.Lag+pieceSeconds, out.Slowest)
	})
}

func openStream(r io.Reader, raw int) (*audio.Reader, error) {
	if raw != 0 {
		return audio.NewRawReader(r, "standard input", raw)
	}
	return audio.NewReader(r, "standard input")
}

func hearWhole(m *speech.Model, d *speech.Decoding, in *audio.Reader) (out streamed, err error) {
	s, err := in.ReadAll()
	if err != nil {
		return out, err
	}
	begun := time.Now()
	if out.Transcript, err = m.TranscribeSound(s, d); err != nil {
		return out, err
	}
	out.Lag, out.Slowest = s.Seconds(), time.Since(begun).Seconds()
	out.RealTime = out.Slowest / s.Seconds()
	return out, nil
}

// hear shows what is understood so far on stderr, where a person watches.
func (a *app) hear(m *speech.Model, d *speech.Decoding, in *audio.Reader) (out streamed, err error) {
	s, err := m.NewStream(in.Rate, d)
	if err != nil {
		return out, err
	}
	show := a.partial()
	piece := make([]float32, max(1, int(pieceSeconds*float64(in.Rate))))
	var taken time.Duration
	for {
		n, err := in.Read(piece)
		if err != nil && err != io.EOF {
			return out, err
		}
		begun := time.Now()
		s.Write(piece[:n])
		last := err == io.EOF
		if last {
			out.Transcript = s.Finish()
		} else {
			show(s.Partial().Text)
		}
		once := time.Since(begun)
		taken += once
		out.Slowest = math.Max(out.Slowest, once.Seconds())
		if last {
			break
		}
	}
	show("")
	if out.Seconds == 0 {
		return out, &data.InputError{File: "standard input", Problem: "holds no sound: its length is zero"}
	}
	out.Lag, out.RealTime = s.Lag(), taken.Seconds()/out.Seconds
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
