package forecast

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
)

// rowsOf returns a panel's rows as a table in memory, row by row of all series.
func rowsOf(p *data.Panel, cfg *Config) []task.Column {
	table := []task.Column{}
	add := func(name string, text func(s *data.Series, row int) string) {
		c := task.Column{Name: name}
		for row := range p.Series[0].Len() {
			for _, s := range p.Series {
				c.Texts = append(c.Texts, text(s, row))
			}
		}
		table = append(table, c)
	}
	if cfg.Time != "" {
		add(cfg.Time, func(s *data.Series, row int) string { return s.Time[row].Format("2006-01-02 15:04") })
	}
	if cfg.ID != "" {
		add(cfg.ID, func(s *data.Series, _ int) string { return s.ID })
	}
	for at, name := range p.Columns {
		c := task.Column{Name: name}
		for row := range p.Series[0].Len() {
			for _, s := range p.Series {
				c.Numbers = append(c.Numbers, s.Values[at][row])
			}
		}
		table = append(table, c)
	}
	return table
}

// cutTable returns rows of a table.
func cutTable(table []task.Column, from, to int) []task.Column {
	rows := make([]task.Column, len(table))
	for i, c := range table {
		rows[i].Name = c.Name
		if c.Texts != nil {
			rows[i].Texts = c.Texts[from:to]
		} else {
			rows[i].Numbers = c.Numbers[from:to]
		}
	}
	return rows
}

// trained trains a model on a table, as one in a file.
func trainedOn(t *testing.T, table []task.Column, cfg Config) *Model {
	t.Helper()
	var text bytes.Buffer
	w := csv.NewWriter(&text)
	for row := -1; row < table[0].Len(); row++ {
		var line []string
		for _, c := range table {
			if row < 0 {
				line = append(line, c.Name)
			} else {
				line = append(line, c.Text(row))
			}
		}
		if err := w.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	w.Flush()
	path := filepath.Join(t.TempDir(), "table.csv")
	if err := os.WriteFile(path, text.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	d, err := Read(t.Context(), &Files{Data: path}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	m, _, err := Train(t.Context(), d, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// withoutNotes returns a forecast as JSON. Notes are on the rows that were read.
func withoutNotes(t *testing.T, p task.Prediction) string {
	t.Helper()
	f := *p.(*Forecast)
	f.Notes = nil
	text, err := json.Marshal(&f)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Rows that arrive one by one, or a few at a time, have the forecasts of the table of all
// rows so far, bit for bit, also when the stream was written and read between them; and
// where nothing needs all rows, few are kept.
func TestStreamIsTheWholeTable(t *testing.T) {
	const training, all = 420, 600
	for name, c := range map[string]struct {
		series  int
		change  func(cfg *Config)
		panel   func(p *data.Panel)
		model   func(m *Model)
		from    int  // the first row that is sent
		growing bool // all rows are kept
		ahead   bool // each part has the rows of the horizon as well
		steps   []int
	}{
		"from nothing":                 {series: 1, steps: []int{1, 5, 2}},
		"from a row of training":       {series: 1, from: training - 100, steps: []int{1, 3, 1}},
		"several targets":              {series: 1, change: func(cfg *Config) { cfg.Target = []string{"a", "b"} }, from: 300, steps: []int{7}},
		"several series":               {series: 2, change: func(cfg *Config) { cfg.ID = "id" }, from: 300, steps: []int{2}},
		"past covariates":              {series: 1, change: func(cfg *Config) { cfg.Past = Past{"p"} }, from: 300, steps: []int{5}},
		"missing values, masked":       {series: 1, change: func(cfg *Config) { cfg.Missing, cfg.Past = "mask", Past{"p"} }, panel: punch, from: 300, steps: []int{1, 2}},
		"missing values, filled in":    {series: 1, change: func(cfg *Config) { cfg.Missing, cfg.Past = "interpolate", Past{"p"} }, panel: punch, from: 300, steps: []int{1, 4}},
		"columns that are known ahead": {series: 1, change: func(cfg *Config) { cfg.Future = Future{"x"} }, from: 300, ahead: true, steps: []int{3}},
		"lags":                         {series: 1, change: func(cfg *Config) { cfg.Lags = []int{48} }, from: 200, steps: []int{3}},
		"log targets":                  {series: 1, change: func(cfg *Config) { cfg.Transform = "log" }, from: 300, steps: []int{1, 4}},
		"quantiles":                    {series: 1, change: func(cfg *Config) { cfg.Loss = "quantile" }, from: 300, steps: []int{9}},
		"steps each from the last":     {series: 1, change: func(cfg *Config) { cfg.Head, cfg.Loss = "autoregressive", "gaussian" }, from: 380, steps: []int{12}},
		"smoothing": {series: 1, from: 300, steps: []int{10}, growing: true, model: func(m *Model) {
			m.mixture = mixture{{{Method: ownPart, Share: 0.5}, {Method: "ets", Share: 0.5}}}
		}},
		"a season": {series: 1, from: 100, steps: []int{3}, model: func(m *Model) {
			m.mixture = mixture{{{Method: ownPart, Share: 0.5}, {Method: seasonalName + "168", Share: 0.3}, {Method: "naive", Share: 0.2}}}
		}},
		"a series that is not known": {series: 1, change: func(cfg *Config) { cfg.ID = "id" }, from: 300, steps: []int{9}, growing: true, model: func(m *Model) {
			m.schema.Series, m.learnt = map[string][]targetFit{"other": m.schema.Series["A"]}, map[string]*learnt{}
		}},
		"without times":      {series: 1, change: func(cfg *Config) { cfg.Time = "" }, from: 300, steps: []int{9}, growing: true},
		"without times, few": {series: 1, change: func(cfg *Config) { cfg.Time = "" }, steps: []int{9}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := targetAlone()
			cfg.Lags = []int{0}
			if c.change != nil {
				c.change(&cfg)
			}
			panel := hourly(c.series, all)
			if c.panel != nil {
				c.panel(panel)
			}
			table := rowsOf(panel, &cfg)
			m := trainedOn(t, cutTable(table, 0, training*c.series), cfg)
			m.mixture = nil
			if c.model != nil {
				c.model(m)
			}
			s := m.newStream()().(*stream)
			kept := 0
			compared := 0
			for at, k := c.from*c.series, 0; at+m.cfg.Horizon*c.series < all*c.series; k++ {
				part := cutTable(table, at, min(all, at/c.series+c.steps[k%len(c.steps)])*c.series)
				whole := cutTable(table, c.from*c.series, at+part[0].Len())
				if at += part[0].Len(); c.ahead {
					next := aheadRows(cutTable(table, at, at+m.cfg.Horizon), "x", "time")
					part, whole = joinedTables(part, next), joinedTables(whole, next)
				}
				got, err := s.Feed(t.Context(), &task.Portion{Input: task.Input{Table: part}})
				if err != nil {
					t.Fatal(err)
				}
				if s.rows == nil && k > 10 {
					t.Errorf("after row %d: the next rows are not read alone", at)
				}
				if k%13 == 5 {
					s = again(t, m, s)
				}
				kept = max(kept, s.table[0].Len())
				if k%11 != 0 && at < all*c.series-10 {
					continue // the comparison takes more time than the stream
				}
				want, err := m.Predict(t.Context(), task.Input{Table: whole}, nil)
				if rows := whole[0].Len() / c.series; err != nil && rows < 200 && (strings.Contains(err.Error(), "too few") || rows == 1) {
					if f := got.(*Forecast); len(f.Series) > 0 || !strings.Contains(f.Notes[0], "before the first forecast") {
						t.Errorf("of %d rows, too few: %+v", rows, f)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if a, b := withoutNotes(t, got), withoutNotes(t, want); a != b {
					t.Fatalf("after row %d:\nthe stream %s\nthe table  %s", at, a, b)
				}
				compared++
			}
			if compared < 2 {
				t.Errorf("only %d forecasts were compared", compared)
			}
			if grew := kept > (all-c.from)*c.series*9/10; grew != c.growing && c.from < 350 {
				t.Errorf("%d rows were kept of %d", kept, (all-c.from)*c.series)
			}
		})
	}
}

func joinedTables(a, b []task.Column) []task.Column {
	list := make([]task.Column, len(a))
	for i := range a {
		list[i] = task.Column{Name: a[i].Name, Texts: slices.Concat(a[i].Texts, b[i].Texts), Numbers: slices.Concat(a[i].Numbers, b[i].Numbers)}
	}
	return list
}

// aheadRows removes the values of other columns than those named.
func aheadRows(rows []task.Column, names ...string) []task.Column {
	for i := range rows {
		if !slices.Contains(names, rows[i].Name) {
			rows[i].Numbers = slices.Repeat([]float64{math.NaN()}, len(rows[i].Numbers))
		}
	}
	return rows
}

// again writes a stream and reads it.
func again(t *testing.T, m *Model, s *stream) *stream {
	t.Helper()
	text, err := s.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	other := m.newStream()().(*stream)
	if err := other.UnmarshalBinary(text); err != nil {
		t.Fatal(err)
	}
	if back, err := other.MarshalBinary(); err != nil || !bytes.Equal(back, text) {
		t.Fatalf("written again: %s %v, before %s", back, err, text)
	}
	return other
}

// Input that cannot be used changes nothing, and the next row goes on from there.
func TestStreamRefuses(t *testing.T) {
	cfg := targetAlone()
	table := rowsOf(hourly(1, 300), &cfg)
	m := trainedOn(t, table, cfg)
	s := m.newStream()().(*stream)
	if _, err := s.Feed(t.Context(), &task.Portion{Input: task.Input{}}); err == nil {
		t.Error("nothing at all is accepted")
	}
	if _, err := s.Feed(t.Context(), &task.Portion{Input: task.Input{Table: cutTable(table, 0, 100)}}); err != nil {
		t.Fatal(err)
	}
	before, err := s.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	one := func(change func(rows []task.Column) []task.Column) []task.Column {
		return change(cutTable(table, 100, 101))
	}
	for what, rows := range map[string][]task.Column{
		"a missing value": func() []task.Column {
			rows := cutTable(table, 100, 102)
			rows[1].Numbers = []float64{math.NaN(), 1}
			return rows
		}(),
		"an earlier time": one(func(rows []task.Column) []task.Column { rows[0].Texts = []string{table[0].Texts[50]}; return rows }),
		"no time":         one(func(rows []task.Column) []task.Column { return rows[1:] }),
		"a text": one(func(rows []task.Column) []task.Column {
			rows[1] = task.Column{Name: "a", Texts: []string{"x"}}
			return rows
		}),
		"a line break": one(func(rows []task.Column) []task.Column { rows[0].Texts = []string{"2023-01-06\n04:00"}; return rows }),
		"columns of different lengths": one(func(rows []task.Column) []task.Column {
			rows[1].Numbers = []float64{1, 2}
			return rows
		}),
		"a column twice": one(func(rows []task.Column) []task.Column { rows[1].Name = rows[2].Name; return rows }),
	} {
		if _, err := s.Feed(t.Context(), &task.Portion{Input: task.Input{Table: rows}}); err == nil {
			t.Errorf("%s is accepted", what)
		}
		if after, err := s.MarshalBinary(); err != nil || !bytes.Equal(after, before) {
			t.Errorf("%s has changed the stream", what)
		}
	}
	if _, err := s.Feed(t.Context(), &task.Portion{Input: task.Input{Table: cutTable(table, 100, 101)}, Last: true}); err != nil {
		t.Fatal(err)
	}
	if len(s.table) > 0 {
		t.Error("rows are left after the last one")
	}
	for _, text := range []string{"", "{}", `{"version":2}`, `{"version":1,"columns":[{"name":""}]}`, `{"version":1,"before":{"a":-1}}`,
		`{"version":1,"columns":[{"name":"a","values":["1"]},{"name":"b","values":[]}]}`, `{"version":1,"columns":[{"name":"a","number":true,"values":["x"]}]}`} {
		if err := s.UnmarshalBinary([]byte(text)); err == nil {
			t.Errorf("the state %q is accepted", text)
		}
	}
}

// The time and memory of a row do not grow with the number of rows.
func TestStreamStaysSmall(t *testing.T) {
	cfg := targetAlone()
	cfg.Lags = []int{0}
	table := rowsOf(hourly(1, 400), &cfg)
	m := trainedOn(t, table, cfg)
	m.mixture = nil
	s := m.newStream()().(*stream)
	begin := time.Date(2023, 1, 2, 0, 0, 0, 0, time.UTC)
	bytes, most := 0, 0
	for row := range 900 {
		one := []task.Column{{Name: "time", Texts: []string{begin.Add(time.Duration(row) * time.Hour).Format("2006-01-02 15:04")}},
			{Name: "a", Numbers: []float64{100 + 10*math.Sin(float64(row))}}}
		if _, err := s.Feed(t.Context(), &task.Portion{Input: task.Input{Table: one}}); err != nil {
			t.Fatal(err)
		}
		if most = max(most, s.Bytes()); row == 500 {
			bytes = most
		}
	}
	if most > bytes {
		t.Errorf("%d bytes at most after 900 rows, %d after 500", most, bytes)
	}
	t.Logf("%d bytes", most)
}

// What depends on all rows is that of the rows kept, with the numbers that they have.
func TestStreamKeepsRowsToFit(t *testing.T) {
	cfg := targetAlone()
	cfg.Lags = []int{0}
	table := rowsOf(hourly(1, 640), &cfg)
	m := trainedOn(t, cutTable(table, 0, 400), cfg)
	m.mixture = mixture{{{Method: ownPart, Share: 0.5}, {Method: "drift", Share: 0.5}}}
	s := m.newStream()().(*stream)
	s.fitted = 100
	for row := 100; row < 640; row++ {
		got, err := s.Feed(t.Context(), &task.Portion{Input: task.Input{Table: cutTable(table, row, row+1)}})
		if err != nil {
			t.Fatal(err)
		}
		kept := s.table[0].Len()
		if most := min(row-99, 200); kept > most || kept < min(row-99, 100) {
			t.Fatalf("%d rows are kept of %d", kept, row-99)
		}
		if f := got.(*Forecast); len(f.Series) > 0 && f.Series[0].Row[0] != row-98 {
			t.Errorf("the row after row %d has the number %d", row-99, f.Series[0].Row[0])
		}
	}
}

// One reading of a session: what the stream costs beside the network, with few rows kept
// and with those that something is fitted to.
func BenchmarkStream(b *testing.B) {
	for _, c := range []struct {
		name    string
		mixture mixture
		change  func(cfg *Config)
	}{
		{name: "network", change: func(*Config) {}},
		{name: "drift", change: func(*Config) {}, mixture: mixture{{{Method: ownPart, Share: 0.5}, {Method: "drift", Share: 0.5}}}},
		{name: "ets", change: func(*Config) {}, mixture: mixture{{{Method: ownPart, Share: 0.5}, {Method: "ets", Share: 0.5}}}},
		{name: "covariates", change: func(cfg *Config) { cfg.Missing, cfg.Past, cfg.Loss = "mask", Past{"p"}, "quantile" }},
	} {
		b.Run(c.name, func(b *testing.B) {
			cfg := targetAlone()
			cfg.Hidden, cfg.Lags = 64, []int{0}
			c.change(&cfg)
			panel := hourly(1, 400)
			panel.Series[0].ID = "" // as that of a table without ids
			m, _, err := Train(b.Context(), &Data{Panel: panel}, cfg, nil)
			if err != nil {
				b.Fatal(err)
			}
			m.mixture = c.mixture
			table := rowsOf(panel, &cfg)
			s := m.newStream()().(*stream)
			begin := time.Date(2023, 1, 2, 0, 0, 0, 0, time.UTC)
			row := 0
			feed := func(rows int) {
				part := make([]task.Column, len(table))
				for range rows {
					one := cutTable(table, row%400, row%400+1)
					one[0].Texts = []string{begin.Add(time.Duration(row) * time.Hour).Format("2006-01-02 15:04")}
					part = joinedTables(part, one)
					row++
				}
				for i := range part {
					part[i].Name = table[i].Name
				}
				if _, err := s.Feed(b.Context(), &task.Portion{Input: task.Input{Table: part}}); err != nil {
					b.Fatal(err)
				}
			}
			feed(1500)
			for b.Loop() {
				feed(1)
			}
			b.ReportMetric(float64(s.table[0].Len()), "rows")
		})
	}
}
