//go:build dl && linux

package mpi

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/carousel-ml/carousel/dist"
	"github.com/carousel-ml/carousel/internal/dl"
)

// Messages of the data have tag dataTag and at most chunk bytes, because MPI
// counts in 32 bits, and because the end of each tells a waiting rank that it
// should look again soon; the first of several has few bytes, so that its end
// tells that the other rank is there. A rank that ends the job tells the others why by one
// message of tag reasonTag, reasonBytes long.
const (
	dataTag     = 0
	reasonTag   = 1
	first       = 1 << 10
	chunk       = 1 << 20
	reasonBytes = 1024
)

// farewell is how long a rank that ends the job waits until the others have
// heard why, so that each of them ends by itself.
const farewell = 3 * time.Second

// transport is the world of an MPI library. The thread that called
// MPI_Init_thread makes all its MPI calls: this is what MPI_THREAD_FUNNELED asks
// for, the level that every library has.
type transport struct {
	*library
	rank, size int

	thread *dl.Thread

	abortOnce sync.Once
	aborting  chan struct{}   // closed by Abort, after reason is set
	reason    *dist.RankError // this rank's

	// The rest belongs to the thread.
	failed   error     // set once: why every later call fails
	requests []uintptr // MPI_Requests, of l.handle bytes each; number 0 waits for another rank's reason
	n        int       // how many requests there are
	indices  []int32   // what MPI_Testsome gives
	statuses []byte
	pinner   runtime.Pinner // holds the buffers of the requests
	heard    []byte         // where another rank's reason arrives
	told     int            // how many ranks' reasons have arrived
}

// joined is the world of this process. It stays reachable, with the buffers that
// the library may still have after a failure.
var joined atomic.Pointer[transport]

// Connect loads the MPI library that belongs to the launcher which started this
// process and joins its world. It fails if no such library is found, and if the
// world is not the one that p describes. MPI can be joined once in the life of a
// process. Once ctx ends, Connect returns its error, but a library that still
// waits for other ranks goes on to do so.
//
// Ranks that wait sleep more and more, up to half a millisecond at a time,
// instead of taking a core from the ranks that they wait for.
//
// MPI knows nothing of dead ranks: its launcher does, and ends the job when a
// process ends without Close. Abort therefore tells all ranks why, so that their
// calls return the reason, and waits some seconds for them; if one does not
// listen, it writes the reason to the standard error and ends all processes by
// MPI_Abort, this one as well. A process that has called Abort must end with a
// status other than 0.
func Connect(ctx context.Context, p *dist.Place) (dist.Transport, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t := &transport{aborting: make(chan struct{}), heard: make([]byte, reasonBytes)}
	if !joined.CompareAndSwap(nil, t) {
		return nil, errors.New("mpi: this process has joined its MPI world before, which is possible once")
	}
	t.thread = dl.StartThread()
	joining := make(chan error, 1)
	go func() { joining <- t.thread.Do(func() error { return t.join(p) }) }()
	select {
	case err := <-joining:
		if err != nil {
			t.thread.Stop()
			return nil, err
		}
		return t, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// environment is what the MPI libraries must be told before they are loaded. They
// remember which pages they have registered with a network card, and watch the C
// library to learn which ones went away. The Go runtime asks the kernel itself,
// so what they remember would be wrong in time.
var environment = map[string]string{"UCX_MEM_EVENTS": "no", "OMPI_MCA_mpi_leave_pinned": "0"}

// join loads the library and enters MPI.
func (t *transport) join(p *dist.Place) (err error) {
	// The sleeps of rest need a finer timer of the thread than the usual 50 µs.
	unix.Prctl(unix.PR_SET_TIMERSLACK, 1000, 0, 0, 0)
	for name, value := range environment {
		if _, set := os.LookupEnv(name); !set {
			os.Setenv(name, value)
		}
	}
	var level int32
	keepHandlers(func() { // which loading alone may replace
		if t.library, err = open(os.Getenv, besideLauncher()); err == nil {
			err = t.check("MPI_Init_thread", dl.Call(t.initThread, 0, 0, t.funneled, uintptr(unsafe.Pointer(&level))))
		}
	})
	if err != nil {
		return err
	}
	if err := t.enter(p, level); err != nil {
		// Ranks that refuse their world end all alike, each by itself.
		return errors.Join(err, t.library.leave())
	}
	return nil
}

// enter checks that the world is p's.
func (t *transport) enter(p *dist.Place, level int32) error {
	var rank, size, one int32
	if err := errors.Join(
		t.check("MPI_Comm_set_errhandler", dl.Call(t.setErrhandler, t.world, t.errorsReturn)),
		t.check("MPI_Comm_rank", dl.Call(t.commRank, t.world, uintptr(unsafe.Pointer(&rank)))),
		t.check("MPI_Comm_size", dl.Call(t.commSize, t.world, uintptr(unsafe.Pointer(&size)))),
		t.check("MPI_Type_size", dl.Call(t.typeSize, t.bytes, uintptr(unsafe.Pointer(&one)))),
	); err != nil {
		return err
	}
	switch {
	case one != 1:
		return fmt.Errorf("%s says that a byte has %d bytes: it has another ABI than expected", t.version, one)
	case int(size) != p.Size || int(rank) != p.Rank:
		return fmt.Errorf("%s makes this process rank %d of %d, but %s started it as rank %d of %d: they do not belong together; set CAROUSEL_MPI to the path of the launcher's own MPI library", t.version, rank, size, p.Launcher, p.Rank, p.Size)
	case uintptr(level) < t.funneled:
		return fmt.Errorf("%s was built without threads (MPI_THREAD_FUNNELED): use a build that has them", t.version)
	}
	t.rank, t.size, t.n = int(rank), int(size), 1
	return t.listen()
}

func (t *transport) Rank() int { return t.rank }
func (t *transport) Size() int { return t.size }

func (t *transport) Exchange(send, recv [][]byte) error {
	if len(send) != t.size || len(recv) != t.size {
		return fmt.Errorf("mpi: Exchange with %d and %d buffers, want one for each of %d ranks", len(send), len(recv), t.size)
	}
	return t.thread.Do(func() error {
		if t.failed != nil {
			return t.failed
		}
		t.failed = t.exchange(send, recv)
		return t.failed
	})
}

// exchange is Exchange. After an error the library may still have the buffers:
// they stay pinned.
func (t *transport) exchange(send, recv [][]byte) error {
	for d := 1; d < t.size; d++ {
		from := (t.rank + t.size - d) % t.size
		if err := t.post("MPI_Irecv", t.irecv, recv[from], from, dataTag); err != nil {
			return err
		}
	}
	for d := 1; d < t.size; d++ {
		to := (t.rank + d) % t.size
		if err := t.post("MPI_Isend", t.isend, send[to], to, dataTag); err != nil {
			return err
		}
	}
	if err := t.finish(); err != nil {
		return err
	}
	t.pinner.Unpin()
	t.n = 1
	return nil
}

// post begins to send or receive the bytes of b.
func (t *transport) post(name string, function uintptr, b []byte, peer, tag int) error {
	most := chunk
	if len(b) > chunk {
		most = first
	}
	for ; len(b) > 0; most = chunk {
		part := b[:min(len(b), most)]
		b = b[len(part):]
		t.pinner.Pin(&part[0])
		if err := t.begin(name, function, part, peer, tag, t.n); err != nil {
			return err
		}
		t.n++
	}
	return nil
}

// begin begins to send or receive one message, as the request of the given number.
func (t *transport) begin(name string, function uintptr, b []byte, peer, tag, number int) error {
	if need := (uintptr(number+1)*t.handle + pointer - 1) / pointer; need > uintptr(len(t.requests)) {
		t.requests = append(t.requests, make([]uintptr, need)...)
	}
	return t.check(name, dl.Call(function, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), t.bytes, uintptr(peer), uintptr(tag), t.world, uintptr(t.request(number))))
}

func (t *transport) request(number int) unsafe.Pointer {
	return unsafe.Add(unsafe.Pointer(&t.requests[0]), uintptr(number)*t.handle)
}

// listen begins to wait for another rank's reason to end the job. heard needs no
// pin: it stays reachable, and the heap does not move.
func (t *transport) listen() error {
	return t.begin("MPI_Irecv", t.irecv, t.heard, t.anySource, reasonTag, 0)
}

// finish waits until all requests but number 0 have ended. It returns early with
// an error when this rank or another ends the job.
func (t *transport) finish() error {
	var idle idle
	for open := t.n - 1; open > 0; {
		select {
		case <-t.aborting:
			return t.reason
		default:
		}
		ended, err := t.poll()
		if err != nil {
			return err
		}
		if ended > 0 {
			open -= ended
			idle.reset()
		} else {
			idle.rest()
		}
	}
	return nil
}

// poll lets the library work and returns how many requests have ended since.
func (t *transport) poll() (ended int, err error) {
	if len(t.indices) < t.n {
		t.indices = make([]int32, t.n)
		t.statuses = make([]byte, uintptr(t.n)*t.status)
	}
	var done int32
	code := dl.Call(t.testsome, uintptr(t.n), uintptr(t.request(0)), uintptr(unsafe.Pointer(&done)), uintptr(unsafe.Pointer(&t.indices[0])), uintptr(unsafe.Pointer(&t.statuses[0])))
	if code != 0 {
		// The code of the message that failed says more than "an error is in a status".
		for i := range max(done, 0) {
			if c := int32(binary.NativeEndian.Uint32(t.statuses[uintptr(i)*t.status+t.statusError:])); c != 0 {
				code = c
				break
			}
		}
		return 0, t.check("MPI_Testsome", code)
	}
	ended = max(int(done), 0) // MPI_UNDEFINED is below 0: no request is active
	for _, i := range t.indices[:ended] {
		if i == 0 {
			cause := &dist.RankError{Rank: int(binary.LittleEndian.Uint32(t.heard)), Problem: string(bytes.TrimRight(t.heard[4:], "\x00"))}
			t.told++
			return ended - 1, errors.Join(cause, t.listen())
		}
	}
	return ended, nil
}

// Abort tells every rank that err ends the job.
func (t *transport) Abort(err error) {
	t.abortOnce.Do(func() {
		t.reason = &dist.RankError{Rank: t.rank, Problem: "ended the job: " + dl.OneLine(err.Error())}
		close(t.aborting)
		t.thread.Do(t.tell) // it fails after Close, when there is nobody to tell
	})
}

// tell sends to all ranks why the job ends and waits until each has sent the
// same: a rank whose call fails because of another's calls Abort as well. What it
// sends is the first cause that it knows of.
func (t *transport) tell() error {
	cause := t.reason
	if t.failed == nil {
		t.failed = cause
	}
	errors.As(t.failed, &cause)
	text := make([]byte, reasonBytes)
	binary.LittleEndian.PutUint32(text, uint32(cause.Rank))
	copy(text[4:], cause.Problem)
	for rank := range t.size {
		if rank != t.rank {
			// A rank that cannot be reached is not waited for longer than the others.
			t.post("MPI_Isend", t.isend, text, rank, reasonTag)
		}
	}
	var idle idle
	for deadline := time.Now().Add(farewell); time.Now().Before(deadline); idle.rest() {
		if t.told == t.size-1 {
			return nil
		}
		t.poll() // errors of messages that the end has cut off say nothing new
	}
	fmt.Fprintln(os.Stderr, cause)
	time.Sleep(100 * time.Millisecond) // MPICH 4's launcher drops what it has not read by then
	return t.check("MPI_Abort", dl.Call(t.abort, t.world, 1))
}

// Close leaves MPI, together with all other ranks. After a failure it only returns it.
func (t *transport) Close() error {
	defer t.thread.Stop()
	return t.thread.Do(t.leave)
}

func (t *transport) leave() error {
	if t.failed != nil {
		return t.failed
	}
	// MPI_Finalize would take a core while it waits for the slower ranks; exchange does not.
	send, recv := make([][]byte, t.size), make([][]byte, t.size)
	for i := range t.size {
		send[i], recv[i] = make([]byte, 1), make([]byte, 1)
	}
	if err := t.exchange(send, recv); err != nil {
		return err
	}
	status := make([]byte, t.status)
	return errors.Join(
		t.check("MPI_Cancel", dl.Call(t.cancel, uintptr(t.request(0)))),
		t.check("MPI_Wait", dl.Call(t.wait, uintptr(t.request(0)), uintptr(unsafe.Pointer(&status[0])))),
		t.library.leave(),
	)
}

// idle is how a rank waits: it looks again at once while something may be about
// to happen, lets others have the core, and then sleeps for an eighth of the
// time that it has waited, but never so long that messages, which move only when
// the library is called, are held up much.
type idle struct{ since time.Time }

const (
	eager   = 50 * time.Microsecond
	longest = 500 * time.Microsecond
)

func (i *idle) reset() { i.since = time.Time{} }

func (i *idle) rest() {
	now := time.Now()
	if i.since.IsZero() {
		i.since = now
	}
	if waited := now.Sub(i.since); waited < eager {
		syscall.Syscall(syscall.SYS_SCHED_YIELD, 0, 0, 0)
	} else {
		// Not time.Sleep, whose timers are good to a millisecond on an idle thread.
		d := syscall.NsecToTimespec(int64(min(waited/8, longest)))
		syscall.Nanosleep(&d, nil)
	}
}
