//go:build dl && linux

package cudatest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/carousel-ml/carousel/internal/dl"
)

// DNN is a stand-in for cuDNN's recurrent layers, of its own for each call of NewDNN.
type DNN struct {
	*dl.Library
}

// NewDNN returns a stand-in whose calls run on the device of a stand-in driver.
func NewDNN(t testing.TB, driver *dl.Library) *DNN {
	t.Helper()
	cxx, err := compiler()
	if err != nil {
		t.Skip(err)
	}
	built, err := build(cxx, common+" -O2 -g -fvisibility=hidden -Wl,-Bsymbolic", "cudnn.cc", map[string]string{"cudnn.cc": read("cudnn.cc")}) // NVIDIA's may be loaded too
	if err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile(built)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "libcudnn.so.9")
	if err := os.WriteFile(path, image, 0o755); err != nil {
		t.Fatal(err)
	}
	lib, err := dl.Open(path, false)
	if err != nil {
		t.Fatal(err)
	}
	dl.Call(lib.Symbol("emulator_dnn"), driver.Symbol("cuLaunchHostFunc"))
	return &DNN{lib}
}

// Support sets the algorithms that it has, a bit each; at first it has STANDARD, 0, alone.
func (d *DNN) Support(algos int) { dl.Call(d.Symbol("emulator_dnn_support"), uintptr(algos)) }

// Passes returns how many forward passes an algorithm has done since the last call.
func (d *DNN) Passes(algo int) int {
	return int(dl.Call(d.Symbol("emulator_dnn_passes"), uintptr(algo)))
}
