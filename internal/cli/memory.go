package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/model"
)

// The Go runtime cannot recover from a lack of memory. It prints the stacks of all
// goroutines where the system refuses memory, and the system kills the process without a
// word where it gave pages that it does not have. So the command ends before that:
//
//   - device.Admit refuses a block of a network's memory that is larger than what there is;
//   - watchMemory ends the command when what there is runs out, as Ctrl-C does;
//   - supervise replaces the runtime's stacks by a sentence, where the address space has
//     a limit: any allocation may fail there, and none can be asked beforehand.
//
// Programs that use the library have Go's behaviour.

// room is how much memory the process may still get.
type room struct {
	free, all int64  // bytes
	of        string // whose memory: "this machine"
}

const mebibyte = 1 << 20

// least is how much must be free: the command ends in the time in which this is filled.
func (r *room) least() int64 { return min(max(r.all/32, 24*mebibyte), 64*mebibyte) }

// exhausted is a lack of memory.
type exhausted struct{ text string }

func (e *exhausted) Error() string { return e.text }

// String describes the room in words.
func (r *room) String() string {
	return fmt.Sprintf("%s has %d MiB, of which %d are free", r.of, r.all/mebibyte, max(r.free, 0)/mebibyte)
}

// lacking returns the error of a lack of memory. what is the request that was too much,
// or ""; there says how much memory there is.
func (a *app) lacking(what, there string) *exhausted {
	fix := "give it less data at a time, or use a machine or a limit with more memory"
	if slices.Contains(a.args, "train") || slices.Contains(a.args, "demo") {
		fix = "lower --batch, --hidden, --layers or the length of the sequences, or use less data or a machine or a limit with more memory"
	}
	return &exhausted{fmt.Sprintf("out of memory%s%s: %s; %s", a.doing(), what, there, fix)}
}

// doing names the command, for messages.
func (a *app) doing() string {
	if len(a.args) == 0 || strings.HasPrefix(a.args[0], "-") {
		return ""
	}
	words := a.args[:1]
	if len(a.args) > 1 && a.args[0] == "train" && !strings.HasPrefix(a.args[1], "-") {
		words = a.args[:2]
	}
	return fmt.Sprintf(" in %q", strings.Join(words, " "))
}

// guardMemory begins the watch over the process's memory.
func (a *app) guardMemory() {
	r := roomLeft()
	if r == nil {
		return
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		// Garbage is collected earlier where it would not fit.
		debug.SetMemoryLimit(max(min(r.free-2*r.least(), addressRoom()-64*mebibyte), 16*mebibyte)) // 64 MiB: the heap's unit of growth
	}
	device.Admit = func(bytes int) {
		if bytes < 16*mebibyte {
			return // the watch sees these
		}
		if r := roomLeft(); r != nil && int64(bytes) > r.free {
			a.end(a.lacking(fmt.Sprintf(", which asks for %d MiB at once", bytes/mebibyte), r.String()))
		}
	}
	go a.watchMemory()
}

// watchMemory ends the command before memory runs out: with the way of Ctrl-C, which
// leaves a checkpoint of a training, or at once if that is too slow.
func (a *app) watchMemory() {
	const fastest = 8 << 30 // bytes per second in which memory can be filled
	for {
		r := roomLeft()
		if r == nil {
			return
		}
		short := r.free < r.least()
		switch stop := a.stop.Load(); {
		case short && stop != nil && a.lack.CompareAndSwap(nil, a.lacking("", r.String())):
			(*stop)()
		case short && (stop == nil || r.free < r.least()/2):
			a.end(a.lacking("", r.String()))
		}
		wait := time.Duration(float64(max(r.free-r.least(), 0)) / fastest * float64(time.Second))
		time.Sleep(min(max(wait, 10*time.Millisecond), time.Second))
	}
}

// end ends the process from any goroutine, with a line on stderr.
func (a *app) end(err error) {
	a.complain(err)
	if w := a.world.Load(); w != nil {
		w.Abort(errors.New(messageOf(err)))
	}
	model.RemoveTemporaries()
	os.Exit(exitCode(err))
}

// complain prints an error: a line on stderr, and with --json on stdout.
func (a *app) complain(err error) {
	if text := messageOf(err); text != "" {
		fmt.Fprintf(a.stderr, "carousel: %s\n", text)
	}
	a.printProblem(err)
}

// short returns err, or the lack of memory that caused it.
func (a *app) short(err error) error {
	lack := a.lack.Load()
	if err == nil || lack == nil || exitCode(err) != exitInterrupted {
		return err
	}
	if text := messageOf(err); strings.HasPrefix(text, "interrupted at ") || strings.Contains(text, "to continue: ") {
		return &exhausted{lack.text + "; " + text}
	}
	return lack
}

// stoppable is context.WithCancel, whose end watchMemory may bring.
func (a *app) stoppable(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	a.stop.Store(&cancel)
	return ctx, func() {
		a.stop.Store(nil)
		cancel()
	}
}

// unlimited is the size from which a limit is none: control groups write one as the
// largest number of pages.
const unlimited = math.MaxInt64 / 2
