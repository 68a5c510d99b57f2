package cli

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/carousel-ml/carousel/internal/bench"
	"github.com/carousel-ml/carousel/internal/explain"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/task/forecast"
	"github.com/carousel-ml/carousel/task/generate"
	"github.com/carousel-ml/carousel/task/transcribe"
)

// schema is a kind of JSON object that the command prints. Removing a
// key or changing its meaning raises the version.
type schema struct {
	name    string
	version int
	of      any // a value of its type; fields of interface types hold values of theirs
	about   string
}

// schemasOf returns all schemas of a command with these tasks; emit prints only
// these. docs/json.md is written from this table and the types' comments.
func schemasOf(kinds []*task.Kind) []schema {
	all := slices.Clone(commonSchemas)
	for _, k := range kinds {
		all = append(all,
			schema{"train." + k.Name, 1, trainResult{Evaluation: pointed(k.Evaluation)}, fmt.Sprintf("`train %s`", k.Name)},
			schema{"evaluate." + k.Name, 1, pointed(k.Evaluation), fmt.Sprintf("`evaluate` with %s.", k.Noun)},
			schema{"predict." + k.Name, 1, pointed(k.Prediction), fmt.Sprintf("`predict` with %s.", k.Noun)},
			schema{"inspect." + k.Name, 1, inspection{Config: reflect.ValueOf(k.Config()).Elem().Interface(), Data: k.Wants}, fmt.Sprintf("`inspect` of %s.", k.Noun)})
	}
	return all
}

// pointed is the zero value of what a pointer points to.
func pointed(v any) any {
	if t := reflect.TypeOf(v); t.Kind() == reflect.Pointer {
		return reflect.Zero(t.Elem()).Interface()
	}
	return v
}

// commonSchemas are the schemas of commands without a task.
var commonSchemas = []schema{
	{"error", 1, problem{}, "Any command that fails, in place of its result."},
	{"text", 1, printedText{}, "Help, and other text for people or shells that a command prints in place of a result."},

	{"demo", 1, trainResult{Evaluation: forecast.Evaluation{}}, "`demo`: the training of its model."},

	{"backtest", 1, forecast.Evaluation{}, "`backtest`"},
	{"detect-anomalies", 1, forecast.Anomalies{}, "`detect-anomalies`"},
	{"generate", 1, generate.Predictions{}, "`generate`"},
	{"score", 1, scoring{}, "`score`"},
	{"transcribe", 1, transcribe.Transcripts{}, "`transcribe` of files."},
	{"transcribe.stream", 1, streamed{Transcript: &transcribe.Transcript{}}, "`transcribe` of standard input."},
	{"denoise", 1, denoised{}, "`denoise`"},
	{"segment", 1, segmented{}, "`segment`"},
	{"detect-speech", 1, speechFound{}, "`detect-speech`"},
	{"detect-words", 1, wordsFound{}, "`detect-words`"},
	{"g2p", 1, pronounced{}, "`g2p`"},
	{"import", 1, exchanged{}, "`import`"},
	{"export", 1, exchanged{}, "`export`"},

	{"run", 1, graphResult{}, "`run`"},
	{"loadtest", 1, loadtestResult{}, "`loadtest`"},

	{"inspect.onnx", 1, graphInspection{}, "`inspect` of an ONNX file."},
	{"inspect", 1, inspection{}, "`inspect` of a file of weights, or of a model of no task that has settings: weights from elsewhere, a memory benchmark."},

	{"explain.gradients.adding", 1, explain.Study{}, "`explain gradients` without a model: networks on the adding problem."},
	{"explain.gradients.model", 1, explain.Flow{}, "`explain gradients` of a model."},
	{"explain.memory", 1, memoryTable{}, "`explain memory`"},
	{"bench", 1, bench.Report{}, "`bench`"},
	{"version", 1, versionInfo{}, "`version`"},
}

// String is the value of an object's key "schema".
func (s *schema) String() string { return fmt.Sprintf("carousel.%s.v%d", s.name, s.version) }

// schemaOf is the schema of that name, which must be v's.
func (a *app) schemaOf(name string, v any) *schema {
	schemas := schemasOf(a.kinds)
	i := slices.IndexFunc(schemas, func(s schema) bool { return s.name == name })
	if i < 0 {
		panic(fmt.Sprintf("cli: a result of schema %q, which is not in the table", name))
	}
	if got, want := reflect.Indirect(reflect.ValueOf(v)).Type(), reflect.TypeOf(schemas[i].of); got != want {
		panic(fmt.Sprintf("cli: a result of schema %q is %v, and the table says %v", name, got, want))
	}
	return &schemas[i]
}

// printedText is text that is not a result.
type printedText struct {
	Text string `json:"text"` // as it is printed without --json
}

// lack is the last key of a result that is printed beside an error.
type lack struct {
	Error *problem `json:"error,omitempty"` // why the result is not the whole, such as which of several files cannot be used; absent where it is
}

// mayLack reports whether a result may be printed beside an error: those that are
// written in parts, and those of lines, may.
func (s *schema) mayLack() bool {
	return strings.HasPrefix(s.name, "predict.") || strings.HasPrefix(s.name, "transcribe") ||
		slices.Contains([]string{"segment", "g2p", "detect-speech", "detect-words"}, s.name)
}

// errSecond refuses an object after another, such as a result just after Ctrl-C.
var errSecond = errors.New("a second object for stdout")

// object is v as one object and a line break. failed, if not nil, is why v is not the
// whole result.
func (a *app) object(name string, v any, failed error) ([]byte, error) {
	text := fmt.Appendf(nil, `{"schema":%q`, a.schemaOf(name, v))
	text, err := appendFields(text, reflect.Indirect(reflect.ValueOf(v)))
	if err != nil {
		return nil, fmt.Errorf("result as JSON: %w", err)
	}
	if failed != nil {
		if text, err = appendFields(text, reflect.ValueOf(lack{problemOf(failed)})); err != nil {
			return nil, err
		}
	}
	return append(text, "}\n"...), nil
}

// printJSON writes an object on stdout, in a piece: an error leaves nothing there.
func (a *app) printJSON(name string, v any, failed error) error {
	text, err := a.object(name, v, failed)
	if err != nil {
		return err
	}
	a.printing.Lock()
	defer a.printing.Unlock()
	if a.printed {
		return errSecond
	}
	a.printed = true
	_, err = a.stdout.Write(text)
	return err
}

// begunObject is an object on stdout whose list is not complete.
type begunObject struct {
	rest     reflect.Value // the last part, which has the fields behind the list
	list     int           // of its fields, the list
	elements int           // of the list so far
}

var errNoneBegun = errors.New("no object has begun")

// printPart writes a part of a result of the schema of that name on stdout: the first
// begins the object, and of the others the elements of the last list of structs are
// added. endParts ends it.
func (a *app) printPart(name string, v any) error {
	schema := a.schemaOf(name, v)
	a.printing.Lock()
	defer a.printing.Unlock()
	x := reflect.Indirect(reflect.ValueOf(v))
	fields := jsonFields(x.Type())
	var text []byte
	var err error
	if a.begun == nil {
		if a.printed {
			return errSecond
		}
		list := len(fields) // none: all fields are written now
		for i, f := range fields {
			if t := f.field.Type; t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct && !f.optional {
				list = i
			}
		}
		a.begun = &begunObject{list: list}
		text, err = appendSome(fmt.Appendf(nil, `{"schema":%q`, schema), x, fields[:list])
		if list < len(fields) {
			text = fmt.Appendf(text, `,%q:[`, fields[list].name)
		}
	}
	a.begun.rest = x
	if a.begun.list < len(fields) {
		elements := x.FieldByIndex(fields[a.begun.list].index)
		for i := 0; i < elements.Len() && err == nil; i++ {
			if a.begun.elements++; a.begun.elements > 1 {
				text = append(text, ',')
			}
			text, err = appendJSON(text, elements.Index(i))
		}
	}
	if err != nil {
		return fmt.Errorf("result as JSON: %w", err)
	}
	a.printed = true
	_, err = a.stdout.Write(text)
	return err
}

// endParts ends the object that printPart has begun; failed, if not nil, is why it is not
// the whole. Its error is errNoneBegun, or that of writing.
func (a *app) endParts(failed error) error {
	a.printing.Lock()
	defer a.printing.Unlock()
	if a.begun == nil || !a.printed {
		return errNoneBegun
	}
	x := a.begun.rest
	fields := jsonFields(x.Type())
	var text []byte
	var err error
	if a.begun.list < len(fields) {
		text, err = appendSome([]byte("]"), x, fields[a.begun.list+1:])
	}
	if err == nil && failed != nil {
		text, err = appendFields(text, reflect.ValueOf(lack{problemOf(failed)}))
	}
	if err != nil {
		return err
	}
	a.begun = nil
	_, err = a.stdout.Write(append(text, "}\n"...))
	return err
}

// jsonField is a field of a struct that JSON has, be it an embedded struct's.
type jsonField struct {
	name      string
	index     []int // for reflect.Value.FieldByIndex
	field     reflect.StructField
	owner     reflect.Type // the struct that declares it
	omitEmpty bool
	omitZero  bool
	optional  bool // it may be absent
}

// jsonFields are those that encoding/json would write, in order. An embedded
// pointer that may be nil says so with the option omitempty, which encoding/json
// passes over there.
func jsonFields(t reflect.Type) []jsonField {
	var list []jsonField
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		one := jsonField{
			name: name, index: f.Index, field: f, owner: t,
			omitEmpty: strings.Contains(options, "omitempty"), omitZero: strings.Contains(options, "omitzero"),
		}
		one.optional = one.omitEmpty || one.omitZero
		if f.Anonymous && name == "" {
			inner := f.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			for _, g := range jsonFields(inner) {
				g.index, g.optional = append(slices.Clone(f.Index), g.index...), g.optional || one.optional
				list = append(list, g)
			}
			continue
		}
		if name == "-" || !f.IsExported() {
			continue
		}
		if name == "" {
			one.name = f.Name
		}
		list = append(list, one)
	}
	return list
}

// appendFields writes the fields of a struct, each behind a comma.
func appendFields(b []byte, v reflect.Value) ([]byte, error) {
	return appendSome(b, v, jsonFields(v.Type()))
}

// appendSome is appendFields for some of them.
func appendSome(b []byte, v reflect.Value, fields []jsonField) ([]byte, error) {
	var err error
	for _, f := range fields {
		x, none := v.FieldByIndexErr(f.index)
		if none != nil || f.omitEmpty && isEmpty(x) || f.omitZero && x.IsZero() {
			continue
		}
		b = fmt.Appendf(b, `,%q:`, f.name)
		if b, err = appendJSON(b, x); err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return b, nil
}

func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map, reflect.String:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}

// appendJSON writes a value as encoding/json does, but a number that is not
// finite, which JSON has none for, as null, and an empty list as such where Go's
// is nil.
func appendJSON(b []byte, v reflect.Value) ([]byte, error) {
	if k := v.Kind(); k == reflect.Pointer || k == reflect.Interface {
		if v.IsNil() {
			return append(b, "null"...), nil
		}
		return appendJSON(b, v.Elem())
	}
	switch v.Interface().(type) {
	case json.Marshaler, encoding.TextMarshaler:
		return appendLeaf(b, v.Interface())
	}
	var err error
	switch v.Kind() {
	case reflect.Float32, reflect.Float64:
		if x := v.Float(); math.IsNaN(x) || math.IsInf(x, 0) {
			return append(b, "null"...), nil
		}
	case reflect.Struct:
		at := len(b)
		if b, err = appendFields(b, v); err != nil {
			return nil, err
		}
		if len(b) == at {
			return append(b, "{}"...), nil
		}
		b[at] = '{' // in place of the first comma
		return append(b, '}'), nil
	case reflect.Slice, reflect.Array:
		b = append(b, '[')
		for i := range v.Len() {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendJSON(b, v.Index(i)); err != nil {
				return nil, fmt.Errorf("%d: %w", i, err)
			}
		}
		return append(b, ']'), nil
	case reflect.Map:
		b = append(b, '{')
		values := map[string]reflect.Value{}
		for k, x := range v.Seq2() {
			values[k.String()] = x
		}
		for i, k := range slices.Sorted(maps.Keys(values)) {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendLeaf(b, k); err != nil {
				return nil, err
			}
			if b, err = appendJSON(append(b, ':'), values[k]); err != nil {
				return nil, fmt.Errorf("%s: %w", k, err)
			}
		}
		return append(b, '}'), nil
	}
	return appendLeaf(b, v.Interface())
}

// appendLeaf leaves a value to encoding/json.
func appendLeaf(b []byte, v any) ([]byte, error) {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return append(b, bytes.TrimSuffix(text.Bytes(), []byte("\n"))...), nil
}

// asksForJSON reports whether --json is among the arguments, which must be known
// even if they cannot be parsed. Shell completion quotes a command line
// that may have it.
func asksForJSON(args []string) bool {
	if len(args) > 0 && strings.HasPrefix(args[0], "__complete") {
		return false
	}
	asked := false
	for _, arg := range args {
		value, given := strings.CutPrefix(arg, "--json=")
		switch {
		case arg == "--":
			return asked
		case arg == "--json":
			asked = true
		case given:
			yes, err := strconv.ParseBool(value)
			asked = yes || err != nil
		}
	}
	return asked
}
