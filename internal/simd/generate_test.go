package simd

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The generated files are what the generator writes today.
func TestGenerated(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the generator")
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("needs the go command")
	}
	command := func(args ...string) ([]byte, error) {
		c := exec.Command("go", append([]string{"-C", "_asm"}, args...)...)
		c.Env = append(os.Environ(), "GOPROXY=off", "GOWORK=off", "GOOS=", "GOARCH=")
		return c.CombinedOutput()
	}
	if out, err := command("list", "-deps", "."); err != nil {
		t.Skipf("the generator's modules are not in the module cache: %s", out)
	}
	src, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, pkg := range []string{"simd", "bench"} {
		if err := os.Mkdir(filepath.Join(dir, pkg), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := command("run", ".", "-src", src, "-out", dir); err != nil {
		t.Fatalf("the generator fails: %v\n%s", err, out)
	}
	for _, pkg := range []string{"simd", "bench"} {
		compare(t, filepath.Join("..", pkg), filepath.Join(dir, pkg))
	}
}

func compare(t *testing.T, src, dir string) {
	committed, err := filepath.Glob(filepath.Join(src, "z*"))
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(fresh) != len(committed) {
		t.Errorf("the generator writes %d files, but %d are in %s: %v", len(fresh), len(committed), src, committed)
	}
	for _, path := range committed {
		name := filepath.Base(path)
		want, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Errorf("%s is not written by the generator any more", name)
			continue
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the generator writes; run go generate ./internal/simd", name)
		}
	}
}
