package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/cli/recipe"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/internal/yaml"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/train"
	"github.com/carousel-ml/carousel/tune"
	"github.com/carousel-ml/carousel/tune/store"
	"github.com/carousel-ml/carousel/tune/trials"
)

// searchOptions are the settings of a search, whatever is tuned.
type searchOptions struct {
	Trials       int           `json:"trials" range:"1..1e6" group:"Search" help:"trials to begin"`
	Time         time.Duration `json:"time" range:"0s.." group:"Search" help:"time after which no trial begins or goes on; with what follows it takes half as long again at most, or the repeats are left out (0: no limit)"`
	Workers      int           `json:"workers" range:"1..1024" group:"Search" help:"trials that are computed at once; they share the cores and the memory"`
	Space        string        `json:"space" value:"file" group:"Search" help:"YAML file of the parameters with their ranges (empty: the task's own)"`
	Study        string        `json:"study" value:"file" group:"Search" help:"file that keeps the study, or address of a PostgreSQL database, postgres://... (empty: study.db in --out, or TASK-study.db)"`
	Objective    []string      `json:"objective" group:"Search" help:"what trials are compared by: a metric of the validation part; beside it may stand latency, in ms, and size, in bytes (empty: the metric by which training chooses its weights)"`
	Sampler      string        `json:"sampler" oneof:"(tpe, of several objectives gp),@samplers" group:"Search" help:"how parameters are proposed"`
	Startup      int           `json:"startup" range:"1..1e6" group:"Search" help:"trials around the defaults before the sampler goes by results"`
	Pruner       string        `json:"pruner" oneof:"(asha, where training can be watched and there is one objective),@pruners" group:"Search" help:"how trials that fall behind are ended early"`
	Least        int           `json:"least" range:"0..1e6" group:"Search" help:"epochs that each trial is trained before it may be ended early (0: a ninth of all)"`
	Reduction    int           `json:"reduction" range:"2..100" group:"Search" help:"of successive halving: one trial in so many goes on"`
	Lag          int           `json:"lag" range:"0..1000" group:"Search" help:"trials that a proposal does not look back on, so that up to one more can be at work at once and the study stays repeatable"`
	Asynchronous bool          `json:"asynchronous" group:"Search" help:"let proposals use all results there are: the search may be a little better with many workers, and cannot be repeated"`
	From         string        `json:"from" value:"study" group:"Search" help:"older study whose best trials are tried first"`
}

func defaultSearch() *searchOptions {
	return &searchOptions{Trials: 30, Workers: 1, Startup: 10, Reduction: 3, Lag: 7}
}

// programOptions are the settings of a search with a program of one's own.
type programOptions struct {
	Command string `json:"command" group:"Program" help:"program with its arguments, which prints a number; {name} stands for a parameter, {seed} for a seed"`
	Units   int    `json:"units" range:"0..1e9" group:"Program" help:"how far a whole run goes, as it reports it with at=...; needed to end runs early (0: it reports nothing)"`
}

func init() {
	settings.Lists["samplers"], settings.Lists["pruners"] = tune.SamplerNames(), tune.PrunerNames()
}

func (a *app) tuneCommand() *cobra.Command {
	o, p := defaultSearch(), &programOptions{}
	var out string
	var resume bool
	s := recipe.Of(o, p)
	c := &cobra.Command{
		Use:   "tune",
		Short: "Search for good hyper-parameters",
		Long: `Searches for settings with which a task's models are good: trains many, ends early what falls
behind, and says whether the best beat the defaults by more than chance. Each task is a
command of its own; --command instead runs any program that prints a number, once for each
trial of the space in --space.

The study is kept in a file, or in a PostgreSQL database for several machines. Ctrl-C or a
lost machine lose nothing: --resume goes on with it, and several processes may work on one
study. The same study makes the same trials, whatever the number of workers.`,
		Example: `  carousel tune classify --data reviews.csv --out tuned
  carousel tune --command 'python train.py --lr {lr} --width {width}' --space space.yaml
  carousel tune show --study tuned/study.db`,
		GroupID: groupWork,
		Args:    noArgs,
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		if !s.Given() && c.Flags().NFlag() == 0 {
			return showHelp(c, args)
		}
		if err := s.Resolve("", nil); err != nil {
			return misusef("%v", err)
		}
		if p.Command == "" {
			return wrongFlag("command", "tune needs a task, such as carousel tune classify, or --command with a program that prints a number")
		}
		if o.Space == "" {
			return wrongFlag("space", "tune --command needs --space: a YAML file of the parameters, such as \"lr: {low: 1e-4, high: 1e-1, log: true}\"")
		}
		return a.search(c.Context(), &search{
			what: "command", seed: a.seed, o: o, out: out, resume: resume,
			prepare: func(context.Context) (trials.Subject, *tune.Space, error) {
				text, err := yaml.ReadFile(o.Space)
				if err != nil {
					return nil, nil, wrongFlag("space", "--space %s: %v", o.Space, err)
				}
				space, err := tune.ParseSpace(o.Space, text)
				if err != nil {
					return nil, nil, wrongSpace(o.Space, err)
				}
				subject, err := trials.NewCommand(p.Command, o.Objective, a.seed, p.Units)
				return subject, space, err
			},
		})
	}
	s.Bind(c.Flags())
	c.Flags().StringVar(&out, "out", "", "`directory` for the study, its page and the best parameters")
	c.Flags().BoolVar(&resume, "resume", false, "go on with the study, or begin it if there is none")
	for _, name := range []string{"out", "resume"} {
		c.Flags().Lookup(name).Annotations = map[string][]string{recipe.Group: {"Search"}}
	}
	for _, k := range a.kinds {
		c.AddCommand(a.tuneTaskCommand(k))
	}
	c.AddCommand(a.tuneShowCommand(), a.tuneExportCommand(), a.tuneBestCommand(), a.tuneImportanceCommand())
	return c
}

// wrongSpace is the error of a space file that cannot be used.
func wrongSpace(path string, err error) error {
	if input := (*data.InputError)(nil); errors.As(err, &input) {
		return err
	}
	if plain := plainFileError(err); plain != err {
		return wrongFlag("space", "--space %s: %v", path, plain)
	}
	return wrongFlag("space", "--space %v", err)
}

const searchHelp = `

Trains a model for each trial with some of the settings below, which --space chooses, as the
study proposes, and all others as given here: by flags, a recipe file or --set, as for train.
Trials are compared by the validation part; the test part is scored once, for the winner.
The best three trials and the defaults are trained with three further seeds before a winner
is named. With --out the winner is written there as a recipe and trained.`

// tuneTaskCommand is the search for settings of a task.
func (a *app) tuneTaskCommand(k *task.Kind) *cobra.Command {
	var recipeFile string
	var pairs []string
	files, cfg, run, o := k.Files(), k.Config(), defaultRun(), defaultSearch()
	base, own := recipe.Of(files, run, cfg), recipe.Of(o)
	c := &cobra.Command{
		Use:   k.Name + " " + cmp.Or(k.Needs, "--data FILE") + " [--out DIR]",
		Short: "Search for settings: " + strings.ToLower(k.Short[:1]) + k.Short[1:], Long: "Searches for settings of " + k.Noun + "." + searchHelp,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			for _, s := range []func() error{func() error { return base.Resolve(recipeFile, pairs) }, func() error { return own.Resolve("", nil) }} {
				if err := s(); err != nil {
					return misusef("%v", err)
				}
			}
			if c.Flags().Changed("seed") {
				assignSeed(cfg, a.seed)
			}
			if err := checkFiles(files); err != nil {
				return misusef("tune %s %v", k.Name, err)
			}
			k.ForFiles(files, cfg)
			if err := cfg.Validate(); err != nil {
				return err
			}
			var tuned *trials.Task
			var space *tune.Space
			return a.search(c.Context(), &search{
				what: k.Name, seed: seedOf(cfg), o: o, out: run.Out, resume: run.resume,
				prepare: func(ctx context.Context) (trials.Subject, *tune.Space, error) {
					var err error
					if o.Space != "" { // what is wrong with it is said before the data are read
						if space, err = trials.ReadSpace(o.Space, k, cfg); err != nil {
							return nil, nil, wrongSpace(o.Space, err)
						}
					}
					on, err := a.device()
					if err != nil {
						return nil, nil, err
					}
					if tuned, err = trials.NewTask(ctx, k, files, cfg, o.Objective, on); err != nil {
						return nil, nil, err
					}
					if space == nil {
						space = tuned.Space()
					}
					return tuned, space, nil
				},
				recipe: func(v tune.Values) (string, error) { return tuned.Recipe(space, v) },
				train: func(ctx context.Context, v tune.Values) (*trainResult, error) {
					cfg, err := tuned.Config(space, v)
					if err != nil {
						return nil, err
					}
					run.resume = train.HasCheckpoint(run.Out)
					return a.train(ctx, k, files, cfg, run)
				},
			})
		},
	}
	base.Bind(c.Flags(), "seed")
	mine := pflag.NewFlagSet(k.Name, pflag.ContinueOnError)
	mine.SortFlags = false
	own.Bind(mine)
	mine.VisitAll(func(f *pflag.Flag) {
		if there := c.Flags().Lookup(f.Name); there != nil {
			there.Value = &twoFlags{there.Value, f.Value, searchTakes[f.Name]}
			there.Usage += "; or " + f.Usage
			return
		}
		c.Flags().AddFlag(f)
	})
	c.Flags().StringVar(&recipeFile, "config", "", "recipe `file` in YAML, one setting a line")
	c.Flags().StringArrayVar(&pairs, "set", nil, "`name=value` of any setting; may be repeated")
	c.Flags().BoolVar(&run.resume, "resume", false, "go on with the study, or begin it if there is none")
	for _, name := range []string{"config", "set", "resume"} {
		c.Flags().Lookup(name).Annotations = map[string][]string{recipe.Group: {"Files"}}
	}
	a.computes.bind(c.Flags())
	return c
}

// twoFlags is a flag that a task and the search have both: which one is meant is seen by the value. It may be
// given once for each.
type twoFlags struct {
	task, search pflag.Value
	isSearch     func(text string) bool
}

// searchTakes tells values of the search's flags from those of a task's of the same name.
var searchTakes = map[string]func(text string) bool{
	"time": func(text string) bool { _, err := time.ParseDuration(text); return err == nil }, // and no name of a column
	"from": func(text string) bool { // and no directory of a model
		info, err := os.Stat(text)
		return err != nil || !info.IsDir()
	},
}

func (f *twoFlags) Set(text string) error {
	if f.isSearch(text) {
		return f.search.Set(text)
	}
	return f.task.Set(text)
}

func (f *twoFlags) String() string {
	return strings.Trim(f.task.String()+","+f.search.String(), ",")
}

func (f *twoFlags) Type() string { return f.task.Type() + "|" + f.search.Type() }

// search is a search that is about to begin.
type search struct {
	what    string // the task, or "command"
	seed    uint64
	o       *searchOptions
	out     string // directory; "": the study alone is kept
	resume  bool
	prepare func(context.Context) (trials.Subject, *tune.Space, error)
	// recipe writes values as a recipe; nil: their names and values. train trains the winner in out; nil: there is nothing to train.
	recipe func(tune.Values) (string, error)
	train  func(context.Context, tune.Values) (*trainResult, error)
}

// Files of a search in --out, beside those of a training.
const (
	studyFile  = "study.db"
	studyPage  = "study.html"
	recipeName = "recipe.yaml"
)

// tuneResult is the result of tune.
type tuneResult struct {
	studySummary
	Page   string       `json:"page,omitempty"`   // the page of the study
	Recipe string       `json:"recipe,omitempty"` // file of the winner's settings, which --config takes
	Model  *trainResult `json:"model,omitempty"`  // the training of the winner
}

// public is the address as it is shown.
func (s *search) public() string { return store.Public(s.address()) }

// address is where the study is kept.
func (s *search) address() string {
	switch {
	case s.o.Study != "":
		return s.o.Study
	case s.out != "":
		return filepath.Join(s.out, studyFile)
	}
	return s.what + "-study.db"
}

// check finds what would stop the search before anything is read or written.
func (s *search) check(ctx context.Context) error {
	if err := settings.Check(s.o); err != nil {
		return misusef("%v", err)
	}
	if !s.resume {
		begun, err := hasStudy(ctx, s.address())
		if err != nil {
			return err
		}
		if begun {
			return wrongFlag("study", "%s holds a study already; --resume goes on with it, --study FILE begins another one", s.public())
		}
	}
	switch {
	case s.out == "":
		return nil
	case s.resume && train.HasCheckpoint(s.out):
		return nil
	case train.HasCheckpoint(s.out), exists(s.out, model.ConfigFile):
		return wrongFlag("out", "--out %s holds a model already; give another directory", s.out)
	}
	return checkNew(s.out, slices.Concat(train.Leftovers, []string{studyFile, studyFile + "-wal", studyFile + "-shm", studyPage, recipeName})...)
}

// hasStudy reports whether there is a study, and makes none.
func hasStudy(ctx context.Context, address string) (bool, error) {
	kept, err := store.Open(ctx, address, false)
	if errors.Is(err, store.ErrNone) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer kept.Close()
	h, err := kept.Header(ctx)
	return h != nil, err
}

// options are those of the study.
func (s *search) options(subject trials.Subject) tune.Options {
	o := s.o
	pruner := o.Pruner
	if pruner == "" && subject.Units() > 1 && len(subject.Objectives()) == 1 {
		pruner = "asha"
	}
	least := cmp.Or(o.Least, (subject.Units()+8)/9) // of 30 trials asha then lets 10 go on, and 3 to the end
	return tune.Options{
		Seed: s.seed, Trials: o.Trials, Sampler: o.Sampler, Startup: o.Startup, Lag: o.Lag, Asynchronous: o.Asynchronous,
		Pruner: pruner, Least: least, Reduction: o.Reduction,
	}
}

// search does all of a search: trials, repeats, verdict, page, and the winner.
func (a *app) search(ctx context.Context, s *search) error {
	if err := s.check(ctx); err != nil {
		return err
	}
	ctx, stop := a.catchInterrupt(ctx)
	defer stop()
	subject, space, err := s.prepare(ctx)
	if err != nil {
		return err
	}
	header, why, err := trials.Begin(subject, space, s.options(subject))
	if err != nil {
		return err
	}
	header.Software = "carousel " + carousel.Version()
	if err := tryOut(ctx, space, header.Options); err != nil {
		return err
	}
	var older *openedStudy
	if s.o.From != "" {
		if older, err = a.openOlder(ctx, s.o.From); err != nil {
			return err
		}
		defer older.store.Close()
	}
	if why != "" {
		a.remark("this study cannot be repeated, only read: " + why)
	}
	if s.out != "" {
		if err := os.MkdirAll(s.out, 0o777); err != nil {
			return wrongFlag("out", "--out %s: %v", s.out, plainFileError(err))
		}
	}
	kept, err := store.Open(ctx, s.address(), true)
	if err != nil {
		return err
	}
	defer kept.Close()
	study, err := tune.Open(ctx, kept, header, space)
	var differs *tune.DifferentError
	if errors.As(err, &differs) {
		return misusef("%s: %v", s.public(), err)
	}
	if err != nil {
		return err
	}
	if err := keepWhy(ctx, kept, why); err != nil {
		return err
	}
	opened := &openedStudy{Study: study, store: kept, header: header, address: s.public()}
	if err := opened.read(ctx); err != nil {
		return err
	}
	if older != nil && len(opened.list) == 0 {
		if err := a.enqueueFrom(ctx, older, opened); err != nil {
			return err
		}
	}
	if len(opened.list) > 0 {
		a.note("%s: %s so far", s.public(), countStates(countOf(opened.list)))
	} else {
		a.note("%s, %s with sampler %s and pruner %s; the study is kept in %s", opened.subject(), report.Plural(s.o.Trials, "trial"), study.Options.Sampler, study.Options.Pruner, s.public())
	}
	result, err := a.doSearch(ctx, s, opened, subject)
	if errors.Is(err, context.Canceled) {
		return a.searchStopped(opened)
	}
	if err != nil {
		return err
	}
	name := "tune." + s.what
	return a.emit(name, result, func(w io.Writer) { opened.printResult(w, result) })
}

// tryOut says what is wrong with options that do not go together, and with a space of which nothing can be tried, before
// a study of them is begun.
func tryOut(ctx context.Context, space *tune.Space, o tune.Options) error {
	study, err := tune.New(space, o)
	if err == nil {
		_, err = study.Ask(ctx)
	}
	if errors.Is(err, tune.ErrDone) {
		return misusef("no combination of the grid keeps the constraints; widen the ranges or the bounds")
	}
	if err != nil {
		return misusef("%v", err)
	}
	return nil
}

// openOlder opens the study of --from.
func (a *app) openOlder(ctx context.Context, address string) (*openedStudy, error) {
	older, err := a.openStudy(ctx, address)
	if wrong := (*misuse)(nil); errors.As(err, &wrong) {
		return nil, wrongFlag("from", "%s", strings.Replace(err.Error(), "--study", "--from", 1))
	}
	return older, err
}

// enqueueFrom lets a study begin with the best trials of an older one.
func (a *app) enqueueFrom(ctx context.Context, older, study *openedStudy) error {
	n, err := trials.From(ctx, older.Study, study.Study, mostFrom)
	if err != nil {
		return err
	}
	if n == 0 {
		a.remark(fmt.Sprintf("no trial of %s can be tried here: none is complete with values of this space", older.address))
		return nil
	}
	a.note("%s of %s %s tried first", report.Plural(n, "trial"), older.address, map[bool]string{true: "is", false: "are"}[n == 1])
	return nil
}

// mostFrom is the number of trials that a study begins with from an older one.
const mostFrom = 10

// doSearch works until the study is done, and on what follows.
func (a *app) doSearch(ctx context.Context, s *search, study *openedStudy, subject trials.Subject) (*tuneResult, error) {
	begun := time.Now()
	view := a.newSearchView(study, s.o.Trials, s.o.Time)
	o := &trials.Options{Workers: s.o.Workers, Time: s.o.Time}
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 { // what guardMemory found
		o.Memory = limit
		o.Room = func() int64 {
			if r := roomLeft(); r != nil {
				return r.free - r.least()
			}
			return limit
		}
	}
	stop := view.watch(ctx)
	err := trials.Work(ctx, study.Study, subject, o)
	stop()
	if err := cmp.Or(study.read(context.WithoutCancel(ctx)), err, ctx.Err()); err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(study.list, func(r *tune.Record) bool { return r.Value != nil && len(r.Broken) == 0 }) {
		return nil, study.noResult()
	}
	if err := a.repeat(ctx, s, study, subject, o, begun); err != nil {
		return nil, err
	}
	if study.verdict, err = trials.Judge(ctx, study.Study); err != nil {
		return nil, err
	}
	sum, err := study.summary(ctx)
	if err != nil {
		return nil, err
	}
	result := &tuneResult{studySummary: *sum}
	if s.out == "" {
		return result, nil
	}
	result.Page = filepath.Join(s.out, studyPage)
	if err := study.page(sum).WriteFile(result.Page); err != nil {
		return nil, err
	}
	winner := study.list[study.verdict.Winner]
	text := study.recipe(winner)
	if s.recipe != nil {
		if text, err = s.recipe(winner.Values); err != nil {
			return nil, err
		}
	}
	result.Recipe = filepath.Join(s.out, recipeName)
	head := fmt.Sprintf("# Trial %d of %s: %s\n# %s\n", winner.Number, s.public(), study.resultLine(winner), study.verdict.Text)
	if err := model.WriteFileAtomic(result.Recipe, func(w io.Writer) error { _, err := io.WriteString(w, head+text); return err }); err != nil {
		return nil, err
	}
	if s.train != nil {
		a.note("trial %d is trained in %s", winner.Number, s.out)
		if result.Model, err = s.train(ctx, winner.Values); err != nil {
			return nil, err
		}
	}
	return result, nil
}

// repeat lets the best trials and the defaults be computed with further seeds, unless --time leaves too little time for them: it is for the
// trials, and all together takes half as long again at most. The winner's training is counted, and is not left out.
func (a *app) repeat(ctx context.Context, s *search, study *openedStudy, subject trials.Subject, o *trials.Options, begun time.Time) error {
	expected, err := trials.Expect(ctx, study.Study, o.Workers)
	if err != nil {
		return err
	}
	left := *o
	if s.o.Time > 0 {
		left.Time = s.o.Time*3/2 - time.Since(begun)
		if s.train != nil && s.out != "" {
			left.Time -= expected.One
		}
	}
	counts, seeds := countStates(countOf(study.list)), report.Plural(trials.Seeds, "further seed")
	switch {
	case expected.Runs == 0:
		a.note("%s", counts)
	case s.o.Time > 0 && left.Time <= expected.All:
		a.note("%s", counts)
		a.remark(fmt.Sprintf("the best and the defaults are not computed with %s each, which would take about %s more: with --time %v all together may take half as long again; --resume with a longer --time does it", seeds, roughly(expected.All), s.o.Time))
	default:
		a.note("%s; the best and the defaults are now computed with %s each, which takes about %s", counts, seeds, roughly(expected.All))
		return trials.Repeat(ctx, study.Study, subject, &left)
	}
	return nil
}

// roughly is a time that is not known well.
func roughly(d time.Duration) string {
	if d >= 10*time.Minute {
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return max(d.Round(time.Second), time.Second).String()
}

// notRepeatable is the name of the study's text that says why it cannot be repeated.
const notRepeatable = "not repeatable"

// keepWhy keeps why a study cannot be repeated.
func keepWhy(ctx context.Context, kept tune.Store, why string) error {
	if old, err := kept.Get(ctx, notRepeatable); err != nil || old == why {
		return err
	}
	if err := kept.Set(ctx, notRepeatable, "", why); !errors.Is(err, tune.ErrTaken) {
		return err
	}
	return nil // another worker knew it too
}

// noResult is the error of a search of which no trial can be used.
func (s *openedStudy) noResult() error {
	counts := countStates(countOf(s.list))
	for _, r := range s.list {
		switch {
		case r.State == tune.Failed:
			return fmt.Errorf("no trial has a result (%s); trial %d failed: %s", counts, r.Number, r.Error)
		case len(r.Broken) > 0:
			return fmt.Errorf("no trial keeps all constraints (%s); trial %d breaks %s; loosen the bound or narrow the space", counts, r.Number, r.Broken[0])
		}
	}
	return fmt.Errorf("no trial has a result (%s); give more --time, and --resume", counts)
}

// searchStopped is the error after Ctrl-C, which tells how to continue.
func (a *app) searchStopped(s *openedStudy) error {
	return &interrupted{fmt.Sprintf("interrupted; %s keeps the study (%s); to continue: %s", s.address, countStates(countOf(s.list)), a.resumeCommand())}
}

// printResult writes the result of a search for people.
func (s *openedStudy) printResult(w io.Writer, r *tuneResult) {
	s.print(w, &r.studySummary, s.best())
	if r.Model != nil {
		fmt.Fprintf(w, "\nThe winner, trial %d, trained anew:\n", s.verdict.Winner)
		r.Model.print(w)
	}
	fmt.Fprintln(w)
	if r.Page != "" {
		fmt.Fprintf(w, "The page of the study is %s.\n", r.Page)
	}
	if r.Recipe != "" {
		fmt.Fprintf(w, "The winner's settings are in %s.\n", r.Recipe)
	}
	fmt.Fprintf(w, "carousel tune show --study %s shows all trials.\n", shellQuote(s.address))
}
