package onnx

import (
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

func checkFileError(t *testing.T, err error, want string) {
	t.Helper()
	var fe *model.FileError
	if !errors.As(err, &fe) || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want a *model.FileError with %q", err, want)
	}
}

func TestSaveOpen(t *testing.T) {
	c := Config{Cell: "gru", Input: 3, Hidden: 4, Layers: 2, Bidirectional: true, Vocabulary: 6, Output: 2, Pool: PoolFinal}
	s, slab := newStack(t, c)
	dir := t.TempDir()
	if err := s.Save(dir, slab); err != nil {
		t.Fatal(err)
	}
	again, weights, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := again.Config(); err != nil || d != c {
		t.Errorf("opened %+v, %v; saved %+v", d, err, c)
	}
	for i, p := range slab.Params {
		if q := weights.Params[i]; q.Name != p.Name || !slices.Equal(q.Read(), p.Read()) {
			t.Errorf("%s differs", p.Name)
		}
	}
}

// TestOpenRefused opens directories whose configuration claims what the weights do not hold.
func TestOpenRefused(t *testing.T) {
	sound := Config{Cell: "lstm", Input: 3, Hidden: 4, Layers: 1, Pool: PoolSteps}
	_, slab := newStack(t, sound)
	with := func(change func(c *Config)) Config {
		c := sound
		change(&c)
		return c
	}
	for want, c := range map[string]Config{
		"the configuration needs":   with(func(c *Config) { c.Hidden = 1 << 23 }),
		"layers 1073741824 must be": with(func(c *Config) { c.Layers = 1 << 30 }),
		"must be 1 to":              with(func(c *Config) { c.Hidden = -1 }),
		`cell "tree"`:               with(func(c *Config) { c.Cell = "tree" }),
		`pool "most"`:               with(func(c *Config) { c.Pool = "most" }),
		"vocabulary -1":             with(func(c *Config) { c.Vocabulary = -1 }),
	} {
		dir := t.TempDir()
		if err := model.Save(dir, Task, c, model.Weights(slab)); err != nil {
			t.Fatal(err)
		}
		_, _, err := Open(dir)
		checkFileError(t, err, want)
	}
	dir := t.TempDir()
	if err := model.Save(dir, "forecast", json.RawMessage("{}"), model.Weights(slab)); err != nil {
		t.Fatal(err)
	}
	_, _, err := Open(dir)
	checkFileError(t, err, `expected a stack of layers, got a model for task "forecast"`)
}

// TestExportRefused writes nothing where the file would not be the stack.
func TestExportRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.onnx")
	timeMajor := &Stack{RNN: nn.NewLSTM(2, 3, &nn.RNNOptions{TimeMajor: true})}
	tensor.Pack(tensor.CPU(), timeMajor, 1)
	own := &Stack{RNN: nn.NewCustom(sum{}, 2, 3, nil)}
	tensor.Pack(tensor.CPU(), own, 1)
	residual := &Stack{RNN: nn.NewLSTM(2, 3, &nn.RNNOptions{Layers: 2, Residual: true}), Pool: PoolFinal}
	tensor.Pack(tensor.CPU(), residual, 1)
	both, _ := newStack(t, Config{Cell: "lstm", Input: 2, Hidden: 3, Layers: 1, Bidirectional: true, Pool: PoolLast})
	spoilt, slab := newStack(t, Config{Cell: "lstm", Input: 2, Hidden: 3, Layers: 1})
	w := slab.Params[0].Read()
	w[0] = float32(math.Inf(1))
	slab.Params[0].Write(w)
	for want, c := range map[string]struct {
		s *Stack
		o *ExportOptions
	}{
		"computes something else":                    {timeMajor, nil},
		"is not supported with lengths":              {both, &ExportOptions{Lengths: true}},
		"a custom cell":                              {own, nil},
		"is not supported with residual connections": {residual, nil},
		"has no recurrent layers":                    {&Stack{}, nil},
		"not finite: rnn.weight_ih":                  {spoilt, nil},
	} {
		if _, err := Export(t.Context(), path, c.s, c.o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file was written: %v", err)
	}
}

// sum is the simplest cell of a user's own.
type sum struct{}

func (sum) Gates() int           { return 1 }
func (sum) States() int          { return 1 }
func (sum) Forward(r *cell.Row)  { copy(r.HNew, r.Gates) }
func (sum) Backward(r *cell.Row) { copy(r.Gates, r.DH); clear(r.DH) }
