package task

import (
	"cmp"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/data"
)

func TestWriteRows(t *testing.T) {
	field := func(name, text string) data.Field { return data.Field{Name: name, Text: text} }
	for _, c := range []struct {
		rows []data.TextRow
		want string
	}{
		{nil, "line,text,label,n\n"},
		{[]data.TextRow{{Line: 1, Text: "a, b"}, {Line: 2}}, "line,text,label,n\n1,\"a, b\",x,0\n2,,x,1\n"},
		{[]data.TextRow{
			{Fields: []data.Field{field("id", "7"), field("label", "y"), field("id", "8")}},
			{Fields: []data.Field{field("predicted_label", "z"), field("id", "9")}},
		}, "id,label,id,predicted_label,predicted_predicted_label,n\n7,y,8,,x,0\n9,,,z,x,1\n"},
	} {
		var b strings.Builder
		err := WriteRows(&b, c.rows, []string{"label", "n"}, func(i int) [][]string { return [][]string{{"x", string(rune('0' + i))}} })
		if err != nil || b.String() != c.want {
			t.Errorf("%v: %v\n%s\nwant\n%s", c.rows, err, b.String(), c.want)
		}
	}
}

func TestEachTextKeepsBlankLines(t *testing.T) {
	texts, err := Input{Stream: strings.NewReader("a\n\n b \n")}.EachText("", nil)
	if err != nil || strings.Join(texts, "|") != "a|| b " {
		t.Errorf("%q, %v", texts, err)
	}
}

// A group holds a bounded number of rows and bytes; an error comes after the values before it.
func TestGroups(t *testing.T) {
	broken := errors.New("broken")
	source := func(n int, end error) iter.Seq2[int, error] {
		return func(yield func(int, error) bool) {
			for i := range n {
				if !yield(i, nil) {
					return
				}
			}
			if end != nil {
				yield(0, end)
			}
		}
	}
	for _, c := range []struct {
		n, size int
		end     error
		want    []int
	}{
		{0, 1, nil, nil},
		{groupRows, 1, nil, []int{groupRows}},
		{2*groupRows + 1, 1, nil, []int{groupRows, groupRows, 1}},
		{5, groupBytes / 2, nil, []int{2, 2, 1}},
		{3, 1, broken, []int{3}},
		{0, 1, broken, nil},
	} {
		var got []int
		var end error
		next := 0
		for group, err := range Groups(t.Context(), source(c.n, c.end), func(int) int { return c.size }) {
			if end = err; err != nil {
				continue
			}
			got = append(got, len(group))
			for _, v := range group {
				if v != next {
					t.Fatalf("%+v: value %d in place of %d", c, v, next)
				}
				next++
			}
		}
		if !slices.Equal(got, c.want) || end != c.end {
			t.Errorf("%+v: groups of %v, %v", c, got, end)
		}
	}
}

// A stream can be read twice, with the error that ended it.
func TestInputAgain(t *testing.T) {
	broken := errors.New("broken")
	for _, end := range []error{nil, broken} {
		in := Input{Stream: io.MultiReader(strings.NewReader("a\nb\n"), &firstError{err: cmp.Or(end, io.EOF)})}
		again, done, err := in.Again()
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			var got []string
			var last error
			for row, err := range again.EachRow(&data.ExampleOptions{Format: data.FormatLines}) {
				if last = err; err == nil {
					got = append(got, row.Text)
				}
			}
			if strings.Join(got, "|") != "a|b" || (last != nil) != (end != nil) || end != nil && !errors.Is(last, end) {
				t.Errorf("%q, %v, want %v", got, last, end)
			}
		}
		done()
	}
}
