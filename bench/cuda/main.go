// Command cuda times training steps and inference of recurrent networks on a GPU, most
// important first, and writes each figure as it comes: one JSON object a line. pytorch.py
// does the same with the same numbers, and compares. run.sh calls both.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/carousel-ml/carousel/internal/bench"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
)

// A contest is a network, its batch and how it is computed. B rows of T ids become
// embeddings of I numbers each, go through L layers of H units, and, if V is not 0, become
// logits of V words. The loss is the mean of the squared outputs, or the words' cross
// entropy. So nothing large comes from the host.
type contest struct {
	Name      string `json:"name"`
	Cell      string `json:"cell"`      // lstm, peephole, layernorm, zoneout
	Pass      string `json:"pass"`      // train: forward, backward, clipping and AdamW; infer: forward, and the last h is read
	Precision string `json:"precision"` // f32, tf32 or bf16
	T, B      int
	I, H      int
	L, V      int
}

// contests is all of them. Sizes are divided by small, for a trial without a GPU.
func contests(small int) (list []contest) {
	add := func(name, cell, pass, precision string, h, layers, v, t, b int) {
		h, t, b = max(h/small, 2), max(t/small, 2), max(b/small, 2)
		list = append(list, contest{fmt.Sprintf("%s %s %s", name, pass, precision), cell, pass, precision, t, b, h, h, layers, v / small})
	}
	for _, pass := range []string{"train", "infer"} {
		for _, h := range []int{512, 1024} {
			for _, p := range []string{"f32", "tf32", "bf16"} {
				add(fmt.Sprintf("lstm%d", h), "lstm", pass, p, h, 1, 0, 100, 64)
			}
		}
	}
	for _, p := range []string{"f32", "tf32", "bf16"} {
		add("words650", "lstm", "train", p, 650, 2, 10000, 35, 20)
	}
	for _, cell := range []string{"peephole", "layernorm", "zoneout"} {
		for _, p := range []string{"f32", "tf32"} {
			add(cell+"512", cell, "train", p, 512, 1, 0, 100, 64)
		}
	}
	return list
}

// figure is what is written of a contest.
type figure struct {
	contest
	Device  string    `json:"device"`
	Ms      float64   `json:"ms"` // the median
	Low     float64   `json:"ms_p10"`
	High    float64   `json:"ms_p90"`
	Samples int       `json:"samples"`
	First   float64   `json:"first_ms"`          // the first call, with compiling
	Outputs []float32 `json:"outputs,omitempty"` // some numbers, to compare: of the last h, or in training of gradients
	Error   string    `json:"error,omitempty"`
}

// network is the model of a contest.
type network struct {
	Embed *nn.Embedding
	RNN   *nn.RNN
	Out   *nn.Linear // nil without words
}

func main() {
	device := flag.String("device", "cuda", "cuda or cpu")
	small := flag.Int("small", 1, "divide all sizes by this")
	seconds := flag.Float64("seconds", 0.6, "time for the samples of a contest")
	stop := flag.Duration("stop", time.Hour, "begin no contest after this time")
	list := flag.Bool("list", false, "print the contests and end")
	flag.Parse()
	out, begun := json.NewEncoder(os.Stdout), time.Now()
	devices := map[bool]*tensor.Device{}
	for _, c := range contests(*small) {
		if *list {
			_ = out.Encode(c)
			continue
		}
		if time.Since(begun) > *stop {
			fmt.Fprintln(os.Stderr, "time is up before", c.Name)
			return
		}
		f := figure{contest: c}
		err := tensor.Catch(func() {
			tf32 := c.Precision == "tf32"
			on := devices[tf32]
			if on == nil {
				if on = tensor.CPU(); *device == "cuda" {
					var err error
					if on, err = tensor.CUDA(0, tensor.CUDAOptions{TF32: tf32}); err != nil {
						fmt.Fprintln(os.Stderr, err)
						os.Exit(1)
					}
				}
				devices[tf32] = on
			}
			f.Device = on.Name()
			f.measure(on, *seconds)
		})
		if err != nil {
			f.Error = err.Error()
		}
		_ = out.Encode(f)
	}
}

// measure computes the outputs and the times.
func (f *figure) measure(on *tensor.Device, seconds float64) {
	net, slab := f.network(on)
	mode := tensor.Infer
	if f.Pass == "train" {
		mode = tensor.Train
	}
	tape := tensor.NewTape(on, mode)
	if f.Precision == "bf16" {
		tape.SetPrecision(tensor.BFloat16)
	}
	ids, words := f.ids(1, vocabulary), f.ids(2, max(f.V, 1))
	h := make([]float32, f.B*f.H)
	forward := func() *tensor.Tensor {
		tape.Reset()
		y, final := net.RNN.Forward(net.Embed.Forward(tape.IDs(ids, nil, f.T, f.B)), nil)
		switch {
		case f.Pass == "infer":
			final.H.CopyTo(h)
			return nil
		case f.V > 0:
			return tensor.CrossEntropy(net.Out.Forward(y), tape.IDs(words, nil, f.T, f.B), nil)
		}
		return tensor.MeanAll(tensor.Square(y))
	}
	begun := time.Now()
	if loss := forward(); loss != nil {
		loss.Backward()
		f.Outputs = some(net.RNN.Weights[1].T().Grad())
		slab.ZeroGrad()
	} else {
		f.Outputs = some(h)
	}
	f.First = 1e3 * time.Since(begun).Seconds()
	run := func() { forward() }
	if f.Pass == "train" {
		opt := optim.NewAdamW(slab, &optim.AdamWOptions{WeightDecay: 0.01})
		run = func() {
			forward().Backward()
			opt.ClipNorm(1)
			opt.Step(1e-5)
		}
	}
	timed := func(n int) float64 {
		begun := time.Now()
		for range n {
			run()
		}
		on.Backend().Sync()
		return time.Since(begun).Seconds() / float64(n)
	}
	timed(4) // a queue is made a graph the second time
	n := 1 + int(0.05/timed(2))
	var samples []float64
	for begun := time.Now(); len(samples) < 3 || time.Since(begun).Seconds() < seconds; {
		samples = append(samples, 1e3*timed(n))
	}
	f.Ms, f.Low, f.High, f.Samples = bench.Quantile(samples, 0.5), bench.Quantile(samples, 0.1), bench.Quantile(samples, 0.9), len(samples)
}

// vocabulary is the number of embeddings.
const vocabulary = 1000

// network makes the model, with the weights that pytorch.py makes as well.
func (f *figure) network(on *tensor.Device) (*network, *tensor.Slab) {
	o := &nn.RNNOptions{Layers: f.L, TimeMajor: true}
	switch f.Cell {
	case "peephole":
		o.Peephole = true
	case "layernorm":
		o.LayerNorm = true
	case "zoneout":
		o.Zoneout = 0.1
	}
	net := &network{Embed: nn.NewEmbedding(vocabulary, f.I, nil), RNN: nn.NewLSTM(f.I, f.H, o)}
	if f.V > 0 {
		net.Out = nn.NewLinear(f.H, f.V, nil)
	}
	slab := tensor.Pack(on, net, 1)
	scale := 1 / math.Sqrt(float64(f.H))
	net.Embed.Weight.Write(numbers(100, vocabulary*f.I, 1))
	for i, p := range net.RNN.Weights {
		p.Write(numbers(uint32(i), p.Len(), scale))
	}
	if net.Out != nil {
		net.Out.Weight.Write(numbers(101, f.V*f.H, scale))
		net.Out.Bias.Write(numbers(102, f.V, scale))
	}
	return net, slab
}

// hash is a number for a place, as pytorch.py computes it.
func hash(seed, i uint32) uint32 {
	x := i*2654435761 + seed*40503 + 12345
	x ^= x >> 16
	x *= 2246822519
	x ^= x >> 13
	x *= 3266489917
	return x ^ x>>16
}

// numbers is n numbers of [-scale, scale).
func numbers(seed uint32, n int, scale float64) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32((float64(hash(seed, uint32(i)))/(1<<31) - 1) * scale)
	}
	return v
}

func (f *figure) ids(seed uint32, below int) []int32 {
	v := make([]int32, f.T*f.B)
	for i := range v {
		v[i] = int32(hash(1000+seed, uint32(i)) % uint32(below))
	}
	return v
}

// some is 64 numbers of v, evenly spread.
func some(v []float32) []float32 {
	var list []float32
	for i := range 64 {
		list = append(list, v[i*len(v)/64])
	}
	return list
}
