// Package yaml parses the YAML files that users write: one mapping, in bounded time and
// memory whatever the text is. Errors are of one line that names the file and the line.
package yaml

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// ReadFile returns a text that is not too long for the parser; errors do not name
// the file.
func ReadFile(path string) (string, error) {
	f, err := os.Open(path)
	if err == nil {
		defer f.Close()
		var text []byte
		if text, err = io.ReadAll(io.LimitReader(f, MaxText+1)); err == nil {
			if len(text) > MaxText {
				return "", fmt.Errorf("want settings on a few pages, got more than %d bytes", MaxText)
			}
			return string(text), nil
		}
	}
	var file *os.PathError
	if errors.As(err, &file) {
		err = file.Err
	}
	return "", err
}

// The parser takes up to 700 bytes for a byte of text, and time and memory with the
// square of the nesting, of the blank lines in a row and of the documents, none of
// which a file of settings has. The longest text is 50 pages, or 5,000 names of columns.
const (
	MaxText     = 64 << 10
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

// Mapping parses a text, and returns the entries of its one mapping; none for a text
// of comments alone. path is for messages.
func Mapping(path, text string) ([]*ast.MappingValueNode, error) {
	if err := checkBlank(path, text); err != nil {
		return nil, err
	}
	tokens := lexer.Tokenize(text)
	if err := checkTokens(path, tokens); err != nil {
		return nil, err
	}
	file, err := parser.Parse(tokens, 0)
	if err != nil {
		var syntax yaml.Error
		if errors.As(err, &syntax) && syntax.GetToken() != nil {
			return nil, fmt.Errorf("%s:%d: %s", path, syntax.GetToken().Position.Line, syntax.GetMessage())
		}
		return nil, fmt.Errorf("%s: %v", path, err)
	}
	var entries []*ast.MappingValueNode
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		mapping, ok := doc.Body.(*ast.MappingNode)
		if !ok {
			return nil, fmt.Errorf("%s:%d: want lines of the form \"name: value\"", path, doc.Body.GetToken().Position.Line)
		}
		entries = append(entries, mapping.Values...)
	}
	return entries, nil
}

// IsScalar reports whether a node is a single value.
func IsScalar(n ast.Node) bool {
	_, scalar := n.(ast.ScalarNode)
	return scalar && n.Type() != ast.NullType
}

var plainWord = regexp.MustCompile(`^-?[A-Za-z_0-9][A-Za-z_0-9.+-]*$`)

// Quote writes a text as a scalar or key that Text reads, in quotes where YAML needs them.
func Quote(text string) string {
	if plainWord.MatchString(text) && !strings.EqualFold(text, "null") {
		return text
	}
	return strconv.Quote(text)
}

// Text is a scalar as it stands in the file, without its quotes.
func Text(n ast.Node) string {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value
	case *ast.LiteralNode:
		return n.Value.Value
	}
	return n.GetToken().Value
}
