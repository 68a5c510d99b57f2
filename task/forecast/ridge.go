package forecast

import (
	"context"
	"math"
	"slices"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/lapack/lapack64"
	"gonum.org/v1/gonum/mat"

	"github.com/carousel-ml/carousel/internal/par"
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
	choices                 [][]choice   // [target], all that were tried
}

// choice is a regression of the linear path.
type choice struct {
	Window  int     `json:"window"`  // it sees the target in this many rows before the forecast,
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

// Limits on the time of the closed form: multiplications for the normal equations and
// for the choices, windows by which these are made, and stretches that are left out.
const (
	ridgeBudget     = 4e9
	choiceBudget    = 1e12
	ridgeValidation = 4000
	mostFolds       = 6
	leastFolds      = 4
)

// fitRidge chooses the regressions by cross validation on windows, and fits them to
// these. It returns their forecasts of the windows left out as well.
// quick takes the regression that sees most, as is done where trying others takes too
// long; where that too does, its penalty is not chosen. The error is that of ctx.
func fitRidge(ctx context.Context, d *dataset, list []window, quick bool) (*ridge, *unseen, error) {
	r := &ridge{linear: d.linear, groups: d.groups, horizon: d.horizon, choices: make([][]choice, d.targets)}
	list = r.affordable(list, d.targets)
	out := &unseen{forecast: make([]*mat.Dense, d.targets)}
	quick = quick || d.choiceWork()*float64(len(d.linearChoices())) > choiceBudget
	if d.choiceWork() > choiceBudget {
		for k := range d.targets {
			r.choices[k] = []choice{d.unchosen()}
		}
		r, err := r.refitted(ctx, d, list)
		return r, out, err
	}
	folds, rolling := crossFolds(list, d.horizon)
	every := (len(list) + ridgeValidation - 1) / ridgeValidation
	for i := range folds {
		if rolling && i < len(folds)/2 {
			continue // too few rows before them
		}
		folds[i].scored = thin(folds[i].out, every)
		out.list = append(out.list, folds[i].scored...)
		out.fold = append(out.fold, slices.Repeat([]int{i}, len(folds[i].scored))...)
	}
	for k := range d.targets {
		c, err := newCross(ctx, d, k, list, folds, rolling)
		if err != nil {
			return nil, nil, err
		}
		if r.choices[k], out.forecast[k], err = c.choose(ctx, quick); err != nil {
			return nil, nil, err
		}
		r.weights = append(r.weights, c.all.mixture(d, r.choices[k]))
	}
	return r, out, nil
}

// unseen is the forecasts of windows by regressions that were not fitted to them.
type unseen struct {
	list     []window
	fold     []int         // of each window, in ascending order
	forecast []*mat.Dense  // [target][len(list), horizon], in the windows' units; nil without windows
	errors   [][][]float64 // [target][step], absolute errors of the mixture in the windows' units; nil before its choice
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

// fold is a stretch of windows that is left out, the windows before and after it
// that share rows with it, and those of it that are forecast.
type fold struct{ out, before, after, scored []window }

// crossFolds divides the windows of each series, which are in the order of their
// origins, into stretches; of many series those that are shorter are left out whole.
// Where too few windows share no row with a stretch, rolling is set: it is to be
// forecast by the rows before it alone.
func crossFolds(list []window, horizon int) (folds []fold, rolling bool) {
	series := bySeries(list)
	longest := 0
	for _, own := range series {
		longest = max(longest, len(own))
	}
	folds = make([]fold, min(mostFolds, max(leastFolds, longest/horizon), max(2, len(list))))
	for s, own := range series {
		n, end := len(own), 0
		whole := n < len(folds) && len(series) >= len(folds)
		for f := range folds {
			begin := end
			switch {
			case !whole:
				end = ((f+1)*n + len(folds) - 1) / len(folds)
			case s%len(folds) == f:
				end = n
			}
			if begin == end {
				continue
			}
			folds[f].out = append(folds[f].out, own[begin:end]...)
			margin := int32(horizon - 1)
			for _, w := range own[:begin] {
				if w.origin >= own[begin].origin-margin {
					folds[f].before = append(folds[f].before, w)
				}
			}
			for _, w := range own[end:] {
				if w.origin <= own[end-1].origin+margin {
					folds[f].after = append(folds[f].after, w)
				}
			}
		}
	}
	most := 0
	for _, f := range folds {
		most = max(most, len(f.out)+len(f.before)+len(f.after))
	}
	return folds, 2*most > len(list)
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
	d           *dataset
	all         *normal // of all windows
	folds       []crossed
	size        float64 // mean sum of squares of an input
	start       int     // index of the penalty that was best last
	n           int     // windows that are forecast
	independent float64 // about how many of them do not overlap
}

// crossed is a fold: the equations of all others, and of those before it; its inputs
// and truth.
type crossed struct {
	others, earlier *normal // earlier: nil in the first half
	x, y            *mat.Dense
	groups          []int32
}

func newCross(ctx context.Context, d *dataset, k int, list []window, folds []fold, rolling bool) (*cross, error) {
	c := &cross{d: d, start: len(penalties) / 2, all: zeroNormal(d), independent: independent(list, d.horizon)}
	for i, f := range folds {
		own, err := newNormal(ctx, d, k, f.out)
		if err != nil {
			return nil, err
		}
		before, err := newNormal(ctx, d, k, f.before)
		if err != nil {
			return nil, err
		}
		after, err := newNormal(ctx, d, k, f.after)
		if err != nil {
			return nil, err
		}
		one := crossed{others: zeroNormal(d)}
		if i >= len(folds)/2 {
			one.earlier = zeroNormal(d)
			one.earlier.add(1, c.all)
			one.earlier.add(-1, before)
		}
		for _, part := range []*normal{own, before, after} {
			one.others.add(-1, part)
		}
		if rolling {
			one.others = one.earlier
		}
		c.all.add(1, own)
		if len(f.scored) > 0 {
			one.x, one.y, one.groups = d.design(k, f.scored, true)
			c.folds = append(c.folds, one)
			c.n += len(f.scored)
		}
	}
	for _, f := range c.folds {
		if !rolling {
			f.others.add(1, c.all)
		}
	}
	c.size = mat.Trace(c.all.xx.Slice(0, d.linear, 0, d.linear)) / float64(d.linear)
	return c, nil
}

// worthIt is the relative reduction of the error from which the level is used: a
// regression on it returns to the mean, and is wrong where the mean moves.
const worthIt = 0.03

// leastLevel is the least number of windows that do not overlap from which the level
// is tried: few of them return to their mean by chance.
const leastLevel = 8

// choose returns the regressions with their shares, and the mixture's forecasts of
// the windows left out, nil if there are none.
func (c *cross) choose(ctx context.Context, quick bool) ([]choice, *mat.Dense, error) {
	d := c.d
	if c.n == 0 { // no window can be left out
		return []choice{d.unchosen()}, nil, nil
	}
	full := d.fullest()
	if quick {
		one, forecast, err := c.try(ctx, full, false)
		one.Share = 1
		return []choice{one}, forecast, err
	}
	level := full
	level.Level = true
	var errs [2]float64
	for i, one := range []choice{full, level} {
		if one.Level && c.independent < leastLevel {
			errs[i] = math.Inf(1)
			continue
		}
		tried, _, err := c.try(ctx, one, true)
		if err != nil {
			return nil, nil, err
		}
		errs[i] = tried.Error
	}
	var tried []choice
	var forecasts []*mat.Dense
	for _, one := range d.linearChoices() {
		one.Level = errs[1] < errs[0]*(1-worthIt)
		one, forecast, err := c.try(ctx, one, false)
		if err != nil {
			return nil, nil, err
		}
		tried, forecasts = append(tried, one), append(forecasts, forecast)
	}
	mixed, part := mat.NewDense(c.n, d.horizon, nil), mat.NewDense(c.n, d.horizon, nil)
	for i, share := range mixing(forecasts, c.truth(), c.independent) {
		if tried[i].Share = share; share > 0 {
			part.Scale(share, forecasts[i])
			mixed.Add(mixed, part)
		}
	}
	return tried, mixed, nil
}

// fullest returns the regression that sees all but the level.
func (d *dataset) fullest() choice {
	return choice{Window: d.lookback, Lags: len(d.Lags), Groups: d.groups > 0}
}

// unchosen returns the fullest with a penalty in the middle.
func (d *dataset) unchosen() choice {
	one := d.fullest()
	one.Penalty, one.Share = penalties[len(penalties)/2], 1
	return one
}

// linearChoices returns the regressions to try, without the level.
func (d *dataset) linearChoices() (list []choice) {
	for _, groups := range []bool{false, true} {
		if groups && d.groups == 0 {
			continue
		}
		for _, rows := range d.linearWindows() {
			for lags := range len(d.Lags) + 1 {
				list = append(list, choice{Window: rows, Lags: lags, Groups: groups})
			}
		}
	}
	return list
}

// choiceWork returns about how many multiplications it takes to try one regression for
// all targets.
func (d *dataset) choiceWork() float64 {
	n, horizon := float64(d.linear+d.groups), float64(d.horizon)
	const tried = 6 // penalties
	return float64(d.targets) * mostFolds * tried * n * n * (n/3 + 2*horizon)
}

// linearWindows returns the numbers of rows of the target before the forecast that the
// regressions may see: all of the window, its last season, and a few; none without
// target history.
func (d *dataset) linearWindows() []int {
	rows := []int{d.lookback}
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
		n, _ := f.y.Dims()
		y.Slice(at, at+n, 0, c.d.horizon).(*mat.Dense).Copy(f.y)
		at += n
	}
	return y
}

// try returns a regression with the best penalty, and its forecasts of the windows
// left out; from the rows before them alone if rolling is set.
func (c *cross) try(ctx context.Context, one choice, rolling bool) (choice, *mat.Dense, error) {
	type work struct {
		columns []int
		penalty float64
		to      *mat.Dense
		errs    []mean
	}
	one.Error = math.Inf(1)
	own := work{columns: c.d.linearColumns(one), errs: make([]mean, len(c.folds))}
	best, next := mat.NewDense(c.n, c.d.horizon, nil), mat.NewDense(c.n, c.d.horizon, nil)
	// better tries a penalty, and reports whether it is the best so far.
	better := func(at int) bool {
		own.penalty, own.to = penalties[at]*c.size, next
		clear(own.errs)
		par.For(len(c.folds), 1, &own, func(own *work, lo, hi int) {
			for i := lo; i < hi; i++ {
				own.errs[i] = c.forecast(i, own.columns, own.penalty, own.to, rolling)
			}
		})
		var sum mean
		for _, e := range own.errs {
			sum.sum, sum.n = sum.sum+e.sum, sum.n+e.n
		}
		e := sum.value()
		if sum.n == 0 {
			e = 0 // nothing was measured
		}
		if e >= one.Error {
			return false
		}
		one.Error, one.Penalty, c.start = e, penalties[at], at
		best, next = next, best
		return true
	}
	// From the penalty that was best for the regression before, walk to both sides
	// until two in turn are worse.
	begin := c.start
	better(begin)
	for _, step := range []int{1, -1} {
		for at, worse := begin+step, 0; at >= 0 && at < len(penalties) && worse < 2; at += step {
			if err := ctx.Err(); err != nil {
				return one, nil, err
			}
			if better(at) {
				worse = 0
			} else {
				worse++
			}
		}
	}
	return one, best, nil
}

// forecast writes the forecasts of fold i, and returns their absolute errors. It is
// infinite if the equations have no solution.
func (c *cross) forecast(i int, columns []int, penalty float64, to *mat.Dense, rolling bool) (absolute mean) {
	f, at := c.folds[i], 0
	for _, before := range c.folds[:i] {
		n, _ := before.x.Dims()
		at += n
	}
	eq := f.others
	if rolling {
		eq = f.earlier
	}
	if eq == nil {
		return absolute
	}
	w := eq.solve(columns, penalty)
	if w == nil {
		return mean{math.Inf(1), 1}
	}
	n, _ := f.x.Dims()
	own := to.Slice(at, at+n, 0, c.d.horizon).(*mat.Dense)
	apply(own, w, f.x, f.groups, c.d.linear)
	for i := range n {
		for h, y := range f.y.RawRowView(i) {
			if !math.IsNaN(y) {
				absolute.add(math.Abs(own.At(i, h) - y))
			}
		}
	}
	return absolute
}

// linearColumns returns the indices of the inputs that a choice sees.
func (d *dataset) linearColumns(one choice) []int {
	columns := rising(0, 1)
	columns = append(columns, rising(1+d.lookback-one.Window, 1+d.lookback)...)
	lag := d.Before + d.horizon
	at := 1 + d.lookback
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
		if one.Share == 0 {
			continue
		}
		if w := eq.solve(d.linearColumns(one), one.Penalty*size); w != nil {
			w.Scale(one.Share, w)
			sum.Add(sum, w)
		}
	}
	sum.Apply(func(_, _ int, v float64) float64 { return float64(float32(v)) }, sum)
	return sum
}

func zeroNormal(d *dataset) *normal {
	n := d.linear + d.groups
	return &normal{mat.NewDense(n, n, nil), mat.NewDense(n, d.horizon, nil)}
}

// add adds other equations with a factor.
func (eq *normal) add(factor float64, other *normal) {
	for _, pair := range [][2]*mat.Dense{{eq.xx, other.xx}, {eq.xy, other.xy}} {
		to := pair[0].RawMatrix().Data
		for i, v := range pair[1].RawMatrix().Data {
			to[i] += factor * v
		}
	}
}

func newNormal(ctx context.Context, d *dataset, k int, train []window) (*normal, error) {
	p, eq := d.linear, zeroNormal(d)
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
	// mat.Cholesky would estimate a condition number too, for as long again.
	a := blas64.Symmetric{N: n, Stride: n, Data: make([]float64, n*n), Uplo: blas.Upper}
	all, horizon := eq.xy.Dims()
	b := mat.NewDense(n, horizon, nil)
	for i, c := range columns {
		row := eq.xx.RawRowView(c)
		for j := 0; j <= i; j++ {
			a.Data[j*n+i] = row[columns[j]]
		}
		a.Data[i*n+i] += lambda
		copy(b.RawRowView(i), eq.xy.RawRowView(c))
	}
	factor, ok := lapack64.Potrf(a)
	if !ok {
		return nil
	}
	lapack64.Potrs(factor, b.RawMatrix())
	if math.IsNaN(b.At(0, 0)) {
		return nil
	}
	w := mat.NewDense(all, horizon, nil)
	for i, c := range columns {
		copy(w.RawRowView(c), b.RawRowView(i))
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
