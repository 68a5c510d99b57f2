package serve

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/model/onnx"
	"github.com/carousel-ml/carousel/model/onnx/graph"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/serve/batch"
	"github.com/carousel-ml/carousel/serve/inference"
	"github.com/carousel-ml/carousel/tensor"
)

// The tests of this file are troubles that users of other servers had with sequences, each
// as its scenario. The state of the model "step" is one that answers betray: those of a
// sequence are compared with the answers that it has when it is alone.

// codeOf returns the class of an error.
func codeOf(err error) inference.Code { return inference.AsError(err).Code }

// inferStep sends a step of a sequence.
func inferStep(s *Server, id any, start, end bool, x float32) ([]float32, error) {
	return inferStepOf(context.Background(), s, "step", id, start, end, x)
}

func inferStepOf(ctx context.Context, s *Server, model string, id any, start, end bool, x float32) ([]float32, error) {
	r, err := s.Infer(ctx, &inference.Request{Model: model, Params: sequenceParams(id, start, end), Inputs: []inference.Tensor{stepInput(x)}}, Caller{Client: "c", Conn: "c"})
	if err != nil {
		return nil, err
	}
	for i := range r.Outputs {
		if r.Outputs[i].Name == "y" {
			return r.Outputs[i].Floats, nil
		}
	}
	return nil, fmt.Errorf("no output")
}

// TestSequencesThatTimeOutLeaveNoState: under load sequences end without END, by their idle
// limit; the next ones of the same ids must begin with zeros, also after a state that was
// NaN (triton-inference-server/server#7117).
func TestSequencesThatTimeOutLeaveNoState(t *testing.T) {
	s := newTestServer(t, Options{Limits: Limits{Sessions: batch.SessionOptions{Life: 3 * time.Millisecond}}})
	want := make([][][]float32, 4)
	for i := range want {
		want[i] = stepsOfServer(t, i)
	}
	var expired atomic.Int64
	var all sync.WaitGroup
	for c := range 16 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(c), 1))
			for round := 0; round < 40; round++ {
				x := r.IntN(len(want))
				id := fmt.Sprint("seq ", c)
				if round%5 == 4 { // a state that is not a number, and no END
					if _, err := inferStep(s, id, true, false, float32(math.NaN())); err != nil {
						t.Error(err)
					}
					time.Sleep(6 * time.Millisecond)
				}
				for k := range want[x] {
					got, err := inferStep(s, id, k == 0, false, float32(10*x+k))
					if err != nil {
						late := codeOf(err) == inference.NotFound && strings.Contains(err.Error(), string(batch.Idle))
						if k == 0 || !late && (codeOf(err) != inference.Invalid || !strings.Contains(err.Error(), "START")) {
							t.Error(err)
						}
						expired.Add(1)
						break
					}
					if !slices.Equal(got, want[x][k]) {
						t.Errorf("step %d: %v, want %v", k, got, want[x][k])
					}
					if r.IntN(6) == 0 {
						time.Sleep(5 * time.Millisecond)
					}
				}
			}
		})
	}
	all.Wait()
	if expired.Load() == 0 {
		t.Error("no sequence timed out")
	}
}

// stepsOfServer returns the first answers of a sequence with inputs 10i, 10i+1, ... on a server
// of its own.
func stepsOfServer(t *testing.T, i int) [][]float32 {
	return steps(t, newTestServer(t, Options{}), "step", 6, float32(10*i))
}

// TestReaperRests: what ends idle sequences has nothing to do when there are none, and must
// not loop over them (triton-inference-server/server#8449).
func TestReaperRests(t *testing.T) {
	var ends atomic.Int64
	s := batch.New(batch.Options{})
	table := batch.NewSessions(s, batch.SessionOptions{Life: time.Millisecond, OnEnd: func(*batch.Session, batch.Reason) { ends.Add(1) }})
	q := s.Add(stepProgram(t, 2, 2, 1), batch.QueueOptions{})
	for range 500 {
		if _, err := table.Open(q, "m", batch.Opening{}); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "all end", func() bool { return ends.Load() == 500 })
	time.Sleep(20 * time.Millisecond)
	if n := ends.Load(); n != 500 {
		t.Errorf("500 sequences ended %d times", n)
	}
	table.Stop(batch.Stopped) // the timer's rest is tested in package batch
}

// TestUnloadAfterStatefulRequest: a model is unloaded right after, and during, requests of
// sequences (triton-inference-server/server#6594).
func TestUnloadAfterStatefulRequest(t *testing.T) {
	s := newTestServer(t, Options{})
	ctx := context.Background()
	want := steps(t, s, "step", 2, 1)
	var stop atomic.Bool
	var all sync.WaitGroup
	var served atomic.Int64
	for c := range 8 {
		all.Go(func() {
			for !stop.Load() {
				for k := range want {
					got, err := inferStep(s, fmt.Sprint("s", c), k == 0, false, float32(1+k))
					switch {
					case err == nil && !slices.Equal(got, want[k]):
						t.Errorf("step %d: %v, want %v", k, got, want[k])
					case err == nil:
						served.Add(1)
						continue
					case codeOf(err) == inference.Internal || codeOf(err) == inference.Canceled:
						t.Error(err)
					}
					break
				}
			}
		})
	}
	for range 12 {
		before := served.Load()
		until(t, "requests are answered", func() bool { return served.Load() > before })
		v := s.models.get("step").versions[0]
		if err := s.Unload(ctx, "step", false); err != nil {
			t.Fatal(err)
		}
		if n, _ := s.sessions.Count(v.q); n != 0 {
			t.Errorf("%d sequences outlive their model", n)
		}
		if err := s.Load(ctx, "step"); err != nil {
			t.Fatal(err)
		}
	}
	stop.Store(true)
	all.Wait()
}

// TestClientThatGoesAway: when a connection is closed its sequences end at once, with notice,
// and not by a timer (triton-inference-server/server#5453).
func TestClientThatGoesAway(t *testing.T) {
	s := newTestServer(t, Options{})
	owner, stays := s.NewOwner(), s.NewOwner()
	begin := func(id string, o *Owner) error {
		c := Caller{Client: "c", Conn: "c", Owner: o}
		_, err := s.Infer(context.Background(), &inference.Request{Model: "step", Params: sequenceParams(id, true, false), Inputs: []inference.Tensor{stepInput(1)}}, c)
		return err
	}
	for i := range 11 {
		of := owner
		if i == 10 {
			of = stays
		}
		if err := begin(strconv.Itoa(i), of); err != nil {
			t.Fatal(err)
		}
	}
	owner.End()
	if n, _ := s.sessions.Count(nil); n != 1 {
		t.Errorf("%d sequences are left, want that of the other connection", n)
	}
	_, err := inferStep(s, "3", false, false, 1)
	if err == nil || codeOf(err) != inference.Invalid || !strings.Contains(err.Error(), string(batch.Gone)) {
		t.Errorf("another connection that goes on with it: %v", err)
	}
	if err := begin("late", owner); err == nil || !strings.Contains(err.Error(), string(batch.Gone)) { // which was on its way
		t.Errorf("a sequence that begins after its connection: %v", err)
	}
	stays.End()
	if n, _ := s.sessions.Count(nil); n != 0 {
		t.Errorf("%d sequences are left", n)
	}
}

// TestManyClientsFillBatches: with 500 clients, batches must become large
// (triton-inference-server/server#4841).
func TestManyClientsFillBatches(t *testing.T) {
	s := newTestServer(t, Options{})
	file := filepath.Join(t.TempDir(), "wide.onnx")
	exported(t, file, testWidth, 256, true)
	if err := s.Add(context.Background(), ModelConfig{Path: file}); err != nil {
		t.Fatal(err)
	}
	const clients, each = 500, 12
	var all sync.WaitGroup
	for c := range clients {
		all.Go(func() {
			for k := range each {
				if _, err := inferStepOf(context.Background(), s, "wide", int64(c+1), k == 0, k == each-1, 1); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	st := s.models.get("wide").versions[0].q.Stats()
	if mean := float64(st.Rows) / float64(st.Batches); st.Rows != clients*each || mean < 16 {
		t.Errorf("%d rows in %d batches, %.1f a batch, want at least 16", st.Rows, st.Batches, mean)
	} else {
		t.Logf("%.1f rows a batch", mean)
	}
}

// TestAnswersGoToTheirSequence: START is never missed, and no answer goes to another
// sequence, whatever the interleaving (triton-inference-server/server#3577).
func TestAnswersGoToTheirSequence(t *testing.T) {
	s := newTestServer(t, Options{})
	const sequences, length = 120, 8
	want := make([][][]float32, sequences)
	for i := range want {
		want[i] = steps(t, s, "step", length, float32(7*i))
	}
	var all sync.WaitGroup
	for i := range sequences {
		all.Go(func() {
			for round := range 4 {
				for k := range length {
					got, err := inferStep(s, uint64(i+1), k == 0, k == length-1, float32(7*i+k))
					if err != nil || !slices.Equal(got, want[i][k]) {
						t.Errorf("sequence %d, round %d, step %d: %v, error %v; want %v", i, round, k, got, err, want[i][k])
						return
					}
				}
			}
		})
	}
	all.Wait()
	if n, _ := s.sessions.Count(nil); n != 0 {
		t.Errorf("%d sequences are left", n)
	}
}

// TestSequenceIDsArrive: each form of an id is that of its request, in requests that follow
// each other on one connection, and 0 and "" are none (triton-inference-server/server#5276).
func TestSequenceIDsArrive(t *testing.T) {
	s := newTestServer(t, Options{})
	url := listen(t, s)
	want := steps(t, s, "step", 10, 1)
	ids := []any{int64(1), uint64(math.MaxUint64), "text", int64(2), "0"}
	for k := range want {
		for _, id := range ids { // in turn
			for _, binary := range []bool{k%2 == 0} {
				header, body := stepBody(t, 1+float32(k), binary, sequenceParams(id, k == 0, false))
				headers := []string{"Content-Type", "application/json"}
				if header != "" {
					headers = []string{inference.HeaderLength, header}
				}
				r, text := ask(t, "POST", url+"/v2/models/step/infer", body, headers...)
				if got := answered(t, r, text); !slices.Equal(got, want[k]) {
					t.Errorf("sequence %v, step %d: %v, want %v", id, k, got, want[k])
				}
			}
		}
		for _, none := range []any{int64(0), ""} { // which see no state
			r, text := ask(t, "POST", url+"/v2/models/step/infer", second(stepBody(t, 1, false, inference.Params{"sequence_id": none})))
			if got := answered(t, r, text); !slices.Equal(got, want[0]) {
				t.Errorf("without a sequence: %v, want %v", got, want[0])
			}
		}
	}
	if n, _ := s.sessions.Count(nil); n != len(ids) {
		t.Errorf("%d sequences, want %d", n, len(ids))
	}
	for _, id := range []any{int64(0), ""} {
		r, text := ask(t, "POST", url+"/v2/models/step/infer", second(stepBody(t, 1, false, sequenceParams(id, true, false))))
		if r.StatusCode != 400 || !strings.Contains(text, "not 0 or empty") {
			t.Errorf("START of sequence %v: status %d, %s", id, r.StatusCode, text)
		}
	}
}

func second(_, body string) string { return body }

// TestStopAnswersWhatItAccepted: a server that is being stopped says that it is not ready
// before it refuses anything, its models stay known, open sequences go on to their ends and
// new ones are refused (triton-inference-server/server#6230).
func TestStopAnswersWhatItAccepted(t *testing.T) {
	s := newTestServer(t, Options{})
	url := listen(t, s)
	want := steps(t, s, "step", 6, 1)
	for k := range 3 {
		if _, err := inferStep(s, int64(5), k == 0, false, float32(1+k)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Drain(context.Background()); err != nil {
		t.Fatal(err)
	}
	if r, _ := ask(t, "GET", url+"/v2/health/ready", ""); r.StatusCode != 503 {
		t.Errorf("ready: status %d", r.StatusCode)
	}
	if r, _ := ask(t, "GET", url+"/v2/health/live", ""); r.StatusCode != 200 {
		t.Errorf("live: status %d", r.StatusCode)
	}
	if r, text := ask(t, "GET", url+"/v2/models/step", ""); r.StatusCode != 200 {
		t.Errorf("the model: status %d, %s", r.StatusCode, text)
	}
	for k := 3; k < 6; k++ {
		got, err := inferStep(s, int64(5), false, k == 5, float32(1+k))
		if err != nil || !slices.Equal(got, want[k]) {
			t.Errorf("step %d: %v, error %v; want %v", k, got, err, want[k])
		}
	}
	if _, err := inferStep(s, int64(6), true, false, 1); err == nil || codeOf(err) != inference.Unavailable {
		t.Errorf("a new sequence: %v", err)
	}
}

// TestStopDoesNotHang: a server with open connections, idle sequences, streams and requests
// under way stops in bounded time, and each of them is told
// (triton-inference-server/server#6286).
func TestStopDoesNotHang(t *testing.T) {
	s := newTestServer(t, Options{})
	h := httptest.NewUnstartedServer(s.Handler())
	h.Config.ConnContext = s.ConnContext
	h.Start()
	defer h.Close()
	for i := range 20 {
		if _, err := inferStep(s, int64(i+1), true, false, 1); err != nil {
			t.Fatal(err)
		}
	}
	socket := dialStream(t, h.URL, "model=step")
	lines := newLineStream(t, h.URL, "model=step")
	lines.send("[1,2,3,4]\n")
	lines.receive()
	began := make(chan struct{})
	letGo := make(chan struct{})
	slow := &gated{graphProgram: stepProgram(t, testWidth, testHidden, 1), began: began, letGo: letGo}
	addProgram(s, "slow", slow)
	under := make(chan error, 1)
	go func() {
		_, err := inferStepOf(context.Background(), s, "slow", int64(1), true, false, 1)
		under <- err
	}()
	<-began
	closed := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		closed <- s.Close(ctx)
	}()
	if why, _ := closing(t, socket); !strings.Contains(why.Reason, string(batch.Stopped)) {
		t.Errorf("the socket was closed with %v", why)
	}
	if text := lines.receive(); !strings.Contains(text, string(batch.Stopped)) {
		t.Errorf("the lines end with %s", text)
	}
	close(letGo)
	if err := <-under; err != nil {
		t.Errorf("a request that was accepted: %v", err)
	}
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the server does not stop")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := h.Config.Shutdown(ctx); err != nil { // no handler is left
		t.Error(err)
	}
	if _, err := inferStep(s, int64(1), false, false, 1); err == nil || codeOf(err) != inference.Unavailable {
		t.Errorf("a request after the end: %v", err)
	}
}

// gated is a program whose runs wait.
type gated struct {
	*graphProgram
	began, letGo chan struct{}
}

func (g *gated) Run(ctx context.Context, jobs []*batch.Job) {
	g.began <- struct{}{}
	<-g.letGo
	g.graphProgram.Run(ctx, jobs)
}

// TestImpossibleShapes: shapes that are negative, overflow or do not fit their data are errors of
// their request, in JSON and binary, and the server goes on
// (triton-inference-server/server#1649).
func TestImpossibleShapes(t *testing.T) {
	s := newTestServer(t, Options{})
	url := listen(t, s)
	if _, err := inferStep(s, "s", true, false, 1); err != nil {
		t.Fatal(err)
	}
	shapes := []string{"[-1,1,4]", "[1,-1,-4]", "[-9223372036854775808,1,4]", "[9223372036854775807,9223372036854775807,4]",
		"[4294967296,4294967296,4]", "[0,1,4]", "[1,0,4]", "[]", "[1,1,5]", "[1,4]", "[1,1,4,1,1,1,1,1,1,1,1]", "[1.5,1,4]", "[\"1\",1,4]", "null", "[1,1e30,4]"}
	for _, shape := range shapes {
		for _, params := range []string{"", `"parameters":{"sequence_id":"s"},`} {
			inJSON := `{` + params + `"inputs":[{"name":"x","shape":` + shape + `,"datatype":"FP32","data":[1,2,3,4]}]}`
			head := `{` + params + `"inputs":[{"name":"x","shape":` + shape + `,"datatype":"FP32","parameters":{"binary_data_size":16}}]}`
			inBinary := head + string(rawStep(1))
			for _, c := range [][]string{{inJSON}, {inBinary, inference.HeaderLength, strconv.Itoa(len(head))}} {
				r, text := ask(t, "POST", url+"/v2/models/step/infer", c[0], c[1:]...)
				if r.StatusCode != 400 || !strings.HasPrefix(text, `{"error":"`) {
					t.Errorf("shape %s: status %d, %s", shape, r.StatusCode, text)
				}
			}
		}
	}
	c := dialStream(t, url, "model=step")
	for _, shape := range shapes {
		send(t, c, 1, []byte(`{"inputs":[{"name":"x","shape":`+shape+`,"datatype":"FP32","data":[1,2,3,4]}]}`))
		if _, b := receive(t, c); !bytes.HasPrefix(b, []byte(`{"error":"`)) {
			t.Errorf("shape %s in a stream: %s", shape, b)
		}
	}
	want := steps(t, s, "step", 2, 1)
	if got, err := inferStep(s, "s", false, true, 2); err != nil || !slices.Equal(got, want[1]) {
		t.Errorf("the sequence after the errors: %v, error %v; want %v", got, err, want[1])
	}
	if r, text := ask(t, http.MethodGet, url+"/v2/health/ready", ""); r.StatusCode != 200 {
		t.Errorf("the server: status %d, %s", r.StatusCode, text)
	}
}

// TestOneRowFailsAlone: a request that a graph cannot compute does not fail those of its batch,
// and leaves the state of its sequence as it was.
func TestOneRowFailsAlone(t *testing.T) {
	s := newTestServer(t, Options{})
	net := struct {
		Embedding *nn.Embedding
		RNN       *nn.RNN
	}{nn.NewEmbedding(10, 4, nil), nn.NewLSTM(4, testHidden, nil)}
	tensor.Pack(tensor.CPU(), &net, 1)
	file := filepath.Join(t.TempDir(), "ids.onnx")
	if _, err := onnx.Export(context.Background(), file, &onnx.Stack{Embedding: net.Embedding, RNN: net.RNN}, &onnx.ExportOptions{State: true}); err != nil {
		t.Fatal(err)
	}
	gather := func(int, time.Duration) { time.Sleep(2 * time.Millisecond) } // so that others come meanwhile
	if err := s.Add(context.Background(), ModelConfig{Path: file, Queue: batch.QueueOptions{OnBatch: gather}}); err != nil {
		t.Fatal(err)
	}
	v := s.models.get("ids").versions[0]
	if !v.program().Batched() {
		t.Fatal("the graph's rows are not computed together")
	}
	step := func(id string, start bool, x int64) ([]float32, error) {
		in := inference.Tensor{Name: "ids", Datatype: inference.INT64, Value: inference.Value{Dims: []int{1, 1}, Ints: []int64{x}}}
		r, err := s.Infer(context.Background(), &inference.Request{Model: "ids", Params: sequenceParams(id, start, false), Inputs: []inference.Tensor{in}}, Caller{Conn: id})
		if err != nil {
			return nil, err
		}
		return output(t, r, "y").Floats, nil
	}
	var want [][]float32
	for k := range 10 {
		y, err := step("alone", k == 0, int64(k))
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, y)
	}
	before := v.q.Stats()
	var all sync.WaitGroup
	var refused atomic.Int64
	for c := range 40 {
		all.Go(func() {
			id := fmt.Sprint(c)
			for k := range want {
				if c%4 == 0 && k > 0 { // there is no such row of the table
					if _, err := step(id, false, 1_000_000); err == nil || codeOf(err) != inference.Invalid || strings.Contains(err.Error(), filepath.Dir(file)) {
						t.Errorf("client %d, step %d: %v", c, k, err)
					}
					refused.Add(1)
				}
				if y, err := step(id, k == 0, int64(k)); err != nil || !slices.Equal(y, want[k]) {
					t.Errorf("client %d, step %d: %v, error %v; want %v", c, k, y, err, want[k])
				}
			}
		})
	}
	all.Wait()
	if after := v.q.Stats(); after.Rows-before.Rows < 2*(after.Batches-before.Batches) || refused.Load() != 90 {
		t.Errorf("%d rows in %d batches, %d refused: the test is too tame", after.Rows-before.Rows, after.Batches-before.Batches, refused.Load())
	}
}

// TestRowsThatMoveOthersAreNotBatched: graphs whose rows depend on each other only for some
// numbers, such as a spectrogram whose floor lies below the loudest value of all rows, are
// computed one request at a time.
func TestRowsThatMoveOthersAreNotBatched(t *testing.T) {
	for name, c := range map[string]struct {
		make    func(g *graph.Builder) string // of the rows x, floats or integers, [b,2]
		ints    bool
		batched bool
	}{
		"apart": {func(g *graph.Builder) string { return g.Op("Tanh", []string{"x"}) }, false, true},
		"floor of the loudest": {func(g *graph.Builder) string {
			loudest := g.Op("ReduceMax", []string{"x"}, graph.Attr{Name: "keepdims", Value: 0})
			return g.Op("Max", []string{"x", g.Op("Sub", []string{loudest, g.Float(80)})})
		}, false, false},
		"floor of the faintest": {func(g *graph.Builder) string {
			faintest := g.Op("ReduceMin", []string{"x"}, graph.Attr{Name: "keepdims", Value: 0})
			return g.Op("Min", []string{"x", g.Op("Add", []string{faintest, g.Float(1e6)})})
		}, false, false},
		"words apart": {func(g *graph.Builder) string {
			return g.Op("Gather", []string{g.Floats("", []float32{1, 2, 3, 4, 5}, 5), "x"})
		}, true, true},
		"mean of words": {func(g *graph.Builder) string {
			words := g.Op("Gather", []string{g.Floats("", []float32{1, 2, 3, 4, 5}, 5), "x"})
			return g.Op("Sub", []string{words, g.Op("ReduceMean", []string{words}, graph.Attr{Name: "axes", Value: []int64{0}})})
		}, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := &graph.Builder{}
			if c.ints {
				g.InputInts("x", "", "b", 2)
			} else {
				g.Input("x", "", "b", 2)
			}
			g.Node("Identity", []string{c.make(g)}, []string{"y"})
			g.Output("y", "", "b", 2)
			m, err := g.Model("rows.onnx")
			if err != nil {
				t.Fatal(err)
			}
			p, err := newGraphProgram(m, "test", graphOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if p.Batched() != c.batched {
				t.Errorf("rows are computed together: %v, want %v", p.Batched(), c.batched)
			}
		})
	}
}

// A model that is loaded anew again and again refuses nobody who finds the version just
// before it is replaced: neither requests in a task's own form nor new sessions.
func TestReplacedMeanwhile(t *testing.T) {
	s := newTestServer(t, Options{})
	url := listen(t, s)
	ctx, stop := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer stop()
	var all sync.WaitGroup
	for _, model := range []string{"words", "step"} {
		all.Go(func() {
			for ctx.Err() == nil {
				if err := s.Load(context.Background(), model); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 4 {
		all.Go(func() {
			for ctx.Err() == nil {
				if r, body := ask(t, "POST", url+"/v1/classify", `{"text":"good"}`); r.StatusCode != 200 {
					t.Errorf("classify: %d %s", r.StatusCode, body)
				}
				if r, body := ask(t, "POST", url+"/v1/sessions", `{"model":"step"}`); r.StatusCode != 201 {
					t.Errorf("a session: %d %s", r.StatusCode, body)
				}
			}
		})
	}
	all.Wait()
}
