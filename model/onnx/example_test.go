package onnx_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"

	"github.com/carousel-ml/carousel/model/onnx"
	"github.com/carousel-ml/carousel/model/onnx/graph"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// A network of one's own as a graph, compared with the network.
func ExampleAddRNN() {
	net := &struct {
		RNN  *nn.RNN
		Head *nn.Linear
	}{nn.NewLSTM(8, 16, &nn.RNNOptions{LayerNorm: true}), nn.NewLinear(16, 1, nil)}
	tensor.Pack(tensor.CPU(), net, 1)

	g := &graph.Builder{Doc: "the chance of an alarm at each step"}
	g.Input("x", "eight sensors, standardised", "batch", "time", 8)
	x := g.Op("Transpose", []string{"x"}, graph.Attr{Name: "perm", Value: []int64{1, 0, 2}}) // the stack is time-major
	out, err := onnx.AddRNN(g, "rnn", net.RNN, onnx.RNNValues{X: x})
	if err != nil {
		log.Fatal(err)
	}
	g.Node("Sigmoid", []string{onnx.AddLinear(g, "head", net.Head, out.Y)}, []string{"y"})
	g.Output("y", "", "time", "batch", 1)

	in := make([]float32, 2*5*8)
	for i := range in {
		in[i] = float32(i%7) - 3
	}
	y, _ := net.RNN.Forward(tensor.NewTape(tensor.CPU(), tensor.Infer).Input(in, 2, 5, 8), nil)
	want := tensor.Transpose(tensor.Sigmoid(net.Head.Forward(y)), 0, 1).Data()

	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "alarm.onnx")
	parity, err := g.Export(context.Background(), path, map[string]graph.Value{"x": graph.Floats(in, 2, 5, 8)}, map[string][]float32{"y": want})
	if err != nil {
		log.Fatal(err)
	}
	m, err := graph.Read(path)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(m.Inputs()[0], m.Outputs()[0])
	fmt.Println("the cell is a Scan:", slices.Contains(m.Operators(), "Scan"), "- equal:", parity.MaxDiff < 1e-6)
	// Output:
	// x float32[batch,time,8] y float32[time,batch,1]
	// the cell is a Scan: true - equal: true
}
