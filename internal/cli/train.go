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
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/carousel-ml/carousel/internal/cli/recipe"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/tensor"
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
	for _, t := range a.tasks() {
		if t.train != nil {
			c.AddCommand(t.train(a))
		}
	}
	return c
}

// trainRun is what the training command of every task has beside the task's own
// files and Config.
type trainRun struct {
	Out         string `json:"out" value:"dir" group:"Files" help:"directory for the model, its checkpoints and its report"`
	TensorBoard bool   `json:"tensorboard" group:"Files" help:"also write event files for TensorBoard"`

	resume bool
	again  string // what to do after an interrupt; "": this command with --resume
}

// trainTask is the training command of one task.
type trainTask struct {
	use, short, long, example string

	settings []any // pointers to the structs that flags, recipe and --set fill: the task's files, then its Config
	run      *trainRun
	seed     *uint64      // not used
	check    func() error // finds misuse before anything is read or written; it may be nil
	train    func(ctx context.Context) (*trainResult, error)
}

// assign sets the setting of a name, if the task has it.
func (t *trainTask) assign(name, value string) error {
	for _, ptr := range t.settings {
		if one := settings.Named(settings.List(ptr), name); one != nil {
			return one.Assign(value)
		}
	}
	return nil
}

const settingsHelp = `

Flags, recipe files and --set write the same settings. What is said later
counts: defaults, then --config, then --set, then flags.

Ctrl-C stops in good order: the same command with --resume continues from the
last checkpoint.`

func (a *app) trainTaskCommand(t *trainTask) *cobra.Command {
	var file string
	var pairs []string
	s := recipe.Of(slices.Insert(slices.Clone(t.settings), 1, any(t.run))...)
	c := &cobra.Command{
		Use: t.use, Short: t.short, Long: t.long + settingsHelp, Example: t.example,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := s.Resolve(file, pairs); err != nil {
				return misusef("%v", err)
			}
			if c.Flags().Changed("seed") {
				if err := t.assign("seed", strconv.FormatUint(a.seed, 10)); err != nil {
					return err
				}
			}
			if t.check != nil {
				if err := t.check(); err != nil {
					return err
				}
			}
			if t.run.Out == "" {
				return misusef("train %s needs --out, the directory for the model", c.Name())
			}
			if err := checkOut(t.run.Out, t.run.resume); err != nil {
				return err
			}
			ctx, stop := a.catchInterrupt(c.Context())
			defer stop()
			result, err := t.train(ctx)
			if errors.Is(err, context.Canceled) {
				return a.cutShort(t.run)
			}
			if err != nil {
				return err
			}
			return a.emit("train."+result.Task, result, result.print)
		},
	}
	s.Bind(c.Flags(), "seed")
	c.Flags().StringVar(&file, "config", "", "recipe `file` in YAML, one setting a line")
	c.Flags().StringArrayVar(&pairs, "set", nil, "`name=value` of any setting; may be repeated")
	c.Flags().BoolVar(&t.run.resume, "resume", false, "continue the interrupted run in --out")
	for _, name := range []string{"config", "set", "resume"} {
		c.Flags().Lookup(name).Annotations = map[string][]string{recipe.Group: {"Files"}}
	}
	return c
}

// checkOut keeps a training from writing among files that are not its own.
func checkOut(dir string, resume bool) error {
	_, err := os.Stat(dir)
	switch {
	case resume && errors.Is(err, fs.ErrNotExist):
		return misusef("--resume: %s does not exist; leave out --resume to start there", dir)
	case resume && !exists(dir, checkpointDir):
		return misusef("--resume: %s holds no checkpoint; give the --out of an interrupted run, or leave out --resume", dir)
	case resume:
		return nil
	case exists(dir, checkpointDir) || exists(dir, model.ConfigFile):
		return misusef("--out %s holds a run already; give another directory, or --resume to continue that run", dir)
	}
	return checkNew(dir)
}

// checkNew wants a directory that is not there yet, or is empty.
func checkNew(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return misusef("--out %s: want a directory: %v", dir, plainFileError(err))
	case len(entries) > 0:
		return misusef("--out %s is not empty; give a directory that is new or empty", dir)
	}
	return nil
}

const checkpointDir = "checkpoints"

func exists(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}

// catchInterrupt cancels the context at the first Ctrl-C, so that training
// leaves a checkpoint, and lets the second one kill.
func (a *app) catchInterrupt(ctx context.Context) (context.Context, func()) {
	a.catching.Store(true)
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, func() {
		a.catching.Store(false)
		stop()
	}
}

// endOnInterrupt ends the process at a Ctrl-C that the command does not catch,
// as the system would, but for the object on stdout and the line on stderr.
func (a *app) endOnInterrupt() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		for range signals {
			if !a.catching.Swap(false) { // what is caught once kills the second time
				fmt.Fprintln(a.stderr, "carousel: interrupted")
				a.printJSON("error", problemOf(context.Canceled), nil) // not where a result is on its way
				os.Exit(exitInterrupted)
			}
		}
	}()
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

// where is a training's place and its progress.
func (a *app) where(run *trainRun) *train.Run {
	return &train.Run{Dir: run.Out, Resume: run.resume, TensorBoard: run.TensorBoard, Progress: a.progress()}
}

// stopped says how to go on after Ctrl-C.
func (a *app) stopped(run *trainRun, r *train.Result) error {
	again := run.again
	if again == "" {
		again = "to continue: " + a.resumeCommand()
	}
	return &interrupted{fmt.Sprintf("interrupted at step %s; %s", count(r.Steps), again)}
}

// cutShort is stopped where Ctrl-C came before or after the training proper.
func (a *app) cutShort(run *trainRun) error {
	if !exists(run.Out, checkpointDir) {
		return &interrupted{"interrupted before training began"}
	}
	return &interrupted{"interrupted; to continue: " + a.resumeCommand()}
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
	Task       string     `json:"task"`                 // the task of the model
	Dir        string     `json:"dir"`                  // directory of the model
	Parameters int        `json:"parameters"`           // numbers that were trained
	Epochs     int        `json:"epochs"`               // passes over the training data that were made
	Steps      int        `json:"steps"`                // optimizer steps that were made
	BestEpoch  int        `json:"best_epoch,omitempty"` // the epoch whose weights were kept, from 1; absent where none was chosen
	Stopped    train.Stop `json:"stopped"`              // why it ended: epochs (all done), steps (all done), time (is up), patience (no more improvement) or asked
	Seconds    float64    `json:"seconds"`              // wall time of the training
	Report     string     `json:"report"`               // the report's file
	Evaluation any        `json:"evaluation,omitempty"` // of the test part or, without one, of the validation part, as evaluate prints it; absent if there is neither
	Notes      []string   `json:"notes,omitempty"`      // those of the evaluation not repeated

	show func(w io.Writer) // Evaluation for people; nil if there is none
}

// newTrainResult is the result of a training that ended, without an evaluation yet.
func newTrainResult(task string, run *trainRun, slab *tensor.Slab, r *train.Result) *trainResult {
	out := &trainResult{
		Task: task, Dir: run.Out, Epochs: r.Epochs, Steps: r.Steps, Stopped: r.Stopped, Seconds: r.Elapsed.Seconds(),
		Report: filepath.Join(run.Out, "report.html"), Parameters: slab.NumElements(),
	}
	if r.Best != nil {
		out.BestEpoch = r.Best.Epoch
	}
	return out
}

func (r *trainResult) print(w io.Writer) {
	fmt.Fprintf(w, "Trained for %s, %s, %.0f s (%s).\n", plural(r.Epochs, "epoch"), plural(r.Steps, "step"), r.Seconds, stopReasons[r.Stopped])
	if r.show != nil {
		r.show(w)
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
