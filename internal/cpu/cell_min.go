package cpu

import "github.com/carousel-ml/carousel/internal/simd"

// minGRU and minLSTM (Feng et al. 2024, in their plain form): the gates depend on
// the input alone, so W·x is one product over all time and the rest is elementwise.
// A call computes units u0 to u1 of r, because units may be divided among cores.
//
//	minGRU   z = σ(W_z x + b)   n = W_n x + b   h' = (1-z)⊙h + z⊙n
//	minLSTM  f, i = σ(W x + b)  f' = f/(f+i)    i' = i/(f+i)   h' = f'⊙h + i'⊙n
//
// If f and i are both 0, h' = h.

// ofGate returns the units to compute of gate k.
func (r *row) ofGate(k int) []float32 { return r.gates[k*r.h+r.u0 : k*r.h+r.u1] }

func minGRUForward(r *row) {
	z, n := r.ofGate(0), r.ofGate(1)
	r.set.Sigmoid(z, z)
	r.set.Lerp(r.out[r.u0:r.u1], r.hOld[r.u0:r.u1], n, z)
}

func minGRUBackward(r *row) {
	dz, dn := r.ofGate(0), r.ofGate(1)
	dh, hOld := r.dh[r.u0:r.u1], r.hOld[r.u0:r.u1]
	d, keep := r.scratch(gradWork, len(dh)), r.scratch(gradWork2, len(dh))
	r.set.Sub(d, dn, hOld)
	r.set.Mul(d, d, dh)
	r.set.Mul(dn, dh, dz) // dz is still z
	oneMinus(keep, dz)
	r.set.Mul(dh, dh, keep)
	r.set.SigmoidGrad(dz, d)
}

func minLSTMForward(r *row) {
	f, i, n := r.ofGate(0), r.ofGate(1), r.ofGate(2)
	r.set.Sigmoid(f, f)
	r.set.Sigmoid(i, i)
	out, hOld := r.out[r.u0:r.u1], r.hOld[r.u0:r.u1]
	for j := range f {
		f, i, h := float64(f[j]), float64(i[j]), float64(hOld[j])
		if f+i == 0 {
			f = 1
		}
		out[j] = simd.Narrow((float64(f*h) + float64(i*float64(n[j]))) / (f + i))
	}
}

func minLSTMBackward(r *row) {
	gf, gi, gn := r.ofGate(0), r.ofGate(1), r.ofGate(2)
	dhs, hOld := r.dh[r.u0:r.u1], r.hOld[r.u0:r.u1]
	for j, dh32 := range dhs {
		f, i, n, h, dh := float64(gf[j]), float64(gi[j]), float64(gn[j]), float64(hOld[j]), float64(dh32)
		if f+i == 0 {
			f = 1
		}
		s := f + i
		d := dh * (h - n) * (f / s) * (i / s)
		gf[j] = simd.Narrow(d * (1 - f))
		gi[j] = simd.Narrow(-d * (1 - i))
		gn[j] = simd.Narrow(dh * i / s)
		dhs[j] = simd.Narrow(dh * f / s)
	}
}
