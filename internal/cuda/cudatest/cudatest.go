//go:build dl && linux

// Package cudatest has a stand-in for CUDA's driver, which runs kernels on the CPU: each
// thread is a fiber, and kernels are C++ that the system's compiler makes shared objects
// of (emulator/emulated.h has what C++ lacks). So tests of package cuda need no GPU. It
// tells about semantics and nothing about speed, nor about what NVIDIA's compiler makes
// of the source.
package cudatest

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/cpu"

	"github.com/carousel-ml/carousel/internal/dl"
)

//go:embed emulator
var emulator embed.FS

// Driver returns the path of a copy of the stand-in for libcuda.so.1, whose device is
// no other's. It skips the test where there is no C++ compiler.
func Driver(t testing.TB) string {
	t.Helper()
	needCompiler(t)
	built, err := build("driver", ".cc", read("driver.cc"), "-O2 -g -pthread -fvisibility=hidden")
	if err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile(built)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "libcuda.so.1")
	if err := os.WriteFile(path, image, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// Set changes the settings of an emulated device: its properties, such as
// "memory=1048576 arch=75 driver=11080 devices=0", and faults, such as "fail=719 after=3",
// the CUresult that ends the fourth launch from now on.
func Set(driver *dl.Library, words string) {
	text := append([]byte(words), 0)
	dl.Call(driver.Symbol("emulator_set"), uintptr(unsafe.Pointer(&text[0])))
}

// Check returns an error if a kernel has written around an allocation.
func Check(driver *dl.Library) error {
	var text [256]byte
	if dl.Call(driver.Symbol("emulator_check"), uintptr(unsafe.Pointer(&text[0])), uintptr(len(text))) == 0 {
		return nil
	}
	return errors.New(dl.Text(&text[0]))
}

// Compile makes what the stand-in loads from a file of kernels.
func Compile(file, source, macros string) ([]byte, error) {
	// A trap for what a GPU cannot do, or gives no error for.
	flags := "-O1 -DEMULATED -ffp-contract=off -Wno-unknown-pragmas -fsanitize=alignment,bounds,signed-integer-overflow -fsanitize-undefined-trap-on-error"
	if cpu.X86.HasFMA {
		flags += " -mfma"
	}
	for _, m := range strings.Fields(macros) {
		flags += " -D" + m
	}
	path, err := build(file, ".cc", "#include \"emulated.h\"\n#line 1 \"prelude.cu\"\n"+source, flags)
	if err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

func read(name string) string {
	text, err := emulator.ReadFile("emulator/" + name)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// compilerPath is the C++ compiler's.
var compilerPath = sync.OnceValues(func() (string, error) {
	for _, name := range []string{os.Getenv("CXX"), "c++", "g++", "clang++"} {
		if path, err := exec.LookPath(name); name != "" && err == nil {
			return path, nil
		}
	}
	return "", errors.New("there is no C++ compiler (CXX, c++, g++, clang++), which the emulated GPU needs")
})

func needCompiler(t testing.TB) {
	t.Helper()
	if _, err := compilerPath(); err != nil {
		t.Skip(err)
	}
}

// build compiles a source to a shared object, if the user's cache does not have it yet,
// and returns its path.
func build(name, ext, source, flags string) (string, error) {
	cxx, err := compilerPath()
	if err != nil {
		return "", err
	}
	header := read("emulated.h")
	hash := sha256.Sum256([]byte(strings.Join([]string{cxx, flags, header, source}, "\x00")))
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	dir = filepath.Join(dir, "carousel", "emulated")
	path := filepath.Join(dir, name+"-"+hex.EncodeToString(hash[:12])+".so")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	for file, text := range map[string]string{"emulated.h": header, name + ext: source} {
		if err := os.WriteFile(filepath.Join(work, file), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	args := append([]string{"-std=c++17", "-fPIC", "-shared", "-o", "out.so"}, strings.Fields(flags)...)
	cmd := exec.Command(cxx, append(args, name+ext)...)
	cmd.Dir = work
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", cxx, err, out)
	}
	return path, os.Rename(filepath.Join(work, "out.so"), path)
}
