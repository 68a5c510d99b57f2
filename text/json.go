package text

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/model"
)

// jsonTokenizer is tokenizer.json, the file of Hugging Face's tokenizers
// library. Its other fields describe truncation, padding and special tokens
// around a text, which tasks handle themselves.
type jsonTokenizer struct {
	Version       string          `json:"version"`
	AddedTokens   []addedToken    `json:"added_tokens"`
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
	PostProcessor json.RawMessage `json:"post_processor"`
	Decoder       json.RawMessage `json:"decoder"`
	Model         json.RawMessage `json:"model"`
}

// parseJSON makes a tokenizer from the content of a tokenizer.json.
func parseJSON(file string, content []byte) (*Tokenizer, error) {
	bad := func(what string, err error) error {
		return &model.FileError{File: file, Problem: fmt.Sprintf("%s: %v", what, err), Err: err}
	}
	var j jsonTokenizer
	if err := json.Unmarshal(content, &j); err != nil {
		return nil, bad("not a tokenizer.json", err)
	}
	t := &Tokenizer{file: TokenizerFile, content: content}
	var err error
	if t.normalize, err = component(j.Normalizer, normalizers); err != nil {
		return nil, bad("normalizer", err)
	}
	if t.split, err = component(j.PreTokenizer, splitters); err != nil {
		return nil, bad("pre_tokenizer", err)
	}
	if err := t.checkGrowth(j.Normalizer, j.PreTokenizer); err != nil {
		return nil, bad("normalizer and pre_tokenizer", err)
	}
	if t.decode, err = component(j.Decoder, decoders); err != nil {
		return nil, bad("decoder", err)
	}
	if isWordSplit(j.PreTokenizer) || isSegmentedSplit(j.PreTokenizer) {
		t.decode = []decodeStep{joinWords} // the file's decoder is for English only
	}
	tokens, err := t.readModel(j.Model)
	if err != nil {
		return nil, bad("model", err)
	}
	if err := t.finish(tokens, j.AddedTokens); err != nil {
		return nil, bad("added_tokens", err)
	}
	return t, nil
}

func (t *Tokenizer) readModel(raw json.RawMessage) (tokens []string, err error) {
	var s struct {
		Type string `json:"type"`
	}
	if absent(raw) {
		return nil, fmt.Errorf("is missing")
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, err
	}
	read, ok := tokenModels[s.Type]
	if !ok {
		return nil, fmt.Errorf("has the type %s, which is not known", quoted(s.Type))
	}
	t.model, tokens, err = read(raw)
	return tokens, err
}

// finish adds the added tokens to those of the model and builds their matchers.
func (t *Tokenizer) finish(tokens []string, added []addedToken) error {
	known := make(map[string]int32, len(tokens))
	for id, token := range tokens {
		if token != "" {
			known[token] = int32(id)
		}
	}
	limit := len(tokens) + 2*len(added) + 10000
	t.added = &addedTokens{special: map[int32]bool{}, normal: map[int32]string{}}
	var before, after []addedToken
	for _, a := range added {
		if a.Content == "" {
			continue
		}
		if id, ok := known[a.Content]; ok {
			a.ID = id
		} else if a.ID < 0 || int(a.ID) >= limit {
			return fmt.Errorf("token %s has the id %d, of a vocabulary of %d", quoted(a.Content), a.ID, len(tokens))
		}
		for int(a.ID) >= len(tokens) {
			tokens = append(tokens, "")
		}
		if other := tokens[a.ID]; other != "" && other != a.Content {
			return fmt.Errorf("token %s has the id %d, which is that of %s", quoted(a.Content), a.ID, quoted(other))
		}
		tokens[a.ID], known[a.Content] = a.Content, a.ID
		if a.Special {
			t.added.special[a.ID] = true
		}
		if a.Normalized {
			after = append(after, a)
		} else {
			before = append(before, a)
		}
	}
	t.vocabulary = &Vocabulary{tokens: tokens}
	t.vocabulary.index()
	if id := t.model.unknownID(); id >= 0 {
		t.vocabulary.unknown = id
	}
	t.added.before = newMatcher(before, contents(before))
	normal := contents(after)
	for i, s := range normal {
		var f flow
		f.reset(s, 0, false)
		for _, step := range t.normalize {
			step(&f)
		}
		normal[i] = string(f.text)
		t.added.normal[after[i].ID] = normal[i]
	}
	t.added.after = newMatcher(after, normal)
	return nil
}

func contents(tokens []addedToken) []string {
	list := make([]string, len(tokens))
	for i, t := range tokens {
		list[i] = t.Content
	}
	return list
}

// maxSteps is the maximum number of components of a kind, and maxNesting their
// maximum depth.
const maxSteps, maxNesting = 100, 20

// component makes the steps of a normalizer, pre-tokenizer or decoder.
func component[S any](raw json.RawMessage, table map[string]func(json.RawMessage) ([]S, error)) ([]S, error) {
	if absent(raw) {
		return nil, nil
	}
	if nesting(raw) > maxNesting {
		return nil, fmt.Errorf("is nested more than %d deep", maxNesting)
	}
	var s struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, err
	}
	read, ok := table[s.Type]
	if !ok {
		return nil, fmt.Errorf("has the type %s, which is not known", quoted(s.Type))
	}
	return read(raw)
}

// mostGrowth is how many times as long a text may become by the steps of a file.
const mostGrowth = 16

// checkGrowth returns an error for a file whose steps, one after another, make a
// text grow without measure: each may look harmless, such as one that replaces an
// a by ten. What a step inserts or looks for stands in the file, so its strings
// are the texts that are tried.
func (t *Tokenizer) checkGrowth(components ...json.RawMessage) error {
	const size = 256
	tried := map[string]bool{}
	var try func(v any) error
	try = func(v any) (err error) {
		switch v := v.(type) {
		case map[string]any:
			for _, key := range slices.Sorted(maps.Keys(v)) {
				err = cmp.Or(err, try(v[key]))
			}
		case []any:
			for _, one := range v {
				err = cmp.Or(err, try(one))
			}
		case string:
			if v == "" || len(v) > maxContent || tried[v] {
				return nil
			}
			tried[v] = true
			var f flow
			f.reset(strings.Repeat(v, size/len(v)+1), 0, false)
			most := mostGrowth*len(f.text) + maxSteps*maxContent
			for _, step := range slices.Concat(t.normalize, t.split) {
				if step(&f); len(f.text) > most {
					return fmt.Errorf("the steps make a text of %s more than %d times as long; take out some that insert text", quoted(v), mostGrowth)
				}
			}
		}
		return err
	}
	for _, raw := range components {
		var v any
		if absent(raw) {
			continue
		}
		if err := json.Unmarshal(raw, &v); err != nil {
			return err
		}
		if err := try(v); err != nil {
			return err
		}
	}
	return nil
}

// sequence makes the steps of several components, listed under key.
func sequence[S any](raw json.RawMessage, key string, table map[string]func(json.RawMessage) ([]S, error)) ([]S, error) {
	var s map[string]json.RawMessage
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, err
	}
	var list []json.RawMessage
	if err := json.Unmarshal(s[key], &list); err != nil {
		return nil, err
	}
	var steps []S
	for _, raw := range list {
		more, err := component(raw, table)
		if err != nil {
			return nil, err
		}
		if steps = append(steps, more...); len(steps) > maxSteps {
			return nil, fmt.Errorf("has more than %d steps", maxSteps)
		}
	}
	return steps, nil
}

// nesting returns how deeply the objects and lists of a JSON text are nested.
func nesting(raw []byte) int {
	depth, deepest, inString := 0, 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			depth++
			deepest = max(deepest, depth)
		case c == '}' || c == ']':
			depth--
		}
	}
	return deepest
}

func absent(raw json.RawMessage) bool {
	return len(raw) == 0 || bytes.Equal(raw, []byte("null"))
}
