package cli

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	collector_pb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common_pb "go.opentelemetry.io/proto/otlp/common/v1"
	trace_pb "go.opentelemetry.io/proto/otlp/trace/v1"

	pb "github.com/carousel-ml/carousel/serve/inferencepb"
)

// receiver is a receiver of OTLP over HTTP.
type receiver struct {
	*httptest.Server
	mu    sync.Mutex
	spans []*trace_pb.Span
	about map[string]string // the resource
	all   strings.Builder   // what was received, as text
	wrong error
	sick  bool // it refuses what comes
	asked int
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{about: map[string]string{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		b, err := io.ReadAll(q.Body)
		m := &collector_pb.ExportTraceServiceRequest{}
		if err == nil {
			err = proto.Unmarshal(b, m)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.asked++
		if r.sick {
			w.WriteHeader(http.StatusBadRequest) // which is not tried again
			return
		}
		if err != nil || q.URL.Path != "/v1/traces" || q.Header.Get("Content-Type") != "application/x-protobuf" {
			r.wrong = fmt.Errorf("%s %v: %v", q.URL.Path, q.Header, err)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		r.all.Write(b)
		for _, one := range m.ResourceSpans {
			r.about = texts(one.Resource.Attributes)
			for _, scope := range one.ScopeSpans {
				r.spans = append(r.spans, scope.Spans...)
			}
		}
		out, _ := proto.Marshal(&collector_pb.ExportTraceServiceResponse{})
		w.Header().Set("Content-Type", "application/x-protobuf")
		_, _ = w.Write(out)
	}))
	t.Cleanup(r.Close)
	return r
}

func texts(list []*common_pb.KeyValue) map[string]string {
	m := map[string]string{}
	for _, a := range list {
		switch v := a.Value.Value.(type) {
		case *common_pb.AnyValue_StringValue:
			m[a.Key] = v.StringValue
		case *common_pb.AnyValue_IntValue:
			m[a.Key] = fmt.Sprint(v.IntValue)
		default:
			m[a.Key] = fmt.Sprintf("%T", v)
		}
	}
	return m
}

const (
	clientTrace = "0af7651916cd43dd8448eb211c80319c"
	clientSpan  = "b7ad6b7169203331"
)

// sumsFile writes a graph with a state and returns its path.
func sumsFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sums.onnx")
	if err := os.WriteFile(path, onnxGraph("sums"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const sumsBody = `{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[31415.926,2]},{"name":"h","shape":[1,2],"datatype":"FP32","data":[0,0]},{"name":"scale","shape":[],"datatype":"INT64","data":[1]}]}`

// Spans reach a receiver of OTLP at the end at the latest, as children of the client's span,
// with what is known of a request and nothing of what it contains.
func TestServeTraces(t *testing.T) {
	r := newReceiver(t)
	graph := sumsFile(t)
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
	p := startServer(t, graph, "--otlp", r.URL+"/", "--trace-ratio", "0.000001")
	ask := func(method, path, body, parent string) {
		t.Helper()
		q, err := http.NewRequest(method, p.HTTP+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if parent != "" {
			q.Header.Set("Traceparent", parent)
		}
		q.Header.Set("Authorization", "Bearer hidden-token")
		out, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		out.Body.Close()
	}
	const sampled, not = "00-" + clientTrace + "-" + clientSpan + "-01", "00-" + clientTrace + "-" + clientSpan + "-00"
	ask("POST", "/v2/models/sums/infer?key=hidden-query", sumsBody, sampled)
	ask("POST", "/v2/models/sums/infer", sumsBody, not) // its client samples, and not this one
	ask("GET", "/v2", "", "")                           // of a trace that begins here, one in a million
	ask("GET", "/v2/models/"+strings.Repeat("m", 5000), "", sampled)
	ask("HIDDEN", "/v2", "", sampled)
	conn, err := grpc.NewClient(p.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := pb.NewGRPCInferenceServiceClient(conn).ModelReady(metadata.AppendToOutgoingContext(t.Context(), "traceparent", sampled), &pb.ModelReadyRequest{Name: "sums"}); err != nil {
		t.Fatal(err)
	}
	p.end(t)

	r.mu.Lock()
	defer r.mu.Unlock()
	if r.wrong != nil {
		t.Fatal(r.wrong)
	}
	if r.about["service.name"] != "carousel" || r.about["service.version"] == "" || r.about["deployment.environment.name"] != "test" {
		t.Errorf("the resource is %v", r.about)
	}
	var names []string
	for _, s := range r.spans {
		names = append(names, s.Name)
		if fmt.Sprintf("%x", s.TraceId) != clientTrace || fmt.Sprintf("%x", s.ParentSpanId) != clientSpan || s.Kind != trace_pb.Span_SPAN_KIND_SERVER || s.EndTimeUnixNano <= s.StartTimeUnixNano {
			t.Errorf("span %s: trace %x, parent %x, kind %v, %d to %d", s.Name, s.TraceId, s.ParentSpanId, s.Kind, s.StartTimeUnixNano, s.EndTimeUnixNano)
		}
		for key, value := range texts(s.Attributes) {
			if len(value) > mostTraced+len("...") {
				t.Errorf("span %s: %s has %d bytes", s.Name, key, len(value))
			}
		}
	}
	slices.Sort(names)
	if want := []string{"GET /v2/models/{model}", "POST /v2/models/{model}/infer", "_OTHER /", "inference.GRPCInferenceService/ModelReady"}; !slices.Equal(names, want) {
		t.Fatalf("spans %q, want %q", names, want)
	}
	i := slices.IndexFunc(r.spans, func(s *trace_pb.Span) bool { return strings.HasPrefix(s.Name, "POST") })
	is := texts(r.spans[i].Attributes)
	for key, value := range map[string]string{"http.request.method": "POST", "http.route": "/v2/models/{model}/infer", "http.response.status_code": "200", "carousel.model": "sums", "enduser.id": "127.0.0.1"} {
		if is[key] != value {
			t.Errorf("%s is %q, want %q", key, is[key], value)
		}
	}
	var events []string
	for _, e := range r.spans[i].Events {
		events = append(events, e.Name)
	}
	if want := []string{"queued", "started", "finished"}; !slices.Equal(events, want) {
		t.Errorf("events %q, want %q", events, want)
	}
	for _, secret := range []string{"hidden", "HIDDEN", "31415"} {
		if strings.Contains(r.all.String(), secret) {
			t.Errorf("%q stands in the traces", secret)
		}
	}
}

// A collector that is away costs requests nothing, and one line of the log until it is back.
func TestServeWithoutCollector(t *testing.T) {
	r := newReceiver(t)
	r.sick = true
	graph := sumsFile(t)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "50") // milliseconds
	p := startServer(t, graph, "--otlp", r.URL, "--log", "info")
	trouble := func() int { return strings.Count(p.log.String(), "traces do not reach their collector") }
	until := func(what string, is func() bool) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: the log has %s", what, p.log)
			}
			if status, body := fetch(t, http.MethodPost, p.HTTP+"/v2/models/sums/infer", sumsBody); status != 200 {
				t.Fatalf("%d %s", status, body)
			}
		}
	}
	refused := func(n int) func() bool {
		return func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.asked >= n }
	}
	until("several batches", refused(4))
	if n := trouble(); n != 1 {
		t.Errorf("%d lines of the log, want 1: %s", n, p.log)
	}
	r.mu.Lock()
	r.sick = false
	r.mu.Unlock()
	until("it is back", func() bool { return strings.Contains(p.log.String(), "traces reach their collector again") })
	r.mu.Lock()
	r.sick = true
	r.mu.Unlock()
	until("it is away again", func() bool { return trouble() == 2 })
	r.Close()
	p.end(t)

	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		_, _ = io.Copy(io.Discard, q.Body) // so that its end is noticed
		<-q.Context().Done()
	}))
	defer silent.Close()
	p = startServer(t, graph, "--otlp", silent.URL)
	for range 3 {
		began := time.Now()
		if status, body := fetch(t, http.MethodPost, p.HTTP+"/v2/models/sums/infer", sumsBody); status != 200 || time.Since(began) > 2*time.Second {
			t.Errorf("%d %s after %v", status, body, time.Since(began))
		}
	}
	began := time.Now()
	log := p.end(t)
	if took := time.Since(began); took > tracesFlush+3*time.Second {
		t.Errorf("the server ended after %v", took)
	}
	if !strings.Contains(log, "the last traces do not reach their collector") || strings.Contains(log, "otel") {
		t.Errorf("the log has %s", log)
	}
}
