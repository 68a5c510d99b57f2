//go:build dl && linux

package cuda

// Emulated is emulated, for tests of packages above.
var Emulated = emulated
