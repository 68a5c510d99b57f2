package classify

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// Prediction is the predicted classes of a text. Line and Columns are set by
// [Model.Predict].
type Prediction struct {
	Line          int                        `json:"line"`              // where the text begins in its file or stream, from 1; for other texts their number
	Text          string                     `json:"text"`              // the text
	Columns       map[string]json.RawMessage `json:"columns,omitempty"` // the other columns of the text's row, or the other keys of its JSON object
	Label         string                     `json:"label"`             // the most probable class; "" for a text without tokens, such as a blank line
	Labels        []string                   `json:"labels,omitzero"`   // if texts may have several: those with a probability above 0.5, possibly none
	Probability   float64                    `json:"probability"`       // of Label; 0 if that is ""
	Probabilities []float64                  `json:"probabilities"`     // by class, in the order of classes; empty for a text without tokens
	Cut           bool                       `json:"cut,omitempty"`     // the text has more than truncate tokens, and the rest was not read
	Words         []WordShare                `json:"words,omitempty"`   // the contribution of each token, with explain
}

// WordShare is the contribution of one token to the score of the predicted class.
type WordShare struct {
	Start int     `json:"start"` // first byte in the text
	End   int     `json:"end"`   // byte after its last: text[start:end]
	Text  string  `json:"text"`  // the token as in the text
	Share float64 `json:"share"` // its part of the class's score, negative if it counts against the class
	Units int     `json:"units"` // number of features of the pooled vector that come from this token; with max pooling only
}

// PredictOptions are the options of a prediction; nil is the zero value.
type PredictOptions struct {
	// Explain computes what each token contributed to the score of the predicted
	// class, above the mean of the classes unless a text may have several: the
	// network's pooled vector is a combination of the tokens' outputs, and its score
	// is linear in it; that of the linear method is a sum over words and pairs. Both
	// count by their shares in the model. Models with pool last do not support it.
	Explain bool `json:"explain" group:"Prediction" help:"show how much each word contributed to the prediction"`
	// Format and Text are used by Predict only.
	Format string `json:"format" oneof:"(by the file's name and lines),lines,table,jsonl,label-first" group:"Prediction" help:"file format"`
	Text   string `json:"text" group:"Prediction" help:"column of the texts in a table (empty: as in training)"`
}

// Classify classifies texts, in their order. A prediction does not depend on the
// other texts. A text without tokens, such as an empty one, has no label. Explain with a model that pools by the last step is a
// *data.InputError; a cancelled ctx returns its error.
func (m *Model) Classify(ctx context.Context, texts []string, o *PredictOptions) (_ []Prediction, err error) {
	defer tensor.Recover(&err)
	if o == nil {
		o = &PredictOptions{}
	}
	if o.Explain && m.cfg.Pool == "last" {
		return nil, data.Errorf("explain: not supported by a model with pool last; train with pool max, mean or attention")
	}
	c, out := &corpus{}, make([]Prediction, len(texts))
	for i, s := range texts {
		before := c.cut
		c.add(&data.Example{Text: s}, m.tokenizer, m.cfg.Truncate, nil)
		out[i].Cut = c.cut > before
	}
	p, err := m.answer(ctx, c)
	if err != nil {
		return nil, err
	}
	for i, row := range p {
		out[i].Text = texts[i]
		if m.several() {
			out[i].Labels = []string{}
		}
		if len(c.text(i)) == 0 {
			continue
		}
		best := decide(row, false)[0]
		out[i].Label, out[i].Probability = m.classes[best], math.Exp(row[best])
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

// explain divides the score of a class among the tokens of text i: the network's and
// the linear method's, each by its share in the model.
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
	steps, head := y.Data(), m.above(m.net.Head.Weight.Read(), width, class)
	for j := range head {
		head[j] *= 1 - float32(m.share)
	}
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
	if m.share > 0 {
		for j, share := range m.linear.shares(c.text(i)[:len(words)], class) {
			words[j].Share += m.share * share
		}
	}
	return words
}

// above returns the weights of a class [width] of a matrix [classes,width], less the
// mean over the classes where they exclude each other: only differences count then.
func (m *Model) above(weights []float32, width, class int) []float32 {
	own := slices.Clone(weights[class*width : (class+1)*width])
	if m.several() {
		return own
	}
	for j := range own {
		mean := float32(0)
		for k := range m.classes {
			mean += weights[k*width+j] / float32(len(m.classes))
		}
		own[j] -= mean
	}
	return own
}

// Predictions are the predictions for the texts of an input.
type Predictions struct {
	Task    string       `json:"task"`        // the task of the model
	Classes []string     `json:"classes"`     // labels of the model
	List    []Prediction `json:"predictions"` // one for each row or line, in their order

	rows      []data.TextRow
	explained bool
	remarks   []string
}

// Predict classifies the texts of an input: a file in the format that the model
// was trained on, in which labels are not needed, or lines. A file that cannot be
// read and the options that Classify refuses are a *data.InputError; a cancelled
// ctx returns its error.
func (m *Model) Predict(ctx context.Context, in task.Input, o *PredictOptions) (_ *Predictions, err error) {
	defer tensor.Recover(&err)
	if o == nil {
		o = &PredictOptions{}
	}
	p := &Predictions{Task: Name, Classes: m.Classes(), explained: o.Explain}
	if err := settings.Check(o); err != nil {
		return nil, data.Setting(err)
	}
	if p.rows, err = task.Collect(ctx, in.EachRow(m.reading(in, o, func(s string) { p.remarks = append(p.remarks, s) }))); err != nil {
		return nil, err
	}
	if m.labelled(p, in, o.Format) {
		prefixed := slices.ContainsFunc(p.rows, func(r data.TextRow) bool { return hasPrefix(r.Text) })
		for i := range p.rows {
			labels, text := data.CutLabels(p.rows[i].Text)
			if prefixed && !hasPrefix(p.rows[i].Text) {
				labels, text = nil, p.rows[i].Text
			}
			p.rows[i].Text, p.rows[i].Column = text, 1
			p.rows[i].Fields = []data.Field{{Name: "label", Text: strings.Join(labels, " ")}, {Name: "text", Text: text}}
		}
	}
	texts := make([]string, len(p.rows))
	for i := range p.rows {
		texts[i] = p.rows[i].Text
	}
	if p.List, err = m.Classify(ctx, texts, o); err != nil {
		return nil, err
	}
	cut, empty := 0, 0
	for i := range p.List {
		one := &p.List[i]
		one.Line, one.Columns = p.rows[i].Line, p.rows[i].Others()
		if one.Cut {
			cut++
		}
		if one.Label == "" {
			empty++
		}
	}
	p.remarks = append(p.remarks, m.cutNote(cut)...)
	if empty > 0 {
		p.remarks = append(p.remarks, report.Agree(empty, "text is", "texts are")+" empty and without a label")
	}
	return p, nil
}

// labelled reports whether the lines of an input begin with their labels: if the
// format says so, if a line begins with fastText's prefix, or if each line begins with
// a class, the model was trained on such a file, and it may be another.
func (m *Model) labelled(p *Predictions, in task.Input, format string) bool {
	if format != "" {
		return format == data.FormatLabelFirst
	}
	known, texts := m.cfg.Format == data.FormatLabelFirst && (in.File != "" || in.Stream != nil), 0
	for _, row := range p.rows {
		if row.Fields != nil {
			return false
		}
		if hasPrefix(row.Text) {
			return true
		}
		if strings.TrimSpace(row.Text) != "" {
			labels, text := data.CutLabels(row.Text)
			known = known && m.isClass(labels[0])
			if text != "" {
				texts++
			}
		}
	}
	if known = known && texts > 0; known {
		p.remarks = append(p.remarks, "each line begins with a label of the model, which is left out of its text; if it belongs to the text, give --format lines")
	}
	return known
}

// hasPrefix reports whether a line begins with a label of fastText's format.
func hasPrefix(line string) bool { return strings.HasPrefix(strings.TrimSpace(line), "__label__") }

// isClass reports whether a word names a class of the model, or several.
func (m *Model) isClass(word string) bool {
	parts := []string{word}
	if m.cfg.Separator != "" {
		parts = strings.Split(word, m.cfg.Separator)
	}
	return !slices.ContainsFunc(parts, func(part string) bool { return !slices.Contains(m.classes, part) })
}

// reading returns the options for reading an input's texts, in the format and the
// column given or those of the training.
func (m *Model) reading(in task.Input, given *PredictOptions, note func(string)) *data.ExampleOptions {
	o := m.cfg.examples(note)
	o.Format = cmp.Or(given.Format, o.Format)
	switch {
	case in.Stream != nil && given.Format == "" && given.Text == "":
		o.Format = "" // by the first line
	case o.Format == data.FormatLabelFirst && given.Format != "":
		o.Format = data.FormatLines
	case o.Format == data.FormatLabelFirst || o.Format == "":
		o.Format = data.TextFormat(in.File, given.Text)
	}
	o.Text = cmp.Or(given.Text, o.Text)
	return o
}

// Remarks returns what a user might not expect of the predictions, a sentence
// each.
func (p *Predictions) Remarks() []string { return p.remarks }

// Print writes one line per text: probability, label and text; with Explain also
// the words that contributed most.
func (p *Predictions) Print(w io.Writer) {
	for _, one := range p.List {
		label := one.Label
		if one.Labels != nil {
			label = strings.Join(one.Labels, ", ")
		}
		probability := report.Percent(one.Probability)
		if one.Label == "" {
			label, probability = "-", "-"
		}
		fmt.Fprintf(w, "%s  %s  %s\n", probability, label, one.Text)
		for _, word := range strongest(one.Words, 8) {
			fmt.Fprintf(w, "    %+.2f  %s\n", word.Share, word.Text)
		}
	}
}

// strongest returns the n words with the largest shares in absolute value.
func strongest(words []WordShare, n int) []WordShare {
	sorted := slices.SortedStableFunc(slices.Values(words), func(a, b WordShare) int {
		return cmp.Compare(math.Abs(b.Share), math.Abs(a.Share))
	})
	return sorted[:min(n, len(sorted))]
}

// Write writes a CSV table: the columns of the input's table, or line and text,
// followed by label, probability and p(class) for each class; several labels are
// joined by |. With Explain the column words has the tokens' contributions, as JSON.
// Its errors are those of w.
func (p *Predictions) Write(w io.Writer) error {
	head := []string{"label", "probability"}
	for _, name := range p.Classes {
		head = append(head, "p("+name+")")
	}
	if p.explained {
		head = append(head, "words")
	}
	return task.WriteRows(w, p.rows, head, func(i int) [][]string {
		one := &p.List[i]
		row := []string{one.Label, ""}
		if one.Labels != nil {
			row[0] = strings.Join(one.Labels, "|")
		}
		if one.Label != "" {
			row[1] = decimal(one.Probability)
		}
		for _, v := range one.Probabilities {
			row = append(row, decimal(v))
		}
		row = append(row, make([]string, len(head)-len(row))...)
		if p.explained {
			words, _ := json.Marshal(append([]WordShare{}, one.Words...)) // numbers and texts always have a JSON form
			row[len(row)-1] = string(words)
		}
		return [][]string{row}
	})
}

func decimal(v float64) string { return strconv.FormatFloat(v, 'f', 4, 64) }
