package smoothing

import (
	"encoding/csv"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// sharedFile finds a file of the data sets that the repository does not carry, in
// CAROUSEL_DATA or a folder shared/data beside the repository.
func sharedFile(t *testing.T, name string) string {
	t.Helper()
	tried := []string{os.Getenv("CAROUSEL_DATA"), "../../shared/data", "../../../shared/data", "../../../../shared/data"}
	for _, dir := range tried {
		if path := filepath.Join(dir, name); dir != "" {
			if _, err := os.Stat(path); err == nil {
				return path
			}
		}
	}
	t.Skipf("%s is not here", name)
	return ""
}

// smallSeries reads a series that small.json names.
func smallSeries(t *testing.T, name string) []float64 {
	t.Helper()
	var fields []string
	if name, ok := strings.CutPrefix(name, "cif "); ok {
		text, err := os.ReadFile(sharedFile(t, "forecast/cif_2016_dataset.tsf"))
		if err != nil {
			t.Fatal(err)
		}
		_, line, _ := strings.Cut(string(text), "\n"+name+":")
		line, _, _ = strings.Cut(line, "\n")
		_, line, _ = strings.Cut(line, ":")
		fields = strings.Split(strings.TrimSpace(line), ",")
	} else {
		file, err := os.Open(sharedFile(t, "forecast/small/"+name+".csv"))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		rows, err := csv.NewReader(file).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		at := slices.Index(rows[0], "y")
		for _, row := range rows[1:] {
			fields = append(fields, row[at])
		}
	}
	y := make([]float64, len(fields))
	for i, f := range fields {
		v, err := strconv.ParseFloat(f, 64)
		if err != nil {
			t.Fatal(err)
		}
		y[i] = v
	}
	return y
}

// TestSmallSeries compares errors with those of statsmodels, both fitted anew at each
// origin, over small series and those of the CIF 2016 competition.
func TestSmallSeries(t *testing.T) {
	if testing.Short() {
		t.Skip("some hundred fits")
	}
	text, err := os.ReadFile("testdata/small.json")
	if err != nil {
		t.Fatal(err)
	}
	var list []struct {
		Name            string
		Period, Horizon int
		Origins         []int
		ETS, Theta      float64 // mean absolute errors of statsmodels
	}
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	logs := map[string][2]float64{} // sums of the logarithms of ratios, by group and method
	count := map[string]float64{}
	for _, c := range list {
		y := smallSeries(t, c.Name)
		mae, once := map[string]float64{}, map[string]float64{}
		first := methods(t, y[:c.Origins[0]], c.Period)
		got := make([]float64, c.Horizon)
		for _, origin := range c.Origins {
			for kind, m := range methods(t, y[:origin], c.Period) {
				m.Run(y[:origin]).Forecast(got, origin)
				mae[kind] += absolute(got, y[origin:]) / float64(len(c.Origins))
				first[kind].Run(y).Forecast(got, origin)
				once[kind] += absolute(got, y[origin:]) / float64(len(c.Origins))
			}
		}
		group, _, _ := strings.Cut(c.Name, " T")
		if group != "cif" {
			group = "small"
			t.Logf("| %-13s | %3d | %3d | %3d | %9.4g | %9.4g | %9.4g | %9.4g | %9.4g | %9.4g |", c.Name, len(y), c.Period, c.Horizon,
				mae["ets"], once["ets"], c.ETS, mae["theta"], once["theta"], c.Theta)
		}
		sum := logs[group]
		sum[0] += math.Log(mae["ets"] / c.ETS)
		sum[1] += math.Log(mae["theta"] / c.Theta)
		logs[group] = sum
		count[group]++
	}
	for group, sum := range logs {
		for i, kind := range []string{"ets", "theta"} {
			ratio := math.Exp(sum[i] / count[group])
			t.Logf("%s, %s: the geometric mean of our error to statsmodels' is %.4f", group, kind, ratio)
			if ratio > 1.02 {
				t.Errorf("%s, %s: the geometric mean of our error to statsmodels' is %.4f", group, kind, ratio)
			}
		}
	}
}

func absolute(got, want []float64) float64 {
	sum := 0.0
	for h, v := range got {
		sum += math.Abs(v - want[h])
	}
	return sum / float64(len(got))
}
