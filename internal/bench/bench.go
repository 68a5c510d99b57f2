// Package bench measures the machine, and then how close to its limits the
// kernels come: recurrent networks over the shapes of shapes.json, forward and
// in training, and a large matrix product. Finally it times the same passes on
// other numbers, which should not change the time.
package bench

import (
	"context"
	"math"
	"runtime"
	"slices"
	"time"

	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/tensor"
)

// Report is everything measured.
type Report struct {
	Machine Machine  `json:"machine"` // what it was measured on, and its limits
	Results []Result `json:"results"` // the tasks; none where only the numbers were measured
	Numbers []Number `json:"numbers"` // the same passes on other numbers, with all threads
}

// Result is one task on a number of threads.
type Result struct {
	Name      string  `json:"name"`       // of the shape, or "gemm1024"
	Cell      string  `json:"cell"`       // "lstm", "gru", "rnn" or "gemm"
	Pass      string  `json:"pass"`       // "forward", or "train": forward, backward and optimizer step
	Threads   int     `json:"threads"`    // number of threads
	Ms        float64 `json:"ms"`         // the median
	MsLow     float64 `json:"ms_p10"`     // 10 % of the samples took less
	MsHigh    float64 `json:"ms_p90"`     // 10 % took more
	Samples   int     `json:"samples"`    // how many times it was timed
	GFlops    float64 `json:"gflops"`     // training counted as three forward passes
	PeakShare float64 `json:"peak_share"` // the least time that the machine's limits allow, divided by Ms; 0 on another device
	Bound     string  `json:"bound"`      // "" on another device, or the limit: fma for the multiply-adds, or the level of memory, l2, l3 or memory, that the weights must stream from
	Allocs    int     `json:"allocs"`     // heap allocations a call in the steady state
}

// Options changes a run; nil is the full one.
type Options struct {
	Quick   bool                    // some 25 seconds in place of some minutes, with more noise
	Device  *tensor.Device          // other than the CPU: the tasks alone are timed, and the limits are not measured; nil: the CPU
	Numbers bool                    // of the results only Report.Numbers, and in full unless Quick: every combination over the longest sequence too
	Note    func(name, pass string) // called before each task; nil for none
}

// Run measures the machine and every task with one and with all threads
// (par.Workers) in alternation, and then, with all, whether the time depends on
// the numbers. While it runs it sets par's number of workers, so nothing else
// should compute. If ctx is cancelled it returns ctx's error.
func Run(ctx context.Context, o *Options) (*Report, error) {
	if o == nil {
		o = &Options{}
	}
	e := full
	if o.Quick {
		e = quick
	}
	all := par.Workers()
	threads := slices.Compact([]int{1, all})
	defer par.SetWorkers(all)

	if o.Device != nil && o.Device != tensor.CPU() {
		return onDevice(ctx, o, e)
	}
	m := describeMachine(all)
	buf := m.probeBuffer(all)
	for _, n := range threads {
		m.Rates = append(m.Rates, Rate{Threads: n})
	}
	m.probe(buf, e)
	m.Vector = vectors(e)
	r := &Report{Results: []Result{}}
	list := tasks(tensor.CPU())
	if o.Numbers {
		list = nil
	}
	for i := range list {
		t := &list[i]
		if o.Note != nil {
			o.Note(t.name+" "+t.cell, t.pass)
		}
		runtime.GC() // the last task's memory
		results, err := t.measure(ctx, m.Rates, e)
		if err != nil {
			return nil, err
		}
		r.Results = append(r.Results, results...)
		m.probePeak(effort{windows: 1, window: e.window})
		m.probeStreams(t.traffic, buf, e)
	}
	m.probe(buf, e)
	for i := range r.Results {
		n := len(threads)
		r.Results[i].share(&m, &m.Rates[i%n], &list[i/n])
	}
	for _, c := range contrasts(o) {
		if o.Note != nil {
			o.Note(c.cases[0].Name+" "+c.cases[0].Cell, c.cases[0].Pass)
		}
		runtime.GC()
		numbers, err := c.measure(ctx, m.Rates[len(threads)-1])
		if err != nil {
			return nil, err
		}
		r.Numbers = append(r.Numbers, numbers...)
	}
	r.Machine = m
	return r, nil
}

// onDevice times the tasks on a device that is not the CPU.
func onDevice(ctx context.Context, o *Options, e effort) (*Report, error) {
	m := describeMachine(par.Workers())
	m.Device, m.Rates, m.Vector = o.Device.Name(), []Rate{}, []Vector{}
	r := &Report{Machine: m, Results: []Result{}, Numbers: []Number{}}
	for _, t := range tasks(o.Device) {
		if o.Note != nil {
			o.Note(t.name+" "+t.cell, t.pass)
		}
		results, err := t.measure(ctx, []Rate{{Threads: m.Threads}}, e)
		if err != nil {
			return nil, err
		}
		r.Results = append(r.Results, results...)
	}
	return r, nil
}

// effort is how much time to spend: windows per probe, and the minimum number
// and the total duration of a task's samples.
type effort struct {
	windows int
	window  time.Duration
	samples int
	budget  time.Duration
}

var (
	full  = effort{5, 40 * time.Millisecond, 15, 3 * time.Second}
	quick = effort{3, 25 * time.Millisecond, 3, 300 * time.Millisecond}
)

// sampleTime is the minimum duration of one sample: short calls are timed
// several at a time.
const sampleTime = 5 * time.Millisecond

// measure times a task on every number of threads of rates, one sample of each
// in turn.
func (t *task) measure(ctx context.Context, rates []Rate, e effort) ([]Result, error) {
	run := t.setUp()
	calls := make([]int, len(rates))
	samples := make([][]float64, len(rates))
	results := make([]Result, len(rates))
	for i, r := range rates {
		par.SetWorkers(r.Threads)
		run()
		once, allocs := trial(run)
		calls[i] = 1 + int(sampleTime.Seconds()/once)
		results[i] = Result{Name: t.name, Cell: t.cell, Pass: t.pass, Threads: r.Threads, Allocs: allocs}
	}
	for start := time.Now(); len(samples[0]) < e.samples || time.Since(start) < e.budget; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for i, r := range rates {
			par.SetWorkers(r.Threads)
			if calls[i] > 1 {
				run() // warms the caches with this number of threads
			}
			samples[i] = append(samples[i], timed(run, calls[i])/float64(calls[i]))
		}
	}
	for i := range results {
		r, x := &results[i], samples[i]
		r.Ms, r.MsLow, r.MsHigh = 1e3*Quantile(x, 0.5), 1e3*Quantile(x, 0.1), 1e3*Quantile(x, 0.9)
		r.Samples = len(x)
		r.GFlops = 1e-6 * t.flop / r.Ms
	}
	return results, nil
}

// share compares a result with the machine's limits.
func (r *Result) share(m *Machine, rate *Rate, t *task) {
	least, bound := m.bound(rate, t.flop, t.traffic)
	r.PeakShare, r.Bound = 1e3*least/r.Ms, bound
}

// timed returns the seconds that n calls take.
func timed(run func(), n int) float64 {
	start := time.Now()
	for range n {
		run()
	}
	return time.Since(start).Seconds()
}

// trial returns the minimum seconds and heap allocations over some calls, which
// excludes the work of the runtime and of other processes.
func trial(run func()) (seconds float64, allocs int) {
	var before, after runtime.MemStats
	for i := range 3 {
		runtime.ReadMemStats(&before)
		s := timed(run, 1)
		runtime.ReadMemStats(&after)
		n := int(after.Mallocs - before.Mallocs)
		if i == 0 {
			seconds, allocs = s, n
		}
		seconds, allocs = min(seconds, s), min(allocs, n)
	}
	return seconds, allocs
}

// Quantile returns the q-quantile of x, interpolated linearly. It does not
// change x.
func Quantile(x []float64, q float64) float64 {
	if len(x) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(x))
	at := q * float64(len(s)-1)
	i := min(int(at), len(s)-2)
	if i < 0 {
		return s[0]
	}
	return s[i] + (at-float64(i))*(s[i+1]-s[i])
}
