// Package npy reads and writes NumPy's files: .npy, an array, and .npz, an archive
// of arrays by name.
//
// Files may be untrusted: memory stays within a multiple of a file's size, and
// pickled objects are never read. The errors are of one line, without the file's
// name.
package npy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/carousel-ml/carousel/internal/half"
)

// magic begins a .npy file. The version and the length of the description follow
// (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html).
const magic = "\x93NUMPY"

// maxRank is the largest number of dimensions, as of NumPy.
const maxRank = 64

// Header describes an array of a file.
type Header struct {
	Type    string // kind and bytes of an element as NumPy writes them, such as "f4", "i8" or "b1"; of a type that is not plain the whole description
	Big     bool   // elements are big-endian
	Fortran bool   // the first index varies fastest
	Dims    []int
	Size    int64 // bytes before the elements
}

// Array is an array in row-major order.
type Array struct {
	Type string // as of Header; a key of Names
	Dims []int
	Data []byte // the elements, little-endian
}

// Len returns the number of elements.
func (a *Array) Len() int { return len(a.Data) / ItemSize(a.Type) }

// Float returns an element of a type of floats.
func (a *Array) Float(i int) float64 {
	le := binary.LittleEndian
	switch ItemSize(a.Type) {
	case 2:
		return float64(half.FromFloat16(le.Uint16(a.Data[2*i:])))
	case 4:
		return float64(math.Float32frombits(le.Uint32(a.Data[4*i:])))
	}
	return math.Float64frombits(le.Uint64(a.Data[8*i:]))
}

// Int returns an element of a type of integers or booleans; of uint64 its bits.
func (a *Array) Int(i int) int64 {
	each := ItemSize(a.Type)
	var raw [8]byte
	copy(raw[:], a.Data[i*each:(i+1)*each])
	x := int64(binary.LittleEndian.Uint64(raw[:]))
	if a.Type[0] == 'i' {
		x = x << (64 - 8*each) >> (64 - 8*each) // the sign
	}
	return x
}

// Names are NumPy's names of the types of numbers and booleans, by the Type of
// Header.
var Names = map[string]string{
	"f2": "float16", "f4": "float32", "f8": "float64", "b1": "bool",
	"i1": "int8", "i2": "int16", "i4": "int32", "i8": "int64", "u1": "uint8", "u2": "uint16", "u4": "uint32", "u8": "uint64",
}

// ItemSize returns the bytes of an element of a type of Names.
func ItemSize(typ string) int { return int(typ[1] - '0') }

// Len returns the product of dimensions that are not negative; ok is false if it
// is larger than most.
func Len(dims []int, most int64) (n int64, ok bool) {
	if slices.Contains(dims, 0) {
		return 0, true
	}
	n = 1
	for _, d := range dims {
		if int64(d) > most/n {
			return 0, false
		}
		n *= int64(d)
	}
	return n, n <= most
}

var (
	dictOf  = regexp.MustCompile(`^\{\s*'descr':\s*(.+?),\s*'fortran_order':\s*(False|True),\s*'shape':\s*\(([\dL,\s]*)\)\s*,?\s*\}\s*$`)
	plainOf = regexp.MustCompile(`^'([<>|=]?)(\w+)'$`)
)

var errNoArray = errors.New("is not a NumPy array")

// ReadHeader reads the beginning of a .npy file, of any version of the format, up
// to the elements.
func ReadHeader(r io.Reader) (*Header, error) {
	head := make([]byte, 12)
	if _, err := io.ReadFull(r, head[:10]); err != nil || !bytes.HasPrefix(head, []byte(magic)) {
		return nil, errNoArray
	}
	n, size := int64(binary.LittleEndian.Uint16(head[8:])), int64(10)
	if head[6] > 1 {
		if _, err := io.ReadFull(r, head[10:]); err != nil {
			return nil, cut(err)
		}
		n, size = int64(binary.LittleEndian.Uint32(head[8:])), 12
	}
	if n > 1<<16 {
		return nil, fmt.Errorf("is damaged: a header of %d bytes", n)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return nil, cut(err)
	}
	m := dictOf.FindSubmatch(text)
	if m == nil {
		return nil, fmt.Errorf("is damaged: its header is %.80q", bytes.TrimSpace(text))
	}
	h := &Header{Type: string(m[1]), Fortran: string(m[2]) == "True", Dims: []int{}, Size: size + n}
	if p := plainOf.FindSubmatch(m[1]); p != nil {
		h.Type, h.Big = string(p[2]), string(p[1]) == ">"
	}
	for d := range strings.FieldsFuncSeq(string(m[3]), func(r rune) bool { return r == ',' || r == ' ' || r == 'L' }) {
		k, err := strconv.Atoi(d)
		if err != nil || len(h.Dims) == maxRank {
			return nil, fmt.Errorf("is damaged: its shape is (%.80s)", m[3])
		}
		h.Dims = append(h.Dims, k)
	}
	return h, nil
}

func cut(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errors.New("is truncated")
	}
	return fmt.Errorf("is truncated or damaged: %w", err)
}

// Read reads a .npy file of size bytes. Elements that are neither numbers nor
// booleans are an error, and so is an array that does not fit the size.
func Read(r io.Reader, size int64) (*Array, error) {
	h, err := ReadHeader(r)
	if err != nil {
		return nil, err
	}
	if Names[h.Type] == "" {
		return nil, fmt.Errorf("holds elements of type %.40s, want numbers or booleans", strings.Trim(h.Type, "'"))
	}
	each := int64(ItemSize(h.Type))
	n, ok := Len(h.Dims, math.MaxInt64/8)
	if !ok || n*each != size-h.Size {
		return nil, fmt.Errorf("is truncated or damaged: an array %s of %s does not fit %d bytes", Shape(h.Dims), Names[h.Type], max(size-h.Size, 0))
	}
	a := &Array{Type: h.Type, Dims: h.Dims, Data: make([]byte, n*each)}
	if _, err := io.ReadFull(r, a.Data); err != nil {
		return nil, cut(err)
	}
	if h.Big {
		for at := int64(0); at < int64(len(a.Data)); at += each {
			slices.Reverse(a.Data[at : at+each])
		}
	}
	if h.Fortran && len(h.Dims) > 1 {
		a.Data = rowMajor(a.Data, h.Dims, int(each))
	}
	return a, nil
}

// rowMajor returns elements of each bytes, of which the first index varies fastest,
// in row-major order.
func rowMajor(src []byte, dims []int, each int) []byte {
	dst := make([]byte, 0, len(src))
	stride := make([]int, len(dims))
	for i, n := 0, each; i < len(dims); i++ {
		stride[i], n = n, n*dims[i]
	}
	index, at := make([]int, len(dims)), 0
	for len(dst) < len(src) {
		dst = append(dst, src[at:at+each]...)
		for i := len(dims) - 1; i >= 0; i-- {
			index[i], at = index[i]+1, at+stride[i]
			if index[i] < dims[i] {
				break
			}
			index[i], at = 0, at-dims[i]*stride[i]
		}
	}
	return dst
}

// Shape returns dimensions as text, such as "[3,5]".
func Shape(dims []int) string { return strings.ReplaceAll(fmt.Sprint(dims), " ", ",") }

// Write writes a .npy file, of version 1.0 of the format. The errors are those of w.
func Write(w io.Writer, a *Array) error {
	order := "<"
	if ItemSize(a.Type) == 1 {
		order = "|"
	}
	dims := make([]string, len(a.Dims))
	for i, d := range a.Dims {
		dims[i] = strconv.Itoa(d)
	}
	tuple := strings.Join(dims, ", ")
	if len(dims) == 1 {
		tuple += ","
	}
	text := fmt.Sprintf("{'descr': '%s%s', 'fortran_order': False, 'shape': (%s), }", order, a.Type, tuple)
	// The elements begin at a multiple of 64 bytes, as NumPy has it.
	text += strings.Repeat(" ", 63-(len(magic)+4+len(text))%64) + "\n"
	head := binary.LittleEndian.AppendUint16([]byte(magic+"\x01\x00"), uint16(len(text)))
	if _, err := w.Write(append(head, text...)); err != nil {
		return err
	}
	_, err := w.Write(a.Data)
	return err
}
