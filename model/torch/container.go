package torch

import (
	"archive/zip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/model"
)

// container is an opened file of torch.save: its value, and the location of the
// bytes of its storages.
type container struct {
	path  string
	size  int64 // of the file, in bytes
	root  any
	order binary.ByteOrder
	// open returns a reader of the s.bytes() bytes of a storage.
	open func(s *storage) (io.ReadCloser, error)
}

// problem returns a FileError for this file.
func problem(path, fix, format string, a ...any) error {
	err := fmt.Errorf(format, a...)
	var no *forbidden
	if errors.As(err, &no) {
		fix = no.fix()
	}
	return &model.FileError{File: path, Problem: err.Error(), Fix: fix, Err: errors.Unwrap(err)}
}

// openFile opens a regular file and returns its size.
func openFile(path string) (*os.File, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, cannotRead(path, err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, cannotRead(path, err)
	}
	if !info.Mode().IsRegular() {
		f.Close()
		return nil, 0, problem(path, "", "expected a file of torch.save, got a directory or a device")
	}
	return f, info.Size(), nil
}

func cannotRead(path string, err error) error {
	bare := err
	var p *os.PathError
	if errors.As(err, &p) {
		bare = p.Err
	}
	return &model.FileError{File: path, Problem: "cannot be read: " + bare.Error(), Err: err}
}

// parse detects the format from the first bytes and reads the value.
func parse(path string, r io.ReaderAt, size int64) (*container, error) {
	var lead [512]byte
	n, err := r.ReadAt(lead[:], 0)
	if err != nil && err != io.EOF {
		return nil, cannotRead(path, err)
	}
	c := &container{path: path, size: size, order: binary.LittleEndian}
	switch head := lead[:n]; {
	case n >= 4 && string(head[:4]) == "PK\x03\x04":
		return c, c.readZip(r)
	case n >= 2 && head[0] == 0x80:
		return c, c.readLegacy(r)
	case n > 262 && string(head[257:262]) == "ustar":
		return nil, problem(path, "load and save it again with PyTorch", "a tar file, as PyTorch wrote before 0.1.10: not read")
	case n > 8 && head[8] == '{' && binary.LittleEndian.Uint64(head) < uint64(size):
		return nil, problem(path, "name it .safetensors", "a safetensors file, not one of torch.save")
	}
	return nil, problem(path, "", "not a file of torch.save: it begins neither like a zip file nor like a pickle")
}

// readZip reads the format of PyTorch 1.6 and later: NAME/data.pkl, the
// storages NAME/data/KEY, and NAME/byteorder. All are stored uncompressed, so
// nothing in the archive can be larger than the file.
func (c *container) readZip(r io.ReaderAt) error {
	z, err := zip.NewReader(r, c.size)
	if err != nil {
		return problem(c.path, "", "truncated or damaged: %w", err)
	}
	const pkl = "/data.pkl"
	entries := make(map[string]*zip.File, len(z.File))
	prefix := ""
	for _, f := range z.File {
		if entries[f.Name] != nil {
			return problem(c.path, "", "damaged: the archive has %s twice", quote(f.Name))
		}
		entries[f.Name] = f
		if name, ok := strings.CutSuffix(f.Name, pkl); ok && !strings.Contains(name, "/") {
			if prefix != "" {
				return problem(c.path, "", "damaged: the archive holds two pickles")
			}
			prefix = name + "/"
		}
	}
	switch {
	case prefix == "" && slices.ContainsFunc(z.File, func(f *zip.File) bool { return strings.HasSuffix(f.Name, ".npy") }):
		return c.readArrays(z)
	case prefix == "":
		return problem(c.path, "", "a zip file, but not of torch.save: it has no data.pkl")
	}
	if f := entries[prefix+"byteorder"]; f != nil {
		if err := c.readOrder(f); err != nil {
			return err
		}
	}
	pickle, err := c.entry(entries[prefix+"data.pkl"])
	if err != nil {
		return err
	}
	defer pickle.Close()
	set := storageSet{fields: 5}
	u := newUnpickler(pickle, set.resolve)
	u.script = entries[prefix+"constants.pkl"] != nil // a program of torch.jit.save, of which the weights are read
	if c.root, err = u.next(); err != nil {
		return problem(c.path, "", "%w", err)
	}
	if _, err := io.Copy(io.Discard, u.in); err != nil { // the checksum is compared at the end
		return problem(c.path, "get the file again", "damaged: %s%s: %w", strings.TrimSuffix(prefix, "/"), pkl, err)
	}
	c.open = func(s *storage) (io.ReadCloser, error) {
		name := prefix + "data/" + s.key
		f := entries[name]
		if f == nil {
			return nil, fmt.Errorf("damaged: the archive has no %s", quote(name))
		}
		if f.UncompressedSize64 != uint64(s.bytes()) {
			return nil, fmt.Errorf("damaged: %s should have %d bytes, has %d", quote(name), s.bytes(), f.UncompressedSize64)
		}
		return c.entry(f)
	}
	return nil
}

// entry opens a member of the archive. Reading it to the end checks its CRC.
func (c *container) entry(f *zip.File) (io.ReadCloser, error) {
	if f.Method != zip.Store || f.UncompressedSize64 != f.CompressedSize64 || f.UncompressedSize64 > uint64(c.size) {
		return nil, problem(c.path, "", "%s is compressed or larger than the file; torch.save does not write that", quote(f.Name))
	}
	r, err := f.Open()
	if err != nil {
		return nil, problem(c.path, "", "truncated or damaged: %s: %w", quote(f.Name), err)
	}
	return r, nil
}

func (c *container) readOrder(f *zip.File) error {
	r, err := c.entry(f)
	if err != nil {
		return err
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, 16))
	if err != nil {
		return problem(c.path, "", "truncated or damaged: %s: %w", quote(f.Name), err)
	}
	switch string(text) {
	case "little":
	case "big":
		c.order = binary.BigEndian
	default:
		return problem(c.path, "", "expected the byte order little or big, got %s", quote(string(text)))
	}
	return nil
}

// The magic number at the start of a legacy file, and its format's version.
const (
	legacyMagic   = bigInt("\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19")
	legacyVersion = int64(1001)
)

// readLegacy reads the format before 1.6: pickles of a magic number, a version,
// the saving system's type sizes, the value and the storages' keys, then each
// storage's number of elements and bytes, always little-endian.
func (c *container) readLegacy(r io.ReaderAt) error {
	set := storageSet{fields: 6}
	u := newUnpickler(io.NewSectionReader(r, 0, c.size), set.resolve)
	var head [5]any
	for i := range head {
		var err error
		if head[i], err = u.next(); err != nil {
			return problem(c.path, "", "%w", err)
		}
		if i == 0 && head[0] != legacyMagic {
			return problem(c.path, "", "a pickle, but not of torch.save: it has no magic number")
		}
		if i == 1 && head[1] != legacyVersion {
			return problem(c.path, "", "expected version %d of the legacy format, got another", legacyVersion)
		}
	}
	c.root = head[3]
	keys, ok := head[4].(*list)
	if !ok {
		return problem(c.path, "", "damaged: no list of storages")
	}
	offsets := map[*storage]int64{}
	at := u.at
	for _, k := range keys.items {
		key, _ := k.(string)
		s := set.byKey[key]
		if s == nil {
			return problem(c.path, "", "damaged: no tensor uses the storage %s", quote(key))
		}
		var count [8]byte
		if _, err := r.ReadAt(count[:], at); err != nil {
			return problem(c.path, "", "truncated: storage %s is missing", quote(key))
		}
		if n := binary.LittleEndian.Uint64(count[:]); n != uint64(s.numel) {
			return problem(c.path, "", "damaged: storage %s should have %d elements, has %d", quote(key), s.numel, n)
		}
		at += 8
		if s.bytes() > c.size-at {
			return problem(c.path, "", "truncated: storage %s needs %d bytes, %d are left", quote(key), s.bytes(), c.size-at)
		}
		offsets[s] = at
		at += s.bytes()
	}
	c.open = func(s *storage) (io.ReadCloser, error) {
		at, ok := offsets[s]
		if !ok {
			return nil, fmt.Errorf("damaged: storage %s is not in the file", quote(s.key))
		}
		return io.NopCloser(io.NewSectionReader(r, at, s.bytes())), nil
	}
	return nil
}

// storageSet resolves persistent ids: ("storage", class, key, location,
// elements), and in legacy files a sixth field for a view.
type storageSet struct {
	fields int
	byKey  map[string]*storage
}

func (t *storageSet) resolve(id tuple) (*storage, error) {
	if len(id) != t.fields || id[0] != "storage" {
		return nil, fmt.Errorf("expected a storage, got another persistent id")
	}
	class, _ := id[1].(global)
	key, isText := id[2].(string)
	numel, isCount := id[4].(int64)
	d := storages[string(class)]
	switch {
	case d == nil || !isText || !isCount:
		return nil, fmt.Errorf("a storage's class, key or size is not valid")
	case numel < 0 || numel > math.MaxInt64/8:
		return nil, fmt.Errorf("storage %s has %d elements", quote(key), numel)
	case t.fields == 6 && id[5] != nil:
		return nil, fmt.Errorf("storage %s is a view of another, as PyTorch wrote before 0.4", quote(key))
	}
	if t.byKey == nil {
		t.byKey = map[string]*storage{}
	}
	s := t.byKey[key]
	if s == nil {
		s = &storage{key: key, dtype: d, numel: numel}
		t.byKey[key] = s
	}
	if s.dtype != d || s.numel != numel {
		return nil, fmt.Errorf("storage %s is described twice, differently", quote(key))
	}
	return s, nil
}
