//go:build !amd64 || purego

package simd

func moreByteForms(map[string]byteForm) {}
