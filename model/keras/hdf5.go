package keras

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/carousel-ml/carousel/internal/half"
)

// This file reads the part of HDF5 that Keras writes (The HDF Group, "HDF5 File
// Format Specification", version 3.0): superblock version 0 or 1, groups as
// symbol tables, object headers of version 1, contiguous or compact arrays of
// floating-point numbers, and attributes that are texts. The file need not be trusted: a budget of bytes to
// read, in proportion to its size, bounds the cost of anything it claims, and
// no group is entered twice.

const signature = "\x89HDF\r\n\x1a\n"

// undefined is the address of an absent object.
const undefined = math.MaxUint64

// Limits, far above what files of Keras need.
const (
	maxDepth    = 64   // of groups, and of the trees of one
	maxName     = 1024 // bytes
	maxMessages = 1024 // of an object
	maxRank     = 8
)

// hdf5 is an open file.
type hdf5 struct {
	r      io.ReaderAt
	size   uint64
	budget int64           // bytes of structure that may still be read
	data   int64           // bytes of arrays that may still be read
	seen   map[uint64]bool // visited objects and tree nodes
	list   []dataset
	attrs  map[string][]*message       // of the groups, by path
	heaps  map[uint64]map[int64][]byte // global heaps by address, with their objects by number
}

// dataset is an array in the file.
type dataset struct {
	path  string
	dims  []int
	float *float // nil: the elements are not in a supported floating-point format
	at    uint64 // address of its bytes
	bytes uint64
}

// float is a floating-point format.
type float struct {
	size   int
	order  binary.ByteOrder
	decode func(order binary.ByteOrder, b []byte) float64
}

// problem is an error of reading, thrown as a panic and recovered by catch.
type problem struct{ error }

func failf(format string, args ...any) { panic(problem{fmt.Errorf(format, args...)}) }

// catch turns a thrown problem into an error.
func catch(err *error) {
	switch p := recover().(type) {
	case nil:
	case problem:
		*err = p.error
	default:
		panic(p)
	}
}

// openHDF5 lists the arrays of a file.
func openHDF5(r io.ReaderAt, size int64) (h *hdf5, err error) {
	defer catch(&err)
	h = &hdf5{r: r, size: uint64(size), budget: 4*size + 1<<16, data: size, seen: map[uint64]bool{}, attrs: map[string][]*message{}, heaps: map[uint64]map[int64][]byte{}}
	head := h.bytes(0, 96)
	if string(head[:8]) != signature {
		failf("expected an HDF5 file, got one that begins with %q", head[:8])
	}
	if version := head[8]; version > 1 {
		failf("it uses a newer version of HDF5 (superblock %d), which Keras does not write; save it with Keras 3", version)
	}
	if head[13] != 8 || head[14] != 8 {
		failf("offsets of %d and lengths of %d bytes; only 8 are known", head[13], head[14])
	}
	at := 24 // the addresses, after four more bytes in version 1
	if head[8] == 1 {
		at += 4
	}
	if base := u64(head[at:]); base != 0 {
		failf("it begins at byte %d, not at 0", base)
	}
	root := head[at+32:]
	h.object(u64(root[8:]), "", 0)
	return h, nil
}

func u16(b []byte) int    { return int(binary.LittleEndian.Uint16(b)) }
func u32(b []byte) int64  { return int64(binary.LittleEndian.Uint32(b)) }
func u64(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

// bytes reads n bytes of structure.
func (h *hdf5) bytes(at uint64, n int) []byte {
	if n < 0 || at > h.size || uint64(n) > h.size-at {
		failf("truncated or damaged: %d bytes at %d, in a file of %d", n, at, h.size)
	}
	if h.budget -= int64(n); h.budget < 0 {
		failf("damaged: its structure refers to more than the file holds")
	}
	b := make([]byte, n)
	if _, err := h.r.ReadAt(b, int64(at)); err != nil {
		failf("cannot be read: %w", err)
	}
	return b
}

// visit fails at the second visit of an address, which does not occur in a
// tree.
func (h *hdf5) visit(at uint64) {
	if h.seen[at] {
		failf("damaged: the object at byte %d occurs twice", at)
	}
	h.seen[at] = true
}

// messages of an object header, by type.
const (
	dataspaceMessage    = 0x01
	datatypeMessage     = 0x03
	layoutMessage       = 0x08
	filterMessage       = 0x0b
	attributeMessage    = 0x0c
	continuationMessage = 0x10
	symbolTableMessage  = 0x11
	attributesMessage   = 0x15
)

// message is a piece of an object header, and where its data lie.
type message struct {
	kind int
	data []byte
	at   uint64
}

// object reads a group or an array.
func (h *hdf5) object(at uint64, path string, depth int) {
	if depth > maxDepth {
		failf("damaged: groups nested deeper than %d", maxDepth)
	}
	h.visit(at)
	found, attrs := h.header(at, path)
	switch table, space := found[symbolTableMessage], found[dataspaceMessage]; {
	case table != nil && len(table.data) >= 16:
		h.attrs[path] = attrs
		names := h.heap(u64(table.data[8:]))
		h.tree(u64(table.data), names, path, depth, maxDepth)
	case space != nil && found[datatypeMessage] != nil && found[layoutMessage] != nil:
		h.list = append(h.list, h.array(path, found))
	default:
		failf("%q is neither a group nor an array of the kinds that Keras writes", path)
	}
}

// header reads the messages of an object: the first of each type, and all that
// are attributes.
func (h *hdf5) header(at uint64, path string) (found map[int]*message, attrs []*message) {
	head := h.bytes(at, 16)
	if head[0] != 1 {
		failf("%q has a newer version of object header, which Keras does not write; save it with Keras 3", path)
	}
	found = map[int]*message{}
	left := u16(head[2:])
	if left > maxMessages {
		failf("damaged: %q has %d messages", path, left)
	}
	type block struct{ at, n uint64 }
	blocks := []block{{at + 16, uint64(u32(head[8:]))}}
	for len(blocks) > 0 && left > 0 {
		b := blocks[0]
		blocks = blocks[1:]
		if b.n > math.MaxInt32 {
			failf("damaged: %q has a header of %d bytes", path, b.n)
		}
		raw := h.bytes(b.at, int(b.n))
		for i := 0; i+8 <= len(raw) && left > 0; left-- {
			kind, n, flags := u16(raw[i:]), u16(raw[i+2:]), raw[i+4]
			i += 8
			if n > len(raw)-i {
				failf("damaged: %q has a message of %d bytes where there are %d", path, n, len(raw)-i)
			}
			m := &message{kind, raw[i : i+n], b.at + uint64(i)}
			i += n
			switch {
			case kind == attributeMessage || kind == attributesMessage:
				if flags&2 != 0 {
					m.data = nil // elsewhere: an error if it is asked for
				}
				attrs = append(attrs, m)
			case kind == continuationMessage && n >= 16:
				blocks = append(blocks, block{u64(m.data), u64(m.data[8:])})
			case flags&2 != 0 && (kind == dataspaceMessage || kind == datatypeMessage):
				failf("%q has a shared %d message, which Keras does not write", path, kind)
			case found[kind] == nil:
				found[kind] = m
			}
		}
	}
	return found, attrs
}

// heap reads the names of a group.
func (h *hdf5) heap(at uint64) []byte {
	head := h.bytes(at, 32)
	if string(head[:4]) != "HEAP" {
		failf("damaged: no heap at byte %d", at)
	}
	n := u64(head[8:])
	if n > math.MaxInt32 {
		failf("damaged: a heap of %d bytes", n)
	}
	return h.bytes(u64(head[24:]), int(n))
}

// tree iterates over the B-tree of a group's members. Its levels, at most left,
// end in lists of members.
func (h *hdf5) tree(at uint64, names []byte, path string, depth, left int) {
	h.visit(at)
	head := h.bytes(at, 8)
	if string(head[:4]) == "SNOD" {
		h.members(at, u16(head[6:]), names, path, depth)
		return
	}
	if string(head[:4]) != "TREE" || head[4] != 0 || left == 0 {
		failf("damaged: no members of group %q at byte %d", path, at)
	}
	n := u16(head[6:])
	entries := h.bytes(at+24, 8+16*n)
	for i := range n {
		h.tree(u64(entries[8+16*i:]), names, path, depth, left-1)
	}
}

func (h *hdf5) members(at uint64, n int, names []byte, path string, depth int) {
	entries := h.bytes(at+8, 40*n)
	for i := range n {
		e := entries[40*i:]
		name := nameAt(names, u64(e), path)
		if u16(e[16:]) == 2 {
			failf("%q has a symbolic link, %q, which Keras does not write", path, name)
		}
		h.object(u64(e[8:]), strings.TrimPrefix(path+"/"+name, "/"), depth+1)
	}
}

// nameAt returns a name in a group's heap.
func nameAt(names []byte, at uint64, path string) string {
	if at < uint64(len(names)) {
		rest := names[at:min(uint64(len(names)), at+maxName)]
		for i, c := range rest {
			if c == 0 && i > 0 {
				return string(rest[:i])
			}
		}
	}
	failf("damaged: a member of group %q has no name", path)
	return ""
}

// array reads the description of an array.
func (h *hdf5) array(path string, found map[int]*message) dataset {
	d := dataset{path: path}
	elements := d.readDims(found[dataspaceMessage].data)
	size := d.readType(found[datatypeMessage].data)
	if found[filterMessage] != nil {
		failf("%q is compressed, which Keras does not do; save it with Keras 3", path)
	}
	if elements > h.size/uint64(max(size, 1)) {
		failf("truncated or damaged: %q has %d elements of %d bytes, in a file of %d bytes", path, elements, size, h.size)
	}
	d.bytes = elements * uint64(size)
	l, layout := found[layoutMessage], found[layoutMessage].data
	if len(layout) < 4 || layout[0] != 3 {
		failf("%q has a newer version of layout, which Keras does not write", path)
	}
	have := uint64(0)
	switch {
	case layout[1] == 0:
		d.at, have = l.at+4, uint64(u16(layout[2:]))
		have = min(have, uint64(len(layout)-4))
	case layout[1] == 1 && len(layout) >= 18:
		if d.at, have = u64(layout[2:]), u64(layout[10:]); d.at == undefined {
			have = 0
		}
	default:
		failf("%q is stored in pieces, which Keras does not do", path)
	}
	if have < d.bytes || d.bytes > 0 && (d.at > h.size || d.bytes > h.size-d.at) {
		failf("truncated or damaged: %q needs %d bytes and has %d, in a file of %d", path, d.bytes, have, h.size)
	}
	return d
}

// readDims reads a dataspace message and returns the number of elements.
func (d *dataset) readDims(b []byte) (elements uint64) {
	at, rank := 8, 0
	if len(b) >= 4 {
		if rank = int(b[1]); b[0] == 2 {
			at = 4
		}
	}
	if len(b) < 4 || b[0] < 1 || b[0] > 2 || rank > maxRank || len(b) < at+8*rank || b[0] == 2 && b[3] == 2 {
		failf("%q has an unsupported shape", d.path)
	}
	elements = 1
	d.dims = make([]int, rank)
	for i := range rank {
		n := u64(b[at+8*i:])
		if n > math.MaxInt32 || n > 0 && elements > math.MaxInt64/16/n {
			failf("damaged: %q has a dimension of %d", d.path, n)
		}
		d.dims[i] = int(n)
		elements *= n
	}
	return elements
}

// readType reads a datatype message and returns the size of an element.
func (d *dataset) readType(b []byte) int {
	if len(b) < 8 || b[0]>>4 > 3 {
		failf("%q has an unsupported element type", d.path)
	}
	size := u32(b[4:])
	if size < 1 || size > 1<<16 {
		failf("damaged: %q has elements of %d bytes", d.path, size)
	}
	if b[0]&15 == 5 && size == 2 { // opaque: how Keras stores bfloat16
		d.float = &float{2, binary.LittleEndian, bfloat16}
		return int(size)
	}
	if b[0]&15 != 1 || len(b) < 20 || b[1]&0x40 != 0 {
		return int(size) // integers, texts: not weights
	}
	f := &float{size: int(size), order: binary.LittleEndian}
	if b[1]&1 != 0 {
		f.order = binary.BigEndian
	}
	switch exponent := b[13]; {
	case size == 4 && exponent == 8:
		f.decode = func(o binary.ByteOrder, b []byte) float64 { return float64(math.Float32frombits(o.Uint32(b))) }
	case size == 8 && exponent == 11:
		f.decode = func(o binary.ByteOrder, b []byte) float64 { return math.Float64frombits(o.Uint64(b)) }
	case size == 2 && exponent == 8:
		f.decode = bfloat16
	case size == 2 && exponent == 5:
		f.decode = func(o binary.ByteOrder, b []byte) float64 { return float64(half.FromFloat16(o.Uint16(b))) }
	default:
		return int(size)
	}
	d.float = f
	return int(size)
}

func bfloat16(o binary.ByteOrder, b []byte) float64 {
	return float64(half.FromBFloat16(o.Uint16(b)))
}

// read decodes an array, in row-major order.
func (h *hdf5) read(d *dataset) (x []float32, err error) {
	if h.data -= int64(d.bytes); h.data < 0 {
		return nil, errors.New("damaged: its arrays overlap")
	}
	raw := make([]byte, d.bytes)
	if _, err := h.r.ReadAt(raw, int64(d.at)); err != nil && d.bytes > 0 {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	x = make([]float32, len(raw)/d.float.size)
	for i := range x {
		v := d.float.decode(d.float.order, raw[i*d.float.size:])
		if x[i] = float32(v); math.IsInf(float64(x[i]), 0) && !math.IsInf(v, 0) {
			return nil, fmt.Errorf("element %d is %g, beyond float32's range", i, v)
		}
	}
	return x, nil
}
