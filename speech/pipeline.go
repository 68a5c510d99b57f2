package speech

import (
	"math"
	"slices"

	"github.com/carousel-ml/carousel/internal/simd"
)

// Pipeline turns frames of features into input steps of the network: deltas,
// normalisation, stacking. Frames may arrive in pieces; the result does not
// depend on the pieces. It is for one goroutine and one utterance.
type Pipeline struct {
	deltas deltas
	norm   normalizer
	stack  stacker
	tmp    []float32
}

// Write appends to dst the steps that further frames complete. It must not be
// used if normalisation needs the whole utterance.
func (p *Pipeline) Write(dst, frames []float32) []float32 { return p.run(dst, frames, false) }

// Flush appends the last steps to dst.
func (p *Pipeline) Flush(dst []float32) []float32 { return p.run(dst, nil, true) }

func (p *Pipeline) run(dst, frames []float32, end bool) []float32 {
	p.tmp = p.deltas.run(p.tmp[:0], frames, end)
	p.norm.apply(p.tmp)
	return p.stack.run(dst, p.tmp, end)
}

// deltaReach is the number of frames on both sides to which a slope is fitted.
const deltaReach = 2

// deltas adds to each frame the slopes of its features, from a least-squares line
// through five frames, and for order 2 the slopes of the slopes. The first and
// last frames are repeated beyond the ends, as in torchaudio's compute_deltas and
// HTK.
type deltas struct {
	width, order int
	in           []float32 // frames from first on
	first        int
	seen         int
	next         int // the next frame to write
	end          bool
	slopes       []float32
}

func (d *deltas) run(dst, frames []float32, end bool) []float32 {
	if d.order == 0 {
		return append(dst, frames...)
	}
	d.in = append(d.in, frames...)
	d.seen += len(frames) / d.width
	d.end = end
	reach := deltaReach * d.order
	d.slopes = slices.Grow(d.slopes[:0], d.width)[:d.width]
	for ; d.next < d.seen && (end || d.next+reach < d.seen); d.next++ {
		dst = append(dst, d.frame(d.next)...)
		d.slope(d.slopes, d.next)
		dst = append(dst, d.slopes...)
		if d.order > 1 {
			dst = d.curve(dst, d.next)
		}
	}
	if drop := d.next - reach - d.first; drop > 0 {
		d.in = d.in[:copy(d.in, d.in[drop*d.width:])]
		d.first += drop
	}
	return dst
}

// frame returns frame t, or the nearest one.
func (d *deltas) frame(t int) []float32 {
	t = d.within(t) - d.first
	return d.in[t*d.width : (t+1)*d.width]
}

func (d *deltas) within(t int) int { return min(max(t, 0), d.seen-1) }

// slopeScale is Σk² over both sides.
const slopeScale = 2 * (1*1 + 2*2)

// plus returns a + w·b in float32, with zero for subnormal results: features from
// files may be very small.
func plus(a, w, b float32) float32 {
	return simd.Narrow(float64(a) + float64(simd.Narrow(float64(w)*float64(b))))
}

func (d *deltas) slope(out []float32, t int) {
	clear(out)
	for k := 1; k <= deltaReach; k++ {
		after, before := d.frame(t+k), d.frame(t-k)
		for i := range out {
			out[i] = plus(out[i], float32(k)/slopeScale, simd.Narrow(float64(after[i])-float64(before[i])))
		}
	}
}

// curve appends the slope of the slopes.
func (d *deltas) curve(dst []float32, t int) []float32 {
	at := len(dst)
	dst = append(dst, make([]float32, d.width)...)
	out := dst[at:]
	for k := 1; k <= deltaReach; k++ {
		for _, side := range []int{1, -1} {
			d.slope(d.slopes, d.within(t+side*k))
			for i, v := range d.slopes {
				out[i] = plus(out[i], float32(side*k)/slopeScale, v)
			}
		}
	}
	return dst
}

// Statistics are the means and standard deviations of features
// [Width*(Deltas+1)].
type Statistics struct {
	Mean      []float64 `json:"mean"`
	Deviation []float64 `json:"deviation"`
}

// moments sums up statistics.
type moments struct {
	n           float64
	sum, square []float64
}

func newMoments(width int) *moments {
	return &moments{sum: make([]float64, width), square: make([]float64, width)}
}

func (m *moments) add(frame []float32) {
	m.n++
	for i, v := range frame {
		m.sum[i] += float64(v)
		m.square[i] += float64(v) * float64(v)
	}
}

// at returns the mean and the standard deviation of feature i. A constant feature
// has deviation 1, so that it is normalised to 0.
func (m *moments) at(i int) (mean, deviation float64) {
	mean = m.sum[i] / m.n
	variance := m.square[i]/m.n - mean*mean
	if !(variance > 1e-8*(1+mean*mean)) {
		return mean, 1
	}
	return mean, math.Sqrt(variance)
}

func (m *moments) statistics() *Statistics {
	s := &Statistics{}
	for i := range m.sum {
		mean, deviation := m.at(i)
		s.Mean, s.Deviation = append(s.Mean, mean), append(s.Deviation, deviation)
	}
	return s
}

// priorFrames is the weight, in frames, of the training part's statistics in
// running normalisation.
const priorFrames = 100

// normalizer subtracts means and divides by deviations.
type normalizer struct {
	kind    string // as Setup.Normalize
	width   int
	prior   *Statistics
	running *moments
}

// apply normalises frames in place. For kind utterance, frames must be the whole
// utterance.
func (n *normalizer) apply(frames []float32) {
	switch n.kind {
	case "utterance":
		m := newMoments(n.width)
		for f := range slices.Chunk(frames, n.width) {
			m.add(f)
		}
		s := m.statistics()
		for f := range slices.Chunk(frames, n.width) {
			s.apply(f)
		}
	case "global":
		for f := range slices.Chunk(frames, n.width) {
			n.prior.apply(f)
		}
	case "running":
		if n.running == nil {
			n.running = n.prior.moments()
		}
		for f := range slices.Chunk(frames, n.width) {
			n.running.add(f)
			for i, v := range f {
				mean, deviation := n.running.at(i)
				f[i] = simd.Narrow((float64(v) - mean) / deviation)
			}
		}
	}
}

func (s *Statistics) apply(frame []float32) {
	for i, v := range frame {
		frame[i] = simd.Narrow((float64(v) - s.Mean[i]) / s.Deviation[i])
	}
}

// moments returns those of priorFrames frames with these statistics.
func (s *Statistics) moments() *moments {
	m := newMoments(len(s.Mean))
	m.n = priorFrames
	for i, mean := range s.Mean {
		m.sum[i] = priorFrames * mean
		m.square[i] = priorFrames * (s.Deviation[i]*s.Deviation[i] + mean*mean)
	}
	return m
}

// stacker joins size frames into one step, skip frames apart. The last frame is
// repeated if a step reaches past the end, so T frames make ceil(T/skip) steps.
type stacker struct {
	width, size, skip int
	in                []float32 // frames from that of the next step on
}

func (s *stacker) run(dst, frames []float32, end bool) []float32 {
	if s.size == 1 {
		return append(dst, frames...)
	}
	s.in = append(s.in, frames...)
	used := 0
	for {
		have := len(s.in)/s.width - used
		if have <= 0 || have < s.size && !end {
			break
		}
		rest := s.in[used*s.width:]
		n := min(have, s.size)
		dst = append(dst, rest[:n*s.width]...)
		for range s.size - n {
			dst = append(dst, rest[(n-1)*s.width:n*s.width]...)
		}
		used += s.skip
	}
	s.in = s.in[:copy(s.in, s.in[min(used*s.width, len(s.in)):])]
	return dst
}
