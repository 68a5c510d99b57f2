package tag

import (
	"encoding/json"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
)

func tagsOf(s string) []string { return strings.Fields(s) }

// TestAgainstSeqeval holds spans and scores to those of seqeval, which counts as
// conlleval does.
func TestAgainstSeqeval(t *testing.T) {
	text, err := os.ReadFile("testdata/seqeval.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Spans []struct {
			Tags  []string
			Spans [][3]any
		}
		Scores []struct {
			Gold, Found                     [][]string
			Precision, Recall, F1, Accuracy float64
		}
	}
	if err := json.Unmarshal(text, &golden); err != nil {
		t.Fatal(err)
	}
	for _, c := range golden.Spans {
		var want []Span
		for _, s := range c.Spans {
			want = append(want, Span{int(s[0].(float64)), int(s[1].(float64)), s[2].(string)})
		}
		if got := Spans(c.Tags); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", c.Tags, got, want)
		}
	}
	if len(golden.Spans) < 50 || len(golden.Scores) < 5 {
		t.Fatalf("%d and %d cases", len(golden.Spans), len(golden.Scores))
	}
	for i, c := range golden.Scores {
		tally := newTally()
		for k := range c.Gold {
			tally.spans(Spans(c.Gold[k]), Spans(c.Found[k]))
			tally.tokens(c.Gold[k], c.Found[k], nil)
		}
		got := tally.metrics()
		for _, pair := range [][2]float64{{got.Precision, c.Precision}, {got.Recall, c.Recall}, {got.F1, c.F1}, {got.Accuracy, c.Accuracy}} {
			if math.Abs(pair[0]-pair[1]) > 1e-12 {
				t.Errorf("case %d: %+v, want %+v", i, got, c)
			}
		}
	}
}

func TestSchemesWriteWhatTheyRead(t *testing.T) {
	for _, c := range []struct {
		scheme Scheme
		tags   string
	}{
		{IOB1, "I-A O I-A B-A I-A I-B"}, {IOB2, "B-A O B-A B-A I-A B-B"}, {BIOES, "S-A O S-A B-A E-A S-B"},
		{BMES, "S-A O S-A B-A E-A S-B"}, {BILOU, "U-A O U-A B-A L-A U-B"}, {BMES, "B M M E O S"}, {BIOES, "B-my-a I-my-a E-my-a"},
	} {
		spans := Spans(tagsOf(c.tags))
		if got := c.scheme.Tags(spans, len(tagsOf(c.tags))); !slices.Equal(got, tagsOf(c.tags)) {
			t.Errorf("%s: %q became %q", c.scheme, c.tags, got)
		}
		for other := range schemes {
			if got := Spans(other.Tags(spans, len(tagsOf(c.tags)))); !slices.Equal(got, spans) {
				t.Errorf("%q in %s: spans %v, want %v", c.tags, other, got, spans)
			}
		}
	}
}

func TestSchemeIsTold(t *testing.T) {
	for _, c := range []struct {
		tags string
		want Scheme
	}{
		{"B-A I-A O B-A", IOB2}, {"I-A I-A O I-A B-A", IOB1}, {"I-A I-B O", IOB1}, {"B-A E-A S-B O", BIOES}, {"B-A M-A E-A", BMES},
		{"B-A L-A U-B O", BILOU}, {"B M E S", BMES}, {"B E S", BIOES}, {"B I O", IOB2}, {"NOUN VERB O", Labels}, {"S B", Labels}, {"O O", Labels},
		{"B-A PUNCT", Labels}, {"B- I-", Labels}, {"-X- O", Labels}, {"B-A I-A O I-A B-B B-B", IOB2}, {"", Labels},
	} {
		var census census
		census.add(tagsOf(c.tags))
		if got := census.scheme(); got != c.want {
			t.Errorf("%q: %s, want %s", c.tags, got, c.want)
		}
	}
}

// The rule of what may follow what allows just what BIOES writes.
func TestForbidden(t *testing.T) {
	tags := inBIOES([]string{"A", "B"})
	rule := forbidden(tags)
	n := len(tags)
	for code := range n * n * n {
		ids := []int{code % n, code / n % n, code / n / n}
		allowed, before := true, -1
		var list []string
		for _, id := range append(ids, -1) {
			allowed = allowed && !rule(before, id)
			before = id
			if id >= 0 {
				list = append(list, tags[id])
			}
		}
		if written := BIOES.Tags(Spans(list), len(list)); allowed != slices.Equal(written, list) {
			t.Errorf("%q: allowed %v, but BIOES writes %q", list, allowed, written)
		}
	}
}

func FuzzSpans(f *testing.F) {
	f.Add("B-A I-A O E-B S")
	f.Add("B- -A é-A I")
	f.Fuzz(func(t *testing.T, text string) {
		tags := tagsOf(text)
		var census census
		census.add(tags)
		census.scheme()
		spans, end := Spans(tags), 0
		for _, s := range spans {
			if s.From < end || s.To <= s.From || s.To > len(tags) {
				t.Fatalf("%q: spans %v", tags, spans)
			}
			end = s.To
		}
		for scheme := range schemes {
			if got := Spans(scheme.Tags(spans, len(tags))); !slices.Equal(got, spans) {
				t.Fatalf("%q in %s: %v, want %v", tags, scheme, got, spans)
			}
		}
	})
}
