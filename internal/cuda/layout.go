//go:build dl && linux

package cuda

// layout divides the temporary memory of one operation.
type layout struct {
	parts []*uintptr
	bytes int
}

// add reserves so many bytes, whose address p has once the layout is placed.
func (l *layout) add(p *uintptr, bytes int) {
	*p = uintptr(l.bytes)
	l.parts = append(l.parts, p)
	l.bytes += (bytes + 255) &^ 255
}

// place asks for the memory; b is entered.
func (l *layout) place(b *Backend) {
	addr := b.work(l.bytes)
	for _, p := range l.parts {
		*p += addr
	}
}
