package generate

import (
	"math"
	"slices"
	"testing"

	"github.com/carousel-ml/carousel/task"
)

// The tally is the perplexity of Evaluate. A short document is a row, and a long one
// several in its order.
func TestTally(t *testing.T) {
	for _, unit := range units {
		m := trained(t, small(unit), story)
		texts := docs("The cat sat.", story, "", "The bird", story+"The dog lay on the tree.")
		got, err := m.Tally(t.Context(), learnt(texts), task.All, nil)
		if err != nil {
			t.Fatal(err)
		}
		e, err := m.Evaluate(t.Context(), learnt(texts), task.All, nil)
		if err != nil {
			t.Fatal(err)
		}
		if v, want := got.Value(), e.Metrics.Perplexity; got.Name != "perplexity" || got.Higher || math.Abs(v/want-1) > 1e-12 {
			t.Errorf("%s: %s %v, evaluated %v", unit, got.Name, v, want)
		}
		at := 0
		for i := range texts {
			if texts[i].Text == "" {
				continue
			}
			one, err := m.Evaluate(t.Context(), learnt(texts[i:i+1]), task.All, nil)
			if err != nil {
				t.Fatal(err)
			}
			var rows []int
			for left := one.Tokens; left > 0; left -= tallied {
				if n := got.Rows[at][1]; n != float64(min(left, tallied)) {
					t.Errorf("%s: row %d has %v of %d tokens", unit, at, n, left)
				}
				rows = append(rows, at)
				at++
			}
			if v := got.Resampled(rows); math.Abs(v/one.Metrics.Perplexity-1) > 1e-5 { // batches of other sizes
				t.Errorf("%s: document %d: %v, alone %v", unit, i, v, one.Metrics.Perplexity)
			}
		}
		if at != len(got.Rows) || slices.ContainsFunc(got.Rows, func(row []float64) bool { return !(row[0] > 0) }) {
			t.Errorf("%s: %d rows, want %d with more than 0 nats", unit, len(got.Rows), at)
		}
	}
}
