package simdtest

import "testing"

var sink float32

// A product below 2^-126 is seen being made, and one read; ordinary numbers are not.
func TestSubnormals(t *testing.T) {
	for _, c := range []struct {
		x, y       float32
		read, made bool
	}{{0.3, 0.7, false, false}, {1e-20, 1e-20, false, true}, {3e-40, 0.5, true, false}, {1e-30, 1.1e-30, false, true}} {
		x, y := c.x, c.y
		read, made := Subnormals(t, func() { sink = x * y })
		if read != c.read && !(made && c.made) || made != c.made && !c.read {
			t.Errorf("%g times %g: read %v, made %v", x, y, read, made)
		}
	}
}
