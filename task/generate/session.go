package generate

import (
	"slices"

	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// session is texts that are being generated: the network's state after each, and
// the distribution of its next token. A step takes the same time whatever the
// length of the texts, and is computed only for texts that continue.
type session struct {
	m      *Model
	tape   *tensor.Tape
	states *nn.States // a row per text
	open   []int32    // the texts that continue
	next   []float32  // [len(open),V] log p of their next tokens
	steps  int        // steps of the network after the prompts
}

func (m *Model) newSession(texts int) *session {
	s := &session{
		m: m, tape: tensor.NewTape(m.slab.Device(), tensor.Infer),
		states: m.net.RNN.NewStates(m.slab.Device(), texts), next: make([]float32, texts*m.net.vocabulary),
	}
	for i := range texts {
		s.open = append(s.open, int32(i))
	}
	return s
}

// read returns a session that has read the prompts in parallel, each for copies
// consecutive rows.
func (m *Model) read(prompts [][]int32, copies int) *session {
	var texts [][]int32
	for _, p := range prompts {
		texts = append(texts, append(slices.Clone(p), 0)) // the last token of a document is a target only, never an input
	}
	rows := len(prompts)
	s := newStreams(corpusOf(texts...), rows, m.segment(rows), true, 0)
	out, carry, b := m.newSession(rows*copies), nn.NewCarry(m.net.RNN, rows), &batch{}
	for i := range s.batches {
		_ = s.load(b, 0, i, 0, rows) // from memory
		out.tape.Reset()
		x, _, _, to := m.net.steps(out.tape, b.input(out.tape), carry.Begin(out.tape, b.begins))
		carry.End(to)
		for r, p := range b.parts {
			if p.steps() > 0 && p.to == len(prompts[p.doc]) {
				out.begin(p.doc*copies, copies, x, r*b.T+p.steps()-1, &carry.SavedState, r)
			}
		}
	}
	return out
}

// begin sets rows to the state after a prompt; at is the row of x with its last
// step.
func (s *session) begin(first, rows int, x *tensor.Tensor, at int, state *nn.SavedState, row int) {
	last := tensor.Embed(x, s.tape.IDs([]int32{int32(at)}, nil, 1), -1)
	s.m.net.logProb(last).CopyTo(s.row(first))
	for r := first; r < first+rows; r++ {
		s.states.Set(r, state, row)
		copy(s.row(r), s.row(first))
	}
}

// feed reads one more token for some of the texts, in ascending order; the others
// end.
func (s *session) feed(texts, ids []int32) {
	s.open = append(s.open[:0], texts...)
	s.tape.Reset()
	x, _, _, to := s.m.net.steps(s.tape, s.tape.IDs(ids, nil, len(ids), 1), s.states.On(s.tape, s.open))
	s.states.Keep(s.open, to)
	s.next = s.next[:len(ids)*s.m.net.vocabulary]
	s.m.net.logProb(x).CopyTo(s.next)
	s.steps++
}

// row returns log p of the next token of the k-th text that continues.
func (s *session) row(k int) []float32 {
	v := s.m.net.vocabulary
	return s.next[k*v : (k+1)*v]
}

// close frees the states' memory.
func (s *session) close() { s.states.Free() }
