package network

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/model"
)

// Draft writes a description of a network for a user to edit: its layers in the order
// of the file, one after the other. after, by layer, may be nil. What weights do not
// say is marked as assumed in comments. problems lists, a sentence each, what keeps
// the description from being run as it is: layers whose sizes do not fit what is
// before them. A text with problems is a draft too, and [Parse] refuses it with the
// same reasons.
func Draft(source string, arch *model.Architecture, file *model.File, after map[string]model.After) (text string, problems []string) {
	d := &drafter{b: newBuilder(File, file), known: map[string]*model.Layer{}, after: after}
	for i := range arch.Layers {
		d.known[arch.Layers[i].Name] = &arch.Layers[i]
	}
	var prefixes []string
	for _, t := range file.Tensors {
		if p := before(t.Name); !slices.Contains(prefixes, p) {
			prefixes = append(prefixes, p)
		}
	}
	for _, p := range prefixes {
		d.group(p)
	}
	var s strings.Builder
	fmt.Fprintf(&s, "# The network of the weights of %s, for carousel run and carousel export.\n", strings.Map(printable, source))
	s.WriteString(`# Weights do not say how layers are connected, nor what lies between them that has no
# weights: activations, pools, transpositions. This is the chain in the order of the file.
# Edit it: docs/exchange.md lists the kinds of layers and their keys.
inputs:
`)
	if d.in == "" {
		d.in = "  x: [batch, time, 1]\n"
		d.problem("no layer of a known kind is in the file")
	}
	s.WriteString(d.in + "layers:\n" + d.text.String())
	return s.String(), d.problems
}

func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return ' '
	}
	return r
}

type drafter struct {
	b        *builder
	known    map[string]*model.Layer
	after    map[string]model.After
	in       string // the line of the input
	text     strings.Builder
	problems []string
	made     int
}

func (d *drafter) problem(text string) { d.problems = append(d.problems, text) }

// entry writes a layer and adds it to the graph; a layer that does not fit is a
// problem.
func (d *drafter) entry(l *layer, comment, assumed string) {
	l.options["name"], l.options["kind"] = option{texts: []string{l.name}}, option{texts: []string{l.kind}}
	if assumed != "" {
		fmt.Fprintf(&d.text, "  # assumed: %s\n", assumed)
	}
	fmt.Fprintf(&d.text, "  - name: %s", quoted(l.name))
	if comment != "" {
		fmt.Fprintf(&d.text, " # %s", comment)
	}
	fmt.Fprintf(&d.text, "\n    kind: %s\n", l.kind)
	for _, key := range []string{"from", "weights", "order", "over", "size", "eps", "reset_before", "gate_activation", "activation"} {
		if o, ok := l.options[key]; ok && o.list {
			fmt.Fprintf(&d.text, "    %s: [%s]\n", key, strings.Join(o.texts, ", "))
		} else if ok {
			fmt.Fprintf(&d.text, "    %s: %s\n", key, quoted(o.texts[0]))
		}
	}
	if err := d.b.layer(l); err != nil {
		why := strings.TrimPrefix(err.Error(), File+":0: ")
		d.problem(why)
		fmt.Fprintf(&d.text, "    # does not fit: %s\n", strings.Map(printable, why))
		d.b.define(l.name, 0, &value{name: l.name, dims: d.guess(l)})
	}
}

// guess is the shape of the output of a layer whose input does not fit.
func (d *drafter) guess(l *layer) []any {
	prefix := l.name
	if o, ok := l.options["weights"]; ok {
		prefix = o.texts[0]
	}
	size := any("size")
	if k := d.known[prefix]; k != nil {
		size = k.Output
	} else if t := d.b.file.Lookup(prefixed(prefix, "weight")); t != nil && len(t.Dims) > 2 {
		return append([]any{"batch", t.Dims[0]}, []any{"height", "width"}[4-len(t.Dims):]...)
	}
	return []any{"batch", "time", size}
}

// plain are texts that YAML reads as they are, as text.
var plain = regexp.MustCompile(`^\w[\w.-]*$`)

func quoted(s string) string {
	if plain.MatchString(s) && !slices.Contains([]string{"null", "yes", "no", "on", "off", "y", "n"}, strings.ToLower(s)) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", "''") + "'"
}

// name makes a layer's name of a prefix, one that is not used yet.
func (d *drafter) name(prefix string) string {
	name := regexp.MustCompile(`[^\w.-]+`).ReplaceAllString(prefix, "_")
	if name == "" {
		name = "layer"
	}
	name = name[:min(len(name), 150)]
	for base := name; d.b.values[name] != nil; {
		d.made++
		name = fmt.Sprintf("%s_%d", base, d.made+1)
	}
	return name
}

// group drafts the layer of the tensors with one prefix.
func (d *drafter) group(prefix string) {
	var tensors []*model.Tensor
	for i := range d.b.file.Tensors {
		if t := &d.b.file.Tensors[i]; before(t.Name) == prefix {
			tensors = append(tensors, t)
		}
	}
	kind, takes, comment := d.kind(prefix, tensors)
	if kind == "" {
		for _, t := range tensors {
			fmt.Fprintf(&d.text, "  # not part of it: tensor %s of shape %v\n", strings.Map(printable, t.Name), t.Dims)
		}
		return
	}
	if d.in == "" {
		d.input(kind, takes)
	}
	d.turn(kind, takes)
	if d.after[prefix].Backwards {
		d.made++
		d.entry(&layer{name: fmt.Sprintf("reverse_%d", d.made), kind: "reverse", options: map[string]option{}}, "go_backwards is true", "")
	}
	l := &layer{name: d.name(prefix), kind: kind, options: map[string]option{}}
	if l.name != prefix {
		l.options["weights"] = option{texts: []string{prefix}}
	}
	k := d.known[prefix]
	if k != nil {
		set := func(key, text string) {
			if text != "" {
				l.options[key] = option{texts: []string{text}}
			}
		}
		if k.Eps != 0 {
			set("eps", fmt.Sprint(k.Eps))
		}
		if k.ResetBefore {
			set("reset_before", "true")
		}
		set("gate_activation", k.GateActivation)
		set("activation", k.Activation)
	}
	assumed := ""
	if k != nil && k.Kind == model.Linear && d.recurrentBefore() {
		assumed = "at every step; for one answer to a row, put a layer of kind pool_time before it"
	}
	d.entry(l, comment, assumed)
	a := d.after[prefix]
	if a.LastStep {
		d.entry(&layer{name: d.name(l.name + ".final"), kind: "pool_time", options: map[string]option{"over": {texts: []string{"final"}}}}, "return_sequences is false", "")
	}
	if a.Activation != "" && a.Activation != "linear" {
		if _, ok := kinds[a.Activation]; !ok {
			d.problem(fmt.Sprintf("layer %s: its activation %s is not of a known kind", l.name, a.Activation))
			fmt.Fprintf(&d.text, "  # its activation, %s, is not of a known kind\n", strings.Map(printable, a.Activation))
			return
		}
		d.entry(&layer{name: d.name(l.name + "." + a.Activation), kind: a.Activation, options: map[string]option{}}, "", "")
	}
}

func (d *drafter) recurrentBefore() bool { return d.last() != nil && d.last().final != "" }

func (d *drafter) last() *value {
	if len(d.b.order) == 0 {
		return nil
	}
	return d.b.values[d.b.order[len(d.b.order)-1]]
}

// kind recognises the tensors of a prefix: the kind, the features or channels that it
// takes and a description.
func (d *drafter) kind(prefix string, tensors []*model.Tensor) (kind string, takes int, comment string) {
	if l := d.known[prefix]; l != nil {
		return string(l.Kind), l.Input, l.String()
	}
	has := map[string]*model.Tensor{}
	for _, t := range tensors {
		has[t.Name[strings.LastIndexByte(t.Name, '.')+1:]] = t
	}
	w := has["weight"]
	rest := len(has) - 1
	if has["bias"] != nil {
		rest--
	}
	switch {
	case w == nil || w.Ints != nil:
	case len(w.Dims) == 3 && rest == 0:
		return "conv1d", w.Dims[1], fmt.Sprintf("conv1d, %d -> %d, size %d", w.Dims[1], w.Dims[0], w.Dims[2])
	case len(w.Dims) == 4 && rest == 0:
		return "conv2d", w.Dims[1], fmt.Sprintf("conv2d, %d -> %d, size %d x %d", w.Dims[1], w.Dims[0], w.Dims[2], w.Dims[3])
	case len(w.Dims) == 1 && has["bias"] != nil && has["running_mean"] != nil && has["running_var"] != nil:
		return "batch_norm", w.Dims[0], fmt.Sprintf("batch norm, %d", w.Dims[0])
	}
	return "", 0, ""
}

// input declares the input of the first layer.
func (d *drafter) input(kind string, takes int) {
	in := input{name: "x", dims: []any{"batch", "time", takes}}
	switch kind {
	case "embedding":
		in = input{name: "ids", dims: []any{"batch", "time"}}
	case "conv1d", "batch_norm":
		in.dims = []any{"batch", takes, "time"}
	case "conv2d":
		in.dims = []any{"batch", takes, "height", "width"}
	}
	d.b.input(in)
	d.in = fmt.Sprintf("  %s: %s\n", in.name, d.last().shape())
}

// turn puts a transposition before a layer whose features are in another dimension.
func (d *drafter) turn(kind string, takes int) {
	v := d.last()
	if len(v.dims) != 3 {
		return
	}
	channels := kind == "conv1d" || kind == "batch_norm"
	if channels && v.dims[1] != takes && v.dims[2] == takes || !channels && v.dims[2] != takes && v.dims[1] == takes {
		d.made++
		d.entry(&layer{name: fmt.Sprintf("transpose_%d", d.made), kind: "transpose", options: map[string]option{"order": {texts: []string{"0", "2", "1"}, list: true}}}, "", "features and steps change places")
	}
}
