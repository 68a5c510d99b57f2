package carousel_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/cell"
)

// Only these tell one cell from another by its name: arithmetic, and whoever
// chooses cells to offer or to measure. All else reads the table, so that a new
// row of it is known everywhere.
var namesCells = []string{
	"cell", "internal/cpu", "internal/cuda", "internal/device/devicetest", // facts, arithmetic, equations
	"nn/rnn.go",                 // the constructors
	"model/onnx/export_cell.go", // equations as nodes of a graph
	"internal/bench", "bench/peers", "bench/cuda", "examples",
}

// cellWords are the files that also have names of cells in string literals: whole
// literals, or any if there are none. Literals of several lines, which are the help of
// commands, are not searched.
var cellWords = map[string][]string{
	"model": nil, "internal/simd/_asm": nil, // the names of file formats and of kernels
	"internal/explain/adding.go": nil, "internal/cli/explain.go": nil, // a study of chosen cells
	"internal/explain/figures.go": {"RNN", "RNN, radius 2", "GRU", "LSTM", "LSTM, bias 0", "LSTM, bias 1", "LSTM, bias 3", "LSTM, ", "LSTM, trained",
		"A straight line is a constant factor per step. The second RNN has a recurrent matrix of spectral radius 2.",
		"The LSTM's error carousel: the gradient in c, by the bias of the forget gate"},
	"internal/explain/advice.go":    {"%s: the gradient shrinks by a factor of %s per step, and %d steps back less than a thousandth is left: dependences further back cannot be learnt. Use an LSTM or a GRU, whose cells keep the gradient."},
	"internal/memory/trial.go":      {"rnn", "lstm", "gru", "cells: name at least one, such as lstm"}, // defaults
	"task/rnn.go":                   {"lstm"},
	"task/tag":                      {"lstm", `json:"chars" oneof:"auto (cnn, or none if tokens are characters),cnn,lstm,none" group:"Words" help:"network that reads a word's characters"`},
	"internal/cli/cli.go":           {"Train and use LSTM models, from one binary"},
	"internal/cli/exchange_onnx.go": {"rnn"}, // the prefix of a stack's parameters
	"nn/rnn_check.go":               {"nn: RNN"},
	// Names of files.
	"audio/denoise/network.go": {"give the weights.rnn of RNNoise's first network"},
	"internal/cli/denoise.go":  {"`file` of the network, weights.rnn of RNNoise", "denoise needs --model, the weights.rnn of RNNoise"},
}

func at(path, place string) bool { return path == place || strings.HasPrefix(path, place+"/") }

// kinds returns the names of the constants of cell.Kind but Custom.
func kinds(t *testing.T) (names []string) {
	f, err := parser.ParseFile(token.NewFileSet(), "cell/cell.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		if id, ok := g.Specs[0].(*ast.ValueSpec).Type.(*ast.Ident); ok && id.Name == "Kind" {
			for _, s := range g.Specs[:cell.Custom] {
				names = append(names, s.(*ast.ValueSpec).Names[0].Name)
			}
		}
	}
	return names
}

func TestOnlyTheTableKnowsCells(t *testing.T) {
	constants := kinds(t)
	if len(constants) != int(cell.Custom) {
		t.Fatalf("found the constants %q of %d cells", constants, cell.Custom)
	}
	for _, path := range slices.Concat(namesCells, slices.Collect(maps.Keys(cellWords))) {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("the list of who names cells is not up to date: %v", err)
		}
	}
	var words []string
	for kind := range cell.Custom {
		s := kind.Spec()
		for _, w := range []string{s.Name, s.Title, s.Setting} {
			if w != "" {
				words = append(words, regexp.QuoteMeta(w))
			}
		}
	}
	names := regexp.MustCompile(`\b(` + strings.Join(words, "|") + `)\b`)
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return err
		}
		path := filepath.ToSlash(file)
		if slices.ContainsFunc(namesCells, func(place string) bool { return at(path, place) }) {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		allowed := func(text string) bool {
			for place, literals := range cellWords {
				if at(path, place) && (literals == nil || slices.Contains(literals, text)) {
					return true
				}
			}
			return false
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				if pkg, ok := n.X.(*ast.Ident); ok && pkg.Name == "cell" && slices.Contains(constants, n.Sel.Name) {
					t.Errorf("%s names cell.%s: what it must know of cells belongs into the rows of cell.Table", file, n.Sel.Name)
				}
			case *ast.BasicLit:
				if text, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING && !strings.Contains(text, "\n") && names.MatchString(text) && !allowed(text) {
					t.Errorf("%s names a cell in %s: what it must know of cells belongs into the rows of cell.Table", file, n.Value)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
