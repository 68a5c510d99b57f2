package keras

import (
	"bytes"
	"fmt"
	"strconv"
)

// This file reads HDF5's attributes that are texts or lists of texts: each is a
// message of its object's header, with a name, an element type, a shape and the
// elements. Texts of variable length lie in global heaps.

// Classes of element types.
const (
	fixedText    = 3
	variableType = 9
)

// texts is the attribute of a group; ok is false if there is none.
func (h *hdf5) texts(path, name string) (list []string, ok bool, err error) {
	defer catch(&err)
	for _, m := range h.attrs[path] {
		if m.kind == attributesMessage {
			if dense(m.data) {
				failf("the attributes of %q are stored apart from it, as the newer format of HDF5 does; load and save the file again with Keras", "/"+path)
			}
			continue
		}
		if m.data == nil {
			failf("%q has a shared attribute, which Keras does not write", "/"+path)
		}
		if a := readAttribute(m.data, path); a.name == name {
			return h.elements(a), true, nil
		}
	}
	return nil, false, nil
}

// textList is an attribute that Keras divides into NAME0, NAME1, ... if it is long.
func (h *hdf5) textList(path, name string) (list []string, ok bool, err error) {
	if list, ok, err = h.texts(path, name); ok || err != nil {
		return list, ok, err
	}
	for i := 0; ; i++ {
		more, found, err := h.texts(path, name+strconv.Itoa(i))
		if err != nil || !found {
			return list, i > 0, err
		}
		list = append(list, more...)
	}
}

// dense reports whether an attribute info message refers to attributes outside
// the header.
func dense(b []byte) bool {
	at := 2
	if len(b) > 1 && b[1]&1 != 0 {
		at += 2
	}
	return len(b) < at+8 || u64(b[at:]) != undefined
}

// attribute is one in a header; its parts are slices of the message.
type attribute struct {
	path, name           string
	kind, shape, content []byte
}

func readAttribute(b []byte, path string) *attribute {
	if len(b) < 8 || b[0] < 1 || b[0] > 3 || b[0] > 1 && b[1] != 0 {
		failf("%q has an attribute of an unsupported form", "/"+path)
	}
	lengths := [3]int{u16(b[2:]), u16(b[4:]), u16(b[6:])} // of name, type, shape
	rest := b[8:]
	if b[0] == 3 { // the encoding of the name
		rest = rest[min(1, len(rest)):]
	}
	var parts [3][]byte
	for i, n := range lengths {
		padded := n
		if b[0] == 1 {
			padded = (n + 7) &^ 7
		}
		if padded > len(rest) {
			failf("damaged: an attribute of %q is %d bytes too short", "/"+path, padded-len(rest))
		}
		parts[i], rest = rest[:n], rest[padded:]
	}
	name, _, _ := bytes.Cut(parts[0], []byte{0})
	return &attribute{path: path, name: string(name), kind: parts[1], shape: parts[2], content: rest}
}

// elements are the texts of an attribute.
func (h *hdf5) elements(a *attribute) []string {
	where := fmt.Sprintf("the attribute %s of %q", a.name, "/"+a.path)
	count := (&dataset{path: where}).readDims(a.shape)
	if count == 0 {
		return nil // an empty list is one of numbers
	}
	if len(a.kind) < 8 {
		failf("damaged: %s has no element type", where)
	}
	class, size := a.kind[0]&15, u32(a.kind[4:])
	if class != fixedText && (class != variableType || a.kind[1]&15 != 1 || size != 16) || size < 1 {
		failf("%s is not a text", where)
	}
	if count > uint64(len(a.content))/uint64(size) {
		failf("damaged: %s has %d texts in %d bytes", where, count, len(a.content))
	}
	list := make([]string, count)
	for i := range list {
		e := a.content[i*int(size):][:size]
		if class == variableType {
			e = h.shared(u32(e), u64(e[4:]), u32(e[12:]), where)
		}
		text, _, _ := bytes.Cut(e, []byte{0})
		list[i] = string(text)
	}
	return list
}

// shared is a text of n bytes, an object of a global heap.
func (h *hdf5) shared(n int64, at uint64, index int64, where string) []byte {
	if n == 0 {
		return nil
	}
	if h.budget -= n; h.budget < 0 {
		failf("damaged: %s repeats more texts than the file holds", where)
	}
	objects, ok := h.heaps[at]
	if !ok {
		objects = h.globalHeap(at)
		h.heaps[at] = objects
	}
	b := objects[index]
	if n > int64(len(b)) {
		failf("truncated or damaged: %s has a text of %d bytes, of which there are %d", where, n, len(b))
	}
	return b[:n]
}

// globalHeap reads the objects of a global heap by their numbers.
func (h *hdf5) globalHeap(at uint64) map[int64][]byte {
	head := h.bytes(at, 16)
	size := u64(head[8:])
	if string(head[:4]) != "GCOL" || size < 16 || size > h.size {
		failf("damaged: no global heap at byte %d", at)
	}
	b := h.bytes(at+16, int(size)-16)
	objects := map[int64][]byte{}
	for len(b) >= 16 {
		index, n := int64(u16(b)), u64(b[8:])
		b = b[16:]
		if index == 0 { // the rest is free
			break
		}
		if n > uint64(len(b)) {
			failf("damaged: the global heap at byte %d has an object of %d bytes where there are %d", at, n, len(b))
		}
		objects[index] = b[:n]
		b = b[min((n+7)&^7, uint64(len(b))):]
	}
	return objects
}
