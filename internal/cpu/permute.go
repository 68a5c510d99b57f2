package cpu

import (
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
)

type permuteArgs struct {
	b    *Backend
	s    device.PermuteSpec
	axis int // the dimension that is divided among cores
}

var permuteArgsPool par.Pool[permuteArgs]

// Permute computes s. Work is divided along a dimension whose elements have distinct
// destinations, so one worker adds those of equal destinations (stride 0), in
// ascending order.
func (b *Backend) Permute(s *device.PermuteSpec) {
	total := s.Dims[0] * s.Dims[1] * s.Dims[2] * s.Dims[3]
	if total == 0 {
		return
	}
	a := permuteArgsPool.Get()
	a.b, a.s, a.axis = b, *s, -1
	for range 3 {
		a.innermost()
	}
	s = &a.s
	for k, n := range s.Dims {
		if n > 1 && s.DstStride[k] != 0 && (a.axis < 0 || n > s.Dims[a.axis]) && k < 3 {
			a.axis = k
		}
	}
	if a.axis < 0 {
		a.axis = 0
		permuteRange(a, 0, s.Dims[0])
	} else {
		n := s.Dims[a.axis]
		par.For(n, max(1, moveGrain*n/total), a, permuteRange)
	}
	permuteArgsPool.Put(a)
}

// innermost shifts the dimensions by one if the last is 1 and the first has length
// 1 too, so that lines are long.
func (a *permuteArgs) innermost() {
	s := &a.s
	if s.Dims[3] > 1 || s.Dims[0] > 1 || !(s.Rows.Zero() && s.Lens.Zero()) && (s.RowDim > 1 || s.TimeDim > 2) {
		return
	}
	s.RowDim, s.TimeDim = s.RowDim+1, s.TimeDim+1
	copy(s.Dims[1:], s.Dims[:3])
	copy(s.SrcStride[1:], s.SrcStride[:3])
	copy(s.DstStride[1:], s.DstStride[:3])
}

func permuteRange(a *permuteArgs, lo, hi int) {
	s := &a.s
	var from, to [3]int
	for k := range 3 {
		to[k] = s.Dims[k]
	}
	from[a.axis], to[a.axis] = lo, hi
	var i [4]int
	for i[0] = from[0]; i[0] < to[0]; i[0]++ {
		for i[1] = from[1]; i[1] < to[1]; i[1]++ {
			for i[2] = from[2]; i[2] < to[2]; i[2]++ {
				a.line(i)
			}
		}
	}
}

// line copies the innermost dimension at outer index i.
func (a *permuteArgs) line(i [4]int) {
	s := &a.s
	n := s.Dims[3]
	src, dst := s.SrcOff, s.DstOff
	for k := range 3 {
		is, id := i[k], i[k]
		if !s.Rows.Zero() && k == s.RowDim {
			if s.RowsDst {
				id = int(s.Rows.Host[is])
			} else {
				is = int(s.Rows.Host[is])
			}
		}
		src += is * s.SrcStride[k]
		dst += id * s.DstStride[k]
	}
	ds, ss := s.DstStride[3], s.SrcStride[3]
	if !s.Lens.Zero() {
		valid := max(int(s.Lens.Host[i[s.RowDim]])-i[s.TimeDim], 0)
		if s.TimeDim != 3 && valid > 0 {
			valid = n
		}
		for k := min(valid, n); k < n && !s.Acc; k++ {
			s.Dst.Host[dst+k*ds] = 0
		}
		n = min(valid, n)
	}
	switch {
	case ds == 1 && ss == 1 && !s.Acc:
		copy(s.Dst.Host[dst:dst+n], s.Src.Host[src:src+n])
	case ds == 1 && ss == 1:
		d := s.Dst.Host[dst : dst+n]
		a.b.set.Add(d, d, s.Src.Host[src:src+n])
	case s.Acc:
		for k := range n {
			d := &s.Dst.Host[dst+k*ds]
			*d = simd.Narrow(float64(*d) + float64(s.Src.Host[src+k*ss]))
		}
	default:
		for k := range n {
			s.Dst.Host[dst+k*ds] = s.Src.Host[src+k*ss]
		}
	}
}
