package serve

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/carousel-ml/carousel/serve/batch"
)

// Headers by which a request is followed through several servers. Both are answered with.
const (
	headerID    = "X-Request-Id"
	headerTrace = "Traceparent" // of W3C Trace Context
	headerState = "Tracestate"
)

// The same headers as Go's and gRPC's maps have them.
const (
	callID    = "x-request-id"
	callTrace = "traceparent"
	callState = "tracestate"
)

// request is what the log and traces contain of a request. It has no payload, token, path or
// query.
type request struct {
	id     string
	in     trace.SpanContext // of the client; invalid: it sent none
	own    trace.SpanContext // of the request, in the same trace; invalid: there is no trace
	span   trace.Span        // nil: no provider is set
	began  time.Time
	client string
	model  string
}

// newIDs returns a function that makes ids of requests: a random text of the process, and a
// number. They are not secret.
func newIDs() func() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // it never fails
	prefix := hex.EncodeToString(b[:]) + "-"
	var last atomic.Uint64
	return func() string { return prefix + strconv.FormatUint(last.Add(1), 36) }
}

// saneID reports whether a client's id of a request can be logged and answered with.
func saneID(id string) bool {
	return id != "" && len(id) <= 128 && !strings.ContainsFunc(id, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.:/+=", r)
	})
}

// parentOf reads a traceparent of any version; the result is invalid if it is none.
func parentOf(text, state string) (none trace.SpanContext) {
	parts := strings.SplitN(text, "-", 5)
	if len(parts) < 4 || len(parts[0]) != 2 || parts[0] == "ff" || parts[0] == "00" && len(parts) != 4 || len(parts[3]) != 2 || len(text) > 512 {
		return none
	}
	version, err := hex.DecodeString(parts[0])
	if err != nil || hex.EncodeToString(version) != parts[0] {
		return none
	}
	id, err := trace.TraceIDFromHex(parts[1])
	if err != nil {
		return none
	}
	span, err := trace.SpanIDFromHex(parts[2])
	if err != nil {
		return none
	}
	flags, err := hex.DecodeString(parts[3])
	if err != nil {
		return none
	}
	c := trace.SpanContextConfig{TraceID: id, SpanID: span, TraceFlags: trace.TraceFlags(flags[0]) & trace.FlagsSampled, Remote: true}
	if state != "" && len(state) <= 8192 {
		c.TraceState, _ = trace.ParseTraceState(state) // one that is faulty is left out
	}
	return trace.NewSpanContext(c)
}

// traceparent writes a context as the header has it.
func traceparent(c trace.SpanContext) string {
	return "00-" + c.TraceID().String() + "-" + c.SpanID().String() + "-" + c.TraceFlags().String()
}

// begin notes a request. ctx is that of its span, if there is one.
func (s *Server) begin(ctx context.Context, id, parent, state, kind string) (context.Context, *request) {
	q := &request{id: id, began: time.Now()}
	if !saneID(id) {
		q.id = s.newID()
	}
	if parent != "" {
		q.in = parentOf(parent, state)
	}
	if s.tracer != nil {
		if q.in.IsValid() {
			ctx = trace.ContextWithRemoteSpanContext(ctx, q.in)
		}
		ctx, q.span = s.tracer.Start(ctx, kind, trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(q.began))
		q.own = q.span.SpanContext()
		return ctx, q
	}
	if q.in.IsValid() { // the trace continues through a server that does not record it
		var span trace.SpanID
		for !span.IsValid() {
			binary.BigEndian.PutUint64(span[:], randomID())
		}
		q.own = q.in.WithSpanID(span).WithRemote(false)
	}
	return ctx, q
}

func randomID() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // it never fails
	return binary.BigEndian.Uint64(b[:])
}

// beginHTTP notes a request and answers with its ids.
func (s *Server) beginHTTP(w http.ResponseWriter, r *http.Request) (*http.Request, *request) {
	ctx, q := s.begin(r.Context(), first(r.Header[headerID]), first(r.Header[headerTrace]), strings.Join(r.Header[headerState], ","), methodOf(r))
	h := w.Header()
	h[headerID] = []string{q.id}
	if q.own.IsValid() {
		h[headerTrace] = []string{traceparent(q.own)}
	}
	if q.span != nil {
		r = r.WithContext(ctx)
	}
	return r, q
}

// methodOf returns the method of a request for its span: of those that HTTP does not have, which
// may be any text, the word that OpenTelemetry has for them.
func methodOf(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, http.MethodConnect, http.MethodTrace:
		return r.Method
	}
	return "_OTHER"
}

func first(list []string) string {
	if len(list) == 1 {
		return list[0]
	}
	return ""
}

// endHTTP records a request that was answered. r is the request that the router received.
func (s *Server) endHTTP(r *http.Request, q *request, w *response) {
	q.model, q.client = r.PathValue("model"), callerIn(r.Context()).Client
	route := r.Pattern
	if _, path, ok := strings.Cut(route, " "); ok {
		route = path
	}
	if w.status == 0 {
		w.status = http.StatusOK // net/http sends it with an empty body
	}
	if q.span != nil {
		q.span.SetName(strings.TrimSpace(methodOf(r) + " " + route))
		q.span.SetAttributes(attribute.String("http.request.method", methodOf(r)), attribute.String("http.route", route),
			attribute.Int("http.response.status_code", w.status), attribute.Int64("http.response.body.size", w.bytes))
		q.endSpan(w.status >= 500, strconv.Itoa(w.status))
	}
	s.record(r.Context(), q, w.status >= 400, w.status >= 500 && w.status != http.StatusNotImplemented,
		slog.String("method", r.Method), slog.String("route", route), slog.Int("status", w.status), slog.Int64("bytes", w.bytes))
}

// endSpan ends the span of a request.
func (q *request) endSpan(failed bool, kind string) {
	if q.model != "" {
		q.span.SetAttributes(attribute.String("carousel.model", clipped(q.model)))
	}
	if q.client != "" {
		q.span.SetAttributes(attribute.String("enduser.id", q.client))
	}
	if failed {
		q.span.SetAttributes(attribute.String("error.type", kind))
		q.span.SetStatus(otelcodes.Error, "")
	}
	q.span.End()
}

// record logs a request: if it failed, at most mostFailures per second, otherwise with
// Options.LogRequests.
func (s *Server) record(ctx context.Context, q *request, failed, bad bool, attrs ...slog.Attr) {
	level := slog.LevelInfo
	switch {
	case bad:
		level = slog.LevelWarn
	case !failed && !s.o.LogRequests:
		level = slog.LevelDebug
	}
	if !s.log.Enabled(ctx, level) {
		return
	}
	if failed {
		ok, left := s.failures.allow(time.Now())
		if left > 0 {
			s.log.Warn("requests that failed are not all logged", "left_out", left)
		}
		if !ok {
			return
		}
	}
	if q.model != "" {
		attrs = append(attrs, slog.String("model", clipped(q.model)))
	}
	attrs = append(attrs, slog.Float64("ms", float64(time.Since(q.began).Microseconds())/1000), slog.String("client", q.client), slog.String("request_id", q.id))
	if q.own.IsValid() {
		attrs = append(attrs, slog.String("trace_id", q.own.TraceID().String()))
	}
	s.log.LogAttrs(ctx, level, "a request", attrs...)
}

// clipped is a client's text for the log.
func clipped(text string) string {
	if len(text) > 256 {
		return text[:256] + "..."
	}
	return text
}

// mostFailures is the number of failed requests that are logged per second, so that a faulty
// client does not fill the disk.
const mostFailures = 100

// rate limits lines of the log.
type rate struct {
	mu     sync.Mutex
	second int64
	n      int
	left   int
}

// allow reports whether one more may be logged, and how many of the seconds before were not.
func (r *rate) allow(now time.Time) (ok bool, left int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if second := now.Unix(); second != r.second {
		r.second, r.n, left, r.left = second, 0, r.left, 0
	}
	if r.n >= mostFailures {
		r.left++
		return false, left
	}
	r.n++
	return true, left
}

// requestKey is the context's key of a call's request.
type requestKey struct{}

// requestIn returns the request of a call; nil if it is none of this server's.
func requestIn(ctx context.Context) *request {
	q, _ := ctx.Value(requestKey{}).(*request)
	return q
}

// beginCall notes a call and answers with its ids.
func (s *Server) beginCall(ctx context.Context, method string) (context.Context, *request) {
	ctx, q := s.begin(ctx, first(metadata.ValueFromIncomingContext(ctx, callID)), first(metadata.ValueFromIncomingContext(ctx, callTrace)),
		strings.Join(metadata.ValueFromIncomingContext(ctx, callState), ","), strings.TrimPrefix(method, "/"))
	q.client = callerOf(ctx).Client
	answer := metadata.MD{callID: []string{q.id}}
	if q.own.IsValid() {
		answer[callTrace] = []string{traceparent(q.own)}
	}
	_ = grpc.SetHeader(ctx, answer) // of a call that is over
	return context.WithValue(ctx, requestKey{}, q), q
}

// endCall records a call that was answered.
func (s *Server) endCall(ctx context.Context, q *request, method string, err error) {
	code := status.Code(err)
	bad := slices.Contains([]codes.Code{codes.Internal, codes.Unknown, codes.DataLoss, codes.Unimplemented, codes.Unavailable, codes.DeadlineExceeded}, code)
	if q.span != nil {
		service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
		q.span.SetAttributes(attribute.String("rpc.system", "grpc"), attribute.String("rpc.service", service),
			attribute.String("rpc.method", name), attribute.Int("rpc.grpc.status_code", int(code)))
		q.endSpan(bad, code.String())
	}
	s.record(ctx, q, code != codes.OK, bad && code != codes.Unimplemented, slog.String("method", method), slog.String("status", code.String()))
}

// recordUnary and recordStream are the interceptors that record calls.
func (s *Server) recordUnary(ctx context.Context, m any, i *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
	ctx, q := s.beginCall(ctx, i.FullMethod)
	switch m := m.(type) {
	case interface{ GetModelName() string }:
		q.model = m.GetModelName()
	case interface{ GetName() string }:
		q.model = m.GetName()
	}
	out, err := h(ctx, m)
	s.endCall(ctx, q, i.FullMethod, err)
	return out, err
}

// streamIn is a stream with another context.
type streamIn struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *streamIn) Context() context.Context { return s.ctx }

func (s *Server) recordStream(srv any, stream grpc.ServerStream, i *grpc.StreamServerInfo, h grpc.StreamHandler) error {
	ctx, q := s.beginCall(stream.Context(), i.FullMethod)
	err := h(srv, &streamIn{stream, ctx})
	s.endCall(ctx, q, i.FullMethod, err)
	return err
}

// traceJob adds to the span of a request when its job waited and when it was computed, and in what
// batch.
func (s *Server) traceJob(ctx context.Context, v *version, j *batch.Job) {
	if s.tracer == nil {
		return
	}
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	span.AddEvent("queued", trace.WithTimestamp(j.Queued))
	span.AddEvent("started", trace.WithTimestamp(j.Started), trace.WithAttributes(
		attribute.String("carousel.model", v.name), attribute.String("carousel.version", v.number), attribute.Int("carousel.batch.rows", j.Batch)))
	span.AddEvent("finished", trace.WithTimestamp(j.Finished))
	span.SetAttributes(attribute.Float64("carousel.queue.seconds", j.Started.Sub(j.Queued).Seconds()),
		attribute.Float64("carousel.compute.seconds", j.Finished.Sub(j.Started).Seconds()))
}
