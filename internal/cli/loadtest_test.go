package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/carousel-ml/carousel/internal/npy"
	"github.com/carousel-ml/carousel/serve/inference"
)

// inputsServer serves a model of floats x [-1,T,2], integers n and texts t, whose answer is
// how many elements came; each answer is another if fickle. It refuses each tenth request
// if it refuses at all.
func inputsServer(t *testing.T, fickle, refuses bool) (address string, last *atomic.Pointer[inference.Request]) {
	t.Helper()
	last = &atomic.Pointer[inference.Request]{}
	var count atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v2/models/m":
			io.WriteString(w, `{"name":"m","inputs":[{"name":"x","datatype":"FP32","shape":[-1,-1,2]},{"name":"n","datatype":"INT64","shape":[1]},{"name":"t","datatype":"BYTES","shape":[-1,1]}]}`)
		case "/v2/models/m/stats":
			fmt.Fprintf(w, `{"model_stats":[{"name":"m","inference_count":%d,"execution_count":%d}]}`, 6*count.Load(), 2*count.Load())
		case "/v2/models/m/infer":
			body, _ := io.ReadAll(r.Body)
			request, err := inference.ReadRequest(r.Header.Get(inference.HeaderLength), body)
			if err != nil {
				w.WriteHeader(400)
				w.Write(inference.WriteError(inference.AsError(err)))
				return
			}
			n := int64(0)
			for _, in := range request.Inputs {
				n += int64(in.Len())
			}
			last.Store(request)
			c := count.Add(1)
			if fickle {
				n = c
			}
			if refuses && c%10 == 0 {
				w.WriteHeader(503)
				io.WriteString(w, `{"error":"busy"}`)
				return
			}
			_, body, _ = inference.WriteResponse(&inference.Response{Model: "m", Outputs: []inference.Tensor{{Name: "y", Datatype: inference.INT64, Value: inference.Value{Dims: []int{1}, Ints: []int64{n}}}}}, nil)
			w.Write(body)
		default:
			w.WriteHeader(404)
			io.WriteString(w, `{"error":"Not Found"}`)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL, last
}

// beginServer starts carousel serve in a script's directory, until the script's end, and sets
// $HTTP and $GRPC to its addresses as loadtest takes them.
func beginServer(ts *testscript.TestScript, args []string) {
	c := exec.Command("carousel", append([]string{"serve", "--json", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"}, args...)...)
	c.Dir = ts.MkAbs(".")
	out, err := c.StdoutPipe()
	ts.Check(err)
	ts.Check(c.Start())
	ts.Defer(func() {
		_ = c.Process.Kill()
		_ = c.Wait() // it was killed
	})
	line, err := bufio.NewReader(out).ReadBytes('\n')
	ts.Check(err)
	var s served
	ts.Check(json.Unmarshal(line, &s))
	ts.Setenv("HTTP", s.HTTP)
	ts.Setenv("GRPC", "grpc://"+s.GRPC)
}

func loadtestRun(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Main(append([]string{"loadtest"}, args...), strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

func TestLoadtest(t *testing.T) {
	address, last := inputsServer(t, false, false)
	dir := t.TempDir()
	lines, array, page := filepath.Join(dir, "t.txt"), filepath.Join(dir, "x.npy"), filepath.Join(dir, "page.html")
	if err := os.WriteFile(lines, []byte("one\ntwo\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := npy.Write(&b, &npy.Array{Type: "f4", Dims: []int{3, 1, 5, 2}, Data: make([]byte, 120)}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(array, b.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	common := []string{address, "--model", "m", "--data", "t=" + lines, "--warmup", "0", "--requests", "40"}
	with := func(args ...string) []string { return append(append([]string{}, common...), args...) }

	for _, form := range []string{"binary", "json"} {
		code, stdout, stderr := loadtestRun(t, with("--shape", "x=2,7,2", "--tensors", form, "--check", "--json", "--page", page)...)
		if code != 0 {
			t.Fatalf("exit code %d: %s", code, stderr)
		}
		var r loadtestResult
		if err := json.Unmarshal([]byte(stdout), &r); err != nil {
			t.Fatal(err)
		}
		if r.Requests != 40 || r.Failed != 0 || r.Batch != 3 || r.Loop != "closed" || len(r.Models) != 1 || r.Latency.P50 <= 0 || r.Latency.Max < r.Latency.P99 {
			t.Errorf("%s: the result is %+v", form, r)
		}
		doc, err := readJSONPage()
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := doc.check(stdout); err != nil {
			t.Error(err)
		}
		got := last.Load()
		if len(got.Inputs) != 3 || fmt.Sprint(got.Inputs[0].Dims, got.Inputs[1].Dims, got.Inputs[2].Texts) != "[2 7 2] [1] [two]" {
			t.Errorf("%s: the last request was %+v", form, got)
		}
	}
	if html, err := os.ReadFile(page); err != nil || !bytes.Contains(html, []byte("Answers/s")) {
		t.Errorf("no page with the result: %v", err)
	}

	code, stdout, stderr := loadtestRun(t, with("--data", "x="+array, "--rate", "500", "--uniform")...)
	if code != 0 || !strings.Contains(stdout, "from sending") || !strings.Contains(stdout, "█") || !strings.Contains(stdout, "p99.9") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	if got := last.Load(); fmt.Sprint(got.Inputs[0].Dims) != "[1 5 2]" {
		t.Errorf("the shape of an array's part is %v, want [1 5 2]", got.Inputs[0].Dims)
	}

	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{with(), 2, "what its free dimensions are, as in --shape x=1,100,8"},
		{with("--shape", "x=2,7,3"), 2, "does not fit"},
		{with("--shape", "x=2,a,3"), 2, "want sizes such as 2,3"},
		{with("--shape", "z=2"), 2, `there is no input "z"`},
		{with("--shape", "x=1,7,2", "--data", "x="+array), 2, "wants [1,7,2], or one more dimension"},
		{with("--data", "n="+array, "--shape", "x=1,1,2"), 2, "float"},
		{[]string{address, "--model", "m", "--shape", "x=1,1,2"}, 2, "input t is text"},
		{[]string{address}, 2, "--model is missing"},
		{[]string{address, "--model", "other"}, 1, "HTTP 404: Not Found"},
		{[]string{"host:80", "--model", "m"}, 2, "want http://HOST:PORT"},
		{with("--uniform"), 2, "give a rate"},
		{with("--session-length", "3"), 2, "with --sessions"},
		{with("--slo", "1ms"), 2, "not with --slo"},
		{with("--concurrency", "0"), 2, "want 1 to 20000"},
		{with("--tensors", "text"), 2, "want binary or json"},
	} {
		code, _, stderr := loadtestRun(t, c.args...)
		if code != c.code || !strings.Contains(stderr, c.want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: exit code %d, %q; want %d, %q", c.args[1:], code, stderr, c.code, c.want)
		}
	}
}

// TestLoadtestChecks wants answers that differ to fail the command, beside its result.
func TestLoadtestChecks(t *testing.T) {
	address, _ := inputsServer(t, true, false)
	code, stdout, stderr := loadtestRun(t, address, "--model", "m", "--omit", "t", "--shape", "x=1,1,2", "--warmup", "0", "--requests", "40", "--check", "--json")
	if code != 1 || !strings.Contains(stderr, "24 answers differ") || !strings.Contains(stdout, `"kind":"differs","count":24`) {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
}

// TestLoadtestSearch wants a rate from the search of a server that answers some 400 requests
// a second, or an error that says there is none.
func TestLoadtestSearch(t *testing.T) {
	var one sync.Mutex
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			io.WriteString(w, `{"name":"m","inputs":[{"name":"x","datatype":"FP32","shape":[-1,2]}]}`)
			return
		}
		io.Copy(io.Discard, r.Body)
		one.Lock()
		defer one.Unlock()
		time.Sleep(2 * time.Millisecond)
		io.WriteString(w, `{"model_name":"m","outputs":[]}`)
	}))
	defer s.Close()
	args := []string{s.URL, "--model", "m", "--warmup", "0", "--duration", "300ms", "--rate", "300", "--json"}
	code, stdout, stderr := loadtestRun(t, append(args, "--slo", "1ms")...)
	if code != 1 || !strings.Contains(stderr, "no rate has a p99 of at most 1ms") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	code, stdout, stderr = loadtestRun(t, append(args, "--slo", "300ms")...)
	if code != 0 || !strings.Contains(stdout, `"objective_ms":300`) || !strings.Contains(stdout, `"search":[{"rate":300,`) {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
}
