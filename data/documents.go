package data

import (
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
)

// Document is a text with its file.
type Document struct {
	File string
	Text string
}

// maxDocument is the most of one file that is read, in bytes.
const maxDocument = 1 << 30

// ReadDocuments goes through the texts of a path: the file itself, plain or
// gzipped, or the files of a directory and those below it, in the order of their
// names. In a directory, hidden files, links and files that are no text are
// passed over, which note, if not nil, is told. Errors are *InputError.
func ReadDocuments(path, encoding string, note func(string)) iter.Seq2[Document, error] {
	return func(yield func(Document, error) bool) {
		info, err := os.Stat(path)
		if err != nil {
			yield(Document{}, unreadable(path, err))
			return
		}
		if !info.IsDir() {
			yield(readDocument(path, encoding, note))
			return
		}
		n, done := 0, errors.New("done")
		err = filepath.WalkDir(path, func(file string, d fs.DirEntry, err error) error {
			if err != nil {
				return unreadable(file, err)
			}
			hidden := file != path && strings.HasPrefix(d.Name(), ".")
			switch {
			case d.IsDir() && hidden:
				return filepath.SkipDir
			case d.IsDir() || hidden || !d.Type().IsRegular():
				return nil
			}
			doc, err := readDocument(file, encoding, note)
			if err != nil {
				if note != nil {
					note("passed over: " + err.Error())
				}
				return nil
			}
			if n++; !yield(doc, nil) {
				return done
			}
			return nil
		})
		switch {
		case err == done:
		case err != nil:
			yield(Document{}, err)
		case n == 0:
			yield(Document{}, &InputError{File: path, Problem: "holds no file of text", Fix: "give a file, or a directory with some"})
		}
	}
}

func readDocument(path, encoding string, note func(string)) (Document, error) {
	r, err := OpenLines(path, encoding)
	if err != nil {
		return Document{}, err
	}
	defer r.Close()
	var b strings.Builder
	if n, err := io.Copy(&b, io.LimitReader(r, maxDocument+1)); err != nil {
		return Document{}, err
	} else if n > maxDocument {
		return Document{}, &InputError{File: path, Problem: "is larger than 1 GiB", Fix: "divide it into several files in a directory"}
	}
	if b.Len() == 0 {
		return Document{}, &InputError{File: path, Problem: "is empty", Fix: "give a file with some text"}
	}
	if text := r.Note(); text != "" && note != nil {
		note(text)
	}
	return Document{path, b.String()}, nil
}
