package serve

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/carousel-ml/carousel/serve/batch"
	"github.com/carousel-ml/carousel/serve/inference"
)

// A stream is a connection whose messages are requests of one session. Each is submitted
// when it has been read, so that the next one is ready when a step ends, and they are
// answered in their order.
type stream struct {
	s      *Server
	c      Caller
	h      *held
	conn   duplex
	limits streamLimits

	output string           // with which messages without JSON are answered; empty: all
	framed bool             // binary messages begin with JSON
	params inference.Params // of requests that do not have them
	only   inference.Info   // the input that messages without JSON are for
	noOnly error            // why there is none

	ctx     context.Context // ends when nobody waits for answers any more
	cancel  context.CancelFunc
	pending chan *pending
	over    chan batch.Reason // the session's end
	stopped chan struct{}     // closed when no more is answered
	taken   atomic.Int64      // requests that are pending, are about to be, or were
	bytes   atomic.Int64      // of what is pending
	room    chan struct{}     // told when that falls
	last    atomic.Int64      // bytes of the last answer, which the next is expected to have
}

// streamLimits are the limits of a stream; zeros are the defaults.
type streamLimits struct {
	messages int           // that are read and not answered. 0: 32
	bytes    int64         // of these with their answers. 0: 4 MiB; one message may have more
	unread   time.Duration // for which an answer may lie unread. 0: the server's
	ping     time.Duration // between pings. 0: 20 seconds
}

// duplex is a connection as a stream uses it; read and write are called by one goroutine each.
type duplex interface {
	// read returns the next message. After the last it returns io.EOF if the client waits for
	// answers, another error if it does not. An *inference.Error is for the client to know.
	read() (message, error)
	// write returns when the connection has taken a message, which a client that does not
	// read can delay for a bounded time.
	write(message) error
	// close says why the session is over, or nothing, and ends the connection and a read
	// that waits.
	close(why batch.Reason)
	// carries reports whether there are binary messages.
	carries() bool
}

type message struct {
	binary bool
	b      []byte
}

// form is how a request came and is answered.
type form uint8

const (
	object  form = iota // as the protocol's JSON, with or without binary data
	numbers             // as a list in JSON
	raw                 // as the bytes of a tensor
)

// pending is a request that is not answered yet.
type pending struct {
	form form
	q    *inference.Request
	err  error
	wait func() (*inference.Response, error)
	stop context.CancelFunc
	cost int64
}

func (s *Server) streamRoutes(mux *http.ServeMux, l streamLimits) {
	l.messages = cmp.Or(l.messages, 32)
	l.bytes = cmp.Or(l.bytes, 4<<20)
	l.ping = cmp.Or(l.ping, 20*time.Second)
	now := func() streamLimits { // for a stream that begins
		l := l
		l.unread = cmp.Or(l.unread, s.limits().Unread)
		return l
	}
	mux.HandleFunc("GET /v1/stream", func(w http.ResponseWriter, r *http.Request) { s.serveSocket(w, r, now()) })
	mux.HandleFunc("POST /v1/stream", func(w http.ResponseWriter, r *http.Request) { s.serveLines(w, r, now()) })
}

// newStream opens the session that a request for a stream names, or one that ends with the
// owner.
func (s *Server) newStream(r *http.Request, owner *Owner, l streamLimits) (*stream, error) {
	q := r.URL.Query()
	st := &stream{s: s, c: s.caller(r), limits: l, params: inference.Params{}, output: q.Get("output"),
		pending: make(chan *pending, l.messages-1), over: make(chan batch.Reason, 1), stopped: make(chan struct{}), room: make(chan struct{}, 1)}
	switch form := q.Get("binary"); form {
	case "", "raw":
	case "request":
		st.framed = true
	default:
		return nil, inference.Errorf(inference.Invalid, "binary: expected raw, for messages that are a tensor, or request, for messages that begin with the length of JSON and JSON, got %q", form)
	}
	life, err := lifeIn(q)
	if err != nil {
		return nil, err
	}
	model := q.Get("model")
	switch id := q.Get("session"); {
	case id != "" && life != 0:
		return nil, inference.Errorf(inference.Invalid, "ttl_seconds is for a session that the stream opens, session %q has its own; leave it out", id)
	case id != "":
		st.h, err = s.held(model, id, st.c)
	case model == "":
		err = inference.Errorf(inference.Invalid, "the stream has no model, expected ?model= with the name of one: the server has %s", s.names())
	default:
		st.c.Owner = owner
		st.h, err = s.hold(model, q.Get("version"), batch.Opening{Client: st.c.Client, Life: life}, owner)
	}
	if err != nil {
		return nil, err
	}
	for name, values := range q {
		if !slices.Contains([]string{"model", "version", "session", "ttl_seconds", "output", "binary"}, name) {
			st.params[name] = paramOf(values[0])
		}
	}
	return st, st.describe()
}

// paramOf reads a parameter of a URL as the value that it would have in JSON.
func paramOf(text string) any {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n
	}
	if x, err := strconv.ParseFloat(text, 64); err == nil {
		return x
	}
	if yes, err := strconv.ParseBool(text); err == nil {
		return yes
	}
	return text
}

// describe finds what the stream's requests have in common, and checks it.
func (st *stream) describe() error {
	v := st.version()
	ins, outs := v.ins, v.outs
	if p := st.h.e.pipeline; p != nil {
		var err error
		if ins, outs, err = p.infos(st.s); err != nil {
			return err
		}
	}
	if st.output != "" && !slices.ContainsFunc(outs, func(o inference.Info) bool { return o.Name == st.output }) {
		return inference.Errorf(inference.Invalid, "output: model %q has no output %q: it has %s", st.h.e.name, st.output, listed(outs))
	}
	options, some := v.program().(optioned)
	for name := range st.params {
		if strings.HasPrefix(name, "sequence_") || st.h.e.pipeline != nil && !reserved(name) || !some && !reserved(name) {
			return inference.Errorf(inference.Invalid, "unknown parameter %q of a stream, expected model, version, session, ttl_seconds, output, binary, or a parameter that all its requests have", name)
		}
	}
	if some && st.h.e.pipeline == nil {
		if _, err := options.Options(st.params); err != nil {
			return err
		}
	}
	p, _ := v.program().(*taskProgram)
	for _, in := range ins {
		switch {
		case p != nil && p.samples >= 0:
			st.only = p.ins[p.samples]
			return nil
		case in.State || in.Optional:
		case st.only.Name != "":
			st.noOnly = inference.Errorf(inference.Invalid, "a message without JSON is for models of one input, %q has %q and %q; send a request as JSON", st.h.e.name, st.only.Name, in.Name)
		default:
			st.only = in
		}
	}
	if st.only.Name == "" {
		st.noOnly = inference.Errorf(inference.Invalid, "a message without JSON is for models of one input, all inputs of %q are optional; send a request as JSON", st.h.e.name)
	}
	return nil
}

// version returns that of a model's session, and of a pipeline's the one of its first part.
func (st *stream) version() *version { return st.h.parts[0].Queue().Owner.(*version) }

// run serves a stream until its connection or its session ends.
func (st *stream) run(ctx context.Context) {
	st.ctx, st.cancel = context.WithCancel(ctx)
	defer st.cancel()
	told := func(why batch.Reason) {
		select {
		case st.over <- why:
		default:
		}
	}
	for _, n := range st.h.parts {
		defer n.Watch(func(_ *batch.Session, why batch.Reason) { told(why) })()
	}
	defer st.s.holdToken(st.c, told)()
	answered := make(chan struct{})
	defer func() { <-answered }()
	defer close(st.pending) // also if a request panics
	go func() {
		defer close(answered)
		st.answer()
	}()
	for more := true; more; {
		m, err := st.conn.read()
		known := (*inference.Error)(nil)
		switch {
		case err == nil:
			more = st.take(m)
		case errors.As(err, &known):
			more = false
			st.taken.Add(1)
			st.enqueue(&pending{err: known})
		default:
			if more = false; err != io.EOF {
				st.cancel()
			}
		}
	}
}

// take submits the request of a message when there is room for it. It returns false when
// the stream has stopped.
func (st *stream) take(m message) bool {
	cost := int64(len(m.b)) + st.last.Load()
	for have := st.bytes.Load(); have > 0 && have+cost > st.limits.bytes; have = st.bytes.Load() {
		select {
		case <-st.room:
		case <-st.stopped:
			return false
		}
	}
	st.taken.Add(1) // before the request may end the session
	p := st.submit(m)
	p.cost = cost
	return st.enqueue(p)
}

func (st *stream) enqueue(p *pending) bool {
	st.bytes.Add(p.cost)
	select {
	case st.pending <- p:
		return true
	case <-st.stopped:
		return false
	}
}

// submit reads a request and gives it its place in the session.
func (st *stream) submit(m message) *pending {
	began := time.Now()
	p := &pending{stop: func() {}}
	if p.q, p.form, p.err = st.read(m); p.err != nil {
		return p
	}
	if p.err = st.h.adopt(p.q); p.err != nil {
		return p
	}
	for name, v := range st.params {
		if _, given := p.q.Params[name]; !given {
			p.q.Params[name] = v
		}
	}
	if p.form != object && st.output != "" {
		p.q.Outputs = []inference.Output{{Name: st.output}}
	}
	if st.h.e.pipeline != nil { // whose stages follow each other
		p.wait = func() (*inference.Response, error) { return st.s.Infer(st.ctx, p.q, st.c) }
		return p
	}
	var j *batch.Job
	var classes []int
	var ctx context.Context
	seq, err := sequenceOf(p.q.Params)
	v, q := st.version(), p.q
	if err == nil {
		j, classes, err = v.job(q, st.c)
	}
	if err == nil {
		j.Session, j.Begin, j.End = st.h.parts[0], seq.start, seq.end
		err = st.writable(p, v, j, classes)
	}
	if err == nil {
		v.decoded.Add(int64(time.Since(began)))
		var stop context.CancelFunc
		if ctx, stop, err = st.s.timed(st.ctx, q.Params); err == nil {
			p.stop = stop
			err = v.q.Submit(ctx, j)
		}
	}
	p.err = err
	p.wait = func() (*inference.Response, error) {
		if err := v.q.Wait(j); err != nil {
			return nil, err
		}
		v.meter.job(j)
		return v.response(q, j, classes)
	}
	return p
}

// writable reports an output that the answer of a request cannot have, before it is computed.
func (st *stream) writable(p *pending, v *version, j *batch.Job, classes []int) error {
	if p.form == object {
		for i := range v.outs {
			if o := &v.outs[i]; j.Wanted(i, o) && p.q.Binary(o.Name) && !st.conn.carries() {
				return errLines
			}
		}
		return v.writable(p.q, j, classes)
	}
	wanted := 0
	for i := range v.outs {
		if j.Wanted(i, &v.outs[i]) {
			wanted++
		}
	}
	if wanted == 1 {
		return nil
	}
	return v.writable(&inference.Request{Text: true}, j, classes) // as encode writes them
}

var errLines = inference.Errorf(inference.Invalid, "lines of JSON have no binary data; ask for outputs without binary_data, or use a WebSocket")

// read reads a request from a message.
func (st *stream) read(m message) (*inference.Request, form, error) {
	switch {
	case !m.binary:
		if text := bytes.TrimLeft(m.b, " \t\r\n"); len(text) > 0 && text[0] == '[' {
			if st.noOnly != nil {
				return nil, numbers, st.noOnly
			}
			b, err := packed(text, &st.only)
			if err != nil {
				return nil, numbers, err
			}
			return st.bare(b), numbers, nil
		}
		q, err := inference.ReadRequest("", m.b)
		return q, object, err
	case st.framed:
		if len(m.b) < 4 {
			return nil, object, inference.Errorf(inference.Invalid, "a binary message has %d bytes, expected 4 with the length of JSON, JSON and tensors", len(m.b))
		}
		n := binary.LittleEndian.Uint32(m.b)
		if n > 0 {
			q, err := inference.ReadRequest(strconv.FormatUint(uint64(n), 10), m.b[4:])
			return q, object, err
		}
		m.b = m.b[4:]
	}
	if st.noOnly != nil {
		return nil, raw, st.noOnly
	}
	if size := st.only.Datatype.Size(); size > 0 && len(m.b)%size != 0 {
		return nil, raw, inference.Errorf(inference.Invalid, "a binary message has %d bytes, expected elements of %d bytes for input %q of %s", len(m.b), size, st.only.Name, st.only.Datatype)
	}
	return st.bare(m.b), raw, nil
}

// bare returns the request of a message that is nothing but the only input.
func (st *stream) bare(b []byte) *inference.Request {
	t := inference.Tensor{Value: inference.Value{Texts: []string{string(b)}}}
	if !st.only.Optional {
		return &inference.Request{Raw: true, Inputs: []inference.Tensor{t}}
	}
	// Samples of sound, which a raw request cannot be for.
	t = inference.Tensor{Name: st.only.Name, Datatype: st.only.Datatype}
	for ; len(b) >= 4; b = b[4:] {
		t.Floats = append(t.Floats, math.Float32frombits(binary.LittleEndian.Uint32(b)))
	}
	t.Dims = []int{len(t.Floats)}
	return &inference.Request{Inputs: []inference.Tensor{t}}
}

// packed returns the numbers of a list in JSON as the bytes of a tensor.
func packed(text []byte, in *inference.Info) (b []byte, err error) {
	size, kind := in.Datatype.Size(), in.Datatype.Kind()
	if size == 0 || in.Datatype == inference.FP16 || in.Datatype == inference.BF16 {
		return nil, inference.Errorf(inference.Invalid, "a list of numbers cannot be input %q, which is %s; send a binary message", in.Name, in.Datatype)
	}
	var list []json.Number
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, inference.Errorf(inference.Invalid, "expected a list of numbers or a request, which is an object: %v", err)
	}
	b = make([]byte, 0, len(list)*size)
	for i, n := range list {
		var bits uint64
		switch {
		case kind == inference.Floats:
			var x float64
			x, err = strconv.ParseFloat(string(n), 32)
			bits = uint64(math.Float32bits(float32(x)))
		case kind == inference.Doubles:
			var x float64
			x, err = strconv.ParseFloat(string(n), 64)
			bits = math.Float64bits(x)
		case in.Datatype[0] == 'U':
			bits, err = strconv.ParseUint(string(n), 10, 8*size)
		default:
			var x int64
			x, err = strconv.ParseInt(string(n), 10, 8*size)
			bits = uint64(x)
		}
		if err != nil {
			return nil, inference.Errorf(inference.Invalid, "number %d of the list is %.40q, expected one of %s", i+1, n, in.Datatype)
		}
		var all [8]byte
		binary.LittleEndian.PutUint64(all[:], bits)
		b = append(b, all[:size]...)
	}
	return b, nil
}

// answer answers requests until there are no more, and closes the connection when the
// session is over.
func (st *stream) answer() {
	stopped, given := false, int64(0)
	stop := func(why batch.Reason) {
		if !stopped {
			stopped = true
			st.cancel() // nobody waits for what is not answered
			close(st.stopped)
			st.conn.close(why)
		}
	}
	give := func(p *pending) {
		if !stopped && st.conn.write(st.reply(p)) != nil {
			stop("")
		}
		given++
		if p.stop != nil {
			p.stop()
		}
		st.bytes.Add(-p.cost)
		select {
		case st.room <- struct{}{}:
		default:
		}
	}
	for {
		select {
		case p, more := <-st.pending:
			if !more {
				return
			}
			give(p)
		case why := <-st.over:
			for last := st.taken.Load(); given < last; { // what was accepted before
				p, more := <-st.pending
				if !more {
					break
				}
				give(p)
			}
			stop(why)
		}
	}
}

// reply returns the answer of a request when it is there.
func (st *stream) reply(p *pending) message {
	m, err := st.result(p)
	if err != nil {
		fault := struct {
			Error string `json:"error"`
			ID    string `json:"id,omitempty"`
		}{Error: inference.AsError(err).Msg}
		if p.q != nil {
			fault.ID = p.q.ID
		}
		m.binary = false
		m.b, _ = json.Marshal(fault) // texts have a form
	}
	st.last.Store(int64(len(m.b)))
	return m
}

// result returns the answer of a request. A panic is its error: on this goroutine nobody else
// would catch it, and the process would end.
func (st *stream) result(p *pending) (m message, err error) {
	defer func() {
		if r := recover(); r != nil {
			st.s.log.Error("a request of a stream failed", "model", st.h.e.name, "problem", fmt.Sprint(r), "stack", string(debug.Stack()))
			err = inference.Errorf(inference.Internal, "the server failed on this request")
		}
	}()
	if p.err != nil {
		return message{}, p.err
	}
	out, err := p.wait()
	if err != nil {
		return message{}, err
	}
	began := time.Now()
	m, err = st.encode(p, out)
	st.version().encoded.Add(int64(time.Since(began)))
	return m, err
}

// encode writes an answer in the form of its request.
func (st *stream) encode(p *pending, out *inference.Response) (message, error) {
	var only *inference.Tensor
	if len(out.Outputs) == 1 && out.Outputs[0].Datatype != inference.BYTES {
		only = &out.Outputs[0]
	}
	switch {
	case p.form == numbers && only != nil:
		return message{b: appendNumbers(nil, only)}, nil
	case p.form == raw && only != nil:
		header, body, err := inference.WriteResponse(out, &inference.Request{Raw: true})
		if err != nil {
			return message{}, err
		}
		n, err := strconv.Atoi(header)
		if err != nil {
			return message{}, err
		}
		return message{binary: true, b: body[n:]}, nil
	case p.form != object:
		_, body, err := inference.WriteResponse(out, nil)
		return message{b: body}, err
	}
	header, body, err := inference.WriteResponse(out, p.q)
	switch {
	case err != nil || header == "":
		return message{b: body}, err
	case !st.conn.carries():
		return message{}, errLines
	}
	n, err := strconv.ParseUint(header, 10, 32)
	return message{binary: true, b: append(binary.LittleEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(n)), body...)}, err
}

// appendNumbers writes a tensor as a list of numbers; those that JSON does not have are null.
func appendNumbers(b []byte, t *inference.Tensor) []byte {
	b = append(b, '[')
	float := func(x float64, bits int) {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			b = append(b, "null,"...)
			return
		}
		b = append(strconv.AppendFloat(b, x, 'g', -1, bits), ',')
	}
	for _, x := range t.Floats {
		float(float64(x), 32)
	}
	for _, x := range t.Doubles {
		float(x, 64)
	}
	for _, x := range t.Ints {
		if t.Datatype == inference.UINT64 {
			b = strconv.AppendUint(b, uint64(x), 10)
		} else {
			b = strconv.AppendInt(b, x, 10)
		}
		b = append(b, ',')
	}
	if n := len(b); b[n-1] == ',' {
		b = b[:n-1]
	}
	return append(b, ']')
}

// serveSocket serves a stream as a WebSocket.
func (s *Server) serveSocket(w http.ResponseWriter, r *http.Request, l streamLimits) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		s.fail(w, r, inference.Errorf(inference.Invalid, "GET /v1/stream is for WebSockets, and the request has no \"Upgrade: websocket\"; send lines of JSON with POST"))
		return
	}
	owner := s.NewOwner()
	defer owner.End()
	st, err := s.newStream(r, owner, l)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	c, err := websocket.Accept(&refusal{ResponseWriter: w}, r, nil) // of the same origin or none
	if err != nil {
		return // it has answered
	}
	defer func() { _ = c.CloseNow() }()
	c.SetReadLimit(s.limits().Body)
	conn := newSocket(c, l)
	defer conn.stop()
	st.conn = conn
	st.run(context.WithoutCancel(r.Context()))
}

// refusal turns the errors of a handshake, which are texts, into JSON.
type refusal struct{ http.ResponseWriter }

// Unwrap is for those who look for http.Hijacker.
func (w *refusal) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *refusal) Write(text []byte) (int, error) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Del("Content-Length")
	_, err := w.ResponseWriter.Write(inference.WriteError(&inference.Error{Msg: strings.TrimSpace(string(text))}))
	return len(text), err
}

// WriteHeader writes the status with the type that Write gives the body.
func (w *refusal) WriteHeader(status int) {
	if status >= 400 {
		w.Header().Set("Content-Type", "application/json")
	}
	w.ResponseWriter.WriteHeader(status)
}

// socket is a WebSocket.
type socket struct {
	c       *websocket.Conn
	unread  time.Duration
	cut     *time.Timer  // ends a write that the client does not read
	reading atomic.Int64 // number of the read that waits; 0: none
	reads   int64
	done    chan struct{}
}

func newSocket(c *websocket.Conn, l streamLimits) *socket {
	w := &socket{c: c, unread: l.unread, done: make(chan struct{})}
	w.cut = time.AfterFunc(time.Hour, func() {
		_ = c.Close(websocket.StatusPolicyViolation, fmt.Sprintf("the client has not read its answers for %v", l.unread))
	})
	w.cut.Stop()
	go w.ping(l.ping)
	return w
}

func (w *socket) stop() {
	w.cut.Stop()
	close(w.done)
}

func (w *socket) carries() bool { return true }

func (w *socket) read() (message, error) {
	w.reads++
	w.reading.Store(w.reads)
	defer w.reading.Store(0)
	t, b, err := w.c.Read(context.Background())
	if err == nil {
		return message{binary: t == websocket.MessageBinary, b: b}, nil
	}
	return message{}, fmt.Errorf("the connection ended: %w", err) // and nobody is there for answers
}

func (w *socket) write(m message) error {
	w.cut.Reset(w.unread)
	defer w.cut.Stop()
	t := websocket.MessageText
	if m.binary {
		t = websocket.MessageBinary
	}
	return w.c.Write(context.Background(), t, m.b)
}

func (w *socket) close(why batch.Reason) {
	switch why {
	case "":
		_ = w.c.CloseNow()
	case batch.Ended:
		_ = w.c.Close(websocket.StatusNormalClosure, "the session is over: "+string(why))
	default:
		_ = w.c.Close(websocket.StatusGoingAway, "the session is over: "+string(why))
	}
}

// ping keeps a connection open that something on the way would close, and closes one whose
// client has gone without a word: one that answers no ping while nothing but the read of
// its answer goes on.
func (w *socket) ping(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var since int64
	for missed := 0; missed < 2; {
		select {
		case <-w.done:
			return
		case <-tick.C:
		}
		ctx, stop := context.WithTimeout(context.Background(), every)
		before := w.reading.Load()
		err := w.c.Ping(ctx)
		stop()
		switch {
		case err == nil || before == 0 || before != w.reading.Load():
			missed = 0
		case before != since:
			missed = 1
		default:
			missed++
		}
		since = before
	}
	_ = w.c.CloseNow()
}

// serveLines serves a stream as a request and an answer of lines of JSON.
func (s *Server) serveLines(w http.ResponseWriter, r *http.Request, l streamLimits) {
	const lines = "application/x-ndjson"
	owner := s.NewOwner()
	defer owner.End()
	var st *stream
	as, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || as != lines {
		err = inference.Errorf(inference.Invalid, "Content-Type is %.80q, expected %s: a request of JSON in each line", r.Header.Get("Content-Type"), lines)
	} else {
		st, err = s.newStream(r, owner, l)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	control := http.NewResponseController(w)
	_ = control.EnableFullDuplex() // which HTTP/2 always is
	w.Header().Set("Content-Type", lines)
	w.WriteHeader(http.StatusOK)
	_ = control.Flush()
	st.conn = &lineConn{r: bufio.NewReader(r.Body), w: w, control: control, most: s.limits().Body, unread: l.unread}
	st.run(r.Context())
	_ = control.SetWriteDeadline(time.Time{}) // the connection may go on
}

// lineConn is a request and its answer, of lines.
type lineConn struct {
	r       *bufio.Reader
	w       http.ResponseWriter
	control *http.ResponseController
	most    int64
	unread  time.Duration
}

func (c *lineConn) carries() bool { return false }

// read returns the next line that is not empty.
func (c *lineConn) read() (message, error) {
	var line []byte
	for {
		part, err := c.r.ReadSlice('\n')
		line = append(line, part...)
		if int64(len(line)) > c.most {
			return message{}, inference.Errorf(inference.TooLarge, "a line has more than %d bytes, which the server takes; send less at once", c.most)
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		if text := bytes.TrimSpace(line); len(text) > 0 && (err == nil || err == io.EOF) {
			return message{b: text}, nil
		}
		if err != nil {
			return message{}, err
		}
		line = line[:0]
	}
}

func (c *lineConn) write(m message) error {
	_ = c.control.SetWriteDeadline(time.Now().Add(c.unread))
	if _, err := c.w.Write(append(m.b, '\n')); err != nil {
		return err
	}
	return c.control.Flush()
}

func (c *lineConn) close(why batch.Reason) {
	if why != "" && why != batch.Ended {
		text, _ := json.Marshal(map[string]string{"error": "the session is over: " + string(why)}) // texts have a form
		_ = c.write(message{b: text})
	}
	_ = c.control.SetReadDeadline(time.Now()) // what the client sends is not read any more
}
