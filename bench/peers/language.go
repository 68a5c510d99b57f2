package main

import (
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/carousel-ml/carousel/internal/bench"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
)

// language is a pass of its own: a whole training step of a word language model
// whose stack is shape B, the state carried from step to step. It has an
// embedding before the stack and a softmax over all words after it, gradients
// clipped at a norm of 1, and AdamW at a rate of 1e-3 without decay.
const (
	language      = "language"
	languageShape = "B"
	vocabulary    = 10000
	languageSteps = 3 // whose losses are compared
)

// text is what a language model reads and predicts, with its weights beside the stack's.
type text struct {
	ids, targets []int32     // [T,B]
	weights      [][]float32 // the embedding [V,I], and the softmax's weights [V,H] and bias [V]
}

func newText(s bench.Shape, words int) *text {
	r := rand.New(rand.NewPCG(7, 8))
	t := &text{}
	for range s.T * s.B {
		t.ids, t.targets = append(t.ids, int32(r.IntN(words))), append(t.targets, int32(r.IntN(words)))
	}
	for _, n := range []int{words * s.I, words * s.H, words} {
		w := make([]float32, n)
		for i := range w {
			w[i] = 0.1 * (2*r.Float32() - 1)
		}
		t.weights = append(t.weights, w)
	}
	return t
}

// write puts the text into files for the other processes.
func (t *text) write(dir string) error {
	var tokens, weights []float32
	for _, id := range append(t.ids, t.targets...) {
		tokens = append(tokens, float32(id)) // exact
	}
	for _, w := range t.weights {
		weights = append(weights, w...)
	}
	if err := os.WriteFile(filepath.Join(dir, "tokens.f32"), rawFloats(tokens), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "words.f32"), rawFloats(weights), 0o644)
}

// languageModel is Carousel's.
type languageModel struct {
	Embedding *nn.Embedding
	RNN       *nn.RNN
	Softmax   *nn.Linear

	text  *text
	shape bench.Shape
	tape  *tensor.Tape
	opt   *optim.Optimizer
	carry *nn.Carry
}

func newLanguageModel(q *problem) *languageModel {
	s := q.shape
	words := len(q.text.weights[2])
	m := &languageModel{
		Embedding: nn.NewEmbedding(words, s.I, nil), RNN: s.Network(tensor.LSTMCell), Softmax: nn.NewLinear(s.H, words, nil), text: q.text, shape: s,
	}
	slab := tensor.Pack(tensor.CPU(), m, 1)
	m.Embedding.Weight.Write(q.text.weights[0])
	for i, p := range m.RNN.Weights {
		p.Write(q.weights[i])
	}
	m.Softmax.Weight.Write(q.text.weights[1])
	m.Softmax.Bias.Write(q.text.weights[2])
	m.tape = tensor.NewTape(slab.Device(), tensor.Train)
	m.opt = optim.NewAdamW(slab, nil)
	m.carry = nn.NewCarry(m.RNN, s.B)
	return m
}

// step trains and returns the loss.
func (m *languageModel) step() float32 {
	s := m.shape
	m.tape.Reset()
	x := m.Embedding.Forward(m.tape.IDs(m.text.ids, nil, s.T, s.B))
	y, to := m.RNN.Forward(x, m.carry.Begin(m.tape, nil))
	m.carry.End(to)
	loss := tensor.CrossEntropy(m.Softmax.Forward(y), m.tape.IDs(m.text.targets, nil, s.T, s.B), nil)
	loss.Backward()
	m.opt.ClipNorm(1)
	m.opt.Step(1e-3)
	return loss.Item()
}
