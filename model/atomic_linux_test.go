package model

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestDiskFullForReal runs this test again in a process that may not write files
// beyond 64 KiB, where the kernel, not a fake, fails the write half-way.
func TestDiskFullForReal(t *testing.T) {
	if dir := os.Getenv("CAROUSEL_TEST_SMALL_DISK"); dir != "" {
		overfill(t, dir)
		return
	}
	dir := t.TempDir()
	if err := Save(dir, "forecast", 1, Tensors(WeightsFile, []Tensor{{Name: "w", Dims: []int{2}, Data: []float32{1, 2}}}, nil)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestDiskFullForReal$")
	cmd.Env = append(os.Environ(), "CAROUSEL_TEST_SMALL_DISK="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	d, err := Open(dir)
	if err != nil {
		t.Fatalf("the older model is gone: %v", err)
	}
	if got := d.Weights.Lookup("w").Data; got[1] != 2 || string(d.Config) != "1" {
		t.Errorf("the older model changed: %v %s", got, d.Config)
	}
	if es, _ := os.ReadDir(dir); len(es) != 2 {
		t.Errorf("left behind: %v", es)
	}
}

func overfill(t *testing.T, dir string) {
	signal.Ignore(syscall.SIGXFSZ)
	const limit = 64 << 10
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
		t.Fatal(err)
	}
	big := []Tensor{{Name: "w", Dims: []int{limit}, Data: make([]float32, limit)}}
	err := Save(dir, "forecast", 2, Tensors(WeightsFile, big, nil))
	if !errors.Is(err, syscall.EFBIG) || !strings.HasPrefix(err.Error(), filepath.Join(dir, WeightsFile)+": not written") {
		t.Errorf("got %v", err)
	}
	// Here the weights fit and the configuration does not.
	err = Save(dir, "forecast", strings.Repeat("x", 2*limit), Tensors(WeightsFile, []Tensor{{Name: "w", Dims: []int{1}, Data: []float32{9}}}, nil))
	if !errors.Is(err, syscall.EFBIG) || !strings.HasPrefix(err.Error(), filepath.Join(dir, ConfigFile)+": not written") {
		t.Errorf("got %v", err)
	}
}

// TestWriteFileAtomicIntoPipe wants what is not a file to stay what it is, named
// directly and through a link.
func TestWriteFileAtomicIntoPipe(t *testing.T) {
	dir := t.TempDir()
	pipe, link := filepath.Join(dir, "pipe"), filepath.Join(dir, "link")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Skip(err)
	}
	if err := os.Symlink("pipe", link); err != nil {
		t.Fatal(err)
	}
	// Open for both, so that neither end waits for the other.
	f, err := os.OpenFile(pipe, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, path := range []string{pipe, link} {
		if err := WriteFileAtomic(path, put(path)); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Type() != os.ModeNamedPipe {
			t.Fatalf("%s is not a pipe any more: %v", path, err)
		}
		got := make([]byte, len(path))
		if _, err := io.ReadFull(f, got); err != nil || string(got) != path {
			t.Errorf("the pipe gave %q, %v", got, err)
		}
	}
	err = WriteFileAtomic(pipe, func(io.Writer) error { return syscall.ENOSPC })
	if !errors.Is(err, syscall.ENOSPC) || !strings.HasPrefix(err.Error(), pipe+": not written completely: ") {
		t.Errorf("got %v", err)
	}

	null := filepath.Join(dir, "null")
	if err := os.Symlink(os.DevNull, null); err != nil {
		t.Fatal(err)
	}
	if err := WriteFileAtomic(null, put("x")); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(os.DevNull); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		t.Errorf("%s is not a device any more: %v", os.DevNull, err)
	}
	if info, err := os.Lstat(null); err != nil || info.Mode().Type() != os.ModeSymlink {
		t.Errorf("the link is replaced: %v", err)
	}
	if es, _ := os.ReadDir(dir); len(es) != 3 {
		t.Errorf("left behind: %v", es)
	}
}

// TestWriteFileAtomicRemoved writes to an open file without a name, as a shell's
// redirection to one that was removed.
func TestWriteFileAtomicRemoved(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil {
		t.Fatal(err)
	}
	if err := WriteFileAtomic("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), put("x")); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(f); err != nil || string(b) != "x" {
		t.Errorf("the file holds %q, %v", b, err)
	}
	if es, _ := os.ReadDir(dir); len(es) != 0 {
		t.Errorf("left behind: %v", es)
	}
}
