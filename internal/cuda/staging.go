//go:build dl && linux

package cuda

import (
	"unsafe"

	"github.com/carousel-ml/carousel/internal/dl"
)

// staging is pinned memory of the host, through which small arrays go to the device:
// kernels read it. It is a ring of pages, each with an event that tells when the
// device has read it.
type staging struct {
	pages [4]page
	at    int // the page in use
	used  int // bytes of it
}

type page struct {
	addr  uintptr
	event uintptr
	busy  bool // the event was recorded
}

const (
	pageBytes    = 4 << 20
	largestStage = 1 << 20 // what is larger is copied by the driver
)

func (s *staging) open(b *Backend) {
	b.enter()
	defer b.leave()
	for i := range s.pages {
		p := &s.pages[i]
		b.must("cuMemHostAlloc", dl.Call(b.d.memHostAlloc, uintptr(unsafe.Pointer(&p.addr)), pageBytes, hostMapped))
		b.must("cuEventCreate", dl.Call(b.d.eventCreate, uintptr(unsafe.Pointer(&p.event)), eventNoTiming))
	}
}

// put copies an array to the page in use and returns where it is; 0 if it is too large.
func (s *staging) put(b *Backend, src unsafe.Pointer, bytes int) uintptr {
	if bytes > largestStage {
		return 0
	}
	if s.used+bytes > pageBytes {
		b.flush()
		p := &s.pages[s.at]
		b.must("cuEventRecord", dl.Call(b.d.eventRecord, p.event, b.stream))
		p.busy = true
		s.at, s.used = (s.at+1)%len(s.pages), 0
		if p = &s.pages[s.at]; p.busy {
			b.must("cuEventSynchronize", dl.Call(b.d.eventSynchronize, p.event))
			p.busy = false
		}
	}
	addr := s.pages[s.at].addr + uintptr(s.used)
	copy(unsafe.Slice((*byte)(pointer(addr)), bytes), unsafe.Slice((*byte)(src), bytes))
	s.used += (bytes + 63) &^ 63
	return addr
}

// pointer makes a pointer of an address that is not Go's.
func pointer(addr uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&addr)) }
