package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/carousel-ml/carousel/model/onnx/graph"
	"github.com/carousel-ml/carousel/report"
)

// graphInspection is the result of inspect for an ONNX file.
type graphInspection struct {
	Path       string            `json:"path"`               // what was inspected
	Kind       string            `json:"kind"`               // "graph"
	Runs       bool              `json:"runs"`               // it can be run
	Problem    string            `json:"problem,omitempty"`  // why it cannot
	Producer   string            `json:"producer,omitempty"` // the program that wrote the file
	Opsets     map[string]int    `json:"opsets"`             // versions of the operators by domain; that of the standard ones is ai.onnx
	Inputs     []graphValue      `json:"inputs"`             // what run needs
	Outputs    []graphValue      `json:"outputs"`            // what it gives
	States     map[string]string `json:"states"`             // outputs by the input that takes them in the next call, found by name, type and shape
	FreeBatch  bool              `json:"free_batch"`         // the size of a batch may vary: the first dimension of all inputs, and some dimension of states
	Parameters int               `json:"parameters"`         // numbers in all stored tensors
	Operators  []operatorCount   `json:"operators"`          // by falling number
	Meta       map[string]string `json:"meta,omitempty"`     // notes in the file, by name
}

// graphValue is an input or output.
type graphValue struct {
	Name string   `json:"name"`           // its name
	Type string   `json:"type"`           // of the elements, such as float32
	Rank int      `json:"rank"`           // number of dimensions; -1 if the file does not say it
	Dims []string `json:"dims,omitempty"` // sizes; of a dimension that may vary its name, or "?"
}

type operatorCount struct {
	Operator  string   `json:"operator"`        // with its domain, if that is not the standard one
	Count     int      `json:"count"`           // nodes with it
	Supported bool     `json:"supported"`       // it can be run
	Nodes     []string `json:"nodes,omitempty"` // the names of its nodes, if it is not supported
}

func (a *app) inspectGraph(path string) error {
	d, err := graph.Describe(path)
	if err != nil {
		return err
	}
	in := &graphInspection{
		Path: path, Kind: "graph", Runs: d.Problem == "", Problem: d.Problem, Producer: d.Producer, Opsets: d.Opsets, Inputs: graphValues(d.Inputs), Outputs: graphValues(d.Outputs),
		States: map[string]string{}, FreeBatch: d.FreeBatch(), Parameters: d.Parameters, Meta: d.Meta,
	}
	for _, p := range d.States {
		in.States[p.Input] = p.Output
	}
	for _, u := range d.Operators {
		one := operatorCount{Operator: u.Operator, Count: len(u.Nodes), Supported: u.Supported}
		if !u.Supported {
			one.Nodes = u.Nodes
		}
		in.Operators = append(in.Operators, one)
	}
	return a.emit("inspect.onnx", in, in.print)
}

func graphValues(list []graph.ValueInfo) []graphValue {
	var values []graphValue
	for _, info := range list {
		v := graphValue{Name: info.Name, Type: info.Type, Rank: len(info.Dims)}
		if info.Any {
			v.Rank = -1
		}
		for _, d := range info.Dims {
			v.Dims = append(v.Dims, d.String())
		}
		values = append(values, v)
	}
	return values
}

// printable is a name from a file, which may hold anything, for a terminal.
func printable(name string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, name)
}

func (v graphValue) String() string {
	if v.Rank < 0 {
		return printable(v.Name) + " " + v.Type
	}
	return fmt.Sprintf("%s %s[%s]", printable(v.Name), v.Type, strings.Join(v.Dims, ","))
}

// print writes the inspection for people.
func (in *graphInspection) print(w io.Writer) {
	fmt.Fprintf(w, "%s: an ONNX graph", in.Path)
	if in.Producer != "" {
		fmt.Fprintf(w, ", written by %s", in.Producer)
	}
	var opsets []string
	for _, domain := range slices.Sorted(maps.Keys(in.Opsets)) {
		opsets = append(opsets, fmt.Sprintf("%s %d", domain, in.Opsets[domain]))
	}
	fmt.Fprintf(w, ", operators of %s\n", strings.Join(opsets, ", "))
	for _, l := range []struct {
		title string
		list  []graphValue
	}{{"Inputs", in.Inputs}, {"Outputs", in.Outputs}} {
		fmt.Fprintf(w, "\n%s\n", l.title)
		for _, v := range l.list {
			fmt.Fprintf(w, "  %s\n", v)
		}
	}
	if len(in.States) > 0 {
		fmt.Fprintf(w, "\nStates (run --steps carries them)\n")
		for _, name := range slices.Sorted(maps.Keys(in.States)) {
			fmt.Fprintf(w, "  %s takes %s\n", printable(name), printable(in.States[name]))
		}
	}
	fmt.Fprintf(w, "\nOperators (%s)\n", report.Plural(in.Parameters, "parameter"))
	for _, o := range in.Operators {
		if o.Supported {
			fmt.Fprintf(w, "  %5d  %s\n", o.Count, o.Operator)
		} else {
			fmt.Fprintf(w, "  %5d  %s, not supported: %s\n", o.Count, o.Operator, list(o.Nodes, 4))
		}
	}
	if len(in.Meta) > 0 {
		fmt.Fprintf(w, "\nNotes in the file\n")
		for _, k := range slices.Sorted(maps.Keys(in.Meta)) {
			fmt.Fprintf(w, "  %s: %s\n", k, in.Meta[k])
		}
	}
	switch {
	case in.Problem != "":
		fmt.Fprintf(w, "\nIt cannot be run: %s\n", in.Problem)
	case in.FreeBatch:
		fmt.Fprintf(w, "\nIt can be run, with batches of any size.\n")
	default:
		fmt.Fprintf(w, "\nIt can be run.\n")
	}
}
