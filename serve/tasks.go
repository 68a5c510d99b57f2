package serve

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/result"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/serve/batch"
	"github.com/carousel-ml/carousel/serve/inference"
	"github.com/carousel-ml/carousel/task"
)

// taskPath is where the models of a task answer in the task's own form.
func taskPath(k *task.Kind) string { return "/v1/" + k.Name }

// taskRequest is the body of a request in a task's own form. Which of the inputs it may
// have depends on the form of the model's input.
type taskRequest struct {
	Model   string                       `json:"model" help:"name of the model (empty: the only model of the task)"`
	Version string                       `json:"version" help:"its version (empty: the newest)"`
	Text    *string                      `json:"text" form:"text" help:"a text"`
	Texts   []string                     `json:"texts" form:"text" help:"texts, each with a prediction"`
	Rows    []map[string]json.RawMessage `json:"rows" form:"table" help:"rows of a table: objects with a value, which may be null, for each column"`
	Columns map[string][]json.RawMessage `json:"columns" form:"table" help:"columns of a table, which have as many values"`
	CSV     *string                      `json:"csv" form:"table" help:"the text of a table, with a line of column names"`
	Sound   *string                      `json:"sound" form:"sound" help:"a WAV or FLAC file in base64"`
	Sounds  []string                     `json:"sounds" form:"sound" help:"such files, each with a prediction"`
	Options map[string]json.RawMessage   `json:"options" help:"options of the prediction, as those of the command"`
}

// taskHTTP returns a handler that answers requests for the models of a task with the JSON
// object that the command prints for a prediction.
func (s *Server) taskHTTP(k *task.Kind) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		text, err := s.predict(k, r)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		s.write(w, r, http.StatusOK, "", append(text, '\n'))
	}
}

func (s *Server) predict(k *task.Kind, r *http.Request) ([]byte, error) {
	var q taskRequest
	var given []string
	err := s.withBody(r, func(b []byte) (err error) {
		given, err = q.read(b)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := unknownKey(k, given); err != nil {
		return nil, err
	}
	if _, err := s.findTask(k, q.Model, q.Version); err != nil { // before what such a model would need
		return nil, err
	}
	if err := oneInput(k, given); err != nil {
		return nil, err
	}
	ctx, c := r.Context(), s.caller(r)
	if d := s.limits().Timeout; d > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, d)
		defer stop()
	}
	var j *batch.Job
	err = again(func() error {
		v, err := s.findTask(k, q.Model, q.Version)
		if err != nil {
			return err
		}
		o, err := q.options(v.program().(*taskProgram))
		if err != nil {
			return err
		}
		j = &batch.Job{Client: c.Client, Conn: c.Conn, Options: o}
		return v.do(ctx, j)
	})
	if err != nil {
		return nil, err
	}
	return []byte(j.Outputs[0].Texts[0]), nil
}

// findTask returns the version of a model of a task that a request names, with the errors of
// finding one; without a name that of the only model of the task.
func (s *Server) findTask(k *task.Kind, name, number string) (*version, error) {
	is := func(v *version) bool {
		p, ok := v.program().(*taskProgram)
		return ok && p.m.Kind == k
	}
	if name == "" {
		var names []string
		for _, e := range s.models.list() {
			if len(e.versions) > 0 && is(e.versions[0]) {
				names = append(names, e.name)
			}
		}
		if len(names) != 1 {
			have := cmp.Or(strings.Join(names, ", "), "none")
			return nil, inference.Errorf(inference.Invalid, `the request has no "model", which may be left out if the server has one for %s; it has %s`, k.Name, have)
		}
		name = names[0]
	}
	_, v, err := s.find(name, number)
	if err != nil {
		return nil, err
	}
	if v == nil || !is(v) {
		return nil, inference.Errorf(inference.Invalid, "model %q is not for %s; ask it at /v2/models/%s/infer", name, k.Name, name)
	}
	return v, nil
}

// read reads a body and returns the keys that it has.
func (q *taskRequest) read(body []byte) (given []string, err error) {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(body, &keys); err != nil || keys == nil {
		return nil, inference.Errorf(inference.Invalid, "the body is not a JSON object: %s", cmp.Or(jsonProblem(err), "it is null"))
	}
	if err := inference.CheckJSON(body); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(body, q); err != nil {
		return nil, inference.Errorf(inference.Invalid, "%s", jsonProblem(err))
	}
	for _, f := range result.Fields(reflect.TypeFor[taskRequest]()) {
		if f.Go.Tag.Get("form") != "" && string(keys[f.Name]) == "null" {
			return nil, inference.Errorf(inference.Invalid, "%s is null; leave it out or give it a value", f.Name)
		}
	}
	for _, key := range []string{"texts", "sounds"} { // in which null would be an empty text
		var list []*string
		_ = json.Unmarshal(keys[key], &list) // it was read before
		if i := slices.Index(list, nil); i >= 0 {
			return nil, inference.Errorf(inference.Invalid, "%s: the value at place %d is null, want a text", key, i+1)
		}
	}
	return slices.Sorted(maps.Keys(keys)), nil
}

// jsonProblem says what is wrong with JSON, in its own words; "" for nil.
func jsonProblem(err error) string {
	var wrong *json.UnmarshalTypeError
	switch {
	case err == nil:
		return ""
	case !errors.As(err, &wrong):
		return err.Error()
	}
	kind, _, _ := strings.Cut(wrong.Value, " ") // "number 1.5" for a whole number that is none
	text := fmt.Sprintf("want %s, got %s", cmp.Or(wanted[wrong.Type.Kind().String()], "another value"), cmp.Or(wanted[kind], wrong.Value))
	if wrong.Field != "" {
		text = wrong.Field + ": " + text
	}
	return text
}

// wanted are kinds of Go's values, and the decoder's names of JSON's, in plain words.
var wanted = map[string]string{"string": "a text", "slice": "a list", "array": "a list", "map": "an object", "struct": "an object", "object": "an object",
	"float64": "a number", "number": "a number", "bool": "true or false"}

// fieldsFor returns the keys that a request to a task may have: the inputs, of which it
// has one, and the others.
func fieldsFor(k *task.Kind) (inputs, others []result.Field) {
	for _, f := range result.Fields(reflect.TypeFor[taskRequest]()) {
		switch f.Go.Tag.Get("form") {
		case string(k.Input()):
			inputs = append(inputs, f)
		case "":
			others = append(others, f)
		}
	}
	return inputs, others
}

// unknownKey returns an error for keys that a body of a task's request may not have.
func unknownKey(k *task.Kind, given []string) error {
	inputs, others := fieldsFor(k)
	known := keyNames(append(others, inputs...))
	for _, key := range given {
		if !slices.Contains(known, key) {
			return inference.Errorf(inference.Invalid, "unknown key %q%s", key, settings.DidYouMean(key, known, "", "the keys are "))
		}
	}
	return nil
}

// oneInput returns an error unless a body of a task's request has one of the inputs.
func oneInput(k *task.Kind, given []string) error {
	inputs, _ := fieldsFor(k)
	wanted := keyNames(inputs)
	var got []string
	for _, key := range given {
		if slices.Contains(wanted, key) {
			got = append(got, key)
		}
	}
	if len(got) != 1 {
		return inference.Errorf(inference.Invalid, "want one of the keys %s, got %s", strings.Join(wanted, ", "), cmp.Or(strings.Join(got, " and "), "none"))
	}
	return nil
}

func keyNames(fields []result.Field) []string {
	var names []string
	for _, f := range fields {
		names = append(names, f.Name)
	}
	return names
}

// options returns the options of the job for a request.
func (q *taskRequest) options(p *taskProgram) (*taskOptions, error) {
	in, cost, err := q.input(p)
	if err != nil {
		return nil, err
	}
	o := &taskOptions{whole: true, input: in, cost: cost}
	names := make([]string, 0, len(q.Options))
	for name := range q.Options {
		names = append(names, name)
	}
	slices.Sort(names)
	return o, p.settle(o, names, func(list []*settings.Setting) error {
		for _, name := range names {
			if err := settings.Named(list, name).AssignJSON(q.Options[name]); err != nil {
				return data.Errorf("%s: %v", name, err)
			}
		}
		return nil
	})
}

// input returns the input of a prediction, and its cost as the program's Check counts it.
func (q *taskRequest) input(p *taskProgram) (in *task.Input, cost float64, err error) {
	in = &task.Input{}
	switch {
	case q.Text != nil:
		q.Texts = []string{*q.Text}
	case q.Sound != nil:
		q.Sounds = []string{*q.Sound}
	}
	switch p.m.Kind.Input() {
	case task.TextForm:
		in.Texts = append([]string{}, q.Texts...) // a list also if it is empty
		for _, s := range q.Texts {
			cost += float64(len(s))
		}
	case task.SoundForm:
		in.Sounds = []task.Sound{}
		for i, s := range q.Sounds {
			raw, err := base64.StdEncoding.DecodeString(s)
			if err != nil {
				return nil, 0, inference.Errorf(inference.Invalid, "sound %d is not base64: %v", i+1, err)
			}
			in.Sounds = append(in.Sounds, task.Sound{Name: fmt.Sprintf("%s %d", soundInput, i+1), Data: raw})
			cost += float64(len(raw))
		}
	case task.TableForm:
		switch {
		case q.CSV != nil:
			in.Stream, cost = strings.NewReader(*q.CSV), float64(strings.Count(*q.CSV, "\n"))
		case q.Rows != nil:
			in.Table, err = columnsOf(q.Rows, p.service.Columns)
		default:
			in.Table, err = q.table(p.service.Columns)
		}
		if err == nil && in.Stream == nil && len(in.Table) == 0 {
			err = inference.Errorf(inference.Invalid, "the table has no columns")
		}
		if err != nil {
			return nil, 0, err
		}
		if in.Stream == nil {
			cost = float64(in.Table[0].Len())
		}
	}
	return in, cost, nil
}

// table returns the columns of a request.
func (q *taskRequest) table(fields []task.Field) ([]task.Column, error) {
	var names []string
	for name := range q.Columns {
		names = append(names, name)
	}
	slices.Sort(names)
	var table []task.Column
	for _, name := range names {
		c, err := columnOf(name, q.Columns[name], fields)
		if err != nil {
			return nil, err
		}
		table = append(table, c)
	}
	return table, nil
}

// Rows of a table may have different keys. As columns they take memory for each column in
// each row, which may be this much, or a multiple of the values that came.
const (
	tableCells  = 1 << 20
	cellsAValue = 8
)

// columnsOf returns the rows of a table as columns. A row without a value lacks it.
func columnsOf(rows []map[string]json.RawMessage, fields []task.Field) ([]task.Column, error) {
	columns := map[string][]json.RawMessage{}
	values := 0
	for _, row := range rows {
		values += len(row)
		for name := range row {
			columns[name] = nil
		}
	}
	if most := max(tableCells, cellsAValue*values) / max(1, len(rows)); len(columns) > most {
		return nil, inference.Errorf(inference.Invalid, "the rows have too many different keys: %d columns for %d rows, most of whose values are missing, expected at most %d; give each row the same keys", len(columns), len(rows), most)
	}
	for i, row := range rows {
		for name, v := range row {
			if columns[name] == nil {
				columns[name] = make([]json.RawMessage, len(rows))
			}
			columns[name][i] = v
		}
	}
	return (&taskRequest{Columns: columns}).table(fields)
}

// columnOf returns a column of JSON values: numbers where all that are there are numbers
// and the model takes the column as such, otherwise texts.
func columnOf(name string, values []json.RawMessage, fields []task.Field) (task.Column, error) {
	c := task.Column{Name: name, Texts: make([]string, len(values))}
	number := !slices.ContainsFunc(fields, func(f task.Field) bool { return f.Name == name && !f.Number })
	for i, raw := range values {
		switch {
		case len(raw) == 0 || string(raw) == "null":
			continue
		case raw[0] == '"':
			number = false
			if err := json.Unmarshal(raw, &c.Texts[i]); err != nil {
				return c, inference.Errorf(inference.Invalid, "column %q, row %d: %v", name, i+1, err)
			}
		case raw[0] == '{' || raw[0] == '[':
			return c, inference.Errorf(inference.Invalid, "column %q, row %d: want a number, a text or null, got %.20s", name, i+1, raw)
		case string(raw) == "true":
			c.Texts[i] = "1"
		case string(raw) == "false":
			c.Texts[i] = "0"
		default:
			c.Texts[i] = string(raw)
		}
	}
	if !number {
		return c, nil
	}
	c.Numbers = make([]float64, len(values))
	for i, text := range c.Texts {
		if text == "" {
			c.Numbers[i] = math.NaN()
			continue
		}
		var err error
		if c.Numbers[i], err = strconv.ParseFloat(text, 64); err != nil {
			return c, inference.Errorf(inference.Invalid, "column %q, row %d: %s is not a number of 64 bits", name, i+1, text)
		}
	}
	c.Texts = nil
	return c, nil
}
