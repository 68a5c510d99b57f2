package data

import (
	"bytes"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/deprecated"
)

// packed writes rows as a Parquet file.
func packed[T any](t *testing.T, rows []T, options ...parquet.WriterOption) string {
	t.Helper()
	var b bytes.Buffer
	w := parquet.NewGenericWriter[T](&b, options...)
	if _, err := w.Write(rows); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

type wideRow struct {
	Ms    int64            `parquet:"ms,timestamp(millisecond)"`
	Us    int64            `parquet:"us,timestamp(microsecond:local)"`
	Ns    int64            `parquet:"ns,timestamp(nanosecond)"`
	Old   deprecated.Int96 `parquet:"old"`
	Date  int32            `parquet:"date,date"`
	Text  string           `parquet:"text"`
	Unix  int64            `parquet:"unix"`
	Year  float64          `parquet:"year"`
	Shop  string           `parquet:"shop,dict"`
	Code  int32            `parquet:"code"`
	F     float64          `parquet:"f"`
	G     float32          `parquet:"g"`
	I     int64            `parquet:"i"`
	U     uint64           `parquet:"u"`
	B     bool             `parquet:"b"`
	Dec   int64            `parquet:"dec,decimal(2:10)"`
	Maybe *float64         `parquet:"maybe,optional"`
	List  []float64        `parquet:"list,list"`
	Deep  struct {
		X float64 `parquet:"x"`
	} `parquet:"deep"`
}

func wideRows(n int) []wideRow {
	rows := make([]wideRow, n)
	for i := range rows {
		at := time.Date(2020, 1, 1, i, 0, 0, 0, time.UTC)
		r := &rows[i]
		r.Ms, r.Us, r.Ns, r.Unix = at.UnixMilli(), at.UnixMicro(), at.UnixNano(), at.Unix()
		nanos := uint64(i%24) * uint64(time.Hour)
		r.Old = deprecated.Int96{uint32(nanos), uint32(nanos >> 32), uint32(2440588 + at.Unix()/86400)}
		r.Date = int32(18262 + i)
		r.Text = at.Format("2006-01-02 15:04")
		r.Year = 2000 + float64(i)/12
		r.Shop, r.Code = "A", 3
		x := float64(i)
		r.F, r.G, r.I, r.U, r.B, r.Dec = x+.5, float32(i)+.25, -int64(i), math.MaxUint64, i%2 == 1, int64(i)*100+25
		r.List = []float64{1, 2}
		r.Deep.X = x
		if i != 1 {
			r.Maybe = &x
		}
	}
	return rows
}

func TestReadParquet(t *testing.T) {
	content := packed(t, wideRows(3))
	values := []string{"f", "g", "i", "u", "b", "dec", "deep.x", "maybe"}
	for _, content := range []string{content, zipped(content)} {
		p := mustRead(t, "x.parquet", content, &ReadOptions{Time: "ms", ID: "shop", Static: []string{"code"}, Values: values, Missing: Interpolate})
		s := p.Series[0]
		if s.ID != "A" || p.Freq != Every(time.Hour) {
			t.Errorf("got id %q, freq %v", s.ID, p.Freq)
		}
		huge := float64(math.MaxUint64)
		for i, want := range [][]float64{{.5, 1.5, 2.5}, {.25, 1.25, 2.25}, {0, -1, -2}, {huge, huge, huge}, {0, 1, 0}, {.25, 1.25, 2.25}, {0, 1, 2}, {0, 1, 2}} {
			wantValues(t, s.Values[i], want...)
		}
		if d := cmp.Diff([]StaticValue{{Name: "code", Text: "3", Number: 3, Numeric: true}}, s.Static); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff([]int{1, 2, 3}, s.Line); d != "" {
			t.Error(d)
		}
	}
}

func TestParquetTimes(t *testing.T) {
	content := packed(t, wideRows(30))
	zone := melbourne(t)
	for _, c := range []struct{ column, freq, last, local string }{
		{"ms", "1h", "2020-01-02T05:00:00Z", "2020-01-02T16:00:00+11:00"},
		{"us", "1h", "2020-01-02T05:00:00Z", "2020-01-02T05:00:00+11:00"}, // what a clock showed
		{"ns", "1h", "2020-01-02T05:00:00Z", "2020-01-02T16:00:00+11:00"},
		{"old", "1h", "2020-01-02T05:00:00Z", "2020-01-02T16:00:00+11:00"},
		{"text", "1h", "2020-01-02T05:00:00Z", "2020-01-02T05:00:00+11:00"},
		{"unix", "1h", "2020-01-02T05:00:00Z", "2020-01-02T16:00:00+11:00"},
		{"date", "1d", "2020-01-30T00:00:00Z", "2020-01-30T00:00:00+11:00"},
		{"year", "1mo", "2002-06-01T00:00:00Z", "2002-06-01T00:00:00+10:00"},
	} {
		for _, in := range []*time.Location{nil, zone} {
			want := c.last
			if in != nil {
				want = c.local
			}
			p := mustRead(t, "x.parquet", content, &ReadOptions{Time: c.column, Values: []string{"f"}, Zone: in})
			if got := p.Series[0].Time[29].Format(time.RFC3339); got != want || p.Freq.String() != c.freq {
				t.Errorf("%s in %v: got %s at %v, want %s at %s", c.column, in, got, p.Freq, want, c.freq)
			}
		}
	}
}

// A file of several row groups and pages reads the same as one.
func TestParquetRowGroups(t *testing.T) {
	rows := wideRows(5000)
	content := packed(t, rows, parquet.MaxRowsPerRowGroup(700), parquet.PageBufferSize(1000), parquet.Compression(&parquet.Zstd))
	p := mustRead(t, "x.parquet", content, &ReadOptions{Time: "ms", Values: []string{"f", "maybe"}, Missing: Mask})
	s := p.Series[0]
	if s.Len() != len(rows) {
		t.Fatalf("got %d rows", s.Len())
	}
	for i := range rows {
		if s.Values[0][i] != rows[i].F || s.Time[i].UnixMilli() != rows[i].Ms || (i == 1) != math.IsNaN(s.Values[1][i]) {
			t.Fatalf("row %d: got %v %v at %v", i, s.Values[0][i], s.Values[1][i], s.Time[i])
		}
	}
}

func TestBadParquet(t *testing.T) {
	rows := wideRows(4)
	content := packed(t, rows)
	for _, c := range []struct {
		o     *ReadOptions
		parts []string
	}{
		{&ReadOptions{Time: "msec", Values: []string{"f"}}, []string{`no column "msec"`, "ms, us, ns"}},
		{&ReadOptions{Time: "ms", Values: []string{"maybe"}}, []string{"row 2", `"maybe"`, "missing"}},
		{&ReadOptions{Time: "ms", Values: []string{"us"}}, []string{`"us"`, "TIMESTAMP", "not numbers"}},
		{&ReadOptions{Time: "ms", Values: []string{"text"}}, []string{"row 1", `"text"`, "not a number"}},
		{&ReadOptions{Time: "ms", Values: []string{"list.list.element"}}, []string{"list in each row"}},
		{&ReadOptions{Time: "shop", Values: []string{"f"}}, []string{"row 1", `"shop"`}},
		{&ReadOptions{Layout: LayoutRows}, []string{"layout rows"}},
	} {
		refuse(t, "x.parquet", content, c.o, c.parts...)
	}
	rows[2].F = math.Inf(1)
	refuse(t, "x.parquet", packed(t, rows), &ReadOptions{Time: "ms", Values: []string{"f"}}, "row 3", `"f"`, "infinite")
	rows[2].F, rows[3].Ms = 0, rows[2].Ms
	refuse(t, "x.parquet", packed(t, rows), &ReadOptions{Time: "ms", Values: []string{"f"}}, "row 4", "already in row 3")
	refuse(t, "x.parquet", packed(t, rows[:0]), &ReadOptions{Time: "ms", Values: []string{"f"}}, "no rows")
	refuse(t, "x.parquet", "time,a\n", nil, "not a Parquet file")
	names, err := Header(write(t, "x.parquet", content), 0)
	if err != nil || !strings.HasPrefix(strings.Join(names, " "), "ms us ns old date") {
		t.Errorf("got %v, %v", names, err)
	}
}

// Damaged files give errors and no panics, wherever the damage is.
func TestDamagedParquet(t *testing.T) {
	content := []byte(packed(t, wideRows(50)))
	path := write(t, "x.parquet", "")
	o := &ReadOptions{Time: "ms", ID: "shop", Values: []string{"f", "dec", "maybe"}}
	for i := 4; i < len(content); i += len(content)/300 + 1 {
		damaged := bytes.Clone(content)
		damaged[i] ^= 0x5a
		for _, b := range [][]byte{damaged, content[:i]} {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			p, err := ReadPanel(t.Context(), path, o)
			checkPanel(t, p, o, err)
		}
	}
}

func TestSigned(t *testing.T) {
	for want, b := range map[int64][]byte{0: {}, 127: {0x7f}, -1: {0xff}, -128: {0x80}, 256: {1, 0}, -2: {0xff, 0xff, 0xfe}} {
		if got := signed(b).Int64(); got != want {
			t.Errorf("signed(%x) = %d, want %d", b, got, want)
		}
	}
}

type idRow struct {
	Signed   int64    `parquet:"signed"`
	Unsigned uint64   `parquet:"unsigned"`
	Short    uint32   `parquet:"short"`
	Decimal  int64    `parquet:"decimal,decimal(2:18)"`
	Small    int32    `parquet:"small,decimal(3:9)"`
	Date     int32    `parquet:"date,date"`
	At       int64    `parquet:"at,timestamp(millisecond:local)"`
	UUID     [16]byte `parquet:"uuid,uuid"`
	Double   float64  `parquet:"double"`
	Float    float32  `parquet:"float"`
	Text     string   `parquet:"text"`
	Value    float64  `parquet:"value"`
}

// Ids and static values have all their digits.
func TestParquetIDs(t *testing.T) {
	rows := []idRow{
		{9007199254740993, 18446744073709551615, 4294967295, 150, -5, 19723, 1704067200000, [16]byte{0x12, 0x3e, 15: 0xff}, 0.1, 0.1, "a7", 1},
		{9007199254740992, 18446744073709551614, 4294967294, -123456789012345678, 1500, 19724, 1704067200500, [16]byte{1}, 1e21, 16777217, "NA", 2},
	}
	for column, want := range map[string][2]string{
		"signed":   {"9007199254740993", "9007199254740992"},
		"unsigned": {"18446744073709551615", "18446744073709551614"},
		"short":    {"4294967295", "4294967294"},
		"decimal":  {"1.50", "-1234567890123456.78"},
		"small":    {"-0.005", "1.500"},
		"date":     {"2024-01-01", "2024-01-02"},
		"at":       {"2024-01-01", "2024-01-01 00:00:00.5"},
		"uuid":     {"123e0000-0000-0000-0000-0000000000ff", "01000000-0000-0000-0000-000000000000"},
		"double":   {"0.1", "1000000000000000000000"},
		"float":    {"0.1", "16777216"},
		"text":     {"a7", "NA"},
	} {
		p := mustRead(t, "x.parquet", packed(t, rows), &ReadOptions{ID: column, Static: []string{column}, Values: []string{"value"}})
		if len(p.Series) != 2 || p.Series[0].ID != want[0] || p.Series[1].ID != want[1] {
			t.Errorf("%s: %d series, %q and %q", column, len(p.Series), p.Series[0].ID, p.Series[len(p.Series)-1].ID)
			continue
		}
		for i, s := range p.Series {
			if s.Static[0].Text != want[i] {
				t.Errorf("%s: %q", column, s.Static[0].Text)
			}
		}
	}
	p, err := ReadPanelFrom(t.Context(), "standard input", strings.NewReader(packed(t, rows)), &ReadOptions{ID: "signed", Values: []string{"12"}})
	if err != nil || len(p.Series) != 2 {
		t.Error(err)
	}
	refuse(t, "x.parquet", packed(t, []idRow{{Value: 1}, {Value: -1e200}}), &ReadOptions{Values: []string{"value"}}, `row 2: column "value": -1e+200 is too large`)
}
