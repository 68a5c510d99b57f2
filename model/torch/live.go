package torch

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/carousel-ml/carousel/model"
)

//go:embed parity.py
var parityScript string

// CheckPyTorch lets PyTorch load the file f was read from, a .safetensors or one
// of torch.save, run the layers of arch on the input of p, and adds to p how far
// its results lie from this library's. python is the interpreter to run; one
// without PyTorch, or that fails otherwise, is an error with its last line.
func CheckPyTorch(ctx context.Context, p *model.Parity, python string, f *model.File, arch *model.Architecture) error {
	for i := range arch.Layers {
		if l := &arch.Layers[i]; !l.PyTorch() {
			return &model.FileError{File: f.Path, Problem: fmt.Sprintf("layer %s: PyTorch has no %v", quote(l.Name), l), Fix: "compare without it"}
		}
	}
	dir, err := os.MkdirTemp("", "carousel-parity-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	layers, samples := filepath.Join(dir, "layers.json"), filepath.Join(dir, "samples.pt")
	text, err := json.Marshal(arch)
	if err != nil {
		return err
	}
	if err := os.WriteFile(layers, text, 0o600); err != nil {
		return err
	}
	if err := Write(samples, sampleTensors(p, arch)); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, python, "-c", parityScript, f.Path, f.Meta[KeyMeta], layers, samples)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		return fmt.Errorf("%s: comparison with PyTorch: %w: %s", python, err, lines[len(lines)-1])
	}
	var answer struct {
		Torch       string    `json:"torch"`
		Differences []float64 `json:"differences"`
	}
	if err := json.Unmarshal(stdout.Bytes(), &answer); err != nil || len(answer.Differences) != len(p.Layers) {
		return fmt.Errorf("%s: comparison with PyTorch: cannot use its answer %s", python, quote(stdout.String()))
	}
	p.Compared("PyTorch "+answer.Torch, answer.Differences)
	return nil
}

// sampleTensors are inputs and results under the names "layer.part".
func sampleTensors(p *model.Parity, arch *model.Architecture) []model.Tensor {
	var ts []model.Tensor
	for i, s := range p.Samples {
		l := &arch.Layers[i]
		add := func(part string, data []float32, dims ...int) {
			if len(data) > 0 {
				ts = append(ts, model.Tensor{Name: fmt.Sprintf("%d.%s", i, part), Dims: dims, Data: data})
			}
		}
		slots := l.Layers * l.Directions()
		add("x", s.X, batch, steps, l.Input)
		add("y", s.Y, batch, steps, l.Output)
		add("h0", s.H0, slots, batch, l.State())
		add("hn", s.HN, slots, batch, l.State())
		add("c0", s.C0, slots, batch, l.Hidden)
		add("cn", s.CN, slots, batch, l.Hidden)
		if s.IDs != nil {
			ids := make([]int64, len(s.IDs))
			for j, id := range s.IDs {
				ids[j] = int64(id)
			}
			ts = append(ts, model.Tensor{Name: fmt.Sprintf("%d.ids", i), Dims: []int{batch, steps}, Ints: ids})
		}
	}
	return ts
}
