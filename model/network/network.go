// Package network runs imported weights of whatever layers, by a description of how
// they are connected: a YAML file that import drafts and the user edits. A [Network]
// becomes a graph of package graph, which runs it and writes it as an ONNX file.
//
// The description has three keys:
//
//	inputs:                       # by name; a dimension is a size or the name of one that may vary
//	  x: [batch, time, 10]
//	layers:
//	  - name: gru                 # also the name of its output, and of its weights
//	    kind: gru
//	  - name: linear
//	    kind: linear
//	    from: gru                 # a layer or an input above, or a list; by default the layer before
//	  - name: softmax
//	    kind: softmax
//	outputs: [softmax]            # by default the last layer
//
// A layer computes what PyTorch's module of that name does, recurrent layers with the
// batch first. weights is the part of its tensors' names before the last dot, by
// default the layer's name; or a mapping of PyTorch's names to those in the file.
// docs/exchange.md lists the kinds and their keys.
package network

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/internal/yaml"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/model/onnx/graph"
	"github.com/carousel-ml/carousel/tensor"
)

// File is the name of the description in a directory of weights. It is no part of the
// model whose checksums are kept, so it may be edited.
const File = "network.yaml"

// Network is a described network with its weights.
type Network struct {
	path       string
	graph      *graph.Builder
	vocabulary int      // the fewest rows of an embedding that reads an input; 0: none does
	names      []string // of the dimensions that may vary
}

// Open reads the description in a directory of imported weights. A missing file, a
// description that [Parse] refuses, and a directory of another task are
// [*model.FileError]s.
func Open(d *model.Dir) (*Network, error) {
	if _, err := model.OpenLayers(d); err != nil {
		return nil, err
	}
	path := d.File(File)
	text, err := yaml.ReadFile(path)
	if err != nil {
		return nil, &model.FileError{File: path, Problem: "expected the description of a network: " + err.Error(), Fix: "carousel import writes one", Err: err}
	}
	return Parse(path, text, d.Weights)
}

// Parse makes a network of a description and the weights that it names; path is for
// messages. Keys, kinds and names that are not known, and sizes that do not fit
// together, are [*model.FileError]s of one line that name the line of the text.
func Parse(path, text string, weights *model.File) (*Network, error) {
	d, err := parse(path, text)
	if err != nil {
		return nil, err
	}
	b := newBuilder(path, weights)
	for _, in := range d.inputs {
		if err := b.input(in); err != nil {
			return nil, err
		}
	}
	for _, l := range d.layers {
		if err := b.layer(l); err != nil {
			return nil, err
		}
	}
	return b.finish(d)
}

// Model returns the network, ready to run. Its inputs and outputs have the names and
// shapes of the description.
func (n *Network) Model(on ...*tensor.Device) (*graph.Model, error) {
	return n.graph.Model(n.path, on...)
}

// Export writes the network as an ONNX file, after running it on random input, here
// and in ONNX Runtime if that is installed. The errors are those of
// [graph.Builder.Export]; no file is written then.
func (n *Network) Export(ctx context.Context, path string) (*graph.Parity, error) {
	m, err := n.Model()
	if err != nil {
		return nil, err
	}
	in, out, err := n.sample(m)
	if err != nil {
		return nil, err
	}
	want := map[string][]float32{}
	for name, v := range out {
		want[name] = v.Data
	}
	p, err := n.graph.Export(ctx, path, in, want)
	if err == nil {
		p.Own = true
	}
	return p, err
}

// sample runs the network on random input. Convolutions and pools need a least
// length, so longer ones are tried where short ones fail.
func (n *Network) sample(m *graph.Model) (in, out map[string]graph.Value, err error) {
	for _, length := range []int{7, 40, 400, 4000} {
		sizes := map[string]int{}
		for _, name := range n.names {
			if sizes[name] = length; name == "batch" {
				sizes[name] = 3
			}
		}
		in = m.Random(1, max(n.vocabulary, 1), sizes)
		if out, err = m.Run(in); err == nil {
			return in, out, nil
		}
	}
	return nil, nil, err
}

// description is the text of a network as it stands.
type description struct {
	inputs  []input
	layers  []*layer
	outputs option // names
}

// input is an input with its shape.
type input struct {
	name string
	dims []any // int, or the name of one that may vary
	line int
}

// layer is one entry of the list of layers.
type layer struct {
	name, kind string
	from       []string // none: what is before
	line       int
	options    map[string]option
}

// option is the value of a key.
type option struct {
	texts []string          // one, or those of a list
	list  bool              // it was written as a list
	names map[string]string // of a mapping, instead
	line  int
}

// nameRule is what names of layers and inputs look like.
var nameRule = regexp.MustCompile(`^[\w.-]{1,200}$`)

// wrong is an error at a line of the description.
func wrong(path string, line int, format string, args ...any) error {
	return &model.FileError{File: fmt.Sprintf("%s:%d", path, line), Problem: fmt.Sprintf(format, args...)}
}

func parse(path, text string) (*description, error) {
	entries, err := yaml.Mapping(path, text)
	if err != nil {
		line, problem, _ := strings.Cut(strings.TrimPrefix(err.Error(), path), ": ") // :3, or nothing
		return nil, &model.FileError{File: path + line, Problem: problem, Err: err}
	}
	d := &description{}
	seen := map[string]bool{}
	for _, e := range entries {
		key, line := yaml.Text(e.Key), e.Key.GetToken().Position.Line
		if seen[key] {
			return nil, wrong(path, line, "%s is there twice", key)
		}
		seen[key] = true
		switch key {
		case "inputs":
			err = d.parseInputs(path, e.Value, line)
		case "layers":
			err = d.parseLayers(path, e.Value, line)
		case "outputs":
			d.outputs, err = optionOf(path, key, e.Value)
		default:
			keys := []string{"inputs", "layers", "outputs"}
			err = wrong(path, line, "there is no key %.60q%s", key, settings.DidYouMean(key, keys, "", "the keys are "))
		}
		if err != nil {
			return nil, err
		}
	}
	for _, key := range []string{"inputs", "layers"} {
		if !seen[key] {
			return nil, &model.FileError{File: path, Problem: fmt.Sprintf("expected the keys inputs and layers, got no %s", key), Fix: "docs/exchange.md has an example"}
		}
	}
	return d, nil
}

func (d *description) parseInputs(path string, n ast.Node, line int) error {
	list, ok := n.(*ast.MappingNode)
	if !ok {
		return wrong(path, line, "inputs: expected lines of the form \"name: [batch, time, 10]\"")
	}
	for _, e := range list.Values {
		in := input{name: yaml.Text(e.Key), line: e.Key.GetToken().Position.Line}
		o, err := optionOf(path, in.name, e.Value)
		switch {
		case err != nil:
			return err
		case !o.list || len(o.texts) == 0 || len(o.texts) > 8:
			return wrong(path, in.line, "input %.60s: expected a list of 1 to 8 dimensions, sizes or names of those that vary, such as [batch, time, 10]", in.name)
		}
		for _, text := range o.texts {
			size, err := strconv.Atoi(text)
			switch {
			case err == nil && size > 0 && size <= maxSize:
				in.dims = append(in.dims, size)
			case err != nil && regexp.MustCompile(`^[A-Za-z_]\w{0,60}$`).MatchString(text):
				in.dims = append(in.dims, text)
			default:
				return wrong(path, o.line, "input %.60s: a dimension is a size of 1 to %d or a name, got %.60q", in.name, maxSize, text)
			}
		}
		d.inputs = append(d.inputs, in)
	}
	return nil
}

// maxSize bounds the sizes in a description.
const maxSize = 1 << 24

func (d *description) parseLayers(path string, n ast.Node, line int) error {
	list, ok := n.(*ast.SequenceNode)
	if !ok || len(list.Values) == 0 {
		return wrong(path, line, "layers: expected a list, each entry beginning with \"- name: NAME\"")
	}
	for _, item := range list.Values {
		m, ok := item.(*ast.MappingNode)
		if !ok {
			return wrong(path, item.GetToken().Position.Line, "expected a layer, lines of the form \"key: value\" after \"- \"")
		}
		l := &layer{line: m.Values[0].Key.GetToken().Position.Line, options: map[string]option{}}
		for _, e := range m.Values {
			key := yaml.Text(e.Key)
			o, err := optionOf(path, key, e.Value)
			if err != nil {
				return err
			}
			if _, twice := l.options[key]; twice {
				return wrong(path, o.line, "%s is there twice", key)
			}
			l.options[key] = o
		}
		for _, key := range []string{"name", "kind"} {
			if o, ok := l.options[key]; !ok || o.list || o.names != nil {
				return wrong(path, l.line, "a layer needs one %s", key)
			}
		}
		l.name, l.kind, l.from = l.options["name"].texts[0], l.options["kind"].texts[0], l.options["from"].texts
		spec, ok := kinds[l.kind]
		if !ok {
			return wrong(path, l.options["kind"].line, "layer %.60s: there is no kind %.60q%s", l.name, l.kind, settings.DidYouMean(l.kind, kindNames(), "", "the kinds are "))
		}
		keys := append([]string{"name", "kind", "from"}, spec.keys...)
		for _, e := range m.Values {
			if key := yaml.Text(e.Key); !slices.Contains(keys, key) {
				return wrong(path, l.options[key].line, "layer %.60s: a layer of kind %s has no key %.60q%s", l.name, l.kind, key, settings.DidYouMean(key, keys, "", "its keys are "))
			}
		}
		d.layers = append(d.layers, l)
	}
	return nil
}

// optionOf reads a value: a scalar, a list of scalars or a mapping of scalars.
func optionOf(path, key string, n ast.Node) (option, error) {
	o := option{line: n.GetToken().Position.Line}
	bad := func() (option, error) {
		return o, wrong(path, o.line, "%.60s: expected a value or a list of values", key)
	}
	switch n := n.(type) {
	case *ast.SequenceNode:
		o.list = true
		for _, item := range n.Values {
			if !yaml.IsScalar(item) {
				return bad()
			}
			o.texts = append(o.texts, yaml.Text(item))
		}
	case *ast.MappingNode:
		o.names = map[string]string{}
		for _, e := range n.Values {
			if !yaml.IsScalar(e.Value) {
				return bad()
			}
			o.names[yaml.Text(e.Key)] = yaml.Text(e.Value)
		}
	default:
		if !yaml.IsScalar(n) {
			return bad()
		}
		o.texts = []string{yaml.Text(n)}
	}
	return o, nil
}

// fileProblem is an error of weights, said at the line of the layer.
func fileProblem(path string, line int, err error) error {
	var fe *model.FileError
	if errors.As(err, &fe) {
		return &model.FileError{File: fmt.Sprintf("%s:%d", path, line), Tensor: fe.Tensor, Problem: fe.Problem, Err: err}
	}
	return wrong(path, line, "%v", err)
}
