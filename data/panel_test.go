package data

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// write puts a file into a fresh directory.
func write(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustRead(t *testing.T, name, content string, o *ReadOptions) *Panel {
	t.Helper()
	p, err := ReadPanel(t.Context(), write(t, name, content), o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// refuse wants an InputError of one line with the given parts.
func refuse(t *testing.T, name, content string, o *ReadOptions, parts ...string) {
	t.Helper()
	path := write(t, name, content)
	_, err := ReadPanel(t.Context(), path, o)
	wantError(t, err, parts...)
	if err != nil && !strings.HasPrefix(err.Error(), path+": ") {
		t.Errorf("error does not name the file: %v", err)
	}
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	var input *InputError
	if !errors.As(err, &input) {
		t.Fatalf("want an InputError with %q, got %v", parts, err)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error lacks %q: %v", part, err)
		}
	}
	if strings.ContainsAny(err.Error(), "\r\n") {
		t.Errorf("error has more than one line: %q", err)
	}
}

func wantValues(t *testing.T, got []float64, want ...float64) {
	t.Helper()
	if d := cmp.Diff(want, got, cmpopts.EquateNaNs(), cmpopts.EquateApprox(1e-12, 0)); d != "" {
		t.Errorf("values (-want +got):\n%s", d)
	}
}

// zipped is content in gzip.
func zipped(content string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write([]byte(content))
	w.Close()
	return b.String()
}

const small = "time,a,b\n2020-01-01 00:00,1,10\n2020-01-01 01:00,2,20\n2020-01-01 02:00,3,30\n"

func TestReadCSVVariants(t *testing.T) {
	variants := map[string]string{
		"plain":     small,
		"semicolon": strings.ReplaceAll(small, ",", ";"),
		"tab":       strings.ReplaceAll(small, ",", "\t"),
		"pipe":      strings.ReplaceAll(small, ",", "|"),
		"crlf":      strings.ReplaceAll(small, "\n", "\r\n"),
		"bom":       "\xef\xbb\xbf" + small,
		"gzip":      zipped(small),
		"gzip bom":  zipped("\xef\xbb\xbf" + small),
		"spaces":    strings.ReplaceAll(small, ",", " , "),
		"quoted":    "\"time\",\"a\",\"b\"\n\"2020-01-01 00:00\",\"1\",\"10\"\n\"2020-01-01 01:00\",\"2\",\"20\"\n\"2020-01-01 02:00\",\"3\",\"30\"\n",
		"no end":    strings.TrimSuffix(small, "\n"),
	}
	for name, content := range variants {
		t.Run(name, func(t *testing.T) {
			p := mustRead(t, "x.csv", content, &ReadOptions{Time: "time", Values: []string{"b", "a"}})
			if d := cmp.Diff([]string{"b", "a"}, p.Columns); d != "" {
				t.Error(d)
			}
			if p.Freq != Every(time.Hour) || !p.HasTime || len(p.Series) != 1 {
				t.Errorf("got freq %v, time %v, %d series", p.Freq, p.HasTime, len(p.Series))
			}
			s := p.Series[0]
			wantValues(t, s.Values[0], 10, 20, 30)
			wantValues(t, s.Values[1], 1, 2, 3)
			if d := cmp.Diff([]int{2, 3, 4}, s.Line); d != "" {
				t.Error(d)
			}
			if want := time.Date(2020, 1, 1, 2, 0, 0, 0, time.UTC); !s.Time[2].Equal(want) {
				t.Errorf("got time %v, want %v", s.Time[2], want)
			}
		})
	}
}

func TestSniff(t *testing.T) {
	for _, c := range []struct {
		head string
		want rune
	}{
		{"time stamp,load value\n2020-01-01 00:00 UTC,5\n", ','},
		{"t;v\n2020;1,5\n2021;2,5\n", ';'},
		{"a b\n1 2\n", ' '},
		{"a\n1\n", ','},
		{"a;b\n1;2\n1;2;3\n", ';'},
		{"\"a,b\";c\n\"1,2\";3\n", ';'},
		{"", ','},
	} {
		if got := sniff([]byte(c.head), true); got != c.want {
			t.Errorf("%q: got %q, want %q", c.head, got, c.want)
		}
	}
}

func TestReadCSVGivenDelimiter(t *testing.T) {
	p := mustRead(t, "x.csv", "a:b,c\n1:2\n3:4\n", &ReadOptions{Delimiter: ':', Values: []string{"b,c"}})
	wantValues(t, p.Series[0].Values[0], 2, 4)
	_, err := ReadPanel(t.Context(), write(t, "x.csv", small), &ReadOptions{Delimiter: '"'})
	wantError(t, err, "delimiter")
}

func TestAllColumnsAndCells(t *testing.T) {
	p := mustRead(t, "x.csv", "a,,flag\n1e2,-.5,True\n+3.,007,false\n", nil)
	if d := cmp.Diff([]string{"a", "column2", "flag"}, p.Columns); d != "" {
		t.Error(d)
	}
	if p.HasTime || p.Series[0].Time != nil || p.Freq != (Freq{}) || p.Series[0].Len() != 2 {
		t.Errorf("got %+v", p)
	}
	wantValues(t, p.Series[0].Values[0], 100, 3)
	wantValues(t, p.Series[0].Values[1], -.5, 7)
	wantValues(t, p.Series[0].Values[2], 1, 0)
}

func TestDecimalComma(t *testing.T) {
	p := mustRead(t, "x.csv", "t;v\n2020-01-01;1,5\n2020-01-02;2\n2020-01-03;1234,25\n", &ReadOptions{Time: "t"})
	wantValues(t, p.Series[0].Values[0], 1.5, 2, 1234.25)
	refuse(t, "x.csv", "t;v\n2020-01-01;1,5\n2020-01-02;2.5\n", &ReadOptions{Time: "t"}, "line 3", "decimal point")
	refuse(t, "x.csv", "t;v\n2020-01-01;1.5\n2020-01-02;2,5\n", &ReadOptions{Time: "t"}, "line 3", `"2,5"`)
	refuse(t, "x.csv", "t\tv\n2020-01-01\t1,234\n2020-01-02\t2\n", &ReadOptions{Time: "t"}, "line 2", `"1,234"`)
}

func TestBadCSV(t *testing.T) {
	hourly := &ReadOptions{Time: "time", Values: []string{"a"}}
	for _, c := range []struct {
		name, content string
		o             *ReadOptions
		parts         []string
	}{
		{"empty", "", hourly, []string{"is empty"}},
		{"header only", "time,a\n", hourly, []string{"no rows"}},
		{"wrong column", small, &ReadOptions{Time: "tiem", Values: []string{"a"}}, []string{`no column "tiem"`, `did you mean "time"?`, "time, a, b"}},
		{"wrong value", small, &ReadOptions{Time: "time", Values: []string{"zzz"}}, []string{`no column "zzz"`, "its columns are time, a, b"}},
		{"wrong id", small, &ReadOptions{Time: "time", ID: "c", Values: []string{"a"}}, []string{`no column "c"`}},
		{"wrong static", small, &ReadOptions{Time: "time", Static: []string{"c"}}, []string{`no column "c"`}},
		{"wrong open end", small, &ReadOptions{Time: "time", Values: []string{"a"}, OpenEnded: []string{"b"}}, []string{`no column "b"`}},
		{"no header", "2020-01-01,5\n2020-01-02,6\n", hourly, []string{"looks like data"}},
		{"named twice", small, &ReadOptions{Time: "time", Values: []string{"a", "a"}}, []string{`"a"`, "named twice"}},
		{"called the same", "time,a,a\n2020-01-01,1,2\n", hourly, []string{"columns 2 and 3"}},
		{"text", "time,a\n2020-01-01,1\n2020-01-02,oops\n", hourly, []string{"line 3", `column "a"`, `"oops" is not a number`}},
		{"hex", "time,a\n2020-01-01,0x1p4\n2020-01-02,2\n", hourly, []string{"line 2", "not a number"}},
		{"infinite", "time,a\n2020-01-01,1\n2020-01-02,-Inf\n", hourly, []string{"line 3", `column "a"`, "infinite"}},
		{"overflow", "time,a\n2020-01-01,1e999\n2020-01-02,2\n", hourly, []string{"line 2", "infinite"}},
		{"missing", "time,a\n2020-01-01,1\n2020-01-02,NA\n2020-01-03,3\n", hourly, []string{"line 3", `column "a"`, "missing", "--missing interpolate"}},
		{"missing time", "time,a\n2020-01-01,1\n,2\n", hourly, []string{"line 3", `column "time"`, "time is missing"}},
		{"bad time", "time,a\n2020-01-01,1\n2020-02-30,2\n", hourly, []string{"line 3", "2020-02-30", "no such day"}},
		{"ragged", "time,a\n2020-01-01,1\n2020-01-02\n2020-01-03,3\n", hourly, []string{"line 3", "1 field", "header has 2"}},
		{"quote", "time,a\n2020-01-01,\"1\n2020-01-02,2\n", hourly, []string{"line 2", "quote"}},
		{"duplicate", "time,a\n2020-01-01,1\n2020-01-02,2\n2020-01-02,3\n", hourly, []string{"line 4", "already in line 3", "--id"}},
		{"unsorted", "time,a\n2020-01-02,1\n2020-01-03,2\n2020-01-01,3\n", hourly, []string{"line 4", "2020-01-01 comes after the later 2020-01-03 of line 3"}},
		{"gap", "time,a\n2020-01-01 00:00,1\n2020-01-01 01:00,2\n2020-01-01 04:00,3\n2020-01-01 05:00,3\n", hourly, []string{"line 4", "2 rows missing", "--missing interpolate"}},
		{"uneven", "time,a\n2020-01-01 00:00,1\n2020-01-01 01:00,2\n2020-01-01 02:00,2\n2020-01-01 03:07,3\n", hourly, []string{"line 5", "not evenly spaced"}},
		{"one row", "time,a\n2020-01-01 00:00,1\n", hourly, []string{"single time"}},
		{"utf-16", "\xff\xfet\x00i\x00", hourly, []string{"UTF-16"}},
		{"xlsx", "PK\x03\x04junk", hourly, []string{"spreadsheet"}},
		{"binary", "time,a\x00\n", hourly, []string{"not a text file"}},
		{"cut gzip", zipped(small)[:40], hourly, []string{"cut short"}},
		{"not parquet", "PAR1 but no more", hourly, []string{"damaged Parquet"}},
		{"mixed offsets", "time,a\n2020-01-01T00:00Z,1\n2020-01-01T01:00,2\n", hourly, []string{"line 3", "offset"}},
		{"counted", "time,a\n1,1\n2,2\n4,3\n", hourly, []string{"line 4", "4 follows 2"}},
	} {
		t.Run(c.name, func(t *testing.T) { refuse(t, "x.csv", c.content, c.o, c.parts...) })
	}
}

func TestMissingFile(t *testing.T) {
	path := write(t, "sales.csv", small)
	_, err := ReadPanel(t.Context(), filepath.Join(filepath.Dir(path), "sale.csv"), nil)
	wantError(t, err, "there is no such file", "did you mean", "sales.csv")
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v is not fs.ErrNotExist", err)
	}
	_, err = ReadPanel(t.Context(), filepath.Dir(path), nil)
	wantError(t, err, "directory")
	_, err = ReadPanel(t.Context(), path, &ReadOptions{Layout: "wide"})
	wantError(t, err, `"wide"`)
}

const holes = "time,a,b\n2020-01-01 00:00,,1\n2020-01-01 01:00,2,1\n2020-01-01 02:00,NaN,?\n2020-01-01 04:00,8,4\n2020-01-01 05:00,null,5\n"

func TestInterpolate(t *testing.T) {
	p := mustRead(t, "x.csv", holes, &ReadOptions{Time: "time", Missing: Interpolate})
	s := p.Series[0]
	wantValues(t, s.Values[0], 2, 2, 4, 6, 8, 8)
	wantValues(t, s.Values[1], 1, 1, 2, 3, 4, 5)
	if d := cmp.Diff([]int{2, 3, 4, 0, 5, 6}, s.Line); d != "" {
		t.Error(d)
	}
	if s.Time[3].Hour() != 3 {
		t.Errorf("filled time is %v", s.Time[3])
	}
	if d := cmp.Diff([][]bool{{true, false, true, true, false, true}, {false, false, true, true, false, false}}, s.Filled); d != "" {
		t.Error(d)
	}
	head := s.Head(4)
	if d := cmp.Diff([]bool{true, false, true, true}, head.Made(0)); d != "" || head.Len() != 4 || len(head.Time) != 4 || len(head.Values[1]) != 4 {
		t.Errorf("the first four rows are %+v", head)
	}
	whole := mustRead(t, "x.csv", "a\n1\n2\n", &ReadOptions{Missing: Interpolate}).Series[0]
	if whole.Filled != nil || whole.Made(0) != nil || whole.Head(1).Made(0) != nil {
		t.Error("nothing was filled in")
	}
	refuse(t, "x.csv", "time,a\n2020-01-01,\n2020-01-02,\n", &ReadOptions{Time: "time", Missing: Interpolate}, `column "a"`, "all values are missing")
	// In time, not in rows: February is shorter than the months around it.
	p = mustRead(t, "x.csv", "m,a\n2021-01,0\n2021-02,\n2021-03,59\n", &ReadOptions{Time: "m", Missing: Interpolate})
	wantValues(t, p.Series[0].Values[0], 0, 31, 59)
}

func TestMask(t *testing.T) {
	nan := math.NaN()
	p := mustRead(t, "x.csv", holes, &ReadOptions{Time: "time", Missing: Mask})
	wantValues(t, p.Series[0].Values[0], nan, 2, nan, nan, 8, nan)
	if p.Series[0].Filled != nil {
		t.Error("nothing is filled in")
	}
	wantValues(t, p.Series[0].Values[1], 1, 1, nan, nan, 4, 5)
}

func TestOpenEnd(t *testing.T) {
	o := &ReadOptions{Time: "t", Values: []string{"y", "x"}, OpenEnded: []string{"y"}}
	p := mustRead(t, "x.csv", "t,y,x\n2020-01-01,1,5\n2020-01-02,2,6\n2020-01-03,,7\n2020-01-04,,8\n", o)
	wantValues(t, p.Series[0].Values[0], 1, 2, math.NaN(), math.NaN())
	wantValues(t, p.Series[0].Values[1], 5, 6, 7, 8)
	refuse(t, "x.csv", "t,y,x\n2020-01-01,1,5\n2020-01-02,,6\n2020-01-03,2,7\n", o, "line 3", `"y"`)
	refuse(t, "x.csv", "t,y,x\n2020-01-01,1,5\n2020-01-02,2,6\n2020-01-03,,\n", o, "line 4", `"x"`)
}

// A sparse column may be missing anywhere, also as a whole, and is never filled in.
func TestSparseColumn(t *testing.T) {
	nan := math.NaN()
	for _, how := range []Missing{MissingError, Interpolate, Mask} {
		o := &ReadOptions{Time: "t", ID: "id", Values: []string{"y", "x"}, Sparse: []string{"y"}, Missing: how}
		p := mustRead(t, "x.csv", "t,id,y,x\n2020-01-01,a,,5\n2020-01-02,a,2,6\n2020-01-03,a,,7\n2020-01-04,a,3,8\n2020-01-01,b,,1\n2020-01-02,b,,2\n", o)
		wantValues(t, p.Series[0].Values[p.Column("y")], nan, 2, nan, 3)
		wantValues(t, p.Series[1].Values[p.Column("y")], nan, nan)
		p = mustRead(t, "x.csv", "t,id,x\n2020-01-01,a,5\n2020-01-02,a,6\n2020-01-01,b,1\n2020-01-02,b,2\n", o)
		wantValues(t, p.Series[0].Values[p.Column("x")], 5, 6)
		wantValues(t, p.Series[1].Values[p.Column("y")], nan, nan)
	}
	refuse(t, "x.csv", "t,y\n2020-01-01,1\n", &ReadOptions{Time: "t", Values: []string{"y", "x"}, Sparse: []string{"y"}}, `"x"`)
	refuse(t, "x.csv", "t,y,x\n2020-01-01,,1\n2020-01-02,,\n2020-01-03,,2\n", &ReadOptions{Time: "t", Values: []string{"y", "x"}, Sparse: []string{"y"}}, "line 3", `"x"`)
}

func TestHugeGapIsRefused(t *testing.T) {
	refuse(t, "x.csv", "time,a\n2020-01-01 00:00:00,1\n2020-01-01 00:00:01,2\n2020-01-01 00:00:02,2\n2021-01-01 00:00:00,3\n",
		&ReadOptions{Time: "time", Missing: Mask}, "line 5", "ten times")
}

func TestLongFormat(t *testing.T) {
	content := "day,shop,kind,size,sales\n" +
		"2020-01-01,B,old,1.5,10\n2020-01-01,A,new,2,1\n2020-01-02,A,new,2,2\n2020-01-02,B,old,1.5,20\n2020-01-03,B,old,1.5,30\n"
	o := &ReadOptions{Time: "day", ID: "shop", Values: []string{"sales"}, Static: []string{"kind", "size", "shop"}}
	p := mustRead(t, "x.csv", content, o)
	if len(p.Series) != 2 || p.Series[0].ID != "B" || p.Series[1].ID != "A" {
		t.Fatalf("got %+v", p.Series)
	}
	wantValues(t, p.Series[0].Values[0], 10, 20, 30)
	wantValues(t, p.Series[1].Values[0], 1, 2)
	if d := cmp.Diff([]int{3, 4}, p.Series[1].Line); d != "" {
		t.Error(d)
	}
	want := []StaticValue{{Name: "kind", Text: "old"}, {Name: "size", Text: "1.5", Number: 1.5, Numeric: true}, {Name: "shop", Text: "B"}}
	if d := cmp.Diff(want, p.Series[0].Static); d != "" {
		t.Error(d)
	}
	refuse(t, "x.csv", strings.Replace(content, "2,2\n", "2,NA\n", 1), o, "line 4", `"sales"`, `series "A"`)
	refuse(t, "x.csv", strings.Replace(content, "03,B,old", "03,B,new", 1), o, "line 6", `"kind"`, "one value per series")
	refuse(t, "x.csv", strings.Replace(content, "03,B,", "03,,", 1), o, "line 6", `"shop"`, "id is missing")
	refuse(t, "x.csv", strings.Replace(content, "03,B,", "01,B,", 1), o, "line 6", "line 5")
}

func TestColumnsLayout(t *testing.T) {
	content := "t,x,y,temp\n2020-01-01,,1,7\n2020-01-02,2,2,8\n2020-01-03,3,,9\n"
	o := &ReadOptions{Layout: LayoutColumns, Time: "t", Values: []string{"x", "y"}, Shared: []string{"temp"}}
	p := mustRead(t, "x.csv", content, o)
	if d := cmp.Diff([]string{ValueColumn, "temp"}, p.Columns); d != "" {
		t.Error(d)
	}
	x, y := p.Series[0], p.Series[1]
	if x.ID != "x" || y.ID != "y" || x.Time[0].Day() != 2 || y.Len() != 2 {
		t.Fatalf("got %+v %+v", x, y)
	}
	wantValues(t, x.Values[0], 2, 3)
	wantValues(t, x.Values[1], 8, 9)
	wantValues(t, y.Values[0], 1, 2)
	wantValues(t, y.Values[1], 7, 8)
	refuse(t, "x.csv", "t,x,y,temp\n2020-01-01,1,1,7\n2020-01-02,,2,8\n2020-01-03,3,,9\n", o, "line 3", `"x"`)
	o.Values = nil
	if p = mustRead(t, "x.csv", content, o); len(p.Series) != 2 {
		t.Errorf("got %d series", len(p.Series))
	}
}

// Open-ended series keep the rows in which shared columns are known ahead; one
// without values is a series as well.
func TestOpenEndedColumns(t *testing.T) {
	content := "t,x,y,z,temp\n2020-01-01,,1,,7\n2020-01-02,2,2,,8\n2020-01-03,3,,,9\n2020-01-04,,,,10\n"
	o := &ReadOptions{Layout: LayoutColumns, Time: "t", Values: []string{"x", "y", "z"}, Shared: []string{"temp"}, OpenEnded: []string{ValueColumn}}
	p := mustRead(t, "x.csv", content, o)
	nan := math.NaN()
	for i, want := range [][2][]float64{{{2, 3, nan}, {8, 9, 10}}, {{1, 2, nan, nan}, {7, 8, 9, 10}}, {{nan, nan, nan, nan}, {7, 8, 9, 10}}} {
		wantValues(t, p.Series[i].Values[0], want[0]...)
		wantValues(t, p.Series[i].Values[1], want[1]...)
	}
	o.Values, o.Shared = []string{"x", "y", "z"}, nil // nothing is known after the last value
	p = mustRead(t, "x.csv", content, o)
	wantValues(t, p.Series[0].Values[0], 2, 3)
	wantValues(t, p.Series[1].Values[0], 1, 2)
	if s := p.Series[2]; s.ID != "z" || s.Len() != 4 {
		t.Errorf("got %+v", s)
	}
}

// Fault names the place of a value in any layout.
func TestFaultOfSeries(t *testing.T) {
	for _, c := range []struct {
		name, content string
		o             *ReadOptions
		row           int
		want          string
	}{
		{"x.csv", "t,y\n2020-01-01,1\n2020-01-02,2\n", &ReadOptions{Time: "t"}, 1, `: line 3: column "y": bad; mend it`},
		{"x.csv", "t,y\n2020-01-01,1\n2020-01-02,2\n2020-01-04,4\n", &ReadOptions{Time: "t", Missing: Mask}, 2, `: column "y": row 3, which the file lacks: bad; mend it`},
		{"x.csv", "a,1,2,3\nb,4,5,6\n", &ReadOptions{Layout: LayoutRows}, 2, `: line 1: column "y": value 3: bad; mend it`},
		{"x.csv", "a,1,2,3\nb,4,5,6\n", &ReadOptions{Layout: LayoutRows}, -1, `: line 1: column "y": bad; mend it`},
		{"x.parquet", packed(t, wideRows(5)), &ReadOptions{Time: "ms", Values: []string{"f"}, Missing: Mask}, 3, `: row 4: column "y": bad; mend it`},
	} {
		path := write(t, c.name, c.content)
		p, err := ReadPanel(t.Context(), path, c.o)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Series[0].Fault(c.row, "y", "bad", "mend it").Error(); got != path+c.want {
			t.Errorf("got %s, want %s", got, path+c.want)
		}
	}
	s := &Series{}
	for _, row := range []int{-1, 0, 3} {
		if got := s.Fault(row, "y", "bad", "").Error(); got != `column "y": bad` {
			t.Errorf("got %s", got)
		}
	}
}

func TestRowsLayout(t *testing.T) {
	o := &ReadOptions{Layout: LayoutRows, Freq: Every(time.Hour)}
	for _, content := range []string{
		"V1,V2,V3,V4\nH1,1,2,3\nH2,4,5,\n",
		"\"V1\",\"V2\",\"V3\",\"V4\"\n\"H1\",\"1\",\"2\",\"3\"\n\"H2\",\"4\",\"5\"\n",
		"H1,1,2,3\nH2,4,5\n",
	} {
		p := mustRead(t, "x.csv", content, o)
		if len(p.Series) != 2 || p.HasTime || p.Freq.Seasons()[1] != 168 || p.Series[1].ID != "H2" {
			t.Fatalf("got %+v", p)
		}
		wantValues(t, p.Series[0].Values[0], 1, 2, 3)
		wantValues(t, p.Series[1].Values[0], 4, 5)
	}
	refuse(t, "x.csv", "V1,V2,V3,V4\nH1,1,,3\n", o, "line 2", `"V3"`, "missing")
	refuse(t, "x.csv", "V1,V2,V3,V4\nH1,1,x,3\n", o, "line 2", `"V3"`, `"x"`)
	refuse(t, "x.csv", "V1,V2\nH1,1\nH1,2\n", o, "line 3", "line 2")
	refuse(t, "x.csv", "V1,V2\nH1,\n", o, `"H1" has no values`)
	refuse(t, "x.csv", "V1,V2\n", o, "no rows")
	refuse(t, "x.csv", "V1,V2\nH1,1\n", &ReadOptions{Layout: LayoutRows, Values: []string{"valeu"}}, `did you mean "value"?`)
	refuse(t, "x.csv", "V1,V2\nH1,1\n", &ReadOptions{Layout: LayoutRows, Time: "V2"}, "no column of times")
	p := mustRead(t, "x.csv", "V1,V2,V3,V4\nH1,1,,3\n", &ReadOptions{Layout: LayoutRows, Missing: Interpolate})
	wantValues(t, p.Series[0].Values[0], 1, 2, 3)
	if d := cmp.Diff([]bool{false, true, false}, p.Series[0].Made(0)); d != "" {
		t.Error(d)
	}
}

func TestHeader(t *testing.T) {
	for name, content := range map[string]string{"x.csv": small, "x.csv.gz": zipped(small)} {
		got, err := Header(write(t, name, content), 0)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]string{"time", "a", "b"}, got); d != "" {
			t.Error(d)
		}
	}
	_, err := Header(write(t, "x.csv", ""), 0)
	wantError(t, err, "is empty")
}

// realData finds the folder of forecasting data that is not part of the
// repository.
func realData(t testing.TB, name string) string {
	t.Helper()
	root := os.Getenv("CAROUSEL_DATA")
	if root == "" {
		root = "../../shared/data"
	}
	path := filepath.Join(root, "forecast", name)
	if _, err := os.Stat(path); err != nil {
		t.Skip("needs " + name)
	}
	return path
}

func TestRealFiles(t *testing.T) {
	for _, c := range []struct {
		name   string
		o      ReadOptions
		series int
		rows   int // of the first series
		freq   string
		first  string
		last   string
	}{
		{"vic_elec_hourly.csv", ReadOptions{Time: "time"}, 1, 26304, "1h", "2012-01-01T00:00:00+11:00", "2014-12-31T23:00:00+11:00"},
		{"ETTh1.csv", ReadOptions{Time: "date"}, 1, 17420, "1h", "2016-07-01T00:00:00Z", "2018-06-26T19:00:00Z"},
		{"Hourly-train.csv", ReadOptions{Layout: LayoutRows}, 414, 700, "", "", ""},
		{"Hourly-test.csv", ReadOptions{Layout: LayoutRows}, 414, 48, "", "", ""},
		{"cif_2016_dataset.tsf", ReadOptions{}, 72, 120, "1mo", "", ""},
		{"R_AirPassengers.csv", ReadOptions{Time: "time"}, 1, 144, "1mo", "1949-01-01T00:00:00Z", "1960-12-01T00:00:00Z"},
		{"R_sunspot.month.csv", ReadOptions{Time: "time"}, 1, 3177, "1mo", "1749-01-01T00:00:00Z", "2013-09-01T00:00:00Z"},
		{"sp500-2000.csv", ReadOptions{Time: "date"}, 1, 5105, "1b", "2000-01-03T00:00:00Z", "2020-04-17T00:00:00Z"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := ReadPanel(t.Context(), realData(t, c.name), &c.o)
			if err != nil {
				t.Fatal(err)
			}
			s := p.Series[0]
			if len(p.Series) != c.series || s.Len() != c.rows || p.Freq.String() != c.freq {
				t.Errorf("got %d series, %d rows, freq %q", len(p.Series), s.Len(), p.Freq)
			}
			if c.first == "" {
				return
			}
			if got := s.Time[0].Format(time.RFC3339); got != c.first {
				t.Errorf("first time %s, want %s", got, c.first)
			}
			if got := s.Time[s.Len()-1].Format(time.RFC3339); got != c.last {
				t.Errorf("last time %s, want %s", got, c.last)
			}
		})
	}
}

func FuzzReadCSV(f *testing.F) {
	for _, seed := range []string{small, holes, "", "t;v\n1,5;2\n", "V1,V2\nH1,1\n", "a\n\"", "t,v\n1949.08,1\n1949.16,2\n", "t,v\n01/02/03,1\n", "t|v\n2020W01|1\n"} {
		f.Add([]byte(seed), byte(0))
	}
	f.Fuzz(func(t *testing.T, content []byte, how byte) {
		r := openText(content)
		columns, err := openRows(r, 0)
		if err != nil {
			return
		}
		o := &ReadOptions{Missing: Missing(how % 3), DayFirst: how&4 != 0}
		if how&8 != 0 {
			o.Time = columns.columns[0]
		}
		if how&16 != 0 {
			o.Zone = time.FixedZone("", 3600)
		}
		var p *Panel
		if how&32 != 0 {
			o.Layout = LayoutRows
			p, err = readRows(openText(content), o)
		} else {
			if how&64 != 0 {
				o.Layout = LayoutColumns
			}
			var table *table
			if table, err = readCSV(openText(content), o); err == nil {
				p, err = table.panel(o)
			}
		}
		checkPanel(t, p, o, err)
	})
}

func openText(content []byte) *LineReader {
	s := &source{name: "x", lineEnd: '\n', text: bufio.NewReaderSize(bytes.NewReader(content), sniffed)}
	return s.lines(EncodingAuto)
}

// checkPanel wants what ReadPanel promises of whatever it returns.
func checkPanel(t *testing.T, p *Panel, o *ReadOptions, err error) {
	if err != nil {
		if input := (*InputError)(nil); !errors.As(err, &input) {
			t.Fatalf("not an InputError: %v", err)
		}
		return
	}
	for _, s := range p.Series {
		if len(s.Values) != len(p.Columns) || s.Len() == 0 {
			t.Fatalf("%d columns of %d, %d rows", len(s.Values), len(p.Columns), s.Len())
		}
		for _, v := range s.Values {
			if len(v) != s.Len() {
				t.Fatalf("%d values in %d rows", len(v), s.Len())
			}
			for _, x := range v {
				if math.IsInf(x, 0) || math.IsNaN(x) && o.Missing != Mask {
					t.Fatalf("value %v", x)
				}
			}
		}
		if p.HasTime != (s.Time != nil) || s.Time != nil && len(s.Time) != s.Len() {
			t.Fatalf("%d times in %d rows", len(s.Time), s.Len())
		}
		for i := 1; i < len(s.Time); i++ {
			if !s.Time[i].After(s.Time[i-1]) {
				t.Fatalf("time %v follows %v", s.Time[i], s.Time[i-1])
			}
		}
	}
}

func BenchmarkReadCSV(b *testing.B) {
	var content strings.Builder
	content.WriteString("time,a,b,c\n")
	at := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 1_000_000 {
		fmt.Fprintf(&content, "%s,%.3f,%d,%.2f\n", at.Add(time.Duration(i)*time.Minute).Format(time.DateTime), float64(i)*.37, i%100, float64(i)/7)
	}
	path := write(b, "x.csv", content.String())
	zone, err := time.LoadLocation("Etc/GMT+5")
	if err != nil {
		b.Fatal(err)
	}
	for _, o := range []*ReadOptions{{Time: "time"}, {Time: "time", Zone: zone}} {
		b.Run(fmt.Sprintf("rows=1000000/zone=%v", o.Zone != nil), func(b *testing.B) {
			for range b.N {
				if _, err := ReadPanel(b.Context(), path, o); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
