//go:build dl && linux

package cuda

import (
	"embed"
	"fmt"
	"unsafe"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/dl"
)

//go:embed kernels/*.cu
var sources embed.FS

// kernel is a function of a file of kernels, compiled with macros such as "CELL=2 KEEP=1".
type kernel struct{ file, name, macros string }

// module is a file of kernels compiled with macros.
type module struct{ file, macros string }

// compiler makes what cuModuleLoadData takes from a source.
type compiler interface {
	compile(file, source, macros string, arch int) ([]byte, error)
}

// commons are the files that stand before others, beside the prelude.
var commons = map[string][]string{"scan": {"cells", "product"}, "scan_grad": {"cells", "product"}}

// source returns a file of kernels with what is before it.
func source(file string) (all string) {
	for _, name := range append(append([]string{"prelude"}, commons[file]...), file) {
		text, err := sources.ReadFile("kernels/" + name + ".cu")
		if err != nil {
			panic(err)
		}
		all += "#line 1 \"" + name + ".cu\"\n" + string(text)
	}
	return all
}

// function returns a kernel, which is compiled when it is needed first. b is entered.
func (b *Backend) function(k kernel) *function {
	if fn := b.functions[k]; fn != nil {
		return fn
	}
	m := module{k.file, k.macros}
	loaded, ok := b.modules[m]
	if !ok {
		image, err := b.nvrtc.compile(k.file, source(k.file), k.macros, b.limits.arch)
		if err != nil {
			panic(&device.Error{Device: b.title(), Text: fmt.Sprintf("%s.cu with %q does not compile: %v", k.file, k.macros, err)})
		}
		b.must("cuModuleLoadData("+k.file+")", dl.Call(b.d.moduleLoadData, uintptr(unsafe.Pointer(&loaded)), uintptr(unsafe.Pointer(&image[0]))))
		b.modules[m] = loaded
	}
	name := append([]byte(k.name), 0)
	fn := &function{number: uint64(len(b.functions)) + 1}
	b.must("cuModuleGetFunction("+k.name+")", dl.Call(b.d.moduleGetFunction, uintptr(unsafe.Pointer(&fn.handle)), loaded, uintptr(unsafe.Pointer(&name[0]))))
	b.functions[k] = fn
	return fn
}
