package translate

import (
	"context"

	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// encoded is sources after the encoder, off any tape.
type encoded struct {
	sources      [][]int32
	values, keys [][]float32 // of each source, [its length, width]
	state        *nn.SavedState
	last         *nn.SavedState // of the encoder
}

// encodeAll runs the encoder over sources, from a state of it (nil: its beginning).
func (n *network) encodeAll(tape *tensor.Tape, sources [][]int32, from *nn.SavedState) *encoded {
	e := &encoded{sources: sources}
	S := 0
	for _, s := range sources {
		S = max(S, len(s))
	}
	var ids, lengths []int32
	for _, s := range sources {
		ids, lengths = pad(ids, lengths, s, S, 0)
	}
	tape.Reset()
	var begin *nn.State
	if from != nil {
		begin = from.On(tape)
	}
	m, state, last := n.encode(tape.IDs(ids, lengths, len(sources), S), begin)
	e.values, e.keys = rowsOf(m.values, lengths), rowsOf(m.keys, lengths)
	e.last = n.Encoder.NewSavedState(len(sources))
	e.last.Save(last)
	if state != nil {
		e.state = n.Decoder.NewSavedState(len(sources))
		e.state.Save(state)
	}
	return e
}

// rowsOf copies each row of x [B,T,F] up to its length.
func rowsOf(x *tensor.Tensor, lengths []int32) [][]float32 {
	all, T, F := x.Data(), x.Dim(1), x.Dim(2)
	rows := make([][]float32, len(lengths))
	for i, n := range lengths {
		rows[i] = all[i*T*F:][:int(n)*F]
	}
	return rows
}

// decoding searches for the translations of encoded sources, all of them
// together: a step of the network covers every hypothesis of every sentence that
// is not done. Each sentence has the same number of rows, beam; those without a
// hypothesis repeat the first.
type decoding struct {
	n       *network
	tape    *tensor.Tape
	e       *encoded
	beam    int
	begin   int32
	active  []int     // sentences under way
	all     []*search // of every sentence
	state   *nn.SavedState
	spare   *nn.SavedState
	feed    []float32 // [rows,width] with input feeding
	covered []float32 // [rows,S] with coverage
	tokens  []int32   // [rows], what the decoder reads next
	fresh   bool      // active changed: values and keys must be laid out anew

	S            int
	lengths      []int32
	values, keys []float32
	logProbs     []float32
	attention    []float32
}

// run goes on until every sentence is done, or the context is cancelled.
func (d *decoding) run(ctx context.Context) error {
	rows := len(d.all) * d.beam
	for i := range d.all {
		d.active = append(d.active, i)
	}
	d.tokens = make([]int32, rows)
	for i := range d.tokens {
		d.tokens[i] = d.begin
	}
	if d.e.state != nil {
		d.state = d.n.Decoder.NewSavedState(rows)
		for r := range rows {
			d.state.CopyRow(r, d.e.state, r/d.beam)
		}
	}
	d.fresh = true
	if d.n.cfg.InputFeeding {
		d.feed = make([]float32, rows*d.n.width())
	}
	for len(d.active) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		d.layOut()
		d.forward()
		d.advance()
	}
	return nil
}

// layOut gathers what the active sentences look at.
func (d *decoding) layOut() {
	if !d.fresh {
		return
	}
	d.fresh = false
	before := d.S
	d.S, d.lengths = 0, d.lengths[:0]
	for _, i := range d.active {
		d.S = max(d.S, len(d.e.sources[i]))
		d.lengths = append(d.lengths, int32(len(d.e.sources[i])))
	}
	d.values, d.keys = d.gather(d.values, d.e.values), d.gather(d.keys, d.e.keys)
	switch {
	case !d.n.cfg.Coverage:
	case d.covered == nil:
		d.covered = make([]float32, len(d.tokens)*d.S)
	case d.S < before: // the columns past the longest source go
		for r := range d.tokens {
			copy(d.covered[r*d.S:][:d.S], d.covered[r*before:])
		}
		d.covered = d.covered[:len(d.tokens)*d.S]
	}
}

// gather pads the active sentences' rows to one block [active,S,F].
func (d *decoding) gather(dst []float32, rows [][]float32) []float32 {
	width := len(rows[0]) / len(d.e.sources[0])
	if n := len(d.active) * d.S * width; cap(dst) < n {
		dst = make([]float32, n)
	} else {
		dst = dst[:n]
	}
	for k, i := range d.active {
		block := dst[k*d.S*width:][:d.S*width]
		clear(block[copy(block, rows[i]):])
	}
	return dst
}

// forward is one step of the decoder for all rows.
func (d *decoding) forward() {
	n, tape, B, rows := d.n, d.tape, len(d.active), len(d.tokens)
	tape.Reset()
	x := n.Target.Forward(tape.IDs(d.tokens, nil, rows, 1))
	if n.cfg.InputFeeding {
		x = tensor.Concat(-1, x, tape.Input(d.feed, rows, 1, n.width()))
	}
	var from *nn.State
	if d.state != nil {
		from = d.state.On(tape)
	}
	h, state := n.Decoder.Forward(x, from)
	m := memory{
		values: tape.Sequences(d.values, d.lengths, B, d.S, len(d.values)/(B*d.S)),
		keys:   tape.Input(d.keys, B, d.S, len(d.keys)/(B*d.S)),
	}
	var coverage *tensor.Tensor
	if n.cfg.Coverage {
		coverage = tape.Input(d.covered, B, d.beam, d.S)
	}
	o, weights := n.attend(tensor.Reshape(h, B, d.beam, h.Dim(2)), m, coverage)
	logProbs := tensor.LogSoftmax(n.Output.Forward(o))
	d.logProbs = fetch(d.logProbs, logProbs)
	d.attention = fetch(d.attention, weights)
	if n.cfg.InputFeeding {
		d.feed = fetch(d.feed, o)
	}
	if d.state == nil || d.state.Rows() != rows {
		d.state = n.Decoder.NewSavedState(rows)
	}
	d.state.Save(state)
}

// fetch copies x to dst, grown as needed.
func fetch(dst []float32, x *tensor.Tensor) []float32 {
	if cap(dst) < x.Len() {
		dst = make([]float32, x.Len())
	}
	dst = dst[:x.Len()]
	x.CopyTo(dst)
	return dst
}

// advance lets every search take its step, and puts the rows that go on in order.
func (d *decoding) advance() {
	V := len(d.logProbs) / len(d.tokens)
	logProbs, attention := make([][]float32, d.beam), make([][]float32, d.beam)
	var still []int
	var parents []int // the present row of each row to come
	d.tokens = d.tokens[:0]
	for k, i := range d.active {
		s := d.all[i]
		for j := range s.live {
			r := k*d.beam + j
			logProbs[j], attention[j] = d.logProbs[r*V:][:V], d.attention[r*d.S:][:d.S]
		}
		if !s.step(logProbs, attention) {
			continue
		}
		still = append(still, i)
		for j := range d.beam {
			h := &s.live[0]
			if j < len(s.live) {
				h = &s.live[j]
			}
			parents = append(parents, k*d.beam+h.row)
			d.tokens = append(d.tokens, h.last.token)
		}
	}
	d.fresh = len(still) != len(d.active)
	d.active = still
	d.reorder(parents)
}

// reorder gives each row the state of the row it comes from.
func (d *decoding) reorder(parents []int) {
	if d.spare == nil || d.spare.Rows() != len(parents) {
		d.spare = d.n.Decoder.NewSavedState(len(parents))
	}
	for r, p := range parents {
		d.spare.CopyRow(r, d.state, p)
	}
	d.state, d.spare = d.spare, d.state
	if d.feed != nil {
		d.feed = pick(d.feed, parents, d.n.width())
	}
	if d.covered != nil {
		for i, w := range d.attention {
			d.covered[i] += w
		}
		d.covered = pick(d.covered, parents, d.S)
	}
}

// pick gathers rows of width numbers.
func pick(x []float32, rows []int, width int) []float32 {
	out := make([]float32, 0, len(rows)*width)
	for _, r := range rows {
		out = append(out, x[r*width:][:width]...)
	}
	return out
}
