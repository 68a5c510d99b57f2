package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/model/onnx/graph"
	"github.com/carousel-ml/carousel/quantize"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

func (a *app) quantizeCommand() *cobra.Command {
	var graphs runOptions
	c := a.verbCommand(&cobra.Command{
		Use:   "quantize DIR|MODEL.onnx --out DIR2|MODEL2.onnx",
		Short: "Let a model's weights rest in 8 bits, if that keeps its accuracy and is faster",
		Long: `Rounds the weight matrices of a model to 8 bits, with a scale for each row, and writes
the smaller model to another directory, which every command takes.

With --data the verdict is that of your data: both models answer the rows that the
model was not made from, and the lower end of the 95 % interval of what is kept of
the accuracy must be at least --min-accuracy. If it is not, the matrices whose
rounding costs most rest in 16 bits or stay in float32 until it is. Which ones is
measured on the rows of --calibrate or, without it, on those rows of --data by
which the model's weights were chosen. Both models are timed side by side.

--precision chooses 16 bits instead, or 4, with which a file is half as large as
with 8; the rounding to 4 bits is corrected by the calibration rows.

A model that loses accuracy, that is slower here than in float32 or misses a
--target-speedup is refused: nothing is written, and the exit code is 1. --force
writes it nevertheless, with the verdict in it.

An ONNX file becomes another one that ONNX Runtime runs as well. Both graphs are run
on the arrays of --input (see carousel run) or on random ones, and the report says how
far the outputs moved. With --input and --min-accuracy the verdict is the share of the
decisions that stay: on which side of one half an output from 0 to 1 is, of others which
element is the greatest. Matrices rest in more bits until it holds on the first half of
the rows or steps, and the second half is judged.`,
		Example: `  carousel quantize run --out run8 --data reviews.csv
  carousel quantize run --out run8 --data load.csv --min-accuracy 0.99 --target-speedup 3
  carousel quantize run --out run16 --precision bf16 --keep head
  carousel quantize vad.onnx --out vad8.onnx --steps --input input=frames.npy --input sr=16000 --min-accuracy 0.998`,
	}, a.quantize)
	f := c.Flags()
	f.StringArrayVar(&graphs.inputs, "input", nil, "of an ONNX file: an input, `NAME=VALUE`, as of carousel run; may be repeated (default random numbers)")
	f.BoolVar(&graphs.steps, "steps", false, "of an ONNX file: run once for each step of the inputs, and carry the states")
	f.StringArrayVar(&graphs.states, "state", nil, "of an ONNX file, with --steps: a state that is not found by its name, `INPUT=OUTPUT`; may be repeated")
	c.Args = oneArg("a model directory or an ONNX file")
	model := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		if strings.EqualFold(filepath.Ext(args[0]), ".onnx") {
			return a.quantizeGraph(c, args[0], &graphs)
		}
		for _, name := range []string{"input", "steps", "state"} {
			if c.Flags().Changed(name) {
				return wrongFlag(name, "--%s is for ONNX files, and %s is a model directory; give --data", name, args[0])
			}
		}
		if on, err := a.device(); err != nil {
			return err
		} else if on != tensor.CPU() {
			return wrongFlag("device", "--device %s: quantize measures products in 8 bits, which only the CPU has for all layers; other devices take what it writes, and compute in float32 with its weights", a.computes.wanted())
		}
		return model(c, args)
	}
	return c
}

// quantizeGraph rounds an ONNX file, which is run as g says.
func (a *app) quantizeGraph(c *cobra.Command, path string, g *runOptions) error {
	o, flags := quantize.DefaultOptions(), c.Flags()
	mine := []string{"out", "force", "precision", "keep", "min-accuracy", "target-speedup", "input", "steps", "state"}
	var wrong error
	c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		if f.Changed && !slices.Contains(mine, f.Name) {
			wrong = cmp.Or(wrong, wrongFlag(f.Name, "--%s is for model directories, and %s is an ONNX file", f.Name, path))
		}
	})
	if wrong != nil {
		return wrong
	}
	for _, one := range settings.List(o) {
		if f := flags.Lookup(one.Flag()); f.Changed {
			if err := one.Assign(strings.Split(f.Value.String(), ",")...); err != nil {
				return wrongFlag(f.Name, "--%s: %v", f.Name, err)
			}
		}
	}
	out, force := flags.Lookup("out").Value.String(), flags.Lookup("force").Value.String() == "true"
	if !strings.EqualFold(filepath.Ext(out), ".onnx") {
		return wrongFlag("out", "quantize of an ONNX file needs --out FILE.onnx, got %q", out)
	}
	if err := g.check(); err != nil {
		return err
	}
	var models [2]*graph.Model
	var runs [2]quantize.Runner
	var decide []string // outputs
	for i := range models {
		m, err := graph.Read(path)
		if err != nil {
			return err
		}
		random := m.Random(1, 0, nil)
		models[i], runs[i] = m, func(context.Context) (map[string]graph.Value, error) { return m.Run(random) }
		if len(g.inputs) > 0 {
			f, err := a.feed(m, path, g)
			if err != nil {
				return err
			}
			if decide = nil; flags.Changed("min-accuracy") {
				decide = slices.DeleteFunc(namesOf(m.Outputs()), func(name string) bool { return f.stateOutputs()[name] })
			}
			runs[i] = func(ctx context.Context) (map[string]graph.Value, error) {
				f.session.Reset()
				if err := f.session.SetState(f.first); err != nil {
					return nil, err
				}
				return f.run(ctx, g.steps)
			}
		}
	}
	ctx, stop := a.catchInterrupt(c.Context())
	defer stop()
	r, err := quantize.Graph(ctx, models[0], models[1], runs[0], runs[1], decide, o, func(text string) { a.note("%s", text) })
	if err != nil {
		return err
	}
	if r.Inputs = "random"; len(g.inputs) > 0 {
		r.Inputs = "given"
	}
	r.Forced = force && r.Verdict == quantize.Refused
	refused := refusal(r.Verdict, r.Reasons, force)
	if refused == nil {
		if err := models[1].WriteQuantized(out); err != nil {
			return err
		}
		r.Size = quantize.FileSizes(path, out)
	}
	return cmp.Or(a.emitBeside(refused, "quantize.onnx", r, func(w io.Writer) {
		printSummary(w, r.Summary())
		if refused == nil {
			fmt.Fprintf(w, "\nThe graph is %s.\n", out)
		}
	}), refused)
}

// refusal is the error of a refused model that is not to be written nevertheless.
func refusal(v quantize.Verdict, reasons []string, force bool) error {
	if v != quantize.Refused || force {
		return nil
	}
	return fmt.Errorf("refused, and nothing is written: %s; --force writes it nevertheless", reasons[0])
}

// quantize rounds models of a task.
func (a *app) quantize(k *task.Kind, flags *pflag.FlagSet) verbRun {
	files, scoring, o := k.Files(), k.Evaluating(), quantize.DefaultOptions()
	given := dataFlags(flags, []string{"out"}, files, scoring, o)
	out := flags.String("out", "", "`directory` of the quantized model")
	calibrate := flags.String("calibrate", "", "`file` like --data, of other rows (of several files, separated by commas): which matrices rest in more bits is chosen on it")
	force := flags.Bool("force", false, "write the model also if it is refused")
	return func(ctx context.Context, dir *model.Dir, m *task.Trained) error {
		if err := given.takeOver(m, scoring); err != nil {
			return err
		}
		if *out == "" {
			return wrongFlag("out", "quantize needs --out: the directory of the quantized model")
		}
		if in, err := os.Stat(dir.Path); err == nil {
			if to, err := os.Stat(*out); err == nil && os.SameFile(in, to) {
				return wrongFlag("out", "--out %s is the model itself, which it would replace; give another directory", *out)
			}
		}
		if train.HasCheckpoint(*out) || exists(*out, model.ConfigFile) && !exists(*out, quantize.ReportFile) {
			return wrongFlag("out", "--out %s holds a model that quantize did not write; give another directory", *out)
		}
		ctx, stop := a.catchInterrupt(ctx)
		defer stop()
		calibration, rows, err := a.rowsToJudge(ctx, m, files, scoring, *calibrate)
		if err != nil {
			return err
		}
		other, err := k.Open(dir)
		if err != nil {
			return err
		}
		r, err := quantize.Run(ctx, other, m, calibration, rows, scoring, o, func(text string) { a.note("%s", text) })
		if err != nil {
			return err
		}
		r.Forced = *force && r.Verdict == quantize.Refused
		refused := refusal(r.Verdict, r.Reasons, *force)
		if refused == nil {
			if err := a.saveQuantized(dir, m, r, *out); err != nil {
				return err
			}
		}
		return cmp.Or(a.emitBeside(refused, "quantize", r, func(w io.Writer) {
			printSummary(w, r.Summary())
			if refused == nil {
				fmt.Fprintf(w, "\nThe model is in %s, the page is %s.\n", *out, filepath.Join(*out, quantize.PageFile))
			}
		}), refused)
	}
}

// rowsToJudge reads the rows of the verdict and of the calibration; nil where there are none.
func (a *app) rowsToJudge(ctx context.Context, m *task.Trained, files, scoring any, calibrate string) (calibration, rows *quantize.Rows, err error) {
	var given []*settings.Setting // the files of --data, such as those of two languages
	for _, one := range settings.List(files) {
		if strings.HasPrefix(one.Name, "data") && !one.IsZero() {
			given = append(given, one)
		}
	}
	if len(given) == 0 {
		if calibrate != "" {
			return nil, nil, wrongFlag("calibrate", "--calibrate chooses what rests in more bits for the accuracy on --data, which is not given")
		}
		return nil, nil, nil
	}
	d, err := m.Read(ctx, files, "", scoring)
	if err != nil {
		return nil, nil, err
	}
	a.remarks(d.Notes())
	part, err := m.PartOf(d)
	if err != nil {
		return nil, nil, err
	}
	rows = &quantize.Rows{Data: d, Part: part}
	if calibrate == "" {
		if part == task.Test && m.Remembers() && d.Has(task.Validation) {
			calibration = &quantize.Rows{Data: d, Part: task.Validation}
		}
		return calibration, rows, nil
	}
	others := strings.Split(calibrate, ",")
	if len(others) != len(given) {
		return nil, nil, wrongFlag("calibrate", "--calibrate %s: want %s separated by commas, as many as --%s and the like name, got %d", calibrate, report.Plural(len(given), "file"), given[0].Flag(), len(others))
	}
	for i, file := range given {
		if err := file.Assign(others[i]); err != nil {
			return nil, nil, wrongFlag("calibrate", "--calibrate: %v", err)
		}
	}
	c, err := m.Read(ctx, files, task.All, scoring)
	if err != nil {
		return nil, nil, err
	}
	if n := task.Shared(c, task.All, d, part); n > 0 {
		return nil, nil, wrongFlag("calibrate", "--calibrate %s: %s also in --%s; give other rows, since those of the verdict must not choose anything", calibrate, report.Agree(n, "row is", "rows are"), given[0].Flag())
	}
	return &quantize.Rows{Data: c, Part: task.All}, rows, nil
}

// saveQuantized writes the model with its report.
func (a *app) saveQuantized(dir *model.Dir, m *task.Trained, r *quantize.Report, out string) error {
	folder, err := os.MkdirTemp("", "carousel")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	if err := m.Save(folder); err != nil {
		return err
	}
	saved, err := model.Open(folder)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := saved.SaveAs(out, model.Part{Name: quantize.ReportFile, Write: func(w io.Writer) error {
		_, err := w.Write(append(text, '\n'))
		return err
	}}); err != nil {
		return err
	}
	page := &report.Page{Title: "Quantized model", Subtitle: dir.Path, Version: carousel.Version()}
	s := r.Summary()
	addResult(page, s, nil, slices.Concat([]string{"Scored: " + s.Scored}, s.Notes))
	return model.WriteFileAtomic(filepath.Join(out, quantize.PageFile), page.WriteHTML)
}
