package translate

import "testing"

// The plan of a small corpus has enough steps to learn it, and that of a large one
// few passes.
func TestPlanBySize(t *testing.T) {
	for _, c := range []struct{ tokens, batch, epochs int }{
		{500, 150, 250},      // 4 steps per epoch
		{4_200, 262, 58},     // 17
		{100_000, 1500, 40},  // 67
		{400_000, 1500, 22},  // 267
		{9_000_000, 1500, 3}, // 6,000
	} {
		cfg := Defaults()
		cfg.settle(c.tokens)
		if cfg.BatchTokens != c.batch || cfg.Epochs != c.epochs {
			t.Errorf("%d tokens: %d per step and %d epochs, want %d and %d", c.tokens, cfg.BatchTokens, cfg.Epochs, c.batch, c.epochs)
		}
	}
}
