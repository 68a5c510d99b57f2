package quantize

import (
	"fmt"
	"slices"

	"github.com/carousel-ml/carousel/model/onnx/graph"
	"github.com/carousel-ml/carousel/report"
)

// Decisions is what the outputs of both graphs decide. Matrices are chosen by the first half of an output's rows or
// steps, those of its first dimension that is longer than one, and the verdict counts on the second half.
type Decisions struct {
	Asked       float64    `json:"asked"`       // share that must stay as they are
	Outputs     []Deciding `json:"outputs"`     // the outputs that decide
	Calibration int        `json:"calibration"` // number of decisions by which matrices were chosen
	Count       int        `json:"count"`       // number of those of the verdict
	Differ      int        `json:"differ"`      // how many of these are others
	Kept        float64    `json:"kept"`        // share of these that stayed
}

// Deciding is an output of a graph that decides.
type Deciding struct {
	Name string `json:"name"` // of the output
	By   string `json:"by"`   // half: of an output from 0 to 1, on which side of one half each element is; greatest: of another one, which element along its last dimension is the greatest

	size, half int // elements of a decision, and of the first half
}

// newDecisions finds which of some outputs decide: those from 0 to 1, and those whose last dimension is longer than one. It returns
// nil if there is none.
func newDecisions(want map[string]graph.Value, names []string, asked float64) *Decisions {
	d := &Decisions{Asked: asked}
	for _, name := range names {
		v := want[name]
		if len(v.Data) == 0 {
			continue
		}
		out, rows := Deciding{Name: name, By: "half", size: 1}, v.Dims
		if slices.ContainsFunc(v.Data, func(p float32) bool { return !(p >= 0 && p <= 1) }) {
			last := len(rows) - 1
			if last < 0 || rows[last] < 2 {
				continue
			}
			out.By, out.size, rows = "greatest", rows[last], rows[:last]
		}
		below := len(v.Data) // elements of one index of the dimension
		for _, n := range rows {
			if below /= n; n > 1 {
				out.half = n / 2 * below
				break
			}
		}
		d.Outputs = append(d.Outputs, out)
		d.Calibration, d.Count = d.Calibration+out.half/out.size, d.Count+(len(v.Data)-out.half)/out.size
	}
	if d.Count == 0 {
		return nil
	}
	return d
}

// calibration returns the first halves of the outputs that decide; all outputs if none does.
func (d *Decisions) calibration(want map[string]graph.Value) map[string]graph.Value {
	if d == nil {
		return want
	}
	halves := map[string]graph.Value{}
	for _, out := range d.Outputs {
		halves[out.Name] = graph.Value{Data: want[out.Name].Data[:out.half]}
	}
	return halves
}

// compare counts the decisions that are others, and returns the share of the first half that stayed.
func (d *Decisions) compare(want, got map[string]graph.Value) (kept float64) {
	first := 0
	d.Differ = 0
	for _, out := range d.Outputs {
		a, b := want[out.Name].Data, got[out.Name].Data
		for i := 0; i < len(a); i += out.size {
			switch {
			case decision(a[i:i+out.size]) == decision(b[i:i+out.size]):
			case i < out.half:
				first++
			default:
				d.Differ++
			}
		}
	}
	d.Kept = 1 - float64(d.Differ)/float64(d.Count)
	return 1 - float64(first)/float64(max(d.Calibration, 1))
}

// decision returns on which side of one half an element is, 1 or 0, or of several the place of the greatest.
func decision(x []float32) (at int) {
	for i, v := range x {
		switch {
		case len(x) == 1 && v >= 0.5:
			return 1
		case v > x[at]:
			at = i
		}
	}
	return at
}

func (d *Decisions) figures() string {
	return fmt.Sprintf("%s on the second half of the rows or steps stay (%s of %s are others)", percent(d.Kept), report.Count(d.Differ), report.Count(d.Count))
}

// percent is a share with more digits than report.Percent: of many decisions few may be others.
func percent(share float64) string { return report.Number(100*share) + " %" }
