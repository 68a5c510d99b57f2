package text

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
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
		"NFC":            plain(unicodeForm(norm.NFC)),
		"NFD":            plain(unicodeForm(norm.NFD)),
		"NFKC":           plain(unicodeForm(norm.NFKC)),
		"NFKD":           plain(unicodeForm(norm.NFKD)),
		"Lowercase":      plain(lowercase),
		"StripAccents":   plain(dropRunes(unicode.IsMark)),
		"Nmt":            plain(nmt),
		"ByteLevel":      plain(byteLevel),
		"BertNormalizer": bertNormalizer,
		"Strip":          strip,
		"Replace":        replace,
		"Prepend":        prepend,
		"Precompiled":    precompiled,
	}
}

// plain is a component without settings.
func plain(s step) func(json.RawMessage) ([]step, error) {
	return func(json.RawMessage) ([]step, error) { return []step{s}, nil }
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
			var part []byte // the replacement of a character may come in several parts
			for at := p.from; !it.Done(); {
				part = append(part, it.Next()...)
				if next := p.from + it.Pos(); next > at {
					f.put(string(part), at, next)
					at, part = next, part[:0]
				}
			}
		})
	}
}

// eachRune rewrites text character by character: to returns the replacement of
// r, or false to keep it.
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

// dropRunes removes characters.
func dropRunes(drop func(rune) bool) step {
	return func(f *flow) {
		eachRune(f, func(r rune) (string, bool) { return "", drop(r) })
	}
}

// lowercase lowers each character independently, so that a final sigma is
// treated as any other.
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
		if l := unicode.ToLower(r); l != r {
			return string(l), true
		}
		return "", false
	})
}

// nmt removes control characters and turns blank characters of all kinds into
// spaces, as SentencePiece's nmt rules do.
func nmt(f *flow) {
	eachRune(f, func(r rune) (string, bool) {
		switch {
		case r >= 1 && r <= 8, r == 0xb, r >= 0xe && r <= 0x1f, r == 0x7f, r == 0x8f, r == 0x9f:
			return "", true
		case r == '\t', r == '\n', r == '\f', r == '\r', r == 0x1680, r >= 0x200b && r <= 0x200f,
			r == 0x2028, r == 0x2029, r == 0x2581, r == 0xfeff, r == 0xfffd:
			return " ", true
		}
		return "", false
	})
}

// bertNormalizer is the normalizer of BERT (Devlin et al., 2019).
func bertNormalizer(raw json.RawMessage) ([]step, error) {
	s := struct {
		Clean     bool  `json:"clean_text"`
		Chinese   bool  `json:"handle_chinese_chars"`
		Accents   *bool `json:"strip_accents"`
		Lowercase bool  `json:"lowercase"`
	}{true, true, nil, true}
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, err
	}
	var steps []step
	if s.Clean {
		steps = append(steps, bertClean)
	}
	if s.Chinese {
		steps = append(steps, func(f *flow) {
			eachRune(f, func(r rune) (string, bool) { return " " + string(r) + " ", isBertChinese(r) })
		})
	}
	if s.Accents != nil && *s.Accents || s.Accents == nil && s.Lowercase {
		steps = append(steps, unicodeForm(norm.NFD), dropRunes(func(r rune) bool { return unicode.Is(unicode.Mn, r) }))
	}
	if s.Lowercase {
		steps = append(steps, lowercase)
	}
	return steps, nil
}

// bertClean drops control characters and turns all white space into plain
// spaces.
func bertClean(f *flow) {
	eachRune(f, func(r rune) (string, bool) {
		switch {
		case r == '\t', r == '\n', r == '\r', unicode.IsSpace(r) && !unicode.Is(unicode.Cc, r):
			return " ", r != ' '
		case r == 0, r == utf8.RuneError, unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Cs):
			return "", true
		}
		return "", false
	})
}

func isBertChinese(r rune) bool {
	return 0x4e00 <= r && r <= 0x9fff || 0x3400 <= r && r <= 0x4dbf || 0x20000 <= r && r <= 0x2a6df ||
		0x2a700 <= r && r <= 0x2b73f || 0x2b740 <= r && r <= 0x2b81f || 0x2b920 <= r && r <= 0x2ceaf ||
		0xf900 <= r && r <= 0xfaff || 0x2f800 <= r && r <= 0x2fa1f
}

// strip removes the white space at the ends.
func strip(raw json.RawMessage) ([]step, error) {
	s := struct {
		Left  bool `json:"strip_left"`
		Right bool `json:"strip_right"`
	}{true, true}
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, err
	}
	return []step{func(f *flow) {
		f.rewrite(func(p span) {
			text := f.text[:p.to]
			from, to := p.from, p.to
			if s.Left {
				from = trimLeft(text, from)
			}
			if s.Right {
				to = trimRight(text, from, to)
			}
			f.keep(from, to)
		})
	}}, nil
}

// replaceSpec is a normalizer or decoder of type Replace.
type replaceSpec struct {
	Pattern patternSpec `json:"pattern"`
	Content string      `json:"content"`
}

// maxContent is the maximum length in bytes of what a rule inserts into a text.
const maxContent = 256

func (s *replaceSpec) read(raw json.RawMessage) (find pattern, err error) {
	if err := json.Unmarshal(raw, s); err != nil {
		return nil, err
	}
	if len(s.Content) > maxContent {
		return nil, fmt.Errorf("the step Replace inserts %d bytes, more than %d", len(s.Content), maxContent)
	}
	return s.Pattern.compile()
}

func replace(raw json.RawMessage) ([]step, error) {
	var s replaceSpec
	find, err := s.read(raw)
	if err != nil {
		return nil, err
	}
	return []step{func(f *flow) {
		f.rewrite(func(p span) {
			text, at := f.text[p.from:p.to], 0
			f.matches = find(f.matches[:0], text)
			for _, m := range f.matches {
				f.keep(p.from+at, p.from+m.from)
				if _, n := utf8.DecodeRune(text); m.from == 0 && m.to > n { // it stands for the last of the characters
					f.head = 0
				}
				f.put(s.Content, p.from+m.from, p.from+m.to)
				at = m.to
			}
			f.keep(p.from+at, p.to)
		})
	}}, nil
}

func prepend(raw json.RawMessage) ([]step, error) {
	var s struct {
		Content string `json:"prepend"`
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, err
	}
	if len(s.Content) > maxContent {
		return nil, fmt.Errorf("the step Prepend inserts %d bytes, more than %d", len(s.Content), maxContent)
	}
	return []step{func(f *flow) {
		f.rewrite(func(p span) {
			if p.from < p.to {
				f.put(s.Content, p.from, p.from)
				f.keep(p.from, p.to)
			}
		})
	}}, nil
}

// precompiled applies the rules of SentencePiece as Hugging Face's library
// does: first to whole short graphemes, otherwise to single characters.
func precompiled(raw json.RawMessage) ([]step, error) {
	var s struct {
		Rules string `json:"precompiled_charsmap"`
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, err
	}
	blob, err := base64.StdEncoding.DecodeString(s.Rules)
	if err != nil {
		return nil, fmt.Errorf("precompiled_charsmap: %w", err)
	}
	rules, err := readCharsMap(blob)
	if err != nil {
		return nil, err
	}
	return []step{func(f *flow) {
		f.rewrite(func(p span) {
			text := f.text[:p.to]
			for i := p.from; i < p.to; {
				end := i + graphemeLength(text[i:])
				if end-i < 6 {
					if to, n := rules.first(text[i:end]); n > 0 {
						f.put(to, i, end)
						i = end
						continue
					}
				}
				for i < end {
					_, n := utf8.DecodeRune(text[i:])
					if to, m := rules.first(text[i : i+n]); m > 0 {
						f.put(to, i, i+n)
					} else {
						f.keep(i, i+n)
					}
					i += n
				}
			}
		})
	}}, nil
}

// graphemeLength is the length of the first character of text with its marks
// and joiners, or of a CR LF.
func graphemeLength(text []byte) int {
	r, end := utf8.DecodeRune(text)
	if r == '\r' && len(text) > 1 && text[1] == '\n' {
		return 2
	}
	if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Cf, r) && r != '\u200d' && r != '\u200c' {
		return end
	}
	for end < len(text) {
		r, n := utf8.DecodeRune(text[end:])
		if !unicode.IsMark(r) && r != '\u200d' && r != '\u200c' {
			break
		}
		end += n
	}
	return end
}
