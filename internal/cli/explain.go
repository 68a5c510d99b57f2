package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/internal/explain"
	"github.com/carousel-ml/carousel/internal/memory"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/task/forecast"
	"github.com/carousel-ml/carousel/train"
)

func (a *app) explainCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "explain",
		Short:   "Show the inside of recurrent networks: gradients, gates and memory",
		Long:    "Shows the inside of recurrent networks: how far errors travel back through time,\nand how long a network can remember.",
		Example: "  carousel explain gradients\n  carousel explain gradients run --data load.csv --out pictures\n  carousel explain memory --quick",
		GroupID: groupAbout,
		Args:    noArgs,
		RunE:    showHelp,
	}
	c.AddCommand(a.explainGradientsCommand(), a.explainMemoryCommand())
	return c
}

// gradientRun holds the flags of explain gradients.
type gradientRun struct {
	data, out string
	rows      int
	adding    explain.AddingOptions

	reading forecast.Reading
	given   *options // the flags of reading
}

func (a *app) explainGradientsCommand() *cobra.Command {
	var run gradientRun
	c := &cobra.Command{
		Use:   "gradients [DIR --data FILE]",
		Short: "Follow the gradient back through time, with advice",
		Long: `Measures how much of the error at the end of a sequence reaches each earlier
step: the norm of the gradient in the states h and c.

Without DIR it trains a plain RNN, a GRU and an LSTM on the adding problem (the sum
of two marked numbers in a long sequence) and shows them before and after: the RNN's
gradient vanishes, or explodes with a larger recurrent matrix, while the LSTM's cell
carries the error on. With the directory of a model it looks into that: the gradient
layer by layer, how far the gates are saturated, how many steps the units remember,
how often gradients were clipped in training, and which settings to change.

--out writes a page and its pictures.`,
		Example: `  carousel explain gradients
  carousel explain gradients --length 200 --out gradients
  carousel explain gradients run --data load.csv --json`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return oneArg("a model directory")(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := run.check(c, args); err != nil {
				return err
			}
			ctx, stop := a.catchInterrupt(c.Context())
			defer stop()
			if len(args) == 0 {
				return a.explainAdding(ctx, &run)
			}
			return a.explainModel(ctx, args[0], &run)
		},
	}
	f := c.Flags()
	f.StringVar(&run.data, "data", "", "`file` like that the model was trained on; of a translator a table with both languages")
	f.IntVar(&run.rows, "rows", 64, "sequences of the batch that is examined")
	f.IntVar(&run.adding.Length, "length", 100, "without DIR: `steps` of a sequence")
	f.IntVar(&run.adding.Hidden, "hidden", 32, "without DIR: `units` of each network")
	f.IntVar(&run.adding.Steps, "steps", 2000, "without DIR: training `steps` at most")
	f.StringVar(&run.out, "out", "", "`directory` for a page ("+explain.PageFile+") and pictures")
	run.given = optionFlags(f, nil, &run.reading)
	return c
}

// check finds misuse before anything is computed.
func (r *gradientRun) check(c *cobra.Command, args []string) error {
	for _, name := range []string{"length", "hidden", "steps"} {
		if len(args) > 0 && c.Flags().Changed(name) {
			return misusef("--%s is for the adding problem, and %s is a model; leave out one of them", name, args[0])
		}
	}
	for _, name := range []string{"data", "rows"} {
		if len(args) == 0 && c.Flags().Changed(name) {
			return misusef("--%s needs a model: name its directory", name)
		}
	}
	if err := r.given.resolve(); err != nil {
		return err
	}
	if len(args) == 0 && r.given.Given() {
		return misusef("how a table is read needs a model: name its directory")
	}
	for _, n := range []struct {
		name             string
		value, low, high int
	}{{"rows", r.rows, 1, 4096}, {"length", r.adding.Length, 10, 10_000}, {"hidden", r.adding.Hidden, 2, 1024}, {"steps", r.adding.Steps, 1, 1_000_000}} {
		if n.value < n.low || n.value > n.high {
			return misusef("--%s: want %d to %d, got %d", n.name, n.low, n.high, n.value)
		}
	}
	if info, err := os.Stat(r.out); r.out != "" && err == nil && !info.IsDir() {
		return misusef("--out %s: want a directory, and that is a file", r.out)
	}
	return nil
}

func (a *app) explainAdding(ctx context.Context, run *gradientRun) error {
	run.adding.Seed = a.seed
	a.note("Training an RNN, a GRU and an LSTM on the adding problem over %d steps.", run.adding.Length)
	s, err := explain.Adding(ctx, &run.adding)
	if errors.Is(err, context.Canceled) {
		return &interrupted{"interrupted; nothing was written"}
	}
	if err != nil {
		return err
	}
	if run.out != "" {
		if err := s.Write(run.out, carousel.Version()); err != nil {
			return err
		}
	}
	return a.emit("explain.gradients.adding", s, func(w io.Writer) { printStudy(w, s, run.out) })
}

func (a *app) explainModel(ctx context.Context, dir string, run *gradientRun) error {
	s, err := a.openSubject(ctx, dir, run)
	if err != nil {
		return err
	}
	s.Name = dir
	f, err := explain.Measure(s)
	if err != nil {
		return err
	}
	if run.out != "" {
		if err := f.Write(run.out, carousel.Version()); err != nil {
			return err
		}
	}
	return a.emit("explain.gradients.model", f, func(w io.Writer) { printFlow(w, f, run.out) })
}

// openSubject opens the model of a directory, if explain gradients supports its task.
func (a *app) openSubject(ctx context.Context, path string, run *gradientRun) (*explain.Subject, error) {
	dir, err := model.Open(path)
	if err != nil {
		return nil, err
	}
	var s *explain.Subject
	k := a.kindOf(dir)
	switch {
	case run.given.Given() && k != forecast.Task:
		return nil, misusef("the settings of a table mean nothing to a model for %s; they are for %s", dir.Task, forecast.Name)
	case dir.Task == memory.Task:
		s, err = probeMemory(dir, run.data, run.rows)
	case k == nil || !k.CanProbe():
		able := slices.DeleteFunc(slices.Clone(a.kinds), func(k *task.Kind) bool { return !k.CanProbe() })
		return nil, a.otherTask(dir, "explain gradients", able, memory.Task)
	case run.data == "":
		return nil, misusef("--data is needed: %s", k.Scores)
	default:
		s, err = probe(ctx, k, dir, run)
	}
	if err != nil {
		return nil, err
	}
	history, err := train.ReadHistory(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	s.Clipped = explain.ClippedShares(history)
	return s, nil
}

// probe is the loss of a batch of about run.rows samples of a file.
func probe(ctx context.Context, k *task.Kind, dir *model.Dir, run *gradientRun) (*explain.Subject, error) {
	m, err := k.Open(dir)
	if err != nil {
		return nil, err
	}
	files := k.Files()
	if err := settings.Named(settings.List(files), "data").Assign(run.data); err != nil {
		return nil, err
	}
	var reading []any
	if k == forecast.Task {
		reading = append(reading, &run.reading)
	}
	d, err := m.Read(ctx, files, task.All, reading...)
	if err != nil {
		return nil, err
	}
	loss, err := m.Probe(ctx, d, run.rows)
	if err != nil {
		return nil, err
	}
	s := &explain.Subject{Slab: m.Slab(), Loss: loss}
	if clip := settings.Named(settings.List(m.Settings()), "clip"); clip != nil {
		s.Clip, err = strconv.ParseFloat(clip.String(), 64)
	}
	return s, err
}

func probeMemory(dir *model.Dir, data string, rows int) (*explain.Subject, error) {
	if data != "" {
		return nil, misusef("--data: the sequences of a memory benchmark are made up; leave it out")
	}
	m, err := memory.OpenDir(dir)
	if err != nil {
		return nil, err
	}
	return &explain.Subject{Slab: m.Slab(), Loss: m.Probe(rows), Clip: m.Config().Clip}, nil
}

func printStudy(w io.Writer, s *explain.Study, out string) {
	fmt.Fprintf(w, "\nThe adding problem over %d steps, networks of %d units, seed %d\n", s.Length, s.Hidden, s.Seed)
	for _, part := range []struct {
		title string
		flows []*explain.Flow
	}{{"before training", s.Untrained}, {"after training", s.Trained}} {
		fmt.Fprintf(w, "\nNorm of dLoss/d(h,c), relative to the last step, %s\n\n", part.title)
		var lines []curve
		for _, f := range part.flows {
			lines = append(lines, curve{f.Name, relative(f.Layers[0].State())})
		}
		printLogChart(w, lines, "steps before the last")
	}
	var rows [][]string
	for _, f := range s.Untrained {
		rows = append(rows, append([]string{f.Name, "-", "-"}, flowCells(f.Layers[0])...))
	}
	for i, f := range s.Trained {
		o := s.Outcomes[i]
		rows = append(rows, append([]string{f.Name + ", trained", report.Count(o.Steps), report.Number(o.Error)}, flowCells(f.Layers[0])...))
	}
	fmt.Fprintln(w)
	printTable(w, append([]string{"", "steps", "error"}, flowHead...), rows)
	printAdvice(w, s.Advice, s.Notes(), out)
}

func printFlow(w io.Writer, f *explain.Flow, out string) {
	fmt.Fprintf(w, "%s: loss %s, gradient norm %s", f.Name, report.Number(f.Loss), report.Number(f.GradNorm))
	if f.Clip > 0 {
		fmt.Fprintf(w, ", clipped at %s", report.Number(f.Clip))
	}
	if f.Clipped != nil {
		fmt.Fprintf(w, " in %.0f %% of the training steps", 100**f.Clipped)
	}
	fmt.Fprintf(w, "\n\nNorm of dLoss/d(h,c)\n\n")
	var lines []curve
	var rows, gates [][]string
	for _, l := range f.Layers {
		lines = append(lines, curve{l.Name, l.State()})
		rows = append(rows, append([]string{l.Name, l.Cell, report.Count(l.Units), report.Count(l.Steps)}, flowCells(l)...))
		for _, g := range l.Gates {
			gates = append(gates, []string{l.Name, g.Name, fmt.Sprintf("%.2f", g.Mean), fmt.Sprintf("%.0f %%", 100*g.Low), fmt.Sprintf("%.0f %%", 100*g.High)})
		}
	}
	printLogChart(w, lines, "steps before the last")
	fmt.Fprintln(w)
	printTable(w, append([]string{"", "cell", "units", "steps"}, flowHead...), rows)
	if gates != nil {
		fmt.Fprintln(w)
		printTable(w, []string{"", "gate", "mean", "low", "high"}, gates)
	}
	printAdvice(w, f.Advice, f.Notes(), out)
}

// flowHead and flowCells are the columns of a layer's flow.
var flowHead = []string{"factor a step", "left at the first", "a thousandth after", "mean memory"}

func flowCells(l *explain.Layer) []string {
	reach, memory := report.Count(l.Reach), math.NaN()
	if l.Reach >= l.Steps {
		reach = "never"
	}
	if l.Memory != nil {
		memory = l.Memory.Mean
	}
	return []string{report.Number(l.Rate), l.LeftText(report.Number), reach, report.Number(memory)}
}

func printAdvice(w io.Writer, advice, notes []string, out string) {
	if notes != nil {
		fmt.Fprintln(w)
	}
	for _, s := range notes {
		printWrapped(w, "", s, 100)
	}
	fmt.Fprintln(w)
	for _, s := range advice {
		printWrapped(w, "- ", s, 100)
	}
	if out != "" {
		fmt.Fprintf(w, "\nThe page is %s, its pictures beside it.\n", filepath.Join(out, explain.PageFile))
	}
}

// relative is values over the first.
func relative(values []float64) []float64 {
	out := slices.Clone(values)
	for i := range out {
		out[i] /= values[0]
	}
	return out
}
