package dist

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// small is the length up to which the caller of Exchange moves bytes itself. It
// never waits for a reader: a socket's buffers hold more, and what was sent in
// calls before has been read.
const small = 4096

// headLen is the length of the header that precedes a rank's bytes of a call:
// their number times 2^16, plus the number of the call modulo 2^16. It shows
// ranks that do not make the same calls.
const headLen = 8

// link is the connection that carries the bytes of Exchange between this rank
// and a peer, with one goroutine for each direction.
type link struct {
	t       *tcp
	p       *peer
	conn    *net.TCPConn
	r       *bufio.Reader
	in, out chan []byte // parts of an Exchange

	got  [headLen]byte
	said [headLen + small]byte
	two  [2][]byte
	rest net.Buffers
}

// newLink starts the goroutines of a link.
func newLink(t *tcp, p *peer, c *net.TCPConn) *link {
	l := &link{t: t, p: p, conn: c, r: bufio.NewReaderSize(c, 16<<10), in: make(chan []byte, 1), out: make(chan []byte, 1)}
	work := func(parts chan []byte, do func([]byte)) {
		t.running.Go(func() {
			for b := range parts {
				do(b)
				t.pending.Done()
			}
		})
	}
	work(l.in, l.receive)
	work(l.out, l.send)
	return l
}

// close ends the link; no Exchange is running.
func (l *link) close() {
	l.conn.Close()
	close(l.in)
	close(l.out)
}

// Exchange sends and receives the bytes of a call; see [Transport].
func (t *tcp) Exchange(send, recv [][]byte) error {
	if err := t.failure(); err != nil {
		return err
	}
	t.call++
	for r, p := range t.peers {
		if p == nil {
			continue
		}
		if b := recv[r]; len(b) > small {
			t.pending.Add(1)
			p.link.in <- b
		}
		if b := send[r]; len(b) > small {
			t.pending.Add(1)
			p.link.out <- b
		}
	}
	for i := 1; i < t.size; i++ { // not all ranks to the same one first
		r := (t.rank + i) % t.size
		if b := send[r]; len(b) > 0 && len(b) <= small {
			t.peers[r].link.send(b)
		}
	}
	for r, p := range t.peers {
		if p != nil && len(recv[r]) > 0 && len(recv[r]) <= small {
			p.link.receive(recv[r])
		}
	}
	t.pending.Wait()
	return t.failure()
}

// send writes a call's bytes. A failure ends the job.
func (l *link) send(b []byte) {
	binary.LittleEndian.PutUint64(l.said[:], uint64(len(b))<<16|uint64(l.t.call))
	var err error
	if len(b) <= small {
		_, err = l.conn.Write(l.said[:headLen+copy(l.said[headLen:], b)])
	} else {
		l.two = [2][]byte{l.said[:headLen], b}
		l.rest = l.two[:]
		_, err = l.rest.WriteTo(l.conn)
	}
	if err != nil {
		l.broken(err)
	}
}

// receive reads a call's bytes. A failure ends the job.
func (l *link) receive(b []byte) {
	if _, err := io.ReadFull(l.r, l.got[:]); err != nil {
		l.broken(err)
		return
	}
	head := binary.LittleEndian.Uint64(l.got[:])
	if n := head >> 16; n != uint64(len(b)) || uint16(head) != l.t.call {
		l.t.fail(&RankError{l.p.rank, fmt.Sprintf("at %s sends %d bytes where rank %d expects %d (calls %d and %d, modulo 65536): the ranks do not run alike", l.p.where, n, l.t.rank, len(b), uint16(head), l.t.call)})
		return
	}
	if _, err := io.ReadFull(l.r, b); err != nil {
		l.broken(err)
	}
}

// broken ends the job because the link fails. Whose fault it is comes over the
// control connections, which get the time for it: a rank that ends because of
// another one has said so there.
func (l *link) broken(err error) {
	select {
	case <-l.t.done:
		return
	case <-l.p.left:
		l.t.fail(&RankError{l.p.rank, fmt.Sprintf("at %s has left the job while rank %d still works: the ranks do not run alike", l.p.where, l.t.rank)})
		return
	case <-time.After(graceTime):
	}
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, io.EOF) {
		err = errors.New("it was closed")
	}
	l.t.fail(lost(l.p, fmt.Sprintf("its connection for data broke: %v", err)))
}
