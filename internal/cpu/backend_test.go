package cpu

import (
	"testing"

	"github.com/carousel-ml/carousel/internal/device/devicetest"
	"github.com/carousel-ml/carousel/internal/simd"
)

func TestBackend(t *testing.T) {
	for _, set := range simd.Sets() {
		t.Run(set.Name, func(t *testing.T) { devicetest.Run(t, New(set)) })
	}
}
