package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/forecast"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/train"
)

func (a *app) trainCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "train",
		Short:   "Train a model",
		Long:    "Trains a model of one task. Each task is a command of its own.",
		Example: "  carousel train forecast --data sales.csv --time date --target units --out run",
		GroupID: groupWork,
		Args:    noArgs,
		RunE:    showHelp,
	}
	c.AddCommand(a.trainForecastCommand())
	return c
}

// runFiles are what a training needs beside its Config.
type runFiles struct {
	Data        string `json:"data" group:"Files" help:"table to learn from: CSV, TSV, .tsf or Parquet; may be gzipped"`
	Out         string `json:"out" group:"Files" help:"directory for the model, its checkpoints and its report"`
	TensorBoard bool   `json:"tensorboard" group:"Files" help:"also write event files for TensorBoard"`
}

// forecastRun is one training of a forecasting model.
type forecastRun struct {
	files  runFiles
	cfg    forecast.Config
	resume bool
	again  string // what to do after an interrupt; "": this command with --resume
}

func (a *app) trainForecastCommand() *cobra.Command {
	run := forecastRun{cfg: forecast.Defaults()}
	var recipe string
	var pairs []string
	s := &settings{}
	c := &cobra.Command{
		Use:   "forecast --data FILE --target COLUMN --out DIR",
		Short: "Train a forecasting model on a table of time series",
		Long: `Trains a forecasting model, scores it and the simple methods on the rows kept
for the test, and writes model, checkpoints and report into --out.

Flags, recipe files and --set write the same settings. What is said later
counts: defaults, then --config, then --set, then flags.

Ctrl-C stops in good order: the same command with --resume continues from the
last checkpoint.`,
		Example: `  carousel train forecast --data sales.csv --time date --target units --out run
  carousel train forecast --data load.csv.gz --time time --target mw --future temp --holiday holiday \
      --horizon 24 --loss quantile --out run
  carousel train forecast --data shops.parquet --time day --id shop --target sales --static region --out run
  carousel train forecast --config recipe.yaml --set hidden=128 --out run`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := s.resolve(recipe, pairs); err != nil {
				return err
			}
			if c.Flags().Changed("seed") {
				run.cfg.Seed = a.seed
			}
			if err := run.check(); err != nil {
				return err
			}
			result, err := a.trainForecast(c.Context(), &run)
			if err != nil {
				return err
			}
			return a.emit(result, result.print)
		},
	}
	s.add(&run.files, "Files")
	s.add(&run.cfg, "Settings")
	s.bind(c.Flags(), "seed")
	c.Flags().StringVar(&recipe, "config", "", "recipe `file` in YAML, one setting a line")
	c.Flags().StringArrayVar(&pairs, "set", nil, "`name=value` of any setting; may be repeated")
	c.Flags().BoolVar(&run.resume, "resume", false, "continue the interrupted run in --out")
	for _, name := range []string{"config", "set", "resume"} {
		c.Flags().Lookup(name).Annotations = map[string][]string{groupAnnotation: {"Files"}}
	}
	return c
}

// check finds misuse before anything is read or written.
func (r *forecastRun) check() error {
	for _, need := range []struct{ flag, value, what string }{
		{"data", r.files.Data, "the table to learn from"},
		{"out", r.files.Out, "the directory for the model"},
	} {
		if need.value == "" {
			return misusef("train forecast needs --%s, %s", need.flag, need.what)
		}
	}
	if name := strings.TrimSuffix(strings.ToLower(r.files.Data), ".gz"); r.cfg.Layout == data.LayoutLong && strings.HasSuffix(name, ".tsf") {
		r.cfg.Layout = data.LayoutTSF
	}
	if err := r.cfg.Validate(); err != nil {
		return err
	}
	return checkOut(r.files.Out, r.resume)
}

// checkOut keeps a training from writing among files that are not its own.
func checkOut(dir string, resume bool) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && resume:
		return misusef("--resume: %s does not exist; leave out --resume to start there", dir)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return misusef("--out %s: want a directory: %v", dir, plainFileError(err))
	}
	ours := exists(dir, checkpointDir) || exists(dir, model.ConfigFile)
	switch {
	case resume && !exists(dir, checkpointDir):
		return misusef("--resume: %s holds no checkpoint; give the --out of an interrupted run, or leave out --resume", dir)
	case resume || len(entries) == 0:
		return nil
	case ours:
		return misusef("--out %s holds a run already; give another directory, or --resume to continue that run", dir)
	}
	return misusef("--out %s is not empty; give a directory that is new or empty", dir)
}

const checkpointDir = "checkpoints"

func exists(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}

// trainForecast reads, trains, evaluates and reports.
func (a *app) trainForecast(ctx context.Context, run *forecastRun) (*trainResult, error) {
	panel, err := readPanel(run.files.Data, &run.cfg)
	if err != nil {
		return nil, err
	}
	ctx, stop := catchInterrupt(ctx)
	defer stop()
	m, result, err := forecast.Train(ctx, panel, run.cfg, &forecast.TrainOptions{
		Dir:         run.files.Out,
		Resume:      run.resume,
		TensorBoard: run.files.TensorBoard,
		Progress:    a.progress(),
	})
	if err != nil {
		return nil, err
	}
	if result.Interrupted {
		return nil, a.stopped(run, result)
	}
	return a.finishForecast(run, panel, m, result)
}

// catchInterrupt cancels the context at the first Ctrl-C, so that training
// leaves a checkpoint, and lets the second one kill.
func catchInterrupt(ctx context.Context) (context.Context, func()) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// finishForecast scores a trained model on the test part, if there is one, and
// writes the report.
func (a *app) finishForecast(run *forecastRun, panel *data.Panel, m *forecast.Model, r *train.Result) (*trainResult, error) {
	out := &trainResult{
		Task:    forecast.Task,
		Dir:     run.files.Out,
		Epochs:  r.Epochs,
		Steps:   r.Steps,
		Stopped: r.Stopped,
		Seconds: r.Elapsed.Seconds(),
		Report:  filepath.Join(run.files.Out, "report.html"),
	}
	if cfg := m.Config(); len(cfg.Future) > 0 {
		out.Notes = append(out.Notes, strings.Join(cfg.Future, ", ")+": taken as known ahead, in training and in the scores")
	}
	for _, p := range m.Slab().Params {
		out.Parameters += p.Len()
	}
	if r.Best != nil {
		out.BestEpoch = r.Best.Epoch
	}
	var err error
	if out.Evaluation, err = m.Evaluate(panel, "test"); err != nil {
		var none *data.InputError
		if !errors.As(err, &none) {
			return nil, err
		}
		out.Notes = append(out.Notes, m.Notes()...)
		out.Notes = append(out.Notes, "not scored: "+err.Error()) // such as a split without a test part
	}
	page := forecastReport(run, panel, m, r, out)
	return out, page.Write(run.files.Out)
}

// progress shows a training on stderr: a bar on a terminal, lines elsewhere.
func (a *app) progress() *train.Progress {
	if a.quiet {
		return nil
	}
	if f, ok := a.stderr.(*os.File); ok {
		return train.NewProgress(f)
	}
	return &train.Progress{W: a.stderr}
}

// readPanel reads a table with the columns that cfg names.
func readPanel(path string, cfg *forecast.Config) (*data.Panel, error) {
	o, err := cfg.ReadOptions()
	if err != nil {
		return nil, err
	}
	return data.ReadPanel(path, o)
}

// stopped says how to go on after Ctrl-C.
func (a *app) stopped(run *forecastRun, r *train.Result) error {
	again := run.again
	if again == "" {
		again = "to continue: " + a.resumeCommand()
	}
	return &interrupted{fmt.Sprintf("interrupted at step %s; %s", count(r.Steps), again)}
}

// resumeCommand is this command with --resume.
func (a *app) resumeCommand() string {
	words := []string{"carousel"}
	resumes := false
	for _, arg := range a.args {
		resumes = resumes || arg == "--resume"
		words = append(words, shellQuote(arg))
	}
	if !resumes {
		words = append(words, "--resume")
	}
	return strings.Join(words, " ")
}

// shellQuote writes an argument as a POSIX shell reads it back.
func shellQuote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./=,:@%+", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// trainResult is what train prints.
type trainResult struct {
	Task       string               `json:"task"`
	Dir        string               `json:"dir"`
	Parameters int                  `json:"parameters"`
	Epochs     int                  `json:"epochs"`
	Steps      int                  `json:"steps"`
	BestEpoch  int                  `json:"best_epoch,omitempty"`
	Stopped    train.Stop           `json:"stopped"`
	Seconds    float64              `json:"seconds"`
	Report     string               `json:"report"`
	Evaluation *forecast.Evaluation `json:"evaluation,omitempty"` // of the test part; absent if that is empty
	Notes      []string             `json:"notes,omitempty"`      // those of the evaluation not repeated
}

func (r *trainResult) print(w io.Writer) {
	fmt.Fprintf(w, "Trained for %s, %s, %.0f s (%s).\n", plural(r.Epochs, "epoch"), plural(r.Steps, "step"), r.Seconds, stopReasons[r.Stopped])
	if r.Evaluation != nil {
		printEvaluation(w, r.Evaluation)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "Note: %s\n", n)
	}
	fmt.Fprintf(w, "\nThe model is in %s, the report in %s.\n", r.Dir, r.Report)
}

// stopReasons say why a run ended.
var stopReasons = map[train.Stop]string{
	train.StopEpochs:   "all epochs done",
	train.StopSteps:    "all steps done",
	train.StopTime:     "time is up",
	train.StopPatience: "no more improvement",
	train.StopAsked:    "stopped on request",
}
