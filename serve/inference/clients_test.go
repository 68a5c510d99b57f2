package inference

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "github.com/carousel-ml/carousel/serve/inferencepb"
)

// wanted is a tensor of a recorded request: floats as Python's repr, integers in
// decimal, texts as they are.
type wanted struct {
	Name     string   `json:"name"`
	Datatype Datatype `json:"datatype"`
	Shape    []int    `json:"shape"`
	Values   []string `json:"values"`
}

// asWanted returns the values as Python has them.
func asWanted(t *Tensor) wanted {
	w := wanted{Name: t.Name, Datatype: t.Datatype, Shape: t.Dims, Values: []string{}}
	float := func(f float64) {
		text := strconv.FormatFloat(f, 'g', 17, 64)
		w.Values = append(w.Values, map[string]string{"NaN": "nan", "+Inf": "inf", "-Inf": "-inf"}[text])
		if k := len(w.Values) - 1; w.Values[k] == "" {
			w.Values[k] = text
		}
	}
	for _, f := range t.Floats {
		float(float64(f))
	}
	for _, f := range t.Doubles {
		float(f)
	}
	for _, x := range t.Ints {
		if t.Datatype == UINT64 {
			w.Values = append(w.Values, strconv.FormatUint(uint64(x), 10))
		} else {
			w.Values = append(w.Values, strconv.FormatInt(x, 10))
		}
	}
	w.Values = append(w.Values, t.Texts...)
	return w
}

// sameValues compares floats by their bits, all else as text.
func sameValues(a, b wanted) bool {
	if a.Name != b.Name || a.Datatype != b.Datatype || !reflect.DeepEqual(a.Shape, b.Shape) || len(a.Values) != len(b.Values) {
		return false
	}
	for i := range a.Values {
		if a.Values[i] == b.Values[i] {
			continue
		}
		x, errX := strconv.ParseFloat(a.Values[i], 64)
		y, errY := strconv.ParseFloat(b.Values[i], 64)
		float := a.Datatype.Kind() == Floats || a.Datatype.Kind() == Doubles
		if !float || errX != nil || errY != nil || math.Float64bits(x) != math.Float64bits(y) {
			return false
		}
	}
	return true
}

// TestRequestsOfPython reads what tritonclient and KServe's client sent
// (internal/golden/gen/inference.py).
func TestRequestsOfPython(t *testing.T) {
	const dir = "testdata/tritonclient"
	list, err := filepath.Glob(dir + "/*.json")
	if err != nil || len(list) < 14 {
		t.Fatal(len(list), err)
	}
	requests := map[string]*Request{}
	for _, path := range list {
		name := strings.TrimSuffix(filepath.Base(path), ".json")
		var facts struct {
			Header string
			Inputs []wanted
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &facts); err != nil {
			t.Fatal(err)
		}
		body, err := os.ReadFile(filepath.Join(dir, name+".body"))
		if err != nil {
			t.Fatal(err)
		}
		var r *Request
		if strings.HasPrefix(name, "grpc") {
			m := &pb.ModelInferRequest{}
			if err := proto.Unmarshal(body, m); err != nil {
				t.Fatal(err)
			}
			if !WantsRaw(m) {
				t.Errorf("%s: the client is said to read typed contents", name)
			}
			r, err = RequestFromProto(m)
		} else {
			r, err = ReadRequest(facts.Header, body)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		requests[name] = r
		if len(r.Inputs) != len(facts.Inputs) {
			t.Errorf("%s: %d inputs, expected %d", name, len(r.Inputs), len(facts.Inputs))
			continue
		}
		for i := range r.Inputs {
			if got := asWanted(&r.Inputs[i]); !sameValues(got, facts.Inputs[i]) {
				t.Errorf("%s: got %v, expected %v", name, got, facts.Inputs[i])
			}
		}
	}
	sequence := Params{"sequence_id": "s-1", "sequence_start": true, "sequence_end": false, "priority": int64(2), "timeout": int64(1500), "note": "ü", "k": int64(4), "f": 0.5, "yes": true}
	for name, want := range map[string]Request{
		"default": {Params: Params{binaryDataOutput: true}},
		"json":    {ID: "one", Outputs: []Output{{Name: "y", Params: Params{binaryData: false}}}},
		"kserve":  {ID: "k", Outputs: []Output{{Name: "y", Params: Params{binaryData: true}}}},
		"sequence": {Params: sequence, Outputs: []Output{
			{Name: "y", Params: Params{binaryData: true}}, {Name: "z", Params: Params{binaryData: true, "classification": int64(3)}}}},
		"sequence-number": {Params: Params{binaryDataOutput: true, "sequence_id": uint64(math.MaxUint64), "sequence_start": false, "sequence_end": true}},
	} {
		got := *requests[name]
		got.Inputs, want.Text = nil, true
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, expected %+v", name, got, want)
		}
	}
	sequence["priority"] = uint64(2)
	got := *requests["grpc-sequence"]
	if got.Inputs = nil; !reflect.DeepEqual(got, Request{Model: "m", ID: "r", Params: sequence, Outputs: []Output{{Name: "y"}}}) {
		t.Errorf("grpc-sequence: got %+v", got)
	}
}

// TestResponsesOfPython lets tritonclient's own code read responses in every form. It
// needs an interpreter that has it.
func TestResponsesOfPython(t *testing.T) {
	python := os.Getenv("CAROUSEL_TRITONCLIENT_PYTHON")
	if python == "" {
		t.Skip("CAROUSEL_TRITONCLIENT_PYTHON names no interpreter with tritonclient")
	}
	dir := t.TempDir()
	type response struct {
		File    string   `json:"file"`
		Header  string   `json:"header"`
		ID      string   `json:"id"`
		Outputs []wanted `json:"outputs"`
	}
	var all []response
	// floats says in which form the outputs with infinities are.
	keep := func(name, header, id, floats string, body []byte, r *Response) {
		one := response{File: name, Header: header, ID: id}
		for i := range r.Outputs {
			w := asWanted(&r.Outputs[i])
			for k, v := range w.Values {
				if floats == "JSON" && strings.HasSuffix(v, "inf") {
					w.Values[k] = "nan" // what null is to NumPy
				}
			}
			one.Outputs = append(one.Outputs, w)
		}
		all = append(all, one)
		if err := os.WriteFile(filepath.Join(dir, name), body, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := &Response{Model: "m", Version: "1"}
	for _, tensor := range everyType() {
		if tensor.Datatype != FP16 && tensor.Datatype != BF16 {
			r.Outputs = append(r.Outputs, tensor)
		}
	}
	for form, floats := range map[any]string{nil: "JSON", true: "binary", false: "JSON"} {
		req := &Request{ID: "a-1"}
		if form != nil {
			req.Params = Params{binaryDataOutput: form}
		}
		header, body, err := WriteResponse(r, req)
		if err != nil {
			t.Fatal(err)
		}
		keep(fmt.Sprintf("all-%v.http", form), header, req.ID, floats, body, r)
	}
	mixed := &Request{ID: "ü", Outputs: []Output{{Name: r.Outputs[0].Name, Params: Params{binaryData: true}}, {Name: r.Outputs[2].Name, Params: Params{binaryData: true}}}}
	header, body, err := WriteResponse(r, mixed)
	if err != nil {
		t.Fatal(err)
	}
	keep("mixed.http", header, mixed.ID, "JSON", body, r)
	for _, tensor := range everyType() {
		if tensor.Datatype == FP16 || tensor.Datatype == BF16 {
			r.Outputs = append(r.Outputs, tensor)
		}
	}
	if header, body, err = WriteResponse(r, &Request{ID: "h", Params: Params{binaryDataOutput: true}}); err != nil {
		t.Fatal(err)
	}
	keep("halves.http", header, "h", "binary", body, r)
	r.ID = "g"
	m, err := r.ToProto(true)
	if err != nil {
		t.Fatal(err)
	}
	if body, err = proto.Marshal(m); err != nil {
		t.Fatal(err)
	}
	keep("all.grpc", "", r.ID, "binary", body, r)
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "values.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), python, "../../internal/golden/gen/inference.py", "responses", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("%s", out)
}
