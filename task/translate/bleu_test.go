package translate

import (
	"encoding/json"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestLikeSacreBLEU compares both metrics, and the cutting of words, with what
// sacreBLEU gave.
func TestLikeSacreBLEU(t *testing.T) {
	raw, err := os.ReadFile("testdata/bleu.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Cases []struct {
			Name            string
			Lower           bool
			Translations    []string
			References      [][]string
			BLEU            float64
			Matches, Totals []int
			Precisions      []float64
			Brevity         float64
			Length          int
			ReferenceLength int `json:"reference_length"`
			Text            string
			CHRF            float64
		}
		Tokens []struct{ Text, Tokens, Lower string }
	}
	if err := json.Unmarshal(raw, &golden); err != nil {
		t.Fatal(err)
	}
	if len(golden.Cases) == 0 || len(golden.Tokens) == 0 {
		t.Fatal("the golden file is empty")
	}
	near := func(a, b float64) bool { return math.Abs(a-b) <= 1e-9*math.Max(1, math.Abs(b)) }
	for _, c := range golden.Cases {
		s := bleu(c.Translations, c.References, c.Lower)
		same := near(s.Score, c.BLEU) && near(s.BrevityPenalty, c.Brevity) && s.Length == c.Length && s.ReferenceLength == c.ReferenceLength &&
			slices.Equal(s.Matches[:], c.Matches) && slices.Equal(s.Totals[:], c.Totals) && slices.EqualFunc(s.Precisions[:], c.Precisions, near)
		if !same || s.String() != c.Text {
			t.Errorf("%s, lower %v: %+v, sacreBLEU has %+v", c.Name, c.Lower, s, c)
		}
		if got := chrf(c.Translations, c.References, c.Lower); !near(got, c.CHRF) {
			t.Errorf("%s, lower %v: chrF %v, sacreBLEU has %v", c.Name, c.Lower, got, c.CHRF)
		}
	}
	for _, c := range golden.Tokens {
		for lower, want := range map[bool]string{false: c.Tokens, true: c.Lower} {
			if got := strings.Join(strings.FieldsFunc(tokenize13a(preparer(lower)(c.Text)), isSpace), " "); got != want {
				t.Errorf("%q, lower %v: words %q, sacreBLEU has %q", c.Text, lower, got, want)
			}
		}
	}
}

func TestUnequalLengths(t *testing.T) {
	if _, err := BLEU([]string{"a", "b"}, [][]string{{"a"}}, false); err == nil || !strings.Contains(err.Error(), "2 translations need 2 lists of references, got 1") {
		t.Errorf("BLEU: %v", err)
	}
	if _, err := CHRF(nil, [][]string{{"a"}}, false); err == nil {
		t.Error("CHRF: no error")
	}
}
