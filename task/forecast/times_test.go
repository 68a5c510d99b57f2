package forecast

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
)

// untrained makes a model for a table, with weights that let every input have an
// effect.
func untrained(t *testing.T, table string, cfg Config) *Model {
	t.Helper()
	cfg.Window, cfg.Horizon, cfg.Hidden, cfg.Layers, cfg.Dropout = 8, 4, 2, 1, 0
	m, _, err := prepare(t.Context(), &Data{Panel: read(t, file(t, table), cfg)}, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range m.slab.Params {
		w := p.Read()
		for i := range w {
			w[i] += 0.3 * float32(math.Sin(float64(i*i+len(w))))
		}
		p.Write(w)
	}
	return m
}

func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "table.csv")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func forecastFile(t *testing.T, m *Model, table string) *Forecast {
	t.Helper()
	f, err := m.Forecast(t.Context(), read(t, file(t, table), m.cfg), nil)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// Lines of a forecast, cut to the table's columns, can be added to the table: it
// then reads as a longer one with the same series and spacing.
func TestForecastsFollowTheTable(t *testing.T) {
	daily := func(layout string) func(int) string {
		return func(i int) string { return time.Date(2024, 1, 20+i, 0, 0, 0, 0, time.UTC).Format(layout) }
	}
	times := map[string]func(int) string{
		"2013-12-01": daily("2006-01-02"), "01.12.2013": daily("02.01.2006"), "midnight": daily("2006-01-02 00:00:00"), "counts": func(i int) string { return fmt.Sprint(10 * (i + 1)) },
		"day numbers": func(i int) string { return fmt.Sprint(40909 + i) }, "decimal years": func(i int) string { return fmt.Sprintf("%.4f", 2018+float64(i)/24) },
		"half seconds": func(i int) string { return fmt.Sprintf("2024-01-01T00:00:%06.3f", float64(i)/2) },
		"offset": func(i int) string {
			return time.Date(2024, 1, 1, i, 0, 0, 0, time.UTC).Format("2006-01-02T15:04") + "+11:00"
		},
		"quarters": func(i int) string { return fmt.Sprintf("%dQ%d", 1990+i/4, i%4+1) },
	}
	const rows = 60
	value := func(i, k int) string { return fmt.Sprintf("%.2f", 50+10*float64(k)+9*math.Sin(float64(i+k))) }
	for name, stamp := range times {
		for layout, c := range map[string]struct {
			head string
			cfg  Config
			rows func(i int) []string
		}{
			"one series":  {"day,sales", Config{Time: "day", Target: []string{"sales"}}, func(i int) []string { return []string{stamp(i) + "," + value(i, 0)} }},
			"two targets": {"day,sales,costs", Config{Time: "day", Target: []string{"sales", "costs"}}, func(i int) []string { return []string{stamp(i) + "," + value(i, 0) + "," + value(i, 1)} }},
			"two series": {"day,shop,sales", Config{Time: "day", ID: "shop", Target: []string{"sales"}}, func(i int) []string {
				return []string{stamp(i) + ",B," + value(i, 0), stamp(i) + ",A," + value(i, 1)}
			}},
			"columns": {"day,B,A", Config{Time: "day", Target: []string{"B", "A"}, Layout: data.LayoutColumns}, func(i int) []string { return []string{stamp(i) + "," + value(i, 0) + "," + value(i, 1)} }},
		} {
			t.Run(name+"/"+layout, func(t *testing.T) {
				cfg := Defaults()
				cfg.Time, cfg.ID, cfg.Target, cfg.Layout = c.cfg.Time, c.cfg.ID, c.cfg.Target, c.cfg.Layout
				table := c.head + "\n"
				for i := range rows {
					table += strings.Join(c.rows(i), "\n") + "\n"
				}
				m := untrained(t, table, cfg)
				before := read(t, file(t, table), m.cfg)
				f := forecastFile(t, m, table)
				var b bytes.Buffer
				if err := f.Write(&b); err != nil {
					t.Fatal(err)
				}
				lines, err := csv.NewReader(&b).ReadAll()
				if err != nil {
					t.Fatal(err)
				}
				width := strings.Count(c.head, ",") + 1
				if got := strings.Join(lines[0][:width], ","); got != c.head {
					t.Fatalf("columns %q, want %q first", lines[0], c.head)
				}
				for _, line := range lines[1:] {
					table += strings.Join(line[:width], ",") + "\n"
				}
				after := read(t, file(t, table), m.cfg)
				if after.Freq != before.Freq || len(after.Series) != len(before.Series) || after.HasTime != before.HasTime {
					t.Fatalf("%d series at %v, before %d at %v", len(after.Series), after.Freq, len(before.Series), before.Freq)
				}
				for i, s := range after.Series {
					if old := before.Series[i]; s.ID != old.ID || s.Len() != rows+4 || slices.Contains(s.Line, 0) {
						t.Errorf("series %q has %d rows, before %q %d", s.ID, s.Len(), old.ID, old.Len())
					}
				}
				if want := stamp(rows); lines[1][0] != want {
					t.Errorf("the first forecast is at %s, want %s", lines[1][0], want)
				}
			})
		}
	}
}

// Where each series is a column of the table, it is one of the forecast, also if
// the series end at different times.
func TestForecastInColumns(t *testing.T) {
	at := func(days ...int) (times []time.Time, stamps []string) {
		for _, d := range days {
			times = append(times, time.Date(2024, 1, d, 0, 0, 0, 0, time.UTC))
			stamps = append(stamps, fmt.Sprintf("%02d.01.2024", d))
		}
		return times, stamps
	}
	f := &Forecast{Levels: []float64{0.5}, TimeColumn: "tag", Layout: data.LayoutColumns}
	for _, s := range []struct {
		id    string
		from  int
		value float64
	}{{"B", 3, 1.25}, {"A", 2, 1e-7}} {
		times, stamps := at(s.from, s.from+1)
		f.Series = append(f.Series, SeriesForecast{ID: s.id, Target: "value", Time: times, Stamp: stamps, Row: []int{1, 2}, Point: []float64{s.value, 2}, Quantiles: [][]float64{{s.value, 3}}})
	}
	var b bytes.Buffer
	if err := f.Write(&b); err != nil {
		t.Fatal(err)
	}
	want := "tag,B,A,B_q0.5,A_q0.5\n02.01.2024,,1e-07,,1e-07\n03.01.2024,1.25,2,1.25,3\n04.01.2024,2,,3,\n"
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

// A series that is a column of the table may end before it does, which a note says.
func TestColumnThatEndsBeforeTheTable(t *testing.T) {
	table := func(b int) string { // the rows with a value of B
		text := "day,A,B\n"
		for i := range 60 {
			value := ""
			if i < b {
				value = fmt.Sprint(i % 5)
			}
			text += fmt.Sprintf("%s,%d,%s\n", time.Date(2024, 1, 1+i, 0, 0, 0, 0, time.UTC).Format(time.DateOnly), i%7, value)
		}
		return text
	}
	cfg := Defaults()
	cfg.Time, cfg.Layout = "day", data.LayoutColumns
	m := untrained(t, table(60), cfg)
	for rows, ended := range map[int]bool{60: false, 59: true, 40: true} {
		f := forecastFile(t, m, table(rows))
		if got := slices.Contains(f.Notes, "the forecast begins after the last row with a target, which is not the last row of B"); got != ended {
			t.Errorf("B ends at row %d of 60: notes %q", rows, f.Notes)
		}
		if want := time.Date(2024, 1, 1+rows, 0, 0, 0, 0, time.UTC); !f.Series[1].Time[0].Equal(want) {
			t.Errorf("B ends at row %d of 60: its forecast begins at %v, want %v", rows, f.Series[1].Time[0], want)
		}
	}
}

// Numbers are written so that they are read as they are, in CSV as in JSON.
func TestForecastNumbers(t *testing.T) {
	table := "day,y\n"
	for i := range 60 {
		table += fmt.Sprintf("%s,%.1f\n", time.Date(2024, 1, 20+i, 0, 0, 0, 0, time.UTC).Format(time.DateOnly), 1234567940+5*math.Sin(float64(i)))
	}
	cfg := Defaults()
	cfg.Time, cfg.Target = "day", []string{"y"}
	m := untrained(t, table, cfg)
	m.residuals = residuals{slices.Repeat([][]float64{{0.1, 0.2}}, 4)}
	f := forecastFile(t, m, table)
	var b, terminal bytes.Buffer
	if err := f.Write(&b); err != nil {
		t.Fatal(err)
	}
	f.Print(&terminal)
	text, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	lines, _ := csv.NewReader(&b).ReadAll()
	for h, line := range lines[1:] {
		seen := map[float64]bool{}
		for i, cell := range line[1:] {
			x, err := strconv.ParseFloat(cell, 64)
			want := f.Series[0].Point[h]
			if i > 0 {
				want = f.Series[0].Quantiles[i-1][h]
			}
			if err != nil || x != want || strings.ContainsAny(cell, "e") || !bytes.Contains(text, []byte(cell)) {
				t.Errorf("%v is written %s (JSON %s)", want, cell, text)
			}
			seen[x] = true
		}
		if len(seen) != 3 { // the median is the forecast
			t.Errorf("line %q has %d numbers", line, len(seen))
		}
		fields := strings.Fields(strings.Split(strings.TrimSpace(terminal.String()), "\n")[h+2])
		if fields[2] == fields[4] {
			t.Errorf("the table's quantiles are equal: %q", fields)
		}
	}
}

// The same instants, written otherwise, give the same forecast, or are refused by
// a message that has both.
func TestOtherClocks(t *testing.T) {
	zone, err := time.LoadLocation("Australia/Melbourne")
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Date(2024, 3, 20, 0, 0, 0, 0, zone) // clocks go back on April 7
	table := func(text func(time.Time) string) string {
		var b strings.Builder
		b.WriteString("time,y\n")
		for i := range 24 * 60 {
			at := begin.Add(time.Duration(i) * time.Hour)
			fmt.Fprintf(&b, "%s,%.3f\n", text(at), 50+10*math.Sin(2*math.Pi*float64(at.Hour())/24)+math.Sin(float64(i)))
		}
		return b.String()
	}
	in := func(zone *time.Location, layout string) func(time.Time) string {
		return func(t time.Time) string { return t.In(zone).Format(layout) }
	}
	unix := func(t time.Time) string { return fmt.Sprint(t.Unix()) }
	const instant, local = time.RFC3339, "2006-01-02T15:04:05"
	plus := time.FixedZone("", 11*3600)
	styles := map[string]func(time.Time) string{
		"Z": in(time.UTC, instant), "+11:00": in(plus, instant), "varying": in(zone, instant), "local": in(zone, local), "unix": unix, "naive UTC": in(time.UTC, local),
	}
	type kind struct{ trained, tz string }
	models, forecasts := map[kind]*Model{}, map[kind]*Forecast{} // of each kind one, made when first asked for
	for _, c := range []struct {
		trained, tz, given string
		refused            []string // parts of the message; nil: the forecast is the same
	}{
		{"+11:00", "", "Z", nil}, {"+11:00", "", "unix", nil}, {"+11:00", "", "varying", nil}, {"+11:00", "", "naive UTC", []string{"+11:00", "no offset", "--tz"}},
		{"Z", "", "+11:00", nil}, {"Z", "", "varying", nil}, {"Z", "", "unix", nil}, {"Z", "", "naive UTC", []string{"+00:00", "no offset", "--tz"}},
		{"unix", "", "Z", nil}, {"unix", "", "+11:00", nil}, {"unix", "", "naive UTC", []string{"+00:00", "no offset"}},
		{"varying", "", "Z", []string{"+10:00 and +11:00", "+00:00", "--tz"}}, {"varying", "", "+11:00", []string{"+10:00", "May", "+11:00", "--tz"}}, {"varying", "", "unix", []string{"+00:00"}},
		{"varying", "", "naive UTC", []string{"+10:00", "no offset"}},
		{"naive UTC", "", "Z", []string{"without an offset", "+00:00", "--tz"}}, {"naive UTC", "", "varying", []string{"without an offset", "+10:00 and +11:00", "--tz"}}, {"naive UTC", "", "unix", []string{"without an offset"}},
		{"varying", "Australia/Melbourne", "Z", nil}, {"varying", "Australia/Melbourne", "+11:00", nil}, {"varying", "Australia/Melbourne", "local", nil}, {"varying", "Australia/Melbourne", "unix", nil},
		{"local", "Australia/Melbourne", "Z", nil}, {"local", "Australia/Melbourne", "varying", nil},
		{"+11:00", "+11:00", "Z", nil},
	} {
		t.Run(c.trained+" "+c.tz+" "+c.given, func(t *testing.T) {
			of := kind{c.trained, c.tz}
			if models[of] == nil {
				cfg := Defaults()
				cfg.Time, cfg.Target, cfg.TZ = "time", []string{"y"}, c.tz
				models[of] = untrained(t, table(styles[c.trained]), cfg)
				forecasts[of] = forecastFile(t, models[of], table(styles[c.trained]))
			}
			m, want := models[of], forecasts[of]
			if m.schema.Calendar.Day == 0 {
				t.Fatal("the hour is no input")
			}
			got, err := m.Forecast(t.Context(), read(t, file(t, table(styles[c.given])), m.cfg), nil)
			if c.refused != nil {
				for _, part := range c.refused {
					if err == nil || !strings.Contains(err.Error(), part) {
						t.Errorf("got %v, want %q", err, part)
					}
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got.Series[0].Point, want.Series[0].Point) {
				t.Errorf("got %v, want %v", got.Series[0].Point, want.Series[0].Point)
			}
			for h, at := range got.Series[0].Time {
				if !at.Equal(want.Series[0].Time[h]) {
					t.Errorf("step %d is at %v, want %v", h, at, want.Series[0].Time[h])
				}
			}
			if want := styles[c.given](begin.Add(24 * 60 * time.Hour)); got.Series[0].Stamp[0] != want && c.given != "varying" {
				t.Errorf("the first step is written %s, want %s", got.Series[0].Stamp[0], want)
			}
		})
	}
}

// Rows that a model was trained on are recognised whatever a later reading says of
// the zone of clocks that training knew nothing of.
func TestPartsByOtherClocks(t *testing.T) {
	begin := time.Date(2024, 3, 20, 0, 0, 0, 0, time.UTC)
	table := func(offset string, from int) string {
		var b strings.Builder
		b.WriteString("time,y\n")
		for i := from; i < 200; i++ {
			fmt.Fprintf(&b, "%s%s,%.3f\n", begin.Add(time.Duration(i)*time.Hour).Format("2006-01-02T15:04:05"), offset, math.Sin(float64(i)))
		}
		return b.String()
	}
	for _, c := range []struct {
		trained, given string // offsets
		tz             string
		from           int
		want           [3]int
	}{
		{"", "", "", 0, [3]int{140, 20, 40}}, {"", "", "Asia/Tokyo", 0, [3]int{140, 20, 40}}, {"", "", "America/Phoenix", 0, [3]int{140, 20, 40}},
		{"", "", "-09:30", 150, [3]int{0, 10, 40}}, {"", "Z", "UTC", 0, [3]int{140, 20, 40}},
		{"+02:00", "+02:00", "Asia/Tokyo", 0, [3]int{140, 20, 40}},
		{"+02:00", "+00:00", "", 0, [3]int{138, 20, 42}}, // other instants
	} {
		cfg := Defaults()
		cfg.Time, cfg.Target = "time", []string{"y"}
		m := untrained(t, table(c.trained, 0), cfg)
		m.cfg.TZ = c.tz
		d := &Data{Panel: read(t, file(t, table(c.given, c.from)), m.cfg)}
		if err := m.Recognise(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		if d.rows != c.want {
			t.Errorf("trained with offset %q, read with %q in zone %q from row %d: %v rows by part, want %v", c.trained, c.given, c.tz, c.from, d.rows, c.want)
		}
	}
}

// Rows of the same series are found in another table, by their times or else by the rows before them.
func TestSharedRows(t *testing.T) {
	begin := time.Date(2024, 3, 20, 0, 0, 0, 0, time.UTC)
	for _, timed := range []bool{true, false} {
		cfg := Defaults()
		cfg.Target = []string{"y"}
		table := func(scale float64, from, to int) string {
			text := "y\n"
			if timed {
				text = "time,y\n"
			}
			for i := from; i < to; i++ {
				if timed {
					text += begin.Add(time.Duration(i)*time.Hour).Format("2006-01-02T15:04:05") + ","
				}
				text += fmt.Sprintf("%.3f\n", scale*math.Sin(float64(i)))
			}
			return text
		}
		if timed {
			cfg.Time = "time"
		}
		m := untrained(t, table(1, 0, 200), cfg)
		read := func(text string) *Data {
			d := &Data{Panel: read(t, file(t, text), m.cfg)}
			if err := m.Recognise(t.Context(), d); err != nil {
				t.Fatal(err)
			}
			return d
		}
		verdict := read(table(1, 0, 200)) // 40 rows of the test
		for _, c := range []struct {
			other *Data
			want  int
		}{{read(table(1, 0, 200)), 40}, {read(table(1, 0, 160)), 0}, {read(table(1, 0, 165)), 5}, {read(table(2, 0, 200)), 0}} {
			if got := task.Shared(c.other, task.All, verdict, task.Test); got != c.want {
				t.Errorf("times %v: %d rows of %v are shared, want %d", timed, got, c.other, c.want)
			}
		}
	}
}

// A forecast over the hour at which clocks go back has a line for each of its steps,
// also where the table's times do not tell them apart, and follows the clocks where
// the table writes their offset.
func TestForecastWhereClocksGoBack(t *testing.T) {
	zone, err := time.LoadLocation("Australia/Melbourne")
	if err != nil {
		t.Fatal(err)
	}
	end := time.Date(2024, 4, 6, 15, 0, 0, 0, time.UTC).In(zone) // 2:00, and an hour later it is 2:00 again
	for layout, want := range map[string]string{
		"2006-01-02 15:04":       "2024-04-07 02:00,2024-04-07 02:00,2024-04-07 03:00,2024-04-07 04:00",
		"2006-01-02T15:04Z07:00": "2024-04-07T02:00+11:00,2024-04-07T02:00+10:00,2024-04-07T03:00+10:00,2024-04-07T04:00+10:00",
	} {
		for id, columns := range map[string]string{"": "time,y", "shop": "time,shop,y"} {
			table := columns + "\n"
			for i := -100; i < 0; i++ {
				table += end.Add(time.Duration(i)*time.Hour).Format(layout) + strings.Repeat(",1", strings.Count(columns, ",")-1) + fmt.Sprintf(",%.2f\n", math.Sin(float64(i)))
			}
			cfg := Defaults()
			cfg.Time, cfg.ID, cfg.Target, cfg.TZ = "time", id, []string{"y"}, "Australia/Melbourne"
			f := forecastFile(t, untrained(t, table, cfg), table)
			var b bytes.Buffer
			if err := f.Write(&b); err != nil {
				t.Fatal(err)
			}
			lines, err := csv.NewReader(&b).ReadAll()
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, line := range lines[1:] {
				got = append(got, line[0])
			}
			if strings.Join(got, ",") != want {
				t.Errorf("%s: got %v, want %s", columns, got, want)
			}
		}
	}
}

// The file of scored forecasts has the table's own times, which tell its rows apart.
func TestScoredForecastsHaveTheTablesTimes(t *testing.T) {
	for name, stamp := range map[string]func(int) string{
		"half seconds": func(i int) string { return fmt.Sprintf("2024-01-01T00:00:%06.3f", float64(i)/2) },
		"quarters":     func(i int) string { return fmt.Sprintf("%dQ%d", 1990+i/4, i%4+1) },
		"counts":       func(i int) string { return fmt.Sprint(10 * (i + 1)) },
	} {
		table := "t,y\n"
		for i := range 60 {
			table += fmt.Sprintf("%s,%.2f\n", stamp(i), 50+9*math.Sin(float64(i)))
		}
		cfg := Defaults()
		cfg.Time, cfg.Target = "t", []string{"y"}
		m := untrained(t, table, cfg)
		path := filepath.Join(t.TempDir(), "scored.csv")
		if _, err := m.Evaluate(t.Context(), &Data{Panel: read(t, file(t, table), m.cfg)}, task.Test, &EvaluateOptions{Out: path}); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		for h, line := range lines[1:5] { // the first window: 48 rows are known
			if line[2] != stamp(47) || line[3] != stamp(48+h) {
				t.Errorf("%s: step %d is at %s after %s, want %s after %s", name, h, line[3], line[2], stamp(48+h), stamp(47))
			}
		}
	}
}

// A table with semicolons and decimal commas is continued with these.
func TestForecastHasTheTablesSeparators(t *testing.T) {
	for _, c := range []struct{ field, decimal string }{{";", ","}, {";", "."}, {"\t", "."}, {",", "."}, {"|", ","}} {
		table := strings.Join([]string{"day", "units"}, c.field) + "\n"
		for i := range 60 {
			value := strconv.FormatFloat(50+9*math.Sin(float64(i)), 'f', 2, 64)
			table += time.Date(2024, 1, 1+i, 0, 0, 0, 0, time.UTC).Format("02.01.2006") + c.field + strings.Replace(value, ".", c.decimal, 1) + "\n"
		}
		cfg := Defaults()
		cfg.Time, cfg.Target = "day", []string{"units"}
		m := untrained(t, table, cfg)
		var b strings.Builder
		if err := forecastFile(t, m, table).Write(&b); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(b.String()) {
			if fields := strings.Split(strings.TrimSpace(line), c.field); fields[0] != "day" {
				table += fields[0] + c.field + fields[1] + "\n"
			}
		}
		longer := read(t, file(t, table), cfg)
		s := longer.Series[0]
		if s.Len() != 64 || longer.Freq.String() != "1d" {
			t.Fatalf("fields %q, decimal %q: %d rows at %s", c.field, c.decimal, s.Len(), longer.Freq)
		}
		if f := forecastFile(t, m, strings.Join(strings.SplitAfter(table, "\n")[:61], "")); math.Abs(f.Series[0].Point[3]-s.Values[0][63]) > 1e-9 {
			t.Errorf("fields %q, decimal %q: %v was written, %v read", c.field, c.decimal, f.Series[0].Point[3], s.Values[0][63])
		}
	}
}
