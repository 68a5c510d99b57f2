//go:build !dl || !linux

package cuda

import (
	"errors"
	"runtime"

	"github.com/carousel-ml/carousel/internal/device"
)

// Open fails: this build cannot load CUDA's libraries.
func Open(int, Options) (device.Backend, error) { return nil, errStatic() }

// Look fails in the same way.
func Look() (*Setup, error) { return &Setup{}, errStatic() }

func errStatic() error {
	if runtime.GOOS != "linux" {
		return errors.New("CUDA is used on Linux only: train there, or use --device cpu")
	}
	return errors.New("this binary is static and cannot load CUDA: use carousel-dl (make build-dl), or --device cpu")
}
