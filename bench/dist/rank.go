package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/carousel-ml/carousel/bench/rig"
	"github.com/carousel-ml/carousel/dist"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

// The model of the pass network: 20.5 MB of embedding, of which a batch touches some rows, 14.7 MB of
// LSTM and 4.1 MB of softmax.
const (
	vocabulary = 20000
	embedded   = 256
	hidden     = 512
	layers     = 2
	classes    = 2000
	rows       = 32 // of a batch
	length     = 35
	batches    = 64  // of the file, which repeat
	learning   = 0.1 // rate
	warm       = 2   // steps of a turn before those that are measured: the first ones learn in which order gradients come
)

// A request is what the parent asks a rank for, and an answer what it gets, each a line of JSON.
type request struct {
	Do     string // "losses": of the first steps; "record": the times of the large operations; "turn": steps, timed
	Steps  int
	Alone  bool            // without communication
	Times  []rig.Operation // what large operations wait for, of Carousel; none: they compute
	Layers *layerTimes     // the same, of PyTorch
	Half   bool            // sums in bfloat16, of Carousel
	Sparse bool            // the embedding's gradient is sparse, of PyTorch
}

// layerTimes are the times of the layers, from the LSTM's first one to the softmax with its loss.
type layerTimes struct {
	Forward, Backward []float64
	Step              float64 // of the optimizer
}

// wait has both sides wait for the times of Carousel's operations; none: they compute.
func (q *request) wait(times []rig.Operation) error {
	if times == nil {
		return nil
	}
	want := []string{"scan", "scan", "product", "loss", "product", "product", "scan back", "scan back"}
	at := func(i int) float64 { return times[i].Seconds }
	for i, name := range want {
		if i >= len(times) || times[i].Name != name {
			return fmt.Errorf("the operations of a step are %v, but these were expected first: %v", times, want)
		}
	}
	q.Times = times
	q.Layers = &layerTimes{Forward: []float64{at(0), at(1), at(2) + at(3)}, Backward: []float64{at(7), at(6), at(4) + at(5)}}
	for _, t := range times[len(want):] {
		q.Layers.Step += t.Seconds
	}
	return nil
}

type answer struct {
	Version string
	Losses  []float64       `json:",omitempty"`
	Times   []rig.Operation `json:",omitempty"`
	Seconds []float64       `json:",omitempty"` // of each step
	Sent    float64         `json:",omitempty"` // bytes of a step
	Waited  float64         `json:",omitempty"` // seconds of a step after the backward pass, by Carousel's own account
}

// network is the model; its parameters have the order of PyTorch's.
type network struct {
	Embedding *nn.Embedding
	LSTM      *nn.RNN
	Softmax   *nn.Linear
}

func pack(dev *tensor.Device) (*network, *tensor.Slab) {
	n := &network{nn.NewEmbedding(vocabulary, embedded, nil), nn.NewLSTM(embedded, hidden, &nn.RNNOptions{Layers: layers, TimeMajor: true}), nn.NewLinear(hidden, classes, nil)}
	return n, tensor.Pack(dev, n, 1)
}

// tokens are ids and targets [batches,length,rows], by Zipf's law as words are.
func tokens() (ids, targets []int32) {
	r := rand.New(rand.NewPCG(1, 2))
	draw := func(n int) []int32 {
		list := make([]int32, batches*length*rows)
		for i := range list {
			list[i] = int32(min(math.Exp(r.Float64()*math.Log(float64(n+1)))-1, float64(n-1)))
		}
		return list
	}
	return draw(vocabulary), draw(classes)
}

// serve is a rank of Carousel: rank/ranks/address of rank 0.
func serve(ctx context.Context, place string, in io.Reader, out io.Writer) error {
	var rank, size int
	var address string
	if _, err := fmt.Sscanf(place, "%d/%d/%s", &rank, &size, &address); err != nil {
		return fmt.Errorf("--rank %s: the program itself sets it", place)
	}
	par.SetWorkers(1)
	t, err := dist.Connect(ctx, &dist.Place{Rank: rank, Size: size, Address: address, Secret: []byte("bench"), Launcher: "bench/dist"}, nil)
	if err != nil {
		return err
	}
	r := &ranker{world: dist.NewWorld(t)}
	r.ids, r.targets = tokens()
	if err := rig.Serve(in, out, func(q *request) (*answer, error) { return r.answer(ctx, q) }); err != nil {
		return err
	}
	return t.Close()
}

type ranker struct {
	world        train.World
	ids, targets []int32
}

func (r *ranker) answer(ctx context.Context, q *request) (*answer, error) {
	p := &rig.Paced{Backend: tensor.CPU().Backend(), Times: q.Times}
	if q.Do == "record" {
		begun := time.Now()
		p.Clock = func() float64 { return time.Since(begun).Seconds() }
	}
	var steps [][]rig.Operation
	dev := tensor.CPU()
	if len(q.Times) > 0 || p.Clock != nil {
		dev = tensor.NewDevice(p)
	}
	type batch struct{ at int }
	m, slab := pack(dev)
	list := make([][]int, batches)
	for i := range list {
		list[i] = []int{i}
	}
	job := &train.Job[batch]{
		Slab: slab, Optimizer: optim.NewSGD(slab, nil), Samples: batches,
		NewBatch: func() *batch { return new(batch) },
		Load:     func(b *batch, samples []int) { b.at = samples[0] },
		Batches:  func(int) [][]int { return list },
		Loss: func(tape *tensor.Tape, b *batch) *tensor.Tensor {
			const n = length * rows
			y, _ := m.LSTM.Forward(m.Embedding.Forward(tape.IDs(r.ids[b.at*n:(b.at+1)*n], nil, length, rows)), nil)
			return tensor.CrossEntropy(m.Softmax.Forward(y), tape.IDs(r.targets[b.at*n:(b.at+1)*n], nil, length, rows), nil)
		},
	}
	a := &answer{Version: "carousel " + tensor.CPU().Name()}
	var last time.Time
	var sent float64
	o := &train.Options{Steps: q.Steps, Schedule: optim.Constant(learning)}
	o.OnStep = func(s train.Step) error {
		now := time.Now()
		switch {
		case s.Step == warm:
			sent = sentBytes()
		case s.Step > warm:
			a.Seconds = append(a.Seconds, now.Sub(last).Seconds())
			a.Waited += s.Exposed.Seconds()
		}
		if p.Clock != nil {
			steps, p.Times = append(steps, p.Times), nil
		}
		last = now
		a.Losses = append(a.Losses, s.Loss)
		return nil
	}
	if !q.Alone {
		o.World, o.Compress = r.world, q.Half
	}
	if _, err := train.Fit(ctx, job, o); err != nil {
		return nil, err
	}
	if n := float64(len(a.Seconds)); n > 0 {
		a.Sent, a.Waited = (sentBytes()-sent)/n, a.Waited/n
	}
	if p.Clock != nil {
		a.Times = least(steps)
	}
	return a, nil
}

// least is a step of the least times of those that count.
func least(steps [][]rig.Operation) []rig.Operation {
	list := steps[len(steps)-1]
	for i := range list {
		for _, s := range steps[warm:] {
			list[i].Seconds = min(list[i].Seconds, s[i].Seconds)
		}
	}
	return list
}

// sentBytes is how many bytes this rank's link has carried away.
func sentBytes() float64 {
	text, err := os.ReadFile("/sys/class/net/eth0/statistics/tx_bytes")
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseFloat(strings.TrimSpace(string(text)), 64)
	return n
}
