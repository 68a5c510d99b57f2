package text

import (
	"encoding/json"
	"fmt"
	"reflect"
	"unicode"
)

// splitters makes the steps of each type of pre-tokenizer in tokenizer.json.
var splitters map[string]func(json.RawMessage) ([]step, error)

func init() {
	splitters = map[string]func(json.RawMessage) ([]step, error){
		"ByteLevel":       byteLevelSplitter,
		"Sequence":        splitSequence,
		"Split":           split,
		"WhitespaceSplit": func(json.RawMessage) ([]step, error) { return []step{splitSpace}, nil },
	}
}

var splitSpace = splitter(runePattern(unicode.IsSpace), removed, false)

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
	switch s.Behavior {
	case removed, isolated, withBefore, withNext, contiguous:
	default:
		return nil, fmt.Errorf("Split has the behavior %s", quoted(string(s.Behavior)))
	}
	if s.Pattern.Regex != nil && *s.Pattern.Regex == characterPattern {
		return []step{cutCharacters}, nil
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

// cutCharacters makes a piece of every character.
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
