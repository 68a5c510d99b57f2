package translate

import (
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// batch is pairs padded to the length of the longest. Buffers are refilled.
type batch struct {
	rows, S, T    int
	source        []int32 // [rows,S]
	sourceLengths []int32
	inputs        []int32 // [rows,T]: the begin token and the target
	outputs       []int32 // [rows,T]: the target and the end token; ignored in the padding
	targetLengths []int32
	tokens        int // number of output tokens

	before        []int32 // [rows,R]: the sources of the lines before; empty without CarryState
	beforeLengths []int32 // 0 if there is no line before
	R             int
	carried       *nn.SavedState // the encoder's state after these, set by carry
}

// ignored is the class that is not part of the loss.
const ignored = -100

// load fills the batch with pairs of a corpus.
func (b *batch) load(c *corpus, samples []int, begin, end int32, carry bool) {
	*b = batch{
		rows: len(samples), source: b.source[:0], inputs: b.inputs[:0], outputs: b.outputs[:0], before: b.before[:0],
		sourceLengths: b.sourceLengths[:0], targetLengths: b.targetLengths[:0], beforeLengths: b.beforeLengths[:0], carried: b.carried,
	}
	line := func(i int) []int32 {
		if i == 0 {
			return nil
		}
		return c.source.at(i - 1)
	}
	for _, i := range samples {
		b.S, b.T = max(b.S, len(c.source.at(i))), max(b.T, len(c.target.at(i))+1)
		if carry {
			b.R = max(b.R, len(line(i)))
		}
	}
	for _, i := range samples {
		b.source, b.sourceLengths = pad(b.source, b.sourceLengths, c.source.at(i), b.S, 0)
		target := c.target.at(i)
		b.inputs = append(b.inputs, begin)
		b.inputs, b.targetLengths = pad(b.inputs, b.targetLengths, target, b.T-1, 0)
		b.targetLengths[len(b.targetLengths)-1]++
		b.outputs = append(append(b.outputs, target...), end)
		for range b.T - 1 - len(target) {
			b.outputs = append(b.outputs, ignored)
		}
		b.tokens += len(target) + 1
		if carry {
			b.before, b.beforeLengths = pad(b.before, b.beforeLengths, line(i), b.R, 0)
		}
	}
}

// pad appends a row of width ids, and its length.
func pad(dst, lengths, ids []int32, width int, with int32) (_, _ []int32) {
	dst = append(dst, ids...)
	for range width - len(ids) {
		dst = append(dst, with)
	}
	return dst, append(lengths, int32(len(ids)))
}

// carry runs the encoder over the lines before on a separate tape and keeps its
// state: no gradient passes through it.
func (b *batch) carry(n *network, tape *tensor.Tape) {
	if b.R == 0 {
		return
	}
	tape.Reset()
	_, _, last := n.encode(tape.IDs(b.before, b.beforeLengths, b.rows, b.R), nil)
	if b.carried == nil || b.carried.Rows() != b.rows {
		b.carried = n.Encoder.NewSavedState(b.rows)
	}
	b.carried.Save(last)
	n.forwardOnly(b.carried)
}

// from returns the initial state of the encoder for the batch.
func (b *batch) from(n *network, tape *tensor.Tape) *nn.State {
	if b.R == 0 {
		return nil
	}
	return b.carried.On(tape)
}

// forwardOnly clears the state of the backward directions, which start again with
// every text.
func (n *network) forwardOnly(s *nn.SavedState) {
	if n.Encoder.Directions() == 1 {
		return
	}
	for _, part := range [][]float32{s.H(), s.C()} {
		slot := len(part) / (2 * n.Encoder.Layers())
		for l := range n.Encoder.Layers() {
			clear(part[(2*l+1)*slot : (2*l+2)*slot])
		}
	}
}
