package quantize

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/model/onnx/graph"
	"github.com/carousel-ml/carousel/tensor"
)

// Which outputs decide, what a decision is, and where the second half begins.
func TestDecisions(t *testing.T) {
	want := map[string]graph.Value{
		"p":       graph.Floats([]float32{0, 0.4, 0.5, 1, 0.6, 0.7}, 1, 3, 2),
		"classes": graph.Floats([]float32{1, 3, 2, 0, -1, -2, 5, 6, 7}, 3, 3),
		"one":     graph.Floats([]float32{1, 3, 2}, 1, 3),
		"number":  graph.Floats([]float32{4, 5, -6}, 3, 1),
		"label":   graph.Ints([]int64{1, 2}, 2),
		"scalar":  graph.Floats([]float32{7}),
		"state":   graph.Floats([]float32{0, 1}, 2),
	}
	d := newDecisions(want, []string{"p", "classes", "one", "number", "label", "scalar", "absent"}, 0.9)
	text := ""
	for _, out := range d.Outputs {
		text += fmt.Sprint(out, " ")
	}
	if text != "{p half 1 2} {classes greatest 3 3} {one greatest 3 0} " || d.Calibration != 2+1 || d.Count != 4+2+1 {
		t.Errorf("%s, %d and %d decisions", text, d.Calibration, d.Count)
	}
	if halves := d.calibration(want); len(halves) != 3 || len(halves["p"].Data) != 2 || len(halves["classes"].Data) != 3 || len(halves["one"].Data) != 0 {
		t.Errorf("halves %v", halves)
	}
	got := map[string]graph.Value{
		"p":       graph.Floats([]float32{0.5, 0.4, 0.49, 1, 0.1, 9}, 1, 3, 2), // of the first half one is another, of the second two
		"classes": graph.Floats([]float32{0, 9, 0, 0, 1, -2, 5, 6, 7}, 3, 3),   // of the second half one
		"one":     graph.Floats([]float32{3, 2, 1}, 1, 3),                      // and this one
	}
	if kept := d.compare(want, got); math.Abs(kept-2.0/3) > 1e-12 || d.Differ != 4 || math.Abs(d.Kept-3.0/7) > 1e-12 {
		t.Errorf("%g of the first half stay; %+v", kept, d)
	}
	if kept := d.compare(want, want); kept != 1 || d.Differ != 0 || d.Kept != 1 {
		t.Errorf("of equal outputs %g stay; %+v", kept, d)
	}
	if d := newDecisions(want, []string{"number", "label"}, 0.9); d != nil || len(d.calibration(want)) != len(want) {
		t.Errorf("outputs that decide nothing: %+v", d)
	}
}

// The verdict of a graph and its reason, by what was found.
func TestJudgeGraph(t *testing.T) {
	fast, slow := Times{Float32: 2, Quantized: 1, Ratio: 2, Best: 2}, Times{Float32: 1, Quantized: 2, Ratio: 0.5, Best: 0.6}
	rounded := []Matrix{{Precision: "f32"}, {Precision: "int8"}}
	flipped := 0.03
	for name, c := range map[string]struct {
		r      GraphReport
		want   Verdict
		reason string
	}{
		"good":     {GraphReport{Speed: fast, Matrices: rounded, Decisions: &Decisions{Asked: 0.998, Count: 1000, Differ: 2, Kept: 0.998}}, Accepted, "decisions: 99.80 % on the second half of the rows or steps stay (2 of 1,000 are others)"},
		"bad":      {GraphReport{Speed: fast, Matrices: rounded, Decisions: &Decisions{Asked: 0.998, Count: 1000, Differ: 3, Kept: 0.997}}, Refused, "and 99.80 % were to"},
		"few":      {GraphReport{Speed: fast, Matrices: rounded, Decisions: &Decisions{Asked: 0.998, Count: 19, Kept: 1}}, Unknown, "fewer than 20 are too few to tell"},
		"slow":     {GraphReport{Speed: slow, Matrices: rounded, Decisions: &Decisions{Asked: 0.998, Count: 1000, Kept: 1}}, Refused, "slower on this machine"},
		"float32":  {GraphReport{Speed: slow, Matrices: rounded[:1], Decisions: &Decisions{Asked: 0.998, Count: 1000, Kept: 1}}, Refused, "every matrix stays in float32"},
		"unasked":  {GraphReport{Speed: fast, Matrices: rounded}, Unknown, "a graph does not say what its outputs are for"},
		"flipped":  {GraphReport{Speed: fast, Matrices: rounded, Outputs: []Changed{{Name: "p", Flipped: &flipped}}}, Refused, "output p: 3.0 % of its elements are on the other side"},
		"by halfs": {GraphReport{Speed: fast, Matrices: rounded, Outputs: []Changed{{Name: "p", Flipped: &flipped}}, Decisions: &Decisions{Asked: 0.98, Count: 1000, Kept: 0.99}}, Accepted, "decisions: 99.00 %"},
	} {
		if c.r.judge(DefaultOptions()); c.r.Verdict != c.want || len(c.r.Reasons) != 1 || !strings.Contains(c.r.Reasons[0], c.reason) {
			t.Errorf("%s: %s, %q", name, c.r.Verdict, c.r.Reasons)
		}
		c.r.Summary()
	}
}

// A graph of two matrices, of which one decides by small weights beside a large one whose input is zero: only that one
// rests in more bits, in float16 if its numbers are not beyond it.
func TestGraphRaises(t *testing.T) {
	const rows, in, middle, out = 200, 16, 16, 4
	for _, c := range []struct {
		large float32
		want  tensor.Precision
	}{{2000, tensor.Float16}, {1e6, tensor.BFloat16}} {
		r := rand.New(rand.NewPCG(8, 9))
		good, bad := normal(r, in*middle), normal(r, middle*out)
		for i := range middle - 1 { // the last of the middle is zero, as are its weights in good
			good[i*middle+middle-1] = 0
		}
		good[in*middle-1] = 0
		for i := range out {
			bad[(middle-1)*out+i] = c.large
		}
		g := &graph.Builder{}
		g.Input("x", "", "batch", in)
		g.Node("MatMul", []string{"x", g.Floats("good", good, in, middle)}, []string{"m"})
		g.Node("MatMul", []string{"m", g.Floats("bad", bad, middle, out)}, []string{"y"})
		g.Output("y", "", "batch", out)
		var models [2]*graph.Model
		var runs [2]Runner
		x := map[string]graph.Value{"x": graph.Floats(normal(r, rows*in), rows, in)}
		for i := range models {
			m, err := g.Model(filepath.Join(t.TempDir(), "m.onnx"))
			if err != nil {
				t.Fatal(err)
			}
			models[i], runs[i] = m, func(context.Context) (map[string]graph.Value, error) { return m.Run(x) }
		}
		o := DefaultOptions()
		o.MinAccuracy = 0.9
		report, err := Graph(t.Context(), models[0], models[1], runs[0], runs[1], []string{"y"}, o, func(string) {})
		if err != nil {
			t.Fatal(err)
		}
		if m := report.Matrices; m[0].Precision != "int8" || m[0].Why != "" || m[1].Precision != c.want.String() || !strings.Contains(m[1].Why, "with it in int8 ") {
			t.Errorf("%+v", m)
		}
		for i, w := range models[1].Weights() {
			if w.Rest.String() != report.Matrices[i].Precision {
				t.Errorf("%s rests in %s, the report says %s", w.Name, w.Rest, report.Matrices[i].Precision)
			}
		}
		if d := report.Decisions; d.Count != rows/2 || d.Calibration != rows/2 || d.Kept < 0.9 || report.Outputs[0].Relative > 0.1 {
			t.Errorf("%+v, outputs %+v", d, report.Outputs)
		}
		if report.Verdict == Accepted && (len(report.Reasons) != 1 || !strings.HasPrefix(report.Reasons[0], "decisions: ")) {
			t.Errorf("%s %v", report.Verdict, report.Reasons)
		}
	}
}
