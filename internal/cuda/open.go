//go:build dl && linux

package cuda

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/dl"
)

// oldestDriver knows CUDA 12.0, whose functions are used.
const oldestDriver = 12000

// Open opens device ordinal of those that the driver shows, from 0 on. The error is one line
// that says what is missing, and what to do. On the Backend, Notes returns what the user may
// want to know.
func Open(ordinal int, o Options) (device.Backend, error) {
	l, err := load(os.Getenv, o)
	if err != nil {
		return nil, err
	}
	b, err := open(l.driver, l.nvrtc, l.libs, ordinal, o)
	if err != nil {
		return nil, err
	}
	b.notes = l.search.notes
	return b, nil
}

// Notes returns a sentence for each library that is not used, and why, and for work that is
// slower than it should be.
func (b *Backend) Notes() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.notes)
}

// Look returns what Open would use, as far as it goes, and why it would fail.
func Look() (*Setup, error) {
	l, err := load(os.Getenv, Options{})
	l.setup.Folders, l.setup.Notes = l.search.folders, l.search.notes
	if err == nil {
		err = l.listGPUs()
	}
	return &l.setup, err
}

// loaded is the libraries of a process.
type loaded struct {
	search *search
	driver *driver
	known  int // the CUDA that the driver knows, such as 13020
	nvrtc  *nvrtc
	libs   libraries
	setup  Setup
}

// load loads the driver, NVRTC of the newest family that the driver knows, from the first
// folder that has one, and the libraries of the same family.
func load(getenv func(string) string, o Options) (l *loaded, err error) {
	l = &loaded{}
	if l.search, err = newSearch(getenv); err != nil {
		return l, err
	}
	if err := l.loadDriver(); err != nil {
		return l, err
	}
	family, err := l.loadNVRTC()
	if err != nil {
		return l, err
	}
	if !o.Deterministic {
		l.libs.open(l.search, family, &l.setup)
	}
	return l, nil
}

// loadDriver loads the driver by its name, which the system's linker knows, unless
// CAROUSEL_CUDA_PATH has one.
func (l *loaded) loadDriver() error {
	const name = "libcuda.so.1"
	paths := []string{name, "/usr/lib/wsl/lib/" + name}
	for i := len(l.search.given) - 1; i >= 0; i-- {
		path := filepath.Join(l.search.given[i], name)
		if _, err := os.Stat(path); err == nil {
			paths = append([]string{path}, paths...)
		}
	}
	var first error
	for _, path := range paths {
		lib, err := dl.Open(path, false)
		if err != nil {
			if first == nil {
				first = err
			}
			continue
		}
		return l.useDriver(lib, path)
	}
	return fmt.Errorf("there is no NVIDIA driver: %w; install one that knows CUDA %s or newer, or use --device cpu", first, cudaVersion(oldestDriver))
}

func (l *loaded) useDriver(lib *dl.Library, path string) error {
	getVersion := lib.Symbol("cuDriverGetVersion")
	var known int32
	if getVersion == 0 || dl.Call(getVersion, uintptr(unsafe.Pointer(&known))) != 0 {
		return fmt.Errorf("%s is no driver of NVIDIA's: it does not tell a version", path)
	}
	l.setup.Libraries = append(l.setup.Libraries, Library{"driver", cudaVersion(int(known)), path})
	if known < oldestDriver {
		return fmt.Errorf("the NVIDIA driver knows CUDA %s, and %s is needed: install driver 525 or newer", cudaVersion(int(known)), cudaVersion(oldestDriver))
	}
	d, err := bindDriver(lib)
	if err != nil {
		return fmt.Errorf("%s is not a whole driver: %w", path, err)
	}
	const noDevice = 100
	switch r := dl.Call(d.init, 0); r {
	case 0:
	case noDevice:
		return errors.New("the NVIDIA driver shows no GPU: see nvidia-smi, and CUDA_VISIBLE_DEVICES if it is set")
	default:
		return fmt.Errorf("the NVIDIA driver does not start: %w; nvidia-smi may tell more", d.check("cuInit", r))
	}
	l.driver, l.known = d, int(known)
	return nil
}

func cudaVersion(v int) string { return fmt.Sprintf("%d.%d", v/1000, v%1000/10) }

// families are the CUDAs whose libraries can be used, newest first.
var families = []int{13, 12}

// loadNVRTC returns the family too.
func (l *loaded) loadNVRTC() (family int, err error) {
	var names []string
	for _, dir := range l.search.folders {
		for _, f := range families {
			name := fmt.Sprintf("libnvrtc.so.%d", f)
			if f > l.known/1000 {
				if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
					l.search.note("%s: the driver knows CUDA %s; for this library it must be of CUDA %d", filepath.Join(dir, name), cudaVersion(l.known), f)
				}
				continue
			}
			if l.search.openIn(dir, name, l.useNVRTC) {
				return f, nil
			}
		}
	}
	for _, f := range families {
		if f <= l.known/1000 {
			names = append(names, fmt.Sprintf("libnvrtc.so.%d", f))
		}
	}
	packages := "nvidia-cuda-nvrtc"
	if l.known/1000 == 12 {
		packages = "nvidia-cuda-nvrtc-cu12"
	}
	return 0, fmt.Errorf("NVRTC, which compiles the kernels, was not found (%s): install the CUDA toolkit, or %s from PyPI into the active environment of Python, or set %s to its folder; carousel doctor --device cuda lists where it was looked for", strings.Join(names, ", "), packages, pathVariable)
}

func (l *loaded) useNVRTC(lib *dl.Library, path string) (err error) {
	if l.nvrtc, err = bindNVRTC(lib); err == nil {
		l.setup.Libraries = append(l.setup.Libraries, Library{"NVRTC", l.nvrtc.version, path})
	}
	return err
}

// listGPUs asks the driver for its devices.
func (l *loaded) listGPUs() error {
	d := l.driver
	var count int32
	if err := d.check("cuDeviceGetCount", dl.Call(d.deviceGetCount, uintptr(unsafe.Pointer(&count)))); err != nil {
		return err
	}
	for i := range count {
		var dev int32
		if err := d.check("cuDeviceGet", dl.Call(d.deviceGet, uintptr(unsafe.Pointer(&dev)), uintptr(i))); err != nil {
			return err
		}
		name, limits := d.describe(dev)
		l.setup.GPUs = append(l.setup.GPUs, GPU{name, fmt.Sprintf("%d.%d", limits.arch/10, limits.arch%10), limits.sms, limits.total})
	}
	return nil
}
