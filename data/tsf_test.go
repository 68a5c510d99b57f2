package data

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const smallTSF = `# a comment
@relation demo
@attribute series_name string
@attribute start_timestamp date
@attribute group string
@attribute level numeric
@frequency half_hourly
@horizon 4
@missing true
@equallength false
@data
T1:2012-01-01 00-30-00:7:1.5:1,2,?,4
T2:2013-01-01 00-00-00:north:2:5.5
`

func TestReadTSF(t *testing.T) {
	for _, name := range []string{"x.tsf", "x.txt"} {
		for _, content := range []string{smallTSF, zipped(smallTSF)} {
			p := mustRead(t, name, content, &ReadOptions{Missing: Interpolate})
			s := p.Series[0]
			if p.Freq != Every(30*time.Minute) || !p.HasTime || len(p.Series) != 2 || s.ID != "T1" {
				t.Fatalf("got %+v", p)
			}
			wantValues(t, s.Values[0], 1, 2, 3, 4)
			if d := cmp.Diff([]bool{false, false, true, false}, s.Made(0)); d != "" || p.Series[1].Made(0) != nil {
				t.Error(d)
			}
			wantValues(t, p.Series[1].Values[0], 5.5)
			if want := time.Date(2012, 1, 1, 2, 0, 0, 0, time.UTC); !s.Time[3].Equal(want) {
				t.Errorf("got %v, want %v", s.Time[3], want)
			}
			want := []StaticValue{{Name: "group", Text: "7"}, {Name: "level", Text: "1.5", Number: 1.5, Numeric: true}, {Name: "horizon", Text: "4", Number: 4, Numeric: true}}
			if d := cmp.Diff(want, s.Static); d != "" {
				t.Error(d)
			}
		}
	}
	p := mustRead(t, "x.tsf", smallTSF, &ReadOptions{Missing: Mask, Static: []string{"level"}, Values: []string{"value"}})
	if len(p.Series[0].Static) != 1 {
		t.Errorf("got %v", p.Series[0].Static)
	}
	names, err := Header(write(t, "x.tsf", smallTSF), 0)
	if d := cmp.Diff([]string{"series_name", "start_timestamp", "group", "level", "value"}, names); d != "" || err != nil {
		t.Error(d, err)
	}
}

func TestBadTSF(t *testing.T) {
	const head = "@attribute series_name string\n@frequency monthly\n@data\n"
	for _, c := range []struct {
		content string
		parts   []string
	}{
		{"", []string{"is empty"}},
		{"@frequency monthly\n", []string{"no @data"}},
		{"@data\n", []string{"no rows"}},
		{"@frequency sometimes\n@data\n1\n", []string{"line 1", "sometimes"}},
		{"@frequency 0_minutes\n@data\n1\n", []string{"line 1"}},
		{"@attribute x\n@data\n1\n", []string{"line 1", "@attribute NAME TYPE"}},
		{"@attribute x real\n@data\n1\n", []string{"line 1", "real"}},
		{"@what\n@data\n1\n", []string{"line 1", "@what"}},
		{head + "T1:1,2\nT2\n", []string{"line 5", "1 part"}},
		{head + "T1:1,x\n", []string{"line 4", "value 2", `"x"`}},
		{head + "T1:1,?,3\n", []string{"line 4", "value 2", "missing"}},
		{head + "T1:1,Inf\n", []string{"line 4", "infinite"}},
		{head + "T1:\n", []string{`"T1" has no values`}},
		{"@attribute start_timestamp date\n@frequency daily\n@data\nsoon:1\n", []string{"line 4", "start_timestamp", "soon"}},
		{"@attribute start_timestamp date\n@data\n2012-01-01:1\n", []string{"line 3", "@frequency"}},
		{"@attribute n numeric\n@data\nmany:1\n", []string{"line 3", `"n"`, "many"}},
	} {
		refuse(t, "x.tsf", c.content, nil, c.parts...)
	}
	refuse(t, "x.tsf", smallTSF, &ReadOptions{Values: []string{"close"}}, "value")
	refuse(t, "x.tsf", smallTSF, &ReadOptions{Static: []string{"levle"}}, `did you mean "level"?`)
}

func FuzzReadTSF(f *testing.F) {
	f.Add([]byte(smallTSF), byte(0))
	f.Add([]byte("@attribute start_timestamp date\n@frequency 999999_years\n@data\n9999-12-31 23-59-59:1,2,?\n"), byte(1))
	f.Fuzz(func(t *testing.T, content []byte, how byte) {
		o := &ReadOptions{Missing: Missing(how % 3)}
		p, err := readTSF(openText(content), o)
		checkPanel(t, p, o, err)
	})
}
