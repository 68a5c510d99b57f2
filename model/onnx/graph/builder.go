package graph

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/tensor"
)

// The versions that are written, which every runtime since 2022 reads, and this
// package.
const (
	exportIR    = 8
	exportOpset = 17
)

// Builder writes an ONNX graph, node by node in an order in which they can run.
// Each name of a value is defined once. [Builder.Export] writes the file.
type Builder struct {
	Doc string // what the graph computes, for people
	// Prefix is the beginning of generated names. The body of a loop, which reads the
	// values of the outer graph, needs a different one.
	Prefix string

	// Standard limits the graph to the standard's operators; otherwise an LSTM with weights in 8 bits
	// may be com.microsoft's.
	Standard bool

	nodes, initializers, inputs, outputs [][]byte
	meta                                 [][2]string
	domains                              []string // besides the standard's
	count                                int
}

// DynamicLSTM is the operator of an LSTM with weights in 8 bits, which rounds the input and at each step the
// states of all rows to 8 bits too.
const DynamicLSTM = "com.microsoft.DynamicQuantizeLSTM"

// Attr is a named attribute of a node: an int, float32, string, []int64,
// []float32, []string or, for a loop's body, a *Builder. Other types panic.
type Attr struct {
	Name  string
	Value any
}

// encoded is a TensorProto, as an attribute.
type encoded []byte

func appendBytes(b []byte, num protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, num, blob), v)
}

func appendText(b []byte, num protowire.Number, v string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, num, blob), v)
}

func appendInt(b []byte, num protowire.Number, v int64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, varint), uint64(v))
}

func (a Attr) encode() []byte {
	b := appendText(nil, 1, a.Name)
	typ := int64(0)
	switch v := a.Value.(type) {
	case int:
		b, typ = appendInt(b, 3, int64(v)), attrInt
	case encoded:
		b, typ = appendBytes(b, 5, v), attrTensor
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
	case *Builder:
		b, typ = appendBytes(b, 6, v.graph(a.Name)), attrGraph
	default:
		panic("onnx: attribute of an unknown type")
	}
	return appendInt(b, 20, typ)
}

// Node adds an operation with the name of its first output. An input or output ""
// is omitted. An operator that is not the standard's has its domain before its name and a dot.
func (g *Builder) Node(op string, in, out []string, attrs ...Attr) {
	g.nodes = append(g.nodes, encodeNode(op, in, out, attrs))
	if i := strings.LastIndexByte(op, '.'); i >= 0 && !slices.Contains(g.domains, op[:i]) {
		g.domains = append(g.domains, op[:i])
	}
}

// encodeNode returns a NodeProto.
func encodeNode(op string, in, out []string, attrs []Attr) (b []byte) {
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
	domain := ""
	if i := strings.LastIndexByte(op, '.'); i >= 0 {
		domain, op = op[:i], op[i+1:]
	}
	b = appendText(b, 4, op)
	for _, a := range attrs {
		b = appendBytes(b, 5, a.encode())
	}
	if domain != "" {
		b = appendText(b, 7, domain)
	}
	return b
}

// Op adds an operation with one output and returns the generated name of the
// output.
func (g *Builder) Op(op string, in []string, attrs ...Attr) string {
	out := g.Name()
	g.Node(op, in, []string{out}, attrs...)
	return out
}

// Name returns a new name.
func (g *Builder) Name() string {
	g.count++
	return fmt.Sprintf("%s#%d", g.Prefix, g.count)
}

// Floats adds a constant array and returns its name; for a name of "" one is
// generated.
func (g *Builder) Floats(name string, data []float32, dims ...int) string {
	return g.initializer(name, typeFloat, float32s(data), dims)
}

// Float adds a scalar constant and returns its name.
func (g *Builder) Float(v float32) string { return g.Floats("", []float32{v}) }

// Ints adds a constant list of integers and returns its name; for a name of ""
// one is generated.
func (g *Builder) Ints(name string, data ...int64) string {
	return g.initializer(name, typeInt64, int64s(data), []int{len(data)})
}

// Bytes adds a constant array of uint8 and returns its name.
func (g *Builder) Bytes(name string, data []byte, dims ...int) string {
	return g.initializer(name, typeUint8, data, dims)
}

// Int adds a constant integer without dimensions and returns its name.
func (g *Builder) Int(v int64) string { return g.initializer("", typeInt64, int64s([]int64{v}), nil) }

func int64s(data []int64) []byte {
	raw := make([]byte, 0, 8*len(data))
	for _, v := range data {
		raw = binary.LittleEndian.AppendUint64(raw, uint64(v))
	}
	return raw
}

func (g *Builder) initializer(name string, dtype int64, raw []byte, dims []int) string {
	if name == "" {
		name = g.Name()
	}
	g.initializers = append(g.initializers, encodeTensor(name, dtype, raw, dims))
	return name
}

// encodeTensor returns a TensorProto.
func encodeTensor(name string, dtype int64, raw []byte, dims []int) (b []byte) {
	for _, d := range dims {
		b = appendInt(b, 1, int64(d))
	}
	b = appendText(appendInt(b, 2, dtype), 8, name)
	return appendBytes(b, 9, raw)
}

func float32s(data []float32) []byte {
	raw := make([]byte, 0, 4*len(data))
	for _, v := range data {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
	}
	return raw
}

// describe returns a ValueInfoProto; a dimension is a size or a name.
func describe(name, doc string, dtype int64, dims []any) []byte {
	var list []byte
	for _, d := range dims {
		if s, ok := d.(string); ok {
			list = appendBytes(list, 1, appendText(nil, 2, s))
		} else {
			list = appendBytes(list, 1, appendInt(nil, 1, int64(d.(int))))
		}
	}
	t := appendBytes(appendInt(nil, 1, dtype), 2, list)
	b := appendBytes(appendText(nil, 1, name), 2, appendBytes(nil, 1, t))
	if doc != "" {
		b = appendText(b, 3, doc)
	}
	return b
}

// Input declares an input of float32. A dimension is a size (int) or the name
// (string) of one that may vary; doc describes the input.
func (g *Builder) Input(name, doc string, dims ...any) { g.InputOf(Float32, name, doc, dims...) }

// InputInts declares an input of int64.
func (g *Builder) InputInts(name, doc string, dims ...any) { g.InputOf(Int64, name, doc, dims...) }

// InputOf declares an input of an element type, such as [Int32].
func (g *Builder) InputOf(dtype int64, name, doc string, dims ...any) {
	g.inputs = append(g.inputs, describe(name, doc, dtype, dims))
}

// Output declares an output, of float32.
func (g *Builder) Output(name, doc string, dims ...any) { g.output(name, doc, typeFloat, dims...) }

// OutputOf declares an output of an element type, such as [Int64].
func (g *Builder) OutputOf(dtype int64, name, doc string, dims ...any) {
	g.output(name, doc, dtype, dims...)
}

func (g *Builder) output(name, doc string, dtype int64, dims ...any) {
	g.outputs = append(g.outputs, describe(name, doc, dtype, dims))
}

// graph returns a GraphProto.
func (g *Builder) graph(name string) []byte {
	var b []byte
	for _, n := range g.nodes {
		b = appendBytes(b, 1, n)
	}
	b = appendText(b, 2, name)
	for _, t := range g.initializers {
		b = appendBytes(b, 5, t)
	}
	if g.Doc != "" {
		b = appendText(b, 10, g.Doc)
	}
	for _, v := range g.inputs {
		b = appendBytes(b, 11, v)
	}
	for _, v := range g.outputs {
		b = appendBytes(b, 12, v)
	}
	return b
}

// encode returns the whole model.
func (g *Builder) encode(name string, ir, opset int64) []byte {
	m := appendInt(nil, 1, ir)
	m = appendText(m, 2, "carousel")
	m = appendBytes(m, 7, g.graph(name))
	for _, domain := range g.domains {
		m = appendBytes(m, 8, appendInt(appendText(nil, 1, domain), 2, 1))
	}
	m = appendBytes(m, 8, appendInt(appendText(nil, 1, ""), 2, opset))
	for _, entry := range g.meta {
		m = appendBytes(m, 14, appendText(appendText(nil, 1, entry[0]), 2, entry[1]))
	}
	return m
}

// Encode returns the bytes of the file that [Builder.Export] writes.
func (g *Builder) Encode() []byte { return g.encode("carousel", exportIR, exportOpset) }

// Model returns the graph, ready to run; path is for messages. A graph that [Read]
// would refuse is an error.
func (g *Builder) Model(path string, on ...*tensor.Device) (*Model, error) {
	b := g.Encode()
	m, err := parse(path, b, on...)
	if err != nil {
		return nil, err
	}
	m.file = func() ([]byte, error) { return b, nil }
	return m, nil
}

// Export writes the graph as a file, after running it on the inputs in with this
// package and, if it is installed, with ONNX Runtime. A graph that does not run,
// an output that differs from want, by name, by more than [Tolerance], or [DynamicTolerance], and the
// errors of writing the file are errors, and a cancelled ctx returns its error; no
// file is written then.
func (g *Builder) Export(ctx context.Context, path string, in map[string]Value, want map[string][]float32) (*Parity, error) {
	m, err := g.Model(path)
	if err != nil {
		return nil, fmt.Errorf("onnx: the written graph cannot be read back: %w", err)
	}
	p, err := m.Compare(ctx, in, want)
	if err != nil {
		return nil, fmt.Errorf("onnx: the written graph: %w", err)
	}
	p.Doc = g.Doc
	return p, model.WriteFileAtomic(path, func(w io.Writer) error {
		b, err := m.file()
		if err == nil {
			_, err = w.Write(b)
		}
		return err
	})
}
