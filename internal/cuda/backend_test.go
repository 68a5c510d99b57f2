//go:build dl && linux

package cuda

import (
	"testing"

	"github.com/carousel-ml/carousel/internal/device/devicetest"
)

func TestGemm(t *testing.T) { devicetest.Run(t, emulated(t, Options{}), "Gemm") }
