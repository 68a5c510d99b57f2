//go:build dl && linux

package cuda

import (
	"os"
	"strconv"
	"testing"

	"github.com/carousel-ml/carousel/internal/device/devicetest"
)

// TestDevice runs the suite on the GPU whose number CAROUSEL_TEST_CUDA gives, with NVIDIA's
// libraries and with own kernels alone.
func TestDevice(t *testing.T) {
	text := os.Getenv("CAROUSEL_TEST_CUDA")
	if text == "" {
		t.Skip("needs a GPU: CAROUSEL_TEST_CUDA=0")
	}
	ordinal, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("CAROUSEL_TEST_CUDA=%s: want the number of a GPU", text)
	}
	for name, o := range map[string]Options{"own": {Deterministic: true}, "libraries": {}} {
		t.Run(name, func(t *testing.T) {
			b, err := Open(ordinal, o)
			if err != nil {
				t.Fatal(err)
			}
			t.Log(b.Name(), b.(*Backend).Notes())
			devicetest.Run(t, b)
		})
	}
}
