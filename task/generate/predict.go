package generate

import (
	"context"
	"encoding/csv"
	"io"
	"strconv"

	"github.com/carousel-ml/carousel/data"
)

// Continuations are texts that go on from prompts.
type Continuations struct {
	Task string      `json:"task"`  // the task of the model
	List []Generated `json:"texts"` // prompt by prompt
}

// WriteCSV writes a table with the columns prompt, text, tokens, log_prob and ended.
func (c *Continuations) WriteCSV(w io.Writer) error {
	out := csv.NewWriter(w)
	rows := [][]string{{"prompt", "text", "tokens", "log_prob", "ended"}}
	for _, g := range c.List {
		rows = append(rows, []string{g.Prompt, g.Text, strconv.Itoa(g.Tokens), strconv.FormatFloat(g.LogProb, 'g', 8, 64), g.Ended})
	}
	return out.WriteAll(rows)
}

// PredictFile goes on from each line of a file. What is wrong with the file is a
// *data.InputError.
func (m *Model) PredictFile(ctx context.Context, path string, o *GenerateOptions) (*Continuations, error) {
	lines, err := data.OpenLines(path, m.cfg.Encoding)
	if err != nil {
		return nil, err
	}
	defer lines.Close()
	return m.PredictLines(ctx, lines, o)
}

// PredictLines is PredictFile of lines that are open already.
func (m *Model) PredictLines(ctx context.Context, lines *data.LineReader, o *GenerateOptions) (*Continuations, error) {
	var prompts []string
	for {
		line, err := lines.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		prompts = append(prompts, line)
	}
	if len(prompts) == 0 {
		return nil, &data.InputError{File: lines.File, Problem: "is empty", Fix: "give a file with a prompt on each line"}
	}
	list, err := m.Generate(ctx, prompts, o)
	return &Continuations{Task, list}, err
}
