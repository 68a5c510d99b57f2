package cli

import (
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/carousel-ml/carousel/report"
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
		fmt.Fprintf(w, "  %-*s %s  %s to %s\n", width, c.name, blockRow(c.values, low, high), report.Number(lo), report.Number(hi))
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

// Sizes of a chart in characters, and the most powers of ten it spans.
const (
	chartWidth   = 72
	chartHeight  = 14
	chartDecades = 15
)

// printLogChart draws curves over a common axis of 0, 1, 2, ... and a logarithmic
// one, each with a letter. What is far below the highest value is left out.
func printLogChart(w io.Writer, curves []curve, axis string) {
	low, high, steps := math.Inf(1), math.Inf(-1), 0
	for _, c := range curves {
		steps = max(steps, len(c.values))
		for _, v := range c.values {
			if v > 0 && !math.IsInf(v, 1) {
				low, high = min(low, math.Log10(v)), max(high, math.Log10(v))
			}
		}
	}
	if high < low {
		fmt.Fprintln(w, "  no gradient")
		return
	}
	high = math.Ceil(high)
	low = min(max(math.Floor(low), high-chartDecades), high-1)
	width := min(chartWidth, steps)
	rows := make([][]rune, chartHeight)
	for i := range rows {
		rows[i] = []rune(strings.Repeat(" ", width))
	}
	for i, c := range curves {
		for x := range width {
			// The highest of the values that fall into the column.
			v := 0.0
			for k := x * steps / width; k < max((x+1)*steps/width, x*steps/width+1) && k < len(c.values); k++ {
				v = max(v, c.values[k])
			}
			if at := math.Log10(v); v > 0 && at >= low {
				y := int(math.Round((high - at) / (high - low) * (chartHeight - 1)))
				rows[min(max(y, 0), chartHeight-1)][x] = letter(i)
			}
		}
	}
	for y, row := range rows {
		label := ""
		if decade, ok := decadeAt(y, low, high); ok {
			label = fmt.Sprintf("1e%+03d", decade)
		}
		fmt.Fprintf(w, "  %6s |%s\n", label, strings.TrimRight(string(row), " "))
	}
	fmt.Fprintf(w, "         +%s\n", strings.Repeat("-", width))
	last := fmt.Sprint(steps - 1)
	fmt.Fprintf(w, "          0%s%s  %s\n", strings.Repeat(" ", max(width-1-len(last), 1)), last, axis)
	for i, c := range curves {
		fmt.Fprintf(w, "  %c %s\n", letter(i), c.name)
	}
}

// decadeAt returns the power of ten that labels row y; about five rows have labels.
func decadeAt(y int, low, high float64) (decade int, ok bool) {
	every := max(1, int(high-low+3)/5)
	for d := int(high); d >= int(low); d -= every {
		if int(math.Round((high-float64(d))/(high-low)*(chartHeight-1))) == y {
			return d, true
		}
	}
	return 0, false
}

func letter(i int) rune { return rune("abcdefghijklmnopqrstuvwxyz"[i%26]) }

// printWrapped writes a paragraph after a bullet, in lines of at most columns characters.
func printWrapped(w io.Writer, bullet, text string, columns int) {
	line := bullet
	for i, word := range strings.Fields(text) {
		if i > 0 && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > columns {
			fmt.Fprintln(w, line)
			line = strings.Repeat(" ", len(bullet)) + word
			continue
		}
		if i > 0 {
			line += " "
		}
		line += word
	}
	fmt.Fprintln(w, line)
}
