package generate

import (
	"cmp"
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"strconv"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// Generated is one generated text.
type Generated struct {
	Prompt  string  `json:"prompt"`   // the prompt that the text continues
	Text    string  `json:"text"`     // the text after the prompt
	Tokens  int     `json:"tokens"`   // number of tokens drawn
	LogProb float64 `json:"log_prob"` // log-probability of the tokens drawn, at a temperature of 1
	Ended   string  `json:"ended"`    // why: length (the most tokens), stop (a stop string) or end (the model ended the document)
}

// PredictOptions are the options of generation. In a value that was not made by
// [DefaultPredict], zeros are replaced by what that returns.
type PredictOptions struct {
	MaxTokens   int      `json:"max_tokens" range:"1..1e9" value:"tokens" group:"Sampling" help:"most tokens of a text"`
	Samples     int      `json:"samples" range:"1..1e6" value:"texts" group:"Sampling" help:"texts per prompt"`
	Temperature float64  `json:"temperature" range:"0..100" value:"t" group:"Sampling" help:"temperature of the distribution: above 1 flatter, below 1 sharper (0: always the most probable token)"`
	TopK        int      `json:"top_k" range:"0.." value:"k" group:"Sampling" help:"draw from the k most probable tokens (0: all)"`
	TopP        float64  `json:"top_p" range:"(0..1]" value:"p" group:"Sampling" help:"draw from the most probable tokens that together have this probability"`
	Stop        []string `json:"stop" items:"whole" value:"text" group:"Sampling" help:"a text ends before the first of these strings; may be repeated"`
	Seed        uint64   `json:"seed" group:"Sampling" help:"seed of the draws; each text depends only on it and on the text's number"`
	Greedy      bool     `json:"-"` // always the most probable token; Temperature, TopK and TopP are ignored

	// OnText, if not nil, is called with the parts of text number i as they are
	// generated, in whole characters. An error ends the generation.
	OnText func(i int, part string) error `json:"-"`

	complete bool // made by DefaultPredict: zeros are not replaced
}

// DefaultPredict returns the options for one text of 200 tokens per prompt, drawn
// from the model's distribution. Fields set to zero afterwards are zero: a
// Temperature of 0 always draws the likeliest token.
func DefaultPredict() PredictOptions {
	return PredictOptions{MaxTokens: 200, Samples: 1, Temperature: 1, TopP: 1, complete: true}
}

// SetDefaults sets the options to [DefaultPredict].
func (o *PredictOptions) SetDefaults() { *o = DefaultPredict() }

// Reasons why a text ended.
const (
	EndedByLength = "length" // it has MaxTokens tokens
	EndedByStop   = "stop"   // a stop string was generated
	EndedByText   = "end"    // the model ended the document
)

// settled returns the options, which may be nil, with the defaults in place of zeros, or what
// is wrong with them.
func (o *PredictOptions) settled() (*PredictOptions, error) {
	d := DefaultPredict()
	if o == nil {
		return &d, nil
	}
	c := *o
	o = &c
	if o.complete {
		return o, o.check()
	}
	o.MaxTokens, o.Samples = cmp.Or(o.MaxTokens, d.MaxTokens), cmp.Or(o.Samples, d.Samples)
	o.Temperature, o.TopP = cmp.Or(o.Temperature, d.Temperature), cmp.Or(o.TopP, d.TopP)
	return o, o.check()
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

// Limits on rows that are computed in parallel: their number, and the numbers of their
// distributions together.
const (
	generationRows = 256
	generationSize = 1 << 25
)

// generationRows returns how many rows are computed in parallel at most.
func (m *Model) generationRows() int {
	return max(min(generationRows, generationSize/m.net.vocabulary), 1)
}

// Generate returns texts that continue prompts (an empty one is the beginning of a
// document), computed in batches. The texts of the first prompt come first. Options
// may be nil. Invalid ones are a *data.InputError; an error of OnText, and that of a
// cancelled ctx, end the generation.
func (m *Model) Generate(ctx context.Context, prompts []string, o *PredictOptions) (_ []Generated, err error) {
	defer tensor.Recover(&err)
	return m.generateAll(ctx, &task.Input{Texts: prompts}, o)
}

// generateAll is Generate for the texts of an input with their numbers.
func (m *Model) generateAll(ctx context.Context, in *task.Input, o *PredictOptions) ([]Generated, error) {
	prompts := in.Texts
	o, err := o.settled()
	if err != nil {
		return nil, err
	}
	num := o.Samples
	number := func(i int) int { return (in.Number(i/num)-1)*num + i%num }
	rows := m.generationRows()
	var list []Generated
	for len(list) < len(prompts)*num {
		first := len(list)
		// Whole prompts, or copies of one.
		p, copies := prompts[first/num:][:1], min(num-first%num, rows)
		if num <= rows {
			p, copies = prompts[first/num:][:min(len(prompts)-first/num, rows/num)], num
		}
		more, err := m.generate(ctx, p, copies, func(i int) int { return number(first + i) }, o)
		if err != nil {
			return list, err
		}
		list = append(list, more...)
	}
	return list, nil
}

// Predictions are the continuations of prompts.
type Predictions struct {
	Task string      `json:"task"`          // the task of the model
	List []Generated `json:"texts"`         // those of the first prompt first
	Fed  *Fed        `json:"fed,omitempty"` // of a server's session: the text that it has read

	remarks []string
}

// Predict continues each line of a file or stream, or each text; an empty one is a
// prompt too, the beginning of a document. A file that is
// empty or cannot be read and invalid options are a *data.InputError; a cancelled
// ctx returns its error.
func (m *Model) Predict(ctx context.Context, in task.Input, o *PredictOptions) (_ *Predictions, err error) {
	defer tensor.Recover(&err)
	p := &Predictions{Task: Name}
	prompts, err := in.EachText(m.cfg.Encoding, func(s string) { p.remarks = append(p.remarks, s) })
	if err != nil {
		return nil, err
	}
	if len(prompts) == 0 && (in.File != "" || in.Stream != nil) {
		return nil, &data.InputError{File: cmp.Or(in.File, "standard input"), Problem: "is empty", Fix: "give a file with a prompt on each line"}
	}
	if p.List, err = m.generateAll(ctx, &task.Input{Texts: prompts, Numbers: in.Numbers}, o); err != nil {
		return nil, err
	}
	return p, nil
}

// Remarks returns what a user might not expect of the predictions, a sentence each.
func (p *Predictions) Remarks() []string { return p.remarks }

// Print writes the prompts with their continuations, a line between them.
func (p *Predictions) Print(w io.Writer) {
	for i, g := range p.List {
		if i > 0 {
			fmt.Fprintln(w, "\n---")
		}
		fmt.Fprintln(w, g.Prompt+g.Text)
	}
}

// Write writes a CSV table with the columns prompt, text, tokens, log_prob and
// ended. Its errors are those of w.
func (p *Predictions) Write(w io.Writer) error {
	out := csv.NewWriter(w)
	rows := [][]string{{"prompt", "text", "tokens", "log_prob", "ended"}}
	for _, g := range p.List {
		rows = append(rows, []string{g.Prompt, g.Text, strconv.Itoa(g.Tokens), strconv.FormatFloat(g.LogProb, 'g', 8, 64), g.Ended})
	}
	return out.WriteAll(rows)
}

// Serves returns how a server offers the model: prompts, with the texts that continue
// them, those of the first prompt first. A session reads a text in portions and also tells
// their probability, and which tokens may follow.
func (m *Model) Serves() (*task.Service, error) {
	s := &task.Service{Apart: true, Most: map[string]float64{"max_tokens": 100_000, "samples": 256}, NewStream: m.newStream, Outputs: []task.Output{
		{Name: "text", Texts: func(p task.Prediction) []string {
			return task.TextsOf(p.(*Predictions).List, func(one *Generated) string { return one.Text })
		}},
	}}
	s.Outputs = append(s.Outputs, fedOutputs()...)
	return s, nil
}
