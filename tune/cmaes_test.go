package tune

import (
	"math"
	"testing"
)

func near(got, want []float64, share float64) bool {
	for i, x := range want {
		if !(math.Abs(got[i]-x) <= share*max(1, math.Abs(x))) {
			return false
		}
	}
	return len(got) == len(want)
}

// The numbers wanted are those of cmaes.CMA of PyPI's cmaes 0.13.1, with a mean of 0.5, a sigma of 0.5 and a
// population of 7, told the same points. It adds 1e-8 to squares of lengths before it divides by them.
func TestCMAESAdapts(t *testing.T) {
	s, err := ParseSpace("space.yaml", "a: {low: 0, high: 1}\nb: {low: 0, high: 1}\nc: {low: 0, high: 1}")
	if err != nil {
		t.Fatal(err)
	}
	k := &knowledge{space: s, objectives: 1}
	for i := range 28 {
		v := spreadOut(s, i)
		a, b, c := v["a"].(float64), v["b"].(float64), v["c"].(float64)
		k.trials = append(k.trials, observation{number: i, values: v, at: math.MaxInt, losses: []float64{(a-.3)*(a-.3) + 3*(b-a)*(b-a) + (c-.8)*(c-.8)}})
	}
	e := newEvolution(s)
	e.sigma = 0.5
	e.replay(k)
	cov := []float64{
		0.6211911955272392, 0.4144913899864464, -0.006245589407172725,
		0.4144913899864464, 0.9000417607747916, -0.0506369048878244,
		-0.006245589407172722, -0.0506369048878244, 0.8292652040072758,
	}
	var got []float64
	for i := range 9 {
		got = append(got, e.cov.At(i/3, i%3))
	}
	for _, c := range []struct {
		name      string
		got, want []float64
	}{
		{"mean", e.mean, []float64{0.3969010343112448, 0.3348691794916471, 0.7301852866989463}},
		{"sigma", []float64{e.sigma}, []float64{0.29639866511870533}},
		{"cov", got, cov},
		{"path of sigma", e.pathSigma, []float64{-0.1347584337906781, -0.9559558935188902, 0.5359434256071239}},
		{"path of cov", e.pathCov, []float64{-0.41141014058643527, -1.1158290716483, 0.3998245877758044}},
	} {
		if !near(c.got, c.want, 1e-8) {
			t.Errorf("%s is %v, want %v", c.name, c.got, c.want)
		}
	}
	// A trial at work keeps the distribution at the generation before its own.
	k.trials[23].losses = nil
	if e := evolve(k); e.generation != 3 {
		t.Errorf("%d generations", e.generation)
	}
}
