package loadtest

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// clock waits for moments to within some microseconds. A timer of Go's may be late by a
// millisecond when the process is idle, because the runtime's poller counts in these; such
// a delay would count as the server's latency. So a moment is an event of a file that the
// poller waits for, as for connections: that is exact, and takes no thread that others
// would have to be woken beside.
type clock struct {
	fd     int
	file   *os.File
	forget func() bool
}

// newClock returns a clock whose waits end with ctx; nil if the system gives none, and a
// nil clock waits by timers.
func newClock(ctx context.Context) *clock {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil
	}
	c := &clock{fd: fd, file: os.NewFile(uintptr(fd), "timer")}
	c.forget = context.AfterFunc(ctx, func() { c.file.SetReadDeadline(time.Unix(1, 0)) })
	return c
}

func (c *clock) stop() {
	if c != nil {
		c.forget()
		c.file.Close()
	}
}

// until waits for a moment, or for the end of ctx, which is that of newClock.
func (c *clock) until(ctx context.Context, t time.Time) {
	if c == nil {
		sleepUntil(ctx, t)
		return
	}
	var count [8]byte // of events
	for ctx.Err() == nil {
		d := time.Until(t)
		if d <= 0 {
			return
		}
		set := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}
		if unix.TimerfdSettime(c.fd, 0, &set, nil) != nil {
			sleepUntil(ctx, t)
			return
		}
		c.file.Read(count[:]) // an error is the end of ctx
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
