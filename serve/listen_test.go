package serve

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/serve/batch"
	"github.com/carousel-ml/carousel/serve/inference"
	pb "github.com/carousel-ml/carousel/serve/inferencepb"
)

// listeners returns two listeners on free ports of this machine.
func listeners(t *testing.T) (web, rpc net.Listener) {
	t.Helper()
	for _, l := range []*net.Listener{&web, &rpc} {
		var err error
		if *l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	return web, rpc
}

// begun is a server that runs.
type begun struct {
	*Server
	url, rpc string
	stop     func()
	ended    chan error
}

func begin(t *testing.T, s *Server, drain time.Duration) *begun {
	t.Helper()
	web, rpc := listeners(t)
	ctx, stop := context.WithCancel(t.Context())
	b := &begun{s, "http://" + web.Addr().String(), rpc.Addr().String(), stop, make(chan error, 1)}
	go func() { b.ended <- s.Run(ctx, web, rpc, drain) }()
	return b
}

// end waits for the server's end and returns its error.
func (b *begun) end(t *testing.T) error {
	t.Helper()
	select {
	case err := <-b.ended:
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("the server does not end")
		return nil
	}
}

func (b *begun) post(path, body string) (int, string, error) {
	r, err := http.Post(b.url+path, "application/json", strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	return r.StatusCode, string(text), err
}

const sequenceBody = `{"parameters":{"sequence_id":%d%s},"inputs":[{"name":"x","shape":[1,1,4],"datatype":"FP32","data":[1,2,3,4]}]}`

// A server that is asked to stop while a session is open is not ready, begins no session,
// goes on with the one, and ends when that does.
func TestDrainFinishesSessions(t *testing.T) {
	s := New(Options{})
	if err := s.Add(t.Context(), ModelConfig{Name: "m", Path: stepFile(t)}); err != nil {
		t.Fatal(err)
	}
	b := begin(t, s, time.Minute)
	conn, err := grpc.NewClient(b.rpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	check := func(want health.HealthCheckResponse_ServingStatus) {
		t.Helper()
		r, err := health.NewHealthClient(conn).Check(t.Context(), &health.HealthCheckRequest{})
		if err != nil || r.GetStatus() != want {
			t.Errorf("health %v, %v; want %v", r, err, want)
		}
	}
	check(health.HealthCheckResponse_SERVING)
	ask := func(id int, more string) int {
		t.Helper()
		status, text, err := b.post("/v2/models/m/infer", fmt.Sprintf(sequenceBody, id, more))
		if err != nil {
			t.Error(err)
		}
		if status >= 400 && !strings.Contains(text, `"error"`) {
			t.Errorf("%d %s", status, text)
		}
		return status
	}
	if status := ask(1, `,"sequence_start":true`); status != 200 {
		t.Fatal(status)
	}
	watch, err := health.NewHealthClient(conn).Watch(t.Context(), &health.HealthCheckRequest{}) // which has no end of its own
	if err != nil {
		t.Fatal(err)
	}
	if r, err := watch.Recv(); err != nil || r.GetStatus() != health.HealthCheckResponse_SERVING {
		t.Error(r, err)
	}

	began := time.Now()
	b.stop()
	time.Sleep(600 * time.Millisecond) // longer than a server without sessions takes
	check(health.HealthCheckResponse_NOT_SERVING)
	r, err := http.Get(b.url + "/v2/health/ready")
	if err != nil || r.StatusCode != http.StatusServiceUnavailable || !r.Close {
		t.Errorf("ready: %+v, %v", r, err)
	}
	if status := ask(1, ""); status != 200 {
		t.Errorf("the open session: %d", status)
	}
	if status := ask(2, `,"sequence_start":true`); status != 503 {
		t.Errorf("a new session: %d, want 503", status)
	}
	if status := ask(1, `,"sequence_end":true`); status != 200 {
		t.Errorf("the end of the session: %d", status)
	}
	if err := b.end(t); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the server ended %v after it was asked to", took)
	}
	if _, _, err := b.post("/v2", ""); err == nil {
		t.Error("the server answers after its end")
	}
}

// A connection that was accepted before the server stopped taking more is answered, also if
// its request comes a moment later.
func TestDrainAnswersAcceptedConnections(t *testing.T) {
	s := New(Options{})
	b := begin(t, s, 4*time.Second)
	addr := strings.TrimPrefix(b.url, "http://")
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, _, err := b.post("/v2", ""); err != nil { // so the one before was accepted
		t.Fatal(err)
	}
	b.stop()
	waitFor(t, "the server takes connections", func() bool {
		other, err := net.Dial("tcp", addr)
		if err == nil {
			other.Close()
		}
		return err != nil
	})
	time.Sleep(50 * time.Millisecond)
	if _, err := io.WriteString(c, "GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if r, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || r.StatusCode != 200 || !r.Close {
		t.Errorf("got %+v, %v", r, err)
	}
	if err := b.end(t); err != nil {
		t.Error(err)
	}
}

// What net/http quotes of a client is not logged.
func TestConnLog(t *testing.T) {
	log := &records{}
	l := connLog{slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	fmt.Fprintf(l, "http2: server: error reading preface from client 127.0.0.1:1: bogus greeting %q\n", "a secret")
	if text := log.String(); strings.Contains(text, "secret") || !strings.Contains(text, "bogus greeting") {
		t.Error(text)
	}
}

// slow is a program that takes its time for each job, or until nobody wants it.
type slow struct {
	batch.Program
	takes time.Duration
	began chan struct{}
}

func (p *slow) Run(ctx context.Context, jobs []*batch.Job) {
	close(p.began)
	time.Sleep(p.takes)
	p.Program.Run(ctx, jobs)
}

// addSlow adds a model whose requests take that time.
func addSlow(t *testing.T, s *Server, takes time.Duration) *slow {
	t.Helper()
	program := stepProgram(t, 4, 4, 1)
	p := &slow{program, takes, make(chan struct{})}
	addProgram(s, "slow", p)
	return p
}

// A request that runs when the server is asked to stop is answered, also on its own
// connection; if that takes longer than the server may, its end says so.
func TestDrainAnswers(t *testing.T) {
	for _, c := range []struct {
		takes, drain time.Duration
		answered     bool
	}{{600 * time.Millisecond, 10 * time.Second, true}, {3 * time.Second, 400 * time.Millisecond, false}} {
		s := New(Options{})
		p := addSlow(t, s, c.takes)
		b := begin(t, s, c.drain)
		type answer struct {
			status int
			err    error
		}
		got := make(chan answer, 1)
		go func() {
			status, _, err := b.post("/v2/models/slow/infer", `{"inputs":[{"name":"x","shape":[1,1,4],"datatype":"FP32","data":[1,2,3,4]}]}`)
			got <- answer{status, err}
		}()
		<-p.began
		b.stop()
		err := b.end(t)
		a := <-got
		switch {
		case c.answered && (err != nil || a.status != 200):
			t.Errorf("a request of %v with %v: the server ended with %v, the client got %+v", c.takes, c.drain, err, a)
		case !c.answered && (err == nil || !strings.Contains(err.Error(), "stopped after 400ms with requests unanswered: 1;") || a.status == 200):
			t.Errorf("a request of %v with %v: the server ended with %v, the client got %+v", c.takes, c.drain, err, a)
		}
	}
}

// A session that nobody ends is ended when the time is over, and its client is told.
func TestDrainEndsSessions(t *testing.T) {
	s := New(Options{})
	if err := s.Add(t.Context(), ModelConfig{Name: "m", Path: stepFile(t)}); err != nil {
		t.Fatal(err)
	}
	b := begin(t, s, time.Second)
	if status, text, err := b.post("/v2/models/m/infer", fmt.Sprintf(sequenceBody, 1, `,"sequence_start":true`)); status != 200 {
		t.Fatal(text, err)
	}
	n, err := s.sessions.Find("m", "1")
	if err != nil {
		t.Fatal(err)
	}
	why := make(chan batch.Reason, 1)
	n.Watch(func(_ *batch.Session, reason batch.Reason) { why <- reason })
	b.stop()
	if err := b.end(t); err != nil {
		t.Error(err)
	}
	if reason := <-why; reason != batch.Stopped {
		t.Errorf("the session ended because %s", reason)
	}
}

// HTTP/2 without TLS is answered on the same port, and a listener that fails ends Run with
// its error.
func TestRun(t *testing.T) {
	b := begin(t, New(Options{}), time.Second)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: protocols}}
	r, err := client.Get(b.url + "/v2/health/ready")
	if err != nil || r.ProtoMajor != 2 || r.StatusCode != 200 {
		t.Errorf("%+v, %v", r, err)
	}
	b.stop()
	if err := b.end(t); err != nil {
		t.Error(err)
	}

	web, rpc := listeners(t)
	rpc.Close()
	if err := New(Options{}).Run(t.Context(), web, rpc, time.Second); err == nil || !errors.Is(err, net.ErrClosed) || !strings.Contains(err.Error(), "gRPC") {
		t.Errorf("a closed listener: %v", err)
	}
	if _, err := http.Get("http://" + web.Addr().String()); err == nil {
		t.Error("the other listener is open")
	}
}

// Models says what there is, with the reasons of what is not ready.
func TestModels(t *testing.T) {
	s := New(Options{})
	defer s.Close(t.Context())
	path := stepFile(t)
	if err := s.Add(t.Context(), ModelConfig{Name: "m", Path: path}); err != nil {
		t.Fatal(err)
	}
	if err := s.Add(t.Context(), ModelConfig{Name: "gone", Path: path + "x"}); err == nil {
		t.Fatal("a missing file was opened")
	}
	for name, model := range map[string]string{"p": "m", "q": "gone"} {
		if err := s.AddPipeline(PipelineConfig{Name: name, Stages: []StageConfig{{Model: model}}}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, m := range s.Models() {
		got = append(got, fmt.Sprintf("%s %s %s in=%d out=%d batched=%v stateful=%v ready=%v", m.Name, m.Version, m.Platform, len(m.Inputs), len(m.Outputs), m.Batched, m.Stateful, m.Problem == ""))
	}
	want := []string{
		"gone   in=0 out=0 batched=false stateful=false ready=false",
		"m 1 onnx_onnxv1 in=3 out=3 batched=true stateful=true ready=true",
		"p 1 ensemble in=1 out=1 batched=false stateful=false ready=true",
		"q 1 ensemble in=0 out=0 batched=false stateful=false ready=false",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A request for which memory is refused fails, and nothing else does: not those beside it,
// nor its session, nor later ones, which have the same bits as before.
func TestRefusedMemory(t *testing.T) {
	s := New(Options{})
	defer s.Close(t.Context())
	path := stepFile(t)
	for _, c := range []ModelConfig{{Name: "together", Path: path}, {Name: "alone", Path: path, NoBatch: true}} {
		if err := s.Add(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(model string, steps int, params inference.Params) (*inference.Response, error) {
		v := inference.Value{Dims: []int{1, steps, 4}, Floats: make([]float32, 4*steps)}
		for i := range v.Floats {
			v.Floats[i] = float32(i%7) - 3
		}
		return s.Infer(t.Context(), &inference.Request{Model: model, Params: params, Inputs: []inference.Tensor{{Name: "x", Datatype: inference.FP32, Value: v}}}, Caller{})
	}
	admit := device.Admit
	defer func() { device.Admit = admit }()
	for _, model := range []string{"together", "alone"} {
		device.Admit = admit
		want, err := ask(model, 3, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ask(model, 3, inference.Params{"sequence_id": "s", "sequence_start": true}); err != nil {
			t.Fatal(err)
		}
		device.Admit = func(bytes int) {
			if bytes > 1<<20 {
				panic(inference.Errorf(inference.TooLarge, "too much"))
			}
		}
		for _, params := range []inference.Params{nil, {"sequence_id": "s"}} {
			var fault *inference.Error
			if _, err := ask(model, 200_000, params); !errors.As(err, &fault) || fault.Code != inference.TooLarge {
				t.Errorf("%s: a request that needs too much memory: %v", model, err)
			}
		}
		if got, err := ask(model, 3, nil); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: a request after it: %v, %v", model, got, err)
		}
		if _, err := ask(model, 3, inference.Params{"sequence_id": "s"}); err != nil {
			t.Errorf("%s: the session of the request: %v", model, err)
		}
	}
}

// Streams of gRPC that are open when the server is stopped are answered what they have asked,
// and end with a status that says why.
func TestDrainEndsStreams(t *testing.T) {
	s := New(Options{})
	p := addSlow(t, s, 300*time.Millisecond)
	b := begin(t, s, 4*time.Second)
	conn, err := grpc.NewClient(b.rpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := pb.NewGRPCInferenceServiceClient(conn)
	idle, err := c.ModelStreamInfer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	busy, err := c.ModelStreamInfer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	watch, err := health.NewHealthClient(conn).Watch(t.Context(), &health.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	// Its first state says that the streams before it on the connection have begun: one that has
	// not when the server stops is refused in other words.
	if m, err := watch.Recv(); err != nil || m.GetStatus() != health.HealthCheckResponse_SERVING {
		t.Fatal(m, err)
	}
	if err := busy.Send(&pb.ModelInferRequest{ModelName: "slow", Inputs: []*pb.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: "FP32", Shape: []int64{1, 1, 4},
		Contents: &pb.InferTensorContents{Fp32Contents: []float32{1, 2, 3, 4}}}}}); err != nil {
		t.Fatal(err)
	}
	<-p.began
	b.stop()
	answers := 0
	for {
		m, err := busy.Recv()
		if err != nil {
			if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "the server is stopping") {
				t.Errorf("the busy stream ends with %v", err)
			}
			break
		}
		if m.ErrorMessage != "" {
			t.Errorf("answer %d: %s", answers, m.ErrorMessage)
		}
		answers++
	}
	if answers != 1 {
		t.Errorf("%d answers to a request", answers)
	}
	if _, err := idle.Recv(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "the server is stopping") {
		t.Errorf("the idle stream ends with %v", err)
	}
	var last health.HealthCheckResponse_ServingStatus
	for {
		m, err := watch.Recv()
		if err != nil {
			if status.Code(err) != codes.Unavailable || last != health.HealthCheckResponse_NOT_SERVING {
				t.Errorf("the watched state was %v and ends with %v", last, err)
			}
			break
		}
		last = m.GetStatus()
	}
	if err := b.end(t); err != nil {
		t.Error(err)
	}
}
