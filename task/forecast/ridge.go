package forecast

import (
	"context"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
)

// ridge is the linear path: for each target a mixture of linear regressions, from
// the inputs of fillLinear and the kind of time to all steps of the horizon. It is
// the baseline "linear" and the initial value of the network's linear path.
//
// What the regressions see, their penalties and their shares are chosen by cross
// validation: in turn a stretch of rows is left out, with the windows that overlap
// it, and forecast by what the other rows teach.
type ridge struct {
	linear, groups, horizon int
	weights                 []*mat.Dense // [target][linear+groups, horizon]
	choices                 [][]choice   // [target], those with a share
}

// choice is a regression of the linear path.
type choice struct {
	Window  int     `json:"window"`  // it sees this many rows before the forecast,
	Lags    int     `json:"lags"`    // the rows around the forecast's, this many lags earlier,
	Level   bool    `json:"level"`   // the level of the window,
	Groups  bool    `json:"groups"`  // and the kind of time of the first step
	Penalty float64 `json:"penalty"` // relative to the mean sum of squares of an input
	Error   float64 `json:"error"`   // mean absolute error for the rows left out, in the network's units
	Share   float64 `json:"share"`   // in the mixture; those of all choices add up to 1
}

// penalties are tried in turn. The largest leave only the window's centre, so that
// the regression can be the naive forecast.
var penalties = []float64{1e4, 10, 1, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7}

// Limits on the time of the closed form: multiplications for the normal equations,
// windows by which the choices are made, and stretches that are left out.
const (
	ridgeBudget     = 4e9
	ridgeValidation = 4000
	mostFolds       = 6
	leastFolds      = 4
)

// fitRidge chooses the regressions by cross validation on windows, and fits them to
// these. It returns the forecasts of the windows left out as well. The error is that
// of ctx.
func fitRidge(ctx context.Context, d *dataset, list []window) (*ridge, *unseen, error) {
	r := &ridge{linear: d.linear, groups: d.groups, horizon: d.horizon, choices: make([][]choice, d.targets)}
	list = r.affordable(list, d.targets)
	folds := crossFolds(list, d.horizon)
	out := &unseen{forecast: make([]*mat.Dense, d.targets)}
	every := (len(list) + ridgeValidation - 1) / ridgeValidation
	for i := range folds {
		folds[i].scored = thin(folds[i].out, every)
		out.list = append(out.list, folds[i].scored...)
	}
	for k := range d.targets {
		c, err := newCross(ctx, d, k, list, folds)
		if err != nil {
			return nil, nil, err
		}
		if r.choices[k], out.forecast[k], err = c.choose(ctx); err != nil {
			return nil, nil, err
		}
		r.weights = append(r.weights, c.all.mixture(d, r.choices[k]))
	}
	return r, out, nil
}

// unseen is the forecasts of windows by regressions that were not fitted to them.
type unseen struct {
	list     []window
	forecast []*mat.Dense // [target][len(list), horizon], in the windows' units
}

// refitted returns the regressions, as chosen, fitted to windows. The error is that
// of ctx.
func (r *ridge) refitted(ctx context.Context, d *dataset, list []window) (*ridge, error) {
	fresh := &ridge{linear: r.linear, groups: r.groups, horizon: r.horizon, choices: r.choices}
	list = r.affordable(list, d.targets)
	for k := range d.targets {
		eq, err := newNormal(ctx, d, k, list)
		if err != nil {
			return nil, err
		}
		fresh.weights = append(fresh.weights, eq.mixture(d, r.choices[k]))
	}
	return fresh, nil
}

// affordable thins windows to what the budget allows.
func (r *ridge) affordable(list []window, targets int) []window {
	work := float64(len(list)) * float64(targets) * float64(r.linear) * float64(r.linear)
	return thin(list, int(math.Ceil(work/ridgeBudget)))
}

// thin returns every nth window.
func thin(list []window, n int) []window {
	if n <= 1 {
		return list
	}
	var kept []window
	for i := 0; i < len(list); i += n {
		kept = append(kept, list[i])
	}
	return kept
}

// fold is a stretch of windows that is left out, and the windows near it, which
// share rows with it.
type fold struct{ out, near, scored []window }

// crossFolds divides the windows of each series, which are in the order of their
// origins, into stretches.
func crossFolds(list []window, horizon int) []fold {
	longest := 0
	for _, own := range bySeries(list) {
		longest = max(longest, len(own))
	}
	folds := make([]fold, min(mostFolds, max(leastFolds, longest/horizon), max(2, len(list))))
	for s, own := range bySeries(list) {
		n := len(own)
		of := func(i int) int {
			if n < len(folds) {
				return (s + i) % len(folds)
			}
			return i * len(folds) / n
		}
		begin, end := 0, 0
		for f := range folds {
			if n < len(folds) { // the windows of short series are left out in turn
				for i, w := range own {
					if of(i) == f {
						folds[f].out = append(folds[f].out, w)
					}
				}
				continue
			}
			for begin = end; end < n && of(end) == f; end++ {
			}
			folds[f].out = append(folds[f].out, own[begin:end]...)
			margin := int32(min(horizon-1, int(own[n-1].origin-own[0].origin)/(2*len(folds))))
			for i, w := range own {
				if (i < begin || i >= end) && w.origin > own[begin].origin-margin-1 && w.origin < own[end-1].origin+margin+1 {
					folds[f].near = append(folds[f].near, w)
				}
			}
		}
	}
	return folds
}

// bySeries divides windows by their series.
func bySeries(list []window) (parts [][]window) {
	for lo := 0; lo < len(list); {
		hi := lo
		for hi < len(list) && list[hi].frame == list[lo].frame {
			hi++
		}
		parts = append(parts, list[lo:hi])
		lo = hi
	}
	return parts
}

// cross is what the choices for one target are made from.
type cross struct {
	d     *dataset
	all   *normal // of all windows
	folds []crossed
	size  float64 // mean sum of squares of an input
	n     int     // windows that are forecast
}

// crossed is a fold: the equations without it, and its inputs and truth.
type crossed struct {
	eq     *normal
	x, y   *mat.Dense
	groups []int32
}

func newCross(ctx context.Context, d *dataset, k int, list []window, folds []fold) (*cross, error) {
	c := &cross{d: d}
	var err error
	if c.all, err = newNormal(ctx, d, k, list); err != nil {
		return nil, err
	}
	for _, f := range folds {
		eq, err := newNormal(ctx, d, k, slices.Concat(f.out, f.near))
		if err != nil {
			return nil, err
		}
		eq.xx.Sub(c.all.xx, eq.xx)
		eq.xy.Sub(c.all.xy, eq.xy)
		one := crossed{eq: eq}
		if len(f.scored) > 0 {
			one.x, one.y, one.groups = d.design(k, f.scored, true)
		}
		c.folds = append(c.folds, one)
		c.n += len(f.scored)
	}
	c.size = mat.Trace(c.all.xx.Slice(0, d.linear, 0, d.linear)) / float64(d.linear)
	return c, nil
}

// worthIt is the relative reduction of the error from which the level and the kind
// of time are used.
const worthIt = 0.01

// leastShare is the least share of a regression in the mixture.
const leastShare = 0.05

// choose returns the regressions with their shares, and the mixture's forecasts of
// the windows left out.
func (c *cross) choose(ctx context.Context) ([]choice, *mat.Dense, error) {
	d := c.d
	best := choice{Error: math.Inf(1)}
	for _, extra := range []choice{{}, {Level: true}, {Groups: true}, {Level: true, Groups: true}} {
		if extra.Groups && d.groups == 0 {
			continue
		}
		extra.Window, extra.Lags = d.window, len(d.Lags)
		one, _, err := c.try(ctx, extra)
		if err != nil {
			return nil, nil, err
		}
		if one.Error < best.Error*(1-worthIt) || math.IsInf(best.Error, 1) {
			best = one
		}
	}
	var tried []choice
	var forecasts []*mat.Dense
	for _, rows := range d.linearWindows() {
		for lags := range len(d.Lags) + 1 {
			one, forecast, err := c.try(ctx, choice{Window: rows, Lags: lags, Level: best.Level, Groups: best.Groups})
			if err != nil {
				return nil, nil, err
			}
			tried, forecasts = append(tried, one), append(forecasts, forecast)
		}
	}
	shares := mixing(forecasts, c.truth())
	var kept []choice
	mixed := mat.NewDense(c.n, d.horizon, nil)
	for i, share := range shares {
		if share == 0 {
			continue
		}
		tried[i].Share = share
		kept = append(kept, tried[i])
		var part mat.Dense
		part.Scale(share, forecasts[i])
		mixed.Add(mixed, &part)
	}
	return kept, mixed, nil
}

// linearWindows returns the numbers of rows before the forecast that the regressions
// may see: all of the window, its last season, and a few.
func (d *dataset) linearWindows() []int {
	rows := []int{d.window}
	for _, n := range append(d.Freq.Seasons(), d.window/8) {
		if n >= 1 && n < rows[len(rows)-1] {
			rows = append(rows, n)
		}
	}
	return rows
}

// truth returns the outputs of the windows left out, NaN where nothing was measured.
func (c *cross) truth() *mat.Dense {
	y := mat.NewDense(c.n, c.d.horizon, nil)
	at := 0
	for _, f := range c.folds {
		if f.y == nil {
			continue
		}
		n, _ := f.y.Dims()
		y.Slice(at, at+n, 0, c.d.horizon).(*mat.Dense).Copy(f.y)
		at += n
	}
	return y
}

// try returns a regression with the best penalty, and its forecasts of the windows
// left out.
func (c *cross) try(ctx context.Context, one choice) (choice, *mat.Dense, error) {
	one.Error = math.Inf(1)
	columns := c.d.linearColumns(one)
	best, next := mat.NewDense(c.n, c.d.horizon, nil), mat.NewDense(c.n, c.d.horizon, nil)
	worse := 0
	for _, penalty := range penalties {
		if err := ctx.Err(); err != nil {
			return one, nil, err
		}
		var absolute mean
		at := 0
		solved := true
		for _, f := range c.folds {
			if f.x == nil {
				continue
			}
			w := f.eq.solve(columns, penalty*c.size)
			if solved = w != nil; !solved {
				break
			}
			n, _ := f.x.Dims()
			to := next.Slice(at, at+n, 0, c.d.horizon).(*mat.Dense)
			apply(to, w, f.x, f.groups, c.d.linear)
			for i := range n {
				for h, y := range f.y.RawRowView(i) {
					if !math.IsNaN(y) {
						absolute.add(math.Abs(to.At(i, h) - y))
					}
				}
			}
			at += n
		}
		if e := absolute.value(); solved && (e < one.Error || absolute.n == 0) {
			one.Error, one.Penalty = e, penalty
			best, next = next, best
			worse = 0
			if absolute.n == 0 {
				one.Error = 0
				break
			}
			continue
		}
		if worse++; worse == 3 {
			break
		}
	}
	return one, best, nil
}

// linearColumns returns the indices of the inputs that a choice sees.
func (d *dataset) linearColumns(one choice) []int {
	columns := rising(0, 1)
	columns = append(columns, rising(1+d.window-one.Window, 1+d.window)...)
	lag := d.Before + d.horizon
	at := 1 + d.window
	columns = append(columns, rising(at, at+one.Lags*lag)...)
	columns = append(columns, rising(at+len(d.Lags)*lag, d.linear-1)...)
	if one.Level {
		columns = append(columns, d.linear-1)
	}
	if one.Groups {
		columns = append(columns, rising(d.linear, d.linear+d.groups)...)
	}
	return columns
}

// mixing returns the shares, not negative and 1 in all, with which forecasts have
// the least squared error.
func mixing(forecasts []*mat.Dense, truth *mat.Dense) []float64 {
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
	return pruned(products)
}

// pruned returns the shares for the products of errors, without those below
// leastShare.
func pruned(products *mat.SymDense) []float64 {
	n := products.SymmetricDim()
	use := make([]bool, n)
	for i := range use {
		use[i] = true
	}
	for {
		shares := simplex(products, use)
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

// simplex minimises wᵀPw over the w that are not negative, add up to 1, and are 0
// where use is false. It moves weight between the pairs of coordinates in turn.
func simplex(products *mat.SymDense, use []bool) []float64 {
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
	ridge := 1e-3 * mat.Trace(products) / float64(n) // near copies share alike
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

// normal is XᵀX and XᵀY, with the one-hot columns of the kinds of time last.
type normal struct {
	xx *mat.Dense // [linear+groups, linear+groups]
	xy *mat.Dense // [linear+groups, horizon]
}

// mixture returns the weights of choices in their shares, rounded as they are saved,
// so that an opened model computes the same.
func (eq *normal) mixture(d *dataset, choices []choice) *mat.Dense {
	size := mat.Trace(eq.xx.Slice(0, d.linear, 0, d.linear)) / float64(d.linear)
	sum := mat.NewDense(d.linear+d.groups, d.horizon, nil)
	for _, one := range choices {
		if w := eq.solve(d.linearColumns(one), one.Penalty*size); w != nil {
			w.Scale(one.Share, w)
			sum.Add(sum, w)
		}
	}
	sum.Apply(func(_, _ int, v float64) float64 { return float64(float32(v)) }, sum)
	return sum
}

func newNormal(ctx context.Context, d *dataset, k int, train []window) (*normal, error) {
	p, n := d.linear, d.linear+d.groups
	eq := &normal{mat.NewDense(n, n, nil), mat.NewDense(n, d.horizon, nil)}
	xx := eq.xx.Slice(0, p, 0, p).(*mat.Dense)
	xy := eq.xy.Slice(0, p, 0, d.horizon).(*mat.Dense)
	blockXX, blockXY := mat.NewDense(p, p, nil), mat.NewDense(p, d.horizon, nil)
	const block = 1024
	for lo := 0; lo < len(train); lo += block {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		x, y, groups := d.design(k, train[lo:min(lo+block, len(train))], false)
		blockXX.Mul(x.T(), x)
		blockXY.Mul(x.T(), y)
		xx.Add(xx, blockXX)
		xy.Add(xy, blockXY)
		if d.groups == 0 {
			continue
		}
		for i, g := range groups {
			at := p + int(g)
			row := eq.xx.RawRowView(at)
			for j, v := range x.RawRowView(i) {
				row[j] += v
			}
			row[at]++
			out := eq.xy.RawRowView(at)
			for j, v := range y.RawRowView(i) {
				out[j] += v
			}
		}
	}
	return eq, nil
}

// design returns the inputs and outputs of the regression for windows of target
// k. Outputs that were not measured are what was filled in, or the value before
// them; NaN if the outputs are the truth to compare with.
func (d *dataset) design(k int, list []window, truth bool) (x, y *mat.Dense, groups []int32) {
	x, y = mat.NewDense(len(list), d.linear, nil), mat.NewDense(len(list), d.horizon, nil)
	in, out, seen := make([]float32, d.linear), make([]float32, d.horizon), make([]float32, d.horizon)
	for i, w := range list {
		f, origin := d.frames[w.frame], int(w.origin)
		c := d.centre(f, k, origin)
		d.fillLinear(in, f, k, origin, c)
		widen(x.RawRowView(i), in)
		d.fillTarget(out, seen, f, k, origin, c)
		for h := range out {
			switch {
			case seen[h] != 0:
			case truth:
				out[h] = float32(math.NaN())
			case origin+h < f.end:
				out[h] = c.of(f.y[k][origin+h])
			}
		}
		widen(y.RawRowView(i), out)
		groups = append(groups, d.groupAt(f, origin))
	}
	return x, y, groups
}

func widen(dst []float64, src []float32) {
	for i, v := range src {
		dst[i] = float64(v)
	}
}

// rising returns lo, lo+1, ..., hi-1.
func rising(lo, hi int) []int {
	list := make([]int, 0, hi-lo)
	for i := lo; i < hi; i++ {
		list = append(list, i)
	}
	return list
}

// solve returns the regression on some of the inputs, with zeros for the others;
// nil if it has no solution.
func (eq *normal) solve(columns []int, lambda float64) *mat.Dense {
	n := len(columns)
	a := mat.NewSymDense(n, nil)
	all, horizon := eq.xy.Dims()
	b := mat.NewDense(n, horizon, nil)
	for i, c := range columns {
		row := eq.xx.RawRowView(c)
		for j := 0; j <= i; j++ {
			a.SetSym(i, j, row[columns[j]])
		}
		a.SetSym(i, i, row[c]+lambda)
		copy(b.RawRowView(i), eq.xy.RawRowView(c))
	}
	var chol mat.Cholesky
	if !chol.Factorize(a) {
		return nil
	}
	var part mat.Dense
	if err := chol.SolveTo(&part, b); err != nil && math.IsNaN(part.At(0, 0)) {
		return nil
	}
	w := mat.NewDense(all, horizon, nil)
	for i, c := range columns {
		copy(w.RawRowView(c), part.RawRowView(i))
	}
	return w
}

// apply writes the regression's forecasts of windows.
func apply(to, w, x *mat.Dense, groups []int32, linear int) {
	size, horizon := w.Dims()
	to.Mul(x, w.Slice(0, linear, 0, horizon))
	if size == linear {
		return
	}
	for i, g := range groups {
		row := to.RawRowView(i)
		for h, v := range w.RawRowView(linear + int(g)) {
			row[h] += v
		}
	}
}

// predict writes the forecast of target k [horizon] for inputs x [linear].
func (r *ridge) predict(dst []float64, k int, x []float32, group int32) {
	w := r.weights[k]
	if r.groups > 0 {
		copy(dst, w.RawRowView(r.linear+int(group)))
	} else {
		clear(dst)
	}
	for i, v := range x {
		if v == 0 {
			continue
		}
		for h, u := range w.RawRowView(i) {
			dst[h] += float64(v) * u
		}
	}
}
