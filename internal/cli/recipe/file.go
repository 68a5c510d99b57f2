package recipe

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// readFile applies a YAML recipe: one flat mapping of settings. Errors name
// the file and the line, and an unknown key its nearest neighbour.
func (s *Set) readFile(path string) error {
	text, err := readText(path)
	if err != nil {
		return err
	}
	return s.read(path, text)
}

// readText reads a recipe that is not too long for the parser.
func readText(path string) (string, error) {
	f, err := os.Open(path)
	if err == nil {
		defer f.Close()
		var text []byte
		if text, err = io.ReadAll(io.LimitReader(f, mostText+1)); err == nil {
			if len(text) > mostText {
				return "", fmt.Errorf("--config %s: want a recipe of settings, got more than %d bytes", path, mostText)
			}
			return string(text), nil
		}
	}
	var file *os.PathError
	if errors.As(err, &file) {
		err = file.Err // the path is named already
	}
	return "", fmt.Errorf("--config %s: %w", path, err)
}

// The parser takes up to 700 bytes for a byte of text, and time and memory with the
// square of the nesting, of the blank lines in a row and of the documents, none of
// which a recipe has. The longest text is 50 pages, or 5,000 names of columns.
const (
	mostText    = 64 << 10
	mostNesting = 100
	mostBlank   = 100 // ends of lines
	mostMarkers = 2   // --- and ... around the only document
)

// checkBlank returns an error for too many blank lines in a row.
func checkBlank(path, text string) error {
	ends := 0
	for i, c := range text {
		switch c {
		case ' ', '\t':
		case '\n', '\r':
			if ends++; ends > mostBlank {
				return fmt.Errorf("%s:%d: want at most %d blank lines in a row", path, strings.Count(text[:i], "\n")+1, mostBlank)
			}
		default:
			ends = 0
		}
	}
	return nil
}

// checkTokens returns an error for text that is nested too deeply, or has many
// documents.
func checkTokens(path string, tokens token.Tokens) error {
	var columns []int // of what the blocks around a token begin with
	flow, line, markers := 0, 0, 0
	for _, t := range tokens {
		switch t.Type {
		case token.DocumentHeaderType, token.DocumentEndType:
			if markers++; markers > mostMarkers {
				return fmt.Errorf("%s:%d: want one document of settings, got several", path, t.Position.Line)
			}
		case token.SequenceStartType, token.MappingStartType:
			if flow++; flow+len(columns) > mostNesting {
				return tooDeep(path, t)
			}
		case token.SequenceEndType, token.MappingEndType:
			flow--
		}
		column := t.Position.Column
		switch t.Type {
		case token.SequenceEntryType, token.MappingKeyType, token.MappingValueType:
		default:
			if t.Position.Line == line {
				continue
			}
		}
		line = t.Position.Line
		for len(columns) > 0 && columns[len(columns)-1] >= column {
			columns = columns[:len(columns)-1]
		}
		columns = append(columns, column)
		if flow+len(columns) > mostNesting {
			return tooDeep(path, t)
		}
	}
	return nil
}

func tooDeep(path string, t *token.Token) error {
	return fmt.Errorf("%s:%d: want lines of the form \"name: value\", got values nested more than %d deep", path, t.Position.Line, mostNesting)
}

// read applies a recipe's text.
func (s *Set) read(path, text string) error {
	if err := checkBlank(path, text); err != nil {
		return err
	}
	tokens := lexer.Tokenize(text)
	if err := checkTokens(path, tokens); err != nil {
		return err
	}
	file, err := parser.Parse(tokens, 0)
	if err != nil {
		var syntax yaml.Error
		if errors.As(err, &syntax) && syntax.GetToken() != nil {
			return fmt.Errorf("%s:%d: %s", path, syntax.GetToken().Position.Line, syntax.GetMessage())
		}
		return fmt.Errorf("%s: %v", path, err)
	}
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		mapping, ok := doc.Body.(*ast.MappingNode)
		if !ok {
			return fmt.Errorf("%s:%d: want lines of the form \"name: value\"", path, doc.Body.GetToken().Position.Line)
		}
		for _, entry := range mapping.Values {
			if err := s.applyEntry(path, entry); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Set) applyEntry(path string, entry *ast.MappingValueNode) error {
	key, line := scalarText(entry.Key), entry.Key.GetToken().Position.Line
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
