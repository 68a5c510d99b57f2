package data

import (
	"testing"
	"time"
)

func TestSplit(t *testing.T) {
	times := make([]time.Time, 100)
	for i := range times {
		times[i] = time.Date(2014, 1, 1+i, 0, 0, 0, 0, time.FixedZone("", 11*3600))
	}
	for _, c := range []struct {
		text string
		n    int
		want Parts
	}{
		{"0.7,0.1,0.2", 100, Parts{Range{0, 70}, Range{70, 80}, Range{80, 100}}},
		{"0.7, 0.1, 0.2", 26304, Parts{Range{0, 18412}, Range{18412, 21044}, Range{21044, 26304}}},
		{"0.29,0.42,0.29", 100, Parts{Range{0, 29}, Range{29, 71}, Range{71, 100}}},
		{"0.85,0,0.15", 99, Parts{Range{0, 85}, Range{85, 85}, Range{85, 99}}},
		{"1,0,0", 100, Parts{Range{0, 100}, Range{100, 100}, Range{100, 100}}},
		{"8640,2880,2880", 17420, Parts{Range{0, 8640}, Range{8640, 11520}, Range{11520, 14400}}},
		{"2014-01-11,2014-03-02", 100, Parts{Range{0, 10}, Range{10, 60}, Range{60, 100}}},
		{"2014-01-10T13:00Z,2014-03-02", 100, Parts{Range{0, 10}, Range{10, 60}, Range{60, 100}}},
		{"2014-02,2014-03", 100, Parts{Range{0, 31}, Range{31, 59}, Range{59, 100}}},
	} {
		s, err := ParseSplit(c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		got, err := s.Apply(c.n, times)
		if err != nil || got != c.want {
			t.Errorf("%s: got %v, %v, want %v", c.text, got, err, c.want)
		}
		if again, err := ParseSplit(s.String()); err != nil || again.String() != s.String() {
			t.Errorf("%s comes back as %s, %v", s, again, err)
		}
	}
}

// A series that is too short for the split of others has the parts that there are
// rows for, beside the error.
func TestSplitOfShortSeries(t *testing.T) {
	times := days("2014-01-01", "2014-01-02", "2014-01-03")
	for _, c := range []struct {
		text string
		n    int
		want Parts
	}{
		{"0.7,0.1,0.2", 1, Parts{Range{0, 0}, Range{0, 1}, Range{1, 1}}},
		{"0.7,0.1,0.2", 2, Parts{Range{0, 1}, Range{1, 2}, Range{2, 2}}},
		{"2,4,4", 3, Parts{Range{0, 2}, Range{2, 3}, Range{3, 3}}},
		{"2014-01-02,2014-02-01", 3, Parts{Range{0, 1}, Range{1, 3}, Range{3, 3}}},
		{"2014-01-08,2014-02-01", 3, Parts{Range{0, 3}, Range{3, 3}, Range{3, 3}}},
		{"2013-01-08,2013-02-01", 3, Parts{Range{0, 0}, Range{0, 0}, Range{0, 3}}},
	} {
		s, err := ParseSplit(c.text)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.Apply(c.n, times[:c.n]); err == nil || got != c.want {
			t.Errorf("%s of %d: got %v, %v, want %v and an error", c.text, c.n, got, err, c.want)
		}
	}
}

func TestSplitErrors(t *testing.T) {
	for text, part := range map[string]string{
		"":                     "want fractions",
		"0.7":                  "want fractions",
		"0.7,0.1":              "want fractions",
		"a,b,c":                "want fractions",
		"0.7,0.1,0.1":          "sum to 1",
		"0.7,-0.1,0.4":         "want fractions",
		"0,0.5,0.5":            "train",
		"NaN,0.5,0.5":          "want fractions",
		"1e300,1,1":            "more rows",
		"01/02/2014,2/3/2014":  "want fractions",
		"0.5,0.3,0.1,0.1":      "want fractions",
		"2014-01-41,2014-02-1": "want fractions",
	} {
		_, err := ParseSplit(text)
		wantError(t, err, "split", part)
	}
	times := days("2014-01-01", "2014-01-02", "2014-01-03")
	for text, part := range map[string]string{
		"0.7,0.1,0.2":           "none for",
		"2,1,1":                 "there are 3",
		"2014-01-01,2014-01-02": "nothing to train",
		"2014-01-02,2015-01-02": "from 2014-01-01 to 2014-01-03",
		"2014-01-03,2014-01-02": "no later than validation",
	} {
		s, err := ParseSplit(text)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Apply(3, times)
		wantError(t, err, "split", part)
	}
	s, _ := ParseSplit("2014-01-02,2014-01-03")
	_, err := s.Apply(3, nil)
	wantError(t, err, "column of times")
	_, err = Split{}.Apply(3, nil)
	wantError(t, err, "split")
}
