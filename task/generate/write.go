package generate

import (
	"context"
	"math/rand/v2"
)

// generate generates copies texts for each prompt; number returns the number of the i-th
// of them.
func (m *Model) generate(ctx context.Context, prompts []string, copies int, number func(i int) int, o *PredictOptions) ([]Generated, error) {
	var ids [][]int32
	var writers []*writer
	for _, p := range prompts {
		ids = append(ids, m.codec.encode(ctx, []int32{m.codec.begin}, p))
		for range copies {
			w := newWriter(m.codec, o, number(len(writers)), ids[len(ids)-1])
			w.out.Prompt = p
			writers = append(writers, w)
		}
	}
	if err := ctx.Err(); err != nil { // the prompts may be cut
		return nil, err
	}
	s := m.read(ids, copies)
	defer s.close()
	return m.write(ctx, s, writers, o)
}

// write completes the texts of a session that has read their prompts.
func (m *Model) write(ctx context.Context, s *session, writers []*writer, o *PredictOptions) ([]Generated, error) {
	draw := newSampler(o, m)
	var texts, next []int32 // the texts that continue, and what each reads
	for n := 1; ; n++ {
		texts, next = texts[:0], next[:0]
		for k, i := range s.open {
			w := writers[i]
			id, err := w.write(draw, s.row(k), n == o.MaxTokens)
			if err != nil {
				return nil, err
			}
			if w.out.Ended == "" {
				texts, next = append(texts, i), append(next, id)
			}
		}
		if len(texts) == 0 {
			break
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s.feed(texts, next)
	}
	list := make([]Generated, len(writers))
	for i, w := range writers {
		w.out.Text = string(w.text)
		list[i] = w.out
	}
	return list, nil
}

// writer is one text that is being generated.
type writer struct {
	out    Generated
	decode decoder
	stop   stopper
	random *rand.Rand
	text   []byte
	say    func(part string) error
}

func newWriter(k *codec, o *PredictOptions, number int, prompt []int32) *writer {
	w := &writer{decode: decoder{codec: k}, stop: stopper{stops: o.Stop}, random: rand.New(rand.NewPCG(o.Seed, uint64(number)))}
	w.decode.begin(prompt)
	w.say = func(part string) error {
		if o.OnText == nil {
			return nil
		}
		return o.OnText(number, part)
	}
	return w
}

// write draws the text's next token; last reports whether it is the last one.
func (w *writer) write(draw *sampler, logp []float32, last bool) (int32, error) {
	id := draw.pick(logp, w.random)
	w.out.LogProb += float64(logp[id])
	if id == w.decode.codec.end {
		w.out.Ended = EndedByText
		return id, w.finish()
	}
	w.out.Tokens++
	part, stopped := w.stop.pass(w.decode.next(id))
	if stopped {
		w.out.Ended = EndedByStop
		return id, w.put(part)
	}
	if err := w.put(part); err != nil || !last {
		return id, err
	}
	w.out.Ended = EndedByLength
	return id, w.finish()
}

func (w *writer) put(part string) error {
	if part == "" {
		return nil
	}
	w.text = append(w.text, part...)
	return w.say(part)
}

// finish releases the withheld text.
func (w *writer) finish() error {
	part, stopped := w.stop.pass(w.decode.rest())
	if stopped {
		w.out.Ended = EndedByStop
	} else {
		part += w.stop.rest()
	}
	return w.put(part)
}

func newSampler(o *PredictOptions, m *Model) *sampler {
	s := &sampler{temperature: o.Temperature, topK: o.TopK, topP: o.TopP, unsaid: m.unsaid()}
	if o.Greedy {
		s.temperature = 0
	}
	return s
}
