package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"

	"github.com/carousel-ml/carousel/internal/bench"
	"github.com/carousel-ml/carousel/model/onnx/graph"
)

// ready is one call of a model that others have trained, on what a stream brings at a time.
const ready = "ready"

// readyModel is a file of the directory of models. The inputs are of a batch of 1.
type readyModel struct {
	name, file string
	inputs     []readyInput
}

type readyInput struct {
	Name  string `json:"name"`
	Dims  []int  `json:"dims"`
	Value int64  `json:"value"` // of an integer
	Whole bool   `json:"whole"` // an integer, not floats
	size  float64
}

// Silero's detector of speech hears 32 ms of 16 kHz after 4 ms of context. The three
// stages of openWakeWord hear 80 ms after 30 ms, see 76 frames of 32 bands, and look at
// 16 embeddings.
var readyModels = []readyModel{
	{"silero", "silero_vad.onnx", []readyInput{{Name: "input", Dims: []int{1, 576}, size: 1}, {Name: "state", Dims: []int{2, 1, 128}, size: 1}, {Name: "sr", Dims: []int{}, Value: 16000, Whole: true}}},
	{"oww-mel", "melspectrogram.onnx", []readyInput{{Name: "input", Dims: []int{1, 1760}, size: 1 << 14}}},
	{"oww-embed", "embedding_model.onnx", []readyInput{{Name: "input_1", Dims: []int{1, 76, 32, 1}, size: 3}}},
	{"oww-word", "alexa_v0.1.onnx", []readyInput{{Name: "onnx::Flatten_0", Dims: []int{1, 16, 96}, size: 20}}},
}

// readyProblem is the problem of a model in dir.
func readyProblem(dir string, m readyModel) (*problem, error) {
	file, err := filepath.Abs(filepath.Join(dir, m.file))
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(file); err != nil {
		return nil, fmt.Errorf("--models: %w", err)
	}
	return &problem{shape: bench.Shape{Name: m.name}, model: file, inputs: m.inputs}, nil
}

// floats returns the elements of input i, which are the same each time.
func (q *problem) floats(i int) []float32 {
	n := 1
	for _, d := range q.inputs[i].Dims {
		n *= d
	}
	v := make([]float32, n)
	for k := range v {
		v[k] = float32(q.inputs[i].size * math.Sin(0.1*float64(k)*(1+float64(k%7))))
	}
	return v
}

// writeInputs writes the floats of the inputs to files for the other processes.
func (q *problem) writeInputs(dir string) error {
	for i, in := range q.inputs {
		if in.Whole {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("in%d.f32", i)), rawFloats(q.floats(i)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// readyGraph is a ready model in this process.
type readyGraph struct {
	model *graph.Model
	in    map[string]graph.Value
}

func openReady(q *problem) (*readyGraph, error) {
	m, err := graph.Read(q.model)
	if err != nil {
		return nil, err
	}
	g := &readyGraph{model: m, in: map[string]graph.Value{}}
	for i, in := range q.inputs {
		v := graph.Value{Dims: in.Dims}
		if in.Whole {
			v.Ints = []int64{in.Value}
		} else {
			v.Data = q.floats(i)
		}
		g.in[in.Name] = v
	}
	return g, nil
}

// run makes a call and returns the first output.
func (g *readyGraph) run() ([]float32, error) {
	out, err := g.model.Run(g.in)
	if err != nil {
		return nil, err
	}
	return out[g.model.Outputs()[0].Name].Data, nil
}
