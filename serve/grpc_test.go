package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	health "google.golang.org/grpc/health/grpc_health_v1"
	reflection "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/carousel-ml/carousel/serve/batch"
	"github.com/carousel-ml/carousel/serve/inference"
	pb "github.com/carousel-ml/carousel/serve/inferencepb"
)

// dial serves gRPC on a port of its own and returns a client's connection.
func dial(tb testing.TB, s *Server, opts ...grpc.DialOption) *grpc.ClientConn {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	g := s.GRPC()
	go func() { _ = g.Serve(l) }()
	tb.Cleanup(g.Stop)
	c, err := grpc.NewClient(l.Addr().String(), append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	return c
}

func stepMessage(tb testing.TB, x float32, raw bool, params inference.Params) *pb.ModelInferRequest {
	tb.Helper()
	m, err := (&inference.Request{Model: "step", ID: "7", Params: params, Inputs: []inference.Tensor{stepInput(x)}}).ToProto(raw)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

func fromProto(tb testing.TB, m *pb.ModelInferResponse) *inference.Response {
	tb.Helper()
	r, err := inference.ResponseFromProto(m)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func TestRPCs(t *testing.T) {
	s := newTestServer(t, Options{})
	c := pb.NewGRPCInferenceServiceClient(dial(t, s))
	ctx := context.Background()
	say := func(m any, err error) string {
		if err != nil {
			return status.Code(err).String() + ": " + status.Convert(err).Message()
		}
		return fmt.Sprint(m)
	}
	want := func(name, got string, parts ...string) {
		t.Helper()
		for _, part := range parts {
			if !strings.Contains(strings.ReplaceAll(got, "  ", " "), part) { // protobuf's texts have spaces at random
				t.Errorf("%s: got %s, want %s", name, got, part)
			}
		}
	}
	want("ServerLive", say(c.ServerLive(ctx, &pb.ServerLiveRequest{})), "live:true")
	want("ServerReady", say(c.ServerReady(ctx, &pb.ServerReadyRequest{})), "ready:true")
	want("ModelReady", say(c.ModelReady(ctx, &pb.ModelReadyRequest{Name: "step", Version: "1"})), "ready:true")
	for _, m := range []*pb.ModelReadyRequest{{Name: "other"}, {Name: "step", Version: "9"}} {
		if r, err := c.ModelReady(ctx, m); err != nil || r.Ready {
			t.Errorf("ModelReady of %v: %v, %v", m, r, err)
		}
	}
	want("ServerMetadata", say(c.ServerMetadata(ctx, &pb.ServerMetadataRequest{})), `name:"carousel"`, `version:"test"`, `extensions:"sequence(string_id)"`)
	want("ModelMetadata", say(c.ModelMetadata(ctx, &pb.ModelMetadataRequest{Name: "step"})), `platform:"onnx_onnxv1"`, `inputs:{name:"x" datatype:"FP32" shape:-1 shape:-1 shape:4}`)
	want("ModelMetadata", say(c.ModelMetadata(ctx, &pb.ModelMetadataRequest{Name: "other"})), `NotFound: unknown model "other"`)
	want("ModelConfig", say(c.ModelConfig(ctx, &pb.ModelConfigRequest{Name: "step"})), `max_batch_size:256`, `sequence_batching:{`, `input_name:"h0"`, `zero_data:true`, `dims:-1 dims:4`)
	want("ModelConfig", say(c.ModelConfig(ctx, &pb.ModelConfigRequest{Name: "plain"})), `dynamic_batching:{`)
	want("ModelConfig", say(c.ModelConfig(ctx, &pb.ModelConfigRequest{Name: "both"})), `ensemble_scheduling:{`)
	want("ModelStatistics", say(c.ModelStatistics(ctx, &pb.ModelStatisticsRequest{})), `name:"words"`, `name:"step"`)
	want("ModelStatistics", say(c.ModelStatistics(ctx, &pb.ModelStatisticsRequest{Name: "step", Version: "2"})), `NotFound: model "step" has no version`)
	want("RepositoryIndex", say(c.RepositoryIndex(ctx, &pb.RepositoryIndexRequest{})), `name:"step" version:"1" state:"READY"`)
	want("RepositoryIndex", say(c.RepositoryIndex(ctx, &pb.RepositoryIndexRequest{RepositoryName: "mine"})), `Unimplemented`)
	text := &pb.ModelRepositoryParameter{ParameterChoice: &pb.ModelRepositoryParameter_StringParam{StringParam: "{}"}}
	yes := &pb.ModelRepositoryParameter{ParameterChoice: &pb.ModelRepositoryParameter_BoolParam{BoolParam: true}}
	want("RepositoryModelLoad", say(c.RepositoryModelLoad(ctx, &pb.RepositoryModelLoadRequest{ModelName: "step", Parameters: map[string]*pb.ModelRepositoryParameter{"config": text}})), `Unimplemented: parameter "config"`)
	want("RepositoryModelUnload", say(c.RepositoryModelUnload(ctx, &pb.RepositoryModelUnloadRequest{ModelName: "step", Parameters: map[string]*pb.ModelRepositoryParameter{"unload_dependents": text}})), `InvalidArgument`)
	want("RepositoryModelUnload", say(c.RepositoryModelUnload(ctx, &pb.RepositoryModelUnloadRequest{ModelName: "step", Parameters: map[string]*pb.ModelRepositoryParameter{"unload_dependents": yes}})), ``)
	want("ModelInfer", say(c.ModelInfer(ctx, stepMessage(t, 1, true, nil))), `Unavailable: model "step" is not ready: it was unloaded`)
	want("RepositoryIndex", say(c.RepositoryIndex(ctx, &pb.RepositoryIndexRequest{})), `name:"step" state:"UNAVAILABLE" reason:"it was unloaded"`)
	want("RepositoryModelLoad", say(c.RepositoryModelLoad(ctx, &pb.RepositoryModelLoadRequest{ModelName: "step"})), ``)
	want("RepositoryModelLoad", say(c.RepositoryModelLoad(ctx, &pb.RepositoryModelLoadRequest{ModelName: "other"})), `NotFound`)
	want("SystemSharedMemoryStatus", say(c.SystemSharedMemoryStatus(ctx, &pb.SystemSharedMemoryStatusRequest{})), `Unimplemented: this server has no shared memory`)
	want("SystemSharedMemoryRegister", say(c.SystemSharedMemoryRegister(ctx, &pb.SystemSharedMemoryRegisterRequest{})), `Unimplemented: this server has no shared memory`)
	want("SystemSharedMemoryUnregister", say(c.SystemSharedMemoryUnregister(ctx, &pb.SystemSharedMemoryUnregisterRequest{})), `Unimplemented: this server has no shared memory`)
	want("CudaSharedMemoryStatus", say(c.CudaSharedMemoryStatus(ctx, &pb.CudaSharedMemoryStatusRequest{})), `Unimplemented: this server has no shared memory`)
	want("CudaSharedMemoryRegister", say(c.CudaSharedMemoryRegister(ctx, &pb.CudaSharedMemoryRegisterRequest{})), `Unimplemented: this server has no shared memory`)
	want("CudaSharedMemoryUnregister", say(c.CudaSharedMemoryUnregister(ctx, &pb.CudaSharedMemoryUnregisterRequest{})), `Unimplemented: this server has no shared memory`)
	want("TraceSetting", say(c.TraceSetting(ctx, &pb.TraceSettingRequest{})), `Unimplemented: this server has no traces`)
	want("LogSettings", say(c.LogSettings(ctx, &pb.LogSettingsRequest{})), `Unimplemented: this server has no settings of its log`)

	y := output(t, expected(t, s, "step", nil, stepInput(1)), "y")
	for _, raw := range []bool{true, false} {
		m, err := c.ModelInfer(ctx, stepMessage(t, 1, raw, nil))
		if err != nil {
			t.Fatal(err)
		}
		if got := output(t, fromProto(t, m), "y"); !sameBits(&got.Value, &y.Value) || m.Id != "7" || m.ModelName != "step" || m.ModelVersion != "1" || raw != (len(m.RawOutputContents) > 0) {
			t.Errorf("raw %v: got %v, want %v", raw, m, y)
		}
	}
	for _, as := range []string{"gzip", "deflate"} { // both directions, as Triton's clients offer it
		m, err := c.ModelInfer(ctx, stepMessage(t, 1, true, nil), grpc.UseCompressor(as))
		if err != nil {
			t.Fatal(as, err)
		}
		if got := output(t, fromProto(t, m), "y"); !sameBits(&got.Value, &y.Value) {
			t.Errorf("%s: got %v, want %v", as, m, y)
		}
	}
	bad := stepMessage(t, 1, true, nil)
	bad.Inputs[0].Shape[0] = -1
	want("ModelInfer", say(c.ModelInfer(ctx, bad)), `InvalidArgument`, `negative`)
	bad = stepMessage(t, 1, true, inference.Params{"timeout": "soon"})
	want("ModelInfer", say(c.ModelInfer(ctx, bad)), `InvalidArgument: parameter timeout`)
	late, stop := context.WithTimeout(ctx, time.Nanosecond)
	defer stop()
	want("ModelInfer", say(c.ModelInfer(late, stepMessage(t, 1, true, nil))), `DeadlineExceeded`)
}

func TestRPCLimits(t *testing.T) {
	s := newTestServer(t, Options{Limits: Limits{Body: 1000, Sessions: batch.SessionOptions{Most: 1}}})
	c := pb.NewGRPCInferenceServiceClient(dial(t, s))
	big := stepMessage(t, 1, true, nil)
	big.Id = strings.Repeat("a", 1000)
	if _, err := c.ModelInfer(context.Background(), big); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a message of more than 1000 bytes: %v", err)
	}
	for i, want := range []codes.Code{codes.OK, codes.ResourceExhausted} {
		began := time.Now()
		_, err := c.ModelInfer(context.Background(), stepMessage(t, 1, true, inference.Params{"sequence_id": int64(i + 1), "sequence_start": true}))
		if status.Code(err) != want {
			t.Errorf("sequence %d: %v, want %v", i, err, want)
		}
		if took := time.Since(began); want != codes.OK && (took < slowness || len(status.Convert(err).Details()) == 0) {
			t.Errorf("the refusal came after %v with %v, want %v and when to try again", took, status.Convert(err).Details(), slowness)
		}
	}
}

// TestStreamOfSequences sends the requests of several sequences, mixed and without
// waiting, and compares each answer with that of a sequence by itself.
func TestStreamOfSequences(t *testing.T) {
	const sequences, steps = 5, 60
	s := newTestServer(t, Options{})
	var want [sequences][]float32
	for k := range sequences {
		for i := range steps {
			p := inference.Params{"sequence_id": fmt.Sprint("own", k), "sequence_start": i == 0, "sequence_end": i == steps-1}
			want[k] = append(want[k], output(t, expected(t, s, "step", p, stepInput(float32(k+i))), "y").Floats[0])
		}
	}
	alone := output(t, expected(t, s, "step", nil, stepInput(3)), "y").Floats[0]
	c := pb.NewGRPCInferenceServiceClient(dial(t, s))
	stream, err := c.ModelStreamInfer(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() {
		for i := range steps {
			for k := range sequences {
				m := stepMessage(t, float32(k+i), true, inference.Params{"sequence_id": uint64(k + 1), "sequence_start": i == 0, "sequence_end": i == steps-1})
				m.Id = fmt.Sprintf("%d/%d", k, i)
				if err := stream.Send(m); err != nil {
					failed <- err
					return
				}
			}
			m := stepMessage(t, 3, true, nil)
			m.Id = fmt.Sprintf("alone/%d", i)
			bad := stepMessage(t, 3, true, nil)
			bad.Id, bad.Inputs[0].Name = fmt.Sprintf("bad/%d", i), "z"
			worse := stepMessage(t, 3, true, nil)
			worse.Id, worse.Inputs[0].Shape[0] = fmt.Sprintf("worse/%d", i), -1
			for _, m := range []*pb.ModelInferRequest{m, bad, worse} {
				if err := stream.Send(m); err != nil {
					failed <- err
					return
				}
			}
		}
		failed <- stream.CloseSend()
	}()
	next := map[string]int{}
	for {
		m, err := stream.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		name, _, _ := strings.Cut(m.InferResponse.Id, "/")
		i := next[name]
		next[name]++
		if !m.InferResponse.Parameters["triton_final_response"].GetBoolParam() {
			t.Error("an answer does not say that it is the last of its request")
		}
		if strings.HasPrefix(name, "bad") || strings.HasPrefix(name, "worse") {
			if m.ErrorMessage == "" || m.InferResponse.ModelName != "step" {
				t.Errorf("%s: got %v", m.InferResponse.Id, m)
			}
			continue
		}
		if m.ErrorMessage != "" {
			t.Fatalf("%s: %s", m.InferResponse.Id, m.ErrorMessage)
		}
		got := output(t, fromProto(t, m.InferResponse), "y").Floats[0]
		if name == "alone" {
			if got != alone {
				t.Errorf("%s: got %v, want %v", m.InferResponse.Id, got, alone)
			}
			continue
		}
		k := int(name[0] - '0')
		if m.InferResponse.Id != fmt.Sprintf("%d/%d", k, i) {
			t.Fatalf("answer %d of sequence %d has the id %s", i, k, m.InferResponse.Id)
		}
		if got != want[k][i] {
			t.Errorf("%s: got %v, want %v", m.InferResponse.Id, got, want[k][i])
		}
	}
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"0", "4", "alone", "bad", "worse"} {
		if next[name] != steps {
			t.Errorf("%s: %d answers, want %d", name, next[name], steps)
		}
	}
}

// TestStreamOwnsItsSequences checks that sequences which begin in a stream end with it, and
// others do not.
func TestStreamOwnsItsSequences(t *testing.T) {
	s := newTestServer(t, Options{})
	c := pb.NewGRPCInferenceServiceClient(dial(t, s))
	if _, err := c.ModelInfer(context.Background(), stepMessage(t, 1, true, inference.Params{"sequence_id": "free", "sequence_start": true})); err != nil {
		t.Fatal(err)
	}
	for name, end := range map[string]func(pb.GRPCInferenceService_ModelStreamInferClient, func()){
		"closed":    func(stream pb.GRPCInferenceService_ModelStreamInferClient, _ func()) { _ = stream.CloseSend() },
		"cancelled": func(_ pb.GRPCInferenceService_ModelStreamInferClient, stop func()) { stop() },
	} {
		ctx, stop := context.WithCancel(context.Background())
		stream, err := c.ModelStreamInfer(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range []inference.Params{{"sequence_id": "owned", "sequence_start": true}, {"sequence_id": "free"}} {
			if err := stream.Send(stepMessage(t, 1, true, p)); err != nil {
				t.Fatal(err)
			}
			if m, err := stream.Recv(); err != nil || m.ErrorMessage != "" {
				t.Fatal(m, err)
			}
		}
		if n, _ := s.sessions.Count(nil); n != 2 {
			t.Errorf("%s: %d sessions, want 2", name, n)
		}
		end(stream, stop)
		until := time.Now().Add(10 * time.Second)
		for n, _ := s.sessions.Count(nil); n != 1 && time.Now().Before(until); n, _ = s.sessions.Count(nil) {
			time.Sleep(time.Millisecond)
		}
		_, err = c.ModelInfer(context.Background(), stepMessage(t, 1, true, inference.Params{"sequence_id": "owned"}))
		if !strings.Contains(fmt.Sprint(err), string(batch.Gone)) {
			t.Errorf("%s: the stream's sequence: %v", name, err)
		}
		if _, err := c.ModelInfer(context.Background(), stepMessage(t, 1, true, inference.Params{"sequence_id": "free"})); err != nil {
			t.Errorf("%s: the other sequence: %v", name, err)
		}
		stop()
	}
}

// TestUnreadStreamIsCut has a client that sends and never reads: its stream ends with a
// status, its sequences with it, and what it holds of the server is bounded.
func TestUnreadStreamIsCut(t *testing.T) {
	s := newTestServer(t, Options{Limits: Limits{Unread: 300 * time.Millisecond}})
	c := pb.NewGRPCInferenceServiceClient(dial(t, s, grpc.WithInitialWindowSize(64<<10)))
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	stream, err := c.ModelStreamInfer(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(stepMessage(t, 1, true, inference.Params{"sequence_id": "owned", "sequence_start": true})); err != nil {
		t.Fatal(err)
	}
	if m, err := stream.Recv(); err != nil || m.ErrorMessage != "" {
		t.Fatal(m, err)
	}
	x := inference.Tensor{Name: "x", Datatype: inference.FP32, Value: inference.Value{Dims: []int{1, 500, testHidden}, Floats: make([]float32, 500*testHidden)}}
	m, err := (&inference.Request{Model: "plain", Inputs: []inference.Tensor{x}}).ToProto(true)
	if err != nil {
		t.Fatal(err)
	}
	var sent atomic.Int64
	over := make(chan struct{})
	go func() {
		defer close(over)
		for stream.Send(m) == nil {
			sent.Add(1)
		}
	}()
	until := time.Now().Add(20 * time.Second)
	for n, _ := s.sessions.Count(nil); (n != 0 || sent.Load() == 0) && time.Now().Before(until); n, _ = s.sessions.Count(nil) {
		time.Sleep(time.Millisecond)
	}
	if n, _ := s.sessions.Count(nil); n != 0 {
		t.Errorf("the stream's sequence lives on after %v", s.limits().Unread)
	}
	st, err := s.statistics("plain", "")
	if err != nil {
		t.Fatal(err)
	}
	// 16 KB each: two windows of 64 KB and what is in flight.
	if n := st.ModelStats[0].InferenceCount; n > mostInFlight+40 {
		t.Errorf("%d requests of a client that reads nothing were computed", n)
	}
	for err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "not read for 300ms") {
		t.Errorf("the stream ends with %v", err)
	}
	<-over
	if _, err := c.ModelInfer(context.Background(), m); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestHealthAndReflection(t *testing.T) {
	s := newTestServer(t, Options{})
	conn := dial(t, s)
	h := health.NewHealthClient(conn)
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
	defer stop()
	check := func(service string) string {
		m, err := h.Check(ctx, &health.HealthCheckRequest{Service: service})
		if err != nil {
			return status.Code(err).String()
		}
		return m.Status.String()
	}
	watch, err := h.Watch(ctx, &health.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := watch.Recv(); err != nil || m.Status != health.HealthCheckResponse_SERVING {
		t.Errorf("watch: %v, %v", m, err)
	}
	for service, want := range map[string]string{"": "SERVING", "inference.GRPCInferenceService": "SERVING", "step": "SERVING", "other": "NotFound"} {
		if got := check(service); got != want {
			t.Errorf("%q: got %s, want %s", service, got, want)
		}
	}
	if err := s.Unload(ctx, "plain", false); err != nil {
		t.Fatal(err)
	}
	list, err := h.List(ctx, &health.HealthListRequest{})
	if err != nil || list.Statuses["plain"].GetStatus() != health.HealthCheckResponse_NOT_SERVING || list.Statuses["step"].GetStatus() != health.HealthCheckResponse_SERVING {
		t.Errorf("list: %v, %v", list, err)
	}
	if err := s.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	for _, service := range []string{"", "step"} {
		if got := check(service); got != "NOT_SERVING" {
			t.Errorf("%q while draining: got %s", service, got)
		}
	}
	if m, err := watch.Recv(); err != nil || m.Status != health.HealthCheckResponse_NOT_SERVING {
		t.Errorf("watch while draining: %v, %v", m, err)
	}

	r, err := reflection.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Send(&reflection.ServerReflectionRequest{MessageRequest: &reflection.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	m, err := r.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, one := range m.GetListServicesResponse().GetService() {
		names = append(names, one.Name)
	}
	for _, want := range []string{"inference.GRPCInferenceService", "grpc.health.v1.Health"} {
		if !slices.Contains(names, want) {
			t.Errorf("reflection has %v, want %s", names, want)
		}
	}
}

func TestRPCPanicsAreAnswered(t *testing.T) {
	s := New(Options{})
	var err error
	func() {
		defer s.endRPC(context.Background(), "/m", &err)
		panic("secret")
	}()
	if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
	err = errors.New("a fault")
	s.endRPC(context.Background(), "/m", &err) // without a panic
	if status.Code(err) != codes.Internal {
		t.Errorf("got %v", err)
	}
}

// A stream is told at once of a sequence that is over, and goes on.
func TestStreamHearsOfEvictions(t *testing.T) {
	s := newTestServer(t, Options{Limits: Limits{Sessions: batch.SessionOptions{Life: time.Hour}}})
	c := pb.NewGRPCInferenceServiceClient(dial(t, s))
	stream, err := c.ModelStreamInfer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	step := func(id string, start bool) *pb.ModelStreamInferResponse {
		t.Helper()
		if err := stream.Send(stepMessage(t, 1, true, inference.Params{"sequence_id": id, "sequence_start": start})); err != nil {
			t.Fatal(err)
		}
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	for _, id := range []string{"one", "two", "three"} {
		if m := step(id, true); m.ErrorMessage != "" {
			t.Fatal(m)
		}
	}
	for id, why := range map[string]batch.Reason{"one": batch.Evicted, "two": batch.Idle} {
		n, err := s.sessions.Find("step", id)
		if err != nil {
			t.Fatal(err)
		}
		n.End(why)
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if got := m.GetInferResponse().GetParameters()["sequence_id"].GetStringParam(); m.ErrorMessage != fmt.Sprintf("sequence %s of model \"step\" is over: %s", id, why) || got != id {
			t.Errorf("the stream is told %q of sequence %q", m.ErrorMessage, got)
		}
	}
	if m := step("three", false); m.ErrorMessage != "" {
		t.Errorf("the other sequence: %v", m)
	}
	n, err := s.sessions.Find("step", "three")
	if err != nil {
		t.Fatal(err)
	}
	n.End(batch.Ended) // by a client, who needs no notice
	if m := step("four", true); m.ErrorMessage != "" {
		t.Errorf("after a sequence was ended: %v", m)
	}
}
