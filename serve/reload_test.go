package serve

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/serve/inference"
)

// followed is a server that follows a configuration file.
type followed struct {
	*Server
	dir, path string
	log       *records
	now       chan os.Signal
}

// followConfig writes a configuration and models with the letters a to d as names, whose seeds are 1
// to 4, and serves it as the command does.
func followConfig(tb testing.TB, every time.Duration, text string) *followed {
	tb.Helper()
	f := &followed{dir: tb.TempDir(), now: make(chan os.Signal, 1)}
	f.path = filepath.Join(f.dir, "serve.yaml")
	for i, name := range []string{"a", "b", "c", "d"} {
		seededFile(tb, filepath.Join(f.dir, name+".onnx"), uint64(i+1))
	}
	f.write(tb, text)
	c, err := ReadConfig(f.path, nil)
	if err != nil {
		tb.Fatal(err)
	}
	f.Server, f.log = serverOf(tb, c.Models...)
	for _, p := range c.Pipelines {
		if err := f.AddPipeline(p); err != nil {
			tb.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		f.FollowConfig(ctx, c, every, f.now, func() (*Config, error) { return ReadConfig(f.path, nil) })
	})
	tb.Cleanup(func() {
		stop()
		done.Wait()
	})
	return f
}

func (f *followed) write(tb testing.TB, text string) {
	tb.Helper()
	put(tb, f.path, []byte(text))
}

// take writes a configuration and waits until the log says what it must of it.
func (f *followed) take(tb testing.TB, text, says string) {
	tb.Helper()
	before := strings.Count(f.log.String(), says)
	f.write(tb, text)
	f.hears(tb, before, says)
}

func (f *followed) hears(tb testing.TB, before int, says string) {
	tb.Helper()
	for end := time.Now().Add(20 * time.Second); strings.Count(f.log.String(), says) == before; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("the log does not say %q:\n%s", says, f.log)
		}
	}
}

// current returns the metric.
func (f *followed) current(tb testing.TB) float64 {
	tb.Helper()
	_, text := ask(tb, "GET", listen(tb, f.Server)+"/metrics", "")
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, "carousel_config_current "); ok {
			return map[string]float64{"0\n": 0, "1\n": 1}[value]
		}
	}
	tb.Fatal("there is no carousel_config_current")
	return -1
}

func (f *followed) version(model string) *version {
	if e := f.models.get(model); e != nil && len(e.versions) > 0 {
		return e.versions[0]
	}
	return nil
}

const readAgain = "the configuration was read again"

func begins(id string) inference.Params {
	return inference.Params{"sequence_id": id, "sequence_start": true}
}

func continues(id string) inference.Params { return inference.Params{"sequence_id": id} }

// outputs returns what a step's y is.
func outputs(r *inference.Response) []float32 {
	i := slices.IndexFunc(r.Outputs, func(t inference.Tensor) bool { return t.Name == "y" })
	return r.Outputs[i].Floats
}

// What is added is served, what is changed is replaced, what is gone ends, and the rest
// does not notice.
func TestConfigIsFollowed(t *testing.T) {
	f := followConfig(t, 10*time.Millisecond, `
models:
  - path: a.onnx
  - path: b.onnx
  - path: c.onnx
  - path: d.onnx
    name: e
pipelines:
  - {name: stays, stages: [{model: a}]}
  - {name: changes, stages: [{model: a}]}
  - {name: goes, stages: [{model: a}]}
`)
	mustStep(t, f.Server, "b", begins("other"))
	want := outputs(mustStep(t, f.Server, "b", continues("other")))
	for _, model := range []string{"a", "b", "c", "stays", "changes", "goes"} {
		if _, err := f.Infer(t.Context(), stepOf(model, begins("s")), Caller{Client: "c"}); err != nil {
			t.Fatal(err)
		}
	}
	a, b, e := f.version("a"), f.version("b"), f.version("e")
	stays := f.models.get("stays")
	if f.current(t) != 1 {
		t.Error("the configuration is not current at the start")
	}

	f.take(t, `
# Lines move.
limits: {sessions: 77, timeout: 7s, unread: 3s, connections: 5, session_ttl: 2m}
models:
  - {path: d.onnx, name: new}
  - path: a.onnx
  - path: b.onnx
    rows: 7
    session_ttl: 3m
  - path: c.onnx
    name: e
pipelines:
  - {name: more, stages: [{model: new}]}
  - {name: stays, stages: [{model: a}]}
  - {name: changes, stages: [{model: b}]}
`, readAgain)
	if f.version("a") != a || f.models.get("stays") != stays {
		t.Error("a model or a pipeline that has not changed was replaced")
	}
	if v := f.version("b"); v == b || v.q.Options().Rows != 7 || v.c.Life != 3*time.Minute {
		t.Error("the model b does not have its new options")
	}
	if f.version("e") == e || slices.Equal(outputs(mustStep(t, f.Server, "e", nil)), outputs(mustStep(t, f.Server, "new", nil))) {
		t.Error("the model e has the file of before")
	}
	closed(t, e)
	if got := f.names(); got != `"a", "b", "changes", "e", "more", "new", "stays"` {
		t.Errorf("the models are %s", got)
	}
	mustStep(t, f.Server, "a", continues("s"))
	if n, err := f.sessions.Find("b", "other"); err != nil || n.Queue() != b.q {
		t.Error("the session of a changed model is not in the version that it began in")
	}
	if again := outputs(mustStep(t, f.Server, "b", continues("s"))); !slices.Equal(again, want) {
		t.Errorf("a session of a changed model answers %v, want %v", again, want)
	}
	if _, err := f.Infer(t.Context(), stepOf("stays", continues("s")), Caller{Client: "c"}); err != nil {
		t.Errorf("the session of a pipeline that has not changed: %v", err)
	}
	until(t, "the sessions of what is gone end", func() bool {
		_, one := f.sessions.Find("c", "s")
		_, two := f.sessions.Find("changes/1", "s")
		_, three := f.sessions.Find("goes/1", "s")
		return one != nil && two != nil && three != nil
	})
	if _, err := f.Infer(t.Context(), stepOf("changes", continues("s")), Caller{Client: "c"}); err == nil || !strings.Contains(err.Error(), "unloaded") {
		t.Errorf("the session of a pipeline that has changed: %v", err)
	}
	if _, err := f.Infer(t.Context(), stepOf("more", nil), Caller{}); err != nil {
		t.Error(err)
	}
	if l := f.limits(); l.Timeout != 7*time.Second || l.Unread != 3*time.Second || l.Connections != 5 || l.ConnectionsPerClient != 1 || l.Body != 64<<20 {
		t.Errorf("limits %+v", l)
	}
	if o := f.sessions.Options(); o.Most != 77 || o.Life != 2*time.Minute || o.Bytes != 1<<30 || o.OnEnd == nil {
		t.Errorf("limits of sessions %+v", o)
	}
	mustStep(t, f.Server, "b", inference.Params{"sequence_id": "s", "sequence_end": true})
	mustStep(t, f.Server, "b", inference.Params{"sequence_id": "other", "sequence_end": true})
	closed(t, b)
	if f.current(t) != 1 {
		t.Error("the configuration is not current")
	}
}

// stepOf is a request of a step.
func stepOf(model string, p inference.Params) *inference.Request {
	return &inference.Request{Model: model, Params: p, Inputs: []inference.Tensor{{Name: "x", Datatype: inference.FP32,
		Value: inference.Value{Dims: []int{1, 1, 3}, Floats: []float32{1, -2, 0.5}}}}}
}

const twoModels = `models:
  - path: a.onnx
  - path: b.onnx
pipelines:
  - {name: p, stages: [{model: a}]}
`

// A configuration that is wrong anywhere changes nothing, and the log has the line.
func TestWrongConfigLeavesWhatRuns(t *testing.T) {
	f := followConfig(t, 10*time.Millisecond, twoModels)
	put(t, filepath.Join(f.dir, "damaged.onnx"), []byte("damage"))
	want := f.models.list()
	for text, says := range map[string]string{
		"models:\n  - path: a.onnx\n  - path: b.onnx\n    rows: many\n": `serve.yaml:4: models[1].rows: expected a whole number`,
		"model:\n  - path: a.onnx\n":                                    `serve.yaml:1: there is no key`,
		"models: [\n":                                                   `serve.yaml:1`,
		"models:\n  - path: c.onnx\n  - path: a.onnx\n    rows: 3\n  - path: gone.onnx\n":                           `serve.yaml:5: model \"gone\": `,
		"models:\n  - path: b.onnx\n    name: a\n  - path: damaged.onnx\n":                                          `serve.yaml:4: model \"damaged\": `,
		"models:\n  - path: a.onnx\n    rows: 3\n  - path: b.onnx\n    name: a\n":                                   `serve.yaml:4: two models have the name \"a\"`,
		"models:\n  - path: c.onnx\n  - path: a.onnx\npipelines:\n  - name: q\n    stages:\n      - model: b\n":     `serve.yaml:7: pipeline \"q\", stage 1: unknown model \"b\"; the server has \"a\", \"c\", \"q\"`,
		"models:\n  - path: c.onnx\npipelines:\n  - {name: p, stages: [{model: c}, {model: c, inputs: {z: y}}]}\n":  `serve.yaml:4: pipeline \"p\", stage 2: model \"c\" has no input \"z\"`,
		"models:\n  - path: c.onnx\npipelines:\n  - {name: p, stages: [{model: c}], outputs: w}\n":                  `serve.yaml:4: pipeline \"p\": no stage has the output \"w\"`,
		"models:\n  - path: c.onnx\n    name: p\n  - path: a.onnx\npipelines:\n  - {name: p, stages: [{model: a}]}": `serve.yaml:6: two models have the name \"p\"`,
		"limits: {sessions: 3}\nmodels:\n  - path: damaged.onnx\n":                                                  `serve.yaml:3: model \"damaged\"`,
	} {
		f.take(t, text, says)
		if !slices.Equal(f.models.list(), want) {
			t.Fatalf("%q has changed the models: %s", text, f.names())
		}
		if f.sessions.Options().Most != 100_000 {
			t.Fatalf("%q has changed the limits", text)
		}
		if !strings.Contains(f.log.String(), "the configuration is not taken, what runs goes on") || f.current(t) != 0 {
			t.Errorf("%q stands as current", text)
		}
	}
	if err := os.Remove(f.path); err != nil {
		t.Fatal(err)
	}
	f.hears(t, 0, "no such file")
	f.take(t, twoModels, readAgain)
	if !slices.Equal(f.models.list(), want) || f.current(t) != 1 {
		t.Error("the configuration of before is not current, or what it says was opened again")
	}

	// A model that comes later than the configuration is found.
	f.take(t, "models:\n  - path: a.onnx\n  - path: late.onnx\n", `late.onnx: no such file`)
	before := strings.Count(f.log.String(), readAgain)
	seededFile(t, filepath.Join(f.dir, "late.onnx"), 9)
	f.hears(t, before, readAgain)
	mustStep(t, f.Server, "late", nil)
	if f.version("a") != want[0].versions[0] || f.models.get("b") != nil || f.current(t) != 1 {
		t.Errorf("the models are %s", f.names())
	}
}

// Without looks, the file is read when it is asked for, with files that belong to it; keys
// that cannot change are named.
func TestConfigIsReadWhenAsked(t *testing.T) {
	f := followConfig(t, -1, "models:\n  - path: a.onnx\n")
	put(t, filepath.Join(f.dir, "names.txt"), []byte("one\ntwo\nthree\nfour\n"))
	f.write(t, "http: 127.0.0.1:1\nstore: sessions\nlimits: {body: 1MB}\nmodels:\n  - path: a.onnx\n    labels: {y: names.txt}\n")
	time.Sleep(50 * time.Millisecond)
	if strings.Contains(f.log.String(), readAgain) {
		t.Fatal("the file was read though nobody asked")
	}
	f.now <- syscall.SIGHUP
	f.hears(t, 0, `"msg":"the configuration needs a restart: these keys differ from what runs","keys":"http, limits.body, store"`)
	if f.current(t) != 0 || f.limits().Body != 64<<20 {
		t.Error("a configuration that needs a restart is current")
	}
	label := func() string {
		r := stepOf("a", nil)
		r.Outputs = []inference.Output{{Name: "y", Params: inference.Params{"classification": int64(4)}}}
		out, err := f.Infer(t.Context(), r, Caller{})
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(out.Outputs[0].Texts)
	}
	if got := label(); !strings.Contains(got, ":three") {
		t.Errorf("the labels are %s", got)
	}
	put(t, filepath.Join(f.dir, "names.txt"), []byte("one\ntwo\nother\nfour\n"))
	f.now <- syscall.SIGHUP
	f.hears(t, 1, readAgain)
	if got := label(); !strings.Contains(got, ":other") {
		t.Errorf("the labels are %s after their file has changed", got)
	}
}

// The file of labels is looked at as the configuration is.
func TestFilesOfConfigAreWatched(t *testing.T) {
	f := followConfig(t, 10*time.Millisecond, "models:\n  - path: a.onnx\n")
	put(t, filepath.Join(f.dir, "names.txt"), []byte("one\n"))
	f.take(t, "models:\n  - path: a.onnx\n    labels: {y: names.txt}\n", readAgain)
	before := strings.Count(f.log.String(), readAgain)
	put(t, filepath.Join(f.dir, "names.txt"), []byte("one more\n"))
	f.hears(t, before, readAgain)
	if got := f.models.get("a").c.Labels["y"]; !slices.Equal(got, []string{"one more"}) {
		t.Errorf("labels %q", got)
	}
}

// What a client has unloaded remains so, and is loaded with the options that it has by then.
func TestConfigOfUnloadedModel(t *testing.T) {
	f := followConfig(t, 10*time.Millisecond, twoModels)
	for _, model := range []string{"a", "p"} {
		if err := f.Unload(t.Context(), model, false); err != nil {
			t.Fatal(err)
		}
	}
	f.take(t, strings.Replace(twoModels, "b.onnx\n", "b.onnx\n    rows: 3\n", 1), readAgain)
	f.take(t, strings.NewReplacer("a.onnx\n", "a.onnx\n    rows: 5\n", "[{model: a}]", "[{model: b}]").Replace(twoModels), readAgain)
	if e := f.models.get("a"); e.wanted || len(e.versions) > 0 {
		t.Error("a model that was unloaded is loaded")
	}
	if f.models.get("p").wanted {
		t.Error("a pipeline that was unloaded is loaded")
	}
	for _, model := range []string{"a", "p"} {
		if err := f.Load(t.Context(), model); err != nil {
			t.Fatal(err)
		}
	}
	if f.version("a").q.Options().Rows != 5 || f.models.get("p").pipeline.c.Stages[0].Model != "b" {
		t.Error("a model that was loaded again has the options of before")
	}
}

// While configurations, files and clients change the models, each request is answered with
// the bits of one of the files.
func TestRequestsWhileConfigChanges(t *testing.T) {
	const base = `models:
  - path: a.onnx
  - {path: %s.onnx, name: x, rows: %d}
pipelines:
  - {name: p, stages: [{model: x}]}
  - {name: q%d, stages: [{model: a}]}
`
	f := followConfig(t, 10*time.Millisecond, fmt.Sprintf(base, "b", 1, 0))
	file := map[bool]string{true: "b", false: "c"}
	answers := map[string][]float32{}
	for _, name := range []string{"b", "c"} {
		s, _ := serverOf(t, ModelConfig{Path: filepath.Join(f.dir, name+".onnx")})
		answers[name] = outputs(mustStep(t, s, name, nil))
	}
	a := outputs(mustStep(t, f.Server, "a", nil))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go f.Watch(ctx, 10*time.Millisecond)
	var over atomic.Bool
	var clients sync.WaitGroup
	var count atomic.Int64
	for i, model := range []string{"a", "x", "p", "x", "p"} {
		clients.Go(func() {
			for !over.Load() {
				out, err := f.Infer(t.Context(), stepOf(model, nil), Caller{Conn: fmt.Sprint(i)})
				if err != nil {
					t.Errorf("%s: %v", model, err)
					return
				}
				got := outputs(out)
				if model == "a" && !slices.Equal(got, a) || model != "a" && !slices.Equal(got, answers["b"]) && !slices.Equal(got, answers["c"]) {
					t.Errorf("%s answers %v", model, got)
					return
				}
				count.Add(1)
			}
		})
	}
	clients.Go(func() { // sessions of a model that changes go on to their end in their version
		for n := 0; !over.Load(); n++ {
			id := fmt.Sprint("s", n)
			for i := range 5 {
				p := continues(id)
				if i == 0 {
					p = begins(id)
				}
				_, err := f.Infer(t.Context(), stepOf("x", p), Caller{Client: "c", Conn: "s"})
				if err != nil {
					if i == 0 && codeOf(err) == inference.Unavailable {
						break // the version was replaced before the session was there
					}
					t.Errorf("step %d of a session: %v", i, err)
					return
				}
			}
			if n, err := f.sessions.Find("x", id); err == nil {
				n.End("it is over")
			}
		}
	})
	clients.Go(func() {
		for !over.Load() {
			if err := f.Load(t.Context(), "x"); err != nil {
				t.Errorf("load: %v", err)
			}
			time.Sleep(3 * time.Millisecond)
		}
	})
	for i := range 12 {
		f.take(t, fmt.Sprintf(base, file[i%2 == 0], i+2, i%3), readAgain)
	}
	over.Store(true)
	clients.Wait()
	if count.Load() < 100 {
		t.Errorf("%d requests", count.Load())
	}
	v := f.version("x")
	until(t, "the versions that were replaced are closed", func() bool { n, _ := f.sessions.Count(nil); return n == 0 })
	if v.q.Options().Rows != 13 || f.current(t) != 1 {
		t.Errorf("rows %d", v.q.Options().Rows)
	}
	if got := f.names(); got != `"a", "p", "q2", "x"` || !f.Ready() {
		t.Errorf("the models are %s", got)
	}
}

// A request of a pipeline that finds the version of a stage closed is answered by the one that
// has its place.
func TestPipelineWhileVersionIsReplaced(t *testing.T) {
	s := newTestServer(t, Options{})
	step := s.models.get("step").versions[0]
	if err := s.Load(t.Context(), "step"); err != nil {
		t.Fatal(err)
	}
	one := &inference.Request{Inputs: []inference.Tensor{stepInput(1)}}
	until(t, "the version is closed", func() bool {
		_, err := s.inferOn(t.Context(), step, "both/1", one, sequence{}, Caller{}, time.Now())
		return err != nil && codeOf(err) == inference.Unavailable
	})
	if _, err := s.inferNewest(t.Context(), step, "both/1", one, sequence{}, Caller{}, time.Now()); err != nil {
		t.Error(err)
	}
}
