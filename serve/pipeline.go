package serve

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

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

// infer runs a request through the stages, each in the scheduler. A sequence is one in
// every stage that keeps a state.
func (p *pipeline) infer(ctx context.Context, s *Server, r *inference.Request, seq sequence, c Caller) (*inference.Response, error) {
	ins, outs, err := p.infos(s)
	if err != nil {
		return nil, err
	}
	if err := r.Resolve(ins, true); err != nil {
		return nil, err
	}
	values := map[string]*inference.Tensor{}
	for i := range r.Inputs {
		t := &r.Inputs[i]
		if !slices.ContainsFunc(ins, func(in inference.Info) bool { return in.Name == t.Name }) {
			return nil, inference.Errorf(inference.Invalid, "model %q has no input %q: it has %s", p.c.Name, t.Name, listed(ins))
		}
		values[t.Name] = t
	}
	kept := false
	for i, stage := range p.c.Stages {
		_, v, err := s.find(stage.Model, "")
		if err != nil {
			return nil, err
		}
		one := &inference.Request{Params: inference.Params{}}
		if x, ok := r.Params["priority"]; ok {
			one.Params["priority"] = x
		}
		for _, in := range v.ins {
			if t := values[named(stage.Inputs, in.Name)]; t != nil && stage.takes(&in) {
				own := *t
				own.Name = in.Name
				one.Inputs = append(one.Inputs, own)
			}
		}
		for _, out := range v.outs {
			if stage.gives(&out) {
				one.Outputs = append(one.Outputs, inference.Output{Name: out.Name})
			}
		}
		its := sequence{}
		if seq.id != "" && v.program().NewState() != nil {
			its, kept = seq, true
		}
		out, err := s.inferNewest(ctx, v, p.session(i), one, its, c, time.Now())
		if err != nil {
			fault := *inference.AsError(err)
			fault.Msg = fmt.Sprintf("stage %d of %q, model %q: %s", i+1, p.c.Name, stage.Model, fault.Msg)
			return nil, &fault
		}
		for k := range out.Outputs {
			t := &out.Outputs[k]
			t.Name = named(stage.Outputs, t.Name)
			values[t.Name] = t
		}
	}
	if seq.id != "" && !kept {
		return nil, inference.Errorf(inference.Unsupported, "no model of %q keeps a state: send requests without a sequence", p.c.Name)
	}
	out := &inference.Response{Model: p.c.Name, Version: "1", ID: r.ID}
	add := func(info *inference.Info, classes int) {
		t := values[info.Name]
		if t == nil {
			return
		}
		if classes > 0 {
			t = &inference.Tensor{Name: info.Name, Datatype: inference.BYTES, Value: classify(&t.Value, classes, info.Labels)}
		}
		out.Outputs = append(out.Outputs, *t)
	}
	if r.Outputs == nil {
		for i := range outs {
			add(&outs[i], 0)
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
		add(&outs[at], classes)
	}
	return out, nil
}
