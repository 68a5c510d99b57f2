package cpu

import (
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
)

// WindowPool computes s. If an input of a window is NaN, so is its maximum.
func (b *Backend) WindowPool(s *device.WindowPoolSpec) {
	par.Each(s.B*s.H.Out, rowGrain(s.W.Out*s.H.Kernel*s.W.Kernel*s.C), b, s, func(b *Backend, s *device.WindowPoolSpec, lo, hi int) {
		for line := lo; line < hi; line++ {
			for w := range s.W.Out {
				b.poolWindow(s, line, w)
			}
		}
	})
}

// inputs calls f for each input of the window of place w in a line of Y: its place in
// the image, and where it begins in X. It returns the number of elements of a mean.
func inputs(s *device.WindowPoolSpec, line, w int, f func(place, at int)) (count float32) {
	image, rows := line/s.H.Out, s.H
	rows.In = lengthOf(s.Lens, image, s.H.In)
	top, h0, h1 := rows.Reads(line % s.H.Out)
	left, w0, w1 := s.W.Reads(w)
	for j := h0; j < h1; j++ {
		for k := w0; k < w1; k++ {
			place := (top+j*s.H.Dilation)*s.W.In + left + k*s.W.Dilation
			f(place, (image*s.H.In*s.W.In+place)*s.C)
		}
	}
	if s.CountPad {
		h0, h1 = 0, min(s.H.Kernel, (rows.In+s.After[0]-1-top)/s.H.Dilation+1)
		w0, w1 = 0, min(s.W.Kernel, (s.W.In+s.After[1]-1-left)/s.W.Dilation+1)
	}
	return float32((h1 - h0) * (w1 - w0))
}

func (b *Backend) poolWindow(s *device.WindowPoolSpec, line, w int) {
	at := (line*s.W.Out + w) * s.C
	y, arg := s.Y.Host[at:at+s.C], within(s.Arg.Host, at, at+s.C)
	first := true
	count := inputs(s, line, w, func(place, at int) {
		switch x := s.X.Host[at : at+s.C]; {
		case first:
			first = false
			copy(y, x)
			for i := range arg {
				arg[i] = int32(place)
			}
		case s.Mean:
			b.set.Add(y, y, x)
		case arg == nil:
			b.set.Max(y, y, x)
		default:
			for i, v := range x {
				if v > y[i] || v != v && y[i] == y[i] {
					y[i], arg[i] = v, int32(place)
				}
			}
		}
	})
	switch {
	case first:
		clear(y)
		for i := range arg {
			arg[i] = -1
		}
	case s.Mean:
		b.set.Scale(1/count, y)
	}
}

// WindowPoolGrad computes DX from DY, and from Arg for a maximum, divided by images.
func (b *Backend) WindowPoolGrad(s *device.WindowPoolSpec) {
	par.Each(s.B, 1, b, s, func(b *Backend, s *device.WindowPoolSpec, lo, hi int) {
		size := s.H.In * s.W.In * s.C
		if !s.AccX {
			clear(s.DX.Host[lo*size : hi*size])
		}
		for line := lo * s.H.Out; line < hi*s.H.Out; line++ {
			dx := s.DX.Host[line/s.H.Out*size:][:size]
			for w := range s.W.Out {
				at := (line*s.W.Out + w) * s.C
				dy := s.DY.Host[at : at+s.C]
				if s.Mean {
					count := inputs(s, line, w, func(int, int) {})
					inputs(s, line, w, func(place, _ int) { b.set.Axpy(1/count, dx[place*s.C:][:s.C], dy) })
					continue
				}
				for i, place := range s.Arg.Host[at : at+s.C] {
					if place < 0 {
						continue
					}
					d := &dx[int(place)*s.C+i]
					*d = simd.Narrow(float64(*d) + float64(dy[i]))
				}
			}
		}
	})
}
