package forecast

import (
	"maps"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
)

// likeness is how much a mixture tends to equal shares, for one window. With more
// that do not overlap it does so less.
const likeness = 0.3

// leastShare is the least share of a method in a mixture.
const leastShare = 0.05

// mixing returns the shares, not negative and 1 in all, with which forecasts have
// the least squared error. They tend to equal ones if few windows do not overlap; a
// share below leastShare is 0.
func mixing(forecasts []*mat.Dense, truth *mat.Dense, independent float64) []float64 {
	sum := mat.NewSymDense(len(forecasts), nil)
	windows, _ := truth.Dims()
	for i := range windows {
		addProducts(sum, forecasts, truth, i)
	}
	return pruned(sum, likeness/math.Max(independent, 1))
}

// addProducts adds the products of the errors of forecasts in a window, and returns of
// how many values.
func addProducts(sum *mat.SymDense, forecasts []*mat.Dense, truth *mat.Dense, window int) (values int) {
	e := make([]float64, len(forecasts))
	for h, y := range truth.RawRowView(window) {
		if math.IsNaN(y) {
			continue
		}
		values++
		for j, f := range forecasts {
			e[j] = f.At(window, h) - y
		}
		sum.SymRankOne(sum, 1, mat.NewVecDense(len(e), e))
	}
	return values
}

// prudence is the number of windows that do not overlap with which the shares that
// were best for them count half beside prudent ones.
const prudence = 2.5

// prudent moves shares towards ones in proportion to the inverse squares of the mean
// squared errors of the simple methods, all but the first, by how few windows there are
// that do not overlap. The squared errors are the diagonal of their products.
func prudent(shares []float64, products *mat.SymDense, independent float64) []float64 {
	weights, total := make([]float64, len(shares)), 0.0
	least := math.Inf(1)
	for j := 1; j < len(shares); j++ {
		least = math.Min(least, products.At(j, j))
	}
	for j := 1; j < len(shares) && least > 0; j++ {
		weights[j] = math.Pow(least/products.At(j, j), 2)
		total += weights[j]
	}
	share := math.Pow(1+(math.Sqrt2-1)*independent/prudence, -2)
	if share < leastShare || !(total > 0) {
		return shares
	}
	mixed := make([]float64, len(shares))
	for j, s := range shares {
		mixed[j] = (1-share)*s + share*weights[j]/total
	}
	return mixed
}

// mixer chooses shares of forecasts by their errors for windows left out.
type mixer struct {
	list     []window
	fold     []int           // of each window
	products []*mat.SymDense // of the forecasts' errors in each window, in units of the typical error of its series
	horizon  int
}

// newMixer returns the mixer of forecasts [method][window, horizon]. The unit of a
// series is the median over the methods of their mean squared errors in it. So all
// series count alike: otherwise the shares would be those of the few series with the
// largest errors.
func newMixer(list []window, fold []int, forecasts []*mat.Dense, truth *mat.Dense) *mixer {
	n := len(forecasts)
	x := &mixer{list: list, fold: fold}
	_, x.horizon = truth.Dims()
	sums, values := map[int32]*mat.SymDense{}, map[int32]int{}
	for i, w := range list {
		if sums[w.frame] == nil {
			sums[w.frame] = mat.NewSymDense(n, nil)
		}
		own := mat.NewSymDense(n, nil)
		values[w.frame] += addProducts(own, forecasts, truth, i)
		sums[w.frame].AddSym(sums[w.frame], own)
		x.products = append(x.products, own)
	}
	for i, w := range list {
		squares := make([]float64, n)
		for j := range squares {
			squares[j] = sums[w.frame].At(j, j) / float64(max(1, values[w.frame]))
		}
		slices.Sort(squares)
		if unit := sortedQuantile(squares, 0.5); unit > 0 {
			x.products[i].ScaleSym(1/unit, x.products[i])
		}
	}
	return x
}

// sum returns the sum of the products of windows, and about how many of these do not
// overlap; nil without any.
func (x *mixer) sum(windows []int) (products *mat.SymDense, independently float64) {
	if len(windows) == 0 {
		return nil, 0
	}
	products = mat.NewSymDense(x.products[0].SymmetricDim(), nil)
	list := make([]window, len(windows))
	for i, at := range windows {
		products.AddSym(products, x.products[at])
		list[i] = x.list[at]
	}
	return products, independent(list, x.horizon)
}

// best returns the best shares for windows, and about how many of these do not overlap.
func (x *mixer) best(windows []int) (shares []float64, independently float64) {
	sum, n := x.sum(windows)
	if sum == nil {
		return nil, 0
	}
	return pruned(sum, likeness/math.Max(n, 1)), n
}

// choose returns the shares for windows of all series.
func (x *mixer) choose(windows []int) []float64 {
	sum, n := x.sum(windows)
	if sum == nil {
		return nil
	}
	return prudent(pruned(sum, likeness/math.Max(n, 1)), sum, n)
}

// kinships are the numbers of windows, besides a series' own that do not overlap, that
// the shares of all series together count for in those of the series. They are tried
// in turn.
var kinships = []float64{math.Inf(1), 16, 4, 1}

// worthKinship is the relative reduction of the squared error by which the next kinship
// has to be better.
const worthKinship = 0.01

// chooseBySeries returns the shares of all series together and, if the series differ in
// what is best for them, those of each series: a mean of the best for its own windows and
// of those of all. How much the former count is chosen by cross validation: shares by
// the windows of all other folds are judged by the windows of each fold.
func (x *mixer) chooseBySeries() (common []float64, own map[int32][]float64) {
	everything := make([]int, len(x.list))
	bySeries, byFold := map[int32][]int{}, map[int][]int{}
	for i, w := range x.list {
		everything[i] = i
		bySeries[w.frame] = append(bySeries[w.frame], i)
		byFold[x.fold[i]] = append(byFold[x.fold[i]], i)
	}
	common = x.choose(everything)
	if len(bySeries) < 2 || len(byFold) < 2 {
		return common, nil
	}
	series := slices.Sorted(maps.Keys(bySeries))
	errs := make([]float64, len(kinships))
	for _, fold := range slices.Sorted(maps.Keys(byFold)) {
		outside := func(i int) bool { return x.fold[i] != fold }
		all := x.choose(kept(everything, outside))
		for _, s := range series {
			truth, _ := x.sum(kept(bySeries[s], func(i int) bool { return !outside(i) }))
			best, n := x.best(kept(bySeries[s], outside))
			if truth == nil || best == nil {
				continue
			}
			for i, kinship := range kinships {
				w := mat.NewVecDense(len(all), blended(best, all, n, kinship))
				errs[i] += mat.Inner(w, truth, w)
			}
		}
	}
	chosen := 0
	for i := range errs {
		if errs[i] < errs[chosen]*(1-worthKinship) {
			chosen = i
		}
	}
	if math.IsInf(kinships[chosen], 1) {
		return common, nil
	}
	own = map[int32][]float64{}
	for _, s := range series {
		best, n := x.best(bySeries[s])
		own[s] = blended(best, common, n, kinships[chosen])
	}
	return common, own
}

// blended returns the mean of the best shares for n windows and of the common ones, which
// count for a number of windows.
func blended(best, common []float64, n, kinship float64) []float64 {
	share := n / (n + kinship)
	w := make([]float64, len(best))
	for j := range w {
		w[j] = share*best[j] + (1-share)*common[j]
	}
	return w
}

// kept returns the windows that are to be kept.
func kept(windows []int, keep func(i int) bool) (list []int) {
	for _, i := range windows {
		if keep(i) {
			list = append(list, i)
		}
	}
	return list
}

// pruned returns the shares for the products of errors, without those below
// leastShare.
func pruned(products *mat.SymDense, ridge float64) []float64 {
	n := products.SymmetricDim()
	use := make([]bool, n)
	for i := range use {
		use[i] = true
	}
	for {
		shares := simplex(products, use, ridge)
		least := -1
		for i, s := range shares {
			if use[i] && s < leastShare && (least < 0 || s < shares[least]) {
				least = i
			}
		}
		if least < 0 {
			return shares
		}
		use[least] = false
	}
}

// simplex minimises wᵀPw, with ridge times the least of P's diagonal added to that
// diagonal, over the w that are not negative, add up to 1, and are 0 where use is
// false. It moves weight between the pairs of coordinates in turn.
func simplex(products *mat.SymDense, use []bool, ridge float64) []float64 {
	n := len(use)
	w := make([]float64, n)
	count := 0.0
	for _, u := range use {
		if u {
			count++
		}
	}
	for i, u := range use {
		if u {
			w[i] = 1 / count
		}
	}
	best := math.Inf(1)
	for i := range n {
		best = math.Min(best, products.At(i, i))
	}
	ridge *= best // of the best method: one that is far off decides nothing
	gradient := make([]float64, n)
	for range 1000 {
		moved := 0.0
		for i := range n {
			for j := range i {
				if !use[i] || !use[j] {
					continue
				}
				for _, at := range [2]int{i, j} {
					gradient[at] = ridge * w[at]
					for l := range n {
						gradient[at] += products.At(at, l) * w[l]
					}
				}
				curve := products.At(i, i) + products.At(j, j) - 2*products.At(i, j) + 2*ridge
				if !(curve > 0) {
					continue
				}
				step := math.Min(math.Max((gradient[j]-gradient[i])/curve, -w[i]), w[j])
				w[i] += step
				w[j] -= step
				moved = math.Max(moved, math.Abs(step))
			}
		}
		if moved < 1e-6 {
			break
		}
	}
	return w
}
