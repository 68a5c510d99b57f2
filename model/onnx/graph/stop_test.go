package graph

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
)

// ending is a context that ends when it has been asked so often whether it has.
type ending struct {
	context.Context
	asked, most int
}

func (c *ending) Err() error {
	if c.asked++; c.asked > c.most {
		return context.DeadlineExceeded
	}
	return nil
}

// long is a graph of one recurrent node over T steps, in parts of 10.
func long(t *testing.T, T int, direction string, attrs ...Attr) (*Model, []Value) {
	t.Helper()
	const B, I, H = 2, 3, 4
	D := 1
	if direction == "bidirectional" {
		D = 2
	}
	r := newRandom(3)
	var g Builder
	g.Input("x", "", "T", B, I)
	weight := func(name string, dims ...int) string { return g.Floats(name, RandomFloats(r, dims...).Data, dims...) }
	g.Node("LSTM", []string{"x", weight("w", D, 4*H, I), weight("r", D, 4*H, H)}, []string{"y"}, append(attrs, Attr{"hidden_size", H}, Attr{"direction", direction})...)
	g.Output("y", "", "T", D, B, H)
	m := parsed(t, g.Encode())
	m.segment = segment{1, 10 * B}
	return m, []Value{RandomFloats(r, T, B, I)}
}

// TestStop ends the context of a run early: of 100 parts of a sequence, steps of a loop or
// nodes no more are computed than before its end, in the first run and in a replay, and the
// next run is right.
func TestStop(t *testing.T) {
	const most = 7
	loop := parsed(t, scanGraph().Encode())
	nodes := parsed(t, chain(100).Encode())
	cases := map[string]struct {
		m  *Model
		in []Value
	}{
		"loop":  {loop, []Value{Floats([]float32{0, 0}, 2), Floats(slices.Repeat([]float32{1, 0.5}, 100), 100, 2)}},
		"nodes": {nodes, []Value{Floats(make([]float32, 1000), 1, 1000)}},
	}
	for _, direction := range []string{"forward", "reverse", "bidirectional"} {
		m, in := long(t, 1000, direction)
		cases[direction] = struct {
			m  *Model
			in []Value
		}{m, in}
		// An activation that the engine lacks: the plain cell, which looks before each step.
		names := slices.Repeat([]string{"Affine", "Tanh", "Tanh"}, m.outputs[0].Dims[1].Size)
		m, in = long(t, 1000, direction, Attr{"activations", names})
		cases["plain "+direction] = struct {
			m  *Model
			in []Value
		}{m, in}
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			apply := func(ctx context.Context) (outs []Value, err error) {
				err = c.m.Apply(ctx, c.in, func(list []Value) {
					for _, v := range list {
						outs = append(outs, clone(v))
					}
				})
				return outs, err
			}
			var want []Value
			for _, kind := range []string{"recorded", "replayed"} {
				ctx := &ending{Context: t.Context(), most: most}
				if _, err := apply(ctx); !errors.Is(err, context.DeadlineExceeded) || ctx.asked != most+1 {
					t.Fatalf("%s: error %v after %d looks, want the context's after %d", kind, err, ctx.asked, most+1)
				}
				whole := &ending{Context: t.Context(), most: 1 << 30}
				got, err := apply(whole)
				if err != nil || whole.asked < 100 {
					t.Fatalf("%s: error %v, %d looks, want at least 100", kind, err, whole.asked)
				}
				if want == nil {
					want = got
				}
				if fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("%s: other results after a run that ended early", kind)
				}
			}
		})
	}
}

// TestStopSession stops a step of a session, whose states are as before.
func TestStopSession(t *testing.T) {
	m := parsed(t, streamed())
	s, other := session(t, m, SessionOptions{}), session(t, m, SessionOptions{})
	r := newRandom(1)
	for step := range 3 {
		x := map[string]Value{"x": RandomFloats(r, 20, 1, 3)}
		if _, err := s.StepContext(&ending{Context: t.Context(), most: step % 2}, x); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("error %v", err)
		}
		got, err := s.Step(x)
		if err != nil {
			t.Fatal(err)
		}
		want, err := other.Step(x)
		if err != nil {
			t.Fatal(err)
		}
		if problem := differ(want, got); problem != "" {
			t.Errorf("step %d: %s", step, problem)
		}
	}
}
