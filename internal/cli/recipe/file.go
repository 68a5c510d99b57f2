package recipe

import (
	"fmt"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/carousel-ml/carousel/internal/yaml"
)

// readFile applies a YAML recipe: one flat mapping of settings. Errors name
// the file and the line, and an unknown key its nearest neighbour.
func (s *Set) readFile(path string) error {
	text, err := yaml.ReadFile(path)
	if err != nil {
		return fmt.Errorf("--config %s: %w", path, err)
	}
	return s.read(path, text)
}

// read applies a recipe's text.
func (s *Set) read(path, text string) error {
	entries, err := yaml.Mapping(path, text)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := s.applyEntry(path, entry); err != nil {
			return err
		}
	}
	return nil
}

func (s *Set) applyEntry(path string, entry *ast.MappingValueNode) error {
	key, line := yaml.Text(entry.Key), entry.Key.GetToken().Position.Line
	one, err := s.lookup(key)
	if err != nil {
		return fmt.Errorf("%s:%d: %v", path, line, err)
	}
	texts, ok := recipeTexts(entry.Value)
	switch {
	case !ok:
		return fmt.Errorf("%s:%d: %s: want a value or a list of values", path, line, key)
	case len(texts) > 1 && !one.IsList():
		return fmt.Errorf("%s:%d: %s: want one value, got a list", path, line, key)
	}
	if err := one.Assign(texts...); err != nil {
		return fmt.Errorf("%s:%d: %s: %v", path, line, key, err)
	}
	return nil
}

// recipeTexts returns a value as the texts that Assign takes: one for a scalar; for a
// list an empty text, which removes all items, and then one for each item.
func recipeTexts(n ast.Node) ([]string, bool) {
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		return []string{yaml.Text(n)}, yaml.IsScalar(n)
	}
	texts := []string{""}
	for _, item := range list.Values {
		if !yaml.IsScalar(item) {
			return nil, false
		}
		texts = append(texts, quoteItem(yaml.Text(item)))
	}
	return texts, true
}

// quoteItem keeps a comma inside a list's item from splitting it.
func quoteItem(s string) string {
	if !strings.ContainsAny(s, ",\"") {
		return s
	}
	return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
}
