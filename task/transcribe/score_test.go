package transcribe

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

func TestErrorsAgreeWithJiwer(t *testing.T) {
	raw, err := os.ReadFile("testdata/errors.json")
	if err != nil {
		t.Fatal(err)
	}
	var want struct {
		Cases []struct {
			Reference, Hypothesis string
			Words, Characters     [4]int
			WER, CER              float64
		}
		WER, CER float64
	}
	if err := json.Unmarshal(raw, &want); err != nil {
		t.Fatal(err)
	}
	var words, characters Errors
	for _, c := range want.Cases {
		for _, level := range []struct {
			name   string
			cut    func(string) []string
			counts [4]int
			rate   float64
			total  *Errors
		}{
			{"words", strings.Fields, c.Words, c.WER, &words},
			{"characters", func(s string) []string { return strings.Split(s, "") }, c.Characters, c.CER, &characters},
		} {
			_, e := Align(level.cut(c.Reference), level.cut(c.Hypothesis))
			level.total.add(e)
			if got := [4]int{e.Hits, e.Substitutions, e.Deletions, e.Insertions}; got != level.counts {
				t.Errorf("%s of %q and %q: %v, want %v", level.name, c.Reference, c.Hypothesis, got, level.counts)
			}
			if e.Rate() != level.rate {
				t.Errorf("%s of %q and %q: rate %v, want %v", level.name, c.Reference, c.Hypothesis, e.Rate(), level.rate)
			}
		}
	}
	if words.Rate() != want.WER || characters.Rate() != want.CER {
		t.Errorf("all: WER %v and CER %v, want %v and %v", words.Rate(), characters.Rate(), want.WER, want.CER)
	}
}
