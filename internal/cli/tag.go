package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/internal/explain"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task/tag"
	"github.com/carousel-ml/carousel/train"
)

// tagTask is the tagging of tokens as the commands see it.
var tagTask = taskVerbs{
	name:     tag.Task,
	train:    (*app).trainTagCommand,
	evaluate: (*app).evaluateTag,
	predict:  (*app).predictTag,
	probe:    probeTag,
	inspect: func(in *inspection, dir *model.Dir) error {
		m, err := tag.OpenDir(dir)
		if err != nil {
			return err
		}
		cfg := m.Config()
		in.Config, in.Notes = &cfg, m.Notes()
		return nil
	},
}

func probeTag(dir *model.Dir, data string, rows int) (*explain.Subject, error) {
	m, err := tag.OpenDir(dir)
	if err != nil {
		return nil, err
	}
	cfg := m.Config()
	loss, err := m.Probe(tag.File(data, &cfg, nil), rows)
	if err != nil {
		return nil, inFile(data, err)
	}
	return &explain.Subject{Slab: m.Slab(), Loss: loss, Clip: cfg.Clip}, nil
}

// tagRun is one training of a tagger.
type tagRun struct {
	trainRun
	files textFiles
	cfg   tag.Config
}

func (a *app) trainTagCommand() *cobra.Command {
	run := &tagRun{cfg: tag.Defaults()}
	return a.trainTaskCommand(&trainTask{
		use:   "tag --data FILE --out DIR",
		short: "Train a tagger of tokens, such as of names or parts of speech",
		long: `Trains a tagger on files with a token and its tag on each line and blank lines
between sentences: CoNLL with any columns, CoNLL-U, or BMES. Tags that mark spans,
such as names, may be in any of the usual schemes (IOB1, IOB2, BIOES, BMES,
BILOU); other tags are labels of single tokens, such as parts of speech. It scores
the tagger on the test sentences, or without such on the validation sentences, and
writes model, checkpoints and report into --out.`,
		example: `  carousel train tag --data train.conll --valid dev.conll --test test.conll --out run
  carousel train tag --data en-train.conllu.gz --valid en-dev.conllu.gz --tag-column upos --out run
  carousel train tag --data names.txt --format conll --token-column 1 --tag-column 4 --out run`,
		settings: []any{&run.files, &run.cfg},
		run:      &run.trainRun,
		seed:     &run.cfg.Seed,
		check: func() error {
			if run.files.Data == "" {
				return misusef("train tag needs --data, the file to learn from")
			}
			return run.cfg.Validate()
		},
		train: func(ctx context.Context) (*trainResult, error) { return a.trainTag(ctx, run) },
	})
}

func (a *app) trainTag(ctx context.Context, run *tagRun) (*trainResult, error) {
	var notes []string
	file := func(path string) tag.Source {
		return tag.File(path, &run.cfg, func(s string) { notes = append(notes, s) })
	}
	var valid tag.Source
	if run.files.Valid != "" {
		valid = file(run.files.Valid)
	}
	if run.files.Test != "" {
		if err := beginning(tag.File(run.files.Test, &run.cfg, nil)); err != nil {
			return nil, err
		}
	}
	m, result, err := tag.Train(ctx, file(run.files.Data), valid, run.cfg, a.where(&run.trainRun))
	if err != nil {
		return nil, inFile(run.files.Data, err)
	}
	if result.Interrupted {
		return nil, a.stopped(&run.trainRun, result)
	}
	out := newTrainResult(tag.Task, &run.trainRun, m.Slab(), result)
	var e *tag.Evaluation
	held := run.cfg.Held(tag.File(run.files.Data, &run.cfg, nil))
	switch {
	case run.files.Test != "":
		e, err = m.Evaluate(ctx, file(run.files.Test))
		err = inFile(run.files.Test, err)
	case run.files.Valid != "":
		e, err = m.Evaluate(ctx, tag.File(run.files.Valid, &run.cfg, nil))
	case anything(held):
		e, err = m.Evaluate(ctx, held)
	}
	if err != nil {
		return nil, err
	}
	switch {
	case e == nil:
		notes = append(notes, m.Notes()...)
	case run.files.Test == "":
		notes = append(notes, scoredOnValidation)
	}
	out.Notes = notes
	if e != nil {
		out.Evaluation, out.show = e, func(w io.Writer) { printTagging(w, e) }
	}
	return out, tagPage(run, m, result, out, e).WriteFile(out.Report)
}

func (a *app) evaluateTag(flags *pflag.FlagSet) verbRun {
	path := dataFlag(flags)
	return func(ctx context.Context, dir *model.Dir) error {
		m, err := tag.OpenDir(dir)
		if err != nil {
			return err
		}
		if *path == "" {
			return misusef("--data is needed: a file of tagged sentences like that the model was trained on")
		}
		cfg := m.Config()
		e, err := m.Evaluate(ctx, tag.File(*path, &cfg, func(s string) { a.note("Note: %s", s) }))
		if err != nil {
			return inFile(*path, err)
		}
		return a.emit("evaluate.tag", e, func(w io.Writer) { printTagging(w, e) })
	}
}

func (a *app) predictTag(flags *pflag.FlagSet) verbRun {
	var o tag.PredictOptions
	path, out := dataFlag(flags), outFlag(flags)
	texts := flags.StringArray("input", nil, "a `text` itself, in place of --data; may be repeated")
	format := flags.String("format", "", "`format` of --data: text, conll, conllu or bmes (empty: by its name and first lines)")
	options := optionFlags(flags, nil, &o)
	return func(ctx context.Context, dir *model.Dir) error {
		if err := options.resolve(); err != nil {
			return err
		}
		m, err := tag.OpenDir(dir)
		if err != nil {
			return err
		}
		switch {
		case *path != "" && len(*texts) > 0:
			return misusef("--data and --input are two ways to give texts; give one")
		case *path == "" && len(*texts) == 0:
			return misusef("--data is needed: a file of texts or of tokens, or - for lines of standard input; or --input, a text")
		case *path == "-" && *format != "" && *format != tag.FormatText:
			return misusef("--data -: standard input is read as plain text; name a file for --format %s", *format)
		case *path == "-":
			if *texts, err = readLines("standard input", a.stdin); err != nil {
				return err
			}
		case *path != "":
			return a.predictTagFile(ctx, m, *path, *format, *out, &o)
		}
		p := &tag.Predictions{Task: tag.Task, Scheme: m.Scheme()}
		if p.Sentences, err = m.PredictText(ctx, *texts, &o); err != nil {
			return err
		}
		return a.emitPrediction("predict.tag", *out, p.WriteCSV, p, func(w io.Writer) { printTags(w, p) })
	}
}

// predictTagFile gives a file of tokens back with a column more, and of plain
// texts what was found.
func (a *app) predictTagFile(ctx context.Context, m *tag.Model, path, format, out string, o *tag.PredictOptions) error {
	format, err := m.FormatOf(path, format)
	if err != nil {
		return err
	}
	if format != tag.FormatText && !a.json {
		write := func(w io.Writer) error { return m.CopyConll(ctx, w, path, format, o) }
		if out == "" {
			return write(a.stdout)
		}
		if err := model.WriteFileAtomic(out, write); err != nil {
			return err
		}
		a.note("The result is in %s.", out)
		return nil
	}
	p, err := m.PredictFile(ctx, path, format, o)
	if err != nil {
		return err
	}
	return a.emitPrediction("predict.tag", out, p.WriteCSV, p, func(w io.Writer) { printTags(w, p) })
}

// printTags writes sentences with what was found in them between brackets.
func printTags(w io.Writer, p *tag.Predictions) {
	for i := range p.Sentences {
		s := &p.Sentences[i]
		fmt.Fprintln(w, bracketed(s.Tokens, s.Tags, p.Scheme))
		for _, one := range s.Alternatives {
			fmt.Fprintf(w, "    %s  %s\n", percent(one.Probability), bracketed(s.Tokens, one.Tags, p.Scheme))
		}
	}
}

// bracketed writes a sentence as "[New York](LOC) is big", or where tags mark no
// spans as "New/PROPN York/PROPN".
func bracketed(tokens, tags []string, scheme tag.Scheme) string {
	var b strings.Builder
	spans := tag.Spans(tags)
	for i, token := range tokens {
		if i > 0 {
			b.WriteByte(' ')
		}
		if scheme == tag.Labels {
			b.WriteString(token + "/" + tags[i])
			continue
		}
		if len(spans) > 0 && spans[0].From == i {
			b.WriteByte('[')
		}
		b.WriteString(token)
		if len(spans) > 0 && spans[0].To == i+1 {
			b.WriteString("](" + spans[0].Label + ")")
			spans = spans[1:]
		}
	}
	return b.String()
}

func printTagging(w io.Writer, e *tag.Evaluation) {
	fmt.Fprintf(w, "\nScores on %s of %s\n\n", plural(e.Tokens, "token"), plural(e.Sentences, "sentence"))
	var rows [][]string
	for _, m := range tagMethods(e) {
		rows = append(rows, append([]string{m.name}, m.cells...))
	}
	printTable(w, append([]string{""}, tagMetrics(e)...), rows)
	if len(e.Labels) <= 60 {
		fmt.Fprintln(w)
		rows = rows[:0]
		for _, l := range e.Labels {
			rows = append(rows, []string{l.Label, percent(l.Precision), percent(l.Recall), percent(l.F1), count(l.Gold), count(l.Found), count(l.Right)})
		}
		printTable(w, []string{"label", "precision", "recall", "F1", "there are", "found", "right"}, rows)
	}
	fmt.Fprintf(w, "\n%s\n", e.Verdict)
	for _, n := range e.Notes {
		fmt.Fprintf(w, "Note: %s\n", n)
	}
}

// tagMetrics are the columns of tagMethods: where tags mark no spans, all are one.
func tagMetrics(e *tag.Evaluation) []string {
	if e.Scheme == tag.Labels {
		return []string{"accuracy"}
	}
	return []string{"F1", "precision", "recall", "accuracy"}
}

// tagMethods lists the model, then the baselines.
func tagMethods(e *tag.Evaluation) []scoredMethod {
	row := func(name string, m tag.Metrics) scoredMethod {
		if e.Scheme == tag.Labels {
			return scoredMethod{name, []string{percent(m.Accuracy)}, m.Accuracy}
		}
		return scoredMethod{name, []string{percent(m.F1), percent(m.Precision), percent(m.Recall), percent(m.Accuracy)}, m.F1}
	}
	list := []scoredMethod{row("network", e.Metrics)}
	for _, name := range slices.Sorted(maps.Keys(e.Baselines)) {
		list = append(list, row(strings.Replace(name, "usual", "usual tag of each word", 1), e.Baselines[name]))
	}
	return list
}

// tagPage is the report of a trained tagger.
func tagPage(run *tagRun, m *tag.Model, r *train.Result, out *trainResult, e *tag.Evaluation) *report.Page {
	cfg := m.Config()
	page := &report.Page{Title: "Tagging of tokens", Subtitle: filepath.Base(run.files.Data), Version: carousel.Version()}
	add := func(title string, blocks ...report.Block) {
		if len(blocks) > 0 {
			page.Sections = append(page.Sections, report.Section{Title: title, Blocks: blocks})
		}
	}
	training := trainingOf(r)
	var result []report.Block
	notes := slices.Clone(out.Notes)
	if e != nil {
		result = append(result, tagVerdict(e), report.Facts{
			{Name: "F1", Value: percent(e.Metrics.F1)}, {Name: "Accuracy", Value: percent(e.Metrics.Accuracy), Note: "of tokens"},
			{Name: "Sentences scored", Value: count(e.Sentences), Note: plural(e.Tokens, "token")},
			{Name: "Unknown words", Value: percent(float64(e.Unknown) / float64(max(1, e.Tokens))), Note: "of the tokens scored"},
			{Name: "Weights", Value: count(out.Parameters)}, {Name: "Epochs", Value: count(r.Epochs), Note: fmt.Sprintf("best: %d", training.BestEpoch)},
		}, scoreTable(tagMethods(e), tagMetrics(e)...))
		notes = append(notes, e.Notes...)
	}
	for _, n := range notes {
		result = append(result, report.Text(n))
	}
	add("Result", result...)
	if e != nil {
		add("Labels", labelBlocks(e)...)
		add("The most wrong", worstSentences(e)...)
	}
	if fig := training.Figure(); fig != nil {
		add("Training", fig)
	}
	add("Configuration", report.Pairs(settingPairs(&cfg)))
	return page
}

func tagVerdict(e *tag.Evaluation) report.Notice {
	list := tagMethods(e)
	if slices.MaxFunc(list, func(a, b scoredMethod) int {
		if a.score > b.score {
			return 1
		}
		return -1
	}).name == list[0].name {
		return report.Notice{Tone: report.Good, Text: e.Verdict}
	}
	return report.Notice{Tone: report.Caution, Text: e.Verdict}
}

// labelBlocks are the scores by label and what is taken for what.
func labelBlocks(e *tag.Evaluation) []report.Block {
	t := &report.Table{Columns: []report.Column{{Name: "Label"}, {Name: "Precision", Number: true}, {Name: "Recall", Number: true}, {Name: "F1", Number: true},
		{Name: "There are", Number: true}, {Name: "Found", Number: true}, {Name: "Right", Number: true}}}
	for _, l := range e.Labels {
		t.Rows = append(t.Rows, report.Row{Cells: []string{l.Label, percent(l.Precision), percent(l.Recall), percent(l.F1), count(l.Gold), count(l.Found), count(l.Right)}})
	}
	blocks := []report.Block{t}
	c := e.Confusion
	if len(c.Labels) > maxConfusion {
		return blocks
	}
	values := make([][]float64, len(c.Counts))
	for i, row := range c.Counts {
		total := 0
		for _, n := range row {
			total += n
		}
		for _, n := range row {
			values[i] = append(values[i], 100*float64(n)/float64(max(1, total)))
		}
	}
	return append(blocks, &report.Figure{
		Title:   "Which label becomes which",
		Caption: "Shares of the tokens of each label, in percent. Rows are the labels, columns what the model says; the diagonal is right. O is outside of all spans.",
		Plot:    &report.Heat{X: report.Axis{Label: "Found"}, Y: report.Axis{Label: "Label"}, Columns: c.Labels, Rows: c.Labels, Values: values, Format: "%.0f", Legend: "% of the row"},
	})
}

// worstSentences shows what the model is most wrong about: as it is, and as it was found.
func worstSentences(e *tag.Evaluation) []report.Block {
	if len(e.Worst) == 0 {
		return nil
	}
	t := &report.Table{
		Caption: "Sentences whose tags found the model holds for much likelier than the true ones. Above the true tags, below those found.",
		Columns: []report.Column{{Name: "Line", Number: true}, {Name: ""}, {Name: "Sentence"}},
	}
	for _, x := range e.Worst {
		t.Rows = append(t.Rows,
			report.Row{Cells: []string{count(x.Line), "true", shorten(bracketed(x.Tokens, x.Tags, e.Scheme), 400)}},
			report.Row{Cells: []string{"", "found", shorten(bracketed(x.Tokens, x.Found, e.Scheme), 400)}})
	}
	return []report.Block{t}
}
