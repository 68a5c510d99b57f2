package report

import (
	"image/color"
	"math"
)

// Bars draws groups of vertical bars, a group per category and a bar per series.
// Bars start at zero and may be negative. With more than 256 categories,
// neighbours are averaged.
type Bars struct {
	X, Y       Axis // of X only the label is used; Y.Log is ignored, since bars start at zero
	Categories []string
	Series     []Series // Y has a value per category; only Name, Y and Color are used
}

const maxCategories = 256

func (b *Bars) size() (w, h int) { return 960, 300 }

func (b *Bars) describe() string {
	var names []string
	for _, s := range b.Series {
		names = append(names, s.Name)
	}
	return describe("bar chart", b.X.Label, b.Y.Label, names)
}

func (b *Bars) draw(p pen, r box) {
	names, values := b.grouped()
	y := b.Y
	y.Log, y.Time = false, false
	e := newExtent(false)
	for _, row := range values {
		for _, v := range row {
			e.add(v)
		}
	}
	e.lo, e.hi, e.whole = min(e.lo, 0)*1.04, max(e.hi, 0)*1.04, false
	r = p.legend(b.keys(), r)
	f := p.frameAxes(r, scale{axis: b.X}, newScale(y, e, 0), names)
	if !e.any {
		p.noData(f.box)
		return
	}
	slot := f.width() / float64(len(names))
	gap := min(slot*0.25, 24)
	wide := min((slot-gap)/float64(len(values)), 64)
	zero, _ := f.y.at(0)
	for i, row := range values {
		var path path
		for j, v := range row {
			h, ok := f.y.at(v)
			if !ok {
				continue
			}
			mid := f.x0 + (float64(j)+0.5)*slot
			x := mid + (float64(i)-float64(len(values))/2)*wide
			inset := min(wide*0.06, 1)
			path.rect(box{x + inset, min(zero, h), x + wide - inset, max(zero, h)})
		}
		p.fill(path, b.color(i))
	}
	p.line(f.x0, zero, f.x1, zero, axisColor, 1)
}

func (b *Bars) color(i int) color.NRGBA { return b.Series[i].Color.pick(i) }

func (b *Bars) keys() []key {
	if len(b.Series) == 1 && b.Y.Label != "" {
		return nil
	}
	var keys []key
	for i, s := range b.Series {
		keys = append(keys, key{name: s.Name, color: b.color(i), kind: areaKey})
	}
	return keys
}

// grouped pads or cuts each series to the categories (numbers, if none are named)
// and averages neighbours beyond maxCategories.
func (b *Bars) grouped() (names []string, values [][]float64) {
	names = b.Categories
	if len(names) == 0 {
		n := 0
		for _, s := range b.Series {
			n = max(n, len(s.Y))
		}
		names = make([]string, n)
		for i := range names {
			names[i] = fixed(float64(i+1), 0)
		}
	}
	n := len(names)
	groups := min(n, maxCategories)
	short := make([]string, groups)
	for g := range short {
		short[g] = names[g*n/groups]
	}
	for _, s := range b.Series {
		row := make([]float64, groups)
		for g := range row {
			row[g] = mean(s.Y, g*n/groups, (g+1)*n/groups)
		}
		values = append(values, row)
	}
	return short, values
}

// mean returns the mean of the finite values in v[lo:hi], NaN if there are none.
func mean(v []float64, lo, hi int) float64 {
	sum, n := 0.0, 0
	for i := lo; i < min(hi, len(v)); i++ {
		if finite(v[i]) {
			sum += v[i]
			n++
		}
	}
	if n == 0 {
		return math.NaN()
	}
	return sum / float64(n)
}
