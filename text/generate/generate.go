package generate

import (
	"context"
	"math/rand/v2"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/tensor"
)

// GenerateOptions says how a text goes on; the zero value is one text of 200
// tokens drawn as the model has it.
type GenerateOptions struct {
	Prompt      string   // what the text begins with; "" is the beginning of a document
	Length      int      // most tokens; 0 means 200
	Num         int      // texts; 0 means 1
	Temperature float64  // above 1 more varied, below 1 surer; 0 means 1
	Greedy      bool     // always the likeliest token; Temperature, TopK and TopP do nothing then
	TopK        int      // draw among so many likeliest tokens; 0: all
	TopP        float64  // draw among the likeliest tokens that together have this probability; 0 means 1: all
	Stop        []string // a text ends before the first of these
	Seed        uint64   // of the draws; a text depends on it and its own number alone

	// OnText receives each text's parts as they come, whole characters only; an
	// error ends everything. nil: nothing does.
	OnText func(text int, part string) error
}

// Reasons why a text ended.
const (
	EndedByLength = "length" // it has the tokens that were asked for
	EndedByStop   = "stop"   // a stop string came
	EndedByText   = "end"    // the model ended the document
)

// Generated is one text.
type Generated struct {
	Text    string  `json:"text"` // without the prompt
	Tokens  int     `json:"tokens"`
	LogProb float64 `json:"log_prob"` // of the tokens, under the model as it is, whatever the temperature
	Ended   string  `json:"ended"`
}

// mostGenerated bounds texts times vocabulary: the distributions held at once.
const mostGenerated = 1 << 28

func (o *GenerateOptions) check(vocabulary int) error {
	switch {
	case o.Length < 0 || o.Length > 1e9:
		return data.Errorf("length: want 1 to 1,000,000,000 tokens, got %d", o.Length)
	case o.Num < 0 || o.Num*vocabulary > mostGenerated:
		return data.Errorf("num: want 1 to %d texts at once, got %d", mostGenerated/vocabulary, o.Num)
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

// Generate writes texts that follow a prompt, all of them side by side.
func (m *Model) Generate(ctx context.Context, o *GenerateOptions) ([]Generated, error) {
	if o == nil {
		o = &GenerateOptions{}
	}
	if err := o.check(m.net.vocabulary); err != nil {
		return nil, err
	}
	var list []Generated
	var err error
	if shape := tensor.Catch(func() { list, err = m.generate(ctx, o) }); shape != nil {
		return nil, shape
	}
	return list, err
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

func (m *Model) generate(ctx context.Context, o *GenerateOptions) ([]Generated, error) {
	num, length := max(o.Num, 1), o.Length
	if length == 0 {
		length = 200
	}
	prompt := m.codec.encode([]int32{m.codec.begin}, o.Prompt)
	first := m.newSession(1)
	first.read(prompt)
	s := first.split(num)
	draw := newSampler(o, m.codec)
	writers := make([]*writer, num)
	for i := range writers {
		w := &writer{decode: decoder{codec: m.codec}, stop: stopper{stops: o.Stop}, random: rand.New(rand.NewPCG(o.Seed, uint64(i)))}
		w.decode.begin(prompt)
		w.say = func(string) error { return nil }
		if o.OnText != nil {
			w.say = func(part string) error { return o.OnText(i, part) }
		}
		writers[i] = w
	}
	ids := make([]int32, num)
	for n := 0; ; n++ {
		open := false
		for i, w := range writers {
			if w.out.Ended != "" {
				continue
			}
			var err error
			if ids[i], err = w.write(m, draw, s.row(i), n+1 == length); err != nil {
				return nil, err
			}
			open = open || w.out.Ended == ""
		}
		if !open {
			break
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s.feed(ids, true)
	}
	list := make([]Generated, num)
	for i, w := range writers {
		w.out.Text = string(w.text)
		list[i] = w.out
	}
	return list, nil
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

// write draws a text's next token; last: it is the last one.
func (w *writer) write(m *Model, draw *sampler, logp []float32, last bool) (int32, error) {
	id := draw.pick(logp, w.random)
	w.out.LogProb += float64(logp[id])
	if id == m.codec.end {
		w.out.Ended = EndedByText
		return id, w.finish()
	}
	w.out.Tokens++
	part, stopped := w.stop.pass(w.decode.next(id))
	if err := w.put(part); err != nil {
		return id, err
	}
	switch {
	case stopped:
		w.out.Ended = EndedByStop
	case last:
		w.out.Ended = EndedByLength
		return id, w.finish()
	}
	return id, nil
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
