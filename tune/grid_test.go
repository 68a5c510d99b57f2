package tune

import (
	"slices"
	"testing"
)

// A grid has all values once, in order, and then the study is done.
func TestGrid(t *testing.T) {
	s, err := ParseSpace("s.yaml", `
layers: {low: 1, high: 3, type: int}
cell: {choices: [gru, lstm]}
forget: {low: 0, high: 0.5, step: 0.25, when: cell, is: [lstm]}
constraints: ["layers * forget <= 1"]
`)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"layers=1 cell=gru", "layers=1 cell=lstm forget=0", "layers=1 cell=lstm forget=0.25", "layers=1 cell=lstm forget=0.5",
		"layers=2 cell=gru", "layers=2 cell=lstm forget=0", "layers=2 cell=lstm forget=0.25", "layers=2 cell=lstm forget=0.5",
		"layers=3 cell=gru", "layers=3 cell=lstm forget=0", "layers=3 cell=lstm forget=0.25",
	}
	for _, lag := range []int{0, 3} {
		if got := runAll(t, s, Options{Sampler: "grid", Lag: lag}); !slices.Equal(got, want) {
			t.Errorf("lag %d: got %q", lag, got)
		}
	}
	if got := runAll(t, s, Options{Sampler: "grid", Trials: 5}); !slices.Equal(got, want[:5]) {
		t.Errorf("five trials: got %q", got)
	}
	s.Param("layers").Default, s.Param("cell").Default = 2, "gru"
	if got := runAll(t, s, Options{Sampler: "grid"}); len(got) != len(want) || got[0] != want[4] || !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) {
		t.Errorf("with a default: got %q", got)
	}
	for text, want := range map[string]string{
		"x: {low: 0, high: 1}":              "sampler grid: parameter x has any number from 0 to 1; give it a step",
		"x: {low: 0.1, high: 1, log: true}": "sampler grid: parameter x has a logarithmic range; write its values as choices",
	} {
		s, err := ParseSpace("s.yaml", text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := New(s, Options{Sampler: "grid"}); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}
