package train

import "testing"

// A short run averages over at most a tenth of its steps.
func TestAverageFitsRun(t *testing.T) {
	s := DefaultSettings()
	s.EMA, s.Epochs = 0.998, 10
	for batches, want := range map[int]float64{1: 0, 10: 0.9, 100: 0.99, 1000: 0.998} {
		if o := s.Options(batches, &Run{}); o.EMA != want {
			t.Errorf("%d steps: a decay of %v, want %v", 10*batches, o.EMA, want)
		}
	}
}
