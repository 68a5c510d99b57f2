package simd

import (
	"math"
	"unsafe"
)

// The portable kernels. Products are converted explicitly, float32(a*b) + c, so that
// the compiler does not fuse them and all architectures produce the same bits.
//
// Go code cannot set the processor's flush mode, so a result that may be below
// MinNormal is computed in float64, which rounds to the same bits; see Narrow.

var generic = Set{
	Name: "generic", MR: 4, NR: 8,
	NarrowUnit: narrowUnitGeneric, WidenUnit: widenUnitGeneric,
	Weights: []Weights{
		{Name: "float32", Group: 1, Bytes: 4, Tiles: gemmTilesGeneric},
		{Name: "bfloat16", Group: 1, Bytes: 4, Tiles: gemmTilesGeneric, Narrow: narrowBF16Generic, Widen: widenBF16Generic,
			Round: roundBF16Generic, Encode: func(dst []byte, _, panel []float32) { roundBF16Generic(panelFloats(dst), panel) }},
		{Name: "float16", Group: 1, Bytes: 4, Tiles: gemmTilesGeneric, Narrow: narrowFP16Generic, Widen: widenFP16Generic,
			Round: roundFP16Generic, Encode: func(dst []byte, _, panel []float32) { roundFP16Generic(panelFloats(dst), panel) }},
		byteWeights(8, false, bytesGeneric(8)),
	},
	Pack: packGeneric, PackT: packTGeneric,
	Exp: mapGeneric(expf), Sigmoid: mapGeneric(sigmoidf), Tanh: mapGeneric(tanhf),
	LSTM: lstmGeneric, LSTMGrad: lstmGradGeneric, GRU: gruGeneric, GRUGrad: gruGradGeneric,
	SigmoidGrad: sigmoidGradGeneric, TanhGrad: tanhGradGeneric,
	Add: addGeneric, Sub: subGeneric, Mul: mulGeneric, Div: divGeneric, Max: maxGeneric, Lerp: lerpGeneric, MulAdd: mulAddGeneric, Axpy: axpyGeneric, EMA: emaGeneric, Scale: scaleGeneric, Shift: shiftGeneric, Flush: flushGeneric,
	Sum: sumGeneric, SumSq: sumSqGeneric, Dot: dotGeneric,
	Adam: adamGeneric,
}

// floats returns the slice of n elements at p, or nil if p is nil.
func floats(p *float32, n int) []float32 {
	if p == nil {
		return nil
	}
	return unsafe.Slice(p, n)
}

// at returns the address n elements after p.
func at(p *float32, n int) *float32 { return (*float32)(unsafe.Add(unsafe.Pointer(p), 4*n)) }

func gemmTilesGeneric(t *Tiles) {
	for _, tile := range unsafe.Slice(t.First, t.Count) {
		switch {
		case t.K2 > 0:
			gemmTileGeneric(t, &tile)
			second := *t
			second.RS, second.K, second.LDFrom, second.At = t.RS2, t.K2, t.LDC, nil
			tile.A, tile.B, tile.From = tile.A2, tile.B2, tile.C
			gemmTileGeneric(&second, &tile)
		case tile.N > tileCols:
			part := tile
			part.N = tileCols
			for j := 0; j < tile.N; j += tileCols {
				part.C = at(tile.C, j)
				if tile.From != nil {
					part.From = at(tile.From, j)
				}
				if t.K > 0 {
					part.B = at(tile.B, j/tileCols*t.Pitch)
				}
				gemmTileGeneric(t, &part)
			}
		default:
			gemmTileGeneric(t, &tile)
		}
	}
}

const tileCols = 8 // NR of the generic set

// lift is the factor by which a chain of multiply-adds is scaled, so that no product
// is subnormal unless it is below 2^-222. A sum above 2^31 overflows then and is
// computed again without the factor.
const lift = 1 << 96

func gemmTileGeneric(t *Tiles, tile *Tile) {
	for r := range tile.M {
		var start, sum [tileCols]float32
		if tile.From != nil {
			copy(start[:], floats(at(tile.From, r*t.LDFrom), tile.N))
		}
		for j, v := range start {
			sum[j] = v * lift
		}
		var a *float32
		if t.K > 0 {
			a = at(tile.A, r*t.RS)
		}
		chains(&sum, a, tile.CS, t.At, tile.B, t.LDB, t.K, lift)
		c := floats(at(tile.C, r*t.LDC), tile.N)
		high := float32(0)
		for j := range c {
			v := sum[j]
			high += v - v // NaN if any overflows
			if abs32(v) < MinNormal*lift {
				v = 0
			}
			c[j] = v * (1 / float32(lift))
		}
		if high != high {
			chains(&start, a, tile.CS, t.At, tile.B, t.LDB, t.K, 1)
			for j := range c {
				if v := sum[j]; v-v != 0 { // the others do not depend on their neighbours
					c[j] = Narrow(float64(start[j]))
				}
			}
		}
	}
}

// chains computes s[j] += a[i*cs]·by · b[i*ldb+j] for i < k, ascending, or with places, places[i]-places[0] for i*cs.
func chains(s *[tileCols]float32, a *float32, cs int, places *int, b *float32, ldb, k int, by float32) {
	s0, s1, s2, s3, s4, s5, s6, s7 := s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]
	ai, bi := 0, 0
	for i := range k {
		if places != nil {
			list := unsafe.Slice(places, k)
			ai = 4 * (list[i] - list[0])
		}
		x := *(*float32)(unsafe.Add(unsafe.Pointer(a), ai)) * by
		y := (*[tileCols]float32)(unsafe.Add(unsafe.Pointer(b), bi))
		s0 += float32(x * y[0])
		s1 += float32(x * y[1])
		s2 += float32(x * y[2])
		s3 += float32(x * y[3])
		s4 += float32(x * y[4])
		s5 += float32(x * y[5])
		s6 += float32(x * y[6])
		s7 += float32(x * y[7])
		ai += 4 * cs
		bi += 4 * ldb
	}
	*s = [tileCols]float32{s0, s1, s2, s3, s4, s5, s6, s7}
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
// (S. Moshier). The assembly does the same in float32 with fused multiply-adds and
// its own coefficients; float64 here costs no more and makes the reference exact to
// little more than half an ulp.
const (
	expQ5   = 1.9875691500e-4
	expQ4   = 1.3981999507e-3
	expQ3   = 8.3334519073e-3
	expQ2   = 4.1665795894e-2
	expQ1   = 1.6666665459e-1
	expQ0   = 5.0000001201e-1
	expMax  = 89    // e^89 overflows float32
	expMin  = -104  // e^-104 is below MinNormal
	tanhMax = 9.125 // tanh of this rounds to 1
)

// roundMagic is 1.5·2^52: adding it to a number below 2^51 and subtracting it again rounds to the nearest integer.
const roundMagic = 3 << 51

// reduce returns a power of two s and e^r - 1, where e^x = s · e^r. |x| < 700.
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

// exp64 returns e^x for x from expMin to expMax, to the precision of a float32.
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
	return Narrow(exp64(float64(x)))
}

// sigmoidf returns e/(1+e) or 1/(1+e) with e = e^-|x|, so nothing cancels and small results stay exact.
func sigmoidf(x float32) float32 {
	if x != x {
		return x
	}
	e := exp64(float64(max(-abs32(x), expMin)))
	if x < 0 {
		return Narrow(e / (1 + e))
	}
	return float32(1 / (1 + e))
}

// sigmoidGrad returns the gradient of the argument of a sigmoid with value y and gradient d.
func sigmoidGrad(d, y float64) float32 { return Narrow(d * y * (1 - y)) }

// tanhGrad does so for tanh.
func tanhGrad(d, y float64) float32 { return Narrow(d * (1 - float64(y*y))) }

// tanhf returns E/(E+2) with E = e^2|x| - 1, with the sign of x.
func tanhf(x float32) float32 {
	if x != x {
		return x
	}
	s, em1 := reduce(2 * float64(min(abs32(x), tanhMax)))
	e := float64(s*em1) + (s - 1)
	return copysign32(Narrow(e/(e+2)), x)
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

func lstmGeneric(a *CellArgs) {
	h, n := a.H, (a.Rows-1)*a.H+a.Units
	gates, cPrev, c, hid := floats(a.Gates, 3*(h*a.Rows)+n), floats(a.CPrev, n), floats(a.C, n), floats(a.Hid, n)
	out := floats(a.Out, (a.Rows-1)*a.LDOut+a.Units)
	for row := range a.Rows {
		for j := range a.Units {
			at, k := 4*row*h+j, row*h+j
			i, f, g, o := sigmoidf(gates[at]), sigmoidf(gates[at+h]), tanhf(gates[at+2*h]), sigmoidf(gates[at+3*h])
			gates[at], gates[at+h], gates[at+2*h], gates[at+3*h] = i, f, g, o
			c[k] = Narrow(float64(float64(f)*float64(cPrev[k])) + float64(float64(i)*float64(g)))
			hid[k] = Narrow(float64(o) * float64(tanhf(c[k])))
			out[row*a.LDOut+j] = hid[k]
		}
	}
}

func lstmGradGeneric(a *CellArgs) {
	h, n := a.H, (a.Rows-1)*a.H+a.Units
	gates, cPrev, c, dHid, dC := floats(a.Gates, 3*(h*a.Rows)+n), floats(a.CPrev, n), floats(a.C, n), floats(a.DHid, n), floats(a.DC, n)
	for row := range a.Rows {
		for j := range a.Units {
			at, k := 4*row*h+j, row*h+j
			i, f, g, o := float64(gates[at]), float64(gates[at+h]), float64(gates[at+2*h]), float64(gates[at+3*h])
			tc, dh := float64(tanhf(c[k])), float64(dHid[k])
			dc := float64(dC[k]) + float64(float64(dh*o)*(1-float64(tc*tc)))
			gates[at] = sigmoidGrad(dc*g, i)
			gates[at+h] = sigmoidGrad(dc*float64(cPrev[k]), f)
			gates[at+2*h] = tanhGrad(dc*i, g)
			gates[at+3*h] = sigmoidGrad(dh*tc, o)
			dC[k] = Narrow(dc * f)
		}
	}
}

func gruGeneric(a *CellArgs) {
	h, n := a.H, (a.Rows-1)*a.H+a.Units
	gates, side, hPrev, hid := floats(a.Gates, 2*(h*a.Rows)+n), floats(a.Side, n), floats(a.HPrev, n), floats(a.Hid, n)
	out := floats(a.Out, (a.Rows-1)*a.LDOut+a.Units)
	for row := range a.Rows {
		for j := range a.Units {
			at, k := 3*row*h+j, row*h+j
			r, z := sigmoidf(gates[at]), sigmoidf(gates[at+h])
			c := tanhf(Narrow(float64(gates[at+2*h]) + float64(float64(r)*float64(side[k]))))
			gates[at], gates[at+h], gates[at+2*h] = r, z, c
			hid[k] = lerp(c, hPrev[k], z)
			out[row*a.LDOut+j] = hid[k]
		}
	}
}

func gruGradGeneric(a *CellArgs) {
	h, n := a.H, (a.Rows-1)*a.H+a.Units
	gates, side, hPrev, dHid := floats(a.Gates, 2*(h*a.Rows)+n), floats(a.Side, n), floats(a.HPrev, n), floats(a.DHid, n)
	for row := range a.Rows {
		for j := range a.Units {
			at, k := 3*row*h+j, row*h+j
			r, z, c, dh := float64(gates[at]), float64(gates[at+h]), float64(gates[at+2*h]), float64(dHid[k])
			pre := dh * (1 - z) * (1 - float64(c*c))
			gates[at] = sigmoidGrad(pre*float64(side[k]), r)
			gates[at+h] = sigmoidGrad(dh*(float64(hPrev[k])-c), z)
			gates[at+2*h] = Narrow(pre)
			side[k] = Narrow(pre * r)
			dHid[k] = Narrow(dh * z)
		}
	}
}

// zip computes dst[i] = f(a[i], b[i]). The compiler inlines it, and f with it.
func zip(dst, a, b []float32, f func(a, b float32) float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = f(a[i], b[i])
	}
}

func sigmoidGradGeneric(dst, d []float32) {
	zip(dst, d, dst, func(d, y float32) float32 { return sigmoidGrad(float64(d), float64(y)) })
}

func tanhGradGeneric(dst, d []float32) {
	zip(dst, d, dst, func(d, y float32) float32 { return tanhGrad(float64(d), float64(y)) })
}

func addGeneric(dst, a, b []float32) {
	zip(dst, a, b, func(a, b float32) float32 { return Narrow(float64(a) + float64(b)) })
}

func subGeneric(dst, a, b []float32) {
	zip(dst, a, b, func(a, b float32) float32 { return Narrow(float64(a) - float64(b)) })
}

func mulGeneric(dst, a, b []float32) {
	zip(dst, a, b, func(a, b float32) float32 { return Narrow(float64(a) * float64(b)) })
}

func divGeneric(dst, a, b []float32) {
	zip(dst, a, b, func(a, b float32) float32 { return Narrow(float64(a) / float64(b)) })
}

func maxGeneric(dst, a, b []float32) {
	zip(dst, a, b, func(a, b float32) float32 { return Narrow(float64(max(a, b))) })
}

// mulAdd returns c + a·b, with the product and the sum rounded.
func mulAdd(a, b, c float32) float32 {
	return Narrow(float64(c) + float64(Narrow(float64(a)*float64(b))))
}

func lerp(a, b, w float32) float32 {
	return mulAdd(w, Narrow(float64(b)-float64(a)), a)
}

func lerpGeneric(dst, a, b, w []float32) {
	a, b, w = a[:len(dst)], b[:len(dst)], w[:len(dst)]
	for i := range dst {
		dst[i] = lerp(a[i], b[i], w[i])
	}
}

func mulAddGeneric(dst, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = mulAdd(a[i], b[i], dst[i])
	}
}

func axpyGeneric(alpha float32, dst, src []float32) {
	zip(dst, src, dst, func(x, y float32) float32 { return mulAdd(alpha, x, y) })
}

func emaGeneric(alpha float32, dst, src []float32) {
	zip(dst, src, dst, func(x, y float32) float32 {
		return Narrow(float64(y) + float64(float64(alpha)*(float64(x)-float64(y))))
	})
}

func scaleGeneric(alpha float32, dst []float32) {
	for i := range dst {
		dst[i] = Narrow(float64(alpha) * float64(dst[i]))
	}
}

func shiftGeneric(alpha float32, dst, src []float32) {
	zip(dst, src, src, func(x, _ float32) float32 { return Narrow(float64(x) + float64(alpha)) })
}

func flushGeneric(dst, src []float32) {
	src = src[:len(dst)]
	for i, v := range src {
		if math.Float32bits(v)&0x7f800000 == 0 {
			v = copysign32(0, v)
		}
		dst[i] = v
	}
}

// Reductions have 8 partial sums, element i in sum i%8, which are folded in halves.

func fold(s *[8]float64) float32 {
	return Narrow(((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7])))
}

func sumGeneric(x []float32) float32 {
	var s [8]float64
	for ; len(x) >= 8; x = x[8:] {
		for j := range s {
			s[j] += float64(x[j])
		}
	}
	for j, v := range x {
		s[j] += float64(v)
	}
	return fold(&s)
}

func sumSqGeneric(x []float32) float32 { return dotGeneric(x, x) }

func dotGeneric(x, y []float32) float32 {
	var s [8]float64
	y = y[:len(x)]
	for ; len(x) >= 8; x, y = x[8:], y[8:] {
		for j := range s {
			s[j] += float64(float64(x[j]) * float64(y[j]))
		}
	}
	for j, v := range x {
		s[j] += float64(float64(v) * float64(y[j]))
	}
	return fold(&s)
}

func adamGeneric(a *AdamArgs) {
	w, g, m, v := floats(a.W, a.N), floats(a.G, a.N), floats(a.M, a.N), floats(a.V, a.N)
	scale, l2, keep, eps := float64(a.GScale), float64(a.L2), float64(a.Keep), float64(a.Eps)
	w1, beta2, w2 := float64(a.OneMinusBeta1), float64(a.Beta2), float64(a.OneMinusBeta2)
	for i := range w {
		weight, first := float64(w[i]), float64(m[i])
		grad := float64(scale*float64(g[i])) + float64(l2*weight)
		g[i] = 0
		m[i] = Narrow(first + float64(w1*(grad-first)))
		v[i] = Narrow(float64(beta2*float64(v[i])) + float64(w2*grad*grad))
		step := float64(a.StepSize) * float64(m[i]) / (math.Sqrt(float64(v[i]))/float64(a.SqrtBias2) + eps)
		w[i] = Narrow(float64(keep*weight) - step)
	}
}
