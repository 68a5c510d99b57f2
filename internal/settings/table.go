package settings

import (
	"fmt"
	"io"
	"strings"
)

// WriteTable writes settings as a Markdown table, with their current values as
// the defaults. name returns the name to print for each.
func WriteTable(w io.Writer, list []*Setting, name func(*Setting) string) {
	fmt.Fprintf(w, "| Setting | Default | Meaning |\n|---|---|---|\n")
	cell := strings.NewReplacer("|", `\|`, "<", "&lt;", "*", `\*`).Replace
	for _, s := range list {
		value := ""
		if s.IsBool() || !s.IsZero() {
			value = "`" + s.String() + "`"
		}
		fmt.Fprintf(w, "| `%s` | %s | %s |\n", name(s), value, cell(s.Describe()))
	}
}
