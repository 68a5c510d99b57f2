package tune

import (
	"context"
	"encoding/csv"
	"errors"
	"os"
	"slices"
	"strconv"
	"testing"
)

// A tabulated training: the best validation accuracy up to each epoch, and the steps of an epoch.
type tabulated struct {
	accuracy []float64
	steps    int
}

// readCurves reads testdata/sst2_curves.csv: small classifiers of SST-2 (6,920 sentences to learn from), whose settings were
// drawn at random, trained for 20 epochs each by this program with one seed. Columns: number, lr, hidden, embedding,
// dropout, batch, pool, bidirectional, weight_decay, and after each epoch the accuracy on the 872 validation sentences.
func readCurves(t testing.TB) (list []tabulated) {
	f, err := os.Open("testdata/sst2_curves.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		batch, err := strconv.Atoi(row[5])
		if err != nil {
			t.Fatal(err)
		}
		one := tabulated{steps: (6920 + batch - 1) / batch}
		for _, cell := range row[9:] {
			x, err := strconv.ParseFloat(cell, 64)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(one.accuracy); n > 0 {
				x = max(x, one.accuracy[n-1])
			}
			one.accuracy = append(one.accuracy, x)
		}
		list = append(list, one)
	}
	return list
}

var errReached = errors.New("reached")

// ASHA finds as good a training as the best of 30 that random search completes, in a third of its steps: in the median of
// sixty seeds, on trainings that were tabulated once. A seed's share is anything from 0.02 to above 1, and their mean is 0.37: the best of
// these trainings is no better than chance in its first two epochs, and ASHA comes to it last.
// ASHA is as the command has it: with promotion, and a lag of 7.
func TestASHAReachesRandom(t *testing.T) {
	table := readCurves(t)
	epochs := len(table[0].accuracy)
	space := &Space{Params: []*Param{{Name: "row", Type: Int, Low: 0, High: float64(len(table) - 1)}}}
	// replay runs a study until a trial is as good as target, and returns the best accuracy and the steps that it took.
	replay := func(o Options, target float64) (best float64, steps int) {
		o.Objectives, o.Resource, o.Sampler, o.Resumable, o.Lag = []Objective{{Name: "accuracy", Maximize: true}}, epochs, "random", true, 7
		s, err := New(space, o)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		err = s.Run(ctx, func(_ context.Context, trial *Trial) ([]float64, error) {
			row, x := table[trial.Int("row")], 0.0
			for at := trial.From + 1; at <= epochs; at++ {
				x = row.accuracy[at-1]
				steps += row.steps
				if best = max(best, x); best >= target {
					cancel(errReached)
				}
				if stop, err := trial.Report(context.WithoutCancel(ctx), at, at*row.steps, x); stop || err != nil || ctx.Err() != nil {
					return []float64{x}, err
				}
			}
			return []float64{x}, nil
		})
		if err != nil && !errors.Is(context.Cause(ctx), errReached) {
			t.Fatal(err)
		}
		return best, steps
	}
	var shares []float64
	sum := 0.0
	const seeds = 60
	for seed := range uint64(seeds) {
		target, all := replay(Options{Seed: 1000 + seed, Trials: 30}, 2)
		best, steps := replay(Options{Seed: 5000 + seed, Trials: len(table), Pruner: "asha"}, target)
		if best < target {
			t.Errorf("seed %d: ASHA found %v, random search %v", seed, best, target)
		}
		shares = append(shares, float64(steps)/float64(all))
		sum += shares[seed]
	}
	slices.Sort(shares)
	median := shares[seeds/2]
	t.Logf("ASHA's steps by random search's: median %.2f, mean %.2f; %.2f", median, sum/seeds, shares)
	if median > 1./3 {
		t.Errorf("ASHA took %.2f of random search's steps in the median, expected at most a third", median)
	}
}
