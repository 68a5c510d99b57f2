package inference

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// everyType is a tensor of each datatype with its extremes, and some without elements.
func everyType() []Tensor {
	nan, inf := math.NaN(), math.Inf(1)
	ints := func(d Datatype, dims []int, x ...int64) Tensor {
		return Tensor{Name: "in " + string(d), Datatype: d, Value: Value{Dims: dims, Ints: x}}
	}
	floats := func(d Datatype, x ...float32) Tensor {
		return Tensor{Name: string(d), Datatype: d, Value: Value{Dims: []int{1, len(x)}, Floats: x}}
	}
	return []Tensor{
		ints(BOOL, []int{2, 2}, 1, 0, 0, 1),
		ints(UINT8, []int{3}, 0, 255, 7), ints(UINT16, []int{2}, 0, math.MaxUint16), ints(UINT32, []int{2}, 0, math.MaxUint32), ints(UINT64, []int{2, 1}, -1, 1<<62),
		ints(INT8, []int{2}, -128, 127), ints(INT16, []int{2}, math.MinInt16, math.MaxInt16), ints(INT32, []int{2}, math.MinInt32, math.MaxInt32), ints(INT64, []int{2}, math.MinInt64, math.MaxInt64),
		floats(FP16, 1.5, 65504, 0x1p-24, float32(inf), float32(nan)), floats(BF16, 1.5, 0x1p-133, float32(-inf), 0),
		floats(FP32, 0.1, -0, math.SmallestNonzeroFloat32, math.MaxFloat32, float32(nan), float32(inf), float32(-inf), 1e-7, 16777216, 33554434),
		{Name: "FP64", Datatype: FP64, Value: Value{Dims: []int{6}, Doubles: []float64{0.1, 5e-324, math.MaxFloat64, nan, inf, -inf}}},
		{Name: "texts \"\\\n", Datatype: BYTES, Value: Value{Dims: []int{1, 4}, Texts: []string{"", "Käse", "a\x00\t\"\\/", "\U0001F600"}}},
		{Name: "none", Datatype: FP32, Value: Value{Dims: []int{3, 0}, Floats: []float32{}}},
		{Name: "no texts", Datatype: BYTES, Value: Value{Dims: []int{0}, Texts: []string{}}},
		{Name: "no integers", Datatype: INT32, Value: Value{Dims: []int{1, 0}, Ints: []int64{}}},
		{Name: "scalar", Datatype: FP64, Value: Value{Dims: []int{}, Doubles: []float64{3}}},
	}
}

// same compares tensors, floats by their bits but NaN by being one.
func same(a, b []Tensor) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, y := a[i], b[i]
		if len(x.Floats) != len(y.Floats) || len(x.Doubles) != len(y.Doubles) || len(x.Ints) != len(y.Ints) {
			return false
		}
		for k, f := range x.Floats {
			if g := y.Floats[k]; math.Float32bits(f) != math.Float32bits(g) && (f == f || g == g) {
				return false
			}
		}
		for k, f := range x.Doubles {
			if g := y.Doubles[k]; math.Float64bits(f) != math.Float64bits(g) && (f == f || g == g) {
				return false
			}
		}
		for k, n := range x.Ints {
			if y.Ints[k] != n {
				return false
			}
		}
		x.Floats, x.Doubles, x.Ints, y.Floats, y.Doubles, y.Ints = nil, nil, nil, nil, nil, nil
		if len(x.Texts) == 0 && len(y.Texts) == 0 {
			x.Texts, y.Texts = nil, nil
		}
		if !reflect.DeepEqual(x, y) {
			return false
		}
	}
	return true
}

func without(list []Tensor, d ...Datatype) []Tensor {
	return slices.DeleteFunc(slices.Clone(list), func(t Tensor) bool { return slices.Contains(d, t.Datatype) })
}

func TestRequestRoundTrip(t *testing.T) {
	for _, binary := range []bool{false, true} {
		r := &Request{ID: "an \"id\"", Params: Params{"sequence_id": uint64(math.MaxUint64), "f": 2.0, "g": 1e300, "s": "x", "b": false, "i": int64(-5)},
			Inputs: everyType(), Outputs: []Output{{Name: "y", Params: Params{binaryData: true, "classification": int64(2)}}, {Name: "z"}}}
		if !binary {
			r.Inputs = without(r.Inputs, FP16, BF16)
		}
		r.Inputs[0].Params = Params{"k": "v"}
		header, body, err := WriteRequest(r, binary)
		if err != nil {
			t.Fatal(err)
		}
		if (header != "") != binary {
			t.Errorf("header %q with binary %v", header, binary)
		}
		got, err := ReadRequest(header, body)
		if err != nil {
			t.Fatal(err)
		}
		if !same(got.Inputs, r.Inputs) {
			t.Errorf("binary %v: got %+v, expected %+v", binary, got.Inputs, r.Inputs)
		}
		want := *r
		want.Text = true
		if want.Inputs, got.Inputs = nil, nil; binary {
			want.Params = Params{binaryDataOutput: true}
			for k, v := range r.Params {
				want.Params[k] = v
			}
		}
		if !reflect.DeepEqual(*got, want) {
			t.Errorf("binary %v: got %+v, expected %+v", binary, *got, want)
		}
		// Nothing of the body is kept.
		again, err := ReadRequest(header, body)
		if err != nil {
			t.Fatal(err)
		}
		clear(body)
		if !same(again.Inputs, r.Inputs) || again.ID != r.ID {
			t.Error("the request changed with its body")
		}
	}
	raw := &Request{Raw: true, Inputs: []Tensor{{Value: Value{Texts: []string{"\x00\x01abc"}}}}}
	header, body, err := WriteRequest(raw, true)
	if err != nil || header != "0" || string(body) != "\x00\x01abc" {
		t.Fatal(header, body, err)
	}
	if got, err := ReadRequest(header, body); err != nil || !reflect.DeepEqual(got, raw) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, d := range []Datatype{FP16, BF16} {
		_, _, err := WriteRequest(&Request{Inputs: []Tensor{{Name: "x", Datatype: d, Value: Value{Dims: []int{1}, Floats: []float32{1}}}}}, false)
		if err == nil || !strings.Contains(err.Error(), "binary") {
			t.Errorf("%s in JSON: %v", d, err)
		}
	}
}

func TestResponseRoundTrip(t *testing.T) {
	all := everyType()
	finite := without(all, FP16, BF16)
	for i := range finite {
		for k, f := range finite[i].Floats {
			if f-f != 0 {
				finite[i].Floats[k] = float32(math.NaN()) // null
			}
		}
		for k, f := range finite[i].Doubles {
			if f-f != 0 {
				finite[i].Doubles[k] = math.NaN()
			}
		}
	}
	req := &Request{ID: "7", Outputs: []Output{{Name: "FP32", Params: Params{binaryData: false}}, {Name: "FP64", Params: Params{binaryData: true}}}}
	for _, c := range []struct {
		name   string
		req    *Request
		out    []Tensor
		binary []string // the outputs that must be
	}{
		{"none", nil, finite, nil},
		{"no flags", &Request{ID: "7"}, finite, nil},
		{"flag of one", req, finite, []string{"FP64"}},
		{"flag of the request", &Request{Params: Params{binaryDataOutput: true}}, all, []string{"in BOOL", "FP16", "FP32", "scalar"}},
		{"raw", &Request{Raw: true}, all, []string{"in BOOL", "FP32"}},
		{"both", &Request{Params: Params{binaryDataOutput: true}, Outputs: []Output{{Name: "in INT8", Params: Params{binaryData: false}}}}, all, []string{"FP32", "none"}},
	} {
		r := &Response{Model: "a \"model\"", Version: "2", Params: Params{"p": int64(1)}, Outputs: c.out}
		header, body, err := WriteResponse(r, c.req)
		if err != nil {
			t.Fatal(c.name, err)
		}
		if (header != "") != (c.binary != nil) {
			t.Errorf("%s: header %q", c.name, header)
		}
		got, err := ReadResponse(header, body)
		if err != nil {
			t.Fatalf("%s: %v in %s", c.name, err, body)
		}
		if !same(got.Outputs, c.out) {
			t.Errorf("%s: got %+v, expected %+v", c.name, got.Outputs, c.out)
		}
		want := *r
		if c.req != nil {
			want.ID = c.req.ID
		}
		if want.Outputs, got.Outputs = nil, nil; !reflect.DeepEqual(*got, want) {
			t.Errorf("%s: got %+v, expected %+v", c.name, *got, want)
		}
		for _, name := range c.binary {
			at := bytes.Index(body, []byte(`"name":"`+name+`"`))
			size := bytes.Index(body[at:], []byte(`"binary_data_size"`))
			if next := bytes.IndexByte(body[at:], '}'); at < 0 || size < 0 || size > next {
				t.Errorf("%s: output %s is not binary", c.name, name)
			}
		}
	}
	header, body, err := WriteResponse(&Response{Model: "m", ID: "own", Outputs: []Tensor{{Name: "y", Datatype: FP32, Value: Value{Dims: []int{1, 3}, Floats: []float32{0.1, float32(math.Inf(1)), 2}}}}}, req)
	if want := `{"model_name":"m","id":"own","outputs":[{"name":"y","datatype":"FP32","shape":[1,3],"data":[0.1,null,2]}]}`; err != nil || header != "" || string(body) != want {
		t.Errorf("got %s %v, expected %s", body, err, want)
	}
	for problem, out := range map[string]Tensor{
		"has no form in JSON": {Datatype: FP16, Value: Value{Dims: []int{1}, Floats: []float32{1}}},
		"is not UTF-8":        {Datatype: BYTES, Value: Value{Dims: []int{1}, Texts: []string{"\xff"}}},
		"has 1 elements":      {Datatype: FP32, Value: Value{Dims: []int{2}, Floats: []float32{1}}},
		"of the kind of":      {Datatype: FP32, Value: Value{Dims: []int{1}, Doubles: []float64{1}}},
		"-128 to 127":         {Datatype: INT8, Value: Value{Dims: []int{1}, Ints: []int64{128}}},
		"negative size":       {Datatype: FP32, Value: Value{Dims: []int{-1}}},
		"is not known":        {Datatype: "FP8", Value: Value{Dims: []int{0}}},
	} {
		if _, _, err := WriteResponse(&Response{Outputs: []Tensor{out}}, nil); err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%s: %v", problem, err)
		}
	}
}

// one is a request of one input, its data in JSON.
func one(datatype, shape, data string) string {
	return fmt.Sprintf(`{"inputs":[{"name":"x","shape":%s,"datatype":"%s","data":%s}]}`, shape, datatype, data)
}

func TestReadRequestForms(t *testing.T) {
	for _, c := range []struct {
		body string
		want Value
	}{
		{one("FP32", "[2,2]", "[[1,2],[3,4]]"), Value{Floats: []float32{1, 2, 3, 4}}},
		{one("FP32", "[2,2]", " [ 1 , 2 ,\n3\t,\r4 ] "), Value{Floats: []float32{1, 2, 3, 4}}},
		{one("FP32", "[1,2,2]", "[[1,2],[3,4]]"), Value{Floats: []float32{1, 2, 3, 4}}},
		{one("FP32", "[2,3,2]", "[[1,2,3,4,5,6],[7,8,9,10,11,12]]"), Value{Floats: []float32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}}},
		{one("FP32", "[4]", "[[1],[2],[3],[4]]"), Value{Floats: []float32{1, 2, 3, 4}}},
		{one("FP32", "[1,1,1,1,1,1,1,1]", "[[[[[[[[5]]]]]]]]"), Value{Floats: []float32{5}}},
		{one("FP32", "[]", "[5]"), Value{Floats: []float32{5}}},
		{one("FP32", "[0]", "[]"), Value{Floats: []float32{}}},
		{one("FP32", "[2,0]", "[[],[]]"), Value{Floats: []float32{}}},
		{one("FP32", "[0,9223372036854775807]", "[]"), Value{Floats: []float32{}}},
		{one("FP32", "[3]", "[1e2, -0.5E-1, 7]"), Value{Floats: []float32{100, -0.05, 7}}},
		{one("FP32", "[2]", "[Infinity, -Infinity]"), Value{Floats: []float32{float32(math.Inf(1)), float32(math.Inf(-1))}}},
		{`{"inputs":[{"name":"x","shape":[0],"datatype":"FP32","data":null,"parameters":{"binary_data_size":0}}]}`, Value{Floats: []float32{}}}, // KServe's client
		{one("FP64", "[1]", "[0.1]"), Value{Doubles: []float64{0.1}}},
		{one("BOOL", "[4]", "[true,false,1,0]"), Value{Ints: []int64{1, 0, 1, 0}}},
		{one("UINT64", "[1]", "[18446744073709551615]"), Value{Ints: []int64{-1}}},
		{one("BYTES", "[2]", `["a","\ud83d\ude00\u00e9\/\b\f\n\r\t\"\\"]`), Value{Texts: []string{"a", "😀é/\b\f\n\r\t\"\\"}}},
		{`{"id":null,"parameters":null,"outputs":null,"inputs":[{"data":[[1,2],[3,4]],"extra":{"a":[1,{"b":null}],"c":NaN},"datatype":"INT8","name":"x","shape":[2,2],"parameters":{}}],"more":[true,false,"\u0041",-1.5e-3]}`, Value{Ints: []int64{1, 2, 3, 4}}},
		{"\n {\"inputs\" : [ { \"name\":\"x\", \"d\\u0061tatype\":\"INT8\", \"shape\":[1], \"data\":[-128] } ] } \n", Value{Ints: []int64{-128}}},
	} {
		r, err := ReadRequest("", []byte(c.body))
		if err != nil {
			t.Errorf("%s: %v", c.body, err)
			continue
		}
		got := r.Inputs[0].Value
		got.Dims = nil
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %+v, expected %+v", c.body, got, c.want)
		}
	}
}

// What readers overlook that take the last of two keys and U+FFFD for other bytes.
func TestCheckJSON(t *testing.T) {
	for body, want := range map[string]string{
		`{"a":1,"b":{"a":[{"a":"é\ud83d\ude00"}]}}`: "", `[1,"x",null,true]`: "",
		"{\"a\":\"\xff\"}": "byte 6: the body is not UTF-8", "{\"\xc3\":1}": "byte 2: the body is not UTF-8",
		`{"a":"\ud83d"}`: "hexadecimal", `{"a":"\ude00x"}`: "hexadecimal",
		`{"a":1,"a":1}`: `the key "a" is given twice`, `{"a":1,"\u0061":1}`: `the key "a" is given twice`, `{"x":[{"a":1,"b":2,"a":3}]}`: `the key "a" is given twice`,
		strings.Repeat("[", 1000): "deep",
	} {
		err := CheckJSON([]byte(body))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.60q: %v, want %q", body, err, want)
		}
	}
}

func TestReadRequestErrors(t *testing.T) {
	blob := func(json, data string) (string, string) { return fmt.Sprint(len(json)), json + data }
	sized := func(datatype, shape string, size string) string {
		return fmt.Sprintf(`{"inputs":[{"name":"x","shape":%s,"datatype":"%s","parameters":{"binary_data_size":%s}}]}`, shape, datatype, size)
	}
	type test struct{ header, body, want string }
	tests := []test{
		{"", "", "no body"}, {"", "null", "expected a request"}, {"", "[]", "expected a request"}, {"", "{", "got the end"}, {"", "{}", `no "inputs"`},
		{"", `{"inputs":{}}`, "expected a list of tensors, got an object"}, {"", `{"inputs":[1]}`, "expected a tensor as an object"},
		{"", `{"inputs":[]} x`, `expected the end after the request's object, got "x"`}, {"", `{"inputs":[],}`, "expected a key"}, {"", `{"inputs":[],"id":5}`, `"id" as a string`},
		{"", "{\"inputs\":[]}\x00", "expected the end"}, {"", `{"inputs":[{}]}`, `has no "name"`},
		{"", `{"inputs":[{"name":"x"}]}`, `has no "datatype"`}, {"", `{"inputs":[{"name":"x","datatype":"FP32"}]}`, `has no "shape"`},
		{"", `{"inputs":[{"name":"x","datatype":"FP32","shape":[1]}]}`, "neither"}, {"", `{"inputs":[{"name":"x","name":"y"}]}`, "given twice"},
		{"", one("FP33", "[1]", "[1]"), "not known"}, {"", one("FP32", "[-1]", "[1]"), "negative size"}, {"", one("FP32", "[1.5]", "[1]"), "a size of a shape"},
		{"", one("FP32", "5", "[1]"), `"shape" as a list`}, {"", one("FP32", "[1,1,1,1,1,1,1,1,1]", "[1]"), "more than 8"}, {"", one("FP32", "[99999999999999999999]", "[1]"), "a size of a shape"},
		{"", one("FP32", "[4294967296,4294967296]", "[1]"), "more elements than can be counted"}, {"", one("FP32", "[0,4294967296,4294967296]", "[]"), "more elements than can be counted"},
		{"", one("FP32", "[9223372036854775807]", "[1]"), "data has 1 elements"}, {"", one("FP32", "[1000000000000]", "[1]"), "data has 1 elements"},
		{"", one("FP32", "[2]", "[1]"), "data has 1 elements, expected 2"}, {"", one("FP32", "[2]", "[1,2,3]"), "more than the 2"}, {"", one("FP32", "[0]", "[1]"), "more than the 0"},
		{"", one("FP32", "[2,2]", "[[1,2],[3]]"), "irregularly"}, {"", one("FP32", "[2,2]", "[[1,2],3,4]"), "irregularly"}, {"", one("FP32", "[2,2]", "[1,2,[3,4]]"), "irregularly"},
		{"", one("FP32", "[2,2]", "[[1,2],[[3,4]]]"), "irregularly"}, {"", one("FP32", "[2,2]", "[[1,2],[],[3,4]]"), "irregularly"}, {"", one("FP32", "[2,2]", "[[[1,2]],[3,4]]"), "irregularly"},
		{"", one("FP32", "[2,3]", "[[1,2],[3,4],[5,6]]"), "nested as [3,2], expected as shape [2,3]"}, {"", one("FP32", "[1]", "[[[[[[[[[1]]]]]]]]]"), "more than 8 deep"},
		{"", one("FP32", "[1]", "5"), "expected a list"}, {"", one("FP32", "[1]", `["a"]`), "data[0] at byte 61 is a string"}, {"", one("FP32", "[2]", `[1,null]`), `"null", expected a number (NaN`},
		{"", one("FP32", "[1]", "[1e39]"), "data[0] is 1e39, expected a number within the range of FP32"}, {"", one("FP64", "[1]", "[1e309]"), "within the range of FP64"},
		{"", one("FP32", "[1]", "[01]"), `"01"`}, {"", one("FP32", "[1]", "[+1]"), `"+1"`}, {"", one("FP32", "[1]", "[1.]"), `"1."`}, {"", one("FP32", "[1]", "[nan]"), `"nan"`}, {"", one("FP32", "[1]", "[NaN0]"), `"NaN0"`},
		{"", one("FP32", "[2]", "[1,]"), "data[1]"}, {"", one("FP32", "[2]", "[1 2]"), "comma"}, {"", one("FP32", "[2]", "[1,2"), "comma"}, {"", one("FP32", "[1]", "[1x]"), "comma"},
		{"", one("INT8", "[1]", "[128]"), "data[0] is 128, expected an integer of INT8, -128 to 127"}, {"", one("UINT8", "[1]", "[-1]"), "0 to 255"}, {"", one("INT32", "[1]", "[1.5]"), "integer of INT32"},
		{"", one("INT32", "[1]", "[NaN]"), "an integer"}, {"", one("UINT64", "[1]", "[18446744073709551616]"), "0 to 18446744073709551615"}, {"", one("BOOL", "[1]", "[2]"), "0 to 1"}, {"", one("BOOL", "[1]", `["true"]`), "true or false"},
		{"", one("BYTES", "[1]", "[5]"), "a string"}, {"", one("BYTES", "[1]", "[\"\xff\"]"), "UTF-8"}, {"", one("BYTES", "[1]", `["\ud800"]`), "hexadecimal"}, {"", one("BYTES", "[1]", `["\ud800\u0041"]`), "hexadecimal"},
		{"", one("BYTES", "[1]", `["\u12"]`), "hexadecimal"}, {"", one("BYTES", "[1]", `["\x"]`), "means nothing"}, {"", one("BYTES", "[1]", "[\"a\nb\"]"), "control character"}, {"", `{"inputs":["`, "expected a tensor"}, {"", `{"inputs":[{"name":"x`, "no end"}, {"", `{"inputs":[{"name":"\`, "no end"},
		{"", one("BYTES", "[1]", "[\"\\n\xff\"]"), "UTF-8"},
		{"", one("FP16", "[1]", "[1]"), "FP16 has no form in JSON"}, {"", one("BF16", "[1]", "[1]"), "BF16 has no form in JSON"},
		{"", `{"inputs":[],"parameters":{"a":[1]}}`, "the value of a parameter"}, {"", `{"inputs":[],"parameters":{"a":null}}`, "the value of a parameter"}, {"", `{"inputs":[],"parameters":{"a":1e999}}`, "beyond the greatest"},
		{"", `{"inputs":[],"parameters":{"binary_data_output":1}}`, "expected true or false"}, {"", `{"inputs":[],"outputs":[{"name":"y","parameters":{"binary_data":"yes"}}]}`, `is "yes", expected true or false`},
		{"", `{"inputs":[],"outputs":[{}]}`, `no "name"`}, {"", `{"inputs":[],"outputs":[{"name":"y","parameters":{"shared_memory_region":"r"}}]}`, "shared memory"},
		{"", `{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","parameters":{"shared_memory_region":"r","shared_memory_byte_size":4}}]}`, "shared memory"},
		{"", `{"a":` + strings.Repeat("[", 1000), "deep"}, {"", `{"a":` + strings.Repeat(`{"a":`, 1000), "deep"},
		{"", sized("FP32", "[1]", "4"), "no header Inference-Header-Content-Length"},
		{"x", "{}", `"x", expected the bytes of JSON`}, {"-1", "{}", "0 to 2"}, {"3", "{}", "0 to 2"}, {"99999999999999999999", "{}", "0 to 2"}, {"1", "{}", "got the end"},
	}
	add := func(want, json, data string) {
		header, body := blob(json, data)
		tests = append(tests, test{header, body, want})
	}
	add("2 bytes follow the JSON", `{"inputs":[]}`, "ab")
	add("got 4 bytes, expected 2 elements of 4 bytes", sized("FP32", "[2]", "4"), "abcd")
	add("only 3 of the 3 bytes", sized("FP32", "[1]", "4"), "abc")
	add("name 4", sized("FP32", "[1]", "4"), "abcde")
	add("expected a number of bytes", sized("FP32", "[1]", "-4"), "abcd")
	add("expected a number of bytes", sized("FP32", "[1]", "4.0"), "abcd")
	add(`binary_data_size is "4", expected a number of bytes`, sized("FP32", "[1]", `"4"`), "abcd")
	add("only 0 of the 0 bytes", sized("FP32", "[1]", "9223372036854775807"), "")
	add("negative size", sized("FP32", "[-1]", "4"), "abcd")
	add("more elements than can be counted", sized("FP32", "[4294967296,4294967296]", "4"), "abcd")
	add("expected 4611686018427387905 elements", sized("FP32", "[4611686018427387905]", "4"), "abcd") // times 4 it would be 4 again
	add("byte 2, expected 0 or 1", sized("BOOL", "[1]", "1"), "\x02")
	add("4 bytes of length", sized("BYTES", "[2]", "4"), "\x00\x00\x00\x00")
	add("is 5 bytes long, but only 1", sized("BYTES", "[1]", "5"), "\x05\x00\x00\x00a")
	add("4294967295 bytes long", sized("BYTES", "[1]", "5"), "\xff\xff\xff\xffa")
	add("are 5", sized("BYTES", "[1]", "6"), "\x01\x00\x00\x00ab")
	add("end before the length", sized("BYTES", "[2]", "9"), "\x05\x00\x00\x00abcde")
	add("expected one of them", `{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1],"parameters":{"binary_data_size":4}}]}`, "abcd")
	for _, c := range tests {
		_, err := ReadRequest(c.header, []byte(c.body))
		var told *Error
		if !errors.As(err, &told) || !strings.Contains(told.Msg, c.want) || strings.Contains(told.Msg, "\n") {
			t.Errorf("%q %.200s: got %v, expected %q", c.header, c.body, err, c.want)
		} else if want := map[bool]Code{true: Unsupported, false: Invalid}[c.want == "shared memory"]; told.Code != want {
			t.Errorf("%.200s: code %d, expected %d", c.body, told.Code, want)
		}
	}
}

func TestResolve(t *testing.T) {
	floats := func(n int) string { return strings.Repeat("\x00\x00\x80\x3f", n) }
	for _, c := range []struct {
		name    string
		inputs  []Info
		batched bool
		body    string
		dims    []int
		want    string // part of the error
	}{
		{"one varies", []Info{{Name: "x", Datatype: FP32, Dims: []int{-1, 3}}}, false, floats(6), []int{2, 3}, ""},
		{"and a batch", []Info{{Name: "x", Datatype: FP32, Dims: []int{-1, -1, 2}}}, true, floats(6), []int{1, 3, 2}, ""},
		{"none varies", []Info{{Name: "x", Datatype: FP32, Dims: []int{2}}}, false, floats(2), []int{2}, ""},
		{"with a state", []Info{{Name: "x", Datatype: FP32, Dims: []int{1, 2}}, {Name: "h", Datatype: FP32, Dims: []int{1, 9}, State: true}, {Name: "o", Optional: true}}, false, floats(2), []int{1, 2}, ""},
		{"nothing", []Info{{Name: "x", Datatype: FP32, Dims: []int{-1}}}, false, "", []int{0}, ""},
		{"text", []Info{{Name: "x", Datatype: BYTES, Dims: []int{-1, 1}}}, true, "abc", []int{1, 1}, ""},
		{"two texts", []Info{{Name: "x", Datatype: BYTES, Dims: []int{2}}}, false, "abc", nil, "one element"},
		{"two vary", []Info{{Name: "x", Datatype: FP32, Dims: []int{-1, -1}}}, false, floats(2), nil, "more than one size"},
		{"two inputs", []Info{{Name: "x"}, {Name: "y"}}, false, "", nil, `"x" and "y"`},
		{"no input", []Info{{Name: "x", State: true}}, false, "", nil, "optional"},
		{"does not divide", []Info{{Name: "x", Datatype: FP32, Dims: []int{-1, 3}}}, false, floats(4), nil, "got 16 bytes"},
		{"zero", []Info{{Name: "x", Datatype: FP32, Dims: []int{-1, 0}}}, false, floats(4), nil, "got 16 bytes"},
	} {
		r, err := ReadRequest("0", []byte(c.body))
		if err != nil {
			t.Fatal(err)
		}
		err = r.Resolve(c.inputs, c.batched)
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: got %v, expected %q", c.name, err, c.want)
			}
			continue
		}
		if in := r.Inputs[0]; err != nil || in.Name != "x" || !reflect.DeepEqual(in.Dims, c.dims) {
			t.Errorf("%s: got %+v, %v", c.name, in, err)
		} else if header, body, err := WriteResponse(&Response{Outputs: r.Inputs}, &Request{Params: Params{binaryDataOutput: true}}); in.Datatype != BYTES && (err != nil || !strings.HasSuffix(string(body), c.body)) {
			t.Errorf("%s: header %s, %q, %v", c.name, header, body, err)
		}
	}
}

// bounded runs f and checks what it allocated against the bytes that it was given.
func bounded(t *testing.T, size int, f func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > uint64(64<<10+64*size) {
		t.Errorf("%d bytes were allocated for %d", took, size)
	}
}

func FuzzReadRequest(f *testing.F) {
	for _, binary := range []bool{false, true} {
		header, body, err := WriteRequest(&Request{ID: "i", Params: Params{"a": 1.5}, Inputs: without(everyType(), FP16, BF16), Outputs: []Output{{Name: "y", Params: Params{binaryData: true}}}}, binary)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(header, body)
	}
	f.Add("0", []byte("abc"))
	f.Add("", []byte(one("FP32", "[2,3,2]", "[[1,2,3,4,5,6],[7,8,9,10,11,12]]")))
	f.Add("", []byte(one("BYTES", "[1000000000]", "[\"\"]")))
	f.Add("", []byte(one("UINT64", "[9223372036854775807,2]", "[[1]]")))
	f.Add("", []byte(`{"inputs":[{"data":[1e5,NaN],"shape":[2],"datatype":"FP64","name":"\ud83d\ude00"}]}`))
	f.Fuzz(func(t *testing.T, header string, body []byte) {
		given := bytes.Clone(body)
		var r *Request
		var err error
		bounded(t, len(body), func() { r, err = ReadRequest(header, body) })
		if !bytes.Equal(given, body) {
			t.Error("the body was changed")
		}
		if err != nil {
			var told *Error
			if !errors.As(err, &told) {
				t.Errorf("%T: %v", err, err)
			}
			return
		}
		if r.Raw {
			return
		}
		// What was read can be written and read again in both forms.
		for _, binary := range []bool{true, false} {
			header, body, err := WriteRequest(r, binary)
			if err != nil {
				if len(without(r.Inputs, FP16, BF16, BYTES)) == len(r.Inputs) {
					t.Errorf("binary %v: %v", binary, err)
				}
				continue
			}
			again, err := ReadRequest(header, body)
			if err != nil {
				t.Fatalf("binary %v: %v in %q", binary, err, body)
			}
			if !same(again.Inputs, r.Inputs) || again.ID != r.ID || !reflect.DeepEqual(again.Outputs, r.Outputs) {
				t.Errorf("binary %v: got %+v, expected %+v", binary, again, r)
			}
		}
	})
}

// TestScanner compares what is JSON with encoding/json, on a text with a byte changed,
// removed or added at each place.
func TestScanner(t *testing.T) {
	text := []byte(`{"a":[1,-2.5e+3,0.1E-9,"b\n\u00e9",true,false,null,{},[]],"":{"c":[[],[{"d":0}]]}} `)
	valid, invalid := 0, 0
	check := func(b []byte) {
		s := scanner{b: b}
		ok := s.skip(0) == nil && s.next() == 0 && s.i == len(b)
		if want := json.Valid(b); ok != want {
			t.Errorf("%q: %v, expected %v", b, ok, want)
		} else if ok {
			valid++
		} else {
			invalid++
		}
	}
	check(text)
	for i := range text {
		check(text[:i])
		check(slices.Delete(bytes.Clone(text), i, i+1))
		for c := range byte(128) {
			changed := bytes.Clone(text)
			changed[i] = c
			check(changed)
			check(slices.Insert(bytes.Clone(text), i, c))
		}
	}
	if valid < 2000 || invalid < 10000 {
		t.Errorf("%d texts were JSON and %d not", valid, invalid)
	}
	for _, text := range []string{"NaN", "Infinity", "-Infinity", "[NaN, -Infinity]"} {
		s := scanner{b: []byte(text)}
		if err := s.skip(0); err != nil || s.i != len(text) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestErrors(t *testing.T) {
	for code, want := range map[Code]int{Invalid: 400, NotFound: 404, Unavailable: 503, Unsupported: 501, Exists: 409, Canceled: 499, Deadline: 504, Exhausted: 429, TooLarge: 413, Internal: 500, Method: 405, Denied: 403, Unknown: 401} {
		e := Errorf(code, "what \"was\" wrong:\n%d", 5)
		if e.HTTPStatus() != want {
			t.Errorf("code %d has status %d, expected %d", code, e.HTTPStatus(), want)
		}
		if got := ReadError(want, WriteError(e)); *got != *e {
			t.Errorf("got %+v, expected %+v", got, e)
		}
	}
	if e := ReadError(502, []byte("<html>")); e.Code != Internal || !strings.Contains(e.Msg, "502 Bad Gateway") || !strings.Contains(e.Msg, "<html>") {
		t.Errorf("got %+v", e)
	}
	if e := ReadError(418, nil); e.Code != Invalid {
		t.Errorf("got %+v", e)
	}
}

func BenchmarkReadRequest(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	x := Tensor{Name: "x", Datatype: FP32, Value: Value{Dims: []int{1, 256}}}
	var python strings.Builder // the digits of a float64, which is what Python's lists hold
	for i := range 256 {
		x.Floats = append(x.Floats, float32(r.NormFloat64()))
		fmt.Fprintf(&python, "%s%v", map[bool]string{true: ", "}[i > 0], float64(x.Floats[i]))
	}
	req := &Request{ID: "7", Inputs: []Tensor{x}}
	_, short, err := WriteRequest(req, false)
	if err != nil {
		b.Fatal(err)
	}
	header, binary, err := WriteRequest(req, true)
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name, header string
		body         []byte
	}{{"json", "", short}, {"json-of-python", "", []byte(one("FP32", "[1,256]", "["+python.String()+"]"))}, {"binary", header, binary}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(c.body)))
			for b.Loop() {
				if _, err := ReadRequest(c.header, c.body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkWriteResponse(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	out := Tensor{Name: "y", Datatype: FP32, Value: Value{Dims: []int{1, 256}}}
	for range 256 {
		out.Floats = append(out.Floats, float32(math.Tanh(r.NormFloat64())))
	}
	resp := &Response{Model: "m", Version: "1", Outputs: []Tensor{out}}
	for _, c := range []struct {
		name string
		req  *Request
	}{{"json", &Request{ID: "7"}}, {"binary", &Request{ID: "7", Params: Params{binaryDataOutput: true}}}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := WriteResponse(resp, c.req); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
