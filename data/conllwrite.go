package data

import (
	"fmt"
	"strings"
)

// TagWriter returns a function that writes a tag into the line of a token, so that
// [ReadConll] with the same options finds it there; all other columns stay as they
// are. Of a column given by a number from 1 or by a name, and always in CoNLL-U, the
// value is replaced. Where the column is counted from the last, the tag is added,
// since a file need not have a column of tags: by default as the last one, behind the
// true tag if there is one, as conlleval reads it. file gives the format if
// o.Format is "". Invalid options are an [*InputError].
func (o *ConllOptions) TagWriter(file string) (func(row, tag string) string, error) {
	tagged := *o
	if tagged.Tag == "none" {
		tagged.Tag = ""
	}
	c, err := tagged.columns(file)
	if err != nil {
		return nil, err
	}
	return c.write, nil
}

// AddMisc adds KEY=VALUE to the last column, MISC, of a token's line in CoNLL-U, or
// replaces the value of that key.
func AddMisc(row, key, value string) string {
	starts, _, _ := fieldsOf(row)
	at := starts[len(starts)-1]
	var list []string
	for _, one := range strings.Split(row[at:], "|") {
		if one != "_" && !strings.HasPrefix(one, key+"=") {
			list = append(list, one)
		}
	}
	return row[:at] + strings.Join(append(list, fmt.Sprintf("%s=%s", key, value)), "|")
}

// write writes a tag into the line of a token.
func (c *conllColumns) write(row, tag string) string {
	starts, ends, separator := fieldsOf(row)
	at, replaces, after := c.slot(len(starts))
	switch {
	case replaces:
		return row[:starts[at]] + tag + row[ends[at]:]
	case at < len(starts):
		return row[:starts[at]] + tag + separator + row[starts[at]:]
	}
	return row + strings.Repeat(separator+"_", at-len(starts)) + separator + tag + strings.Repeat(separator+"_", after)
}

// slot returns the column of the tag in a line of n columns; whether that column is
// there already; and how many are to be added behind it.
func (c *conllColumns) slot(n int) (at int, replaces bool, after int) {
	token := c.token
	if token < 0 {
		token += n
	}
	switch {
	case c.tag >= 0:
		return c.tag, c.tag < n && c.tag != token, 0
	case c.token < 0: // both places are counted from the last, so the line must have both
		at = n + c.tag
		return max(at, 0), at >= 0 && at != token, 0
	}
	at = n + 1 + c.tag
	if at <= token {
		at = token + 1
		after = at - c.tag - (n + 1)
	}
	return at, false, after
}

// fieldsOf returns where the columns of a line begin and end, and what separates
// them.
func fieldsOf(row string) (starts, ends []int, separator string) {
	if separator = "\t"; !strings.Contains(row, separator) {
		separator = " "
	}
	at := 0
	for _, field := range strings.Split(row, separator) {
		if separator == "\t" || field != "" {
			starts, ends = append(starts, at), append(ends, at+len(field))
		}
		at += len(field) + 1
	}
	return starts, ends, separator
}
