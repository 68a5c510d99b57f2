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
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/internal/cli/recipe"
	"github.com/carousel-ml/carousel/internal/find"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/serve"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

// Files that find-lr writes to --out.
const (
	ratePage = "lr.html"
	rateFile = "lr.json"
)

// rateFlags are the settings of find-lr, besides those of the task.
type rateFlags struct {
	From  float64 `json:"from_lr" range:"(0..10]" group:"Test" help:"learning rate of the first step"`
	To    float64 `json:"to_lr" range:"(0..10]" group:"Test" help:"learning rate of the last step, above the first"`
	Steps int     `json:"steps" range:"20..1e6" group:"Test" help:"most optimizer steps, over which the rate rises from the first to the last"`
	Out   string  `json:"out" value:"dir" group:"Test" help:"directory for a page (lr.html) and the result (lr.json)"`
}

func defaultRate() *rateFlags { return &rateFlags{From: 1e-6, To: 1, Steps: 200} }

// batchFlags are the settings of find-batch, besides those of the task.
type batchFlags struct {
	Memory string `json:"memory" value:"size" group:"Test" help:"most memory that the process may hold, such as 4GiB (empty: what this machine has free)"`
}

// rateFound is the result of find-lr.
type rateFound struct {
	Task string `json:"task"` // the task of the model
	find.Rate
	Page string `json:"page,omitempty"` // the page's file; absent without --out
}

// batchFound is the result of find-batch.
type batchFound struct {
	Task string `json:"task"` // the task of the model
	find.Batches
}

const findSettings = `

It takes all settings of "carousel train %[1]s", from flags, --config and --set, and
trains on the same samples; those that end a training (epochs, max_time, patience) and
its schedule have no effect. No model is written.`

func (a *app) findRateCommand() *cobra.Command {
	return a.findCommand("find-lr", "Find a learning rate by a range test", `Trains a new network while the learning rate rises from step to step by the same
factor, shows the loss at each rate, and suggests one for a training: a tenth of the
rate at which the smoothed loss was least. The test ends early when the loss is above
four times its least.`, "  carousel find-lr forecast --data sales.csv --time date --target units --out lr", func(*task.Kind) any { return defaultRate() }, func(ctx context.Context, t *trial) error {
		return a.findRate(ctx, t, t.own.(*rateFlags))
	})
}

func (a *app) findBatchCommand() *cobra.Command {
	return a.findCommand("find-batch", "Find a batch size by speed, memory and the gradient's noise", `Trains new networks for some steps with batches of 1, 2, 4 and so on, shows how many
samples a second each size trains and how much memory it takes, and suggests the
smallest size within 10 % of the best rate. It also measures the noise of the gradient,
which tells from what size on larger batches no longer save steps.`, "  carousel find-batch forecast --data sales.csv --time date --target units --memory 4GiB", func(*task.Kind) any {
		return &batchFlags{}
	}, func(ctx context.Context, t *trial) error {
		return a.findBatch(ctx, t, t.own.(*batchFlags))
	})
}

// trial is a task with its settings and data, to be trained for some steps.
type trial struct {
	command string // that tries it
	kind    *task.Kind
	cfg     task.Config
	data    task.Data
	on      *tensor.Device
	own     any         // the command's settings
	set     *recipe.Set // all settings
}

// findCommand is a command with a sub-command for each task, which does something with
// a task's settings and data.
func (a *app) findCommand(name, short, long, example string, own func(*task.Kind) any, do func(context.Context, *trial) error) *cobra.Command {
	parent := &cobra.Command{
		Use: name, Short: short, Long: long + "\n\nEach task is a command of its own.", Example: example,
		GroupID: groupWork, Args: noArgs, RunE: showHelp,
	}
	for _, k := range a.kinds {
		var recipeFile string
		var pairs []string
		files, t := k.Files(), &trial{command: name, kind: k, cfg: k.Config(), own: own(k)}
		t.set = recipe.Of(t.own, files, t.cfg)
		c := &cobra.Command{
			Use:   k.Name + " " + cmp.Or(k.Needs, "--data FILE"),
			Short: short + ": " + k.Noun, Long: long + fmt.Sprintf(findSettings, k.Name),
			Args: noArgs,
			RunE: func(c *cobra.Command, _ []string) error {
				if err := t.set.Resolve(recipeFile, pairs); err != nil {
					return misusef("%v", err)
				}
				if c.Flags().Changed("seed") {
					assignSeed(t.cfg, a.seed)
				}
				for _, one := range settings.List(t.own) {
					if err := one.Check(); err != nil {
						return wrongFlag(one.Flag(), "--%s%s", one.Flag(), strings.TrimPrefix(err.Error(), one.Name))
					}
				}
				if err := checkFiles(files); err != nil {
					return misusef("%s %s %v", name, k.Name, err)
				}
				k.ForFiles(files, t.cfg)
				if err := t.cfg.Validate(); err != nil {
					return err
				}
				ctx, stop := a.catchInterrupt(c.Context())
				defer stop()
				err := a.tryOut(ctx, t, files, do)
				if errors.Is(err, context.Canceled) {
					return &interrupted{"interrupted; nothing was written"}
				}
				return err
			},
		}
		t.set.Bind(c.Flags(), "seed")
		c.Flags().StringVar(&recipeFile, "config", "", "recipe `file` in YAML, one setting a line")
		c.Flags().StringArrayVar(&pairs, "set", nil, "`name=value` of any setting; may be repeated")
		for _, name := range []string{"config", "set"} {
			c.Flags().Lookup(name).Annotations = map[string][]string{recipe.Group: {"Files"}}
		}
		a.computes.bind(c.Flags())
		parent.AddCommand(c)
	}
	return parent
}

// tryOut reads the data of a trial once and does what is to be done.
func (a *app) tryOut(ctx context.Context, t *trial, files any, do func(context.Context, *trial) error) error {
	if one, ok := t.own.(*rateFlags); ok {
		if err := one.check(); err != nil {
			return err
		}
	}
	on, err := a.device()
	if err != nil {
		return err
	}
	d, err := t.kind.Read(ctx, files, t.cfg)
	if err != nil {
		return err
	}
	a.remarks(d.Notes())
	t.data, t.on = d, on
	return do(ctx, t)
}

// fit trains a new model in memory, until a hook of run ends that.
func (t *trial) fit(ctx context.Context, run *train.Run) error {
	if err := t.cfg.Validate(); err != nil {
		return err
	}
	run.Device = t.on
	_, r, err := t.kind.Train(ctx, t.data, t.cfg, run)
	if err == nil && r.Interrupted {
		return context.Canceled
	}
	return err
}

// setting is a setting of the task by name; nil if there is none.
func (t *trial) setting(name string) *settings.Setting {
	return settings.Named(settings.List(t.cfg), name)
}

// check refuses rates that do not rise, and an --out that is no place for the page.
func (f *rateFlags) check() error {
	if f.From >= f.To {
		return wrongFlag("from-lr", "--from-lr %v: want a rate below that of --to-lr, %v", f.From, f.To)
	}
	if f.Out == "" {
		return nil
	}
	if info, err := os.Stat(f.Out); err == nil && !info.IsDir() {
		return wrongFlag("out", "--out %s: want a directory, and that is a file", f.Out)
	}
	if exists(f.Out, model.ConfigFile) || train.HasCheckpoint(f.Out) {
		return wrongFlag("out", "--out %s holds a model; give another directory", f.Out)
	}
	return nil
}

func (a *app) findRate(ctx context.Context, t *trial, f *rateFlags) error {
	r, err := find.FindRate(ctx, func(ctx context.Context, run *train.Run) error {
		t.refuseLargeBatch(run)
		return t.fit(ctx, run)
	}, &find.RateOptions{From: f.From, To: f.To, Steps: f.Steps, Progress: a.progress()})
	if err != nil {
		return err
	}
	out := &rateFound{Task: t.kind.Name, Rate: *r}
	if f.Out != "" {
		out.Page = filepath.Join(f.Out, ratePage)
		if err := a.writeRate(out, t, f); err != nil {
			return err
		}
	}
	return a.emit("find-lr", out, func(w io.Writer) { out.print(w, f.Steps) })
}

// refuseLargeBatch ends a run at its first step if --batch was given and is more than
// there are samples.
func (t *trial) refuseLargeBatch(run *train.Run) {
	one := t.setting("batch")
	if one == nil || !t.set.Given("batch") {
		return
	}
	given, _ := strconv.Atoi(one.String()) // 0 of another kind of number, which is not compared
	inner := run.OnStep
	run.OnStep = func(s train.Step) error {
		if n := int(math.Round(s.Samples * float64(s.PerEpoch))); given > n {
			return wrongFlag("batch", "--batch %d: there are only %s to train on; give a batch of at most that", given, report.Plural(n, "sample"))
		}
		return inner(s)
	}
}

// writeRate writes the page and the result to --out.
func (a *app) writeRate(r *rateFound, t *trial, f *rateFlags) error {
	if err := os.MkdirAll(f.Out, 0o777); err != nil {
		return misusef("--out %s: %v", f.Out, plainFileError(err))
	}
	text, err := a.object("find-lr", r, nil)
	if err != nil {
		return err
	}
	if err := model.WriteFileAtomic(filepath.Join(f.Out, rateFile), func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	}); err != nil {
		return err
	}
	return r.page(t, f).WriteFile(r.Page)
}

// verdict is the suggestion in a sentence.
func (r *rateFound) verdict() string {
	if r.Suggestion == nil {
		return "Suggestion: none."
	}
	return fmt.Sprintf("Suggestion: --lr %s, a tenth of the rate at which the loss was least.", rateText(*r.Suggestion))
}

// rateText is a rate in two digits, which is more than the test knows.
func rateText(lr float64) string { return strconv.FormatFloat(lr, 'g', 2, 64) }

// course says how far the test went, in a sentence.
func (r *rateFound) course(planned int) string {
	if len(r.Points) == 0 {
		return "The first loss was not finite."
	}
	text := fmt.Sprintf("%s from %s to %s", report.Plural(len(r.Points), "step"), rateText(r.Points[0].LR), rateText(r.Points[len(r.Points)-1].LR))
	switch r.Stopped {
	case find.EndedRose:
		text += fmt.Sprintf(" of %s planned; the smoothed loss rose above four times its least", report.Count(planned))
	case find.EndedDiverged:
		text += fmt.Sprintf(" of %s planned; then loss or gradient were not finite", report.Count(planned))
	}
	return text + "."
}

func (r *rateFound) print(w io.Writer, planned int) {
	fmt.Fprintf(w, "Learning-rate range test, %s: %s\n", r.Task, r.course(planned))
	if len(r.Points) > 0 {
		fmt.Fprintf(w, "\nSmoothed loss by learning rate\n\n")
		printRates(w, &r.Rate)
	}
	fmt.Fprintf(w, "\n%s\n", r.verdict())
	if r.Suggestion != nil {
		fmt.Fprintf(w, "The loss was least, %s, at %s and fell fastest at %s; it began at %s.\n",
			report.Number(r.LeastLoss), rateText(*r.Least), rateText(*r.Steepest), report.Number(r.Start))
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "Note: %s\n", n)
	}
	if r.Page != "" {
		fmt.Fprintf(w, "\nThe page is %s, its figures in %s beside it.\n", r.Page, rateFile)
	}
}

// ceiling is the loss up to which a test is drawn: what rises above its start by more than
// it fell below would flatten all the rest.
func ceiling(r *find.Rate) float64 {
	high := math.Inf(-1)
	for _, p := range r.Points {
		high = max(high, p.Smoothed)
	}
	if r.Suggestion != nil {
		high = min(high, 2*r.Start-r.LeastLoss)
	}
	return high
}

// printRates draws the smoothed loss over the logarithm of the rate.
func printRates(w io.Writer, r *find.Rate) {
	const height = chartHeight - 2
	first, last := math.Log10(r.Points[0].LR), math.Log10(r.Points[len(r.Points)-1].LR)
	low, high := r.LeastLoss, ceiling(r)
	width := min(chartWidth, len(r.Points))
	column := func(lr float64) int {
		if last == first {
			return 0
		}
		return int(math.Round((math.Log10(lr) - first) / (last - first) * float64(width-1)))
	}
	rows := make([][]rune, height)
	for y := range rows {
		rows[y] = []rune(strings.Repeat(" ", width))
	}
	if r.Suggestion != nil && *r.Suggestion >= r.Points[0].LR {
		for y := range rows {
			rows[y][column(*r.Suggestion)] = ':'
		}
	}
	for _, p := range r.Points {
		y := 0
		if high > low {
			y = int(math.Round(min(1, (high-p.Smoothed)/(high-low)) * (height - 1)))
		}
		if p.Smoothed <= high {
			rows[y][column(p.LR)] = '*'
		}
	}
	labels := map[int]string{0: report.Number(high), height - 1: report.Number(low)}
	for y, row := range rows {
		fmt.Fprintf(w, "  %9s |%s\n", labels[y], strings.TrimRight(string(row), " "))
	}
	fmt.Fprintf(w, "            +%s\n", strings.Repeat("-", width))
	begin, end := rateText(r.Points[0].LR), rateText(r.Points[len(r.Points)-1].LR)
	fmt.Fprintf(w, "             %s%s%s  learning rate\n", begin, strings.Repeat(" ", max(width-len(begin)-len(end), 1)), end)
}

const rateMethod = `A new network is trained on the task's own data, with its optimizer, loss and precision, while the learning rate rises by the same factor in each step (Smith, 2015). The losses of the batches are smoothed by an exponential average that spans a twentieth of the test and is corrected for its start. The test ends when the average is above four times its least, or not finite.

The suggestion is a tenth of the rate at which the average was least. There the loss turns, so steps are about as long as they may be, and the average lags by part of a decade; a tenth is well below that edge. It is of the right size, not the best rate, and varies with the seed where batches are noisy. The rate of the steepest fall is shown for comparison.`

// page is the test as a page.
func (r *rateFound) page(t *trial, f *rateFlags) *report.Page {
	page := &report.Page{Title: "Learning-rate range test", Subtitle: t.kind.Title + ": " + t.data.String(), Version: carousel.Version()}
	notice := report.Notice{Tone: report.Good, Text: r.verdict()}
	if r.Suggestion == nil || len(r.Notes) > 0 {
		notice.Tone = report.Caution
	}
	blocks := []report.Block{notice}
	var marks []report.Mark
	if r.Suggestion != nil {
		blocks = append(blocks, report.Facts{
			{Name: "Suggestion", Value: rateText(*r.Suggestion)},
			{Name: "Least loss at", Value: rateText(*r.Least), Note: "loss " + report.Number(r.LeastLoss)},
			{Name: "Steepest fall at", Value: rateText(*r.Steepest)},
			{Name: "Steps", Value: report.Count(len(r.Points)), Note: "of " + report.Count(f.Steps)},
		})
		marks = []report.Mark{{X: *r.Suggestion, Label: "suggestion"}, {X: *r.Least, Label: "least"}}
	}
	blocks = append(blocks, report.Text(r.course(f.Steps)))
	for _, n := range r.Notes {
		blocks = append(blocks, report.Text(n))
	}
	page.Add("Result", blocks...)
	if len(r.Points) > 0 {
		var lr, loss, smoothed []float64
		high := ceiling(&r.Rate)
		for _, p := range r.Points {
			lr, loss, smoothed = append(lr, p.LR), append(loss, upTo(p.Loss, high)), append(smoothed, upTo(p.Smoothed, high))
		}
		page.Add("Loss by learning rate", &report.Figure{Plot: &report.Lines{
			X: report.Axis{Label: "learning rate", Log: true}, Y: report.Axis{Label: "loss"}, Marks: marks,
			Series: []report.Series{{Name: "of each batch", X: lr, Y: loss, Color: report.Muted}, {Name: "smoothed", X: lr, Y: smoothed, Color: report.Blue}},
		}, Caption: "What lies above the start by more than the loss fell is left out."})
	}
	page.Add("How it is measured", report.Text(rateMethod))
	page.Add("Configuration", report.Pairs(slices.Concat(settingPairs(f), settingPairs(t.cfg))))
	return page
}

// upTo is v, or a gap in a curve if it is above high.
func upTo(v, high float64) float64 {
	if v > high {
		return math.NaN()
	}
	return v
}

// batchSetting is the setting that makes a task's steps larger: the number of samples in
// a batch, or another amount, or else how many batches a step adds.
func (t *trial) batchSetting() *settings.Setting {
	if one := t.setting("batch"); one != nil {
		return one
	}
	for _, one := range settings.List(t.cfg) {
		if strings.HasPrefix(one.Name, "batch_") && one.Try("0.5") != nil { // a whole number
			return one
		}
	}
	return t.setting("accumulate")
}

func (a *app) findBatch(ctx context.Context, t *trial, f *batchFlags) error {
	one := t.batchSetting()
	switch {
	case one == nil:
		return misusef("find-batch: the task %s has no setting for the size of its batches", t.kind.Name)
	case t.set.Given(one.Name):
		return wrongFlag(one.Flag(), "--%s is what find-batch looks for; leave it out", one.Flag())
	}
	o := &find.BatchOptions{Setting: one.Name, Tried: func(b find.BatchSize) {
		a.note("%s %d: %s samples/s, %s", one.Flag(), b.Size, report.Number(b.Rate), mebibytes(b.Memory))
	}}
	if f.Memory != "" {
		size, err := serve.ParseSize(f.Memory)
		if err != nil {
			return wrongFlag("memory", "--memory: %v", err)
		}
		o.Memory = size
	} else if r := roomLeft(); r != nil {
		o.Memory = r.free - 2*r.least()
	}
	fit := func(ctx context.Context, size int, run *train.Run) error {
		if err := one.Assign(strconv.Itoa(size)); err != nil {
			return err
		}
		return t.fit(ctx, run)
	}
	r, err := find.FindBatch(ctx, fit, o)
	if err != nil {
		return err
	}
	size := r.ForNoise()
	a.note("measuring the noise of the gradient with %s %d", one.Flag(), size)
	if r.Noise, err = find.MeasureNoise(ctx, func(ctx context.Context, run *train.Run) error { return fit(ctx, size, run) }); err != nil {
		return err
	}
	out := &batchFound{Task: t.kind.Name, Batches: *r}
	return a.emit("find-batch", out, func(w io.Writer) { out.print(w, one.Flag()) })
}

// mebibytes is an amount of memory in words.
func mebibytes(n int64) string { return report.Count(int((n+mebibyte/2)/mebibyte)) + " MiB" }

func (r *batchFound) print(w io.Writer, flag string) {
	fmt.Fprintf(w, "Batch sizes of %s\n\n", r.Task)
	rows := make([][]string, len(r.Sizes))
	var chosen *find.BatchSize
	for i := range r.Sizes {
		b := &r.Sizes[i]
		mark := ""
		if b.Size == r.Suggestion {
			mark, chosen = "*", b
		}
		rows[i] = []string{fmt.Sprintf("%s %d%s", flag, b.Size, mark), report.Number(b.Samples), report.Number(1000 * b.Seconds), report.Number(b.Rate), mebibytes(b.Tape), mebibytes(b.Memory)}
	}
	printTable(w, []string{"", "samples a step", "ms a step", "samples/s", "pass", "memory"}, rows)
	fmt.Fprintf(w, "\nSuggestion: --%s %d, the smallest within 10 %% of the best rate; it trains %s samples/s.\n", flag, r.Suggestion, report.Number(chosen.Rate))
	for _, n := range r.Notes {
		fmt.Fprintf(w, "Note: %s\n", n)
	}
	fmt.Fprintln(w)
	printWrapped(w, "", r.noiseText(flag, chosen), 100)
}

// noiseText says how noisy the gradient is, and what that means.
func (r *batchFound) noiseText(flag string, chosen *find.BatchSize) string {
	if len(r.Noise) == 0 {
		return "The noise of the gradient was not measured: an epoch has too few steps."
	}
	var parts []string
	for _, n := range r.Noise {
		when := "at the start"
		if n.Trained > 0 {
			when = fmt.Sprintf("after %s", report.Plural(n.Trained, "step"))
		}
		size, word := n.Scale, "about"
		if math.IsNaN(size) {
			size, word = float64(n.Batches)*n.Samples, "above"
		}
		text := fmt.Sprintf("%s %s samples", word, rounded(size))
		if each := chosen.Samples / float64(chosen.Size); math.Abs(each-1) > 0.1 { // the setting counts something else
			text += fmt.Sprintf(" (--%s %s)", flag, rounded(size/each))
		}
		parts = append(parts, text+" "+when)
	}
	return fmt.Sprintf("The gradient noise scale is %s. A batch much smaller than that is mostly noise: twice the batch needs almost half the steps. In one much larger, twice the batch saves hardly any step, and costs twice the computation. It depends on data and network, not on the machine, and usually grows during training.", strings.Join(parts, ", "))
}

// rounded is a number of samples in two digits, which is more than is known of it.
func rounded(n float64) string {
	unit := math.Pow(10, max(0, math.Floor(math.Log10(max(n, 1)))-1))
	return report.Count(int(max(1, math.Round(n/unit)*unit)))
}
