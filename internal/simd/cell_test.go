package simd

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// lstmStep is a step of H units whose arrays end where memory ends.
type lstmStep struct {
	gates, cPrev, c, hid, out, dHid, dC []float32
}

func newLSTMStep(t testing.TB, h int) *lstmStep {
	return &lstmStep{edge(t, 4*h), edge(t, h), edge(t, h), edge(t, h), edge(t, h), edge(t, h), edge(t, h)}
}

func (s *lstmStep) fill(r *rand.Rand) {
	for i := range normals(r, s.gates) {
		s.gates[i] *= 2
	}
	normals(r, s.cPrev)
	normals(r, s.dHid)
	normals(r, s.dC)
}

func (s *lstmStep) forward(set *Set) {
	set.LSTM(&CellArgs{Rows: 1, H: len(s.c), Units: len(s.c), Gates: &s.gates[0], CPrev: &s.cPrev[0], C: &s.c[0], Hid: &s.hid[0], Out: &s.out[0], LDOut: len(s.c)})
}

func (s *lstmStep) backward(set *Set) {
	set.LSTMGrad(&CellArgs{Rows: 1, H: len(s.c), Units: len(s.c), Gates: &s.gates[0], CPrev: &s.cPrev[0], C: &s.c[0], DHid: &s.dHid[0], DC: &s.dC[0]})
}

// scalarLSTM is the cell in float64: pre-activations p (i,f,g,o) and the old
// cell state to activations, the new cell state and the output.
func scalarLSTM(p [4]float64, cPrev float64) (act [4]float64, c, h float64) {
	sigmoid := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
	act = [4]float64{sigmoid(p[0]), sigmoid(p[1]), math.Tanh(p[2]), sigmoid(p[3])}
	c = act[1]*cPrev + act[0]*act[2]
	return act, c, act[3] * math.Tanh(c)
}

func TestLSTM(t *testing.T) {
	eachSet(t, func(t *testing.T, set *Set) {
		r := rand.New(rand.NewPCG(1, 2))
		for h := 1; h <= lengths; h++ {
			s := newLSTMStep(t, h)
			s.fill(r)
			pre := slices.Clone(s.gates)
			s.forward(set)
			for j := range h {
				act, c, hid := scalarLSTM([4]float64{float64(pre[j]), float64(pre[h+j]), float64(pre[2*h+j]), float64(pre[3*h+j])}, float64(s.cPrev[j]))
				for g, want := range act {
					if !near(float64(s.gates[g*h+j]), want, 5e-7, 0) {
						t.Fatalf("H=%d: gate %d of unit %d is %g, want %g", h, g, j, s.gates[g*h+j], want)
					}
				}
				if !near(float64(s.c[j]), c, 1e-6, 1e-6) || !near(float64(s.hid[j]), hid, 1e-6, 1e-6) {
					t.Fatalf("H=%d: unit %d has c=%g h=%g, want %g and %g", h, j, s.c[j], s.hid[j], c, hid)
				}
			}
		}
	})
}

// The backward kernel against central differences of the float64 cell.
func TestLSTMGrad(t *testing.T) {
	eachSet(t, func(t *testing.T, set *Set) {
		r := rand.New(rand.NewPCG(3, 4))
		for h := 1; h <= lengths; h++ {
			s := newLSTMStep(t, h)
			s.fill(r)
			pre, dC := slices.Clone(s.gates), slices.Clone(s.dC)
			s.forward(set)
			s.backward(set)
			for j := range h {
				x := [5]float64{float64(pre[j]), float64(pre[h+j]), float64(pre[2*h+j]), float64(pre[3*h+j]), float64(s.cPrev[j])}
				loss := func(x [5]float64) float64 {
					_, c, hid := scalarLSTM([4]float64(x[:4]), x[4])
					return hid*float64(s.dHid[j]) + c*float64(dC[j])
				}
				for k := range x {
					const step = 1e-5
					up, down := x, x
					up[k] += step
					down[k] -= step
					want := (loss(up) - loss(down)) / (2 * step)
					got := s.dC[j]
					if k < 4 {
						got = s.gates[k*h+j]
					}
					if !near(float64(got), want, 2e-6, 2e-6) {
						t.Fatalf("H=%d: gradient %d of unit %d is %g, want %g", h, k, j, got, want)
					}
				}
			}
		}
	})
}

// A unit's bits depend neither on H nor on where it stands.
func TestLSTMSameBits(t *testing.T) {
	eachSet(t, func(t *testing.T, set *Set) {
		r := rand.New(rand.NewPCG(5, 6))
		whole := newLSTMStep(t, lengths)
		whole.fill(r)
		var parts []*lstmStep
		for lo, h := 0, 1; lo < lengths; lo, h = lo+h, h+3 {
			h = min(h, lengths-lo)
			s := newLSTMStep(t, h)
			for g := range 4 {
				copy(s.gates[g*h:][:h], whole.gates[g*lengths+lo:])
			}
			copy(s.cPrev, whole.cPrev[lo:])
			copy(s.dHid, whole.dHid[lo:])
			copy(s.dC, whole.dC[lo:])
			parts = append(parts, s)
		}
		check := func(what string) {
			lo := 0
			for _, s := range parts {
				h := len(s.c)
				for g := range 4 {
					if !sameBits(s.gates[g*h:][:h], whole.gates[g*lengths+lo:][:h]) {
						t.Fatalf("%s: gate %d of units from %d differs", what, g, lo)
					}
				}
				if !sameBits(s.c, whole.c[lo:][:h]) || !sameBits(s.hid, whole.hid[lo:][:h]) || !sameBits(s.dC, whole.dC[lo:][:h]) {
					t.Fatalf("%s: states of units from %d differ", what, lo)
				}
				lo += h
			}
		}
		for _, s := range append(parts, whole) {
			s.forward(set)
		}
		check("forward")
		for _, s := range append(parts, whole) {
			s.backward(set)
		}
		check("backward")
	})
}

// Rows together, and parts of their units, are the rows one by one.
func TestLSTMRows(t *testing.T) {
	const rows = 3
	eachSet(t, func(t *testing.T, set *Set) {
		r := rand.New(rand.NewPCG(7, 8))
		for _, h := range []int{1, 7, 16, 20, 32, 45} {
			all, out := newLSTMStep(t, rows*h), edge(t, (rows-1)*(h+2)+h)
			all.fill(r)
			var one [rows]*lstmStep
			for i := range one {
				one[i] = newLSTMStep(t, h)
				copy(one[i].gates, all.gates[4*i*h:])
				copy(one[i].cPrev, all.cPrev[i*h:])
				copy(one[i].dHid, all.dHid[i*h:])
				copy(one[i].dC, all.dC[i*h:])
			}
			check := func(what string) {
				for i, s := range one {
					if !sameBits(s.hid, s.out) || !sameBits(s.hid, out[i*(h+2):][:h]) {
						t.Fatalf("%s, H=%d: row %d of the copy differs", what, h, i)
					}
					if !sameBits(s.gates, all.gates[4*i*h:][:4*h]) || !sameBits(s.c, all.c[i*h:][:h]) || !sameBits(s.hid, all.hid[i*h:][:h]) || !sameBits(s.dC, all.dC[i*h:][:h]) {
						t.Fatalf("%s, H=%d: row %d differs", what, h, i)
					}
				}
			}
			parts := [][2]int{{0, h / 3}, {h / 3, h}}
			for _, p := range parts {
				if u := p[0]; p[1] > u {
					set.LSTM(&CellArgs{Rows: rows, H: h, Units: p[1] - u, Gates: &all.gates[u], CPrev: &all.cPrev[u], C: &all.c[u], Hid: &all.hid[u], Out: &out[u], LDOut: h + 2})
				}
			}
			for _, s := range one {
				s.forward(set)
			}
			check("forward")
			for _, p := range parts {
				if u := p[0]; p[1] > u {
					set.LSTMGrad(&CellArgs{Rows: rows, H: h, Units: p[1] - u, Gates: &all.gates[u], CPrev: &all.cPrev[u], C: &all.c[u], DHid: &all.dHid[u], DC: &all.dC[u]})
				}
			}
			for _, s := range one {
				s.backward(set)
			}
			check("backward")
		}
	})
}

// Extreme pre-activations saturate without NaN, and NaN stays visible.
func TestLSTMExtremes(t *testing.T) {
	eachSet(t, func(t *testing.T, set *Set) {
		h := 17
		for _, v := range []float32{1e30, -1e30, float32(math.Inf(1)), float32(math.Inf(-1)), 1e-40, float32(math.NaN())} {
			s := newLSTMStep(t, h)
			for i := range s.gates {
				s.gates[i] = v
			}
			for i := range h {
				s.cPrev[i], s.dHid[i], s.dC[i] = 0.5, 1, 1
			}
			s.forward(set)
			s.backward(set)
			for _, x := range slices.Concat(s.gates, s.c, s.hid, s.dC) {
				if (x != x) != (v != v) {
					t.Fatalf("gates of %g give %g", v, x)
				}
			}
		}
	})
}

func BenchmarkLSTM(b *testing.B) {
	for _, h := range []int{16, 64, 256, 650} {
		for _, set := range Sets() {
			s := newLSTMStep(b, h)
			s.fill(rand.New(rand.NewPCG(1, 2)))
			b.Run(fmt.Sprintf("set=%s/H=%d/pass=forward", set.Name, h), func(b *testing.B) {
				for b.Loop() {
					s.forward(set)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(h), "ns/unit")
			})
			b.Run(fmt.Sprintf("set=%s/H=%d/pass=backward", set.Name, h), func(b *testing.B) {
				for b.Loop() {
					s.backward(set)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(h), "ns/unit")
			})
		}
	}
}

// gruRows is some rows of a GRU step of H units.
type gruRows struct {
	rows, h                      int
	gates, side, hPrev, hid, out []float32
	dHid                         []float32
}

func newGRURows(t testing.TB, r *rand.Rand, rows, h int) *gruRows {
	s := &gruRows{rows, h, edge(t, 3*rows*h), edge(t, rows*h), edge(t, rows*h), edge(t, rows*h), edge(t, (rows-1)*(h+2)+h), edge(t, rows*h)}
	for _, x := range [][]float32{s.gates, s.side, s.hPrev, s.dHid} {
		normals(r, x)
	}
	return s
}

// forward runs units [lo,hi) of the rows.
func (s *gruRows) forward(set *Set, lo, hi int) {
	set.GRU(&CellArgs{Rows: s.rows, H: s.h, Units: hi - lo, Gates: &s.gates[lo], Side: &s.side[lo], HPrev: &s.hPrev[lo], Hid: &s.hid[lo], Out: &s.out[lo], LDOut: s.h + 2})
}

func (s *gruRows) backward(set *Set, lo, hi int) {
	set.GRUGrad(&CellArgs{Rows: s.rows, H: s.h, Units: hi - lo, Gates: &s.gates[lo], Side: &s.side[lo], HPrev: &s.hPrev[lo], DHid: &s.dHid[lo]})
}

// scalarGRU is h' of one unit in float64, from pre-activations, side and h.
func scalarGRU(x [5]float64) float64 {
	sigmoid := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
	r, z := sigmoid(x[0]), sigmoid(x[1])
	n := math.Tanh(x[2] + r*x[3])
	return (1-z)*n + z*x[4]
}

// The GRU's kernels against float64 and its central differences; parts of the units give the bits of the whole.
func TestGRU(t *testing.T) {
	eachSet(t, func(t *testing.T, set *Set) {
		r := rand.New(rand.NewPCG(5, 6))
		for h := 1; h <= 50; h++ {
			s := newGRURows(t, r, 1+h%3, h)
			pre, side, dHid := slices.Clone(s.gates), slices.Clone(s.side), slices.Clone(s.dHid)
			part := *s
			for _, x := range []*[]float32{&part.gates, &part.side, &part.hid, &part.out, &part.dHid} {
				*x = slices.Clone(*x)
			}
			s.forward(set, 0, h)
			for lo := 0; lo < h; lo += 13 {
				part.forward(set, lo, min(lo+13, h))
			}
			if !sameBits(s.hid, part.hid) || !sameBits(s.out, part.out) || !sameBits(s.gates, part.gates) {
				t.Fatalf("H=%d: a unit's bits depend on where it stands", h)
			}
			s.backward(set, 0, h)
			for lo := 0; lo < h; lo += 13 {
				part.backward(set, lo, min(lo+13, h))
			}
			if !sameBits(s.dHid, part.dHid) || !sameBits(s.side, part.side) || !sameBits(s.gates, part.gates) {
				t.Fatalf("H=%d: a unit's gradients depend on where it stands", h)
			}
			for k := range s.hid {
				row, j := k/h, k%h
				at := 3*row*h + j
				x := [5]float64{float64(pre[at]), float64(pre[at+h]), float64(pre[at+2*h]), float64(side[k]), float64(s.hPrev[k])}
				if want := scalarGRU(x); !near(float64(s.hid[k]), want, 1e-6, 1e-6) || s.out[row*(h+2)+j] != s.hid[k] {
					t.Fatalf("H=%d: unit %d of row %d is %g and %g, want %g", h, j, row, s.hid[k], s.out[row*(h+2)+j], want)
				}
				got := [5]float32{s.gates[at], s.gates[at+h], s.gates[at+2*h], s.side[k], s.dHid[k]}
				for i := range x {
					const step = 1e-5
					up, down := x, x
					up[i] += step
					down[i] -= step
					want := float64(dHid[k]) * (scalarGRU(up) - scalarGRU(down)) / (2 * step)
					if i == 4 { // the direct part alone is asked for, and all there is here
						want = float64(dHid[k]) / (1 + math.Exp(-x[1]))
					}
					if !near(float64(got[i]), want, 2e-6, 2e-6) {
						t.Fatalf("H=%d: gradient %d of unit %d is %g, want %g", h, i, j, got[i], want)
					}
				}
			}
		}
	})
}
