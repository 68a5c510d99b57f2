package report

import (
	"fmt"
	"html/template"
	"strings"
)

// Item is something that a page shows in several places, such as a trial of a search: as a point
// here, as a curve and a row of a table there. Pointing at one of its marks makes all of them
// stand out, and shows a card with its title and its values.
type Item struct {
	Title  string
	Values Pairs
}

// itemRules are the style rules by which n items stand out; what they have in common is in page.css.
func itemRules(n int) template.CSS {
	var b strings.Builder
	for i := range n {
		pointed := fmt.Sprintf("body:has(.i%d:hover)", i)
		fmt.Fprintf(&b, "%s svg .i%d{opacity:1}%s tr.i%d td{background:var(--best-bg)}%s #i%d{display:block}\n", pointed, i, pointed, i, pointed, i)
	}
	return template.CSS(b.String())
}

// mark is the number of the item that point j of a series belongs to; a curve belongs to one as a whole.
func (s Series) mark(j int) (item int, ok bool) {
	if j >= len(s.Items) {
		return 0, false
	}
	return s.Items[j], true
}
