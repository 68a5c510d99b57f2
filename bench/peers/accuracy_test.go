package main

import (
	"cmp"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/cpu"

	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/tensor"
)

// ownAccuracy is that of this project's outputs of q.
func ownAccuracy(t *testing.T, q *problem, p tensor.Precision) Accuracy {
	t.Helper()
	defer par.SetWorkers(0)
	c := newCarousel(2, p)
	if err := c.open(q, ""); err != nil {
		t.Fatal(err)
	}
	y, err := c.result(forward)
	if err != nil {
		t.Fatal(err)
	}
	return accuracy(q.shape.Name, c.name(), y, q.reference())
}

// In float32 the outputs are those of a plain LSTM in float64. In 8 bits a sum over 256 products is off by
// σ² = 256·(w²·Δx² + x²·Δw²)/12, where w = 1/28 is the RMS of weights up to 1/16, x that of the input, and Δ a
// greatest magnitude divided by 127. For the first layer's input, normal with rows up to 2.9, σ is 4.4e-3; for inputs that are outputs,
// of 0.2 and up to 0.6, 0.9e-3, and twice so with R. A sum's error reaches the output by a factor of about 1/4, through
// a gate of 1/2 and a candidate of like slope. So the first layer's outputs are off by 1.1e-3, which comes to 0.6 of it in a
// sum of the second; and the second's by √(1.25² + 0.64²)·1e-3/4 = 3.5e-4. The greatest of 10,240 is some five times that.
func TestAccuracy(t *testing.T) {
	q := newProblem(normal)
	if a := ownAccuracy(t, q, tensor.Float32); !(a.Max < 1e-6) {
		t.Errorf("float32: %+v", a)
	}
	if a := ownAccuracy(t, q, tensor.Int8); !(a.RMS > 1e-4 && a.RMS < 5e-4 && a.Max < 3e-3) {
		t.Errorf("8 bits: %+v", a)
	}
	rows := newProblem(small)
	if a := ownAccuracy(t, rows, tensor.Float32); !(a.Max < 1e-6) {
		t.Errorf("float32, of two rows: %+v", a)
	}
	if a := accuracy("s", "n", []float32{1, 2, 3, 5}, []float64{1, 2, 3, 3}); a != (Accuracy{"s", "n", 2, 1}) {
		t.Errorf("one of four off by 2: %+v", a)
	}
}

// Peers in 8 bits are further from float64. $CAROUSEL_PYTHON is an interpreter with torch, onnx and onnxruntime, and
// $CAROUSEL_ORT a directory with onnxruntime-node below node_modules; a peer that is not there is left out.
func TestAccuracyOfPeers(t *testing.T) {
	python := os.Getenv("CAROUSEL_PYTHON")
	if python == "" {
		t.Skip("CAROUSEL_PYTHON names no interpreter")
	}
	o := &options{threads: 2, precision: int8s, passes: list{forward}, node: "node", ort: os.Getenv("CAROUSEL_ORT"), python: list{python}}
	peers := startPeers(o, t.TempDir(), t.Logf)
	q, dir := newProblem(normal), t.TempDir()
	if err := q.write(dir); err != nil {
		t.Fatal(err)
	}
	saturates := cpu.X86.HasAVX2 && !cpu.X86.HasAVX512VNNI && !cpu.X86.HasAVXVNNI
	own, want := ownAccuracy(t, q, tensor.Int8), q.reference()
	t.Logf("%+v", own)
	for _, p := range peers {
		defer p.quit()
		if err := p.open(q, dir); err != nil {
			t.Fatal(err)
		}
		y, err := p.result(forward)
		if err != nil {
			t.Fatal(err)
		}
		a := accuracy(q.shape.Name, p.name(), y, want)
		t.Logf("%+v of %s", a, cmp.Or(p.uses(), "unknown kernels"))
		least := 1.0
		switch {
		case p.computes() != int8s:
			if !(a.Max < 1e-6) {
				t.Errorf("%s: %+v, so it is another network", p.name(), a)
			}
			continue
		case strings.HasSuffix(p.name(), int8s) && strings.HasPrefix(p.name(), "onnxruntime") && saturates:
			least = 3 // its sums of pairs in 16 bits are cut off
		case strings.HasPrefix(p.name(), "torch") && own.Max > a.Max:
			t.Errorf("the greatest error is %g, that of %s %g", own.Max, p.name(), a.Max)
		}
		if a.RMS < least*own.RMS {
			t.Errorf("the RMS of errors is %g, that of %s %g: want it %g times as much at least", own.RMS, p.name(), a.RMS, least)
		}
	}
}
