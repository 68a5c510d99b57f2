package cpu

import (
	"sort"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/par"
)

const (
	cacheShare = 1 << 19 // bytes of R that stay in a core's own cache beside its other work
	teamWork   = 1 << 17 // multiply-adds of a step that are worth two barriers
	chunkGates = 1 << 19 // elements of gates in a chunk
	gangWork   = 1 << 24 // multiply-adds a gang does before it is asked again whether it is worth it
	localBytes = 8 << 20 // of W and R that a core reads again at each step without waiting for them
	streamWork = 72      // rows of a core times those of a tile that keep it busy while R comes from the cache that all share
	conflict   = 512     // rows so many elements apart, or a multiple, fall into the same few sets of a cache
	cellWork   = 16      // multiply-adds that a gate of a cell without R counts for
	unitBlock  = 16      // units that stay together when units are split
	cellUnits  = 1 << 14 // units of rows that a cell's kernel takes at once
)

// recurrent is the multiply-adds a row makes in a step.
func (e *scan) recurrent() int {
	if !e.Has(cell.R) {
		return e.gw * cellWork
	}
	return e.gw * e.out
}

// prefersColumns decides the split: by columns when the rows are too few to go
// round, or so few that each core would spend its time reading an R that its
// cache cannot hold.
func (e *scan) prefersColumns() bool {
	workers, r := par.Workers(), e.recurrent()
	if e.B*r < teamWork || !e.Has(cell.R) || !par.CanGang() {
		return false
	}
	rows := e.B / workers
	return rows < 2 || rows < e.manyRows() && 4*r > cacheShare
}

// gangSteps is how many steps a gang goes on for.
func (e *scan) gangSteps() int { return max(4, gangWork/(e.B*e.recurrent())) }

// manyRows is how many rows of a core make it worth reading all of R at each
// step: the fewer, the more of them a tile takes at once.
func (e *scan) manyRows() int { return streamWork / e.b.set.MR }

// chunkSteps is how many steps make a chunk, of at most limit. It depends on the
// shape alone: weight gradients are summed chunk by chunk, in one order always.
func (e *scan) chunkSteps(limit int) int {
	return max(1, min(limit, chunkGates/max(1, e.B*e.gw)))
}

// splitsUnits says whether the units of a row are independent of each other.
func (e *scan) splitsUnits() bool { return !e.Has(cell.R) && e.ZoneH == 0 }

// blocks is how many blocks of units a row has.
func (e *scan) blocks() int { return ceilDiv(e.H, unitBlock) }

// blockGrain is how many of them make a core's share worth waking it for.
func (e *scan) blockGrain() int {
	return ceilDiv(minGemmWork, e.steps*(e.gw/e.H)*unitBlock*cellWork)
}

// pinned says whether the members of a gang own units, with all columns of R
// that these need and their part of the cell, because the rows do not go round.
// Then they meet only once a step.
func (e *scan) pinned(m par.Member) bool {
	return e.plain && e.cell == &plainLSTM && e.H%e.b.set.NR == 0 && e.B < m.Members()
}

// ownRows is a member's share of rows [lo,hi): all of them where it is pinned,
// and r has its share of the units.
func (e *scan) ownRows(r *row, m par.Member, lo, hi int) (first, last int, pinned bool) {
	if e.pinned(m) {
		u0, u1 := m.Share(e.H / e.b.set.NR)
		r.u0, r.u1 = u0*e.b.set.NR, u1*e.b.set.NR
		return lo, hi, true
	}
	first, last = m.Share(hi - lo)
	return lo + first, lo + last, false
}

// localGates says whether each core makes the gates of its rows step by step,
// W·x and R·h in one product, and not W·x of a chunk before its steps. With rows
// enough to fill a tile this costs no more, and the gates of a step are used
// before they leave the core's first caches.
func (e *scan) localGates() bool {
	return e.B >= e.manyRows()*par.Workers() && e.Has(cell.R) && !e.Has(cell.NormX) &&
		(e.joined == e.gw || e.joined%e.b.set.NR == 0) && e.I%conflict != 0 && e.out%conflict != 0 && 4*e.gw*(e.I+e.out) <= localBytes
}

// cutRows cuts the rows of the chunk into parts of like work, each worth a core.
func (e *scan) cutRows() int {
	grain := ceilDiv(minGemmWork, max(1, e.steps*e.recurrent()))
	e.parts = max(1, min(par.Workers(), e.B/grain))
	return e.parts
}

// cut is the first row of a part: where rows end early, the sooner those of long ones.
func (e *scan) cut(part int) int {
	if e.Active.Zero() || part == e.parts {
		return part * e.B / e.parts
	}
	active := e.Active.Host[e.t0 : e.t0+e.steps]
	before := func(row int) int { // the steps of the rows before this one
		n := 0
		for _, a := range active {
			n += min(int(a), row)
		}
		return n
	}
	share := ceilDiv(before(e.B)*part, e.parts)
	return sort.Search(e.B, func(row int) bool { return before(row) >= share })
}

// cellRows is how many rows the cell takes at once: more than one where nothing
// comes between them, but so few that a call stays short.
func (e *scan) cellRows() int {
	if !e.plain {
		return 1
	}
	return max(1, cellUnits/e.H)
}
