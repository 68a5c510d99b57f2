//go:build !amd64 || purego

package simd

func machineProbe(string) (Probe, bool) { return Probe{}, false }
