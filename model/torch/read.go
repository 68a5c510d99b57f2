package torch

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/tensor"
)

// KeyMeta is the entry of [model.File.Meta] in which [Read] records where in a
// nested checkpoint the state_dict was, such as "model".
const KeyMeta = "pytorch_key"

// Options selects what to read from a file; nil reads its only state_dict.
type Options struct {
	// Key selects a state_dict of a nested checkpoint by its path of keys,
	// joined by dots. Required if there are several.
	Key string
	// Rename replaces prefixes of tensors' names, up to a dot or the whole
	// name: {"lstm": "rnn"} turns lstm.weight_ih_l0 into rnn.weight_ih_l0. The
	// key "" adds a prefix to names that match no other entry.
	Rename map[string]string
	// Skip leaves out tensors by prefixes of their names in the file, up to a
	// dot or the whole name: for example a tied weight's second name, or an
	// unused head.
	Skip []string
	// Note, if set, is called with a sentence on what is left out of a file
	// although it may be wanted.
	Note func(text string)
}

// Read reads the state_dict in a file of torch.save: the value itself, or the
// only dict of tensors inside a nested checkpoint; NumPy arrays of numbers count
// as tensors, and the members of a list or tuple have the names layers.0,
// layers.1. It also reads the parameters and buffers of a program of
// torch.jit.save, and the arrays of a NumPy archive (.npz). Nothing in the file is
// executed. Floats of any precision become float32, integers and booleans
// int64; views become contiguous, in the order of the state_dict.
//
// The file need not be trusted: memory stays within a small multiple of its
// size plus at most 300 MB. Any fault, a value that only Python can rebuild, or
// an ambiguous choice of state_dict is a [*model.FileError] that names the
// file.
func Read(path string, o *Options) (*model.File, error) {
	f, size, err := openFile(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return decode(path, f, size, o)
}

// Load reads a state_dict into slab; it returns the errors of [Read] and
// [model.LoadSlab].
func Load(path string, slab *tensor.Slab, o *Options) error {
	f, err := Read(path, o)
	if err != nil {
		return err
	}
	return f.Load(slab)
}

func decode(path string, r io.ReaderAt, size int64, o *Options) (*model.File, error) {
	if o == nil {
		o = &Options{}
	}
	c, err := parse(path, r, size)
	if err != nil {
		return nil, err
	}
	state, err := choose(path, c.root, o)
	if err != nil {
		return nil, err
	}
	state.skip(o.Skip)
	if err := c.checkSizes(state); err != nil {
		return nil, err
	}
	ts, err := c.gather(state)
	if err != nil {
		return nil, err
	}
	for i := range ts {
		ts[i].Name = rename(ts[i].Name, o.Rename)
	}
	var meta map[string]string
	if state.path != "" {
		meta = map[string]string{KeyMeta: state.path}
	}
	return model.NewFile(path, ts, meta)
}

// rename applies the longest matching entry to name.
func rename(name string, by map[string]string) string {
	for at := len(name); at > 0; at = strings.LastIndexByte(name[:at], '.') {
		if to, ok := by[name[:at]]; ok {
			return strings.TrimPrefix(to+name[at:], ".")
		}
	}
	if to := by[""]; to != "" {
		return to + "." + name
	}
	return name
}

// state is a state_dict: named tensors, and its location in the file.
type state struct {
	path  string // keys joined by dots, "" for the file's own value
	of    *any   // members.id; nil: a module of TorchScript
	names []string
	views []*view
	cut   bool // it has more tensors in lists than maxListed
}

// skip removes the tensors whose names begin with one of the prefixes.
func (s *state) skip(prefixes []string) {
	kept := &state{path: s.path}
	for i, name := range s.names {
		if !slices.ContainsFunc(prefixes, func(p string) bool { return name == p || strings.HasPrefix(name, p+".") }) {
			kept.names, kept.views = append(kept.names, name), append(kept.views, s.views[i])
		}
	}
	*s = *kept
}

// choose finds the state_dict at key, or the only one.
func choose(path string, root any, o *Options) (chosen *state, err error) {
	key := o.Key
	s := search{seen: map[*any]bool{}, bare: map[*any]bool{}}
	s.walk(root, "", 0, false)
	defer func() {
		if err == nil && o.Note != nil {
			s.note(chosen, o.Note)
		}
	}()
	found := s.strict
	if len(found) == 0 {
		found = s.loose
	}
	if key == "" && len(found) == 1 {
		return found[0].check(path)
	}
	if key != "" {
		at := map[*any]bool{} // a dict may have several paths
		lookup(root, key, at)
		for _, f := range slices.Concat(s.strict, s.loose, s.listed) {
			if f.path == key || f.of != nil && at[f.of] {
				f.path = key
				return f.check(path)
			}
		}
	}
	if _, ok := root.(*object); ok && len(found) == 0 {
		return nil, problem(path, "save it before torch.jit.freeze", "a TorchScript program without parameters and buffers: freezing it has made them constants of its code")
	}
	if len(found) == 0 {
		return nil, problem(path, "save one: torch.save(model.state_dict(), path)", "expected a state_dict, found no dict of tensors")
	}
	var choices []string
	for _, f := range found[:min(len(found), 8)] {
		choices = append(choices, fmt.Sprintf("%s (%d tensors)", quote(f.path), len(f.names)))
	}
	if n := len(found) - len(choices); n > 0 {
		choices = append(choices, fmt.Sprintf("%d more", n))
	}
	list := strings.Join(choices, ", ")
	if key != "" {
		return nil, problem(path, "name one that is there", "has no state_dict under the key %s; it has %s", quote(key), list)
	}
	return nil, problem(path, "choose one by its key (--key)", "holds %d state_dicts: %s", len(found), list)
}

// asTensor is a value that is a tensor, or a NumPy array of numbers; nil: it is
// neither.
func asTensor(v any) *view {
	switch v := v.(type) {
	case *view:
		return v
	case *ndarray:
		return v.view
	}
	return nil
}

// maxAttributes limits the attributes of a TorchScript module that are looked at;
// a module may be an attribute of several others.
const maxAttributes = 1 << 18

// attributes adds the tensors of a TorchScript module, its parameters and
// buffers, under dotted names.
func (s *state) attributes(o *object, prefix string, depth int, steps *int) {
	d, ok := o.state.(*dict)
	if !ok || depth > maxDepth {
		return
	}
	for i, k := range d.keys {
		name, ok := k.(string)
		if *steps++; !ok || *steps > maxAttributes {
			continue
		}
		switch v := d.values[i].(type) {
		case *object:
			s.attributes(v, prefix+name+".", depth+1, steps)
		case *view:
			s.names, s.views = append(s.names, prefix+name), append(s.views, v)
		}
	}
}

// members are the values of a dict by their keys, or those of a list or tuple by
// their indices.
type members struct {
	keys   []any // nil: a list's
	values []any
}

func membersOf(v any) members {
	switch v := v.(type) {
	case *dict:
		return members{v.keys, v.values}
	case *list:
		return members{nil, v.items}
	case tuple:
		return members{nil, v}
	}
	return members{}
}

// id identifies members that are not empty.
func (m members) id() *any { return &m.values[0] }

// name returns the key of member i, if it is a text of a name's length, or its
// index.
func (m members) name(i int) (string, bool) {
	if m.keys == nil {
		return strconv.Itoa(i), true
	}
	name, ok := m.keys[i].(string)
	return name, ok && len(name) <= maxName
}

// search collects the dicts whose values are all tensors, separately those
// with some tensors, or lists of them, among other values, and those within lists.
type search struct {
	seen                  map[*any]bool // against cycles, and dicts reached on several paths
	bare                  map[*any]bool // lists, and dicts in them, that have no tensors or are being looked at
	strict, loose, listed []*state
	steps                 int // attributes of TorchScript's modules looked at
	bytes                 int // of the names of tensors in lists
	beside                []besideValue
}

// besideValue is a NumPy array in a dict, or a tensor in a list.
type besideValue struct {
	path, name string
	value      any // *view, or *ndarray that is not of numbers
}

func (s *search) noteBeside(path, name string, v any) {
	if t := asTensor(v); t != nil {
		v = t
	}
	s.beside = append(s.beside, besideValue{path, name, v})
}

// note says which NumPy arrays and tensors in lists are not among the tensors of
// the chosen state_dict.
func (s *search) note(chosen *state, say func(string)) {
	told := map[any]bool{}
	for _, v := range chosen.views {
		told[v] = true
	}
	const most = 4
	var left []string
	more := 0
	for _, b := range s.beside {
		switch {
		case told[b.value]:
		case len(left) < most:
			left = append(left, joined(b.path, b.name))
		default:
			more++
		}
		told[b.value] = true
	}
	if more > 0 {
		left = append(left, fmt.Sprintf("%d more", more))
	}
	if len(left) > 0 {
		say("NumPy arrays and lists of tensors that are left out, for they are not in the state_dict: " + strings.Join(left, ", "))
	}
}

const (
	// maxDepth of dicts within dicts; optimizers and trainers nest three or four.
	maxDepth = 32
	// maxName limits the bytes of a key, and of the keys that lead to a dict, of
	// which each dict below has a copy.
	maxName = 1 << 10
	// maxListed limits the memory of the names of tensors in lists, in bytes; a list
	// may occur in several places.
	maxListed = 64 << 20
)

// walk adds v, if it is a state_dict, and those within it; listed says that v is
// a list within the file's value, or in one.
func (s *search) walk(v any, path string, depth int, listed bool) {
	if o, ok := v.(*object); ok {
		st := &state{path: path}
		if st.attributes(o, "", 0, &s.steps); len(st.names) > 0 {
			s.strict = append(s.strict, st)
		}
		return
	}
	m := membersOf(v)
	if len(m.values) == 0 || depth > maxDepth || len(path) > maxName || s.seen[m.id()] {
		return
	}
	s.seen[m.id()] = true
	st := &state{path: path, of: m.id()}
	plain := 0 // tensors that are values
	for i, v := range m.values {
		name, ok := m.name(i)
		if !ok {
			return // an optimizer's state, keyed by numbers
		}
		if t := asTensor(v); t != nil {
			st.names, st.views = append(st.names, name), append(st.views, t)
			plain++
		}
		switch v.(type) {
		case *ndarray:
			s.noteBeside(path, name, v)
		case *list, tuple:
			s.inline(st, v, name, depth+1)
		case *dict:
			if m.keys == nil {
				s.inline(st, v, name, depth+1)
			}
		}
	}
	switch {
	case len(st.names) == 0:
	case listed:
		s.listed = append(s.listed, st)
	case plain == len(m.values):
		s.strict = append(s.strict, st)
	default:
		s.loose = append(s.loose, st)
	}
	for i, v := range m.values {
		if _, module := v.(*object); module || len(membersOf(v).values) > 0 {
			name, _ := m.name(i)
			_, isDict := v.(*dict)
			s.walk(v, joined(path, name), depth+1, listed || m.keys == nil || !isDict)
		}
	}
}

// inline adds the tensors of a list, and of the lists and dicts within it, under
// dotted names; also those of a dict, if that is in a list.
func (s *search) inline(st *state, v any, name string, depth int) {
	m := membersOf(v)
	if len(m.values) == 0 || depth > maxDepth || len(name) > maxName || s.bare[m.id()] {
		return
	}
	s.bare[m.id()] = true
	before := len(st.names)
	for i, v := range m.values {
		t := asTensor(v)
		_, array := v.(*ndarray)
		if t == nil && !array && len(membersOf(v).values) == 0 {
			continue
		}
		part, ok := m.name(i)
		if !ok {
			break
		}
		name := joined(name, part)
		if t == nil && !array {
			s.inline(st, v, name, depth+1)
			continue
		}
		if s.bytes += len(name) + 64; s.bytes > maxListed {
			st.cut = true
			break
		}
		s.noteBeside(st.path, name, v)
		if t != nil {
			st.names, st.views = append(st.names, name), append(st.views, t)
		}
	}
	if len(st.names) > before {
		delete(s.bare, m.id())
	}
}

func joined(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// lookup finds the dicts and lists at a path of keys, which may hold dots themselves.
func lookup(v any, key string, found map[*any]bool) {
	type place struct {
		at   *any
		left int
	}
	seen := map[place]bool{}
	var walk func(v any, key string)
	walk = func(v any, key string) {
		m := membersOf(v)
		if len(m.values) == 0 || seen[place{m.id(), len(key)}] {
			return
		}
		if seen[place{m.id(), len(key)}] = true; key == "" {
			found[m.id()] = true
			return
		}
		for i, v := range m.values {
			if name, ok := m.name(i); ok && name != "" && strings.HasPrefix(key, name) {
				if rest := key[len(name):]; rest == "" || rest[0] == '.' {
					walk(v, strings.TrimPrefix(rest, "."))
				}
			}
		}
	}
	walk(v, key)
}

// check returns an error for empty and repeated names, and for too many of them.
func (s *state) check(path string) (*state, error) {
	if s.cut {
		return nil, problem(path, "save one: torch.save(model.state_dict(), path)", "has more tensors in lists than are read: their names need more than %d MiB", maxListed>>20)
	}
	seen := make(map[string]bool, len(s.names))
	for _, name := range s.names {
		if name == "" || seen[name] {
			return nil, &model.FileError{File: path, Tensor: name, Problem: "the state_dict has this name twice, or it is empty"}
		}
		seen[name] = true
	}
	return s, nil
}

// checkSizes checks, before memory is allocated, that every view lies within
// its storage and that the total is in proportion to the file.
func (c *container) checkSizes(s *state) error {
	var elements, bytes int64
	used := map[*storage]bool{}
	for i, v := range s.views {
		bad := func(format string, a ...any) error {
			return &model.FileError{File: c.path, Tensor: s.names[i], Problem: fmt.Sprintf(format, a...)}
		}
		if v.what != "" {
			return &model.FileError{File: c.path, Tensor: s.names[i], Problem: "a " + v.what + " tensor, which is not read", Fix: instead[v.what]}
		}
		n, err := v.extent()
		if err != nil {
			return bad("%v", err)
		}
		// A file of one-byte elements has as many elements as bytes; more means
		// that views repeat them, as a few tied or expanded weights do, or a
		// malicious file.
		if elements += n; elements > c.size+1<<20 {
			return bad("the tensors up to here have %d elements, out of proportion to a file of %d bytes", elements, c.size)
		}
		if !used[v.storage] {
			used[v.storage] = true
			if bytes += v.storage.bytes(); v.storage.bytes() > c.size || bytes > c.size {
				return bad("truncated or damaged: the storages up to here need %d bytes, the file has %d", bytes, c.size)
			}
		}
	}
	return nil
}

// extent returns the number of elements of v, whose last one must lie in the
// storage.
func (v *view) extent() (int64, error) {
	const most = math.MaxInt64 / 16
	n, last := int64(1), v.offset
	total := v.storage.bytes() / int64(v.dtype.size)
	if v.offset < 0 || v.offset > total {
		return 0, fmt.Errorf("it begins at element %d of a storage of %d", v.offset, total)
	}
	for i, d := range v.size {
		step := v.stride[i]
		if d < 0 || step < 0 {
			return 0, fmt.Errorf("size %v with strides %v is not a view", v.size, v.stride)
		}
		if d > 0 && n > most/d || d > 1 && step > (most-last)/(d-1) {
			return 0, fmt.Errorf("size %v with strides %v is more than memory can address", v.size, v.stride)
		}
		n *= d
		last += max(d-1, 0) * step
	}
	if n > 0 && last >= total {
		return 0, fmt.Errorf("size %v with strides %v ends at element %d of a storage of %d", v.size, v.stride, last, total)
	}
	return n, nil
}

// gather copies the views out of their storages, with one storage in memory at
// a time.
func (c *container) gather(s *state) ([]model.Tensor, error) {
	ts := make([]model.Tensor, len(s.views))
	on := map[*storage][]int{}
	for i, v := range s.views {
		on[v.storage] = append(on[v.storage], i)
	}
	var raw []byte
	for i, v := range s.views {
		if on[v.storage][0] != i {
			continue // done with the first view of this storage
		}
		raw = slices.Grow(raw[:0], int(v.storage.bytes()))[:v.storage.bytes()]
		if err := c.fill(raw, v.storage); err != nil {
			return nil, &model.FileError{File: c.path, Tensor: s.names[i], Problem: err.Error(), Err: err}
		}
		for _, j := range on[v.storage] {
			ts[j].Name = s.names[j]
			if err := c.copyView(&ts[j], s.views[j], raw); err != nil {
				return nil, &model.FileError{File: c.path, Tensor: s.names[j], Problem: err.Error()}
			}
		}
	}
	return ts, nil
}

// fill reads a storage to its end, where a zip archive's checksum is verified.
func (c *container) fill(raw []byte, s *storage) error {
	if s.data != nil {
		copy(raw, s.data)
		return nil
	}
	r, err := c.open(s)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.ReadFull(r, raw)
	if err == nil {
		if _, err = r.Read(make([]byte, 1)); err == io.EOF {
			return nil
		}
	}
	return fmt.Errorf("truncated or damaged: its bytes: %w", err)
}

// copyView decodes the elements of v in row-major order.
func (c *container) copyView(t *model.Tensor, v *view, raw []byte) error {
	n := 1
	t.Dims = make([]int, len(v.size))
	for i, d := range v.size {
		t.Dims[i] = int(d)
		n *= int(d)
	}
	if v.dtype.float != nil {
		t.Data = make([]float32, n)
	} else {
		t.Ints = make([]int64, n)
	}
	size := v.dtype.size
	index := make([]int64, len(v.size)) // of element k
	at, order := v.offset, v.storage.order
	if order == nil {
		order = c.order
	}
	for k := range n {
		b := raw[int(at)*size : int(at)*size+size]
		if v.dtype.float == nil {
			t.Ints[k] = v.dtype.int(order, b)
		} else {
			x := v.dtype.float(order, b)
			if t.Data[k] = float32(x); math.IsInf(float64(t.Data[k]), 0) && !math.IsInf(x, 0) {
				return fmt.Errorf("element %d is %g, beyond float32's range", k, x)
			}
		}
		for i := len(index) - 1; i >= 0; i-- { // the next element, row-major
			at += v.stride[i]
			if index[i]++; index[i] < v.size[i] {
				break
			}
			at -= v.size[i] * v.stride[i]
			index[i] = 0
		}
	}
	return nil
}
