package text

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"unicode/utf8"
)

// FuzzTokenizerFile reads any bytes as a tokenizer's file, and uses what can be read.
func FuzzTokenizerFile(f *testing.F) {
	files, err := filepath.Glob("testdata/*")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		if content, err := os.ReadFile(file); err == nil && len(content) < 20000 {
			f.Add(content)
		}
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		tok, err := parse("file", content)
		if err != nil {
			return
		}
		for _, s := range hard {
			checkSpans(t, tok, s)
			tok.Decode(tok.Encode(nil, s))
		}
		tok.Decode([]int32{-1, 0, 1, 2, 1 << 30})
	})
}

// FuzzEncode gives any text to tokenizers of each kind.
func FuzzEncode(f *testing.F) {
	for _, s := range hard {
		f.Add(s)
	}
	var toks []*Tokenizer
	for _, kind := range Kinds() {
		toks = append(toks, train(f, kind, nil), train(f, kind, &TokenizerOptions{Lowercase: true, Normalize: "nfkc"}))
	}
	files, _ := filepath.Glob("testdata/*.model")
	for _, file := range files {
		tok, err := LoadTokenizer(file)
		if err != nil {
			f.Fatal(err)
		}
		toks = append(toks, tok)
	}
	bytes := train(f, "bpe", nil)
	f.Fuzz(func(t *testing.T, s string) {
		for _, tok := range toks {
			checkSpans(t, tok, s)
			ids := tok.Encode(nil, s)
			if again := tok.Encode(nil, s); !slices.Equal(ids, again) {
				t.Fatalf("%q: %v, and then %v", s, ids, again)
			}
			if text := tok.Decode(ids); !utf8.ValidString(text) {
				t.Fatalf("%q is decoded as %q", s, text)
			}
		}
		ids := bytes.Encode(nil, s)
		if !slices.ContainsFunc(ids, bytes.IsSpecial) && bytes.Decode(ids) != string([]rune(s)) {
			t.Fatalf("%q became %q", s, bytes.Decode(ids))
		}
	})
}

// FuzzComponents makes tokenizers of any normalizer, pre-tokenizer and decoder.
func FuzzComponents(f *testing.F) {
	var golden struct {
		Cases []struct {
			Kind string          `json:"kind"`
			JSON json.RawMessage `json:"json"`
		} `json:"cases"`
	}
	readGolden(f, "components.json", &golden)
	byKind := map[string][]string{}
	for _, c := range golden.Cases {
		byKind[c.Kind] = append(byKind[c.Kind], string(c.JSON))
	}
	pre, dec := byKind["pre_tokenizer"], byKind["decoder"]
	for i, n := range byKind["normalizer"] {
		f.Add(n, pre[i%len(pre)], dec[i%len(dec)], hard[i%len(hard)])
		f.Add(n, pre[(i+len(pre)/2)%len(pre)], dec[i%len(dec)], hard[(i+3)%len(hard)])
	}
	f.Fuzz(func(t *testing.T, normalizer, splitter, decoder, s string) {
		file := `{"normalizer":` + normalizer + `,"pre_tokenizer":` + splitter + `,"decoder":` + decoder +
			`,"model":{"type":"BPE","unk_token":"?","byte_fallback":true,"vocab":{"?":0,"a":1,"b":2,"ab":3,"▁":4},"merges":["a b"]}}`
		tok, err := parse("file", []byte(file))
		if err != nil {
			return
		}
		checkSpans(t, tok, s)
		tok.Decode(tok.Encode(nil, s))
		tok.Decode([]int32{3, 4, 1, 0, 9})
	})
}
