// Package inference is the Open Inference Protocol v2 as values: requests, responses,
// tensors and errors, and how they are read from and written to HTTP bodies and gRPC
// messages. It computes nothing.
package inference

import "fmt"

// Value is a tensor in host memory, row-major. The slice that its datatype's [Kind]
// names holds the elements; the others are nil.
type Value struct {
	Dims    []int
	Floats  []float32 // FP16, BF16 and FP32
	Doubles []float64 // FP64
	Ints    []int64   // integers; of UINT64 the bits; BOOL as 0 and 1
	Texts   []string  // BYTES
}

// Len returns the number of elements.
func (v *Value) Len() int { return len(v.Floats) + len(v.Doubles) + len(v.Ints) + len(v.Texts) }

// Kind is the field of a [Value] that holds elements of a datatype.
type Kind uint8

// The kinds, in the order of the fields.
const (
	Floats Kind = iota
	Doubles
	Ints
	Texts
)

// Datatype is a type of elements by its name in the protocol, such as "FP32".
type Datatype string

// The protocol's datatypes.
const (
	BOOL   Datatype = "BOOL"
	UINT8  Datatype = "UINT8"
	UINT16 Datatype = "UINT16"
	UINT32 Datatype = "UINT32"
	UINT64 Datatype = "UINT64"
	INT8   Datatype = "INT8"
	INT16  Datatype = "INT16"
	INT32  Datatype = "INT32"
	INT64  Datatype = "INT64"
	FP16   Datatype = "FP16"
	BF16   Datatype = "BF16"
	FP32   Datatype = "FP32"
	FP64   Datatype = "FP64"
	BYTES  Datatype = "BYTES"
)

var datatypes = map[Datatype]struct {
	kind Kind
	size int // bytes of an element; 0: varies
}{
	BOOL: {Ints, 1}, UINT8: {Ints, 1}, UINT16: {Ints, 2}, UINT32: {Ints, 4}, UINT64: {Ints, 8},
	INT8: {Ints, 1}, INT16: {Ints, 2}, INT32: {Ints, 4}, INT64: {Ints, 8},
	FP16: {Floats, 2}, BF16: {Floats, 2}, FP32: {Floats, 4}, FP64: {Doubles, 8}, BYTES: {Texts, 0},
}

// Valid reports whether the protocol has the datatype.
func (d Datatype) Valid() bool { _, ok := datatypes[d]; return ok }

// Kind returns the field of a Value that holds the elements.
func (d Datatype) Kind() Kind { return datatypes[d].kind }

// Size returns the bytes of an element in binary form; 0 for BYTES.
func (d Datatype) Size() int { return datatypes[d].size }

// Info describes an input or output of a model.
type Info struct {
	Name     string
	Datatype Datatype
	Dims     []int // -1 where the size may vary
	// State says of an input that a session keeps it, so that requests of a session leave
	// it out, and that without a session it may be left out and is zeros then. It says of
	// an output that it is such an input's next value.
	State bool
	// Optional says that requests may leave out the input.
	Optional bool
	// Labels are the names of the places of an output's last dimension, such as classes.
	Labels []string
}

// Tensor is an input or output of a request.
type Tensor struct {
	Name     string
	Datatype Datatype
	Value
	Params Params
}

// Params are the parameters of a request, tensor or output. Their values are bool,
// int64, uint64, float64 or string.
type Params map[string]any

// Request is a request for inference.
type Request struct {
	Model, Version string // Version "" is the newest
	ID             string
	Params         Params
	Inputs         []Tensor
	Outputs        []Output // requested; nil: all
	// Text says that the answer is JSON, but for outputs that are asked for in binary form.
	Text bool
	// Raw says that the body was the only input, whose name, type and shape the receiver
	// deduces: the first Tensor has no name, and Texts[0] holds the body's bytes.
	Raw bool
}

// Output is an output that a request asks for.
type Output struct {
	Name   string
	Params Params
}

// Response is the answer to a Request.
type Response struct {
	Model, Version, ID string
	Params             Params
	Outputs            []Tensor
}

// Code is the class of an [Error]: that of gRPC and the HTTP status that stands for it.
type Code uint8

// The codes.
const (
	Invalid     Code = iota // the request cannot be right; HTTP 400, gRPC INVALID_ARGUMENT
	NotFound                // 404, NOT_FOUND
	Unavailable             // not now, such as a model that is not ready; 503, UNAVAILABLE
	Unsupported             // 501, UNIMPLEMENTED
	Exists                  // 409, ALREADY_EXISTS
	Canceled                // the client went away; 499, CANCELLED
	Deadline                // 504, DEADLINE_EXCEEDED
	Exhausted               // a queue or quota is full; 429 with Retry-After, RESOURCE_EXHAUSTED
	TooLarge                // 413, RESOURCE_EXHAUSTED
	Internal                // 500, INTERNAL
	Method                  // the path has no such method; 405, UNIMPLEMENTED
	Denied                  // 403, PERMISSION_DENIED
	Unknown                 // who asks is not known; 401, UNAUTHENTICATED
)

// Error is an error that a client is told.
type Error struct {
	Code Code
	Msg  string
	// RetryAfter is the seconds after which a client may try again; 0: not said.
	RetryAfter int
}

// Error returns the message.
func (e *Error) Error() string { return e.Msg }

// mostShown is how many characters of a text, such as a client's name for something, a message
// has at most.
const mostShown = 500

// Errorf returns an Error. Of its arguments texts are cut to some hundred characters.
func Errorf(code Code, format string, args ...any) *Error {
	for i, a := range args {
		if s, ok := a.(string); ok && len(s) > mostShown {
			args[i] = cut(s, mostShown)
		}
	}
	return &Error{Code: code, Msg: fmt.Sprintf(format, args...)}
}

// cut returns the first characters of a text, with an ellipsis if these are not all.
func cut(s string, most int) string {
	n := 0
	for i := range s {
		if n == most {
			return s[:i] + "…"
		}
		n++
	}
	return s
}

// Shown is a parameter's value as JSON has it, for messages.
func Shown(v any) string {
	if s, ok := v.(string); ok {
		return string(appendText(nil, cut(s, mostShown)))
	}
	return fmt.Sprint(v)
}
