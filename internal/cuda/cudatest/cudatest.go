//go:build dl && linux

// Package cudatest has stand-ins for CUDA's driver and for NVRTC, which compile kernels
// for the CPU with the system's C++ compiler and run them there, each thread as a fiber.
// So tests of package cuda, and of programs that use it, need no GPU. They tell about
// semantics, and nothing about speed, nor about what NVIDIA's compiler makes of a source.
package cudatest

import (
	"crypto/sha256"
	"embed"
	"encoding/binary"
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

// Libraries returns a folder with libcuda.so.1 and libnvrtc.so.13, for
// CAROUSEL_CUDA_PATH. The driver is a copy, so what happens to its device happens to no
// other. In another process, the environment variable CAROUSEL_EMULATED has settings as
// Set takes them. Libraries skips the test where there is no C++ compiler.
func Libraries(t testing.TB) string {
	t.Helper()
	cxx, err := compiler()
	if err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	for name, made := range map[string]func(cxx string) (string, error){"libcuda.so.1": driver, "libnvrtc.so.13": nvrtc} {
		path, err := made(cxx)
		if err != nil {
			t.Fatal(err)
		}
		image, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), image, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
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

// End gives back the memory of a device that is no longer used.
func End(driver *dl.Library) { dl.Call(driver.Symbol("emulator_end")) }

// compiler is the path of the C++ compiler.
var compiler = sync.OnceValues(func() (string, error) {
	for _, name := range []string{os.Getenv("CXX"), "c++", "g++", "clang++"} {
		if path, err := exec.LookPath(name); name != "" && err == nil {
			return path, nil
		}
	}
	return "", errors.New("there is no C++ compiler (CXX, c++, g++, clang++), which the emulated GPU needs")
})

const common = " -std=c++17 -fPIC -shared"

func driver(cxx string) (string, error) {
	return build(cxx, common+" -O2 -g -pthread -fvisibility=hidden", "driver.cc", map[string]string{"driver.cc": read("driver.cc"), "emulated.h": read("emulated.h")})
}

func nvrtc(cxx string) (string, error) {
	// The traps are for what a GPU cannot do, or gives wrong numbers for without an error.
	command := cxx + common + " -O1 -g1 -gdwarf-4 -DEMULATED -ffp-contract=off -Wno-unknown-pragmas -fsanitize=alignment,bounds,signed-integer-overflow -fsanitize-undefined-trap-on-error"
	if cpu.X86.HasFMA {
		command += " -mfma"
	}
	header := read("emulated.h")
	sum := sha256.Sum256([]byte(command + header))
	text := fmt.Sprintf("static const char build_command[] = R\"END(%s)END\", build_header[] = R\"END(%s)END\";\nstatic const int build_version = %d;\n",
		command, header, 1000+binary.LittleEndian.Uint32(sum[:])>>4)
	return build(cxx, common+" -O1 -fvisibility=hidden", "nvrtc.cc", map[string]string{"nvrtc.cc": read("nvrtc.cc"), "build.h": text})
}

func read(name string) string {
	text, err := emulator.ReadFile("emulator/" + name)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// build compiles a file, of those given, to a shared object, unless the user's cache has
// it, and returns its path.
func build(cxx, flags, file string, texts map[string]string) (string, error) {
	hash := sha256.Sum256(fmt.Append(nil, cxx, flags, texts))
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	dir = filepath.Join(dir, "carousel", "emulator")
	path := filepath.Join(dir, file+"-"+hex.EncodeToString(hash[:12])+".so")
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
	defer func() { _ = os.RemoveAll(work) }()
	for name, text := range texts {
		if err := os.WriteFile(filepath.Join(work, name), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	cmd := exec.Command(cxx, append(strings.Fields(flags), "-o", "out.so", file)...)
	cmd.Dir = work
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", cxx, err, out)
	}
	return path, os.Rename(filepath.Join(work, "out.so"), path)
}
