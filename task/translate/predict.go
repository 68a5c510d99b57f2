package translate

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// Translation is a text with its translation. Line and Columns are set by
// [Model.Predict].
type Translation struct {
	Line         int                        `json:"line"`                   // where the text begins in its file or stream, from 1; for other texts their number
	Source       string                     `json:"source"`                 // the text to translate
	Columns      map[string]json.RawMessage `json:"columns,omitempty"`      // the other columns of the text's row, or the other keys of its JSON object
	Text         string                     `json:"translation"`            // the best translation
	Score        float64                    `json:"score"`                  // sum of the scores of the parts: log-probabilities with penalties
	Alternatives []Alternative              `json:"alternatives,omitempty"` // the best first, if requested by n_best; for a text in parts, the n-th of each joined
	Parts        int                        `json:"parts"`                  // number of parts in which the text was translated; 0: it is empty
	Left         int                        `json:"left,omitempty"`         // number of tokens at the end of a very long text that were left out
	Attention    *Attention                 `json:"attention,omitempty"`    // attention of the first part, if requested
}

// Alternative is one possible translation of a text.
type Alternative struct {
	Text  string  `json:"translation"` // the text
	Score float64 `json:"score"`       // log-probability with penalties
}

// Attention is the attention weights of a translation.
type Attention struct {
	Source  []string    `json:"source"`  // tokens of the source; the last is its end
	Target  []string    `json:"target"`  // tokens of the translation; the last is its end
	Weights [][]float32 `json:"weights"` // [target][source], each row adds up to 1
}

// PredictOptions are options of a translation. nil, and search options with a Beam
// of 0, are those of the model's configuration.
type PredictOptions struct {
	SearchOptions
	NBest      int  `json:"n_best" range:"0..1000" value:"n" group:"Search" help:"also return the n most probable translations of each text, at most beam (0: none)"`
	CarryState bool `json:"carry_state" group:"Search" help:"the encoder begins each part of a long source with its state after the part before"`
	// Source is used by Predict and Parts only.
	Source string `json:"source" group:"Prediction" help:"column of the source sentences in a table (empty: as in training)"`
	// Picture is used by Predict and Parts only.
	Picture     string `json:"picture" value:"file" group:"Search" help:"write the attention of the first line's translation as a picture to this PNG file"`
	Attention   bool   `json:"-"` // return the decoder's attention
	PieceLength int    `json:"-"` // tokens of a part; 0: those of the longest source in training
}

// Inherit sets the search options to the model's.
func (o *PredictOptions) Inherit(m task.Model, _ func(name string) bool) {
	o.SearchOptions = m.(*Model).cfg.SearchOptions
}

// Validate returns a *data.InputError if an option is out of its range, or NBest
// greater than Beam.
func (o *PredictOptions) Validate() error {
	if o.NBest > o.Beam {
		return data.Errorf("n_best: want a number up to the beam, %d, got %d", o.Beam, o.NBest)
	}
	return o.SearchOptions.Validate()
}

// settled returns the options with the model's in place of those that are not set.
func (m *Model) settled(o *PredictOptions) PredictOptions {
	var options PredictOptions
	if o != nil {
		options = *o
	}
	options.SearchOptions = m.search(options.SearchOptions)
	if options.PieceLength <= 0 {
		options.PieceLength = m.most
	}
	return options
}

// search returns o, or the model's search options if o has no beam.
func (m *Model) search(o SearchOptions) SearchOptions {
	if o.Beam == 0 {
		return m.cfg.SearchOptions
	}
	return o
}

// Translate translates texts, in their order. A translation does not depend on
// the other texts. White space around a text is ignored; an empty text has an
// empty translation. A text of more tokens than PieceLength is divided after
// sentences, clauses or words; tokens beyond 10,000 are left out. The error is
// that of ctx.
func (m *Model) Translate(ctx context.Context, texts []string, o *PredictOptions) (_ []Translation, err error) {
	defer tensor.Recover(&err)
	options := m.settled(o)
	out := make([]Translation, len(texts))
	pieces := make([][]*piece, len(texts)) // of each text
	longest := 0
	for i, s := range texts {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		out[i].Source = s
		pieces[i], out[i].Left = m.pieces(i, s, options.PieceLength)
		out[i].Parts = len(pieces[i])
		longest = max(longest, len(pieces[i]))
	}
	if err := m.runAll(ctx, pieces, longest, &options); err != nil {
		return nil, err
	}
	for i := range out {
		m.assemble(&out[i], pieces[i], &options)
	}
	return out, nil
}

// Translations are the translations of an input, one per line.
type Translations struct {
	Task  string        `json:"task"`            // the task of the model
	List  []Translation `json:"translations"`    // one for each row or line of the input
	Notes []string      `json:"notes,omitempty"` // remarks on the result, a sentence each

	rows []data.TextRow // of a table
}

// Predict translates each line of an input, or each row of a table (CSV, TSV or JSON
// lines, by the file's name or if Source is given); texts are read as lines.
// The error is a *data.InputError for a file that cannot be read, or Picture without
// a line that is not empty, that of writing Picture, or ctx's.
func (m *Model) Predict(ctx context.Context, in task.Input, o *PredictOptions) (_ *Translations, err error) {
	defer tensor.Recover(&err)
	t := &Translations{Task: Name, List: []Translation{}}
	t.Notes, err = m.eachRow(ctx, in, o, func(rows []data.TextRow, list []Translation) error {
		t.List = append(t.List, list...)
		if rows[0].Fields != nil {
			t.rows = append(t.rows, rows...)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

// Parts translates as Predict does, in parts as [task.Trained.Parts] describes, each as
// soon as it is found. A table is one part.
func (m *Model) Parts(ctx context.Context, in task.Input, o *PredictOptions) iter.Seq2[*Translations, error] {
	return task.InParts(func(give func(*Translations) error) error {
		if m.tableOf(in, o) != nil {
			t, err := m.Predict(ctx, in, o)
			if err != nil {
				return err
			}
			return give(t)
		}
		notes, err := m.eachRow(ctx, in, o, func(_ []data.TextRow, list []Translation) error {
			return give(&Translations{Task: Name, List: list})
		})
		if err != nil {
			return err
		}
		return give(&Translations{Task: Name, List: []Translation{}, Notes: notes})
	})
}

// tableOf returns the options for reading an input that is a table, otherwise nil.
func (m *Model) tableOf(in task.Input, o *PredictOptions) *data.ExampleOptions {
	column := ""
	if o != nil {
		column = o.Source
	}
	format := data.TextFormat(in.File, column)
	if in.File == "" || format == data.FormatLines {
		return nil
	}
	return &data.ExampleOptions{Format: format, Text: cmp.Or(column, m.cfg.Source, "source"), Encoding: m.cfg.Encoding}
}

// rowReader reads the rows of an input.
type rowReader struct {
	next  func() (data.TextRow, error) // io.EOF after the last
	ready func() bool                  // whether next will not wait
	notes func() []string              // what was unusual, a sentence each
	close func()
}

func (m *Model) open(in task.Input, o *PredictOptions) (*rowReader, error) {
	if table := m.tableOf(in, o); table != nil {
		var notes []string
		table.Note = func(s string) { notes = append(notes, s) }
		next, stop := iter.Pull2(data.ReadTexts(in.File, table))
		return &rowReader{
			next: func() (data.TextRow, error) {
				row, err, ok := next()
				if !ok {
					err = io.EOF
				}
				return row, err
			},
			ready: func() bool { return true }, notes: func() []string { return notes }, close: stop,
		}, nil
	}
	r, err := in.Lines(m.cfg.Encoding)
	if err != nil {
		return nil, err
	}
	return &rowReader{
		next: func() (data.TextRow, error) {
			line, err := r.Next()
			row := data.TextRow{Line: r.Line, Text: line}
			if err == nil {
				row.Line = in.Number(r.Line - 1)
			}
			return row, err
		},
		ready: r.Ready, close: r.Close,
		notes: func() []string {
			if note := r.Note(); note != "" {
				return []string{note}
			}
			return nil
		},
	}, nil
}

// eachRow translates the rows of an input and calls each with some of them and their
// translations. The rows available without waiting, at most chunk, are translated
// together. It returns the notes on unusual rows.
func (m *Model) eachRow(ctx context.Context, in task.Input, o *PredictOptions, each func(rows []data.TextRow, list []Translation) error) (notes []string, err error) {
	r, err := m.open(in, o)
	if err != nil {
		return nil, err
	}
	defer r.close()
	options := m.settled(o)
	var said unusual
	var drawn *Attention
	for end := error(nil); end == nil; {
		var rows []data.TextRow
		var texts []string
		for end == nil && len(texts) < chunk && (len(texts) == 0 || r.ready()) {
			var row data.TextRow
			if row, end = r.next(); end == nil {
				rows, texts = append(rows, row), append(texts, row.Text)
			}
		}
		now := options
		now.Attention = options.Attention || options.Picture != "" && drawn == nil
		list, err := m.Translate(ctx, texts, &now)
		if err != nil {
			return nil, err
		}
		for i := range list {
			list[i].Line, list[i].Columns = rows[i].Line, rows[i].Others()
			if drawn == nil {
				drawn = list[i].Attention
			}
			if !options.Attention {
				list[i].Attention = nil
			}
		}
		said.see(list)
		if len(list) > 0 {
			if err := each(rows, list); err != nil {
				return nil, err
			}
		}
		if end != nil && end != io.EOF {
			return nil, end
		}
	}
	notes = append(said.notes(options.PieceLength), r.notes()...)
	if options.Picture == "" {
		return notes, nil
	}
	if drawn == nil {
		return nil, data.Errorf("picture: there is no line to draw a picture of")
	}
	notes = append(notes, "the picture of the attention is in "+options.Picture)
	return notes, model.WriteFileAtomic(options.Picture, drawn.figure().WritePNG)
}

// Remarks returns the notes.
func (t *Translations) Remarks() []string { return t.Notes }

// Print writes the lines of Write, also for a table.
func (t *Translations) Print(w io.Writer) { _ = writeLines(w, t.List) }

// Write writes one translation per line; with NBest, lines of the source's line, the
// score and the translation, separated by tabs. For a table it writes a CSV table:
// its columns, followed by translation or, with NBest, by rank, score and
// translation. The error is w's.
func (t *Translations) Write(w io.Writer) error {
	if t.rows == nil {
		return writeLines(w, t.List)
	}
	head := []string{"translation"}
	if slices.ContainsFunc(t.List, func(one Translation) bool { return one.Alternatives != nil }) {
		head = []string{"rank", "score", "translation"}
	}
	return task.WriteRows(w, t.rows, head, func(i int) [][]string {
		one := &t.List[i]
		if len(head) == 1 {
			return [][]string{{one.Text}}
		}
		var lines [][]string
		for n, h := range one.Alternatives {
			lines = append(lines, []string{strconv.Itoa(n + 1), fmt.Sprintf("%.4f", h.Score), h.Text})
		}
		return lines
	})
}

// writeLines writes translations one per line.
func writeLines(w io.Writer, list []Translation) error {
	b := bufio.NewWriter(w)
	for i := range list {
		one := &list[i]
		if one.Alternatives == nil {
			fmt.Fprintln(b, one.Text)
		}
		for _, h := range one.Alternatives {
			fmt.Fprintf(b, "%d\t%.4f\t%s\n", one.Line, h.Score, h.Text)
		}
	}
	return b.Flush()
}

// chunk is the most lines that are translated before the next are read.
const chunk = 500

// unusual counts the lines that were divided or cut.
type unusual struct{ long, huge, firstHuge, left int }

func (u *unusual) see(list []Translation) {
	for i := range list {
		if list[i].Parts > 1 {
			u.long++
		}
		if list[i].Left > 0 {
			if u.huge++; u.huge == 1 {
				u.firstHuge = list[i].Line
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
		notes = append(notes, fmt.Sprintf("texts of more than %d tokens, whose rest is left out: %d, the first in line %d (%d tokens left out in total)", mostTokens, u.huge, u.firstHuge, u.left))
	}
	return notes
}

// Serves returns how a server offers the model: texts, with their translations.
func (m *Model) Serves() (*task.Service, error) {
	return &task.Service{Apart: true, Most: map[string]float64{"beam": 100}, Outputs: []task.Output{
		{Name: "translation", Texts: func(p task.Prediction) []string {
			return task.TextsOf(p.(*Translations).List, func(one *Translation) string { return one.Text })
		}},
	}}, nil
}
