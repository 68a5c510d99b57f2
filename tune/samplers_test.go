package tune

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// The samplers that look at results propose the same trials for any number of workers, with trials that fail or
// break constraints among them.
func TestSamplersAnyWorkers(t *testing.T) {
	text := testSpace(t).String() + "\nconstraints: [\"hidden + 100 * lr <= 125\", \"seconds <= 90\"]"
	one, two := []Objective{{Name: "loss"}}, []Objective{{Name: "loss"}, {Name: "speed", Maximize: true}}
	for _, o := range []Options{
		{Sampler: "cmaes", Objectives: one}, {Sampler: "gp", Objectives: one}, {Sampler: "nsga2", Objectives: one},
		{Sampler: "gp", Objectives: two}, {Sampler: "nsga2", Objectives: two},
		{Sampler: "gp", Objectives: one, Pruner: "asha", Resource: 27, Resumable: true},
		{Sampler: "cmaes", Objectives: one, Pruner: "asha", Resource: 27, Resumable: true},
	} {
		o.Trials, o.Lag, o.Seed, o.Startup = 26, 7, 3, 6
		t.Run(fmt.Sprintf("%s/%d/%s", o.Sampler, len(o.Objectives), o.Pruner), func(t *testing.T) {
			t.Parallel()
			list := sameTrials(t, o, text, workOn)
			states, own := statesOf(list), 0
			for _, r := range list {
				if r.Origin == o.Sampler {
					own++
				}
			}
			if len(list) != o.Trials || states[Failed] == 0 || states[Running] > 0 || own < 19 {
				t.Errorf("%v of %d trials, %d are the sampler's", states, len(list), own)
			}
		})
	}
}

// workOn takes part in a study, with one or two objectives.
func workOn(ctx context.Context, s *Study, r *rand.Rand) error {
	for {
		trial, err := s.Next(ctx)
		if errors.Is(err, ErrDone) {
			return nil
		}
		if err != nil {
			return err
		}
		stop := false
		for at := trial.From + 1; at <= 27 && s.Options.Pruner != "none" && !stop; at++ {
			if stop, err = trial.Report(ctx, at, at, loss(trial.Values, at)); err != nil {
				return err
			}
		}
		time.Sleep(time.Duration(r.IntN(1000)) * time.Microsecond)
		hidden := float64(trial.Int("hidden"))
		values := []float64{loss(trial.Values, 27), 1 / hidden}[:len(s.Options.Objectives)]
		if trial.Number%7 == 5 {
			err = trial.Fail(ctx, errors.New("out of luck"))
		} else {
			err = trial.Tell(ctx, map[string]float64{"seconds": hidden}, values...)
		}
		if err != nil {
			return err
		}
	}
}

// The samplers find what random search does not: the results are how far the best losses are from the least there are, or by how
// much the hypervolume falls short. The functions are usual ones: Branin's, a sum of squares of 1 to 1000, and ZDT1 of Zitzler, Deb and Thiele.
func TestSamplersSearch(t *testing.T) {
	floats := func(n int, low, high float64) (text string) {
		for i := range n {
			text += fmt.Sprintf("x%d: {low: %g, high: %g}\n", i, low, high)
		}
		return text
	}
	branin := func(x []float64) []float64 {
		a := x[1] - 5.1/(4*math.Pi*math.Pi)*x[0]*x[0] + 5/math.Pi*x[0] - 6
		return []float64{a*a + 10*(1-1/(8*math.Pi))*math.Cos(x[0]) + 10 - 0.39788735772973816}
	}
	ellipsoid := func(x []float64) []float64 {
		sum := 0.0
		for i, v := range x {
			sum += math.Pow(1000, float64(i)/float64(len(x)-1)) * (v - 1.3) * (v - 1.3)
		}
		return []float64{sum}
	}
	zdt1 := func(x []float64) []float64 {
		g := 1.0
		for _, v := range x[1:] {
			g += 9 * v / float64(len(x)-1)
		}
		return []float64{x[0], g * (1 - math.Sqrt(x[0]/g))}
	}
	for _, c := range []struct {
		sampler, space string
		trials         int
		f              func(x []float64) []float64
		most           float64 // that the median of five seeds may be
	}{
		{"gp", "x0: {low: -5, high: 10}\nx1: {low: 0, high: 15}", 40, branin, 0.02},
		{"cmaes", floats(5, -5, 5), 150, ellipsoid, 20},
		{"nsga2", floats(6, 0, 1), 100, zdt1, 1.5},
		{"gp", floats(6, 0, 1), 40, zdt1, 0.3},
	} {
		run := func(sampler string) float64 {
			var results []float64
			for seed := range uint64(5) {
				space, err := ParseSpace("space.yaml", c.space)
				if err != nil {
					t.Fatal(err)
				}
				o := Options{Seed: seed, Trials: c.trials, Sampler: sampler, Objectives: make([]Objective, len(c.f(make([]float64, len(space.Params)))))}
				s, err := New(space, o)
				if err != nil {
					t.Fatal(err)
				}
				var losses [][]float64
				err = s.Run(t.Context(), func(_ context.Context, trial *Trial) ([]float64, error) {
					x := make([]float64, len(space.Params))
					for i := range x {
						x[i] = trial.Float(fmt.Sprintf("x%d", i))
					}
					losses = append(losses, c.f(x))
					return losses[len(losses)-1], nil
				})
				if err != nil {
					t.Fatal(err)
				}
				if len(o.Objectives) == 1 {
					results = append(results, slices.MinFunc(losses, slices.Compare)[0])
				} else {
					results = append(results, 11*1.1-Hypervolume(losses, []float64{1.1, 11})-1.0/3)
				}
			}
			slices.Sort(results)
			return results[2]
		}
		got, random := run(c.sampler), run("random")
		t.Logf("%s: %.3g, at random %.3g", c.sampler, got, random)
		if got > c.most || random < 2*got {
			t.Errorf("%s: %v, expected at most %v, and random search twice that: %v", c.sampler, got, c.most, random)
		}
	}
}
