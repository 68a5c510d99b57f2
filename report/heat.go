package report

import (
	"fmt"
	"image"
	"image/color"
	"math"
	"strconv"
)

// Heat draws a matrix as coloured cells with a colour bar, such as a confusion
// matrix, an attention map, a spectrogram or errors by weekday and hour. Large
// matrices become an image of averaged cells.
type Heat struct {
	X, Y Axis // labels; also the ticks of columns and rows without names
	// Columns and Rows are the names of the cells. Without names the axes count
	// from 0, or from Min to Max if these are set.
	Columns, Rows []string
	Values        [][]float64 // [row][column]
	// Up puts the first row at the bottom, as in spectrograms.
	Up bool
	// Format is the verb for a float64, such as "%.0f", with which values are
	// written into cells that are large enough; "" writes none.
	Format string
	// Diverging centres the colours on zero: blue for positive values, orange for
	// negative ones.
	Diverging bool
	// Legend is the label of the colour bar.
	Legend string
	// Dots are drawn over the cells: X and Y from 0 to 1 across all columns and rows. Only X, Y and Items
	// are used.
	Dots Series
	// Bare omits the colour bar, so that the cells align with a Lines plot of the
	// same horizontal axis.
	Bare bool
}

const (
	maxDrawnCells = 1600 // beyond, cells become the pixels of an image
	maxHeatWidth  = 1200
	maxHeatHeight = 400
)

func (h *Heat) shape() (rows, cols int) {
	for _, r := range h.Values {
		cols = max(cols, len(r))
	}
	return max(len(h.Values), len(h.Rows)), max(cols, len(h.Columns))
}

func (h *Heat) size() (width, height int) {
	rows, cols := h.shape()
	if rows*cols > maxDrawnCells || rows == 0 {
		return 960, 360
	}
	cell := min(max(700/max(cols, 1), 14), 64)
	tall := min(cell, 44)
	if len(h.Columns) > 0 && cols <= 40 && rows >= cols/2 {
		tall = min(cell, 56)
	}
	return min(max(cols*cell+200, 420), 960), min(max(rows*tall+120, 220), 900)
}

func (h *Heat) describe() string {
	rows, cols := h.shape()
	what := fmt.Sprintf("heat map, %d rows by %d columns", rows, cols)
	return describe(what, h.X.Label, h.Y.Label, nil)
}

func (h *Heat) draw(p pen, r box) {
	rows, cols := h.shape()
	h = h.named(rows, cols)
	e := newExtent(false)
	for _, row := range h.Values {
		for _, v := range row {
			e.add(v)
		}
	}
	lo, hi := e.lo, e.hi
	if h.Diverging {
		hi = max(math.Abs(lo), math.Abs(hi))
		lo = -hi
	}
	if lo == hi { // constant: the middle of the colours
		lo, hi = lo-0.5, hi+0.5
	}
	if h.Y.Label != "" || h.Legend != "" {
		r.y1 -= rowHeight
		p.text(r.x0, r.y1+6, fit(h.Y.Label, textSize, r.width()*0.6, regular), style{size: textSize, color: palette[Muted]})
	}
	if h.X.Label != "" {
		p.text((r.x0+r.x1)/2, r.y0+3, fit(h.X.Label, textSize, r.width(), regular),
			style{size: textSize, color: palette[Muted], align: center})
		r.y0 += 18
	}
	if !e.any {
		p.noData(r)
		return
	}
	if !h.Bare {
		r = h.colorBar(p, r, lo, hi)
	}
	r = h.labels(p, r, rows, cols)
	if rows*cols > maxDrawnCells {
		p.image(r, h.image(rows, cols, int(r.width()*pngScale), int(r.height()*pngScale), lo, hi))
	} else {
		h.cells(p, r, rows, cols, lo, hi)
	}
	h.dots(p, r)
}

// dots draws a light rim around each dot, so that it can be seen on every colour.
func (h *Heat) dots(p pen, r box) {
	for i := range min(len(h.Dots.X), len(h.Dots.Y)) {
		y := h.Dots.Y[i]
		if !h.Up {
			y = 1 - y
		}
		at := point{r.x0 + h.Dots.X[i]*r.width(), r.y0 + y*r.height()}
		var rim path
		rim.circle(at, 4)
		p.marked(h.Dots, i, rim, func() {
			p.fill(rim, color.NRGBA{0xFF, 0xFF, 0xFF, 0xFF})
			p.dot(at.x, at.y, 2.6, color.NRGBA{0x11, 0x18, 0x27, 0xFF})
		})
	}
}

// named numbers the cells of a small matrix without names and ranges.
func (h *Heat) named(rows, cols int) *Heat {
	out := *h
	number := func(names []string, a Axis, n int) []string {
		if len(names) > 0 || a.Max > a.Min || n > 40 {
			return names
		}
		for i := range n {
			names = append(names, strconv.Itoa(i))
		}
		return names
	}
	out.Rows, out.Columns = number(h.Rows, h.Y, rows), number(h.Columns, h.X, cols)
	return &out
}

// colorBar draws the scale at the right of r and returns the rest of r.
func (h *Heat) colorBar(p pen, r box, lo, hi float64) box {
	s := scale{lo: lo, hi: hi, p0: r.y0 + 22, p1: r.y1 - 6}
	ticks := s.ticks(int(r.height() / 32))
	gutter := 0.0
	for _, t := range ticks {
		gutter = max(gutter, textWidth(t.label, tickSize, regular))
	}
	bar := box{r.x1 - gutter - 22, s.p0, r.x1 - gutter - 8, s.p1}
	const steps = 48
	strip := image.NewNRGBA(image.Rect(0, 0, 1, steps))
	for i := range steps {
		strip.SetNRGBA(0, i, h.color(1-(float64(i)+0.5)/steps))
	}
	p.image(bar, strip)
	for _, t := range ticks {
		at, _ := s.at(t.value)
		p.text(bar.x1+6, at-4, t.label, style{size: tickSize, color: textColor})
	}
	if h.Legend != "" {
		p.text(r.x1, r.y1+6, fit(h.Legend, textSize, r.width()*0.35, regular), style{size: textSize, color: palette[Muted], align: right})
	}
	r.x1 = bar.x0 - 16
	return r
}

// labels draws row and column labels and returns the area for the cells.
func (h *Heat) labels(p pen, r box, rows, cols int) box {
	gutter := 0.0
	yScale := newScale(h.Y, span(h.Y, rows), 0)
	r.y1 -= 6
	turned := h.turned(r, cols)
	if turned {
		longest := 0.0
		for _, s := range h.Columns {
			longest = max(longest, textWidth(fit(s, tickSize, 130, regular), tickSize, regular))
		}
		r.y0 += longest + 10
	} else {
		r.y0 += 22
	}
	yTicks := yScale.ticks(int(max(r.height(), 0)/tickPixels) + 1)
	names := make([]string, len(h.Rows))
	for i, s := range h.Rows {
		names[i] = fit(s, tickSize, 140, regular)
		gutter = max(gutter, textWidth(names[i], tickSize, regular))
	}
	if len(h.Rows) == 0 {
		for _, t := range yTicks {
			gutter = max(gutter, textWidth(t.label, tickSize, regular))
		}
	}
	r.x0 += gutter + 8
	if len(h.Rows) == 0 {
		yScale.p0, yScale.p1 = r.y0, r.y1
		if !h.Up {
			yScale.p0, yScale.p1 = r.y1, r.y0
		}
		for _, t := range yTicks {
			at, _ := yScale.at(t.value)
			p.text(r.x0-8, at-4, t.label, style{size: tickSize, color: textColor, align: right})
		}
	}
	cell := r.height() / float64(rows)
	every := max(1, int(math.Ceil(13/cell)))
	for i := 0; i < len(names); i += every {
		at := h.rowBox(r, i, rows)
		p.text(r.x0-8, (at.y0+at.y1)/2-4, names[i], style{size: tickSize, color: textColor, align: right})
	}
	h.columnLabels(p, r, cols, turned)
	return r
}

// turned reports whether the column names fit only if they are vertical.
func (h *Heat) turned(r box, cols int) bool {
	slot := (r.width() - 60) / float64(max(cols, 1))
	if slot < 13 {
		return false
	}
	for _, s := range h.Columns {
		if textWidth(s, tickSize, regular)+6 > slot {
			return true
		}
	}
	return false
}

func (h *Heat) columnLabels(p pen, r box, cols int, turned bool) {
	switch {
	case len(h.Columns) == 0:
		x := newScale(h.X, span(h.X, cols), 0)
		x.p0, x.p1 = r.x0, r.x1
		p.xTicks(frame{box: r, x: x})
	case turned:
		slot := r.width() / float64(cols)
		for i, s := range h.Columns {
			s = fit(s, tickSize, 130, regular)
			p.text(r.x0+(float64(i)+0.5)*slot+4, r.y0-6-textWidth(s, tickSize, regular), s,
				style{size: tickSize, color: textColor, vertical: true})
		}
	default:
		padded := append(append([]string(nil), h.Columns...), make([]string, cols-len(h.Columns))...)
		p.slotLabels(r, padded, r.y0-15)
	}
}

// span returns the range of an axis over n unnamed cells.
func span(a Axis, n int) extent {
	e := newExtent(a.Log)
	if a.Max > a.Min {
		e.add(a.Min)
		e.add(a.Max)
		return e
	}
	e.add(0)
	e.add(float64(n))
	return e
}

func (h *Heat) rowBox(r box, i, rows int) box {
	cell := r.height() / float64(rows)
	if h.Up {
		return box{r.x0, r.y0 + float64(i)*cell, r.x1, r.y0 + float64(i+1)*cell}
	}
	return box{r.x0, r.y1 - float64(i+1)*cell, r.x1, r.y1 - float64(i)*cell}
}

func (h *Heat) cells(p pen, r box, rows, cols int, lo, hi float64) {
	wide := r.width() / float64(cols)
	for i := range rows {
		at := h.rowBox(r, i, rows)
		for j := range cols {
			b := box{r.x0 + float64(j)*wide, at.y0, r.x0 + float64(j+1)*wide, at.y1}
			seam := min(1, 0.06*min(b.width(), b.height()))
			b = box{b.x0 + seam, b.y0 + seam, b.x1 - seam, b.y1 - seam}
			v := h.value(i, j)
			if !finite(v) {
				p.rect(b, emptyColor)
				continue
			}
			c := h.color((v - lo) / (hi - lo))
			p.rect(b, c)
			if h.Format == "" {
				continue
			}
			s := fmt.Sprintf(h.Format, v)
			if textWidth(s, 11, regular) < b.width()-2 && b.height() > 13 {
				p.text((b.x0+b.x1)/2, (b.y0+b.y1)/2-4, s, style{size: 11, color: contrast(c), align: center})
			}
		}
	}
}

func (h *Heat) value(i, j int) float64 {
	if i < len(h.Values) && j < len(h.Values[i]) {
		return h.Values[i][j]
	}
	return math.NaN()
}

// image returns the cells as an image of at most w by t pixels. With more cells
// than that a pixel is the mean of several; with fewer a cell is several pixels,
// so that scaling does not blur it.
func (h *Heat) image(rows, cols, w, t int, lo, hi float64) image.Image {
	w, t = pixelCount(w, maxHeatWidth, cols), pixelCount(t, maxHeatHeight, rows)
	img := image.NewNRGBA(image.Rect(0, 0, w, t))
	for y := range t {
		for x := range w {
			sum, n := 0.0, 0
			for i := y * rows / t; i < max((y+1)*rows/t, y*rows/t+1); i++ {
				for j := x * cols / w; j < max((x+1)*cols/w, x*cols/w+1); j++ {
					if v := h.value(i, j); finite(v) {
						sum += v
						n++
					}
				}
			}
			c := emptyColor
			if n > 0 {
				c = h.color((sum/float64(n) - lo) / (hi - lo))
			}
			if h.Up {
				img.SetNRGBA(x, t-1-y, c)
			} else {
				img.SetNRGBA(x, y, c)
			}
		}
	}
	return img
}

// pixelCount returns about want, and a multiple of cells if it exceeds them.
func pixelCount(want, limit, cells int) int {
	n := min(max(want, 1), limit)
	if n > cells {
		n -= n % cells
	}
	return n
}

var (
	// sequential goes from near white to dark blue with equal steps of lightness.
	sequential = []color.NRGBA{
		{0xF4, 0xF7, 0xFB, 0xFF}, {0xD3, 0xE3, 0xF2, 0xFF}, {0x9E, 0xC5, 0xE3, 0xFF}, {0x5B, 0x9F, 0xD0, 0xFF},
		{0x25, 0x74, 0xB2, 0xFF}, {0x0C, 0x4C, 0x8A, 0xFF}, {0x08, 0x2A, 0x54, 0xFF},
	}
	diverging = []color.NRGBA{
		{0x8F, 0x3A, 0x03, 0xFF}, {0xD0, 0x6A, 0x1E, 0xFF}, {0xF1, 0xBC, 0x8A, 0xFF}, {0xF6, 0xF6, 0xF6, 0xFF},
		{0x9E, 0xC5, 0xE3, 0xFF}, {0x25, 0x74, 0xB2, 0xFF}, {0x08, 0x3A, 0x70, 0xFF},
	}
)

// color returns the colour at f in [0,1].
func (h *Heat) color(f float64) color.NRGBA {
	stops := sequential
	if h.Diverging {
		stops = diverging
	}
	f = min(max(f, 0), 1) * float64(len(stops)-1)
	i := min(int(f), len(stops)-2)
	a, b, f := stops[i], stops[i+1], f-float64(i)
	mix := func(x, y uint8) uint8 { return uint8(math.Round(float64(x) + f*(float64(y)-float64(x)))) }
	return color.NRGBA{mix(a.R, b.R), mix(a.G, b.G), mix(a.B, b.B), 0xFF}
}

// contrast returns a readable colour for text on c. It is not a themed colour,
// since a cell has the same colour in every theme.
func contrast(c color.NRGBA) color.NRGBA {
	if 0.299*float64(c.R)+0.587*float64(c.G)+0.114*float64(c.B) < 140 {
		return color.NRGBA{0xFF, 0xFF, 0xFF, 0xFF}
	}
	return color.NRGBA{0x11, 0x18, 0x27, 0xFF}
}
