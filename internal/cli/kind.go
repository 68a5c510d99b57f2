package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/explain"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/train"
)

// trainKindCommand is the training command of a task.
func (a *app) trainKindCommand(k *task.Kind) *cobra.Command {
	files, cfg, run := k.Files(), k.Config(), &trainRun{}
	return a.trainTaskCommand(&trainTask{
		use: k.Name + " " + cmp.Or(k.Needs, "--data FILE") + " --out DIR", short: k.Short, long: k.Long, example: k.Example,
		settings: []any{files, cfg},
		run:      run,
		check: func() error {
			if err := checkFiles(files); err != nil {
				return misusef("train %s %v", k.Name, err)
			}
			k.ForFiles(files, cfg)
			return cfg.Validate()
		},
		train: func(ctx context.Context) (*trainResult, error) { return a.trainKind(ctx, k, files, cfg, run) },
	})
}

// checkFiles finds files that are missing or do not go together.
func checkFiles(files any) error {
	if f, ok := files.(interface{ Validate() error }); ok {
		return f.Validate()
	}
	if one := settings.Named(settings.List(files), "data"); one != nil && one.IsZero() {
		return fmt.Errorf("needs --data: %s", one.Help)
	}
	return nil
}

// What is said where there is nothing else to score on; the second where the task
// has a file for the test.
const (
	scoredOnChoosing   = "scored on the validation part, which also chose the weights"
	scoredOnValidation = scoredOnChoosing + "; give a file of its own with --test"
)

// trainKind reads, trains, evaluates and reports.
func (a *app) trainKind(ctx context.Context, k *task.Kind, files any, cfg task.Config, run *trainRun) (*trainResult, error) {
	d, err := k.Read(ctx, files, cfg)
	if err != nil {
		return nil, err
	}
	m, result, err := k.Train(ctx, d, cfg, a.where(run))
	if err != nil {
		return nil, err
	}
	if result.Interrupted {
		return nil, a.stopped(run, result)
	}
	out := newTrainResult(k.Name, run, m.Slab(), result)
	out.Notes = d.Notes()
	e, err := a.scoreTrained(ctx, m, d, out)
	if err != nil {
		return nil, err
	}
	page, err := trainPage(ctx, m, d, result, out, e)
	if err != nil {
		return nil, err
	}
	return out, page.WriteDir(run.Out)
}

// scoreTrained scores a model on the test part, or without one on the validation
// part; the evaluation is nil where there is neither.
func (a *app) scoreTrained(ctx context.Context, m *task.Trained, d task.Data, out *trainResult) (task.Evaluation, error) {
	part := task.Test
	if !d.Has(part) {
		part = task.Validation
	}
	if !d.Has(part) {
		out.Notes = append(out.Notes, m.Notes()...)
		return nil, nil
	}
	o := m.Kind.Evaluating()
	if one, ok := o.(task.Inheritor); ok {
		one.Inherit(m.Model, func(string) bool { return false })
	}
	if one, ok := o.(interface{ ForReport() }); ok {
		one.ForReport()
	}
	e, err := m.Evaluate(ctx, d, part, o)
	if input := (*data.InputError)(nil); errors.As(err, &input) {
		out.Notes = append(append(out.Notes, m.Notes()...), "not scored: "+err.Error())
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if part == task.Validation {
		note := scoredOnChoosing
		if settings.Named(settings.List(m.Kind.Files()), "test") != nil {
			note = scoredOnValidation
		}
		out.Notes = append(out.Notes, note)
	}
	known := e.Summary().Notes // which may have those of the model
	for _, n := range m.Notes() {
		if !slices.Contains(known, n) {
			out.Notes = append(out.Notes, n)
		}
	}
	out.Evaluation, out.show = e, func(w io.Writer) { printSummary(w, e.Summary()) }
	return e, nil
}

// printSummary writes an evaluation for people.
func printSummary(w io.Writer, s *report.Summary) {
	fmt.Fprintf(w, "\nScores on %s\n", s.Scored)
	for _, t := range s.Tables {
		fmt.Fprintln(w)
		t.Print(w)
	}
	for _, text := range append(slices.Clone(s.Text), s.Verdict) {
		if text != "" {
			fmt.Fprintf(w, "\n%s\n", text)
		}
	}
	for _, n := range s.Notes {
		fmt.Fprintf(w, "Note: %s\n", n)
	}
}

// trainPage is the report of a training; e may be nil.
func trainPage(ctx context.Context, m *task.Trained, d task.Data, r *train.Result, out *trainResult, e task.Evaluation) (*report.Page, error) {
	page := &report.Page{Title: m.Title(), Subtitle: d.String(), Version: carousel.Version()}
	if one, ok := m.Model.(fmt.Stringer); ok {
		page.Subtitle += ": " + one.String()
	}
	training := trainingOf(r)
	facts := report.Facts{
		{Name: "Weights", Value: report.Count(out.Parameters)},
		{Name: "Epochs", Value: report.Count(r.Epochs)},
		{Name: "Training time", Value: r.Elapsed.Round(time.Second).String()},
	}
	if training.BestEpoch > 0 {
		facts[1].Note = fmt.Sprintf("best: %d", training.BestEpoch)
	}
	s := &report.Summary{}
	if e != nil {
		s = e.Summary()
	}
	var result []report.Block
	if s.Verdict != "" {
		result = append(result, report.Notice{Tone: s.Tone, Text: s.Verdict})
	}
	result = append(result, slices.Concat(s.Facts, facts))
	for _, t := range s.Tables {
		result = append(result, t)
	}
	for _, n := range slices.Concat(s.Text, out.Notes, s.Notes) {
		result = append(result, report.Text(n))
	}
	page.Add("Result", result...)
	page.Sections = append(page.Sections, s.Sections...)
	own, err := m.Illustrate(ctx, d, e)
	if err != nil {
		return nil, err
	}
	page.Sections = append(page.Sections, own...)
	page.Add("Training", training.Figure())
	page.Add("Configuration", report.Pairs(settingPairs(m.Settings())))
	return page, nil
}

// dataFlags makes the flags of the files that a model is applied to, those of
// files whose names begin with data.
func dataFlags(flags *pflag.FlagSet, files any, more ...any) *options {
	var without []string
	for _, one := range settings.List(files) {
		if !strings.HasPrefix(one.Name, "data") {
			without = append(without, one.Name)
		}
	}
	o := optionFlags(flags, without, append([]any{files}, more...)...)
	if f := flags.Lookup("data"); f != nil {
		f.Usage = "`file` like that the model was trained on"
	}
	return o
}

// takeOver resolves the flags of options: what the model has, and over that what is given.
func (o *options) takeOver(m *task.Trained, ptr any) error {
	if one, ok := ptr.(task.Inheritor); ok {
		one.Inherit(m.Model, func(name string) bool { return o.Given(name) })
	}
	if err := o.resolve(); err != nil {
		return err
	}
	if one, ok := ptr.(interface{ Validate() error }); ok {
		return one.Validate()
	}
	return nil
}

// evaluateKind is evaluate for models of a task.
func evaluateKind(k *task.Kind) verb {
	return func(a *app, flags *pflag.FlagSet) verbRun {
		files, o := k.Files(), k.Evaluating()
		given := dataFlags(flags, files, o)
		part := flags.String("split-part", "", fmt.Sprintf("`part` of the data: train, validation, test or all, divided as for training (empty: %s)", scoredPart(k)))
		return func(ctx context.Context, dir *model.Dir) error {
			m, err := k.Open(dir)
			if err != nil {
				return err
			}
			if err := given.takeOver(m, o); err != nil {
				return err
			}
			if !given.Given("data", "data_source", "data_target") {
				return misusef("--data is needed: %s", k.Scores)
			}
			if err := checkFiles(files); err != nil {
				return misusef("evaluate %v", err)
			}
			which, err := task.ParsePart(*part, scoredPart(k))
			if err != nil {
				return misusef("--split-part: %v", err)
			}
			d, err := m.Read(ctx, files, which)
			if err != nil {
				return err
			}
			e, err := m.Evaluate(ctx, d, which, o)
			if err != nil {
				return err
			}
			for _, n := range d.Notes() {
				a.note("Note: %s", n)
			}
			return a.emit("evaluate."+k.Name, e, func(w io.Writer) { printSummary(w, e.Summary()) })
		}
	}
}

// scoredPart is the part that evaluate scores unless told otherwise.
func scoredPart(k *task.Kind) task.Part { return cmp.Or(k.Part, task.All) }

// predictKind is predict for models of a task.
func predictKind(k *task.Kind) verb {
	return func(a *app, flags *pflag.FlagSet) verbRun {
		o := k.Predicting()
		path, out := dataFlag(flags), outFlag(flags)
		var texts *[]string
		if k.Texts {
			texts = flags.StringArray("input", nil, "a `text` itself, in place of --data; may be repeated")
		}
		given := optionFlags(flags, nil, o)
		return func(ctx context.Context, dir *model.Dir) error {
			m, err := k.Open(dir)
			if err != nil {
				return err
			}
			if err := given.takeOver(m, o); err != nil {
				return err
			}
			if one := settings.Named(settings.List(o), "seed"); one != nil {
				if err := one.Assign(strconv.FormatUint(a.seed, 10)); err != nil {
					return err
				}
			}
			in := task.Input{File: *path}
			if texts != nil {
				in.Texts = *texts
			}
			switch {
			case in.File != "" && in.Texts != nil:
				return misusef("--data and --input are two ways to give texts; give one")
			case in.File == "" && in.Texts == nil:
				return misusef("--data is needed: %s", k.Takes)
			case in.File == "-" && !k.Texts:
				return misusef("--data -: a model for task %q takes no standard input here; give %s", k.Name, k.Takes)
			case in.File == "-":
				in.File, in.Stream = "", a.stdin
			}
			return a.predict(ctx, m, in, o, *out)
		}
	}
}

// predict writes a prediction: as it is made, where nothing needs the whole of
// it, or else to the file out, as a table for people or as JSON.
func (a *app) predict(ctx context.Context, m *task.Trained, in task.Input, o any, out string) error {
	if !a.json {
		stream := func(w io.Writer) (done bool, err error) {
			done, notes, err := m.Stream(ctx, in, o, w)
			for _, n := range notes {
				a.note("Note: %s", n)
			}
			return done, err
		}
		done, err := false, error(nil)
		if out == "" {
			done, err = stream(a.stdout)
		} else {
			done, err = a.writeOut(out, stream)
		}
		if done || err != nil {
			return err
		}
	}
	p, failed := m.Predict(ctx, in, o)
	if p == nil {
		return failed
	}
	if one, ok := p.(interface{ Remarks() []string }); ok {
		for _, n := range one.Remarks() {
			a.note("Note: %s", n)
		}
	}
	return cmp.Or(a.emitPrediction(failed, "predict."+m.Kind.Name, out, p.Write, p, p.Print), failed)
}

// errNothing ends the writing of a file that is not to be.
var errNothing = errors.New("nothing to write")

// writeOut writes a file as a whole, unless write does nothing.
func (a *app) writeOut(out string, write func(io.Writer) (bool, error)) (done bool, err error) {
	err = model.WriteFileAtomic(out, func(w io.Writer) error {
		var fault error
		if done, fault = write(w); fault == nil && !done {
			return errNothing
		}
		return fault
	})
	if errors.Is(err, errNothing) {
		return false, nil
	}
	if err == nil {
		a.note("The result is in %s.", out)
	}
	return done, err
}

// inspectKind adds what the task knows of a model.
func inspectKind(k *task.Kind) func(in *inspection, dir *model.Dir) error {
	return func(in *inspection, dir *model.Dir) error {
		m, err := k.Open(dir)
		if err != nil {
			return err
		}
		in.Config, in.Data, in.Notes = m.Settings(), m.Wants(), m.Notes()
		return nil
	}
}

// probeKind is the loss of a batch of a model of a task.
func probeKind(k *task.Kind) func(dir *model.Dir, path string, rows int) (*explain.Subject, error) {
	if !k.CanProbe() {
		return nil
	}
	return func(dir *model.Dir, path string, rows int) (*explain.Subject, error) {
		m, err := k.Open(dir)
		if err != nil {
			return nil, err
		}
		files := k.Files()
		if err := settings.Named(settings.List(files), "data").Assign(path); err != nil {
			return nil, err
		}
		d, err := m.Read(context.Background(), files, task.All)
		if err != nil {
			return nil, err
		}
		loss, err := m.Probe(d, rows)
		if err != nil {
			return nil, err
		}
		clip, err := strconv.ParseFloat(settings.Named(settings.List(m.Settings()), "clip").String(), 64)
		return &explain.Subject{Slab: m.Slab(), Loss: loss, Clip: clip}, err
	}
}

// taskOf is a Kind as the commands see it.
func taskOf(k *task.Kind) *taskVerbs {
	return &taskVerbs{
		name: k.Name, was: k.Was, train: func(a *app) *cobra.Command { return a.trainKindCommand(k) },
		evaluate: evaluateKind(k), predict: predictKind(k), inspect: inspectKind(k), probe: probeKind(k),
	}
}
