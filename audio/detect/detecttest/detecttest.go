// Package detecttest writes small ONNX models with the inputs and outputs of the
// published ones that package detect runs: they find loud sound.
package detecttest

import (
	"os"
	"path/filepath"

	"github.com/carousel-ml/carousel/model/onnx/graph"
)

// Speech writes a model with the form of Silero VAD 5: the probability of speech of a
// window rises with its mean magnitude, and is 0.5 at 0.1. It works at both rates.
func Speech(path string) error {
	b := &graph.Builder{}
	b.Input("input", "", "batch", "samples")
	b.Input("state", "", 2, "batch", 128)
	b.InputInts("sr", "")
	level := b.Op("ReduceMean", []string{b.Op("Abs", []string{"input"})}, graph.Attr{Name: "axes", Value: []int64{1}}, graph.Attr{Name: "keepdims", Value: 1})
	// The rate matters a little, as in the models that have a network for each.
	rate := b.Op("Mul", []string{b.Op("Cast", []string{"sr"}, graph.Attr{Name: "to", Value: graph.Float32}), b.Float(1e-6)})
	b.Node("Sigmoid", []string{b.Op("Add", []string{b.Op("Mul", []string{b.Op("Sub", []string{level, b.Float(0.1)}), b.Float(100)}), rate})}, []string{"output"})
	b.Node("Identity", []string{"state"}, []string{"stateN"})
	b.Output("output", "", "batch", 1)
	b.Output("stateN", "", 2, "batch", 128)
	return write(path, b)
}

// Words writes models with the forms of openWakeWord's into a folder:
// melspectrogram.onnx, embedding_model.onnx, and loud.onnx, whose score is high if the
// last 0.76 s have a loud sample.
func Words(dir string) error {
	mel := &graph.Builder{}
	mel.Input("input", "", "batch", "samples")
	// The largest magnitude of each 512 samples, every 160, in place of 32 bands.
	magnitude := mel.Op("Unsqueeze", []string{mel.Op("Abs", []string{"input"}), mel.Ints("", 1)})
	loudest := mel.Op("MaxPool", []string{magnitude}, graph.Attr{Name: "kernel_shape", Value: []int64{512}}, graph.Attr{Name: "strides", Value: []int64{160}})
	rows := mel.Op("Reshape", []string{loudest, mel.Ints("", 1, 1, -1, 1)})
	mel.Node("Mul", []string{rows, mel.Floats("", ones(32), 1, 1, 1, 32)}, []string{"output"})
	mel.Output("output", "", "time", 1, "rows", 32)
	if err := write(filepath.Join(dir, "melspectrogram.onnx"), mel); err != nil {
		return err
	}

	embedding := &graph.Builder{}
	embedding.Input("input_1", "", "batch", 76, 32, 1)
	loudest = embedding.Op("ReduceMax", []string{"input_1"}, graph.Attr{Name: "axes", Value: []int64{1, 2}}, graph.Attr{Name: "keepdims", Value: 1})
	embedding.Node("Mul", []string{loudest, embedding.Floats("", ones(96), 1, 1, 1, 96)}, []string{"embedding"})
	embedding.Output("embedding", "", "batch", 1, 1, 96)
	if err := write(filepath.Join(dir, "embedding_model.onnx"), embedding); err != nil {
		return err
	}

	word := &graph.Builder{}
	word.Input("x", "", 1, 16, 96)
	last := word.Op("Gather", []string{"x", word.Ints("", 15)}, graph.Attr{Name: "axis", Value: 1})
	loudest = word.Op("ReduceMax", []string{last}, graph.Attr{Name: "axes", Value: []int64{1, 2}}, graph.Attr{Name: "keepdims", Value: 0})
	score := word.Op("Sigmoid", []string{word.Op("Mul", []string{word.Op("Sub", []string{loudest, word.Float(500)}), word.Float(0.01)})})
	word.Node("Reshape", []string{score, word.Ints("", 1, 1)}, []string{"score"})
	word.Output("score", "", 1, 1)
	return write(filepath.Join(dir, "loud.onnx"), word)
}

func ones(n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = 1
	}
	return v
}

func write(path string, b *graph.Builder) error { return os.WriteFile(path, b.Encode(), 0o600) }
