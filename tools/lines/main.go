// Command lines counts the code lines of the numeric core by package and fails
// if they are more than the budget beside it allows:
//
//	go -C tools run ./lines ..
//
// A code line is one that holds at least a part of a token other than a
// comment. Tests, packages for tests, generated files and other modules do not
// count. Files of every platform do.
package main

import (
	_ "embed"
	"fmt"
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// core is the numeric core: these directories and what lies below them.
var core = []string{"cell", "internal/simd", "internal/par", "internal/device", "internal/cpu", "tensor", "nn", "optim"}

//go:embed budget.txt
var budget string

func main() {
	if len(os.Args) != 2 {
		fail(fmt.Errorf("takes one argument, the root of the module, got %q", os.Args[1:]))
	}
	limit, err := readBudget(budget)
	if err != nil {
		fail(err)
	}
	lines, err := count(os.DirFS(os.Args[1]), core)
	if err != nil {
		fail(err)
	}
	if total := table(os.Stdout, lines, limit); total > limit {
		fail(fmt.Errorf("the numeric core has %d code lines, %d more than tools/lines/budget.txt allows: say the same in fewer, or give the new kind of weights, layer or kernel a line there", total, total-limit))
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "lines:", err)
	os.Exit(1)
}

// readBudget adds up the counts of a table of lines "count reason". Empty lines
// and those that begin with # say nothing.
func readBudget(text string) (limit int, err error) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		number, reason, _ := strings.Cut(line, " ")
		n, err := strconv.Atoi(number)
		if err != nil || n <= 0 || strings.TrimSpace(reason) == "" {
			return 0, fmt.Errorf("budget.txt: want a positive count and a reason, got %q", line)
		}
		limit += n
	}
	return limit, nil
}

// count gives the code lines of each package in or below the directories.
func count(root fs.FS, dirs []string) (map[string]int, error) {
	lines := map[string]int{}
	for _, dir := range dirs {
		err := fs.WalkDir(root, dir, func(file string, d fs.DirEntry, err error) error {
			name := filepath.Base(file)
			switch {
			case err != nil:
				return err
			case d.IsDir():
				// The packages for tests are devicetest, simdtest, tensortest.
				if strings.HasPrefix(name, "_") || strings.HasPrefix(name, ".") || name == "testdata" || strings.HasSuffix(name, "test") {
					return fs.SkipDir
				}
				return nil
			case filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") || strings.HasPrefix(name, "z"):
				return nil
			}
			src, err := fs.ReadFile(root, file)
			if err != nil {
				return err
			}
			n, err := codeLines(file, src)
			lines[filepath.ToSlash(filepath.Dir(file))] += n
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return lines, nil
}

// codeLines counts the lines of a Go file on which a token stands; a raw string
// counts with all its lines that are not blank. A generated file has none.
func codeLines(name string, src []byte) (int, error) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, name, src, parser.PackageClauseOnly|parser.ParseComments)
	if err != nil {
		return 0, err
	}
	if ast.IsGenerated(f) {
		return 0, nil
	}
	file := fset.AddFile(name, -1, len(src))
	var errs scanner.ErrorList
	var s scanner.Scanner
	s.Init(file, src, errs.Add, 0) // without scanner.ScanComments: comments are no tokens
	code := map[int]bool{}
	for {
		pos, tok, text := s.Scan()
		if tok == token.EOF {
			return len(code), errs.Err()
		}
		if tok == token.SEMICOLON && text == "\n" {
			continue // put in by the scanner
		}
		line := file.Line(pos)
		code[line] = true
		if tok == token.STRING {
			for i, part := range strings.Split(text, "\n") {
				if strings.TrimSpace(part) != "" {
					code[line+i] = true
				}
			}
		}
	}
}

// table prints the lines of each package and of all beside the limit.
func table(w io.Writer, lines map[string]int, limit int) (total int) {
	packages := make([]string, 0, len(lines))
	for p, n := range lines {
		packages = append(packages, p)
		total += n
	}
	slices.Sort(packages)
	fmt.Fprintln(w, "code lines of the numeric core")
	for _, p := range packages {
		fmt.Fprintf(w, "  %-20s %6d\n", p, lines[p])
	}
	fmt.Fprintf(w, "  %-20s %6d of %d\n", "all", total, limit)
	return total
}
