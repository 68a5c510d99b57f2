package report

import "math"

// Parallel draws things with many properties as lines across as many vertical axes, such as the
// trials of a search over their parameters.
type Parallel struct {
	// Axes are the properties. Only Label, Log, Names, Min and Max are used.
	Axes []Axis
	// Series are the things, the last one on top: Y has a value for each axis, NaN if it has none there. X,
	// Dashed and Dots are not used.
	Series []Series
}

const (
	axisLeast  = 76 // width of an axis with its labels, below which the drawing does not shrink
	noneHeight = 26 // of the place below an axis for lines without a value
)

func (l *Parallel) size() (w, h int) { return max(960, axisLeast*len(l.Axes)), 340 }

// least is the width below which labels cannot be read.
func (l *Parallel) least() int { return axisLeast * len(l.Axes) }

func (l *Parallel) describe() string {
	var names []string
	for _, a := range l.Axes {
		names = append(names, a.Label)
	}
	return describe("parallel coordinates", "", "", names)
}

func (l *Parallel) draw(p pen, r box) {
	var keys []key
	for i, s := range l.Series {
		keys = append(keys, key{name: s.Name, color: s.Color.pick(i)})
	}
	r = p.legend(keys, r)
	if len(l.Axes) == 0 || len(l.Series) == 0 {
		p.noData(r)
		return
	}
	slot := r.width() / float64(len(l.Axes))
	scales, lacks := make([]scale, len(l.Axes)), make([]bool, len(l.Axes))
	r.y1 -= 2 * rowHeight
	for i, a := range l.Axes {
		e := newExtent(a.Log)
		for _, s := range l.Series {
			if i < len(s.Y) && !math.IsNaN(s.Y[i]) {
				e.add(s.Y[i])
			} else {
				lacks[i] = true
			}
		}
		scales[i] = newScale(a, e, 0)
		scales[i].p0, scales[i].p1 = r.y0+noneHeight, r.y1
	}
	at := func(i int) float64 { return r.x0 + (float64(i)+0.6)*slot }
	for n, s := range l.Series {
		var line path
		for i := range l.Axes {
			y := r.y0 + 4
			if i < len(s.Y) {
				if v, ok := scales[i].at(s.Y[i]); ok {
					y = v
				}
			}
			if to := (point{at(i), y}); i == 0 {
				line.move(to)
			} else {
				line.line(to)
			}
		}
		p.marked(s, 0, line, func() { p.stroke(line, s.Color.pick(n), 1.6) })
	}
	for i, a := range l.Axes {
		x := at(i)
		p.line(x, scales[i].p0, x, scales[i].p1, axisColor, 1)
		p.text(min(x, r.x1-slot/2), r.y1+rowHeight-4, fit(a.Label, textSize, slot-6, regular), style{size: textSize, color: textColor, align: center})
		for _, t := range scales[i].ticks(5) {
			y, _ := scales[i].at(t.value)
			p.line(x-4, y, x, y, axisColor, 1)
			label := fit(t.label, tickSize, slot*0.55, regular)
			p.rect(box{x - 9 - textWidth(label, tickSize, regular), y - 7, x - 5, y + 7}, faded(cardColor, 0.8)) // lines pass here
			p.text(x-7, y-4, label, style{size: tickSize, color: textColor, align: right})
		}
		if lacks[i] {
			p.text(x-7, r.y0, "none", style{size: tickSize, color: palette[Muted], align: right})
		}
	}
}

// marked draws a mark of a series as that of its item, if it has one; pointing near the path is
// pointing at it.
func (p pen) marked(s Series, j int, near path, draw func()) {
	if item, ok := s.mark(j); ok {
		p.item(item, near, draw)
		return
	}
	draw()
}
