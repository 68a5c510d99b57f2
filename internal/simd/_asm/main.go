// Command _asm writes the assembly of package simd, its Go declarations and
// the tables of kernels; and the probes of package bench, which are loops of the
// same instructions. Run it by "go generate" in internal/simd.
//
// Every kernel is one template; an isa says how wide the vectors are and how
// the few operations work that the instruction sets spell differently.
package main

import (
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"log"
	"os"
	"path/filepath"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/gotypes"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/pass"
	"github.com/mmcloughlin/avo/printer"
)

// target is a package with assembly.
type target struct {
	pkg     string
	sources []string // the files of its argument structs
	files   []file
	stubs   string
}

type file struct {
	name     string
	generate func(*gen)
}

var targets = []target{
	{"simd", []string{"kernels.go", "vector_amd64.go", "byte_amd64.go"}, []file{
		{"zgemm_amd64.s", (*gen).gemm},
		{"zvec_amd64.s", (*gen).vectors},
		{"zcell_amd64.s", (*gen).cells},
		{"zbyte_amd64.s", (*gen).byteProducts},
	}, "zstubs_amd64.go"},
	{"bench", []string{"probe_amd64.go"}, []file{{"zprobe_amd64.s", (*gen).probes}}, "zprobe_amd64.go"},
}

func main() {
	flags := flag.NewFlagSet("_asm", flag.ExitOnError) // avo fills the default set with its own
	src := flags.String("src", "../..", "directory of the packages")
	out := flags.String("out", "../..", "directory to write to, with one for each package")
	flags.Parse(os.Args[1:])
	log.SetFlags(0)

	for _, t := range targets {
		t.write(filepath.Join(*src, t.pkg), filepath.Join(*out, t.pkg))
	}
	if err := os.WriteFile(filepath.Join(*out, "simd", "zsets_amd64.go"), sets(), 0o644); err != nil {
		log.Fatal(err)
	}
}

func (t *target) write(src, out string) {
	pkg, err := arguments(t.pkg, src, t.sources)
	if err != nil {
		log.Fatal(err)
	}
	config := printer.Config{Name: "internal/simd/_asm", Pkg: t.pkg}
	stubs := ir.NewFile()
	for _, f := range t.files {
		g := &gen{Context: build.NewContext(), pkg: pkg, tables: map[string]bool{}}
		g.ConstraintExpr("amd64,!purego")
		for _, isa := range isas {
			g.isa = isa
			f.generate(g)
		}
		file, err := g.Result()
		if err != nil {
			log.Fatalf("%s: %v", f.name, err)
		}
		if err := pass.Compile.Execute(file); err != nil {
			log.Fatalf("%s: %v", f.name, err)
		}
		stubs.Constraints = file.Constraints
		stubs.Sections = append(stubs.Sections, file.Sections...)
		write(filepath.Join(out, f.name), printer.NewGoAsm(config), file)
	}
	write(filepath.Join(out, t.stubs), printer.NewStubs(config), stubs)
}

func write(path string, p printer.Printer, f *ir.File) {
	text, err := p.Print(f)
	if err == nil {
		err = os.WriteFile(path, text, 0o644)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// arguments type-checks just enough of a package to know its argument
// structs. Imports and functions of other files stay unresolved, which is no
// obstacle: the structs hold numbers and pointers only.
func arguments(name, dir string, paths []string) (*types.Package, error) {
	fset := token.NewFileSet()
	var files []*ast.File
	for _, path := range paths {
		f, err := parser.ParseFile(fset, filepath.Join(dir, path), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	conf := types.Config{Error: func(error) {}, Sizes: gotypes.Sizes, IgnoreFuncBodies: true}
	pkg, _ := conf.Check(name, fset, files, nil)
	return pkg, nil
}
