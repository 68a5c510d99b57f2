package forecast

import (
	"bytes"
	"encoding/csv"
	"io"
	"maps"
	"math"
	"slices"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
)

// Serves returns how a server offers the model: a table by its columns, with the columns
// of the forecast as Write writes them. Quantiles of levels that were not asked for are no
// column. Layouts without columns by name have the table's text as their only input.
func (m *Model) Serves() (*task.Service, error) {
	s := &task.Service{NewStream: m.newStream()}
	cfg := &m.cfg
	add := func(number bool, names ...string) {
		for _, name := range names {
			if name != "" {
				s.Columns = append(s.Columns, task.Field{Name: name, Number: number})
			}
		}
	}
	targets := cfg.targets()
	switch cfg.Layout {
	case data.LayoutRows, data.LayoutTSF:
	case data.LayoutColumns:
		if targets = cfg.Target; len(targets) == 0 {
			targets = slices.Sorted(maps.Keys(m.schema.Series))
		}
		fallthrough
	default:
		add(false, cfg.Time, cfg.ID)
		add(true, targets...)
		add(true, slices.Concat(cfg.Past, cfg.ahead())...)
		add(false, cfg.Static...)
	}
	shape := &Forecast{TimeColumn: cfg.Time, Series: []SeriesForecast{}}
	for _, name := range targets {
		shape.Series = append(shape.Series, SeriesForecast{Target: name})
	}
	key := shape.key()
	if cfg.Time == "" && m.schema.HasTime {
		key = "time"
	}
	s.Outputs = append(s.Outputs, task.Output{Name: key, Texts: func(p task.Prediction) []string {
		return p.(*Forecast).texts(func(l *line) string { return l.when })
	}})
	if id := cfg.idColumn(1); id != "" {
		s.Outputs = append(s.Outputs, task.Output{Name: id, Texts: func(p task.Prediction) []string {
			return p.(*Forecast).texts(func(l *line) string { return l.id })
		}})
	}
	levels, _ := m.levels(cfg.Quantiles)
	for _, name := range valueColumns(targets, levels) {
		s.Outputs = append(s.Outputs, task.Output{Name: name, Numbers: func(p task.Prediction) []float64 { return p.(*Forecast).numbers(name) }})
	}
	return s, nil
}

// texts returns a text for each line of the table.
func (f *Forecast) texts(of func(l *line) string) []string {
	texts := []string{}
	for _, l := range f.table().lines {
		texts = append(texts, of(l))
	}
	return texts
}

// numbers returns a column of the table, NaN where a line has no value; nil if there is
// no such column.
func (f *Forecast) numbers(column string) []float64 {
	t := f.table()
	at := slices.Index(t.head[t.keys:], column)
	if at < 0 {
		return nil
	}
	x := []float64{}
	for _, l := range t.lines {
		v := math.NaN()
		if l.given[at] {
			v = l.values[at]
		}
		x = append(x, v)
	}
	return x
}

// streamOf returns a table in memory as the text of a table in a file, so that both are
// read in one way. Numbers have a decimal point, which o is told.
func streamOf(columns []task.Column, o *data.ReadOptions) (io.Reader, error) {
	var text bytes.Buffer
	w := csv.NewWriter(&text)
	row := make([]string, len(columns))
	rows := columns[0].Len()
	for i := range columns {
		c := &columns[i]
		if row[i] = c.Name; c.Len() != rows {
			return nil, data.Errorf("the columns of a table have as many rows: %s has %d, and %s %d", columns[0].Name, rows, c.Name, c.Len())
		}
		if c.Numbers != nil {
			o.Decimal = '.'
		}
	}
	_ = w.Write(row) // to memory
	for r := range rows {
		for i := range columns {
			row[i] = columns[i].Text(r)
		}
		_ = w.Write(row)
	}
	w.Flush()
	return &text, nil
}
