package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/quantize"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

// inspection is the result of inspect.
type inspection struct {
	Path       string            `json:"path"`                // what was inspected
	Kind       string            `json:"kind"`                // "model" or "weights"
	Task       string            `json:"task,omitempty"`      // the task of the model
	Version    string            `json:"version,omitempty"`   // of the carousel that wrote it
	Parameters int               `json:"parameters"`          // numbers in all tensors
	Layers     []layer           `json:"layers"`              // tensors by the layer that they belong to
	Data       any               `json:"data,omitempty"`      // the data that the model needs, if its task describes it
	Config     any               `json:"config,omitempty"`    // the settings of its training
	Notes      []string          `json:"notes,omitempty"`     // what to know of the model, a sentence each
	Quantized  *quantize.Report  `json:"quantized,omitempty"` // of a quantized model, the report of its quantization
	History    []train.Record    `json:"history,omitempty"`   // by epoch
	Meta       map[string]string `json:"meta,omitempty"`      // notes in the file of weights, by name
}

// layer is the tensors that share a prefix.
type layer struct {
	Name       string       `json:"name"`           // what its tensors' names have before the last dot
	What       string       `json:"what,omitempty"` // such as "LSTM, 2 layers, 12 -> 64"
	Parameters int          `json:"parameters"`     // numbers in its tensors
	Tensors    []tensorInfo `json:"tensors"`        // its tensors, in the order of the file
}

type tensorInfo struct {
	Name      string `json:"name"`                // whole name
	Shape     []int  `json:"shape"`               // dimensions
	Precision string `json:"precision,omitempty"` // what it rests in, if that is not float32: int4, int8, bf16 or fp16
}

func (a *app) inspectCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect DIR|FILE",
		Short: "Show the contents of a model directory, a .safetensors or an ONNX file",
		Long: `Prints the layers with their shapes and numbers of parameters; of a model
directory also the data it needs, its configuration and the course of its training.
Of an ONNX file, also of one that cannot be run, it prints the inputs and outputs, the
states, the operators, and what is not supported.`,
		Example: `  carousel inspect run
  carousel inspect run/model.safetensors --json
  carousel inspect model.onnx`,
		GroupID: groupAbout,
		Args:    oneArg("a model directory, a .safetensors or an ONNX file"),
		RunE: func(_ *cobra.Command, args []string) error {
			if strings.EqualFold(filepath.Ext(args[0]), ".onnx") {
				return a.inspectGraph(args[0])
			}
			in, err := a.inspect(args[0])
			if err != nil {
				return err
			}
			name := "inspect"
			if in.Config != nil {
				name += "." + in.Task
			}
			return a.emit(name, in, in.print)
		},
	}
}

func (a *app) inspect(path string) (*inspection, error) {
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		f, err := model.ReadTensors(path)
		if err != nil {
			return nil, err
		}
		in := &inspection{Path: path, Kind: "weights", Meta: f.Meta}
		in.addLayers(f)
		return in, nil
	}
	dir, err := model.Open(path)
	if err != nil {
		return nil, err
	}
	in := &inspection{Path: path, Kind: "model", Task: dir.Task, Version: dir.Version, Meta: dir.Weights.Meta}
	in.addLayers(dir.Weights)
	if k := a.kindOf(dir); k != nil {
		m, err := k.Open(dir)
		if err != nil {
			return nil, err
		}
		in.Task, in.Config, in.Data, in.Notes = k.Name, m.Settings(), m.Wants(), m.Notes()
	}
	if in.Quantized, err = quantize.ReportOf(dir); err != nil {
		return nil, err
	}
	in.History, err = train.ReadHistory(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return in, nil
}

// addLayers groups tensors by the part of their names before the last dot, in
// the order in which the file has them.
func (in *inspection) addLayers(f *model.File) {
	groups := map[string][]model.Tensor{}
	var names []string
	for _, t := range f.Tensors {
		prefix, _, ok := cutLast(t.Name, ".")
		if !ok {
			prefix = ""
		}
		if groups[prefix] == nil {
			names = append(names, prefix)
		}
		groups[prefix] = append(groups[prefix], t)
	}
	for _, name := range names {
		l := layer{Name: name, What: describeLayer(groups[name])}
		for _, t := range groups[name] {
			l.Parameters += max(len(t.Data), len(t.Ints))
			info := tensorInfo{Name: t.Name, Shape: t.Dims}
			if t.Rest != tensor.Float32 {
				info.Precision = t.Rest.String()
			}
			l.Tensors = append(l.Tensors, info)
		}
		in.Parameters += l.Parameters
		in.Layers = append(in.Layers, l)
	}
}

func cutLast(s, sep string) (before, after string, ok bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return "", s, false
}

// describeLayer describes a layer by PyTorch's parameter names and shapes.
func describeLayer(ts []model.Tensor) string {
	shape := map[string][]int{}
	for _, t := range ts {
		_, base, _ := cutLast(t.Name, ".")
		shape[base] = t.Dims
	}
	if hh, ih := shape["weight_hh_l0"], shape["weight_ih_l0"]; len(hh) == 2 && len(ih) == 2 && hh[1] > 0 {
		kind := "recurrent"
		if k, ok := cell.Find(func(s *cell.Spec) bool { return s.Torch != "" && len(s.Gates)*hh[1] == hh[0] }); ok {
			kind = k.Spec().Torch
		}
		layers := 1
		for shape[fmt.Sprintf("weight_hh_l%d", layers)] != nil {
			layers++
		}
		text := fmt.Sprintf("%s, %s, %d -> %d", kind, report.Plural(layers, "layer"), ih[1], hh[1])
		if shape["weight_hh_l0_reverse"] != nil {
			text += ", both directions"
		}
		return text
	}
	w := shape["weight"]
	switch {
	case len(w) == 2 && shape["bias"] != nil:
		return fmt.Sprintf("linear, %d -> %d", w[1], w[0])
	case len(w) == 1 && shape["bias"] != nil:
		return fmt.Sprintf("norm over %d", w[0])
	case len(w) == 2 && len(shape) == 1:
		return fmt.Sprintf("table or linear without bias, %d x %d", w[0], w[1])
	}
	return ""
}

// print writes the inspection for people.
func (in *inspection) print(w io.Writer) {
	if in.Kind == "model" {
		fmt.Fprintf(w, "%s: a %s model, written by carousel %s\n", in.Path, in.Task, in.Version)
	} else {
		fmt.Fprintf(w, "%s: weights\n", in.Path)
	}
	fmt.Fprintf(w, "\nLayers (%s)\n", report.Plural(in.Parameters, "parameter"))
	for _, l := range in.Layers {
		fmt.Fprintf(w, "  %s: %s\n", orDash(l.Name), orDash(l.What))
		for _, t := range l.Tensors {
			_, base, _ := cutLast(t.Name, ".")
			line := fmt.Sprintf("    %-24s %-16s %s", base, strings.ReplaceAll(fmt.Sprint(t.Shape), " ", " x "), t.Precision)
			fmt.Fprintln(w, strings.TrimRight(line, " "))
		}
	}
	printPairs(w, "Data", in.Data)
	printPairs(w, "Settings", in.Config)
	if in.Quantized != nil {
		fmt.Fprintf(w, "\nQuantized\n  %s\n", in.Quantized.Summary().Verdict)
		if text := in.Quantized.Here(); text != "" {
			fmt.Fprintf(w, "  %s\n", text)
		}
	}
	printHistory(w, in.History)
	for _, n := range in.Notes {
		fmt.Fprintf(w, "\nNote: %s\n", n)
	}
	if len(in.Meta) > 0 {
		fmt.Fprintf(w, "\nNotes in the file\n")
		for _, k := range slices.Sorted(maps.Keys(in.Meta)) {
			fmt.Fprintf(w, "  %s: %s\n", k, in.Meta[k])
		}
	}
}

// printPairs lists the fields of a struct that have a value; ptr may be nil.
func printPairs(w io.Writer, title string, ptr any) {
	if ptr == nil {
		return
	}
	fmt.Fprintf(w, "\n%s\n", title)
	pairs := settingPairs(ptr)
	width := 14
	for _, p := range pairs {
		width = max(width, len(p.Name))
	}
	for _, p := range pairs {
		fmt.Fprintf(w, "  %-*s %s\n", width, p.Name, p.Value)
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// printHistory writes the first epoch, the last, and some between.
func printHistory(w io.Writer, records []train.Record) {
	if len(records) == 0 {
		return
	}
	metrics := slices.Sorted(maps.Keys(records[len(records)-1].Val))
	head := []string{"epoch", "step", "lr", "train_loss"}
	for _, m := range metrics {
		head = append(head, "val_"+m)
	}
	const most = 12
	stride := (len(records) + most - 1) / most
	var rows [][]string
	for i, r := range records {
		if i%stride != 0 && i != len(records)-1 {
			continue
		}
		row := []string{report.Count(r.Epoch), report.Count(r.Step), report.Number(float64(r.LR)), report.Number(r.TrainLoss)}
		for _, m := range metrics {
			v, ok := r.Val[m]
			if !ok {
				v = math.NaN()
			}
			row = append(row, report.Number(v))
		}
		rows = append(rows, row)
	}
	fmt.Fprintf(w, "\nTraining (%s, %.0f s)\n", report.Plural(len(records), "epoch"), records[len(records)-1].Seconds)
	printTable(w, head, rows)
}
