package smoothing

import (
	"encoding/json"
	"math"
	"os"
	"testing"
)

// reference is what internal/golden/gen/smoothing.py wrote.
type reference struct {
	Fixed []struct {
		Model                 ETS
		Y, Forecast, Variance []float64
	}
	Theta []struct {
		Y, Forecast []float64
		Period      int
		Alpha       float64
	}
	Fitted []struct {
		Y             []float64
		Form          string
		Period        int
		LogLikelihood float64
	}
}

func readReference(t *testing.T) *reference {
	t.Helper()
	text, err := os.ReadFile("testdata/statsmodels.json")
	if err != nil {
		t.Fatal(err)
	}
	r := &reference{}
	if err := json.Unmarshal(text, r); err != nil {
		t.Fatal(err)
	}
	return r
}

func near(t *testing.T, what string, got, want []float64, relative float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	for i := range got {
		if !(math.Abs(got[i]-want[i]) <= relative*math.Abs(want[i])) {
			t.Errorf("%s: step %d: got %.10g, want %.10g", what, i+1, got[i], want[i])
			return
		}
	}
}

func TestGivenParameters(t *testing.T) {
	for _, c := range readReference(t).Fixed {
		p := c.Model.Run(c.Y)
		got := make([]float64, len(c.Forecast))
		p.Forecast(got, len(c.Y))
		near(t, c.Model.Form+" forecast", got, c.Forecast, 1e-8)
		if c.Variance == nil {
			continue
		}
		p.Spread(got, len(c.Y))
		for i, s := range got {
			got[i] = s * s
		}
		near(t, c.Model.Form+" variance", got, c.Variance, 1e-8)
	}
}

func TestThetaReference(t *testing.T) {
	for _, c := range readReference(t).Theta {
		m, err := FitTheta(c.Y, c.Period)
		if err != nil {
			t.Fatal(err)
		}
		if seasonal := len(m.Season) > 0; seasonal != (c.Period > 1) {
			t.Fatalf("period %d: found a season: %v", c.Period, seasonal)
		}
		if math.Abs(m.Alpha-c.Alpha) > 1e-3 {
			t.Errorf("period %d: alpha %.6f, want %.6f", c.Period, m.Alpha, c.Alpha)
		}
		got := make([]float64, len(c.Forecast))
		m.Run(c.Y).Forecast(got, len(c.Y))
		near(t, "theta", got, c.Forecast, 1e-3)
	}
}

// TestLikelihood wants each form's fit as likely as the one that statsmodels finds
// with an optimiser of its own.
func TestLikelihood(t *testing.T) {
	for _, c := range readReference(t).Fitted {
		f := newFitting(c.Y)
		period := 0
		if c.Form[len(c.Form)-1] != 'N' {
			period = c.Period
		}
		m := f.fit(c.Form, period)
		f.polish(m, indices(0, len(m.x)), polishing)
		n := float64(len(c.Y))
		got := -n / 2 * (math.Log(2*math.Pi*m.cost/n) + 1)
		if got < c.LogLikelihood-1e-3 {
			t.Errorf("%s: log likelihood %.4f, statsmodels found %.4f", c.Form, got, c.LogLikelihood)
		}
	}
}
