package graph

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/tensor"
)

// Weight is a matrix of weights, as the file has it.
type Weight struct {
	Name   string // of the initializer, or of the value that a node makes of stored integers or 16-bit numbers
	Dims   []int
	Role   string // what reads it: "LSTM input", "LSTM recurrent", ..., "linear", "convolution" or "embedding"; several are joined by " and "
	Stored string // its element type in the file, such as "float32" or "int8"
	Rest   tensor.Precision
}

// weights is what is known of where the parameters of a model come from.
type weights struct {
	stored    []*source // tensors of the file with at least two dimensions
	folded    []*node   // what was computed when the file was read, in that order
	uses      []*use
	quantized string // why the graph counts as quantized; "" if it does not
	tracing   sync.Once
	listed    []*source // those that parameters are made of, once they were traced
}

// source is a matrix in the file, or one that is made of stored integers and scales.
type source struct {
	slot   int
	dtype  int64   // in the file
	place  int     // of the tensor in the file; 0: made of several
	from   *value  // as the file has it; nil while the constant in use is this
	uses   []*use  // the parameters that consist of its elements
	shared *source // another one that a parameter has elements of, too
	rest   tensor.Precision
	bytes  *quantized // with Int8
}

// quantized is a matrix as integers with a scale for each index along the dimensions from up to to.
type quantized struct {
	values   []int8
	scales   []float32
	from, to int
}

// use is a parameter that an operator made of a constant.
type use struct {
	param   *tensor.Param
	role    string
	slot    int             // of the constant
	at      func(i int) int // the place of element i in the constant; nil: the same
	factors []float64       // of its rows, from the batch normalisation behind a convolution; nil: 1
	index   []int32         // the places of its elements in the source; nil: the same
}

// values returns the values of the parameter for those of the constant.
func (u *use) values(host []float32) []float32 {
	out := make([]float32, u.param.Len())
	take(out, host, u.at)
	for i, v := range out {
		if u.factors != nil {
			out[i] = simd.Narrow(float64(v) * u.factors[i*len(u.factors)/len(out)])
		}
	}
	return out
}

// take copies the elements at at(0), at(1), ...
func take(dst, src []float32, at func(i int) int) {
	for i := range dst {
		from := i
		if at != nil {
			from = at(i)
		}
		dst[i] = src[from]
	}
}

// weight makes a parameter of constant input i of a node, whose element k is that at at(k).
func (m *Model) weight(n *node, i int, role string, at func(k int) int, dims ...int) *tensor.Param {
	u, host := &use{role: role, slot: n.in[i], at: at}, m.constant(n, i).host
	u.param = tensor.NewParam(fmt.Sprintf("w%d", len(m.params)), func(_ *rand.Rand, dst []float32, _ []int) { take(dst, host, at) }, dims...)
	m.params, m.weights.uses = append(m.params, u.param), append(m.weights.uses, u)
	return u.param
}

// store notes a tensor of the file.
func (w *weights) store(slot int, t *tensorProto, v *value) {
	if v.rank() > 1 && v.kind == floats {
		w.stored = append(w.stored, &source{slot: slot, dtype: t.dtype, place: t.place})
	}
}

// quantizedOps are the operators on integers that stand for floats.
var quantizedOps = []string{"MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", DynamicLSTM}

func (w *weights) noteQuantized(n *node) {
	if w.quantized == "" && slices.Contains(quantizedOps, n.op) {
		w.quantized = n.title()
	}
}

// Quantized returns the first node of the file that computes with quantized numbers, such as
// MatMulInteger, DynamicQuantizeLSTM or DequantizeLinear; "" if there is none.
func (m *Model) Quantized() string { return m.weights.quantized }

// Weights lists the matrices of the file that products with the constant weights of a layer
// read, and tables of embeddings. It is not safe while [Model.SetRest] runs.
func (m *Model) Weights() []Weight {
	m.trace()
	list := make([]Weight, len(m.weights.listed))
	for i, s := range m.weights.listed {
		var roles []string
		for _, u := range s.uses {
			if !slices.Contains(roles, u.role) {
				roles = append(roles, u.role)
			}
		}
		list[i] = Weight{Name: m.names[s.slot], Dims: slices.Clone(m.constants[s.slot].dims), Role: strings.Join(roles, " and "), Stored: typeName(s.dtype), Rest: s.rest}
	}
	return list
}

// resting reports whether some weights rest in less than float32.
func (m *Model) resting() bool {
	return slices.ContainsFunc(m.weights.listed, func(s *source) bool { return s.rest != tensor.Float32 })
}

// SetRest rounds the weights of a name in [Model.Weights] and lets the products with them be of a
// precision, as [tensor.Param.SetRest] does. The values that are rounded are always those of the
// file, which [tensor.Float32] restores. Everything that reads the weights gets the rounded values.
// No run and no other call may take place at the same time. A name that is not in the list, weights
// that are not finite, and for [tensor.Int8] weights of which a row in the file has no single scale are
// errors, which change nothing; an [ErrRest] if they could stay in float32 beside others that rest.
func (m *Model) SetRest(name string, p tensor.Precision) error {
	m.trace()
	found := false
	for _, s := range m.weights.listed {
		if m.names[s.slot] == name {
			found = true
			if err := m.setRest(s, p); err != nil {
				return err
			}
		}
	}
	if !found {
		return fmt.Errorf("onnx: no weights of the graph are named %q; see the list of its weights", clip(name))
	}
	return nil
}

// ErrRest is the error of [Model.SetRest] for weights that cannot rest in a precision because of
// their form or range.
var ErrRest = errors.New("these weights cannot rest so")

func (m *Model) setRest(s *source, p tensor.Precision) error {
	from := s.from
	if from == nil {
		from = m.constants[s.slot]
	}
	now := *from
	name := clip(m.names[s.slot])
	if i := slices.IndexFunc(now.host, func(v float32) bool { return v-v != 0 }); i >= 0 && p != tensor.Float32 {
		return fmt.Errorf("onnx: the weights %s are not finite: element %d is %v", name, i, now.host[i])
	}
	if s.shared != nil && p != tensor.Float32 {
		return fmt.Errorf("onnx: %s in %s: %w: a product reads them joined with %s", name, p, ErrRest, clip(m.names[s.shared.slot]))
	}
	var bytes *quantized
	switch p {
	case tensor.Float32:
	case tensor.Int4:
		return fmt.Errorf("onnx: the weights %s cannot rest in int4: choose int8, bf16 or fp16", name)
	case tensor.Int8:
		var problem string
		if bytes, problem = s.quantize(&now); problem != "" {
			return fmt.Errorf("onnx: %s in %s: %w: %s", name, p, ErrRest, problem)
		}
		now.host = bytes.floats(now.dims)
	default:
		now.host = slices.Clone(now.host)
		simd.Best().Weights[p].Round(now.host, now.host)
		if i := slices.IndexFunc(now.host, func(v float32) bool { return v-v != 0 }); i >= 0 {
			return fmt.Errorf("onnx: %s in %s: %w: element %d is %v, beyond its range", name, p, ErrRest, i, from.host[i])
		}
	}
	s.rest, s.bytes, s.from = p, bytes, from
	if p == tensor.Float32 {
		s.from = nil
	}
	m.replace(s, &now)
	return nil
}

// replace makes a value that of a source, computes again what was computed from it, and writes
// the parameters.
func (m *Model) replace(s *source, v *value) {
	changed := map[int]bool{s.slot: true}
	m.constants[s.slot] = v
	f := newFolder(m)
	for _, n := range m.weights.folded {
		if slices.ContainsFunc(n.in, func(slot int) bool { return changed[slot] }) {
			f.fold(n)
			for _, slot := range n.out {
				changed[slot] = true
			}
		}
	}
	for _, u := range m.weights.uses {
		if changed[u.slot] {
			u.param.Write(u.values(m.constants[u.slot].host))
			if slices.Contains(s.uses, u) {
				u.param.SetRest(s.rest)
			}
		}
	}
	m.plans.mu.Lock()
	m.plans.idle, m.plans.size = nil, 0
	m.plans.mu.Unlock()
}

// movements are the operators whose results are elements of their first inputs, as they are.
var movements = []string{"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Concat", "Split", "Gather", "Dropout", "Expand", "Tile"}

// tracer finds the elements of the file that parameters consist of: it computes what was computed
// when the file was read once more, with the numbers of elements in place of their values.
type tracer struct {
	m       *Model
	r       *run
	sources []*source
	first   []int          // the number of the first element of each source
	next    int            // the number of the next
	numbers map[int]*value // by slot
	readers map[int]int    // of the slots
	integer map[int]bool   // made of stored bytes by a Cast
}

func (m *Model) trace() { m.weights.tracing.Do(m.traceOnce) }

func (m *Model) traceOnce() {
	t := &tracer{m: m, r: newFolder(m).r, numbers: map[int]*value{}, readers: map[int]int{}, integer: map[int]bool{}}
	reads(m.nodes, m.outSlots, t.readers)
	reads(m.weights.folded, nil, t.readers)
	for _, s := range m.weights.stored {
		t.add(s)
	}
	for _, n := range m.weights.folded {
		t.node(n)
	}
	for _, u := range m.weights.uses {
		if v := t.numbers[u.slot]; v != nil {
			t.use(u, v.ints)
		}
	}
	for _, s := range t.sources {
		if len(s.uses) > 0 {
			m.weights.listed = append(m.weights.listed, s)
		}
	}
}

func (t *tracer) add(s *source) {
	dims := t.m.constants[s.slot].dims
	v := &value{dims: dims, kind: ints, dtype: typeInt64, ints: make([]int64, product(dims))}
	for i := range v.ints {
		v.ints[i] = int64(t.next + i)
	}
	t.sources, t.first, t.numbers[s.slot] = append(t.sources, s), append(t.first, t.next), v
	t.next += len(v.ints)
}

// node numbers the results of a node.
func (t *tracer) node(n *node) {
	m := t.m
	in, out := n.in[0], n.out[0]
	if in < 0 || out < 0 {
		return
	}
	x, made := m.constants[in], m.constants[out]
	if i := slices.IndexFunc(t.sources, func(s *source) bool { return s.slot == in }); i >= 0 && t.sources[i].dtype != typeFloat &&
		t.readers[in] == 1 && (n.op == "Cast" || n.op == "Reshape") && slices.Equal(x.host, made.host) { // it is the weights themselves
		t.sources[i].slot = out
		t.numbers[out] = t.numbers[in].reshaped(made.dims)
		return
	}
	switch {
	case n.op == "Cast" && x.kind == ints:
		t.integer[out] = x.dtype == typeInt8 && made.kind == floats
	case n.op == "Cast":
		if v := t.numbers[in]; v != nil && slices.Equal(x.host, made.host) {
			t.numbers[out] = v
		}
	case n.op == "DequantizeLinear":
		if zero := m.constant(n, 2); x.dtype == typeInt8 && (zero == nil || !slices.ContainsFunc(zero.ints, func(z int64) bool { return z != 0 })) && made.rank() > 1 {
			t.add(&source{slot: out, dtype: typeInt8})
		}
	case n.op == "Mul" && made.rank() > 1 && (t.integer[in] || t.integer[n.in[1]]):
		t.add(&source{slot: out, dtype: typeInt8})
	case slices.Contains(movements, n.op):
		t.move(n)
	}
}

// move runs a node on numbers.
func (t *tracer) move(n *node) {
	for _, slot := range n.in {
		if slot < 0 {
			continue
		}
		v := t.m.constants[slot]
		if v.kind == floats && n.op != "Dropout" {
			if v = t.numbers[slot]; v == nil {
				return
			}
		}
		t.r.vals[slot] = v
	}
	if n.op == "Dropout" {
		t.numbers[n.out[0]] = t.numbers[n.in[0]]
		return
	}
	if t.m.guard(n, func() { t.r.step(n) }) != nil {
		return
	}
	for _, slot := range n.out {
		if slot >= 0 && t.m.constants[slot].kind == floats {
			t.numbers[slot] = t.r.vals[slot]
		}
	}
}

// use finds the source of a parameter and the places of its elements there.
func (t *tracer) use(u *use, numbers []int64) {
	u.index = make([]int32, u.param.Len())
	var own *source
	same := true
	for i := range u.index {
		at := i
		if u.at != nil {
			at = u.at(i)
		}
		k := sort.SearchInts(t.first, int(numbers[at])+1) - 1
		if s := t.sources[k]; own == nil {
			own = s
			s.uses = append(s.uses, u)
		} else if s != own { // neither can have a scale of its own
			s.uses = append(s.uses, u)
			own.shared, s.shared = s, own
			u.index = nil
			return
		}
		u.index[i] = int32(int(numbers[at]) - t.first[k])
		same = same && int(u.index[i]) == i
	}
	if same {
		u.index = nil
	}
}

// quantize rounds each row of the parameters that consist of a matrix, and returns it as the
// integers and scales that they have; problem is "" if there is one scale for each index along
// some dimension.
func (s *source) quantize(v *value) (q *quantized, problem string) {
	n := len(v.host)
	q = &quantized{values: make([]int8, n)}
	scale := make([]float32, n) // of each element; -1: no parameter has it
	for i := range scale {
		scale[i] = -1
	}
	for _, u := range s.uses {
		w := make([]float32, u.param.Len())
		for i := range w {
			w[i] = v.host[u.place(i)]
		}
		cols := u.param.Len() / u.param.Dim(0)
		values, scales := simd.SplitBytes(w, cols)
		for i, b := range values {
			at := u.place(i)
			if by := scales[i/cols]; scale[at] >= 0 && (scale[at] != by || q.values[at] != b) {
				return nil, "products divide its elements into rows in different ways"
			}
			q.values[at], scale[at] = b, scales[i/cols]
		}
	}
	if !q.spread(scale, v.dims) {
		return nil, fmt.Sprintf("the rows of its products do not lie along one dimension of its shape %s", shape(v.dims))
	}
	q.complete(v, scale)
	return q, ""
}

func (u *use) place(i int) int {
	if u.index == nil {
		return i
	}
	return int(u.index[i])
}

// spread finds the dimensions along which elements have one scale: one of them, or several
// from the first on.
func (q *quantized) spread(scale []float32, dims []int) bool {
	var ranges [][2]int
	for i := range dims {
		ranges = append(ranges, [2]int{i, i + 1})
	}
	for i := 2; i < len(dims); i++ {
		ranges = append(ranges, [2]int{0, i})
	}
	for _, r := range ranges {
		q.from, q.to = r[0], r[1]
		q.scales = slices.Repeat([]float32{-1}, product(dims[r[0]:r[1]]))
		ok := true
		for i, v := range scale {
			if k := q.row(i, dims); v < 0 || q.scales[k] == v {
				continue
			} else if ok = q.scales[k] < 0; !ok {
				break
			} else {
				q.scales[k] = v
			}
		}
		if ok {
			return true
		}
	}
	return false
}

// row returns the place of the scale of element i.
func (q *quantized) row(i int, dims []int) int {
	return i / product(dims[q.to:]) % product(dims[q.from:q.to])
}

// complete rounds the elements that no parameter has.
func (q *quantized) complete(v *value, scale []float32) {
	greatest := make([]float32, len(q.scales))
	for i, w := range v.host {
		k := q.row(i, v.dims)
		greatest[k] = max(greatest[k], float32(math.Abs(float64(w))))
	}
	for k, s := range q.scales {
		if s < 0 {
			q.scales[k] = simd.ByteScale(greatest[k])
		}
	}
	for i, s := range scale {
		if s < 0 {
			by := q.scales[q.row(i, v.dims)]
			q.values[i] = simd.ByteOf(max(-127*by, min(127*by, v.host[i])), by)
		}
	}
}

func (q *quantized) floats(dims []int) []float32 {
	out := make([]float32, len(q.values))
	for i, v := range q.values {
		out[i] = float32(v) * q.scales[q.row(i, dims)]
	}
	return out
}

// metaRest is the beginning of the names of properties of a file that say in which precision
// weights rest.
const metaRest = "carousel.rest:"

// rest lets weights rest as the file says: those that are made of integers and have the values
// that they would be rounded to, and those with a property.
func (m *Model) rest(p *modelProto) {
	if slices.ContainsFunc(m.weights.folded, func(n *node) bool {
		return (n.op == "DequantizeLinear" || n.op == "Cast") && m.constant(n, 0).dtype == typeInt8
	}) {
		m.trace()
		for _, s := range m.weights.listed {
			if s.dtype != typeInt8 || s.shared != nil {
				continue
			}
			v := m.constants[s.slot]
			if q, problem := s.quantize(v); problem == "" && slices.Equal(q.floats(v.dims), v.host) {
				m.setRest(s, tensor.Int8) // cannot fail: the values are finite
			}
		}
	}
	for _, entry := range p.meta {
		if name, ok := strings.CutPrefix(entry[0], metaRest); ok {
			if p, err := tensor.ParsePrecision(entry[1]); err == nil {
				m.SetRest(name, p) // a file that was changed since may have no such weights
			}
		}
	}
}
