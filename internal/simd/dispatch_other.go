//go:build !amd64 || purego

package simd

func machineSets() []*Set { return nil }
