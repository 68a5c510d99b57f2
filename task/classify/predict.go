package classify

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/result"
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
	columns   *task.Columns // of all rows of the input
	further   bool          // a part that is not the first
	explained bool
	remarks   []string
}

// Predict classifies the texts of an input: a file in the format that the model
// was trained on, in which labels are not needed, or lines. A file that cannot be
// read and the options that Classify refuses are a *data.InputError; a cancelled
// ctx returns its error.
func (m *Model) Predict(ctx context.Context, in task.Input, o *PredictOptions) (*Predictions, error) {
	return task.Joined(m.Parts(ctx, in, o), func(whole, p *Predictions) {
		whole.List, whole.rows, whole.remarks = append(whole.List, p.List...), append(whole.rows, p.rows...), append(whole.remarks, p.remarks...)
	})
}

// Parts classifies the texts of an input as Predict does, in parts as
// [task.Trained.Parts] describes. It reads the input twice, as the last row may add a
// column or show that lines begin with labels; so an input that cannot be read is an
// error before the first part.
func (m *Model) Parts(ctx context.Context, in task.Input, o *PredictOptions) iter.Seq2[*Predictions, error] {
	return task.InParts(func(give func(*Predictions) error) error {
		return m.parts(ctx, in, cmp.Or(o, &PredictOptions{}), give)
	})
}

func (m *Model) parts(ctx context.Context, in task.Input, o *PredictOptions, give func(*Predictions) error) error {
	if err := settings.Check(o); err != nil {
		return data.Setting(err)
	}
	in, done, err := in.Again()
	if err != nil {
		return err
	}
	defer done()
	seen := lines{m: m, known: m.cfg.Format == data.FormatLabelFirst && (in.File != "" || in.Stream != nil)}
	columns := &task.Columns{}
	for row, err := range in.EachRow(m.reading(in, o, nil)) {
		if err := cmp.Or(err, ctx.Err()); err != nil {
			return err
		}
		seen.see(&row)
		columns.Add(&row)
	}
	part := func() *Predictions {
		return &Predictions{Task: Name, Classes: m.Classes(), List: []Prediction{}, columns: columns, explained: o.Explain}
	}
	p := part()
	labelled, remark := seen.labelled(o.Format)
	if labelled {
		columns.Add(seen.divide(data.TextRow{})) // its two columns
	}
	cut, empty := 0, 0
	rows := in.EachRow(m.reading(in, o, func(s string) { p.remarks = append(p.remarks, s) }))
	for group, err := range task.Groups(ctx, rows, func(r data.TextRow) int { return len(r.Text) }) {
		if err != nil {
			return err
		}
		p.rows = group
		texts := make([]string, len(p.rows))
		for i := range p.rows {
			if labelled {
				p.rows[i] = *seen.divide(p.rows[i])
			}
			texts[i] = p.rows[i].Text
		}
		if p.List, err = m.Classify(ctx, texts, o); err != nil {
			return err
		}
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
		if err := give(p); err != nil {
			return err
		}
		p = part()
		p.further = true
	}
	p.remarks = slices.Concat(p.remarks, remark, m.cutNote(cut))
	if empty > 0 {
		p.remarks = append(p.remarks, report.Agree(empty, "text is", "texts are")+" empty and without a label")
	}
	return give(p)
}

// lines find out whether the lines of an input begin with their labels.
type lines struct {
	m        *Model
	known    bool // the model was trained on such a file, and so far each line begins with a class
	fields   bool // the rows are not lines
	prefixed bool // a line begins with fastText's prefix
	texts    int  // lines with a text behind their label
}

func (l *lines) see(row *data.TextRow) {
	l.fields = l.fields || row.Fields != nil
	l.prefixed = l.prefixed || hasPrefix(row.Text)
	if l.known && strings.TrimSpace(row.Text) != "" {
		labels, text := data.CutLabels(row.Text)
		l.known = l.m.isClass(labels[0])
		if text != "" {
			l.texts++
		}
	}
}

// labelled reports whether lines begin with their labels: if the format says so, if a
// line begins with fastText's prefix, or if each line begins with a class, the model was
// trained on such a file, and it may be another. Then there is a remark.
func (l *lines) labelled(format string) (yes bool, remark []string) {
	switch {
	case format != "":
		return format == data.FormatLabelFirst, nil
	case l.fields:
		return false, nil
	case l.prefixed:
		return true, nil
	case l.known && l.texts > 0:
		return true, []string{"each line begins with a label of the model, which is left out of its text; if it belongs to the text, give --format lines"}
	}
	return false, nil
}

// divide returns a line as a row of its labels and its text.
func (l *lines) divide(row data.TextRow) *data.TextRow {
	labels, text := data.CutLabels(row.Text)
	if l.prefixed && !hasPrefix(row.Text) {
		labels, text = nil, row.Text
	}
	row.Text, row.Column = text, 1
	row.Fields = []data.Field{{Name: "label", Text: strings.Join(labels, " ")}, {Name: "text", Text: text}}
	return &row
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
	return p.columns.Write(w, !p.further, p.rows, head, func(i int) [][]string {
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

// Serves returns how a server offers the model: texts, with their labels and the
// probabilities of the classes, NaN for a text without tokens.
func (m *Model) Serves() (*task.Service, error) {
	s := &task.Service{Apart: true, Outputs: []task.Output{
		{Name: "label", Texts: func(p task.Prediction) []string {
			return task.TextsOf(p.(*Predictions).List, func(one *Prediction) string { return one.Label })
		}},
		{Name: "probabilities", Labels: m.Classes(), Numbers: func(p task.Prediction) []float64 {
			all := []float64{}
			for _, one := range p.(*Predictions).List {
				for k := range m.classes {
					v := math.NaN()
					if one.Label != "" {
						v = one.Probabilities[k]
					}
					all = append(all, v)
				}
			}
			return all
		}},
	}}
	if m.several() {
		s.Outputs = append(s.Outputs, task.Output{Name: "labels", Texts: func(p task.Prediction) []string {
			return task.TextsOf(p.(*Predictions).List, func(one *Prediction) string {
				list, _ := result.JSON(one.Labels) // texts always have a JSON form
				return string(list)
			})
		}})
	}
	return s, nil
}
