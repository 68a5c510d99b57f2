package train

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"time"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/tensor"
)

// bucketSize is the number of gradients after which a bucket is full, and the most that
// one call of the World adds: 1 MB, which takes a network much longer than its latency,
// and is little beside a large layer. With many ranks it is 16 KB for each of them, since
// shares that are shorter cost the processor more than the link (docs/scaling.md).
func bucketSize(ranks int) int { return max(1<<18, ranks<<12) }

// reducer adds the gradients of all ranks while the backward pass goes on: a goroutine
// of its own sums a bucket of parameters as soon as all of them are ready, in an order
// that is the same on all ranks. Only the goroutine that trains calls the device.
type reducer struct {
	slab     *tensor.Slab
	world    World
	size     int  // of a bucket
	compress bool // Run.Compress
	timeline *Timeline

	buckets []bucket
	of      []int // by parameter: its bucket
	at      map[int]int
	next    int  // the bucket that will be handed over next
	idle    bool // this rank has no batch in this step
	settled bool // the order of the buckets is that of rank 0's first step
	seen    []int

	todo    chan int // buckets, in order
	done    chan struct{}
	ended   chan struct{}
	err     error         // of the World; read after done
	exposed time.Duration // of the last step: from the end of the pass to the last sum
}

// bucket is parameters whose gradients travel together.
type bucket struct {
	name    string
	params  []int     // in the slab's order
	v       []float32 // the gradients
	copied  bool      // v is a copy in host memory; else it is the slab's own
	lost    []float32 // the residual of World.Sum; nil unless compressed
	missing int       // parameters that are not ready in this step
	table   *table    // of a bucket that is one table of which a batch touches few rows
}

// newReducer returns the reducer of a slab, which does nothing before start.
func newReducer(slab *tensor.Slab, o *Options) *reducer {
	r := &reducer{slab: slab, world: o.world(), size: o.bucket, compress: o.Compress, timeline: o.Timeline, of: make([]int, len(slab.Params)), at: map[int]int{}}
	if r.size == 0 {
		r.size = bucketSize(r.world.Size())
	}
	order := make([]int, len(slab.Params))
	for i := range order {
		order[len(order)-1-i] = i
		lo, _ := slab.Range(i)
		r.at[lo] = i
	}
	r.layOut(order)
	return r
}

// layOut divides the parameters into buckets, in the order in which they become ready.
func (r *reducer) layOut(order []int) {
	var lists [][]int
	room := 0 // in the last list
	for _, i := range order {
		p := r.slab.Params[i]
		apart := r.travelsByRow(p)
		if apart || room <= 0 {
			lists = append(lists, nil)
			room = r.size
		}
		last := len(lists) - 1
		lists[last] = append(lists[last], i)
		if room -= p.Len(); apart {
			room = 0
		}
	}
	r.buckets = make([]bucket, len(lists))
	for k, params := range lists {
		slices.Sort(params)
		b := &r.buckets[k]
		b.params = params
		first, last := params[0], params[len(params)-1]
		lo, _ := r.slab.Range(first)
		_, hi := r.slab.Range(last)
		own := r.slab.Grads().Slice(lo, hi)
		if last-first+1 == len(params) && own.InHost() {
			b.v = own.View()
		} else {
			n := 0
			for _, i := range params {
				n += r.slab.Params[i].Len()
			}
			b.v, b.copied = make([]float32, n), true
		}
		if r.compress {
			b.lost = make([]float32, len(b.v))
		}
		p := r.slab.Params[first]
		b.name = "sum " + p.Name
		if n := len(params) - 1; n > 0 {
			b.name += fmt.Sprintf(" and %d more", n)
		}
		if len(params) == 1 && r.travelsByRow(p) {
			b.table = newTable(p, r.world.Size())
		}
		for _, i := range params {
			r.of[i] = k
		}
	}
}

// start begins the goroutine that sums.
func (r *reducer) start() {
	// A bucket has at least one parameter, so a send never waits.
	r.todo, r.done, r.ended = make(chan int, len(r.slab.Params)), make(chan struct{}, 1), make(chan struct{})
	go r.work()
}

// stop ends the goroutine. After an error the World must have been aborted, so that no
// sum waits for other ranks.
func (r *reducer) stop() {
	if r != nil && r.todo != nil {
		close(r.todo)
		<-r.ended
	}
}

// begin starts a step, before its last backward pass.
func (r *reducer) begin() {
	r.next, r.idle = 0, false
	for i := range r.buckets {
		b := &r.buckets[i]
		b.missing = len(b.params)
	}
}

// ready says that the gradient at lo of the slab's is complete on this rank, and hands
// over what has become complete by that.
func (r *reducer) ready(lo int) {
	i := r.at[lo]
	if !r.settled {
		r.seen = append(r.seen, i)
	}
	b := &r.buckets[r.of[i]]
	if b.copied {
		r.move(b, i, r.slab.Device().Backend().Download)
	}
	b.missing--
	for r.next < len(r.buckets) && r.buckets[r.next].missing == 0 {
		r.todo <- r.next
		r.next++
	}
}

// move copies a parameter's gradient between the device and the bucket.
func (r *reducer) move(b *bucket, param int, do func(host []float32, on device.Buffer)) {
	from := 0
	for _, i := range b.params {
		lo, hi := r.slab.Range(i)
		if i == param {
			do(b.v[from:from+hi-lo], r.slab.Grads().Slice(lo, hi))
			return
		}
		from += hi - lo
	}
}

// nothing is what a rank without a batch adds: -0, which changes no number,
// while 0 would change -0.
var nothing = float32(math.Copysign(0, -1))

// finish waits for the sums of all ranks and leaves them in the slab's gradients.
func (r *reducer) finish() error {
	from := time.Now()
	<-r.done
	r.exposed = time.Since(from)
	r.timeline.span(trackTraining, "wait for sums", from)
	if r.err != nil {
		return r.err
	}
	backend := r.slab.Device().Backend()
	for i := range r.buckets {
		b := &r.buckets[i]
		for _, p := range b.params {
			if b.copied {
				r.move(b, p, func(host []float32, on device.Buffer) { backend.Upload(on, host) })
			}
		}
	}
	if r.settled {
		return nil
	}
	return r.settle()
}

// settle orders the buckets as rank 0 saw the parameters become ready in the first step.
func (r *reducer) settle() error {
	var own []byte
	if r.world.Rank() == 0 {
		for _, i := range r.seen {
			own = binary.LittleEndian.AppendUint32(own, uint32(i))
		}
	}
	all, err := r.world.Share(own)
	if err != nil {
		return err
	}
	var order []int
	for text := all[0]; len(text) >= 4; text = text[4:] {
		order = append(order, int(binary.LittleEndian.Uint32(text)))
	}
	for i, p := range slices.Sorted(slices.Values(order)) {
		if i != p {
			order = nil
			break
		}
	}
	if len(order) != len(r.slab.Params) {
		return fmt.Errorf("train: rank 0 names other parameters than the %d of this rank: start all ranks alike", len(r.slab.Params))
	}
	r.settled, r.seen = true, nil
	r.layOut(order)
	return nil
}

// forget clears what rounding lost, after a step whose gradient was not finite: that of an
// infinity is not a number.
func (r *reducer) forget() {
	if r != nil {
		for _, b := range r.buckets {
			clear(b.lost)
		}
	}
}

func (r *reducer) work() {
	defer close(r.ended)
	for i := range r.todo {
		if r.err == nil {
			from := r.timeline.now()
			r.err = r.sum(&r.buckets[i])
			r.timeline.span(trackSums, r.buckets[i].name, from)
		}
		if i == len(r.buckets)-1 {
			r.done <- struct{}{}
		}
	}
}

// sum adds a bucket's gradients of all ranks.
func (r *reducer) sum(b *bucket) error {
	if b.table != nil {
		return r.sumTable(b)
	}
	return r.sumParts(b.v, b.lost)
}

func (r *reducer) sumParts(v, lost []float32) error {
	most := bucketSize(r.world.Size())
	for lo := 0; lo < len(v); lo += most {
		hi := min(lo+most, len(v))
		var residual []float32
		if lost != nil {
			residual = lost[lo:hi]
		}
		if err := r.world.Sum(v[lo:hi], residual); err != nil {
			return err
		}
	}
	return nil
}

// A table is a parameter of which a batch touches few rows. Only rows that some rank
// touched travel: those with a bit other than those of +0, which is what the sum of the
// others is.
type table struct {
	rows, width int
	own         []float64 // this rank's rows, 32 to a number, as bits
	all         []float64 // of all ranks
	union       []uint32
	v, lost     []float32 // the rows that travel
}

const rowsPerNumber = 32

// travelsByRow reports whether p is a table that is worth asking which rows were touched.
func (r *reducer) travelsByRow(p *tensor.Param) bool { return p.Rows && p.Len() >= r.size/16 }

func newTable(p *tensor.Param, ranks int) *table {
	t := &table{rows: p.Dim(0), width: p.Len() / p.Dim(0)}
	n := (t.rows + rowsPerNumber - 1) / rowsPerNumber
	t.own, t.all, t.union = make([]float64, n), make([]float64, n*ranks), make([]uint32, n)
	return t
}

func (r *reducer) sumTable(b *bucket) error {
	t := b.table
	for i := range t.own {
		t.own[i] = 0
		if !r.idle {
			t.own[i] = float64(t.touched(i, b.v))
		}
	}
	if err := r.world.Gather(t.own, t.all); err != nil {
		return err
	}
	n := 0
	for i := range t.union {
		t.union[i] = 0
		for from := i; from < len(t.all); from += len(t.own) {
			t.union[i] |= uint32(t.all[from])
		}
		n += bits.OnesCount32(t.union[i])
	}
	if 2*n > t.rows {
		return r.sumParts(b.v, b.lost)
	}
	t.v = t.pack(t.v, b.v, n)
	if b.lost != nil {
		t.lost = t.pack(t.lost, b.lost, n)
	}
	if err := r.sumParts(t.v, t.lost); err != nil {
		return err
	}
	if r.idle {
		clear(b.v)
	}
	t.unpack(b.v, t.v)
	if b.lost != nil {
		t.unpack(b.lost, t.lost)
	}
	return nil
}

// touched returns which of the 32 rows from 32·i on have a bit other than those of +0.
func (t *table) touched(i int, v []float32) (rows uint32) {
	for bit := range min(rowsPerNumber, t.rows-i*rowsPerNumber) {
		row := (i*rowsPerNumber + bit) * t.width
		for _, x := range v[row : row+t.width] {
			if math.Float32bits(x) != 0 {
				rows |= 1 << bit
				break
			}
		}
	}
	return rows
}

// each calls f with the rows that travel, in their order.
func (t *table) each(f func(row int)) {
	for i, rows := range t.union {
		for ; rows != 0; rows &= rows - 1 {
			f(i*rowsPerNumber + bits.TrailingZeros32(rows))
		}
	}
}

// pack copies the n rows that travel to dst.
func (t *table) pack(dst, v []float32, n int) []float32 {
	dst = slices.Grow(dst[:0], n*t.width)
	t.each(func(row int) { dst = append(dst, v[row*t.width:(row+1)*t.width]...) })
	return dst
}

// unpack copies them back.
func (t *table) unpack(v, packed []float32) {
	t.each(func(row int) { packed = packed[copy(v[row*t.width:(row+1)*t.width], packed):] })
}
