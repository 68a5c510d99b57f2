package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"path"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"

	"github.com/carousel-ml/carousel/internal/result"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/serve/inference"
)

// Handler returns the server's HTTP API: the Open Inference Protocol under /v2 and what is
// the server's own under /v1. Each error is an object with the key "error", whoever finds it.
// An http.Server should have [Server.ConnContext] as its ConnContext.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v2", s.answer(func(*http.Request) (any, error) { return jsonOf(s.metadata()), nil }))
	mux.HandleFunc("GET /v2/health/live", s.answer(func(*http.Request) (any, error) {
		if err := s.lost(); err != nil {
			return nil, err
		}
		return map[string]bool{"live": true}, nil
	}))
	mux.HandleFunc("GET /v2/health/ready", s.answer(func(*http.Request) (any, error) {
		if err := s.lost(); err != nil {
			return nil, err
		}
		if !s.Ready() {
			return nil, inference.Errorf(inference.Unavailable, "the server is not ready: it is being stopped, or a model is not loaded; POST /v2/repository/index tells which")
		}
		return map[string]bool{"ready": true}, nil
	}))
	mux.HandleFunc("GET /v2/models", s.answer(func(*http.Request) (any, error) {
		names := []string{}
		for _, e := range s.models.list() {
			names = append(names, e.name)
		}
		return map[string][]string{"models": names}, nil
	}))
	mux.HandleFunc("GET /v2/models/stats", s.answer(s.statisticsHTTP))
	for _, model := range []string{"/v2/models/{model}", "/v2/models/{model}/versions/{version}"} {
		mux.HandleFunc("GET "+model, s.answer(s.modelMetadataHTTP))
		mux.HandleFunc("GET "+model+"/ready", s.answer(s.modelReadyHTTP))
		mux.HandleFunc("GET "+model+"/config", s.answer(s.modelConfigHTTP))
		mux.HandleFunc("GET "+model+"/stats", s.answer(s.statisticsHTTP))
		mux.HandleFunc("POST "+model+"/infer", s.inferHTTP)
		mux.HandleFunc("POST "+model+"/generate", s.answer(missing("generate; use infer, or the paths below /v1")))
		mux.HandleFunc("POST "+model+"/generate_stream", s.answer(missing("generate_stream; use infer, or the paths below /v1")))
		mux.HandleFunc(model+"/trace/setting", s.answer(missing("traces of requests")))
	}
	for _, repository := range []string{"/v2/repository", "/v2/repository/{repository}"} {
		mux.HandleFunc("POST "+repository+"/index", s.answer(s.indexHTTP))
		mux.HandleFunc("POST "+repository+"/models/{model}/load", s.answer(s.loadHTTP))
		mux.HandleFunc("POST "+repository+"/models/{model}/unload", s.answer(s.unloadHTTP))
	}
	mux.HandleFunc("/v2/systemsharedmemory/{rest...}", s.answer(missing("shared memory; send tensors in the body")))
	mux.HandleFunc("/v2/cudasharedmemory/{rest...}", s.answer(missing("shared memory; send tensors in the body")))
	mux.HandleFunc("/v2/trace/setting", s.answer(missing("traces of requests")))
	mux.HandleFunc("/v2/logging", s.answer(missing("settings of its log")))
	for _, k := range s.o.Tasks {
		mux.HandleFunc("POST "+taskPath(k), s.taskHTTP(k))
	}
	mux.Handle("GET /metrics", s.metricsHandler())
	description, err := openAPIHandler(s.o.Tasks, s.o.Version)
	if err != nil {
		panic(err) // the tables of tasks have a type without a JSON form
	}
	mux.Handle("GET "+openAPIPath, description)
	s.sessionRoutes(mux)
	if s.o.Profiles {
		s.profileRoutes(mux)
	}
	mux.HandleFunc("/", s.unknown(mux))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serveHTTP(mux, w, r) })
}

// serveHTTP is what all requests pass: it admits their clients, undoes their compression,
// turns panics into answers, and records them in the log and in traces.
func (s *Server) serveHTTP(mux *http.ServeMux, w http.ResponseWriter, r *http.Request) {
	out := &response{ResponseWriter: w}
	r, q := s.beginHTTP(out, r)
	defer func() { s.endHTTP(r, q, out) }()
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			s.panicked(r.Pattern, q.id, p)
			if out.status != 0 { // the answer has begun: a client must not take it for a whole one
				panic(http.ErrAbortHandler)
			}
			s.fail(out, r, errPanicked)
		}
	}()
	if _, known := r.Context().Value(connKey{}).(*conn); !known {
		r = r.WithContext(context.WithValue(r.Context(), connKey{}, s.newConn(r.RemoteAddr)))
	}
	if err := s.wrongHost(r.Host); err != nil {
		s.failAs(out, r, http.StatusMisdirectedRequest, inference.AsError(err))
		return
	}
	r, err := s.admitted(out, r)
	if err != nil {
		s.fail(out, r, err)
		return
	}
	if crossOrigin.Check(r) != nil {
		s.fail(out, r, errOtherSite)
		return
	}
	if r.RequestURI == "*" { // which the mux would answer without a body
		s.fail(out, r, inference.Errorf(inference.Invalid, "%s * is not a request for a path of this server, expected one such as /v2", methodOf(r)))
		return
	}
	if p := r.URL.EscapedPath(); p != "/" && path.Clean(p) != strings.TrimSuffix(p, "/") {
		s.fail(out, r, notFound(r)) // which the mux would answer with a page
		return
	}
	if r.ContentLength != 0 && r.Method != http.MethodConnect && r.URL.Path != "/v1/stream" {
		body := &timedBody{src: r.Body, control: http.NewResponseController(w), within: s.bodyTime}
		defer body.stop()
		r.Body = body
	}
	if err := inflate(r); err != nil {
		s.fail(out, r, err)
		return
	}
	mux.ServeHTTP(out, r)
}

// crossOrigin finds the requests that a page of another site lets its reader's browser send.
// They carry no token, but the server may be one that only the reader reaches, such as on the
// reader's own machine. WebSockets have their own check.
var (
	crossOrigin  = http.NewCrossOriginProtection()
	errOtherSite = inference.Errorf(inference.Denied, "a browser sent this request for a page of another site, which may not use the server; serve the page from the server's own address")
)

// response notes the status and the size of an answer.
type response struct {
	http.ResponseWriter
	status int // 0: nothing was written
	bytes  int64
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *response) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

// conn is a client's connection.
type conn struct {
	client, name string
	proven       bool   // client is the name of a token or a certificate, and not an address
	token        *token // nil: none
}

type connKey struct{}

func (s *Server) newConn(addr string) *conn {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr // such as that of a Unix socket
	}
	return &conn{client: host, name: strconv.FormatUint(s.conns.Add(1), 10)}
}

// ConnContext is for http.Server.ConnContext: it lets the server tell the connections of a
// client apart.
func (s *Server) ConnContext(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, s.newConn(c.RemoteAddr().String()))
}

// caller returns who sends a request that came through the server's handler.
func (s *Server) caller(r *http.Request) Caller { return callerIn(r.Context()) }

func callerIn(ctx context.Context) Caller {
	c, ok := ctx.Value(connKey{}).(*conn)
	if !ok {
		return Caller{}
	}
	return Caller{Client: c.client, Conn: c.name, Proven: c.proven, token: c.token}
}

// answer returns a handler that answers with what f returns as JSON.
func (s *Server) answer(f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil {
			s.fail(w, r, err)
			return
		}
		s.write(w, r, http.StatusOK, "", b.Bytes())
	}
}

// fail answers with an error. That of a full queue is held back for a moment, so that
// clients that try again at once cost little.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	e := inference.AsError(err)
	s.failAs(w, r, e.HTTPStatus(), e)
}

func (s *Server) failAs(w http.ResponseWriter, r *http.Request, status int, e *inference.Error) {
	s.slow(r.Context(), e)
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(e.RetryAfter))
	}
	if !bodyRead(r) {
		// Otherwise the answer would wait for what is left of the body, which a client that
		// waits for the answer never sends, and one that means ill even less.
		control := http.NewResponseController(w)
		_ = control.EnableFullDuplex() // which HTTP/2 always is
		_ = control.SetReadDeadline(time.Now().Add(restTime))
		w.Header().Set("Connection", "close") // or the rest would be taken for a request
	}
	s.write(w, r, status, "", inference.WriteError(e))
}

// bodyRead reports whether nothing of a request's body is left, as far as it is known.
func bodyRead(r *http.Request) bool {
	body := r.Body
	if z, ok := body.(*inflated); ok {
		body = z.src
	}
	t, ok := body.(*timedBody)
	return r.ContentLength == 0 || ok && t.ended()
}

// restTime is how long the rest of the body of a request that was refused is read, so that
// a client that is sending it can read the answer.
const restTime = time.Second

// Refusals are held back, as long as there are at most mostSlowed of them: those of full
// queues, and for longer those of tokens, which somebody may be guessing.
const (
	slowness      = 20 * time.Millisecond
	slownessGuess = 250 * time.Millisecond
	mostSlowed    = 1024
)

func (s *Server) slow(ctx context.Context, e *inference.Error) {
	by := slowness
	switch e.Code {
	case inference.Exhausted:
	case inference.Unknown:
		by = slownessGuess
	default:
		return
	}
	if s.slowed.Add(1) <= mostSlowed {
		wait := time.NewTimer(by)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
		}
	}
	s.slowed.Add(-1)
}

// Values of headers, which are not changed.
var (
	typeJSON   = []string{inference.ContentType("")}
	typeBinary = []string{inference.ContentType("0")}
)

// write writes a whole answer. header is the value of inference.HeaderLength.
func (s *Server) write(w http.ResponseWriter, r *http.Request, status int, header string, body []byte) {
	h := w.Header()
	h["Content-Type"] = typeJSON
	if header != "" {
		h["Content-Type"] = typeBinary
		h[inference.HeaderLength] = []string{header}
	}
	if len(body) >= leastDeflated {
		if as := accepted(r); as != "" {
			if short := deflated(as, body); short != nil {
				body = short
				h["Content-Encoding"] = []string{as}
			}
			h["Vary"] = []string{"Accept-Encoding"}
		}
	}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	_, _ = w.Write(body) // of a client that has gone
}

// leastDeflated is the size of an answer from which compression may pay, and sampleDeflated
// the part that tells whether it does.
const (
	leastDeflated  = 16 << 10
	sampleDeflated = 8 << 10
)

// accepted returns the compression that a client takes, "" if none.
func accepted(r *http.Request) string {
	for _, line := range r.Header["Accept-Encoding"] {
		for one := range strings.SplitSeq(line, ",") {
			name, quality, _ := strings.Cut(one, ";")
			name, quality = strings.TrimSpace(name), strings.TrimSpace(quality)
			refused := strings.HasPrefix(quality, "q=0") && strings.Trim(quality, "q=0.") == ""
			if (name == "gzip" || name == "deflate") && !refused {
				return name
			}
		}
	}
	return ""
}

// deflated compresses an answer; it returns nil if that would save less than a fifth, as of
// most tensors of floats.
func deflated(as string, body []byte) []byte {
	short := func(body []byte) []byte {
		var b bytes.Buffer
		var z io.WriteCloser
		if as == "gzip" {
			z, _ = gzip.NewWriterLevel(&b, gzip.BestSpeed) // a level that exists
		} else {
			z, _ = zlib.NewWriterLevel(&b, zlib.BestSpeed)
		}
		_, _ = z.Write(body) // memory takes all
		_ = z.Close()
		return b.Bytes()
	}
	if len(short(body[len(body)-sampleDeflated:])) > sampleDeflated*4/5 { // what is binary is last
		return nil
	}
	return short(body)
}

// bodyTime is the time in which more of a body must come, and bodyPace the bytes a second
// that must have come on average whenever it is over.
const (
	bodyTime = 20 * time.Second
	bodyPace = 1 << 10
)

// timedBody is a body that must come at some pace, since a client that sends a byte now and
// then would hold a connection for ever.
type timedBody struct {
	src     io.ReadCloser
	control *http.ResponseController
	within  time.Duration

	mu     sync.Mutex
	watch  *time.Timer // runs from the first read to the last
	began  time.Time
	over   bool // all has come, or nobody reads any more
	whole  bool // all has come
	late   bool
	came   int64
	before int64 // what had come when the timer fired last
}

func (b *timedBody) Read(p []byte) (n int, err error) {
	b.mu.Lock()
	if b.watch == nil && !b.over {
		b.began, b.watch = time.Now(), time.AfterFunc(b.within, b.check)
	}
	b.mu.Unlock()
	n, err = b.src.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.came += int64(n)
	if err == nil {
		return n, nil
	}
	b.whole = err == io.EOF
	b.end()
	if b.late {
		err = inference.Errorf(inference.Invalid, "the body came too slowly: %d bytes in %v; send it faster, or a stream of requests to /v1/stream", b.came, time.Since(b.began).Round(time.Millisecond))
	}
	return n, err
}

// check ends the reading of a body that is too slow.
func (b *timedBody) check() {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.over:
	case b.came == b.before || float64(b.came) < bodyPace*time.Since(b.began).Seconds():
		b.late = true
		_ = b.control.SetReadDeadline(time.Now()) // every connection has one; that of the next request is set anew
	default:
		b.before = b.came
		b.watch.Reset(b.within)
	}
}

// end ends the watch. The lock is held.
func (b *timedBody) end() {
	b.over = true
	if b.watch != nil {
		b.watch.Stop()
	}
}

// ended reports whether all has come.
func (b *timedBody) ended() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.whole
}

// stop ends the watch of a body that is not read to its end.
func (b *timedBody) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end()
}

func (b *timedBody) Close() error { return b.src.Close() }

// inflate replaces a body that is compressed by one that is not.
func inflate(r *http.Request) error {
	list := r.Header["Content-Encoding"]
	if list == nil {
		return nil
	}
	switch as := strings.ToLower(strings.TrimSpace(strings.Join(list, ","))); as {
	case "", "identity":
		return nil
	case "gzip", "deflate":
		r.Body, r.ContentLength = &inflated{src: r.Body, as: as}, -1
		r.Header.Del("Content-Encoding")
		return nil
	default:
		return inference.Errorf(inference.Invalid, "Content-Encoding %q is not known, expected gzip, deflate or none", as)
	}
}

// inflated is a body as it was before its compression.
type inflated struct {
	src io.ReadCloser
	as  string
	z   io.Reader
	err error
}

func (b *inflated) Read(p []byte) (n int, err error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.z == nil { // what it reads must have come
		if b.as == "gzip" {
			b.z, err = gzip.NewReader(b.src)
		} else {
			b.z, err = zlib.NewReader(b.src)
		}
	}
	if err == nil {
		n, err = b.z.Read(p)
	}
	if err != nil && err != io.EOF {
		err = inference.Errorf(inference.Invalid, "the body is not what Content-Encoding says, %s: %v", b.as, err)
	}
	b.err = err
	return n, err
}

func (b *inflated) Close() error { return b.src.Close() }

// buffers are for bodies that are read whole and of which nothing is kept.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

const mostPooled = 1 << 20 // bytes of a buffer

// withBody calls f with a request's body, which is no longer f's when it returns.
func (s *Server) withBody(r *http.Request, f func([]byte) error) error {
	most := s.limits().Body
	tooLarge := inference.Errorf(inference.TooLarge, "the body has more than %d bytes, which the server takes; send less at once", most)
	if r.ContentLength > most {
		return tooLarge
	}
	kept := buffers.Get().(*[]byte)
	b := (*kept)[:0]
	defer func() {
		if cap(b) <= mostPooled {
			*kept = b[:0]
		}
		buffers.Put(kept)
	}()
	for {
		if len(b) == cap(b) {
			// What was announced is reserved when half of it has come, so that an empty
			// promise costs no memory.
			room := max(4096, 2*cap(b))
			if n := r.ContentLength; n >= 0 && n < int64(room) {
				room = max(int(n)+1, cap(b)+1)
			}
			b = append(make([]byte, 0, room), b...)
		}
		n, err := r.Body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if int64(len(b)) > most {
			return tooLarge
		}
		if err == io.EOF {
			return f(b)
		}
		if err != nil {
			if known := (*inference.Error)(nil); errors.As(err, &known) {
				return known
			}
			if r.Context().Err() != nil {
				return inference.Errorf(inference.Canceled, "the client went away before its request was read")
			}
			return inference.Errorf(inference.Invalid, "the body ends early, after %d bytes: %v", len(b), err)
		}
	}
}

// inferHTTP answers a request for inference.
func (s *Server) inferHTTP(w http.ResponseWriter, r *http.Request) {
	var q *inference.Request
	err := s.withBody(r, func(b []byte) (err error) {
		q, err = inference.ReadRequest(r.Header.Get(inference.HeaderLength), b)
		return err
	})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	q.Model, q.Version = r.PathValue("model"), r.PathValue("version")
	out, err := s.Infer(r.Context(), q, s.caller(r))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	header, body, err := inference.WriteResponse(out, q)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.write(w, r, http.StatusOK, header, body)
}

func (s *Server) modelMetadataHTTP(r *http.Request) (any, error) {
	name, version := r.PathValue("model"), r.PathValue("version")
	m, err := s.modelMetadata(name, version)
	if err != nil {
		return nil, err
	}
	out := jsonMessage(m.ProtoReflect())
	if _, v, err := s.find(name, version); err == nil && v != nil {
		out["parameters"] = map[string]bool{"batched": v.program().Batched(), "stateful": v.program().NewState() != nil}
	}
	return out, nil
}

func (s *Server) modelReadyHTTP(r *http.Request) (any, error) {
	name := r.PathValue("model")
	if err := s.modelReady(name, r.PathValue("version")); err != nil {
		return nil, err
	}
	return map[string]any{"name": name, "ready": true}, nil
}

func (s *Server) modelConfigHTTP(r *http.Request) (any, error) {
	c, err := s.modelConfig(r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		return nil, err
	}
	return jsonOf(c), nil
}

func (s *Server) statisticsHTTP(r *http.Request) (any, error) {
	m, err := s.statistics(r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		return nil, err
	}
	return jsonOf(m), nil
}

// read reads the JSON object of a body that may be empty. Its keys are checked by the
// fields of to.
func (s *Server) read(r *http.Request, to any) error {
	return s.withBody(r, func(b []byte) error {
		if len(bytes.TrimSpace(b)) == 0 {
			return nil
		}
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		if err := d.Decode(to); err != nil {
			if quoted, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok { // which has no type
				key, _ := strconv.Unquote(quoted)
				return inference.Errorf(inference.Invalid, "the body has an unknown key %q%s", key, settings.DidYouMean(key, keyNames(result.Fields(reflect.TypeOf(to).Elem())), "", "the keys are "))
			}
			return inference.Errorf(inference.Invalid, "the body: %s; expected an object or nothing", jsonProblem(err))
		}
		if _, err := d.Token(); err != io.EOF {
			return inference.Errorf(inference.Invalid, "the body has more than one object, byte %d", d.InputOffset())
		}
		return nil
	})
}

func (s *Server) indexHTTP(r *http.Request) (any, error) {
	var q struct {
		Ready bool `json:"ready"`
	}
	if err := s.read(r, &q); err != nil {
		return nil, err
	}
	if err := oneRepository(r.PathValue("repository")); err != nil {
		return nil, err
	}
	list := []any{}
	for _, m := range s.index(q.Ready).Models {
		list = append(list, jsonOf(m))
	}
	return list, nil
}

// loading is the body of requests to load and unload models.
type loading struct {
	Parameters map[string]any `json:"parameters"`
}

func (s *Server) loadHTTP(r *http.Request) (any, error) {
	var q loading
	if err := s.read(r, &q); err != nil {
		return nil, err
	}
	return struct{}{}, s.load(r.PathValue("repository"), r.PathValue("model"), maps.All(q.Parameters))
}

func (s *Server) unloadHTTP(r *http.Request) (any, error) {
	var q loading
	if err := s.read(r, &q); err != nil {
		return nil, err
	}
	return struct{}{}, s.unload(r.Context(), r.PathValue("repository"), r.PathValue("model"), maps.All(q.Parameters))
}

// missing answers for what clients of Triton may ask and this server does not have.
func missing(what string) func(*http.Request) (any, error) {
	return func(*http.Request) (any, error) {
		return nil, inference.Errorf(inference.Unsupported, "this server has no %s", what)
	}
}

// unknown answers for paths, and methods of paths, that the server does not have.
func (s *Server) unknown(mux *http.ServeMux) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var allow []string
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete} {
			other := *r
			other.Method = method
			if _, pattern := mux.Handler(&other); pattern != "/" {
				allow = append(allow, method)
			}
		}
		if allow == nil {
			s.fail(w, r, notFound(r))
			return
		}
		w.Header().Set("Allow", strings.Join(allow, ", "))
		s.fail(w, r, inference.Errorf(inference.Method, "Method Not Allowed: %s is not for %.200q, expected %s", r.Method, r.URL.Path, strings.Join(allow, " or ")))
	}
}

func notFound(r *http.Request) error {
	return inference.Errorf(inference.NotFound, "Not Found: there is nothing at %.200q", r.URL.Path)
}
