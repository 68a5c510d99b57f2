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

// Catch runs f and returns the [*ShapeError] it panicked with, if any. Other
// panics go on.
func Catch(f func()) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case *ShapeError:
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
