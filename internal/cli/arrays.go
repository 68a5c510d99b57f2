package cli

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/npy"
	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/model/onnx/graph"
)

// This file reads the inputs of a graph and writes its outputs: arrays in files and on
// the command line.

// bits are the sizes of the integer types of graphs.
var bits = map[string]uint{"int8": 8, "int16": 16, "int32": 32, "int64": 64, "uint8": 8, "uint16": 16, "uint32": 32, "uint64": 64}

// inRange reports whether an integer is one of a type.
func inRange(typ string, x int64) bool {
	n := bits[typ]
	switch {
	case typ == "uint64":
		return x >= 0
	case typ[0] == 'u':
		return x >= 0 && x < 1<<n
	}
	return n == 64 || x >= -1<<(n-1) && x < 1<<(n-1)
}

// arraySource is what an --input names.
type arraySource struct {
	text   string // as given
	path   string // of a file, or ""
	ext    string // of the file, in lower case
	rest   string // what follows the file's name, or the word zeros, behind a colon
	zeros  bool
	inline bool // the text itself is the array
}

var jsonNumber = regexp.MustCompile(`^-?\d+(\.\d+)?([eE][-+]?\d+)?$`)

var arrayFile = regexp.MustCompile(`(?is)^(.*(\.npy|\.npz|\.json|\.raw|\.bin))(?::(.*))?$`)

const arrayForms = "a file (.npy, .npz, .json, .raw), a number, a list such as [1,2] or zeros"

// sourceOf divides the value of an --input.
func sourceOf(text string) (*arraySource, error) {
	s := &arraySource{text: text}
	begin := strings.TrimSpace(text)
	word, rest, _ := strings.Cut(text, ":")
	switch m := arrayFile.FindStringSubmatch(text); {
	case begin == "true" || begin == "false" || jsonNumber.MatchString(begin) || strings.HasPrefix(begin, "[") || strings.HasPrefix(begin, "{"):
		s.inline = true
	case word == "zeros":
		s.zeros, s.rest = true, rest
	case m != nil:
		s.path, s.ext, s.rest = m[1], strings.ToLower(m[2]), m[3]
	default:
		return nil, fmt.Errorf("want %s, got %q", arrayForms, text)
	}
	return s, nil
}

// arrayReader reads the arrays of one declaration.
type arrayReader struct {
	info   graph.ValueInfo
	steps  bool // there is a further dimension before the declared ones
	remark func(string)
}

// read returns the array of a source in the declared type, with any shape. A file that
// cannot be read, or holds no array of that type, is a *data.InputError.
func (r *arrayReader) read(s *arraySource) (graph.Value, error) {
	if s.inline {
		v, err := r.readJSON(strings.NewReader(s.text), "")
		if err == nil && len(v.Dims) == 0 {
			v.Dims = r.ones()
		}
		return v, err
	}
	if s.zeros {
		return r.zeros(s.rest)
	}
	v, err := r.readFile(s)
	if err != nil {
		return v, &data.InputError{File: s.path, Problem: err.Error()}
	}
	return v, nil
}

// ones is the shape of a number given on the command line: of a declared shape with one
// element, such as [1], that shape.
func (r *arrayReader) ones() []int {
	dims := make([]int, len(r.info.Dims))
	for i, d := range r.info.Dims {
		if d.Size >= 0 && d.Size != 1 {
			return nil
		}
		dims[i] = 1
	}
	return dims
}

// zeros returns zeros of a shape, or of the declared one.
func (r *arrayReader) zeros(shape string) (v graph.Value, err error) {
	if shape != "" {
		if v.Dims, err = parseDims(shape); err != nil {
			return v, err
		}
	}
	for _, d := range r.info.Dims {
		if shape == "" {
			v.Dims = append(v.Dims, d.Size)
		}
	}
	if shape == "" && r.info.Any || slices.Contains(v.Dims, -1) {
		return v, fmt.Errorf("the shape of input %s is not determined; give it, as in zeros:1,2,3", r.want())
	}
	n, ok := npy.Len(v.Dims, maxZeros)
	switch {
	case !ok:
		return v, fmt.Errorf("want at most %d elements", maxZeros)
	case r.info.IsFloat():
		v.Data = make([]float32, n)
	default:
		v.Ints = make([]int64, n)
	}
	return v, nil
}

// maxZeros is the largest number of elements that a graph may have.
const maxZeros = 1 << 29

func (r *arrayReader) readFile(s *arraySource) (v graph.Value, err error) {
	f, err := os.Open(s.path)
	if err != nil {
		return v, fmt.Errorf("cannot be read: %w", plainFileError(err))
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return v, fmt.Errorf("cannot be read: %w", plainFileError(err))
	case !info.Mode().IsRegular():
		return v, errors.New("is not a regular file")
	}
	device.Admit(int(info.Size())) // its elements are in memory as a whole
	switch s.ext {
	case ".json":
		return r.readJSON(bufio.NewReader(f), s.rest)
	case ".raw", ".bin":
		return r.readRaw(f, info.Size(), s.rest)
	}
	var a *npy.Array
	if s.ext == ".npz" {
		a, err = r.readMember(f, info.Size(), s.rest)
	} else if a, err = npy.Read(bufio.NewReader(f), info.Size()); s.rest != "" {
		return v, fmt.Errorf("is one array; it has no part %q", s.rest)
	}
	if err != nil {
		return v, err
	}
	return r.convert(a)
}

// readMember reads an array of an archive: that of the name given, or of the input's
// name, or the only one.
func (r *arrayReader) readMember(f *os.File, size int64, name string) (*npy.Array, error) {
	z, err := npy.OpenArchive(f, size)
	if err != nil {
		return nil, err
	}
	if name, err = memberOf(z.Names, name, r.info.Name); err != nil {
		return nil, err
	}
	return z.Read(name)
}

func memberOf(names []string, asked, input string) (string, error) {
	switch {
	case asked != "" && slices.Contains(names, asked):
		return asked, nil
	case asked == "" && slices.Contains(names, input):
		return input, nil
	case asked == "" && len(names) == 1:
		return names[0], nil
	}
	which := fmt.Sprintf("no array %q", asked)
	if asked == "" {
		which = fmt.Sprintf("no array %q, and not just one", input)
	}
	return "", fmt.Errorf("holds %s; it holds %s; choose one by its name behind a colon, as in FILE:NAME", which, printable(list(names, 8)))
}

// readRaw reads bare little-endian elements. form is the shape or type:shape; without
// it they are those of the declaration, of which one dimension may vary.
func (r *arrayReader) readRaw(f io.Reader, size int64, form string) (v graph.Value, err error) {
	typ, shape, both := strings.Cut(form, ":")
	if !both && form != "" {
		typ, shape = "", form
	}
	code := ""
	for c, name := range npy.Names {
		if name == typ || typ == "" && (name == r.info.Type || r.info.Type == "bfloat16" && name == "float32") {
			code = c
		}
	}
	if code == "" {
		return v, fmt.Errorf("type %q: want one of %s", typ, strings.Join(slices.Sorted(maps.Values(npy.Names)), ", "))
	}
	each := int64(npy.ItemSize(code))
	var dims []int
	if shape != "" {
		if dims, err = parseDims(shape); err != nil {
			return v, err
		}
	} else if dims, err = r.declared(size, each); err != nil {
		return v, err
	}
	if n, ok := npy.Len(dims, size); !ok || n*each != size {
		return v, fmt.Errorf("holds %d bytes, and an array %s of %s does not; say the shape behind a colon, as in FILE:2,3", size, npy.Shape(dims), npy.Names[code])
	}
	a := &npy.Array{Type: code, Dims: dims, Data: make([]byte, size)}
	if _, err := io.ReadFull(f, a.Data); err != nil {
		return v, err
	}
	return r.convert(a)
}

// declared is the declared shape for a file of size bytes.
func (r *arrayReader) declared(size, each int64) (dims []int, err error) {
	free, rest := -1, each
	declared := r.info.Dims
	if r.steps {
		declared = append([]graph.Dim{{Size: -1}}, declared...)
	}
	unclear := fmt.Errorf("is of input %s, and more than one dimension may vary; say the shape behind a colon, as in FILE:2,3", r.want())
	if r.info.Any {
		return nil, unclear
	}
	for i, d := range declared {
		dims = append(dims, d.Size)
		switch {
		case d.Size >= 0:
			if rest *= int64(d.Size); rest > math.MaxInt32*8 {
				return nil, unclear
			}
		case free >= 0:
			return nil, unclear
		default:
			free = i
		}
	}
	if free >= 0 && rest > 0 {
		dims[free] = int(size / rest)
	}
	return dims, nil
}

// want is the declaration for messages.
func (r *arrayReader) want() string {
	info := r.info
	if r.steps && !info.Any {
		info.Dims = append([]graph.Dim{{Size: -1, Name: "steps"}}, info.Dims...)
	}
	return info.String()
}

// parseDims reads a shape such as 2,3.
func parseDims(text string) (dims []int, err error) {
	text = strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")
	for part := range strings.SplitSeq(text, ",") {
		d, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil || d < 0 || d > math.MaxInt32 {
			return nil, fmt.Errorf("shape %q: want sizes such as 2,3", text)
		}
		dims = append(dims, d)
	}
	return dims, nil
}

// convert returns an array in the declared type. Whatever could change a value by more
// than rounding, or mean another thing, is an error.
func (r *arrayReader) convert(a *npy.Array) (v graph.Value, err error) {
	name, n := npy.Names[a.Type], a.Len()
	v.Dims = a.Dims
	refuse := func(to string) error {
		return fmt.Errorf("holds %s%s, and input %s wants %s; convert it first, as by x.astype(%s)", name, npy.Shape(a.Dims), r.want(), r.info.Type, to)
	}
	switch {
	case r.info.IsFloat():
		if a.Type[0] != 'f' {
			return v, refuse("numpy.float32")
		}
		v.Data = make([]float32, n)
		vanished := 0
		for i := range v.Data {
			x := a.Float(i)
			v.Data[i] = float32(x)
			if math.IsInf(float64(v.Data[i]), 0) && !math.IsInf(x, 0) {
				return v, fmt.Errorf("element %s is %g, outside the range of float32", indexOf(i, a.Dims), x)
			}
			if a.Type == "f8" && x != 0 && simd.Narrow(x) == 0 {
				vanished++
			}
		}
		if vanished > 0 {
			r.remark(fmt.Sprintf("%d of the %d elements of input %s are below the range of float32; they are read as 0.", vanished, n, r.info.Name))
		}
	case r.info.Type == "bool":
		if a.Type != "b1" {
			return v, refuse("bool")
		}
		v.Ints = make([]int64, n)
		for i, b := range a.Data {
			if b != 0 {
				v.Ints[i] = 1
			}
		}
	default:
		if a.Type[0] == 'f' || a.Type == "b1" {
			return v, refuse("numpy." + r.info.Type)
		}
		v.Ints = make([]int64, n)
		for i := range v.Ints {
			x := a.Int(i)
			if a.Type == "u8" && x < 0 || !inRange(r.info.Type, x) {
				return v, fmt.Errorf("element %s of %s is outside the range of %s, the type of input %s", indexOf(i, a.Dims), name, r.info.Type, r.want())
			}
			v.Ints[i] = x
		}
	}
	return v, nil
}

// indexOf is the place of an element, such as [0,3].
func indexOf(i int, dims []int) string {
	index := make([]int, len(dims))
	for d := len(dims) - 1; d >= 0; d-- {
		index[d], i = i%dims[d], i/dims[d]
	}
	return npy.Shape(index)
}

// maxNesting is the number of dimensions of a list in JSON.
const maxNesting = 8

// readJSON reads an array: a number or nested lists, an object {"dims": ..., "data":
// ...}, or a result of run, of whose outputs it is the one of that name.
func (r *arrayReader) readJSON(from io.Reader, name string) (v graph.Value, err error) {
	j := &jsonArray{r: r, dec: json.NewDecoder(from)}
	j.dec.UseNumber()
	first, err := j.dec.Token()
	if err != nil {
		return v, j.fault(err)
	}
	if first == json.Delim('{') {
		err = j.object(name)
	} else {
		if name != "" {
			return v, fmt.Errorf("is one array; it has no part %q", name)
		}
		err = j.whole(first)
	}
	if err != nil {
		return v, err
	}
	if _, err := j.dec.Token(); err != io.EOF {
		return v, errors.New("has more behind its first value in JSON")
	}
	return j.value()
}

// jsonArray is an array that is read from JSON.
type jsonArray struct {
	r    *arrayReader
	dec  *json.Decoder
	v    graph.Value
	dims []int // of the lists; -1 where no list has ended
	rank int   // of the elements, or -1
	said []int // dimensions that the file states
	seen bool
}

func (j *jsonArray) fault(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errors.New("ends in the middle of an array in JSON")
	}
	return fmt.Errorf("is not valid JSON: %w", err)
}

// value is the array after the end.
func (j *jsonArray) value() (graph.Value, error) {
	if !j.seen {
		return j.v, errors.New(`holds no array: want nested lists, {"dims": [...], "data": [...]} or a result of run`)
	}
	j.v.Dims = j.dims
	if j.said != nil {
		n, ok := npy.Len(j.said, math.MaxInt32)
		if got := len(j.v.Data) + len(j.v.Ints); !ok || int(n) != got {
			return j.v, fmt.Errorf("says dims %s beside %d elements", npy.Shape(j.said), got)
		}
		j.v.Dims = j.said
	}
	return j.v, nil
}

// object reads the keys of an object that has begun.
func (j *jsonArray) object(name string) error {
	return j.keys(func(key string) error {
		switch key {
		case "dims":
			if err := j.dec.Decode(&j.said); err != nil || slices.ContainsFunc(j.said, func(d int) bool { return d < 0 }) {
				return errors.New("dims: want a list of sizes")
			}
			return nil
		case "data":
			first, err := j.dec.Token()
			if err != nil {
				return j.fault(err)
			}
			return j.whole(first)
		case "outputs":
			var all map[string]json.RawMessage
			if err := j.dec.Decode(&all); err != nil {
				return j.fault(err)
			}
			chosen, err := memberOf(slices.Sorted(maps.Keys(all)), name, j.r.info.Name)
			if err != nil {
				return err
			}
			inner := &jsonArray{r: j.r, dec: json.NewDecoder(bytes.NewReader(all[chosen]))}
			inner.dec.UseNumber()
			if first, err := inner.dec.Token(); err != nil || first != json.Delim('{') {
				return fmt.Errorf("output %q: want an object with dims and data", chosen)
			}
			if err := inner.object(""); err != nil {
				return err
			}
			j.v, j.dims, j.said, j.seen = inner.v, inner.dims, inner.said, inner.seen
			return nil
		}
		return j.skip()
	})
}

func (j *jsonArray) keys(read func(key string) error) error {
	for j.dec.More() {
		key, err := j.dec.Token()
		if err != nil {
			return j.fault(err)
		}
		if err := read(key.(string)); err != nil {
			return err
		}
	}
	if _, err := j.dec.Token(); err != nil {
		return j.fault(err)
	}
	return nil
}

func (j *jsonArray) skip() error {
	var nothing json.RawMessage
	if err := j.dec.Decode(&nothing); err != nil {
		return j.fault(err)
	}
	return nil
}

// whole reads an array from its first token.
func (j *jsonArray) whole(first json.Token) error {
	if j.seen {
		return errors.New("holds two arrays in one object")
	}
	j.seen, j.rank, j.dims = true, -1, []int{}
	if j.r.info.IsFloat() {
		j.v.Data = []float32{}
	} else {
		j.v.Ints = []int64{}
	}
	return j.item(first, 0)
}

// item reads a list, or an element, of a depth.
func (j *jsonArray) item(t json.Token, depth int) error {
	if t != json.Delim('[') {
		if j.rank >= 0 && j.rank != depth || depth < len(j.dims) {
			return fmt.Errorf("has a list beside a number (byte %d)", j.dec.InputOffset())
		}
		j.rank = depth
		return j.element(t)
	}
	switch {
	case depth == maxNesting:
		return fmt.Errorf("has lists nested more than %d deep", maxNesting)
	case j.rank >= 0 && depth >= j.rank:
		return fmt.Errorf("has a list beside a number (byte %d)", j.dec.InputOffset())
	case depth == len(j.dims):
		j.dims = append(j.dims, -1)
	}
	n := 0
	for ; j.dec.More(); n++ {
		t, err := j.dec.Token()
		if err != nil {
			return j.fault(err)
		}
		if err := j.item(t, depth+1); err != nil {
			return err
		}
	}
	if _, err := j.dec.Token(); err != nil {
		return j.fault(err)
	}
	if j.dims[depth] >= 0 && j.dims[depth] != n {
		return fmt.Errorf("has a list of %d beside one of %d (byte %d)", n, j.dims[depth], j.dec.InputOffset())
	}
	j.dims[depth] = n
	return nil
}

// element appends an element.
func (j *jsonArray) element(t json.Token) error {
	want := j.r.info.Type
	number, isNumber := t.(json.Number)
	truth, isTruth := t.(bool)
	switch {
	case t == nil:
		return errors.New("has null, which is not a number; a .npz file can hold NaN and infinities")
	case j.r.info.IsFloat() && isNumber:
		x, err := strconv.ParseFloat(number.String(), 32)
		if err != nil {
			return fmt.Errorf("has the number %.40s, outside the range of float32", number)
		}
		j.v.Data = append(j.v.Data, float32(x))
		return nil
	case want == "bool" && isTruth:
		x := int64(0)
		if truth {
			x = 1
		}
		j.v.Ints = append(j.v.Ints, x)
		return nil
	case bits[want] > 0 && isNumber:
		x, err := strconv.ParseInt(number.String(), 10, 64)
		if err != nil || !inRange(want, x) {
			return fmt.Errorf("has the number %.40s, and input %s wants whole numbers in the range of %s", number, j.r.want(), want)
		}
		j.v.Ints = append(j.v.Ints, x)
		return nil
	}
	return fmt.Errorf("has %.40q, and input %s wants %s", fmt.Sprint(t), j.r.want(), want)
}

// typeOf is the type of an output: float32 for floats of all widths, and the declared one
// for integers and booleans.
func typeOf(info graph.ValueInfo, v graph.Value) string {
	isInt := info.Type == "bool" || bits[info.Type] > 0
	switch {
	case v.Data != nil || v.Ints == nil && !isInt:
		return "float32"
	case isInt:
		return info.Type
	}
	return "int64"
}

// npyArray returns an output of a type of typeOf as NumPy has it.
func npyArray(typ string, v graph.Value) *npy.Array {
	a := &npy.Array{Dims: v.Dims}
	for code, name := range npy.Names {
		if name == typ {
			a.Type = code
		}
	}
	each := npy.ItemSize(a.Type)
	a.Data = make([]byte, 0, each*(len(v.Data)+len(v.Ints)))
	for _, x := range v.Data {
		a.Data = binary.LittleEndian.AppendUint32(a.Data, math.Float32bits(x))
	}
	for _, x := range v.Ints {
		var raw [8]byte
		binary.LittleEndian.PutUint64(raw[:], uint64(x))
		a.Data = append(a.Data, raw[:each]...)
	}
	return a
}

// arrayJSON is an output in JSON.
type arrayJSON struct {
	Type string          `json:"type"`           // of the elements, such as float32, int64 or bool
	Dims []int           `json:"dims"`           // its shape
	Data json.RawMessage `json:"data,omitempty"` // the elements in row-major order, as a list of numbers or of true and false; null where a number is not finite; absent with --out
}

// jsonElements returns the elements of an output as JSON.
func jsonElements(typ string, v graph.Value) json.RawMessage {
	b := []byte("[")
	for i, x := range v.Data {
		if i > 0 {
			b = append(b, ',')
		}
		if x-x != 0 {
			b = append(b, "null"...)
		} else {
			b = strconv.AppendFloat(b, float64(x), 'g', -1, 32)
		}
	}
	for i, x := range v.Ints {
		if i > 0 {
			b = append(b, ',')
		}
		if typ == "bool" {
			b = strconv.AppendBool(b, x != 0)
		} else {
			b = strconv.AppendInt(b, x, 10)
		}
	}
	return append(b, ']')
}
