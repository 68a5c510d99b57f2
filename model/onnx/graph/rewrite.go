package graph

import (
	"io"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/tensor"
)

// initializerIR is the first version of the format in which an initializer need not be an input.
const initializerIR = 4

// WriteQuantized writes the model's file with the weights as they rest: those in [tensor.Int8] as
// integers, scales and a DequantizeLinear with an axis, or before operator set 13 a Cast and a Mul;
// those in 16 bits as such numbers and a Cast, with a property that tells [Read] of it (bfloat16
// before operator set 13 stays float32). All else remains as it is, except that data in other files
// become part of this one. A file that has been changed since it was read, weights that the file has
// as integers already and that rest as others, and a file of more than 2 GiB are *model.FileErrors;
// others are those of writing.
func (m *Model) WriteQuantized(path string) error {
	b, err := m.rewritten()
	if err != nil {
		return err
	}
	if len(b) > maxFile {
		return tooLarge(path, int64(len(b)))
	}
	return model.WriteFileAtomic(path, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}

func (m *Model) rewritten() ([]byte, error) {
	b, err := m.file()
	if err != nil {
		return nil, &model.FileError{File: m.path, Problem: "cannot be read: " + bare(err).Error(), Err: err}
	}
	p, err := decodeModel(b)
	if err != nil || p.graph == nil {
		return nil, m.badf("the file has been changed since it was read")
	}
	m.trace()
	w := &rewriter{m: m, ir: p.ir, sources: map[int]*source{}, gone: map[string]bool{}, names: map[string]bool{}}
	for _, name := range m.names {
		w.names[name] = true
	}
	for _, s := range m.weights.listed {
		if s.rest == tensor.Float32 || m.asInFile(s) {
			continue
		}
		if s.place == 0 {
			return nil, m.badf("the weights %s are integers already, with other scales than they rest with; write them from the file with floats", clip(m.names[s.slot]))
		}
		w.sources[s.place] = s
	}
	return w.model(b)
}

// asInFile reports whether the file has weights that rest as it would be written.
func (m *Model) asInFile(s *source) bool {
	if !slices.Equal(s.from.host, m.constants[s.slot].host) {
		return false
	}
	return s.place == 0 || s.rest != tensor.Int8 && s.dtype != typeFloat || s.rest == tensor.BFloat16 && m.Opset < bfloatOpset
}

// rewriter copies a file field by field. It visits tensors in the order in which decodeModel
// counts them.
type rewriter struct {
	m       *Model
	ir      int64
	tensors int             // seen
	sources map[int]*source // to be replaced, by place
	gone    map[string]bool // names of tensors that were
	names   map[string]bool // in use
}

func (w *rewriter) model(b []byte) (out []byte, err error) {
	err = eachField(b, func(f *field) error {
		switch f.key() {
		case key(7, blob):
			g, _, err := w.graph(f.b)
			out = appendBytes(out, 7, w.withoutInputs(g))
			return err
		case key(14, blob):
			if name, _, _ := decodeEntry(f.b); strings.HasPrefix(name, metaRest) {
				return nil
			}
		}
		out = append(out, f.raw...)
		return nil
	})
	for _, s := range w.m.weights.listed {
		if s.rest == tensor.BFloat16 || s.rest == tensor.Float16 {
			out = appendBytes(out, 14, appendText(appendText(nil, 1, metaRest+w.m.names[s.slot]), 2, s.rest.String()))
		}
	}
	return out, err
}

// withoutInputs leaves out the inputs of a graph that were initializers and are results now.
func (w *rewriter) withoutInputs(b []byte) (out []byte) {
	eachField(b, func(f *field) error { // it was read before
		if f.key() == key(11, blob) {
			if v, _ := decodeValue(f.b); w.gone[v.name] {
				return nil
			}
		}
		out = append(out, f.raw...)
		return nil
	})
	return out
}

// graph returns a graph and whether it has changed. New nodes are the first: they read nothing that
// a node makes.
func (w *rewriter) graph(b []byte) (out []byte, changed bool, err error) {
	var nodes, rest []byte
	err = eachField(b, func(f *field) error {
		var part []byte
		var made *replacement
		var err error
		number := protowire.Number(1)
		switch f.key() {
		case key(1, blob):
			part, made, err = w.node(f.b)
		case key(5, blob):
			number = 5
			part, made, err = w.tensor(f.b, "")
		}
		switch {
		case err != nil:
			return err
		case made != nil:
			nodes, rest, changed = append(nodes, made.nodes...), append(rest, made.tensors...), true
		case part != nil:
			rest, changed = appendBytes(rest, number, part), true
		default:
			rest = append(rest, f.raw...)
		}
		return nil
	})
	return append(nodes, rest...), changed, err
}

// node returns what replaces a node: another one, or all that makes its value; neither if it
// stays.
func (w *rewriter) node(b []byte) (out []byte, made *replacement, err error) {
	changed, output := false, ""
	eachField(b, func(f *field) error { // it was read before
		if f.key() == key(2, blob) {
			output = string(f.b)
		}
		return nil
	})
	err = eachField(b, func(f *field) error {
		if f.key() == key(5, blob) {
			var attr []byte
			if attr, made, err = w.attr(f.b, output); err != nil || made != nil {
				return err
			}
			if attr != nil {
				out, changed = appendBytes(out, 5, attr), true
				return nil
			}
		}
		out = append(out, f.raw...)
		return nil
	})
	if !changed {
		out = nil
	}
	return out, made, err
}

func (w *rewriter) attr(b []byte, output string) (out []byte, made *replacement, err error) {
	changed := false
	err = eachField(b, func(f *field) error {
		var part []byte
		var err error
		switch f.key() {
		case key(5, blob):
			part, made, err = w.tensor(f.b, output)
		case key(6, blob):
			var different bool
			if part, different, err = w.graph(f.b); !different {
				part = nil
			}
		}
		if part == nil {
			out = append(out, f.raw...)
		} else {
			out, changed = appendBytes(out, f.num, part), true
		}
		return err
	})
	if !changed {
		out = nil
	}
	return out, made, err
}

// replacement is what makes a value instead of a tensor of the file: fields of a graph.
type replacement struct{ nodes, tensors []byte }

// tensor returns what replaces a tensor: one that has its data, or all that makes its value; neither
// if it stays. A tensor in a Constant node makes the node's output.
func (w *rewriter) tensor(b []byte, output string) (out []byte, made *replacement, err error) {
	w.tensors++
	s := w.sources[w.tensors]
	t := &tensorProto{}
	if err := (&modelProto{}).decodeTensor(t, b); err != nil {
		return nil, nil, err
	}
	if s == nil && t.external == nil {
		return nil, nil, nil
	}
	v, problem := t.constant(filepath.Dir(w.m.path))
	if problem != "" {
		return nil, nil, w.m.badf("the tensor %s: %s", clip(t.name), problem)
	}
	if s == nil {
		err = eachField(b, func(f *field) error {
			if f.num != 9 && f.num != 13 && f.num != 14 {
				out = append(out, f.raw...)
			}
			return nil
		})
		return appendBytes(out, 9, t.raw), nil, err
	}
	if !slices.Equal(v.host, s.from.host) {
		return nil, nil, w.m.badf("the file has been changed since it was read: the weights %s", clip(t.name))
	}
	name := t.name
	if output != "" {
		name = output
	}
	made = w.replacement(s, name, v.dims)
	w.gone[name] = true
	return nil, made, nil
}

// replacement returns what makes the weights of a source under a name.
func (w *rewriter) replacement(s *source, name string, dims []int) *replacement {
	g := &Builder{}
	stored := &atRest{name: name, dims: dims, values: w.m.constants[s.slot].host, rest: s.rest, bytes: s.bytes, dtype: s.dtype, opset: w.m.Opset, fresh: w.fresh}
	stored.add(g)
	made := &replacement{}
	for _, t := range g.initializers {
		if w.ir >= initializerIR {
			made.tensors = appendBytes(made.tensors, 5, t)
			continue
		}
		var p tensorProto
		(&modelProto{}).decodeTensor(&p, t) // of this program
		made.nodes = appendBytes(made.nodes, 1, encodeNode("Constant", nil, []string{p.name}, []Attr{{"value", encoded(t)}}))
	}
	for _, n := range g.nodes {
		made.nodes = appendBytes(made.nodes, 1, n)
	}
	return made
}

// fresh returns a name that is not in use.
func (w *rewriter) fresh(name string) string {
	for w.names[name] {
		name += "_"
	}
	w.names[name] = true
	return name
}
