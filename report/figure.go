package report

import (
	"fmt"
	"html/template"
	"image/color"
	"image/png"
	"io"
	"strconv"
)

// Figure is a plot with its texts. On a page the title and the caption are text
// around an inlined SVG; in a PNG the title is part of the image.
type Figure struct {
	File    string // name of its PNG file beside a page, such as "loss.png"; "": none
	Title   string
	Caption string
	// Alt describes the figure for readers who cannot see it. If empty, a
	// description is made from the title and the names in the plot.
	Alt string
	// Width and Height are the size of the drawing in CSS pixels, without the
	// title line of a PNG. Zero is the plot's default size. Sizes are limited to
	// 160 or 120 to 4000. A page scales the drawing to the available width.
	Width, Height int
	Plot          Plot
}

// Plot is the content of a Figure: *Lines, *Bars, *Heat, *Parallel or *Grid. All accept
// missing data: empty slices, slices of different lengths and values that are NaN
// or infinite leave gaps, and a plot without finite values shows "no data".
type Plot interface {
	size() (w, h int)  // default drawing size in pixels
	draw(p pen, r box) // draws within r
	describe() string  // the plot in words, for readers who cannot see it
}

// Color is a colour of the palette, whose colours can be distinguished with the
// common kinds of colour blindness, on white and on dark backgrounds.
type Color int

// The palette. Auto takes the first six in turn, by position in the plot.
const (
	Auto Color = iota
	Blue
	Orange
	Green
	Pink
	Amber
	Sky
	Ink   // the colour of text: for measured values, with which others are compared
	Muted // grey: for context
)

// autoColors is the number of colours that Auto uses before it repeats them.
const autoColors = 6

var palette = [...]color.NRGBA{
	Blue:   {0x0B, 0x76, 0xCC, 0xFF},
	Orange: {0xD0, 0x55, 0x05, 0xFF},
	Green:  {0x02, 0x96, 0x6E, 0xFF},
	Pink:   {0xC2, 0x68, 0x9B, 0xFF},
	Amber:  {0xE0, 0x9A, 0x02, 0xFF},
	Sky:    {0x4E, 0xA9, 0xDE, 0xFF},
	Ink:    {0x1E, 0x29, 0x3B, 0xFF},
	Muted:  {0x7B, 0x87, 0x97, 0xFF},
}

var (
	textColor  = color.NRGBA{0x47, 0x55, 0x69, 0xFF}
	gridColor  = color.NRGBA{0xE4, 0xE8, 0xED, 0xFF}
	axisColor  = color.NRGBA{0xA3, 0xAD, 0xBA, 0xFF}
	cardColor  = color.NRGBA{0xFE, 0xFE, 0xFE, 0xFF} // what a drawing is on, but for the white of heat cells
	emptyColor = color.NRGBA{0xEF, 0xF1, 0xF4, 0xFF} // a heat cell without a value
)

// themed has the names of the CSS variables for the colours that follow the
// reader's light or dark theme.
var themed = func() map[color.NRGBA]string {
	m := map[color.NRGBA]string{textColor: "text", gridColor: "grid", axisColor: "axis", emptyColor: "empty", cardColor: "card"}
	for i, c := range palette[1:] {
		m[c] = "c" + strconv.Itoa(i+1)
	}
	return m
}()

// pick returns the colour, with Auto resolved by the position i of a series in
// its plot.
func (c Color) pick(i int) color.NRGBA {
	if c <= Auto || int(c) >= len(palette) {
		c = Color(1 + i%autoColors)
	}
	return palette[c]
}

func faded(c color.NRGBA, alpha float64) color.NRGBA {
	c.A = uint8(alpha * 255)
	return c
}

const (
	titleHeight = 28
	pngScale    = 2 // dots per pixel, for sharp text on dense screens and paper
	maxSide     = 4000
)

// pixels returns the size of the drawing without its title.
func (f *Figure) pixels() (w, h int) {
	w, h = f.Width, f.Height
	if f.Plot != nil {
		dw, dh := f.Plot.size()
		if w <= 0 {
			w = dw
		}
		if h <= 0 {
			h = dh
		}
	}
	return min(max(w, 160), maxSide), min(max(h, 120), maxSide)
}

// WritePNG writes the figure with its title as a PNG image with two dots per CSS
// pixel; the title adds 28 pixels to the height. The errors are those of w.
func (f *Figure) WritePNG(w io.Writer) error {
	width, height := f.pixels()
	if f.Title != "" {
		height += titleHeight
	}
	c := newPNGCanvas(width, height)
	f.draw(pen{c}, box{8, 8, float64(width) - 8, float64(height) - 8}, 15)
	if err := png.Encode(w, c.img); err != nil {
		return fmt.Errorf("report: figure %q: %w", f.Title, err)
	}
	return nil
}

// draw draws the title at the top of r, in the given size, and the plot below it.
func (f *Figure) draw(p pen, r box, size float64) {
	if f.Title != "" {
		p.text(r.x0, r.y1-16, fit(f.Title, size, r.width(), bold), style{size: size, weight: bold, color: palette[Ink]})
		r.y1 -= titleHeight
	}
	if f.Plot != nil {
		f.Plot.draw(p, r)
	}
}

// alt returns the text alternative of the figure.
func (f *Figure) alt() string {
	switch {
	case f.Alt != "":
		return f.Alt
	case f.Plot == nil:
		return f.Title
	case f.Title == "":
		return f.Plot.describe()
	}
	return f.Title + ": " + f.Plot.describe()
}

// svg returns the plot as an SVG element to be inlined in HTML: without an XML
// prologue, ids or fonts, and with colours as variables.
func (f *Figure) svg() (template.HTML, error) {
	w, h := f.pixels()
	c := &svgCanvas{height: float64(h)}
	if f.Plot != nil {
		f.Plot.draw(pen{c}, box{1, 1, float64(w) - 1, float64(h) - 1})
	}
	if c.err != nil {
		return "", fmt.Errorf("report: figure %q: %w", f.Title, c.err)
	}
	narrow := ""
	if one, ok := f.Plot.(*Parallel); ok {
		narrow = fmt.Sprintf(";min-width:%dpx", one.least())
	}
	return template.HTML(fmt.Sprintf("<svg viewBox=\"0 0 %d %d\" style=\"max-width:%dpx%s\" role=\"img\" aria-label=\"%s\">\n%s</svg>\n",
		w, h, w*5/4, narrow, template.HTMLEscapeString(clean(f.alt())), c.out)), nil
}
