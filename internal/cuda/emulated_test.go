//go:build dl && linux

package cuda

import (
	"path/filepath"
	"testing"
	"unsafe"

	"github.com/carousel-ml/carousel/internal/cuda/cudatest"
	"github.com/carousel-ml/carousel/internal/dl"
)

// emulated returns a backend on a device that the CPU plays, of its own for each call,
// which must be in order at the end of the test.
func emulated(t testing.TB, o Options) *Backend {
	t.Helper()
	b, err := openEmulated(t, o, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := catch(b.Sync); err != nil {
			t.Error(err)
		}
		if err := cudatest.Check(b.d.lib); err != nil {
			t.Error(err)
		}
	})
	return b
}

// openEmulated is Open with a device of other properties than usual. No library of the
// system is looked for.
func openEmulated(t testing.TB, o Options, settings string) (*Backend, error) {
	t.Helper()
	dir := cudatest.Libraries(t)
	lib, err := dl.Open(filepath.Join(dir, "libcuda.so.1"), false)
	if err != nil {
		t.Fatal(err)
	}
	cudatest.Set(lib, settings)
	l := &loaded{search: &search{given: []string{dir}, folders: []string{dir}}}
	if err := l.loadDriver(); err != nil {
		return nil, err
	}
	if _, err := l.loadNVRTC(); err != nil {
		return nil, err
	}
	return open(l.driver, l.nvrtc, libraries{}, 0, o)
}

// testKernel is a kernel of a source that only a test has.
func (b *Backend) testKernel(t *testing.T, name, text string) kernel {
	t.Helper()
	b.enter()
	defer b.leave()
	prelude, err := sources.ReadFile("kernels/prelude.cu")
	if err != nil {
		t.Fatal(err)
	}
	image, err := b.nvrtc.compile("test", string(prelude)+"#line 1 \"test.cu\"\n"+text, "", b.limits.arch)
	if err != nil {
		t.Fatal(err)
	}
	var loaded uintptr
	b.must("cuModuleLoadData", dl.Call(b.d.moduleLoadData, uintptr(unsafe.Pointer(&loaded)), uintptr(unsafe.Pointer(&image[0]))))
	k := kernel{file: "test " + name, name: name}
	b.modules[module{k.file, ""}] = loaded
	return k
}
