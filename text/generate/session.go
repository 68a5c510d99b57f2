package generate

import (
	"slices"

	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// session is texts in the making, one a row: the network's state after what has
// been read, and what it says of the next token. A step costs the same however
// long the texts have become.
type session struct {
	m     *Model
	tape  *tensor.Tape
	state *nn.SavedState
	next  []float32 // [rows,V], log p of every next token
	steps int       // of the network since the prompts
}

func (m *Model) newSession(rows int) *session {
	return &session{
		m: m, tape: tensor.NewTape(m.slab.Device(), tensor.Infer),
		state: m.net.RNN.NewSavedState(rows), next: make([]float32, rows*m.net.vocabulary),
	}
}

// read makes a session that has read the prompts, side by side: of each, copies
// rows one after the other.
func (m *Model) read(prompts [][]int32, copies int) *session {
	c := &corpus{}
	for _, p := range prompts {
		c.docs = append(c.docs, append(slices.Clone(p), 0)) // the last token of a document is only foretold
	}
	rows := len(prompts)
	s := newStreams(c, rows, m.segment(rows), true, 0)
	out, carry, b := m.newSession(rows*copies), nn.NewCarry(m.net.RNN, rows), &batch{}
	for i := range s.batches {
		s.load(b, 0, i)
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

// begin sets rows from a prompt's last step, item at of x, and the state after it.
func (s *session) begin(first, rows int, x *tensor.Tensor, at int, state *nn.SavedState, row int) {
	last := tensor.Embed(x, s.tape.IDs([]int32{int32(at)}, nil, 1), -1)
	s.m.net.logProb(last).CopyTo(s.row(first))
	for r := first; r < first+rows; r++ {
		s.state.CopyRow(r, state, row)
		copy(s.row(r), s.row(first))
	}
}

// feed reads one more token in each row.
func (s *session) feed(ids []int32) {
	s.tape.Reset()
	x, _, _, to := s.m.net.steps(s.tape, s.tape.IDs(ids, nil, len(ids), 1), s.state.On(s.tape))
	s.state.Save(to)
	s.m.net.logProb(x).CopyTo(s.next)
	s.steps++
}

// row is log p of every next token of a row.
func (s *session) row(r int) []float32 {
	v := s.m.net.vocabulary
	return s.next[r*v : (r+1)*v]
}
