package model

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// onlyFile wants dir to hold exactly one file, with that content.
func onlyFile(t *testing.T, dir, name, content string) {
	t.Helper()
	es, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(es) != 1 || es[0].Name() != name {
		t.Errorf("the directory holds %v, want only %s", es, name)
	}
	if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != content {
		t.Errorf("%s holds %.20q, %v; want %.20q", name, b, err, content)
	}
}

func put(s string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	}
}

func TestWriteFileAtomic(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, s := range []string{"first", "second", strings.Repeat("third", 100_000)} {
		if err := WriteFileAtomic(path, put(s)); err != nil {
			t.Fatal(err)
		}
		onlyFile(t, dir, "f", s)
	}
}

// full is a disk with room for n bytes.
type full struct {
	w io.Writer
	n int
}

func (f *full) Write(b []byte) (int, error) {
	if len(b) > f.n {
		n, _ := f.w.Write(b[:f.n])
		f.n = 0
		return n, &os.PathError{Op: "write", Path: "/some/temporary/name", Err: syscall.ENOSPC}
	}
	f.n -= len(b)
	return f.w.Write(b)
}

func TestWriteFileAtomicDiskFull(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := WriteFileAtomic(path, put("older")); err != nil {
		t.Fatal(err)
	}
	err := WriteFileAtomic(path, func(w io.Writer) error {
		_, err := io.Copy(&full{w, 100_000}, bytes.NewReader(make([]byte, 1<<20)))
		return err
	})
	if !errors.Is(err, syscall.ENOSPC) || !strings.HasPrefix(err.Error(), path+": ") || strings.Contains(err.Error(), "temporary") {
		t.Errorf("got %v", err)
	}
	onlyFile(t, dir, "f", "older")
}

func TestWriteFileAtomicPanic(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := WriteFileAtomic(path, put("older")); err != nil {
		t.Fatal(err)
	}
	func() {
		defer func() { _ = recover() }()
		_ = WriteFileAtomic(path, func(io.Writer) error { panic("bug") })
	}()
	onlyFile(t, dir, "f", "older")
}

func TestWriteFileAtomicNoDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none", "f")
	err := WriteFileAtomic(path, put("x"))
	if !errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(err.Error(), path+": cannot be written: ") {
		t.Errorf("got %v", err)
	}
}

func TestWriteFileAtomicOverDirectory(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.Mkdir(path, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := WriteFileAtomic(path, put("x")); err == nil {
		t.Error("a directory is replaced")
	}
	if es, _ := os.ReadDir(dir); len(es) != 1 {
		t.Errorf("left behind: %v", es)
	}
}

// TestWriteFileAtomicThroughLinks wants links kept and their targets replaced, also
// a target that does not exist yet.
func TestWriteFileAtomicThroughLinks(t *testing.T) {
	root := t.TempDir()
	a, b := filepath.Join(root, "a"), filepath.Join(root, "deep", "b")
	for _, dir := range []string{a, b} {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	for _, l := range [][2]string{
		{filepath.Join("..", "deep", "b", "f"), filepath.Join(a, "relative")},
		{filepath.Join(b, "f"), filepath.Join(a, "absolute")},
		{"relative", filepath.Join(a, "twice")},
		{b, filepath.Join(a, "dir")},
		{"dir/../b/f", filepath.Join(a, "up")}, // .. of deep/b
	} {
		if err := os.Symlink(l[0], l[1]); err != nil {
			t.Skip(err)
		}
	}
	for _, name := range []string{"relative", "absolute", "twice", "up"} {
		link := filepath.Join(a, name)
		if err := os.RemoveAll(filepath.Join(b, "f")); err != nil {
			t.Fatal(err)
		}
		for _, s := range []string{"first of " + name, "second of " + name} {
			if err := WriteFileAtomic(link, put(s)); err != nil {
				t.Fatal(err)
			}
			onlyFile(t, b, "f", s)
		}
		if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
			t.Errorf("%s is no longer a link: %v", name, err)
		}
		if err := WriteFileAtomic(link, func(io.Writer) error { return io.ErrUnexpectedEOF }); !errors.Is(err, io.ErrUnexpectedEOF) || !strings.HasPrefix(err.Error(), link+": ") {
			t.Errorf("%s: got %v", name, err)
		}
		onlyFile(t, b, "f", "second of "+name)
	}
	if es, _ := os.ReadDir(a); len(es) != 5 {
		t.Errorf("left behind: %v", es)
	}
	loop := filepath.Join(a, "loop")
	if err := os.Symlink("loop", loop); err != nil {
		t.Fatal(err)
	}
	if err := WriteFileAtomic(loop, put("x")); err == nil || !strings.HasPrefix(err.Error(), loop+": cannot be written: ") {
		t.Errorf("a link to itself: %v", err)
	}
}

// The permissions of a file that is replaced stay, and temporary files of writes
// that a process never finished can be removed.
func TestPermissionsAndTemporaries(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("permissions of another kind")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "out.csv")
	if err := os.WriteFile(path, []byte("old"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	err := WriteFileAtomic(path, func(w io.Writer) error {
		if n := len(names(t, dir)); n != 2 {
			t.Errorf("%d files during the write, want 2", n)
		}
		RemoveTemporaries()
		if n := len(names(t, dir)); n != 1 {
			t.Errorf("%d files after RemoveTemporaries, want 1", n)
		}
		return errors.New("stop")
	})
	if err == nil {
		t.Fatal("no error")
	}
	if err := WriteFileAtomic(path, func(w io.Writer) error { _, err := io.WriteString(w, "new"); return err }); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, want 640: %v", info.Mode(), err)
	}
	for _, name := range []string{".out.csv.tmpab1", ".out.csv.tmp", ".other.csv.tmpx", "out.csv.tmp1"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	SweepTemporaries(path)
	if got := names(t, dir); !slices.Equal(got, []string{".other.csv.tmpx", "out.csv", "out.csv.tmp1"}) {
		t.Errorf("left: %q", got)
	}
}

func names(t *testing.T, dir string) (list []string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}
