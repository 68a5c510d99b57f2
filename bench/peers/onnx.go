package main

import (
	"encoding/binary"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/carousel-ml/carousel/internal/bench"
)

// A writer of just the ONNX messages that a stack of LSTM nodes needs. Field
// numbers are those of onnx.proto (IR version 8, operator set 14).

type message []byte

func (m *message) bytes(field protowire.Number, b []byte) {
	*m = protowire.AppendTag(*m, field, protowire.BytesType)
	*m = protowire.AppendBytes(*m, b)
}

func (m *message) text(field protowire.Number, s string) { m.bytes(field, []byte(s)) }

func (m *message) number(field protowire.Number, v int) {
	*m = protowire.AppendTag(*m, field, protowire.VarintType)
	*m = protowire.AppendVarint(*m, uint64(v))
}

// Values of TensorProto.DataType and AttributeProto.AttributeType.
const (
	onnxFloat = 1
	onnxInt64 = 7
	onnxInt   = 2
)

// tensorProto is a constant; raw holds its elements as little-endian bytes.
func tensorProto(name string, kind int, raw []byte, dims ...int) message {
	var m message
	for _, d := range dims {
		m.number(1, d)
	}
	m.number(2, kind)
	m.text(8, name)
	m.bytes(9, raw)
	return m
}

func node(op string, inputs, outputs []string) message {
	var m message
	for _, name := range inputs {
		m.text(1, name)
	}
	for _, name := range outputs {
		m.text(2, name)
	}
	m.text(4, op)
	return m
}

// valueInfo declares a float tensor; a dimension below 0 is free.
func valueInfo(name string, dims ...int) message {
	var shape message
	for i, d := range dims {
		var dim message
		if d >= 0 {
			dim.number(1, d)
		} else {
			dim.text(2, fmt.Sprintf("d%d", i))
		}
		shape.bytes(1, dim)
	}
	var tensor, typ, m message
	tensor.number(1, onnxFloat)
	tensor.bytes(2, shape)
	typ.bytes(1, tensor)
	m.text(1, name)
	m.bytes(2, typ)
	return m
}

// onnxModel is the shape's LSTM as an ONNX model from x [T,B,I] to [T,B,H].
// weights hold for each layer weight_ih, weight_hh, bias_ih, bias_hh in the order
// of gates i,f,g,o. ONNX wants i,o,f,c and gives an extra dimension of directions.
func onnxModel(s bench.Shape, weights [][]float32) []byte {
	var graph message
	x := "x"
	graph.bytes(5, tensorProto("axes", onnxInt64, binary.LittleEndian.AppendUint64(nil, 1), 1))
	for layer := range s.L {
		w := weights[4*layer:]
		name := func(prefix string) string { return fmt.Sprintf("%s%d", prefix, layer) }
		biases := append(gatesIOFC(w[2]), gatesIOFC(w[3])...)
		graph.bytes(5, tensorProto(name("W"), onnxFloat, rawFloats(gatesIOFC(w[0])), 1, 4*s.H, s.Input(layer)))
		graph.bytes(5, tensorProto(name("R"), onnxFloat, rawFloats(gatesIOFC(w[1])), 1, 4*s.H, s.H))
		graph.bytes(5, tensorProto(name("B"), onnxFloat, rawFloats(biases), 1, 8*s.H))
		lstm := node("LSTM", []string{x, name("W"), name("R"), name("B")}, []string{name("directions")})
		var hidden message
		hidden.text(1, "hidden_size")
		hidden.number(3, s.H)
		hidden.number(20, onnxInt)
		lstm.bytes(5, hidden)
		graph.bytes(1, lstm)
		x = name("y")
		graph.bytes(1, node("Squeeze", []string{name("directions"), "axes"}, []string{x}))
	}
	graph.text(2, "lstm")
	graph.bytes(11, valueInfo("x", -1, -1, s.I))
	graph.bytes(12, valueInfo(x, -1, -1, s.H))

	var opset, m message
	opset.text(1, "")
	opset.number(2, 14)
	m.number(1, 8)
	m.bytes(7, graph)
	m.bytes(8, opset)
	return m
}

// gatesIOFC reorders four equal blocks from i,f,g,o to i,o,f,g; ONNX calls g c.
func gatesIOFC(w []float32) []float32 {
	n := len(w) / 4
	out := make([]float32, 0, len(w))
	for _, gate := range []int{0, 3, 1, 2} {
		out = append(out, w[gate*n:(gate+1)*n]...)
	}
	return out
}

// rawFloats is v as little-endian bytes.
func rawFloats(v []float32) []byte {
	raw := make([]byte, 0, 4*len(v))
	for _, x := range v {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
	}
	return raw
}

func floatsOf(raw []byte) []float32 {
	v := make([]float32, len(raw)/4)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return v
}
