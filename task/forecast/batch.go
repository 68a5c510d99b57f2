package forecast

import (
	"github.com/carousel-ml/carousel/train"
)

// batch is the inputs of windows for the network. Buffers are refilled.
//
// If each target is a separate row, the rows of the network are targets x
// windows, target-major; if one row has all targets, they are windows.
type batch struct {
	n, rows int

	encoder []float32 // [rows, read, encoder]; autoregressive: [rows, window+horizon-1, encoder]
	decoder []float32 // [rows, steps of the horizon, decoder]
	linear  []float32 // [targets, n, linear]
	group   []int32   // [targets, n], rows of the linear path's table
	ids     []int32   // [rows, ids]
	target  []float32 // [targets, n, horizon]; autoregressive: [rows, steps, channels]
	weight  []float32 // as target: 1 if it was measured, else 0
	centres []centre  // [targets, n]

	unitShift, unitScale []float32 // [targets, n, horizon]: from the window's units to the data's
}

// load fills a batch with windows, and with their targets if targets is set.
func (d *dataset) load(b *batch, list []window, targets bool) {
	b.n = len(list)
	b.rows = b.n
	if d.channels == 1 {
		b.rows *= d.targets
	}
	pairs := d.targets * b.n
	b.centres = zeroed(b.centres, pairs)
	for k := range d.targets {
		for i, w := range list {
			b.centres[k*b.n+i] = d.centre(d.frames[w.frame], k, int(w.origin))
		}
	}
	d.loadStatic(b, list)
	if d.cfg.Head == "autoregressive" {
		d.loadUnrolled(b, list, targets)
		return
	}
	d.loadRows(b, list)
	if d.cfg.Skip != "none" {
		d.loadLinear(b, list)
	}
	if targets {
		d.loadTargets(b, list)
	}
	if d.cfg.Loss == "negative-binomial" {
		d.loadUnits(b, list)
	}
}

// row returns the target and window of a row; if a row has all targets, the
// target is the first.
func (d *dataset) row(b *batch, r int) (k, i int) { return r / b.n, r % b.n }

// centresOf returns the centres of all targets of window i.
func (d *dataset) centresOf(b *batch, dst []centre, i int) []centre {
	for k := range d.targets {
		dst[k] = b.centres[k*b.n+i]
	}
	return dst
}

func (d *dataset) loadStatic(b *batch, list []window) {
	if d.ids == 0 {
		return
	}
	b.ids = zeroed(b.ids, b.rows*d.ids)
	for r := range b.rows {
		_, i := d.row(b, r)
		copy(b.ids[r*d.ids:], d.frames[list[i].frame].ids)
	}
}

func (d *dataset) loadRows(b *batch, list []window) {
	past, ahead := d.read*d.encoder, d.steps(d.horizon)*d.decoder
	b.encoder, b.decoder = zeroed(b.encoder, b.rows*past), zeroed(b.decoder, b.rows*ahead)
	centres := make([]centre, d.targets)
	for r := range b.rows {
		k, i := d.row(b, r)
		f, origin := d.frames[list[i].frame], int(list[i].origin)
		c := d.centresOf(b, centres, i)
		d.fillEncoder(b.encoder[r*past:(r+1)*past], f, k, origin, c)
		if d.decoder > 0 {
			d.fillDecoder(b.decoder[r*ahead:(r+1)*ahead], f, k, origin, c)
		}
	}
}

func (d *dataset) loadLinear(b *batch, list []window) {
	b.linear, b.group = zeroed(b.linear, d.targets*b.n*d.linear), zeroed(b.group, d.targets*b.n)
	for at := range d.targets * b.n {
		k, i := at/b.n, at%b.n
		f, origin := d.frames[list[i].frame], int(list[i].origin)
		d.fillLinear(b.linear[at*d.linear:(at+1)*d.linear], f, k, origin, b.centres[at])
		b.group[at] = int32(k*d.groups) + d.groupAt(f, origin)
	}
}

func (d *dataset) loadTargets(b *batch, list []window) {
	n := d.targets * b.n * d.horizon
	b.target, b.weight = zeroed(b.target, n), zeroed(b.weight, n)
	for at := range d.targets * b.n {
		k, i := at/b.n, at%b.n
		f, origin := d.frames[list[i].frame], int(list[i].origin)
		y, w := b.target[at*d.horizon:(at+1)*d.horizon], b.weight[at*d.horizon:(at+1)*d.horizon]
		d.fillTarget(y, w, f, k, origin, b.centres[at])
		if d.cfg.Loss == "negative-binomial" {
			for h := range y {
				if w[h] != 0 {
					y[h] = float32(f.raw[k][origin+h])
				}
			}
		}
	}
}

func (d *dataset) loadUnits(b *batch, list []window) {
	n := d.targets * b.n * d.horizon
	b.unitShift, b.unitScale = zeroed(b.unitShift, n), zeroed(b.unitScale, n)
	for at := range n {
		pair := at / d.horizon
		k, i := pair/b.n, pair%b.n
		s := d.frames[list[i].frame].fit[k].Scaler
		b.unitScale[at] = float32(s.Scale) * b.centres[pair].scale
		b.unitShift[at] = float32(s.out(float64(b.centres[pair].shift)))
	}
}

// loadUnrolled fills the inputs of an autoregressive network: with targets over
// window and horizon, otherwise over the window.
func (d *dataset) loadUnrolled(b *batch, list []window, targets bool) {
	steps := d.window
	if targets {
		steps += d.horizon - 1
		b.target, b.weight = zeroed(b.target, b.rows*steps*d.channels), zeroed(b.weight, b.rows*steps*d.channels)
	}
	size := steps * d.encoder
	b.encoder = zeroed(b.encoder, b.rows*size)
	centres := make([]centre, d.targets)
	for r := range b.rows {
		k, i := d.row(b, r)
		f, first := d.frames[list[i].frame], int(list[i].origin)-d.window
		c := d.centresOf(b, centres, i)
		d.fillUnrolled(b.encoder[r*size:(r+1)*size], f, k, first, steps, c)
		for j := 0; targets && j < steps; j++ {
			for ch := range d.channels {
				column, row := k+ch, first+j+1
				if row >= f.end || f.yGap[column][row] != 0 {
					continue
				}
				at := (r*steps+j)*d.channels + ch
				b.target[at] = c[column].of(f.y[column][row])
				b.weight[at] = 1
			}
		}
	}
}

// zeroed returns n zeros, in the memory of old if it is large enough.
func zeroed[T any](old []T, n int) []T {
	s := train.Resize(old, n)
	clear(s)
	return s
}
