package data

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// TimeStyle is how a table writes its times.
type TimeStyle struct {
	// Layout is one of package time, such as 02.01.2006 15:04, in which braces
	// hold what it lacks: {quarter}, {week} and {weekday} of ISO 8601, {w} and
	// {hour} without a leading zero, {JAN} and {jan}. For columns of numbers it
	// is unix s, unix ms, unix us, unix ns, day number, decimal year or decimal
	// month.
	Layout string `json:"layout"`
	// Digits is the number of digits after the point, for columns of numbers.
	Digits int `json:"digits,omitempty"`
	// Phase is, for decimal month, the part of a year by which values are later
	// than the beginning of their month.
	Phase float64 `json:"phase,omitempty"`
	// Offset is the times' offset from UTC, such as +11:00, "varying" if they
	// have several or those of Zone, or "" for times without.
	Offset string `json:"offset"`
	// Zone is ReadOptions.Zone, "" without.
	Zone string `json:"zone"`
}

// VaryingOffsets is the Offset of a column whose times have several.
const VaryingOffsets = "varying"

// Layouts of columns of numbers.
const (
	layoutSeconds      = "unix s"
	layoutMilliseconds = "unix ms"
	layoutMicroseconds = "unix us"
	layoutNanoseconds  = "unix ns"
	layoutDayNumber    = "day number"
	layoutDecimalYear  = "decimal year"
	layoutDecimalMonth = "decimal month"
)

// Layouts of times that are typed or that no layout reproduces.
const (
	plainLayout  = "2006-01-02 15:04:05.999999999"
	offsetLayout = "2006-01-02T15:04:05.999999999Z07:00"
)

// Format writes a time in this style, so that it can follow the table's own. The
// zero TimeStyle writes RFC 3339.
func (s TimeStyle) Format(t time.Time) string {
	if offset, err := time.Parse("-07:00", s.Offset); err == nil {
		_, seconds := offset.Zone()
		t = t.In(time.FixedZone("", seconds))
	}
	switch s.Layout {
	case "":
		return t.Format(time.RFC3339Nano)
	case layoutSeconds:
		return sinceUnix(t, int64(time.Second), s.Digits)
	case layoutMilliseconds:
		return sinceUnix(t, int64(time.Millisecond), s.Digits)
	case layoutMicroseconds:
		return sinceUnix(t, int64(time.Microsecond), s.Digits)
	case layoutNanoseconds:
		return sinceUnix(t, 1, s.Digits)
	case layoutDayNumber:
		days := float64(wallClock(t))/daySeconds + epochDayNumber
		return strconv.FormatFloat(days, 'f', s.Digits, 64)
	case layoutDecimalYear:
		return strconv.FormatFloat(decimalYear(t), 'f', s.Digits, 64)
	case layoutDecimalMonth:
		return strconv.FormatFloat(float64(t.Year())+float64(t.Month()-1)/12+s.Phase, 'f', s.Digits, 64)
	}
	return formatTime(t, s.Layout)
}

// sinceUnix writes the time since 1970 in units of some nanoseconds.
func sinceUnix(t time.Time, unit int64, digits int) string {
	nano := int64(t.Nanosecond())
	text := strconv.FormatInt(t.Unix()*(int64(time.Second)/unit)+nano/unit, 10)
	if digits == 0 {
		return text
	}
	return text + fmt.Sprintf(".%09d000000000", nano%unit*(int64(time.Second)/unit))[:1+min(digits, 18)]
}

// formatTime is t.Format with the braces of TimeStyle.Layout.
func formatTime(t time.Time, layout string) string {
	_, week := t.ISOWeek()
	weekday := (int(t.Weekday()) + 6) % 7
	quarter := strconv.Itoa((int(t.Month()) + 2) / 3)
	if strings.Contains(layout, "{week}") || strings.Contains(layout, "{w}") {
		t = t.AddDate(0, 0, 3-weekday) // the Thursday, which is in the year that the week belongs to
	}
	var b strings.Builder
	for {
		plain, rest, ok := strings.Cut(layout, "{")
		b.WriteString(t.Format(plain))
		if !ok {
			return b.String()
		}
		var name string
		name, layout, _ = strings.Cut(rest, "}")
		switch name {
		case "quarter":
			b.WriteString(quarter)
		case "week":
			fmt.Fprintf(&b, "%02d", week)
		case "w":
			b.WriteString(strconv.Itoa(week))
		case "weekday":
			b.WriteString(strconv.Itoa(weekday + 1))
		case "hour":
			b.WriteString(strconv.Itoa(t.Hour()))
		case "JAN":
			b.WriteString(strings.ToUpper(t.Format("Jan")))
		case "jan":
			b.WriteString(strings.ToLower(t.Format("Jan")))
		case "JANUARY":
			b.WriteString(strings.ToUpper(t.Format("January")))
		case "january":
			b.WriteString(strings.ToLower(t.Format("January")))
		}
	}
}

// layoutOf finds the layout of a column's texts, which have been read as stamps:
// of several that fit the longest text, the one that reproduces most texts.
func layoutOf(text *texts, stamps []stamp, order dateOrder) string {
	if len(stamps) == 0 {
		return ""
	}
	longest, days := 0, true
	for i, s := range stamps {
		if len(text.at(i)) >= len(text.at(longest)) {
			longest = i
		}
		days = days && s.nano == 0 && s.wall%daySeconds == 0
	}
	p := timeParser{order: order}
	p.parse(text.at(longest))
	const most = 1000 // texts to compare with
	every := (len(stamps) + most - 1) / most
	best, matches := "", -1
	for _, fraction := range []string{"0", "9"} {
		for _, bare := range [][2]bool{{false, false}, {true, false}, {true, true}, {false, true}} {
			layout := p.layout(bare[0], bare[1], fraction, days)
			n := 0
			for i := 0; i < len(stamps); i += every {
				if formatTime(stamps[i].local(), layout) == text.at(i) {
					n++
				}
			}
			if n > matches {
				best, matches = layout, n
			}
		}
	}
	// What cannot be written in the column's way is at least to be read with it.
	back, ok := p.parse(formatTime(stamps[longest].local(), best))
	switch {
	case ok && back == stamps[longest]:
		return best
	case stamps[longest].offset != noOffset:
		return offsetLayout
	}
	return plainLayout
}

// typedLayout returns a layout for times that are no text in their file.
func typedLayout(stamps []stamp) string {
	switch {
	case offsetOf(stamps) != "":
		return offsetLayout
	case daysOnly(stamps):
		return time.DateOnly
	}
	return plainLayout
}

// local is the stamp as a time with its offset, or of UTC if it has none.
func (s stamp) local() time.Time {
	if s.offset == noOffset || s.offset == 0 {
		return time.Unix(s.wall, int64(s.nano)).UTC()
	}
	return time.Unix(s.wall-int64(s.offset), int64(s.nano)).In(time.FixedZone("", int(s.offset)))
}

// layout returns a layout for the text that was parsed last: with numbers of the
// date and of the hour that may have no leading zero, with a fraction of this
// digit, and, if all times are days, with zeros for the time of day.
func (p *timeParser) layout(bareDate, bareHour bool, fraction string, days bool) string {
	var b strings.Builder
	at := 0
	for _, m := range p.marks {
		b.WriteString(p.text[at:m.at])
		at = m.at + m.n
		part, as := p.text[m.at:at], m.as
		bare := m.n == 1 || bareDate
		switch as {
		case "15", "04", "05", "1504", "150405":
			if days && strings.Trim(part, "0") == "" {
				as = part
			} else if as == "15" && (m.n == 1 || bareHour) {
				as = "{hour}"
			}
		case "03":
			if m.n == 1 || bareHour {
				as = "3"
			}
		case "01", "02":
			if bare {
				as = as[1:]
			}
		case "{week}":
			if bare {
				as = "{w}"
			}
		case "Jan", "January":
			if upper := strings.ToUpper(as); part == strings.ToUpper(part) {
				as = "{" + upper + "}"
			} else if part == strings.ToLower(part) {
				as = "{" + strings.ToLower(as) + "}"
			}
		case "PM":
			if part == "am" || part == "pm" {
				as = "pm"
			}
		default:
			if as != "" && as[0] == '.' {
				as = part[:1] + strings.Repeat(fraction, len(as)-1)
			}
		}
		b.WriteString(as)
	}
	return b.String() + p.text[at:]
}

// offsetOf returns what the stamps of a column have as TimeStyle.Offset.
func offsetOf(stamps []stamp) string {
	if len(stamps) == 0 || stamps[0].offset == noOffset {
		return ""
	}
	if slices.ContainsFunc(stamps, func(s stamp) bool { return s.offset != stamps[0].offset }) {
		return VaryingOffsets
	}
	return time.Unix(0, 0).In(time.FixedZone("", int(stamps[0].offset))).Format("-07:00")
}

// daysOnly reports whether stamps are days, without a time of day or an offset.
func daysOnly(stamps []stamp) bool {
	return !slices.ContainsFunc(stamps, func(s stamp) bool { return s.nano != 0 || s.wall%daySeconds != 0 || s.offset != noOffset })
}
