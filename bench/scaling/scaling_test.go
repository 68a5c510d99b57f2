package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/carousel-ml/carousel/bench/rig"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
	"github.com/carousel-ml/carousel/train/traintest"
)

// near reports whether a is b but for rounding.
func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*math.Max(math.Abs(a), math.Abs(b)) }

// duration is the time of a sum, from the moment at which the last rank begins it.
func duration(a algorithm, ranks int, bytes float64, l link) (seconds float64) {
	for _, e := range a.exchanges(ranks, l.perNode, bytes) {
		seconds += l.seconds(&e)
	}
	return seconds
}

var algorithms = []algorithm{direct, twoStage, halving, ring}

// The times of sums are those of the textbooks, where messages cost the processor nothing.
func TestClosedForms(t *testing.T) {
	const bytes, rate, latency = 3e6, 125e6, 70e-6
	l := link{rate: rate, alpha: latency}
	for _, ranks := range []int{2, 4, 8, 64, 512} {
		p := float64(ranks)
		log := math.Log2(p)
		wire := 2 * (p - 1) / p * bytes / rate
		for _, c := range []struct {
			add  algorithm
			want float64
		}{
			{direct, wire + 2*latency},
			{ring, wire + 2*(p-1)*latency},
			{halving, wire + 2*log*latency},
			{twoStage, wire + 2*math.Min(2, log)*latency},
		} {
			if got := duration(c.add, ranks, bytes, l); !near(got, c.want) {
				t.Errorf("%s of %d ranks takes %v s, want %v", c.add.name, ranks, got, c.want)
			}
		}
	}
	// Nodes of 8 ranks that share a link send each byte of a vector once, each way.
	l.perNode, l.inside = 8, math.Inf(1)
	if got, want := duration(hierarchical, 64, bytes, l), 2*(7./8)*bytes/rate+4*latency; !near(got, want) {
		t.Errorf("hierarchical sums take %v s, want %v", got, want)
	}
	if got, want := duration(direct, 64, bytes, l), 2*8*(7./8)*bytes/rate+2*latency; !near(got, want) {
		t.Errorf("direct sums of 8 ranks a node take %v s, want %v", got, want)
	}
}

// turnsOf are the exchanges of sums whose vectors are complete at some moment on each rank.
func turnsOf(a algorithm, ranks int, bytes float64, ready [][]float64) (turns []turn) {
	for _, at := range ready {
		for i, e := range a.exchanges(ranks, 1, bytes) {
			if i > 0 {
				at = make([]float64, ranks)
			}
			turns = append(turns, turn{e, at})
		}
	}
	return turns
}

// Flows that share links, simulated one by one, take the time that the plan uses for all of them
// together, whenever the ranks begin, and no byte is lost.
func TestFlows(t *testing.T) {
	const bytes = 1 << 20
	l := link{rate: 125e6, alpha: 60e-6, message: 20e-6, sum: 1e-10}
	random := rand.New(rand.NewPCG(1, 1))
	for _, ranks := range []int{2, 3, 4, 6, 8, 16} {
		for _, a := range algorithms {
			if a.stages != nil && a.stages(ranks, 1) == nil {
				continue
			}
			ready := make([][]float64, 3)
			for i := range ready {
				for range ranks {
					ready[i] = append(ready[i], 0.02*random.Float64()+0.01*float64(i))
				}
			}
			n := &network{link: l, ranks: ranks}
			ends := n.run(turnsOf(a, ranks, bytes, ready))
			got, clock := slices.Max(ends[len(ends)-1]), 0.0
			for _, at := range ready {
				clock = math.Max(clock, slices.Max(at)) + duration(a, ranks, bytes, l)
			}
			// Of several stages, flows of groups that begin early share links with those that are waited for.
			if most := map[bool]float64{true: 1.01, false: 1.05}[a.ring || len(a.stages(ranks, 1)) == 1]; got < clock*(1-1e-9) || got > clock*most {
				t.Errorf("%s of %d ranks: flows end at %v s, all together at %v", a.name, ranks, got, clock)
			}
			if want := 3 * 2 * float64(ranks-1) * bytes; !near(n.moved, want) {
				t.Errorf("%s of %d ranks moves %v bytes, want %v", a.name, ranks, n.moved, want)
			}
		}
	}
}

// Two nodes of two ranks share each node's link.
func TestFlowsOfNodes(t *testing.T) {
	l := link{rate: 1e8, inside: 1e12, perNode: 2}
	n := &network{link: l, ranks: 4}
	ends := n.run(turnsOf(direct, 4, 4e6, [][]float64{make([]float64, 4)}))
	if got, want := ends[1][0], 2*4e6/1e8; math.Abs(got-want) > 1e-3*want { // each node sends 4 chunks of 1 MB, twice
		t.Errorf("took %v s, want %v", got, want)
	}
}

// Flows take a fair share of what is free: here two leave rank 0, and one of them shares the way into
// rank 2 with one from rank 1, which then has the rest.
func TestFairShares(t *testing.T) {
	n := &network{link: link{rate: 3}, ranks: 4}
	flows := []*flow{{from: 0, to: 2}, {from: 0, to: 3}, {from: 1, to: 2}, {from: 3, to: 2}}
	n.share(flows)
	for i, want := range []float64{1, 2, 1, 1} {
		if !near(flows[i].rate, want) {
			t.Errorf("flow %d has the rate %v, want %v", i, flows[i].rate, want)
		}
	}
}

// treeOrder adds the ranks' vectors, written as sets of ranks, as an algorithm's exchanges do, and
// returns the order in which one number of them was added.
func treeOrder(stages []int) string {
	ranks := 1
	for _, n := range stages {
		ranks *= n
	}
	terms := make([]string, ranks)
	for r := range terms {
		terms[r] = string(rune('a' + r))
	}
	for _, size := range stages { // all of a group add the same chunk, each a part of it: one stands for all
		var next []string
		for i := 0; i < len(terms); i += size {
			next = append(next, tree(terms[i:i+size]))
		}
		terms = next
	}
	return terms[0]
}

// tree adds as train.World says.
func tree(terms []string) string {
	terms = slices.Clone(terms)
	for len(terms) > 1 {
		var next []string
		for i := 0; i < len(terms); i += 2 {
			if i+1 == len(terms) {
				next = append(next, terms[i])
			} else {
				next = append(next, "("+terms[i]+terms[i+1]+")")
			}
		}
		terms = next
	}
	return terms[0]
}

// Stages of powers of two keep the order of sums, and so the bits; others do not.
func TestOrderOfSums(t *testing.T) {
	for _, ranks := range []int{2, 4, 6, 8, 12, 24, 16} {
		want := treeOrder([]int{ranks})
		for _, a := range []algorithm{halving, twoStage} {
			if stages := a.stages(ranks, 1); stages != nil && treeOrder(stages) != want {
				t.Errorf("%s of %d ranks adds %s, the tree %s", a.name, ranks, treeOrder(stages), want)
			}
		}
	}
	if treeOrder([]int{8, 3}) != treeOrder([]int{24}) {
		t.Error("three nodes of eight ranks do not add as the tree does")
	}
	if treeOrder([]int{3, 8}) == treeOrder([]int{24}) {
		t.Error("eight nodes of three ranks add as the tree does")
	}
}

func testJob(t *testing.T, ranks int) *job {
	m, err := load()
	if err != nil {
		t.Fatal(err)
	}
	w, err := m.workload("large")
	if err != nil {
		t.Fatal(err)
	}
	return &job{work: w, ranks: ranks, rows: 32, speed: 1, draw: byRows, bucket: bucketSize, add: direct, seed: 3,
		link: link{rate: 1e8, alpha: 1e-4, message: 1e-5, sum: 1e-10, search: 1e-9}}
}

// stepOf simulates a step of ranks with batches of these lengths, given by their numbers.
func (j *job) stepOf(lengths []int) result {
	ranks := make([]int, len(j.work.Lengths))
	for _, i := range lengths {
		ranks[i]++
	}
	return j.prepare().step(ranks)
}

// slowest is the time of a step without a network: all ranks wait for the longest passes, and for the longest
// optimizer.
func slowest(w *workload, lengths []int) float64 {
	passes, tail := 0.0, 0.0
	for _, i := range lengths {
		t := &w.Times[1][i]
		passes, tail = math.Max(passes, t.Forward+t.backward()), math.Max(tail, t.Tail)
	}
	return passes + tail
}

// A network without limits leaves the slowest rank's time, one rank its own, and gradients that are
// complete only at the end leave nothing to hide communication behind.
func TestLimits(t *testing.T) {
	lengths := []int{3, 9, 0, 5}
	j := testJob(t, 4)
	j.link = link{rate: math.Inf(1)}
	longest := slowest(j.work, lengths)
	if got := j.stepOf(lengths); !near(got.seconds, longest) {
		t.Errorf("without a network's limits a step takes %v s, the slowest rank %v", got.seconds, longest)
	}

	j = testJob(t, 1)
	if got, want := j.stepOf([]int{4}), j.work.Times[1][4]; !near(got.seconds, want.total()) || got.exposed != 0 || got.bytes != 0 {
		t.Errorf("one rank: %+v, want %v s", got, want.total())
	}

	j = testJob(t, 4)
	late := *j.work
	late.Times = slices.Clone(late.Times)
	late.Times[1] = slices.Clone(late.Times[1])
	for i := range late.Times[1] {
		one := &late.Times[1][i]
		one.Ready = slices.Repeat([]float64{one.backward()}, len(one.Ready))
	}
	j.work = &late
	communication, bytes := 3*j.link.gather(4), 0.0
	for _, p := range j.prepare().parts {
		communication += duration(direct, 4, p.bytes, j.link)
		bytes += 2*0.75*p.bytes + 3*p.asked
		if p.asked > 0 {
			communication += j.link.gather(4) + 3*p.asked/j.link.rate + p.table*j.link.search
		}
	}
	if got, want := j.stepOf(lengths), longest+communication; !near(got.seconds, want) || !near(got.bytes, bytes) {
		t.Errorf("a step without overlap takes %v s and sends %v bytes, want %v and %v", got.seconds, got.bytes, want, bytes)
	}
	if with := testJob(t, 4); with.stepOf(lengths).seconds >= longest+communication {
		t.Error("overlap gains nothing")
	}
}

// A shaped link that has rested lets a burst pass, and then no more than its rate.
func TestBurst(t *testing.T) {
	j := testJob(t, 2)
	lengths := []int{9, 9}
	plain := j.stepOf(lengths)
	j.link.burst, j.link.host = 1e5, math.Inf(1)
	shaped := j.stepOf(lengths)
	if gain := plain.exposed - shaped.exposed; gain < 1e5/j.link.rate || gain > 0.2*plain.exposed {
		t.Errorf("bursts of 1 ms change %v s to %v", plain.exposed, shaped.exposed)
	}
}

func TestSeeds(t *testing.T) {
	j := testJob(t, 8)
	a, b := j.run(20), j.run(20)
	j.seed++
	if c := j.run(20); a != b || a == c {
		t.Errorf("seeds: %v, %v, another one %v", a, b, c)
	}
}

// Stragglers: the more ranks draw a length, the longer the longest, until all wait for the
// longest there is; ranks that share a length wait for none.
func TestStragglers(t *testing.T) {
	j := testJob(t, 512)
	j.link = link{rate: math.Inf(1)}
	r := j.run(20)
	if want := 32 / slowest(j.work, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}) / j.alone(); math.Abs(j.efficiency(&r)-want) > 1e-6 {
		t.Errorf("512 ranks work at %v of their speed, want %v", j.efficiency(&r), want)
	}
	j.draw = alike
	if r = j.run(20); !near(j.efficiency(&r), 1) {
		t.Errorf("ranks that share a length work at %v of their speed", j.efficiency(&r))
	}
}

// counted notes the lengths of sums.
type counted struct {
	train.World
	sums *[]int
}

func (c counted) Sum(v, residual []float32) error {
	*c.sums = append(*c.sums, 4*len(v))
	return c.World.Sum(v, residual)
}

// The parts that are simulated are those that package train sums.
func TestParts(t *testing.T) {
	m := model{20000, 64, 128, 2, 3000}
	const ranks, steps, rows, length = 2, 3, 4, 5
	worlds := traintest.Worlds(ranks)
	sums := make([][]int, ranks)
	orders := make([][]param, ranks)
	errs := make([]error, ranks)
	var all sync.WaitGroup
	for r := range ranks {
		all.Go(func() {
			one := &trial{model: m, device: tensor.CPU(), world: counted{worlds[r], &sums[r]}, rows: rows, lengths: slices.Repeat([]int{length}, ranks*steps), epochs: 1, now: wall}
			_, orders[r], errs[r] = one.run(t.Context())
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	w := &workload{Params: orders[0]}
	// What 2 ranks have touched is drawn at random: take it from the last sum.
	last := sums[0][len(sums[0])-1]
	var want []int
	for _, p := range w.parts(bucketSize, func(int) float64 { return float64(last) / 4 / 64 }) {
		want = append(want, int(p.bytes))
	}
	if got := sums[0][len(sums[0])-len(want):]; !slices.Equal(got, want) {
		t.Errorf("train sums %d bytes, simulated are %d", got, want)
	}
	if expected := touched(20000, ranks*rows*length) * 64 * 4; math.Abs(expected-float64(last)) > 0.3*expected {
		t.Errorf("ranks have touched %d bytes of rows, expected %v", last, expected)
	}
}

// A pacer makes a step as long as its operations were, and leaves gradients that travel.
func TestPacer(t *testing.T) {
	m := model{50, 8, 8, 2, 5}
	times := []rig.Operation{{Name: "", Seconds: 0.01}}
	p := &rig.Paced{Backend: tensor.CPU().Backend(), Times: slices.Repeat(times, 20)}
	one := &trial{model: m, device: tensor.NewDevice(p), rows: 2, lengths: []int{3, 3}, epochs: 1, now: wall, begin: func(int) { p.Next = 0 }}
	steps, order, err := one.run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if last := order[len(order)-1]; last.Table != 50 || steps[1].Forward < 0.039 || steps[1].backward() < 0.039 || p.Next != 10 {
		t.Errorf("a step of %d operations with %v last: %+v", p.Next, last, steps[1].times)
	}
}

func TestFailures(t *testing.T) {
	for _, f := range []failures{{7200, 120, 1, 300}, {1e5, 60, 5, 900}, {600, 120, 1, 300}} {
		if got, want := f.useful(200000, 1), f.expected(); math.Abs(got-want) > 0.01*want {
			t.Errorf("%+v: %v of the time is kept, expected %v", f, got, want)
		}
		if f.useful(100, 1) != f.useful(100, 1) || f.useful(100, 1) == f.useful(100, 2) {
			t.Error("the seed does not decide")
		}
	}
	f := failures{mean: 1e6, restart: 60, write: 1}
	if got, want := f.best(), math.Sqrt(2*f.write*f.mean); math.Abs(got-want) > 0.02*want {
		t.Errorf("the best interval is %v s, by Young's formula %v", got, want)
	}
}

// The tables and curves of the document are those that the program makes.
func TestDocument(t *testing.T) {
	dir := t.TempDir()
	var text bytes.Buffer
	if err := sweep(&text, dir); err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("../../docs/scaling.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text.Bytes()) {
		if line[0] == '|' && line[1] == ' ' && !bytes.Contains(doc, line) {
			t.Errorf("docs/scaling.md lacks the row %s", line)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.svg"))
	if err != nil || len(files) != 6 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		got, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join("../../docs", filepath.Base(name)))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("docs/%s is not what the program draws (%v): run go run ./bench/scaling", filepath.Base(name), err)
		}
		for d := xml.NewDecoder(bytes.NewReader(got)); ; {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
}
