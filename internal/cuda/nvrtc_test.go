//go:build dl && linux

package cuda

import (
	"bytes"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/carousel-ml/carousel/internal/dl"
)

// realNVRTC loads NVIDIA's compiler, which needs no GPU: that of CAROUSEL_NVRTC, a path, or the
// one that make nvrtc has fetched.
var realNVRTC = sync.OnceValues(func() (*nvrtc, error) {
	path := os.Getenv("CAROUSEL_NVRTC")
	if path == "" {
		found, _ := filepath.Glob("../../.peers/venv-nvrtc/lib/python3*/site-packages/nvidia/*/lib/libnvrtc.so.1[0-9]")
		if len(found) == 0 {
			return nil, nil
		}
		var err error
		if path, err = filepath.Abs(found[0]); err != nil {
			return nil, err
		}
	}
	lib, err := dl.Open(path, true)
	if err != nil {
		return nil, err
	}
	return bindNVRTC(lib)
})

func needNVRTC(t *testing.T) *nvrtc {
	t.Helper()
	n, err := realNVRTC()
	if err != nil {
		t.Fatal(err)
	}
	if n == nil {
		t.Skip("needs NVIDIA's compiler: make nvrtc, or CAROUSEL_NVRTC=/path/of/libnvrtc.so.13")
	}
	copied := *n
	copied.cache = ""
	return &copied
}

// compiledFor is the architectures for which kernels must compile, and whether with all macros:
// those of CAROUSEL_NVRTC_ARCHS, a list such as 86,120, with all, which takes minutes; without it
// all, with the first macros of each file.
func compiledFor(t *testing.T) (list []int, all bool) {
	text := os.Getenv("CAROUSEL_NVRTC_ARCHS")
	if text == "" {
		return []int{80, 86, 89, 90, 100, 120}, false
	}
	for word := range strings.SplitSeq(text, ",") {
		arch, err := strconv.Atoi(word)
		if err != nil {
			t.Fatalf("CAROUSEL_NVRTC_ARCHS=%s: want numbers such as 86,120", text)
		}
		list = append(list, arch)
	}
	return list, true
}

func TestKernelsCompile(t *testing.T) {
	n := needNVRTC(t)
	n.keep() // what has compiled before need not again
	files, err := fs.Glob(sources, "kernels/*.cu")
	if err != nil || len(files) < 2 {
		t.Fatal(files, err)
	}
	var all []string
	for _, path := range files {
		all = append(all, strings.TrimSuffix(filepath.Base(path), ".cu"))
	}
	for file := range variants {
		if !slices.Contains(all, file) {
			t.Errorf("variants names %s.cu, which is not there", file)
		}
	}
	archs, fully := compiledFor(t)
	for _, file := range all {
		if file == "prelude" || slices.ContainsFunc(slices.Collect(maps.Values(commons)), func(list []string) bool { return slices.Contains(list, file) }) {
			continue // no file of its own
		}
		macros := variants[file]
		if macros == nil {
			macros = []string{""}
		}
		if !fully {
			macros = macros[:1]
		}
		for _, arch := range archs {
			for _, m := range macros {
				t.Run(strings.TrimSpace(file+" "+m)+" "+strconv.Itoa(arch), func(t *testing.T) {
					t.Parallel()
					image, err := n.compile(file, source(file), m, arch)
					if err != nil {
						t.Fatal(err)
					}
					if !bytes.HasPrefix(image, []byte("\x7fELF")) {
						t.Fatalf("no ELF: % x", image[:min(len(image), 16)])
					}
				})
			}
		}
	}
}

// An architecture that the compiler does not know gets PTX of the newest one before it.
func TestNewerDeviceGetsPTX(t *testing.T) {
	n := needNVRTC(t)
	image, err := n.compile("moves", source("moves"), "", 999)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(image, []byte(".target sm_")) || image[len(image)-1] != 0 {
		t.Errorf("no PTX: %.80q", image)
	}
	if _, err := n.compile("moves", source("moves"), "", 10); err == nil || !strings.Contains(err.Error(), "use an older CUDA") {
		t.Errorf("compute capability 1.0: %v", err)
	}
}

func TestErrorOfCompilerNamesLine(t *testing.T) {
	n := needNVRTC(t)
	_, err := n.compile("moves", source("moves")+"\n#line 7 \"moves.cu\"\nint f() { return nothing; }\n", "", 90)
	if err == nil || !strings.Contains(err.Error(), "moves.cu(7): error") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
}

func TestCache(t *testing.T) {
	n := needNVRTC(t)
	n.cache = filepath.Join(t.TempDir(), "a", "b")
	first, err := n.compile("moves", source("moves"), "", 90)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(n.cache)
	if err != nil || len(entries) != 1 {
		t.Fatal(entries, err)
	}
	path := filepath.Join(n.cache, entries[0].Name())
	kept, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	blind := *n
	blind.compileProgram = 0 // calling it would crash
	again, err := blind.compile("moves", source("moves"), "", 90)
	if err != nil || !bytes.Equal(first, again) {
		t.Fatalf("the cached file gives another result: %v", err)
	}
	for what, bad := range map[string][]byte{"truncated": kept[:len(kept)-1], "changed": append(bytes.Clone(kept[:len(kept)-1]), kept[len(kept)-1]+1), "empty": nil} {
		if err := os.WriteFile(path, bad, 0o644); err != nil {
			t.Fatal(err)
		}
		again, err := n.compile("moves", source("moves"), "", 90)
		if err != nil || !bytes.Equal(first, again) {
			t.Errorf("%s: another result: %v", what, err)
		}
		if now, _ := os.ReadFile(path); !bytes.Equal(now, kept) {
			t.Errorf("%s: the file was not replaced", what)
		}
	}
	paths := map[string]bool{n.path("s", []string{"o"}): true, n.path("t", []string{"o"}): true, n.path("s", []string{"p"}): true, n.path("s", []string{"o", "p"}): true}
	n.version = "0.0"
	paths[n.path("s", []string{"o"})] = true
	if len(paths) != 5 {
		t.Errorf("%d different keys of 5", len(paths))
	}
}

// Real libraries next to a driver that is not there.
func TestLibrariesOfOneFamily(t *testing.T) {
	found, _ := filepath.Glob(os.Getenv("CAROUSEL_NVIDIA_WHEELS") + "/*/lib")
	if os.Getenv("CAROUSEL_NVIDIA_WHEELS") == "" || len(found) == 0 {
		t.Skip("needs CAROUSEL_NVIDIA_WHEELS=/path/of/site-packages/nvidia, with cuBLAS and cuDNN")
	}
	for family, want := range map[int]string{13: "cuBLASLt cuDNN", 12: ""} {
		s := &search{folders: found}
		var l libraries
		setup := &Setup{}
		l.open(s, family, setup)
		var names []string
		for _, lib := range setup.Libraries {
			names = append(names, lib.Name)
			t.Log(lib)
		}
		if strings.Join(names, " ") != want {
			t.Errorf("of CUDA %d: %q, want %s; notes %q", family, names, want, s.notes)
		}
		if family == 12 && !slices.ContainsFunc(s.notes, func(n string) bool { return strings.Contains(n, "belongs to CUDA 13") }) {
			t.Errorf("notes %q", s.notes)
		}
	}
}
