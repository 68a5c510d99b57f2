package tag

import (
	"bufio"
	"cmp"
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"iter"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/result"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// Tagged is a sentence with its predicted tags. Line is set by [Model.Predict].
type Tagged struct {
	Line          int           `json:"line"`                   // where the text or sentence begins in its file or stream, from 1; for others their number
	Text          string        `json:"text,omitempty"`         // the plain text, if the input was one
	Tokens        []string      `json:"tokens"`                 // the tokens of the sentence or text
	Offsets       []Offset      `json:"offsets,omitempty"`      // of the tokens in text
	Tags          []string      `json:"tags"`                   // one per token, in the scheme of the training file
	Probabilities []float64     `json:"probabilities"`          // of the tokens' tags (for spans, of the BIOES tags that the network computes)
	Spans         []Mark        `json:"spans,omitempty"`        // the spans, if tags mark spans
	Alternatives  []Alternative `json:"alternatives,omitempty"` // the most probable sequences of tags, best first, if requested by n_best
}

// Offset is the range of a token or a span in a text, in bytes and in characters
// (Unicode code points).
type Offset struct {
	Start     int `json:"start"`      // in bytes, from 0
	End       int `json:"end"`        // in bytes, not included
	RuneStart int `json:"rune_start"` // in characters (Unicode code points)
	RuneEnd   int `json:"rune_end"`   // likewise
}

// Mark is a predicted span: tokens [From, To) with a label. Probability is that
// of this span with this label, whatever the tags of the rest of the sentence.
type Mark struct {
	Label       string              `json:"label"` // the label
	Text        string              `json:"text"`  // its text; for a sentence of tokens these, separated by spaces
	From        int                 `json:"from"`  // its first token, from 0
	To          int                 `json:"to"`    // the token after its last
	*Offset     `json:",omitempty"` // in a plain text; otherwise nil
	Probability float64             `json:"probability"` // of this span with this label, whatever the tags of the rest
}

// Alternative is a whole sequence of tags with its probability.
type Alternative struct {
	Tags        []string `json:"tags"`        // one per token
	Probability float64  `json:"probability"` // of the whole sequence
}

// PredictOptions are the options of a prediction; nil is the zero value.
type PredictOptions struct {
	NBest     int      `json:"n_best" range:"0..1000" value:"n" group:"Prediction" help:"also return the n most probable sequences of tags of each sentence, unless it is longer than piece_length (0: none)"`
	Format    string   `json:"format" oneof:"(by the file's name and first lines),text,conll,conllu,bmes" group:"Prediction" help:"file format"`
	Segmenter []string `json:"segmenter" value:"file" group:"Prediction" help:"models for words in Thai, Lao, Khmer and Burmese in plain text, weights.json of lstm_word_segmentation; needs tokens word (empty: these scripts by character)"`
	Tokens    string   `json:"tokens" oneof:"(char if the training tokens are characters, otherwise word),word,char,space" group:"Prediction" help:"kind of token into which plain text is divided"`
}

func (o *PredictOptions) check() error { return data.Setting(settings.Check(o)) }

// Tag tags sentences of tokens and returns one result per sentence, in their order.
// A result does not depend on the other sentences. Invalid options are a
// *data.InputError; a cancelled ctx returns its error.
func (m *Model) Tag(ctx context.Context, sentences [][]string, o *PredictOptions) (_ []Tagged, err error) {
	defer tensor.Recover(&err)
	if o == nil {
		o = &PredictOptions{}
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	d := newCorpus()
	for _, tokens := range sentences {
		d.add(&data.Sentence{Tokens: tokens}, m.cfg.PieceLength)
	}
	m.vocabularies.apply(d, &m.cfg)
	out, ids := make([]Tagged, len(sentences)), make([]int32, len(d.tokens))
	probabilities, spans, owner := make([]float64, len(d.tokens)), make([][]Mark, len(d.pieces)), d.owners()
	decoder := m.net.decoder(m.tags, m.spans())
	read := func(i int, scores []float32) {
		p, s := d.pieces[i], d.sentence(owner[i])
		best, known := decoder.Viterbi(scores), decoder.Marginals(scores)
		copy(ids[p.from:], best)
		for t, tag := range best {
			probabilities[p.from+t] = min(known.Prob(t, tag), 1)
		}
		if m.spans() {
			at := p.from - s.from
			for _, span := range Spans(m.write(best, BIOES)) {
				sure := min(known.Prob(span.From, best[span.From:span.To]...), 1)
				spans[i] = append(spans[i], Mark{Label: span.Label, From: at + span.From, To: at + span.To, Probability: sure})
			}
		}
		if p == s {
			for _, one := range decoder.NBest(scores, o.NBest) {
				out[owner[i]].Alternatives = append(out[owner[i]].Alternatives, Alternative{m.write(one.Tags, m.Scheme()), math.Exp(one.LogProb)})
			}
		}
	}
	err = eachBatch(ctx, m, tensor.NewTape(m.slab.Device(), tensor.Infer), d, func(_ *batch, _ []int, scores *tensor.Tensor) []float32 { return scores.Data() },
		func(list []int, scores []float32) { m.eachPiece(d, list, scores, read) })
	for i := range out {
		s := d.sentence(i)
		out[i].Tokens = append([]string{}, sentences[i]...) // a list also if it is empty
		out[i].Tags, out[i].Probabilities = m.write(ids[s.from:s.to], m.Scheme()), probabilities[s.from:s.to]
	}
	for i, list := range spans {
		for _, mark := range list {
			one := &out[owner[i]]
			mark.Text = strings.Join(one.Tokens[mark.From:mark.To], " ")
			one.Spans = append(one.Spans, mark)
		}
	}
	return out, err
}

// owners returns the index of the sentence of each piece.
func (d *corpus) owners() []int {
	owner := make([]int, len(d.pieces))
	i := 0
	for at, p := range d.pieces {
		for d.ends[i] < p.to {
			i++
		}
		owner[at] = i
	}
	return owner
}

// TagText cuts plain texts, such as lines, into tokens and tags them; each text is
// one sentence. Bytes that are not UTF-8 are read as U+FFFD. Errors are those of
// [Model.Tag].
func (m *Model) TagText(ctx context.Context, texts []string, o *PredictOptions) (_ []Tagged, err error) {
	defer tensor.Recover(&err)
	if o == nil {
		o = &PredictOptions{}
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	cut, err := m.cutter(ctx, o.Tokens, o.Segmenter)
	if err != nil {
		return nil, err
	}
	sentences, offsets := make([][]string, len(texts)), make([][]Offset, len(texts))
	for i, text := range texts {
		runes := runeCounter{text: text}
		for _, p := range cut(text) {
			sentences[i] = append(sentences[i], strings.ToValidUTF8(text[p.from:p.to], "\uFFFD"))
			offsets[i] = append(offsets[i], Offset{p.from, p.to, runes.before(p.from), runes.before(p.to)})
		}
	}
	out, err := m.Tag(ctx, sentences, o)
	for i := range out {
		one := &out[i]
		one.Text, one.Offsets = texts[i], offsets[i]
		for k, s := range one.Spans {
			one.Spans[k] = one.mark(Span{s.From, s.To, s.Label}, s.Probability)
		}
	}
	return out, err
}

// runeCounter counts the characters before positions that never decrease.
type runeCounter struct {
	text      string
	at, runes int
}

// before returns the number of characters before byte at.
func (c *runeCounter) before(at int) int {
	c.runes += utf8.RuneCountInString(c.text[c.at:at])
	c.at = at
	return c.runes
}

// Predictions are the predicted tags of an input.
type Predictions struct {
	Task      string   `json:"task"`      // the task of the model
	Scheme    Scheme   `json:"scheme"`    // scheme of the tags: labels (no spans), iob1, iob2, bioes, bmes or bilou
	Sentences []Tagged `json:"sentences"` // in order; of plain text one per line, also of a blank one

	ranked  bool                  // alternatives were requested
	before  int                   // sentences of the parts before this one
	further bool                  // a part that is not the first
	copied  func(io.Writer) error // a part of a file in columns: writes its lines with the tags
	remarks []string
}

// Remarks returns what a user might not expect of the predictions, a sentence each.
func (p *Predictions) Remarks() []string { return p.remarks }

// Predict tags plain texts, one per line, or the sentences of a file with one
// token per line, which needs no tags. A file that cannot be read and invalid
// options are a *data.InputError; a cancelled ctx returns its error.
func (m *Model) Predict(ctx context.Context, in task.Input, o *PredictOptions) (*Predictions, error) {
	whole, err := task.Joined(m.Parts(ctx, in, o), func(whole, p *Predictions) {
		whole.Sentences, whole.remarks = append(whole.Sentences, p.Sentences...), append(whole.remarks, p.remarks...)
	})
	if whole != nil {
		whole.copied = nil // of the first part alone
	}
	return whole, err
}

// Parts tags an input as Predict does, in parts as [task.Trained.Parts] describes.
// Write and Print of the parts of a file with one token per line copy the file, with the
// predicted tags where the model would read them ([data.ConllOptions.TagWriter]): in
// CoNLL-U in the column that was learned, otherwise by default as the last column, the
// form that conlleval reads. All other columns and lines stay as they are. A model that
// did not learn from CoNLL-U writes Tag=TAG into its column MISC.
func (m *Model) Parts(ctx context.Context, in task.Input, o *PredictOptions) iter.Seq2[*Predictions, error] {
	return task.InParts(func(give func(*Predictions) error) error {
		format, err := m.formatOf(in, o)
		if err != nil {
			return err
		}
		o = cmp.Or(o, &PredictOptions{})
		p := &Predictions{Task: Name, Scheme: m.Scheme(), Sentences: []Tagged{}, ranked: o.NBest > 0}
		remark := func(s string) { p.remarks = append(p.remarks, s) }
		next := func() error { // gives p and begins the part after it
			given := *p
			p.before, p.further, p.remarks, p.Sentences = p.before+len(p.Sentences), true, nil, []Tagged{}
			return give(&given)
		}
		if format == FormatText {
			err = m.eachText(ctx, in, o, remark, func(tagged []Tagged) error {
				p.Sentences = tagged
				return next()
			})
			if err != nil {
				return err
			}
			return next()
		}
		write, err := m.tagWriter(format)
		if err != nil {
			return err
		}
		p.copied = func(io.Writer) error { return nil }
		err = m.eachGroup(ctx, m.rows(in.File, format, remark), o, func(group []data.Sentence, tagged []Tagged) error {
			for i := range tagged {
				if tagged[i].Line = group[i].Line; len(tagged[i].Tokens) > 0 {
					p.Sentences = append(p.Sentences, tagged[i])
				}
			}
			p.copied = func(w io.Writer) error { return copyRows(w, group, tagged, write) }
			return next()
		})
		if err != nil {
			return err
		}
		p.copied = func(io.Writer) error { return nil }
		if o.NBest > 1 {
			remark("n_best: a copy of the file has only the most probable tags; --json has the others")
		}
		return next()
	})
}

// copyRows writes the lines of sentences, with the tags in the lines of the tokens.
func copyRows(w io.Writer, group []data.Sentence, tagged []Tagged, write func(row, tag string) string) error {
	out := bufio.NewWriter(w)
	for i, s := range group {
		next := 0
		for at, row := range s.Rows {
			if next < len(s.Places) && s.Places[next] == at {
				row = write(row, tagged[i].Tags[next])
				next++
			}
			_, _ = out.WriteString(row + "\n") // errors stay until Flush
		}
		if last := len(s.Rows) - 1; next > 0 && strings.TrimSpace(s.Rows[last]) != "" {
			_ = out.WriteByte('\n') // the end of the last sentence
		}
	}
	return out.Flush()
}

// Print writes the sentences with the predicted spans in brackets.
func (p *Predictions) Print(w io.Writer) {
	if p.copied != nil {
		_ = p.copied(w)
		return
	}
	for i := range p.Sentences {
		s := &p.Sentences[i]
		fmt.Fprintln(w, s.bracketed(s.Tags, p.Scheme))
		for _, one := range s.Alternatives {
			fmt.Fprintf(w, "    %s  %s\n", report.Percent(one.Probability), s.bracketed(one.Tags, p.Scheme))
		}
	}
}

// bracketed writes the sentence with its tags; a text keeps its white space.
func (t *Tagged) bracketed(tags []string, scheme Scheme) string {
	if t.Offsets == nil {
		return bracketed(t.Tokens, tags, scheme, nil)
	}
	gaps, end := make([]string, 0, len(t.Offsets)+1), 0
	for _, o := range t.Offsets {
		gaps, end = append(gaps, t.Text[end:o.Start]), o.End
	}
	return bracketed(t.Tokens, tags, scheme, append(gaps, t.Text[end:]))
}

// Write writes a CSV table with a line per span: the sentence's number, which for
// plain texts is that of the line, label, text, probability, tokens [from, to) and,
// for a plain text, bytes [start, end) and characters [rune_start, rune_end). If tags
// mark no spans there is a line per token. With alternatives there are such lines for
// each, the column rank numbers them from 1, and the probability is that of the whole
// sequence of tags. Its errors are those of w.
func (p *Predictions) Write(w io.Writer) error {
	if p.copied != nil {
		return p.copied(w)
	}
	out := csv.NewWriter(w)
	head := []string{"sentence", "label", "text", "probability", "from", "to", "start", "end", "rune_start", "rune_end"}
	if p.ranked {
		head = append(head, "rank")
	}
	if !p.further {
		_ = out.Write(head) // errors stay until Flush
	}
	for i := range p.Sentences {
		s := &p.Sentences[i]
		lists := [][]Mark{p.marks(s)}
		for k, one := range s.Alternatives {
			lists = append(lists[:k], one.marks(s, p.Scheme))
		}
		for rank, marks := range lists {
			for _, mark := range marks {
				row := []string{strconv.Itoa(p.before + i + 1), mark.Label, mark.Text, strconv.FormatFloat(mark.Probability, 'f', 4, 64), strconv.Itoa(mark.From), strconv.Itoa(mark.To)}
				for k := range 4 {
					cell := ""
					if mark.Offset != nil {
						cell = strconv.Itoa([]int{mark.Start, mark.End, mark.RuneStart, mark.RuneEnd}[k])
					}
					row = append(row, cell)
				}
				if p.ranked {
					row = append(row, strconv.Itoa(rank+1))
				}
				_ = out.Write(row)
			}
		}
	}
	out.Flush()
	return out.Error()
}

// marks returns the spans of a sentence, or its tokens.
func (p *Predictions) marks(s *Tagged) []Mark {
	if p.Scheme != Labels {
		return s.Spans
	}
	marks := make([]Mark, len(s.Tokens))
	for t := range marks {
		marks[t] = s.mark(Span{t, t + 1, s.Tags[t]}, s.Probabilities[t])
	}
	return marks
}

// marks returns the spans of a sequence of tags for s, or its tokens.
func (a *Alternative) marks(s *Tagged, scheme Scheme) (marks []Mark) {
	spans := Spans(a.Tags)
	if scheme == Labels {
		spans = nil
		for t, tag := range a.Tags {
			spans = append(spans, Span{t, t + 1, tag})
		}
	}
	for _, span := range spans {
		marks = append(marks, s.mark(span, a.Probability))
	}
	return marks
}

// mark returns a span of the sentence with its text and place.
func (t *Tagged) mark(span Span, probability float64) Mark {
	m := Mark{Label: span.Label, Text: strings.Join(t.Tokens[span.From:span.To], " "), From: span.From, To: span.To, Probability: probability}
	if t.Offsets != nil {
		first, last := t.Offsets[span.From], t.Offsets[span.To-1]
		m.Offset = &Offset{first.Start, last.End, first.RuneStart, last.RuneEnd}
		m.Text = t.Text[m.Start:m.End]
	}
	return m
}

// Serves returns how a server offers the model: texts, with the spans of each as a JSON
// list, or with its tags if these mark no spans.
func (m *Model) Serves() (*task.Service, error) {
	return &task.Service{Apart: true, Outputs: []task.Output{
		{Name: "tags", Texts: func(p task.Prediction) []string {
			return task.TextsOf(p.(*Predictions).Sentences, func(one *Tagged) string {
				list := any(one.Tags)
				if m.spans() {
					list = one.Spans
				}
				text, _ := result.JSON(list) // texts and numbers always have a JSON form
				return string(text)
			})
		}},
	}}, nil
}
