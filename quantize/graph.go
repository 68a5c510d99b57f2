package quantize

import (
	"context"
	"fmt"
	"math"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/bench"
	"github.com/carousel-ml/carousel/model/onnx/graph"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/tensor"
)

// GraphReport is what Graph found.
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
	Name     string  `json:"name"`     // of the output
	Elements int     `json:"elements"` // number of its elements
	Worst    float64 `json:"worst"`    // greatest difference of an element
	Relative float64 `json:"relative"` // norm of the difference by the norm of the output
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
	if why := m.Quantized(); why != "" {
		return nil, &data.InputError{Problem: "the graph is quantized already: " + why, Fix: "quantize the float32 graph that it was made from"}
	}
	r := &GraphReport{Precision: o.Precision, Kernels: kernels(), Processor: bench.CPUName()}
	all := m.Weights()
	if len(all) == 0 {
		return nil, &data.InputError{Problem: "the graph has no weight matrix that could be rounded"}
	}
	kept := map[string]string{}
	for _, name := range o.Keep {
		n := len(kept)
		for _, w := range all {
			if strings.HasPrefix(w.Name, name) {
				kept[w.Name] = "--keep " + name
			}
		}
		if len(kept) == n {
			return nil, unknownKeep(name, all)
		}
	}
	for _, w := range all {
		row := Matrix{Name: w.Name, Shape: w.Dims, Role: w.Role, Precision: tensor.Float32.String(), Why: kept[w.Name]}
		if row.Why == "" {
			if err := m.SetRest(w.Name, wanted); err != nil {
				return nil, err
			}
			row.Precision = wanted.String()
		}
		r.Matrices = append(r.Matrices, row)
	}
	progress("running both graphs")
	want, err := runF(ctx)
	if err != nil {
		return nil, err
	}
	got, err := runM(ctx)
	if err != nil {
		return nil, err
	}
	for _, info := range m.Outputs() {
		if v := want[info.Name]; len(v.Data) > 0 {
			r.Outputs = append(r.Outputs, changed(info.Name, v.Data, got[info.Name].Data))
		}
	}
	call := func(run Runner) func() { return func() { _, _ = run(ctx) } } // it has succeeded before
	if r.Speed, err = alternate(ctx, windows, call(runF), call(runM)); err != nil {
		return nil, err
	}
	r.judge(o)
	return r, nil
}

func unknownKeep(name string, all []graph.Weight) error {
	var names []string
	for _, w := range all {
		names = append(names, w.Name)
	}
	return &data.InputError{Problem: fmt.Sprintf("keep %q: no weight matrix has a name that begins so", name), Fix: "choose from " + strings.Join(names, ", ")}
}

func changed(name string, want, got []float32) Changed {
	c := Changed{Name: name, Elements: len(want), Relative: relativeError(want, got)}
	for i, v := range want {
		c.Worst = math.Max(c.Worst, math.Abs(float64(v)-float64(got[i])))
	}
	return c
}

func (r *GraphReport) judge(o *Options) {
	refuse := func(format string, a ...any) { r.Reasons = append(r.Reasons, fmt.Sprintf(format, a...)) }
	if r.Speed.slower() {
		refuse("speed: a run takes %.2f times as long as in float32 (%s and %s ms), so it is slower on this machine (%s, %s)", 1/r.Speed.most(), report.Number(r.Speed.Quantized), report.Number(r.Speed.Float32), r.Processor, r.Kernels)
	}
	if o.TargetSpeedup > 0 && r.Speed.Ratio < o.TargetSpeedup {
		refuse("speed: a run is %.2f times as fast as in float32 (%s to %s ms), and %g times was asked for", r.Speed.Ratio, report.Number(r.Speed.Float32), report.Number(r.Speed.Quantized), o.TargetSpeedup)
	}
	for _, c := range r.Outputs {
		if c.Relative != c.Relative || c.Worst != c.Worst {
			refuse("output %s: its difference from float32 is not a number", c.Name)
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
	moved := report.NewTable("output", "elements", "greatest difference", "relative")
	for _, c := range r.Outputs {
		moved.Add(c.Name, report.Count(c.Elements), report.Number(c.Worst), report.Percent(c.Relative))
	}
	s.Tables = append(s.Tables, t, moved, matrixTable(r.Matrices))
	s.Notes = []string{measuredOn(r.Processor, r.Kernels)}
	return s
}
