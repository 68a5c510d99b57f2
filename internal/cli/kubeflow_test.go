package cli

import (
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/train"
)

// trainerServer is Kubeflow Trainer's end: it keeps what is posted, and answers as it is told.
type trainerServer struct {
	*httptest.Server
	mu     sync.Mutex
	bodies []string
	tokens []string
	got    chan struct{} // a value for each post
	answer http.HandlerFunc
}

func newTrainerServer(t *testing.T, answer http.HandlerFunc) (s *trainerServer, getenv func(string) string, token string) {
	t.Helper()
	s = &trainerServer{got: make(chan struct{}, 100), answer: answer}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.bodies, s.tokens = append(s.bodies, string(body)), append(s.tokens, r.Header.Get("Authorization"))
		s.mu.Unlock()
		s.got <- struct{}{}
		s.answer(w, r)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.crt")
	token = filepath.Join(dir, "token")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(ca, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(token, []byte("first\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{
		"KUBEFLOW_TRAINER_SERVER_URL": s.URL + "/status", "KUBEFLOW_TRAINER_SERVER_CA_CERT": ca, "KUBEFLOW_TRAINER_SERVER_TOKEN": token,
	}
	return s, func(name string) string { return env[name] }, token
}

// Kubeflow is told what it documents, with the token of the moment, no more often than it may
// be, and at the end.
func TestKubeflowIsToldTheProgress(t *testing.T) {
	s, getenv, token := newTrainerServer(t, func(http.ResponseWriter, *http.Request) {})
	var remarks []string
	k := newKubeflow(getenv, func(text string) { remarks = append(remarks, text) })
	k.every = 20 * time.Millisecond
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	k.now = func() time.Time { return now }
	var h train.Hooks
	end := k.watch(&h, 0)

	if err := h.OnStart(train.Plan{Steps: 200}); err != nil {
		t.Fatal(err)
	}
	now = now.Add(10 * time.Second)
	if err := h.OnStep(train.Step{Step: 50, Loss: 0.25}); err != nil {
		t.Fatal(err)
	}
	<-s.got
	if err := os.WriteFile(token, []byte("second\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 3 { // posted at once or in parts
		if err := h.OnStep(train.Step{Step: 51 + i, Loss: 0.125}); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.OnEpoch(train.Record{Epoch: 1, Val: map[string]float64{"loss": 0.5, "accuracy": 0.75}}); err != nil {
		t.Fatal(err)
	}
	k.finish()
	end()

	s.mu.Lock()
	defer s.mu.Unlock()
	want := `{"trainerStatus":{"progressPercentage":25,"estimatedRemainingSeconds":30,"metrics":[{"name":"loss","value":"0.25"}],"lastUpdatedTime":"2026-03-01T12:00:10Z"}}`
	if s.bodies[0] != want || s.tokens[0] != "Bearer first" {
		t.Errorf("posted %s with %q, want %s", s.bodies[0], s.tokens[0], want)
	}
	last := len(s.bodies) - 1
	var got map[string]map[string]any
	if err := json.Unmarshal([]byte(s.bodies[last]), &got); err != nil {
		t.Fatal(err)
	}
	metrics := []any{}
	for _, m := range [][2]string{{"loss", "0.125"}, {"val_accuracy", "0.75"}, {"val_loss", "0.5"}, {"epoch", "1"}} {
		metrics = append(metrics, map[string]any{"name": m[0], "value": m[1]})
	}
	if status := got["trainerStatus"]; status["progressPercentage"] != 100.0 || status["estimatedRemainingSeconds"] != 0.0 ||
		!reflect.DeepEqual(status["metrics"], metrics) || s.tokens[last] != "Bearer second" {
		t.Errorf("at the end posted %v with %q", got, s.tokens[last])
	}
	if len(s.bodies) > 6 || len(remarks) > 0 {
		t.Errorf("%d posts of 6 states, remarks %q", len(s.bodies), remarks)
	}
}

// A training whose time is limited is as far as its time.
func TestKubeflowGoesByTime(t *testing.T) {
	k := &kubeflow{now: time.Now, done: make(chan struct{})}
	now := time.Now()
	k.now = func() time.Time { return now }
	var h train.Hooks
	k.watch(&h, time.Minute)
	_ = h.OnStart(train.Plan{Steps: 1000, History: []train.Record{{Step: 100}}})
	now = now.Add(15 * time.Second)
	_ = h.OnStep(train.Step{Step: 110})
	if *k.state.Progress != 25 || *k.state.Remaining != 45 {
		t.Errorf("%d %%, %d s left, want 25 %%, 45 s", *k.state.Progress, *k.state.Remaining)
	}
	k.limit = 0
	_ = h.OnStep(train.Step{Step: 110})
	if *k.state.Progress != 11 || *k.state.Remaining != 15*89 {
		t.Errorf("%d %%, %d s left, want 11 %%, %d s", *k.state.Progress, *k.state.Remaining, 15*89)
	}
}

// A server that fails, hangs or is somebody else is noted once, and never stops a training.
func TestKubeflowFailures(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		change func(env map[string]string)
		want   string
	}{
		"500": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, nil, "the server answers 500"},
		"redirect": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(302)
		}, nil, "the server answers 302"},
		"hangs":     {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, nil, "deadline exceeded"},
		"no token":  {func(http.ResponseWriter, *http.Request) {}, func(env map[string]string) { env["KUBEFLOW_TRAINER_SERVER_TOKEN"] = "/none" }, "open /none"},
		"other CA":  {func(http.ResponseWriter, *http.Request) {}, func(env map[string]string) { env["KUBEFLOW_TRAINER_SERVER_CA_CERT"] = "" }, "certificate"},
		"not a PEM": {func(http.ResponseWriter, *http.Request) {}, func(env map[string]string) { env["KUBEFLOW_TRAINER_SERVER_CA_CERT"] = "kubeflow.go" }, "no certificate in PEM"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, getenv, _ := newTrainerServer(t, c.answer)
			env := map[string]string{}
			for _, name := range []string{"URL", "CA_CERT", "TOKEN"} {
				env["KUBEFLOW_TRAINER_SERVER_"+name] = getenv("KUBEFLOW_TRAINER_SERVER_" + name)
			}
			if c.change != nil {
				c.change(env)
			}
			var remarks []string
			k := newKubeflow(func(name string) string { return env[name] }, func(text string) { remarks = append(remarks, text) })
			k.every, k.wait = 10*time.Millisecond, time.Minute
			if name == "hangs" {
				k.wait = 200 * time.Millisecond
			}
			var h train.Hooks
			end := k.watch(&h, 0)
			_ = h.OnStart(train.Plan{Steps: 10})
			for i := range 3 {
				if err := h.OnStep(train.Step{Step: i + 1}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(20 * time.Millisecond)
			}
			end()
			if len(remarks) != 1 || !strings.Contains(remarks[0], c.want) || strings.Contains(remarks[0], "\n") {
				t.Errorf("remarks %q, want one with %q", remarks, c.want)
			}
		})
	}
	if newKubeflow(func(string) string { return "" }, nil) != nil {
		t.Error("there is no server, and it is told")
	}
}
