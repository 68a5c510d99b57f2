package optim

import (
	"encoding/json"
	"math"
	"testing"
)

// TestSchedules compares with torch 1.13: the learning rate in force at each step under the expression beside the case.
func TestSchedules(t *testing.T) {
	for _, c := range []struct {
		name string
		f    Schedule
		want []float64
	}{
		{"constant", Constant(0.1), []float64{.1, .1, .1}},
		// CosineAnnealingLR(T_max=8, eta_min=0.01); after step 8 torch rises, this stays.
		{"cosine", Cosine(0.1, 0.01, 8), []float64{0.1, 0.0965745789630079, 0.08681980515339463, 0.07222075445642905, 0.055, 0.03777924554357096, 0.023180194846605363, 0.013425421036992097, 0.01, 0.01, 0.01}},
		// SequentialLR([LinearLR(start_factor=1/4, total_iters=3), CosineAnnealingLR(T_max=5, eta_min=0.01)], milestones=[3])
		{"warm-up", WarmupCosine(0.1, 0.01, 3, 8), []float64{0.025, 0.05, 0.075, 0.1, 0.09140576474687263, 0.06890576474687263, 0.04109423525312736, 0.018594235253127367, 0.01, 0.01}},
		// StepLR(step_size=3, gamma=0.5)
		{"step", StepDecay(0.1, 0.5, 3), []float64{.1, .1, .1, .05, .05, .05, .025, .025, .025, .0125}},
		// ExponentialLR(gamma=0.9)
		{"exponential", Exponential(0.1, 0.9), []float64{0.1, 0.09, 0.081, 0.0729, 0.06561, 0.059049}},
		// OneCycleLR(max_lr=0.1, total_steps=10)
		{"one cycle", OneCycle(0.1, 10, nil), []float64{0.004, 0.052, 0.1, 0.09504846320134738, 0.0811745653949763, 0.06112620219362893, 0.03887419780637107, 0.0188258346050237, 0.004951936798652629, 4e-07, 4e-07}},
		// OneCycleLR(max_lr=0.5, total_steps=12, pct_start=0.5, div_factor=10, final_div_factor=100)
		{"one cycle, shaped", OneCycle(0.5, 12, &OneCycleOptions{0.5, 10, 100}), []float64{0.05, 0.09297117626563683, 0.20547117626563682, 0.3445288237343631, 0.45702882373436315, 0.5, 0.4665398445951636, 0.375125, 0.25025, 0.125375, 0.033960155404836434, 0.0005}},
		{"one cycle of one step", OneCycle(0.1, 1, nil), []float64{4e-7, 4e-7}},
	} {
		for step, want := range c.want {
			if got := float64(c.f(step)); math.Abs(got-want) > 1e-6*want {
				t.Errorf("%s: step %d is %v, want %v", c.name, step, got, want)
			}
		}
	}
}

// TestPlateau compares with torch 1.13's ReduceLROnPlateau: lr 0.1, the metrics below, the rate after each.
func TestPlateau(t *testing.T) {
	metrics := []float64{1, .9, .9, .9, .9, .89, .9, .9, .9, .9, .5, .6, .6, .6, math.NaN(), .6, .6, .6, .6, .6}
	for _, c := range []struct {
		name string
		o    PlateauOptions
		want []float64
	}{
		{"patience=2", PlateauOptions{Patience: 2},
			[]float64{.1, .1, .1, .1, .01, .01, .01, .01, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-4, 1e-4, 1e-4, 1e-5, 1e-5, 1e-5, 1e-6}},
		{"patience=1, factor=.5, cooldown=2, min_lr=.02, threshold=.05", PlateauOptions{Patience: 1, Factor: .5, Cooldown: 2, Min: .02, Threshold: .05},
			[]float64{.1, .1, .1, .05, .05, .05, .05, .025, .025, .025, .025, .025, .02, .02, .02, .02, .02, .02, .02, .02}},
		{"mode='max', threshold_mode='abs', patience=2, threshold=.05, factor=.5", PlateauOptions{Maximize: true, Absolute: true, Patience: 2, Threshold: .05, Factor: .5},
			[]float64{.1, .1, .1, .1, .05, .05, .05, .025, .025, .025, .025, .025, .025, .0125, .0125, .0125, .00625, .00625, .00625, .003125}},
	} {
		p := NewPlateau(0.1, &c.o)
		for i, m := range metrics {
			if c.o.Maximize {
				m = -m
			}
			got := float64(p.Observe(m))
			if math.Abs(got-c.want[i]) > 1e-6*c.want[i] {
				t.Errorf("%s: after metric %d the rate is %v, want %v", c.name, i, got, c.want[i])
			}
			// Go on from a copy that went through JSON, as a resumed run does.
			b, err := json.Marshal(p.State())
			if err != nil {
				t.Fatal(err)
			}
			var s PlateauState
			if err := json.Unmarshal(b, &s); err != nil {
				t.Fatal(err)
			}
			p = NewPlateau(77, &c.o)
			p.SetState(s)
		}
	}
}
