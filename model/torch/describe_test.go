package torch

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/model"
)

// file makes a file of zeros: "name 3 4" is a tensor [3,4], "#name 3" of integers.
func file(t *testing.T, specs ...string) *model.File {
	t.Helper()
	var ts []model.Tensor
	for _, s := range specs {
		fields := strings.Fields(s)
		w := model.Tensor{Name: strings.TrimPrefix(fields[0], "#")}
		n := 1
		for _, d := range fields[1:] {
			dim := 0
			for _, c := range d {
				dim = 10*dim + int(c-'0')
			}
			w.Dims, n = append(w.Dims, dim), n*dim
		}
		if fields[0][0] == '#' {
			w.Ints = make([]int64, n)
		} else {
			w.Data = make([]float32, n)
		}
		ts = append(ts, w)
	}
	f, err := model.NewFile("x.pt", ts, nil)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// stack lists the tensors of a bare recurrent module.
func stack(l model.Layer) []string {
	var specs []string
	for _, s := range l.Tensors() {
		spec := s.Name
		for _, d := range s.Dims {
			spec += fmt.Sprintf(" %d", d)
		}
		specs = append(specs, spec)
	}
	return specs
}

// TestDescribeRecurrent infers every combination from its own tensors.
func TestDescribeRecurrent(t *testing.T) {
	for _, kind := range []model.Kind{model.LSTM, model.GRU, model.RNNTanh, model.RNNReLU} {
		for _, name := range []string{"", "rnn", "encoder.rnn"} {
			for _, layers := range []int{1, 2, 3} {
				for bits := range 8 {
					l := model.Layer{Name: name, Kind: kind, Input: 5, Hidden: 4, Layers: layers, Bidirectional: bits&1 > 0, Bias: bits&2 > 0}
					if bits&4 > 0 {
						if kind != model.LSTM {
							continue
						}
						l.Proj = 3
					}
					l.Output = l.Directions() * l.State()
					got, err := Describe(file(t, stack(l)...), map[string]model.Kind{"*": kind})
					if err != nil {
						t.Errorf("%+v: %v", l, err)
					} else if len(got.Layers) != 1 || got.Layers[0] != l || got.Other != nil {
						t.Errorf("%+v was described as %+v", l, got)
					}
				}
			}
		}
	}
}

func TestDescribeModel(t *testing.T) {
	f := file(t, "tok_emb.weight 9 4", "cell.weight_ih 12 4", "cell.weight_hh 12 3", "cell.bias_ih 12", "cell.bias_hh 12",
		"norm.weight 3", "norm.bias 3", "bn.weight 3", "bn.bias 3", "bn.running_mean 3", "bn.running_var 3", "#bn.num_batches_tracked",
		"conv.weight 2 3 4", "conv.bias 2", "attn.in_proj_weight 9 3", "attn.out_proj.weight 3 3", "attn.out_proj.bias 3", "fc.weight 2 3", "scale 1")
	got, err := Describe(f, map[string]model.Kind{"fc": model.Linear})
	if err != nil {
		t.Fatal(err)
	}
	want := &model.Architecture{
		Layers: []model.Layer{
			{Name: "tok_emb", Kind: model.Embedding, Input: 9, Output: 4},
			{Name: "cell", Kind: model.LSTM, Input: 4, Output: 3, Hidden: 3, Layers: 1, Bias: true, Cell: true},
			{Name: "norm", Kind: model.LayerNorm, Input: 3, Output: 3, Bias: true},
			{Name: "attn.out_proj", Kind: model.Linear, Input: 3, Output: 3, Bias: true},
			{Name: "fc", Kind: model.Linear, Input: 3, Output: 2},
		},
		Other: []string{"bn.weight", "bn.bias", "bn.running_mean", "bn.running_var", "bn.num_batches_tracked", "conv.weight", "conv.bias", "attn.in_proj_weight", "scale"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

// TestDescribeRefusals: the tensor at fault is named, with what was expected and what came.
func TestDescribeRefusals(t *testing.T) {
	lstm := []string{"r.weight_ih_l0 12 4", "r.weight_hh_l0 12 3", "r.bias_ih_l0 12", "r.bias_hh_l0 12"}
	with := func(more ...string) []string { return append(append([]string{}, lstm...), more...) }
	for _, c := range []struct {
		tensors []string
		hints   map[string]model.Kind
		want    string
	}{
		{lstm[:3], nil, "tensor r.bias_hh_l0: missing: LSTM, 4 -> 3 needs it with shape [12]"},
		{lstm[1:], nil, "tensor r.weight_ih_l0: expected a matrix [gates*hidden, features], got none"},
		{with("r.weight_hh_l0_raw 12 3"), nil, "tensor r.weight_hh_l0_raw: LSTM, 4 -> 3 has no tensor of that name"},
		{with("r.weight_ih_l1 12 4"), nil, "tensor r.weight_ih_l1: expected shape [12 3] (LSTM, 4 -> 3, 2 layers), got shape [12 4]"},
		{with("r.weight_ih_l9000 12 4"), nil, "missing"},
		{with("r.weight_ih_l0_reverse 12 4"), nil, "tensor r.weight_hh_l0_reverse: missing: LSTM, 4 -> 6, both directions needs it with shape [12 3]"},
		{[]string{"r.weight_ih_l0 12 4", "r.weight_hh_l0 12 3", "r.bias_ih_l0 9", "r.bias_hh_l0 12"}, nil, "tensor r.bias_ih_l0: expected shape [12] (LSTM, 4 -> 3), got shape [9]"},
		{[]string{"r.weight_ih_l0 9 4", "r.weight_hh_l0 12 3"}, nil, "tensor r.weight_ih_l0: expected shape [12 4] (LSTM, 4 -> 3, no bias), got shape [9 4]"},
		{[]string{"r.weight_ih_l0 6 4", "r.weight_hh_l0 6 3"}, nil, "tensor r.weight_hh_l0: expected 4, 3 or 1 rows (LSTM, GRU, RNN; projected only LSTM) for each of 3 units, got 6 rows"},
		{[]string{"r.weight_ih_l0 9 4", "#r.weight_hh_l0 9 3"}, nil, "tensor r.weight_hh_l0: expected a matrix [gates*hidden, features], got integers of shape [9 3]"},
		{[]string{"r.weight_ih_l0 0 4", "r.weight_hh_l0 0 0"}, nil, "got shape [0 4]"},
		{[]string{"r.weight_ih_l0 12 4", "r.weight_hh_l0 12 0"}, nil, "got shape [12 0]"},
		{[]string{"r.weight_ih_l0 12 0", "r.weight_hh_l0 12 3"}, nil, "got shape [12 0]"},
		{[]string{"r.weight_ih_l0 3 4", "r.weight_hh_l0 3 3"}, nil, "have the same tensors; choose one: --layer r=rnn_tanh or --layer r=rnn_relu"},
		{[]string{"weight_ih_l0 3 4", "weight_hh_l0 3 3"}, nil, "choose one: --layer rnn_tanh or --layer rnn_relu"},
		{[]string{"out.weight 3 4"}, nil, "tensor out.weight: a matrix of shape [3 4] alone is an embedding or a linear layer without bias; choose one: --layer out=embedding or --layer out=linear"},
		{[]string{"out.weight 3 4", "out.bias 4"}, nil, "tensor out.bias: expected shape [3] (linear, 4 -> 3), got shape [4]"},
		{lstm, map[string]model.Kind{"r": model.GRU}, "a layer of kind gru has 3 rows for each of 3 units, got 12 rows"},
		{lstm, map[string]model.Kind{"s": model.GRU}, `has no layer "s"`},
		{lstm, map[string]model.Kind{"r": "sru"}, `expected one of the kinds [lstm gru`},
		{[]string{"c.weight 2 3 4", "c.bias 2"}, map[string]model.Kind{"c": model.Linear}, `the tensors of "c" are not those of a layer of kind linear`},
	} {
		_, err := Describe(file(t, c.tensors...), c.hints)
		var fe *model.FileError
		if !errors.As(err, &fe) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: got %v, want %q", c.tensors, err, c.want)
		}
	}
}

func TestDescribeTagger(t *testing.T) {
	f, err := Read(filepath.Join("testdata", "torch2", "tagger.pt"), nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Describe(f, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []model.Layer{
		{Name: "embed", Kind: model.Embedding, Input: 11, Output: 4},
		{Name: "lstm", Kind: model.LSTM, Input: 4, Output: 6, Hidden: 3, Layers: 2, Bidirectional: true, Bias: true},
		{Name: "norm", Kind: model.LayerNorm, Input: 6, Output: 6, Bias: true},
		{Name: "head", Kind: model.Linear, Input: 6, Output: 5, Bias: true},
	}
	if !reflect.DeepEqual(got.Layers, want) {
		t.Errorf("got %+v", got.Layers)
	}
}
