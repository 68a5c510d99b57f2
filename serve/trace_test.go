package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/embedded"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "github.com/carousel-ml/carousel/serve/inferencepb"
)

const (
	clientTrace = "0af7651916cd43dd8448eb211c80319c"
	clientSpan  = "b7ad6b7169203331"
)

func TestTraceparents(t *testing.T) {
	good := "00-" + clientTrace + "-" + clientSpan + "-01"
	for text, want := range map[string]bool{
		good:                      true,
		good[:53] + "00":          true,
		"01" + good[2:]:           true,
		"01" + good[2:] + "-more": true, // a later version may have more
		good + "-more":            false,
		"ff" + good[2:]:           false,
		"0" + good:                false,
		strings.ToUpper(good):     false,
		"00-" + strings.Repeat("0", 32) + "-" + clientSpan + "-01":  false,
		"00-" + clientTrace + "-" + strings.Repeat("0", 16) + "-01": false,
		"00-" + clientTrace + "-" + clientSpan:                      false,
		"00-" + clientTrace + "-" + clientSpan + "-0":               false,
		"00-" + clientTrace[1:] + "-" + clientSpan + "-01":          false,
		"":                              false,
		"00-" + strings.Repeat("-", 60): false,
	} {
		c := parentOf(text, "")
		if c.IsValid() != want {
			t.Errorf("%q: valid is %v, want %v", text, c.IsValid(), want)
		}
		if want && (c.TraceID().String() != clientTrace || c.SpanID().String() != clientSpan || c.IsSampled() != strings.Contains(text, "-01")) {
			t.Errorf("%q is read as %s", text, traceparent(c))
		}
	}
	if c := parentOf(good, "a=b,c=d"); c.TraceState().Get("c") != "d" {
		t.Error("the state of the trace is lost")
	}
	if c := parentOf(good, "not a state"); !c.IsValid() || c.TraceState().Len() != 0 {
		t.Error("a faulty state takes its trace with it")
	}
}

// lines returns the records of a log about requests.
func lines(tb testing.TB, log *records) (list []map[string]any) {
	tb.Helper()
	for line := range strings.Lines(log.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			tb.Fatal(err)
		}
		if m["msg"] == "a request" {
			list = append(list, m)
		}
	}
	return list
}

// logged runs a server with a log of some level.
func logged(tb testing.TB, level slog.Level, requests bool) (*doors, *records) {
	log := &records{}
	d := run(tb, func(s *Server) {
		s.log = slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: level}))
		s.o.LogRequests = requests
	})
	return d, log
}

func TestRequestsInTheLog(t *testing.T) {
	d, log := logged(t, slog.LevelInfo, true)
	q, err := http.NewRequest("POST", "http://"+d.http+"/v2/models/m/infer?token=hidden-1", strings.NewReader(strings.Replace(oneStep, "1,2,3]}", "1,2,31415.926]}", 1)))
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("X-Request-Id", "mine-1")
	q.Header.Set("Traceparent", "00-"+clientTrace+"-"+clientSpan+"-01")
	q.Header.Set("Authorization", "Bearer hidden-2")
	out, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	answer, _ := io.ReadAll(out.Body)
	out.Body.Close()
	if out.StatusCode != 200 || out.Header.Get("X-Request-Id") != "mine-1" {
		t.Errorf("status %d, id %q", out.StatusCode, out.Header.Get("X-Request-Id"))
	}
	if back := out.Header.Get("Traceparent"); !strings.HasPrefix(back, "00-"+clientTrace+"-") || strings.Contains(back, clientSpan) || !strings.HasSuffix(back, "-01") {
		t.Errorf("the trace goes on as %q", back)
	}
	c := pb.NewGRPCInferenceServiceClient(d.dial(t))
	var header metadata.MD
	ctx := metadata.AppendToOutgoingContext(context.Background(), "x-request-id", "mine-2", "traceparent", "00-"+clientTrace+"-"+clientSpan+"-00")
	if _, err := c.ModelInfer(ctx, stepProto("", false), grpc.Header(&header)); err != nil {
		t.Fatal(err)
	}
	if first(header["x-request-id"]) != "mine-2" || !strings.HasPrefix(first(header["traceparent"]), "00-"+clientTrace) {
		t.Errorf("the call is answered with %v", header)
	}
	if status, _, h := d.send(t, "GET", "/v2/models/secret-name/ready", "", ""); status != 404 || h.Get("X-Request-Id") == "" || h.Get("Traceparent") != "" {
		t.Errorf("status %d, header %v", status, h)
	}
	if status, _, _ := d.send(t, "GET", "/secret-path/hidden-3", "", ""); status != 404 {
		t.Error(status)
	}
	if status, _, _ := d.send(t, "GET", "/v2/logging", "", ""); status != 501 {
		t.Error(status)
	}
	if _, err := c.LogSettings(t.Context(), &pb.LogSettingsRequest{}); status.Code(err) != codes.Unimplemented {
		t.Error(err)
	}
	waitFor(t, "requests are missing in the log", func() bool { return len(lines(t, log)) == 6 })
	list := lines(t, log)
	want := []map[string]any{
		{"level": "INFO", "method": "POST", "route": "/v2/models/{model}/infer", "model": "m", "status": 200.0, "bytes": float64(len(answer)), "client": "127.0.0.1", "request_id": "mine-1", "trace_id": clientTrace},
		{"level": "INFO", "method": "/inference.GRPCInferenceService/ModelInfer", "model": "m", "status": "OK", "client": "127.0.0.1", "request_id": "mine-2", "trace_id": clientTrace},
		{"level": "INFO", "method": "GET", "route": "/v2/models/{model}/ready", "model": "secret-name", "status": 404.0},
		{"level": "INFO", "method": "GET", "route": "/", "status": 404.0},
		{"level": "INFO", "method": "GET", "route": "/v2/logging", "status": 501.0},
		{"level": "INFO", "method": "/inference.GRPCInferenceService/LogSettings", "status": "Unimplemented"},
	}
	for i := range want {
		for key, v := range want[i] {
			if list[i][key] != v {
				t.Errorf("request %d: %s is %v, want %v", i, key, list[i][key], v)
			}
		}
		if ms, ok := list[i]["ms"].(float64); !ok || ms < 0 || ms > 60_000 {
			t.Errorf("request %d: ms is %v", i, list[i]["ms"])
		}
	}
	for _, hidden := range []string{"hidden", "31415", "secret-path"} {
		if strings.Contains(log.String(), hidden) {
			t.Errorf("%q stands in the log:\n%s", hidden, log)
		}
	}
}

func TestRequestsThatSucceedAreNotLogged(t *testing.T) {
	d, log := logged(t, slog.LevelInfo, false)
	for range 3 {
		d.send(t, "POST", "/v2/models/m/infer", "", oneStep)
	}
	d.send(t, "GET", "/v2/models/other/ready", "", "")
	waitFor(t, "a request that failed is missing in the log", func() bool { return len(lines(t, log)) > 0 })
	if list := lines(t, log); len(list) != 1 || list[0]["status"] != 404.0 {
		t.Errorf("the log has %v, want the request that failed alone", list)
	}
}

func TestFailuresInTheLogAreLimited(t *testing.T) {
	r := &rate{}
	at := time.Unix(1000, 0)
	n := 0
	for range 3 * mostFailures {
		if ok, left := r.allow(at); ok {
			n++
		} else if left != 0 {
			t.Error("lines were left out before the limit")
		}
	}
	if n != mostFailures {
		t.Errorf("%d lines in a second, want %d", n, mostFailures)
	}
	if ok, left := r.allow(at.Add(time.Second)); !ok || left != 2*mostFailures {
		t.Errorf("%v, and %d left out, want true and %d", ok, left, 2*mostFailures)
	}
	if _, left := r.allow(at.Add(time.Second)); left != 0 {
		t.Error("what was left out is told of twice")
	}
}

func TestIDsOfRequests(t *testing.T) {
	s, _ := serverOf(t)
	h := s.Handler()
	id := func(given ...string) string {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/v2/health/live", nil)
		r.Header["X-Request-Id"] = given
		h.ServeHTTP(w, r)
		return w.Header().Get("X-Request-Id")
	}
	seen := map[string]bool{}
	for range 100 {
		made := id()
		if seen[made] || !saneID(made) {
			t.Fatalf("%q is made twice, or is not sane", made)
		}
		seen[made] = true
	}
	for _, given := range []string{"", "a b", "a\nb", "ä", strings.Repeat("a", 129), `"`, "a,b"} {
		if got := id(given); got == given || got == "" {
			t.Errorf("the id %q was taken", given)
		}
	}
	if got := id("a", "b"); got == "a" || got == "b" {
		t.Error("one of two ids was taken")
	}
	if got := id(strings.Repeat("a", 128)); len(got) != 128 {
		t.Errorf("an id of 128 characters became %q", got)
	}
}

// spy is a tracer that keeps its spans.
type spy struct {
	embedded.Tracer
	mu    sync.Mutex
	spans []*spied
}

type spied struct {
	noop.Span
	spy    *spy
	name   string
	parent trace.SpanContext
	attrs  map[attribute.Key]attribute.Value
	events []string
	ended  bool
	own    trace.SpanContext
}

func (s *spy) Start(ctx context.Context, name string, _ ...trace.SpanStartOption) (context.Context, trace.Span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := &spied{spy: s, name: name, parent: trace.SpanContextFromContext(ctx), attrs: map[attribute.Key]attribute.Value{}}
	id := n.parent.TraceID()
	if !id.IsValid() {
		id = trace.TraceID{15: 1}
	}
	n.own = trace.NewSpanContext(trace.SpanContextConfig{TraceID: id, SpanID: trace.SpanID{7: byte(len(s.spans) + 1)}, TraceFlags: trace.FlagsSampled})
	s.spans = append(s.spans, n)
	return trace.ContextWithSpan(ctx, n), n
}

func (n *spied) SpanContext() trace.SpanContext { return n.own }
func (n *spied) IsRecording() bool              { return true }
func (n *spied) SetName(name string)            { n.name = name }
func (n *spied) End(...trace.SpanEndOption) {
	n.spy.mu.Lock()
	defer n.spy.mu.Unlock()
	n.ended = true
}
func (n *spied) AddEvent(name string, _ ...trace.EventOption) { n.events = append(n.events, name) }
func (n *spied) SetAttributes(list ...attribute.KeyValue) {
	for _, a := range list {
		n.attrs[a.Key] = a.Value
	}
}

func TestSpans(t *testing.T) {
	traces := &spy{}
	d := run(t, func(s *Server) { s.tracer = traces })
	q, err := http.NewRequest("POST", "http://"+d.http+"/v2/models/m/infer", strings.NewReader(oneStep))
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Traceparent", "00-"+clientTrace+"-"+clientSpan+"-01")
	out, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	out.Body.Close()
	if back := out.Header.Get("Traceparent"); back != "00-"+clientTrace+"-0000000000000001-01" {
		t.Errorf("the span is told of as %q", back)
	}
	c := pb.NewGRPCInferenceServiceClient(d.dial(t))
	if _, err := c.ModelInfer(context.Background(), stepProto("", false)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ModelInfer(context.Background(), &pb.ModelInferRequest{ModelName: "other"}); err == nil {
		t.Fatal("a model that is not there answered")
	}
	ended := func() bool {
		traces.mu.Lock()
		defer traces.mu.Unlock()
		return len(traces.spans) == 3 && traces.spans[0].ended && traces.spans[1].ended && traces.spans[2].ended
	}
	waitFor(t, "a request has no span, or one that does not end", ended)
	web, call, fault := traces.spans[0], traces.spans[1], traces.spans[2]
	if web.name != "POST /v2/models/{model}/infer" || web.parent.SpanID().String() != clientSpan || !web.parent.IsRemote() {
		t.Errorf("the span %q below %v", web.name, web.parent.SpanID())
	}
	if call.name != "inference.GRPCInferenceService/ModelInfer" {
		t.Errorf("the span %q", call.name)
	}
	for key, want := range map[attribute.Key]string{"http.request.method": "POST", "http.route": "/v2/models/{model}/infer", "http.response.status_code": "200", "carousel.model": "m"} {
		if got := web.attrs[key]; got.String() != want {
			t.Errorf("%s is %q, want %q", key, got.String(), want)
		}
	}
	for key, want := range map[attribute.Key]string{"rpc.system": "grpc", "rpc.service": "inference.GRPCInferenceService", "rpc.method": "ModelInfer", "rpc.grpc.status_code": "5", "carousel.model": "other"} {
		if got := fault.attrs[key]; got.String() != want {
			t.Errorf("%s is %q, want %q", key, got.String(), want)
		}
	}
	for _, n := range []*spied{web, call} {
		if strings.Join(n.events, " ") != "queued started finished" || n.attrs["carousel.compute.seconds"].AsFloat64() <= 0 || n.attrs["carousel.queue.seconds"].AsFloat64() < 0 {
			t.Errorf("the span %q has the events %q and %v", n.name, n.events, n.attrs)
		}
	}
	if len(fault.events) != 0 {
		t.Errorf("a request that was not computed has the events %q", fault.events)
	}
}

// Without a provider, what the server does for traces and the log must cost next to
// nothing: at most 6 allocations and no span.
func TestUntracedRequestsCostLittle(t *testing.T) {
	s := New(Options{})
	defer s.Close(context.Background())
	r := httptest.NewRequest("GET", "/v2/health/live", nil)
	got := testing.AllocsPerRun(1000, func() {
		out := &response{ResponseWriter: nullWriter{}, status: 200}
		r, q := s.beginHTTP(out, r)
		s.endHTTP(r, q, out)
	})
	if got > 6 {
		t.Errorf("%v allocations for each request", got)
	}
	v := &version{}
	if n := testing.AllocsPerRun(100, func() { s.traceJob(context.Background(), v, nil) }); n != 0 {
		t.Errorf("%v allocations for each job", n)
	}
}

type nullWriter struct{}

var nullHeader = http.Header{}

func (nullWriter) Header() http.Header         { return nullHeader }
func (nullWriter) Write(b []byte) (int, error) { return len(b), nil }
func (nullWriter) WriteHeader(int)             {}

// BenchmarkTold measures what ids, log and traces add to each request, without a provider
// and with the log of requests off and on.
func BenchmarkTold(b *testing.B) {
	for name, o := range map[string]Options{
		"off":      {},
		"log":      {LogRequests: true, Log: slog.New(slog.NewJSONHandler(io.Discard, nil))},
		"provider": {Traces: noop.NewTracerProvider()},
	} {
		b.Run(name, func(b *testing.B) {
			s := New(o)
			defer s.Close(context.Background())
			r := httptest.NewRequest("POST", "/v2/models/m/infer", bytes.NewReader(nil))
			b.ReportAllocs()
			for b.Loop() {
				out := &response{ResponseWriter: nullWriter{}, status: 200}
				r, q := s.beginHTTP(out, r)
				s.endHTTP(r, q, out)
			}
		})
	}
}
