package graph

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
)

// StatePair is an input that takes in the next call what an output was in this one.
type StatePair struct{ Input, Output string }

// StatePairs finds the states among the inputs and outputs of a graph. given has
// outputs by the input that takes them; it adds to the pairs found and overrides
// them, and an output of "" says that the input is no state.
//
// A pair is found if input and output have the same element type, shapes of which one
// could be the other, and related names: state and stateN, h and hn, c0 and cn, h_in
// and h_out, past_key and present_key, x and new_x, and the like. Pairs are in the
// order of the inputs. Names of given that the graph does not have, an output given
// twice, and pairs of different types or shapes are errors, which list the outputs
// that an input could take.
func StatePairs(inputs, outputs []ValueInfo, given map[string]string) ([]StatePair, error) {
	find := func(list []ValueInfo, name string) *ValueInfo {
		if i := slices.IndexFunc(list, func(v ValueInfo) bool { return v.Name == name }); i >= 0 {
			return &list[i]
		}
		return nil
	}
	taken := map[string]string{} // inputs by output
	for _, in := range slices.Sorted(maps.Keys(given)) {
		out := given[in]
		i, o := find(inputs, in), find(outputs, out)
		switch {
		case i == nil:
			return nil, fmt.Errorf("the graph has no input %q; it has %s", clip(in), listed(inputs))
		case out == "":
			continue
		case o == nil:
			return nil, fmt.Errorf("the graph has no output %q; those that input %s could take are %s", clip(out), i, listed(i.StateOutputs(outputs)))
		case !i.couldBe(o):
			return nil, fmt.Errorf("input %s cannot take output %s; those that it could take are %s", i, o, listed(i.StateOutputs(outputs)))
		case taken[out] != "":
			return nil, fmt.Errorf("output %q is given to the inputs %q and %q", clip(out), clip(taken[out]), clip(in))
		}
		taken[out] = in
	}
	var pairs []StatePair
	for i := range inputs {
		in := &inputs[i]
		out, ok := given[in.Name]
		if !ok {
			var related []string
			for _, o := range in.StateOutputs(outputs) {
				if taken[o.Name] == "" && relatedNames(in.Name, o.Name) {
					related = append(related, o.Name)
				}
			}
			if len(related) != 1 {
				continue
			}
			out = related[0]
			taken[out] = in.Name
		}
		if out != "" {
			pairs = append(pairs, StatePair{in.Name, out})
		}
	}
	return pairs, nil
}

// StateOutputs returns the outputs that an input could take in the next call, by type
// and shape.
func (v ValueInfo) StateOutputs(outputs []ValueInfo) []ValueInfo {
	var list []ValueInfo
	for i := range outputs {
		if v.couldBe(&outputs[i]) {
			list = append(list, outputs[i])
		}
	}
	return list
}

// listed returns values as text, or "none".
func listed(list []ValueInfo) string {
	if len(list) == 0 {
		return "none"
	}
	text := make([]string, len(list))
	for i, v := range list {
		text[i] = v.String()
	}
	return strings.Join(text, ", ")
}

// couldBe reports whether an input and an output may have the same type and shape.
func (v *ValueInfo) couldBe(o *ValueInfo) bool {
	if v.Type != o.Type {
		return false
	}
	if v.Any || o.Any {
		return true
	}
	return slices.EqualFunc(v.Dims, o.Dims, func(a, b Dim) bool { return a.Size < 0 || b.Size < 0 || a.Size == b.Size })
}

// Words that exporters add to the name of a state: what goes in and what comes out.
var (
	wordsIn  = []string{"in", "input", "inputs", "prev", "previous", "past", "old", "init", "initial", "last", "i"}
	wordsOut = []string{"out", "output", "outputs", "n", "next", "new", "present", "updated", "final", "o"}
)

// relatedNames reports whether an input's and an output's name differ only in words
// for what goes in and comes out.
func relatedNames(in, out string) bool {
	a, b := words(in), words(out)
	bare := without(a, wordsIn)
	for _, x := range [][]string{a, bare, withoutZero(a), withoutZero(bare)} {
		for _, y := range [][]string{b, without(b, wordsOut)} {
			if slices.Equal(x, y) && slices.ContainsFunc(x, isWord) {
				return true
			}
		}
		// hn for h, and cn for c
		if n := len(x); n > 0 && len(b) == n && slices.Equal(x[:n-1], b[:n-1]) && b[n-1] == x[n-1]+"n" {
			return true
		}
	}
	return false
}

// isWord reports whether a part of a name is not a number: input_1 and output_1 are
// related to nothing.
func isWord(s string) bool { return !unicode.IsDigit(rune(s[0])) }

func without(list, drop []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(drop, s) })
}

// withoutZero is h for h0.
func withoutZero(list []string) []string {
	if n := len(list); n > 0 && list[n-1] == "0" {
		return list[:n-1]
	}
	return list
}

// words divides a name at punctuation, at capitals behind small letters, and before
// digits, such as stateN into state and n.
func words(name string) []string {
	var list []string
	last := rune(0)
	for _, r := range name {
		class := func(r rune) int {
			switch {
			case unicode.IsDigit(r):
				return 1
			case unicode.IsUpper(r):
				return 2
			case unicode.IsLetter(r):
				return 3
			}
			return 0
		}
		c, before := class(r), class(last)
		if c != 0 {
			if before == 0 || c != before && !(before == 2 && c == 3) {
				list = append(list, "")
			}
			list[len(list)-1] += string(unicode.ToLower(r))
		}
		last = r
	}
	return list
}
