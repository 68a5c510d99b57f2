package translate

import (
	"context"

	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// encoded is sources after the encoder, in the memory of the device.
type encoded struct {
	lengths      []int32       // of the sources
	S            int           // length of the longest
	values, keys *tensor.Table // [1,sources,S*width]
	state        *nn.SavedState
	last         *nn.SavedState // final state of the encoder
}

// encodeAll runs the encoder over sources, from a state (nil: the initial one).
func (n *network) encodeAll(tape *tensor.Tape, sources [][]int32, from *nn.SavedState) *encoded {
	e := &encoded{}
	for _, s := range sources {
		e.S = max(e.S, len(s))
	}
	var ids []int32
	for _, s := range sources {
		ids, e.lengths = pad(ids, e.lengths, s, e.S, 0)
	}
	tape.Reset()
	var begin *nn.State
	if from != nil {
		begin = from.On(tape)
	}
	m, state, last := n.encode(tape.IDs(ids, e.lengths, len(sources), e.S), begin)
	e.values, e.keys = kept(m.values), kept(m.keys)
	e.last = n.Encoder.NewSavedState(len(sources))
	e.last.Save(last)
	if state != nil {
		e.state = n.Decoder.NewSavedState(len(sources))
		e.state.Save(state)
	}
	return e
}

// kept returns the rows of x [B,T,F] as a table.
func kept(x *tensor.Tensor) *tensor.Table {
	tape, B, width := x.Tape(), x.Dim(0), x.Dim(1)*x.Dim(2)
	table := tensor.NewTable(tape.Device(), 1, B, width)
	tape.Scatter(table, upTo(B), tensor.Reshape(x, 1, B, width))
	return table
}

// upTo returns 0, 1, ..., n-1.
func upTo(n int) []int32 {
	list := make([]int32, n)
	for i := range list {
		list[i] = int32(i)
	}
	return list
}

// free frees the memory.
func (e *encoded) free() {
	e.values.Free()
	e.keys.Free()
}

// keep keeps some of the sources, by their indices.
func (e *encoded) keep(tape *tensor.Tape, places []int32) {
	lengths := make([]int32, len(places))
	for i, k := range places {
		lengths[i] = e.lengths[k]
	}
	e.lengths = lengths
	for _, t := range []**tensor.Table{&e.values, &e.keys} {
		tape.Reset()
		fewer := tensor.NewTable(tape.Device(), 1, len(places), (*t).Width())
		tape.Scatter(fewer, upTo(len(places)), tape.Gather(*t, places))
		(*t).Free()
		*t = fewer
	}
}

// memory returns the sources as the decoder reads them, without a copy.
func (e *encoded) memory(tape *tensor.Tape) memory {
	B := len(e.lengths)
	return memory{
		values: tape.SequencesOf(e.values, e.lengths, e.S),
		keys:   tensor.Reshape(tape.View(e.keys), B, e.S, e.keys.Width()/e.S),
	}
}

// decoding searches for the translations of encoded sources in parallel: a step
// of the network computes every hypothesis of every sentence that is not
// finished. Each sentence has beam rows; those without a hypothesis repeat the
// first. The state of row r is in row r of each table, on the device; a step
// reads it in the rows of the previous hypotheses.
type decoding struct {
	n     *network
	tape  *tensor.Tape
	e     *encoded
	beam  int
	begin int32
	looks bool // the attention of each step is needed

	active  []int         // sentences that are not finished
	all     []*search     // of every sentence
	begun   bool          // states has the state of a step
	states  *nn.States    // of the decoder
	feed    *tensor.Table // [1,rows,width] with input feeding
	covered *tensor.Table // [1,rows,S] with coverage
	from    []int32       // the row of the previous step that each row continues
	rows    []int32       // 0, 1, ...
	tokens  []int32       // the next input of each row

	logProbs  []float32
	attention []float32
}

// run searches until every sentence is finished. The error is that of ctx.
func (d *decoding) run(ctx context.Context) error {
	rows, dev := len(d.all)*d.beam, d.tape.Device()
	d.rows, d.from = upTo(rows), upTo(rows)
	d.active = make([]int, len(d.all))
	for i := range d.active {
		d.active[i] = i
	}
	for range rows {
		d.tokens = append(d.tokens, d.begin)
	}
	d.states = d.n.Decoder.NewStates(dev, rows)
	defer d.states.Free()
	if d.begun = d.e.state != nil; d.begun {
		for r := range rows {
			d.states.Set(r, d.e.state, r/d.beam)
		}
	}
	if d.n.cfg.InputFeeding {
		d.feed = tensor.NewTable(dev, 1, rows, d.n.width())
		defer d.feed.Free()
	}
	if d.n.cfg.Coverage {
		d.covered = tensor.NewTable(dev, 1, rows, d.e.S)
		defer d.covered.Free()
	}
	defer d.e.free()
	for len(d.active) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		d.forward()
		d.advance()
	}
	return nil
}

// forward computes one step of the decoder for all rows.
func (d *decoding) forward() {
	n, tape, B, rows := d.n, d.tape, len(d.active), len(d.tokens)
	tape.Reset()
	x := n.Target.Forward(tape.IDs(d.tokens, nil, rows, 1))
	if d.feed != nil {
		x = tensor.Concat(-1, x, tensor.Reshape(tape.Gather(d.feed, d.from), rows, 1, n.width()))
	}
	var from *nn.State
	if d.begun {
		from = d.states.On(tape, d.from)
	}
	h, state := n.Decoder.Forward(x, from)
	var coverage *tensor.Tensor
	if d.covered != nil {
		coverage = tensor.Reshape(tape.Gather(d.covered, d.from), B, d.beam, d.e.S)
	}
	o, weights := n.attend(tensor.Reshape(h, B, d.beam, h.Dim(2)), d.e.memory(tape), coverage)
	logProbs := tensor.LogSoftmax(n.Output.Forward(o))
	to := d.rows[:rows]
	d.states.Keep(to, state)
	d.begun = true
	if d.feed != nil {
		tape.Scatter(d.feed, to, tensor.Reshape(o, 1, rows, n.width()))
	}
	if d.covered != nil {
		tape.Scatter(d.covered, to, tensor.Reshape(tensor.Add(coverage, weights), 1, rows, d.e.S))
	}
	d.logProbs = fetch(d.logProbs, logProbs)
	if d.looks {
		d.attention = fetch(d.attention, weights)
	}
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

// advance makes a step of every search, and sets the inputs of the next.
func (d *decoding) advance() {
	V := len(d.logProbs) / len(d.tokens)
	logProbs, attention := make([][]float32, d.beam), make([][]float32, d.beam)
	var still []int
	var places []int32 // of the sentences that continue
	d.tokens, d.from = d.tokens[:0], d.from[:0]
	for k, i := range d.active {
		s := d.all[i]
		for j := range s.live {
			r := k*d.beam + j
			logProbs[j] = d.logProbs[r*V:][:V]
			if d.looks {
				attention[j] = d.attention[r*d.e.S:][:s.source]
			}
		}
		if !s.step(logProbs, attention) {
			continue
		}
		still, places = append(still, i), append(places, int32(k))
		for j := range d.beam {
			h := &s.live[0]
			if j < len(s.live) {
				h = &s.live[j]
			}
			d.from = append(d.from, int32(k*d.beam+h.row))
			d.tokens = append(d.tokens, h.last.token)
		}
	}
	if len(still) > 0 && len(still) < len(d.active) {
		d.e.keep(d.tape, places)
	}
	d.active = still
}
