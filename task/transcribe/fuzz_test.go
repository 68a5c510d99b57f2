package transcribe

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/data"
)

// FuzzLM: any bytes give a model whose probabilities are no NaN, or an error.
func FuzzLM(f *testing.F) {
	f.Add([]byte("\\data\\\nngram 1=3\nngram 2=1\n\n\\1-grams:\n-1 <s> -0.5\n-1 </s>\n-1 a -0.2\n\n\\2-grams:\n-0.1 <s> a\n\n\\end\\\n"))
	f.Add([]byte("\\data\\\nngram 1=0\n\\1-grams:\n\\end\\\n"))
	f.Add([]byte("\\data\\\nngram 1=2\n\\1-grams:\n-inf a\n-1e300 <unk>\n\\end\\\n"))
	path := filepath.Join(f.TempDir(), "lm.arpa")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
		lm, err := ReadLM(t.Context(), path)
		if err != nil {
			return
		}
		s := lm.start()
		for _, w := range []string{"a", "b", "a"} {
			var p float64
			if p, s = lm.score(s, w); math.IsNaN(p) || math.IsInf(p, 0) {
				t.Fatal("a probability is", p)
			}
		}
		lm.finish(s)
	})
}

// FuzzLexicon: any bytes give an error, or a lexicon that, written a word per line,
// is read as the same, in memory proportional to the file.
func FuzzLexicon(f *testing.F) {
	for _, s := range []string{"one o n e\ntwo\n", "", "\n\n", "a\ta b\n", "\xff\n", "é\r\n", "a(2)(3)\n #b\n", "one\none(2)\n;;; x\n"} {
		f.Add([]byte(s))
	}
	path := filepath.Join(f.TempDir(), "words.txt")
	read := func(t *testing.T, b []byte) (*Lexicon, error) {
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
		return ReadLexicon(t.Context(), path)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		l, err := read(t, b)
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > uint64(1<<20+500*len(b)) {
			t.Errorf("%d bytes were allocated for a file of %d", used, len(b))
		}
		if err != nil {
			if !errors.As(err, new(*data.InputError)) {
				t.Errorf("%T: %v", err, err)
			}
			return
		}
		words := wordsBelow(l.root, "")
		var file bytes.Buffer
		for _, w := range words {
			fmt.Fprintf(&file, " %s(1)\n", w) // neither a comment nor without a number that is removed
		}
		again, err := read(t, file.Bytes())
		if err != nil || !slices.Equal(wordsBelow(again.root, ""), words) || again.Words() != len(words) {
			t.Errorf("%q is read again as %+v, %v", words, again, err)
		}
	})
}

// wordsBelow lists the words of a node in order.
func wordsBelow(n *lexNode, beginning string) (words []string) {
	if n.word {
		words = append(words, beginning)
	}
	for _, r := range slices.Sorted(maps.Keys(n.next)) {
		words = append(words, wordsBelow(n.next[r], beginning+string(r))...)
	}
	return words
}

func TestLexiconOfOneLongWord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "words.txt")
	if err := os.WriteFile(path, []byte("one\n"+strings.Repeat("a", maxWord)+"\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	if l, err := ReadLexicon(t.Context(), path); err != nil || l.Words() != 2 {
		t.Error(l, err)
	}
	if err := os.WriteFile(path, []byte("one\n"+strings.Repeat("a", maxWord+1)+"\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadLexicon(t.Context(), path); err == nil || !strings.Contains(err.Error(), "words.txt: line 2: has a word of 1001 bytes, expected at most 1000") {
		t.Error(err)
	}
}
