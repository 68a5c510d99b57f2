package model

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
)

// WriteFileAtomic replaces the file at path with what write produces. Readers see
// the old content or the new, never a part: the bytes go to a temporary file in the
// same directory, are flushed to the disk, and the file is renamed into place. If
// anything fails (write returns an error, the disk is full) the file that was there
// before is untouched and the temporary file is removed.
func WriteFileAtomic(path string, write func(io.Writer) error) error {
	p, err := stage(path, write)
	if err != nil {
		return err
	}
	return p.commit()
}

// pending is a file written completely beside its place, but not yet renamed into it.
type pending struct{ temp, path string }

// stage writes the temporary file that commit renames to path.
func stage(path string, write func(io.Writer) error) (*pending, error) {
	f, err := createBeside(path)
	if err != nil {
		return nil, fmt.Errorf("%s: cannot be written: %w", path, bare(err))
	}
	done := false
	defer func() { // also when write panics
		if !done {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	w := bufio.NewWriterSize(f, 1<<16)
	if err = write(w); err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: not written, the file before it is kept: %w", path, bare(err))
	}
	done = true
	return &pending{f.Name(), path}, nil
}

// commit renames the file into place.
func (p *pending) commit() error {
	if err := os.Rename(p.temp, p.path); err != nil {
		p.discard()
		return fmt.Errorf("%s: cannot be replaced: %w", p.path, bare(err))
	}
	syncDir(filepath.Dir(p.path))
	return nil
}

// discard removes the temporary file.
func (p *pending) discard() { os.Remove(p.temp) }

// createBeside makes a new file next to path. Unlike os.CreateTemp's, its mode
// follows the umask, as the final file's should.
func createBeside(path string) (*os.File, error) {
	dir, base := filepath.Split(path)
	for try := 0; ; try++ {
		name := filepath.Join(dir, "."+base+".tmp"+strconv.FormatUint(uint64(rand.Uint32()), 36))
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if errors.Is(err, fs.ErrExist) && try < 100 {
			continue
		}
		return f, err
	}
}

// syncDir makes a rename durable. Not every system can sync a directory, and by now
// the file itself is safe, so failure is not an error.
func syncDir(dir string) {
	if runtime.GOOS == "windows" {
		return
	}
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync()
		d.Close()
	}
}

// bare strips the operation and the temporary name that os puts around an error.
func bare(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	var l *os.LinkError
	if errors.As(err, &l) {
		return l.Err
	}
	return err
}
