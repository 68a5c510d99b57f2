package forecast

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/data"
	"github.com/goccy/go-yaml"
)

// protocol skips a test unless CAROUSEL_PROTOCOL names it: these train for
// minutes, and repeat what the recipes state. CAROUSEL_SET holds settings, as
// JSON, that replace the recipe's, for looking beyond it.
func protocol(t *testing.T, name, recipe string) Config {
	t.Helper()
	if !slices.Contains(strings.Split(os.Getenv("CAROUSEL_PROTOCOL"), ","), name) {
		t.Skipf("set CAROUSEL_PROTOCOL=%s to run this", name)
	}
	text, err := os.ReadFile("../../recipes/" + recipe)
	if err != nil {
		t.Fatal(err)
	}
	var settings map[string]any
	if err := yaml.Unmarshal(text, &settings); err != nil {
		t.Fatal(err)
	}
	if limit, ok := settings["max_time"].(string); ok {
		d, err := time.ParseDuration(limit)
		if err != nil {
			t.Fatal(err)
		}
		settings["max_time"] = d
	}
	delete(settings, "data")
	delete(settings, "out")
	asJSON, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Defaults()
	for _, set := range []string{string(asJSON), os.Getenv("CAROUSEL_SET")} {
		if set == "" {
			continue
		}
		if err := json.Unmarshal([]byte(set), &cfg); err != nil {
			t.Fatal(err)
		}
	}
	return cfg
}

// lastWindows scores the last window of each series as the M competitions do:
// sMAPE, and MASE by the seasonal naive error of all rows before the horizon.
func lastWindows(t *testing.T, m *Model, panel *data.Panel, part int, season int) (smape, mase float64, n int) {
	t.Helper()
	m = m.at([]stage{stageTrained, stageTrained, stageScored}[part])
	d, err := m.dataset(panel, false)
	if err != nil {
		t.Fatal(err)
	}
	var last []window
	for _, own := range bySeries(d.windows(part, 1)) {
		last = append(last, own[len(own)-1])
	}
	var percent, scaled mean
	err = m.forecastAll(context.Background(), d, last, nil, func(w window, k int, s *steps) {
		y := d.frames[w.frame].raw[k]
		var share, absolute mean
		for h, f := range s.point {
			truth := y[int(w.origin)+h]
			share.add(200 * math.Abs(f-truth) / (math.Abs(f) + math.Abs(truth)))
			absolute.add(math.Abs(f - truth))
		}
		percent.add(share.value())
		scale, _ := seasonalErrors(y[:w.origin], season)
		scaled.add(absolute.value() / scale)
	})
	if err != nil {
		t.Fatal(err)
	}
	return percent.value(), scaled.value(), percent.n
}

func TestProtocolM4Hourly(t *testing.T) {
	cfg := protocol(t, "m4", "m4_hourly.yaml")
	panel := read(t, sharedFile(t, "forecast/Hourly-train.csv"), cfg)
	rest := read(t, sharedFile(t, "forecast/Hourly-test.csv"), cfg)
	for i, s := range panel.Series {
		s.Values[0] = append(s.Values[0], rest.Series[i].Values[0]...)
		s.Line = append(s.Line, rest.Series[i].Line...)
	}
	begun := time.Now()
	m, result, err := Train(context.Background(), &Data{Panel: panel}, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d windows a pass, %d steps, %v, gain %v, linear %v", len(result.History), result.Steps, time.Since(begun), m.gain, m.ridge.choices)
	for _, r := range result.History {
		t.Logf("epoch %d loss %.4f val %.4f", r.Epoch, r.TrainLoss, r.Val["mae"])
	}
	for part := validationPart; part <= testPart; part++ {
		smape, mase, n := lastWindows(t, m, panel, part, 24)
		owa := (smape/18.383 + mase/2.395) / 2
		t.Logf("%s: %d series: sMAPE %.3f MASE %.3f OWA %.4f", partNames[part], n, smape, mase, owa)
		if part == testPart && !(owa <= 0.60) {
			t.Errorf("OWA %.4f, want at most 0.60", owa)
		}
		e, err := m.Evaluate(t.Context(), &Data{Panel: panel}, partNames[part], nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"seasonal_naive_24", "seasonal_naive_168", "linear"} {
			t.Logf("  %s sMAPE %.3f MASE %.3f", name, e.Baselines[name].SMAPE, e.Baselines[name].MASE)
		}
	}
}

func TestProtocolCIF2016(t *testing.T) {
	cfg := protocol(t, "cif", "cif_2016.yaml")
	path := sharedFile(t, "forecast/cif_2016_dataset.tsf")
	o, err := cfg.readOptions()
	if err != nil {
		t.Fatal(err)
	}
	o.Static = nil
	all, err := data.ReadPanel(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	sum, count := [2]float64{}, 0
	for _, horizon := range []int{12, 6} {
		panel := *all
		panel.Series = nil
		for _, s := range all.Series {
			if int(s.Static[0].Number) >= horizon { // the short ones learn from the long ones too
				panel.Series = append(panel.Series, s)
			}
		}
		own := cfg
		own.Horizon = horizon
		if horizon == 6 {
			own.Window, own.Split = min(cfg.Window, 10), "rest,6,6"
		}
		begun := time.Now()
		m, result, err := Train(context.Background(), &Data{Panel: &panel}, own, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("horizon %d: %d steps, %v, gain %v, linear %v, notes %q", horizon, result.Steps, time.Since(begun), m.gain, m.ridge.choices, m.Notes())
		for part := validationPart; part <= testPart; part++ {
			scored := panel
			scored.Series = slices.DeleteFunc(slices.Clone(panel.Series), func(s *data.Series) bool { return int(s.Static[0].Number) != horizon })
			smape, mase, n := lastWindows(t, m, &scored, part, 12)
			e, err := m.Evaluate(t.Context(), &Data{Panel: &scored}, partNames[part], nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("  %s: %d series: sMAPE %.3f MASE %.3f; seasonal naive %.3f linear %.3f", partNames[part], n, smape, mase, e.Baselines["seasonal_naive"].SMAPE, e.Baselines["linear"].SMAPE)
			sum[part-1] += smape * float64(n)
			if part == testPart {
				count += n
			}
		}
	}
	t.Logf("sMAPE of %d series: validation %.3f test %.3f", count, sum[0]/float64(count), sum[1]/float64(count))
	if count != 72 || !(sum[1]/float64(count) <= 12.2) {
		t.Errorf("sMAPE %.3f of %d series, want at most 12.2 of 72", sum[1]/float64(count), count)
	}
}

// trainAndScore runs a recipe on one table, and logs validation and test.
func trainAndScore(t *testing.T, cfg Config, file string) *Evaluation {
	t.Helper()
	panel := read(t, file, cfg)
	begun := time.Now()
	m, result, err := Train(t.Context(), &Data{Panel: panel}, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d epochs, %d steps, %v; %s", result.Epochs, result.Steps, time.Since(begun).Round(time.Second), strings.Join(m.Notes(), "; "))
	var e *Evaluation
	for part := validationPart; part <= testPart; part++ {
		if e, err = m.Evaluate(t.Context(), &Data{Panel: panel}, partNames[part], nil); err != nil {
			t.Fatal(err)
		}
		for name, s := range map[string]Metrics{"network": e.Metrics, "linear": e.Baselines["linear"], "seasonal naive": e.Baselines["seasonal_naive"]} {
			t.Logf("%-10s %-14s MAE %.5g, standardised MSE %.4f MAE %.4f", partNames[part], name, s.MAE, s.MSEScaled, s.MAEScaled)
		}
	}
	return e
}

func TestProtocolVicElec(t *testing.T) {
	e := trainAndScore(t, protocol(t, "vic", "vic_elec.yaml"), sharedFile(t, "forecast/vic_elec_hourly.csv"))
	if !(e.Metrics.MAE <= 120) || !(e.Metrics.MAE <= 0.5*e.Baselines["seasonal_naive_168"].MAE) {
		t.Errorf("MAE %.1f MW, want at most 120", e.Metrics.MAE)
	}
}

func TestProtocolETTh1(t *testing.T) {
	e := trainAndScore(t, protocol(t, "etth1", "etth1.yaml"), sharedFile(t, "forecast/ETTh1.csv"))
	if e.Windows != 2857 || !(e.Metrics.MSEScaled <= 0.313) || !(e.Metrics.MAEScaled <= 0.362) {
		t.Errorf("%.4f/%.4f, want at most .313/.362", e.Metrics.MSEScaled, e.Metrics.MAEScaled)
	}
}

// TestProtocolETTh1Long also repeats horizon 336: CAROUSEL_SET='{"horizon":336}'.
func TestProtocolETTh1Long(t *testing.T) {
	cfg := protocol(t, "etth1-96", "etth1_96.yaml")
	e := trainAndScore(t, cfg, sharedFile(t, "forecast/ETTh1.csv"))
	if e.Windows != 2881-cfg.Horizon || cfg.Horizon == 96 && !(e.Metrics.MSEScaled <= 0.370) {
		t.Errorf("%d windows, MSE %.4f, want at most .370 at horizon 96", e.Windows, e.Metrics.MSEScaled)
	}
}

func TestProtocolETTh1OT(t *testing.T) {
	e := trainAndScore(t, protocol(t, "etth1-ot", "etth1_ot.yaml"), sharedFile(t, "forecast/ETTh1.csv"))
	if e.Windows != 2857 || !(e.Metrics.MSEScaled <= 0.0280) || !(e.Metrics.MAEScaled <= 0.127) {
		t.Errorf("%.4f/%.4f, want at most .0280/.127", e.Metrics.MSEScaled, e.Metrics.MAEScaled)
	}
}

// made returns the path of a table that examples/drivers writes.
func made(t *testing.T, args ...string) string {
	t.Helper()
	table, err := exec.Command("go", append([]string{"run", "../../examples/drivers"}, args...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "table.csv")
	if err := os.WriteFile(path, table, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestProtocolBasins(t *testing.T) {
	e := trainAndScore(t, protocol(t, "basins", "basins.yaml"), made(t, "basins"))
	t.Logf("NSE %.3f KGE %.3f, linear %.3f %.3f", e.Metrics.NSE, e.Metrics.KGE, e.Baselines["linear"].NSE, e.Baselines["linear"].KGE)
	if !(e.Metrics.NSE > 0.9) || !(e.Metrics.NSE > e.Baselines["linear"].NSE) {
		t.Errorf("NSE %.3f, want above 0.9 and the linear path's %.3f", e.Metrics.NSE, e.Baselines["linear"].NSE)
	}
}

func TestProtocolEngines(t *testing.T) {
	cfg := protocol(t, "engines", "engines.yaml")
	m, _, err := Train(t.Context(), &Data{Panel: read(t, made(t, "engines"), cfg)}, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	e, err := m.Evaluate(t.Context(), &Data{Panel: read(t, made(t, "engines", "2"), cfg)}, "test", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("MAE %.2f, RMSE %.2f, linear %.2f %.2f", e.Metrics.MAE, e.Metrics.RMSE, e.Baselines["linear"].MAE, e.Baselines["linear"].RMSE)
	if !(e.Metrics.MAE < e.Baselines["linear"].MAE) {
		t.Errorf("MAE %.2f, want below the linear path's %.2f", e.Metrics.MAE, e.Baselines["linear"].MAE)
	}
}
