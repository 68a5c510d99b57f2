package model

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"

	filelock "github.com/carousel-ml/carousel/internal/lock"
	"github.com/carousel-ml/carousel/tensor"
)

// A save over an older model may be killed at any moment, and several files
// cannot be renamed at once. Therefore all files are written to a folder inside
// the directory and flushed. The folder is then named after the seal of the new
// config.json, and one rename, that of config.json, commits the save. After
// that the other files move from the folder to their plain names, over those of
// the older model. A reader looks for a file in the folder of the config.json
// that it read, and then under the plain name. The next save completes
// interrupted moves and removes folders that were never committed.

const (
	stagingFolder = "saving"      // during writing; then with part of the seal appended
	dropsFile     = "drops.txt"   // in the folder: files of the older model that the new one lacks, one per line
	lockFile      = "saving.lock" // held while saving
)

var (
	stagingName = regexp.MustCompile(`^` + stagingFolder + `(-[0-9a-f]{12})?$`)

	// unsealed replaces the seal in config.json while the seal is computed.
	unsealed = strings.Repeat("0", 2*sha256.Size)
)

// committedFolder is the folder of a committed save; seal is that of
// config.json.
func committedFolder(dir, seal string) string {
	return filepath.Join(dir, fmt.Sprintf("%s-%.12s", stagingFolder, seal))
}

// ErrSaving is returned for a save into a directory that another save is
// writing to.
var ErrSaving = errors.New("another save into this directory is running; wait for it to end, or choose another directory")

// step is called before each change to the disk, so that a test can end the
// process there.
var step = func() {}

// Part is a file of a model directory, to be saved.
type Part struct {
	Name  string // with / after folders, such as "source/tokenizer.json"
	Write func(io.Writer) error
}

// Weights is the part that every model directory has: model.safetensors with
// the parameters of slab under their names.
func Weights(slab *tensor.Slab) Part {
	return Part{WeightsFile, func(w io.Writer) error { return encode(w, SlabTensors(slab), nil) }}
}

// Tensors makes a safetensors file a part; see [WriteTensors].
func Tensors(name string, ts []Tensor, meta map[string]string) Part {
	return Part{name, func(w io.Writer) error { return encode(w, ts, meta) }}
}

// FileCopy makes a copy of the file at path a part.
func FileCopy(name, path string) Part {
	return Part{name, func(w io.Writer) error {
		f, err := os.Open(path)
		if err != nil {
			return Unreadable(path, err)
		}
		defer f.Close()
		_, err = io.Copy(w, f)
		return err
	}}
}

// Save writes a model directory of parts, which must include [Weights], and
// config.json, which holds the task's name, cfg (anything that encoding/json
// can write), and the size and SHA-256 of each part. The directory is created
// if necessary. An existing model is replaced as a whole: a reader of the
// directory, at any moment and even after a kill, finds either the old model or
// the new one. Files that belong to neither are left alone.
//
// Errors: [ErrSaving] while another save into the directory is running; an
// error for parts with invalid or repeated names or without Weights, or a cfg
// that cannot be written as JSON; and the errors of parts and of the file system. The
// message says whether the older model was kept or the new one is in place.
func Save(dir, task string, cfg any, parts ...Part) error {
	raw, err := json.Marshal(cfg)
	if err != nil {
		return fmt.Errorf("%s: the configuration cannot be written as JSON: %w", dir, err)
	}
	if err := checkParts(dir, parts); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("%s: cannot be created: %w", dir, bare(err))
	}
	syncDir(filepath.Dir(dir))
	unlock, err := lock(filepath.Join(dir, lockFile))
	if err != nil {
		return fmt.Errorf("%s: %w", dir, bare(err))
	}
	defer unlock()
	older, err := settle(dir)
	if err != nil {
		return fmt.Errorf("%s: the files of an interrupted save cannot be removed: %w", dir, bare(err))
	}
	s := &saving{dir: dir, folder: filepath.Join(dir, stagingFolder)}
	defer s.discard() // also when a part panics
	m := &manifest{Carousel: stamp{Format: Format, Version: version(), Task: task}, Config: raw}
	for _, p := range parts {
		if err := s.stage(p); err != nil {
			return err
		}
	}
	m.Carousel.Files = slices.Clone(s.files)
	if drops := missing(older, s.files); len(drops) > 0 {
		if err := s.stage(textPart(dropsFile, []byte(strings.Join(drops, "\n")))); err != nil {
			return err
		}
	}
	text, err := m.seal()
	if err != nil {
		return err
	}
	if err := s.stage(textPart(ConfigFile, text)); err != nil {
		return err
	}
	if err := s.commit(m.Carousel.Seal); err != nil {
		return fmt.Errorf("%s: not written, the model before it is kept: %w", dir, bare(err))
	}
	if err := complete(dir, m); err != nil {
		return fmt.Errorf("%s: saved, and can be opened, but some files are not under their final names yet: %w", dir, bare(err))
	}
	return nil
}

func textPart(name string, text []byte) Part {
	return Part{name, func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	}}
}

// lock admits one save at a time. The error is ErrSaving while another is
// running. On file systems without locks it does nothing; the protocol of Save
// still keeps the model readable.
func lock(path string) (unlock func(), err error) {
	step()
	release, err := filelock.Acquire(path)
	if errors.Is(err, filelock.ErrHeld) {
		return nil, ErrSaving
	}
	if err != nil {
		return nil, err
	}
	return func() {
		step()
		release()
	}, nil
}

// checkParts returns an error for parts that a directory cannot hold.
func checkParts(dir string, parts []Part) error {
	seen := map[string]bool{}
	for _, p := range parts {
		place := filepath.Join(dir, filepath.FromSlash(p.Name))
		if !validName(p.Name) || seen[p.Name] {
			return fmt.Errorf("%s: not written: the name %q is used twice, or not valid for a model's file", dir, p.Name)
		}
		seen[p.Name] = true
		if info, err := os.Stat(place); err == nil && info.IsDir() {
			return fmt.Errorf("%s: cannot be replaced: it is a directory", place)
		}
	}
	if !seen[WeightsFile] {
		return fmt.Errorf("%s: not written: a model needs %s", dir, WeightsFile)
	}
	return nil
}

// validName reports whether a file of a model may have that name.
func validName(name string) bool {
	first, _, _ := strings.Cut(name, "/")
	return fs.ValidPath(name) && filepath.IsLocal(filepath.FromSlash(name)) &&
		name != "." && name != ConfigFile && name != dropsFile && name != lockFile && !stagingName.MatchString(first)
}

// missing returns the files of an older model, if there is one, that the new
// one lacks.
func missing(older *manifest, files []listed) (names []string) {
	if older != nil {
		for _, f := range older.Carousel.Files {
			if !slices.ContainsFunc(files, func(g listed) bool { return g.Name == f.Name }) {
				names = append(names, f.Name)
			}
		}
	}
	return names
}

// seal sets the manifest's seal and returns the text of config.json.
func (m *manifest) seal() ([]byte, error) {
	m.Carousel.Seal = unsealed
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(m); err != nil {
		return nil, err
	}
	m.Carousel.Seal = sealOf(b.Bytes(), unsealed)
	return bytes.Replace(b.Bytes(), []byte(unsealed), []byte(m.Carousel.Seal), 1), nil
}

// sealOf is the SHA-256 of a config.json with unsealed in place of its seal.
func sealOf(text []byte, seal string) string {
	sum := sha256.Sum256(bytes.Replace(text, []byte(seal), []byte(unsealed), 1))
	return hex.EncodeToString(sum[:])
}

// saving is a save that is not committed yet.
type saving struct {
	dir, folder string
	files       []listed
}

// stage writes a part to the folder.
func (s *saving) stage(p Part) error {
	place := filepath.Join(s.dir, filepath.FromSlash(p.Name))
	path := filepath.Join(s.folder, filepath.FromSlash(p.Name))
	step()
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return fmt.Errorf("%s: cannot be written: %w", place, bare(err))
	}
	step()
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return fmt.Errorf("%s: cannot be written: %w", place, bare(err))
	}
	defer file.Close()
	sum := newSum(stepwise{file})
	w := bufio.NewWriterSize(sum, 1<<16)
	if err = p.Write(w); err == nil {
		err = w.Flush()
	}
	step()
	if err == nil {
		err = file.Sync()
	}
	if err == nil {
		err = file.Close()
	}
	if err != nil {
		return fmt.Errorf("%s: not written, the file before it is kept: %w", place, bare(err))
	}
	s.files = append(s.files, listed{p.Name, sum.size, sum.hex()})
	return nil
}

// stepwise makes each write a step.
type stepwise struct{ io.Writer }

func (w stepwise) Write(b []byte) (int, error) {
	step()
	return w.Writer.Write(b)
}

// commit makes the new model the directory's.
func (s *saving) commit(seal string) error {
	syncFolders(s.folder, s.files)
	folder := committedFolder(s.dir, seal)
	if err := rename(s.folder, folder); err != nil {
		return err
	}
	s.folder = folder
	step()
	syncDir(s.dir)
	if err := rename(filepath.Join(folder, ConfigFile), filepath.Join(s.dir, ConfigFile)); err != nil {
		return err
	}
	s.folder = "" // now part of the model
	step()
	syncDir(s.dir)
	return nil
}

// discard removes the files of a save that is not committed.
func (s *saving) discard() {
	if s.folder != "" {
		os.RemoveAll(s.folder)
	}
}

// settle removes the remains of earlier saves from a directory, and returns the
// manifest of its model, or nil if there is none that can be read.
func settle(dir string) (*manifest, error) {
	m, f, err := openManifest(dir)
	if err == nil {
		f.Close()
		if err := complete(dir, m); err != nil {
			return nil, err
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.IsDir() && stagingName.MatchString(e.Name()) {
			if err := removeAll(filepath.Join(dir, e.Name())); err != nil {
				return nil, err
			}
		}
	}
	return m, nil
}

// complete moves the files of a committed save to their plain names, if they
// are not there yet.
func complete(dir string, m *manifest) error {
	folder := committedFolder(dir, m.Carousel.Seal)
	if _, err := os.Lstat(folder); m.Carousel.Seal == "" || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, f := range m.Carousel.Files {
		place := filepath.Join(dir, filepath.FromSlash(f.Name))
		step()
		if err := os.MkdirAll(filepath.Dir(place), 0o777); err != nil {
			return err
		}
		if err := rename(filepath.Join(folder, filepath.FromSlash(f.Name)), place); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	syncFolders(dir, m.Carousel.Files)
	drops, err := os.ReadFile(filepath.Join(folder, dropsFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for name := range strings.Lines(string(drops)) {
		if name = strings.TrimSuffix(name, "\n"); validName(name) {
			if err := remove(filepath.Join(dir, filepath.FromSlash(name))); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if up := path.Dir(name); up != "." {
				_ = remove(filepath.Join(dir, filepath.FromSlash(up))) // fails unless it is empty
			}
		}
	}
	return removeAll(folder)
}

func rename(from, to string) error {
	step()
	return os.Rename(from, to)
}

func remove(path string) error {
	step()
	return os.Remove(path)
}

// removeAll removes a folder and its content.
func removeAll(folder string) error {
	var all []string
	err := filepath.WalkDir(folder, func(path string, _ fs.DirEntry, err error) error {
		all = append(all, path)
		return err
	})
	if err != nil {
		return err
	}
	for _, path := range slices.Backward(all) {
		if err := remove(path); err != nil {
			return err
		}
	}
	return nil
}

// syncFolders makes the names of files below root durable.
func syncFolders(root string, files []listed) {
	done := map[string]bool{}
	for _, f := range files {
		for up := path.Dir(f.Name); up != "." && !done[up]; up = path.Dir(up) {
			done[up] = true
			step()
			syncDir(filepath.Join(root, filepath.FromSlash(up)))
		}
	}
	step()
	syncDir(root)
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
