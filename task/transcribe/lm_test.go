package transcribe

import (
	"cmp"
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/data"
)

// KenLM's scores of random models and sentences with unknown words.
// internal/golden/gen/kenlm_scores.py writes the file.
func TestScoresOfKenLM(t *testing.T) {
	raw, err := os.ReadFile(cmp.Or(os.Getenv("CAROUSEL_KENLM"), "testdata/kenlm.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		ARPA      string
		Sentences []struct {
			Text   string
			Scores []float64 // log10 of each word and of the end
		}
	}
	if err := json.Unmarshal(raw, &cases); err != nil {
		t.Fatal(err)
	}
	scored, unknown := 0, 0
	for i, c := range cases {
		r, err := data.LinesOf("model.arpa", []byte(c.ARPA), data.EncodingAuto)
		if err != nil {
			t.Fatal(err)
		}
		lm, err := readLM(r, t.Context().Err)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range c.Sentences {
			state, words := lm.start(), append(strings.Fields(s.Text), "</s>")
			for j, w := range words {
				p, next := lm.score(state, w)
				got, want := p/math.Ln10, s.Scores[j]
				if !lm.Has(w) {
					unknown++
					if !lm.Has("<unk>") {
						want += 100 + unknownWord // KenLM has -100 where there is no <unk>
					}
				}
				if math.Abs(got-want) > 1e-4 {
					t.Errorf("model %d, %q, word %d: %v, want %v", i, s.Text, j, got, want)
				}
				state = next
				scored++
			}
		}
	}
	if len(cases) < 40 || unknown < scored/10 {
		t.Errorf("%d models, %d words of which %d are unknown", len(cases), scored, unknown)
	}
}

// Words may contain space that does not separate fields; a probability is at most 1.
func TestLinesOfLM(t *testing.T) {
	read := func(gram string) (*LM, error) {
		r, err := data.LinesOf("model.arpa", []byte("\\data\\\nngram 1=1\n\n\\1-grams:\n"+gram+"\n\n\\end\\\n"), data.EncodingAuto)
		if err != nil {
			t.Fatal(err)
		}
		return readLM(r, t.Context().Err)
	}
	if lm, err := read("-1\tnew\u00a0york\t0.5"); err != nil || !lm.Has("new\u00a0york") {
		t.Errorf("a word with a no-break space: %v", err)
	}
	if _, err := read("0.2\ta"); err == nil || !strings.Contains(err.Error(), "model.arpa: line 5: want the log10 of a probability, at most 0") {
		t.Errorf("a probability above 1: %v", err)
	}
}
