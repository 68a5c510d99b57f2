package tag

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/carousel-ml/carousel/data"
)

// FormatText is the format of plain texts, one a line; the others are package data's.
const FormatText = "text"

// Predictions are the tags found in a file.
type Predictions struct {
	Task      string   `json:"task"`      // the task of the model
	Scheme    Scheme   `json:"scheme"`    // how tags mark spans: labels (not at all), iob1, iob2, bioes, bmes or bilou
	Sentences []Tagged `json:"sentences"` // in order
}

// PredictFile tags a file of plain texts, one a line, or of tokens, one a line. A
// format of "" goes by the file's name and content. What is wrong with the file
// is a *data.InputError.
func (m *Model) PredictFile(ctx context.Context, path, format string, o *PredictOptions) (*Predictions, error) {
	format, err := m.FormatOf(path, format)
	if err != nil {
		return nil, err
	}
	p := &Predictions{Task: Task, Scheme: m.Scheme(), Sentences: []Tagged{}}
	if format == FormatText {
		r, err := data.OpenLines(path, m.cfg.Encoding)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		texts, err := readTexts(r)
		if err != nil {
			return nil, err
		}
		p.Sentences, err = m.PredictText(ctx, texts, o)
		return p, err
	}
	err = m.eachGroup(ctx, m.rows(path, format), o, func(_ []data.Sentence, tagged []Tagged) error {
		p.Sentences = append(p.Sentences, tagged...)
		return nil
	})
	return p, err
}

// readTexts reads the lines that are not blank.
func readTexts(r *data.LineReader) ([]string, error) {
	var texts []string
	for {
		line, err := r.Next()
		if err == io.EOF {
			return texts, nil
		}
		if err != nil {
			return nil, err
		}
		if strings.TrimSpace(line) != "" {
			texts = append(texts, line)
		}
	}
}

// rows are the sentences of a file with their lines; a column of tags is not needed.
func (m *Model) rows(path, format string) Source {
	cfg := m.cfg
	cfg.Format = format
	return data.ReadConll(path, cfg.reading(false, nil))
}

// groupSize is how many sentences are tagged at once where a file is copied.
const groupSize = 1024

// eachGroup tags sentences a group at a time, so that memory does not grow with
// the file.
func (m *Model) eachGroup(ctx context.Context, source Source, o *PredictOptions, f func([]data.Sentence, []Tagged) error) error {
	var group []data.Sentence
	flush := func() error {
		sentences := make([][]string, len(group))
		for i, s := range group {
			sentences[i] = s.Tokens
		}
		tagged, err := m.Predict(ctx, sentences, o)
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

// CopyConll copies a file of tokens, one a line, with the tags found as a further
// column at the end: the form that conlleval reads. Memory does not grow with the file.
func (m *Model) CopyConll(ctx context.Context, w io.Writer, path, format string, o *PredictOptions) error {
	out := bufio.NewWriter(w)
	err := m.eachGroup(ctx, m.rows(path, format), o, func(group []data.Sentence, tagged []Tagged) error {
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
	return errors.Join(err, out.Flush())
}

// FormatOf is the format of a file: as given, or by its name, or by whether its
// first lines look like tokens in columns.
func (m *Model) FormatOf(path, given string) (string, error) {
	formats := []string{FormatText, data.FormatCoNLL, data.FormatCoNLLU, data.FormatBMES}
	if slices.Contains(formats, given) {
		return given, nil
	}
	if given != "" {
		return "", data.Errorf("format: want %s, got %q", join(formats), given)
	}
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

// WriteCSV writes a line for each span: the sentence's number, label, text,
// probability, tokens [from, to) and, of a plain text, bytes [start, end) and
// characters [rune_start, rune_end). Where tags mark no spans it writes one for
// each token.
func (p *Predictions) WriteCSV(w io.Writer) error {
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
