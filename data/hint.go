package data

import "fmt"

// spareColumn is a column that the options do not name: its first rows.
type spareColumn struct {
	name string
	texts
	stamps []stamp // of a column that the file types as times
}

// mostSpare is the number of rows of a spare column that are kept.
const mostSpare = 20000

// hints returns what the columns that the options do not name seem to be, if none
// was named for the times: rows that are in fact several series, one after the
// other, train without an error.
func (t *table) hints(o *ReadOptions) []string {
	for _, s := range t.spare {
		stamps := s.times()
		if stamps == nil {
			continue
		}
		hint := fmt.Sprintf("column %s holds times: name it with --time", quoted(s.name))
		if ascend(stamps, t.id) {
			return []string{hint}
		}
		for _, other := range t.spare {
			if ids := other.ids(len(stamps)); ids != nil && ascend(stamps, ids) {
				return []string{hint + fmt.Sprintf("; its rows are several series, which column %s tells apart: name it with --id", quoted(other.name))}
			}
		}
		return []string{hint + "; it does not ascend, so its rows may be several series, or need to be sorted"}
	}
	return nil
}

// times returns the times that a column obviously holds; nil if it does not.
func (s *spareColumn) times() []stamp {
	const few = 3
	if s.stamps != nil || s.len() < few {
		return s.stamps
	}
	if first := s.at(0); isNumber(first) && len(first) != len("20060102") {
		return nil
	}
	column, fault := parseTimes(&s.texts, nil, orderUnknown)
	if fault != nil && fault.row < 0 { // only the order of day and month is unknown
		column, fault = parseTimes(&s.texts, nil, dayFirst)
	}
	if fault != nil || column.counted || column.note != "" {
		return nil
	}
	return column.stamps
}

// ids returns the series of n rows by a column of texts with few values; nil if it
// is another.
func (s *spareColumn) ids(n int) []int32 {
	if s.len() != n || isNumber(s.at(0)) {
		return nil
	}
	index := map[string]int32{}
	ids := make([]int32, n)
	for i := range ids {
		text := s.at(i)
		id, known := index[text]
		if !known {
			id = int32(len(index))
			index[text] = id
		}
		ids[i] = id
	}
	if len(index) < 2 || len(index) > n/3 {
		return nil
	}
	return ids
}

// ascend reports whether times ascend in every series; nil is one series.
func ascend(stamps []stamp, ids []int32) bool {
	last := map[int32]stamp{}
	for i, s := range stamps {
		var id int32
		if ids != nil {
			id = ids[i]
		}
		before, seen := last[id]
		if seen && (s.wall < before.wall || s.wall == before.wall && s.nano <= before.nano) {
			return false
		}
		last[id] = s
	}
	return true
}
