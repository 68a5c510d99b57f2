package data

import (
	"strings"
	"testing"
)

func TestTagWriter(t *testing.T) {
	ten := "3\tmare\tmare\tNOUN\tS\tGender=Masc\t0\troot\t_\tSpaceAfter=No"
	for _, c := range []struct {
		o               ConllOptions
		file, row, want string
	}{
		{ConllOptions{}, "a.conllu", ten, "3\tmare\tmare\tX\tS\tGender=Masc\t0\troot\t_\tSpaceAfter=No"},
		{ConllOptions{Tag: "xpos"}, "a.conllu.gz", ten, "3\tmare\tmare\tNOUN\tX\tGender=Masc\t0\troot\t_\tSpaceAfter=No"},
		{ConllOptions{Tag: "FEATS"}, "a.conllu", ten, "3\tmare\tmare\tNOUN\tS\tX\t0\troot\t_\tSpaceAfter=No"},
		{ConllOptions{Tag: "misc"}, "a.conllu", ten, "3\tmare\tmare\tNOUN\tS\tGender=Masc\t0\troot\t_\tX"},
		{ConllOptions{Tag: "-1"}, "a.conllu", "1  mare m N", "1  mare m N X"},
		{ConllOptions{Tag: "4", Format: FormatCoNLLU}, "a.txt", "1 mare", "1 mare _ X"},
		{ConllOptions{}, "a.conll", "EU", "EU X"},
		{ConllOptions{}, "a.conll", "EU  NNP B-ORG", "EU  NNP B-ORG X"},
		{ConllOptions{}, "a.conll", "New York\tB-LOC", "New York\tB-LOC\tX"},
		{ConllOptions{Tag: "2"}, "a.conll", "EU   NNP  B-ORG ", "EU   X  B-ORG "},
		{ConllOptions{Tag: "2"}, "a.conll", "EU", "EU X"},
		{ConllOptions{Tag: "4"}, "a.conll", "EU\tNNP", "EU\tNNP\t_\tX"},
		{ConllOptions{Tag: "-2"}, "a.conll", "EU a b", "EU a X b"},
		{ConllOptions{Tag: "-2"}, "a.conll", "EU", "EU X _"},
		{ConllOptions{Token: "-1", Tag: "1"}, "a.conll", "O\tNew York", "X\tNew York"},
		{ConllOptions{Token: "-1", Tag: "1"}, "a.conll", "EU", "X EU"},
		{ConllOptions{Token: "-1", Tag: "-2"}, "a.conll", "a O EU", "a X EU"},
		{ConllOptions{Token: "-1", Tag: "-2"}, "a.conll", "EU", "X EU"},
		{ConllOptions{Tag: "none"}, "a.conll", "EU O", "EU O X"},
	} {
		write, err := c.o.TagWriter(c.file)
		if err != nil {
			t.Fatal(err)
		}
		got := write(c.row, "X")
		if got != c.want {
			t.Errorf("%+v: %q becomes %q, want %q", c.o, c.row, got, c.want)
		}
		if c.o.Tag == "none" {
			continue
		}
		// The reader with the same options finds the tag, and the token as before.
		o, before := c.o, c.o
		if before.Tag = "none"; o.Format == "" {
			o.Format = o.FormatOf(c.file)
			before.Format = o.Format
		}
		list, err := all(ReadConll(textFile(t, "a", got+"\n"), &o))
		old, _ := all(ReadConll(textFile(t, "a", c.row+"\n"), &before))
		if err != nil || len(list) != 1 || len(old) != 1 || list[0].Tags[0] != "X" || list[0].Tokens[0] != old[0].Tokens[0] {
			t.Errorf("%+v: %q is read as %v, %v; before %v", c.o, got, list, err, old)
		}
	}
	if _, err := (&ConllOptions{Tag: "upos"}).TagWriter("a.conll"); err == nil {
		t.Error("no error for a name in a file that is not CoNLL-U")
	}
	for row, want := range map[string]string{ten: strings.Replace(ten, "SpaceAfter=No", "SpaceAfter=No|Tag=O", 1), "1\ta\t_": "1\ta\tTag=O", "1 a Tag=B|b=c": "1 a b=c|Tag=O"} {
		if got := AddMisc(row, "Tag", "O"); got != want {
			t.Errorf("%q becomes %q, want %q", row, got, want)
		}
	}
}

func TestReadConllKeepsAllLines(t *testing.T) {
	for _, text := range []string{
		"# a\n\n\n-DOCSTART- -X- O\n\nEU B\n \nrejects O\n\n# end\n", "EU B\nrejects O", "\n\n", "-DOCSTART- O\n", "EU B\n\n\n\n", "1-2\tal\n1\ta\n1.1\tx\n",
	} {
		format := FormatCoNLL
		if strings.HasPrefix(text, "1-2") {
			format = FormatCoNLLU
		}
		var b strings.Builder
		r, err := LinesOf("a", []byte(text), "")
		if err != nil {
			t.Fatal(err)
		}
		for s, err := range ReadConllFrom(r, &ConllOptions{Format: format, Tag: "none", Keep: true}) {
			if err != nil {
				t.Fatal(err)
			}
			for _, row := range s.Rows {
				b.WriteString(row + "\n")
			}
			for i, place := range s.Places {
				if !strings.Contains(s.Rows[place], s.Tokens[i]) {
					t.Errorf("%q: token %d is not in line %q", text, i, s.Rows[place])
				}
			}
		}
		if got := b.String(); got != strings.TrimSuffix(text, "\n")+"\n" {
			t.Errorf("%q comes back as %q", text, got)
		}
	}
}
