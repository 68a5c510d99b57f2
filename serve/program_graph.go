package serve

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/model/onnx/graph"
	"github.com/carousel-ml/carousel/serve/batch"
	"github.com/carousel-ml/carousel/serve/inference"
)

// graphProgram serves an ONNX graph. If its batch dimension is free, which trial runs
// confirm, rows of many jobs are one run: the state of a session is a row that is
// gathered before and scattered after it.
type graphProgram struct {
	m           *graph.Model
	fingerprint string
	ins, outs   []inference.Info
	infoIn      []graph.ValueInfo
	from        []int // for each output the input that takes it as a state, -1: none
	batched     bool
	inAxis      []int // of the batch, -1: all rows share the input
	outAxis     []int
	outRank     []int // of the outputs in the trial runs
	sharing     bool  // some input has no batch dimension
	tried       verdicts
	closing     context.Context // ends with the program
	close       context.CancelFunc
	cells       []int // for each input that is a state its elements in one row
	offset      []int // of each state in a session's memory
	size        int   // of a session's memory
	scratch     sync.Pool
}

// datatypes are the protocol's types by the graph's.
var datatypes = map[string]inference.Datatype{
	"float32": inference.FP32, "float16": inference.FP16, "bfloat16": inference.BF16, "float64": inference.FP64,
	"uint8": inference.UINT8, "uint16": inference.UINT16, "uint32": inference.UINT32, "uint64": inference.UINT64,
	"int8": inference.INT8, "int16": inference.INT16, "int32": inference.INT32, "int64": inference.INT64, "bool": inference.BOOL,
}

// graphOptions say what a graph does not.
type graphOptions struct {
	states  map[string]string // as of graph.SessionOptions
	noBatch bool              // rows are never computed together
	labels  map[string][]string
}

// newGraphProgram returns the program of a graph.
func newGraphProgram(m *graph.Model, fingerprint string, o graphOptions) (*graphProgram, error) {
	p := &graphProgram{m: m, fingerprint: fingerprint, infoIn: m.Inputs()}
	p.closing, p.close = context.WithCancel(context.Background())
	pairs, err := graph.StatePairs(p.infoIn, m.Outputs(), o.states)
	if err != nil {
		return nil, err
	}
	info := func(v graph.ValueInfo) (inference.Info, error) {
		t, ok := datatypes[v.Type]
		if !ok {
			return inference.Info{}, fmt.Errorf("%v: the protocol has no type for its elements", v)
		}
		n := inference.Info{Name: v.Name, Datatype: t, Dims: []int{}, Labels: o.labels[v.Name]}
		for _, d := range v.Dims {
			n.Dims = append(n.Dims, d.Size)
		}
		return n, nil
	}
	for _, v := range p.infoIn {
		n, err := info(v)
		if err != nil {
			return nil, err
		}
		n.State = slices.ContainsFunc(pairs, func(s graph.StatePair) bool { return s.Input == v.Name })
		p.ins = append(p.ins, n)
	}
	for _, v := range m.Outputs() {
		n, err := info(v)
		if err != nil {
			return nil, err
		}
		at := -1
		for _, s := range pairs {
			if s.Output == v.Name {
				n.State = true
				at = slices.IndexFunc(p.ins, func(i inference.Info) bool { return i.Name == s.Input })
			}
		}
		p.outs, p.from = append(p.outs, n), append(p.from, at)
	}
	if !o.noBatch {
		p.batched = p.findBatch()
	}
	return p, nil
}

func (p *graphProgram) Inputs() []inference.Info  { return p.ins }
func (p *graphProgram) Outputs() []inference.Info { return p.outs }
func (p *graphProgram) Platform() string          { return "onnx_onnxv1" }
func (p *graphProgram) Batched() bool             { return p.batched }
func (p *graphProgram) Fingerprint() string       { return p.fingerprint }
func (p *graphProgram) Close()                    { p.close() }

// stateful reports whether the graph has states.
func (p *graphProgram) stateful() bool {
	return slices.ContainsFunc(p.ins, func(i inference.Info) bool { return i.State })
}

// graphKey is the key of a graph's jobs.
type graphKey struct {
	free   string // sizes of dimensions besides the batch
	shared valueHash
}

// valueHash is a hash of the inputs that have no batch dimension: rows that share them are
// computed together, and the values themselves may be large.
type valueHash [sha256.Size]byte

var noKey any = graphKey{}

// Check compares a job's inputs with the graph's.
func (p *graphProgram) Check(j *batch.Job) error {
	j.Rows, j.Cost, j.Alike = 0, 0, 0
	var free []byte
	for i := range p.ins {
		in, v := &p.ins[i], &j.Inputs[i]
		if err := p.checkInput(i, v); err != nil {
			return err
		}
		if v.Dims == nil {
			continue
		}
		if in.State && j.Session != nil {
			return inference.Errorf(inference.Invalid, "input %q is a state, which the session keeps; leave it out, or send the request without a session", in.Name)
		}
		if !p.batched {
			j.Cost += float64(v.Len())
			continue
		}
		axis := p.inAxis[i]
		for k, d := range v.Dims {
			switch {
			case k == axis:
				if d < 1 || j.Rows > 0 && j.Rows != d {
					return inference.Errorf(inference.Invalid, "input %v: shape %v has %d rows in its batch dimension; expected %s", p.infoIn[i], v.Dims, d, rowsText(j.Rows))
				}
				j.Rows = d
			case p.infoIn[i].Any || p.infoIn[i].Dims[k].Size < 0:
				free = binary.AppendUvarint(free, uint64(i)<<8|uint64(k))
				free = binary.AppendUvarint(free, uint64(d))
			}
		}
		if !in.State {
			j.Cost += float64(v.Len())
		}
	}
	j.Cost = max(1, j.Cost)
	switch {
	case !p.batched:
		j.Rows = 1
		return nil
	case j.Rows == 0:
		j.Rows = 1 // nothing but states and shared inputs
	case j.Session != nil && j.Rows != 1:
		return inference.Errorf(inference.Invalid, "a request of a session has one row, got %d; open a session for each", j.Rows)
	}
	if j.Key = noKey; free != nil || p.sharing {
		j.Key = graphKey{string(free), p.hashShared(j.Inputs)}
	}
	return nil
}

// checkInput checks one input, whatever the others are.
func (p *graphProgram) checkInput(i int, v *inference.Value) error {
	switch {
	case v.Dims == nil && !p.ins[i].State:
		return inference.Errorf(inference.Invalid, "input %q is missing; the model needs %v", p.ins[i].Name, p.infoIn)
	case v.Dims != nil && !p.infoIn[i].Fits(v.Dims, map[string]int{}):
		return inference.Errorf(inference.Invalid, "input %v: shape %v does not fit", p.infoIn[i], v.Dims)
	}
	if at := slices.IndexFunc(v.Doubles, beyondFloat32); at >= 0 {
		return inference.Errorf(inference.Invalid, "input %v: element %d is %g, outside the range of float32, in which the model computes", p.infoIn[i], at, v.Doubles[at])
	}
	return nil
}

// beyondFloat32 reports whether a finite number would be infinite.
func beyondFloat32(x float64) bool {
	return math.IsInf(float64(float32(x)), 0) && !math.IsInf(x, 0)
}

func rowsText(rows int) string {
	if rows == 0 {
		return "at least 1"
	}
	return fmt.Sprintf("%d as in the inputs before it", rows)
}

// hashShared returns the hash of the inputs that have no batch dimension, zeros if there are none.
func (p *graphProgram) hashShared(inputs []inference.Value) (sum valueHash) {
	if !p.sharing {
		return sum
	}
	h := sha256.New()
	b := make([]byte, 0, 4096)
	add := func(bits uint64) {
		if len(b) == cap(b) {
			h.Write(b)
			b = b[:0]
		}
		b = binary.LittleEndian.AppendUint64(b, bits)
	}
	for i, axis := range p.inAxis {
		if axis >= 0 {
			continue
		}
		v := &inputs[i]
		add(uint64(len(v.Dims)))
		for _, d := range v.Dims {
			add(uint64(d))
		}
		for _, x := range v.Floats {
			add(uint64(math.Float32bits(x)))
		}
		for _, x := range v.Doubles {
			add(math.Float64bits(x))
		}
		for _, x := range v.Ints {
			add(uint64(x))
		}
	}
	h.Write(b)
	h.Sum(sum[:0])
	return sum
}

// verdicts are the values of inputs without a batch dimension for which it is known whether
// rows are independent of each other. Such an input may decide what is computed, as the axis of
// a sum does, which may be the rows' own.
type verdicts struct {
	mu    sync.Mutex
	known map[valueHash]bool
	busy  bool // a value is being tried
}

const (
	mostVerdicts = 256
	trialTime    = 10 * time.Second // after which rows with the value are not computed together
)

func (v *verdicts) note(sum valueHash, independent bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.known == nil {
		v.known = map[valueHash]bool{}
	}
	if len(v.known) >= mostVerdicts {
		for some := range v.known {
			delete(v.known, some)
			break
		}
	}
	v.known[sum] = independent
}

// independent reports whether jobs with the key of j may be computed together. A value that is
// not known is tried, one at a time beside the requests, which are computed one by one until
// its verdict is there; so are those that are too large for a trial.
func (p *graphProgram) independent(j *batch.Job) bool {
	if !p.sharing {
		return true
	}
	sum := j.Key.(graphKey).shared
	p.tried.mu.Lock()
	defer p.tried.mu.Unlock()
	if yes, known := p.tried.known[sum]; known || p.tried.busy || j.Cost > float64(mostTrial) {
		return yes
	}
	p.tried.busy = true
	like := p.rowOf(j)
	go func() {
		yes := p.try(like)
		p.tried.note(sum, yes)
		p.tried.mu.Lock()
		p.tried.busy = false
		p.tried.mu.Unlock()
	}()
	return false
}

// rowOf copies a job's first row, to make others like it.
func (p *graphProgram) rowOf(j *batch.Job) []inference.Value {
	like := make([]inference.Value, len(p.ins))
	for i := range like {
		v, axis := &j.Inputs[i], p.inAxis[i]
		switch {
		case axis < 0:
			like[i] = inference.Value{Dims: slices.Clone(v.Dims), Floats: slices.Clone(v.Floats), Doubles: slices.Clone(v.Doubles), Ints: slices.Clone(v.Ints)}
			continue
		case v.Dims == nil: // a state
			like[i].Dims = slices.Clone(p.ins[i].Dims)
		default:
			like[i].Dims = slices.Clone(v.Dims)
		}
		like[i].Dims[axis] = 1
		if l := layoutOf(like[i].Dims, axis); p.ins[i].Datatype.Kind() == inference.Ints {
			like[i].Ints = make([]int64, l.outer*l.inner)
			if v.Dims != nil {
				copyRows(like[i].Ints, l, 0, v.Ints, l.of(v.Dims[axis]), 0, 1)
			}
		}
	}
	return like
}

// try reports whether rows like one, with its values of inputs without a batch dimension, are
// independent and their outputs lie as in the trial runs when the graph was opened.
func (p *graphProgram) try(like []inference.Value) (yes bool) {
	ctx, stop := context.WithTimeout(p.closing, trialTime)
	defer stop()
	defer func() {
		if recover() != nil { // what the requests run into as well, if it is theirs
			yes = false
		}
	}()
	r := rand.New(rand.NewPCG(1, 2))
	jobs := p.rowsLike(r, like)
	axes, ranks, fits, ok := p.lie(ctx, jobs)
	return fits && ok && slices.Equal(axes, p.outAxis) && slices.Equal(ranks, p.outRank) &&
		p.agree(ctx, jobs) && p.unmoved(ctx, jobs, func() *batch.Job { return p.row(r, like) }) && ctx.Err() == nil
}

// Run computes jobs together. If that fails, or may be wrong, each is computed alone, so that
// one request does not change the answer of another.
func (p *graphProgram) Run(ctx context.Context, jobs []*batch.Job) {
	if !p.batched {
		for _, j := range jobs {
			j.Err = p.single(ctx, j)
		}
		return
	}
	var err error
	if first := jobs[0]; (len(jobs) > 1 || padded(first.Rows) > first.Rows) && p.independent(first) {
		if err = p.together(ctx, jobs); err == nil {
			return
		}
		if errors.Is(err, errUneven) && p.sharing {
			p.tried.note(first.Key.(graphKey).shared, false)
		}
	}
	for _, j := range jobs {
		if j.Err = invalid(err); err == nil || ctx.Err() == nil {
			j.Err = invalid(p.alone(ctx, j))
		}
	}
}

// invalid is a graph's error as the client's, who is not told where the server has the file.
func invalid(err error) error {
	if known := (*inference.Error)(nil); err == nil || errors.As(err, &known) {
		return err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return inference.AsError(err)
	}
	if file := (*model.FileError)(nil); errors.As(err, &file) {
		without := *file
		without.File = filepath.Base(file.File)
		err = &without
	}
	return inference.Errorf(inference.Invalid, "%v", err)
}

// refused, deferred, makes an error of a panic with one, by which memory is refused to a run
// before it has changed a state.
func refused(err *error) {
	switch p := recover().(type) {
	case nil:
	case *inference.Error:
		*err = p
	default:
		panic(p)
	}
}

// padded returns the rows that a batch is filled up to, so that there are few sizes for
// which the graph's run is recorded.
func padded(rows int) int {
	if rows <= 8 {
		return rows
	}
	step := 2
	for rows > 8*step {
		step *= 2
	}
	return (rows + step - 1) / step * step
}

// room is the memory of a batch's inputs.
type room struct{ in []graph.Value }

// errUneven says that a batch's outputs are not the rows of its jobs.
var errUneven = errors.New("the outputs of a batch do not lie as in the trial runs")

func grown[T any](v []T, n int) []T {
	if cap(v) < n {
		return make([]T, n)
	}
	return v[:n]
}

// together runs jobs as one batch.
func (p *graphProgram) together(ctx context.Context, jobs []*batch.Job) error {
	used := 0
	for _, j := range jobs {
		used += j.Rows
	}
	rows := padded(used)
	return p.apply(ctx, jobs, rows, func(outs []graph.Value) error {
		for o := range outs {
			if axis := p.outAxis[o]; len(outs[o].Dims) != p.outRank[o] || axis >= 0 && outs[o].Dims[axis] != rows {
				return errUneven
			}
		}
		if err := p.checkStates(outs, rows); err != nil {
			return err
		}
		all := make([]inference.Value, len(jobs)*len(outs))
		for k, j := range jobs {
			j.Outputs = all[k*len(outs) : (k+1)*len(outs) : (k+1)*len(outs)]
		}
		for o := range outs {
			p.scatter(o, &outs[o], jobs, used)
		}
		return nil
	})
}

// alone runs one job, whose outputs are all that the graph gives.
func (p *graphProgram) alone(ctx context.Context, j *batch.Job) error {
	return p.apply(ctx, []*batch.Job{j}, j.Rows, func(outs []graph.Value) error {
		if j.State() != nil {
			if err := p.checkStates(outs, j.Rows); err != nil {
				return err
			}
		}
		j.Outputs = make([]inference.Value, len(outs))
		for o := range outs {
			if j.Wanted(o, &p.outs[o]) {
				j.Outputs[o] = p.part(o, &outs[o], -1, 0, 0)
			}
		}
		return nil
	})
}

// apply runs the graph on the rows of jobs. The states of sessions change last, when nothing can
// fail any more.
func (p *graphProgram) apply(ctx context.Context, jobs []*batch.Job, rows int, give func(outs []graph.Value) error) (err error) {
	defer refused(&err)
	b, _ := p.scratch.Get().(*room)
	if b == nil {
		b = &room{in: make([]graph.Value, len(p.ins))}
	}
	defer func() {
		for i, axis := range p.inAxis {
			if axis < 0 { // the elements are the request's own
				b.in[i].Data, b.in[i].Ints = nil, nil
			}
		}
		p.scratch.Put(b)
	}()
	for i := range p.ins {
		p.gather(&b.in[i], i, jobs, rows)
	}
	var wrong error
	err = p.m.Apply(ctx, b.in, func(outs []graph.Value) {
		if wrong = give(outs); wrong != nil {
			return
		}
		for o := range outs {
			p.keep(o, &outs[o], jobs)
		}
	})
	return cmp.Or(err, wrong)
}

// rowLayout is how the rows of a batch lie in a tensor: in each of outer parts, rows of inner
// elements.
type rowLayout struct{ outer, rows, inner int }

// layoutOf returns the layout for a batch dimension; without one, -1, all is one row.
func layoutOf(dims []int, axis int) rowLayout {
	l := rowLayout{1, 1, 1}
	for k, d := range dims {
		switch {
		case k < axis:
			l.outer *= d
		case k == axis:
			l.rows = d
		default:
			l.inner *= d
		}
	}
	return l
}

// of returns the layout of other rows of the same size.
func (l rowLayout) of(rows int) rowLayout { return rowLayout{l.outer, rows, l.inner} }

// copyRows copies n rows from src, from row from on, to dst, from row at on.
func copyRows[T any](dst []T, to rowLayout, at int, src []T, l rowLayout, from, n int) {
	for k := range l.outer {
		copy(dst[(k*to.rows+at)*l.inner:][:n*l.inner], src[(k*l.rows+from)*l.inner:])
	}
}

// gather makes input i of a batch of the jobs' rows; those after them repeat the last row.
func (p *graphProgram) gather(to *graph.Value, i int, jobs []*batch.Job, rows int) {
	in, axis := &p.ins[i], p.inAxis[i]
	first := &jobs[0].Inputs[i]
	if axis < 0 {
		*to = graph.Value{Dims: append(to.Dims[:0], first.Dims...)}
		to.Data, to.Ints = floatsOf(first), first.Ints
		return
	}
	to.Dims = to.Dims[:0]
	if first.Dims != nil {
		to.Dims = append(to.Dims, first.Dims...)
	} else {
		for _, d := range in.Dims {
			to.Dims = append(to.Dims, max(d, 1))
		}
	}
	to.Dims[axis] = rows
	l := layoutOf(to.Dims, axis)
	size := l.outer * l.rows * l.inner
	if p.infoIn[i].IsFloat() {
		to.Data, to.Ints = grown(to.Data, size), nil
		gatherRows(to.Data, l, jobs, func(j *batch.Job) []float32 {
			if st, _ := j.State().(*rowState); st != nil && j.Inputs[i].Dims == nil {
				return st.floats[p.offset[i]:][:p.cells[i]]
			}
			return floatsOf(&j.Inputs[i])
		})
		return
	}
	to.Ints, to.Data = grown(to.Ints, size), nil
	gatherRows(to.Ints, l, jobs, func(j *batch.Job) []int64 {
		if st, _ := j.State().(*rowState); st != nil && j.Inputs[i].Dims == nil {
			return st.ints[p.offset[i]:][:p.cells[i]]
		}
		return j.Inputs[i].Ints
	})
}

// gatherRows fills a tensor with the rows of jobs; of returns those of one, nil for zeros.
func gatherRows[T any](to []T, l rowLayout, jobs []*batch.Job, of func(*batch.Job) []T) {
	at := 0
	for _, j := range jobs {
		if own := of(j); own != nil {
			copyRows(to, l, at, own, l.of(j.Rows), 0, j.Rows)
		} else {
			for k := range l.outer {
				clear(to[(k*l.rows+at)*l.inner:][:j.Rows*l.inner])
			}
		}
		at += j.Rows
	}
	for ; at < l.rows; at++ {
		copyRows(to, l, at, to, l, at-1, 1)
	}
}

// floatsOf returns the elements of a value of floats.
func floatsOf(v *inference.Value) []float32 {
	if v.Doubles != nil {
		return narrowed(v.Doubles)
	}
	return v.Floats
}

func narrowed(v []float64) []float32 {
	out := make([]float32, len(v))
	for i, x := range v {
		out[i] = float32(x)
	}
	return out
}

// scatter gives output o of a batch to the jobs that want it.
func (p *graphProgram) scatter(o int, v *graph.Value, jobs []*batch.Job, used int) {
	axis := p.outAxis[o]
	l := layoutOf(v.Dims, axis)
	// Jobs share one copy of their rows, and those of one row the shape: this is most of
	// what a small step costs beside its arithmetic.
	var block []float32
	var one []int
	at := 0
	for _, j := range jobs {
		switch {
		case !j.Wanted(o, &p.outs[o]):
		case l.outer == 1 && axis >= 0 && v.Ints == nil && p.outs[o].Datatype != inference.FP64 && len(jobs) > 1:
			if block == nil {
				block = slices.Clone(v.Data[:used*l.inner])
			}
			j.Outputs[o] = inference.Value{Dims: one, Floats: block[at*l.inner : (at+j.Rows)*l.inner : (at+j.Rows)*l.inner]}
			if j.Rows != 1 || one == nil {
				j.Outputs[o].Dims = slices.Clone(v.Dims)
				j.Outputs[o].Dims[axis] = j.Rows
			}
			if j.Rows == 1 {
				one = j.Outputs[o].Dims
			}
		default:
			j.Outputs[o] = p.part(o, v, axis, at, j.Rows)
		}
		at += j.Rows
	}
}

// part copies rows of an output; all of it without a batch dimension.
func (p *graphProgram) part(o int, v *graph.Value, axis, at, rows int) inference.Value {
	out := inference.Value{Dims: append([]int{}, v.Dims...)}
	l := layoutOf(v.Dims, axis)
	if axis < 0 {
		at, rows = 0, 1
	} else {
		out.Dims[axis] = rows
	}
	own := l.of(rows)
	n := own.outer * own.rows * own.inner
	if v.Ints != nil {
		out.Ints = make([]int64, n)
		copyRows(out.Ints, own, 0, v.Ints, l, at, rows)
		return out
	}
	out.Floats = make([]float32, n)
	copyRows(out.Floats, own, 0, v.Data, l, at, rows)
	if p.outs[o].Datatype == inference.FP64 {
		out.Doubles = make([]float64, n)
		for i, x := range out.Floats {
			out.Doubles[i] = float64(x)
		}
		out.Floats = nil
	}
	return out
}

// checkStates reports an output of a batch that does not fit the state that takes it.
func (p *graphProgram) checkStates(outs []graph.Value, rows int) error {
	for o, i := range p.from {
		if i < 0 {
			continue
		}
		l := layoutOf(outs[o].Dims, p.outAxis[o])
		if n := l.outer * l.inner; n != p.cells[i] || l.rows != rows {
			return inference.Errorf(inference.Invalid, "output %q has %d rows of %d elements, and the state %q that takes it needs %d of %d", p.outs[o].Name, l.rows, n, p.ins[i].Name, rows, p.cells[i])
		}
	}
	return nil
}

// keep copies output o of a batch to the states of sessions that take it.
func (p *graphProgram) keep(o int, v *graph.Value, jobs []*batch.Job) {
	i := p.from[o]
	if i < 0 {
		return
	}
	l, at := layoutOf(v.Dims, p.outAxis[o]), 0
	for _, j := range jobs {
		if st, _ := j.State().(*rowState); st != nil && v.Ints == nil {
			copyRows(st.floats[p.offset[i]:], l.of(1), 0, v.Data, l, at, 1)
		} else if st != nil {
			copyRows(st.ints[p.offset[i]:], l.of(1), 0, v.Ints, l, at, 1)
		}
		at += j.Rows
	}
}

// single runs a job of a graph whose rows are not computed together.
func (p *graphProgram) single(ctx context.Context, j *batch.Job) (err error) {
	defer refused(&err)
	in := map[string]graph.Value{}
	for i := range p.ins {
		v := &j.Inputs[i]
		if v.Dims == nil {
			continue
		}
		in[p.ins[i].Name] = graph.Value{Dims: v.Dims, Data: floatsOf(v), Ints: v.Ints}
	}
	var out map[string]graph.Value
	switch st, _ := j.State().(*graphState); {
	case st != nil:
		out, err = st.s.StepContext(ctx, in)
	default: // states that are given are the first
		var s *graph.Session
		if s, err = p.session(); err == nil {
			given := map[string]graph.Value{}
			for i := range p.ins {
				if name := p.ins[i].Name; p.ins[i].State {
					if v, ok := in[name]; ok {
						given[name] = v
						delete(in, name)
					}
				}
			}
			if err = s.SetState(given); err == nil {
				out, err = s.StepContext(ctx, in)
			}
		}
	}
	if err != nil {
		return invalid(err)
	}
	j.Outputs = make([]inference.Value, len(p.outs))
	for o := range p.outs {
		if v := out[p.outs[o].Name]; j.Wanted(o, &p.outs[o]) {
			j.Outputs[o] = p.part(o, &v, -1, 0, 0)
		}
	}
	return nil
}

func (p *graphProgram) session() (*graph.Session, error) {
	pairs := map[string]string{}
	for o, i := range p.from {
		if i >= 0 {
			pairs[p.ins[i].Name] = p.outs[o].Name
		}
	}
	for _, in := range p.ins {
		if !in.State {
			pairs[in.Name] = ""
		}
	}
	return p.m.NewSession(graph.SessionOptions{States: pairs})
}

// NewState returns zeros.
func (p *graphProgram) NewState() batch.State {
	if !p.stateful() {
		return nil
	}
	if !p.batched {
		s, err := p.session()
		if err != nil {
			return nil // it was made once before
		}
		return &graphState{s: s}
	}
	st := &rowState{p: p}
	for i := range p.ins {
		if !p.ins[i].State {
			continue
		}
		if p.infoIn[i].IsFloat() {
			if st.floats == nil {
				st.floats = make([]float32, p.size)
			}
		} else if st.ints == nil {
			st.ints = make([]int64, p.size)
		}
	}
	return st
}

// rowState is a session's row of all states, in the order of the inputs. A graph with states
// of floats and of integers, which is rare, has both slices in full.
type rowState struct {
	p      *graphProgram
	floats []float32
	ints   []int64
}

// Bytes returns the memory of the elements.
func (s *rowState) Bytes() int { return 4*len(s.floats) + 8*len(s.ints) }

// MarshalBinary writes the elements, floats before integers.
func (s *rowState) MarshalBinary() ([]byte, error) {
	b := make([]byte, 0, s.Bytes())
	for _, x := range s.floats {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	for _, x := range s.ints {
		b = binary.LittleEndian.AppendUint64(b, uint64(x))
	}
	return b, nil
}

// UnmarshalBinary reads what MarshalBinary wrote.
func (s *rowState) UnmarshalBinary(b []byte) error {
	if len(b) != s.Bytes() {
		return fmt.Errorf("its state has %d bytes; this model's has %d", len(b), s.Bytes())
	}
	for i := range s.floats {
		s.floats[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	b = b[4*len(s.floats):]
	for i := range s.ints {
		s.ints[i] = int64(binary.LittleEndian.Uint64(b[8*i:]))
	}
	return nil
}

// graphState is the session of a graph whose rows are not computed together.
type graphState struct{ s *graph.Session }

// Bytes returns the memory of the states' elements.
func (s *graphState) Bytes() int { return s.s.StateBytes() }

// MarshalBinary writes for each state that is not zeros the lengths of its name, shape and elements,
// and these.
func (s *graphState) MarshalBinary() ([]byte, error) {
	var b []byte
	state := s.s.State()
	for _, pair := range s.s.States() {
		v, ok := state[pair.Input]
		if !ok {
			continue
		}
		b = binary.AppendUvarint(b, uint64(len(pair.Input)))
		b = append(b, pair.Input...)
		b = binary.AppendUvarint(b, uint64(len(v.Dims)))
		for _, d := range v.Dims {
			b = binary.AppendUvarint(b, uint64(d))
		}
		b = binary.AppendUvarint(b, uint64(len(v.Data)))
		for _, x := range v.Data {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
		}
		b = binary.AppendUvarint(b, uint64(len(v.Ints)))
		for _, x := range v.Ints {
			b = binary.LittleEndian.AppendUint64(b, uint64(x))
		}
	}
	return b, nil
}

// UnmarshalBinary reads what MarshalBinary wrote.
func (s *graphState) UnmarshalBinary(b []byte) error {
	bad := errors.New("its state is cut off or damaged")
	number := func(each int) (int, bool) { // of parts of a size that must be there
		n, k := binary.Uvarint(b)
		if k <= 0 || each > 0 && n > uint64(len(b)-k)/uint64(each) || n > math.MaxInt32 {
			return 0, false
		}
		b = b[k:]
		return int(n), true
	}
	state := map[string]graph.Value{}
	for len(b) > 0 {
		n, ok := number(1)
		if !ok {
			return bad
		}
		name := string(b[:n])
		b = b[n:]
		var v graph.Value
		rank, ok := number(1)
		if !ok {
			return bad
		}
		v.Dims = make([]int, rank)
		for i := range v.Dims {
			if v.Dims[i], ok = number(0); !ok {
				return bad
			}
		}
		if n, ok = number(4); !ok {
			return bad
		}
		for range n {
			v.Data = append(v.Data, math.Float32frombits(binary.LittleEndian.Uint32(b)))
			b = b[4:]
		}
		if n, ok = number(8); !ok {
			return bad
		}
		for range n {
			v.Ints = append(v.Ints, int64(binary.LittleEndian.Uint64(b)))
			b = b[8:]
		}
		state[name] = v
	}
	return s.s.SetState(state)
}

// findBatch looks for the dimension of the inputs that is the batch, by names and places, and
// confirms it by running random rows alone and together: the bits must be the same.
func (p *graphProgram) findBatch() bool {
	for _, axes := range p.candidates() {
		p.sharing = slices.Contains(axes, -1)
		if p.layout(axes) && p.confirm() {
			return true
		}
	}
	p.inAxis, p.outAxis, p.outRank, p.cells, p.offset, p.size, p.sharing = nil, nil, nil, nil, nil, 0, false
	return false
}

// candidates returns axes of the inputs that may be the batch.
func (p *graphProgram) candidates() (list [][]int) {
	add := func(axis func(i int, in graph.ValueInfo) (int, bool)) {
		axes := make([]int, len(p.infoIn))
		some := false
		for i, in := range p.infoIn {
			a, ok := axis(i, in)
			if !ok {
				return
			}
			axes[i] = a
			some = some || a >= 0 && !p.ins[i].State
		}
		if some && !slices.ContainsFunc(list, func(other []int) bool { return slices.Equal(axes, other) }) {
			list = append(list, axes)
		}
	}
	named := map[string]bool{}
	var names []string
	for _, in := range p.infoIn {
		for _, d := range in.Dims {
			if d.Size < 0 && d.Name != "" && !named[d.Name] {
				named[d.Name] = true
				names = append(names, d.Name)
			}
		}
	}
	for _, name := range names {
		add(func(i int, in graph.ValueInfo) (int, bool) {
			a := slices.IndexFunc(in.Dims, func(d graph.Dim) bool { return d.Size < 0 && d.Name == name })
			return a, a >= 0 || !p.ins[i].State
		})
	}
	// Without names: the first dimension, of a state the one that is free.
	for first := range 2 {
		add(func(i int, in graph.ValueInfo) (int, bool) {
			if p.ins[i].State {
				a := slices.IndexFunc(in.Dims, func(d graph.Dim) bool { return d.Size < 0 })
				return a, a >= 0
			}
			if first < len(in.Dims) && in.Dims[first].Size < 0 {
				return first, true
			}
			return -1, true
		})
	}
	return list
}

// layout notes where the states of a session lie; ok is false if more than their batch
// dimension is free.
func (p *graphProgram) layout(axes []int) (ok bool) {
	p.inAxis, p.size = axes, 0
	p.cells, p.offset = make([]int, len(p.ins)), make([]int, len(p.ins))
	floats, ints := 0, 0
	for i, in := range p.ins {
		if p.infoIn[i].Any {
			return false
		}
		if !in.State {
			continue
		}
		n := 1
		for k, d := range in.Dims {
			if k == axes[i] {
				continue
			}
			if d < 0 {
				return false
			}
			n *= d
		}
		at := &ints
		if p.infoIn[i].IsFloat() {
			at = &floats
		}
		p.cells[i], p.offset[i] = n, *at
		*at += n
	}
	p.size = max(floats, ints)
	return p.size < 1<<26
}

// trial is what trial runs try for dimensions that are free besides the batch, and for
// integers: lengths and rates that graphs check.
var trials = []struct {
	free int
	ints int64
}{{3, 1}, {5, 1}, {1, 1}, {16, 1}, {576, 16000}, {512, 16000}, {288, 8000}, {100, 1}, {1280, 1}, {16000, 1}, {3, 0}, {16, 2}, {76, 1}}

// confirm runs random rows alone, together and in another order, and beside rows that would
// show in the others if the graph let them, such as infinite ones.
func (p *graphProgram) confirm() bool {
	ctx := context.Background()
	for _, t := range trials {
		r := rand.New(rand.NewPCG(1, 2))
		like := p.random(r, 1, t.free, t.ints)
		jobs := p.rowsLike(r, like)
		axes, ranks, fits, ok := p.lie(ctx, jobs)
		if !fits {
			continue
		}
		if p.outAxis, p.outRank = axes, ranks; !ok || !p.agree(ctx, jobs) || !p.unmoved(ctx, jobs, func() *batch.Job { return p.row(r, like) }) {
			return false
		}
		if p.sharing {
			p.tried.note(p.hashShared(like), true)
		}
		return true
	}
	return false
}

// lie runs a row and two rows, and finds in the difference where the rows of the outputs lie: for
// each the axis, -1 without rows, and the rank. The graph fits if it takes a row, and all is ok if
// it takes two and gives one row or two.
func (p *graphProgram) lie(ctx context.Context, jobs []*batch.Job) (axes, ranks []int, fits, ok bool) {
	one, fits := p.outputs(ctx, jobs[:1])
	if !fits {
		return nil, nil, false, false
	}
	two, ok := p.outputs(ctx, jobs[:2])
	if !ok {
		return nil, nil, true, false
	}
	for o := range p.outs {
		axis := -1
		if len(one[o].Dims) != len(two[o].Dims) {
			return nil, nil, true, false
		}
		for k, d := range two[o].Dims {
			if d == one[o].Dims[k] {
				continue
			}
			if axis >= 0 || d != 2 || one[o].Dims[k] != 1 {
				return nil, nil, true, false
			}
			axis = k
		}
		if axis < 0 && p.from[o] >= 0 {
			return nil, nil, true, false
		}
		axes, ranks = append(axes, axis), append(ranks, len(one[o].Dims))
	}
	return axes, ranks, true, true
}

// rowsLike returns three random rows.
func (p *graphProgram) rowsLike(r *rand.Rand, like []inference.Value) []*batch.Job {
	return []*batch.Job{p.row(r, like), p.row(r, like), p.row(r, like)}
}

// row returns a job of a random row of the shapes and the integers of another. What has no batch
// dimension is the other's.
func (p *graphProgram) row(r *rand.Rand, like []inference.Value) *batch.Job {
	j := &batch.Job{Rows: 1, Inputs: slices.Clone(like)}
	for i, axis := range p.inAxis {
		v := &j.Inputs[i]
		if axis < 0 {
			continue
		}
		l := layoutOf(v.Dims, axis)
		switch n := l.outer * l.rows * l.inner; p.ins[i].Datatype.Kind() {
		case inference.Ints:
			v.Ints = slices.Clone(v.Ints)
		case inference.Doubles:
			v.Doubles = make([]float64, n)
			for k := range v.Doubles {
				v.Doubles[k] = float64(float32(r.NormFloat64()))
			}
		default:
			v.Floats = make([]float32, n)
			for k := range v.Floats {
				v.Floats[k] = float32(r.NormFloat64())
			}
		}
	}
	return j
}

// strangers are what rows are multiplied by to see whether they move others. Graphs that take
// a maximum, a mean or a branch over all rows may hide it from rows of like size: a
// spectrogram's floor is 80 dB below the loudest value.
var strangers = []float32{0, 1e-4, 1e4, math.MaxFloat32, -math.MaxFloat32, float32(math.Inf(1)), float32(math.NaN())}

// strangeInts are integers of rows, likewise: ids of words, masks and counts.
var strangeInts = []int64{0, 1, 2, 3}

// unmoved reports whether rows, of usual numbers and of very small ones, have the same bits
// beside a stranger of each kind, before and after it, as alone. A stranger that the graph
// refuses moves nobody, as its batch is computed again one by one.
func (p *graphProgram) unmoved(ctx context.Context, jobs []*batch.Job, row func() *batch.Job) bool {
	small := row()
	p.multiply(small, 1e-3)
	var others []*batch.Job
	for _, by := range strangers {
		j := row()
		p.multiply(j, by)
		others = append(others, j)
	}
	for _, to := range strangeInts {
		j := row()
		if p.setInts(j, to) {
			others = append(others, j)
		}
	}
	for _, j := range []*batch.Job{jobs[0], small} {
		if p.together(ctx, []*batch.Job{j}) != nil {
			return false
		}
		alone := j.Outputs
		for _, other := range others {
			for _, group := range [][]*batch.Job{{j, other}, {other, j}} {
				if p.together(ctx, group) != nil {
					break
				}
				for o := range alone {
					if !sameBits(&j.Outputs[o], &alone[o]) {
						return false
					}
				}
			}
		}
	}
	return true
}

// multiply multiplies the floats of a job's row.
func (p *graphProgram) multiply(j *batch.Job, by float32) {
	for i := range j.Inputs {
		if p.inAxis[i] < 0 {
			continue
		}
		for k := range j.Inputs[i].Floats {
			j.Inputs[i].Floats[k] *= by
		}
		for k := range j.Inputs[i].Doubles {
			j.Inputs[i].Doubles[k] *= float64(by)
		}
	}
}

// setInts sets the integers of a job's row; some is false if it has none.
func (p *graphProgram) setInts(j *batch.Job, to int64) (some bool) {
	for i := range j.Inputs {
		if p.inAxis[i] < 0 {
			continue
		}
		for k := range j.Inputs[i].Ints {
			j.Inputs[i].Ints[k], some = to, true
		}
	}
	return some
}

// outputs runs jobs as a batch and returns copies of all outputs.
func (p *graphProgram) outputs(ctx context.Context, jobs []*batch.Job) (all []inference.Value, ok bool) {
	in := make([]graph.Value, len(p.ins))
	for i := range in {
		p.gather(&in[i], i, jobs, len(jobs))
	}
	err := p.m.Apply(ctx, in, func(outs []graph.Value) {
		for o := range outs {
			all = append(all, p.part(o, &outs[o], -1, 0, 0))
		}
	})
	return all, err == nil
}

// agree reports whether rows have the same bits alone and in batches.
func (p *graphProgram) agree(ctx context.Context, jobs []*batch.Job) bool {
	alone := make([][]inference.Value, len(jobs))
	for k, j := range jobs {
		if p.together(ctx, []*batch.Job{j}) != nil {
			return false
		}
		alone[k], j.Outputs = j.Outputs, nil
	}
	a, b, c := *jobs[0], *jobs[1], *jobs[2]
	d, e := b, a
	for _, group := range [][]*batch.Job{{&a, &b}, {&b, &a, &c}, {&c, &a, &b, &d, &e}} {
		for _, j := range group {
			j.Outputs = nil
		}
		if p.together(ctx, group) != nil {
			return false
		}
		for _, j := range group {
			k := slices.IndexFunc(jobs, func(other *batch.Job) bool { return sameInputs(j, other) })
			for o := range p.outs {
				if !sameBits(&j.Outputs[o], &alone[k][o]) {
					return false
				}
			}
		}
	}
	return true
}

func sameInputs(a, b *batch.Job) bool {
	for i := range a.Inputs {
		if !sameBits(&a.Inputs[i], &b.Inputs[i]) {
			return false
		}
	}
	return true
}

func sameBits(a, b *inference.Value) bool {
	return slices.Equal(a.Dims, b.Dims) && slices.Equal(a.Ints, b.Ints) &&
		slices.EqualFunc(a.Floats, b.Floats, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) }) &&
		slices.EqualFunc(a.Doubles, b.Doubles, func(x, y float64) bool { return math.Float64bits(x) == math.Float64bits(y) })
}

// random returns inputs of rows; without a batch dimension those that are free are all alike.
func (p *graphProgram) random(r *rand.Rand, rows, free int, ints int64) []inference.Value {
	list := make([]inference.Value, len(p.ins))
	for i, in := range p.ins {
		v := inference.Value{Dims: []int{}}
		n := 1
		for k, d := range in.Dims {
			switch {
			case p.inAxis != nil && k == p.inAxis[i]:
				d = rows
			case d < 0:
				d = free
			}
			v.Dims = append(v.Dims, d)
			n *= d
		}
		switch in.Datatype.Kind() {
		case inference.Ints:
			for range n {
				v.Ints = append(v.Ints, ints)
			}
		case inference.Doubles:
			for range n {
				v.Doubles = append(v.Doubles, float64(float32(r.NormFloat64())))
			}
		default:
			for range n {
				v.Floats = append(v.Floats, float32(r.NormFloat64()))
			}
		}
		list[i] = v
	}
	return list
}
