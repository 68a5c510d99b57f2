package main

import (
	"math"
	"math/rand/v2"

	"github.com/carousel-ml/carousel/bench/rig"
)

// A workload is a model with the times of its parts on one core, as `--measure` has found them.
type workload struct {
	Name    string
	Model   model
	Params  []param   // in the order in which their gradients are complete
	Lengths []int     // of batches, equally frequent
	Rows    []int     // of the batches that were measured
	Times   [][]times // by Rows and Lengths
	State   float64   // bytes of a checkpoint
}

type param struct {
	Name    string
	Numbers int
	Table   int `json:",omitempty"` // rows, of a table of which a batch touches few
}

// times are seconds of a batch.
type times struct {
	Forward float64
	Ready   []float64 // from the beginning of the backward pass, by parameter
	Tail    float64   // clipping and the optimizer

	Operations []rig.Operation `json:",omitempty"` // the large ones, in order
}

// backward is the time of the whole pass: its last act is a gradient.
func (t *times) backward() float64 { return t.Ready[len(t.Ready)-1] }

func (t *times) total() float64 { return t.Forward + t.backward() + t.Tail }

// at returns the times of a batch of a length (by its number) and rows: linear in the rows, as
// between those that were measured.
func (w *workload) at(length int, rows float64) times {
	if len(w.Rows) == 1 {
		return w.Times[0][length]
	}
	last := len(w.Rows) - 1
	a, b := w.Times[0][length], w.Times[last][length]
	x := (rows - float64(w.Rows[0])) / float64(w.Rows[last]-w.Rows[0])
	mix := func(a, b float64) float64 { return max(a+(b-a)*x, 0) }
	t := times{Forward: mix(a.Forward, b.Forward), Tail: mix(a.Tail, b.Tail)}
	for i := range a.Ready {
		t.Ready = append(t.Ready, mix(a.Ready[i], b.Ready[i]))
	}
	return t
}

// A part is what one call of Sum adds.
type part struct {
	bytes float64
	after int     // its last parameter to be complete
	asked float64 // bytes of each rank that say which rows of a table it has touched, before the first part
	table float64 // bytes of that table
	moved float64 // bytes of its rows that are copied together, and back after the last part
}

// parts divides gradients as package train does: buckets of a megabyte, larger parameters in pieces of
// one, of tables the rows that some rank has touched, if these are at most half of them.
func (w *workload) parts(bucket int, touched func(rows int) float64) []part {
	const number = 4
	var list []part
	cut := func(numbers, asked, table, moved float64, after int) {
		for numbers > 0 {
			n := min(numbers, float64(bucket))
			list = append(list, part{n * number, after, asked, table, moved})
			numbers, asked, table, moved = numbers-n, 0, 0, 0
		}
	}
	sum, room := 0, 0
	flush := func(after int) {
		cut(float64(sum), 0, 0, 0, after)
		sum, room = 0, 0
	}
	for i, p := range w.Params {
		if p.Table > 0 && p.Numbers >= bucket/16 {
			flush(i - 1)
			n, width := touched(p.Table), float64(p.Numbers/p.Table)
			moved := number * n * width
			if 2*n > float64(p.Table) {
				n, moved = float64(p.Table), 0
			}
			cut(n*width, math.Ceil(float64(p.Table)/32)*8, float64(number*p.Numbers), moved, i)
			continue
		}
		if room <= 0 {
			flush(i - 1)
			room = bucket
		}
		sum += p.Numbers
		room -= p.Numbers
	}
	flush(len(w.Params) - 1)
	return list
}

// touched is the expected number of rows of a table that n words touch, by Zipf's law.
func touched(rows int, n float64) float64 {
	sum, all := 0.0, math.Log(float64(rows+1))
	for i := range rows {
		p := math.Log(float64(i+2)/float64(i+1)) / all
		sum += 1 - math.Pow(1-p, n)
	}
	return sum
}

// Which batches the ranks of a step have.
type draw string

const (
	byRows   draw = "rows"   // as many rows each, of any length: classify and tag
	byTokens draw = "tokens" // as many tokens each: translate
	alike    draw = "alike"  // as many rows each, of the same length on all ranks: no task yet
)

// A job is a training to be simulated.
type job struct {
	work   *workload
	ranks  int
	rows   float64 // of a rank's batch; by tokens, of one of the mean length
	speed  float64 // of a rank, in cores as measured
	draw   draw
	half   bool // bfloat16 on the way
	bucket int  // numbers
	add    algorithm
	link   link
	seed   uint64
}

// A result is of one step, or the means of many.
type result struct {
	seconds float64
	rows    float64 // of all ranks
	exposed float64 // mean over ranks: from the end of the backward pass to the last sum
	bytes   float64 // that a rank sends
}

// bucketSize is that of package train.
const bucketSize = 1 << 18

// run simulates steps and returns their means. Where the ranks of a step have the same length, all
// lengths take turns.
func (j *job) run(steps int) (mean result) {
	random := rand.New(rand.NewPCG(j.seed, uint64(j.ranks)))
	p := j.prepare()
	for i := range steps {
		ranks := make([]int, len(p.batches))
		for range j.ranks {
			ranks[random.IntN(len(ranks))]++
		}
		if j.draw == alike {
			clear(ranks)
			ranks[i%len(ranks)] = j.ranks
		}
		one := p.step(ranks)
		mean.seconds += one.seconds / float64(steps)
		mean.rows += one.rows / float64(steps)
		mean.exposed += one.exposed / float64(steps)
		mean.bytes += one.bytes / float64(steps)
	}
	return mean
}

// prepared is a job with what all its steps have in common.
type prepared struct {
	*job
	parts   []part
	batches []batch // by length
}

type batch struct {
	rows float64
	times
}

func (j *job) prepare() *prepared {
	p := &prepared{job: j}
	words := 0.0
	for _, n := range j.work.Lengths {
		words += float64(n) / float64(len(j.work.Lengths))
	}
	p.parts = j.work.parts(j.bucket, func(rows int) float64 { return touched(rows, words*j.rows*float64(j.ranks)) })
	for i, n := range j.work.Lengths {
		b := batch{rows: j.rows}
		if j.draw == byTokens {
			b.rows = max(1, j.rows*words/float64(n))
		}
		t := j.work.at(i, b.rows)
		b.Forward, b.Tail = t.Forward/j.speed, t.Tail/j.speed
		for _, at := range t.Ready {
			b.Ready = append(b.Ready, at/j.speed)
		}
		p.batches = append(p.batches, b)
	}
	return p
}

// step simulates a step in which so many ranks have batches of each length. Every Gather and Sum ends on
// all ranks when the last one has come and the exchanges have passed, so that one clock serves all: of an
// exchange only the last rank to begin it counts.
func (p *prepared) step(ranks []int) (one result) {
	j := p.job
	slowest := func(of func(b *batch) float64) (latest float64) {
		for i, n := range ranks {
			if n > 0 {
				latest = max(latest, of(&p.batches[i]))
			}
		}
		return latest
	}
	link := j.link
	if j.half {
		link.sum = link.rounded
	}
	gather := link.gather(j.ranks)
	start := 2 * gather // what ranks wish, and the weights of batches
	clock := 0.0
	tokens := link.burst
	for _, part := range p.parts {
		came := start + slowest(func(b *batch) float64 { return b.Forward + b.Ready[part.after] })
		if came > clock {
			tokens = min(link.burst, tokens+(came-clock)*link.rate)
			clock = came
		}
		if j.ranks == 1 {
			continue
		}
		if part.asked > 0 {
			clock += part.table*link.search + gather + part.asked*float64(j.ranks-1)/link.rate
			one.bytes += part.asked * float64(j.ranks-1)
			moved := 2 * part.moved // there and back
			if j.half {
				moved *= 2 // what rounding lost as well
			}
			clock += moved * link.move
		}
		bytes := part.bytes
		if j.half {
			bytes /= 2
		}
		for _, e := range j.add.exchanges(j.ranks, link.perNode, bytes) {
			if j.half {
				e.added *= 2 // as float32
			}
			seconds := link.seconds(&e)
			if link.burst > 0 {
				// A shaped link has filled its bucket of tokens while nothing passed.
				sent := float64(e.peers) * e.bytes
				idle := link.alpha + e.added*link.sum
				at := min(sent, tokens)
				seconds -= at/link.rate - at/link.host
				tokens = min(link.burst, tokens-at+idle*link.rate)
			}
			clock += seconds
			one.bytes += float64(e.peers) * e.bytes
		}
	}
	for i, n := range ranks {
		b := &p.batches[i]
		end := start + b.Forward + b.backward()
		one.rows += float64(n) * b.rows
		one.exposed += (clock - end) * float64(n) / float64(j.ranks)
	}
	one.seconds = clock + gather + slowest(func(b *batch) float64 { return b.Tail }) // the losses
	return one
}

// alone is the throughput of one rank without others, in rows a second.
func (j *job) alone() float64 {
	rows, seconds := 0.0, 0.0
	for _, b := range j.prepare().batches {
		rows += b.rows
		seconds += b.total()
	}
	return rows / seconds
}

// efficiency is the throughput of a simulated job per rank, as a share of that of one rank alone.
func (j *job) efficiency(r *result) float64 {
	return r.rows / r.seconds / float64(j.ranks) / j.alone()
}
