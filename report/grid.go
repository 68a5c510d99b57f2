package report

import "strings"

// Grid arranges several figures in rows, each under its title. On a page the
// panels wrap to the width of the window; in a PNG they are one image.
type Grid struct {
	Columns int // panels in a row; 0 is 2
	Figures []*Figure
}

const (
	panelWidth  = 480
	panelHeight = 270
	panelGap    = 20
)

func (g *Grid) columns() int {
	if g.Columns > 0 {
		return g.Columns
	}
	return 2
}

// panel returns f with the size of a panel, if it has none.
func (g *Grid) panel(f *Figure) *Figure {
	c := *f
	if c.Width <= 0 {
		c.Width = panelWidth
	}
	if c.Height <= 0 {
		c.Height = panelHeight
		if h, ok := f.Plot.(*Heat); ok {
			_, c.Height = h.size()
		}
	}
	return &c
}

// rows returns the panels by row and the height of each row, with titles.
func (g *Grid) rows() (rows [][]*Figure, heights []int) {
	for i, f := range g.Figures {
		if i%g.columns() == 0 {
			rows, heights = append(rows, nil), append(heights, 0)
		}
		f = g.panel(f)
		_, h := f.pixels()
		if f.Title != "" {
			h += titleHeight
		}
		last := len(rows) - 1
		rows[last], heights[last] = append(rows[last], f), max(heights[last], h)
	}
	return rows, heights
}

func (g *Grid) size() (w, h int) {
	rows, heights := g.rows()
	h = panelGap * max(len(rows)-1, 0)
	for _, rh := range heights {
		h += rh
	}
	cols := min(g.columns(), max(len(g.Figures), 1))
	return cols*panelWidth + (cols-1)*panelGap, max(h, 120)
}

func (g *Grid) describe() string {
	var parts []string
	for _, f := range g.Figures {
		parts = append(parts, f.alt())
	}
	return strings.Join(parts, "; ")
}

func (g *Grid) draw(p pen, r box) {
	rows, heights := g.rows()
	if len(rows) == 0 {
		p.noData(r)
		return
	}
	// The panels' heights are scaled to the available height.
	total := 0
	for _, h := range heights {
		total += h
	}
	k := (r.height() - panelGap*float64(len(rows)-1)) / float64(total)
	cols := float64(min(g.columns(), len(g.Figures)))
	wide := (r.width() - panelGap*(cols-1)) / cols
	top := r.y1
	for i, row := range rows {
		h := float64(heights[i]) * k
		for j, f := range row {
			x := r.x0 + float64(j)*(wide+panelGap)
			f.draw(p, box{x, top - h, x + wide, top}, 13)
		}
		top -= h + panelGap
	}
}
