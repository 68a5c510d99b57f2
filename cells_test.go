package carousel_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/cell"
)

// Only these tell one cell from another by its name: arithmetic, and whoever
// chooses cells to offer or to measure. All else reads the table, so that a new
// row of it is known everywhere.
var namesCells = []string{
	"cell", "internal/cpu", "internal/device/devicetest", // facts, arithmetic, equations
	"internal/device/alias.go",
	"nn/rnn.go",                 // the constructors
	"model/onnx/export_cell.go", // equations as nodes of a graph
	"internal/bench", "bench/peers", "examples",
}

func TestOnlyTheTableKnowsCells(t *testing.T) {
	constants := []string{"LSTM", "GRU", "RNNTanh", "RNNReLU", "CoupledLSTM", "GRUBefore", "SLSTM", "MinGRU", "MinLSTM"}
	if len(constants) != int(cell.Custom) {
		t.Fatalf("there are %d cells in the table: name the new ones here too", cell.Custom)
	}
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return err
		}
		path := filepath.ToSlash(file)
		if slices.ContainsFunc(namesCells, func(at string) bool { return path == at || strings.HasPrefix(path, at+"/") }) {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && slices.Contains(constants, s.Sel.Name) {
				if pkg, ok := s.X.(*ast.Ident); ok && pkg.Name == "cell" {
					t.Errorf("%s names cell.%s: what it must know of cells belongs into the rows of cell.Table", file, s.Sel.Name)
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
