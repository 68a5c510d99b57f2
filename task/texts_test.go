package task

import (
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
