package serve

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/carousel-ml/carousel/serve/inference"
	pb "github.com/carousel-ml/carousel/serve/inferencepb"
)

// echoRPC answers a request with its own tensors.
type echoRPC struct {
	pb.UnimplementedGRPCInferenceServiceServer
}

func (echoRPC) ModelInfer(_ context.Context, m *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
	return &pb.ModelInferResponse{ModelName: m.ModelName, RawOutputContents: m.RawInputContents}, nil
}

// BenchmarkDoors compares the median time of one step of an LSTM of 256 units over
// loopback with those of an echo of the same bytes and of the step itself, in turns so that
// all have the same noise. over-us is what the server adds to the two.
func BenchmarkDoors(b *testing.B) {
	const width = 256
	p := stepProgram(b, width, width, 1)
	s := New(Options{})
	q := addProgram(s, "step", p).q
	defer s.Close(context.Background())

	x := frame(rand.New(rand.NewPCG(1, 1)), width)
	r := &inference.Request{Model: "step", Params: inference.Params{"sequence_id": int64(7), "sequence_start": true},
		Inputs: []inference.Tensor{{Name: p.ins[0].Name, Datatype: inference.FP32, Value: x}}}
	if _, err := s.Infer(context.Background(), r, Caller{}); err != nil {
		b.Fatal(err)
	}
	delete(r.Params, "sequence_start")
	n, err := s.sessions.Find("step", "7")
	if err != nil {
		b.Fatal(err)
	}
	model := func() {
		if err := q.Do(context.Background(), stepJob(p, n, x)); err != nil {
			b.Fatal(err)
		}
	}

	echo := func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body)
	}
	base := serveOn(b, http.HandlerFunc(echo), nil)
	own := serveOn(b, s.Handler(), s.ConnContext)
	post := func(url, header string, body []byte) func() {
		client := &http.Client{Transport: &http.Transport{}}
		return func() {
			r, err := http.NewRequest("POST", url, bytes.NewReader(body))
			if err != nil {
				b.Fatal(err)
			}
			if header != "" {
				r.Header.Set(inference.HeaderLength, header)
			}
			a, err := client.Do(r)
			if err != nil {
				b.Fatal(err)
			}
			text, _ := io.ReadAll(a.Body)
			a.Body.Close()
			if a.StatusCode != 200 {
				b.Fatal(string(text))
			}
		}
	}
	for _, binary := range []bool{true, false} {
		name := map[bool]string{true: "rest-binary", false: "rest-json"}[binary]
		header, body, err := inference.WriteRequest(r, binary)
		if err != nil {
			b.Fatal(err)
		}
		inTurns(b, name, post(base, "", body), post(own+"/v2/models/step/infer", header, body), model)
	}

	m, err := r.ToProto(true)
	if err != nil {
		b.Fatal(err)
	}
	g := grpc.NewServer()
	pb.RegisterGRPCInferenceServiceServer(g, echoRPC{})
	call := func(g *grpc.Server) func() {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		go func() { _ = g.Serve(l) }()
		b.Cleanup(g.Stop)
		c, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { c.Close() })
		client := pb.NewGRPCInferenceServiceClient(c)
		return func() {
			if _, err := client.ModelInfer(context.Background(), m); err != nil {
				b.Fatal(err)
			}
		}
	}
	inTurns(b, "grpc", call(g), call(s.GRPC()), model)
}

// serveOn serves a handler on a port of its own.
func serveOn(b *testing.B, h http.Handler, conn func(context.Context, net.Conn) context.Context) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := &http.Server{Handler: h, ConnContext: conn}
	go func() { _ = server.Serve(l) }()
	b.Cleanup(func() { server.Close() })
	return "http://" + l.Addr().String()
}

// inTurns times three functions and reports their medians in microseconds.
func inTurns(b *testing.B, name string, echo, infer, model func()) {
	b.Run(name, func(b *testing.B) {
		var times [3][]time.Duration
		for range 50 {
			echo()
			infer()
			model()
		}
		b.ResetTimer()
		for range b.N {
			for k, f := range []func(){echo, infer, model} {
				began := time.Now()
				f()
				times[k] = append(times[k], time.Since(began))
			}
		}
		b.StopTimer()
		median := func(k int) float64 {
			slices.Sort(times[k])
			return float64(times[k][len(times[k])/2].Nanoseconds()) / 1e3
		}
		b.ReportMetric(median(0), "echo-us")
		b.ReportMetric(median(1), "infer-us")
		b.ReportMetric(median(2), "model-us")
		b.ReportMetric(median(1)-median(0)-median(2), "over-us")
	})
}
