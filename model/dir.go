package model

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/carousel-ml/carousel/tensor"
)

// Format is the version of the model directory that this package writes. It
// also reads format 1, whose config.json has a checksum of the weights only.
const Format = 2

// The names of the files in every model directory.
const (
	ConfigFile  = "config.json"
	WeightsFile = "model.safetensors"
)

// maxConfig is the size limit of config.json, which is read whole.
const maxConfig = 64 << 20

// Dir is the content of a model directory: each of its files has been read once
// and verified.
type Dir struct {
	Path    string
	Task    string // such as "forecast"
	Version string // version of carousel that wrote it
	Config  json.RawMessage
	Weights *File // model.safetensors
	files   []listed
	content map[string][]byte // of the other files
	seal    string
}

// manifest is the content of config.json.
type manifest struct {
	Carousel stamp           `json:"carousel"`
	Config   json.RawMessage `json:"config"`
}

type stamp struct {
	Format  int      `json:"format"`
	Version string   `json:"version"`
	Task    string   `json:"task"`
	Seal    string   `json:"sha256,omitempty"` // of config.json itself, see sealOf
	Files   []listed `json:"files,omitempty"`
	Weights string   `json:"weights_sha256,omitempty"` // in format 1
}

// listed is a file of the model as config.json lists it.
type listed struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`   // -1: unknown
	SHA256 string `json:"sha256"` // "": unknown
}

// olderFiles are the files that a directory of format 1 may have besides its
// weights.
var olderFiles = []string{
	"linear.safetensors", "vocabulary.json", "lm.arpa", "lexicon.txt", "tokenizer.json", "tokenizer.model",
	"source/tokenizer.json", "source/tokenizer.model", "target/tokenizer.json", "target/tokenizer.model",
}

// Open reads and verifies a model directory. It returns a [*FileError] if a
// file is missing, altered, belongs to another save or cannot be read, or if
// this version does not know the format. While a save replaces the model, Open
// returns either the older or the newer one.
func Open(dir string) (*Dir, error) {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &FileError{File: dir, Problem: "no such model directory", Fix: "train writes one to the directory of --out", Err: err}
	case err != nil:
		return nil, Unreadable(dir, err)
	case !info.IsDir():
		return nil, &FileError{File: dir, Problem: "expected a model directory, got a file", Fix: "name the directory that holds " + ConfigFile}
	}
	const tries = 100 // bounded, in case of saves without a pause
	for try := 1; ; try++ {
		d, replaced, err := read(dir)
		if !replaced || try == tries {
			return d, err
		}
	}
}

// read reads a model directory; replaced reports that another model replaced
// this one meanwhile, which may explain why files are missing or different.
func read(dir string) (d *Dir, replaced bool, err error) {
	m, config, err := openManifest(dir)
	if err != nil {
		return nil, false, err
	}
	defer config.Close() // no other file can be the same file while this one is open
	d = &Dir{Path: dir, Task: m.Carousel.Task, Version: m.Carousel.Version, Config: m.Config, content: map[string][]byte{}, seal: m.Carousel.Seal}
	d.files = m.Carousel.Files
	if m.Carousel.Format == 1 {
		d.files = []listed{{WeightsFile, -1, m.Carousel.Weights}}
		for _, name := range olderFiles {
			if _, err := os.Stat(d.File(name)); err == nil {
				d.files = append(d.files, listed{name, -1, ""})
			}
		}
	}
	for _, f := range d.files {
		if err = d.readFile(f); err != nil {
			break
		}
	}
	if err == nil && d.Weights == nil {
		err = &FileError{File: d.File(ConfigFile), Problem: "lists no " + WeightsFile, Fix: mend}
	}
	if err != nil || m.Carousel.Format == 1 {
		was, err1 := config.Stat()
		is, err2 := os.Stat(d.File(ConfigFile))
		replaced = err1 == nil && err2 == nil && !os.SameFile(was, is)
	}
	if err != nil {
		return nil, replaced, err
	}
	return d, replaced, nil
}

func (d *Dir) readFile(f listed) error {
	return f.read(d.Path, d.seal, func(path string, size int64, r io.Reader) (err error) {
		if f.Name == WeightsFile {
			d.Weights, err = decode(path, r, size)
			return err
		}
		text := make([]byte, size)
		_, err = io.ReadFull(r, text)
		d.content[f.Name] = text
		return err
	})
}

// mend is how to repair a model that is incomplete or altered.
const mend = "restore the directory, or train again"

// read passes the file to use, and then compares size and checksum with the
// list. A mismatch takes precedence over use's error, as its likely cause.
func (f listed) read(dir, seal string, use func(path string, size int64, r io.Reader) error) error {
	file, err := openListed(dir, seal, f.Name)
	place := filepath.Join(dir, filepath.FromSlash(f.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return &FileError{File: place, Problem: "missing: the model was saved with this file", Fix: mend, Err: err}
	}
	if err != nil {
		return Unreadable(place, err)
	}
	defer file.Close()
	path := file.Name()
	info, err := file.Stat()
	if err != nil {
		return Unreadable(path, err)
	}
	altered := func(format string, a ...any) error {
		return &FileError{File: path, Problem: "altered since it was saved, or of another save: expected " + fmt.Sprintf(format, a...), Fix: mend}
	}
	if !info.Mode().IsRegular() {
		return altered("a file, got %s", kind(info.Mode()))
	}
	if f.Size >= 0 && info.Size() != f.Size {
		return altered("%d bytes, got %d", f.Size, info.Size())
	}
	sum := newSum(io.Discard)
	r := io.TeeReader(file, sum)
	used := use(path, info.Size(), bufio.NewReaderSize(r, 1<<16))
	if _, err := io.Copy(io.Discard, r); err != nil {
		return Unreadable(path, err)
	}
	switch {
	case f.Size >= 0 && sum.size != f.Size:
		return altered("%d bytes, got %d", f.Size, sum.size)
	case f.SHA256 != "" && sum.hex() != f.SHA256:
		return altered("sha256 %.12s, got %.12s", clip(f.SHA256), sum.hex())
	}
	return used
}

// openListed opens a file where it is: in the folder of its save, if it has not
// been moved yet (see [Save]), or under its plain name.
func openListed(dir, seal, name string) (*os.File, error) {
	name = filepath.FromSlash(name)
	if path := filepath.Join(committedFolder(dir, seal), name); seal != "" {
		if _, err := os.Lstat(path); err == nil {
			if f, err := os.Open(path); !errors.Is(err, fs.ErrNotExist) {
				return f, err
			}
		}
	}
	return os.Open(filepath.Join(dir, name))
}

// sum is the size and the SHA-256 of the bytes read through it.
type sum struct {
	to   io.Writer
	hash hash.Hash
	size int64
}

func newSum(to io.Writer) *sum { return &sum{to: to, hash: sha256.New()} }

func (s *sum) Write(b []byte) (int, error) {
	n, err := s.to.Write(b)
	s.hash.Write(b[:n])
	s.size += int64(n)
	return n, err
}

func (s *sum) hex() string { return hex.EncodeToString(s.hash.Sum(nil)) }

// OpenAs reads the model directory at path and passes it to open, the OpenDir
// of a task's package. It implements the Open of these packages, and returns
// the errors of [Open] and of open.
func OpenAs[M any](path string, open func(*Dir, ...*tensor.Device) (M, error), on ...*tensor.Device) (m M, err error) {
	d, err := Open(path)
	if err != nil {
		return m, err
	}
	return open(d, on...)
}

// For checks that the directory holds a model of the given task, and decodes
// the configuration into cfg. what names such a model in errors, such as "a
// tagger". Another task, or a configuration that does not fit cfg, is a
// [*FileError]. was lists earlier names of the task.
func (d *Dir) For(task, what string, cfg any, was ...string) error {
	if d.Task != task && !slices.Contains(was, d.Task) {
		return &FileError{File: d.Path, Problem: fmt.Sprintf("expected %s, got a model for task %q", what, clip(d.Task)), Fix: "evaluate and predict take models of every task"}
	}
	return d.Decode(cfg)
}

// File returns the path of a file of the directory, for messages.
func (d *Dir) File(name string) string { return filepath.Join(d.Path, filepath.FromSlash(name)) }

// Fingerprint identifies the contents: directories with equal ones hold the same model.
func (d *Dir) Fingerprint() string {
	if d.seal != "" {
		return d.seal
	}
	h := sha256.New() // of format 1
	h.Write(d.Config)
	for _, f := range d.files {
		h.Write([]byte(f.SHA256))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Names returns the files of the model, without config.json.
func (d *Dir) Names() []string {
	var names []string
	for _, f := range d.files {
		names = append(names, f.Name)
	}
	return names
}

// Has reports whether a file, other than the weights, belongs to the model.
func (d *Dir) Has(name string) bool { return d.content[name] != nil }

// Read returns the content of a file, other than the weights; the caller must
// not change it. If the model has no such file it returns a [*FileError].
func (d *Dir) Read(name string) ([]byte, error) {
	if !d.Has(name) {
		return nil, &FileError{File: d.File(name), Problem: "missing: a model for task " + clip(d.Task) + " needs this file", Fix: mend}
	}
	return d.content[name], nil
}

// ReadTensors parses a safetensors file of the model, other than the weights. A
// file that is missing or not valid is a [*FileError].
func (d *Dir) ReadTensors(name string) (*File, error) {
	text, err := d.Read(name)
	if err != nil {
		return nil, err
	}
	return decode(d.File(name), bytes.NewReader(text), int64(len(text)))
}

// Load copies the weights into slab, whose names and shapes must match; it
// returns the errors of [LoadSlab].
func (d *Dir) Load(slab *tensor.Slab) error { return d.Weights.Load(slab) }

// Copy makes a file of the directory a part of another save. That save reads it
// again, and fails if it is no longer the file that was opened.
func (d *Dir) Copy(name string) Part {
	dir, seal := d.Path, d.seal // not d, which holds the content
	at := slices.IndexFunc(d.files, func(f listed) bool { return f.Name == name })
	if at < 0 {
		panic(fmt.Sprintf("model: %s has no file %q", d.Path, name))
	}
	f := d.files[at]
	return Part{name, func(w io.Writer) error {
		return f.read(dir, seal, func(_ string, _ int64, r io.Reader) error {
			_, err := io.Copy(w, r)
			return err
		})
	}}
}

// SaveAs writes the model to another directory, with more files, which replace those of their
// names; it returns the errors of [Save].
func (d *Dir) SaveAs(dir string, more ...Part) error {
	parts := slices.Clone(more)
	for _, f := range d.files {
		if !slices.ContainsFunc(more, func(p Part) bool { return p.Name == f.Name }) {
			parts = append(parts, d.Copy(f.Name))
		}
	}
	return Save(dir, d.Task, d.Config, parts...)
}

// Broken wraps err, about a configuration that can be decoded but is invalid,
// in a [*FileError].
func (d *Dir) Broken(err error) error {
	return &FileError{File: filepath.Join(d.Path, ConfigFile), Problem: err.Error(), Fix: "train the model again", Err: err}
}

// Decode parses the configuration into cfg, a pointer. A field that cfg does
// not have, or a value of the wrong type, is a [*FileError].
func (d *Dir) Decode(cfg any) error {
	dec := json.NewDecoder(bytes.NewReader(d.Config))
	dec.DisallowUnknownFields()
	if err := dec.Decode(cfg); err != nil {
		return &FileError{File: filepath.Join(d.Path, ConfigFile), Problem: fmt.Sprintf("config: %v", err), Err: err}
	}
	return nil
}

// openManifest reads and checks config.json, and leaves it open.
func openManifest(dir string) (*manifest, *os.File, error) {
	path := filepath.Join(dir, ConfigFile)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		e := &FileError{File: dir, Problem: "not a model directory: it has no " + ConfigFile, Fix: "name a directory that train wrote", Err: err}
		if _, err := os.Stat(filepath.Join(dir, "checkpoints")); err == nil { // as package train writes it
			e.Problem, e.Fix = "holds a training that has not saved a model yet", "continue it: the command that began it, with --resume"
		}
		return nil, nil, e
	}
	if err != nil {
		return nil, nil, Unreadable(path, err)
	}
	m, err := readManifest(path, f)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return m, f, nil
}

func readManifest(path string, f io.Reader) (*manifest, error) {
	raw, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, Unreadable(path, err)
	}
	if len(raw) > maxConfig {
		return nil, &FileError{File: path, Problem: fmt.Sprintf("expected at most %d MiB, got more", maxConfig>>20)}
	}
	// The version is checked first: other formats may have another layout.
	var probe struct {
		Carousel *struct {
			Format  *int   `json:"format"`
			Version string `json:"version"`
		} `json:"carousel"`
	}
	if err := json.Unmarshal(raw, &probe); err != nil {
		return nil, &FileError{File: path, Problem: "not valid: " + jsonProblem(raw, err), Fix: mend, Err: err}
	}
	if probe.Carousel == nil || probe.Carousel.Format == nil {
		return nil, &FileError{File: path, Problem: `not written by carousel: expected "carousel": {"format": ...}`}
	}
	if got := *probe.Carousel.Format; got < 1 || got > Format {
		by := ""
		if probe.Carousel.Version != "" {
			by = fmt.Sprintf(", written by carousel %s", clip(probe.Carousel.Version))
		}
		return nil, &FileError{
			File:    path,
			Problem: fmt.Sprintf("expected model format 1 to %d, got format %d%s", Format, got, by),
			Fix:     "use that version, or train the model again with this one",
		}
	}
	var m manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, &FileError{File: path, Problem: "not valid: " + jsonProblem(raw, err), Fix: mend, Err: err}
	}
	if m.Carousel.Format == 1 {
		// Format 2 with another number would be read without its checksums.
		if m.Carousel.Seal != "" || m.Carousel.Files != nil {
			return nil, &FileError{File: path, Problem: "altered since it was saved: expected no sha256 and files in format 1", Fix: mend}
		}
		if m.Carousel.Weights == "" {
			return nil, &FileError{File: path, Problem: "altered since it was saved: expected weights_sha256 in format 1, got none", Fix: mend}
		}
		return &m, nil
	}
	if got := sealOf(raw, m.Carousel.Seal); len(m.Carousel.Seal) != len(unsealed) || got != m.Carousel.Seal {
		return nil, &FileError{
			File:    path,
			Problem: fmt.Sprintf("altered since it was saved: expected sha256 %.12s, got %.12s", clip(m.Carousel.Seal), got),
			Fix:     mend,
		}
	}
	names := map[string]bool{}
	for _, f := range m.Carousel.Files {
		if !validName(f.Name) || f.Size < 0 || f.SHA256 == "" {
			return nil, &FileError{File: path, Problem: fmt.Sprintf("lists %q, which is not a file of a model", clip(f.Name)), Fix: mend}
		}
		if names[f.Name] {
			return nil, &FileError{File: path, Problem: fmt.Sprintf("lists %q twice", clip(f.Name)), Fix: mend}
		}
		names[f.Name] = true
	}
	return &m, nil
}

// Unreadable returns a *FileError for a file that cannot be opened or read because of
// an error of the file system.
func Unreadable(path string, err error) error {
	return &FileError{File: path, Problem: "cannot be read: " + bare(err).Error(), Err: err}
}

// jsonProblem describes a JSON error, with its line.
func jsonProblem(raw []byte, err error) string {
	at := int64(-1)
	var s *json.SyntaxError
	var t *json.UnmarshalTypeError
	if errors.As(err, &s) {
		at = s.Offset
	} else if errors.As(err, &t) {
		at = t.Offset
	}
	if at < 0 || at > int64(len(raw)) {
		return err.Error()
	}
	return fmt.Sprintf("line %d: %v", 1+bytes.Count(raw[:at], []byte("\n")), err)
}
