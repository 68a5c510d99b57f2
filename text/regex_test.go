package text

import (
	"bufio"
	"bytes"
	"encoding/json"
	"slices"
	"testing"
)

// Regular expressions find what Hugging Face's library finds with Oniguruma:
// internal/golden/gen/text_regex.py asks it; $CAROUSEL_TOKENIZERS_REGEX are its
// arguments.
func TestRegularExpressions(t *testing.T) {
	lines := bufio.NewScanner(bytes.NewReader(answersOf(t, "text_regex.py", "CAROUSEL_TOKENIZERS_REGEX", "1 2000", "regex.jsonl.gz")))
	lines.Buffer(nil, 1<<26)
	n := 0
	for ; lines.Scan(); n++ {
		var row struct {
			Expr     string     `json:"expr"`
			Behavior behavior   `json:"behavior"`
			Invert   bool       `json:"invert"`
			Texts    []string   `json:"texts"`
			Pieces   [][]string `json:"pieces"`
			Replaced []string   `json:"replaced"`
		}
		if err := json.Unmarshal(lines.Bytes(), &row); err != nil {
			t.Fatal(err)
		}
		split, err := component(object("Split", "pattern", regex(row.Expr), "behavior", row.Behavior, "invert", row.Invert), splitters)
		if err != nil {
			t.Error(err)
			continue
		}
		replace, err := component(object("Replace", "pattern", regex(row.Expr), "content", "<>"), normalizers)
		if err != nil {
			t.Error(err)
			continue
		}
		for i, s := range row.Texts {
			run := func(steps []step) (text string, pieces []string) {
				var f flow
				f.reset(s, 0, i%2 == 0)
				for _, step := range steps {
					step(&f)
				}
				for _, p := range f.pieces {
					if p.from < p.to {
						pieces = append(pieces, string(f.text[p.from:p.to]))
					}
				}
				return string(f.text), pieces
			}
			_, pieces := run(split)
			replaced, _ := run(replace)
			if replaced != row.Replaced[i] || !slices.Equal(pieces, row.Pieces[i]) {
				t.Errorf("%s in %q: %q, not %q; %s, inverted %t: %q, not %q", row.Expr, s, replaced, row.Replaced[i], row.Behavior, row.Invert, pieces, row.Pieces[i])
				break
			}
		}
	}
	t.Logf("%d expressions", n)
}
