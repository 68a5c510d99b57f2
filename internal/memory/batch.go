package memory

import (
	"math/rand/v2"

	"github.com/carousel-ml/carousel/train"
)

// batch is n sequences. Buffers are refilled.
type batch struct {
	problem   *problem
	seed      uint64
	source    rand.PCG
	n, length int
	steps     int // of the longest possible sequence
	x         []float32
	lengths   []int32 // [n]
	y         []float32
	next      []int32
	legal     []uint8
	margin    float64 // by which outputs must be right
}

// Sequences are numbered, and determined by number and seed. Each use has
// different numbers.
const (
	training uint64 = iota << 56
	checking
	tested
	probing
)

// ignored is a step without a target, as in tensor.CrossEntropy.
const ignored = -100

func (m *Model) newBatch() *batch {
	length := m.cfg.length()
	return &batch{problem: m.problem, seed: m.cfg.Seed, length: length, steps: m.problem.steps(length)}
}

// load fills the batch with n sequences of a use, from number first on.
func (b *batch) load(use uint64, first, n int) {
	b.resize(n)
	for row := range n {
		b.draw(row, use+uint64(first+row))
	}
}

func (b *batch) resize(n int) {
	p := b.problem
	b.n = n
	b.x, b.lengths, b.y = zeroed(b.x, n*b.steps*p.inputs), zeroed(b.lengths, n), zeroed(b.y, n)
	b.next, b.legal = zeroed(b.next, n*b.steps), zeroed(b.legal, n*b.steps)
}

// draw makes the sequence of a number.
func (b *batch) draw(row int, number uint64) {
	b.source.Seed(b.seed^0x6d656d6f7279, number) // not the stream of the initial weights
	width := b.steps * b.problem.inputs
	s := sequence{
		Rand: rand.New(&b.source), x: b.x[row*width:][:width], length: b.steps,
		next: b.next[row*b.steps:][:b.steps], legal: b.legal[row*b.steps:][:b.steps],
	}
	s.reset()
	b.problem.draw(&s, b.length)
	b.lengths[row], b.y[row] = int32(s.length), s.y
}

// zeroed returns n zeros, in the memory of old if it is large enough.
func zeroed[T any](old []T, n int) []T {
	s := train.Resize(old, n)
	clear(s)
	return s
}
