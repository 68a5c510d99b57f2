package data

import (
	"math"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Rows without times are counted, so a blank line is one of them.
func TestBlankLines(t *testing.T) {
	nan := math.NaN()
	mask := func(o ReadOptions) *ReadOptions { o.Missing = Mask; return &o }
	for _, c := range []struct {
		content string
		o       *ReadOptions
		want    []float64
		lines   []int
	}{
		{"v\n1\n\n3\n", mask(ReadOptions{}), []float64{1, nan, 3}, []int{2, 3, 4}},
		{"v\n\n\n1\n\n\n2\n\n\n", mask(ReadOptions{}), []float64{nan, nan, 1, nan, nan, 2}, []int{2, 3, 4, 5, 6, 7}},
		{"\n\nv\r\n1\r\n\r\n3\r\n\r\n", mask(ReadOptions{}), []float64{1, nan, 3}, []int{4, 5, 6}},
		{"v\n1\n  \n3\n\"\"\n", mask(ReadOptions{}), []float64{1, nan, 3, nan}, []int{2, 3, 4, 5}},
		{"v,w\n1,1\n\n3,3\n", mask(ReadOptions{}), []float64{1, nan, 3}, []int{2, 3, 4}},
		{"v,\"a\nb\"\n1,\"2\n\"\n\n3,3\n", mask(ReadOptions{Values: []string{"v"}}), []float64{1, nan, 3}, []int{3, 5, 6}},
		{"sep=;\nv\n1\n\n3\n", mask(ReadOptions{}), []float64{1, nan, 3}, []int{3, 4, 5}},
		{"t,v\n2020-01-01,1\n\n2020-01-02,3\n", mask(ReadOptions{Time: "t"}), []float64{1, 3}, []int{2, 4}},
		{"A,,3\nB,1,2\n", mask(ReadOptions{Layout: LayoutRows}), []float64{nan, 3}, []int{1, 1}},
		{"V1,V2,V3\nA,1,3\n\n", mask(ReadOptions{Layout: LayoutRows}), []float64{1, 3}, []int{2, 2}},
	} {
		for _, name := range []string{"x.csv", "x.csv.gz"} {
			p, err := ReadPanel(t.Context(), textFile(t, name, c.content), c.o)
			if err != nil {
				t.Errorf("%q: %v", c.content, err)
				continue
			}
			wantValues(t, p.Series[0].Values[0], c.want...)
			if d := cmp.Diff(c.lines, p.Series[0].Line); d != "" {
				t.Errorf("%q: %s", c.content, d)
			}
		}
	}
	refuse(t, "x.csv", "v\n1\n\n3\n", nil, `line 3: column "v": the value is missing`)
	refuse(t, "x.csv", "v,w\n1,1\n\n3,3\n", nil, `line 3: column "v": the value is missing`)
	refuse(t, "x.csv", "id,v\nA,1\n\nA,3\n", &ReadOptions{ID: "id"}, "line 3: is blank")
	// In LayoutColumns each column is a series.
	p := mustRead(t, "x.csv", "a,b\n1,2\n\n3,4\n", mask(ReadOptions{Layout: LayoutColumns}))
	wantValues(t, p.Series[1].Values[0], 2, nan, 4)
}

func TestColumnsByNumber(t *testing.T) {
	two := &ReadOptions{Time: "1", Values: []string{"2"}}
	for content, want := range map[string][]float64{
		"2020-01-01,5\n2020-01-02,6\n":           {5, 6},
		"2020-01-01;5,5\n2020-01-02;6\n":         {5.5, 6},
		"2020-01-01\t5\tx\n2020-01-02\t6\ty\n":   {5, 6},
		"1,5.5\n2,6\n3,7\n":                      {5.5, 6, 7},
		"t,v\n2020-01-01,5\n2020-01-02,6\n":      {5, 6},
		"sep=,\n2020-01-01,5\n2020-01-02,6\n":    {5, 6},
		"\xef\xbb\xbf2020-01-01,5\n2020-01-02,6": {5, 6},
	} {
		p := mustRead(t, "x.csv", content, two)
		wantValues(t, p.Series[0].Values[0], want...)
		if d := cmp.Diff([]string{"2"}, p.Columns); d != "" {
			t.Error(d)
		}
	}
	p := mustRead(t, "x.csv", "5\n6\n\n8\n", &ReadOptions{Values: []string{"1"}, Missing: Mask})
	wantValues(t, p.Series[0].Values[0], 5, 6, math.NaN(), 8)
	p = mustRead(t, "x.csv", "A,old,1,\nA,old,2,3\n", &ReadOptions{ID: "1", Static: []string{"2"}, Missing: Mask})
	if d := cmp.Diff([]string{"column3", "column4"}, p.Columns); d != "" || p.Series[0].Len() != 2 {
		t.Error(d, p.Series[0])
	}
	// Numbers as names.
	p = mustRead(t, "x.csv", "t,2019,2020\n2020-01-01,1,5\n2020-01-02,2,6\n", &ReadOptions{Time: "t", Values: []string{"2020"}})
	wantValues(t, p.Series[0].Values[0], 5, 6)
	refuse(t, "x.csv", "1,2\n2,3\n3,4\n", two, "its first line, 1, 2, may be the names of columns or values")
	refuse(t, "x.csv", "0,1\n2,3\n3,4\n", two, "may be the names of columns or values")
	refuse(t, "x.csv", "t,v\n2020-01-01,5\n", &ReadOptions{Time: "1", Values: []string{"3"}}, `has no column "3"`)
	refuse(t, "x.csv", "2020-01-01,5\n2020-01-02,x\n", two, `line 2: column "column2": "x" is not a number`)
	refuse(t, "x.csv", "2020-01-01,5\n2020-01-02,\n", two, `line 2: column "2": the value is missing`)
}

// Only an empty cell is a missing id, or a missing category.
func TestWordsThatLookMissing(t *testing.T) {
	content := "day,id,kind,size,v\n"
	words := []string{"NA", "None", "null", "nan", "n/a", "?", "DE"}
	for _, w := range words {
		content += "2020-01-01," + w + "," + w + ",1.5,1\n2020-01-02,\"" + w + "\"," + w + ",1.5,2\n"
	}
	o := &ReadOptions{Time: "day", ID: "id", Static: []string{"kind", "size"}}
	p := mustRead(t, "x.csv", content, o)
	for i, w := range words {
		s := p.Series[i]
		want := []StaticValue{{Name: "kind", Text: w}, {Name: "size", Text: "1.5", Number: 1.5, Numeric: true}}
		if d := cmp.Diff(want, s.Static); d != "" || s.ID != w || s.Len() != 2 {
			t.Errorf("%s: %+v %s", w, s, d)
		}
	}
	refuse(t, "x.csv", content+"2020-01-01,,x,1,1\n", o, `line 16: column "id": the series' id is missing`)
	refuse(t, "x.csv", content+"2020-01-01, ,x,1,1\n", o, `line 16: column "id": the series' id is missing`)
	refuse(t, "x.csv", content+"2020-01-01,x,,1,1\n", o, `line 16: column "kind": the value is missing`)
	refuse(t, "x.csv", content+"2020-01-01,x,x,NA,1\n", o, `line 16: column "size": the value is missing`)
	refuse(t, "x.csv", content+"2020-01-01,x,x,1e300,1\n", o, `line 16: column "size": 1e300 is too large`)
	p = mustRead(t, "x.csv", "id;a;b\nNA;1;2\nnull;3;4\n", &ReadOptions{Layout: LayoutRows})
	if p.Series[0].ID != "NA" || p.Series[1].ID != "null" {
		t.Errorf("ids %q, %q", p.Series[0].ID, p.Series[1].ID)
	}
}

// A series is found by its id, so no two may have the same one.
func TestUniqueIDs(t *testing.T) {
	const head = "@attribute series_name string\n@attribute start_timestamp date\n@frequency daily\n@data\n"
	refuse(t, "x.tsf", head+"A:2020-01-01 00-00-00:1,2\nB:2020-01-01 00-00-00:1,2\nA:2020-01-01 00-00-00:1,2\n", nil, `line 7: series "A" appears already in line 5`)
	refuse(t, "x.tsf", head+" A:2020-01-01 00-00-00:1,2\nA :2020-01-01 00-00-00:1,2\n", nil, `line 6: series "A" appears already in line 5`)
	refuse(t, "x.tsf", head+"2:2020-01-01 00-00-00:1,2\n:2020-01-01 00-00-00:1,2\n", nil, `line 6: series "2" appears already in line 5`)
	refuse(t, "x.csv", "A,1,2\nB,1,2\nA,3,4\n", &ReadOptions{Layout: LayoutRows}, `line 3: series "A" appears already in line 1`)
	refuse(t, "x.csv", "A,1,2\nA,\n", &ReadOptions{Layout: LayoutRows}, `series "A" appears twice`)
	refuse(t, "x.csv", "a,a\n1,2\n", &ReadOptions{Layout: LayoutColumns}, `series "a" appears twice`)
}

// Names and ids are decoded as texts are, with a note.
func TestLatin1Tables(t *testing.T) {
	content := "zeit;ort;Gr\xf6\xdfe\n2020-01-01;Z\xfcrich;1,5\n2020-01-02;Z\xfcrich;2\n2020-01-01;Z\xe4rich;1\n2020-01-02;Z\xe4rich;2\n"
	for _, encoding := range []string{EncodingAuto, EncodingLatin1} {
		var notes []string
		o := &ReadOptions{Time: "zeit", ID: "ort", Values: []string{"Größe"}, Encoding: encoding, Note: func(s string) { notes = append(notes, s) }}
		p := mustRead(t, "x.csv", content, o)
		if len(p.Series) != 2 || p.Series[0].ID != "Zürich" || p.Series[1].ID != "Zärich" {
			t.Errorf("%q: %+v", encoding, p.Series)
		}
		if said := len(notes) == 1 && strings.HasSuffix(notes[0], "x.csv: 5 lines are not UTF-8 and are read as Latin-1, the first of them line 1"); said != (encoding == EncodingAuto) {
			t.Errorf("%q: notes %q", encoding, notes)
		}
	}
	refuse(t, "x.csv", "t,v\n1,2\n2,caf\xe9\n", &ReadOptions{Time: "t", Encoding: EncodingUTF8}, "line 3: is not UTF-8: byte 6 is 0xe9")
	p := mustRead(t, "x.tsf", "@attribute series_name string\n@data\nZ\xfcrich:1,2\n", nil)
	if p.Series[0].ID != "Zürich" {
		t.Errorf("%q", p.Series[0].ID)
	}
	_, err := ReadPanel(t.Context(), write(t, "x.csv", small), &ReadOptions{Encoding: "utf-16"})
	wantError(t, err, `want utf-8 or latin-1, got "utf-16"`)
}

// A table may come from a stream, in every format.
func TestReadPanelFrom(t *testing.T) {
	for _, c := range []struct {
		content string
		o       *ReadOptions
	}{
		{small, &ReadOptions{Time: "time"}},
		{zipped("\xef\xbb\xbf" + small), &ReadOptions{Time: "time"}},
		{smallTSF, &ReadOptions{Missing: Interpolate}},
	} {
		p, err := ReadPanelFrom(t.Context(), "standard input", strings.NewReader(c.content), c.o)
		if err != nil || len(p.Series) == 0 || p.Series[0].Len() < 3 {
			t.Errorf("%.20q: %v", c.content, err)
		}
	}
	_, err := ReadPanelFrom(t.Context(), "standard input", strings.NewReader("v\n1\nx\n"), nil)
	wantError(t, err, `standard input: line 3: column "v"`)
	f, err := os.Open(write(t, "x", small))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	defer func(was *os.File) { os.Stdin = was }(os.Stdin)
	os.Stdin = f
	if p, err := ReadPanel(t.Context(), Stdin, &ReadOptions{Time: "time"}); err != nil || p.Series[0].Len() != 3 {
		t.Error(err)
	}
}
