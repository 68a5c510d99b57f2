package torch

import (
	"fmt"
	"math"
	"regexp"
	"strings"

	"github.com/carousel-ml/carousel/model"
)

// lengthName matches the name of the lengths that torch.nn.utils.parametrizations
// .weight_norm (of PyTorch 2) or torch.nn.utils.weight_norm makes of a parameter.
var lengthName = regexp.MustCompile(`^(?:(.*\.)?parametrizations\.([^.]+)\.original0|(.*)_g)$`)

// JoinWeightNorm returns the tensors of f with each parameter under weight
// normalisation, which a state_dict holds as lengths g and directions v, as the
// one weight g·v/|v| that the layer computes with; notes names them. Other
// tensors, and pairs whose shapes are not those of weight normalisation, stay as
// they are.
func JoinWeightNorm(f *model.File) (joined *model.File, notes []string, err error) {
	replaced := map[string]*model.Tensor{} // by the name of the directions
	lengths := map[string]bool{}
	var names []string
	for i := range f.Tensors {
		g := &f.Tensors[i]
		m := lengthName.FindStringSubmatch(g.Name)
		if m == nil {
			continue
		}
		name, direction := m[1]+m[2], strings.TrimSuffix(g.Name, "0")+"1"
		if m[2] == "" {
			name, direction = m[3], m[3]+"_v"
		}
		v := f.Lookup(direction)
		if v == nil || f.Lookup(name) != nil {
			continue
		}
		if w := normed(name, g, v); w != nil {
			replaced[direction], lengths[g.Name] = w, true
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return f, nil, nil
	}
	var list []model.Tensor
	for _, t := range f.Tensors {
		if w := replaced[t.Name]; w != nil {
			t = *w
		}
		if !lengths[t.Name] {
			list = append(list, t)
		}
	}
	joined, err = model.NewFile(f.Path, list, f.Meta)
	return joined, []string{fmt.Sprintf("weight normalisation: the lengths and directions of %s are joined to weights", strings.Join(names, ", "))}, err
}

// normed returns g·v/|v|, with a norm for each index of the only dimension in
// which g is not 1, or one norm for a scalar g; nil for other shapes.
func normed(name string, g, v *model.Tensor) *model.Tensor {
	if g.Ints != nil || v.Ints != nil || len(v.Dims) == 0 || len(g.Dims) != 0 && len(g.Dims) != len(v.Dims) {
		return nil
	}
	kept := -1
	for i, n := range g.Dims {
		switch {
		case n == 1:
		case n == v.Dims[i] && kept < 0:
			kept = i
		default:
			return nil
		}
	}
	inner, count := 1, 1 // the elements of v behind the kept dimension, and its size
	if kept >= 0 {
		count = v.Dims[kept]
		for _, n := range v.Dims[kept+1:] {
			inner *= n
		}
	}
	at := func(i int) int { return i / inner % count }
	if kept < 0 {
		at = func(int) int { return 0 }
	}
	squares := make([]float64, count)
	for i, x := range v.Data {
		squares[at(i)] += float64(x) * float64(x)
	}
	w := &model.Tensor{Name: name, Dims: v.Dims, Data: make([]float32, len(v.Data))}
	for i, x := range v.Data {
		w.Data[i] = float32(float64(g.Data[at(i)]) * float64(x) / math.Sqrt(squares[at(i)]))
	}
	return w
}
