package translate

import (
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
)

// The tally is the BLEU of Evaluate, also of some pairs, and leaves out pairs with an
// empty side. Options count as for Evaluate.
func TestTally(t *testing.T) {
	cfg := tiny()
	cfg.Epochs, cfg.Holdout = 8, 0
	m, _, err := Train(t.Context(), learn(copies(1600, 1)), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	list := copies(40, 3)
	for i := range 8 {
		list[i].Target = strings.ToUpper(list[i].Target[:1]) + list[i].Target[1:]
	}
	list[5].Target = " "
	for _, letters := range []string{m.cfg.Case, "lower"} {
		m.cfg.Case = letters
		for name, o := range map[string]*EvaluateOptions{"default": nil, "characters": {Tokenizer: "char", SearchOptions: SearchOptions{Beam: 1}}} {
			got, err := m.Tally(t.Context(), learn(list), task.All, o)
			if err != nil {
				t.Fatal(err)
			}
			if !(got.Name == "bleu" && got.Higher && len(got.Rows) == 39) {
				t.Errorf("%s: %s of %d pairs", name, got.Name, len(got.Rows))
			}
			without := append(list[:5:5], list[6:]...)
			for _, rows := range [][]int{nil, {3, 4, 5, 6, 7, 38}, {12}} {
				pairs, v := without, got.Value()
				if rows != nil {
					v, pairs = got.Resampled(rows), []data.Pair{}
					for _, i := range rows {
						pairs = append(pairs, without[i])
					}
				}
				e, err := m.Evaluate(t.Context(), learn(pairs), task.All, o)
				if err != nil {
					t.Fatal(err)
				}
				if v != e.Metrics.BLEU || rows == nil && !(v > 5 && v < 99) {
					t.Errorf("%s %q: rows %v have %v, evaluated %s", name, letters, rows, v, e.Detail)
				}
			}
		}
	}
}
