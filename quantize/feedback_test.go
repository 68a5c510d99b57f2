package quantize

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/carousel-ml/carousel/internal/simd"
)

// correlated returns rows of inputs that are mixtures of fewer sources, with some noise.
func correlated(r *rand.Rand, mix []float64, rows, cols int) []float32 {
	x := make([]float32, rows*cols)
	for row := range slices.Chunk(x, cols) {
		for source := range slices.Chunk(mix, cols) {
			v := r.NormFloat64()
			for j, by := range source {
				row[j] += float32(v * by)
			}
		}
		for j := range row {
			row[j] += float32(0.1 * r.NormFloat64())
		}
	}
	return x
}

func normals(r *rand.Rand, n int) []float32 {
	w := make([]float32, n)
	for i := range w {
		w[i] = float32(r.NormFloat64())
	}
	return w
}

// outputError returns the mean square of what the outputs for inputs x differ by between two matrices, by
// that of the outputs.
func outputError(a, b, x []float32, cols int) float64 {
	diff, norm := 0.0, 0.0
	for in := range slices.Chunk(x, cols) {
		for r := 0; r < len(a); r += cols {
			d, y := 0.0, 0.0
			for j, v := range in {
				d += float64(v) * (float64(a[r+j]) - float64(b[r+j]))
				y += float64(v) * float64(a[r+j])
			}
			diff, norm = diff+d*d, norm+y*y
		}
	}
	return diff / norm
}

func momentsOf(x []float32, cols int) *moments {
	m := newMoments(cols)
	m.add(x)
	m.flush()
	return m
}

// With feedback the outputs for inputs that were not used change much less than with plain rounding, if the inputs are
// correlated as those that were; with moments of other inputs that is not so.
func TestFeedbackKeepsOutputs(t *testing.T) {
	const rows, cols, sources = 64, 128, 64
	r := rand.New(rand.NewPCG(1, 2))
	var mix [2][]float64
	for k := range mix {
		for range sources * cols {
			mix[k] = append(mix[k], r.NormFloat64()/8)
		}
	}
	w := normals(r, rows*cols)
	held := correlated(r, mix[0], 500, cols)
	plain := slices.Clone(w)
	simd.RoundBytes(plain, cols, simd.Levels4)
	rounded := func(m *moments) float64 {
		q := slices.Clone(w)
		newFeedback(m, cols).round(q)
		again := slices.Clone(q)
		if simd.RoundBytes(again, cols, simd.Levels4); !slices.Equal(again, q) {
			t.Error("what was rounded with feedback is not made of levels of the scale of its rows")
		}
		return outputError(w, q, held, cols)
	}
	base := outputError(w, plain, held, cols)
	own := rounded(momentsOf(correlated(r, mix[0], 4000, cols), cols))
	other := rounded(momentsOf(correlated(r, mix[1], 4000, cols), cols))
	t.Logf("error of the outputs: rounded plainly %.5f, with feedback %.5f, with that of other inputs %.5f", base, own, other)
	if own > 0.3*base {
		t.Errorf("feedback leaves %.5f of an error of %.5f", own, base)
	}
	if other < 0.7*base {
		t.Errorf("feedback of other inputs leaves %.5f of %.5f", other, base)
	}
}

// For inputs that are independent and of equal size, each weight is the level nearest to it, as it is without moments.
func TestFeedbackOfIndependentInputs(t *testing.T) {
	const rows, cols = 30, 40
	w := normals(rand.New(rand.NewPCG(3, 4)), rows*cols)
	m := newMoments(cols)
	for j := range cols {
		m.sum.Data[j*cols+j] = 7
	}
	with, without := slices.Clone(w), slices.Clone(w)
	newFeedback(m, cols).round(with)
	newFeedback(nil, cols).round(without)
	if !slices.Equal(with, without) {
		t.Error("moments that are a multiple of the identity change the rounding")
	}
	values, scales := simd.SplitBytes(with, cols)
	for i, v := range w {
		scale := float64(scales[i/cols])
		nearest := 0.0
		for l := -7; l <= 7; l++ {
			if level := math.RoundToEven(float64(l)*127/7) * scale; math.Abs(level-float64(v)) < math.Abs(nearest-float64(v)) {
				nearest = level
			}
		}
		// Where two levels are 19 apart and not 18, the limit between them is half a unit from their middle.
		if got := float64(values[i]) * scale; math.Abs(got-float64(v)) > math.Abs(nearest-float64(v))+1.01*scale {
			t.Fatalf("weight %g became %g, and the nearest level is %g", v, got, nearest)
		}
	}
}

// What the rounding of a row costs is the change of its outputs: the quadratic form of the weights' errors
// with the damped moments, computed directly.
func TestFeedbackCost(t *testing.T) {
	const cols = 24
	r := rand.New(rand.NewPCG(5, 6))
	mix := make([]float64, 6*cols)
	for i := range mix {
		mix[i] = r.NormFloat64() * float64(1+i%5)
	}
	m := momentsOf(correlated(r, mix, 100, cols), cols)
	w := normals(r, cols)
	rounder := newRowRounder(newFeedback(m, cols))
	q := slices.Clone(w)
	rounder.round(q)
	mean := 0.0
	for j := range cols {
		mean += m.sum.Data[j*cols+j] / cols
	}
	want := 0.0
	for i := range cols {
		for j := range cols {
			h := m.sum.Data[min(i, j)*cols+max(i, j)]
			if i == j {
				h += damping * mean
			}
			want += h * (float64(w[i]) - float64(q[i])) * (float64(w[j]) - float64(q[j]))
		}
	}
	got := math.Inf(1)
	for _, one := range rounder.tries {
		got = min(got, one.cost)
	}
	if math.Abs(got-want) > 1e-9*want {
		t.Errorf("a row's rounding costs %g, and was held to cost %g", want, got)
	}
}

// Moments of many rows are of some of them, and of the size of all.
func TestMomentsOfManyRows(t *testing.T) {
	const cols, rows = 3, 100_000
	m := newMoments(cols)
	for range rows / 100 {
		x := make([]float32, 0, 100*cols)
		for range 100 {
			x = append(x, 1, 2, -3)
		}
		m.add(x)
	}
	m.flush()
	for j, want := range []float64{1, 2, -3} {
		if got := m.sum.Data[j] / rows; math.Abs(got-want) > 0.01*math.Abs(want) {
			t.Errorf("moment %d is %g, not %g", j, got, want)
		}
	}
	if m.stride < 4 {
		t.Errorf("every row counted for %d", m.stride)
	}
}
