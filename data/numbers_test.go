package data

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDecimalSeparator(t *testing.T) {
	table := func(cells ...string) string { return "v;w\n" + strings.Join(cells, "\n") + "\n" }
	for _, c := range []struct {
		name, content string
		decimal       rune
		want          []float64
	}{
		{"fraction", table("12.5;1", "1.234;1", "987;1"), 0, []float64{12.5, 1.234, 987}},
		{"fraction after it", table("1.234;1", "987;1", "12.5;1"), 0, []float64{1.234, 987, 12.5}},
		{"comma", table("1.234;1", "987;1", "12,5;1"), 0, []float64{1234, 987, 12.5}},
		{"both", table("1.234,56;1", "-1.234;1"), 0, []float64{1234.56, -1234}},
		{"groups", table("1.234;1", "1.234.567;1", "2;1"), 0, []float64{1234, 1234567, 2}},
		{"leading zero", table("0,125;1", "1,234;1", "2;1"), 0, []float64{.125, 1.234, 2}},
		{"a long whole number", table("1.234;1", "12345;1"), 0, []float64{1.234, 12345}},
		{"three digits everywhere", table("1.234;1", "2.345;1"), 0, []float64{1.234, 2.345}},
		{"another column", table("1.234;1,5", "987;2"), 0, []float64{1234, 987}},
		{"another column, point", table("1.234;1.5", "987;2"), 0, []float64{1.234, 987}},
		{"given comma", table("1.234;1", "987;1"), ',', []float64{1234, 987}},
		{"given point", table("1.234;1", "987;1"), '.', []float64{1.234, 987}},
		{"given point, groups", table("1,234;1", "1,234.56;1"), '.', []float64{1234, 1234.56}},
		{"given comma, groups", table("1.234,56;1", "5,5;1"), ',', []float64{1234.56, 5.5}},
		{"exponent", table("1.234e3;1", "987;1"), 0, []float64{1234, 987}},
		{"tabs", "v\tw\n1,5\t1\n1.234\t1\n", 0, []float64{1.5, 1234}},
		{"quoted", "v,w\n\"1,234.5\",1\n\"1,234\",1\n", 0, []float64{1234.5, 1234}},
	} {
		var notes []string
		p, err := ReadPanel(t.Context(), textFile(t, "x.csv", c.content), &ReadOptions{Values: []string{"v"}, Decimal: c.decimal, Note: func(s string) { notes = append(notes, s) }})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if d := cmp.Diff(c.want, p.Series[0].Values[0]); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
		if said := len(notes) > 0; said != (strings.Contains(c.name, "another") || strings.Contains(c.name, "everywhere")) {
			t.Errorf("%s: notes %q", c.name, notes)
		}
	}
	for _, c := range []struct {
		name, content string
		decimal       rune
		want          string
	}{
		{"beside whole ones", table("1.234;1", "987;1"), 0, `line 2: column "v": "1.234" may be 1.234 or 1234; say which with --decimal point or --decimal comma`},
		{"comma", table("12;1", "1,234;1"), 0, `line 3: column "v": "1,234" may be 1234 or 1.234; say`},
		{"four digits are often not grouped", table("12.345;1", "9876;1"), 0, `"12.345" may be 12.345 or 12345`},
		{"no proof by dates and addresses", table("1.234;192.168.100.200", "987;10.0.0.1"), 0, "may be"},
		{"comma without semicolons", "v\tw\n1,234\t1\n2,345\t1\n", 0, `line 2: column "v": "1,234" may be 1234 or 1.234`},
		{"two", table("12.5;1", "12,5;1"), 0, `line 3: column "v": "12,5" has a decimal comma where other numbers have a point`},
		{"not as given", table("12.5;1"), ',', `line 2: column "v": "12.5" has a decimal point where a decimal comma is expected`},
		{"groups, not as given", table("1.234.567;1"), '.', `has separators of thousands where the decimal point is expected`},
		{"groups of two", table("12.34.567;1"), 0, `"12.34.567" is not a number`},
		{"large", table("1;1", "1e300;1"), 0, `line 3: column "v": 1e300 is too large: numbers may be up to 1e+100`},
		{"large and negative", table("-1e101;1"), 0, `line 2: column "v": -1e101 is too large`},
	} {
		_, err := ReadPanel(t.Context(), textFile(t, "x.csv", c.content), &ReadOptions{Values: []string{"v"}, Decimal: c.decimal})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v\nwant %s", c.name, err, c.want)
		}
	}
	// The layout with a series in each row, and what the panel remembers.
	rows := &ReadOptions{Layout: LayoutRows}
	p := mustRead(t, "x.csv", "id;a;b\nA;1.234;987\nB;1,5;2\n", rows)
	wantValues(t, p.Series[0].Values[0], 1234, 987)
	if p.Decimal != ',' {
		t.Errorf("decimal %q", p.Decimal)
	}
	refuse(t, "x.csv", "id;a;b\nA;1;2\nB;5;1.234\n", rows, `line 3: column "b": "1.234" may be`)
	if p = mustRead(t, "x.csv", table("1,5;2"), nil); p.Decimal != 0 {
		t.Errorf("decimal %q of numbers that anybody reads", p.Decimal)
	}
}

// Every way of writing a number gives that number.
func FuzzNumber(f *testing.F) {
	f.Add(1234567.25, byte(0))
	f.Add(-0.125, byte(3))
	f.Fuzz(func(t *testing.T, v float64, how byte) {
		if math.IsNaN(v) || math.Abs(v) > 1e12 {
			return
		}
		v = math.Round(v*100) / 100
		s := grouping(v, how&1 != 0)
		decimal := byte('.')
		if how&2 != 0 {
			s = strings.NewReplacer(".", ",", ",", ".").Replace(s)
			decimal = ','
		}
		n := &numbers{decimal: decimal, given: true}
		if got, fault := n.parse(&numberColumn{}, 0, 1, s); fault != nil || got != v {
			t.Errorf("%q: %v, %v", s, got, fault)
		}
	})
}

// grouping writes a number with two decimals, with commas between thousands if
// asked for.
func grouping(v float64, thousands bool) string {
	cents := int64(math.Round(math.Abs(v) * 100))
	digits := []byte{}
	whole := cents / 100
	for i := 0; i == 0 || whole > 0; i++ {
		if i > 0 && i%3 == 0 && thousands {
			digits = append(digits, ',')
		}
		digits = append(digits, byte('0'+whole%10))
		whole /= 10
	}
	for i, j := 0, len(digits)-1; i < j; i, j = i+1, j-1 {
		digits[i], digits[j] = digits[j], digits[i]
	}
	s := string(digits) + "." + string([]byte{byte('0' + cents/10%10), byte('0' + cents%10)})
	if math.Signbit(v) && cents > 0 {
		s = "-" + s
	}
	return s
}
