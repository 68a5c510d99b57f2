package tensor

import "github.com/carousel-ml/carousel/internal/device"

// Table is rows of numbers in the memory of a device, [slots, rows, width], that
// outlive any tape: the states of many streams, say, each in its own row. A pass
// takes some rows out with [Tape.Gather] and puts rows back with [Tape.Scatter],
// so rows may join and leave between passes without a copy through the program.
// Tables are for inference: no gradient passes through them. A table may be used
// by one goroutine at a time.
type Table struct {
	dev                *Device
	slots, rows, width int
	value              device.Buffer
}

// NewTable is a table of zeros.
func NewTable(dev *Device, slots, rows, width int) *Table {
	if slots < 1 || rows < 0 || width < 0 {
		failf("NewTable", "needs slots, rows and a width, got [%d,%d,%d]", slots, rows, width)
	}
	return &Table{dev, slots, rows, width, dev.backend.Alloc(slots * rows * width)}
}

// Rows is the number of rows.
func (x *Table) Rows() int { return x.rows }

// Width is the length of a row in one slot.
func (x *Table) Width() int { return x.width }

// Free gives the memory back. The table must not be used afterwards.
func (x *Table) Free() {
	x.dev.backend.Free(x.value)
	x.value, x.rows = device.Buffer{}, 0
}

// Clear sets a row to zeros in all slots.
func (x *Table) Clear(row int) {
	for slot := range x.slots {
		x.dev.backend.Fill(x.at("Clear", slot, row), 0)
	}
}

// Write sets a row in one slot.
func (x *Table) Write(slot, row int, v []float32) {
	b := x.at("Write", slot, row)
	if len(v) != x.width {
		failf("Table.Write", "a row has %d elements, got %d", x.width, len(v))
	}
	x.dev.backend.Upload(b, v)
}

// Read waits for and copies a row of one slot to dst.
func (x *Table) Read(slot, row int, dst []float32) {
	b := x.at("Read", slot, row)
	if len(dst) != x.width {
		failf("Table.Read", "a row has %d elements, got %d", x.width, len(dst))
	}
	x.dev.backend.Download(dst, b)
}

// at is a row of one slot.
func (x *Table) at(op string, slot, row int) device.Buffer {
	if slot < 0 || slot >= x.slots || row < 0 || row >= x.rows {
		failf("Table."+op, "slot %d, row %d of a table [%d,%d,%d]", slot, row, x.slots, x.rows, x.width)
	}
	from := (slot*x.rows + row) * x.width
	return x.value.Slice(from, from+x.width)
}

// Gather copies rows of a table to a new tensor [slots, len(rows), width]. A row
// may be named more than once.
func (t *Tape) Gather(from *Table, rows []int32) *Tensor {
	y := t.Empty(from.slots, len(rows), from.width)
	s := from.move("Gather", t, rows)
	s.Src, s.Dst = from.value, y.value
	s.SrcStride, s.DstStride = s.DstStride, s.SrcStride
	t.permute(s)
	return y
}

// Scatter copies x [slots, len(rows), width] to rows of a table, which must differ
// from each other.
func (t *Tape) Scatter(to *Table, rows []int32, x *Tensor) {
	x.live("Scatter")
	if x.rank != 3 || x.dims[0] != to.slots || x.dims[1] != len(rows) || x.dims[2] != to.width {
		failf("Scatter", "%d rows of a table [%d,%d,%d] need [%d,%d,%d], got %s", len(rows), to.slots, to.rows, to.width, to.slots, len(rows), to.width, describe(x))
	}
	s := to.move("Scatter", t, rows)
	s.Src, s.Dst, s.RowsDst = x.value, to.value, true
	t.permute(s)
}

// move is the copy of a dense [slots, len(rows), width] to rows of the table.
func (x *Table) move(op string, t *Tape, rows []int32) device.PermuteSpec {
	if x.dev != t.dev {
		failf(op, "the table is on %s, the tape on %s", x.dev.Name(), t.dev.Name())
	}
	for i, r := range rows {
		if r < 0 || int(r) >= x.rows {
			failf(op, "row %d of a table of %d, at place %d", r, x.rows, i)
		}
	}
	return device.PermuteSpec{Dims: [4]int{1, x.slots, len(rows), x.width}, Rows: t.upload(rows), RowDim: 2,
		SrcStride: [4]int{0, len(rows) * x.width, x.width, 1}, DstStride: [4]int{0, x.rows * x.width, x.width, 1}}
}

// View is the table as a tensor [slots, rows, width] of the tape that shares its
// memory, so nothing is copied: what a table holds while the pass runs, the
// tensor holds.
func (t *Tape) View(x *Table) *Tensor {
	if x.dev != t.dev {
		failf("View", "the table is on %s, the tape on %s", x.dev.Name(), t.dev.Name())
	}
	y := t.tensors.next()
	y.tape, y.epoch = t, t.epoch
	y.dims, y.rank = [maxRank]int{x.slots, x.rows, x.width}, 3
	y.value = x.value
	return y
}

// SequencesOf is a table of one slot as a batch of padded sequences
// [rows, T, width/T] that shares its memory and knows each row's true length,
// as [Tape.Sequences].
func (t *Tape) SequencesOf(x *Table, lengths []int32, T int) *Tensor {
	if x.slots != 1 || T < 1 || x.width%T != 0 {
		failf("SequencesOf", "a table [%d,%d,%d] holds no sequences of %d steps", x.slots, x.rows, x.width, T)
	}
	y := Reshape(t.View(x), x.rows, T, x.width/T)
	y.seq = t.sequence("SequencesOf", lengths, x.rows, T)
	return y
}
