package bench

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/carousel-ml/carousel/internal/simd"
)

// The probes do the work they are timed for: the chains have gone through
// every round, and every block has been read.
func TestProbe(t *testing.T) {
	for _, s := range simd.Sets() {
		p := probeOf(s.Name)
		const alpha = 0.5
		for _, rounds := range []int{1, 3, 10} {
			x := 0.0
			for range rounds {
				x = alpha*x + alpha
			}
			chains := float32(p.fma(rounds, alpha)) / float32(x)
			want := map[string]float32{"amx": 24, "avx512bf16": 24, "avx512": 24, "avx2": 12, "generic": 8}[s.Name]
			if chains != want {
				t.Errorf("%d rounds: %g chains, want %g", rounds, chains, want)
			}
		}
		// A long run crosses the assembly calls and settles at alpha/(1-alpha).
		if got := p.fma(probeRounds+50, alpha); got != p.fma(60, alpha) {
			t.Errorf("a long run gives %g", got)
		}

		r := rand.New(rand.NewPCG(3, 4))
		x := make([]float32, 3*probeChunk+5*p.readBlock+7)
		for i := range x {
			x[i] = math.Float32frombits(r.Uint32N(1 << 30)) // no NaN: its bits need not survive
		}
		before := p.read(x)
		whole := len(x) / p.readBlock * p.readBlock
		for at := 0; at < whole; at += 16 { // a first lane of a vector of 8 or 16
			old := x[at]
			x[at] = math.Float32frombits(math.Float32bits(old) ^ 0x155)
			if at%(97*16) == 0 || at > whole-p.readBlock {
				if p.read(x) != before^0x155 {
					t.Fatalf("element %d of %d is not read once", at, whole)
				}
			}
			x[at] = old
		}
		if p.read(x[:p.readBlock-1]) != 0 {
			t.Error("part of a block was read")
		}
	}
}
