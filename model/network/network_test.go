package network_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/internal/golden"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/model/network"
	"github.com/carousel-ml/carousel/model/onnx/graph"
	"github.com/carousel-ml/carousel/model/torch"
)

// described are networks that PyTorch 2.15 computed, by the file that has their weights
// and PyTorch's inputs (in.NAME) and outputs (out.NAME).
var described = map[string]string{
	"tagger.safetensors": `
inputs:
  ids: [batch, time]
layers:
  - {name: emb, kind: embedding}
  - {name: lstm, kind: lstm}
  - {name: norm, kind: layer_norm}
  - {name: head, kind: linear}
  - {name: tags, kind: log_softmax}
  - {name: final, kind: pool_time, over: final, from: lstm}
  - {name: largest, kind: pool_time, over: max, from: norm}
  - {name: average, kind: pool_time, over: mean, from: norm}
  - {name: last, kind: pool_time, over: last, from: norm}
outputs: [tags, final, largest, average, last]
`,
	"conv.safetensors": `
inputs: {x: [batch, 4, time]}
layers:
  - {name: conv, kind: conv1d, stride: 2, padding: 2, groups: 2}
  - {name: bn, kind: batch_norm}
  - {name: leaky, kind: leaky_relu, slope: 0.2}
  - {name: pooled, kind: max_pool, size: 2, stride: 1}
  - {name: turned, kind: transpose, order: [0, 2, 1]}
  - {name: gru, kind: gru, state: true}
  - {name: off, kind: dropout}
  - {name: end, kind: select, axis: 1, index: -1}
  - name: scores
    kind: linear
    weights: {weight: fc.weight}
  - {name: unit, kind: l2_norm}
  - {name: first, kind: slice, from: scores, end: 1}
  - {name: hard, kind: hard_sigmoid}
outputs: [unit, hard]
`,
	"picture.safetensors": `
inputs: {x: [batch, 1, 6, 8]}
layers:
  - {name: conv, kind: conv2d, padding: 1}
  - {name: tanh, kind: tanh}
  - {name: pooled, kind: average_pool, size: 2}
  - {name: columns, kind: transpose, order: [0, 3, 1, 2]}
  - {name: steps, kind: reshape, shape: [0, 0, -1]}
  - {name: major, kind: transpose, order: [1, 0, 2]}
  - {name: rnn, kind: rnn_relu, batch_first: false}
  - {name: twice, kind: reverse, axis: 0}
  - {name: back, kind: reverse, axis: 0}
  - {name: top, kind: select, axis: 0, index: -1}
  - {name: start, kind: select, axis: 1, index: 0, from: steps}
  - {name: cell, kind: gru}
  - {name: both, kind: concat, from: [cell, top]}
  - {name: fc, kind: linear}
  - {name: probability, kind: softmax}
  - {name: product, kind: multiply, from: [cell, top]}
  - {name: sum, kind: add, from: [cell, top]}
outputs: [probability, product, sum]
`,
}

// load reads a file of weights with inputs and outputs.
func load(t *testing.T, name string) (weights *model.File, in map[string]graph.Value, want map[string][]float32) {
	t.Helper()
	f, err := model.ReadTensors(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	in, want = map[string]graph.Value{}, map[string][]float32{}
	var kept []model.Tensor
	for _, tensor := range f.Tensors {
		if name, ok := strings.CutPrefix(tensor.Name, "in."); ok {
			in[name] = graph.Value{Dims: tensor.Dims, Data: tensor.Data, Ints: tensor.Ints}
		} else if name, ok := strings.CutPrefix(tensor.Name, "out."); ok {
			want[name] = tensor.Data
		} else {
			kept = append(kept, tensor)
		}
	}
	weights, err = model.NewFile(name, kept, nil)
	if err != nil {
		t.Fatal(err)
	}
	return weights, in, want
}

// compare runs a network and compares each of its outputs with PyTorch's.
func compare(t *testing.T, n *network.Network, in map[string]graph.Value, want map[string][]float32, tolerance float64) {
	t.Helper()
	m, err := n.Model()
	if err != nil {
		t.Fatal(err)
	}
	out, err := m.Run(in)
	if err != nil {
		t.Fatal(err)
	}
	if len(out) != len(want) || len(want) == 0 {
		t.Errorf("%d outputs, want %d", len(out), len(want))
	}
	for name, w := range want {
		if diff, _ := graph.MaxDifference(out[name].Data, w); diff > tolerance {
			t.Errorf("%s: differs from PyTorch by %g", name, diff)
		}
	}
}

func TestNetworksOfPyTorch(t *testing.T) {
	for name, text := range described {
		t.Run(name, func(t *testing.T) {
			weights, in, want := load(t, name)
			n, err := network.Parse("n.yaml", text, weights)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, n, in, want, 2e-6)
			path := filepath.Join(t.TempDir(), "n.onnx")
			if _, err := n.Export(context.Background(), path); err != nil {
				t.Fatal(err)
			}
			m, err := graph.Read(path)
			if err != nil {
				t.Fatal(err)
			}
			out, err := m.Run(in)
			if err != nil {
				t.Fatal(err)
			}
			for name, w := range want {
				if diff, _ := graph.MaxDifference(out[name].Data, w); diff > 2e-6 {
					t.Errorf("%s of the written file: differs from PyTorch by %g", name, diff)
				}
			}
		})
	}
}

// The draft of a published network is right but for the softmax, which has no weights.
func TestDraftOfMedaka(t *testing.T) {
	f, err := torch.Read(golden.Shared(t, "models/medaka_sup_v5.2.0_weights.pt"), nil)
	if err != nil {
		t.Fatal(err)
	}
	arch, err := torch.Describe(f, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, problems := network.Draft("medaka.pt", arch, f, nil)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	n, err := network.Parse("n.yaml", text+"  - name: softmax\n    kind: softmax\n", f)
	if err != nil {
		t.Fatal(err)
	}
	_, in, want := load(t, "medaka.safetensors")
	compare(t, n, in, want, 1e-4)
}

// What weights do not say is said in the draft, and what does not fit as well.
func TestDraft(t *testing.T) {
	weights, _, _ := load(t, "conv.safetensors")
	arch, err := torch.Describe(weights, map[string]model.Kind{"*": model.Linear})
	if err != nil {
		t.Fatal(err)
	}
	text, problems := network.Draft("conv.pt", arch, weights, map[string]model.After{"gru": {LastStep: true}, "fc": {Activation: "softmax"}})
	for _, want := range []string{
		"inputs:\n  x: [batch, 2, time]\n", "  - name: conv # conv1d, 2 -> 8, size 5\n", "  # assumed: features and steps change places\n",
		"kind: batch_norm", "over: final", "  - name: fc.softmax\n    kind: softmax\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if len(problems) > 0 {
		t.Errorf("problems: %q", problems)
	}
	if _, err := network.Parse("n.yaml", text, weights); err != nil {
		t.Error(err)
	}
	picture, _, _ := load(t, "picture.safetensors")
	if arch, err = torch.Describe(picture, map[string]model.Kind{"*": model.RNNReLU}); err != nil {
		t.Fatal(err)
	}
	text, problems = network.Draft("picture.pt", arch, picture, nil)
	if len(problems) == 0 || !strings.Contains(text, "# does not fit: layer cell: ") {
		t.Errorf("problems %q in\n%s", problems, text)
	}
	_, err = network.Parse("n.yaml", text, picture)
	if err == nil || !strings.Contains(err.Error(), strings.TrimPrefix(problems[0], "layer ")) {
		t.Errorf("got %v, want the problem %s", err, problems[0])
	}
}

// Errors name the line and say what is expected.
func TestWrongDescriptions(t *testing.T) {
	weights, _, _ := load(t, "tagger.safetensors")
	const head = "inputs:\n  ids: [batch, time]\nlayers:\n  - name: emb\n    kind: embedding\n"
	for _, test := range []struct{ text, want string }{
		{"", "n.yaml: expected the keys inputs and layers, got no inputs"},
		{"inputs:\n  x: [a, 2]\n", "n.yaml: expected the keys inputs and layers, got no layers"},
		{"- a\n", `n.yaml:1: want lines of the form "name: value"`},
		{"layer: 1\n", `n.yaml:1: there is no key "layer"; did you mean layers?`},
		{"inputs: 3\n", "n.yaml:1: inputs: expected lines of the form"},
		{"inputs:\n  x: [0, 2]\n", `n.yaml:2: input x: a dimension is a size of 1 to 16777216 or a name, got "0"`},
		{"inputs:\n  x: 3\n", "n.yaml:2: input x: expected a list of 1 to 8 dimensions"},
		{"inputs:\n  x: [[1]]\n", "n.yaml:2: x: expected a value or a list of values"},
		{"inputs:\n  ids: [batch]\nlayers: []\n", "n.yaml:3: layers: expected a list"},
		{"inputs:\n  ids: [batch]\nlayers:\n  - 3\n", "n.yaml:4: expected a layer"},
		{"inputs:\n  ids: [batch]\nlayers:\n  - kind: embedding\n", "n.yaml:4: a layer needs one name"},
		{"inputs:\n  ids: [batch]\nlayers:\n  - name: a\n    kind: lsmt\n", `n.yaml:5: layer a: there is no kind "lsmt"; did you mean lstm?`},
		{head + "    hidden: 3\n", `n.yaml:6: layer emb: a layer of kind embedding has no key "hidden"; its keys are name, kind, from, weights`},
		{head + "    from: idz\n", `n.yaml:6: layer emb: there is no layer or input "idz" above it; did you mean ids?`},
		{head + "    from: [ids, ids]\n", "n.yaml:6: layer emb: a layer of kind embedding reads one value, got 2"},
		{head + "    weights: embed\n", "n.yaml:6: layer emb: there are no tensors embed.*; did you mean emb?"},
		{head + "    weights: {weight: em.weight}\n", `n.yaml:6: layer emb: there is no tensor "em.weight"; did you mean emb.weight?`},
		{head + "    weights: lstm\n", "n.yaml:6: tensor lstm.weight_hh_l0: a layer of kind embedding has 0 rows"},
		{head + "  - name: head\n    kind: linear\n", "n.yaml:6: layer head: takes 10 features, got 4 of emb [batch, time, 4]"},
		{head + "  - name: emb\n    kind: relu\n", "n.yaml:6: the name emb is there twice"},
		{head + "  - name: a b\n    kind: relu\n", `n.yaml:6: "a b": a name has letters, digits, _, - and dots`},
		{head + "  - name: lstm\n    kind: gru\n", "n.yaml:6: tensor lstm.weight_hh_l0: a layer of kind gru has 3 rows for each of 5 units, got 20 rows"},
		{head + "  - name: lstm\n    kind: lstm\n    state: maybe\n", `n.yaml:8: layer lstm: state: expected one of true, false, got "maybe"`},
		{head + "  - name: lstm\n    kind: lstm\n    activation: tahn\n", `n.yaml:8: layer lstm: activation: there is no activation "tahn"`},
		{head + "  - name: lstm\n    kind: lstm\n    reset_before: true\n", "n.yaml:8: layer lstm: reset_before is of a gru"},
		{head + "  - name: p\n    kind: pool_time\n", "n.yaml:6: layer p: over is needed: one of last, final, max, mean"},
		{head + "  - name: p\n    kind: pool_time\n    over: final\n", "n.yaml:8: layer p: over: final is the last state of a recurrent layer"},
		{head + "  - name: p\n    kind: max_pool\n    size: -1\n", `n.yaml:8: layer p: size: expected whole numbers of 1 to 65536, got "-1"`},
		{head + "  - name: p\n    kind: max_pool\n    size: [2, 3, 4]\n", "n.yaml:8: layer p: size: expected 1 or 1 numbers, got 3"},
		{head + "  - name: p\n    kind: transpose\n    order: [0, 0, 1]\n", "n.yaml:8: layer p: order: expected the dimensions 0 to 2 in their new order, got [0 0 1]"},
		{head + "  - name: p\n    kind: reshape\n    shape: [0, 0, 5]\n", "n.yaml:8: layer p: shape: [0 0 5] does not hold the elements of emb [batch, time, 4]"},
		{head + "  - name: p\n    kind: select\n    axis: 2\n    index: 4\n", "n.yaml:9: layer p: index: dimension 2 of emb [batch, time, 4] has 4 elements, got 4"},
		{head + "  - name: p\n    kind: add\n    from: emb\n", "n.yaml:8: layer p: a layer of kind add reads several values"},
		{head + "  - name: p\n    kind: add\n    from: [emb, ids]\n", "n.yaml:8: layer p: reads numbers, and another layer reads ids of the same input"},
		{head + "  - name: p\n    kind: conv1d\n    weights: lstm\n", "n.yaml:8: layer p: a layer of kind conv1d has no tensor lstm.weight_ih_l0"},
		{head + "outputs: [tags]\n", `n.yaml:6: outputs: there is no layer "tags"; there are ids, emb`},
		{head + "outputs: ids\n", "n.yaml:6: outputs: ids is an input"},
		{"inputs:\n  x: [a]\n  ids: [batch, time]\nlayers:\n  - name: emb\n    kind: embedding\n", "n.yaml:2: no layer reads the input x"},
	} {
		_, err := network.Parse("n.yaml", test.text, weights)
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: got %v, want %s", test.text, err, test.want)
		}
	}
}
