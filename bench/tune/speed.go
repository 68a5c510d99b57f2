package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/task/classify"
	"github.com/carousel-ml/carousel/tune"
	"github.com/carousel-ml/carousel/tune/store"
	"github.com/carousel-ml/carousel/tune/trials"
)

//go:embed classifier.py
var classifier string

// cores is what each side computes with.
const cores = 2

// speedSpace is what trials vary.
const speedSpace = `
lr: {low: 3e-4, high: 1e-2, log: true, default: 1e-3}
hidden: {low: 64, high: 192, step: 32, type: int, default: 128}
dropout: {low: 0, high: 0.5, default: 0.3}
weight_decay: {low: 1e-6, high: 1e-2, log: true, default: 1e-5}
batch: {low: 32, high: 64, step: 32, type: int, default: 32}
`

// A lap is some trials of one side.
type lap struct {
	Version string
	Seconds float64 // by the clock
	CPU     float64 // processor time in seconds
	Values  []float64

	load string // of the machine, at the end
}

// speed is the pass trials: in turn each side has the same few trials, with one at work on all cores and with as many at
// work as there are cores. Reading the data and starting programs is not counted.
func (o *options) speed(ctx context.Context, out io.Writer) error {
	runtime.GOMAXPROCS(cores)
	par.SetWorkers(cores)
	cfg := classify.Defaults()
	cfg.Format, cfg.Tokens, cfg.Linear, cfg.EMA, cfg.Patience, cfg.Epochs = "label-first", "space", false, 0, -1, o.epochs
	files := &task.Files{Data: filepath.Join(o.data, "sst2.train.txt"), Valid: filepath.Join(o.data, "sst2.dev.txt")}
	subject, err := trials.NewTask(ctx, classify.Task, files, &cfg, nil)
	if err != nil {
		return err
	}
	space, err := tune.ParseSpace("the space", speedSpace)
	if err != nil {
		return err
	}
	atOnce := []int{1, cores}
	laps := map[string][]*lap{}
	for round := range o.rounds {
		for _, workers := range atOnce {
			ours, list, err := o.carousel(ctx, subject, space, workers, uint64(o.first+round))
			if err != nil {
				return err
			}
			theirs, err := o.torch(ctx, &cfg, space, workers, list)
			if err != nil {
				return err
			}
			for side, l := range map[string]*lap{"carousel": ours, "torch": theirs} {
				l.load = load()
				key := fmt.Sprint(side, workers)
				laps[key] = append(laps[key], l)
			}
			fmt.Fprintf(os.Stderr, "round %d, %d at once: carousel %.1f s (%.1f s of processor time), optuna %.1f s (%.1f), load %s; accuracies %.4f and %.4f\n",
				round+1, workers, ours.Seconds, ours.CPU, theirs.Seconds, theirs.CPU, ours.load, ours.Values, theirs.Values)
		}
	}
	fmt.Fprintf(out, "\n%d rounds of %d trials; epochs of a trial: %d; %d cores; carousel beside %s\n\n", o.rounds, o.trials, o.epochs, cores, laps["torch1"][0].Version)
	fmt.Fprintln(out, "| at once | trials a minute | Optuna's | median ratio | least and greatest | trials a minute of processor time | Optuna's | median ratio | least and greatest |")
	fmt.Fprintln(out, "|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
	for _, workers := range atOnce {
		fmt.Fprintf(out, "| %d |", workers)
		ours, theirs := laps[fmt.Sprint("carousel", workers)], laps[fmt.Sprint("torch", workers)]
		for _, time := range []func(*lap) float64{func(l *lap) float64 { return l.Seconds }, func(l *lap) float64 { return l.CPU }} {
			var own, other, ratios []float64
			for i := range ours {
				own = append(own, 60*float64(o.trials)/time(ours[i]))
				other = append(other, 60*float64(o.trials)/time(theirs[i]))
				ratios = append(ratios, time(theirs[i])/time(ours[i]))
			}
			fmt.Fprintf(out, " %.2f | %.2f | %.2f | %.2f, %.2f |", median(own), median(other), median(ratios), slices.Min(ratios), slices.Max(ratios))
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintln(out, "\nValidation accuracy by trial, one at work:")
	fmt.Fprintln(out, "\n| round | trial | carousel | PyTorch | load |\n|---:|---:|---:|---:|---|")
	var own, other []float64
	for i, l := range laps["carousel1"] {
		peer := laps["torch1"][i]
		for j := range l.Values {
			fmt.Fprintf(out, "| %d | %d | %.4f | %.4f | %s |\n", i+1, j, l.Values[j], peer.Values[j], l.load)
		}
		own, other = append(own, l.Values...), append(other, peer.Values...)
	}
	fmt.Fprintf(out, "\nMeans: carousel %.4f, PyTorch %.4f\n", mean(own), mean(other))
	return nil
}

// carousel trains trials as the command does, in a study of its own, and returns their parameters.
func (o *options) carousel(ctx context.Context, subject *trials.Task, space *tune.Space, workers int, seed uint64) (*lap, []tune.Values, error) {
	dir, err := os.MkdirTemp("", "tune")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(dir)
	begun, before := time.Now(), processorTime()
	h, _, err := trials.Begin(subject, space, tune.Options{Seed: seed, Trials: o.trials, Sampler: "random", Startup: 1, Lag: 7, Pruner: "none"})
	if err != nil {
		return nil, nil, err
	}
	kept, err := store.Open(ctx, filepath.Join(dir, "study.db"), true)
	if err != nil {
		return nil, nil, err
	}
	defer kept.Close()
	study, err := tune.Open(ctx, kept, h, space)
	if err != nil {
		return nil, nil, err
	}
	if err := trials.Work(ctx, study, subject, &trials.Options{Workers: workers}); err != nil {
		return nil, nil, err
	}
	l := &lap{Seconds: time.Since(begun).Seconds(), CPU: processorTime() - before}
	records, err := study.Trials(ctx)
	if err != nil {
		return nil, nil, err
	}
	var list []tune.Values
	for _, r := range records {
		if r.State != tune.Complete {
			return nil, nil, fmt.Errorf("trial %d is %v: %s", r.Number, r.State, r.Error)
		}
		list, l.Values = append(list, r.Values), append(l.Values, *r.Value)
	}
	return l, list, nil
}

// torch has Optuna and PyTorch train the same trials, in a process for each that is at work.
func (o *options) torch(ctx context.Context, cfg *classify.Config, space *tune.Space, workers int, list []tune.Values) (*lap, error) {
	type param struct {
		Name string  `json:"name"`
		Low  float64 `json:"low"`
		High float64 `json:"high"`
		Step float64 `json:"step"`
		Log  bool    `json:"log"`
		Int  bool    `json:"int"`
	}
	asked := map[string]any{
		"data": o.data, "epochs": o.epochs, "workers": workers, "threads": cores / workers, "trials": list,
		"embedding": cfg.Embedding, "token_dropout": cfg.TokenDropout, "min_lr": cfg.MinLR,
	}
	var params []param
	for _, p := range space.Params {
		params = append(params, param{p.Name, p.Low, p.High, p.Step, p.Log, p.Type == tune.Int})
	}
	asked["space"] = params
	text, err := json.Marshal(asked)
	if err != nil {
		return nil, err
	}
	c := exec.CommandContext(ctx, o.python, "-c", classifier)
	c.Env = append(os.Environ(), "OMP_WAIT_POLICY=PASSIVE") // threads that spin for each other take many times as long on a busy machine
	c.Stdin, c.Stderr = bytes.NewReader(text), os.Stderr
	answer, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w; needs pip install optuna==5.0.0 torch==2.15.0", o.python, err)
	}
	l := &lap{}
	return l, json.Unmarshal(answer, l)
}

// load is Linux's load averages, "" elsewhere.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	return strings.Join(strings.Fields(string(text))[:3], " ")
}
