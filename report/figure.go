package report

import (
	"fmt"
	"html/template"
	"image/color"
	"image/png"
	"io"
	"strconv"
)

// Figure is a picture with its words. On a page the title and the caption are
// text around an inlined SVG; in a PNG the title is part of the image.
type Figure struct {
	File    string // the name of its PNG beside a page, such as "loss.png"; "": none
	Title   string
	Caption string
	// Alt describes the picture to someone who cannot see it. When empty a
	// description is made from the title and the names in the plot.
	Alt string
	// Width and Height are the size of the drawing in CSS pixels, without the
	// PNG's title line. Zero takes the plot's own proportions. A page scales
	// the drawing to the room there is.
	Width, Height int
	Plot          Plot
}

// Plot is what a Figure shows: *Lines, *Bars, *Heat or *Grid. All of them
// accept missing data: empty or ragged slices and values that are NaN or
// infinite leave a gap, and a plot without any finite value says "no data".
type Plot interface {
	size() (w, h int)  // default drawing size in pixels
	draw(p pen, r box) // draws into r
	describe() string  // plain words for those who cannot see it
}

// Color names one of the colours of the palette, which is chosen to be told
// apart with the common kinds of colour blindness, on white and on dark paper.
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
	Ink   // the colour of the text: for the truth that others are compared with
	Muted // grey: for context
)

// autoColors is how many colours Auto goes through before it repeats them.
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
	emptyColor = color.NRGBA{0xEF, 0xF1, 0xF4, 0xFF} // a heat cell without a value
)

// themed names the variables of the style sheet by the colours that follow the
// reader's light or dark theme.
var themed = func() map[color.NRGBA]string {
	m := map[color.NRGBA]string{textColor: "text", gridColor: "grid", axisColor: "axis", emptyColor: "empty"}
	for i, c := range palette[1:] {
		m[c] = "c" + strconv.Itoa(i+1)
	}
	return m
}()

// pick resolves Auto by the position i of a series in its plot.
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

// pixels is the size of the drawing without its title.
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

// WritePNG writes the figure with its title as a PNG image of twice its size in
// pixels: the title adds 28 pixels to the height.
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

// draw puts the title on top of r, in the given size, and the plot below it.
func (f *Figure) draw(p pen, r box, size float64) {
	if f.Title != "" {
		p.text(r.x0, r.y1-16, fit(f.Title, size, r.width(), bold), style{size: size, weight: bold, color: palette[Ink]})
		r.y1 -= titleHeight
	}
	if f.Plot != nil {
		f.Plot.draw(p, r)
	}
}

// alt is the description read aloud in place of the picture.
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

// svg draws the plot as an SVG element to be inlined in HTML: no XML prologue,
// no ids that could clash, no fonts of its own, colours by variable.
func (f *Figure) svg() (template.HTML, error) {
	w, h := f.pixels()
	c := &svgCanvas{height: float64(h)}
	if f.Plot != nil {
		f.Plot.draw(pen{c}, box{1, 1, float64(w) - 1, float64(h) - 1})
	}
	if c.err != nil {
		return "", fmt.Errorf("report: figure %q: %w", f.Title, c.err)
	}
	return template.HTML(fmt.Sprintf("<svg viewBox=\"0 0 %d %d\" style=\"max-width:%dpx\" role=\"img\" aria-label=\"%s\">\n%s</svg>\n",
		w, h, w*5/4, template.HTMLEscapeString(clean(f.alt())), c.out)), nil
}
