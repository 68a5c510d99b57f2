package data

import (
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"
)

// TextRow is a text to predict from, with the row of its file.
type TextRow struct {
	Line   int // line where it begins in the file, from 1
	Text   string
	Fields []Field // of a table or JSON object, in their order, the text among them; nil if the line is the text
	Column int     // index in Fields of the text
}

// Field is a column of a table or a key of a JSON object, with its value in a row.
type Field struct {
	Name string
	Text string          // the value; of a JSON value that is not text, the JSON; of null, ""
	JSON json.RawMessage // a JSON value that is not text; otherwise nil
}

// Others returns the fields beside the text as JSON values by name; nil if there
// are none. Of several columns with one name, the second has its number behind the
// name, and so on.
func (r *TextRow) Others() map[string]json.RawMessage {
	var others map[string]json.RawMessage
	for i, f := range r.Fields {
		if i == r.Column {
			continue
		}
		if others == nil {
			others = map[string]json.RawMessage{}
		}
		name := f.Name
		for n := 2; others[name] != nil; n++ {
			name = f.Name + "_" + strconv.Itoa(n)
		}
		if others[name] = f.JSON; f.JSON == nil {
			others[name], _ = json.Marshal(f.Text) // text always has a JSON form
		}
	}
	return others
}

// TextFormat returns the format in which texts are read from a file: the one that
// its name implies or, for other names, a table if a column is named and lines if
// column is "".
func TextFormat(path, column string) string {
	switch {
	case namedFormat(path) != "":
		return namedFormat(path)
	case column != "":
		return FormatTable
	}
	return FormatLines
}

// ReadTexts iterates over the texts of a file, plain or gzipped, to predict from: of
// each row, also one with an empty text, and of each line of FormatLines, also a
// blank one. A Format of "" is [TextFormat]'s. Labels are not read: their column is a
// field like any other and may be missing. The errors are those of [ReadExamples];
// FormatLabelFirst is one.
func ReadTexts(path string, o *ExampleOptions) iter.Seq2[TextRow, error] {
	return func(yield func(TextRow, error) bool) {
		r, err := OpenLines(path, o.Encoding)
		if err != nil {
			yield(TextRow{}, err)
			return
		}
		defer r.Close()
		o.eachText(r, yield)
	}
}

// ReadTextsFrom is [ReadTexts] for a stream, which messages call name. A Format of ""
// is by its first line: a table if that has the column of the texts ("text" if none is
// named) among others, and JSON lines if it is an object with that key; otherwise each
// line is a text.
func ReadTextsFrom(name string, in io.Reader, o *ExampleOptions) iter.Seq2[TextRow, error] {
	return func(yield func(TextRow, error) bool) {
		r, err := NewLineReader(name, in, o.Encoding)
		if err != nil {
			yield(TextRow{}, err)
			return
		}
		defer r.Close()
		own := *o
		if own.Format == "" {
			head, _ := r.head()
			first, _, _ := strings.Cut(string(head), "\n")
			own.Format = streamFormat(strings.TrimSpace(first), o.Text)
		}
		own.eachText(r, yield)
	}
}

// streamFormat returns the format of a stream that begins with a line.
func streamFormat(first, column string) string {
	if column == "" {
		column = "text"
	}
	var object map[string]json.RawMessage
	if json.Unmarshal([]byte(first), &object) == nil && object[column] != nil {
		return FormatJSONL
	}
	for _, separator := range []string{"\t", ",", ";"} {
		fields := strings.Split(first, separator)
		for i := range fields {
			fields[i] = strings.Trim(strings.TrimSpace(fields[i]), `"`)
		}
		if len(fields) > 1 && slices.Contains(fields, column) {
			return FormatTable
		}
	}
	return FormatLines
}

// eachText yields the texts that a reader holds.
func (o *ExampleOptions) eachText(r *LineReader, yield func(TextRow, error) bool) {
	next, err := o.rows(r)
	n := 0
	for err == nil {
		var row TextRow
		if row, err = next(); err == nil {
			if n++; !yield(row, nil) {
				return
			}
		}
	}
	if err == io.EOF && n == 0 {
		err = &InputError{File: r.File, Problem: "holds no text", Fix: "give a file with a text in each row"}
	}
	if err != io.EOF {
		yield(TextRow{}, err)
		return
	}
	if note := r.Note(); note != "" && o.Note != nil {
		o.Note(note)
	}
}

// rows returns a function that returns the next row of the file, and io.EOF at its
// end.
func (o *ExampleOptions) rows(r *LineReader) (func() (TextRow, error), error) {
	format := o.Format
	if format == "" {
		format = TextFormat(r.File, o.Text)
	}
	switch format {
	case FormatLines:
		return func() (TextRow, error) {
			line, err := r.Next()
			return TextRow{Line: r.Line, Text: line}, err
		}, nil
	case FormatJSONL:
		return func() (TextRow, error) { return o.nextObject(r) }, nil
	case FormatTable:
		return o.tableRows(r)
	default:
		return nil, Errorf("format: want %s, %s or %s, got %q", FormatTable, FormatJSONL, FormatLines, format)
	}
}

func (o *ExampleOptions) nextObject(r *LineReader) (TextRow, error) {
	line, err := "", error(nil)
	for err == nil && isBlank(line) {
		line, err = r.Next()
	}
	if err != nil {
		return TextRow{}, err
	}
	name := o.Text
	if name == "" {
		name = "text"
	}
	row := TextRow{Line: r.Line, Column: -1}
	if row.Fields, err = objectFields(line); err != nil {
		return row, r.errorf(`such as {"text": "..."}`, "is not a JSON object")
	}
	names := make([]string, len(row.Fields))
	for i, f := range row.Fields {
		if names[i] = f.Name; f.Name == name && f.JSON == nil {
			row.Column, row.Text = i, f.Text
		}
	}
	if row.Column < 0 {
		return row, r.errorf("its keys are "+list(names), "has no text under the key %s", quoted(name))
	}
	return row, nil
}

// objectFields returns the keys of a JSON object with their values, in their order;
// of a key that is repeated, the last value.
func objectFields(line string) (fields []Field, err error) {
	d := json.NewDecoder(strings.NewReader(line))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return nil, fmt.Errorf("not an object")
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		f := Field{Name: key.(string)}
		if err := d.Decode(&f.JSON); err != nil {
			return nil, err
		}
		switch {
		case f.JSON[0] == '"':
			err = json.Unmarshal(f.JSON, &f.Text)
			f.JSON = nil
		case string(f.JSON) != "null":
			f.Text = string(f.JSON)
		}
		if err != nil {
			return nil, err
		}
		if i := slices.IndexFunc(fields, func(g Field) bool { return g.Name == f.Name }); i >= 0 {
			fields[i] = f
		} else {
			fields = append(fields, f)
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("text after the object")
	}
	return fields, nil
}

// tableRows returns the function for a delimited file with a header.
func (o *ExampleOptions) tableRows(r *LineReader) (func() (TextRow, error), error) {
	t, err := openTextTable(r)
	if err != nil {
		return nil, err
	}
	unlabeled := *o
	if _, err := t.column(o.Label, "label"); err != nil {
		unlabeled.Label = "" // fresh texts need not have the column
	}
	text, _, err := unlabeled.columns(t, false)
	if err != nil {
		return nil, err
	}
	if t.note != "" && o.Note != nil {
		o.Note(t.note)
	}
	return func() (TextRow, error) {
		values, line, err := t.next()
		if err != nil {
			return TextRow{}, err
		}
		row := TextRow{Line: line, Text: values[text], Fields: make([]Field, len(values)), Column: text}
		for i, v := range values {
			row.Fields[i] = Field{Name: t.columns[i], Text: v}
		}
		return row, nil
	}, nil
}
