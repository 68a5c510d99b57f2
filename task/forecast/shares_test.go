package forecast

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"
)

// No other shares have a smaller error than those of the simplex: not on a fine grid
// over three methods, nor with methods left out.
func TestSimplexIsTheLeast(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		x := mat.NewDense(20, 3, nil)
		x.Apply(func(_, j int, _ float64) float64 { return r.NormFloat64() * float64(1+j) }, x)
		shared := r.Float64() * 3
		for i := range 20 { // errors that the methods have in common
			e := shared * r.NormFloat64()
			for j := range 3 {
				x.Set(i, j, x.At(i, j)+e)
			}
		}
		p := mat.NewSymDense(3, nil)
		p.SymOuterK(1, x.T())
		for _, use := range [][]bool{{true, true, true}, {true, false, true}} {
			const ridge = 0.05
			floor := ridge * min(p.At(0, 0), p.At(1, 1), p.At(2, 2))
			cost := func(w []float64) float64 {
				v := mat.NewVecDense(3, w)
				return mat.Inner(v, p, v) + floor*mat.Dot(v, v)
			}
			got := simplex(p, use, ridge)
			if sum := got[0] + got[1] + got[2]; math.Abs(sum-1) > 1e-9 || slices.Min(got) < 0 || !use[1] && got[1] != 0 {
				t.Fatalf("shares %v with %v", got, use)
			}
			const steps = 100
			for a := range steps + 1 {
				for b := range steps + 1 - a {
					w := []float64{float64(a) / steps, float64(b) / steps, float64(steps-a-b) / steps}
					if (use[1] || b == 0) && cost(w) < cost(got)*(1-1e-9) {
						t.Fatalf("%v has %v, less than %v of %v", w, cost(w), cost(got), got)
					}
				}
			}
		}
	}
}

// With many windows the best shares are used; with one, mostly the better of the simple
// methods, however well the first did on it.
func TestFewWindowsMakeSharesPrudent(t *testing.T) {
	products := mat.NewSymDense(3, nil)
	for j, size := range []float64{0.1, 1, 3} {
		products.SetSym(j, j, size*size)
	}
	best := []float64{1, 0, 0}
	if got := prudent(best, products, 100); !slices.Equal(got, best) {
		t.Errorf("of many windows: %v", got)
	}
	got := prudent(best, products, 1)
	if !(got[0] > 0.2 && got[0] < 0.35) || !(got[1] > 50*got[2]) || math.Abs(got[0]+got[1]+got[2]-1) > 1e-12 {
		t.Errorf("of one window: %v", got)
	}
	if got := prudent(best, products, prudence); math.Abs(got[0]-0.5) > 1e-12 {
		t.Errorf("of as many windows as prudence: %v, want a half", got)
	}
}

// errorsOf makes forecasts of zeros for series of windows windows each, of which the
// methods have errors of sizes [series][method].
func errorsOf(sizes [][]float64, windows, horizon int) (list []window, fold []int, forecasts []*mat.Dense, truth *mat.Dense) {
	r := rand.New(rand.NewPCG(3, 4))
	for f := range 4 {
		for s := range sizes {
			for i := range windows / 4 {
				list, fold = append(list, window{int32(s), int32((f*windows/4 + i) * horizon)}), append(fold, f)
			}
		}
	}
	truth = mat.NewDense(len(list), horizon, nil)
	for j := range sizes[0] {
		x := mat.NewDense(len(list), horizon, nil)
		x.Apply(func(i, _ int, _ float64) float64 { return sizes[list[i].frame][j] * r.NormFloat64() }, x)
		forecasts = append(forecasts, x)
	}
	return list, fold, forecasts, truth
}

// Series that are forecast best by unlike methods have shares of their own, which are
// nearer to those of all if they have few windows; series that are alike have the shares
// of all, which are not decided by one whose errors are large.
func TestSharesBySeries(t *testing.T) {
	unlike := [][]float64{{1, 4}, {4, 1}, {1, 4}, {4, 1}, {1, 4}, {4, 1}}
	var many []float64
	for _, windows := range []int{80, 8} {
		list, fold, forecasts, truth := errorsOf(slices.Repeat(unlike, 20), windows*3, 3)
		common, own := newMixer(list, fold, forecasts, truth).chooseBySeries()
		if len(own) != 120 || math.Abs(common[0]-0.5) > 0.1 {
			t.Fatalf("%d windows: shares %v, of %d series", windows, common, len(own))
		}
		mean := make([]float64, 2)
		for s, w := range own {
			if math.Abs(w[0]+w[1]-1) > 1e-9 || slices.Min(w) < 0 {
				t.Fatalf("series %d: shares %v", s, w)
			}
			mean[s%2] += w[s%2] / 60
		}
		if !(mean[0] > 0.75 && mean[1] > 0.75) {
			t.Errorf("%d windows: the better methods have %v of the series in which they are", windows, mean)
		}
		many = append(many, mean[0])
	}
	if !(many[0] > many[1]) {
		t.Errorf("shares of the better method: %v with many windows, %v with few", many[0], many[1])
	}

	alike := slices.Repeat([][]float64{{1, 2}}, 19)
	alike = append(alike, []float64{2000, 1000})
	list, fold, forecasts, truth := errorsOf(alike, 8, 3)
	common, _ := newMixer(list, fold, forecasts, truth).chooseBySeries()
	if !(common[0] > 0.6) {
		t.Errorf("the first method is better in 19 of 20 series, and has a share of %v", common[0])
	}
	list, fold, forecasts, truth = errorsOf(alike[:19], 8, 3)
	if common, own := newMixer(list, fold, forecasts, truth).chooseBySeries(); own != nil {
		t.Errorf("series that are alike have shares of their own beside %v: %v", common, own)
	}
	one := errorsOfOne(t, 8)
	if _, own := one.chooseBySeries(); own != nil {
		t.Errorf("a single series has shares of its own: %v", own)
	}
}

func errorsOfOne(t *testing.T, windows int) *mixer {
	t.Helper()
	list, fold, forecasts, truth := errorsOf([][]float64{{1, 2}}, windows, 3)
	return newMixer(list, fold, forecasts, truth)
}

// What a fold is forecast by has no row in common with its targets, and lies before it
// where the origins are rolling.
func TestFoldsShareNoRow(t *testing.T) {
	for _, c := range []struct {
		windows []int // of each series
		horizon int
		rolling bool
	}{
		{[]int{400}, 24, false}, {[]int{60}, 12, true}, {[]int{15}, 6, true}, {[]int{3}, 3, true},
		{[]int{200, 90, 5}, 8, false}, {[]int{2, 3, 1, 4, 2, 3, 1, 2}, 3, true}, {slices.Repeat([]int{1}, 12), 12, false},
	} {
		var list []window
		for s, n := range c.windows {
			for i := range n {
				list = append(list, window{int32(s), int32(50 + i)})
			}
		}
		folds, rolling := crossFolds(list, c.horizon)
		if rolling != c.rolling {
			t.Errorf("%v: rolling is %v", c, rolling)
		}
		var all []window
		for f := range folds {
			all = append(all, folds[f].out...)
			for _, out := range folds[f].out {
				for g := range folds {
					if g == f || rolling && g > f {
						continue
					}
					for _, w := range folds[g].out {
						apart := int(w.origin - out.origin)
						used := !slices.Contains(folds[f].before, w) && !slices.Contains(folds[f].after, w)
						if used && w.frame == out.frame && (max(apart, -apart) < c.horizon || rolling && apart > 0) {
							t.Fatalf("%v: window %v is forecast by %v", c, out, w)
						}
					}
				}
			}
		}
		if len(all) != len(list) {
			t.Errorf("%v: %d windows in the folds", c, len(all))
		}
		for _, w := range list {
			if !slices.Contains(all, w) {
				t.Errorf("%v: window %v is in no fold", c, w)
			}
		}
	}
}
