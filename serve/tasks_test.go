package serve

import (
	"bytes"
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/carousel-ml/carousel"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/serve/batch"
	"github.com/carousel-ml/carousel/serve/inference"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

// stored returns the small model of a task that the repository has, and the file that it
// was applied to.
func stored(t testing.TB, k *task.Kind) (m *task.Trained, input string) {
	t.Helper()
	dir := filepath.Join("..", "testdata", "format1", cmp.Or(k.Was, k.Name))
	m, err := carousel.Open(filepath.Join(dir, "model"))
	if err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "in.*"))
	return m, files[0]
}

// stores are all tasks with their models; a made-up one is served as well.
func stores(t *testing.T, f func(t *testing.T, m *task.Trained, input string)) {
	for _, k := range carousel.Tasks {
		t.Run(k.Name, func(t *testing.T) {
			m, input := stored(t, k)
			f(t, m, input)
		})
	}
}

func program(t testing.TB, m *task.Trained) *taskProgram {
	t.Helper()
	p, err := newTaskProgram(m, "test")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// jobs returns requests of different sizes for a program, made from the file of its test.
func jobs(t testing.TB, p *taskProgram, input string) []*batch.Job {
	t.Helper()
	text, err := os.ReadFile(input)
	if err != nil {
		t.Fatal(err)
	}
	var list []*batch.Job
	add := func(at int, v ...string) {
		j := &batch.Job{Inputs: make([]inference.Value, len(p.ins))}
		j.Inputs[at] = inference.Value{Dims: []int{len(v)}, Texts: v}
		list = append(list, j)
	}
	switch {
	case p.texts >= 0:
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		add(p.texts, lines[0])
		add(p.texts, append([]string{"a " + lines[0]}, lines...)...)
		add(p.texts, "")
		add(p.texts)
		add(p.texts, lines[len(lines)-1]+" "+lines[0], lines[0], lines[0])
	case p.sounds >= 0:
		shorter := func(n int) string { // as a program writes it to a pipe, which knows no length
			text := slices.Clone(text[:n])
			copy(text[bytes.Index(text, []byte("data"))+4:], "\xff\xff\xff\xff")
			return string(text)
		}
		add(p.sounds, string(text))
		add(p.sounds, shorter(len(text)*3/4), string(text))
		add(p.sounds, shorter(len(text)/2))
	default:
		add(p.table, string(text))
		list = append(list, tableJob(t, p, string(text), false))
	}
	return list
}

// tableJob returns a request that has a table by its columns, numbers as such or as texts.
func tableJob(t testing.TB, p *taskProgram, text string, asTexts bool) *batch.Job {
	t.Helper()
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	j := &batch.Job{Inputs: make([]inference.Value, len(p.ins))}
	for c, name := range rows[0] {
		at := slices.IndexFunc(p.ins, func(in inference.Info) bool { return in.Name == name })
		if at < 0 {
			t.Fatalf("no input %q", name)
		}
		v := inference.Value{Dims: []int{len(rows) - 1}}
		for _, row := range rows[1:] {
			if p.ins[at].Datatype != inference.FP64 || asTexts {
				v.Texts = append(v.Texts, row[c])
				continue
			}
			x, err := strconv.ParseFloat(cmp.Or(row[c], "NaN"), 64)
			if err != nil {
				t.Fatal(err)
			}
			v.Doubles = append(v.Doubles, x)
		}
		j.Inputs[at] = v
	}
	return j
}

// inputOf returns what a job holds as a user gives it to the command: soundless jobs only.
func inputOf(p *taskProgram, j *batch.Job) task.Input {
	if p.table >= 0 && j.Inputs[p.table].Dims == nil {
		panic("a table by columns")
	}
	if p.table >= 0 {
		return task.Input{Stream: strings.NewReader(j.Inputs[p.table].Texts[0])}
	}
	return task.Input{Texts: append([]string{}, j.Inputs[p.texts].Texts...)}
}

// same compares outputs bit for bit.
func same(a, b []inference.Value) bool {
	return slices.EqualFunc(a, b, func(x, y inference.Value) bool {
		return slices.Equal(x.Dims, y.Dims) && slices.Equal(x.Texts, y.Texts) && slices.EqualFunc(x.Doubles, y.Doubles, func(u, v float64) bool { return math.Float64bits(u) == math.Float64bits(v) })
	})
}

// do runs jobs through the program as the scheduler does.
func do(t testing.TB, p *taskProgram, list ...*batch.Job) {
	t.Helper()
	for _, j := range list {
		if err := p.Check(j); err != nil {
			t.Fatal(err)
		}
	}
	p.Run(t.Context(), list)
	for _, j := range list {
		if j.Err != nil {
			t.Fatal(j.Err)
		}
	}
}

// The answer to a request is what the command prints for the same input: the elements of
// its list, or the whole object.
func TestAnswersAreThoseOfPredict(t *testing.T) {
	stores(t, func(t *testing.T, m *task.Trained, input string) {
		p := program(t, m)
		o, err := m.Options(nil, func(any) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		if p.m.Kind.Input() == task.SoundForm {
			j := jobs(t, p, input)[0]
			do(t, p, j)
			want, err := m.PredictJSON(t.Context(), task.Input{File: input}, o)
			if err != nil {
				t.Fatal(err)
			}
			text := strings.ReplaceAll(string(want), jsonText(t, input), `"sound 1"`)
			if got := j.Outputs[p.json].Texts; len(got) != 1 || !strings.Contains(text, got[0]) {
				t.Errorf("got %q, the command says %s", got, text)
			}
			return
		}
		for _, j := range jobs(t, p, input) {
			if p.table >= 0 && j.Inputs[p.table].Dims == nil {
				continue // compared with the table's text below
			}
			do(t, p, j)
			want, err := m.PredictJSON(t.Context(), inputOf(p, j), o)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(j.Outputs[p.json].Texts, ",")
			if p.service.Apart && !bytes.Contains(want, []byte(":["+got+"]")) || !p.service.Apart && string(want) != got {
				t.Errorf("got %s, the command says %s", got, want)
			}
			whole := *j
			whole.Outputs, whole.Options = nil, &taskOptions{predict: o, whole: true}
			do(t, p, &whole)
			if got := whole.Outputs[0].Texts[0]; got != string(want) {
				t.Errorf("the object is %s, the command says %s", got, want)
			}
		}
	})
}

func jsonText(t *testing.T, s string) string {
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Columns of tensors are the columns of the table that the command writes.
func TestTableByColumns(t *testing.T) {
	stores(t, func(t *testing.T, m *task.Trained, input string) {
		p := program(t, m)
		if p.m.Kind.Input() != task.TableForm {
			return
		}
		text, err := os.ReadFile(input)
		if err != nil {
			t.Fatal(err)
		}
		whole := jobs(t, p, input)[0]
		do(t, p, whole)
		for _, asTexts := range []bool{false, true} {
			j := tableJob(t, p, string(text), asTexts)
			do(t, p, j)
			if !same(j.Outputs, whole.Outputs) {
				t.Errorf("by columns %v, as a text %v", j.Outputs, whole.Outputs)
			}
		}
		prediction, err := m.Predict(t.Context(), task.Input{File: input}, nil)
		if err != nil {
			t.Fatal(err)
		}
		var want bytes.Buffer
		if err := prediction.Write(&want); err != nil {
			t.Fatal(err)
		}
		rows, err := csv.NewReader(&want).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		for c, name := range rows[0] {
			at := slices.IndexFunc(p.outs, func(o inference.Info) bool { return o.Name == name })
			if at < 0 {
				t.Fatalf("no output %q among %v", name, p.outs)
			}
			v := whole.Outputs[at]
			for i, row := range rows[1:] {
				if v.Texts != nil && v.Texts[i] != row[c] {
					t.Errorf("%s: got %q in row %d, the command wrote %q", name, v.Texts[i], i, row[c])
				}
				if v.Doubles == nil {
					continue
				}
				if x, err := strconv.ParseFloat(row[c], 64); err != nil || math.Float64bits(v.Doubles[i]) != math.Float64bits(x) {
					t.Errorf("%s: got %v in row %d, the command wrote %s", name, v.Doubles[i], i, row[c])
				}
			}
			if v.Len() != len(rows)-1 {
				t.Errorf("%s: %d rows, the command wrote %d", name, v.Len(), len(rows)-1)
			}
		}
	})
}

// What a client gets does not depend on the requests that are computed with its own: the
// same bits alone, together with others, and through the scheduler at the same time.
func TestAloneAndAmongOthers(t *testing.T) {
	stores(t, func(t *testing.T, m *task.Trained, input string) {
		p := program(t, m)
		alone, together := jobs(t, p, input), jobs(t, p, input)
		for _, j := range alone {
			do(t, p, j)
		}
		if p.service.Apart {
			for _, j := range together {
				if err := p.Check(j); err != nil {
					t.Fatal(err)
				}
				if j.Key != together[0].Key {
					t.Errorf("requests with equal options have the keys %v and %v", j.Key, together[0].Key)
				}
			}
			if err := p.together(t.Context(), together); err != nil {
				t.Fatal(err)
			}
			for i, j := range together {
				if !same(j.Outputs, alone[i].Outputs) {
					t.Errorf("request %d: together %v, alone %v", i, j.Outputs, alone[i].Outputs)
				}
			}
		}
		q := batch.New(batch.Options{}).Add(p, batch.QueueOptions{})
		var all sync.WaitGroup
		for range 4 {
			for i, j := range jobs(t, p, input) {
				all.Go(func() {
					if err := q.Do(t.Context(), j); err != nil || !same(j.Outputs, alone[i].Outputs) {
						t.Errorf("request %d of many: %v %v, alone %v", i, j.Outputs, err, alone[i].Outputs)
					}
				})
			}
		}
		all.Wait()
	})
}

// Options are those of the command by name; what cannot be is refused with its name.
func TestTaskOptions(t *testing.T) {
	stores(t, func(t *testing.T, m *task.Trained, _ string) {
		p := program(t, m)
		for _, s := range clientSettings(m.Kind.Predicting()) {
			if len(s.Choices) == 0 || s.IsList() {
				continue
			}
			_, err := p.Options(inference.Params{s.Name: "none of these"})
			if invalid := (*inference.Error)(nil); !errors.As(err, &invalid) || invalid.Code != inference.Invalid || !strings.Contains(err.Error(), s.Name) {
				t.Errorf("%s with a word that is none of its choices: %v", s.Name, err)
			}
		}
		if _, err := p.Options(inference.Params{"priority": uint64(1), "sequence_id": "a", "triton_x": true}); err != nil {
			t.Errorf("parameters of the protocol: %v", err)
		}
		if _, err := p.Options(inference.Params{"no_such_option": true}); err == nil || !strings.Contains(err.Error(), "no_such_option") {
			t.Errorf("an unknown option: %v", err)
		}
		for _, s := range settings.List(m.Kind.Predicting()) {
			if s.Kind() != "file" {
				continue
			}
			if _, err := p.Options(inference.Params{s.Name: "/etc/hostname"}); err == nil || !strings.Contains(err.Error(), "file") {
				t.Errorf("%s, a file of the server: %v", s.Name, err)
			}
		}
		for name, most := range p.service.Most {
			if _, err := p.Options(inference.Params{name: int64(most) + 1}); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s above %v: %v", name, most, err)
			}
			if _, err := p.Options(inference.Params{name: int64(most)}); err != nil {
				t.Errorf("%s at its most: %v", name, err)
			}
		}
	})
}

// Requests that cannot be right are refused before they run.
func TestTaskChecks(t *testing.T) {
	stores(t, func(t *testing.T, m *task.Trained, _ string) {
		p := program(t, m)
		none := &batch.Job{Inputs: make([]inference.Value, len(p.ins))}
		bad := &batch.Job{Inputs: make([]inference.Value, len(p.ins))}
		at := len(p.ins) - 1
		if p.sounds >= 0 {
			at = p.sounds
		}
		bad.Inputs[at] = inference.Value{Dims: []int{1, 2, 3}, Texts: make([]string, 6)}
		for what, j := range map[string]*batch.Job{"nothing": none, "a cube": bad} {
			var invalid *inference.Error
			if err := p.Check(j); !errors.As(err, &invalid) || invalid.Code != inference.Invalid {
				t.Errorf("%s: %v", what, err)
			}
		}
		if at == p.table && len(p.service.Columns) > 0 {
			j := &batch.Job{Inputs: make([]inference.Value, len(p.ins))}
			for i := range p.service.Columns {
				j.Inputs[i] = inference.Value{Dims: []int{i + 1}, Texts: make([]string, i+1)}
			}
			if err := p.Check(j); len(p.service.Columns) > 1 && err == nil {
				t.Error("columns of different lengths are accepted")
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		var list []*batch.Job
		for range 2 {
			j := &batch.Job{Inputs: make([]inference.Value, len(p.ins))}
			j.Inputs[at] = inference.Value{Dims: []int{1}, Texts: []string{"a"}}
			if err := p.Check(j); err != nil {
				t.Fatal(err)
			}
			list = append(list, j)
		}
		p.Run(ctx, list)
		for _, j := range list {
			var canceled *inference.Error
			if !errors.As(j.Err, &canceled) || canceled.Code != inference.Canceled {
				t.Errorf("a cancelled request: %v", j.Err)
			}
		}
	})
}

// One request that cannot be computed does not fail those it was put together with.
func TestOneFailsAlone(t *testing.T) {
	for _, k := range carousel.Tasks {
		m, input := stored(t, k)
		p := program(t, m)
		if p.m.Kind.Input() != task.SoundForm {
			continue
		}
		good, bad := jobs(t, p, input)[0], jobs(t, p, input)[0]
		bad.Inputs[p.sounds].Texts = []string{"this is no sound"}
		for _, j := range []*batch.Job{good, bad} {
			if err := p.Check(j); err != nil {
				t.Fatal(err)
			}
		}
		p.Run(t.Context(), []*batch.Job{good, bad})
		var invalid *inference.Error
		if good.Err != nil || good.Outputs[0].Len() != 1 || !errors.As(bad.Err, &invalid) || invalid.Code != inference.Invalid {
			t.Errorf("%s: the good request: %v, the bad one: %v", k.Name, good.Err, bad.Err)
		}
	}
}

// A made-up task without a word about servers: it counts the letters of texts.
var letterTask = task.New(task.About{Name: "letters", Noun: "a counter", Scores: "texts", Takes: "texts", Texts: true},
	func() letterConfig { return letterConfig{} },
	func(context.Context, *task.Files, letterConfig) (*letterData, error) { return &letterData{}, nil },
	func(context.Context, *letterData, letterConfig, *train.Run) (*letterModel, *train.Result, error) {
		return &letterModel{}, nil, nil
	},
	func(*model.Dir, ...*tensor.Device) (*letterModel, error) { return &letterModel{}, nil },
	(*letterModel).Evaluate, (*letterModel).Predict)

type (
	letterConfig struct{}
	letterData   struct{ task.Parts[string] }
	letterModel  struct{ task.Model }
	letterScore  struct{ task.Evaluation }
	letterCount  struct {
		Letters []int `json:"letters"`
	}
	letterOptions struct {
		Most int `json:"most" range:"0..9" group:"Counting" help:"count to this number"`
	}
)

func (*letterConfig) Validate() error     { return nil }
func (*letterData) Notes() []string       { return nil }
func (*letterData) String() string        { return "letters" }
func (*letterModel) Config() letterConfig { return letterConfig{} }
func (*letterModel) Evaluate(context.Context, *letterData, task.Part, *struct{}) (*letterScore, error) {
	return nil, nil
}
func (*letterModel) Predict(_ context.Context, in task.Input, o *letterOptions) (*letterCount, error) {
	c := &letterCount{}
	for i, s := range in.Texts {
		if s == "" {
			return nil, data.Errorf("text %d is empty", i+1)
		}
		n := len(s)
		if o.Most > 0 {
			n = min(n, o.Most)
		}
		c.Letters = append(c.Letters, n)
	}
	return c, nil
}
func (c *letterCount) Write(w io.Writer) error { _, err := fmt.Fprintln(w, c.Letters); return err }
func (c *letterCount) Print(w io.Writer)       { _ = c.Write(w) }

func letters(t testing.TB) *task.Trained {
	m, err := letterTask.Open(&model.Dir{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMadeUpTaskIsServed(t *testing.T) {
	p := program(t, letters(t))
	if !reflect.DeepEqual(p.outs, []inference.Info{{Name: "json", Datatype: inference.BYTES, Dims: []int{-1}}}) || len(p.ins) != 1 || p.ins[0].Name != "text" || p.Batched() {
		t.Errorf("inputs %v, outputs %v, batched %v", p.ins, p.outs, p.Batched())
	}
	o, err := p.Options(inference.Params{"most": int64(3)})
	if err != nil {
		t.Fatal(err)
	}
	j := &batch.Job{Options: o, Inputs: []inference.Value{{Dims: []int{2}, Texts: []string{"ab", "abcde"}}}}
	do(t, p, j)
	if got, want := j.Outputs[0].Texts[0], `{"schema":"carousel.predict.letters.v1","letters":[2,3]}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if _, err := p.Options(inference.Params{"most": int64(10)}); err == nil {
		t.Error("an option out of its range is accepted")
	}
	bad := &batch.Job{Inputs: []inference.Value{{Dims: []int{1}, Texts: []string{""}}}}
	if err := p.Check(bad); err != nil {
		t.Fatal(err)
	}
	if p.Run(t.Context(), []*batch.Job{bad}); bad.Err == nil || !strings.Contains(bad.Err.Error(), "text 1 is empty") {
		t.Errorf("the task's own error: %v", bad.Err)
	}
}

// tasksServed is a server for each task, with one model, m.
func tasksServed(t testing.TB) http.Handler {
	mux := http.NewServeMux()
	for _, k := range append(slices.Clone(carousel.Tasks), letterTask) {
		m := letters(t)
		if k != letterTask {
			m, _ = stored(t, k)
		}
		s := New(Options{Tasks: []*task.Kind{k}, Limits: Limits{Body: 1 << 20}})
		t.Cleanup(func() { _ = s.Close(context.Background()) })
		addProgram(s, "m", program(t, m))
		mux.Handle(taskPath(k), s.Handler())
	}
	return mux
}

func post(t testing.TB, h http.Handler, path, body string) (status int, answer string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, strings.NewReader(body)))
	if got := w.Header().Get("Content-Type"); got != "application/json" {
		t.Errorf("%s: content type %q", path, got)
	}
	return w.Code, w.Body.String()
}

// bodies returns requests in a task's form that say the same.
func bodies(t testing.TB, m *task.Trained, input string) []string {
	t.Helper()
	text, err := os.ReadFile(input)
	if err != nil {
		t.Fatal(err)
	}
	write := func(v map[string]any) string {
		body, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	switch m.Kind.Input() {
	case task.TextForm:
		line, _, _ := strings.Cut(string(text), "\n")
		return []string{write(map[string]any{"text": line}), write(map[string]any{"texts": []string{line}, "model": "m"})}
	case task.SoundForm:
		return []string{write(map[string]any{"sound": text}), write(map[string]any{"sounds": [][]byte{text}})}
	default:
		table, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		columns, rows := map[string][]any{}, make([]map[string]any, len(table)-1)
		for c, name := range table[0] {
			for i, row := range table[1:] {
				v := any(row[c])
				if x, err := strconv.ParseFloat(row[c], 64); err == nil {
					v = x
				}
				columns[name] = append(columns[name], v)
				if rows[i] == nil {
					rows[i] = map[string]any{}
				}
				rows[i][name] = v
			}
		}
		return []string{write(map[string]any{"csv": string(text)}), write(map[string]any{"columns": columns}), write(map[string]any{"rows": rows})}
	}
}

// A task's own door answers with the object that the command prints, whichever way the
// input is written.
func TestTaskDoors(t *testing.T) {
	h := tasksServed(t)
	stores(t, func(t *testing.T, m *task.Trained, input string) {
		o, err := m.Options(nil, func(any) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		in := task.Input{File: input}
		if m.Kind.Input() == task.TextForm {
			text, err := os.ReadFile(input)
			if err != nil {
				t.Fatal(err)
			}
			line, _, _ := strings.Cut(string(text), "\n")
			in = task.Input{Texts: []string{line}}
		}
		want, err := m.PredictJSON(t.Context(), in, o)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(want), jsonText(t, input), `"sound 1"`) + "\n"
		for _, body := range bodies(t, m, input) {
			if status, got := post(t, h, taskPath(m.Kind), body); status != http.StatusOK || got != text {
				t.Errorf("%.60s: %d %s, the command says %s", body, status, got, text)
			}
		}
	})
}

// Wrong requests are answered with what is wrong.
func TestTaskDoorsRefuse(t *testing.T) {
	h := tasksServed(t)
	forms := map[task.Form]string{task.TextForm: `"text":"a"`, task.TableForm: `"csv":"a\n1\n"`, task.SoundForm: `"sound":""`}
	stores(t, func(t *testing.T, m *task.Trained, _ string) {
		p := program(t, m)
		input, path := forms[p.m.Kind.Input()], taskPath(m.Kind)
		for body, want := range map[string]string{
			`[]`: "not a JSON object", `{`: "not a JSON object", `null`: "not a JSON object",
			`{}`: "want one of the keys", `{"model":1,` + input + `}`: "model: want a text",
			`{"modle":"m",` + input + `}`:             `unknown key "modle"; did you mean model?`,
			`{"model":"n",` + input + `}`:             `unknown model "n"`,
			`{"options":[],` + input + `}`:            "options: want an object",
			`{"options":{"no_such":1},` + input + `}`: `unknown option "no_such"`,
			`{"text":"a","csv":"a","sound":"a"}`:      "unknown key",
			`{"model":"n"}`:                           `unknown model "n"`, `{"model":["m"],` + input + `}`: "model: want a text, got a list", `[1]`: "want an object, got a list",
			`{` + strings.Replace(input, `":"`, `":"`+"\xff", 1) + `}`: "is not UTF-8", `{` + strings.Replace(input, `":"`, `":"\udc00`, 1) + `}`: "hexadecimal",
			`{` + input + "," + input + `}`: "is given twice", `{` + input[:strings.IndexByte(input, ':')] + `:null}`: "is null",
			`{"x":"` + strings.Repeat("a", 1<<20) + `",` + input + "}": "more than 1048576 bytes",
		} {
			status, got := post(t, h, path, body)
			var fault struct{ Error string }
			if err := json.Unmarshal([]byte(got), &fault); err != nil || status < 400 || status >= 500 || !strings.Contains(fault.Error, want) {
				t.Errorf("%.60s: %d %s, want an error with %q", body, status, got, want)
			}
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "POST" || !strings.Contains(w.Body.String(), `"error"`) {
			t.Errorf("GET: %d %s", w.Code, w.Body)
		}
		if p.m.Kind.Input() != task.TableForm {
			key := map[task.Form]string{task.TextForm: "texts", task.SoundForm: "sounds"}[p.m.Kind.Input()]
			if status, got := post(t, h, path, `{"`+key+`":["",null]}`); status != http.StatusBadRequest || !strings.Contains(got, key+": the value at place 2 is null, want a text") {
				t.Errorf("null among %s: %d %s", key, status, got)
			}
			return
		}
		for body, want := range map[string]string{
			`{"rows":[]}`: "no columns", `{"columns":{}}`: "no columns", `{"columns":{"a":[1],"b":[]}}`: "as many rows",
			`{"rows":[{"a":[]}]}`: `column "a", row 1`, `{"rows":[1]}`: "want an object", `{"columns":{"a":[1e999]}}`: "not a number of 64 bits",
		} {
			if status, got := post(t, h, path, body); status != http.StatusBadRequest || !strings.Contains(got, jsonText(t, want)[1:len(jsonText(t, want))-1]) {
				t.Errorf("%s: %d %s, want %q", body, status, got, want)
			}
		}
	})
}

// portions returns the portions of a stream for a model, which depend on seed, as jobs.
func portions(t testing.TB, p *taskProgram, input string, seed int) []*batch.Job {
	t.Helper()
	text, err := os.ReadFile(input)
	if err != nil {
		t.Fatal(err)
	}
	var list []*batch.Job
	job := func(at int, v inference.Value, params inference.Params) {
		o, err := p.Options(params)
		if err != nil {
			t.Fatal(err)
		}
		j := &batch.Job{Options: o, Inputs: make([]inference.Value, len(p.ins))}
		j.Inputs[at] = v
		list = append(list, j)
	}
	switch {
	case p.texts >= 0:
		for _, word := range strings.SplitAfter(strings.Repeat(string(text)+" and then ", seed+1), " ") {
			job(p.texts, inference.Value{Dims: []int{1}, Texts: []string{word}}, inference.Params{"max_tokens": int64(5)})
		}
	case p.samples >= 0:
		s, err := (&task.Sound{Data: text}).Read()
		if err != nil {
			t.Fatal(err)
		}
		for i := range s.Samples {
			s.Samples[i] /= float32(seed + 1)
		}
		for part := range slices.Chunk(s.Samples, len(s.Samples)/4+1) {
			job(p.samples, inference.Value{Dims: []int{len(part)}, Floats: part}, inference.Params{"rate": int64(s.Rate)})
		}
	default:
		whole := tableJob(t, p, string(text), false)
		for row := range min(whole.Inputs[0].Len(), 80) { // some windows of the models
			j := &batch.Job{Inputs: make([]inference.Value, len(p.ins))}
			for i, v := range whole.Inputs {
				switch {
				case v.Texts != nil:
					j.Inputs[i] = inference.Value{Dims: []int{1}, Texts: v.Texts[row : row+1]}
				case v.Doubles != nil:
					j.Inputs[i] = inference.Value{Dims: []int{1}, Doubles: []float64{v.Doubles[row] + float64(seed)}}
				}
			}
			list = append(list, j)
		}
	}
	list[len(list)-1].End = true
	return list
}

// TestLargeUnsigned gives columns of tables UINT64, whose greatest numbers have no place in them.
func TestLargeUnsigned(t *testing.T) {
	tried := 0
	stores(t, func(t *testing.T, m *task.Trained, _ string) {
		p := program(t, m)
		if len(p.service.Columns) == 0 {
			return
		}
		tried++
		v := addProgram(New(Options{}), "m", p)
		for x, ok := range map[int64]bool{math.MaxInt64: true, math.MinInt64: false, -1: false} { // bits of UINT64
			q := &inference.Request{Inputs: []inference.Tensor{{Name: p.ins[0].Name, Datatype: inference.UINT64, Value: inference.Value{Dims: []int{1}, Ints: []int64{x}}}}}
			if _, _, err := v.job(q, Caller{}); ok != (err == nil) {
				t.Errorf("%d: %v", uint64(x), err)
			}
		}
	})
	if tried == 0 {
		t.Error("no model of a table was tried")
	}
}

// Sessions of one model at the same time have each the answers of a stream of its own, and
// their state can be moved where it has a form in bytes.
func TestTaskSessions(t *testing.T) {
	served := 0
	stores(t, func(t *testing.T, m *task.Trained, input string) {
		p := program(t, m)
		if p.NewState() == nil {
			none := jobs(t, p, input)[0]
			none.Session = &batch.Session{}
			var unsupported *inference.Error
			if err := p.Check(none); !errors.As(err, &unsupported) || unsupported.Code != inference.Unsupported {
				t.Errorf("a session of a model that keeps no state: %v", err)
			}
			return
		}
		served++
		s := batch.New(batch.Options{})
		q := s.Add(p, batch.QueueOptions{})
		table := batch.NewSessions(s, batch.SessionOptions{})
		defer table.Stop(batch.Stopped)
		var all sync.WaitGroup
		for seed := range 3 {
			var want [][]inference.Value
			alone := p.NewState().(task.Stream)
			for k, j := range portions(t, p, input, seed) {
				o := j.Options
				if o == nil {
					var err error
					if o, err = p.Options(nil); err != nil {
						t.Fatal(err)
					}
					j.Options = o
				}
				if k%3 == 2 && !j.End {
					if text, err := alone.MarshalBinary(); err == nil {
						alone = p.NewState().(task.Stream)
						if err := alone.UnmarshalBinary(text); err != nil {
							t.Fatal(err)
						}
					}
				}
				in := p.input(j)
				in.Rate = o.(*taskOptions).rate
				prediction, err := alone.Feed(t.Context(), &task.Portion{Input: in, Options: o.(*taskOptions).predict, Last: j.End})
				if err != nil {
					t.Fatal(err)
				}
				j.Session = &batch.Session{}
				if err := p.give(j, prediction, 1, 0, 1); err != nil {
					t.Fatal(err)
				}
				want = append(want, j.Outputs)
			}
			n, err := table.Open(q, "m", batch.Opening{})
			if err != nil {
				t.Fatal(err)
			}
			all.Go(func() {
				for k, j := range portions(t, p, input, seed) {
					j.Session = n
					if err := q.Do(t.Context(), j); err != nil || !same(j.Outputs, want[k]) {
						t.Errorf("session %d, portion %d: %v %v, alone %v", seed, k, j.Outputs, err, want[k])
					}
				}
			})
		}
		all.Wait()
	})
	if served < 2 {
		t.Errorf("only %d tasks have sessions", served)
	}
}
