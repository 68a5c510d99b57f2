package inference

import (
	"math"
	"math/big"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
)

// floatsToTry calls try with every exponent, the mantissas near its ends and random
// ones, numbers with few digits, and numbers as networks give them.
func floatsToTry(n int, try func(float32)) {
	r := rand.New(rand.NewPCG(3, 1))
	for exp := range uint32(256) {
		for _, frac := range []uint32{0, 1, 2, 3, 1<<22 - 1, 1 << 22, 1<<22 + 1, 1<<23 - 2, 1<<23 - 1, r.Uint32() >> 9, r.Uint32() >> 9} {
			try(math.Float32frombits(exp<<23 | frac))
			try(math.Float32frombits(1<<31 | exp<<23 | frac))
		}
	}
	for range n {
		try(math.Float32frombits(r.Uint32()))
		try(float32(r.NormFloat64()))
		try(float32(r.IntN(1e5)) / float32(pow10[r.IntN(8)]))
		try(float32(r.IntN(1<<25)) / 2)
	}
}

// TestAppendFloat32 compares with strconv: the same number where that has fewer than
// eight digits before its point, and always one that reads back as the same bits.
func TestAppendFloat32(t *testing.T) {
	n := 80_000
	if testing.Short() {
		n = 8_000
	}
	floatsToTry(n, func(f float32) {
		got := string(appendFloat32(nil, f))
		if f-f != 0 {
			if got != "null" {
				t.Fatalf("%v is written as %s", f, got)
			}
			return
		}
		back, err := strconv.ParseFloat(got, 32)
		if err != nil || math.Float32bits(float32(back)) != math.Float32bits(f) {
			t.Fatalf("%b is written as %s, which reads back as %b (%v)", f, got, float32(back), err)
		}
		if scanned := scanNumber([]byte(got), 0); scanned.end != len(got) {
			t.Fatalf("%b is written as %s, which is no JSON", f, got)
		}
		want := strconv.FormatFloat(float64(f), 'g', -1, 32)
		a, _, _ := big.ParseFloat(got, 10, 200, big.ToNearestEven)
		b, _, _ := big.ParseFloat(want, 10, 200, big.ToNearestEven)
		if a.Cmp(b) != 0 && (math.Abs(float64(f)) < 1e7 || len(got) > len(want)) {
			t.Fatalf("%b is written as %s, expected the number %s", f, got, want)
		}
	})
}

// TestNumbers compares reading with strconv, on numbers in many notations and on those
// in the middle of two float32 and beside it, where rounding twice goes wrong.
func TestNumbers(t *testing.T) {
	check := func(text string) {
		t.Helper()
		b := []byte(text + ",")
		n := scanNumber(b, 0)
		if n.end != len(text) {
			t.Fatalf("%s ends at %d", text, n.end)
		}
		got, ok := n.float32(b, 0)
		want, err := strconv.ParseFloat(text, 32)
		if ok != (err == nil) || ok && math.Float32bits(got) != math.Float32bits(float32(want)) {
			t.Fatalf("%s is %b (%v), expected %b (%v)", text, got, ok, float32(want), err)
		}
		double, ok := n.float64(b, 0)
		want, err = strconv.ParseFloat(text, 64)
		if ok != (err == nil) || ok && math.Float64bits(double) != math.Float64bits(want) {
			t.Fatalf("%s is %b (%v), expected %b (%v)", text, double, ok, want, err)
		}
	}
	for _, text := range strings.Fields(`0 -0 0.0 -0.0e5 1 10 0.1 1e5 1E+05 1e-5 0e999999999999 1e-999999999999 1e999999999999 -1e400 1e39 3.4028235e38
		3.4028236e38 3.4028235677973366e38 1e-45 7e-46 1.17549435e-38 9007199254740993 9007199254740992 18446744073709551615 18446744073709551616
		12345678901234567890123456789 0.00000000000000000000000000000000000012345678901234567890 0.1234567890123456789 0.12345678901234567891
		1234567890.1234567891 00000001.5e0`) {
		if strings.HasPrefix(text, "00") {
			if n := scanNumber([]byte(text), 0); n.end != 0 {
				t.Errorf("%s is a number", text)
			}
			continue
		}
		check(text)
	}
	n := 10_000
	if testing.Short() {
		n = 1_000
	}
	r := rand.New(rand.NewPCG(5, 5))
	floatsToTry(n, func(f float32) {
		if f-f != 0 {
			return
		}
		for _, bits := range []int{32, 64} {
			check(strconv.FormatFloat(float64(f), 'g', -1, bits))
			check(strconv.FormatFloat(float64(f), 'f', r.IntN(12), bits))
			check(strconv.FormatFloat(float64(f), 'e', r.IntN(25), bits))
		}
		// The middle of f and the next float32, exactly, and the float64 around it.
		middle := (float64(f) + float64(math.Nextafter32(f, math.MaxFloat32))) / 2
		for _, x := range []float64{middle, math.Nextafter(middle, 0), math.Nextafter(middle, 1e300)} {
			exact := new(big.Float).SetFloat64(x).Text('f', -1)
			if !strings.Contains(exact, ".") {
				exact += ".0"
			}
			check(exact)
			check(exact + "00000000000000000001")
			check(strconv.FormatFloat(x, 'e', 17, 64))
		}
	})
	for _, text := range []string{"", "-", "+1", ".5", "1.", "-.5", "1e", "1e+", "01", "--1", "e5", "-e", "/", ":"} {
		if n := scanNumber([]byte(text), 0); n.end == len(text) && len(text) > 0 {
			t.Errorf("%q is a number", text)
		}
	}
	for _, c := range []struct {
		text string
		d    Datatype
		want int64
		ok   bool
	}{
		{"-128", INT8, -128, true}, {"-129", INT8, 0, false}, {"128", INT8, 0, false}, {"255", UINT8, 255, true}, {"-1", UINT8, 0, false}, {"-0", UINT8, 0, true},
		{"65535", UINT16, 65535, true}, {"65536", UINT16, 0, false}, {"4294967295", UINT32, math.MaxUint32, true}, {"4294967296", UINT32, 0, false},
		{"9223372036854775807", INT64, math.MaxInt64, true}, {"9223372036854775808", INT64, 0, false}, {"-9223372036854775808", INT64, math.MinInt64, true},
		{"-9223372036854775809", INT64, 0, false}, {"18446744073709551615", UINT64, -1, true}, {"18446744073709551616", UINT64, 0, false}, {"-1", UINT64, 0, false},
		{"-0", UINT64, 0, true}, {"1.0", INT32, 0, false}, {"1e3", INT32, 0, false}, {"99999999999999999999999", INT64, 0, false}, {"2", BOOL, 0, false},
	} {
		n := scanNumber([]byte(c.text), 0)
		if x, ok := n.integer([]byte(c.text), 0, c.d); ok != c.ok || ok && x != c.want {
			t.Errorf("%s as %s: %d, %v, expected %d, %v", c.text, c.d, x, ok, c.want, c.ok)
		}
	}
}
