//go:build dl && linux

package cuda

// variants lists the macros with which a file of kernels is compiled, other than none at all,
// so that a test compiles each: by the file's name.
var variants = map[string][]string{}
