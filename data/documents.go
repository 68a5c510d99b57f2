package data

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
)

// Document is a text and the file it comes from. A text is in memory, or stays in its
// file and is read from it each time that it is needed.
type Document struct {
	File string
	Text string // "" if the text stays in its file

	stays    *storedText // nil: the text is Text
	from, to int64       // the document's part of the file's text, in bytes of UTF-8
}

// storedText is a text that stays in its file.
type storedText struct {
	path, encoding string
	info           fs.FileInfo // when it was first read
	plain          int64       // byte of the file from which on the text is what the file has; -1: it has to be decoded
}

// Stays reports whether the text stays in its file.
func (d Document) Stays() bool { return d.stays != nil }

// Size returns the length of the text in bytes of UTF-8.
func (d Document) Size() int64 {
	if d.stays == nil {
		return int64(len(d.Text))
	}
	return d.to - d.from
}

// Slice returns the part of the text from one byte to another, as a document. It panics
// unless 0 <= from <= to <= Size.
func (d Document) Slice(from, to int64) Document {
	switch {
	case from < 0 || from > to || to > d.Size():
		panic(fmt.Sprintf("data: Document.Slice: bytes %d to %d of a text of %d", from, to, d.Size()))
	case d.stays == nil:
		d.Text = d.Text[from:to]
	default:
		d.from, d.to = d.from+from, d.from+to
	}
	return d
}

// Begins reports whether a piece is what the text has from a byte on: of texts in memory
// by their content, of others by their place in the file.
func (d Document) Begins(at int64, piece Document) bool {
	if at+piece.Size() > d.Size() {
		return false
	}
	if d.stays == nil && piece.stays == nil {
		return strings.HasPrefix(d.Text[at:], piece.Text)
	}
	return d.stays == piece.stays && piece.from == d.from+at
}

// Open returns the text as a stream. The error, also of reading, is an [*InputError] if
// the file cannot be read or has changed since it was first read.
func (d Document) Open() (io.ReadCloser, error) {
	if d.stays == nil {
		return io.NopCloser(strings.NewReader(d.Text)), nil
	}
	return d.stays.open(d.from, d.Size())
}

// Stamp identifies the text for as long as nobody changes its file: the text itself, or
// the file's path, size and time and the part of it. Equal stamps mean equal texts.
func (d Document) Stamp() string {
	if d.stays == nil {
		return d.Text
	}
	path, err := filepath.Abs(d.stays.path)
	if err != nil {
		path = d.stays.path
	}
	return fmt.Sprintf("%s %s %d %d %d %d", path, d.stays.encoding, d.stays.info.Size(), d.stays.info.ModTime().UnixNano(), d.from, d.to)
}

// open returns n bytes of the text.
func (t *storedText) open(from, n int64) (*storedReader, error) {
	r := &storedReader{of: t, left: n}
	if t.plain >= 0 {
		f, err := os.Open(t.path)
		if err != nil {
			return nil, unreadable(t.path, err)
		}
		r.file, r.text = f, io.NewSectionReader(f, t.plain+from, n)
	} else {
		lines, err := OpenLines(t.path, t.encoding)
		if err != nil {
			return nil, err
		}
		r.file, r.text = lines.source.file, lines
	}
	if now, err := r.file.Stat(); err != nil || now.Size() != t.info.Size() || !now.ModTime().Equal(t.info.ModTime()) {
		r.Close()
		return nil, t.changed()
	}
	if t.plain < 0 {
		if _, err := io.CopyN(io.Discard, r.text, from); err != nil {
			r.Close()
			return nil, t.unreadable(err)
		}
	}
	return r, nil
}

func (t *storedText) changed() error {
	return &InputError{File: t.path, Problem: "has changed while it was in use", Fix: "start again, and leave the file as it is"}
}

// unreadable is the error of a text that ended too early or could not be read.
func (t *storedText) unreadable(err error) error {
	var told *InputError
	switch {
	case err == io.EOF:
		return t.changed()
	case errors.As(err, &told):
		return err
	}
	return unreadable(t.path, err)
}

// storedReader reads a part of a text that stays in its file.
type storedReader struct {
	of   *storedText
	file *os.File
	text io.Reader
	left int64 // bytes of the part
}

func (r *storedReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n, err := r.text.Read(p[:min(int64(len(p)), r.left)])
	if r.left -= int64(n); err == nil || r.left == 0 {
		return n, nil
	}
	return n, r.of.unreadable(err)
}

func (r *storedReader) Close() error { return r.file.Close() }

// mostPiped is the size limit of a text from a pipe, which cannot be read a second time,
// in bytes.
const mostPiped = 1 << 30

// ReadDocuments iterates over the texts of a path: the file itself, plain or
// gzipped, or standard input for [Stdin], or the files of a directory and its subdirectories, in the order of
// their names. In a directory, hidden files, links and files that are not text
// are skipped, and note, if not nil, is called with a message for each.
//
// The texts are held in memory as long as they have at most room bytes together; one
// that does not fit stays in its file, which must not change while the document is in
// use.
//
// Any error is an [*InputError]: a path that cannot be read or holds no text,
// or more than 1 GiB from a pipe. It ends the iteration.
func ReadDocuments(path, encoding string, room int64, note func(string)) iter.Seq2[Document, error] {
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
			yield(readDocument(path, encoding, room, note))
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
			doc, err := readDocument(file, encoding, room, note)
			if err != nil {
				if note != nil {
					note("skipped: " + err.Error())
				}
				return nil
			}
			room -= int64(len(doc.Text))
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

func readDocument(path, encoding string, room int64, note func(string)) (Document, error) {
	r, err := OpenLines(path, encoding)
	if err != nil {
		return Document{}, err
	}
	defer r.Close()
	d := Document{File: r.File}
	size := int64(0)
	if info, err := r.stat(); err != nil {
		return Document{}, unreadable(path, err)
	} else if info != nil && info.Mode().IsRegular() {
		d.stays, size = &storedText{path: path, encoding: encoding, info: info, plain: -1}, info.Size()
	} else {
		room = mostPiped
	}
	var b strings.Builder
	if size <= room {
		b.Grow(int(size))
		if d.to, err = io.Copy(&b, io.LimitReader(r, room+1)); err != nil {
			return Document{}, err
		}
	}
	switch {
	case b.Len() > 0 && d.to <= room:
		d = Document{File: d.File, Text: b.String()}
	case d.stays == nil && d.to > room:
		return Document{}, &InputError{File: r.File, Problem: "is larger than 1 GiB", Fix: "save it as a file and give that"}
	default: // the rest is read to find faults, and its length
		b.Reset()
		n, err := io.Copy(io.Discard, r)
		if err != nil {
			return Document{}, err
		}
		if d.to += n; r.verbatim() {
			d.stays.plain = size - d.to // 0, or the length of the byte order mark
		}
	}
	if d.Size() == 0 {
		return Document{}, &InputError{File: r.File, Problem: "is empty", Fix: "give a file with some text"}
	}
	if text := r.Note(); text != "" && note != nil {
		note(text)
	}
	return d, nil
}
