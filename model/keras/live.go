package keras

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/model"
)

//go:embed parity.py
var parityScript string

// CheckKeras lets Keras load the file that w was read from, a whole model as such
// and weights alone array by array, and run its layers on the input of p, and
// adds to p how much its results differ from this library's. python is the
// interpreter to run, with KERAS_BACKEND taken from the environment. An
// interpreter that is missing, has no Keras or fails otherwise is an error with
// the last line of its output.
func (w *Weights) CheckKeras(ctx context.Context, p *model.Parity, python string) error {
	dir, err := os.MkdirTemp("", "carousel-parity-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	type described struct {
		model.Layer
		Class  string   `json:"class"`
		Arrays []string `json:"arrays"` // paths in the file
		CuDNN  bool     `json:"cudnn"`  // in its layout
		Scale  bool     `json:"scale"`
		Center bool     `json:"center"`
	}
	var layers []described
	for _, l := range w.layers {
		d := described{*l.desc, l.class, nil, l.cudnn, l.scale, l.center}
		for _, a := range slices.Concat(l.arrays...) {
			if a != nil && a.path != "" {
				d.Arrays = append(d.Arrays, a.path)
			}
		}
		layers = append(layers, d)
	}
	text, err := json.Marshal(layers)
	if err != nil {
		return err
	}
	list, samples := filepath.Join(dir, "layers.json"), filepath.Join(dir, "samples.safetensors")
	if err := os.WriteFile(list, text, 0o600); err != nil {
		return err
	}
	if err := model.WriteTensors(samples, p.Tensors(w.Arch), nil); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, python, "-c", parityScript, w.path, list, samples)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		said, fix := lines[len(lines)-1], ""
		if len(said) > 200 {
			said = said[:200] + "..."
		}
		if w.keras2 {
			fix = "; the model is one of Keras 2, of which Keras 3 does not load all: name an interpreter with Keras 2"
		}
		return fmt.Errorf("%s: comparison with Keras: %w: %s%s", python, err, said, fix)
	}
	var answer struct {
		Keras       string    `json:"keras"`
		Differences []float64 `json:"differences"`
	}
	last := strings.TrimSpace(stdout.String())
	last = last[strings.LastIndexByte(last, '\n')+1:]
	if err := json.Unmarshal([]byte(last), &answer); err != nil || len(answer.Differences) != len(p.Layers) {
		return fmt.Errorf("%s: comparison with Keras: cannot use its answer %.80q", python, last)
	}
	p.Compared("Keras "+answer.Keras, answer.Differences)
	return nil
}
