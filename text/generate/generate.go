package generate

import (
	"context"
	"math/rand/v2"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/tensor"
)

// GenerateOptions says how texts go on; the zero value is one text of 200 tokens
// for each prompt, drawn as the model has it.
type GenerateOptions struct {
	Length      int      // most tokens; 0 means 200
	Num         int      // texts for each prompt; 0 means 1
	Temperature float64  // above 1 more varied, below 1 surer; 0 means 1
	Greedy      bool     // always the likeliest token; Temperature, TopK and TopP do nothing then
	TopK        int      // draw among so many likeliest tokens; 0: all
	TopP        float64  // draw among the likeliest tokens that together have this probability; 0 means 1: all
	Stop        []string // a text ends before the first of these
	Seed        uint64   // of the draws; a text depends on it and on its own number alone

	// OnText receives the parts of text number i as they come, whole characters
	// only; an error ends everything. nil: nothing does.
	OnText func(i int, part string) error
}

// Reasons why a text ended.
const (
	EndedByLength = "length" // it has the tokens that were asked for
	EndedByStop   = "stop"   // a stop string came
	EndedByText   = "end"    // the model ended the document
)

// Generated is one text.
type Generated struct {
	Prompt  string  `json:"prompt"`
	Text    string  `json:"text"` // what follows the prompt
	Tokens  int     `json:"tokens"`
	LogProb float64 `json:"log_prob"` // of what was drawn, under the model as it is, whatever the temperature
	Ended   string  `json:"ended"`
}

func (o *GenerateOptions) check() error {
	switch {
	case o.Length < 0 || o.Length > 1e9:
		return data.Errorf("length: want 1 to 1,000,000,000 tokens, got %d", o.Length)
	case o.Num < 0 || o.Num > 1e6:
		return data.Errorf("num: want 1 to 1,000,000 texts, got %d", o.Num)
	case !(o.Temperature >= 0 && o.Temperature <= 100):
		return data.Errorf("temperature: want a number from 0 to 100, got %v", o.Temperature)
	case o.TopK < 0:
		return data.Errorf("top_k: want a number of tokens, or 0 for all, got %d", o.TopK)
	case !(o.TopP >= 0 && o.TopP <= 1):
		return data.Errorf("top_p: want a probability, got %v", o.TopP)
	}
	for _, s := range o.Stop {
		if s == "" {
			return data.Errorf("stop: an empty string would end every text at once")
		}
	}
	return nil
}

// Rows that are computed side by side: at most generationRows, and fewer where
// their distributions would have more than generationSize numbers.
const (
	generationRows = 256
	generationSize = 1 << 25
)

// Generate writes texts that follow prompts (an empty one is the beginning of a
// document), many side by side. The texts of the first prompt come first.
func (m *Model) Generate(ctx context.Context, prompts []string, o *GenerateOptions) ([]Generated, error) {
	if o == nil {
		o = &GenerateOptions{}
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	num := max(o.Num, 1)
	rows := max(min(generationRows, generationSize/m.net.vocabulary), 1)
	var list []Generated
	var err error
	shape := tensor.Catch(func() {
		for len(list) < len(prompts)*num && err == nil {
			first := len(list)
			// Whole prompts, or copies of one.
			p, copies := prompts[first/num:][:1], min(num-first%num, rows)
			if num <= rows {
				p, copies = prompts[first/num:][:min(len(prompts)-first/num, rows/num)], num
			}
			var more []Generated
			more, err = m.generate(ctx, p, copies, first, o)
			list = append(list, more...)
		}
	})
	if shape != nil {
		return nil, shape
	}
	return list, err
}

// generate writes copies texts for each prompt, whose numbers begin at first.
func (m *Model) generate(ctx context.Context, prompts []string, copies, first int, o *GenerateOptions) ([]Generated, error) {
	length := o.Length
	if length == 0 {
		length = 200
	}
	draw := newSampler(o, m.codec)
	var ids [][]int32
	var writers []*writer
	for _, p := range prompts {
		ids = append(ids, m.codec.encode([]int32{m.codec.begin}, p))
		for range copies {
			w := newWriter(m.codec, o, first+len(writers), ids[len(ids)-1])
			w.out.Prompt = p
			writers = append(writers, w)
		}
	}
	s := m.read(ids, copies)
	defer s.close()
	var texts, next []int32 // those that go on, and what each reads
	for n := 1; ; n++ {
		texts, next = texts[:0], next[:0]
		for k, i := range s.open {
			w := writers[i]
			id, err := w.write(draw, s.row(k), n == length)
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

// writer is one text in the making.
type writer struct {
	out    Generated
	decode decoder
	stop   stopper
	random *rand.Rand
	text   []byte
	say    func(part string) error
}

func newWriter(k *codec, o *GenerateOptions, number int, prompt []int32) *writer {
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

// write draws the text's next token; last: it is the last one.
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

// finish gives out what was held back.
func (w *writer) finish() error {
	part, stopped := w.stop.pass(w.decode.rest())
	if stopped {
		w.out.Ended = EndedByStop
	} else {
		part += w.stop.rest()
	}
	return w.put(part)
}

func newSampler(o *GenerateOptions, k *codec) *sampler {
	s := &sampler{temperature: o.Temperature, topK: o.TopK, topP: o.TopP, unsaid: k.unsaid()}
	if s.temperature == 0 {
		s.temperature = 1
	}
	if s.topP == 0 {
		s.topP = 1
	}
	if o.Greedy {
		s.temperature = 0
	}
	return s
}
