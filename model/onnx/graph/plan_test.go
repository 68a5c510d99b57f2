package graph

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

var errReplay = errors.New("replay")

// runs runs a model four times: recorded, replayed, on other numbers, and replayed
// again. The results for the same inputs must have the same bits.
func runs(m *Model, in map[string]Value) (map[string]Value, error) {
	m.plans = plans{}
	first, err := m.Run(in)
	if err != nil {
		return nil, err
	}
	if len(m.plans.idle) != 1 {
		return nil, fmt.Errorf("%w: it is not kept", errReplay)
	}
	for k := range 3 {
		if k > 0 { // they may have no result
			m.Run(others(in, k == 2))
		}
		again, err := m.Run(in)
		if err != nil {
			return nil, fmt.Errorf("%w: %v", errReplay, err)
		}
		if problem := differ(first, again); problem != "" {
			return nil, fmt.Errorf("%w: %d: %s", errReplay, k, problem)
		}
	}
	return first, nil
}

// others returns inputs of the same shapes with other floats, and with other
// integers if all is set.
func others(in map[string]Value, all bool) map[string]Value {
	out := map[string]Value{}
	for name, v := range in {
		v.Data, v.Ints = slices.Clone(v.Data), slices.Clone(v.Ints)
		slices.Reverse(v.Data)
		for i := range v.Data {
			v.Data[i] += 0.5
		}
		if all {
			clear(v.Ints)
		}
		out[name] = v
	}
	return out
}

// differ describes the first difference of two results.
func differ(a, b map[string]Value) string {
	for name, x := range a {
		y := b[name]
		same := slices.EqualFunc(x.Data, y.Data, func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) })
		if !same || !slices.Equal(x.Ints, y.Ints) || !slices.Equal(x.Dims, y.Dims) {
			return fmt.Sprintf("%s is %v, was %v", name, y, x)
		}
	}
	return ""
}

// chain is a graph of n elementwise nodes.
func chain(n int) *Builder {
	g := &Builder{}
	g.Input("x", "", "n", 1000)
	last := "x"
	for i := range n {
		last = g.Op([]string{"Tanh", "Sigmoid", "Neg"}[i%3], []string{last})
	}
	g.Node("Identity", []string{last}, []string{"y"})
	g.Output("y", "", "n", 1000)
	return g
}

// A long chain needs the memory of two values: an operand and a result.
func TestBuffers(t *testing.T) {
	m := parsed(t, chain(50).Encode())
	in := m.Random(1, 0, nil)
	if _, err := runs(m, in); err != nil {
		t.Fatal(err)
	}
	if p := m.plans.idle[0]; p.buffers > 3 || p.bytes > 3*4*3*1000 {
		t.Errorf("50 nodes take %d buffers of %d bytes", p.buffers, p.bytes)
	}
}

// A constant condition of If that comes with the inputs has a recording for each
// answer, and changing it makes no new ones.
func TestPlansOfIf(t *testing.T) {
	m := parsed(t, ifGraph())
	for i := range 20 {
		c := int64(i % 2)
		out, err := m.Run(map[string]Value{"x": Floats([]float32{1, 3}, 2), "c": Ints([]int64{c})})
		if err != nil {
			t.Fatal(err)
		}
		if want := [][]float32{{-1, -9}, {1, -1}}[c]; !slices.Equal(out["y"].Data, want) {
			t.Fatalf("condition %d gives %v, want %v", c, out["y"].Data, want)
		}
	}
	if n := len(m.plans.idle); n != 2 {
		t.Errorf("%d recordings, want 2", n)
	}
}

// Recordings of many shapes are bounded, and those in use stay.
func TestPlansBounded(t *testing.T) {
	m := parsed(t, chain(3).Encode())
	for n := range 3 * maxIdle {
		for _, n := range []int{n + 1, 1} {
			if _, err := m.Run(map[string]Value{"x": Floats(make([]float32, n*1000), n, 1000)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	size := 0
	for _, p := range m.plans.idle {
		size += p.size()
	}
	if n := len(m.plans.idle); n != maxIdle || m.plans.size != size {
		t.Errorf("%d recordings of %d bytes, counted as %d", n, size, m.plans.size)
	}
	if !slices.ContainsFunc(m.plans.idle, func(p *plan) bool { return p.in[0].dims[0] == 1 }) {
		t.Error("the recording that every second run used was dropped")
	}
}

// Many goroutines with inputs of two shapes and conditions share a model.
func TestPlansConcurrent(t *testing.T) {
	m := parsed(t, ifGraph())
	var wg sync.WaitGroup
	for k := range 16 {
		wg.Go(func() {
			for i := range 50 {
				n, c := 1+(i+k)%2, int64(i%2)
				x := []float32{float32(k), float32(i)}[:n]
				out, err := m.Run(map[string]Value{"x": Floats(x, n), "c": Ints([]int64{c})})
				if err != nil {
					t.Error(err)
					return
				}
				for j, v := range x {
					if want := []float32{-v * v, -v + 2}[c]; out["y"].Data[j] != want {
						t.Errorf("%v of %v, want %v", out["y"].Data, x, want)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

// A loop of too many steps to keep is computed each time, in the memory of one step
// and its results.
func TestPlansOfLongLoops(t *testing.T) {
	const T = 40_000
	m := parsed(t, scanGraph().Encode())
	in := map[string]Value{"start": Floats([]float32{0, 0}, 2), "x": Floats(slices.Repeat([]float32{1, 0.5}, T), T, 2)}
	for range 2 {
		out, err := m.Run(in)
		if err != nil {
			t.Fatal(err)
		}
		if want := []float32{T, T / 2}; !slices.Equal(out["end"].Data, want) {
			t.Errorf("end %v, want %v", out["end"].Data, want)
		}
		if len(m.plans.idle) > 0 {
			t.Error("the recording is kept")
		}
	}
}

// A product with a small result takes of the limit what its multiply-adds are.
func TestWorkIsBounded(t *testing.T) {
	const wide = 1 << 16
	g := &Builder{}
	g.Input("x", "", 1, wide)
	g.Input("w", "", wide, 1)
	g.Output("y", "", 1, 1)
	g.Node("MatMul", []string{"x", "w"}, []string{"y"})
	in := map[string]Value{"x": Floats(make([]float32, wide), 1, wide), "w": Floats(make([]float32, wide), wide, 1)}
	for _, c := range []struct {
		budget int
		ok     bool
	}{{wide>>12 + 1, true}, {wide >> 12, false}} {
		m, err := parse(t.Name(), g.Encode())
		if err != nil {
			t.Fatal(err)
		}
		m.budget = c.budget
		_, err = m.Run(in)
		if c.ok && err != nil || !c.ok && (err == nil || !strings.Contains(err.Error(), "too many operations")) {
			t.Errorf("limit %d: %v", c.budget, err)
		}
	}
}

// Sizes of an input are checked before they are multiplied.
func TestInputOfImpossibleShape(t *testing.T) {
	g := &Builder{}
	g.Input("x", "", "a", "b")
	g.Output("y", "", "a", "b")
	g.Node("Neg", []string{"x"}, []string{"y"})
	m, err := parse(t.Name(), g.Encode())
	if err != nil {
		t.Fatal(err)
	}
	for _, dims := range [][]int{{-1, 2}, {1 << 32, 1 << 32}, {1 << 62, 4}, {0, 1 << 40}} {
		if _, err := m.Run(map[string]Value{"x": {Dims: dims}}); err == nil || !strings.Contains(err.Error(), "negative or too large") {
			t.Errorf("shape %v: %v", dims, err)
		}
	}
}

// Recordings of many shapes of a small graph with a recurrent node share what its passes work
// in, also when they are used at once.
func TestPlansAreSmall(t *testing.T) {
	m := parsed(t, streamed())
	heap := func() int {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return int(s.HeapAlloc)
	}
	use := func(T int) {
		if _, err := m.Run(m.Random(1, 0, map[string]int{"time": T, "batch": 1})); err != nil {
			t.Error(err)
		}
	}
	use(maxIdle + 1)
	before := heap()
	for T := range maxIdle {
		use(T + 1)
	}
	if each := (heap() - before) / maxIdle; each > 64<<10 || len(m.plans.idle) != maxIdle || len(m.plans.tapes) != 1 {
		t.Errorf("each of %d recordings keeps %d bytes, and there are %d tapes", len(m.plans.idle), each, len(m.plans.tapes))
	} else {
		t.Logf("each recording keeps %d bytes", each)
	}
	var wg sync.WaitGroup
	for range 4 * maxTapes {
		wg.Go(func() {
			for T := range 20 {
				use(T + 1)
			}
		})
	}
	wg.Wait()
	size := 0
	for _, tape := range m.plans.tapes {
		size += int(tape.Bytes())
	}
	if n := len(m.plans.tapes); n > maxTapes || m.plans.tapeBytes != size {
		t.Errorf("%d tapes of %d bytes, counted as %d", n, size, m.plans.tapeBytes)
	}
}
