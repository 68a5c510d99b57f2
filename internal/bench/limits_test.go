package bench

import (
	"math"
	"testing"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/tensor"
)

// The least time is that of the slower of operations and weights, which have a quarter of the bytes in 8 bits and then
// may be found in a nearer cache.
func TestLimits(t *testing.T) {
	s := Shape{Name: "s", T: 1, B: 1, I: 1024, H: 1024, L: 2} // 2^24 weights
	l := &Limits{bytes: 1000, m: Machine{Threads: 2, L2: 1 << 20, L3: 32 << 20, Rates: []Rate{{Threads: 2, Peak: 100, L2: 400, L3: 64, Memory: 16}}}}
	wide := s
	wide.B = 1024
	for _, c := range []struct {
		shape Shape
		p     tensor.Precision
		ms    float64
		by    string
	}{
		{s, tensor.Float32, 1e3 * (1 << 26) / 16e9, "memory"},
		{s, tensor.Int8, 1e3 * (1 << 24) / 64e9, "l3"},
		{wide, tensor.Float32, 1e3 * (1 << 35) / 100e9, "fma"},
		{wide, tensor.Int8, 1e3 * (1 << 35) / 1000e9, "int8"},
	} {
		if ms, by := l.Forward(c.shape, cell.LSTM, c.p); math.Abs(ms/c.ms-1) > 1e-9 || by != c.by {
			t.Errorf("%d rows, %v: %g ms by %s, want %g by %s", c.shape.B, c.p, ms, by, c.ms, c.by)
		}
	}
	if testing.Short() {
		return
	}
	l = NewLimits(1, []Shape{s})
	l.Measure()
	before, first := l.Rates()
	l.Measure()
	if r, bytes := l.Rates(); !(first > 0 && bytes >= first && r.Peak >= before.Peak && r.Memory >= before.Memory && before.Memory > 0) {
		t.Errorf("measured %+v and %g, then %+v and %g", before, first, r, bytes)
	}
}
