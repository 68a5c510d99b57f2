//go:build dl && linux

package dl

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"
)

// A Library is a loaded library.
type Library struct {
	path   string
	handle uintptr
}

// Open loads the library at a path, or one that the dynamic linker finds by its
// soname. With global, its symbols serve libraries that are loaded later, as some
// plugins expect. The error is one line that names the library.
func Open(path string, global bool) (*Library, error) {
	mode := purego.RTLD_NOW | purego.RTLD_LOCAL
	if global {
		mode = purego.RTLD_NOW | purego.RTLD_GLOBAL
	}
	handle, err := purego.Dlopen(path, mode)
	if err != nil {
		return nil, errors.New(OneLine(err.Error()))
	}
	return &Library{path, handle}, nil
}

// Symbol returns the address of a function or variable, or 0 if there is none of
// that name.
func (l *Library) Symbol(name string) uintptr {
	address, err := purego.Dlsym(l.handle, name)
	if err != nil {
		return 0
	}
	return address
}

// Bind sets each target to the address of the symbol of its name.
func (l *Library) Bind(targets map[string]*uintptr) error {
	for name, target := range targets {
		if *target = l.Symbol(name); *target == 0 {
			return fmt.Errorf("%s has no %s", l.path, name)
		}
	}
	return nil
}

// Functions sets each target, a pointer to a variable of a func type, to a
// function of C that has the same arguments and result. Structs go by value;
// pointers are valid during the call. Such calls take about 1 µs, and allocate;
// [Call] takes a third.
func (l *Library) Functions(targets map[string]any) error {
	for name, target := range targets {
		address := l.Symbol(name)
		if address == 0 {
			return fmt.Errorf("%s has no %s", l.path, name)
		}
		purego.RegisterFunc(target, address)
	}
	return nil
}

// Close unloads the library: its functions must not be called any more.
func (l *Library) Close() error { return purego.Dlclose(l.handle) }

// Call calls a function whose arguments are integers and pointers and whose
// result is an int. Pointers to Go memory are converted in the call itself, as
// uintptr(unsafe.Pointer(p)): so they stay valid in it. What C keeps for longer
// needs a [runtime.Pinner].
//
//go:uintptrescapes
func Call(function uintptr, args ...uintptr) int32 {
	r, _, _ := purego.SyscallN(function, args...)
	return int32(r)
}

// Text copies a string of C.
func Text(c *byte) string {
	if c == nil {
		return ""
	}
	n := 0
	for *(*byte)(unsafe.Add(unsafe.Pointer(c), n)) != 0 {
		n++
	}
	return string(unsafe.Slice(c, n))
}

// OneLine joins the lines of a library's message.
func OneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// A Thread runs functions on one thread of the system, for libraries that keep
// what they know by thread.
type Thread struct {
	calls chan func()
	once  sync.Once
	ended chan struct{}
}

// StartThread returns a Thread that runs until its Stop.
func StartThread() *Thread {
	t := &Thread{calls: make(chan func()), ended: make(chan struct{})}
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for {
			select {
			case f := <-t.calls:
				f()
			case <-t.ended:
				return
			}
		}
	}()
	return t
}

// ErrStopped is the error of calls after Stop.
var ErrStopped = errors.New("the connection is closed")

// Do runs f on the thread, after the calls before it, and returns its error.
func (t *Thread) Do(f func() error) error {
	result := make(chan error, 1)
	select {
	case t.calls <- func() { result <- f() }:
		return <-result
	case <-t.ended:
		return ErrStopped
	}
}

// Stop ends the thread after the call that it runs.
func (t *Thread) Stop() { t.once.Do(func() { close(t.ended) }) }
