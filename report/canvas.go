package report

import (
	"image"
	"image/color"
)

// box is a rectangle in pixels, y upwards.
type box struct{ x0, y0, x1, y1 float64 }

func (b box) width() float64  { return b.x1 - b.x0 }
func (b box) height() float64 { return b.y1 - b.y0 }

type point struct{ x, y float64 }

// contour is a line through points, or a circle around a single point.
type contour struct {
	points []point
	closed bool
	radius float64 // of a circle
}

// path is what is filled with a colour or stroked with a line. Overlapping
// contours with the same orientation are filled once.
type path []contour

func (p *path) move(at point) { *p = append(*p, contour{points: []point{at}}) }

func (p path) line(to point) {
	c := &p[len(p)-1]
	c.points = append(c.points, to)
}

func (p path) close() { p[len(p)-1].closed = true }

func (p *path) rect(b box) {
	*p = append(*p, contour{points: []point{{b.x0, b.y0}, {b.x1, b.y0}, {b.x1, b.y1}, {b.x0, b.y1}}, closed: true})
}

func (p *path) circle(at point, radius float64) {
	*p = append(*p, contour{points: []point{at}, closed: true, radius: radius})
}

// canvas is the output of a pen: an svgCanvas or a pngCanvas. Its unit is one
// pixel and y points upwards.
type canvas interface {
	fill(p path, c color.NRGBA)
	// stroke draws open contours with round joins and flat ends. dash has the
	// lengths of dashes and gaps in turn.
	stroke(p path, c color.NRGBA, width float64, dash ...float64)
	// write draws a text that starts at a point of its baseline, whatever its
	// alignment.
	write(at point, s string, st style)
	image(b box, img image.Image)
	// item lets what draw draws be a mark of an item of the page, which stands out where the reader
	// points near a path.
	item(n int, near path, draw func())
}

// pen draws the elements of plots.
type pen struct{ canvas }

type weight bool

const (
	regular weight = false
	bold    weight = true
)

// align places a text relative to its point.
type align int

const (
	left   align = iota // the zero value: text starts at the point
	center              // text is centred on the point
	right               // text ends at the point
)

type style struct {
	size     float64
	weight   weight
	color    color.NRGBA
	align    align
	vertical bool // reads upwards
}

// text draws s with its baseline at y.
func (p pen) text(x, y float64, s string, st style) {
	s = clean(s)
	if s == "" {
		return
	}
	shift := 0.0
	switch st.align {
	case center:
		shift = textWidth(s, st.size, st.weight) / 2
	case right:
		shift = textWidth(s, st.size, st.weight)
	}
	if st.vertical {
		p.write(point{x, y - shift}, s, st)
	} else {
		p.write(point{x - shift, y}, s, st)
	}
}

func (p pen) rect(b box, c color.NRGBA) {
	var path path
	path.rect(b)
	p.fill(path, c)
}

func (p pen) line(x0, y0, x1, y1 float64, c color.NRGBA, width float64, dash ...float64) {
	p.stroke(path{{points: []point{{x0, y0}, {x1, y1}}}}, c, width, dash...)
}

// noData fills the area of a plot without data.
func (p pen) noData(r box) {
	p.rect(r, faded(emptyColor, 0.5))
	p.text((r.x0+r.x1)/2, (r.y0+r.y1)/2-4, "no data", style{size: 13, color: palette[Muted], align: center})
}

// key is one entry of a legend.
type key struct {
	name  string
	color color.NRGBA
	kind  keyKind
	dash  []float64
}

type keyKind int

const (
	lineKey keyKind = iota
	areaKey
	dotKey
)

const (
	textSize  = 12
	rowHeight = 19
	swatch    = 20
)

// legend draws the entries in rows at the top of r and returns the rest of r.
func (p pen) legend(keys []key, r box) box {
	x, y := r.x0, r.y1-rowHeight
	any := false
	for _, k := range keys {
		if k.name == "" {
			continue
		}
		name := fit(k.name, textSize, r.width()-swatch-8, regular)
		w := swatch + 6 + textWidth(name, textSize, regular) + 18
		if any && x+w-18 > r.x1 {
			x, y = r.x0, y-rowHeight
		}
		if y < r.y0+r.height()/2 {
			break // the drawing matters more than the rest of a long legend
		}
		mid := y + 7
		switch k.kind {
		case areaKey:
			p.rect(box{x, mid - 5, x + swatch, mid + 5}, k.color)
		case dotKey:
			p.dot(x+swatch/2, mid, 3, k.color)
		default:
			p.line(x, mid, x+swatch, mid, k.color, 2, k.dash...)
		}
		p.text(x+swatch+6, y+3, name, style{size: textSize, color: textColor})
		x += w
		any = true
	}
	if !any {
		return r
	}
	r.y1 = y - 5
	return r
}

func (p pen) dot(x, y, radius float64, c color.NRGBA) {
	var path path
	path.circle(point{x, y}, radius)
	p.fill(path, c)
}
