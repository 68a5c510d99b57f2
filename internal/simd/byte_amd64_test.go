//go:build !purego

package simd

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

func moreByteForms(forms map[string]byteForm) {
	for k := range byteKernels {
		if k.runs() {
			_, cols := k.shape()
			forms[fmt.Sprintf("kernel%d", k)] = byteForm{cols, k.weights()}
		}
	}
}

// Operands as every kernel takes them, also those that do not run here, have the sums of the
// reference's: rows plus 128 meet panels that begin with what this adds too much.
func TestByteOperands(t *testing.T) {
	if !hasAVX2() {
		t.Skip("no kernel runs here")
	}
	const m, n, k = 3, 40, 70
	r := rand.New(rand.NewPCG(65, 66))
	a, w := normals(r, make([]float32, m*k)), normals(r, make([]float32, n*k))
	signed := make([]int8, m*ByteDepth(k))
	scale, want := make([]float32, m), make([]float32, m)
	for _, turned := range []bool{false, true} {
		rs, cs := k, 1
		if turned {
			rs, cs = 1, m
		}
		byteRowsGeneric(signed, want, a, m, k, rs, cs)
		for kernel := range byteKernels {
			_, nr := kernel.shape()
			f := byteForm{nr, kernel.weights()}
			rows := make([]int8, len(signed))
			f.Products.Rows(rows, scale, a, m, k, rs, cs)
			if !slices.Equal(scale, want) {
				t.Fatalf("kernel %d: scales %v, want %v", kernel, scale, want)
			}
			if !turned {
				left, wantLeft := make([]float32, m*k), make([]float32, m*k)
				f.Products.Residual(left, rows, scale, a, m, k, rs)
				bytesGeneric(nr).Residual(wantLeft, signed, want, a, m, k, rs)
				if !sameBits(left, wantLeft) {
					t.Fatalf("kernel %d: rounding left %v, want %v", kernel, left, wantLeft)
				}
			}
			panels, _, pitch := encodePanels(t, f, w, n, k)
			reference, _, size := encodePanels(t, byteForm{nr, byteWeights(nr, false, nil)}, w, n, k)
			for i := range m {
				for j := range n {
					exact := int32(0)
					head := panels[j/nr*pitch+j%nr*4:]
					sum := int32(uint8(head[0])) | int32(uint8(head[1]))<<8 | int32(uint8(head[2]))<<16 | int32(head[3])<<24
					for q := range ByteDepth(k) {
						at := 4*nr + q/4*4*nr + j%nr*4 + q%4
						x := int32(rows[i*ByteDepth(k)+q])
						if kernel.unsigned() {
							x &= 255
						}
						sum += x * int32(panels[j/nr*pitch+at])
						exact += int32(signed[i*ByteDepth(k)+q]) * int32(reference[j/nr*size+at])
					}
					if sum != exact {
						t.Fatalf("kernel %d, turned %v: sum %d,%d is %d, want %d", kernel, turned, i, j, sum, exact)
					}
				}
			}
		}
	}
}
