package forecast

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/task"
)

// learnt is what a model remembers of the rows of a series: where the parts ended in
// its table. In another table the places are found by the times, or, if there are none,
// by the values.
type learnt struct {
	Times []time.Time `json:"times,omitempty"` // of the first row, and of the last rows of training, validation, test and the table
	Rows  []int       `json:"rows,omitempty"`  // without times: the numbers of rows up to the ends of training, validation, test and the table
	Sums  []byte      `json:"sums,omitempty"`  // with Rows: hashes of blocks of rows, 8 bytes each, little-endian
}

// mostBlocks is the number of blocks that the rows of a series are divided into, and
// leastBlock the least number of rows of one.
const (
	mostBlocks = 8
	leastBlock = 8
)

// learn returns what to remember of a frame that is divided.
func (f *frame) learn() *learnt {
	ends := []int{f.part[trainPart].hi, f.part[validationPart].hi, f.part[testPart].hi, f.end}
	if f.times != nil {
		l := &learnt{Times: []time.Time{f.times[0].UTC()}}
		for _, end := range ends {
			l.Times = append(l.Times, f.times[end-1].UTC())
		}
		return l
	}
	l := &learnt{Rows: ends}
	rows, size := f.rowSums(), l.block()
	for at := 0; at+size <= f.end; at += size {
		l.Sums = binary.LittleEndian.AppendUint64(l.Sums, blockSum(rows[at:at+size]))
	}
	return l
}

// block returns the number of rows of a block.
func (l *learnt) block() int {
	n := l.Rows[len(l.Rows)-1]
	return min(n, max(leastBlock, n/mostBlocks))
}

// valid reports whether learn can have returned l.
func (l *learnt) valid() bool {
	if l == nil || (len(l.Times) == 0) == (len(l.Rows) == 0) {
		return false
	}
	if l.Rows == nil {
		return len(l.Times) == 5
	}
	return len(l.Rows) == 4 && sort.IntsAreSorted(l.Rows) && l.Rows[0] > 0 && len(l.Sums) == l.Rows[3]/l.block()*8
}

// recognise divides a frame into the parts of training. Rows of neither training nor
// validation are for the test, and so is a series that the model does not know: l is
// nil then. c is the clocks of training.
func (f *frame) recognise(l *learnt, c *clocks) {
	f.part = parts{testPart: {0, f.end}}
	if l == nil || f.end == 0 {
		return
	}
	ends, ok := l.find(f, c)
	if !ok {
		return
	}
	training, validation, test, table := ends[0], ends[1], ends[2], ends[3]
	if f.end > table || test <= validation {
		test = f.end // rows after the table of training; or of a split that leaves some to no part
	}
	f.part = parts{{0, training}, {training, validation}, {validation, test}}
}

// find returns the rows of a frame at which training, validation, test and the table of
// training end; false if the frame has none of its rows.
func (l *learnt) find(f *frame, c *clocks) (ends [4]int, ok bool) {
	if l.Rows == nil {
		if f.times == nil || c.moment(f.times[f.end-1]).Before(l.Times[0]) {
			return ends, false
		}
		for i, last := range l.Times[1:] {
			ends[i] = sort.Search(f.end, func(row int) bool { return c.moment(f.times[row]).After(last) })
		}
		return ends, true
	}
	shift, ok := l.align(f)
	for i, end := range l.Rows {
		ends[i] = min(max(end+shift, 0), f.end)
	}
	return ends, ok
}

// align finds out by which number of rows the frame is shifted against the table of
// training: the one by which most blocks agree, and of several the smallest.
func (l *learnt) align(f *frame) (shift int, ok bool) {
	size := l.block()
	at := map[uint64][]int{} // rows of training's table at which blocks begin
	for i := 0; i < len(l.Sums); i += 8 {
		sum := binary.LittleEndian.Uint64(l.Sums[i:])
		at[sum] = append(at[sum], i/8*size)
	}
	votes := map[int]int{}
	rows := f.rowSums()
	power := uint64(1)
	for range size {
		power *= blockBase
	}
	var sum uint64
	for i, row := range rows {
		sum = sum*blockBase + row
		if i >= size {
			sum -= rows[i-size] * power
		}
		if i+1 >= size {
			for _, begin := range at[sum] {
				votes[i+1-size-begin]++
			}
		}
	}
	most := 0
	for s, n := range votes {
		if n > most || n == most && (abs(s) < abs(shift) || abs(s) == abs(shift) && s > shift) {
			shift, most = s, n
		}
	}
	return shift, most > 0
}

func abs(n int) int { return max(n, -n) }

// blockBase is the base of the polynomial that is the hash of a block, which so can
// move along a series.
const blockBase = 0x9e3779b97f4a7c15

func blockSum(rows []uint64) (sum uint64) {
	for _, row := range rows {
		sum = sum*blockBase + row
	}
	return sum
}

// rowSums returns a hash of the targets of each row, as float32: formats differ in the
// digits that they keep. Where these follow from drivers, such as a countdown, they
// may be alike in different series, so the drivers are hashed as well.
func (f *frame) rowSums() []uint64 {
	sums, columns := make([]uint64, f.end), f.raw
	if f.driven {
		columns = slices.Concat(f.raw, f.rawPast, f.rawAhead)
	}
	for i := range sums {
		for _, column := range columns {
			x := uint64(0x7fc00000)
			if v := column[i]; !math.IsNaN(v) {
				x = uint64(math.Float32bits(simd.Narrow(v)))
			}
			x = (sums[i] + x + 1) * blockBase
			sums[i] = x ^ x>>29
		}
	}
	return sums
}

// Remembers reports whether the model knows which rows it was trained on: not one that
// an older version saved.
func (m *Model) Remembers() bool { return m.learnt != nil }

// Recognise counts the rows of a table by the parts of the model's training. The error
// is one of a table that does not fit the model.
func (m *Model) Recognise(_ context.Context, d task.Data) error {
	of := d.(*Data)
	frames, _, err := rawFrames(of.Panel, &m.cfg)
	if err != nil {
		return err
	}
	if err := m.divide(frames); err != nil {
		return err
	}
	of.count(frames)
	return nil
}

// divide divides frames into the parts of training.
func (m *Model) divide(frames []*frame) error {
	if !m.Remembers() {
		return divide(m.cfg.Split, frames)
	}
	for _, f := range frames {
		f.recognise(m.learnt[f.id], &m.schema.Clocks)
	}
	return nil
}

// scoredOf describes the scoring of a part of frames that are divided.
func scoredOf(part task.Part, frames []*frame) task.Scored {
	var d Data
	d.count(frames)
	none := -d.rows[trainPart] - d.rows[validationPart] - d.rows[testPart]
	for _, f := range frames {
		none += f.end
	}
	return task.NewScored(part, d.rows[trainPart], d.rows[validationPart], d.rows[testPart], none)
}

// count sets the numbers of rows by part.
func (d *Data) count(frames []*frame) {
	d.rows, d.parts = [3]int{}, map[*data.Series]parts{}
	for _, f := range frames {
		d.parts[f.series] = f.part
		for part := range d.rows {
			d.rows[part] += f.part[part].len()
		}
	}
}

// Shared returns how many rows of a part of the table are also in a part of another table: those of a series of
// the same name with the same time and values. Without times they are those that end the same rows as a block has.
func (d *Data) Shared(part task.Part, other task.Data, otherPart task.Part) (n int) {
	its := map[string]bool{}
	other.(*Data).each(otherPart, d.Panel.Columns, func(row string) { its[row] = true })
	d.each(part, d.Panel.Columns, func(row string) {
		if its[row] {
			n++
		}
	})
	return n
}

// each calls visit with what identifies each row of a part: its series, and its time and values in the columns.
func (d *Data) each(part task.Part, columns []string, visit func(row string)) {
	for _, s := range d.Panel.Series {
		at := span{0, s.Len()}
		if i := slices.Index(partNames, part); i >= 0 {
			at = d.parts[s][i]
		}
		rows := make([]string, s.Len())
		for i := range rows {
			for _, name := range columns {
				if c := d.Panel.Column(name); c >= 0 {
					rows[i] += fmt.Sprintf(" %g", simd.Narrow(s.Values[c][i]))
				}
			}
		}
		for i := at.lo; i < at.hi; i++ {
			if s.Time != nil {
				visit(fmt.Sprint(s.ID, s.Time[i].UnixNano(), rows[i]))
			} else if i >= leastBlock {
				visit(fmt.Sprint(s.ID, rows[i-leastBlock:i+1]))
			}
		}
	}
}
