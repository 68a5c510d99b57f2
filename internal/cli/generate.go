package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/explain"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/task/generate"
)

// generateTask is language models as the commands see them.
var generateTask = taskVerbs{
	name:     generate.Task,
	train:    (*app).trainGenerateCommand,
	evaluate: (*app).evaluateGenerate,
	predict:  (*app).predictGenerate,
	inspect: func(in *inspection, dir *model.Dir) error {
		m, err := generate.OpenDir(dir)
		if err != nil {
			return err
		}
		cfg := m.Config()
		in.Config = &cfg
		return nil
	},
	probe: probeGenerate,
}

func probeGenerate(dir *model.Dir, path string, rows int) (*explain.Subject, error) {
	m, err := generate.OpenDir(dir)
	if err != nil {
		return nil, err
	}
	cfg := m.Config()
	docs, err := readDocuments(path, cfg.Encoding, nil)
	if err != nil {
		return nil, err
	}
	loss, err := m.Probe(docs, rows)
	if err != nil {
		return nil, inFile(path, err)
	}
	return &explain.Subject{Slab: m.Slab(), Loss: loss, Clip: cfg.Clip}, nil
}

// generateRun is one training of a language model.
type generateRun struct {
	trainRun
	files generateFiles
	cfg   generate.Config
}

type generateFiles struct {
	Data  string `json:"data" value:"file" group:"Files" help:"text to learn from: a file, plain or gzipped, or a directory with files of text"`
	Valid string `json:"valid" value:"file" group:"Files" help:"text to validate on (none: a part of --data)"`
	Test  string `json:"test" value:"file" group:"Files" help:"text to score the finished model on (none: the part of --data that split leaves for it)"`
}

func (a *app) trainGenerateCommand() *cobra.Command {
	run := &generateRun{cfg: generate.Defaults()}
	return a.trainTaskCommand(&trainTask{
		use:   "generate --data FILE|DIR --out DIR",
		short: "Train a language model on text or source code",
		long: `Trains a model that tells, character by character or word by word, how a text
goes on, and writes model, checkpoints and report into --out. Any text will do:
a file, or a directory of prose or source code.

Then, carousel generate lets the model write, and carousel score ranks ways in
which a text may go on.`,
		example: `  carousel train generate --data shakespeare.txt --out run
  carousel train generate --data "$(go env GOROOT)/src/fmt" --out run
  carousel train generate --data novels --tokens bpe --hidden 512 --layers 2 --out run
  carousel train generate --data wiki.train.txt.gz --valid wiki.valid.txt.gz --tokens word --out run`,
		settings: []any{&run.files, &run.cfg},
		run:      &run.trainRun,
		seed:     &run.cfg.Seed,
		check: func() error {
			if run.files.Data == "" {
				return misusef("train generate needs --data, the text to learn from: a file or a directory")
			}
			return run.cfg.Validate()
		},
		train: func(ctx context.Context) (*trainResult, error) { return a.trainGenerate(ctx, run) },
	})
}

// trainGenerate reads, trains, evaluates and reports.
func (a *app) trainGenerate(ctx context.Context, run *generateRun) (*trainResult, error) {
	var notes fewNotes
	parts, err := readParts(run, notes.add)
	if err != nil {
		return nil, err
	}
	m, result, err := generate.Train(ctx, parts.train, parts.valid, run.cfg, a.where(&run.trainRun))
	if err != nil {
		return nil, inFile(run.files.Data, err)
	}
	if result.Interrupted {
		return nil, a.stopped(&run.trainRun, result)
	}
	out := newTrainResult(generate.Task, &run.trainRun, m.Slab(), result)
	out.Notes = notes.list()
	scored, name := parts.test, "test"
	if len(scored) == 0 {
		scored, name = parts.valid, "validation"
	}
	var e *generate.Evaluation
	if len(scored) > 0 {
		if e, err = m.Evaluate(ctx, scored); err != nil {
			return nil, err
		}
		if out.Evaluation = e; name != "test" {
			out.Notes = append(out.Notes, scoredOnValidation)
		}
		out.show = func(w io.Writer) { printTextScores(w, e, name) }
	}
	samples, err := sampleTexts(ctx, m, run.cfg.Seed)
	if err != nil {
		return nil, err
	}
	page := generatePage(run, m, result, out, e, name, samples)
	return out, page.WriteFile(out.Report)
}

// textParts are the texts of a training.
type textParts struct{ train, valid, test []data.Document }

// readParts reads the texts and divides them.
func readParts(run *generateRun, note func(string)) (p textParts, err error) {
	for _, f := range []struct {
		path string
		to   *[]data.Document
	}{{run.files.Data, &p.train}, {run.files.Valid, &p.valid}, {run.files.Test, &p.test}} {
		if f.path == "" {
			continue
		}
		if *f.to, err = readDocuments(f.path, run.cfg.Encoding, note); err != nil {
			return p, err
		}
	}
	if p.valid != nil && run.cfg.Split == "" {
		return p, nil
	}
	train, valid, test, err := run.cfg.Divide(p.train)
	p.train = train
	if p.valid == nil {
		p.valid = valid
	}
	if p.test == nil {
		p.test = test
	}
	return p, err
}

// fewNotes are what is said of files: of very many the first, and their number.
type fewNotes struct {
	first []string
	more  int
}

func (n *fewNotes) add(s string) {
	const most = 5
	if len(n.first) == most {
		n.more++
		return
	}
	n.first = append(n.first, s)
}

func (n *fewNotes) list() []string {
	if n.more == 0 {
		return n.first
	}
	return append(n.first, fmt.Sprintf("and %s like these", plural(n.more, "note")))
}

// readDocuments reads a file or a directory of text.
func readDocuments(path, encoding string, note func(string)) ([]data.Document, error) {
	var docs []data.Document
	for d, err := range data.ReadDocuments(path, encoding, note) {
		if err != nil {
			return nil, err
		}
		docs = append(docs, d)
	}
	return docs, nil
}

func (a *app) evaluateGenerate(flags *pflag.FlagSet) verbRun {
	path := dataFlag(flags)
	part := flags.String("split-part", "all", "`part` of the text: train, validation, test or all")
	return func(ctx context.Context, dir *model.Dir) error {
		m, err := generate.OpenDir(dir)
		if err != nil {
			return err
		}
		if *path == "" {
			return misusef("--data is needed: a text to score the model on, a file or a directory")
		}
		cfg := m.Config()
		var notes fewNotes
		docs, err := readDocuments(*path, cfg.Encoding, notes.add)
		if err != nil {
			return err
		}
		for _, s := range notes.list() {
			a.note("Note: %s", s)
		}
		if docs, err = partOf(&cfg, docs, *part); err != nil {
			return err
		}
		e, err := m.Evaluate(ctx, docs)
		if err != nil {
			return inFile(*path, err)
		}
		return a.emit("evaluate.generate", e, func(w io.Writer) { printTextScores(w, e, "given") })
	}
}

// partOf is the named part of documents, divided as for training.
func partOf(cfg *generate.Config, docs []data.Document, part string) ([]data.Document, error) {
	train, valid, test, err := cfg.Divide(docs)
	if err != nil {
		return nil, err
	}
	parts := map[string][]data.Document{"all": docs, "train": train, "validation": valid, "test": test}
	list, ok := parts[part]
	switch {
	case !ok:
		return nil, misusef("--split-part: want train, validation, test or all, got %q", part)
	case len(list) == 0:
		return nil, misusef("--split-part %s: the model's split leaves no such part; leave the flag out to score the whole text", part)
	}
	return list, nil
}

// generateFlags are the flags that say how texts go on.
func generateFlags(flags *pflag.FlagSet) func(a *app) (*generate.GenerateOptions, error) {
	o := generate.DefaultGenerate()
	options := optionFlags(flags, nil, &o)
	return func(a *app) (*generate.GenerateOptions, error) {
		if err := options.resolve(); err != nil {
			return nil, err
		}
		o.Seed, o.Greedy = a.seed, o.Temperature == 0
		for i, s := range o.Stop {
			o.Stop[i] = unescape(s)
		}
		return &o, nil
	}
}

func (a *app) predictGenerate(flags *pflag.FlagSet) verbRun {
	path, out := dataFlag(flags), outFlag(flags)
	options := generateFlags(flags)
	return func(ctx context.Context, dir *model.Dir) error {
		m, err := generate.OpenDir(dir)
		if err != nil {
			return err
		}
		o, err := options(a)
		if err != nil {
			return err
		}
		if *path == "" {
			return misusef("--data is needed: a file with a prompt on each line, or - for standard input; for a single prompt there is carousel generate")
		}
		lines, err := a.lines(*path, nil, m.Config().Encoding)
		if err != nil {
			return err
		}
		defer lines.Close()
		c, err := m.PredictLines(ctx, lines, o)
		if err != nil {
			return err
		}
		return a.emitPrediction("predict.generate", *out, c.WriteCSV, c, func(w io.Writer) { printContinuations(w, c.List) })
	}
}

func (a *app) generateCommand() *cobra.Command {
	var prompt string
	var stream bool
	var options func(*app) (*generate.GenerateOptions, error)
	c := &cobra.Command{
		Use:   "generate DIR --prompt TEXT",
		Short: "Let a language model write on from a prompt",
		Long: `Writes a text that follows the prompt, token by token, each drawn from what the
model expects. Without a prompt it begins a new document. The state is kept, so
that a long text costs no more for each token than a short one.`,
		Example: `  carousel generate run --prompt 'The cat sat on the' --length 100
  carousel generate run --prompt 'func ' --temperature 0.7 --stop '\n}\n' --stream
  carousel generate run --prompt 'Once' --samples 5 --top-p 0.9 --seed 7 --json`,
		GroupID: groupWork,
		Args:    oneArg("a model directory"),
		RunE: func(c *cobra.Command, args []string) error {
			o, err := options(a)
			if err != nil {
				return err
			}
			if stream && (o.Samples > 1 || a.json) {
				return misusef("--stream writes one text as it comes: leave out --samples and --json")
			}
			m, err := generate.Open(args[0])
			if err != nil {
				return err
			}
			return a.generate(c.Context(), m, prompt, o, stream)
		},
	}
	c.Flags().StringVar(&prompt, "prompt", "", "`text` to go on from (none: the beginning of a document)")
	options = generateFlags(c.Flags())
	c.Flags().BoolVar(&stream, "stream", false, "write the text while it comes")
	return c
}

// generate writes texts that follow one prompt.
func (a *app) generate(ctx context.Context, m *generate.Model, prompt string, o *generate.GenerateOptions, stream bool) error {
	ctx, stop := a.catchInterrupt(ctx)
	defer stop()
	if stream {
		if _, err := io.WriteString(a.stdout, prompt); err != nil {
			return err
		}
		o.OnText = func(_ int, part string) error {
			_, err := io.WriteString(a.stdout, part)
			return err
		}
	}
	list, err := m.Generate(ctx, []string{prompt}, o)
	if stream {
		fmt.Fprintln(a.stdout)
		return err
	}
	if err != nil {
		return err
	}
	return a.emit("generate", &generate.Continuations{Task: generate.Task, List: list}, func(w io.Writer) { printContinuations(w, list) })
}

// printContinuations writes texts with their prompts, a line between them.
func printContinuations(w io.Writer, list []generate.Generated) {
	for i, g := range list {
		if i > 0 {
			fmt.Fprintln(w, "\n---")
		}
		fmt.Fprintln(w, g.Prompt+g.Text)
	}
}

// scoring is what score prints.
type scoring struct {
	Task    string            `json:"task"`    // the task of the model
	Prompt  string            `json:"prompt"`  // the text that comes before
	Ranking []generate.Scored `json:"ranking"` // the likeliest first
}

func (a *app) scoreCommand() *cobra.Command {
	var prompt string
	var continuations []string
	var exactly bool
	c := &cobra.Command{
		Use:   "score DIR --prompt TEXT --continuation TEXT...",
		Short: "Rank ways in which a text may go on, by a language model",
		Long: `Ranks continuations of a prompt by the probability that a language model gives
them. Without --continuation they are the lines of standard input. A continuation
that begins with a letter or digit, after a prompt that ends with one, counts as a
new word behind a space, unless --exactly says otherwise.`,
		Example: `  carousel score run --prompt 'The cat sat on the' --continuation mat --continuation floor
  carousel score run --prompt 'if err != nil {' --exactly < candidates.txt --json`,
		GroupID: groupWork,
		Args:    oneArg("a model directory"),
		RunE: func(c *cobra.Command, args []string) error {
			m, err := generate.Open(args[0])
			if err != nil {
				return err
			}
			if len(continuations) == 0 {
				if continuations, err = readLines("standard input", a.stdin); err != nil {
					return err
				}
			}
			if len(continuations) == 0 {
				return misusef("nothing to rank: give --continuation, or lines on standard input")
			}
			ranking, err := m.Score(c.Context(), prompt, continuations, exactly)
			if err != nil {
				return err
			}
			return a.emit("score", &scoring{generate.Task, prompt, ranking}, func(w io.Writer) { printRanking(w, ranking) })
		},
	}
	c.Flags().StringVar(&prompt, "prompt", "", "`text` that comes before (none: the beginning of a document)")
	c.Flags().StringArrayVar(&continuations, "continuation", nil, "`text` that may follow; may be repeated")
	c.Flags().BoolVar(&exactly, "exactly", false, "put nothing between the prompt and a continuation")
	return c
}

func printRanking(w io.Writer, ranking []generate.Scored) {
	var rows [][]string
	for _, s := range ranking {
		rows = append(rows, []string{s.Continuation, number(s.LogProb), number(s.PerToken), count(s.Tokens)})
	}
	printTable(w, []string{"continuation", "log p", "log p a token", "tokens"}, rows)
}
