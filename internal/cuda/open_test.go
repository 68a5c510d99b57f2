//go:build dl && linux

package cuda

import (
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/internal/cuda/cudatest"
)

// Open and Look as a program calls them, by the environment.
func TestOpen(t *testing.T) {
	dir := cudatest.Libraries(t)
	t.Setenv("CAROUSEL_CUDA_PATH", dir)
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	b, err := Open(0, Options{})
	if err != nil {
		t.Fatal(err)
	}
	// The stand-ins have neither cuBLASLt nor cuDNN, which is said.
	for _, name := range []string{"cuBLASLt", "cuDNN"} {
		if !slices.ContainsFunc(b.(*Backend).Notes(), func(n string) bool { return strings.HasPrefix(n, name+" was not found") }) {
			t.Errorf("notes %q lack %s", b.(*Backend).Notes(), name)
		}
	}
	x := b.Alloc(3)
	b.Fill(x, 2)
	got := make([]float32, 3)
	b.Download(got, x)
	if !slices.Equal(got, []float32{2, 2, 2}) {
		t.Errorf("got %v", got)
	}
	own, err := Open(0, Options{Deterministic: true})
	if err != nil || len(own.(*Backend).Notes()) > 0 {
		t.Errorf("own kernels: %v, %v", own, err)
	}
	if _, err := Open(3, Options{}); err == nil || err.Error() != "there is no cuda:3: the last one that the driver shows is cuda:0" {
		t.Errorf("cuda:3: %v", err)
	}
	setup, err := Look()
	if err != nil || len(setup.GPUs) != 1 || setup.GPUs[0].Capability != "9.0" || setup.Folders[0] != dir {
		t.Errorf("%+v, %v", setup, err)
	}
	for i, want := range []string{"driver", "NVRTC"} {
		if len(setup.Libraries) < 2 || setup.Libraries[i].Name != want || !strings.HasPrefix(setup.Libraries[i].Path, dir) {
			t.Errorf("libraries %+v", setup.Libraries)
		}
	}
	t.Setenv("CAROUSEL_CUDA_PATH", "lib")
	for _, err := range []error{func() error { _, err := Open(0, Options{}); return err }(), func() error { _, err := Look(); return err }()} {
		if err == nil || !strings.Contains(err.Error(), "want an absolute path") {
			t.Errorf("a relative path: %v", err)
		}
	}
}
