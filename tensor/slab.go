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

// Init sets the initial values of a parameter of shape dims.
type Init func(r *rand.Rand, w []float32, dims []int)

// Param is a trained tensor. [Pack] gives it memory, initial values and its full
// name; before that it only describes itself. The embedded Tensor is used in
// operations like any other and lives on no tape.
type Param struct {
	Tensor
	Name    string // after Pack the dotted path, such as "rnn.weight_ih_l0"
	NoDecay bool   // biases and norms: optimizers keep weight decay off by default
	init    Init
	slab    *Slab
	index   int // in Slab.Params
	offset  int
	derived [2]device.Cache // what the device keeps of the values at rest: for passes forward and backward
}

// fewRows is the most rows of a training pass for which it pays to keep what the
// device derives from weights: to derive it costs as much as some dozen rows, and
// the fewer rows a pass has, the more passes there may be between two optimizer steps.
const fewRows = 512

// rest is where the device may keep what it derives from the weights ws of a pass
// over so many rows, forward and backward, and the version it must be of. The
// caches are nil for what is no parameter, or where it would not pay; and for
// training passes of weights that rest as another kind, whose float32 they train.
func (t *Tape) rest(rows int, ws ...*Tensor) (forward, backward *device.Cache, version uint64) {
	first := ws[0].param
	if first == nil || t.mode == Train && (rows > fewRows || first.derived[0].Kind != device.F32) {
		return nil, nil, 0
	}
	for _, w := range ws {
		if w != nil && (w.param == nil || w.param.slab != first.slab) {
			return nil, nil, 0
		}
	}
	return &first.derived[0], &first.derived[1], first.slab.edits.Load()
}

// NewParam describes a parameter; a nil init makes zeros.
func NewParam(name string, init Init, dims ...int) *Param {
	p := &Param{Name: name, init: init}
	if len(dims) == 0 || len(dims) > maxRank {
		failf("NewParam", "%s: a parameter has 1 to %d dimensions, got %d", name, maxRank, len(dims))
	}
	n := 1
	for _, d := range dims {
		if d <= 0 {
			failf("NewParam", "%s: dimensions must be positive, got %v", name, dims)
		}
		n *= d
	}
	p.rank = copy(p.dims[:], dims)
	p.value.N = n
	p.param, p.needs, p.gradSet = p, true, true
	return p
}

// T is the parameter as an operand; nil gives nil, for an absent bias.
func (p *Param) T() *Tensor {
	if p == nil {
		return nil
	}
	return &p.Tensor
}

// Device is where the parameter lives; nil before [Pack].
func (p *Param) Device() *Device {
	if p.slab == nil {
		return nil
	}
	return p.slab.dev
}

// Slab holds all parameters of a model as one vector, and their gradients as
// another of the same layout, so that clearing, clipping, stepping, averaging
// and saving are single vector operations.
type Slab struct {
	Params []*Param // in declaration order
	dev    *Device
	values device.Buffer
	grads  device.Buffer
	edits  atomic.Uint64 // the version of the values, for what a backend derives from them
}

// Pack walks model's exported fields in declaration order, through pointers,
// structs, slices and interfaces, gives every [Param] memory on dev (nil: the
// [CPU]) and its initial value, and returns them in one slab. A parameter met twice is shared
// and keeps its first name. Each parameter's values depend only on seed and its
// place in the order.
//
// Names are the path of fields in snake case: Net{RNN, Head} gives
// "rnn.weight_ih_l0" and "head.weight". An embedded struct adds nothing to the path.
func Pack(dev *Device, model any, seed uint64) *Slab {
	dev = dev.orCPU()
	s := &Slab{dev: dev}
	w := walker{slab: s, seen: map[*Param]bool{}, visited: map[any]bool{}}
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
	seen    map[*Param]bool
	visited map[any]bool // pointers on the way, against cycles
}

var paramType = reflect.TypeFor[*Param]()

func (w *walker) walk(v reflect.Value, path string) {
	switch v.Kind() {
	case reflect.Interface:
		if !v.IsNil() {
			w.walk(v.Elem(), path)
		}
	case reflect.Pointer:
		if v.IsNil() {
			return
		}
		if v.Type() == paramType {
			w.add(v.Interface().(*Param), path)
			return
		}
		if p := v.Interface(); !w.visited[p] {
			w.visited[p] = true
			w.walk(v.Elem(), path)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			switch {
			case !f.IsExported():
			case f.Anonymous || f.Type == paramType || f.Type.Kind() == reflect.Slice && f.Type.Elem() == paramType:
				w.walk(v.Field(i), path) // a parameter brings its own name
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

func (w *walker) add(p *Param, path string) {
	if w.seen[p] {
		return
	}
	w.seen[p] = true
	// Packing again, on another device say, starts from the parameter's own last name.
	p.Name = join(path, p.Name[strings.LastIndexByte(p.Name, '.')+1:])
	w.slab.Params = append(w.slab.Params, p)
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// snake turns a field's name into PyTorch's style: RNN rnn, OutProj out_proj, FC1 fc1.
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

// Device is where the slab lives.
func (s *Slab) Device() *Device { return s.dev }

// Values is every parameter's values, to be read; parameter i lies at [Slab.Range], with zeros between.
func (s *Slab) Values() device.Buffer { return s.values }

// MutableValues is Values, to be written before the next pass. Whoever writes must come
// through here each time: inference keeps what it derives from weights until
// then. No pass may run meanwhile.
func (s *Slab) MutableValues() device.Buffer {
	s.edits.Add(1)
	return s.values
}

// Grads is the gradients, laid out as Values.
func (s *Slab) Grads() device.Buffer { return s.grads }

// Range is where parameter i lies in Values and Grads: [lo, hi).
func (s *Slab) Range(i int) (lo, hi int) {
	p := s.Params[i]
	return p.offset, p.offset + p.Len()
}

// NumElements is the number of trained numbers.
func (s *Slab) NumElements() int {
	n := 0
	for _, p := range s.Params {
		n += p.Len()
	}
	return n
}

// Lookup is the parameter of that full name, or nil.
func (s *Slab) Lookup(name string) *Param {
	for _, p := range s.Params {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// ZeroGrad clears all gradients. An optimizer's step does so by itself.
func (s *Slab) ZeroGrad() { s.dev.backend.Fill(s.grads, 0) }

// Read waits for and returns a copy of the parameter's values.
func (p *Param) Read() []float32 {
	p.live("Read")
	return p.Data()
}

// Write sets the parameter's values.
func (p *Param) Write(w []float32) {
	p.live("Write")
	if len(w) != p.Len() {
		failf("Write", "%s needs %d values, got %d", describe(&p.Tensor), p.Len(), len(w))
	}
	p.slab.edits.Add(1)
	p.slab.dev.backend.Upload(p.value, w)
}
