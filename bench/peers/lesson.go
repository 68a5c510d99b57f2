package main

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/bench"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/tensor"
)

// Three passes are whole training steps, with gradients clipped at a norm of 1 and
// AdamW with a learning rate of 1e-3 without decay: step of the stack alone, and
// two of models around it. The first lessonSteps losses are compared.
const (
	language    = "language" // shape B with an embedding before it and a softmax over all words after it, the state carried on
	speech      = "speech"   // a stack like shape C's, but in both directions, over rows of half to all the steps, with the units of a text after it and CTC
	lessonSteps = 3
)

// lessons are the shapes of the two passes, and the sizes of their softmax.
var lessons = map[string]struct {
	shape   string
	classes int
}{language: {"B", 10000}, speech: {"C", 29}}

const textLength = 30 // units that a row of shape C spells

// lesson is the inputs and targets of such a model, with its weights beside the
// stack's.
type lesson struct {
	pass    string
	classes int
	ids     []int32     // language: [T,B], in place of the problem's x
	targets []int32     // language: [T,B]; speech: [B,textLength], of classes from 1 on
	lengths []int32     // speech: [B], steps of each row of x, which is [B,T,I] here
	weights [][]float32 // language: first the embedding [classes,I]; speech: first the stack's; the softmax's weights and bias
}

func newLesson(pass string, s bench.Shape, classes int) *lesson {
	r := rand.New(rand.NewPCG(7, 8))
	l := &lesson{pass: pass, classes: classes}
	sizes := []int{classes * s.I, classes * s.H, classes}
	if pass == language {
		for range s.T * s.B {
			l.ids, l.targets = append(l.ids, int32(r.IntN(classes))), append(l.targets, int32(r.IntN(classes)))
		}
	} else {
		sizes = nil
		for _, p := range tensor.Pack(tensor.CPU(), listener(s), 1).Params {
			sizes = append(sizes, p.Len())
		}
		sizes = append(sizes, classes*2*s.H, classes)
		for range s.B {
			l.lengths = append(l.lengths, int32(s.T/2+r.IntN(s.T/2+1)))
		}
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

// listener returns the recurrent stack for speech.
func listener(s bench.Shape) *nn.RNN {
	return nn.NewLSTM(s.I, s.H, &nn.RNNOptions{Layers: s.L, Bidirectional: true})
}

// flop counts the operations of the products of a forward pass; stack is that of
// the recurrent stack. Padding is not counted.
func (l *lesson) flop(s bench.Shape, stack float64) float64 {
	if l.pass == language {
		return stack + float64(2*s.H*l.classes*s.T*s.B)
	}
	steps, weights := 0, 2*s.H*l.classes
	for _, n := range l.lengths {
		steps += int(n)
	}
	for layer := range s.L {
		in := s.I
		if layer > 0 {
			in = 2 * s.H
		}
		weights += 2 * 4 * s.H * (in + s.H)
	}
	return float64(2 * weights * steps)
}

// write writes the lesson to files for the other processes.
func (l *lesson) write(dir string) error {
	var tokens, weights []float32
	for _, id := range slices.Concat(l.ids, l.lengths, l.targets) {
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

// learner is Carousel's model of a pass that is a whole training step.
type learner struct {
	Embedding *nn.Embedding // nil: reads x
	RNN       *nn.RNN
	Softmax   *nn.Linear // nil: the pass is step

	pass  string
	q     *problem
	tape  *tensor.Tape
	opt   *optim.Optimizer
	scale *optim.GradScaler // of float16
	carry *nn.Carry         // of language
}

func newLearner(q *problem, pass string, precision tensor.Precision) *learner {
	s, l := q.shape, q.lesson
	m := &learner{q: q, pass: pass}
	stack := q.weights
	var own [][]float32
	switch pass {
	case step:
		m.RNN = s.Network(cell.LSTM)
	case language:
		m.Embedding, m.RNN, m.Softmax = nn.NewEmbedding(l.classes, s.I, nil), s.Network(cell.LSTM), nn.NewLinear(s.H, l.classes, nil)
		own = l.weights
	case speech:
		m.RNN, m.Softmax = listener(s), nn.NewLinear(2*s.H, l.classes, nil)
		n := len(l.weights) - 2
		stack, own = l.weights[:n], l.weights[n:]
	}
	slab := tensor.Pack(tensor.CPU(), m, 1)
	if m.Embedding != nil {
		m.Embedding.Weight.Write(own[0])
		own = own[1:]
	}
	for i, p := range m.RNN.Weights {
		p.Write(stack[i])
	}
	if m.Softmax != nil {
		m.Softmax.Weight.Write(own[0])
		m.Softmax.Bias.Write(own[1])
	}
	m.tape = tensor.NewTape(slab.Device(), tensor.Train)
	m.tape.SetPrecision(precision)
	m.opt = optim.NewAdamW(slab, nil)
	if precision == tensor.Float16 {
		m.scale = optim.NewGradScaler(nil)
	}
	if pass == language {
		m.carry = nn.NewCarry(m.RNN, s.B)
	}
	return m
}

// step trains one step and returns the loss.
func (m *learner) step() float32 {
	m.tape.Reset()
	loss := m.loss()
	m.scale.Scale(loss).Backward()
	m.scale.Unscale(m.opt)
	m.opt.ClipNorm(1)
	m.scale.Step(m.opt, 1e-3)
	m.scale.Update()
	return loss.Item()
}

func (m *learner) loss() *tensor.Tensor {
	s, l := m.q.shape, m.q.lesson
	switch m.pass {
	case step:
		y, _ := m.RNN.Forward(m.tape.Input(m.q.x, s.T, s.B, s.I), nil)
		return tensor.MSE(y, m.tape.Input(m.q.p, s.T, s.B, s.H), nil)
	case language:
		x := m.Embedding.Forward(m.tape.IDs(l.ids, nil, s.T, s.B))
		y, to := m.RNN.Forward(x, m.carry.Begin(m.tape, nil))
		m.carry.End(to)
		return tensor.CrossEntropy(m.Softmax.Forward(y), m.tape.IDs(l.targets, nil, s.T, s.B), nil)
	}
	y, _ := m.RNN.Forward(m.tape.Sequences(m.q.x, l.lengths, s.B, s.T, s.I), nil)
	loss, _ := tensor.CTC(m.Softmax.Forward(y), m.tape.IDs(l.targets, nil, s.B, textLength), nil)
	return loss
}
