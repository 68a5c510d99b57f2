package loadtest

import (
	"context"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// clock waits for moments to within some microseconds. A timer of Go's may be late by a
// millisecond when the process is idle, because the poller counts in these; such a delay
// would count as the server's latency. So the waiting is a system call of a thread of its
// own, without the 50 microseconds by which the system would join timers.
type clock struct{}

func newClock() clock {
	runtime.LockOSThread()
	unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) // refused: sends are some 50 microseconds later, and said to be
	return clock{}
}

func (clock) stop() {
	unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) // 0 is the default
	runtime.UnlockOSThread()
}

// nap is the longest system call, so that a wait ends soon after its context.
const nap = 20 * time.Millisecond

// until waits for a moment, or for the end of ctx.
func (clock) until(ctx context.Context, t time.Time) {
	for ctx.Err() == nil {
		d := time.Until(t)
		if d <= 0 {
			return
		}
		spec := unix.NsecToTimespec(int64(min(d, nap)))
		unix.Nanosleep(&spec, nil) // an interrupted one begins again
	}
}

// processorTime is the time that this process has used of all cores.
func processorTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
