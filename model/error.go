package model

import "strings"

// FileError reports a file that is missing, damaged, of another format version,
// or for another model. It is a fault of the caller's input, not of the program
// or the machine; the command exits with code 2 for it.
type FileError struct {
	File    string // path as the caller gave it
	Tensor  string // name of the tensor concerned, or ""
	Problem string // what was expected and what was found
	Fix     string // how to correct it, or ""
	Err     error  // the underlying error, or nil
}

// Error returns one line: file, tensor, problem, fix.
func (e *FileError) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Tensor != "" {
		b.WriteString(": tensor ")
		b.WriteString(clip(e.Tensor))
	}
	b.WriteString(": ")
	b.WriteString(e.Problem)
	if e.Fix != "" {
		b.WriteString("; ")
		b.WriteString(e.Fix)
	}
	return b.String()
}

// Unwrap returns the underlying error, such as fs.ErrNotExist.
func (e *FileError) Unwrap() error { return e.Err }

// clip makes a name from outside safe to print in one line, and limits its
// length.
func clip(name string) string {
	const most = 120
	cut := false
	if len(name) > most {
		name, cut = name[:most], true
	}
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(name, "?"))
	if cut {
		name += "..."
	}
	return name
}
