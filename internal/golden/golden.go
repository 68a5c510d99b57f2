// Package golden compares this library with PyTorch. The files in testdata hold
// inputs, weights, results and gradients that the scripts in gen compute with
// PyTorch in float64; the tests here run the same through every kernel set.
//
// The scripts need Python 3 and PyTorch 1.13 or later, and write all files anew:
//
//	python3 internal/golden/gen/all.py
package golden

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/model"
)

// The tolerances, all of them. The references carry no float32 rounding but
// their last, so these bound this library's own error.
const (
	Forward  = 1e-5 // values: of 1 or of the element, whichever is larger
	Gradient = 1e-4 // gradients: of the largest magnitude in the tensor
	Rate     = 1e-6 // learning rates: of the element
)

// Case is one configuration with its tensors.
type Case struct {
	Name     string
	settings string
	tensors  map[string]*model.Tensor
	names    []string // in the order of the file
}

// Load reads the cases of testdata/name.safetensors, in the order of their names.
func Load(name string) ([]*Case, error) { return LoadFrom("testdata", name) }

// LoadFrom is Load for the tests of another package: dir leads from there to testdata.
func LoadFrom(dir, name string) ([]*Case, error) {
	f, err := model.ReadTensors(filepath.Join(dir, name+".safetensors"))
	if err != nil {
		return nil, err
	}
	byName := map[string]*Case{}
	var cases []*Case
	for name, settings := range f.Meta {
		c := &Case{Name: name, settings: settings, tensors: map[string]*model.Tensor{}}
		byName[name] = c
		cases = append(cases, c)
	}
	sort.Slice(cases, func(i, j int) bool { return cases[i].Name < cases[j].Name })
	for i := range f.Tensors {
		t := &f.Tensors[i]
		at := strings.LastIndexByte(t.Name, '/')
		if at < 0 || byName[t.Name[:at]] == nil {
			return nil, fmt.Errorf("%s: tensor %s belongs to no case", f.Path, t.Name)
		}
		c := byName[t.Name[:at]]
		c.tensors[t.Name[at+1:]] = t
		c.names = append(c.names, t.Name[at+1:])
	}
	return cases, nil
}

// Settings parses the case's settings into v; one that v does not know is an error.
func (c *Case) Settings(v any) error {
	d := json.NewDecoder(bytes.NewReader([]byte(c.settings)))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("case %s: %w", c.Name, err)
	}
	return nil
}

// Has reports whether the case has a tensor of that name.
func (c *Case) Has(name string) bool { return c.tensors[name] != nil }

// Tensor is the tensor of that name; a missing one panics.
func (c *Case) Tensor(name string) *model.Tensor {
	t := c.tensors[name]
	if t == nil {
		panic(fmt.Sprintf("golden: case %s has no tensor %s", c.Name, name))
	}
	return t
}

// Names lists, in order and without the prefix, the tensors whose names begin with it.
func (c *Case) Names(prefix string) []string {
	var names []string
	for _, n := range c.names {
		if rest, ok := strings.CutPrefix(n, prefix); ok {
			names = append(names, rest)
		}
	}
	return names
}

// CheckValues compares results: each within Forward of 1 or of itself.
func CheckValues(got, want []float32) error {
	return check(got, want, func(w float64) float64 { return Forward * math.Max(1, math.Abs(w)) })
}

// CheckGradient compares a gradient: each element within Gradient of the
// largest of want. Where want is all zeros, so must got be.
func CheckGradient(got, want []float32) error {
	top := 0.0
	for _, w := range want {
		top = math.Max(top, math.Abs(float64(w)))
	}
	return check(got, want, func(float64) float64 { return Gradient * top })
}

// CheckRates compares learning rates: each within Rate of itself.
func CheckRates(got, want []float32) error {
	return check(got, want, func(w float64) float64 { return Rate * math.Abs(w) })
}

// check reports the element furthest outside its tolerance; NaN is outside any.
func check(got, want []float32, tolerance func(want float64) float64) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d elements, want %d", len(got), len(want))
	}
	worst, at := 1.0, -1
	for i := range want {
		g, w := float64(got[i]), float64(want[i])
		tol := tolerance(w)
		ratio := math.Abs(g-w) / tol
		switch {
		case g == w:
		case math.IsNaN(g) || math.IsNaN(w) || math.IsNaN(ratio):
			return fmt.Errorf("element %d is %v, want %v", i, g, w)
		case ratio > worst:
			worst, at = ratio, i
		}
	}
	if at >= 0 {
		return fmt.Errorf("element %d is %v, want %v: %.3g times the tolerance", at, got[at], want[at], worst)
	}
	return nil
}

// Gzip returns the content of a compressed file.
func Gzip(t testing.TB, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// Shared returns the path of a file of data that the repository does not carry, in
// CAROUSEL_DATA or a folder shared/data beside the repository, and skips the test where
// there is none.
func Shared(t testing.TB, name string) string {
	t.Helper()
	var tried []string
	if dir := os.Getenv("CAROUSEL_DATA"); dir != "" {
		tried = append(tried, dir)
	}
	for dir, i := "..", 0; i < 4; dir, i = filepath.Join("..", dir), i+1 {
		tried = append(tried, filepath.Join(dir, "shared", "data"))
	}
	for _, dir := range tried {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Skipf("%s is not here", name)
	return ""
}
