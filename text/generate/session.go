package generate

import (
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
	steps int       // of the network so far
}

func (m *Model) newSession(rows int) *session {
	return &session{m: m, tape: tensor.NewTape(m.slab.Device(), tensor.Infer), state: m.net.RNN.NewSavedState(rows)}
}

// read feeds one text to a session of one row, in segments of bounded size.
func (s *session) read(ids []int32) {
	for len(ids) > 0 {
		n := min(len(ids), evaluationSteps)
		s.feed(ids[:n], n == len(ids))
		ids = ids[n:]
	}
}

// feed reads the same number of tokens in each row, ids [rows,T]; look: the
// distribution of the next token is wanted.
func (s *session) feed(ids []int32, look bool) {
	rows, net := s.state.Rows(), s.m.net
	T := len(ids) / rows
	s.tape.Reset()
	x, _, _, to := net.steps(s.tape, s.tape.IDs(ids, nil, rows, T), s.state.On(s.tape))
	s.state.Save(to)
	s.steps += T
	if !look {
		return
	}
	if T > 1 {
		x = tensor.Last(tensor.Reshape(x, rows, T, x.Dim(1)))
	}
	s.next = resize(s.next, rows*net.vocabulary)
	net.logProb(x).CopyTo(s.next)
}

// split is a session of rows copies of one of a single row.
func (s *session) split(rows int) *session {
	c := s.m.newSession(rows)
	c.steps = s.steps
	for r := range rows {
		c.state.CopyRow(r, s.state, 0)
		c.next = append(c.next, s.next...)
	}
	return c
}

// row is log p of every next token of a row.
func (s *session) row(r int) []float32 {
	v := s.m.net.vocabulary
	return s.next[r*v : (r+1)*v]
}
