package tune

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestLogImprovement(t *testing.T) {
	for z, want := range map[float64][]float64{ // by mpmath with 60 digits
		3:     {1.0987396653277078, 0.33284096845179524, 0.0014770946446142933},
		-1:    {-2.4851210257126413, 1.9042712333296918, 2.9042712333296918},
		-5:    {-16.74430116266099, 5.3618162412880885, 27.809081206440443},
		-19.5: {-196.99258561722833, 19.601769440355082, 383.23450408692409},
		-20.5: {-217.09186837038313, 20.596875862192977, 423.23595517495602},
		-100:  {-5010.1295788002498, 100.01999400419587, 10002.999400419587},
	} {
		log, cdf, pdf := logImprovement(z)
		if !near([]float64{log, cdf, pdf}, want, 3e-6) {
			t.Errorf("at %v: %v %v %v, want %v", z, log, cdf, pdf, want)
		}
	}
}

// testModel is one of six points with a choice as the third parameter.
func testModel(t *testing.T) (*model, []float64) {
	s, err := ParseSpace("space.yaml", "a: {low: 0, high: 1}\nb: {low: 0, high: 1}\nc: {choices: [x, y, z]}")
	if err != nil {
		t.Fatal(err)
	}
	m := &model{space: s, rand: rand.New(rand.NewPCG(1, 2))}
	for i := range 6 {
		m.x = append(m.x, []float64{math.Mod(float64(i+1)*math.Sqrt2, 1), math.Mod(float64(i+1)*math.Sqrt(3), 1), float64(i % 3)})
	}
	return m, []float64{.3, -1.2, .8, 1.1, -.4, -.6}
}

// The process by the textbook's formulas, in numpy.
func TestProcess(t *testing.T) {
	m, y := testModel(t)
	theta := []float64{math.Log(2), math.Log(.5), math.Log(1.5), math.Log(1.3), math.Log(.01 - leastNoise)}
	if got := m.density(y)(theta, make([]float64, 5)); !near([]float64{got}, []float64{7.921733938184033}, 1e-12) {
		t.Error(got)
	}
	m.condition(y)
	means, deviations := m.all([][]float64{{.25, .75, 1}, {.9, .1, 2}})
	if !near(means, []float64{-0.6323207245355098, -1.1290054013614403}, 1e-12) || !near(deviations, []float64{0.3083175933875713, 0.6818585249729292}, 1e-12) {
		t.Error(means, deviations)
	}
}

// The slopes are those of small steps.
func TestSlopes(t *testing.T) {
	m, y := testModel(t)
	check := func(name string, f func(x, grad []float64) float64, x []float64) {
		grad, other := make([]float64, len(x)), make([]float64, len(x))
		f(x, grad)
		for i := range x {
			step := func(h float64) float64 { z := slices.Clone(x); z[i] += h; return f(z, other) }
			if want := (step(1e-5) - step(-1e-5)) / 2e-5; !near(grad[i:i+1], []float64{want}, 1e-7) {
				t.Errorf("%s by %d is %v, want %v", name, i, grad[i], want)
			}
		}
	}
	check("density", m.density(y), []float64{.3, -.4, .5, .2, -3})
	m.condition(y)
	for _, m.incumbent = range []float64{-1, -30} {
		check("acquisition", m.loss([]float64{.25, .75, 1}, []int{0, 1}), []float64{.25, .75})
	}
}

func TestDescend(t *testing.T) {
	rosenbrock := func(x, grad []float64) float64 {
		a, b := x[1]-x[0]*x[0], 1-x[0]
		grad[0], grad[1] = -400*x[0]*a-2*b, 200*a
		return 100*a*a + b*b
	}
	if x := descend(rosenbrock, []float64{-1.2, 1}, -5, 5, 100); !near(x, []float64{1, 1}, 1e-3) {
		t.Error(x)
	}
	// In the box up to 0.8 the minimum is at its side.
	if x := descend(rosenbrock, []float64{-.5, .5}, -.8, .8, 100); !near(x, []float64{.8, .64}, 1e-3) {
		t.Error(x)
	}
}

// What failed or breaks constraints is as bad as the worst, and what is known part way only is not the best.
func TestGoals(t *testing.T) {
	known := []observation{
		{losses: []float64{4}, at: math.MaxInt},
		{losses: []float64{1}, at: 3},
		{losses: []float64{math.NaN()}, at: math.MaxInt},
		{losses: []float64{2}, at: math.MaxInt},
		{losses: []float64{0}, at: math.MaxInt, excess: 1},
		{losses: []float64{3}, at: math.MaxInt},
	}
	k := &knowledge{objectives: 1, rand: rand.New(rand.NewPCG(1, 2))}
	y := goals(k, known)
	if y[2] != y[0] || y[4] != y[0] || y[1] != y[3] || !(y[3] < y[5] && y[5] < y[0]) {
		t.Error(y)
	}
	// Without one that keeps the constraints they are what matters.
	for i := range known {
		known[i].excess = float64(6 - i)
	}
	if y = goals(k, known); !(y[5] < y[4] && y[4] < y[3] && y[2] == y[0]) {
		t.Error(y)
	}
	if y = goals(k, known[:1]); y != nil {
		t.Error(y)
	}
}
