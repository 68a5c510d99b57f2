package inference

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

func jsonBody(n int, format string) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	var b strings.Builder
	fmt.Fprintf(&b, `{"id":"7","inputs":[{"name":"x","shape":[1,%d],"datatype":"FP32","data":[`, n)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, format, float32(r.NormFloat64()))
	}
	b.WriteString(`]}]}`)
	return []byte(b.String())
}

func BenchmarkReadRequest(b *testing.B) {
	short := jsonBody(256, "%v")
	r, err := ReadRequest("", short)
	if err != nil {
		b.Fatal(err)
	}
	var long strings.Builder // as Python writes float32: the digits of a float64
	long.WriteString(`{"inputs":[{"name":"x","shape":[1,256],"datatype":"FP32","data":[`)
	for i, f := range r.Inputs[0].Floats {
		if i > 0 {
			long.WriteString(", ")
		}
		fmt.Fprint(&long, float64(f))
	}
	long.WriteString(`]}]}`)
	header, binary, err := WriteRequest(r, true)
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name, header string
		body         []byte
	}{{"json", "", short}, {"json-of-python", "", []byte(long.String())}, {"binary", header, binary}} {
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
