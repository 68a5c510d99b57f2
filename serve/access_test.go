package serve

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "github.com/carousel-ml/carousel/serve/inferencepb"
)

func TestTokenFiles(t *testing.T) {
	sum := strings.Repeat("0a", sha256.Size)
	for _, c := range []struct{ text, problem string }{
		{"a infer " + sum, ""},
		{"# a comment\n\na.b-C_9 infer,admin,metrics " + sum + " 2099-12-31\r\nx metrics certificate", ""},
		{"a infer " + sum + " 2099-12-31T10:00:00+02:00", ""},
		{"a infer " + sum + "\na admin " + strings.Repeat("0b", 32), ""}, // one client, two tokens
		{"", "expected 1 to 1000 lines"},
		{"# nothing", "expected 1 to 1000 lines"},
		{"a infer", "tokens:1: expected NAME SCOPES SHA256 [EXPIRY], got 2 words"},
		{"# x\n\na infer " + sum + " 2099-12-31 more", "tokens:3: expected NAME SCOPES SHA256 [EXPIRY], got 5 words"},
		{"a/b infer " + sum, `tokens:1: name: expected 1 to 64 letters`},
		{strings.Repeat("a", 65) + " infer " + sum, `tokens:1: name: `},
		{"a infer,root " + sum, `tokens:1: scopes: expected infer, admin and metrics divided by commas, each at most once, got "infer,root"`},
		{"a infer,infer " + sum, "tokens:1: scopes: "},
		{"a infer, " + sum, "tokens:1: scopes: "},
		{"a infer my-secret-token", `tokens:1: the token of "a": expected its SHA-256 as 64 hexadecimal digits`},
		{"a infer " + sum[2:], "tokens:1: the token of"},
		{"a infer " + sum + " 2099-13-01", "tokens:1: expiry: expected a day such as"},
		{"a infer " + sum + "\nb infer " + sum, `tokens:2: the token of "b" is there twice`},
		{"a infer certificate\na infer " + sum, ""},
		{"a infer certificate\na admin certificate", `tokens:2: the token of "a" is there twice`},
		{"a infer " + sum + "\na infer " + sum, `tokens:2: the token of "a" is there twice`},
		{strings.Repeat("a infer "+sum+"\n", 1)[:10] + strings.Repeat("x", 1<<17), "expected its SHA-256"},
		{strings.Repeat("#\n", 1<<20), "of at most 1048576 bytes"},
	} {
		path := filepath.Join(t.TempDir(), "tokens")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := OpenAccess(path, nil)
		if c.problem == "" && err != nil || c.problem != "" && (err == nil || !strings.Contains(err.Error(), c.problem)) {
			t.Errorf("%.80q: got %v, want %q", c.text, err, c.problem)
		}
		if err != nil && strings.Contains(err.Error(), "my-secret-token") {
			t.Errorf("the error says what stands in the place of the hash: %v", err)
		}
	}
	if _, err := OpenAccess(filepath.Join(t.TempDir(), "none"), nil); err == nil {
		t.Error("a file that does not exist was read")
	}
}

func TestNewToken(t *testing.T) {
	secret, line, err := NewToken("sensors", "infer,metrics", "2099-12-31")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(secret))
	if want := "sensors infer,metrics " + hex.EncodeToString(sum[:]) + " 2099-12-31"; line != want || len(secret) < 40 {
		t.Errorf("got %q, want %q", line, want)
	}
	other, _, err := NewToken("sensors", "infer", "")
	if err != nil || other == secret {
		t.Error("two tokens are the same", err)
	}
	for _, wrong := range [][3]string{{"", "infer", ""}, {"a", "", ""}, {"a", "infer", "soon"}} {
		if _, _, err := NewToken(wrong[0], wrong[1], wrong[2]); err == nil {
			t.Errorf("%q was taken", wrong)
		}
	}
}

// tokensOf writes a file of tokens, whose secrets are their names with "-secret", and
// returns its path.
func tokensOf(tb testing.TB, lines ...string) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "tokens")
	writeTokens(tb, path, lines...)
	return path
}

func writeTokens(tb testing.TB, path string, lines ...string) {
	tb.Helper()
	var b bytes.Buffer
	for _, line := range lines {
		fields := strings.Fields(line)
		sum := sha256.Sum256([]byte(fields[0] + "-secret"))
		fields = append(fields[:2:2], append([]string{hex.EncodeToString(sum[:])}, fields[2:]...)...)
		fmt.Fprintln(&b, strings.Join(fields, " "))
	}
	if err := os.WriteFile(path+".new", b.Bytes(), 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		tb.Fatal(err)
	}
}

// doors are the addresses of a server that runs until the end of a test.
type doors struct {
	s          *Server
	log        *records
	http, grpc string
}

// run starts a server with the step model m.
func run(tb testing.TB, change func(s *Server)) *doors {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "m.onnx")
	seededFile(tb, path, 1)
	s, log := serverOf(tb, ModelConfig{Path: path})
	if change != nil {
		change(s)
	}
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		return l
	}
	h, g := listen(), listen()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, h, g, 2*time.Second) }()
	tb.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			tb.Error(err)
		}
	})
	return &doors{s, log, h.Addr().String(), g.Addr().String()}
}

const oneStep = `{"inputs":[{"name":"x","shape":[1,1,3],"datatype":"FP32","data":[1,2,3]}]}`

// send sends a request and returns the status, the answer and its header.
func (d *doors) send(tb testing.TB, method, path, token, body string) (int, string, http.Header) {
	tb.Helper()
	r, err := http.NewRequest(method, "http://"+d.http+path, strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	out, err := http.DefaultClient.Do(r)
	if err != nil {
		tb.Fatal(err)
	}
	defer out.Body.Close()
	b, err := io.ReadAll(out.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return out.StatusCode, string(b), out.Header
}

// wrong checks that an answer is an error in JSON.
func wrong(tb testing.TB, what, answer string) {
	tb.Helper()
	var fault map[string]string
	if err := json.Unmarshal([]byte(answer), &fault); err != nil || fault["error"] == "" {
		tb.Errorf("%s: the answer %.200q is not an object with error", what, answer)
	}
}

func withTokens(tb testing.TB, lines ...string) (func(s *Server), string) {
	path := tokensOf(tb, lines...)
	return func(s *Server) {
		a, err := OpenAccess(path, s.log)
		if err != nil {
			tb.Fatal(err)
		}
		s.o.Access = a
		s.o.Profiles = true
	}, path
}

func TestScopes(t *testing.T) {
	with, _ := withTokens(t, "user infer", "boss admin", "scraper metrics", "old infer 2020-01-01", "all infer,admin,metrics 2099-01-01")
	d := run(t, with)
	const yes = 200
	var all sync.WaitGroup // since refusals are slow
	for _, c := range []struct {
		method, path, body                         string
		none, user, boss, scraper, old, all, other int
	}{
		{"GET", "/v2/health/live", "", yes, yes, yes, yes, yes, yes, yes},
		{"GET", "/v2/health/ready", "", yes, yes, yes, yes, yes, yes, yes},
		{"GET", "/v2", "", 401, yes, 403, 403, 401, yes, 401},
		{"GET", "/v2/models", "", 401, yes, 403, 403, 401, yes, 401},
		{"POST", "/v2/models/m/infer", oneStep, 401, yes, 403, 403, 401, yes, 401},
		{"GET", "/metrics", "", 401, 403, 403, yes, 401, yes, 401},
		{"POST", "/v2/repository/index", "", 401, 403, yes, 403, 401, yes, 401},
		{"POST", "/v2/%72epository/index", "", 401, 403, yes, 403, 401, yes, 401},
		{"POST", "/v2/repository/models/m/load", "", 401, 403, yes, 403, 401, yes, 401},
		{"GET", "/debug/pprof/symbol", "", 401, 403, yes, 403, 401, yes, 401},
		{"GET", "/v1/sessions", "", 401, yes, 403, 403, 401, yes, 401},
		{"GET", "/nothing", "", 401, 404, 403, 403, 401, 404, 401},
		{"GET", "/v2/health/live/", "", 401, 404, 403, 403, 401, 404, 401},
	} {
		for token, want := range map[string]int{"": c.none, "user-secret": c.user, "boss-secret": c.boss, "scraper-secret": c.scraper,
			"old-secret": c.old, "all-secret": c.all, "guess": c.other} {
			all.Go(func() {
				status, answer, h := d.send(t, c.method, c.path, token, c.body)
				if status != want {
					t.Errorf("%s %s with %q: got %d %.200s, want %d", c.method, c.path, token, status, answer, want)
				}
				if status >= 400 {
					wrong(t, c.path, answer)
				}
				if challenged := strings.HasPrefix(h.Get("WWW-Authenticate"), "Bearer "); challenged != (status == 401 || status == 403) {
					t.Errorf("%s %s: status %d with the challenge %q", c.method, c.path, status, h.Get("WWW-Authenticate"))
				}
				if status == 403 && !strings.Contains(answer, "scope") {
					t.Errorf("%s: the answer does not name the scope: %s", c.path, answer)
				}
			})
		}
	}
	all.Wait()
	for _, path := range []string{"/v2?access_token=user-secret", "/v2?token=user-secret"} {
		if status, _, _ := d.send(t, "GET", path, "", ""); status != 401 {
			t.Errorf("a token in the address was taken: %d", status)
		}
	}
	if strings.Contains(d.log.String(), "-secret") {
		t.Error("a token stands in the log")
	}
}

// dial connects to the gRPC door.
func (d *doors) dial(tb testing.TB) *grpc.ClientConn {
	tb.Helper()
	c, err := grpc.NewClient(d.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	return c
}

func withToken(token string) context.Context {
	if token == "" {
		return context.Background()
	}
	return metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+token)
}

func stepProto(id string, start bool) *pb.ModelInferRequest {
	m := &pb.ModelInferRequest{ModelName: "m", Inputs: []*pb.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: "FP32", Shape: []int64{1, 1, 3},
		Contents: &pb.InferTensorContents{Fp32Contents: []float32{1, 2, 3}}}}}
	if id != "" {
		m.Parameters = map[string]*pb.InferParameter{"sequence_id": {ParameterChoice: &pb.InferParameter_StringParam{StringParam: id}},
			"sequence_start": {ParameterChoice: &pb.InferParameter_BoolParam{BoolParam: start}}}
	}
	return m
}

func TestScopesOfCalls(t *testing.T) {
	with, _ := withTokens(t, "user infer", "boss admin", "scraper metrics", "old infer 2020-01-01")
	d := run(t, with)
	conn := d.dial(t)
	c := pb.NewGRPCInferenceServiceClient(conn)
	calls := map[string]func(ctx context.Context) error{
		"live": func(ctx context.Context) error { _, err := c.ServerLive(ctx, &pb.ServerLiveRequest{}); return err },
		"check": func(ctx context.Context) error {
			_, err := health.NewHealthClient(conn).Check(ctx, &health.HealthCheckRequest{})
			return err
		},
		"infer": func(ctx context.Context) error { _, err := c.ModelInfer(ctx, stepProto("", false)); return err },
		"models": func(ctx context.Context) error {
			_, err := health.NewHealthClient(conn).List(ctx, &health.HealthListRequest{})
			return err
		},
		"stream": func(ctx context.Context) error {
			s, err := c.ModelStreamInfer(ctx)
			if err == nil {
				_ = s.Send(stepProto("", false)) // the status is that of Recv
				_, err = s.Recv()
			}
			return err
		},
		"index": func(ctx context.Context) error {
			_, err := c.RepositoryIndex(ctx, &pb.RepositoryIndexRequest{})
			return err
		},
		"load": func(ctx context.Context) error {
			_, err := c.RepositoryModelLoad(ctx, &pb.RepositoryModelLoadRequest{ModelName: "m"})
			return err
		},
	}
	var all sync.WaitGroup
	const none, denied = codes.Unauthenticated, codes.PermissionDenied
	for name, want := range map[string][5]codes.Code{ // without a token, user, boss, scraper, old
		"live": {}, "check": {},
		"infer":  {none, codes.OK, denied, denied, none},
		"models": {none, codes.OK, denied, denied, none},
		"stream": {none, codes.OK, denied, denied, none},
		"index":  {none, denied, codes.OK, denied, none},
		"load":   {none, denied, codes.OK, denied, none},
	} {
		for i, token := range []string{"", "user-secret", "boss-secret", "scraper-secret", "old-secret"} {
			all.Go(func() {
				if err := calls[name](withToken(token)); status.Code(err) != want[i] {
					t.Errorf("%s with %q: got %v, want %v", name, token, err, want[i])
				}
			})
		}
	}
	all.Wait()
}

// The sessions of a client are for its tokens alone, whatever door they come through.
func TestSessionsAreOfTheirClient(t *testing.T) {
	with, _ := withTokens(t, "alice infer", "bob infer")
	d := run(t, with)
	const body = `{"parameters":{"sequence_id":"s1"%s},"inputs":[{"name":"x","shape":[1,1,3],"datatype":"FP32","data":[1,2,3]}]}`
	step := func(token, more string) (int, string) {
		status, answer, _ := d.send(t, "POST", "/v2/models/m/infer", token, fmt.Sprintf(body, more))
		return status, answer
	}
	if status, answer := step("alice-secret", `,"sequence_start":true`); status != 200 {
		t.Fatal(answer)
	}
	c := pb.NewGRPCInferenceServiceClient(d.dial(t))
	for _, more := range []string{"", `,"sequence_start":true`, `,"sequence_end":true`} {
		if status, answer := step("bob-secret", more); status != 403 {
			t.Errorf("bob used alice's sequence with %q: %d %s", more, status, answer)
		}
	}
	for _, start := range []bool{false, true} {
		if _, err := c.ModelInfer(withToken("bob-secret"), stepProto("s1", start)); status.Code(err) != codes.PermissionDenied {
			t.Errorf("bob used alice's sequence by gRPC: %v", err)
		}
	}
	if _, err := c.ModelInfer(withToken("alice-secret"), stepProto("s1", false)); err != nil {
		t.Errorf("alice's sequence through another door: %v", err)
	}
	for _, q := range [][3]string{{"POST", "/v1/sessions/s1/infer?model=m", oneStep}, {"GET", "/v1/sessions/s1?model=m"}, {"DELETE", "/v1/sessions/s1?model=m"}, {"GET", "/v1/sessions/s1/state?model=m"}} {
		status, answer, _ := d.send(t, q[0], q[1], "bob-secret", q[2])
		if status != 403 && status != 404 {
			t.Errorf("%s %s by bob: %d %s", q[0], q[1], status, answer)
		}
		wrong(t, q[1], answer)
	}
	if status, answer, _ := d.send(t, "GET", "/v1/sessions", "bob-secret", ""); status != 200 || strings.Contains(answer, "s1") {
		t.Errorf("bob sees alice's session: %s", answer)
	}
	if status, answer := step("alice-secret", ""); status != 200 {
		t.Errorf("alice's sequence was harmed: %s", answer)
	}
}

// socketOf opens a stream as a WebSocket.
func (d *doors) socketOf(tb testing.TB, token string) (*websocket.Conn, error) {
	tb.Helper()
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop()
	h := http.Header{}
	if token != "" {
		h.Set("Authorization", "Bearer "+token)
	}
	c, out, err := websocket.Dial(ctx, "ws://"+d.http+"/v1/stream?model=m", &websocket.DialOptions{HTTPHeader: h})
	if err != nil && out != nil {
		err = fmt.Errorf("%d: %w", out.StatusCode, err)
	}
	return c, err
}

// Streams end with their tokens: at the time of their expiry, and when they are taken from
// the file.
func TestStreamsEndWithTheirTokens(t *testing.T) {
	until := time.Now().Add(1500 * time.Millisecond).UTC().Truncate(time.Second).Add(time.Second)
	with, path := withTokens(t, "brief infer "+until.Format(time.RFC3339), "gone infer", "stays infer")
	d := run(t, with)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go d.s.o.Access.Watch(ctx, 10*time.Millisecond)
	if _, err := d.socketOf(t, ""); err == nil || !strings.HasPrefix(err.Error(), "401") {
		t.Fatalf("a stream without a token: %v", err)
	}
	sockets := map[string]*websocket.Conn{}
	lines := map[string]io.ReadCloser{}
	calls := map[string]pb.GRPCInferenceService_ModelStreamInferClient{}
	c := pb.NewGRPCInferenceServiceClient(d.dial(t))
	for _, name := range []string{"brief", "gone", "stays"} {
		conn, err := d.socketOf(t, name+"-secret")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.CloseNow()
		sockets[name] = conn
		r, w := io.Pipe()
		defer w.Close()
		q, err := http.NewRequest("POST", "http://"+d.http+"/v1/stream?model=m", r)
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Content-Type", "application/x-ndjson")
		q.Header.Set("Authorization", "Bearer "+name+"-secret")
		out, err := http.DefaultClient.Do(q)
		if err != nil || out.StatusCode != 200 {
			t.Fatal(err, out)
		}
		defer out.Body.Close()
		lines[name] = out.Body
		if calls[name], err = c.ModelStreamInfer(withToken(name + "-secret")); err != nil {
			t.Fatal(err)
		}
		if err := calls[name].Send(stepProto(name, true)); err != nil {
			t.Fatal(err)
		}
		if _, err := calls[name].Recv(); err != nil {
			t.Fatal(err)
		}
	}
	ends := func(name, why string) {
		t.Helper()
		wait, stop := context.WithTimeout(ctx, 10*time.Second)
		defer stop()
		_, _, err := sockets[name].Read(wait)
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("the WebSocket of %s ended with %v, want %q", name, err, why)
		}
		text, _ := io.ReadAll(lines[name])
		if !strings.Contains(string(text), why) {
			t.Errorf("the lines of %s ended with %q, want %q", name, text, why)
		}
		if _, err := calls[name].Recv(); status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), why) {
			t.Errorf("the call of %s ended with %v, want %q", name, err, why)
		}
	}
	writeTokens(t, path, "brief infer "+until.Format(time.RFC3339), "stays infer")
	ends("gone", "was taken from the server's file")
	ends("brief", "has expired")
	if time.Now().Before(until) {
		t.Error("a stream ended before its token's time")
	}
	if status, _, _ := d.send(t, "GET", "/v2", "gone-secret", ""); status != 401 {
		t.Errorf("a token that was taken from the file is answered with %d", status)
	}
	if err := calls["stays"].Send(stepProto("stays", false)); err != nil {
		t.Error(err)
	}
	if _, err := calls["stays"].Recv(); err != nil {
		t.Errorf("a stream of another token ended: %v", err)
	}
	d.s.o.Access.mu.Lock()
	held := len(d.s.o.Access.held)
	d.s.o.Access.mu.Unlock()
	if held != 3 {
		t.Errorf("%d streams are held, want the 3 that go on", held)
	}

	// A faulty file leaves the tokens as they are, and the log says why.
	if err := os.WriteFile(path, []byte("stays infer my-secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); !strings.Contains(d.log.String(), "the file of tokens is not taken"); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the log does not tell of a faulty file")
		}
	}
	if status, _, _ := d.send(t, "GET", "/v2", "stays-secret", ""); status != 200 {
		t.Errorf("a faulty file took tokens away: %d", status)
	}
	if strings.Contains(d.log.String(), "my-secret") {
		t.Error("the log has what stood in the place of a hash")
	}
}

// Guesses are answered late, and do not hold up others.
func TestGuessesAreSlow(t *testing.T) {
	with, _ := withTokens(t, "user infer")
	d := run(t, with)
	began := time.Now()
	if status, _, _ := d.send(t, "GET", "/v2", "guess", ""); status != 401 {
		t.Fatal(status)
	}
	if took := time.Since(began); took < slownessGuess {
		t.Errorf("a guess was answered after %v, want at least %v", took, slownessGuess)
	}
}

// counted is a listener that counts what is read from its connections.
type counted struct {
	net.Listener
	read atomic.Int64
}

func (l *counted) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &countedConn{c, l}, nil
}

type countedConn struct {
	net.Conn
	l *counted
}

func (c *countedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.l.read.Add(int64(n))
	return n, err
}

// A call without a token is refused before its message is read, however large it is, and the
// connection serves others.
func TestRefusedCallsAreNotRead(t *testing.T) {
	with, _ := withTokens(t, "user infer", "boss admin")
	s, log := serverOf(t)
	with(s)
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &counted{Listener: inner}
	g := s.GRPC()
	go func() { _ = g.Serve(l) }()
	defer g.Stop()
	conn, err := grpc.NewClient(inner.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(100<<20)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := pb.NewGRPCInferenceServiceClient(conn)
	m := &pb.ModelInferRequest{ModelName: "secret", RawInputContents: [][]byte{make([]byte, 60<<20)}}
	for token, want := range map[string]codes.Code{"": codes.Unauthenticated, "guess": codes.Unauthenticated, "boss-secret": codes.PermissionDenied} {
		before := l.read.Load()
		if _, err := c.ModelInfer(withToken(token), m); status.Code(err) != want {
			t.Errorf("with %q: %v, want %v", token, err, want)
		}
		if n := l.read.Load() - before; n > 2<<20 { // what was on its way
			t.Errorf("with %q %d bytes of the message were read", token, n)
		}
	}
	before := l.read.Load()
	if _, err := c.ModelInfer(withToken("user-secret"), m); status.Code(err) != codes.InvalidArgument { // of a tensor without its name
		t.Errorf("with the token: %v, want InvalidArgument", err)
	}
	if n := l.read.Load() - before; n < 60<<20 {
		t.Errorf("with the token %d bytes of the message were read, want all", n)
	}
	refused := 0
	for _, line := range lines(t, log) {
		if line["status"] == "Unauthenticated" || line["status"] == "PermissionDenied" && line["client"] == "boss" {
			refused++
		}
	}
	if refused != 3 {
		t.Errorf("%d refused calls stand in the log, want 3: %s", refused, log)
	}
}

// A server that anyone may use answers at addresses, names of this machine and those that it
// was given, and at no other name, to which a page of another site may point its reader.
func TestHosts(t *testing.T) {
	open, listed, any := run(t, nil), run(t, func(s *Server) { s.o.Hosts = []string{"Models.Example.org"} }), run(t, func(s *Server) { s.o.Hosts = []string{AnyHost} })
	with, _ := withTokens(t, "user infer,metrics")
	tokens := run(t, with)
	both := run(t, func(s *Server) { with(s); s.o.Hosts = []string{"models.example.org"} })
	ask := func(d *doors, method, path, host string, header ...string) (int, string, http.Header) {
		t.Helper()
		r, err := http.NewRequest(method, "http://"+d.http+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		r.Header.Set("Authorization", "Bearer user-secret")
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		out, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer out.Body.Close()
		b, _ := io.ReadAll(out.Body)
		return out.StatusCode, string(b), out.Header
	}
	for _, c := range []struct {
		d      *doors
		host   string
		status int
	}{
		{open, open.http, 200}, {open, "localhost", 200}, {open, "LOCALHOST.:80", 200}, {open, "m.localhost:8080", 200}, {open, "[::1]:8080", 200}, {open, "[::1]", 200}, {open, "192.0.2.7", 200},
		{open, "evil.example", 421}, {open, "evil.example:8080", 421}, {open, "localhost.evil.example", 421}, {open, "notlocalhost", 421}, {open, "127.0.0.1.evil.example", 421}, {open, "models.example.org", 421},
		{listed, "models.example.ORG:443", 200}, {listed, "localhost", 200}, {listed, "evil.example", 421}, {listed, "a.models.example.org", 421},
		{any, "evil.example", 200},
		{tokens, "evil.example", 200},
		{both, "evil.example", 421}, {both, "models.example.org", 200},
	} {
		for _, path := range []string{"/v2", "/metrics", "/v2/health/live"} {
			status, body, _ := ask(c.d, "GET", path, c.host)
			if status != c.status {
				t.Errorf("%s of %q: %d %s, want %d", path, c.host, status, body, c.status)
			}
			if status == 421 {
				wrong(t, path, body)
			}
		}
		conn, err := grpc.NewClient(c.d.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority(c.host))
		if err != nil {
			t.Fatal(err)
		}
		want := codes.OK
		if c.status == 421 {
			want = codes.PermissionDenied
		}
		if _, err := pb.NewGRPCInferenceServiceClient(conn).ServerMetadata(withToken("user-secret"), &pb.ServerMetadataRequest{}); status.Code(err) != want {
			t.Errorf("a call of %q: %v, want %v", c.host, err, want)
		}
		conn.Close()
	}
	if status, body, h := ask(open, "GET", "/v1/stream?model=m", "evil.example", "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==", "Origin", "http://evil.example"); status != 421 || h.Get("X-Request-Id") == "" {
		t.Errorf("a WebSocket of a page: %d %s", status, body)
	}
	if !strings.Contains(open.log.String(), `"status":421`) {
		t.Error("refusals are not in the log")
	}
	if status, body := open.rawRequest(t, "GET * HTTP/1.1\r\nHost: localhost\r\n\r\n"); status != 400 || !strings.HasPrefix(body, `{"error":"GET * is not`) {
		t.Errorf("GET *: %d %s", status, body)
	}
	for name, right := range map[string]bool{"a": true, "a.b-c_d.example": true, "*": true, "": false, "a:80": false, "http://a": false, "a b": false, "*.a": false} {
		if err := CheckHost(name); (err == nil) != right {
			t.Errorf("%q: %v", name, err)
		}
	}
}
