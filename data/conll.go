package data

import (
	"fmt"
	"io"
	"iter"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Formats of files with one token per line.
const (
	FormatCoNLL  = "conll"  // tokens in columns, blank lines between sentences
	FormatCoNLLU = "conllu" // Universal Dependencies, ten columns; lines of ranges (n-m) and empty nodes (n.m) are skipped
	FormatBMES   = "bmes"   // as conll, with tags B-, M-, E- and S-
)

// conlluColumns holds the names of CoNLL-U's columns.
var conlluColumns = []string{"id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc"}

// Sentence is a sentence with a tag for each token.
type Sentence struct {
	Line   int // line of its first token, from 1
	Tokens []string
	Tags   []string // as in the file; nil without a tag column
	Rows   []string // the lines of the file since the sentence before, with the blank line at the end; set if ConllOptions.Keep
	Places []int    // with Rows: the index in Rows of each token's line
}

// Content returns what the sentence is without its place in a file.
func (s Sentence) Content() []string { return append(slices.Clone(s.Tokens), s.Tags...) }

// ConllOptions selects the columns to read. A column is a number from 1, or a
// negative one counted from the last (-1), or in CoNLL-U a name such as upos.
type ConllOptions struct {
	Format   string // "": by the file's name: .conllu, .bmes, else conll
	Token    string // "": the first column, in CoNLL-U form
	Tag      string // "": the last column, in CoNLL-U upos; "none": no tags
	Encoding string // as for OpenLines
	Keep     bool   // fill Sentence.Rows; lines after the last sentence come as one without tokens
	Note     func(string)
}

// ReadConll iterates over the sentences of a file, plain or gzipped, in memory
// independent of its size. Columns are separated by tabs if a line has one,
// else by spaces. Where a column is counted from the last, all lines of a
// sentence must have the same number of columns, so that none is mistaken for
// another. Lines that begin with -DOCSTART- are skipped, and in CoNLL-U also
// comments.
//
// Any error is an [*InputError] that names the line, and ends the iteration: a
// file that cannot be read, options that no column satisfies, a line without
// the columns, a file without sentences.
func ReadConll(path string, o *ConllOptions) iter.Seq2[Sentence, error] {
	return func(yield func(Sentence, error) bool) {
		r, err := OpenLines(path, o.Encoding)
		if err != nil {
			yield(Sentence{}, err)
			return
		}
		defer r.Close()
		n := 0
		for s, err := range ReadConllFrom(r, o) {
			if len(s.Tokens) > 0 || err != nil {
				n++
			}
			if !yield(s, err) || err != nil {
				return
			}
		}
		if n == 0 {
			yield(Sentence{}, &InputError{File: r.File, Problem: "holds no sentence", Fix: "give a token and its tag on each line, and blank lines between sentences"})
		}
		if note := r.Note(); note != "" && o.Note != nil {
			o.Note(note)
		}
	}
}

// ReadConllFrom is [ReadConll] for lines that are already open; it yields the
// same errors, except that an input without sentences is not one.
func ReadConllFrom(r *LineReader, o *ConllOptions) iter.Seq2[Sentence, error] {
	return func(yield func(Sentence, error) bool) {
		c, err := o.columns(r.File)
		if err != nil {
			yield(Sentence{}, err)
			return
		}
		var s Sentence
		for {
			line, err := r.Next()
			if err != nil && err != io.EOF {
				yield(Sentence{}, err)
				return
			}
			if err == nil && isBlank(line) && o.Keep {
				s.Rows = append(s.Rows, line)
			}
			if err == io.EOF || isBlank(line) {
				switch {
				case len(s.Tokens) > 0, err == io.EOF && len(s.Rows) > 0:
					if !yield(s, nil) {
						return
					}
					s = Sentence{}
				}
				if err == io.EOF {
					return
				}
				continue
			}
			tokens := len(s.Tokens)
			if err := c.add(&s, r, line); err != nil {
				yield(Sentence{}, err)
				return
			}
			if o.Keep {
				if len(s.Tokens) > tokens {
					s.Places = append(s.Places, len(s.Rows))
				}
				s.Rows = append(s.Rows, line)
			}
		}
	}
}

// conllColumns holds the columns to read, counted from 0 or, if negative, from
// -1 backwards.
type conllColumns struct {
	token, tag int
	tagged     bool
	universal  bool
	width      int // columns of the sentence's first token
}

// FormatOf returns the format of the options, or the one implied by the file's name.
func (o *ConllOptions) FormatOf(file string) string {
	switch {
	case o.Format != "":
		return o.Format
	case filepath.Ext(strings.TrimSuffix(strings.ToLower(file), ".gz")) == ".conllu":
		return FormatCoNLLU
	}
	return FormatCoNLL
}

func (o *ConllOptions) columns(file string) (conllColumns, error) {
	format := o.FormatOf(file)
	c := conllColumns{token: 0, tag: -1, tagged: o.Tag != "none"}
	switch format {
	case FormatCoNLL, FormatBMES:
	case FormatCoNLLU:
		c.universal, c.token, c.tag = true, 1, 3
	default:
		return c, Errorf("format: want %s, %s or %s, got %q", FormatCoNLL, FormatCoNLLU, FormatBMES, o.Format)
	}
	for _, one := range []struct {
		option, value string
		to            *int
	}{{"token column", o.Token, &c.token}, {"tag column", o.Tag, &c.tag}} {
		if one.value == "" || one.value == "none" && one.to == &c.tag {
			continue
		}
		n, err := strconv.Atoi(one.value)
		name := slices.Index(conlluColumns, strings.ToLower(one.value))
		switch {
		case err == nil && n > 0:
			*one.to = n - 1
		case err == nil && n < 0:
			*one.to = n
		case c.universal && name >= 0:
			*one.to = name
		case c.universal:
			return c, Errorf("%s: want a number or one of %s, got %q", one.option, strings.Join(conlluColumns, ", "), one.value)
		default:
			return c, Errorf("%s: want a number from 1, or from -1 backwards from the last column, got %q", one.option, one.value)
		}
	}
	if c.tagged && c.token == c.tag {
		return c, Errorf("token column and tag column are both %s; name the column of each", place(c.tag))
	}
	return c, nil
}

// add reads one line into s.
func (c *conllColumns) add(s *Sentence, r *LineReader, line string) error {
	if c.universal && line[0] == '#' || strings.HasPrefix(line, "-DOCSTART-") {
		return nil
	}
	var fields []string
	if strings.Contains(line, "\t") {
		fields = strings.Split(line, "\t")
	} else {
		// Other white space may be part of a token, such as the ideographic
		// space of Chinese.
		fields = strings.FieldsFunc(line, func(r rune) bool { return r == ' ' })
	}
	if c.universal && strings.ContainsAny(fields[0], "-.") {
		return nil // a range of tokens, or an empty node
	}
	const fix = "every token needs all columns, and blank lines stand between sentences"
	token, ok := pick(fields, c.token)
	if !ok {
		return r.errorf(fix, "has %s, the token is expected in column %s", count(len(fields), "column"), place(c.token))
	}
	if token == "" {
		return r.errorf(fix, "has no token in column %s", place(c.token))
	}
	tag := ""
	if c.tagged {
		if tag, ok = pick(fields, c.tag); !ok || tag == "" || len(fields) == 1 {
			return r.errorf(fix, "has %s, the tag is expected in column %s", count(len(fields), "column"), place(c.tag))
		}
		if len(s.Tokens) == 0 {
			c.width = len(fields)
		}
		if backwards := c.token < 0 || c.tag < 0; backwards && len(fields) != c.width {
			return r.errorf("every token of a sentence needs all columns", "has %s, the lines above it %d", count(len(fields), "column"), c.width)
		}
		s.Tags = append(s.Tags, tag)
	}
	if len(s.Tokens) == 0 {
		s.Line = r.Line
	}
	s.Tokens = append(s.Tokens, token)
	return nil
}

func pick(fields []string, column int) (string, bool) {
	if column < 0 {
		column += len(fields)
	}
	if column < 0 || column >= len(fields) {
		return "", false
	}
	return strings.Trim(fields[column], " "), true
}

// place formats a column as users count it.
func place(column int) string {
	if column == -1 {
		return "-1, the last"
	}
	if column < 0 {
		return fmt.Sprint(column)
	}
	return fmt.Sprint(column + 1)
}
