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
	src, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if out, err := command("run", ".", "-src", src, "-out", dir); err != nil {
		t.Fatalf("the generator fails: %v\n%s", err, out)
	}
	committed, err := filepath.Glob("z*")
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(fresh) != len(committed) {
		t.Errorf("the generator writes %d files, but %d are here: %v", len(fresh), len(committed), committed)
	}
	for _, name := range committed {
		want, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Errorf("%s is not written by the generator any more", name)
			continue
		}
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the generator writes; run go generate ./internal/simd", name)
		}
	}
}
