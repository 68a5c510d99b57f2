package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/explain"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task/translate"
	"github.com/carousel-ml/carousel/train"
)

// translateTask is translation as the commands see it.
var translateTask = taskVerbs{
	name:     translate.Task,
	train:    (*app).trainTranslateCommand,
	evaluate: (*app).evaluateTranslate,
	predict:  (*app).predictTranslate,
	probe:    probeTranslate,
	inspect: func(in *inspection, dir *model.Dir) error {
		m, err := translate.OpenDir(dir)
		if err != nil {
			return err
		}
		cfg := m.Config()
		in.Config, in.Notes = &cfg, m.Notes()
		return nil
	},
}

// probeTranslate reads a table with both languages in columns.
func probeTranslate(dir *model.Dir, data string, rows int) (*explain.Subject, error) {
	m, err := translate.OpenDir(dir)
	if err != nil {
		return nil, err
	}
	cfg := m.Config()
	loss, err := m.Probe(translate.Table(data, &cfg, nil), rows)
	if err != nil {
		return nil, inFile(data, err)
	}
	return &explain.Subject{Slab: m.Slab(), Loss: loss, Clip: cfg.Clip}, nil
}

// translateRun is one training of a translation model.
type translateRun struct {
	trainRun
	files translateFiles
	cfg   translate.Config
}

type translateFiles struct {
	Source      string `json:"data_source" value:"file" group:"Files" help:"sentences, one a line; may be gzipped, as all files"`
	Target      string `json:"data_target" value:"file" group:"Files" help:"their translations, line by line"`
	ValidSource string `json:"valid_source" value:"file" group:"Files" help:"sentences to validate on (empty: a share of the training pairs)"`
	ValidTarget string `json:"valid_target" value:"file" group:"Files" help:"their translations"`
	TestSource  string `json:"test_source" value:"file" group:"Files" help:"sentences to score the finished model on (empty: the validation pairs)"`
	TestTarget  string `json:"test_target" value:"file" group:"Files" help:"their translations"`
	Data        string `json:"data" value:"file" group:"Files" help:"in place of data_source and data_target: a table with both in columns"`
	Valid       string `json:"valid" value:"file" group:"Files" help:"likewise, to validate on"`
	Test        string `json:"test" value:"file" group:"Files" help:"likewise, for the score"`
}

// pairFiles are the two files, or the table, that pairs come from.
type pairFiles struct{ source, target, table string }

func (f *translateFiles) parts() (training, valid, test pairFiles) {
	return pairFiles{f.Source, f.Target, f.Data}, pairFiles{f.ValidSource, f.ValidTarget, f.Valid}, pairFiles{f.TestSource, f.TestTarget, f.Test}
}

func (f pairFiles) none() bool { return f == pairFiles{} }

// check finds files that do not make pairs, given under the name of the table.
func (f pairFiles) check(name string) error {
	switch {
	case f.table != "" && (f.source != "" || f.target != ""):
		return misusef("--%s is a table with both languages; leave out --%[1]s-source and --%[1]s-target", name)
	case f.table == "" && (f.source == "") != (f.target == ""):
		return misusef("--%s-source and --%[1]s-target belong together: give both", name)
	}
	return nil
}

// pairs reads them; what is unusual is told on stderr.
func (f pairFiles) pairs(a *app, cfg *translate.Config) translate.Pairs {
	note := func(s string) { a.note("Note: %s", s) }
	switch {
	case f.none():
		return nil
	case f.table != "":
		return translate.Table(f.table, cfg, note)
	}
	return translate.Files(f.source, f.target, cfg, note)
}

func (a *app) trainTranslateCommand() *cobra.Command {
	run := &translateRun{cfg: translate.Defaults()}
	return a.trainTaskCommand(&trainTask{
		use:   "translate --data-source FILE --data-target FILE --out DIR",
		short: "Train a translation model on pairs of sentences",
		long: `Trains a network that translates, scores it by BLEU and chrF as sacreBLEU
computes them, and writes model, checkpoints and report into --out.

Line n of --data-target is the translation of line n of --data-source. Both may also be
columns of one table: --data.`,
		example: `  carousel train translate --data-source train.en --data-target train.de --valid-source val.en --valid-target val.de --out run
  carousel train translate --data pairs.tsv --source-column en --target-column de --lowercase --out run
  carousel train translate --config recipes/multi30k_en_de.yaml --data-source train.en.gz --data-target train.de.gz --out run`,
		settings: []any{&run.files, &run.cfg},
		run:      &run.trainRun,
		seed:     &run.cfg.Seed,
		check:    run.check,
		train:    func(ctx context.Context) (*trainResult, error) { return a.trainTranslate(ctx, run) },
	})
}

// check finds misuse before anything is read or written.
func (r *translateRun) check() error {
	training, valid, test := r.files.parts()
	if training.none() {
		return misusef("train translate needs --data-source and --data-target, files whose lines belong together, or --data, a table with both")
	}
	for _, err := range []error{training.check("data"), valid.check("valid"), test.check("test")} {
		if err != nil {
			return err
		}
	}
	return r.cfg.Validate()
}

// The report's share of the test pairs: examples, attention maps, and how many
// neighbouring sentences make a long source.
const (
	translateExamples = 12
	translateMaps     = 4
	translateJoined   = 5
)

// trainTranslate reads, trains, evaluates and reports.
func (a *app) trainTranslate(ctx context.Context, run *translateRun) (*trainResult, error) {
	files, validFiles, testFiles := run.files.parts()
	training, valid, test := files.pairs(a, &run.cfg), validFiles.pairs(a, &run.cfg), testFiles.pairs(a, &run.cfg)
	if valid == nil && run.cfg.Holdout > 0 {
		training, valid = training.Split(run.cfg.Holdout, run.cfg.Seed)
	}
	if test != nil {
		if err := beginning(testFiles.pairs(a, &run.cfg)()); err != nil {
			return nil, err
		}
	}
	m, result, err := translate.Train(ctx, training, valid, run.cfg, a.where(&run.trainRun))
	if err != nil {
		return nil, inFile(cmp.Or(files.source, files.table), err)
	}
	if result.Interrupted {
		return nil, a.stopped(&run.trainRun, result)
	}
	out := newTrainResult(translate.Task, &run.trainRun, m.Slab(), result)
	out.Notes = m.Notes()
	if test == nil && valid != nil && anything(valid.Whole()()) {
		test = valid
		out.Notes = append(out.Notes, "scored on the validation pairs, which also chose the weights; give pairs of their own for a test")
	}
	var e *translate.Evaluation
	if test != nil {
		e, err = m.Evaluate(ctx, test, &translate.EvaluateOptions{Examples: translateExamples, Long: translateJoined})
		if err != nil {
			return nil, err
		}
		out.Evaluation, out.show = e, func(w io.Writer) { printTranslateScores(w, e) }
	}
	page := translatePage(run, m, result, out, e)
	return out, page.WriteFile(out.Report)
}

// pairFlags are the flags of pairs to score a model on.
func pairFlags(flags *pflag.FlagSet) *pairFiles {
	f := &pairFiles{}
	flags.StringVar(&f.source, "data-source", "", "`file` of sentences, one a line")
	flags.StringVar(&f.target, "data-target", "", "`file` of their translations")
	flags.StringVar(&f.table, "data", "", "`file` like that the model was trained on")
	return f
}

// translateFlags are those of options, o or what has it, and of a search; what is
// not given of this stays as the model has it.
func translateFlags(flags *pflag.FlagSet, without []string, options any, o *translate.Options) func(m *translate.Model) error {
	o.Search = &translate.SearchOptions{}
	given := optionFlags(flags, without, o.Search, options)
	return func(m *translate.Model) error {
		*o.Search = m.Config().SearchOptions
		return given.resolve()
	}
}

func (a *app) evaluateTranslate(flags *pflag.FlagSet) verbRun {
	files := pairFlags(flags)
	var o translate.EvaluateOptions
	options := translateFlags(flags, []string{"n_best"}, &o, &o.Options)
	return func(ctx context.Context, dir *model.Dir) error {
		m, err := translate.OpenDir(dir)
		if err != nil {
			return err
		}
		if files.none() {
			return misusef("--data-source and --data-target are needed, files whose lines belong together, or --data, a table with both")
		}
		if err := files.check("data"); err != nil {
			return err
		}
		if err := options(m); err != nil {
			return err
		}
		cfg := m.Config()
		e, err := m.Evaluate(ctx, files.pairs(a, &cfg), &o)
		if err != nil {
			return inFile(cmp.Or(files.source, files.table), err)
		}
		return a.emit("evaluate.translate", e, func(w io.Writer) { printTranslateScores(w, e) })
	}
}

func (a *app) predictTranslate(flags *pflag.FlagSet) verbRun {
	path, out := dataFlag(flags), outFlag(flags)
	texts := flags.StringArray("input", nil, "a `text` itself, in place of --data; may be repeated")
	var o translate.Options
	options := translateFlags(flags, nil, &o, &o)
	picture := flags.String("attention", "", "write a picture of what the first line's translation looked at to this PNG `file`")
	return func(ctx context.Context, dir *model.Dir) error {
		m, err := translate.OpenDir(dir)
		if err != nil {
			return err
		}
		if err := options(m); err != nil {
			return err
		}
		if o.NBest > o.Search.Beam {
			return misusef("--n-best %d: want a number up to the beam, %d", o.NBest, o.Search.Beam)
		}
		o.Attention = *picture != ""
		r, err := a.lines(*path, *texts, m.Config().Encoding)
		if err != nil {
			return err
		}
		defer r.Close()
		return a.translateLines(ctx, m, r, &o, *out, *picture)
	}
}

// lines are those of a file, of standard input (-), or texts given as they are.
func (a *app) lines(path string, texts []string, encoding string) (*data.LineReader, error) {
	switch {
	case path != "" && len(texts) > 0:
		return nil, misusef("--data and --input are two ways to give texts; give one")
	case len(texts) > 0:
		for i, s := range texts {
			texts[i] = strings.Join(strings.Fields(s), " ")
		}
		return data.NewLineReader("--input", strings.NewReader(strings.Join(texts, "\n")+"\n"), encoding)
	case path == "-":
		return data.NewLineReader("standard input", a.stdin, encoding)
	case path != "":
		return data.OpenLines(path, encoding)
	}
	return nil, misusef("--data is needed: a file of texts, or - for lines of standard input; or --input, a text")
}

// translateLines writes translations as they come, unless all of them are wanted
// together: in a file or as JSON.
func (a *app) translateLines(ctx context.Context, m *translate.Model, r *data.LineReader, o *translate.Options, out, picture string) error {
	all := &translate.Translations{Task: translate.Task, List: []translate.Translation{}}
	var first *translate.Attention
	notes, err := m.Lines(ctx, r, o, func(line int, list []translate.Translation) error {
		for i := range list {
			if first == nil {
				first = list[i].Attention
			}
			list[i].Attention = nil
		}
		if out == "" && !a.json {
			return translate.WriteLines(a.stdout, list, line)
		}
		all.List = append(all.List, list...)
		return nil
	})
	if err != nil {
		return err
	}
	if all.Notes = notes; !a.json {
		for _, n := range notes {
			a.note("Note: %s", n)
		}
	}
	if picture != "" {
		if first == nil {
			return misusef("--attention: there is no line to draw a picture of")
		}
		if err := model.WriteFileAtomic(picture, attentionFigure(first).WritePNG); err != nil {
			return err
		}
		a.note("The picture is in %s.", picture)
	}
	if out != "" {
		if err := model.WriteFileAtomic(out, all.WriteText); err != nil {
			return err
		}
		a.note("The result is in %s.", out)
	}
	if a.json {
		return a.emit("predict.translate", all, nil)
	}
	return nil
}

// attentionFigure shows how much each target token looked at each source token.
func attentionFigure(at *translate.Attention) *report.Figure {
	heat := &report.Heat{X: report.Axis{Label: "Source"}, Y: report.Axis{Label: "Translation"}, Legend: "attention"}
	for _, s := range at.Source {
		heat.Columns = append(heat.Columns, strings.TrimSpace(s))
	}
	for i, s := range at.Target {
		heat.Rows = append(heat.Rows, s)
		row := make([]float64, len(at.Weights[i]))
		for k, w := range at.Weights[i] {
			row[k] = float64(w)
		}
		heat.Values = append(heat.Values, row)
	}
	return &report.Figure{Title: "What the translation looks at", Plot: heat}
}

func printTranslateScores(w io.Writer, e *translate.Evaluation) {
	fmt.Fprintf(w, "\nScores on %s\n\n  %s\n  chrF2 = %.2f\n\n", plural(e.Sentences, "sentence"), e.Detail, e.Metrics.CHRF)
	var rows [][]string
	for _, l := range e.ByLength {
		rows = append(rows, []string{lengthRange(l), count(l.Sentences), fmt.Sprintf("%.1f", l.BLEU)})
	}
	printTable(w, []string{"source words", "sentences", "BLEU"}, rows)
	if e.Long != nil {
		fmt.Fprintf(w, "\n%s\n", longVerdict(e.Long))
	}
	for _, n := range e.Notes {
		fmt.Fprintf(w, "Note: %s\n", n)
	}
}

func lengthRange(l translate.LengthScore) string {
	if l.To == 0 {
		return fmt.Sprintf("%d and more", l.From)
	}
	return fmt.Sprintf("%d to %d", l.From, l.To)
}

// longVerdict says what cutting long sources costs, and what the state brings.
func longVerdict(l *translate.LongScore) string {
	change := func(d float64) string {
		switch {
		case d >= 0.05:
			return fmt.Sprintf("gains %.1f", d)
		case d <= -0.05:
			return fmt.Sprintf("costs %.1f", -d)
		}
		return "changes nothing"
	}
	return fmt.Sprintf("Sources of %d sentences joined: BLEU %.1f whole; cut into parts of at most %d tokens %.1f, which %s; with the encoder's state carried from part to part %.1f, which %s beside that.",
		l.Joined, l.Whole, l.MaxLength, l.Cut, change(l.Cut-l.Whole), l.Carried, change(l.Carried-l.Cut))
}

// translatePage is the report of a trained translation model.
func translatePage(run *translateRun, m *translate.Model, r *train.Result, out *trainResult, e *translate.Evaluation) *report.Page {
	cfg := m.Config()
	page := &report.Page{Title: "Translation", Subtitle: run.files.describe(), Version: carousel.Version()}
	add := func(title string, blocks ...report.Block) {
		if len(blocks) > 0 {
			page.Sections = append(page.Sections, report.Section{Title: title, Blocks: blocks})
		}
	}
	training := trainingOf(r)
	facts := report.Facts{
		{Name: "Weights", Value: count(out.Parameters)}, {Name: "Epochs", Value: count(r.Epochs), Note: fmt.Sprintf("best: %d", training.BestEpoch)},
		{Name: "Training time", Value: r.Elapsed.Round(time.Second).String()},
	}
	var result []report.Block
	if e != nil {
		facts = append(report.Facts{
			{Name: "BLEU", Value: fmt.Sprintf("%.1f", e.Metrics.BLEU), Note: scoredCase(e)}, {Name: "chrF2", Value: fmt.Sprintf("%.1f", e.Metrics.CHRF), Note: scoredCase(e)},
			{Name: "Sentences scored", Value: count(e.Sentences)},
		}, facts...)
		result = append(result, facts, report.Text(e.Detail))
	} else {
		result = append(result, facts)
	}
	for _, n := range out.Notes {
		result = append(result, report.Text(n))
	}
	add("Result", result...)
	if e != nil {
		add("By the length of the source", lengthBlocks(e)...)
		if e.Long != nil {
			add("Long sources", report.Text(longVerdict(e.Long)))
		}
		add("Examples", exampleTable(e))
		if maps := attentionGrid(e); maps != nil {
			add("Attention", maps)
		}
	}
	if fig := training.Figure(); fig != nil {
		add("Training", fig)
	}
	add("Configuration", report.Pairs(settingPairs(&cfg)))
	return page
}

func (f *translateFiles) describe() string {
	if f.Data != "" {
		return filepath.Base(f.Data)
	}
	return filepath.Base(f.Source) + " to " + filepath.Base(f.Target)
}

func scoredCase(e *translate.Evaluation) string {
	if e.Lowercase {
		return "lower case"
	}
	return "with case"
}

func lengthBlocks(e *translate.Evaluation) []report.Block {
	bars := &report.Bars{X: report.Axis{Label: "Words of the source"}, Y: report.Axis{Label: "BLEU"}, Series: []report.Series{{Name: "BLEU"}}}
	for _, l := range e.ByLength {
		bars.Categories = append(bars.Categories, fmt.Sprintf("%s (%s)", lengthRange(l), plural(l.Sentences, "sentence")))
		bars.Series[0].Y = append(bars.Series[0].Y, l.BLEU)
	}
	return []report.Block{&report.Figure{Title: "BLEU by length", Plot: bars}}
}

func exampleTable(e *translate.Evaluation) *report.Table {
	t := &report.Table{
		Caption: "From the best to the worst by the chrF of the sentence, evenly chosen.",
		Columns: []report.Column{{Name: "Source"}, {Name: "Translation"}, {Name: "Reference"}, {Name: "chrF", Number: true}},
	}
	for _, x := range e.Examples {
		t.Rows = append(t.Rows, report.Row{Cells: []string{x.Source, x.Text, x.Reference, fmt.Sprintf("%.0f", x.CHRF)}})
	}
	return t
}

// attentionGrid shows the maps of examples that are short enough to read.
func attentionGrid(e *translate.Evaluation) *report.Figure {
	grid := &report.Grid{Columns: 2}
	for _, x := range e.Examples {
		if x.Attention == nil || len(x.Attention.Source) > 20 || len(x.Attention.Target) > 20 || len(grid.Figures) == translateMaps {
			continue
		}
		fig := attentionFigure(x.Attention)
		fig.Title, fig.Width, fig.Height = x.Text, 480, 120+22*len(x.Attention.Target)
		grid.Figures = append(grid.Figures, fig)
	}
	if len(grid.Figures) == 0 {
		return nil
	}
	return &report.Figure{Title: "What translations look at", Caption: "Each row is a token of the translation, each column one of the source, the last its end.", Plot: grid}
}
