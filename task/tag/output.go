package tag

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"io"
	"iter"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
)

// FormatText is the format of plain texts, one a line; the others are package data's.
const FormatText = "text"

// Predictions are the predicted tags of an input.
type Predictions struct {
	Task      string   `json:"task"`      // the task of the model
	Scheme    Scheme   `json:"scheme"`    // how tags mark spans: labels (not at all), iob1, iob2, bioes, bmes or bilou
	Sentences []Tagged `json:"sentences"` // in order
}

// Predict tags plain texts, one per line, or the sentences of a file with one token
// per line, which needs no tags. A file that cannot be read and invalid options are a
// *data.InputError; a cancelled ctx returns its error.
func (m *Model) Predict(ctx context.Context, in task.Input, o *PredictOptions) (*Predictions, error) {
	format, err := m.formatOf(in, o)
	if err != nil {
		return nil, err
	}
	p := &Predictions{Task: Name, Scheme: m.Scheme(), Sentences: []Tagged{}}
	if format == FormatText {
		texts, err := in.EachText(m.cfg.Encoding)
		if err == nil {
			p.Sentences, err = m.TagText(ctx, texts, o)
		}
		if err != nil {
			return nil, err
		}
		return p, nil
	}
	err = m.eachGroup(ctx, m.rows(in.File, format), o, func(_ []data.Sentence, tagged []Tagged) error {
		p.Sentences = append(p.Sentences, tagged...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// rows are the sentences of a file with their lines; a column of tags is not needed.
func (m *Model) rows(path, format string) iter.Seq2[data.Sentence, error] {
	cfg := m.cfg
	cfg.Format = format
	return data.ReadConll(path, cfg.reading(false, nil))
}

// groupSize is how many sentences are tagged at once where a file is copied.
const groupSize = 1024

// eachGroup tags sentences a group at a time, so that memory does not grow with
// the file.
func (m *Model) eachGroup(ctx context.Context, source iter.Seq2[data.Sentence, error], o *PredictOptions, f func([]data.Sentence, []Tagged) error) error {
	var group []data.Sentence
	flush := func() error {
		sentences := make([][]string, len(group))
		for i, s := range group {
			sentences[i] = s.Tokens
		}
		tagged, err := m.Tag(ctx, sentences, o)
		if err == nil {
			err = f(group, tagged)
		}
		group = group[:0]
		return err
	}
	for s, err := range source {
		if err != nil {
			return err
		}
		if group = append(group, s); len(group) == groupSize {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// Stream copies a file with one token per line and appends the predicted tags as
// the last column: the form that conlleval reads. Memory use does not grow with the
// file. For plain text it returns false and writes nothing. Errors are those of
// [Model.Predict] and of w.
func (m *Model) Stream(ctx context.Context, in task.Input, o *PredictOptions, w io.Writer) (done bool, notes []string, err error) {
	format, err := m.formatOf(in, o)
	if err != nil || format == FormatText {
		return false, nil, err
	}
	out := bufio.NewWriter(w)
	err = m.eachGroup(ctx, m.rows(in.File, format), o, func(group []data.Sentence, tagged []Tagged) error {
		for i, s := range group {
			next := 0
			for at, row := range s.Rows {
				_, _ = out.WriteString(row) // errors stay until Flush
				if next < len(s.Places) && s.Places[next] == at {
					separator := " "
					if strings.Contains(row, "\t") {
						separator = "\t"
					}
					_, _ = out.WriteString(separator + tagged[i].Tags[next])
					next++
				}
				_ = out.WriteByte('\n')
			}
			_ = out.WriteByte('\n')
		}
		return nil
	})
	return true, nil, errors.Join(err, out.Flush())
}

// formatOf is the format of an input: as given, or by the file's name, or by
// whether its first lines look like tokens in columns.
func (m *Model) formatOf(in task.Input, o *PredictOptions) (string, error) {
	given := ""
	if o != nil {
		if err := o.check(); err != nil {
			return "", err
		}
		given = o.Format
	}
	switch {
	case in.Stream != nil && in.File == "" && given != "" && given != FormatText:
		return "", data.Errorf("format: standard input is read as plain text; name a file for format %s", given)
	case in.File == "":
		return FormatText, nil
	case given != "":
		return given, nil
	}
	path := in.File
	switch filepath.Ext(strings.TrimSuffix(strings.ToLower(path), ".gz")) {
	case ".txt", ".md":
		return FormatText, nil
	case ".conll", ".iob", ".bio", ".bioes", ".ner":
		return data.FormatCoNLL, nil
	case ".conllu":
		return data.FormatCoNLLU, nil
	case ".bmes":
		return data.FormatBMES, nil
	}
	r, err := data.OpenLines(path, m.cfg.Encoding)
	if err != nil {
		return "", err
	}
	defer r.Close()
	if looksColumnar(r) {
		return data.FormatCoNLL, nil
	}
	return FormatText, nil
}

// looksColumnar says whether the first lines have the same number of columns,
// two or more, and blank lines between them.
func looksColumnar(r *data.LineReader) bool {
	columns, lines, blanks := 0, 0, 0
	for lines < 200 {
		line, err := r.Next()
		if err != nil {
			break
		}
		n := len(strings.Fields(line))
		if n == 0 {
			blanks++
			continue
		}
		if lines++; columns == 0 {
			columns = n
		}
		if n != columns {
			return false
		}
	}
	return columns > 1 && (blanks > 0 || lines < 20)
}

// Write writes a CSV table with a line for each span: the sentence's number, label, text,
// probability, tokens [from, to) and, of a plain text, bytes [start, end) and
// characters [rune_start, rune_end). Where tags mark no spans it writes one for
// each token.
func (p *Predictions) Write(w io.Writer) error {
	out := csv.NewWriter(w)
	_ = out.Write([]string{"sentence", "label", "text", "probability", "from", "to", "start", "end", "rune_start", "rune_end"}) // errors stay until Flush
	for i := range p.Sentences {
		for _, mark := range p.marks(i) {
			row := []string{strconv.Itoa(i + 1), mark.Label, mark.Text, strconv.FormatFloat(mark.Probability, 'f', 4, 64), strconv.Itoa(mark.From), strconv.Itoa(mark.To)}
			for k := range 4 {
				cell := ""
				if mark.Offset != nil {
					cell = strconv.Itoa([]int{mark.Start, mark.End, mark.RuneStart, mark.RuneEnd}[k])
				}
				row = append(row, cell)
			}
			_ = out.Write(row)
		}
	}
	out.Flush()
	return out.Error()
}

// marks are the spans of sentence i, or its tokens.
func (p *Predictions) marks(i int) []Mark {
	s := &p.Sentences[i]
	if p.Scheme != Labels {
		return s.Spans
	}
	marks := make([]Mark, len(s.Tokens))
	for t := range marks {
		marks[t] = Mark{Label: s.Tags[t], Text: s.Tokens[t], From: t, To: t + 1, Probability: s.Probabilities[t]}
		if s.Offsets != nil {
			marks[t].Offset = &s.Offsets[t]
		}
	}
	return marks
}
