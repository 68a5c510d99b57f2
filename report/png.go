package report

import (
	"image"
	"image/color"
	"image/draw"
	"math"

	xdraw "golang.org/x/image/draw"
	"golang.org/x/image/font/sfnt"
	xfixed "golang.org/x/image/math/fixed"
	"golang.org/x/image/vector"
)

// pngCanvas draws into an image with pngScale dots per pixel.
type pngCanvas struct {
	img    *image.RGBA
	raster vector.Rasterizer
	shape  []curve // the outline to be filled next
}

// curve is a segment that begins at the end of the one before; a move begins an
// outline. Points that it does not need repeat its end.
type curve struct {
	op sfnt.SegmentOp
	p  [3]point // in dots, y downwards
}

func newPNGCanvas(width, height int) *pngCanvas {
	c := &pngCanvas{img: image.NewRGBA(image.Rect(0, 0, width*pngScale, height*pngScale))}
	draw.Draw(c.img, c.img.Bounds(), image.White, image.Point{}, draw.Src)
	return c
}

// dots returns the positions of points in the image.
func (c *pngCanvas) dots(points ...point) []point {
	out := make([]point, len(points))
	for i, p := range points {
		out[i] = point{p.x * pngScale, float64(c.img.Rect.Max.Y) - p.y*pngScale}
	}
	return out
}

func (c *pngCanvas) add(op sfnt.SegmentOp, p ...point) {
	end := p[len(p)-1]
	o := curve{op, [3]point{end, end, end}}
	copy(o.p[:], p)
	c.shape = append(c.shape, o)
}

func (c *pngCanvas) polygon(points []point) {
	for i, p := range points {
		if i == 0 {
			c.add(sfnt.SegmentOpMoveTo, p)
		} else {
			c.add(sfnt.SegmentOpLineTo, p)
		}
	}
}

// paint fills the shape and clears it.
func (c *pngCanvas) paint(col color.NRGBA) {
	var r image.Rectangle // around the shape
	for _, o := range c.shape {
		for _, p := range o.p {
			x, y := int(math.Floor(p.x)), int(math.Floor(p.y))
			r = r.Union(image.Rect(x, y, x+1, y+1))
		}
	}
	if r = r.Intersect(c.img.Rect); r.Empty() {
		c.shape = c.shape[:0]
		return
	}
	z := &c.raster
	z.Reset(r.Dx(), r.Dy())
	for _, o := range c.shape {
		var v [6]float32
		for i, p := range o.p {
			v[2*i], v[2*i+1] = float32(p.x-float64(r.Min.X)), float32(p.y-float64(r.Min.Y))
		}
		switch o.op {
		case sfnt.SegmentOpMoveTo:
			z.ClosePath()
			z.MoveTo(v[0], v[1])
		case sfnt.SegmentOpLineTo:
			z.LineTo(v[0], v[1])
		case sfnt.SegmentOpQuadTo:
			z.QuadTo(v[0], v[1], v[2], v[3])
		case sfnt.SegmentOpCubeTo:
			z.CubeTo(v[0], v[1], v[2], v[3], v[4], v[5])
		}
	}
	z.ClosePath()
	z.Draw(c.img, r, image.NewUniform(col), image.Point{})
	c.shape = c.shape[:0]
}

func (c *pngCanvas) fill(p path, col color.NRGBA) {
	for _, o := range p {
		points := c.dots(o.points...)
		if o.radius > 0 {
			points = circle(points[0], o.radius*pngScale)
		}
		c.polygon(points)
	}
	c.paint(col)
}

func circle(m point, r float64) []point {
	const corners = 48 // the edges are at most 0.2 % of the radius inside the circle
	points := make([]point, corners)
	for i := range points {
		sin, cos := math.Sincos(2 * math.Pi * float64(i) / corners)
		points[i] = point{m.x + r*cos, m.y + r*sin}
	}
	return points
}

func (c *pngCanvas) stroke(p path, col color.NRGBA, width float64, dash ...float64) {
	for _, o := range p {
		for _, piece := range dashes(c.dots(o.points...), dash) {
			c.polygon(ribbon(piece, width*pngScale/2))
		}
	}
	c.paint(col)
}

// dashes divides a line of dots into pieces. lengths are those of the pieces and
// the gaps in turn, in pixels; without lengths it is one piece.
func dashes(line []point, lengths []float64) [][]point {
	if len(lengths) == 0 {
		return [][]point{line}
	}
	var pieces [][]point
	at, left := 0, lengths[0]*pngScale // of the dash (even) or gap
	piece := line[:1:1]
	for i := 1; i < len(line); i++ {
		a, b := line[i-1], line[i]
		for {
			d := math.Hypot(b.x-a.x, b.y-a.y)
			if d <= left {
				left -= d
				break
			}
			f := left / d
			a = point{a.x + f*(b.x-a.x), a.y + f*(b.y-a.y)}
			if at%2 == 0 {
				pieces = append(pieces, append(piece, a))
			}
			at++
			left = lengths[at%len(lengths)] * pngScale
			piece = []point{a}
		}
		piece = append(piece, b)
	}
	if at%2 == 0 {
		pieces = append(pieces, piece)
	}
	return pieces
}

// ribbon returns the outline of a line that extends by half to both sides: along
// one side and back along the other. Corners are round on their outside; on their
// inside the edges cross within the outline.
func ribbon(line []point, half float64) []point {
	var there, back []point
	var last point // from the line to the first side, for the previous section
	for i := 1; i < len(line); i++ {
		a, b := line[i-1], line[i]
		d := math.Hypot(b.x-a.x, b.y-a.y)
		if d == 0 {
			continue
		}
		n := point{(a.y - b.y) / d * half, (b.x - a.x) / d * half}
		if len(there) > 0 {
			turn := math.Atan2(last.x*n.y-last.y*n.x, last.x*n.x+last.y*n.y)
			// Steps of at most π/8 stay within 2 % of the half width of the circle.
			for steps, k := math.Ceil(math.Abs(turn)/(math.Pi/8)), 1.0; k < steps; k++ {
				sin, cos := math.Sincos(turn * k / steps)
				m := point{last.x*cos - last.y*sin, last.x*sin + last.y*cos}
				if turn < 0 {
					there = append(there, point{a.x + m.x, a.y + m.y})
				} else {
					back = append(back, point{a.x - m.x, a.y - m.y})
				}
			}
		}
		there = append(there, point{a.x + n.x, a.y + n.y}, point{b.x + n.x, b.y + n.y})
		back = append(back, point{a.x - n.x, a.y - n.y}, point{b.x - n.x, b.y - n.y})
		last = n
	}
	for i := len(back) - 1; i >= 0; i-- {
		there = append(there, back[i])
	}
	return there
}

// write fills the outlines of the glyphs.
func (c *pngCanvas) write(at point, s string, st style) {
	o := c.dots(at)[0]
	size := st.size * pngScale
	f := faces()[st.weight]
	var buf sfnt.Buffer
	glyphs(s, size, st.weight, func(x float64, g sfnt.GlyphIndex) {
		for _, seg := range must(f.LoadGlyph(&buf, g, xfixed.Int26_6(size*64), nil)) {
			var p [3]point
			for i, q := range seg.Args {
				dx, dy := x+float64(q.X)/64, float64(q.Y)/64
				if st.vertical { // a quarter turn against the clock
					dx, dy = dy, -dx
				}
				p[i] = point{o.x + dx, o.y + dy}
			}
			c.add(seg.Op, p[:max(int(seg.Op), 1)]...) // moves and lines have one point, curves as many as their degree
		}
	})
	c.paint(st.color)
}

func (c *pngCanvas) item(_ int, _ path, draw func()) { draw() }

func (c *pngCanvas) image(b box, img image.Image) {
	d := c.dots(point{b.x0, b.y1}, point{b.x1, b.y0})
	round := func(v float64) int { return int(math.Round(v)) }
	r := image.Rect(round(d[0].x), round(d[0].y), round(d[1].x), round(d[1].y))
	xdraw.BiLinear.Scale(c.img, r, img, img.Bounds(), xdraw.Over, nil)
}
