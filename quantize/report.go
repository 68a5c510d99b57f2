package quantize

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strings"

	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/tensor"
)

// Verdict is the judgement of a quantized model.
type Verdict string

const (
	Accepted Verdict = "accepted" // it keeps the accuracy and is not slower here
	Refused  Verdict = "refused"  // it is not to be used; Report.Reasons say why
	Unknown  Verdict = "unknown"  // it is not slower here; of its accuracy nothing is known
)

// Report is what [Run] found.
type Report struct {
	Task      string    `json:"task"`               // the model's task
	Asked     Options   `json:"asked"`              // what was asked for
	Verdict   Verdict   `json:"verdict"`            // accepted, refused or unknown
	Reasons   []string  `json:"reasons,omitempty"`  // of the verdict, a sentence each
	Forced    bool      `json:"forced,omitempty"`   // whether the model was written although it was refused
	Accuracy  *Accuracy `json:"accuracy,omitempty"` // on the rows of the verdict; absent without them
	Plans     int       `json:"plans"`              // how many choices of what rests in what were scored
	Speed     Speed     `json:"speed"`              // times of both models on this machine
	Size      Size      `json:"size"`               // of the weights
	Matrices  []Matrix  `json:"matrices"`           // the weight matrices, in the order of the network
	Drift     []Drift   `json:"drift,omitempty"`    // of recurrent layers
	Gates     []Gate    `json:"gates,omitempty"`    // of recurrent layers, on a batch of the rows, or on standard normal inputs if the task cannot show these
	Kernels   string    `json:"kernels"`            // the kernel set of the machine of the verdict
	Processor string    `json:"processor"`          // its processor
}

// Size is the bytes of the weights.
type Size struct {
	Float32   int64   `json:"float32"`   // bytes of all parameters in float32
	Quantized int64   `json:"quantized"` // bytes of all parameters as they rest
	Share     float64 `json:"share"`     // quantized by float32
}

// FileSizes returns the sizes of two files; zeros if they cannot be read.
func FileSizes(f, q string) (z Size) {
	one, err := os.Stat(f)
	other, err2 := os.Stat(q)
	if err == nil && err2 == nil {
		z = Size{one.Size(), other.Size(), float64(other.Size()) / float64(one.Size())}
	}
	return z
}

// Matrix is one weight matrix.
type Matrix struct {
	Name      string   `json:"name"`            // name of the parameter
	Shape     []int    `json:"shape"`           // dimensions, rows are outputs
	Role      string   `json:"role,omitempty"`  // in a graph: what reads it, such as LSTM input, linear, convolution
	Precision string   `json:"precision"`       // what it rests in: int4, int8, bf16, fp16 or f32
	Why       string   `json:"why,omitempty"`   // why not in what was asked for
	Error     float64  `json:"error,omitempty"` // norm of what rounding changes, by the norm of the matrix
	Cost      *float64 `json:"cost,omitempty"`  // what its rounding alone costs, where that was measured: share of the accuracy on the calibration rows; of a graph the greatest relative change of an output, where decisions are counted on the first half of those that decide
}

// ReportOf returns the report in the directory of a quantized model; nil for another model.
func ReportOf(d *model.Dir) (*Report, error) {
	if !d.Has(ReportFile) {
		return nil, nil
	}
	text, err := d.Read(ReportFile)
	if err != nil {
		return nil, err
	}
	r := &Report{}
	err = json.Unmarshal(text, r)
	if err == nil && r.Verdict.tone() == "" {
		err = fmt.Errorf("its verdict is %q", r.Verdict)
	}
	if err != nil {
		return nil, &model.FileError{File: d.File(ReportFile), Problem: "not a report of a quantization: " + err.Error(), Err: err}
	}
	return r, nil
}

// Here says that this machine has other kernels than that of the verdict; "" if it has the same, or if there
// is no report.
func (r *Report) Here() string {
	if here := kernels(); r != nil && r.Kernels != here {
		return fmt.Sprintf("the model was judged with the kernels %s (%s), and here are %s: times differ from the report's, results at most in their last digits", r.Kernels, r.Processor, here)
	}
	return ""
}

// kernels names the kernel set of this machine, and the instructions of its products in 8 bits.
func kernels() string {
	return fmt.Sprintf("%s, in 8 bits %s", tensor.CPU().Name(), simd.Best().Weights[tensor.Int8].Products.Name)
}

// judge sets the verdict.
func (r *Report) judge(rounded bool) {
	if !rounded {
		r.Reasons = append(r.Reasons, "every matrix stays in float32, so nothing is gained")
	}
	if a := r.Accuracy; a != nil && !(a.Low >= r.Asked.MinAccuracy) {
		r.Reasons = append(r.Reasons, fmt.Sprintf("accuracy: between %s and %s of float32's is kept (%s), and %s was asked for", report.Percent(a.Low), report.Percent(a.High), a.figures(), report.Percent(r.Asked.MinAccuracy)))
	}
	const step = "a step of one stream"
	for _, t := range []struct {
		what string
		*Times
	}{{step, &r.Speed.Stream}, {fmt.Sprintf("%d steps of %d rows", batchSteps, batchRows), &r.Speed.Batch}} {
		if rounded && t.slower() {
			r.Reasons = append(r.Reasons, t.slow(t.what, r.Processor, r.Kernels))
		}
	}
	if r.Speed.Stream.Ratio < r.Asked.TargetSpeedup {
		r.Reasons = append(r.Reasons, r.Speed.Stream.missed(step, r.Asked.TargetSpeedup))
	}
	switch {
	case len(r.Reasons) > 0:
		r.Verdict = Refused
	case r.Accuracy == nil:
		r.Verdict = Unknown
		r.Reasons = []string{"accuracy: unknown, because no --data was given to measure it on"}
	case r.Accuracy.Separate < fewest:
		r.Verdict = Unknown
		r.Reasons = []string{fmt.Sprintf("accuracy: unknown, because less than %d rows that do not overlap are too few to tell (%s)", fewest, r.Accuracy.figures())}
	default:
		r.Verdict = Accepted
		r.Reasons = []string{fmt.Sprintf("accuracy: at least %s of float32's is kept (%s)", report.Percent(r.Accuracy.Low), r.Accuracy.figures())}
	}
}

func (a *Accuracy) figures() string {
	return fmt.Sprintf("%s %s to %s on %s, of which %s differ", strings.ReplaceAll(a.Figure, "_", " "), report.Number(a.Float32), report.Number(a.Quantized), report.Plural(a.Rows, "row"), report.Count(a.Differ))
}

// relativeError returns the norm of the difference of two vectors by the norm of the first.
func relativeError(a, b []float32) float64 {
	diff, norm := 0.0, 0.0
	for i, v := range a {
		d := float64(v) - float64(b[i])
		diff += d * d
		norm += float64(v) * float64(v)
	}
	if norm == 0 {
		return 0
	}
	return math.Sqrt(diff / norm)
}

// Summary returns the report for people, on a terminal and on a page.
func (r *Report) Summary() *report.Summary {
	s := &report.Summary{Scored: "no rows", Tone: r.Verdict.tone(), Verdict: r.Verdict.sentence(r.Reasons)}
	models := report.NewTable("model", "weights", "a stream's step", fmt.Sprintf("%d steps of %d rows", batchSteps, batchRows))
	ms := func(v float64) string { return report.Number(v) + " ms" }
	f := []string{"float32", bytesOf(r.Size.Float32), ms(r.Speed.Stream.Float32), ms(r.Speed.Batch.Float32)}
	q := []string{"quantized", bytesOf(r.Size.Quantized), ms(r.Speed.Stream.Quantized), ms(r.Speed.Batch.Quantized)}
	n := []string{"float32 by quantized", fmt.Sprintf("%.2f", 1/r.Size.Share), fmt.Sprintf("%.2f", r.Speed.Stream.Ratio), fmt.Sprintf("%.2f", r.Speed.Batch.Ratio)}
	if w := r.Speed.Whole; w != nil {
		models.Columns = append(models.Columns, report.NewTable("", "all rows").Columns[1:]...)
		f, q, n = append(f, ms(w.Float32)), append(q, ms(w.Quantized)), append(n, fmt.Sprintf("%.2f", w.Ratio))
	}
	if a := r.Accuracy; a != nil {
		s.Scored = fmt.Sprintf("%s of the part %s", report.Plural(a.Rows, "row"), a.Part)
		models.Columns = append(models.Columns, report.NewTable("", strings.ReplaceAll(a.Figure, "_", " ")).Columns[1:]...)
		f, q, n = append(f, report.Number(a.Float32)), append(q, report.Number(a.Quantized)), append(n, "")
		s.Facts = append(s.Facts, report.Fact{Name: "Accuracy kept", Value: report.Percent(a.Kept), Note: fmt.Sprintf("95 %% interval %s to %s", report.Percent(a.Low), report.Percent(a.High))})
	}
	models.Add(f...).Add(q...).Add(n...)
	s.Facts = append(s.Facts, report.Fact{Name: "A stream's step", Value: fmt.Sprintf("%.2f times as fast", r.Speed.Stream.Ratio)},
		report.Fact{Name: "Weights", Value: bytesOf(r.Size.Quantized), Note: fmt.Sprintf("%s of float32's", report.Percent(r.Size.Share))})
	s.Tables = append(s.Tables, models, matrixTable(r.Matrices))
	if t := r.driftTable(); t != nil {
		s.Add("Long streams", report.Text(fmt.Sprintf("Outputs of both models over %s steps from one state, on standard normal inputs. An error that grows with time would show as a late difference much above the early one.", report.Count(driftSteps))), t)
	}
	if a := r.Accuracy; a != nil && len(a.Examples) > 0 {
		t := report.NewTable("row of the part "+a.Part, "float32", "quantized")
		for _, e := range a.Examples {
			t.Add(report.Count(e.Row), report.Number(e.Float32), report.Number(e.Quantized))
		}
		s.Add("Rows that changed most", report.Text(fmt.Sprintf("The figure (%s) of single rows, by both models.", strings.ReplaceAll(a.Figure, "_", " "))), t)
	}
	if len(r.Gates) > 0 {
		t := report.NewTable("layer", "gates near an end")
		for _, g := range r.Gates {
			t.Add(g.Layer, report.Percent(g.Saturated))
		}
		s.Add("Gates", report.Text("The share of gate values within 0.01 of an end of their range, on a batch of the rows or, where a task cannot show these, on standard normal inputs. There an error of what the gate is computed from changes little."), t)
	}
	s.Notes = append(s.Notes, measuredOn(r.Processor, r.Kernels))
	return s
}

func (v Verdict) tone() report.Tone {
	return map[Verdict]report.Tone{Accepted: report.Good, Refused: report.Caution, Unknown: report.Neutral}[v]
}

func (v Verdict) sentence(reasons []string) string {
	return fmt.Sprintf("%s%s: %s.", strings.ToUpper(string(v[:1])), v[1:], strings.Join(reasons, "; "))
}

func measuredOn(processor, kernels string) string {
	return fmt.Sprintf("measured on %s with the kernels %s; other machines differ in speed, and in the last digits of results", processor, kernels)
}

func matrixTable(list []Matrix) *report.Table {
	t := report.NewTable("matrix", "shape", "rests in", "rounding", "costs")
	for _, m := range list {
		cost, changed := "", ""
		if m.Cost != nil {
			cost = report.Percent(*m.Cost)
		}
		if m.Error > 0 {
			changed = report.Percent(m.Error)
		}
		t.Add(m.Name, strings.Trim(strings.ReplaceAll(fmt.Sprint(m.Shape), " ", " x "), "[]"), m.Precision, changed, cost)
	}
	return t
}

func (r *Report) driftTable() *report.Table {
	if len(r.Drift) == 0 {
		return nil
	}
	t := report.NewTable("layer", "first 100 steps", "last 100 steps", "worst", "cell state")
	for _, d := range r.Drift {
		t.Add(d.Layer, report.Number(d.Early), report.Number(d.Late), report.Number(d.Worst), report.Number(d.Cell))
	}
	return t
}

// bytesOf writes a size.
func bytesOf(n int64) string {
	switch {
	case n < 10_000:
		return fmt.Sprintf("%d bytes", n)
	case n < 10_000_000:
		return fmt.Sprintf("%.0f KB", float64(n)/1e3)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}
