package carousel_test

import (
	"go/ast"
	"go/build/constraint"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/carousel-ml/carousel"

// floors is the floor plan, a statement of policy: a package may import only
// packages of the floors before its own, so packages of one floor do not know
// each other. A directory that is not listed belongs to the nearest listed one
// above it (model/torch to model), but stands above that one. Test support
// (tensortest, devicetest, modeltest, disttest, traintest, speechtest, golden) is left to the tests that use it.
var floors = [][]string{
	{"internal/half"},
	{"internal/settings", "internal/result", "internal/lock", "internal/npy", "internal/yaml", "internal/dl"},
	{"internal/simd"},
	{"internal/par"},
	{"cell"},
	{"internal/device"},
	{"internal/cpu", "internal/cuda"},
	{"tensor"},
	{"nn", "optim", "dist"},
	{"model"},
	{"model/onnx/graph"},
	{"model/onnx"},
	{"model/network"},
	{"train"},
	{"data"},
	{"audio"},
	{"internal/oniguruma"},
	{"text"},
	{"report"},
	{"internal/smoothing"},
	{"task"},
	{"speech"},
	{"task/classify", "task/forecast", "task/generate", "task/keywords", "task/tag", "task/transcribe", "task/translate"},
	{"internal/memory"},
	{"serve/inferencepb"},
	{"serve/inference"},
	{"serve/batch", "serve/loadtest"},
	{"internal/explain", "internal/find", "internal/bench"},
	{"quantize"},
	{"tune"},
	{"serve"},
	{"."},
	{"internal/cli"},
	{"cmd/carousel"},
}

// outside lists what the lower floors may import beyond the standard library;
// a floor above these may use any module in go.mod. The numeric core stays
// clear of everything but x/sys.
var outside = map[string][]string{
	"internal/half":      {},
	"internal/settings":  {},
	"internal/result":    {},
	"internal/lock":      {},
	"internal/npy":       {},
	"internal/yaml":      {"github.com/goccy/go-yaml"},
	"internal/dl":        {"github.com/ebitengine/purego"},
	"internal/simd":      {"golang.org/x/sys"},
	"internal/par":       {"golang.org/x/sys"},
	"cell":               {},
	"internal/device":    {},
	"internal/cpu":       {"golang.org/x/sys"},
	"tensor":             {},
	"nn":                 {},
	"optim":              {},
	"dist":               {"golang.org/x/sys"},
	"model":              {"golang.org/x/sys"},
	"model/onnx/graph":   {"google.golang.org/protobuf", "gonum.org/v1/gonum"},
	"model/onnx":         {},
	"model/network":      {"github.com/goccy/go-yaml"},
	"data":               {"github.com/parquet-go/parquet-go", "github.com/andybalholm/brotli", "github.com/klauspost/compress/zstd", "github.com/pierrec/lz4/v4"},
	"internal/oniguruma": {},
	"serve/batch":        {},
	".":                  {},
	"cmd/carousel":       {},
}

// forbidden is stricter than the floors: data is usable from train up, but
// readers need nothing of the numeric core.
var forbidden = map[string][]string{
	"data": {"train", "model", "model/onnx/graph", "model/onnx", "nn", "optim", "dist", "tensor"},
}

// backends are imported by tensor only: nothing above it knows which device it runs on.
var backends = []string{"internal/cpu", "internal/cuda"}

// support is imported by tests only.
var support = []string{"internal/golden", "internal/simd/simdtest", "internal/device/devicetest", "internal/device/forwardtest", "internal/cuda/cudatest", "tensor/tensortest", "model/modeltest", "train/traintest", "dist/disttest", "speech/speechtest", "audio/detect/detecttest"}

// isSupport reports whether a package is no part of the house: support, an
// example or a comparison with other programs.
func isSupport(pkg string) bool {
	return slices.Contains(support, pkg) || strings.HasPrefix(pkg, "examples/") || strings.HasPrefix(pkg, "bench")
}

func TestFloorPlan(t *testing.T) {
	imports := packageImports(t)
	if len(imports) < 10 {
		t.Fatalf("found only %d packages below the module's root", len(imports))
	}
	for pkg, list := range imports {
		if isSupport(pkg) {
			continue
		}
		room, floor := roomOf(pkg)
		if floor < 0 {
			t.Errorf("package %s has no place in the floor plan", pkg)
			continue
		}
		for _, imp := range list {
			rel, inside := strings.CutPrefix(imp, module)
			if !inside {
				checkOutside(t, pkg, room, imp)
				continue
			}
			other := path.Clean(strings.TrimPrefix(rel, "/"))
			otherRoom, otherFloor := roomOf(other)
			switch {
			case slices.Contains(backends, otherRoom) && room != "tensor" && room != otherRoom:
				t.Errorf("%s imports %s, which only tensor knows", pkg, other)
			case slices.Contains(support, other):
				t.Errorf("%s imports %s, which is for tests", pkg, other)
			case otherRoom == room:
				if !strings.HasPrefix(pkg+"/", other+"/") && !strings.HasPrefix(other, pkg+"/") {
					t.Errorf("%s imports %s beside it", pkg, other)
				}
			case otherFloor >= floor || otherFloor < 0:
				t.Errorf("%s may not import %s: it is not on a floor below", pkg, other)
			case slices.Contains(forbidden[room], otherRoom):
				t.Errorf("%s may not import %s: it must not depend on the numeric core", pkg, other)
			}
		}
	}
}

// TestFloorTable wants the table of ARCHITECTURE.md to name every package there
// is, on rows that rise as the floors do, one row for the rooms of a floor.
func TestFloorTable(t *testing.T) {
	rows := floorTable(t)
	var named []string
	rowOf, floorOf := map[int]int{}, map[int]int{} // by floor and by row, of rooms
	last := 0
	for i, row := range rows {
		for _, pkg := range row {
			room, floor := roomOf(pkg)
			switch {
			case slices.Contains(named, pkg):
				t.Errorf("the table names %s twice", pkg)
			case floor < 0:
				t.Errorf("the table names %s, which has no place in the floor plan", pkg)
			case floor < last:
				t.Errorf("the table has %s above packages of a higher floor", pkg)
			}
			named = append(named, pkg)
			last = max(last, floor)
			if room != pkg {
				continue
			}
			if first, ok := rowOf[floor]; ok && first != i {
				t.Errorf("the table parts %s from the others of its floor", pkg)
			}
			if other, ok := floorOf[i]; ok && other != floor {
				t.Errorf("the table has %s in a row of another floor", pkg)
			}
			rowOf[floor], floorOf[i] = i, floor
		}
	}
	var present []string
	for pkg := range packageImports(t) {
		if !isSupport(pkg) {
			present = append(present, pkg)
		}
	}
	slices.Sort(named)
	slices.Sort(present)
	if !slices.Equal(named, present) {
		t.Errorf("the table names\n%q, but there are\n%q", named, present)
	}
}

// floorTable reads the packages in the first column of ARCHITECTURE.md's floor table.
func floorTable(t *testing.T) (rows [][]string) {
	t.Helper()
	text, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "\n| Package |")
	if !found {
		t.Fatal("ARCHITECTURE.md has no table of packages")
	}
	for line := range strings.Lines(table) {
		if line == "\n" {
			break
		}
		column, _, _ := strings.Cut(strings.TrimPrefix(line, "|"), "|")
		var row []string
		for i, word := range strings.Split(column, "`") {
			if i%2 == 1 {
				if word == path.Base(module) {
					word = "."
				}
				row = append(row, word)
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// A file that imports purego, from which a binary becomes dynamic, is built with
// the tag dl only.
func TestOnlyTheTagMakesTheBinaryDynamic(t *testing.T) {
	found := 0
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(file, ".go") {
			return err
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, text, parser.ImportsOnly)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(f.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == `"github.com/ebitengine/purego"` }) {
			return nil
		}
		found++
		for line := range strings.Lines(string(text)) {
			if !constraint.IsGoBuild(line) {
				continue
			}
			expr, err := constraint.Parse(line)
			if err == nil && !expr.Eval(func(tag string) bool { return tag != "dl" }) {
				return nil
			}
			break
		}
		t.Errorf("%s imports purego and is built without the tag dl", file)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found == 0 {
		t.Error("no file imports purego: does another module load libraries?")
	}
}

// Only the seam itself and a backend look into a buffer, whose memory another
// device does not show.
func TestOnlyBackendsLookIntoBuffers(t *testing.T) {
	looked := 0
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(file, ".go") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(f.Imports, func(i *ast.ImportSpec) bool {
			return slices.Contains([]string{`"net/url"`, `"net/http"`, `"github.com/jackc/pgx/v5"`}, i.Path.Value)
		}) {
			return nil // the host of a URL, a request or a database
		}
		seam := slices.Contains(append(backends, "internal/device"), filepath.ToSlash(filepath.Dir(file)))
		ast.Inspect(f, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "Host" {
				if looked++; !seam {
					t.Errorf("%s looks into a buffer", file)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if looked < 100 {
		t.Errorf("only %d looks into buffers found: is the field still called Host?", looked)
	}
}

// checkOutside holds the lower floors to their few modules, and all of them to
// building without cgo.
func checkOutside(t *testing.T, pkg, room, imp string) {
	if imp == "C" {
		t.Errorf("%s uses cgo", pkg)
	}
	first, _, _ := strings.Cut(imp, "/")
	allowed, bounded := outside[room]
	if !bounded || !strings.Contains(first, ".") {
		return
	}
	for _, m := range allowed {
		if imp == m || strings.HasPrefix(imp, m+"/") {
			return
		}
	}
	t.Errorf("%s imports %s; %s may use only the standard library and %q", pkg, imp, room, allowed)
}

// roomOf finds the listed package that pkg is or lies under, and its floor.
func roomOf(pkg string) (string, int) {
	for p := pkg; ; p = path.Dir(p) {
		for floor, rooms := range floors {
			if slices.Contains(rooms, p) && (p != "." || pkg == ".") {
				return p, floor
			}
		}
		if p == "." {
			return "", -1
		}
	}
}

// packageImports reads the imports of every non-test Go file of the module,
// whatever its build tags, by package directory. Nested modules are not part.
func packageImports(t *testing.T) map[string][]string {
	t.Helper()
	imports := map[string][]string{}
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if file != "." && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		if isTool(f.Name.Name, file) {
			return nil
		}
		dir := filepath.ToSlash(filepath.Dir(file))
		for _, spec := range f.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if !slices.Contains(imports[dir], imp) {
				imports[dir] = append(imports[dir], imp)
			}
		}
		if imports[dir] == nil {
			imports[dir] = []string{}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return imports
}

// isTool reports whether a file is a generator run by hand, a main program
// inside a library's directory.
func isTool(pkg, file string) bool {
	return pkg == "main" && !strings.HasPrefix(filepath.ToSlash(file), "cmd/") && !strings.HasPrefix(filepath.ToSlash(file), "examples/")
}
