package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

func TestParseDevice(t *testing.T) {
	for text, want := range map[string]deviceName{
		"cpu": {ordinal: -1}, "cuda": {cuda: true, ordinal: -1}, "auto": {cuda: true, auto: true, ordinal: -1},
		"cuda:0": {cuda: true, ordinal: 0}, "cuda:12": {cuda: true, ordinal: 12},
	} {
		if got, err := parseDevice(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:x", "cuda:1:2", "cpu:0", "auto:1", " cuda"} {
		if got, err := parseDevice(text); err == nil || !strings.Contains(err.Error(), "want cpu, cuda, cuda:N or auto") {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

// What is left of a training whose device failed is said in the same line.
func TestLostDevice(t *testing.T) {
	a := &app{args: []string{"train", "classify", "--out", "run"}}
	failed := &tensor.DeviceError{Device: "cuda:0 (NVIDIA H200)", Memory: true, Text: "1.0 GiB wanted, and 0.5 GiB of 139.0 GiB are free: use a smaller batch"}
	run := &trainRun{Out: t.TempDir()}
	if err := a.lostDevice(run, failed); err != failed {
		t.Errorf("without a checkpoint: %v", err)
	}
	if err := os.Mkdir(filepath.Dir(train.Checkpoint(run.Out)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(train.Checkpoint(run.Out), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	err := a.lostDevice(run, failed)
	text := err.Error()
	for _, want := range []string{"cuda:0 (NVIDIA H200): 1.0 GiB wanted", run.Out, "last checkpoint", "carousel train classify --out run --resume"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q lacks %q", text, want)
		}
	}
	if strings.Contains(text, "\n") || exitCode(err) != exitFailure {
		t.Errorf("exit code %d: %q", exitCode(err), text)
	}
}
