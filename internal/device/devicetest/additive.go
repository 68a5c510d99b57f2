package devicetest

import (
	"fmt"
	"math"

	"github.com/carousel-ml/carousel/internal/device"
)

// added is the definition of AdditiveSpec in float64; without cover w is nil.
func added(s *device.AdditiveSpec, lens []int32, query, key, v, cover, w []float64) []float64 {
	out := make([]float64, s.B*s.Q*s.T)
	for i := range out {
		b, q, t := i/s.Q/s.T, i/s.T, i%s.T
		if lens != nil && t >= int(lens[b]) {
			continue
		}
		for u := range s.U {
			x := query[q*s.U+u] + key[(b*s.T+t)*s.U+u]
			if w != nil {
				x += cover[i] * w[u]
			}
			out[i] += v[u] * math.Tanh(x)
		}
	}
	return out
}

func (s *suite) additive() {
	for _, size := range [][4]int{{0, 2, 3, 4}, {1, 1, 1, 1}, {3, 2, 5, 7}, {4, 6, 3, 33}, {2, 1, 40, 130}} {
		for _, covered := range []bool{false, true} {
			B, Q, T, U := size[0], size[1], size[2], size[3]
			name := fmt.Sprintf("B=%d Q=%d T=%d U=%d cover=%v", B, Q, T, U, covered)
			query, key, v, d := s.normal(B*Q*U), s.normal(B*T*U), s.normal(U), s.normal(B*Q*T)
			spec := device.AdditiveSpec{B: B, Q: Q, T: T, U: U, Query: s.put(query), Key: s.put(key), V: s.put(v), Score: s.put(filled(B*Q*T, 9))}
			var lens []int32
			if T > 2 {
				for b := range B {
					lens = append(lens, int32((b*3)%(T+1))) // begins with an empty row
				}
			}
			spec.Lens = s.ints(lens)
			var cover, w []float32
			var w64 []float64
			if covered {
				cover, w = s.normal(B*Q*T), s.normal(U)
				spec.Cover, spec.W, w64 = s.put(cover), s.put(w), wide(w)
			}
			s.b.Additive(&spec)
			s.near(name, s.get(spec.Score), added(&spec, lens, wide(query), wide(key), wide(v), wide(cover), w64), 2e-5)

			spec.DScore = s.put(d)
			for _, g := range []struct {
				to *device.Buffer
				n  int
			}{{&spec.DQuery, B * Q * U}, {&spec.DKey, B * T * U}, {&spec.DV, U}, {&spec.DCover, len(cover)}, {&spec.DW, len(w)}} {
				if g.n > 0 {
					*g.to = s.put(filled(g.n, 1)) // gradients accumulate
				}
			}
			s.b.AdditiveGrad(&spec)
			check := func(what string, to device.Buffer, x []float32, f func(x []float64) []float64) {
				if len(x) > 0 {
					s.gradient(name+" "+what, plus(s.get(to), -1), x, func(x []float64) float64 { return dot(f(x), d) }, 2e-4)
				}
			}
			check("dquery", spec.DQuery, query, func(x []float64) []float64 { return added(&spec, lens, x, wide(key), wide(v), wide(cover), w64) })
			check("dkey", spec.DKey, key, func(x []float64) []float64 { return added(&spec, lens, wide(query), x, wide(v), wide(cover), w64) })
			check("dv", spec.DV, v, func(x []float64) []float64 { return added(&spec, lens, wide(query), wide(key), x, wide(cover), w64) })
			check("dcover", spec.DCover, cover, func(x []float64) []float64 { return added(&spec, lens, wide(query), wide(key), wide(v), x, w64) })
			check("dw", spec.DW, w, func(x []float64) []float64 {
				return added(&spec, lens, wide(query), wide(key), wide(v), wide(cover), x)
			})
		}
	}
}
