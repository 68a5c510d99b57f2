package cli

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/carousel-ml/carousel/internal/bench"
	"github.com/carousel-ml/carousel/internal/explain"
	"github.com/carousel-ml/carousel/internal/result"
	"github.com/carousel-ml/carousel/quantize"
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
			schema{"tune." + k.Name, 1, tuneResult{Model: &trainResult{Evaluation: pointed(k.Evaluation)}}, fmt.Sprintf("`tune %s`", k.Name)},
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

	{"find-lr", 1, rateFound{}, "`find-lr`; also the file lr.json in `--out`."},
	{"find-batch", 1, batchFound{}, "`find-batch`"},

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

	{"quantize", 1, quantize.Report{}, "`quantize` of a model directory."},
	{"quantize.onnx", 1, quantize.GraphReport{}, "`quantize` of an ONNX file."},

	{"tune.command", 1, tuneResult{}, "`tune --command`"},
	{"tune.show", 1, studySummary{}, "`tune show`"},
	{"tune.export", 1, exportedStudy{}, "`tune export`"},
	{"tune.best", 1, bestTrials{}, "`tune best`"},
	{"tune.importance", 1, importances{}, "`tune importance`"},

	{"run", 1, graphResult{}, "`run`"},
	{"loadtest", 1, loadtestResult{}, "`loadtest`"},

	{"serve", 1, served{}, "`serve`, when it begins to answer."},

	{"inspect.onnx", 1, graphInspection{}, "`inspect` of an ONNX file."},
	{"inspect", 1, inspection{}, "`inspect` of a file of weights, or of a model of no task that has settings: weights from elsewhere, a memory benchmark."},

	{"explain.gradients.adding", 1, explain.Study{}, "`explain gradients` without a model: networks on the adding problem."},
	{"explain.gradients.model", 1, explain.Flow{}, "`explain gradients` of a model."},
	{"explain.memory", 1, memoryTable{}, "`explain memory`"},
	{"doctor", 1, doctorReport{}, "`doctor`"},
	{"bench", 1, bench.Report{}, "`bench`"},
	{"version", 1, versionInfo{}, "`version`"},
}

// String is the value of an object's key "schema".
func (s *schema) String() string { return result.Schema(s.name, s.version) }

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
// written in parts, those of lines, and a report that refuses, may.
func (s *schema) mayLack() bool {
	return strings.HasPrefix(s.name, "predict.") || strings.HasPrefix(s.name, "transcribe") ||
		slices.Contains([]string{"quantize", "quantize.onnx", "segment", "g2p", "detect-speech", "detect-words", "doctor"}, s.name)
}

// errSecond refuses an object after another, such as a result just after Ctrl-C.
var errSecond = errors.New("a second object for stdout")

// object is v as one object and a line break. failed, if not nil, is why v is not the
// whole result.
func (a *app) object(name string, v any, failed error) ([]byte, error) {
	text, err := result.Object(a.schemaOf(name, v).String(), v)
	if err != nil {
		return nil, err
	}
	if failed != nil {
		if text, err = result.AppendFields(text, reflect.ValueOf(lack{problemOf(failed)})); err != nil {
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

var errNoneBegun = errors.New("no object has begun")

// printPart writes a part of a result of the schema of that name on stdout, as
// [result.Parts] does. endParts ends the object.
func (a *app) printPart(name string, v any) error {
	schema := a.schemaOf(name, v)
	a.printing.Lock()
	defer a.printing.Unlock()
	if a.begun == nil {
		if a.printed {
			return errSecond
		}
		a.begun = &result.Parts{}
	}
	text, err := a.begun.Add(nil, schema.String(), v)
	if err != nil {
		return err
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
	text, err := a.begun.Rest(nil)
	if err == nil && failed != nil {
		text, err = result.AppendFields(text, reflect.ValueOf(lack{problemOf(failed)}))
	}
	if err != nil {
		return err
	}
	a.begun = nil
	_, err = a.stdout.Write(append(text, "}\n"...))
	return err
}

// asksForJSON reports whether --json is among the arguments, which must be known
// even if they cannot be parsed. Shell completion quotes a command line
// that may have it.
func asksForJSON(args []string) bool {
	if len(args) > 0 && strings.HasPrefix(args[0], "__complete") {
		return false
	}
	asked, launches := false, false
	for _, arg := range args {
		value, given := strings.CutPrefix(arg, "--json=")
		switch {
		case arg == "--" && launches: // another command follows
			launches = false
		case arg == "--":
			return asked
		case arg == "launch":
			launches = true
		case arg == "--json":
			asked = true
		case given:
			yes, err := strconv.ParseBool(value)
			asked = yes || err != nil
		}
	}
	return asked
}
