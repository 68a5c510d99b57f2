package loadtest

import (
	"errors"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Report is what [Run] measured.
type Report struct {
	Elapsed time.Duration // from the beginning to the last answer
	CPU     time.Duration // processor time of this process meanwhile; 0: not known
	Total   *Latency      // of all kinds
	Kinds   []*Latency    // by kind
	Service *Latency      // from sending to the answer, without what a request waited before
	Late    *Latency      // how long after it was due a request was sent that had nothing to wait for: the generator's own delay
	Queued  int           // requests of an open loop that waited for a client, or for their session's last answer
	Waiting int           // of those, never sent
	Lost    int           // requests without an answer at the end of the grace; the latencies have how long they had waited
	Errors  []Errors      // by kind, the most frequent first
}

// Errors counts errors of a kind.
type Errors struct {
	Kind  string `json:"kind"`  // HTTP and the status, gRPC and the code (in a stream gRPC error_message), connection, timeout, with --check answer (not one of the protocol) or differs
	Count int    `json:"count"` // requests
	First string `json:"first"` // the message of the first
}

func newReport(kinds int) *Report {
	r := &Report{Total: newLatency(), Service: newLatency(), Late: newLatency()}
	for range kinds {
		r.Kinds = append(r.Kinds, newLatency())
	}
	return r
}

// Answered is the number of requests with a right answer.
func (r *Report) Answered() int { return r.Total.Count() - r.Lost }

// Failed is the number of requests with an error.
func (r *Report) Failed() int {
	n := 0
	for _, e := range r.Errors {
		n += e.Count
	}
	return n
}

// PerSecond is the number of right answers a second.
func (r *Report) PerSecond() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.Answered()) / r.Elapsed.Seconds()
}

func (r *Report) add(kind int, latency, service time.Duration, err error) {
	if err == nil {
		r.Total.add(latency)
		r.Kinds[kind].add(latency)
		r.Service.add(service)
		return
	}
	name, first := "other", err.Error()
	var f *Failure
	if errors.As(err, &f) {
		name, first = f.Kind, f.Err.Error()
	}
	i := slices.IndexFunc(r.Errors, func(e Errors) bool { return e.Kind == name })
	if i < 0 {
		i = len(r.Errors)
		r.Errors = append(r.Errors, Errors{Kind: name, First: first})
	}
	r.Errors[i].Count++
	for ; i > 0 && r.Errors[i].Count > r.Errors[i-1].Count; i-- {
		r.Errors[i], r.Errors[i-1] = r.Errors[i-1], r.Errors[i]
	}
}

// unanswered adds a request that nobody waits for any more. Its latency would have been
// longer; without it the worst would be missing from the percentiles.
func (r *Report) unanswered(kind int, waited time.Duration) {
	r.Lost++
	r.Total.add(waited)
	r.Kinds[kind].add(waited)
}

func (r *Report) late(d time.Duration) { r.Late.add(d) }

// Latency is a distribution of durations, to three significant digits.
type Latency struct{ h *hdrhistogram.Histogram }

// longest is what longer durations count as.
const longest = 2 * time.Hour

func newLatency() *Latency { return &Latency{hdrhistogram.New(1, int64(longest), 3)} }

func (l *Latency) add(d time.Duration) { l.h.RecordValue(int64(min(max(d, 0), longest))) }

// Count is the number of durations.
func (l *Latency) Count() int { return int(l.h.TotalCount()) }

// Mean returns the mean; 0 if there is none.
func (l *Latency) Mean() time.Duration { return time.Duration(l.h.Mean()) }

// Max returns the longest; 0 if there is none.
func (l *Latency) Max() time.Duration { return time.Duration(l.h.Max()) }

// Quantile returns the duration that a share p of them, from 0 to 1, does not exceed; 0 if
// there is none.
func (l *Latency) Quantile(p float64) time.Duration {
	return min(time.Duration(l.h.ValueAtQuantile(100*p)), l.Max())
}

// Above returns how many are longer than d.
func (l *Latency) Above(d time.Duration) int {
	n := 0
	for _, b := range l.h.Distribution() {
		if b.From > int64(d) {
			n += int(b.Count)
		}
	}
	return n
}

// Bucket is a bar of a histogram.
type Bucket struct {
	From  float64 `json:"from_ms"` // milliseconds: latencies of at least these
	To    float64 `json:"to_ms"`   // and of less than these
	Count int     `json:"count"`   // requests
}

// perOctave are the buckets from a duration to twice it.
const perOctave = 2

// Buckets divides the durations into some ranges whose ends rise by a constant factor.
func (l *Latency) Buckets() []Bucket {
	counts := map[int]int{}
	for _, b := range l.h.Distribution() {
		if b.Count > 0 {
			counts[bucketOf(b.From)] += int(b.Count)
		}
	}
	if len(counts) == 0 {
		return nil
	}
	keys := slices.Sorted(maps.Keys(counts))
	var list []Bucket
	for i := keys[0]; i <= keys[len(keys)-1]; i++ {
		list = append(list, Bucket{From: bucketBegin(i), To: bucketBegin(i + 1), Count: counts[i]})
	}
	return list
}

// bucketOf is the bucket of a duration in nanoseconds.
func bucketOf(ns int64) int {
	return int(math.Floor(perOctave * math.Log2(float64(max(ns, 1))/1e6)))
}

// bucketBegin is the least duration of a bucket in milliseconds.
func bucketBegin(i int) float64 { return math.Exp2(float64(i) / perOctave) }
