package device

import "testing"

func TestDecimal(t *testing.T) {
	for _, x := range []float64{0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 0.9995, 0.9999, 0.99999} {
		if got := decimal(float32(x)); got != x {
			t.Errorf("decimal(float32(%v)) = %v", x, got)
		}
	}
}
