package serve_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/internal/cli"
	"github.com/carousel-ml/carousel/model/onnx"
	"github.com/carousel-ml/carousel/model/onnx/graph"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/serve"
	"github.com/carousel-ml/carousel/serve/inference"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// The soak test loads a server, in a process of its own, with everything that clients do, and
// with what they do wrong: connections that are reset in the middle of anything, requests
// that are malformed or too large, tokens that expire, floods, models that are replaced,
// damaged and mended. Each answer is compared, bit for bit, with what a copy of the model
// computes in this process, one row at a time, or is an error that the request may get. In each session the
// inputs are random, so an answer from another session's state cannot be equal.
//
// CAROUSEL_SOAK=1h go test ./serve -run TestSoak -timeout 0 -v is the whole test; without the
// variable it takes some seconds.
const (
	soakTime   = "CAROUSEL_SOAK"
	soakDir    = "CAROUSEL_SOAK_PROFILES" // a directory for profiles of the server at the end of the load
	soakServer = "CAROUSEL_SOAK_SERVER"   // the directory of a server, in whose process the test runs again
)

// marked is in all payloads and ids that clients send, and never in the log. The tokens are not either.
const marked = "zqpayload"

// soakConfig is the server's configuration. The weights of "moved" are others when it is
// started anew; "flaky" is unloaded now and then.
const soakConfig = `
http: 127.0.0.1:0
grpc: 127.0.0.1:0
drain: 5s
watch: 100ms
tokens: tokens
store: store
log_requests: true
profiles: true
tls: {certificate: tls.crt, key: tls.key}
limits: {body: 1MiB, unread: 2s, sessions: 150, sessions_per_client: 100, session_ttl: 30s}
models:
  - {name: step, path: step}
  - {name: plain, path: plain, queue: 64}
  - {path: states.onnx}
  - {path: mean.onnx}
  - {path: head.onnx}
  - {path: moved.onnx}
  - {path: flaky.onnx}
  - {path: words}
  - {path: demand}
pipelines:
  - name: chain
    stages:
      - {model: states, outputs: {y: middle}}
      - {model: head, inputs: {x: middle}}
`

// What the test needs to know of it.
const (
	soakBody  = 1 << 20
	soakDrain = 5 * time.Second
	soakLook  = 100 * time.Millisecond // between looks at files
)

// soakWidth is the width of the inputs of graphs, soakHidden the size of the ones written here.
const soakWidth, soakHidden = 4, 16

// soak is a server and the load on it.
type soak struct {
	t       *testing.T
	dir     string
	pool    *x509.CertPool
	secrets map[string]string
	lines   map[string]string // of the file of tokens, by name
	words   *task.Trained
	demand  *task.Trained
	samples []sampled

	mu      sync.Mutex
	graphs  map[string]*graph.Model // by model and version
	served  map[string]int          // the newest version that was seen to be served
	tallies map[string]*tally
	faults  int

	*process
	rate chan struct{}
	pace time.Duration // of what happens seldom
}

// process is a server's process.
type process struct {
	cmd        *exec.Cmd
	http, grpc string
	log        chan struct{} // closed at its end
	logged     int           // lines of the log
}

// tally counts the requests of a kind.
type tally struct {
	sent, right int
	stated      map[string]int
	cut         int // ended by the client itself
	took        *hdrhistogram.Histogram
}

// sampled is the server at one time.
type sampled struct{ rss, heap, goroutines, files, sessions float64 }

func TestSoak(t *testing.T) {
	if dir := os.Getenv(soakServer); dir != "" { // in the process that start begins
		os.Exit(cli.Main([]string{"serve", "--json", "--log", "debug", "--config", filepath.Join(dir, "serve.yaml")}, os.Stdin, os.Stdout, os.Stderr))
	}
	if runtime.GOOS != "linux" {
		t.Skip("what the process uses is read from /proc")
	}
	takes, rounds := 8*time.Second, 1
	if text := os.Getenv(soakTime); text != "" {
		var err error
		if takes, err = time.ParseDuration(text); err != nil {
			t.Fatalf("%s: %v", soakTime, err)
		}
		rounds = 3
	}
	s := newSoak(t)
	s.pace = min(max(takes/20, time.Second), 15*time.Second)

	s.start()
	// Without a deadline, which gRPC would send along: the load ends for the clients, not for the server.
	ctx, stop := context.WithCancel(context.Background())
	defer time.AfterFunc(takes, stop).Stop()
	defer stop()
	var done sync.WaitGroup
	done.Go(func() { s.meter(ctx) })
	done.Go(func() { s.sample(ctx, min(max(takes/100, 250*time.Millisecond), time.Minute)) })
	s.load(ctx, &done)
	done.Wait()
	s.level(takes)
	s.profile()
	s.terminate()
	for round := range rounds {
		s.kill(round)
	}
	s.report()
}

// newSoak writes the models, tokens and certificates of a server.
func newSoak(t *testing.T) *soak {
	t.Helper()
	s := &soak{t: t, dir: t.TempDir(), secrets: map[string]string{}, lines: map[string]string{}, graphs: map[string]*graph.Model{},
		served: map[string]int{}, tallies: map[string]*tally{}, rate: make(chan struct{})}
	for _, name := range []string{"load0", "load1", "load2", "load3", "other"} {
		s.token(name, "infer", "")
	}
	s.token("boss", "infer,admin", "")
	s.token("meter", "metrics", "")
	s.writeTokens()
	s.certify()
	s.must(replace(filepath.Join(s.dir, "serve.yaml"), []byte(soakConfig)))
	s.lstm("step", 1)
	s.lstm("plain", 1)
	s.must(s.lstmFile(filepath.Join(s.dir, "head.onnx"), 5, false, 7))
	torch := filepath.Join("..", "model", "onnx", "graph", "testdata", "torch")
	for name, from := range map[string]string{"states": "states", "moved": "states", "mean": "forecaster", "flaky": "forecaster_gru"} {
		b, err := os.ReadFile(filepath.Join(torch, from+".onnx"))
		s.must(err)
		s.must(replace(filepath.Join(s.dir, name+".onnx"), b))
	}
	for _, name := range []string{"states", "moved", "mean", "flaky", "head"} {
		s.known(name, "1", filepath.Join(s.dir, name+".onnx"))
	}
	for name, was := range map[string]string{"words": "classify", "demand": "forecast"} {
		s.must(os.CopyFS(filepath.Join(s.dir, name), os.DirFS(filepath.Join("..", "testdata", "format1", was, "model"))))
	}
	var err error
	s.words, err = carousel.Open(filepath.Join(s.dir, "words"))
	s.must(err)
	s.demand, err = carousel.Open(filepath.Join(s.dir, "demand"))
	s.must(err)
	return s
}

func (s *soak) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// replace writes a file whole at once.
func replace(path string, b []byte) error {
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// lstmFile writes an LSTM as an ONNX file.
func (s *soak) lstmFile(path string, width int, state bool, seed uint64) error {
	net := struct{ RNN *nn.RNN }{nn.NewLSTM(width, soakHidden, nil)}
	tensor.Pack(tensor.CPU(), &net, seed)
	_, err := onnx.Export(context.Background(), path, &onnx.Stack{RNN: net.RNN}, &onnx.ExportOptions{State: state})
	return err
}

// lstm puts a version of an LSTM in its place, whole at once.
func (s *soak) lstm(name string, version int) {
	s.t.Helper()
	number := strconv.Itoa(version)
	fresh := filepath.Join(s.dir, name, "new")
	s.must(os.MkdirAll(fresh, 0o755))
	file := filepath.Join(fresh, "model.onnx")
	s.must(s.lstmFile(file, soakWidth, name == "step", uint64(version)))
	s.known(name, number, file)
	s.must(os.Rename(fresh, filepath.Join(s.dir, name, number)))
}

// known reads the graph of a version, with which answers are compared.
func (s *soak) known(name, version, file string) {
	s.t.Helper()
	m, err := graph.Read(file)
	s.must(err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.graphs[name+"/"+version] = m
}

func (s *soak) graph(name, version string) (*graph.Model, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.graphs[name+"/"+version]; m != nil {
		return m, nil
	}
	return nil, fmt.Errorf("the answer is of version %q of %q, which there never was", version, name)
}

// token makes a token; writeTokens makes it known.
func (s *soak) token(name, scopes, expiry string) string {
	s.t.Helper()
	secret, line, err := serve.NewToken(name, scopes, expiry)
	s.must(err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets[name], s.lines[name] = secret, line
	return secret
}

func (s *soak) writeTokens() {
	s.t.Helper()
	s.mu.Lock()
	text := strings.Join(slices.Sorted(maps.Values(s.lines)), "\n") + "\n"
	s.mu.Unlock()
	s.must(replace(filepath.Join(s.dir, "tokens"), []byte(text)))
}

// certify writes a certificate that clients trust.
func (s *soak) certify() {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s.must(err)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	s.must(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	s.must(err)
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	s.must(replace(filepath.Join(s.dir, "tls.crt"), public))
	s.must(replace(filepath.Join(s.dir, "tls.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	s.pool = x509.NewCertPool()
	s.pool.AppendCertsFromPEM(public)
}

// start begins the server and waits until it answers.
func (s *soak) start() {
	s.t.Helper()
	p := &process{cmd: exec.Command(os.Args[0], "-test.run=^TestSoak$"), log: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), soakServer+"="+s.dir)
	stderr, err := p.cmd.StderrPipe()
	s.must(err)
	stdout, err := p.cmd.StdoutPipe()
	s.must(err)
	s.must(p.cmd.Start())
	s.t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	go s.follow(p, stderr)
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		s.t.Fatalf("the server did not begin: %v", err)
	}
	var said struct{ HTTP, GRPC string }
	s.must(json.Unmarshal([]byte(line), &said))
	p.http, p.grpc = strings.TrimPrefix(said.HTTP, "https://"), said.GRPC
	s.process = p
}

// follow reads the log: nothing in it may be of a panic, or of what clients sent.
func (s *soak) follow(p *process, log io.Reader) {
	defer close(p.log)
	lines := bufio.NewReader(log)
	broken := false
	for {
		line, err := lines.ReadString('\n')
		p.logged++
		s.mu.Lock()
		secret := slices.ContainsFunc(slices.Collect(maps.Values(s.secrets)), func(secret string) bool { return strings.Contains(line, secret) })
		s.mu.Unlock()
		var said struct{ Msg string }
		switch {
		case secret || strings.Contains(line, marked):
			s.fault("what a client sent is in the log: %.500s", line)
		case json.Unmarshal([]byte(line), &said) != nil: // what is said at the start, or by the runtime
			broken = broken || strings.HasPrefix(line, "panic:") || strings.HasPrefix(line, "fatal error:") || strings.Contains(line, "DATA RACE")
			if broken {
				s.fault("the server said: %s", strings.TrimSpace(line))
			}
		case said.Msg == "a request failed" || strings.HasPrefix(said.Msg, "a model failed"):
			s.fault("the server panicked: %.3000s", line)
		}
		if err != nil {
			return
		}
	}
}

// fault notes what is wrong.
func (s *soak) fault(format string, args ...any) {
	s.mu.Lock()
	s.faults++
	n := s.faults
	s.mu.Unlock()
	if n <= 50 {
		s.t.Errorf(format, args...)
	}
}

// count notes a request. how is "" if it was right, the word of a stated error, or
// "cut". A zero time is not measured.
func (s *soak) count(kind string, began time.Time, how string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.tallies[kind]
	if c == nil {
		c = &tally{stated: map[string]int{}, took: hdrhistogram.New(1, int64(time.Minute), 3)}
		s.tallies[kind] = c
	}
	c.sent++
	switch how {
	case "":
		c.right++
		if !began.IsZero() {
			_ = c.took.RecordValue(min(int64(time.Since(began)), int64(time.Minute)))
		}
	case "cut":
		c.cut++
	default:
		c.stated[how]++
	}
}

// meter lets requests pass at a rate.
func (s *soak) meter(ctx context.Context) {
	tick := time.NewTicker(time.Second / 300)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		select {
		case s.rate <- struct{}{}:
		default: // nobody waits
		}
	}
}

// slot waits for the time of the next request; it returns false at the end of the test.
func (s *soak) slot(ctx context.Context) bool {
	select {
	case <-s.rate:
		return true
	case <-ctx.Done():
		return false
	}
}

// sample looks at the server's process every so often.
func (s *soak) sample(ctx context.Context, every time.Duration) {
	c := s.newClient("meter", 0)
	defer c.close()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		one, err := s.look(c)
		if err != nil {
			s.fault("the server's metrics: %v", err)
			continue
		}
		s.samples = append(s.samples, one)
	}
}

// look reads what the server's process uses.
func (s *soak) look(c *client) (one sampled, err error) {
	status, _, body, err := c.send(context.Background(), http.MethodGet, "/metrics", nil)
	if err != nil || status != http.StatusOK {
		return one, fmt.Errorf("%d: %w", status, err)
	}
	for line := range strings.Lines(string(body)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		x, _ := strconv.ParseFloat(value, 64) // comments are not numbers
		switch {
		case name == "go_memstats_next_gc_bytes": // the live heap twice, without what is garbage at the moment
			one.heap = x
		case name == "go_goroutines":
			one.goroutines = x
		case strings.HasPrefix(name, "carousel_sessions{"):
			one.sessions += x
		}
	}
	proc := filepath.Join("/proc", strconv.Itoa(s.cmd.Process.Pid))
	files, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		return one, err
	}
	one.files = float64(len(files))
	text, err := os.ReadFile(filepath.Join(proc, "statm"))
	if err != nil {
		return one, err
	}
	fields := strings.Fields(string(text))
	pages, err := strconv.ParseFloat(fields[1], 64)
	one.rss = pages * float64(os.Getpagesize())
	return one, err
}

// gauges are what is level over the time of a run: a difference of 10 %, or of slack, is
// allowed. Slow ones are compared in runs of minutes only: graphs meet new sizes of batches,
// and keep memory for each, and crowds of sessions come and go.
var gauges = []struct {
	name  string
	slack float64
	of    func(*sampled) float64
	unit  float64
	slow  bool
}{
	{"RSS, MiB", 24 << 20, func(s *sampled) float64 { return s.rss }, 1 << 20, true},
	{"next heap, MiB", 6 << 20, func(s *sampled) float64 { return s.heap }, 1 << 20, true},
	{"goroutines", 40, func(s *sampled) float64 { return s.goroutines }, 1, false},
	{"descriptors", 20, func(s *sampled) float64 { return s.files }, 1, false},
	{"sessions", 40, func(s *sampled) float64 { return s.sessions }, 1, true},
}

func mean(list []sampled, of func(*sampled) float64) float64 {
	sum := 0.0
	for i := range list {
		sum += of(&list[i])
	}
	return sum / float64(len(list))
}

// fifths returns the second fifth of the samples, the middle one and the last.
func (s *soak) fifths() (second, middle, last []sampled) {
	n := len(s.samples)
	return s.samples[n/5 : 2*n/5], s.samples[2*n/5 : 3*n/5], s.samples[4*n/5:]
}

// level compares what the process used in the last fifth of the run with the second.
func (s *soak) level(takes time.Duration) {
	if len(s.samples) < 10 {
		if takes >= time.Minute { // in less, a busy machine may take few
			s.fault("there are %d samples of the server's process, expected one in a hundredth of %v", len(s.samples), takes)
		}
		return
	}
	second, _, last := s.fifths()
	for _, g := range gauges {
		if g.slow && takes < 5*time.Minute {
			continue
		}
		was, is := mean(second, g.of), mean(last, g.of)
		if is > 1.1*was && is > was+g.slack {
			s.fault("%s grew from %.4g to %.4g", g.name, was/g.unit, is/g.unit)
		}
	}
}

// profile writes profiles of the server, for who looks for what has grown.
func (s *soak) profile() {
	dir := os.Getenv(soakDir)
	if dir == "" {
		return
	}
	c := s.newClient("boss", 0)
	defer c.close()
	for _, name := range []string{"heap", "goroutine"} {
		status, _, b, err := c.send(context.Background(), http.MethodGet, "/debug/pprof/"+name+"?gc=1", nil)
		if err == nil && status == http.StatusOK {
			err = os.WriteFile(filepath.Join(dir, name+".pprof"), b, 0o600)
		}
		if err != nil || status != http.StatusOK {
			s.fault("the profile %s: %d %v", name, status, err)
		}
	}
}

// terminate sends SIGTERM under load: each request that was accepted is answered, and the
// process ends in time with exit code 0.
func (s *soak) terminate() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var done sync.WaitGroup
	for i := range 6 {
		done.Go(func() { s.untilClosed(ctx, i) })
	}
	time.Sleep(500 * time.Millisecond)
	began := time.Now()
	s.must(s.cmd.Process.Signal(syscall.SIGTERM))
	<-s.log // the end of the process
	err := s.cmd.Wait()
	stop()
	done.Wait()
	if err != nil {
		s.fault("after SIGTERM: %v", err)
	}
	if took := time.Since(began); took > soakDrain+2*time.Second {
		s.fault("the server ended %v after SIGTERM, and has %v", took, soakDrain)
	} else {
		s.t.Logf("SIGTERM under load: exit code 0 after %v", took.Round(time.Millisecond))
	}
}

// report prints a table of what happened.
func (s *soak) report() {
	var b strings.Builder
	fmt.Fprintf(&b, "%-22s %8s %8s %6s %8s %8s  %s\n", "requests", "sent", "right", "cut", "p50 ms", "p99 ms", "stated errors")
	sent, right := 0, 0
	for _, kind := range slices.Sorted(maps.Keys(s.tallies)) {
		c := s.tallies[kind]
		var stated []string
		for _, word := range slices.Sorted(maps.Keys(c.stated)) {
			stated = append(stated, fmt.Sprintf("%s %d", word, c.stated[word]))
		}
		fmt.Fprintf(&b, "%-22s %8d %8d %6d %8.2f %8.2f  %s\n", kind, c.sent, c.right, c.cut,
			float64(c.took.ValueAtQuantile(50))/1e6, float64(c.took.ValueAtQuantile(99))/1e6, strings.Join(stated, ", "))
		sent, right = sent+c.sent, right+c.right
	}
	fmt.Fprintf(&b, "%-22s %8d %8d\n\n%-22s %8s %8s %8s\n", "all", sent, right, "server", "2nd 5th", "middle", "last 5th")
	if len(s.samples) >= 10 {
		second, middle, last := s.fifths()
		for _, g := range gauges {
			fmt.Fprintf(&b, "%-22s %8.1f %8.1f %8.1f\n", g.name, mean(second, g.of)/g.unit, mean(middle, g.of)/g.unit, mean(last, g.of)/g.unit)
		}
	}
	fmt.Fprintf(&b, "faults %d", s.faults)
	s.t.Logf("\n%s", b.String())
	if right < sent/2 {
		s.t.Errorf("%d of %d requests had a right answer: the test does not show much", right, sent)
	}
}

// word names the class of a stated error.
func word(c inference.Code) string {
	return [...]string{"invalid", "not found", "unavailable", "unsupported", "exists", "canceled", "deadline", "exhausted", "too large", "internal", "method", "denied", "unknown"}[c]
}

func (s *soak) tls() *tls.Config { return &tls.Config{RootCAs: s.pool} }

var errCut = errors.New("the client cut the connection")
