package cli

import (
	"fmt"
	"io"
	"math"
	"strings"
)

// curve is a named row of a text plot.
type curve struct {
	name   string
	values []float64
}

var blocks = []rune("▁▂▃▄▅▆▇█")

// printCurves draws curves as rows of blocks, one column a value, all on one
// scale, with the lowest and the highest value at the end of each row.
func printCurves(w io.Writer, curves []curve) {
	low, high, width := math.Inf(1), math.Inf(-1), 0
	for _, c := range curves {
		width = max(width, len(c.name))
		lo, hi := bounds(c.values)
		low, high = min(low, lo), max(high, hi)
	}
	for _, c := range curves {
		lo, hi := bounds(c.values)
		fmt.Fprintf(w, "  %-*s %s  %s to %s\n", width, c.name, blockRow(c.values, low, high), number(lo), number(hi))
	}
}

func bounds(values []float64) (low, high float64) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, v := range values {
		if !math.IsNaN(v) {
			low, high = min(low, v), max(high, v)
		}
	}
	return low, high
}

// blockRow draws values between low and high, each two columns wide.
func blockRow(values []float64, low, high float64) string {
	var b strings.Builder
	for _, v := range values {
		r := ' '
		if !math.IsNaN(v) {
			at := 0.0
			if high > low {
				at = (v - low) / (high - low) * float64(len(blocks)-1)
			}
			r = blocks[int(math.Round(at))]
		}
		b.WriteString(strings.Repeat(string(r), 2))
	}
	return b.String()
}

// hourRuler labels 24 hours under rows of blocks that begin after indent columns.
func hourRuler(indent int) string {
	var b strings.Builder
	b.WriteString(strings.Repeat(" ", indent))
	for h := 0; h < 24; h += 6 {
		fmt.Fprintf(&b, "%-12s", fmt.Sprintf("%02dh", h))
	}
	return strings.TrimRight(b.String(), " ")
}
