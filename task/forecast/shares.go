package forecast

import (
	"math"

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
	n := len(forecasts)
	products := mat.NewSymDense(n, nil) // of errors
	rows, horizon := truth.Dims()
	e := make([]float64, n)
	for i := range rows {
		for h := range horizon {
			y := truth.At(i, h)
			if math.IsNaN(y) {
				continue
			}
			for j, f := range forecasts {
				e[j] = f.At(i, h) - y
			}
			for a := range n {
				for b := range a + 1 {
					products.SetSym(a, b, products.At(a, b)+e[a]*e[b])
				}
			}
		}
	}
	return pruned(products, likeness/math.Max(independent, 1))
}

// prudence is the number of windows that do not overlap with which the shares that
// were best for them count half beside prudent ones.
const prudence = 2.5

// prudent moves shares towards ones in proportion to the inverse squares of the mean
// squared errors of the simple methods, all but the first, by how few windows there are
// that do not overlap.
func prudent(shares []float64, forecasts []*mat.Dense, truth *mat.Dense, independent float64) []float64 {
	weights, total := make([]float64, len(shares)), 0.0
	for j := 1; j < len(shares); j++ {
		var squares mean
		rows, horizon := truth.Dims()
		for i := range rows {
			for h := range horizon {
				if e := forecasts[j].At(i, h) - truth.At(i, h); !math.IsNaN(e) {
					squares.add(e * e)
				}
			}
		}
		weights[j] = 1 / math.Pow(squares.value()+1e-12, 2)
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
