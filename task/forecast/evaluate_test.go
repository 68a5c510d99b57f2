package forecast

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// daily is a table of n days with columns y and p, whose cells are what cells says:
// "" is an empty one, and a row of empty cells is left out if skip is set.
func daily(t *testing.T, n int, skip bool, cells func(i int) (y, p string)) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("time,y,p\n")
	begin := time.Date(2021, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range n {
		y, p := cells(i)
		if skip && y == "" && p == "" {
			continue
		}
		fmt.Fprintf(&b, "%s,%s,%s\n", begin.AddDate(0, 0, i).Format("2006-01-02"), y, p)
	}
	path := filepath.Join(t.TempDir(), "y.csv")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// sparse measures every fifth day, in turn 10 and 12.
func sparse(i int) (y, p string) {
	if i%5 != 0 {
		return "", ""
	}
	return fmt.Sprint(10 + i/5%2*2), fmt.Sprint(i)
}

func sparseConfig() Config {
	cfg := small()
	cfg.Time, cfg.Target, cfg.Future, cfg.Past = "time", []string{"y"}, nil, Past{"p"}
	cfg.Window, cfg.Horizon, cfg.Epochs, cfg.WindowStride, cfg.Calendar, cfg.Lags, cfg.Missing = 10, 5, 1, 1, "off", []int{0}, "interpolate"
	return cfg
}

// What is filled in between two values is not known before the later one: a forecast
// from between them does not change with it, in any kind of network.
func TestFilledValuesTellNothingOfTheFuture(t *testing.T) {
	const origin = 207 // measured are 205 and 210
	for _, set := range []func(*Config){
		func(*Config) {},
		func(c *Config) { c.Lags = []int{14} },
		func(c *Config) { c.WindowNorm = "mean" },
		func(c *Config) { c.Head, c.Past, c.Lags = "autoregressive", nil, []int{14} },
	} {
		cfg := sparseConfig()
		set(&cfg)
		var m *Model
		var forecasts, baselines [][]float64
		for _, late := range []string{"11", "500"} {
			d, err := Read(t.Context(), &Files{Data: daily(t, 301, false, func(i int) (string, string) {
				y, p := sparse(i)
				if i == 210 {
					return late, late
				}
				return y, p
			})}, cfg)
			if err != nil {
				t.Fatal(err)
			}
			if m == nil {
				if m, _, err = Train(t.Context(), d, cfg, nil); err != nil {
					t.Fatal(err)
				}
			}
			set, err := m.dataset(d.Panel, true)
			if err != nil {
				t.Fatal(err)
			}
			forecasts = append(forecasts, forecastOf(t, m, set, origin))
			linear := make([]float64, cfg.Horizon)
			for _, b := range set.baselines(m.ridge, []window{{0, origin}}) {
				b.forecast(linear, set.frames[0], 0, origin)
				baselines = append(baselines, slices.Clone(linear))
			}
		}
		if !slices.Equal(forecasts[0], forecasts[1]) {
			t.Errorf("%+v: the forecast changes with a later value: %v, %v", cfg, forecasts[0], forecasts[1])
		}
		for i, n := 0, len(baselines)/2; i < n; i++ {
			if !slices.Equal(baselines[i], baselines[n+i]) {
				t.Errorf("baseline %d changes with a later value: %v, %v", i, baselines[i], baselines[n+i])
			}
		}
	}
}

func TestFill(t *testing.T) {
	f := newFill([]bool{true, false, true, true, false, false, true})
	column := []float32{9, 1, 2, 3, 4, 5, 5}
	for _, c := range []struct {
		row, origin int
		want        float32
	}{{0, 1, 0}, {0, 2, 9}, {1, 2, 1}, {2, 3, 1}, {3, 4, 1}, {2, 4, 1}, {2, 5, 2}, {3, 5, 3}, {5, 6, 5}, {6, 7, 5}} {
		if got := f.at(column, c.row, c.origin); got != c.want {
			t.Errorf("row %d as of %d: %v, want %v", c.row, c.origin, got, c.want)
		}
	}
	if newFill(nil) != nil || newFill([]bool{false, false}) != nil || (*fill)(nil).at(column, 3, 1) != 3 {
		t.Error("a column without filled values has none")
	}
}
