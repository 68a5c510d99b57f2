package report

import (
	"fmt"
	"strings"
	"sync"
	"unicode"

	"codeberg.org/go-fonts/liberation/liberationsansbold"
	"codeberg.org/go-fonts/liberation/liberationsansregular"
	"golang.org/x/image/font"
	"golang.org/x/image/font/sfnt"
	xfixed "golang.org/x/image/math/fixed"
)

// faces has the two weights of Liberation Sans. Its glyphs have the widths of
// Arial and Helvetica, so an SVG that was laid out with it also fits if a browser
// uses one of these.
var faces = sync.OnceValue(func() map[weight]*sfnt.Font {
	m := make(map[weight]*sfnt.Font, 2)
	for w, ttf := range map[weight][]byte{regular: liberationsansregular.TTF, bold: liberationsansbold.TTF} {
		m[w] = must(sfnt.Parse(ttf))
	}
	return m
})

// must returns v, which is read from the embedded fonts, and panics on an error.
func must[T any](v T, err error) T {
	if err != nil {
		panic(fmt.Sprintf("report: embedded font: %v", err))
	}
	return v
}

// clean returns a printable label: without control characters and invalid UTF-8.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, " "))
}

// glyphs visits the glyphs of s with their distances from its start, and returns
// its width, in pixels. Glyph 0 is used for characters that the font lacks.
func glyphs(s string, size float64, w weight, visit func(x float64, g sfnt.GlyphIndex)) float64 {
	f := faces()[w]
	em := xfixed.Int26_6(f.UnitsPerEm()) // at this size a font unit is 1/64 pixel, and nothing is rounded
	scale := size / float64(em)
	var buf sfnt.Buffer
	var last sfnt.GlyphIndex
	x := xfixed.Int26_6(0)
	for i, r := range s {
		g := must(f.GlyphIndex(&buf, r))
		if i > 0 {
			if kern, err := f.Kern(&buf, last, g, em, font.HintingNone); err == nil { // most pairs have none
				x += kern
			}
		}
		visit(float64(x)*scale, g)
		x += must(f.GlyphAdvance(&buf, g, em, font.HintingNone))
		last = g
	}
	return float64(x) * scale
}

// textWidth returns the width of s in pixels.
func textWidth(s string, size float64, w weight) float64 {
	return glyphs(clean(s), size, w, func(float64, sfnt.GlyphIndex) {})
}

// fit cuts s, with an ellipsis, to a width in pixels.
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
