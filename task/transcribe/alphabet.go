package transcribe

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/speech"
	"github.com/carousel-ml/carousel/text"
)

// alphabet is the units that the network spells. Class 0 is the blank, class
// i > 0 is Units[i-1].
type alphabet struct {
	Kind  string   `json:"kind"`  // as Config.Tokens
	Units []string `json:"units"` // characters, symbols, or pieces of words, which begin with a space where a word does

	index     map[string]int32
	tokenizer *text.Tokenizer // of kind bpe
}

// space separates words where the units are characters.
const space = " "

func newAlphabet(kind string, units []string, tokenizer *text.Tokenizer) *alphabet {
	a := &alphabet{Kind: kind, Units: units, index: map[string]int32{}, tokenizer: tokenizer}
	for i, u := range units {
		a.index[u] = int32(i + 1)
	}
	return a
}

// classes is how many outputs the network has.
func (a *alphabet) classes() int { return len(a.Units) + 1 }

// unit is the text of a class other than the blank.
func (a *alphabet) unit(class int32) string { return a.Units[class-1] }

// pieces cuts a text into units.
func (a *alphabet) pieces(s string) []string {
	if a.tokenizer == nil {
		return letters(a.Kind, s)
	}
	if s == "" {
		return nil
	}
	s = space + s // so that the first word begins like the others
	var list []string
	for _, t := range a.tokenizer.Tokens(nil, s) {
		list = append(list, s[t.Start:t.End])
	}
	return list
}

// quoted is the units for a message.
func (a *alphabet) quoted() []string {
	var list []string
	for _, u := range a.Units {
		list = append(list, fmt.Sprintf("%q", u))
	}
	return list
}

// letters cuts a text into what errors are counted in beside words: symbols, or
// characters.
func letters(kind, s string) []string {
	if kind == "space" {
		return strings.Fields(s)
	}
	return strings.Split(s, "")
}

// encode is the classes of a text, without those of the units that the alphabet
// lacks, which are named.
func (a *alphabet) encode(text string) (classes []int32, unknown []string) {
	for _, p := range a.pieces(text) {
		if c, ok := a.index[p]; ok {
			classes = append(classes, c)
		} else {
			unknown = append(unknown, p)
		}
	}
	return classes, unknown
}

// decode is the text of classes, with single spaces between words.
func (a *alphabet) decode(classes []int32) string {
	var b strings.Builder
	for i, c := range classes {
		if i > 0 && a.Kind == "space" {
			b.WriteString(space)
		}
		b.WriteString(a.unit(c))
	}
	return strings.Join(strings.Fields(b.String()), space)
}

// collectAlphabet is every unit of the texts, in order. With a tokenizer, so is
// every piece that it learned of their characters: other texts may need them.
func collectAlphabet(kind string, tokenizer *text.Tokenizer, list []speech.Utterance) (*alphabet, error) {
	a := &alphabet{Kind: kind, tokenizer: tokenizer}
	seen := map[string]bool{}
	for _, u := range list {
		for _, p := range a.pieces(u.Text) {
			seen[p] = true
		}
	}
	if tokenizer != nil {
		characters := map[rune]bool{}
		for p := range seen {
			for _, r := range p {
				characters[r] = true
			}
		}
		for id := range tokenizer.Vocabulary().Len() {
			p := tokenizer.Decode([]int32{int32(id)})
			if !tokenizer.IsSpecial(int32(id)) && !strings.ContainsFunc(p, func(r rune) bool { return !characters[r] }) {
				seen[p] = true
			}
		}
		delete(seen, "")
	}
	if len(seen) == 0 {
		return nil, &data.InputError{File: list[0].File, Problem: "has no text in any row", Fix: "fill in the column of what is said"}
	}
	units := make([]string, 0, len(seen))
	for u := range seen {
		units = append(units, u)
	}
	slices.Sort(units)
	return newAlphabet(kind, units, tokenizer), nil
}

// readAlphabet reads units, one a line; a line of one space, or <space>, is the
// space between words.
func readAlphabet(kind, path string) (*alphabet, error) {
	r, err := data.OpenLines(path, data.EncodingUTF8)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var units []string
	seen := map[string]int{}
	for {
		line, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		unit := strings.TrimSpace(line)
		if unit == "<space>" || unit == "" && line != "" {
			unit = space
		}
		switch {
		case unit == "":
			continue
		case len(letters(kind, unit)) != 1:
			return nil, &data.InputError{File: path, Line: r.Line, Problem: fmt.Sprintf("want one unit of kind %s a line, got %q", kind, line)}
		case seen[unit] > 0:
			return nil, &data.InputError{File: path, Line: r.Line, Problem: fmt.Sprintf("%q stands in line %d already", unit, seen[unit])}
		}
		seen[unit] = r.Line
		units = append(units, unit)
	}
	if len(units) == 0 {
		return nil, &data.InputError{File: path, Problem: "holds no unit", Fix: "write one a line"}
	}
	return newAlphabet(kind, units, nil), nil
}

// check names the units of texts that the alphabet lacks.
func (a *alphabet) check(list []speech.Utterance) error {
	var names []string
	var first *speech.Utterance
	for i := range list {
		_, unknown := a.encode(list[i].Text)
		for _, u := range unknown {
			if q := fmt.Sprintf("%q", u); !slices.Contains(names, q) {
				names = append(names, q)
			}
		}
		if first == nil && len(unknown) > 0 {
			first = &list[i]
		}
	}
	if first == nil {
		return nil
	}
	return &data.InputError{File: first.File, Line: first.Line,
		Problem: fmt.Sprintf("%s outside the alphabet, here and further on: %s", report.Agree(len(names), "unit is", "units are"), report.Listing(names)),
		Fix:     "add them to the alphabet, or change the texts"}
}
