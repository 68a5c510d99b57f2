package translate

import (
	"bufio"
	"context"
	"fmt"
	"io"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// Translation is a text with its translation.
type Translation struct {
	Source       string        `json:"source"`                 // the text to translate
	Text         string        `json:"translation"`            // the best translation
	Score        float64       `json:"score"`                  // sum of the scores of the parts: log-probabilities with penalties
	Alternatives []Alternative `json:"alternatives,omitempty"` // the best first, if requested by n_best; for a text in parts, the n-th of each joined
	Parts        int           `json:"parts"`                  // number of parts in which the text was translated; 0: it is empty
	Left         int           `json:"left,omitempty"`         // number of tokens at the end of a very long text that were left out
	Attention    *Attention    `json:"attention,omitempty"`    // attention of the first part, if requested
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
	// Picture is used by Predict and Stream only.
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
	List  []Translation `json:"translations"`    // one per line of the input
	Notes []string      `json:"notes,omitempty"` // remarks on the result, a sentence each
}

// Predict translates each line of an input; texts are read as lines. The error is a
// *data.InputError for a file that cannot be read, or Picture without a line that is
// not empty, that of writing Picture, or ctx's.
func (m *Model) Predict(ctx context.Context, in task.Input, o *PredictOptions) (_ *Translations, err error) {
	defer tensor.Recover(&err)
	t := &Translations{Task: Name, List: []Translation{}}
	t.Notes, err = m.eachLine(ctx, in, o, func(_ int, list []Translation) error {
		t.List = append(t.List, list...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

// Stream translates as Predict does and writes each translation as soon as it is
// found, in the form of [Translations.Write]. done is always true, notes are those of
// [Translations], and the error is Predict's or w's.
func (m *Model) Stream(ctx context.Context, in task.Input, o *PredictOptions, w io.Writer) (done bool, notes []string, err error) {
	defer tensor.Recover(&err)
	notes, err = m.eachLine(ctx, in, o, func(first int, list []Translation) error { return writeLines(w, list, first) })
	return true, notes, err
}

// eachLine translates the lines of an input and calls each with the translations and
// the number of the first of them, from 1. The lines available without waiting, at
// most chunk, are translated together. It returns the notes on unusual lines.
func (m *Model) eachLine(ctx context.Context, in task.Input, o *PredictOptions, each func(first int, list []Translation) error) (notes []string, err error) {
	r, err := in.Lines(m.cfg.Encoding)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	options := m.settled(o)
	var said unusual
	var drawn *Attention
	for first, end := 1, error(nil); end == nil; {
		var texts []string
		for end == nil && len(texts) < chunk && (len(texts) == 0 || r.Ready()) {
			var line string
			if line, end = r.Next(); end == nil {
				texts = append(texts, line)
			}
		}
		now := options
		now.Attention = options.Attention || options.Picture != "" && drawn == nil
		list, err := m.Translate(ctx, texts, &now)
		if err != nil {
			return nil, err
		}
		for i := range list {
			if drawn == nil {
				drawn = list[i].Attention
			}
			if !options.Attention {
				list[i].Attention = nil
			}
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
	notes = said.notes(options.PieceLength)
	if text := r.Note(); text != "" {
		notes = append(notes, text)
	}
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

// Print is Write.
func (t *Translations) Print(w io.Writer) { _ = t.Write(w) }

// Write writes one translation per line; with NBest, lines of the source's number
// from 1, the score and the translation, separated by tabs. The error is w's.
func (t *Translations) Write(w io.Writer) error { return writeLines(w, t.List, 1) }

// writeLines writes the translations of lines first and following.
func writeLines(w io.Writer, list []Translation, first int) error {
	b := bufio.NewWriter(w)
	for i := range list {
		one := &list[i]
		if one.Alternatives == nil {
			fmt.Fprintln(b, one.Text)
		}
		for _, h := range one.Alternatives {
			fmt.Fprintf(b, "%d\t%.4f\t%s\n", first+i, h.Score, h.Text)
		}
	}
	return b.Flush()
}

// chunk is the most lines that are translated before the next are read.
const chunk = 500

// unusual counts the lines that were divided or cut.
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
		notes = append(notes, fmt.Sprintf("texts of more than %d tokens, whose rest is left out: %d, the first in line %d (%d tokens left out in total)", mostTokens, u.huge, u.firstHuge, u.left))
	}
	return notes
}
