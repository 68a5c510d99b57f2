package data

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Formats of files of labelled texts.
const (
	FormatTable      = "table"       // delimited, with a header
	FormatJSONL      = "jsonl"       // one JSON object per line
	FormatLabelFirst = "label-first" // each line is a label, a space or tab, and the text
	FormatLines      = "lines"       // each line is a text, without a label
)

// Example is a text with its labels.
type Example struct {
	Line   int // line where it begins in the file, from 1
	Text   string
	Labels []string // none is possible where a text may have several
}

// Content returns what the example is without its place in a file.
func (e Example) Content() []string { return append([]string{e.Text}, e.Labels...) }

// ExampleOptions says which parts of a file are texts and labels.
type ExampleOptions struct {
	Format    string // one of the formats above; "": by the file's name: .jsonl and .ndjson, .csv and .tsv, else lines if no column is named
	Text      string // column or key; "": "text", or the only one besides Label
	Label     string // column or key; "": "label" if there is one
	Separator string // separates the labels of one text, of which there may be several or none; "": one label per text
	Encoding  string // as for OpenLines
	Note      func(string)
}

// ReadExamples iterates over the texts of a file, plain or gzipped, in memory
// independent of its size. Texts without a word are left out and counted in a note.
// Any error is an [*InputError], which names the line where there is one, and ends
// the iteration: a file that cannot be read, a missing or ambiguous column, a row
// without a label or of the wrong form, a file without texts.
func ReadExamples(path string, o *ExampleOptions) iter.Seq2[Example, error] {
	return func(yield func(Example, error) bool) {
		r, err := OpenLines(path, o.Encoding)
		if err != nil {
			yield(Example{}, err)
			return
		}
		defer r.Close()
		n, empty, first := 0, 0, 0
		for e, err := range o.examples(r) {
			if err == nil && isBlank(e.Text) {
				if empty++; empty == 1 {
					first = e.Line
				}
				continue
			}
			n++
			if !yield(e, err) || err != nil {
				return
			}
		}
		if empty > 0 && o.Note != nil {
			o.Note(fmt.Sprintf("%s: %s without words left out, the first in line %d", r.File, count(empty, "text"), first))
		}
		if n == 0 {
			yield(Example{}, &InputError{File: r.File, Problem: "holds no text", Fix: "give a file with a text in each row"})
		}
		if note := r.Note(); note != "" && o.Note != nil {
			o.Note(note)
		}
	}
}

// examples chooses the reader of the format.
func (o *ExampleOptions) examples(r *LineReader) iter.Seq2[Example, error] {
	switch o.formatOf(r.File) {
	case FormatTable:
		return o.table(r)
	case FormatJSONL:
		return eachLine(r, o.object)
	case FormatLabelFirst:
		return eachLine(r, o.labelFirst)
	}
	return func(yield func(Example, error) bool) {
		yield(Example{}, Errorf("format: want %s, %s or %s, got %q", FormatTable, FormatJSONL, FormatLabelFirst, o.Format))
	}
}

// formatOf returns the format of the options, or the one implied by the file's
// name.
func (o *ExampleOptions) formatOf(path string) string {
	if o.Format != "" {
		return o.Format
	}
	return cmp.Or(namedFormat(path), FormatTable)
}

// namedFormat returns the format that a file's name implies, or "".
func namedFormat(path string) string {
	switch filepath.Ext(strings.TrimSuffix(strings.ToLower(path), ".gz")) {
	case ".jsonl", ".ndjson":
		return FormatJSONL
	case ".csv", ".tsv":
		return FormatTable
	}
	return ""
}

// eachLine parses an example from each line that is not blank.
func eachLine(r *LineReader, parse func(*LineReader, string) (Example, error)) iter.Seq2[Example, error] {
	return func(yield func(Example, error) bool) {
		for {
			line, err := r.Next()
			if err == io.EOF {
				return
			}
			var e Example
			if err == nil {
				if isBlank(line) {
					continue
				}
				e, err = parse(r, line)
			}
			e.Line = r.Line
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

const separatorFix = "if a text may have several labels, set --separator, such as to |"

// fastTextLabel begins a label in fastText's format, in which a line may have
// several.
const fastTextLabel = "__label__"

// CutLabels divides a line of FormatLabelFirst into its labels, as they are written,
// and the text. The label is the first word, or labels are all words that begin with
// __label__ as in fastText's format, if the first does.
func CutLabels(line string) (labels []string, text string) {
	first, text, _ := cutSpace(strings.TrimSpace(line))
	labels = []string{first}
	if !strings.HasPrefix(first, fastTextLabel) {
		return labels, strings.TrimSpace(text)
	}
	for rest := text; rest != ""; {
		word, after, _ := cutSpace(rest)
		if strings.HasPrefix(word, fastTextLabel) {
			labels = append(labels, word)
			text = text[:len(text)-len(rest)] + after
		}
		rest = after
	}
	return labels, strings.TrimSpace(text)
}

// labelFirst reads a line of FormatLabelFirst. A label without a text is read as
// an empty text.
func (o *ExampleOptions) labelFirst(r *LineReader, line string) (Example, error) {
	labels, text := CutLabels(line)
	if len(labels) > 1 && o.Separator == "" {
		return Example{}, r.errorf(separatorFix, "has the labels %s and %s", quoted(labels[0]), quoted(labels[1]))
	}
	e := Example{Text: text}
	for _, label := range labels {
		for _, one := range o.labels(strings.TrimPrefix(label, fastTextLabel)) {
			if !slices.Contains(e.Labels, one) {
				e.Labels = append(e.Labels, one)
			}
		}
	}
	return e, nil
}

func cutSpace(s string) (before, after string, ok bool) {
	if i := strings.IndexAny(s, " \t"); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}

// labels splits the label field of one text.
func (o *ExampleOptions) labels(s string) []string {
	s = strings.TrimSpace(s)
	if s == "" {
		return nil
	}
	if o.Separator == "" {
		return []string{s}
	}
	var list []string
	for part := range strings.SplitSeq(s, o.Separator) {
		if part = strings.TrimSpace(part); part != "" && !slices.Contains(list, part) {
			list = append(list, part)
		}
	}
	return list
}

// object reads a line of FormatJSONL.
func (o *ExampleOptions) object(r *LineReader, line string) (Example, error) {
	var fields map[string]any
	d := json.NewDecoder(strings.NewReader(line))
	d.UseNumber()
	if err := d.Decode(&fields); err != nil || fields == nil {
		return Example{}, r.errorf(`such as {"text": "...", "label": "..."}`, "is not a JSON object")
	}
	if _, err := d.Token(); err != io.EOF {
		return Example{}, r.errorf("give one object per line", "has text after its JSON object")
	}
	text, label := o.Text, o.Label
	if text == "" {
		text = "text"
	}
	if label == "" {
		label = "label"
	}
	names := func() []string {
		var names []string
		for name := range fields {
			names = append(names, name)
		}
		slices.Sort(names)
		return names
	}
	var e Example
	value, ok := fields[text]
	if e.Text, _ = value.(string); !ok || e.Text == "" && value != "" {
		return e, r.errorf("its keys are "+list(names()), "has no text under the key %s", quoted(text))
	}
	var err error
	e.Labels, err = o.objectLabels(r, fields[label])
	if _, named := fields[label]; err == nil && (!named || len(e.Labels) == 0 && o.Separator == "") {
		err = r.errorf("its keys are "+list(names()), "has no label under the key %s", quoted(label))
	}
	return e, err
}

// objectLabels returns the labels in a JSON value: one, or a list of them.
func (o *ExampleOptions) objectLabels(r *LineReader, value any) (labels []string, err error) {
	values, several := value.([]any)
	if !several && value != nil {
		values = []any{value}
	}
	for _, v := range values {
		switch v.(type) {
		case string, json.Number, bool:
		default:
			return nil, r.errorf(`such as "a", 1 or ["a", "b"]`, "has a label that is not text, a number or a list of these")
		}
		if several {
			labels = append(labels, fmt.Sprint(v))
		} else {
			labels = o.labels(fmt.Sprint(v))
		}
	}
	if len(labels) > 1 && o.Separator == "" {
		return nil, r.errorf(separatorFix, "has %d labels", len(labels))
	}
	return labels, nil
}

// table reads a delimited file.
func (o *ExampleOptions) table(r *LineReader) iter.Seq2[Example, error] {
	return func(yield func(Example, error) bool) {
		t, err := openTextTable(r)
		if err != nil {
			yield(Example{}, err)
			return
		}
		text, label, err := o.columns(t, true)
		if t.note != "" && o.Note != nil {
			o.Note(t.note)
		}
		for err == nil {
			var fields []string
			var line int
			if fields, line, err = t.next(); err != nil {
				break
			}
			e := Example{Line: line, Text: fields[text], Labels: o.labels(fields[label])}
			if len(e.Labels) == 0 && o.Separator == "" {
				err = &InputError{File: r.File, Line: line, Column: t.columns[label], Problem: "the label is missing", Fix: "every row needs one"}
				break
			}
			if !yield(e, nil) {
				return
			}
		}
		if err != io.EOF {
			yield(Example{}, err)
		}
	}
}

// columns finds the columns of the text and of the label; -1 if there is none and
// none is needed.
func (o *ExampleOptions) columns(t *textTable, labels bool) (text, label int, err error) {
	places, err := t.places(wanted{o.Label, "label"}, wanted{o.Text, "text"})
	if err != nil {
		return 0, 0, err
	}
	label, text = places[0], places[1]
	if label < 0 && labels {
		e := &InputError{File: t.file, Problem: `has no column "label"`, Fix: "name the column of the label; the columns are " + list(t.columns)}
		if o.Format == "" && namedFormat(t.file) == "" {
			e.Fix = "set format to label-first if its lines begin with their label, or n" + e.Fix[1:]
		}
		return 0, 0, e
	}
	if text < 0 {
		var rest []int
		for i := range t.columns {
			if i != label {
				rest = append(rest, i)
			}
		}
		if len(rest) != 1 {
			return 0, 0, &InputError{File: t.file, Problem: `has no column "text"`, Fix: "name the column of the text; the columns are " + list(t.columns)}
		}
		text = rest[0]
	}
	if text == label {
		return 0, 0, &InputError{File: t.file, Column: t.columns[text], Problem: "is named for both the text and the label", Fix: "its columns are " + list(t.columns)}
	}
	return text, label, nil
}

// textTable reads delimited text. Where tabs separate the fields, a line is a
// record and quotes are ordinary characters inside a field, as in files of
// natural language; otherwise fields are quoted as in CSV.
type textTable struct {
	file    string
	columns []string
	note    string      // what a user may want to know of the first line
	rows    *rows       // CSV
	lines   *LineReader // tabs

	first []string // the first record
	line  int      // of first
	named bool     // first has the columns' names
	few   []byte   // the first lines
	comma rune     // what separates fields
}

func openTextTable(r *LineReader) (*textTable, error) {
	comma, err := separatorLine(r)
	if err != nil {
		return nil, err
	}
	head, _ := r.head()
	name := strings.TrimSuffix(strings.ToLower(r.File), ".gz")
	header, _, _ := strings.Cut(string(head), "\n")
	switch {
	case comma != 0:
	case strings.HasSuffix(name, ".tsv") || strings.Contains(header, "\t"):
		comma = '\t'
	case strings.Count(header, ";") > strings.Count(header, ","):
		comma = ';'
	default:
		comma = ','
	}
	t := &textTable{file: r.File, comma: comma, named: true, few: bytes.Clone(head)}
	if comma != '\t' {
		if t.rows, err = openRows(r, comma); err != nil {
			return nil, err
		}
		t.columns, t.first, t.line = t.rows.columns, t.rows.header, t.rows.head
		return t, nil
	}
	t.lines = r
	if t.first, t.line, err = t.next(); err == io.EOF {
		return nil, &InputError{File: r.File, Problem: "is empty", Fix: "a line of column names and rows of texts are needed"}
	}
	t.columns = t.first
	return t, err
}

// wanted is a column that is needed: by its name or number, or if that is "" by
// the usual name.
type wanted struct{ name, usual string }

// places returns the indices of columns; -1 where there is none. It also decides
// whether the first line has names.
func (t *textTable) places(columns ...wanted) ([]int, error) {
	if t.unnamed(columns) {
		t.named, t.columns = false, columnNames(make([]string, len(t.columns)))
	}
	list := make([]int, len(columns))
	for i, w := range columns {
		var err error
		if list[i], err = t.column(w.name, w.usual); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// usualNames are names of columns by which a first line is known as one of names
// where the columns are given by number.
var usualNames = []string{
	"text", "texts", "sentence", "sentences", "review", "label", "labels", "class", "category", "source", "target", "src", "tgt", "trg", "translation",
	"audio", "path", "file", "filename", "wav", "sound", "transcript", "transcription", "speaker", "split",
}

// languageCode is such as en, deu and pt-BR.
var languageCode = regexp.MustCompile(`^[a-z]{2,3}([-_][A-Za-z]{2,4})?$`)

// unnamed reports whether the first line is a record like those after it: all
// columns are given by number, and what it holds in them is no usual name, nor a
// label that never comes again where others do.
func (t *textTable) unnamed(columns []wanted) bool {
	numbered, codes := false, true
	for _, w := range columns {
		usual := w.usual != "" && slices.ContainsFunc(t.columns, func(c string) bool { return strings.EqualFold(c, w.usual) })
		if w.name == "" && !usual {
			continue
		}
		at := columnNumber(w.name, len(t.columns))
		if at < 0 {
			return false
		}
		cell := strings.TrimSpace(t.first[at])
		if slices.ContainsFunc(usualNames, func(name string) bool { return strings.EqualFold(cell, name) }) || w.usual == "label" && t.once(at) {
			t.note = fmt.Sprintf("%s: line %d, %s, is read as the names of the columns", t.file, t.line, list(t.columns))
			return false
		}
		numbered, codes = true, codes && languageCode.MatchString(cell)
	}
	if numbered && codes {
		t.note = fmt.Sprintf("%s: line %d, %s, is read as the names of the columns", t.file, t.line, list(t.columns))
		return false
	}
	return numbered
}

// once reports whether the first record's field never comes again among the
// first lines, in which other fields of the column do.
func (t *textTable) once(at int) bool {
	lines, _ := NewLineReader(t.file, bytes.NewReader(t.few), EncodingLatin1)
	few := &textTable{file: t.file, lines: lines}
	if lines == nil {
		return false
	}
	if t.rows != nil {
		few.lines, few.rows = nil, &rows{file: t.file, csv: newCSV(lines, t.comma)}
	}
	seen, again := map[string]int{}, false
	for {
		fields, _, err := few.next()
		if err != nil {
			break
		}
		if at < len(fields) {
			seen[fields[at]]++
			again = again || seen[fields[at]] > 1
		}
	}
	return again && seen[t.first[at]] < 2
}

// column returns the index of the named column; for an empty name, of the usual
// one, or -1.
func (t *textTable) column(name, usual string) (int, error) {
	if name == "" && usual == "" {
		return -1, nil
	}
	if name == "" {
		i := slices.IndexFunc(t.columns, func(c string) bool { return strings.EqualFold(c, usual) })
		if i < 0 {
			return i, nil
		}
		name = t.columns[i]
	}
	if i := slices.Index(t.columns, name); i >= 0 {
		if slices.Contains(t.columns[i+1:], name) {
			return 0, &InputError{File: t.file, Problem: "has several columns " + quoted(name), Fix: "give the number of the one that is meant, from 1"}
		}
		return i, nil
	}
	if i := columnNumber(name, len(t.columns)); i >= 0 {
		return i, nil
	}
	return 0, unknownColumn(t.file, name, t.columns)
}

// next returns the next record, with one field per column, and its line.
func (t *textTable) next() (fields []string, line int, err error) {
	switch {
	case t.first != nil && !t.named:
		fields, line, t.first = t.first, t.line, nil
	case t.rows != nil:
		fields, line, err = t.rows.next()
	default:
		for {
			var text string
			if text, err = t.lines.Next(); err != nil || !isBlank(text) {
				fields, line = tabFields(text), t.lines.Line
				break
			}
		}
	}
	if err != nil {
		return nil, 0, err
	}
	if t.columns != nil && len(fields) != len(t.columns) {
		return nil, 0, &InputError{File: t.file, Line: line, Problem: fmt.Sprintf("has %s, the header has %d", count(len(fields), "field"), len(t.columns)), Fix: "quote fields that hold the separator"}
	}
	return slices.Clone(fields), line, nil
}

func tabFields(line string) []string {
	fields := strings.Split(line, "\t")
	for i, f := range fields {
		if n := len(f); n >= 2 && f[0] == '"' && f[n-1] == '"' {
			fields[i] = strings.ReplaceAll(f[1:n-1], `""`, `"`)
		}
	}
	return fields
}
