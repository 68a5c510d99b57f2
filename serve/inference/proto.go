package inference

import (
	"fmt"

	pb "github.com/carousel-ml/carousel/serve/inferencepb"
)

// WantsRaw reports whether the answer to a request shall have raw contents: not if an
// input of the request has typed contents. Triton's clients send raw contents and read
// no others but bytes.
func WantsRaw(m *pb.ModelInferRequest) bool {
	for _, in := range m.GetInputs() {
		if countContents(in.GetContents()) > 0 {
			return false
		}
	}
	return true
}

// RequestFromProto returns a gRPC message as a request, which may share its memory.
// Errors are of *Error.
func RequestFromProto(m *pb.ModelInferRequest) (*Request, error) {
	r := &Request{Model: m.GetModelName(), Version: m.GetModelVersion(), ID: m.GetId()}
	var err error
	if r.Params, err = paramsFromProto("the request", m.GetParameters()); err != nil {
		return nil, err
	}
	raw := m.GetRawInputContents()
	if len(raw) > 0 && len(raw) != len(m.GetInputs()) {
		return nil, Errorf(Invalid, "raw_input_contents has %d entries for %d inputs, expected one for each input or none", len(raw), len(m.GetInputs()))
	}
	r.Inputs = make([]Tensor, len(m.GetInputs()))
	for i, in := range m.GetInputs() {
		if err := r.Inputs[i].fromProto("input", in, raw, i); err != nil {
			return nil, err
		}
	}
	for _, out := range m.GetOutputs() {
		o := Output{Name: out.GetName()}
		if o.Params, err = paramsFromProto(fmt.Sprintf("output %q", o.Name), out.GetParameters()); err != nil {
			return nil, err
		}
		if o.Params[sharedMemory] != nil {
			return nil, noSharedMemory("output", o.Name)
		}
		r.Outputs = append(r.Outputs, o)
	}
	return r, nil
}

// ResponseFromProto returns a gRPC message as a response, which may share its memory.
// Errors are of *Error.
func ResponseFromProto(m *pb.ModelInferResponse) (*Response, error) {
	r := &Response{Model: m.GetModelName(), Version: m.GetModelVersion(), ID: m.GetId()}
	var err error
	if r.Params, err = paramsFromProto("the response", m.GetParameters()); err != nil {
		return nil, err
	}
	raw := m.GetRawOutputContents()
	if len(raw) > 0 && len(raw) != len(m.GetOutputs()) {
		return nil, Errorf(Invalid, "raw_output_contents has %d entries for %d outputs, expected one for each output or none", len(raw), len(m.GetOutputs()))
	}
	r.Outputs = make([]Tensor, len(m.GetOutputs()))
	for i, out := range m.GetOutputs() {
		if err := r.Outputs[i].fromProto("output", out, raw, i); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// tensorMessage is what messages of inputs and outputs have in common.
type tensorMessage interface {
	GetName() string
	GetDatatype() string
	GetShape() []int64
	GetParameters() map[string]*pb.InferParameter
	GetContents() *pb.InferTensorContents
}

// fromProto sets the tensor from message i; raw are the raw contents of all, if any.
func (t *Tensor) fromProto(what string, m tensorMessage, raw [][]byte, i int) error {
	wrong := func(problem string) error { return Errorf(Invalid, "%s %q: %s", what, m.GetName(), problem) }
	t.Name, t.Datatype = m.GetName(), Datatype(m.GetDatatype())
	if _, problem := elements(m.GetShape()); problem != "" {
		return wrong(problem)
	}
	t.Dims = make([]int, len(m.GetShape()))
	for k, d := range m.GetShape() {
		t.Dims[k] = int(d)
	}
	n, problem := t.count()
	if problem != "" {
		return wrong(problem)
	}
	var err error
	if t.Params, err = paramsFromProto(fmt.Sprintf("%s %q", what, t.Name), m.GetParameters()); err != nil {
		return err
	}
	switch {
	case t.Params[sharedMemory] != nil:
		return noSharedMemory(what, t.Name)
	case len(raw) == 0:
		problem = t.setContents(m.GetContents(), n)
	case countContents(m.GetContents()) > 0:
		problem = "has contents beside raw contents, expected one of them for all tensors"
	default:
		problem = t.setBytes(raw[i], n)
	}
	if problem != "" {
		return wrong(problem)
	}
	return nil
}

// countContents returns the number of elements in all fields.
func countContents(c *pb.InferTensorContents) int {
	return len(c.GetBoolContents()) + len(c.GetIntContents()) + len(c.GetInt64Contents()) + len(c.GetUintContents()) +
		len(c.GetUint64Contents()) + len(c.GetFp32Contents()) + len(c.GetFp64Contents()) + len(c.GetBytesContents())
}

// setContents sets the n elements of a tensor from typed contents.
func (t *Tensor) setContents(c *pb.InferTensorContents, n int) (problem string) {
	field, have := "", 0
	switch t.Datatype {
	case FP16, BF16:
		if n == 0 && countContents(c) == 0 {
			return ""
		}
		return string(t.Datatype) + " has no typed contents; send raw contents"
	case BOOL:
		field, have = "bool_contents", len(c.GetBoolContents())
	case INT8, INT16, INT32:
		field, have = "int_contents", len(c.GetIntContents())
	case INT64:
		field, have = "int64_contents", len(c.GetInt64Contents())
	case UINT8, UINT16, UINT32:
		field, have = "uint_contents", len(c.GetUintContents())
	case UINT64:
		field, have = "uint64_contents", len(c.GetUint64Contents())
	case FP32:
		field, have = "fp32_contents", len(c.GetFp32Contents())
	case FP64:
		field, have = "fp64_contents", len(c.GetFp64Contents())
	case BYTES:
		field, have = "bytes_contents", len(c.GetBytesContents())
	}
	if all := countContents(c); have != n || all != n {
		return fmt.Sprintf("%s has %d elements and the other contents %d, expected %d and 0 for shape %s of %s", field, have, all-have, n, shapeText(t.Dims), t.Datatype)
	}
	switch t.Datatype {
	case BOOL:
		t.Ints = make([]int64, n)
		for i, x := range c.GetBoolContents() {
			if x {
				t.Ints[i] = 1
			}
		}
	case INT8, INT16, INT32:
		return setRanged(t, c.GetIntContents())
	case INT64:
		t.Ints = c.GetInt64Contents()
	case UINT8, UINT16, UINT32:
		return setRanged(t, c.GetUintContents())
	case UINT64:
		return setRanged(t, c.GetUint64Contents())
	case FP32:
		t.Floats = c.GetFp32Contents()
	case FP64:
		t.Doubles = c.GetFp64Contents()
	case BYTES:
		t.Texts = make([]string, n)
		for i, x := range c.GetBytesContents() {
			t.Texts[i] = string(x)
		}
	}
	return ""
}

// setRanged sets integers that must be within the range of the tensor's datatype.
func setRanged[T int32 | uint32 | uint64](t *Tensor, list []T) (problem string) {
	t.Ints = make([]int64, len(list))
	lo, hi := t.Datatype.bounds()
	for i, x := range list {
		t.Ints[i] = int64(x)
		if int64(x) < lo || int64(x) > hi {
			return fmt.Sprintf("element %d is %d, expected %s", i, x, t.Datatype.rangeText())
		}
	}
	return ""
}

func paramsFromProto(of string, m map[string]*pb.InferParameter) (Params, error) {
	if len(m) == 0 {
		return nil, nil
	}
	p := make(Params, len(m))
	for name, v := range m {
		switch v := v.GetParameterChoice().(type) {
		case *pb.InferParameter_BoolParam:
			p[name] = v.BoolParam
		case *pb.InferParameter_Int64Param:
			p[name] = v.Int64Param
		case *pb.InferParameter_Uint64Param:
			p[name] = v.Uint64Param
		case *pb.InferParameter_DoubleParam:
			p[name] = v.DoubleParam
		case *pb.InferParameter_StringParam:
			p[name] = v.StringParam
		default:
			return nil, Errorf(Invalid, "%s: parameter %q has no value, expected a bool, int64, uint64, double or string", of, name)
		}
	}
	return p, nil
}

func (p Params) toProto() map[string]*pb.InferParameter {
	if len(p) == 0 {
		return nil
	}
	m := make(map[string]*pb.InferParameter, len(p))
	for name, v := range p {
		switch v := v.(type) {
		case bool:
			m[name] = &pb.InferParameter{ParameterChoice: &pb.InferParameter_BoolParam{BoolParam: v}}
		case int64:
			m[name] = &pb.InferParameter{ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: v}}
		case uint64:
			m[name] = &pb.InferParameter{ParameterChoice: &pb.InferParameter_Uint64Param{Uint64Param: v}}
		case float64:
			m[name] = &pb.InferParameter{ParameterChoice: &pb.InferParameter_DoubleParam{DoubleParam: v}}
		case string:
			m[name] = &pb.InferParameter{ParameterChoice: &pb.InferParameter_StringParam{StringParam: v}}
		default:
			panic(parameterKind(name, v))
		}
	}
	return m
}

// parameterKind is what a parameter of a kind that [Params] does not have panics with.
func parameterKind(name string, v any) string {
	return fmt.Sprintf("inference: parameter %q is a %T, expected bool, int64, uint64, float64 or string", name, v)
}

// ToProto returns the request as a gRPC message, with raw or typed contents: see
// (*Response).ToProto.
func (r *Request) ToProto(raw bool) (*pb.ModelInferRequest, error) {
	if r.Raw {
		return nil, Errorf(Unsupported, "a raw request has no form in gRPC, expected named inputs")
	}
	m := &pb.ModelInferRequest{ModelName: r.Model, ModelVersion: r.Version, Id: r.ID, Parameters: r.Params.toProto()}
	raw, err := rawForAll("input", r.Inputs, raw)
	if err != nil {
		return nil, err
	}
	for i := range r.Inputs {
		t := &r.Inputs[i]
		in := &pb.ModelInferRequest_InferInputTensor{Name: t.Name, Datatype: string(t.Datatype), Shape: t.shape(), Parameters: t.Params.toProto()}
		if raw {
			m.RawInputContents = append(m.RawInputContents, t.appendBytes(make([]byte, 0, t.binarySize())))
		} else {
			in.Contents = t.contents()
		}
		m.Inputs = append(m.Inputs, in)
	}
	for _, o := range r.Outputs {
		m.Outputs = append(m.Outputs, &pb.ModelInferRequest_InferRequestedOutputTensor{Name: o.Name, Parameters: o.Params.toProto()})
	}
	return m, nil
}

// ToProto returns the response as a gRPC message, which may share its memory, with raw
// or typed contents. Contents are raw for all outputs if one of them is FP16 or BF16,
// which have no typed contents. [WantsRaw] says which of them a client wants.
func (r *Response) ToProto(raw bool) (*pb.ModelInferResponse, error) {
	m := &pb.ModelInferResponse{ModelName: r.Model, ModelVersion: r.Version, Id: r.ID, Parameters: r.Params.toProto()}
	raw, err := rawForAll("output", r.Outputs, raw)
	if err != nil {
		return nil, err
	}
	for i := range r.Outputs {
		t := &r.Outputs[i]
		out := &pb.ModelInferResponse_InferOutputTensor{Name: t.Name, Datatype: string(t.Datatype), Shape: t.shape(), Parameters: t.Params.toProto()}
		if raw {
			m.RawOutputContents = append(m.RawOutputContents, t.appendBytes(make([]byte, 0, t.binarySize())))
		} else {
			out.Contents = t.contents()
		}
		m.Outputs = append(m.Outputs, out)
	}
	return m, nil
}

// rawForAll checks tensors that are to be written and reports whether their contents
// shall be raw: if that is wanted, or one of them has no other form.
func rawForAll(what string, list []Tensor, raw bool) (bool, error) {
	for i := range list {
		t := &list[i]
		if problem := t.complete(); problem != "" {
			return false, Errorf(Internal, "%s %q: %s", what, t.Name, problem)
		}
		raw = raw || t.Datatype == FP16 || t.Datatype == BF16
	}
	return raw, nil
}

func (t *Tensor) shape() []int64 {
	shape := make([]int64, len(t.Dims))
	for i, d := range t.Dims {
		shape[i] = int64(d)
	}
	return shape
}

// contents returns a complete tensor's elements in the field of its datatype.
func (t *Tensor) contents() *pb.InferTensorContents {
	c := &pb.InferTensorContents{}
	switch t.Datatype {
	case BOOL:
		c.BoolContents = make([]bool, len(t.Ints))
		for i, x := range t.Ints {
			c.BoolContents[i] = x != 0
		}
	case INT8, INT16, INT32:
		c.IntContents = narrowInts[int32](t.Ints)
	case INT64:
		c.Int64Contents = t.Ints
	case UINT8, UINT16, UINT32:
		c.UintContents = narrowInts[uint32](t.Ints)
	case UINT64:
		c.Uint64Contents = narrowInts[uint64](t.Ints)
	case FP32:
		c.Fp32Contents = t.Floats
	case FP64:
		c.Fp64Contents = t.Doubles
	case BYTES:
		c.BytesContents = make([][]byte, len(t.Texts))
		for i, s := range t.Texts {
			c.BytesContents[i] = []byte(s)
		}
	}
	return c
}

func narrowInts[T int32 | uint32 | uint64](list []int64) []T {
	out := make([]T, len(list))
	for i, x := range list {
		out[i] = T(x)
	}
	return out
}
