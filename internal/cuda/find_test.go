//go:build dl && linux

package cuda

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func env(pairs map[string]string) func(string) string {
	return func(name string) string { return pairs[name] }
}

func TestSearchOrder(t *testing.T) {
	dir := t.TempDir()
	toolkit, venv, conda := filepath.Join(dir, "cuda"), filepath.Join(dir, "ve[n]v"), filepath.Join(dir, "conda")
	wheel := filepath.Join(venv, "lib/python3.11/site-packages/nvidia/cu13/lib")
	if err := os.MkdirAll(wheel, 0o755); err != nil {
		t.Fatal(err)
	}
	s, err := newSearch(env(map[string]string{
		"CAROUSEL_CUDA_PATH": "/first:/second/../third:", "CUDA_HOME": toolkit, "VIRTUAL_ENV": venv, "CONDA_PREFIX": conda,
	}))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"/first", "/third", "/usr/local/cuda/lib64", filepath.Join(toolkit, "lib64"), wheel, filepath.Join(conda, "lib"), "/usr/lib64"}
	at := -1
	for _, dir := range want {
		i := slices.Index(s.folders, dir)
		if i <= at {
			t.Errorf("%s is at place %d of %q, after place %d expected", dir, i, s.folders, at)
		}
		at = i
	}
	if len(s.notes) > 0 {
		t.Errorf("notes: %q", s.notes)
	}
}

// Libraries of the working directory must not be loaded, whatever names it.
func TestRelativePathsAreRefused(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, sub := range []string{"lib", "lib64", "lib/python3.11/site-packages/nvidia/cu13/lib"} {
		if err := os.MkdirAll(sub, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{".", "lib", "./lib", "/usr/lib:lib"} {
		if _, err := newSearch(env(map[string]string{"CAROUSEL_CUDA_PATH": path})); err == nil || !strings.Contains(err.Error(), "want an absolute path") {
			t.Errorf("CAROUSEL_CUDA_PATH=%s: %v", path, err)
		}
	}
	for _, name := range []string{"CUDA_HOME", "CUDA_PATH", "VIRTUAL_ENV", "CONDA_PREFIX"} {
		s, err := newSearch(env(map[string]string{name: "."}))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range s.folders {
			if !filepath.IsAbs(f) || strings.HasPrefix(f, dir) {
				t.Errorf("%s=. makes %s be searched", name, f)
			}
		}
		if len(s.notes) != 1 || !strings.Contains(s.notes[0], name) {
			t.Errorf("%s=.: notes %q", name, s.notes)
		}
	}
}

func TestBrokenLibraryIsNoted(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "libnvrtc.so.13")
	if err := os.WriteFile(path, []byte("no library"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := &search{folders: []string{dir}}
	if s.open("libnvrtc.so.13", nil) {
		t.Fatal("opened")
	}
	if len(s.notes) != 1 || !strings.HasPrefix(s.notes[0], path+": ") || strings.Contains(s.notes[0], "\n") {
		t.Errorf("notes: %q", s.notes)
	}
}

// A driver is asked for first, so without one nothing else is loaded.
func TestOpenWithoutDriver(t *testing.T) {
	_, err := load(env(map[string]string{}), Options{})
	if err == nil {
		t.Skip("this machine has a driver")
	}
	if text := err.Error(); !strings.Contains(text, "NVIDIA driver") || strings.Contains(text, "\n") || !strings.Contains(text, "--device cpu") {
		t.Errorf("%q", text)
	}
}
