package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/internal/result"
	"github.com/carousel-ml/carousel/internal/settings"
)

//go:generate go test -run ^TestJSONPage$ . -update

var update = flag.Bool("update", false, "write docs/json.md")

const jsonPage = "../../docs/json.md"

// docs/json.md is what the table of schemas and the types' comments make of it.
func TestJSONPage(t *testing.T) {
	want := writeJSONPage(t)
	if *update {
		if err := os.WriteFile(jsonPage, want, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(jsonPage)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what the types say; go generate ./internal/cli writes it", jsonPage)
	}
}

const jsonIntro = `<!-- Written by go generate ./internal/cli from the types and their comments. -->
# What --json prints

With ` + "`--json`" + ` anywhere among the arguments, a command prints one JSON object on stdout and nothing else; progress and notes go to stderr.
The object's first key is ` + "`schema`" + `, which names one of the tables below: ` + "`carousel.COMMAND.vN`" + `, or where a command's result depends on the task of the model
` + "`carousel.COMMAND.TASK.vN`" + `. N rises when a key goes away or changes its meaning; keys may be added without.

- An error is an object too, ` + "`carousel.error.v1`" + `, in place of the result; the message also goes to stderr, and the exit code is as without ` + "`--json`" + `.
  A result that is not the whole, as where one of several files cannot be used, is printed with the error in it. ` + "`predict` and `transcribe`" + ` print their
  list while they compute it, so what ends them in the middle is the key ` + "`error`" + ` behind the list.
- A number that is not finite, such as the score of an empty set, is ` + "`null`" + `: a key of type number may be that where it stands. An integer never is.
- A list or object that is empty is ` + "`[]` or `{}`" + `, unless the table says that the key may be absent.
- A value may be any: text, a number, true, false, null, a list or an object.
- In the paths, ` + "`a.b`" + ` is the key b of the object a, ` + "`a[].b`" + ` of each object of the list a, and ` + "`a.*.b`" + ` of each object in a, under whatever name.
- Bytes and rows are counted from 0, lines from 1, unless the table says otherwise.
`

// writeJSONPage makes the page, and fails where a key has no meaning.
func writeJSONPage(t *testing.T) []byte {
	p := &pageWriter{t: t, comments: map[reflect.Type]map[string]string{}}
	fmt.Fprint(&p.w, jsonIntro)
	schemas := schemasOf(carousel.Tasks)
	for i := range schemas {
		s := &schemas[i]
		fmt.Fprintf(&p.w, "\n## %s\n\n%s\n\n| Key | Type | | Meaning |\n|---|---|---|---|\n", s, s.about)
		p.row("schema", "string", false, "`"+s.String()+"`")
		p.fields("", reflect.ValueOf(s.of))
		if s.mayLack() {
			p.fields("", reflect.ValueOf(lack{}))
		}
	}
	return p.w.Bytes()
}

type pageWriter struct {
	t        *testing.T
	w        bytes.Buffer
	comments map[reflect.Type]map[string]string // of a struct's fields, by their names in Go
}

func (p *pageWriter) row(path, kind string, optional bool, meaning string) {
	absent := ""
	if optional {
		absent = "may be absent"
	}
	meaning = strings.ReplaceAll(strings.Join(strings.Fields(meaning), " "), "|", `\|`)
	fmt.Fprintf(&p.w, "| `%s` | %s | %s | %s |\n", path, kind, absent, meaning)
}

// fields writes the keys of a struct's objects, whose paths begin with prefix.
func (p *pageWriter) fields(prefix string, v reflect.Value) {
	names := map[string]bool{"schema": prefix == ""}
	for _, f := range result.Fields(v.Type()) {
		x, err := v.FieldByIndexErr(f.Index)
		if err != nil {
			x = reflect.Zero(f.Go.Type)
		}
		if x.Kind() == reflect.Interface && x.IsNil() {
			continue // this schema's objects never have it
		}
		if names[f.Name] || f.Go.Tag.Get("json") == "" {
			p.t.Errorf("%v.%s: its key %q is there twice, or is not chosen", v.Type(), f.Go.Name, f.Name)
		}
		names[f.Name] = true
		meaning := p.meaning(f)
		if f.Go.Type == reflect.TypeFor[time.Duration]() {
			meaning += "; in nanoseconds"
		}
		p.value(prefix+f.Name, x, f.Optional, meaning)
	}
}

// value writes a key and those below it.
func (p *pageWriter) value(path string, v reflect.Value, optional bool, meaning string) {
	kind, at, inner := kindOf(v)
	if v.Kind() == reflect.Pointer && !optional {
		kind += " or null"
	}
	if strings.HasSuffix(path, "*") { // a map whose keys stand beside others
		p.row(path, kindOf1(reflect.Zero(v.Type().Elem())), true, meaning)
		return
	}
	p.row(path, kind, optional, meaning)
	if inner.IsValid() {
		p.fields(path+at+".", inner)
	}
}

func kindOf1(v reflect.Value) string {
	kind, _, _ := kindOf(v)
	return kind
}

var plurals = map[string]string{"string": "strings", "boolean": "booleans", "integer": "integers", "number": "numbers", "value": "values"}

func pluralOf(kind string) string {
	if s := plurals[kind]; s != "" {
		return s
	}
	first, rest, _ := strings.Cut(kind, " ")
	return strings.TrimSpace(first + "s " + rest)
}

// kindOf is a value's type in the page's words, and where it is of objects the
// way to them in a path and one of them.
func kindOf(v reflect.Value) (kind, at string, inner reflect.Value) {
	for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		if v.Type() == reflect.TypeFor[any]() && v.IsNil() {
			return "value", "", inner
		}
		if v.IsNil() {
			v = reflect.Zero(v.Type().Elem())
		} else {
			v = v.Elem()
		}
	}
	t := v.Type()
	switch {
	case t == reflect.TypeFor[time.Time](), t.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		return "string", "", inner
	case t == reflect.TypeFor[json.RawMessage]():
		return "value", "", inner
	case t.Kind() == reflect.Struct:
		return "object", "", v
	case t.Kind() == reflect.Slice || t.Kind() == reflect.Array:
		kind, at, inner = kindOf(reflect.Zero(t.Elem()))
		return "list of " + pluralOf(kind), "[]" + at, inner
	case t.Kind() == reflect.Map:
		kind, at, inner = kindOf(reflect.Zero(t.Elem()))
		return "object of " + pluralOf(kind), ".*" + at, inner
	case t.Kind() == reflect.String:
		return "string", "", inner
	case t.Kind() == reflect.Bool:
		return "boolean", "", inner
	case t.Kind() == reflect.Float32 || t.Kind() == reflect.Float64:
		return "number", "", inner
	case reflect.Int <= t.Kind() && t.Kind() <= reflect.Uint64:
		return "integer", "", inner
	}
	panic("no JSON type for " + t.String())
}

// meaning is what a setting's help says, or a field's comment.
func (p *pageWriter) meaning(f result.Field) string {
	if p.comments[f.Owner] == nil {
		p.comments[f.Owner] = fieldComments(p.t, f.Owner)
	}
	if f.Go.Tag.Get("help") != "" {
		return settings.Named(settings.List(reflect.New(f.Owner).Interface()), f.Name).Describe()
	}
	text := strings.TrimSuffix(p.comments[f.Owner][f.Go.Name], ".")
	if text == "" {
		p.t.Errorf("%v.%s has neither a comment nor a help text, so its key %q has no meaning", f.Owner, f.Go.Name, f.Name)
	}
	return text
}

// fieldComments reads the comments on a struct's fields from its source: that
// beside a field, or else that above it. Names of fields become keys.
func fieldComments(t *testing.T, of reflect.Type) map[string]string {
	const module = "github.com/carousel-ml/carousel"
	files, err := filepath.Glob(filepath.Join("../..", strings.TrimPrefix(of.PkgPath(), module), "*.go"))
	if err != nil || len(files) == 0 || !strings.HasPrefix(of.PkgPath(), module) {
		t.Fatalf("no source of %v: %v", of, err)
	}
	found := map[string]string{}
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			list, isTypes := d.(*ast.GenDecl)
			if !isTypes {
				continue
			}
			for _, s := range list.Specs {
				spec, isType := s.(*ast.TypeSpec)
				if !isType || spec.Name.Name != of.Name() || strings.HasSuffix(path, "_test.go") {
					continue
				}
				for _, f := range spec.Type.(*ast.StructType).Fields.List {
					text := f.Comment.Text()
					if text == "" {
						text = f.Doc.Text()
					}
					for _, name := range f.Names {
						found[name.Name] = strings.TrimSpace(text)
					}
				}
			}
		}
	}
	keys := map[string]string{}
	for _, f := range result.Fields(of) {
		keys[f.Go.Name] = "`" + f.Name + "`"
	}
	word := regexp.MustCompile(`\[?\b[A-Z]\w*\b\]?`)
	for name, text := range found {
		found[name] = word.ReplaceAllStringFunc(text, func(s string) string {
			bare := strings.Trim(s, "[]")
			if key := keys[bare]; key != "" {
				return key
			}
			return bare
		})
	}
	return found
}

// documented are the keys that docs/json.md lists, by schema.
type documented map[string][]documentedKey

type documentedKey struct {
	path, kind string
	optional   bool
}

// readJSONPage reads docs/json.md as a reader would.
func readJSONPage() (documented, error) {
	text, err := os.ReadFile(jsonPage)
	if err != nil {
		return nil, err
	}
	doc := documented{}
	row := regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([a-z ]+) \\| ((?:may be absent)?) \\| (.+) \\|$")
	for _, section := range strings.Split(string(text), "\n## ")[1:] {
		name, rest, _ := strings.Cut(section, "\n")
		for _, m := range row.FindAllStringSubmatch(rest, -1) {
			doc[name] = append(doc[name], documentedKey{m[1], m[2], m[3] != ""})
		}
		if rows := strings.Count(rest, "\n| `"); rows != len(doc[name]) {
			return nil, fmt.Errorf("%s: %d of %d rows of %s can be read", jsonPage, len(doc[name]), rows, name)
		}
	}
	return doc, nil
}

// check compares a command's output with the page and returns the schema's name
// and the paths of the keys that the output has.
func (doc documented) check(output string) (schema string, seen map[string]bool, err error) {
	if !strings.HasPrefix(output, `{"schema":"`) || strings.Count(output, "\n") != 1 || !strings.HasSuffix(output, "\n") {
		return "", nil, errors.New("is not one line that begins with the schema")
	}
	d := json.NewDecoder(strings.NewReader(output))
	d.UseNumber()
	var v map[string]any
	if err := d.Decode(&v); err != nil || d.More() {
		return "", nil, fmt.Errorf("is not one JSON object: %v", err)
	}
	schema, _ = v["schema"].(string)
	keys := doc[schema]
	if keys == nil {
		return schema, nil, fmt.Errorf("the schema %q is not documented", schema)
	}
	c := &checker{keys: keys, seen: map[string]bool{}}
	c.value("", "object", v)
	return schema, c.seen, errors.Join(c.wrong...)
}

type checker struct {
	keys  []documentedKey
	seen  map[string]bool
	wrong []error
}

func (c *checker) failf(format string, args ...any) {
	c.wrong = append(c.wrong, fmt.Errorf(format, args...))
}

// value checks v, which stands at path and should be of a kind.
func (c *checker) value(path, kind string, v any) {
	kind, nullable := strings.CutSuffix(kind, " or null")
	if kind == "value" {
		return
	}
	if v == nil {
		if kind != "number" && !nullable {
			c.failf("%s is null, and no %s", path, kind)
		}
		return
	}
	ok := false
	outer, inner, _ := strings.Cut(kind, " of ")
	one := strings.TrimSuffix(inner, "s")
	if first, rest, deep := strings.Cut(inner, " "); deep {
		one = strings.TrimSuffix(first, "s") + " " + rest
	}
	switch v := v.(type) {
	case string:
		ok = kind == "string"
	case bool:
		ok = kind == "boolean"
	case json.Number:
		_, err := v.Int64()
		_, unsigned := strconv.ParseUint(v.String(), 10, 64) // a seed
		ok = kind == "number" || kind == "integer" && (err == nil || unsigned == nil)
	case []any:
		if ok = outer == "list"; ok {
			for _, x := range v {
				c.value(path+"[]", one, x)
			}
		}
	case map[string]any:
		switch {
		case kind == "object":
			ok = true
			c.object(path, v)
		case outer == "object":
			ok = true
			for _, x := range v {
				c.value(path+".*", one, x)
			}
		}
	}
	if !ok {
		c.failf("%s is %v, and no %s", path, v, kind)
	}
}

// object checks that v has the keys it must have and no others.
func (c *checker) object(path string, v map[string]any) {
	known := map[string]bool{}
	for _, k := range c.keys {
		at, key := "", k.path
		if i := strings.LastIndexByte(k.path, '.'); i >= 0 {
			at, key = k.path[:i], k.path[i+1:]
		}
		if at != path {
			continue
		}
		found := false
		for name, x := range v {
			if prefix, open := strings.CutSuffix(key, "*"); name == key || open && strings.HasPrefix(name, prefix) {
				known[name], found = true, true
				c.seen[k.path] = true
				c.value(k.path, k.kind, x)
			}
		}
		if !found && !k.optional {
			c.failf("%s is missing", k.path)
		}
	}
	for name := range v {
		if !known[name] {
			c.failf("%s has the key %q, which is not documented", cmp.Or(path, "the object"), name)
		}
	}
}

// What evaluates or predicts with a model says of which task that is.
func TestJSONNamesTask(t *testing.T) {
	doc, err := readJSONPage()
	if err != nil {
		t.Fatal(err)
	}
	for name, keys := range doc {
		verb := strings.Split(name, ".")[1]
		if !slices.Contains([]string{"train", "evaluate", "predict", "generate", "score", "transcribe"}, verb) {
			continue
		}
		if !slices.ContainsFunc(keys, func(k documentedKey) bool { return k.path == "task" && k.kind == "string" && !k.optional }) {
			t.Errorf("%s has no key task", name)
		}
	}
}

// fill gives every field below v that JSON has a value: x to the numbers, one
// element to lists and objects.
func fill(v reflect.Value, x float64) {
	switch v.Kind() {
	case reflect.Pointer:
		one := reflect.New(v.Type().Elem())
		if !v.IsNil() {
			one.Elem().Set(v.Elem()) // whose fields of interface types say what is theirs
		}
		fill(one.Elem(), x)
		v.Set(one)
	case reflect.Interface:
		if !v.IsNil() {
			inner := reflect.New(v.Elem().Type())
			fill(inner.Elem(), x)
			v.Set(inner)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1, 0).UTC()))
			return
		}
		for i := range v.NumField() {
			if f := v.Type().Field(i); (f.IsExported() || f.Anonymous) && f.Tag.Get("json") != "-" {
				fill(v.Field(i), x)
			}
		}
	case reflect.Slice:
		if v.Type() == reflect.TypeFor[json.RawMessage]() {
			v.SetBytes([]byte(`"a"`))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), x)
	case reflect.Map:
		one := reflect.New(v.Type().Elem()).Elem()
		fill(one, x)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("a <b>").Convert(v.Type().Key()), one)
	case reflect.Float32, reflect.Float64:
		v.SetFloat(x)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString("a <b>\n\xff")
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(-1)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(math.MaxUint64 >> (64 - v.Type().Bits()))
	}
}

// What is printed of each schema is as documented: with nothing in it, with
// something in each key, and with numbers that JSON has not.
func TestJSONSchemas(t *testing.T) {
	doc, err := readJSONPage()
	if err != nil {
		t.Fatal(err)
	}
	schemas := schemasOf(carousel.Tasks)
	if len(doc) != len(schemas) {
		t.Errorf("%d schemas are documented, and %d in the table", len(doc), len(schemas))
	}
	for i := range schemas {
		s := &schemas[i]
		show := func(x float64, full bool) string {
			v := reflect.New(reflect.TypeOf(s.of))
			if v.Elem().Set(reflect.ValueOf(s.of)); full {
				fill(v.Elem(), x)
			}
			var out bytes.Buffer
			a := &app{kinds: carousel.Tasks, stdout: &out, json: true}
			var failed error
			if full && s.mayLack() {
				failed = &data.InputError{File: "a", Line: 1, Column: "b", Problem: "c", Fix: "d"}
			}
			if err := a.emitBeside(failed, s.name, v.Interface(), nil); err != nil {
				t.Fatalf("%s: %v", s, err)
			}
			return out.String()
		}
		for _, c := range []struct {
			x    float64
			full bool
		}{{0, false}, {0.5, true}, {math.NaN(), true}, {math.Inf(-1), true}} {
			name, seen, err := doc.check(show(c.x, c.full))
			if err != nil || name != s.String() {
				t.Errorf("%s, numbers %v: %s: %v", s, c.x, name, err)
			}
			for _, k := range doc[s.String()] {
				if c.full && c.x == 0.5 && !seen[k.path] && !(s.mayLack() && strings.HasPrefix(k.path, "error.")) {
					t.Errorf("%s: %s is documented and never printed", s, k.path)
				}
			}
		}
	}
}

func TestJSONTable(t *testing.T) {
	var out bytes.Buffer
	a := &app{kinds: carousel.Tasks, stdout: &out}
	for name, v := range map[string]any{"no such": &versionInfo{}, "version": &problem{}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%T goes as %q", v, name)
				}
			}()
			a.emit(name, v, func(io.Writer) {})
		}()
	}
}

func TestAppendJSON(t *testing.T) {
	type inner struct {
		B int `json:"b"`
	}
	v := struct {
		*inner `json:",omitempty"`
		F      float32            `json:"f"`
		S      string             `json:"s"`
		L      []float64          `json:"l"`
		M      map[string]float64 `json:"m"`
		N      *inner             `json:"n"`
		O      *inner             `json:"o,omitempty"`
		Z      []int              `json:"z,omitzero"`
		At     time.Time          `json:"at"`
		Hidden int                `json:"-"`
	}{F: 0.1, S: "<é>\"", Z: []int{}, M: map[string]float64{"b": math.Inf(1), "a": 1e-9}}
	got, err := result.AppendValue(nil, reflect.ValueOf(v))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"f":0.1,"s":"<é>\"","l":[],"m":{"a":1e-9,"b":null},"n":null,"z":[],"at":"0001-01-01T00:00:00Z"}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// jsonRun runs a command that must print one documented object.
func jsonRun(t *testing.T, doc documented, stdin string, args ...string) (schema string, seen map[string]bool, code int, stdout string) {
	t.Helper()
	var out, log bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(stdin), &out, &log)
	schema, seen, err := doc.check(out.String())
	if err != nil {
		t.Errorf("%s: %v\nstdout: %.2000s\nstderr: %s", strings.Join(args, " "), err, out.String(), log.String())
	}
	return schema, seen, code, out.String()
}

// thaiSegmenter is a model of one letter, which scores nothing.
const thaiSegmenter = `{"model": "made up", "dic": {"ก": 0}, "mat1": {"dim": [2, 1], "data": [0, 0]},
	"mat2": {"dim": [1, 4], "data": [0, 0, 0, 0]}, "mat3": {"dim": [1, 4], "data": [0, 0, 0, 0]}, "mat4": {"dim": [4], "data": [0, 0, 0, 0]},
	"mat5": {"dim": [1, 4], "data": [0, 0, 0, 0]}, "mat6": {"dim": [1, 4], "data": [0, 0, 0, 0]}, "mat7": {"dim": [4], "data": [0, 0, 0, 0]},
	"mat8": {"dim": [2, 4], "data": [0, 0, 0, 0, 0, 0, 0, 0]}, "mat9": {"dim": [4], "data": [0, 0, 0, 0]}}`

// Every command of every task prints what is documented.
func TestJSONCommands(t *testing.T) {
	doc, err := readJSONPage()
	if err != nil {
		t.Fatal(err)
	}
	torch, err := filepath.Abs("../../model/torch/testdata/torch1/checkpoint.pth")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	t.Cleanup(func() { par.SetWorkers(0) })
	write := func(name, text string) {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("hours.csv", string(madeUp(300, "")))
	write("texts.csv", "text,label\n"+strings.Repeat("a good film,pos\na poor film,neg\n", 6))
	write("book.txt", strings.Repeat("the cat sat on the mat\n", 40))
	write("unknown.txt", "a quite new 字 is here\n")
	write("tags.conll", strings.Repeat("Ada B-PER\nsees O\nNew B-LOC\nYork I-LOC\n\n", 6))
	write("pairs.tsv", "source\ttarget\n"+strings.Repeat("a b\tA B\nb c\tB C\n", 8))
	said, labels := "audio,text\n", "audio,label\n"
	for i, letters := range []string{"ab", "ba", "abb", "bab"} {
		write(fmt.Sprint(i, ".wav"), string(tones(letters)))
		said += fmt.Sprintf("%d.wav,%s\n", i, letters)
		labels += fmt.Sprintf("%d.wav,%s\n", i, letters[:1])
	}
	write("said.csv", said)
	write("labels.csv", labels)
	write("lr.yaml", "lr: {low: 1e-4, high: 1e-1, log: true, default: 1e-3}\n")
	if err := os.WriteFile("lr.sh", []byte("#!/bin/sh\necho \"$CAROUSEL_PARAMS\" | tr -dc '0-9.e-'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	write("w.rnn", string(rnnoise()))
	write("thai.json", thaiSegmenter)
	write("g2p.npz", string(pronouncer()))
	cut := string(tones("abc")[:6000])
	write("sums.onnx", string(onnxGraph("sums")))
	write("linear.onnx", string(onnxGraph("linear")))
	server, _ := inputsServer(t, false, true)
	if err := writeDetectors("detectors"); err != nil {
		t.Fatal(err)
	}

	printed := map[string]map[string]bool{}
	for _, c := range []struct{ schema, line, stdin string }{
		{"version", "version", ""},
		{"text", "train forecast --help", ""},
		{"text", "explain", ""},
		{"text", "completion bash", ""},

		{"train.forecast", "train forecast --data hours.csv --time time --target y,x --window 24 --horizon 6 --hidden 4 --epochs 1 --loss quantile --out f", ""},
		{"evaluate.forecast", "evaluate f --data hours.csv", ""},
		{"predict.forecast", "predict f --data hours.csv", ""},
		{"predict.forecast", "predict f --data hours.csv --out f.csv", ""},
		{"find-lr", "find-lr forecast --data hours.csv --time time --target y --window 24 --horizon 6 --hidden 4 --layers 1 --steps 20 --out lr", ""},
		{"find-batch", "find-batch forecast --data hours.csv --time time --target y --window 24 --horizon 6 --hidden 4 --layers 1", ""},
		{"backtest", "backtest f --data hours.csv --stride 24", ""},
		{"detect-anomalies", "detect-anomalies f --data hours.csv --rate 0.2", ""},
		{"inspect.forecast", "inspect f", ""},
		{"inspect", "inspect f/model.safetensors", ""},

		{"train.classify", "train classify --data texts.csv --hidden 4 --embedding 4 --epochs 1 --min-count 1 --out c", ""},
		{"evaluate.classify", "evaluate c --data texts.csv --split-part all", ""},
		{"predict.classify", "predict c --input a_good_film --explain", ""},
		{"inspect.classify", "inspect c", ""},

		{"train.generate", "train generate --data book.txt --split 0.6,0.2,0.2 --hidden 4 --epochs 1 --out g", ""},
		{"train.generate", "train generate --data book.txt --hidden 4 --epochs 1 --out g2", ""},
		{"evaluate.generate", "evaluate g --data book.txt --split-part all", ""},
		{"evaluate.generate", "evaluate g --data unknown.txt", ""},
		{"predict.generate", "predict g --data - --max-tokens 5", "the\na\n"},
		{"generate", "generate g --prompt the --max-tokens 5 --samples 2", ""},
		{"score", "score g --prompt the --continuation cat --continuation mat", ""},
		{"inspect.generate", "inspect g", ""},

		{"train.tag", "train tag --data tags.conll --hidden 4 --embedding 4 --char-hidden 2 --epochs 1 --min-count 1 --out t", ""},
		{"evaluate.tag", "evaluate t --data tags.conll --split-part all", ""},
		{"predict.tag", "predict t --input Ada --n-best 2", ""},
		{"predict.tag", "predict t --data tags.conll", ""},
		{"inspect.tag", "inspect t", ""},

		{"train.translate", "train translate --data pairs.tsv --tokens space --min-count 1 --hidden 4 --embedding 4 --epochs 1 --warmup 0.1 --holdout 0.2 --out x", ""},
		{"evaluate.translate", "evaluate x --data pairs.tsv --long 2", ""},
		{"predict.translate", "predict x --input a --n-best 2 --picture map.png", ""},
		{"inspect.translate", "inspect x", ""},

		{"train.transcribe", "train transcribe --data said.csv --hidden 4 --layers 1 --bands 12 --epochs 1 --holdout 0.25 --bidirectional=false --out s", ""},
		{"evaluate.transcribe", "evaluate s --data said.csv --beam 4", ""},
		{"predict.transcribe", "predict s --data said.csv", ""},
		{"transcribe", "transcribe s 0.wav --n-best 2", ""},
		{"transcribe", "transcribe s 0.wav gone.wav", ""},
		{"transcribe.stream", "transcribe s -", string(tones("ab"))},
		{"transcribe.stream", "transcribe s -", cut},
		{"inspect.transcribe", "inspect s", ""},

		{"train.keywords", "train keywords --data labels.csv --hidden 4 --layers 1 --bands 12 --epochs 1 --test labels.csv --out a", ""},
		{"evaluate.keywords", "evaluate a --data labels.csv", ""},
		{"predict.keywords", "predict a --data labels.csv", ""},
		{"inspect.keywords", "inspect a", ""},

		{"run", "run sums.onnx --input x=[[1,2]] --input h=zeros --input scale=3", ""},
		{"loadtest", "loadtest " + server + " --model m --shape x=1,1,2 --omit t --requests 30 --warmup 0", ""},
		{"inspect.onnx", "inspect sums.onnx", ""},
		{"quantize", "quantize c --out c8 --force --keep head", ""},
		{"quantize.onnx", "quantize linear.onnx --out linear8.onnx --force", ""},
		{"denoise", "denoise 0.wav --model w.rnn --out clean.wav", ""},
		{"segment", "segment book.txt --segmenter thai.json", ""},
		{"g2p", "g2p a word --model g2p.npz", ""},
		{"detect-speech", "detect-speech 0.wav --model detectors/vad.onnx --min-speech-duration-ms 0 --page p.html", ""},
		{"detect-speech", "detect-speech - --model detectors/vad.onnx --min-speech-duration-ms 0", cut},
		{"detect-words", "detect-words 0.wav --models detectors/words", ""},
		{"detect-words", "detect-words - --models detectors/words --threshold 0", cut},

		{"tune.forecast", "tune forecast --data hours.csv --time time --target y --window 24 --horizon 6 --hidden 4 --epochs 1 --trials 2 --space lr.yaml --out tf", ""},
		{"tune.classify", "tune classify --data texts.csv --hidden 4 --embedding 4 --epochs 1 --min-count 1 --valid texts.csv --trials 1 --space lr.yaml --study tc.db", ""},
		{"tune.generate", "tune generate --data book.txt --valid book.txt --hidden 4 --epochs 1 --trials 1 --space lr.yaml --study tg.db", ""},
		{"tune.tag", "tune tag --data tags.conll --hidden 4 --embedding 4 --char-hidden 2 --epochs 1 --min-count 1 --valid tags.conll --trials 1 --space lr.yaml --study tt.db", ""},
		{"tune.translate", "tune translate --data pairs.tsv --tokens space --min-count 1 --hidden 4 --embedding 4 --epochs 1 --warmup 0.1 --holdout 0.2 --trials 1 --space lr.yaml --study tx.db", ""},
		{"tune.transcribe", "tune transcribe --data said.csv --hidden 4 --layers 1 --bands 12 --epochs 1 --holdout 0.25 --bidirectional=false --trials 1 --space lr.yaml --study ts.db", ""},
		{"tune.keywords", "tune keywords --data labels.csv --hidden 4 --layers 1 --bands 12 --epochs 1 --holdout 0.25 --trials 1 --space lr.yaml --study ta.db", ""},
		{"tune.command", "tune --command ./lr.sh --space lr.yaml --trials 12 --pruner none --study to.db", ""},
		{"tune.show", "tune show --study tf/study.db", ""},
		{"tune.export", "tune export --study tf/study.db", ""},
		{"tune.best", "tune best --study tf/study.db", ""},
		{"tune.importance", "tune importance --study to.db", ""},

		{"import", "import " + torch + " --out imported", ""},
		{"inspect", "inspect imported", ""},
		{"export", "export imported --out w.safetensors", ""},
		{"explain.gradients.adding", "explain gradients --length 10 --hidden 2 --steps 1", ""},
		{"explain.gradients.model", "explain gradients f --data hours.csv --rows 2", ""},
		{"explain.gradients.model", "explain gradients g --data book.txt --rows 2", ""},
		{"explain.gradients.model", "explain gradients s --data said.csv --rows 2", ""},
		{"explain.gradients.model", "explain gradients a --data labels.csv --rows 2", ""},
		{"doctor", "doctor", ""},
		{"explain.memory", "explain memory --problem adding --length 8 --hidden 4 --steps 2 --cells gru", ""},
	} {
		args := append(strings.Fields(c.line), "--json", "--quiet")
		name, seen, code, out := jsonRun(t, doc, c.stdin, args...)
		wantCode := exitOK
		if strings.Contains(out, `"exit":2`) && c.schema != "error" {
			wantCode = exitMisuse // a result that is not the whole
		}
		if want := fmt.Sprintf("carousel.%s.v1", c.schema); name != want || code != wantCode {
			t.Errorf("%s: exit %d with %s, want %d with %s: %.500s", c.line, code, name, wantCode, want, out)
		}
		if printed[c.schema] == nil {
			printed[c.schema] = map[string]bool{}
		}
		maps.Copy(printed[c.schema], seen)
	}
	// Of each schema a key that is always there was seen, so no list was empty
	// throughout. bench takes long; demo and serve have tests of their own.
	schemas := schemasOf(carousel.Tasks)
	for i := range schemas {
		s := &schemas[i]
		if slices.Contains([]string{"error", "demo", "bench", "serve"}, s.name) {
			continue
		}
		if printed[s.name] == nil {
			t.Errorf("no command printed %s", s)
			continue
		}
		for _, k := range doc[s.String()] {
			if !k.optional && !printed[s.name][k.path] && !belowOptional(doc[s.String()], k.path) {
				t.Errorf("%s: no command printed %s", s, k.path)
			}
		}
	}
}

// belowOptional reports whether a key stands below one that may be absent.
func belowOptional(keys []documentedKey, path string) bool {
	return slices.ContainsFunc(keys, func(k documentedKey) bool {
		rest, below := strings.CutPrefix(path, k.path)
		return below && k.optional && (strings.HasPrefix(rest, ".") || strings.HasPrefix(rest, "["))
	})
}

// An error is one object on stdout, whatever failed, and the line on stderr.
func TestJSONErrors(t *testing.T) {
	doc, err := readJSONPage()
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{"bad.csv": "time,y\n2024-01-01,1\n2024-01-02,one\n", "weights.safetensors": "short"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		line string
		want problem // Error is a part of it
	}{
		{"--json", problem{}}, // help is no error
		{"trian --json", problem{Error: `unknown command "trian"`, Exit: 2}},
		{"train forcast --json", problem{Error: `unknown command "forcast"`, Exit: 2}},
		{"version --jsno --json", problem{Error: "unknown flag --jsno", Flag: "jsno", Exit: 2}},
		{"version --threads many --json=true", problem{Error: "--threads: want a whole number", Flag: "threads", Exit: 2}},
		{"version --json --threads", problem{Error: "--threads needs a value", Flag: "threads", Exit: 2}},
		{"version --json=maybe", problem{Error: "--json: want true or false", Flag: "json", Exit: 2}},
		{"version more --json", problem{Error: "carousel version takes flags only", Exit: 2}},
		{"inspect gone --json", problem{Error: "gone: ", File: "gone", Exit: 2}},
		{"inspect weights.safetensors --json", problem{Error: "weights.safetensors: ", File: "weights.safetensors", Exit: 2}},
		{"train forecast --data bad.csv --time time --target y --out x --json", problem{Error: "bad.csv: line 3: column", File: "bad.csv", Line: 3, Column: "y", Exit: 2}},
		{"train forecast --data gone.csv --time time --target y --out x --json", problem{Error: "gone.csv: ", File: "gone.csv", Exit: 2}},
		{"train forecast --json", problem{Error: "train forecast needs --data", Exit: 2}},
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), strings.Fields(c.line), nil, &stdout, &stderr)
		name, _, err := doc.check(stdout.String())
		if err != nil || code != c.want.Exit {
			t.Errorf("%s: exit %d, %v: %s", c.line, code, err, stdout.String())
		}
		if c.want.Exit == 0 {
			if name != "carousel.text.v1" || stderr.Len() > 0 {
				t.Errorf("%s: %s, stderr %q", c.line, name, stderr.String())
			}
			continue
		}
		var got problem
		if err := json.Unmarshal(stdout.Bytes(), &got); err != nil || name != "carousel.error.v1" {
			t.Errorf("%s: %s, %v", c.line, name, err)
		}
		if line := "carousel: " + got.Error + "\n"; !strings.HasPrefix(got.Error, c.want.Error) || stderr.String() != line {
			t.Errorf("%s: error %q, want %q...; stderr %q", c.line, got.Error, c.want.Error, stderr.String())
		}
		got.Error, got.Fix = c.want.Error, "" // the page has a word on Fix
		if got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.line, got, c.want)
		}
	}

	// A run that Ctrl-C ends, and a mistake of the program's.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout, stderr bytes.Buffer
	if code := run(ctx, []string{"explain", "gradients", "--json"}, nil, &stdout, &stderr); code != exitInterrupted ||
		stdout.String() != `{"schema":"carousel.error.v1","error":"interrupted; nothing was written","exit":130}`+"\n" {
		t.Errorf("interrupted: exit %d, %s", code, stdout.String())
	}
	stdout.Reset()
	a := &app{kinds: carousel.Tasks, stdout: &stdout, json: true}
	a.printProblem(errors.New("internal error: index out of\nrange"))
	a.printProblem(errors.New("another"))
	if want := `{"schema":"carousel.error.v1","error":"internal error: index out of range","exit":1}` + "\n"; stdout.String() != want {
		t.Errorf("got %s, want %s", stdout.String(), want)
	}

	// Words that only look like the flag, and commands whose words are not flags.
	for line, want := range map[string]bool{"a --json": true, "--json=1 a": true, "a --json=no": true, "a --json=false": false, "a -- --json": false, "launch -- a --json": true, "launch -- a -- --json": false, "a --jsonx": false, "__complete a --json": false} {
		if got := asksForJSON(strings.Fields(line)); got != want {
			t.Errorf("%s: %v", line, got)
		}
	}
	stdout.Reset()
	if code := run(t.Context(), []string{"score", "gone", "--prompt", "--json"}, nil, &stdout, &stderr); code != exitMisuse || stdout.Len() > 0 {
		t.Errorf("the value of another flag made JSON: %s", stdout.String())
	}
}

// signalled is standard input at whose first reading Ctrl-C comes, and nothing else.
type signalled struct{}

func (signalled) Read([]byte) (int, error) {
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Signal(os.Interrupt)
	}
	if err != nil {
		return 0, err
	}
	select {}
}

// Ctrl-C ends commands that do not catch it too, with an object on stdout.
func TestJSONInterrupt(t *testing.T) {
	const variable = "CAROUSEL_TEST_INTERRUPT" // set in the process that is to be ended
	if dir := os.Getenv(variable); dir != "" {
		os.Exit(Main([]string{"predict", dir, "--data", "-", "--json"}, signalled{}, os.Stdout, os.Stderr))
	}
	if runtime.GOOS == "windows" {
		t.Skip("a process cannot send itself Ctrl-C")
	}
	dir := t.TempDir()
	texts, model := filepath.Join(dir, "texts.csv"), filepath.Join(dir, "run")
	if err := os.WriteFile(texts, []byte("text,label\n"+strings.Repeat("a good film,pos\na poor film,neg\n", 6)), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"train", "classify", "--data", texts, "--hidden", "4", "--embedding", "4", "--epochs", "1", "--out", model}, nil, &stdout, &stderr); code != exitOK {
		t.Fatalf("exit %d: %s", code, stderr.String())
	}
	c := exec.Command(os.Args[0], "-test.run=^TestJSONInterrupt$")
	c.Env = append(os.Environ(), variable+"="+model)
	stderr.Reset()
	c.Stderr = &stderr
	out, err := c.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted || stderr.String() != "carousel: interrupted\n" ||
		string(out) != `{"schema":"carousel.error.v1","error":"interrupted","exit":130}`+"\n" {
		t.Errorf("%v: stdout %s, stderr %s", err, out, stderr.String())
	}
}

// run is Main under a context of the test's, which takes the place of signals.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return (&app{kinds: carousel.Tasks, args: args, stdin: stdin, stdout: stdout, stderr: stderr}).run(ctx)
}
