//go:build dl && linux

package cuda

import (
	"testing"

	"github.com/carousel-ml/carousel/internal/device/devicetest"
)

func TestScanForward(t *testing.T)  { devicetest.Run(t, emulated(t, Options{}), "ScanForward") }
func TestScanGradient(t *testing.T) { devicetest.Run(t, emulated(t, Options{}), "ScanGradient") }
func TestScanLaws(t *testing.T)     { devicetest.Run(t, emulated(t, Options{}), "ScanLaws") }
func TestScanGains(t *testing.T)    { devicetest.Run(t, emulated(t, Options{}), "ScanGains") }
