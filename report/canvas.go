package report

import (
	"fmt"
	"image/color"
	"math"
	"strings"
	"sync"
	"unicode"

	"codeberg.org/go-fonts/liberation/liberationsansbold"
	"codeberg.org/go-fonts/liberation/liberationsansregular"
	xfont "golang.org/x/image/font"
	"golang.org/x/image/font/opentype"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/vg"
)

// box is a rectangle in pixels, y upwards.
type box struct{ x0, y0, x1, y1 float64 }

func (b box) width() float64  { return b.x1 - b.x0 }
func (b box) height() float64 { return b.y1 - b.y0 }

// pen draws in pixels on a canvas whose unit is one pixel.
type pen struct{ vg.Canvas }

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

// faces holds the two weights of Liberation Sans. Its glyphs are as wide as
// those of Arial and Helvetica, so that an SVG laid out with it still fits
// where a browser shows one of these instead.
var faces = sync.OnceValue(func() map[weight]*opentype.Font {
	m := make(map[weight]*opentype.Font, 2)
	for w, ttf := range map[weight][]byte{regular: liberationsansregular.TTF, bold: liberationsansbold.TTF} {
		f, err := opentype.Parse(ttf)
		if err != nil {
			panic(fmt.Sprintf("report: embedded font: %v", err))
		}
		m[w] = f
	}
	return m
})

func face(size float64, w weight) font.Face {
	f := font.Font{Typeface: "Liberation", Variant: "Sans", Size: vg.Length(size)}
	if w == bold {
		f.Weight = xfont.WeightBold
	}
	return font.Face{Font: f, Face: faces()[w]}
}

// clean makes a label printable: no control characters, no broken UTF-8.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, " "))
}

// textWidth is the width of s in pixels.
func textWidth(s string, size float64, w weight) float64 {
	f := face(size, w)
	return f.Width(clean(s)).Points()
}

// fit cuts s with an ellipsis to a width in pixels.
func fit(s string, size, width float64, w weight) string {
	s = clean(s)
	r := []rune(s)
	if len(r) > 300 {
		r = r[:300] // longer than any drawing; bounds the work below
		s = string(r)
	}
	if textWidth(s, size, w) <= width {
		return s
	}
	for n := len(r) - 1; n > 0; n-- {
		t := strings.TrimRight(string(r[:n]), " ") + "…"
		if textWidth(t, size, w) <= width {
			return t
		}
	}
	return ""
}

// text writes s with its baseline at y.
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
	p.SetColor(st.color)
	if !st.vertical {
		p.FillString(face(st.size, st.weight), point(x-shift, y), s)
		return
	}
	// A quarter turn about the origin maps (y, -x) to (x, y).
	p.Push()
	p.Rotate(math.Pi / 2)
	p.FillString(face(st.size, st.weight), point(y-shift, -x), s)
	p.Pop()
}

func point(x, y float64) vg.Point { return vg.Point{X: vg.Length(x), Y: vg.Length(y)} }

func vgRect(b box) vg.Rectangle {
	return vg.Rectangle{Min: point(b.x0, b.y0), Max: point(b.x1, b.y1)}
}

func (p pen) rect(b box, c color.NRGBA) {
	var path vg.Path
	addRect(&path, b)
	p.fill(path, c)
}

func addRect(path *vg.Path, b box) {
	path.Move(point(b.x0, b.y0))
	path.Line(point(b.x1, b.y0))
	path.Line(point(b.x1, b.y1))
	path.Line(point(b.x0, b.y1))
	path.Close()
}

func (p pen) fill(path vg.Path, c color.NRGBA) {
	if len(path) == 0 {
		return
	}
	p.SetColor(c)
	p.Fill(path)
}

func (p pen) stroke(path vg.Path, c color.NRGBA, width float64, dash ...float64) {
	if len(path) == 0 {
		return
	}
	lengths := make([]vg.Length, len(dash))
	for i, d := range dash {
		lengths[i] = vg.Length(d)
	}
	p.SetColor(c)
	p.SetLineWidth(vg.Length(width))
	p.SetLineDash(lengths, 0)
	p.Stroke(path)
}

func (p pen) line(x0, y0, x1, y1 float64, c color.NRGBA, width float64, dash ...float64) {
	var path vg.Path
	path.Move(point(x0, y0))
	path.Line(point(x1, y1))
	p.stroke(path, c, width, dash...)
}

// noData stands in for a plot that has nothing to draw.
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

// legend writes the entries in rows at the top of r and returns what is left.
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
	var path vg.Path
	addDot(&path, x, y, radius)
	p.fill(path, c)
}

func addDot(path *vg.Path, x, y, radius float64) {
	path.Move(point(x+radius, y))
	path.Arc(point(x, y), vg.Length(radius), 0, 2*math.Pi)
	path.Close()
}
