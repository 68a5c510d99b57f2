package graph

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/carousel-ml/carousel/model"
)

// The answers in testdata/options.safetensors are ONNX Runtime's:
//
//	CAROUSEL_ORT_DIR=DIR go test ./model/onnx -run TestOptions -record
var record = flag.Bool("record", false, "write ONNX Runtime's answers to testdata")

// option is one configuration of a recurrent operator.
type option struct {
	op, direction string
	lengths       []int64
	state, peep   bool
	clip          float32
	coupled       bool
	linear        bool
	acts          []string
	alpha, beta   []float32
	noBias        bool
	dynamic       bool // the weights are inputs of the graph
}

func (o *option) title() string {
	return fmt.Sprintf("%s,%s,lengths=%v,state=%v,peep=%v,clip=%v,coupled=%v,linear=%v,acts=%v,alpha=%v,beta=%v,bias=%v,dynamic=%v",
		o.op, o.direction, o.lengths, o.state, o.peep, o.clip, o.coupled, o.linear, o.acts, o.alpha, o.beta, !o.noBias, o.dynamic)
}

func options() []option {
	var list []option
	ragged := []int64{2, 4, 1}
	for i, direction := range []string{"forward", "reverse", "bidirectional"} {
		double := func(s ...string) []string {
			if i == 2 {
				return append(s, s...)
			}
			return s
		}
		l := []option{
			{op: "LSTM"},
			{op: "LSTM", lengths: ragged, state: true},
			{op: "LSTM", peep: true},
			{op: "LSTM", peep: true, lengths: ragged, state: true},
			{op: "LSTM", clip: 0.3},
			{op: "LSTM", clip: 0.2, peep: true, state: true},
			{op: "LSTM", coupled: true, state: true},
			{op: "LSTM", coupled: true, peep: true, clip: 0.5, lengths: ragged},
			{op: "LSTM", acts: double("HardSigmoid", "Softsign", "ScaledTanh"), alpha: []float32{0.25, 1.5}, beta: []float32{0.45, 0.7}},
			{op: "LSTM", acts: double("Sigmoid", "relu", "Elu"), state: true},
			{op: "GRU"},
			{op: "GRU", linear: true},
			{op: "GRU", linear: true, lengths: ragged, state: true},
			{op: "GRU", lengths: ragged, state: true},
			{op: "GRU", clip: 0.3, state: true},
			{op: "GRU", clip: 0.3, linear: true, state: true},
			{op: "GRU", acts: double("HardSigmoid", "LeakyRelu"), state: true},
			{op: "GRU", acts: double("Softsign", "Affine"), alpha: []float32{0.5}, beta: []float32{0.1}, linear: true},
			{op: "RNN"},
			{op: "RNN", acts: double("Relu"), lengths: ragged, state: true},
			{op: "RNN", acts: double("ThresholdedRelu"), alpha: []float32{0.2}},
			{op: "RNN", clip: 0.25, state: true},
			{op: "RNN", acts: double("Softplus"), noBias: true},
		}
		for j := range l {
			l[j].direction = direction
			l[j].dynamic = (i+j)%2 == 1
			if i == 2 && len(l[j].alpha) > 0 { // the second direction has its own
				l[j].alpha = append(l[j].alpha, l[j].alpha...)
				l[j].beta = append(l[j].beta, l[j].beta...)
			}
			if j%3 == 1 {
				l[j].noBias = true
			}
		}
		list = append(list, l...)
	}
	return list
}

// build makes a model of one node, and inputs for it.
func (o *option) build(seed uint64, layout int) ([]byte, map[string]Value) {
	const T, B, I, H = 4, 3, 2, 3
	rng := rand.New(rand.NewPCG(seed, 9))
	draw := func(dims ...int) Value { return random(rng, floats, dims, 0) }
	D := 1
	if o.direction == "bidirectional" {
		D = 2
	}
	rows := map[string]int{"LSTM": 4, "GRU": 3, "RNN": 1}[o.op] * H
	var g Builder
	inputs := map[string]Value{}
	feed := func(name string, dtype int64, v Value) string {
		dims := make([]any, len(v.Dims))
		for i, d := range v.Dims {
			dims[i] = d
		}
		g.InputOf(dtype, name, "", dims...)
		inputs[name] = v
		return name
	}
	weight := func(name string, v Value) string {
		if o.dynamic {
			return feed(name, typeFloat, v)
		}
		return g.Floats(name, v.Data, v.Dims...)
	}
	// In layout 1 the same numbers come with the batch first.
	swap := func(v Value) Value {
		if layout == 0 {
			return v
		}
		T, B, n := v.Dims[0], v.Dims[1], v.Dims[2]
		w := Floats(make([]float32, len(v.Data)), B, T, n)
		strided(w.Data, v.Data, w.Dims, []int{n, B * n, 1}, 0)
		return w
	}
	in := []string{feed("X", typeFloat, swap(draw(T, B, I))), weight("W", draw(D, rows, I)), weight("R", draw(D, rows, H)), "", "", "", "", ""}
	if bias := draw(D, 2*rows); !o.noBias {
		in[3] = weight("B", bias)
	}
	if o.lengths != nil {
		in[4] = feed("lengths", typeInt32, Ints(o.lengths, B))
	}
	out := []string{"Y", "Y_h"}
	if o.state {
		in[5] = feed("h0", typeFloat, swap(draw(D, B, H)))
	}
	if o.op == "LSTM" {
		out = append(out, "Y_c")
		if o.state {
			in[6] = feed("c0", typeFloat, swap(draw(D, B, H)))
		}
		if o.peep {
			in[7] = weight("P", draw(D, 3*H))
		}
	}
	for in[len(in)-1] == "" {
		in = in[:len(in)-1]
	}
	attrs := []Attr{{"hidden_size", H}, {"direction", o.direction}}
	add := func(use bool, name string, v any) {
		if use {
			attrs = append(attrs, Attr{name, v})
		}
	}
	add(o.clip > 0, "clip", o.clip)
	add(o.coupled, "input_forget", 1)
	add(o.linear, "linear_before_reset", 1)
	add(o.acts != nil, "activations", o.acts)
	add(o.alpha != nil, "activation_alpha", o.alpha)
	add(o.beta != nil, "activation_beta", o.beta)
	add(layout == 1, "layout", layout)
	g.Node(o.op, in, out, attrs...)
	for _, name := range out {
		if name == "Y" {
			g.output(name, "", typeFloat, T, D, B, H)
		} else {
			g.output(name, "", typeFloat, D, B, H)
		}
	}
	return g.encode("option", 8, 17), inputs
}

// TestOptions runs every option of the recurrent operators against the answers
// of ONNX Runtime, recorded or, where it is installed, live for some; the plain
// cell must agree where the engine ran, and layout 1 with layout 0.
func TestOptions(t *testing.T) {
	path := filepath.Join("testdata", "options.safetensors")
	rt := FindRuntime()
	if *record && rt == nil {
		t.Fatal("ONNX Runtime is not installed: set CAROUSEL_ORT_DIR")
	}
	var answers *model.File
	if !*record {
		var err error
		if answers, err = model.ReadTensors(path); err != nil {
			t.Fatal(err)
		}
	}
	var recorded []model.Tensor
	for i, o := range options() {
		t.Run(o.title(), func(t *testing.T) {
			file, in := o.build(uint64(i), 0)
			m, err := parse("option", file)
			if err != nil {
				t.Fatal(err)
			}
			got, err := runs(m, in)
			if err != nil {
				t.Fatal(err)
			}
			want := map[string][]float32{}
			if *record || rt != nil && !testing.Short() && i%10 == 0 {
				answer, err := rt.Run(t.Context(), file, m, in)
				if err != nil {
					t.Fatal(err)
				}
				for _, info := range m.outputs {
					v := answer[info.Name]
					want[info.Name] = v.Data
					recorded = append(recorded, model.Tensor{Name: fmt.Sprintf("%d/%s", i, info.Name), Dims: v.Dims, Data: v.Data})
				}
			} else {
				for _, info := range m.outputs {
					want[info.Name] = answers.Lookup(fmt.Sprintf("%d/%s", i, info.Name)).Data
				}
			}
			o.check(t, "answer", got, want)
			o.checkParts(t, uint64(i), got)
			o.checkPlain(t, m, in, want)
			o.checkLayout(t, uint64(i), want)
		})
	}
	if *record && !t.Failed() {
		if err := model.WriteTensors(path, recorded, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func (o *option) check(t *testing.T, what string, got map[string]Value, want map[string][]float32) {
	t.Helper()
	for name, w := range want {
		if _, relative := MaxDifference(got[name].Data, w); relative > 5e-6 {
			t.Errorf("%s: %s differs by %.3g: %v, want %v", what, name, relative, got[name].Data, w)
		}
	}
}

// checkParts runs the node in parts of one, two and three of its four steps, with the batch behind and in
// front: the bits are those of the whole.
func (o *option) checkParts(t *testing.T, seed uint64, whole map[string]Value) {
	t.Helper()
	for layout := range 2 {
		file, in := o.build(seed, layout)
		m, err := parse("option", file)
		if err != nil {
			t.Fatal(err)
		}
		if layout == 1 {
			if whole, err = m.Run(in); err != nil {
				t.Fatal(err)
			}
		}
		for _, rows := range []int{1, 6, 9} {
			m.segment = segment{1, rows}
			got, err := runs(m, in)
			if err != nil {
				t.Fatal(err)
			}
			if problem := differ(whole, got); problem != "" {
				t.Fatalf("parts of %d rows, layout %d: %s", rows, layout, problem)
			}
		}
	}
}

// checkPlain runs the node on the plain cell, if the engine ran it before.
func (o *option) checkPlain(t *testing.T, m *Model, in map[string]Value, want map[string][]float32) {
	r := m.nodes[0].prepared.(*recurrent)
	if !r.engine {
		if o.alpha == nil {
			t.Error("the engine has this cell and was not asked")
		}
		return
	}
	r.engine = false
	got, err := runs(m, in)
	if err != nil {
		t.Fatal(err)
	}
	o.check(t, "plain cell", got, want)
}

// checkLayout runs the node with the batch in front.
func (o *option) checkLayout(t *testing.T, seed uint64, want map[string][]float32) {
	file, in := o.build(seed, 1)
	m, err := parse("option", file)
	if err != nil {
		t.Fatal(err)
	}
	got, err := runs(m, in)
	if err != nil {
		t.Fatal(err)
	}
	back := map[string]Value{}
	for name, v := range got { // [B,T,D,H] or [B,D,H] to the time-major places
		lead := v.Dims[1 : len(v.Dims)-1]
		B, H, n := v.Dims[0], v.Dims[len(v.Dims)-1], product(lead)
		w := Value{Dims: slices.Concat(lead, []int{B, H}), Data: make([]float32, len(v.Data))}
		strided(w.Data, v.Data, []int{n, B, H}, []int{H, n * H, 1}, 0)
		back[name] = w
	}
	o.check(t, "layout 1", back, want)
}
