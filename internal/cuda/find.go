//go:build dl && linux

package cuda

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/internal/dl"
)

// pathVariable lists folders that are searched first, as PATH does.
const pathVariable = "CAROUSEL_CUDA_PATH"

// search finds NVIDIA's libraries. They are code that will run, so they are opened by
// absolute paths, and never found in the working directory; only the driver, which belongs
// to the system, may be left to the dynamic linker.
type search struct {
	getenv  func(string) string
	given   []string // folders of pathVariable
	folders []string // all, in order
	notes   []string // why something is not used
}

// newSearch lists the folders: those of CAROUSEL_CUDA_PATH, of an installed toolkit, of
// packages in an active environment of Python, and the system's.
func newSearch(getenv func(string) string) (*search, error) {
	s := &search{getenv: getenv}
	for _, dir := range filepath.SplitList(getenv(pathVariable)) {
		if dir == "" {
			continue
		}
		if !filepath.IsAbs(dir) {
			return s, fmt.Errorf("%s names the folder %q: want an absolute path, since libraries of a working directory are not loaded", pathVariable, dir)
		}
		s.given = append(s.given, filepath.Clean(dir))
	}
	s.add(s.given...)
	s.add("/usr/local/cuda/lib64")
	for _, name := range []string{"CUDA_HOME", "CUDA_PATH"} {
		if root := s.root(name); root != "" {
			s.add(filepath.Join(root, "lib64"), filepath.Join(root, "lib"))
		}
	}
	for _, name := range []string{"VIRTUAL_ENV", "CONDA_PREFIX"} {
		root := s.root(name)
		if root == "" {
			continue
		}
		packages, _ := filepath.Glob(filepath.Join(escape(root), "lib", "python3*", "site-packages", "nvidia", "*", "lib"))
		s.add(packages...)
		if name == "CONDA_PREFIX" {
			s.add(filepath.Join(root, "lib"))
		}
	}
	s.add(filepath.Join("/usr/lib", map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]+"-linux-gnu"), "/usr/lib64")
	return s, nil
}

// root returns the folder that a variable of other programs names.
func (s *search) root(variable string) string {
	dir := s.getenv(variable)
	if dir != "" && !filepath.IsAbs(dir) {
		s.note("%s names the folder %q, which is no absolute path", variable, dir)
		return ""
	}
	return dir
}

// escape makes a path a pattern of filepath.Glob that it alone matches.
func escape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

func (s *search) add(dirs ...string) {
	for _, dir := range dirs {
		if !slices.Contains(s.folders, dir) {
			s.folders = append(s.folders, dir)
		}
	}
}

func (s *search) note(format string, args ...any) {
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

// open loads a library of the given name from the first folder where it is and can be
// used, which use decides.
func (s *search) open(name string, use func(lib *dl.Library, path string) error) bool {
	for _, dir := range s.folders {
		if s.openIn(dir, name, use) {
			return true
		}
	}
	return false
}

func (s *search) openIn(dir, name string, use func(lib *dl.Library, path string) error) bool {
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		return false
	}
	lib, err := dl.Open(path, true) // cuDNN looks for symbols of cuBLAS
	if err == nil {
		if err = use(lib, path); err != nil {
			_ = lib.Close()
		}
	}
	if err != nil {
		s.note("%s: %s", path, strings.TrimPrefix(err.Error(), path+": "))
	}
	return err == nil
}
