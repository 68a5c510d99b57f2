package text

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/carousel-ml/carousel/model"
)

// maxFile is the size limit of a tokenizer's file, which is read whole.
const maxFile = 64 << 20

// The files of a tokenizer in a directory.
const (
	TokenizerFile     = "tokenizer.json"
	SentencePieceFile = "tokenizer.model"
)

// Save writes the tokenizer's file to a directory, which must exist: as
// tokenizer.json, or for a SentencePiece model as it was read, as
// tokenizer.model. The other of the two is removed, so that a later
// LoadTokenizer(dir) finds this one. It returns the error of the file system if
// one of these fails.
func (t *Tokenizer) Save(dir string) error {
	if err := model.WriteFileAtomic(filepath.Join(dir, t.file), t.Part("").Write); err != nil {
		return err
	}
	for _, other := range []string{TokenizerFile, SentencePieceFile} {
		if other != t.file {
			if err := os.Remove(filepath.Join(dir, other)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// Part is the tokenizer's file as a part of a model to be saved, in a folder of
// the model directory ("" for none). [OpenTokenizer] reads it.
func (t *Tokenizer) Part(folder string) model.Part {
	return model.Part{Name: path.Join(folder, t.file), Write: func(w io.Writer) error {
		_, err := w.Write(t.content)
		return err
	}}
}

// OpenTokenizer reads the tokenizer of a model from a folder of its directory
// ("" for none). A missing, damaged or unsupported file is a
// [*model.FileError].
func OpenTokenizer(d *model.Dir, folder string) (*Tokenizer, error) {
	name := path.Join(folder, TokenizerFile)
	if other := path.Join(folder, SentencePieceFile); d.Has(other) {
		name = other
	}
	content, err := d.Read(name)
	if err != nil {
		return nil, err
	}
	return parse(d.File(name), content)
}

// LoadTokenizer reads a tokenizer.json or a SentencePiece .model, detected by
// content; from a directory, its TokenizerFile or SentencePieceFile. A file
// that cannot be read, is invalid or uses an unsupported feature is a
// [*model.FileError].
//
// Ids equal those of the library that wrote the file, except for characters
// newer than that library: character classes and normal forms are those of
// Unicode 15. The file's settings for truncation, padding, post_processor and
// dropout are ignored; tasks handle these.
func LoadTokenizer(path string) (*Tokenizer, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		dir := path
		path = filepath.Join(dir, TokenizerFile)
		if _, err := os.Stat(path); err != nil {
			if other := filepath.Join(dir, SentencePieceFile); exists(other) {
				path = other
			}
		}
	}
	content, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return parse(path, content)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, unreadable(path, err)
	}
	if len(content) > maxFile {
		return nil, &model.FileError{File: path, Problem: "is larger than 64 MiB, the limit of a tokenizer's file"}
	}
	return content, nil
}

// unreadable turns a failure of the file system into a FileError.
func unreadable(path string, err error) error {
	problem := err.Error()
	var pathErr *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		problem = "there is no such file"
	case errors.As(err, &pathErr):
		problem = "cannot be read: " + pathErr.Err.Error()
	}
	return &model.FileError{File: path, Problem: problem, Err: err}
}

// parse makes a tokenizer from a file's content, whose format it detects: JSON
// begins with a brace, and a SentencePiece model with the tag of its first
// piece.
func parse(path string, content []byte) (*Tokenizer, error) {
	switch begin := bytes.TrimLeft(content, " \t\r\n"); {
	case bytes.HasPrefix(begin, []byte("{")):
		return parseJSON(path, content)
	case bytes.HasPrefix(content, []byte("\n")) && len(begin) > 0:
		return parseSentencePiece(path, content)
	}
	return nil, &model.FileError{File: path, Problem: "is neither a tokenizer.json nor a SentencePiece model"}
}
