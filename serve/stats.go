package serve

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/carousel-ml/carousel/serve/batch"
	"github.com/carousel-ml/carousel/serve/inference"
	pb "github.com/carousel-ml/carousel/serve/inferencepb"
)

// What the server says of itself and of its models is made once, as gRPC's messages; REST
// has their JSON.

// extensions are those of the protocol that the server has.
var extensions = []string{
	"binary_tensor_data", "classification", "model_configuration", "model_repository", "model_repository(unload_dependents)",
	"parameters", "schedule_policy", "sequence", "sequence(string_id)", "statistics",
}

// metadata describes the server.
func (s *Server) metadata() *pb.ServerMetadataResponse {
	return &pb.ServerMetadataResponse{Name: "carousel", Version: s.o.Version, Extensions: extensions}
}

// modelReady returns why a version of a model, the newest for "", cannot be asked; nil if
// it can.
func (s *Server) modelReady(name, number string) error {
	e, _, err := s.find(name, number)
	if err == nil && e.pipeline != nil {
		_, _, err = e.pipeline.infos(s)
	}
	return err
}

// infosOf returns the inputs and outputs of a version, v, or of a pipeline, that requests
// give and get: the states that a session keeps are not among them.
func (s *Server) infosOf(e *entry, v *version) (ins, outs []inference.Info, err error) {
	if e.pipeline != nil {
		return e.pipeline.infos(s)
	}
	for _, in := range v.ins {
		if !in.State {
			ins = append(ins, in)
		}
	}
	for _, out := range v.outs {
		if !out.State {
			outs = append(outs, out)
		}
	}
	return ins, outs, nil
}

// modelMetadata describes a model.
func (s *Server) modelMetadata(name, number string) (*pb.ModelMetadataResponse, error) {
	e, v, err := s.find(name, number)
	if err != nil {
		return nil, err
	}
	ins, outs, err := s.infosOf(e, v)
	if err != nil {
		return nil, err
	}
	m := &pb.ModelMetadataResponse{Name: name, Platform: "ensemble", Versions: []string{"1"}}
	if v != nil {
		m.Platform, m.Versions = v.program().Platform(), nil
		for _, v := range e.versions {
			m.Versions = append(m.Versions, v.number)
		}
	}
	for _, in := range ins {
		m.Inputs = append(m.Inputs, tensorMetadata(&in))
	}
	for _, out := range outs {
		m.Outputs = append(m.Outputs, tensorMetadata(&out))
	}
	return m, nil
}

func tensorMetadata(i *inference.Info) *pb.ModelMetadataResponse_TensorMetadata {
	return &pb.ModelMetadataResponse_TensorMetadata{Name: i.Name, Datatype: string(i.Datatype), Shape: sizes(i.Dims)}
}

func sizes(dims []int) []int64 {
	list := make([]int64, len(dims))
	for i, d := range dims {
		list[i] = int64(d)
	}
	return list
}

// configType returns a datatype by its name in a configuration.
func configType(d inference.Datatype) pb.DataType {
	if d == inference.BYTES {
		return pb.DataType_TYPE_STRING
	}
	return pb.DataType(pb.DataType_value["TYPE_"+string(d)])
}

// axes returns the batch dimension of each input and output; ok is false if rows are not
// computed together.
func axes(p batch.Program) (in, out []int, ok bool) {
	if g, graph := p.(*graphProgram); graph {
		return g.inAxis, g.outAxis, g.batched
	}
	return make([]int, len(p.Inputs())), make([]int, len(p.Outputs())), p.Batched()
}

// modelConfig returns a model's configuration in Triton's terms. There the batch is the
// first dimension of all tensors and left out of their shapes; a model that has it in
// another place says max_batch_size 0, shapes in full, and batch_rows among the parameters.
func (s *Server) modelConfig(name, number string) (*pb.ModelConfig, error) {
	e, v, err := s.find(name, number)
	if err != nil {
		return nil, err
	}
	c := &pb.ModelConfig{Name: name, Backend: "carousel", Platform: "ensemble", Parameters: map[string]*pb.ModelParameter{},
		VersionPolicy:          &pb.ModelVersionPolicy{PolicyChoice: &pb.ModelVersionPolicy_Latest_{Latest: &pb.ModelVersionPolicy_Latest{NumVersions: uint32(max(1, e.c.Versions))}}},
		ModelTransactionPolicy: &pb.ModelTransactionPolicy{}}
	ins, outs, err := s.infosOf(e, v)
	if err != nil {
		return nil, err
	}
	skip := 0 // dimensions that are left out
	if v != nil {
		skip = s.scheduling(c, v)
	} else {
		steps := &pb.ModelEnsembling{}
		for _, stage := range e.pipeline.c.Stages {
			steps.Step = append(steps.Step, &pb.ModelEnsembling_Step{ModelName: stage.Model, ModelVersion: -1, InputMap: stage.Inputs, OutputMap: stage.Outputs})
		}
		c.SchedulingChoice = &pb.ModelConfig_EnsembleScheduling{EnsembleScheduling: steps}
	}
	for _, in := range ins {
		c.Input = append(c.Input, &pb.ModelInput{Name: in.Name, DataType: configType(in.Datatype), Dims: sizes(in.Dims[skip:]), Optional: in.Optional})
	}
	for _, out := range outs {
		c.Output = append(c.Output, &pb.ModelOutput{Name: out.Name, DataType: configType(out.Datatype), Dims: sizes(out.Dims[skip:])})
		if out.Labels != nil {
			text, err := json.Marshal(out.Labels)
			if err != nil {
				return nil, err
			}
			c.Parameters["labels:"+out.Name] = &pb.ModelParameter{StringValue: string(text)}
		}
	}
	return c, nil
}

// scheduling sets what a configuration says of batches and sequences, and returns the
// number of first dimensions that its shapes leave out.
func (s *Server) scheduling(c *pb.ModelConfig, v *version) (skip int) {
	p, o := v.program(), v.q.Options()
	c.Platform = p.Platform()
	inAxis, outAxis, batched := axes(p)
	first := batched
	for i, in := range v.ins {
		first = first && (in.State || inAxis[i] == 0)
	}
	for i, out := range v.outs {
		first = first && (out.State || outAxis[i] == 0)
	}
	switch {
	case first:
		c.MaxBatchSize, skip = int32(min(o.Rows, 1<<30)), 1
	case batched:
		c.Parameters["batch_rows"] = &pb.ModelParameter{StringValue: strconv.Itoa(o.Rows)}
	}
	if p.NewState() == nil {
		if batched {
			c.SchedulingChoice = &pb.ModelConfig_DynamicBatching{DynamicBatching: &pb.ModelDynamicBatching{DefaultQueuePolicy: &pb.ModelQueuePolicy{
				AllowTimeoutOverride: true, MaxQueueSize: uint32(o.Jobs), DefaultTimeoutMicroseconds: uint64(s.limits().Timeout.Microseconds())}}}
		}
		return skip
	}
	life := cmp.Or(v.c.Life, s.sessions.Options().Life)
	seq := &pb.ModelSequenceBatching{MaxSequenceIdleMicroseconds: uint64(life.Microseconds()),
		StrategyChoice: &pb.ModelSequenceBatching_Oldest{Oldest: &pb.ModelSequenceBatching_StrategyOldest{MaxCandidateSequences: int32(min(s.sessions.Options().Most, 1<<30))}}}
	c.SchedulingChoice = &pb.ModelConfig_SequenceBatching{SequenceBatching: seq}
	g, ok := p.(*graphProgram)
	if !ok {
		return skip // its state is no tensor
	}
	for i, out := range v.outs {
		if !out.State {
			continue
		}
		in := v.ins[g.from[i]]
		dims := sizes(in.Dims)
		if skip > 0 {
			dims = append(dims[:inAxis[g.from[i]]], dims[inAxis[g.from[i]]+1:]...)
		}
		seq.State = append(seq.State, &pb.ModelSequenceBatching_State{InputName: in.Name, OutputName: out.Name, DataType: configType(in.Datatype), Dims: dims,
			InitialState: []*pb.ModelSequenceBatching_InitialState{{Name: "zeros", DataType: configType(in.Datatype), Dims: dims,
				StateData: &pb.ModelSequenceBatching_InitialState_ZeroData{ZeroData: true}}}})
	}
	return skip
}

// statistics returns the statistics of a version of a model, or of all of them for "", and
// of all models for the name "". Pipelines have none of their own.
func (s *Server) statistics(name, number string) (*pb.ModelStatisticsResponse, error) {
	out := &pb.ModelStatisticsResponse{}
	if name == "" {
		for _, e := range s.models.list() {
			for _, v := range e.versions {
				out.ModelStats = append(out.ModelStats, v.statistics())
			}
		}
		return out, nil
	}
	e, _, err := s.find(name, number)
	if err != nil {
		return nil, err
	}
	if e.pipeline != nil {
		return nil, inference.Errorf(inference.Unsupported, "model %q is a pipeline, which has no statistics of its own; ask for those of its models", name)
	}
	for _, v := range e.versions {
		if number == "" || v.number == number {
			out.ModelStats = append(out.ModelStats, v.statistics())
		}
	}
	return out, nil
}

// statistics returns the version's statistics: sums since it was loaded. Requests that were
// refused or given up count as failed, without a time.
func (v *version) statistics() *pb.ModelStatistics {
	st := v.q.Stats()
	decoded, encoded := time.Duration(v.decoded.Load()), time.Duration(v.encoded.Load())
	of := func(n uint64, d time.Duration) *pb.StatisticDuration {
		return &pb.StatisticDuration{Count: n, Ns: uint64(d)}
	}
	m := &pb.ModelStatistics{Name: v.name, Version: v.number, InferenceCount: st.Rows, ExecutionCount: st.Batches,
		InferenceStats: &pb.InferStatistics{
			Success:       of(st.Succeeded, decoded+st.Queued+st.Computed+encoded),
			Fail:          of(st.Failed+st.Refused+st.Canceled, st.FailedFor),
			Queue:         of(st.Succeeded, st.Queued),
			ComputeInput:  of(st.Succeeded, decoded),
			ComputeInfer:  of(st.Succeeded, st.Computed),
			ComputeOutput: of(st.Succeeded, encoded),
			CacheHit:      of(0, 0),
			CacheMiss:     of(0, 0),
		}}
	if !st.Last.IsZero() {
		m.LastInference = uint64(st.Last.UnixMilli())
	}
	sizes := v.q.Sizes()
	for _, rows := range slices.Sorted(maps.Keys(sizes)) {
		// The inputs of a batch are copied, and its outputs divided, in its time.
		n := sizes[rows]
		m.BatchStats = append(m.BatchStats, &pb.InferBatchStatistics{BatchSize: uint64(rows), ComputeInput: of(n.Batches, 0), ComputeInfer: of(n.Batches, n.Took), ComputeOutput: of(n.Batches, 0)})
	}
	return m
}

// index lists the models, or those that are ready.
func (s *Server) index(ready bool) *pb.RepositoryIndexResponse {
	out := &pb.RepositoryIndexResponse{}
	add := func(name, version, reason string, is bool) {
		m := &pb.RepositoryIndexResponse_ModelIndex{Name: name, Version: version, State: "READY", Reason: reason}
		if !is {
			m.State = "UNAVAILABLE"
		}
		if is || !ready {
			out.Models = append(out.Models, m)
		}
	}
	for _, e := range s.models.list() {
		switch {
		case e.pipeline != nil:
			err := s.modelReady(e.name, "")
			reason := ""
			if err != nil {
				reason = err.Error()
			}
			add(e.name, "1", reason, err == nil)
		case len(e.versions) == 0:
			add(e.name, "", cmp.Or(e.reason, "it is unloaded"), false)
		}
		for _, v := range e.versions {
			add(e.name, v.number, e.reason, true)
		}
	}
	return out
}

// load loads a model again. parameters are those of the request.
func (s *Server) load(repository, name string, parameters func(yield func(string, any) bool)) error {
	if err := oneRepository(repository); err != nil {
		return err
	}
	for key := range parameters {
		return inference.Errorf(inference.Unsupported, "parameter %q: a model is loaded from the files and with the options of the server's configuration; leave it out", key)
	}
	return s.Load(context.Background(), name)
}

// unload takes a model from service, and with the parameter unload_dependents the models
// of a pipeline with it.
func (s *Server) unload(ctx context.Context, repository, name string, parameters func(yield func(string, any) bool)) error {
	if err := oneRepository(repository); err != nil {
		return err
	}
	with := false
	for key, value := range parameters {
		yes, ok := value.(bool)
		if key != "unload_dependents" || !ok {
			return inference.Errorf(inference.Invalid, "parameter %q: expected unload_dependents, true or false, got %v", key, value)
		}
		with = yes
	}
	e := s.models.get(name) // before it is unloaded, and perhaps forgotten
	if err := s.Unload(ctx, name, false); err != nil {
		return err
	}
	if e == nil || e.pipeline == nil || !with {
		return nil
	}
	for _, stage := range e.pipeline.c.Stages {
		if err := s.Unload(ctx, stage.Model, false); err != nil {
			return err
		}
	}
	return nil
}

func oneRepository(name string) error {
	if name != "" {
		return inference.Errorf(inference.Unsupported, "repository %q: the server has one, without a name; leave it out", name)
	}
	return nil
}

// jsonOf returns a message as Triton's REST has it: names as in the .proto files, fields of
// a default value included, integers as numbers and enumerations by name. It is not the
// JSON of protobuf, which writes 64-bit integers as texts.
func jsonOf(m proto.Message) any { return jsonMessage(m.ProtoReflect()) }

func jsonMessage(m protoreflect.Message) map[string]any {
	out := map[string]any{}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		v, name := m.Get(f), string(f.Name())
		switch {
		case f.IsMap():
			all := map[string]any{}
			v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				all[k.String()] = jsonField(f.MapValue(), v)
				return true
			})
			out[name] = all
		case f.IsList():
			all := make([]any, v.List().Len())
			for k := range all {
				all[k] = jsonField(f, v.List().Get(k))
			}
			out[name] = all
		case m.Has(f) || !f.HasPresence(): // of messages and choices those that are set
			out[name] = jsonField(f, v)
		}
	}
	return out
}

func jsonField(f protoreflect.FieldDescriptor, v protoreflect.Value) any {
	switch f.Kind() {
	case protoreflect.MessageKind:
		return jsonMessage(v.Message())
	case protoreflect.EnumKind:
		return string(f.Enum().Values().ByNumber(v.Enum()).Name())
	}
	return v.Interface()
}
