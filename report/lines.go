package report

import (
	"image/color"
	"math"
	"strings"
)

// Lines draws curves over a common horizontal axis, with shaded bands such as
// prediction intervals behind them. Curves of many thousands of points are
// reduced to what can be shown; peaks and dips are kept.
type Lines struct {
	X, Y   Axis
	Series []Series
	Bands  []Band
	Marks  []Mark
}

// Series is a named curve.
type Series struct {
	Name string
	// X is in ascending order; nil is 0, 1, 2, ... Points beyond the shorter of X
	// and Y are not drawn.
	X, Y   []float64
	Color  Color
	Dashed bool
	Dots   bool // a dot at each point, without lines
	// Items are the numbers of the page's items that the points belong to; of a curve only the first
	// counts. nil: none.
	Items []int
}

// Band is the shaded area between two curves.
type Band struct {
	Name         string
	X            []float64 // as in Series
	Lower, Upper []float64
	Color        Color
}

// Mark is a vertical line, with an optional label above the plot.
type Mark struct {
	X     float64
	Label string
}

func (l *Lines) size() (w, h int) { return 960, 320 }

func (l *Lines) describe() string {
	var names []string
	for _, s := range l.Series {
		names = append(names, s.Name)
	}
	for _, b := range l.Bands {
		names = append(names, b.Name)
	}
	return describe("line chart", l.X.Label, l.Y.Label, names)
}

// describe describes a plot in one sentence.
func describe(kind, x, y string, names []string) string {
	s := kind
	if y != "" {
		s += " of " + y
	}
	if x != "" {
		s += " by " + x
	}
	var shown []string
	for _, n := range names {
		if n != "" {
			shown = append(shown, n)
		}
	}
	if len(shown) > 0 {
		s += ", showing " + strings.Join(shown, ", ")
	}
	return s
}

func (l *Lines) draw(p pen, r box) {
	ex, ey := newExtent(l.X.Log), newExtent(l.Y.Log)
	limit := max(int(r.width()), 50)
	series := make([]Series, len(l.Series))
	for i, s := range l.Series {
		s.X, s.Y = withX(s.X, s.Y)
		for j, v := range s.Y {
			if finite(v) && finite(s.X[j]) {
				ex.add(s.X[j])
				ey.add(v)
			}
		}
		if !s.Dots || s.Items == nil {
			s.X, s.Y = thin(s.X, s.Y, limit)
		}
		series[i] = s
	}
	bands := make([]Band, len(l.Bands))
	for i, b := range l.Bands {
		bands[i] = thinBand(b, limit)
		for j, x := range bands[i].X {
			if finite(x) && finite(bands[i].Lower[j]) && finite(bands[i].Upper[j]) {
				ex.add(x)
				ey.add(bands[i].Lower[j])
				ey.add(bands[i].Upper[j])
			}
		}
	}
	r = p.legend(l.keys(), r)
	if l.labelledMarks() > 1 || l.labelledMarks() == 1 && l.Y.Label == "" {
		r.y1 -= rowHeight - 4
	}
	f := p.frameAxes(r, newScale(l.X, ex, 0), newScale(l.Y, ey, 0.05), nil)
	if !ex.any || !ey.any {
		p.noData(f.box)
		return
	}
	for i, b := range bands {
		p.band(f, b, b.Color.pick(i))
	}
	l.marks(p, f)
	for i, s := range series {
		p.curve(f, s, s.Color.pick(i), s.dash(i))
	}
}

// dash returns the dashes of a curve, which distinguish curves of the same
// colour.
func (s Series) dash(i int) []float64 {
	if s.Dashed || s.Color == Auto && i/autoColors%2 == 1 {
		return []float64{6, 4}
	}
	return nil
}

const bandAlpha = 0.22

func (l *Lines) keys() []key {
	var keys []key
	for i, s := range l.Series {
		k := key{name: s.Name, color: s.Color.pick(i), dash: s.dash(i)}
		if s.Dots {
			k.kind = dotKey
		}
		keys = append(keys, k)
	}
	for i, b := range l.Bands {
		keys = append(keys, key{name: b.Name, color: faded(b.Color.pick(i), bandAlpha), kind: areaKey})
	}
	if len(keys) == 1 && len(l.Series) == 1 && l.Y.Label != "" {
		return nil // one curve is named by its axis
	}
	return keys
}

func (p pen) curve(f frame, s Series, c color.NRGBA, dash []float64) {
	var line, dots path
	run := 0 // points since the last gap
	var px, py float64
	flush := func() {
		if run == 1 && !s.Dots {
			dots.circle(point{px, py}, 2) // a single point between gaps has no line
		}
		run = 0
	}
	for i, v := range s.Y {
		x, okX := f.x.at(s.X[i])
		y, okY := f.y.at(v)
		if !okX || !okY || !f.x.inside(s.X[i]) {
			flush()
			continue
		}
		switch {
		case s.Dots && s.Items != nil:
			var dot path
			dot.circle(point{x, y}, 3.5)
			p.marked(s, i, dot, func() { p.fill(dot, c) })
		case s.Dots:
			dots.circle(point{x, y}, 2.5)
		case run == 0:
			line.move(point{x, y})
		default:
			line.line(point{x, y})
		}
		px, py = x, y
		run++
	}
	flush()
	if s.Dots {
		p.fill(dots, c)
		return
	}
	p.marked(s, 0, line, func() {
		p.stroke(line, c, 1.8, dash...)
		p.fill(dots, c)
	})
}

func (p pen) band(f frame, b Band, c color.NRGBA) {
	var path path
	var upper, lower []point
	flush := func() {
		if len(upper) > 1 {
			path.move(upper[0])
			for _, q := range upper[1:] {
				path.line(q)
			}
			for i := len(lower) - 1; i >= 0; i-- {
				path.line(lower[i])
			}
			path.close()
		}
		upper, lower = upper[:0], lower[:0]
	}
	for i, xv := range b.X {
		x, ok := f.x.at(xv)
		lo, okLo := f.y.at(b.Lower[i])
		hi, okHi := f.y.at(b.Upper[i])
		if !ok || !okLo || !okHi || !f.x.inside(xv) {
			flush()
			continue
		}
		upper, lower = append(upper, point{x, hi}), append(lower, point{x, lo})
	}
	flush()
	p.fill(path, faded(c, bandAlpha))
}

// labelledMarks returns the number of marks with a label. Several labels have a
// separate row; a single one is beside the label of the vertical axis.
func (l *Lines) labelledMarks() int {
	n := 0
	for _, m := range l.Marks {
		if m.Label != "" {
			n++
		}
	}
	return n
}

// marks draws the vertical lines. A label that would overlap the one before is
// omitted.
func (l *Lines) marks(p pen, f frame) {
	free, above, first := math.Inf(-1), f.y1+8, f.x0
	if l.Y.Label != "" {
		above += rowHeight
		if l.labelledMarks() == 1 {
			above = f.y1 + 12
			first += textWidth(l.Y.Label, textSize, regular)
		}
	}
	for _, m := range l.Marks {
		x, ok := f.x.at(m.X)
		if !ok || !f.x.inside(m.X) {
			continue
		}
		p.line(x, f.y0, x, f.y1, palette[Muted], 1, 3, 3)
		if m.Label == "" {
			continue
		}
		w := textWidth(m.Label, tickSize, regular)
		from := max(min(x-w/2, f.x1-w), first)
		if from < free {
			continue
		}
		p.text(from, above, m.Label, style{size: tickSize, color: textColor})
		free = from + w + 6
	}
}

// withX fills in missing x values and cuts both slices to the same length.
func withX(x, y []float64) (xs, ys []float64) {
	if x == nil {
		x = make([]float64, len(y))
		for i := range x {
			x[i] = float64(i)
		}
	}
	n := min(len(x), len(y))
	return x[:n], y[:n]
}

// thin keeps the lowest and the highest point of each of limit sections of a
// curve with more than 2*limit points, in their order. A section with a gap keeps
// a gap.
func thin(x, y []float64, limit int) (xs, ys []float64) {
	if len(y) <= 2*limit {
		return x, y
	}
	for k := range limit {
		lo, hi := k*len(y)/limit, (k+1)*len(y)/limit
		low, high, gap := -1, -1, -1
		for i := lo; i < hi; i++ {
			switch {
			case !finite(y[i]) || !finite(x[i]):
				gap = i
				continue
			case low < 0:
				low, high = i, i
			}
			if y[i] < y[low] {
				low = i
			}
			if y[i] > y[high] {
				high = i
			}
		}
		keep := [3]int{min(low, high), max(low, high), gap}
		for j, i := range keep {
			if i >= 0 && (j == 0 || i != keep[j-1]) {
				xs, ys = append(xs, x[i]), append(ys, y[i])
			}
		}
	}
	return xs, ys
}

// thinBand cuts the slices of a band to one length, orders its edges and keeps
// the outermost values of each of limit sections.
func thinBand(b Band, limit int) Band {
	b.X, b.Lower = withX(b.X, b.Lower)
	n := min(len(b.X), len(b.Upper))
	out := Band{Name: b.Name, Color: b.Color}
	limit = min(max(limit, 1), max(n, 1))
	for k := range limit {
		lo, hi := k*n/limit, (k+1)*n/limit
		if lo == hi {
			continue
		}
		low, high := math.NaN(), math.NaN()
		for i := lo; i < hi; i++ {
			if a, c := b.Lower[i], b.Upper[i]; finite(a) && finite(c) {
				low, high = lesser(low, min(a, c)), -lesser(-high, -max(a, c))
			}
		}
		out.X = append(out.X, b.X[lo])
		out.Lower, out.Upper = append(out.Lower, low), append(out.Upper, high)
	}
	if n > 0 {
		out.X[len(out.X)-1] = b.X[n-1]
	}
	return out
}

// lesser returns the smaller number; b if a is NaN.
func lesser(a, b float64) float64 {
	if b < a || math.IsNaN(a) {
		return b
	}
	return a
}
