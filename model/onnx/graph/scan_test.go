package graph

import (
	"fmt"
	"slices"
	"testing"
)

// scanGraph sums the steps of x in a state and gives the sums, doubled, out.
func scanGraph(attrs ...Attr) *Builder {
	body := &Builder{Prefix: "body"}
	body.Input("total", "", 2)
	body.Input("step", "", 2)
	body.Node("Add", []string{"total", "step"}, []string{"next"})
	body.Node("Mul", []string{"next", "two"}, []string{"twice"})
	body.Output("next", "", 2)
	body.Output("twice", "", 2)
	g := &Builder{}
	g.Floats("two", []float32{2})
	g.Input("start", "", 2)
	g.Input("x", "", "time", 2)
	g.Node("Scan", []string{"start", "x"}, []string{"end", "sums"}, append(attrs, Attr{"body", body}, Attr{"num_scan_inputs", 1})...)
	g.Output("end", "", 2)
	g.Output("sums", "", "time", 2)
	return g
}

func TestScan(t *testing.T) {
	back := []int64{1}
	for _, c := range []struct {
		attrs     []Attr
		end, sums []float32
	}{
		{nil, []float32{19, 22}, []float32{22, 24, 28, 32, 38, 44}},
		{[]Attr{{"scan_input_directions", back}}, []float32{19, 22}, []float32{30, 32, 36, 40, 38, 44}},
		{[]Attr{{"scan_input_directions", back}, {"scan_output_directions", back}}, []float32{19, 22}, []float32{38, 44, 36, 40, 30, 32}},
	} {
		b := scanGraph(c.attrs...).Encode()
		m, err := parse("m.onnx", b)
		if err != nil {
			t.Fatal(err)
		}
		in := map[string]Value{"start": Floats([]float32{10, 10}, 2), "x": Floats([]float32{1, 2, 3, 4, 5, 6}, 3, 2)}
		runs := []func() (map[string]Value, error){func() (map[string]Value, error) { return runs(m, in) }}
		if rt := FindRuntime(); rt != nil {
			runs = append(runs, func() (map[string]Value, error) { return rt.Run(t.Context(), b, m, in) })
		}
		for _, run := range runs {
			out, err := run()
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(out["end"].Data, c.end) || !slices.Equal(out["sums"].Data, c.sums) {
				t.Errorf("%v: end %v, sums %v, want %v, %v", c.attrs, out["end"].Data, out["sums"].Data, c.end, c.sums)
			}
		}
		in["x"] = Floats(nil, 0, 2)
		_, err = m.Run(in)
		checkFileError(t, err, "has no step")
	}
}

// A body whose shapes grow, loops in loops, and attributes that do not fit.
func TestScanRefused(t *testing.T) {
	_, err := parse("m.onnx", scanGraph(Attr{"scan_input_directions", []int64{1, 0}}).Encode())
	checkFileError(t, err, "scan_input_directions has 2 entries, expected 1")
	_, err = parse("m.onnx", scanGraph(Attr{"scan_input_axes", []int64{1}}).Encode())
	checkFileError(t, err, "scan_input_axes other than 0")

	body := &Builder{Prefix: "body"}
	body.Input("state", "", "n")
	body.Input("step", "", 1)
	body.Node("Concat", []string{"state", "state"}, []string{"more"}, Attr{"axis", 0})
	body.Output("more", "", "n")
	g := &Builder{}
	g.Input("start", "", "n")
	g.Input("x", "", "time", 1)
	g.Node("Scan", []string{"start", "x"}, []string{"end"}, Attr{"body", body}, Attr{"num_scan_inputs", 1})
	g.Output("end", "", "n")
	m, err := parse("m.onnx", g.Encode())
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.Run(map[string]Value{"start": Floats([]float32{1}, 1), "x": Floats(make([]float32, 40), 40, 1)})
	checkFileError(t, err, "state 0 changes from shape [1] to [2]")

	// Steps are counted, so that loops in loops end.
	inner := func(depth int) *Builder { return nil }
	inner = func(depth int) *Builder {
		b := &Builder{Prefix: fmt.Sprint("b", depth)}
		in := fmt.Sprint("s", depth)
		b.Input(in, "", 1)
		out := b.Op("Identity", []string{in})
		if depth < 6 {
			out = b.Name()
			b.Node("Scan", []string{"long"}, []string{out}, Attr{"body", inner(depth + 1)}, Attr{"num_scan_inputs", 1})
		}
		b.Output(out, "", "k")
		return b
	}
	g = &Builder{}
	g.Input("long", "", "time", 1)
	g.Node("Scan", []string{"long"}, []string{"y"}, Attr{"body", inner(1)}, Attr{"num_scan_inputs", 1})
	g.Output("y", "", "time")
	if m, err = parse("m.onnx", g.Encode()); err != nil {
		t.Fatal(err)
	}
	m.budget = 1 << 16
	_, err = m.Run(map[string]Value{"long": Floats(make([]float32, 1000), 1000, 1)})
	checkFileError(t, err, "would be too large")
}
