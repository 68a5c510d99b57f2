package keras

import (
	"cmp"
	"encoding/json"
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
	refused  string   // why its arrays are kept unchanged; "": they are converted
	chain    []string // names of the models around it, without the whole model, and its own
	frozen   bool     // it is not trained
	cudnn    bool     // its arrays are in the layout of cuDNN
}

// owner is a group that owns arrays.
type owner struct {
	path  string
	vars  []*dataset // by number
	layer string     // of the whole model, in the layout of Keras 2
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
	ranks := c.ranks()
	for i := range c.Layers {
		l := &c.Layers[i]
		place := unique(snake(l.Class), used)
		own, frozen := place, false
		if s := l.settings(); s != nil {
			own, frozen = cmp.Or(s.Name, place), !on(s.Trainable)
		}
		for _, s := range planLayer(l, joined("/", path, "layers", place), joined(".", name, own), depth+1) {
			s.chain = append([]string{own}, s.chain...)
			s.frozen = s.frozen || frozen
			s.rank = cmp.Or(s.rank, ranks[i])
			list = append(list, s)
		}
	}
	return list
}

// ranks follows the ranks of the layers' inputs through a model; 0: unknown. The
// configurations of Keras 2 do not record them.
func (c *settings) ranks() []int {
	in := make([]int, len(c.Layers))
	out := map[string]int{} // by the layer's name
	last := 0
	for i := range c.Layers {
		l := &c.Layers[i]
		s := l.settings()
		if s == nil {
			last = 0
			continue
		}
		in[i] = last
		if len(l.Inbound) > 0 && string(l.Inbound) != "[]" {
			in[i] = out[firstText(l.Inbound)]
		}
		if shape := max(len(s.BatchInputShape), len(s.BatchShape)); shape > 0 {
			in[i] = shape
		}
		last = s.rankOf(l.Class, in[i])
		out[s.Name] = last
	}
	return in
}

// rankOf is the rank of a layer's output.
func (c *settings) rankOf(class string, in int) int {
	switch class {
	case "Bidirectional":
		if c.Layer != nil && c.Layer.Class != class {
			if inner := c.Layer.settings(); inner != nil {
				return inner.rankOf(c.Layer.Class, in)
			}
		}
	case "LSTM", "GRU", "SimpleRNN", "RNN", "CuDNNLSTM", "CuDNNGRU":
		if c.Sequences {
			return 3
		}
		return 2
	case "Embedding":
		if in > 0 {
			return in + 1
		}
	case "InputLayer", "Dense", "LayerNormalization", "BatchNormalization", "TimeDistributed", "Masking", "Activation",
		"Dropout", "SpatialDropout1D", "GaussianDropout", "GaussianNoise", "Add", "Concatenate", "LeakyReLU", "ReLU":
		return in
	}
	return 0
}

// firstText is the first text in nested lists: of inbound_nodes, the layer that
// an input comes from.
func firstText(raw json.RawMessage) string {
	var v any
	if json.Unmarshal(raw, &v) != nil {
		return ""
	}
	for {
		switch w := v.(type) {
		case string:
			return w
		case []any:
			if len(w) == 0 {
				return ""
			}
			v = w[0]
		default:
			return ""
		}
	}
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
	case "LSTM", "GRU", "SimpleRNN", "CuDNNLSTM", "CuDNNGRU":
		s := spec{name: name, class: l.Class, paths: []string{path + "/cell"}, settings: *c}
		s.cuDNN()
		return []spec{s}
	case "Dense", "Embedding", "LayerNormalization":
		s := spec{name: name, class: l.Class, paths: []string{path}, settings: *c, rank: l.rank()}
		if l.Class == "LayerNormalization" && !on(c.Scale) && !on(c.Center) {
			s.paths = nil
		}
		return []spec{s}
	case "TimeDistributed":
		if c.Layer != nil {
			return planLayer(c.Layer, path+"/layer", name, depth+1)
		}
	case "Bidirectional":
		return planBoth(c, path, name, depth)
	case "RNN":
		if c.Cell != nil {
			return planCells(c.Cell, path+"/cell", name, c.GoBackwards, depth)
		}
	}
	return nil
}

// cuDNN turns Keras 2's CuDNNLSTM and CuDNNGRU into the layers whose equations
// they have; the configuration of these has neither activations nor biases to
// choose.
func (s *spec) cuDNN() {
	class, ok := strings.CutPrefix(s.class, "CuDNN")
	if !ok {
		return
	}
	after := true
	s.class, s.cudnn = class, true
	s.settings.Activation, s.settings.RecurrentActivation, s.settings.ResetAfter = "tanh", "sigmoid", &after
}

// planBoth is a Bidirectional of one of the recurrent layers.
func planBoth(c *settings, path, name string, depth int) []spec {
	if c.Layer == nil {
		return nil
	}
	recurrent := planLayer(c.Layer, path+"/forward_layer", name, depth+1)
	if len(recurrent) != 1 || !slices.Contains([]string{"LSTM", "GRU", "SimpleRNN"}, recurrent[0].class) {
		return nil
	}
	s := recurrent[0]
	s.paths = append(s.paths, path+"/backward_layer/cell")
	inner := &s.settings
	refuse := func(why string) []spec {
		s.class, s.refused = "Bidirectional", why
		return []spec{s}
	}
	if b := c.Backward; b != nil {
		if back := b.settings(); back == nil || b.Class != c.Layer.Class || !sameEquations(back, inner) {
			return refuse("its two directions are layers of different kinds or activations")
		}
	}
	if inner.GoBackwards {
		return refuse("its first direction reads backwards (go_backwards)")
	}
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
func guess(found map[string]*owner, order []string) []spec {
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
		if back := strings.Replace(path, "forward_layer", "backward_layer", 1); back != path && found[back] != nil {
			s.paths = append(s.paths, back)
		}
		list = append(list, s)
	}
	return list
}

// hinted applies the user's kinds to layers that were guessed, and leaves out
// those whose kind is still unknown.
func (c *converter) hinted(plan []spec) []spec {
	for i := range plan {
		s := &plan[i]
		if s.hint = c.hints[s.name]; s.hint != "" {
			s.class = classOf[s.hint]
		}
	}
	return slices.DeleteFunc(plan, func(s spec) bool { return s.class == "" })
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
