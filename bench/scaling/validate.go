package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/carousel-ml/carousel/bench/rig"
	"github.com/carousel-ml/carousel/dist"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/tensor"
)

const prefix = "carousel-scaling-"

// A request is a line of JSON to each rank, an answer one from it.
type request struct {
	Do      string // "stream": bytes a second; "message", "search", "move", "add": seconds; "alone", "train": steps
	Model   string
	Half    bool
	Batches int // of "train", of all ranks
}

type answer struct {
	Value   float64
	Lengths []int     `json:",omitempty"` // of each step
	Exposed []float64 `json:",omitempty"`
	Times   []times   `json:",omitempty"`
}

const (
	validRows = 32
	warm      = 2 // steps before those that count: the first ones learn in which order gradients come
	streamed  = 24 << 20
)

// serve is a rank of a validation: rank/ranks/address.
func serve(ctx context.Context, place string, in io.Reader, out io.Writer) error {
	p := &dist.Place{Secret: []byte("scaling"), Launcher: "bench/scaling"}
	if _, err := fmt.Sscanf(place, "%d/%d/%s", &p.Rank, &p.Size, &p.Address); err != nil {
		return fmt.Errorf("--rank %s: the program itself sets it", place)
	}
	par.SetWorkers(1)
	m, err := load()
	if err != nil {
		return err
	}
	t, err := dist.Connect(ctx, p, nil)
	if err != nil {
		return err
	}
	if err := rig.Serve(in, out, func(q *request) (*answer, error) { return q.answer(ctx, m, t) }); err != nil {
		return err
	}
	return t.Close()
}

func (q *request) answer(ctx context.Context, m *machine, t dist.Transport) (*answer, error) {
	world := dist.NewWorld(t)
	own, all := make([]float64, 1), make([]float64, t.Size())
	if err := world.Gather(own, all); err != nil { // all begin together
		return nil, err
	}
	switch q.Do {
	case "stream":
		send, recv := make([][]byte, t.Size()), make([][]byte, t.Size())
		send[(t.Rank()+1)%t.Size()], recv[(t.Rank()+t.Size()-1)%t.Size()] = make([]byte, streamed), make([]byte, streamed)
		from := wall()
		if err := t.Exchange(send, recv); err != nil {
			return nil, err
		}
		err := world.Gather(own, all) // a rank that began late finds bytes that have come, and would seem fast
		return &answer{Value: (streamed - rig.Burst) / (wall() - from)}, err
	case "message":
		// Messages just long enough to go the way of chunks, through the goroutines of connections.
		const length = 8 << 10
		send, recv := make([][]byte, t.Size()), make([][]byte, t.Size())
		for r := range send {
			send[r], recv[r] = make([]byte, length), make([]byte, length)
		}
		var took []float64
		for range 100 {
			from := wall()
			if err := t.Exchange(send, recv); err != nil {
				return nil, err
			}
			took = append(took, wall()-from)
		}
		return &answer{Value: total(took) / float64(len(took))}, nil // a step has many, whose times add up
	case "search", "move", "add":
		// An exchange waits for the last rank, and where ranks share cores they do not compute at once.
		meet := func() error { return world.Gather(own, all) }
		var took []float64
		var err error
		switch q.Do {
		case "search":
			took, err = searching(wall, meet)
		case "move":
			took, err = moving(wall, meet)
		default:
			took, err = adding(t.Size(), q.Half, wall, meet)
		}
		if err != nil {
			return nil, err
		}
		ranks := make([]float64, t.Size()*len(took))
		if err := world.Gather(took, ranks); err != nil {
			return nil, err
		}
		for i := range took {
			for r := range t.Size() {
				took[i] = max(took[i], ranks[r*len(took)+i])
			}
		}
		return &answer{Value: total(took) / float64(len(took))}, nil
	}
	w, err := m.workload(q.Model)
	if err != nil {
		return nil, err
	}
	at := slices.Index(w.Rows, validRows)
	if at < 0 {
		return nil, fmt.Errorf("measured.json has no batches of %d rows; make it again with --measure", validRows)
	}
	p := &rig.Paced{Backend: tensor.CPU().Backend()}
	tr := &trial{model: w.Model, device: tensor.NewDevice(p), rows: validRows, epochs: 1, now: wall}
	tr.begin = func(length int) {
		p.Times, p.Next = w.Times[at][slices.Index(w.Lengths, length)].Operations, 0
	}
	if q.Do == "alone" {
		for range 3 {
			tr.lengths = append(tr.lengths, w.Lengths...)
		}
		steps, _, err := tr.run(ctx)
		if err != nil {
			return nil, err
		}
		a := new(answer)
		for _, n := range w.Lengths {
			a.Times = append(a.Times, middle(steps, n))
		}
		return a, nil
	}
	for _, i := range draws(q.Batches, len(w.Lengths)) {
		tr.lengths = append(tr.lengths, w.Lengths[i])
	}
	tr.world, tr.half = world, q.Half
	steps, _, err := tr.run(ctx)
	if err != nil {
		return nil, err
	}
	a := new(answer)
	for _, s := range steps[warm:] {
		a.Lengths, a.Exposed = append(a.Lengths, s.length), append(a.Exposed, s.exposed)
	}
	return a, nil
}

// middle is the medians of the steps of a length.
func middle(steps []batchTime, length int) (t times) {
	var forward, tail []float64
	var ready [][]float64
	for _, s := range steps {
		if s.length != length {
			continue
		}
		forward, tail = append(forward, s.Forward), append(tail, s.Tail)
		for i, at := range s.Ready {
			if i == len(ready) {
				ready = append(ready, nil)
			}
			ready[i] = append(ready[i], at)
		}
	}
	t.Forward, t.Tail = median(forward), median(tail)
	for _, list := range ready {
		t.Ready = append(t.Ready, median(list))
	}
	return t
}

func median(list []float64) float64 {
	list = slices.Sorted(slices.Values(list))
	n := len(list)
	return (list[(n-1)/2] + list[n/2]) / 2
}

// A team is the processes of a validation.
// value is the median of three askings of all ranks.
func value(t *rig.Team, q request) (float64, error) {
	var list []float64
	for range 3 {
		answers, err := rig.Ask[answer](t, t.Network.Ranks, q)
		if err != nil {
			return 0, err
		}
		for _, a := range answers {
			list = append(list, a.Value)
		}
	}
	return median(list), nil
}

var cases = []struct {
	model string
	half  bool
}{{"large", false}, {"small", false}, {"large", true}}

// validate compares exposed communication with what is predicted. What the prediction knows of the
// network is the rate of a stream, the time of an Exchange of 8 kB and that of adding without a network;
// of the ranks, when gradients are complete without others.
func (o *options) validate(ctx context.Context, out io.Writer) error {
	m, err := load()
	if err != nil {
		return err
	}
	fmt.Fprint(out, "Exposed communication of a step, ms: the least of the rounds, step by step, and the median\n\n",
		"| ranks | model | sums | message, ms | stream, MB/s | least: predicted | measured | | median: predicted | measured | | of single rounds |\n",
		"|---:|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---|\n")
	for _, ranks := range o.ranks {
		if err := o.validateSize(ctx, m, ranks, out); err != nil {
			return err
		}
	}
	return nil
}

func (o *options) validateSize(ctx context.Context, m *machine, ranks int, out io.Writer) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	t := &rig.Team{Network: &rig.Network{Prefix: prefix, Ranks: ranks}}
	defer func() {
		if err != nil {
			cancel() // a rank may wait for another one for ever
		}
		t.End()
		cancel()
		err = errors.Join(err, t.Network.Remove(context.Background()))
	}()
	if err := t.Network.Join(ctx); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	err = t.Start(ctx, func(r int) []string {
		return []string{self, "--rank", fmt.Sprintf("%d/%d/%s:29402", r, ranks, t.Network.Address(0))}
	})
	if err != nil {
		return err
	}
	host, err := value(t, request{Do: "stream"})
	if err != nil {
		return err
	}
	if err := t.Network.Shape(ctx, o.rate); err != nil {
		return err
	}
	for _, one := range cases {
		predicted, found := make([][]float64, o.steps), make([][]float64, o.steps) // by step and round
		var rates, messages, ratios []float64
		for round := range o.rounds {
			p, f, l, err := o.round(t, m, one.model, one.half, host)
			if err != nil {
				return err
			}
			for i := range p {
				predicted[i], found[i] = append(predicted[i], p[i]), append(found[i], f[i])
			}
			rates, messages, ratios = append(rates, l.rate), append(messages, l.alpha), append(ratios, total(p)/total(f)-1)
			fmt.Fprintf(os.Stderr, "%d ranks, %s, bf16 %v, round %d: predicted %.1f ms, measured %.1f ms\n", ranks, one.model, one.half, round+1, total(p)/float64(o.steps)*1e3, total(f)/float64(o.steps)*1e3)
		}
		fmt.Fprintf(out, "| %d | %s | %s | %.2f | %.0f |", ranks, one.model, kind(one.half), slices.Min(messages)*1e3, slices.Max(rates)/1e6)
		for _, of := range []func([]float64) float64{slices.Min[[]float64], median} {
			p, f := 0.0, 0.0
			for i := range predicted {
				p += of(predicted[i]) / float64(o.steps)
				f += of(found[i]) / float64(o.steps)
			}
			fmt.Fprintf(out, " %.1f | %.1f | %+.1f %% |", p*1e3, f*1e3, 100*(p/f-1))
		}
		slices.Sort(ratios)
		fmt.Fprintf(out, " %+.0f to %+.0f %% |\n", 100*ratios[0], 100*ratios[len(ratios)-1])
	}
	return nil
}

// round measures what a prediction needs, predicts and measures the steps of one training: the mean
// exposed time of all ranks.
func (o *options) round(t *rig.Team, m *machine, name string, half bool, host float64) (predicted, found []float64, l link, err error) {
	ranks := t.Network.Ranks
	fail := func(err error) ([]float64, []float64, link, error) { return nil, nil, link{}, err }
	w, err := m.workload(name)
	if err != nil {
		return fail(err)
	}
	l = link{burst: rig.Burst, host: host}
	before, err := value(t, request{Do: "stream"})
	if err != nil {
		return fail(err)
	}
	if l.alpha, err = value(t, request{Do: "message"}); err != nil {
		return fail(err)
	}
	if l.sum, err = value(t, request{Do: "add", Half: half}); err != nil {
		return fail(err)
	}
	l.rounded = l.sum
	if l.search, err = value(t, request{Do: "search"}); err != nil {
		return fail(err)
	}
	if l.move, err = value(t, request{Do: "move"}); err != nil {
		return fail(err)
	}
	rehearsals, err := rig.Ask[answer](t, ranks, request{Do: "alone", Model: name})
	if err != nil {
		return fail(err)
	}
	answers, err := rig.Ask[answer](t, ranks, request{Do: "train", Model: name, Half: half, Batches: ranks * (warm + o.steps)})
	if err != nil {
		return fail(err)
	}
	after, err := value(t, request{Do: "stream"})
	if err != nil {
		return fail(err)
	}
	l.rate = (before + after) / 2 // the machine may have become busier meanwhile
	l.host = max(host, l.rate)
	j := &job{ranks: ranks, rows: validRows, speed: 1, half: half, bucket: bucketSize, add: direct, link: l}
	j.work = &workload{Params: w.Params, Lengths: w.Lengths, Rows: []int{validRows}, Times: [][]times{make([]times, len(w.Lengths))}}
	for i := range w.Lengths {
		var steps []batchTime
		for _, a := range rehearsals {
			steps = append(steps, batchTime{times: a.Times[i]})
		}
		j.work.Times[0][i] = middle(steps, 0)
	}
	p := j.prepare()
	for i := range o.steps {
		exposed := 0.0
		have := make([]int, len(w.Lengths)) // ranks, by length
		for _, a := range answers {
			exposed += a.Exposed[i] / float64(ranks)
			have[slices.Index(w.Lengths, a.Lengths[i])]++
		}
		found = append(found, exposed)
		predicted = append(predicted, p.step(have).exposed)
	}
	return predicted, found, l, nil
}

func total(list []float64) (sum float64) {
	for _, v := range list {
		sum += v
	}
	return sum
}
