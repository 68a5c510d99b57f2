package serve_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/model/onnx"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/serve"
	"github.com/carousel-ml/carousel/serve/inference"
	"github.com/carousel-ml/carousel/tensor"
)

// A trained model over HTTP, until the context ends. A program would take its context from
// signal.NotifyContext, and give a second listener for gRPC.
func Example() {
	s := serve.New(serve.Options{Tasks: carousel.Tasks, Version: carousel.Version()})
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	if err := s.Add(ctx, serve.ModelConfig{Name: "reviews", Path: "../testdata/format1/classify/model"}); err != nil {
		log.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, l, nil, 10*time.Second) }()

	answer, err := http.Post("http://"+l.Addr().String()+"/v2/models/reviews/infer", "application/json", strings.NewReader(
		`{"inputs":[{"name":"text","datatype":"BYTES","shape":[2],"data":["good film","bad film"]}],"outputs":[{"name":"label"}]}`))
	if err != nil {
		log.Fatal(err)
	}
	text, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(answer.Status, string(text))

	stop()
	fmt.Println("everything accepted was answered:", <-ended == nil)
	// Output:
	// 200 OK {"model_name":"reviews","model_version":"1","outputs":[{"name":"label","datatype":"BYTES","shape":[2],"data":["pos","neg"]}]}
	// everything accepted was answered: true
}

// A stream of readings without a port: the server keeps the state of an LSTM from step to
// step, and computes the steps of streams together that are ready at the same time.
func ExampleServer_Infer() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	stack := &onnx.Stack{RNN: nn.NewLSTM(3, 4, nil)}
	tensor.Pack(tensor.CPU(), stack, 1)
	path := filepath.Join(dir, "sensor.onnx")
	if _, err := onnx.Export(ctx, path, stack, &onnx.ExportOptions{State: true}); err != nil {
		log.Fatal(err)
	}

	s := serve.New(serve.Options{})
	if err := s.Add(ctx, serve.ModelConfig{Path: path}); err != nil {
		log.Fatal(err)
	}
	defer s.Close(ctx)
	reading := inference.Tensor{Name: "x", Datatype: inference.FP32, Value: inference.Value{Dims: []int{1, 1, 3}, Floats: []float32{1, 2, 3}}}
	for step := range 3 {
		r, err := s.Infer(ctx, &inference.Request{
			Model:  "sensor",
			Params: inference.Params{"sequence_id": "line-7", "sequence_start": step == 0, "sequence_end": step == 2},
			Inputs: []inference.Tensor{reading},
		}, serve.Caller{})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s %.3f\n", r.Outputs[0].Name, r.Outputs[0].Floats)
	}
	// Output:
	// y [0.039 0.235 -0.006 -0.053]
	// y [0.051 0.319 0.003 -0.079]
	// y [0.054 0.346 0.008 -0.094]
}
