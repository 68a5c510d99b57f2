//go:build dl && linux

package serve

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/internal/cuda/cudatest"
	"github.com/carousel-ml/carousel/internal/dl"
	"github.com/carousel-ml/carousel/tensor"
)

// servedOnGPU is a server of a stored model on a GPU that the CPU plays, and its driver.
func servedOnGPU(t *testing.T, task, settings string) (http.Handler, *dl.Library) {
	dir := cudatest.Libraries(t)
	t.Setenv("CAROUSEL_CUDA_PATH", dir)
	driver, err := dl.Open(filepath.Join(dir, "libcuda.so.1"), false)
	if err != nil {
		t.Fatal(err)
	}
	cudatest.Set(driver, settings)
	on, err := tensor.CUDA(0, tensor.CUDAOptions{Deterministic: true})
	if err != nil {
		t.Fatal(err)
	}
	s := New(Options{Tasks: carousel.Tasks, Device: on})
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	if err := s.Add(t.Context(), ModelConfig{Name: "m", Path: filepath.Join("..", "testdata", "format1", task, "model")}); err != nil {
		t.Fatal(err)
	}
	return s.Handler(), driver
}

func get(h http.Handler, path string) (status int, answer string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

// TestMemoryOfDevice checks that requests leave nothing on a device that has room for few, and that
// one which needs too much is refused alone.
func TestMemoryOfDevice(t *testing.T) {
	h, driver := servedOnGPU(t, "classify", "memory=4000000")
	ask := func(text string) (int, string) {
		return post(t, h, "/v2/models/m/infer", fmt.Sprintf(`{"inputs":[{"name":"text","shape":[1],"datatype":"BYTES","data":[%q]}]}`, text))
	}
	for range 40 {
		if status, answer := ask("a text"); status != 200 {
			t.Fatal(answer)
		}
	}
	cudatest.Set(driver, "memory=1000")
	status, answer := ask(strings.Repeat("a long text ", 20_000))
	if status != 413 || !strings.Contains(answer, "cuda:0 (Emulated): ") || !strings.Contains(answer, " wanted, and ") {
		t.Errorf("got %d: %s", status, answer)
	}
	cudatest.Set(driver, "memory=4000000")
	if status, answer := ask("a text"); status != 200 {
		t.Error(answer)
	}
	if status, answer := get(h, "/v2/health/ready"); status != 200 {
		t.Error(answer)
	}
}

// TestLostDevice checks that a server whose device failed says so, and that its sessions end.
func TestLostDevice(t *testing.T) {
	h, driver := servedOnGPU(t, "generate", "")
	step := func(start bool) (int, string) {
		return post(t, h, "/v2/models/m/infer", fmt.Sprintf(`{"parameters":{"sequence_id":1,"sequence_start":%v},"inputs":[{"name":"text","shape":[1],"datatype":"BYTES","data":["the "]}],"outputs":[{"name":"log_prob"}]}`, start))
	}
	for i := range 2 {
		if status, answer := step(i == 0); status != 200 {
			t.Fatal(answer)
		}
	}
	_, metrics := get(h, "/metrics")
	if want := `carousel_device{device="cuda/Emulated/own"} 1`; !strings.Contains(metrics, want) {
		t.Errorf("the metrics lack %s", want)
	}
	cudatest.Set(driver, "fail=719 after=0")
	for range 2 {
		if status, answer := step(false); status != 500 && status != 404 {
			t.Errorf("got %d: %s", status, answer)
		}
	}
	for _, path := range []string{"/v2/health/ready", "/v2/health/live"} {
		status, answer := get(h, path)
		if want := "the server must be started again: its device failed: cuda:0 (Emulated): "; status != 503 || !strings.Contains(answer, want) {
			t.Errorf("%s: got %d: %s", path, status, answer)
		}
	}
	if _, metrics = get(h, "/metrics"); !strings.Contains(metrics, `carousel_device{device="cuda/Emulated/own"} 0`) {
		t.Error("the metrics do not say that the device failed")
	}
}
