package data

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHints(t *testing.T) {
	stocks := "day,symbol,note,price\n"
	for _, symbol := range []string{"MSFT", "AMZN"} {
		for i := range 9 {
			stocks += fmt.Sprintf("Jan %d 2000,%s,n%d,%d\n", i+1, symbol, i, 10+i)
		}
	}
	price := ReadOptions{Values: []string{"price"}}
	for _, c := range []struct {
		name, table string
		o           ReadOptions
		want        []string
	}{
		{"series after series", stocks, price, []string{`column "day" holds times: name it with --time; its rows are several series, which column "symbol" tells apart: name it with --id`}},
		{"id named", stocks, ReadOptions{Values: price.Values, ID: "symbol"}, []string{`column "day" holds times: name it with --time`}},
		{"both named", stocks, ReadOptions{Values: price.Values, ID: "symbol", Time: "day"}, nil},
		{"one series", "price,when\n1,20200101\n2,20200102\n3,20200103\n", price, []string{`column "when" holds times: name it with --time`}},
		{"disorder", "price,when\n1,2020-01-02\n2,2020-01-01\n3,2020-01-03\n", price, []string{`column "when" holds times: name it with --time; it does not ascend, so its rows may be several series, or need to be sorted`}},
		{"numbers and texts", "price,n,shop\n1,1,a\n2,2,b\n3,3,c\n", price, nil},
		{"all columns", "a,b\n1,1\n2,2\n3,3\n", ReadOptions{}, nil},
	} {
		for _, end := range []string{"\n", "\r\n"} {
			p := mustRead(t, "x.csv", strings.ReplaceAll(c.table, "\n", end), &c.o)
			if d := cmp.Diff(c.want, p.Hints); d != "" {
				t.Errorf("%s (-want +got):\n%s", c.name, d)
			}
		}
	}
	p := mustRead(t, "x.parquet", packed(t, wideRows(4)), &ReadOptions{Values: []string{"f"}})
	if d := cmp.Diff([]string{`column "ms" holds times: name it with --time`}, p.Hints); d != "" {
		t.Error(d)
	}
}
