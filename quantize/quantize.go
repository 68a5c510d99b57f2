package quantize

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/bench"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// Options is what is asked for.
type Options struct {
	Precision     string   `json:"precision" oneof:"int4,int8,bf16,fp16" group:"Quantization" help:"numbers that weight matrices rest in"`
	Keep          []string `json:"keep,omitempty" group:"Quantization" help:"names of matrices, or their beginnings, that stay in float32"`
	MinAccuracy   float64  `json:"min_accuracy" range:"0..1" group:"Verdict" help:"share of the accuracy in float32 that must be kept: the lower end of its 95 % interval; of an ONNX file with inputs, of the decisions"`
	TargetSpeedup float64  `json:"target_speedup,omitempty" range:"0..1e6" group:"Verdict" help:"speed of a stream's step that must be reached, as a multiple of that in float32 (0: it must not be slower)"`
}

// DefaultOptions returns the defaults.
func DefaultOptions() *Options { return &Options{Precision: "int8", MinAccuracy: 0.98} }

func (o *Options) wanted() (tensor.Precision, error) {
	at := slices.IndexFunc(widths[:], func(p tensor.Precision) bool { return p.String() == o.Precision && p != tensor.Float32 })
	if at < 0 {
		return 0, &data.InputError{Problem: fmt.Sprintf("precision %q: expected int4, int8, bf16 or fp16", o.Precision)}
	}
	return widths[at], nil
}

// Rows are data of which a part is scored.
type Rows struct {
	Data task.Data
	Part task.Part
}

// Run lets the matrices of m, a model opened for it alone, rest as the options ask, and judges the
// result beside f, the same model opened again. The verdict counts on rows, nil if there are none;
// which matrices are to rest in more bits is chosen on other rows, calibration, or without these by
// how far rounding moves a matrix. scoring is the task's options of an evaluation, or nil.
// progress is called with a sentence when a part of the work begins.
//
// A model that cannot be rounded and invalid options are a *data.InputError; other errors are those of
// [task.Trained.Tally]. A refusal is no error: it is the report's verdict.
func Run(ctx context.Context, f, m *task.Trained, calibration, rows *Rows, scoring any, o *Options, progress func(string)) (*Report, error) {
	wanted, err := o.wanted()
	if err != nil {
		return nil, err
	}
	if wanted == tensor.Int4 && calibration == nil {
		return nil, &data.InputError{Problem: "precision int4: it takes rows by whose inputs the rounding is corrected", Fix: "give rows that the verdict is not measured on by --calibrate, or --data with test rows beside the model's validation rows"}
	}
	q := &quantizer{Options: o, wanted: wanted, f: f, m: m, network: networkOf(m), scoring: scoring, progress: progress, float32s: map[*Rows]*task.Tally{}}
	if err := cmp.Or(q.check(), q.keep(o.Keep)); err != nil {
		return nil, err
	}
	for _, one := range q.matrices {
		if one.why == "" && !one.fits(wanted) {
			one.why = fmt.Sprintf("it holds values beyond those of %s", wanted)
		}
		if one.why == "" {
			one.rest = wanted
		}
	}
	if wanted == tensor.Int4 {
		if err := q.correct(ctx, calibration); err != nil {
			return nil, err
		}
	}
	q.Report = &Report{Task: m.Kind.Name, Asked: *o, Kernels: kernels(), Processor: bench.CPUName()}
	if err := q.choose(ctx, calibration, rows); err != nil {
		return nil, err
	}
	return q.Report, q.measure(ctx, rows)
}

// quantizer is one Run.
type quantizer struct {
	*Options
	*network
	*Report
	wanted   tensor.Precision
	f, m     *task.Trained
	scoring  any
	progress func(string)
	float32s map[*Rows]*task.Tally // of the float32 model
}

// fewWeights is the number of weights from which on a matrix is rounded to 4 bits. The rounding of a
// smaller one, mostly a head, costs about as much of the accuracy as that of a large one, and saves little.
const fewWeights = 4096

// correct computes the values of matrices in 4 bits, from what they are multiplied by when the float32
// model is scored on the calibration rows.
func (q *quantizer) correct(ctx context.Context, calibration *Rows) error {
	q.progress("scoring the float32 model, for the inputs of each matrix")
	all, err := observe(slabsOf(q.f), func() (err error) {
		q.float32s[calibration], err = q.f.Tally(ctx, calibration.Data, calibration.Part, q.scoring)
		return err
	})
	if err != nil {
		return err
	}
	for _, m := range q.matrices {
		if m.rest == tensor.Int4 && m.params[0].Len() < fewWeights {
			m.rest, m.why = tensor.Int8, fmt.Sprintf("of fewer than %d weights 4 bits would save little", fewWeights)
		}
		if m.rest == tensor.Int4 && all[m.name] == nil && !m.table {
			m.rest, m.why = tensor.Int8, "what it is multiplied by was not observed, so its rounding cannot be corrected"
		}
		if m.rest != tensor.Int4 {
			continue
		}
		q.progress("rounding " + m.name + " with error feedback")
		f := newFeedback(all[m.name], m.params[0].Len()/m.params[0].Dim(0))
		for _, original := range m.original {
			if err := ctx.Err(); err != nil {
				return err
			}
			values := slices.Clone(original)
			f.round(values)
			m.in4 = append(m.in4, values)
		}
	}
	return nil
}

// accuracy compares the model as it rests now with the float32 model.
func (q *quantizer) accuracy(ctx context.Context, r *Rows) (*Accuracy, error) {
	if q.float32s[r] == nil {
		t, err := q.f.Tally(ctx, r.Data, r.Part, q.scoring)
		if err != nil {
			return nil, err
		}
		q.float32s[r] = t
	}
	t, err := q.m.Tally(ctx, r.Data, r.Part, q.scoring)
	if err != nil {
		return nil, err
	}
	if len(t.Rows) != len(q.float32s[r].Rows) {
		return nil, fmt.Errorf("the models were scored on different rows: %d and %d", len(q.float32s[r].Rows), len(t.Rows))
	}
	a := compare(q.float32s[r], t)
	a.Part = string(r.Part)
	return a, nil
}

// choose lets matrices rest in more bits, those that cost most first, until the accuracy holds on the
// calibration rows, after which those of the verdict are scored once; without calibration rows, on
// those of the verdict.
func (q *quantizer) choose(ctx context.Context, calibration, rows *Rows) error {
	for {
		q.apply()
		on := cmp.Or(calibration, rows)
		if on == nil {
			return nil // nothing to judge by
		}
		q.progress(fmt.Sprintf("scoring %s", q.plan()))
		a, err := q.accuracy(ctx, on)
		if err != nil {
			return err
		}
		q.Plans++
		if a.Low >= q.MinAccuracy || !q.any() {
			switch {
			case on == rows:
				q.Accuracy = a
			case rows != nil:
				q.progress("scoring the rows of the verdict")
				q.Accuracy, err = q.accuracy(ctx, rows)
			}
			return err
		}
		if q.Plans == 1 {
			if err := q.rank(ctx, calibration); err != nil {
				return err
			}
		}
		q.raise(a)
	}
}

// widths are the precisions of matrices, the smallest first.
var widths = [...]tensor.Precision{tensor.Int4, tensor.Int8, tensor.BFloat16, tensor.Float16, tensor.Float32}

func width(p tensor.Precision) int { return slices.Index(widths[:], p) }

// any reports whether a matrix rests in less than float32.
func (n *network) any() bool {
	return slices.ContainsFunc(n.matrices, func(m *matrix) bool { return m.rest != tensor.Float32 })
}

// plan describes what rests in what.
func (n *network) plan() string {
	count := map[tensor.Precision]int{}
	for _, m := range n.matrices {
		count[m.rest]++
	}
	var parts []string
	for _, r := range widths {
		if count[r] > 0 {
			parts = append(parts, fmt.Sprintf("%s in %s", report.Agree(count[r], "matrix", "matrices"), r))
		}
	}
	return strings.Join(parts, ", ")
}

// rank sets what the rounding of each matrix costs: of the accuracy on the calibration rows, with
// this matrix alone; without such rows the relative error of its values.
func (q *quantizer) rank(ctx context.Context, calibration *Rows) error {
	if calibration == nil {
		for _, m := range q.matrices {
			m.cost = m.roundingError()
		}
		return nil
	}
	plan := make([]tensor.Precision, len(q.matrices))
	for i, m := range q.matrices {
		plan[i] = m.rest
	}
	for i, m := range q.matrices {
		for _, other := range q.matrices {
			other.rest = tensor.Float32
		}
		if plan[i] == tensor.Float32 {
			continue
		}
		m.rest = plan[i]
		q.apply()
		q.progress("what it costs that " + m.name + " is rounded")
		a, err := q.accuracy(ctx, calibration)
		if err != nil {
			return err
		}
		m.scored, m.cost = true, 1-a.Kept
	}
	for i, m := range q.matrices {
		m.rest = plan[i]
	}
	return nil
}

// raise lets a matrix rest in the next larger precision: of those in the smallest one, that which costs most.
func (q *quantizer) raise(a *Accuracy) {
	most := slices.MinFunc(q.matrices, func(a, b *matrix) int {
		return cmp.Or(cmp.Compare(width(a.rest), width(b.rest)), cmp.Compare(b.cost, a.cost))
	})
	reason := fmt.Sprintf("with it in %s the accuracy kept was at least %s on %d rows, %s was asked for", most.rest, report.Percent(a.Low), a.Rows, report.Percent(q.MinAccuracy))
	switch most.rest {
	case tensor.Int4:
		most.rest = tensor.Int8
	case tensor.Int8:
		most.rest = tensor.BFloat16
	default:
		most.rest = tensor.Float32
	}
	most.why = reason
}

// measure completes the report of the model as it rests.
func (q *quantizer) measure(ctx context.Context, rows *Rows) (err error) {
	f, m := q.f.Slab(), q.m.Slab()
	for _, one := range q.matrices {
		row := Matrix{Name: one.name, Shape: one.params[0].Dims(), Precision: one.rest.String(), Why: one.why, Error: one.roundingError()}
		if one.scored {
			row.Cost = &one.cost
		}
		q.Matrices = append(q.Matrices, row)
	}
	q.Size = sizeOf(m)
	q.progress("timing both models")
	if q.Speed, err = speed(ctx, f, m); err != nil {
		return err
	}
	if rows != nil {
		whole, err := alternate(ctx, wholes, q.timed(ctx, q.f, rows), q.timed(ctx, q.m, rows))
		if err != nil {
			return err
		}
		q.Speed.Whole = &whole
	}
	q.progress(fmt.Sprintf("%d steps of each recurrent layer", driftSteps))
	if q.Drift, err = drift(ctx, f, m); err != nil {
		return err
	}
	pass := normalPass(f)
	if rows != nil && q.f.Kind.CanProbe() {
		if pass, err = q.f.Probe(ctx, rows.Data, 64); err != nil {
			return err
		}
	}
	q.Gates = gates(f.Device(), pass)
	q.judge(q.any())
	return nil
}

func (q *quantizer) timed(ctx context.Context, m *task.Trained, r *Rows) func() {
	return func() { _, _ = m.Tally(ctx, r.Data, r.Part, q.scoring) } // it has succeeded before
}
