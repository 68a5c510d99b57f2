package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/model/keras"
	"github.com/carousel-ml/carousel/model/onnx"
	"github.com/carousel-ml/carousel/model/onnx/graph"
	"github.com/carousel-ml/carousel/model/torch"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// exchangeFormat is a file format from which weights are imported or to which they are exported.
type exchangeFormat struct {
	name  string
	exts  []string // of file names, in lower case
	read  func(ctx context.Context, path string, o *exchangeOptions) (*weights, error)
	write func(ctx context.Context, path string, w *weights, o *exchangeOptions) error
}

// weights are tensors under PyTorch's names, the layers that they belong to, and a
// second implementation of these layers, to compare with.
type weights struct {
	file      *model.File
	arch      *model.Architecture
	reference model.Reference
	graph     func(ctx context.Context, path string) (*graph.Parity, error)        // writes the model as an ONNX graph
	after     map[string]model.After                                               // what follows the layers, as far as the file says
	notes     []string                                                             // remarks that layers or graph cannot express
	framework func(ctx context.Context, p *model.Parity, o *exchangeOptions) error // compares with the framework of the file, if that was requested
}

// exchangeFormats are chosen by the extension of a file's name.
var exchangeFormats = []exchangeFormat{
	{"PyTorch", []string{".pt", ".pth", ".bin", ".ckpt"}, readTorch, writeTorch},
	{"NumPy", []string{".npz"}, readTorch, nil},
	{"safetensors", []string{".safetensors"}, readSafetensors, writeSafetensors},
	{"ONNX", []string{".onnx"}, readONNX, writeONNX},
	{"Keras", []string{".keras", ".h5"}, readKeras, nil},
}

// described returns the weights of a file whose layers are recognised by names and shapes.
func described(f *model.File, kinds map[string]model.Kind) (*weights, error) {
	f, notes, err := torch.JoinWeightNorm(f)
	if err != nil {
		return nil, err
	}
	f, short, err := torch.LongNames(f)
	if err != nil {
		return nil, err
	}
	arch, err := torch.Describe(f, kinds)
	if err != nil {
		return nil, err
	}
	w := torchWeights(f, arch)
	w.notes = append(notes, short...)
	return w, nil
}

// torchWeights are weights that PyTorch could load.
func torchWeights(f *model.File, arch *model.Architecture) *weights {
	return &weights{file: f, arch: arch, reference: torch.Reference(f), framework: func(ctx context.Context, p *model.Parity, o *exchangeOptions) error {
		if o.torch == "" {
			return nil
		}
		return torch.CheckPyTorch(ctx, p, o.torch, f, arch)
	}}
}

func readTorch(_ context.Context, path string, o *exchangeOptions) (*weights, error) {
	var notes []string
	f, err := torch.Read(path, &torch.Options{Key: o.key, Note: func(text string) { notes = append(notes, text) }})
	if err != nil {
		return nil, err
	}
	w, err := described(f, o.kinds)
	if err == nil {
		w.notes = append(notes, w.notes...)
	}
	return w, err
}

func writeTorch(_ context.Context, path string, w *weights, _ *exchangeOptions) error {
	return torch.Write(path, w.file.Tensors)
}

func readSafetensors(_ context.Context, path string, o *exchangeOptions) (*weights, error) {
	if o.key != "" {
		return nil, misusef("--key %s: a .safetensors file is not nested, it has no keys", o.key)
	}
	f, err := model.ReadTensors(path)
	if err != nil {
		return nil, err
	}
	return described(f, o.kinds)
}

func writeSafetensors(_ context.Context, path string, w *weights, _ *exchangeOptions) error {
	return model.WriteTensors(path, w.file.Tensors, w.file.Meta)
}

func readKeras(_ context.Context, path string, o *exchangeOptions) (*weights, error) {
	if o.key != "" {
		return nil, misusef("--key %s: a Keras file is not nested, it has no keys", o.key)
	}
	w, err := keras.Read(path, &keras.Options{Kinds: o.kinds})
	if err != nil {
		return nil, err
	}
	return &weights{file: w.File, arch: w.Arch, reference: w.Reference(), notes: w.Notes, after: w.After, framework: func(ctx context.Context, p *model.Parity, o *exchangeOptions) error {
		if o.keras == "" {
			return nil
		}
		return w.CheckKeras(ctx, p, o.keras)
	}}, nil
}

// formatOf chooses the format of a file by its name.
func formatOf(path string) (*exchangeFormat, error) {
	ext := strings.ToLower(filepath.Ext(path))
	var known []string
	for i := range exchangeFormats {
		if slices.Contains(exchangeFormats[i].exts, ext) {
			return &exchangeFormats[i], nil
		}
		known = append(known, exchangeFormats[i].exts...)
	}
	return nil, misusef("%s: expected a name that ends in %s, got %q", path, strings.Join(known, ", "), ext)
}

// exchangeOptions are the flags of import and export.
type exchangeOptions struct {
	out    string
	key    string
	layers []string // as given: NAME=KIND or KIND
	kinds  map[string]model.Kind
	torch  string // an interpreter with PyTorch to compare with
	keras  string // and one with Keras
	graph  string // the result of the comparison with an ONNX graph
}

func (o *exchangeOptions) addFlags(c *cobra.Command, out string) {
	c.Flags().StringVar(&o.out, "out", "", out)
	c.Flags().StringArrayVar(&o.layers, "layer", nil, "kind of a layer that names and shapes do not determine: `NAME=KIND`, or KIND for all of them; may be repeated")
	c.Flags().StringVar(&o.torch, "torch", "", "also compare with PyTorch, run by this `python`")
}

// parse checks the flags and fills kinds.
func (o *exchangeOptions) parse() error {
	if o.out == "" {
		return misusef("--out is needed: where to write")
	}
	o.kinds = map[string]model.Kind{}
	for _, s := range o.layers {
		name, kind, ok := cutLast(s, "=")
		if !ok {
			name, kind = "*", s
		}
		if !slices.Contains(model.Kinds, model.Kind(kind)) {
			return misusef("--layer %s: want one of the kinds %s", s, strings.Trim(fmt.Sprint(model.Kinds), "[]"))
		}
		o.kinds[name] = model.Kind(kind)
	}
	return nil
}

// exchanged is the result of import and export.
type exchanged struct {
	From       string        `json:"from"`                // what was read
	To         string        `json:"to"`                  // what was written
	Format     string        `json:"format"`              // of the file outside
	Key        string        `json:"key,omitempty"`       // of the state_dict in a nested checkpoint
	Tensors    int           `json:"tensors"`             // how many were written
	Parameters int           `json:"parameters"`          // numbers in all tensors
	Layers     []model.Layer `json:"layers"`              // those recognised
	Unchecked  []string      `json:"unchecked,omitempty"` // tensors of no layer that is recognised
	Notes      []string      `json:"notes,omitempty"`     // remarks on the file, a sentence each
	Parity     *model.Parity `json:"parity"`              // how far results on random input differ
	Graph      string        `json:"graph,omitempty"`     // the comparison with an ONNX graph
}

func (a *app) importCommand() *cobra.Command {
	var o exchangeOptions
	c := &cobra.Command{
		Use:   "import FILE --out DIR",
		Short: "Make a model directory of PyTorch's, Keras's or ONNX weights",
		Long: `Reads a state_dict from .pt or .pth (never running what is in it; of a TorchScript
program its weights) or .safetensors, or the arrays of NumPy's .npz,
tells from names and shapes which layers it holds, writes a model directory of
the task "weights", and checks on random input that this program computes what
PyTorch would: against a plain float64 implementation, and with --torch against
PyTorch itself. A .keras or .weights.h5 file of Keras 3, or an .h5 file of a model or
its weights by Keras 2 or 3, is taken over to the same names and layout, and checked against Keras's equations, and with --keras against
Keras itself. Of an .onnx graph that is a plain recurrent stack it takes the
weights, and compares with the graph, and with ONNX Runtime where that is installed
(CAROUSEL_ORT_DIR names a directory whose node_modules hold onnxruntime-node).

network.yaml in the directory describes how the layers are connected, for
"carousel run" and "carousel export". Weights do not say that, so it is a draft to
edit: the layers one after the other, in the order of the file.`,
		Example: `  carousel import model.pt --out imported
  carousel import checkpoint.pth --key model --layer decoder=rnn_relu --torch python3 --out imported
  carousel import model.keras --out imported`,
		GroupID: groupWork,
		Args:    oneArg("a file: .pt, .pth, .safetensors, .npz, .keras, .h5 or .onnx"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.parse(); err != nil {
				return err
			}
			r, err := a.importFile(c.Context(), args[0], &o)
			if err != nil {
				return err
			}
			return a.emit("import", r, r.print)
		},
	}
	o.addFlags(c, "model `directory` to write")
	c.Flags().StringVar(&o.keras, "keras", "", "also compare a Keras file with Keras, run by this `python`")
	c.Flags().StringVar(&o.key, "key", "", "`path` of keys to the state_dict in a nested checkpoint, such as model or nets.ema")
	return c
}

func (a *app) importFile(ctx context.Context, path string, o *exchangeOptions) (*exchanged, error) {
	if err := refuseDirectory(path); err != nil {
		return nil, err
	}
	format, err := formatOf(path)
	if err != nil {
		return nil, err
	}
	if err := checkNew(o.out); err != nil {
		return nil, err
	}
	outside, err := format.read(ctx, path, o)
	if err != nil {
		return nil, err
	}
	if len(outside.arch.Layers) == 0 {
		notes := ""
		if len(outside.notes) > 0 {
			notes = "; " + strings.Join(outside.notes, "; ")
		}
		return nil, fmt.Errorf("%s: no layer is recognised in its %s (%s)%s; nothing is written", path, report.Plural(len(outside.arch.Other), "tensor"), list(outside.arch.Other, 4), notes)
	}
	// Layers that cannot be computed are found before anything is written.
	if _, err := model.Build(tensor.CPU(), outside.arch, outside.file); err != nil {
		return nil, err
	}
	if err := model.SaveLayers(o.out, outside.arch, outside.file); err != nil {
		return nil, err
	}
	if err := a.draftNetwork(o.out, filepath.Base(path), outside); err != nil {
		return nil, err
	}
	dir, err := model.Open(o.out)
	if err != nil {
		return nil, err
	}
	written, err := a.weightsOf(dir, nil)
	if err != nil {
		return nil, err
	}
	r := newExchanged(path, o.out, format, written)
	r.Key, r.Graph, r.Notes = outside.file.Meta[torch.KeyMeta], o.graph, outside.notes
	return r, r.check(ctx, written, outside, a.seed, o)
}

// refuseDirectory returns an error for a directory, in words for the program that
// wrote it.
func refuseDirectory(path string) error {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return nil
	}
	for _, known := range []struct{ file, what string }{
		{"model.weights.h5", "a model that Keras saved with zipped=False; save it in one file: model.save(\"model.keras\")"},
		{"saved_model.pb", "a SavedModel of TensorFlow; save the model in one file: model.save(\"model.keras\") or model.save(\"model.h5\")"},
		{"data.pkl", "an unpacked archive of torch.save; give the .pt file itself"},
		{"model.safetensors", "a directory with model.safetensors; give that file, unless it is a model of this program, which needs no import"},
		{"model.onnx", "a directory with model.onnx; give that file"},
	} {
		if _, err := os.Stat(filepath.Join(path, known.file)); err == nil {
			return misusef("%s: expected a file, got %s", path, known.what)
		}
	}
	return misusef("%s: expected a file of weights, got a directory", path)
}

func (a *app) exportCommand() *cobra.Command {
	var o exchangeOptions
	c := &cobra.Command{
		Use:   "export DIR --out FILE",
		Short: "Write a model's weights for PyTorch or ONNX",
		Long: `Writes the weights of a model directory as a state_dict, .pt or .safetensors by
the file's name, under PyTorch's parameter names and in its layout; torch.load
takes the .pt with weights_only=True. Imported weights may also be written as an
.onnx graph, of any batch size and length, as their network.yaml connects them;
and a forecasting model as a graph of its network, whose inputs say what columns they are, and whose doc string says
what scaling stays outside. The file is read back and checked on random input
like an import.`,
		Example: `  carousel export run --out weights.pt
  carousel export run --out weights.safetensors --torch python3
  carousel export run --out model.onnx`,
		GroupID: groupWork,
		Args:    oneArg("a model directory"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.parse(); err != nil {
				return err
			}
			dir, err := model.Open(args[0])
			if err != nil {
				return err
			}
			if err := checkModelKept(c, dir); err != nil {
				return err
			}
			r, err := a.exportDir(c.Context(), dir, &o)
			if err != nil {
				return err
			}
			return a.emit("export", r, r.print)
		},
	}
	o.addFlags(c, "`file` to write, .pt, .safetensors or .onnx")
	return c
}

func (a *app) exportDir(ctx context.Context, dir *model.Dir, o *exchangeOptions) (*exchanged, error) {
	format, err := formatOf(o.out)
	if err != nil {
		return nil, err
	}
	if format.write == nil {
		return nil, misusef("--out %s: %s files are read, not written; write .pt, .safetensors or .onnx", o.out, format.name)
	}
	w, err := a.weightsOf(dir, o.kinds)
	if err != nil {
		return nil, err
	}
	delete(w.file.Meta, torch.KeyMeta) // where they were in another file
	if err := format.write(ctx, o.out, w, o); err != nil {
		return nil, err
	}
	r := newExchanged(dir.Path, o.out, format, w)
	r.Graph = o.graph
	if format.name == "ONNX" { // its parts have names of their own, and are compared already
		r.Notes, r.Unchecked = w.notes, nil
		return r, r.check(ctx, w, w, a.seed, o)
	}
	back := *o
	back.kinds = map[string]model.Kind{}
	for _, l := range w.arch.Layers {
		back.kinds[l.Name] = l.Kind
	}
	for _, name := range w.arch.Other {
		if at := strings.LastIndexByte(name, '.'); at >= 0 {
			back.kinds[name[:at]] = model.Other
		}
	}
	outside, err := format.read(ctx, o.out, &back)
	if err != nil {
		return nil, err
	}
	outside.arch = w.arch // a file of weights describes fewer of them
	return r, r.check(ctx, outside, outside, a.seed, o)
}

// weightsOf is the weights in a model directory of any task. Imported weights
// come with their layers; those of other tasks are found by the task and hints.
func (a *app) weightsOf(d *model.Dir, hints map[string]model.Kind) (*weights, error) {
	if d.Task == model.WeightsTask {
		arch, err := model.OpenLayers(d)
		w := torchWeights(d.Weights, arch)
		w.graph = networkGraph(d)
		return w, err
	}
	kinds, err := ownKinds(d)
	if err != nil {
		return nil, err
	}
	maps.Copy(kinds, hints)
	plain := slices.Clone(d.Weights.Tensors)
	for i := range plain {
		plain[i].Rest = tensor.Float32 // other programs know no weights at rest, and a graph is made of the model
	}
	f, err := model.NewFile(d.Weights.Path, plain, d.Weights.Meta)
	if err != nil {
		return nil, err
	}
	w, err := described(f, kinds)
	if err != nil {
		return nil, err
	}
	if d.Task == onnx.Task {
		w.graph = stackGraph(d)
		return w, nil
	}
	w.graph = func(ctx context.Context, path string) (*graph.Parity, error) { return a.exportONNX(ctx, path, d) }
	return w, nil
}

// exportONNX writes a model as the graph that its task makes of it.
func (a *app) exportONNX(ctx context.Context, path string, d *model.Dir) (*graph.Parity, error) {
	for _, k := range a.kinds {
		if !k.Is(d) {
			continue
		}
		m, err := k.Open(d)
		if err != nil {
			return nil, err
		}
		if e, ok := m.Model.(interface {
			ExportONNX(ctx context.Context, path string) (*graph.Parity, error)
		}); ok {
			return e.ExportONNX(ctx, path)
		}
	}
	return nil, misusef("--out: a model of task %q is not written as an ONNX graph; export its weights as .pt or .safetensors", d.Task)
}

// ownKinds returns, for a model trained by this program, the kinds of layers that
// names and shapes do not determine, and which of its stacks PyTorch does not have.
// Every task embeds the settings of its cells.
func ownKinds(d *model.Dir) (map[string]model.Kind, error) {
	kinds := map[string]model.Kind{}
	var saved struct {
		Config task.RNNConfig `json:"config"`
	}
	if json.Unmarshal(d.Config, &saved) != nil || saved.Config.Cell == "" {
		return kinds, nil
	}
	rnn, err := saved.Config.Build(1)
	if err != nil {
		return nil, &model.FileError{File: d.Path, Problem: err.Error(), Err: err}
	}
	if kinds["*"] = model.RNNTanh; rnn.Cell().Spec().By == cell.WithReLU {
		kinds["*"] = model.RNNReLU
	}
	count := map[string]int{} // tensors of a layer
	for _, t := range d.Weights.Tensors {
		count[beforeDot(t.Name)]++
	}
	for _, t := range d.Weights.Tensors {
		name := beforeDot(t.Name)
		switch base := t.Name[len(name):]; {
		case base == ".weight_ih_l0" && !rnn.IsPlain():
			kinds[name] = model.Other
		case base == ".weight" && count[name] == 1 && len(t.Dims) == 2 && name == "static": // categories of a series
			kinds[name] = model.Embedding
		case base == ".weight" && count[name] == 1 && len(t.Dims) == 2 && !strings.Contains(strings.ToLower(name), "emb"):
			kinds[name] = model.Other
		}
	}
	return kinds, nil
}

func beforeDot(name string) string { return name[:max(strings.LastIndexByte(name, '.'), 0)] }

func newExchanged(from, to string, format *exchangeFormat, w *weights) *exchanged {
	r := &exchanged{From: from, To: to, Format: format.name, Tensors: len(w.file.Tensors), Layers: w.arch.Layers, Unchecked: w.arch.Other}
	for _, t := range w.file.Tensors {
		r.Parameters += len(t.Data) + len(t.Ints)
	}
	return r
}

// check compares results of the written weights on random input with those of the
// reference and, if requested, of the framework of the other file.
func (r *exchanged) check(ctx context.Context, written, outside *weights, seed uint64, o *exchangeOptions) error {
	n, err := model.Build(tensor.CPU(), written.arch, written.file)
	if err != nil {
		return err
	}
	if r.Parity, err = n.Check(r.To, outside.reference, seed); err != nil {
		return err
	}
	if err := outside.framework(ctx, r.Parity, o); err != nil {
		return fmt.Errorf("%w (%s is written, and agrees with the reference to %s)", err, r.To, report.Number(r.Parity.Max))
	}
	if !r.Parity.Ok() {
		return fmt.Errorf("%s is written, but computes otherwise than it should: the results differ by %g", r.To, r.Parity.Worst())
	}
	return nil
}

// print writes the report for people.
func (r *exchanged) print(w io.Writer) {
	key := ""
	if r.Key != "" {
		key = fmt.Sprintf(" (state_dict %q)", r.Key)
	}
	fmt.Fprintf(w, "%s%s -> %s: %s, %s\n\n", r.From, key, r.To, report.Plural(r.Tensors, "tensor"), report.Plural(r.Parameters, "parameter"))
	head := []string{"layer", "max |difference|"}
	if r.Parity.MaxFramework != nil {
		head = append(head, "to "+r.Parity.Framework)
	}
	var rows [][]string
	for i := range r.Layers {
		l, p := &r.Layers[i], &r.Parity.Layers[i]
		row := []string{strings.TrimPrefix(l.Name+": "+l.String(), ": "), report.Number(p.Max)}
		if p.Framework != nil {
			row = append(row, report.Number(*p.Framework))
		}
		rows = append(rows, row)
	}
	if len(rows) > 0 {
		printTable(w, head, rows)
	}
	if n := len(r.Unchecked); n > 0 {
		fmt.Fprintf(w, "  kept, but of no layer that is recognised and not checked: %s\n", list(r.Unchecked, 6))
	}
	for _, note := range r.Notes {
		fmt.Fprintf(w, "  %s\n", note)
	}
	fmt.Fprintf(w, "\nOn random input: max |difference| %s to a float64 reference", report.Number(r.Parity.Max))
	if m := r.Parity.MaxFramework; m != nil {
		fmt.Fprintf(w, ", %s to %s", report.Number(*m), r.Parity.Framework)
	}
	fmt.Fprintln(w)
	if r.Graph != "" {
		fmt.Fprintf(w, "Against the ONNX graph: %s\n", r.Graph)
	}
}

// list joins at most n names.
func list(names []string, n int) string {
	if len(names) <= n {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:n], ", "), len(names)-n)
}
