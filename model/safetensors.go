package model

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/carousel-ml/carousel/internal/half"
	"github.com/carousel-ml/carousel/tensor"
)

// maxHeader is the size limit of the JSON header, as in the reference
// implementation.
const maxHeader = 100_000_000

// metaKey is the header's entry for the file's metadata strings.
const metaKey = "__metadata__"

// Tensor is a named array in row-major order. Exactly one of Data and Ints is used;
// an empty tensor (a dimension of 0) may have neither.
type Tensor struct {
	Name string
	Dims []int     // empty for a scalar, which has one element
	Data []float32 // values of floating-point types, which reading converts
	Ints []int64   // values of integers and booleans, which reading widens

	// Rest is how Data, which have its values, are in a model's file and how products with them are
	// computed; see [tensor.Param.SetRest]. In 8 bits they are integers of type I8, and the scale
	// of each row is the tensor NAME.scale. In 4 bits a row is bytes of type U8, of which each holds
	// two levels from -7 to 7 in two's complement, the first in its lower half, and NAME.shape is Dims;
	// a level l is a weight of round(l·127/7) times the scale, and a last half that is none is 0.
	Rest tensor.Precision
}

// File is the content of a safetensors file.
type File struct {
	Path    string
	Tensors []Tensor // in the order of their data
	Meta    map[string]string
	index   map[string]int
}

// NewFile makes a File from tensors that another reader has read; path is for
// messages. A name used twice, or data that does not fit its Dims, is a
// [*FileError].
func NewFile(path string, ts []Tensor, meta map[string]string) (*File, error) {
	f := &File{Path: path, Tensors: ts, Meta: meta, index: make(map[string]int, len(ts))}
	for i, t := range ts {
		n := 1
		for _, d := range t.Dims {
			n *= d
		}
		if got := len(t.Data) + len(t.Ints); got != n {
			return nil, &FileError{File: path, Tensor: t.Name, Problem: fmt.Sprintf("shape %v needs %d values, got %d", t.Dims, n, got)}
		}
		if _, twice := f.index[t.Name]; twice {
			return nil, &FileError{File: path, Tensor: t.Name, Problem: "named twice"}
		}
		f.index[t.Name] = i
	}
	return f, nil
}

// Lookup returns the tensor with that name; nil if there is none.
func (f *File) Lookup(name string) *Tensor {
	i, ok := f.index[name]
	if !ok {
		return nil
	}
	return &f.Tensors[i]
}

// ReadTensors reads a safetensors file. Floating-point numbers (F64, F32, F16,
// BF16, F8_E5M2, F8_E4M3) become float32, rounded to the nearest; integers and
// booleans become int64. The file need not be trusted: memory stays within a small multiple of
// its size, and any fault is a [*FileError] that names the file and the tensor.
func ReadTensors(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, &FileError{File: path, Problem: "cannot be read: " + bare(err).Error(), Err: err}
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, &FileError{File: path, Problem: "cannot be read: " + bare(err).Error(), Err: err}
	}
	if !info.Mode().IsRegular() {
		return nil, &FileError{File: path, Problem: "expected a safetensors file, got " + kind(info.Mode())}
	}
	return decode(path, bufio.NewReaderSize(f, 1<<16), info.Size())
}

func kind(m os.FileMode) string {
	if m.IsDir() {
		return "a directory"
	}
	return "something that is not a regular file"
}

// entry is one tensor of the header.
type entry struct {
	name       string
	dtype      string
	dims       []int
	n          int // elements
	begin, end int64
}

// dtypes are the types of elements that are read: their sizes in bytes, and how
// one is decoded, as a float or as an integer.
var dtypes = map[string]struct {
	size  int
	float func(b []byte) float32
	int   func(b []byte) int64
}{
	"F64":     {size: 8, float: func(b []byte) float32 { return float32(math.Float64frombits(le.Uint64(b))) }},
	"F32":     {size: 4, float: func(b []byte) float32 { return math.Float32frombits(le.Uint32(b)) }},
	"F16":     {size: 2, float: func(b []byte) float32 { return half.FromFloat16(le.Uint16(b)) }},
	"BF16":    {size: 2, float: func(b []byte) float32 { return half.FromBFloat16(le.Uint16(b)) }},
	"F8_E5M2": {size: 1, float: func(b []byte) float32 { return half.FromFloat16(uint16(b[0]) << 8) }},
	"F8_E4M3": {size: 1, float: func(b []byte) float32 { return e4m3(b[0]) }},
	"I64":     {size: 8, int: func(b []byte) int64 { return int64(le.Uint64(b)) }},
	"U32":     {size: 4, int: func(b []byte) int64 { return int64(le.Uint32(b)) }},
	"I32":     {size: 4, int: func(b []byte) int64 { return int64(int32(le.Uint32(b))) }},
	"U16":     {size: 2, int: func(b []byte) int64 { return int64(le.Uint16(b)) }},
	"I16":     {size: 2, int: func(b []byte) int64 { return int64(int16(le.Uint16(b))) }},
	"U8":      {size: 1, int: func(b []byte) int64 { return int64(b[0]) }},
	"I8":      {size: 1, int: func(b []byte) int64 { return int64(int8(b[0])) }},
	"BOOL":    {size: 1, int: func(b []byte) int64 { return int64(b[0]) }},
}

var le = binary.LittleEndian

// decode reads a file of the given size from r, sequentially; path is for
// messages.
func decode(path string, r io.Reader, size int64) (*File, error) {
	bad := func(format string, a ...any) error {
		return &FileError{File: path, Problem: fmt.Sprintf(format, a...)}
	}
	var lead [8]byte
	if size < 8 {
		return nil, bad("not a safetensors file: expected at least 8 bytes, got %d", size)
	}
	if _, err := io.ReadFull(r, lead[:]); err != nil {
		return nil, bad("cannot be read: %v", bare(err))
	}
	n := binary.LittleEndian.Uint64(lead[:])
	if n > maxHeader {
		return nil, bad("not a safetensors file: its first 8 bytes give a header of %d bytes, at most %d are allowed", n, maxHeader)
	}
	if int64(n) > size-8 {
		return nil, bad("truncated or not a safetensors file: the header should have %d bytes, only %d are there", n, size-8)
	}
	header := make([]byte, n)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, bad("cannot be read: %v", bare(err))
	}
	entries, meta, err := parseHeader(path, header)
	if err != nil {
		return nil, err
	}
	if err := checkLayout(path, entries, size-8-int64(n)); err != nil {
		return nil, err
	}
	f := &File{Path: path, Meta: meta, Tensors: make([]Tensor, len(entries)), index: make(map[string]int, len(entries))}
	for i, e := range entries {
		t := &f.Tensors[i]
		t.Name, t.Dims = e.name, e.dims
		if err := readData(t, &e, r, meta[restKey] != ""); err != nil {
			return nil, &FileError{File: path, Tensor: e.name, Problem: fmt.Sprintf("cannot be read: %v", bare(err)), Err: err}
		}
		f.index[e.name] = i
	}
	return f, f.restore(entries)
}

// parseHeader reads the JSON header token by token, because encoding/json would
// silently use the second of two equal names.
func parseHeader(path string, header []byte) (entries []entry, meta map[string]string, err error) {
	bad := func(format string, a ...any) error {
		return &FileError{File: path, Problem: "header: " + fmt.Sprintf(format, a...)}
	}
	d := json.NewDecoder(bytes.NewReader(header))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, nil, bad("expected a JSON object")
	}
	seen := make(map[string]bool)
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, nil, bad("not valid JSON: %v", err)
		}
		name, ok := t.(string)
		if !ok {
			return nil, nil, bad("expected a tensor name, got %v", t)
		}
		if seen[name] {
			return nil, nil, &FileError{File: path, Tensor: name, Problem: "named twice in the header"}
		}
		seen[name] = true
		if name == metaKey {
			if err := d.Decode(&meta); err != nil {
				return nil, nil, bad("%s: expected an object of strings: %v", metaKey, err)
			}
			continue
		}
		var v struct {
			DType   string  `json:"dtype"`
			Shape   []int64 `json:"shape"`
			Offsets []int64 `json:"data_offsets"`
		}
		if err := d.Decode(&v); err != nil {
			return nil, nil, &FileError{File: path, Tensor: name, Problem: fmt.Sprintf("header: %v", err)}
		}
		e, problem := newEntry(name, v.DType, v.Shape, v.Offsets)
		if problem != "" {
			return nil, nil, &FileError{File: path, Tensor: name, Problem: problem}
		}
		entries = append(entries, e)
	}
	if _, err := d.Token(); err != nil { // the closing brace
		return nil, nil, bad("not valid JSON: %v", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, nil, bad("expected nothing after the JSON object")
	}
	return entries, meta, nil
}

// newEntry checks one tensor's fields; problem is "" if they agree.
func newEntry(name, dtype string, shape, offsets []int64) (e entry, problem string) {
	size := int64(dtypes[dtype].size)
	switch {
	case name == "":
		return e, "a tensor has no name"
	case size == 0:
		return e, fmt.Sprintf("expected one of the types %s, got %q", strings.Join(slices.Sorted(maps.Keys(dtypes)), ", "), clip(dtype))
	case shape == nil:
		return e, "the header gives no shape"
	case len(offsets) != 2:
		return e, fmt.Sprintf("expected two data_offsets, got %d", len(offsets))
	case offsets[0] < 0 || offsets[1] < offsets[0]:
		return e, fmt.Sprintf("data_offsets [%d, %d] are not a range", offsets[0], offsets[1])
	}
	dims := make([]int, len(shape))
	n := int64(1)
	for i, v := range shape {
		if v < 0 || v > math.MaxInt {
			return e, fmt.Sprintf("dimension %d of the shape is %d", i, v)
		}
		if v != 0 && n > math.MaxInt/8/v {
			return e, "the shape has more elements than memory can address"
		}
		n *= v
		dims[i] = int(v)
	}
	if got := offsets[1] - offsets[0]; got != n*size {
		return e, fmt.Sprintf("shape %s of %s needs %d bytes, data_offsets give %d", shapeText(dims), dtype, n*size, got)
	}
	return entry{name, dtype, dims, int(n), offsets[0], offsets[1]}, ""
}

func shapeText(dims []int) string {
	if len(dims) > 8 {
		return fmt.Sprintf("of %d dimensions", len(dims))
	}
	return fmt.Sprint(dims)
}

// checkLayout sorts the entries by offset and checks that they tile the data
// exactly.
func checkLayout(path string, entries []entry, size int64) error {
	sort.SliceStable(entries, func(i, j int) bool {
		a, b := &entries[i], &entries[j]
		return a.begin < b.begin || a.begin == b.begin && a.end < b.end
	})
	at := int64(0)
	for _, e := range entries {
		var problem string
		switch {
		case e.end > size:
			problem = fmt.Sprintf("truncated file: bytes %d to %d are expected, the data has %d", e.begin, e.end, size)
		case e.begin < at:
			problem = fmt.Sprintf("its bytes %d to %d overlap another tensor's", e.begin, e.end)
		case e.begin > at:
			problem = fmt.Sprintf("bytes %d to %d before it belong to no tensor", at, e.begin)
		default:
			at = e.end
			continue
		}
		return &FileError{File: path, Tensor: e.name, Problem: problem}
	}
	if at != size {
		return &FileError{File: path, Problem: fmt.Sprintf("expected %d bytes of data, got %d", at, size)}
	}
	return nil
}

// readData fills t from r, in chunks, so that the raw bytes are never held in
// memory beside the values.
func readData(t *Tensor, e *entry, r io.Reader, rests bool) error {
	d := dtypes[e.dtype]
	if rests && (e.dtype == "I8" || e.dtype == "U8") { // integers without their scale, or two levels
		d.float = func(b []byte) float32 { return float32(int8(b[0])) }
	}
	if d.float != nil {
		t.Data = make([]float32, e.n)
	} else {
		t.Ints = make([]int64, e.n)
	}
	buf := make([]byte, min(1<<16, e.n*d.size))
	for lo := 0; lo < e.n; {
		hi := min(e.n, lo+len(buf)/d.size)
		b := buf[:(hi-lo)*d.size]
		if _, err := io.ReadFull(r, b); err != nil {
			return err
		}
		for i := lo; i < hi; i++ {
			one := b[(i-lo)*d.size:]
			if d.float != nil {
				t.Data[i] = d.float(one)
			} else {
				t.Ints[i] = d.int(one)
			}
		}
		lo = hi
	}
	return nil
}

// e4m3 widens an 8-bit number with 4 bits of exponent and 3 of fraction, exactly.
// It has no infinities, and all bits set is NaN.
func e4m3(v byte) float32 {
	exp, frac := int(v>>3)&15, float64(v&7)
	x := math.Ldexp(8+frac, exp-7-3)
	switch {
	case exp == 0:
		x = math.Ldexp(frac, -6-3)
	case exp == 15 && frac == 7:
		x = math.NaN()
	}
	return float32(math.Copysign(x, float64(1)-2*float64(v>>7)))
}

// WriteTensors writes a safetensors file atomically (see [WriteFileAtomic],
// whose errors it returns), floats as F32, integers as I64 and what rests in another
// precision as that. Equal tensors
// and metadata give equal bytes. A name that is empty, reserved or used twice,
// or data that does not fit its Dims, is an error and nothing is written.
func WriteTensors(path string, ts []Tensor, meta map[string]string) error {
	return WriteFileAtomic(path, func(w io.Writer) error { return encode(w, ts, meta) })
}

// buildHeader returns the header's JSON, padded so that the data starts at a
// multiple of 8.
func buildHeader(ts []Tensor, meta map[string]string) ([]byte, error) {
	header := []byte{'{'}
	if len(meta) > 0 {
		m, err := json.Marshal(meta) // sorts the keys
		if err != nil {
			return nil, fmt.Errorf("metadata: %w", err)
		}
		header = append(header, `"`+metaKey+`":`...)
		header = append(header, m...)
	}
	seen := map[string]bool{metaKey: true, "": true}
	at := 0
	for _, t := range ts {
		if seen[t.Name] || !utf8.ValidString(t.Name) {
			return nil, fmt.Errorf("tensor name %q is empty, reserved, used twice or not UTF-8", t.Name)
		}
		seen[t.Name] = true
		n := 1
		for _, d := range t.Dims {
			n *= d
		}
		dtype, size := "F32", 4
		switch {
		case t.Rest != tensor.Float32:
			dtype = restTypes[t.Rest]
			size = dtypes[dtype].size
		case t.Ints != nil:
			dtype, size = "I64", 8
		}
		if got := len(t.Data) + len(t.Ints); got != n {
			return nil, fmt.Errorf("tensor %s of shape %v needs %d values, got %d", t.Name, t.Dims, n, got)
		}
		dims := t.Dims
		if dims == nil {
			dims = []int{}
		}
		e, err := json.Marshal(struct {
			DType   string `json:"dtype"`
			Shape   []int  `json:"shape"`
			Offsets [2]int `json:"data_offsets"`
		}{dtype, dims, [2]int{at, at + n*size}})
		if err != nil {
			return nil, fmt.Errorf("tensor %s: %w", t.Name, err)
		}
		name, err := json.Marshal(t.Name)
		if err != nil {
			return nil, fmt.Errorf("tensor %s: %w", t.Name, err)
		}
		if len(header) > 1 {
			header = append(header, ',')
		}
		header = append(append(append(header, name...), ':'), e...)
		at += n * size
	}
	header = append(header, '}')
	for len(header)%8 != 0 {
		header = append(header, ' ')
	}
	if len(header) > maxHeader {
		return nil, fmt.Errorf("the header would have %d bytes, at most %d are allowed", len(header), maxHeader)
	}
	return header, nil
}

// encode writes the bytes of a safetensors file.
func encode(w io.Writer, ts []Tensor, meta map[string]string) error {
	ts, meta = stored(ts, maps.Clone(meta))
	header, err := buildHeader(ts, meta)
	if err != nil {
		return err
	}
	if _, err := w.Write(le.AppendUint64(nil, uint64(len(header)))); err != nil {
		return err
	}
	if _, err := w.Write(header); err != nil {
		return err
	}
	const piece = 4096 // values
	buf := make([]byte, 0, 8*piece)
	for _, t := range ts {
		for lo := 0; lo < len(t.Data); lo += piece {
			buf = buf[:0]
			for _, v := range t.Data[lo:min(lo+piece, len(t.Data))] {
				switch t.Rest {
				case tensor.BFloat16:
					buf = le.AppendUint16(buf, half.ToBFloat16(v))
				case tensor.Float16:
					buf = le.AppendUint16(buf, half.ToFloat16(v))
				default:
					buf = le.AppendUint32(buf, math.Float32bits(v))
				}
			}
			if _, err := w.Write(buf); err != nil {
				return err
			}
		}
		for lo := 0; lo < len(t.Ints); lo += piece {
			buf = buf[:0]
			for _, v := range t.Ints[lo:min(lo+piece, len(t.Ints))] {
				if t.Rest != tensor.Float32 {
					buf = append(buf, byte(v))
				} else {
					buf = le.AppendUint64(buf, uint64(v))
				}
			}
			if _, err := w.Write(buf); err != nil {
				return err
			}
		}
	}
	return nil
}
