//go:build dl && linux

package cuda

import (
	"fmt"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/device"
)

// variants lists the macros with which a file of kernels is compiled, so that a test compiles
// each: by the file's name. A file that is not here is compiled without any.
var variants = func() map[string][]string {
	list := map[string][]string{}
	for _, set := range []tileSet{plainTiles, tensorTiles} {
		for _, tiles := range [][]tile{set.any, set.rows, set.columns} {
			for _, t := range tiles {
				for kind, k := range t.kernels {
					alike := kind == int(device.INT8) || kind == int(device.FP16) // but for a line
					if k.file != "" && (!alike || t.m == t.n) {
						list[k.file] = append(list[k.file], k.macros)
					}
				}
			}
		}
	}
	// Of scans, whose combinations are many: each cell, each kind of products, each size of
	// tiles, and options.
	scan := func(macros string, args ...any) {
		for _, file := range []string{"scan", "scan_grad"} {
			list[file] = append(list[file], fmt.Sprintf(macros, args...))
		}
	}
	for kind := range cell.Custom {
		scan("CELL=%d KIND_R=0 KIND_P=0 ROWS=32 COLS=32 PLAIN=1", kind)
	}
	for _, kind := range []device.Kind{device.BF16, device.FP16} {
		scan("CELL=0 KIND_R=%d KIND_P=%[1]d ROWS=16 COLS=16", kind)
	}
	scan("CELL=0 KIND_R=%d KIND_P=%[1]d ROWS=32 COLS=16", tf32)
	for _, cols := range []int{8, 32} {
		scan("CELL=0 KIND_R=0 KIND_P=0 ROWS=8 COLS=%d", cols)
	}
	return list
}()
