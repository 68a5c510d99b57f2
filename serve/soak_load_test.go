package serve_test

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"crypto/tls"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/carousel-ml/carousel/model/onnx/graph"
	"github.com/carousel-ml/carousel/serve/batch"
	"github.com/carousel-ml/carousel/serve/inference"
	pb "github.com/carousel-ml/carousel/serve/inferencepb"
	"github.com/carousel-ml/carousel/task"
)

// conns are the connections of a client, which it can reset.
type conns struct {
	mu   sync.Mutex
	open map[*tracked]struct{}
}

type tracked struct {
	*net.TCPConn
	in *conns
}

func (t *tracked) Close() error {
	t.in.mu.Lock()
	delete(t.in.open, t)
	t.in.mu.Unlock()
	return t.TCPConn.Close()
}

func (c *conns) dial(ctx context.Context, addr string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	t := &tracked{conn.(*net.TCPConn), c}
	c.mu.Lock()
	c.open[t] = struct{}{}
	c.mu.Unlock()
	return t, nil
}

// reset ends all connections as a process does that is killed with unread input: by RST.
func (c *conns) reset() {
	c.mu.Lock()
	list := make([]*tracked, 0, len(c.open))
	for t := range c.open {
		list = append(list, t)
	}
	c.mu.Unlock()
	for _, t := range list {
		_ = t.SetLinger(0)
		_ = t.Close()
	}
}

// client is a client with connections of its own.
type client struct {
	s     *soak
	token string
	r     *rand.Rand
	conns conns
	web   *http.Transport // HTTP/2 for some clients
	web1  *http.Transport // HTTP/1.1, for streams
	rpc   *grpc.ClientConn
}

func (s *soak) newClient(token string, seed uint64) *client {
	s.mu.Lock()
	secret := s.secrets[token]
	s.mu.Unlock()
	c := &client{s: s, token: secret, r: rand.New(rand.NewPCG(seed, 5)), conns: conns{open: map[*tracked]struct{}{}}}
	dial := func(ctx context.Context, _, addr string) (net.Conn, error) { return c.conns.dial(ctx, addr) }
	c.web1 = &http.Transport{DialContext: dial, TLSClientConfig: s.tls()}
	c.web = &http.Transport{DialContext: dial, TLSClientConfig: s.tls(), ForceAttemptHTTP2: seed%3 == 0}
	return c
}

func (c *client) close() {
	c.web.CloseIdleConnections()
	c.web1.CloseIdleConnections()
	if c.rpc != nil {
		_ = c.rpc.Close()
	}
	c.conns.reset()
}

// renewed drops the connection of gRPC, which would wait before it dials again after a cut.
func (c *client) renewed() {
	if c.rpc != nil {
		_ = c.rpc.Close()
		c.rpc = nil
	}
}

func (c *client) calls() pb.GRPCInferenceServiceClient {
	if c.rpc == nil {
		var err error
		c.rpc, err = grpc.NewClient("passthrough:///"+c.s.grpc, grpc.WithTransportCredentials(credentials.NewTLS(c.s.tls())),
			grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return c.conns.dial(ctx, addr) }))
		c.s.must(err)
	}
	return pb.NewGRPCInferenceServiceClient(c.rpc)
}

func (c *client) context(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.token)
}

// send sends a request over HTTP and reads the whole answer. headers are names and values.
func (c *client) send(ctx context.Context, method, path string, body []byte, headers ...string) (int, http.Header, []byte, error) {
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	r, err := http.NewRequestWithContext(ctx, method, "https://"+c.s.http+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	out, err := c.web.RoundTrip(r)
	if err != nil {
		return 0, nil, nil, err
	}
	defer out.Body.Close()
	b, err := io.ReadAll(out.Body)
	if err != nil {
		return 0, nil, nil, err
	}
	return out.StatusCode, out.Header, b, nil
}

// statedHTTP reads an error of HTTP: JSON with the key error, whoever found it.
func (s *soak) statedHTTP(code int, h http.Header, body []byte) *inference.Error {
	var e struct {
		Error string `json:"error"`
	}
	if err := json.Unmarshal(body, &e); err != nil || e.Error == "" || !strings.HasPrefix(h.Get("Content-Type"), "application/json") {
		s.fault("an error is not stated: %d %s %.300q", code, h.Get("Content-Type"), body)
	}
	if code == http.StatusTooManyRequests && h.Get("Retry-After") == "" {
		s.fault("429 without Retry-After: %s", e.Error)
	}
	return inference.ReadError(code, body)
}

// codesOfRPC are the classes of gRPC's codes; RESOURCE_EXHAUSTED may be either of two.
var codesOfRPC = map[codes.Code]inference.Code{codes.InvalidArgument: inference.Invalid, codes.NotFound: inference.NotFound, codes.Unavailable: inference.Unavailable,
	codes.Unimplemented: inference.Unsupported, codes.AlreadyExists: inference.Exists, codes.Canceled: inference.Canceled, codes.DeadlineExceeded: inference.Deadline,
	codes.ResourceExhausted: inference.Exhausted, codes.PermissionDenied: inference.Denied, codes.Unauthenticated: inference.Unknown}

func statedRPC(err error) *inference.Error {
	code, ok := codesOfRPC[status.Code(err)]
	if !ok {
		code = inference.Internal
	}
	return &inference.Error{Code: code, Msg: status.Convert(err).Message()}
}

// door is a way to send a request of the protocol.
type door int

const (
	restJSON door = iota
	restBinary
	rpcRaw
	rpcContents
)

var doorNames = [...]string{"REST JSON", "REST binary", "gRPC raw", "gRPC contents"}

// infer sends a request through a door. path is that of REST, empty for the usual one. The
// error is that of the connection.
func (c *client) infer(ctx context.Context, d door, q *inference.Request, path string) (*inference.Response, *inference.Error, error) {
	if d >= rpcRaw {
		m, err := q.ToProto(d == rpcRaw)
		c.s.must(err)
		ctx, stop := context.WithTimeout(c.context(ctx), time.Minute)
		defer stop()
		out, err := c.calls().ModelInfer(ctx, m)
		if err != nil {
			return nil, statedRPC(err), nil
		}
		r, err := inference.ResponseFromProto(out)
		if err != nil {
			c.s.fault("an answer of gRPC cannot be read: %v", err)
			return nil, nil, err
		}
		return r, nil, nil
	}
	header, body, err := inference.WriteRequest(q, d == restBinary)
	c.s.must(err)
	var headers []string
	if header != "" {
		headers = []string{inference.HeaderLength, header}
	}
	code, h, answer, err := c.send(ctx, http.MethodPost, cmp.Or(path, "/v2/models/"+url.PathEscape(q.Model)+"/infer"), body, headers...)
	if err != nil {
		return nil, nil, err
	}
	if code != http.StatusOK {
		return nil, c.s.statedHTTP(code, h, answer), nil
	}
	r, err := inference.ReadResponse(h.Get(inference.HeaderLength), answer)
	if err != nil {
		c.s.fault("an answer cannot be read: %v: %.300q", err, answer)
		return nil, nil, err
	}
	return r, nil, nil
}

// frames is an input of rows of some steps.
func (c *client) frames(rows, steps, width int) inference.Tensor {
	t := inference.Tensor{Name: "x", Datatype: inference.FP32, Value: inference.Value{Dims: []int{rows, steps, width}, Floats: make([]float32, rows*steps*width)}}
	for i := range t.Floats {
		t.Floats[i] = float32(c.r.NormFloat64())
	}
	return t
}

// valueOf returns a graph's output as the protocol has it.
func valueOf(v graph.Value) inference.Value {
	return inference.Value{Dims: slices.Clone(v.Dims), Floats: slices.Clone(v.Data), Ints: slices.Clone(v.Ints)}
}

// wrongIn says how an answer differs from what is wanted; "" if it does not, in any bit.
func wrongIn(out *inference.Response, want map[string]inference.Value) string {
	if len(out.Outputs) != len(want) {
		return fmt.Sprintf("%d outputs, want %d", len(out.Outputs), len(want))
	}
	for i := range out.Outputs {
		o := &out.Outputs[i]
		w, ok := want[o.Name]
		if !ok {
			return "output " + o.Name + " was not asked for"
		}
		if !slices.Equal(o.Dims, w.Dims) {
			return fmt.Sprintf("output %s has the shape %v, want %v", o.Name, o.Dims, w.Dims)
		}
		if !sameFloats(o.Floats, w.Floats) || !slices.Equal(o.Ints, w.Ints) || !slices.Equal(o.Texts, w.Texts) ||
			!slices.EqualFunc(o.Doubles, w.Doubles, func(x, y float64) bool { return math.Float64bits(x) == math.Float64bits(y) }) {
			return fmt.Sprintf("output %s is %.200v, want %.200v", o.Name, o.Value, w)
		}
	}
	return ""
}

func sameFloats(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}

// stateless computes the output y of a graph without a state, one row at a time.
func (s *soak) stateless(m *graph.Model, x *inference.Tensor) (map[string]inference.Value, error) {
	rows, size := x.Dims[0], x.Len()/x.Dims[0]
	var all inference.Value
	for row := range rows {
		out, err := m.Run(map[string]graph.Value{"x": graph.Floats(x.Floats[row*size:][:size], 1, x.Dims[1], x.Dims[2])})
		if err != nil {
			return nil, err
		}
		y := out["y"]
		all.Floats = append(all.Floats, y.Data...)
		all.Dims = append([]int{rows}, y.Dims[1:]...)
	}
	return map[string]inference.Value{"y": all}, nil
}

// twin computes in this process what a session answers.
type twin struct {
	s       *soak
	model   string
	m       *graph.Model
	session *graph.Session
	head    *graph.Model // of a pipeline
	stream  task.Stream  // of a task
	options any
	steps   uint64 // as the server counts them
}

func (s *soak) newTwin(model, version string) (*twin, error) {
	w := &twin{s: s, model: model}
	var err error
	name := model
	switch model {
	case "demand":
		service, err := s.demand.Service()
		if err != nil {
			return nil, err
		}
		w.stream = service.NewStream()
		w.options, err = s.demand.Options(nil, func(any) error { return nil })
		return w, err
	case "chain":
		name, version = "states", "1"
		if w.head, err = s.graph("head", "1"); err != nil {
			return nil, err
		}
	}
	if w.m, err = s.graph(name, version); err == nil {
		w.session, err = w.m.NewSession(graph.SessionOptions{})
	}
	return w, err
}

// copied returns a twin that goes on from the same state, or nil if there is none.
func (w *twin) copied() *twin {
	if w.m == nil || w.head != nil || w.steps == 0 {
		return nil
	}
	c := *w
	var err error
	c.session, err = w.m.NewSession(graph.SessionOptions{})
	w.s.must(err)
	state := w.session.State()
	for name, v := range state { // which the next step overwrites
		state[name] = graph.Value{Dims: slices.Clone(v.Dims), Data: slices.Clone(v.Data)}
	}
	w.s.must(c.session.SetState(state))
	return &c
}

// step computes the answer to the next inputs.
func (w *twin) step(in []inference.Tensor) (map[string]inference.Value, error) {
	w.steps++
	if w.stream != nil {
		p := &task.Portion{Options: w.options}
		for i := range in {
			p.Table = append(p.Table, task.Column{Name: in[i].Name, Texts: in[i].Texts, Numbers: in[i].Doubles})
		}
		prediction, err := w.stream.Feed(context.Background(), p)
		if err != nil {
			return nil, err
		}
		text, err := w.s.demand.Kind.JSON(prediction)
		return map[string]inference.Value{"json": {Dims: []int{1}, Texts: []string{string(text)}}}, err
	}
	x := &in[0]
	out, err := w.session.Step(map[string]graph.Value{"x": graph.Floats(slices.Clone(x.Floats), x.Dims...)})
	if err != nil {
		return nil, err
	}
	y := graph.Value{Dims: slices.Clone(out["y"].Dims), Data: slices.Clone(out["y"].Data)}
	if w.head != nil {
		if out, err = w.head.Run(map[string]graph.Value{"x": y}); err != nil {
			return nil, err
		}
		all := map[string]inference.Value{}
		for name, v := range out {
			if name == "y" { // the others are states
				all[name] = valueOf(v)
			}
		}
		return all, nil
	}
	return map[string]inference.Value{"y": valueOf(y)}, nil
}

// load starts clients of all kinds.
func (s *soak) load(ctx context.Context, done *sync.WaitGroup) {
	seed := uint64(0)
	begin := func(n int, token string, f func(*client, context.Context)) {
		for i := range n {
			seed++
			name := token
			if token == "load" {
				name += strconv.Itoa(i % 4)
			}
			c := s.newClient(name, seed)
			done.Go(func() {
				defer c.close()
				f(c, ctx)
			})
		}
	}
	begin(6, "load", (*client).whole)
	begin(3, "load", (*client).tasks)
	begin(10, "load", (*client).sessions)
	begin(4, "load", (*client).sockets)
	begin(3, "load", (*client).lines)
	begin(4, "load", (*client).calling)
	begin(3, "load", (*client).attacks)
	begin(1, "load", (*client).floods)
	begin(1, "other", (*client).crowds)
	begin(1, "load", (*client).stalls)
	begin(1, "boss", (*client).renewals)
	begin(1, "boss", (*client).loads)
	begin(1, "boss", (*client).expiries)
}

// cutSoon resets the client's connections in a moment.
func (c *client) cutSoon() (stop func() bool) {
	return time.AfterFunc(time.Duration(c.r.IntN(3000))*time.Microsecond, c.conns.reset).Stop
}

// whole sends requests without a session, of models whose versions change and of others.
func (c *client) whole(ctx context.Context) {
	for c.s.slot(ctx) {
		model := []string{"plain", "plain", "mean", "words", "flaky"}[c.r.IntN(5)]
		d := door(c.r.IntN(4))
		q := &inference.Request{Model: model, ID: marked + strconv.Itoa(c.r.IntN(1e6))}
		if model == "words" {
			text := fmt.Sprintf("%s a %s film %d", marked, []string{"good", "bad", "new"}[c.r.IntN(3)], c.r.IntN(50))
			q.Inputs = []inference.Tensor{{Name: "text", Datatype: inference.BYTES, Value: inference.Value{Dims: []int{1}, Texts: []string{text}}}}
		} else {
			q.Inputs = []inference.Tensor{c.frames(1+c.r.IntN(3), []int{1, 2, 5, 30}[c.r.IntN(4)], soakWidth)}
			q.Outputs = []inference.Output{{Name: "y"}}
		}
		kind, began, cut := doorNames[d]+" whole", time.Now(), c.r.IntN(40) == 0
		c.s.mu.Lock()
		least := c.s.served[model]
		c.s.mu.Unlock()
		stop := func() bool { return true }
		if cut {
			stop = c.cutSoon()
		}
		out, stated, err := c.infer(ctx, d, q, "")
		if cut && !stop() {
			c.renewed()
		}
		switch {
		case out == nil && (cut || ctx.Err() != nil):
			c.s.count(kind, began, "cut")
			continue
		case err != nil:
			c.s.fault("%s to %s: %v", kind, model, err)
			continue
		case stated != nil:
			if stated.Code != inference.Exhausted && !(stated.Code == inference.Unavailable && model == "flaky") {
				c.s.fault("%s to %s: %s: %s", kind, model, word(stated.Code), stated.Msg)
			}
			c.s.count(kind, began, word(stated.Code))
			continue
		}
		c.s.count(kind, began, "")
		var want map[string]inference.Value
		if model == "words" {
			want, err = c.s.classified(q.Inputs[0].Texts[0])
		} else {
			var m *graph.Model
			if m, err = c.s.graph(model, out.Version); err == nil {
				want, err = c.s.stateless(m, &q.Inputs[0])
			}
		}
		if err != nil {
			c.s.fault("%s to %s: %v", kind, model, err)
			continue
		}
		if wrong := wrongIn(out, want); wrong != "" || out.ID != q.ID {
			c.s.fault("%s to %s: id %q for %q: %s", kind, model, out.ID, q.ID, wrong)
		}
		if n, _ := strconv.Atoi(out.Version); n < least {
			c.s.fault("%s to %s: version %d answered after version %d was served", kind, model, n, least)
		}
	}
}

// classified computes the answer for a text.
func (s *soak) classified(text string) (map[string]inference.Value, error) {
	service, err := s.words.Service()
	if err != nil {
		return nil, err
	}
	o, err := s.words.Options(nil, func(any) error { return nil })
	if err != nil {
		return nil, err
	}
	p, err := s.words.Predict(context.Background(), task.Input{Texts: []string{text}}, o)
	if err != nil {
		return nil, err
	}
	want := map[string]inference.Value{}
	for _, out := range service.Outputs {
		v := inference.Value{Dims: []int{1}}
		if out.Texts != nil {
			v.Texts = out.Texts(p)
		} else {
			v.Doubles = out.Numbers(p)
		}
		if out.Labels != nil {
			v.Dims = append(v.Dims, len(out.Labels))
		}
		want[out.Name] = v
	}
	each, _ := task.Elements(p)
	one, err := each(0)
	want["json"] = inference.Value{Dims: []int{1}, Texts: []string{one}}
	return want, err
}

// tasks sends requests in the tasks' own forms; some of their answers are cut.
func (c *client) tasks(ctx context.Context) {
	in, err := os.ReadFile(filepath.Join("..", "testdata", "format1", "forecast", "in.csv"))
	c.s.must(err)
	all := strings.SplitAfter(strings.TrimSpace(string(in)), "\n")
	want := map[string]string{}
	for c.s.slot(ctx) {
		path, body := "/v1/classify", map[string]any{}
		var input task.Input
		m := c.s.words
		if c.r.IntN(3) > 0 {
			text := fmt.Sprintf("%s a good film, film %d", marked, c.r.IntN(20))
			body["text"], input.Texts = text, []string{text}
		} else {
			m, path = c.s.demand, "/v1/forecast"
			csv := strings.Join(all[:120+c.r.IntN(8)], "")
			body["csv"], input.Stream = csv, strings.NewReader(csv)
		}
		text, _ := json.Marshal(body)
		if want[string(text)] == "" {
			o, err := m.Options(nil, func(any) error { return nil })
			c.s.must(err)
			b, err := m.PredictJSON(context.Background(), input, o)
			c.s.must(err)
			want[string(text)] = string(b)
		}
		began, cut := time.Now(), c.r.IntN(40) == 0
		stop := func() bool { return true }
		if cut {
			stop = c.cutSoon()
		}
		code, h, answer, err := c.send(ctx, http.MethodPost, path, text)
		stop()
		switch {
		case err != nil && (cut || ctx.Err() != nil):
			c.s.count("task JSON", began, "cut")
		case err != nil:
			c.s.fault("%s: %v", path, err)
		case code != http.StatusOK:
			e := c.s.statedHTTP(code, h, answer)
			if e.Code != inference.Exhausted {
				c.s.fault("%s: %s", path, e.Msg)
			}
			c.s.count("task JSON", began, word(e.Code))
		default:
			c.s.count("task JSON", began, "")
			if got := strings.TrimSpace(string(answer)); got != want[string(text)] {
				c.s.fault("%s: got %.300s, want %.300s", path, got, want[string(text)])
			}
		}
	}
}

// kept is a session as its client knows it.
type kept struct {
	id, model string
	door      door
	named     bool // it was opened with /v1/sessions
	begun     bool
	twin      *twin // nil before the first answer, which says the version
	hours     int   // of the rows sent to a forecast

	in     []inference.Tensor // that were sent last and not answered
	ending bool               // and the session ends with them
}

// sessionKind is what the table calls it.
func (k *kept) kind() string {
	if k.named {
		return "session " + []string{"JSON", "binary"}[k.door]
	}
	return "sequence " + doorNames[k.door]
}

var sessionIDs atomic.Int64

// open makes a session of a random kind.
func (c *client) open(models ...string) *kept {
	k := &kept{id: fmt.Sprintf("%s-%d", marked, sessionIDs.Add(1)), model: models[c.r.IntN(len(models))], door: door(c.r.IntN(4))}
	if k.named = c.r.IntN(3) == 0; k.named {
		k.door %= 2
	}
	return k
}

// inputs makes the next inputs of a session.
func (c *client) inputs(k *kept) []inference.Tensor {
	if k.model != "demand" {
		return []inference.Tensor{c.frames(1, 1+c.r.IntN(3), soakWidth)}
	}
	rows := 1
	if k.hours == 0 {
		rows = 60
	}
	service, err := c.s.demand.Service()
	c.s.must(err)
	var list []inference.Tensor
	for _, column := range service.Columns {
		t := inference.Tensor{Name: column.Name, Datatype: inference.BYTES, Value: inference.Value{Dims: []int{rows}}}
		for i := range rows {
			if column.Number {
				t.Datatype = inference.FP64
				t.Doubles = append(t.Doubles, 10+c.r.NormFloat64())
			} else {
				t.Texts = append(t.Texts, time.Date(2024, 1, 1, k.hours+i, 0, 0, 0, time.UTC).Format("2006-01-02T15:04:05"))
			}
		}
		list = append(list, t)
	}
	return list
}

// over reports whether an error says that the server ended a session for a reason that
// happens in this test.
func over(e *inference.Error) bool {
	return (e.Code == inference.NotFound || e.Code == inference.Invalid) &&
		(strings.Contains(e.Msg, string(batch.Evicted)) || strings.Contains(e.Msg, string(batch.Idle)))
}

// step sends the next inputs of a session and compares the answer. It returns false if the
// session is over. cut resets the connection meanwhile.
func (c *client) step(ctx context.Context, k *kept, cut bool) bool {
	s := c.s
	began := time.Now()
	if k.named && !k.begun {
		body, _ := json.Marshal(map[string]any{"model": k.model, "id": k.id, "ttl_seconds": 20})
		code, h, answer, err := c.send(ctx, http.MethodPost, "/v1/sessions", body)
		switch {
		case err != nil && ctx.Err() == nil:
			s.fault("opening a session: %v", err)
			return false
		case err != nil:
			return false
		case code == http.StatusCreated:
			k.begun = true
			s.count("session open", began, "")
		default:
			e := s.statedHTTP(code, h, answer)
			if e.Code != inference.Exhausted {
				s.fault("opening a session: %s", e.Msg)
			}
			s.count("session open", began, word(e.Code))
			return false
		}
	}
	q := &inference.Request{Model: k.model, ID: k.id, Params: inference.Params{}}
	path := ""
	if k.named {
		path = "/v1/sessions/" + k.id + "/infer?model=" + k.model
	} else {
		q.Params["sequence_id"] = k.id
		if !k.begun {
			q.Params["sequence_start"] = true
		}
	}
	k.in, k.ending = c.inputs(k), k.begun && k.model != "demand" && c.r.IntN(30) == 0
	if k.ending {
		q.Params["sequence_end"] = true
	}
	q.Inputs = k.in
	if k.model == "demand" {
		q.Outputs = []inference.Output{{Name: "json"}}
	}
	stop := func() bool { return true }
	if cut {
		stop = c.cutSoon()
	}
	out, stated, err := c.infer(ctx, k.door, q, path)
	if cut && !stop() {
		c.renewed()
	}
	kind := k.kind()
	switch {
	case out == nil && cut && (err != nil || stated.Code == inference.Unavailable || stated.Code == inference.Canceled):
		s.count(kind, began, "cut")
		return k.begun && k.twin != nil && c.resync(ctx, k)
	case out == nil && ctx.Err() != nil:
		return false
	case err != nil:
		s.fault("%s of %s: %v", kind, k.model, err)
		return false
	case stated != nil:
		s.count(kind, began, word(stated.Code))
		switch {
		case stated.Code == inference.Exhausted: // the state is as it was
			return k.begun
		case !over(stated):
			s.fault("%s of %s, step %d: %s: %s", kind, k.model, k.count(), word(stated.Code), stated.Msg)
		}
		return false
	}
	s.count(kind, began, "")
	k.begun = true
	if out.ID != q.ID {
		s.fault("%s: the answer to %q came for %q", kind, out.ID, q.ID)
	}
	return c.compare(k, out) && !k.ending
}

func (k *kept) count() uint64 {
	if k.twin == nil {
		return 0
	}
	return k.twin.steps
}

// compare takes the step of the twin and compares its answer.
func (c *client) compare(k *kept, out *inference.Response) bool {
	var err error
	if k.twin == nil {
		if k.twin, err = c.s.newTwin(k.model, out.Version); err != nil {
			c.s.fault("session of %s: %v", k.model, err)
			return false
		}
	}
	want, err := k.advance()
	if err != nil {
		c.s.fault("session of %s: %v", k.model, err)
		return false
	}
	if wrong := wrongIn(out, want); wrong != "" {
		c.s.fault("%s of %s version %s, step %d: %s", k.kind(), k.model, out.Version, k.twin.steps, wrong)
		return false
	}
	return true
}

// advance takes the step of the twin for the inputs that were sent last.
func (k *kept) advance() (map[string]inference.Value, error) {
	k.hours += k.in[0].Dims[0]
	return k.twin.step(k.in)
}

// resync finds out whether a request that was cut was computed. It returns false if that
// cannot be known, or the session is over.
func (c *client) resync(ctx context.Context, k *kept) bool {
	if k.model == "chain" { // whose parts may differ
		return false
	}
	time.Sleep(400 * time.Millisecond) // until the server has noticed
	saved := c.saved(ctx, k)
	if saved == nil {
		return false
	}
	return c.agree(k, saved.Steps)
}

// agree brings the twin to the server's number of steps, which may be one ahead.
func (c *client) agree(k *kept, steps uint64) bool {
	switch {
	case steps == k.twin.steps:
		return true
	case steps == k.twin.steps+1 && k.in != nil:
		if _, err := k.advance(); err != nil {
			c.s.fault("session of %s: %v", k.model, err)
			return false
		}
		return true
	}
	c.s.fault("session of %s: the server has %d steps, the client %d", k.model, steps, k.twin.steps)
	return false
}

// saved returns the state of a session as bytes tell it; nil if it is over.
func (c *client) saved(ctx context.Context, k *kept) *batch.Saved {
	began := time.Now()
	code, h, b, err := c.send(ctx, http.MethodGet, "/v1/sessions/"+k.id+"/state?model="+k.model, nil)
	switch {
	case err != nil:
		if ctx.Err() == nil {
			c.s.fault("saving a session: %v", err)
		}
		return nil
	case code != http.StatusOK:
		e := c.s.statedHTTP(code, h, b)
		if !over(e) && !(k.ending && e.Code == inference.NotFound) && e.Code != inference.Exhausted {
			c.s.fault("saving a session of %s: %s", k.model, e.Msg)
		}
		c.s.count("session save", began, word(e.Code))
		return nil
	}
	c.s.count("session save", began, "")
	saved, err := batch.ReadSaved(b)
	if err != nil {
		c.s.fault("saving a session: %v", err)
		return nil
	}
	if c.r.IntN(2) == 0 && k.twin != nil {
		c.restored(ctx, k, saved, b)
	}
	return saved
}

// restored opens a copy of a session from its bytes, whole or damaged, and goes on in it.
func (c *client) restored(ctx context.Context, k *kept, saved *batch.Saved, b []byte) {
	n := &kept{id: k.id + "-copy", model: k.model, named: true, begun: true, twin: k.twin.copied(), hours: k.hours}
	damaged := c.r.IntN(3) == 0
	if n.twin == nil || saved.Steps != k.twin.steps {
		return
	}
	if damaged {
		b[c.r.IntN(len(b))] ^= 1 << c.r.IntN(8)
	}
	began := time.Now()
	code, h, answer, err := c.send(ctx, http.MethodPut, "/v1/sessions/"+n.id+"/state?ttl_seconds=5&model="+k.model, b)
	switch {
	case err != nil && ctx.Err() == nil:
		c.s.fault("restoring a session: %v", err)
	case err != nil:
	case code == http.StatusCreated && damaged:
		c.s.fault("a damaged session was restored")
	case code == http.StatusCreated:
		c.s.count("session restore", began, "")
		for range 3 {
			if !c.step(ctx, n, false) {
				return
			}
		}
		c.drop(ctx, n)
	default:
		e := c.s.statedHTTP(code, h, answer)
		if e.Code != inference.Exhausted && !(e.Code == inference.Invalid && (damaged || k.model == "step")) { // whose version may be gone
			c.s.fault("restoring a session of %s: %s", k.model, e.Msg)
		}
		c.s.count("session restore", began, word(e.Code))
	}
}

// drop ends a session.
func (c *client) drop(ctx context.Context, k *kept) {
	began := time.Now()
	code, h, b, err := c.send(ctx, http.MethodDelete, "/v1/sessions/"+k.id+"?model="+k.model, nil)
	switch {
	case err != nil:
	case code == http.StatusNoContent:
		c.s.count("session end", began, "")
	default:
		e := c.s.statedHTTP(code, h, b)
		if !over(e) {
			c.s.fault("ending a session of %s: %s", k.model, e.Msg)
		}
		c.s.count("session end", began, word(e.Code))
	}
}

// sessions keeps a few sessions of all kinds, and steps a random one.
func (c *client) sessions(ctx context.Context) {
	list := make([]*kept, 4)
	stranger := c.s.newClient("other", c.r.Uint64())
	defer stranger.close()
	for c.s.slot(ctx) {
		i := c.r.IntN(len(list))
		if list[i] == nil {
			list[i] = c.open("step", "step", "states", "chain", "demand")
		}
		k := list[i]
		switch n := c.r.IntN(200); {
		case n < 3 && k.twin != nil && k.model != "chain":
			if saved := c.saved(ctx, k); saved == nil || !c.agree(k, saved.Steps) {
				list[i] = nil
			}
			continue
		case n == 3: // it is left to its time to live
			list[i] = nil
			continue
		case n == 4 && k.begun:
			c.drop(ctx, k)
			list[i] = nil
			continue
		case n < 8 && k.begun:
			stranger.steal(ctx, k)
			continue
		}
		if !c.step(ctx, k, c.r.IntN(60) == 0) {
			list[i] = nil
		}
	}
}

// steal tries to use another client's session.
func (c *client) steal(ctx context.Context, k *kept) {
	began := time.Now()
	x := []inference.Tensor{c.frames(1, 1, soakWidth)}
	if k.model == "demand" {
		x = c.inputs(k)
	}
	_, stated, err := c.infer(ctx, k.door, &inference.Request{Model: k.model, Params: inference.Params{"sequence_id": k.id}, Inputs: x}, "")
	switch {
	case err != nil || stated != nil && ctx.Err() != nil:
	case stated == nil:
		c.s.fault("a stranger was answered from the session of another client")
	case stated.Code != inference.Denied && !over(stated):
		c.s.fault("a stranger was told: %s: %s", word(stated.Code), stated.Msg)
	default:
		c.s.count("stranger's session", began, word(stated.Code))
	}
}

// message is what a stream of messages was sent, and awaits an answer for.
type message struct {
	wrong  bool // it is answered by an error
	object bool // it is a request of the protocol, and so is the answer
	list   bool
	x      inference.Tensor
	began  time.Time
}

// talk is a stream of messages, WebSocket or lines of JSON.
type talk struct {
	send    func(m *message, b []byte) error
	receive func() (b []byte, err error)
	kind    string
	timed   bool // each answer is waited for before the next message, so that its time says something
	twin    *twin
	wait    []*message
}

// say sends a message of a random form; the first is an object, whose answer tells the version.
func (c *client) say(t *talk, model string, first, raw bool) error {
	m := &message{x: c.frames(1, 1+c.r.IntN(3), soakWidth)}
	if t.timed {
		m.began = time.Now()
	}
	var b []byte
	switch n := c.r.IntN(20); {
	case first || n < 4:
		m.object = true
		_, b, _ = inference.WriteRequest(&inference.Request{Inputs: []inference.Tensor{m.x}}, false)
	case n == 4:
		m.wrong, m.list = true, true
		b = []byte([]string{`[1,2,"` + marked + `"]`, `[1,2,3]`, `{"inputs":[{"name":"` + marked + `"}]}`, marked, `[`}[c.r.IntN(5)])
	case n < 10 || !raw:
		m.list = true
		b, _ = json.Marshal(m.x.Floats)
	default:
		for _, x := range m.x.Floats {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
		}
	}
	t.wait = append(t.wait, m)
	return t.send(m, b)
}

// hear receives the answer of the message that has waited longest, and compares it.
func (c *client) hear(t *talk, model string) error {
	b, err := t.receive()
	if err != nil {
		return err
	}
	m := t.wait[0]
	t.wait = t.wait[1:]
	var e struct{ Error string }
	if (m.object || m.list) && json.Unmarshal(b, &e) == nil && e.Error != "" {
		if !m.wrong {
			c.s.fault("%s: %s", t.kind, e.Error)
			return errors.New(e.Error)
		}
		c.s.count(t.kind, m.began, "invalid")
		return nil
	}
	if m.wrong {
		c.s.fault("%s: a wrong message was answered by %.200q", t.kind, b)
		return nil
	}
	var got []float32
	switch {
	case m.object:
		out, err := inference.ReadResponse("", b)
		if err != nil {
			c.s.fault("%s: %v", t.kind, err)
			return err
		}
		if t.twin == nil {
			if t.twin, err = c.s.newTwin(model, out.Version); err != nil {
				c.s.fault("%s: %v", t.kind, err)
				return err
			}
		}
		got = out.Outputs[0].Floats
	case m.list:
		if err := json.Unmarshal(b, &got); err != nil {
			c.s.fault("%s: %v", t.kind, err)
			return err
		}
	default:
		for ; len(b) >= 4; b = b[4:] {
			got = append(got, math.Float32frombits(binary.LittleEndian.Uint32(b)))
		}
	}
	want, err := t.twin.step([]inference.Tensor{m.x})
	if err != nil {
		c.s.fault("%s: %v", t.kind, err)
		return err
	}
	if !sameFloats(got, want["y"].Floats) {
		c.s.fault("%s of %s, step %d: got %.200v, want %.200v", t.kind, model, t.twin.steps, got, want["y"].Floats)
		return errors.New("a wrong answer")
	}
	c.s.count(t.kind, m.began, "")
	return nil
}

// converse sends messages, up to some ahead of their answers. It returns errCut if the
// client is to cut the connection.
func (c *client) converse(ctx context.Context, t *talk, model string, raw bool) error {
	most, ahead, cut := 1+c.r.IntN(40), 1+c.r.IntN(8), c.r.IntN(4) == 0
	t.timed = ahead == 1
	for i := 0; i < most && c.s.slot(ctx); i++ {
		if err := c.say(t, model, i == 0, raw); err != nil {
			return err
		}
		for i == 0 && len(t.wait) > 0 || len(t.wait) >= ahead {
			if err := c.hear(t, model); err != nil {
				return err
			}
		}
	}
	if cut {
		for range t.wait {
			c.s.count(t.kind, time.Now(), "cut")
		}
		return errCut
	}
	for len(t.wait) > 0 {
		if err := c.hear(t, model); err != nil {
			return err
		}
	}
	return nil
}

func (c *client) bearer() http.Header {
	return http.Header{"Authorization": {"Bearer " + c.token}}
}

// socket opens a WebSocket; nil if it was refused, for one of the reasons that may be.
func (c *client) socket(ctx context.Context, query string, may ...inference.Code) *websocket.Conn {
	w, r, err := websocket.Dial(ctx, "wss://"+c.s.http+"/v1/stream?"+query, &websocket.DialOptions{HTTPClient: &http.Client{Transport: c.web1}, HTTPHeader: c.bearer()})
	if err == nil {
		w.SetReadLimit(64 << 20)
		return w
	}
	if ctx.Err() != nil {
		return nil
	}
	if r == nil {
		c.s.fault("opening a WebSocket: %v", err)
		return nil
	}
	b, _ := io.ReadAll(r.Body)
	e := c.s.statedHTTP(r.StatusCode, r.Header, b)
	if !slices.Contains(may, e.Code) {
		c.s.fault("opening a WebSocket: %s", e.Msg)
	}
	c.s.count("WebSocket", time.Now(), word(e.Code))
	return nil
}

// sockets talks over WebSockets, which end in all ways there are.
func (c *client) sockets(ctx context.Context) {
	own := context.WithoutCancel(ctx)
	for c.s.slot(ctx) {
		model := []string{"step", "states"}[c.r.IntN(2)]
		w := c.socket(ctx, "model="+model, inference.Exhausted)
		if w == nil {
			continue
		}
		t := &talk{kind: "WebSocket"}
		t.send = func(m *message, b []byte) error {
			kind := websocket.MessageBinary
			if m.object || m.list {
				kind = websocket.MessageText
			}
			return w.Write(own, kind, b)
		}
		t.receive = func() ([]byte, error) {
			late, stop := context.WithTimeout(own, time.Minute)
			defer stop()
			_, b, err := w.Read(late)
			return b, err
		}
		err := c.converse(ctx, t, model, true)
		switch {
		case err == nil:
			if c.r.IntN(2) == 0 {
				_ = w.Close(websocket.StatusNormalClosure, "")
			}
		case err == errCut && c.r.IntN(2) == 0:
			c.conns.reset()
		case err != errCut:
			c.s.fault("WebSocket to %s: %v", model, err)
		}
		_ = w.CloseNow()
	}
}

// lines talks in lines of JSON over HTTP.
func (c *client) lines(ctx context.Context) {
	for c.s.slot(ctx) {
		model := []string{"step", "states"}[c.r.IntN(2)]
		from, to := io.Pipe()
		own, stop := context.WithCancel(context.WithoutCancel(ctx))
		r, err := http.NewRequestWithContext(own, http.MethodPost, "https://"+c.s.http+"/v1/stream?model="+model, from)
		c.s.must(err)
		r.Header = c.bearer()
		r.Header.Set("Content-Type", "application/x-ndjson")
		out, err := c.web1.RoundTrip(r)
		if err != nil {
			if ctx.Err() == nil {
				c.s.fault("opening a stream of lines: %v", err)
			}
			stop()
			continue
		}
		if out.StatusCode != http.StatusOK {
			b, _ := io.ReadAll(out.Body)
			if e := c.s.statedHTTP(out.StatusCode, out.Header, b); e.Code != inference.Exhausted {
				c.s.fault("opening a stream of lines: %s", e.Msg)
			} else {
				c.s.count("lines", time.Now(), word(e.Code))
			}
			out.Body.Close()
			stop()
			continue
		}
		answers := bufio.NewReader(out.Body)
		t := &talk{kind: "lines"}
		t.send = func(_ *message, b []byte) error { _, err := to.Write(append(b, '\n')); return err }
		t.receive = func() ([]byte, error) { return answers.ReadBytes('\n') }
		err = c.converse(ctx, t, model, false)
		switch {
		case err == nil:
			to.Close()
			if rest, err := io.ReadAll(answers); err != nil || len(rest) > 0 {
				c.s.fault("a stream of lines ended with %v %.200q", err, rest)
			}
		case err == errCut && c.r.IntN(2) == 0:
			c.conns.reset()
		case err != errCut:
			c.s.fault("lines to %s: %v", model, err)
		}
		stop()
		out.Body.Close()
		to.Close()
	}
}

// calling sends several sequences, and requests without one, in streams of gRPC. What was
// begun in one ends with it.
func (c *client) calling(ctx context.Context) {
	for c.s.slot(ctx) {
		own, stop := context.WithTimeout(c.context(context.WithoutCancel(ctx)), time.Minute)
		stream, err := c.calls().ModelStreamInfer(own)
		if err != nil {
			c.s.fault("opening a stream of gRPC: %v", err)
			stop()
			c.renewed()
			continue
		}
		cut := c.r.IntN(4) == 0
		left, open := c.call(ctx, stream, cut)
		switch {
		case cut && c.r.IntN(2) == 0:
			c.conns.reset()
			c.renewed()
		case cut:
			stop()
		default:
			_ = stream.CloseSend()
			if m, err := stream.Recv(); left && err != io.EOF {
				c.s.fault("a stream of gRPC ended with %v %v", m, err)
			}
		}
		stop()
		if ctx.Err() == nil && len(open) > 0 && c.r.IntN(4) == 0 {
			c.ended(ctx, open[0])
		}
	}
}

// ended checks that the session of a connection that was closed is over, and that the client
// is told.
func (c *client) ended(ctx context.Context, k *kept) {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		code, h, b, err := c.send(ctx, http.MethodGet, "/v1/sessions/"+k.id+"?model="+k.model, nil)
		switch {
		case err != nil:
			return // of the end of the test
		case code == http.StatusNotFound:
			if e := c.s.statedHTTP(code, h, b); !strings.Contains(e.Msg, string(batch.Gone)) {
				c.s.fault("of a session whose connection was closed the client was told %q", e.Msg)
			}
			c.s.count("session of a stream", time.Now(), "not found")
			return
		case time.Now().After(end):
			c.s.fault("a session outlives its connection: %d %s", code, b)
			return
		}
	}
}

// call sends requests over a stream of gRPC and compares the answers. It returns the
// sequences that it left open, and false if the stream broke.
func (c *client) call(ctx context.Context, stream pb.GRPCInferenceService_ModelStreamInferClient, cut bool) (whole bool, open []*kept) {
	const kind = "gRPC stream"
	type asked struct {
		k     *kept // nil: no sequence
		in    []inference.Tensor
		wrong bool
		began time.Time
	}
	list := make([]*kept, 3)
	waits := map[string]*asked{}
	ids := 0
	receive := func() bool {
		m, err := stream.Recv()
		if err != nil {
			c.s.fault("%s: %v", kind, err)
			return false
		}
		a := waits[m.GetInferResponse().GetId()]
		if a == nil {
			c.s.fault("%s: an answer for %q, which was not asked", kind, m.GetInferResponse().GetId())
			return false
		}
		delete(waits, m.GetInferResponse().GetId())
		if text := m.GetErrorMessage(); text != "" {
			if !a.wrong && !strings.Contains(text, "wait") && !strings.Contains(text, "too few have been idle") && !strings.Contains(text, "as many as it may") {
				c.s.fault("%s: %s", kind, text)
			}
			c.s.count(kind, a.began, map[bool]string{true: "invalid", false: "exhausted"}[a.wrong])
			if a.k != nil && !a.wrong {
				i := slices.Index(list, a.k)
				list[i] = nil
			}
			return true
		}
		if a.wrong {
			c.s.fault("%s: a wrong request was answered", kind)
			return true
		}
		out, err := inference.ResponseFromProto(m.GetInferResponse())
		if err != nil {
			c.s.fault("%s: %v", kind, err)
			return false
		}
		c.s.count(kind, a.began, "")
		if a.k != nil {
			a.k.in = a.in
			return c.compare(a.k, out)
		}
		g, err := c.s.graph("mean", out.Version)
		if err == nil {
			var want map[string]inference.Value
			if want, err = c.s.stateless(g, &a.in[0]); err == nil {
				if wrong := wrongIn(out, want); wrong != "" {
					err = errors.New(wrong)
				}
			}
		}
		if err != nil {
			c.s.fault("%s without a sequence: %v", kind, err)
		}
		return true
	}
	most, ahead := 1+c.r.IntN(40), 1+c.r.IntN(8)
	for i := 0; i < most && c.s.slot(ctx); i++ {
		ids++
		a := &asked{in: []inference.Tensor{c.frames(1, 1+c.r.IntN(3), soakWidth)}}
		q := &inference.Request{Model: "mean", ID: marked + strconv.Itoa(ids), Inputs: a.in}
		if n := c.r.IntN(len(list) + 1); n < len(list) {
			if list[n] == nil {
				list[n] = &kept{id: fmt.Sprintf("%s-%d", marked, sessionIDs.Add(1)), model: []string{"step", "states"}[c.r.IntN(2)], door: rpcRaw}
			}
			a.k = list[n]
			q.Model, q.Params = a.k.model, inference.Params{"sequence_id": a.k.id}
			if !a.k.begun {
				q.Params["sequence_start"] = true
			}
		}
		if a.wrong = c.r.IntN(15) == 0 && (a.k == nil || a.k.begun); a.wrong {
			q.Inputs = []inference.Tensor{c.frames(1, 1, soakWidth+1)}
		}
		begins := a.k != nil && !a.k.begun
		if a.k != nil {
			a.k.begun = true
		}
		m, err := q.ToProto(true)
		c.s.must(err)
		if ahead == 1 {
			a.began = time.Now()
		}
		waits[q.ID] = a
		if err := stream.Send(m); err != nil {
			receive() // which tells why
			return false, nil
		}
		for len(waits) >= ahead || begins && len(waits) > 0 {
			if !receive() {
				return false, nil
			}
		}
	}
	for len(waits) > 0 && !cut {
		if !receive() {
			return false, nil
		}
	}
	for range waits {
		c.s.count(kind, time.Now(), "cut")
	}
	for _, k := range list {
		if k != nil && k.twin != nil {
			open = append(open, k)
		}
	}
	return true, open
}

// expect sends a request that must get one of the statuses.
func (c *client) expect(ctx context.Context, what, method, path string, body []byte, headers []string, statuses ...int) {
	began := time.Now()
	code, h, answer, err := c.send(ctx, method, path, body, headers...)
	switch {
	case err != nil && ctx.Err() == nil && !slices.Contains(statuses, 0):
		c.s.fault("%s: %v", what, err)
	case err != nil:
		c.s.count("attack", began, "cut")
	default:
		how := ""
		if code >= 400 {
			how = word(c.s.statedHTTP(code, h, answer).Code)
		}
		if !slices.Contains(statuses, code) {
			c.s.fault("%s: status %d %.200s, expected one of %v", what, code, answer, statuses)
		}
		c.s.count("attack", began, how)
	}
}

// attacks sends what must not be sent.
func (c *client) attacks(ctx context.Context) {
	_, good, err := inference.WriteRequest(&inference.Request{ID: marked, Inputs: []inference.Tensor{c.frames(1, 4, soakWidth)}}, false)
	c.s.must(err)
	header, packed, err := inference.WriteRequest(&inference.Request{ID: marked, Inputs: []inference.Tensor{c.frames(1, 4, soakWidth)}}, true)
	c.s.must(err)
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = z.Write(make([]byte, 64<<20))
	_ = z.Close()
	large := append([]byte(`{"id":"`+marked), bytes.Repeat([]byte("a"), soakBody)...)
	stranger := c.s.newClient("", 0)
	defer stranger.close()
	liar := c.s.newClient("", 0)
	liar.token = "carousel_" + marked
	defer liar.close()
	const infer = "/v2/models/plain/infer"
	gz := []string{"Content-Encoding", "gzip"}
	all := []func(){
		func() { // any byte of a request is another
			b := slices.Clone(good)
			for range 1 + c.r.IntN(3) {
				b[c.r.IntN(len(b))] = byte(c.r.IntN(256))
			}
			c.expect(ctx, "a changed request", "POST", infer, b, nil, 200, 400, 413, 429)
		},
		func() {
			b := slices.Clone(packed)
			for range 1 + c.r.IntN(3) {
				b[c.r.IntN(len(b))] = byte(c.r.IntN(256))
			}
			c.expect(ctx, "a changed binary request", "POST", infer, b, []string{inference.HeaderLength, header}, 200, 400, 413, 429)
		},
		func() {
			c.expect(ctx, "a wrong length", "POST", infer, packed, []string{inference.HeaderLength, []string{"-1", "7", "99999999", "x", "18446744073709551615"}[c.r.IntN(5)]}, 400)
		},
		func() {
			shape := []string{"[-1,1,4]", "[4294967296,4294967296,4]", "[1,9223372036854775807,4]", "[0,1,4]", "[1,1,1,1,1,1,1,1,1,1]", "[1,2,4]"}[c.r.IntN(6)]
			c.expect(ctx, "a wrong shape", "POST", infer, []byte(`{"inputs":[{"name":"x","datatype":"FP32","shape":`+shape+`,"data":[1,2,3,4]}]}`), nil, 400)
		},
		func() {
			c.expect(ctx, "random bytes", "POST", infer, []byte(marked+string(good[c.r.IntN(len(good)):])), nil, 400)
		},
		func() { c.expect(ctx, "a bomb", "POST", infer, bomb.Bytes(), gz, 413, 400) },
		func() { c.expect(ctx, "what is not gzip", "POST", infer, good, gz, 400) },
		func() { c.expect(ctx, "a large body", "POST", infer, large, nil, 413, 0) },
		func() { c.expect(ctx, "an unknown model", "POST", "/v2/models/nothing/infer", good, nil, 404) },
		func() { c.expect(ctx, "another method", "DELETE", infer, nil, nil, 405) },
		func() {
			c.expect(ctx, "a path", "GET", []string{"/v2/../metrics", "/v2/models/%2e%2e/infer", "//v2//models", "/v2/models/a%2fb/ready", "/etc/passwd", "/debug/pprof/heap", "/v2/models/%00"}[c.r.IntN(7)], nil, nil, 400, 401, 403, 404, 405)
		},
		func() { stranger.expect(ctx, "no token", "POST", infer, good, nil, 401) },
		func() { liar.expect(ctx, "a wrong token", "POST", infer, good, nil, 401) },
		func() { c.expect(ctx, "another's scope", "POST", "/v2/repository/models/plain/unload", nil, nil, 403) },
		func() { c.expect(ctx, "another's scope", "GET", "/metrics", nil, nil, 403) },
		func() { c.expect(ctx, "an unknown session", "GET", "/v1/sessions/"+marked+"-none", nil, nil, 404) },
		func() {
			c.expect(ctx, "a state of nothing", "PUT", "/v1/sessions/"+marked+"-none/state?model=step", good, nil, 400)
		},
		func() {
			c.expect(ctx, "a task's wrong key", "POST", "/v1/classify", []byte(`{"`+marked+`":1}`), nil, 400)
		},
		func() {
			c.expect(ctx, "a wrong sequence", "POST", "/v2/models/step/infer", []byte(`{"parameters":{"sequence_id":"`+marked+`-none"},`+string(good[1:])), nil, 400)
		},
		func() { c.raw(ctx, []byte(marked+"\r\n\r\n"), false, false) },
		func() { c.raw(ctx, packed, true, false) },
		func() { // the head of a request, or part of it, or part of its body
			b := []byte("POST " + infer + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + c.token + "\r\nContent-Length: " + strconv.Itoa(len(good)) + "\r\n\r\n" + string(good))
			c.raw(ctx, b[:c.r.IntN(len(b))], true, true)
		},
		func() { // an answer of which a part is read
			_, b, _ := inference.WriteRequest(&inference.Request{Inputs: []inference.Tensor{c.frames(1, 1000, soakWidth)}}, false)
			c.raw(ctx, []byte("POST "+infer+" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+c.token+"\r\nContent-Length: "+strconv.Itoa(len(b))+"\r\n\r\n"+string(b)), true, true)
		},
		func() { // gRPC: too large
			m, _ := (&inference.Request{Model: "plain", Inputs: []inference.Tensor{c.frames(1, soakBody/16+100, soakWidth)}}).ToProto(true)
			began := time.Now()
			if _, err := c.calls().ModelInfer(c.context(ctx), m); status.Code(err) != codes.ResourceExhausted && ctx.Err() == nil {
				c.s.fault("a large message: %v", err)
			}
			c.s.count("attack", began, "exhausted")
		},
		func() { // gRPC: malformed
			m := &pb.ModelInferRequest{ModelName: "plain", Inputs: []*pb.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: "FP32", Shape: []int64{1, -1 << 62, 4}}}, RawInputContents: [][]byte{[]byte(marked)}}
			began := time.Now()
			if _, err := c.calls().ModelInfer(c.context(ctx), m); status.Code(err) != codes.InvalidArgument && ctx.Err() == nil {
				c.s.fault("a malformed message: %v", err)
			}
			c.s.count("attack", began, "invalid")
		},
		func() {
			began := time.Now()
			m := &pb.RepositoryModelUnloadRequest{ModelName: "plain"}
			if _, err := c.calls().RepositoryModelUnload(c.context(ctx), m); status.Code(err) != codes.PermissionDenied && ctx.Err() == nil {
				c.s.fault("another's scope: %v", err)
			}
			c.s.count("attack", began, "denied")
		},
	}
	for i := c.r.IntN(len(all)); c.s.slot(ctx); i++ {
		all[i%len(all)]()
		select { // a tenth of the requests
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// raw sends bytes to the HTTP or the gRPC door, reads a part of what comes, and resets the connection.
func (c *client) raw(ctx context.Context, b []byte, secure, web bool) {
	began := time.Now()
	addr := c.s.grpc
	if web || c.r.IntN(2) == 0 {
		addr = c.s.http
	}
	conn, err := c.conns.dial(ctx, addr)
	if err != nil {
		if ctx.Err() == nil {
			c.s.fault("a connection was refused: %v", err)
		}
		return
	}
	below := conn.(*tracked)
	defer func() {
		_ = below.SetLinger(0)
		_ = below.Close()
	}()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if secure {
		config := c.s.tls()
		config.ServerName = "127.0.0.1"
		config.NextProtos = []string{"http/1.1", "h2"}
		conn = tls.Client(conn, config)
	}
	_, _ = conn.Write(b)
	if c.r.IntN(2) == 0 {
		_ = conn.SetDeadline(time.Now().Add(time.Duration(c.r.IntN(20)) * time.Millisecond))
		_, _ = conn.Read(make([]byte, 1+c.r.IntN(2000)))
	}
	c.s.count("attack", began, "cut")
}

// floods sends many requests at once over one connection: those for which there is no room in the
// queue are told so.
func (c *client) floods(ctx context.Context) {
	c.web.ForceAttemptHTTP2 = true
	for c.s.slot(ctx) {
		var done sync.WaitGroup
		x := c.frames(1, 200, soakWidth)
		_, body, _ := inference.WriteRequest(&inference.Request{Inputs: []inference.Tensor{x}, Outputs: []inference.Output{{Name: "y"}}}, false)
		for range 100 {
			done.Go(func() {
				began := time.Now()
				code, h, b, err := c.send(ctx, http.MethodPost, "/v2/models/plain/infer", body)
				switch {
				case err != nil && ctx.Err() == nil:
					c.s.fault("a flood: %v", err)
				case err != nil:
				case code == http.StatusOK:
					out, err := inference.ReadResponse("", b)
					if err != nil {
						c.s.fault("a flood: %v", err)
						return
					}
					m, err := c.s.graph("plain", out.Version)
					if err != nil {
						c.s.fault("a flood: %v", err)
						return
					}
					if want, err := c.s.stateless(m, &x); err != nil || wrongIn(out, want) != "" {
						c.s.fault("a flood: %v %s", err, wrongIn(out, want))
					}
					c.s.count("flood", began, "")
				default:
					e := c.s.statedHTTP(code, h, b)
					if e.Code != inference.Exhausted {
						c.s.fault("a flood: %s", e.Msg)
					}
					c.s.count("flood", began, word(e.Code))
				}
			})
		}
		done.Wait()
		c.rest(ctx, 3*c.s.pace)
	}
}

func (c *client) rest(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// crowds opens more sessions than a client may have, and leaves them to their time to live.
func (c *client) crowds(ctx context.Context) {
	for c.s.slot(ctx) {
		for i := 0; i < 110 && ctx.Err() == nil; i++ {
			began := time.Now()
			code, h, b, err := c.send(ctx, http.MethodPost, "/v1/sessions", []byte(`{"model":"states","ttl_seconds":1.5}`))
			switch {
			case err != nil:
				if ctx.Err() == nil {
					c.s.fault("a crowd: %v", err)
				}
			case code == http.StatusCreated:
				c.s.count("crowd", began, "")
			default:
				e := c.s.statedHTTP(code, h, b)
				if e.Code != inference.Exhausted {
					c.s.fault("a crowd: %s", e.Msg)
				}
				c.s.count("crowd", began, word(e.Code))
				i += 20 // each takes the server's patience
			}
		}
		c.rest(ctx, 4*c.s.pace)
	}
}

// stalls sends requests and reads no answers, until the server cuts the stream.
func (c *client) stalls(ctx context.Context) {
	for c.s.slot(ctx) {
		w := c.socket(ctx, "model=step", inference.Exhausted)
		if w == nil {
			continue
		}
		late, stop := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		x := c.frames(1, 2000, soakWidth)
		b := make([]byte, 0, 4*len(x.Floats))
		for _, f := range x.Floats {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
		}
		began := time.Now()
		sent := 0
		var err error
		for err == nil && sent < 2000 && ctx.Err() == nil {
			if err = w.Write(late, websocket.MessageBinary, b); err == nil {
				sent++
			}
		}
		switch {
		case ctx.Err() != nil:
		case err == nil || late.Err() != nil:
			c.s.fault("a stream that is not read was not cut after %v and %d messages", time.Since(began), sent)
		default:
			c.s.count("unread stream", began, "exhausted")
		}
		stop()
		_ = w.CloseNow()
		c.rest(ctx, 5*c.s.pace)
	}
}

// versions returns the versions of a model that are served.
func (c *client) versions(ctx context.Context, model string) string {
	code, _, b, err := c.send(ctx, http.MethodGet, "/v2/models/"+model, nil)
	if err != nil || code != http.StatusOK {
		return fmt.Sprintf("%d %v", code, err)
	}
	var m struct{ Versions []string }
	_ = json.Unmarshal(b, &m)
	return strings.Join(m.Versions, ",")
}

// becomes waits until a version of a model is served.
func (c *client) becomes(ctx context.Context, model string, version int) bool {
	for end := time.Now().Add(20 * time.Second); ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		got := c.versions(ctx, model)
		if got == strconv.Itoa(version) {
			c.s.mu.Lock()
			c.s.served[model] = version
			c.s.mu.Unlock()
			return true
		}
		if time.Now().After(end) && ctx.Err() == nil {
			c.s.fault("version %d of %s is not served: %s", version, model, got)
			return false
		}
	}
	return false
}

// renewals puts new versions into their places, some damaged and mended later, and takes old
// ones away. Some are taken up because files changed, others because a client says so.
func (c *client) renewals(ctx context.Context) {
	const kind = "new version"
	for version := 2; ; version++ {
		for _, model := range []string{"step", "plain"} {
			if c.rest(ctx, c.s.pace); ctx.Err() != nil {
				return
			}
			began := time.Now()
			load := func(status int) {
				c.expect(ctx, "loading "+model, "POST", "/v2/repository/models/"+model+"/load", nil, nil, status)
			}
			if c.r.IntN(2) == 0 {
				c.s.lstm(model, version)
				if c.r.IntN(2) == 0 {
					load(200)
				}
			} else {
				dir := filepath.Join(c.s.dir, model, strconv.Itoa(version))
				whole := filepath.Join(c.s.dir, model, "whole.onnx")
				c.s.must(c.s.lstmFile(whole, soakWidth, model == "step", uint64(version)))
				c.s.known(model, strconv.Itoa(version), whole)
				b, err := os.ReadFile(whole)
				c.s.must(err)
				c.s.must(os.MkdirAll(dir, 0o755))
				c.s.must(os.WriteFile(filepath.Join(dir, "model.onnx"), b[:1+c.r.IntN(len(b)-1)], 0o600)) // cut anywhere
				if c.r.IntN(2) == 0 {
					load(400)
				} else {
					c.rest(ctx, 5*soakLook)
				}
				if got := c.versions(ctx, model); got != strconv.Itoa(version-1) && ctx.Err() == nil {
					c.s.fault("with a damaged version %d of %s, versions %s are served", version, model, got)
				}
				c.expect(ctx, "readiness of a model that is served", "GET", "/v2/models/"+model+"/ready", nil, nil, 200)
				c.s.must(os.Rename(whole, filepath.Join(dir, "model.onnx")))
			}
			if c.becomes(ctx, model, version) {
				c.s.count(kind, began, "")
			}
			if version > 2 {
				c.s.must(os.RemoveAll(filepath.Join(c.s.dir, model, strconv.Itoa(version-2))))
			}
		}
	}
}

// loads loads models anew that stay as they are, unloads one now and then, and asks what a
// server is asked.
func (c *client) loads(ctx context.Context) {
	for {
		if c.rest(ctx, c.s.pace); ctx.Err() != nil {
			return
		}
		for _, model := range []string{"states", "head", "mean", "words", "demand", "chain"} {
			c.expect(ctx, "loading "+model, "POST", "/v2/repository/models/"+model+"/load", nil, nil, 200)
		}
		c.expect(ctx, "unloading", "POST", "/v2/repository/models/flaky/unload", nil, nil, 200)
		c.expect(ctx, "the index", "POST", "/v2/repository/index", nil, nil, 200)
		c.expect(ctx, "the server", "GET", "/v2", nil, nil, 200)
		c.expect(ctx, "statistics", "GET", "/v2/models/stats", nil, nil, 200)
		c.expect(ctx, "the list of sessions", "GET", "/v1/sessions", nil, nil, 200)
		c.rest(ctx, 100*time.Millisecond)
		c.expect(ctx, "loading", "POST", "/v2/repository/models/flaky/load", nil, nil, 200)
		if ctx.Err() == nil {
			c.becomes(ctx, "flaky", 1)
		}
	}
}

// expiries makes tokens that expire: until then they are taken, afterwards not, and a stream
// of theirs ends.
func (c *client) expiries(ctx context.Context) {
	own := context.WithoutCancel(ctx)
	for n := 0; ctx.Err() == nil; n++ {
		until := time.Now().Add(4 * time.Second).Truncate(time.Second)
		name := "brief" + strconv.Itoa(n%2) // the lines of tokens before are replaced
		c.s.token(name, "infer", until.UTC().Format(time.RFC3339))
		c.s.writeTokens()
		b := c.s.newClient(name, uint64(n))
		ask := func() int {
			code, _, _, err := b.send(own, http.MethodGet, "/v2/models/step", nil)
			if err != nil {
				c.s.fault("a token that expires: %v", err)
			}
			return code
		}
		for time.Now().Before(until.Add(-time.Second)) && ask() == http.StatusUnauthorized {
			time.Sleep(20 * time.Millisecond)
		}
		code := ask()
		may := []inference.Code{inference.Exhausted}
		if time.Until(until) < time.Second { // a busy machine took the time
			may = append(may, inference.Unknown)
		} else if code != http.StatusOK {
			c.s.fault("a token is not taken before it expires: %d", code)
		}
		if w := b.socket(own, "model=step", may...); w != nil {
			began := time.Now()
			late, stop := context.WithTimeout(own, time.Until(until)+5*time.Second)
			_, _, err := w.Read(late)
			if late.Err() != nil || time.Now().Before(until.Add(-50*time.Millisecond)) {
				c.s.fault("the stream of a token that expired ended after %v with %v", time.Since(began), err)
			}
			c.s.count("expired stream", began, "unknown")
			stop()
			_ = w.CloseNow()
		}
		time.Sleep(time.Until(until.Add(50 * time.Millisecond)))
		if code := ask(); code != http.StatusUnauthorized {
			c.s.fault("a token that expired is answered with %d", code)
		}
		c.s.count("expired token", until, "unknown")
		b.close()
		c.rest(ctx, c.s.pace)
	}
}

// untilClosed sends requests, each over a new connection, until the server takes none. A
// connection whose handshake was done was accepted, so what is sent over it must be
// answered. The clients behind the fourth use gRPC.
func (s *soak) untilClosed(ctx context.Context, i int) {
	const kind = "while stopping"
	c := s.newClient("load0", uint64(100+i))
	defer c.close()
	m, err := s.graph("mean", "1")
	s.must(err)
	for ctx.Err() == nil {
		began := time.Now()
		q := &inference.Request{Model: "mean", ID: marked, Inputs: []inference.Tensor{c.frames(1, 10, soakWidth)}}
		want, err := s.stateless(m, &q.Inputs[0])
		s.must(err)
		var out *inference.Response
		if i >= 4 {
			message, err := q.ToProto(true)
			s.must(err)
			answer, err := c.calls().ModelInfer(c.context(ctx), message)
			if err != nil {
				text := status.Convert(err).Message()
				if status.Code(err) != codes.Unavailable || strings.Contains(text, "EOF") || strings.Contains(text, "reset") {
					s.fault("gRPC while the server stopped: %v", err)
				}
				return
			}
			out, err = inference.ResponseFromProto(answer)
			s.must(err)
		} else {
			conn, err := c.conns.dial(ctx, s.http)
			if err != nil {
				return // it is closed
			}
			config := s.tls()
			config.ServerName = "127.0.0.1"
			secure := tls.Client(conn, config)
			_ = secure.SetDeadline(time.Now().Add(20 * time.Second))
			if secure.HandshakeContext(ctx) != nil {
				conn.Close()
				return
			}
			_, body, err := inference.WriteRequest(q, false)
			s.must(err)
			r, err := http.NewRequest(http.MethodPost, "https://"+s.http+"/v2/models/mean/infer", bytes.NewReader(body))
			s.must(err)
			r.Header = c.bearer()
			err = r.Write(secure)
			var answer *http.Response
			if err == nil {
				answer, err = http.ReadResponse(bufio.NewReader(secure), r)
			}
			var b []byte
			if err == nil {
				b, err = io.ReadAll(answer.Body)
			}
			conn.Close()
			if err != nil {
				s.fault("a request was accepted and lost while the server stopped: %v", err)
				return
			}
			if answer.StatusCode != http.StatusOK {
				e := s.statedHTTP(answer.StatusCode, answer.Header, b)
				if e.Code != inference.Unavailable {
					s.fault("while the server stopped: %s", e.Msg)
				}
				s.count(kind, began, word(e.Code))
				continue
			}
			out, err = inference.ReadResponse("", b)
			s.must(err)
		}
		if wrong := wrongIn(out, want); wrong != "" {
			s.fault("while the server stopped: %s", wrong)
		}
		s.count(kind, began, "")
		time.Sleep(5 * time.Millisecond)
	}
}

// kill ends a server with SIGKILL while its sessions are used, and begins another: sessions
// go on with the bits that they would have had, except those that belonged to a connection,
// those whose model has other weights now, and one whose file is damaged.
func (s *soak) kill(round int) {
	s.start()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	const n = 8
	all := make([][]*kept, n)
	var passing *kept
	var done sync.WaitGroup
	for i := range n {
		c := s.newClient("load"+strconv.Itoa(i%4), uint64(200+100*round+i))
		done.Go(func() {
			defer c.close()
			for range 4 {
				all[i] = append(all[i], c.open("step", "states", "demand", "moved"))
			}
			for ctx.Err() == nil {
				k := all[i][c.r.IntN(4)]
				k.in = nil
				c.unforced(ctx, k)
			}
		})
	}
	c := s.newClient("load0", 0)
	stream, err := c.calls().ModelStreamInfer(c.context(ctx))
	s.must(err)
	passing = &kept{id: marked + "-passing-" + strconv.Itoa(round), model: "step"}
	q := &inference.Request{Model: "step", Params: inference.Params{"sequence_id": passing.id, "sequence_start": true}, Inputs: []inference.Tensor{c.frames(1, 1, soakWidth)}}
	m, err := q.ToProto(true)
	s.must(err)
	s.must(stream.Send(m))
	_, err = stream.Recv()
	s.must(err)
	time.Sleep(time.Second)
	s.must(s.cmd.Process.Kill())
	<-s.log
	_ = s.cmd.Wait() // killed
	stop()
	done.Wait()
	c.close()

	// The graph "moved" has other weights from now on, and a file is cut.
	s.must(s.lstmFile(filepath.Join(s.dir, "moved.onnx"), soakWidth, true, uint64(1000+round)))
	files, err := filepath.Glob(filepath.Join(s.dir, "store", "*.session"))
	s.must(err)
	if len(files) > 0 {
		s.must(os.Truncate(files[round%len(files)], 20))
	}
	s.start()
	ctx = context.Background()
	goes, moved, lost := 0, 0, 0
	for i, list := range all {
		c := s.newClient("load"+strconv.Itoa(i%4), uint64(300+i))
		for _, k := range list {
			if k.twin == nil {
				continue // it had no answer
			}
			code, h, b, err := c.send(ctx, http.MethodGet, "/v1/sessions/"+k.id+"?model="+k.model, nil)
			s.must(err)
			if code != http.StatusOK {
				e := s.statedHTTP(code, h, b)
				switch {
				case code == http.StatusNotFound && k.model == "moved" && strings.Contains(e.Msg, "started anew"):
					moved++
				case code == http.StatusNotFound && strings.Contains(e.Msg, "there is no session"):
					lost++ // that of the file
				default:
					s.fault("after the kill, a session of %s: %d %s", k.model, code, e.Msg)
				}
				continue
			}
			if k.model == "moved" {
				s.fault("a session goes on with other weights")
				continue
			}
			var info struct{ Steps uint64 }
			s.must(json.Unmarshal(b, &info))
			k.ending = false
			if !c.agree(k, info.Steps) {
				continue
			}
			goes++
			for range 3 {
				if !c.step(ctx, k, false) {
					if !k.ending {
						s.fault("after the kill, a session of %s did not go on", k.model)
					}
					break
				}
			}
		}
		if i == 0 {
			if code, _, b, err := c.send(ctx, http.MethodGet, "/v1/sessions/"+passing.id, nil); err != nil || code != http.StatusNotFound {
				s.fault("the session of a connection was stored: %d %s %v", code, b, err)
			}
		}
		c.close()
	}
	if lost > 1 || goes == 0 || moved == 0 {
		s.fault("after the kill %d sessions went on, %d had another model, %d were lost, of which one had a damaged file", goes, moved, lost)
	}
	s.t.Logf("SIGKILL %d: %d sessions went on to the bit, %d ended because of other weights, %d because of a damaged file", round+1, goes, moved, lost)
	s.must(s.cmd.Process.Kill())
	<-s.log
	_ = s.cmd.Wait()
	s.must(os.RemoveAll(filepath.Join(s.dir, "store")))
	b, err := os.ReadFile(filepath.Join(s.dir, "states.onnx"))
	s.must(err)
	s.must(replace(filepath.Join(s.dir, "moved.onnx"), b))
}

// unforced takes a step of a session whose server may be killed at any time; what was sent
// and not answered stays in k.in.
func (c *client) unforced(ctx context.Context, k *kept) {
	q := &inference.Request{Model: k.model, ID: k.id, Params: inference.Params{"sequence_id": k.id}}
	if !k.begun {
		q.Params["sequence_start"] = true
	}
	if k.model == "demand" {
		q.Outputs = []inference.Output{{Name: "json"}}
	}
	k.in = c.inputs(k)
	q.Inputs = k.in
	out, _, _ := c.infer(ctx, k.door, q, "")
	if out == nil {
		<-ctx.Done() // the server is gone
		return
	}
	k.begun = true
	c.compare(k, out)
	k.in = nil
}
