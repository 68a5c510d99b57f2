package cpu

import (
	"fmt"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
)

// Products that are added are converted explicitly, float64(a*b) + c, because the
// compiler may otherwise fuse them on some architectures and not on others.

// Unary computes y = f(x), elementwise; y may be x.
func (b *Backend) Unary(f device.Function, y, x device.Buffer, alpha float32) {
	b.loop(elemGrain, vector{f: &functions[f], dst: y.Host[:x.N], src: x.Host, p: alpha}, func(v *vector, lo, hi int) {
		v.f.forward(v.set, v.dst[lo:hi], v.src[lo:hi], v.p)
	})
}

// UnaryGrad computes dx (+)= dy·f'. Functions with fromX read x, the others y, Scale
// and Shift neither; an operand that is not read may be absent.
func (b *Backend) UnaryGrad(f device.Function, dx, dy, x, y device.Buffer, alpha float32, acc bool) {
	v := vector{f: &functions[f], dst: dx.Host[:dy.N], src: dy.Host, from: y.Host, p: alpha, acc: acc}
	if v.f.fromX != nil {
		v.from = x.Host
	}
	b.loop(elemGrain, v, unaryGradRange)
}

func unaryGradRange(v *vector, lo, hi int) {
	g, slope := chunks.Get(), v.f.fromY
	if v.f.fromX != nil {
		slope = v.f.fromX
	}
	for ; lo < hi; lo += len(g) {
		end := min(lo+len(g), hi)
		slope(v.set, g[:end-lo], v.src[lo:end], within(v.from, lo, end), v.p)
		store(v.set, v.dst[lo:end], g[:end-lo], v.acc)
	}
	chunks.Put(g)
}

// within returns s[lo:hi], or nil if s is nil.
func within[T any](s []T, lo, hi int) []T {
	if s == nil {
		return nil
	}
	return s[lo:hi]
}

// Binary computes Z[i] = X[i] op Y[i%YN]; Z may be X.
func (b *Backend) Binary(s *device.BinarySpec) {
	par.Each(s.N, elemGrain, b, s, func(b *Backend, s *device.BinarySpec, lo, hi int) {
		x, y, z := s.X.Host, s.Y.Host, s.Z.Host
		if s.YN == 1 {
			scalar(b.set, s.Op, z[lo:hi], x[lo:hi], y[0])
			return
		}
		apply := [...]func(z, x, y []float32){device.Add: b.set.Add, device.Sub: b.set.Sub, device.Mul: b.set.Mul, device.Div: b.set.Div}[s.Op]
		for lo < hi {
			j := lo % s.YN
			n := min(s.YN-j, hi-lo)
			apply(z[lo:lo+n], x[lo:lo+n], y[j:j+n])
			lo += n
		}
	})
}

// scalar computes z = x op y with one y for all.
func scalar(set *simd.Set, op device.BinaryOp, z, x []float32, y float32) {
	switch op {
	case device.Add:
		set.Shift(y, z, x)
	case device.Sub:
		set.Shift(-y, z, x)
	case device.Mul:
		scaled(set, z, x, y)
	case device.Div:
		for i, v := range x {
			z[i] = simd.Narrow(float64(v) / float64(y))
		}
	default:
		panic(fmt.Sprintf("cpu: Binary: unknown op %d", op))
	}
}

// BinaryGrad computes DY before DX, so DX may be DZ. N must be a multiple of YN.
func (b *Backend) BinaryGrad(s *device.BinarySpec) {
	if s.N == 0 {
		return
	}
	if !s.DY.Zero() {
		b.binaryGradY(s)
	}
	if !s.DX.Zero() {
		par.Each(s.N, elemGrain, b, s, (*Backend).binaryGradX)
	}
}

func (b *Backend) binaryGradX(s *device.BinarySpec, lo, hi int) {
	dz, dx, y := s.DZ.Host, s.DX.Host, s.Y.Host
	set, g := b.set, chunks.Get()
	for lo < hi {
		j := lo % s.YN
		n := min(len(g), hi-lo)
		if s.YN >= narrow {
			n = min(n, s.YN-j)
		}
		part := g[:n]
		copy(part, dz[lo:])
		switch {
		case s.Op == device.Add || s.Op == device.Sub: // dz itself
		case s.YN < narrow:
			for i := range part {
				if v := float64(y[(j+i)%s.YN]); s.Op == device.Mul {
					part[i] = simd.Narrow(float64(part[i]) * v)
				} else {
					part[i] = simd.Narrow(float64(part[i]) / v)
				}
			}
		case s.Op == device.Mul:
			set.Mul(part, part, y[j:j+n])
		default:
			set.Div(part, part, y[j:j+n])
		}
		store(set, dx[lo:lo+n], part, s.AccX)
		lo += n
	}
	chunks.Put(g)
}

// repeatBlock returns the number of repeats of Y in one partial sum.
func repeatBlock(s *device.BinarySpec) int { return min(rowBlock(s.YN), s.N/s.YN) }

// binaryGradY sums over the repeats of Y: fixed blocks of repeats in parallel, then the blocks in order.
func (b *Backend) binaryGradY(s *device.BinarySpec) {
	w := workspaces.Get() // [blocks,YN]
	w.set = b.set
	repeats := s.N / s.YN
	blocks := ceilDiv(repeats, repeatBlock(s))
	parts := w.floats(blocks * s.YN)
	if blocks == 1 && s.YN >= narrow {
		par.Each(s.YN, elemGrain/repeats+1, w, s, func(w *workspace, s *device.BinarySpec, lo, hi int) { w.partY(s, 0, lo, hi) })
	} else {
		par.Each(blocks, 1, w, s, func(w *workspace, s *device.BinarySpec, lo, hi int) {
			for k := lo; k < hi; k++ {
				w.partY(s, k, 0, s.YN)
			}
		})
	}
	foldRows(b.set, parts, blocks, s.YN)
	store(b.set, s.DY.Host[:s.YN], parts[:s.YN], s.AccY)
	workspaces.Put(w)
}

// partY sums the repeats of block k into columns [lo,hi) of row k of w.f.
func (w *workspace) partY(s *device.BinarySpec, k, lo, hi int) {
	out, set, block := w.f[k*s.YN+lo:k*s.YN+hi], w.set, repeatBlock(s)
	clear(out)
	first, end := k*block, min((k+1)*block, s.N/s.YN)
	if s.YN < narrow {
		narrowY(s, out, first*s.YN, end*s.YN)
		return
	}
	y := s.Y.Host
	for r := first; r < end; r++ {
		dz := s.DZ.Host[r*s.YN+lo : r*s.YN+hi]
		switch s.Op {
		case device.Add:
			set.Add(out, out, dz)
		case device.Sub:
			set.Sub(out, out, dz)
		case device.Mul:
			set.MulAdd(out, dz, s.X.Host[r*s.YN+lo:r*s.YN+hi])
		case device.Div:
			x := s.X.Host[r*s.YN+lo : r*s.YN+hi]
			for j, d := range dz {
				v := float64(y[lo+j])
				out[j] = simd.Narrow(float64(out[j]) - float64(simd.Narrow(float64(d)*(float64(x[j])/v)/v)))
			}
		}
	}
}

// narrow is the length of Y below which a call for each repeat costs more than its work.
const narrow = 16

// narrowY is partY for all columns of elements [lo,hi), with YN below narrow.
func narrowY(s *device.BinarySpec, out []float32, lo, hi int) {
	for j := range out {
		dz, sum := s.DZ.Host, 0.0
		switch s.Op {
		case device.Add:
			for i := lo + j; i < hi; i += s.YN {
				sum += float64(dz[i])
			}
		case device.Sub:
			for i := lo + j; i < hi; i += s.YN {
				sum -= float64(dz[i])
			}
		case device.Mul:
			for i := lo + j; i < hi; i += s.YN {
				sum += float64(float64(dz[i]) * float64(s.X.Host[i]))
			}
		case device.Div:
			v := float64(s.Y.Host[j])
			for i := lo + j; i < hi; i += s.YN {
				sum -= float64(dz[i]) * (float64(s.X.Host[i]) / v) / v
			}
		}
		out[j] = simd.Narrow(sum)
	}
}

// store computes dst = src or, with acc, dst += src.
func store(set *simd.Set, dst, src []float32, acc bool) {
	if acc {
		set.Add(dst, dst, src)
	} else {
		copy(dst, src)
	}
}
