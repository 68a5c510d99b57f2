package network

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/model/onnx"
	"github.com/carousel-ml/carousel/model/onnx/graph"
	"github.com/carousel-ml/carousel/model/torch"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// spec is a kind of layer: its keys besides name, kind and from, and how it becomes
// nodes.
type spec struct {
	keys    []string
	several bool // it reads several values
	add     func(n *node) (*value, error)
}

// kinds has every kind of layer; init adds those that are one operator alone.
var kinds map[string]spec

// elementwise are kinds that apply a function to each element: ONNX's operators.
var elementwise = map[string]string{
	"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid", "elu": "Elu", "selu": "Selu", "softplus": "Softplus", "softsign": "Softsign",
	"abs": "Abs", "exp": "Exp", "log": "Log", "sqrt": "Sqrt",
}

func init() {
	kinds = map[string]spec{
		"embedding":    {keys: []string{"weights"}, add: addEmbedding},
		"linear":       {keys: []string{"weights"}, add: addLinear},
		"layer_norm":   {keys: []string{"weights", "eps"}, add: addLayerNorm},
		"batch_norm":   {keys: []string{"weights", "eps"}, add: addBatchNorm},
		"conv1d":       {keys: []string{"weights", "stride", "padding", "dilation", "groups"}, add: addConv},
		"conv2d":       {keys: []string{"weights", "stride", "padding", "dilation", "groups"}, add: addConv},
		"max_pool":     {keys: []string{"size", "stride", "padding"}, add: addPool},
		"average_pool": {keys: []string{"size", "stride", "padding"}, add: addPool},
		"pool_time":    {keys: []string{"over"}, add: addPoolTime},
		"leaky_relu":   {keys: []string{"slope"}, add: addLeaky},
		"hard_sigmoid": {add: addHardSigmoid},
		"softmax":      {keys: []string{"axis"}, add: addSoftmax},
		"log_softmax":  {keys: []string{"axis"}, add: addSoftmax},
		"l2_norm":      {keys: []string{"axis"}, add: addL2},
		"mean":         {keys: []string{"axis"}, add: addReduce},
		"max":          {keys: []string{"axis"}, add: addReduce},
		"dropout":      {add: func(n *node) (*value, error) { return n.x[0].like(n.x[0].name, n.x[0].last()), nil }},
		"add":          {several: true, add: addBroadcast},
		"multiply":     {several: true, add: addBroadcast},
		"concat":       {several: true, keys: []string{"axis"}, add: addConcat},
		"transpose":    {keys: []string{"order"}, add: addTranspose},
		"reshape":      {keys: []string{"shape"}, add: addReshape},
		"squeeze":      {keys: []string{"axis"}, add: addSqueeze},
		"unsqueeze":    {keys: []string{"axis"}, add: addUnsqueeze},
		"slice":        {keys: []string{"axis", "start", "end"}, add: addSlice},
		"reverse":      {keys: []string{"axis"}, add: addReverse},
		"select":       {keys: []string{"axis", "index"}, add: addSelect},
		"pad":          {keys: []string{"mode", "left", "right"}, add: addPad},
	}
	for name, op := range elementwise {
		kinds[name] = spec{add: func(n *node) (*value, error) { return n.same(op), nil }}
	}
	for _, k := range model.Kinds {
		if k.Recurrent() {
			kinds[string(k)] = spec{keys: []string{"weights", "batch_first", "state", "reset_before", "gate_activation", "activation"}, add: addRecurrent}
		}
	}
}

func kindNames() []string { return slices.Sorted(maps.Keys(kinds)) }

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

// same is an operator that keeps the shape.
func (n *node) same(op string, attrs ...graph.Attr) *value {
	return n.x[0].like(n.b.g.Op(op, []string{n.x[0].name}, attrs...), n.x[0].last())
}

func attr(name string, v any) graph.Attr { return graph.Attr{Name: name, Value: v} }

// module makes the layer of package nn that the weights are of; change may set what
// weights do not say.
func (n *node) module(change func(l *model.Layer)) (any, *model.Layer, error) {
	prefix, list, err := n.tensors()
	if err != nil {
		return nil, nil, err
	}
	line := n.line
	if o, ok := n.options["weights"]; ok {
		line = o.line
	}
	file, err := model.NewFile(n.b.path, list, nil)
	if err != nil {
		return nil, nil, fileProblem(n.b.path, line, err)
	}
	arch, err := torch.Describe(file, map[string]model.Kind{prefix: model.Kind(n.kind)})
	if err != nil {
		return nil, nil, fileProblem(n.b.path, line, err)
	}
	if len(arch.Layers) != 1 || arch.Layers[0].Kind != model.Kind(n.kind) {
		return nil, nil, n.wrong("weights", "the tensors %.100s.* are not those of a layer of kind %s", prefix, n.kind)
	}
	l := &arch.Layers[0]
	if change != nil {
		change(l)
	}
	net, err := model.Build(tensor.CPU(), arch, file)
	if err != nil {
		return nil, nil, fileProblem(n.b.path, line, err)
	}
	return net.Module(l.Name), l, nil
}

func addEmbedding(n *node) (*value, error) {
	m, l, err := n.module(nil)
	if err != nil {
		return nil, err
	}
	table := m.(*nn.Embedding).Weight
	if n.b.vocabulary == 0 || l.Input < n.b.vocabulary {
		n.b.vocabulary = l.Input
	}
	y := n.b.g.Op("Gather", []string{n.b.g.Floats(n.name+"/weight", table.Read(), table.Dims()...), n.x[0].name})
	return &value{name: y, dims: append(slices.Clone(n.x[0].dims), l.Output)}, nil
}

func addLinear(n *node) (*value, error) {
	m, l, err := n.module(nil)
	if err != nil {
		return nil, err
	}
	if err := n.takes(-1, l.Input, "features"); err != nil {
		return nil, err
	}
	return n.x[0].like(onnx.AddLinear(n.b.g, n.name+"/", m.(*nn.Linear), n.x[0].name), l.Output), nil
}

func addLayerNorm(n *node) (*value, error) {
	eps, err := n.number("eps", 1e-5)
	if err != nil {
		return nil, err
	}
	m, l, err := n.module(nil)
	if err != nil {
		return nil, err
	}
	if err := n.takes(-1, l.Input, "features"); err != nil {
		return nil, err
	}
	norm := m.(*nn.LayerNorm)
	in := []string{n.x[0].name, n.b.g.Floats("", norm.Weight.Read(), l.Input), n.b.g.Floats("", norm.Bias.Read(), l.Input)}
	return n.x[0].like(n.b.g.Op("LayerNormalization", in, attr("axis", -1), attr("epsilon", float32(eps))), n.x[0].last()), nil
}

// activation is a key that names one of the engine's activations.
func (n *node) activation(key string) (string, error) {
	o, ok := n.options[key]
	if !ok {
		return "", nil
	}
	if o.list || o.names != nil {
		return "", n.wrong(key, "%s: expected one activation", key)
	}
	if _, ok := cell.ActivationNamed(o.texts[0]); !ok {
		return "", n.wrong(key, "%s: there is no activation %.60q", key, o.texts[0])
	}
	return o.texts[0], nil
}

// addRecurrent reads [batch, time, features], or [batch, features] as one step.
func addRecurrent(n *node) (*value, error) {
	b, g, x := n.b, n.b.g, n.x[0]
	if err := n.rank("[batch, time, features], or one step [batch, features]", 2, 3); err != nil {
		return nil, err
	}
	first, err := n.word("batch_first", "true", "true", "false")
	keep, err2 := n.flag("state")
	before, err3 := n.flag("reset_before")
	gate, err4 := n.activation("gate_activation")
	act, err5 := n.activation("activation")
	if err := cmp.Or(err, err2, err3, err4, err5); err != nil {
		return nil, err
	}
	if before && n.kind != string(model.GRU) {
		return nil, n.wrong("reset_before", "reset_before is of a gru")
	}
	m, l, err := n.module(func(l *model.Layer) { l.ResetBefore, l.GateActivation, l.Activation = before, gate, act })
	if err != nil {
		return nil, err
	}
	if err := n.takes(-1, l.Input, "features"); err != nil {
		return nil, err
	}
	rnn, slots, batch := m.(*nn.RNN), l.Layers*l.Directions(), x.dims[0]
	step, turn := len(x.dims) == 2, first == "true"
	in := onnx.RNNValues{X: x.name}
	switch {
	case step:
		in.X = g.Op("Unsqueeze", []string{x.name, g.Ints("", 0)})
	case turn:
		in.X = g.Op("Transpose", []string{x.name}, attr("perm", []int64{1, 0, 2}))
	default:
		batch = x.dims[1]
	}
	if keep {
		for _, s := range n.states(rnn) {
			for _, name := range []string{s.in, s.out} {
				if b.values[name] != nil || b.states[name] {
					return nil, n.wrong("state", "the name %s is there already", name)
				}
				b.states[name] = true
			}
			g.Input(s.in, "initial state", slots, batch, s.size)
			*s.value(&in) = s.in
		}
	}
	out, err := onnx.AddRNN(g, n.name+"/", rnn, in)
	if err != nil {
		return nil, n.wrong("weights", "%v", err)
	}
	if keep {
		for _, s := range n.states(rnn) {
			g.Node("Identity", []string{*s.value(&out)}, []string{s.out})
			g.Output(s.out, "final state", slots, batch, s.size)
		}
	}
	y := x.like(out.Y, l.Output)
	switch {
	case step:
		y.name = g.Op("Squeeze", []string{out.Y, g.Ints("", 0)})
		return y, nil
	case turn:
		y.name = g.Op("Transpose", []string{out.Y}, attr("perm", []int64{1, 0, 2}))
	}
	y.final = finalState(g, out.H, slots, l.Directions())
	return y, nil
}

// state is a state of a recurrent layer as an input and an output.
type state struct {
	in, out string
	size    int
	value   func(v *onnx.RNNValues) *string
}

func (n *node) states(m *nn.RNN) []state {
	list := []state{{n.name + ".h0", n.name + ".hn", m.StateSize(), func(v *onnx.RNNValues) *string { return &v.H }}}
	if m.CellSize() > 0 {
		list = append(list, state{n.name + ".c0", n.name + ".cn", m.CellSize(), func(v *onnx.RNNValues) *string { return &v.C }})
	}
	return list
}

// finalState joins the last layer's states of both directions: [batch, directions*features].
func finalState(g *graph.Builder, h string, slots, directions int) string {
	if slots > directions {
		h = g.Op("Slice", []string{h, g.Ints("", int64(slots-directions)), g.Ints("", int64(slots)), g.Ints("", 0)})
	}
	h = g.Op("Transpose", []string{h}, attr("perm", []int64{1, 0, 2}))
	return g.Op("Reshape", []string{h, g.Ints("", 0, -1)})
}

// addPoolTime makes one vector of the steps of [batch, time, features].
func addPoolTime(n *node) (*value, error) {
	g, x := n.b.g, n.x[0]
	over, err := n.word("over", "", "last", "final", "max", "mean")
	if err != nil {
		return nil, err
	}
	if err := n.rank("[batch, time, features]", 3); err != nil {
		return nil, err
	}
	y := &value{dims: []any{x.dims[0], x.dims[2]}}
	switch over {
	case "last":
		y.name = g.Op("Gather", []string{x.name, g.Int(-1)}, attr("axis", 1))
	case "final":
		if x.final == "" {
			return nil, n.wrong("over", "over: final is the last state of a recurrent layer; got %s", n.source())
		}
		y.name = x.final
	default:
		y.name = n.reduce(over, 1)
	}
	return y, nil
}

func (n *node) reduce(how string, axis int) string {
	op := map[string]string{"max": "ReduceMax", "mean": "ReduceMean"}[how]
	return n.b.g.Op(op, []string{n.x[0].name}, attr("axes", []int64{int64(axis)}), attr("keepdims", 0))
}

func addReduce(n *node) (*value, error) {
	axis, err := n.axis("axis", 1)
	if err != nil {
		return nil, err
	}
	if len(n.x[0].dims) == 1 {
		return nil, n.rank("at least 2 dimensions", 2, 3, 4)
	}
	return &value{name: n.reduce(n.kind, axis), dims: slices.Delete(slices.Clone(n.x[0].dims), axis, axis+1)}, nil
}

// weight is a tensor of a layer that package nn does not make; nil if it is optional
// and absent.
func (n *node) weight(list []model.Tensor, prefix, base string, needed bool, dims ...int) (*model.Tensor, error) {
	i := slices.IndexFunc(list, func(t model.Tensor) bool { return t.Name == prefixed(prefix, base) })
	switch {
	case i < 0 && needed:
		return nil, n.wrong("weights", "a layer of kind %s needs a tensor %.100s", n.kind, prefixed(prefix, base))
	case i < 0:
		return nil, nil
	}
	t := &list[i]
	fits := t.Ints == nil && len(t.Dims) == len(dims)
	for j := 0; fits && j < len(dims); j++ {
		fits = t.Dims[j] > 0 && (dims[j] < 0 || t.Dims[j] == dims[j])
	}
	if !fits {
		return nil, n.wrong("weights", "tensor %.100s: expected %d dimensions %v (-1 is any size), got shape %v", t.Name, len(dims), dims, t.Dims)
	}
	return t, nil
}

func prefixed(prefix, base string) string {
	if prefix == "" {
		return base
	}
	return prefix + "." + base
}

// only refuses tensors of a layer that it does not use.
func (n *node) only(list []model.Tensor, prefix string, bases ...string) error {
	for _, t := range list {
		if !slices.ContainsFunc(bases, func(b string) bool { return prefixed(prefix, b) == t.Name }) {
			return n.wrong("weights", "a layer of kind %s has no tensor %.100s", n.kind, t.Name)
		}
	}
	return nil
}

func addBatchNorm(n *node) (*value, error) {
	prefix, list, err := n.tensors()
	if err == nil {
		err = n.only(list, prefix, "weight", "bias", "running_mean", "running_var", "num_batches_tracked")
	}
	if err != nil {
		return nil, err
	}
	eps, err := n.number("eps", 1e-5)
	if err != nil {
		return nil, err
	}
	if err := n.rank("[batch, channels] or [batch, channels, ..]", 2, 3, 4); err != nil {
		return nil, err
	}
	in := []string{n.x[0].name}
	size := -1
	for _, base := range []string{"weight", "bias", "running_mean", "running_var"} {
		t, err := n.weight(list, prefix, base, true, size)
		if err != nil {
			return nil, err
		}
		size = t.Dims[0]
		in = append(in, n.b.g.Floats("", t.Data, size))
	}
	if err := n.takes(1, size, "channels"); err != nil {
		return nil, err
	}
	return n.x[0].like(n.b.g.Op("BatchNormalization", in, attr("epsilon", float32(eps))), n.x[0].last()), nil
}

// windows are stride, padding and dilation of a convolution or pool, by dimension.
type windows struct{ size, stride, padding, dilation []int }

// window reads a key that has one number for all dimensions or one for each.
func (n *node) window(key string, def, least, rank int) ([]int, error) {
	list, err := n.integers(key, []int{def}, least, 1<<16)
	switch {
	case err != nil:
		return nil, err
	case len(list) == 1:
		return slices.Repeat(list, rank), nil
	case len(list) != rank:
		return nil, n.wrong(key, "%s: expected 1 or %d numbers, got %d", key, rank, len(list))
	}
	return list, nil
}

// length is the size of a dimension after windows have passed over it.
func (n *node) length(d any, w *windows, i int) (any, error) {
	reach := w.dilation[i]*(w.size[i]-1) + 1
	switch size, ok := d.(int); {
	case ok && size+2*w.padding[i] < reach:
		return nil, n.wrong("from", "a window reaches over %d, got %d with padding %d, of %s", reach, size, w.padding[i], n.source())
	case ok:
		return (size+2*w.padding[i]-reach)/w.stride[i] + 1, nil
	case w.stride[i] == 1 && 2*w.padding[i] == reach-1:
		return d, nil
	}
	return fmt.Sprintf("%s_%d", n.name, i), nil
}

// attributes of an operator with windows.
func (w *windows) attributes() []graph.Attr {
	list := func(v []int) []int64 {
		out := make([]int64, len(v))
		for i := range v {
			out[i] = int64(v[i])
		}
		return out
	}
	return []graph.Attr{attr("kernel_shape", list(w.size)), attr("strides", list(w.stride)), attr("pads", list(append(slices.Clone(w.padding), w.padding...)))}
}

func addConv(n *node) (*value, error) {
	rank := 1
	if n.kind == "conv2d" {
		rank = 2
	}
	prefix, list, err := n.tensors()
	if err == nil {
		err = n.only(list, prefix, "weight", "bias")
	}
	if err != nil {
		return nil, err
	}
	w, err := n.weight(list, prefix, "weight", true, slices.Repeat([]int{-1}, rank+2)...)
	if err != nil {
		return nil, err
	}
	bias, err := n.weight(list, prefix, "bias", false, w.Dims[0])
	if err != nil {
		return nil, err
	}
	if err := n.rank([]string{"[batch, channels, length]", "[batch, channels, height, width]"}[rank-1], rank+2); err != nil {
		return nil, err
	}
	win := &windows{size: w.Dims[2:]}
	var groups int
	var errs [4]error
	win.stride, errs[0] = n.window("stride", 1, 1, rank)
	win.padding, errs[1] = n.window("padding", 0, 0, rank)
	win.dilation, errs[2] = n.window("dilation", 1, 1, rank)
	groups, errs[3] = n.integer("groups", 1, 1, w.Dims[0])
	if err := cmp.Or(errs[0], errs[1], errs[2], errs[3]); err != nil {
		return nil, err
	}
	if w.Dims[0]%groups != 0 {
		return nil, n.wrong("groups", "groups: expected a divisor of the %d channels, got %d", w.Dims[0], groups)
	}
	if err := n.takes(1, w.Dims[1]*groups, "channels"); err != nil {
		return nil, err
	}
	y := &value{dims: []any{n.x[0].dims[0], w.Dims[0]}}
	for i := range rank {
		d, err := n.length(n.x[0].dims[2+i], win, i)
		if err != nil {
			return nil, err
		}
		y.dims = append(y.dims, d)
	}
	in := []string{n.x[0].name, n.b.g.Floats("", w.Data, w.Dims...)}
	if bias != nil {
		in = append(in, n.b.g.Floats("", bias.Data, bias.Dims...))
	}
	dilations := make([]int64, rank)
	for i := range dilations {
		dilations[i] = int64(win.dilation[i])
	}
	y.name = n.b.g.Op("Conv", in, append(win.attributes(), attr("group", groups), attr("dilations", dilations))...)
	return y, nil
}

func addPool(n *node) (*value, error) {
	if err := n.rank("[batch, channels, length] or [batch, channels, height, width]", 3, 4); err != nil {
		return nil, err
	}
	rank := len(n.x[0].dims) - 2
	if _, ok := n.options["size"]; !ok {
		return nil, n.wrong("size", "size is needed: of the windows")
	}
	win := &windows{dilation: slices.Repeat([]int{1}, rank)}
	var errs [3]error
	win.size, errs[0] = n.window("size", 1, 1, rank)
	win.padding, errs[1] = n.window("padding", 0, 0, rank)
	win.stride, errs[2] = win.size, nil
	if _, ok := n.options["stride"]; ok {
		win.stride, errs[2] = n.window("stride", 1, 1, rank)
	}
	if err := cmp.Or(errs[0], errs[1], errs[2]); err != nil {
		return nil, err
	}
	y := &value{dims: slices.Clone(n.x[0].dims[:2])}
	for i := range rank {
		if 2*win.padding[i] > win.size[i] {
			return nil, n.wrong("padding", "padding: expected at most half of the size %d, got %d", win.size[i], win.padding[i])
		}
		d, err := n.length(n.x[0].dims[2+i], win, i)
		if err != nil {
			return nil, err
		}
		y.dims = append(y.dims, d)
	}
	op, attrs := "MaxPool", win.attributes()
	if n.kind == "average_pool" {
		op, attrs = "AveragePool", append(attrs, attr("count_include_pad", 1))
	}
	y.name = n.b.g.Op(op, []string{n.x[0].name}, attrs...)
	return y, nil
}

func addLeaky(n *node) (*value, error) {
	slope, err := n.number("slope", 0.01)
	if err != nil {
		return nil, err
	}
	return n.same("LeakyRelu", attr("alpha", float32(slope))), nil
}

// addHardSigmoid is PyTorch's x/6 + 0.5 between 0 and 1.
func addHardSigmoid(n *node) (*value, error) {
	return n.same("HardSigmoid", attr("alpha", float32(1)/6), attr("beta", float32(0.5))), nil
}

func addSoftmax(n *node) (*value, error) {
	axis, err := n.axis("axis", -1)
	if err != nil {
		return nil, err
	}
	return n.same(map[string]string{"softmax": "Softmax", "log_softmax": "LogSoftmax"}[n.kind], attr("axis", axis)), nil
}

// addL2 is torch.nn.functional.normalize.
func addL2(n *node) (*value, error) {
	axis, err := n.axis("axis", -1)
	if err != nil {
		return nil, err
	}
	g, x := n.b.g, n.x[0]
	length := g.Op("ReduceL2", []string{x.name}, attr("axes", []int64{int64(axis)}), attr("keepdims", 1))
	return x.like(g.Op("Div", []string{x.name, g.Op("Max", []string{length, g.Float(1e-12)})}), x.last()), nil
}

// addBroadcast adds or multiplies values of the same rank; sizes of 1 are repeated.
func addBroadcast(n *node) (*value, error) {
	y := *n.x[0].like(n.x[0].name, n.x[0].last())
	for _, v := range n.x[1:] {
		if len(v.dims) != len(y.dims) {
			return nil, n.wrong("from", "takes values of the same number of dimensions, got %s", n.source())
		}
		for i, d := range v.dims {
			a, known := y.dims[i].(int)
			b, alsoKnown := d.(int)
			switch {
			case known && alsoKnown && a != b && a != 1 && b != 1:
				return nil, n.wrong("from", "takes values of the same shape, got %s", n.source())
			case known && a == 1 || !known && alsoKnown && b != 1:
				y.dims[i] = d
			}
		}
		y.name = n.b.g.Op(map[string]string{"add": "Add", "multiply": "Mul"}[n.kind], []string{y.name, v.name})
	}
	return &y, nil
}

func addConcat(n *node) (*value, error) {
	axis, err := n.axis("axis", -1)
	if err != nil {
		return nil, err
	}
	y := &value{dims: slices.Clone(n.x[0].dims)}
	total, known := 0, true
	var names []string
	for _, v := range n.x {
		if len(v.dims) != len(y.dims) {
			return nil, n.wrong("from", "takes values of the same number of dimensions, got %s", n.source())
		}
		for i, d := range v.dims {
			size, ok := d.(int)
			if i == axis {
				total, known = total+size, known && ok
				continue
			}
			if first, fixed := y.dims[i].(int); ok && fixed && first != size {
				return nil, n.wrong("from", "takes values that differ along dimension %d only, got %s", axis, n.source())
			}
		}
		names = append(names, v.name)
	}
	if y.dims[axis] = total; !known {
		y.dims[axis] = n.name + "_size"
	}
	y.name = n.b.g.Op("Concat", names, attr("axis", axis))
	return y, nil
}

func addTranspose(n *node) (*value, error) {
	rank := len(n.x[0].dims)
	order, err := n.integers("order", nil, 0, rank-1)
	if err != nil {
		return nil, err
	}
	sorted := slices.Sorted(slices.Values(order))
	if len(order) != rank || len(slices.Compact(sorted)) != rank {
		return nil, n.wrong("order", "order: expected the dimensions 0 to %d in their new order, got %v, for %s", rank-1, order, n.source())
	}
	y := &value{}
	perm := make([]int64, rank)
	for i, from := range order {
		perm[i] = int64(from)
		y.dims = append(y.dims, n.x[0].dims[from])
	}
	y.name = n.b.g.Op("Transpose", []string{n.x[0].name}, attr("perm", perm))
	return y, nil
}

// addReshape has 0 for a dimension that stays, and -1 for the one that takes the rest.
func addReshape(n *node) (*value, error) {
	shape, err := n.integers("shape", nil, -1, maxSize)
	if err != nil {
		return nil, err
	}
	x := n.x[0]
	y, rest, have, want := &value{}, -1, 1, 1
	sizes := make([]int64, len(shape))
	for _, d := range x.dims {
		if size, ok := d.(int); ok {
			have *= size
		}
	}
	open := 0 // dimensions of unknown size that are not kept
	for _, d := range x.dims {
		if _, ok := d.(int); !ok {
			open++
		}
	}
	for i, s := range shape {
		sizes[i] = int64(s)
		switch {
		case s == 0 && i >= len(x.dims):
			return nil, n.wrong("shape", "shape: 0 keeps dimension %d, got %s", i, n.source())
		case s == 0:
			y.dims = append(y.dims, x.dims[i])
			if size, ok := x.dims[i].(int); ok {
				want *= size
			} else {
				open--
			}
		case s < 0 && rest >= 0:
			return nil, n.wrong("shape", "shape: expected at most one -1, got %v", shape)
		case s < 0:
			rest = i
			y.dims = append(y.dims, n.name+"_size")
		default:
			y.dims = append(y.dims, s)
			want *= s
		}
	}
	switch {
	case len(shape) == 0 || len(shape) > 8:
		return nil, n.wrong("shape", "shape is needed: 1 to 8 sizes, 0 for a dimension that stays, -1 for the one that takes the rest")
	case open == 0 && rest >= 0 && have%want == 0:
		y.dims[rest] = have / want
	case open == 0 && (rest >= 0 || have != want):
		return nil, n.wrong("shape", "shape: %v does not hold the elements of %s", shape, n.source())
	}
	y.name = n.b.g.Op("Reshape", []string{x.name, n.b.g.Ints("", sizes...)})
	return y, nil
}

func addSqueeze(n *node) (*value, error) {
	axis, err := n.axis("axis", -1)
	if err == nil && len(n.x[0].dims) < 2 {
		err = n.rank("at least 2 dimensions", 2, 3, 4)
	}
	if err == nil {
		err = n.takes(axis, 1, "as the size of the dimension that is left out")
	}
	if err != nil {
		return nil, err
	}
	y := n.b.g.Op("Squeeze", []string{n.x[0].name, n.b.g.Ints("", int64(axis))})
	return &value{name: y, dims: slices.Delete(slices.Clone(n.x[0].dims), axis, axis+1)}, nil
}

func addUnsqueeze(n *node) (*value, error) {
	rank := len(n.x[0].dims)
	axis, err := n.integer("axis", -1, -rank-1, rank)
	if err != nil {
		return nil, err
	}
	if axis < 0 {
		axis += rank + 1
	}
	y := n.b.g.Op("Unsqueeze", []string{n.x[0].name, n.b.g.Ints("", int64(axis))})
	return &value{name: y, dims: slices.Insert(slices.Clone(n.x[0].dims), axis, any(1))}, nil
}

func addSlice(n *node) (*value, error) {
	axis, err := n.axis("axis", -1)
	start, err2 := n.integer("start", 0, -maxSize, maxSize)
	end, err3 := n.integer("end", maxSize, -maxSize, maxSize)
	if err := cmp.Or(err, err2, err3); err != nil {
		return nil, err
	}
	x := n.x[0]
	dims := slices.Clone(x.dims)
	if size, ok := dims[axis].(int); ok {
		at := func(i int) int {
			if i < 0 {
				i += size
			}
			return min(max(i, 0), size)
		}
		if at(end) <= at(start) {
			return nil, n.wrong("start", "nothing is between %d and %d of dimension %d of %s", start, end, axis, n.source())
		}
		dims[axis] = at(end) - at(start)
	} else {
		dims[axis] = n.name + "_size"
	}
	g := n.b.g
	return &value{name: g.Op("Slice", []string{x.name, g.Ints("", int64(start)), g.Ints("", int64(end)), g.Ints("", int64(axis))}), dims: dims}, nil
}

// addReverse turns a dimension, by default time, around.
func addReverse(n *node) (*value, error) {
	axis, err := n.axis("axis", 1)
	if err != nil {
		return nil, err
	}
	g, x := n.b.g, n.x[0]
	y := g.Op("Slice", []string{x.name, g.Ints("", -1), g.Ints("", math.MinInt64), g.Ints("", int64(axis)), g.Ints("", -1)})
	return x.like(y, x.last()), nil
}

func addSelect(n *node) (*value, error) {
	axis, err := n.axis("axis", 1)
	index, err2 := n.integer("index", -1, -maxSize, maxSize)
	if err := cmp.Or(err, err2); err != nil {
		return nil, err
	}
	x := n.x[0]
	if size, ok := x.dims[axis].(int); ok && (index >= size || index < -size) {
		return nil, n.wrong("index", "index: dimension %d of %s has %d elements, got %d", axis, n.source(), size, index)
	}
	if len(x.dims) < 2 {
		return nil, n.rank("at least 2 dimensions", 2, 3, 4)
	}
	return &value{name: n.b.g.Op("Gather", []string{x.name, n.b.g.Int(int64(index))}, attr("axis", axis)), dims: slices.Delete(slices.Clone(x.dims), axis, axis+1)}, nil
}

// addPad pads the last dimension.
func addPad(n *node) (*value, error) {
	mode, err := n.word("mode", "constant", "constant", "reflect", "edge")
	left, err2 := n.integer("left", 0, 0, 1<<16)
	right, err3 := n.integer("right", 0, 0, 1<<16)
	if err := cmp.Or(err, err2, err3); err != nil {
		return nil, err
	}
	x := n.x[0]
	rank := len(x.dims)
	pads := make([]int64, 2*rank)
	pads[rank-1], pads[2*rank-1] = int64(left), int64(right)
	last := any(n.name + "_size")
	if size, ok := x.last().(int); ok {
		last = size + left + right
	}
	if left+right == 0 {
		return nil, n.wrong("left", "expected left or right, how many elements are added")
	}
	return x.like(n.b.g.Op("Pad", []string{x.name, n.b.g.Ints("", pads...)}, attr("mode", mode)), last), nil
}
