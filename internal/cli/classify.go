package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/explain"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task/classify"
	"github.com/carousel-ml/carousel/train"
)

// classifyTask is the classification of texts as the commands see it.
var classifyTask = task{
	name:     classify.Task,
	train:    (*app).trainClassifyCommand,
	evaluate: (*app).evaluateClassify,
	predict:  (*app).predictClassify,
	inspect: func(in *inspection, dir *model.Dir) error {
		m, err := classify.OpenDir(dir)
		if err != nil {
			return err
		}
		cfg := m.Config()
		in.Config, in.Notes = &cfg, m.Notes()
		return nil
	},
	probe: probeClassify,
}

func probeClassify(dir *model.Dir, data string, rows int) (*explain.Subject, error) {
	m, err := classify.OpenDir(dir)
	if err != nil {
		return nil, err
	}
	cfg := m.Config()
	loss, err := m.Probe(classify.Files(data, &cfg, nil), rows)
	if err != nil {
		return nil, inFile(data, err)
	}
	return &explain.Subject{Slab: m.Slab(), Loss: loss, Clip: cfg.Clip}, nil
}

// textFiles are the files of a task that learns from one kind of file.
type textFiles struct {
	Data  string `json:"data" value:"file" group:"Files" help:"file to learn from; may be gzipped"`
	Valid string `json:"valid" value:"file" group:"Files" help:"file to validate on (none: a part of the training data)"`
	Test  string `json:"test" value:"file" group:"Files" help:"file to score the finished model on (none: the validation part)"`
}

// classifyRun is one training of a classifier.
type classifyRun struct {
	trainRun
	files textFiles
	cfg   classify.Config
}

func (a *app) trainClassifyCommand() *cobra.Command {
	if a.asksForAudio() {
		return a.trainClassifyAudioCommand()
	}
	run := &classifyRun{cfg: classify.Defaults()}
	return a.trainTaskCommand(&trainTask{
		use:   "classify --data FILE --out DIR",
		short: "Train a classifier of texts, such as of sentiment or topic",
		long: `Trains a classifier on labelled texts: a table (CSV or TSV) with a column of
texts and one of labels, JSON lines, or lines that begin with their label. It
scores the classifier and the simple methods on the test texts, or without such
on the validation texts, and writes model, checkpoints and report into --out.

With --audio it learns labelled sounds: see train classify --audio --help.`,
		example: `  carousel train classify --data reviews.csv --text review --label stars --out run
  carousel train classify --data train.txt --valid dev.txt --test test.txt --format label-first --out run
  carousel train classify --data posts.jsonl --separator ',' --out run
  carousel train classify --data reviews.csv --fold 1/5 --out fold1`,
		settings: []any{&run.files, &run.cfg},
		run:      &run.trainRun,
		seed:     &run.cfg.Seed,
		check: func() error {
			if run.files.Data == "" {
				return misusef("train classify needs --data, the file to learn from")
			}
			if run.cfg.Fold != "" && run.files.Test != "" {
				return misusef("--fold keeps a part of the data for the test, so --test has no place; give one of them")
			}
			return run.cfg.Validate()
		},
		train: func(ctx context.Context) (*trainResult, error) { return a.trainClassify(ctx, run) },
	})
}

func (a *app) trainClassify(ctx context.Context, run *classifyRun) (*trainResult, error) {
	var notes []string
	note := func(s string) { notes = append(notes, s) }
	source := classify.Files(run.files.Data, &run.cfg, note)
	var valid classify.Source
	if run.files.Valid != "" {
		valid = classify.Files(run.files.Valid, &run.cfg, note)
	}
	if run.files.Test != "" {
		if err := beginning(classify.Files(run.files.Test, &run.cfg, nil)()); err != nil {
			return nil, err
		}
	}
	m, result, err := classify.Train(ctx, source, valid, run.cfg, a.where(&run.trainRun))
	if err != nil {
		return nil, inFile(run.files.Data, err)
	}
	if result.Interrupted {
		return nil, a.stopped(&run.trainRun, result)
	}
	out := newTrainResult(classify.Task, &run.trainRun, m.Slab(), result)
	var e *classify.Evaluation
	held := run.cfg.Held(source)
	switch {
	case run.files.Test != "":
		e, err = m.Evaluate(ctx, classify.Files(run.files.Test, &run.cfg, note))
		err = inFile(run.files.Test, err)
	case run.cfg.Fold != "":
		e, err = m.EvaluateFold(ctx, source)
	case valid != nil:
		e, err = m.Evaluate(ctx, valid)
	case anything(held()):
		e, err = m.Evaluate(ctx, held)
	}
	if err != nil {
		return nil, err
	}
	switch out.Notes = notes; {
	case e == nil:
		out.Notes = append(out.Notes, m.Notes()...)
	case run.files.Test == "" && run.cfg.Fold == "":
		out.Notes = append(out.Notes, scoredOnValidation)
	}
	if e != nil {
		out.Evaluation, out.show = e, func(w io.Writer) { printClassification(w, e) }
	}
	page := classifyPage(ctx, run, m, result, out, e)
	return out, page.WriteFile(out.Report)
}

// scoredOnValidation is said where there is nothing else to score on.
const scoredOnValidation = "scored on the validation part, which also chose the weights; give a file of its own with --test"

// anything reports whether a source has something to give, be it an error.
func anything[T any](source iter.Seq2[T, error]) bool {
	for range source {
		return true
	}
	return false
}

// beginning reads the beginning of a source, so that what is wrong with it is
// known before a training and not after.
func beginning[T any](source iter.Seq2[T, error]) error {
	for _, err := range source {
		return err
	}
	return nil
}

// inFile names the file in an error that names none.
func inFile(path string, err error) error {
	var input *data.InputError
	if errors.As(err, &input) && input.File == "" {
		named := *input
		named.File = path
		return &named
	}
	return err
}

func (a *app) evaluateClassify(flags *pflag.FlagSet) verbRun {
	path := dataFlag(flags)
	return func(ctx context.Context, dir *model.Dir) error {
		m, err := classify.OpenDir(dir)
		if err != nil {
			return err
		}
		if *path == "" {
			return misusef("--data is needed: a file of labelled texts like that the model was trained on")
		}
		cfg := m.Config()
		e, err := m.Evaluate(ctx, classify.Files(*path, &cfg, func(s string) { a.note("Note: %s", s) }))
		if err != nil {
			return inFile(*path, err)
		}
		return a.emit("evaluate.classify", e, func(w io.Writer) { printClassification(w, e) })
	}
}

func (a *app) predictClassify(flags *pflag.FlagSet) verbRun {
	var o classify.PredictOptions
	path, out := dataFlag(flags), outFlag(flags)
	texts := flags.StringArray("input", nil, "a `text` itself, in place of --data; may be repeated")
	options := optionFlags(flags, nil, &o)
	return func(ctx context.Context, dir *model.Dir) error {
		if err := options.resolve(); err != nil {
			return err
		}
		m, err := classify.OpenDir(dir)
		if err != nil {
			return err
		}
		var p *classify.Predictions
		switch {
		case *path != "" && len(*texts) > 0:
			return misusef("--data and --input are two ways to give texts; give one")
		case *path == "" && len(*texts) == 0:
			return misusef("--data is needed: a file of texts, or - for lines of standard input; or --input, a text")
		case *path == "-":
			lines, err := readLines("standard input", a.stdin)
			if err != nil {
				return err
			}
			*texts = lines
			fallthrough
		case len(*texts) > 0:
			p = &classify.Predictions{Task: classify.Task, Classes: m.Classes()}
			p.List, err = m.Predict(ctx, *texts, &o)
		default:
			p, err = m.PredictFile(ctx, *path, &o)
		}
		if err != nil {
			return err
		}
		for _, n := range p.Notes(m) {
			a.note("Note: %s", n)
		}
		return a.emitPrediction("predict.classify", *out, p.WriteCSV, p, func(w io.Writer) { printPredictions(w, p) })
	}
}

// readLines reads the lines of a stream that are not blank.
func readLines(name string, in io.Reader) ([]string, error) {
	r, err := data.NewLineReader(name, in, data.EncodingAuto)
	if err != nil {
		return nil, err
	}
	var lines []string
	for {
		line, err := r.Next()
		if err == io.EOF {
			return lines, nil
		}
		if err != nil {
			return nil, err
		}
		if strings.TrimSpace(line) != "" {
			lines = append(lines, line)
		}
	}
}

// percent writes a share.
func percent(v float64) string { return fmt.Sprintf("%.1f %%", 100*v) }

func printClassification(w io.Writer, e *classify.Evaluation) {
	fmt.Fprintf(w, "\nScores on %s\n\n", plural(e.Texts, "text"))
	head := []string{"", "accuracy", "macro F1", "micro F1", "loss"}
	var rows [][]string
	for _, m := range classifyMethods(e) {
		rows = append(rows, append([]string{m.name}, m.cells...))
	}
	printTable(w, head, rows)
	if len(e.Classes) <= 30 {
		fmt.Fprintln(w)
		rows = rows[:0]
		for _, c := range e.Classes {
			rows = append(rows, []string{c.Class, percent(c.Precision), percent(c.Recall), percent(c.F1), count(c.Texts)})
		}
		printTable(w, []string{"class", "precision", "recall", "F1", "texts"}, rows)
	}
	fmt.Fprintf(w, "\n%s\n", e.Verdict)
	for _, n := range e.Notes {
		fmt.Fprintf(w, "Note: %s\n", n)
	}
}

type scoredMethod struct {
	name  string
	cells []string
	score float64
}

// classifyMethods lists the model, then the baselines, best first.
func classifyMethods(e *classify.Evaluation) []scoredMethod {
	row := func(name string, m classify.Metrics) scoredMethod {
		loss := "-"
		if m.Loss > 0 {
			loss = number(m.Loss)
		}
		return scoredMethod{name, []string{percent(m.Accuracy), percent(m.MacroF1), percent(m.MicroF1), loss}, m.Accuracy}
	}
	list := []scoredMethod{row("network", e.Metrics)}
	if e.Share > 0 {
		list[0].name = fmt.Sprintf("network, with %.0f %% of linear", 100*e.Share)
	}
	for _, name := range slices.SortedFunc(maps.Keys(e.Baselines), func(a, b string) int {
		if e.Baselines[a].Accuracy != e.Baselines[b].Accuracy {
			return int(math.Copysign(1, e.Baselines[b].Accuracy-e.Baselines[a].Accuracy))
		}
		return strings.Compare(a, b)
	}) {
		list = append(list, row(name, e.Baselines[name]))
	}
	return list
}

func printPredictions(w io.Writer, p *classify.Predictions) {
	for _, one := range p.List {
		label := one.Label
		if one.Labels != nil {
			label = strings.Join(one.Labels, ", ")
		}
		fmt.Fprintf(w, "%s  %s  %s\n", percent(one.Probability), label, one.Text)
		for _, word := range strongest(one.Words, 8) {
			fmt.Fprintf(w, "    %+.2f  %s\n", word.Share, word.Text)
		}
	}
}

// strongest are the words with the greatest shares, for or against.
func strongest(words []classify.WordShare, n int) []classify.WordShare {
	sorted := slices.Clone(words)
	slices.SortStableFunc(sorted, func(a, b classify.WordShare) int {
		if x, y := math.Abs(a.Share), math.Abs(b.Share); x != y {
			return int(math.Copysign(1, y-x))
		}
		return 0
	})
	return sorted[:min(n, len(sorted))]
}

// classifyPage is the report of a trained classifier.
func classifyPage(ctx context.Context, run *classifyRun, m *classify.Model, r *train.Result, out *trainResult, e *classify.Evaluation) *report.Page {
	cfg := m.Config()
	page := &report.Page{Title: "Classification of texts", Subtitle: filepath.Base(run.files.Data), Version: carousel.Version()}
	training := trainingOf(r)
	var result []report.Block
	if e != nil {
		tone := report.Neutral
		if e.Metrics.Accuracy > e.Baselines["linear"].Accuracy {
			tone = report.Good
		}
		result = append(result, report.Notice{Tone: tone, Text: e.Verdict})
		result = append(result, report.Facts{
			{Name: "Accuracy", Value: percent(e.Metrics.Accuracy)}, {Name: "Macro F1", Value: percent(e.Metrics.MacroF1)},
			{Name: "Texts scored", Value: count(e.Texts)}, {Name: "Weights", Value: count(out.Parameters)},
			{Name: "Epochs", Value: count(r.Epochs), Note: fmt.Sprintf("best: %d", training.BestEpoch)},
		})
		result = append(result, scoreTable(classifyMethods(e), "Accuracy", "Macro F1", "Micro F1", "Loss"))
	}
	for _, n := range out.Notes {
		result = append(result, report.Text(n))
	}
	add := func(title string, blocks ...report.Block) {
		if len(blocks) > 0 {
			page.Sections = append(page.Sections, report.Section{Title: title, Blocks: blocks})
		}
	}
	add("Result", result...)
	if e != nil {
		for _, n := range e.Notes {
			result = append(result, report.Text(n))
		}
		page.Sections[0].Blocks = result
		add("Classes", classBlocks(e)...)
		add("The most wrong", worstTable(ctx, m, e))
	}
	if fig := training.Figure(); fig != nil {
		add("Training", fig)
	}
	add("Configuration", report.Pairs(settingPairs(&cfg)))
	return page
}

// scoreTable sets methods side by side, the model first; the best is highlighted.
func scoreTable(list []scoredMethod, metrics ...string) *report.Table {
	t := &report.Table{Columns: []report.Column{{Name: "Method"}}}
	for _, name := range metrics {
		t.Columns = append(t.Columns, report.Column{Name: name, Number: true})
	}
	best := 0
	for i, m := range list {
		if m.score > list[best].score {
			best = i
		}
		t.Rows = append(t.Rows, report.Row{Cells: append([]string{m.name}, m.cells...)})
	}
	t.Rows[best].Best = true
	return t
}

// maxConfusion is the most classes whose confusions are drawn.
const maxConfusion = 60

func classBlocks(e *classify.Evaluation) []report.Block {
	t := &report.Table{Columns: []report.Column{{Name: "Class"}, {Name: "Precision", Number: true}, {Name: "Recall", Number: true}, {Name: "F1", Number: true}, {Name: "Texts", Number: true}}}
	var names []string
	for _, c := range e.Classes {
		t.Rows = append(t.Rows, report.Row{Cells: []string{c.Class, percent(c.Precision), percent(c.Recall), percent(c.F1), count(c.Texts)}})
		names = append(names, c.Class)
	}
	blocks := []report.Block{t}
	if e.Confusion != nil && len(names) <= maxConfusion {
		values := make([][]float64, len(e.Confusion))
		for i, row := range e.Confusion {
			for _, n := range row {
				values[i] = append(values[i], float64(n))
			}
		}
		blocks = append(blocks, &report.Figure{
			Title:   "Which label becomes which",
			Caption: "Rows are the labels, columns what the model says; the diagonal is right.",
			Plot:    &report.Heat{X: report.Axis{Label: "Predicted"}, Y: report.Axis{Label: "Label"}, Columns: names, Rows: names, Values: values, Format: "%.0f", Legend: "Texts"},
		})
	}
	return blocks
}

// worstTable shows the texts that the model is most wrong about, and the words
// that led it there.
func worstTable(ctx context.Context, m *classify.Model, e *classify.Evaluation) *report.Table {
	t := &report.Table{
		Caption: "Wrong with the greatest certainty. The words are those that spoke most for the answer.",
		Columns: []report.Column{{Name: "Line", Number: true}, {Name: "Text"}, {Name: "Label"}, {Name: "Answer"}, {Name: "Certainty", Number: true}, {Name: "Words"}},
	}
	var texts []string
	for _, x := range e.Worst {
		texts = append(texts, x.Text)
	}
	explained, err := m.Predict(ctx, texts, &classify.PredictOptions{Explain: m.Config().Pool != "last"})
	for i, x := range e.Worst {
		var words []string
		if err == nil {
			for _, word := range strongest(explained[i].Words, 4) {
				if word.Share > 0 {
					words = append(words, word.Text)
				}
			}
		}
		t.Rows = append(t.Rows, report.Row{Cells: []string{
			count(x.Line), shorten(x.Text, 200), strings.Join(x.Labels, ", "), strings.Join(x.Predicted, ", "), percent(x.Probability), strings.Join(words, ", "),
		}})
	}
	return t
}

// shorten cuts a text to n characters.
func shorten(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}
