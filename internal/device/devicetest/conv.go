package devicetest

import (
	"fmt"
	"math"
	"slices"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/device"
)

// convolved is the definition of ConvSpec in float64, without Act.
func convolved(c *device.ConvSpec, lens []int32, x, weight, bias []float64) []float64 {
	i, o := c.I/c.Groups, c.O/c.Groups
	var y []float64
	for b := range c.B {
		for h := range c.H.Out {
			for w := range c.W.Out {
				for out := range c.O {
					sum := 0.0
					if bias != nil {
						sum = bias[out]
					}
					for j := range c.H.Kernel {
						for k := range c.W.Kernel {
							row, col := h*c.H.Stride-c.H.Before+j*c.H.Dilation, w*c.W.Stride-c.W.Before+k*c.W.Dilation
							if row < 0 || row >= c.H.In || lens != nil && row >= int(lens[b]) || col < 0 || col >= c.W.In {
								continue
							}
							for in := range i {
								sum += x[((b*c.H.In+row)*c.W.In+col)*c.I+out/o*i+in] * weight[((out*i+in)*c.H.Kernel+j)*c.W.Kernel+k]
							}
						}
					}
					y = append(y, sum)
				}
			}
		}
	}
	return y
}

// single is the window of an axis of length 1.
var single = device.Window{In: 1, Out: 1, Kernel: 1, Stride: 1, Dilation: 1}

func (s *suite) conv() {
	s.remember = true
	for name, spec := range map[string]device.ConvSpec{
		"none":           {B: 0, I: 3, O: 4, Groups: 1, H: single, W: device.Window{In: 5, Out: 3, Kernel: 3, Stride: 1, Dilation: 1}},
		"1d":             {B: 3, I: 5, O: 7, Groups: 1, H: single, W: device.Window{In: 9, Out: 7, Kernel: 3, Stride: 1, Dilation: 1}},
		"1d, padded":     {B: 2, I: 4, O: 40, Groups: 1, H: single, W: device.Window{In: 9, Out: 5, Kernel: 3, Stride: 2, Dilation: 1, Before: 1}},
		"spectrum":       {B: 2, I: 1, O: 70, Groups: 1, H: single, W: device.Window{In: 900, Out: 6, Kernel: 250, Stride: 130, Dilation: 1}},
		"all padding":    {B: 1, I: 2, O: 3, Groups: 1, H: single, W: device.Window{In: 2, Out: 9, Kernel: 2, Stride: 1, Dilation: 3, Before: 5}},
		"2d":             {B: 2, I: 3, O: 5, Groups: 1, H: device.Window{In: 6, Out: 6, Kernel: 3, Stride: 1, Dilation: 1, Before: 1}, W: device.Window{In: 7, Out: 3, Kernel: 3, Stride: 2, Dilation: 1}},
		"2d, dilated":    {B: 2, I: 3, O: 5, Groups: 1, H: device.Window{In: 9, Out: 5, Kernel: 3, Stride: 1, Dilation: 2}, W: device.Window{In: 7, Out: 6, Kernel: 2, Stride: 1, Dilation: 3, Before: 1}},
		"2d, ragged":     {B: 3, I: 3, O: 5, Groups: 1, H: device.Window{In: 9, Out: 5, Kernel: 3, Stride: 2, Dilation: 1, Before: 1}, W: device.Window{In: 4, Out: 1, Kernel: 4, Stride: 1, Dilation: 1}},
		"groups":         {B: 2, I: 6, O: 9, Groups: 3, H: device.Window{In: 4, Out: 4, Kernel: 3, Stride: 1, Dilation: 1, Before: 1}, W: device.Window{In: 5, Out: 4, Kernel: 2, Stride: 1, Dilation: 1}},
		"channels alone": {B: 2, I: 21, O: 21, Groups: 21, H: device.Window{In: 4, Out: 4, Kernel: 3, Stride: 1, Dilation: 1, Before: 1}, W: device.Window{In: 7, Out: 4, Kernel: 2, Stride: 2, Dilation: 1, Before: 1}},
		"many places":    {B: 2, I: 4, O: 20, Groups: 1, H: device.Window{In: 12, Out: 12, Kernel: 3, Stride: 1, Dilation: 1, Before: 1}, W: device.Window{In: 25, Out: 25, Kernel: 5, Stride: 1, Dilation: 1, Before: 2}},
	} {
		s.seed(name)
		var lens []int32
		if name == "2d, ragged" {
			lens = []int32{5, 0, 8}
		}
		spec.Lens = s.ints(lens)
		nx, ny, nw := spec.B*spec.H.In*spec.W.In*spec.I, spec.B*spec.H.Out*spec.W.Out*spec.O, spec.O*spec.I/spec.Groups*spec.H.Kernel*spec.W.Kernel
		x, weight, bias, dy := s.normal(nx), s.normal(nw), s.normal(spec.O), s.normal(ny)
		spec.X, spec.Weight, spec.Bias, spec.Y = s.put(x), s.put(weight), s.put(bias), s.put(filled(ny, 9))
		s.b.Conv(&spec)
		y := s.get(spec.Y)
		s.near(name, y, convolved(&spec, lens, wide(x), wide(weight), wide(bias)), 2e-5)

		cache, back := device.Cache{}, device.Cache{}
		spec.Cache, spec.BackCache, spec.Version = &cache, &back, 1
		for range 2 {
			spec.Y = s.put(filled(ny, 9))
			s.b.Conv(&spec)
			s.same(name+" cached", s.get(spec.Y), y)
		}
		spec.Act = cell.ReLU
		s.b.Conv(&spec)
		for i, v := range y {
			y[i] = max(v, 0)
		}
		s.same(name+" activation", s.get(spec.Y), y)
		spec.Act, spec.Bias = 0, device.Buffer{}
		s.b.Conv(&spec)
		s.near(name+" without bias", s.get(spec.Y), convolved(&spec, lens, wide(x), wide(weight), nil), 2e-5)

		spec.DY, spec.DX = s.put(dy), s.put(filled(nx, 9))
		spec.DWeight, spec.DBias = s.put(filled(nw, 1)), s.put(filled(spec.O, 1))
		s.b.ConvGrad(&spec)
		dx := s.get(spec.DX)
		s.gradient(name+" dx", dx, x, func(v []float64) float64 { return dot(convolved(&spec, lens, v, wide(weight), nil), dy) }, 1e-4)
		s.gradient(name+" dweight", plus(s.get(spec.DWeight), -1), weight, func(v []float64) float64 { return dot(convolved(&spec, lens, wide(x), v, nil), dy) }, 1e-4)
		s.gradient(name+" dbias", plus(s.get(spec.DBias), -1), bias, func(v []float64) float64 { return dot(convolved(&spec, lens, wide(x), wide(weight), v), dy) }, 1e-4)
		spec.DX, spec.AccX, spec.DWeight, spec.DBias = s.put(filled(nx, 2)), true, device.Buffer{}, device.Buffer{}
		s.b.ConvGrad(&spec)
		s.near(name+" dx acc", s.get(spec.DX), wide(plus(dx, 2)), 1e-5)

		if spec.B > 1 { // a row's bits do not depend on its batch mates
			last := spec
			last.B, last.Lens, last.X, last.Y = 1, s.ints(lens[max(len(lens)-1, 0):]), s.put(x[nx/spec.B*(spec.B-1):]), s.put(filled(ny/spec.B, 9))
			s.b.Conv(&last)
			s.same(name+" alone", s.get(last.Y), s.get(spec.Y)[ny/spec.B*(spec.B-1):])
		}
	}
}

// windowPooled is the definition of WindowPoolSpec in float64.
func windowPooled(p *device.WindowPoolSpec, lens []int32, x []float64) []float64 {
	var y []float64
	for b := range p.B {
		rows := p.H.In
		if lens != nil {
			rows = int(lens[b])
		}
		for h := range p.H.Out {
			for w := range p.W.Out {
				for c := range p.C {
					var of []float64
					padded := 0
					for j := range p.H.Kernel {
						for k := range p.W.Kernel {
							row, col := h*p.H.Stride-p.H.Before+j*p.H.Dilation, w*p.W.Stride-p.W.Before+k*p.W.Dilation
							if row >= 0 && row < rows && col >= 0 && col < p.W.In {
								of = append(of, x[((b*p.H.In+row)*p.W.In+col)*p.C+c])
							} else if row < rows+p.After[0] && col < p.W.In+p.After[1] {
								padded++
							}
						}
					}
					if len(of) == 0 {
						y = append(y, 0)
						continue
					}
					if !p.Mean {
						y = append(y, slices.Max(of))
						continue
					}
					sum := 0.0
					for _, v := range of {
						sum += v
					}
					if !p.CountPad {
						padded = 0
					}
					y = append(y, sum/float64(len(of)+padded))
				}
			}
		}
	}
	return y
}

func (s *suite) windowPool() {
	for i, spec := range []device.WindowPoolSpec{
		{B: 3, C: 2, H: device.Window{In: 9, Out: 5, Kernel: 3, Stride: 2, Dilation: 1, Before: 1}, W: single, After: [2]int{1, 0}},
		{B: 2, C: 3, H: single, W: device.Window{In: 9, Out: 4, Kernel: 3, Stride: 2, Dilation: 1}},
		{B: 1, C: 33, H: device.Window{In: 5, Out: 5, Kernel: 3, Stride: 1, Dilation: 1, Before: 1}, W: device.Window{In: 6, Out: 3, Kernel: 2, Stride: 2, Dilation: 1}, After: [2]int{1, 0}},
		{B: 2, C: 1, H: device.Window{In: 7, Out: 3, Kernel: 2, Stride: 2, Dilation: 3, Before: 1}, W: device.Window{In: 7, Out: 4, Kernel: 3, Stride: 2, Dilation: 1, Before: 1}, After: [2]int{1, 1}},
		{B: 0, C: 2, H: single, W: device.Window{In: 4, Out: 2, Kernel: 2, Stride: 2, Dilation: 1}},
	} {
		for _, mode := range []string{"max", "mean", "mean with padding"} {
			name := fmt.Sprintf("%d, %s", i, mode)
			spec.Mean, spec.CountPad, spec.AccX, spec.Arg = mode != "max", mode == "mean with padding", false, device.Ints{}
			nx, ny := spec.B*spec.H.In*spec.W.In*spec.C, spec.B*spec.H.Out*spec.W.Out*spec.C
			x, dy := s.normal(nx), s.normal(ny)
			for i := range x {
				x[i] -= 5 // a padding taken as 0 would win the maximum
			}
			var lens []int32
			if i == 0 {
				lens = []int32{9, 0, 4}
			}
			spec.Lens, spec.X, spec.Y = s.ints(lens), s.put(x), s.put(filled(ny, 9))
			s.b.WindowPool(&spec)
			s.near(name, s.get(spec.Y), windowPooled(&spec, lens, wide(x)), 1e-6)
			if !spec.Mean {
				spec.Arg = s.b.AllocInts(ny)
				s.b.WindowPool(&spec)
				s.near(name+" with places", s.get(spec.Y), windowPooled(&spec, lens, wide(x)), 0)
			}
			spec.DY, spec.DX = s.put(dy), s.put(filled(nx, 9))
			s.b.WindowPoolGrad(&spec)
			dx := s.get(spec.DX)
			s.gradient(name, dx, x, func(v []float64) float64 { return dot(windowPooled(&spec, lens, v), dy) }, 1e-4)
			spec.DX, spec.AccX = s.put(filled(nx, 2)), true
			s.b.WindowPoolGrad(&spec)
			s.near(name+" acc", s.get(spec.DX), wide(plus(dx, 2)), 1e-6)
		}
	}
	inf, nan := float32(math.Inf(-1)), float32(math.NaN())
	spec := device.WindowPoolSpec{B: 1, C: 4, H: single, W: device.Window{In: 3, Out: 1, Kernel: 3, Stride: 1, Dilation: 1}, Y: s.b.Alloc(4),
		X: s.put([]float32{inf, 1, 1, 2, inf, 1, nan, 3, inf, 1, 5, 3})}
	for range 2 {
		s.b.WindowPool(&spec)
		s.near("ties, NaN and -Inf", s.get(spec.Y), []float64{math.Inf(-1), 1, math.NaN(), 3}, 0)
		spec.Arg = s.b.AllocInts(4)
	}
	s.b.WindowPool(&spec)
	if arg := s.getInts(spec.Arg); fmt.Sprint(arg) != "[0 0 1 1]" {
		s.Errorf("places chosen %v, want the earliest of equals: [0 0 1 1]", arg)
	}
}
