package graph

import (
	"fmt"
	"strings"
	"testing"
)

// vector declares a value of float32.
func vector(name string, dims ...int) ValueInfo {
	v := ValueInfo{Name: name, Type: "float32"}
	for _, d := range dims {
		v.Dims = append(v.Dims, Dim{Size: d})
	}
	return v
}

func TestStatePairs(t *testing.T) {
	free := -1
	for _, c := range []struct {
		in, out []ValueInfo
		given   map[string]string
		want    string // the pairs, or a part of the error
	}{
		// Silero, faster-whisper's Silero, and forms of other exporters.
		{in: []ValueInfo{vector("input", free, free), vector("state", 2, free, 128), vector("sr")}, out: []ValueInfo{vector("output", free, 1), vector("stateN", free, free, free)}, want: "[{state stateN}]"},
		{in: []ValueInfo{vector("input", free, 576), vector("h", 1, 1, 128), vector("c", 1, 1, 128)}, out: []ValueInfo{vector("speech_probs", free), vector("hn", 1, free, 128), vector("cn", 1, free, 128)}, want: "[{h hn} {c cn}]"},
		{in: []ValueInfo{vector("x", 3), vector("h0", 2), vector("c0", 2)}, out: []ValueInfo{vector("y", 3), vector("cn", 2), vector("hn", 2)}, want: "[{h0 hn} {c0 cn}]"},
		{in: []ValueInfo{vector("state_in", 2)}, out: []ValueInfo{vector("state_out", 2)}, want: "[{state_in state_out}]"},
		{in: []ValueInfo{vector("cached_key_1", 2), vector("cached_key_0", 2)}, out: []ValueInfo{vector("new_cached_key_0", 2), vector("new_cached_key_1", 2)}, want: "[{cached_key_1 new_cached_key_1} {cached_key_0 new_cached_key_0}]"},
		{in: []ValueInfo{vector("past_key_values.0.key", 2)}, out: []ValueInfo{vector("present_key_values.0.key", 2)}, want: "[{past_key_values.0.key present_key_values.0.key}]"},
		{in: []ValueInfo{vector("inStates", 2)}, out: []ValueInfo{vector("outStates", 2)}, want: "[{inStates outStates}]"},
		// Names alone, shapes alone and numbers are not enough.
		{in: []ValueInfo{vector("h", 2)}, out: []ValueInfo{vector("hn", 3)}, want: "[]"},
		{in: []ValueInfo{vector("x", 2)}, out: []ValueInfo{vector("y", 2)}, want: "[]"},
		{in: []ValueInfo{vector("input", 2), vector("input_1", 2)}, out: []ValueInfo{vector("output", 2), vector("output_1", 2)}, want: "[]"},
		{in: []ValueInfo{{Name: "h", Type: "int64"}}, out: []ValueInfo{{Name: "hn", Type: "float32"}}, want: "[]"},
		{in: []ValueInfo{vector("h", 2)}, out: []ValueInfo{vector("h_out", 2), vector("new_h", 2)}, want: "[]"},
		// What is given.
		{in: []ValueInfo{vector("x", 2)}, out: []ValueInfo{vector("y", 2)}, given: map[string]string{"x": "y"}, want: "[{x y}]"},
		{in: []ValueInfo{vector("h", 2)}, out: []ValueInfo{vector("hn", 2)}, given: map[string]string{"h": ""}, want: "[]"},
		{in: []ValueInfo{vector("h", 2), vector("g", 2)}, out: []ValueInfo{vector("hn", 2)}, given: map[string]string{"g": "hn"}, want: "[{g hn}]"},
		{in: []ValueInfo{vector("x", 2)}, out: []ValueInfo{vector("y", 2)}, given: map[string]string{"z": "y"}, want: `no input "z"; it has x float32[2]`},
		{in: []ValueInfo{vector("x", 2)}, out: []ValueInfo{vector("y", 2), vector("z", 3)}, given: map[string]string{"x": "w"}, want: `no output "w"; those that input x float32[2] could take are y float32[2]`},
		{in: []ValueInfo{vector("x", 2)}, out: []ValueInfo{vector("z", 3)}, given: map[string]string{"x": "z"}, want: "cannot take output z float32[3]; those that it could take are none"},
		{in: []ValueInfo{vector("a", 2), vector("b", 2)}, out: []ValueInfo{vector("y", 2)}, given: map[string]string{"a": "y", "b": "y"}, want: `output "y" is given to the inputs "a" and "b"`},
	} {
		pairs, err := StatePairs(c.in, c.out, c.given)
		if got := fmt.Sprint(pairs); err == nil && got != c.want || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, %v: got %v, %v, want %s", c.in, c.out, got, err, c.want)
		}
	}
}
