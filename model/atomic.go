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
	"strings"
	"sync"
)

// WriteFileAtomic replaces the file at path with the output of write. Readers
// see the old content or the new, never a mixture: the bytes go to a temporary
// file in the same directory, are flushed to the disk, and the file is renamed
// into place, with the permissions of the one before it. If anything fails (write returns an error, the disk is full) it
// returns that error with the path; the previous file is unchanged and the
// temporary file is removed.
//
// The writer is an io.WriterAt too, for headers that depend on what follows them.
//
// If path is a symbolic link, its target is replaced and the link is kept. A
// device, a pipe or anything else that is neither a file nor a directory is
// written to directly: it is not replaced, the writer is no io.WriterAt, and an error
// may leave a part of the output in it.
func WriteFileAtomic(path string, write func(io.Writer) error) error {
	target, direct, err := destination(path)
	if err != nil {
		return fmt.Errorf("%s: cannot be written: %w", path, bare(err))
	}
	if direct {
		return writeInto(path, write)
	}
	f, err := createBeside(target)
	if err != nil {
		return fmt.Errorf("%s: cannot be written: %w", path, bare(err))
	}
	temporaries.Store(f.Name(), true)
	done := false
	defer func() { // also when write panics
		temporaries.Delete(f.Name())
		if !done {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if before, err := os.Stat(target); err == nil {
		_ = f.Chmod(before.Mode().Perm()) // not on every system
	}
	w := patched{bufio.NewWriterSize(f, 1<<16), f}
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
		return fmt.Errorf("%s: not written, the file before it is kept: %w", path, bare(err))
	}
	if err := os.Rename(f.Name(), target); err != nil {
		return fmt.Errorf("%s: cannot be replaced: %w", path, bare(err))
	}
	done = true
	dir, _ := filepath.Split(target)
	syncDir(dir + ".")
	return nil
}

// patched is a buffered file whose first bytes can be changed after the later ones.
type patched struct {
	*bufio.Writer
	f *os.File
}

func (p patched) WriteAt(b []byte, at int64) (int, error) {
	if err := p.Flush(); err != nil {
		return 0, err
	}
	return p.f.WriteAt(b, at)
}

// temporaries are the names of the temporary files of writes in progress.
var temporaries sync.Map

// RemoveTemporaries removes the temporary files of all writes in progress, for a
// process that is about to exit.
func RemoveTemporaries() {
	temporaries.Range(func(name, _ any) bool {
		_ = os.Remove(name.(string))
		return true
	})
}

// SweepTemporaries removes the temporary files that writes of path by processes
// killed earlier have left. No other process may be writing path.
func SweepTemporaries(path string) {
	dir, base := filepath.Split(path)
	entries, _ := os.ReadDir(dir + ".")
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "."+base+temporary) {
			_ = os.Remove(dir + e.Name())
		}
	}
}

// temporary follows the name of a file, and is followed by a number, in those of
// its temporary files.
const temporary = ".tmp"

// destination follows the symbolic links of path to the file to replace, which
// need not exist; direct reports that path is to be written to instead.
func destination(path string) (target string, direct bool, err error) {
	info, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", false, err
	}
	exists := err == nil
	if exists && !info.Mode().IsRegular() && !info.IsDir() {
		return "", true, nil
	}
	target = path
	for range 255 { // os.Stat found no cycle
		to, err := os.Readlink(target)
		if err != nil {
			break
		}
		if !filepath.IsAbs(to) {
			dir, _ := filepath.Split(target) // not cleaned: x/.. may lead elsewhere
			to = dir + to
		}
		target = to
	}
	// A link of /proc to an open file that was removed has no such target.
	if now, err := os.Stat(target); exists && (err != nil || !os.SameFile(info, now)) {
		return "", true, nil
	}
	return target, false, nil
}

// writeInto passes the output of write to what is at path.
func writeInto(path string, write func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return fmt.Errorf("%s: cannot be written: %w", path, bare(err))
	}
	defer f.Close() // also when write panics
	w := bufio.NewWriterSize(f, 1<<16)
	if err = write(w); err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return fmt.Errorf("%s: not written completely: %w", path, bare(err))
	}
	return nil
}

// createBeside creates a new file next to path. Unlike os.CreateTemp's, its
// mode follows the umask, as the final file's should.
func createBeside(path string) (*os.File, error) {
	dir, base := filepath.Split(path)
	for try := 0; ; try++ {
		name := dir + "." + base + temporary + strconv.FormatUint(uint64(rand.Uint32()), 36)
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if errors.Is(err, fs.ErrExist) && try < 100 {
			continue
		}
		return f, err
	}
}

// syncDir makes a rename durable. Not every system can sync a directory, and at
// this point the file itself is safe, so failure is not an error.
func syncDir(dir string) {
	if runtime.GOOS == "windows" {
		return
	}
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync()
		d.Close()
	}
}

// bare strips the operation and the temporary name that package os adds to an
// error.
func bare(err error) error {
	switch e := err.(type) {
	case *fs.PathError:
		return e.Err
	case *os.LinkError:
		return e.Err
	}
	return err
}
