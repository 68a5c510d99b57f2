package classify

import (
	"math"
	"path/filepath"
	"testing"

	"github.com/carousel-ml/carousel/internal/cpu"
	"github.com/carousel-ml/carousel/internal/device/forwardtest"
	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

// A task trains, is saved, opened and asked on another device, which shows nobody
// its memory and runs late, and gives the bits of the CPU.
func TestOnAnotherDevice(t *testing.T) {
	cfg := small()
	cfg.Epochs = 3
	list := reviews(120, 1)
	here, _ := fitted(t, cfg, list, nil)
	b := forwardtest.New(cpu.New(simd.Best()))
	dir, dev := filepath.Join(t.TempDir(), "run"), tensor.NewDevice(b)
	there, result := fitted(t, cfg, list, &train.Run{Dir: dir, Device: dev})
	if there.Slab().Device() != dev || here.Slab().Device() != tensor.CPU() {
		t.Fatal("the network is not on the device asked for")
	}
	opened, err := Open(dir, dev)
	if err != nil {
		t.Fatal(err)
	}
	if opened.Slab().Device() != dev {
		t.Fatal("the opened network is not on the device asked for")
	}
	changed, start := false, newNetworkOf(t, here)
	for i, p := range here.Slab().Params {
		want, first := p.Read(), start.Params[i].Read()
		for name, m := range map[string]*Model{"trained": there, "opened": opened} {
			for j, v := range m.Slab().Params[i].Read() {
				changed = changed || want[j] != first[j]
				if math.Float32bits(v) != math.Float32bits(want[j]) {
					t.Fatalf("%s: element %d of %s is %v, on the CPU %v", name, j, p.Name, v, want[j])
				}
			}
		}
	}
	if !changed {
		t.Error("training changed nothing")
	}
	if n := result.Steps; n < 6 {
		t.Errorf("%d steps", n)
	}
	texts := []string{"the film was not lovely", "a dull story"}
	want, err := here.Classify(t.Context(), texts, nil)
	if err != nil {
		t.Fatal(err)
	}
	b.Counts()
	got, err := opened.Classify(t.Context(), texts, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c := b.Counts(); c.Downloads == 0 {
		t.Error("the answers did not come from the device")
	}
	for i := range want {
		if got[i].Label != want[i].Label || got[i].Probability != want[i].Probability {
			t.Errorf("text %d: %v, on the CPU %v", i, got[i], want[i])
		}
	}
}

// newNetworkOf is the parameters that a model of m's settings begins with.
func newNetworkOf(t *testing.T, m *Model) *tensor.Slab {
	t.Helper()
	fresh, err := newModel(m.cfg, m.classes, m.counts, m.tokenizer, nil)
	if err != nil {
		t.Fatal(err)
	}
	return fresh.slab
}
