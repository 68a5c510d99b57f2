//go:build dl && linux

package cli

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/carousel-ml/carousel/internal/cuda/cudatest"
)

// TestCUDA runs scripts on a GPU that the CPU plays: the command as it is, with stand-ins for the
// driver and NVRTC.
func TestCUDA(t *testing.T) {
	dir := cudatest.Libraries(t)
	cache := t.TempDir() // of compiled kernels, for all scripts
	testscript.Run(t, testscript.Params{
		Dir: "testdata/cuda",
		Setup: func(e *testscript.Env) error {
			e.Setenv("CAROUSEL_CUDA_PATH", dir)
			e.Setenv("XDG_CACHE_HOME", cache)
			return nil
		},
	})
}
