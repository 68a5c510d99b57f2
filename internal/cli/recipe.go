package cli

import (
	"errors"
	"os"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// readRecipe applies a YAML recipe: one flat mapping of settings. Errors name
// the file and the line, and an unknown key its nearest neighbour.
func (s *settings) readRecipe(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return misusef("--config %s: %v", path, plainFileError(err))
	}
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		var syntax yaml.Error
		if errors.As(err, &syntax) && syntax.GetToken() != nil {
			return misusef("%s:%d: %s", path, syntax.GetToken().Position.Line, syntax.GetMessage())
		}
		return misusef("%s: %v", path, err)
	}
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		mapping, ok := doc.Body.(*ast.MappingNode)
		if !ok {
			return misusef("%s:%d: want lines of the form \"name: value\"", path, doc.Body.GetToken().Position.Line)
		}
		for _, entry := range mapping.Values {
			if err := s.applyEntry(path, entry); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *settings) applyEntry(path string, entry *ast.MappingValueNode) error {
	key, line := scalarText(entry.Key), entry.Key.GetToken().Position.Line
	one, err := s.lookup(key)
	if err != nil {
		return misusef("%s:%d: %v", path, line, err)
	}
	texts, ok := recipeTexts(entry.Value)
	switch {
	case !ok:
		return misusef("%s:%d: %s: want a value or a list of values", path, line, key)
	case len(texts) > 1 && one.target.Kind() != reflect.Slice:
		return misusef("%s:%d: %s: want one value, got a list", path, line, key)
	}
	if err := assign(one.target, texts); err != nil {
		return misusef("%s:%d: %s: %v", path, line, key, err)
	}
	return nil
}

// recipeTexts is a value as the texts that assign takes: one for a scalar; for
// a list an empty one, which stands for no items, and one an item.
func recipeTexts(n ast.Node) ([]string, bool) {
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		_, scalar := n.(ast.ScalarNode)
		return []string{scalarText(n)}, scalar && n.Type() != ast.NullType
	}
	texts := []string{""}
	for _, item := range list.Values {
		if _, scalar := item.(ast.ScalarNode); !scalar || item.Type() == ast.NullType {
			return nil, false
		}
		texts = append(texts, quoteItem(scalarText(item)))
	}
	return texts, true
}

// scalarText is a scalar as it stands in the file, without its quotes.
func scalarText(n ast.Node) string {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value
	case *ast.LiteralNode:
		return n.Value.Value
	}
	return n.GetToken().Value
}

// quoteItem keeps a comma inside a list's item from splitting it.
func quoteItem(s string) string {
	if !strings.ContainsAny(s, ",\"") {
		return s
	}
	return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
}

// plainFileError is why a file could not be used, without the path that the
// message has named already.
func plainFileError(err error) error {
	var pathErr *os.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}
