package cpu

import (
	"sort"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/par"
)

// The steps of a chunk are divided among the cores in one of these ways. No bit
// depends on it.
//
//	rows           each core runs all steps of its rows; no synchronisation
//	rows, local    likewise, with W·x + R·h of a step as one product: localGates
//	columns        each core computes its columns of R·h and the cells of its
//	               rows; two barriers per stage: prefersColumns
//	columns by     each core computes all gates of its units and their cells;
//	units          one barrier per step: ownsUnits
//	units          without R: each core runs all steps of its units; no
//	               synchronisation: splitsUnits
const (
	cacheShare  = 1 << 19 // bytes of R that stay in a core's own cache beside its other work
	teamWork    = 1 << 17 // multiply-adds of a step that are worth two barriers
	chunkGates  = 1 << 19 // elements of gates in a chunk
	gangWork    = 1 << 24 // multiply-adds of a gang before the split is chosen again
	localBytes  = 8 << 20 // W and R up to this size are read again in each step without waiting for memory
	streamWork  = 72      // a core with this many rows times rows per tile is busy while R comes from the shared cache
	blockRows   = 32      // the rows of a core that keep kernels of blocks busy: two tiles of 16
	rowsInBytes = 16      // the same of kernels of bytes, which are twice to four times as fast as those of float32 and read a quarter
	conflict    = 512     // rows a multiple of this many elements apart fall into the same few cache sets
	cellWork    = 16      // multiply-adds that a gate of a cell without R counts as
	unitBlock   = 16      // units that are not divided further
	cellUnits   = 1 << 14 // units of rows per call of a cell's kernel
)

// recurrent returns the multiply-adds per row and step.
func (e *scan) recurrent() int {
	if !e.Has(cell.R) {
		return e.gw * cellWork
	}
	return e.gw * e.out
}

// prefersColumns reports whether to divide by columns: if there are fewer than
// two rows per core, or so few that each core would spend its time reading an R
// that its cache cannot hold.
func (e *scan) prefersColumns() bool {
	workers, r := par.Workers(), e.recurrent()
	worth := teamWork
	if e.inBytes(cell.R) {
		worth *= 2 // a row is read at a quarter of the time, and barriers take theirs
	}
	if e.B*r < worth || !e.Has(cell.R) || !par.CanGang() {
		return false
	}
	rows := e.B / workers
	return rows < 2 || rows < e.manyRows() && r*e.weightBytes(cell.R) > cacheShare
}

// weightBytes returns the bytes that a weight of a matrix counts as.
func (e *scan) weightBytes(p cell.Param) int {
	if e.inBytes(p) {
		return 1
	}
	return 4
}

// inBytes reports whether products with a matrix are in 8 bits.
func (e *scan) inBytes(p cell.Param) bool { return e.weightsOf(p).Products != nil }

// gangSteps returns the number of steps of one gang.
func (e *scan) gangSteps() int { return max(4, gangWork/(e.B*e.recurrent())) }

// manyRows returns the rows per core from which it pays to read all of R in each
// step. The larger a tile, the fewer.
func (e *scan) manyRows() int {
	switch {
	case e.weightsOf(cell.W).Blocks != nil:
		return blockRows
	case e.inBytes(cell.R):
		return rowsInBytes
	}
	return streamWork / e.b.set.MR
}

// chunkSteps returns the number of steps of a chunk, limit at most. It depends on
// the shape alone, because weight gradients are summed chunk by chunk.
func (e *scan) chunkSteps(limit int) int {
	return max(1, min(limit, chunkGates/max(1, e.B*e.gw)))
}

// splitsUnits reports whether the units of a row are independent of each other.
func (e *scan) splitsUnits() bool { return !e.Has(cell.R) && e.ZoneH == 0 }

// blocks returns the number of blocks of units of a row.
func (e *scan) blocks() int { return ceilDiv(e.H, unitBlock) }

// blockGrain returns the fewest blocks that are worth another core.
func (e *scan) blockGrain() int {
	return ceilDiv(minGemmWork, e.steps*(e.gw/e.H)*unitBlock*cellWork)
}

// ownsUnits reports whether each member of a gang computes all gates of its units
// and their cells, because there are fewer rows than members. Then one barrier
// per step is enough.
func (e *scan) ownsUnits(m par.Member) bool {
	return e.plain && e.cell == &plainLSTM && e.H%e.b.set.NR == 0 && e.B < m.Members()
}

// ownRows returns a member's share of rows [lo,hi). If it owns units, that is all
// rows, and r gets its units.
func (e *scan) ownRows(r *row, m par.Member, lo, hi int) (first, last int, byUnits bool) {
	if e.ownsUnits(m) {
		u0, u1 := m.Share(e.H / e.b.set.NR)
		r.u0, r.u1 = u0*e.b.set.NR, u1*e.b.set.NR
		return lo, hi, true
	}
	first, last = m.Share(hi - lo)
	return lo + first, lo + last, false
}

// localGates reports whether each core computes W·x + R·h of its rows per step as
// one product, instead of W·x of a whole chunk in advance. With enough rows to
// fill a tile this costs no more, and the gates of a step are used before they
// leave the core's L1 and L2 caches.
func (e *scan) localGates() bool {
	return e.B >= e.manyRows()*par.Workers() && e.Has(cell.R) && !e.Has(cell.NormX) &&
		(e.joined == e.gw || e.joined%e.b.set.NR == 0) && (e.Kinds[cell.W] != device.F32 || e.I%conflict != 0 && e.out%conflict != 0) && e.gw*(e.I*e.weightBytes(cell.W)+e.out*e.weightBytes(cell.R)) <= localBytes
}

// cutRows sets and returns the number of parts that the rows are divided into,
// each of them worth a core.
func (e *scan) cutRows() int {
	grain := ceilDiv(minGemmWork, max(1, e.steps*e.recurrent()))
	e.parts = max(1, min(par.Workers(), e.B/grain))
	return e.parts
}

// cut returns the first row of a part. Parts have equal numbers of steps inside
// sequences, so those with long rows have fewer rows.
func (e *scan) cut(part int) int {
	if e.Active.Zero() || part == e.parts {
		return part * e.B / e.parts
	}
	active := e.Active.Host[e.t0 : e.t0+e.steps]
	before := func(row int) int { // steps of the rows before this one
		n := 0
		for _, a := range active {
			n += min(int(a), row)
		}
		return n
	}
	share := ceilDiv(before(e.B)*part, e.parts)
	return sort.Search(e.B, func(row int) bool { return before(row) >= share })
}

// cellRows returns the number of rows per call of the cell: more than one if
// nothing else is done between rows, but few enough to keep the call short.
func (e *scan) cellRows() int {
	if !e.plain {
		return 1
	}
	return max(1, cellUnits/e.H)
}
