package cli

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/speech"
	"github.com/carousel-ml/carousel/train"
)

// classifyAudioTask is the classification of sounds as the commands see it. It
// is trained by train classify with --audio.
var classifyAudioTask = taskVerbs{
	name:     speech.ClassifyTask,
	evaluate: (*app).evaluateClassifyAudio,
	predict:  (*app).predictClassifyAudio,
	inspect: func(in *inspection, dir *model.Dir) error {
		m, err := speech.OpenClassifierDir(dir)
		if err != nil {
			return err
		}
		cfg := m.Config()
		in.Config = &cfg
		return nil
	},
}

// asksForAudio reports whether the command line has --audio, which makes train
// classify learn sounds: a command with other settings under the same name.
func (a *app) asksForAudio() bool {
	return slices.ContainsFunc(a.args, func(s string) bool { return s == "--audio" || strings.HasPrefix(s, "--audio=") })
}

type classifyAudioRun struct {
	trainRun
	files transcribeFiles
	cfg   speech.ClassifyConfig
}

func (a *app) trainClassifyAudioCommand() *cobra.Command {
	run := &classifyAudioRun{cfg: speech.ClassifyDefaults()}
	c := a.trainTaskCommand(&trainTask{
		use:   "classify --audio --data MANIFEST --out DIR",
		short: "Train a classifier of sounds, such as of keywords or commands",
		long: `Trains a classifier on labelled sounds: a table with a column of sound files
(WAV or FLAC), called audio or named by --audio=COLUMN, and one of labels.`,
		example: `  carousel train classify --audio --data commands.csv --out run
  carousel train classify --audio=file --label word --speaker who --data commands.csv --out run`,
		settings: []any{&run.files, &run.cfg},
		run:      &run.trainRun,
		seed:     &run.cfg.Seed,
		check: func() error {
			if run.files.Data == "" {
				return misusef("train classify needs --data, the manifest of the sounds")
			}
			return run.cfg.Validate()
		},
		train: func(ctx context.Context) (*trainResult, error) { return a.trainClassifyAudio(ctx, run) },
	})
	c.Flags().Lookup("audio").NoOptDefVal = run.cfg.Audio
	return c
}

func (a *app) trainClassifyAudio(ctx context.Context, run *classifyAudioRun) (*trainResult, error) {
	list, err := speech.ReadLabelled(run.files.Data, &run.cfg)
	if err != nil {
		return nil, err
	}
	test := onlyPart(list, "test")
	if run.files.Test != "" {
		cfg := run.cfg
		cfg.SplitColumn, cfg.Speaker = "", "" // which only training asks for
		if test, err = speech.ReadLabelled(run.files.Test, &cfg); err != nil {
			return nil, err
		}
	}
	o := &speech.TrainOptions{Run: *a.where(&run.trainRun), Cache: run.files.Cache}
	if run.files.Test != "" {
		o.Test = test
	}
	m, result, err := speech.TrainClassifier(ctx, list, run.cfg, o)
	if err != nil {
		return nil, err
	}
	if result.Interrupted {
		return nil, a.stopped(&run.trainRun, result)
	}
	out := newTrainResult(speech.ClassifyTask, &run.trainRun, m.Slab(), result)
	if len(test) == 0 {
		cfg := m.Config()
		if _, test, err = cfg.Divide(list); err != nil {
			return nil, err
		}
		if len(test) > 0 {
			out.Notes = append(out.Notes, scoredOnValidation)
		}
	}
	var e *speech.ClassEvaluation
	if len(test) > 0 {
		if e, err = m.Evaluate(ctx, test); err != nil {
			return nil, err
		}
		out.Evaluation, out.show = e, func(w io.Writer) { printSoundScores(w, e) }
	}
	return out, classifyAudioPage(run, m, result, out, e).WriteFile(out.Report)
}

func (a *app) evaluateClassifyAudio(flags *pflag.FlagSet) verbRun {
	path := dataFlag(flags)
	part := partFlag(flags)
	return func(ctx context.Context, dir *model.Dir) error {
		m, err := speech.OpenClassifierDir(dir)
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
		list, err := speech.ReadLabelled(*path, &cfg)
		if err == nil {
			list, err = keepPart(*path, &cfg.Setup, list, *part)
		}
		if err != nil {
			return err
		}
		e, err := m.Evaluate(ctx, list)
		if err != nil {
			return err
		}
		return a.emit("evaluate.classify-audio", e, func(w io.Writer) { printSoundScores(w, e) })
	}
}

func printSoundScores(w io.Writer, e *speech.ClassEvaluation) {
	fmt.Fprintf(w, "\nScores on %s: %s right (%s of the time it is the most frequent label), loss %s.\n",
		plural(e.Sounds, "sound"), percent(e.Metrics.Accuracy), percent(e.Baselines["majority"].Accuracy), number(e.Metrics.Loss))
}

func (a *app) predictClassifyAudio(flags *pflag.FlagSet) verbRun {
	path, out := dataFlag(flags), outFlag(flags)
	return func(ctx context.Context, dir *model.Dir) error {
		m, err := speech.OpenClassifierDir(dir)
		if err != nil {
			return err
		}
		if *path == "" {
			return misusef("--data is needed: a manifest, or a sound file")
		}
		if *path == "-" {
			return misusef("--data -: a classifier of sounds takes files; write the sound to one first")
		}
		p, err := m.PredictFile(ctx, *path)
		if err != nil {
			return err
		}
		return a.emitPrediction("predict.classify-audio", *out, p.WriteCSV, p, func(w io.Writer) {
			for _, f := range p.Files {
				fmt.Fprintf(w, "%s  %s  %s\n", percent(f.Probability), f.Label, f.File)
			}
		})
	}
}

// classifyAudioPage is the report of a trained classifier of sounds.
func classifyAudioPage(run *classifyAudioRun, m *speech.Classifier, r *train.Result, out *trainResult, e *speech.ClassEvaluation) *report.Page {
	cfg := m.Config()
	page := &report.Page{Title: "Classification of sounds", Subtitle: filepath.Base(run.files.Data), Version: carousel.Version()}
	training := trainingOf(r)
	add := func(title string, blocks ...report.Block) {
		page.Sections = append(page.Sections, report.Section{Title: title, Blocks: blocks})
	}
	facts := report.Facts{
		{Name: "Weights", Value: count(out.Parameters)},
		{Name: "Epochs", Value: count(r.Epochs), Note: fmt.Sprintf("best: %d", training.BestEpoch)},
	}
	if e == nil {
		add("Result", facts)
	} else {
		result := []report.Block{append(report.Facts{
			{Name: "Accuracy", Value: percent(e.Metrics.Accuracy), Note: "most frequent label: " + percent(e.Baselines["majority"].Accuracy)},
			{Name: "Sounds scored", Value: count(e.Sounds)},
		}, facts...)}
		for _, n := range out.Notes {
			result = append(result, report.Text(n))
		}
		add("Result", result...)
		if len(e.Classes) <= maxConfusion {
			values := make([][]float64, len(e.Confusion))
			for i, row := range e.Confusion {
				for _, n := range row {
					values[i] = append(values[i], float64(n))
				}
			}
			add("Classes", &report.Figure{
				Title:   "Which label becomes which",
				Caption: "Rows are the labels, columns what the model says; the diagonal is right.",
				Plot:    &report.Heat{X: report.Axis{Label: "Answer"}, Y: report.Axis{Label: "Label"}, Columns: e.Classes, Rows: e.Classes, Values: values, Format: "%.0f", Legend: "Sounds"},
			})
		}
		if len(e.Wrong) > 0 {
			t := &report.Table{Columns: []report.Column{{Name: "Line", Number: true}, {Name: "File"}, {Name: "Label"}, {Name: "Answer"}, {Name: "Certainty", Number: true}}}
			for _, x := range e.Wrong[:min(len(e.Wrong), 15)] {
				t.Rows = append(t.Rows, report.Row{Cells: []string{count(x.Line), filepath.Base(x.Audio), x.Text, x.Answer, percent(x.Probability)}})
			}
			add("The most wrong", t)
		}
	}
	if fig := training.Figure(); fig != nil {
		add("Training", fig)
	}
	add("Configuration", report.Pairs(settingPairs(&cfg)))
	return page
}
