package model

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
)

// Format is the version of the model directory that this package writes and reads.
const Format = 1

// The names of the files in a model directory.
const (
	ConfigFile  = "config.json"
	WeightsFile = "model.safetensors"
)

// maxConfig bounds config.json, whose content is read whole.
const maxConfig = 64 << 20

// Dir is an opened model directory.
type Dir struct {
	Path    string
	Task    string // such as "forecast"
	Version string // of the carousel that wrote it
	Config  json.RawMessage
	Weights *File
}

// manifest is the content of config.json.
type manifest struct {
	Carousel stamp           `json:"carousel"`
	Config   json.RawMessage `json:"config"`
}

type stamp struct {
	Format  int    `json:"format"`
	Version string `json:"version"`
	Task    string `json:"task"`
	SHA256  string `json:"weights_sha256"`
}

// save writes a model directory. Both files are complete and on the disk before
// either takes its place, so a full disk leaves an older model as it was.
func save(dir, task string, cfg any, ts []Tensor, meta map[string]string) error {
	head, err := buildHeader(filepath.Join(dir, WeightsFile), ts, meta)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(cfg)
	if err != nil {
		return fmt.Errorf("%s: the configuration cannot be written as JSON: %w", dir, err)
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("%s: cannot be created: %w", dir, bare(err))
	}
	sum := sha256.New()
	weights, err := stage(filepath.Join(dir, WeightsFile), func(w io.Writer) error {
		return encode(io.MultiWriter(w, sum), head, ts)
	})
	if err != nil {
		return err
	}
	m := manifest{stamp{Format, version(), task, hex.EncodeToString(sum.Sum(nil))}, raw}
	config, err := stage(filepath.Join(dir, ConfigFile), func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(m)
	})
	if err != nil {
		weights.discard()
		return err
	}
	if err := weights.commit(); err != nil {
		config.discard()
		return err
	}
	return config.commit()
}

// Open reads a model directory and checks its format version and the checksum of its
// weights. What is wrong with it is a *FileError.
func Open(dir string) (*Dir, error) {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &FileError{File: dir, Problem: "no such model directory", Fix: "train writes one where --out says", Err: err}
	case err != nil:
		return nil, &FileError{File: dir, Problem: "cannot be read: " + bare(err).Error(), Err: err}
	case !info.IsDir():
		return nil, &FileError{File: dir, Problem: "expected a model directory, got a file", Fix: "name the directory that holds " + ConfigFile}
	}
	m, err := readManifest(dir)
	if err != nil {
		return nil, err
	}
	w, err := readWeights(filepath.Join(dir, WeightsFile), m.Carousel.SHA256)
	if err != nil {
		return nil, err
	}
	return &Dir{dir, m.Carousel.Task, m.Carousel.Version, m.Config, w}, nil
}

// OpenTask is [Open] for the models of one task, which what names in errors, such
// as "a tagger". It also decodes the configuration into cfg.
func OpenTask(dir, task, what string, cfg any) (*Dir, error) {
	d, err := Open(dir)
	if err != nil {
		return nil, err
	}
	if d.Task != task {
		return nil, &FileError{File: dir, Problem: fmt.Sprintf("expected %s, got a model for task %q", what, d.Task), Fix: "use the commands of that task"}
	}
	return d, d.Decode(cfg)
}

// Broken is the error of a configuration that decodes but cannot be right.
func (d *Dir) Broken(err error) error {
	return &FileError{File: filepath.Join(d.Path, ConfigFile), Problem: err.Error(), Fix: "train the model again", Err: err}
}

// Decode parses the configuration into cfg, a pointer. A field that cfg does not have is an error.
func (d *Dir) Decode(cfg any) error {
	dec := json.NewDecoder(bytes.NewReader(d.Config))
	dec.DisallowUnknownFields()
	if err := dec.Decode(cfg); err != nil {
		return &FileError{File: filepath.Join(d.Path, ConfigFile), Problem: fmt.Sprintf("config: %v", err), Err: err}
	}
	return nil
}

func readManifest(dir string) (*manifest, error) {
	path := filepath.Join(dir, ConfigFile)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &FileError{File: dir, Problem: "not a model directory: it has no " + ConfigFile, Fix: "name a directory that train wrote", Err: err}
	}
	if err != nil {
		return nil, &FileError{File: path, Problem: "cannot be read: " + bare(err).Error(), Err: err}
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, &FileError{File: path, Problem: "cannot be read: " + bare(err).Error(), Err: err}
	}
	if len(raw) > maxConfig {
		return nil, &FileError{File: path, Problem: fmt.Sprintf("expected at most %d MiB, got more", maxConfig>>20)}
	}
	// The version comes first: another format may lay out all the rest differently.
	var probe struct {
		Carousel *struct {
			Format  *int   `json:"format"`
			Version string `json:"version"`
		} `json:"carousel"`
	}
	if err := json.Unmarshal(raw, &probe); err != nil {
		return nil, &FileError{File: path, Problem: "not valid: " + jsonProblem(raw, err), Fix: "restore it, or train again", Err: err}
	}
	if probe.Carousel == nil || probe.Carousel.Format == nil {
		return nil, &FileError{File: path, Problem: `not written by carousel: expected "carousel": {"format": ...}`}
	}
	if got := *probe.Carousel.Format; got != Format {
		by := ""
		if probe.Carousel.Version != "" {
			by = fmt.Sprintf(", written by carousel %s", clip(probe.Carousel.Version))
		}
		return nil, &FileError{
			File:    path,
			Problem: fmt.Sprintf("expected model format %d, got format %d%s", Format, got, by),
			Fix:     "use that version, or train the model again with this one",
		}
	}
	var m manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, &FileError{File: path, Problem: "not valid: " + jsonProblem(raw, err), Fix: "restore it, or train again", Err: err}
	}
	return &m, nil
}

// jsonProblem describes a JSON error by line.
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

// readWeights reads the tensors and compares the whole file with its checksum. Damage
// that the format itself shows, such as a missing end, is reported as that.
func readWeights(path, sum string) (*File, error) {
	w, err := ReadTensors(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &FileError{File: path, Problem: "the weights are missing", Fix: "restore the file, or train again", Err: err}
	}
	var fe *FileError
	if errors.As(err, &fe) && fe.Fix == "" {
		fe.Fix = "restore the file, or train again"
	}
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, &FileError{File: path, Problem: "cannot be read: " + bare(err).Error(), Err: err}
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return nil, &FileError{File: path, Problem: "cannot be read: " + bare(err).Error(), Err: err}
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != sum {
		return nil, &FileError{
			File:    path,
			Problem: fmt.Sprintf("altered since it was saved: expected sha256 %.12s, got %.12s", clip(sum), got),
			Fix:     "restore the file, or train again",
		}
	}
	return w, nil
}

// version is the module version of the running carousel, "(devel)" when built from a checkout.
func version() string {
	const module = "github.com/carousel-ml/carousel"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "(devel)"
	}
	for _, m := range append(info.Deps, &info.Main) {
		if m.Path == module && m.Version != "" {
			return m.Version
		}
	}
	return "(devel)"
}
