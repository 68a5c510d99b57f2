package devicetest

import (
	"fmt"
	"math"

	"github.com/carousel-ml/carousel/internal/device"
)

// chain is a CRF by its definition, in float64: [K,K] from row to column, then
// [K] start and end, then the scores [B,T,K].
type chain struct {
	b, t, k int
	lens    []int32
	tags    []int32
}

func (c *chain) split(v []float64) (trans, start, end, scores []float64) {
	k := c.k
	return v[:k*k], v[k*k : k*k+k], v[k*k+k : k*k+2*k], v[k*k+2*k:]
}

// score is the unnormalised log-probability of the tags y of row b.
func (c *chain) score(v []float64, b int, y []int32) float64 {
	trans, start, end, scores := c.split(v)
	sum := start[y[0]] + end[y[len(y)-1]]
	for t, j := range y {
		sum += scores[(b*c.t+t)*c.k+int(j)]
		if t > 0 {
			sum += trans[int(y[t-1])*c.k+int(j)]
		}
	}
	return sum
}

// value is the mean negative log-likelihood, by going through every sequence of tags.
func (c *chain) value(v []float64) float64 {
	var sum, steps float64
	for b, n := range c.lens {
		if n == 0 {
			continue
		}
		y := make([]int32, n)
		var all []float64
		for at := 0; at < len(y); {
			all = append(all, c.score(v, b, y))
			for at = 0; at < len(y); at++ {
				if y[at]++; int(y[at]) < c.k {
					break
				}
				y[at] = 0
			}
		}
		top := math.Inf(-1)
		for _, s := range all {
			top = math.Max(top, s)
		}
		var z float64
		for _, s := range all {
			z += math.Exp(s - top)
		}
		sum += top + math.Log(z) - c.score(v, b, c.tags[b*c.t:b*c.t+int(n)])
		steps += float64(n)
	}
	return sum / math.Max(steps, 1)
}

// spec puts v on the device, with NaN and wrong tags where nothing may be read.
func (c *chain) spec(s *suite, v []float32) device.CRFSpec {
	k := c.k
	scores, tags := append([]float32(nil), v[k*k+2*k:]...), append([]int32(nil), c.tags...)
	for b, n := range c.lens {
		for t := int(n); t < c.t; t++ {
			tags[b*c.t+t] = -7
			for j := range k {
				scores[(b*c.t+t)*k+j] = float32(math.NaN())
			}
		}
	}
	return device.CRFSpec{
		B: c.b, T: c.t, K: k, Scores: s.put(scores), Trans: s.put(v[:k*k]), Start: s.put(v[k*k : k*k+k]), End: s.put(v[k*k+k : k*k+2*k]),
		Lens: s.ints(c.lens), Tags: s.ints(tags), Value: s.put([]float32{9}),
		DScores: s.put(filled(len(scores), 9)), DTrans: s.put(filled(k*k, 9)), DStart: s.put(filled(k, 9)), DEnd: s.put(filled(k, 9)),
	}
}

// gradients are those of spec in the order of chain.split.
func (s *suite) crfGradients(spec *device.CRFSpec) []float32 {
	var d []float32
	for _, b := range []device.Buffer{spec.DTrans, spec.DStart, spec.DEnd, spec.DScores} {
		d = append(d, s.get(b)...)
	}
	return d
}

func (s *suite) crf() {
	for _, size := range [][3]int{{1, 1, 1}, {1, 5, 2}, {3, 4, 3}, {2, 3, 17}, {4, 1, 60}, {5, 6, 5}} {
		for _, spread := range []float32{0.1, 1, 40} {
			c := &chain{b: size[0], t: size[1], k: size[2]}
			for b := range c.b {
				c.lens = append(c.lens, int32((c.t+b)%(c.t+1)))
				for range c.t {
					c.tags = append(c.tags, int32(s.rnd.IntN(c.k)))
				}
			}
			c.lens[0] = int32(c.t)
			v := s.scaled(c.k*c.k+2*c.k+c.b*c.t*c.k, spread)
			name := fmt.Sprintf("B=%d T=%d K=%d spread %v", c.b, c.t, c.k, spread)
			spec := c.spec(s, v)
			s.b.CRF(&spec)
			s.near(name, s.get(spec.Value), []float64{c.value(wide(v))}, 1e-5)
			d := s.crfGradients(&spec)
			s.gradient(name, d, v, c.value, 2e-5)
			for b, n := range c.lens {
				at := c.k*c.k + 2*c.k + b*c.t*c.k
				s.near(name+" past the end", d[at+int(n)*c.k:at+c.t*c.k], make([]float64, (c.t-int(n))*c.k), 0)
			}
			value := s.get(spec.Value)
			spec.DScores, spec.DTrans, spec.DStart, spec.DEnd = device.Buffer{}, device.Buffer{}, device.Buffer{}, device.Buffer{}
			s.b.CRF(&spec)
			s.same(name+" without gradient", s.get(spec.Value), value)
		}
	}
	s.crfForbidden()
	s.crfLong()
	s.crfAlone()
	empty := device.CRFSpec{B: 2, T: 3, K: 4, Scores: s.b.Alloc(24), Trans: s.b.Alloc(16), Lens: s.ints([]int32{0, 0}), Tags: s.ints(make([]int32, 6)),
		Value: s.put([]float32{9}), DScores: s.put(filled(24, 9)), DTrans: s.put(filled(16, 9))}
	s.b.CRF(&empty)
	s.near("no step", append(append(s.get(empty.Value), s.get(empty.DScores)...), s.get(empty.DTrans)...), make([]float64, 41), 0)
}

// crfForbidden has transitions, a start and an end of -Inf, also into a tag that nothing can reach.
func (s *suite) crfForbidden() {
	c := &chain{b: 2, t: 4, k: 4, lens: []int32{4, 2}, tags: []int32{0, 1, 2, 0, 2, 0, 0, 0}}
	v := s.scaled(16+8+32, 1)
	inf := float32(math.Inf(-1))
	for _, i := range []int{0*4 + 2, 0*4 + 3, 1*4 + 3, 2*4 + 3, 3*4 + 3, 16 + 1, 20 + 3} {
		v[i] = inf
	}
	spec := c.spec(s, v)
	s.b.CRF(&spec)
	s.near("forbidden", s.get(spec.Value), []float64{c.value(wide(v))}, 1e-5)
	d := s.crfGradients(&spec)
	for i, x := range v {
		if x == inf {
			s.near("gradient of what is forbidden", d[i:i+1], []float64{0}, 0)
			v[i], d[i] = -200, 0 // where differences can be taken
		}
	}
	s.gradient("forbidden", d, v, c.value, 2e-5)
}

// crfLong is a chain whose transitions tell nothing, so that each step is a
// softmax by itself: 20,000 of them lose no precision.
func (s *suite) crfLong() {
	const n, k = 20000, 3
	scores := plus(s.scaled(n*k, 3), 50)
	tags := make([]int32, n)
	var sum float64
	want := make([]float64, n*k)
	for t := range n {
		tags[t] = int32(s.rnd.IntN(k))
		var z float64
		for _, x := range scores[t*k : (t+1)*k] {
			z += math.Exp(float64(x) - 50)
		}
		sum += math.Log(z) - float64(scores[t*k+int(tags[t])]) + 50
		for j := range k {
			want[t*k+j] = math.Exp(float64(scores[t*k+j])-50) / z
		}
		want[t*k+int(tags[t])]--
	}
	spec := device.CRFSpec{B: 1, T: n, K: k, Scores: s.put(scores), Trans: s.put(filled(k*k, 2)), Tags: s.ints(tags), Value: s.b.Alloc(1), DScores: s.b.Alloc(n * k)}
	s.b.CRF(&spec)
	s.near("long", s.get(spec.Value), []float64{sum / n}, 1e-6)
	d := s.get(spec.DScores)
	for i := range d {
		d[i] *= n
	}
	s.near("long gradient", d, want, 2e-5)
}

// crfAlone holds a row's bits to those it has among other rows and other padding.
func (s *suite) crfAlone() {
	const k = 9
	c := &chain{b: 3, t: 11, k: k, lens: []int32{4, 11, 0}}
	for range c.b * c.t {
		c.tags = append(c.tags, int32(s.rnd.IntN(k)))
	}
	v := s.normal(k*k + 2*k + c.b*c.t*k)
	spec := c.spec(s, v)
	s.b.CRF(&spec)
	for b, n := range c.lens[:2] {
		at := k*k + 2*k + b*c.t*k
		// A gradient is that of the mean over all steps, so the other row must be as long as before.
		other := c.lens[1-b]
		pair := device.CRFSpec{B: 2, T: int(max(n, other)), K: k, Trans: spec.Trans, Start: spec.Start, End: spec.End, Lens: s.ints([]int32{n, other}), Value: s.b.Alloc(1)}
		tags := make([]int32, 2*pair.T)
		copy(tags, c.tags[b*c.t:b*c.t+int(n)])
		scores := make([]float32, 2*pair.T*k)
		copy(scores, v[at:at+int(n)*k])
		pair.Tags = s.ints(tags)
		pair.Scores, pair.DScores = s.put(scores), s.b.Alloc(len(scores))
		s.b.CRF(&pair)
		s.same(fmt.Sprintf("row %d among others", b), s.get(pair.DScores)[:int(n)*k], s.get(spec.DScores)[b*c.t*k:][:int(n)*k])
	}
}
