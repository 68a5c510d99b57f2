//go:build dl && linux

package cuda

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"github.com/carousel-ml/carousel/internal/dl"
)

// nvrtc compiles with NVIDIA's run-time compiler (nvrtc.h of 12 and 13), and keeps what it
// has compiled in files.
type nvrtc struct {
	createProgram, destroyProgram, compileProgram uintptr
	getCubinSize, getCubin, getPTXSize, getPTX    uintptr
	getLogSize, getLog                            uintptr

	version string
	archs   []int  // that it knows, ascending
	cache   string // a folder; "": nothing is kept
}

func bindNVRTC(lib *dl.Library) (*nvrtc, error) {
	n := &nvrtc{}
	var getVersion, getNumArchs, getArchs uintptr
	if err := lib.Bind(map[string]*uintptr{
		"nvrtcVersion":              &getVersion,
		"nvrtcGetNumSupportedArchs": &getNumArchs,
		"nvrtcGetSupportedArchs":    &getArchs,
		"nvrtcCreateProgram":        &n.createProgram,
		"nvrtcDestroyProgram":       &n.destroyProgram,
		"nvrtcCompileProgram":       &n.compileProgram,
		"nvrtcGetCUBINSize":         &n.getCubinSize,
		"nvrtcGetCUBIN":             &n.getCubin,
		"nvrtcGetPTXSize":           &n.getPTXSize,
		"nvrtcGetPTX":               &n.getPTX,
		"nvrtcGetProgramLogSize":    &n.getLogSize,
		"nvrtcGetProgramLog":        &n.getLog,
	}); err != nil {
		return nil, err
	}
	var major, minor, count int32
	if r := dl.Call(getVersion, uintptr(unsafe.Pointer(&major)), uintptr(unsafe.Pointer(&minor))); r != 0 {
		return nil, fmt.Errorf("nvrtcVersion: status %d", r)
	}
	n.version = fmt.Sprintf("%d.%d", major, minor)
	if r := dl.Call(getNumArchs, uintptr(unsafe.Pointer(&count))); r != 0 || count < 1 {
		return nil, fmt.Errorf("nvrtcGetNumSupportedArchs: status %d, %d architectures", r, count)
	}
	archs := make([]int32, count)
	if r := dl.Call(getArchs, uintptr(unsafe.Pointer(&archs[0]))); r != 0 {
		return nil, fmt.Errorf("nvrtcGetSupportedArchs: status %d", r)
	}
	for _, a := range archs {
		n.archs = append(n.archs, int(a))
	}
	n.keep()
	return n, nil
}

// keep keeps what is compiled in the user's cache directory, if there is one.
func (n *nvrtc) keep() { n.cache = cached("") }

// options are the compiler's for a device of an architecture. If the compiler is older
// than the device, it makes PTX for the newest architecture that it knows, which the driver
// translates.
func (n *nvrtc) options(macros string, arch int) (list []string, ptx bool, err error) {
	newest := 0
	for _, a := range n.archs {
		if a <= arch {
			newest = max(newest, a)
		}
	}
	if newest == 0 {
		return nil, false, fmt.Errorf("NVRTC %s compiles for compute capability %.1f and newer, and the device has %.1f: use an older CUDA", n.version, float64(n.archs[0])/10, float64(arch)/10)
	}
	kind := "sm"
	if newest != arch {
		kind, ptx = "compute", true
	}
	list = []string{fmt.Sprintf("--gpu-architecture=%s_%d", kind, newest), "--std=c++17", "-default-device"}
	for _, m := range strings.Fields(macros) {
		list = append(list, "-D"+m)
	}
	return list, ptx, nil
}

// compile returns a cubin, or PTX with the 0 that ends it.
func (n *nvrtc) compile(file, source, macros string, arch int) ([]byte, error) {
	options, ptx, err := n.options(macros, arch)
	if err != nil {
		return nil, err
	}
	path := n.path(source, options)
	if image := readCached(path); image != nil {
		return image, nil
	}
	image, err := n.run(file+".cu", source, options, ptx)
	if err == nil {
		writeCached(path, image)
	}
	return image, err
}

func (n *nvrtc) run(name, source string, options []string, ptx bool) ([]byte, error) {
	text, title := append([]byte(source), 0), append([]byte(name), 0)
	var program uintptr
	if r := dl.Call(n.createProgram, uintptr(unsafe.Pointer(&program)), uintptr(unsafe.Pointer(&text[0])), uintptr(unsafe.Pointer(&title[0])), 0, 0, 0); r != 0 {
		return nil, fmt.Errorf("nvrtcCreateProgram: status %d", r)
	}
	defer func() { dl.Call(n.destroyProgram, uintptr(unsafe.Pointer(&program))) }()
	list := make([]*byte, len(options))
	for i, o := range options {
		list[i] = &append([]byte(o), 0)[0]
	}
	if r := dl.Call(n.compileProgram, program, uintptr(len(options)), uintptr(unsafe.Pointer(&list[0]))); r != 0 {
		log, err := fetch(program, n.getLogSize, n.getLog)
		if err != nil || len(bytes.TrimRight(log, "\x00\n")) == 0 {
			return nil, fmt.Errorf("NVRTC %s: status %d", n.version, r)
		}
		return nil, errors.New(dl.OneLine(string(bytes.TrimRight(log, "\x00"))))
	}
	if ptx {
		return fetch(program, n.getPTXSize, n.getPTX)
	}
	return fetch(program, n.getCubinSize, n.getCubin)
}

// fetch calls a pair of functions that tell a size and write so many bytes.
func fetch(program, size, get uintptr) ([]byte, error) {
	var bytes uint64
	if r := dl.Call(size, program, uintptr(unsafe.Pointer(&bytes))); r != 0 || bytes == 0 {
		return nil, fmt.Errorf("NVRTC: status %d, %d bytes", r, bytes)
	}
	out := make([]byte, bytes)
	if r := dl.Call(get, program, uintptr(unsafe.Pointer(&out[0]))); r != 0 {
		return nil, fmt.Errorf("NVRTC: status %d", r)
	}
	return out, nil
}

// path is the file of what a source is compiled to; "" if nothing is kept.
func (n *nvrtc) path(source string, options []string) string {
	if n.cache == "" {
		return ""
	}
	key := sha256.Sum256([]byte(strings.Join(append([]string{source, n.version}, options...), "\x00")))
	return filepath.Join(n.cache, hex.EncodeToString(key[:]))
}

// A cached file is the SHA-256 of what follows, and what was compiled.

// readCached returns nil unless the file is there and whole.
func readCached(path string) []byte {
	b, err := os.ReadFile(path)
	if path == "" || err != nil || len(b) <= sha256.Size {
		return nil
	}
	if sum := sha256.Sum256(b[sha256.Size:]); !bytes.Equal(sum[:], b[:sha256.Size]) {
		return nil
	}
	return b[sha256.Size:]
}

// writeCached writes a file as a whole, for several processes may do so at once. What
// cannot be kept is compiled again by the next process.
func writeCached(path string, image []byte) {
	if path == "" || os.MkdirAll(filepath.Dir(path), 0o700) != nil {
		return
	}
	f, err := os.CreateTemp(filepath.Dir(path), "new-*")
	if err != nil {
		return
	}
	sum := sha256.Sum256(image)
	_, err = f.Write(append(sum[:], image...))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
}
