package generate

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"strconv"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
)

// Predictions are the continuations of prompts.
type Predictions struct {
	Task string      `json:"task"`  // the task of the model
	List []Generated `json:"texts"` // prompt by prompt
}

// Predict continues each line of a file or stream, or each text. A file that is
// empty or cannot be read and invalid options are a *data.InputError; a cancelled
// ctx returns its error.
func (m *Model) Predict(ctx context.Context, in task.Input, o *PredictOptions) (*Predictions, error) {
	prompts, err := m.prompts(in)
	if err != nil {
		return nil, err
	}
	list, err := m.Generate(ctx, prompts, o)
	if err != nil {
		return nil, err
	}
	return &Predictions{Name, list}, nil
}

// prompts returns those of an input. An empty line is a prompt too: the beginning of
// a document.
func (m *Model) prompts(in task.Input) ([]string, error) {
	if in.File == "" && in.Stream == nil {
		return in.Texts, nil
	}
	r, err := in.Lines(m.cfg.Encoding)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var prompts []string
	for {
		line, err := r.Next()
		switch {
		case err == io.EOF && len(prompts) == 0:
			return nil, &data.InputError{File: r.File, Problem: "is empty", Fix: "give a file with a prompt on each line"}
		case err == io.EOF:
			return prompts, nil
		case err != nil:
			return nil, err
		}
		prompts = append(prompts, line)
	}
}

// Write writes a CSV table with the columns prompt, text, tokens, log_prob and ended.
func (p *Predictions) Write(w io.Writer) error {
	out := csv.NewWriter(w)
	rows := [][]string{{"prompt", "text", "tokens", "log_prob", "ended"}}
	for _, g := range p.List {
		rows = append(rows, []string{g.Prompt, g.Text, strconv.Itoa(g.Tokens), strconv.FormatFloat(g.LogProb, 'g', 8, 64), g.Ended})
	}
	return out.WriteAll(rows)
}

// Print writes the prompts with their continuations, a line between them.
func (p *Predictions) Print(w io.Writer) {
	for i, g := range p.List {
		if i > 0 {
			fmt.Fprintln(w, "\n---")
		}
		fmt.Fprintln(w, g.Prompt+g.Text)
	}
}
