package serve

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/carousel-ml/carousel/serve/batch"
	"github.com/carousel-ml/carousel/serve/inference"
)

// PipelineConfig is models that are one model to clients: outputs of one are inputs of the
// next.
type PipelineConfig struct {
	Name   string
	Stages []StageConfig
	// Outputs are the values that the pipeline answers with; empty: the outputs of the
	// last stage.
	Outputs []string

	place string // in a configuration file; "": none
}

// same reports whether two pipelines are of the same stages.
func (c PipelineConfig) same(other PipelineConfig) bool {
	return c.Name == other.Name && slices.Equal(c.Outputs, other.Outputs) && slices.EqualFunc(c.Stages, other.Stages, func(a, b StageConfig) bool {
		return a.Model == b.Model && maps.Equal(a.Inputs, b.Inputs) && maps.Equal(a.Outputs, b.Outputs)
	})
}

// StageConfig is a model of a pipeline. Values have names: those of the pipeline's inputs,
// and those that stages give to their outputs.
type StageConfig struct {
	Model string
	// Inputs has the value that an input takes, Outputs the name that an output gets; one
	// that is not listed has the name that it has in its model.
	Inputs, Outputs map[string]string

	place string // in a configuration file; "": none
}

type pipeline struct{ c PipelineConfig }

// AddPipeline adds a pipeline of models that were added before. An error about one of a
// configuration file is a [*model.FileError] with the line.
func (s *Server) AddPipeline(c PipelineConfig) error {
	if err := c.check(s.models.list()); err != nil {
		return err
	}
	s.models.mu.Lock()
	defer s.models.mu.Unlock()
	if s.models.entries[c.Name] != nil {
		return placed(c.place, fmt.Errorf("two models have the name %q", c.Name))
	}
	s.models.entries[c.Name] = &entry{name: c.Name, pipeline: &pipeline{c}, wanted: true}
	return nil
}

// check checks a pipeline against the models that there are. What a model without versions
// has is not known.
func (c *PipelineConfig) check(models []*entry) error {
	if err := checkName(c.Name); err != nil {
		return placed(c.place, err)
	}
	if len(c.Stages) == 0 {
		return placed(c.place, fmt.Errorf("pipeline %q has no stages", c.Name))
	}
	newest := map[string]*version{}
	for i := range c.Stages {
		stage := &c.Stages[i]
		wrong := func(format string, args ...any) error {
			return placed(stage.place, fmt.Errorf("pipeline %q, stage %d: %s", c.Name, i+1, fmt.Sprintf(format, args...)))
		}
		at := slices.IndexFunc(models, func(e *entry) bool { return e.name == stage.Model && e.pipeline == nil })
		if at < 0 {
			return wrong("unknown model %q; the server has %s", stage.Model, namesOf(models))
		}
		if len(models[at].versions) == 0 {
			continue
		}
		v := models[at].versions[0]
		for _, in := range slices.Sorted(maps.Keys(stage.Inputs)) {
			if _, ok := v.inAt[in]; !ok {
				return wrong("model %q has no input %q: it has %s", stage.Model, in, listed(v.ins))
			}
		}
		for _, out := range slices.Sorted(maps.Keys(stage.Outputs)) {
			if _, ok := v.outAt[out]; !ok {
				return wrong("model %q has no output %q: it has %s", stage.Model, out, listed(v.outs))
			}
		}
		newest[stage.Model] = v
	}
	for i := range c.Stages {
		if newest[c.Stages[i].Model] == nil {
			return nil // which outputs there are is not known
		}
	}
	if _, _, err := c.infos(func(model string) (*version, error) { return newest[model], nil }); err != nil {
		return placed(c.place, err)
	}
	return nil
}

// session is the name under which a stage's sessions are: no model has it.
func (p *pipeline) session(stage int) string { return p.c.Name + "/" + strconv.Itoa(stage+1) }

func named(m map[string]string, name string) string {
	if other, ok := m[name]; ok {
		return other
	}
	return name
}

// takes and gives report whether a stage's input or output is among the pipeline's values: of
// states those that are named.
func (c *StageConfig) takes(in *inference.Info) bool  { return !in.State || c.Inputs[in.Name] != "" }
func (c *StageConfig) gives(out *inference.Info) bool { return !out.State || c.Outputs[out.Name] != "" }

// infos returns the inputs and outputs, as the stages' newest versions have them.
func (p *pipeline) infos(s *Server) (ins, outs []inference.Info, err error) {
	return p.c.infos(func(model string) (*version, error) {
		_, v, err := s.find(model, "")
		return v, err
	})
}

func (c *PipelineConfig) infos(newest func(model string) (*version, error)) (ins, outs []inference.Info, err error) {
	have := map[string]inference.Info{}
	for i, stage := range c.Stages {
		v, err := newest(stage.Model)
		if err != nil {
			return nil, nil, err
		}
		for _, in := range v.ins {
			name := named(stage.Inputs, in.Name)
			if _, ok := have[name]; ok || !stage.takes(&in) {
				continue
			}
			in.Name = name
			ins = append(ins, in)
			have[name] = in
		}
		for _, out := range v.outs {
			if !stage.gives(&out) {
				continue
			}
			out.Name = named(stage.Outputs, out.Name)
			have[out.Name] = out
			if i == len(c.Stages)-1 && len(c.Outputs) == 0 {
				outs = append(outs, out)
			}
		}
	}
	for _, name := range c.Outputs {
		out, ok := have[name]
		if !ok {
			return nil, nil, inference.Errorf(inference.Internal, "pipeline %q: no stage has the output %q", c.Name, name)
		}
		outs = append(outs, out)
	}
	return ins, outs, nil
}

// step is a stage as a request finds it.
type step struct {
	*StageConfig
	v     *version
	keeps bool // it keeps a state for the request's sequence
}

// request returns that of a stage for the values that there are.
func (c *step) request(values map[string]*inference.Tensor, params inference.Params) *inference.Request {
	one := &inference.Request{Params: params}
	for _, in := range c.v.ins {
		if t := values[named(c.Inputs, in.Name)]; t != nil && c.takes(&in) {
			own := *t
			own.Name = in.Name
			one.Inputs = append(one.Inputs, own)
		}
	}
	for _, out := range c.v.outs {
		if c.gives(&out) {
			one.Outputs = append(one.Outputs, inference.Output{Name: out.Name})
		}
	}
	return one
}

// infer runs a request through the stages, each in the scheduler. A sequence is one in
// every stage that keeps a state. What can be refused is, before a state has changed; if a stage
// fails after one that keeps a state, the sequence is over in all.
func (p *pipeline) infer(ctx context.Context, s *Server, r *inference.Request, seq sequence, c Caller) (*inference.Response, error) {
	ins, outs, err := p.infos(s)
	if err != nil {
		return nil, err
	}
	steps, err := p.steps(s, seq)
	if err != nil {
		return nil, err
	}
	values, err := p.given(r, ins)
	if err != nil {
		return nil, err
	}
	answers, err := p.wanted(r, outs)
	if err != nil {
		return nil, err
	}
	if seq.id != "" && !slices.ContainsFunc(steps, func(one step) bool { return one.keeps }) {
		return nil, inference.Errorf(inference.Unsupported, "no model of %q keeps a state: send requests without a sequence", p.c.Name)
	}
	params := inference.Params{}
	if x, ok := r.Params["priority"]; ok {
		params["priority"] = x
	}
	if err := p.check(r, steps, values, params, seq, c); err != nil {
		return nil, err
	}
	changed := false // a state
	for i := range steps {
		one, its := &steps[i], sequence{}
		if one.keeps {
			its = seq
		}
		out, err := s.inferNewest(ctx, one.v, p.session(i), one.request(values, params), its, c, time.Now())
		if err != nil {
			fault := p.fault(i, err)
			if changed {
				p.end(s, seq.id, c)
				fault.Msg += "; the sequence is over, since stages before have gone on: begin it anew"
			}
			return nil, fault
		}
		changed = changed || one.keeps
		for k := range out.Outputs {
			t := &out.Outputs[k]
			t.Name = named(one.Outputs, t.Name)
			values[t.Name] = t
		}
	}
	out := &inference.Response{Model: p.c.Name, Version: "1", ID: r.ID}
	for _, a := range answers {
		t := values[a.info.Name]
		switch {
		case t == nil:
			continue
		case a.classes > 0:
			t = &inference.Tensor{Name: t.Name, Datatype: inference.BYTES, Value: classify(t, a.classes, a.info.Labels)}
		}
		out.Outputs = append(out.Outputs, *t)
	}
	return out, nil
}

// steps finds the stages' newest versions.
func (p *pipeline) steps(s *Server, seq sequence) ([]step, error) {
	list := make([]step, len(p.c.Stages))
	for i := range list {
		_, v, err := s.find(p.c.Stages[i].Model, "")
		if err != nil {
			return nil, err
		}
		list[i] = step{&p.c.Stages[i], v, seq.id != "" && v.program().NewState() != nil}
	}
	return list, nil
}

// given returns a request's inputs by their names.
func (p *pipeline) given(r *inference.Request, ins []inference.Info) (map[string]*inference.Tensor, error) {
	if err := r.Resolve(ins, true); err != nil {
		return nil, err
	}
	values := map[string]*inference.Tensor{}
	for i := range r.Inputs {
		t := &r.Inputs[i]
		switch {
		case !slices.ContainsFunc(ins, func(in inference.Info) bool { return in.Name == t.Name }):
			return nil, inference.Errorf(inference.Invalid, "model %q has no input %q: it has %s", p.c.Name, t.Name, listed(ins))
		case values[t.Name] != nil:
			return nil, inference.Errorf(inference.Invalid, "input %q is given twice", t.Name)
		}
		values[t.Name] = t
	}
	return values, nil
}

// answer is an output that a request wants, with classes as those.
type answer struct {
	info    *inference.Info
	classes int
}

// wanted returns what a request wants of the outputs.
func (p *pipeline) wanted(r *inference.Request, outs []inference.Info) (list []answer, err error) {
	if r.Outputs == nil {
		for i := range outs {
			list = append(list, answer{&outs[i], 0})
		}
	}
	for i := range r.Outputs {
		o := &r.Outputs[i]
		at := slices.IndexFunc(outs, func(out inference.Info) bool { return out.Name == o.Name })
		if at < 0 {
			return nil, inference.Errorf(inference.Invalid, "model %q has no output %q: it has %s", p.c.Name, o.Name, listed(outs))
		}
		classes, err := classesOf(o, &outs[at])
		if err != nil {
			return nil, err
		}
		list = append(list, answer{&outs[at], classes})
	}
	for _, a := range list {
		if a.classes == 0 {
			if err := r.Writable(a.info.Name, a.info.Datatype); err != nil {
				return nil, err
			}
		}
	}
	return list, nil
}

// check checks what is known of a request before the first stage: its parameters, and of each
// stage the inputs that no other gives.
func (p *pipeline) check(r *inference.Request, steps []step, values map[string]*inference.Tensor, params inference.Params, seq sequence, c Caller) error {
	for i := range steps {
		if _, some := steps[i].v.program().(optioned); !some {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(r.Params)) {
			if !reserved(name) {
				return inference.Errorf(inference.Invalid, "unknown parameter %q: stages of the pipeline %q, such as model %q, take no options; send the request to the model, or leave it out", name, p.c.Name, steps[i].Model)
			}
		}
	}
	known := maps.Clone(values)
	for i := range steps {
		one := &steps[i]
		j, _, err := one.v.job(one.request(known, params), c)
		if err == nil {
			err = one.check(j, known, seq)
		}
		if err != nil {
			return p.fault(i, err)
		}
		for _, out := range one.v.outs {
			if one.gives(&out) {
				known[named(one.Outputs, out.Name)] = nil // what it will be is not known
			}
		}
	}
	return nil
}

// check checks a stage's job, of inputs that have no value yet as much as can be.
func (c *step) check(j *batch.Job, known map[string]*inference.Tensor, seq sequence) error {
	later := func(i int) bool {
		t, ok := known[named(c.Inputs, c.v.ins[i].Name)]
		return ok && t == nil
	}
	program, some := c.v.program().(partial)
	whole := true
	for i := range c.v.ins {
		switch {
		case later(i):
			whole = false
		case some:
			if err := program.checkInput(i, &j.Inputs[i]); err != nil {
				return err
			}
		}
	}
	if !whole {
		return nil
	}
	if c.keeps { // which one does not matter yet
		j.Session, j.Begin, j.End = &batch.Session{}, seq.start, seq.end
	}
	return c.v.program().Check(j)
}

// partial is a program that can check an input without the others.
type partial interface {
	checkInput(i int, v *inference.Value) error
}

// fault returns the error of a stage.
func (p *pipeline) fault(stage int, err error) *inference.Error {
	fault := *inference.AsError(err)
	fault.Msg = fmt.Sprintf("stage %d of %q, model %q: %s", stage+1, p.c.Name, p.c.Stages[stage].Model, fault.Msg)
	return &fault
}

// end ends a sequence whose stages have not all gone on.
func (p *pipeline) end(s *Server, id string, c Caller) {
	for i := range p.c.Stages {
		if n, err := s.sessions.Find(p.session(i), id); err == nil && allowed(c, n) {
			n.End(batch.Failed)
		}
	}
}
