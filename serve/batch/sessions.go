package batch

import (
	"container/heap"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"time"

	"github.com/carousel-ml/carousel/serve/inference"
)

// Reason says why a session is over.
type Reason string

// The reasons. A session that a client ended itself is forgotten; of others the id is
// remembered for a while, so that the client is told.
const (
	Ended    Reason = "it was ended"
	Idle     Reason = "it was idle for longer than its time to live"
	Evicted  Reason = "it was the longest idle when the server needed room for another"
	Gone     Reason = "the connection that it belonged to was closed"
	Unloaded Reason = "its model was unloaded"
	Grown    Reason = "its state grew beyond the memory that the server has for sessions"
	Failed   Reason = "the model failed in one of its requests, so its state was lost"
	Stopped  Reason = "the server was stopped"
	Unstored Reason = "its state could not be stored"
)

// SessionOptions are the limits of [Sessions]; zeros are the defaults.
type SessionOptions struct {
	// Most is the number of sessions, Client that of one client, and Bytes the memory of
	// the states of all. 0: 100,000; no limit besides Most; 1 GiB.
	Most, Client int
	Bytes        int
	// Life is the time that a session may be idle if it does not say otherwise. 0: one minute.
	Life time.Duration
	// Spare is the time that a session must have been idle before it is ended to make room
	// for another; otherwise the new one is refused. 0: 30 seconds.
	Spare time.Duration
	// OnEnd, if not nil, is called when a session is over. It must not call the table.
	OnEnd func(s *Session, why Reason)
}

// Store keeps the states of sessions, so that they go on after the process has ended in
// whatever way. It is called by several goroutines, for one session by one at a time.
type Store interface {
	// Write writes a session's state, before the job that led to it is answered, beside what
	// is stored of it. saved returns the bytes of [Session.Save]. settle puts what was written
	// in that place, or, without keep, takes it away; it is called with the scheduler's lock
	// held, and is nil if there is nothing to store. With an error the session ends.
	Write(n *Session, saved func() ([]byte, error)) (settle func(keep bool) error, err error)
	// Drop removes a session that is over. The scheduler's lock is held.
	Drop(n *Session, why Reason)
}

// Sessions are the sessions of all models of a server. One of a name exists once for each
// model.
type Sessions struct {
	s       *Scheduler
	o       SessionOptions
	store   Store // nil: none
	all     map[sessionKey]*Session
	clients map[string]int
	peak    int // the largest number of sessions since the maps were made
	bytes   int
	expiry  expiries
	idle    ring // sessions without jobs, the longest idle first
	timer   *time.Timer
	due     time.Time // when the timer fires; zero: it is not set
	ended   map[sessionKey]Reason
	endings []sessionKey // the keys of ended in their order, a ring
	ending  int
}

type sessionKey struct{ model, id string }

const (
	rememberedEnds = 1024
	maxID          = 256 // bytes
)

// NewSessions returns an empty table for the queues of a scheduler.
func NewSessions(s *Scheduler, o SessionOptions) *Sessions {
	t := &Sessions{s: s, o: o.filled(), all: map[sessionKey]*Session{}, clients: map[string]int{}, ended: map[sessionKey]Reason{}}
	t.idle.prev, t.idle.next = &t.idle, &t.idle
	return t
}

// filled returns the limits with the defaults.
func (o SessionOptions) filled() SessionOptions {
	o.Most = either(o.Most, 100_000)
	o.Client = either(o.Client, o.Most)
	o.Bytes = either(o.Bytes, 1<<30)
	o.Life = either(o.Life, time.Minute)
	o.Spare = either(o.Spare, 30*time.Second)
	return o
}

// SetStore keeps the states outside of the process as well. It must be called before the
// first session is opened.
func (t *Sessions) SetStore(st Store) { t.store = st }

// Options returns the limits, with the defaults filled in.
func (t *Sessions) Options() SessionOptions {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	return t.o
}

// SetOptions replaces the limits, but OnEnd, which stays. They hold for what is opened
// from then on: a session keeps the time that it may be idle, and those that are more than
// the new limits end when room for another is needed.
func (t *Sessions) SetOptions(o SessionOptions) {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	o.OnEnd = t.o.OnEnd
	t.o = o.filled()
}

// Session is a stream whose state is kept between its jobs, which run in the order in
// which they came.
type Session struct {
	table   *Sessions
	q       *Queue
	key     sessionKey
	client  string
	state   State
	bytes   int
	steps   uint64 // jobs that succeeded since the state was made
	life    time.Duration
	used    time.Time // when its last job ended
	expires time.Time // as far as the heap knows
	at      int       // in expiries
	busy    bool
	waiting list // behind the job that runs
	over    Reason
	idle    ring // its place among those without jobs
	watches *watch
	// Transient says that the session is not stored, such as one that ends with a
	// connection.
	Transient bool
}

// watch is who is told of the end of a session.
type watch struct {
	told func(*Session, Reason)
	next *watch
}

// ring is a place in a list of sessions that ends in itself: in the table its head, whose
// own session is nil.
type ring struct {
	prev, next *ring
	n          *Session
}

func (r *ring) insertBefore(at *ring) {
	r.prev, r.next = at.prev, at
	r.prev.next, at.prev = r, r
}

func (r *ring) remove() {
	if r.next != nil {
		r.prev.next, r.next.prev = r.next, r.prev
		r.prev, r.next = nil, nil
	}
}

// Opening says how a session is opened.
type Opening struct {
	ID     string // "": a random one
	Client string
	Life   time.Duration // 0: the table's
	// Replace, if not nil, is a session of the same id that is ended first if it still is.
	// Jobs that wait for it are refused.
	Replace *Session
	// Transient says that the session is never stored.
	Transient bool
	// OnEnd, if not nil, is called when the session is over, with the scheduler's lock
	// held: it must return at once.
	OnEnd func(*Session, Reason)
}

// Open begins a session of a model by its public name. Errors are inference.Unsupported
// if the model keeps no state, Exists if there is one of that id, Exhausted for a limit,
// Invalid for an id that is too long.
func (t *Sessions) Open(q *Queue, model string, o Opening) (*Session, error) {
	return t.open(q, model, o, nil, 0)
}

func (t *Sessions) open(q *Queue, model string, o Opening, state State, steps uint64) (*Session, error) {
	n, err := t.enter(q, model, o, state, steps)
	if err != nil || t.store == nil || o.Transient {
		return n, err
	}
	err = n.Alone(context.Background(), func(State) error { return n.keep() })
	switch {
	case err == nil:
		return n, nil
	case n.Over() != "": // somebody ended it already
		return nil, n.gone()
	}
	q.o.Log.Error("the state of a session cannot be stored", "model", model, "problem", err.Error())
	n.End(Unstored)
	return nil, inference.Errorf(inference.Internal, "the session cannot be stored; see the server's log")
}

// enter adds a session to the table.
func (t *Sessions) enter(q *Queue, model string, o Opening, state State, steps uint64) (*Session, error) {
	if len(o.ID) > maxID {
		return nil, inference.Errorf(inference.Invalid, "the id of a session has %d bytes; use at most %d", len(o.ID), maxID)
	}
	if o.ID == "" {
		o.ID = rand.Text()
	}
	if state == nil {
		state = q.Program.NewState()
	}
	if state == nil {
		return nil, inference.Errorf(inference.Unsupported, "model %q keeps no state: send requests without a session", model)
	}
	n := &Session{table: t, q: q, key: sessionKey{model, o.ID}, client: o.Client, state: state, bytes: state.Bytes(), steps: steps,
		used: time.Now(), Transient: o.Transient}
	if o.OnEnd != nil {
		n.watches = &watch{told: o.OnEnd}
	}
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	n.life = either(o.Life, t.o.Life)
	if q.closed != nil {
		return nil, inference.Errorf(inference.Unavailable, "model %q is being unloaded", model)
	}
	if old := t.all[n.key]; old != nil {
		if old != o.Replace {
			return nil, inference.Errorf(inference.Exists, "session %q of model %q exists already; end it first or use another id", o.ID, model)
		}
		old.close(Ended)
	}
	if t.o.Client < t.o.Most && t.clients[o.Client] >= t.o.Client {
		return nil, &inference.Error{Code: inference.Exhausted, RetryAfter: 1, Msg: fmt.Sprintf("this client has %d sessions, as many as it may; end some first", t.clients[o.Client])}
	}
	if !t.makeRoom(1, n.bytes) {
		return nil, &inference.Error{Code: inference.Exhausted, RetryAfter: int(max(1, t.o.Spare/time.Second)),
			Msg: fmt.Sprintf("the server has %d sessions with %d bytes of state and too few have been idle for %v to make room for one of %d bytes; try again later", len(t.all), t.bytes, t.o.Spare, n.bytes)}
	}
	delete(t.ended, n.key)
	t.all[n.key] = n
	t.peak = max(t.peak, len(t.all))
	t.clients[o.Client]++
	t.bytes += n.bytes
	q.kept++
	q.bytes += n.bytes
	n.idle.n = n
	n.idle.insertBefore(&t.idle)
	heap.Push(&t.expiry, n)
	t.arm()
	return n, nil
}

// makeRoom evicts the longest idle sessions until there is room for a number of further
// ones and their bytes. If that cannot be, it evicts none and returns false.
func (t *Sessions) makeRoom(sessions, bytes int) bool {
	evict, now := 0, time.Now()
	count, used := len(t.all)+sessions, t.bytes+bytes
	for at := t.idle.next; count > t.o.Most || used > t.o.Bytes; at = at.next {
		if at.n == nil || now.Sub(at.n.used) < t.o.Spare {
			return false
		}
		evict++
		count--
		used -= at.n.bytes
	}
	for range evict {
		t.idle.next.n.close(Evicted)
	}
	return true
}

// Find returns a session. If it does not exist, the error is inference.NotFound and says
// why, if that is known.
func (t *Sessions) Find(model, id string) (*Session, error) {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	k := sessionKey{model, id}
	if n := t.all[k]; n != nil {
		return n, nil
	}
	return nil, k.missing(t.ended[k])
}

// Why returns why a session of the id is over; "" if that is not known.
func (t *Sessions) Why(model, id string) Reason {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	return t.ended[sessionKey{model, id}]
}

func (k sessionKey) missing(why Reason) error {
	if why != "" {
		return inference.Errorf(inference.NotFound, "session %q of model %q is over: %s; begin a new one", k.id, k.model, why)
	}
	return inference.Errorf(inference.NotFound, "there is no session %q of model %q; begin one first", k.id, k.model)
}

func (n *Session) gone() error { return n.key.missing(n.over) }

// Each calls f with the sessions of a queue, or of all if it is nil, until f returns
// false.
func (t *Sessions) Each(q *Queue, f func(*Session) bool) {
	t.s.mu.Lock()
	var list []*Session
	for _, n := range t.all {
		if q == nil || n.q == q {
			list = append(list, n)
		}
	}
	t.s.mu.Unlock()
	for _, n := range list {
		if !f(n) {
			return
		}
	}
}

// Count returns the number of sessions of a queue, or of all if it is nil, and the
// memory of their states.
func (t *Sessions) Count(q *Queue) (sessions, bytes int) {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	if q == nil {
		return len(t.all), t.bytes
	}
	return q.kept, q.bytes
}

// Of returns up to most sessions that a client opened, of one model or, if model is empty,
// of all, and whether there are more.
func (t *Sessions) Of(client, model string, most int) (list []*Session, more bool) {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	left := t.clients[client]
	for _, n := range t.all {
		if left == 0 {
			break
		}
		if n.client != client {
			continue
		}
		left--
		if model != "" && n.key.model != model {
			continue
		}
		if len(list) == most {
			return list, true
		}
		list = append(list, n)
	}
	return list, false
}

// EndAll ends the sessions of a queue, or all if it is nil. A job that runs is
// completed; those that wait are refused.
func (t *Sessions) EndAll(q *Queue, why Reason) {
	t.Each(q, func(n *Session) bool { n.End(why); return true })
}

// ID returns the session's id, which is one among the sessions of its model.
func (n *Session) ID() string { return n.key.id }

// Model returns the name that its model has in the table.
func (n *Session) Model() string { return n.key.model }

// Client returns who opened it.
func (n *Session) Client() string { return n.client }

// Queue returns the queue of its jobs.
func (n *Session) Queue() *Queue { return n.q }

// Life returns the time that it may be idle.
func (n *Session) Life() time.Duration { return n.life }

// Used returns when the session's last job ended, or when it was opened, the number of jobs that
// succeeded since the state was made, and its memory.
func (n *Session) Used() (last time.Time, steps uint64, bytes int) {
	n.table.s.mu.Lock()
	defer n.table.s.mu.Unlock()
	return n.used, n.steps, n.bytes
}

// Over returns why the session is over; "" if it is not.
func (n *Session) Over() Reason {
	n.table.s.mu.Lock()
	defer n.table.s.mu.Unlock()
	return n.over
}

// End ends the session. A job that runs is completed; those that wait, and later ones, are
// refused with the reason.
func (n *Session) End(why Reason) {
	n.table.s.mu.Lock()
	defer n.table.s.mu.Unlock()
	n.close(why)
}

// Watch lets f be told when the session is over, as Opening.OnEnd; at once if it is
// already. stop takes it back.
func (n *Session) Watch(f func(*Session, Reason)) (stop func()) {
	mu := &n.table.s.mu
	mu.Lock()
	defer mu.Unlock()
	if n.over != "" {
		f(n, n.over)
		return func() {}
	}
	w := &watch{told: f, next: n.watches}
	n.watches = w
	return func() {
		mu.Lock()
		defer mu.Unlock()
		for at := &n.watches; *at != nil; at = &(*at).next {
			if *at == w {
				*at = w.next
				return
			}
		}
	}
}

// close removes a session from its table.
func (n *Session) close(why Reason) {
	t := n.table
	if n.over != "" {
		return
	}
	n.over = why
	delete(t.all, n.key)
	if t.clients[n.client]--; t.clients[n.client] == 0 {
		delete(t.clients, n.client)
	}
	if len(t.all) < t.peak/4 && t.peak > 1024 { // maps never give memory back
		t.all, t.clients, t.peak = copied(t.all), copied(t.clients), len(t.all)
	}
	t.bytes -= n.bytes
	n.q.kept--
	n.q.bytes -= n.bytes
	n.idle.remove()
	heap.Remove(&t.expiry, n.at)
	if cap(t.expiry) > 1024 && len(t.expiry) < cap(t.expiry)/4 {
		t.expiry = slices.Clone(t.expiry)
	}
	if why != Ended {
		t.remember(n.key, why)
	}
	for n.waiting.first != nil {
		j := n.waiting.cut(nil)
		j.at, j.Err = finished, n.gone()
		j.lane.q.leaves(j)
		j.lane.q.stats.Failed++
		if j.ready != nil {
			j.ready <- struct{}{}
		}
		j.lane.q.left()
	}
	for w := n.watches; w != nil; w = w.next {
		w.told(n, why)
	}
	n.watches = nil
	if t.o.OnEnd != nil {
		t.o.OnEnd(n, why)
	}
	if t.store != nil {
		t.store.Drop(n, why)
	}
}

// keep stores the state after a job, which holds the session.
func (n *Session) keep() error {
	t := n.table
	if t.store == nil || n.Transient {
		return nil
	}
	settle, err := t.store.Write(n, func() ([]byte, error) { return n.saved(n.state) })
	if settle == nil {
		return err
	}
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	return settle(n.over == "" || n.over == Stopped) // another of its id may have followed one that is over
}

// Remember notes that there is no such session any more, and why.
func (t *Sessions) Remember(model, id string, why Reason) {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	t.remember(sessionKey{model, id}, why)
}

// copied returns a map of the same keys and values that has no room for more.
func copied[K comparable, V any](m map[K]V) map[K]V {
	c := make(map[K]V, len(m))
	maps.Copy(c, m)
	return c
}

func (t *Sessions) remember(k sessionKey, why Reason) {
	if len(t.endings) < rememberedEnds {
		t.endings = append(t.endings, k)
	} else {
		delete(t.ended, t.endings[t.ending])
		t.endings[t.ending] = k
		t.ending = (t.ending + 1) % rememberedEnds
	}
	t.ended[k] = why
}

// take reports whether a job of the session may run now; else it waits behind others.
func (n *Session) take(j *Job) bool {
	if !n.busy {
		n.busy = true
		n.idle.remove()
		return true
	}
	j.at = waits
	n.waiting.insert(n.waiting.last, j)
	return false
}

// give ends the turn of a job and returns the next one; nil if there is none.
func (n *Session) give() *Job {
	n.used = time.Now()
	if n.waiting.first == nil {
		n.busy = false
		if n.over == "" {
			n.idle.insertBefore(&n.table.idle)
		}
		return nil
	}
	return n.waiting.cut(nil)
}

// renew makes the state anew, for the job that holds the session.
func (n *Session) renew() {
	state := n.q.Program.NewState()
	n.table.s.mu.Lock()
	defer n.table.s.mu.Unlock()
	n.state, n.steps = state, 0
}

// resized notes the memory of the state after a job. If it has grown and there is no room
// for it, the session ends: the limit holds for states that grow as well.
func (n *Session) resized() {
	t, more := n.table, n.state.Bytes()-n.bytes
	if more == 0 || n.over != "" {
		return
	}
	if more > 0 && !t.makeRoom(0, more) {
		n.close(Grown)
		return
	}
	n.bytes += more
	n.q.bytes += more
	t.bytes += more
}

// Alone runs f while no job of the session runs, after those that wait already.
func (n *Session) Alone(ctx context.Context, f func(State) error) error {
	var err error
	j := &Job{Session: n}
	j.alone = func() { err = f(n.state) }
	if failed := n.q.do(ctx, j); failed != nil {
		return failed
	}
	return err
}

// arm sets the timer for the next session that may expire.
func (t *Sessions) arm() {
	if len(t.expiry) == 0 {
		return
	}
	next := t.expiry[0].expires
	if !t.due.IsZero() && !next.Before(t.due) {
		return // it is set to an earlier time, and sets itself then
	}
	t.due = next
	wait := max(time.Until(next), time.Millisecond)
	if t.timer == nil {
		t.timer = time.AfterFunc(wait, t.expire)
	} else {
		t.timer.Reset(wait)
	}
}

// expire ends the sessions whose time is over. The heap holds the times as they were
// known; a session that was used since is put back.
func (t *Sessions) expire() {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	now := time.Now()
	t.due = time.Time{}
	for len(t.expiry) > 0 && !t.expiry[0].expires.After(now) {
		n := t.expiry[0]
		end := n.used.Add(n.life)
		switch {
		case n.busy:
			end = now.Add(n.life)
		case !end.After(now):
			n.close(Idle)
			continue
		}
		n.expires = end
		heap.Fix(&t.expiry, 0)
	}
	t.arm()
}

// Stop ends all sessions and the timer.
func (t *Sessions) Stop(why Reason) {
	t.EndAll(nil, why)
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	if t.timer != nil {
		t.timer.Stop()
		t.due = time.Time{}
	}
}

// expiries is a heap by the time of expiry.
type expiries []*Session

func (h expiries) Len() int           { return len(h) }
func (h expiries) Less(i, j int) bool { return h[i].expires.Before(h[j].expires) }
func (h expiries) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}
func (h *expiries) Push(x any) {
	n := x.(*Session)
	n.at, n.expires = len(*h), n.used.Add(n.life)
	*h = append(*h, n)
}
func (h *expiries) Pop() any {
	old := *h
	n := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return n
}

// The format of a saved session, little-endian: "CRSS"; version 1 as uint32; id, model, the
// program's fingerprint and the client, each as uint32 length and bytes; the time to live in
// nanoseconds and the number of steps as uint64; the state as uint64 length and bytes; the CRC-32 (IEEE) of
// all of these.
const (
	savedMagic   = "CRSS"
	savedVersion = 1
)

// Save returns the session as bytes, for [Sessions.Restore] here or on another server,
// after the jobs that wait have ended.
func (n *Session) Save(ctx context.Context) (b []byte, err error) {
	err = n.Alone(ctx, func(st State) (err error) { b, err = n.saved(st); return err })
	return b, err
}

func (n *Session) saved(st State) ([]byte, error) {
	state, err := st.MarshalBinary()
	if err != nil {
		return nil, inference.Errorf(inference.Unsupported, "session %q cannot be saved: %v", n.key.id, err)
	}
	b := append(make([]byte, 0, len(state)+256), savedMagic...)
	b = binary.LittleEndian.AppendUint32(b, savedVersion)
	for _, text := range []string{n.key.id, n.key.model, n.q.Program.Fingerprint(), n.client} {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(text)))
		b = append(b, text...)
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(n.life))
	b = binary.LittleEndian.AppendUint64(b, n.steps)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(state)))
	b = append(b, state...)
	return binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b)), nil
}

// Saved is what the bytes of a session say of it.
type Saved struct {
	ID, Model, Fingerprint, Client string
	Life                           time.Duration
	Steps                          uint64
	state                          []byte
}

// ReadSaved reads the bytes of [Session.Save]. Bytes that are damaged, cut or of another
// version are inference.Invalid.
func ReadSaved(b []byte) (*Saved, error) {
	bad := func(format string, args ...any) (*Saved, error) {
		return nil, inference.Errorf(inference.Invalid, "the saved session "+format, args...)
	}
	if len(b) < 12 || string(b[:4]) != savedMagic {
		return bad("does not begin as one; send the bytes as they were saved")
	}
	if v := binary.LittleEndian.Uint32(b[4:]); v != savedVersion {
		return bad("has format %d; this server reads %d", v, savedVersion)
	}
	end := len(b) - 4
	if crc32.ChecksumIEEE(b[:end]) != binary.LittleEndian.Uint32(b[end:]) {
		return bad("is damaged: its checksum differs")
	}
	b = b[8:end]
	cut := func(width int) ([]byte, bool) {
		if len(b) < width {
			return nil, false
		}
		n := uint64(binary.LittleEndian.Uint32(b))
		if width == 8 {
			n = binary.LittleEndian.Uint64(b)
		}
		if uint64(len(b)-width) < n {
			return nil, false
		}
		part := b[width : width+int(n)]
		b = b[width+int(n):]
		return part, true
	}
	var s Saved
	for _, to := range []*string{&s.ID, &s.Model, &s.Fingerprint, &s.Client} {
		part, ok := cut(4)
		if !ok {
			return bad("is cut off")
		}
		*to = string(part)
	}
	if len(b) < 16 {
		return bad("is cut off")
	}
	s.Life = time.Duration(binary.LittleEndian.Uint64(b))
	s.Steps = binary.LittleEndian.Uint64(b[8:])
	b = b[16:]
	var ok bool
	if s.state, ok = cut(8); !ok || len(b) > 0 || s.Life <= 0 {
		return bad("is cut off or has more than it says")
	}
	return &s, nil
}

// Restore opens a session of saved bytes with the id and the time to live that they have, unless o
// has others. A state of other weights, or one that does not fit, is inference.Invalid;
// other errors are those of Open.
func (t *Sessions) Restore(q *Queue, model string, s *Saved, o Opening) (*Session, error) {
	if own := q.Program.Fingerprint(); s.Fingerprint != own {
		return nil, inference.Errorf(inference.Invalid, "session %q was saved by model %q with other weights than those of %q here; load the same version", s.ID, s.Model, model)
	}
	state := q.Program.NewState()
	if state == nil {
		return t.open(q, model, o, nil, 0)
	}
	if err := state.UnmarshalBinary(s.state); err != nil {
		return nil, inference.Errorf(inference.Invalid, "session %q: %v", s.ID, err)
	}
	if o.ID == "" {
		o.ID = s.ID
	}
	o.Life = either(o.Life, s.Life)
	return t.open(q, model, o, state, s.Steps)
}
