package generate

import (
	"cmp"
	"context"
	"math/rand/v2"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/tensor"
)

// PredictOptions are the options of generation. In a value that was not made by
// [DefaultPredict], zeros are replaced by what that returns.
type PredictOptions struct {
	Length      int      `json:"length" range:"1..1e9" value:"tokens" group:"Sampling" help:"most tokens of a text"`
	Samples     int      `json:"samples" range:"1..1e6" value:"texts" group:"Sampling" help:"texts for each prompt, computed side by side"`
	Temperature float64  `json:"temperature" range:"0..100" value:"t" group:"Sampling" help:"above 1 more varied, below 1 surer, 0 always the likeliest token"`
	TopK        int      `json:"top_k" range:"0.." value:"k" group:"Sampling" help:"draw among so many likeliest tokens (0: all)"`
	TopP        float64  `json:"top_p" range:"(0..1]" value:"p" group:"Sampling" help:"draw among the likeliest tokens that together have this probability"`
	Stop        []string `json:"stop" items:"whole" value:"text" group:"Sampling" help:"a text ends before the first of these; may be repeated"`
	Seed        uint64   `json:"seed" group:"Sampling" help:"seed of the draws; a text depends on it and on its own number alone"`
	Greedy      bool     `json:"-"` // always the likeliest token; Temperature, TopK and TopP do nothing then

	// OnText receives the parts of text number i as they come, whole characters
	// only; an error ends everything. nil: nothing does.
	OnText func(i int, part string) error `json:"-"`

	complete bool // made by DefaultPredict: zeros are not replaced
}

// DefaultPredict returns the options for one text of 200 tokens per prompt, drawn
// from the model's distribution. Fields set to zero afterwards are zero: a
// Temperature of 0 always draws the likeliest token.
func DefaultPredict() PredictOptions {
	return PredictOptions{Length: 200, Samples: 1, Temperature: 1, TopP: 1, complete: true}
}

// SetDefaults sets the options to [DefaultPredict].
func (o *PredictOptions) SetDefaults() { *o = DefaultPredict() }

// Reasons why a text ended.
const (
	EndedByLength = "length" // it has the tokens that were asked for
	EndedByStop   = "stop"   // a stop string came
	EndedByText   = "end"    // the model ended the document
)

// Generated is one text.
type Generated struct {
	Prompt  string  `json:"prompt"`   // what it follows
	Text    string  `json:"text"`     // what follows the prompt
	Tokens  int     `json:"tokens"`   // how many were drawn
	LogProb float64 `json:"log_prob"` // of what was drawn, under the model as it is, whatever the temperature
	Ended   string  `json:"ended"`    // why: length (it has the tokens asked for), stop (a stop string came) or end (the model ended the document)
}

// settle replaces zeros by the defaults.
func (o *PredictOptions) settle() {
	if o.complete {
		return
	}
	d := DefaultPredict()
	o.Length, o.Samples = cmp.Or(o.Length, d.Length), cmp.Or(o.Samples, d.Samples)
	o.Temperature, o.TopP = cmp.Or(o.Temperature, d.Temperature), cmp.Or(o.TopP, d.TopP)
}

func (o *PredictOptions) check() error {
	if err := settings.Check(o); err != nil {
		return data.Setting(err)
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

// Generate returns texts that continue prompts (an empty one is the beginning of a
// document), computed in batches. The texts of the first prompt come first. Options
// may be nil. Invalid ones are a *data.InputError; an error of OnText, and that of a
// cancelled ctx, end the generation.
func (m *Model) Generate(ctx context.Context, prompts []string, o *PredictOptions) ([]Generated, error) {
	if o == nil {
		o = &PredictOptions{}
	}
	settled := *o
	o = &settled
	o.settle()
	if err := o.check(); err != nil {
		return nil, err
	}
	num := o.Samples
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
func (m *Model) generate(ctx context.Context, prompts []string, copies, first int, o *PredictOptions) ([]Generated, error) {
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
			id, err := w.write(draw, s.row(k), n == o.Length)
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

func newSampler(o *PredictOptions, k *codec) *sampler {
	s := &sampler{temperature: o.Temperature, topK: o.TopK, topP: o.TopP, unsaid: k.unsaid()}
	if o.Greedy {
		s.temperature = 0
	}
	return s
}
