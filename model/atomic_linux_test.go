package model

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
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
