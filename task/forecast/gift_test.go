package forecast

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/data"
)

// GluonTS's answers to the same forecasts, with missing values, zeros and a series
// whose errors have no scale.
func TestGiftAsGluonTS(t *testing.T) {
	raw, err := os.ReadFile("testdata/gift.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Season int
		Cases  []struct {
			Windows []struct {
				Past, Y   []*float64
				Mean      []float64
				Quantiles [][]float64
			}
			Want map[string]float64
		}
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	numbers := func(of []*float64) (x []float64) {
		for _, v := range of {
			if v == nil {
				x = append(x, math.NaN())
			} else {
				x = append(x, *v)
			}
		}
		return x
	}
	for i, c := range file.Cases {
		var s giftScore
		for _, w := range c.Windows {
			seasonal, _ := seasonalErrors(numbers(w.Past), file.Season)
			for h, y := range numbers(w.Y) {
				quantiles := make([]float64, len(giftLevels))
				for l := range quantiles {
					quantiles[l] = w.Quantiles[l][h]
				}
				s.add(y, w.Mean[h], quantiles, seasonal)
			}
		}
		if len(c.Want) != len(giftColumns)-4 {
			t.Fatalf("%d metrics", len(c.Want))
		}
		for at, got := range s.values() {
			name := strings.TrimPrefix(giftColumns[2+at], "eval_metrics/")
			want := c.Want[name]
			if !(math.Abs(got-want) <= 1e-12*math.Abs(want)) {
				t.Errorf("case %d: %s %.15g, want %.15g", i, name, got, want)
			}
		}
	}
}

func TestGiftSeason(t *testing.T) {
	for text, want := range map[string]int{"1h": 24, "4h": 6, "5h": 1, "15min": 96, "1min": 1440, "10s": 360, "1d": 1, "1w": 1, "1mo": 12, "3mo": 4, "1y": 1, "1b": 5} {
		var f data.Freq
		if err := f.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if got := giftSeason(f); got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
}

// A line is added to what a file holds, or takes the place of the same dataset's.
func TestGiftFile(t *testing.T) {
	panel, cfg := hourly(2, 600), small()
	cfg.Epochs = 1
	m, _, err := Train(t.Context(), &Data{Panel: panel}, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "all_results.csv")
	score := func(dataset string) {
		t.Helper()
		o := &EvaluateOptions{Gift: Gift{File: path, Dataset: dataset, Domain: "Energy"}}
		if _, err := m.Evaluate(t.Context(), &Data{Panel: panel}, "test", o); err != nil {
			t.Fatal(err)
		}
	}
	score("one/H/short")
	score("two/H/short")
	score("one/H/short")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(strings.NewReader(string(text))).ReadAll()
	if err != nil || len(lines) != 3 || !slices.Equal(lines[0], giftColumns) || lines[1][0] != "one/H/short" || lines[2][0] != "two/H/short" {
		t.Fatalf("%q, %v", lines, err)
	}
	if !slices.Equal(lines[1][1:], lines[2][1:]) || lines[1][1] != "carousel" || lines[1][13] != "Energy" || lines[1][14] != "1" {
		t.Errorf("line %q", lines[1])
	}
	e, err := m.Backtest(t.Context(), &Data{Panel: panel}, &BacktestOptions{EvaluateOptions: EvaluateOptions{Gift: Gift{File: path}}})
	if err != nil {
		t.Fatal(err)
	}
	var scores map[string]any // the backtest has the same windows
	asJSON, _ := json.Marshal(e.Metrics)
	if err := json.Unmarshal(asJSON, &scores); err != nil {
		t.Fatal(err)
	}
	text, _ = os.ReadFile(path)
	lines, _ = csv.NewReader(strings.NewReader(string(text))).ReadAll()
	var mae float64
	if err := json.Unmarshal([]byte(lines[3][4]), &mae); err != nil {
		t.Fatal(err)
	}
	near(t, "MAE[0.5] of a point forecast", mae, scores["mae"].(float64), 1e-9)

	if err := os.WriteFile(path, []byte("a,b\n1,2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var input *data.InputError
	if _, err := m.Evaluate(t.Context(), &Data{Panel: panel}, "test", &EvaluateOptions{Gift: Gift{File: path}}); !errors.As(err, &input) || input.File != path {
		t.Errorf("another file: %v", err)
	}
	cfg.Loss = "quantile"
	if m, _, err = Train(t.Context(), &Data{Panel: panel}, cfg, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Evaluate(t.Context(), &Data{Panel: panel}, "test", &EvaluateOptions{Gift: Gift{File: path}}); err == nil || !strings.Contains(err.Error(), "--quantiles 0.025") {
		t.Errorf("levels it was not trained for: %v", err)
	}
}
