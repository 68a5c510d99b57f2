package settings

import "testing"

func TestNearest(t *testing.T) {
	names := []string{"train", "evaluate", "predict", "backtest", "inspect", "min-lr"}
	for got, want := range map[string]string{
		"trian": "train", "Train": "train", "evalute": "evaluate", "back": "backtest",
		"min_lr": "min-lr", "serve": "", "x": "", "inspct": "inspect",
	} {
		if s := Nearest(got, names); s != want {
			t.Errorf("Nearest(%q) = %q, want %q", got, s, want)
		}
	}
}

func TestSlips(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "abc", 3}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"abc", "ab", 1}, {"abc", "xbc", 1}, {"kitten", "sitting", 3}} {
		if got := slips(tt.a, tt.b); got != tt.want {
			t.Errorf("slips(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}
