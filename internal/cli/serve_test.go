package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/carousel-ml/carousel/serve"
	pb "github.com/carousel-ml/carousel/serve/inferencepb"
)

const serveVariable = "CAROUSEL_TEST_SERVE" // arguments of a command as JSON

// serverProcess is a command serve that answers.
type serverProcess struct {
	*exec.Cmd
	served
	log    *lockedBuffer // its stderr
	stdout string        // the object
}

// lockedBuffer is a buffer that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// startServer begins carousel serve with --json on free ports.
func startServer(t *testing.T, args ...string) *serverProcess {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("a process cannot be sent SIGTERM")
	}
	text, err := json.Marshal(append([]string{"serve", "--json", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"}, args...))
	if err != nil {
		t.Fatal(err)
	}
	p := &serverProcess{Cmd: exec.Command(os.Args[0], "-test.run=^TestServe$"), log: &lockedBuffer{}}
	p.Env = append(os.Environ(), serveVariable+"="+string(text))
	p.Stderr = p.log
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Process.Kill() })
	if p.stdout, err = bufio.NewReader(out).ReadString('\n'); err != nil {
		_ = p.Wait()
		t.Fatalf("the server says nothing: %v: %s", err, p.log)
	}
	go io.Copy(io.Discard, out)
	if err := json.Unmarshal([]byte(p.stdout), &p.served); err != nil {
		t.Fatal(err)
	}
	return p
}

// end sends SIGTERM and returns what the server logged; the exit code must be 0.
func (p *serverProcess) end(t *testing.T) string {
	t.Helper()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	return p.ended(t)
}

func (p *serverProcess) ended(t *testing.T) string {
	t.Helper()
	late := time.AfterFunc(30*time.Second, func() { _ = p.Process.Kill() })
	defer late.Stop()
	if err := p.Wait(); err != nil {
		t.Errorf("the server ended with %v: %s", err, p.log)
	}
	return p.log.String()
}

// fetch sends a request and returns the status and the body.
func fetch(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(text)
}

// serveModels writes a graph with a state, and a model of texts, and returns their paths.
func serveModels(t *testing.T) (graph, texts string) {
	t.Helper()
	dir := t.TempDir()
	graph, texts = filepath.Join(dir, "sums.onnx"), filepath.Join(dir, "run")
	table := filepath.Join(dir, "texts.csv")
	for name, text := range map[string][]byte{graph: onnxGraph("sums"), table: []byte("text,label\n" + strings.Repeat("a good film,pos\na poor film,neg\n", 6))} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"train", "classify", "--data", table, "--hidden", "4", "--embedding", "4", "--epochs", "1", "--min-count", "1", "--out", texts}, nil, &stdout, &stderr); code != exitOK {
		t.Fatalf("exit %d: %s", code, stderr.String())
	}
	return graph, texts
}

// The server answers for a graph and for a task's model, keeps a state, says what it
// serves, and the line that it tells to try works.
func TestServe(t *testing.T) {
	if text := os.Getenv(serveVariable); text != "" { // in the process that startServer begins
		var args []string
		if err := json.Unmarshal([]byte(text), &args); err != nil {
			t.Fatal(err)
		}
		os.Exit(Main(args, os.Stdin, os.Stdout, os.Stderr))
	}
	graph, texts := serveModels(t)
	p := startServer(t, graph, texts+"=films", filepath.Join(t.TempDir(), "gone.onnx"))
	doc, err := readJSONPage()
	if err != nil {
		t.Fatal(err)
	}
	if name, _, err := doc.check(p.stdout); err != nil || name != "carousel.serve.v1" {
		t.Errorf("%s: %v: %s", name, err, p.stdout)
	}
	if got := fmt.Sprint(p.Models); len(p.Models) != 3 || p.Models[0].Name != "films" || p.Models[0].Platform != "carousel_classify" ||
		p.Models[1].Problem == "" || p.Models[2].Name != "sums" || !p.Models[2].Batched || !p.Models[2].Stateful {
		t.Errorf("models %s", got)
	}
	step := func(more string) string {
		_, body := fetch(t, http.MethodPost, p.HTTP+"/v2/models/sums/infer", `{"parameters":{"sequence_id":7`+more+`},"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]},{"name":"scale","shape":[],"datatype":"INT64","data":[3]}]}`)
		return body
	}
	for i, more := range []string{`,"sequence_start":true`, "", `,"sequence_end":true`} {
		if got, want := step(more), fmt.Sprintf(`"data":[%d,%d]`, 3*(i+1), 6*(i+1)); !strings.Contains(got, want) {
			t.Errorf("step %d: %s, want %s", i, got, want)
		}
	}
	if status, body := fetch(t, http.MethodPost, p.HTTP+"/v1/classify", `{"text":"a good film"}`); status != 200 || !strings.Contains(body, `"label"`) {
		t.Errorf("classify: %d %s", status, body)
	}
	if status, body := fetch(t, http.MethodGet, p.HTTP+"/metrics", ""); status != 200 || !strings.Contains(body, `nv_inference_request_success{model="films",version="1"} 1`) || !strings.Contains(body, `carousel_queue_seconds_count{model="films",version="1"} 1`) {
		t.Errorf("metrics: %d %s", status, body)
	}
	if status, _ := fetch(t, http.MethodGet, p.HTTP+"/v2/health/ready", ""); status != 503 {
		t.Errorf("ready: %d, and one of the models is not", status)
	}
	if _, err := net.DialTimeout("tcp", p.GRPC, time.Second); err != nil {
		t.Error(err)
	}
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"serve", graph, "--http", strings.TrimPrefix(p.HTTP, "http://")}, nil, &stdout, &stderr); code != exitFailure ||
		!strings.Contains(stderr.String(), "address already in use; give another address with --http") || strings.Count(stderr.String(), "\n") != 1 {
		t.Errorf("a port in use: exit %d, %s", code, stderr.String())
	}
	log := p.end(t)
	if !strings.Contains(log, "gone.onnx") || !strings.Contains(log, "Serving 2 models:") {
		t.Errorf("stderr: %s", log)
	}
	if _, err := http.Get(p.HTTP); err == nil {
		t.Error("the server has ended and answers")
	}

	// The line to try, with a model of each kind first.
	for _, one := range []string{graph, texts} {
		p := startServer(t, one)
		said := waitFor(t, p, "Try it: ")
		line := regexp.MustCompile(`^curl (\S+) -d '(.*)'$`).FindStringSubmatch(said)
		if line == nil {
			t.Fatalf("no line to try: %s", said)
		}
		if status, body := fetch(t, http.MethodPost, line[1], line[2]); status != 200 || !strings.Contains(body, `"outputs"`) {
			t.Errorf("%s: %d %s", said, status, body)
		}
		p.end(t)
	}
}

// A newest version that is damaged does not keep an older one from being served, also at the
// start.
func TestServeOlderVersion(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sums")
	for version, text := range map[string][]byte{"1": onnxGraph("sums"), "2": []byte("damaged")} {
		if err := os.MkdirAll(filepath.Join(dir, version), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, version, "model.onnx"), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := startServer(t, dir)
	if len(p.Models) != 1 || p.Models[0].Version != "1" || p.Models[0].Problem != "" {
		t.Errorf("models %+v", p.Models)
	}
	if status, _ := fetch(t, http.MethodGet, p.HTTP+"/v2/health/ready", ""); status != 200 {
		t.Errorf("ready: %d", status)
	}
	if log := p.end(t); !strings.Contains(log, `Not ready: model "sums": version 2: `) {
		t.Errorf("stderr: %s", log)
	}
}

// waitFor returns the rest of the line of stderr that begins so. The line is written before
// the object on stdout.
func waitFor(t *testing.T, p *serverProcess, begin string) string {
	t.Helper()
	for range 100 {
		_, rest, ok := strings.Cut(p.log.String(), begin)
		if line, _, whole := strings.Cut(rest, "\n"); ok && whole {
			return line
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("stderr has no %q: %s", begin, p.log)
	return ""
}

// SIGTERM under load: readiness is false at once, every request that the server accepted is
// answered, the exit code is 0.
func TestServeDrains(t *testing.T) {
	graph, _ := serveModels(t)
	p := startServer(t, graph, "--drain", "4s", "--log", "debug")
	const body = `{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]},{"name":"scale","shape":[],"datatype":"INT64","data":[3]}]}`
	var answered, lost atomic.Int64
	var signalled atomic.Bool
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			for {
				r, err := client.Post(p.HTTP+"/v2/models/sums/infer", "application/json", strings.NewReader(body))
				if err != nil {
					// The system may have taken a connection for the server that it then did not.
					if !signalled.Load() || !(errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF)) {
						t.Errorf("a request failed: %v", err)
					}
					lost.Add(1)
					return
				}
				text, err := io.ReadAll(r.Body)
				r.Body.Close()
				if err != nil || r.StatusCode != 200 || !strings.Contains(string(text), `"data":[3,6]`) {
					t.Errorf("%d %s, %v", r.StatusCode, text, err)
					return
				}
				answered.Add(1)
			}
		})
	}
	one := &pb.ModelInferRequest{ModelName: "sums", Inputs: []*pb.ModelInferRequest_InferInputTensor{
		{Name: "x", Datatype: "FP32", Shape: []int64{1, 2}, Contents: &pb.InferTensorContents{Fp32Contents: []float32{1, 2}}},
		{Name: "scale", Datatype: "INT64", Shape: []int64{}, Contents: &pb.InferTensorContents{Int64Contents: []int64{3}}}}}
	var called atomic.Int64
	for range 2 {
		clients.Go(func() {
			conn, err := grpc.NewClient(p.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			client := pb.NewGRPCInferenceServiceClient(conn)
			for {
				_, err := client.ModelInfer(t.Context(), one)
				if err != nil {
					if !signalled.Load() || status.Code(err) != codes.Unavailable {
						t.Errorf("a call failed: %v", err)
					}
					return
				}
				called.Add(1)
			}
		})
	}
	time.Sleep(300 * time.Millisecond)
	before, calledBefore := answered.Load(), called.Load()
	signalled.Store(true)
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	seen := 0
	for {
		r, err := http.Get(p.HTTP + "/v2/health/ready")
		if err != nil {
			break
		}
		r.Body.Close()
		if r.StatusCode == 503 {
			seen++
			time.Sleep(50 * time.Millisecond)
		}
	}
	clients.Wait()
	log := p.ended(t)
	if before == 0 || answered.Load() <= before {
		t.Errorf("%d answers before the signal, %d in all: there was no load", before, answered.Load())
	}
	if seen < 5 {
		t.Errorf("readiness was false %d times before the server refused connections, want a while", seen)
	}
	done := int64(strings.Count(log, `"method":"POST","route":"/v2/models/{model}/infer","status":200,`))
	if all := int64(strings.Count(log, `"method":"POST","route":"/v2/models/{model}/infer",`)); done != answered.Load() || all != done {
		t.Errorf("the server took %d requests and answered %d of them; clients have %d answers", all, done, answered.Load())
	}
	calls := int64(strings.Count(log, `/ModelInfer","status":"OK"`))
	if all := int64(strings.Count(log, `/ModelInfer","status":`)); calledBefore == 0 || calls != called.Load() || all != calls {
		t.Errorf("the server took %d calls and answered %d of them; clients have %d answers, %d before the signal", all, calls, called.Load(), calledBefore)
	}
	t.Logf("%d answers, %d of them after SIGTERM; %d clients found no server in the end", answered.Load(), answered.Load()-before, lost.Load())
}

// A second signal ends the process while it waits for a session.
func TestServeSecondSignal(t *testing.T) {
	graph, _ := serveModels(t)
	p := startServer(t, graph, "--drain", "60s")
	if status, body := fetch(t, http.MethodPost, p.HTTP+"/v2/models/sums/infer", `{"parameters":{"sequence_id":7,"sequence_start":true},"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]},{"name":"scale","shape":[],"datatype":"INT64","data":[3]}]}`); status != 200 {
		t.Fatal(body)
	}
	began := time.Now()
	for range 2 {
		if err := p.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		time.Sleep(500 * time.Millisecond)
	}
	var exit *exec.ExitError
	if err := p.Wait(); !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted || time.Since(began) > 10*time.Second {
		t.Errorf("%v after %v: %s", err, time.Since(began), p.log)
	}
}

// A server with tokens and a store is killed and started again: a sequence goes on with the
// bits that it would have had. A model whose file changes is loaded anew; the sequence stays
// with the one that it began in.
func TestServeKilled(t *testing.T) {
	graph, _ := serveModels(t)
	dir := t.TempDir()
	tokens := filepath.Join(dir, "tokens")
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"serve", "--new-token", "sensors=infer"}, nil, &stdout, &stderr); code != exitOK {
		t.Fatalf("exit %d: %s", code, stderr.String())
	}
	if err := os.WriteFile(tokens, stdout.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	said := strings.Split(strings.TrimSpace(stderr.String()), "\n")
	token := said[len(said)-1]
	args := []string{graph, "--tokens", tokens, "--store", filepath.Join(dir, "sessions"), "--watch", "20ms", "--log", "info"}
	p := startServer(t, args...)
	step := func(id int, more string) (int, string) {
		t.Helper()
		q, err := http.NewRequest(http.MethodPost, p.HTTP+"/v2/models/sums/infer", strings.NewReader(fmt.Sprintf(
			`{"parameters":{"sequence_id":%d%s},"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]},{"name":"scale","shape":[],"datatype":"INT64","data":[3]}]}`, id, more)))
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Authorization", "Bearer "+token)
		r, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		text, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, string(text)
	}
	const begin = `,"sequence_start":true`
	if status, _ := fetch(t, http.MethodGet, p.HTTP+"/v2/models/sums", ""); status != 401 {
		t.Errorf("without a token: %d", status)
	}
	var want []string // of a sequence that nothing disturbs
	for i, more := range []string{begin, "", "", ""} {
		status, answer := step(1, more)
		if status != 200 {
			t.Fatalf("step %d: %s", i, answer)
		}
		want = append(want, answer)
	}
	for i, more := range []string{begin, ""} {
		if _, answer := step(2, more); answer != want[i] {
			t.Errorf("step %d: %s, want %s", i, answer, want[i])
		}
	}
	if err := p.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = p.Wait() // it was killed
	p = startServer(t, args...)
	if said := waitFor(t, p, "Sessions of "); !strings.Contains(said, "2 go on, 0 cannot") {
		t.Errorf("the sessions that were stored: %s", said)
	}
	if _, answer := step(2, ""); answer != want[2] {
		t.Errorf("after the server was killed: %s, want %s", answer, want[2])
	}

	b, err := os.ReadFile(graph)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(graph, []byte("damage"), 0o600); err != nil {
		t.Fatal(err)
	}
	seen := func(what string) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !strings.Contains(p.log.String(), what); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("the log does not say %q: %s", what, p.log)
			}
		}
	}
	seen("a model cannot be loaded")
	if _, answer := step(2, ""); answer != want[3] {
		t.Errorf("while the file is damaged: %s, want %s", answer, want[3])
	}
	if status, _ := fetch(t, http.MethodGet, p.HTTP+"/v2/health/ready", ""); status != 200 {
		t.Errorf("the server is not ready (%d), though its model answers", status)
	}
	if err := os.WriteFile(graph, b, 0o600); err != nil {
		t.Fatal(err)
	}
	seen("a model is as its files are")
	if log := p.end(t); strings.Contains(log, token) {
		t.Error("the token stands in the log")
	}
}

// The configuration is read again when it changes, and on SIGHUP, which does not end the
// server. Models and flags of the command line stay.
func TestServeReadsConfigAgain(t *testing.T) {
	graph, texts := serveModels(t)
	config := filepath.Join(t.TempDir(), "serve.yaml")
	write := func(text string) {
		t.Helper()
		if err := errors.Join(os.WriteFile(config+".new", []byte(text), 0o600), os.Rename(config+".new", config)); err != nil { // never seen half written
			t.Fatal(err)
		}
	}
	for _, watch := range []string{"off", "20ms"} {
		write("models:\n  - path: " + graph + "\n")
		p := startServer(t, texts+"=films", "--config", config, "--watch", watch, "--rows", "3", "--log", "info")
		took := 0
		asked := func(says string) {
			t.Helper()
			if watch == "off" {
				if err := p.Process.Signal(syscall.SIGHUP); err != nil {
					t.Fatal(err)
				}
			}
			took++
			for end := time.Now().Add(20 * time.Second); strings.Count(p.log.String(), "the configuration ") < took; time.Sleep(5 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("the log does not say %q: %s", says, p.log)
				}
			}
			if !strings.Contains(p.log.String(), says) {
				t.Errorf("the log does not say %q: %s", says, p.log)
			}
		}
		names := func(want string) {
			t.Helper()
			if _, got := fetch(t, http.MethodGet, p.HTTP+"/v2/models", ""); !strings.Contains(got, want) {
				t.Errorf("models %s, want %s", got, want)
			}
		}
		write("models:\n  - path: " + graph + "\n  - path: " + graph + "\n    name: more\n    rows: 9\n")
		asked(`"msg":"the configuration was read again"`)
		names(`["films","more","sums"]`)
		if _, got := fetch(t, http.MethodGet, p.HTTP+"/v2/models/more/config", ""); !strings.Contains(got, `"batch_rows":{"string_value":"3"}`) {
			t.Errorf("a flag does not hold for a model that came later: %s", got)
		}
		write("models:\n  - path: " + graph + "\n    row: 9\n")
		asked(`serve.yaml:3: there is no key \"models[0].row\"; did you mean rows?`)
		names(`["films","more","sums"]`)
		if _, got := fetch(t, http.MethodGet, p.HTTP+"/metrics", ""); !strings.Contains(got, "\ncarousel_config_current 0\n") {
			t.Error("a faulty configuration stands as current")
		}
		write("# no models but that of the command line\n")
		asked(`"msg":"the configuration was read again"`)
		names(`["films"]`)
		p.end(t)
	}
}

// A server of flags alone lives on at SIGHUP, and reads its models and tokens again, also if
// it looks at no files by itself.
func TestServeHearsSIGHUP(t *testing.T) {
	dir := t.TempDir()
	graph, tokens := filepath.Join(dir, "sums.onnx"), filepath.Join(dir, "tokens")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tokenOf := func(name string) (secret, line string) {
		t.Helper()
		secret, line, err := serve.NewToken(name, "infer,metrics", "")
		if err != nil {
			t.Fatal(err)
		}
		return secret, line + "\n"
	}
	_, first := tokenOf("first")
	secret, second := tokenOf("second")
	write(graph, string(onnxGraph("sums")))
	write(tokens, first)
	p := startServer(t, graph, "--watch", "off", "--tokens", tokens)
	status := func() int {
		t.Helper()
		q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.HTTP+"/v2/models/sums", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Authorization", "Bearer "+secret)
		r, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Fatal(err)
		}
		return r.StatusCode
	}
	if got := status(); got != http.StatusUnauthorized {
		t.Errorf("status %d before the token is there", got)
	}
	write(tokens, first+second)
	write(graph, "no model any more")
	if err := p.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); status() != http.StatusOK || !strings.Contains(p.log.String(), "a model cannot be loaded"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("nothing is read again: %s", p.log)
		}
	}
	p.end(t)
}
