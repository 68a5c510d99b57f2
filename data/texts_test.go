package data

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestReadTexts(t *testing.T) {
	cell := func(name, text string) Field { return Field{Name: name, Text: text} }
	for _, c := range []struct {
		name, content string
		o             ExampleOptions
		want          []TextRow
	}{
		{"a.txt", "one\r\n\n  \ntwo", ExampleOptions{Format: FormatLines}, []TextRow{{Line: 1, Text: "one"}, {Line: 2}, {Line: 3, Text: "  "}, {Line: 4, Text: "two"}}},
		{"a.txt.gz", "\none\n", ExampleOptions{}, []TextRow{{Line: 1}, {Line: 2, Text: "one"}}},
		{"a.csv", "id,review\n7,\"a, b\"\n8,\n", ExampleOptions{Text: "review", Label: "stars"}, []TextRow{
			{2, "a, b", []Field{cell("id", "7"), cell("review", "a, b")}, 1}, {3, "", []Field{cell("id", "8"), cell("review", "")}, 1}}},
		{"a.tsv", "review\tstars\tid\na\t1\t7\n", ExampleOptions{Label: "stars", Text: "1"}, []TextRow{
			{2, "a", []Field{cell("review", "a"), cell("stars", "1"), cell("id", "7")}, 0}}},
		{"a.txt", "stars;review\n1;a\n", ExampleOptions{Format: FormatTable, Label: "stars"}, []TextRow{{2, "a", []Field{cell("stars", "1"), cell("review", "a")}, 1}}},
		{"a.jsonl", "{\"n\": 1e3, \"text\": \"\\u00e9\", \"label\": [\"a\", \"b\"], \"z\": null}\n\n{\"text\": \"\", \"n\": \"1\", \"n\": 2}\n", ExampleOptions{}, []TextRow{
			{1, "é", []Field{{"n", "1e3", json.RawMessage("1e3")}, cell("text", "é"), {"label", `["a", "b"]`, json.RawMessage(`["a", "b"]`)}, {"z", "", json.RawMessage("null")}}, 1},
			{3, "", []Field{cell("text", ""), {"n", "2", json.RawMessage("2")}}, 0}}},
	} {
		got, err := all(ReadTexts(textFile(t, c.name, c.content), &c.o))
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s %q: %v, %v\nwant %v", c.name, c.content, got, err, c.want)
		}
	}
	for _, c := range []struct {
		name, content string
		o             ExampleOptions
		want          string
	}{
		{"a.csv", "id,review\n", ExampleOptions{Text: "review"}, "holds no text"},
		{"a.txt", "", ExampleOptions{}, "holds no text"},
		{"a.csv", "id,review\n7,a\n", ExampleOptions{Label: "stars"}, `has no column "text"; name the column of the text; the columns are id, review`},
		{"a.csv", "id,review\n7,a\n", ExampleOptions{Text: "revew"}, `has no column "revew"; did you mean "review"?`},
		{"a.csv", "id,text\n7,a\n8\n", ExampleOptions{}, "line 3: has 1 field, the header has 2"},
		{"a.jsonl", "{\"text\":\"a\"}\n{\"text\":1,\"b\":2}\n", ExampleOptions{}, `line 2: has no text under the key "text"; its keys are text, b`},
		{"a.jsonl", `{"text":"a"} {}`, ExampleOptions{}, "line 1: is not a JSON object"},
		{"a.jsonl", `["a"]`, ExampleOptions{}, "line 1: is not a JSON object"},
		{"a.txt", "1 a\n", ExampleOptions{Format: FormatLabelFirst}, `format: want table, jsonl or lines, got "label-first"`},
		{"a.txt", "a\ncaf\xe9\n", ExampleOptions{Encoding: EncodingUTF8}, "line 2: is not UTF-8"},
	} {
		_, err := all(ReadTexts(textFile(t, c.name, c.content), &c.o))
		var input *InputError
		if !errors.As(err, &input) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %q: %v\nwant %s", c.name, c.content, err, c.want)
		}
	}
	row := TextRow{Fields: []Field{cell("id", "7"), cell("text", "a"), cell("id", `"`), {"n", "1", json.RawMessage("1")}}, Column: 1}
	if got, err := json.Marshal(row.Others()); err != nil || string(got) != `{"id":"7","id_2":"\"","n":1}` {
		t.Errorf("others: %s, %v", got, err)
	}
}

// A stream has no name; its first line tells what it is.
func TestTextsOfStreams(t *testing.T) {
	for _, c := range []struct {
		stream, column string
		want           []string
	}{
		{"id,review,stars\n7,\"a fine, long\nfilm\",5\n8,dull,1\n", "review", []string{"a fine, long\nfilm", "dull"}},
		{"\"id\";\"text\"\n7;fine\n", "", []string{"fine"}},
		{"text\tid\nfine\t7\n", "", []string{"fine"}},
		{"{\"id\":7,\"review\":\"fine\"}\n{\"review\":\"dull\"}\n", "review", []string{"fine", "dull"}},
		{"the review, id and all\nfine, really\n", "review", []string{"the review, id and all", "fine, really"}},
		{"{\"other\":\"fine\"}\n", "review", []string{"{\"other\":\"fine\"}"}},
		{"review\nfine\n", "review", []string{"review", "fine"}},
		{"\xef\xbb\xbfid,text\n1,fine\n", "", []string{"fine"}},
	} {
		var got []string
		for row, err := range ReadTextsFrom("standard input", strings.NewReader(c.stream), &ExampleOptions{Text: c.column}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, row.Text)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.stream, got, c.want)
		}
	}
}
