package nn_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// told is what a tape's OnReady said in one pass: the parameters in order, with the
// gradient that each had then.
type told struct {
	slab  *tensor.Slab
	names []string
	bits  map[string][]float32
}

func listen(tape *tensor.Tape, slab *tensor.Slab) *told {
	l := &told{slab: slab, bits: map[string][]float32{}}
	tape.OnReady(slab, func(lo, hi int) {
		for i, p := range slab.Params {
			if a, b := slab.Range(i); a == lo && b == hi {
				l.names = append(l.names, p.Name)
				l.bits[p.Name] = p.Grad()
				return
			}
		}
		l.names = append(l.names, fmt.Sprintf("no parameter at [%d,%d)", lo, hi))
	})
	return l
}

// check wants every parameter once, with the gradient it has after the pass.
func (l *told) check(t *testing.T) {
	t.Helper()
	if len(l.names) != len(l.slab.Params) {
		t.Errorf("told of %d parameters, want %d: %v", len(l.names), len(l.slab.Params), l.names)
	}
	for _, p := range l.slab.Params {
		if !slices.Equal(l.bits[p.Name], p.Grad()) {
			t.Errorf("%s was told of before its gradient was complete", p.Name)
		}
		if !slices.ContainsFunc(p.Grad(), func(v float32) bool { return v != 0 }) {
			t.Errorf("%s has no gradient to prove anything with", p.Name)
		}
	}
}

// at is the place of the first parameter of that name, or of the last if last is set.
func (l *told) at(t *testing.T, part string, last bool) int {
	t.Helper()
	at := -1
	for i, name := range l.names {
		if strings.Contains(name, part) && (at < 0 || last) {
			at = i
		}
	}
	if at < 0 {
		t.Fatalf("%s was not told of", part)
	}
	return at
}

// reader has what makes gradients hard to follow: a table that is read at one end
// and written at the other, in parts (tied), weights under dropout, peepholes,
// trained states, and a parameter that no pass uses.
type reader struct {
	Embedding *nn.Embedding
	RNN       *nn.RNN
	Out       *nn.AdaptiveSoftmax
	Idle      *tensor.Param
}

func newReader() (*reader, *tensor.Slab) {
	const width, words = 6, 12
	m := &reader{
		Embedding: nn.NewEmbedding(words, width, nil),
		RNN:       nn.NewLSTM(width, width, &nn.RNNOptions{Layers: 3, LearnState: true, Peephole: true, WeightDrop: 0.3, Dropout: 0.2}),
		Idle:      tensor.NewParam("idle", nil, 3),
	}
	m.Out = nn.NewAdaptiveSoftmax(width, words, []int{4, 7}, &nn.AdaptiveOptions{Tied: m.Embedding.Weight, HeadBias: true})
	return m, tensor.Pack(tensor.CPU(), m, 3)
}

func (m *reader) loss(tape *tensor.Tape) *tensor.Tensor {
	ids := []int32{1, 5, 11, 2, 8, 0, 3, 9}
	y, _ := m.RNN.Forward(m.Embedding.Forward(tape.IDs(ids, []int32{4, 3}, 2, 4)), nil)
	return m.Out.Loss(tensor.Reshape(y, 8, y.Dim(2)), []int32{5, 11, 2, 1, 0, 4, 6, 10})
}

// A parameter is told of once, when nothing more adds to its gradient, and later
// layers before earlier ones.
func TestOnReady(t *testing.T) {
	m, slab := newReader()
	tape := tensor.NewTape(tensor.CPU(), tensor.Train)
	backend := slab.Device().Backend()
	var late *told
	for pass := range 2 { // the second adds to the gradients of the first
		l := listen(tape, slab)
		if pass == 0 {
			backend.Fill(slab.Grads(), 0.5) // what was there stays part of it, also of the idle one
		}
		tape.Reset()
		m.loss(tape).Backward()
		l.check(t)
		late = l
	}
	order := []int{
		late.at(t, "idle", true), late.at(t, "_l2", false), late.at(t, "_l2", true), late.at(t, "_l1", false), late.at(t, "_l1", true),
		late.at(t, "_l0", false), late.at(t, "_l0", true), late.at(t, "embedding.weight", true),
	}
	if !slices.IsSorted(order) {
		t.Errorf("order %v", late.names)
	}
	if at := late.at(t, "out.", true); at > order[1] {
		t.Errorf("the output's parameters come after the last layer's: %v", late.names)
	}

	// A loss of no parameter leaves all gradients as they are: complete at once.
	l := listen(tape, slab)
	tape.Reset()
	tape.Zeros(1).Backward()
	l.check(t)

	// Nothing is told of another slab's parameters, while held, or after the end.
	other, otherSlab := newReader()
	for name, prepare := range map[string]func(){
		"held": func() { tape.HoldReady(true) },
		"off":  func() { tape.HoldReady(false); tape.OnReady(nil, nil) },
	} {
		l := listen(tape, slab)
		prepare()
		tape.Reset()
		m.loss(tape).Backward()
		if len(l.names) > 0 {
			t.Errorf("%s: told of %v", name, l.names)
		}
		tape.HoldReady(false)
	}
	l = listen(tape, slab)
	tape.Reset()
	other.loss(tape).Backward()
	l.check(t)
	if len(otherSlab.Params) != len(slab.Params) {
		t.Fatal("the other model is not alike")
	}
}

// Segment by segment, a parameter is told of in the last pass, the first segment's.
func TestOnReadyOfCheckpointing(t *testing.T) {
	m := &summer{nn.NewLSTM(width, hidden, &nn.RNNOptions{Layers: 2, LearnState: true}), nn.NewLinear(hidden, 1, nil)}
	slab := tensor.Pack(tensor.CPU(), m, 1)
	const B, T = 2, 230
	plan, err := nn.PlanCheckpointing(m.RNN, B, T, 0, tensor.Float32)
	if err != nil || plan.Segments < 3 {
		t.Fatal(plan, err)
	}
	tape := tensor.NewTape(tensor.CPU(), tensor.Train)
	l := listen(tape, slab)
	plan.Backward(tape, 1, 0, m.pass(normal(1, B*T*width), B, T))
	l.check(t)
	if l.at(t, "head", true) > l.at(t, "_l1", false) || l.at(t, "_l1", true) > l.at(t, "_l0", false) {
		t.Errorf("order %v", l.names)
	}
	if tape.HoldReady(false) {
		t.Error("the plan leaves the tape held")
	}
	// A pass without any loss.
	l = listen(tape, slab)
	plan.Backward(tape, 1, 0, func(tape *tensor.Tape, from []*nn.State, lo, hi int) (*tensor.Tensor, []*nn.State) {
		_, to := m.pass(normal(1, B*T*width), B, T)(tape, from, lo, hi)
		return nil, to
	})
	l.check(t)
}

func TestOnReadyAllocatesNothing(t *testing.T) {
	m, slab := newReader()
	tape := tensor.NewTape(tensor.CPU(), tensor.Train)
	pass := func() {
		tape.Reset()
		m.loss(tape).Backward()
	}
	pass()
	without := testing.AllocsPerRun(20, pass)
	n := 0
	tape.OnReady(slab, func(lo, hi int) { n += hi - lo })
	pass()
	n = 0
	if with := testing.AllocsPerRun(20, pass); with != without {
		t.Errorf("%v allocations a pass, %v without a hook", with, without)
	}
	if want := 21 * slab.NumElements(); n != want {
		t.Errorf("told of %d numbers, want %d", n, want)
	}
}
