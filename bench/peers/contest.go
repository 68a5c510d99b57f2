package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/carousel-ml/carousel/internal/bench"
)

// Allowed differences between competitors.
type tolerances struct {
	output   float64 // absolute, or of a ready model's greatest
	gradient float64 // of the parameter's greatest
	loss     float64 // absolute, after steps of AdamW, which make much of the smallest gradients
}

// allowed is the tolerances of a precision. A number of bfloat16 is off by up to
// 1/512 of its size, one of float16 by 1/4096, and competitors round at different
// places; their losses are float32.
var allowed = map[string]tolerances{
	float32s:  {1e-5, 1e-4, 1e-3},
	bfloat16s: {5e-3, 2e-2, 5e-3},
	float16s:  {1e-3, 5e-3, 1e-3},
}

// gradients reports whether the results of a pass are gradients.
func gradients(pass string) bool { return pass == train || pass == vanish || pass == faint }

// of is what the results of a pass may differ by.
func (t tolerances) of(pass string) float64 {
	switch {
	case pass == forward || pass == ready:
		return t.output
	case gradients(pass):
		return t.gradient
	}
	return t.loss
}

const (
	blockTime = 60 * time.Millisecond // calls of one competitor in one round
	pause     = 20 * time.Millisecond // before each block: Carousel's workers, and peers that cannot be stopped, go to sleep
	probeTime = 15 * time.Millisecond
)

// Row is one pass of one shape against one peer.
type Row struct {
	Shape string `json:"shape"`
	Pass  string `json:"pass"`
	Peer  string `json:"peer"`
	// Ratio is the peer's time divided by Carousel's in the same round: the
	// median of the rounds that count, and what 10 % of them are below and above.
	Ratio      float64 `json:"ratio"`
	RatioLow   float64 `json:"ratio_p10"`
	RatioHigh  float64 `json:"ratio_p90"`
	Ms         float64 `json:"ms"` // Carousel's median
	PeerMs     float64 `json:"peer_ms"`
	GFlops     float64 `json:"gflops"`
	PeerGFlops float64 `json:"peer_gflops"`
	PeakShare  float64 `json:"peak_share"` // Carousel's GFlops, of the best multiply-add rate of the run
	Rounds     int     `json:"rounds"`
	Rejected   int     `json:"rejected"`   // rounds in which the machine was slower
	Steady     bool    `json:"steady"`     // false: too few rounds counted, so all did
	Difference float64 `json:"difference"` // of outputs, absolute, or of gradients, relative
	Agrees     bool    `json:"agrees"`
	Uses       string  `json:"uses"`                // the kernels of Carousel
	PeerUses   string  `json:"peer_uses,omitempty"` // those that the peer names
}

// Memory is the memory that three training steps of a shape needed in addition to
// that before.
type Memory struct {
	Shape string `json:"shape"`
	Name  string `json:"name"`
	Bytes int    `json:"bytes"`
}

// Missing is a peer that is left out for one reason.
type Missing struct {
	Peer string   `json:"peer"`
	From []string `json:"from"` // such as "A forward"
	Why  string   `json:"why"`
}

// contest is a run of all competitors, Carousel first.
type contest struct {
	all       []competitor
	threads   int
	rounds    int
	precision string
	scratch   string
	peak      float64 // the best so far, GFLOP/s
	note      func(format string, args ...any)
	missing   []Missing
}

// shape runs the passes of a shape.
func (c *contest) shape(ctx context.Context, s bench.Shape, passes []string) ([]Row, error) {
	return c.problem(ctx, newProblem(s), passes)
}

// problem runs the passes that belong to q.
func (c *contest) problem(ctx context.Context, q *problem, passes []string) ([]Row, error) {
	s := q.shape
	passes = slices.DeleteFunc(slices.Clone(passes), func(pass string) bool { return !q.poses(pass) })
	if len(passes) == 0 {
		return nil, nil
	}
	dir := filepath.Join(c.scratch, s.Name)
	if err := q.write(dir); err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	able := slices.DeleteFunc(slices.Clone(c.all), func(p competitor) bool { return !slices.ContainsFunc(passes, p.offers) })
	for _, p := range able {
		if err := p.open(q, dir); err != nil {
			return nil, err
		}
	}
	var rows []Row
	for _, pass := range passes {
		var in []competitor
		for _, p := range able {
			if p.offers(pass) {
				in = append(in, p)
			}
		}
		if len(in) < 2 {
			continue
		}
		c.note("%s %s: %d competitors", s.Name, pass, len(in))
		more, err := c.pass(ctx, q, pass, in)
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	for _, p := range able {
		if err := p.close(); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// each calls f with each competitor and returns those that could do it. The others, as
// PyTorch in 16 bits on processors without instructions for them, are left out.
func (c *contest) each(in []competitor, shape, what string, f func(p competitor) error) (able []competitor, err error) {
	for _, p := range in {
		err := f(p)
		var refused *refusedError
		switch {
		case err == nil:
			able = append(able, p)
		case errors.As(err, &refused):
			c.note("%s %s without %s: %s", shape, what, p.name(), refused.why)
			c.miss(p.name(), refused.why, shape+" "+what)
		default:
			return nil, err
		}
	}
	return able, nil
}

// miss notes that a peer has no part in what is named.
func (c *contest) miss(peer, why, what string) {
	i := slices.IndexFunc(c.missing, func(m Missing) bool { return m.Peer == peer && m.Why == why })
	if i < 0 {
		i, c.missing = len(c.missing), append(c.missing, Missing{Peer: peer, Why: why})
	}
	c.missing[i].From = append(c.missing[i].From, what)
}

// pass compares the results of the competitors and then times them in turn.
func (c *contest) pass(ctx context.Context, q *problem, pass string, in []competitor) ([]Row, error) {
	found := map[competitor]*Row{}
	for _, p := range in {
		found[p] = &Row{Shape: q.shape.Name, Pass: pass, Peer: p.name(), Agrees: true}
	}
	for _, part := range q.compared(pass) {
		var results [][]float32
		able, err := c.each(in, q.shape.Name, part, func(p competitor) error {
			v, err := p.result(part)
			if err == nil {
				results = append(results, slices.Clone(v))
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		in = able
		for i, p := range in[1:] {
			r := found[p]
			r.Uses, r.PeerUses = in[0].uses(), p.uses()
			if !r.Agrees {
				continue // it shows the first difference
			}
			if r.Difference = q.difference(part, results[0], results[1+i]); math.IsNaN(r.Difference) {
				r.Difference = math.MaxFloat64 // JSON has no NaN
			}
			r.Agrees = r.Difference <= allowed[c.precision].of(part)
		}
	}
	var calls []int
	in, err := c.each(in, q.shape.Name, pass, func(p competitor) error {
		ms, err := p.run(pass, 2, 3)
		if err == nil {
			calls = append(calls, 1+int(blockTime.Seconds()*1e3/bench.Quantile(ms, 0.5)))
		}
		return err
	})
	if err != nil || len(in) < 2 {
		return nil, err
	}
	rounds, err := c.compete(ctx, pass, in, calls)
	if err != nil {
		return nil, err
	}
	flop := q.flop(pass)
	good, steady := c.steady(rounds)
	var rows []Row
	for i, p := range in[1:] {
		r := found[p]
		r.fill(good, i+1)
		r.Rejected, r.Steady = len(rounds)-len(good), steady
		r.GFlops, r.PeerGFlops = 1e-6*flop/r.Ms, 1e-6*flop/r.PeerMs
		rows = append(rows, *r)
	}
	return rows, nil
}

// compete makes rounds until enough count, but at most three times that number. A block
// of competitor i is calls[i] passes.
func (c *contest) compete(ctx context.Context, pass string, in []competitor, calls []int) ([]bench.Round, error) {
	var rounds []bench.Round
	for n := 0; n < 3*c.rounds; n++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		r := bench.Round{Peak: c.probe(), Ms: make([]float64, len(in))}
		for k := range in {
			i := (n + k) % len(in) // the order changes from round to round
			warm := 0
			if calls[i] > 1 {
				warm = 1
			}
			time.Sleep(pause)
			ms, err := in[i].run(pass, warm, calls[i])
			if err != nil {
				return nil, err
			}
			r.Ms[i] = bench.Quantile(ms, 0.5)
		}
		time.Sleep(pause)
		r.Peak = min(r.Peak, c.probe())
		rounds = append(rounds, r)
		if good, _ := c.steady(rounds); n+1 >= c.rounds && len(good) >= c.rounds {
			break
		}
	}
	return rounds, nil
}

// probe measures the multiply-adds of all threads at once.
func (c *contest) probe() float64 {
	p := bench.Peak(c.threads, probeTime)
	c.peak = math.Max(c.peak, p)
	return p
}

// steady returns the rounds in which the machine was not disturbed.
func (c *contest) steady(rounds []bench.Round) (good []bench.Round, steady bool) {
	return bench.Steady(rounds, c.peak, min(c.rounds, 5))
}

// fill sets the times of competitor i against the first.
func (r *Row) fill(rounds []bench.Round, i int) {
	var own, theirs []float64
	for _, x := range rounds {
		own = append(own, x.Ms[0])
		theirs = append(theirs, x.Ms[i])
	}
	ratios := bench.Ratios(rounds, i, 0)
	r.Rounds = len(rounds)
	r.Ratio, r.RatioLow, r.RatioHigh = bench.Quantile(ratios, 0.5), bench.Quantile(ratios, 0.1), bench.Quantile(ratios, 0.9)
	r.Ms, r.PeerMs = bench.Quantile(own, 0.5), bench.Quantile(theirs, 0.5)
}

// memory measures every competitor that trains.
func (c *contest) memory(s bench.Shape) ([]Memory, error) {
	q := newProblem(s)
	dir := filepath.Join(c.scratch, "memory")
	if err := q.write(dir); err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	c.note("%s: memory of a training step", s.Name)
	var list []Memory
	_, err := c.each(c.all, s.Name, "memory", func(p competitor) error {
		if !p.offers(train) {
			return nil
		}
		n, err := p.memory(q, dir)
		if err != nil {
			return fmt.Errorf("memory: %w", err)
		}
		list = append(list, Memory{s.Name, p.name(), n})
		return nil
	})
	return list, err
}
