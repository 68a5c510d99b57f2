package cpu

import (
	"fmt"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
)

// Pool computes s: one vector per sequence, from its valid steps alone. If one of
// those that it reads is NaN, so is the result.
func (b *Backend) Pool(s *device.PoolSpec) {
	par.Each(s.B, rowGrain(s.T*s.F), b, s, func(b *Backend, s *device.PoolSpec, lo, hi int) {
		for i := lo; i < hi; i++ {
			poolRow(b.set, s, i)
		}
	})
}

// PoolGrad adds DY to the gradients of the steps that Pool used; without AccX the others are zero.
func (b *Backend) PoolGrad(s *device.PoolSpec) {
	par.Each(s.B, rowGrain(s.T*s.F), b, s, func(b *Backend, s *device.PoolSpec, lo, hi int) {
		for i := lo; i < hi; i++ {
			poolGradRow(b.set, s, i)
		}
	})
}

func poolRow(set *simd.Set, s *device.PoolSpec, i int) {
	n, f := lengthOf(s.Lens, i, s.T), s.F
	x, y := s.X.Host[i*s.T*f:(i+1)*s.T*f], s.Y.Host[i*f:(i+1)*f]
	arg := within(s.Arg.Host, i*f, (i+1)*f)
	if n == 0 {
		clear(y)
		for j := range arg {
			arg[j] = -1
		}
		return
	}
	switch s.Kind {
	case device.PoolLast:
		copy(y, x[(n-1)*f:n*f])
	case device.PoolMean:
		copy(y, x[:f])
		for t := 1; t < n; t++ {
			set.Add(y, y, x[t*f:(t+1)*f])
		}
		for j := range y {
			y[j] = mean(y[j], n)
		}
	case device.PoolMax:
		copy(y, x[:f])
		clear(arg)
		for t := 1; t < n; t++ {
			for j, v := range x[t*f : (t+1)*f] {
				if v > y[j] || v != v && y[j] == y[j] {
					y[j] = v
					if arg != nil {
						arg[j] = int32(t)
					}
				}
			}
		}
	default:
		panic(fmt.Sprintf("cpu: Pool: unknown kind %d", s.Kind))
	}
}

func poolGradRow(set *simd.Set, s *device.PoolSpec, i int) {
	n, f := lengthOf(s.Lens, i, s.T), s.F
	dx, dy := s.DX.Host[i*s.T*f:(i+1)*s.T*f], s.DY.Host[i*f:(i+1)*f]
	if !s.AccX {
		clear(dx)
	}
	if n == 0 {
		return
	}
	switch s.Kind {
	case device.PoolLast:
		last := dx[(n-1)*f : n*f]
		set.Add(last, last, dy)
	case device.PoolMean:
		for t := range n {
			set.Axpy(1/float32(n), dx[t*f:(t+1)*f], dy)
		}
	case device.PoolMax:
		for j, t := range s.Arg.Host[i*f : (i+1)*f] {
			at := int(t)*f + j
			dx[at] = simd.Narrow(float64(dx[at]) + float64(dy[j]))
		}
	}
}
