package quantize

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/bench"
	"github.com/carousel-ml/carousel/model/onnx/graph"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/tensor"
)

// GraphReport is what [Graph] found.
type GraphReport struct {
	Precision string    `json:"precision"`         // what was asked for
	Verdict   Verdict   `json:"verdict"`           // refused, or unknown: a graph says nothing of what its outputs are for
	Reasons   []string  `json:"reasons,omitempty"` // of the verdict, a sentence each
	Forced    bool      `json:"forced,omitempty"`  // whether the graph was written although it was refused
	Inputs    string    `json:"inputs"`            // what both graphs were run on: given or random
	Outputs   []Changed `json:"outputs"`           // how far they moved
	Speed     Times     `json:"speed"`             // of a run of both graphs on the inputs
	Size      Size      `json:"size"`              // of the file
	Matrices  []Matrix  `json:"matrices"`          // the weight matrices, in the order of the file
	Kernels   string    `json:"kernels"`           // the kernels of this machine
	Processor string    `json:"processor"`         // its processor
}

// Changed is how far an output of a graph moved.
type Changed struct {
	Name     string   `json:"name"`              // of the output
	Elements int      `json:"elements"`          // number of its elements
	Worst    float64  `json:"worst"`             // greatest difference of an element
	Relative float64  `json:"relative"`          // norm of the difference by the norm of the output
	Flipped  *float64 `json:"flipped,omitempty"` // share of the elements on the other side of one half, of an output from 0 to 1
}

// Runner runs a graph on inputs, the same each time.
type Runner func(context.Context) (map[string]graph.Value, error)

// Graph lets the matrices of m rest as the options ask and compares it with f, the same file read again,
// on the inputs of both runners. A graph that is quantized already, or has weights that are not finite, and
// invalid options are a *data.InputError; other errors are those of the runners.
func Graph(ctx context.Context, f, m *graph.Model, runF, runM Runner, o *Options, progress func(string)) (*GraphReport, error) {
	wanted, err := o.wanted()
	if err != nil {
		return nil, err
	}
	if wanted == tensor.Int4 {
		return nil, &data.InputError{Problem: "precision int4: the weights of an ONNX graph rest in 8 or 16 bits", Fix: "choose int8, bf16 or fp16"}
	}
	if why := m.Quantized(); why != "" {
		return nil, &data.InputError{Problem: "the graph is quantized already: " + why, Fix: "quantize the float32 graph that it was made from"}
	}
	r := &GraphReport{Precision: o.Precision, Kernels: kernels(), Processor: bench.CPUName()}
	all := m.Weights()
	if len(all) == 0 {
		return nil, &data.InputError{Problem: "the graph has no weight matrix that could be rounded"}
	}
	var names []string
	for _, w := range all {
		names = append(names, w.Name)
	}
	kept, err := reasonsToKeep(o.Keep, names)
	if err != nil {
		return nil, err
	}
	for _, w := range all {
		row := Matrix{Name: w.Name, Shape: w.Dims, Role: w.Role, Precision: tensor.Float32.String(), Why: kept[w.Name]}
		if row.Why == "" {
			switch err := m.SetRest(w.Name, wanted); {
			case errors.Is(err, graph.ErrRest):
				row.Why = err.Error()
			case err != nil:
				return nil, &data.InputError{Problem: err.Error(), Fix: "export the graph again from weights that are finite"}
			default:
				row.Precision = wanted.String()
			}
		}
		r.Matrices = append(r.Matrices, row)
	}
	progress("running both graphs")
	want, err := runF(ctx)
	if err != nil {
		return nil, err
	}
	if r.Outputs, err = moved(ctx, m, want, runM); err != nil {
		return nil, err
	}
	if err := r.alone(ctx, m, want, runM, wanted, progress); err != nil {
		return nil, err
	}
	call := func(run Runner) func() { return func() { _, _ = run(ctx) } } // it has succeeded before
	if r.Speed, err = alternate(ctx, windows, call(runF), call(runM)); err != nil {
		return nil, err
	}
	r.judge(o)
	return r, nil
}

// moved runs a graph and compares its outputs with those of float32.
func moved(ctx context.Context, m *graph.Model, want map[string]graph.Value, run Runner) (list []Changed, err error) {
	got, err := run(ctx)
	if err != nil {
		return nil, err
	}
	for _, info := range m.Outputs() {
		if v := want[info.Name]; len(v.Data) > 0 {
			list = append(list, changed(info.Name, v.Data, got[info.Name].Data))
		}
	}
	return list, nil
}

// alone measures what each matrix costs that is rounded alone: the greatest relative change of an output.
func (r *GraphReport) alone(ctx context.Context, m *graph.Model, want map[string]graph.Value, run Runner, wanted tensor.Precision, progress func(string)) error {
	all := func(p tensor.Precision) error {
		for i := range r.Matrices {
			if row := &r.Matrices[i]; row.Precision != tensor.Float32.String() {
				if err := m.SetRest(row.Name, p); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if err := all(tensor.Float32); err != nil {
		return err
	}
	for i := range r.Matrices {
		row := &r.Matrices[i]
		if row.Precision == tensor.Float32.String() {
			continue
		}
		progress("what it costs that " + row.Name + " is rounded")
		if err := m.SetRest(row.Name, wanted); err != nil {
			return err
		}
		list, err := moved(ctx, m, want, run)
		if err != nil {
			return err
		}
		cost := 0.0
		for _, c := range list {
			cost = math.Max(cost, c.Relative)
		}
		row.Cost = &cost
		if err := m.SetRest(row.Name, tensor.Float32); err != nil {
			return err
		}
	}
	return all(wanted)
}

func changed(name string, want, got []float32) Changed {
	c := Changed{Name: name, Elements: len(want), Worst: worst(want, got), Relative: relativeError(want, got)}
	flipped, probabilities := 0, true
	for i, v := range want {
		if probabilities = probabilities && v >= 0 && v <= 1; (v >= 0.5) != (got[i] >= 0.5) {
			flipped++
		}
	}
	if probabilities {
		share := float64(flipped) / float64(len(want))
		c.Flipped = &share
	}
	return c
}

func (r *GraphReport) judge(o *Options) {
	if r.Speed.slower() {
		r.Reasons = append(r.Reasons, r.Speed.slow("a run", r.Processor, r.Kernels))
	}
	if r.Speed.Ratio < o.TargetSpeedup {
		r.Reasons = append(r.Reasons, r.Speed.missed("a run", o.TargetSpeedup))
	}
	for _, c := range r.Outputs {
		if c.Relative != c.Relative || c.Worst != c.Worst {
			r.Reasons = append(r.Reasons, fmt.Sprintf("output %s: its difference from float32 is not a number", c.Name))
		}
		if c.Flipped != nil && 1-*c.Flipped < o.MinAccuracy {
			r.Reasons = append(r.Reasons, fmt.Sprintf("output %s: %s of its elements are on the other side of one half, and %s were to stay", c.Name, report.Percent(*c.Flipped), report.Percent(o.MinAccuracy)))
		}
	}
	if r.Verdict = Refused; len(r.Reasons) == 0 {
		r.Verdict = Unknown
		r.Reasons = []string{"accuracy: unknown, because a graph does not say what its outputs are for; the table has how far they moved"}
	}
}

// Summary returns the report for people.
func (r *GraphReport) Summary() *report.Summary {
	s := &report.Summary{Scored: r.Inputs + " inputs", Tone: r.Verdict.tone(), Verdict: r.Verdict.sentence(r.Reasons)}
	t := report.NewTable("graph", "file", "a run")
	t.Add("float32", bytesOf(r.Size.Float32), report.Number(r.Speed.Float32)+" ms")
	t.Add("quantized", bytesOf(r.Size.Quantized), report.Number(r.Speed.Quantized)+" ms")
	if r.Size.Share > 0 {
		t.Add("float32 by quantized", fmt.Sprintf("%.2f", 1/r.Size.Share), fmt.Sprintf("%.2f", r.Speed.Ratio))
	}
	outputs := report.NewTable("output", "elements", "greatest difference", "relative", "other side of 1/2")
	for _, c := range r.Outputs {
		flipped := ""
		if c.Flipped != nil {
			flipped = report.Percent(*c.Flipped)
		}
		outputs.Add(c.Name, report.Count(c.Elements), report.Number(c.Worst), report.Percent(c.Relative), flipped)
	}
	s.Tables = append(s.Tables, t, outputs, matrixTable(r.Matrices))
	s.Notes = []string{measuredOn(r.Processor, r.Kernels)}
	return s
}
