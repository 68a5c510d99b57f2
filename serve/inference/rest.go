package inference

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// HeaderLength is the HTTP header with the bytes of JSON that a body begins with, before
// tensors in binary form. A body without it is JSON alone. Of a request, 0 says that the
// body is the model's only input.
const HeaderLength = "Inference-Header-Content-Length"

// Parameters that say how tensors are encoded.
const (
	binaryDataSize   = "binary_data_size"   // of a tensor: its bytes after the JSON
	binaryData       = "binary_data"        // of a requested output: whether it shall be binary
	binaryDataOutput = "binary_data_output" // of a request: likewise, of all outputs that do not say
	sharedMemory     = "shared_memory_region"
)

// ContentType returns the Content-Type of a body with the given value of [HeaderLength].
func ContentType(header string) string {
	if header == "" {
		return "application/json"
	}
	return "application/octet-stream"
}

// ReadRequest reads the body of a request; header is the value of [HeaderLength], "" if
// there is none. Model and Version stay empty, since the path has them. Parameters that
// say how inputs are encoded are consumed, those about outputs are left for
// [WriteResponse]. What it allocates is bounded by a small multiple of the body, and it
// keeps nothing of it. Unknown keys are ignored.
//
// In JSON, data is flat or nested by the shape's dimensions, of which one list may hold
// several. Numbers must be within the datatype's range; floats may be NaN, Infinity and
// -Infinity, which is how Python writes them; BOOL is true and false or 1 and 0. FP16 and
// BF16 have only a binary form.
//
// Errors are of *Error.
func ReadRequest(header string, body []byte) (*Request, error) {
	text, rest, err := split("request", header, body)
	if err != nil {
		return nil, err
	}
	if text == nil {
		return &Request{Raw: true, Inputs: []Tensor{{Value: Value{Texts: []string{string(body)}}}}}, nil
	}
	s := &reader{scanner: scanner{b: text}, what: "input", binary: header != ""}
	r, some := &Request{Text: true}, false
	err = s.message("request", &r.ID, &r.Params, func(key string) (err error) {
		switch key {
		case "inputs":
			some = true
			r.Inputs, err = s.tensors(r.Inputs[:0])
		case "outputs":
			r.Outputs, err = s.outputs()
		default:
			err = s.skip(0)
		}
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case !some:
		return nil, Errorf(Invalid, `the request has no "inputs", expected a list of tensors`)
	}
	if v, ok := flag(r.Params, binaryDataOutput); !ok {
		return nil, Errorf(Invalid, "the request's parameter %q is %s, expected true or false", binaryDataOutput, Shown(v))
	}
	for _, o := range r.Outputs {
		if v, ok := flag(o.Params, binaryData); !ok {
			return nil, Errorf(Invalid, "output %q: parameter %q is %s, expected true or false", o.Name, binaryData, Shown(v))
		}
	}
	if err := s.attach(r.Inputs, rest); err != nil {
		return nil, err
	}
	return r, nil
}

// Resolve gives the input of a raw request the name, datatype and shape of a model's
// only input: inputs that a session keeps and optional ones do not count. One size of it
// may vary, and is what the body's length makes it; with batched, the first is that of
// the batch and is 1 if it varies. Of BYTES the body is one element. Other requests stay
// as they are. Errors are of *Error.
func (r *Request) Resolve(inputs []Info, batched bool) error {
	if !r.Raw {
		return nil
	}
	var only *Info
	for i := range inputs {
		if in := &inputs[i]; !in.State && !in.Optional {
			if only != nil {
				return Errorf(Invalid, "a raw request (%s: 0) is for models of one input, this one has %q and %q; send JSON with binary data", HeaderLength, only.Name, in.Name)
			}
			only = in
		}
	}
	if only == nil {
		return Errorf(Invalid, "a raw request (%s: 0) is for models of one input, all inputs of this one are optional; send JSON with binary data", HeaderLength)
	}
	body := r.Inputs[0].Texts[0]
	t := Tensor{Name: only.Name, Datatype: only.Datatype, Value: Value{Dims: slices.Clone(only.Dims)}}
	if batched && len(t.Dims) > 0 && t.Dims[0] < 0 {
		t.Dims[0] = 1
	}
	varying, known := -1, 1
	for i, d := range t.Dims {
		switch {
		case d >= 0:
			known *= d
		case t.Datatype == BYTES:
			t.Dims[i] = 1
		case varying >= 0:
			return Errorf(Invalid, "a raw request (%s: 0) leaves open more than one size of input %q, whose shape is %s; send JSON with binary data", HeaderLength, t.Name, shapeText(only.Dims))
		default:
			varying = i
		}
	}
	if t.Datatype == BYTES {
		if known != 1 {
			return Errorf(Invalid, "a raw request (%s: 0) has one element, input %q has shape %s; send JSON with binary data", HeaderLength, t.Name, shapeText(only.Dims))
		}
		t.Texts = []string{body}
		r.Inputs[0] = t
		return nil
	}
	if varying >= 0 {
		if size := known * t.Datatype.Size(); size == 0 {
			t.Dims[varying] = 0
		} else if len(body)%size == 0 {
			t.Dims[varying] = len(body) / size
		} else {
			return Errorf(Invalid, "input %q: got %d bytes, expected a multiple of %d (%d elements of %s) for shape %s", t.Name, len(body), size, known, t.Datatype, shapeText(t.Dims))
		}
	}
	n, problem := t.count()
	if problem == "" {
		problem = t.setBytes([]byte(body), n)
	}
	if problem != "" {
		return Errorf(Invalid, "input %q: %s", t.Name, problem)
	}
	r.Inputs[0] = t
	return nil
}

// split divides a body into its JSON and what follows; text is nil if there is no JSON
// by intention.
func split(what, header string, body []byte) (text, rest []byte, err error) {
	if header == "" {
		if len(body) == 0 {
			return nil, nil, Errorf(Invalid, "the %s has no body, expected JSON", what)
		}
		return body, nil, nil
	}
	n, err := strconv.ParseUint(header, 10, 63)
	if err != nil || n > uint64(len(body)) {
		return nil, nil, Errorf(Invalid, "%s: %.40q, expected the bytes of JSON at the body's beginning, 0 to %d", HeaderLength, header, len(body))
	}
	if n == 0 {
		return nil, body, nil
	}
	return body[:n], body[n:], nil
}

// flag returns the value of a parameter and whether it is true, false or not given.
func flag(p Params, name string) (v any, ok bool) {
	v, given := p[name]
	_, isBool := v.(bool)
	return v, isBool || !given
}

// A reader reads the tensors of a body.
type reader struct {
	scanner
	what   string  // "input" or "output", for errors
	binary bool    // bytes follow the JSON
	null   bool    // null stands for NaN, as WriteResponse has it
	sizes  []int64 // of each tensor its binary_data_size; -1: its data is in the JSON

	nest nesting
}

// optionalText reads a string or null, which is "".
func (s *reader) optionalText(what string) (string, error) {
	if s.word("null") {
		return "", nil
	}
	return s.text(what)
}

// params reads parameters. Those of a tensor may have binary_data_size, which goes to size.
func (s *reader) params(of string, size *int64) (p Params, err error) {
	if s.word("null") {
		return nil, nil
	}
	err = s.object("parameters as an object", func(key string) error {
		value, err := s.param()
		if err != nil {
			return err
		}
		if size != nil && key == binaryDataSize {
			n, ok := value.(int64)
			if !ok || n < 0 {
				return Errorf(Invalid, "%s: %s is %s, expected a number of bytes", of, key, Shown(value))
			}
			*size = n
			return nil
		}
		if p == nil {
			p = Params{}
		}
		p[key] = value
		return nil
	})
	return p, err
}

// param reads the value of a parameter.
func (s *reader) param() (any, error) {
	switch {
	case s.next() == '"':
		return s.text("")
	case s.word("true"):
		return true, nil
	case s.word("false"):
		return false, nil
	}
	start := s.i
	n := scanNumber(s.b, start)
	if n.end == 0 {
		return nil, s.expected("the value of a parameter: true, false, a number or a string")
	}
	s.i = n.end
	if x, ok := n.integer(s.b, start, INT64); ok {
		return x, nil
	}
	if x, ok := n.integer(s.b, start, UINT64); ok {
		return uint64(x), nil
	}
	f, ok := n.float64(s.b, start)
	if !ok {
		return nil, Errorf(Invalid, "JSON, byte %d: the number %.40s is beyond the greatest of FP64", start, s.b[start:n.end])
	}
	return f, nil
}

// outputs reads the list of requested outputs.
func (s *reader) outputs() (list []Output, err error) {
	if s.word("null") {
		return nil, nil
	}
	err = s.list(`"outputs" as a list`, func(int) error {
		o, named := Output{}, false
		err := s.object("an output as an object", func(key string) (err error) {
			switch key {
			case "name":
				named = true
				o.Name, err = s.text(`"name" as a string`)
			case "parameters":
				o.Params, err = s.params("an output", nil)
			default:
				err = s.skip(0)
			}
			return err
		})
		if err == nil && !named {
			err = Errorf(Invalid, `a requested output has no "name"`)
		}
		if err == nil && o.Params[sharedMemory] != nil {
			err = noSharedMemory("output", o.Name)
		}
		list = append(list, o)
		return err
	})
	return list, err
}

func noSharedMemory(what, name string) error {
	return Errorf(Unsupported, "%s %q is in shared memory, which this server does not have; send tensors in the body", what, name)
}

// tensors reads a list of tensors. What is binary of them is left to attach.
func (s *reader) tensors(list []Tensor) ([]Tensor, error) {
	s.sizes = s.sizes[:0]
	err := s.list("a list of tensors", func(int) error {
		list = append(list, Tensor{})
		s.sizes = append(s.sizes, -1)
		return s.tensor(&list[len(list)-1], &s.sizes[len(s.sizes)-1])
	})
	return list, err
}

// tensor reads a tensor.
func (s *reader) tensor(t *Tensor, size *int64) error {
	const name, shape, datatype, data = 1, 2, 4, 8
	seen, n, later := 0, 0, -1
	once := func(field int, key string) error {
		if seen&field != 0 {
			return Errorf(Invalid, "JSON, byte %d: %q is given twice for %s %q", s.i, key, s.what, t.Name)
		}
		seen |= field
		return nil
	}
	err := s.object("a tensor as an object", func(key string) (err error) {
		switch key {
		case "name":
			if err = once(name, key); err == nil {
				t.Name, err = s.text(`"name" as a string`)
			}
		case "datatype":
			if err = once(datatype, key); err == nil {
				var text string
				text, err = s.text(`"datatype" as a string`)
				t.Datatype = Datatype(text)
			}
		case "shape":
			if err = once(shape, key); err == nil {
				t.Dims, err = s.shape()
			}
		case "parameters":
			t.Params, err = s.params("a tensor", size)
		case "data":
			if s.word("null") {
				return nil
			}
			if err = once(data, key); err != nil {
				return err
			}
			if seen&(shape|datatype) != shape|datatype { // they come later
				later = s.i
				return s.skip(0)
			}
			if n, err = s.count(t); err == nil {
				err = s.data(t, n)
			}
		default:
			err = s.skip(0)
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case seen&name == 0:
		return Errorf(Invalid, `an %s has no "name"`, s.what)
	case seen&datatype == 0:
		return s.errorf(t, `has no "datatype"`)
	case seen&shape == 0:
		return s.errorf(t, `has no "shape"`)
	case t.Params[sharedMemory] != nil:
		return noSharedMemory(s.what, t.Name)
	case *size >= 0 && seen&data != 0:
		return s.errorf(t, `has "data" and %s, expected one of them`, binaryDataSize)
	case *size < 0 && seen&data == 0:
		return s.errorf(t, `has neither "data" nor the parameter %s`, binaryDataSize)
	case *size > 0 && !s.binary:
		return s.errorf(t, "has the parameter %s, but the message has no header %s with the bytes of JSON before the binary data", binaryDataSize, HeaderLength)
	}
	if later >= 0 {
		after := s.i
		s.i = later
		if n, err = s.count(t); err == nil {
			err = s.data(t, n)
		}
		s.i = after
	}
	return err
}

// errorf returns an error about a tensor.
func (s *reader) errorf(t *Tensor, format string, args ...any) error {
	return Errorf(Invalid, "%s %q: %s", s.what, t.Name, fmt.Sprintf(format, args...))
}

// count checks a tensor's datatype and shape.
func (s *reader) count(t *Tensor) (int, error) {
	n, problem := t.count()
	if problem != "" {
		return 0, s.errorf(t, "%s", problem)
	}
	return n, nil
}

// shape reads a shape. Its sizes are checked with the datatype.
func (s *reader) shape() ([]int, error) {
	dims := make([]int, 0, 4)
	err := s.list(`"shape" as a list`, func(i int) error {
		if i >= maxDims {
			return Errorf(Invalid, "JSON, byte %d: a shape has more than %d dimensions", s.i, maxDims)
		}
		s.next()
		start := s.i
		n := scanNumber(s.b, start)
		d, ok := n.integer(s.b, start, INT64)
		if n.end == 0 || !ok || int64(int(d)) != d {
			return s.expected("a size of a shape, which is an integer")
		}
		s.i = n.end
		dims = append(dims, int(d))
		return nil
	})
	return dims, err
}

// attach decodes the tensors that follow the JSON.
func (s *reader) attach(list []Tensor, rest []byte) error {
	got := len(rest)
	for i := range list {
		size := s.sizes[i]
		if size < 0 {
			continue
		}
		t := &list[i]
		n, err := s.count(t)
		if err != nil {
			return err
		}
		if size > int64(len(rest)) {
			return s.errorf(t, "%s is %d, but only %d of the %d bytes after the JSON are left", binaryDataSize, size, len(rest), got)
		}
		if problem := t.setBytes(rest[:size], n); problem != "" {
			return s.errorf(t, "%s", problem)
		}
		rest = rest[size:]
	}
	if len(rest) > 0 {
		return Errorf(Invalid, "%d bytes follow the JSON, of which the %ss' %s name %d", got, s.what, binaryDataSize, got-len(rest))
	}
	return nil
}

// nesting is the form of the lists of one tensor's data.
type nesting struct {
	leaf  int           // the depth of the lists that hold elements, from 1; 0: not known yet
	sizes [maxDims]int  // of the lists at each depth
	known [maxDims]bool // whether sizes is set
}

// data reads the n elements of a tensor.
func (s *reader) data(t *Tensor, n int) error {
	if t.Datatype == FP16 || t.Datatype == BF16 {
		return s.errorf(t, "%s has no form in JSON; send it in binary form (%s)", t.Datatype, binaryDataSize)
	}
	// An element takes two bytes at least, so a large shape alone reserves no memory.
	room := min(n, (len(s.b)-s.i)/2+1)
	switch t.Datatype.Kind() {
	case Floats:
		t.Floats = make([]float32, 0, room)
	case Doubles:
		t.Doubles = make([]float64, 0, room)
	case Ints:
		t.Ints = make([]int64, 0, room)
	case Texts:
		t.Texts = make([]string, 0, room)
	}
	s.nest = nesting{}
	if !s.take('[') {
		return s.errorf(t, "data at byte %d is %s, expected a list", s.i, s.found())
	}
	if err := s.nested(t, n, 1); err != nil {
		return err
	}
	if t.Len() != n {
		return s.errorf(t, "data has %d elements, expected %d for shape %s", t.Len(), n, shapeText(t.Dims))
	}
	if dims := s.nest.sizes[:s.nest.leaf]; len(dims) > 1 && !divides(dims, t.Dims) {
		return s.errorf(t, "data is nested as %s, expected as shape %s, or flat", shapeText(dims), shapeText(t.Dims))
	}
	return nil
}

// divides reports whether each size of nested lists is that of one or more dimensions
// in a row. Both have the same product.
func divides(nested, dims []int) bool {
	if slices.Contains(dims, 0) {
		return true
	}
	i := 0
	for _, size := range nested {
		for product := 1; product != size; i++ {
			if i == len(dims) || size%product != 0 || product > size {
				return false
			}
			product *= dims[i]
		}
	}
	return true
}

// nested reads what follows the bracket of a list at some depth.
func (s *reader) nested(t *Tensor, n, depth int) error {
	nest := &s.nest
	if depth > maxDims {
		return s.errorf(t, "data is nested more than %d deep", maxDims)
	}
	size := 0
	if s.next() == '[' {
		if nest.leaf != 0 && depth >= nest.leaf {
			return s.irregular(t)
		}
		for more := true; more; size++ {
			if !s.take('[') {
				return s.irregular(t)
			}
			if err := s.nested(t, n, depth+1); err != nil {
				return err
			}
			if more = s.take(','); !more && !s.take(']') {
				return s.expected("a comma or the end of the list")
			}
		}
	} else {
		if nest.leaf != 0 && nest.leaf != depth {
			return s.irregular(t)
		}
		nest.leaf = depth
		before := t.Len()
		if err := s.elements(t, n); err != nil {
			return err
		}
		size = t.Len() - before
	}
	if at := depth - 1; !nest.known[at] {
		nest.known[at], nest.sizes[at] = true, size
	} else if nest.sizes[at] != size {
		return s.irregular(t)
	}
	return nil
}

func (s *reader) irregular(t *Tensor) error {
	return s.errorf(t, "data is nested irregularly at byte %d, expected lists of equal lengths in each place, or one flat list", s.i)
}

// elements reads the rest of a list that holds no lists.
func (s *reader) elements(t *Tensor, n int) error {
	if s.take(']') {
		return nil
	}
	if t.Datatype == FP32 {
		s.floats(t, n)
	}
	for {
		if t.Len() == n {
			return s.errorf(t, "data has more than the %d elements of shape %s", n, shapeText(t.Dims))
		}
		if err := s.element(t); err != nil {
			return err
		}
		// The common case without calls: a comma, and perhaps a space.
		if s.i < len(s.b) && s.b[s.i] == ',' {
			s.i++
			continue
		}
		if s.take(']') {
			return nil
		}
		if !s.take(',') {
			return s.expected("a comma or the end of the list")
		}
	}
}

// floats reads elements of FP32 and their commas as long as they are numbers and the
// list goes on. What remains is left to element, and so are the errors.
func (s *reader) floats(t *Tensor, n int) {
	b, i, out := s.b, s.i, t.Floats
	for len(out) < n {
		start := i
		if start < len(b) && b[start] == ' ' {
			start++
		}
		x := scanNumber(b, start)
		if x.end == 0 || x.end >= len(b) || b[x.end] != ',' {
			break
		}
		f, ok := x.float32(b, start)
		if !ok {
			break
		}
		out = append(out, f)
		i = x.end + 1
	}
	s.i, t.Floats = i, out
}

// element reads one element.
func (s *reader) element(t *Tensor) error {
	c := s.next()
	if t.Datatype == BYTES {
		if c != '"' {
			return s.wrong(t, "a string")
		}
		text, err := s.text("")
		t.Texts = append(t.Texts, text)
		return err
	}
	start := s.i
	n := scanNumber(s.b, start)
	if n.end == 0 {
		return s.notNumber(t)
	}
	s.i = n.end
	ok := false
	switch t.Datatype.Kind() {
	case Floats:
		var f float32
		f, ok = n.float32(s.b, start)
		t.Floats = append(t.Floats, f)
	case Doubles:
		var f float64
		f, ok = n.float64(s.b, start)
		t.Doubles = append(t.Doubles, f)
	case Ints:
		var x int64
		x, ok = n.integer(s.b, start, t.Datatype)
		t.Ints = append(t.Ints, x)
	}
	if !ok {
		return s.errorf(t, "data[%d] is %.40s, expected %s", t.Len()-1, s.b[start:n.end], t.Datatype.rangeText())
	}
	return nil
}

// notNumber reads an element that is another word.
func (s *reader) notNumber(t *Tensor) error {
	kind := t.Datatype.Kind()
	if t.Datatype == BOOL {
		switch {
		case s.word("true"):
			t.Ints = append(t.Ints, 1)
			return nil
		case s.word("false"):
			t.Ints = append(t.Ints, 0)
			return nil
		}
		return s.wrong(t, "true or false")
	}
	if kind == Ints {
		return s.wrong(t, "an integer")
	}
	f, ok := s.special()
	if !ok && s.null && s.word("null") {
		f, ok = math.NaN(), true
	}
	if !ok {
		return s.wrong(t, "a number (NaN for a missing one)")
	}
	if kind == Floats {
		t.Floats = append(t.Floats, float32(f))
	} else {
		t.Doubles = append(t.Doubles, f)
	}
	return nil
}

// wrong returns the error that an element is of another kind.
func (s *reader) wrong(t *Tensor, what string) error {
	if s.next() == '[' {
		return s.irregular(t)
	}
	return s.errorf(t, "data[%d] at byte %d is %s, expected %s for %s", t.Len(), s.i, s.found(), what, t.Datatype)
}

// rangeText describes the numbers of a datatype.
func (d Datatype) rangeText() string {
	switch {
	case d == UINT64:
		return "an integer of UINT64, 0 to 18446744073709551615"
	case d.Kind() == Ints:
		lo, hi := d.bounds()
		return fmt.Sprintf("an integer of %s, %d to %d", d, lo, hi)
	}
	return "a number within the range of " + string(d)
}

// WriteResponse writes the answer to a request: body and the value of [HeaderLength],
// "" for JSON alone. An output is in binary form if the request's parameter binary_data
// of that output says so, or without one binary_data_output of the request, or if the
// request was raw. req may be nil: all in JSON. The id is the request's unless the
// response has its own.
//
// In JSON, floats are the shortest numbers that read back as the same bits; those that
// JSON does not have, NaN and the infinities, are null, so that every client can read the
// rest; binary form keeps them. FP16, BF16 and texts that are not UTF-8 have no form in
// JSON: that is an error of code Invalid, which says to ask for binary form.
func WriteResponse(r *Response, req *Request) (header string, body []byte, err error) {
	if req == nil {
		req = &Request{}
	}
	binary := make([]bool, 0, 8)
	for i := range r.Outputs {
		binary = append(binary, req.Binary(r.Outputs[i].Name))
	}
	w := writer{what: "output", b: make([]byte, 0, room(r.Outputs, binary))}
	w.b = append(w.b, `{"model_name":`...)
	w.b = appendText(w.b, r.Model)
	if r.Version != "" {
		w.b = append(w.b, `,"model_version":`...)
		w.b = appendText(w.b, r.Version)
	}
	id := r.ID
	if id == "" {
		id = req.ID
	}
	if id != "" {
		w.b = append(w.b, `,"id":`...)
		w.b = appendText(w.b, id)
	}
	w.b = append(w.b, ',')
	w.params(r.Params, -1)
	if err := w.tensors(r.Outputs, binary); err != nil {
		return "", nil, err
	}
	w.b = append(w.b, '}')
	return w.finish(r.Outputs, binary)
}

// Writable returns the error that [WriteResponse] has for an output of the datatype, whatever its
// elements are: it is known before they are computed.
func (r *Request) Writable(name string, t Datatype) error {
	if r.Text && !r.Binary(name) && (t == FP16 || t == BF16) {
		return noText("output", name, t)
	}
	return nil
}

// noText is the error of a tensor that JSON has no form for.
func noText(what, name string, t Datatype) error {
	return Errorf(Invalid, "%s %q is %s, which has no form in JSON; ask for binary form with its parameter %s", what, name, t, binaryData)
}

// Binary reports whether a request wants an output in binary form.
func (r *Request) Binary(name string) bool {
	if r.Raw {
		return true
	}
	for _, o := range r.Outputs {
		if o.Name == name {
			if binary, said := o.Params[binaryData].(bool); said {
				return binary
			}
			break
		}
	}
	binary, _ := r.Params[binaryDataOutput].(bool)
	return binary
}

// WriteRequest writes a request as a client sends it: body and the value of
// [HeaderLength]. With binary, inputs are in binary form and outputs are asked for in
// it, unless the parameters say otherwise. Without, FP16, BF16 and texts that are not
// UTF-8 are errors, as in [WriteResponse], but NaN and the infinities are written as
// [ReadRequest] reads them.
func WriteRequest(r *Request, binary bool) (header string, body []byte, err error) {
	if r.Raw {
		if len(r.Inputs) != 1 || len(r.Inputs[0].Texts) != 1 {
			return "", nil, Errorf(Internal, "a raw request has %d inputs, expected one with one text", len(r.Inputs))
		}
		return "0", []byte(r.Inputs[0].Texts[0]), nil
	}
	forms := slices.Repeat([]bool{binary}, len(r.Inputs))
	w := writer{what: "input", special: true, b: make([]byte, 0, room(r.Inputs, forms))}
	w.b = append(w.b, '{')
	if r.ID != "" {
		w.b = append(w.b, `"id":`...)
		w.b = append(appendText(w.b, r.ID), ',')
	}
	params := r.Params
	if _, said := params[binaryDataOutput]; binary && !said {
		params = Params{binaryDataOutput: true}
		maps.Copy(params, r.Params)
	}
	w.params(params, -1)
	if err := w.tensors(r.Inputs, forms); err != nil {
		return "", nil, err
	}
	if r.Outputs != nil {
		w.b = append(w.b, `,"outputs":[`...)
		for i, o := range r.Outputs {
			if i > 0 {
				w.b = append(w.b, ',')
			}
			w.b = append(w.b, '{')
			w.params(o.Params, -1)
			w.b = append(w.b, `"name":`...)
			w.b = append(appendText(w.b, o.Name), '}')
		}
		w.b = append(w.b, ']')
	}
	w.b = append(w.b, '}')
	return w.finish(r.Inputs, forms)
}

// A writer appends a body.
type writer struct {
	b       []byte
	what    string // "input" or "output", for errors
	special bool   // NaN and infinities are written as Python does
}

// room returns the capacity that a body will roughly need.
func room(list []Tensor, binary []bool) int {
	n := 256
	for i := range list {
		t := &list[i]
		n += 96 + len(t.Name)
		if binary[i] {
			n += t.binarySize()
			continue
		}
		n += 13*len(t.Floats) + 20*len(t.Doubles) + 6*len(t.Ints) + 4*len(t.Texts)
		for _, s := range t.Texts {
			n += len(s)
		}
	}
	return n
}

// params appends parameters and a comma, in the order of their names, and before them
// binary_data_size if it is not negative; nothing if there are none.
func (w *writer) params(p Params, size int) {
	if len(p) == 0 && size < 0 {
		return
	}
	w.b = append(w.b, `"parameters":{`...)
	comma := ""
	if size >= 0 {
		w.b = append(w.b, `"binary_data_size":`...)
		w.b = strconv.AppendInt(w.b, int64(size), 10)
		comma = ","
	}
	for _, name := range slices.Sorted(maps.Keys(p)) {
		w.b = append(w.b, comma...)
		w.b = appendText(w.b, name)
		w.b = append(w.b, ':')
		switch v := p[name].(type) {
		case bool:
			w.b = strconv.AppendBool(w.b, v)
		case int64:
			w.b = strconv.AppendInt(w.b, v, 10)
		case uint64:
			w.b = strconv.AppendUint(w.b, v, 10)
		case float64:
			at := len(w.b)
			w.b = appendFloat64(w.b, v)
			if !strings.ContainsAny(string(w.b[at:]), ".en") { // so that it is a float again when it is read
				w.b = append(w.b, ".0"...)
			}
		case string:
			w.b = appendText(w.b, v)
		default:
			panic(parameterKind(name, v))
		}
		comma = ","
	}
	w.b = append(w.b, '}', ',')
}

// tensors appends the list of tensors.
func (w *writer) tensors(list []Tensor, binary []bool) error {
	w.b = append(w.b, '"')
	w.b = append(w.b, w.what...)
	w.b = append(w.b, `s":[`...)
	for i := range list {
		if i > 0 {
			w.b = append(w.b, ',')
		}
		if err := w.tensor(&list[i], binary[i]); err != nil {
			return err
		}
	}
	w.b = append(w.b, ']')
	return nil
}

// tensor appends a tensor, without its elements if they are binary.
func (w *writer) tensor(t *Tensor, binary bool) error {
	if problem := t.complete(); problem != "" {
		return Errorf(Internal, "%s %q: %s", w.what, t.Name, problem)
	}
	w.b = append(w.b, `{"name":`...)
	w.b = appendText(w.b, t.Name)
	w.b = append(w.b, `,"datatype":"`...)
	w.b = append(w.b, t.Datatype...)
	w.b = append(w.b, `","shape":[`...)
	for i, d := range t.Dims {
		if i > 0 {
			w.b = append(w.b, ',')
		}
		w.b = strconv.AppendInt(w.b, int64(d), 10)
	}
	w.b = append(w.b, ']', ',')
	if binary {
		w.params(t.Params, t.binarySize())
		w.b[len(w.b)-1] = '}' // instead of the comma
		return nil
	}
	w.params(t.Params, -1)
	w.b = append(w.b, `"data":[`...)
	if err := w.elements(t); err != nil {
		return err
	}
	if w.b[len(w.b)-1] == ',' {
		w.b = w.b[:len(w.b)-1]
	}
	w.b = append(w.b, ']', '}')
	return nil
}

// elements appends a tensor's elements, each with a comma.
func (w *writer) elements(t *Tensor) error {
	switch t.Datatype {
	case FP16, BF16:
		return noText(w.what, t.Name, t.Datatype)
	case FP32:
		b := w.b
		for _, f := range t.Floats {
			if f-f != 0 && w.special {
				b = appendSpecial(b, float64(f))
			} else {
				b = appendFloat32(b, f)
			}
			b = append(b, ',')
		}
		w.b = b
	case FP64:
		for _, f := range t.Doubles {
			if f-f != 0 && w.special {
				w.b = appendSpecial(w.b, f)
			} else {
				w.b = appendFloat64(w.b, f)
			}
			w.b = append(w.b, ',')
		}
	case BYTES:
		for i, text := range t.Texts {
			if !utf8.ValidString(text) {
				return Errorf(Invalid, "%s %q: element %d is not UTF-8, which has no form in JSON; ask for binary form with its parameter %s", w.what, t.Name, i, binaryData)
			}
			w.b = append(appendText(w.b, text), ',')
		}
	case BOOL:
		for _, x := range t.Ints {
			w.b = append(strconv.AppendBool(w.b, x != 0), ',')
		}
	case UINT64:
		for _, x := range t.Ints {
			w.b = append(strconv.AppendUint(w.b, uint64(x), 10), ',')
		}
	default:
		for _, x := range t.Ints {
			w.b = append(strconv.AppendInt(w.b, x, 10), ',')
		}
	}
	return nil
}

// appendSpecial appends what is no number as Python does.
func appendSpecial(b []byte, f float64) []byte {
	switch {
	case f > 0:
		return append(b, "Infinity"...)
	case f < 0:
		return append(b, "-Infinity"...)
	}
	return append(b, "NaN"...)
}

// finish appends what is binary.
func (w *writer) finish(list []Tensor, binary []bool) (header string, body []byte, err error) {
	if !slices.Contains(binary, true) {
		return "", w.b, nil
	}
	header = strconv.Itoa(len(w.b))
	for i := range list {
		if binary[i] {
			w.b = list[i].appendBytes(w.b)
		}
	}
	return header, w.b, nil
}

// ReadResponse reads the body of a response as a client gets it; header is the value of
// [HeaderLength]. null among floats is read as NaN: see [WriteResponse]. Errors are of
// *Error. For bodies of a status other than 200 see [ReadError].
func ReadResponse(header string, body []byte) (*Response, error) {
	text, rest, err := split("response", header, body)
	if err != nil {
		return nil, err
	}
	s := &reader{scanner: scanner{b: text}, what: "output", binary: header != "", null: true}
	r := &Response{}
	err = s.message("response", &r.ID, &r.Params, func(key string) (err error) {
		switch key {
		case "model_name":
			r.Model, err = s.optionalText(`"model_name" as a string`)
		case "model_version":
			r.Version, err = s.optionalText(`"model_version" as a string`)
		case "outputs":
			r.Outputs, err = s.tensors(r.Outputs[:0])
		default:
			err = s.skip(0)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := s.attach(r.Outputs, rest); err != nil {
		return nil, err
	}
	return r, nil
}

// message reads the object that the whole text is, a request or a response: what both have,
// and other keys by calling other.
func (s *reader) message(what string, id *string, p *Params, other func(key string) error) error {
	err := s.object("a "+what+", which is an object", func(key string) (err error) {
		switch key {
		case "id":
			*id, err = s.optionalText(`"id" as a string`)
		case "parameters":
			*p, err = s.params("the "+what, nil)
		default:
			err = other(key)
		}
		return err
	})
	if err == nil && (s.next() != 0 || s.i < len(s.b)) {
		err = s.expected("the end after the " + what + "'s object")
	}
	return err
}

// ReadError reads the body of a response whose status says that something is wrong.
func ReadError(status int, body []byte) *Error {
	e := &Error{Code: Internal}
	if status >= 400 && status < 500 {
		e.Code = Invalid
	}
	for code, s := range statuses {
		if s.http == status {
			e.Code = Code(code)
		}
	}
	var said struct {
		Error string `json:"error"`
	}
	if err := json.Unmarshal(body, &said); err != nil || said.Error == "" {
		said.Error = fmt.Sprintf("status %d %s: %.200q", status, http.StatusText(status), body)
	}
	e.Msg = said.Error
	return e
}

// WriteError returns the body of a response for an error: an object with the key "error".
func WriteError(e *Error) []byte {
	b := append([]byte(`{"error":`), appendText(nil, e.Msg)...)
	return append(b, '}')
}
