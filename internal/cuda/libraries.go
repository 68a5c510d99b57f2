//go:build dl && linux

package cuda

import (
	"fmt"
	"strings"
	"unsafe"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/dl"
)

// libraries are NVIDIA's, beside the driver and NVRTC; each may be absent.
type libraries struct {
	blaslt *dl.Library
	cudnn  *dl.Library
}

// open loads cuBLASLt and cuDNN of a family, that of CUDA 12 or 13: libraries of
// different families do not go together.
func (l *libraries) open(s *search, family int, setup *Setup) {
	s.open(fmt.Sprintf("libcublasLt.so.%d", family), func(lib *dl.Library, path string) error {
		v := version(lib, "cublasLtGetVersion")
		l.blaslt = lib
		setup.Libraries = append(setup.Libraries, Library{"cuBLASLt", fmt.Sprintf("%d.%d.%d", v/10000, v/100%100, v%100), path})
		return nil
	})
	if l.blaslt == nil {
		s.note("cuBLASLt was not found: products run on kernels of Carousel's own")
	}
	// cuDNN asks for this one by its name, so it must be loaded.
	s.open(fmt.Sprintf("libcublas.so.%d", family), func(*dl.Library, string) error { return nil })
	s.open("libcudnn.so.9", func(lib *dl.Library, path string) error {
		if of := version(lib, "cudnnGetCudartVersion") / 1000; of != family {
			return fmt.Errorf("belongs to CUDA %d, and the other libraries to CUDA %d", of, family)
		}
		v := version(lib, "cudnnGetVersion")
		l.cudnn = lib
		setup.Libraries = append(setup.Libraries, Library{"cuDNN", fmt.Sprintf("%d.%d.%d", v/10000, v/100%100, v%100), path})
		return nil
	})
	if l.cudnn == nil {
		s.note("cuDNN was not found: LSTM, GRU and RNN layers run on kernels of Carousel's own")
	}
}

// version calls a function without arguments whose result is a number; 0 if there is none.
func version(lib *dl.Library, name string) int {
	f := lib.Symbol(name)
	if f == 0 {
		return 0
	}
	return int(dl.Call(f))
}

// failure is what a failed call of a library panics with: its words for a status, and
// those about the last error on this thread where it has some.
func (l *libraries) failure(b *Backend, what string, result int32) any {
	text := fmt.Sprintf("status %d", result)
	var words func(status int32) string
	switch {
	case strings.HasPrefix(what, "cublas") && l.blaslt != nil:
		if l.blaslt.Functions(map[string]any{"cublasLtGetStatusString": &words}) == nil {
			text = dl.OneLine(words(result))
		}
	case strings.HasPrefix(what, "cudnn") && l.cudnn != nil:
		if l.cudnn.Functions(map[string]any{"cudnnGetErrorString": &words}) == nil {
			text = dl.OneLine(words(result))
		}
		if f := l.cudnn.Symbol("cudnnGetLastErrorString"); f != 0 {
			var last [512]byte
			dl.Call(f, uintptr(unsafe.Pointer(&last[0])), uintptr(len(last)-1))
			if more := dl.OneLine(dl.Text(&last[0])); more != "" {
				text += " (" + more + ")"
			}
		}
	}
	return &device.Error{Device: b.title(), Text: what + ": " + text + "; --deterministic computes without this library"}
}
