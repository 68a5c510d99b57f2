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

// Kind is what a layer is.
type Kind string

// The kinds of layers that are recognised, with PyTorch's equations.
const (
	LSTM      Kind = "lstm"       // nn.LSTM, nn.LSTMCell
	GRU       Kind = "gru"        // nn.GRU, nn.GRUCell
	RNNTanh   Kind = "rnn_tanh"   // nn.RNN, nn.RNNCell
	RNNReLU   Kind = "rnn_relu"   // the same with nonlinearity="relu"
	Linear    Kind = "linear"     // nn.Linear
	Embedding Kind = "embedding"  // nn.Embedding
	LayerNorm Kind = "layer_norm" // nn.LayerNorm over the last dimension, eps 1e-5
)

// Kinds lists them all.
var Kinds = []Kind{LSTM, GRU, RNNTanh, RNNReLU, Linear, Embedding, LayerNorm}

// gates a unit; 0 where a layer is not recurrent.
var gates = map[Kind]int{LSTM: 4, GRU: 3, RNNTanh: 1, RNNReLU: 1}

// Recurrent reports whether a layer of this kind has steps and a state.
func (k Kind) Recurrent() bool { return gates[k] > 0 }

// Layer is one layer of a state_dict.
type Layer struct {
	Name          string `json:"name"` // what its tensors' names have before the last dot; "" for a bare module
	Kind          Kind   `json:"kind"`
	Input         int    `json:"input"`            // features; of an embedding the vocabulary
	Output        int    `json:"output"`           // features of the output, all directions together
	Hidden        int    `json:"hidden,omitempty"` // the rest is of recurrent layers: units a direction
	Layers        int    `json:"layers,omitempty"`
	Bidirectional bool   `json:"bidirectional,omitempty"`
	Bias          bool   `json:"bias"`
	Proj          int    `json:"proj_size,omitempty"` // of an LSTM, 0 without
	Cell          bool   `json:"cell,omitempty"`      // nn.LSTMCell and the like: names without _l0
}

// Directions is 1 or 2.
func (l *Layer) Directions() int {
	if l.Bidirectional {
		return 2
	}
	return 1
}

// state is the number of features of h.
func (l *Layer) state() int {
	if l.Proj > 0 {
		return l.Proj
	}
	return l.Hidden
}

// shape is a tensor's name and what dimensions it must have.
type shape struct {
	name string
	dims []int
}

// tensors are all that the layer consists of, in PyTorch's order.
func (l *Layer) tensors() []shape {
	var ts []shape
	add := func(name string, dims ...int) {
		if l.Name != "" {
			name = l.Name + "." + name
		}
		ts = append(ts, shape{name, dims})
	}
	switch l.Kind {
	case Linear:
		add("weight", l.Output, l.Input)
	case Embedding:
		add("weight", l.Input, l.Output)
	case LayerNorm:
		add("weight", l.Input)
	default:
		rows, in := gates[l.Kind]*l.Hidden, l.Input
		for layer := range l.Layers {
			for d := range l.Directions() {
				suffix := l.suffix(layer, d)
				add("weight_ih"+suffix, rows, in)
				add("weight_hh"+suffix, rows, l.state())
				if l.Bias {
					add("bias_ih"+suffix, rows)
					add("bias_hh"+suffix, rows)
				}
				if l.Proj > 0 {
					add("weight_hr"+suffix, l.Proj, l.Hidden)
				}
			}
			in = l.Output
		}
		return ts
	}
	if l.Bias {
		add("bias", l.Output)
	}
	return ts
}

// suffix is the end of the names of a layer's direction.
func (l *Layer) suffix(layer, direction int) string {
	if l.Cell {
		return ""
	}
	return fmt.Sprintf("_l%d%s", layer, [2]string{"", "_reverse"}[direction])
}

// String describes the layer in a few words: LSTM, 10 -> 32, 2 layers.
func (l *Layer) String() string {
	name := map[Kind]string{
		LSTM: "LSTM", GRU: "GRU", RNNTanh: "RNN (tanh)", RNNReLU: "RNN (relu)",
		Linear: "linear", Embedding: "embedding", LayerNorm: "layer norm",
	}[l.Kind]
	if l.Kind == LayerNorm {
		return fmt.Sprintf("%s, %d", name, l.Input)
	}
	text := fmt.Sprintf("%s, %d -> %d", name, l.Input, l.Output)
	if l.Layers > 1 {
		text += fmt.Sprintf(", %d layers", l.Layers)
	}
	if l.Bidirectional {
		text += ", both directions"
	}
	if l.Proj > 0 {
		text += fmt.Sprintf(", hidden %d projected", l.Hidden)
	}
	if !l.Bias && l.Kind != Embedding {
		text += ", no bias"
	}
	return text
}

// Architecture is what a state_dict tells of a model: its layers, not how the
// output of one becomes the input of another.
type Architecture struct {
	Layers []Layer  `json:"layers"`          // in the order of the state_dict
	Other  []string `json:"other,omitempty"` // tensors of no layer that is recognised
}

// Describe finds the layers in a state_dict by the names and shapes of its
// tensors. A recurrent layer whose tensors do not agree, in shape or because one
// is missing or too many, is a *model.FileError that names the tensor, what was
// expected and what came.
//
// Names and shapes leave three questions open, and hints, by layer name, answer
// them: whether an RNN's nonlinearity is tanh or relu, and whether a matrix
// alone is an embedding or a linear layer without bias. A name with "emb" in it
// counts as an embedding; otherwise an open question is an error that asks for
// the hint. The hint of the name "*" answers for every layer it fits.
func Describe(f *model.File, hints map[string]Kind) (*Architecture, error) {
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
			return nil, problem(f.Path, "name one of the file's", "has no layer %s, which was said to be of kind %s", quote(name), hints[name])
		}
		if !slices.Contains(Kinds, hints[name]) {
			return nil, problem(f.Path, "", "layer %s: expected one of the kinds %v, got %s", quote(name), Kinds, quote(string(hints[name])))
		}
	}
	arch := &Architecture{}
	for _, name := range names {
		g := groups[name]
		g.hint, g.any = hints[name], hints["*"]
		l, err := g.layer()
		switch {
		case err != nil:
			return nil, err
		case l != nil:
			arch.Layers = append(arch.Layers, *l)
		case g.hint != "":
			return nil, g.bad(g.order[0], "the tensors of %s are not those of a layer of kind %s", quote(name), g.hint)
		default:
			arch.Other = append(arch.Other, g.order...)
		}
	}
	return arch, nil
}

// group is the tensors whose names have the same beginning.
type group struct {
	file    string
	name    string
	tensors map[string]*model.Tensor // by the last part of their names
	order   []string                 // full names
	hint    Kind                     // for this group, or ""
	any     Kind                     // for every group, or ""
}

func (g *group) bad(tensor, format string, a ...any) error {
	return &model.FileError{File: g.file, Tensor: tensor, Problem: fmt.Sprintf(format, a...)}
}

// matrix gives the two dimensions of a floating-point matrix that has elements;
// zeros if it is not one.
func (g *group) matrix(base string) (rows, cols int) {
	if t := g.tensors[base]; t != nil && len(t.Dims) == 2 && len(t.Data) > 0 {
		return t.Dims[0], t.Dims[1]
	}
	return 0, 0
}

// recurrentName matches the parameters of nn.LSTM, GRU, RNN and of their cells.
var recurrentName = regexp.MustCompile(`^(weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)(_l(\d{1,4})(_reverse)?)?$`)

// layer recognises the group; nil if it is none of the kinds.
func (g *group) layer() (*Layer, error) {
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
		l := &Layer{Name: g.name, Kind: LayerNorm, Input: w.Dims[0], Output: w.Dims[0], Bias: true}
		return l, g.verify(l)
	case len(w.Dims) == 2 && n == 2 && b != nil:
		l := &Layer{Name: g.name, Kind: Linear, Input: w.Dims[1], Output: w.Dims[0], Bias: true}
		return l, g.verify(l)
	case len(w.Dims) == 2 && n == 1:
		return g.bareMatrix(w.Dims)
	}
	return nil, nil
}

// bareMatrix is an embedding or a linear layer without bias.
func (g *group) bareMatrix(dims []int) (*Layer, error) {
	kind := g.hint
	if kind == "" && (g.any == Linear || g.any == Embedding) {
		kind = g.any
	}
	if kind == "" && strings.Contains(strings.ToLower(g.name), "emb") {
		kind = Embedding
	}
	switch kind {
	case Embedding:
		return &Layer{Name: g.name, Kind: kind, Input: dims[0], Output: dims[1]}, nil
	case Linear:
		return &Layer{Name: g.name, Kind: kind, Input: dims[1], Output: dims[0]}, nil
	}
	return nil, g.ask(g.order[0], "a matrix of shape %v alone is an embedding or a linear layer without bias", Embedding, Linear, dims)
}

// ask is the error of an open question between two kinds.
func (g *group) ask(tensor, format string, a, b Kind, args ...any) error {
	name := g.name + "="
	if g.name == "" {
		name = ""
	}
	return &model.FileError{
		File: g.file, Tensor: tensor, Problem: fmt.Sprintf(format, args...),
		Fix: fmt.Sprintf("say which: --layer %s%s or --layer %s%s", name, a, name, b),
	}
}

// recurrent works out a recurrent layer from its first matrix and then holds
// every tensor of the group against it.
func (g *group) recurrent() (*Layer, error) {
	l := &Layer{Name: g.name, Cell: true}
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
	l.Layers = min(max(l.Layers, 1), len(g.tensors)) // no name may stand for more layers than there are tensors
	first := l.suffix(0, 0)
	for _, base := range []string{"weight_ih", "weight_hh"} {
		if rows, _ := g.matrix(base + first); rows == 0 {
			return nil, g.bad(l.full(base+first), "expected a matrix [gates*hidden, features], got %s", g.came(base+first))
		}
	}
	rows, cols := g.matrix("weight_hh" + first)
	_, l.Input = g.matrix("weight_ih" + first)
	l.Hidden = cols
	if g.tensors["weight_hr"+first] != nil {
		if l.Proj, l.Hidden = g.matrix("weight_hr" + first); l.Hidden == 0 {
			return nil, g.bad(l.full("weight_hr"+first), "expected a matrix [proj_size, hidden], got %s", g.came("weight_hr"+first))
		}
	}
	var err error
	if l.Kind, err = g.kind(l.full("weight_hh"+first), rows, l.Hidden, l.Proj > 0); err != nil {
		return nil, err
	}
	l.Output = l.Directions() * l.state()
	return l, g.verify(l)
}

// full is the whole name of one of the layer's tensors.
func (l *Layer) full(base string) string {
	if l.Name == "" {
		return base
	}
	return l.Name + "." + base
}

// came says what a tensor is, for an error.
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

// kind tells the cell by the gates a unit has, and by hints.
func (g *group) kind(tensor string, rows, hidden int, projected bool) (Kind, error) {
	n := rows / hidden
	if rows%hidden != 0 || n != 1 && n != 3 && n != 4 || projected && n != 4 {
		return "", g.bad(tensor, "expected 4, 3 or 1 rows (LSTM, GRU, RNN; projected only LSTM) for each of %d units, got %d rows", hidden, rows)
	}
	hint := g.hint
	if hint == "" && gates[g.any] == n {
		hint = g.any
	}
	switch {
	case hint != "" && gates[hint] != n:
		return "", g.bad(tensor, "a layer of kind %s has %d rows for each of %d units, got %d rows", hint, gates[hint], hidden, rows)
	case hint != "":
		return hint, nil
	case n == 4:
		return LSTM, nil
	case n == 3:
		return GRU, nil
	}
	return "", g.ask(tensor, "an RNN with tanh and one with relu have the same tensors", RNNTanh, RNNReLU)
}

// verify holds the group's tensors against those of l: all there, of the right
// shape, no other.
func (g *group) verify(l *Layer) error {
	wanted := map[string]bool{}
	for _, s := range l.tensors() {
		base := s.name[strings.LastIndexByte(s.name, '.')+1:]
		wanted[base] = true
		t := g.tensors[base]
		if t == nil {
			return g.bad(s.name, "missing: %s needs it with shape %v", l, s.dims)
		}
		if t.Ints != nil || !slices.Equal(t.Dims, s.dims) {
			return g.bad(s.name, "expected shape %v (%s), got %s", s.dims, l, g.came(base))
		}
	}
	for _, name := range g.order {
		if base := name[strings.LastIndexByte(name, '.')+1:]; !wanted[base] {
			return g.bad(name, "%s has no tensor of that name", l)
		}
	}
	return nil
}
