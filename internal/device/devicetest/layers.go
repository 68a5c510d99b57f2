package devicetest

import (
	"fmt"
	"math"

	"github.com/carousel-ml/carousel/internal/device"
)

// normed is layer normalisation in float64.
func normed(x, gamma, beta []float64, cols int, eps float64) []float64 {
	y := make([]float64, len(x))
	for r := 0; r < len(x); r += cols {
		var mean, variance float64
		for _, v := range x[r : r+cols] {
			mean += v / float64(cols)
		}
		for _, v := range x[r : r+cols] {
			variance += (v - mean) * (v - mean) / float64(cols)
		}
		for j := range cols {
			y[r+j] = (x[r+j]-mean)/math.Sqrt(variance+eps)*gamma[j] + beta[j]
		}
	}
	return y
}

func (s *suite) norm() {
	const eps = 1e-5
	for _, size := range [][2]int{{0, 4}, {1, 1}, {3, 7}, {5, 64}, {300, 33}, {2, 1500}} {
		rows, cols := size[0], size[1]
		name := fmt.Sprintf("%dx%d", rows, cols)
		x, gamma, beta, dy := s.normal(rows*cols), s.normal(cols), s.normal(cols), s.normal(rows*cols)
		for i := range x {
			x[i] += 10 // a mean far from 0 shows cancellation
		}
		spec := device.NormSpec{
			Rows: rows, Cols: cols, X: s.put(x), Y: s.b.Alloc(rows * cols), Gamma: s.put(gamma), Beta: s.put(beta), Eps: eps,
			Mean: s.b.Alloc(rows), RStd: s.b.Alloc(rows),
		}
		s.b.Norm(&spec)
		s.near(name, s.get(spec.Y), normed(wide(x), wide(gamma), wide(beta), cols, eps), 2e-5)

		spec.DY, spec.DX = s.put(dy), s.b.Alloc(rows*cols)
		spec.DGamma, spec.DBeta = s.put(filled(cols, 1)), s.put(filled(cols, 1))
		s.b.NormGrad(&spec)
		dx := s.get(spec.DX)
		s.gradient(name+" dx", dx, x, func(v []float64) float64 { return dot(normed(v, wide(gamma), wide(beta), cols, eps), dy) }, 2e-4)
		s.gradient(name+" dgamma", plus(s.get(spec.DGamma), -1), gamma,
			func(v []float64) float64 { return dot(normed(wide(x), v, wide(beta), cols, eps), dy) }, 2e-4)
		s.gradient(name+" dbeta", plus(s.get(spec.DBeta), -1), beta,
			func(v []float64) float64 { return dot(normed(wide(x), wide(gamma), v, cols, eps), dy) }, 2e-4)

		spec.DX, spec.AccX, spec.DGamma, spec.DBeta = s.put(filled(rows*cols, 2)), true, device.Buffer{}, device.Buffer{}
		s.b.NormGrad(&spec)
		s.near(name+" dx acc", s.get(spec.DX), wide(plus(dx, 2)), 1e-5)
	}
}

// softmaxed is the definition of SoftmaxSpec in float64.
func softmaxed(x []float64, cols int, lens []int32, per int, log bool) []float64 {
	y := make([]float64, len(x))
	for r := 0; r*cols < len(x); r++ {
		n := cols
		if lens != nil {
			n = int(lens[r/max(per, 1)])
		}
		row, top, sum := x[r*cols:r*cols+n], math.Inf(-1), 0.0
		for _, v := range row {
			top = math.Max(top, v)
		}
		for _, v := range row {
			sum += math.Exp(v - top)
		}
		for j, v := range row {
			if y[r*cols+j] = v - top - math.Log(sum); !log {
				y[r*cols+j] = math.Exp(v-top) / sum
			}
		}
	}
	return y
}

func (s *suite) softmax() {
	for _, log := range []bool{false, true} {
		for _, size := range [][3]int{{0, 4, 0}, {1, 1, 0}, {4, 9, 0}, {3, 3000, 0}, {6, 11, 1}, {6, 11, 3}, {4000, 7, 2}} {
			rows, cols, per := size[0], size[1], size[2]
			name := fmt.Sprintf("%dx%d rows a length=%d log=%v", rows, cols, per, log)
			x, dy := s.scaled(rows*cols, 4), s.normal(rows*cols)
			spec := device.SoftmaxSpec{Rows: rows, Cols: cols, X: s.put(x), Y: s.put(filled(rows*cols, 9)), Log: log, RowsPerLen: per}
			var lens []int32
			if per > 0 {
				for k := range rows / per {
					lens = append(lens, int32((k*5)%(cols+1))) // begins with an empty row
				}
			}
			spec.Lens = s.ints(lens)
			forward := func(v []float64) []float64 { return softmaxed(v, cols, lens, per, log) }
			s.b.Softmax(&spec)
			s.near(name, s.get(spec.Y), forward(wide(x)), 5e-6)

			spec.DY, spec.DX = s.put(dy), s.put(filled(rows*cols, 9))
			s.b.SoftmaxGrad(&spec)
			dx := s.get(spec.DX)
			s.gradient(name+" dx", dx, x, func(v []float64) float64 { return dot(forward(v), dy) }, 1e-4)
			spec.DX, spec.AccX = s.put(filled(rows*cols, 2)), true
			s.b.SoftmaxGrad(&spec)
			s.near(name+" dx acc", s.get(spec.DX), wide(plus(dx, 2)), 1e-5)
		}
	}
	big := []float32{1e4, 1e4 - 1, -1e4}
	y := s.b.Alloc(3)
	s.b.Softmax(&device.SoftmaxSpec{Rows: 1, Cols: 3, X: s.put(big), Y: y})
	s.near("large inputs", s.get(y), softmaxed(wide(big), 3, nil, 0, false), 1e-5)
	s.b.Softmax(&device.SoftmaxSpec{Rows: 1, Cols: 3, X: s.put([]float32{1, float32(math.NaN()), 2}), Y: y})
	s.near("NaN", s.get(y), []float64{math.NaN(), math.NaN(), math.NaN()}, 0)
}

func (s *suite) embed() {
	const v, d = 11, 37
	for _, n := range []int{0, 1, 500} {
		for _, padding := range []int32{-1, 4} {
			table, dy, start := s.normal(v*d), s.normal(n*d), s.normal(v*d)
			ids := make([]int32, n)
			want, grad := make([]float64, n*d), wide(start)
			for i := range ids {
				ids[i] = int32(s.rnd.IntN(v))
				for j := range d {
					want[i*d+j] = float64(table[int(ids[i])*d+j])
					if ids[i] != padding {
						grad[int(ids[i])*d+j] += float64(dy[i*d+j])
					}
				}
			}
			spec := device.EmbedSpec{Table: s.put(table), V: v, D: d, IDs: s.ints(ids), Padding: padding, Y: s.b.Alloc(n * d),
				DY: s.put(dy), DTable: s.put(start)}
			s.b.Embed(&spec)
			s.near("rows", s.get(spec.Y), want, 0)
			s.b.EmbedGrad(&spec)
			s.near("gradient", s.get(spec.DTable), grad, 2e-6)
		}
	}
}

// pooled is the definition of PoolSpec in float64.
func pooled(p *device.PoolSpec, lens []int32, x []float64) []float64 {
	y := make([]float64, p.B*p.F)
	for b := range p.B {
		n := p.T
		if lens != nil {
			n = int(lens[b])
		}
		for j := range p.F {
			at := func(t int) float64 { return x[(b*p.T+t)*p.F+j] }
			if n == 0 {
				continue
			}
			out := at(0)
			for t := 1; t < n; t++ {
				switch p.Kind {
				case device.PoolLast:
					out = at(t)
				case device.PoolMean:
					out += at(t)
				case device.PoolMax:
					out = math.Max(out, at(t))
				}
			}
			if p.Kind == device.PoolMean {
				out /= float64(n)
			}
			y[b*p.F+j] = out
		}
	}
	return y
}

func (s *suite) pool() {
	for kind := device.PoolLast; kind <= device.PoolMax; kind++ {
		for _, size := range [][3]int{{0, 3, 2}, {1, 1, 1}, {4, 6, 5}, {40, 30, 33}} {
			for _, ragged := range []bool{false, true} {
				spec := device.PoolSpec{Kind: kind, B: size[0], T: size[1], F: size[2]}
				name := fmt.Sprintf("kind=%d B=%d T=%d F=%d ragged=%v", kind, spec.B, spec.T, spec.F, ragged)
				n := spec.B * spec.T * spec.F
				x, dy := s.normal(n), s.normal(spec.B*spec.F)
				for i := range x {
					x[i] -= 5 // a padding taken as 0 would win the maximum
				}
				var lens []int32
				if ragged {
					for b := range spec.B {
						lens = append(lens, int32((b*3)%(spec.T+1)))
					}
				}
				spec.Lens = s.ints(lens)
				spec.X, spec.Y, spec.Arg = s.put(x), s.b.Alloc(spec.B*spec.F), s.b.AllocInts(spec.B*spec.F)
				s.b.Pool(&spec)
				s.near(name, s.get(spec.Y), pooled(&spec, lens, wide(x)), 1e-5)

				spec.DY, spec.DX = s.put(dy), s.put(filled(n, 9))
				s.b.PoolGrad(&spec)
				dx := s.get(spec.DX)
				s.gradient(name, dx, x, func(v []float64) float64 { return dot(pooled(&spec, lens, v), dy) }, 1e-5)
				spec.DX, spec.AccX = s.put(filled(n, 2)), true
				s.b.PoolGrad(&spec)
				s.near(name+" acc", s.get(spec.DX), wide(plus(dx, 2)), 1e-6)
			}
		}
	}
	inf, nan := float32(math.Inf(-1)), float32(math.NaN())
	spec := device.PoolSpec{Kind: device.PoolMax, B: 1, T: 3, F: 4, Y: s.b.Alloc(4), Arg: s.b.AllocInts(4),
		X: s.put([]float32{inf, 1, 1, 2, inf, 1, nan, 3, inf, 1, 5, 3})}
	s.b.Pool(&spec)
	s.near("ties, NaN and -Inf", s.get(spec.Y), []float64{math.Inf(-1), 1, math.NaN(), 3}, 0)
	if arg := s.getInts(spec.Arg); fmt.Sprint(arg) != "[0 0 1 1]" {
		s.Errorf("steps chosen %v, want the earliest of equals: [0 0 1 1]", arg)
	}
}
