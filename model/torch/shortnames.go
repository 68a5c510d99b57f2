package torch

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/model"
)

// shortName matches the names that programs without a framework give the parameters of
// PyTorch's layers: enc_w_ih for enc.weight_ih, fc_w and fc_b for fc.weight and fc.bias.
var shortName = regexp.MustCompile(`^(.+)_(w|b)(_ih|_hh)?$`)

// LongNames returns the tensors of f with PyTorch's names, if it has the short names of
// a recurrent layer, NAME_w_ih and NAME_w_hh, and no name with a dot: a NumPy archive, for
// example. A name that ends in emb is that of an embedding. notes has an example.
func LongNames(f *model.File) (named *model.File, notes []string, err error) {
	recurrent := func(t model.Tensor) bool {
		layer, ok := strings.CutSuffix(t.Name, "_w_ih")
		return ok && f.Lookup(layer+"_w_hh") != nil
	}
	dotted := func(t model.Tensor) bool { return strings.Contains(t.Name, ".") }
	if !slices.ContainsFunc(f.Tensors, recurrent) || slices.ContainsFunc(f.Tensors, dotted) {
		return f, nil, nil
	}
	list := slices.Clone(f.Tensors)
	example := ""
	for i := range list {
		t := &list[i]
		if m := shortName.FindStringSubmatch(t.Name); m != nil {
			to := m[1] + "." + map[string]string{"w": "weight", "b": "bias"}[m[2]] + m[3]
			if example == "" {
				example = fmt.Sprintf("%s is %s", t.Name, to)
			}
			t.Name = to
		} else if strings.HasSuffix(t.Name, "emb") {
			t.Name += ".weight"
		}
	}
	named, err = model.NewFile(f.Path, list, f.Meta)
	return named, []string{"short names of parameters are read as PyTorch's: " + example}, err
}
