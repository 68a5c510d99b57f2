package cpu

import "github.com/carousel-ml/carousel/cell"

// Layer normalisation inside a cell, as in Ba, Kiros and Hinton 2016: W·x and R·h
// are normalised separately, each with its own gain, and the biases are added
// afterwards; in an LSTM over all gates together, in a GRU over r and z together and
// n separately.

const normEps = 1e-5

// standardize scales x to mean 0 and variance 1, in place, and returns 1/deviation.
func (r *row) standardize(x []float32) float32 {
	_, rstd := standardize(r.set, x, x, normEps)
	return rstd
}

// standardizeGrad computes x = rstd·(g - mean(g) - x·mean(g·x)) for standardised x and its gradient g.
func (r *row) standardizeGrad(x, g []float32, rstd float32) {
	m1, m2 := mean(r.set.Sum(g), len(x)), mean(r.set.Dot(g, x), len(x))
	r.set.Scale(-m2, x)
	r.set.Add(x, x, g)
	r.set.Shift(-m1, x, x)
	r.set.Scale(rstd, x)
}

// normalize computes the pre-activations from W·x in gates and R·h in side. It
// leaves W·x in xhat and R·h in side standardised. The rows of side that are kept
// separate are not added; normalizedSide returns them.
func (r *row) normalize() {
	e := r.e
	if !e.Has(cell.NormX) {
		return
	}
	copy(r.xhat, r.gates)
	at := 0
	for k, gates := range cell.Table[e.Cell].Norms {
		n := gates * r.h
		if n > 0 {
			r.stats[k] = r.standardize(r.xhat[at : at+n])
			r.stats[2+k] = r.standardize(r.side[at : at+n])
		}
		at += n
	}
	r.set.Mul(r.gates, e.Params[cell.NormX].Host, r.xhat)
	r.set.Add(r.gates, r.gates, e.bias)
	r.set.MulAdd(r.gates[:e.tied], e.Params[cell.NormR].Host[:e.tied], r.side[:e.tied])
}

// normalizedSide returns the normalised R·h + b' of the gate that keeps it separate.
func (r *row) normalizedSide() []float32 {
	e := r.e
	if !e.Has(cell.NormX) {
		return r.side
	}
	v := r.scratch(sideWork, r.h)
	r.set.Mul(v, e.Params[cell.NormR].Host[e.tied:], r.side[e.tied:])
	if e.Has(cell.BR) {
		r.set.Add(v, v, e.Params[cell.BR].Host[e.tied:])
	}
	return v
}

// normalizeGrad computes the gradients of W·x in xhat and of R·h in side from those
// of the pre-activations, in gates, and of normalizedSide, in dside (nil: none).
func (r *row) normalizeGrad(dside []float32) {
	e, set := r.e, r.set
	if !e.Has(cell.NormX) {
		return
	}
	GH := len(r.gates)
	set.MulAdd(r.collect(cell.NormX, GH), r.gates, r.xhat)
	gain := r.collect(cell.NormR, GH)
	set.MulAdd(gain[:e.tied], r.gates[:e.tied], r.side[:e.tied])
	g := r.scratch(normGradWork, GH)
	set.Mul(g, r.gates, e.Params[cell.NormX].Host)
	r.blockGrads(r.xhat, g, r.stats[:2])
	set.Mul(g[:e.tied], r.gates[:e.tied], e.Params[cell.NormR].Host[:e.tied])
	if dside != nil {
		set.MulAdd(gain[e.tied:], dside, r.side[e.tied:])
		if e.Has(cell.BR) {
			acc := r.collect(cell.BR, GH-e.tied)
			set.Add(acc, acc, dside)
		}
		set.Mul(g[e.tied:], dside, e.Params[cell.NormR].Host[e.tied:])
	}
	r.blockGrads(r.side, g, r.stats[2:])
}

// blockGrads applies standardizeGrad to the blocks that are normalised together.
func (r *row) blockGrads(x, g, rstd []float32) {
	at := 0
	for k, gates := range cell.Table[r.e.Cell].Norms {
		if n := gates * r.h; n > 0 {
			r.standardizeGrad(x[at:at+n], g[at:at+n], rstd[k])
			at += n
		}
	}
}
