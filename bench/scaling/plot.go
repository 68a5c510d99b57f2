package main

import (
	"fmt"
	"html"
	"math"
	"os"
	"path/filepath"
	"strings"
)

// A chart has curves over numbers of ranks, on a scale of powers of two.
type chart struct {
	file, title, y string
	top            float64 // of the vertical scale; 0: powers of ten from low
	low, high      float64
	curves         []curve
}

type curve struct {
	name   string
	color  int
	dashed bool
	x, y   []float64
}

// Colours that people with the common kinds of colour blindness tell apart.
var colors = []string{"#0b76cc", "#d05505", "#02966e", "#c2689b", "#7b8797"}

// write draws the chart as an SVG file.
func (c *chart) write(dir string) error {
	const width, height, left, right, top, bottom = 760, 400, 64, 210, 40, 44
	x := func(ranks float64) float64 {
		return left + (width-left-right)*math.Log2(ranks)/9 // 1 to 512
	}
	y := func(v float64) float64 {
		share := v / c.top
		if c.top == 0 {
			share = math.Log(v/c.low) / math.Log(c.high/c.low)
		}
		return height - bottom - (height-bottom-top)*share
	}
	var b strings.Builder
	text := func(x, y float64, anchor, s string) {
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`+"\n", x, y, anchor, html.EscapeString(s))
	}
	line := func(x0, y0, x1, y1 float64, style string) {
		fmt.Fprintf(&b, `<path d="M%.1f %.1fL%.1f %.1f" %s/>`+"\n", x0, y0, x1, y1, style)
	}
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="12" fill="#475569">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fefefe"/>`+"\n", width, height)
	fmt.Fprintf(&b, `<text x="%d" y="22" font-size="14" font-weight="bold" fill="#1e293b">%s</text>`+"\n", left, html.EscapeString(c.title))
	const grid = `stroke="#e4e8ed" fill="none"`
	for k := range 10 {
		n := float64(int(1) << k)
		line(x(n), top, x(n), height-bottom, grid)
		text(x(n), height-bottom+16, "middle", fmt.Sprint(n))
	}
	text((left+width-right)/2, height-8, "middle", "ranks")
	var ticks []float64
	if c.top > 0 {
		for i := range 6 {
			ticks = append(ticks, c.top*float64(i)/5)
		}
	} else {
		for v := c.low; v <= c.high*1.001; v *= 10 {
			ticks = append(ticks, v)
		}
	}
	for _, v := range ticks {
		line(left, y(v), width-right, y(v), grid)
		text(left-6, y(v)+4, "end", fmt.Sprintf("%.4g", v))
	}
	fmt.Fprintf(&b, `<text transform="translate(16 %d) rotate(-90)" text-anchor="middle">%s</text>`+"\n", (top+height-bottom)/2, html.EscapeString(c.y))
	for i, one := range c.curves {
		style := fmt.Sprintf(`stroke="%s" stroke-width="2" fill="none"`, colors[one.color])
		if one.dashed {
			style += ` stroke-dasharray="5 4"`
		}
		b.WriteString(`<path d="`)
		for k := range one.x {
			fmt.Fprintf(&b, "%s%.1f %.1f", "ML"[min(k, 1):min(k, 1)+1], x(one.x[k]), y(one.y[k]))
		}
		fmt.Fprintf(&b, `" %s/>`+"\n", style)
		at := float64(top + 12 + 18*i)
		line(width-right+14, at-4, width-right+38, at-4, style)
		text(width-right+44, at, "start", one.name)
	}
	b.WriteString("</svg>\n")
	return os.WriteFile(filepath.Join(dir, c.file), []byte(b.String()), 0o644)
}
