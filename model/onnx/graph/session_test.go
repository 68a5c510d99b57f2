package graph

import (
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/carousel-ml/carousel/internal/golden"
)

// streamed is an LSTM of 5 units over x [time,batch,3], with its states as inputs
// and outputs, and a linear layer behind it.
func streamed() []byte {
	const I, H = 3, 5
	r := newRandom(5)
	g := &Builder{}
	g.Input("x", "", "time", "batch", I)
	g.Input("h", "", 1, "batch", H)
	g.Input("c", "", 1, "batch", H)
	weight := func(name string, dims ...int) string { return g.Floats(name, RandomFloats(r, dims...).Data, dims...) }
	w, u, b := weight("w", 1, 4*H, I), weight("u", 1, 4*H, H), weight("b", 1, 8*H)
	g.Node("LSTM", []string{"x", w, u, b, "", "h", "c"}, []string{"all", "hn", "cn"}, Attr{"hidden_size", H})
	g.Node("Squeeze", []string{"all", g.Ints("one", 1)}, []string{"flat"})
	g.Node("MatMul", []string{"flat", weight("out", H, 2)}, []string{"logits"})
	g.Node("Sigmoid", []string{"logits"}, []string{"y"})
	g.Output("y", "", "time", "batch", 2)
	g.Output("hn", "", 1, "batch", H)
	g.Output("cn", "", 1, "batch", H)
	return g.Encode()
}

func session(t *testing.T, m *Model, o SessionOptions) *Session {
	t.Helper()
	s, err := m.NewSession(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Steps over parts of a sequence give what one run over all of it gives.
func TestSession(t *testing.T) {
	const T, B = 7, 2
	m := parsed(t, streamed())
	in := m.Random(1, 0, map[string]int{"time": T, "batch": B})
	clear(in["h"].Data)
	clear(in["c"].Data)
	want, err := m.Run(in)
	if err != nil {
		t.Fatal(err)
	}
	s := session(t, m, SessionOptions{})
	if got := s.States(); !slices.Equal(got, []StatePair{{"h", "hn"}, {"c", "cn"}}) {
		t.Fatalf("states %v", got)
	}
	part := func(s *Session, lo, hi int) map[string]Value {
		t.Helper()
		out, err := s.Step(map[string]Value{"x": Floats(in["x"].Data[lo*B*3:hi*B*3], hi-lo, B, 3)})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	var y []float32
	for _, cut := range [][2]int{{0, 1}, {1, 2}, {2, 5}, {5, 6}} {
		y = append(y, part(s, cut[0], cut[1])["y"].Data...)
	}
	before := s.State()
	out := part(s, 6, 7)
	y = append(y, out["y"].Data...)
	if d, _ := MaxDifference(y, want["y"].Data); d > 1e-6 {
		t.Errorf("steps differ by %g from one run", d)
	}
	if d, _ := MaxDifference(out["cn"].Data, want["cn"].Data); d > 1e-6 {
		t.Errorf("the state differs by %g", d)
	}

	// The state before the last step, in another session, leads to the same end.
	other := session(t, m, SessionOptions{})
	if err := other.SetState(before); err != nil {
		t.Fatal(err)
	}
	if got := part(other, 6, 7)["y"].Data; !slices.Equal(got, y[len(y)-len(got):]) {
		t.Error("a state that was set leads elsewhere")
	}
	// A step that fails changes nothing, and Reset begins again, also with another batch.
	after := s.State()
	if _, err := s.Step(map[string]Value{"x": Floats(make([]float32, 9), 1, 3, 3)}); err == nil {
		t.Error("another batch fits the states")
	}
	if problem := differ(after, s.State()); problem != "" {
		t.Error(problem)
	}
	s.Reset()
	if n := len(s.State()); n != 0 {
		t.Errorf("%d states after Reset", n)
	}
	if got := part(s, 0, 1)["y"].Data; !slices.Equal(got, y[:len(got)]) {
		t.Error("after Reset the first step differs")
	}
}

// A step with the shapes of an earlier one allocates nothing.
func TestSessionAllocates(t *testing.T) {
	m := parsed(t, streamed())
	s := session(t, m, SessionOptions{})
	in := map[string]Value{"x": Floats(make([]float32, 3), 1, 1, 3)}
	allocates(t, s, in, 0)

	all := parsed(t, chain(9).Encode())
	allocates(t, session(t, all, SessionOptions{}), all.Random(1, 0, nil), 0)
}

func allocates(t *testing.T, s *Session, in map[string]Value, most float64) {
	t.Helper()
	step := func() {
		if _, err := s.Step(in); err != nil {
			t.Fatal(err)
		}
	}
	step()
	step()
	if n := testing.AllocsPerRun(20, step); n > most {
		t.Errorf("%v allocations per step", n)
	}
}

// A model in public use, in both of its branches, with its state kept.
func TestSessionSilero(t *testing.T) {
	dir := golden.Shared(t, "models")
	for _, name := range []string{"silero_vad", "silero_8k", "silero_b3"} {
		t.Run(name, func(t *testing.T) {
			c := readModelCase(t, filepath.Join(dir, name+".case.json.gz"))
			m, err := Read(filepath.Join(dir, c.File))
			if err != nil {
				t.Fatal(err)
			}
			s := session(t, m, SessionOptions{})
			var last map[string]Value
			checkCalls(t, c, func(in map[string]Value) (map[string]Value, error) {
				delete(in, "state")
				last = in
				return s.Step(in)
			})
			allocates(t, s, last, 0)
		})
	}
}

// Many streams share a model, and each has its own states.
func TestSessionsConcurrent(t *testing.T) {
	m := parsed(t, streamed())
	var wg sync.WaitGroup
	for k := range 20 {
		s := session(t, m, SessionOptions{})
		wg.Go(func() {
			x := Floats(make([]float32, 3), 1, 1, 3)
			in := map[string]Value{"x": x, "h": Floats(make([]float32, 5), 1, 1, 5), "c": Floats(make([]float32, 5), 1, 1, 5)}
			for i := range 30 {
				x.Data[0], x.Data[1] = float32(k)/10, float32(i)/10
				want, err := m.Run(in) // with the states passed by hand
				if err != nil {
					t.Error(err)
					return
				}
				in["h"], in["c"] = want["hn"], want["cn"]
				got, err := s.Step(map[string]Value{"x": x})
				if err != nil {
					t.Error(err)
					return
				}
				if problem := differ(want, got); problem != "" {
					t.Errorf("stream %d, step %d: %s", k, i, problem)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestSessionRefuses(t *testing.T) {
	m := parsed(t, streamed())
	x := Floats(make([]float32, 3), 1, 1, 3)
	if _, err := m.NewSession(SessionOptions{States: map[string]string{"h": "y"}}); err == nil || !strings.Contains(err.Error(), "cannot take output") {
		t.Errorf("error %v", err)
	}
	for want, in := range map[string]map[string]Value{
		"h float32[1,batch,5] is a state, which takes output \"hn\"": {"x": x, "h": x},
		"x float32[time,batch,3] is missing":                         {},
		`the graph has no input "z"`:                                 {"x": x, "z": x},
		"does not fit shape [1,3]":                                   {"x": Floats(make([]float32, 3), 1, 3)},
	} {
		if _, err := session(t, m, SessionOptions{}).Step(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	s := session(t, m, SessionOptions{States: map[string]string{"c": ""}})
	if _, err := s.Step(map[string]Value{"x": x}); err == nil || !strings.Contains(err.Error(), "input c float32[1,batch,5] is missing; outputs that it could take as a state are hn") {
		t.Errorf("error %v", err)
	}
	for want, state := range map[string]map[string]Value{
		`no state "c"; it has [{h hn}]`: {"c": x},
		"needs 5 elements, got 3":       {"h": Floats(make([]float32, 3), 1, 1, 5)},
		"does not fit shape [1,1,3]":    {"h": x},
	} {
		if err := s.SetState(state); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
