//go:build dl && linux

package cuda

import (
	"fmt"
	"testing"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/device/devicetest"
)

func TestScanForward(t *testing.T)  { devicetest.Run(t, emulated(t, Options{}), "ScanForward") }
func TestScanGradient(t *testing.T) { devicetest.Run(t, emulated(t, Options{}), "ScanGradient") }
func TestScanLaws(t *testing.T)     { devicetest.Run(t, emulated(t, Options{}), "ScanLaws") }
func TestScanGains(t *testing.T)    { devicetest.Run(t, emulated(t, Options{}), "ScanGains") }

// TestScanMemory runs scans whose plans have more or less shared memory: no bit may differ.
func TestScanMemory(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range []struct {
		kind   cell.Kind
		h      int
		rounds device.Kind
	}{{cell.LSTM, 72, device.F32}, {cell.LSTM, 136, device.BF16}, {cell.GRUBefore, 40, device.BF16}} {
		b := emulated(t, Options{Deterministic: true})
		own := b.limits.shared
		var want [][]float32
		for _, shared := range []int{own, 100 << 10, 60 << 10, 40 << 10, 0} {
			r := newRig(b)
			s := r.scan(c.kind, 3, 20, 5, c.h)
			s.Kinds[cell.R] = c.rounds
			s.DY = r.normal(s.Y.N)
			s.Work = r.Alloc(b.ScanWork(s))
			b.scanPlans = map[planKey]*scanPlan{}
			b.enter()
			for _, back := range []bool{false, true} {
				key := b.newScan(s, back).products()
				var p *scanPlan
				for b.limits.shared = shared; p == nil; b.limits.shared += 1 << 10 { // the least that is enough
					p = b.planOf(&key, 2, 2, c.h/2, 16, 8)
				}
				b.scanPlans[key] = p
				seen[fmt.Sprint("kept ", p.slices[0] >= 0)], seen[fmt.Sprint("held ", p.held[0])], seen[fmt.Sprint("tiles ", p.tiles > 1)] = true, true, true
			}
			b.limits.shared = own
			b.leave()
			b.Scan(s)
			b.ScanGrad(s)
			got := [][]float32{get(b, s.Y), get(b, s.HN), get(b, s.Grads[cell.W]), get(b, s.Grads[cell.R]), get(b, s.Grads[cell.H0])}
			for i := range got {
				if want != nil && !equalBits(got[i], want[i]) {
					t.Errorf("%v with %d bytes: result %d differs", c.kind, shared, i)
				}
			}
			want = got
		}
	}
	if len(seen) != 6 {
		t.Errorf("plans with and without all were wanted, got %v", seen)
	}
}
