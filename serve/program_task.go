package serve

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/serve/batch"
	"github.com/carousel-ml/carousel/serve/inference"
	"github.com/carousel-ml/carousel/task"
)

// taskProgram serves a model of a task, by what the model says of itself. Its inputs are a
// tensor of texts, of sounds, or the columns of a table; its outputs are the columns of the
// prediction, and its JSON. Jobs whose texts or sounds do not depend on each other are one
// prediction.
type taskProgram struct {
	m           *task.Trained
	service     *task.Service
	fingerprint string
	ins, outs   []inference.Info

	// Places among the inputs, -1 if there is none. The columns of a table are the first.
	texts, table, sounds, samples int
	json                          int // the output
}

// The names of tensors that are no columns.
const (
	textInput    = "text"
	tableInput   = "table"
	soundInput   = "sound"
	samplesInput = "samples"
	jsonOutput   = "json"
)

// newTaskProgram returns the program of a model. fingerprint identifies its directory.
func newTaskProgram(m *task.Trained, fingerprint string) (*taskProgram, error) {
	service, err := m.Service()
	if err != nil {
		return nil, err
	}
	p := &taskProgram{m: m, service: service, fingerprint: fingerprint, texts: -1, table: -1, sounds: -1, samples: -1, json: -1}
	for _, c := range service.Columns {
		t := inference.BYTES
		if c.Number {
			t = inference.FP64
		}
		p.ins = append(p.ins, inference.Info{Name: c.Name, Datatype: t, Dims: []int{-1}, Optional: true})
	}
	input := func(name string, t inference.Datatype, size int, optional bool) int {
		if slices.ContainsFunc(p.ins, func(in inference.Info) bool { return in.Name == name }) {
			return -1 // a column has the name
		}
		p.ins = append(p.ins, inference.Info{Name: name, Datatype: t, Dims: []int{size}, Optional: optional})
		return len(p.ins) - 1
	}
	switch m.Kind.Input() {
	case task.TextForm:
		p.texts = input(textInput, inference.BYTES, -1, false)
	case task.TableForm:
		p.table = input(tableInput, inference.BYTES, 1, len(p.ins) > 0)
	case task.SoundForm:
		p.sounds = input(soundInput, inference.BYTES, -1, service.Samples)
		if service.Samples {
			p.samples = input(samplesInput, inference.FP32, -1, true)
		}
	}
	for _, o := range service.Outputs {
		info := inference.Info{Name: o.Name, Datatype: inference.BYTES, Dims: []int{-1}}
		if o.Numbers != nil {
			info.Datatype = inference.FP64
		}
		if o.Labels != nil {
			info.Dims, info.Labels = append(info.Dims, len(o.Labels)), o.Labels
		}
		p.outs = append(p.outs, info)
	}
	if !slices.ContainsFunc(p.outs, func(o inference.Info) bool { return o.Name == jsonOutput }) {
		p.json = len(p.outs)
		p.outs = append(p.outs, inference.Info{Name: jsonOutput, Datatype: inference.BYTES, Dims: []int{-1}})
	}
	return p, nil
}

func (p *taskProgram) Inputs() []inference.Info  { return p.ins }
func (p *taskProgram) Outputs() []inference.Info { return p.outs }
func (p *taskProgram) Platform() string          { return "carousel_" + p.m.Kind.Name }
func (p *taskProgram) Batched() bool             { return p.service.Apart }
func (p *taskProgram) Fingerprint() string       { return p.fingerprint }
func (p *taskProgram) Close()                    {}

// Accepts reports whether an input may have another datatype than its description says: a
// column of a table may be of any numbers or of texts.
func (p *taskProgram) Accepts(input int, t inference.Datatype) bool {
	return input < len(p.service.Columns) && t.Valid() || t == p.ins[input].Datatype
}

// taskOptions are the options of a job.
type taskOptions struct {
	predict any         // the task's options
	key     string      // of what was given
	whole   bool        // the output json is the object that the command prints
	input   *task.Input // in place of tensors; nil: these
	cost    float64     // of input
	rate    int         // of samples, per second
	finish  bool        // the input of a session ends with the job
}

// clientSettings returns the settings of a prediction that a client may give: not the names
// of files, which would be files of this machine.
func clientSettings(options any) []*settings.Setting {
	return slices.DeleteFunc(settings.List(options), func(s *settings.Setting) bool { return s.Kind() == "file" })
}

// reserved are parameters of requests that are not options of a model.
func reserved(name string) bool {
	switch name {
	case "sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "headers", "binary_data_output", "content_type":
		return true
	}
	return strings.HasPrefix(name, "triton_")
}

// Options returns the options of a job for the parameters of a request: those of the
// task's predictions by their names, and for sessions "finish", which ends the input, and of
// sound "rate", samples per second. The error is inference.Invalid and names the parameter.
func (p *taskProgram) Options(params inference.Params) (any, error) {
	o := &taskOptions{}
	given := map[string]string{}
	for name, v := range params {
		text := fmt.Sprint(v)
		switch {
		case reserved(name):
		case name == "finish" && p.service.NewStream != nil:
			yes, ok := v.(bool)
			if !ok {
				return nil, inference.Errorf(inference.Invalid, "parameter finish: want true or false, got %v", v)
			}
			o.finish = yes
		case name == "rate" && p.service.Samples:
			rate, err := strconv.Atoi(text)
			if err != nil || rate < 1 {
				return nil, inference.Errorf(inference.Invalid, "parameter rate: want samples per second, such as 16000, got %v", v)
			}
			o.rate = rate
		default:
			given[name] = text
		}
	}
	names := make([]string, 0, len(given))
	for name := range given {
		names = append(names, name)
	}
	slices.Sort(names)
	return o, p.settle(o, names, func(list []*settings.Setting) error {
		for _, name := range names {
			if err := settings.Named(list, name).Assign(given[name]); err != nil {
				return data.Errorf("%s: %v", name, err)
			}
		}
		return nil
	})
}

// settle sets the task's options of o. assign changes the settings whose names are given.
func (p *taskProgram) settle(o *taskOptions, given []string, assign func([]*settings.Setting) error) error {
	var err error
	o.predict, err = p.m.Options(given, func(options any) error {
		list := clientSettings(options)
		for _, name := range given {
			if settings.Named(list, name) != nil {
				continue
			}
			if settings.Named(settings.List(options), name) != nil {
				return data.Errorf("%s: the option names a file, and a client cannot name files of the server; leave it out", name)
			}
			var known []string
			for _, s := range list {
				known = append(known, s.Name)
			}
			return data.Errorf("unknown option %q%s", name, settings.DidYouMean(name, known, "", "the options are "))
		}
		return assign(list)
	})
	if err == nil && len(given) > 0 {
		list := settings.List(o.predict)
		for name, most := range p.service.Most {
			if x, err := strconv.ParseFloat(settings.Named(list, name).String(), 64); err == nil && x > most {
				return p.fault(data.Errorf("%s: want at most %v from a client, got %v", name, most, x))
			}
		}
		var key strings.Builder
		for _, name := range given {
			fmt.Fprintf(&key, "%s=%q\n", name, settings.Named(list, name).String())
		}
		o.key = key.String()
	}
	return p.fault(err)
}

// fault returns an error as one for clients.
func (p *taskProgram) fault(err error) error {
	if err == nil {
		return nil
	}
	var input *data.InputError
	if errors.As(err, &input) && input.File != "" && p.m.Kind.Input() == task.TableForm {
		named := *input
		named.File = tableInput // not a file of this machine, nor its standard input
		err = &named
	}
	return inference.AsError(err)
}

// Check checks a job's inputs. Jobs of texts or sounds with equal options are computed
// together; the cost is bytes, samples, or rows of a table.
func (p *taskProgram) Check(j *batch.Job) error {
	if j.Options == nil {
		o, err := p.Options(nil)
		if err != nil {
			return err
		}
		j.Options = o
	}
	o := j.Options.(*taskOptions)
	j.Key, j.Rows, j.Cost, j.Alike = j, 1, 0, 0
	if j.Session != nil && p.service.NewStream == nil {
		return inference.Errorf(inference.Unsupported, "the model keeps no state: send requests without a session")
	}
	if o.input != nil {
		j.Rows, j.Cost = max(1, len(o.input.Texts), len(o.input.Sounds)), max(1, o.cost)
		return nil
	}
	given := 0
	for i := range j.Inputs {
		v := &j.Inputs[i]
		if v.Dims == nil {
			continue
		}
		given++
		if n := len(v.Dims); n != 1 && !(n == 2 && v.Dims[1] == 1) {
			return inference.Errorf(inference.Invalid, "input %q: want a shape such as [%d], got %v", p.ins[i].Name, v.Len(), v.Dims)
		}
	}
	has := func(i int) bool { return i >= 0 && j.Inputs[i].Dims != nil }
	switch {
	case given == 0 && (j.Session == nil || !j.End && !o.finish):
		return inference.Errorf(inference.Invalid, "the request has no input; the model takes %s", p.takes())
	case given == 0:
		return nil // the end of a session
	case has(p.texts), has(p.sounds):
		list := j.Inputs[max(p.texts, p.sounds)].Texts
		if has(p.samples) {
			return inference.Errorf(inference.Invalid, "the inputs %s and %s are alternatives: give one", soundInput, samplesInput)
		}
		for _, one := range list {
			j.Cost += float64(len(one))
			j.Alike = max(j.Alike, len(one))
		}
		j.Rows, j.Cost, j.Alike = max(1, len(list)), max(1, j.Cost), max(1, j.Alike)
		switch {
		case j.Session != nil && has(p.sounds):
			return inference.Errorf(inference.Invalid, "a session takes sound as it arrives: give the input %s", samplesInput)
		case j.Session != nil && len(list) != 1:
			return inference.Errorf(inference.Invalid, "input %q: a request of a session has one text, got %d", p.ins[p.texts].Name, len(list))
		case j.Session == nil && p.service.Apart && !o.whole:
			j.Key = o.key
		}
	case has(p.samples):
		if j.Session == nil {
			return inference.Errorf(inference.Invalid, "the input %s is for sessions: give %s, the bytes of a sound file, or open a session", samplesInput, soundInput)
		}
		if o.rate == 0 {
			return inference.Errorf(inference.Invalid, "the parameter rate is missing: give the samples per second, such as 16000")
		}
		j.Cost = float64(j.Inputs[p.samples].Len())
	case has(p.table):
		if given > 1 || len(j.Inputs[p.table].Texts) != 1 {
			return inference.Errorf(inference.Invalid, "the input %s is the text of a whole table, with a line of column names: give one text and no other input", tableInput)
		}
		j.Cost = float64(max(1, strings.Count(j.Inputs[p.table].Texts[0], "\n")))
		if j.Session != nil {
			return inference.Errorf(inference.Invalid, "a session takes the rows of a table by its columns, not the input %s", tableInput)
		}
	default:
		rows := -1
		for i := range p.service.Columns {
			if v := &j.Inputs[i]; v.Dims != nil {
				if n := v.Len(); rows >= 0 && n != rows {
					return inference.Errorf(inference.Invalid, "input %q has %d rows, and the columns before it have %d: all columns of a table have as many", p.ins[i].Name, n, rows)
				} else {
					rows = n
				}
			}
		}
		j.Cost = float64(max(1, rows))
	}
	return nil
}

// takes names the inputs for people.
func (p *taskProgram) takes() string {
	var names []string
	for _, in := range p.ins {
		names = append(names, in.Name)
	}
	return strings.Join(names, ", ")
}

// input returns a job's input as the task takes it.
func (p *taskProgram) input(j *batch.Job) task.Input {
	var in task.Input
	has := func(i int) bool { return i >= 0 && j.Inputs[i].Dims != nil }
	switch given := j.Options.(*taskOptions).input; {
	case given != nil:
		return *given
	case has(p.texts):
		in.Texts = append([]string{}, j.Inputs[p.texts].Texts...) // a list also if it is empty
	case has(p.sounds):
		in.Sounds = []task.Sound{}
		for i, one := range j.Inputs[p.sounds].Texts {
			in.Sounds = append(in.Sounds, task.Sound{Name: fmt.Sprintf("%s %d", soundInput, i+1), Data: []byte(one)})
		}
	case has(p.samples):
		in.Samples = j.Inputs[p.samples].Floats
	case has(p.table):
		in.Stream = strings.NewReader(j.Inputs[p.table].Texts[0])
	default:
		for i, c := range p.service.Columns {
			if v := &j.Inputs[i]; v.Dims != nil {
				in.Table = append(in.Table, column(c.Name, v))
			}
		}
	}
	return in
}

// column returns a tensor as a column of a table.
func column(name string, v *inference.Value) task.Column {
	c := task.Column{Name: name}
	switch {
	case v.Texts != nil:
		c.Texts = v.Texts
	case v.Floats != nil:
		for _, x := range v.Floats {
			c.Numbers = append(c.Numbers, float64(x))
		}
	case v.Ints != nil: // as texts, since not all of them are float64s
		for _, x := range v.Ints {
			c.Texts = append(c.Texts, strconv.FormatInt(x, 10))
		}
	default:
		c.Numbers = v.Doubles
	}
	return c
}

// Run computes jobs. Those of one prediction that fail together are computed alone, so that
// no request fails another.
func (p *taskProgram) Run(ctx context.Context, jobs []*batch.Job) {
	if len(jobs) > 1 && jobs[0].Session == nil && p.together(ctx, jobs) == nil {
		return
	}
	for _, j := range jobs {
		j.Outputs = nil
		j.Compute(func() error {
			if err := ctx.Err(); err != nil {
				return p.fault(err)
			}
			return p.fault(p.single(ctx, j))
		})
	}
}

// single computes one job.
func (p *taskProgram) single(ctx context.Context, j *batch.Job) error {
	o, in := j.Options.(*taskOptions), p.input(j)
	if st, _ := j.State().(task.Stream); st != nil {
		in.Rate = o.rate
		wants := func(output string) bool {
			return slices.ContainsFunc(p.places(output), func(i int) bool { return j.Wanted(i, &p.outs[i]) })
		}
		prediction, err := st.Feed(ctx, &task.Portion{Input: in, Options: o.predict, Last: j.End || o.finish, Wants: wants})
		if err != nil {
			return err
		}
		return p.give(j, prediction, 1, 0, 1)
	}
	if o.whole {
		text, err := p.m.PredictJSON(ctx, in, o.predict)
		if err != nil {
			return err
		}
		j.Outputs = []inference.Value{{Dims: []int{1}, Texts: []string{string(text)}}}
		return nil
	}
	prediction, err := p.m.Predict(ctx, in, o.predict)
	if err != nil {
		return err
	}
	rows := max(len(in.Texts), len(in.Sounds))
	return p.give(j, prediction, rows, 0, rows)
}

// places returns the outputs for which a column of the prediction is needed: the column,
// and the JSON, which has all.
func (p *taskProgram) places(output string) (list []int) {
	for i := range p.outs {
		if i == p.json || p.outs[i].Name == output {
			list = append(list, i)
		}
	}
	return list
}

// together computes jobs as one prediction.
func (p *taskProgram) together(ctx context.Context, jobs []*batch.Job) error {
	var all task.Input
	at := make([]int, 0, len(jobs)+1) // where the rows of each job begin
	for _, j := range jobs {
		in := p.input(j)
		at = append(at, max(len(all.Texts), len(all.Sounds)))
		all.Texts, all.Sounds = append(all.Texts, in.Texts...), append(all.Sounds, in.Sounds...)
		for i := range in.Texts {
			all.Numbers = append(all.Numbers, i+1)
		}
	}
	rows := max(len(all.Texts), len(all.Sounds))
	at = append(at, rows)
	prediction, err := p.m.Predict(ctx, all, jobs[0].Options.(*taskOptions).predict)
	if err != nil {
		return err
	}
	for i, j := range jobs {
		if err := p.give(j, prediction, rows, at[i], at[i+1]); err != nil {
			return err
		}
	}
	return nil
}

// give sets the outputs of a job: the rows [from,to) of a prediction for rows texts or
// sounds. A prediction that is not of such rows is given whole.
func (p *taskProgram) give(j *batch.Job, prediction task.Prediction, rows, from, to int) error {
	j.Outputs = make([]inference.Value, len(p.outs))
	share := func(name string, n int) (lo, hi int, err error) {
		switch {
		case from == 0 && to == rows:
			return 0, n, nil
		case n%rows != 0:
			return 0, 0, fmt.Errorf("output %s has %d values for %d rows", name, n, rows)
		}
		return n / rows * from, n / rows * to, nil
	}
	for i := range p.service.Outputs {
		o := &p.service.Outputs[i]
		if !j.Wanted(i, &p.outs[i]) {
			continue
		}
		var v inference.Value
		width := max(1, len(o.Labels))
		switch {
		case o.Texts != nil:
			all := o.Texts(prediction)
			if all == nil {
				continue // it has no such column
			}
			lo, hi, err := share(o.Name, len(all))
			if err != nil {
				return err
			}
			v.Texts, v.Dims = all[lo:hi], []int{hi - lo}
		default:
			all := o.Numbers(prediction)
			if all == nil {
				continue
			}
			lo, hi, err := share(o.Name, len(all)/width)
			if err != nil {
				return err
			}
			v.Doubles, v.Dims = all[lo*width:hi*width], []int{hi - lo}
		}
		if o.Labels != nil {
			v.Dims = append(v.Dims, width)
		}
		j.Outputs[i] = v
	}
	if p.json < 0 || !j.Wanted(p.json, &p.outs[p.json]) {
		return nil
	}
	texts := []string{}
	if each, n := task.Elements(prediction); each != nil && p.service.Apart && j.Session == nil {
		lo, hi, err := share(jsonOutput, n)
		if err != nil {
			return err
		}
		for i := lo; i < hi; i++ {
			text, err := each(i)
			if err != nil {
				return err
			}
			texts = append(texts, text)
		}
	} else if to-from < rows {
		return fmt.Errorf("the prediction has no list to divide among requests")
	} else {
		text, err := p.m.Kind.JSON(prediction)
		if err != nil {
			return err
		}
		texts = append(texts, string(text))
	}
	j.Outputs[p.json] = inference.Value{Dims: []int{len(texts)}, Texts: texts}
	return nil
}

// NewState returns the state of a session, which is the task's stream.
func (p *taskProgram) NewState() batch.State {
	if p.service.NewStream == nil {
		return nil
	}
	return p.service.NewStream()
}
