package network

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/model/onnx/graph"
)

// builder adds layers to a graph, with the shape of every value as far as it is known.
type builder struct {
	path       string
	file       *model.File
	g          *graph.Builder
	values     map[string]*value
	inputs     []*value
	order      []string        // of the names of values
	states     map[string]bool // names of the inputs and outputs that are states
	vocabulary int
}

// value is an output of a layer, or an input.
type value struct {
	name  string // in the graph
	dims  []any  // int, or the name of one that may vary
	line  int
	input bool   // of the network
	reads string // an input: what the layers read that take it, numbers or ids; "": there is none yet
	final string // of a recurrent layer: h after the last step, [batch, directions*features]
}

func newBuilder(path string, file *model.File) *builder {
	return &builder{path: path, file: file, g: &graph.Builder{}, values: map[string]*value{}, states: map[string]bool{}}
}

func (b *builder) define(name string, line int, v *value) error {
	switch {
	case !nameRule.MatchString(name):
		return wrong(b.path, line, "%.60q: a name has letters, digits, _, - and dots", name)
	case b.values[name] != nil || b.states[name]:
		return wrong(b.path, line, "the name %.60s is there twice", name)
	}
	v.line = line
	b.values[name] = v
	b.order = append(b.order, name)
	return nil
}

func (b *builder) input(in input) error {
	v := &value{name: in.name, dims: in.dims, input: true}
	b.inputs = append(b.inputs, v)
	return b.define(in.name, in.line, v)
}

// node is a layer while it is added.
type node struct {
	*layer
	b *builder
	x []*value
}

func (n *node) wrong(key, format string, args ...any) error {
	line := n.line
	if o, ok := n.options[key]; ok {
		line = o.line
	}
	return wrong(n.b.path, line, "layer %.60s: %s", n.name, fmt.Sprintf(format, args...))
}

// layer adds one layer.
func (b *builder) layer(l *layer) error {
	spec := kinds[l.kind]
	n := &node{layer: l, b: b}
	from := l.from
	if len(from) == 0 {
		if len(b.order) == 0 {
			return n.wrong("from", "there is nothing that it could read")
		}
		from = b.order[len(b.order)-1:]
	}
	for _, name := range from {
		v := b.values[name]
		if v == nil {
			return n.wrong("from", "there is no layer or input %.60q above it%s", name, settings.DidYouMean(name, b.order, "", "above are "))
		}
		n.x = append(n.x, v)
	}
	switch {
	case !spec.several && len(n.x) != 1:
		return n.wrong("from", "a layer of kind %s reads one value, got %d", l.kind, len(n.x))
	case spec.several && len(n.x) < 2:
		return n.wrong("from", "a layer of kind %s reads several values; name them: from: [a, b]", l.kind)
	}
	reads := "numbers"
	if l.kind == "embedding" {
		reads = "ids"
	}
	for _, v := range n.x {
		switch {
		case !v.input && reads == "ids":
			return n.wrong("from", "an embedding reads ids, which only an input has; got %s", n.source())
		case v.input && v.reads != "" && v.reads != reads:
			return n.wrong("from", "reads %s, and another layer reads %s of the same input", reads, v.reads)
		case v.input:
			v.reads = reads
		}
	}
	out, err := spec.add(n)
	if err != nil {
		return err
	}
	return b.define(l.name, l.line, out)
}

// finish declares inputs and outputs.
func (b *builder) finish(d *description) (*Network, error) {
	n := &Network{path: b.path, graph: b.g, vocabulary: b.vocabulary}
	for _, v := range b.inputs {
		if v.reads == "" {
			return nil, wrong(b.path, v.line, "no layer reads the input %.60s", v.name)
		}
		if v.reads == "ids" {
			b.g.InputInts(v.name, "ids", v.dims...)
		} else {
			b.g.Input(v.name, "", v.dims...)
		}
	}
	outputs, line := d.outputs.texts, d.outputs.line
	if len(outputs) == 0 {
		outputs = b.order[len(b.order)-1:]
	}
	for i, name := range outputs {
		v := b.values[name]
		switch {
		case v == nil:
			return nil, wrong(b.path, line, "outputs: there is no layer %.60q%s", name, settings.DidYouMean(name, b.order, "", "there are "))
		case v.input:
			return nil, wrong(b.path, line, "outputs: %.60s is an input", name)
		case slices.Contains(outputs[:i], name):
			return nil, wrong(b.path, line, "outputs: %.60s is there twice", name)
		}
		b.g.Node("Identity", []string{v.name}, []string{name})
		b.g.Output(name, "", v.dims...)
	}
	for _, v := range b.inputs {
		for _, d := range v.dims {
			if s, ok := d.(string); ok {
				n.names = append(n.names, s)
			}
		}
	}
	return n, nil
}

// shape is the shape of a value for messages.
func (v *value) shape() string {
	text := make([]string, len(v.dims))
	for i, d := range v.dims {
		text[i] = fmt.Sprint(d)
	}
	return "[" + strings.Join(text, ", ") + "]"
}

// last is the last dimension.
func (v *value) last() any { return v.dims[len(v.dims)-1] }

// like is a value with another last dimension.
func (v *value) like(name string, last any) *value {
	dims := slices.Clone(v.dims)
	dims[len(dims)-1] = last
	return &value{name: name, dims: dims}
}

// takes checks that a dimension can be of the size that a layer takes.
func (n *node) takes(axis, size int, what string) error {
	v := n.x[0]
	if axis < 0 {
		axis += len(v.dims)
	}
	if got, ok := v.dims[axis].(int); ok && got != size {
		return n.wrong("from", "takes %d %s, got %d of %s", size, what, got, n.source())
	}
	return nil
}

// source names what the layer reads, with its shape.
func (n *node) source() string {
	var list []string
	for _, v := range n.x {
		for _, name := range n.b.order {
			if n.b.values[name] == v {
				list = append(list, name+" "+v.shape())
			}
		}
	}
	return strings.Join(list, " and ")
}

// rank checks the number of dimensions.
func (n *node) rank(what string, ranks ...int) error {
	if !slices.Contains(ranks, len(n.x[0].dims)) {
		return n.wrong("from", "a layer of kind %s takes %s, got %s", n.kind, what, n.source())
	}
	return nil
}

// integers is a key of one integer or a list of them; def if it is absent.
func (n *node) integers(key string, def []int, least, most int) ([]int, error) {
	o, ok := n.options[key]
	if !ok {
		return def, nil
	}
	var list []int
	for _, text := range o.texts {
		v, err := strconv.Atoi(text)
		if err != nil || v < least || v > most {
			return nil, n.wrong(key, "%s: expected whole numbers of %d to %d, got %.60q", key, least, most, text)
		}
		list = append(list, v)
	}
	if len(list) == 0 {
		return nil, n.wrong(key, "%s: expected whole numbers of %d to %d, got none", key, least, most)
	}
	return list, nil
}

// integer is a key of one integer.
func (n *node) integer(key string, def, least, most int) (int, error) {
	list, err := n.integers(key, []int{def}, least, most)
	switch {
	case err != nil:
		return 0, err
	case len(list) != 1:
		return 0, n.wrong(key, "%s: expected one number, got a list", key)
	}
	return list[0], nil
}

// axis is a key that names a dimension of x; a negative one counts from the end.
func (n *node) axis(key string, def int) (int, error) {
	rank := len(n.x[0].dims)
	if _, ok := n.options[key]; !ok && (def >= rank || def < -rank) {
		return 0, n.wrong("from", "a layer of kind %s takes at least %d dimensions, got %s", n.kind, max(def+1, -def), n.source())
	}
	a, err := n.integer(key, def, -rank, rank-1)
	if a < 0 {
		a += rank
	}
	return a, err
}

// word is a key with one of some values.
func (n *node) word(key string, def string, words ...string) (string, error) {
	o, ok := n.options[key]
	switch {
	case !ok && def != "":
		return def, nil
	case !ok:
		return "", n.wrong(key, "%s is needed: one of %s", key, strings.Join(words, ", "))
	case o.list || o.names != nil || !slices.Contains(words, o.texts[0]):
		got := strings.Join(o.texts, ", ")
		return "", n.wrong(key, "%s: expected one of %s, got %.60q%s", key, strings.Join(words, ", "), got, settings.DidYouMean(got, words, "", ""))
	}
	return o.texts[0], nil
}

// flag is a key that is true or false.
func (n *node) flag(key string) (bool, error) {
	text, err := n.word(key, "false", "true", "false")
	return text == "true", err
}

// number is a key of one number above 0.
func (n *node) number(key string, def float64) (float64, error) {
	o, ok := n.options[key]
	if !ok {
		return def, nil
	}
	if o.list || o.names != nil {
		return 0, n.wrong(key, "%s: expected one number", key)
	}
	v, err := strconv.ParseFloat(o.texts[0], 64)
	if err != nil || !(v > 0 && v < 1e6) {
		return 0, n.wrong(key, "%s: expected a number above 0, got %.60q", key, o.texts[0])
	}
	return v, nil
}

// tensors returns the layer's tensors under PyTorch's names, "NAME.weight" and so on,
// where NAME is prefix.
func (n *node) tensors() (prefix string, list []model.Tensor, err error) {
	prefix = n.name
	o, ok := n.options["weights"]
	if ok && o.names != nil {
		for _, base := range sortedKeys(o.names) {
			t := n.b.file.Lookup(o.names[base])
			if t == nil {
				return "", nil, n.wrong("weights", "there is no tensor %.100q%s", o.names[base], settings.DidYouMean(o.names[base], n.b.tensorNames(), "", ""))
			}
			named := *t
			named.Name = prefix + "." + base
			list = append(list, named)
		}
		return prefix, list, nil
	}
	if ok {
		if o.list {
			return "", nil, n.wrong("weights", "weights: expected the beginning of the tensors' names, or a mapping of names to tensors")
		}
		prefix = o.texts[0]
	}
	for _, t := range n.b.file.Tensors {
		if before(t.Name) == prefix {
			list = append(list, t)
		}
	}
	if len(list) == 0 {
		var known []string
		for _, t := range n.b.file.Tensors {
			if p := before(t.Name); !slices.Contains(known, p) {
				known = append(known, p)
			}
		}
		return "", nil, n.wrong("weights", "there are no tensors %.100s.*%s", prefix, settings.DidYouMean(prefix, known, "", "the weights are of "))
	}
	return prefix, list, nil
}

func (b *builder) tensorNames() []string {
	var names []string
	for _, t := range b.file.Tensors {
		names = append(names, t.Name)
	}
	return names
}

// before is the part of a tensor's name before the last dot.
func before(name string) string { return name[:max(strings.LastIndexByte(name, '.'), 0)] }
