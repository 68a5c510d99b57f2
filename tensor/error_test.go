package tensor_test

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/tensor"
)

func TestCatch(t *testing.T) {
	var shape *tensor.ShapeError
	tape := tensor.NewTape(tensor.CPU(), tensor.Infer)
	if err := tensor.Catch(func() { tape.Input(make([]float32, 3), 2, 2) }); !errors.As(err, &shape) || shape.Op != "Input" {
		t.Errorf("got %v", err)
	}
	var use *tensor.UseError
	err := tensor.Catch(func() { tensor.Check(1 > 2, "nn: Thing", "needs %d", 2) })
	if !errors.As(err, &use) || use.Op != "nn: Thing" || err.Error() != "nn: Thing: needs 2" {
		t.Errorf("got %v", err)
	}
	if err := tensor.Catch(func() { tensor.Check(true, "nn: Thing", "needs nothing") }); err != nil {
		t.Errorf("got %v", err)
	}
	defer func() {
		if r := recover(); r != "another" {
			t.Errorf("got %v", r)
		}
	}()
	_ = tensor.Catch(func() { panic("another") })
}

func TestRecover(t *testing.T) {
	open := func(what any) (n int, err error) {
		defer tensor.Recover(&err)
		if what != nil {
			panic(what)
		}
		return 1, io.EOF
	}
	for _, want := range []error{&tensor.ShapeError{Op: "Linear", Msg: "needs more"}, &tensor.UseError{Op: "nn: RNN", Msg: "needs less"}, &tensor.DeviceError{Device: "cuda:0", Text: "lost"}} {
		if n, err := open(want); n != 0 || err != want {
			t.Errorf("got %d, %v, want %v", n, err, want)
		}
	}
	if n, err := open(nil); n != 1 || err != io.EOF {
		t.Errorf("without a panic got %d, %v", n, err)
	}
	defer func() {
		if r := recover(); r != "another" {
			t.Errorf("got %v", r)
		}
	}()
	_, _ = open("another")
}

// What Catch does not catch would end a server: no layer, optimizer or operation
// panics with anything else.
func TestPanicsAreCaught(t *testing.T) {
	found := 0
	for _, dir := range []string{".", "../nn", "../optim"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			set := token.NewFileSet()
			f, err := parser.ParseFile(set, file, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				if name, ok := call.Fun.(*ast.Ident); !ok || name.Name != "panic" || file == "error.go" { // which raises others' again
					return true
				}
				found++
				if !isOurs(call.Args[0]) {
					t.Errorf("%s: a panic that tensor.Catch does not catch", set.Position(call.Pos()))
				}
				return true
			})
		}
	}
	if found == 0 {
		t.Error("no panic found")
	}
}

// isOurs says whether an expression is &tensor.ShapeError{...}.
func isOurs(x ast.Expr) bool {
	address, ok := x.(*ast.UnaryExpr)
	if !ok {
		return false
	}
	made, ok := address.X.(*ast.CompositeLit)
	if !ok {
		return false
	}
	s, ok := made.Type.(*ast.SelectorExpr)
	return ok && s.Sel.Name == "ShapeError"
}
