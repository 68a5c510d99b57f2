package main

import (
	"context"
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"

	"github.com/carousel-ml/carousel/bench/rig"
	"github.com/carousel-ml/carousel/tensor"
)

//go:embed ddp.py
var driver []byte

// A variant is one way to add gradients, with what its turns measured by round.
type variant struct {
	name string
	side *rig.Team
	ask  request

	with, without, exposed []float64 // seconds of a step
	waited                 []float64 // of the exposed ones, those that Carousel knows of
	sent                   []float64 // bytes of a step
}

// network is the pass of that name.
func (o *options) network(ctx context.Context, out io.Writer) (err error) {
	if o.compute == "" {
		o.compute = "real"
		if o.ranks > runtime.NumCPU() {
			o.compute = "timer"
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	net := &rig.Network{Prefix: "carousel-bench-", Ranks: o.ranks}
	ours, theirs := &rig.Team{Network: net}, &rig.Team{Network: net}
	defer func() {
		if err != nil {
			cancel() // a rank may wait for another one for ever
		}
		ours.End()
		theirs.End()
		cancel()
		err = errors.Join(err, net.Remove(context.Background()))
	}()
	dir, err := os.MkdirTemp("", "carousel-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := writeProblem(dir); err != nil {
		return err
	}
	if err := net.Join(ctx); err != nil {
		return err
	}
	if o.rate != "none" {
		if err := net.Shape(ctx, o.rate); err != nil {
			return err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	sizes, err := json.Marshal(map[string]float64{"Vocabulary": vocabulary, "Embedded": embedded, "Hidden": hidden, "Layers": layers, "Classes": classes,
		"Rows": rows, "Length": length, "Batches": batches, "Rate": learning, "Warm": warm})
	if err != nil {
		return err
	}
	err = ours.Start(ctx, func(r int) []string {
		return []string{self, "--rank", fmt.Sprintf("%d/%d/%s:29401", r, o.ranks, net.Address(0))}
	})
	if err != nil {
		return err
	}
	err = theirs.Start(ctx, func(r int) []string {
		return []string{o.python, filepath.Join(dir, "ddp.py"), strconv.Itoa(r), strconv.Itoa(o.ranks), net.Address(0), "29400", dir, string(sizes)}
	}, "GLOO_SOCKET_IFNAME=eth0", "OMP_NUM_THREADS=1", "MKL_NUM_THREADS=1")
	if err != nil {
		return err
	}
	if err := sameLosses(out, ours, theirs); err != nil {
		return err
	}

	variants := []*variant{
		{name: "carousel", side: ours},
		{name: "carousel, sums in bfloat16", side: ours, ask: request{Half: true}},
		{name: "DistributedDataParallel", side: theirs},
		{name: "the same, sparse gradient of the embedding", side: theirs, ask: request{Sparse: true}},
	}
	var times []rig.Operation
	if o.compute == "timer" {
		list, err := rig.Ask[answer](ours, 1, &request{Do: "record", Alone: true, Steps: warm + 10})
		if err != nil {
			return err
		}
		times = list[0].Times
	}
	for round := range o.rounds {
		for i := range variants {
			if err := variants[(i+round)%len(variants)].turn(o.steps, times); err != nil {
				return err
			}
		}
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, o.rounds)
	}
	o.report(out, variants, times)
	return nil
}

// turn measures steps without and with communication.
func (v *variant) turn(steps int, times []rig.Operation) error {
	q := v.ask
	q.Do, q.Steps = "turn", warm+steps
	if err := q.wait(times); err != nil {
		return err
	}
	var seconds [2]float64
	for i, alone := range []bool{true, false} {
		q.Alone = alone
		answers, err := rig.Ask[answer](v.side, v.side.Network.Ranks, &q)
		if err != nil {
			return err
		}
		var sent, waited float64
		for _, a := range answers {
			seconds[i] += mean(a.Seconds) / float64(len(answers))
			sent += a.Sent / float64(len(answers))
			waited += a.Waited / float64(len(answers))
		}
		if !alone {
			v.sent, v.waited = append(v.sent, sent), append(v.waited, waited)
		}
	}
	v.without, v.with, v.exposed = append(v.without, seconds[0]), append(v.with, seconds[1]), append(v.exposed, seconds[1]-seconds[0])
	return nil
}

// report prints the table and whether the bar is met: at most half of DistributedDataParallel's exposed communication.
func (o *options) report(out io.Writer, variants []*variant, times []rig.Operation) {
	fmt.Fprintf(out, "\n%d ranks in namespaces, links of %s in each direction, %d cores, median of %d rounds of %d steps\n", o.ranks, o.rate, runtime.NumCPU(), o.rounds, o.steps)
	if times != nil {
		fmt.Fprintln(out, "Ranks outnumber the cores, so large operations wait, on both sides for as long as they took Carousel on a core of its own:")
		for _, t := range times {
			fmt.Fprintf(out, " %s %.1f ms", t.Name, 1e3*t.Seconds)
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintln(out, "\n| | step, ms | without communication | exposed | least and greatest | by its own account | sent by a rank, MB |\n|---|---:|---:|---:|---:|---:|---:|")
	for _, v := range variants {
		own := ""
		if w := median(v.waited); w > 0 {
			own = fmt.Sprintf("%.0f", 1e3*w)
		}
		fmt.Fprintf(out, "| %s | %.0f | %.0f | %.0f | %.0f, %.0f | %s | %.1f |\n", v.name, 1e3*median(v.with), 1e3*median(v.without), 1e3*median(v.exposed),
			1e3*slices.Min(v.exposed), 1e3*slices.Max(v.exposed), own, median(v.sent)/1e6)
	}
	fmt.Fprintln(out)
	for _, v := range variants[2:] {
		ratio := median(variants[0].exposed) / median(v.exposed)
		verdict := "at most half"
		if ratio > 0.5 {
			verdict = "MORE than half"
		}
		if min(slices.Min(variants[0].exposed), slices.Min(v.exposed)) <= 0 {
			verdict = "but unsteady, so no evidence: in some round communication cost nothing"
		}
		fmt.Fprintf(out, "Exposed communication of carousel beside %s: %.2f, %s\n", v.name, ratio, verdict)
	}
}

// sameLosses checks that both sides begin alike.
func sameLosses(out io.Writer, ours, theirs *rig.Team) error {
	var means [2][]float64
	var versions [2]string
	for side, t := range []*rig.Team{ours, theirs} {
		answers, err := rig.Ask[answer](t, t.Network.Ranks, &request{Do: "losses", Steps: 3})
		if err != nil {
			return err
		}
		means[side], versions[side] = make([]float64, 3), answers[0].Version
		for _, a := range answers {
			for i, l := range a.Losses {
				means[side][i] += l / float64(len(answers))
			}
		}
	}
	fmt.Fprintf(out, "%s and %s\nlosses of the first steps: %.6f and %.6f\n", versions[0], versions[1], means[0], means[1])
	for i, l := range means[0] {
		if !(math.Abs(l-means[1][i]) < 1e-6*l) { // the steps change it by 5e-4
			return errors.New("the two sides do not compute the same")
		}
	}
	return nil
}

// writeProblem writes weights and tokens for Python.
func writeProblem(dir string) error {
	_, slab := pack(tensor.CPU())
	var weights []float32
	for _, p := range slab.Params {
		weights = append(weights, p.Read()...)
	}
	ids, targets := tokens()
	for name, data := range map[string]any{"weights.f32": weights, "tokens.i32": append(ids, targets...)} {
		b, err := binary.Append(nil, binary.LittleEndian, data)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "ddp.py"), driver, 0o644)
}
