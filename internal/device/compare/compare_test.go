package compare_test

import (
	"math"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/internal/cpu"
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/device/compare"
	"github.com/carousel-ml/carousel/internal/device/forwardtest"
	"github.com/carousel-ml/carousel/internal/simd"
)

func all(reference, b device.Backend) (list []compare.Result) {
	compare.Devices(reference, b, 0, func(r compare.Result) { list = append(list, r) })
	return list
}

// Kernel sets of this machine agree, and a set agrees with itself to the bit, also where it
// runs later.
func TestKernelSetsAgree(t *testing.T) {
	generic, err := simd.Named("generic")
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range simd.Sets() {
		for _, r := range all(cpu.New(generic), cpu.New(set)) {
			if !r.OK() {
				t.Errorf("%s: %+v", set.Name, r)
			}
			t.Logf("%s: %s %.2g", set.Name, r.Operation, r.Difference)
		}
	}
	best := cpu.New(simd.Best())
	results := all(best, forwardtest.New(best))
	if len(results) < 50 {
		t.Errorf("only %d operations", len(results))
	}
	for _, r := range results {
		if r.Error != "" || r.Difference != 0 {
			t.Errorf("forwarded: %+v", r)
		}
	}
}

// wrong computes three operations wrongly.
type wrong struct{ device.Backend }

func (w wrong) SumRows(dst, src device.Buffer, rows, cols, ld int, acc bool) {
	w.Backend.SumRows(dst, src, rows-1, cols, ld, acc)
}

func (w wrong) Lerp(dst, src device.Buffer, _ float32) { w.Fill(dst, float32(math.NaN())) }

func (w wrong) CRF(*device.CRFSpec) { panic(&device.Error{Device: "cuda:0", Text: "lost\nand gone"}) }

func TestFaultsAreFound(t *testing.T) {
	b := cpu.New(simd.Best())
	found := map[string]compare.Result{}
	for _, r := range all(b, wrong{b}) {
		if !r.OK() {
			found[r.Operation] = r
		}
	}
	if r := found["column sums"]; r.Error != "" || r.Difference < 1e-3 {
		t.Errorf("column sums: %+v", r)
	}
	if r := found["moving average"]; !math.IsInf(r.Difference, 1) {
		t.Errorf("not a number: %+v", r)
	}
	if r := found["CRF"]; r.Error != "cuda:0: lost and gone" {
		t.Errorf("a failure: %+v", r)
	}
	if len(found) != 3 {
		for name := range found {
			t.Log(name)
		}
		t.Errorf("%d operations are found faulty, want 3", len(found))
	}
	if strings.Contains(found["CRF"].Error, "\n") {
		t.Error("an error of two lines")
	}
}
