package carousel_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/speech"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/task/transcribe"
	"github.com/carousel-ml/carousel/text"
)

// A textFormat is a kind of text file that a user gives, and its reader.
type textFormat struct {
	name  string
	lines func(i int) string // line i of a valid file
	read  func(path string) error
}

func last[T any](seq iter.Seq2[T, error]) (err error) {
	for _, e := range seq {
		err = e
	}
	return err
}

// headed is the lines of a file that begins with the lines of head.
func headed(body string, head ...string) func(int) string {
	return func(i int) string {
		if i < len(head) {
			return head[i]
		}
		return fmt.Sprintf(body, i)
	}
}

func textFormats(t *testing.T) []textFormat {
	ctx, dir := t.Context(), t.TempDir()
	panel := func(o data.ReadOptions) func(string) error {
		return func(path string) error {
			_, err := data.ReadPanel(ctx, path, &o)
			return err
		}
	}
	examples := func(o data.ExampleOptions) func(string) error {
		return func(path string) error { return last(data.ReadExamples(path, &o)) }
	}
	conll := func(o data.ConllOptions) func(string) error {
		return func(path string) error { return last(data.ReadConll(path, &o)) }
	}
	return []textFormat{
		{"counted.csv", headed("%d", "value"), panel(data.ReadOptions{})},
		{"nameless.csv", headed("%d,0.5"), panel(data.ReadOptions{Time: "1", Values: []string{"2"}})},
		{"long.csv", headed("s%d;1,5", "id;value"), panel(data.ReadOptions{ID: "id"})},
		{"columns.csv", headed("%d,1", "a,b"), panel(data.ReadOptions{Layout: data.LayoutColumns})},
		{"rows.csv", headed("s%d,1,2", "id,1,2"), panel(data.ReadOptions{Layout: data.LayoutRows})},
		{"series.tsf", headed("s%d:1,2", "@attribute series_name string", "@data"), panel(data.ReadOptions{})},
		{"texts.csv", headed("text %d,a", "text,label"), examples(data.ExampleOptions{})},
		{"numbered.csv", headed("text %d,a"), examples(data.ExampleOptions{Text: "1", Label: "2"})},
		{"texts.tsv", headed("text %d\ta", "text\tlabel"), examples(data.ExampleOptions{})},
		{"texts.jsonl", headed(`{"text":"%d","label":1}`), examples(data.ExampleOptions{})},
		{"labels.txt", headed("a text %d"), examples(data.ExampleOptions{Format: data.FormatLabelFirst})},
		{"lines.txt", headed("text %d"), func(path string) error { return last(data.ReadTexts(path, &data.ExampleOptions{})) }},
		{"pairs.txt", headed("text %d"), func(path string) error {
			other := filepath.Join(dir, "other.txt")
			if err := os.WriteFile(other, []byte(strings.Repeat("x\n", 20000)), 0o600); err != nil {
				return err
			}
			return last(data.ReadPairs(path, other, "", nil))
		}},
		{"pairs.tsv", headed("text %d\ta", "source\ttarget"), func(path string) error { return last(data.ReadPairTable(path, "", "", "", nil)) }},
		{"pairs.csv", headed("text %d,a", "source,target"), func(path string) error { return last(data.ReadPairTable(path, "", "", "", nil)) }},
		{"tags.conll", headed("word%d O"), conll(data.ConllOptions{})},
		{"tags.conllu", headed("%d\tw\tw\tX\tX\t_\t0\tr\t_\t_", "# a comment"), conll(data.ConllOptions{})},
		{"tags.bmes", headed("word%d S-X"), conll(data.ConllOptions{})},
		{"book.txt", headed("text %d"), func(path string) error { return last(data.ReadDocuments(path, "", 1<<30, nil)) }},
		{"prompts.txt", headed("text %d"), func(path string) error {
			_, err := task.Input{File: path}.EachText("", nil)
			return err
		}},
		{"manifest.tsv", headed("reading_test.go\ttext %d", "audio\ttext"), func(path string) error {
			_, err := (&speech.Setup{Audio: "audio"}).ReadManifest(ctx, path, "text", nil, func(u *speech.Utterance) error { u.Audio = "reading_test.go"; return nil })
			return err
		}},
		{"lexicon.txt", headed("word%d W ER D", ";;; a comment"), func(path string) error {
			_, err := transcribe.ReadLexicon(ctx, path)
			return err
		}},
		{"lm.arpa", headed("-1\tword%d", "a comment", `\data\`, "ngram 1=99999", "", `\1-grams:`), func(path string) error {
			_, err := transcribe.ReadLM(ctx, path)
			return err
		}},
		{"vectors.txt", headed("word%d 0.5 1"), func(path string) error {
			_, err := text.ReadVectors(ctx, path, text.NewVocabulary(map[string]int64{"word0": 1}, nil))
			return err
		}},
	}
}

// Every line of every format that cannot be read is the same error with its own
// number: no reader loses a line, or the error of one, whatever the file comes
// from.
func TestLinesThatCannotBeRead(t *testing.T) {
	const bad, few, many = "\xd6\xd0\xce\xc4", 8, 20000
	for _, f := range textFormats(t) {
		t.Run(f.name, func(t *testing.T) {
			dir := t.TempDir()
			check := func(way string, line, lines int) {
				t.Helper()
				var b bytes.Buffer
				for i := range lines {
					b.WriteString(f.lines(i))
					if i+1 == line {
						b.WriteString(bad)
					}
					b.WriteString("\n")
				}
				path := filepath.Join(dir, f.name)
				content := b.Bytes()
				if way == "gzip" {
					content = zipped(content)
				}
				if err := os.WriteFile(path, content, 0o600); err != nil {
					t.Fatal(err)
				}
				name := path
				if way == "standard input" {
					in, err := os.Open(path)
					if err != nil {
						t.Fatal(err)
					}
					defer in.Close()
					defer func(was *os.File) { os.Stdin = was }(os.Stdin)
					os.Stdin, path, name = in, data.Stdin, way
				}
				want := fmt.Sprintf("%s: line %d: is neither UTF-8 (byte %d is 0xd6) nor like Latin-1; save the file as UTF-8", name, line, len(f.lines(line-1))+1)
				err := f.read(path)
				if input := (*data.InputError)(nil); !errors.As(err, &input) || err.Error() != want {
					t.Errorf("%s, line %d of %d: got %v\nwant %s", way, line, lines, err, want)
				}
			}
			for line := 1; line <= few; line++ {
				check("plain", line, few)
				check("gzip", line, few)
				if f.name != "texts.tsv" && filepath.Ext(f.name) != ".jsonl" && filepath.Ext(f.name) != ".conllu" { // known by their names
					check("standard input", line, few)
				}
			}
			check("plain", many-1, many) // far beyond what is examined to detect a format
			check("gzip", many, many)
		})
	}
}

func zipped(content []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(content)
	z.Close()
	return b.Bytes()
}

// ownLines lists the files that divide bytes into lines or records other than
// with data.LineReader, and why they may.
var ownLines = map[string]string{
	"data/lines.go":                "is data.LineReader",
	"data/open.go":                 "looks at the beginning of a file to detect its format",
	"data/csv.go":                  "reads records from a data.LineReader",
	"model/save.go":                "reads a file that the package itself wrote",
	"model/keras/live.go":          "reads the output of another program",
	"model/torch/live.go":          "reads the output of another program",
	"examples/speechdata/main.go":  "reads the files of one published corpus",
	"internal/settings/text.go":    "splits the value of a flag",
	"internal/bench/machine.go":    "reads the system's description of the processor",
	"internal/cli/memory_linux.go": "reads the system's figures on memory",
	"internal/cli/demodata/gen.go": "makes the demo's table, for developers",
	"serve/loadtest/http.go":       "reads the lines of HTTP",
	"serve/stream.go":              "reads messages of a connection, one in a line",
	"tools/lines/main.go":          "counts lines of source code, for developers",
	"tune/study.go":                "compares texts that this program wrote",
	"internal/cli/tune_show.go":    "reads settings as this program wrote them into a study",
	"bench/dist/cores.go":          "reads a file that a training of its own wrote, for developers",
	"bench/peers/carousel.go":      "reads the output of another program, for developers",
	"bench/peers/child.go":         "reads the output of another program, for developers",
	"bench/rig/network.go":         "reads the output of another program, for developers",
	"bench/rig/team.go":            "reads the output of another program, for developers",
}

// splitters are functions and methods that divide bytes into lines; for those of
// the second list only where a line end is given.
var (
	splitters  = []string{"bufio.NewScanner", "csv.NewReader", "strings.Lines", "bytes.Lines", ".ReadString", ".ReadLine", ".ReadBytes", ".ReadSlice"}
	splittersN = []string{"strings.Split", "strings.SplitSeq", "strings.SplitN", "bytes.Split", "bytes.SplitSeq"}
)

// Bytes of users become lines in data.LineReader alone.
func TestOneReaderOfLines(t *testing.T) {
	found := map[string]bool{}
	set := token.NewFileSet()
	err := fs.WalkDir(os.DirFS("."), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			name, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			from := ""
			if pkg, ok := name.X.(*ast.Ident); ok {
				from = pkg.Name
			}
			full, method := from+"."+name.Sel.Name, "."+name.Sel.Name
			splits := slices.Contains(splitters, full) || slices.Contains(splitters, method)
			if slices.Contains(splittersN, full) && len(call.Args) > 1 {
				var b strings.Builder
				ast.Inspect(call.Args[1], func(n ast.Node) bool {
					if lit, ok := n.(*ast.BasicLit); ok {
						b.WriteString(lit.Value)
					}
					return true
				})
				splits = b.String() == `"\n"` || b.String() == `'\n'`
			}
			if !splits {
				return true
			}
			if found[path] = true; ownLines[path] == "" {
				t.Errorf("%v: %s divides bytes into lines; use data.LineReader, so that marks, encodings, gzip and unreadable lines are treated as everywhere", set.Position(call.Pos()), full)
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range slices.Sorted(maps.Keys(ownLines)) {
		if !found[path] {
			t.Errorf("%s is listed and divides nothing into lines: take it out of the list", path)
		}
	}
}
