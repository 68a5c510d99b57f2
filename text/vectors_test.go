package text

import (
	"compress/gzip"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/data"
)

func vocabularyOf(tokens ...string) *Vocabulary {
	return NewVocabulary(nil, &VocabularyOptions{Special: tokens})
}

func writeFile(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if strings.HasSuffix(name, ".gz") {
		z := gzip.NewWriter(f)
		defer z.Close()
		z.Write([]byte(content))
		return path
	}
	f.WriteString(content)
	return path
}

func TestReadVectors(t *testing.T) {
	v := vocabularyOf("the", "Apple", "apple", "Berlin", "new york", "none")
	const glove = "the 1 2 3\napple 4 5 6\nBerlin 7 8 9\nberlin 0 0 0\nother x y z\nnew york 1e1 -2 .5\nthe 0 0 0\n"
	for name, content := range map[string]string{
		"glove.txt":    glove,
		"glove.txt.gz": glove,
		"word2vec.vec": "7 3\n" + strings.ReplaceAll(glove, "\n", " \n"),
		"tabs.txt":     strings.NewReplacer(" ", "\t", "new york", "new york").Replace(glove),
	} {
		t.Run(name, func(t *testing.T) {
			w, err := ReadVectors(t.Context(), writeFile(t, name, content), v)
			if err != nil {
				t.Fatal(err)
			}
			if w.Dim != 3 || w.Read != 7 || w.Found != 5 || w.Lowercase != 1 {
				t.Errorf("%+v", w)
			}
			rows := make([]float32, 18)
			for i := range rows {
				rows[i] = 99
			}
			w.Fill(rows)
			want := []float32{1, 2, 3, 4, 5, 6, 4, 5, 6, 7, 8, 9, 10, -2, .5, 99, 99, 99}
			if !slices.Equal(rows, want) {
				t.Errorf("rows are %v, not %v", rows, want)
			}
			if w.Has(5) || w.Vector(5) != nil || w.Has(-1) || w.Has(6) {
				t.Error("tokens without vectors have one")
			}
		})
	}
}

func TestReadVectorsNotesLatin1(t *testing.T) {
	w, err := ReadVectors(t.Context(), writeFile(t, "v.txt", "the 1 2\ncaf\xe9 3 4\n"), vocabularyOf("the", "café"))
	if err != nil || w.Found != 2 || !strings.HasSuffix(w.Note(), "v.txt: line 2 is not UTF-8 and is read as Latin-1") {
		t.Errorf("note %q, found %d, %v", w.Note(), w.Found, err)
	}
}

func TestReadVectorsRefuses(t *testing.T) {
	v := vocabularyOf("a", "b")
	for content, want := range map[string]string{
		"":                      "is empty",
		"word\n":                "line 1: no word vector",
		"a 1 2\nb 1\n":          "line 2: want a word and 2 numbers, got 1 numbers",
		"a 1 2\nb 1 x\n":        `line 2: number 2 of the vector of "b" is "x"`,
		"a 1 2\nb 1 nan\n":      "line 2: number 2",
		"a 1 2\nb 1 1e99\n":     "line 2: number 2",
		"3 2\na 1 2\nb 3 4\n":   "has 2 vectors, and its first line says 3",
		"1 2000000000\na 1\n":   "line 1: vectors of 2000000000 numbers",
		"2 2\na \x00\x01\x02\n": "not a text file",
	} {
		_, err := ReadVectors(t.Context(), writeFile(t, "v.txt", content), v)
		var inputErr *data.InputError
		if !errors.As(err, &inputErr) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, not %s", content, err, want)
		}
	}
}

func FuzzReadVectors(f *testing.F) {
	f.Add("a 1 2\nb 3 4\n")
	f.Add("2 2\na 1 2 \nb 3 4 \n")
	f.Add("1 1 1\n")
	v := vocabularyOf("a", "b", "B")
	f.Fuzz(func(t *testing.T, content string) {
		w, err := ReadVectors(t.Context(), writeFile(t, "v.txt", content), v)
		if err == nil {
			w.Fill(make([]float32, v.Len()*w.Dim))
		}
	})
}
