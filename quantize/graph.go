package quantize

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/bench"
	"github.com/carousel-ml/carousel/model/onnx/graph"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/tensor"
)

// GraphReport is what [Graph] found.
type GraphReport struct {
	Precision string     `json:"precision"`           // what was asked for
	Verdict   Verdict    `json:"verdict"`             // accepted, refused, or unknown where no decisions were counted: a graph says nothing of what its outputs are for
	Reasons   []string   `json:"reasons,omitempty"`   // of the verdict, a sentence each
	Forced    bool       `json:"forced,omitempty"`    // whether the graph was written although it was refused
	Inputs    string     `json:"inputs"`              // what both graphs were run on: given or random
	Outputs   []Changed  `json:"outputs"`             // how far they moved
	Decisions *Decisions `json:"decisions,omitempty"` // of those outputs that decide; absent if none was to be kept
	Speed     Times      `json:"speed"`               // of a run of both graphs on the inputs
	Size      Size       `json:"size"`                // of the file
	Matrices  []Matrix   `json:"matrices"`            // the weight matrices, in the order of the file
	Kernels   string     `json:"kernels"`             // the kernels of this machine
	Processor string     `json:"processor"`           // its processor
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
// on the inputs of both runners. Where the decisions of the outputs in decide do not stay as the options ask, matrices rest
// in more bits until they do; without such outputs the verdict is at best unknown. A graph that is quantized already, or
// has weights that are not finite, and invalid options are a *data.InputError; other errors are those of the runners.
func Graph(ctx context.Context, f, m *graph.Model, runF, runM Runner, decide []string, o *Options, progress func(string)) (*GraphReport, error) {
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
	progress("running the float32 graph")
	want, err := runF(ctx)
	if err != nil {
		return nil, err
	}
	r.Decisions = newDecisions(want, decide, o.MinAccuracy)
	if err := r.alone(ctx, m, r.Decisions.calibration(want), runM, wanted, progress); err != nil {
		return nil, err
	}
	got, err := r.choose(ctx, m, want, runM, progress)
	if err != nil {
		return nil, err
	}
	r.Outputs = moved(m, want, got)
	call := func(run Runner) func() { return func() { _, _ = run(ctx) } } // it has succeeded before
	if r.Speed, err = alternate(ctx, windows, call(runF), call(runM)); err != nil {
		return nil, err
	}
	r.judge(o)
	return r, nil
}

// moved compares outputs of a graph, or their beginnings, with those of float32.
func moved(m *graph.Model, want, got map[string]graph.Value) (list []Changed) {
	for _, info := range m.Outputs() {
		if v := want[info.Name]; len(v.Data) > 0 {
			list = append(list, changed(info.Name, v.Data, got[info.Name].Data[:len(v.Data)]))
		}
	}
	return list
}

// choose lets matrices rest in more bits, those that cost most first, until enough decisions of the first half stay, and
// returns the outputs. Of these half as many may be others as of the second, because a choice looks better on what it was made by.
func (r *GraphReport) choose(ctx context.Context, m *graph.Model, want map[string]graph.Value, run Runner, progress func(string)) (got map[string]graph.Value, err error) {
	d := r.Decisions
	for {
		if got, err = run(ctx); err != nil || d == nil {
			return got, err
		}
		kept, asked := d.compare(want, got), (1+d.Asked)/2
		if kept >= asked || !r.rounded() {
			return got, nil
		}
		name, err := r.raise(m, fmt.Sprintf("%s of %s decisions stayed, and %s were to", percent(kept), report.Count(d.Calibration), percent(asked)))
		if err != nil {
			return nil, err
		}
		progress(fmt.Sprintf("%s of the decisions stay, so %s rests in more bits", percent(kept), name))
	}
}

// rounded reports whether a matrix rests in less than float32.
func (r *GraphReport) rounded() bool {
	return slices.ContainsFunc(r.Matrices, func(row Matrix) bool { return row.Precision != tensor.Float32.String() })
}

// raise lets a matrix rest in more bits: of those in the fewest, that which costs most. From 8 bits it goes to float16, which
// is closer to float32 than bfloat16, unless its numbers are beyond that.
func (r *GraphReport) raise(m *graph.Model, why string) (name string, err error) {
	bits := func(row *Matrix) int {
		return slices.IndexFunc(widths[:], func(p tensor.Precision) bool { return p.String() == row.Precision })
	}
	var most *Matrix
	for i := range r.Matrices {
		row := &r.Matrices[i]
		if row.Precision != tensor.Float32.String() && (most == nil || cmp.Or(cmp.Compare(bits(row), bits(most)), cmp.Compare(*most.Cost, *row.Cost)) < 0) {
			most = row
		}
	}
	next := tensor.Float32
	if most.Precision == tensor.Int8.String() {
		next = tensor.Float16
	}
	if err = m.SetRest(most.Name, next); errors.Is(err, graph.ErrRest) {
		next = tensor.BFloat16
		err = m.SetRest(most.Name, next)
	}
	most.Why, most.Precision = fmt.Sprintf("with it in %s %s", most.Precision, why), next.String()
	return most.Name, err
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
		got, err := run(ctx)
		if err != nil {
			return err
		}
		cost := 0.0
		for _, c := range moved(m, want, got) {
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
	switch {
	case !r.rounded():
		r.Reasons = append(r.Reasons, "every matrix stays in float32, so nothing is gained")
	case r.Speed.slower():
		r.Reasons = append(r.Reasons, r.Speed.slow("a run", r.Processor, r.Kernels))
	}
	if r.Speed.Ratio < o.TargetSpeedup {
		r.Reasons = append(r.Reasons, r.Speed.missed("a run", o.TargetSpeedup))
	}
	for _, c := range r.Outputs {
		if c.Relative != c.Relative || c.Worst != c.Worst {
			r.Reasons = append(r.Reasons, fmt.Sprintf("output %s: its difference from float32 is not a number", c.Name))
		}
		if c.Flipped != nil && 1-*c.Flipped < o.MinAccuracy && r.Decisions == nil {
			r.Reasons = append(r.Reasons, fmt.Sprintf("output %s: %s of its elements are on the other side of one half, and %s were to stay", c.Name, report.Percent(*c.Flipped), report.Percent(o.MinAccuracy)))
		}
	}
	d := r.Decisions
	if d != nil && d.Kept < d.Asked {
		r.Reasons = append(r.Reasons, fmt.Sprintf("decisions: %s, and %s were to", d.figures(), percent(d.Asked)))
	}
	switch {
	case len(r.Reasons) > 0:
		r.Verdict = Refused
	case d == nil:
		r.Verdict = Unknown
		r.Reasons = []string{"accuracy: unknown, because a graph does not say what its outputs are for; the table has how far they moved, and with --input and --min-accuracy what they decide is counted"}
	case d.Count < fewest:
		r.Verdict = Unknown
		r.Reasons = []string{fmt.Sprintf("decisions: unknown, because fewer than %d are too few to tell (%s)", fewest, d.figures())}
	default:
		r.Verdict = Accepted
		r.Reasons = []string{"decisions: " + d.figures()}
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
	if d := r.Decisions; d != nil {
		s.Facts = append(s.Facts, report.Fact{Name: "Decisions that stay", Value: percent(d.Kept), Note: fmt.Sprintf("of %s on the second half of the rows or steps; matrices were chosen by %s on the first", report.Count(d.Count), report.Count(d.Calibration))})
		for _, out := range d.Outputs {
			s.Notes = append(s.Notes, fmt.Sprintf("a decision of output %s is %s", out.Name, map[string]string{"half": "on which side of one half an element is", "greatest": "which element of its last dimension is the greatest"}[out.By]))
		}
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
	s.Notes = append(s.Notes, measuredOn(r.Processor, r.Kernels))
	return s
}
