package classify

import (
	"cmp"
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// Prediction is the classes of a text.
type Prediction struct {
	Text          string      `json:"text"`            // the text
	Label         string      `json:"label"`           // the most likely class
	Labels        []string    `json:"labels,omitzero"` // where a text may have several: those more likely than not, perhaps none
	Probability   float64     `json:"probability"`     // of Label
	Probabilities []float64   `json:"probabilities"`   // by class
	Cut           bool        `json:"cut,omitempty"`   // of more tokens than are read, and read up to there
	Words         []WordShare `json:"words,omitempty"` // what each token did, where that is asked for
}

// WordShare is what one token did for the class predicted.
type WordShare struct {
	Start int     `json:"start"` // its bytes in the text: text[Start:End]
	End   int     `json:"end"`   // where it ends, likewise
	Text  string  `json:"text"`  // the token as it stands there
	Share float64 `json:"share"` // added to the class's score; below zero it spoke against it
	Units int     `json:"units"` // features of the pooled vector that this token was chosen for; pooling by maximum only
}

// PredictOptions changes a prediction; nil is plain.
type PredictOptions struct {
	// Explain gives for each token what it added to the score of the class
	// predicted by the network (without the linear method's share): the pooled
	// vector is made of the tokens' vectors, and the score is linear in it. Not for
	// pooling by the last step.
	Explain bool `json:"explain" group:"Prediction" help:"show which words decided"`
}

// Classify classifies texts, in their order. An answer does not depend on the
// other texts. Options that the model cannot follow are a *data.InputError.
func (m *Model) Classify(ctx context.Context, texts []string, o *PredictOptions) ([]Prediction, error) {
	if o == nil {
		o = &PredictOptions{}
	}
	if o.Explain && m.cfg.Pool == "last" {
		return nil, data.Errorf("explain: this model pools by the last step, which no single word decides; train with pool max, mean or attention")
	}
	c, out := &corpus{}, make([]Prediction, len(texts))
	for i, s := range texts {
		before := c.cut
		c.add(&data.Example{Text: s}, m.tokenizer, m.cfg.MaxLength, nil)
		out[i].Cut = c.cut > before
	}
	p, err := m.answer(ctx, c)
	if err != nil {
		return nil, err
	}
	for i, row := range p {
		best := decide(row, false)[0]
		out[i].Text, out[i].Label, out[i].Probability = texts[i], m.classes[best], math.Exp(row[best])
		for _, v := range row {
			out[i].Probabilities = append(out[i].Probabilities, math.Exp(v))
		}
		if m.several() {
			out[i].Labels = m.names(decide(row, true))
		}
		if o.Explain {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			out[i].Words = m.explain(texts[i], c, i, int(best))
		}
	}
	return out, nil
}

// explain shares out a class's score to the tokens of text i.
func (m *Model) explain(s string, c *corpus, i, class int) []WordShare {
	tokens := m.tokenizer.Tokens(nil, s)
	n := len(c.text(i))
	tokens = tokens[:min(n, len(tokens))]
	words := make([]WordShare, len(tokens))
	for j, t := range tokens {
		words[j] = WordShare{Start: t.Start, End: t.End, Text: s[t.Start:t.End]}
	}
	if n == 0 {
		return words
	}
	tape := tensor.NewTape(m.slab.Device(), tensor.Infer)
	var b batch
	b.load(c, []int{i}, m.tokenizer.Vocabulary().PadID())
	_, y, weights := m.net.forward(tape, &b)
	width := m.net.RNN.OutputSize()
	steps, head := y.Data(), m.net.Head.Weight.Read()[class*width:(class+1)*width]
	var attention []float32
	if weights != nil {
		attention = weights.Data()
	}
	for f, w := range head {
		if m.cfg.Pool == "max" {
			best := 0
			for j := range n {
				if steps[j*width+f] > steps[best*width+f] {
					best = j
				}
			}
			if best < len(words) {
				words[best].Units++
				words[best].Share += float64(w) * float64(steps[best*width+f])
			}
			continue
		}
		for j := range words {
			part := 1 / float64(n)
			if attention != nil {
				part = float64(attention[j])
			}
			words[j].Share += float64(w) * float64(steps[j*width+f]) * part
		}
	}
	return words
}

// Predictions are the answers to the texts of a file.
type Predictions struct {
	Task    string       `json:"task"`        // the task of the model
	Classes []string     `json:"classes"`     // all labels that the model knows
	List    []Prediction `json:"predictions"` // one a text, in order

	remarks []string
}

// Predict classifies the texts of an input: a file of the kind the model was
// trained on, where labels are not needed, or of lines. What is wrong with the
// file is a *data.InputError.
func (m *Model) Predict(ctx context.Context, in task.Input, o *PredictOptions) (*Predictions, error) {
	texts, err := m.textsOf(in)
	if err != nil {
		return nil, err
	}
	list, err := m.Classify(ctx, texts, o)
	if err != nil {
		return nil, err
	}
	p := &Predictions{Task: Name, Classes: m.Classes(), List: list}
	cut := 0
	for i := range list {
		if list[i].Cut {
			cut++
		}
	}
	p.remarks = m.cutNote(cut)
	return p, nil
}

// textsOf are the texts of an input.
func (m *Model) textsOf(in task.Input) ([]string, error) {
	if in.File == "" {
		return in.EachText(m.cfg.Encoding)
	}
	options := m.cfg.examples(true, nil)
	if options.Format == data.FormatLabelFirst {
		options.Format = "" // by the file's name
	}
	if !isTable(in.File) && options.Format == "" {
		options.Format = data.FormatLines
	}
	var texts []string
	for e, err := range data.ReadExamples(in.File, options) {
		if err != nil {
			return nil, err
		}
		texts = append(texts, e.Text)
	}
	return texts, nil
}

func isTable(path string) bool {
	name := strings.TrimSuffix(strings.ToLower(path), ".gz")
	return slices.ContainsFunc([]string{".csv", ".tsv", ".jsonl", ".ndjson"}, func(ext string) bool { return strings.HasSuffix(name, ext) })
}

// Remarks are what a user might not expect of the texts, a sentence each.
func (p *Predictions) Remarks() []string { return p.remarks }

// Print writes the answers for people: the probability, the label, the text, and
// where they were asked for the words that decided.
func (p *Predictions) Print(w io.Writer) {
	for _, one := range p.List {
		label := one.Label
		if one.Labels != nil {
			label = strings.Join(one.Labels, ", ")
		}
		fmt.Fprintf(w, "%s  %s  %s\n", report.Percent(one.Probability), label, one.Text)
		for _, word := range strongest(one.Words, 8) {
			fmt.Fprintf(w, "    %+.2f  %s\n", word.Share, word.Text)
		}
	}
}

// strongest are the n words with the greatest shares, for or against.
func strongest(words []WordShare, n int) []WordShare {
	sorted := slices.SortedStableFunc(slices.Values(words), func(a, b WordShare) int {
		return cmp.Compare(math.Abs(b.Share), math.Abs(a.Share))
	})
	return sorted[:min(n, len(sorted))]
}

// Write writes a CSV table with the columns text, label, probability and one for
// each class's probability.
func (p *Predictions) Write(w io.Writer) error {
	c := csv.NewWriter(w)
	head := []string{"text", "label", "probability"}
	for _, name := range p.Classes {
		head = append(head, "p("+name+")")
	}
	_ = c.Write(head) // errors stay until Flush
	for _, one := range p.List {
		label := one.Label
		if one.Labels != nil {
			label = strings.Join(one.Labels, "|")
		}
		row := []string{one.Text, label, decimal(one.Probability)}
		for _, v := range one.Probabilities {
			row = append(row, decimal(v))
		}
		_ = c.Write(row)
	}
	c.Flush()
	return c.Error()
}

func decimal(v float64) string { return strconv.FormatFloat(v, 'f', 4, 64) }
