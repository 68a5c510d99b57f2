package simd

import (
	"math"
	"unsafe"
)

// The portable kernels. Products are converted explicitly (float32(a*b) + c),
// which forbids the compiler to fuse, so that every architecture gives the same bits.

var generic = Set{
	Name: "generic", MR: 4, NR: 8,
	GemmTile: gemmTileGeneric,
	Pack:     packGeneric, PackT: packTGeneric,
	Exp: mapGeneric(expf), Sigmoid: mapGeneric(sigmoidf), Tanh: mapGeneric(tanhf),
	LSTM: lstmGeneric, LSTMGrad: lstmGradGeneric,
	Add: addGeneric, Mul: mulGeneric, MulAdd: mulAddGeneric, Axpy: axpyGeneric, Scale: scaleGeneric,
	Sum: sumGeneric, SumSq: sumSqGeneric, Dot: dotGeneric,
	Adam: adamGeneric,
}

// floats is the slice of n elements at p; none when p is nil.
func floats(p *float32, n int) []float32 {
	if p == nil {
		return nil
	}
	return unsafe.Slice(p, n)
}

// at is the element n places after p.
func at(p *float32, n int) *float32 { return (*float32)(unsafe.Add(unsafe.Pointer(p), 4*n)) }

func gemmTileGeneric(t *Tile) {
	const nr = 8
	if t.K2 > 0 {
		first, second := *t, *t
		first.K2, second.K2 = 0, 0
		gemmTileGeneric(&first)
		second.A, second.RS, second.B, second.K = t.A2, t.RS2, t.B2, t.K2
		second.From, second.LDFrom = t.C, t.LDC
		gemmTileGeneric(&second)
		return
	}
	if t.N > nr {
		part := *t
		part.N = nr
		for j := 0; j < t.N; j += nr {
			gemmTileGeneric(&part)
			for _, p := range []**float32{&part.C, &part.From} {
				if *p != nil {
					*p = at(*p, nr)
				}
			}
			if t.K > 0 {
				part.B = at(part.B, t.Pitch)
			}
		}
		return
	}
	var a, b []float32
	if t.K > 0 {
		a = floats(t.A, (t.M-1)*t.RS+(t.K-1)*t.CS+1)
		b = floats(t.B, (t.K-1)*t.LDB+nr)
	}
	c := floats(t.C, (t.M-1)*t.LDC+t.N)
	from := floats(t.From, (t.M-1)*t.LDFrom+t.N)
	for r := range t.M {
		var s [nr]float32
		if from != nil {
			copy(s[:], from[r*t.LDFrom:][:t.N])
		}
		s0, s1, s2, s3, s4, s5, s6, s7 := s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]
		ai, bi := r*t.RS, 0
		for range t.K {
			x := a[ai]
			y := b[bi:][:nr:nr]
			s0 += float32(x * y[0])
			s1 += float32(x * y[1])
			s2 += float32(x * y[2])
			s3 += float32(x * y[3])
			s4 += float32(x * y[4])
			s5 += float32(x * y[5])
			s6 += float32(x * y[6])
			s7 += float32(x * y[7])
			ai += t.CS
			bi += t.LDB
		}
		s = [nr]float32{s0, s1, s2, s3, s4, s5, s6, s7}
		copy(c[r*t.LDC:][:t.N], s[:])
	}
}

func packGeneric(dst, src []float32, depth, cols, ld, width int) {
	for k := range depth {
		row := src[k*ld:][:cols]
		for at := k * width; len(row) > 0; at += depth * width {
			n := copy(dst[at:][:width], row)
			clear(dst[at+n:][:width-n])
			row = row[n:]
		}
	}
}

func packTGeneric(dst, src []float32, depth, cols, ld, stride int) {
	if cols < stride {
		clear(dst[:depth*stride])
	}
	for j := range cols {
		if depth == 0 {
			return
		}
		at := j
		for _, x := range src[j*ld:][:depth] {
			dst[at] = x
			at += stride
		}
	}
}

// The exponential: e^x = 2^n · e^r with n = round(x/ln 2), |r| <= ln2/2, and
// e^r = 1 + r + r²·q(r) with the coefficients of the Cephes library's expf
// (S. Moshier). The assembly does the same in float32 with fused
// multiply-adds; float64 here costs no more and makes the reference exact to
// little over half an ulp.
const (
	expQ5   = 1.9875691500e-4
	expQ4   = 1.3981999507e-3
	expQ3   = 8.3334519073e-3
	expQ2   = 4.1665795894e-2
	expQ1   = 1.6666665459e-1
	expQ0   = 5.0000001201e-1
	expMax  = 89    // e^89 overflows float32
	expMin  = -104  // e^-104 rounds to zero
	tanhMax = 9.125 // tanh of this rounds to 1
)

// roundMagic is 1.5·2^52: adding it to a number below 2^51 and taking it away again rounds to the nearest integer.
const roundMagic = 3 << 51

// reduce splits x into a power of two s and e^r - 1, where e^x = s · e^r. |x| < 700.
func reduce(x float64) (s, em1 float64) {
	n := float64(float64(x*math.Log2E)+roundMagic) - roundMagic
	r := x - float64(n*math.Ln2)
	q := float64(expQ5*r) + expQ4
	q = float64(q*r) + expQ3
	q = float64(q*r) + expQ2
	q = float64(q*r) + expQ1
	q = float64(q*r) + expQ0
	return math.Float64frombits(uint64(int64(n)+1023) << 52), float64(float64(r*r)*q) + r
}

// exp64 is e^x for x from expMin to expMax, to the precision of a float32.
func exp64(x float64) float64 {
	s, em1 := reduce(x)
	return s * (1 + em1)
}

func expf(x float32) float32 {
	switch {
	case x != x:
		return x
	case x > expMax:
		x = expMax
	case x < expMin:
		x = expMin
	}
	return float32(exp64(float64(x)))
}

// sigmoidf is e/(1+e) or 1/(1+e) with e = e^-|x|, so nothing cancels and small results stay exact.
func sigmoidf(x float32) float32 {
	if x != x {
		return x
	}
	e := exp64(float64(max(-abs32(x), expMin)))
	if x < 0 {
		return float32(e / (1 + e))
	}
	return float32(1 / (1 + e))
}

// tanhf is E/(E+2) with E = e^2|x| - 1, given the sign of x.
func tanhf(x float32) float32 {
	if x != x {
		return x
	}
	s, em1 := reduce(2 * float64(min(abs32(x), tanhMax)))
	e := float64(s*em1) + (s - 1)
	return copysign32(float32(e/(e+2)), x)
}

func abs32(x float32) float32 { return math.Float32frombits(math.Float32bits(x) &^ (1 << 31)) }

func copysign32(x, sign float32) float32 {
	return math.Float32frombits(math.Float32bits(x) | math.Float32bits(sign)&(1<<31))
}

func mapGeneric(f func(float32) float32) func(dst, src []float32) {
	return func(dst, src []float32) {
		dst = dst[:len(src)]
		for i, x := range src {
			dst[i] = f(x)
		}
	}
}

func lstmGeneric(a *LSTMArgs) {
	h, n := a.H, (a.Rows-1)*a.H+a.Units
	gates, cPrev, c, hid := floats(a.Gates, 3*(h*a.Rows)+n), floats(a.CPrev, n), floats(a.C, n), floats(a.Hid, n)
	out := floats(a.Out, (a.Rows-1)*a.LDOut+a.Units)
	for row := range a.Rows {
		for j := range a.Units {
			at, k := 4*row*h+j, row*h+j
			i, f, g, o := sigmoidf(gates[at]), sigmoidf(gates[at+h]), tanhf(gates[at+2*h]), sigmoidf(gates[at+3*h])
			gates[at], gates[at+h], gates[at+2*h], gates[at+3*h] = i, f, g, o
			cell := float32(f*cPrev[k]) + float32(i*g)
			c[k] = cell
			hid[k] = o * tanhf(cell)
			out[row*a.LDOut+j] = hid[k]
		}
	}
}

func lstmGradGeneric(a *LSTMGradArgs) {
	h, n := a.H, (a.Rows-1)*a.H+a.Units
	gates, cPrev, c, dHid, dC := floats(a.Gates, 3*(h*a.Rows)+n), floats(a.CPrev, n), floats(a.C, n), floats(a.DHid, n), floats(a.DC, n)
	for row := range a.Rows {
		for j := range a.Units {
			at, k := 4*row*h+j, row*h+j
			i, f, g, o, tc := gates[at], gates[at+h], gates[at+2*h], gates[at+3*h], tanhf(c[k])
			dh := dHid[k]
			dc := dC[k] + float32(float32(dh*o)*(1-float32(tc*tc)))
			gates[at] = float32(dc*g) * float32(i*(1-i))
			gates[at+h] = float32(dc*cPrev[k]) * float32(f*(1-f))
			gates[at+2*h] = float32(dc*i) * (1 - float32(g*g))
			gates[at+3*h] = float32(dh*tc) * float32(o*(1-o))
			dC[k] = dc * f
		}
	}
}

func addGeneric(dst, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = a[i] + b[i]
	}
}

func mulGeneric(dst, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = a[i] * b[i]
	}
}

func mulAddGeneric(dst, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] += float32(a[i] * b[i])
	}
}

func axpyGeneric(alpha float32, dst, src []float32) {
	src = src[:len(dst)]
	for i := range dst {
		dst[i] += float32(alpha * src[i])
	}
}

func scaleGeneric(alpha float32, dst []float32) {
	for i := range dst {
		dst[i] *= alpha
	}
}

// Reductions keep 8 partial sums, element i in sum i%8, and fold them in halves.

func fold(s *[8]float32) float32 {
	return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))
}

func sumGeneric(x []float32) float32 {
	var s [8]float32
	for ; len(x) >= 8; x = x[8:] {
		for j := range s {
			s[j] += x[j]
		}
	}
	for j, v := range x {
		s[j] += v
	}
	return fold(&s)
}

func sumSqGeneric(x []float32) float32 { return dotGeneric(x, x) }

func dotGeneric(x, y []float32) float32 {
	var s [8]float32
	y = y[:len(x)]
	for ; len(x) >= 8; x, y = x[8:], y[8:] {
		for j := range s {
			s[j] += float32(x[j] * y[j])
		}
	}
	for j, v := range x {
		s[j] += float32(v * y[j])
	}
	return fold(&s)
}

func adamGeneric(a *AdamArgs) {
	w, g, m, v := floats(a.W, a.N), floats(a.G, a.N), floats(a.M, a.N), floats(a.V, a.N)
	for i := range w {
		grad := float32(a.GScale*g[i]) + float32(a.L2*w[i])
		g[i] = 0
		m[i] += float32(a.OneMinusBeta1 * (grad - m[i]))
		v[i] = float32(a.Beta2*v[i]) + float32(float32(a.OneMinusBeta2*grad)*grad)
		root := float32(math.Sqrt(float64(v[i])))
		w[i] = float32(a.Keep*w[i]) - float32(a.StepSize*m[i])/(root/a.SqrtBias2+a.Eps)
	}
}
