package onnx

import (
	"encoding/binary"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// builder collects the parts of a graph to be written.
type builder struct {
	nodes, initializers, inputs, outputs [][]byte
}

func appendBytes(b []byte, num protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, num, blob), v)
}

func appendText(b []byte, num protowire.Number, v string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, num, blob), v)
}

func appendInt(b []byte, num protowire.Number, v int64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, varint), uint64(v))
}

// attribute is a named value of a node: int, float32, string, []int64, []float32 or []string.
type attribute struct {
	name  string
	value any
}

func (a attribute) encode() []byte {
	b := appendText(nil, 1, a.name)
	typ := int64(0)
	switch v := a.value.(type) {
	case int:
		b, typ = appendInt(b, 3, int64(v)), attrInt
	case float32:
		b, typ = protowire.AppendFixed32(protowire.AppendTag(b, 2, fixed4), math.Float32bits(v)), attrFloat
	case string:
		b, typ = appendText(b, 4, v), attrString
	case []int64:
		for _, x := range v {
			b = appendInt(b, 8, x)
		}
		typ = attrInts
	case []float32:
		for _, x := range v {
			b = protowire.AppendFixed32(protowire.AppendTag(b, 7, fixed4), math.Float32bits(x))
		}
		typ = attrFloats
	case []string:
		for _, x := range v {
			b = appendText(b, 9, x)
		}
		typ = attrStrings
	default:
		panic("onnx: attribute of an unknown type")
	}
	return appendInt(b, 20, typ)
}

// node adds an operation; its name is that of its first output.
func (g *builder) node(op string, in, out []string, attrs ...attribute) {
	var b []byte
	for _, s := range in {
		b = appendText(b, 1, s)
	}
	for _, s := range out {
		b = appendText(b, 2, s)
	}
	for _, s := range out {
		if s != "" {
			b = appendText(b, 3, op+"_"+s)
			break
		}
	}
	b = appendText(b, 4, op)
	for _, a := range attrs {
		b = appendBytes(b, 5, a.encode())
	}
	g.nodes = append(g.nodes, b)
}

// floats adds a constant and returns its name.
func (g *builder) floats(name string, data []float32, dims ...int) string {
	raw := make([]byte, 0, 4*len(data))
	for _, v := range data {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
	}
	return g.initializer(name, typeFloat, raw, dims)
}

// ints adds a constant list of integers and returns its name.
func (g *builder) ints(name string, data ...int64) string {
	raw := make([]byte, 0, 8*len(data))
	for _, v := range data {
		raw = binary.LittleEndian.AppendUint64(raw, uint64(v))
	}
	return g.initializer(name, typeInt64, raw, []int{len(data)})
}

func (g *builder) initializer(name string, dtype int64, raw []byte, dims []int) string {
	var b []byte
	for _, d := range dims {
		b = appendInt(b, 1, int64(d))
	}
	b = appendInt(b, 2, dtype)
	b = appendText(b, 8, name)
	g.initializers = append(g.initializers, appendBytes(b, 9, raw))
	return name
}

// describe is a ValueInfoProto; a dimension is a size or a name.
func describe(name string, dtype int64, dims []any) []byte {
	var list []byte
	for _, d := range dims {
		if s, ok := d.(string); ok {
			list = appendBytes(list, 1, appendText(nil, 2, s))
		} else {
			list = appendBytes(list, 1, appendInt(nil, 1, int64(d.(int))))
		}
	}
	t := appendBytes(appendInt(nil, 1, dtype), 2, list)
	return appendBytes(appendText(nil, 1, name), 2, appendBytes(nil, 1, t))
}

func (g *builder) input(name string, dtype int64, dims ...any) {
	g.inputs = append(g.inputs, describe(name, dtype, dims))
}

func (g *builder) output(name string, dtype int64, dims ...any) {
	g.outputs = append(g.outputs, describe(name, dtype, dims))
}

// graph is a GraphProto.
func (g *builder) graph(name string) []byte {
	var b []byte
	for _, n := range g.nodes {
		b = appendBytes(b, 1, n)
	}
	b = appendText(b, 2, name)
	for _, t := range g.initializers {
		b = appendBytes(b, 5, t)
	}
	for _, v := range g.inputs {
		b = appendBytes(b, 11, v)
	}
	for _, v := range g.outputs {
		b = appendBytes(b, 12, v)
	}
	return b
}

// encode is the whole model.
func (g *builder) encode(name string, ir, opset int64) []byte {
	m := appendInt(nil, 1, ir)
	m = appendText(m, 2, "carousel")
	m = appendBytes(m, 7, g.graph(name))
	return appendBytes(m, 8, appendInt(appendText(nil, 1, ""), 2, opset))
}
