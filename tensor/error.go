package tensor

import (
	"fmt"
	"strings"

	"github.com/carousel-ml/carousel/internal/device"
)

// ShapeError is the panic of an operation whose operands do not fit it: wrong
// shapes, lengths, ids or options, or a tensor of another tape or of an earlier pass.
type ShapeError struct {
	Op  string // the operation, such as "Linear"
	Msg string // what it needs and what it got
}

// Error returns the message with the operation's name.
func (e *ShapeError) Error() string { return "tensor: " + e.Op + ": " + e.Msg }

func failf(op, format string, args ...any) {
	panic(&ShapeError{op, fmt.Sprintf(format, args...)})
}

// UseError is the panic of a layer, optimizer or schedule with an invalid option.
type UseError struct {
	Op  string // the layer or function with its package, such as "nn: RNN"
	Msg string // what it needs and what it got
}

// Error returns the message with the name of the layer or function.
func (e *UseError) Error() string { return e.Op + ": " + e.Msg }

// DeviceError is the panic of an operation whose device failed: it is out of memory
// (the field Memory), it was lost, or a library refused. What the device holds is not to
// be trusted any more; what was read from it, and files, are as they were.
type DeviceError = device.Error

// Check panics with a [*UseError] unless ok. It is meant for constructors: each
// call allocates its arguments.
func Check(ok bool, op, format string, args ...any) {
	if !ok {
		panic(&UseError{op, fmt.Sprintf(format, args...)})
	}
}

// Recover stores a panic with a [*ShapeError], a [*UseError] or a [*DeviceError] in
// *err and ends it. Other panics continue. It must be deferred directly:
//
//	func Open(...) (m *Model, err error) {
//		defer tensor.Recover(&err)
//		...
//	}
//
// Without a panic it leaves *err as it is.
func Recover(err *error) {
	switch r := recover().(type) {
	case nil:
	case *ShapeError:
		*err = r
	case *UseError:
		*err = r
	case *DeviceError:
		*err = r
	default:
		panic(r)
	}
}

// Catch runs f and returns the [*ShapeError], [*UseError] or [*DeviceError] with
// which it panicked, or nil. Other panics continue.
func Catch(f func()) (err error) {
	defer Recover(&err)
	f()
	return nil
}

// describe returns a tensor's shape for messages, with the name of a parameter.
func describe(t *Tensor) string {
	if t == nil {
		return "nil"
	}
	s := shape(t.Dims())
	if t.param != nil {
		s += " (param " + t.param.Name + ")"
	}
	return s
}

func shape(dims []int) string { return strings.ReplaceAll(fmt.Sprint(dims), " ", ",") }
