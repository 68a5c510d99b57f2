package serve

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carousel-ml/carousel/serve/inference"
)

// connections are those of a server's listeners, which are limited in all and for each
// client.
type connections struct {
	mu      sync.Mutex
	open    int
	clients map[netip.Prefix]int // addresses but those of this machine

	refused [len(fullness)]atomic.Uint64 // by the places of fullness
	told    atomic.Int32                 // refused clients that are being answered
	lines   rate                         // of the log
}

// full is why a connection is refused.
type full int

const (
	notFull    full = iota - 1
	fullServer      // the server has as many as it may
	fullClient      // its client has
)

// fullness are the words of full in metrics.
var fullness = [...]string{"server", "client"}

// clientOf returns what an address's connections are counted for; ok is false for addresses
// of this machine, and of what is no network.
func clientOf(a net.Addr) (client netip.Prefix, ok bool) {
	at, is := a.(*net.TCPAddr)
	if !is {
		return client, false
	}
	addr := at.AddrPort().Addr().Unmap()
	if !addr.IsValid() || addr.IsLoopback() {
		return client, false
	}
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64 // of which a client usually has all
	}
	client, _ = addr.WithZone("").Prefix(bits) // whose bits fit
	return client, true
}

// enter counts a connection from an address, or says why there is no room for it.
func (c *connections) enter(l *Limits, a net.Addr) full {
	client, counts := clientOf(a)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.open >= l.Connections:
		return fullServer
	case counts && c.clients[client] >= l.ConnectionsPerClient:
		return fullClient
	}
	c.open++
	if counts {
		if c.clients == nil {
			c.clients = map[netip.Prefix]int{}
		}
		c.clients[client]++
	}
	return notFull
}

func (c *connections) leave(a net.Addr) {
	client, counts := clientOf(a)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open--
	if !counts {
		return
	}
	if c.clients[client]--; c.clients[client] == 0 {
		delete(c.clients, client)
	}
}

// count returns the number of connections that are open.
func (c *connections) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open
}

// limitedListener refuses connections beyond the server's limits.
type limitedListener struct {
	net.Listener
	s *Server
	// refuse ends a connection that is refused, and returns at once.
	refuse func(net.Conn, full)
}

// Accept returns the next connection that there is room for.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		why := l.s.connected.enter(l.s.limits(), c.RemoteAddr())
		if why == notFull {
			return &limitedConn{Conn: c, all: &l.s.connected}, nil
		}
		l.s.connected.refused[why].Add(1)
		if ok, left := l.s.connected.lines.allow(time.Now()); ok {
			l.s.log.Warn("a connection is refused", "reason", why.reason(l.s.limits()), "client", c.RemoteAddr().String(), "left_out", left)
		}
		l.refuse(c, why)
	}
}

func (f full) reason(l *Limits) string {
	if f == fullClient {
		return fmt.Sprintf("this client has %d connections, as many as it may; close some, or send more requests over each", l.ConnectionsPerClient)
	}
	return fmt.Sprintf("the server has %d connections, as many as it may; try again later, or send more requests over each", l.Connections)
}

// limitedConn is a connection that is counted until it is closed.
type limitedConn struct {
	net.Conn
	all  *connections
	gone atomic.Bool
}

// Close closes the connection, after which there is room for another.
func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	if !c.gone.Swap(true) {
		c.all.leave(c.RemoteAddr())
	}
	return err
}

// hangUp ends a refused connection without a word.
func hangUp(c net.Conn, _ full) { _ = c.Close() }

// Of refused clients so many are answered at a time, each for at most so long; further ones
// find their connection closed.
const (
	mostTold = 64
	tellTime = 500 * time.Millisecond
)

// decline answers a refused connection of plain HTTP with status 503.
func (s *Server) decline(c net.Conn, why full) {
	if s.connected.told.Add(1) > mostTold {
		s.connected.told.Add(-1)
		_ = c.Close()
		return
	}
	go func() {
		defer s.connected.told.Add(-1)
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(tellTime))
		body := inference.WriteError(inference.Errorf(inference.Unavailable, "%s", why.reason(s.limits())))
		_, err := fmt.Fprintf(c, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: %d\r\nRetry-After: 1\r\nConnection: close\r\n\r\n%s", len(body), body)
		if half, ok := c.(interface{ CloseWrite() error }); ok && err == nil && half.CloseWrite() == nil {
			_, _ = io.CopyN(io.Discard, c, 64<<10) // what it has sent: to close before would take the answer away from it
		}
	}()
}
