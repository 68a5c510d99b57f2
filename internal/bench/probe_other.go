//go:build !amd64 || purego

package bench

func machineProbe(string) (probe, bool) { return probe{}, false }
