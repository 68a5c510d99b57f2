package train

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

// Timeline writes what a rank does and when, in Chrome's trace format (the JSON array of
// complete events), for Perfetto or chrome://tracing: a process is a rank, and its tracks
// are the training, the sums of gradients with other ranks, and the loading of batches.
// Times are microseconds of the wall clock, so that the files of ranks on one machine can
// be laid side by side. Spans are those of the host: on a device that runs ahead they
// show when work was enqueued and where the host waited.
//
// The file is a whole JSON document after each write, which is at least every second in
// which something ends, so a killed run leaves what it did before. Little of it is held
// in memory. A nil Timeline records nothing and costs nothing.
type Timeline struct {
	mu      sync.Mutex
	file    *os.File
	rank    int
	begun   time.Time
	text    []byte // events that are not in the file
	end     int64  // of the events in the file
	written time.Time
	err     error
}

// track is a row of a rank's timeline.
type track int

const (
	trackTraining track = iota
	trackSums
	trackLoading
)

// timelineEnd closes the array; the next events replace it.
const timelineEnd = "\n]\n"

// timelineRoom is how many bytes of events are held at most.
const timelineRoom = 32 << 10

// NewTimeline creates the file at path, or replaces it, for this rank. The error is
// os.Create's. Close it after the run.
func NewTimeline(path string, rank int) (*Timeline, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	t := &Timeline{file: f, rank: rank, begun: time.Now(), text: make([]byte, 0, timelineRoom+1024)}
	t.text = fmt.Appendf(t.text, "[\n"+`{"name":"process_name","ph":"M","pid":%d,"tid":0,"args":{"name":"rank %d"}}`, rank, rank)
	for i, name := range []string{"training", "sums", "loading"} {
		t.text = fmt.Appendf(t.text, ",\n"+`{"name":"thread_name","ph":"M","pid":%d,"tid":%d,"args":{"name":%q}}`, rank, i, name)
	}
	t.flush()
	return t, t.err
}

// now is the time at which a span begins.
func (t *Timeline) now() (at time.Time) {
	if t != nil {
		at = time.Now()
	}
	return at
}

// span records what began at from and ends now. The name is plain ASCII.
func (t *Timeline) span(on track, name string, from time.Time) {
	if t == nil {
		return
	}
	to := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		return
	}
	b := append(t.text, ",\n{\"name\":"...)
	b = strconv.AppendQuoteToASCII(b, name)
	b = append(b, `,"ph":"X","pid":`...)
	b = strconv.AppendInt(b, int64(t.rank), 10)
	b = append(b, `,"tid":`...)
	b = strconv.AppendInt(b, int64(on), 10)
	b = append(b, `,"ts":`...)
	b = strconv.AppendInt(b, t.begun.UnixMicro()+from.Sub(t.begun).Microseconds(), 10)
	b = append(b, `,"dur":`...)
	b = strconv.AppendFloat(b, float64(to.Sub(from).Nanoseconds())/1000, 'f', 3, 64)
	t.text = append(b, '}')
	if len(t.text) >= timelineRoom || to.Sub(t.written) >= time.Second {
		t.flush()
	}
}

// flush writes the events that are held, and the end of the array after them.
func (t *Timeline) flush() {
	n := len(t.text)
	if n == 0 || t.err != nil {
		return
	}
	_, t.err = t.file.WriteAt(append(t.text, timelineEnd...), t.end)
	t.end += int64(n)
	t.text, t.written = t.text[:0], time.Now()
}

// Close writes what is held and closes the file. The error is the first of a write.
func (t *Timeline) Close() error {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.flush()
	err := t.file.Close()
	if t.err != nil {
		err = t.err
	}
	t.err = os.ErrClosed // later spans are left out
	return err
}
