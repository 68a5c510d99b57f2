package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/carousel-ml/carousel/forecast"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/model/torch"
	"github.com/carousel-ml/carousel/tensor"
)

// exchangeFormat is a file format that weights come in or go out in.
type exchangeFormat struct {
	name string
	exts []string // of file names, in lower case
	// read gives the weights and what layers they are of.
	read  func(path string, o *exchangeOptions) (*model.File, *torch.Architecture, error)
	write func(path string, f *model.File, arch *torch.Architecture, o *exchangeOptions) error
}

// exchangeFormats are chosen by the extension of a file's name.
var exchangeFormats = []exchangeFormat{
	{"PyTorch", []string{".pt", ".pth", ".bin", ".ckpt"}, readTorch, writeTorch},
	{"safetensors", []string{".safetensors"}, readSafetensors, writeSafetensors},
	{"ONNX", []string{".onnx"}, readONNX, writeONNX},
}

func readTorch(path string, o *exchangeOptions) (*model.File, *torch.Architecture, error) {
	f, err := torch.Read(path, &torch.Options{Key: o.key})
	if err != nil {
		return nil, nil, err
	}
	arch, err := torch.Describe(f, o.kinds)
	return f, arch, err
}

func writeTorch(path string, f *model.File, _ *torch.Architecture, _ *exchangeOptions) error {
	return torch.Write(path, f.Tensors)
}

func readSafetensors(path string, o *exchangeOptions) (*model.File, *torch.Architecture, error) {
	if o.key != "" {
		return nil, nil, misusef("--key %s: a .safetensors file is not nested, it has no keys", o.key)
	}
	f, err := model.ReadTensors(path)
	if err != nil {
		return nil, nil, err
	}
	arch, err := torch.Describe(f, o.kinds)
	return f, arch, err
}

func writeSafetensors(path string, f *model.File, _ *torch.Architecture, _ *exchangeOptions) error {
	return model.WriteTensors(path, f.Tensors, f.Meta)
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
	kinds  map[string]torch.Kind
	python string
	graph  string // what comparing with an ONNX graph gave
}

func (o *exchangeOptions) addFlags(c *cobra.Command, out string) {
	c.Flags().StringVar(&o.out, "out", "", out)
	c.Flags().StringArrayVar(&o.layers, "layer", nil, "what a layer is where names and shapes leave it open: `NAME=KIND`, or KIND for all such; repeat it")
	c.Flags().StringVar(&o.python, "torch", "", "compare with PyTorch too, run by this `python`")
}

// parse checks the flags and fills kinds.
func (o *exchangeOptions) parse() error {
	if o.out == "" {
		return misusef("--out is needed: where to write")
	}
	o.kinds = map[string]torch.Kind{}
	for _, s := range o.layers {
		name, kind, ok := cutLast(s, "=")
		if !ok {
			name, kind = "*", s
		}
		if !slices.Contains(torch.Kinds, torch.Kind(kind)) {
			return misusef("--layer %s: want one of the kinds %s", s, strings.Trim(fmt.Sprint(torch.Kinds), "[]"))
		}
		o.kinds[name] = torch.Kind(kind)
	}
	return nil
}

// exchanged is what import and export report.
type exchanged struct {
	From       string        `json:"from"`
	To         string        `json:"to"`
	Format     string        `json:"format"`        // of the file outside
	Key        string        `json:"key,omitempty"` // of the state_dict in a nested checkpoint
	Tensors    int           `json:"tensors"`
	Parameters int           `json:"parameters"`
	Layers     []torch.Layer `json:"layers"`
	Unchecked  []string      `json:"unchecked,omitempty"` // tensors of no layer that is recognised
	Parity     *torch.Parity `json:"parity"`
	Graph      string        `json:"graph,omitempty"` // the comparison with an ONNX graph
}

func (a *app) importCommand() *cobra.Command {
	var o exchangeOptions
	c := &cobra.Command{
		Use:   "import FILE --out DIR",
		Short: "Make a model directory of PyTorch's or ONNX weights",
		Long: `Reads a state_dict from .pt or .pth (never running what is in it) or .safetensors,
tells from names and shapes which layers it holds, writes a model directory of
the task "weights", and checks on random input that this program computes what
PyTorch would: against a plain float64 implementation, and with --torch against
PyTorch itself. Of an .onnx graph that is a plain recurrent stack it takes the
weights, and compares with the graph, and with ONNX Runtime where that is installed
(CAROUSEL_ORT_DIR names a directory whose node_modules hold onnxruntime-node).`,
		Example: `  carousel import model.pt --out imported
  carousel import checkpoint.pth --key model --layer decoder=rnn_relu --torch python3 --out imported`,
		GroupID: groupWork,
		Args:    oneArg("a file: .pt, .pth, .safetensors or .onnx"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.parse(); err != nil {
				return err
			}
			r, err := importFile(c.Context(), args[0], a.seed, &o)
			if err != nil {
				return err
			}
			return a.emit(r, r.print)
		},
	}
	o.addFlags(c, "model `directory` to write")
	c.Flags().StringVar(&o.key, "key", "", "`path` of keys to the state_dict in a nested checkpoint, such as model or nets.ema")
	return c
}

func importFile(ctx context.Context, path string, seed uint64, o *exchangeOptions) (*exchanged, error) {
	format, err := formatOf(path)
	if err != nil {
		return nil, err
	}
	f, arch, err := format.read(path, o)
	if err != nil {
		return nil, err
	}
	// What cannot be computed is found before anything is written.
	if _, err := torch.Build(tensor.CPU(), arch, f); err != nil {
		return nil, err
	}
	if err := torch.SaveDir(o.out, arch, f); err != nil {
		return nil, err
	}
	written, arch, err := torch.OpenDir(o.out, nil)
	if err != nil {
		return nil, err
	}
	r := newExchanged(path, o.out, format, f, arch)
	r.Graph = o.graph
	return r, r.check(ctx, written, f, arch, seed, o)
}

func (a *app) exportCommand() *cobra.Command {
	var o exchangeOptions
	c := &cobra.Command{
		Use:   "export DIR --out FILE",
		Short: "Write a model's weights for PyTorch or ONNX",
		Long: `Writes the weights of a model directory as a state_dict, .pt or .safetensors by
the file's name, under PyTorch's parameter names and in its layout; torch.load
takes the .pt with weights_only=True. A recurrent stack with an embedding before
it or a linear layer after it may also be written as an .onnx graph, of any batch
size and length, with states in and out. The file is read back and checked on
random input like an import.`,
		Example: `  carousel export run --out weights.pt
  carousel export run --out weights.safetensors --torch python3`,
		GroupID: groupWork,
		Args:    oneArg("a model directory"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.parse(); err != nil {
				return err
			}
			r, err := exportDir(c.Context(), args[0], a.seed, &o)
			if err != nil {
				return err
			}
			return a.emit(r, r.print)
		},
	}
	o.addFlags(c, "`file` to write, .pt, .safetensors or .onnx")
	return c
}

func exportDir(ctx context.Context, dir string, seed uint64, o *exchangeOptions) (*exchanged, error) {
	format, err := formatOf(o.out)
	if err != nil {
		return nil, err
	}
	kinds, err := ownKinds(dir)
	if err != nil {
		return nil, err
	}
	maps.Copy(kinds, o.kinds)
	f, arch, err := torch.OpenDir(dir, kinds)
	if err != nil {
		return nil, err
	}
	delete(f.Meta, torch.KeyMeta) // where they were in another file
	if err := format.write(o.out, f, arch, o); err != nil {
		return nil, err
	}
	back := *o
	back.kinds = map[string]torch.Kind{}
	for _, l := range arch.Layers {
		back.kinds[l.Name] = l.Kind
	}
	written, _, err := format.read(o.out, &back)
	if err != nil {
		return nil, err
	}
	r := newExchanged(dir, o.out, format, f, arch)
	r.Graph = o.graph
	if format.name == "ONNX" { // its parts have names of their own
		written = f
	}
	return r, r.check(ctx, written, written, arch, seed, o)
}

// ownKinds answers for this program's own models what names and shapes leave open.
func ownKinds(dir string) (map[string]torch.Kind, error) {
	d, err := model.Open(dir)
	if err != nil {
		return nil, err
	}
	kinds := map[string]torch.Kind{}
	if d.Task == forecast.Task {
		kinds["*"] = torch.RNNTanh
		if d.Weights.Lookup("static.weight") != nil {
			kinds["static"] = torch.Embedding
		}
	}
	return kinds, nil
}

func newExchanged(from, to string, format *exchangeFormat, f *model.File, arch *torch.Architecture) *exchanged {
	r := &exchanged{
		From: from, To: to, Format: format.name, Key: f.Meta[torch.KeyMeta],
		Tensors: len(f.Tensors), Layers: arch.Layers, Unchecked: arch.Other,
	}
	for _, t := range f.Tensors {
		r.Parameters += len(t.Data) + len(t.Ints)
	}
	return r
}

// check computes with the weights as they were written, on random input, beside
// the reference and, if asked for, PyTorch on the file outside.
func (r *exchanged) check(ctx context.Context, written, outside *model.File, arch *torch.Architecture, seed uint64, o *exchangeOptions) error {
	n, err := torch.Build(tensor.CPU(), arch, written)
	if err != nil {
		return err
	}
	if r.Parity, err = n.Check(outside, seed); err != nil {
		return err
	}
	if o.python != "" {
		if err := r.Parity.CheckPyTorch(ctx, o.python, outside, arch); err != nil {
			return fmt.Errorf("%w (%s is written, and agrees with the reference to %s)", err, r.To, number(r.Parity.Max))
		}
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
	fmt.Fprintf(w, "%s%s -> %s: %s, %s\n\n", r.From, key, r.To, plural(r.Tensors, "tensor"), plural(r.Parameters, "parameter"))
	head := []string{"layer", "max |difference|"}
	if r.Parity.MaxPyTorch != nil {
		head = append(head, "to PyTorch")
	}
	var rows [][]string
	for i := range r.Layers {
		l, p := &r.Layers[i], &r.Parity.Layers[i]
		row := []string{strings.TrimPrefix(l.Name+": "+l.String(), ": "), number(p.Max)}
		if p.PyTorch != nil {
			row = append(row, number(*p.PyTorch))
		}
		rows = append(rows, row)
	}
	if len(rows) > 0 {
		printTable(w, head, rows)
	}
	if n := len(r.Unchecked); n > 0 {
		fmt.Fprintf(w, "  kept, but of no layer that is recognised and not checked: %s\n", list(r.Unchecked, 6))
	}
	if len(rows) == 0 {
		fmt.Fprintf(w, "\nNo layer was recognised, so nothing was computed.\n")
		return
	}
	fmt.Fprintf(w, "\nOn random input: max |difference| %s to a float64 reference", number(r.Parity.Max))
	if m := r.Parity.MaxPyTorch; m != nil {
		fmt.Fprintf(w, ", %s to PyTorch %s", number(*m), r.Parity.PyTorch)
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
