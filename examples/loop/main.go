// Loop trains a custom model with the low-level packages only: an LSTM learns the
// adding problem of Hochreiter and Schmidhuber (1997). Each sequence has random
// numbers and two marks; the target is the sum of the two marked numbers. The
// constant output 1 has a mean squared error of 0.167.
//
//	go run ./examples/loop
//	go run ./examples/loop -precision bf16
//	go run ./examples/loop -precision fp16
package main

import (
	"flag"
	"fmt"
	"log"
	"math/rand/v2"

	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
)

const (
	batch  = 50
	length = 50
	hidden = 64
	steps  = 2000
)

// adder is a model: a struct of layers and a Forward.
type adder struct {
	RNN  *nn.RNN
	Head *nn.Linear
}

func (m *adder) Forward(x *tensor.Tensor) *tensor.Tensor {
	y, _ := m.RNN.Forward(x, nil) // [B,T,2] -> [B,T,hidden]
	return m.Head.Forward(tensor.LastStep(y))
}

func main() {
	name := flag.String("precision", "f32", "numbers that the products of training compute with: f32, bf16 or fp16")
	flag.Parse()
	precision, err := tensor.ParsePrecision(*name)
	if err != nil {
		log.Fatal(err)
	}
	var scaler *optim.GradScaler // nil: the loss is not scaled
	if precision == tensor.Float16 {
		scaler = optim.NewGradScaler(nil)
	}

	net := &adder{
		RNN:  nn.NewLSTM(2, hidden, &nn.RNNOptions{ForgetBias: 1}),
		Head: nn.NewLinear(hidden, 1, nil),
	}
	opt := optim.NewAdamW(tensor.Pack(tensor.CPU(), net, 1), nil)
	lr := optim.Cosine(3e-3, 1e-5, steps)
	tape := tensor.NewTape(tensor.CPU(), tensor.Train)
	tape.SetPrecision(precision)
	r := rand.New(rand.NewPCG(1, 2))
	x, y := make([]float32, batch*length*2), make([]float32, batch)

	var mean float32
	for step := range steps {
		draw(r, x, y)
		tape.Reset()
		loss := tensor.MSE(net.Forward(tape.Input(x, batch, length, 2)), tape.Input(y, batch, 1), nil)
		scaler.Scale(loss).Backward()
		scaler.Unscale(opt)
		opt.ClipNorm(1)
		scaler.Step(opt, lr(opt.Steps())) // applies, then clears the gradients; after an overflow it only clears them
		scaler.Update()
		mean += loss.Item() / 100
		if step%100 == 99 {
			fmt.Printf("step %4d  mean squared error %.4f\n", step+1, mean)
			mean = 0
		}
	}
}

// draw fills a batch: x [batch,length,2] holds a number and a mark at each
// step, one mark in each half; y [batch] the sum of the marked numbers.
func draw(r *rand.Rand, x, y []float32) {
	clear(x)
	for b := range batch {
		row := x[b*length*2 : (b+1)*length*2]
		for t := range length {
			row[2*t] = r.Float32()
		}
		first, second := r.IntN(length/2), length/2+r.IntN(length/2)
		row[2*first+1], row[2*second+1] = 1, 1
		y[b] = row[2*first] + row[2*second]
	}
}
