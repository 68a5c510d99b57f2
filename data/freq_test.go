package data

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func day(s string) time.Time {
	t, err := time.Parse("2006-01-02 15:04"[:len(s)], s)
	if err != nil {
		panic(err)
	}
	return t
}

func days(list ...string) []time.Time {
	var times []time.Time
	for _, s := range list {
		times = append(times, day(s))
	}
	return times
}

func TestInfer(t *testing.T) {
	for _, c := range []struct {
		want  string
		times []time.Time
	}{
		{"1h", days("2020-01-01 00:00", "2020-01-01 01:00", "2020-01-01 02:00")},
		{"15min", days("2020-01-01 00:00", "2020-01-01 00:15", "2020-01-01 00:30", "2020-01-01 02:00")},
		{"1d", days("2020-01-01", "2020-01-02")},
		{"1d", days("2020-01-01 07:00", "2020-01-02 07:00", "2020-01-04 07:00", "2020-01-05 07:00")},
		{"1d", days("2020-01-06", "2020-01-07", "2020-01-08", "2020-01-09", "2020-01-10")},               // too few to decide
		{"1b", days("2020-01-06", "2020-01-07", "2020-01-08", "2020-01-09", "2020-01-10", "2020-01-13")}, // Monday to Monday
		{"1b", days("2020-01-06", "2020-01-07", "2020-01-09", "2020-01-10", "2020-01-13", "2020-01-14")}, // with a holiday
		{"1w", days("2020-01-05", "2020-01-12", "2020-01-19")},
		{"2w", days("2020-01-05", "2020-01-19", "2020-02-02")},
		{"1mo", days("2020-01-01", "2020-02-01", "2020-03-01", "2020-05-01")},
		{"1me", days("2020-01-31", "2020-02-29", "2020-03-31")},
		{"1me", days("2020-01-31", "2020-02-28", "2020-03-31", "2020-04-30", "2020-05-29")}, // last trading days
		{"1mo", days("2020-01-02", "2020-02-03", "2020-03-02", "2020-04-01")},               // first trading days
		{"1q", days("2020-01-01", "2020-04-01", "2020-07-01")},
		{"1y", days("2020-12-31", "2021-12-31", "2022-12-31")},
		{"1y", days("2019-01-01", "2020-01-01", "2021-01-01")},
		{"10y", days("1990-01-01", "2000-01-01", "2010-01-01")},
	} {
		f, err := Infer(c.times)
		if err != nil || f.String() != c.want {
			t.Errorf("%v: got %q, %v, want %s", c.times, f, err, c.want)
		}
	}
	for _, times := range [][]time.Time{nil, days("2020-01-01"), days("2020-01-02", "2020-01-01"),
		days("2020-01-01 00:00", "2020-01-01 01:00", "2020-01-01 01:30", "2020-01-01 02:30"), days("2020-01-01", "2020-01-03", "2020-01-05", "2020-01-08")} {
		if f, err := Infer(times); err == nil {
			t.Errorf("%v: got %v", times, f)
		}
	}
}

// Add from any time must count the same rows as steps does, and go back.
func TestAddAndSteps(t *testing.T) {
	for _, c := range []struct {
		f     Freq
		start string
		n     int
		want  string
	}{
		{Every(time.Hour), "2020-01-01 23:00", 2, "2020-01-02 01:00"},
		{Freq{Day, 1}, "2020-02-28 07:30", 2, "2020-03-01 07:30"},
		{Freq{Day, 7}, "2020-01-01", 3, "2020-01-22"},
		{Freq{BusinessDay, 1}, "2020-01-03", 1, "2020-01-06"},
		{Freq{BusinessDay, 1}, "2020-01-01", 12, "2020-01-17"},
		{Freq{Month, 1}, "2020-01-31", 1, "2020-02-29"},
		{Freq{Month, 1}, "2020-01-31", 2, "2020-03-31"},
		{Freq{Month, 3}, "2019-10-01", 1, "2020-01-01"},
		{Freq{Month, 12}, "2020-02-29", 1, "2021-02-28"},
		{Freq{MonthEnd, 1}, "2020-02-29", 1, "2020-03-31"},
		{Freq{MonthEnd, 1}, "2020-12-31", 2, "2021-02-28"},
	} {
		start, want := day(c.start), day(c.want)
		got := c.f.Add(start, c.n)
		if !got.Equal(want) {
			t.Errorf("%v.Add(%s, %d) = %v, want %s", c.f, c.start, c.n, got, c.want)
		}
		if c.f.Unit == BusinessDay {
			if got := businessIndex(civilDay(want)) - businessIndex(civilDay(start)); got != int64(c.n) {
				t.Errorf("%s to %s are %d business days, want %d", c.start, c.want, got, c.n)
			}
		} else if n, ok := c.f.steps(start, got); !ok || n != int64(c.n) {
			t.Errorf("%v: %s to %v are %d steps, want %d", c.f, c.start, got, n, c.n)
		}
		if start.Day() <= 28 && !c.f.Add(got, -c.n).Equal(start) {
			t.Errorf("%v.Add(%v, %d) = %v, want %s", c.f, got, -c.n, c.f.Add(got, -c.n), c.start)
		}
	}
	if next := (Freq{BusinessDay, 1}).Next(day("2020-01-10")); next.Weekday() != time.Monday {
		t.Errorf("after Friday comes %v", next.Weekday())
	}
	zone := melbourne(t)
	if got := (Freq{Day, 1}).Next(time.Date(2012, 10, 6, 7, 0, 0, 0, zone)); got.Hour() != 7 || got.Day() != 7 {
		t.Errorf("the next day's 7 h is %v", got)
	}
}

func TestBusinessDaysMayMissHolidays(t *testing.T) {
	o := &ReadOptions{Time: "t", Missing: MissingError}
	week := "2020-01-06,1\n2020-01-07,1\n2020-01-08,1\n2020-01-09,1\n2020-01-10,1\n"
	p := mustRead(t, "x.csv", "t,a\n"+week+"2020-01-15,2\n2020-01-16,3\n", o)
	if p.Series[0].Len() != 7 || p.Freq.String() != "1b" {
		t.Errorf("got %d rows at %v", p.Series[0].Len(), p.Freq)
	}
	long := "t,a\n" + week + "2020-01-13,1\n2020-02-17,2\n"
	refuse(t, "x.csv", long, o, "line 8", "24 rows missing", "1b")
	if p = mustRead(t, "x.csv", long, &ReadOptions{Time: "t", Missing: Interpolate}); p.Series[0].Len() != 7+24 {
		t.Errorf("got %d rows", p.Series[0].Len())
	}
}

func TestSeasons(t *testing.T) {
	for text, want := range map[string][]int{
		"1h": {24, 168}, "30min": {48, 336}, "15min": {96, 672}, "10min": {144, 1008}, "1min": {1440, 10080}, "1s": {60, 3600, 86400}, "12h": {2, 14}, "7h": {24},
		"1d": {7, 365}, "1w": {52}, "1b": {5}, "1mo": {12}, "1me": {12}, "1q": {4}, "1y": nil, "2d": nil, "5mo": nil,
	} {
		f, err := ParseFreq(text)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, f.Seasons()); d != "" {
			t.Errorf("%s (-want +got):\n%s", text, d)
		}
	}
	if got := (Freq{}).Seasons(); got != nil {
		t.Errorf("no frequency has seasons %v", got)
	}
}

func TestFreqText(t *testing.T) {
	for in, out := range map[string]string{"h": "1h", "24h": "1d", "60min": "1h", "90min": "90min", "3mo": "1q", "12mo": "1y", "7d": "1w", "4q": "1y", "100ms": "100ms", "6lh": "6lh", "90lmin": "90lmin", "52/y": "52/y", "365.25/y": "365.25/y"} {
		f, err := ParseFreq(in)
		if err != nil || f.String() != out {
			t.Errorf("%s: got %q, %v, want %s", in, f, err, out)
		}
		var back Freq
		b, _ := json.Marshal(f)
		if err := json.Unmarshal(b, &back); err != nil || back != f {
			t.Errorf("%s: %s came back as %v, %v", in, b, back, err)
		}
	}
	for _, in := range []string{"", "0h", "hourly", "-1h", "99999999999h", "1.5h", "0/y", "x/y"} {
		_, err := ParseFreq(in)
		wantError(t, err, "frequency")
	}
}

func TestGivenFreq(t *testing.T) {
	content := "t,a\n2020-01-01 00:00,1\n2020-01-01 02:00,2\n"
	p := mustRead(t, "x.csv", content, &ReadOptions{Time: "t", Freq: Every(time.Hour), Missing: Interpolate})
	wantValues(t, p.Series[0].Values[0], 1, 1.5, 2)
	refuse(t, "x.csv", content, &ReadOptions{Time: "t", Freq: Every(3 * time.Hour)}, "line 3", "steps of 3h")
	_, err := ReadPanel(t.Context(), write(t, "x.csv", content), &ReadOptions{Freq: Freq{Day, -1}})
	wantError(t, err, "frequency")
}
