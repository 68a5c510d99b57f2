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

// Document is a text and the file it comes from.
type Document struct {
	File string
	Text string
}

// maxDocument is the size limit of a document, in bytes.
const maxDocument = 1 << 30

// ReadDocuments iterates over the texts of a path: the file itself, plain or
// gzipped, or standard input for [Stdin], or the files of a directory and its subdirectories, in the order of
// their names. In a directory, hidden files, links and files that are not text
// are skipped, and note, if not nil, is called with a message for each.
//
// Any error is an [*InputError]: a path that cannot be read or holds no text,
// or a file larger than 1 GiB. It ends the iteration.
func ReadDocuments(path, encoding string, note func(string)) iter.Seq2[Document, error] {
	return func(yield func(Document, error) bool) {
		dir := false
		if path != Stdin {
			info, err := os.Stat(path)
			if err != nil {
				yield(Document{}, unreadable(path, err))
				return
			}
			dir = info.IsDir()
		}
		if !dir {
			yield(readDocument(path, encoding, note))
			return
		}
		n, done := 0, errors.New("done")
		err := filepath.WalkDir(path, func(file string, d fs.DirEntry, err error) error {
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
					note("skipped: " + err.Error())
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
		return Document{}, &InputError{File: r.File, Problem: "is larger than 1 GiB", Fix: "divide it into several files in a directory"}
	}
	if b.Len() == 0 {
		return Document{}, &InputError{File: r.File, Problem: "is empty", Fix: "give a file with some text"}
	}
	if text := r.Note(); text != "" && note != nil {
		note(text)
	}
	return Document{r.File, b.String()}, nil
}
