package data

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

func column(values ...string) *texts {
	t := &texts{}
	for _, v := range values {
		t.add(v)
	}
	t.seal()
	return t
}

func TestTimeFormats(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"2006-01-02", "2006-01-02T00:00:00"},
		{"2006-1-2", "2006-01-02T00:00:00"},
		{"2006/01/02 15:04", "2006-01-02T15:04:00"},
		{"2006-01-02 15:04:05", "2006-01-02T15:04:05"},
		{"2006-01-02T15:04:05.25", "2006-01-02T15:04:05.25"},
		{"2006-01-02 15", "2006-01-02T15:00:00"},
		{"2006-01-02 24:00", "2006-01-03T00:00:00"},
		{"2006-01-02T15:04:05Z", "2006-01-02T15:04:05Z"},
		{"2006-01-02T15:04:05+11:00", "2006-01-02T15:04:05+11:00"},
		{"2006-01-02 15:04:05-0330", "2006-01-02T15:04:05-03:30"},
		{"2006-01-02 15:04:05 +0100", "2006-01-02T15:04:05+01:00"},
		{"2006-01-02 15:04:05 +0000 UTC", "2006-01-02T15:04:05Z"},
		{"2006-01-02 15:04 UTC", "2006-01-02T15:04:00Z"},
		{"20060102T150405Z", "2006-01-02T15:04:05Z"},
		{"20060102 1504", "2006-01-02T15:04:00"},
		{"13/02/2006", "2006-02-13T00:00:00"},
		{"02/13/2006 3:04 PM", "2006-02-13T15:04:00"},
		{"02/13/06 12:04:05 am", "2006-02-13T00:04:05"},
		{"13.2.2006", "2006-02-13T00:00:00"},
		{"03.02.2006", "2006-02-03T00:00:00"},
		{"02-Jan-2006", "2006-01-02T00:00:00"},
		{"2 January 2006 15:04", "2006-01-02T15:04:00"},
		{"Jan 2, 2006", "2006-01-02T00:00:00"},
		{"Sept. 2 2006", "2006-09-02T00:00:00"},
		{"2006-Jan-02", "2006-01-02T00:00:00"},
		{"2006-01", "2006-01-01T00:00:00"},
		{"2006M03", "2006-03-01T00:00:00"},
		{"Mar 2006", "2006-03-01T00:00:00"},
		{"2006 Mar", "2006-03-01T00:00:00"},
		{"Mar-06", "2006-03-01T00:00:00"},
		{"03/2006", "2006-03-01T00:00:00"},
		{"2006Q3", "2006-07-01T00:00:00"},
		{"2006-Q3", "2006-07-01T00:00:00"},
		{"2006 Q3", "2006-07-01T00:00:00"},
		{"Q3 2006", "2006-07-01T00:00:00"},
		{"2009-W01", "2008-12-29T00:00:00"},
		{"2020W53", "2020-12-28T00:00:00"},
		{"2009-W53-7", "2010-01-03T00:00:00"},
		{"20060102", "2006-01-02T00:00:00"},
		{"200601021504", "2006-01-02T15:04:00"},
		{"20060102150405", "2006-01-02T15:04:05"},
		{"200602", "2006-02-01T00:00:00"},
		{"1949", "1949-01-01T00:00:00"},
		{"1136214245", "2006-01-02T15:04:05Z"},
		{"1136214245.5", "2006-01-02T15:04:05.5Z"},
		{"1136214245250", "2006-01-02T15:04:05.25Z"},
		{"1136214245000001", "2006-01-02T15:04:05.000001Z"},
		{"1136214245000000001", "2006-01-02T15:04:05.000000001Z"},
		{"-1136214245", "1933-12-30T08:55:55Z"},
	} {
		times, fault := parseTimes(column(c.text), nil, orderUnknown)
		if fault != nil || times.counted {
			t.Errorf("%s: %v, %+v", c.text, fault, times)
			continue
		}
		s := times.stamps[0]
		got := time.Unix(s.wall, int64(s.nano)).UTC().Format("2006-01-02T15:04:05.999999999")
		if s.offset != noOffset {
			got += time.Unix(0, 0).In(time.FixedZone("", int(s.offset))).Format("Z07:00")
		}
		if got != c.want {
			t.Errorf("%s: got %s, want %s", c.text, got, c.want)
		}
	}
}

func TestTimesRefused(t *testing.T) {
	for _, s := range []string{"yesterday", "2006-13-01", "2006-02-29", "2006-01-02 25:00", "2006-01-02 10:60", "2006-01-02 13:00 PM",
		"2006-01-02T15:04:05+99:00", "2006-01-02 15:04 EST", "2006-W54", "2021-W53", "2006Q5", "Foo 2006", "2006-01-02x", "1/2", "12345.5", "2006--01", "Q3", "0/0/2006", "2006-01-02 1am\u023a\u023a\u023a", "Jan 2006 1Am\xb3\x89"} {
		if times, fault := parseTimes(column(s), nil, orderUnknown); fault == nil {
			t.Errorf("%s was read as %+v", s, times)
		}
	}
	_, fault := parseTimes(column("2006-01-02 15:04 EST"), nil, orderUnknown)
	if !strings.Contains(fault.problem, "EST") || !strings.Contains(fault.problem, "+01:00") {
		t.Errorf("got %+v", fault)
	}
}

func TestOrderOfDayAndMonth(t *testing.T) {
	for _, c := range []struct {
		name   string
		values []string
		series []int32
		order  dateOrder
		want   string // of the last, or a part of the fault
	}{
		{"day over 12", []string{"01/02/2006", "12/02/2006", "13/02/2006"}, nil, orderUnknown, "2006-02-13"},
		{"second over 12", []string{"02/01/2006", "02/13/2006"}, nil, orderUnknown, "2006-02-13"},
		{"days by spacing", []string{"01/03/2006 12:00", "02/03/2006 00:00", "02/03/2006 12:00"}, nil, orderUnknown, "2006-03-02"},
		{"months by spacing", []string{"01/03/2006 12:00", "01/04/2006 00:00", "01/04/2006 12:00"}, nil, orderUnknown, "2006-01-04"},
		{"days or months", []string{"01/03/2006", "02/03/2006", "03/03/2006"}, nil, orderUnknown, "ambiguous"},
		{"weeks", []string{"03/01/2006", "03/08/2006"}, nil, orderUnknown, "ambiguous"},
		{"weeks longer", []string{"03/01/2006", "03/08/2006", "03/15/2006"}, nil, orderUnknown, "2006-03-15"},
		{"unclear", []string{"01/02/2006", "05/02/2006"}, nil, orderUnknown, "ambiguous"},
		{"told day", []string{"01/02/2006", "05/02/2006"}, nil, dayFirst, "2006-02-05"},
		{"told month", []string{"01/02/2006", "05/02/2006"}, nil, monthFirst, "2006-05-02"},
		{"told wrong", []string{"13/02/2006"}, nil, monthFirst, "no such day"},
		{"both", []string{"13/02/2006", "02/13/2006"}, nil, orderUnknown, "order"},
		{"series apart", []string{"01/03/2006 12:00", "01/03/2006 12:00", "02/03/2006 00:00", "02/03/2006 00:00", "02/03/2006 12:00"}, []int32{0, 1, 0, 1, 0}, orderUnknown, "2006-03-02"},
		{"dots", []string{"01.02.2006", "05.02.2006"}, nil, orderUnknown, "2006-02-05"},
	} {
		times, fault := parseTimes(column(c.values...), c.series, c.order)
		if fault != nil {
			want := c.want
			if want == "ambiguous" {
				want = "may be day/month or month/day"
			}
			if !strings.Contains(fault.problem, want) {
				t.Errorf("%s: got fault %q, want %s", c.name, fault.problem, c.want)
			}
			continue
		}
		if got := time.Unix(times.stamps[len(times.stamps)-1].wall, 0).UTC().Format(time.DateOnly); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

func TestDecimalYears(t *testing.T) {
	for _, c := range []struct {
		values []string
		want   string // of the last
	}{
		{[]string{"1949", "1949.08333333333", "1949.16666666667"}, "1949-03-01"},
		{[]string{"1949.83", "1949.92", "1950.00"}, "1950-01-01"},
		{[]string{"1949.916666", "1949.999999"}, "1950-01-01"},
		{[]string{"1958.2027", "1958.2877", "1958.3699"}, "1958-05-01"}, // middles of months
		{[]string{"2000", "2000.25", "2000.5"}, "2000-07-01"},
		{[]string{"1700.5", "1701.5", "1702.5"}, "1702-07-01"},
		{[]string{"2001.0", "2001.00273973", "2001.00547945"}, "2001-01-03"},
	} {
		times, fault := parseTimes(column(c.values...), nil, orderUnknown)
		if fault != nil || times.counted {
			t.Errorf("%v: %v", c.values, fault)
			continue
		}
		if got := time.Unix(times.stamps[len(times.stamps)-1].wall, 0).UTC().Format("2006-01-02"); got != c.want {
			t.Errorf("%v: got %s, want %s", c.values, got, c.want)
		}
	}
}

func melbourne(t *testing.T) *time.Location {
	t.Helper()
	zone, err := time.LoadLocation("Australia/Melbourne")
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

// localHours are an hourly CSV as a clock on the wall in zone would write it.
func localHours(start time.Time, hours, minutes int) string {
	var b strings.Builder
	b.WriteString("time,a\n")
	for i := 0; i < hours*60; i += minutes {
		b.WriteString(start.Add(time.Duration(i)*time.Minute).Format("2006-01-02 15:04") + ",1\n")
	}
	return b.String()
}

func TestDaylightSaving(t *testing.T) {
	zone := melbourne(t)
	for _, minutes := range []int{30, 60} {
		for _, start := range []time.Time{time.Date(2012, 10, 6, 12, 0, 0, 0, zone), time.Date(2012, 3, 31, 12, 0, 0, 0, zone)} {
			content := localHours(start, 48, minutes)
			p := mustRead(t, "x.csv", content, &ReadOptions{Time: "time", Zone: zone})
			s := p.Series[0]
			if s.Len() != 48*60/minutes || p.Freq != Every(time.Duration(minutes)*time.Minute) {
				t.Errorf("got %d rows, freq %v", s.Len(), p.Freq)
			}
			for i, now := range s.Time {
				if want := start.Add(time.Duration(i*minutes) * time.Minute); !now.Equal(want) || now.Hour() != want.Hour() {
					t.Fatalf("row %d: got %v, want %v", i, now, want)
				}
			}
			// Without the zone, the change of clocks is a fault that --tz mends.
			path := write(t, "x.csv", content)
			_, err := ReadPanel(t.Context(), path, &ReadOptions{Time: "time"})
			wantError(t, err, "--tz", "line")
		}
	}
	refuse(t, "x.csv", "time,a\n2012-10-07 01:30,1\n2012-10-07 02:30,1\n", &ReadOptions{Time: "time", Zone: zone}, "line 3", "never showed 2012-10-07 02:30:00")
}

func TestOffsets(t *testing.T) {
	content := "time,a\n2012-10-07T01:00:00+10:00,1\n2012-10-07T03:00:00+11:00,2\n2012-10-07T04:00:00+11:00,3\n"
	p := mustRead(t, "x.csv", content, &ReadOptions{Time: "time"})
	s := p.Series[0]
	if p.Freq != Every(time.Hour) || s.Time[0].Hour() != 1 || s.Time[1].Hour() != 3 {
		t.Errorf("got %v at %v", s.Time, p.Freq)
	}
	p = mustRead(t, "x.csv", content, &ReadOptions{Time: "time", Zone: time.UTC})
	if got := p.Series[0].Time[0].Hour(); got != 15 {
		t.Errorf("got hour %d, want 15 in UTC", got)
	}
	// Midnights are days apart although one day has 23 hours.
	daily := "time,a\n2012-10-06T00:00+10:00,1\n2012-10-07T00:00+10:00,2\n2012-10-08T00:00+11:00,3\n"
	if p = mustRead(t, "x.csv", daily, &ReadOptions{Time: "time"}); p.Freq != (Freq{Day, 1}) {
		t.Errorf("got freq %v", p.Freq)
	}
}

func TestCountedRows(t *testing.T) {
	p := mustRead(t, "x.csv", "n,a\n10,1\n20,2\n30,3\n", &ReadOptions{Time: "n"})
	if p.HasTime || p.Series[0].Time != nil || p.Freq != (Freq{}) {
		t.Errorf("got %+v", p)
	}
}

func FuzzParseTime(f *testing.F) {
	for _, s := range []string{"2006-01-02T15:04:05.5+11:00", "13.2.2006", "Sept. 2 2006", "2009-W53-7", "20060102T1504", "1136214245", "1949.25", "2 January 2006 3:04 pm"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		times, fault := parseTimes(column(a, b), nil, orderUnknown)
		if fault == nil && len(times.stamps) != 2 {
			t.Fatalf("%d stamps", len(times.stamps))
		}
		if fault != nil && (fault.row > 1 || fault.problem == "") {
			t.Fatalf("fault %+v", fault)
		}
		if _, err := ParseSplit(a + "," + b); err != nil && !errors.As(err, new(*InputError)) {
			t.Fatal(err)
		}
	})
}

// What Format writes after a table's times follows them: the table, with these
// rows added, is read with the same spacing and no gap.
func TestStylesFollowTheTable(t *testing.T) {
	zone := melbourne(t)
	begin := time.Date(2023, 3, 24, 0, 0, 0, 0, time.UTC)
	type written struct {
		layout string // of package time, or a Go function
		freq   Freq
	}
	hour, half := Every(time.Hour), Every(500*time.Millisecond)
	var columns []struct {
		name  string
		texts []string
	}
	const rows = 30
	add := func(name string, f Freq, text func(time.Time) string) {
		c := struct {
			name  string
			texts []string
		}{name: name}
		for i := range rows {
			c.texts = append(c.texts, text(f.Add(begin, i)))
		}
		columns = append(columns, c)
	}
	for _, w := range []written{
		{"2006-01-02", Freq{Day, 1}}, {"02.01.2006", Freq{Day, 1}}, {"2.1.2006", Freq{Day, 1}}, {"1/2/2006", Freq{Day, 1}}, {"01/02/06", Freq{Day, 1}},
		{"2006-01-02 00:00:00", Freq{Day, 1}}, {"2006-01-02T00:00:00.000Z", Freq{Day, 1}}, {"2.1.2006 0:00", Freq{Day, 1}},
		{"Jan 2, 2006", Freq{Day, 1}}, {"2 January 2006", Freq{Day, 1}}, {"02-Jan-06", Freq{Day, 1}}, {"2006-Jan-02", Freq{Day, 1}},
		{"20060102", Freq{Day, 1}}, {"200601", Freq{Month, 1}}, {"2006", Freq{Month, 12}}, {"2006-01", Freq{Month, 1}}, {"2006M01", Freq{Month, 1}}, {"Jan 2006", Freq{Month, 1}}, {"01/2006", Freq{Month, 1}}, {"Jan-06", Freq{Month, 1}},
		{"2006-01-02 15:04", hour}, {"2006-01-02T15:04:05", hour}, {"2006-01-02 15:04:05-07:00", hour}, {"2006-01-02T15:04:05Z07:00", hour}, {"2006-01-02 15:04:05 -0700", hour}, {"2006-01-02 15:04 UTC", hour}, {"20060102T150405Z", hour}, {"20060102 1504", hour},
		{"200601021504", hour}, {"20060102150405", hour}, {"1/2/2006 3:04 PM", hour}, {"01/02/2006 03:04:05 pm", hour}, {"2006-01-02 15", hour},
		{"2006-01-02T15:04:05.000", half}, {"2006-01-02T15:04:05,000", half}, {"2006-01-02T15:04:05.999999", half}, {"2006-01-02 15:04:05.000000000Z", Freq{Nanosecond, 250}},
	} {
		add(w.layout, w.freq, func(t time.Time) string { return t.Format(w.layout) })
	}
	quarter := func(form string) func(time.Time) string {
		return func(t time.Time) string {
			return strings.NewReplacer("Y", t.Format("2006"), "N", strconv.Itoa((int(t.Month())+2)/3)).Replace(form)
		}
	}
	for _, form := range []string{"YQN", "Y-QN", "Y QN", "QN Y", "QN/Y"} {
		add(form, Freq{Month, 3}, quarter(form))
	}
	week := func(form string) func(time.Time) string {
		return func(t time.Time) string { y, w := t.ISOWeek(); return fmt.Sprintf(form, y, w) }
	}
	for _, form := range []string{"%d-W%02d", "%dW%02d", "%d-W%02d-5", "%dW%02d5", "%d-W%d"} {
		add(form, Freq{Day, 7}, week(form))
	}
	add("upper", Freq{Day, 1}, func(t time.Time) string { return strings.ToUpper(t.Format("02-Jan-2006")) })
	add("midnight with offset", Freq{Day, 7}, func(t time.Time) string { return t.Format("2006-01-02T00:00:00") + "+11:00" })
	add("bare hour", hour, func(t time.Time) string {
		return t.Format("2/1/2006 ") + strconv.Itoa(t.Hour()) + t.Format(":04")
	})
	add("unix s", hour, func(t time.Time) string { return fmt.Sprint(t.Unix()) })
	add("unix s.f", half, func(t time.Time) string { return fmt.Sprintf("%d.%03d", t.Unix(), t.Nanosecond()/1e6) })
	add("unix ms", hour, func(t time.Time) string { return fmt.Sprint(t.UnixMilli()) })
	add("unix us", half, func(t time.Time) string { return fmt.Sprint(t.UnixMicro()) })
	add("unix ns", Freq{Nanosecond, 250}, func(t time.Time) string { return fmt.Sprint(t.UnixNano()) })
	add("day number", Freq{Day, 1}, func(t time.Time) string { return fmt.Sprint(t.Unix()/86400 + 25569) })
	add("two offsets", Freq{Nanosecond, int64(24 * time.Hour)}, func(t time.Time) string {
		return t.In(zone).Format(time.RFC3339)
	})
	for _, c := range columns {
		known := rows - 8
		table := func(n int) string { return "t;a\n" + strings.Join(c.texts[:n], ";1\n") + ";1\n" }
		p := mustRead(t, "x.csv", table(known), &ReadOptions{Time: "t", Delimiter: ';'})
		s := p.Series[0]
		for i, at := range s.Time {
			if got := p.Style.Format(at); got != c.texts[i] {
				t.Errorf("%s: row %d is written %s, was %s (%+v)", c.name, i, got, c.texts[i], p.Style)
				break
			}
		}
		for i, at := range p.Freq.After(s.Time, rows-known) {
			if got := p.Style.Format(at); got != c.texts[known+i] {
				t.Errorf("%s: row %d is forecast as %s, want %s (%+v)", c.name, known+i, got, c.texts[known+i], p.Style)
				break
			}
		}
		if q := mustRead(t, "x.csv", table(rows), &ReadOptions{Time: "t", Delimiter: ';'}); q.Freq != p.Freq || q.Series[0].Len() != rows {
			t.Errorf("%s: %d rows at %v, want %d at %v", c.name, q.Series[0].Len(), q.Freq, rows, p.Freq)
		}
	}
}
