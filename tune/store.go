package tune

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// A State is what has become of a piece of work or of a trial.
type State string

// The states of pieces and trials.
const (
	Running  State = "running"
	Paused   State = "paused"   // at the end of a piece; it may go on
	Complete State = "complete" // with a result
	Pruned   State = "pruned"   // ended early because others are better
	Failed   State = "failed"   // with an error, or diverged
	Idle     State = "idle"     // a piece without work: nothing could be decided yet
)

// A Point is the objectives of a trial part way, after At units of its resource, which were Steps
// training steps.
type Point struct {
	At     int       `json:"at"`              // units of the resource, such as epochs
	Steps  int       `json:"steps,omitempty"` // training steps
	Values []float64 `json:"values"`          // the objectives there
}

// A Piece is work that one worker does without a break: a trial from the beginning, or one that was
// paused, up to where the study looks at it again.
type Piece struct {
	N      int    `json:"n"`
	Trial  int    `json:"trial"`            // -1 if Idle
	Seed   int    `json:"seed,omitempty"`   // above 0: a repeat of the trial with another seed
	Values Values `json:"values,omitempty"` // of a trial that begins, and of a repeat
	Origin string `json:"origin,omitempty"` // where they come from: "default", "enqueued", "startup" or the sampler
	From   int    `json:"from"`             // units of the resource that the trial has behind it
	Until  int    `json:"until"`            // where the piece ends; 0: where the trial does

	Epoch    int                `json:"epoch"` // counts the workers that took the piece, from 1
	Worker   string             `json:"worker,omitempty"`
	State    State              `json:"state"`
	Points   []Point            `json:"points,omitempty"`
	Result   []float64          `json:"result,omitempty"` // the objectives, of a trial that is Complete, Pruned or Paused
	Measures map[string]float64 `json:"measures,omitempty"`
	Error    string             `json:"error,omitempty"`
	Seconds  float64            `json:"seconds,omitempty"` // of work, by all that had it
}

// Finished reports whether nothing more becomes of the piece.
func (p *Piece) Finished() bool { return p.State != Running }

// A Header is what a study is a study of. A store holds one study, whose header never changes.
type Header struct {
	Version  int     `json:"version"` // of this package's rules; another one proposes other trials
	Options  Options `json:"options"`
	Space    string  `json:"space"`              // as Space.String writes it
	Subject  string  `json:"subject,omitempty"`  // what is tuned: a task with its settings, or a command
	Data     string  `json:"data,omitempty"`     // a checksum of its data
	Software string  `json:"software,omitempty"` // for people; not compared
}

// Errors of a [Store].
var (
	ErrTaken  = errors.New("tune: another worker has taken it")                // the piece was added or stolen by another worker
	ErrFenced = errors.New("tune: the piece has been given to another worker") // this worker's lease had ended
)

// A Store keeps a study, for one or more workers. Each method is one transaction: whenever a process
// ends, it has happened or it has not. What a worker writes about a piece names the epoch in which
// it took it, and fails with ErrFenced once another has taken the piece.
type Store interface {
	// Header returns the study's, nil if there is none yet.
	Header(ctx context.Context) (*Header, error)
	// Create begins a study. If there is one already nothing is changed and the error is ErrTaken.
	Create(ctx context.Context, h *Header) error

	// Read returns the pieces that have changed since a revision, by N, and the revision now; 0
	// is before everything. Points and Values are those of the piece as it is, not changes.
	Read(ctx context.Context, since int64) (pieces []*Piece, revision int64, err error)
	// Add gives a new piece to a worker for a time: its lease, by the store's clock. p.Epoch is 1. An Idle piece
	// has no lease. ErrTaken: there is a piece p.N already.
	Add(ctx context.Context, p *Piece, lease time.Duration) error
	// Steal gives the running piece n whose lease has ended and whose epoch is that to another worker,
	// in the next epoch. ErrTaken: it is finished, has another epoch or an unbroken lease.
	Steal(ctx context.Context, n, epoch int, worker string, lease time.Duration) error
	// Expired returns the running pieces whose leases have ended, by N.
	Expired(ctx context.Context) ([]int, error)
	// Renew lets the lease end this much from now.
	Renew(ctx context.Context, n, epoch int, lease time.Duration) error
	// Report adds a point to a piece, in place of those of the same At or beyond: work done again after a loss.
	Report(ctx context.Context, n, epoch int, p Point) error
	// Checkpoint keeps what the trial of piece n goes on from, in place of an earlier one, or the repeat that it is. nil removes it.
	Checkpoint(ctx context.Context, n, epoch int, blob []byte) error
	// Restore returns the last checkpoint of a trial, or of its repeat with a seed above 0; nil if there is none.
	Restore(ctx context.Context, trial, seed int) ([]byte, error)
	// Finish ends a piece: its State, Result, Measures, Error and Seconds are taken from p, and its
	// epoch must be p.Epoch. If discard is set, the checkpoint of its trial or repeat is removed in the same transaction.
	Finish(ctx context.Context, p *Piece, discard bool) error
	// Discard removes the checkpoints of the trials whose last pieces these are. A trial of which another piece has
	// begun since keeps its own: somebody goes on from it. Room that is no longer used, also by others, is given back where
	// a store can.
	Discard(ctx context.Context, pieces []int) error

	// Enqueue adds values that are to be tried next; Queue returns all that were added, in order.
	Enqueue(ctx context.Context, v Values) error
	Queue(ctx context.Context) ([]Values, error)

	// Set keeps a text under a name, and Get returns it, "" if there is none: what is known beside the trials,
	// such as why the work has ended. Set is given what was there, and fails with ErrTaken if that is not so.
	Set(ctx context.Context, name, old, text string) error
	Get(ctx context.Context, name string) (string, error)

	Close() error
}

// NewMemory returns a store that lives as long as the process.
func NewMemory() Store { return &memory{texts: map[string]string{}, blobs: map[run][]byte{}} }

type memory struct {
	mu       sync.Mutex
	header   *Header
	pieces   []*Piece
	changed  []int64 // by piece
	until    []time.Time
	revision int64
	queue    []Values
	texts    map[string]string
	blobs    map[run][]byte
}

// run is a trial, or with a seed above 0 a repeat of it.
type run struct{ trial, seed int }

func (p *Piece) run() run { return run{p.Trial, p.Seed} }

func (m *memory) lock() func() { m.mu.Lock(); return m.mu.Unlock }

func (m *memory) Header(context.Context) (*Header, error) { defer m.lock()(); return m.header, nil }

func (m *memory) Create(_ context.Context, h *Header) error {
	defer m.lock()()
	if m.header != nil {
		return ErrTaken
	}
	m.header = h
	return nil
}

func (m *memory) Read(_ context.Context, since int64) (list []*Piece, revision int64, err error) {
	defer m.lock()()
	for i, p := range m.pieces {
		if m.changed[i] > since {
			one := *p
			one.Points = slices.Clone(p.Points)
			list = append(list, &one)
		}
	}
	return list, m.revision, nil
}

// touch counts a change of piece n.
func (m *memory) touch(n int) {
	m.revision++
	m.changed[n] = m.revision
}

func (m *memory) Add(_ context.Context, p *Piece, lease time.Duration) error {
	defer m.lock()()
	switch {
	case p.N < len(m.pieces):
		return ErrTaken
	case p.N > len(m.pieces):
		return fmt.Errorf("tune: piece %d is added before piece %d", p.N, len(m.pieces))
	}
	one := *p
	one.Epoch = 1
	m.pieces, m.until, m.changed = append(m.pieces, &one), append(m.until, time.Now().Add(lease)), append(m.changed, 0)
	m.touch(p.N)
	return nil
}

func (m *memory) Steal(_ context.Context, n, epoch int, worker string, lease time.Duration) error {
	defer m.lock()()
	if n >= len(m.pieces) {
		return ErrTaken
	}
	p := m.pieces[n]
	if p.State != Running || p.Epoch != epoch || time.Now().Before(m.until[n]) {
		return ErrTaken
	}
	p.Epoch, p.Worker, m.until[n] = epoch+1, worker, time.Now().Add(lease)
	m.touch(n)
	return nil
}

func (m *memory) Expired(context.Context) (list []int, err error) {
	defer m.lock()()
	for n, p := range m.pieces {
		if p.State == Running && !time.Now().Before(m.until[n]) {
			list = append(list, n)
		}
	}
	return list, nil
}

// held returns a piece that a worker still has.
func (m *memory) held(n, epoch int) (*Piece, error) {
	if n >= len(m.pieces) || m.pieces[n].Epoch != epoch || m.pieces[n].State != Running {
		return nil, ErrFenced
	}
	return m.pieces[n], nil
}

func (m *memory) Renew(_ context.Context, n, epoch int, lease time.Duration) error {
	defer m.lock()()
	_, err := m.held(n, epoch)
	if err == nil {
		m.until[n] = time.Now().Add(lease)
	}
	return err
}

func (m *memory) Report(_ context.Context, n, epoch int, p Point) error {
	defer m.lock()()
	one, err := m.held(n, epoch)
	if err != nil {
		return err
	}
	one.Points = append(slices.DeleteFunc(one.Points, func(q Point) bool { return q.At >= p.At }), p)
	m.touch(n)
	return nil
}

func (m *memory) Checkpoint(_ context.Context, n, epoch int, blob []byte) error {
	defer m.lock()()
	p, err := m.held(n, epoch)
	if err == nil {
		m.blobs[p.run()] = blob
	}
	return err
}

func (m *memory) Restore(_ context.Context, trial, seed int) ([]byte, error) {
	defer m.lock()()
	return m.blobs[run{trial, seed}], nil
}

func (m *memory) Finish(_ context.Context, p *Piece, discard bool) error {
	defer m.lock()()
	one, err := m.held(p.N, p.Epoch)
	if err != nil {
		return err
	}
	one.State, one.Result, one.Measures, one.Error, one.Seconds = p.State, p.Result, p.Measures, p.Error, p.Seconds
	if discard {
		delete(m.blobs, one.run())
	}
	m.touch(p.N)
	return nil
}

func (m *memory) Discard(_ context.Context, pieces []int) error {
	defer m.lock()()
	last := map[run]int{}
	for n, p := range m.pieces {
		last[p.run()] = n
	}
	for _, n := range pieces {
		if one := m.pieces[n].run(); last[one] == n {
			delete(m.blobs, one)
		}
	}
	return nil
}

func (m *memory) Enqueue(_ context.Context, v Values) error {
	defer m.lock()()
	m.queue = append(m.queue, v)
	return nil
}

func (m *memory) Queue(context.Context) ([]Values, error) {
	defer m.lock()()
	return slices.Clone(m.queue), nil
}

func (m *memory) Set(_ context.Context, name, old, text string) error {
	defer m.lock()()
	if m.texts[name] != old {
		return ErrTaken
	}
	if m.texts[name] = text; text == "" {
		delete(m.texts, name)
	}
	return nil
}

func (m *memory) Get(_ context.Context, name string) (string, error) {
	defer m.lock()()
	return m.texts[name], nil
}

func (m *memory) Close() error { return nil }
