package torch

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/model/modeltest"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// everything is a state_dict with layers of all kinds and random weights, and
// the hints it needs.
func everything(t *testing.T) (*model.File, map[string]model.Kind) {
	t.Helper()
	r := rand.New(rand.NewPCG(5, 6))
	layers := []model.Layer{
		{Name: "embed", Kind: model.Embedding, Input: 9, Output: 4},
		{Name: "norm", Kind: model.LayerNorm, Input: 6, Output: 6, Bias: true},
		{Name: "head", Kind: model.Linear, Input: 6, Output: 2, Bias: true},
		{Name: "plain", Kind: model.Linear, Input: 6, Output: 3},
	}
	for _, kind := range []model.Kind{model.LSTM, model.GRU, model.RNNTanh, model.RNNReLU} {
		for _, l := range []model.Layer{{Layers: 1, Bias: true}, {Layers: 2, Bidirectional: true, Bias: true}, {Layers: 3}, {Layers: 1, Bias: true, Cell: true}} {
			l.Name = fmt.Sprintf("%s%d%v", kind, l.Layers, l.Cell)
			l.Kind, l.Input, l.Hidden = kind, 4, 5
			layers = append(layers, l)
		}
	}
	layers = append(layers, model.Layer{Name: "proj", Kind: model.LSTM, Input: 4, Hidden: 5, Proj: 3, Layers: 2, Bidirectional: true, Bias: true})
	hints := map[string]model.Kind{}
	var ts []model.Tensor
	for _, l := range layers {
		hints[l.Name] = l.Kind
		if l.Kind.Recurrent() {
			l.Output = l.Directions() * l.State()
		}
		for _, s := range l.Tensors() {
			n := 1
			for _, d := range s.Dims {
				n *= d
			}
			w := model.Tensor{Name: s.Name, Dims: s.Dims, Data: make([]float32, n)}
			for i := range w.Data {
				w.Data[i] = float32(r.NormFloat64() / 2)
			}
			ts = append(ts, w)
		}
	}
	ts = append(ts, model.Tensor{Name: "bn.num_batches_tracked", Ints: []int64{41}}, model.Tensor{Name: "scale", Dims: []int{}, Data: []float32{2}})
	f, err := model.NewFile("weights.pt", ts, nil)
	if err != nil {
		t.Fatal(err)
	}
	return f, hints
}

func build(t *testing.T, f *model.File, hints map[string]model.Kind) *model.Network {
	t.Helper()
	arch, err := Describe(f, hints)
	if err != nil {
		t.Fatal(err)
	}
	n, err := model.Build(tensor.CPU(), arch, f)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestCheck(t *testing.T) {
	f, hints := everything(t)
	n := build(t, f, hints)
	p, err := n.Check(f.Path, Reference(f), 1)
	if err != nil {
		t.Fatal(err)
	}
	if !p.Ok() || p.Max > 1e-5 || len(p.Layers) != 21 {
		t.Errorf("%+v", p)
	}
	for i, l := range p.Layers {
		want := samples * n.Arch.Layers[i].Output
		if l.Kind.Recurrent() {
			a := &n.Arch.Layers[i]
			states := a.Layers * a.Directions() * batch
			if want += states * a.State(); l.Kind == model.LSTM {
				want += states * a.Hidden
			}
		}
		if l.Values != want {
			t.Errorf("%s: %d values were compared, want %d", l.Name, l.Values, want)
		}
	}
	if m, ok := n.Module("head").(*nn.Linear); !ok || m.Weight.Name != "head.weight" || n.Module("none") != nil {
		t.Errorf("module head is %v", n.Module("head"))
	}
}

// TestCheckNotices: one weight that differs a little, in any tensor, is seen.
func TestCheckNotices(t *testing.T) {
	f, hints := everything(t)
	n := build(t, f, hints)
	for _, p := range n.Slab.Params {
		w := p.Read()
		i := len(w) / 3
		old := w[i]
		change := float32(0.05)
		if strings.HasPrefix(p.Name, string(model.RNNReLU)) {
			change = 5 // wakes a unit that is zero on all of the input
		}
		w[i] += change
		p.Write(w)
		got, err := n.Check(f.Path, Reference(f), 2)
		if err != nil {
			t.Fatal(err)
		}
		if got.Ok() {
			t.Errorf("%s: a change of %g at element %d was not noticed: %g", p.Name, change, i, got.Max)
		}
		w[i] = old
		p.Write(w)
	}
	w := n.Slab.Params[3].Read()
	w[1] = float32(math.NaN())
	n.Slab.Params[3].Write(w)
	if _, err := n.Check(f.Path, Reference(f), 3); err == nil || !strings.Contains(err.Error(), "element 1 is NaN") {
		t.Error(err)
	}
}

// TestWrongWeights: what does not fit the architecture is named.
func TestWrongWeights(t *testing.T) {
	f, hints := everything(t)
	arch, err := Describe(f, hints)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		change func(ts []model.Tensor) []model.Tensor
		want   string
	}{
		{func(ts []model.Tensor) []model.Tensor { return ts[1:] }, "tensor embed.weight: missing: the model needs it with shape [9 4]"},
		{func(ts []model.Tensor) []model.Tensor { ts[0].Dims = []int{4, 9}; return ts }, "tensor embed.weight: expected shape [9 4], got [4 9]"},
		{func(ts []model.Tensor) []model.Tensor {
			return append(ts, model.Tensor{Name: "more", Dims: []int{1}, Data: []float32{1}})
		}, "tensor more: the model has no parameter of that name"},
	} {
		other, err := model.NewFile("x.pt", c.change(slices.Clone(f.Tensors)), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = model.Build(tensor.CPU(), arch, other)
		var fe *model.FileError
		if !errors.As(err, &fe) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

// TestReferenceProjection holds the reference's projection against a step written out for one unit.
func TestReferenceProjection(t *testing.T) {
	f, err := model.NewFile("x", []model.Tensor{
		{Name: "weight_ih_l0", Dims: []int{4, 1}, Data: []float32{1, 2, 3, 4}},
		{Name: "weight_hh_l0", Dims: []int{4, 1}, Data: []float32{.5, .5, .5, .5}},
		{Name: "weight_hr_l0", Dims: []int{1, 1}, Data: []float32{-2}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := &reference{f, &model.Layer{Kind: model.LSTM, Input: 1, Hidden: 1, Proj: 1, Layers: 1}}
	h, c := r.step("_l0", []float64{.1}, []float64{.2}, []float64{.3})
	s := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
	wantC := s(.3)*.3 + s(.2)*math.Tanh(.4)
	wantH := -2 * s(.5) * math.Tanh(wantC)
	if math.Abs(c[0]-wantC) > 1e-12 || math.Abs(h[0]-wantH) > 1e-12 {
		t.Errorf("h %v c %v, want %v %v", h, c, wantH, wantC)
	}
}

// TestWriteRead: what Write writes, Read reads, byte for byte the same each time.
func TestWriteRead(t *testing.T) {
	f, _ := everything(t)
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a.pt"), filepath.Join(dir, "b.pt")
	for _, path := range []string{a, b} {
		if err := Write(path, f.Tensors); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Read(a, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range differences(got, f.Tensors) {
		t.Error(problem)
	}
	x, _ := os.ReadFile(a)
	y, _ := os.ReadFile(b)
	if !slices.Equal(x, y) {
		t.Error("two files of the same tensors differ")
	}
	for _, bad := range [][]model.Tensor{
		{{Name: "a", Dims: []int{2}, Data: []float32{1}}},
		{{Name: "a", Data: []float32{1}}, {Name: "a", Data: []float32{1}}},
		{{Name: "", Data: []float32{1}}},
		{{Name: "\xff", Data: []float32{1}}},
	} {
		if err := Write(a, bad); err == nil {
			t.Errorf("%v was written", bad)
		}
	}
}

// TestSlab carries a custom model to a .pt file and back, under other names.
func TestSlab(t *testing.T) {
	type net struct {
		RNN  *nn.RNN
		Head *nn.Linear
	}
	make := func(seed uint64) *tensor.Slab {
		return tensor.Pack(tensor.CPU(), &net{nn.NewLSTM(3, 4, nil), nn.NewLinear(4, 1, nil)}, seed)
	}
	a, b := make(1), make(2)
	path := filepath.Join(t.TempDir(), "w.pt")
	if err := Save(path, a); err != nil {
		t.Fatal(err)
	}
	if err := Load(path, b, nil); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(model.SlabTensors(a), model.SlabTensors(b)) {
		t.Error("the weights came back otherwise")
	}
	err := Load(path, b, &Options{Rename: map[string]string{"rnn": "lstm"}})
	if err == nil || !strings.Contains(err.Error(), "rnn.weight_ih_l0: missing: the model needs it with shape [16 3]") {
		t.Error(err)
	}
}

func TestDir(t *testing.T) {
	f, hints := everything(t)
	arch, err := Describe(f, hints)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "m")
	if err := model.SaveLayers(dir, arch, f); err != nil {
		t.Fatal(err)
	}
	d, err := model.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := d.Weights
	again, err := model.OpenLayers(d)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(arch, again) {
		t.Errorf("%+v came back as %+v", arch, again)
	}
	for _, problem := range differences(got, f.Tensors) {
		t.Error(problem)
	}
	modeltest.Edit(t, dir, model.ConfigFile, modeltest.Replace(`"layers": 3`, `"layers": 1000000000`))
	if d, err = model.Open(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := model.OpenLayers(d); err == nil || !strings.Contains(err.Error(), "does not match the weights") {
		t.Error(err)
	}
}

// python is an interpreter with PyTorch: $CAROUSEL_PYTHON or python3.
func python(t *testing.T) string {
	t.Helper()
	name := os.Getenv("CAROUSEL_PYTHON")
	if name == "" {
		name = "python3"
	}
	if testing.Short() {
		t.Skip("PyTorch takes seconds to start")
	}
	if !hasTorch(name) {
		t.Skipf("%s has no PyTorch", name)
	}
	return name
}

var (
	torchOnce sync.Once
	torchErr  error
)

// hasTorch asks once, as starting PyTorch takes seconds.
func hasTorch(python string) bool {
	torchOnce.Do(func() { torchErr = exec.Command(python, "-c", "import torch").Run() })
	return torchErr == nil
}

// TestPyTorchReads: torch.load, with and without weights_only, and mapped into
// memory where it can, finds exactly what Write wrote.
func TestPyTorchReads(t *testing.T) {
	python := python(t)
	f, _ := everything(t)
	dir := t.TempDir()
	path, back := filepath.Join(dir, "a.pt"), filepath.Join(dir, "back.pt")
	if err := Write(path, f.Tensors); err != nil {
		t.Fatal(err)
	}
	const script = `
import inspect, sys, torch
a = torch.load(sys.argv[1], weights_only=True)
more = [torch.load(sys.argv[1], weights_only=False)]
if "mmap" in inspect.signature(torch.load).parameters:
    more.append(torch.load(sys.argv[1], mmap=True, weights_only=True))
for b in more:
    assert list(a) == list(b) and all(torch.equal(a[k], b[k]) for k in a)
torch.save(a, sys.argv[2])
`
	if out, err := exec.Command(python, "-c", script, path, back).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	got, err := Read(back, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range differences(got, f.Tensors) {
		t.Error(problem)
	}
}

// TestPyTorchComputes: PyTorch's own layers agree with this library's and with
// the reference, on a file of either format.
func TestPyTorchComputes(t *testing.T) {
	python := python(t)
	f, hints := everything(t)
	n := build(t, f, hints)
	for _, name := range []string{"w.pt", "w.safetensors"} {
		path := filepath.Join(t.TempDir(), name)
		write := func() error { return Write(path, f.Tensors) }
		if name == "w.safetensors" {
			write = func() error { return model.WriteTensors(path, f.Tensors, nil) }
		}
		if err := write(); err != nil {
			t.Fatal(err)
		}
		p, err := n.Check(f.Path, Reference(f), 4)
		if err != nil {
			t.Fatal(err)
		}
		file := *f
		file.Path = path
		if err := CheckPyTorch(context.Background(), p, python, &file, n.Arch); err != nil {
			t.Fatal(err)
		}
		if !p.Ok() || p.MaxFramework == nil || *p.MaxFramework > 1e-5 {
			t.Errorf("%s: %+v", name, p)
		}
		t.Logf("%s: %g to the reference, %g to PyTorch %s", name, p.Max, *p.MaxFramework, p.Framework)
	}
}

func TestNoPyTorch(t *testing.T) {
	f, hints := everything(t)
	n := build(t, f, hints)
	p, err := n.Check(f.Path, Reference(f), 1)
	if err != nil {
		t.Fatal(err)
	}
	err = CheckPyTorch(context.Background(), p, filepath.Join(t.TempDir(), "python"), f, n.Arch)
	if err == nil || strings.Contains(err.Error(), "\n") {
		t.Error(err)
	}
}
