package trials

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"sync"
	"time"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/tune"
)

// Options say how [Work] and [Repeat] work. The zero value is one worker without a limit.
type Options struct {
	Workers int           // runs that are computed at once, which share the process's cores evenly; 0 means 1
	Time    time.Duration // after which [Work] or [Repeat] ends; runs at work are paused. 0: no limit
	Every   time.Duration // between checkpoints in the store, from which another worker takes up a lost run; 0 means a minute
	Memory  int64         // bytes that all runs together may take, of which each has an even share; 0: no limit
	Room    func() int64  // bytes that this process may still get of the machine, which other processes use too; nil: not known
	Scratch string        // existing folder for what runs write while they are at work; "": the system's
	// Note is told what a person may want to know at once, a sentence each; may be nil. Several goroutines call it.
	Note func(text string)
}

// Ended is the name of a study's text that says why its work ended before all trials; "" if it did not.
const Ended = "ended"

var errTime = errors.New("trials: the time is up")

// Work works on a study until it is done, ctx is cancelled or its time is up, which is no error: the study's text
// [Ended] then says so. Any number of processes may do so at once. A trial that fails, panics or diverges, and one that
// asks for more memory than there is, is recorded as failed, and the work goes on. When ctx is cancelled or the time is
// up, runs at work are checkpointed and given back, so that any worker goes on with them.
//
// The error is that of a cancelled ctx, of the store, or of a subject of which no trial can be computed.
//
// Runs of a process are goroutines that have so many of its cores each; they get the same bits for any number. Each
// gets all cores only if Workers is 1.
func Work(ctx context.Context, study *tune.Study, s Subject, o *Options) error {
	c, end := newCrew(study, s, o)
	defer end()
	if err := c.note(ctx, ""); err != nil {
		return err
	}
	err := c.each(ctx, func(ctx context.Context) error {
		for {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			t, err := study.Next(ctx)
			switch {
			case errors.Is(err, tune.ErrDone):
				return nil
			case err != nil && ctx.Err() != nil:
				return context.Cause(ctx)
			case err != nil:
				return err
			}
			if err := c.work(ctx, t); err != nil {
				return err
			}
		}
	})
	if errors.Is(err, errTime) {
		return c.note(context.WithoutCancel(ctx), fmt.Sprintf("by its time of %v", o.Time))
	}
	return err
}

// crew is the workers of a process.
type crew struct {
	study   *tune.Study
	subject Subject
	o       Options
	gate    sync.Mutex

	memory   sync.Mutex
	admitted time.Time // when memory was admitted last
	recent   int64     // bytes that were admitted then, and shortly before
}

// newCrew shares the cores and the memory of the process out to workers, until end is called.
func newCrew(study *tune.Study, s Subject, o *Options) (c *crew, end func()) {
	c = &crew{study: study, subject: s, o: *o}
	c.o.Workers = max(c.o.Workers, 1)
	if c.o.Every <= 0 {
		c.o.Every = time.Minute
	}
	cores, admit := par.Workers(), device.Admit
	par.SetWorkers(max(1, cores/c.o.Workers))
	if c.o.Memory > 0 {
		device.Admit = c.admit
	}
	return c, func() {
		par.SetWorkers(cores)
		device.Admit = admit
	}
}

// each calls f in a goroutine for each worker, and returns the first error, at which the others are cancelled; errTime when the time
// is up.
func (c *crew) each(ctx context.Context, f func(context.Context) error) error {
	if c.o.Time > 0 {
		var end context.CancelFunc
		ctx, end = context.WithTimeoutCause(ctx, c.o.Time, errTime)
		defer end()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for range c.o.Workers {
		all.Go(func() {
			if err := f(ctx); err != nil {
				cancel(err)
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// note keeps why the work ended.
func (c *crew) note(ctx context.Context, text string) error {
	old, err := c.study.Store().Get(ctx, Ended)
	if err != nil || old == text {
		return err
	}
	if err := c.study.Store().Set(ctx, Ended, old, text); !errors.Is(err, tune.ErrTaken) {
		return err
	}
	return nil // by another process
}

// tell tells a person.
func (c *crew) tell(format string, a ...any) {
	if c.o.Note != nil {
		c.o.Note(fmt.Sprintf(format, a...))
	}
}

// work does a piece of work. The error is one that ends the work as a whole.
func (c *crew) work(ctx context.Context, t *tune.Trial) error {
	begun := time.Now()
	held, release := t.Hold(ctx)
	defer release()
	always := context.WithoutCancel(ctx) // what has been done is kept
	done := func(err error) error {
		if errors.Is(err, tune.ErrFenced) {
			return nil // another worker has the trial
		}
		return err
	}
	if lost, err := c.lost(always, t); err != nil {
		return done(err)
	} else if lost != nil {
		c.tell("%s failed: %v", nameOf(t), lost)
		return done(t.Fail(always, lost))
	}
	checkpoint, err := t.Saved(always)
	if err != nil {
		return done(err)
	}
	if checkpoint == nil {
		t.Resume(0) // what a worker that was lost has reported is done again
	}
	stopped, pauses := false, false
	score, err := c.run(held, &Run{
		Space: c.study.Space, Trial: t.Number, Values: t.Values, Seed: uint64(t.Seed), Checkpoint: checkpoint,
		Resume: func(at int) bool {
			stopped, pauses = t.Resume(at), t.Until > 0 && at >= t.Until
			return stopped
		},
		Report: func(at, steps int, values []float64) (stop bool, err error) {
			stopped, err = t.Report(always, at, steps, values...)
			pauses = t.Until > 0 && at >= t.Until
			return stopped, final(err)
		},
		Save: func(checkpoint []byte) error {
			if stopped && !pauses {
				return nil // it never goes on
			}
			err := t.Save(always, checkpoint)
			if err == nil {
				err = c.forgive(always, t)
			}
			return final(err)
		},
	})
	release()
	t.Piece.Seconds += time.Since(begun).Seconds()
	var end *fatal
	switch {
	case errors.Is(context.Cause(held), tune.ErrFenced) || errors.Is(err, tune.ErrFenced):
		return nil
	case errors.As(err, &end), err != nil && ctx.Err() != nil:
		back := c.forgive(always, t)
		if back == nil {
			back = t.Release(always)
		}
		if end != nil {
			return end.error
		}
		return errors.Join(context.Cause(ctx), done(back))
	case err != nil:
		c.tell("%s failed: %v", nameOf(t), err)
		return done(t.Fail(always, err))
	}
	return done(t.Tell(always, score.Measures, score.Values...))
}

// nameOf is how people are told of a run.
func nameOf(t *tune.Trial) string {
	if t.Seed > 0 {
		return fmt.Sprintf("trial %d with another seed", t.Number)
	}
	return fmt.Sprintf("trial %d", t.Number)
}

// final marks an error of the store.
func final(err error) error {
	if err == nil || errors.Is(err, tune.ErrFenced) {
		return err
	}
	return &fatal{err}
}

// A trial fails when its worker was lost so many times in a row without having come further; a trial that takes all memory
// ends the process with it.
const (
	mostLost      = 8  // before its first report
	mostLostLater = 20 // after one
)

// lost returns the error of a piece whose workers are lost again and again, or nil.
func (c *crew) lost(ctx context.Context, t *tune.Trial) (failure, err error) {
	p := t.Piece
	if p.Epoch <= mostLost {
		return nil, nil
	}
	text, err := c.study.Store().Get(ctx, forgiven(p))
	if err != nil {
		return nil, err
	}
	before, _ := strconv.Atoi(text) // "" is 0
	most := mostLost
	if len(p.Points) > 0 {
		most = mostLostLater
	}
	if n := p.Epoch - 1 - before; n >= most {
		return fmt.Errorf("its worker was lost %d times in a row; it may need more memory than there is", n), nil
	}
	return nil, nil
}

// forgiven is the name of the text with the epoch of a piece up to which losses do not count.
func forgiven(p *tune.Piece) string { return fmt.Sprintf("forgiven/%d", p.N) }

// forgive notes that a piece has come further, or is given back.
func (c *crew) forgive(ctx context.Context, t *tune.Trial) error {
	name, text := forgiven(t.Piece), strconv.Itoa(t.Piece.Epoch)
	old, err := c.study.Store().Get(ctx, name)
	if err != nil || old == text {
		return err
	}
	if err := c.study.Store().Set(ctx, name, old, text); !errors.Is(err, tune.ErrTaken) {
		return err
	}
	return nil
}

// run tries a run in a folder of its own. A panic is an error.
func (c *crew) run(ctx context.Context, r *Run) (s *Score, err error) {
	r.gate, r.Every, r.Memory = &c.gate, c.o.Every, c.share()
	if r.Dir, err = os.MkdirTemp(c.o.Scratch, "carousel-trial-"); err != nil {
		return nil, &fatal{err}
	}
	defer os.RemoveAll(r.Dir)
	defer func() {
		switch p := recover().(type) {
		case nil:
		case *outOfMemory:
			s, err = nil, p
		default:
			s, err = nil, fmt.Errorf("it panicked: %v", p)
		}
	}()
	return c.subject.Try(ctx, r)
}

// outOfMemory is the error of a run that needs more memory than there is.
type outOfMemory struct {
	bytes int64
	there string // in words
}

func (e *outOfMemory) Error() string {
	return fmt.Sprintf("out of memory: it needs %s, and %s; a smaller batch or network needs less", mebibytes(e.bytes), e.there)
}

func mebibytes(n int64) string { return fmt.Sprintf("%d MiB", n/(1<<20)) }

func (c *crew) share() int64 { return c.o.Memory / int64(c.o.Workers) }

func overShare(bytes, share int64) *outOfMemory {
	return &outOfMemory{bytes, "its share is " + mebibytes(share)}
}

// Times of memory.
var (
	// allocated is the time in which memory is allocated once it has been admitted, and so counts.
	allocated = 50 * time.Millisecond
	// crowded is for how long a run waits for memory that others have.
	crowded = time.Minute
)

// admit ends a run, by a panic, that asks for more memory than its share at once. What this process's other runs, or other
// processes of the machine, leave no room for is waited for, and ends the run if it does not come: the others may be as large.
func (c *crew) admit(n int) {
	bytes := int64(n)
	if bytes < 1<<20 {
		return // small ones are seen with the next large one
	}
	if share := c.share(); bytes > share {
		panic(overShare(bytes, share))
	}
	for end := time.Now().Add(crowded); ; time.Sleep(allocated) {
		left := c.left(bytes)
		if left >= bytes {
			return
		}
		if time.Now().After(end) {
			panic(&outOfMemory{bytes, fmt.Sprintf("the others leave %s", mebibytes(max(left, 0)))})
		}
		debug.FreeOSMemory()
	}
}

// left returns how much memory there is, and takes so many bytes of it if there is enough.
func (c *crew) left(bytes int64) int64 {
	c.memory.Lock()
	defer c.memory.Unlock()
	if time.Since(c.admitted) > allocated {
		c.recent = 0 // it is in the heap by now
	}
	left := c.o.Memory - heap()
	if c.o.Room != nil {
		left = min(left, c.o.Room())
	}
	if left -= c.recent; left >= bytes {
		c.admitted, c.recent = time.Now(), c.recent+bytes
	}
	return left
}

// heap returns the bytes of objects in memory, used or not yet collected.
func heap() int64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return int64(sample[0].Value.Uint64())
}
