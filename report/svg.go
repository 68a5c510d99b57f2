package report

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"html"
	"image"
	"image/color"
	"image/png"
	"strconv"
	"strings"

	"golang.org/x/image/font/sfnt"
)

// svgCanvas writes the content of an SVG element.
type svgCanvas struct {
	height float64 // SVG has y downwards
	out    []byte
	err    error
}

// add appends a line. Numbers in args are rounded to hundredths of a pixel.
func (c *svgCanvas) add(format string, args ...any) {
	for i, a := range args {
		if v, ok := a.(float64); ok {
			args[i] = short(v)
		}
	}
	c.out = fmt.Appendf(c.out, format+"\n", args...)
}

// short formats v with at most two decimal places.
func short(v float64) string {
	s := strings.TrimRight(strings.TrimRight(strconv.FormatFloat(v, 'f', 2, 64), "0"), ".")
	if s == "-0" {
		return "0"
	}
	return s
}

// paint returns the style that sets a property ("fill", "stroke") to a colour, by
// its variable if the colour follows the theme.
func paint(property string, c color.NRGBA) string {
	opaque := c
	opaque.A = 0xFF
	s := fmt.Sprintf("#%02X%02X%02X", c.R, c.G, c.B)
	if name, ok := themed[opaque]; ok {
		s = "var(--" + name + "," + s + ")"
	}
	s = property + ":" + s
	if c.A < 0xFF {
		s += ";" + property + "-opacity:" + short(float64(c.A)/0xFF)
	}
	return s
}

func (c *svgCanvas) fill(p path, col color.NRGBA) {
	if len(p) > 0 {
		c.add(`<path d="%s" style="%s"/>`, c.outline(p), paint("fill", col))
	}
}

func (c *svgCanvas) stroke(p path, col color.NRGBA, width float64, dash ...float64) {
	if len(p) == 0 {
		return
	}
	style := "fill:none;" + paint("stroke", col)
	if width != 1 {
		style += ";stroke-width:" + short(width)
	}
	for i, d := range dash {
		if i == 0 {
			style += ";stroke-dasharray:" + short(d)
		} else {
			style += "," + short(d)
		}
	}
	c.add(`<path d="%s" style="%s"/>`, c.outline(p), style)
}

// outline returns the path in SVG syntax.
func (c *svgCanvas) outline(p path) string {
	var b strings.Builder
	for _, o := range p {
		for i, q := range o.points {
			x, y := q.x, c.height-q.y
			switch {
			case o.radius > 0: // an arc cannot end at its beginning, so a circle is two arcs
				r, d := short(o.radius), short(2*o.radius)
				fmt.Fprintf(&b, "M%s,%sa%s,%s 0 0 1 -%s,0a%s,%s 0 0 1 %s,0", short(x+o.radius), short(y), r, r, d, r, r, d)
			case i == 0:
				b.WriteString("M" + short(x) + "," + short(y))
			default:
				b.WriteString("L" + short(x) + "," + short(y))
			}
		}
		if o.closed {
			b.WriteString("Z")
		}
	}
	return b.String()
}

// write sets the length that the text has in the font it was laid out with, so
// that labels have the intended width if the reader's machine only has a wider or
// narrower font. Text with glyphs that the font lacks keeps its natural length.
func (c *svgCanvas) write(at point, s string, st style) {
	x, y := at.x, c.height-at.y
	length, turn, weight := "", "", ""
	lacks := false
	width := glyphs(s, st.size, st.weight, func(_ float64, g sfnt.GlyphIndex) { lacks = lacks || g == 0 })
	if !lacks {
		length = ` textLength="` + short(width) + `" lengthAdjust="spacingAndGlyphs"`
	}
	if st.vertical {
		turn = fmt.Sprintf(` transform="rotate(-90 %s %s)"`, short(x), short(y))
	}
	if st.weight == bold {
		weight = "font-weight:bold;"
	}
	c.add(`<text x="%s" y="%s"%s%s style="%sfont-size:%spx;%s">%s</text>`, x, y, length, turn, weight, st.size, paint("fill", st.color), html.EscapeString(s))
}

func (c *svgCanvas) item(n int, near path, draw func()) {
	c.add(`<g class="i i%d"><path class="near" d="%s" style="fill:none"/>`, n, c.outline(near))
	draw()
	c.add(`</g>`)
}

func (c *svgCanvas) image(b box, img image.Image) {
	var buf bytes.Buffer
	if err := png.Encode(&buf, img); err != nil {
		c.err = err
		return
	}
	c.add(`<image x="%s" y="%s" width="%s" height="%s" preserveAspectRatio="none" href="data:image/png;base64,%s"/>`,
		b.x0, c.height-b.y1, b.width(), b.height(), base64.StdEncoding.EncodeToString(buf.Bytes()))
}
