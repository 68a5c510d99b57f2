package tag

import (
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/data"
)

// TestRespell writes one corpus in other spellings, which must come back as it was.
func TestRespell(t *testing.T) {
	usual := [][]string{{"B-PER", "I-PER", "O"}, {"O", "B-LOC"}}
	for _, c := range []struct {
		name  string
		spell func(tag string) string
		same  bool // it is read as usual
	}{
		{"usual", func(tag string) string { return tag }, true},
		{"underscore", func(tag string) string { return strings.Replace(tag, "-", "_", 1) }, true},
		{"colon", func(tag string) string { return strings.Replace(tag, "-", ":", 1) }, true},
		{"lower", func(tag string) string { return strings.ToLower(tag[:1]) + tag[1:] }, true},
		{"behind", func(tag string) string {
			if letter, label, ok := strings.Cut(tag, "-"); ok {
				return label + "-" + letter
			}
			return tag
		}, true},
		{"zero", func(tag string) string { return strings.Replace(tag, "O", "0", map[bool]int{true: 1}[tag == "O"]) }, true},
		{"blank", func(tag string) string {
			return strings.Replace(strings.Replace(tag, "-", "_", 1), "O", "_", map[bool]int{true: 1}[tag == "O"])
		}, true},
		{"two spellings", func(tag string) string { return strings.Replace(tag, "B-PER", "B_PER", 1) }, false},
		{"no spans", func(tag string) string { return "X" + tag }, false},
		{"labels of two letters", func(tag string) string { return strings.Replace(tag, "B", "BB", 1) }, false},
	} {
		var parts [2][]data.Sentence
		var before [2][][]string
		for i := range parts {
			for _, tags := range usual {
				s := data.Sentence{}
				for _, tag := range tags {
					s.Tags = append(s.Tags, c.spell(tag))
				}
				parts[i], before[i] = append(parts[i], s), append(before[i], slices.Clone(s.Tags))
			}
		}
		original := parts[0]
		note := respell(&parts[0], &parts[1])
		for i := range parts {
			for k, s := range parts[i] {
				want := usual[k]
				if !c.same {
					want = before[i][k]
				}
				if !slices.Equal(s.Tags, want) {
					t.Errorf("%s: %q is read as %q", c.name, before[i][k], s.Tags)
				}
			}
		}
		if !slices.Equal(original[0].Tags, before[0][0]) {
			t.Errorf("%s: the caller's tags are changed", c.name)
		}
		if (note != "") != (c.same && c.name != "usual") {
			t.Errorf("%s: note %q", c.name, note)
		}
	}
	// Parts from different files may be spelled differently.
	a, b := []data.Sentence{{Tags: []string{"B_PER", "0"}}}, []data.Sentence{{Tags: []string{"per-b", "O"}}}
	if note := respell(&a, &b, &[]data.Sentence{}); a[0].Tags[0] != "B-PER" || a[0].Tags[1] != "O" || b[0].Tags[0] != "B-per" ||
		note != "tags are read in the usual spelling: 0 as O, B_PER as B-PER, per-b as B-per" {
		t.Errorf("%v, %v, %q", a, b, note)
	}
	// Parts of speech are no spans, although some look like their tags.
	for _, tags := range [][]string{{"NOUN", "VERB", "B-x"}, {"b", "m", "n", "v"}, {"S_a", "E_b"}, {"Case=Nom|Number=Sing", "_"}, {"0", "1"}, {"O"}} {
		if s, ok := findSpelling(tags); ok {
			t.Errorf("%q is taken for %+v", tags, s)
		}
	}
}

func TestLookalike(t *testing.T) {
	for want, tags := range map[string][]string{
		"B_PER": {"B_PER", "I-PER", "X", "O"}, "b-per": {"b-per", "X", "0"}, "PER-B": {"PER-B", "LOC-I", "X"}, "B": {"B", "O"},
		"": {"NOUN", "O", "ADJ-x", "S-a"},
	} {
		if got := lookalike(tags); got != want {
			t.Errorf("%q: %q, want %q", tags, got, want)
		}
	}
}
