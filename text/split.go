package text

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"unicode"
	"unicode/utf8"
)

// splitters makes the steps of each type of pre-tokenizer in tokenizer.json.
var splitters map[string]func(json.RawMessage) ([]step, error)

func init() {
	splitters = map[string]func(json.RawMessage) ([]step, error){
		"ByteLevel": byteLevelSplitter,
		"BertPreTokenizer": func(json.RawMessage) ([]step, error) {
			return []step{splitSpace, splitter(runePattern(isPunctuation), isolated, false)}, nil
		},
		"CharDelimiterSplit": delimiterSplit,
		"Digits":             digitsSplit,
		"FixedLength":        fixedLengthSplit,
		"Metaspace":          metaspaceSplit,
		"Punctuation":        punctuationSplit,
		"SegmentedWords":     segmentedWords,
		"Sequence":           splitSequence,
		"Split":              split,
		"UnicodeScripts":     plain(cutScripts),
		"Whitespace": func(json.RawMessage) ([]step, error) {
			return []step{splitter(finder(runs).all, removed, true)}, nil
		},
		"WhitespaceSplit": plain(splitSpace),
	}
}

var splitSpace = splitter(runePattern(unicode.IsSpace), removed, false)

// runs matches words and sequences of other characters, \w+|[^\w\s]+.
func runs(text []byte, at int) (from, to int) {
	kind := func(i int) (k, n int) {
		r, n := utf8.DecodeRune(text[i:])
		switch {
		case unicode.IsSpace(r):
			return 0, n
		case isWord(r):
			return 1, n
		}
		return 2, n
	}
	for at < len(text) {
		k, n := kind(at)
		from, at = at, at+n
		if k == 0 {
			continue
		}
		for at < len(text) {
			next, n := kind(at)
			if next != k {
				break
			}
			at += n
		}
		return from, at
	}
	return -1, -1
}

// isPunctuation reports whether r is punctuation, or an ASCII symbol.
func isPunctuation(r rune) bool {
	return unicode.IsPunct(r) || r < utf8.RuneSelf && unicode.IsSymbol(r)
}

func delimiterSplit(raw json.RawMessage) ([]step, error) {
	var s struct {
		Delimiter string `json:"delimiter"`
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, err
	}
	return []step{splitter(literalPattern(s.Delimiter), removed, false)}, nil
}

func digitsSplit(raw json.RawMessage) ([]step, error) {
	var s struct {
		Individual bool `json:"individual_digits"`
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, err
	}
	how := contiguous
	if s.Individual {
		how = isolated
	}
	return []step{splitter(runePattern(unicode.IsNumber), how, false)}, nil
}

// fixedLengthSplit makes pieces of a number of characters.
func fixedLengthSplit(raw json.RawMessage) ([]step, error) {
	s := struct {
		Length int `json:"length"`
	}{5}
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, err
	}
	if s.Length < 1 {
		return nil, fmt.Errorf("the step FixedLength has the length %d; at least 1 is needed", s.Length)
	}
	return []step{func(f *flow) {
		f.cut(func(p span) {
			from, n := p.from, 0
			for i := p.from; i < p.to; i++ {
				if !utf8.RuneStart(f.text[i]) {
					continue
				}
				if n == s.Length {
					f.add(from, i)
					from, n = i, 0
				}
				n++
			}
			f.add(from, p.to)
		})
	}}, nil
}

// scripts holds the ranges of Unicode's scripts in ascending order. The Japanese
// syllabaries count as Han, with the sign that lengthens their vowels.
var scripts = sync.OnceValue(func() []scriptRange {
	names := slices.Sorted(maps.Keys(unicode.Scripts))
	var list []scriptRange
	for i, name := range names {
		switch name {
		case "Hiragana", "Katakana":
			i = slices.Index(names, "Han")
		}
		for _, r := range unicode.Scripts[name].R16 {
			list = append(list, scriptRange{rune(r.Lo), rune(r.Hi), rune(r.Stride), i})
		}
		for _, r := range unicode.Scripts[name].R32 {
			list = append(list, scriptRange{rune(r.Lo), rune(r.Hi), rune(r.Stride), i})
		}
	}
	var single []scriptRange // ranges with a stride may contain others
	for _, r := range list {
		if r.stride == 1 {
			single = append(single, r)
			continue
		}
		for c := r.lo; c <= r.hi; c += r.stride {
			single = append(single, scriptRange{c, c, 1, r.script})
		}
	}
	slices.SortFunc(single, func(a, b scriptRange) int { return int(a.lo - b.lo) })
	return single
})

type scriptRange struct {
	lo, hi, stride rune
	script         int
}

// noScript is that of a space and of characters that Unicode does not have: they
// belong to the script before them.
const noScript = -1

func scriptOf(r rune) int {
	switch r {
	case ' ':
		return noScript
	case 'ー':
		r = '一'
	}
	list := scripts()
	i, found := slices.BinarySearchFunc(list, r, func(s scriptRange, r rune) int { return int(s.lo - r) })
	if !found {
		i--
	}
	if i < 0 || r > list[i].hi {
		return noScript
	}
	return list[i].script
}

// cutScripts cuts where the script changes. What stands before the first character
// that has a script is dropped, as Hugging Face's library does.
func cutScripts(f *flow) {
	f.cut(func(p span) {
		from, last := p.to, noScript
		for i := p.from; i < p.to; {
			r, n := utf8.DecodeRune(f.text[i:p.to])
			if script := scriptOf(r); script != noScript && script != last {
				f.add(from, i)
				from, last = i, script
			}
			i += n
		}
		f.add(from, p.to)
	})
}

func punctuationSplit(raw json.RawMessage) ([]step, error) {
	s := struct {
		Behavior behavior `json:"behavior"`
	}{isolated}
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, err
	}
	if err := s.Behavior.check(); err != nil {
		return nil, err
	}
	return []step{splitter(runePattern(isPunctuation), s.Behavior, false)}, nil
}

// metaspace is the sign that represents a space in SentencePiece.
const metaspace = "▁"

// metaspaceSpec is a pre-tokenizer or decoder of type Metaspace.
type metaspaceSpec struct {
	Replacement string `json:"replacement"`
	PrefixSpace *bool  `json:"add_prefix_space"` // in older files, instead of Scheme
	Scheme      string `json:"prepend_scheme"`
	Split       *bool  `json:"split"`
}

func (s *metaspaceSpec) read(raw json.RawMessage) error {
	if err := json.Unmarshal(raw, s); err != nil {
		return err
	}
	if s.Replacement == "" {
		s.Replacement = metaspace
	}
	if s.Scheme == "" {
		s.Scheme = "always"
		if s.PrefixSpace != nil && !*s.PrefixSpace {
			s.Scheme = "never"
		}
	}
	switch s.Scheme {
	case "always", "first", "never":
		return nil
	}
	return fmt.Errorf("the step Metaspace has the prepend_scheme %s", quoted(s.Scheme))
}

// metaspaceSplit writes spaces as a sign, puts one before the text, and splits
// before each.
func metaspaceSplit(raw json.RawMessage) ([]step, error) {
	var s metaspaceSpec
	if err := s.read(raw); err != nil {
		return nil, err
	}
	sign := []byte(s.Replacement)
	rewrite := func(f *flow) {
		f.rewrite(func(p span) {
			text := f.text[p.from:p.to]
			begun := len(text) > 0 && (text[0] == ' ' || hasPrefix(text, sign))
			if !begun && (s.Scheme == "always" || s.Scheme == "first" && f.begins(p)) {
				f.put(s.Replacement, p.from, p.from)
			}
			kept := p.from
			for i := p.from; i < p.to; i++ {
				if f.text[i] == ' ' {
					f.keep(kept, i)
					f.put(s.Replacement, i, i+1)
					kept = i + 1
				}
			}
			f.keep(kept, p.to)
		})
	}
	if s.Split != nil && !*s.Split {
		return []step{rewrite}, nil
	}
	return []step{rewrite, splitter(literalPattern(s.Replacement), withNext, false)}, nil
}

func hasPrefix(text, prefix []byte) bool {
	return len(text) >= len(prefix) && string(text[:len(prefix)]) == string(prefix)
}

// splitSpec is a pre-tokenizer of type Split.
type splitSpec struct {
	Pattern  patternSpec `json:"pattern"`
	Behavior behavior    `json:"behavior"`
	Invert   bool        `json:"invert"`
}

// patternSpec is a pattern in tokenizer.json: one of the two.
type patternSpec struct {
	String *string `json:"String,omitempty"`
	Regex  *string `json:"Regex,omitempty"`
}

func (s patternSpec) compile() (pattern, error) {
	switch {
	case s.Regex != nil:
		return regexPattern(*s.Regex)
	case s.String != nil:
		return literalPattern(*s.String), nil
	}
	return nil, fmt.Errorf("a pattern is neither a String nor a Regex")
}

func split(raw json.RawMessage) ([]step, error) {
	var s splitSpec
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, err
	}
	if err := s.Behavior.check(); err != nil {
		return nil, err
	}
	if s.Pattern.Regex != nil && s.Behavior == isolated && !s.Invert {
		switch *s.Pattern.Regex {
		case characterPattern:
			return []step{cutCharacters}, nil
		case gpt2Pattern:
			return []step{cutGPT2}, nil
		}
	}
	find, err := s.Pattern.compile()
	if err != nil {
		return nil, err
	}
	return []step{splitter(find, s.Behavior, s.Invert)}, nil
}

// splitSequence is a sequence of pre-tokenizers.
func splitSequence(raw json.RawMessage) ([]step, error) {
	if isWordSplit(raw) {
		return []step{cutWords}, nil
	}
	return sequence(raw, "pretokenizers", splitters)
}

// wordSplit is the pre-tokenizer that TrainTokenizer writes for words.
func wordSplit() json.RawMessage {
	return object("Sequence", "pretokenizers", []json.RawMessage{
		object("Split", "pattern", regex(unspacedPattern), "behavior", isolated, "invert", false),
		object("Split", "pattern", regex(wordPattern), "behavior", removed, "invert", true),
	})
}

// isWordSplit recognises wordSplit, which cutWords does in one pass.
func isWordSplit(raw json.RawMessage) bool {
	type sequence struct {
		Type string      `json:"type"`
		List []splitSpec `json:"pretokenizers"`
	}
	var got, want sequence
	json.Unmarshal(wordSplit(), &want)
	return json.Unmarshal(raw, &got) == nil && reflect.DeepEqual(got, want)
}

// characterPattern matches any character.
const characterPattern = `[\s\S]`

// cutCharacters makes every character a piece.
func cutCharacters(f *flow) {
	f.cut(func(p span) {
		from := p.from
		for i := p.from + 1; i < p.to; i++ {
			if f.text[i]&0xc0 != 0x80 {
				f.add(from, i)
				from = i
			}
		}
		f.add(from, p.to)
	})
}
