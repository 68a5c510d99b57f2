package forecast

import (
	"math"
	"slices"
	"testing"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/golden"
	"github.com/carousel-ml/carousel/task"
)

// sharedFile finds a file of the data sets that the repository does not carry.
func sharedFile(t *testing.T, name string) string {
	t.Helper()
	return golden.Shared(t, name)
}

// read reads a table as cfg says.
func read(t *testing.T, path string, cfg Config) *data.Panel {
	t.Helper()
	o, err := cfg.readOptions()
	if err != nil {
		t.Fatal(err)
	}
	panel, err := data.ReadPanel(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	return panel
}

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if math.IsNaN(got) || math.Abs(got-want) > tolerance {
		t.Errorf("%s: got %.5g, want %.5g", what, got, want)
	}
}

// scoreBaselines is Evaluate's test part without a network and without smoothing,
// whose fits take long and have tests of their own.
func scoreBaselines(t *testing.T, panel *data.Panel, cfg Config) map[string]Metrics {
	t.Helper()
	m, d, err := prepare(t.Context(), &Data{Panel: panel}, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	list := d.windows(testPart, 1)
	var b []baseline
	for _, name := range d.simpleNames(list) {
		if name != "theta" && name != "ets" {
			b = append(b, d.method(name))
		}
	}
	b = slices.Insert(b, 1, baseline{name: "naive2", forecast: d.naive2(list)})
	b = append(b, baseline{name: "linear", forecast: d.line(m.ridge)})
	tl := d.tally(b, task.Test, nil)
	s := newSteps(d.horizon, 0)
	for _, w := range list {
		for k := range d.targets {
			tl.add(w, k, s)
		}
	}
	e := &Evaluation{}
	tl.finish(m, e)
	return e.Baselines
}

func atMost(t *testing.T, what string, got, most float64) {
	t.Helper()
	if !(got <= most) {
		t.Errorf("%s: got %.5g, want at most %v", what, got, most)
	}
}

func vicElec() Config {
	cfg := Defaults()
	cfg.Time, cfg.Target = "time", []string{"demand_mw"}
	return cfg
}

func TestBaselinesOnVicElec(t *testing.T) {
	path := sharedFile(t, "forecast/vic_elec_hourly.csv")
	cfg := vicElec()
	cfg.Calendar, cfg.Lags = "off", []int{0}
	b := scoreBaselines(t, read(t, path, cfg), cfg)
	near(t, "seasonal naive, day", b["seasonal_naive_24"].MAE, 320.9, 0.05)
	near(t, "seasonal naive, week", b["seasonal_naive_168"].MAE, 242.3, 0.05)
	near(t, "seasonal naive is the stronger one", b["seasonal_naive"].MAE, 242.3, 0.05)
	atMost(t, "the linear path on the window alone, beside a ridge regression", b["linear"].MAE, 266.5)

	cfg = vicElec()
	cfg.Future, cfg.Holiday = Future{"temperature_c"}, "holiday"
	b = scoreBaselines(t, read(t, path, cfg), cfg)
	if got := b["linear"].MAE; !(got < 146.3) {
		t.Errorf("ridge with temperature, holidays and calendar: MAE %.1f, want below 146.3", got)
	}
	t.Logf("ridge with everything: %.1f", b["linear"].MAE)
}

func TestBaselinesOnETTh1(t *testing.T) {
	path := sharedFile(t, "forecast/ETTh1.csv")
	cfg := Defaults()
	cfg.Time, cfg.Target = "date", []string{"HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"}
	cfg.Split, cfg.Window, cfg.Horizon = "8640,2880,2880", 96, 24
	cfg.Calendar, cfg.Lags = "off", []int{0}
	b := scoreBaselines(t, read(t, path, cfg), cfg)
	near(t, "seasonal naive MSE", b["seasonal_naive_24"].MSEScaled, 0.424, 0.0006)
	near(t, "seasonal naive MAE", b["seasonal_naive_24"].MAEScaled, 0.389, 0.0006)
	near(t, "naive MSE", b["naive"].MSEScaled, 1.222, 0.0006)
	near(t, "naive MAE", b["naive"].MAEScaled, 0.671, 0.0006)
	atMost(t, "the linear path's MSE, beside a ridge regression", b["linear"].MSEScaled, 0.299)
	atMost(t, "its MAE", b["linear"].MAEScaled, 0.345)

	cfg.Target = []string{"OT"}
	b = scoreBaselines(t, read(t, path, cfg), cfg)
	near(t, "OT seasonal naive MSE", b["seasonal_naive_24"].MSEScaled, 0.0458, 0.0001)
	near(t, "OT naive MSE", b["naive"].MSEScaled, 0.0343, 0.0001)
	cfg.Window = 336
	b = scoreBaselines(t, read(t, path, cfg), cfg)
	atMost(t, "OT, the linear path's MSE, beside a ridge regression", b["linear"].MSEScaled, 0.0261)
	atMost(t, "its MAE", b["linear"].MAEScaled, 0.1220)
}
