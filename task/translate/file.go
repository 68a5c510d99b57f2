package translate

import (
	"bufio"
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"strconv"

	"github.com/carousel-ml/carousel/data"
)

// Translations are those of a file, line by line.
type Translations struct {
	Task  string        `json:"task"`            // the task of the model
	List  []Translation `json:"translations"`    // line by line
	Notes []string      `json:"notes,omitempty"` // what to know of the result, a sentence each
}

// WriteCSV writes a table with a header line: source, translation, score.
func (t *Translations) WriteCSV(w io.Writer) error {
	c := csv.NewWriter(w)
	rows := [][]string{{"source", "translation", "score"}}
	for i := range t.List {
		rows = append(rows, []string{t.List[i].Source, t.List[i].Text, strconv.FormatFloat(t.List[i].Score, 'f', 4, 64)})
	}
	return c.WriteAll(rows)
}

// WriteText writes a translation a line; or, where several were asked for, lines
// of the source's number from 1, the score and the translation with tabs between.
func (t *Translations) WriteText(w io.Writer) error { return WriteLines(w, t.List, 1) }

// WriteLines is [Translations.WriteText] for a part of a file that begins with line first.
func WriteLines(w io.Writer, list []Translation, first int) error {
	b := bufio.NewWriter(w)
	for i := range list {
		one := &list[i]
		if one.Hypotheses == nil {
			fmt.Fprintln(b, one.Text)
		}
		for _, h := range one.Hypotheses {
			fmt.Fprintf(b, "%d\t%.4f\t%s\n", first+i, h.Score, h.Text)
		}
	}
	return b.Flush()
}

// chunk is how many lines are translated before the next are read.
const chunk = 500

// Lines translates line by line what comes from r: the lines that are there
// already, at most 500, together, and hands them on before it waits for more. It
// returns what is to be said of unusual lines.
func (m *Model) Lines(ctx context.Context, r *data.LineReader, o *Options, each func(first int, list []Translation) error) (notes []string, err error) {
	var said unusual
	for first, end := 1, error(nil); end == nil; {
		var texts []string
		for end == nil && len(texts) < chunk && (len(texts) == 0 || r.Ready()) {
			var line string
			if line, end = r.Next(); end == nil {
				texts = append(texts, line)
			}
		}
		list, err := m.Translate(ctx, texts, o)
		if err != nil {
			return nil, err
		}
		said.see(list, first)
		if err := each(first, list); err != nil {
			return nil, err
		}
		first += len(list)
		if end != nil && end != io.EOF {
			return nil, end
		}
	}
	notes = said.notes(m.limit(o))
	if text := r.Note(); text != "" {
		notes = append(notes, text)
	}
	return notes, nil
}

// TranslateFile translates the lines of a file, plain or gzipped. What is wrong
// with it is a *data.InputError.
func (m *Model) TranslateFile(ctx context.Context, path string, o *Options) (*Translations, error) {
	r, err := data.OpenLines(path, m.cfg.Encoding)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	t := &Translations{Task: Task, List: []Translation{}}
	t.Notes, err = m.Lines(ctx, r, o, func(_ int, list []Translation) error {
		t.List = append(t.List, list...)
		return nil
	})
	return t, err
}

// unusual counts the lines that were not simply translated.
type unusual struct{ long, huge, firstHuge, left int }

func (u *unusual) see(list []Translation, first int) {
	for i := range list {
		if list[i].Parts > 1 {
			u.long++
		}
		if list[i].Left > 0 {
			if u.huge++; u.huge == 1 {
				u.firstHuge = first + i
			}
			u.left += list[i].Left
		}
	}
}

func (u *unusual) notes(limit int) (notes []string) {
	if u.long > 0 {
		notes = append(notes, fmt.Sprintf("texts of more than %d tokens, translated in parts: %d", limit, u.long))
	}
	if u.huge > 0 {
		notes = append(notes, fmt.Sprintf("texts of more than %d tokens, of which the rest is left out: %d, the first of them line %d (%d tokens in all)", mostTokens, u.huge, u.firstHuge, u.left))
	}
	return notes
}
