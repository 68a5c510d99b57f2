package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/carousel-ml/carousel/bench/rig"
	"github.com/carousel-ml/carousel/dist"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/tensor"
)

//go:embed measured.json
var measured []byte

// A machine is what --measure finds, all in processor time of one core, which other programs disturb
// less than they do the clock.
type machine struct {
	Core    string
	Sum     float64 // seconds to add a byte of the own chunk of one rank
	Rounded float64 // the same where values travel as bfloat16, with their rounding
	Search  float64 // seconds to look for rows of zeros in a byte of a table
	Move    float64 // seconds to copy a byte of rows that lie apart
	Message float64 // seconds for a message of some bytes: sent and received
	Byte    float64 // seconds for a byte of large messages: sent and received

	Workloads []*workload
}

// load returns what was measured.
func load() (*machine, error) {
	m := new(machine)
	if err := json.Unmarshal(measured, m); err != nil {
		return nil, fmt.Errorf("measured.json: %w; make it with --measure", err)
	}
	return m, nil
}

func (m *machine) workload(name string) (*workload, error) {
	for _, w := range m.Workloads {
		if w.Name == name {
			return w, nil
		}
	}
	return nil, fmt.Errorf("measured.json has no model %q", name)
}

// lengths are the 5th, 15th, ... and 95th percentile of the words of the 6,920 sentences of SST-2's
// training part: of batches of neighbours in length, equally many have each.
var lengths = []int{7, 10, 13, 16, 18, 21, 23, 26, 30, 37}

var models = []struct {
	name string
	model
}{
	{"large", model{20000, 256, 512, 2, 2000}},
	{"small", model{5000, 128, 256, 2, 200}},
}

const repeats = 8 // batches of each length, of which the least time counts

// measure measures this machine and writes the file.
func measure(ctx context.Context, path string) error {
	par.SetWorkers(1)
	m := &machine{Core: tensor.CPU().Name()}
	looked, err := searching(processorTime, alone)
	if err != nil {
		return err
	}
	moved, err := moving(processorTime, alone)
	if err != nil {
		return err
	}
	m.Search, m.Move = median(looked), median(moved)
	if m.Rounded, err = addingAlone(true); err != nil {
		return err
	}
	if m.Sum, m.Message, m.Byte, err = measureSums(ctx); err != nil {
		return err
	}
	for _, one := range models {
		w := &workload{Name: one.name, Model: one.model, Lengths: lengths, Rows: []int{4, 32}}
		for _, rows := range w.Rows {
			list, err := w.measure(ctx, rows)
			if err != nil {
				return err
			}
			w.Times = append(w.Times, list)
			fmt.Fprintf(os.Stderr, "%s, %d rows: a step of %d words %.3f s\n", w.Name, rows, lengths[len(lengths)-1], list[len(list)-1].total())
		}
		for _, p := range w.Params {
			w.State += 4 * 4 * float64(p.Numbers) // weights, two moments and the best weights
		}
		m.Workloads = append(m.Workloads, w)
	}
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// measure trains on one core and keeps, of each length, the least time of each operation and moment.
func (w *workload) measure(ctx context.Context, rows int) ([]times, error) {
	p := &rig.Paced{Backend: tensor.CPU().Backend(), Clock: processorTime}
	var operations [][]rig.Operation
	t := &trial{model: w.Model, device: tensor.NewDevice(p), rows: rows, epochs: 1, now: processorTime}
	for range repeats {
		t.lengths = append(t.lengths, w.Lengths...)
	}
	t.begin = func(int) {
		if len(p.Times) > 0 {
			operations = append(operations, p.Times)
		}
		p.Times = nil
	}
	steps, order, err := t.run(ctx)
	if err != nil {
		return nil, err
	}
	operations = append(operations, p.Times)
	w.Params = order
	list := make([]times, len(w.Lengths))
	for i, s := range steps {
		one, ops := &list[i%len(list)], operations[i]
		if i < len(list) {
			*one = s.times
			one.Operations = slices.Clone(ops)
			continue
		}
		one.Forward, one.Tail = min(one.Forward, s.Forward), min(one.Tail, s.Tail)
		for k, at := range s.Ready {
			one.Ready[k] = min(one.Ready[k], at)
		}
		for k := range ops {
			one.Operations[k].Seconds = min(one.Operations[k].Seconds, ops[k].Seconds)
		}
	}
	for i := range list {
		if rows != w.Rows[len(w.Rows)-1] {
			list[i].Operations = nil
		}
	}
	return list, nil
}

// still is a transport on which nothing moves: what remains of a Sum is the adding.
type still struct{ rank, size int }

func (s still) Rank() int                        { return s.rank }
func (s still) Size() int                        { return s.size }
func (still) Exchange(send, recv [][]byte) error { return nil }
func (still) Abort(error)                        {}
func (still) Close() error                       { return nil }

// adding returns the seconds that each Sum of a bucket takes a byte of all ranks' chunks, apart from
// the network, for buckets that come from memory, as gradients do. Before each it calls meet.
func adding(ranks int, half bool, now func() float64, meet func() error) (perByte []float64, err error) {
	w := dist.NewWorld(still{0, ranks})
	const buckets = 24
	v, lost := make([]float32, buckets*bucketSize), []float32(nil)
	if half {
		lost = make([]float32, len(v))
	}
	for i := range 2 * buckets {
		lo := i % buckets * bucketSize
		own, residual := v[lo:lo+bucketSize], []float32(nil)
		if half {
			residual = lost[lo : lo+bucketSize]
		}
		if err := meet(); err != nil {
			return nil, err
		}
		from := now()
		_ = w.Sum(own, residual)
		perByte = append(perByte, (now()-from)/(4*bucketSize))
	}
	return perByte[buckets:], nil
}

// alone is a process that meets no others.
func alone() error { return nil }

// addingAlone is the median of adding by one process, for four ranks.
func addingAlone(half bool) (float64, error) {
	took, err := adding(4, half, processorTime, alone)
	if err != nil {
		return 0, err
	}
	return median(took), nil
}

// searching returns the seconds a byte of looking for numbers other than zero in a table of zeros.
// Before each it calls meet.
func searching(now func() float64, meet func() error) (perByte []float64, err error) {
	table := make([]float32, 5<<20)
	for range 7 {
		if err := meet(); err != nil {
			return nil, err
		}
		from, found := now(), 0
		for _, x := range table {
			if math.Float32bits(x) != 0 {
				found++
			}
		}
		if found == 0 {
			perByte = append(perByte, (now()-from)/float64(4*len(table)))
		}
	}
	return perByte, nil
}

// moving returns the seconds a byte of copying rows of 1 kB, one in 16 of a table, to one place
// and back. Before each it calls meet.
func moving(now func() float64, meet func() error) (perByte []float64, err error) {
	const width, rows, apart = 256, 20000, 16
	table, together := make([]float32, rows*width), make([]float32, 0, rows/apart*width)
	for i := range 16 {
		if err := meet(); err != nil {
			return nil, err
		}
		from, first := now(), i*7%apart*width
		together = together[:0]
		for at := first; at < len(table); at += apart * width {
			together = append(together, table[at:at+width]...)
		}
		for k, at := 0, first; at < len(table); k, at = k+width, at+apart*width {
			copy(table[at:at+width], together[k:])
		}
		perByte = append(perByte, (now()-from)/float64(8*len(together)))
	}
	return perByte, nil
}

// measureSums measures the adding, and the processor time of messages between 4 ranks over TCP, all of
// this process.
func measureSums(ctx context.Context) (sum, message, perByte float64, err error) {
	if sum, err = addingAlone(false); err != nil {
		return 0, 0, 0, err
	}
	const ranks = 4
	transports := make([]dist.Transport, ranks)
	errs := make([]error, ranks)
	var all sync.WaitGroup
	for r := range ranks {
		all.Go(func() {
			transports[r], errs[r] = dist.Connect(ctx, &dist.Place{Rank: r, Size: ranks, Address: "127.0.0.1:29471", Secret: []byte("bench")}, nil)
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return 0, 0, 0, err
	}
	onAll := func(do func(t dist.Transport) error) float64 {
		from := processorTime()
		for r, t := range transports {
			all.Go(func() { errs[r] = errors.Join(errs[r], do(t)) })
		}
		all.Wait()
		return processorTime() - from
	}
	const gathers = 2000
	took := onAll(func(t dist.Transport) error {
		w := dist.NewWorld(t)
		own, list := make([]float64, 1), make([]float64, ranks)
		for range gathers {
			if err := w.Gather(own, list); err != nil {
				return err
			}
		}
		return nil
	})
	message = took / (gathers * ranks * (ranks - 1))
	const large, exchanges = 4 << 20, 20
	took = onAll(func(t dist.Transport) error {
		send, recv := make([][]byte, ranks), make([][]byte, ranks)
		for i := range send {
			send[i], recv[i] = make([]byte, large), make([]byte, large)
		}
		for range exchanges {
			if err := t.Exchange(send, recv); err != nil {
				return err
			}
		}
		return nil
	})
	perByte = took / (large * exchanges * ranks * (ranks - 1))
	onAll(func(t dist.Transport) error { return t.Close() })
	return sum, message, perByte, errors.Join(errs...)
}

// wall is the clock, in seconds.
func wall() float64 { return time.Since(begun).Seconds() }

var begun = time.Now()
