package serve

import (
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	prometheus "github.com/prometheus/common/model"

	"github.com/carousel-ml/carousel/model/onnx"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/serve/inference"
	"github.com/carousel-ml/carousel/tensor"
)

// stepFile writes the graph of a recurrent step of H 4 and returns its path.
func stepFile(t *testing.T) string {
	t.Helper()
	net := struct{ RNN *nn.RNN }{nn.NewLSTM(4, 4, nil)}
	tensor.Pack(tensor.CPU(), &net, 1)
	path := filepath.Join(t.TempDir(), "step.onnx")
	if _, err := onnx.Export(t.Context(), path, &onnx.Stack{RNN: net.RNN}, &onnx.ExportOptions{State: true}); err != nil {
		t.Fatal(err)
	}
	return path
}

// scrape reads the metrics as Prometheus does.
func scrape(t *testing.T, url string) map[string]*dto.MetricFamily {
	t.Helper()
	r, err := http.Get(url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if kind := r.Header.Get("Content-Type"); r.StatusCode != http.StatusOK || !strings.HasPrefix(kind, "text/plain; version=0.0.4") {
		t.Fatalf("%s, %s", r.Status, kind)
	}
	parser := expfmt.NewTextParser(prometheus.LegacyValidation)
	families, err := parser.TextToMetricFamilies(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// value returns the value of a series, of a histogram the number of its observations.
func value(t *testing.T, families map[string]*dto.MetricFamily, name string, labels map[string]string) float64 {
	t.Helper()
	for _, m := range families[name].GetMetric() {
		have := map[string]string{}
		for _, l := range m.GetLabel() {
			have[l.GetName()] = l.GetValue()
		}
		if !maps.Equal(have, labels) {
			continue
		}
		switch {
		case m.Counter != nil:
			return m.Counter.GetValue()
		case m.Gauge != nil:
			return m.Gauge.GetValue()
		}
		return float64(m.GetHistogram().GetSampleCount())
	}
	t.Errorf("there is no %s%v", name, labels)
	return -1
}

// Metrics say what was asked: requests by their ends, rows, batches, sessions.
func TestMetrics(t *testing.T) {
	s := New(Options{})
	defer s.Close(t.Context())
	path := stepFile(t)
	for _, c := range []ModelConfig{{Name: `a "name"`, Path: path}, {Name: "short", Path: path, Life: 30 * time.Millisecond}} {
		if err := s.Add(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	web := httptest.NewServer(s.Handler())
	defer web.Close()

	r := rand.New(rand.NewPCG(1, 1))
	ask := func(name string, rows int, params inference.Params) error {
		v := inference.Value{Dims: []int{rows, 1, 4}, Floats: make([]float32, 4*rows)}
		for i := range v.Floats {
			v.Floats[i] = float32(r.NormFloat64())
		}
		in := s.models.get(name).versions[0].ins
		x := in[slices.IndexFunc(in, func(i inference.Info) bool { return !i.State })].Name
		_, err := s.Infer(t.Context(), &inference.Request{Model: name, Params: params, Inputs: []inference.Tensor{{Name: x, Datatype: inference.FP32, Value: v}}}, Caller{Client: "c", Conn: "1"})
		return err
	}
	for range 3 {
		if err := ask(`a "name"`, 5, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := ask(`a "name"`, 0, nil); err == nil {
		t.Fatal("a request without rows was answered")
	}
	for id := range int64(3) {
		if err := ask("short", 1, inference.Params{"sequence_id": id + 1, "sequence_start": true, "sequence_end": id == 0}); err != nil {
			t.Fatal(err)
		}
	}
	if err := ask(`a "name"`, 1, inference.Params{"sequence_id": "x", "sequence_start": true}); err != nil {
		t.Fatal(err)
	}

	named, short := map[string]string{"model": `a "name"`, "version": "1"}, map[string]string{"model": "short", "version": "1"}
	with := func(labels map[string]string, reason string) map[string]string {
		labels = maps.Clone(labels)
		labels["reason"] = reason
		return labels
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) { // until the sessions of short have expired
		if n, _ := s.sessions.Count(nil); n == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("sessions do not expire")
		}
	}
	got := scrape(t, web.URL)
	_, bytes := s.sessions.Count(nil)
	for _, want := range []struct {
		name   string
		labels map[string]string
		value  float64
	}{
		{"nv_inference_request_success", named, 4}, {"nv_inference_request_success", short, 3},
		{"nv_inference_request_failure", with(named, "OTHER"), 1}, {"nv_inference_request_failure", with(named, "REJECTED"), 0}, {"nv_inference_request_failure", with(short, "CANCELED"), 0},
		{"nv_inference_count", named, 16}, {"nv_inference_exec_count", named, 4}, {"nv_inference_pending_request_count", named, 0},
		{"nv_inference_first_response_histogram_ms", named, 4}, {"carousel_queue_seconds", named, 4}, {"carousel_step_seconds", named, 4}, {"carousel_step_rows", named, 4},
		{"carousel_sessions", named, 1}, {"carousel_sessions", short, 0}, {"carousel_session_bytes", named, float64(bytes)}, {"carousel_session_bytes", short, 0},
		{"carousel_sessions_evicted_total", with(short, "idle"), 2}, {"carousel_sessions_evicted_total", with(short, "room"), 0}, {"carousel_sessions_evicted_total", with(named, "idle"), 0},
	} {
		if v := value(t, got, want.name, want.labels); v != want.value {
			t.Errorf("%s%v is %v, want %v", want.name, want.labels, v, want.value)
		}
	}
	if bytes == 0 {
		t.Error("the state has no bytes")
	}
	for _, m := range got["carousel_step_rows"].GetMetric() {
		if h := m.GetHistogram(); m.GetLabel()[0].GetValue() == `a "name"` && h.GetSampleSum() != 16 {
			t.Errorf("rows of batches sum to %v, want 16", h.GetSampleSum())
		}
	}
	total, parts := value(t, got, "nv_inference_request_duration_us", named), 0.0
	for _, name := range []string{"nv_inference_queue_duration_us", "nv_inference_compute_input_duration_us", "nv_inference_compute_infer_duration_us", "nv_inference_compute_output_duration_us"} {
		parts += value(t, got, name, named)
	}
	if diff := total - parts; total <= 0 || diff > 0.01 || diff < -0.01 {
		t.Errorf("the time of requests is %v, and that of its parts %v", total, parts)
	}
	for _, name := range []string{"go_goroutines", "process_start_time_seconds"} {
		if got[name] == nil {
			t.Errorf("there is no %s", name)
		}
	}

	// Labels are bounded: requests of unknown names make no series.
	if err := s.Unload(t.Context(), "short", false); err != nil {
		t.Fatal(err)
	}
	if r, err := http.Post(web.URL+"/v2/models/stranger/infer", "application/json", strings.NewReader(`{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}`)); err != nil || r.StatusCode != http.StatusNotFound {
		t.Error(r, err)
	}
	for name, family := range scrape(t, web.URL) {
		for _, m := range family.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "model" && l.GetValue() != `a "name"` {
					t.Errorf("%s has a series of the model %q", name, l.GetValue())
				}
			}
		}
	}
}

// A model's metrics are those of its served version also while requests run and models are
// loaded anew.
func TestMetricsWhileLoading(t *testing.T) {
	s := New(Options{})
	defer s.Close(t.Context())
	if err := s.Add(t.Context(), ModelConfig{Name: "m", Path: stepFile(t)}); err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(s.Handler())
	defer web.Close()
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := s.Load(t.Context(), "m"); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for range 20 {
		r, err := http.Get(web.URL + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || r.StatusCode != http.StatusOK || strings.Count(string(text), "\ncarousel_sessions{") != 1 {
			t.Fatalf("%s, %v", r.Status, err)
		}
	}
	close(stop)
	<-done
}
