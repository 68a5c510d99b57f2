package cpu

import (
	"math"

	"github.com/carousel-ml/carousel/internal/simd"
)

// The sLSTM (Beck et al. 2024, xLSTM): an exponential input
// gate, a logistic forget gate, and a normaliser n beside c. m keeps the
// exponentials in range and changes no h:
//
//	m' = max(log σ(f) + m, i)   i' = exp(i - m')   f' = exp(log σ(f) + m - m')
//	c' = f'⊙c + i'⊙tanh(z)      n' = f'⊙n + i'     h' = σ(o)⊙c'/n'
//
// A unit whose n is 0 has no past, so its m' is i. The states c, n and m follow each
// other in a row. R is dense; there is one head.

// slstmUnit is the values of one unit that follow from its pre-activations i and f.
type slstmUnit struct {
	sigF, i, f, m float64 // σ(f), i', f', m'
	past          bool    // m' is log σ(f) + m
}

func newSLSTMUnit(iPre, fPre, nOld, mOld float32) slstmUnit {
	x, pre := float64(fPre), float64(iPre)
	e := exp(-math.Abs(x))
	u := slstmUnit{sigF: 1 / (1 + e), i: 1, m: pre}
	if x < 0 {
		u.sigF = e / (1 + e)
	}
	if nOld == 0 {
		return u
	}
	stay := math.Min(x, 0) - math.Log1p(e) + float64(mOld)
	if u.past = stay >= pre; u.past { // the larger exponent is 0
		u.m, u.f, u.i = stay, 1, exp(pre-stay)
	} else {
		u.f = exp(stay - pre)
	}
	return u
}

func slstmForward(r *row) {
	H := r.h
	i, f, z, o := r.gates[:H], r.gates[H:2*H], r.gates[2*H:3*H], r.gates[3*H:]
	r.set.Tanh(z, z)
	r.set.Sigmoid(o, o)
	for j := range H {
		u := newSLSTMUnit(i[j], f[j], r.cOld[H+j], r.cOld[2*H+j])
		c := float64(u.f*float64(r.cOld[j])) + float64(u.i*float64(z[j]))
		n := float64(u.f*float64(r.cOld[H+j])) + u.i
		r.cNew[j], r.cNew[H+j], r.cNew[2*H+j] = simd.Narrow(c), simd.Narrow(n), simd.Narrow(u.m)
		r.out[j] = simd.Narrow(float64(o[j]) * (c / n))
	}
}

// slstmBackward includes the gradient of m, so that it is exact for every state.
func slstmBackward(r *row) {
	H := r.h
	gi, gf, gz, gout := r.gates[:H], r.gates[H:2*H], r.gates[2*H:3*H], r.gates[3*H:]
	dcs, dns, dms := r.dc[:H], r.dc[H:2*H], r.dc[2*H:]
	for j, dh32 := range r.dh {
		cOld, nOld := float64(r.cOld[j]), float64(r.cOld[H+j])
		u := newSLSTMUnit(gi[j], gf[j], r.cOld[H+j], r.cOld[2*H+j])
		z, o, dh := float64(gz[j]), float64(gout[j]), float64(dh32)
		c, n := float64(u.f*cOld)+float64(u.i*z), float64(u.f*nOld)+u.i
		dc := float64(dcs[j]) + dh*o/n
		dn := float64(dns[j]) - dh*o*c/(n*n)
		di := float64(dc*z*u.i) + float64(dn*u.i) // of the exponent of i'
		df := float64(dc*cOld*u.f) + float64(dn*nOld*u.f)
		dm := float64(dms[j]) - di - df
		if u.past {
			df += dm
		} else {
			di += dm
		}
		gi[j], gf[j] = simd.Narrow(di), simd.Narrow(df*(1-u.sigF))
		gz[j], gout[j] = simd.Narrow(dc*u.i*(1-z*z)), simd.Narrow(dh*c/n*o*(1-o))
		dcs[j], dns[j], dms[j] = simd.Narrow(dc*u.f), simd.Narrow(dn*u.f), simd.Narrow(df)
	}
}
