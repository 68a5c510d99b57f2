package transcribe

import (
	"math"
	"os"
	"path/filepath"
	"testing"
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

// FuzzLexicon: any bytes give a lexicon or an error.
func FuzzLexicon(f *testing.F) {
	for _, s := range []string{"one o n e\ntwo\n", "", "\n\n", "a\ta b\n", "\xff\n", "é\r\n"} {
		f.Add([]byte(s))
	}
	path := filepath.Join(f.TempDir(), "words.txt")
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
		if l, err := ReadLexicon(t.Context(), path); (l == nil) == (err == nil) {
			t.Fatal(l, err)
		}
	})
}
