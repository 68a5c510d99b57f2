package dist

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Options are what of a job's connections may be chosen, the same on all ranks.
// Zero values mean the defaults.
type Options struct {
	// Wait is how long rank 0 waits for the others at the start, and every rank
	// until it reaches another; 5 minutes by default.
	Wait time.Duration

	// Silence is how long nothing is heard of a rank until it counts as lost; 10
	// seconds by default. Ranks send a sign of life in each tenth of it, also
	// while they compute.
	Silence time.Duration

	// Note is called with what a user should know though the job continues, one
	// line each, from any goroutine; nil drops it.
	Note func(line string)
}

// RankError is why a job ended.
type RankError struct {
	Rank    int    // whose fault it is
	Problem string // "ended the job: ...", "is lost: ..."
}

func (e *RankError) Error() string { return fmt.Sprintf("rank %d %s", e.Rank, e.Problem) }

// tcp is a Transport over TCP: a full mesh with two connections between each
// pair of ranks, of which the higher one dials. One carries the bytes of
// Exchange, the other, control, signs of life and the end of the job.
type tcp struct {
	rank, size int
	secret     []byte
	silence    time.Duration
	note       func(string)
	noted      sync.Once // a stranger

	listener net.Listener
	tables   chan string   // from rank 0
	done     chan struct{} // closed when the job has failed
	ended    chan struct{} // closed when the connections end
	running  sync.WaitGroup
	watching sync.WaitGroup

	mu      sync.Mutex
	changed sync.Cond  // a connection was added, or the job has failed
	peers   []*peer    // by rank, nil for this one
	cause   *RankError // of the job's failure
	refused string     // the last dialer that was refused, for messages
	started bool       // all ranks have met
	closed  bool

	call    uint16         // number of the Exchange
	pending sync.WaitGroup // parts of an Exchange that links have
}

// peer is another rank. Its fields are set once, under mu of tcp.
type peer struct {
	rank    int
	where   string // its address
	coming  map[byte]bool
	control *net.TCPConn
	link    *link
	left    chan struct{} // closed after its last call
	leave   sync.Once

	sending sync.Mutex
	out     []byte // a message, in its wire format
}

const (
	handshakeTime = 10 * time.Second // from a connection to its verdict
	dialTime      = 5 * time.Second  // of one attempt
	controlTime   = time.Second      // for a message of some bytes to a socket that is empty
	graceTime     = 2 * time.Second  // from a broken link to news of its rank
	handshakes    = 256              // at the same time
)

// Connect meets the other ranks of p's job over TCP and returns when it is
// connected with all of them; p.Size is at least 2.
//
// Rank 0 listens at p.Address, on all interfaces unless the host is this machine
// (localhost, 127.0.0.1, ::1). The others dial it until it is there, and listen
// on ports of the system's choice, whose addresses rank 0 hands out. Nothing but
// the handshake is believed from a connection that has not proved p.Secret; what
// fails is dropped, noted once, and does no harm. Bytes are neither encrypted nor
// signed after that: the network has to be trusted. Proxies of the environment
// are not used.
//
// When a rank dies, Abort is called or nothing is heard of one for o.Silence, the
// calls of all ranks fail with the same *RankError, which names it: the first to
// notice tells the others. A rank that computes for long is not lost. Errors of
// Connect itself are *RankError too, and otherwise one line that says which ranks
// are missing, where, and how to correct it. A rank whose number has already come,
// or that counts the ranks otherwise, is refused. ctx ends the wait only.
func Connect(ctx context.Context, p *Place, o *Options) (Transport, error) {
	if o == nil {
		o = &Options{}
	}
	if p.Size < 2 || p.Rank < 0 || p.Rank >= p.Size {
		return nil, fmt.Errorf("rank %d of %d ranks: a job over TCP has at least 2, numbered from 0", p.Rank, p.Size)
	}
	if len(p.Secret) == 0 {
		return nil, errors.New("ranks that meet over TCP need a common secret: set CAROUSEL_SECRET to the same text on all of them")
	}
	if _, _, err := net.SplitHostPort(p.Address); err != nil {
		return nil, fmt.Errorf("address of rank 0: %q: expected host:port", p.Address)
	}
	t := &tcp{
		rank: p.Rank, size: p.Size, secret: p.Secret, silence: o.Silence, note: o.Note,
		tables: make(chan string, 1), done: make(chan struct{}), ended: make(chan struct{}),
		peers: make([]*peer, p.Size),
	}
	if t.silence == 0 {
		t.silence = 10 * time.Second
	}
	if t.note == nil {
		t.note = func(string) {}
	}
	t.changed.L = &t.mu
	for r := range t.peers {
		if r != t.rank {
			t.peers[r] = &peer{rank: r, coming: map[byte]bool{}, left: make(chan struct{})}
		}
	}
	wait := o.Wait
	if wait == 0 {
		wait = 5 * time.Minute
	}
	t.running.Go(t.beat)
	if err := t.meet(ctx, p, wait); err != nil {
		t.Abort(err)
		t.end()
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.started = true
	return t, nil
}

// meet connects this rank with all others.
func (t *tcp) meet(ctx context.Context, p *Place, wait time.Duration) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-t.done:
			cancel(t.failure())
		case <-ctx.Done():
		}
	}()
	if t.rank == 0 {
		return t.host(ctx, p.Address, wait)
	}

	err := t.dial(ctx, p.Address, hello{kind: control, to: 0}, wait, func(c net.Conn) (err error) {
		if t.listener != nil {
			t.listener.Close() // of an attempt that failed
		}
		host := "" // all interfaces
		if own := c.LocalAddr().(*net.TCPAddr); !own.IP.IsLoopback() || isLocal(p.Address) {
			host = (&net.IPAddr{IP: own.IP, Zone: own.Zone}).String()
		}
		t.listener, err = net.Listen("tcp", net.JoinHostPort(host, "0"))
		return err
	})
	if err != nil {
		return err
	}
	t.running.Go(t.serve)
	var addresses []string
	select {
	case text := <-t.tables:
		addresses = append([]string{p.Address}, strings.Split(text, " ")...)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if len(addresses) != t.size {
		return fmt.Errorf("rank 0 hands out %d addresses for %d ranks", len(addresses), t.size)
	}
	for r, address := range addresses[:t.rank] {
		if r > 0 {
			if err := t.dial(ctx, address, hello{kind: control, to: r}, wait, nil); err != nil {
				return err
			}
		}
		if err := t.dial(ctx, address, hello{kind: data, to: r}, wait, nil); err != nil {
			return err
		}
	}
	// A rank that cannot reach this one ends the job itself.
	return t.await(ctx, linked)
}

// host is what rank 0 does in meet.
func (t *tcp) host(ctx context.Context, address string, wait time.Duration) error {
	at := address
	if _, port, _ := net.SplitHostPort(address); !isLocal(address) {
		at = net.JoinHostPort("", port)
	}
	var err error
	if t.listener, err = net.Listen("tcp", at); err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("rank 0 cannot listen at %s: another program or job has the port; choose another one for this job", address)
		}
		return fmt.Errorf("rank 0 cannot listen at %s: %w", address, err)
	}
	t.running.Go(t.serve)
	late, stop := context.WithTimeout(ctx, wait)
	defer stop()
	defer time.AfterFunc(noteAfter(wait), func() {
		if ranks := t.missing(met); ranks != nil {
			t.note(fmt.Sprintf("rank 0 waits at %s for %s of %d", address, listRanks(ranks), t.size))
		}
	}).Stop()
	arrive := func(with func(p *peer) bool) error {
		err := t.await(late, with)
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return err
		}
		ranks, why := t.missing(with), ""
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.refused != "" {
			why = "; the last that was refused: " + t.refused
		}
		return fmt.Errorf("%s of %d did not come to rank 0 at %s within %v: start all ranks, where they reach this address and port%s", listRanks(ranks), t.size, address, wait, why)
	}
	if err := arrive(met); err != nil {
		return err
	}
	for _, p := range t.peers[1:] {
		t.say(p, message{kind: table, text: t.tableFor(p)})
	}
	return arrive(linked)
}

// noteAfter is how long a rank waits for others before it notes that.
func noteAfter(wait time.Duration) time.Duration { return min(3*time.Second, wait/2) }

// What Connect waits for: the connections of a peer.
func met(p *peer) bool    { return p.control != nil }
func linked(p *peer) bool { return p.control != nil && p.link != nil }

// missing returns the ranks that have not arrived.
func (t *tcp) missing(arrived func(p *peer) bool) []int {
	t.mu.Lock()
	defer t.mu.Unlock()
	var ranks []int
	for r, p := range t.peers {
		if p != nil && !arrived(p) {
			ranks = append(ranks, r)
		}
	}
	return ranks
}

// await waits until all peers have what is asked for.
func (t *tcp) await(ctx context.Context, arrived func(p *peer) bool) error {
	defer context.AfterFunc(ctx, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.changed.Broadcast()
	})()
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		switch {
		case t.cause != nil:
			return t.cause
		case !slices.ContainsFunc(t.peers, func(p *peer) bool { return p != nil && !arrived(p) }):
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		t.changed.Wait()
	}
}

// tableFor returns where p reaches the ranks from 1 on. Those of rank 0's own
// machine may have come over its loopback; p reaches them where it reaches rank 0.
func (t *tcp) tableFor(p *peer) string {
	var addresses []string
	for _, other := range t.peers[1:] {
		at := netip.MustParseAddrPort(other.where)
		if at.Addr().IsLoopback() {
			here := p.control.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
			at = netip.AddrPortFrom(here, at.Port())
		}
		addresses = append(addresses, at.String())
	}
	return strings.Join(addresses, " ")
}

// isLocal reports whether an address is one of this machine alone.
func isLocal(address string) bool {
	host, _, _ := net.SplitHostPort(address)
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

// listRanks writes ranks: "rank 3", "ranks 1, 2 and 5".
func listRanks(ranks []int) string {
	var s strings.Builder
	s.WriteString("rank")
	if len(ranks) > 1 {
		s.WriteString("s")
	}
	for i, r := range ranks {
		switch {
		case i > 0 && i == len(ranks)-1:
			s.WriteString(" and")
		case i > 0:
			s.WriteString(",")
		}
		s.WriteString(" " + strconv.Itoa(r))
	}
	return s.String()
}

// dial connects with another rank, whose listener may not be there yet. open is
// called for each connection before the handshake.
func (t *tcp) dial(ctx context.Context, address string, h hello, wait time.Duration, open func(c net.Conn) error) error {
	h.size, h.from = t.size, t.rank
	end, noteAt := time.Now().Add(wait), time.Now().Add(noteAfter(wait))
	var dialer net.Dialer
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := func() error {
			attempt, stop := context.WithTimeout(ctx, dialTime)
			defer stop()
			c, err := dialer.DialContext(attempt, "tcp", address)
			if err != nil {
				return err
			}
			c.SetDeadline(time.Now().Add(handshakeTime))
			defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Now()) })()
			if open != nil {
				err = open(c)
			}
			if err == nil {
				h.port = t.listener.Addr().(*net.TCPAddr).Port
				err = greet(c, t.secret, h)
			}
			if err == nil {
				err = t.add(t.peers[h.to], c.(*net.TCPConn), h.kind, address)
			}
			if err != nil {
				c.Close()
			}
			return err
		}()
		if err == nil {
			return nil
		}
		if failed := t.failure(); failed != nil {
			return failed
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var why refusal
		var other versionError
		if errors.As(err, &why) || errors.As(err, &other) {
			return fmt.Errorf("rank %d at %s refuses rank %d: %w", h.to, address, t.rank, err)
		}
		var broken net.Error
		if !errors.As(err, &broken) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) { // it answers, but not as a rank of this job
			t.stranger(fmt.Sprintf("at %s, where rank %d expects rank %d, another answers: %v", address, t.rank, h.to, err), 0)
		}
		if !noteAt.IsZero() && time.Now().After(noteAt) {
			noteAt = time.Time{}
			t.note(fmt.Sprintf("rank %d waits for rank %d at %s (%v)", t.rank, h.to, address, err))
		}
		if time.Now().Add(pause).After(end) {
			return fmt.Errorf("rank %d did not reach rank %d at %s within %v: start all ranks, and open the ports between their machines (last error: %w)", t.rank, h.to, address, wait, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// stranger notes, once, what is no part of the job, unless the job fails within the time of
// patience: its own ranks then leave in the middle of a handshake.
func (t *tcp) stranger(line string, patience time.Duration) {
	t.mu.Lock()
	t.refused = line
	t.mu.Unlock()
	if patience > 0 {
		select {
		case <-t.done:
		case <-t.ended:
		case <-time.After(patience):
		}
	}
	if t.failure() == nil {
		t.noted.Do(func() { t.note(line) })
	}
}

// serve answers what dials this rank, until the listener is closed: after the
// start only ranks too many, and strangers.
func (t *tcp) serve() {
	slots := make(chan struct{}, handshakes)
	for {
		c, err := t.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // too many open files: the next one may find room
			time.Sleep(10 * time.Millisecond)
			continue
		}
		select {
		case slots <- struct{}{}:
			t.running.Go(func() {
				t.welcome(c)
				<-slots
			})
		default:
			c.Close()
		}
	}
}

// welcome shakes hands with a dialer.
func (t *tcp) welcome(c net.Conn) {
	from := c.RemoteAddr().String()
	c.SetDeadline(time.Now().Add(handshakeTime))
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-t.ended:
			c.SetDeadline(time.Now())
		case <-stop:
		}
	}()
	h, err := answer(c, t.secret)
	if err != nil {
		c.Close()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = errors.New("it says nothing")
		} else if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("it left without a word")
		}
		t.stranger(fmt.Sprintf("%s connected to rank %d and was dropped: %v", from, t.rank, err), graceTime)
		return
	}
	why, failed := t.admit(h, from)
	if why != "" {
		t.stranger(why, 0)
	}
	if judge(c, why) != nil || why != "" {
		c.Close()
		if failed != nil { // after the dialer has heard why
			t.fail(failed)
		}
		if why == "" { // the dialer did not hear it and will come again
			t.mu.Lock()
			t.peers[h.from].coming[h.kind] = false
			t.mu.Unlock()
		}
		return
	}
	remote := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	if t.add(t.peers[h.from], c.(*net.TCPConn), h.kind, netip.AddrPortFrom(remote, uint16(h.port)).String()) != nil {
		c.Close()
	}
}

// admit returns why a dialer that has proved the secret is refused, or reserves
// its place. failed is why the job cannot begin.
func (t *tcp) admit(h hello, from string) (why string, failed *RankError) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.cause != nil:
		return fmt.Sprintf("the job has ended: %v", t.cause), nil
	case h.to != t.rank:
		return fmt.Sprintf("this is rank %d, not %d", t.rank, h.to), nil
	case h.size != t.size:
		other := &RankError{h.from, fmt.Sprintf("at %s counts %d ranks, rank %d %d: start all with the same number", from, h.size, t.rank, t.size)}
		if t.started {
			return other.Error(), nil
		}
		return other.Error(), other
	case h.from <= t.rank || h.from >= t.size || h.kind != control && h.kind != data:
		return fmt.Sprintf("rank %d does not dial rank %d in a job of %d ranks", h.from, t.rank, t.size), nil
	}
	p := t.peers[h.from]
	if p.coming[h.kind] {
		at := p.where
		if at == "" {
			at = "another address"
		}
		return fmt.Sprintf("rank %d at %s is one too many, another has come from %s: give every process its own number", h.from, from, at), nil
	}
	p.coming[h.kind] = true
	return "", nil
}

// add gives a peer its connection. The error is the failure of the job.
func (t *tcp) add(p *peer, c *net.TCPConn, kind byte, where string) error {
	c.SetDeadline(time.Time{})
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cause != nil {
		return t.cause
	}
	if kind == control {
		p.control, p.where = c, where
		t.watching.Go(func() { t.watch(p) })
	} else {
		p.link = newLink(t, p, c)
	}
	t.changed.Broadcast()
	return nil
}

// Rank returns the number of this process.
func (t *tcp) Rank() int { return t.rank }

// Size returns the number of ranks.
func (t *tcp) Size() int { return t.size }

// Abort ends the job; see [Transport].
func (t *tcp) Abort(err error) {
	t.fail(&RankError{t.rank, "ended the job: " + err.Error()})
}

// lost is the failure of a peer.
func lost(p *peer, why string) *RankError {
	return &RankError{p.rank, fmt.Sprintf("at %s is lost: %s", p.where, why)}
}

// fail ends the job, unless it has failed, and returns when the others have been
// told: the process may end then.
func (t *tcp) fail(cause *RankError) {
	t.mu.Lock()
	if t.cause != nil {
		t.mu.Unlock()
		<-t.done
		return
	}
	t.cause = &RankError{cause.Rank, oneLine(cause.Problem)}
	t.changed.Broadcast()
	t.mu.Unlock()
	for _, p := range t.peers {
		t.say(p, message{abort, t.cause.Rank, t.cause.Problem})
	}
	close(t.done)
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.peers {
		if p != nil && p.link != nil {
			p.link.conn.SetDeadline(time.Unix(1, 0)) // ends the calls that wait
		}
	}
}

// failure returns why the job has failed, or nil.
func (t *tcp) failure() error {
	select {
	case <-t.done:
		return t.cause
	default:
		return nil
	}
}

// say sends a message to a peer, if it is connected. That it is lost shows when
// nothing is heard of it.
func (t *tcp) say(p *peer, m message) {
	if p == nil {
		return
	}
	t.mu.Lock()
	c := p.control
	t.mu.Unlock()
	if c == nil {
		return
	}
	p.sending.Lock()
	defer p.sending.Unlock()
	p.out = appendMessage(p.out[:0], m)
	c.SetWriteDeadline(time.Now().Add(controlTime))
	_, _ = c.Write(p.out)
}

// beat sends signs of life until the job ends.
func (t *tcp) beat() {
	tick := time.NewTicker(t.silence / 10)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			for _, p := range t.peers {
				t.say(p, message{kind: beat})
			}
		case <-t.done:
			return
		case <-t.ended:
			return
		}
	}
}

// watch reads the messages of a peer until its connection ends.
func (t *tcp) watch(p *peer) {
	r := bufio.NewReader(p.control)
	head := make([]byte, messageHead)
	silent := lost(p, fmt.Sprintf("nothing was heard of it for %v (it was stopped, or its machine or the network is down)", t.silence))
	for waits := 0; ; {
		// In two parts: after this process itself was stopped for long, what came
		// meanwhile is read in the second.
		p.control.SetReadDeadline(time.Now().Add(t.silence / 2))
		if _, err := r.Peek(1); errors.Is(err, os.ErrDeadlineExceeded) {
			if waits++; waits == 2 {
				t.fail(silent)
			}
			continue
		}
		waits = 0
		p.control.SetReadDeadline(time.Now().Add(t.silence))
		m, err := readMessage(r, head)
		if err != nil {
			why := lost(p, "its connection ended (it was killed, or ended without a word)")
			if errors.Is(err, os.ErrDeadlineExceeded) {
				why = silent
			}
			select {
			case <-p.left:
			case <-t.ended:
			default:
				t.fail(why)
			}
			return
		}
		switch m.kind {
		case abort:
			t.fail(&RankError{m.rank, m.text})
		case bye:
			p.leave.Do(func() { close(p.left) })
		case table:
			select {
			case t.tables <- m.text:
			default:
			}
		}
	}
}

// Close ends the connections when all ranks have called it; see [Transport].
func (t *tcp) Close() error {
	for _, p := range t.peers {
		if p != nil && t.failure() == nil {
			t.say(p, message{kind: bye})
			p.link.conn.CloseWrite() // who still waits for bytes learns that none will come
		}
	}
	for _, p := range t.peers {
		if p == nil {
			continue
		}
		select {
		case <-p.left:
		case <-t.done:
		}
	}
	t.end()
	return t.failure()
}

// end closes the connections.
func (t *tcp) end() {
	t.mu.Lock()
	closed, failed := t.closed, t.cause != nil
	t.closed = true
	t.mu.Unlock()
	if closed {
		return
	}
	if failed {
		<-t.done // the others have been told
	}
	close(t.ended)
	if t.listener != nil {
		t.listener.Close()
	}
	// A socket that is closed before everything was read may discard what was sent:
	// wait for the others, which end too, and read until then.
	for _, p := range t.peers {
		if p != nil && p.control != nil {
			p.control.CloseWrite()
		}
	}
	read := make(chan struct{})
	go func() {
		t.watching.Wait()
		close(read)
	}()
	select {
	case <-read:
	case <-time.After(controlTime):
	}
	for _, p := range t.peers {
		if p != nil && p.control != nil {
			p.control.Close()
		}
		if p != nil && p.link != nil {
			p.link.close()
		}
	}
	t.watching.Wait()
	t.running.Wait()
}
