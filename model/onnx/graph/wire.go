package graph

import (
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/carousel-ml/carousel/internal/simd"
)

// Bounds on what a file may ask for beyond its own size: two bytes can stand
// for a whole node, so the counts are held where a real model never comes.
const (
	maxNodes      = 1 << 17
	maxNames      = 1 << 20 // of inputs and outputs of all nodes
	maxAttributes = 1 << 18
	maxTensors    = 1 << 17
	maxValues     = 1 << 12 // inputs and outputs of the graph
	maxRank       = 8
	maxDepth      = 8 // of graphs in graphs
)

var errTruncated = errors.New("truncated or not protobuf")

// field is one field of a message; bytes alias the file.
type field struct {
	num protowire.Number
	typ protowire.Type
	n   uint64
	b   []byte
	raw []byte // all of it, with the tag
}

// The wire types, short, for the switches below. A known field of another wire
// type counts as unknown and is passed over, as protobuf prescribes.
const (
	varint = protowire.VarintType
	fixed4 = protowire.Fixed32Type
	fixed8 = protowire.Fixed64Type
	blob   = protowire.BytesType
)

func key(num protowire.Number, typ protowire.Type) protowire.Number {
	return num<<3 | protowire.Number(typ)
}

func (f *field) key() protowire.Number { return key(f.num, f.typ) }

// eachField calls visit for the fields of a message in their order.
func eachField(b []byte, visit func(f *field) error) error {
	for len(b) > 0 {
		var n int
		f := field{raw: b}
		f.num, f.typ, n = protowire.ConsumeTag(b)
		if n < 0 {
			return errTruncated
		}
		b = b[n:]
		switch f.typ {
		case varint:
			f.n, n = protowire.ConsumeVarint(b)
		case fixed4:
			var v uint32
			v, n = protowire.ConsumeFixed32(b)
			f.n = uint64(v)
		case fixed8:
			f.n, n = protowire.ConsumeFixed64(b)
		case blob:
			f.b, n = protowire.ConsumeBytes(b)
		default:
			return errors.New("not protobuf as ONNX uses it: a group")
		}
		if n < 0 {
			return errTruncated
		}
		b = b[n:]
		f.raw = f.raw[:len(f.raw)-len(b)]
		if err := visit(&f); err != nil {
			return err
		}
	}
	return nil
}

// varints appends the values of a repeated varint field, packed or not.
func (f *field) varints(dst []int64, most int) ([]int64, error) {
	if f.typ == varint {
		if len(dst) >= most {
			return nil, fmt.Errorf("more than %d values", most)
		}
		return append(dst, int64(f.n)), nil
	}
	for b := f.b; len(b) > 0; {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return nil, errTruncated
		}
		if len(dst) >= most {
			return nil, fmt.Errorf("more than %d values", most)
		}
		dst = append(dst, int64(v))
		b = b[n:]
	}
	return dst, nil
}

// floats appends the values of a repeated float field, packed or not.
func (f *field) floats(dst []float32) ([]float32, error) {
	if f.typ == fixed4 {
		return append(dst, fromBits(uint32(f.n))), nil
	}
	if len(f.b)%4 != 0 {
		return nil, errTruncated
	}
	for b := f.b; len(b) > 0; b = b[4:] {
		v, _ := protowire.ConsumeFixed32(b)
		dst = append(dst, fromBits(v))
	}
	return dst, nil
}

// doubles is floats for a field of doubles, narrowed to float32.
func (f *field) doubles(dst []float32) ([]float32, error) {
	if f.typ == fixed8 {
		return append(dst, simd.Narrow(math.Float64frombits(f.n))), nil
	}
	if len(f.b)%8 != 0 {
		return nil, errTruncated
	}
	for b := f.b; len(b) > 0; b = b[8:] {
		v, _ := protowire.ConsumeFixed64(b)
		dst = append(dst, simd.Narrow(math.Float64frombits(v)))
	}
	return dst, nil
}

type modelProto struct {
	ir       int64
	producer string
	version  string // of the producer
	opsets   []opsetProto
	meta     [][2]string
	graph    *graphProto
	counts   counts
	depth    int // of the graph being decoded
}

type opsetProto struct {
	domain  string
	version int64
}

type graphProto struct {
	name            string
	nodes           []nodeProto
	initializers    []tensorProto
	inputs, outputs []valueProto
}

type nodeProto struct {
	op, name, domain string
	inputs, outputs  []string
	attrs            []attrProto
}

type attrProto struct {
	name    string
	typ     int64
	f       float32
	i       int64
	s       string
	floats  []float32
	ints    []int64
	strings []string
	tensor  *tensorProto
	graph   *graphProto
}

// The types of an attribute that operators here read.
const (
	attrFloat   = 1
	attrInt     = 2
	attrString  = 3
	attrTensor  = 4
	attrGraph   = 5
	attrFloats  = 6
	attrInts    = 7
	attrStrings = 8
)

type tensorProto struct {
	name     string
	dims     []int64
	dtype    int64
	raw      []byte
	floats   []float32 // float_data, double_data
	ints     []int64   // int32_data, int64_data, uint64_data
	external *external // nil: the data are here
	segment  bool
	place    int // among the tensors of the file, from 1
}

type valueProto struct {
	name   string
	dtype  int64 // 0 if it is no tensor
	dims   []dimProto
	shaped bool // a shape is given
}

type dimProto struct {
	size  int64
	param string
	known bool
}

type counts struct{ nodes, names, attrs, tensors, values int }

func (c *counts) bump(what string, n *int, most int) error {
	if *n++; *n > most {
		return fmt.Errorf("more than %d %s", most, what)
	}
	return nil
}

func decodeModel(b []byte) (*modelProto, error) {
	m := &modelProto{}
	err := eachField(b, func(f *field) error {
		switch f.key() {
		case key(1, varint):
			m.ir = int64(f.n)
		case key(2, blob):
			m.producer = string(f.b)
		case key(3, blob):
			m.version = string(f.b)
		case key(7, blob):
			if m.graph != nil {
				return errors.New("two graphs")
			}
			m.graph = &graphProto{}
			return m.decodeGraph(m.graph, f.b)
		case key(8, blob):
			o, err := decodeOpset(f.b)
			if len(m.opsets) >= 64 {
				return errors.New("more than 64 operator sets")
			}
			m.opsets = append(m.opsets, o)
			return err
		case key(14, blob):
			name, value, err := decodeEntry(f.b)
			if len(m.meta) >= maxValues {
				return fmt.Errorf("more than %d properties", maxValues)
			}
			m.meta = append(m.meta, [2]string{name, value})
			return err
		}
		return nil
	})
	return m, err
}

func decodeOpset(b []byte) (o opsetProto, err error) {
	err = eachField(b, func(f *field) error {
		switch f.key() {
		case key(1, blob):
			o.domain = string(f.b)
		case key(2, varint):
			o.version = int64(f.n)
		}
		return nil
	})
	return o, err
}

func (m *modelProto) decodeGraph(g *graphProto, b []byte) error {
	return eachField(b, func(f *field) error {
		c := &m.counts
		switch f.key() {
		case key(1, blob):
			if err := c.bump("nodes", &c.nodes, maxNodes); err != nil {
				return err
			}
			g.nodes = append(g.nodes, nodeProto{})
			return m.decodeNode(&g.nodes[len(g.nodes)-1], f.b)
		case key(2, blob):
			g.name = string(f.b)
		case key(5, blob):
			g.initializers = append(g.initializers, tensorProto{})
			return m.decodeTensor(&g.initializers[len(g.initializers)-1], f.b)
		case key(11, blob), key(12, blob):
			if err := c.bump("inputs and outputs", &c.values, maxValues); err != nil {
				return err
			}
			v, err := decodeValue(f.b)
			if f.num == 11 {
				g.inputs = append(g.inputs, v)
			} else {
				g.outputs = append(g.outputs, v)
			}
			return err
		case key(15, blob):
			return errors.New("sparse initializers are not supported")
		}
		return nil
	})
}

func (m *modelProto) decodeNode(n *nodeProto, b []byte) error {
	c := &m.counts
	return eachField(b, func(f *field) error {
		switch f.key() {
		case key(1, blob), key(2, blob):
			if err := c.bump("names in nodes", &c.names, maxNames); err != nil {
				return err
			}
			if f.num == 1 {
				n.inputs = append(n.inputs, string(f.b))
			} else {
				n.outputs = append(n.outputs, string(f.b))
			}
		case key(3, blob):
			n.name = string(f.b)
		case key(4, blob):
			n.op = string(f.b)
		case key(5, blob):
			if err := c.bump("attributes", &c.attrs, maxAttributes); err != nil {
				return err
			}
			n.attrs = append(n.attrs, attrProto{})
			return m.decodeAttr(&n.attrs[len(n.attrs)-1], f.b)
		case key(7, blob):
			n.domain = string(f.b)
		}
		return nil
	})
}

func (m *modelProto) decodeAttr(a *attrProto, b []byte) error {
	return eachField(b, func(f *field) (err error) {
		switch f.key() {
		case key(1, blob):
			a.name = string(f.b)
		case key(2, fixed4):
			a.f = fromBits(uint32(f.n))
		case key(3, varint):
			a.i = int64(f.n)
		case key(4, blob):
			a.s = string(f.b)
		case key(5, blob):
			a.tensor = &tensorProto{}
			return m.decodeTensor(a.tensor, f.b)
		case key(6, blob):
			if m.depth++; m.depth > maxDepth || a.graph != nil {
				return fmt.Errorf("graphs in graphs more than %d deep, or two in one attribute", maxDepth)
			}
			a.graph = &graphProto{}
			err = m.decodeGraph(a.graph, f.b)
			m.depth--
		case key(7, blob), key(7, fixed4):
			a.floats, err = f.floats(a.floats)
		case key(8, blob), key(8, varint):
			a.ints, err = f.varints(a.ints, math.MaxInt)
		case key(9, blob):
			if err := m.counts.bump("names in nodes", &m.counts.names, maxNames); err != nil {
				return err
			}
			a.strings = append(a.strings, string(f.b))
		case key(20, varint):
			a.typ = int64(f.n)
		}
		return err
	})
}

func (m *modelProto) decodeTensor(t *tensorProto, b []byte) error {
	if err := m.counts.bump("tensors", &m.counts.tensors, maxTensors); err != nil {
		return err
	}
	t.place = m.counts.tensors
	return eachField(b, func(f *field) (err error) {
		switch f.key() {
		case key(1, blob), key(1, varint):
			if t.dims, err = f.varints(t.dims, maxRank); err != nil {
				return fmt.Errorf("a tensor of more than %d dimensions", maxRank)
			}
		case key(2, varint):
			t.dtype = int64(f.n)
		case key(3, blob):
			t.segment = true
		case key(4, blob), key(4, fixed4):
			t.floats, err = f.floats(t.floats)
		case key(5, blob), key(5, varint), key(7, blob), key(7, varint), key(11, blob), key(11, varint):
			t.ints, err = f.varints(t.ints, math.MaxInt)
		case key(8, blob):
			t.name = string(f.b)
		case key(9, blob):
			t.raw = f.b
		case key(10, blob), key(10, fixed8):
			t.floats, err = f.doubles(t.floats)
		case key(13, blob):
			return t.outside().decode(f.b)
		case key(14, varint):
			if f.n != 0 {
				t.outside()
			}
		}
		return err
	})
}

// outside returns the place of the tensor's data in another file.
func (t *tensorProto) outside() *external {
	if t.external == nil {
		t.external = &external{length: -1}
	}
	return t.external
}

func (e *external) decode(b []byte) error {
	name, value, err := decodeEntry(b)
	if err != nil {
		return err
	}
	return e.set(name, value)
}

// decodeEntry reads one StringStringEntryProto.
func decodeEntry(b []byte) (name, value string, err error) {
	err = eachField(b, func(f *field) error {
		switch f.key() {
		case key(1, blob):
			name = string(f.b)
		case key(2, blob):
			value = string(f.b)
		}
		return nil
	})
	return name, value, err
}

func decodeValue(b []byte) (v valueProto, err error) {
	err = eachField(b, func(f *field) error {
		switch f.key() {
		case key(1, blob):
			v.name = string(f.b)
		case key(2, blob): // TypeProto
			return eachField(f.b, func(f *field) error {
				if f.key() == key(1, blob) { // its tensor type
					return v.decodeTensorType(f.b)
				}
				return nil
			})
		}
		return nil
	})
	return v, err
}

func (v *valueProto) decodeTensorType(b []byte) error {
	return eachField(b, func(f *field) error {
		switch f.key() {
		case key(1, varint):
			v.dtype = int64(f.n)
		case key(2, blob):
			v.shaped = true
			return eachField(f.b, func(f *field) error {
				if f.key() != key(1, blob) {
					return nil
				}
				if len(v.dims) >= maxRank {
					return fmt.Errorf("a shape of more than %d dimensions", maxRank)
				}
				d := dimProto{}
				v.dims = append(v.dims, d)
				return v.dims[len(v.dims)-1].decode(f.b)
			})
		}
		return nil
	})
}

func (d *dimProto) decode(b []byte) error {
	return eachField(b, func(f *field) error {
		switch f.key() {
		case key(1, varint):
			d.size, d.known = int64(f.n), true
		case key(2, blob):
			d.param = string(f.b)
		}
		return nil
	})
}
