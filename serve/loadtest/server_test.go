package loadtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/carousel-ml/carousel/serve/inference"
	pb "github.com/carousel-ml/carousel/serve/inferencepb"
)

// sums is a server whose models add up what comes in: of a request, or of a sequence so
// far. It refuses a sequence that does not begin with its start.
type sums struct {
	pb.UnimplementedGRPCInferenceServiceServer
	mu        sync.Mutex
	state     map[int64]float32
	begun     int
	ended     int
	count     int // requests
	single    int // of no sequence
	forgetful bool
	refuse    bool
}

func (s *sums) infer(r *inference.Request) (*inference.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count++
	if s.refuse && s.count%2 == 0 {
		return nil, inference.Errorf(inference.Exhausted, "queue is full")
	}
	if r.Model != "a" && r.Model != "b/c" {
		return nil, inference.Errorf(inference.NotFound, "no model %q", r.Model)
	}
	if len(r.Inputs) != 1 || r.Inputs[0].Name != "x" || len(r.Inputs[0].Dims) != 2 || r.Inputs[0].Dims[1] != 3 {
		return nil, inference.Errorf(inference.Invalid, "inputs are %+v", r.Inputs)
	}
	sum := float32(0)
	id, _ := r.Params["sequence_id"].(int64)
	if u, ok := r.Params["sequence_id"].(uint64); ok {
		id = int64(u)
	}
	if id != 0 {
		last, lives := s.state[id]
		start, _ := r.Params["sequence_start"].(bool)
		if !start && !lives {
			return nil, inference.Errorf(inference.Invalid, "sequence %d must start", id)
		}
		if start {
			s.begun++
			last = 0
		}
		sum = last
	} else {
		s.single++
	}
	for _, x := range r.Inputs[0].Floats {
		sum += x
	}
	if id != 0 {
		s.state[id] = sum
		if end, _ := r.Params["sequence_end"].(bool); end {
			s.ended++
			delete(s.state, id)
		}
	}
	if s.forgetful && s.count > 20 {
		sum++
	}
	return &inference.Response{Model: r.Model, Version: "1", Outputs: []inference.Tensor{{Name: "y", Datatype: inference.FP32, Value: inference.Value{Dims: []int{1}, Floats: []float32{sum}}}}}, nil
}

func (s *sums) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Token") != "t" {
		http.Error(w, `{"error":"no token"}`, http.StatusUnauthorized)
		return
	}
	path := strings.TrimPrefix(r.URL.EscapedPath(), "/v2/models/")
	model, what, _ := strings.Cut(path, "/")
	model = strings.ReplaceAll(model, "%2F", "/")
	switch what {
	case "":
		io.WriteString(w, `{"name":"a","inputs":[{"name":"x","datatype":"FP32","shape":[-1,3]},{"name":"h","datatype":"FP32","shape":[-1,9]}]}`)
	case "stats":
		s.mu.Lock()
		fmt.Fprintf(w, `{"model_stats":[{"name":%q,"inference_count":%d,"execution_count":%d}]}`, model, 4*s.count, s.count)
		s.mu.Unlock()
	case "infer":
		body, _ := io.ReadAll(r.Body)
		request, err := inference.ReadRequest(r.Header.Get(inference.HeaderLength), body)
		var response *inference.Response
		if err == nil {
			request.Model = model
			response, err = s.infer(request)
		}
		var header string
		if err == nil {
			header, body, err = inference.WriteResponse(response, request)
		}
		if err != nil {
			w.WriteHeader(inference.AsError(err).HTTPStatus())
			w.Write(inference.WriteError(inference.AsError(err)))
			return
		}
		if header != "" {
			w.Header().Set(inference.HeaderLength, header)
		}
		w.Write(body)
	default:
		http.Error(w, `{"error":"Not Found"}`, http.StatusNotFound)
	}
}

func (s *sums) ModelMetadata(context.Context, *pb.ModelMetadataRequest) (*pb.ModelMetadataResponse, error) {
	return &pb.ModelMetadataResponse{Inputs: []*pb.ModelMetadataResponse_TensorMetadata{
		{Name: "x", Datatype: "FP32", Shape: []int64{-1, 3}}, {Name: "h", Datatype: "FP32", Shape: []int64{-1, 9}}}}, nil
}

func (s *sums) ModelStatistics(context.Context, *pb.ModelStatisticsRequest) (*pb.ModelStatisticsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &pb.ModelStatisticsResponse{ModelStats: []*pb.ModelStatistics{{InferenceCount: uint64(4 * s.count), ExecutionCount: uint64(s.count)}}}, nil
}

func (s *sums) ModelInfer(_ context.Context, m *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
	r, err := inference.RequestFromProto(m)
	if err != nil {
		return nil, inference.AsError(err).GRPC().Err()
	}
	response, err := s.infer(r)
	if err != nil {
		return nil, inference.AsError(err).GRPC().Err()
	}
	return response.ToProto(true)
}

func (s *sums) ModelStreamInfer(stream grpc.BidiStreamingServer[pb.ModelInferRequest, pb.ModelStreamInferResponse]) error {
	for {
		m, err := stream.Recv()
		if err != nil {
			return nil
		}
		r, err := s.ModelInfer(stream.Context(), m)
		answer := &pb.ModelStreamInferResponse{InferResponse: r}
		if err != nil {
			answer = &pb.ModelStreamInferResponse{ErrorMessage: status.Convert(err).Message()}
		}
		if err := stream.Send(answer); err != nil {
			return err
		}
	}
}

// serve starts the server with REST and gRPC and returns both addresses.
func (s *sums) serve(t *testing.T) (string, string) {
	t.Helper()
	s.state = map[int64]float32{}
	web := httptest.NewServer(s)
	t.Cleanup(web.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	pb.RegisterGRPCInferenceServiceServer(g, s)
	go g.Serve(l)
	t.Cleanup(g.Stop)
	return web.URL, "grpc://" + l.Addr().String()
}

// forms are the ways to speak with a server.
var ways = map[string]Options{"rest": {}, "json": {JSON: true}, "grpc": {}, "stream": {Stream: true}}

func connect(t *testing.T, s *sums, way string, o Options) *Server {
	t.Helper()
	web, rpc := s.serve(t)
	address := web
	if way == "grpc" || way == "stream" {
		address = rpc
	}
	o.Omit, o.Headers, o.Stream, o.JSON = []string{"h"}, []string{"Token: t"}, ways[way].Stream, ways[way].JSON
	server, err := Connect(t.Context(), address, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	for _, m := range server.Models() {
		if len(m.Inputs) != 1 || m.Inputs[0].Name != "x" {
			t.Fatalf("%s: the inputs are %+v, want x alone", way, m.Inputs)
		}
		dims, err := Shape(&m.Inputs[0], nil)
		if err != nil {
			t.Fatal(err)
		}
		values, err := Random(&m.Inputs[0], dims, 5, 2, 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := server.Prepare(m, [][]inference.Value{values}); err != nil {
			t.Fatal(err)
		}
	}
	if err := server.Try(t.Context()); err != nil {
		t.Fatalf("%s: %v", way, err)
	}
	return server
}

// TestServer sends loads in every form of the protocol, and wants every answer checked,
// sequences whole, and the server's own counts.
func TestServer(t *testing.T) {
	for way := range ways {
		for _, l := range []Load{{Clients: 3, Count: 60, Kinds: 2}, {Clients: 3, Sessions: 6, Count: 60, Kinds: 2}, {Clients: 3, Sessions: 6, Count: 60, Kinds: 2, Rate: 2000}} {
			s := &sums{}
			server := connect(t, s, way, Options{Models: []string{"a", "b/c"}, Clients: 3, Sessions: l.Sessions, SessionLength: 4, Check: true})
			before, ok, err := server.Statistics(t.Context())
			if err != nil || !ok || len(before) != 2 {
				t.Fatalf("%s: statistics: %v %v %v", way, before, ok, err)
			}
			r := run(t, server, l)
			if r.Answered() != 60 || r.Failed() != 0 {
				t.Errorf("%s %+v: %d answers, errors %+v", way, l, r.Answered(), r.Errors)
			}
			after, _, _ := server.Statistics(t.Context())
			if after[0].Rows-before[0].Rows != 240 || after[0].Executions-before[0].Executions != 60 {
				t.Errorf("%s: statistics went from %v to %v", way, before, after)
			}
			server.End(t.Context())
			if l.Sessions > 0 && (len(s.state) != 0 || s.begun < 15 || s.begun != s.ended || s.single != 0) {
				t.Errorf("%s %+v: %d sequences begun, %d ended, %d live, %d requests of none", way, l, s.begun, s.ended, len(s.state), s.single)
			}
			if l.Sessions == 0 && s.begun != 0 {
				t.Errorf("%s: sequences without sessions", way)
			}
		}
	}
}

// TestCheck wants an answer that is not the first's bits to be an error.
func TestCheck(t *testing.T) {
	for way := range ways {
		for _, sessions := range []int{0, 4} {
			server := connect(t, &sums{forgetful: true}, way, Options{Models: []string{"a"}, Clients: 2, Sessions: sessions, SessionLength: 3, Check: true})
			r := run(t, server, Load{Clients: 2, Count: 100, Sessions: sessions})
			if len(r.Errors) == 0 || r.Errors[0].Kind != "differs" || r.Answered()+r.Failed() != 100 {
				t.Errorf("%s, %d sessions: %d answers and errors %+v, want some that differ", way, sessions, r.Answered(), r.Errors)
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	want := map[string]string{"rest": "HTTP 429", "json": "HTTP 429", "grpc": "gRPC RESOURCE_EXHAUSTED", "stream": "gRPC error_message"}
	for way := range ways {
		server := connect(t, &sums{refuse: true}, way, Options{Models: []string{"a"}, Clients: 1})
		r := run(t, server, Load{Clients: 1, Count: 20})
		if len(r.Errors) != 1 || r.Errors[0].Kind != want[way] || r.Errors[0].Count != 10 || !strings.Contains(r.Errors[0].First, "queue is full") {
			t.Errorf("%s: errors %+v, want 10 of %s", way, r.Errors, want[way])
		}
	}
}

// TestHanging wants a request without an answer to end with its time, and with the load's.
func TestHanging(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // which accepts and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, address := range []string{"http://" + l.Addr().String(), "grpc://" + l.Addr().String()} {
		begin := time.Now()
		_, err := Connect(t.Context(), address, Options{Models: []string{"a"}, Timeout: 200 * time.Millisecond})
		if err == nil || time.Since(begin) > 5*time.Second {
			t.Errorf("%s: %v after %v", address, err, time.Since(begin))
		}
	}
}

func TestConnectErrors(t *testing.T) {
	web, rpc := (&sums{}).serve(t)
	for _, c := range []struct {
		address string
		o       Options
		want    string
	}{
		{"localhost:80", Options{Models: []string{"a"}}, "want http://HOST:PORT"},
		{web, Options{}, "name of a model"},
		{web, Options{Models: []string{"a"}}, "HTTP 401: no token"},
		{web, Options{Models: []string{"a"}, Headers: []string{"no"}}, "want Name: value"},
		{rpc + "/path", Options{Models: []string{"a"}}, "gRPC has no path"},
		{rpc, Options{Models: []string{"a"}, JSON: true}, "JSON is a form of REST"},
		{"http://127.0.0.1:1", Options{Models: []string{"a"}}, "connection"},
		{"grpc://127.0.0.1:1", Options{Models: []string{"a"}}, "connection"},
	} {
		_, err := Connect(t.Context(), c.address, c.o)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %+v: %v, want %q", c.address, c.o, err, c.want)
		}
	}
	server, err := Connect(t.Context(), web, Options{Models: []string{"a"}, Headers: []string{"Token: t"}})
	if err != nil {
		t.Fatal(err)
	}
	in := server.Models()[0].Inputs[0]
	for _, dims := range [][]int{{1}, {1, 4}, {2, 3, 1}} {
		if _, err := Shape(&in, dims); err == nil {
			t.Errorf("shape %v of %v is accepted", dims, in.Dims)
		}
	}
	if _, err := Shape(&inference.Info{Name: "t", Dims: []int{-1, -1, 8}}, nil); err == nil {
		t.Error("a shape with a free dimension is accepted")
	}
	if _, err := Random(&in, []int{1 << 20, 1 << 20}, 1, 2, 1); err == nil {
		t.Error("a shape of 2^40 elements is accepted")
	}
	var f *Failure
	if err := server.Prepare(server.Models()[0], nil); err == nil || errors.As(err, &f) {
		t.Errorf("no values give %v", err)
	}
}
