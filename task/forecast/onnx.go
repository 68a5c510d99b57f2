package forecast

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/model/onnx"
	"github.com/carousel-ml/carousel/model/onnx/graph"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// ExportONNX writes the network as an ONNX graph, runs the graph and the network
// on the same random input, in ONNX Runtime too if it is installed, and returns
// the differences. The doc strings of the inputs list their columns:
//
//	encoder     float32 [rows,steps,..]          the window, by rows or segments; without target history the horizon as well
//	decoder     float32 [rows,steps,..]          what is known of the horizon; not with every model
//	static_ids  int64   [rows,..]                static categories
//	linear      float32 [targets,windows,..]     inputs of the linear path, with skip
//	group       int64   [targets,windows]        its kind of time
//	unit_scale, unit_shift  float32 [targets,windows,horizon]  with the loss negative-binomial
//
// The output forecast is [targets,windows,horizon,outputs]. Rows are targets
// times windows, target by target, or windows if one row has all targets. The
// graph of an autoregressive network is one or more steps: encoder
// [rows,time,..], h0 and c0 in; forecast [rows,time,channels,outputs], hn and cn
// out, and the caller passes the forecast in again.
//
// The graph is the network with its linear path alone: scaling columns, centring
// windows, calendars, the conversion to the data's units, shares of simple methods and
// intervals are not part of it. Its doc string tells of each but intervals.
//
// A model with LearnState and the autoregressive head is a *data.InputError;
// other errors are those of [graph.Builder.Export] and [onnx.AddRNN]; a cancelled
// ctx returns its error.
func (m *Model) ExportONNX(ctx context.Context, path string) (_ *graph.Parity, err error) {
	defer tensor.Recover(&err)
	n := m.net
	if m.cfg.Head == "autoregressive" && m.cfg.LearnState {
		return nil, data.Errorf("learn_state: the graph of an autoregressive model takes its states as inputs, and the first one is trained; train without learn_state, or export the weights")
	}
	if len(n.Members) > 1 && (m.cfg.Head == "autoregressive" || !pointLoss(m.cfg.Loss) && m.cfg.Loss != "quantile") {
		return nil, data.Errorf("members: the graph has the mean of what the networks forecast, which is not that of the parameters of a distribution, nor of states from step to step, got loss %s and head %s; train one member, or export the weights", m.cfg.Loss, m.cfg.Head)
	}
	e := &graphExporter{net: n, dev: m.slab.Device(), names: m.inputNames(), g: &graph.Builder{Doc: m.onnxDoc()}}
	var want map[string][]float32
	in := e.sample()
	if m.cfg.Head == "autoregressive" {
		err = e.unrolled()
		want = e.runUnrolled(in)
	} else {
		err = e.direct()
		want = e.runDirect(in)
	}
	if err != nil {
		return nil, err
	}
	return e.g.Export(ctx, path, in, want)
}

// onnxDoc returns the doc string of the graph, which lists what is not part of
// it.
func (m *Model) onnxDoc() string {
	text := fmt.Sprintf("A Carousel forecasting network (%s, head %s, loss %s). The graph is the network alone. Not part of it are: scaling the columns (%s, with the numbers in config.json), "+
		"centring each window (%s), the inputs from calendar and seasons, and the conversion of forecasts to the data's units.", m.cfg.Cell, m.cfg.Head, m.cfg.Loss, m.cfg.Scale, m.cfg.WindowNorm)
	for _, note := range m.mixtureNotes() {
		text += " In the model, not in the graph: " + note + "."
	}
	return text
}

// graphExporter writes a network as a graph.
type graphExporter struct {
	net    *network // the member that is written
	prefix string   // of its parameters' names; the first, which has none, declares the inputs
	dev    *tensor.Device
	g      *graph.Builder
	names  inputNames
}

// The sizes of the sample on which graph and network are compared.
const sampleWindows, sampleSteps = 2, 5

// transposed swaps the first two of a value's three dimensions.
func (e *graphExporter) transposed(x string) string {
	return e.g.Op("Transpose", []string{x}, graph.Attr{Name: "perm", Value: []int64{1, 0, 2}})
}

// steps declares an input of steps, joins it with the static vectors and embeds
// segments. The result is time-major.
func (e *graphExporter) steps(name string, steps any, width int, columns []string, static string, segment *nn.Linear) string {
	e.input(name, strings.Join(columns, ", "), "rows", steps, width)
	x := e.joined(e.transposed(name), static)
	if segment == nil {
		return x
	}
	return e.g.Op("Relu", []string{onnx.AddLinear(e.g, e.prefix+name+"_segment", segment, x)})
}

// joined writes joined for time-major steps.
func (e *graphExporter) joined(x, static string) string {
	if static == "" {
		return x
	}
	// [1,rows,..] repeated over time
	lead := e.g.Op("Slice", []string{e.g.Op("Shape", []string{x}), e.g.Ints("", 0), e.g.Ints("", 1)})
	times := e.g.Op("Concat", []string{lead, e.g.Ints("", 1, 1)}, graph.Attr{Name: "axis", Value: 0})
	return e.g.Op("Concat", []string{x, e.g.Op("Expand", []string{static, times})}, graph.Attr{Name: "axis", Value: -1})
}

// static returns the vectors of the static categories [1,rows,..], or "".
func (e *graphExporter) static() string {
	n := e.net
	if n.Static == nil {
		return ""
	}
	e.inputInts("static_ids", strings.Join(e.names.static, ", "), "rows", n.dims.ids)
	table := n.Static.Weight
	v := e.g.Op("Gather", []string{e.g.Floats(e.prefix+"static.weight", table.Read(), table.Dims()...), "static_ids"})
	return e.g.Op("Reshape", []string{v, e.g.Ints("", 1, -1, int64(n.dims.ids*staticWidth))})
}

// direct writes the mean of the members.
func (e *graphExporter) direct() error {
	g, members := e.g, e.net.Members
	var outs []string
	for i, n := range members {
		if e.net = n; i > 0 {
			e.prefix = fmt.Sprintf("members.%d.", i)
		}
		out, err := e.member()
		if err != nil {
			return err
		}
		outs = append(outs, out)
	}
	out := outs[0]
	for _, other := range outs[1:] {
		out = g.Op("Add", []string{out, other})
	}
	if n := len(outs); n > 1 {
		out = g.Op("Mul", []string{out, g.Float(1 / float32(n))})
	}
	e.net, e.prefix = members[0], ""
	d := &e.net.dims
	g.Node("Identity", []string{out}, []string{"forecast"})
	g.Output("forecast", strings.Join(outputNames(e.net.cfg), ", "), d.targets, "windows", d.horizon, d.outputs)
	return nil
}

// member writes network.forward and sorts quantiles.
func (e *graphExporter) member() (string, error) {
	n, d, g := e.net, &e.net.dims, e.g
	static := e.static()
	encoded, err := onnx.AddRNN(g, e.prefix+"encoder", n.Encoder, onnx.RNNValues{X: e.steps("encoder", d.read, d.encoder, e.names.encoder, static, n.EncoderSegment)})
	if err != nil {
		return "", err
	}
	var y string
	switch {
	case n.cfg.NoTargetHistory:
		y = e.transposed(g.Op("Slice", []string{encoded.Y, g.Ints("", int64(d.steps(d.window))), g.Ints("", int64(d.read)), g.Ints("", 0)}))
	case n.Decoder != nil:
		decoded, err := onnx.AddRNN(g, e.prefix+"decoder", n.Decoder, onnx.RNNValues{X: e.steps("decoder", d.steps(d.horizon), d.decoder, e.names.decoder, static, n.DecoderSegment), H: encoded.H, C: encoded.C})
		if err != nil {
			return "", err
		}
		y = e.transposed(decoded.Y)
	default:
		y = e.ends(encoded.Y)
	}
	out := onnx.AddLinear(g, e.prefix+"head", n.Head, y)
	if d.segment > 1 {
		out = g.Op("Reshape", []string{out, g.Ints("", 0, int64(d.steps(d.horizon)*d.segment), int64(d.channels*d.outputs))})
		out = g.Op("Slice", []string{out, g.Ints("", 0), g.Ints("", int64(d.horizon)), g.Ints("", 1)})
	}
	if d.channels == 1 {
		out = g.Op("Reshape", []string{out, g.Ints("", int64(d.targets), -1, int64(d.horizon), int64(d.outputs))})
	} else {
		out = g.Op("Reshape", []string{out, g.Ints("", -1, int64(d.horizon), int64(d.targets), int64(d.outputs))})
		out = g.Op("Transpose", []string{out}, graph.Attr{Name: "perm", Value: []int64{2, 0, 1, 3}})
	}
	return e.ordered(e.locate(out)), nil
}

// input and inputInts declare inputs, which all members have.
func (e *graphExporter) input(name, doc string, dims ...any) {
	if e.prefix == "" {
		e.g.Input(name, doc, dims...)
	}
}

func (e *graphExporter) inputInts(name, doc string, dims ...any) {
	if e.prefix == "" {
		e.g.InputInts(name, doc, dims...)
	}
}

// ends writes network.ends for a time-major output.
func (e *graphExporter) ends(y string) string {
	g, width := e.g, int64(e.net.Encoder.StateSize())
	at := func(step int64) string {
		return g.Op("Gather", []string{y, g.Int(step)}, graph.Attr{Name: "axis", Value: 0})
	}
	if e.net.Encoder.Directions() == 1 {
		return at(-1)
	}
	part := func(x string, lo, hi int64) string {
		return g.Op("Slice", []string{x, g.Ints("", lo), g.Ints("", hi), g.Ints("", 1)})
	}
	return g.Op("Concat", []string{part(at(-1), 0, width), part(at(0), width, 2*width)}, graph.Attr{Name: "axis", Value: -1})
}

// locate writes network.locate.
func (e *graphExporter) locate(out string) string {
	n, d, g := e.net, &e.net.dims, e.g
	counts := n.cfg.Loss == "negative-binomial"
	if n.Skip == nil && !counts {
		return out
	}
	location, rest := out, ""
	if d.outputs > 1 && n.cfg.Loss != "quantile" {
		location, rest = e.part(out, 0, 1), e.part(out, 1, d.outputs)
	}
	if n.Skip != nil {
		e.input("linear", strings.Join(e.names.linear, ", "), d.targets, "windows", d.linear)
		w := n.Skip.Weight
		line := g.Op("MatMul", []string{"linear", g.Floats(e.prefix+"skip.weight", w.Read(), w.Dims()...)})
		if n.Skip.Group != nil {
			e.inputInts("group", fmt.Sprintf("kind of time of the window's first step, %d for each target in turn", d.groups), d.targets, "windows")
			line = g.Op("Add", []string{line, g.Op("Gather", []string{g.Floats(e.prefix+"skip.group", n.Skip.Group.Read(), n.Skip.Group.Dims()...), "group"})})
		}
		location = g.Op("Add", []string{location, g.Op("Unsqueeze", []string{line, g.Ints("", 3)})})
	}
	if counts {
		for _, name := range []string{"unit_scale", "unit_shift"} {
			e.input(name, "from the window's units to the data's", d.targets, "windows", d.horizon)
		}
		location = g.Op("Mul", []string{location, g.Op("Unsqueeze", []string{"unit_scale", g.Ints("", 3)})})
		location = g.Op("Add", []string{location, g.Op("Unsqueeze", []string{"unit_shift", g.Ints("", 3)})})
	}
	if rest == "" {
		return location
	}
	return g.Op("Concat", []string{location, rest}, graph.Attr{Name: "axis", Value: 3})
}

// ordered sorts quantiles, as sortedOutputs does, so that they do not cross in the
// graph either: by exchanges of neighbours, with operators that all runtimes have.
func (e *graphExporter) ordered(out string) string {
	if e.net.cfg.Loss != "quantile" {
		return out
	}
	columns := make([]string, e.net.dims.outputs)
	for i := range columns {
		columns[i] = e.part(out, i, i+1)
	}
	for last := len(columns) - 1; last > 0; last-- {
		for i := range last {
			pair := []string{columns[i], columns[i+1]}
			columns[i], columns[i+1] = e.g.Op("Min", pair), e.g.Op("Max", pair)
		}
	}
	return e.g.Op("Concat", columns, graph.Attr{Name: "axis", Value: 3})
}

// part returns outputs [lo,hi) of [..,outputs].
func (e *graphExporter) part(out string, lo, hi int) string {
	return e.g.Op("Slice", []string{out, e.g.Ints("", int64(lo)), e.g.Ints("", int64(hi)), e.g.Ints("", 3)})
}

// unrolled writes network.unroll.
func (e *graphExporter) unrolled() error {
	n, d, g := e.net, &e.net.dims, e.g
	m := n.Encoder
	slots := m.Layers() * m.Directions()
	in := onnx.RNNValues{X: e.steps("encoder", "time", d.encoder, e.names.encoder, e.static(), nil), H: "h0"}
	g.Input("h0", "states, zeros at first", slots, "rows", m.StateSize())
	if m.CellSize() > 0 {
		in.C = "c0"
		g.Input("c0", "cell states, zeros at first", slots, "rows", m.CellSize())
	}
	y, err := onnx.AddRNN(g, "encoder", m, in)
	if err != nil {
		return err
	}
	out := onnx.AddLinear(g, "head", n.Head, e.transposed(y.Y))
	out = g.Op("Reshape", []string{out, g.Ints("", 0, 0, int64(d.channels), int64(d.outputs))})
	now := g.Op("Slice", []string{"encoder", g.Ints("", 0), g.Ints("", int64(d.channels)), g.Ints("", 2)})
	now = g.Op("Unsqueeze", []string{now, g.Ints("", 3)})
	if d.outputs == 1 {
		out = g.Op("Add", []string{out, now})
	} else { // only the location is a difference
		out = g.Op("Concat", []string{g.Op("Add", []string{e.part(out, 0, 1), now}), e.part(out, 1, d.outputs)}, graph.Attr{Name: "axis", Value: 3})
	}
	g.Node("Identity", []string{out}, []string{"forecast"})
	g.Output("forecast", strings.Join(outputNames(n.cfg), ", "), "rows", "time", d.channels, d.outputs)
	g.Node("Identity", []string{y.H}, []string{"hn"})
	g.Output("hn", "states after the last step", slots, "rows", m.StateSize())
	if y.C != "" {
		g.Node("Identity", []string{y.C}, []string{"cn"})
		g.Output("cn", "cell states after the last step", slots, "rows", m.CellSize())
	}
	return nil
}

// sample returns random input for the graph.
func (e *graphExporter) sample() map[string]graph.Value {
	d := &e.net.dims
	r := rand.New(rand.NewPCG(1, 2))
	in := map[string]graph.Value{}
	floats := func(name string, dims ...int) { in[name] = graph.RandomFloats(r, dims...) }
	ints := func(name string, below int, dims ...int) { in[name] = graph.RandomInts(r, below, dims...) }
	rows := sampleWindows
	if d.channels == 1 {
		rows *= d.targets
	}
	if d.ids > 0 {
		ints("static_ids", d.table, rows, d.ids)
	}
	if e.net.cfg.Head == "autoregressive" {
		floats("encoder", rows, sampleSteps, d.encoder)
		h, c := onnx.States(e.net.Encoder, rows, 3)
		if in["h0"] = h; c.Data != nil {
			in["c0"] = c
		}
		return in
	}
	floats("encoder", rows, d.read, d.encoder)
	if e.net.Decoder != nil {
		floats("decoder", rows, d.steps(d.horizon), d.decoder)
	}
	if e.net.Skip != nil {
		floats("linear", d.targets, sampleWindows, d.linear)
		if d.groups > 0 {
			ints("group", d.targets*d.groups, d.targets, sampleWindows)
		}
	}
	if e.net.cfg.Loss == "negative-binomial" {
		floats("unit_scale", d.targets, sampleWindows, d.horizon)
		floats("unit_shift", d.targets, sampleWindows, d.horizon)
	}
	return in
}

// batchOf returns a sample as a batch.
func (e *graphExporter) batchOf(in map[string]graph.Value) *batch {
	b := &batch{n: sampleWindows, rows: in["encoder"].Dims[0], encoder: in["encoder"].Data, decoder: in["decoder"].Data, linear: in["linear"].Data,
		unitScale: in["unit_scale"].Data, unitShift: in["unit_shift"].Data}
	for _, v := range in["static_ids"].Ints {
		b.ids = append(b.ids, int32(v))
	}
	for _, v := range in["group"].Ints {
		b.group = append(b.group, int32(v))
	}
	return b
}

func (e *graphExporter) runDirect(in map[string]graph.Value) map[string][]float32 {
	var sum []float32
	for _, n := range e.net.Members {
		out := n.forward(tensor.NewTape(e.dev, tensor.Infer), e.batchOf(in)).Data()
		if n.cfg.Loss == "quantile" {
			for step := range slices.Chunk(out, n.dims.outputs) {
				slices.Sort(step)
			}
		}
		if sum == nil {
			sum = make([]float32, len(out))
		}
		for i, v := range out {
			sum[i] += v / float32(len(e.net.Members))
		}
	}
	return map[string][]float32{"forecast": sum}
}

func (e *graphExporter) runUnrolled(in map[string]graph.Value) map[string][]float32 {
	t := tensor.NewTape(e.dev, tensor.Infer)
	state := &nn.State{H: t.Input(in["h0"].Data, in["h0"].Dims...)}
	if c, ok := in["c0"]; ok {
		state.C = t.Input(c.Data, c.Dims...)
	}
	x := in["encoder"]
	y, final := e.net.unroll(t, e.batchOf(in), t.Input(x.Data, x.Dims...), state)
	want := map[string][]float32{"forecast": y.Data(), "hn": final.H.Data()}
	if final.C != nil {
		want["cn"] = final.C.Data()
	}
	return want
}
