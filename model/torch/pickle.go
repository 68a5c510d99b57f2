package torch

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"
)

// Limits of one pickle. A state_dict costs about 1 kB per tensor, so they allow
// some hundred thousand tensors.
const (
	maxMemory = 128 << 20 // bytes of values, by the estimate of charge
	maxText   = 16 << 20  // bytes of one string
	maxGlobal = 256       // bytes of a module's or function's name
)

// The values of a pickle: nil, bool, int64, float64, string, []byte, bigInt,
// tuple, *list, *dict, global, *storage, *view, *object, *ndtype and *ndarray.
type (
	bigInt string // little-endian two's complement, longer than 8 bytes
	tuple  []any
	list   struct{ items []any } // also for sets
	dict   struct{ keys, values []any }
	global string // "module.name", one of those in globals
)

// unpickler runs the safe part of the pickle language: it builds values, and
// calls nothing. See CPython's Lib/pickletools.py for the language.
type unpickler struct {
	in      *bufio.Reader
	at      int64 // bytes read
	stack   []any
	marks   []int
	memo    map[uint32]any
	memory  int // bytes charged
	err     error
	storage func(id tuple) (*storage, error) // resolves a persistent id
	script  bool                             // the pickle is one of TorchScript
}

func newUnpickler(r io.Reader, storage func(tuple) (*storage, error)) *unpickler {
	return &unpickler{in: bufio.NewReaderSize(r, 1<<16), storage: storage}
}

// next reads one pickle and its value; the reader is positioned after it.
func (u *unpickler) next() (any, error) {
	u.stack, u.marks, u.memo = nil, nil, map[uint32]any{}
	for u.err == nil {
		start := u.at
		op := u.byte()
		if u.err == nil && op == '.' {
			v := u.pop()
			return v, u.err
		}
		if u.err == nil && !u.literal(op) && !u.collect(op) && !u.call(op) {
			u.failf("opcode 0x%02x at byte %d is not part of a PyTorch checkpoint", op, start)
		}
	}
	return nil, u.err
}

func (u *unpickler) failf(format string, a ...any) {
	if u.err == nil {
		u.err = fmt.Errorf("pickle: "+format, a...)
	}
}

// charge counts memory and stops reading when there is too much of it.
func (u *unpickler) charge(bytes int) bool {
	u.memory += bytes
	if u.memory > maxMemory {
		u.failf("its values need more than %d MiB", maxMemory>>20)
	}
	return u.err == nil
}

func (u *unpickler) push(v any) {
	if u.charge(48) { // an interface on the stack, one in a container, and the value
		u.stack = append(u.stack, v)
	}
}

// pop removes the top, which must lie above the last mark.
func (u *unpickler) pop() any {
	floor := 0
	if len(u.marks) > 0 {
		floor = u.marks[len(u.marks)-1]
	}
	if len(u.stack) <= floor {
		u.failf("the stack is empty at byte %d", u.at)
		return nil
	}
	v := u.stack[len(u.stack)-1]
	u.stack = u.stack[:len(u.stack)-1]
	return v
}

// top returns the value that pop would remove.
func (u *unpickler) top() any {
	v := u.pop()
	if u.err == nil {
		u.stack = u.stack[:len(u.stack)+1]
	}
	return v
}

// popMark removes and returns a copy of all values above the last mark.
func (u *unpickler) popMark() []any {
	if len(u.marks) == 0 {
		u.failf("no mark on the stack at byte %d", u.at)
		return nil
	}
	floor := u.marks[len(u.marks)-1]
	u.marks = u.marks[:len(u.marks)-1]
	items := append([]any(nil), u.stack[floor:]...)
	u.stack = u.stack[:floor]
	return items
}

func (u *unpickler) byte() byte {
	c, err := u.in.ReadByte()
	if err != nil {
		u.readError(err)
		return 0
	}
	u.at++
	return c
}

func (u *unpickler) readError(err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		u.failf("ends at byte %d, in the middle", u.at)
		return
	}
	u.failf("%w", err)
}

// bytes reads n bytes. Memory grows with the data present, not with n.
func (u *unpickler) bytes(n uint64) []byte {
	if u.err != nil {
		return nil
	}
	if n > maxText {
		u.failf("a string of %d bytes at byte %d; at most %d are allowed", n, u.at, maxText)
		return nil
	}
	if !u.charge(int(n)) {
		return nil
	}
	const piece = 4096
	var b []byte
	for uint64(len(b)) < n {
		have := len(b)
		b = append(b, make([]byte, min(n-uint64(have), piece))...)
		k, err := io.ReadFull(u.in, b[have:])
		u.at += int64(k)
		if err != nil {
			u.readError(err)
			return nil
		}
	}
	return b
}

// uint reads an unsigned little-endian number of size bytes.
func (u *unpickler) uint(size int) uint64 {
	var b [8]byte
	for i := range size {
		b[i] = u.byte()
	}
	return binary.LittleEndian.Uint64(b[:])
}

// line reads up to a newline, as GLOBAL's names are written.
func (u *unpickler) line() string {
	var b []byte
	for u.err == nil {
		c := u.byte()
		if c == '\n' {
			break
		}
		if b = append(b, c); len(b) > maxGlobal {
			u.failf("a name longer than %d bytes at byte %d", maxGlobal, u.at)
		}
	}
	return string(b)
}

// literal runs the opcodes that push a plain value.
func (u *unpickler) literal(op byte) bool {
	switch op {
	case 'N':
		u.push(nil)
	case 0x88:
		u.push(true)
	case 0x89:
		u.push(false)
	case 'J': // BININT, signed
		u.push(int64(int32(u.uint(4))))
	case 'K':
		u.push(int64(u.uint(1)))
	case 'M':
		u.push(int64(u.uint(2)))
	case 0x8a: // LONG1
		u.long(u.uint(1))
	case 0x8b: // LONG4
		u.long(u.uint(4))
	case 'G': // big-endian
		if b := u.bytes(8); u.err == nil {
			u.push(math.Float64frombits(binary.BigEndian.Uint64(b)))
		}
	case 'X', 'T': // BINUNICODE; BINSTRING, which Python 2 writes
		u.text(u.uint(4))
	case 0x8c, 'U': // SHORT_BINUNICODE, SHORT_BINSTRING
		u.text(u.uint(1))
	case 0x8d:
		u.text(u.uint(8))
	case 'C':
		u.push(u.bytes(u.uint(1)))
	case 'B':
		u.push(u.bytes(u.uint(4)))
	case 0x8e, 0x96: // BINBYTES8, BYTEARRAY8
		u.push(u.bytes(u.uint(8)))
	default:
		return false
	}
	return true
}

func (u *unpickler) text(n uint64) {
	b := u.bytes(n)
	if u.err != nil {
		return
	}
	if !utf8.Valid(b) {
		u.failf("a string before byte %d is not UTF-8", u.at)
		return
	}
	u.push(string(b))
}

func (u *unpickler) long(n uint64) {
	b := u.bytes(n)
	if u.err != nil {
		return
	}
	if len(b) > 8 {
		u.push(bigInt(b))
		return
	}
	var v uint64
	for i, c := range b {
		v |= uint64(c) << (8 * i)
	}
	if n := len(b); n > 0 && n < 8 && b[n-1]&0x80 != 0 {
		v |= ^uint64(0) << (8 * n)
	}
	u.push(int64(v))
}

// collect runs the opcodes of containers, marks and the memo.
func (u *unpickler) collect(op byte) bool {
	switch op {
	case '(':
		if u.charge(8) {
			u.marks = append(u.marks, len(u.stack))
		}
	case '0':
		u.pop()
	case '1':
		u.popMark()
	case ')':
		u.push(tuple(nil))
	case 't':
		u.push(tuple(u.popMark()))
	case 0x85, 0x86, 0x87: // TUPLE1, 2, 3
		t := make(tuple, op-0x84)
		for i := len(t) - 1; i >= 0; i-- {
			t[i] = u.pop()
		}
		u.push(t)
	case ']', 0x8f: // EMPTY_LIST, EMPTY_SET
		u.push(&list{})
	case 'l', 0x91: // LIST, FROZENSET
		u.push(&list{items: u.popMark()})
	case 'a':
		v := u.pop()
		u.extend([]any{v})
	case 'e', 0x90: // APPENDS, ADDITEMS
		u.extend(u.popMark())
	case '}':
		u.push(&dict{})
	case 'd':
		d := &dict{}
		d.set(u, u.popMark())
		u.push(d)
	case 's':
		v, k := u.pop(), u.pop()
		u.update([]any{k, v})
	case 'u':
		u.update(u.popMark())
	case 'q':
		u.remember(uint32(u.uint(1)))
	case 'r':
		u.remember(uint32(u.uint(4)))
	case 0x94: // MEMOIZE
		u.remember(uint32(len(u.memo)))
	case 'h':
		u.recall(uint32(u.uint(1)))
	case 'j':
		u.recall(uint32(u.uint(4)))
	default:
		return false
	}
	return true
}

func (u *unpickler) remember(i uint32) {
	if v := u.top(); u.charge(32) {
		u.memo[i] = v
	}
}

func (u *unpickler) recall(i uint32) {
	v, ok := u.memo[i]
	if !ok {
		u.failf("byte %d recalls value %d, which was never stored", u.at, i)
		return
	}
	u.push(v)
}

func (u *unpickler) extend(items []any) {
	switch l := u.top().(type) {
	case *list:
		l.items = append(l.items, items...)
	default:
		u.failf("byte %d appends to something that is not a list", u.at)
	}
}

func (u *unpickler) update(pairs []any) {
	switch d := u.top().(type) {
	case *dict:
		d.set(u, pairs)
	default:
		u.failf("byte %d sets an item of something that is not a dict", u.at)
	}
}

// set adds alternating keys and values. Lookups handle keys that occur twice.
func (d *dict) set(u *unpickler, pairs []any) {
	if len(pairs)%2 != 0 {
		u.failf("a key without a value before byte %d", u.at)
		return
	}
	for i := 0; i < len(pairs); i += 2 {
		d.keys = append(d.keys, pairs[i])
		d.values = append(d.values, pairs[i+1])
	}
}

// call runs the opcodes that, in Python, import and call.
func (u *unpickler) call(op byte) bool {
	switch op {
	case 0x80: // PROTO
		if v := u.byte(); u.err == nil && (v < 2 || v > 5) {
			u.failf("expected protocol 2 to 5, got %d", v)
		}
	case 0x95: // FRAME: its length is not needed
		u.uint(8)
	case 'c':
		module := u.line()
		u.global(module, u.line())
	case 0x93: // STACK_GLOBAL
		name, _ := u.pop().(string)
		module, _ := u.pop().(string)
		u.global(module, name)
	case 'R', 0x81: // REDUCE, NEWOBJ
		args, ok := u.pop().(tuple)
		fn, known := u.pop().(global)
		if !ok || !known {
			u.failf("byte %d calls something that is not a function", u.at)
			break
		}
		u.push(u.apply(fn, args))
	case 'b': // BUILD
		state := u.pop()
		u.build(u.top(), state)
	case 'Q':
		id, ok := u.pop().(tuple)
		if !ok {
			u.failf("byte %d: expected a tuple as a storage's id", u.at)
			break
		}
		s, err := u.storage(id)
		if err != nil {
			u.failf("%w", err)
			break
		}
		u.push(s)
	default:
		return false
	}
	return true
}

// build gives an object its state, as Python's __setstate__ does.
func (u *unpickler) build(v, state any) {
	switch v := v.(type) {
	case *dict: // an OrderedDict's attributes: PyTorch's _metadata
		return
	case *object:
		v.state = state
		return
	case *ndtype:
		if t, ok := state.(tuple); ok && len(t) > 1 {
			v.big = t[1] == ">"
			return
		}
	case *ndarray:
		if err := v.build(state); err != nil {
			u.failf("%w before byte %d", err, u.at)
		}
		return
	case *view:
		if v != nil && v.what != "" {
			return
		}
	}
	u.failf("byte %d sets attributes of something that has none", u.at)
}

// scriptClasses begin the names of the classes in TorchScript's pickles.
const scriptClasses = "__torch__."

// global pushes a name that this reader knows, and fails for all others.
func (u *unpickler) global(module, name string) {
	if u.err != nil {
		return
	}
	full := plainNumpy(module + "." + name)
	if !globals[full] && !(u.script && strings.HasPrefix(full, scriptClasses)) {
		u.err = &forbidden{module + "." + name}
		return
	}
	u.push(global(full))
}

// forbidden is the error of a pickle that wants to call something this reader
// does not know.
type forbidden struct{ name string }

func (e *forbidden) Error() string {
	return "it needs " + quote(e.name) + ", which only Python can run"
}

// fix returns what to save instead.
func (e *forbidden) fix() string {
	return "save the weights alone: torch.save(model.state_dict(), path)"
}

// quote formats text from a file for one line of an error.
func quote(s string) string {
	if len(s) > 80 {
		s = s[:80] + "..."
	}
	return fmt.Sprintf("%q", s)
}
