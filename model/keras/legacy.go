package keras

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// This file reads the layout of .h5 files of Keras 2, and of whole models that
// Keras 3 saves under that name: a group for each layer of the model, whose
// attribute weight_names lists its arrays, those of layers inside it included,
// in the order of Keras's layer.weights. Here they become the owners of arrays
// that files of the newer layout have, and a plan by their configuration is
// given their paths.

// legacy is what a file of this layout says beside its arrays.
type legacy struct {
	root    string  // of the groups of the layers: "model_weights/", or "" in a file of weights alone
	config  *object // nil in a file of weights alone
	version string  // of the Keras that wrote it
	layers  []string
}

// keras2 reports whether the model has the equations and defaults of Keras 2.
func (l *legacy) keras2() bool { return l != nil && !strings.HasPrefix(l.version, "3.") }

// readLegacy returns nil for a file of the newer layout.
func readLegacy(h *hdf5) (*legacy, error) {
	l := &legacy{}
	if _, ok := h.attrs["model_weights"]; ok {
		l.root = "model_weights/"
	}
	names, ok, err := h.textList(strings.TrimSuffix(l.root, "/"), "layer_names")
	if err != nil || !ok {
		return nil, err
	}
	l.layers = names
	for _, path := range []string{"", "model_weights"} {
		if version, ok, err := h.texts(path, "keras_version"); err != nil {
			return nil, err
		} else if ok && len(version) == 1 {
			l.version = version[0]
		}
	}
	if strings.HasPrefix(l.version, "1.") {
		return nil, fmt.Errorf("written by Keras %s, whose layers have an array for each gate; load and save it again with Keras 2", l.version)
	}
	config, ok, err := h.texts("", "model_config")
	if err != nil {
		return nil, err
	}
	switch part, divided, err := h.texts("", "model_config0"); {
	case err != nil:
		return nil, err
	case divided && len(part) > 0:
		return nil, fmt.Errorf("its model_config is divided into several attributes; load and save it again with Keras 3 as a .keras file")
	case ok && len(config) == 1:
		if err := json.Unmarshal([]byte(config[0]), &l.config); err != nil {
			return nil, fmt.Errorf("model_config: %w", err)
		}
	}
	return l, nil
}

// owners groups the arrays of each layer by the layer inside it that they
// belong to, in order; strays are the arrays that no layer lists.
func (l *legacy) owners(h *hdf5) (found map[string]*owner, order []string, strays []*dataset, err error) {
	byPath := make(map[string]*dataset, len(h.list))
	for i := range h.list {
		byPath[h.list[i].path] = &h.list[i]
	}
	found = map[string]*owner{}
	for _, layer := range l.layers {
		names, _, err := h.textList(l.root+layer, "weight_names")
		if err != nil {
			return nil, nil, nil, err
		}
		for _, name := range names {
			path := l.root + layer + "/" + name
			d := byPath[path]
			if d == nil {
				return nil, nil, nil, fmt.Errorf("truncated or damaged: layer %q has no array %q, which it lists", layer, name)
			}
			delete(byPath, path)
			if d.float == nil {
				continue // counters and seeds
			}
			path, base := split(path)
			if n := numbered.FindString(base); n != "" { // kernel_1: of the second cell of a stack
				path += "/" + n[1:]
			}
			o := found[path]
			if o == nil {
				o = &owner{path: path, layer: layer}
				found[path], order = o, append(order, path)
			}
			o.vars = append(o.vars, d)
		}
	}
	for i := range h.list {
		if d := &h.list[i]; byPath[d.path] != nil && !strings.HasPrefix(d.path, "optimizer_weights/") {
			strays = append(strays, d)
		}
	}
	return found, order, strays, nil
}

// place gives the layers of a plan the paths of their arrays. Keras itself goes
// by the order of the arrays, in which those that are trained come first; where a
// model inside the model also has layers that are not known here, by names.
func (l *legacy) place(plan []spec, found map[string]*owner, order []string) {
	type part struct {
		specs, trained, frozen []*spec
		slots                  int
		paths                  []string
	}
	parts := map[string]*part{} // by the layer of the whole model
	for _, top := range l.layers {
		parts[top] = &part{}
	}
	for i := range plan {
		s := &plan[i]
		p := &part{}
		if len(s.chain) > 0 && parts[s.chain[0]] != nil {
			p = parts[s.chain[0]]
		}
		if p.slots += len(s.paths); s.frozen {
			p.frozen = append(p.frozen, s)
		} else {
			p.trained = append(p.trained, s)
		}
		p.specs = append(p.specs, s)
	}
	for _, path := range order {
		p := parts[found[path].layer]
		p.paths = append(p.paths, path)
	}
	for _, p := range parts {
		if len(p.paths) == p.slots {
			assign(append(p.trained, p.frozen...), p.paths)
			continue
		}
		for specs := p.specs; len(specs) > 0; {
			n, slots := 1, len(specs[0].paths)
			for n < len(specs) && slices.Equal(specs[n].chain, specs[0].chain) { // the cells of one stack
				slots += len(specs[n].paths)
				n++
			}
			assign(specs[:n], named(p.paths, specs[0].chain, slots))
			specs = specs[n:]
		}
	}
}

// assign gives the layers the paths in order, or, if their number is another,
// none.
func assign(specs []*spec, paths []string) {
	for _, s := range specs {
		n := len(s.paths)
		if n > len(paths) && s.refused == "" {
			s.refused = "its arrays cannot be told from those of other layers by their names"
		}
		n = min(n, len(paths))
		s.paths, paths = paths[:n:n], paths[n:]
	}
}

// maxInside limits the layers of a model inside the model that names tell apart:
// each is compared with each.
const maxInside = 1000

// named returns the n paths with the name of a layer among their parts, or with
// those of all models around it; nil if there are more or fewer.
func named(paths, chain []string, n int) []string {
	if len(paths) > maxInside {
		return nil
	}
	for from := len(chain) - 1; from > 0; from-- {
		var fit []string
		for _, path := range paths {
			parts := strings.Split(path, "/")
			if !slices.ContainsFunc(chain[from:], func(name string) bool { return !slices.Contains(parts, name) }) {
				fit = append(fit, path)
			}
		}
		if len(fit) == n {
			return fit
		}
	}
	return nil
}

// guess infers the layers of a file of weights alone from the names of their
// arrays, which say what each is.
func (l *legacy) guess(found map[string]*owner, order []string) []spec {
	var list []spec
	count, used := map[string]int{}, map[string]int{}
	for _, path := range order {
		count[found[path].layer]++
	}
	for i := 0; i < len(order); i++ {
		o := found[order[i]]
		s := spec{name: o.layer, paths: []string{o.path}, guessed: true}
		s.class, s.cudnn = o.class()
		if i+1 < len(order) && strings.Contains(o.path, "/forward_") && direction(o.path, "forward_") == direction(order[i+1], "backward_") {
			i++
			s.paths = append(s.paths, order[i])
		}
		if count[o.layer] > len(s.paths) {
			s.name = inside(o, l.root)
		}
		used[s.name]++
		list = append(list, s)
	}
	seen := map[string]int{}
	for i := range list {
		if s := &list[i]; used[s.name] > 1 { // the cells of a stack
			seen[s.name]++
			s.name = joined(".", s.name, strconv.Itoa(seen[s.name]-1))
		}
	}
	return list
}

// direction is the part of a path up to one that begins so, without this
// beginning: what the two layers of a Bidirectional have in common.
func direction(path, begins string) string {
	before, after, _ := strings.Cut(path, "/"+begins)
	name, _, _ := strings.Cut(after, "/")
	return joined("/", before, name)
}

// inside names a layer of a model inside the model.
func inside(o *owner, root string) string {
	names := []string{o.layer}
	for _, part := range strings.Split(strings.TrimPrefix(o.path, root+o.layer+"/"), "/") {
		switch kind := numbered.ReplaceAllString(part, ""); {
		case part == o.layer || strings.Trim(part, "0123456789") == "" || kind == "stacked_rnn_cells" || strings.HasSuffix(kind, "_cell"):
		default:
			names = append(names, part)
		}
	}
	return strings.Join(names, ".")
}

// plain is an array's path without what this layout adds to all of them; l may
// be nil.
func (l *legacy) plain(path string) string {
	if l == nil {
		return path
	}
	return strings.TrimSuffix(strings.TrimPrefix(path, l.root), ":0")
}

// split divides an array's path into that of its owner and its own name.
func split(path string) (owner, name string) {
	at := strings.LastIndexByte(path, '/')
	return path[:at], strings.TrimSuffix(path[at+1:], ":0")
}

// class infers a layer from the names and shapes of its arrays.
func (o *owner) class() (class string, cudnn bool) {
	var names []string
	for _, d := range o.vars {
		_, name := split(d.path)
		names = append(names, numbered.ReplaceAllString(name, ""))
	}
	switch strings.Join(names, " ") {
	case "kernel recurrent_kernel", "kernel recurrent_kernel bias":
		class = recurrentClass(o)
		if gates := map[string]int{"LSTM": 4, "GRU": 3}[class]; gates > 0 && len(names) == 3 {
			cudnn = slices.Equal(o.vars[2].dims, []int{2 * gates * o.vars[1].dims[0]})
		}
	case "kernel", "kernel bias":
		if rank(o, 0) == 2 {
			class = "Dense"
		}
	case "embeddings":
		class = "Embedding"
	case "gamma beta":
		class = "LayerNormalization"
	}
	return class, cudnn
}
