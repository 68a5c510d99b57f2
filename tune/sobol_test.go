package tune

import (
	"context"
	"fmt"
	"math"
	"testing"
)

// Point 1000 in 64 dimensions, in the order of Gray's code, in 1/1024, is as scipy.stats.qmc.Sobol has it.
func TestSobolNumbers(t *testing.T) {
	want := []uint32{225, 99, 531, 693, 287, 929, 47, 921, 513, 71, 87, 261, 165, 393, 147, 379, 737, 353, 1015, 743, 535, 563, 973, 553, 597, 929, 41, 1003, 61, 349, 151, 149, 303, 607, 821, 789, 869, 851, 315, 491, 935, 261, 983, 719, 861, 95, 893, 941, 1023, 491, 361, 529, 771, 449, 129, 913, 465, 81, 905, 585, 457, 617, 265, 457}
	if len(directions) != len(want) {
		t.Fatal(len(directions))
	}
	for j := range want {
		if got := sobolBits(1000^1000>>1, j); got != want[j]<<22 {
			t.Errorf("dimension %d: got %d, want %d/1024", j, got, want[j])
		}
	}
}

// Scrambled points of the first two dimensions still have one point in every box of 1/2^a by 1/2^b,
// a+b = 8, of their first 256, and other seeds have other points.
func TestSobolScramble(t *testing.T) {
	for seed := range uint64(5) {
		for a := range 9 {
			boxes := map[[2]int]bool{}
			for n := range uint32(256) {
				x, y := sobolAt(seed, n, 0), sobolAt(seed, n, 1)
				boxes[[2]int{int(math.Ldexp(x, a)), int(math.Ldexp(y, 8-a))}] = true
			}
			if len(boxes) != 256 {
				t.Errorf("seed %d, boxes of 2^-%d by 2^-%d: %d of 256 have a point", seed, a, 8-a, len(boxes))
			}
		}
		if seed > 0 && sobolAt(seed, 0, 0) == sobolAt(seed-1, 0, 0) {
			t.Error("two seeds have the same point")
		}
	}
}

// runAll runs a study that needs no losses, and returns the values of its trials as texts.
func runAll(t *testing.T, s *Space, o Options) (list []string) {
	t.Helper()
	study, err := New(s, o)
	if err == nil {
		err = study.Run(t.Context(), func(_ context.Context, trial *Trial) ([]float64, error) {
			list = append(list, s.text(trial.Values))
			return []float64{0}, nil
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// A study by sobol is Sobol's points, those left out that break a constraint, whatever else is used.
func TestSobolStudy(t *testing.T) {
	s, err := ParseSpace("s.yaml", `
x: {low: 0, high: 1}
kind: {choices: [a, b]}
y: {low: 0, high: 1, when: kind, is: [a]}
z: {low: 0, high: 1}
constraints: ["x + z <= 1"]
`)
	if err != nil {
		t.Fatal(err)
	}
	got := runAll(t, s, Options{Trials: 50, Sampler: "sobol", Seed: 4})
	var want []string
	for n := uint32(0); len(want) < 50; n++ {
		x, z := sobolAt(4, n, 0), sobolAt(4, n, 3)
		text := fmt.Sprintf("x=%s kind=b z=%s", number(x), number(z))
		if sobolAt(4, n, 1) < .5 {
			text = fmt.Sprintf("x=%s kind=a y=%s z=%s", number(x), number(sobolAt(4, n, 2)), number(z))
		}
		if x+z <= 1 {
			want = append(want, text)
		}
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("trial %d: got %s, want %s", i, got[i], want[i])
		}
	}
}
