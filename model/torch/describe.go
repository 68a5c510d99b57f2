package torch

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/carousel-ml/carousel/model"
)

// Describe finds the layers in a state_dict from the names and shapes of its
// tensors. A recurrent layer whose tensors do not agree, in shape or because
// one is missing or extra, is a [*model.FileError] that names the tensor, the
// expected and the actual shape.
//
// Names and shapes do not determine two things: whether an RNN's nonlinearity
// is tanh or relu, and whether a single matrix is an embedding or a linear
// layer without bias. hints, by layer name, decide them. A name with "emb" in
// it counts as an embedding; otherwise an undecided layer is a
// [*model.FileError] that asks for a hint, and so is a hint that names no layer
// or does not fit it. The hint with the name "*" applies to every layer that it
// fits. The hint [model.Other] leaves a layer unrecognised.
func Describe(f *model.File, hints map[string]model.Kind) (*model.Architecture, error) {
	groups := map[string]*group{}
	var names []string
	for i := range f.Tensors {
		t := &f.Tensors[i]
		prefix, base := "", t.Name
		if at := strings.LastIndexByte(t.Name, '.'); at >= 0 {
			prefix, base = t.Name[:at], t.Name[at+1:]
		}
		if groups[prefix] == nil {
			groups[prefix] = &group{file: f.Path, name: prefix, tensors: map[string]*model.Tensor{}}
			names = append(names, prefix)
		}
		groups[prefix].tensors[base] = t
		groups[prefix].order = append(groups[prefix].order, t.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(hints)) {
		if name != "*" && groups[name] == nil {
			return nil, problem(f.Path, "name one of the file's", "has no layer %s, for which the kind %s was given", quote(name), hints[name])
		}
		if !slices.Contains(model.Kinds, hints[name]) {
			return nil, problem(f.Path, "", "layer %s: expected one of the kinds %v, got %s", quote(name), model.Kinds, quote(string(hints[name])))
		}
	}
	arch := &model.Architecture{}
	for _, name := range names {
		g := groups[name]
		g.hint, g.any = hints[name], hints["*"]
		l, err := g.layer()
		switch {
		case err != nil:
			return nil, err
		case l != nil:
			arch.Layers = append(arch.Layers, *l)
		case g.hint != "" && g.hint != model.Other:
			return nil, g.bad(g.order[0], "the tensors of %s are not those of a layer of kind %s", quote(name), g.hint)
		default:
			arch.Other = append(arch.Other, g.order...)
		}
	}
	return arch, nil
}

// group is the tensors whose names have the same prefix.
type group struct {
	file    string
	name    string
	tensors map[string]*model.Tensor // by the last part of their names
	order   []string                 // full names
	hint    model.Kind               // for this group, or ""
	any     model.Kind               // for every group, or ""
}

func (g *group) bad(tensor, format string, a ...any) error {
	return &model.FileError{File: g.file, Tensor: tensor, Problem: fmt.Sprintf(format, a...)}
}

// matrix returns the two dimensions of a non-empty floating-point matrix; zeros
// if the tensor is not one.
func (g *group) matrix(base string) (rows, cols int) {
	if t := g.tensors[base]; t != nil && len(t.Dims) == 2 && len(t.Data) > 0 {
		return t.Dims[0], t.Dims[1]
	}
	return 0, 0
}

// recurrentName matches the parameters of nn.LSTM, GRU, RNN and of their cells.
var recurrentName = regexp.MustCompile(`^(weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)(_l(\d{1,4})(_reverse)?)?$`)

// layer recognises the group; nil if it is none of the kinds.
func (g *group) layer() (*model.Layer, error) {
	if g.hint == model.Other {
		return nil, nil
	}
	recurrent := false
	for base := range g.tensors {
		recurrent = recurrent || recurrentName.MatchString(base)
	}
	if recurrent {
		return g.recurrent()
	}
	w, b := g.tensors["weight"], g.tensors["bias"]
	if w == nil || w.Ints != nil || len(w.Data) == 0 {
		return nil, nil
	}
	switch n := len(g.tensors); {
	case len(w.Dims) == 1 && n == 2 && b != nil:
		l := &model.Layer{Name: g.name, Kind: model.LayerNorm, Input: w.Dims[0], Output: w.Dims[0], Bias: true}
		return l, g.verify(l)
	case len(w.Dims) == 2 && n == 2 && b != nil:
		l := &model.Layer{Name: g.name, Kind: model.Linear, Input: w.Dims[1], Output: w.Dims[0], Bias: true}
		return l, g.verify(l)
	case len(w.Dims) == 2 && n == 1:
		return g.bareMatrix(w.Dims)
	}
	return nil, nil
}

// bareMatrix is an embedding or a linear layer without bias.
func (g *group) bareMatrix(dims []int) (*model.Layer, error) {
	kind := g.hint
	if kind == "" && (g.any == model.Linear || g.any == model.Embedding) {
		kind = g.any
	}
	if kind == "" && strings.Contains(strings.ToLower(g.name), "emb") {
		kind = model.Embedding
	}
	switch kind {
	case model.Embedding:
		return &model.Layer{Name: g.name, Kind: kind, Input: dims[0], Output: dims[1]}, nil
	case model.Linear:
		return &model.Layer{Name: g.name, Kind: kind, Input: dims[1], Output: dims[0]}, nil
	}
	return nil, g.ask(g.order[0], "a matrix of shape %v alone is an embedding or a linear layer without bias", model.Embedding, model.Linear, dims)
}

// ask returns the error for a layer of two possible kinds.
func (g *group) ask(tensor, format string, a, b model.Kind, args ...any) error {
	name := g.name + "="
	if g.name == "" {
		name = ""
	}
	return &model.FileError{
		File: g.file, Tensor: tensor, Problem: fmt.Sprintf(format, args...),
		Fix: fmt.Sprintf("choose one: --layer %s%s or --layer %s%s", name, a, name, b),
	}
}

// recurrent determines a recurrent layer from its first matrix and then
// compares every tensor of the group with it.
func (g *group) recurrent() (*model.Layer, error) {
	l := &model.Layer{Name: g.name, Cell: true}
	for base := range g.tensors {
		m := recurrentName.FindStringSubmatch(base)
		if m == nil {
			continue
		}
		if m[2] != "" {
			n, _ := strconv.Atoi(m[3])
			l.Cell, l.Layers = false, max(l.Layers, n+1)
		}
		l.Bidirectional = l.Bidirectional || m[4] != ""
		l.Bias = l.Bias || strings.HasPrefix(base, "bias")
	}
	l.Layers = min(max(l.Layers, 1), len(g.tensors)) // names may not claim more layers than there are tensors
	first := l.Suffix(0, 0)
	for _, base := range []string{"weight_ih", "weight_hh"} {
		if rows, _ := g.matrix(base + first); rows == 0 {
			return nil, g.bad(l.Full(base+first), "expected a matrix [gates*hidden, features], got %s", g.came(base+first))
		}
	}
	rows, cols := g.matrix("weight_hh" + first)
	_, l.Input = g.matrix("weight_ih" + first)
	l.Hidden = cols
	if g.tensors["weight_hr"+first] != nil {
		if l.Proj, l.Hidden = g.matrix("weight_hr" + first); l.Hidden == 0 {
			return nil, g.bad(l.Full("weight_hr"+first), "expected a matrix [proj_size, hidden], got %s", g.came("weight_hr"+first))
		}
	}
	var err error
	if l.Kind, err = g.kind(l.Full("weight_hh"+first), rows, l.Hidden, l.Proj > 0); err != nil {
		return nil, err
	}
	l.Output = l.Directions() * l.State()
	return l, g.verify(l)
}

// came describes a tensor, for an error.
func (g *group) came(base string) string {
	t := g.tensors[base]
	switch {
	case t == nil:
		return "none"
	case t.Ints != nil:
		return fmt.Sprintf("integers of shape %v", t.Dims)
	}
	return fmt.Sprintf("shape %v", t.Dims)
}

// kind determines the cell from the number of gates per unit, and from hints.
func (g *group) kind(tensor string, rows, hidden int, projected bool) (model.Kind, error) {
	n := rows / hidden
	if rows%hidden != 0 || n != 1 && n != 3 && n != 4 || projected && n != 4 {
		return "", g.bad(tensor, "expected 4, 3 or 1 rows (LSTM, GRU, RNN; projected only LSTM) for each of %d units, got %d rows", hidden, rows)
	}
	hint := g.hint
	if hint == "" && g.any.Gates() == n {
		hint = g.any
	}
	switch {
	case hint != "" && hint.Gates() != n:
		return "", g.bad(tensor, "a layer of kind %s has %d rows for each of %d units, got %d rows", hint, hint.Gates(), hidden, rows)
	case hint != "":
		return hint, nil
	case n == 4:
		return model.LSTM, nil
	case n == 3:
		return model.GRU, nil
	}
	return "", g.ask(tensor, "an RNN with tanh and one with relu have the same tensors", model.RNNTanh, model.RNNReLU)
}

// verify compares the group's tensors with those of l: all present, of the
// right shape, and no others.
func (g *group) verify(l *model.Layer) error {
	wanted := map[string]bool{}
	for _, s := range l.Tensors() {
		base := s.Name[strings.LastIndexByte(s.Name, '.')+1:]
		wanted[base] = true
		t := g.tensors[base]
		if t == nil {
			return g.bad(s.Name, "missing: %s needs it with shape %v", l, s.Dims)
		}
		if t.Ints != nil || !slices.Equal(t.Dims, s.Dims) {
			return g.bad(s.Name, "expected shape %v (%s), got %s", s.Dims, l, g.came(base))
		}
	}
	for _, name := range g.order {
		if base := name[strings.LastIndexByte(name, '.')+1:]; !wanted[base] {
			return &model.FileError{File: g.file, Tensor: name, Problem: fmt.Sprintf("%s has no tensor of that name", l),
				Fix: fmt.Sprintf("if it is another kind of layer, keep its tensors unchanged: --layer %s=%s", g.name, model.Other)}
		}
	}
	return nil
}
