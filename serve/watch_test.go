package serve

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/model/onnx"
	"github.com/carousel-ml/carousel/model/onnx/graph"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/serve/batch"
	"github.com/carousel-ml/carousel/serve/inference"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// seededFile writes a small LSTM that keeps its state as an ONNX file, whole at once.
func seededFile(tb testing.TB, path string, seed uint64) {
	tb.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		tb.Fatal(err)
	}
	net := struct{ RNN *nn.RNN }{nn.NewLSTM(3, 4, nil)}
	tensor.Pack(tensor.CPU(), &net, seed)
	if _, err := onnx.Export(context.Background(), path, &onnx.Stack{RNN: net.RNN}, &onnx.ExportOptions{State: true}); err != nil {
		tb.Fatal(err)
	}
}

// records is a log in memory.
type records struct {
	mu   sync.Mutex
	text strings.Builder
}

func (r *records) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(b)
}

func (r *records) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// serverOf returns a server whose log is kept, and closes it at the end of the test.
func serverOf(tb testing.TB, models ...ModelConfig) (*Server, *records) {
	tb.Helper()
	log := &records{}
	s := New(Options{Tasks: carousel.Tasks, Version: "test", Log: slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	tb.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			tb.Error(err)
		}
	})
	for _, c := range models {
		if err := s.Add(context.Background(), c); err != nil {
			tb.Fatal(err)
		}
	}
	return s, log
}

// askStep sends a step to a model.
func askStep(s *Server, model string, p inference.Params) (*inference.Response, error) {
	x := inference.Value{Dims: []int{1, 1, 3}, Floats: []float32{1, -2, 0.5}}
	_, v, err := s.find(model, "")
	if err != nil {
		return nil, err
	}
	return s.Infer(context.Background(), &inference.Request{Model: model, Params: p,
		Inputs: []inference.Tensor{{Name: v.ins[0].Name, Datatype: inference.FP32, Value: x}}}, Caller{Client: "c", Conn: "1"})
}

func mustStep(tb testing.TB, s *Server, model string, p inference.Params) *inference.Response {
	tb.Helper()
	out, err := askStep(s, model, p)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// looks looks at a server's models as Watch does, n times.
type looks struct {
	s   *Server
	all map[string]*watched
}

func (l *looks) look(n int) {
	for range n {
		for _, e := range l.s.models.list() {
			if l.all[e.name] == nil {
				l.all[e.name] = &watched{}
			}
			l.s.look(context.Background(), e, l.all[e.name], time.Hour)
		}
	}
}

func looksAt(s *Server) *looks { return &looks{s, map[string]*watched{}} }

func served(s *Server, model string) string {
	e := s.models.get(model)
	return numbersOf(e.versions) + "|" + e.reason
}

func TestVersionsComeAndGo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "m")
	file := func(n int) string { return filepath.Join(dir, fmt.Sprint(n), "model.onnx") }
	seededFile(t, file(1), 1)
	s, log := serverOf(t, ModelConfig{Path: dir, Versions: 2})
	w := looksAt(s)
	w.look(3)
	if got := served(s, "m"); got != "1|" {
		t.Fatalf("serving %q", got)
	}
	begin := inference.Params{"sequence_id": "a", "sequence_start": true}
	first := mustStep(t, s, "m", begin)
	v1 := s.models.get("m").versions[0]

	seededFile(t, file(2), 2)
	w.look(1)
	if got := served(s, "m"); got != "1|" {
		t.Errorf("a version was loaded at the first look, while it may still be written: %q", got)
	}
	w.look(1)
	if got := served(s, "m"); got != "2, 1|" || s.models.get("m").versions[1] != v1 {
		t.Fatalf("serving %q, and version 1 must not be opened again", got)
	}
	other := mustStep(t, s, "m", nil)
	second := mustStep(t, s, "m", inference.Params{"sequence_id": "a"})
	if other.Version != "2" || second.Version != "1" {
		t.Errorf("a new request was answered by version %s, a sequence of version 1 by version %s", other.Version, second.Version)
	}
	if slices.Equal(first.Outputs[0].Floats, second.Outputs[0].Floats) || slices.Equal(first.Outputs[0].Floats, other.Outputs[0].Floats) {
		t.Error("equal answers of another state or other weights")
	}

	seededFile(t, file(3), 3) // 1 is not among the newest two any more
	w.look(2)
	if got := served(s, "m"); got != "3, 2|" {
		t.Fatalf("serving %q", got)
	}
	third := mustStep(t, s, "m", inference.Params{"sequence_id": "a", "sequence_end": true})
	if third.Version != "1" {
		t.Errorf("a sequence of version 1, which was retired, was answered by version %s", third.Version)
	}
	if _, err := askStep(s, "m", inference.Params{"sequence_id": "a"}); err == nil {
		t.Error("the sequence goes on after its end")
	}
	closed(t, v1)

	if err := os.RemoveAll(filepath.Dir(file(3))); err != nil {
		t.Fatal(err)
	}
	w.look(2)
	if got := served(s, "m"); got != "2, 1|" {
		t.Errorf("serving %q after the newest was removed", got)
	}
	if !strings.Contains(log.String(), `"msg":"a version is replaced"`) {
		t.Error("the log does not say that a version was replaced")
	}
}

// closed waits until a version is closed.
func closed(tb testing.TB, v *version) {
	tb.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		j := &batch.Job{Inputs: make([]inference.Value, len(v.ins))}
		j.Inputs[0] = inference.Value{Dims: []int{1, 1, 3}, Floats: []float32{1, 2, 3}}
		if err := v.q.Do(context.Background(), j); err != nil && inference.AsError(err).Code == inference.Unavailable {
			return
		}
		if time.Now().After(end) {
			tb.Fatal("a version without sessions was not closed")
		}
	}
}

func TestFilesThatDoNotOpenLeaveWhatIsServed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "m")
	file := func(n int) string { return filepath.Join(dir, fmt.Sprint(n), "model.onnx") }
	seededFile(t, file(1), 1)
	seededFile(t, file(2), 2)
	if err := os.WriteFile(file(2), []byte("damage"), 0o644); err != nil {
		t.Fatal(err)
	}
	s, log := serverOf(t)
	err := s.Add(context.Background(), ModelConfig{Path: dir})
	if err == nil || !strings.Contains(err.Error(), "version 2: ") {
		t.Fatalf("got %v, want why version 2 does not open", err)
	}
	if got := served(s, "m"); !strings.HasPrefix(got, "1|version 2: ") || !s.Ready() {
		t.Fatalf("serving %q, want version 1 in place of the damaged one", got)
	}
	w := looksAt(s)
	w.look(10)
	if bad := s.models.of("m").bad.Load(); bad != 2 {
		t.Errorf("files that do not change were opened %d times, want at the start and by the first look", bad)
	}
	if list := s.index(false).Models; len(list) != 1 || list[0].Version != "1" || !strings.Contains(list[0].Reason, "version 2") {
		t.Errorf("index %v", list)
	}
	if _, _, err := s.find("m", "2"); err == nil || !strings.Contains(err.Error(), "it could not be loaded") || strings.Contains(err.Error(), dir) {
		t.Errorf("got %v, want that it could not be loaded, and no path of this machine", err)
	}
	v1 := s.models.get("m").versions[0]

	seededFile(t, file(2), 2)
	w.look(2)
	if got := served(s, "m"); got != "2|" {
		t.Fatalf("serving %q after the version was mended", got)
	}
	closed(t, v1)
	if err := os.WriteFile(file(2), []byte("damage"), 0o644); err != nil {
		t.Fatal(err)
	}
	w.look(2)
	if got := served(s, "m"); !strings.HasPrefix(got, "2|version 2: ") {
		t.Errorf("serving %q, want version 2 as it was before", got)
	}
	if out := mustStep(t, s, "m", nil); out.Version != "2" {
		t.Errorf("version %s answers", out.Version)
	}

	if err := os.Rename(dir, dir+"away"); err != nil { // as of a volume that is not mounted
		t.Fatal(err)
	}
	w.look(3)
	if got := served(s, "m"); !strings.HasPrefix(got, "2|") || got == "2|" {
		t.Errorf("serving %q, want version 2 and a reason", got)
	}
	if err := os.Rename(dir+"away", dir); err != nil {
		t.Fatal(err)
	}
	seededFile(t, file(2), 2)
	w.look(3)
	if got := served(s, "m"); got != "2|" {
		t.Errorf("serving %q when all is as before", got)
	}
	if n := strings.Count(log.String(), "a model cannot be loaded"); n != 4 {
		t.Errorf("the log has %d faults, want 4: at the start, by the first look, of the damage and of the missing directory", n)
	}
}

func TestChangedFileIsLoaded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.onnx")
	seededFile(t, path, 1)
	s, _ := serverOf(t, ModelConfig{Path: path})
	w := looksAt(s)
	before := mustStep(t, s, "m", nil)
	v := s.models.get("m").versions[0]

	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(path, later, later); err != nil {
		t.Fatal(err)
	}
	w.look(3)
	if s.models.get("m").versions[0] != v {
		t.Error("a file that was touched is another version, though its content is the same")
	}
	seededFile(t, path, 2)
	w.look(2)
	after := mustStep(t, s, "m", nil)
	if slices.Equal(before.Outputs[0].Floats, after.Outputs[0].Floats) {
		t.Error("the answer is that of the file as it was before")
	}
	loads := s.models.of("m").good.Load()
	w.look(3)
	if n := s.models.of("m").good.Load(); n != loads {
		t.Error("a file that did not change was loaded")
	}

	if err := s.Unload(context.Background(), "m", false); err != nil {
		t.Fatal(err)
	}
	seededFile(t, path, 3)
	w.look(3)
	if _, err := askStep(s, "m", nil); err == nil {
		t.Error("a model that was unloaded answers, because its file changed")
	}
	if err := s.Load(context.Background(), "m"); err != nil {
		t.Fatal(err)
	}
	mustStep(t, s, "m", nil)
}

// While versions come, requests with and without a session are answered, and no version
// is left behind.
func TestRequestsWhileVersionsChange(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "m")
	file := func(n int) string { return filepath.Join(dir, fmt.Sprint(n), "model.onnx") }
	seededFile(t, file(1), 1)
	s, _ := serverOf(t, ModelConfig{Path: dir})
	if err := s.Add(context.Background(), ModelConfig{Name: "words", Path: filepath.Join("..", "testdata", "format1", "classify", "model")}); err != nil {
		t.Fatal(err)
	}
	if err := s.AddPipeline(PipelineConfig{Name: "piped", Stages: []StageConfig{{Model: "m"}}}); err != nil {
		t.Fatal(err)
	}
	url := listen(t, s)
	ctx, stop := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { s.Watch(ctx, 5*time.Millisecond) })
	all.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			x := inference.Tensor{Name: "x", Datatype: inference.FP32, Value: inference.Value{Dims: []int{1, 1, 3}, Floats: []float32{1, -2, 0.5}}}
			if _, err := s.Infer(ctx, &inference.Request{Model: "piped", Inputs: []inference.Tensor{x}}, Caller{Client: "c", Conn: "1"}); err != nil && ctx.Err() == nil {
				t.Errorf("request %d of a pipeline: %v", n, err)
				return
			}
		}
	})
	all.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			if a, text := ask(t, "POST", url+"/v1/classify", `{"text":"a"}`); a.StatusCode != 200 {
				t.Errorf("request %d of a task's own form: %d %s", n, a.StatusCode, text)
				return
			}
		}
	})
	for c := range 4 {
		all.Go(func() {
			id := fmt.Sprint("s", c)
			for n := 0; ctx.Err() == nil; n++ {
				var p inference.Params
				if c%2 == 0 {
					p = inference.Params{"sequence_id": id, "sequence_start": n%7 == 0, "sequence_end": n%7 == 6}
				}
				if _, err := askStep(s, "m", p); err != nil {
					t.Errorf("request %d of client %d: %v", n, c, err)
					return
				}
			}
		})
	}
	all.Go(func() {
		for ctx.Err() == nil {
			for _, name := range []string{"m", "words"} {
				if err := s.Load(context.Background(), name); err != nil {
					t.Error(err)
				}
			}
		}
	})
	for n := 2; n <= 6; n++ {
		// A version is put in its place whole, as a careful deployment does.
		seededFile(t, filepath.Join(dir, "new", "model.onnx"), uint64(n))
		if err := os.Rename(filepath.Join(dir, "new"), filepath.Dir(file(n))); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(20 * time.Second); !strings.HasPrefix(served(s, "m"), fmt.Sprint(n)); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("version %d was not taken up: serving %q", n, served(s, "m"))
			}
		}
	}
	stop()
	all.Wait()
}

func TestModelsAreTriedBeforeTheyAreServed(t *testing.T) {
	tried := func(t *testing.T, p warming) {
		t.Helper()
		for _, j := range p.trials() {
			if j.Err = p.(batch.Program).Check(j); j.Err == nil {
				p.(batch.Program).Run(context.Background(), []*batch.Job{j})
			}
			if j.Err == nil {
				return
			}
			t.Log(j.Err)
		}
		t.Error("no trial succeeded")
	}
	stores(t, func(t *testing.T, m *task.Trained, _ string) { tried(t, program(t, m)) })
	t.Run("graph", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "m.onnx")
		seededFile(t, path, 1)
		m, err := graph.Read(path)
		if err != nil {
			t.Fatal(err)
		}
		p, err := newGraphProgram(m, "", graphOptions{noBatch: true})
		if err != nil {
			t.Fatal(err)
		}
		tried(t, p)
	})
	s, log := serverOf(t, ModelConfig{Path: filepath.Join("..", "testdata", "format1", "classify", "model"), Name: "c"})
	if !strings.Contains(log.String(), "tried before it is served") {
		t.Errorf("the log does not tell of a trial:\n%s", log)
	}
	if _, v, err := s.find("c", ""); err != nil || v.q.Stats().Succeeded != 0 {
		t.Errorf("the trial counts as a request (%v)", err)
	}
}

// A model is unloaded at once, also while it is being loaded, and the load is then in vain.
func TestUnloadWhileLoading(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "m.onnx")
	seededFile(t, path, 1)
	s, _ := serverOf(t, ModelConfig{Path: path})
	l := s.models.of("m")
	before := s.models.get("m")
	began, ended := make(chan struct{}), make(chan error, 1)
	l.one.Lock() // as by a load that goes on
	go func() { close(began); ended <- s.Load(context.Background(), "m") }()
	<-began
	if err := s.Unload(context.Background(), "m", false); err != nil { // it must not wait for the load
		t.Fatal(err)
	}
	if s.models.swap(before, &entry{name: "m", versions: before.versions, wanted: true}) {
		t.Error("a load that began before took the place of what was unloaded")
	}
	l.one.Unlock()
	if err := <-ended; err != nil { // which began after it
		t.Error(err)
	}
	mustStep(t, s, "m", nil)
	if err := s.Load(context.Background(), "none"); err == nil || len(s.models.loads) != 1 {
		t.Errorf("a name that does not exist is kept: %v, %d names", err, len(s.models.loads))
	}
}
