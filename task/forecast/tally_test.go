package forecast

import (
	"encoding/csv"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
)

// Each row of a tally is the error of one window, of all its targets, as the file of
// scored forecasts has them; what is missing is not counted. The figure is the one by
// which the loss is judged.
func TestTally(t *testing.T) {
	for _, c := range []struct {
		name    string
		targets []string
		loss    string
		part    task.Part
	}{
		{"mse_scaled", []string{"a", "b"}, "mae", task.Test},
		{"mae", []string{"a"}, "quantile", task.Test},
		{"mae_scaled", []string{"b", "a"}, "gaussian", task.Validation},
	} {
		panel, cfg := hourly(2, 400), small()
		punch(panel)
		cfg.Target, cfg.Loss, cfg.Missing, cfg.Epochs = c.targets, c.loss, "mask", 1
		m, _, err := Train(t.Context(), &Data{Panel: panel}, cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "scored.csv")
		e, err := m.Evaluate(t.Context(), &Data{Panel: panel}, c.part, &EvaluateOptions{Out: path})
		if err != nil {
			t.Fatal(err)
		}
		got, err := m.Tally(t.Context(), &Data{Panel: panel}, c.part, nil)
		if err != nil {
			t.Fatal(err)
		}
		value := map[string]float64{"mse_scaled": e.Metrics.MSEScaled, "mae_scaled": e.Metrics.MAEScaled, "mae": e.Metrics.MAE}[c.name]
		if got.Name != c.name || got.Higher || math.Abs(got.Value()/value-1) > 1e-12 {
			t.Errorf("%s %v, evaluated %s %v", got.Name, got.Value(), c.name, value)
		}
		want := tallyFrom(t, m, panel, c.name, path)
		near := func(a, b []float64) bool { return math.Abs(a[0]-b[0]) <= 1e-9*b[0] && a[1] == b[1] }
		if !slices.EqualFunc(got.Rows, want, near) {
			t.Errorf("%s: rows %.6v, want %.6v", c.name, got.Rows, want)
		}
		full := float64(len(c.targets) * cfg.Horizon)
		if few := slices.IndexFunc(got.Rows, func(row []float64) bool { return row[1] < full }); few < 0 {
			t.Errorf("%s: no window lacks a value", c.name)
		}
	}
}

// tallyFrom computes the rows of a tally from a file of scored forecasts.
func tallyFrom(t *testing.T, m *Model, panel *data.Panel, name, path string) (rows [][]float64) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	lines, err := csv.NewReader(file).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	d, err := m.dataset(panel, false)
	if err != nil {
		t.Fatal(err)
	}
	at := map[[2]string]int{}
	number := func(s string) float64 {
		v, err := strconv.ParseFloat(s, 64)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, line := range lines[1:] {
		window := [2]string{line[0], line[2]}
		i, ok := at[window]
		if !ok {
			i, at[window] = len(rows), len(rows)
			rows = append(rows, []float64{0, 0})
		}
		if line[4] == "" {
			continue
		}
		frame := slices.IndexFunc(d.frames, func(f *frame) bool { return f.id == line[0] })
		by := d.frames[frame].fit[slices.Index(m.cfg.targets(), line[1])].unit()
		v := math.Abs(number(line[4]) - number(line[5]))
		switch name {
		case "mse_scaled":
			v = v * v / (by * by)
		case "mae_scaled":
			v /= by
		}
		rows[i][0], rows[i][1] = rows[i][0]+v, rows[i][1]+1
	}
	return rows
}

// Windows of which a bootstrap must not draw single ones are as many as overlap: none without target history.
func TestTallyBlocks(t *testing.T) {
	for _, without := range []bool{false, true} {
		panel, cfg := hourly(2, 400), small()
		cfg.NoTargetHistory, cfg.Epochs = without, 1
		m, _, err := Train(t.Context(), &Data{Panel: panel}, cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := m.Tally(t.Context(), &Data{Panel: panel}, task.Test, nil)
		if err != nil {
			t.Fatal(err)
		}
		if want := map[bool]int{false: cfg.Horizon, true: 1}[without]; got.Block != want {
			t.Errorf("without target history %v: blocks of %d windows, want %d", without, got.Block, want)
		}
	}
}
