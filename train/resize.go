package train

import "slices"

// Resize returns a slice of n elements in the memory of s if it is large enough,
// else in new memory. The elements have any values: clear them or write each. It
// serves the Load of a [Job], which fills the same batch again and again.
func Resize[T any](s []T, n int) []T { return slices.Grow(s[:0], n)[:n] }
