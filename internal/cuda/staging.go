//go:build dl && linux

package cuda

import (
	"unsafe"

	"github.com/carousel-ml/carousel/internal/dl"
)

// staging is pinned memory of the host, through which arrays go to the device: kernels read
// it, so the host need not wait. It is a ring of pages, each with an event that tells when the
// device has read it.
type staging struct {
	pages [4]page
	at    int // the page in use
	used  int // bytes of it
}

type page struct {
	addr  uintptr
	bytes int
	event uintptr
	full  bool // kernels that are still queued read it, and the event is to be recorded after them
	busy  bool // the event was recorded
}

const (
	pageBytes    = 4 << 20  // of a page before something larger comes
	largestStage = 64 << 20 // what is larger is copied by the driver
)

func (s *staging) open(b *Backend) {
	b.enter()
	defer b.leave()
	for i := range s.pages {
		p := &s.pages[i]
		p.grow(b, pageBytes)
		b.must("cuEventCreate", dl.Call(b.d.eventCreate, uintptr(unsafe.Pointer(&p.event)), eventNoTiming))
	}
}

// grow makes a page that nobody reads larger.
func (p *page) grow(b *Backend, bytes int) {
	if p.addr != 0 {
		b.must("cuMemFreeHost", dl.Call(b.d.memFreeHost, p.addr))
		*p = page{event: p.event}
	}
	b.must("cuMemHostAlloc", dl.Call(b.d.memHostAlloc, uintptr(unsafe.Pointer(&p.addr)), uintptr(bytes), hostMapped))
	p.bytes = bytes
}

// put copies an array to the page in use and returns where it is; 0 if it is too large.
func (s *staging) put(b *Backend, src unsafe.Pointer, bytes int) uintptr {
	if bytes > largestStage {
		return 0
	}
	if s.used+bytes > s.pages[s.at].bytes {
		s.turn(b, bytes)
	}
	addr := s.pages[s.at].addr + uintptr(s.used)
	copy(unsafe.Slice((*byte)(pointer(addr)), bytes), unsafe.Slice((*byte)(src), bytes))
	s.used += (bytes + 63) &^ 63
	return addr
}

// turn goes on to the next page, which has room for so many bytes.
func (s *staging) turn(b *Backend, bytes int) {
	s.pages[s.at].full = true
	s.at, s.used = (s.at+1)%len(s.pages), 0
	p := &s.pages[s.at]
	if p.full {
		b.flush()
		s.launched(b)
	}
	if p.busy {
		b.must("cuEventSynchronize", dl.Call(b.d.eventSynchronize, p.event))
		p.busy = false
	}
	if bytes > p.bytes {
		p.grow(b, 2*bytes)
	}
}

// launched records the events of full pages, when the device was given all that reads them.
func (s *staging) launched(b *Backend) {
	for i := range s.pages {
		if p := &s.pages[i]; p.full {
			b.must("cuEventRecord", dl.Call(b.d.eventRecord, p.event, b.stream))
			p.full, p.busy = false, true
		}
	}
}

// pointer makes a pointer of an address that is not Go's.
func pointer(addr uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&addr)) }
