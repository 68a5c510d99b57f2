package tag

import (
	"context"
	"iter"
	"path/filepath"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
)

// FormatText is the format of plain texts, one a line; the others are package data's.
const FormatText = "text"

// rows returns the sentences of a file with their lines; a column of tags is not
// needed.
func (m *Model) rows(path, format string) iter.Seq2[data.Sentence, error] {
	cfg := m.cfg
	cfg.Format = format
	return data.ReadConll(path, cfg.reading(false, nil))
}

// groupSize is the number of sentences that are tagged together when a file is
// copied.
const groupSize = 1024

// eachGroup tags sentences in groups, so that memory does not grow with the file.
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

// formatOf returns the format of an input: the one given, or that of the file's
// name, or one detected from its first lines.
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

// looksColumnar reports whether the first lines have the same number of columns,
// two or more, with blank lines between them.
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
