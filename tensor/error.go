package tensor

import (
	"fmt"
	"strings"
)

// ShapeError says which operation got which shapes, and what it needs.
type ShapeError struct {
	Op  string // such as "Linear"
	Msg string // what was needed and what came
}

func (e *ShapeError) Error() string { return "tensor: " + e.Op + ": " + e.Msg }

func failf(op, format string, args ...any) {
	panic(&ShapeError{op, fmt.Sprintf(format, args...)})
}

// UseError says which layer, optimizer or option was used in a way that cannot
// work, other than by shapes.
type UseError struct {
	Op  string // with its package, such as "nn: RNN"
	Msg string // what was needed and what came
}

func (e *UseError) Error() string { return e.Op + ": " + e.Msg }

// Check panics with a [*UseError] unless ok. It is for constructors: each call
// allocates its arguments.
func Check(ok bool, op, format string, args ...any) {
	if !ok {
		panic(&UseError{op, fmt.Sprintf(format, args...)})
	}
}

// Catch runs f and returns the [*ShapeError] or [*UseError] it panicked with, if
// any: a programmer's mistake as an error. Other panics go on.
func Catch(f func()) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case *ShapeError:
			err = r
		case *UseError:
			err = r
		default:
			panic(r)
		}
	}()
	f()
	return nil
}

// describe is a tensor's shape for messages, with the parameter's name.
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
