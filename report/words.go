package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Percent formats a share: 0.123 is "12.3 %".
func Percent(v float64) string { return fmt.Sprintf("%.1f %%", 100*v) }

// Number formats x with about four significant digits, without exponent in the
// usual range; "-" if it is NaN or infinite.
func Number(x float64) string {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return "-"
	}
	switch size := math.Abs(x); {
	case size == 0:
		return "0"
	case size < 1e-4 || size >= 1e9:
		return strconv.FormatFloat(x, 'g', 4, 64)
	case size >= 1000:
		return strconv.FormatFloat(x, 'f', 0, 64)
	default:
		digits := 3 - int(math.Floor(math.Log10(size)))
		return strconv.FormatFloat(x, 'f', max(digits, 0), 64)
	}
}

// Count formats an integer with thousands separators.
func Count(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Plural formats a count with its noun: "1 text", "2,000 texts".
func Plural(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return Count(n) + " " + noun
}

// Agree formats a count with the one of two words that agrees with it: "1 file
// is", "2 files are".
func Agree(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return Count(n) + " " + many
}

// Listing joins items for a message: at most twelve, and the number of the
// others.
func Listing(items []string) string {
	const most = 12
	if len(items) > most {
		return fmt.Sprintf("%s and %s more", strings.Join(items[:most], ", "), Count(len(items)-most))
	}
	return strings.Join(items, ", ")
}

// Shorten cuts a text to n characters, with an ellipsis. It panics if n is 0 and
// the text is not empty.
func Shorten(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}
