package data

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Split divides a series into a training, a validation and a test part, in this
// order in time. ParseSplit creates one.
type Split struct {
	text      string
	fractions *[3]float64
	rows      *[3]int
	begins    *[2]stamp // of validation and test
}

// Range is the rows from Start up to but not including End.
type Range struct{ Start, End int }

// Len returns the number of rows.
func (r Range) Len() int { return r.End - r.Start }

// Parts are the ranges of a Split: adjacent, with Train from row 0.
type Parts struct{ Train, Val, Test Range }

const splitForms = "want fractions such as 0.7,0.1,0.2, rows such as 8640,2880,2880, or the dates on which validation and test begin such as 2014-01-01,2014-06-01"

// ParseSplit parses one of three forms: the fractions of training, validation
// and test, which sum to 1; their numbers of rows; or the two times at which
// validation and test begin. Anything else is an [*InputError].
func ParseSplit(s string) (Split, error) {
	fields := strings.Split(s, ",")
	for i := range fields {
		fields[i] = strings.TrimSpace(fields[i])
	}
	split := Split{text: strings.Join(fields, ",")}
	switch len(fields) {
	case 2:
		var p timeParser
		split.begins = &[2]stamp{}
		for i, field := range fields {
			var ok bool
			if split.begins[i], ok = p.parse(field); !ok || p.ordered {
				return Split{}, Errorf("split: %s, got %s", splitForms, quoted(s))
			}
		}
		return split, nil
	case 3:
		return split, split.parseSizes(fields)
	}
	return Split{}, Errorf("split: %s, got %s", splitForms, quoted(s))
}

// parseSizes reads three fractions or three numbers of rows.
func (s *Split) parseSizes(fields []string) error {
	var sizes [3]float64
	sum, whole := 0.0, true
	for i, field := range fields {
		v, err := strconv.ParseFloat(field, 64)
		if err != nil || !isNumber(field) || v < 0 {
			return Errorf("split: %s, got %s", splitForms, quoted(s.text))
		}
		sizes[i] = v
		sum += v
		whole = whole && v == math.Trunc(v)
	}
	if sizes[0] == 0 {
		return Errorf("split: %s leaves nothing to train on", s.text)
	}
	if whole && sum != 1 {
		if sum > math.MaxInt32 {
			return Errorf("split: %s are more rows than can be", s.text)
		}
		s.rows = &[3]int{int(sizes[0]), int(sizes[1]), int(sizes[2])}
		return nil
	}
	if math.Abs(sum-1) > 1e-6 {
		return Errorf("split: fractions sum to 1, %s to %.6g", s.text, sum)
	}
	s.fractions = &sizes
	return nil
}

// String returns the text that ParseSplit parsed.
func (s Split) String() string { return s.text }

// Apply divides n rows. Fractions round the training and the test part down and
// give validation the rest; rows beyond the sum of numbers of rows belong to no
// part; dates need times, of length n, and are local times unless they have an
// offset.
//
// It returns an [*InputError] if a requested part gets no row, if more rows are
// requested than n, or if dates come without times or lie outside them. With it,
// Parts has the rows that there are: one of many series may be too short for the
// split of the others.
func (s Split) Apply(n int, times []time.Time) (Parts, error) {
	var a, b, end int
	var err error
	switch {
	case s.fractions != nil:
		part := func(f float64) int { return int(f*float64(n) + 1e-9) } // 0.29 of 100 is 28.999999999999996
		a, b, end = part(s.fractions[0]), n-part(s.fractions[2]), n
		if s.fractions[1] == 0 {
			a = b
		}
		for i, size := range []int{a, b - a, end - b} {
			if size <= 0 && s.fractions[i] > 0 && err == nil {
				err = Errorf("split: %s of %s leave none for %s", s.text, count(n, "row"), partNames[i])
			}
		}
	case s.rows != nil:
		a, b, end = s.rows[0], s.rows[0]+s.rows[1], s.rows[0]+s.rows[1]+s.rows[2]
		if end > n {
			err = Errorf("split: %s are %d rows, there are %d", s.text, end, n)
			a, b, end = min(a, n), min(b, n), n
		}
	case s.begins != nil:
		a, b, err = s.find(times)
		end = len(times)
	default:
		return Parts{}, Errorf("split: %s", splitForms)
	}
	return Parts{Range{0, a}, Range{a, b}, Range{b, end}}, err
}

var partNames = []string{"training", "validation", "test"}

// find returns the first rows of validation and test, with an error if a part has
// none.
func (s Split) find(times []time.Time) (val, test int, err error) {
	if len(times) == 0 {
		return 0, 0, Errorf("split: dates such as %s need a column of times", s.text)
	}
	var cuts [2]int
	for i, begin := range s.begins {
		for cuts[i] < len(times) && before(times[cuts[i]], begin) {
			cuts[i]++
		}
	}
	span := fmt.Sprintf("the data go from %s to %s", showTime(times[0]), showTime(times[len(times)-1]))
	switch {
	case cuts[0] == 0:
		return cuts[0], max(cuts[0], cuts[1]), Errorf("split: %s leaves nothing to train on; %s", s.text, span)
	case cuts[1] == len(times):
		return cuts[0], cuts[1], Errorf("split: %s leaves nothing to test on; %s", s.text, span)
	case cuts[1] <= cuts[0]:
		return cuts[0], cuts[0], Errorf("split: in %s test begins no later than validation", s.text)
	}
	return cuts[0], cuts[1], nil
}

// before compares instants if s has an offset, otherwise local times.
func before(t time.Time, s stamp) bool {
	at := t.Unix()
	if s.offset == noOffset {
		_, offset := t.Zone()
		at += int64(offset)
	} else {
		s.wall -= int64(s.offset)
	}
	if at != s.wall {
		return at < s.wall
	}
	return t.Nanosecond() < int(s.nano)
}
