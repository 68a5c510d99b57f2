package quantize

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/carousel-ml/carousel/task"
)

// Accuracy compares the two models on the same rows.
type Accuracy struct {
	Part      string  `json:"part"`      // the rows: test, validation or all
	Rows      int     `json:"rows"`      // number of rows
	Separate  int     `json:"separate"`  // number of them that do not depend on each other: windows that overlap count as one
	Differ    int     `json:"differ"`    // rows whose contribution to the figure differs
	Figure    string  `json:"figure"`    // the figure that the task's evaluation names so
	Higher    bool    `json:"higher"`    // whether more is better
	Float32   float64 `json:"float32"`   // of the float32 model
	Quantized float64 `json:"quantized"` // of the quantized one
	Kept      float64 `json:"kept"`      // share of the float32 model's accuracy: the quotient, of figures for which less is better the inverse, and of error rates that of 1 minus them
	Low       float64 `json:"low"`       // ends of the 95 % interval of kept, by a paired bootstrap over the rows
	High      float64 `json:"high"`      // see low

	Examples []Example `json:"examples,omitempty"` // rows whose figure changed most
}

const (
	resamples = 2000
	examples  = 10
	fewest    = 20 // separate rows, of fewer than which a bootstrap makes no interval
)

// Example is one row by both models.
type Example struct {
	Row       int     `json:"row"`       // its number in the part, from 1
	Float32   float64 `json:"float32"`   // the figure of this row alone, of the float32 model
	Quantized float64 `json:"quantized"` // the same of the quantized one
}

// examplesOf returns the rows whose figure changed most.
func examplesOf(f, q *task.Tally) (list []Example) {
	for i := range f.Rows {
		e := Example{i + 1, f.Of(f.Rows[i]), q.Of(q.Rows[i])}
		if d := e.Float32 - e.Quantized; d != 0 && d-d == 0 {
			list = append(list, e)
		}
	}
	slices.SortStableFunc(list, func(a, b Example) int {
		return cmp.Compare(math.Abs(b.Float32-b.Quantized), math.Abs(a.Float32-a.Quantized))
	})
	return list[:min(len(list), examples)]
}

// compare computes the figures of two tallies of the same rows, and the interval of what is kept.
func compare(f, q *task.Tally) *Accuracy {
	block := max(f.Block, 1)
	a := &Accuracy{Rows: len(f.Rows), Separate: (len(f.Rows) + block - 1) / block, Figure: f.Name, Higher: f.Higher, Float32: f.Value(), Quantized: q.Value()}
	for i := range f.Rows {
		if !slices.Equal(f.Rows[i], q.Rows[i]) {
			a.Differ++
		}
	}
	a.Examples = examplesOf(f, q)
	a.Kept = kept(f, a.Float32, a.Quantized)
	r := rand.New(rand.NewPCG(1, 0))
	list, shares := make([]int, len(f.Rows)), make([]float64, resamples)
	for i := range shares {
		for j := 0; j < len(list); {
			first := r.IntN(len(list)) // a block goes on at the beginning
			for k := 0; k < block && j < len(list); k, j = k+1, j+1 {
				list[j] = (first + k) % len(list)
			}
		}
		shares[i] = kept(f, f.Resampled(list), q.Resampled(list))
	}
	slices.Sort(shares)
	a.Low, a.High = shares[resamples/40], shares[resamples-1-resamples/40]
	return a
}

// kept returns the share of the accuracy f that q is: of none, or of fewer than none where a rate of errors is above 1,
// all is kept unless q is less.
func kept(t *task.Tally, f, q float64) float64 {
	switch {
	case t.Rate:
		f, q = 1-f, 1-q
	case !t.Higher:
		f, q = q, f
	}
	switch {
	case f == q || f <= 0 && q > f:
		return 1
	case f <= 0:
		return 0
	}
	return q / f
}
