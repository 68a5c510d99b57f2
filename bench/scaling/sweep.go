package main

import (
	"fmt"
	"io"
	"strings"
)

// What a sweep assumes of machines that nobody had at hand.
const (
	alpha     = 50e-6 // seconds from the last byte sent to the rank that waits for it
	inside    = 10e9  // bytes a second between ranks of one node, each
	headers   = 0.95  // the share of a link's rate that TCP leaves for data
	cores     = 16    // of a node, each as the measured one
	copying   = 4     // cores of a node that move bytes while others compute
	restart   = 120.  // seconds from a failure to the next step: ten until it is noticed, the launcher, reading data
	disk      = 200e6 // bytes a second that rank 0 writes
	simulated = 200   // steps
)

var sizes = []int{2, 4, 8, 16, 24, 32, 64, 96, 128, 256, 384, 512}

var gigabits = []float64{1, 10, 25, 100}

// plan is a sweep of a machine.
type plan struct {
	*machine
	out io.Writer
}

// link is one of so many Gbit/s between nodes.
func (p *plan) link(gigabits float64) link {
	return link{
		rate: min(gigabits*1e9/8*headers, copying/p.Byte), inside: inside, alpha: alpha,
		message: p.Message, sum: p.Sum, rounded: p.Rounded, search: p.Search, move: p.Move, perNode: 1,
	}
}

func (p *plan) job(model string, ranks int, rows float64, gbit float64) (*job, error) {
	w, err := p.workload(model)
	if err != nil {
		return nil, err
	}
	return &job{work: w, ranks: ranks, rows: rows, speed: cores, draw: byRows, bucket: bucketSize, add: direct, link: p.link(gbit), seed: 1}, nil
}

// sweep prints the tables and draws the curves of docs/scaling.md.
func sweep(out io.Writer, dir string) error {
	m, err := load()
	if err != nil {
		return err
	}
	p := &plan{m, out}
	fmt.Fprintf(out, "Measured on one core (%s): a message %.1f µs, moving a byte %.2f ns, adding a byte of a rank %.3f ns (%.3f with rounding), looking through a byte of a table %.2f ns, copying one of its rows %.2f ns.\n", m.Core, m.Message*1e6, m.Byte*1e9, m.Sum*1e9, m.Rounded*1e9, m.Search*1e9, m.Move*1e9)
	for _, part := range []func(string) error{p.weak, p.batches, p.algorithms, p.ways, p.nodes, p.strong, p.failing} {
		if err := part(dir); err != nil {
			return err
		}
	}
	return nil
}

// row prints a row of a table.
func (p *plan) row(cells ...any) {
	for _, c := range cells {
		if v, ok := c.(float64); ok {
			c = fmt.Sprintf("%.0f %%", 100*v)
		}
		fmt.Fprintf(p.out, "| %v ", c)
	}
	fmt.Fprintln(p.out, "|")
}

// head prints the head of a table over the numbers of ranks.
func (p *plan) head(title string, first ...string) {
	fmt.Fprintf(p.out, "\n%s\n\n| %s |", title, strings.Join(first, " | "))
	for _, n := range sizes {
		fmt.Fprintf(p.out, " %d |", n)
	}
	fmt.Fprintf(p.out, "\n|%s\n", strings.Repeat("---|", len(first))+strings.Repeat("---:|", len(sizes)))
}

// efficiencies fills a row of a table and a curve; change makes each size's job.
func (p *plan) efficiencies(name string, cells []any, change func(ranks int) (*job, error)) (c curve, err error) {
	c = curve{name: name, x: []float64{1}, y: []float64{100}}
	for _, n := range sizes {
		j, err := change(n)
		if err != nil {
			return c, err
		}
		if j == nil {
			cells = append(cells, "")
			continue
		}
		r := j.run(simulated)
		e := j.efficiency(&r)
		cells = append(cells, e)
		c.x, c.y = append(c.x, float64(n)), append(c.y, 100*e)
	}
	p.row(cells...)
	return c, nil
}

// kind is what sums travel as.
func kind(half bool) string {
	if half {
		return "bfloat16"
	}
	return "float32"
}

const (
	manyRows = 512 // of a node's batch: 32 a core
	fewRows  = 32  // 2 a core
)

// weak has the same batch on each node. Ranks of a step have batches of one length, so that
// communication alone shows.
func (p *plan) weak(dir string) error {
	for _, rows := range []float64{manyRows, fewRows} {
		p.head(fmt.Sprintf("Efficiency, %v rows a node, all ranks of a step with the same length, direct exchange", rows), "model", "Gbit/s", "sums")
		c := &chart{file: fmt.Sprintf("scaling-weak-%v.svg", rows), title: fmt.Sprintf("Large model, %v rows a node", rows), y: "efficiency, %", top: 100}
		for _, model := range []string{"large", "small"} {
			for i, g := range gigabits {
				for _, half := range []bool{false, true} {
					one, err := p.efficiencies(fmt.Sprintf("%v Gbit/s", g), []any{model, fmt.Sprint(g), kind(half)}, func(n int) (*job, error) {
						j, err := p.job(model, n, rows, g)
						if err == nil {
							j.draw, j.half = alike, half
						}
						return j, err
					})
					if err != nil {
						return err
					}
					one.color, one.dashed = i, half
					if half {
						one.name += ", bfloat16"
					}
					if model == "large" {
						c.curves = append(c.curves, one)
					}
				}
			}
		}
		if err := c.write(dir); err != nil {
			return err
		}
	}
	return nil
}

// batches shows what it costs that ranks have batches of different lengths.
func (p *plan) batches(dir string) error {
	p.head("Efficiency of the large model at 25 Gbit/s, 512 rows a node, by what the batches of a step have in common", "as many")
	c := &chart{file: "scaling-lengths.svg", title: "Large model, 25 Gbit/s: batches of a step", y: "efficiency, %", top: 100}
	names := map[draw]string{byRows: "rows, of any length", byTokens: "tokens", alike: "rows, of one length"}
	for i, d := range []draw{byRows, byTokens, alike} {
		one, err := p.efficiencies(names[d], []any{names[d]}, func(n int) (*job, error) {
			j, err := p.job("large", n, manyRows, 25)
			if err == nil {
				j.draw = d
			}
			return j, err
		})
		if err != nil {
			return err
		}
		one.color = i
		c.curves = append(c.curves, one)
	}
	return c.write(dir)
}

// algorithms compares the sums of a step of the large model, without computing.
func (p *plan) algorithms(dir string) error {
	w, err := p.workload("large")
	if err != nil {
		return err
	}
	c := &chart{file: "scaling-sums.svg", title: "Sums of a step, large model, 10 Gbit/s", y: "seconds", low: 0.01, high: 10}
	for _, g := range gigabits {
		p.head(fmt.Sprintf("Sums of a step of the large model at %v Gbit/s, ms", g), "by", "buckets")
		for i, a := range []algorithm{direct, twoStage, halving, ring} {
			for _, bucket := range []int{bucketSize, 8 * bucketSize} {
				cells := []any{a.name, fmt.Sprintf("%d MB", 4*bucket>>20)}
				one := curve{name: fmt.Sprintf("%s, %d MB", a.name, 4*bucket>>20), color: i, dashed: bucket > bucketSize}
				for _, n := range sizes {
					seconds, ok := p.sums(w, n, bucket, a, p.link(g))
					if !ok {
						cells = append(cells, "")
						continue
					}
					cells = append(cells, fmt.Sprintf("%.0f", 1e3*seconds))
					one.x, one.y = append(one.x, float64(n)), append(one.y, seconds)
				}
				p.row(cells...)
				if g == 10 {
					c.curves = append(c.curves, one)
				}
			}
		}
	}
	return c.write(dir)
}

// ways are ways to add, with the efficiency that comes of them.
func (p *plan) ways(dir string) error {
	p.head("Efficiency of the large model at 25 Gbit/s, 512 rows a node, one length a step, by how sums are made", "by", "buckets")
	c := &chart{file: "scaling-ways.svg", title: "Large model, 25 Gbit/s, 512 rows a node", y: "efficiency, %", top: 100}
	for i, way := range []struct {
		add    algorithm
		bucket func(ranks int) int
		name   string
	}{
		{direct, func(int) int { return bucketSize }, "1 MB"},
		{direct, func(n int) int { return max(bucketSize, 4096*n) }, "1 MB, 16 KB a rank"},
		{twoStage, func(int) int { return bucketSize }, "1 MB"},
		{halving, func(int) int { return bucketSize }, "1 MB"},
		{ring, func(int) int { return bucketSize }, "1 MB"},
	} {
		name := way.add.name + ", " + way.name
		one, err := p.efficiencies(name, []any{way.add.name, way.name}, func(n int) (*job, error) {
			if way.add.stages != nil && way.add.stages(n, 1) == nil {
				return nil, nil
			}
			j, err := p.job("large", n, manyRows, 25)
			if err == nil {
				j.draw, j.add, j.bucket = alike, way.add, way.bucket(n)
			}
			return j, err
		})
		if err != nil {
			return err
		}
		one.color = i
		c.curves = append(c.curves, one)
	}
	p.crossings()
	return c.write(dir)
}

// crossings tells from how many ranks the sums of a step by two-stage exchange take less than nine
// tenths of those by direct exchange.
func (p *plan) crossings() {
	fmt.Fprintf(p.out, "\nRanks from which direct exchange takes a tenth longer than two-stage exchange\n\n| buckets | %s |\n|---|%s\n", "1 Gbit/s | 10 | 25 | 100", strings.Repeat("---:|", len(gigabits)))
	w := p.Workloads[0]
	for _, bucket := range []int{bucketSize, 8 * bucketSize} {
		cells := []any{fmt.Sprintf("%d MB", 4*bucket>>20)}
		for _, g := range gigabits {
			cell := "more than 512"
			for n := 2; n <= 512; n *= 2 {
				l := p.link(g)
				d, _ := p.sums(w, n, bucket, direct, l)
				if s, _ := p.sums(w, n, bucket, twoStage, l); d > 1.1*s {
					cell = fmt.Sprint(n)
					break
				}
			}
			cells = append(cells, cell)
		}
		p.row(cells...)
	}
}

// sums is the time of all sums of a step, one after another.
func (p *plan) sums(w *workload, ranks, bucket int, a algorithm, l link) (seconds float64, ok bool) {
	if a.stages != nil && a.stages(ranks, max(l.perNode, 1)) == nil {
		return 0, false
	}
	for _, part := range w.parts(bucket, func(rows int) float64 { return float64(rows) }) {
		for _, e := range a.exchanges(ranks, l.perNode, part.bytes) {
			seconds += l.seconds(&e)
		}
	}
	return seconds, true
}

// nodes has eight ranks a node, which share its link.
func (p *plan) nodes(string) error {
	w, err := p.workload("large")
	if err != nil {
		return err
	}
	p.head("Sums of a step of the large model with 8 ranks a node, ms", "Gbit/s of a node", "by")
	for _, g := range gigabits {
		for _, a := range []algorithm{direct, hierarchical} {
			cells := []any{fmt.Sprint(g), a.name}
			for _, n := range sizes {
				l := p.link(g)
				l.perNode = 8
				seconds, ok := p.sums(w, n, bucketSize, a, l)
				if !ok || n < 8 {
					cells = append(cells, "")
					continue
				}
				cells = append(cells, fmt.Sprintf("%.0f", 1e3*seconds))
			}
			p.row(cells...)
		}
	}
	return nil
}

const globalRows = 4096

// strong has the same batch of all ranks together.
func (p *plan) strong(dir string) error {
	p.head(fmt.Sprintf("Times as fast as one node, %d rows of all together, large model, one length a step", globalRows), "Gbit/s", "sums")
	c := &chart{file: "scaling-strong.svg", title: fmt.Sprintf("Large model, %d rows of all ranks together", globalRows), y: "times as fast as one node", low: 1, high: 100}
	base, err := p.job("large", 1, globalRows, 1)
	if err != nil {
		return err
	}
	alone := base.alone()
	for i, g := range gigabits {
		for _, half := range []bool{false, true} {
			one := curve{name: fmt.Sprintf("%v Gbit/s", g), color: i, dashed: half, x: []float64{1}, y: []float64{1}}
			if half {
				one.name += ", bfloat16"
			}
			cells := []any{fmt.Sprint(g), kind(half)}
			for _, n := range sizes {
				j, err := p.job("large", n, globalRows/float64(n), g)
				if err != nil {
					return err
				}
				j.draw, j.half = alike, half
				r := j.run(simulated)
				speed := r.rows / r.seconds / alone
				cells = append(cells, fmt.Sprintf("%.1f", speed))
				one.x, one.y = append(one.x, float64(n)), append(one.y, speed)
			}
			p.row(cells...)
			c.curves = append(c.curves, one)
		}
	}
	return c.write(dir)
}

// failing is the share of time that failures leave.
func (p *plan) failing(string) error {
	w, err := p.workload("large")
	if err != nil {
		return err
	}
	write := w.State / disk
	p.head(fmt.Sprintf("Share of the time that is kept, with a checkpoint of %.1f s and %v s from a failure to the next step", write, restart), "hours a node lives", "checkpoint")
	for _, hours := range []float64{1000, 5000} {
		best := []any{fmt.Sprint(hours), "best interval, s"}
		kept, fixed := []any{fmt.Sprint(hours), "at the best interval"}, []any{fmt.Sprint(hours), "every 5 minutes"}
		for _, n := range sizes {
			f := failures{mean: hours * 3600 / float64(n), restart: restart, write: write, every: 300}
			share := func() string { return fmt.Sprintf("%.1f %%", 100*f.useful(20000, 1)) }
			fixed = append(fixed, share())
			f.every = f.best()
			best, kept = append(best, fmt.Sprintf("%.0f", f.every)), append(kept, share())
		}
		p.row(best...)
		p.row(kept...)
		p.row(fixed...)
	}
	return nil
}
