package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"

	"github.com/carousel-ml/carousel/bench/netns"
	"github.com/carousel-ml/carousel/dist"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/tensor"
)

const prefix = "carousel-scaling-"

// A request is a line of JSON to each rank, an answer one from it.
type request struct {
	Do      string // "stream": bytes a second; "message", "search", "add": seconds; "alone", "train": steps
	Model   string
	Half    bool
	Batches int // of "train", of all ranks
}

type answer struct {
	Value   float64
	Lengths []int     `json:",omitempty"` // of each step
	Exposed []float64 `json:",omitempty"`
	Times   []times   `json:",omitempty"`
	Error   string    `json:",omitempty"`
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
	lines, answers := bufio.NewScanner(in), json.NewEncoder(out)
	for lines.Scan() {
		var q request
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			return err
		}
		a, err := q.answer(ctx, m, t)
		if err != nil {
			a = &answer{Error: err.Error()}
		}
		if err := answers.Encode(a); err != nil || a.Error != "" {
			return err
		}
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
		return &answer{Value: (streamed - netns.Burst) / (wall() - from)}, err
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
		return &answer{Value: median(took)}, nil
	case "search":
		return &answer{Value: searching(wall)}, nil
	case "add":
		return &answer{Value: adding(t.Size(), q.Half, wall)}, nil
	}
	w, err := m.workload(q.Model)
	if err != nil {
		return nil, err
	}
	at := slices.Index(w.Rows, validRows)
	if at < 0 {
		return nil, fmt.Errorf("measured.json has no batches of %d rows; make it again with --measure", validRows)
	}
	p := &pacer{Backend: tensor.CPU().Backend()}
	tr := &trial{model: w.Model, device: tensor.NewDevice(p), rows: validRows, epochs: 1, now: wall}
	tr.begin = func(length int) {
		p.times, p.next = w.Times[at][slices.Index(w.Lengths, length)].Operations, 0
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
type team struct {
	net   netns.Network
	ranks []*process
}

type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func (t *team) start(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for r := range t.net.Ranks {
		c := t.net.Command(ctx, r, self, "--rank", fmt.Sprintf("%d/%d/%s:29402", r, t.net.Ranks, t.net.Address(0)))
		c.Stderr = os.Stderr
		in, err := c.StdinPipe()
		if err != nil {
			return err
		}
		out, err := c.StdoutPipe()
		if err != nil {
			return err
		}
		if err := c.Start(); err != nil {
			return err
		}
		p := &process{c, in, bufio.NewScanner(out)}
		p.out.Buffer(nil, 1<<20)
		t.ranks = append(t.ranks, p)
	}
	return nil
}

// ask asks all ranks.
func (t *team) ask(q request) ([]*answer, error) {
	line, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	for _, p := range t.ranks {
		if _, err := p.in.Write(append(line, '\n')); err != nil {
			return nil, err
		}
	}
	var answers []*answer
	for r, p := range t.ranks {
		a := &answer{Error: "it ended"}
		if p.out.Scan() {
			a = &answer{}
			if err := json.Unmarshal(p.out.Bytes(), a); err != nil {
				return nil, err
			}
		}
		if a.Error != "" {
			return nil, fmt.Errorf("rank %d: %s", r, a.Error)
		}
		answers = append(answers, a)
	}
	return answers, nil
}

// value is the median of three askings of all ranks.
func (t *team) value(q request) (float64, error) {
	var list []float64
	for range 3 {
		answers, err := t.ask(q)
		if err != nil {
			return 0, err
		}
		for _, a := range answers {
			list = append(list, a.Value)
		}
	}
	return median(list), nil
}

func (t *team) end() {
	for _, p := range t.ranks {
		p.in.Close()
	}
	for _, p := range t.ranks {
		_ = p.cmd.Wait() // an error was shown when it was asked
	}
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
	t := &team{net: netns.Network{Prefix: prefix, Ranks: ranks}}
	defer func() {
		if err != nil {
			cancel() // a rank may wait for another one for ever
		}
		t.end()
		cancel()
		err = errors.Join(err, t.net.Remove(context.Background()))
	}()
	if err := t.net.Join(ctx); err != nil {
		return err
	}
	if err := t.start(ctx); err != nil {
		return err
	}
	host, err := t.value(request{Do: "stream"})
	if err != nil {
		return err
	}
	if err := t.net.Shape(ctx, o.rate); err != nil {
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
func (o *options) round(t *team, m *machine, name string, half bool, host float64) (predicted, found []float64, l link, err error) {
	ranks := t.net.Ranks
	fail := func(err error) ([]float64, []float64, link, error) { return nil, nil, link{}, err }
	w, err := m.workload(name)
	if err != nil {
		return fail(err)
	}
	l = link{burst: netns.Burst, host: host}
	before, err := t.value(request{Do: "stream"})
	if err != nil {
		return fail(err)
	}
	if l.alpha, err = t.value(request{Do: "message"}); err != nil {
		return fail(err)
	}
	if l.sum, err = t.value(request{Do: "add", Half: half}); err != nil {
		return fail(err)
	}
	l.rounded = l.sum
	if l.search, err = t.value(request{Do: "search"}); err != nil {
		return fail(err)
	}
	rehearsals, err := t.ask(request{Do: "alone", Model: name})
	if err != nil {
		return fail(err)
	}
	answers, err := t.ask(request{Do: "train", Model: name, Half: half, Batches: ranks * (warm + o.steps)})
	if err != nil {
		return fail(err)
	}
	after, err := t.value(request{Do: "stream"})
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
