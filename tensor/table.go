package tensor

import "github.com/carousel-ml/carousel/internal/device"

// Table is an array [slots,rows,width] in the memory of a device that does not
// depend on a tape, such as the states of many streams, one per row. A pass copies
// rows to a tensor with [Tape.Gather] and back with [Tape.Scatter], so the rows of a
// batch may change between passes without a copy through the host. No gradient passes
// through a table. One goroutine at a time may use it. Slots, rows and widths that do
// not fit panic with a [*ShapeError].
type Table struct {
	dev                *Device
	slots, rows, width int
	value              device.Buffer
}

// NewTable returns a table of zeros on dev, with at least one slot.
func NewTable(dev *Device, slots, rows, width int) *Table {
	if slots < 1 || rows < 0 || width < 0 {
		failf("NewTable", "needs at least one slot and no negative size, got [%d,%d,%d]", slots, rows, width)
	}
	return &Table{dev, slots, rows, width, dev.backend.Alloc(slots * rows * width)}
}

// Rows returns the number of rows.
func (x *Table) Rows() int { return x.rows }

// Width returns the length of a row in one slot.
func (x *Table) Width() int { return x.width }

// Free releases the memory. The table must not be used afterwards.
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

// Write sets a row of one slot to v, of length [Table.Width].
func (x *Table) Write(slot, row int, v []float32) {
	b := x.at("Write", slot, row)
	if len(v) != x.width {
		failf("Table.Write", "a row has %d elements, got %d", x.width, len(v))
	}
	x.dev.backend.Upload(b, v)
}

// Read waits for the device and copies a row of one slot to dst, of length
// [Table.Width].
func (x *Table) Read(slot, row int, dst []float32) {
	b := x.at("Read", slot, row)
	if len(dst) != x.width {
		failf("Table.Read", "a row has %d elements, got %d", x.width, len(dst))
	}
	x.dev.backend.Download(dst, b)
}

// at returns a row of one slot.
func (x *Table) at(op string, slot, row int) device.Buffer {
	if slot < 0 || slot >= x.slots || row < 0 || row >= x.rows {
		failf("Table."+op, "slot %d, row %d of a table [%d,%d,%d]", slot, row, x.slots, x.rows, x.width)
	}
	from := (slot*x.rows + row) * x.width
	return x.value.Slice(from, from+x.width)
}

// Gather copies rows of a table to a new tensor [slots,len(rows),width]. A row may
// occur several times.
func (t *Tape) Gather(from *Table, rows []int32) *Tensor {
	y := t.Empty(from.slots, len(rows), from.width)
	s := from.move("Gather", t, rows)
	s.Src, s.Dst = from.value, y.value
	s.SrcStride, s.DstStride = s.DstStride, s.SrcStride
	t.permute(s)
	return y
}

// Scatter copies x [slots,len(rows),width] to rows of a table, which must be
// distinct.
func (t *Tape) Scatter(to *Table, rows []int32, x *Tensor) {
	x.live("Scatter")
	if x.rank != 3 || x.dims[0] != to.slots || x.dims[1] != len(rows) || x.dims[2] != to.width {
		failf("Scatter", "%d rows of a table [%d,%d,%d] need [%d,%d,%d], got %s", len(rows), to.slots, to.rows, to.width, to.slots, len(rows), to.width, describe(x))
	}
	s := to.move("Scatter", t, rows)
	s.Src, s.Dst, s.RowsDst = x.value, to.value, true
	t.permute(s)
}

// move copies a dense [slots,len(rows),width] to rows of the table.
func (x *Table) move(op string, t *Tape, rows []int32) device.PermuteSpec {
	if x.dev != t.dev {
		failf(op, "the table is on %s, the tape on %s", x.dev.Name(), t.dev.Name())
	}
	for i, r := range rows {
		if r < 0 || int(r) >= x.rows {
			failf(op, "row %d of a table of %d, at position %d", r, x.rows, i)
		}
	}
	return device.PermuteSpec{Dims: [4]int{1, x.slots, len(rows), x.width}, Rows: t.upload(rows), RowDim: 2,
		SrcStride: [4]int{0, len(rows) * x.width, x.width, 1}, DstStride: [4]int{0, x.rows * x.width, x.width, 1}}
}

// View returns the table as a tensor [slots,rows,width] on the tape that shares its
// memory: the tensor has the values that the table has while the pass runs.
func (t *Tape) View(x *Table) *Tensor {
	if x.dev != t.dev {
		failf("View", "the table is on %s, the tape on %s", x.dev.Name(), t.dev.Name())
	}
	y := t.tensor(x.slots, x.rows, x.width)
	y.value = x.value
	return y
}

// SequencesOf returns a table of one slot as a batch of padded sequences
// [rows,T,width/T] that shares its memory and carries lengths [rows], as those of
// [Tape.Sequences].
func (t *Tape) SequencesOf(x *Table, lengths []int32, T int) *Tensor {
	if x.slots != 1 || T < 1 || x.width%T != 0 {
		failf("SequencesOf", "a table [%d,%d,%d] cannot be divided into sequences of %d steps", x.slots, x.rows, x.width, T)
	}
	y := Reshape(t.View(x), x.rows, T, x.width/T)
	y.seq = t.sequence("SequencesOf", lengths, x.rows, T)
	return y
}
