package devicetest

import (
	"fmt"
	"math"

	"github.com/carousel-ml/carousel/internal/device"
)

// spelled is what a path says: repeats merged, then blanks dropped.
func spelled(path []int, blank int) []int {
	var out []int
	for t, c := range path {
		if c != blank && (t == 0 || c != path[t-1]) {
			out = append(out, c)
		}
	}
	return out
}

// ctcByPaths is -log of the probability of labels, the sum over every path of
// len(p)/v steps that spells them; p holds probabilities.
func ctcByPaths(p []float64, v, blank int, labels []int32) float64 {
	steps := len(p) / v
	path := make([]int, steps)
	var sum float64
	for {
		said := spelled(path, blank)
		same := len(said) == len(labels)
		for i := 0; same && i < len(said); i++ {
			same = said[i] == int(labels[i])
		}
		if same {
			product := 1.0
			for t, c := range path {
				product *= p[t*v+c]
			}
			sum += product
		}
		t := 0
		for ; t < steps; t++ {
			if path[t]++; path[t] < v {
				break
			}
			path[t] = 0
		}
		if t == steps {
			return -math.Log(sum)
		}
	}
}

// ctcByPrefixes is the same for long rows: with[i] and without[i] are the
// probabilities of having said the first i labels, the last step being the i-th
// label or a blank.
func ctcByPrefixes(p []float64, v, blank int, labels []int32) float64 {
	with, without := make([]float64, len(labels)+1), make([]float64, len(labels)+1)
	without[0] = 1
	for ; len(p) > 0; p = p[v:] {
		for i := len(labels); i >= 0; i-- {
			stay := with[i]
			without[i] = (without[i] + with[i]) * p[blank]
			if i == 0 {
				continue
			}
			with[i] = (stay + without[i-1]) * p[labels[i-1]]
			if i == 1 || labels[i-1] != labels[i-2] {
				with[i] += with[i-1] * p[labels[i-1]]
			}
		}
	}
	return -math.Log(with[len(labels)] + without[len(labels)])
}

// probabilities is the softmax of each row of v.
func probabilities(x []float64, v int) []float64 {
	p := make([]float64, len(x))
	for i := 0; i < len(x); i += v {
		var sum float64
		for j := range v {
			p[i+j] = math.Exp(x[i+j])
			sum += p[i+j]
		}
		for j := range v {
			p[i+j] /= sum
		}
	}
	return p
}

// ctcCase is a batch of sequences; nil lengths are full ones, nil labels made up.
type ctcCase struct {
	name      string
	t, v, l   int
	blank     int32
	lens      []int32
	labels    []int32
	labelLens []int32
	reference func(p []float64, v, blank int, labels []int32) float64
}

// row is the number of steps and the labels of row b.
func (c *ctcCase) row(b int) (steps int, labels []int32) {
	steps, n := c.t, c.l
	if c.lens != nil {
		steps = int(c.lens[b])
	}
	if c.labelLens != nil {
		n = int(c.labelLens[b])
	}
	return steps, c.labels[b*c.l : b*c.l+n]
}

func (s *suite) ctc() {
	for _, c := range []ctcCase{
		{"one step", 1, 2, 1, 0, nil, []int32{1}, nil, ctcByPaths},
		{"tiny", 5, 3, 2, 0, []int32{5, 5, 4, 3, 2, 3}, []int32{1, 2, 1, 1, 2, 2, 1, 2, 2, 1, 1, 1}, nil, ctcByPaths},
		{"no labels", 4, 3, 2, 0, []int32{4, 0, 1}, []int32{1, 1, 1, 1, 1, 1}, []int32{0, 0, 1}, ctcByPaths},
		{"last is blank", 6, 3, 3, 2, []int32{6, 4}, []int32{0, 0, 1, 1, 0, 9}, []int32{3, 2}, ctcByPaths},
		{"too short", 4, 3, 3, 0, []int32{4, 4, 2, 0}, []int32{1, 1, 2, 1, 1, 1, 1, 2, 1, 2, 1, 1}, nil, ctcByPaths},
		{"longer", 40, 9, 12, 0, []int32{40, 33, 12}, nil, []int32{12, 8, 12}, ctcByPrefixes},
		{"exact fit", 12, 40, 12, 39, nil, nil, nil, ctcByPrefixes},
	} {
		for _, perLabel := range []bool{false, true} {
			s.ctcCase(c, perLabel)
		}
	}
	s.ctcFarApart()
	s.ctcRowsAlone()
}

func (s *suite) ctcCase(c ctcCase, perLabel bool) {
	name := fmt.Sprintf("%s perLabel=%v", c.name, perLabel)
	spec := device.CTCSpec{B: max(len(c.lens), 1), T: c.t, V: c.v, L: c.l, Blank: c.blank, PerLabel: perLabel}
	if c.labels == nil {
		for i := range spec.B * spec.L {
			c.labels = append(c.labels, (spec.Blank+1+int32(i*i%(spec.V-1)))%int32(spec.V))
		}
		if spec.L == spec.T { // no room for a blank between neighbours
			for i := range c.labels {
				c.labels[i] = int32(i % (spec.V - 1))
			}
		}
	}
	spec.Lens, spec.Labels, spec.LabelLens = s.ints(c.lens), s.ints(c.labels), s.ints(c.labelLens)
	v := spec.V
	x := s.scaled(spec.B*spec.T*v, 1.5)
	value := func(x []float64) float64 {
		var sum float64
		for b := range spec.B {
			steps, labels := c.row(b)
			if device.CTCSteps(labels) > steps {
				continue
			}
			l := 0.0
			if steps > 0 {
				l = c.reference(probabilities(x[b*spec.T*v:(b*spec.T+steps)*v], v), v, int(spec.Blank), labels)
			}
			if spec.PerLabel {
				l /= float64(max(1, len(labels)))
			}
			sum += l
		}
		return sum / float64(spec.B)
	}
	for b := range spec.B { // what lies past a row's length is not read
		steps, _ := c.row(b)
		for i := (b*spec.T + steps) * v; i < (b+1)*spec.T*v; i++ {
			x[i] = float32(math.NaN())
		}
	}
	spec.Logits, spec.Value, spec.DLogits = s.put(x), s.b.Alloc(1), s.put(filled(len(x), 9))
	s.b.CTC(&spec)
	got := s.get(spec.Value)
	s.near(name, got, []float64{value(wide(x))}, 1e-5)
	d := s.get(spec.DLogits)
	sample := s.sample
	s.sample = len(x)
	clean := wide(x)
	for i, v := range x {
		if v != v {
			x[i], clean[i] = 0, 0
		}
	}
	s.gradient(name, d, x, value, 1e-5)
	s.sample = sample
	for b := range spec.B {
		steps, labels := c.row(b)
		if device.CTCSteps(labels) > steps {
			steps = 0
		}
		for i := (b*spec.T + steps) * v; i < (b+1)*spec.T*v; i++ {
			if d[i] != 0 {
				s.Fatalf("%s: gradient %d past the end of row %d is %v", name, i, b, d[i])
			}
		}
	}
	spec.DLogits = device.Buffer{}
	s.b.CTC(&spec)
	s.same(name+" without gradient", s.get(spec.Value), got)
}

// ctcFarApart has probabilities far below what their product could hold, and a NaN.
func (s *suite) ctcFarApart() {
	const T, V = 50, 3
	x := make([]float32, T*V)
	for t := range T {
		x[t*V] = 1000 // the blank, always
	}
	spec := device.CTCSpec{B: 1, T: T, V: V, L: 2, Logits: s.put(x), Labels: s.ints([]int32{1, 1}), Value: s.b.Alloc(1), DLogits: s.b.Alloc(T * V)}
	s.b.CTC(&spec)
	// Two single steps of 50 say the label, apart: 49·48/2 ways.
	s.near("far apart", s.get(spec.Value), []float64{2000 - math.Log(49*48/2)}, 1e-6)
	var sum float32
	for _, d := range s.get(spec.DLogits) {
		if d-d != 0 {
			s.Fatalf("far apart: gradient has %v", d)
		}
		sum += d
	}
	s.near("far apart: sum of the gradient", []float32{sum}, []float64{0}, 1e-5)

	x[7] = float32(math.NaN())
	s.b.Upload(spec.Logits, x)
	s.b.CTC(&spec)
	if v := s.get(spec.Value)[0]; v == v {
		s.Errorf("CTC of a NaN is %v", v)
	}
}

// ctcRowsAlone: a row's gradient has the same bits whatever its batch mates.
func (s *suite) ctcRowsAlone() {
	const B, T, V, L = 4, 30, 8, 5
	x := s.normal(B * T * V)
	spec := device.CTCSpec{B: B, T: T, V: V, L: L, Logits: s.put(x), Lens: s.ints([]int32{30, 11, 25, 18}), Value: s.b.Alloc(1), DLogits: s.b.Alloc(len(x))}
	labels := make([]int32, B*L)
	for i := range labels {
		labels[i] = 1 + int32(i*5%7)
	}
	spec.Labels = s.ints(labels)
	s.b.CTC(&spec)
	all := s.get(spec.DLogits)
	for b := range B {
		one := device.CTCSpec{B: 1, T: T, V: V, L: L, Logits: s.put(x[b*T*V : (b+1)*T*V]), Lens: spec.Lens.Slice(b, b+1),
			Labels: spec.Labels.Slice(b*L, (b+1)*L), Value: s.b.Alloc(1), DLogits: s.b.Alloc(T * V)}
		s.b.CTC(&one)
		d := s.get(one.DLogits)
		for i := range d {
			d[i] /= B
		}
		s.same(fmt.Sprintf("row %d alone", b), all[b*T*V:(b+1)*T*V], d)
	}
}
