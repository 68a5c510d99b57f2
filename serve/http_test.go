package serve

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/model/onnx"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/serve/batch"
	"github.com/carousel-ml/carousel/serve/inference"
	"github.com/carousel-ml/carousel/tensor"
)

const testWidth, testHidden = 4, 8

// exported writes an LSTM as an ONNX file, whose state is among its inputs or not.
func exported(tb testing.TB, path string, width, hidden int, state bool) {
	tb.Helper()
	net := struct{ RNN *nn.RNN }{nn.NewLSTM(width, hidden, nil)}
	tensor.Pack(tensor.CPU(), &net, 1)
	if _, err := onnx.Export(context.Background(), path, &onnx.Stack{RNN: net.RNN}, &onnx.ExportOptions{State: state}); err != nil {
		tb.Fatal(err)
	}
}

// newTestServer serves "step", an LSTM that keeps its state, "plain", one that does not,
// "words", a classifier of texts, and "both", a pipeline of the first two.
func newTestServer(tb testing.TB, o Options) *Server {
	tb.Helper()
	dir := tb.TempDir()
	step, plain := filepath.Join(dir, "step.onnx"), filepath.Join(dir, "plain.onnx")
	exported(tb, step, testWidth, testHidden, true)
	exported(tb, plain, testHidden, testHidden, false)
	o.Tasks, o.Version = carousel.Tasks, "test"
	s := New(o)
	for _, c := range []ModelConfig{{Path: step}, {Path: plain, Labels: map[string][]string{"y": {"a", "b", "c"}}},
		{Name: "words", Path: filepath.Join("..", "testdata", "format1", "classify", "model")}} {
		if err := s.Add(context.Background(), c); err != nil {
			tb.Fatal(err)
		}
	}
	if err := s.AddPipeline(PipelineConfig{Name: "both", Stages: []StageConfig{
		{Model: "step", Outputs: map[string]string{"y": "middle"}}, {Model: "plain", Inputs: map[string]string{"x": "middle"}}}}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = s.Close(context.Background()) })
	return s
}

// listen serves HTTP on a port of its own and returns the base of its URLs.
func listen(tb testing.TB, s *Server) string {
	tb.Helper()
	h := httptest.NewUnstartedServer(s.Handler())
	h.Config.ConnContext = s.ConnContext
	h.Start()
	tb.Cleanup(h.Close)
	return h.URL
}

// plainTransport leaves compressed answers as they come.
var plainTransport = &http.Transport{DisableCompression: true}

// ask sends a request and returns the status and the body.
func ask(tb testing.TB, method, url, body string, headers ...string) (*http.Response, string) {
	tb.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	answer, err := plainTransport.RoundTrip(r)
	if err != nil {
		tb.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return answer, string(text)
}

// stepBody is a request of one step whose elements are x, x+1, ...
func stepBody(tb testing.TB, x float32, binary bool, params inference.Params, outputs ...inference.Output) (header, body string) {
	tb.Helper()
	q := &inference.Request{ID: "7", Params: params, Inputs: []inference.Tensor{stepInput(x)}, Outputs: outputs}
	header, b, err := inference.WriteRequest(q, binary)
	if err != nil {
		tb.Fatal(err)
	}
	return header, string(b)
}

func stepInput(x float32) inference.Tensor {
	t := inference.Tensor{Name: "x", Datatype: inference.FP32, Value: inference.Value{Dims: []int{1, 1, testWidth}}}
	for i := range testWidth {
		t.Floats = append(t.Floats, x+float32(i))
	}
	return t
}

// expected returns what the server answers without a wire.
func expected(tb testing.TB, s *Server, model string, params inference.Params, inputs ...inference.Tensor) *inference.Response {
	tb.Helper()
	r, err := s.Infer(context.Background(), &inference.Request{Model: model, Params: params, Inputs: inputs}, Caller{})
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func output(tb testing.TB, r *inference.Response, name string) *inference.Tensor {
	tb.Helper()
	for i := range r.Outputs {
		if r.Outputs[i].Name == name {
			return &r.Outputs[i]
		}
	}
	tb.Fatalf("no output %q", name)
	return nil
}

func TestPaths(t *testing.T) {
	s := newTestServer(t, Options{})
	url := listen(t, s)
	if err := s.AddPipeline(PipelineConfig{Name: "a b+c%d", Stages: []StageConfig{{Model: "plain"}}}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		method, path string
		status       int
		want         string // in the body
	}{
		{"GET", "/v2", 200, `"name":"carousel"`},
		{"HEAD", "/v2", 200, ""},
		{"GET", "/v2/health/live", 200, `{"live":true}`},
		{"GET", "/v2/health/ready", 200, `{"ready":true}`},
		{"GET", "/v2/models", 200, `{"models":["a b+c%d","both","plain","step","words"]}`},
		{"GET", "/v2/models/step", 200, `"inputs":[{"datatype":"FP32","name":"x","shape":[-1,-1,4]}]`},
		{"GET", "/v2/models/step/versions/1", 200, `"versions":["1"]`},
		{"GET", "/v2/models/step/versions/2", 404, `has no version \"2\": it has 1`},
		{"GET", "/v2/models/step/versions/one", 404, `has no version`},
		{"GET", "/v2/models/other", 404, `unknown model \"other\": the server has`},
		{"GET", "/v2/models/step/ready", 200, `{"name":"step","ready":true}`},
		{"GET", "/v2/models/step/versions/1/ready", 200, `"ready":true`},
		{"GET", "/v2/models/other/ready", 404, `unknown model`},
		{"GET", "/v2/models/step/config", 200, `"max_batch_size":256`},
		{"GET", "/v2/models/step/versions/1/config", 200, `"max_sequence_idle_microseconds":60000000`},
		{"GET", "/v2/models/step/stats", 200, `"model_stats":[{`},
		{"GET", "/v2/models/step/versions/1/stats", 200, `"version":"1"`},
		{"GET", "/v2/models/stats", 200, `"name":"words"`},
		{"GET", "/v2/models/both", 200, `"platform":"ensemble"`},
		{"GET", "/v2/models/both/ready", 200, `"ready":true`},
		{"GET", "/v2/models/both/config", 200, `"output_map":{"y":"middle"}`},
		{"GET", "/v2/models/both/stats", 501, `ask for those of its models`},
		{"GET", "/v2/models/a%20b%2Bc%25d", 200, `"name":"a b+c%d"`},
		{"GET", "/v2/models/a%20b+c%25d/ready", 200, `"ready":true`},
		{"GET", "/v2/models/st%65p", 200, `"name":"step"`},
		{"GET", "/v2/models/a%2Fb", 404, `unknown model \"a/b\"`},
		{"GET", "/v2/models/%2e%2e/ready", 404, `unknown model \"..\"`},
		{"POST", "/v2/repository/index", 200, `{"name":"step","reason":"","state":"READY","version":"1"}`},
		{"POST", "/v2/repository/other/index", 501, `leave it out`},
		{"GET", "/v2/repository/index", 405, `Method Not Allowed: GET is not for \"/v2/repository/index\", expected POST`},
		{"GET", "/v2/models/step/infer", 405, `expected POST`},
		{"DELETE", "/v2/models/step", 405, `expected GET or HEAD`},
		{"PUT", "/v2/health/live", 405, `expected GET or HEAD`},
		{"GET", "/v1/classify", 405, `expected POST`},
		{"GET", "/", 404, `Not Found: there is nothing at \"/\"`},
		{"GET", "/v2/", 404, `Not Found`},
		{"GET", "/v2/models/", 404, `Not Found`},
		{"GET", "/v2//models", 404, `Not Found`},
		{"GET", "/v2/models/../models", 404, `Not Found`},
		{"GET", "/v2/health/other", 404, `Not Found`},
		{"POST", "/v1/chat/completions", 404, `Not Found`},
		{"GET", "/v2/models/step/infer/more", 404, `Not Found`},
		{"GET", "/v2/systemsharedmemory/status", 501, `no shared memory`},
		{"POST", "/v2/systemsharedmemory/region/a/register", 501, `no shared memory`},
		{"POST", "/v2/cudasharedmemory/unregister", 501, `no shared memory`},
		{"GET", "/v2/trace/setting", 501, `no traces`},
		{"POST", "/v2/models/step/trace/setting", 501, `no traces`},
		{"GET", "/v2/logging", 501, `no settings of its log`},
		{"POST", "/v2/models/step/generate", 501, `use infer`},
		{"POST", "/v2/models/step/versions/1/generate_stream", 501, `use infer`},
		{"POST", "/v2/models/step/infer", 400, `no body`},
		{"POST", "/v2/models/other/infer", 400, `no body`},
	} {
		a, text := ask(t, c.method, url+c.path, "")
		if a.StatusCode != c.status || !strings.Contains(text, c.want) {
			t.Errorf("%s %s: %d %s, want %d with %s", c.method, c.path, a.StatusCode, text, c.status, c.want)
		}
		if a.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: Content-Type %q", c.method, c.path, a.Header.Get("Content-Type"))
		}
		var is struct {
			Error *string `json:"error"`
		}
		if a.StatusCode != 200 && (json.Unmarshal([]byte(text), &is) != nil || is.Error == nil || *is.Error == "") {
			t.Errorf("%s %s: %d %s, want an object with the key error", c.method, c.path, a.StatusCode, text)
		}
		if a.StatusCode == 405 && a.Header.Get("Allow") == "" {
			t.Errorf("%s %s: no header Allow", c.method, c.path)
		}
	}
}

func TestRefusedBodies(t *testing.T) {
	s := newTestServer(t, Options{Limits: Limits{Body: 2000}})
	url := listen(t, s) + "/v2/models/step"
	_, good := stepBody(t, 1, false, nil)
	var zipped strings.Builder
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write(make([]byte, 1<<20))
	_ = z.Close()
	var whole strings.Builder
	z = gzip.NewWriter(&whole)
	_, _ = io.WriteString(z, good)
	_ = z.Close()
	for _, c := range []struct {
		name, path, body string
		headers          []string
		status           int
		want             string
	}{
		{"not json", "/infer", "{", nil, 400, "JSON, byte"},
		{"no inputs", "/infer", "{}", nil, 400, "has no \\\"inputs\\\""},
		{"header not a number", "/infer", good, []string{inference.HeaderLength, "x"}, 400, inference.HeaderLength},
		{"header beyond the body", "/infer", good, []string{inference.HeaderLength, "5000"}, 400, inference.HeaderLength},
		{"negative header", "/infer", good, []string{inference.HeaderLength, "-1"}, 400, inference.HeaderLength},
		{"bytes left over", "/infer", good + "1234", []string{inference.HeaderLength, strconv.Itoa(len(good))}, 400, "follow the JSON"},
		{"wrong input", "/infer", strings.Replace(good, `"name":"x"`, `"name":"z"`, 1), nil, 400, `has no input`},
		{"wrong datatype", "/infer", strings.Replace(good, `FP32`, `FP64`, 1), nil, 400, `expected datatype FP32, got FP64`},
		{"negative shape", "/infer", strings.Replace(good, `[1,1,4]`, `[-1,1,4]`, 1), nil, 400, `negative`},
		{"shape that overflows", "/infer", strings.Replace(good, `[1,1,4]`, `[4611686018427387904,4,4]`, 1), nil, 400, `elements`},
		{"version", "/versions/3/infer", good, nil, 404, `has no version`},
		{"sequence without START", "/infer", strings.Replace(good, `{`, `{"parameters":{"sequence_id":"new"},`, 1), nil, 400, `must specify the START flag`},
		{"too large", "/infer", strings.Repeat(" ", 2001), nil, 413, `more than 2000 bytes`},
		{"too large when inflated", "/infer", zipped.String(), []string{"Content-Encoding", "gzip"}, 413, `more than 2000 bytes`},
		{"not gzip", "/infer", good, []string{"Content-Encoding", "gzip"}, 400, `not what Content-Encoding says`},
		{"not deflate", "/infer", good, []string{"Content-Encoding", "deflate"}, 400, `not what Content-Encoding says`},
		{"cut gzip", "/infer", whole.String()[:40], []string{"Content-Encoding", "gzip"}, 400, `not what Content-Encoding says`},
		{"unknown encoding", "/infer", good, []string{"Content-Encoding", "br"}, 400, `expected gzip, deflate or none`},
	} {
		a, text := ask(t, "POST", url+c.path, c.body, c.headers...)
		if a.StatusCode != c.status || !strings.Contains(text, c.want) || !strings.HasPrefix(text, `{"error":`) {
			t.Errorf("%s: %d %s, want %d with %s", c.name, a.StatusCode, text, c.status, c.want)
		}
	}

	// A body that is announced and not sent costs neither memory nor an answer of 200.
	c, err := net.Dial("tcp", strings.TrimPrefix(strings.TrimSuffix(url, "/v2/models/step"), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "POST /v2/models/step/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{")
	_ = c.(*net.TCPConn).CloseWrite()
	a, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if a.StatusCode == 200 {
		t.Error("a body that ends early was answered")
	}
}

func TestInferForms(t *testing.T) {
	s := newTestServer(t, Options{})
	url := listen(t, s) + "/v2/models/step/infer"
	want := output(t, expected(t, s, "step", nil, stepInput(1)), "y")
	squeeze := func(as, text string) string {
		var b bytes.Buffer
		var z io.WriteCloser = gzip.NewWriter(&b)
		if as == "deflate" {
			z = zlib.NewWriter(&b)
		}
		_, _ = io.WriteString(z, text)
		_ = z.Close()
		return b.String()
	}
	for _, binary := range []bool{false, true} {
		for _, as := range []string{"", "gzip", "deflate"} {
			header, body := stepBody(t, 1, binary, nil)
			var headers []string
			if header != "" {
				headers = append(headers, inference.HeaderLength, header)
			}
			if as != "" {
				body = squeeze(as, body)
				headers = append(headers, "Content-Encoding", as)
			}
			a, text := ask(t, "POST", url, body, headers...)
			r, err := inference.ReadResponse(a.Header.Get(inference.HeaderLength), []byte(text))
			if err != nil {
				t.Fatal(a.Status, text, err)
			}
			if got := output(t, r, "y"); !sameBits(&got.Value, &want.Value) || r.ID != "7" || r.Model != "step" || r.Version != "1" {
				t.Errorf("binary %v, %q: got %+v, want %+v", binary, as, r, want)
			}
			if wanted := inference.ContentType(a.Header.Get(inference.HeaderLength)); a.Header.Get("Content-Type") != wanted || (wanted != "application/json") != binary {
				t.Errorf("binary %v: Content-Type %q", binary, a.Header.Get("Content-Type"))
			}
		}
	}

	// A raw request is the input's bytes alone.
	var raw []byte
	for _, x := range stepInput(1).Floats {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
	}
	a, text := ask(t, "POST", url, string(raw), inference.HeaderLength, "0")
	r, err := inference.ReadResponse(a.Header.Get(inference.HeaderLength), []byte(text))
	if err != nil {
		t.Fatal(text, err)
	}
	if got := output(t, r, "y"); !sameBits(&got.Value, &want.Value) || a.Header.Get(inference.HeaderLength) == "" {
		t.Errorf("raw: got %+v, want %+v", got, want)
	}

	// Classification: the largest values with their places.
	_, body := stepBody(t, 1, false, nil, inference.Output{Name: "y", Params: inference.Params{"classification": int64(2)}})
	_, text = ask(t, "POST", url, body)
	best := 0
	for i, y := range want.Floats {
		if y > want.Floats[best] {
			best = i
		}
	}
	if first := fmt.Sprintf(`"shape":[1,2],"data":["%f:%d"`, want.Floats[best], best); !strings.Contains(text, first) {
		t.Errorf("classification: %s, want %s", text, first)
	}
	piped := expected(t, s, "both", nil, stepInput(1)).Outputs[0]
	piped.Value, piped.Datatype = classify(&piped, 2, []string{"a", "b", "c"}), inference.BYTES
	_, body = stepBody(t, 1, false, nil, inference.Output{Name: piped.Name, Params: inference.Params{"classification": int64(2)}})
	_, text = ask(t, "POST", strings.Replace(url, "/step/", "/both/", 1), body)
	if r, err := inference.ReadResponse("", []byte(text)); err != nil || !slices.Equal(r.Outputs[0].Texts, piped.Texts) {
		t.Errorf("classification of a pipeline: %s, want %q", text, piped.Texts)
	}
}

// TestPipelineOfAState gives a pipeline's clients the state of a stage, with a name of its
// own, whether or not they keep it in a session.
func TestPipelineOfAState(t *testing.T) {
	s := newTestServer(t, Options{})
	state := ""
	for _, out := range s.models.get("step").versions[0].outs {
		if out.State {
			state = out.Name
		}
	}
	if err := s.AddPipeline(PipelineConfig{Name: "told", Stages: []StageConfig{{Model: "step", Outputs: map[string]string{state: "state"}}}}); err != nil {
		t.Fatal(err)
	}
	want := *output(t, expected(t, s, "step", nil, stepInput(1)), state)
	for _, params := range []inference.Params{nil, sequenceParams("a", true, false)} {
		got := expected(t, s, "told", params, stepInput(1))
		if names := len(got.Outputs); names != 2 || !sameBits(&output(t, got, "state").Value, &want.Value) {
			t.Errorf("with %v: %d outputs %+v, want y and state %+v", params, names, got.Outputs, want)
		}
	}
}

// TestCompressedAnswers checks that large answers are compressed for those who take it, if
// that makes them smaller.
func TestCompressedAnswers(t *testing.T) {
	s := newTestServer(t, Options{})
	url := listen(t, s) + "/v2/models/plain/infer"
	zeros := inference.Tensor{Name: "x", Datatype: inference.FP32, Value: inference.Value{Dims: []int{1, 2000, testHidden}, Floats: make([]float32, 2000*testHidden)}}
	want := output(t, expected(t, s, "plain", nil, zeros), "y")
	for _, c := range []struct {
		accept string
		binary bool
		as     string
	}{{"gzip", false, "gzip"}, {"deflate", false, "deflate"}, {"gzip, deflate", true, "gzip"}, {"br;q=1, deflate;q=0.5", false, "deflate"}, {"gzip;q=0", false, ""}, {"gzip; q=0.000, br", false, ""}, {"", true, ""}} {
		_, body, err := inference.WriteRequest(&inference.Request{Inputs: []inference.Tensor{zeros}, Params: inference.Params{"binary_data_output": c.binary}}, false)
		if err != nil {
			t.Fatal(err)
		}
		a, text := ask(t, "POST", url, string(body), "Accept-Encoding", c.accept)
		if a.Header.Get("Content-Encoding") != c.as || a.Header.Get("Content-Length") != strconv.Itoa(len(text)) {
			t.Errorf("%q: Content-Encoding %q, Content-Length %q of %d", c.accept, a.Header.Get("Content-Encoding"), a.Header.Get("Content-Length"), len(text))
		}
		var plain io.Reader = strings.NewReader(text)
		switch a.Header.Get("Content-Encoding") {
		case "gzip":
			plain, err = gzip.NewReader(plain)
		case "deflate":
			plain, err = zlib.NewReader(plain)
		}
		if err != nil {
			t.Fatal(err)
		}
		whole, err := io.ReadAll(plain)
		if err != nil {
			t.Fatal(err)
		}
		r, err := inference.ReadResponse(a.Header.Get(inference.HeaderLength), whole)
		if err != nil {
			t.Fatal(err)
		}
		if got := output(t, r, "y"); !sameBits(&got.Value, &want.Value) {
			t.Errorf("%q: another answer", c.accept)
		}
	}
	noise := make([]byte, 40000)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	if deflated("gzip", noise) != nil {
		t.Error("noise was compressed")
	}
}

// TestSequenceOverHTTP checks that the state of a sequence is carried from request to
// request, and restarted.
func TestSequenceOverHTTP(t *testing.T) {
	s := newTestServer(t, Options{})
	url := listen(t, s) + "/v2/models/step/infer"
	params := func(start, end bool) inference.Params {
		return inference.Params{"sequence_id": "stream", "sequence_start": start, "sequence_end": end}
	}
	var want [][]float32
	for i := range 3 { // of another sequence, without the wire
		p := params(i == 0, i == 2)
		p["sequence_id"] = "other"
		want = append(want, output(t, expected(t, s, "step", p, stepInput(float32(i))), "y").Floats)
	}
	for round := range 2 {
		for i := range 3 {
			_, body := stepBody(t, float32(i), false, params(i == 0, i == 2))
			_, text := ask(t, "POST", url, body)
			r, err := inference.ReadResponse("", []byte(text))
			if err != nil {
				t.Fatal(text, err)
			}
			if len(r.Outputs) != 1 || !slices.Equal(r.Outputs[0].Floats, want[i]) {
				t.Errorf("round %d, step %d: got %+v, want y %v", round, i, r.Outputs, want[i])
			}
		}
	}
	_, body := stepBody(t, 0, false, params(false, false))
	if a, text := ask(t, "POST", url, body); a.StatusCode != 400 || !strings.Contains(text, "must specify the START flag") {
		t.Errorf("after the end: %d %s", a.StatusCode, text)
	}
}

func TestRepository(t *testing.T) {
	s := newTestServer(t, Options{})
	url := listen(t, s)
	_, body := stepBody(t, 1, false, nil)
	infer := func() (int, string) {
		a, text := ask(t, "POST", url+"/v2/models/step/infer", body)
		return a.StatusCode, text
	}
	post := func(path, body string, status int, want string) {
		t.Helper()
		if a, text := ask(t, "POST", url+"/v2/repository"+path, body); a.StatusCode != status || !strings.Contains(text, want) {
			t.Errorf("%s %s: %d %s, want %d with %s", path, body, a.StatusCode, text, status, want)
		}
	}
	_, before := infer()
	post("/models/step/unload", `{"parameters":{"unload_dependents":false}}`, 200, "{}")
	if status, text := infer(); status != 503 || !strings.Contains(text, "it was unloaded") {
		t.Errorf("after unload: %d %s", status, text)
	}
	if a, text := ask(t, "GET", url+"/v2/models/step/ready", ""); a.StatusCode != 503 || !strings.Contains(text, `"error"`) {
		t.Errorf("ready after unload: %d %s", a.StatusCode, text)
	}
	if a, _ := ask(t, "GET", url+"/v2/models/both/ready", ""); a.StatusCode != 503 {
		t.Errorf("a pipeline is ready without its model: %d", a.StatusCode)
	}
	post("/index", "", 200, `{"name":"step","reason":"it was unloaded","state":"UNAVAILABLE","version":""}`)
	a, text := ask(t, "POST", url+"/v2/repository/index", `{"ready":true}`)
	if a.StatusCode != 200 || strings.Contains(text, `"step"`) || !strings.Contains(text, `"plain"`) {
		t.Errorf("index of ready models: %s", text)
	}
	post("/models/step/load", "", 200, "{}")
	if status, text := infer(); status != 200 || text != before {
		t.Errorf("after load: %d %s, want %s", status, text, before)
	}
	post("/models/step/load", "{}", 200, "{}") // again, while it is loaded
	if status, text := infer(); status != 200 || text != before {
		t.Errorf("after the second load: %d %s, want %s", status, text, before)
	}
	post("/models/other/load", "", 404, "unknown model")
	post("/models/other/unload", "", 404, "unknown model")
	post("/models/step/load", `{"parameters":{"config":"{}"}}`, 501, `parameter \"config\"`)
	post("/models/step/load", `{"parameters":{"file:1/model.onnx":"AAAA"}}`, 501, `parameter \"file:1/model.onnx\"`)
	post("/models/step/unload", `{"parameters":{"unload_dependents":1}}`, 400, "unload_dependents")
	post("/models/step/unload", `{"parameter":{}}`, 400, `unknown key \"parameter\"`)
	post("/models/step/unload", `[]`, 400, "expected an object or nothing")
	post("/models/step/unload", `{} {}`, 400, "more than one object")
	post("/mine/models/step/load", ``, 501, "leave it out")
	post("/index", `{"ready":"yes"}`, 400, "the body")

	// A pipeline is unloaded alone, or with its models.
	post("/models/both/unload", "", 200, "{}")
	if a, _ := ask(t, "GET", url+"/v2/models/both/ready", ""); a.StatusCode != 503 {
		t.Errorf("the pipeline is ready after unload: %d", a.StatusCode)
	}
	if a, _ := ask(t, "GET", url+"/v2/models/step/ready", ""); a.StatusCode != 200 {
		t.Errorf("the pipeline's model is not ready: %d", a.StatusCode)
	}
	post("/models/both/load", "", 200, "{}")
	post("/models/both/unload", `{"parameters":{"unload_dependents":true}}`, 200, "{}")
	if a, _ := ask(t, "GET", url+"/v2/models/step/ready", ""); a.StatusCode != 503 {
		t.Errorf("the pipeline's model is ready after unload_dependents: %d", a.StatusCode)
	}
}

func TestStatistics(t *testing.T) {
	s := newTestServer(t, Options{})
	url := listen(t, s)
	_, good := stepBody(t, 1, false, nil)
	for range 5 {
		if a, text := ask(t, "POST", url+"/v2/models/step/infer", good); a.StatusCode != 200 {
			t.Fatal(text)
		}
	}
	ask(t, "POST", url+"/v2/models/step/infer", strings.Replace(good, "[1,1,4]", "[1,4,1]", 1)) // fails
	two := inference.Tensor{Name: "x", Datatype: inference.FP32, Value: inference.Value{Dims: []int{2, 1, testWidth}, Floats: make([]float32, 2*testWidth)}}
	expected(t, s, "step", nil, two)
	_, text := ask(t, "GET", url+"/v2/models/step/stats", "")
	var got struct {
		ModelStats []struct {
			Name           string
			Version        string
			LastInference  int64                                `json:"last_inference"`
			InferenceCount int                                  `json:"inference_count"`
			ExecutionCount int                                  `json:"execution_count"`
			InferenceStats map[string]struct{ Count, NS int64 } `json:"inference_stats"`
		} `json:"model_stats"`
	}
	if err := json.Unmarshal([]byte(text), &got); err != nil || len(got.ModelStats) != 1 {
		t.Fatal(text, err)
	}
	m := got.ModelStats[0]
	if m.Name != "step" || m.Version != "1" || m.InferenceCount != 7 || m.ExecutionCount != 6 || time.Since(time.UnixMilli(m.LastInference)) > time.Minute {
		t.Errorf("got %s, want 7 rows in 6 passes", text)
	}
	for key, count := range map[string]int64{"success": 6, "fail": 1, "queue": 6, "compute_input": 6, "compute_infer": 6, "compute_output": 6, "cache_hit": 0, "cache_miss": 0} {
		if d, ok := m.InferenceStats[key]; !ok || d.Count != count || (key == "success" || strings.HasPrefix(key, "compute")) && d.NS <= 0 {
			t.Errorf("%s: got %+v, want count %d", key, d, count)
		}
	}
}

// TestRefusalsAreHeldBack checks that a client whose requests find the queue full is told
// when to come back, and cannot come back at once.
func TestRefusalsAreHeldBack(t *testing.T) {
	s := newTestServer(t, Options{Limits: Limits{Sessions: batch.SessionOptions{Most: 1}}})
	url := listen(t, s) + "/v2/models/step/infer"
	for i, want := range []int{200, 429} {
		_, body := stepBody(t, 1, false, inference.Params{"sequence_id": int64(i + 1), "sequence_start": true})
		began := time.Now()
		a, text := ask(t, "POST", url, body)
		if a.StatusCode != want {
			t.Fatalf("request %d: %d %s, want %d", i, a.StatusCode, text, want)
		}
		if want != 429 {
			continue
		}
		if took := time.Since(began); took < slowness {
			t.Errorf("the refusal came after %v, want %v", took, slowness)
		}
		if again, err := strconv.Atoi(a.Header.Get("Retry-After")); err != nil || again < 1 {
			t.Errorf("Retry-After %q", a.Header.Get("Retry-After"))
		}
	}
	s.slowed.Store(mostSlowed) // as many are held back as may be: others are told at once
	began := time.Now()
	s.slow(context.Background(), &inference.Error{Code: inference.Exhausted})
	if took := time.Since(began); took > slowness/2 {
		t.Errorf("one refusal too many was held back for %v", took)
	}
}

func TestPanicsAreAnswered(t *testing.T) {
	var log bytes.Buffer
	s := newTestServer(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	log.Reset()
	mux := http.NewServeMux()
	mux.HandleFunc("/early", func(http.ResponseWriter, *http.Request) { panic("secret") })
	mux.HandleFunc("/late", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "begun")
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		panic("secret")
	})
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serveHTTP(mux, w, r) }))
	h.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	defer h.Close()
	if a, text := ask(t, "GET", h.URL+"/early", ""); a.StatusCode != 500 || !strings.HasPrefix(text, `{"error":`) || strings.Contains(text, "secret") {
		t.Errorf("got %d %s", a.StatusCode, text)
	}
	if !strings.Contains(log.String(), "/early") || !strings.Contains(log.String(), "stack=") {
		t.Errorf("the log has %q", log.String())
	}
	a, err := http.Get(h.URL + "/late")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	if text, err := io.ReadAll(a.Body); err == nil || string(text) != "begun" {
		t.Errorf("an answer that was cut off reads as whole: %q", text)
	}
}

func TestDrainingIsNotReady(t *testing.T) {
	s := newTestServer(t, Options{})
	url := listen(t, s)
	if err := s.Drain(context.Background()); err != nil {
		t.Fatal(err)
	}
	if a, text := ask(t, "GET", url+"/v2/health/ready", ""); a.StatusCode != 503 || !strings.Contains(text, "not ready") {
		t.Errorf("ready: %d %s", a.StatusCode, text)
	}
	if a, _ := ask(t, "GET", url+"/v2/health/live", ""); a.StatusCode != 200 {
		t.Errorf("live: %d", a.StatusCode)
	}
	_, body := stepBody(t, 1, false, nil)
	if a, text := ask(t, "POST", url+"/v2/models/step/infer", body); a.StatusCode != 200 {
		t.Errorf("a request while draining: %d %s", a.StatusCode, text)
	}
	_, body = stepBody(t, 1, false, inference.Params{"sequence_id": "a", "sequence_start": true})
	if a, text := ask(t, "POST", url+"/v2/models/step/infer", body); a.StatusCode != 503 {
		t.Errorf("a new sequence while draining: %d %s", a.StatusCode, text)
	}
}

// TestCallers checks that requests of one connection share a name, and others have theirs.
func TestCallers(t *testing.T) {
	s := newTestServer(t, Options{})
	seen := make(chan Caller, 3)
	h := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { seen <- s.caller(r) }))
	h.Config.ConnContext = s.ConnContext
	h.Start()
	defer h.Close()
	a, b := &http.Client{Transport: &http.Transport{}}, &http.Client{Transport: &http.Transport{}}
	for _, c := range []*http.Client{a, a, b} {
		r, err := c.Get(h.URL)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, r.Body)
		r.Body.Close()
	}
	first, second, third := <-seen, <-seen, <-seen
	if first != second || first.Conn == third.Conn || first.Conn == "" || first.Client != "127.0.0.1" || third.Client != first.Client {
		t.Errorf("got %+v, %+v, %+v", first, second, third)
	}
}

// TestTaskPaths checks that the tasks' own form finds its models: by name, or the only one.
func TestTaskPaths(t *testing.T) {
	s := newTestServer(t, Options{})
	url := listen(t, s)
	for _, c := range []struct {
		path, body string
		status     int
		want       string
	}{
		{"/v1/classify", `{"text":"a good one"}`, 200, `"label":"pos"`},
		{"/v1/classify", `{"model":"words","version":"1","texts":["bad, very bad"]}`, 200, `"label":"neg"`},
		{"/v1/classify", `{"model":"step","text":"a"}`, 400, `model \"step\" is not for classify; ask it at /v2/models/step/infer`},
		{"/v1/classify", `{"model":"both","text":"a"}`, 400, `is not for classify`},
		{"/v1/classify", `{"model":"words","version":"2","text":"a"}`, 404, `has no version`},
		{"/v1/classify", `{"model":"other","text":"a"}`, 404, `unknown model`},
		{"/v1/translate", `{"text":"a"}`, 400, `it has none`},
	} {
		if a, text := ask(t, "POST", url+c.path, c.body); a.StatusCode != c.status || !strings.Contains(text, c.want) {
			t.Errorf("%s %s: %d %s, want %d with %s", c.path, c.body, a.StatusCode, text, c.status, c.want)
		}
	}
	if err := s.Add(context.Background(), ModelConfig{Name: "more", Path: filepath.Join("..", "testdata", "format1", "classify", "model")}); err != nil {
		t.Fatal(err)
	}
	if a, text := ask(t, "POST", url+"/v1/classify", `{"text":"a"}`); a.StatusCode != 400 || !strings.Contains(text, "it has more, words") {
		t.Errorf("with two models: %d %s", a.StatusCode, text)
	}
	if a, text := ask(t, "POST", url+"/v1/classify", `{"text":"a"}`, "Content-Encoding", "gzip"); a.StatusCode != 400 || !strings.Contains(text, "not what Content-Encoding says") {
		t.Errorf("a body that is not compressed: %d %s", a.StatusCode, text)
	}
}
