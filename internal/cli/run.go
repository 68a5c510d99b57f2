package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/npy"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/model/network"
	"github.com/carousel-ml/carousel/model/onnx/graph"
	"github.com/carousel-ml/carousel/report"
)

// graphResult is the result of run.
type graphResult struct {
	Model   string               `json:"model"`            // the ONNX file, or the directory
	Calls   int                  `json:"calls"`            // how often the graph was run: 1, or with --steps the number of steps
	States  map[string]string    `json:"states,omitempty"` // with --steps: the outputs that were carried on, by the input that took them in the next call
	Outputs map[string]arrayJSON `json:"outputs"`          // by name; with --steps those of all calls, stacked, and of a state the last one
	Out     string               `json:"out,omitempty"`    // the file that the outputs were written to

	names  []string // of the outputs, in the order of the graph
	values []graph.Value
}

// runOptions are the flags of run.
type runOptions struct {
	inputs  []string // NAME=VALUE
	outputs []string // names; none: all
	out     string
	steps   bool
	states  []string // INPUT=OUTPUT
}

func (a *app) runCommand() *cobra.Command {
	var o runOptions
	c := &cobra.Command{
		Use:   "run MODEL --input NAME=VALUE",
		Short: "Run an ONNX model, or imported weights",
		Long: `Runs the graph of an ONNX file, or the network that "carousel import" made of weights
and that network.yaml in its directory describes, on arrays and prints its outputs.
Every input needs an --input of its own:

  --input x=x.npy             NumPy's array
  --input x=all.npz           the array of that name in an archive; all.npz:NAME takes another
  --input x=x.json            nested lists, {"dims": [2,3], "data": [...]}, or what run itself
                              wrote, of which x.json:NAME is an output
  --input x=x.raw             bare little-endian numbers of the declared type and shape, of which
                              one dimension may vary; x.raw:2,3 has another shape, and
                              x.raw:float64:2,3 another type
  --input sr=16000            a number, true, false, or a list in JSON
  --input h=zeros             zeros of the declared shape; zeros:2,1,128 of this shape

Types are not reinterpreted. Floats of another width, and integers that the declared
type has, are converted; floats for integers, or integers for floats, are refused.

With --steps the graph is run once for each step of a sequence: an array in a file has
one more dimension than its input, in front, and call t takes the part x[t]. So [100,1,512]
makes 100 calls of an input [1,512]. Numbers and lists given directly are the same in
each call. States are carried: an input such as state, h or c takes the output stateN,
hn or cn of the call before. Pairs are found by name, type and shape, or named with
--state; a state begins with zeros, or with the array of its --input, which has no
further dimension. The outputs of all calls are stacked, of a state only the last is
kept, with which a later run can continue.

"carousel inspect MODEL.onnx" lists the inputs, outputs and states.`,
		Example: `  carousel run model.onnx --input x=x.npy --out y.npz
  carousel run silero_vad.onnx --steps --input input=frames.npy --input sr=16000 --output output --out speech.npy
  carousel run imported --input x=x.npy --out y.npy
  carousel run model.onnx --input x=[[0.5,1.5]] --input h=zeros --json`,
		GroupID: groupWork,
		Args:    oneArg("an ONNX file, or a directory of imported weights"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.runGraph(c.Context(), args[0], &o)
		},
	}
	c.Flags().StringArrayVar(&o.inputs, "input", nil, "an input: `NAME=VALUE`, a file, a number, a list or zeros; may be repeated")
	c.Flags().StringVar(&o.out, "out", "", "write the outputs to this `file`: .npz, .json, or of one output .npy")
	c.Flags().StringArrayVar(&o.outputs, "output", nil, "only the output of this `name`; may be repeated (default all)")
	a.computes.bind(c.Flags())
	c.Flags().BoolVar(&o.steps, "steps", false, "run once for each step of the inputs, and carry the states")
	c.Flags().StringArrayVar(&o.states, "state", nil, "with --steps: a state that is not found by its name, `INPUT=OUTPUT`, or INPUT= for an input that is no state; may be repeated")
	return c
}

func (a *app) runGraph(ctx context.Context, path string, o *runOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	m, err := a.readGraph(path)
	if err != nil {
		return err
	}
	f, err := a.feed(m, path, o)
	if err != nil {
		return err
	}
	chosen, err := o.choose(m)
	if err != nil {
		return err
	}
	r := &graphResult{Model: path, Calls: 1, Outputs: map[string]arrayJSON{}, Out: o.out}
	if o.steps {
		var stop func()
		ctx, stop = a.catchInterrupt(ctx) // between calls
		defer stop()
		r.Calls, r.States = f.count, map[string]string{}
		for _, p := range f.session.States() {
			r.States[p.Input] = p.Output
		}
		if len(r.States) == 0 {
			a.remark("no output is carried on to an input; --state INPUT=OUTPUT names a state.")
		}
	}
	out, err := f.run(ctx, o.steps)
	if err != nil {
		return err
	}
	for _, info := range chosen {
		v := out[info.Name]
		one := arrayJSON{Type: typeOf(info, v), Dims: v.Dims}
		if a.json && o.out == "" || strings.EqualFold(filepath.Ext(o.out), ".json") {
			one.Data = jsonElements(one.Type, v)
		}
		r.names, r.values, r.Outputs[info.Name] = append(r.names, info.Name), append(r.values, v), one
	}
	if o.out != "" {
		if err := a.writeOutputs(r); err != nil {
			return err
		}
		for name, v := range r.Outputs {
			v.Data = nil // it is in the file
			r.Outputs[name] = v
		}
	}
	return a.emit("run", r, r.print)
}

// readGraph reads an ONNX file, or the network that a directory of imported weights
// describes, and refuses what other commands are for.
func (a *app) readGraph(path string) (*graph.Model, error) {
	on, err := a.device()
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return graph.Read(path, on)
	}
	dir, err := model.Open(path)
	if err != nil {
		return nil, err
	}
	if dir.Task == model.WeightsTask {
		n, err := network.Open(dir)
		if err != nil {
			return nil, err
		}
		return n.Model(on)
	}
	fix := "carousel export DIR --out FILE.onnx writes a plain recurrent stack as one"
	if a.kindOf(dir) != nil {
		fix = "use carousel predict"
	}
	return nil, &model.FileError{File: path, Problem: fmt.Sprintf("expected an ONNX file or imported weights, got a model directory of task %q", dir.Task), Fix: fix}
}

// outFormats are the files of outputs, by extension.
var outFormats = []string{".npz", ".npy", ".json"}

func (o *runOptions) check() error {
	if ext := strings.ToLower(filepath.Ext(o.out)); o.out != "" && !slices.Contains(outFormats, ext) {
		return wrongFlag("out", "--out %s: expected a name that ends in %s, got %q", o.out, strings.Join(outFormats, ", "), ext)
	}
	if len(o.states) > 0 && !o.steps {
		return wrongFlag("state", "--state %s: states are carried from call to call with --steps only; give it, or --input for a state of a single call", o.states[0])
	}
	return nil
}

// choose returns the outputs that are wanted.
func (o *runOptions) choose(m *graph.Model) ([]graph.ValueInfo, error) {
	all := m.Outputs()
	chosen := all
	if len(o.outputs) > 0 {
		chosen = nil
	}
	for _, name := range o.outputs {
		i := slices.IndexFunc(all, func(v graph.ValueInfo) bool { return v.Name == name })
		if i < 0 {
			return nil, wrongFlag("output", "--output %s: the graph has no such output%s", name, settings.DidYouMean(name, namesOf(all), "", "it has "))
		}
		chosen = append(chosen, all[i])
	}
	if len(chosen) > 1 && strings.EqualFold(filepath.Ext(o.out), ".npy") {
		return nil, wrongFlag("out", "--out %s: a .npy file holds one array, and there are %d outputs: %s; choose one with --output, or write a .npz", o.out, len(chosen), list(namesOf(chosen), 8))
	}
	return chosen, nil
}

func namesOf(list []graph.ValueInfo) []string {
	names := make([]string, len(list))
	for i, v := range list {
		names[i] = v.Name
	}
	return names
}

// feed are the inputs of a run, and the session that keeps the states.
type feed struct {
	session *graph.Session
	values  map[string]graph.Value // the same in each call
	steps   map[string]graph.Value // by step
	count   int                    // of steps; -1 if it is not known
	first   map[string]graph.Value // states that the first step begins with, besides zeros
}

// problems collects what is wrong with the inputs, so that one run reports all of it.
type problems struct {
	path string
	text []string
	file *data.InputError // the only one so far
}

func (p *problems) add(format string, args ...any) {
	p.text = append(p.text, fmt.Sprintf(format, args...))
}

func (p *problems) err() error {
	switch {
	case len(p.text) == 0:
		return nil
	case len(p.text) == 1 && p.file != nil:
		return p.file
	}
	return wrongFlag("input", "%s: %s", p.path, strings.Join(p.text, "; "))
}

// feed reads the inputs and compares them with their declarations.
func (a *app) feed(m *graph.Model, path string, o *runOptions) (*feed, error) {
	given := map[string]string{}
	for _, s := range o.states {
		in, out, ok := strings.Cut(s, "=")
		if _, twice := given[in]; !ok || twice {
			return nil, wrongFlag("state", "--state %s: want INPUT=OUTPUT, once for each input", s)
		}
		given[in] = out
	}
	f := &feed{values: map[string]graph.Value{}, steps: map[string]graph.Value{}, count: -1}
	var err error
	if f.session, err = m.NewSession(graph.SessionOptions{States: given}); err != nil {
		return nil, wrongFlag("state", "--state: %v", err)
	}
	p := &problems{path: path}
	sources := p.sources(o.inputs, namesOf(m.Inputs()))
	var zeros []graph.ValueInfo // states that begin with them
	states, sizes, first := map[string]graph.Value{}, map[string]int{}, ""
	for _, info := range m.Inputs() {
		state := slices.ContainsFunc(f.session.States(), func(p graph.StatePair) bool { return p.Input == info.Name })
		s, ok := sources[info.Name]
		switch {
		case state && (!ok && o.steps || s != nil && s.zeros && s.rest == ""):
			zeros = append(zeros, info) // as the session has them
			continue
		case !ok:
			p.missing(info, m.Outputs(), o.steps, state)
			continue
		case s == nil: // reported
			continue
		}
		r := &arrayReader{info: info, steps: o.steps && s.path != "" && !state, remark: a.remark}
		v, err := r.read(s)
		if err != nil {
			p.failed(info, s, err)
			continue
		}
		dims := v.Dims
		if r.steps && len(dims) > 0 {
			dims = dims[1:]
		}
		known := maps.Clone(sizes)
		if !info.Fits(dims, known) || r.steps && len(v.Dims) == 0 {
			p.shape(r, s, v, sizes)
			continue
		}
		sizes = known
		switch {
		case state:
			states[info.Name] = v
		case !r.steps:
			f.values[info.Name] = v
		case f.count >= 0 && f.count != v.Dims[0]:
			p.add("input %s has %d steps in %s, and input %s has %d", info.Name, v.Dims[0], s.path, first, f.count)
		default:
			f.steps[info.Name], f.count, first = v, v.Dims[0], info.Name
		}
	}
	for _, info := range zeros {
		free := 0
		for _, d := range info.Dims {
			if _, known := sizes[d.Name]; d.Size < 0 && !(known && d.Name != "") {
				free++
			}
		}
		if info.Any || free > 1 {
			p.add("input %s: the shape of its zeros is not determined; give it as in --input %s=zeros:1,2,3", info, info.Name)
		}
	}
	if o.steps && f.count <= 0 && len(p.text) == 0 {
		p.add("--steps needs an input in a file, whose first dimension is the steps, at least one")
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	f.first = states
	return f, f.session.SetState(states)
}

// sources divides the --input flags; a nil source is one that was reported.
func (p *problems) sources(flags, declared []string) map[string]*arraySource {
	sources := map[string]*arraySource{}
	for _, flag := range flags {
		name, value, ok := strings.Cut(flag, "=")
		_, twice := sources[name]
		switch {
		case !ok:
			p.add("--input %s: want NAME=VALUE", flag)
		case !slices.Contains(declared, name):
			p.add("there is no input %q%s", name, settings.DidYouMean(name, declared, "", "the inputs are "))
		case twice:
			p.add("input %s is given twice", name)
		default:
			s, err := sourceOf(value)
			if err != nil {
				p.add("--input %s: %v", name, err)
			}
			sources[name] = s
		}
	}
	return sources
}

// missing reports an input that was not given.
func (p *problems) missing(info graph.ValueInfo, outputs []graph.ValueInfo, steps, state bool) {
	hint := fmt.Sprintf("; give it as --input %s=VALUE", info.Name)
	if state {
		hint += fmt.Sprintf(", or as --input %s=zeros at the beginning of a sequence", info.Name)
	}
	if steps {
		if list := info.StateOutputs(outputs); len(list) > 0 {
			hint += fmt.Sprintf(", or if it is a state, --state %s=OUTPUT: the outputs that it could take are %s", info.Name, strings.Join(namesOf(list), ", "))
		}
	}
	p.add("input %s is missing%s", info, hint)
}

// failed reports an array that cannot be read.
func (p *problems) failed(info graph.ValueInfo, s *arraySource, err error) {
	var file *data.InputError
	if errors.As(err, &file) {
		p.file = file
		p.add("%v", err)
		return
	}
	p.add("--input %s=%.60s: %v", info.Name, s.text, err)
}

// shape reports a shape that the declaration does not allow.
func (p *problems) shape(r *arrayReader, s *arraySource, v graph.Value, sizes map[string]int) {
	named := ""
	for _, d := range r.info.Dims {
		if n, ok := sizes[d.Name]; ok && d.Size < 0 && d.Name != "" {
			named += fmt.Sprintf(" (%s is %d)", d.Name, n)
		}
	}
	more := ""
	if r.steps && r.info.Fits(v.Dims, map[string]int{}) {
		more = "; with --steps the first dimension is the steps"
	} else if !r.steps && len(v.Dims) == len(r.info.Dims)+1 && s.path != "" {
		more = "; with --steps the first dimension would be the steps"
	}
	p.add("input %s%s: got shape %s of %.80s%s", r.want(), named, npy.Shape(v.Dims), cmp.Or(s.path, s.text), more)
}

// run makes the calls. With steps the outputs are stacked, and of a state the last is kept.
func (f *feed) run(ctx context.Context, steps bool) (map[string]graph.Value, error) {
	if !steps {
		return f.session.Step(f.values)
	}
	all, state := map[string]graph.Value{}, f.stateOutputs()
	for t := range f.count {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for name, v := range f.steps {
			f.values[name] = part(v, t)
		}
		out, err := f.session.Step(f.values)
		if err != nil {
			return nil, fmt.Errorf("step %d: %w", t, err)
		}
		for name, v := range out { // valid until the next step
			s := all[name]
			switch {
			case state[name]:
				s = graph.Value{Dims: slices.Clone(v.Dims)}
			case s.Dims == nil:
				s.Dims = append([]int{1}, v.Dims...)
			case !slices.Equal(s.Dims[1:], v.Dims):
				return nil, fmt.Errorf("step %d: output %s has shape %s, and %s before; with --steps all calls must give one shape", t, name, npy.Shape(v.Dims), npy.Shape(s.Dims[1:]))
			default:
				s.Dims[0]++
			}
			s.Data, s.Ints = append(s.Data, v.Data...), append(s.Ints, v.Ints...)
			all[name] = s
		}
	}
	return all, nil
}

// stateOutputs returns the outputs that are states for the next step.
func (f *feed) stateOutputs() map[string]bool {
	state := map[string]bool{}
	for _, p := range f.session.States() {
		state[p.Output] = true
	}
	return state
}

// part returns v[t].
func part(v graph.Value, t int) graph.Value {
	n := max(len(v.Data), len(v.Ints)) / v.Dims[0]
	p := graph.Value{Dims: v.Dims[1:]}
	if v.Data != nil {
		p.Data = v.Data[t*n : (t+1)*n]
	}
	if v.Ints != nil {
		p.Ints = v.Ints[t*n : (t+1)*n]
	}
	return p
}

// writeOutputs writes the file of --out.
func (a *app) writeOutputs(r *graphResult) error {
	var arrays []*npy.Array
	for i, v := range r.values {
		arrays = append(arrays, npyArray(r.Outputs[r.names[i]].Type, v))
	}
	err := model.WriteFileAtomic(r.Out, func(w io.Writer) error {
		switch strings.ToLower(filepath.Ext(r.Out)) {
		case ".npy":
			return npy.Write(w, arrays[0])
		case ".npz":
			return npy.WriteArchive(w, r.names, arrays)
		}
		text, err := a.object("run", r, nil)
		if err == nil {
			_, err = w.Write(text)
		}
		return err
	})
	if err == nil {
		a.note("The outputs are in %s.", r.Out)
	}
	return err
}

// print writes the outputs for people.
func (r *graphResult) print(w io.Writer) {
	fmt.Fprintf(w, "%s: %s\n", r.Model, report.Plural(r.Calls, "call"))
	for i, name := range r.names {
		v := r.values[i]
		fmt.Fprintf(w, "  %s %s%s: %s\n", printable(name), r.Outputs[name].Type, npy.Shape(v.Dims), summary(v))
	}
	for _, in := range slices.Sorted(maps.Keys(r.States)) {
		fmt.Fprintf(w, "  carried: %s to %s\n", printable(r.States[in]), printable(in))
	}
}

// summary is the elements of a small array, and of others their range.
func summary(v graph.Value) string {
	const most = 10
	var all []float64
	for _, x := range v.Data {
		all = append(all, float64(x))
	}
	for _, x := range v.Ints {
		all = append(all, float64(x))
	}
	if len(all) <= most {
		text := make([]string, len(all))
		for i, x := range all {
			text[i] = fmt.Sprintf("%.6g", x)
		}
		return strings.Join(text, " ")
	}
	low, high, sum, strange := math.Inf(1), math.Inf(-1), 0.0, 0
	for _, x := range all {
		if x-x != 0 {
			strange++
			continue
		}
		low, high, sum = min(low, x), max(high, x), sum+x
	}
	text := fmt.Sprintf("%.6g to %.6g, mean %.6g", low, high, sum/float64(len(all)-strange))
	if strange > 0 {
		text += fmt.Sprintf(", and %d not finite", strange)
	}
	return text
}
