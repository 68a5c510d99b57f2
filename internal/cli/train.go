package cli

import (
	"cmp"
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
	"time"

	"github.com/spf13/cobra"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/dist"
	"github.com/carousel-ml/carousel/internal/cli/recipe"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
	"github.com/carousel-ml/carousel/tune/store"
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
	for _, k := range a.kinds {
		c.AddCommand(a.trainTaskCommand(k))
	}
	return c
}

// trainRun holds the flags of the training command that all tasks share, besides
// the task's files and Config.
type trainRun struct {
	Out         string `json:"out" value:"dir" group:"Files" help:"directory for the model, its checkpoints and its report"`
	TensorBoard bool   `json:"tensorboard" group:"Files" help:"also write event files for TensorBoard"`
	Timeline    string `json:"timeline" value:"file" group:"Files" help:"also write when each step loads, computes and waits, in Chrome's trace format; of several ranks each writes a file (.rank1 before the extension)"`
	Reduce      string `json:"reduce" oneof:"f32,bf16" group:"Ranks" help:"numbers in which ranks send each other gradients; those of 16 bits halve the bytes, and the weights are then not those of one process"`

	resume bool
	again  string // what to do after an interrupt; "": this command with --resume
}

func defaultRun() *trainRun { return &trainRun{Reduce: "f32"} }

const settingsHelp = `

Flags, recipe files and --set write the same settings. Later ones override earlier
ones: defaults, then --config, then --set, then flags.

Ctrl-C ends a training: --out then holds the model with the best weights so far,
and the same command with --resume continues. A command with --resume also starts
a new run if there is none, so it can be repeated at any time.`

// trainTaskCommand is the training command of a task.
func (a *app) trainTaskCommand(k *task.Kind) *cobra.Command {
	var recipeFile string
	var pairs []string
	files, cfg, run := k.Files(), k.Config(), defaultRun()
	s := recipe.Of(files, run, cfg)
	c := &cobra.Command{
		Use:   k.Name + " " + cmp.Or(k.Needs, "--data FILE") + " --out DIR",
		Short: k.Short, Long: k.Long + settingsHelp, Example: k.Example,
		Args: noArgs,
		// What can be checked before a process meets others, or is started.
		PreRunE: func(c *cobra.Command, _ []string) error {
			err := s.Resolve(recipeFile, pairs)
			if err == nil {
				err = settings.Check(run)
			}
			if err != nil {
				return misusef("%v", err)
			}
			if c.Flags().Changed("seed") {
				assignSeed(cfg, a.seed)
			}
			if err := checkFiles(files); err != nil {
				return misusef("train %s %v", k.Name, err)
			}
			k.ForFiles(files, cfg)
			if err := cfg.Validate(); err != nil {
				return err
			}
			if run.Out == "" {
				return misusef("train %s needs --out, the directory for the model", k.Name)
			}
			if a.ranks == 0 {
				if err := a.findPlace(); err != nil {
					return err
				}
			}
			if err := a.checkRanks(files, cfg); err != nil || !a.writes() {
				return err
			}
			return checkRun(run.Out, run.resume)
		},
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := a.catchInterrupt(c.Context())
			defer stop()
			result, err := a.trainTogether(ctx, k, files, cfg, run)
			if errors.Is(err, context.Canceled) {
				return a.cutShort(run)
			}
			if err != nil || !a.writes() {
				return err
			}
			return a.emit("train."+k.Name, result, result.print)
		},
	}
	s.Bind(c.Flags(), "seed")
	c.Flags().StringVar(&recipeFile, "config", "", "recipe `file` in YAML, one setting a line")
	c.Flags().StringArrayVar(&pairs, "set", nil, "`name=value` of any setting; may be repeated")
	c.Flags().BoolVar(&run.resume, "resume", false, "continue the run in --out, or start it if there is none")
	for _, name := range []string{"config", "set", "resume"} {
		c.Flags().Lookup(name).Annotations = map[string][]string{recipe.Group: {"Files"}}
	}
	a.computes.bind(c.Flags())
	return c
}

// assignSeed sets the setting seed of a struct, if it has one.
func assignSeed(ptr any, seed uint64) {
	if one := settings.Named(settings.List(ptr), "seed"); one != nil {
		_ = one.Assign(strconv.FormatUint(seed, 10)) // every number is a seed
	}
}

// seedOf returns the setting seed of a struct, 1 if it has none.
func seedOf(ptr any) uint64 {
	if one := settings.Named(settings.List(ptr), "seed"); one != nil {
		if seed, err := strconv.ParseUint(one.String(), 10, 64); err == nil {
			return seed
		}
	}
	return 1
}

// limitOf returns the setting max_time of a struct, 0 if it has none.
func limitOf(ptr any) time.Duration {
	if one := settings.Named(settings.List(ptr), "max_time"); one != nil {
		if d, err := time.ParseDuration(one.String()); err == nil {
			return d
		}
	}
	return 0
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

// Notes on a model that is scored on the validation part because there is no test
// part; the second one is for tasks with --test.
const (
	scoredOnChoosing   = "scored on the validation part, which also chose the weights"
	scoredOnValidation = scoredOnChoosing + "; give a file of its own with --test"
)

// trainTogether is train in a process that may be one of several ranks. When it returns, all
// have ended.
func (a *app) trainTogether(ctx context.Context, k *task.Kind, files any, cfg task.Config, run *trainRun) (*trainResult, error) {
	if err := a.meet(ctx); err != nil {
		return nil, err
	}
	result, err := a.train(ctx, k, files, cfg, run)
	err = a.leave(err)
	if lost := (*dist.RankError)(nil); errors.As(err, &lost) && ctx.Err() != nil {
		err = ctx.Err() // all were asked to end, and another rank did so first
	}
	return result, err
}

// train reads, trains, evaluates and reports.
func (a *app) train(ctx context.Context, k *task.Kind, files any, cfg task.Config, run *trainRun) (*trainResult, error) {
	if _, err := a.device(); err != nil { // before the data are read
		return nil, err
	}
	d, err := k.Read(ctx, files, cfg)
	if err != nil {
		return nil, err
	}
	if err := a.sameFiles(files, cfg); err != nil {
		return nil, err
	}
	notes := slices.Clone(d.Notes())
	if one, ok := d.(interface{ Hints() []string }); ok {
		notes = append(notes, one.Hints()...)
	}
	a.remarks(notes) // now, while it can still be stopped
	where := a.where(run)
	if where.Timeline, err = a.timeline(run); err != nil {
		return nil, err
	}
	defer func() {
		if err := where.Timeline.Close(); err != nil {
			a.remark(fmt.Sprintf("the timeline %s is not whole: %v", run.Timeline, plainFileError(err)))
		}
	}()
	var told *kubeflow
	if a.writes() {
		told = newKubeflow(os.Getenv, a.remark)
	}
	defer told.watch(&where.Hooks, limitOf(cfg))()
	m, result, err := k.Train(ctx, d, cfg, where)
	if err != nil {
		return nil, a.lostDevice(run, err)
	}
	if result.Interrupted {
		return nil, a.stopped(run, result)
	}
	out := newTrainResult(k.Name, run, m.Slab(), result)
	out.Ranks = a.ranks
	out.Notes = slices.Concat(notes, firstIsBest(result), moved(result))
	if !a.quiet {
		out.told = len(notes)
	}
	ctx = train.WithWorld(ctx, a.joined())
	if err := m.Recognise(ctx, d); err != nil { // so that the scores are those of evaluate on the same files
		return nil, err
	}
	e, err := a.scoreTrained(ctx, m, d, out)
	if err != nil {
		return nil, err
	}
	page, err := trainPage(ctx, m, d, result, out, e)
	if err == nil && a.writes() {
		err = page.WriteDir(run.Out)
	}
	if err == nil {
		told.finish()
	}
	return out, err
}

// firstIsBest is a note on a training whose first epoch was never improved on.
func firstIsBest(r *train.Result) []string {
	if r.Best == nil || r.Best.Epoch > 1 || r.Epochs == 1 {
		return nil
	}
	return []string{fmt.Sprintf("the model is that of epoch 1: no later epoch, of %s in all, scored better in validation, so the network has learnt little or too fast; try another learning rate (lr) or more data", report.Plural(r.Epochs, "epoch"))}
}

// moved is a note on a training that was resumed on another device or with other
// kernels, whose sums differ in their last bits.
func moved(r *train.Result) []string {
	if len(r.Devices) < 2 {
		return nil
	}
	return []string{"trained on " + strings.Join(r.Devices, " and then on ") + ", which round differently: the weights are not bit for bit those of a run on one of them"}
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

// checkRun returns an error if --out holds files that a training must not write among.
func checkRun(dir string, resume bool) error {
	begun := train.HasCheckpoint(dir)
	switch {
	case begun && resume:
		return nil
	case begun:
		return misusef("--out %s holds a run already; give another directory, or --resume to continue that run", dir)
	case exists(dir, model.ConfigFile):
		return misusef("--out %s holds a model already; give another directory", dir)
	}
	return checkNew(dir, train.Leftovers...)
}

// checkNew returns an error unless a directory is missing or holds only leftovers.
func checkNew(dir string, leftovers ...string) error {
	entries, err := os.ReadDir(dir)
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return slices.Contains(leftovers, e.Name()) })
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

func exists(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}

// endings are the signals that ask the process to end: Ctrl-C, that of kill, and
// that of a closed terminal, unless it is ignored as under nohup.
func endings() []os.Signal {
	list := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		list = append(list, syscall.SIGHUP)
	}
	return list
}

// isNews reports whether a signal says that files have changed, and is not to end the command.
func (a *app) isNews(s os.Signal) bool { return s == syscall.SIGHUP && a.hearsNews.Load() }

// catchInterrupt cancels the context at the first Ctrl-C, so that training
// leaves a checkpoint; the second one ends the process.
func (a *app) catchInterrupt(ctx context.Context) (context.Context, func()) {
	a.catching.Store(true)
	ctx, end := a.stoppable(ctx)
	ctx, stop := signal.NotifyContext(ctx, slices.DeleteFunc(endings(), a.isNews)...)
	context.AfterFunc(ctx, stop)
	return ctx, func() {
		a.catching.Store(false)
		stop()
		end()
	}
}

// endOnInterrupt ends the process at a Ctrl-C that the command does not catch,
// as the system would, after an object on stdout and a line on stderr.
func (a *app) endOnInterrupt() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, endings()...)
	go func() {
		for s := range signals {
			if a.isNews(s) {
				continue
			}
			if !a.catching.Swap(false) { // the second Ctrl-C ends the process in any case
				a.end(context.Canceled)
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

// where returns the options of a training run: its directory and progress.
func (a *app) where(run *trainRun) *train.Run {
	return &train.Run{Dir: run.Out, Resume: run.resume, TensorBoard: run.TensorBoard, Progress: a.progress(), World: a.joined(), Compress: run.Reduce == "bf16", Device: a.computes.opened}
}

// stopped returns the error after Ctrl-C, which tells how to continue.
func (a *app) stopped(run *trainRun, r *train.Result) error {
	again := run.again
	if again == "" {
		again = "to continue: " + a.resumeCommand()
	}
	kept := ""
	switch {
	case !r.Trained():
	case r.Best != nil:
		kept = fmt.Sprintf("; %s holds the model of epoch %d, the best so far", run.Out, r.Best.Epoch)
	default:
		kept = fmt.Sprintf("; %s holds the model as it is now", run.Out)
	}
	return &interrupted{fmt.Sprintf("interrupted at step %s%s; %s", report.Count(r.Steps), kept, again)}
}

// cutShort is stopped for a Ctrl-C before or after the training itself.
func (a *app) cutShort(run *trainRun) error {
	if !train.HasCheckpoint(run.Out) {
		return &interrupted{"interrupted before training began; to begin again, repeat the command"}
	}
	return &interrupted{"interrupted; to continue: " + a.resumeCommand()}
}

// resumeCommand is this command with --resume, without the password of a study's address;
// of a rank that which started all of them, as far as it is known.
func (a *app) resumeCommand() string {
	words := []string{"carousel"}
	if p := a.place; p != nil {
		if p.Launcher != dist.Launch || p.LocalSize < p.Size {
			return fmt.Sprintf("start all %d ranks again, with --resume", p.Size)
		}
		words = append(words, "launch", "-n", strconv.Itoa(p.Size), "--")
	}
	resumes := false
	for _, arg := range a.args {
		resumes = resumes || arg == "--resume"
		flag, address, both := strings.Cut(arg, "=")
		if strings.HasPrefix(flag, "--") && both {
			arg = flag + "=" + store.Public(address)
		}
		words = append(words, shellQuote(store.Public(arg)))
	}
	if !resumes {
		words = append(words, "--resume")
	}
	return strings.Join(words, " ")
}

// shellQuote writes an argument on one line, as a POSIX shell reads it back, or with
// control characters as bash, zsh and ksh do.
func shellQuote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./=,:@%+", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) { // the message is one line
		var b strings.Builder
		for i := range len(s) {
			switch c := s[i]; {
			case c == '\'' || c == '\\':
				b.WriteString(`\` + string(c))
			case c < ' ' || c == 0x7f:
				fmt.Fprintf(&b, `\x%02x`, c)
			default:
				b.WriteByte(c)
			}
		}
		return "$'" + b.String() + "'"
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// trainResult is the result of train.
type trainResult struct {
	Task       string     `json:"task"`                 // the task of the model
	Dir        string     `json:"dir"`                  // directory of the model
	Parameters int        `json:"parameters"`           // numbers that were trained
	Epochs     int        `json:"epochs"`               // passes over the training data that were made
	Steps      int        `json:"steps"`                // optimizer steps that were made
	BestEpoch  int        `json:"best_epoch,omitempty"` // the epoch whose weights were kept, from 1; absent where none was chosen
	Stopped    train.Stop `json:"stopped"`              // why it ended: epochs (all done), steps (all done), time (is up), patience (no more improvement) or asked
	Seconds    float64    `json:"seconds"`              // wall time of the training
	Ranks      int        `json:"ranks,omitempty"`      // processes that trained together; absent where it was one
	Report     string     `json:"report"`               // the report's file
	Evaluation any        `json:"evaluation,omitempty"` // of the test part or, without one, of the validation part, as evaluate prints it; absent if there is neither
	Notes      []string   `json:"notes,omitempty"`      // those of the evaluation not repeated

	show func(w io.Writer) // Evaluation for people; nil if there is none
	told int               // of Notes: those that were printed before the training
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
	fmt.Fprintf(w, "Trained for %s, %s, %.0f s (%s).\n", report.Plural(r.Epochs, "epoch"), report.Plural(r.Steps, "step"), r.Seconds, stopReasons[r.Stopped])
	if r.show != nil {
		r.show(w)
	}
	for _, n := range r.Notes[r.told:] {
		fmt.Fprintf(w, "Note: %s\n", n)
	}
	fmt.Fprintf(w, "\nThe model is in %s, the report in %s.\n", r.Dir, r.Report)
}

// stopReasons describe why a run ended.
var stopReasons = map[train.Stop]string{
	train.StopEpochs:   "all epochs done",
	train.StopSteps:    "all steps done",
	train.StopTime:     "time is up",
	train.StopPatience: "no more improvement",
	train.StopAsked:    "stopped on request",
}
