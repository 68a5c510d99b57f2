package cpu

import (
	"cmp"
	"unsafe"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/simd"
)

// Blocking of a product, in elements. A part of a panel of B is read for each tile
// of rows, from L1 or L2; a packed block of A for each panel, from L2; a packed
// strip of B for each block of rows, from L3. C may come from memory in every
// pass, and the shorter the parts, the more passes there are. No bit depends on
// these numbers: a chain of multiply-adds continues from C.
const (
	panelPart = 8 << 10
	blockSize = 64 << 10
	stripSize = 384 << 10
	longRun   = 2048 // the greatest depth of one kernel call
)

// product is one product C = start + A·B, where start is C, the bias or zero:
//
//	for i < m, j < n
//		x = c[i*ldc+j] if acc, + bias[j] if there is one
//		for p < k, ascending
//			x += a[i*rs+p*cs] * B[p,j], or a[i*rs+places[p]]
//		c[i*ldc+j] = x
type product struct {
	set     *simd.Set
	round   device.Kind // that both operands are rounded to; with panels, their kind counts. Of INT8, B is in panels
	m, n, k int
	a       []float32
	rs, cs  int       // strides of A by row and by k
	places  []int     // [k+1], the last may be any: places of A by k, in place of cs
	panels  *panels   // B in panels
	b       []float32 // if panels is nil: B [k,n] with row stride ldb or, with trans, [n,k]
	ldb     int
	trans   bool
	c       []float32
	ldc     int
	bias    []float32
	acc     bool
	then    addend
	twice   bool // of INT8: A is rounded twice, see device.ConvSpec; cs is 1, and there is no then
	some    runs
	beside  *beside
}

// beside is a second product C = C + A·B of the same A, with B [k,n] not in
// panels. Its panels are counted after those of the first, and A is packed once.
type beside struct {
	n   int
	b   []float32
	ldb int
	c   []float32
	ldc int
}

// own returns the number of panels of the product, columns that number with those of beside.
func (p *product) own() int { return ceilDiv(p.n, p.set.NR) }

func (p *product) columns() int {
	if p.beside == nil {
		return p.own()
	}
	return p.own() + ceilDiv(p.beside.n, p.set.NR)
}

// target returns C from the first element of panel p on, C's row stride, and the number of columns from there.
func (p *product) target(panel int) (c []float32, ld, left int) {
	nr := p.set.NR
	if s, own := p.beside, p.own(); s != nil && panel >= own {
		at := (panel - own) * nr
		return s.c[at:], s.ldc, s.n - at
	}
	return p.c[panel*nr:], p.ldc, p.n - panel*nr
}

// runs selects panels of C: width panels starting at first, then again every pitch
// panels. Width 0 selects all.
type runs struct {
	first, width, pitch int
	back                bool // in descending order
}

// addend is a second product that is added to the first, if k is not 0: A [m,k]
// with row stride rs, and B in panels. The first must also have panels, of the same
// kind, and cs 1.
type addend struct {
	k      int
	a      []float32
	rs     int
	panels *panels
}

// at returns the panel of B and C that is the p-th of the selected ones.
func (p *product) at(panel int) int {
	s := &p.some
	if s.width == 0 {
		return panel
	}
	return s.first + panel/s.width*s.pitch + panel%s.width
}

// worker is a product and the workspace of a goroutine that computes a part of it.
type worker struct {
	product
	kind  *simd.Weights // of B
	call  simd.Tiles
	tiles [callTiles]simd.Tile // those of the call
	packA []float32            // a block of A: tile after tile, each [k][M]
	packB []float32            // a strip of B in panels, if the product has none
	first int                  // the first panel of the strip
	args  simd.BlockArgs
	half  [2][]float32 // a block of A and strips of B, for kernels that take blocks
	bytes simd.ByteArgs
	scale [2][]float32 // of rows of A, for kernels that take bytes
}

var workerPool par.Pool[worker]

// put returns w to the pool without keeping the operands alive.
func (w *worker) put() {
	w.product, w.call, w.tiles, w.args, w.bytes = product{}, simd.Tiles{}, [callTiles]simd.Tile{}, simd.BlockArgs{}, simd.ByteArgs{}
	workerPool.Put(w)
}

// A kernel call takes several tiles, because entry and exit cost as much as a small
// tile, but few enough to keep the call short; see package simd.
const (
	callTiles = 16
	callWork  = 1 << 18 // multiply-adds; each may read 4 bytes from memory
)

// flush computes the tiles of the call and empties it.
func (w *worker) flush() {
	if w.call.Count > 0 {
		w.call.First = &w.tiles[0]
		w.kind.Tiles(&w.call)
		w.call.Count = 0
	}
}

// run computes rows [r0,r1) of panels [p0,p1).
func (w *worker) run(r0, r1, p0, p1 int) {
	nr := w.set.NR
	if w.kind = &w.set.Weights[w.round]; w.panels != nil {
		w.kind = w.panels.Weights
	}
	if then := w.then; then.k > 0 && !w.takesBoth(r1-r0) {
		whole := w.product
		w.then = addend{}
		w.run(r0, r1, p0, p1)
		w.k, w.a, w.rs, w.places, w.panels, w.bias, w.acc = then.k, then.a, then.rs, nil, then.panels, nil, true
		w.run(r0, r1, p0, p1)
		w.product = whole
		return
	}
	if w.bias != nil && w.acc {
		for r := r0; r < r1; r++ {
			lo, hi := p0*nr, min(p1*nr, w.n)
			row := w.c[r*w.ldc+lo : r*w.ldc+hi]
			w.set.Add(row, row, w.bias[lo:hi])
		}
	}
	if w.kind.Blocks != nil || w.kind.Products != nil {
		switch {
		case w.k == 0:
		case w.kind.Products != nil:
			w.runBytes(r0, r1, p0, p1)
			return
		default:
			w.runBlocks(r0, r1, p0, p1)
			return
		}
		w.kind = &w.set.Weights[device.F32] // C is the start
	}
	depth := longRun // one tile of rows reads each panel only once
	if r1-r0 > w.set.MR && w.then.k == 0 && w.set.Flushes {
		depth = part(w.k, panelPart/nr)
	}
	depth = ceilDiv(depth, w.kind.Group) * w.kind.Group
	width := p1 - p0
	if w.panels == nil && w.k > 0 && !w.inPlace() {
		width = part(width, max(1, stripSize/(nr*min(depth, w.k))))
	}
	for p := p0; p < p1; p += width {
		end := min(p+width, p1)
		for k0 := 0; k0 == 0 || k0 < w.k; k0 += depth {
			kc := min(depth, w.k-k0)
			switch {
			case w.panels != nil:
			case w.inPlace():
				w.packLast(end, k0, kc)
			default:
				w.packPanels(p, end, k0, kc)
			}
			for i := r0; i < r1; {
				rows := part(r1-i, max(w.set.MR, blockSize/max(kc, 1)))
				w.block(i, rows, k0, kc, p, end)
				i += rows
			}
		}
	}
}

// inPlace reports whether B is read in place although it is not in panels: it has
// the right order, and few rows of A read it.
func (w *worker) inPlace() bool {
	return !w.trans && w.m <= 2*w.set.MR && w.beside == nil && w.kind.Narrow == nil
}

// packLast packs the last columns of B over the depth [k0, k0+kc) if they do not fill a panel and are before panel p1.
func (w *worker) packLast(p1, k0, kc int) {
	nr := w.set.NR
	if rest := w.n % nr; rest > 0 && p1*nr > w.n && kc > 0 {
		w.packB = grow(w.packB, max(stripSize, kc*nr))
		w.set.Pack(w.packB[:kc*nr], w.b[k0*w.ldb+w.n-rest:], kc, rest, w.ldb, nr)
	}
}

// packPanels packs the strip of panels [p0,p1) over the depth [k0, k0+kc).
func (w *worker) packPanels(p0, p1, k0, kc int) {
	nr := w.set.NR
	size := (p1 - p0) * kc * nr
	w.packB, w.first = grow(w.packB, max(stripSize, size)), p0 // the full size, so that each workspace grows only once
	strip := w.packB[:size]
	defer w.rounds(strip)
	if s, own := w.beside, w.own(); s != nil && p1 > own {
		p := max(p0, own)
		at := (p - own) * nr
		packStrip(w.set, strip[(p-p0)*kc*nr:], s.b[k0*s.ldb+at:], kc, min((p1-own)*nr, s.n)-at, s.ldb, false)
		if p1 = own; p0 >= p1 {
			return
		}
	}
	from := k0*w.ldb + p0*nr
	if w.trans {
		from = p0*nr*w.ldb + k0
	}
	packStrip(w.set, strip, w.b[from:], kc, min(p1*nr, w.n)-p0*nr, w.ldb, w.trans)
}

// rounds rounds a packed operand to the values of the kind.
func (w *worker) rounds(x []float32) {
	if w.kind.Narrow != nil {
		w.kind.Round(x, x)
	}
}

// takesBoth reports whether the kernel for some rows takes a second product: tiles abreast
// and packed float32 numbers do not.
func (w *worker) takesBoth(rows int) bool {
	switch {
	case w.kind != w.then.panels.Weights:
		return false
	case w.kind.Products != nil:
		return w.k > 0
	case w.kind.Blocks != nil:
		return w.k > 0 && max(w.k, w.then.k) <= longRun
	}
	return simd.Abreast(rows) == 1 && w.kind.Narrow == nil
}

// runBlocks is run for kernels that take both operands packed in 16 bits. The depth is cut
// at links, so no bit depends on it.
func (w *worker) runBlocks(r0, r1, p0, p1 int) {
	x, nr := w.kind.Blocks, w.set.NR
	depth := longRun
	if w.panels == nil {
		depth = max(1, halfStrip/((p1-p0)*nr*x.Link)) * x.Link
	}
	for k0 := 0; k0 < w.k; k0 += depth {
		kc := min(depth, w.k-k0)
		packed := ceilDiv(kc, x.Link) * x.Link
		if w.panels == nil {
			w.packHalves(p0, p1, k0, kc, packed*nr)
		}
		pitch := (packed + ceilDiv(w.then.k, x.Link)*x.Link) * x.Rows
		height := max(2, halfBlock/pitch) * x.Rows
		for i := r0; i < r1; i += height {
			rows := min(height, r1-i)
			w.half[0] = grow(w.half[0], ceilDiv(rows, x.Rows)*pitch/2)
			x.PackA(asHalves(w.half[0]), w.a[i*w.rs+k0*w.cs:], rows, kc, w.rs, w.cs, pitch)
			if w.then.k > 0 {
				x.PackA(asHalves(w.half[0])[packed*x.Rows:], w.then.a[i*w.then.rs:], rows, w.then.k, w.then.rs, 1, pitch)
			}
			for p := p0; p < p1; {
				panel, n := w.adjacent(p, p1)
				c, ld, left := w.target(panel)
				a := &w.args
				*a = simd.BlockArgs{A: asHalves(w.half[0]), C: c[i*ld:], LDC: ld, M: rows, N: min(n*nr, left), K: kc}
				if w.panels != nil {
					a.B, a.Pitch = asHalves(w.panels.from(panel, k0)), 2*w.panels.pitch
				} else {
					a.B, a.Pitch = asHalves(w.half[1])[(p-p0)*packed*nr:], packed*nr
				}
				if w.then.k > 0 {
					a.B2, a.Pitch2, a.K2 = asHalves(w.then.panels.from(panel, 0)), 2*w.then.panels.pitch, w.then.k
				}
				switch {
				case k0 > 0 || w.acc:
					a.From, a.LDFrom = a.C, ld
				case w.bias != nil:
					a.From = w.bias[panel*nr:]
				}
				x.Run(a)
				p += n
			}
		}
	}
}

// adjacent returns the panel that is the p-th of the selected ones, and how many of those before
// p1 follow each other from there in one matrix.
func (p *product) adjacent(first, p1 int) (panel, n int) {
	panel, n = p.at(first), 1
	for first+n < p1 && p.at(first+n) == panel+n && panel+n != p.own() {
		n++
	}
	return panel, n
}

// runBytes is run for kernels that take both operands in 8 bits. The depth is never cut, since a
// row has one scale, and a beside is of other kinds.
func (w *worker) runBytes(r0, r1, p0, p1 int) {
	x, nr, then := w.kind.Products, w.set.NR, w.then
	if w.twice {
		then = addend{k: w.k, rs: w.k, panels: w.panels}
	}
	pitch, pitch2 := simd.ByteDepth(w.k), simd.ByteDepth(then.k)
	height := max(w.set.MR, byteBlock/(pitch+pitch2))
	a := &w.bytes
	for i := r0; i < r1; i += height {
		rows := min(height, r1-i)
		*a = simd.ByteArgs{K: w.k, K2: then.k, Pitch: 4 * w.panels.pitch, LDC: w.ldc, M: rows}
		a.A, a.ScaleA = w.byteRows(0, rows, pitch)
		x.Rows(a.A, a.ScaleA, w.a[i*w.rs:], rows, w.k, w.rs, w.cs)
		if then.k > 0 {
			a.Pitch2 = 4 * then.panels.pitch
			a.A2, a.ScaleA2 = w.byteRows(1, rows, pitch2)
			if w.twice {
				w.packA = grow(w.packA, max(blockSize, rows*w.k)) // the full size, as packRows
				x.Residual(w.packA, a.A, a.ScaleA, w.a[i*w.rs:], rows, w.k, w.rs)
				then.a = w.packA
			} else {
				then.a = w.then.a[i*then.rs:]
			}
			x.Rows(a.A2, a.ScaleA2, then.a, rows, then.k, then.rs, 1)
		}
		for lo, hi := p0, p1; lo < hi; {
			panel, n := w.adjacent(lo, hi)
			if w.some.back {
				first := max(lo, hi-max(1, bytePiece/a.Pitch))
				for w.at(hi-1)-w.at(first) != hi-1-first {
					first++
				}
				panel, n, hi = w.at(first), hi-first, first
			} else {
				lo += n
			}
			a.N = min(n*nr, w.n-panel*nr)
			a.C = w.c[i*w.ldc+panel*nr:]
			a.B, a.ScaleB = asBytes(w.panels.words[panel*w.panels.pitch:]), w.panels.scale[panel*nr:]
			if then.k > 0 {
				a.B2, a.ScaleB2 = asBytes(then.panels.words[panel*then.panels.pitch:]), then.panels.scale[panel*nr:]
			}
			switch a.From, a.LDFrom = nil, 0; {
			case w.acc:
				a.From, a.LDFrom = a.C, w.ldc
			case w.bias != nil:
				a.From = w.bias[panel*nr:]
			}
			x.Run(a)
		}
	}
}

// byteRows returns memory for rows of the first or the second operand, and for their scales.
func (w *worker) byteRows(i, rows, pitch int) ([]int8, []float32) {
	w.half[i], w.scale[i] = grow(w.half[i], rows*pitch/4), grow(w.scale[i], rows)
	return asBytes(w.half[i]), w.scale[i]
}

const (
	byteBlock = 128 << 10 // bytes of a block of A: a part of a core's own cache
	bytePiece = 64 << 10  // bytes of panels that are read forwards on a walk backwards
)

// asBytes is memory of float32 numbers as memory of four times as many bytes.
func asBytes(x []float32) []int8 {
	return unsafe.Slice((*int8)(unsafe.Pointer(unsafe.SliceData(x))), 4*len(x))
}

// Elements of a block of A and of a strip of B in 16 bits: half of a core's own cache.
const (
	halfBlock = 64 << 10
	halfStrip = 512 << 10
)

// packHalves packs panels [p0,p1) of B over the depth [k0, k0+kc), pitch elements each, of which some are those of beside.
func (w *worker) packHalves(p0, p1, k0, kc, pitch int) {
	nr, own := w.set.NR, w.own()
	w.half[1] = grow(w.half[1], (p1-p0)*pitch/2)
	strip := asHalves(w.half[1])
	pack := func(first, last int, b []float32, n, ldb int, trans bool, to []uint16) {
		if first >= last {
			return
		}
		at := k0*ldb + first*nr
		if trans {
			at = first*nr*ldb + k0
		}
		w.kind.Blocks.PackB(to, b[at:], kc, min(last*nr, n)-first*nr, ldb, trans)
	}
	pack(p0, min(p1, own), w.b, w.n, w.ldb, w.trans, strip)
	if s := w.beside; s != nil && p1 > own {
		first := max(p0, own)
		pack(first-own, p1-own, s.b, s.n, s.ldb, false, strip[(first-p0)*pitch:])
	}
}

// asHalves is memory of float32 numbers as memory of twice as many of 16 bits.
func asHalves(x []float32) []uint16 {
	return unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(x))), 2*len(x))
}

// block computes rows [i, i+rows) of panels [p0,p1) over the depth [k0, k0+kc).
func (w *worker) block(i, rows, k0, kc, p0, p1 int) {
	call, nr := &w.call, w.set.NR
	tiles := ceilDiv(rows, w.set.MR)
	height, higher := rows/tiles, rows%tiles // the first higher tiles have one row more
	a, origin := w.a, i*w.rs+k0*w.cs
	pack := kc > 0 && w.worthPacking(p1-p0)
	call.K, call.RS, call.K2, call.At = kc, w.rs, 0, nil
	if len(w.places) > 0 && kc > 0 {
		origin, call.At = i*w.rs+w.places[k0], &w.places[k0]
	}
	if pack {
		w.packRows(i, rows, k0, kc)
		w.rounds(w.packA[:rows*kc])
		a, origin, call.RS = w.packA, 0, 1
	}
	if w.then.k > 0 && k0+kc == w.k {
		call.K2, call.RS2 = w.then.k, w.then.rs
	}
	abreast, groups := simd.Abreast(rows), ceilDiv(kc, w.kind.Group)
	most := min(max(callWork/(min(rows, w.set.MR)*abreast*nr*max(call.K+call.K2, 1)), 1), callTiles)
	for p0 < p1 {
		p, taken := w.group(p0, p1, abreast)
		c, ld, left := w.target(p)
		columns := min(taken*nr, left)
		next := -1
		if w.some.back {
			if p1 -= taken; p0 < p1 {
				next = w.at(p1 - 1)
			}
		} else if p0 += taken; p0 < p1 {
			next = w.at(p0)
		}
		b, ldb, pitch, coming := w.aim(p, next, k0, kc, groups)
		if ld != call.LDC || ldb != call.LDB || pitch != call.Pitch {
			w.flush()
			call.LDC, call.LDB, call.Pitch = ld, ldb, pitch
		}
		own := k0 > 0 || w.acc       // the tiles start from their own C, otherwise from the bias or zero
		var from, b2, after *float32 // the same for all tiles of the panel; C of the next panel
		if call.LDFrom = 0; own {
			call.LDFrom = ld
		} else if w.bias != nil {
			from = &w.bias[p*nr]
		}
		if call.K2 > 0 {
			b2 = &w.then.panels.words[p*w.then.panels.pitch]
		}
		if next >= 0 {
			c, ld, _ := w.target(next)
			after = &c[i*ld]
		}
		at, at2, row := origin, i*w.then.rs, i*ld
		for tile := range tiles {
			m, cs, step := height, w.cs, w.rs
			if tile < higher {
				m++
			}
			if pack {
				cs, step = m, kc
			}
			var a1, a2, nextB *float32
			if kc > 0 {
				a1 = &a[at]
			}
			if call.K2 > 0 {
				a2 = &w.then.a[at2]
			}
			if len(coming) > 0 {
				nextB = &coming[0]
				coming = coming[min(simd.FetchPerK*kc, len(coming)):]
			}
			here := &c[row]
			at, at2, row = at+m*step, at2+m*call.RS2, row+m*ld
			start, nextC := from, after
			if own {
				start = here
			}
			if tile < tiles-1 {
				nextC = &c[row]
			}
			if call.Count == most {
				w.flush()
			}
			t := &w.tiles[call.Count]
			call.Count++
			t.M, t.N, t.CS = m, columns, cs
			t.A, t.B, t.C, t.From, t.A2, t.B2, t.NextC, t.NextB = a1, b, here, start, a2, b2, nextC, nextB
			if w.kind.Scales {
				t.Scale, t.Scale2 = w.scales(p)
			}
		}
	}
	w.flush()
}

// group returns the next panels of [p0,p1) for one tile: abreast panels if that
// many adjacent full ones are left, otherwise one.
func (p *product) group(p0, p1, abreast int) (panel, n int) {
	first := p0
	if p.some.back {
		first = p1 - abreast
	}
	if p0+abreast <= p1 {
		panel = p.at(first)
		if p.at(first+abreast-1) == panel+abreast-1 && (panel+abreast)*p.set.NR <= p.n {
			return panel, abreast
		}
	}
	if p.some.back {
		return p.at(p1 - 1), 1
	}
	return p.at(p0), 1
}

// scales returns the scales of panel p of B and of the addend's B.
func (w *worker) scales(p int) (scale, scale2 *float32) {
	if w.then.k > 0 {
		scale2 = &w.then.panels.scale[p*w.set.NR]
	}
	return &w.panels.scale[p*w.set.NR], scale2
}

// aim returns panel p of B, its strides, and the panel to prefetch, if there is one.
func (w *worker) aim(p, next, k0, kc, groups int) (b *float32, ldb, pitch int, coming []float32) {
	if kc == 0 {
		return nil, 0, 0, nil
	}
	panel, ldb, pitch := w.panel(p, k0, kc)
	if next >= 0 && (w.panels != nil || !w.inPlace()) {
		coming, _, _ = w.panel(next, k0, kc)
		coming = coming[:groups*ldb]
	}
	return &panel[0], ldb, pitch, coming
}

// panel returns panel p of B from depth k0 on, its row stride, and the distance to the next panel.
func (w *worker) panel(p, k0, kc int) (b []float32, ld, pitch int) {
	nr := w.set.NR
	switch {
	case w.panels != nil:
		return w.panels.from(p, k0), w.panels.line, w.panels.pitch
	case !w.inPlace():
		return w.packB[(p-w.first)*kc*nr:], nr, kc * nr
	case (p+1)*nr <= w.n:
		return w.b[k0*w.ldb+p*nr:], w.ldb, nr
	}
	return w.packB, nr, 0
}

// worthPacking reports whether A is read often enough to gain from a copy in tile
// order. Reading A in place causes cache conflicts if rows are a power of two
// apart, and a transposed A is on another page for every k.
func (w *worker) worthPacking(panels int) bool {
	switch {
	case w.kind.Narrow != nil:
		return true // it is rounded
	case w.then.k > 0 || w.cs == 0 || len(w.places) > 0:
		return false
	}
	if w.cs != 1 {
		return panels >= 3
	}
	return panels >= 6
}

// packRows copies a block of A to packA, each tile's rows as [k][M].
func (w *worker) packRows(i, rows, k0, kc int) {
	w.packA = grow(w.packA, max(blockSize, rows*kc)) // the full size, as packB
	if w.rs == 1 {
		tiles := ceilDiv(rows, w.set.MR)
		m := rows / tiles
		first := rows % tiles * (m + 1) // rows of the tiles that have m+1
		src := w.a[i+k0*w.cs:]
		w.set.Pack(w.packA, src, kc, first, w.cs, m+1)
		w.set.Pack(w.packA[first*kc:], src[first:], kc, rows-first, w.cs, m)
		return
	}
	for r := 0; r < rows; {
		m := part(rows-r, w.set.MR)
		w.set.PackT(w.packA[r*kc:][:m*kc], w.a[(i+r)*w.rs+k0*w.cs:], kc, m, w.rs, m)
		r += m
	}
}

// Gemm computes s. Work is divided by rows or columns of C or by the batch, never
// by K.
func (b *Backend) Gemm(s *device.GemmSpec) {
	if s.M == 0 || s.N == 0 {
		return
	}
	g := gemmPool.Get()
	g.b, g.spec = b, *s
	fillStrides(&g.spec)
	if g.narrow() {
		g.turned()
		g.put()
		return
	}
	batch := max(s.Batch, 1)
	work := s.M * s.N * max(s.K, 1)
	switch {
	case batch == 1:
		g.one(0, work < minGemmWork)
	case batch >= par.Workers() || work < minGemmWork:
		par.For(batch, ceilDiv(minGemmWork, work), g, func(g *gemm, lo, hi int) {
			own := gemmPool.Get()
			own.b, own.spec = g.b, g.spec
			for i := lo; i < hi; i++ {
				own.one(i, true)
			}
			own.put()
		})
	default:
		for i := range batch {
			g.one(i, false)
		}
	}
	g.put()
}

// gemm is one call of Gemm.
type gemm struct {
	b    *Backend
	spec device.GemmSpec
	p    product
	own  panels    // of B, without a cache
	ct   []float32 // [N,M], C transposed
}

// narrow reports whether C has so few columns and so many rows that most of each
// tile would be unused, as in the weight gradient of a layer with few inputs.
func (g *gemm) narrow() bool {
	s, nr := &g.spec, g.b.set.NR
	return s.Kind != device.INT8 && 2*s.N <= nr && s.M >= 4*nr && s.K > 0 && max(s.Batch, 1) == 1 && s.Bias.Zero() && s.Cache == nil
}

// turned computes C as the transpose of Bᵀ·Aᵀ, which has the same bits.
func (g *gemm) turned() {
	s := &g.spec
	g.ct = grow(g.ct, s.N*s.M)
	if s.Acc {
		g.b.set.PackT(g.ct, s.C.Host, s.N, s.M, s.LDC, s.M)
	}
	g.b.Gemm(&device.GemmSpec{M: s.N, N: s.M, K: s.K, A: s.B, LDA: s.LDB, TransA: !s.TransB,
		B: s.A, LDB: s.LDA, TransB: !s.TransA, C: device.HostBuffer(g.ct), Acc: s.Acc, Kind: s.Kind})
	for i := range s.M {
		row := s.C.Host[i*s.LDC:][:s.N]
		for j := range row {
			row[j] = g.ct[j*s.M+i]
		}
	}
}

var gemmPool par.Pool[gemm]

func (g *gemm) put() {
	g.spec, g.p = device.GemmSpec{}, product{}
	gemmPool.Put(g)
}

func fillStrides(s *device.GemmSpec) {
	a, b := s.K, s.N
	if s.TransA {
		a = s.M
	}
	if s.TransB {
		b = s.K
	}
	s.LDA, s.LDB, s.LDC = cmp.Or(s.LDA, a), cmp.Or(s.LDB, b), cmp.Or(s.LDC, s.N)
}

// one computes product i of the batch.
func (g *gemm) one(i int, serial bool) {
	s, set := &g.spec, g.b.set
	g.p = product{
		set: set, m: s.M, n: s.N, k: s.K,
		a: s.A.Host[i*s.StrideA:], rs: s.LDA, cs: 1,
		c: s.C.Host[i*s.StrideC:], ldc: s.LDC,
		bias: s.Bias.Host, acc: s.Acc, round: s.Kind,
	}
	if s.TransA {
		g.p.rs, g.p.cs = 1, s.LDA
	}
	if max(s.Batch, 1) == 1 && (s.Cache != nil || s.Kind == device.INT8) {
		g.p.panels = g.cached()
	} else {
		g.p.b, g.p.ldb, g.p.trans = s.B.Host[i*s.StrideB:], s.LDB, s.TransB
	}

	if serial {
		g.p.part(0, s.M, 0, ceilDiv(s.N, set.NR))
	} else {
		g.p.compute()
	}
}

// compute divides the product along the longer side of C, so that each worker packs
// the smaller operand.
func (p *product) compute() {
	panels := p.columns()
	if n := panels * p.set.NR; p.m >= n || p.m >= p.n || panels == 1 {
		grain := max(p.set.MR, minGemmWork/max(n*p.k, 1))
		par.For(p.m, grain, p, func(p *product, lo, hi int) {
			p.part(lo, hi, 0, p.columns())
		})
		return
	}
	grain := ceilDiv(minGemmWork, max(p.m*p.k*p.set.NR, 1))
	par.For(panels, grain, p, func(p *product, lo, hi int) {
		p.part(0, p.m, lo, hi)
	})
}

// cached returns the panels of B in the cache, packed again if B has changed; without a cache, its own.
func (g *gemm) cached() *panels {
	s := &g.spec
	p, current := cachedIn(s.Cache, s.Version, &g.own)
	if !current {
		p.Weights = g.b.weights(s.Kind)
		g.b.pack(p, s.B.Host, s.K, s.N, s.LDB, s.TransB)
		if s.Cache != nil {
			s.Cache.Store(s.Version, p)
		}
	}
	return p
}

// part computes rows [r0,r1) of panels [p0,p1).
func (p *product) part(r0, r1, p0, p1 int) {
	w := workerPool.Get()
	w.product = *p
	w.run(r0, r1, p0, p1)
	w.put()
}
