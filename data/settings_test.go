package data

import (
	"errors"
	"math"
	"testing"
)

func TestSettings(t *testing.T) {
	cause := errors.New("cell: want lstm, got gnu")
	if err := Setting(cause); !errors.Is(err, cause) {
		t.Errorf("%v lost its cause", err)
	}
	for _, c := range []struct {
		err  error
		want string
	}{
		{OneOf("pool", "max", []string{"max", "mean"}), ""},
		{OneOf("format", "", []string{"", "table", "lines"}), ""},
		{OneOf("format", "csv", []string{"", "table", "lines"}), `format: want table, lines, got "csv"`},
		{OneOf("pool", "", []string{"max", "mean"}), `pool: want max, mean, got ""`},
		{Between("dropout", 0.99, 0, 0.99), ""},
		{Between("rate", 7.5, 0, math.Inf(1)), ""},
		{Between("dropout", 1, 0, 0.99), "dropout: want a number from 0 to 0.99, got 1"},
		{Between("layers", -1, 0, 1e6), "layers: want a number from 0 to 1000000, got -1"},
		{Between("clip", math.NaN(), 0, math.Inf(1)), "clip: want 0 or more, got NaN"},
		{Setting(nil), ""},
		{Setting(cause), cause.Error()},
	} {
		var input *InputError
		switch {
		case c.want == "" && c.err != nil:
			t.Error(c.err)
		case c.want != "" && (!errors.As(c.err, &input) || c.err.Error() != c.want):
			t.Errorf("got %v, want %s", c.err, c.want)
		}
	}
}
