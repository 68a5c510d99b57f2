//go:build dl && linux

package cuda

// libraries are NVIDIA's, beside the driver; each may be absent.
type libraries struct {
}

// failure is what a failed call of a library panics with.
func (l *libraries) failure(b *Backend, what string, result int32) any { panic("not yet") }
