package keras

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// files are those that internal/golden/gen/keras_files.py writes.
var files = []string{"classifier.keras", "classifier.weights.h5", "cells.keras", "tagger.weights.h5", "float16.keras", "bfloat16.keras", "float64.keras"}

func expected(t testing.TB) *model.File {
	t.Helper()
	f, err := model.ReadTensors("testdata/expected.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func read(t testing.TB, file string, o *Options) (*Weights, *model.Network) {
	t.Helper()
	w, err := Read(filepath.Join("testdata", file), o)
	if err != nil {
		t.Fatal(err)
	}
	n, err := model.Build(tensor.CPU(), w.Arch, w.File)
	if err != nil {
		t.Fatal(err)
	}
	return w, n
}

// Every array is the one that h5py reads.
func TestArrays(t *testing.T) {
	want := expected(t)
	found := 0
	for _, file := range files {
		f, err := os.Open(filepath.Join("testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		info, _ := f.Stat()
		h := &hdf5{}
		if strings.HasSuffix(file, ".keras") {
			r, size, _, err := unpack(f, info.Size())
			if err != nil {
				t.Fatal(err)
			}
			h, err = openHDF5(r, size)
			if err != nil {
				t.Fatal(err)
			}
		} else if h, err = openHDF5(f, info.Size()); err != nil {
			t.Fatal(err)
		}
		for i := range h.list {
			d := &h.list[i]
			if d.float == nil {
				continue
			}
			x, err := h.read(d)
			if err != nil {
				t.Fatal(err)
			}
			w := want.Lookup(file + ":" + d.path)
			if w == nil || !slices.Equal(w.Dims, d.dims) || !slices.Equal(w.Data, x) {
				t.Errorf("%s: %s differs from what h5py reads", file, d.path)
			}
			found++
		}
	}
	for _, w := range want.Tensors {
		if strings.Contains(w.Name, "/") {
			found--
		}
	}
	if found != 0 {
		t.Errorf("%d arrays too many were read", found)
	}
}

// What layers there are, by names and settings.
func TestLayers(t *testing.T) {
	for file, want := range map[string]string{
		"classifier.keras": "words: embedding, 11 -> 4\nreader: LSTM, 4 -> 10, both directions\ngru: GRU, 10 -> 6\nnorm: layer norm, 6\n" +
			"simple_rnn: RNN (tanh), 6 -> 4\ndense: linear, 4 -> 3\nnote: layer dense: its activation, softmax, follows it and is not part of the weights\n",
		"classifier.weights.h5": "bidirectional: LSTM, 4 -> 10, both directions\ndense: linear, 4 -> 3\nembedding: embedding, 11 -> 4\ngru: GRU, 10 -> 6\n" +
			"layer_normalization: layer norm, 6\nsimple_rnn: RNN (tanh), 6 -> 4\nnote: the file does not record the activations and epsilons of its layers: Keras's defaults (tanh, sigmoid, 0.001) are assumed; a .keras file records them\n",
		"cells.keras": "before: GRU, 4 -> 3, reset before\nboth: GRU, 3 -> 6, both directions\nother_activations: LSTM, 6 -> 5, no bias, gates hard_tanh, softsign\n" +
			"relu: RNN (relu), 5 -> 4\nelu: RNN (tanh), 4 -> 4, no bias, elu\ncell: LSTM, 4 -> 3\ncells.0: GRU, 3 -> 3\ncells.1: GRU, 3 -> 2\n" +
			"inner.gru: GRU, 3 -> 4, no bias\ninner.dense: linear, 4 -> 2, no bias\nscaled: layer norm, 2\ncentred: layer norm, 2\neach: linear, 2 -> 3\n" +
			"other: layers.batch_normalization.vars.0\nother: layers.batch_normalization.vars.1\nother: layers.batch_normalization.vars.2\nother: layers.batch_normalization.vars.3\n" +
			"other: layers.lstm_1.cell.vars.0\nother: layers.lstm_1.cell.vars.1\nother: layers.lstm_1.cell.vars.2\n" +
			"note: layer unknown_gate: Keras's activation hard_sigmoid is not supported by this library's cells: its arrays are kept unchanged\n",
		"tagger.weights.h5": "around: GRU, 4 -> 6, both directions, reset before\nencoder: LSTM, 3 -> 4\nhead: linear, 6 -> 2\nother: a_table.vars.0\nother: gain.vars.0\nother: gain.vars.1\n" +
			"note: the file does not record the activations and epsilons of its layers: Keras's defaults (tanh, sigmoid, 0.001) are assumed; a .keras file records them\n",
	} {
		w, _ := read(t, file, nil)
		var b strings.Builder
		for i := range w.Arch.Layers {
			fmt.Fprintf(&b, "%s: %v\n", w.Arch.Layers[i].Name, &w.Arch.Layers[i])
		}
		for _, name := range w.Arch.Other {
			fmt.Fprintf(&b, "other: %s\n", name)
		}
		for _, note := range w.Notes {
			fmt.Fprintf(&b, "note: %s\n", note)
		}
		if b.String() != want {
			t.Errorf("%s:\n%s\nwant\n%s", file, b.String(), want)
		}
	}
}

// This library computes with the converted weights what Keras's equations say.
func TestParity(t *testing.T) {
	for _, file := range files {
		w, n := read(t, file, nil)
		p, err := n.Check(file, w.Reference(), 1)
		if err != nil {
			t.Fatal(err)
		}
		if !p.Ok() || p.Max > 5e-6 || len(p.Layers) != len(w.Arch.Layers) {
			t.Errorf("%s: %+v", file, p)
		}
	}
}

// forward runs a chain of modules as the model does.
func forward(t *testing.T, n *model.Network, x *tensor.Tensor, names ...string) *tensor.Tensor {
	t.Helper()
	for _, name := range names {
		switch m := n.Module(name).(type) {
		case *nn.RNN:
			x, _ = m.Forward(x, nil)
		case *nn.Linear:
			x = m.Forward(x)
		case *nn.LayerNorm:
			x = m.Forward(x)
		default:
			t.Fatalf("no layer %q", name)
		}
	}
	return x
}

func near(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	worst := 0.0
	for i := range got {
		worst = max(worst, math.Abs(float64(got[i]-want[i])))
	}
	if !(worst < 1e-5) { // Keras's own float32 arithmetic, whose layer norm cancels
		t.Errorf("%s: differs from Keras by %g", what, worst)
	}
}

// Whole models give Keras's outputs.
func TestModels(t *testing.T) {
	want := expected(t)
	ids := func(file string) *tensor.Ints {
		in := want.Lookup(file + ":in")
		small := make([]int32, len(in.Ints))
		for i, v := range in.Ints {
			small[i] = int32(v)
		}
		return tensor.NewTape(tensor.CPU(), tensor.Infer).IDs(small, nil, in.Dims...)
	}
	for file, names := range map[string][]string{
		"classifier.keras":      {"words", "reader", "gru", "norm", "simple_rnn", "dense"},
		"classifier.weights.h5": {"embedding", "bidirectional", "gru", "layer_normalization", "simple_rnn", "dense"},
	} {
		_, n := read(t, file, nil)
		y := forward(t, n, n.Module(names[0]).(*nn.Embedding).Forward(ids(file)), names[1:5]...)
		y = tensor.Softmax(forward(t, n, tensor.LastStep(y), names[5]), nil)
		near(t, file, y.Data(), want.Lookup(file+":out").Data)
	}
	const tagger = "tagger.weights.h5"
	_, n := read(t, tagger, &Options{Kinds: map[string]model.Kind{"a_table": model.Embedding, "gain": model.LayerNorm}})
	y := forward(t, n, n.Module("a_table").(*nn.Embedding).Forward(ids(tagger)), "encoder", "around", "gain", "head")
	near(t, tagger, y.Data(), want.Lookup(tagger+":out").Data)
}

// Each layer gives Keras's output on its own.
func TestEachLayer(t *testing.T) {
	want := expected(t)
	w, n := read(t, "cells.keras", nil)
	checked := 0
	for _, in := range want.Tensors {
		name, ok := strings.CutSuffix(in.Name, ":in")
		if !ok || strings.Contains(name, ".") || name == "unknown_gate" || name == "batch" {
			continue
		}
		parts := map[string][]string{"cells": {"cells.0", "cells.1"}, "inner": {"inner.gru", "inner.dense"}}[name]
		if parts == nil {
			parts = []string{name}
		}
		x := tensor.NewTape(tensor.CPU(), tensor.Infer).Input(in.Data, in.Dims...)
		near(t, name, forward(t, n, x, parts...).Data(), want.Lookup(name+":out").Data)
		checked += len(parts)
	}
	if checked != len(w.Arch.Layers) {
		t.Errorf("%d layers were compared, there are %d", checked, len(w.Arch.Layers))
	}
}

// A weight that is wrong anywhere shows.
func TestParityNotices(t *testing.T) {
	w, n := read(t, "classifier.keras", nil)
	for _, p := range n.Slab.Params {
		v := p.Read()
		i := len(v) / 3
		v[i] += 0.05
		p.Write(v)
		got, err := n.Check("x", w.Reference(), 2)
		if err != nil {
			t.Fatal(err)
		}
		if got.Ok() {
			t.Errorf("%s: a change at element %d was not noticed: %g", p.Name, i, got.Max)
		}
		v[i] -= 0.05
		p.Write(v)
	}
}

// python is an interpreter with Keras: $CAROUSEL_KERAS_PYTHON.
func python(t *testing.T) string {
	t.Helper()
	name := os.Getenv("CAROUSEL_KERAS_PYTHON")
	if name == "" || testing.Short() || exec.Command(name, "-c", "import keras").Run() != nil {
		t.Skip("CAROUSEL_KERAS_PYTHON names no interpreter with Keras")
	}
	return name
}

func TestKerasComputes(t *testing.T) {
	python := python(t)
	for _, file := range files[:4] {
		w, n := read(t, file, nil)
		p, err := n.Check(file, w.Reference(), 3)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.CheckKeras(context.Background(), p, python); err != nil {
			t.Fatal(err)
		}
		if p.MaxFramework == nil || !p.Ok() {
			t.Errorf("%s: %+v", file, p)
		}
		t.Logf("%s: %g to %s", file, *p.MaxFramework, p.Framework)
	}
	_, n := read(t, files[0], nil)
	w, _ := read(t, files[0], nil)
	p, err := n.Check("x", w.Reference(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.CheckKeras(context.Background(), p, filepath.Join(t.TempDir(), "python")); err == nil || strings.Contains(err.Error(), "\n") {
		t.Error(err)
	}
}

func TestHints(t *testing.T) {
	for _, c := range []struct {
		file, name string
		kind       model.Kind
		want       string
	}{
		{"tagger.weights.h5", "none", model.LSTM, `has no layer "none", for which the kind lstm`},
		{"classifier.keras", "gru", model.GRU, `layer "gru" is a GRU by the file's configuration, so --layer does not apply`},
		{"tagger.weights.h5", "encoder", model.GRU, `tensor encoder/cell/vars/1: layer "encoder" is a GRU: expected shape [4 12], got [4 16]`},
		{"tagger.weights.h5", "a_table", model.LayerNorm, `tensor a_table: layer "a_table" is a LayerNormalization: expected 2 arrays, got 1`},
	} {
		_, err := Read(filepath.Join("testdata", c.file), &Options{Kinds: map[string]model.Kind{c.name: c.kind}})
		var fe *model.FileError
		if !errors.As(err, &fe) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
	w, _ := read(t, "classifier.keras", &Options{Kinds: map[string]model.Kind{"gru": model.Other}})
	if len(w.Arch.Layers) != 5 || len(w.Arch.Other) != 3 {
		t.Errorf("%d layers, others %v", len(w.Arch.Layers), w.Arch.Other)
	}
}

// Layers that have the arrays of known ones and compute something else are kept,
// with a note that says why; nothing is guessed where there is a configuration.
func TestRefusedLayers(t *testing.T) {
	w, err := Read("testdata/refused.keras", nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(w.Arch.Layers) != 1 || w.Arch.Layers[0].Name != "known" {
		t.Errorf("layers %v, want the dense layer alone", w.Arch.Layers)
	}
	notes := strings.Join(w.Notes, "\n")
	for _, want := range []string{
		"layer unlike: its two directions are layers of different kinds or activations",
		"layer swapped: its first direction reads backwards",
	} {
		if !strings.Contains(notes, want) {
			t.Errorf("no note %q in %q", want, notes)
		}
	}
	if len(w.Arch.Other) != 6+6+2 {
		t.Errorf("%d arrays are kept, want 14: %v", len(w.Arch.Other), w.Arch.Other)
	}
}

// A normalisation over another dimension than the last is not a layer norm here.
func TestAxisOfLayerNorm(t *testing.T) {
	for axis, want := range map[string]bool{`-1`: true, `[-1]`: true, `[2]`: true, `2`: true, `1`: false, `[1]`: false, `[1,2]`: false, `null`: true} {
		o := &object{Class: "LayerNormalization", Config: []byte(`{"name":"n","axis":` + axis + `}`), Build: []byte(`{"input_shape":[null,4,3]}`)}
		s := planLayer(o, "", "", 0)
		if got := s[0].overLast(); got != want {
			t.Errorf("axis %s of three dimensions: %v, want %v", axis, got, want)
		}
	}
	o := &object{Class: "LayerNormalization", Config: []byte(`{"axis":[1]}`), Build: []byte(`{"input_shape":{"a":[1]}}`)}
	if planLayer(o, "", "", 0)[0].overLast() {
		t.Error("axis 1 of a layer of unknown input is taken for the last")
	}
}
