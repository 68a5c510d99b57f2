// Command peers runs Carousel against ONNX Runtime and PyTorch on equal
// networks and inputs, in turn, checks that they compute the same, and prints
// the ratios of their times.
//
//	go run ./bench/peers --ort DIR --python python3
//	go run ./bench/peers --precision bf16 --passes forward,step
//
// ONNX Runtime is the npm package onnxruntime-node; PyTorch is whatever the
// named interpreters import as torch. A peer that does not start, or cannot compute
// a pass on this machine, is left out with a note.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/carousel-ml/carousel/internal/bench"
	"github.com/carousel-ml/carousel/tensor"
)

// Report is the output of a run with --json.
type Report struct {
	Command string    `json:"command"`
	Date    string    `json:"date"`
	Machine Machine   `json:"machine"`
	Names   []string  `json:"competitors"`
	Rows    []Row     `json:"rows"`
	Memory  []Memory  `json:"memory"`
	Missing []Missing `json:"missing,omitempty"`
}

// Machine describes where a run took place.
type Machine struct {
	CPU     string  `json:"cpu"`
	Cores   int     `json:"cores"`
	System  string  `json:"system"`
	Go      string  `json:"go"`
	Threads int     `json:"threads"`
	Peak    float64 `json:"fma_gflops"` // the best of all rounds, all threads at once
	Load    string  `json:"load"`       // Linux's load averages at the beginning and the end
}

type options struct {
	threads, rounds int
	shapes, passes  list
	node, ort       string
	models          string
	precision       string
	python          list
	json            bool
}

// list is a flag of names, with commas between them or the flag repeated.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

// Set adds names separated by commas. The error is always nil.
func (l *list) Set(s string) error {
	*l = append(*l, strings.Split(s, ",")...)
	return nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parse(os.Args[1:])
	if err == flag.ErrHelp {
		os.Exit(0)
	}
	if err != nil {
		os.Exit(2) // flag has said why
	}
	agree, err := run(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
	if !agree {
		fmt.Fprintln(os.Stderr, "peers: results do not agree")
		os.Exit(1)
	}
}

func parse(args []string) (*options, error) {
	o := &options{}
	flags := flag.NewFlagSet("peers", flag.ContinueOnError)
	flags.IntVar(&o.threads, "threads", 2, "threads of every competitor")
	flags.IntVar(&o.rounds, "rounds", 15, "rounds that must count; at most three times as many are run")
	flags.Var(&o.shapes, "shapes", "`names` of shapes (default all)")
	flags.Var(&o.passes, "passes", "forward, train, step, vanish, faint, language, speech, ready (default all that the precision has)")
	flags.StringVar(&o.precision, "precision", float32s, "f32, bf16 or fp16: what networks compute in, PyTorch by autocast; 16 bits are compared with f32 too, and are without the passes vanish, faint and ready")
	flags.StringVar(&o.models, "models", "", "`directory` of the models of the pass ready: silero_vad.onnx, melspectrogram.onnx, embedding_model.onnx, alexa_v0.1.onnx")
	flags.StringVar(&o.node, "node", "node", "the node `command`")
	flags.StringVar(&o.ort, "ort", "", "`directory` whose node_modules hold onnxruntime-node (default bench/peers, else where node looks: NODE_PATH)")
	flags.Var(&o.python, "python", "Python `interpreters` with torch (default python3)")
	flags.BoolVar(&o.json, "json", false, "print one JSON object on stdout")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	problem := o.check(flags.Args())
	if problem != nil {
		fmt.Fprintln(flags.Output(), "peers:", problem)
	}
	return o, problem
}

// check completes the options.
func (o *options) check(rest []string) error {
	if len(rest) > 0 {
		return fmt.Errorf("takes flags only, got %q", rest[0])
	}
	if o.threads < 1 || o.rounds < 1 {
		return fmt.Errorf("--threads and --rounds must be positive")
	}
	var names []string
	for _, s := range shapes() {
		names = append(names, s.Name)
	}
	if err := subset("--shapes", &o.shapes, names); err != nil {
		return err
	}
	offered := passes[o.precision]
	if offered == nil {
		return fmt.Errorf("--precision %s: choose f32, bf16 or fp16", o.precision)
	}
	if err := subset("--passes", &o.passes, offered); err != nil {
		return err
	}
	if len(o.python) == 0 {
		o.python = list{"python3"}
	}
	if o.ort == "" {
		if _, err := os.Stat("bench/peers/node_modules"); err == nil {
			o.ort = "bench/peers"
		}
	}
	return nil
}

// subset checks names against all of them; no names mean all.
func subset(flag string, names *list, all []string) error {
	for _, n := range *names {
		if !slices.Contains(all, n) {
			return fmt.Errorf("%s %s: choose among %s", flag, n, strings.Join(all, ", "))
		}
	}
	if len(*names) == 0 {
		*names = all
	}
	return nil
}

func run(ctx context.Context, o *options) (agree bool, err error) {
	scratch, err := os.MkdirTemp("", "carousel-peers-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(scratch)
	note := func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	peers := startPeers(o, scratch, note)
	defer func() {
		for _, p := range peers {
			p.quit()
		}
	}()
	c := &contest{all: own(o), threads: o.threads, rounds: o.rounds, precision: o.precision, scratch: scratch, note: note}
	for _, p := range peers {
		c.all = append(c.all, p)
	}
	if len(c.all) < 2 {
		return false, fmt.Errorf("no peer is here: install onnxruntime-node (bench/README.md says how) or name a Python that has torch")
	}
	r := &Report{Command: strings.Join(append([]string{"go run ./bench/peers"}, os.Args[1:]...), " "), Date: time.Now().UTC().Format("2006-01-02")}
	r.Machine = Machine{CPU: bench.CPUName(), Cores: runtime.NumCPU(), System: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version(), Threads: o.threads, Load: load()}
	for _, p := range c.all {
		r.Names = append(r.Names, p.name())
	}
	if err := c.play(ctx, o, r); err != nil {
		return false, err
	}
	r.Machine.Peak, r.Missing = c.peak, c.missing
	for i := range r.Rows {
		r.Rows[i].PeakShare = r.Rows[i].GFlops / c.peak
	}
	if r.Machine.Load != "" {
		r.Machine.Load += " … " + load()
	}
	if o.json {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", " ")
		e.SetEscapeHTML(false)
		err = e.Encode(r)
	} else {
		r.print(os.Stdout)
	}
	return !slices.ContainsFunc(r.Rows, func(x Row) bool { return !x.Agrees }), err
}

// own returns this project's competitors: the one that all are compared with and,
// if it is not float32, float32 too.
func own(o *options) []competitor {
	list := []competitor{newCarousel(o.threads, tensor.Float32)}
	if p, _ := tensor.ParsePrecision(o.precision); p != tensor.Float32 {
		list = slices.Insert(list, 0, competitor(newCarousel(o.threads, p)))
	}
	return list
}

// startPeers starts the processes of the peers that are installed.
func startPeers(o *options, scratch string, note func(string, ...any)) []*child {
	var peers []*child
	add := func(what string, c *child, err error) {
		if err != nil {
			note("without %s: %v", what, err)
			return
		}
		note("with %s", c.name())
		peers = append(peers, c)
	}
	if o.precision == float32s && (slices.Contains(o.passes, forward) || slices.Contains(o.passes, ready)) {
		c, err := onnxruntime(o.node, o.ort, scratch, o.threads)
		add("ONNX Runtime", c, err)
	}
	modes := []string{o.precision}
	switch {
	case o.precision != float32s:
		modes = append(modes, float32s)
	case slices.Contains(o.passes, vanish) || slices.Contains(o.passes, faint):
		modes = append(modes, flushing)
	}
	for _, python := range o.python {
		for _, mode := range modes {
			c, err := pytorch(python, scratch, o.threads, mode)
			add("PyTorch of "+python+", "+mode, c, err)
			if err != nil {
				break
			}
		}
	}
	return peers
}

// play fills the report. Memory is measured first, while the processes are fresh;
// then the speed of the machine, by which rounds are judged.
func (c *contest) play(ctx context.Context, o *options, r *Report) error {
	for _, s := range shapes() {
		if s.Name != "A" || !slices.Contains(o.shapes, s.Name) || !slices.Contains(o.passes, train) {
			continue
		}
		var err error
		if r.Memory, err = c.memory(s); err != nil {
			c.note("%v", err) // Linux alone keeps this account
		}
	}
	for range 30 {
		c.probe()
	}
	for _, s := range shapes() {
		if !slices.Contains(o.shapes, s.Name) {
			continue
		}
		rows, err := c.shape(ctx, s, o.passes)
		if err != nil {
			return err
		}
		r.Rows = append(r.Rows, rows...)
	}
	for _, m := range readyModels {
		if o.models == "" || !slices.Contains(o.passes, ready) {
			break
		}
		q, err := readyProblem(o.models, m)
		if err != nil {
			return err
		}
		rows, err := c.problem(ctx, q, o.passes)
		if err != nil {
			return err
		}
		r.Rows = append(r.Rows, rows...)
	}
	return nil
}

// load returns Linux's load averages; "" on other systems.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	return strings.Join(strings.Fields(string(text))[:3], " ")
}
