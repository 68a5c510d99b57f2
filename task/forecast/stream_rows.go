package forecast

import (
	"context"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
)

// streamRows is the rows that a stream keeps as they were read, so that further ones are
// read alone: with the last rows before them, which show that they are read as among all
// rows. What a table's reader decides by all rows (the layout of times, their spacing, the
// decimal separator) must be certain to stay the same; where it is not, the whole table is
// read again.
type streamRows struct {
	readTable
	by        Reading // the options that the rows were read with
	time, id  int     // columns of the table; -1: there is none
	timeWidth int     // bytes of each time's text
}

const (
	overlap = 5  // rows of a series that are read again: a change of clocks and the order of dates show in them
	nearby  = 64 // rows in which the first of these is looked for
)

// after returns the rows of a table as they were read, where r has those before them; nil
// if further rows cannot be read alone.
func (r *streamRows) after(table []task.Column, t *readTable, by *Reading) *streamRows {
	if t.joined {
		all := *r
		all.readTable = *t
		return &all
	}
	r = &streamRows{readTable: *t, by: *by, time: columnNamed(table, t.cfg.Time), id: columnNamed(table, t.cfg.ID)}
	p, cfg := t.panel, &t.cfg
	if cfg.Layout != "" || (r.time < 0) != (cfg.Time == "") || (r.id < 0) != (cfg.ID == "") || len(t.notes) > 0 || len(p.Notes) > 0 || strings.HasPrefix(p.Style.Layout, "decimal ") || !r.digits(table, 0) {
		return nil
	}
	for _, s := range p.Series {
		for row, line := range s.Line {
			if p.HasTime && line > 0 && !r.written(table, line-2, s.Time[row]) {
				return nil
			}
		}
	}
	return r
}

func columnNamed(table []task.Column, name string) int {
	return slices.IndexFunc(table, func(c task.Column) bool { return c.Name == name })
}

// written reports whether the table has a time in a row as its style writes it, in as many
// bytes as all others: then no other layout fits the column better when rows are added.
func (r *streamRows) written(table []task.Column, row int, t time.Time) bool {
	text := strings.TrimSpace(table[r.time].Text(row))
	if r.timeWidth == 0 {
		r.timeWidth = len(text)
	}
	return len(text) == r.timeWidth && r.panel.Style.Format(t) == text
}

// digits reports whether no text from a row on, of a column with values, has a decimal
// separator that other numbers of the table would decide about.
func (r *streamRows) digits(table []task.Column, from int) bool {
	if decimals[r.cfg.Decimal] != 0 || slices.ContainsFunc(table, func(c task.Column) bool { return c.Numbers != nil }) {
		return true // it is known
	}
	for i, c := range table {
		isNumber := i != r.time && i != r.id && !slices.Contains(r.cfg.Static, c.Name)
		if isNumber && slices.ContainsFunc(c.Texts[from:], func(text string) bool { return strings.Trim(strings.TrimPrefix(text, "-"), "0123456789") != "" }) {
			return false
		}
	}
	return true
}

// with returns the table whose rows from the given one on are further ones, as reading all
// of it would; nil if only that tells.
func (r *streamRows) with(ctx context.Context, table []task.Column, from int, by *Reading) *readTable {
	if r == nil || *by != r.by || from == table[0].Len() || !r.digits(table, from) {
		return nil
	}
	begins, lines := r.again(table, from)
	if begins == nil {
		return nil
	}
	cfg := r.cfg
	cfg.Freq = r.panel.Freq
	part, err := readPanel(ctx, task.Input{Table: rowsAt(table, lines)}, &cfg, nil)
	if err != nil || len(part.Series) != len(begins) || !r.alike(part) {
		return nil
	}
	panel := *r.panel
	panel.Series = slices.Clone(panel.Series)
	for _, s := range part.Series {
		at := slices.IndexFunc(panel.Series, func(one *data.Series) bool { return one.ID == s.ID })
		begin, known := begins[s.ID]
		if at < 0 || !known {
			return nil
		}
		for row, line := range s.Line {
			if line > 0 {
				s.Line[row] = lines[line-2] + 2
			}
		}
		if !r.continues(table, panel.Series[at], s, begin) {
			return nil
		}
		panel.Series[at] = extended(panel.Series[at], s, begin)
	}
	if !r.keepsFreq(&panel) {
		return nil
	}
	return &readTable{panel: &panel, cfg: r.cfg, joined: true}
}

// again returns, for each series with further rows, the row from which it is read again,
// and the lines of all those rows, from 0; nil if a series has too few.
func (r *streamRows) again(table []task.Column, from int) (begins map[string]int, lines []int) {
	n := table[0].Len()
	for _, c := range table {
		if c.Texts != nil && slices.ContainsFunc(c.Texts[from:], func(text string) bool { return !utf8.ValidString(text) }) {
			return nil, nil // it is the file that has an encoding
		}
	}
	begins = map[string]int{}
	given := map[string]bool{} // series
	for row := from; row < n && r.id >= 0; row++ {
		given[strings.TrimSpace(table[r.id].Text(row))] = true
	}
	for _, s := range r.panel.Series {
		if r.id >= 0 && !given[s.ID] {
			continue
		}
		begin := s.Len() - overlap
		for begin > 0 && begin > s.Len()-nearby && !r.settled(s, begin) {
			begin--
		}
		if begin < 0 || !r.settled(s, begin) {
			return nil, nil
		}
		begins[s.ID] = begin
		if r.id < 0 {
			return begins, rowNumbers(s.Line[begin]-2, n)
		}
		for _, line := range s.Line[begin:] {
			if line > 0 {
				lines = append(lines, line-2)
			}
		}
	}
	slices.Sort(lines)
	return begins, append(lines, rowNumbers(from, n)...)
}

func rowNumbers(from, to int) []int {
	list := make([]int, to-from)
	for i := range list {
		list[i] = from + i
	}
	return list
}

// settled reports whether no value before a row depends on one after it, as values that
// are filled in do: all columns were measured there.
func (r *streamRows) settled(s *data.Series, row int) bool {
	if s.Line[row] == 0 {
		return false
	}
	for c, column := range s.Values {
		made := s.Made(c)
		if r.cfg.Missing != "mask" && (math.IsNaN(column[row]) || made != nil && made[row]) {
			return false
		}
	}
	return true
}

// rowsAt returns rows of a table.
func rowsAt(table []task.Column, rows []int) []task.Column {
	list := make([]task.Column, len(table))
	for i, c := range table {
		list[i].Name = c.Name
		for _, row := range rows {
			if c.Texts != nil {
				list[i].Texts = append(list[i].Texts, c.Texts[row])
			} else {
				list[i].Numbers = append(list[i].Numbers, c.Numbers[row])
			}
		}
	}
	return list
}

// alike reports whether a part of the table was read as the table was.
func (r *streamRows) alike(part *data.Panel) bool {
	style := part.Style
	if all := r.panel.Style.Offset; all == data.VaryingOffsets {
		style.Offset = all // so it is with further rows, whatever theirs is
	}
	return len(part.Notes) == 0 && part.HasTime == r.panel.HasTime && style == r.panel.Style && part.Text == r.panel.Text &&
		(part.Decimal == 0 || part.Decimal == r.panel.Decimal) && slices.Equal(part.Columns, r.panel.Columns)
}

// continues reports whether a part of a series, whose first row is row begin of the series,
// has its rows as they are known, and after them each row of the table without a gap.
func (r *streamRows) continues(table []task.Column, s, part *data.Series, begin int) bool {
	same := s.Len() - begin
	if part.Len() < same || !slices.Equal(part.Line[:same], s.Line[begin:]) || slices.Contains(part.Line[same:], 0) || (part.Count == nil) != (s.Count == nil) ||
		s.Count != nil && !slices.Equal(part.Count[:same], s.Count[begin:]) ||
		s.Time != nil && !slices.EqualFunc(part.Time[:same], s.Time[begin:], time.Time.Equal) ||
		!slices.EqualFunc(part.Static, s.Static, func(a, b data.StaticValue) bool { return a.Name == b.Name && a.Text == b.Text }) {
		return false
	}
	for c := range s.Values {
		a, b := s.Made(c), part.Made(c)
		for row, x := range s.Values[c][begin:] {
			if (a == nil || !a[begin+row]) && (b == nil || !b[row]) && math.Float64bits(x) != math.Float64bits(part.Values[c][row]) && (x == x || part.Values[c][row] == part.Values[c][row]) {
				return false
			}
		}
	}
	for row := same; row < part.Len() && s.Time != nil; row++ {
		if !r.written(table, part.Line[row]-2, part.Time[row]) || !r.panel.Freq.Next(part.Time[row-1]).Equal(part.Time[row]) {
			return false
		}
	}
	return true
}

// extended returns a series with another one in place of its rows from one on.
func extended(s, part *data.Series, begin int) *data.Series {
	all := *s
	all.Line = slices.Concat(s.Line[:begin], part.Line)
	if s.Time != nil {
		all.Time = slices.Concat(s.Time[:begin], part.Time)
	}
	if s.Count != nil {
		all.Count = slices.Concat(s.Count[:begin], part.Count)
	}
	all.Values, all.Filled = make([][]float64, len(s.Values)), nil
	if s.Filled != nil || part.Filled != nil {
		all.Filled = make([][]bool, len(s.Values))
	}
	for c, column := range s.Values {
		all.Values[c] = slices.Concat(column[:begin], part.Values[c])
		if all.Filled != nil {
			all.Filled[c] = slices.Concat(filledOf(s, c)[:begin], filledOf(part, c))
		}
	}
	return &all
}

// filledOf returns which values of a column were filled in.
func filledOf(s *data.Series, column int) []bool {
	if made := s.Made(column); made != nil {
		return made
	}
	return make([]bool, s.Len())
}

// keepsFreq reports whether the spacing of all rows is the one known, now that rows were
// added one step apart.
func (r *streamRows) keepsFreq(panel *data.Panel) bool {
	freq := r.panel.Freq
	switch {
	case !panel.HasTime || r.cfg.Freq != (data.Freq{}) || freq.Unit == data.Nanosecond:
		return true
	case freq.Unit == data.Day && slices.ContainsFunc(r.panel.Series, func(s *data.Series) bool { return s.Len() > overlap && !slices.Contains(s.Line[:overlap+1], 0) }):
		return true // six rows were enough to know them from business days
	case len(panel.Series) > 1:
		return false
	}
	var times []time.Time // without those that were added
	for row, t := range panel.Series[0].Time {
		if panel.Series[0].Line[row] > 0 {
			times = append(times, t)
		}
	}
	f, err := data.Infer(times)
	return err == nil && f == freq
}

// without returns the rows that are not dropped, all from the end of a series: those from
// its end on. It is nil if the dropped rows may have decided how the others were read.
func (r *streamRows) without(drop []bool, frames []*frame) *streamRows {
	if r == nil || r.panel.HasTime && r.panel.Style.Offset == data.VaryingOffsets || len(frames) != len(r.panel.Series) {
		return nil
	}
	shift := make([]int, len(drop)+1) // dropped rows before a row
	for row, gone := range drop {
		shift[row+1] = shift[row]
		if gone {
			shift[row+1]++
		}
	}
	rest, panel := *r, *r.panel
	panel.Series = nil
	for _, f := range frames {
		s := f.series.Head(f.end)
		s.Line = slices.Clone(s.Line)
		for row, line := range s.Line {
			if line == 0 || s.Len() <= overlap || s.Time != nil && panel.Freq.Unit != data.Nanosecond && panel.Freq.Unit != data.Day {
				return nil
			}
			s.Line[row] -= shift[line-2]
		}
		panel.Series = append(panel.Series, s)
	}
	rest.panel = &panel
	return &rest
}

// bytes returns the memory of the rows.
func (r *streamRows) bytes() int {
	if r == nil {
		return 0
	}
	n := 512
	for _, s := range r.panel.Series {
		n += 256 + s.Len()*(8*len(s.Values)+8) + 24*len(s.Time) + 8*len(s.Count)
		for _, made := range s.Filled {
			n += len(made)
		}
	}
	return n
}
