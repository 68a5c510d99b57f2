//go:build !purego

package simd

func moreByteForms(forms map[string]byteForm) {
	for k := range byteKernels {
		if k.runs() {
			_, cols := k.shape()
			forms["kernel "+string('0'+rune(k))] = byteForm{cols, k.weights()}
		}
	}
}
