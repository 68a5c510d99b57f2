//go:build !amd64

package simdtest

const watches = false

func flags() uint32 { return 0 }

func clearFlags() {}
