package nn_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// Streams that join and leave between steps, in any company, have the bits of
// each of them run alone over all its steps at once.
func TestStatesByRow(t *testing.T) {
	const rows, T = 5, 9
	for _, s := range stacks() {
		m := s.make()
		if m.Directions() > 1 {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			dev := tensor.CPU()
			tensor.Pack(dev, m, 1)
			x := normal(1, rows*T*width)
			want := make([][]float32, rows)
			for b := range rows {
				tape := tensor.NewTape(dev, tensor.Infer)
				y, _ := m.Forward(tape.Input(x[b*T*width:][:T*width], 1, T, width), nil)
				want[b] = y.Data()
			}
			states := m.NewStates(dev, rows)
			defer states.Free()
			tape := tensor.NewTape(dev, tensor.Infer)
			// Row b begins at turn b and takes its steps in turns b, b+1, ..., and row 3
			// pauses every third turn. Each turn the rows stand in another order.
			next, got := make([]int, rows), make([][]float32, rows)
			for turn := range 3 * T {
				var list []int32
				for b := range rows {
					if b <= turn && next[b] < T && (b != 3 || turn%3 != 0) {
						list = append(list, int32(b))
					}
				}
				if turn%2 == 1 {
					slices.Reverse(list)
				}
				if len(list) == 0 {
					continue
				}
				var in []float32
				for _, b := range list {
					in = append(in, x[(int(b)*T+next[b])*width:][:width]...)
				}
				tape.Reset()
				y := m.Step(tape.Input(in, len(list), 1, width), states, list).Data()
				for i, b := range list {
					got[b] = append(got[b], y[i*m.OutputSize():][:m.OutputSize()]...)
					next[b]++
				}
			}
			for b := range rows {
				sameBits(t, fmt.Sprint("row ", b), got[b], want[b])
			}
		})
	}
}

// A row goes to a saved state and back unchanged; a cleared row is zeros.
func TestStatesSetGetClear(t *testing.T) {
	m := nn.NewLSTM(width, hidden, &nn.RNNOptions{Layers: 2, Proj: 7})
	dev := tensor.CPU()
	tensor.Pack(dev, m, 1)
	states, saved, back := m.NewStates(dev, 4), m.NewSavedState(3), m.NewSavedState(2)
	copy(saved.H(), normal(1, len(saved.H())))
	copy(saved.C(), normal(2, len(saved.C())))
	states.Set(2, saved, 1)
	states.Get(2, back, 1)
	for slot := range 2 {
		sameBits(t, "h", back.H()[(slot*2+1)*7:][:7], saved.H()[(slot*3+1)*7:][:7])
		sameBits(t, "c", back.C()[(slot*2+1)*hidden:][:hidden], saved.C()[(slot*3+1)*hidden:][:hidden])
	}
	states.Clear(2)
	states.Get(2, back, 1)
	if slices.ContainsFunc(back.H(), func(v float32) bool { return v != 0 }) {
		t.Error("a cleared row is not zero")
	}
	if states.Rows() != 4 {
		t.Errorf("%d rows, want 4", states.Rows())
	}
}

// A row read twice gives two copies: as when a beam search continues a hypothesis in two ways.
func TestGatherRepeats(t *testing.T) {
	dev := tensor.CPU()
	table := tensor.NewTable(dev, 2, 3, 4)
	v := normal(1, 24)
	for slot := range 2 {
		for row := range 3 {
			table.Write(slot, row, v[(slot*3+row)*4:][:4])
		}
	}
	tape := tensor.NewTape(dev, tensor.Infer)
	got := tape.Gather(table, []int32{2, 0, 2}).Data()
	for slot := range 2 {
		for i, row := range []int{2, 0, 2} {
			sameBits(t, "row", got[(slot*3+i)*4:][:4], v[(slot*3+row)*4:][:4])
		}
	}
	sameBits(t, "the whole", tape.View(table).Data(), v)
}

func TestStepsAllocateNothing(t *testing.T) {
	m := nn.NewLSTM(width, hidden, &nn.RNNOptions{Layers: 2})
	dev := tensor.CPU()
	tensor.Pack(dev, m, 1)
	states, tape := m.NewStates(dev, 8), tensor.NewTape(dev, tensor.Infer)
	x, rows := normal(1, 8*width), []int32{5, 0, 3, 7, 1, 2, 4, 6}
	n := 0
	step := func() {
		n = n%8 + 1 // rows come and go
		tape.Reset()
		m.Step(tape.Input(x[:n*width], n, 1, width), states, rows[:n])
	}
	for range 16 {
		step()
	}
	if a := testing.AllocsPerRun(50, step); a > 0 {
		t.Errorf("%v allocations a step", a)
	}
}

func TestTableRefuses(t *testing.T) {
	dev := tensor.CPU()
	table, tape := tensor.NewTable(dev, 1, 3, 2), tensor.NewTape(dev, tensor.Infer)
	for want, f := range map[string]func(){
		"row 3 of a table of 3":     func() { tape.Gather(table, []int32{0, 3}) },
		"need [1,2,2], got":         func() { tape.Scatter(table, []int32{0, 1}, tape.Zeros(1, 2, 3)) },
		"a row has 2 elements":      func() { table.Write(0, 0, make([]float32, 3)) },
		"slot 0, row -1 of a table": func() { table.Clear(-1) },
		"needs at least one slot":   func() { tensor.NewTable(dev, 0, 1, 1) },
	} {
		if err := tensor.Catch(f); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
