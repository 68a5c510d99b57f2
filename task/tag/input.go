package tag

import (
	"context"
	"iter"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
)

// FormatText is the format of plain texts, one a line; the others are package data's.
const FormatText = "text"

// rows returns the sentences of a file with their lines; a column of tags is not
// needed. note is called with what was unusual about the lines.
func (m *Model) rows(path, format string, note func(string)) iter.Seq2[data.Sentence, error] {
	cfg := m.cfg
	cfg.Format = format
	if m.foreign(format) {
		cfg.Token = ""
	}
	return data.ReadConll(path, cfg.reading(false, note))
}

// foreign reports whether a file's columns are not those of the training file: one
// of the two is CoNLL-U, and the other is not.
func (m *Model) foreign(format string) bool {
	return m.format != "" && (m.format == data.FormatCoNLLU) != (format == data.FormatCoNLLU)
}

// tagWriter returns a function that writes a tag into a token's line.
func (m *Model) tagWriter(format string) (func(row, tag string) string, error) {
	cfg := m.cfg
	cfg.Format = format
	if m.foreign(format) {
		if format == data.FormatCoNLLU {
			return func(row, tag string) string { return data.AddMisc(row, "Tag", tag) }, nil
		}
		cfg.Token, cfg.Tag = "", ""
	}
	return cfg.reading(true, nil).TagWriter("")
}

// eachGroup tags sentences in groups, so that memory does not grow with the file.
func (m *Model) eachGroup(ctx context.Context, source iter.Seq2[data.Sentence, error], o *PredictOptions, f func([]data.Sentence, []Tagged) error) error {
	size := func(s data.Sentence) (bytes int) {
		for _, row := range s.Rows {
			bytes += len(row)
		}
		return bytes
	}
	for group, err := range task.Groups(ctx, source, size) {
		if err != nil {
			return err
		}
		sentences := make([][]string, len(group))
		for i, s := range group {
			sentences[i] = s.Tokens
		}
		tagged, err := m.Tag(ctx, sentences, o)
		if err == nil {
			err = f(group, tagged)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// eachText is eachGroup for lines of plain text.
func (m *Model) eachText(ctx context.Context, in task.Input, o *PredictOptions, note func(string), f func([]Tagged) error) error {
	line := 0
	for texts, err := range task.Groups(ctx, in.EachLine(m.cfg.Encoding, note), func(s string) int { return len(s) }) {
		if err != nil {
			return err
		}
		if at := slices.IndexFunc(texts, isUniversal); in.Stream != nil && at >= 0 {
			return &data.InputError{File: "standard input", Line: line + at + 1, Problem: "looks like CoNLL-U, and standard input is read as plain text", Fix: "name a file"}
		}
		tagged, err := m.TagText(ctx, texts, o)
		if err != nil {
			return err
		}
		for i := range tagged {
			tagged[i].Line = in.Number(line)
			line++
		}
		if err := f(tagged); err != nil {
			return err
		}
	}
	return nil
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
	prose := filepath.Ext(strings.TrimSuffix(strings.ToLower(path), ".gz"))
	return m.looksLike(r, prose == ".txt" || prose == ".md"), nil
}

// isUniversal reports whether a line is one of CoNLL-U: ten fields, the first a number.
func isUniversal(line string) bool {
	fields := strings.Split(line, "\t")
	_, err := strconv.Atoi(fields[0])
	return len(fields) == 10 && err == nil
}

// looksLike returns the format of the first lines. A file that is named as text is in
// columns only if the training file was said to be, or as CoNLL-U, which no text
// looks like.
func (m *Model) looksLike(r *data.LineReader, named bool) string {
	columns, lines, blanks := 0, 0, 0
	universal := false // all lines of tokens are those of CoNLL-U
	for lines < 200 {
		line, err := r.Next()
		if err != nil {
			break
		}
		n := len(strings.Fields(line))
		if first := lines == 0; n > 0 && (first || universal) {
			if line[0] == '#' {
				continue // a comment
			}
			if fields := strings.Split(line, "\t"); len(fields) == 10 && strings.Trim(fields[0], "0123456789-.") == "" {
				universal = true
				lines++
				continue
			}
		}
		if n == 0 {
			blanks++
			continue
		}
		if lines++; columns == 0 {
			columns = n
		}
		if universal || n != columns {
			return FormatText
		}
	}
	switch {
	case universal:
		return data.FormatCoNLLU
	case columns > 1 && named && m.cfg.Format != "" && blanks > 0:
		return m.cfg.Format
	case columns > 1 && !named && (blanks > 0 || lines < 20):
		return data.FormatCoNLL
	}
	return FormatText
}
