package main

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"github.com/carousel-ml/carousel/internal/bench"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
)

// Two passes are whole training steps of models around the stack, with gradients
// clipped at a norm of 1 and AdamW at a rate of 1e-3 without decay. The first
// lessonSteps losses are compared.
const (
	language    = "language" // shape B with an embedding before it and a softmax over all words after it, the state carried on
	speech      = "speech"   // shape C with the units of a text after it and CTC
	lessonSteps = 3
)

// lessons are the shapes of those passes, and the sizes of their softmax.
var lessons = map[string]struct {
	shape   string
	classes int
}{language: {"B", 10000}, speech: {"C", 29}}

const textLength = 30 // units that a row of shape C spells

// lesson is what such a model reads and is taught, with its weights beside the stack's.
type lesson struct {
	pass    string
	classes int
	ids     []int32     // language: [T,B], in place of the problem's x
	targets []int32     // language: [T,B]; speech: [B,textLength], of classes from 1 on
	weights [][]float32 // language: first the embedding [classes,I]; the softmax's weights [classes,H] and bias [classes]
}

func newLesson(pass string, s bench.Shape, classes int) *lesson {
	r := rand.New(rand.NewPCG(7, 8))
	l := &lesson{pass: pass, classes: classes}
	sizes := []int{classes * s.H, classes}
	if pass == language {
		sizes = slices.Insert(sizes, 0, classes*s.I)
		for range s.T * s.B {
			l.ids, l.targets = append(l.ids, int32(r.IntN(classes))), append(l.targets, int32(r.IntN(classes)))
		}
	} else {
		for range s.B * textLength {
			l.targets = append(l.targets, 1+int32(r.IntN(classes-1)))
		}
	}
	for _, n := range sizes {
		w := make([]float32, n)
		for i := range w {
			w[i] = 0.1 * (2*r.Float32() - 1)
		}
		l.weights = append(l.weights, w)
	}
	return l
}

// flop counts the products of the softmax of a pass forward.
func (l *lesson) flop(s bench.Shape) float64 { return float64(2 * s.H * l.classes * s.T * s.B) }

// write puts the lesson into files for the other processes.
func (l *lesson) write(dir string) error {
	var tokens, weights []float32
	for _, id := range append(slices.Clone(l.ids), l.targets...) {
		tokens = append(tokens, float32(id)) // exact
	}
	for _, w := range l.weights {
		weights = append(weights, w...)
	}
	if err := os.WriteFile(filepath.Join(dir, "tokens.f32"), rawFloats(tokens), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "lesson.f32"), rawFloats(weights), 0o644)
}

// learner is Carousel's model of a lesson.
type learner struct {
	Embedding *nn.Embedding // nil: reads x
	RNN       *nn.RNN
	Softmax   *nn.Linear

	q     *problem
	tape  *tensor.Tape
	opt   *optim.Optimizer
	carry *nn.Carry
}

func newLearner(q *problem) *learner {
	s, l := q.shape, q.lesson
	m := &learner{RNN: s.Network(tensor.LSTMCell), Softmax: nn.NewLinear(s.H, l.classes, nil), q: q}
	if l.pass == language {
		m.Embedding = nn.NewEmbedding(l.classes, s.I, nil)
	}
	slab := tensor.Pack(tensor.CPU(), m, 1)
	own := l.weights
	if m.Embedding != nil {
		m.Embedding.Weight.Write(own[0])
		own = own[1:]
	}
	for i, p := range m.RNN.Weights {
		p.Write(q.weights[i])
	}
	m.Softmax.Weight.Write(own[0])
	m.Softmax.Bias.Write(own[1])
	m.tape = tensor.NewTape(slab.Device(), tensor.Train)
	m.opt = optim.NewAdamW(slab, nil)
	m.carry = nn.NewCarry(m.RNN, s.B)
	return m
}

// step trains and returns the loss.
func (m *learner) step() float32 {
	m.tape.Reset()
	loss := m.loss()
	loss.Backward()
	m.opt.ClipNorm(1)
	m.opt.Step(1e-3)
	return loss.Item()
}

func (m *learner) loss() *tensor.Tensor {
	s, l := m.q.shape, m.q.lesson
	if l.pass == language {
		x := m.Embedding.Forward(m.tape.IDs(l.ids, nil, s.T, s.B))
		y, to := m.RNN.Forward(x, m.carry.Begin(m.tape, nil))
		m.carry.End(to)
		return tensor.CrossEntropy(m.Softmax.Forward(y), m.tape.IDs(l.targets, nil, s.T, s.B), nil)
	}
	y, _ := m.RNN.Forward(m.tape.Input(m.q.x, s.T, s.B, s.I), nil)
	loss, _ := tensor.CTC(tensor.Transpose(m.Softmax.Forward(y), 0, 1), m.tape.IDs(l.targets, nil, s.B, textLength), nil)
	return loss
}
