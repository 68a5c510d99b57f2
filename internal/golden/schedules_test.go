package golden_test

import (
	"testing"

	"github.com/carousel-ml/carousel/internal/golden"
	"github.com/carousel-ml/carousel/optim"
)

type scheduleSettings struct {
	Schedule             string
	LR, Min, Gamma       float64
	Warmup, Steps, Every int

	Rise     float64 `json:"pct_start"`
	Div      float64 `json:"div_factor"`
	FinalDiv float64 `json:"final_div_factor"`

	Factor        float64
	Patience      *int
	Threshold     float64
	ThresholdMode string `json:"threshold_mode"`
	Mode          string
	Cooldown      int
	MinLR         float64 `json:"min_lr"`
}

// TestSchedules needs no kernels: schedules are pure functions.
func TestSchedules(t *testing.T) {
	cases, err := golden.Load("schedules")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			var s scheduleSettings
			settings(t, c, &s)
			want := c.Tensor("rates").Data
			if err := golden.CheckRates(ratesOf(t, &s, c, len(want)), want); err != nil {
				t.Error(err)
			}
		})
	}
}

func ratesOf(t *testing.T, s *scheduleSettings, c *golden.Case, n int) []float32 {
	rates := make([]float32, n)
	if s.Schedule == "plateau" {
		p := newPlateau(s)
		for i, m := range c.Tensor("metrics").Data {
			rates[i] = p.Observe(float64(m))
		}
		return rates
	}
	var f optim.Schedule
	switch s.Schedule {
	case "cosine":
		f = optim.Cosine(s.LR, s.Min, s.Steps)
	case "warmup_cosine":
		f = optim.WarmupCosine(s.LR, s.Min, s.Warmup, s.Steps)
	case "step":
		f = optim.StepDecay(s.LR, s.Gamma, s.Every)
	case "exponential":
		f = optim.Exponential(s.LR, s.Gamma)
	case "one_cycle":
		f = optim.OneCycle(s.LR, s.Steps, &optim.OneCycleOptions{Rise: s.Rise, Div: s.Div, FinalDiv: s.FinalDiv})
	default:
		t.Fatalf("unknown schedule %s", s.Schedule)
	}
	for i := range rates {
		rates[i] = f(i)
	}
	return rates
}

func newPlateau(s *scheduleSettings) *optim.Plateau {
	o := &optim.PlateauOptions{Factor: s.Factor, Threshold: s.Threshold, Absolute: s.ThresholdMode == "abs",
		Maximize: s.Mode == "max", Cooldown: s.Cooldown, Min: s.MinLR}
	if s.Patience != nil {
		o.Patience = *s.Patience
		if o.Patience == 0 {
			o.Patience = -1 // the options' way of saying none
		}
	}
	return optim.NewPlateau(s.LR, o)
}
