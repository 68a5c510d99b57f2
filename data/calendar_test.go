package data

import (
	"archive/zip"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// allZones returns the time zones of the database that comes with Go, one for
// each set of zones with the same history.
func allZones(t *testing.T) []*time.Location {
	t.Helper()
	r, err := zip.OpenReader(filepath.Join(os.Getenv("GOROOT"), "lib", "time", "zoneinfo.zip"))
	if err != nil {
		t.Skipf("no database of time zones: %v", err)
	}
	defer r.Close()
	var zones []*time.Location
	seen := map[string]bool{}
	for _, f := range r.File {
		zone, err := time.LoadLocation(f.Name)
		if err != nil || strings.HasSuffix(f.Name, "/") {
			continue
		}
		key := ""
		for _, at := range changesOf(zone) {
			_, offset := at.Zone()
			key += fmt.Sprint(at.Unix(), offset, " ")
		}
		if !seen[key] {
			seen[key] = true
			zones = append(zones, zone)
		}
	}
	if len(zones) < 200 {
		t.Fatalf("%d zones", len(zones))
	}
	return zones
}

// changesOf returns the changes of clocks in a zone from 1950 to 2050.
func changesOf(zone *time.Location) (list []time.Time) {
	at := time.Date(1950, 1, 1, 0, 0, 0, 0, zone)
	for {
		_, end := at.ZoneBounds()
		if end.IsZero() || end.Year() > 2050 {
			return list
		}
		list = append(list, end)
		at = end
	}
}

// datesFrom lists the dates that calendars on the wall in a zone show in the days
// around a time, by looking every hour.
func datesFrom(t time.Time, days int) (dates []string) {
	for i := -24 * days; i <= 24*days; i++ {
		date := t.Add(time.Duration(i) * time.Hour).Format(time.DateOnly)
		if !slices.Contains(dates, date) {
			dates = append(dates, date)
		}
	}
	return dates
}

// In every time zone the days after a day are those that calendars there showed,
// and days that are read are a day apart.
func TestDaysInEveryZone(t *testing.T) {
	for _, zone := range allZones(t) {
		for _, change := range changesOf(zone) {
			want := datesFrom(change, 3)[1:]
			c := clocks{zone: zone, days: true}
			start, ok := c.instant(dayStamp(want[0]), time.Time{}, 0)
			if !ok {
				t.Fatalf("%v: there was no %s", zone, want[0])
			}
			daily := Freq{Day, 1}
			prev := start
			for i, date := range want[1 : len(want)-1] {
				if got := daily.Add(start, i+1).Format(time.DateOnly); got != date {
					t.Fatalf("%v: day %d after %s is %s, want %s", zone, i+1, want[0], got, date)
				}
				read, ok := c.instant(dayStamp(date), prev, 0)
				if n, on := daily.steps(prev, read); !ok || !on || n != 1 || read.Format(time.DateOnly) != date {
					t.Fatalf("%v: %s is read as %v, %d days after %v", zone, date, read, n, prev)
				}
				if next := daily.After([]time.Time{start, prev}[min(i, 1):], 1)[0]; next.Format(time.DateOnly) != date {
					t.Fatalf("%v: after %v comes %v, want %s", zone, prev, next, date)
				}
				prev = read
			}
		}
	}
}

func dayStamp(date string) stamp {
	return stamp{wall: day(date).Unix(), offset: noOffset}
}

// A forecast goes on after a day that began late.
func TestDaysAfterASkippedMidnight(t *testing.T) {
	for zone, c := range map[string]struct{ days, next string }{
		"America/Santiago": {"2025-09-05 2025-09-06 2025-09-07", "2025-09-08T00:00:00-03:00"},
		"Pacific/Apia":     {"2011-12-28 2011-12-29", "2011-12-31T00:00:00+14:00"},
		"Africa/Cairo":     {"2024-04-24 2024-04-25 2024-04-26", "2024-04-27T00:00:00+03:00"},
	} {
		p := mustRead(t, "x.csv", "d,a\n"+strings.ReplaceAll(c.days, " ", ",1\n")+",1\n", &ReadOptions{Time: "d", Zone: zoneNamed(t, zone)})
		if got := p.Freq.After(p.Series[0].Time, 1)[0].Format(time.RFC3339); got != c.next || p.Freq != (Freq{Day, 1}) {
			t.Errorf("%s: after %s comes %s at %v, want %s", zone, c.days, got, p.Freq, c.next)
		}
	}
	refuse(t, "x.csv", "d,a\n2011-12-29,1\n2011-12-30,1\n", &ReadOptions{Time: "d", Zone: zoneNamed(t, "Pacific/Apia")}, "line 3", "Pacific/Apia", "no 2011-12-30")
}

func zoneNamed(t *testing.T, name string) *time.Location {
	t.Helper()
	zone, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

// Readings at the same hours of the local clock keep to them across both changes
// of clocks; a reading that clocks skip does not take place.
func TestLocalHours(t *testing.T) {
	for _, zone := range []string{"Europe/Vienna", "Australia/Melbourne", "America/New_York", "Australia/Lord_Howe"} {
		for _, hours := range []int{2, 3, 4, 6, 8, 12} {
			for first := range hours {
				for _, month := range []time.Month{time.March, time.September} {
					loc := zoneNamed(t, zone)
					var b strings.Builder
					var walls []string
					begin := time.Date(2023, month, 1, first, 0, 0, 0, time.UTC)
					for at := begin; at.Before(begin.AddDate(0, 2, 10)); at = at.Add(time.Duration(hours) * time.Hour) {
						wall := at.Format("2006-01-02 15:04")
						if back, _ := time.ParseInLocation("2006-01-02 15:04", wall, loc); back.Format("2006-01-02 15:04") == wall {
							walls = append(walls, wall)
						}
					}
					b.WriteString("t,a\n")
					known := len(walls) - 400/hours
					for _, wall := range walls[:known] {
						b.WriteString(wall + ",1\n")
					}
					p := mustRead(t, "x.csv", b.String(), &ReadOptions{Time: "t", Zone: loc})
					if want := fmt.Sprintf("%dlh", hours); p.Freq.String() != want && p.Freq.String() != fmt.Sprintf("%dh", hours) {
						t.Fatalf("%s every %d h from %d h: %v, want %s", zone, hours, first, p.Freq, want)
					}
					if p.Freq.Unit == Nanosecond {
						continue // no change of clocks fell between its rows
					}
					for i, at := range p.Freq.After(p.Series[0].Time, len(walls)-known) {
						if got := p.Style.Format(at); got != walls[known+i] {
							t.Fatalf("%s every %d h from %d h: row %d is %s, want %s", zone, hours, first, known+i, got, walls[known+i])
						}
					}
				}
			}
		}
	}
}

func TestDayOfTheMonth(t *testing.T) {
	for _, c := range []struct{ days, freq, next string }{
		{"2015-01-30 2015-02-28 2015-03-30", "1mo", "2015-04-30 2015-05-30"},
		{"2015-01-29 2015-02-28 2015-03-29", "1mo", "2015-04-29 2015-05-29"},
		{"2015-12-30 2016-01-30 2016-02-29", "1mo", "2016-03-30 2016-04-30"},
		{"2015-12-29 2016-01-29 2016-02-29", "1mo", "2016-03-29 2016-04-29"},
		{"2015-08-30 2015-11-30 2016-02-29", "1q", "2016-05-30 2016-08-30"},
		{"2015-01-31 2015-02-28 2015-03-31", "1me", "2015-04-30 2015-05-31"},
		{"2015-02-28 2015-03-31 2015-04-30", "1me", "2015-05-31 2015-06-30"},
		{"2015-02-15 2015-03-15", "1mo", "2015-04-15 2015-05-15"},
		{"2020-02-29 2021-02-28 2022-02-28", "1y", "2023-02-28 2024-02-29"},
		{"2019-03-31 2020-03-31", "1y", "2021-03-31 2022-03-31"},
		{"2015-01-30 2015-02-27 2015-03-31", "1me", "2015-04-30 2015-05-31"}, // last weekdays
	} {
		times := days(strings.Fields(c.days)...)
		f, err := Infer(times)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, at := range f.After(times, 2) {
			got = append(got, at.Format(time.DateOnly))
		}
		if f.String() != c.freq || strings.Join(got, " ") != c.next {
			t.Errorf("%s: %v, then %v, want %s, then %s", c.days, f, got, c.freq, c.next)
		}
	}
	// A month between is filled on its day.
	p := mustRead(t, "x.csv", "d,a\n2015-12-30,1\n2016-01-30,1\n2016-02-29,1\n2016-04-30,3\n", &ReadOptions{Time: "d", Missing: Interpolate})
	if got := p.Series[0].Time[3].Format(time.DateOnly); got != "2016-03-30" {
		t.Errorf("filled %s", got)
	}
}

// R writes time(ts(x, start, frequency)) as start + i/frequency.
func TestEvenPartsOfYears(t *testing.T) {
	for _, c := range []struct {
		perYear float64
		digits  int
		freq    string
	}{
		{52, 6, "52/y"}, {52, 3, "52/y"}, {365, 6, "365/y"}, {24, 5, "24/y"}, {260, 6, "260/y"}, {8760, 8, "8760/y"}, {365.25, 6, "365.25/y"},
		{13, 4, "13/y"}, {12, 3, "1mo"}, {4, 2, "1q"}, {2, 1, "2q"}, {1, 1, "1y"}, {52.18, 5, "52.18/y"},
	} {
		for _, phase := range []float64{0, 0.4} {
			if c.perYear <= 12 && phase > 0 && c.digits == 1 {
				continue
			}
			text := func(i int) string {
				return fmt.Sprintf("%.*f", c.digits, 2018+(float64(i)+phase)/c.perYear)
			}
			rows := 60 + int(3*c.perYear) // over the leap year 2020
			var b strings.Builder
			b.WriteString("t,a\n")
			for i := range rows {
				fmt.Fprintf(&b, "%s,1\n", text(i))
			}
			p := mustRead(t, "x.csv", b.String(), &ReadOptions{Time: "t"})
			s := p.Series[0]
			if p.Freq.String() != c.freq || s.Len() != rows {
				t.Errorf("%v a year and %v: %d rows at %v, want %d at %s", c.perYear, phase, s.Len(), p.Freq, rows, c.freq)
				continue
			}
			for i, at := range append(slices.Clone(s.Time), p.Freq.After(s.Time, 40)...) {
				if got := p.Style.Format(at); got != text(i) {
					if x, y := number64(got), number64(text(i)); math.Abs(x-y) > 1.01*math.Pow10(-c.digits) {
						t.Fatalf("%v a year and %v: row %d is %s, want %s", c.perYear, phase, i, got, text(i))
					}
				}
			}
		}
	}
}

// Readings at even steps, written by clocks without an offset, are even also where
// clocks go back and show times twice.
func TestStepsOverTheHourThatClocksRepeat(t *testing.T) {
	for _, c := range []struct {
		zone  string
		begin time.Time // some days before clocks go back
	}{
		{"America/New_York", time.Date(2022, 11, 1, 0, 0, 0, 0, time.UTC)}, {"Europe/Berlin", time.Date(2022, 10, 25, 0, 0, 0, 0, time.UTC)},
		{"America/Santiago", time.Date(2022, 3, 28, 0, 0, 0, 0, time.UTC)}, {"Africa/Cairo", time.Date(2024, 10, 25, 0, 0, 0, 0, time.UTC)},
	} {
		zone, err := time.LoadLocation(c.zone)
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range []time.Duration{10 * time.Minute, time.Hour, 2 * time.Hour, 3 * time.Hour, 4 * time.Hour, 6 * time.Hour, 12 * time.Hour} {
			for hour := range 12 { // the phase of the readings
				table, want := "t,a\n", []time.Time{}
				for i := range int(12 * 24 * time.Hour / step) {
					at := c.begin.Add(time.Duration(hour)*time.Hour + time.Duration(i)*step)
					want = append(want, at)
					table += at.In(zone).Format("2006-01-02 15:04") + ",1\n"
				}
				p := mustRead(t, "x.csv", table, &ReadOptions{Time: "t", Zone: zone})
				for i, at := range p.Series[0].Time {
					if !at.Equal(want[i]) {
						t.Fatalf("%s, steps of %v: row %d is %v, want %v", c.zone, step, i, at, want[i].In(zone))
					}
				}
			}
		}
	}
}

// The month after a column of decimal years is written as the table would write it,
// whatever the rounding of its last row.
func TestDecimalMonthsAreRoundedAlike(t *testing.T) {
	for _, phase := range []float64{0, 0.5, 0.3} {
		for digits := 2; digits <= 8; digits++ {
			if phase == 0.3 && digits == 2 {
				continue // the table does not show the phase
			}
			text := func(i int) string { return fmt.Sprintf("%.*f", digits, 1949+(float64(i)+phase)/12) }
			for rows := 40; rows < 52; rows++ {
				table := "t,a\n"
				for i := range rows {
					table += text(i) + ",1\n"
				}
				p := mustRead(t, "x.csv", table, &ReadOptions{Time: "t"})
				for i, at := range p.Freq.After(p.Series[0].Time, 12) {
					if got, want := p.Style.Format(at), text(rows+i); got != want {
						t.Errorf("%d digits and %v months late: row %d is %s, want %s", digits, phase, rows+i, got, want)
					}
				}
			}
		}
	}
}

func number64(s string) float64 {
	var x float64
	fmt.Sscan(s, &x)
	return x
}

// Decimals of dates stay dates: 2020-03-01 is day 60 of 366.
func TestDecimalsOfDates(t *testing.T) {
	var b strings.Builder
	b.WriteString("t,a\n")
	begin := day("2019-12-02")
	for i := range 60 {
		at := begin.AddDate(0, 0, 7*i)
		year := time.Date(at.Year(), 1, 1, 0, 0, 0, 0, time.UTC)
		fmt.Fprintf(&b, "%.6f,1\n", float64(at.Year())+at.Sub(year).Hours()/year.AddDate(1, 0, 0).Sub(year).Hours())
	}
	p := mustRead(t, "x.csv", b.String(), &ReadOptions{Time: "t"})
	if s := p.Series[0]; p.Freq.String() != "1w" || !s.Time[59].Equal(begin.AddDate(0, 0, 7*59)) {
		t.Errorf("last %v at %v", s.Time[59], p.Freq)
	}
}

func TestDayNumbers(t *testing.T) {
	p := mustRead(t, "x.csv", "d,a\n40909,1\n40910,2\n40911,3\n", &ReadOptions{Time: "d"})
	if got := p.Series[0].Time[0].Format(time.DateOnly); got != "2012-01-01" || p.Freq.String() != "1d" {
		t.Errorf("40909 is %s at %v", got, p.Freq)
	}
	if len(p.Notes) != 1 || !strings.Contains(p.Notes[0], "2012-01-01") || !strings.Contains(p.Notes[0], `"d"`) {
		t.Errorf("notes %q", p.Notes)
	}
	p = mustRead(t, "x.csv", "d,a\n40909.25,1\n40909.5,2\n40909.75,3\n", &ReadOptions{Time: "d"})
	if got := p.Series[0].Time[1].Format(time.DateTime); got != "2012-01-01 12:00:00" || p.Freq.String() != "6h" {
		t.Errorf("40909.5 is %s at %v", got, p.Freq)
	}
	if p = mustRead(t, "x.csv", "d,a\n20001,1\n20002,2\n", &ReadOptions{Time: "d"}); p.HasTime || len(p.Notes) > 0 {
		t.Errorf("20001 is a date")
	}
}

func TestCompactDatesThatAreNone(t *testing.T) {
	refuse(t, "x.csv", "d,a\n20230228,1\n20230229,2\n20230301,3\n", &ReadOptions{Time: "d"}, "line 3", `"20230229"`, "no such day")
	refuse(t, "x.csv", "d,a\n202311,1\n202312,2\n202313,3\n", &ReadOptions{Time: "d"}, "line 4", `"202313"`)
	if p := mustRead(t, "x.csv", "n,a\n101211,1\n101212,1\n101213,2\n101214,2\n101215,2\n", &ReadOptions{Time: "n"}); p.HasTime {
		t.Error("row numbers are dates")
	}
}
