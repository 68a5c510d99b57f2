package inference

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/carousel-ml/carousel/data"
	pb "github.com/carousel-ml/carousel/serve/inferencepb"
)

// sent is a message as its receiver gets it.
func sent[M proto.Message](t *testing.T, m, empty M) M {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(b, empty); err != nil {
		t.Fatal(err)
	}
	return empty
}

func TestProtoRoundTrip(t *testing.T) {
	params := Params{"sequence_id": "s", "sequence_start": true, "priority": uint64(3), "n": int64(-1), "f": 0.5}
	for _, raw := range []bool{true, false} {
		tensors := everyType()
		if !raw {
			tensors = without(tensors, FP16, BF16)
		}
		tensors[0].Params = Params{"k": "v"}
		r := &Request{Model: "m", Version: "2", ID: "i", Params: params, Inputs: tensors, Outputs: []Output{{Name: "y", Params: Params{"classification": int64(1)}}, {Name: "z"}}}
		m, err := r.ToProto(raw)
		if err != nil {
			t.Fatal(err)
		}
		m = sent(t, m, &pb.ModelInferRequest{})
		if WantsRaw(m) != raw {
			t.Errorf("a request with raw contents %v wants an answer with %v", raw, WantsRaw(m))
		}
		got, err := RequestFromProto(m)
		if err != nil {
			t.Fatal(err)
		}
		want := *r
		if !same(got.Inputs, want.Inputs) {
			t.Errorf("raw %v: got %+v, expected %+v", raw, got.Inputs, want.Inputs)
		}
		if got.Inputs, want.Inputs = nil, nil; !reflect.DeepEqual(*got, want) {
			t.Errorf("raw %v: got %+v, expected %+v", raw, *got, want)
		}
		a := &Response{Model: "m", Version: "2", ID: "i", Params: params, Outputs: tensors}
		n, err := a.ToProto(raw)
		if err != nil {
			t.Fatal(err)
		}
		if n = sent(t, n, &pb.ModelInferResponse{}); (len(n.RawOutputContents) > 0) != raw {
			t.Errorf("raw %v: %d raw contents", raw, len(n.RawOutputContents))
		}
		back, err := ResponseFromProto(n)
		if err != nil {
			t.Fatal(err)
		}
		if !same(back.Outputs, a.Outputs) {
			t.Errorf("raw %v: got %+v, expected %+v", raw, back.Outputs, a.Outputs)
		}
		if back.Outputs, a.Outputs = nil, nil; !reflect.DeepEqual(back, a) {
			t.Errorf("raw %v: got %+v, expected %+v", raw, back, a)
		}
	}
	// One output without typed contents makes all raw.
	m, err := (&Response{Outputs: everyType()}).ToProto(false)
	if err != nil || len(m.RawOutputContents) != len(everyType()) {
		t.Errorf("%d raw contents, %v", len(m.GetRawOutputContents()), err)
	}
	if !WantsRaw(&pb.ModelInferRequest{}) {
		t.Error("a request without inputs wants typed contents")
	}
	if _, err := (&Request{Raw: true}).ToProto(true); err == nil {
		t.Error("a raw request became a message")
	}
	if _, err := (&Response{Outputs: []Tensor{{Datatype: FP32, Value: Value{Dims: []int{2}}}}}).ToProto(true); err == nil || AsError(err).Code != Internal {
		t.Errorf("an output without its elements: %v", err)
	}
}

func TestFromProtoErrors(t *testing.T) {
	in := func(datatype string, c *pb.InferTensorContents, shape ...int64) *pb.ModelInferRequest {
		return &pb.ModelInferRequest{Inputs: []*pb.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: datatype, Shape: shape, Contents: c}}}
	}
	raw := func(m *pb.ModelInferRequest, b ...string) *pb.ModelInferRequest {
		for _, s := range b {
			m.RawInputContents = append(m.RawInputContents, []byte(s))
		}
		return m
	}
	floats := &pb.InferTensorContents{Fp32Contents: []float32{1, 2}}
	shared := in("FP32", nil, 1)
	shared.Inputs[0].Parameters = Params{sharedMemory: "r"}.toProto()
	sharedOutput := &pb.ModelInferRequest{Outputs: []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: "y", Parameters: shared.Inputs[0].Parameters}}}
	for i, c := range []struct {
		m    *pb.ModelInferRequest
		want string
	}{
		{in("FP31", floats, 2), "not known"}, {in("FP32", floats, -2), "negative size"}, {in("FP32", floats, 1<<32, 1<<32), "counted"},
		{in("FP32", floats, 1, 1, 1, 1, 1, 1, 1, 1, 2), "9 dimensions"}, {in("FP32", floats, 3), "fp32_contents has 2 elements and the other contents 0, expected 3"},
		{in("FP64", floats, 2), "fp64_contents has 0 elements and the other contents 2"}, {in("FP32", nil, 1), "fp32_contents has 0"}, {in("FP32", nil, 1<<62), "fp32_contents has 0"},
		{in("FP32", &pb.InferTensorContents{Fp32Contents: []float32{1}, BoolContents: []bool{true}}, 1), "other contents 1"},
		{in("INT8", &pb.InferTensorContents{IntContents: []int32{128}}, 1), "element 0 is 128, expected an integer of INT8, -128 to 127"},
		{in("INT16", &pb.InferTensorContents{IntContents: []int32{0, -32769}}, 2), "element 1 is -32769"}, {in("UINT16", &pb.InferTensorContents{UintContents: []uint32{65536}}, 1), "0 to 65535"},
		{in("FP16", floats, 2), "FP16 has no typed contents"}, {in("BF16", nil, 1), "BF16 has no typed contents"},
		{raw(in("FP32", floats, 2), "abcdefgh"), "beside raw contents"}, {raw(in("FP32", nil, 2), "abcdefg"), "got 7 bytes"}, {raw(in("FP32", nil, 1), "abcd", "e"), "2 entries for 1 inputs"},
		{raw(in("BYTES", nil, 1), "\x05\x00\x00\x00a"), "only 1 follow"}, {raw(in("FP32", nil, 1<<62+1), "abcd"), "got 4 bytes"}, {raw(&pb.ModelInferRequest{}, "a"), "1 entries for 0 inputs"},
		{&pb.ModelInferRequest{Parameters: map[string]*pb.InferParameter{"p": {}}}, `parameter "p" has no value`}, {&pb.ModelInferRequest{Parameters: map[string]*pb.InferParameter{"p": nil}}, `parameter "p" has no value`},
		{shared, "shared memory"}, {sharedOutput, "shared memory"},
	} {
		_, err := RequestFromProto(c.m)
		var told *Error
		if !errors.As(err, &told) || !strings.Contains(told.Msg, c.want) {
			t.Errorf("%d: got %v, expected %q", i, err, c.want)
		} else if want := map[bool]Code{true: Unsupported, false: Invalid}[c.want == "shared memory"]; told.Code != want {
			t.Errorf("%d: code %d, expected %d", i, told.Code, want)
		}
	}
	if r, err := RequestFromProto(in("FP16", nil, 0)); err != nil || len(r.Inputs) != 1 {
		t.Errorf("an input without elements: %v", err)
	}
	if _, err := ResponseFromProto(&pb.ModelInferResponse{RawOutputContents: [][]byte{{}}}); err == nil {
		t.Error("raw contents of no output were read")
	}
}

func TestGRPC(t *testing.T) {
	for code, want := range map[Code]codes.Code{Invalid: codes.InvalidArgument, NotFound: codes.NotFound, Unavailable: codes.Unavailable, Unsupported: codes.Unimplemented, Exists: codes.AlreadyExists,
		Canceled: codes.Canceled, Deadline: codes.DeadlineExceeded, Exhausted: codes.ResourceExhausted, TooLarge: codes.ResourceExhausted, Internal: codes.Internal, Method: codes.Unimplemented,
		Denied: codes.PermissionDenied, Unknown: codes.Unauthenticated} {
		if s := Errorf(code, "m %d", 1).GRPC(); s.Code() != want || s.Message() != "m 1" || len(s.Details()) != 0 {
			t.Errorf("code %d: %v", code, s)
		}
	}
	s := (&Error{Code: Exhausted, Msg: "full", RetryAfter: 3}).GRPC()
	if retry, ok := s.Details()[0].(*errdetails.RetryInfo); !ok || retry.RetryDelay.AsDuration().Seconds() != 3 {
		t.Errorf("details %v", s.Details())
	}
	known := Errorf(NotFound, "no model")
	for _, c := range []struct {
		err  error
		want Code
	}{
		{fmt.Errorf("while: %w", known), NotFound}, {fmt.Errorf("while: %w", &data.InputError{Problem: "bad"}), Invalid}, {fmt.Errorf("while: %w", context.Canceled), Canceled},
		{context.DeadlineExceeded, Deadline}, {errors.New("else"), Internal},
	} {
		if e := AsError(c.err); e.Code != c.want || c.want != NotFound && e.Msg != c.err.Error() {
			t.Errorf("%v: got %+v, expected code %d", c.err, e, c.want)
		}
	}
	if e := AsError(&data.InputError{Problem: "\"--x\" is no time", Fix: "give it with --time-zone, or --id"}); !strings.HasSuffix(e.Msg, "\"--x\" is no time; give it with the option time_zone, or the option id") {
		t.Errorf("flags of the command: %s", e.Msg)
	}
	if AsError(nil) != nil {
		t.Error("no error became one")
	}
}

// Long names of clients leave room for the rest of a message, which fits gRPC's trailers.
func TestLongNames(t *testing.T) {
	for _, letter := range []string{"n", "é", "\U0001f600", "\xff"} {
		name := strings.Repeat(letter, 20_000)
		e := Errorf(NotFound, "unknown model %q: the server has %s", name, "m")
		if !strings.HasSuffix(e.Msg, "…\": the server has m") || len(e.Msg) > 5000 {
			t.Errorf("%q: the message is %d bytes: %.100s", letter, len(e.Msg), e.Msg)
		}
		for _, e := range []*Error{e, {Code: Internal, Msg: name}} {
			got := e.GRPC().Message()
			if len(url.PathEscape(got)) > mostTrailer+30 || !strings.HasSuffix(got, "…") && got != e.Msg || utf8.ValidString(letter) && !utf8.ValidString(got) {
				t.Errorf("%q: %d bytes, which end with %q", letter, len(got), got[len(got)-9:])
			}
		}
	}
}

func FuzzFromProto(f *testing.F) {
	for _, raw := range []bool{true, false} {
		r := &Request{Model: "m", Params: Params{"a": 1.5, "b": true}, Inputs: without(everyType(), FP16, BF16), Outputs: []Output{{Name: "y"}}}
		if raw {
			r.Inputs = everyType()
		}
		m, err := r.ToProto(raw)
		if err != nil {
			f.Fatal(err)
		}
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		m := &pb.ModelInferRequest{}
		if proto.Unmarshal(body, m) != nil {
			return
		}
		var r *Request
		var err error
		bounded(t, len(body), func() { r, err = RequestFromProto(m) })
		if err != nil {
			var told *Error
			if !errors.As(err, &told) {
				t.Errorf("%T: %v", err, err)
			}
			return
		}
		for _, raw := range []bool{true, false} {
			m, err := r.ToProto(raw)
			if err != nil {
				t.Fatal(err)
			}
			again, err := RequestFromProto(m)
			if err != nil {
				t.Fatalf("raw %v: %v", raw, err)
			}
			if !same(again.Inputs, r.Inputs) || !sameParams(again.Params, r.Params) || len(again.Outputs) != len(r.Outputs) {
				t.Errorf("raw %v: got %+v, expected %+v", raw, again, r)
			}
		}
	})
}

// sameParams compares parameters, NaN being equal to itself.
func sameParams(a, b Params) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		x, isFloat := v.(float64)
		y, alsoFloat := b[k].(float64)
		if isFloat && alsoFloat && math.Float64bits(x) == math.Float64bits(y) {
			continue
		}
		if v != b[k] {
			return false
		}
	}
	return true
}
