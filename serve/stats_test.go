package serve

import (
	"encoding/json"
	"testing"

	"github.com/carousel-ml/carousel/serve/inference"
)

// TestBatchStatistics: the statistics list the batches by their rows, as many as there were in all.
func TestBatchStatistics(t *testing.T) {
	s := newTestServer(t, Options{})
	url := listen(t, s)
	for _, rows := range []int{1, 3, 2, 3, 1, 3} {
		x := inference.Tensor{Name: "x", Datatype: inference.FP32, Value: inference.Value{Dims: []int{rows, 1, testWidth}, Floats: make([]float32, rows*testWidth)}}
		expected(t, s, "step", nil, x)
	}
	_, text := ask(t, "GET", url+"/v2/models/step/stats", "")
	type sum struct{ Count, NS int }
	var got struct {
		ModelStats []struct {
			BatchStats []struct {
				BatchSize     int `json:"batch_size"`
				ComputeInput  sum `json:"compute_input"`
				ComputeInfer  sum `json:"compute_infer"`
				ComputeOutput sum `json:"compute_output"`
			} `json:"batch_stats"`
		} `json:"model_stats"`
	}
	if err := json.Unmarshal([]byte(text), &got); err != nil || len(got.ModelStats) != 1 || len(got.ModelStats[0].BatchStats) != 3 {
		t.Fatal(text, err)
	}
	for i, want := range []int{2, 1, 3} {
		b := got.ModelStats[0].BatchStats[i]
		if b.BatchSize != i+1 || b.ComputeInfer.Count != want || b.ComputeInfer.NS <= 0 || b.ComputeInput.Count != want || b.ComputeOutput.Count != want {
			t.Errorf("rows %d: %+v, want %d batches", i+1, b, want)
		}
	}
}
