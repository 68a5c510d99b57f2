package carousel_test

import (
	"go/parser"
	"go/token"
	"io/fs"
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
// above it (model/onnx to model), but stands above that one. Test support
// (tensortest, devicetest, golden, traintest) is left to the tests that use it.
var floors = [][]string{
	{"internal/settings", "internal/simd"},
	{"internal/par"},
	{"internal/device"},
	{"internal/cpu", "internal/cuda"},
	{"tensor"},
	{"nn", "optim", "dist"},
	{"model"},
	{"train"},
	{"data"},
	{"text"},
	{"forecast", "speech", "memory"},
	{"report"},
	{"tune", "serve", "explain", "internal/bench"},
	{"."},
	{"internal/cli"},
	{"cmd/carousel"},
}

// outside lists what the lower floors may import beyond the standard library;
// a floor above these may use any module in go.mod. The numeric core stays
// clear of everything but x/sys.
var outside = map[string][]string{
	"internal/settings": {},
	"internal/simd":     {"golang.org/x/sys"},
	"internal/par":      {"golang.org/x/sys"},
	"internal/device":   {},
	"internal/cpu":      {"golang.org/x/sys"},
	"tensor":            {},
	"nn":                {},
	"optim":             {},
	"dist":              {"golang.org/x/sys"},
	"model":             {"golang.org/x/sys", "google.golang.org/protobuf"}, // the latter for model/onnx
	"data":              {"github.com/parquet-go/parquet-go"},
	"forecast":          {"gonum.org/v1/gonum"},
	".":                 {},
	"cmd/carousel":      {},
}

// forbidden is stricter than the floors: data is usable from train up, but
// readers need nothing of the numeric core.
var forbidden = map[string][]string{
	"data": {"train", "model", "nn", "optim", "dist", "tensor"},
}

// support is imported by tests only.
var support = []string{"internal/golden", "internal/device/devicetest", "tensor/tensortest", "train/traintest"}

func TestFloorPlan(t *testing.T) {
	imports := packageImports(t)
	if len(imports) < 10 {
		t.Fatalf("found only %d packages below the module's root", len(imports))
	}
	for pkg, list := range imports {
		if slices.Contains(support, pkg) || strings.HasPrefix(pkg, "examples/") || strings.HasPrefix(pkg, "bench") {
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
