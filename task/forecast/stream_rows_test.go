package forecast

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
)

// sameRead returns how two readings of a table differ in what a forecast depends on; "" if
// they do not.
func sameRead(a, b *data.Panel) string {
	if a.Freq != b.Freq || a.HasTime != b.HasTime || a.Style != b.Style || a.Text != b.Text || !slices.Equal(a.Columns, b.Columns) || len(a.Series) != len(b.Series) || len(b.Notes) > 0 {
		return fmt.Sprintf("%v %v %+v %v %v, %d series, and %v %v %+v %v %v, %d series", a.Freq, a.HasTime, a.Style, a.Text, a.Columns, len(a.Series), b.Freq, b.HasTime, b.Style, b.Text, b.Columns, len(b.Series))
	}
	for i, s := range a.Series {
		o := b.Series[i]
		if s.ID != o.ID || !slices.Equal(s.Line, o.Line) || !slices.Equal(s.Count, o.Count) || !slices.Equal(s.Static, o.Static) {
			return fmt.Sprintf("series %q and %q: lines %v and %v, counts %v and %v, %v and %v", s.ID, o.ID, s.Line, o.Line, s.Count, o.Count, s.Static, o.Static)
		}
		if !slices.EqualFunc(s.Time, o.Time, func(x, y time.Time) bool { return x.Equal(y) && x.Format(time.RFC3339) == y.Format(time.RFC3339) }) {
			return fmt.Sprintf("series %q: times %v and %v", s.ID, s.Time, o.Time)
		}
		for c := range s.Values {
			if !slices.EqualFunc(s.Values[c], o.Values[c], func(x, y float64) bool { return math.Float64bits(x) == math.Float64bits(y) || x != x && y != y }) ||
				!slices.Equal(filledOf(s, c), filledOf(o, c)) {
				return fmt.Sprintf("series %q, column %s: %v and %v, filled in %v and %v", s.ID, a.Columns[c], s.Values[c], o.Values[c], filledOf(s, c), filledOf(o, c))
			}
		}
	}
	return ""
}

// written is times as tables have them.
type writtenTimes struct {
	name string
	zone string
	next func(t time.Time) time.Time // nil: without times
	text func(t time.Time, row int) string
	few  bool // most rows are read with all others
}

func layout(l string) func(t time.Time, row int) string {
	return func(t time.Time, _ int) string { return t.Format(l) }
}

func after(d time.Duration) func(t time.Time) time.Time {
	return func(t time.Time) time.Time { return t.Add(d) }
}

var tablesOfTimes = []writtenTimes{
	{name: "without"},
	{name: "hours", next: after(time.Hour), text: layout("2006-01-02 15:04")},
	{name: "seconds with fractions", next: after(250 * time.Millisecond), text: layout("2006-01-02T15:04:05.000")},
	{name: "hours of a zone", zone: "Europe/Vienna", next: after(time.Hour), text: layout("2006-01-02 15:04:05")},
	{name: "local hours of a zone", zone: "Europe/Vienna", next: func(t time.Time) time.Time {
		return time.Date(t.Year(), t.Month(), t.Day(), t.Hour()+6, 0, 0, 0, t.Location())
	}, text: layout("2006-01-02 15:04"), few: true},
	{name: "offsets", zone: "Europe/Vienna", next: after(30 * time.Minute), text: layout(time.RFC3339), few: true},
	{name: "days", next: after(24 * time.Hour), text: layout("2006-01-02")},
	{name: "days, the day first", next: after(24 * time.Hour), text: layout("02/01/2006"), few: true},
	{name: "days without zeros", next: after(24 * time.Hour), text: layout("2.1.2006"), few: true},
	{name: "business days", next: func(t time.Time) time.Time {
		for t = t.AddDate(0, 0, 1); t.Weekday() == time.Saturday || t.Weekday() == time.Sunday; t = t.AddDate(0, 0, 1) {
		}
		return t
	}, text: layout("2006-01-02")},
	{name: "weeks", next: after(7 * 24 * time.Hour), text: layout("20060102")},
	{name: "months", next: func(t time.Time) time.Time { return t.AddDate(0, 1, 1-t.Day()) }, text: layout("2006-01")},
	{name: "months by name", next: func(t time.Time) time.Time { return t.AddDate(0, 1, 1-t.Day()) }, text: layout("Jan 2006")},
	{name: "seconds since 1970", next: after(time.Minute), text: func(t time.Time, _ int) string { return strconv.FormatInt(t.Unix(), 10) }},
	{name: "milliseconds since 1970", next: after(time.Minute), text: func(t time.Time, _ int) string { return strconv.FormatInt(t.UnixMilli(), 10) }},
	{name: "numbers of rows", next: after(time.Minute), text: func(_ time.Time, row int) string { return strconv.Itoa(3*row + 5) }},
	{name: "decimal years", next: func(t time.Time) time.Time { return t.AddDate(0, 1, 1-t.Day()) }, text: func(t time.Time, _ int) string {
		return strconv.FormatFloat(float64(t.Year())+float64(t.Month()-1)/12, 'f', 3, 64)
	}, few: true},
}

// However a table is written, rows that are read alone are read as among all rows, or not
// at all; and in tables without surprises nearly all are.
func TestStreamRowsAreReadAsTheWhole(t *testing.T) {
	for _, times := range tablesOfTimes {
		for seed := range uint64(3) {
			t.Run(fmt.Sprint(times.name, " ", seed), func(t *testing.T) {
				t.Parallel()
				r := rand.New(rand.NewPCG(seed, 3))
				cfg := Defaults()
				cfg.Target, cfg.Past, cfg.TZ = []string{"y"}, Past{"p"}, times.zone
				if times.next != nil {
					cfg.Time = "when"
				}
				series := 1
				if seed%3 == 1 {
					cfg.ID, series = "id", 3
					cfg.Static = []string{"size"}
				}
				cfg.Missing = []string{"error", "mask", "interpolate"}[seed%4%3]
				strange := seed%4 == 3 // gaps, numbers with separators, changes of the writing
				asTexts := seed%5 == 2
				alone, all := fed(t, r, &times, &cfg, series, strange, asTexts)
				if !strange && !times.few && cfg.Missing == "error" && alone < all*3/4 && !(series > 1 && slices.Contains([]string{"business days", "months", "months by name"}, times.name)) {
					t.Errorf("%d of %d portions are read alone", alone, all)
				}
			})
		}
	}
}

// fed gives a table's rows to a stream of rows in portions, and returns how many portions were
// read alone.
func fed(t *testing.T, r *rand.Rand, times *writtenTimes, cfg *Config, series int, strange, asTexts bool) (alone, all int) {
	m := &Model{cfg: *cfg}
	zone := time.UTC
	if times.zone != "" {
		var err error
		if zone, err = time.LoadLocation(times.zone); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Date(2024, 10, 20, 0, 0, 0, 0, zone)
	if r.IntN(2) == 0 {
		now = time.Date(2024, 3, 25, 0, 0, 0, 0, zone)
	}
	o := &PredictOptions{}
	var rows *streamRows
	var table []task.Column
	row := 0
	for all < 40 {
		began := now
		n := 1 + r.IntN(3)
		if table == nil {
			n = 10 + r.IntN(20)
		}
		part := []task.Column{}
		if cfg.Time != "" {
			part = append(part, task.Column{Name: "when"})
		}
		if cfg.ID != "" {
			part = append(part, task.Column{Name: "id"}, task.Column{Name: "size"})
		}
		part = append(part, task.Column{Name: "y"}, task.Column{Name: "p"})
		at := func(name string) *task.Column { return &part[columnNamed(part, name)] }
		for range n {
			for s := range series {
				if times.next != nil {
					text := times.text(now, row)
					if strange && r.IntN(60) == 0 {
						text = " " + text
					}
					at("when").Texts = append(at("when").Texts, text)
				}
				if cfg.ID != "" {
					at("id").Texts = append(at("id").Texts, string(rune('a'+s)))
					at("size").Numbers = append(at("size").Numbers, float64(s))
				}
				for _, name := range []string{"y", "p"} {
					x := math.Round(100 * r.NormFloat64())
					if cfg.Missing != "error" && r.IntN(9) == 0 {
						x = math.NaN()
					}
					c := at(name)
					if !asTexts || name == "p" && strange {
						c.Numbers = append(c.Numbers, x/8)
						continue
					}
					text := (&task.Column{Numbers: []float64{x}}).Text(0)
					if strange && r.IntN(20) == 0 {
						text = []string{"1.5", "1,234,567", "1.234", "1,5", "na"}[r.IntN(5)]
					}
					c.Texts = append(c.Texts, text)
				}
			}
			row++
			if times.next != nil {
				if now = times.next(now); strange && r.IntN(40) == 0 {
					now = times.next(now)
				}
			}
		}
		whole := part
		if table != nil {
			whole = joinedTables(table, part)
			for i := range whole {
				whole[i].Name = part[i].Name
			}
		}
		want, err := m.read(t.Context(), task.Input{Table: whole}, o)
		all++
		var got *readTable
		if table != nil {
			got = rows.with(t.Context(), whole, table[0].Len(), o.reading())
		}
		if got != nil {
			alone++
			if err != nil {
				t.Fatalf("%d rows: read alone, but the whole is refused: %v", whole[0].Len(), err)
			}
			if how := sameRead(got.panel, want.panel); how != "" {
				t.Fatalf("%d rows: %s", whole[0].Len(), how)
			}
			want = got
		}
		if err != nil {
			row, now = row-n, began // the portion is refused
			continue
		}
		table, rows = whole, rows.after(whole, want, o.reading())
		if r.IntN(15) == 0 && table[0].Len() > 30*series { // as a stream lets rows go
			from := 10 * series
			shorter := cutTable(table, from, table[0].Len())
			if read, err := m.read(t.Context(), task.Input{Table: shorter}, o); err == nil && read.panel.Freq == want.panel.Freq && read.panel.Style == want.panel.Style {
				table, rows = shorter, rows.after(shorter, read, o.reading())
			}
		}
	}
	return alone, all
}
