package quantize

import (
	"cmp"
	"math"
	"runtime"
	"slices"
	"sync"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/mat"

	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/tensor"
)

// Rounding to 4 bits with error feedback (OPTQ, also known as GPTQ; Frantar et al. 2022): a matrix is to
// give the same outputs for the inputs that it meets, not to have the same weights. The columns of
// a row are rounded one after the other, and what one column's rounding changes in the output is
// taken back by the columns that are still to come, as far as their inputs go along with its own.
// How inputs go along with each other is in their second moments, the sum of x·xᵀ.

const (
	momentRows = 256  // rows that are added together
	strideRows = 8192 // rows after which every second one is left out
	damping    = 0.01 // of the mean square of the inputs, added to each: few rows leave moments singular
	scales     = 10   // scales that are tried for a row, each with its feedback,
	leastScale = 0.55 // from this share of that of its greatest magnitude to all of it
)

// moments are the second moments of what a matrix is multiplied by.
type moments struct {
	sum     blas64.Symmetric
	pending []float64 // rows to be added
	seen    int       // rows
	used    int       // with this stride
	stride  int
}

func newMoments(cols int) *moments {
	return &moments{sum: blas64.Symmetric{N: cols, Stride: cols, Uplo: blas.Upper, Data: make([]float64, cols*cols)}, stride: 1}
}

// add adds rows. Of many, one counts for those that are left out after it.
func (m *moments) add(x []float32) {
	for row := range slices.Chunk(x, m.sum.N) {
		if m.seen++; m.seen%m.stride != 0 {
			continue
		}
		for _, v := range row {
			m.pending = append(m.pending, float64(v))
		}
		if len(m.pending) == momentRows*m.sum.N {
			m.flush()
		}
	}
}

func (m *moments) flush() {
	rows := len(m.pending) / m.sum.N
	blas64.Syrk(blas.Trans, float64(m.stride), blas64.General{Rows: rows, Cols: m.sum.N, Stride: m.sum.N, Data: m.pending}, 1, m.sum)
	m.pending = m.pending[:0]
	if m.used += rows; m.used >= strideRows {
		m.used, m.stride = 0, 2*m.stride
	}
}

// observe returns the moments of the inputs of matrices, by their names, during run.
func observe(slabs []*tensor.Slab, run func() error) (map[string]*moments, error) {
	all := map[string]*moments{}
	var mu sync.Mutex
	for _, s := range slabs {
		s.Observe(func(p *tensor.Param, x []float32) {
			mu.Lock()
			defer mu.Unlock()
			if all[p.Name] == nil {
				all[p.Name] = newMoments(p.Len() / p.Dim(0))
			}
			all[p.Name].add(x)
		})
		defer s.Observe(nil)
	}
	err := run()
	for _, m := range all {
		m.flush()
	}
	return all, err
}

// feedback is the order in which columns are rounded, and how the error of each is spread.
type feedback struct {
	order  []int     // columns, those of large inputs first, since the last ones have nothing to correct them
	spread []float64 // [j][k]: what column k of the order takes of the error of j < k
	weight []float64 // [j]: what the square of an error that remains at j costs in the output
}

// newFeedback derives the feedback from moments. Without these, or if they are not finite, inputs count
// as independent and of equal size: each weight is rounded to the nearest level.
func newFeedback(m *moments, cols int) *feedback {
	f := &feedback{order: make([]int, cols), weight: make([]float64, cols)}
	for j := range f.order {
		f.order[j], f.weight[j] = j, 1
	}
	if m == nil {
		return f
	}
	at := func(i, j int) float64 { return m.sum.Data[min(i, j)*cols+max(i, j)] }
	mean := 0.0
	for j := range cols {
		mean += at(j, j) / float64(cols)
	}
	if !(mean > 0) || math.IsInf(mean, 1) {
		return f
	}
	order := slices.Clone(f.order)
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(at(j, j), at(i, i)) })
	// The method needs U with UᵀU the inverse of the moments H. With L the Cholesky factor of H whose
	// rows and columns are in the opposite order, U is the inverse of L in the opposite order.
	last := cols - 1
	h := mat.NewSymDense(cols, nil)
	for i := range cols {
		for j := i; j < cols; j++ {
			h.SetSym(i, j, at(order[last-i], order[last-j]))
		}
		h.SetSym(i, i, h.At(i, i)+damping*mean)
	}
	var factor mat.Cholesky
	var l mat.TriDense
	if !factor.Factorize(h) {
		return f
	}
	factor.LTo(&l)
	if err := l.InverseTri(&l); err != nil {
		return f
	}
	f.order, f.spread = order, make([]float64, cols*cols)
	for j := range cols {
		own := l.At(last-j, last-j)
		f.weight[j] = 1 / (own * own)
		for k := j; k < cols; k++ {
			f.spread[j*cols+k] = l.At(last-j, last-k) / own
		}
	}
	return f
}

// round rounds rows of weights to levels of 4 bits.
func (f *feedback) round(w []float32) {
	cols := len(f.order)
	rows := make(chan []float32)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			r := newRowRounder(f)
			for row := range rows {
				r.round(row)
			}
		})
	}
	for row := range slices.Chunk(w, cols) {
		rows <- row
	}
	close(rows)
	workers.Wait()
}

// rowRounder rounds a row, in the feedback's order, with several scales at once, so that the feedback is
// read once.
type rowRounder struct {
	*feedback
	tries [scales]try
}

// try is a row with one scale.
type try struct {
	scale float32
	left  []float64 // the weights with what they have taken of errors
	bytes []int8    // what they are rounded to
	cost  float64   // in the output
}

func newRowRounder(f *feedback) *rowRounder {
	r := &rowRounder{feedback: f}
	for i := range r.tries {
		r.tries[i].left, r.tries[i].bytes = make([]float64, len(f.order)), make([]int8, len(f.order))
	}
	return r
}

// round rounds the row. The weight of the greatest magnitude keeps the last level, by which the scale is
// known again.
func (r *rowRounder) round(row []float32) {
	n, greatest, pin := len(r.order), float32(0), 0
	for j, k := range r.order {
		if v := max(row[k], -row[k]); v > greatest {
			greatest, pin = v, j
		}
	}
	for i := range r.tries {
		t := &r.tries[i]
		t.cost, t.scale = 0, simd.ByteScale(greatest*(1-(1-leastScale)*float32(i)/(scales-1)))
		for j, k := range r.order {
			t.left[j] = float64(row[k])
		}
	}
	for j := range n {
		for i := range r.tries {
			t := &r.tries[i]
			v, scale := t.left[j], float64(t.scale)
			level := simd.LevelOf(v, scale, simd.Levels4)
			if j == pin {
				level = simd.LevelOf(float64(row[r.order[j]]), scale, simd.Levels4)
			}
			t.bytes[j] = simd.ByteOfLevel(level, simd.Levels4)
			e := v - float64(t.bytes[j])*scale
			t.cost += r.weight[j] * e * e
			if r.spread != nil {
				axpy(-e, r.spread[j*n+j+1:(j+1)*n], t.left[j+1:])
			}
		}
	}
	best := slices.MinFunc(r.tries[:], func(a, b try) int { return cmp.Compare(a.cost, b.cost) })
	for j, k := range r.order {
		row[k] = float32(best.bytes[j]) * best.scale
	}
}

// axpy adds a·x to y.
func axpy(a float64, x, y []float64) {
	blas64.Axpy(a, blas64.Vector{N: len(x), Inc: 1, Data: x}, blas64.Vector{N: len(x), Inc: 1, Data: y})
}
