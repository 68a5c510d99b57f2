package tensor

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync/atomic"
	"unicode"

	"github.com/carousel-ml/carousel/internal/device"
)

// Init sets w, the elements of a parameter of shape dims, to its initial values,
// drawn from r.
type Init func(r *rand.Rand, w []float32, dims []int)

// Param is a trained tensor. [Pack] allocates its memory, sets its initial values
// and completes its name; using it before panics with a [*ShapeError]. The embedded
// Tensor is an operand like any other and is on no tape.
type Param struct {
	Tensor
	Name    string // after Pack with the path, such as "rnn.weight_ih_l0"
	NoDecay bool   // for biases and norms: by default optimizers apply no weight decay
	Keep32  bool   // products with it are float32 for every precision of a training tape
	Rows    bool   // a batch touches few of its rows, as those of an embedding: its gradient is zero elsewhere
	Running bool   // a running statistic, which training passes move and no gradient
	init    Init
	slab    *Slab
	index   int // in Slab.Params
	offset  int
	rest    Precision                        // of SetRest
	packed  [device.NumKinds][2]device.Cache // by kind of the products: for the forward and the backward pass
}

// fewRows is the largest number of rows of a training pass for which packed weights
// are cached: packing costs as much as some dozen rows, and the fewer rows a pass has,
// the more passes there may be between two optimizer steps.
const fewRows = 512

// caches returns the caches of packed weights for a forward and a backward pass with
// weights ws, that kind of products and number of rows, and the version of the values. They are
// nil for operands that are not parameters and where caching does not pay. Those of 16 or 8 bits
// are converted once for each version.
func (t *Tape) caches(kind device.Kind, rows int, ws ...*Tensor) (forward, backward *device.Cache, version uint64) {
	first := ws[0].param
	if first == nil || kind == device.F32 && t.mode == Train && rows > fewRows {
		return nil, nil, 0
	}
	for _, w := range ws {
		if w != nil && (w.param == nil || w.param.slab != first.slab) {
			return nil, nil, 0
		}
	}
	c := &first.packed[kind]
	return &c[0], &c[1], first.slab.edits.Load()
}

// NewParam returns a parameter with 1 to 4 dimensions of at least 1; others panic
// with a [*ShapeError]. It has no memory until [Pack]. A nil init means zeros.
func NewParam(name string, init Init, dims ...int) *Param {
	p := &Param{Name: name, init: init}
	p.value.N = volume("NewParam", "parameter "+name, dims, 1, maxRank)
	p.rank = copy(p.dims[:], dims)
	p.param, p.needs, p.gradSet = p, true, true
	return p
}

// T returns the parameter as an operand; for a nil p, such as an absent bias, nil.
func (p *Param) T() *Tensor {
	if p == nil {
		return nil
	}
	return &p.Tensor
}

// Device returns the parameter's device, nil before [Pack].
func (p *Param) Device() *Device {
	if p.slab == nil {
		return nil
	}
	return p.slab.dev
}

// Slab holds all parameters of a model as one vector and their gradients as another
// with the same layout, so clearing, clipping, stepping, averaging and saving are
// single vector operations.
type Slab struct {
	Params  []*Param // in declaration order
	Modules []any    // pointers to structs among which they were found, such as layers, in that order
	dev     *Device
	values  device.Buffer
	grads   device.Buffer
	edits   atomic.Uint64 // the version of the values, for cached packed weights
	observe func(p *Param, x []float32)
}

// Pack finds the parameters in model's exported fields, in declaration order and
// through pointers, structs, slices, arrays and interfaces, allocates their memory on
// dev (nil: the [CPU]), sets their initial values and returns them in one slab. A
// parameter that occurs twice is shared and keeps its first name. Initial values
// depend only on seed and the parameter's place in the order.
//
// A name is the path of fields in snake case and the parameter's own name:
// Net{RNN, Head} gives "rnn.weight_ih_l0" and "head.weight". An embedded struct adds
// nothing to the path.
func Pack(dev *Device, model any, seed uint64) *Slab {
	dev = dev.orCPU()
	s := &Slab{dev: dev}
	w := walker{slab: s, visited: map[any]bool{}}
	w.walk(reflect.ValueOf(model), "")
	n := 0
	for _, p := range s.Params {
		p.offset = n
		n += (p.Len() + cacheLine - 1) &^ (cacheLine - 1)
	}
	s.values, s.grads = dev.backend.Alloc(n), dev.backend.Alloc(n)
	for i, p := range s.Params {
		p.slab, p.index = s, i
		p.value = s.values.Slice(p.offset, p.offset+p.Len())
		p.grad = s.grads.Slice(p.offset, p.offset+p.Len())
		if p.init != nil {
			w := make([]float32, p.Len())
			p.init(rand.New(rand.NewPCG(seed, uint64(i))), w, p.Dims())
			dev.backend.Upload(p.value, w)
		}
	}
	return s
}

type walker struct {
	slab    *Slab
	visited map[any]bool // pointers: parameters may be shared and models have cycles
}

var paramType = reflect.TypeFor[*Param]()

func (w *walker) walk(v reflect.Value, path string) {
	switch v.Kind() {
	case reflect.Interface:
		if !v.IsNil() {
			w.walk(v.Elem(), path)
		}
	case reflect.Pointer:
		if v.IsNil() || w.visited[v.Interface()] {
			return
		}
		w.visited[v.Interface()] = true
		p, ok := v.Interface().(*Param)
		if !ok {
			if v.Elem().Kind() == reflect.Struct {
				w.slab.Modules = append(w.slab.Modules, v.Interface())
			}
			w.walk(v.Elem(), path)
			return
		}
		// Packing again, such as on another device, starts from the last part of the name.
		p.Name = join(path, p.Name[strings.LastIndexByte(p.Name, '.')+1:])
		w.slab.Params = append(w.slab.Params, p)
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			switch {
			case !f.IsExported():
			case f.Anonymous || f.Type == paramType || f.Type.Kind() == reflect.Slice && f.Type.Elem() == paramType:
				w.walk(v.Field(i), path) // a parameter has a name
			default:
				w.walk(v.Field(i), join(path, snake(f.Name)))
			}
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			p := path
			if v.Type().Elem() != paramType {
				p = join(path, fmt.Sprint(i))
			}
			w.walk(v.Index(i), p)
		}
	}
}

func join(path, name string) string { return strings.TrimPrefix(path+"."+name, ".") }

// snake returns a field's name in PyTorch's style: rnn for RNN, out_proj for OutProj,
// fc1 for FC1.
func snake(s string) string {
	r := []rune(s)
	var b strings.Builder
	for i, c := range r {
		if unicode.IsUpper(c) && i > 0 && (!unicode.IsUpper(r[i-1]) || i+1 < len(r) && unicode.IsLower(r[i+1])) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(c))
	}
	return b.String()
}

// Device returns the slab's device.
func (s *Slab) Device() *Device { return s.dev }

// Values returns the values of all parameters for reading: parameter i is at
// [Slab.Range], with zeros between parameters.
func (s *Slab) Values() device.Buffer { return s.values }

// MutableValues returns the values for writing and invalidates cached packed weights.
// Call it before every write; no pass may run at the same time.
func (s *Slab) MutableValues() device.Buffer {
	s.edits.Add(1)
	return s.values
}

// Grads returns the gradients, with the layout of Values.
func (s *Slab) Grads() device.Buffer { return s.grads }

// Range returns the range [lo,hi) of parameter i in Values and Grads.
func (s *Slab) Range(i int) (lo, hi int) {
	p := s.Params[i]
	return p.offset, p.offset + p.Len()
}

// NumElements returns the number of elements of all parameters.
func (s *Slab) NumElements() int {
	n := 0
	for _, p := range s.Params {
		n += p.Len()
	}
	return n
}

// Lookup returns the parameter of that full name, or nil.
func (s *Slab) Lookup(name string) *Param {
	for _, p := range s.Params {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// Observe lets f be called, in passes that are not training, with what [Linear] and scans multiply a
// matrix by: rows of p.Len()/p.Dim(0) numbers, which f may keep. Of the recurrent matrix
// of a cell these are the scan's outputs, which are the states after its steps and not before them;
// a cell may also have gated them. Projections and convolutions are not observed. Nil ends it. f must
// be safe for concurrent use if passes run concurrently; none may run while Observe is called.
func (s *Slab) Observe(f func(p *Param, x []float32)) { s.observe = f }

// observe calls the observer of w's slab with columns of x, from one on.
func (t *Tape) observe(w, x *Tensor, from int) {
	if w == nil || w.param == nil || w.param.slab.observe == nil || t.mode == Train {
		return
	}
	all, cols, width := x.Data(), w.Len()/w.dims[0], x.dims[x.rank-1]
	rows := make([]float32, 0, len(all)/width*cols)
	for ; len(all) > 0; all = all[width:] {
		rows = append(rows, all[from:from+cols]...)
	}
	w.param.slab.observe(w.param, rows)
}

// ZeroGrad clears all gradients. An optimizer's step does this too.
func (s *Slab) ZeroGrad() { s.dev.backend.Fill(s.grads, 0) }

// Read waits for the device and returns a copy of the parameter's values.
func (p *Param) Read() []float32 {
	p.live("Read")
	return p.Data()
}

// Write sets the parameter's values and invalidates cached packed weights. It panics
// with a [*ShapeError] if their number differs. No pass may run at the same time.
func (p *Param) Write(w []float32) {
	p.live("Write")
	if len(w) != p.Len() {
		failf("Write", "%s needs %d values, got %d", describe(&p.Tensor), p.Len(), len(w))
	}
	p.slab.edits.Add(1)
	p.slab.dev.backend.Upload(p.value, w)
}
