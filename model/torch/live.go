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

// CheckPyTorch lets PyTorch load the file that f was read from, a .safetensors
// or one of torch.save, and run the layers of arch on the input of p, and adds
// to p how much its results differ from this library's. python is the
// interpreter to run.
//
// A layer that PyTorch does not have is a [*model.FileError]. An interpreter
// that is missing, has no PyTorch or fails otherwise is an error with the last
// line of its output.
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
	if err := Write(samples, p.Tensors(arch)); err != nil {
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
