package text

import (
	"encoding/json"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// normalizers makes the steps of each type of normalizer in tokenizer.json.
var normalizers map[string]func(json.RawMessage) ([]step, error)

func init() { // not in the declaration, as Sequence refers to the table
	normalizers = map[string]func(json.RawMessage) ([]step, error){
		"Sequence": func(raw json.RawMessage) ([]step, error) {
			return sequence(raw, "normalizers", normalizers)
		},
		"NFC":       func(json.RawMessage) ([]step, error) { return []step{unicodeForm(norm.NFC)}, nil },
		"NFD":       func(json.RawMessage) ([]step, error) { return []step{unicodeForm(norm.NFD)}, nil },
		"NFKC":      func(json.RawMessage) ([]step, error) { return []step{unicodeForm(norm.NFKC)}, nil },
		"NFKD":      func(json.RawMessage) ([]step, error) { return []step{unicodeForm(norm.NFKD)}, nil },
		"Lowercase": func(json.RawMessage) ([]step, error) { return []step{lowercase}, nil },
	}
}

// unicodeForm brings text into a normal form of Unicode.
func unicodeForm(form norm.Form) step {
	return func(f *flow) {
		if form.IsNormal(f.text) {
			return
		}
		f.rewrite(func(p span) {
			var it norm.Iter
			it.Init(form, f.text[p.from:p.to])
			for at := p.from; !it.Done(); {
				s := it.Next()
				next := p.from + it.Pos()
				f.put(string(s), at, next)
				at = next
			}
		})
	}
}

// eachRune rewrites text character by character: to gives what stands for r, or
// false to keep it.
func eachRune(f *flow, to func(r rune) (string, bool)) {
	f.rewrite(func(p span) {
		kept := p.from
		for i := p.from; i < p.to; {
			r, n := utf8.DecodeRune(f.text[i:p.to])
			if s, changed := to(r); changed {
				f.keep(kept, i)
				f.put(s, i, i+n)
				kept = i + n
			}
			i += n
		}
		f.keep(kept, p.to)
	})
}

// lowercase makes each character lower case by itself, so that a final sigma is
// as any other.
func lowercase(f *flow) {
	ascii := true
	for _, c := range f.text {
		ascii = ascii && c < utf8.RuneSelf
	}
	if ascii { // in place: no byte moves
		for i, c := range f.text {
			if 'A' <= c && c <= 'Z' {
				f.text[i] = c + 'a' - 'A'
			}
		}
		return
	}
	eachRune(f, func(r rune) (string, bool) {
		if r == 'İ' { // the one letter that becomes two
			return "i\u0307", true
		}
		l := unicode.ToLower(r)
		return string(l), l != r
	})
}
