package serve

import (
	"context"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/carousel-ml/carousel/model/onnx/graph"
	"github.com/carousel-ml/carousel/serve/batch"
	"github.com/carousel-ml/carousel/serve/inference"
)

// The tests of this file are requests that are refused, or that end what others have: what is
// refused leaves states as they were.

// built adds a graph as a model.
func built(tb testing.TB, s *Server, name string, build func(g *graph.Builder)) *version {
	tb.Helper()
	var g graph.Builder
	build(&g)
	m, err := g.Model(name + ".onnx")
	if err != nil {
		tb.Fatal(err)
	}
	p, err := newGraphProgram(m, name, graphOptions{states: map[string]string{"total": "total_next"}})
	if err != nil {
		p, err = newGraphProgram(m, name, graphOptions{})
	}
	if err != nil {
		tb.Fatal(err)
	}
	return addProgram(s, name, p)
}

// total adds a model "total" whose y is the sum of the numbers x that a sequence has had, and its
// output half the same in 16 bits.
func total(tb testing.TB, s *Server) *version {
	const half = 10 // of elements, in the format of graphs
	return built(tb, s, "total", func(g *graph.Builder) {
		g.Input("x", "", "n", 1)
		g.Input("total", "", "n", 1)
		g.Node("Add", []string{"x", "total"}, []string{"total_next"})
		g.Node("Identity", []string{"total_next"}, []string{"y"})
		g.Node("Cast", []string{"total_next"}, []string{"half"}, graph.Attr{Name: "to", Value: half})
		g.Output("y", "", "n", 1)
		g.OutputOf(half, "half", "", "n", 1)
		g.Output("total_next", "", "n", 1)
	})
}

// place adds a model "place", which keeps no state and refuses a y that is not from 0 to 9, and a w
// that is not of two columns.
func place(tb testing.TB, s *Server) *version {
	return built(tb, s, "place", func(g *graph.Builder) {
		g.Input("y", "", "n", 1)
		g.Input("w", "", "n", 2)
		at := g.Op("Cast", []string{"y"}, graph.Attr{Name: "to", Value: graph.Int64})
		g.Node("Gather", []string{g.Floats("", []float32{0, 10, 20, 30, 40, 50, 60, 70, 80, 90}, 10), at}, []string{"z"}, graph.Attr{Name: "axis", Value: 0})
		g.Node("ReduceSum", []string{"w", g.Ints("", 1)}, []string{"sum"}, graph.Attr{Name: "keepdims", Value: 1})
		g.Output("z", "", "n", 1)
		g.Output("sum", "", "n", 1)
	})
}

func tensorOf(name string, x ...float32) inference.Tensor {
	return inference.Tensor{Name: name, Datatype: inference.FP32, Value: inference.Value{Dims: []int{1, len(x)}, Floats: x}}
}

// asksTotal asks for y or z after a number.
func asksTotal(s *Server, model string, p inference.Params, c Caller, x float32, more ...inference.Tensor) (float32, error) {
	r, err := s.Infer(context.Background(), &inference.Request{Model: model, Params: p, Inputs: append([]inference.Tensor{tensorOf("x", x)}, more...)}, c)
	if err != nil {
		return 0, err
	}
	return r.Outputs[0].Floats[0], nil
}

// TestPipelineRefusesFirst: what a pipeline can refuse, it refuses before a stage changes its
// state; if a later stage fails, the sequence is over in all stages.
func TestPipelineRefusesFirst(t *testing.T) {
	s := New(Options{})
	defer func() { _ = s.Close(t.Context()) }()
	total(t, s)
	place(t, s)
	if err := s.AddPipeline(PipelineConfig{Name: "p", Stages: []StageConfig{{Model: "total"}, {Model: "place"}}, Outputs: []string{"z", "sum", "half"}}); err != nil {
		t.Fatal(err)
	}
	c, w := Caller{Client: "c"}, tensorOf("w", 1, 2)
	if z, err := asksTotal(s, "p", sequenceParams("a", true, false), c, 2, w); err != nil || z != 20 {
		t.Fatalf("%v, %v", z, err)
	}
	step := func() *inference.Request {
		return &inference.Request{Model: "p", Params: continues("a"), Inputs: []inference.Tensor{tensorOf("x", 1), w}, Outputs: []inference.Output{{Name: "z"}}}
	}
	for _, bad := range []struct {
		name, says string
		change     func(r *inference.Request)
	}{
		{"unknown output", `no output "q"`, func(r *inference.Request) { r.Outputs[0].Name = "q" }},
		{"classes", "classification", func(r *inference.Request) { r.Outputs[0].Params = inference.Params{"classification": int64(-1)} }},
		{"16 bits in JSON", "no form in JSON", func(r *inference.Request) { r.Text, r.Outputs = true, []inference.Output{{Name: "half"}} }},
		{"shape of the second stage", "stage 2", func(r *inference.Request) { r.Inputs[1] = tensorOf("w", 1, 2, 3) }},
		{"datatype of the second stage", "datatype FP32, got FP64", func(r *inference.Request) {
			r.Inputs[1].Datatype, r.Inputs[1].Value = inference.FP64, inference.Value{Dims: []int{1, 2}, Doubles: []float64{1, 2}}
		}},
		{"no input of the second stage", `"w" is missing`, func(r *inference.Request) { r.Inputs = r.Inputs[:1] }},
		{"an input twice", `"x" is given twice`, func(r *inference.Request) { r.Inputs = append(r.Inputs, tensorOf("x", 5)) }},
	} {
		r := step()
		bad.change(r)
		if _, err := s.Infer(t.Context(), r, c); err == nil || codeOf(err) != inference.Invalid || !strings.Contains(err.Error(), bad.says) {
			t.Errorf("%s: %v, want %q", bad.name, err, bad.says)
		}
	}
	if z, err := asksTotal(s, "p", continues("a"), c, 1, w); err != nil || z != 30 {
		t.Errorf("after requests that were refused: %v, error %v, want 30", z, err)
	}
	for _, p := range []inference.Params{continues("a"), sequenceParams("a", true, false), sequenceParams("a", false, true)} {
		if _, err := asksTotal(s, "p", p, c, 50, w); err == nil || !strings.Contains(err.Error(), `stage 2 of "p"`) || !strings.Contains(err.Error(), "the sequence is over") {
			t.Errorf("%v: %v", p, err)
		}
		if n, _ := s.sessions.Count(nil); n != 0 {
			t.Errorf("%v: %d sessions are left", p, n)
		}
		if _, err := asksTotal(s, "p", continues("a"), c, 1, w); err == nil || !strings.Contains(err.Error(), "START") {
			t.Errorf("%v: the sequence goes on: %v", p, err)
		}
		if z, err := asksTotal(s, "p", sequenceParams("a", true, false), c, 4, w); err != nil || z != 40 {
			t.Errorf("%v: a new one: %v, %v", p, z, err)
		}
	}
}

// TestPipelineTakesNoOptions: options of a task in a pipeline are refused by their names.
func TestPipelineTakesNoOptions(t *testing.T) {
	s := newTestServer(t, Options{})
	if err := s.AddPipeline(PipelineConfig{Name: "p", Stages: []StageConfig{{Model: "words"}}}); err != nil {
		t.Fatal(err)
	}
	ask := func(p inference.Params) error {
		_, err := s.Infer(t.Context(), &inference.Request{Model: "p", Params: p, Inputs: []inference.Tensor{{Name: "text", Datatype: inference.BYTES,
			Value: inference.Value{Dims: []int{1}, Texts: []string{"good"}}}}}, Caller{})
		return err
	}
	if err := ask(inference.Params{"priority": int64(2), "binary_data_output": true}); err != nil {
		t.Error(err)
	}
	if err := ask(inference.Params{"top": int64(1)}); err == nil || codeOf(err) != inference.Invalid || !strings.Contains(err.Error(), `"top"`) {
		t.Errorf("an option: %v", err)
	}
}

// TestHalfInJSONChangesNothing: an output that the answer cannot have is refused before the step.
func TestHalfInJSONChangesNothing(t *testing.T) {
	s := New(Options{})
	defer func() { _ = s.Close(t.Context()) }()
	total(t, s)
	url := listen(t, s)
	const start = `{"parameters":{"sequence_id":"a","sequence_start":true},"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","data":[1]}],"outputs":[{"name":"y"}]}`
	if status, text := ask(t, "POST", url+"/v2/models/total/infer", start); status.StatusCode != http.StatusOK {
		t.Fatal(text)
	}
	wrong := strings.NewReplacer(`,"sequence_start":true`, "", `"y"`, `"half"`).Replace(start)
	if status, text := ask(t, "POST", url+"/v2/models/total/infer", wrong); status.StatusCode != http.StatusBadRequest || !strings.Contains(text, "binary_data") {
		t.Errorf("status %d, %s", status.StatusCode, text)
	}
	if y, err := asksTotal(s, "total", continues("a"), Caller{Client: "127.0.0.1"}, 1); err != nil || y != 2 {
		t.Errorf("after a request that was refused: %v, error %v, want 2", y, err)
	}
	classes := strings.Replace(wrong, `{"name":"half"}`, `{"name":"half","parameters":{"classification":1}}`, 1)
	if status, text := ask(t, "POST", url+"/v2/models/total/infer", classes); status.StatusCode != http.StatusOK {
		t.Errorf("classes of it: status %d, %s", status.StatusCode, text)
	}
	lines := newLineStream(t, url, "model=total")
	for _, send := range []string{`{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","data":[1]}],"outputs":[{"name":"y","parameters":{"binary_data":true}}]}`, "[1]"} {
		lines.send(send + "\n")
		if text := lines.receive(); !strings.Contains(text, "error") {
			t.Errorf("%s: %s", send, text)
		}
	}
	lines.send(`{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","data":[1]}],"outputs":[{"name":"y"}]}` + "\n")
	if text := lines.receive(); !strings.Contains(text, `"data":[1]`) {
		t.Errorf("lines after requests that were refused: %s", text)
	}
}

// TestStartTakesOver: who starts a sequence anew has it, whoever began it.
func TestStartTakesOver(t *testing.T) {
	s := New(Options{})
	defer func() { _ = s.Close(t.Context()) }()
	total(t, s)
	one, two := s.NewOwner(), s.NewOwner()
	callers := []Caller{{Client: "c"}, {Client: "c", Owner: one}, {Client: "c", Owner: two}, {Client: "d"}}
	for i, c := range callers {
		if y, err := asksTotal(s, "total", begins("a"), c, 5); err != nil || y != 5 {
			t.Fatalf("caller %d: %v, %v", i, y, err)
		}
		if i == 2 {
			one.End()
		}
		if y, err := asksTotal(s, "total", continues("a"), c, 1); err != nil || y != 6 {
			t.Errorf("caller %d, after the one before has gone: %v, %v", i, y, err)
		}
	}
	two.End()
	n, err := s.sessions.Find("total", "a")
	if err != nil || n.Client() != "d" || n.Transient {
		t.Fatalf("the sequence is of %+v, %v", n, err)
	}
	owner := s.NewOwner()
	c := Caller{Client: "e", Owner: owner}
	if _, err := asksTotal(s, "total", begins("a"), c, 5); err != nil {
		t.Fatal(err)
	}
	n, _ = s.sessions.Find("total", "a")
	if _, err := asksTotal(s, "total", begins("a"), c, 5); err != nil {
		t.Fatal(err)
	}
	if again, _ := s.sessions.Find("total", "a"); again != n {
		t.Error("a start by the owner itself is not in its turn")
	}
	owner.End()
	if _, err := s.sessions.Find("total", "a"); err == nil {
		t.Error("the sequence outlives the connection that started it anew")
	}
}

// watchful is a program that calls a function before each check.
type watchful struct {
	*graphProgram
	check func()
}

func (p *watchful) Check(j *batch.Job) error {
	p.check()
	return p.graphProgram.Check(j)
}

// TestVeryShortLife: a sequence that is over before its first request is computed, each time that
// it is begun, is an error in the end.
func TestVeryShortLife(t *testing.T) {
	s := New(Options{Limits: Limits{Sessions: batch.SessionOptions{Life: time.Millisecond}}})
	defer func() { _ = s.Close(t.Context()) }()
	var checks atomic.Int64
	slow := &watchful{total(t, s).program().(*graphProgram), func() {
		checks.Add(1)
		time.Sleep(20 * time.Millisecond)
	}}
	addProgram(s, "slow", slow)
	_, err := asksTotal(s, "slow", begins("a"), Caller{}, 1)
	if err == nil || codeOf(err) != inference.NotFound || !strings.Contains(err.Error(), string(batch.Idle)) {
		t.Errorf("error %v", err)
	}
	if n := checks.Load(); n != mostTries {
		t.Errorf("%d tries, want %d", n, mostTries)
	}
}

// TestPanicsInStreams: a panic while a request of a stream is answered is its error, and one while
// it is read ends the stream, and neither leaves a goroutine or ends the process.
func TestPanicsInStreams(t *testing.T) {
	s := New(Options{})
	defer func() { _ = s.Close(t.Context()) }()
	p := total(t, s).program().(*graphProgram)
	addProgram(s, "bad", &watchful{p, func() { panic("by a check") }})
	if err := s.AddPipeline(PipelineConfig{Name: "p", Stages: []StageConfig{{Model: "bad"}}}); err != nil {
		t.Fatal(err)
	}
	url := listen(t, s)
	c := dialStream(t, url, "model=p&output=y")
	for range 2 {
		if err := c.Write(t.Context(), websocket.MessageText, []byte("[1]")); err != nil {
			t.Fatal(err)
		}
		if _, b, err := c.Read(t.Context()); err != nil || !strings.Contains(string(b), "failed on this request") {
			t.Fatalf("%s, %v", b, err)
		}
	}
	_ = c.CloseNow()
	other := dialStream(t, url, "model=bad&output=y")
	if err := other.Write(t.Context(), websocket.MessageText, []byte("[1]")); err != nil {
		t.Fatal(err)
	}
	if _, b, err := other.Read(t.Context()); err == nil {
		t.Errorf("a stream goes on after a panic: %s", b)
	}
	until(t, "the goroutines of the streams end", func() bool {
		b := make([]byte, 1<<20)
		return !strings.Contains(string(b[:runtime.Stack(b, true)]), "(*stream).answer")
	})
}

// TestClassesOfLargeIntegers: they are ordered and written as the numbers that they are.
func TestClassesOfLargeIntegers(t *testing.T) {
	v := inference.Value{Dims: []int{4}, Ints: []int64{1<<53 + 1, -1, 1 << 53, 1<<53 + 2}}
	for datatype, want := range map[inference.Datatype][]string{
		inference.UINT64: {"18446744073709551615:1", "9007199254740994:3", "9007199254740993:0:a", "9007199254740992:2"},
		inference.INT64:  {"9007199254740994:3", "9007199254740993:0:a", "9007199254740992:2", "-1:1"},
	} {
		if got := classify(&inference.Tensor{Datatype: datatype, Value: v}, 4, []string{"a"}).Texts; !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", datatype, got, want)
		}
	}
}

// TestStopWaitsForReplacedVersions: what they compute is waited for as well.
func TestStopWaitsForReplacedVersions(t *testing.T) {
	s := New(Options{})
	slow := &gated{graphProgram: total(t, s).program().(*graphProgram), began: make(chan struct{}, 1), letGo: make(chan struct{})}
	old := addProgram(s, "slow", slow)
	answered := make(chan error, 1)
	go func() {
		_, err := asksTotal(s, "slow", nil, Caller{}, 1)
		answered <- err
	}()
	<-slow.began
	total(t, s)
	addProgram(s, "slow", slow.graphProgram)
	s.replaced([]*version{old}, s.models.get("slow"))
	short, stop := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer stop()
	if err := s.Drain(short); err != context.DeadlineExceeded {
		t.Errorf("Drain while a replaced version computes: %v", err)
	}
	if err := s.Close(short); err != context.DeadlineExceeded {
		t.Errorf("Close while a replaced version computes: %v", err)
	}
	close(slow.letGo)
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if list := s.sched.Queues(); len(list) != 0 {
		t.Errorf("%d queues are left", len(list))
	}
}

// TestUnloadEndsSessionsOfOlderVersions: of a model that is unloaded, or gone from the
// configuration, no session goes on, in whatever version it began.
func TestUnloadEndsSessionsOfOlderVersions(t *testing.T) {
	f := followConfig(t, 10*time.Millisecond, twoModels)
	for i, end := range []func(){
		func() {
			if err := f.Unload(t.Context(), "a", false); err != nil {
				t.Error(err)
			}
		},
		func() { f.take(t, "models: [{path: b.onnx}]\n", readAgain) },
	} {
		if err := f.Load(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		var versions []*version
		for _, id := range []string{"older", "old", "new"} {
			mustStep(t, f.Server, "a", begins(id))
			if _, err := f.Infer(t.Context(), stepOf("p", begins(id)), Caller{}); err != nil {
				t.Fatal(err)
			}
			versions = append(versions, f.version("a"))
			if err := f.Load(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
		}
		mustStep(t, f.Server, "b", begins("other"))
		end()
		until(t, "the sessions of the model end", func() bool { n, _ := f.sessions.Count(nil); return n == 1 })
		for _, v := range versions {
			closed(t, v)
		}
		mustStep(t, f.Server, "b", sequenceParams("other", false, true))
		if why := f.sessions.Why("a", "older"); why != batch.Unloaded {
			t.Errorf("case %d: the oldest ended because %q", i, why)
		}
	}
}
