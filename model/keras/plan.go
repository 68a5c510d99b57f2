package keras

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/carousel-ml/carousel/model"
)

// spec is a layer to convert: its class, and the location of its arrays.
type spec struct {
	name     string
	class    string   // Keras's; for a cell, the layer's: LSTM, GRU, SimpleRNN, Dense, Embedding, LayerNormalization
	paths    []string // of the groups that own arrays; for Bidirectional, of both directions
	settings settings
	rank     int  // of the input that the layer was built for; 0: unknown
	guessed  bool // there is no configuration: settings are Keras's defaults
	hint     model.Kind
	refused  string // why its arrays are kept unchanged; "": they are converted
}

// owner is a group that owns arrays.
type owner struct {
	path string
	vars []*dataset // by number
}

// variable matches the path of an owner's array.
var variable = regexp.MustCompile(`^(?:(.*)/)?vars/(\d{1,4})$`)

// owners groups the arrays of a file; strays are those in another layout.
func owners(list []dataset) (found map[string]*owner, order []string, strays []*dataset) {
	found = map[string]*owner{}
	for i := range list {
		d := &list[i]
		m := variable.FindStringSubmatch(d.path)
		n := 0
		if m != nil {
			n, _ = strconv.Atoi(m[2])
		}
		if m == nil || n > len(list) {
			strays = append(strays, d)
			continue
		}
		o := found[m[1]]
		if o == nil {
			o = &owner{path: m[1]}
			found[m[1]], order = o, append(order, m[1])
		}
		for len(o.vars) <= n {
			o.vars = append(o.vars, nil)
		}
		o.vars[n] = d
	}
	return found, order, strays
}

// maxNesting limits models in models; each level is parsed again.
const maxNesting = 32

// planned lists the layers in a model's configuration, in order.
func planned(c *settings, path, name string, depth int) []spec {
	var list []spec
	used := map[string]int{}
	for i := range c.Layers {
		l := &c.Layers[i]
		place := unique(snake(l.Class), used)
		own := place
		if s := l.settings(); s != nil && s.Name != "" {
			own = s.Name
		}
		list = append(list, planLayer(l, joined("/", path, "layers", place), joined(".", name, own), depth+1)...)
	}
	return list
}

// planLayer returns one layer at a path in the file, or the layers of a model.
func planLayer(l *object, path, name string, depth int) []spec {
	c := l.settings()
	if c == nil || depth > maxNesting {
		return nil
	}
	switch l.Class {
	case "Sequential", "Functional", "Model":
		return planned(c, path, name, depth)
	case "LSTM", "GRU", "SimpleRNN":
		return []spec{{name: name, class: l.Class, paths: []string{path + "/cell"}, settings: *c}}
	case "Dense", "Embedding", "LayerNormalization":
		return []spec{{name: name, class: l.Class, paths: []string{path}, settings: *c, rank: l.rank()}}
	case "TimeDistributed":
		if c.Layer != nil {
			return planLayer(c.Layer, path+"/layer", name, depth+1)
		}
	case "Bidirectional":
		return planBoth(c, path, name)
	case "RNN":
		if c.Cell != nil {
			return planCells(c.Cell, path+"/cell", name, c.GoBackwards, depth)
		}
	}
	return nil
}

// planBoth is a Bidirectional of one of the recurrent layers.
func planBoth(c *settings, path, name string) []spec {
	if c.Layer == nil || !slices.Contains([]string{"LSTM", "GRU", "SimpleRNN"}, c.Layer.Class) {
		return nil
	}
	inner := c.Layer.settings()
	if inner == nil {
		return nil
	}
	refuse := func(why string) []spec { return []spec{{name: name, class: "Bidirectional", refused: why}} }
	if b := c.Backward; b != nil {
		if back := b.settings(); back == nil || b.Class != c.Layer.Class || !sameEquations(back, inner) {
			return refuse("its two directions are layers of different kinds or activations")
		}
	}
	if inner.GoBackwards {
		return refuse("its first direction reads backwards (go_backwards)")
	}
	s := spec{name: name, class: c.Layer.Class, paths: []string{path + "/forward_layer/cell", path + "/backward_layer/cell"}, settings: *inner}
	s.settings.Merge = c.Merge
	return []spec{s}
}

// sameEquations reports whether two configurations have the same equations.
func sameEquations(a, b *settings) bool {
	return activationName(a.Activation) == activationName(b.Activation) &&
		activationName(a.RecurrentActivation) == activationName(b.RecurrentActivation) && on(a.ResetAfter) == on(b.ResetAfter)
}

// planCells returns the cell of an RNN, or several stacked ones.
func planCells(cell *object, path, name string, backwards bool, depth int) []spec {
	c := cell.settings()
	if c == nil || depth > maxNesting {
		return nil
	}
	if cell.Class == "StackedRNNCells" {
		var list []spec
		used := map[string]int{}
		for i := range c.Cells {
			place := joined("/", path, "cells", unique(snake(c.Cells[i].Class), used))
			list = append(list, planCells(&c.Cells[i], place, joined(".", name, strconv.Itoa(i)), backwards, depth+1)...)
		}
		return list
	}
	class, ok := strings.CutSuffix(cell.Class, "Cell")
	if !ok || !slices.Contains([]string{"LSTM", "GRU", "SimpleRNN"}, class) {
		return nil
	}
	s := spec{name: name, class: class, paths: []string{path}, settings: *c}
	s.settings.GoBackwards = backwards
	return []spec{s}
}

// snakes are the expressions by which Keras derives names of groups from class
// names.
var snakes = []*regexp.Regexp{regexp.MustCompile(`(.)([A-Z][a-z]+)`), regexp.MustCompile(`([a-z])([A-Z])`)}

func snake(class string) string {
	for _, r := range snakes {
		class = r.ReplaceAllString(class, "${1}_${2}")
	}
	return strings.ToLower(class)
}

// unique numbers repeated names: dense, dense_1.
func unique(name string, used map[string]int) string {
	n, again := used[name]
	if !again {
		used[name] = 0
		return name
	}
	used[name] = n + 1
	return fmt.Sprintf("%s_%d", name, n+1)
}

// joined joins the parts that are not empty.
func joined(by string, parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), by)
}

// numbered matches the suffix of a repeated name.
var numbered = regexp.MustCompile(`_\d+$`)

// classes by the names of their groups.
var classes = map[string]string{
	"lstm": "LSTM", "gru": "GRU", "simple_rnn": "SimpleRNN", "lstm_cell": "LSTM", "gru_cell": "GRU", "simple_rnn_cell": "SimpleRNN",
	"dense": "Dense", "embedding": "Embedding", "layer_normalization": "LayerNormalization",
}

// classOf gives the classes of the kinds that a user may name.
var classOf = map[model.Kind]string{
	model.LSTM: "LSTM", model.GRU: "GRU", model.RNNTanh: "SimpleRNN", model.RNNReLU: "SimpleRNN",
	model.Linear: "Dense", model.Embedding: "Embedding", model.LayerNorm: "LayerNormalization",
}

// guess infers the layers from the names and shapes of the groups of a file.
func guess(found map[string]*owner, order []string, hints map[string]model.Kind) []spec {
	var list []spec
	for _, path := range order {
		if strings.Contains(path, "backward_layer") {
			if _, ok := found[strings.Replace(path, "backward_layer", "forward_layer", 1)]; ok {
				continue
			}
		}
		s := spec{paths: []string{path}, guessed: true}
		var names []string
		recurrent := false
		for _, part := range strings.Split(path, "/") {
			switch part {
			case "layers", "layer", "cells", "forward_layer", "backward_layer":
			case "cell":
				recurrent = true
			default:
				names = append(names, part)
			}
		}
		s.name = strings.Join(names, ".")
		if len(names) > 0 {
			s.class = classes[numbered.ReplaceAllString(names[len(names)-1], "")]
		}
		o := found[path]
		if recurrent && (s.class == "" || s.class == "Dense") {
			s.class = recurrentClass(o)
		}
		if s.class == "" && len(o.vars) == 2 && rank(o, 0) == 2 && rank(o, 1) == 1 {
			s.class = "Dense"
		}
		if s.class == "LayerNormalization" && len(o.vars) == 1 {
			s.class = "" // the file does not say which of its vectors it is
		}
		if s.hint = hints[s.name]; s.hint != "" {
			s.class = classOf[s.hint]
		}
		if back := strings.Replace(path, "forward_layer", "backward_layer", 1); back != path && found[back] != nil {
			s.paths = append(s.paths, back)
		}
		if s.class != "" {
			list = append(list, s)
		}
	}
	return list
}

func rank(o *owner, i int) int {
	if i >= len(o.vars) || o.vars[i] == nil {
		return -1
	}
	return len(o.vars[i].dims)
}

// recurrentClass determines a cell from the number of gates per unit.
func recurrentClass(o *owner) string {
	if rank(o, 1) != 2 {
		return ""
	}
	switch d := o.vars[1].dims; {
	case d[0] > 0 && d[1] == 4*d[0]:
		return "LSTM"
	case d[0] > 0 && d[1] == 3*d[0]:
		return "GRU"
	case d[0] == d[1]:
		return "SimpleRNN"
	}
	return ""
}
