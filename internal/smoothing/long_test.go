package smoothing

import (
	"encoding/csv"
	"fmt"
	"math"
	"math/cmplx"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"gonum.org/v1/gonum/mat"
)

// longSeries are 30,000 rows with a season and one difficulty each, and with all.
func longSeries(period int) map[string][]float64 {
	const rows = 30000
	r := rand.New(rand.NewPCG(7, uint64(period)))
	plain, walk := make([]float64, rows), 0.0
	for t := range plain {
		walk = 0.99*walk + 0.02*r.NormFloat64()
		season := 0.2*math.Sin(2*math.Pi*float64(t)/float64(period)) + 0.1*math.Cos(4*math.Pi*float64(t)/float64(period))
		plain[t] = 5000 * math.Exp(walk+season+0.01*r.NormFloat64())
	}
	shifts := func(y []float64) {
		for t := range y {
			y[t] *= []float64{1, 3, 0.4, 1.5, 6}[t/6000]
		}
	}
	nearZero := func(y []float64) {
		for t := 9000; t < 9700; t++ {
			y[t] *= 1e-6
		}
		for t := 26000; t < 26300; t++ {
			y[t] *= 1e-6
		}
	}
	spikes := func(y []float64) {
		for range 60 {
			y[r.IntN(rows)] *= 20
		}
	}
	series := map[string][]float64{"plain": plain}
	for name, spoil := range map[string]func([]float64){
		"shifts": shifts, "near zero": nearZero, "spikes": spikes,
		"all": func(y []float64) { shifts(y); nearZero(y); spikes(y) },
	} {
		series[name] = slices.Clone(plain)
		spoil(series[name])
	}
	return series
}

// checkLong fits to the first rows and forecasts two seasons from origins in all rows:
// within the limits that Forecast promises, and not far worse than the last value.
func checkLong(t *testing.T, y []float64, rows, period int) {
	t.Helper()
	for kind, m := range methods(t, y[:rows], period) {
		p, got := m.Run(y), make([]float64, 2*period)
		for _, part := range [][2]int{{2 * period, rows}, {rows, len(y) - len(got)}} {
			sum, naive := 0.0, 0.0
			least, most, seen := math.Inf(1), math.Inf(-1), 0
			for origin := part[0]; origin <= part[1]; origin += 11 {
				p.Forecast(got, origin)
				for ; seen < origin; seen++ {
					least, most = min(least, y[seen]), max(most, y[seen])
				}
				for h, v := range got {
					if wide := most - least; !(v >= least-wide && v <= most+wide) {
						t.Fatalf("%s (%d rows of fit): step %d from row %d is %g, after values from %g to %g", kind, rows, h+1, origin, v, least, most)
					}
					sum += math.Abs(v - y[origin+h])
					naive += math.Abs(y[origin-1] - y[origin+h])
				}
			}
			if !(sum < 3*naive) {
				t.Errorf("%s (%d rows of fit): the error from rows %d to %d is %.3g times that of the last value", kind, rows, part[0], part[1], sum/naive)
			}
		}
		if e, ok := m.(*ETS); ok && !(e.absoluteErrors(y[:rows]) <= worst*naive(y[:rows]).absoluteErrors(y[:rows])) {
			t.Errorf("%d rows of fit: %s loses track of them", rows, e.Form)
		}
	}
}

func TestLongRuns(t *testing.T) {
	if testing.Short() {
		t.Skip("dozens of long fits")
	}
	for _, period := range []int{7, 24} {
		for name, y := range longSeries(period) {
			t.Run(fmt.Sprint(name, " ", period), func(t *testing.T) {
				for _, rows := range []int{13000, 23000} {
					checkLong(t, y, rows, period)
				}
			})
		}
	}
}

// TestDemand is a series to which inadmissible parameters fit best: the errors of such
// a model grow threefold in 2,000 rows.
func TestDemand(t *testing.T) {
	file, err := os.Open(sharedFile(t, "forecast/vic_elec_hourly.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	rows, err := csv.NewReader(file).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	at := slices.Index(rows[0], "demand_mw")
	y := make([]float64, len(rows)-1)
	for i, row := range rows[1:] {
		if y[i], err = strconv.ParseFloat(row[at], 64); err != nil {
			t.Fatal(err)
		}
	}
	for _, rows := range []int{3000, 8000, 13000, 18000, 23000} {
		checkLong(t, y, rows, 24)
	}
}

// TestLostTrack has last rows that call for a level that hardly moves, and rows before
// them through which such a level would lag far behind.
func TestLostTrack(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 9))
	y := make([]float64, 8000)
	for i := range y {
		if y[i] = r.NormFloat64(); i >= 3000 {
			y[i] += 1000
		}
	}
	left, err := newFitting(y[len(y)-fitRows:]).choose(t.Context(), 0, false)
	if err != nil {
		t.Fatal(err)
	}
	lost := left[0].model()
	lost.Level = 0
	m, err := FitETS(t.Context(), y, 0)
	if err != nil {
		t.Fatal(err)
	}
	of := naive(y).absoluteErrors(y)
	if first, chosen := lost.absoluteErrors(y)/of, m.absoluteErrors(y)/of; !(first > worst && chosen <= worst) {
		t.Errorf("errors over those of the last value: the form with the least AICc %.3g, the chosen one %.3g", first, chosen)
	}
}

// TestAdmissible compares with the eigenvalues of the matrix by which the states carry
// an error on.
func TestAdmissible(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	count := map[bool]int{}
	for range 400 {
		period := 2 + r.IntN(30)
		d := dynamics{phi: []float64{1, 0.98, 0.8}[r.IntN(3)]}
		d.alpha = r.Float64()
		d.beta = d.alpha * math.Pow(r.Float64(), 3)
		d.gamma = (1 - d.alpha) * r.Float64()
		// The states are level, trend and the season of the last rows.
		n := period + 2
		forecast := make([]float64, n)
		forecast[0], forecast[1], forecast[n-1] = 1, d.phi, 1
		on := mat.NewDense(n, n, nil)
		on.Set(0, 0, 1)
		on.Set(0, 1, d.phi)
		on.Set(1, 1, d.phi)
		on.Set(2, n-1, 1)
		for i := 3; i < n; i++ {
			on.Set(i, i-1, 1)
		}
		for i, share := range []float64{d.alpha, d.beta, d.gamma} {
			for j, w := range forecast {
				on.Set(i, j, on.At(i, j)-share*w)
			}
		}
		var eigen mat.Eigen
		if !eigen.Factorize(on, mat.EigenNone) {
			t.Fatal("no eigenvalues")
		}
		values := eigen.Values(nil)
		// One is 1: that of the constant which moves between level and season.
		one := slices.IndexFunc(values, func(v complex128) bool { return cmplx.Abs(v-1) < 1e-9 })
		if one < 0 {
			t.Fatalf("period %d, %+v: no eigenvalue is 1: %v", period, d, values)
		}
		largest := 0.0
		for _, v := range slices.Delete(values, one, one+1) {
			largest = max(largest, cmplx.Abs(v))
		}
		if math.Abs(largest-1) < 1e-9 {
			continue
		}
		got := d.admissible(period)
		if got != (largest < 1) {
			t.Errorf("period %d, %+v: admissible %v, though the largest eigenvalue is %.12g", period, d, got, largest)
		}
		count[got]++
	}
	if min(count[true], count[false]) < 50 {
		t.Errorf("too few of either kind: %v", count)
	}
}
