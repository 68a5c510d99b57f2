package cli

import (
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/internal/bench"
)

func TestPrintBench(t *testing.T) {
	r := &bench.Report{Numbers: []bench.Number{
		{Name: "vanish", Cell: "gru", Pass: "train", Steps: 336, Keep: 0.6, Loss: 1e-8, Threads: 2, Ratio: 17.25, Bar: 1.05, Rounds: 9},
		{Name: "constant", Cell: "lstm", Pass: "forward", Steps: 50, Weights: -0.1, Inputs: 4, Bar: 1.2, Rounds: 5, Steady: true},
		{Name: "adam30000x400", Cell: "adam", Pass: "step", Steps: 3000, Rounds: 15, Steady: true},
	}}
	var text strings.Builder
	printBench(&text, r)
	for _, want := range []string{"keep 0.6, loss 1e-08", "17.250", "9, unsteady", "weights -0.1, inputs 4", "few rows"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, &text)
		}
	}
	if strings.Contains(text.String(), "GFLOP/s  share") {
		t.Errorf("a table of no results:\n%s", &text)
	}
	r.Results = []bench.Result{{Name: "A", Cell: "lstm", Pass: "train"}}
	text.Reset()
	if printBench(&text, r); !strings.Contains(text.String(), "allocations") {
		t.Errorf("the results are missing:\n%s", &text)
	}
}
