// Package cli is the carousel command: it turns flags and recipe files into
// the task packages' Config, runs them, and prints the results.
//
// Results go to stdout, and everything else (progress, notes, errors) to
// stderr. With --json stdout holds exactly one JSON object, of a schema in the table
// schemas, also where a command fails.
package cli

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/spf13/cobra"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/dist"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/result"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// Exit codes of the command.
const (
	exitOK          = 0
	exitFailure     = 1
	exitMisuse      = 2   // wrong flags, wrong data, a directory without a model
	exitInterrupted = 130 // Ctrl-C, as shells report it
)

// app is one run of the command: its streams and the flags every command has.
type app struct {
	kinds []*task.Kind // all tasks

	args   []string
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer

	printing  sync.Mutex
	printed   bool // an object is on stdout, so there must be no other
	begun     *result.Parts
	catching  atomic.Bool // the command handles Ctrl-C itself
	hearsNews atomic.Bool // SIGHUP is not to end it; see isNews

	stop atomic.Pointer[context.CancelFunc] // ends the command as Ctrl-C does; nil if it has no such way
	lack atomic.Pointer[exhausted]          // of memory, because of which stop was called

	ranks int                        // that train together, of this process or of those that it launches; 0: this process alone
	place *dist.Place                // of this process among them; nil: it trains alone
	world atomic.Pointer[dist.World] // that it has joined

	json    bool
	quiet   bool
	hushed  bool // quiet was asked for; ranks above 0 are quiet in any case, but for what they notice
	seed    uint64
	threads int

	computes deviceFlags
}

// Main runs the command and returns the process's exit code.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{kinds: carousel.Tasks, args: args, stdin: stdin, stdout: stdout, stderr: stderr}
	a.json = asksForJSON(args) // before the flags are parsed, which may fail
	if code, done := a.supervise(); done {
		return code
	}
	a.guardMemory()
	if f, ok := stdout.(*os.File); ok && isClosed(f) {
		a.stdout = closedOutput{}
	}
	if a.json {
		a.endOnInterrupt()
	}
	return a.run(context.Background())
}

func (a *app) run(ctx context.Context) (code int) {
	defer func() {
		if p := recover(); p != nil {
			if failed, ok := p.(*tensor.DeviceError); ok { // where nothing else has caught it
				a.complain(failed)
				code = exitFailure
				return
			}
			code = reportPanic(a.stderr, p)
			err := fmt.Errorf("internal error: %v", p)
			_ = a.leave(err) // so that the other ranks say why
			a.printProblem(err)
		}
	}()
	root := a.rootCommand()
	a.json = asksForJSON(a.args) // before the flags are parsed, which may fail
	root.SetArgs(a.args)
	if a.args == nil {
		root.SetArgs([]string{}) // cobra reads os.Args for nil
	}
	root.SetIn(a.stdin)
	// What cobra prints by itself, and commands without a result.
	var text bytes.Buffer
	out := &checked{w: a.stdout}
	if a.json {
		out.w = &text
	}
	root.SetOut(out)
	root.SetErr(a.stderr)
	err := unknownCommand(root, a.args)
	if err == nil {
		err = root.ExecuteContext(ctx)
	}
	err = cmp.Or(err, out.err)
	if err == nil && text.Len() > 0 {
		err = a.printJSON("text", printedText{text.String()}, nil)
	}
	if err == nil {
		return exitOK
	}
	err = a.short(err)
	a.complain(err)
	return exitCode(err)
}

// reportPanic prints a programmer's mistake as one line, and its stack on request.
func reportPanic(w io.Writer, p any) int {
	if os.Getenv("CAROUSEL_DEBUG") == "1" {
		fmt.Fprintf(w, "carousel: internal error: %v\n%s", p, debug.Stack())
		return exitFailure
	}
	fmt.Fprintf(w, "carousel: internal error: %s (CAROUSEL_DEBUG=1 prints the stack)\n", oneLine(fmt.Sprint(p)))
	return exitFailure
}

func (a *app) rootCommand() *cobra.Command {
	version := false
	root := &cobra.Command{
		Use:   "carousel",
		Short: "Train and use LSTM models, from one binary",
		Long: `Carousel trains recurrent sequence models (LSTM, GRU, RNN) on tables of
time series, on texts and on sounds, compares them with simple methods, and applies
them to new data.

The result of a training is one directory, which holds all that later commands need.`,
		Example: `  carousel demo
  carousel train forecast --data sales.csv --time date --target units --out run
  carousel predict run --data sales.csv --out forecast.csv`,
		Args: noArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if version {
				return a.printVersion()
			}
			return showHelp(c, args)
		},
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: a.start,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SuggestionsMinimumDistance = 2
	root.Flags().BoolVar(&version, "version", false, "print the version, as the command version does")
	flags := root.PersistentFlags()
	flags.BoolVar(&a.json, "json", false, "print one JSON object on stdout, everything else on stderr")
	flags.BoolVar(&a.quiet, "quiet", false, "print only results and errors")
	flags.Uint64Var(&a.seed, "seed", 1, "seed `n` of everything random: the same seed gives the same bits")
	flags.IntVar(&a.threads, "threads", 0, "compute with `n` threads (default all cores); results do not depend on it")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		a.json = asksForJSON(a.args) // the faulty flag may be --json itself
		return flagError(c, err)
	})
	root.SetUsageFunc(usage)
	root.AddGroup(&cobra.Group{ID: groupWork, Title: "Commands:"}, &cobra.Group{ID: groupAbout, Title: "About:"})
	root.SetHelpCommandGroupID(groupAbout)
	root.SetCompletionCommandGroupID(groupAbout)
	root.AddCommand(
		a.demoCommand(), a.trainCommand(), a.launchCommand(), a.findRateCommand(), a.findBatchCommand(), a.tuneCommand(), a.evaluateCommand(), a.predictCommand(), a.quantizeCommand(),
		a.backtestCommand(), a.detectAnomaliesCommand(), a.generateCommand(), a.scoreCommand(), a.runCommand(), a.serveCommand(), a.importCommand(), a.exportCommand(), a.inspectCommand(),
		a.explainCommand(), a.benchCommand(), a.doctorCommand(), a.versionCommand(), docsCommand(),
		a.transcribeCommand(), a.detectSpeechCommand(), a.detectWordsCommand(), a.denoiseCommand(), a.segmentCommand(), a.g2pCommand(),
		a.loadtestCommand(),
	)
	keepOrder(root)
	completeChoices(root)
	return root
}

// Groups of the commands in the root's help.
const (
	groupWork  = "work"
	groupAbout = "about"
)

func showHelp(c *cobra.Command, _ []string) error { return c.Help() }

// start applies the flags that every command has.
func (a *app) start(c *cobra.Command, args []string) error {
	a.json = a.json && c.Flags().Changed("json") // and is not the value of another flag
	if _, err := simd.Named(""); err != nil {
		return misusef("%v", err)
	}
	if a.threads < 0 {
		return misusef("--threads %d: want a positive number, or 0 for all cores", a.threads)
	}
	if a.threads > 0 {
		par.SetWorkers(a.threads)
	}
	if err := a.computes.check(); err != nil {
		return err
	}
	return a.checkOut(c, args)
}

// note prints a message that is not a result, unless --quiet.
func (a *app) note(format string, args ...any) {
	if !a.quiet {
		fmt.Fprintf(a.stderr, format+"\n", args...)
	}
}

// remark writes a sentence on what a user might not expect.
func (a *app) remark(text string) { a.note("Note: %s", text) }

func (a *app) remarks(list []string) {
	for _, text := range list {
		a.remark(text)
	}
}

// unknownCommand finds a mistyped command before its flags are parsed, so that
// the message names the command and not a flag.
func unknownCommand(root *cobra.Command, args []string) error {
	c, rest, err := root.Find(args)
	if err != nil || !c.HasSubCommands() || len(rest) == 0 || strings.HasPrefix(rest[0], "-") {
		return err
	}
	if rest[0] == "help" || rest[0] == cobra.ShellCompRequestCmd || rest[0] == cobra.ShellCompNoDescRequestCmd || rest[0] == "completion" {
		return nil // added by cobra when it executes
	}
	return misusef("unknown command %q for %q%s", rest[0], c.CommandPath(), settings.DidYouMean(rest[0], commandNames(c), "", "the commands are "))
}
