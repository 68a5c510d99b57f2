//go:build amd64 && !purego

package simd

import "testing"

// Products of pairs come before those of float32 only where they are faster, and every
// measurement says the same: a choice that changed from one start to the next would change bits.
func TestDotChoice(t *testing.T) {
	place := map[string]int{}
	for i, set := range Sets() {
		place[set.Name] = i + 1
	}
	if place["avx512bf16"] == 0 {
		t.Skip("this processor does not multiply pairs of bfloat16 numbers")
	}
	chosen := place["avx512bf16"] < place["avx512"]
	for range 20 {
		if share := dotShare(); (share < dotPays) != chosen {
			t.Errorf("products of pairs take %.2f of float32's time, but their choice was %v", share, chosen)
		}
	}
	t.Logf("products of pairs take %.2f of float32's time", dotShare())
}
