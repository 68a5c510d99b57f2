package report

// frame is the part of a plot between its axes.
type frame struct {
	box
	x, y scale
}

const (
	tickSize   = 11.5
	tickPixels = 38 // intended distance between horizontal grid lines
)

// frameAxes draws the labels of both axes and the horizontal grid into r, and
// returns the area for the data. The label of the vertical axis is above it,
// horizontally. slots are the labels of a categorical horizontal axis; nil draws
// ticks.
func (p pen) frameAxes(r box, x, y scale, slots []string) frame {
	if y.axis.Label != "" {
		r.y1 -= rowHeight
		p.text(r.x0, r.y1+6, fit(y.axis.Label, textSize, r.width(), regular), style{size: textSize, color: palette[Muted]})
	}
	below := 20.0
	if x.axis.Label != "" {
		below += 17
		p.text((r.x0+r.x1)/2, r.y0+3, fit(x.axis.Label, textSize, r.width(), regular),
			style{size: textSize, color: palette[Muted], align: center})
	}
	r.y0 += below
	r.y1 -= 6

	yTicks := y.ticks(int(max(r.height(), 0)/tickPixels) + 1)
	gutter := 0.0
	for _, t := range yTicks {
		gutter = max(gutter, textWidth(t.label, tickSize, regular))
	}
	r.x0 += gutter + 8
	r.x1 -= 6
	y.p0, y.p1 = r.y0, r.y1
	x.p0, x.p1 = r.x0, r.x1
	for _, t := range yTicks {
		at, _ := y.at(t.value)
		p.line(r.x0, at, r.x1, at, gridColor, 1)
		p.text(r.x0-8, at-4, t.label, style{size: tickSize, color: textColor, align: right})
	}
	f := frame{box: r, x: x, y: y}
	p.line(r.x0, r.y0, r.x1, r.y0, axisColor, 1)
	if slots != nil {
		p.slotLabels(r, slots, r.y0-15)
	} else {
		p.xTicks(f)
	}
	return f
}

// xTicks labels the horizontal axis, with as many ticks as their labels allow.
func (p pen) xTicks(f frame) {
	var ts []tick
	for n := max(int(f.width()/60), 2); ; n-- {
		ts = f.x.ticks(n)
		widest := 0.0
		for _, t := range ts {
			widest = max(widest, textWidth(t.label, tickSize, regular))
		}
		if n <= 2 || widest*float64(len(ts))*1.25 <= f.width() {
			break
		}
	}
	free := f.x0 - 40
	for _, t := range ts {
		at, ok := f.x.at(t.value)
		if !ok {
			continue
		}
		w := textWidth(t.label, tickSize, regular)
		// A label at the right end is moved so that it stays in the picture.
		from := min(at-w/2, f.x1+6-w)
		p.line(at, f.y0, at, f.y0-4, axisColor, 1)
		if from < free {
			continue
		}
		p.text(from, f.y0-15, t.label, style{size: tickSize, color: textColor})
		free = from + w + 6
	}
}

// slotLabels centres category names below equal slots of r. If they would
// overlap, only every second, third, ... is drawn.
func (p pen) slotLabels(r box, names []string, baseline float64) {
	if len(names) == 0 {
		return
	}
	slot := r.width() / float64(len(names))
	widest := 0.0
	for _, s := range names {
		widest = max(widest, textWidth(fit(s, tickSize, 120, regular), tickSize, regular))
	}
	every := 1
	// Long names are cut while that keeps them readable, and skipped beyond.
	for min(widest, 56)+8 > slot*float64(every) && every < len(names) {
		every++
	}
	for i := 0; i < len(names); i += every {
		s := fit(names[i], tickSize, slot*float64(every)-4, regular)
		p.text(r.x0+(float64(i)+0.5)*slot, baseline, s, style{size: tickSize, color: textColor, align: center})
	}
}
