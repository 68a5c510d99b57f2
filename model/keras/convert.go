package keras

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/model"
)

// converter turns the arrays of a file into layers.
type converter struct {
	w       *Weights
	h       *hdf5
	legacy  *legacy // nil: the layout of Keras 3
	hints   map[string]model.Kind
	found   map[string]*owner
	used    map[string]bool // owners that became layers
	tensors []model.Tensor
}

// array is the content of a dataset.
type array struct {
	path string
	dims []int
	data []float32
}

// layer is a layer in Keras's terms, for its equations.
type layer struct {
	desc   *model.Layer // set when all are known
	class  string
	arrays [][]*array // by direction: kernel, recurrent kernel, bias (nil: none); kernel, bias; table; gamma, beta
	cudnn  bool       // they were in cuDNN's layout
	scale  bool       // a LayerNormalization has gamma
	center bool       // and beta
}

func (c *converter) convert(h *hdf5, config *object) error {
	c.h = h
	var order []string
	var strays []*dataset
	var err error
	if c.legacy, err = readLegacy(h); err != nil {
		return err
	}
	if c.legacy != nil {
		config, c.w.keras2 = c.legacy.config, c.legacy.keras2()
		c.found, order, strays, err = c.legacy.owners(h)
	} else {
		c.found, order, strays = owners(h.list)
		order = slices.DeleteFunc(order, func(path string) bool { return path == "optimizer" || strings.HasPrefix(path, "optimizer/") })
	}
	if err != nil {
		return err
	}
	var plan []spec
	own := config != nil && config.settings() == nil // a class of the user's own says nothing of its layers
	switch {
	case config != nil && !own:
		plan = planLayer(config, "", "", 0)
		if c.legacy != nil {
			c.legacy.place(plan, c.found, order)
		}
		plan = slices.DeleteFunc(plan, func(s spec) bool { return c.hints[s.name] == model.Other })
	case c.legacy != nil:
		plan = c.legacy.guess(c.found, order)
	default:
		plan = guess(c.found, order)
	}
	if config == nil || own {
		plan = c.hinted(plan)
	}
	if err := c.checkHints(plan); err != nil {
		return err
	}
	var layers []model.Layer
	for i := range plan {
		if why := plan[i].refused; why != "" {
			c.note("layer %s: %s, which is not supported: its arrays are kept unchanged", plan[i].name, why)
			continue
		}
		l, err := c.add(&plan[i])
		if err != nil {
			return err
		}
		if l != nil {
			layers = append(layers, *l)
		}
	}
	c.w.Arch.Layers = layers
	for i := range layers {
		c.w.layers[i].desc = &c.w.Arch.Layers[i]
	}
	if slices.ContainsFunc(plan, func(s spec) bool { return s.guessed && s.class != "Dense" && s.class != "Embedding" }) {
		fix := "a .keras file records them"
		if c.legacy != nil {
			fix = "the file of a whole model, by model.save, records them"
		}
		if config != nil {
			fix = "its model is a class of its own, " + config.Class
		}
		c.note("the file does not record the activations and epsilons of its layers: Keras's defaults (tanh, sigmoid, 0.001) are assumed; %s", fix)
	}
	return c.rest(order, strays)
}

// checkHints returns an error for a hint that names no layer, or one that the
// configuration already determines.
func (c *converter) checkHints(plan []spec) error {
	for _, name := range slices.Sorted(maps.Keys(c.hints)) {
		kind := c.hints[name]
		i := slices.IndexFunc(plan, func(s spec) bool { return s.name == name })
		switch {
		case kind == model.Other || i >= 0 && plan[i].guessed:
		case i >= 0:
			return fmt.Errorf("layer %q is a %s by the file's configuration, so --layer does not apply", name, plan[i].class)
		default:
			return fmt.Errorf("has no layer %q, for which the kind %s was given", name, kind)
		}
	}
	return nil
}

func (c *converter) note(format string, args ...any) {
	c.w.Notes = append(c.w.Notes, fmt.Sprintf(format, args...))
}

// rest keeps the arrays that belong to no layer.
func (c *converter) rest(order []string, strays []*dataset) error {
	for _, path := range order {
		if !c.used[path] {
			strays = append(strays, c.found[path].vars...)
		}
	}
	for _, d := range strays {
		if d == nil || d.float == nil {
			continue // counters and seeds
		}
		a, err := c.read(d)
		if err != nil {
			return err
		}
		name := strings.ReplaceAll(c.legacy.plain(d.path), "/", ".")
		c.tensors = append(c.tensors, model.Tensor{Name: name, Dims: a.dims, Data: a.data})
		c.w.Arch.Other = append(c.w.Arch.Other, name)
	}
	return nil
}

func (c *converter) read(d *dataset) (*array, error) {
	data, err := c.h.read(d)
	if err != nil {
		return nil, &model.FileError{Tensor: d.path, Problem: err.Error(), Err: err}
	}
	return &array{d.path, d.dims, data}, nil
}

// take reads the arrays of an owner: at least least of them, at most most.
func (c *converter) take(s *spec, path string, least, most int) ([]*array, error) {
	o := c.found[path]
	n := 0
	if o != nil {
		n = len(o.vars)
	}
	if n < least || n > most || n > 0 && slices.Contains(o.vars, nil) {
		return nil, &model.FileError{Tensor: path, Problem: fmt.Sprintf("layer %q is a %s: expected %s, got %d", s.name, s.class, counts(least, most), n), Fix: c.otherwise(s)}
	}
	var list []*array
	for _, d := range o.vars {
		if d.float == nil {
			return nil, &model.FileError{Tensor: d.path, Problem: fmt.Sprintf("layer %q: expected floating-point numbers, as of a model that is not quantized", s.name), Fix: c.otherwise(s)}
		}
		a, err := c.read(d)
		if err != nil {
			return nil, err
		}
		list = append(list, a)
	}
	return list, nil
}

// otherwise returns how to continue without a layer.
func (c *converter) otherwise(s *spec) string {
	return fmt.Sprintf("to keep its arrays unchanged, use --layer %s=%s", s.name, model.Other)
}

func counts(least, most int) string {
	if least == most {
		return fmt.Sprintf("%d arrays", least)
	}
	return fmt.Sprintf("%d to %d arrays", least, most)
}

// want compares an array's shape with the expected one.
func (s *spec) want(a *array, dims ...int) error {
	if slices.Equal(a.dims, dims) {
		return nil
	}
	return &model.FileError{Tensor: a.path, Problem: fmt.Sprintf("layer %q is a %s: expected shape %v, got %v", s.name, s.class, dims, a.dims)}
}

// wantElements compares the first array's rank with the expected one.
func (s *spec) wantElements(a *array, rank int) error {
	if len(a.dims) == rank && len(a.data) > 0 {
		return nil
	}
	return &model.FileError{Tensor: a.path, Problem: fmt.Sprintf("layer %q is a %s: expected %d dimensions with elements, got shape %v", s.name, s.class, rank, a.dims)}
}

// add converts a layer; nil if its arrays are kept unchanged.
func (c *converter) add(s *spec) (*model.Layer, error) {
	l := &model.Layer{Name: s.name}
	var arrays [][]*array
	var err error
	switch s.class {
	case "Dense":
		arrays, err = c.dense(s, l)
	case "Embedding":
		arrays, err = c.embedding(s, l)
	case "LayerNormalization":
		arrays, err = c.norm(s, l)
	default:
		if !c.equations(s, l) {
			return nil, nil
		}
		arrays, err = c.recurrent(s, l)
	}
	if err != nil || arrays == nil {
		return nil, err
	}
	for _, path := range s.paths {
		c.used[path] = true
	}
	c.after(s, l)
	c.w.layers = append(c.w.layers, &layer{class: s.class, arrays: arrays, cudnn: s.cudnn, scale: on(s.settings.Scale), center: on(s.settings.Center)})
	return l, nil
}

// after records what the configuration says of the layer's output.
func (c *converter) after(s *spec, l *model.Layer) {
	a := model.After{LastStep: l.Kind.Recurrent() && !s.guessed && !s.settings.Sequences, Backwards: l.Kind.Recurrent() && s.settings.GoBackwards && len(s.paths) == 1}
	if l.Kind == model.Linear {
		a.Activation = activationName(s.settings.Activation)
	}
	if a == (model.After{}) {
		return
	}
	if c.w.After == nil {
		c.w.After = map[string]model.After{}
	}
	c.w.After[s.name] = a
}

func (c *converter) put(l *model.Layer, base string, data []float32, dims ...int) {
	c.tensors = append(c.tensors, model.Tensor{Name: l.Full(base), Dims: dims, Data: data})
}

func (c *converter) dense(s *spec, l *model.Layer) ([][]*array, error) {
	a, err := c.take(s, s.paths[0], 1, 2)
	if err != nil {
		return nil, err
	}
	if err := s.wantElements(a[0], 2); err != nil {
		return nil, err
	}
	l.Kind, l.Input, l.Output, l.Bias = model.Linear, a[0].dims[0], a[0].dims[1], len(a) == 2
	c.put(l, "weight", turned(a[0], []int{0}), l.Output, l.Input)
	if l.Bias {
		if err := s.want(a[1], l.Output); err != nil {
			return nil, err
		}
		c.put(l, "bias", a[1].data, l.Output)
	}
	if name := activationName(s.settings.Activation); name != "" && name != "linear" {
		c.note("layer %s: its activation, %s, follows it and is not part of the weights", s.name, name)
	}
	return [][]*array{a}, nil
}

func (c *converter) embedding(s *spec, l *model.Layer) ([][]*array, error) {
	a, err := c.take(s, s.paths[0], 1, 1)
	if err != nil {
		return nil, err
	}
	if err := s.wantElements(a[0], 2); err != nil {
		return nil, err
	}
	l.Kind, l.Input, l.Output = model.Embedding, a[0].dims[0], a[0].dims[1]
	c.put(l, "weight", a[0].data, l.Input, l.Output)
	if s.settings.MaskZero {
		c.note("layer %s: the id 0 is padding (mask_zero); here rows have lengths instead", s.name)
	}
	return [][]*array{a}, nil
}

// on is a setting that is true unless set otherwise.
func on(b *bool) bool { return b == nil || *b }

func (c *converter) norm(s *spec, l *model.Layer) ([][]*array, error) {
	cfg := &s.settings
	if cfg.RMS || !s.overLast() {
		c.note("layer %s: a layer normalisation over other dimensions than the last, or by the root mean square alone, is not supported: its arrays are kept unchanged", s.name)
		return nil, nil
	}
	scale, center := on(cfg.Scale), on(cfg.Center)
	n := 2
	switch {
	case !scale && !center:
		return nil, nil
	case !scale || !center:
		n = 1
	}
	got, err := c.take(s, s.paths[0], n, n)
	if err != nil {
		return nil, err
	}
	if err := s.wantElements(got[0], 1); err != nil {
		return nil, err
	}
	width := got[0].dims[0]
	if err := s.want(got[n-1], width); err != nil {
		return nil, err
	}
	l.Kind, l.Input, l.Output, l.Bias, l.Eps = model.LayerNorm, width, width, true, 1e-3
	if cfg.Epsilon != nil {
		l.Eps = *cfg.Epsilon
	}
	if !(l.Eps > 0 && l.Eps < 1) {
		return nil, fmt.Errorf("layer %q: expected an epsilon between 0 and 1, got %v", s.name, l.Eps)
	}
	gamma, beta := &array{dims: []int{width}, data: slices.Repeat([]float32{1}, width)}, &array{dims: []int{width}, data: make([]float32, width)}
	if scale {
		gamma = got[0]
	}
	if center {
		beta = got[n-1]
	}
	c.put(l, "weight", gamma.data, width)
	c.put(l, "bias", beta.data, width)
	return [][]*array{{gamma, beta}}, nil
}

// overLast reports whether a LayerNormalization normalises over the last
// dimension alone: its axis is -1, or the last of the input that it was built for.
func (s *spec) overLast() bool {
	axis, ok := s.settings.Axis.(float64)
	if axes, list := s.settings.Axis.([]any); list {
		if len(axes) != 1 {
			return false
		}
		axis, ok = axes[0].(float64)
	}
	return !ok || axis == -1 || s.rank > 0 && int(axis) == s.rank-1
}

// turned is aᵀ, its rows in blocks of gates in the given order.
func turned(a *array, order []int) []float32 {
	rows, cols := a.dims[0], a.dims[1]
	block := cols / len(order)
	out := make([]float32, 0, len(a.data))
	for _, from := range order {
		for j := from * block; j < (from+1)*block; j++ {
			for i := range rows {
				out = append(out, a.data[i*cols+j])
			}
		}
	}
	return out
}
