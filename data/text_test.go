package data

import (
	"bytes"
	"compress/gzip"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func textFile(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if strings.HasSuffix(name, ".gz") {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		z.Write([]byte(content))
		z.Close()
		content = b.String()
	}
	if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// all collects what a reader gives before its first error.
func all[T any](seq iter.Seq2[T, error]) (list []T, err error) {
	for v, err := range seq {
		if err != nil {
			return list, err
		}
		list = append(list, v)
	}
	return list, nil
}

func TestReadExamples(t *testing.T) {
	two := []Example{{2, "a fine, long film", []string{"1"}}, {3, "dull", []string{"0"}}}
	for _, c := range []struct {
		name, content string
		o             ExampleOptions
		want          []Example
	}{
		{"a.csv", "label,review\n1,\"a fine, long film\"\n0,dull\n", ExampleOptions{}, two},
		{"a.csv", "what,review,stars\nx,\"a fine, long film\",1\ny,dull,0\n", ExampleOptions{Text: "review", Label: "stars"}, two},
		{"a.tsv.gz", "text\tlabel\na fine, long film\t1\n\"dull\"\t0\n", ExampleOptions{}, two},
		{"a.txt", "stars\ttext\n1\ta fine, long film\r\n0\tdull", ExampleOptions{Label: "1"}, two},
		{"a.jsonl", "\n{\"text\":\"a fine, long film\",\"label\":1}\n{\"text\":\"dull\",\"label\":\"0\",\"more\":[]}\n", ExampleOptions{}, two},
		{"a.txt", "\n1 a fine, long film\n0\tdull\n", ExampleOptions{Format: FormatLabelFirst}, two},
		{"a.jsonl", `{"text":"x","label":["b","a"]}`, ExampleOptions{Separator: "|"}, []Example{{1, "x", []string{"b", "a"}}}},
		{"a.jsonl", `{"text":"x","label":["b"]}`, ExampleOptions{}, []Example{{1, "x", []string{"b"}}}},
		{"a.jsonl", `{"text":"x","label":[]}`, ExampleOptions{Separator: "|"}, []Example{{1, "x", nil}}},
		{"a.csv", "text,label\nx,\ny,b\n", ExampleOptions{Separator: "|"}, []Example{{2, "x", nil}, {3, "y", []string{"b"}}}},
		{"a.csv", "text,label,label\nx,1,2\n", ExampleOptions{Text: "text", Label: "3"}, []Example{{2, "x", []string{"2"}}}},
		{"a.csv", "text,label\nx,b|a|b\n", ExampleOptions{Separator: "|"}, []Example{{2, "x", []string{"b", "a"}}}},
		{"a.csv", "text,label\n\"two\nlines\",b\n", ExampleOptions{}, []Example{{2, "two\nlines", []string{"b"}}}},
		{"a.tsv", "text\tlabel\nsaid \"so\tb\n", ExampleOptions{}, []Example{{2, "said \"so", []string{"b"}}}},
		{"a.txt", "__label__a  x  y\n__label__b __label__a|c x  __label__d y\n__label__a\n", ExampleOptions{Format: FormatLabelFirst, Separator: "|"},
			[]Example{{1, "x  y", []string{"a"}}, {2, "x  y", []string{"b", "a", "c", "d"}}}},
		{"a.csv", "sep=;\nlabel;review\n1;a fine, long film\n0;dull\n", ExampleOptions{}, []Example{{3, "a fine, long film", []string{"1"}}, {4, "dull", []string{"0"}}}},
		{"a.csv", "label,review\r1,\"a fine, long film\"\r0,dull\r", ExampleOptions{}, two},
		// Columns by number: there is a first line of names if it looks like one.
		{"a.tsv", "1\ta fine, long film\n0\tdull\n", ExampleOptions{Text: "2", Label: "1"}, []Example{{1, "a fine, long film", []string{"1"}}, {2, "dull", []string{"0"}}}},
		{"a.csv", "1,\"a fine, long film\"\n0,dull\n", ExampleOptions{Text: "2", Label: "1"}, []Example{{1, "a fine, long film", []string{"1"}}, {2, "dull", []string{"0"}}}},
		{"a.csv", "1,\"a fine, long film\"\n", ExampleOptions{Label: "1"}, []Example{{1, "a fine, long film", []string{"1"}}}},
		{"a.csv", "stars,what\n1,\"a fine, long film\"\n0,dull\n1,x\n", ExampleOptions{Text: "2", Label: "1"}, append(two[:2:2], Example{4, "x", []string{"1"}})},
		{"a.csv", "label,what\n1,\"a fine, long film\"\n0,dull\n", ExampleOptions{Text: "2", Label: "1"}, two},
		// A text without a word is no sample.
		{"a.csv", "label,review\n1,\"a fine, long film\"\n0,dull\n1, \n", ExampleOptions{}, two},
		{"a.jsonl", "\n{\"text\":\"a fine, long film\",\"label\":1}\n{\"text\":\"dull\",\"label\":\"0\"}\n{\"text\":\"\",\"label\":1}\n", ExampleOptions{}, two},
		{"a.txt", "\n1 a fine, long film\n0\tdull\n1\n0  \n", ExampleOptions{Format: FormatLabelFirst}, two},
	} {
		got, err := all(ReadExamples(textFile(t, c.name, c.content), &c.o))
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s %q: %v, %v\nwant %v", c.name, c.content, got, err, c.want)
		}
	}
}

func TestReadExamplesRefuses(t *testing.T) {
	for _, c := range []struct {
		name, content string
		o             ExampleOptions
		want          string
	}{
		{"a.csv", "", ExampleOptions{}, "is empty"},
		{"a.csv", "text,label\n", ExampleOptions{}, "holds no text"},
		{"a.csv", "review,stars\nx,1\n", ExampleOptions{}, `has no column "label"; name the column of the label; the columns are review, stars`},
		{"a.csv", "a,b,label\nx,1,2\n", ExampleOptions{}, `has no column "text"`},
		{"a.csv", "text,label,label\nx,1,2\n", ExampleOptions{}, `has several columns "label"; give the number`},
		{"a.csv", "a,b\nx,1\n", ExampleOptions{Text: "a", Label: "a"}, `column "a": is named for both the text and the label; its columns are a, b`},
		{"a.txt", "1 a fine film\n", ExampleOptions{}, "set format to label-first if its lines begin with their label"},
		{"a.csv", "text,label\nx,1\n", ExampleOptions{Text: "txt"}, `has no column "txt"; did you mean "text"?`},
		{"a.csv", "text,label\nx,1\ny\n", ExampleOptions{}, "line 3: has 1 field, the header has 2"},
		{"a.csv", "text,label\nx,\n", ExampleOptions{}, `line 2: column "label": the label is missing`},
		{"a.csv", "text,label\n\"x,1\n", ExampleOptions{}, "line 2: a quote is out of place"},
		{"a.txt", "1\n0\n", ExampleOptions{Format: FormatLabelFirst}, "holds no text"},
		{"a.txt", "__label__a x\n__label__a __label__b y\n", ExampleOptions{Format: FormatLabelFirst}, `line 2: has the labels "__label__a" and "__label__b"; if a text may have several labels, set --separator`},
		{"a.txt", "__label__a x __label__b\n", ExampleOptions{Format: FormatLabelFirst}, "line 1: has the labels"},
		{"a.jsonl", "{\"text\":\"x\",\"label\":1}\nnull\n", ExampleOptions{}, "line 2: is not a JSON object"},
		{"a.jsonl", `{"txt":"x","label":1}`, ExampleOptions{}, `line 1: has no text under the key "text"; its keys are label, txt`},
		{"a.jsonl", `{"text":"x"}`, ExampleOptions{}, `line 1: has no label under the key "label"`},
		{"a.jsonl", `{"text":"x","label":[]}`, ExampleOptions{}, `line 1: has no label under the key "label"`},
		{"a.jsonl", `{"text":"x","label":["b","a"]}`, ExampleOptions{}, "line 1: has 2 labels; if a text may have several labels, set --separator"},
		{"a.jsonl", `{"text":"x","label":{"b":1}}`, ExampleOptions{}, "line 1: has a label that is not text, a number or a list of these"},
		{"a.jsonl", `{"text":"x","label":["b",null]}`, ExampleOptions{Separator: "|"}, "line 1: has a label that is not text, a number or a list of these"},
		{"a.jsonl", `{"text":"x","label":1} {"text":"y","label":2}`, ExampleOptions{}, "line 1: has text after its JSON object"},
		{"a.txt", "0 x\x00y\n", ExampleOptions{Format: FormatLabelFirst}, "is not a text file"},
		{"a.txt", "0 a\n1 caf\xe9\n", ExampleOptions{Format: FormatLabelFirst, Encoding: EncodingUTF8}, "line 2: is not UTF-8: byte 6 is 0xe9"},
		{"a.txt", "0 \xd6\xd0\xce\xc4\xd6\xd0\n", ExampleOptions{Format: FormatLabelFirst}, "line 1: is neither UTF-8 (byte 3 is 0xd6) nor like Latin-1"},
		{"a.txt", "0 x\n", ExampleOptions{Format: "xml"}, `format: want table, jsonl or label-first, got "xml"`},
	} {
		_, err := all(ReadExamples(textFile(t, c.name, c.content), &c.o))
		var input *InputError
		if !errors.As(err, &input) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %q: %v\nwant %s", c.name, c.content, err, c.want)
		}
	}
}

func TestLatin1(t *testing.T) {
	path := textFile(t, "a.txt", "0 na\xc3\xafve\n1 caf\xe9 \x93so\x94\n0 d\xe9j\xe0 vu\n")
	var notes []string
	got, err := all(ReadExamples(path, &ExampleOptions{Format: FormatLabelFirst, Note: func(s string) { notes = append(notes, s) }}))
	if err != nil || len(got) != 3 || got[0].Text != "naïve" || got[1].Text != "café “so”" || got[2].Text != "déjà vu" {
		t.Errorf("%v, %v", got, err)
	}
	if len(notes) != 1 || !strings.HasSuffix(notes[0], "a.txt: 2 lines are not UTF-8 and are read as Latin-1, the first of them line 2") {
		t.Errorf("notes %q", notes)
	}
}

func TestReadConll(t *testing.T) {
	universal := "# text = I can't\n1\tI\tI\tPRON\tPRP\t_\t2\tnsubj\t_\t_\n2-3\tcan't\t_\t_\t_\t_\t_\t_\t_\t_\n2\tca\tcan\tAUX\tMD\t_\t0\troot\t_\t_\n3\tn't\tnot\tPART\tRB\t_\t2\tadvmod\t_\t_\n3.1\tgo\tgo\tVERB\t_\t_\t_\t_\t_\t_\n\n"
	for _, c := range []struct {
		name, content string
		o             ConllOptions
		want          []Sentence
	}{
		{"a.txt", "\nEU B-ORG\nrejects O\n\n\n# O\n", ConllOptions{}, []Sentence{{2, []string{"EU", "rejects"}, []string{"B-ORG", "O"}, nil, nil}, {6, []string{"#"}, []string{"O"}, nil, nil}}},
		{"a.txt.gz", "-DOCSTART- -X- O O\n\nEU NNP I-NP I-ORG\n", ConllOptions{Tag: "2"}, []Sentence{{3, []string{"EU"}, []string{"NNP"}, nil, nil}}},
		{"a.txt", "O\tNew York\n", ConllOptions{Token: "-1", Tag: "1", Keep: true}, []Sentence{{1, []string{"New York"}, []string{"O"}, []string{"O\tNew York"}, []int{0}}}},
		{"a.txt", "\u3000 O\n1\u00a0000 B-N\n", ConllOptions{}, []Sentence{{1, []string{"\u3000", "1\u00a0000"}, []string{"O", "B-N"}, nil, nil}}},
		{"a.txt", "a x O\nb O\n\nc O\n", ConllOptions{Tag: "2"}, []Sentence{{1, []string{"a", "b"}, []string{"x", "O"}, nil, nil}, {4, []string{"c"}, []string{"O"}, nil, nil}}},
		{"a.txt", "EU\nrejects\n", ConllOptions{Tag: "none"}, []Sentence{{1, []string{"EU", "rejects"}, nil, nil, nil}}},
		{"a.conllu", universal, ConllOptions{}, []Sentence{{2, []string{"I", "ca", "n't"}, []string{"PRON", "AUX", "PART"}, nil, nil}}},
		{"a.conllu", universal, ConllOptions{Tag: "deprel", Token: "lemma"}, []Sentence{{2, []string{"I", "can", "not"}, []string{"nsubj", "root", "advmod"}, nil, nil}}},
		{"a.conllu", universal, ConllOptions{Tag: "none", Keep: true}, []Sentence{{2, []string{"I", "ca", "n't"}, nil, strings.Split(strings.TrimSuffix(universal, "\n"), "\n"), []int{1, 3, 4}}}},
	} {
		got, err := all(ReadConll(textFile(t, c.name, c.content), &c.o))
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s %q: %v, %v\nwant %v", c.name, c.content, got, err, c.want)
		}
	}
	for _, c := range []struct {
		content string
		o       ConllOptions
		want    string
	}{
		{"", ConllOptions{}, "holds no sentence"},
		{"EU B-ORG\nrejects\n", ConllOptions{}, "line 2: has 1 column, the tag is expected in column -1, the last"},
		{"EU NNP B-NP B-ORG\n\na DT O\nb NN B-NP O\n", ConllOptions{}, "line 4: has 4 columns, the lines above it 3; every token"},
		{"\tO\n", ConllOptions{}, "line 1: has no token in column 1"},
		{"EU B-ORG\n", ConllOptions{Token: "2", Tag: "2"}, "token column and tag column are both 2"},
		{"EU B-ORG\n", ConllOptions{Tag: "4"}, "line 1: has 2 columns, the tag is expected in column 4"},
		{"EU B-ORG\n", ConllOptions{Tag: "upos"}, `tag column: want a number from 1, or from -1 backwards from the last column, got "upos"`},
		{"EU B-ORG\n", ConllOptions{Format: "x"}, `format: want conll, conllu or bmes, got "x"`},
	} {
		_, err := all(ReadConll(textFile(t, "a.txt", c.content), &c.o))
		var input *InputError
		if !errors.As(err, &input) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v\nwant %s", c.content, err, c.want)
		}
	}
}

func TestReadPairs(t *testing.T) {
	en, de := textFile(t, "a.en", "one\n\nthree\n"), textFile(t, "a.de.gz", "eins\n\ndrei\n")
	want := []Pair{{1, "one", "eins"}, {2, "", ""}, {3, "three", "drei"}}
	got, err := all(ReadPairs(en, de, "", nil))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	short := textFile(t, "b.de", "eins\n")
	for _, c := range []struct{ source, target, want string }{
		{en, short, "a.en: has 3 lines, " + short + " has 1"},
		{short, en, "b.de: has 1 line, " + en + " has 3"},
		{textFile(t, "e", ""), textFile(t, "f", ""), "is empty"},
		{en, en + "x", "there is no such file"},
	} {
		if _, err := all(ReadPairs(c.source, c.target, "", nil)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
	table := textFile(t, "a.tsv", "id\ten\tde\n1\tone\teins\n")
	if got, err := all(ReadPairTable(table, "en", "3", "", nil)); err != nil || !reflect.DeepEqual(got, []Pair{{2, "one", "eins"}}) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := all(ReadPairTable(table, "en", "2", "", nil)); err == nil || !strings.Contains(err.Error(), `column "en": is named for both source and target`) {
		t.Error(err)
	}
	if _, err := all(ReadPairTable(table, "", "de", "", nil)); err == nil || !strings.Contains(err.Error(), `has no column "source"`) {
		t.Error(err)
	}
}

func TestReadDocuments(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"b.txt": "bee\n", "a/c.go": "package c\r\n", ".hidden": "x", "z.bin": "\x00\x01", "e": ""} {
		path := filepath.Join(dir, name)
		os.MkdirAll(filepath.Dir(path), 0o777)
		if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	var notes []string
	got, err := all(ReadDocuments(dir, "", 1<<30, func(s string) { notes = append(notes, s) }))
	want := []Document{{File: filepath.Join(dir, "a", "c.go"), Text: "package c\r\n"}, {File: filepath.Join(dir, "b.txt"), Text: "bee\n"}}
	if err != nil || !reflect.DeepEqual(got, want) || len(notes) != 2 {
		t.Errorf("%v, %v, notes %q", got, err, notes)
	}
	if got, err := all(ReadDocuments(want[1].File, "", 1<<30, nil)); err != nil || !reflect.DeepEqual(got, want[1:]) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := all(ReadDocuments(filepath.Join(dir, "none"), "", 1<<30, nil)); err == nil || !strings.Contains(err.Error(), "there is no such file") {
		t.Error(err)
	}
}

// A text that is out of proportion to its file is refused once it is long.
func TestGzipOutOfProportion(t *testing.T) {
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	line := append(bytes.Repeat([]byte("a"), 1<<20-1), '\n')
	lines := 0
	for range unexpanded>>20 + 10 {
		z.Write(line)
	}
	z.Close()
	r, err := LinesOf("a.txt.gz", b.Bytes(), EncodingAuto)
	if err != nil {
		t.Fatal(err)
	}
	for _, err = r.Next(); err == nil; _, err = r.Next() {
		lines++
	}
	var bad *InputError
	if !errors.As(err, &bad) || !strings.Contains(err.Error(), "over 100 times its size") || lines < unexpanded>>20-1 || lines > unexpanded>>20 {
		t.Errorf("after %d lines: %v", lines, err)
	}
}

func FuzzText(f *testing.F) {
	f.Add("a.csv", "text,label\n\"x\",1\n")
	f.Add("a.tsv", "text\tlabel\nx\t1\n")
	f.Add("a.jsonl", `{"text":"x","label":["a"]}`)
	f.Add("a.conllu", "1\tI\tI\tPRON\n\n")
	f.Add("a.txt", "0 caf\xe9\n")
	f.Fuzz(func(t *testing.T, name, content string) {
		if strings.ContainsAny(name, "/\x00") || len(name) > 50 || name == "" || strings.HasPrefix(name, ".") {
			t.Skip()
		}
		path := textFile(t, strings.TrimSuffix(name, ".gz"), content)
		note := func(string) {}
		for _, format := range []string{"", FormatLabelFirst} {
			all(ReadExamples(path, &ExampleOptions{Format: format, Separator: ",", Note: note}))
		}
		for _, format := range []string{"", FormatLines} {
			all(ReadTexts(path, &ExampleOptions{Format: format, Note: note}))
		}
		all(ReadConll(path, &ConllOptions{Keep: true, Note: note}))
		all(ReadPairs(path, path, "", note))
		all(ReadDocuments(path, "", 1<<30, note))
	})
}
