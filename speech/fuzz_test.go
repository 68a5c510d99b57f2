package speech

import (
	"bytes"
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
		lm, err := ReadLM(path)
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

// FuzzManifest: any bytes give utterances or an error.
func FuzzManifest(f *testing.F) {
	for _, s := range []string{"audio,text\na.wav,b\n", "audio\ttext\nx\t\"y\n", "text;audio\n;\n"} {
		f.Add([]byte(s))
	}
	path := filepath.Join(f.TempDir(), "m.csv")
	cfg := Defaults()
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
		list, err := ReadManifest(path, &cfg)
		if err == nil && len(list) == 0 {
			t.Fatal("neither utterances nor an error")
		}
	})
}

// FuzzFeatures: any bytes of .npy and .mfc give finite frames or an error.
func FuzzFeatures(f *testing.F) {
	f.Add([]byte("\x93NUMPY\x01\x00\x3b\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }\n12345678"))
	f.Add([]byte("\x00\x00\x00\x02\x3f\x80\x00\x00\x3f\x80\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		readNPY(bytes.NewReader(b), int64(len(b)))
		readMFC(bytes.NewReader(b), int64(len(b)), 2)
	})
}
