package forecast

import (
	"context"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
)

// ridge is a linear regression for each target, from the inputs of fillLinear and
// the kind of time to all steps of the horizon. It is the baseline "linear" and
// the initial value of the network's linear path.
type ridge struct {
	linear, groups, horizon int
	weights                 []*mat.Dense // [target][linear+groups, horizon]
	penalty                 []float64    // [target], chosen on the validation windows
}

// penalties are tried in turn, relative to the mean sum of squares of an input.
// The largest leave only the window's centre, so that the regression can be the
// naive forecast.
var penalties = []float64{1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 10, 1e4}

// Limits on the time of the closed form: multiplications for the normal
// equations, and windows by which the penalty is chosen.
const (
	ridgeBudget     = 4e9
	ridgeValidation = 8000
)

// fitRidge solves the normal equations of the training windows. The error is that
// of ctx.
func fitRidge(ctx context.Context, d *dataset) (*ridge, error) {
	train, valid := d.windows(trainPart, d.cfg.WindowStride), d.windows(validationPart, 1)
	if len(valid) == 0 {
		cut := len(train) - len(train)/10
		valid = train[cut:]
		if cut > d.horizon {
			train = train[:cut-d.horizon]
		}
	}
	work := float64(len(train)) * float64(d.targets) * float64(d.linear) * float64(d.linear)
	train = thin(train, int(math.Ceil(work/ridgeBudget)))
	valid = thin(valid, (len(valid)+ridgeValidation-1)/ridgeValidation)
	r := &ridge{linear: d.linear, groups: d.groups, horizon: d.horizon}
	for k := range d.targets {
		w, penalty, err := solveRidge(ctx, d, k, train, valid)
		if err != nil {
			return nil, err
		}
		// Rounded as they are saved, so that an opened model computes the same.
		w.Apply(func(_, _ int, v float64) float64 { return float64(float32(v)) }, w)
		r.weights = append(r.weights, w)
		r.penalty = append(r.penalty, penalty)
	}
	return r, nil
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

// normal is XᵀX and XᵀY, with the one-hot columns of the kinds of time last.
type normal struct {
	xx *mat.Dense // [linear+groups, linear+groups]
	xy *mat.Dense // [linear+groups, horizon]
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

// worthIt is the relative reduction of the validation error from which more
// inputs are used.
const worthIt = 0.01

// solveRidge tries the penalties, without and with the level of the window and
// the kinds of time, and returns the weights with the least validation error. Of
// choices with similar errors it takes the one with fewer inputs, which
// generalises better.
func solveRidge(ctx context.Context, d *dataset, k int, train, valid []window) (best *mat.Dense, penalty float64, err error) {
	eq, err := newNormal(ctx, d, k, train)
	if err != nil {
		return nil, 0, err
	}
	x, y, groups := d.design(k, valid, true)
	main, all := d.linear-1, d.linear+d.groups
	choices := [][]int{rising(0, main), rising(0, d.linear)}
	if d.groups > 0 {
		choices = append(choices, slices.Concat(rising(0, main), rising(d.linear, all)), rising(0, all))
	}
	size := mat.Trace(eq.xx.Slice(0, d.linear, 0, d.linear)) / float64(d.linear)
	best = mat.NewDense(all, d.horizon, nil)
	least := math.Inf(1)
	for _, columns := range choices {
		limit := least * (1 - worthIt)
		for _, share := range penalties {
			if err := ctx.Err(); err != nil {
				return nil, 0, err
			}
			w := eq.solve(columns, share*size)
			if w == nil {
				continue
			}
			if e := meanError(w, x, y, groups, d.linear); e < limit {
				best, penalty, least, limit = w, share, e, e
			}
		}
	}
	return best, penalty, nil
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

// meanError returns the mean absolute error of weights over the outputs that were
// measured.
func meanError(w, x, y *mat.Dense, groups []int32, linear int) float64 {
	n, horizon := y.Dims()
	if n == 0 {
		return 0
	}
	size, _ := w.Dims()
	fit := mat.NewDense(n, horizon, nil)
	fit.Mul(x, w.Slice(0, linear, 0, horizon))
	var absolute mean
	for i := range n {
		row, truth := fit.RawRowView(i), y.RawRowView(i)
		var extra []float64
		if size > linear {
			extra = w.RawRowView(linear + int(groups[i]))
		}
		for h := range row {
			v := row[h] - truth[h]
			if extra != nil {
				v += extra[h]
			}
			if !math.IsNaN(v) {
				absolute.add(math.Abs(v))
			}
		}
	}
	if absolute.n == 0 {
		return 0
	}
	return absolute.value()
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
