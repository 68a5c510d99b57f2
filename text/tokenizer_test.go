package text

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/carousel-ml/carousel/model"
)

// hard are texts that tokenizers get wrong.
var hard = []string{
	"",
	" ",
	"Hello, world!",
	"  two  spaces\tand\na line\r\n",
	"don't stop: it's 3.14, 1,000.5 and o’clock'",
	"我爱自然语言处理。你呢？",
	"東京タワーに行きました。コーヒー、カタカナ",
	"ภาษาไทยไม่มีช่องว่าง",
	"naïve café İstanbul ΣΊΣΥΦΟΣ straße",
	"e\u0301 \u00e9 \ufb01 \u2460 \uff21",
	"👩‍👩‍👧 👍🏽 🇩🇪",
	"\x00\x01\u200b\u00a0\u3000\ufeff",
	"bad \xff\xfe bytes \xe4\xbd",
	"<s>special</s> <pad> <unk>",
	"snake_case x=y+z http://a.b/c?d=e",
	strings.Repeat("a", 1000),
}

// train makes a tokenizer of each kind from the hard texts.
func train(t testing.TB, kind string, o *TokenizerOptions) *Tokenizer {
	t.Helper()
	tok, err := TrainTokenizer(t.Context(), kind, slices.Values(hard), o)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestKindsRoundTrip(t *testing.T) {
	for _, kind := range Kinds() {
		for _, o := range []*TokenizerOptions{nil, {Lowercase: true}, {Normalize: "nfkc", Lowercase: true}, {Extra: []string{"<2de>"}}} {
			t.Run(fmt.Sprintf("%s/%+v", kind, o), func(t *testing.T) {
				tok := train(t, kind, o)
				dir := t.TempDir()
				if err := tok.Save(dir); err != nil {
					t.Fatal(err)
				}
				back, err := LoadTokenizer(dir)
				if err != nil {
					t.Fatal(err)
				}
				for _, s := range hard {
					want := tok.Encode(nil, s)
					if got := back.Encode(nil, s); !slices.Equal(got, want) {
						t.Errorf("%q: the saved tokenizer gives %v, not %v", s, got, want)
					}
					if got, want := back.Decode(want), tok.Decode(want); got != want {
						t.Errorf("%q: the saved tokenizer decodes %q, not %q", s, got, want)
					}
					checkSpans(t, tok, s)
				}
			})
		}
	}
}

// checkSpans compares Tokens with Encode and the spans with the text.
func checkSpans(t testing.TB, tok *Tokenizer, s string) {
	t.Helper()
	tokens, ids := tok.Tokens(nil, s), tok.Encode(nil, s)
	if len(tokens) != len(ids) {
		t.Fatalf("%q: %d tokens, %d ids", s, len(tokens), len(ids))
	}
	start := 0
	for i, token := range tokens {
		if token.ID != ids[i] {
			t.Fatalf("%q: token %d has the id %d, Encode gives %d", s, i, token.ID, ids[i])
		}
		if token.Start < start || token.End < token.Start || token.End > len(s) {
			t.Fatalf("%q: token %d spans %d to %d after one that begins at %d", s, i, token.Start, token.End, start)
		}
		start = token.Start
	}
}

func TestCharacters(t *testing.T) {
	tok := train(t, "char", nil)
	for _, s := range hard[:12] { // valid, without special tokens
		if got := tok.Decode(tok.Encode(nil, s)); got != s {
			t.Errorf("%q became %q", s, got)
		}
		for _, more := range hard[:12] {
			want := tok.Encode(tok.Encode(nil, s), more)
			if got := tok.Encode(nil, s+more); !slices.Equal(got, want) {
				t.Errorf("%q and %q together: %v, one by one: %v", s, more, got, want)
			}
		}
		var b strings.Builder
		for _, token := range tok.Tokens(nil, s) {
			b.WriteString(s[token.Start:token.End])
			if got, want := tok.Vocabulary().Token(token.ID), s[token.Start:token.End]; got != want {
				t.Errorf("%q: token %q stands for %q", s, got, want)
			}
		}
		if b.String() != s {
			t.Errorf("%q: the spans give %q", s, b.String())
		}
	}
	if got := tok.Decode(tok.Encode(nil, "bad \xff\xfe bytes \xe4\xbd")); got != "bad �� bytes ��" {
		t.Errorf("bytes that are not UTF-8 became %q", got)
	}
}

func TestBPE(t *testing.T) {
	tok := train(t, "bpe", &TokenizerOptions{VocabularySize: 400})
	for _, s := range hard {
		if got, want := tok.Decode(tok.Encode(nil, s)), string([]rune(s)); got != want && !strings.Contains(s, "<s>") {
			t.Errorf("%q became %q", s, got)
		}
		var b strings.Builder
		for _, token := range tok.Tokens(nil, s) {
			b.WriteString(s[token.Start:token.End])
		}
		if b.String() != s && utf8.ValidString(s) {
			t.Errorf("%q: the spans give %q", s, b.String())
		}
	}
}

// The scanner for byte-level models does what the regular expression says.
func TestGPT2Scanner(t *testing.T) {
	find, err := regexPattern(gpt2Pattern)
	if err != nil {
		t.Fatal(err)
	}
	check := func(s string) {
		t.Helper()
		var got, want flow
		got.reset(s, 0, false)
		want.reset(s, 0, false)
		cutGPT2(&got)
		splitter(find, isolated, false)(&want)
		if !slices.Equal(got.pieces, want.pieces) {
			t.Errorf("%q: %v, by the regular expression %v", s, got.pieces, want.pieces)
		}
	}
	for _, s := range hard {
		check(s)
	}
	for r := rune(0); r <= 0x10ffff; r++ {
		if r < 0x1200 || r < 0x20000 && r%13 == 0 || r%97 == 0 {
			check("a" + string(r) + "1 " + string(r) + "  !" + string(r) + string(r) + "'re" + string(r))
		}
	}
}

func TestWords(t *testing.T) {
	tok := train(t, "word", nil)
	for _, c := range []struct{ text, words, decoded string }{
		{"don't stop: it's 3.14, 1,000.5", "don't|stop|:|it's|3.14|,|1,000.5", "don't stop: it's 3.14, 1,000.5"},
		{"  two  spaces\tand\na line", "two|spaces|and|a|line", "two spaces and a line"},
		{"我爱自然语言处理。你呢？", "我|爱|自|然|语|言|处|理|。|你|呢|？", "我爱自然语言处理。你呢？"},
		{"東京タワー", "東|京|タ|ワ|ー", "東京タワー"},
		{"ภาษาไทยไม่มี", "ภ|า|ษ|า|ไ|ท|ย|ไ|ม่|มี", "ภาษาไทยไม่มี"},
		{"o’clock'", "o’clock|'", "o’clock'"},
		{"<s>special</s>", "<s>|special|</s>", "special"},
		{"bad \xff\xfe bytes", "bad|\xff|\xfe|bytes", "bad � � bytes"},
	} {
		var words []string
		tokens := tok.Tokens(nil, c.text)
		for _, token := range tokens {
			words = append(words, c.text[token.Start:token.End])
		}
		if got := strings.Join(words, "|"); got != c.words {
			t.Errorf("%q is cut into %s, not %s", c.text, got, c.words)
		}
		if got := tok.Decode(tok.Encode(nil, c.text)); got != c.decoded {
			t.Errorf("%q is decoded as %q, not %q", c.text, got, c.decoded)
		}
	}
	if id := tok.Encode(nil, "unheard")[0]; id != tok.Vocabulary().UnknownID() {
		t.Errorf("a word that was never seen has the id %d", id)
	}
}

// The scanner for words does what the two regular expressions say.
func TestWordScanner(t *testing.T) {
	apart, err := regexPattern(unspacedPattern)
	if err != nil {
		t.Fatal(err)
	}
	words, err := regexPattern(wordPattern)
	if err != nil {
		t.Fatal(err)
	}
	steps := []step{splitter(apart, isolated, false), splitter(words, removed, true)}
	check := func(s string) {
		t.Helper()
		var got, want flow
		got.reset(s, 0, false)
		want.reset(s, 0, false)
		cutWords(&got)
		for _, step := range steps {
			step(&want)
		}
		if !slices.Equal(got.pieces, want.pieces) {
			t.Errorf("%q: %v, by the regular expressions %v", s, got.pieces, want.pieces)
		}
	}
	for _, s := range hard {
		check(s)
	}
	for r := rune(0); r <= 0x10ffff; r++ {
		if r < 0x1200 || r < 0x20000 && r%13 == 0 || r%97 == 0 {
			check("a" + string(r) + "1" + string(r) + "\u0e01" + string(r) + "'b." + string(r))
		}
	}
}

func TestLowercaseSpans(t *testing.T) {
	tok := train(t, "word", &TokenizerOptions{Lowercase: true, Normalize: "nfkc"})
	const s = "Der İstanbul CAFE\u0301 ﬁn Ａ"
	var words, texts []string
	for _, token := range tok.Tokens(nil, s) {
		texts = append(texts, s[token.Start:token.End])
		words = append(words, tok.Vocabulary().Token(token.ID))
	}
	if got := strings.Join(texts, "|"); got != "Der|İstanbul|CAFE\u0301|ﬁn|Ａ" {
		t.Errorf("spans are %s", got)
	}
	if words[1] != "i\u0307stanbul" || words[2] != "café" {
		t.Errorf("tokens are %q", words)
	}
}

func TestVocabularyOrder(t *testing.T) {
	v := NewVocabulary(map[string]int64{"b": 2, "a": 2, "c": 9, "once": 1, "": 5, Unknown: 7},
		&VocabularyOptions{MinCount: 2, MaxSize: 6, Special: Special()})
	want := []string{Pad, Unknown, Begin, End, "c", "a"}
	if !slices.Equal(v.Tokens(), want) {
		t.Errorf("tokens are %q, not %q", v.Tokens(), want)
	}
	if v.Count(1) != 7 || v.Count(4) != 9 || v.Count(99) != 0 {
		t.Errorf("counts are %d, %d, %d", v.Count(1), v.Count(4), v.Count(99))
	}
	if v.ID("b") != 1 || v.PadID() != 0 || v.BeginID() != 2 || v.EndID() != 3 {
		t.Error("special tokens are not where they belong")
	}
}

func TestTrainingIsDeterministic(t *testing.T) {
	for _, kind := range Kinds() {
		o := &TokenizerOptions{VocabularySize: 300}
		a, b := train(t, kind, o), train(t, kind, o)
		if string(a.content) != string(b.content) {
			t.Errorf("%s: equal texts give two tokenizers", kind)
		}
		if n := a.Vocabulary().Len(); n > 300 {
			t.Errorf("%s: the vocabulary has %d tokens, more than 300", kind, n)
		}
	}
}

// Long words, of the kinds that make merging and searching slow where they take
// quadratic time.
func TestLongWords(t *testing.T) {
	const n = 100000
	texts := []string{
		strings.Repeat("我爱", n/2), strings.Repeat("ab", n/2),
	}
	for _, kind := range Kinds() {
		tok, err := TrainTokenizer(t.Context(), kind, slices.Values(append(texts, hard...)), &TokenizerOptions{VocabularySize: 300})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range texts {
			tok.Encode(nil, s)
		}
	}
	for _, name := range []string{"bpe_llama2.json", "wordpiece.json", "unigram_bytes.json", "sp_bpe_bytes.model"} {
		tok, err := LoadTokenizer(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		tok.Decode(tok.Encode(nil, texts[1]))
	}
}

// A tokenizer serves several goroutines at once.
func TestConcurrentUse(t *testing.T) {
	tok := train(t, "bpe", nil)
	want := tok.Encode(nil, strings.Join(hard, "\n"))
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 20 {
				if got := tok.Encode(nil, strings.Join(hard, "\n")); !slices.Equal(got, want) {
					t.Error("goroutines get different ids")
				}
			}
		})
	}
	group.Wait()
}

func TestVocabularyJSON(t *testing.T) {
	v := NewVocabulary(map[string]int64{"a": 3, "b": 1}, &VocabularyOptions{Special: Special()})
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var back Vocabulary
	if err := json.Unmarshal(raw, &back); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(back.Tokens(), v.Tokens()) || back.Count(4) != 3 || back.UnknownID() != 1 || back.ID("b") != 5 {
		t.Errorf("%s is read as %+v", raw, back)
	}
	for _, bad := range []string{`{"tokens":["a","a"]}`, `{"tokens":["a"],"counts":[1,2]}`, `[]`} {
		if err := json.Unmarshal([]byte(bad), &back); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
}

func TestSaveReplacesTheOther(t *testing.T) {
	dir := t.TempDir()
	piece, err := LoadTokenizer(filepath.Join("testdata", "sp_bpe.model"))
	if err != nil {
		t.Fatal(err)
	}
	words := train(t, "word", nil)
	for i, tok := range []*Tokenizer{words, piece, words, piece} {
		if err := tok.Save(dir); err != nil {
			t.Fatal(err)
		}
		back, err := LoadTokenizer(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := back.Encode(nil, "the fox"), tok.Encode(nil, "the fox"); !slices.Equal(got, want) {
			t.Errorf("after save %d: ids %v, not %v", i, got, want)
		}
	}
}

func TestTrainRefuses(t *testing.T) {
	for name, o := range map[string]*TokenizerOptions{
		"no room":      {VocabularySize: 4},
		"negative":     {MinCount: -1},
		"normal form":  {Normalize: "nfx"},
		"twice":        {Extra: []string{Pad}},
		"nothing left": {MinCount: 1 << 40},
	} {
		if _, err := TrainTokenizer(t.Context(), "word", slices.Values(hard), o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := TrainTokenizer(t.Context(), "sentence", slices.Values(hard), nil); err == nil {
		t.Error("a kind that there is not: no error")
	}
}

func TestLoadRefuses(t *testing.T) {
	_, err := LoadTokenizer(filepath.Join(t.TempDir(), "none.json"))
	var fileErr *model.FileError
	if !errors.As(err, &fileErr) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file gives %v", err)
	}
	for _, content := range []string{
		"", "{}", "[]", `{"model":{"type":"Nonsense"}}`,
		`{"model":{"type":"WordLevel","vocab":{"a":2000000000}}}`,
		`{"model":{"type":"WordLevel","vocab":{"a":-1}}}`,
		`{"model":{"type":"WordLevel","vocab":{"a":0,"b":0}}}`,
		`{"added_tokens":[{"id":2000000000,"content":"x"}],"model":{"type":"WordLevel","vocab":{"a":0}}}`,
		`{"added_tokens":[{"id":0,"content":"x"}],"model":{"type":"WordLevel","vocab":{"a":0}}}`,
		`{"normalizer":{"type":"Prepend","prepend":"` + strings.Repeat("a", 300) + `"},"model":{"type":"WordLevel","vocab":{"a":0}}}`,
		`{"normalizer":` + strings.Repeat(`{"type":"Sequence","normalizers":[`, 50) + strings.Repeat("]}", 50) + `,"model":{"type":"WordLevel","vocab":{"a":0}}}`,
		`{"normalizer":{"type":"Sequence","normalizers":[` + strings.Repeat(`{"type":"NFC"},`, 200) + `{"type":"NFC"}]},"model":{"type":"WordLevel","vocab":{"a":0}}}`,
		`{"model":{"type":"WordLevel","vocab":{"` + strings.Repeat("a", 5000) + `":0}}}`,
		`{"model":{"type":"BPE","vocab":{"a":0},"merges":["a a"]}}`,
		`{"model":{"type":"BPE","vocab":{"a":0},"merges":["a"]}}`,
		`{"model":{"type":"Unigram","vocab":[["a",0]],"unk_id":7}}`,
		`{"normalizer":{"type":"Precompiled","precompiled_charsmap":"AAAA/w=="},"model":{"type":"WordLevel","vocab":{"a":0}}}`,
		"\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\n\x05", "\n\x03\n\x01a\x1a\x06\x12\x04\xff\xff\xff\xff",
		`{"pre_tokenizer":{"type":"Split","pattern":{"Regex":"(a)\\1"},"behavior":"Isolated"},"model":{"type":"WordLevel","vocab":{"a":0}}}`,
	} {
		if _, err := parse("f", []byte(content)); !errors.As(err, &fileErr) {
			t.Errorf("%s: %v", content, err)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	s := strings.Repeat("The quick brown fox doesn't jump over the lazy dog, 42 times. ", 1000)
	for _, kind := range Kinds() {
		tok, err := TrainTokenizer(b.Context(), kind, slices.Values([]string{s}), nil)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(kind, func(b *testing.B) {
			b.SetBytes(int64(len(s)))
			var ids []int32
			for b.Loop() {
				ids = tok.Encode(ids[:0], s)
			}
		})
	}
}

// The number of pieces that are counted at a time is bounded, and those that come often are
// not among the forgotten.
func TestPiecesAreBounded(t *testing.T) {
	defer func(most int) { mostPieces = most }(mostPieces)
	texts := func(yield func(string) bool) {
		for i := range 3000 {
			if !yield(fmt.Sprintf("the cat sat on w%d w%d w%d", 3*i, 3*i+1, 3*i+2)) {
				return
			}
		}
	}
	for _, name := range []string{"word", "bpe"} {
		o := &TokenizerOptions{MinCount: 1000, VocabularySize: 300}
		want, err := TrainTokenizer(t.Context(), name, texts, o)
		if err != nil {
			t.Fatal(err)
		}
		mostPieces = 50
		got, err := TrainTokenizer(t.Context(), name, texts, o)
		if err != nil {
			t.Fatal(err)
		}
		mostPieces = 1 << 22
		for _, word := range []string{"cat", " sat", " on"} {
			if a, b := got.Encode(nil, word), want.Encode(nil, word); name == "bpe" && len(a) != len(b) || name == "word" && got.Decode(a) != want.Decode(b) {
				t.Errorf("%s: %q is %v, with all pieces counted %v", name, word, a, b)
			}
		}
	}
	c := pieceCounter{}
	for i := range 200 {
		c.encode(nil, []byte("often"), 0)
		c.encode(nil, []byte("now"), 0)
		c.encode(nil, fmt.Append(nil, i), 0)
		c.encode(nil, fmt.Append(nil, i), 0)
		if c.bound(50); len(c) > 50 {
			t.Fatalf("%d pieces", len(c))
		}
	}
	if *c["often"] != 200 {
		t.Errorf("a frequent piece was counted %d times of 200", *c["often"])
	}
}
