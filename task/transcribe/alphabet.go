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

// alphabet is the tokens that the network's classes represent. Class 0 is the
// blank, class i > 0 is Units[i-1].
type alphabet struct {
	Kind  string   `json:"kind"`  // as Config.Tokens
	Units []string `json:"units"` // characters, symbols, or pieces of words, of which those at the beginning of a word begin with a space

	index     map[string]int32
	tokenizer *text.Tokenizer // of kind bpe
}

// space separates words if the tokens are characters.
const space = " "

func newAlphabet(kind string, units []string, tokenizer *text.Tokenizer) *alphabet {
	a := &alphabet{Kind: kind, Units: units, index: map[string]int32{}, tokenizer: tokenizer}
	for i, u := range units {
		a.index[u] = int32(i + 1)
	}
	return a
}

// classes returns the number of outputs of the network.
func (a *alphabet) classes() int { return len(a.Units) + 1 }

// unit returns the text of a class other than the blank.
func (a *alphabet) unit(class int32) string { return a.Units[class-1] }

// pieces divides a text into tokens.
func (a *alphabet) pieces(s string) []string {
	if a.tokenizer == nil {
		return letters(a.Kind, s)
	}
	if s == "" {
		return nil
	}
	s = space + s // so that the first word has the same tokens as elsewhere
	var list []string
	for _, t := range a.tokenizer.Tokens(nil, s) {
		list = append(list, s[t.Start:t.End])
	}
	return list
}

// quoted returns the tokens for a message.
func (a *alphabet) quoted() []string {
	var list []string
	for _, u := range a.Units {
		list = append(list, fmt.Sprintf("%q", u))
	}
	return list
}

// letters divides a text into the items of the character error rate: symbols, or
// characters.
func letters(kind, s string) []string {
	if kind == "space" {
		return strings.Fields(s)
	}
	return strings.Split(s, "")
}

// encode returns the classes of a text, and the tokens that the alphabet lacks,
// which have none.
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

// decode returns the text of classes, with single spaces between words.
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

// collectAlphabet returns the alphabet of all tokens of the texts, sorted. With a
// tokenizer it also has every token that the tokenizer learned of their
// characters, since other texts may need them. Texts that are all empty are a
// *data.InputError.
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
		return nil, &data.InputError{File: list[0].File, Problem: "has no text in any row", Fix: "name the column of the texts with text"}
	}
	units := make([]string, 0, len(seen))
	for u := range seen {
		units = append(units, u)
	}
	slices.Sort(units)
	return newAlphabet(kind, units, tokenizer), nil
}

// readAlphabet reads tokens, one per line; a line of one space, or <space>, is
// the space between words. A file that cannot be used is a *data.InputError.
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
			return nil, &data.InputError{File: r.File, Line: r.Line, Problem: fmt.Sprintf("want one token of kind %s per line, got %q", kind, line)}
		case seen[unit] > 0:
			return nil, &data.InputError{File: r.File, Line: r.Line, Problem: fmt.Sprintf("%q is already in line %d", unit, seen[unit])}
		}
		seen[unit] = r.Line
		units = append(units, unit)
	}
	if len(units) == 0 {
		return nil, &data.InputError{File: r.File, Problem: "holds no token", Fix: "write one per line"}
	}
	return newAlphabet(kind, units, nil), nil
}

// check returns a *data.InputError that names the tokens of texts that the
// alphabet lacks.
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
		Problem: fmt.Sprintf("%s not in the alphabet, here and in later rows: %s", report.Agree(len(names), "token is", "tokens are"), report.Listing(names)),
		Fix:     "add them to the alphabet, or change the texts"}
}
